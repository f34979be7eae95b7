//! How a phone of the simulation changes a session within a call, and lets it be changed: re-INVITE and UPDATE with the
//! times of RFC 3261, section 14.1.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_engine::{ClientKey, Dialog, Due, Peer, Retransmit, ServerKey};
use sip_message::build::RequestBuilder;
use sip_message::{HeaderName, Message, Method};

use super::Phone;

/// Attempts at one change before a phone gives in.
const TRIES_MAX: u32 = 6;

/// What a phone says to a change that the other side asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChange {
    /// 200 with its own session, in the same direction.
    Accept,
    /// This final status.
    Refuse(u16),
    /// 100 and nothing more, until a CANCEL comes.
    Wait,
    /// No response at all.
    Silent,
}

/// Which call is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    Placed(usize),
    Got(usize),
}

/// A change that this phone has asked for.
#[derive(Debug)]
pub struct Change {
    pub leg: Leg,
    method: Method,
    /// The offer; empty: the other side is to offer, and `late` is the answer.
    offer: String,
    late: String,
    client: ClientKey,
    request: Message,
    tries: u32,
    again_at: Option<Instant>,
    ack: Option<Bytes>,
    /// Every final status that came, in order.
    pub statuses: Vec<u16>,
    /// The session that the other side has answered or offered.
    pub body: Vec<u8>,
}

/// A change that this phone was asked for.
#[derive(Debug)]
pub struct Asked {
    pub request: Message,
    key: ServerKey,
    repeat: Option<Retransmit>,
    pub status: Option<u16>,
    pub acknowledged: bool,
    pub ack_body: Vec<u8>,
}

/// A session at this port; `direction` such as `sendonly`, `0.0.0.0` for the old way of holding.
pub fn session(port: u16, direction: &str) -> String {
    let (address, attribute) = match direction {
        "0.0.0.0" => ("0.0.0.0", String::new()),
        "" => ("10.1.1.1", String::new()),
        direction => ("10.1.1.1", format!("a={direction}\r\n")),
    };
    format!(
        "v=0\r\no=- 1 {port} IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8\r\n{attribute}"
    )
}

impl Phone {
    fn dialog_of(&mut self, leg: Leg) -> Option<&mut Dialog> {
        match leg {
            Leg::Placed(at) => self.placed.get_mut(at)?.dialog.as_mut(),
            Leg::Got(at) => self.got.get_mut(at).map(|got| &mut got.dialog),
        }
    }

    /// Asks for another session; without an offer the other side offers and `late` answers.
    pub fn change(&mut self, now: Instant, leg: Leg, method: Method, offer: &str, late: &str) -> Option<usize> {
        let (client, request) = self.send_change(now, leg, &method, offer, None)?;
        self.changes.push(Change {
            leg,
            method,
            offer: offer.to_owned(),
            late: late.to_owned(),
            client,
            request,
            tries: 1,
            again_at: None,
            ack: None,
            statuses: Vec::new(),
            body: Vec::new(),
        });
        Some(self.changes.len() - 1)
    }

    /// Sends a request within a call.
    pub fn send(&mut self, now: Instant, leg: Leg, method: &Method, content_type: &str, body: &str) {
        let builder = self.within(leg, method).expect("a dialog");
        let bytes = builder.body(content_type, body).finish().unwrap();
        let peer = self.peer();
        self.transactions.request(now, bytes, peer).unwrap();
    }

    /// Cancels the last change.
    pub fn cancel_change(&mut self, now: Instant) {
        let client = self.changes.last().unwrap().client;
        self.transactions.cancel(now, client);
    }

    fn within(&mut self, leg: Leg, method: &Method) -> Option<RequestBuilder> {
        let mut dialog = self.dialog_of(leg)?.clone();
        let contact = self.contact();
        let builder = self.hop(|hop| dialog.request(method, hop)).header(HeaderName::Contact, contact);
        *self.dialog_of(leg)? = dialog;
        Some(builder)
    }

