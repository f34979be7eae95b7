//! The callee has answered, and the record of that is on its way to the disk: nobody hears of the answer before.
//!
//! On commit the caller gets its 200 and the callee its ACK. When the caller gives up, the callee hangs up, the journal
//! fails or the wait is too long, the callee is released and the caller gets 487, 480 or 503.

use std::time::Duration;

use media_engine::Side;
use model::cause::ReleaseCause;
use model::event::fact::{AnswerAborted, Fact, INTERIM_PERIOD_MS};
use sip_engine::{ClientKey, Dialog, Retransmit};
use sip_message::{HeaderName, Message};

use super::call::{Answer, CallKey, Confirmation, State, Talk, ms, ms_between, next_hop};
use super::{Calls, session, talk};
use crate::io::{ALLOW_IN_CALL, Io, Refusal, SDP};
use crate::ports::Token;

impl Calls {
    /// A 200 to the INVITE that counts, while the callee was rung.
    pub(super) fn callee_answered(&mut self, io: &mut Io, key: CallKey, client: ClientKey, msg: &Message) {
        let Some(invite) = self.outgoing_invite(client).map(|o| o.invite.clone()) else { return };
        let Some(call) = self.calls.get_mut(&key) else { return };
        let Ok(dialog) = Dialog::uac(&invite, msg) else {
            // Without a Contact it can't even be told that nobody listens.
            return self.abort_unwanted(io, key, 503, ReleaseCause::NetworkFailure);
        };
        let pdd_ms = call.pdd_ms.unwrap_or_else(|| ms_between(call.invited.mono, io.now.mono));
        let described = call.media.and_then(|session| session::relay(io, session, msg, Side::Callee));
        let early = || call.early_sdp.clone().filter(|_| msg.body().is_empty());
        let Some(sdp) = described.map(|described| described.sdp).or_else(early) else {
            // A trunk that challenged the INVITE challenges the BYE as well; the call is gone by then.
            let credentials = call.callee.credentials.clone();
            self.abort_unwanted(io, key, 503, ReleaseCause::Incompatible);
            return self.release_answer(io, client, msg, credentials);
        };
        // Always granted: the counter has no limit.
        let Some(_up) = io.shared.answered.acquire(None) else { return };
        let answer = Answer { at: io.now, dialog, sdp, pdd_ms, _up };
        call.places.append(Fact::Answered(call.answered(&answer)), Some(Token(key.0)));
        call.state = State::Answering { answer, until: io.now.mono + ms(io.config.answer_hold_max_ms) };
    }

    /// The answer is on the disk: the caller may hear of it.
    pub(super) fn answer_caller(&mut self, io: &mut Io, key: CallKey) {
        let Some(call) = self.calls.get(&key) else { return };
        let State::Answering { answer, .. } = &call.state else { return };
        let (caller, delayed, client) = (&call.caller, call.delayed_offer, call.callee.client);
        let response = io
            .response(&caller.invite, caller.peer, 200, &caller.tag)
            .record_route()
            .header(HeaderName::Contact, io.contact(caller.peer))
            .header(HeaderName::Allow, ALLOW_IN_CALL)
            .body(SDP, &answer.sdp);
        let to = io.transactions.response_peer(caller.key).unwrap_or(caller.peer);
        let (server, dialog) = (caller.key, answer.dialog.clone());
        let Some(bytes) = io.respond(server, response) else {
            return self.abort(io, key, 503, ReleaseCause::NetworkFailure, true);
        };
        if !delayed {
            self.send_ack(io, client, &dialog, None);
        }
        let now = io.now.mono;
        let retransmit = Retransmit::new(now, &io.transactions.config().timers, bytes, to);
        // The call is out of the table for the move alone, which cannot fail.
        let Some(mut call) = self.calls.remove(&key) else { return };
        call.state = call.state.talk(|answer| Talk {
            confirmation: Confirmation::Awaited(retransmit),
            interim_at: answer.at.mono + Duration::from_millis(INTERIM_PERIOD_MS.unsigned_abs()),
            media_at: now + talk::media_period(&io.config),
            end_at: answer.at.mono + ms(io.config.call_duration_max_ms),
            exchange: None,
            answer,
        });
        self.calls.insert(key, call);
        io.stats.calls_answered += 1;
    }

    /// The answer never reaches the caller: it gets `status`, the callee its ACK and, unless it hung up itself, a BYE.
    pub(super) fn abort(&mut self, io: &mut Io, key: CallKey, status: u16, cause: ReleaseCause, bye: bool) {
        let Some(call) = self.calls.get(&key) else { return };
        let State::Answering { answer, .. } = &call.state else { return };
        let (dialog, client, credentials) =
            (answer.dialog.clone(), call.callee.client, call.callee.credentials.clone());
        let peer = next_hop(&dialog, call.callee.peer, call.callee.trunk);
        self.send_ack(io, client, &dialog, None);
        if bye {
            self.send_bye(io, dialog, peer, credentials);
        }
        self.abort_unwanted(io, key, status, cause);
    }

    /// Tells the caller and the journal that an answer came to nothing, and ends the call.
    pub(super) fn abort_unwanted(&mut self, io: &mut Io, key: CallKey, status: u16, cause: ReleaseCause) {
        let Some(call) = self.calls.get(&key) else { return };
        // A caller that was already told keeps the status that it got.
        let status = match &call.state {
            State::Releasing { status, .. } => *status,
            State::Calling { .. } | State::Answering { .. } | State::Talking(_) => {
                let refusal = if status == 503 { io.overloaded() } else { Refusal::new(status) };
                let (server, invite, peer) = (call.caller.key, call.caller.invite.clone(), call.caller.peer);
                let tag = call.caller.tag.clone();
                io.refuse(server, &invite, peer, refusal, Some(&tag));
                status
            }
        };
        let Some(mut call) = self.remove(io, key) else { return };
        let (at, pdd, after_answered) = match &call.state {
            State::Answering { answer, .. } => (answer.at, Some(answer.pdd_ms), true),
            State::Calling { .. } | State::Releasing { .. } | State::Talking(_) => (io.now, call.pdd_ms, false),
        };
        io.stats.answers_aborted += 1;
        let fact = AnswerAborted {
            setup: call.setup.clone(),
            answered_at: at.utc,
            ended_at: io.now.utc,
            duration_ms: ms_between(at.mono, io.now.mono),
            status,
            cause,
            pdd_ms: pdd.unwrap_or_else(|| ms_between(call.invited.mono, io.now.mono)),
            after_answered,
        };
        call.places.append(Fact::AnswerAborted(fact), None);
    }
}
