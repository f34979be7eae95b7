//! Symmetric RTP (RFC 4961): a leg is sent to where its packets come from, not to where its SDP says, so that devices
//! behind NAT hear something.
//!
//! The rule: the first valid packet wins. After that another source is heard only when it is the signalled address, or
//! when the latched source has been silent for `silence_ms`. A new address by signalling opens the latch again.

use std::net::SocketAddr;

/// Where a leg's packets come from and go to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latch {
    signalled: Option<SocketAddr>,
    latched: Option<Latched>,
}

#[derive(Debug, Clone, Copy)]
struct Latched {
    source: SocketAddr,
    last_ms: u64,
}

impl Latch {
    /// The address that the SDP names. An unspecified address or port 0 (hold, rejected) means: send nothing until
    /// the leg itself sends. The same address again changes nothing.
    pub fn signal(&mut self, addr: SocketAddr) {
        let usable = (!addr.ip().is_unspecified() && addr.port() != 0).then_some(addr);
        if self.signalled == usable && usable.is_some() {
            return;
        }
        self.signalled = usable;
        // What already comes from the named address needs no new latch.
        self.latched = self.latched.filter(|latched| Some(latched.source) == usable);
    }

    /// Whether a valid packet from `source` belongs to the leg; latches on it when it does.
    pub fn accept(&mut self, source: SocketAddr, now_ms: u64, silence_ms: u64) -> bool {
        let accepted = match self.latched {
            None => true,
            Some(latched) => {
                latched.source == source
                    || self.signalled == Some(source)
                    || now_ms.saturating_sub(latched.last_ms) > silence_ms
            }
        };
        if accepted {
            self.latched = Some(Latched { source, last_ms: now_ms });
        }
        accepted
    }

    /// Whether `source` is where the leg is heard now, without latching.
    #[must_use]
    pub fn is_current(&self, source: SocketAddr) -> bool {
        self.destination() == Some(source)
    }

    /// Where to send what is for this leg.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        self.latched.map(|latched| latched.source).or(self.signalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: u64 = 1000;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn first_packet_wins_and_strangers_are_ignored() {
        let mut latch = Latch::default();
        assert_eq!(latch.destination(), None);
        latch.signal(addr(1));
        assert_eq!(latch.destination(), Some(addr(1)));
        assert!(latch.accept(addr(2), 0, SILENCE));
        assert_eq!(latch.destination(), Some(addr(2)));
        assert!(!latch.accept(addr(3), 20, SILENCE));
        assert!(latch.accept(addr(2), 40, SILENCE));
        assert_eq!(latch.destination(), Some(addr(2)));
    }

    #[test]
    fn the_signalled_address_may_take_over() {
        let mut latch = Latch::default();
        latch.signal(addr(1));
        assert!(latch.accept(addr(2), 0, SILENCE));
        assert!(latch.accept(addr(1), 20, SILENCE));
        assert!(!latch.accept(addr(2), 40, SILENCE));
    }

    #[test]
    fn silence_opens_the_latch() {
        let mut latch = Latch::default();
        latch.signal(addr(1));
        assert!(latch.accept(addr(1), 0, SILENCE));
        assert!(!latch.accept(addr(9), SILENCE, SILENCE));
        assert!(latch.accept(addr(9), SILENCE + 1, SILENCE));
    }

    #[test]
    fn signalling_moves_and_holds() {
        let mut latch = Latch::default();
        assert!(latch.accept(addr(5), 0, SILENCE), "early media before the answer");
        latch.signal(addr(5));
        assert_eq!(latch.destination(), Some(addr(5)));
        latch.signal(addr(6));
        assert_eq!(latch.destination(), Some(addr(6)));
        assert!(latch.accept(addr(7), 10, SILENCE), "a new address opens the latch");
        latch.signal(addr(6));
        assert_eq!(latch.destination(), Some(addr(7)), "the same address again changes nothing");
        latch.signal(SocketAddr::from(([0, 0, 0, 0], 6)));
        assert_eq!(latch.destination(), None);
        latch.signal(addr(0));
        assert_eq!(latch.destination(), None);
    }
}
