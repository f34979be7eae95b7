//! From the caller's INVITE to the callee's final answer.

use bytes::Bytes;
use media_engine::Side;
use model::cause::ReleaseCause;
use model::event::fact::{Attempted, CallSetup, Fact};
use sip_engine::{ClientKey, Dialog, Peer, ServerKey};
use sip_message::build::RequestBuilder;
use sip_message::{HeaderName, Message, Method};
use smallvec::SmallVec;

use super::call::{Call, CallKey, Callee, Caller, State, Talk, ms_between};
use super::destination::{
    Chosen, Destination, Failure, MAX_FORWARDS, Origin, caller_slots, check, check_offer, choose, destination, origin,
    route, setup,
};
use super::hunt::calling;
use super::outgoing::{Outgoing, OutgoingInvite};
use super::{Calls, session};
use crate::directory::Directory;
use crate::io::{ALLOW_IN_CALL, Io, Refusal, SDP};
use crate::shard;

impl Calls {
    /// An INVITE without a To tag.
    pub fn invite(&mut self, io: &mut Io, key: ServerKey, msg: &Message, peer: Peer, draining: bool) {
        // Before anything else: a copy must not use up the nonce count of the first.
        if self.live.contains_key(&request_id(msg)) {
            return io.reply(key, msg, peer, 482);
        }
        let directory = io.directory();
        if draining || self.len() >= io.config.calls_max {
            io.stats.calls_shed += 1;
            let refusal = io.overloaded();
            return io.refuse(key, msg, peer, refusal, None);
        }
        let origin = match origin(io, &directory, msg, peer) {
            Ok(origin) => origin,
            Err(refusal) => {
                io.stats.invites_unauthenticated += 1;
                return io.refuse(key, msg, peer, refusal, None);
            }
        };
        let Some(mut setup) = setup(io, &directory, &origin, msg) else {
            // Its account or domain is on its way into the directory, or out of it.
            io.stats.invites_unauthenticated += 1;
            return io.refuse(key, msg, peer, Refusal::new(403), None);
        };
        let tag = io.tokens.tag();
        if let Err(failure) = self.admit(io, &directory, &origin, &mut setup, key, msg, peer, &tag) {
            match failure.refusal.status {
                503 if failure.cause == ReleaseCause::LimitReached => io.stats.calls_limited += 1,
                _ => {}
            }
            let status = failure.refusal.status;
            io.refuse(key, msg, peer, failure.refusal, Some(&tag));
            let attempt = Attempted { setup, ended_at: io.now.utc, status, cause: failure.cause, pdd_ms: None };
            io.journal.append(Fact::Attempted(attempt));
        }
    }

    /// Judges a call and, when all agree, sends the callee's INVITE.
    #[expect(clippy::too_many_arguments, reason = "the parts of one INVITE; a struct for one caller says no more")]
    fn admit(
        &mut self,
        io: &mut Io,
        directory: &Directory,
        origin: &Origin,
        setup: &mut CallSetup,
        key: ServerKey,
        msg: &Message,
        peer: Peer,
        tag: &str,
    ) -> Result<(), Failure> {
        let hops = check(msg)?;
        let dialog =
            Dialog::uas(msg, tag.as_bytes()).map_err(|e| Failure::new(e.status(), ReleaseCause::Incompatible))?;
        let enabled = match origin {
            Origin::Subscriber { subscriber, .. } => {
                subscriber.enabled && directory.account_enabled(subscriber.account)
            }
            Origin::Trunk(trunk) => trunk.enabled && directory.account_enabled(trunk.account),
        };
        if !enabled {
            return Err(Failure::new(403, ReleaseCause::Forbidden));
        }
        let route = route(io, directory, origin, setup, msg)?;
        setup.called = route.called;
        // After the callee, before anything is taken for the call (RFC 3261, section 8.2.3).
        let delayed_offer = msg.body().is_empty();
        if !delayed_offer {
            check_offer(msg)?;
        }
        let mut caller_slots = caller_slots(io, directory, origin, setup)?;
        let Chosen { callee, slots: callee_slots, untried } = choose(io, directory, setup, &route)?;
        let destination = destination(io, directory, origin, setup, &callee, msg)?;
        let Some(places) = io.journal.reserve() else {
            io.stats.calls_shed += 1;
            return Err(Failure { refusal: io.overloaded(), cause: ReleaseCause::NetworkFailure });
        };
        if !caller_slots.take(&io.shared.calls.clone(), None) {
            return Err(Failure::new(503, ReleaseCause::LimitReached));
        }
        let Some(session) = io.media.open(setup.call) else {
            io.stats.calls_shed += 1;
            return Err(Failure { refusal: io.overloaded(), cause: ReleaseCause::NetworkFailure });
        };
        let offer = if delayed_offer { None } else { session::relay(io, session, msg, Side::Caller) };
        let offer = offer.map(|offer| offer.sdp);
        self.serial += 1;
        let call_key = CallKey(self.serial);
        let started = self.start_callee(io, call_key, setup, &destination, hops, offer.as_deref());
        let Some((client, callee_tag)) = started else {
            io.media.close(session);
            return Err(Failure::new(500, ReleaseCause::NetworkFailure));
        };
        let trying = io.response(msg, peer, 100, tag);
        io.respond(key, trying);
        self.servers.insert(key, call_key);
        self.live.insert(request_id(msg), call_key);
        self.tags.insert(tag.as_bytes().into(), (call_key, Side::Caller));
        self.tags.insert(callee_tag.as_bytes().into(), (call_key, Side::Callee));
        let state = calling(io, !untried.is_empty());
        let trunk = matches!(origin, Origin::Trunk(_));
        let call = Call {
            setup: setup.clone(),
            invited: io.now,
            pdd_ms: None,
            rang: false,
            caller: Caller { key, invite: msg.clone(), peer, tag: tag.to_owned(), dialog, trunk },
            callee: Callee {
                client,
                peer: destination.peer,
                tag: callee_tag,
                trunk: destination.trunk,
                credentials: destination.credentials,
                challenged: false,
            },
            delayed_offer,
            offer,
            hops,
            early_sdp: None,
            untried,
            media: Some(session),
            places,
            _caller_slots: caller_slots,
            callee_slots,
            state,
            scheduled: None,
        };
        let at = call.deadline();
        self.calls.insert(call_key, Box::new(Call { scheduled: Some(at), ..call }));
        self.deadlines.insert((at, call_key));
        io.stats.calls_admitted += 1;
        Ok(())
    }

