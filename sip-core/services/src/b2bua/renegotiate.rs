//! A change of the session within a call: re-INVITE (RFC 3261, section 14) and UPDATE with an offer (RFC 3311).
//!
//! The offer goes to the other side and its answer comes back, each with the relay's address; nothing changes, neither
//! relay nor targets, before the other side has agreed. A re-INVITE without an offer gets the other side's offer in its
//! 200 and brings the answer in its ACK; only then the other side gets its own ACK. One change is under way at a time:
//! whoever comes in between gets 491 (glare; both sides then try again after the times of section 14.1, the caller
//! later than the callee since its Call-ID is its own) or, when it interrupts itself, 500 with Retry-After (section
//! 14.2). A refusal leaves all as it was; 481, 408 and silence end the call (section 12.2.1.2).

use std::time::Instant;

use bytes::Bytes;
use media_engine::Side;
use model::cause::ReleaseCause;
use model::event::fact::ReleasedBy;
use sip_engine::{ClientKey, Dialog, Due, Peer, Retransmit, ServerKey};
use sip_message::{HeaderName, Message, Method};

use super::Calls;
use super::call::{CallKey, Confirmation, State, ms};
use super::outgoing::Outgoing;
use super::session::{Description, describe};
use crate::io::{ALLOW_IN_CALL, Io, Refusal, SDP};

/// A change under way.
pub(super) struct Exchange {
    /// Who asked.
    pub from: Side,
    /// The transaction of its request.
    pub server: ServerKey,
    pub request: Message,
    pub peer: Peer,
    pub stage: Stage,
}

pub(super) enum Stage {
    /// The other side is asked. It may take its time (somebody may have to press a key), but not for ever.
    Asked { client: ClientKey, offer: Option<Description>, until: Instant, challenged: bool, cancelled: bool },
    /// The other side has agreed; the 200 is repeated until its ACK. `late`: the 200 held the offer.
    Agreed { repeat: Retransmit, late: Option<Late> },
}

/// The other side's offer, which waits for the answer in the ACK.
pub(super) struct Late {
    pub client: ClientKey,
    pub offer: Description,
}

impl Exchange {
    /// When it wants to be woken.
    pub fn deadline(&self) -> Instant {
        match &self.stage {
            Stage::Asked { until, .. } => *until,
            Stage::Agreed { repeat, .. } => repeat.next_timeout(),
        }
    }
}

/// A request with an offer, or for one, that was sent to the other side.
pub(super) struct OutgoingExchange {
    pub call: CallKey,
    request: Message,
    dialog: Dialog,
    peer: Peer,
    /// The ACK for its 200, repeated when that is.
    ack: Option<(Bytes, Peer)>,
}

impl Calls {
    /// A re-INVITE, or an UPDATE with an offer.
    pub(super) fn change_asked(
        &mut self,
        io: &mut Io,
        key: CallKey,
        side: Side,
        server: ServerKey,
        msg: &Message,
        peer: Peer,
    ) {
        if let Err(refusal) = self.change_allowed(io, key, side, msg) {
            return io.refuse(server, msg, peer, refusal, None);
        }
        let media = self.calls.get(&key).and_then(|call| call.media);
        let offer = media.and_then(|session| describe(io, session, msg, side));
        if offer.is_none() && !msg.body().is_empty() {
            let sdp = msg.content_type().eq_ignore_ascii_case(SDP.as_bytes());
            let refusal = if sdp { Refusal::new(488) } else { Refusal::new(415).with(HeaderName::Accept, SDP) };
            return io.refuse(server, msg, peer, refusal, None);
        }
        let body = offer.as_ref().map(|offer| offer.sdp.clone());
        let Some(client) = self.ask(io, key, side.other(), msg.method(), body.as_deref(), None) else {
            return io.reply(server, msg, peer, 500);
        };
        let until = io.now.mono + ms(io.config.ring_timeout_ms);
        let stage = Stage::Asked { client, offer, until, challenged: false, cancelled: false };
        let exchange = Exchange { from: side, server, request: msg.clone(), peer, stage };
        let Some(talk) = self.calls.get_mut(&key).and_then(|call| call.talk_mut()) else { return };
        talk.exchange = Some(Box::new(exchange));
        if *msg.method() == Method::Invite {
            self.servers.insert(server, key);
            let trying = io.response(msg, peer, 100, "");
            io.respond(server, trying);
        }
    }

