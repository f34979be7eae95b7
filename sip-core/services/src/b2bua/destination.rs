//! Who calls, who is called, and what the callee's INVITE says: pure questions to the directory.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use media_engine::sdp::Sdp;
use model::cause::ReleaseCause;
use model::event::fact::{CallSetup, Party, SubscriberParty, TrunkParty};
use model::id::{AccountId, CallId, TrunkId};
use model::number::E164;
use model::tenancy::AccountPath;
use sip_engine::Peer;
use sip_engine::digest::DigestClient;
use sip_message::{HeaderName, Message, Scheme};
use smallvec::SmallVec;

use super::hunt;
use crate::auth::{Role, authenticate};
use crate::directory::{Directory, Domain, Listed, Subscriber, Trunk};
use crate::io::{Io, Refusal, SDP};
use crate::limits::Slots;
use crate::numbering;
use crate::outbound::by_contact;
use crate::routing::{self, Route, Target, Unroutable};
use crate::shard;

/// Hops that our INVITE gets when the caller's names no number (RFC 3261, section 8.1.1.6).
pub(super) const MAX_FORWARDS: u8 = 70;
/// Longest Call-ID that is kept in facts: the registrar's bound.
const SIP_CALL_ID_MAX: usize = 256;
/// Longest dialled text that is kept.
const DIALLED_MAX: usize = 128;

/// Who calls.
pub(super) enum Origin {
    Subscriber { subscriber: Arc<Listed<Subscriber>>, domain: Arc<Domain> },
    Trunk(Arc<Listed<Trunk>>),
}

/// Where the callee's INVITE goes, and what it says.
pub(super) struct Destination {
    pub peer: Peer,
    pub uri: String,
    pub to: String,
    pub from: String,
    pub credentials: Option<DigestClient>,
    pub trunk: bool,
}

/// A call that is refused after its caller is known: it leaves an `attempted` record.
pub(super) struct Failure {
    pub refusal: Refusal,
    pub cause: ReleaseCause,
}

impl Failure {
    pub fn new(status: u16, cause: ReleaseCause) -> Self {
        Self { refusal: Refusal::new(status), cause }
    }
}

/// Who calls: a trunk is known by the Contact that we registered with it or by its address, a subscriber proves itself.
pub(super) fn origin(io: &mut Io, directory: &Directory, msg: &Message, peer: Peer) -> Result<Origin, Refusal> {
    if let Some(trunk) = by_contact(io, directory, msg).and_then(|id| directory.trunk(id)) {
        return Ok(Origin::Trunk(Arc::clone(trunk)));
    }
    if let Some(trunk) = directory.trunk_by_address(peer.remote) {
        return Ok(Origin::Trunk(Arc::clone(trunk)));
    }
    let from = msg.from().map_err(|_| Refusal::new(400))?;
    let uri = msg.uri().map_err(|_| Refusal::new(400))?;
    let domain = directory
        .domain_by_name(&from.uri.host_text())
        .or_else(|| directory.domain_by_name(&uri.host_text()))
        .ok_or_else(|| Refusal::new(403))?;
    let subscriber = authenticate(io, directory, domain, msg, Role::Proxy)?;
    Ok(Origin::Subscriber { subscriber, domain: Arc::clone(domain) })
}

/// The user part that was dialled. A carrier that we register with sends calls to our Contact there; the number is in
/// To then.
fn dialled_user(io: &Io, directory: &Directory, msg: &Message) -> Option<String> {
    if by_contact(io, directory, msg).is_some() {
        return msg.to().ok()?.uri.user_text();
    }
    msg.uri().ok()?.user_text()
}

/// What is known of the call from the start; none when the directory lacks a part.
pub(super) fn setup(io: &Io, directory: &Directory, origin: &Origin, msg: &Message) -> Option<CallSetup> {
    let (a, calling) = match origin {
        Origin::Subscriber { subscriber, domain } => {
            (subscriber_party(directory, subscriber, domain)?, directory.calling_number(subscriber.id))
        }
        Origin::Trunk(trunk) => {
            let from = msg.from().ok().and_then(|from| from.uri.user_text());
            (Party::Trunk(trunk_party(trunk)), from.and_then(|user| numbering::from_trunk(&user)))
        }
    };
    let dialled = dialled_user(io, directory, msg).unwrap_or_default();
    Some(CallSetup {
        call: CallId::new(io.ids.as_ref()),
        invited_at: io.now.utc,
        a,
        b: None,
        dialled: dialled.chars().take(DIALLED_MAX).collect(),
        called: None,
        calling,
        a_sip_call_id: String::from_utf8_lossy(msg.call_id()).chars().take(SIP_CALL_ID_MAX).collect(),
        b_sip_call_id: None,
        tried: None,
    })
}