    fn send_change(
        &mut self,
        now: Instant,
        leg: Leg,
        method: &Method,
        offer: &str,
        credentials: Option<(HeaderName, Vec<u8>)>,
    ) -> Option<(ClientKey, Message)> {
        let mut builder = self.within(leg, method)?;
        if let Some((name, value)) = credentials {
            builder = builder.header(name, value);
        }
        if !offer.is_empty() {
            builder = builder.body("application/sdp", offer);
        }
        let bytes = builder.finish().unwrap();
        let request = Message::parse_datagram(bytes.clone()).unwrap();
        let peer = self.peer();
        Some((self.transactions.request(now, bytes, peer).unwrap(), request))
    }

    pub(super) fn change_answered(&mut self, now: Instant, key: ClientKey, msg: &Message) {
        let Some(at) = self.changes.iter().position(|change| change.client == key) else {
            if msg.status() >= 200 && matches!(msg.method(), Method::Info | Method::Message | Method::Update) {
                self.replies.push((msg.status(), msg.body().to_vec()));
            }
            return;
        };
        let change = &mut self.changes[at];
        match msg.status() {
            100..=199 => {}
            status @ 200..=299 => {
                if change.ack.is_none() {
                    change.statuses.push(status);
                    change.body = msg.body().to_vec();
                }
                if change.method != Method::Invite {
                    return;
                }
                let (leg, cseq) = (change.leg, change.request.cseq().unwrap().0);
                let late = if change.offer.is_empty() { change.late.clone() } else { String::new() };
                let known = change.ack.clone();
                let Some(dialog) = self.dialog_of(leg).map(|dialog| dialog.clone()) else { return };
                let ack = known.unwrap_or_else(|| {
                    let mut builder = self.hop(|hop| dialog.ack(cseq, hop));
                    if !late.is_empty() {
                        builder = builder.body("application/sdp", late);
                    }
                    builder.finish().unwrap()
                });
                self.changes[at].ack = Some(ack.clone());
                let peer = self.peer();
                self.transactions.send(ack, peer);
            }
            491 => {
                change.statuses.push(491);
                // The owner of the Call-ID waits longer, so that the two don't meet again.
                let drawn = u64::from(self.tokens.octets()[0]);
                let change = &mut self.changes[at];
                let wait = match change.leg {
                    Leg::Placed(_) => 2_100 + drawn * 1_900 / 255,
                    Leg::Got(_) => drawn * 2_000 / 255,
                };
                change.again_at = (change.tries < TRIES_MAX).then(|| now + Duration::from_millis(wait));
            }
            status => change.statuses.push(status),
        }
    }

    pub(super) fn change_unanswered(&mut self, key: ClientKey) {
        if let Some(change) = self.changes.iter_mut().find(|change| change.client == key) {
            change.statuses.push(408);
        }
    }

    /// Whether a change of ours on this dialog has no final response yet.
    fn is_changing(&mut self, msg: &Message) -> bool {
        let open: Vec<Leg> = self
            .changes
            .iter()
            .filter(|change| {
                let tries = usize::try_from(change.tries).unwrap();
                change.statuses.len() < tries && change.again_at.is_none()
            })
            .map(|change| change.leg)
            .collect();
        open.into_iter().any(|leg| self.dialog_of(leg).is_some_and(|dialog| dialog.matches(msg)))
    }

