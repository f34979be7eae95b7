//! What registrar, B2BUA and trunks of one shard have in common: transactions, tokens, ports, the output queue.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use model::id::IdSource;
use model::time::Now;
use sip_engine::dialog::Hop;
use sip_engine::digest::DigestServer;
use sip_engine::{Peer, ServerKey, Tokens, Transactions, Transport};
use sip_message::build::{RequestBuilder, ResponseBuilder};
use sip_message::{HeaderName, Message, reason_of};

use crate::config::ServicesConfig;
use crate::directory::Directory;
use crate::ports::{JournalPort, MediaPort, Output, Shared};
use crate::shard::ShardIndex;
use crate::stats::Stats;

/// The methods that we answer with something else than 405 or 501.
pub(crate) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, UPDATE, OPTIONS, REGISTER";
/// The same within a call, where some pass from end to end.
pub(crate) const ALLOW_IN_CALL: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, MESSAGE, UPDATE";
/// Media type of session descriptions.
pub(crate) const SDP: &str = "application/sdp";

pub(crate) struct Io {
    pub now: Now,
    pub config: ServicesConfig,
    pub shard: ShardIndex,
    pub shared: Arc<Shared>,
    pub transactions: Transactions,
    pub digest: DigestServer,
    pub tokens: Tokens,
    pub ids: Arc<dyn IdSource>,
    pub media: Box<dyn MediaPort>,
    pub journal: Box<dyn JournalPort>,
    pub out: VecDeque<Output>,
    pub stats: Stats,
}

/// A refusal of a request.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub status: u16,
    pub headers: Vec<(HeaderName, Vec<u8>)>,
}

impl Refusal {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new() }
    }

    pub fn with(mut self, name: HeaderName, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Io {
    pub fn directory(&self) -> Arc<Directory> {
        self.shared.directory.load_full()
    }

    /// Host and port of the listener that `peer` uses.
    pub fn sent_by(&self, peer: Peer) -> String {
        let listener = self.shared.listeners.get(usize::from(peer.local)).or_else(|| self.shared.listeners.first());
        listener.map_or_else(|| "localhost".to_owned(), ToString::to_string)
    }

    /// Our Contact towards `peer`: it says by which transport (RFC 3261, section 19.1.1; UDP is what none means).
    pub fn contact(&self, peer: Peer) -> String {
        match peer.transport {
            Transport::Udp => format!("<sip:{}>", self.sent_by(peer)),
            other => format!("<sip:{};transport={}>", self.sent_by(peer), other.as_str().to_ascii_lowercase()),
        }
    }

    /// Begins a response; `tag` is ours for To.
    pub fn response<'a>(&self, request: &'a Message, peer: Peer, status: u16, tag: &str) -> ResponseBuilder<'a> {
        let builder = ResponseBuilder::response_to(request, status, reason_of(status)).source(peer.remote);
        let builder = if status == 100 { builder } else { builder.to_tag(tag.as_bytes()) };
        builder.header(HeaderName::Server, &self.config.product)
    }

    /// Finishes a response and sends it; a response that can't be built (a hostile value that we would have to
    /// repeat) is counted and not sent. When it is a final one, its request is given up: it would hold a transaction
    /// for ever.
    pub fn respond(&mut self, key: ServerKey, builder: ResponseBuilder<'_>) -> Option<Bytes> {
        let status = builder.status();
        match builder.finish() {
            Ok(bytes) => {
                self.transactions.respond(self.now.mono, key, bytes.clone());
                Some(bytes)
            }
            Err(_) => {
                self.stats.unbuildable += 1;
                if status >= 200 {
                    self.transactions.abandon(self.now.mono, key);
                }
                None
            }
        }
    }

    /// Answers with a status and nothing more, outside any dialog of ours.
    pub fn reply(&mut self, key: ServerKey, request: &Message, peer: Peer, status: u16) {
        self.reply_as(key, request, peer, status, None);
    }

    /// Answers with a status and nothing more; `tag` is ours for To where the request has none.
    pub fn reply_as(&mut self, key: ServerKey, request: &Message, peer: Peer, status: u16, tag: Option<&str>) {
        self.refuse(key, request, peer, Refusal::new(status), tag);
    }

    /// Answers with a refusal.
    pub fn refuse(&mut self, key: ServerKey, request: &Message, peer: Peer, refusal: Refusal, tag: Option<&str>) {
        let fresh = self.tokens.tag();
        let mut builder = self.response(request, peer, refusal.status, tag.unwrap_or(&fresh));
        if refusal.status == 405 {
            let in_dialog = request.to().is_ok_and(|to| to.tag().is_some());
            builder = builder.header(HeaderName::Allow, if in_dialog { ALLOW_IN_CALL } else { ALLOW });
        }
        for (name, value) in refusal.headers {
            builder = builder.header(name, value);
        }
        self.respond(key, builder);
    }

    /// 503 with Retry-After.
    pub fn overloaded(&self) -> Refusal {
        Refusal::new(503).with(HeaderName::RetryAfter, self.config.retry_after_s.to_string())
    }

    /// 500 to a request that comes while its sender's earlier one is not yet answered: to be sent again within 10
    /// seconds (RFC 3261, section 14.2; RFC 3311, section 5.2).
    pub fn too_early(&mut self) -> Refusal {
        let [wait, ..] = self.tokens.octets();
        Refusal::new(500).with(HeaderName::RetryAfter, (wait % 11).to_string())
    }

    /// Writes a request through `write`, which gets our hop with a fresh branch.
    pub fn hop<T>(&mut self, peer: Peer, write: impl FnOnce(&Hop<'_>) -> T) -> T {
        let (branch, sent_by) = (self.tokens.branch(), self.sent_by(peer));
        write(&Hop { transport: peer.transport, sent_by: sent_by.as_bytes(), branch: &branch })
    }

    /// Finishes a request; a value that can't be sent is counted.
    pub fn finish(&mut self, builder: RequestBuilder) -> Option<Bytes> {
        let bytes = builder.header(HeaderName::UserAgent, &self.config.product).finish();
        if bytes.is_err() {
            self.stats.unbuildable += 1;
        }
        bytes.ok()
    }
}
