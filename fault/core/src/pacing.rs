//! How fast notifications leave: a token bucket per target.
//!
//! Receivers lose datagrams in bulk: of an unpaced burst of a thousand traps net-snmp's receiver logged a quarter.

use std::time::{Duration, Instant};

/// Notifications a second, over time. Receivers took twenty times as many without a loss.
pub const RATE_PER_SECOND: u32 = 100;
/// Notifications at once: an ordinary incident leaves without delay and fits any receive buffer.
pub const BURST: u32 = 50;

/// A token bucket. Time is an argument; it may stand, and a step back is no time.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    interval: Duration,
    /// When the bucket will be full again: the whole state (generic cell rate algorithm, ITU-T I.371, annex A).
    full_at: Option<Instant>,
    depth: Duration,
}

impl Default for TokenBucket {
    fn default() -> Self {
        Self::new(RATE_PER_SECOND, BURST)
    }
}

impl TokenBucket {
    /// A full bucket; zero counts as one.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, full_at: None, depth: interval * burst.max(1) }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long to wait when there is none; nothing was taken then.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + self.interval;
        match full_at.saturating_duration_since(now).checked_sub(self.depth) {
            None | Some(Duration::ZERO) => {
                self.full_at = Some(full_at);
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin; only differences are looked at")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let (mut bucket, t0) = (TokenBucket::new(100, 50), start());
        let at = |ms| t0 + Duration::from_millis(ms);
        assert_eq!((0..60).filter(|_| bucket.take(t0).is_ok()).count(), 50);
        assert_eq!(bucket.take(t0), Err(Duration::from_millis(10)));
        assert_eq!(bucket.take(at(4)), Err(Duration::from_millis(6)));
        assert_eq!(bucket.take(at(10)), Ok(()));
        assert_eq!((0..99).filter(|_| bucket.take(at(200)).is_ok()).count(), 19);
        assert_eq!((0..99).filter(|_| bucket.take(at(3_600_000)).is_ok()).count(), 50);
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(steps in prop::collection::vec(0_u64..40, 1..400)) {
            let (mut bucket, t0) = (TokenBucket::new(100, 50), start());
            let (mut ms, mut taken) = (0, 0);
            for step in steps {
                ms += step;
                taken += u64::from(bucket.take(t0 + Duration::from_millis(ms)).is_ok());
                prop_assert!(taken <= 50 + ms / 10);
            }
        }
    }
}
