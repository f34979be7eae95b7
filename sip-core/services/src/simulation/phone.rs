//! A phone (or a carrier) of the simulation: a small user agent over the same engine.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::secret::Secret;
use sip_engine::dialog::Hop;
use sip_engine::digest::DigestClient;
use sip_engine::{
    ClientKey, Dialog, Due, Peer, Retransmit, ServerKey, Tokens, TransactionConfig, TransactionEvent, Transactions,
    Transport,
};
use sip_message::build::{RequestBuilder, ResponseBuilder};
use sip_message::{HeaderName, Message, Method, reason_of};

use super::change::{Asked, Change, OnChange};
use super::registrar::Registrar;

/// What a phone does with a call that comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// 180, and 200 after so many milliseconds.
    Answer(u64),
    /// 180 and nothing more.
    Ring,
    /// This final status.
    Refuse(u16),
    /// No response at all.
    Silent,
    /// 200 even after a CANCEL came: the answer crosses it.
    AnswerOnCancel,
    /// 180, and this final status after so many milliseconds.
    RingThenRefuse(u64, u16),
    /// 183 with a session, and this final status after so many milliseconds.
    EarlyThenRefuse(u64, u16),
    /// Nothing for so many milliseconds, then 200; deaf to a CANCEL.
    AnswerLate(u64),
    /// As [`Behaviour::Answer`] after a challenge; BYE is challenged as well, and an ACK without the credentials of its
    /// INVITE is not heard.
    Challenge(u64),
}

/// A call that this phone has placed.
#[derive(Debug)]
pub struct Placed {
    client: ClientKey,
    pub invite: Message,
    challenged: bool,
    pub(super) dialog: Option<Dialog>,
    /// Provisional statuses that were heard, in order, without repetitions.
    pub progress: Vec<u16>,
    /// The final status.
    pub status: Option<u16>,
    /// The other side has hung up.
    pub released: bool,
    pub body: Vec<u8>,
    /// Never send the ACK for a 200.
    pub mute_ack: bool,
    ack: Option<Bytes>,
}

/// A call that this phone has got.
#[derive(Debug)]
pub struct Got {
    pub invite: Message,
    key: ServerKey,
    tag: String,
    pub(super) dialog: Dialog,
    answer_at: Option<Instant>,
    repeat: Option<Retransmit>,
    pub answered: bool,
    pub acknowledged: bool,
    pub ack_body: Vec<u8>,
    pub cancelled: bool,
    pub released: bool,
}

pub struct Phone {
    pub address: SocketAddr,
    pub user: String,
    pub domain: String,
    pub behaviour: Behaviour,
    pub placed: Vec<Placed>,
    pub got: Vec<Got>,
    pub registered: Option<u16>,
    pub contacts: Vec<String>,
    /// Answers OPTIONS.
    pub alive: bool,
    pub pings: u32,
    pub expires: Option<u32>,
    /// Signs this in place of the Request-URI.
    pub signed_uri: Option<&'static str>,
    /// The body of its 200.
    pub answer_body: &'static str,
    /// A carrier that wants REGISTER.
    pub registrar: Option<Registrar>,
    pub on_change: OnChange,
    /// Changes of a session that this phone has asked for.
    pub changes: Vec<Change>,
    /// Changes that it was asked for.
    pub asked: Vec<Asked>,
    /// Other requests within calls that it got: method and body.
    pub heard: Vec<(Method, Vec<u8>)>,
    /// The answers to those that it sent: status and body.
    pub replies: Vec<(u16, Vec<u8>)>,
    password: String,
    server: SocketAddr,
    register: Option<(ClientKey, Message)>,
    register_seq: u32,
    pub(super) tokens: Tokens,
    pub(super) transactions: Transactions,
}

pub const OFFER: &str =
    "v=0\r\no=- 1 1 IN IP4 10.1.1.1\r\ns=-\r\nc=IN IP4 10.1.1.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