fn subscriber_party(directory: &Directory, subscriber: &Subscriber, domain: &Domain) -> Option<Party> {
    Some(Party::Subscriber(SubscriberParty {
        subscriber: subscriber.id,
        account: subscriber.account,
        path: directory.account(subscriber.account)?.path.clone(),
        domain: domain.id,
        domain_name: domain.name.clone(),
        site: subscriber.site,
        extension: subscriber.extension.clone(),
    }))
}

pub(super) fn trunk_party(trunk: &Trunk) -> TrunkParty {
    TrunkParty { trunk: trunk.id, account: trunk.account, path: trunk.path.clone() }
}

/// What must hold of any INVITE that is passed on; the hops that are left.
pub(super) fn check(msg: &Message) -> Result<u8, Failure> {
    let incompatible = ReleaseCause::Incompatible;
    let hops = msg.max_forwards().unwrap_or(MAX_FORWARDS);
    if hops == 0 {
        return Err(Failure::new(483, ReleaseCause::NetworkFailure));
    }
    for name in [HeaderName::Require, HeaderName::ProxyRequire] {
        if let Some(required) = msg.header(name) {
            let refusal = Refusal::new(420).with(HeaderName::Unsupported, required);
            return Err(Failure { refusal, cause: incompatible });
        }
    }
    // Our answer is a session description: who does not take one can't be served (RFC 4475, section 3.3.15).
    let mut accepted = msg.headers(HeaderName::Accept).peekable();
    if accepted.peek().is_some() && !msg.values(HeaderName::Accept).any(accepts_sdp) {
        return Err(Failure::new(406, incompatible));
    }
    match msg.uri().map(|uri| uri.scheme) {
        Ok(Scheme::Sip | Scheme::Sips | Scheme::Tel) => Ok(hops - 1),
        Ok(Scheme::Other) => Err(Failure::new(416, incompatible)),
        Err(_) => Err(Failure::new(400, incompatible)),
    }
}

/// Whether a media range of Accept covers session descriptions (RFC 3261, section 20.1).
fn accepts_sdp(range: &[u8]) -> bool {
    let range = range.split(|octet| *octet == b';').next().unwrap_or_default().trim_ascii();
    [SDP.as_bytes(), b"application/*", b"*/*"].iter().any(|known| range.eq_ignore_ascii_case(known))
}

pub(super) fn check_offer(msg: &Message) -> Result<(), Failure> {
    if !msg.content_type().eq_ignore_ascii_case(SDP.as_bytes()) {
        let refusal = Refusal::new(415).with(HeaderName::Accept, SDP);
        return Err(Failure { refusal, cause: ReleaseCause::Incompatible });
    }
    Sdp::parse(msg.body()).map(|_| ()).map_err(|_| Failure::new(488, ReleaseCause::Incompatible))
}

pub(super) fn route(
    io: &Io,
    directory: &Directory,
    origin: &Origin,
    setup: &CallSetup,
    msg: &Message,
) -> Result<Route, Failure> {
    let uri = msg.uri().map_err(|_| Failure::new(400, ReleaseCause::Incompatible))?;
    let user = dialled_user(io, directory, msg).unwrap_or_default();
    let found = match origin {
        Origin::Subscriber { subscriber, domain } => {
            // A `tel:` URI has no host: it is dialled in the caller's own domain.
            let host = if uri.scheme == Scheme::Tel { domain.name.as_str().to_owned() } else { uri.host_text() };
            routing::from_subscriber(directory, subscriber, setup.a.account().1, &user, &host)
        }
        Origin::Trunk(trunk) => routing::from_trunk(directory, trunk, &user),
    };
    found.map_err(|error| match error {
        Unroutable::Unknown => Failure::new(404, ReleaseCause::UnallocatedNumber),
        Unroutable::NoTrunk { .. } => Failure::new(503, ReleaseCause::NoRoute),
    })
}

/// The one callee, with a place taken on everything that limits its side of the call.
pub(super) struct Chosen {
    pub callee: Callee,
    pub slots: Slots,
    /// Trunks that may carry the call when this one can't, the next first.
    pub untried: VecDeque<TrunkId>,
}

pub(super) enum Callee {
    Subscriber { subscriber: Arc<Listed<Subscriber>>, domain: Arc<Domain> },
    Trunk(Arc<Listed<Trunk>>),
}

pub(super) fn limited(io: &Io) -> Failure {
    Failure { refusal: io.overloaded(), cause: ReleaseCause::LimitReached }
}

/// The places on the caller's side.
pub(super) fn caller_slots(
    io: &Io,
    directory: &Directory,
    origin: &Origin,
    setup: &CallSetup,
) -> Result<Slots, Failure> {
    let mut slots = Slots::default();
    let admitted = match origin {
        Origin::Subscriber { subscriber, .. } => slots.take(&subscriber.calls, subscriber.call_limit),
        Origin::Trunk(trunk) => slots.take(&trunk.calls, trunk.call_limit),
    };
    if !admitted || !take_accounts(directory, &mut slots, setup.a.account().1, None) {
        return Err(limited(io));
    }
    Ok(slots)
}