    /// Sends the callee's INVITE; its transaction and our tag.
    pub(super) fn start_callee(
        &mut self,
        io: &mut Io,
        key: CallKey,
        setup: &mut CallSetup,
        destination: &Destination,
        hops: u8,
        sdp: Option<&[u8]>,
    ) -> Option<(ClientKey, String)> {
        let tag = io.tokens.tag();
        let call_id = io.tokens.call_id(&shard::call_id_prefix(io.shard.index));
        let contact = io.contact(destination.peer);
        let from = format!("{};tag={tag}", destination.from);
        let mut builder = io.hop(destination.peer, |hop| {
            RequestBuilder::new(&Method::Invite, destination.uri.as_bytes())
                .via(hop.transport.as_str(), hop.sent_by, hop.branch.as_bytes())
                .base(from.as_bytes(), destination.to.as_bytes(), call_id.as_bytes(), 1, &Method::Invite, hops)
                .header(HeaderName::Contact, contact)
                .header(HeaderName::Allow, ALLOW_IN_CALL)
        });
        if let Some(sdp) = sdp {
            builder = builder.body(SDP, sdp);
        }
        let bytes = io.finish(builder)?;
        let client = self.send_invite(io, key, bytes, destination.peer, destination.trunk)?;
        setup.b_sip_call_id = Some(call_id);
        Some((client, tag))
    }

    fn send_invite(&mut self, io: &mut Io, call: CallKey, bytes: Bytes, peer: Peer, trunk: bool) -> Option<ClientKey> {
        let invite = Message::parse_datagram(bytes.clone()).ok()?;
        let client = io.transactions.request(io.now.mono, bytes, peer).ok()?;
        let outgoing = OutgoingInvite { call, invite, peer, trunk, acks: SmallVec::new() };
        self.outgoing.insert(client, Outgoing::Invite(Box::new(outgoing)));
        Some(client)
    }

    /// A response to an INVITE of ours, also when its call is over.
    pub(super) fn invite_response(&mut self, io: &mut Io, key: CallKey, client: ClientKey, msg: &Message) {
        let success = (200..300).contains(&msg.status());
        if success && self.repeat_ack(io, client, msg) {
            return;
        }
        if self.calls.get(&key).is_some_and(|call| call.callee.client == client) {
            self.trunk_showed(key);
        }
        let call = self.calls.get(&key).filter(|call| call.callee.client == client);
        let credentials = call.and_then(|call| call.callee.credentials.clone());
        match (call.map(|call| &call.state), msg.status()) {
            (Some(State::Calling { .. }), 101..=199) => self.callee_progress(io, key, msg),
            (Some(State::Calling { .. }), 200..=299) => self.callee_answered(io, key, client, msg),
            (Some(State::Calling { .. }), 300..=699) => self.callee_refused(io, key, client, msg),
            // The 200 crossed our CANCEL: the supplier may charge it, the caller has long been refused.
            (Some(State::Releasing { cause, .. }), 200..=299) => {
                let cause = *cause;
                self.abort_unwanted(io, key, 487, cause);
                self.release_answer(io, client, msg, credentials);
            }
            (Some(State::Releasing { .. }), 300..=699) => self.release_done(io, key),
            // Another fork has answered too. The same 200 again, before its ACK, is absorbed.
            (Some(State::Answering { answer, .. } | State::Talking(Talk { answer, .. })), 200..=299)
                if !answer.dialog.matches(msg) =>
            {
                self.release_answer(io, client, msg, credentials);
            }
            (None, 200..=299) => self.release_answer(io, client, msg, credentials),
            _ => {}
        }
    }