    fn change_allowed(&mut self, io: &mut Io, key: CallKey, side: Side, msg: &Message) -> Result<(), Refusal> {
        if let Some(required) = msg.header(HeaderName::Require) {
            return Err(Refusal::new(420).with(HeaderName::Unsupported, required));
        }
        let Some(call) = self.calls.get(&key) else { return Err(Refusal::new(481)) };
        let State::Talking(talk) = &call.state else {
            // The caller's own INVITE is not answered yet; for the callee that is a change under way.
            return Err(if side == Side::Caller { io.too_early() } else { Refusal::new(491) });
        };
        match (&talk.confirmation, talk.exchange.as_deref()) {
            (Confirmation::Received, None) => Ok(()),
            (_, Some(Exchange { from, stage: Stage::Asked { .. }, .. })) if *from == side => Err(io.too_early()),
            // Someone's ACK is still on its way.
            (Confirmation::Awaited(_), _) | (_, Some(_)) => Err(Refusal::new(491)),
        }
    }

    /// Sends a request with an offer, or for one, to a side.
    fn ask(
        &mut self,
        io: &mut Io,
        key: CallKey,
        to: Side,
        method: &Method,
        body: Option<&[u8]>,
        credentials: Option<(HeaderName, Vec<u8>)>,
    ) -> Option<ClientKey> {
        let call = self.calls.get_mut(&key)?;
        let peer = call.peer_of(to)?;
        let dialog = call.dialog_mut(to)?;
        let contact = io.contact(peer);
        let mut builder = io
            .hop(peer, |hop| dialog.request(method, hop))
            .header(HeaderName::Contact, contact)
            .header(HeaderName::Allow, ALLOW_IN_CALL);
        if let Some((name, value)) = credentials {
            builder = builder.header(name, value);
        }
        if let Some(body) = body {
            builder = builder.body(SDP, body);
        }
        let dialog = dialog.clone();
        let bytes = io.finish(builder)?;
        let request = Message::parse_datagram(bytes.clone()).ok()?;
        let client = io.transactions.request(io.now.mono, bytes, peer).ok()?;
        let outgoing = OutgoingExchange { call: key, request, dialog, peer, ack: None };
        self.outgoing.insert(client, Outgoing::Exchange(Box::new(outgoing)));
        Some(client)
    }

    fn outgoing_exchange(&mut self, client: ClientKey) -> Option<&mut OutgoingExchange> {
        match self.outgoing.get_mut(&client)? {
            Outgoing::Exchange(exchange) => Some(exchange),
            Outgoing::Invite(_) | Outgoing::Bye(_) | Outgoing::Passed(_) => None,
        }
    }

    /// A response to a request of ours with an offer, or for one, also when its call is over.
    pub(super) fn change_response(&mut self, io: &mut Io, key: CallKey, client: ClientKey, msg: &Message) {
        let success = (200..300).contains(&msg.status());
        if success && self.repeat_change_ack(io, client) {
            return;
        }
        let exchange = self.calls.get_mut(&key).and_then(|call| call.talk_mut()).and_then(|t| t.exchange.as_ref());
        match exchange.map(|exchange| &exchange.stage) {
            Some(Stage::Asked { client: asked, .. }) if *asked == client => match msg.status() {
                ..200 => {}
                200..300 => self.change_agreed(io, key, client, msg),
                401 | 407 if self.answer_change_challenge(io, key, client, msg) => {}
                status => self.change_refused(io, key, status),
            },
            // The same 200 again, before the ACK with its answer has come.
            Some(Stage::Agreed { late: Some(late), .. }) if late.client == client => {}
            // The call is over: the 200 crossed a BYE.
            _ if success => self.ack_change(io, client, Some(msg), None),
            _ => {}
        }
    }

    /// No answer to a request of ours with an offer, or for one.
    pub(super) fn change_unanswered(&mut self, io: &mut Io, key: CallKey, client: ClientKey) {
        let exchange = self.calls.get_mut(&key).and_then(|call| call.talk_mut()).and_then(|t| t.exchange.as_ref());
        if let Some(Stage::Asked { client: asked, .. }) = exchange.map(|exchange| &exchange.stage)
            && *asked == client
        {
            self.change_refused(io, key, 408);
        }
    }

