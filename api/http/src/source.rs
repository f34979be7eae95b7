//! How many connections each source has open: one host that opens many and says nothing must leave places to others.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::share::{Share, Shares};

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 one, within which a host takes addresses at will
/// (RFC 4291, section 2.5.1; RFC 8981).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl Source {
    fn of(address: IpAddr) -> Self {
        // an IPv4 address that a socket of both families shows as IPv6 (RFC 4291, section 2.5.5.2) is what it was
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// Whether connections from this machine are bounded like others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loopback {
    /// No: a proxy on this machine speaks for all its clients.
    Exempt,
    /// Yes: for tests, whose peers are all on this machine.
    #[cfg(test)]
    Counted,
}

/// The open connections of each source.
#[derive(Debug)]
pub(crate) struct Sources {
    open: Arc<Shares<Source>>,
    loopback: Loopback,
}

impl Sources {
    /// At most `max` connections of each.
    pub(crate) fn new(max: usize, loopback: Loopback) -> Arc<Self> {
        Arc::new(Self { open: Shares::new(max), loopback })
    }

    /// Counts a connection from `address` until what is given back is dropped; none: the source has as many as it may.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Connection> {
        if self.loopback == Loopback::Exempt && address.to_canonical().is_loopback() {
            return Some(Connection(None));
        }
        self.open.take(Source::of(address)).map(|share| Connection(Some(share)))
    }
}

/// One connection of a source, as long as it is open.
#[derive(Debug)]
pub(crate) struct Connection(#[expect(dead_code, reason = "its end gives the place back")] Option<Share<Source>>);

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_source_has_its_bound_and_gets_back_what_it_closes() {
        let sources = Sources::new(2, Loopback::Exempt);
        let mut held = Vec::new();
        for (address, taken) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8:0:1::1", true),
            ("2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:1::3", false),
            ("2001:db8:0:2::1", true),
        ] {
            let share = sources.take(ip(address));
            assert_eq!(share.is_some(), taken, "{address}");
            held.extend(share);
        }
        // the first of 192.0.2.1
        held.remove(0);
        held.extend(sources.take(ip("192.0.2.1")));
        assert!(sources.take(ip("192.0.2.1")).is_none());
        held.clear();
        assert!(sources.open.is_empty(), "who has left is forgotten");
    }

    #[test]
    fn this_machine_speaks_for_others() {
        let many = |loopback, address: &str| {
            let sources = Sources::new(1, loopback);
            let held: Vec<_> = (0..3).filter_map(|_| sources.take(ip(address))).collect();
            held.len()
        };
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!((many(Loopback::Exempt, address), many(Loopback::Counted, address)), (3, 1), "{address}");
        }
    }
}