    pub(super) fn change_asked(&mut self, now: Instant, key: ServerKey, msg: &Message, peer: Peer) {
        let legs = (0..self.placed.len()).map(Leg::Placed).chain((0..self.got.len()).map(Leg::Got));
        let leg = legs.into_iter().find(|leg| self.dialog_of(*leg).is_some_and(|dialog| dialog.matches(msg)));
        let Some(leg) = leg else { return self.reply(now, key, msg, peer, 481, "n") };
        let dialog = self.dialog_of(leg).unwrap();
        if let Err(error) = dialog.receive(msg) {
            return self.reply(now, key, msg, peer, error.status(), "n");
        }
        dialog.accept_target(msg);
        let invite = *msg.method() == Method::Invite;
        let glare = self.is_changing(msg);
        let mut asked =
            Asked { request: msg.clone(), key, repeat: None, status: None, acknowledged: false, ack_body: Vec::new() };
        match self.on_change {
            OnChange::Silent => {}
            _ if glare => {
                asked.status = Some(491);
                self.reply(now, key, msg, peer, 491, "n");
            }
            OnChange::Wait => self.reply(now, key, msg, peer, 100, ""),
            OnChange::Refuse(status) => {
                asked.status = Some(status);
                self.reply(now, key, msg, peer, status, "n");
            }
            OnChange::Accept => {
                let text = String::from_utf8_lossy(msg.body()).into_owned();
                let direction = ["sendonly", "recvonly", "inactive"]
                    .into_iter()
                    .find(|word| text.contains(&format!("a={word}")))
                    .map_or("", |word| match word {
                        "sendonly" => "recvonly",
                        "recvonly" => "sendonly",
                        other => other,
                    });
                let bytes = self
                    .response(msg, peer, 200, "")
                    .body("application/sdp", session(4_444, direction))
                    .finish()
                    .unwrap();
                self.transactions.respond(now, key, bytes.clone());
                asked.status = Some(200);
                let timers = self.transactions.config().timers;
                asked.repeat = invite.then(|| Retransmit::new(now, &timers, bytes, peer));
            }
        }
        self.asked.push(asked);
    }

    /// A CANCEL for a change that waits.
    pub(super) fn change_asked_cancelled(&mut self, now: Instant, invite: ServerKey) {
        let Some(asked) = self.asked.iter_mut().find(|asked| asked.key == invite && asked.status.is_none()) else {
            return;
        };
        asked.status = Some(487);
        let (request, peer) = (asked.request.clone(), self.peer());
        self.reply(now, invite, &request, peer, 487, "n");
    }

    pub(super) fn change_acknowledged(&mut self, msg: &Message) {
        let same = |asked: &&mut Asked| {
            asked.request.call_id() == msg.call_id()
                && asked.request.cseq().unwrap().0 == msg.cseq().unwrap().0
                && asked.request.from().unwrap().tag() == msg.from().unwrap().tag()
                && asked.status == Some(200)
        };
        for asked in self.asked.iter_mut().filter(same) {
            asked.repeat = None;
            asked.acknowledged = true;
            asked.ack_body = msg.body().to_vec();
        }
    }

    pub(super) fn change_next_timeout(&self) -> Option<Instant> {
        let again = self.changes.iter().filter_map(|change| change.again_at);
        again.chain(self.asked.iter().filter_map(|a| a.repeat.as_ref().map(Retransmit::next_timeout))).min()
    }

    pub(super) fn change_timeout(&mut self, now: Instant) {
        for at in 0..self.changes.len() {
            if self.changes[at].again_at.is_some_and(|due| due <= now) {
                let change = &mut self.changes[at];
                change.again_at = None;
                let (leg, method, offer) = (change.leg, change.method.clone(), change.offer.clone());
                if let Some((client, request)) = self.send_change(now, leg, &method, &offer, None) {
                    let change = &mut self.changes[at];
                    change.tries += 1;
                    change.client = client;
                    change.request = request;
                    change.ack = None;
                }
            }
        }
        for at in 0..self.asked.len() {
            while let Some(due) = self.asked[at].repeat.as_mut().map(|repeat| repeat.poll(now)) {
                match due {
                    Due::Send(bytes, peer) => self.transactions.send(bytes, peer),
                    Due::Wait(_) => break,
                    Due::Expired => self.asked[at].repeat = None,
                }
            }
        }
    }
}
