//! Our registrations at carriers (RFC 3261, section 10.2; waiting after failures as RFC 5626, section 4.5).
//!
//! Each trunk that wants REGISTER is registered by the shard that owns it, with a Contact of its own: a random user part,
//! by which a call that comes in is known to be the carrier's, wherever its packets come from. It is refreshed at 80 %
//! of what was granted. A refusal, or an end of the registration without an answer, takes the trunk down until it is
//! registered again.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::time::{Duration, Instant};

use model::id::TrunkId;
use sip_engine::digest::{DigestClient, is_stale};
use sip_engine::{ClientKey, Peer};
use sip_message::build::RequestBuilder;
use sip_message::{Contact, HeaderName, Message, Method};

use crate::directory::{Directory, Trunk, TrunkRegistration};
use crate::io::{ALLOW, Io};
use crate::ports::Output;
use crate::trunk::{RegistrationState, TrunkReason, Watch, owner};

/// Challenges that one attempt answers: the first, and one more when the nonce was too old.
const CHALLENGES_MAX: u8 = 2;
/// Longest wait that a carrier's Retry-After is followed for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Shortest and longest registration that is believed; a grant of nothing would be refreshed without pause.
const GRANTED_S: std::ops::RangeInclusive<u32> = 10..=604_800;
/// Doublings of the wait: beyond, the longest wait is reached with any setting.
const DOUBLINGS_MAX: u32 = 16;
const MAX_FORWARDS: u8 = 70;

/// One trunk's registration.
struct Register {
    settings: TrunkRegistration,
    username: String,
    credentials: DigestClient,
    /// User part of our Contact.
    contact: String,
    call_id: String,
    from_tag: String,
    cseq: u32,
    /// What is wished for; a 423 may have raised it.
    expires_s: u32,
    waiting: Option<ClientKey>,
    challenges: u8,
    /// A 423 was followed in this attempt.
    lengthened: bool,
    /// The next attempt.
    next: Instant,
    failures: u32,
    /// The end of what was granted.
    valid_until: Option<Instant>,
}

/// The registrations of this shard.
#[derive(Default)]
pub(crate) struct Registrations {
    trunks: BTreeMap<TrunkId, Register>,
    /// REGISTERs that take a registration back; each is answered for one challenge, then forgotten.
    leaving: HashMap<ClientKey, Register, BuildHasherDefault<std::hash::DefaultHasher>>,
}

impl Registrations {
    /// Begins and ends registrations after the directory.
    pub fn sync(&mut self, io: &mut Io) {
        let directory = io.directory();
        let shard = io.shard;
        let wanted = move |trunk: &Trunk| {
            let ours = trunk.enabled && owner(trunk.id, shard.count) == shard.index;
            trunk.registration.clone().zip(trunk.credentials.clone()).filter(|_| ours)
        };
        let stale: Vec<TrunkId> = self
            .trunks
            .iter()
            .filter(|(id, register)| {
                let now = directory.trunk(**id).and_then(|trunk| wanted(trunk));
                !now.is_some_and(|(settings, c)| settings == register.settings && c.username == register.username)
            })
            .map(|(id, _)| *id)
            .collect();
        let fresh: Vec<_> = directory
            .trunks()
            .filter_map(|trunk| {
                let (settings, credentials) = wanted(trunk)?;
                Some((trunk.id, settings, credentials))
            })
            .filter(|(id, ..)| stale.contains(id) || !self.trunks.contains_key(id))
            .collect();
        for id in stale {
            self.leave(io, id);
        }
        for (id, settings, credentials) in fresh {
            let register = Register {
                credentials: DigestClient::new(credentials.username.clone(), credentials.password),
                username: credentials.username,
                contact: io.tokens.call_id(""),
                call_id: io.tokens.call_id(&crate::shard::call_id_prefix(io.shard.index)),
                from_tag: io.tokens.tag(),
                cseq: 0,
                expires_s: settings.expires_s,
                waiting: None,
                challenges: 0,
                lengthened: false,
                next: io.now.mono,
                failures: 0,
                valid_until: None,
                settings,
            };
            io.shared.trunks.set_contact(&register.contact, Some(id));
            io.shared.trunks.set_registration(id, Some(RegistrationState::Pending));
            self.trunks.insert(id, register);
        }
    }

    /// When the next REGISTER leaves, or a registration ends.
    pub fn next_timeout(&self) -> Option<Instant> {
        let due = |register: &Register| {
            let next = register.waiting.is_none().then_some(register.next);
            [next, register.valid_until].into_iter().flatten().min()
        };
        self.trunks.values().filter_map(due).min()
    }