    /// The other side has agreed.
    fn change_agreed(&mut self, io: &mut Io, key: CallKey, client: ClientKey, msg: &Message) {
        let Some(mut exchange) = self.take_exchange(key) else { return };
        let Some(call) = self.calls.get_mut(&key) else { return };
        let (from, other) = (exchange.from, exchange.from.other());
        let Stage::Asked { offer, .. } = exchange.stage else { return };
        let described = call.media.and_then(|session| describe(io, session, msg, other));
        let invite = *exchange.request.method() == Method::Invite;
        let Some(described) = described else {
            // It agrees to nothing that could be passed on.
            if invite {
                self.ack_change(io, client, Some(msg), None);
            }
            return io.reply(exchange.server, &exchange.request, exchange.peer, 488);
        };
        if let Some(dialog) = call.dialog_mut(other) {
            dialog.accept_target(msg);
        }
        if let Some(dialog) = call.dialog_mut(from) {
            dialog.accept_target(&exchange.request);
        }
        call.moved(from, exchange.peer);
        let tag = match from {
            Side::Caller => call.caller.tag.clone(),
            Side::Callee => call.callee.tag.clone(),
        };
        let to = io.transactions.response_peer(exchange.server).unwrap_or(exchange.peer);
        let response = io
            .response(&exchange.request, exchange.peer, 200, &tag)
            .header(HeaderName::Contact, io.contact(exchange.peer))
            .header(HeaderName::Allow, ALLOW_IN_CALL)
            .body(SDP, &described.sdp);
        let late = match offer {
            Some(offer) => {
                if invite {
                    self.ack_change(io, client, Some(msg), None);
                }
                self.change_session(io, key, (from, &offer), (other, &described));
                None
            }
            None => Some(Late { client, offer: described }),
        };
        let Some(bytes) = io.respond(exchange.server, response) else {
            return self.end(io, key, ReleaseCause::NetworkFailure, ReleasedBy::Network);
        };
        if !invite {
            return;
        }
        let repeat = Retransmit::new(io.now.mono, &io.transactions.config().timers, bytes, to);
        exchange.stage = Stage::Agreed { repeat, late };
        let server = exchange.server;
        if let Some(talk) = self.calls.get_mut(&key).and_then(|call| call.talk_mut()) {
            talk.exchange = Some(Box::new(exchange));
            self.servers.insert(server, key);
        }
    }

    /// Both sides agree: the relay follows.
    fn change_session(&mut self, io: &mut Io, key: CallKey, one: (Side, &Description), other: (Side, &Description)) {
        let Some(call) = self.calls.get(&key) else { return };
        let Some(session) = call.media else { return };
        for (side, description) in [one, other] {
            io.media.set_remote(session, side, &description.media);
        }
    }

    /// The other side refuses: the session stays what it was, unless the dialog is gone (RFC 3261, section 12.2.1.2).
    fn change_refused(&mut self, io: &mut Io, key: CallKey, status: u16) {
        let Some(exchange) = self.take_exchange(key) else { return };
        let passed = match status {
            // Neither a redirection nor a challenge of the other side is one for this side.
            300..=399 | 401 | 407 => 488,
            status => status,
        };
        io.reply(exchange.server, &exchange.request, exchange.peer, passed);
        if matches!(status, 408 | 481) {
            self.end(io, key, ReleaseCause::PeerLost, ReleasedBy::Network);
        }
    }

    /// A trunk may challenge each request; it is answered once.
    fn answer_change_challenge(&mut self, io: &mut Io, key: CallKey, client: ClientKey, msg: &Message) -> bool {
        let Some(request) = self.outgoing_exchange(client).map(|o| o.request.clone()) else { return false };
        let Some(call) = self.calls.get_mut(&key) else { return false };
        let mut credentials = call.callee.credentials.clone();
        let Some(exchange) = call.talk_mut().and_then(|talk| talk.exchange.as_mut()) else { return false };
        let to = exchange.from.other();
        let Stage::Asked { challenged: challenged @ false, .. } = &mut exchange.stage else { return false };
        let Some(credentials) = credentials.as_mut().filter(|_| to == Side::Callee) else { return false };
        *challenged = true;
        let (cnonce, method) = (io.tokens.cnonce(), request.method().clone());
        let answer = credentials.answer(msg, method.as_bytes(), request.request_uri(), request.body(), &cnonce);
        let Some(answer) = answer else { return false };
        let body = Some(request.body()).filter(|body| !body.is_empty());
        let Some(again) = self.ask(io, key, to, &method, body, Some(answer)) else { return false };
        let exchange = self.calls.get_mut(&key).and_then(|call| call.talk_mut()).and_then(|t| t.exchange.as_mut());
        if let Some(Stage::Asked { client, .. }) = exchange.map(|exchange| &mut exchange.stage) {
            *client = again;
        }
        true
    }

    /// The ACK for the 200 to a re-INVITE. False when it is none of this.
    pub(super) fn change_acknowledged(&mut self, io: &mut Io, key: CallKey, side: Side, msg: &Message) -> bool {
        let Some(call) = self.calls.get_mut(&key) else { return false };
        let media = call.media;
        let Some(exchange) = call.talk_mut().and_then(|talk| talk.exchange.as_ref()) else { return false };
        let number = |message: &Message| message.cseq().map(|(number, _)| number).ok();
        let ours = exchange.from == side
            && matches!(exchange.stage, Stage::Agreed { .. })
            && number(&exchange.request) == number(msg);
        if !ours {
            return false;
        }
        let Some(exchange) = self.take_exchange(key) else { return false };
        let Stage::Agreed { late: Some(late), .. } = exchange.stage else { return true };
        let answer = media.and_then(|session| describe(io, session, msg, side));
        self.ack_change(io, late.client, None, answer.as_ref().map(|answer| &answer.sdp[..]));
        match answer {
            Some(answer) => self.change_session(io, key, (side, &answer), (side.other(), &late.offer)),
            // The offer was not answered: there is no session to talk in.
            None => self.end(io, key, ReleaseCause::Incompatible, ReleasedBy::Network),
        }
        true
    }

