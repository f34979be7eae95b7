//! Several trunks for one call: in the order of the route, until one carries it.
//!
//! The next trunk is tried when this one is down by OPTIONS or full, refuses us rather than the call (401, 407, 408,
//! 5xx), can't be sent to, or leaves the INVITE without any response for `trunk_attempt_timeout_ms`. A decision of the
//! called side (every other 4xx, 6xx, 3xx) is the caller's answer. Once an 18x with a session was passed on, the caller
//! listens to this trunk, and once it rang, a 408 means that nobody answered: no other trunk is tried then.

use std::collections::VecDeque;
use std::sync::Arc;

use model::cause::ReleaseCause;
use model::event::fact::{CallSetup, Party, TriedTrunk};
use model::id::TrunkId;

use super::Calls;
use super::call::{Call, CallKey, Callee, State, ms};
use super::destination::{Failure, limited, take_accounts, trunk_destination, trunk_party};
use crate::directory::{Directory, Listed, Trunk};
use crate::io::Io;
use crate::limits::Slots;

/// Trunks that one call tries: more would only make the caller wait.
const TRIES_MAX: usize = 8;

/// The next trunk that is up and has room, with the places on its side; `setup` learns it as the callee's side. Trunks
/// are taken from `untried`.
pub(super) fn next_trunk(
    io: &Io,
    directory: &Directory,
    setup: &mut CallSetup,
    untried: &mut VecDeque<TrunkId>,
) -> Result<(Arc<Listed<Trunk>>, Slots), Failure> {
    let mut failure = Failure::new(503, ReleaseCause::NoRoute);
    while let Some(id) = untried.pop_front() {
        // As the directory is now: an operator may have disabled it while another rang.
        let Some(trunk) = directory.trunk(id).filter(|trunk| trunk.enabled && io.shared.trunks.is_up(id)) else {
            continue;
        };
        let mut slots = Slots::default();
        let free = slots.take(&trunk.calls, trunk.call_limit)
            && take_accounts(directory, &mut slots, &trunk.path, Some(setup.a.account().1));
        if free {
            setup.b = Some(Party::Trunk(trunk_party(trunk)));
            return Ok((Arc::clone(trunk), slots));
        }
        failure = limited(io);
    }
    Err(failure)
}

/// Whether another trunk may be tried after this one has ended with `status`.
pub(super) fn may_hunt(call: &Call, status: u16) -> bool {
    let tried = call.setup.tried.as_ref().map_or(0, Vec::len);
    let refused_us = match status {
        401 | 407 | 500..=599 => true,
        408 => !call.rang,
        _ => false,
    };
    refused_us && call.early_sdp.is_none() && !call.untried.is_empty() && tried + 1 < TRIES_MAX
}

impl Calls {
    /// Tries the next trunk in place of the present one, which has ended with `status`; `gone`: it can no longer answer.
    /// False when there is none.
    pub(super) fn try_next_trunk(&mut self, io: &mut Io, key: CallKey, status: u16, gone: bool) -> bool {
        let Some(call) = self.calls.get_mut(&key) else { return false };
        let State::Calling { .. } = call.state else { return false };
        if !may_hunt(call, status) {
            return false;
        }
        let Some(Party::Trunk(failed)) = call.setup.b.clone() else { return false };
        if gone {
            // Its places may be the last ones that the next trunk shares with it.
            call.callee_slots = Slots::default();
        }
        let (directory, cause) = (io.directory(), ReleaseCause::from_status(status, call.rang));
        // What has not led anywhere leaves the call as it was.
        let (mut setup, mut untried) = (call.setup.clone(), std::mem::take(&mut call.untried));
        let (offer, hops, abandoned) = (call.offer.clone(), call.hops, call.callee.client);
        setup.tried.get_or_insert_default().push(TriedTrunk { trunk: failed, status, cause });
        while let Ok((trunk, slots)) = next_trunk(io, &directory, &mut setup, &mut untried) {
            let Ok(destination) = trunk_destination(io, &setup, &trunk) else { continue };
            let started = self.start_callee(io, key, &mut setup, &destination, hops, offer.as_deref());
            let Some((client, tag)) = started else { continue };
            // A trunk that only was too slow may still answer; that answer is released.
            io.transactions.cancel(io.now.mono, abandoned);
            let Some(call) = self.calls.get_mut(&key) else { return false };
            self.tags.remove(call.callee.tag.as_bytes());
            self.tags.insert(tag.as_bytes().into(), (key, media_engine::Side::Callee));
            call.callee = Callee {
                client,
                peer: destination.peer,
                tag,
                trunk: true,
                credentials: destination.credentials,
                challenged: false,
            };
            call.setup = setup;
            call.callee_slots = slots;
            call.state = calling(io, !untried.is_empty());
            call.untried = untried;
            io.stats.trunk_failovers += 1;
            return true;
        }
        false
    }

    /// The time of a call that is being set up has come: for its trunk to show itself, or to answer at all.
    pub(super) fn calling_timeout(&mut self, io: &mut Io, key: CallKey) {
        let now = io.now.mono;
        match self.calls.get_mut(&key).map(|call| &mut call.state) {
            Some(State::Calling { until, patience }) if now < *until => *patience = None,
            _ => return self.ring_timeout(io, key),
        }
        // When no other trunk is free, this one has until timer B.
        self.try_next_trunk(io, key, 408, false);
    }

    /// The callee's side has responded: it is there.
    pub(super) fn trunk_showed(&mut self, key: CallKey) {
        if let Some(State::Calling { patience, .. }) = self.calls.get_mut(&key).map(|call| &mut call.state) {
            *patience = None;
        }
    }
}

/// The state of a call whose INVITE has just left.
pub(super) fn calling(io: &Io, others: bool) -> State {
    State::Calling {
        until: io.now.mono + ms(io.config.ring_timeout_ms),
        patience: others.then(|| io.now.mono + ms(io.config.trunk_attempt_timeout_ms)),
    }
}
