//! Calls: a back-to-back user agent with anchored media (RFC 3261, sections 8, 12 to 15; RFC 5853 for its seat).
//!
//! A call is a caller's leg, a callee's leg and a [`State`]. What an event means is decided in one place per phase:
//! [`setup`] (INVITE until the callee's final answer; [`hunt`] tries the next trunk), [`answer`] (the callee has
//! answered, the journal not yet), and [`talk`] (from the caller's 200 to the end; [`renegotiate`] changes the session,
//! [`passing`] lets other requests through). Whatever happens, an admitted call leaves exactly one of `attempted`,
//! `answer_aborted` (with or without an `answered` before it), or `answered` followed by `ended` in the journal, and
//! gives back all that it holds.

mod answer;
mod call;
mod destination;
mod hunt;
mod outgoing;
mod passing;
mod renegotiate;
mod session;
mod setup;
mod talk;

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use call::{Call, CallKey, State};
use media_engine::Side;
use model::cause::ReleaseCause;
use model::event::fact::ReleasedBy;
use model::id::CallId;
use sip_engine::{ClientKey, Peer, ServerKey};
use sip_message::{HeaderName, Message, Method};

use outgoing::{Outgoing, Purpose};

use crate::io::{ALLOW_IN_CALL, Io, Refusal};
use crate::ports::Token;

/// The calls of one shard.
#[derive(Default)]
pub(crate) struct Calls {
    serial: u64,
    calls: HashMap<CallKey, Box<Call>>,
    /// INVITEs of callers, and re-INVITEs of both sides that are not yet over.
    servers: HashMap<ServerKey, CallKey>,
    /// The callers' INVITEs by what their copies have in common: one that comes by a second path is no second call.
    live: HashMap<Box<[u8]>, CallKey>,
    /// Our tag on either leg.
    tags: HashMap<Box<[u8]>, (CallKey, Side)>,
    deadlines: BTreeSet<(Instant, CallKey)>,
    /// Requests of ours that may still be answered; they outlive their call, because a 200 may.
    outgoing: HashMap<ClientKey, Outgoing>,
    /// The call that a message is being applied to, so that a panic ends that call and no other.
    in_hand: Option<CallKey>,
}

impl Calls {
    /// Calls in any phase.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    #[cfg(test)]
    pub fn table_sizes(&self) -> [usize; 6] {
        [
            self.calls.len(),
            self.servers.len(),
            self.live.len(),
            self.tags.len(),
            self.deadlines.len(),
            self.outgoing.len(),
        ]
    }

    /// When the next call wants to be woken.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Wakes the calls whose time has come.
    pub fn handle_timeout(&mut self, io: &mut Io) {
        while let Some((_, key)) = self.deadlines.first().copied().filter(|(at, _)| *at <= io.now.mono) {
            self.with(io, key, |calls, io| match calls.calls.get(&key).map(|call| &call.state) {
                Some(State::Calling { .. }) => calls.calling_timeout(io, key),
                Some(State::Releasing { .. }) => calls.release_done(io, key),
                Some(State::Answering { .. }) => calls.abort(io, key, 503, ReleaseCause::AnswerHoldExpired, true),
                Some(State::Talking(_)) => calls.talk_timeout(io, key),
                None => {}
            });
        }
    }

    /// A request with a To tag.
    pub fn in_dialog(&mut self, io: &mut Io, key: ServerKey, msg: &Message, peer: Peer) {
        let Some((call, side)) = self.by_tag(msg) else { return io.reply(key, msg, peer, 481) };
        self.with(io, call, |calls, io| calls.dialog_request(io, call, side, key, msg, peer));
    }