    /// An 18x: passed on with its session, so that the caller hears early media.
    fn callee_progress(&mut self, io: &mut Io, key: CallKey, msg: &Message) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let status = msg.status();
        if matches!(status, 180 | 183) {
            call.rang |= status == 180;
            call.pdd_ms.get_or_insert_with(|| ms_between(call.invited.mono, io.now.mono));
        }
        // An offer in an 18x would have to be answered in a PRACK, which we don't support.
        let early =
            call.media.filter(|_| !call.delayed_offer).and_then(|media| session::relay(io, media, msg, Side::Callee));
        let sdp = early.map(|early| early.sdp);
        if sdp.is_some() {
            call.early_sdp.clone_from(&sdp);
        }
        // 199 says that one fork is over: nothing to the caller.
        if !matches!(status, 180..=183) {
            return;
        }
        let caller = &call.caller;
        let mut response = io
            .response(&caller.invite, caller.peer, status, &caller.tag)
            .record_route()
            .header(HeaderName::Contact, io.contact(caller.peer));
        if let Some(sdp) = &sdp {
            response = response.body(SDP, sdp);
        }
        io.respond(caller.key, response);
    }

    /// A final refusal by the callee: once a challenge is answered, another trunk is tried where that may help,
    /// otherwise it is the caller's.
    fn callee_refused(&mut self, io: &mut Io, key: CallKey, client: ClientKey, msg: &Message) {
        let status = msg.status();
        if matches!(status, 401 | 407) && self.answer_challenge(io, key, client, msg) {
            return;
        }
        if self.try_next_trunk(io, key, status, true) {
            return;
        }
        let rang = self.calls.get(&key).is_some_and(|call| call.rang);
        let (status, cause) = match status {
            // Calls are not redirected by whom they ring: it could point anywhere, at the caller's cost.
            300..=399 => (480, ReleaseCause::Rejected),
            // A challenge of the trunk is none of the caller's, nor are defects between us and it.
            401 | 407 | 481 | 482 | 491 => (503, ReleaseCause::NetworkFailure),
            status => (status, ReleaseCause::from_status(status, rang)),
        };
        self.fail(io, key, Refusal::new(status), cause);
    }

    fn answer_challenge(&mut self, io: &mut Io, key: CallKey, client: ClientKey, msg: &Message) -> bool {
        let Some(invite) = self.outgoing_invite(client).map(|o| o.invite.clone()) else { return false };
        let Some(call) = self.calls.get_mut(&key).filter(|call| !call.callee.challenged) else { return false };
        let Some(credentials) = call.callee.credentials.as_mut() else { return false };
        let cnonce = io.tokens.cnonce();
        let answer = credentials.answer(msg, b"INVITE", invite.request_uri(), invite.body(), &cnonce);
        let Some((name, value)) = answer else { return false };
        call.callee.challenged = true;
        let (peer, trunk) = (call.callee.peer, call.callee.trunk);
        let Some(bytes) = repeat_with(io, &invite, peer, name, &value) else { return false };
        let Some(client) = self.send_invite(io, key, bytes, peer, trunk) else { return false };
        if let Some(call) = self.calls.get_mut(&key) {
            call.callee.client = client;
        }
        true
    }

    /// No answer to an INVITE of ours.
    pub(super) fn invite_unanswered(&mut self, io: &mut Io, key: CallKey, client: ClientKey, status: u16) {
        let Some(call) = self.calls.get(&key).filter(|call| call.callee.client == client) else { return };
        match call.state {
            State::Calling { .. } => {
                if self.try_next_trunk(io, key, status, true) {
                    return;
                }
                let Some(call) = self.calls.get(&key) else { return };
                let (status, cause) = match status {
                    408 => (408, ReleaseCause::from_status(408, call.rang)),
                    // The phone's connection is gone: as if it had never registered.
                    503 if !call.callee.trunk => (480, ReleaseCause::SubscriberAbsent),
                    status => (status, ReleaseCause::NoResponse),
                };
                self.fail(io, key, Refusal::new(status), cause);
            }
            State::Releasing { .. } => self.release_done(io, key),
            State::Answering { .. } | State::Talking(_) => {}
        }
    }

    /// It rang for long enough.
    pub(super) fn ring_timeout(&mut self, io: &mut Io, key: CallKey) {
        let rang = self.calls.get(&key).is_some_and(|call| call.rang);
        let status = if rang { 480 } else { 408 };
        self.give_up(io, key, status, ReleaseCause::from_status(status, rang));
    }

    /// CANCEL, or BYE in an early dialog.
    pub(super) fn caller_gave_up(&mut self, io: &mut Io, key: CallKey) {
        let Some(call) = self.calls.get(&key) else { return };
        let cause = ReleaseCause::from_status(487, call.rang);
        match call.state {
            State::Calling { .. } => self.give_up(io, key, 487, cause),
            State::Answering { .. } => self.abort(io, key, 487, cause, true),
            State::Releasing { .. } | State::Talking(_) => {}
        }
    }

    /// Refuses the caller now and cancels the callee; the record waits for what the callee says to that, because a 200
    /// may be under way.
    pub(super) fn give_up(&mut self, io: &mut Io, key: CallKey, status: u16, cause: ReleaseCause) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let tag = call.caller.tag.clone();
        io.refuse(call.caller.key, &call.caller.invite, call.caller.peer, Refusal::new(status), Some(&tag));
        // The transaction gives up 64*T1 after the CANCEL; this is for the case that it does not tell.
        let until = io.now.mono + io.transactions.config().timers.t1_64() * 2;
        call.state = State::Releasing { status, cause, at: io.now.utc, until };
        let client = call.callee.client;
        if !io.transactions.cancel(io.now.mono, client) {
            self.release_done(io, key);
        }
    }

    /// The callee is gone as well: the record of a call whose caller was refused before.
    pub(super) fn release_done(&mut self, io: &mut Io, key: CallKey) {
        let Some(State::Releasing { status, cause, at, .. }) = self.calls.get(&key).map(|call| &call.state) else {
            return;
        };
        let (status, cause, ended_at) = (*status, *cause, *at);
        let Some(mut call) = self.remove(io, key) else { return };
        let attempt = Attempted { setup: call.setup.clone(), ended_at, status, cause, pdd_ms: call.pdd_ms };
        call.places.append(Fact::Attempted(attempt), None);
    }

    /// Refuses the caller of a call whose callee is gone.
    fn fail(&mut self, io: &mut Io, key: CallKey, refusal: Refusal, cause: ReleaseCause) {
        let Some(mut call) = self.remove(io, key) else { return };
        let status = refusal.status;
        let caller = &call.caller;
        io.refuse(caller.key, &caller.invite, caller.peer, refusal, Some(&caller.tag));
        let ended_at = io.now.utc;
        let attempt = Attempted { setup: call.setup.clone(), ended_at, status, cause, pdd_ms: call.pdd_ms };
        call.places.append(Fact::Attempted(attempt), None);
    }
}