impl Phone {
    pub fn new(address: SocketAddr, server: SocketAddr, user: &str, domain: &str, password: &str, seed: u8) -> Self {
        let config = TransactionConfig::default();
        Self {
            address,
            user: user.to_owned(),
            domain: domain.to_owned(),
            behaviour: Behaviour::Answer(1_000),
            placed: Vec::new(),
            got: Vec::new(),
            registered: None,
            contacts: Vec::new(),
            alive: true,
            pings: 0,
            expires: None,
            signed_uri: None,
            answer_body: OFFER,
            registrar: None,
            on_change: OnChange::Accept,
            changes: Vec::new(),
            asked: Vec::new(),
            heard: Vec::new(),
            replies: Vec::new(),
            password: password.to_owned(),
            server,
            register: None,
            register_seq: 0,
            tokens: Tokens::new([seed; 32]),
            transactions: Transactions::new(config, u64::from(seed)),
        }
    }

    pub(super) fn peer(&self) -> Peer {
        Peer::udp(self.server, 0)
    }

    pub(super) fn contact(&self) -> String {
        format!("<sip:{}@{}>", self.user, self.address)
    }

    pub(super) fn credentials(&self) -> DigestClient {
        DigestClient::new(self.user.clone(), Secret::new(self.password.clone()))
    }

    fn request(&mut self, method: &Method, uri: &str, to: &str, call_id: &str, cseq: u32) -> RequestBuilder {
        let (branch, tag, sent_by) = (self.tokens.branch(), self.tokens.tag(), self.address.to_string());
        let from = format!("\"{}\" <sip:{}@{}>;tag={tag}", self.user, self.user, self.domain);
        RequestBuilder::new(method, uri.as_bytes())
            .via("UDP", sent_by.as_bytes(), branch.as_bytes())
            .base(from.as_bytes(), to.as_bytes(), call_id.as_bytes(), cseq, method, 70)
            .header(HeaderName::Contact, self.contact())
    }

    pub fn register(&mut self, now: Instant) {
        self.register_with(now, "", None);
    }

    fn register_with(&mut self, now: Instant, call_id: &str, answer: Option<(HeaderName, Vec<u8>)>) {
        self.register_seq += 1;
        let (uri, to) = (format!("sip:{}", self.domain), format!("<sip:{}@{}>", self.user, self.domain));
        let call_id = if call_id.is_empty() { self.tokens.call_id("phone-") } else { call_id.to_owned() };
        let mut builder = self.request(&Method::Register, &uri, &to, &call_id, self.register_seq);
        if let Some(expires) = self.expires {
            builder = builder.header(HeaderName::Expires, expires.to_string());
        }
        if let Some((name, value)) = answer {
            builder = builder.header(name, value);
        }
        let bytes = builder.finish().unwrap();
        let message = Message::parse_datagram(bytes.clone()).unwrap();
        let client = self.transactions.request(now, bytes, self.peer()).unwrap();
        self.register = Some((client, message));
    }

    /// Places a call; its index among [`Phone::placed`].
    pub fn call(&mut self, now: Instant, to: &str, offer: &str) -> usize {
        let uri = format!("sip:{to}@{}", self.domain);
        self.call_as(now, &uri, &format!("<{uri}>"), offer)
    }

    /// As [`Phone::call`], with a Request-URI and To that differ.
    pub fn call_as(&mut self, now: Instant, uri: &str, to: &str, offer: &str) -> usize {
        let call_id = self.tokens.call_id("phone-");
        let mut builder = self.request(&Method::Invite, uri, to, &call_id, 1);
        if !offer.is_empty() {
            builder = builder.body("application/sdp", offer);
        }
        let bytes = builder.finish().unwrap();
        let invite = Message::parse_datagram(bytes.clone()).unwrap();
        let client = self.transactions.request(now, bytes, self.peer()).unwrap();
        self.placed.push(Placed {
            client,
            invite,
            challenged: false,
            dialog: None,
            progress: Vec::new(),
            status: None,
            released: false,
            body: Vec::new(),
            mute_ack: false,
            ack: None,
        });
        self.placed.len() - 1
    }

    pub fn cancel(&mut self, now: Instant, call: usize) {
        self.transactions.cancel(now, self.placed[call].client);
    }

