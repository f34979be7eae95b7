//! Where a call goes: a pure question to the directory.

use std::net::IpAddr;
use std::sync::Arc;

use model::number::E164;
use model::tenancy::AccountPath;

use crate::directory::{Directory, Listed, Subscriber, Trunk};
use crate::numbering;

/// Who is called.
#[derive(Debug, Clone)]
pub enum Target {
    /// A subscriber of ours.
    Subscriber(Arc<Listed<Subscriber>>),
    /// Outside: these trunks may carry it, the preferred first. Never empty.
    Trunks(Vec<Arc<Listed<Trunk>>>),
}

/// The answer.
#[derive(Debug, Clone)]
pub struct Route {
    /// Who is called.
    pub target: Target,
    /// The called number, where a number was dialled.
    pub called: Option<E164>,
}

/// Why there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    /// Nobody has this name, extension or number: 404.
    #[error("the dialled address is not known")]
    Unknown,
    /// The number is outside and no trunk serves the caller: 503.
    #[error("no trunk serves the caller")]
    NoTrunk {
        /// The number.
        called: E164,
    },
}

/// The route of a call that a subscriber dials: an extension of its customer, a user name in the domain of the
/// Request-URI, or a number, which stays on-net where we host it.
///
/// # Errors
/// When nobody is there or no trunk serves the caller.
pub fn from_subscriber(
    directory: &Directory,
    caller: &Subscriber,
    path: &AccountPath,
    user: &str,
    host: &str,
) -> Result<Route, Unroutable> {
    let own = directory.domain(caller.domain).ok_or(Unroutable::Unknown)?;
    // A phone that was given our address instead of the domain means its own domain.
    let domain = match directory.domain_by_name(host) {
        Some(domain) => domain,
        None if is_address(host) => own,
        None => return Err(Unroutable::Unknown),
    };
    if domain.account == caller.account
        && let Some(callee) = directory.subscriber_by_extension(caller.account, user)
    {
        return Ok(Route { target: Target::Subscriber(Arc::clone(callee)), called: None });
    }
    if let Some(callee) = directory.subscriber_by_name(domain.id, user) {
        return Ok(Route { target: Target::Subscriber(Arc::clone(callee)), called: None });
    }
    let called = numbering::normalise(user, own).ok_or(Unroutable::Unknown)?;
    if let Some(number) = directory.number(called) {
        let callee = number.subscriber.and_then(|id| directory.subscriber(id)).ok_or(Unroutable::Unknown)?;
        return Ok(Route { target: Target::Subscriber(Arc::clone(callee)), called: Some(called) });
    }
    let trunks: Vec<_> = directory.trunks_serving(path).cloned().collect();
    if trunks.is_empty() {
        return Err(Unroutable::NoTrunk { called });
    }
    Ok(Route { target: Target::Trunks(trunks), called: Some(called) })
}

/// The route of a call that comes in from a trunk: a number hosted in the subtree that the trunk serves.
///
/// # Errors
/// When the number is none of those: a trunk is no way to another trunk, nor to another owner's customers.
pub fn from_trunk(directory: &Directory, trunk: &Trunk, user: &str) -> Result<Route, Unroutable> {
    let called = numbering::from_trunk(user).ok_or(Unroutable::Unknown)?;
    let number = directory.number(called).ok_or(Unroutable::Unknown)?;
    let account = directory.account(number.account).ok_or(Unroutable::Unknown)?;
    if !trunk.path.contains(&account.path) {
        return Err(Unroutable::Unknown);
    }
    let callee = number.subscriber.and_then(|id| directory.subscriber(id)).ok_or(Unroutable::Unknown)?;
    Ok(Route { target: Target::Subscriber(Arc::clone(callee)), called: Some(called) })
}

fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn name(route: Result<Route, Unroutable>) -> String {
        match route {
            Ok(Route { target: Target::Subscriber(s), called }) => {
                format!("{}{}", s.username, called.map(|n| n.to_string()).unwrap_or_default())
            }
            Ok(Route { target: Target::Trunks(trunks), called }) => format!(
                "{}{}",
                trunks.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(","),
                called.map(|n| n.to_string()).unwrap_or_default()
            ),
            Err(Unroutable::Unknown) => "unknown".to_owned(),
            Err(Unroutable::NoTrunk { .. }) => "no trunk".to_owned(),
        }
    }

    #[test]
    fn a_subscriber_reaches_extension_name_number_and_trunk() {
        let world = World::new();
        let directory = world.directory();
        let check = |user: &str, host: &str, expected: &str| {
            let route = from_subscriber(&directory, &world.alice, &world.customer_path, user, host);
            assert_eq!(name(route), expected, "{user}@{host}");
        };
        check("101", "alpha.example", "bob");
        check("101", "127.0.0.1", "bob");
        check("bob", "alpha.example", "bob");
        check("carol", "beta.example", "carol");
        // Both customers have an extension 100; each reaches its own.
        check("100", "alpha.example", "alice");
        check("100", "beta.example", "unknown");
        check("+43720000101", "alpha.example", "bob+43720000101");
        check("0720000101", "alpha.example", "bob+43720000101");
        check("00493012345", "alpha.example", "carrier,backup+493012345");
        check("nobody", "alpha.example", "unknown");
        check("bob", "elsewhere.example", "unknown");
    }

    #[test]
    fn a_trunk_reaches_hosted_numbers_below_its_owner_only() {
        let world = World::new();
        let directory = world.directory();
        assert_eq!(name(from_trunk(&directory, &world.trunk, "+43720000101")), "bob+43720000101");
        assert_eq!(name(from_trunk(&directory, &world.trunk, "43720000101")), "bob+43720000101");
        assert_eq!(name(from_trunk(&directory, &world.trunk, "+493012345")), "unknown");
        assert_eq!(name(from_trunk(&directory, &world.trunk, "101")), "unknown");
        let foreign = Trunk { path: AccountPath::root(world.alice.account), ..world.trunk.clone() };
        assert_eq!(name(from_trunk(&directory, &foreign, "+43720000101")), "unknown");
    }
}