/// A place on each account above `path`, but not on those that the other side counts: a call within one account
/// counts there once.
pub(super) fn take_accounts(
    directory: &Directory,
    slots: &mut Slots,
    path: &AccountPath,
    counted: Option<&AccountPath>,
) -> bool {
    let counted: SmallVec<[AccountId; 16]> =
        counted.into_iter().flat_map(|path| directory.ancestry(path).map(|account| account.id)).collect();
    directory
        .ancestry(path)
        .filter(|account| !counted.contains(&account.id))
        .all(|account| slots.take(&account.calls, account.call_limit))
}

/// Who gets the INVITE first. `setup` learns the callee.
pub(super) fn choose(io: &Io, directory: &Directory, setup: &mut CallSetup, route: &Route) -> Result<Chosen, Failure> {
    match &route.target {
        Target::Subscriber(subscriber) => {
            let absent = || Failure::new(480, ReleaseCause::SubscriberAbsent);
            if !subscriber.enabled || !directory.account_enabled(subscriber.account) {
                return Err(absent());
            }
            let domain = directory.domain(subscriber.domain).ok_or_else(absent)?;
            let party = subscriber_party(directory, subscriber, domain);
            let mut slots = Slots::default();
            if !slots.take(&subscriber.calls, subscriber.call_limit) {
                setup.b = party;
                return Err(Failure::new(486, ReleaseCause::UserBusy));
            }
            if let Some(party) = &party
                && !take_accounts(directory, &mut slots, party.account().1, Some(setup.a.account().1))
            {
                setup.b = Some(party.clone());
                return Err(limited(io));
            }
            setup.b = party;
            let callee = Callee::Subscriber { subscriber: Arc::clone(subscriber), domain: Arc::clone(domain) };
            Ok(Chosen { callee, slots, untried: VecDeque::new() })
        }
        Target::Trunks(trunks) => {
            let mut untried: VecDeque<TrunkId> = trunks.iter().map(|trunk| trunk.id).collect();
            let (trunk, slots) = hunt::next_trunk(io, directory, setup, &mut untried)?;
            Ok(Chosen { callee: Callee::Trunk(trunk), slots, untried })
        }
    }
}

pub(super) fn destination(
    io: &Io,
    directory: &Directory,
    origin: &Origin,
    setup: &CallSetup,
    target: &Callee,
    msg: &Message,
) -> Result<Destination, Failure> {
    match target {
        Callee::Subscriber { subscriber, domain } => {
            let shard = shard::of_address(&subscriber.username, domain.name.as_str(), io.shard.count);
            let binding = io
                .shared
                .location
                .latest(shard, subscriber.id, io.now.utc)
                .ok_or_else(|| Failure::new(480, ReleaseCause::SubscriberAbsent))?;
            Ok(Destination {
                peer: binding.peer(),
                uri: binding.contact.into(),
                to: format!("<sip:{}@{}>", subscriber.username, domain.name),
                from: from_towards(directory, origin, setup, subscriber, domain, msg),
                credentials: None,
                trunk: false,
            })
        }
        Callee::Trunk(trunk) => trunk_destination(io, setup, trunk),
    }
}

/// What the INVITE to a trunk says.
pub(super) fn trunk_destination(io: &Io, setup: &CallSetup, trunk: &Trunk) -> Result<Destination, Failure> {
    let called = setup.called.ok_or_else(|| Failure::new(404, ReleaseCause::UnallocatedNumber))?;
    let peer = Peer::udp(trunk.address, 0);
    let credentials = trunk.credentials.as_ref().map(|c| DigestClient::new(c.username.clone(), c.password.clone()));
    Ok(Destination {
        peer,
        uri: format!("sip:{called}@{}", trunk.address),
        to: format!("<sip:{called}@{}>", host_of(trunk.address)),
        from: format!("<sip:{}@{}>", presented(setup.calling), io.sent_by(peer)),
        credentials,
        trunk: true,
    })
}

/// The caller as the callee sees it: colleagues by extension, others by number, else by name.
fn from_towards(
    directory: &Directory,
    origin: &Origin,
    setup: &CallSetup,
    callee: &Subscriber,
    callee_domain: &Domain,
    msg: &Message,
) -> String {
    let Origin::Subscriber { subscriber, domain } = origin else {
        return format!("<sip:{}@{}>", presented(setup.calling), callee_domain.name);
    };
    let number = directory.calling_number(subscriber.id).map(|number| number.to_string());
    let extension = subscriber.extension.clone().filter(|_| subscriber.account == callee.account);
    let user = extension.or(number).unwrap_or_else(|| subscriber.username.clone());
    let display = msg.from().ok().and_then(|from| std::str::from_utf8(from.display).ok()).unwrap_or_default();
    let space = if display.is_empty() { "" } else { " " };
    format!("{display}{space}<sip:{user}@{}>", domain.name)
}

fn presented(calling: Option<E164>) -> String {
    calling.map_or_else(|| "anonymous".to_owned(), |number| number.to_string())
}

fn host_of(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}