    /// Registers and refreshes what is due.
    pub fn handle_timeout(&mut self, io: &mut Io) {
        let now = io.now.mono;
        for (id, register) in &mut self.trunks {
            if register.valid_until.is_some_and(|until| until <= now) {
                register.valid_until = None;
                down(io, *id, RegistrationState::Expired, TrunkReason::RegistrationExpired);
            }
            if register.waiting.is_none() && register.next <= now {
                register.challenges = 0;
                register.lengthened = false;
                register.waiting = register.send(io, register.expires_s, None);
                if register.waiting.is_none() {
                    register.fail(io, None);
                }
            }
        }
    }

    /// A response to a REGISTER of ours. False when it is none.
    pub fn response(&mut self, io: &mut Io, key: ClientKey, msg: &Message) -> bool {
        if self.leaving.contains_key(&key) {
            if msg.status() >= 200
                && let Some(mut register) = self.leaving.remove(&key)
                && register.challenges == 0
                && let Some(again) = register.answer(io, msg, 0)
            {
                self.leaving.insert(again, register);
            }
            return true;
        }
        let Some((id, register)) = self.trunks.iter_mut().find(|(_, register)| register.waiting == Some(key)) else {
            return false;
        };
        let status = msg.status();
        if status < 200 {
            return true;
        }
        register.waiting = None;
        match status {
            200..=299 => register.granted(io, *id, msg),
            401 | 407 if register.may_answer(msg) => {
                register.waiting = register.answer(io, msg, register.expires_s);
                if register.waiting.is_none() {
                    register.refused(io, *id, msg);
                }
            }
            423 if !register.lengthened && register.lengthen(msg) => {
                register.challenges = 0;
                register.waiting = register.send(io, register.expires_s, None);
            }
            408 => register.unanswered(io, *id),
            _ => register.refused(io, *id, msg),
        }
        true
    }

    /// A REGISTER of ours got no answer.
    pub fn timeout(&mut self, io: &mut Io, key: ClientKey) {
        self.leaving.remove(&key);
        if let Some((id, register)) = self.trunks.iter_mut().find(|(_, register)| register.waiting == Some(key)) {
            register.waiting = None;
            register.unanswered(io, *id);
        }
    }

    /// Takes a registration back.
    fn leave(&mut self, io: &mut Io, id: TrunkId) {
        let Some(mut register) = self.trunks.remove(&id) else { return };
        io.shared.trunks.set_contact(&register.contact, None);
        io.shared.trunks.set_registration(id, None);
        if io.shared.trunks.set(id, Watch::Registration, None) {
            let up = io.shared.trunks.is_up(id);
            io.out.push_back(Output::TrunkState { trunk: id, up, reason: TrunkReason::Unwatched });
        }
        register.challenges = 0;
        if register.valid_until.is_some()
            && let Some(client) = register.send(io, 0, None)
        {
            self.leaving.insert(client, register);
        }
    }
}

impl Register {
    /// Sends a REGISTER for so many seconds; 0 takes the registration back.
    fn send(&mut self, io: &mut Io, expires_s: u32, answer: Option<(HeaderName, Vec<u8>)>) -> Option<ClientKey> {
        let peer = Peer::udp(self.settings.registrar, 0);
        let uri = self.uri();
        let address = format!("<sip:{}@{}>", self.username, self.settings.domain);
        let from = format!("{address};tag={}", self.from_tag);
        let contact = format!("<sip:{}@{}>;expires={expires_s}", self.contact, io.sent_by(peer));
        self.cseq = self.cseq.saturating_add(1);
        let (call_id, cseq) = (self.call_id.clone(), self.cseq);
        let mut builder = io.hop(peer, |hop| {
            RequestBuilder::new(&Method::Register, uri.as_bytes())
                .via(hop.transport.as_str(), hop.sent_by, hop.branch.as_bytes())
                .base(from.as_bytes(), address.as_bytes(), call_id.as_bytes(), cseq, &Method::Register, MAX_FORWARDS)
                .header(HeaderName::Contact, contact)
                .header(HeaderName::Expires, expires_s.to_string())
                .header(HeaderName::Allow, ALLOW)
        });
        if let Some((name, value)) = answer {
            builder = builder.header(name, value);
        }
        let bytes = io.finish(builder)?;
        io.transactions.request(io.now.mono, bytes, peer).ok()
    }

    fn uri(&self) -> String {
        format!("sip:{}", self.settings.domain)
    }

    fn may_answer(&self, msg: &Message) -> bool {
        self.challenges == 0 || (self.challenges < CHALLENGES_MAX && is_stale(msg))
    }

