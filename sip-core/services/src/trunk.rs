//! Trunks: whether they are up, by OPTIONS (RFC 3261, section 11). Each trunk is watched by one shard; all shards route
//! by the result.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use model::id::TrunkId;
use model::time::Timestamp;
use sip_engine::{ClientKey, Peer};
use sip_message::build::RequestBuilder;
use sip_message::{HeaderName, Message, Method};

use crate::directory::Trunk;
use crate::io::Io;
use crate::ports::Output;

/// Why a trunk went down or came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrunkReason {
    /// No answer to several OPTIONS in a row.
    Unanswered,
    /// It answered an OPTIONS.
    Answered,
    /// It is no longer watched: removed, disabled, or its keepalive or registration was turned off.
    Unwatched,
    /// It refused our registration, with this status.
    RegistrationRefused(u16),
    /// Our registration there ended, and REGISTER gets no answer.
    RegistrationExpired,
    /// It accepted our registration.
    Registered,
}

impl TrunkReason {
    /// The name in alarms and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::Answered => "answered",
            Self::Unwatched => "unwatched",
            Self::RegistrationRefused(_) => "registration_refused",
            Self::RegistrationExpired => "registration_expired",
            Self::Registered => "registered",
        }
    }
}

/// How our registration at a carrier stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationState {
    /// The first answer is still waited for.
    Pending,
    /// We are registered until then, unless it is refreshed before.
    Registered {
        /// The end.
        until: Timestamp,
    },
    /// The carrier refused; it is tried again.
    Refused {
        /// Its status.
        status: u16,
    },
    /// The carrier does not answer, and what was registered has ended.
    Expired,
}

/// Who says that a trunk is down. It is up when nobody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Watch {
    /// OPTIONS.
    Keepalive,
    /// REGISTER.
    Registration,
}

/// A trunk that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownTrunk {
    /// Which.
    pub trunk: TrunkId,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: TrunkReason,
}

/// The full set of trunks that are down, and how often it has changed.
#[derive(Debug, Clone, Default)]
pub struct DownTrunks {
    /// Grows with each change: a detector that sees the same number has missed nothing.
    pub generation: u64,
    down: imbl::HashMap<(TrunkId, Watch), (Timestamp, TrunkReason)>,
}

impl DownTrunks {
    /// The trunks that are down, in the order of their ids, each once with what was first said of it.
    #[must_use]
    pub fn list(&self) -> Vec<DownTrunk> {
        let mut list: Vec<_> = self
            .down
            .iter()
            .map(|((trunk, _), (since, reason))| DownTrunk { trunk: *trunk, since: *since, reason: *reason })
            .collect();
        list.sort_by_key(|down| (down.trunk, down.since, down.reason.as_str()));
        list.dedup_by_key(|down| down.trunk);
        list
    }

    fn is_down(&self, trunk: TrunkId) -> bool {
        [Watch::Keepalive, Watch::Registration].into_iter().any(|watch| self.down.contains_key(&(trunk, watch)))
    }
}

/// What is known of trunks beyond their settings, for all shards.
#[derive(Debug, Default)]
pub struct TrunkStates {
    down: ArcSwap<DownTrunks>,
    /// The trunks of which OPTIONS has said since the start whether they are up.
    probed: ArcSwap<imbl::HashSet<TrunkId>>,
    registrations: ArcSwap<imbl::HashMap<TrunkId, RegistrationState>>,
    /// The user part of our Contact at each carrier that we register with.
    contacts: ArcSwap<imbl::HashMap<Box<str>, TrunkId>>,
}

impl TrunkStates {
    /// Whether calls may be sent there; a trunk that nobody watches counts as up.
    #[must_use]
    pub fn is_up(&self, trunk: TrunkId) -> bool {
        !self.down.load().is_down(trunk)
    }

    /// The full set with its generation.
    #[must_use]
    pub fn snapshot(&self) -> DownTrunks {
        DownTrunks::clone(&self.down.load())
    }

