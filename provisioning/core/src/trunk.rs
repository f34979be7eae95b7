//! SIP trunks.

use std::net::{IpAddr, SocketAddr};

use model::change::ResourceKind;
use model::id::TrunkId;

use crate::command::{Command, TrunkRegistrar};
use crate::decide::Case;
use crate::label::USERNAME_MAX;
use crate::resource::{Trunk, TrunkRegistration};
use crate::view::{Taken, Write};

/// Shortest period of OPTIONS pings: below it, pings of one trunk would overlap on a slow path.
const KEEPALIVE_MIN_MS: u32 = 100;
/// Longest period: a dead trunk is noticed within the hour.
const KEEPALIVE_MAX_MS: u32 = 3_600_000;
/// Registrations that may be wished for: shorter would be REGISTER without pause, longer hides a carrier's loss of it.
const EXPIRES_S: std::ops::RangeInclusive<u32> = 30..=86_400;
/// Longest host name (RFC 1035, section 2.3.4).
const DOMAIN_MAX: usize = 253;

pub(crate) fn create(case: &mut Case<'_>, command: &Command) {
    let Command::TrunkCreate { account, name, address, credentials, registration, call_limit, priority, keepalive_ms } =
        command
    else {
        return;
    };
    case.check_name("name", name, 1);
    case.check_call_limit(*call_limit);
    check_address(case, "address", *address);
    let username = credentials.as_ref().map(|c| c.username.clone());
    let registration = registration.as_ref().map(|given| registered(case, given, username.as_deref()));
    check_keepalive(case, *keepalive_ms);
    if let Some(credentials) = credentials {
        let known = |b: u8| b.is_ascii_graphic() && !b"\"\\:".contains(&b);
        let username = credentials.username.as_str();
        if username.is_empty() || username.len() > USERNAME_MAX || !username.bytes().all(known) {
            let remedy = format!("send 1 to {USERNAME_MAX} visible ASCII characters without quotes, \\ and colon");
            case.invalid("credentials.username", "it cannot be a user of digest credentials", &remedy);
        }
        check_secret(case, credentials.password.expose());
    }
    let Some(owner) = case.owner() else { return case.missing("account", "account", account) };
    case.check_taken(None, Taken::Name);
    case.check_taken(None, Taken::Address);
    let id = TrunkId::new(&*case.ctx.ids);
    let trunk = Trunk {
        id,
        account: owner.id,
        name: name.clone(),
        address: *address,
        username,
        registration,
        call_limit: *call_limit,
        priority: *priority,
        keepalive_ms: *keepalive_ms,
        enabled: true,
        revision: case.first_revision(),
    };
    case.is_final("a trunk is never removed, since usage names it; it can be disabled");
    let write = Write::TrunkInsert(trunk.clone(), credentials.as_ref().map(|c| c.password.clone()));
    case.effect((ResourceKind::Trunk, id.uuid()), name, None, Some(&trunk), write);
}

pub(crate) fn update(case: &mut Case<'_>, command: &Command) {
    let Command::TrunkUpdate { id, registration, call_limit, priority, keepalive_ms, enabled } = command else {
        return;
    };
    let Some(before) = case.view.trunk(*id).filter(|_| case.owner().is_some()) else {
        return case.missing("id", "trunk", id);
    };
    case.looked_at(ResourceKind::Trunk, before.id.uuid(), before.revision);
    let unchanged = call_limit.is_none() && priority.is_none() && keepalive_ms.is_none() && enabled.is_none();
    if unchanged && registration.is_none() {
        case.invalid("", "no field is to change", "send at least one field");
    }
    let registration = match registration {
        Some(given) => given.as_ref().map(|given| registered(case, given, before.username.as_deref())),
        None => before.registration.clone(),
    };
    let after = Trunk {
        registration,
        call_limit: call_limit.unwrap_or(before.call_limit),
        priority: priority.unwrap_or(before.priority),
        keepalive_ms: keepalive_ms.unwrap_or(before.keepalive_ms),
        enabled: enabled.unwrap_or(before.enabled),
        revision: case.next_revision(before.revision),
        ..before.clone()
    };
    replaced(case, before, &after);
}

/// The trunk is as `after` from now on, with the credentials that it has.
pub(crate) fn replaced(case: &mut Case<'_>, before: &Trunk, after: &Trunk) {
    case.check_call_limit(after.call_limit);
    check_keepalive(case, after.keepalive_ms);
    let write = Write::TrunkUpdate(after.clone());
    case.effect((ResourceKind::Trunk, after.id.uuid()), after.name.clone(), Some(before), Some(after), write);
}

/// The peer chose its password, so it may be short; what cannot be typed is a mistake.
fn check_secret(case: &mut Case<'_>, password: &str) {
    let fits = (1..=crate::label::PASSWORD_MAX).contains(&password.len());
    if !fits || password.chars().any(char::is_control) {
        let remedy = format!("send 1 to {} octets without control characters", crate::label::PASSWORD_MAX);
        case.invalid("credentials.password", "the password is empty, too long or has control characters", &remedy);
    }
}

/// The registration that is asked for.
fn registered(case: &mut Case<'_>, given: &TrunkRegistrar, username: Option<&str>) -> TrunkRegistration {
    check_address(case, "registration.registrar", given.registrar);
    if username.is_none() {
        let remedy = "send credentials with the trunk, or no registration";
        case.invalid("registration", "there are no credentials to register with", remedy);
    }
    if !EXPIRES_S.contains(&given.expires_s) {
        let remedy = format!("send {} to {} seconds", EXPIRES_S.start(), EXPIRES_S.end());
        case.invalid("registration.expiresS", "the time is out of range", &remedy);
    }
    let ip = given.registrar.ip();
    let own = if ip.is_ipv4() { ip.to_string() } else { format!("[{ip}]") };
    let domain = given.domain.clone().unwrap_or(own);
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if domain.is_empty() || domain.len() > DOMAIN_MAX || !domain.bytes().all(known) {
        let remedy = format!("send a host name or an address of at most {DOMAIN_MAX} characters");
        case.invalid("registration.domain", "it cannot be the host of a SIP address", &remedy);
    }
    TrunkRegistration { registrar: given.registrar, domain, expires_s: given.expires_s }
}

fn check_address(case: &mut Case<'_>, field: &'static str, address: SocketAddr) {
    let broadcast = matches!(address.ip(), IpAddr::V4(ip) if ip.is_broadcast());
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() || broadcast {
        case.invalid(field, "no peer can have this address", "send IP address and port, such as 192.0.2.1:5060");
    }
}

fn check_keepalive(case: &mut Case<'_>, keepalive_ms: u32) {
    if keepalive_ms != 0 && !(KEEPALIVE_MIN_MS..=KEEPALIVE_MAX_MS).contains(&keepalive_ms) {
        let remedy = format!("send {KEEPALIVE_MIN_MS} to {KEEPALIVE_MAX_MS} milliseconds, or 0 for none");
        case.invalid("keepaliveMs", "the period is out of range", &remedy);
    }
}