    fn answer(&mut self, io: &mut Io, msg: &Message, expires_s: u32) -> Option<ClientKey> {
        self.challenges += 1;
        let (cnonce, uri) = (io.tokens.cnonce(), self.uri());
        let answer = self.credentials.answer(msg, b"REGISTER", uri.as_bytes(), b"", &cnonce)?;
        self.send(io, expires_s, Some(answer))
    }

    /// Follows Min-Expires; false when it names no longer time.
    fn lengthen(&mut self, msg: &Message) -> bool {
        let min = msg.header(HeaderName::MinExpires).and_then(|v| std::str::from_utf8(v).ok()?.trim().parse().ok());
        let Some(min) = min.filter(|min| *min > self.expires_s && GRANTED_S.contains(min)) else { return false };
        self.expires_s = min;
        self.lengthened = true;
        true
    }

    fn granted(&mut self, io: &mut Io, id: TrunkId, msg: &Message) {
        let seconds = self.granted_s(msg).clamp(*GRANTED_S.start(), *GRANTED_S.end());
        let granted = Duration::from_secs(u64::from(seconds));
        self.failures = 0;
        self.next = io.now.mono + granted * 4 / 5;
        self.valid_until = Some(io.now.mono + granted);
        let until = io.now.utc.plus_ms(i64::from(seconds) * 1_000);
        io.shared.trunks.set_registration(id, Some(RegistrationState::Registered { until }));
        if io.shared.trunks.set(id, Watch::Registration, None) {
            let up = io.shared.trunks.is_up(id);
            io.out.push_back(Output::TrunkState { trunk: id, up, reason: TrunkReason::Registered });
        }
    }

    /// What the 200 grants to our Contact, which it lists among others perhaps.
    fn granted_s(&self, msg: &Message) -> u32 {
        let own = msg.contacts().filter_map(Result::ok).find_map(|contact| match contact {
            Contact::Addr(addr) if addr.uri.user_text().as_deref() == Some(&self.contact) => {
                addr.params.get(b"expires").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok())
            }
            Contact::Addr(_) | Contact::Star => None,
        });
        own.or_else(|| msg.expires()).unwrap_or(self.expires_s)
    }

    /// The carrier has decided: what it granted before counts no longer.
    fn refused(&mut self, io: &mut Io, id: TrunkId, msg: &Message) {
        let status = msg.status();
        self.valid_until = None;
        self.fail(io, msg.header(HeaderName::RetryAfter));
        down(io, id, RegistrationState::Refused { status }, TrunkReason::RegistrationRefused(status));
    }

    /// The carrier is not there: what it granted counts to its end.
    fn unanswered(&mut self, io: &mut Io, id: TrunkId) {
        self.fail(io, None);
        if self.valid_until.is_none() {
            down(io, id, RegistrationState::Expired, TrunkReason::RegistrationExpired);
        }
    }

    /// Plans the next attempt: later with each failure, between half and all of the wait so that the clients of a
    /// carrier that comes back don't all come at once.
    fn fail(&mut self, io: &mut Io, retry_after: Option<&[u8]>) {
        let (low, high) = (io.config.trunk_register_retry_min_s, io.config.trunk_register_retry_max_s);
        let wait = u64::from(low).saturating_mul(1 << self.failures.min(DOUBLINGS_MAX)).min(u64::from(high));
        self.failures = self.failures.saturating_add(1);
        let [drawn, ..] = io.tokens.octets();
        let wait_ms = wait * 500 + wait * 500 * u64::from(drawn) / 255;
        // `Retry-After: 120 (maintenance);duration=60`: the seconds come first (RFC 3261, section 20.33).
        let asked = retry_after.and_then(|value| {
            let digits = value.split(|b| !b.is_ascii_digit()).next()?;
            std::str::from_utf8(digits).ok()?.parse::<u64>().ok()
        });
        let asked = Duration::from_secs(asked.unwrap_or(0)).min(RETRY_AFTER_MAX);
        self.next = io.now.mono + Duration::from_millis(wait_ms).max(asked);
    }
}

fn down(io: &mut Io, trunk: TrunkId, state: RegistrationState, reason: TrunkReason) {
    // Down before known: who looks between finds it unknown, never up.
    let news = io.shared.trunks.set(trunk, Watch::Registration, Some((io.now.utc, reason)));
    io.shared.trunks.set_registration(trunk, Some(state));
    if news {
        io.out.push_back(Output::TrunkState { trunk, up: false, reason });
    }
}

/// The trunk whose registered Contact a request names, wherever it comes from.
pub(crate) fn by_contact(io: &Io, directory: &Directory, msg: &Message) -> Option<TrunkId> {
    let user = msg.uri().ok()?.user_text()?;
    let trunk = io.shared.trunks.by_contact(&user)?;
    directory.trunk(trunk).map(|trunk| trunk.id)
}