    /// Whether everything that watches a trunk has had an outcome since the start: OPTIONS was answered, or was not
    /// for as often as takes the trunk down, and REGISTER got its first answer, or none. Until then [`Self::is_up`] is a guess.
    #[must_use]
    pub fn is_known(&self, trunk: &Trunk) -> bool {
        let probed = trunk.keepalive_ms == 0 || self.probed.load().contains(&trunk.id);
        let registers = trunk.registration.is_some() && trunk.credentials.is_some();
        let waits = || matches!(self.registration(trunk.id), None | Some(RegistrationState::Pending));
        !trunk.enabled || (probed && !(registers && waits()))
    }

    /// How our registration at a trunk stands; none when it wants none.
    #[must_use]
    pub fn registration(&self, trunk: TrunkId) -> Option<RegistrationState> {
        self.registrations.load().get(&trunk).copied()
    }

    /// The trunk that was given this user part as our Contact.
    #[must_use]
    pub fn by_contact(&self, user: &str) -> Option<TrunkId> {
        self.contacts.load().get(user).copied()
    }

    /// Says that a trunk is down, or that this watch has nothing against it. True when that is news.
    pub(crate) fn set(&self, trunk: TrunkId, watch: Watch, down: Option<(Timestamp, TrunkReason)>) -> bool {
        let known = self.down.load().down.get(&(trunk, watch)).map(|(_, reason)| *reason);
        if known == down.map(|(_, reason)| reason) {
            return false;
        }
        self.down.rcu(|states| {
            let mut next = DownTrunks::clone(states);
            next.generation += 1;
            match down {
                // It stays down since it first was.
                Some((at, reason)) => {
                    let since = next.down.get(&(trunk, watch)).map_or(at, |(since, _)| *since);
                    next.down.insert((trunk, watch), (since, reason));
                }
                None => {
                    next.down.remove(&(trunk, watch));
                }
            }
            next
        });
        true
    }

    /// OPTIONS has said how the trunk stands, or says so no more.
    pub(crate) fn set_probed(&self, trunk: TrunkId, probed: bool) {
        if self.probed.load().contains(&trunk) != probed {
            self.probed.rcu(|known| if probed { known.update(trunk) } else { known.without(&trunk) });
        }
    }

    pub(crate) fn set_registration(&self, trunk: TrunkId, state: Option<RegistrationState>) {
        self.registrations.rcu(|states| match state {
            Some(state) => states.update(trunk, state),
            None => states.without(&trunk),
        });
    }

    pub(crate) fn set_contact(&self, user: &str, trunk: Option<TrunkId>) {
        self.contacts.rcu(|contacts| match trunk {
            Some(trunk) => contacts.update(user.into(), trunk),
            None => contacts.without(user),
        });
    }
}

#[derive(Debug)]
struct Probe {
    next: Instant,
    period: Duration,
    waiting: Option<(ClientKey, Instant)>,
    misses: u32,
    up: bool,
}

type Fixed = BuildHasherDefault<std::hash::DefaultHasher>;

/// The trunks that this shard watches.
#[derive(Debug, Default)]
pub(crate) struct Keepalive {
    probes: HashMap<TrunkId, Probe, Fixed>,
}

impl Keepalive {
    /// Begins and ends watching after the directory.
    pub fn sync(&mut self, io: &mut Io) {
        let directory = io.directory();
        let watched = |trunk: &Trunk| {
            trunk.enabled && trunk.keepalive_ms > 0 && owner(trunk.id, io.shard.count) == io.shard.index
        };
        let gone: Vec<TrunkId> =
            self.probes.keys().filter(|id| !directory.trunk(**id).is_some_and(|t| watched(t))).copied().collect();
        for trunk in directory.trunks().filter(|t| watched(t)) {
            let period = Duration::from_millis(u64::from(trunk.keepalive_ms));
            let fresh = Probe { next: io.now.mono, period, waiting: None, misses: 0, up: true };
            let probe = self.probes.entry(trunk.id).or_insert(fresh);
            if probe.period != period {
                probe.period = period;
                probe.next = io.now.mono;
            }
        }
        for trunk in gone {
            io.shared.trunks.set_probed(trunk, false);
            if self.probes.remove(&trunk).is_some_and(|probe| !probe.up) {
                io.shared.trunks.set(trunk, Watch::Keepalive, None);
                let up = io.shared.trunks.is_up(trunk);
                io.out.push_back(Output::TrunkState { trunk, up, reason: TrunkReason::Unwatched });
            }
        }
    }

