//! Interarrival jitter: RFC 3550, sections 6.4.1 and A.8.

/// A step of transit time beyond this is a new beginning of the sender's clock, not jitter: microseconds.
const DISCONTINUITY_US: i64 = 2_000_000;

/// The running estimate of a stream, in microseconds, so that a change of the payload's clock rate keeps it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Jitter {
    last: Option<Packet>,
    /// The estimate, times 16, as in the appendix.
    scaled: u64,
    /// Sum of the estimates after each packet, and their number: the mean over the stream.
    sum_us: u64,
    count: u64,
    max_us: u64,
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    ssrc: u32,
    clock_rate: u32,
    timestamp: u32,
    arrival_us: u64,
}

impl Jitter {
    /// Takes note of an audio packet. Packets whose timestamp does not tell their time (telephone-event: RFC 4733,
    /// section 2.2) are not for this.
    pub fn update(&mut self, ssrc: u32, clock_rate: u32, timestamp: u32, arrival_us: u64) {
        let packet = Packet { ssrc, clock_rate, timestamp, arrival_us };
        let Some(last) = self.last.replace(packet) else { return };
        if last.ssrc != ssrc || last.clock_rate != clock_rate || clock_rate == 0 {
            return;
        }
        // Modulo 2^32: a packet from before counts backwards.
        let sent = i64::from(timestamp.wrapping_sub(last.timestamp).cast_signed());
        let sent_us = sent.saturating_mul(1_000_000) / i64::from(clock_rate);
        let arrived_us = i64::try_from(arrival_us.saturating_sub(last.arrival_us)).unwrap_or(i64::MAX);
        let step = arrived_us.saturating_sub(sent_us).saturating_abs();
        if step > DISCONTINUITY_US {
            return;
        }
        self.scaled =
            self.scaled.saturating_add(step.unsigned_abs()).saturating_sub(self.scaled.saturating_add(8) >> 4);
        let estimate = self.scaled >> 4;
        self.sum_us = self.sum_us.saturating_add(estimate);
        self.count = self.count.saturating_add(1);
        self.max_us = self.max_us.max(estimate);
    }

    /// The estimate now, microseconds.
    #[must_use]
    pub const fn current_us(&self) -> u64 {
        self.scaled >> 4
    }

    /// Sum of the estimates, microseconds, and their number.
    #[must_use]
    pub const fn sum_and_count(&self) -> (u64, u64) {
        (self.sum_us, self.count)
    }

    /// The highest estimate, microseconds.
    #[must_use]
    pub const fn max_us(&self) -> u64 {
        self.max_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 20 ms, each late by so many microseconds.
    fn of(clock_rate: u32, delays_us: impl IntoIterator<Item = u64>) -> Jitter {
        let mut jitter = Jitter::default();
        let mut timestamp = u32::MAX - clock_rate;
        for (n, delay) in (0_u64..).zip(delays_us) {
            jitter.update(1, clock_rate, timestamp, n * 20_000 + delay);
            timestamp = timestamp.wrapping_add(clock_rate / 50);
        }
        jitter
    }

    #[test]
    fn steady_packets_have_none_whatever_the_clock() {
        for clock_rate in [8_000, 16_000, 48_000, 90_000] {
            let jitter = of(clock_rate, [500; 200]);
            assert_eq!((jitter.current_us(), jitter.max_us()), (0, 0), "{clock_rate}");
        }
    }

    #[test]
    fn follows_the_appendix() {
        // One step of 16 ms up and one down: 1000, then 1000 + (16000 - 1000) / 16.
        let jitter = of(8_000, [0, 16_000, 0]);
        assert_eq!(jitter.current_us(), 1_937);
        assert_eq!(jitter.sum_and_count(), (1_000 + 1_937, 2));
        // Every packet differs from the one before by 8 ms: the estimate comes near that.
        let jitter = of(8_000, (0..600).map(|n| if n % 2 == 0 { 0 } else { 8_000 }));
        assert!((7_900..=8_000).contains(&jitter.current_us()), "{}", jitter.current_us());
        assert!(jitter.max_us() <= 8_000);
    }

    #[test]
    fn a_new_source_and_a_jump_of_its_clock_are_no_jitter() {
        let mut jitter = Jitter::default();
        jitter.update(1, 8_000, 0, 0);
        jitter.update(2, 8_000, 4_000_000, 20_000);
        jitter.update(2, 8_000, 4_000_160, 40_000);
        jitter.update(2, 8_000, 0x8000_0000, 60_000);
        jitter.update(2, 0, 7, 80_000);
        assert_eq!(jitter.current_us(), 0);
        assert_eq!(jitter.sum_and_count().1, 1);
        jitter.update(2, 0, u32::MAX, u64::MAX);
        assert_eq!(jitter.max_us(), 0);
    }
}