    /// CANCEL of a re-INVITE: the other side is cancelled, and its final response is the answer to both.
    pub(super) fn change_cancelled(&mut self, io: &mut Io, key: CallKey) {
        let t1_64 = io.transactions.config().timers.t1_64();
        let exchange = self.calls.get_mut(&key).and_then(|call| call.talk_mut()).and_then(|t| t.exchange.as_mut());
        if let Some(Stage::Asked { client, until, cancelled, .. }) = exchange.map(|exchange| &mut exchange.stage) {
            *cancelled = true;
            // The transaction gives up 64*T1 after the CANCEL; this is for the case that it does not tell.
            *until = io.now.mono + t1_64 * 2;
            io.transactions.cancel(io.now.mono, *client);
        }
    }

    /// Something is due in a change. False when the call has ended over it.
    pub(super) fn change_timeout(&mut self, io: &mut Io, key: CallKey) -> bool {
        let now = io.now.mono;
        let exchange = self.calls.get_mut(&key).and_then(|call| call.talk_mut()).and_then(|t| t.exchange.as_mut());
        let Some(exchange) = exchange.filter(|exchange| exchange.deadline() <= now) else { return true };
        match &mut exchange.stage {
            Stage::Asked { cancelled: false, .. } => self.change_cancelled(io, key),
            Stage::Asked { .. } => self.change_refused(io, key, 408),
            Stage::Agreed { repeat, .. } => match repeat.poll(now) {
                Due::Send(bytes, peer) => io.transactions.send(bytes, peer),
                Due::Wait(_) => {}
                Due::Expired => self.end(io, key, ReleaseCause::PeerLost, ReleasedBy::Network),
            },
        }
        self.calls.contains_key(&key)
    }

    /// The call ends in the middle of a change: whoever waits is told.
    pub(super) fn drop_exchange(&mut self, io: &mut Io, key: CallKey) {
        let Some(exchange) = self.take_exchange(key) else { return };
        match exchange.stage {
            Stage::Asked { client, .. } => {
                // RFC 3261, section 15.1.2: pending requests of the dialog get 487.
                io.reply(exchange.server, &exchange.request, exchange.peer, 487);
                io.transactions.cancel(io.now.mono, client);
            }
            // The other side waits for an ACK; without one it may not take a BYE for good.
            Stage::Agreed { late: Some(late), .. } => self.ack_change(io, late.client, None, None),
            Stage::Agreed { late: None, .. } => {}
        }
    }

    fn take_exchange(&mut self, key: CallKey) -> Option<Exchange> {
        let exchange = self.calls.get_mut(&key)?.talk_mut()?.exchange.take()?;
        self.servers.remove(&exchange.server);
        Some(*exchange)
    }

    /// Sends the ACK for a 200 to a re-INVITE, and keeps it for the 200's repetitions. The 200, where it is at hand,
    /// names the target.
    fn ack_change(&mut self, io: &mut Io, client: ClientKey, success: Option<&Message>, body: Option<&[u8]>) {
        let Some(outgoing) = self.outgoing_exchange(client) else { return };
        if *outgoing.request.method() != Method::Invite {
            return;
        }
        if let Some(success) = success {
            outgoing.dialog.accept_target(success);
        }
        let cseq = outgoing.request.cseq().map_or(1, |(number, _)| number);
        let (dialog, peer) = (&outgoing.dialog, outgoing.peer);
        let mut builder = io.hop(peer, |hop| dialog.ack(cseq, hop));
        // RFC 3261, section 13.2.2.4: an ACK can't be challenged, so it has the credentials of its INVITE.
        for name in [HeaderName::Authorization, HeaderName::ProxyAuthorization] {
            for value in outgoing.request.headers(name) {
                builder = builder.header(name, value);
            }
        }
        if let Some(body) = body {
            builder = builder.body(SDP, body);
        }
        let Some(bytes) = io.finish(builder) else { return };
        io.transactions.send(bytes.clone(), peer);
        outgoing.ack = Some((bytes, peer));
    }

    fn repeat_change_ack(&mut self, io: &mut Io, client: ClientKey) -> bool {
        let Some((ack, peer)) = self.outgoing_exchange(client).and_then(|outgoing| outgoing.ack.clone()) else {
            return false;
        };
        io.transactions.send(ack, peer);
        true
    }
}
