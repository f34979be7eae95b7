//! From the caller's 200 to the end of the call.

use std::time::Duration;

use media_engine::Side;
use model::cause::ReleaseCause;
use model::event::fact::{Ended, Fact, INTERIM_PERIOD_MS, Interim, ReleasedBy};
use sip_engine::{Due, Peer, ServerKey};
use sip_message::Message;

use super::call::{CallKey, Confirmation, State, Talk, ms, ms_between, next_hop};
use super::{Calls, session};
use crate::config::ServicesConfig;
use crate::io::Io;

/// How often the relay is asked for silence.
const MEDIA_PERIOD_MAX: Duration = Duration::from_secs(5);

/// Period of the question whether media still flow: fine against the limit that is set.
pub(super) fn media_period(config: &ServicesConfig) -> Duration {
    match config.media_timeout_ms {
        0 => ms(config.call_duration_max_ms),
        timeout => (ms(timeout) / 4).clamp(Duration::from_millis(20), MEDIA_PERIOD_MAX),
    }
}

impl Calls {
    /// An ACK for a 200 of ours: to the INVITE, or to a re-INVITE.
    pub(super) fn acknowledged(&mut self, io: &mut Io, key: CallKey, side: Side, msg: &Message) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        if !call.dialog_mut(side).is_some_and(|dialog| dialog.matches(msg)) {
            return;
        }
        if self.change_acknowledged(io, key, side, msg) || side == Side::Callee {
            return;
        }
        let Some(call) = self.calls.get_mut(&key) else { return };
        let number = |message: &Message| message.cseq().map(|(number, _)| number).ok();
        if number(msg) != number(&call.caller.invite) {
            return;
        }
        let (delayed, client, media) = (call.delayed_offer, call.callee.client, call.media);
        let Some(talk) = call.talk_mut() else { return };
        if matches!(talk.confirmation, Confirmation::Received) {
            return;
        }
        talk.confirmation = Confirmation::Received;
        if delayed {
            let dialog = talk.answer.dialog.clone();
            let answer = media.and_then(|session| session::relay(io, session, msg, Side::Caller));
            self.send_ack(io, client, &dialog, answer.as_ref().map(|answer| &answer.sdp[..]));
            if answer.is_none() {
                // The offer was not answered: there is no session to talk in.
                self.end(io, key, ReleaseCause::Incompatible, ReleasedBy::Network);
            }
        }
    }

    /// A BYE from either side, in any phase in which there is a dialog.
    pub(super) fn bye(&mut self, io: &mut Io, key: CallKey, side: Side, server: ServerKey, msg: &Message, peer: Peer) {
        io.reply(server, msg, peer, 200);
        let by = match side {
            Side::Caller => ReleasedBy::Caller,
            Side::Callee => ReleasedBy::Callee,
        };
        match (self.calls.get(&key).map(|call| &call.state), side) {
            (Some(State::Talking(_)), _) => self.end(io, key, ReleaseCause::NormalClearing, by),
            (Some(State::Answering { .. }), Side::Callee) => self.abort(io, key, 480, ReleaseCause::NoAnswer, false),
            // A caller may end its early dialog this way too (RFC 3261, section 15).
            (Some(State::Calling { .. } | State::Answering { .. }), _) => self.caller_gave_up(io, key),
            (Some(State::Releasing { .. }) | None, _) => {}
        }
    }

    /// Something is due in an answered call.
    pub(super) fn talk_timeout(&mut self, io: &mut Io, key: CallKey) {
        let now = io.now.mono;
        let Some(talk) = self.calls.get_mut(&key).and_then(|call| call.talk_mut()) else { return };
        if now >= talk.end_at {
            return self.end(io, key, ReleaseCause::DurationLimit, ReleasedBy::Network);
        }
        if let Confirmation::Awaited(retransmit) = &mut talk.confirmation {
            match retransmit.poll(now) {
                Due::Send(bytes, peer) => io.transactions.send(bytes, peer),
                Due::Wait(_) => {}
                Due::Expired => return self.end(io, key, ReleaseCause::PeerLost, ReleasedBy::Network),
            }
        }
        if !self.change_timeout(io, key) {
            return;
        }
        let Some(call) = self.calls.get_mut(&key) else { return };
        let (id, media) = (call.setup.call, call.media);
        let Some(talk) = call.talk_mut() else { return };
        if now >= talk.interim_at {
            talk.interim_at += Duration::from_millis(INTERIM_PERIOD_MS.unsigned_abs());
            let elapsed_ms = ms_between(talk.answer.at.mono, now);
            io.journal.append(Fact::Interim(Interim { call: id, at: io.now.utc, elapsed_ms }));
        }
        if now >= talk.media_at {
            talk.media_at = now + media_period(&io.config);
            let limit = i64::from(io.config.media_timeout_ms);
            // Absent while the call is on hold. Silence is counted from the answer at the earliest.
            let elapsed_ms = ms_between(talk.answer.at.mono, now);
            let silence = media.and_then(|session| io.media.snapshot(session).silence_ms);
            let silence = silence.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX).min(elapsed_ms));
            if limit > 0 && silence.is_some_and(|silence| silence >= limit) {
                self.end(io, key, ReleaseCause::MediaTimeout, ReleasedBy::Network);
            }
        }
    }

    /// Ends an answered call: BYE to each side that has not hung up itself, and the `ended` record.
    pub(super) fn end(&mut self, io: &mut Io, key: CallKey, cause: ReleaseCause, by: ReleasedBy) {
        self.drop_exchange(io, key);
        let Some(call) = self.calls.get_mut(&key) else { return };
        let media = call.media.take().map(|session| io.media.close(session));
        let (delayed, client) = (call.delayed_offer, call.callee.client);
        let State::Talking(Talk { answer, confirmation, .. }) = &call.state else { return };
        let fact = Ended {
            answered: call.answered(answer),
            ended_at: io.now.utc,
            duration_ms: ms_between(answer.at.mono, io.now.mono),
            cause,
            released_by: by,
            estimated: false,
            a_media: media.map(|m| m.a),
            b_media: media.map(|m| m.b),
        };
        call.places.append(Fact::Ended(fact), None);
        let unconfirmed = matches!(confirmation, Confirmation::Awaited(_));
        let dialog = answer.dialog.clone();
        if delayed && unconfirmed {
            // The callee still waits for an ACK; without one it may not take a BYE for good.
            self.send_ack(io, client, &dialog, None);
        }
        let Some(call) = self.remove(io, key) else { return };
        if by != ReleasedBy::Callee {
            let peer = next_hop(&dialog, call.callee.peer, call.callee.trunk);
            self.send_bye(io, dialog, peer, call.callee.credentials.clone());
        }
        if by != ReleasedBy::Caller {
            let peer = next_hop(&call.caller.dialog, call.caller.peer, call.caller.trunk);
            self.send_bye(io, call.caller.dialog.clone(), peer, None);
        }
    }
}