/// What names a request across its branches (RFC 3261, section 8.2.2.2): Call-ID, CSeq number and From tag. No part can
/// hold the line end between them.
pub(super) fn request_id(msg: &Message) -> Box<[u8]> {
    let cseq = msg.cseq().map_or(0, |(number, _)| number).to_string();
    let tag = msg.from().ok().and_then(|from| from.tag()).unwrap_or_default();
    [msg.call_id(), cseq.as_bytes(), tag].join(&b'\n').into()
}

/// The INVITE again, with credentials, the next CSeq and a fresh branch (RFC 3261, section 22.2).
fn repeat_with(io: &mut Io, invite: &Message, peer: Peer, name: HeaderName, value: &[u8]) -> Option<Bytes> {
    let cseq = invite.cseq().ok()?.0.saturating_add(1);
    let hops = invite.max_forwards().unwrap_or(MAX_FORWARDS);
    let (from, to) = (invite.header(HeaderName::From)?, invite.header(HeaderName::To)?);
    let contact = io.contact(peer);
    let mut builder = io.hop(peer, |hop| {
        RequestBuilder::new(&Method::Invite, invite.request_uri())
            .via(hop.transport.as_str(), hop.sent_by, hop.branch.as_bytes())
            .base(from, to, invite.call_id(), cseq, &Method::Invite, hops)
            .header(HeaderName::Contact, contact)
            .header(HeaderName::Allow, ALLOW_IN_CALL)
            .header(name, value)
    });
    if !invite.body().is_empty() {
        builder = builder.body(SDP, invite.body());
    }
    io.finish(builder)
}