    /// When the next OPTIONS leaves or the next answer is overdue.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.probes.values().map(|probe| probe.waiting.map_or(probe.next, |(_, until)| until)).min()
    }

    /// Counts overdue answers and sends what is due.
    pub fn handle_timeout(&mut self, io: &mut Io) {
        let now = io.now.mono;
        let overdue: Vec<TrunkId> = self
            .probes
            .iter()
            .filter(|(_, p)| p.waiting.is_some_and(|(_, until)| until <= now))
            .map(|(id, _)| *id)
            .collect();
        for trunk in overdue {
            self.missed(io, trunk);
        }
        let directory = io.directory();
        for (id, probe) in &mut self.probes {
            if probe.waiting.is_some() || probe.next > now {
                continue;
            }
            probe.next = now + probe.period;
            let Some(trunk) = directory.trunk(*id) else { continue };
            let answer_max = Duration::from_millis(u64::from(io.config.trunk_answer_max_ms)).min(probe.period);
            if let Some(client) = options(io, trunk) {
                probe.waiting = Some((client, now + answer_max));
            }
        }
    }

    /// A response to one of our OPTIONS: any final one is a sign of life. False when it is none of ours.
    pub fn response(&mut self, io: &mut Io, key: ClientKey, msg: &Message) -> bool {
        let Some((id, probe)) = self.probes.iter_mut().find(|(_, p)| p.waiting.is_some_and(|(k, _)| k == key)) else {
            return false;
        };
        if msg.status() < 200 {
            return true;
        }
        probe.waiting = None;
        probe.misses = 0;
        io.shared.trunks.set_probed(*id, true);
        if !probe.up {
            probe.up = true;
            io.shared.trunks.set(*id, Watch::Keepalive, None);
            let up = io.shared.trunks.is_up(*id);
            io.out.push_back(Output::TrunkState { trunk: *id, up, reason: TrunkReason::Answered });
        }
        true
    }

    /// The transaction of an OPTIONS ended without an answer.
    pub fn timeout(&mut self, io: &mut Io, key: ClientKey) {
        let waiting = self.probes.iter().find(|(_, p)| p.waiting.is_some_and(|(k, _)| k == key)).map(|(id, _)| *id);
        if let Some(trunk) = waiting {
            self.missed(io, trunk);
        }
    }

    fn missed(&mut self, io: &mut Io, trunk: TrunkId) {
        let Some(probe) = self.probes.get_mut(&trunk) else { return };
        probe.waiting = None;
        probe.misses = probe.misses.saturating_add(1);
        if probe.up && probe.misses >= io.config.trunk_misses_max {
            probe.up = false;
            io.shared.trunks.set(trunk, Watch::Keepalive, Some((io.now.utc, TrunkReason::Unanswered)));
            io.shared.trunks.set_probed(trunk, true);
            io.out.push_back(Output::TrunkState { trunk, up: false, reason: TrunkReason::Unanswered });
        }
    }
}

/// The shard that watches a trunk.
pub(crate) fn owner(trunk: TrunkId, shards: u16) -> u16 {
    u16::try_from(trunk.uuid().as_u128() % u128::from(shards.max(1))).unwrap_or(0)
}

fn options(io: &mut Io, trunk: &Trunk) -> Option<ClientKey> {
    let peer = Peer::udp(trunk.address, 0);
    let uri = format!("sip:{}", trunk.address);
    let from = format!("<sip:{}>;tag={}", io.sent_by(peer), io.tokens.tag());
    let to = format!("<{uri}>");
    let call_id = io.tokens.call_id(&crate::shard::call_id_prefix(io.shard.index));
    let contact = io.contact(peer);
    let builder = io.hop(peer, |hop| {
        RequestBuilder::new(&Method::Options, uri.as_bytes())
            .via(hop.transport.as_str(), hop.sent_by, hop.branch.as_bytes())
            .base(from.as_bytes(), to.as_bytes(), call_id.as_bytes(), 1, &Method::Options, 70)
            .header(HeaderName::Contact, contact)
            .header(HeaderName::Accept, crate::io::SDP)
    });
    let bytes = io.finish(builder)?;
    io.transactions.request(io.now.mono, bytes, peer).ok()
}
