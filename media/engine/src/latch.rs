//! Symmetric RTP (RFC 4961): a leg is sent to where its packets come from, not to where its SDP says, so that devices
//! behind NAT hear something.
//!
//! The rule: the first valid packet wins. After that another source is heard only when it fits the signalled address
//! better (the address itself before its host, its host before strangers), or when the latched source has been silent
//! for `silence_ms`. A new address by signalling opens the latch again; packets of the former source that are still on
//! their way do not close it, and win only when nobody else has come for `silence_ms`.

use std::net::{IpAddr, SocketAddr};

/// Where a leg's packets come from and go to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latch {
    signalled: Option<SocketAddr>,
    latched: Option<Latched>,
    /// The source before the signalled address changed, with the time of the change.
    former: Option<Latched>,
    /// Nothing is to be sent: the leg named no usable address (hold, rejected).
    paused: bool,
}

#[derive(Debug, Clone, Copy)]
struct Latched {
    source: SocketAddr,
    last_ms: u64,
}

impl Latch {
    /// The address that the SDP names. An unspecified address or port 0 (hold, rejected) means: send nothing until
    /// another one is named; the latch stays as it is for then. The same address again changes nothing.
    pub fn signal(&mut self, addr: SocketAddr, now_ms: u64) {
        self.paused = addr.ip().is_unspecified() || addr.port() == 0;
        if self.paused || self.signalled == Some(addr) {
            return;
        }
        self.signalled = Some(addr);
        // What already comes from the named address needs no new latch.
        if let Some(latched) = self.latched.take_if(|latched| latched.source != addr) {
            self.former = Some(Latched { last_ms: now_ms, ..latched });
        }
    }

    /// Whether a valid packet from `source` belongs to the leg; latches on it when it does.
    pub fn accept(&mut self, source: SocketAddr, now_ms: u64, silence_ms: u64) -> bool {
        let silent = |since: u64| now_ms.saturating_sub(since) > silence_ms;
        let accepted = match (self.latched, self.former) {
            (Some(latched), _) => {
                latched.source == source || self.fit(source) > self.fit(latched.source) || silent(latched.last_ms)
            }
            (None, Some(former)) => former.source != source || silent(former.last_ms),
            (None, None) => true,
        };
        if accepted {
            self.latched = Some(Latched { source, last_ms: now_ms });
            self.former = None;
        }
        accepted
    }

    /// How well a source fits the signalled address.
    fn fit(&self, source: SocketAddr) -> u8 {
        match self.signalled {
            Some(signalled) if signalled == source => 2,
            Some(signalled) => u8::from(signalled.ip() == source.ip()),
            None => 0,
        }
    }

    /// Whether the leg may be on this host: nothing was heard of it yet, or it was heard there.
    #[must_use]
    pub fn may_be_on(&self, host: IpAddr) -> bool {
        self.latched.is_none_or(|latched| latched.source.ip() == host)
    }

    /// Whether signalling named this very address.
    #[must_use]
    pub fn is_signalled(&self, source: SocketAddr) -> bool {
        self.signalled == Some(source)
    }

    /// Whether `source` is where the leg is heard now, without latching.
    #[must_use]
    pub fn is_current(&self, source: SocketAddr) -> bool {
        self.current() == Some(source)
    }

    /// Where to send what is for this leg.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        self.current().filter(|_| !self.paused)
    }

    fn current(&self) -> Option<SocketAddr> {
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

    fn stranger(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 9], port))
    }

    #[test]
    fn first_packet_wins_and_strangers_are_ignored() {
        let mut latch = Latch::default();
        assert_eq!(latch.destination(), None);
        latch.signal(addr(1), 0);
        assert_eq!(latch.destination(), Some(addr(1)));
        assert!(latch.accept(addr(2), 0, SILENCE));
        assert_eq!(latch.destination(), Some(addr(2)));
        assert!(!latch.accept(addr(3), 20, SILENCE));
        assert!(latch.accept(addr(2), 40, SILENCE));
        assert_eq!(latch.destination(), Some(addr(2)));
    }

    #[test]
    fn the_better_fit_may_take_over() {
        let mut latch = Latch::default();
        latch.signal(addr(1), 0);
        assert!(latch.accept(stranger(2), 0, SILENCE), "a stranger came first, or a device behind NAT");
        assert!(!latch.accept(stranger(3), 10, SILENCE));
        assert!(latch.accept(addr(2), 20, SILENCE), "the host that was named");
        assert!(!latch.accept(stranger(2), 25, SILENCE));
        assert!(latch.accept(addr(1), 30, SILENCE), "the address itself");
        assert!(!latch.accept(addr(2), 40, SILENCE));
    }

    #[test]
    fn silence_opens_the_latch() {
        let mut latch = Latch::default();
        latch.signal(addr(1), 0);
        assert!(latch.accept(addr(1), 0, SILENCE));
        assert!(!latch.accept(addr(9), SILENCE, SILENCE));
        assert!(latch.accept(addr(9), SILENCE + 1, SILENCE));
    }

    #[test]
    fn signalling_moves_the_latch_and_the_former_source_does_not_pull_it_back() {
        let mut latch = Latch::default();
        assert!(latch.accept(addr(5), 0, SILENCE), "early media before the answer");
        latch.signal(addr(5), 5);
        assert_eq!(latch.destination(), Some(addr(5)));
        latch.signal(addr(6), 10);
        assert_eq!(latch.destination(), Some(addr(6)));
        assert!(!latch.accept(addr(5), 20, SILENCE), "still on its way");
        assert_eq!(latch.destination(), Some(addr(6)));
        assert!(latch.accept(addr(7), 30, SILENCE), "a new address opens the latch");
        latch.signal(addr(6), 40);
        assert_eq!(latch.destination(), Some(addr(7)), "the same address again changes nothing");
        latch.signal(addr(8), 50);
        assert!(!latch.accept(addr(7), 50 + SILENCE, SILENCE));
        assert!(latch.accept(addr(7), 51 + SILENCE, SILENCE), "the only one who talks: the NAT kept its port");
    }

    #[test]
    fn hold_sends_nothing_and_remembers() {
        let mut latch = Latch::default();
        latch.signal(addr(6), 0);
        assert!(latch.accept(stranger(7), 10, SILENCE));
        for unusable in [SocketAddr::from(([0, 0, 0, 0], 6)), addr(0), "[::]:6".parse().unwrap()] {
            latch.signal(unusable, 20);
            assert_eq!(latch.destination(), None);
            assert!(latch.accept(stranger(7), 30, SILENCE), "music on hold is heard");
            assert_eq!(latch.destination(), None);
        }
        latch.signal(addr(6), 40);
        assert_eq!(latch.destination(), Some(stranger(7)), "back from hold behind the same NAT");
    }
}
