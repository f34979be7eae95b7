//! A socket address that one thread writes and another reads without a lock: a sequence lock whose words are atomics.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// The address, with a version that is odd while it is being written.
#[derive(Debug, Default)]
pub struct SharedAddress {
    version: AtomicU64,
    high: AtomicU64,
    low: AtomicU64,
    /// Family (0 none, 4, 6) in bits 16 to 23, port in bits 0 to 15.
    port: AtomicU64,
}

impl SharedAddress {
    /// Writes. Only the handle that holds the session calls this: there is one writer at a time.
    pub fn store(&self, addr: Option<SocketAddr>) {
        let (octets, port) = match addr {
            None => (0, 0),
            Some(addr) => {
                let (octets, family) = match addr.ip() {
                    IpAddr::V4(ip) => (u128::from(u32::from(ip)), 4_u64),
                    IpAddr::V6(ip) => (u128::from(ip), 6),
                };
                (octets, family << 16 | u64::from(addr.port()))
            }
        };
        let [h0, h1, h2, h3, h4, h5, h6, h7, l0, l1, l2, l3, l4, l5, l6, l7] = octets.to_be_bytes();
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.high.store(u64::from_be_bytes([h0, h1, h2, h3, h4, h5, h6, h7]), Ordering::Relaxed);
        self.low.store(u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]), Ordering::Relaxed);
        self.port.store(port, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// The version now: cheap to compare per packet.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Reads address and version; none while it is being written: the next packet will see it.
    pub fn load(&self) -> Option<(u64, Option<SocketAddr>)> {
        let version = self.version();
        let high = self.high.load(Ordering::Relaxed);
        let low = self.low.load(Ordering::Relaxed);
        let port = self.port.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if !version.is_multiple_of(2) || self.version.load(Ordering::Relaxed) != version {
            return None;
        }
        let octets = u128::from(high) << 64 | u128::from(low);
        let ip = match port >> 16 {
            4 => u32::try_from(octets).ok().map(|ip| IpAddr::V4(ip.into())),
            6 => Some(IpAddr::V6(octets.into())),
            _ => None,
        };
        Some((version, ip.and_then(|ip| Some(SocketAddr::new(ip, u16::try_from(port & 0xffff).ok()?)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn round_trips() {
        let shared = SharedAddress::default();
        assert_eq!(shared.load(), Some((0, None)));
        for text in ["192.0.2.1:5000", "[2001:db8::9]:65535", "0.0.0.0:0"] {
            let addr = text.parse().unwrap();
            shared.store(Some(addr));
            assert_eq!(shared.load().unwrap().1, Some(addr));
        }
        shared.store(None);
        assert_eq!(shared.load(), Some((8, None)));
    }

    #[test]
    fn never_shows_a_mixture() {
        let one: SocketAddr = "[1111:1111:1111:1111:1111:1111:1111:1111]:4369".parse().unwrap();
        let two: SocketAddr = "[2222:2222:2222:2222:2222:2222:2222:2222]:8738".parse().unwrap();
        let shared = SharedAddress::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..20_000).for_each(|n| shared.store(Some(if n % 2 == 0 { one } else { two })));
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                if let Some((_, Some(addr))) = shared.load() {
                    assert!(addr == one || addr == two, "{addr}");
                }
            }
        });
    }
}