    pub(super) fn hop<T>(&mut self, write: impl FnOnce(&Hop<'_>) -> T) -> T {
        let (branch, sent_by) = (self.tokens.branch(), self.address.to_string());
        write(&Hop { transport: Transport::Udp, sent_by: sent_by.as_bytes(), branch: &branch })
    }

    /// Hangs up a call that was placed.
    pub fn hang_up(&mut self, now: Instant, call: usize) {
        let Some(mut dialog) = self.placed[call].dialog.clone() else { return };
        self.bye(now, &mut dialog);
        self.placed[call].dialog = Some(dialog);
    }

    /// Hangs up a call that was got.
    pub fn hang_up_got(&mut self, now: Instant, call: usize) {
        let mut dialog = self.got[call].dialog.clone();
        self.bye(now, &mut dialog);
        self.got[call].dialog = dialog;
        self.got[call].released = true;
    }

    fn bye(&mut self, now: Instant, dialog: &mut Dialog) {
        let bytes = self.hop(|hop| dialog.request(&Method::Bye, hop)).finish().unwrap();
        let peer = self.peer();
        self.transactions.request(now, bytes, peer).unwrap();
    }

    pub fn receive(&mut self, now: Instant, bytes: Bytes, from: SocketAddr) {
        let message = Message::parse_datagram(bytes).expect("the core sends what can be read");
        self.transactions.receive(now, message, Peer::udp(from, 0));
        self.events(now);
    }

    pub fn timeout(&mut self, now: Instant) {
        self.transactions.handle_timeout(now);
        self.events(now);
        for at in 0..self.got.len() {
            if self.got[at].answer_at.is_some_and(|due| due <= now) {
                self.answer(now, at);
            }
            while let Some(due) = self.got[at].repeat.as_mut().map(|repeat| repeat.poll(now)) {
                match due {
                    Due::Send(bytes, peer) => self.transactions.send(bytes, peer),
                    Due::Wait(_) => break,
                    Due::Expired => self.got[at].repeat = None,
                }
            }
        }
        self.change_timeout(now);
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let got = self.got.iter().flat_map(|g| [g.answer_at, g.repeat.as_ref().map(Retransmit::next_timeout)]);
        got.flatten().chain(self.transactions.next_timeout()).chain(self.change_next_timeout()).min()
    }

    pub fn transmit(&mut self) -> Option<(Bytes, SocketAddr)> {
        self.transactions.poll_transmit().map(|(bytes, peer)| (bytes, peer.remote))
    }

    fn events(&mut self, now: Instant) {
        while let Some(event) = self.transactions.poll_event() {
            match event {
                TransactionEvent::Request { key, msg, peer } => self.requested(now, key, &msg, peer),
                TransactionEvent::Cancel { key, invite, msg, peer } => {
                    self.reply(now, key, &msg, peer, if invite.is_some() { 200 } else { 481 }, "c");
                    if let Some(at) = self.got.iter().position(|got| Some(got.key) == invite) {
                        self.cancelled(now, at);
                    }
                    if let Some(invite) = invite {
                        self.change_asked_cancelled(now, invite);
                    }
                }
                TransactionEvent::Ack { msg, .. } => {
                    self.change_acknowledged(&msg);
                    let credentials = msg.header(HeaderName::ProxyAuthorization);
                    let challenged = matches!(self.behaviour, Behaviour::Challenge(_));
                    let first = |got: &&mut Got| got.invite.cseq().unwrap().0 == msg.cseq().unwrap().0;
                    for got in self.got.iter_mut().filter(|got| got.dialog.matches(&msg)).filter(first) {
                        if challenged && credentials != got.invite.header(HeaderName::ProxyAuthorization) {
                            continue;
                        }
                        got.repeat = None;
                        got.acknowledged = true;
                        got.ack_body = msg.body().to_vec();
                    }
                }
                TransactionEvent::Response { key, msg } => self.answered(now, key, &msg),
                TransactionEvent::Timeout { key } => {
                    self.change_unanswered(key);
                    if let Some(placed) = self.placed.iter_mut().find(|placed| placed.client == key) {
                        placed.status.get_or_insert(408);
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn response<'a>(&self, msg: &'a Message, peer: Peer, status: u16, tag: &str) -> ResponseBuilder<'a> {
        ResponseBuilder::response_to(msg, status, reason_of(status))
            .source(peer.remote)
            .to_tag(tag.as_bytes())
            .record_route()
            .header(HeaderName::Contact, self.contact())
    }

    pub(super) fn reply(&mut self, now: Instant, key: ServerKey, msg: &Message, peer: Peer, status: u16, tag: &str) {
        let bytes = self.response(msg, peer, status, tag).finish().unwrap();
        self.transactions.respond(now, key, bytes);
    }

    fn requested(&mut self, now: Instant, key: ServerKey, msg: &Message, peer: Peer) {
        match msg.method() {
            Method::Invite | Method::Update if msg.to().unwrap().tag().is_some() && self.challenges(msg) => {
                self.challenge(now, key, msg, peer, "n");
            }
            Method::Invite | Method::Update if msg.to().unwrap().tag().is_some() => {
                self.change_asked(now, key, msg, peer);
            }
            Method::Register => self.register_asked(now, key, msg, peer),
            Method::Info | Method::Message => {
                self.heard.push((msg.method().clone(), msg.body().to_vec()));
                self.reply(now, key, msg, peer, 200, "i");
            }
            Method::Invite => self.rung(now, key, msg, peer),
            Method::Bye if self.challenges(msg) => self.challenge(now, key, msg, peer, "b"),
            Method::Bye => {
                let got = self.got.iter_mut().filter(|got| got.dialog.matches(msg)).map(|got| &mut got.released);
                let placed = self
                    .placed
                    .iter_mut()
                    .filter(|placed| placed.dialog.as_ref().is_some_and(|d| d.matches(msg)))
                    .map(|placed| &mut placed.released);
                let mut known = false;
                for released in got.chain(placed) {
                    *released = true;
                    known = true;
                }
                self.reply(now, key, msg, peer, if known { 200 } else { 481 }, "b");
            }
            Method::Options => {
                self.pings += 1;
                if self.alive {
                    self.reply(now, key, msg, peer, 200, "o");
                }
            }
            _ => self.reply(now, key, msg, peer, 501, "x"),
        }
    }

    fn challenges(&self, msg: &Message) -> bool {
        matches!(self.behaviour, Behaviour::Challenge(_)) && msg.header(HeaderName::ProxyAuthorization).is_none()
    }

    fn challenge(&mut self, now: Instant, key: ServerKey, msg: &Message, peer: Peer, tag: &str) {
        let bytes = self
            .response(msg, peer, 407, tag)
            .header(HeaderName::ProxyAuthenticate, "Digest realm=\"carrier\", nonce=\"n\", qop=\"auth\"")
            .finish()
            .unwrap();
        self.transactions.respond(now, key, bytes);
    }

    fn rung(&mut self, now: Instant, key: ServerKey, msg: &Message, peer: Peer) {
        let tag = self.tokens.tag();
        let answer_at = match self.behaviour {
            Behaviour::Silent => return,
            Behaviour::Refuse(status) => return self.reply(now, key, msg, peer, status, &tag),
            Behaviour::Challenge(_) if self.challenges(msg) => return self.challenge(now, key, msg, peer, &tag),
            Behaviour::Answer(after)
            | Behaviour::Challenge(after)
            | Behaviour::AnswerLate(after)
            | Behaviour::RingThenRefuse(after, _)
            | Behaviour::EarlyThenRefuse(after, _) => Some(now + Duration::from_millis(after)),
            Behaviour::Ring | Behaviour::AnswerOnCancel => None,
        };
        match self.behaviour {
            Behaviour::AnswerLate(_) => {}
            Behaviour::EarlyThenRefuse(..) => {
                let bytes = self.response(msg, peer, 183, &tag).body("application/sdp", OFFER).finish().unwrap();
                self.transactions.respond(now, key, bytes);
            }
            _ => self.reply(now, key, msg, peer, 180, &tag),
        }
        self.got.push(Got {
            invite: msg.clone(),
            key,
            dialog: Dialog::uas(msg, tag.as_bytes()).unwrap(),
            tag,
            answer_at,
            repeat: None,
            answered: false,
            acknowledged: false,
            ack_body: Vec::new(),
            cancelled: false,
            released: false,
        });
    }

    fn answer(&mut self, now: Instant, at: usize) {
        let peer = self.peer();
        let (msg, tag, key) = (self.got[at].invite.clone(), self.got[at].tag.clone(), self.got[at].key);
        if let Behaviour::RingThenRefuse(_, status) | Behaviour::EarlyThenRefuse(_, status) = self.behaviour {
            self.got[at].answer_at = None;
            return self.reply(now, key, &msg, peer, status, &tag);
        }
        let bytes = self.response(&msg, peer, 200, &tag).body("application/sdp", self.answer_body).finish().unwrap();
        self.transactions.respond(now, key, bytes.clone());
        let timers = self.transactions.config().timers;
        let got = &mut self.got[at];
        got.answer_at = None;
        got.answered = true;
        got.repeat = Some(Retransmit::new(now, &timers, bytes, peer));
    }

    fn cancelled(&mut self, now: Instant, at: usize) {
        self.got[at].cancelled = true;
        if self.got[at].answered || matches!(self.behaviour, Behaviour::AnswerLate(_)) {
            return;
        }
        if self.behaviour == Behaviour::AnswerOnCancel {
            return self.answer(now, at);
        }
        self.got[at].answer_at = None;
        let (msg, tag, key, peer) =
            (self.got[at].invite.clone(), self.got[at].tag.clone(), self.got[at].key, self.peer());
        self.reply(now, key, &msg, peer, 487, &tag);
    }

    fn answered(&mut self, now: Instant, key: ClientKey, msg: &Message) {
        if let Some((client, request)) = self.register.clone()
            && client == key
        {
            return self.register_answered(now, &request, msg);
        }
        let Some(at) = self.placed.iter().position(|placed| placed.client == key) else {
            return self.change_answered(now, key, msg);
        };
        let placed = &mut self.placed[at];
        match msg.status() {
            100 => {}
            status @ 101..=199 => {
                if placed.progress.last() != Some(&status) {
                    placed.progress.push(status);
                }
                placed.body = msg.body().to_vec();
            }
            200..=299 => {
                placed.status = Some(msg.status());
                placed.body = msg.body().to_vec();
                let dialog = placed.dialog.get_or_insert_with(|| Dialog::uac(&placed.invite, msg).unwrap()).clone();
                if placed.mute_ack {
                    return;
                }
                let delayed = placed.invite.body().is_empty();
                let cseq = placed.invite.cseq().unwrap().0;
                let ack = placed.ack.clone().unwrap_or_else(|| {
                    let mut builder = self.hop(|hop| dialog.ack(cseq, hop));
                    if delayed {
                        builder = builder.body("application/sdp", OFFER);
                    }
                    builder.finish().unwrap()
                });
                self.placed[at].ack = Some(ack.clone());
                let peer = self.peer();
                self.transactions.send(ack, peer);
            }
            407 if !placed.challenged => {
                placed.challenged = true;
                let invite = placed.invite.clone();
                let mut credentials = self.credentials();
                let cnonce = self.tokens.cnonce();
                let uri = self.signed_uri.map_or(invite.request_uri(), str::as_bytes);
                let (name, value) = credentials.answer(msg, b"INVITE", uri, invite.body(), &cnonce).unwrap();
                let text = String::from_utf8(invite.as_bytes().to_vec()).unwrap();
                let branch = String::from_utf8(invite.top_via().unwrap().branch().to_vec()).unwrap();
                let header = format!("{}: {}\r\nContact:", name.as_str(), String::from_utf8(value).unwrap());
                let text = text
                    .replace(&branch, &self.tokens.branch())
                    .replace("CSeq: 1 ", "CSeq: 2 ")
                    .replacen("Contact:", &header, 1);
                let invite = Message::parse_datagram(text.into()).unwrap();
                let peer = self.peer();
                let client = self.transactions.request(now, invite.as_bytes().clone(), peer).unwrap();
                self.placed[at].client = client;
                self.placed[at].invite = invite;
            }
            status => placed.status = Some(status),
        }
    }

    fn register_answered(&mut self, now: Instant, request: &Message, msg: &Message) {
        match msg.status() {
            401 if request.header(HeaderName::Authorization).is_none() => {
                let mut credentials = self.credentials();
                let cnonce = self.tokens.cnonce();
                let uri = self.signed_uri.map_or(request.request_uri(), str::as_bytes);
                let answer = credentials.answer(msg, b"REGISTER", uri, b"", &cnonce);
                let call_id = String::from_utf8(request.call_id().to_vec()).unwrap();
                self.register_with(now, &call_id, answer);
            }
            status => {
                self.registered = Some(status);
                let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
                self.contacts = msg.values(HeaderName::Contact).map(text).collect();
            }
        }
    }
}
