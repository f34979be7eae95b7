//! Requests within an answered call that pass from one side to the other and change nothing on the way: INFO (RFC 6086,
//! such as DTMF by signalling) and MESSAGE (RFC 3428).

use media_engine::Side;
use sip_engine::{ClientKey, Peer, ServerKey};
use sip_message::{HeaderName, Message};

use super::Calls;
use super::call::{CallKey, State};
use super::outgoing::Outgoing;
use crate::io::Io;

/// Headers that say what the body is; all others concern one side alone.
const PASSED: [HeaderName; 3] =
    [HeaderName::ContentDisposition, HeaderName::ContentEncoding, HeaderName::ContentLanguage];
/// RFC 6086, section 11.
const INFO_PACKAGE: &[u8] = b"Info-Package";

/// A request that waits for the other side's answer.
pub(super) struct PassedRequest {
    server: ServerKey,
    request: Message,
    peer: Peer,
}

impl Calls {
    /// Sends a request on to the other side.
    pub(super) fn pass(&mut self, io: &mut Io, key: CallKey, side: Side, server: ServerKey, msg: &Message, peer: Peer) {
        let talking = self.calls.get_mut(&key).filter(|call| matches!(call.state, State::Talking(_)));
        let Some(call) = talking else {
            // Not yet: the other side has no dialog, or its 200 is not yet acknowledged.
            let refusal = io.too_early();
            return io.refuse(server, msg, peer, refusal, None);
        };
        let to = side.other();
        let sent = call.peer_of(to).zip(call.dialog_mut(to)).and_then(|(next, dialog)| {
            let mut builder = io.hop(next, |hop| dialog.request(msg.method(), hop));
            for name in PASSED {
                if let Some(value) = msg.header(name) {
                    builder = builder.header(name, value);
                }
            }
            if let Some(package) = msg.header_named(INFO_PACKAGE) {
                builder = builder.named(INFO_PACKAGE, package);
            }
            if let Ok(content_type) = std::str::from_utf8(msg.content_type())
                && !msg.body().is_empty()
            {
                builder = builder.body(content_type, msg.body());
            }
            let bytes = io.finish(builder)?;
            io.transactions.request(io.now.mono, bytes, next).ok()
        });
        let Some(client) = sent else { return io.reply(server, msg, peer, 500) };
        let passed = PassedRequest { server, request: msg.clone(), peer };
        self.outgoing.insert(client, Outgoing::Passed(Box::new(passed)));
    }

    /// The other side's answer.
    pub(super) fn passed_response(&mut self, io: &mut Io, client: ClientKey, msg: &Message) {
        let Some(Outgoing::Passed(passed)) = self.outgoing.get(&client) else { return };
        let status = match msg.status() {
            ..200 => return,
            // Neither a redirection nor a challenge of the other side is one for this side.
            300..=399 | 401 | 407 => 500,
            status => status,
        };
        let tag = passed.request.to().ok().and_then(|to| to.tag()).unwrap_or_default();
        let tag = String::from_utf8_lossy(tag).into_owned();
        let mut response = io.response(&passed.request, passed.peer, status, &tag);
        if status == 405 {
            response = response.header(HeaderName::Allow, crate::io::ALLOW_IN_CALL);
        }
        if let Ok(content_type) = std::str::from_utf8(msg.content_type())
            && !msg.body().is_empty()
        {
            response = response.body(content_type, msg.body());
        }
        let server = passed.server;
        io.respond(server, response);
    }

    /// The other side did not answer.
    pub(super) fn passed_unanswered(io: &mut Io, passed: &PassedRequest, status: u16) {
        io.reply(passed.server, &passed.request, passed.peer, status);
    }
}