    fn dialog_request(&mut self, io: &mut Io, call: CallKey, side: Side, key: ServerKey, msg: &Message, peer: Peer) {
        let Some(dialog) = self.calls.get_mut(&call).and_then(|c| c.dialog_mut(side)) else {
            return io.reply(key, msg, peer, 481);
        };
        if let Err(error) = dialog.receive(msg) {
            return io.reply(key, msg, peer, error.status());
        }
        match msg.method() {
            Method::Bye => self.bye(io, call, side, key, msg, peer),
            Method::Invite => self.change_asked(io, call, side, key, msg, peer),
            Method::Update if !msg.body().is_empty() => self.change_asked(io, call, side, key, msg, peer),
            Method::Update => self.refresh(io, call, side, key, msg, peer),
            Method::Info | Method::Message => self.pass(io, call, side, key, msg, peer),
            Method::Prack => io.reply(key, msg, peer, 481),
            Method::Other(_) => io.reply(key, msg, peer, 501),
            _ => io.reply(key, msg, peer, 405),
        }
    }

    /// An UPDATE without an offer: a refresh of the dialog, which is answered here. It names no session timer, since we
    /// run none (RFC 4028, section 7.4): whoever asked for one may go on refreshing.
    fn refresh(&mut self, io: &mut Io, call: CallKey, side: Side, key: ServerKey, msg: &Message, peer: Peer) {
        if let Some(required) = msg.header(HeaderName::Require) {
            return io.refuse(key, msg, peer, Refusal::new(420).with(HeaderName::Unsupported, required), None);
        }
        if let Some(call) = self.calls.get_mut(&call) {
            if let Some(dialog) = call.dialog_mut(side) {
                dialog.accept_target(msg);
            }
            call.moved(side, peer);
        }
        let response = io
            .response(msg, peer, 200, "")
            .header(HeaderName::Contact, io.contact(peer))
            .header(HeaderName::Allow, ALLOW_IN_CALL);
        io.respond(key, response);
    }

    /// An ACK that belongs to no transaction: for a 2xx of ours, or for nothing.
    pub fn ack(&mut self, io: &mut Io, msg: &Message) {
        if let Some((call, side)) = self.by_tag(msg) {
            self.with(io, call, |calls, io| calls.acknowledged(io, call, side, msg));
        }
    }

    /// A CANCEL.
    pub fn cancel(&mut self, io: &mut Io, key: ServerKey, invite: Option<ServerKey>, msg: &Message, peer: Peer) {
        let Some(invite) = invite else { return io.reply(key, msg, peer, 481) };
        let call = self.servers.get(&invite).copied();
        let found = call.and_then(|call| self.calls.get(&call));
        let tag = found.map(|call| call.caller.tag.clone());
        let first = found.is_some_and(|call| call.caller.key == invite);
        io.reply_as(key, msg, peer, 200, tag.as_deref());
        if let Some(call) = call {
            self.with(
                io,
                call,
                |calls, io| {
                    if first { calls.caller_gave_up(io, call) } else { calls.change_cancelled(io, call) }
                },
            );
        }
    }

    /// A response to a request of ours. False when the request was none of a call.
    pub fn response(&mut self, io: &mut Io, client: ClientKey, msg: &Message) -> bool {
        let Some(outgoing) = self.outgoing.get(&client) else { return false };
        match outgoing.purpose() {
            Purpose::Invite(call) => self.with(io, call, |calls, io| calls.invite_response(io, call, client, msg)),
            Purpose::Exchange(call) => self.with(io, call, |calls, io| calls.change_response(io, call, client, msg)),
            Purpose::Passed => self.passed_response(io, client, msg),
            Purpose::Bye => self.bye_response(io, client, msg),
        }
        true
    }

    /// A request of ours got no answer: 408, or 503 when it could not be sent. False when it was none of a call.
    pub fn unanswered(&mut self, io: &mut Io, client: ClientKey, status: u16) -> bool {
        let Some(outgoing) = self.outgoing.remove(&client) else { return false };
        match (outgoing.purpose(), &outgoing) {
            (Purpose::Invite(call), _) => {
                self.with(io, call, |calls, io| calls.invite_unanswered(io, call, client, status));
            }
            (Purpose::Exchange(call), _) => {
                self.with(io, call, |calls, io| calls.change_unanswered(io, call, client));
            }
            (_, Outgoing::Passed(passed)) => Self::passed_unanswered(io, passed, status),
            _ => {}
        }
        true
    }

    /// No response to this request can come any more.
    pub fn forget(&mut self, client: ClientKey) {
        self.outgoing.remove(&client);
    }

    /// The journal has the call's answer, or will never have it.
    pub fn journaled(&mut self, io: &mut Io, token: Token, committed: bool) {
        let key = CallKey(token.0);
        self.with(io, key, |calls, io| {
            if !matches!(calls.calls.get(&key).map(|call| &call.state), Some(State::Answering { .. })) {
                return;
            }
            if committed {
                calls.answer_caller(io, key);
            } else {
                calls.abort(io, key, 503, ReleaseCause::NetworkFailure, true);
            }
        });
    }

    /// An operator ends a call.
    pub fn hangup(&mut self, io: &mut Io, id: CallId) {
        let found = self.calls.iter().find(|(_, call)| call.setup.call == id).map(|(key, _)| *key);
        if let Some(key) = found {
            self.with(io, key, |calls, io| calls.force_end(io, key, ReleaseCause::AdministrativeClearing));
        }
    }

    /// The node stops: ends every call, and waits for no callee.
    pub fn hangup_all(&mut self, io: &mut Io) {
        let mut keys: Vec<CallKey> = self.calls.keys().copied().collect();
        keys.sort_unstable();
        for key in keys {
            self.with(io, key, |calls, io| {
                calls.force_end(io, key, ReleaseCause::AdministrativeClearing);
                calls.release_done(io, key);
            });
        }
    }

    /// Ends the call that was in hand when the code panicked: what it holds and its record must not be lost.
    pub fn after_panic(&mut self, io: &mut Io) {
        if let Some(key) = self.in_hand.take() {
            self.force_end(io, key, ReleaseCause::SystemFailure);
            // Nobody waits for the callee of such a call any longer.
            self.release_done(io, key);
            // Should even that have left something behind.
            self.remove(io, key);
        }
    }

    fn force_end(&mut self, io: &mut Io, key: CallKey, cause: ReleaseCause) {
        match self.calls.get(&key).map(|call| &call.state) {
            Some(State::Calling { .. }) => self.give_up(io, key, 503, cause),
            Some(State::Releasing { .. }) => self.release_done(io, key),
            Some(State::Answering { .. }) => self.abort(io, key, 503, cause, true),
            Some(State::Talking(_)) => self.end(io, key, cause, ReleasedBy::Network),
            None => {}
        }
    }

    /// Runs a step of a call and sees to its next deadline. The deadline is taken out first, so that a call that
    /// panics is not woken again and again.
    fn with(&mut self, io: &mut Io, key: CallKey, step: impl FnOnce(&mut Self, &mut Io)) {
        if let Some(at) = self.calls.get_mut(&key).and_then(|call| call.scheduled.take()) {
            self.deadlines.remove(&(at, key));
        }
        self.in_hand = Some(key);
        step(self, io);
        self.in_hand = None;
        if let Some(call) = self.calls.get_mut(&key) {
            let at = call.deadline();
            call.scheduled = Some(at);
            self.deadlines.insert((at, key));
        }
    }

    fn by_tag(&self, msg: &Message) -> Option<(CallKey, Side)> {
        let to = msg.to().ok()?;
        self.tags.get(to.tag()?).copied()
    }

    /// Takes a call out of every index and gives back what it holds. Its last record was written before.
    fn remove(&mut self, io: &mut Io, key: CallKey) -> Option<Box<Call>> {
        let mut call = self.calls.remove(&key)?;
        if let Some(at) = call.scheduled {
            self.deadlines.remove(&(at, key));
        }
        self.servers.remove(&call.caller.key);
        self.live.remove(&setup::request_id(&call.caller.invite));
        if let Some(exchange) = call.talk_mut().and_then(|talk| talk.exchange.take()) {
            self.servers.remove(&exchange.server);
        }
        self.tags.remove(call.caller.tag.as_bytes());
        self.tags.remove(call.callee.tag.as_bytes());
        if let Some(session) = call.media.take() {
            io.media.close(session);
        }
        Some(call)
    }
}
