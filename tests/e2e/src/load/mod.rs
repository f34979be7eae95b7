//! Load for `make bench`: a lean caller and callee, a lean sender of RTP, and the peers that sit in Tandem's seat.
//!
//! The method: the server is pinned to one core and the generator to another, both with real-time priority where the
//! user may set it, so that other work of the machine stays out of the figures; a figure is therefore *per core of
//! server*. The generator repeats nothing: a lost message is a failed call, which is stricter than a phone.

#![expect(
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a generator of load lives in real time, and its figures are for people"
)]

pub mod machine;
pub mod peers;
pub mod rtp;
pub mod sip;
pub mod world;

use std::time::Duration;

/// Latencies in steps of ten microseconds, up to two seconds.
#[derive(Debug, Clone)]
pub struct Latencies {
    counts: Vec<u32>,
    total: u64,
}

/// Microseconds of a step.
const STEP_US: u128 = 10;
/// Steps; what is slower counts as the last.
const STEPS: usize = 200_000;

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; STEPS + 1], total: 0 }
    }
}

impl Latencies {
    /// Counts one.
    pub fn add(&mut self, latency: Duration) {
        let step = usize::try_from(latency.as_micros() / STEP_US).unwrap_or(STEPS).min(STEPS);
        self.counts[step] += 1;
        self.total += 1;
    }

    /// The latency that `permille` of a thousand do not exceed, milliseconds; NaN when there are none.
    #[must_use]
    pub fn quantile_ms(&self, permille: u64) -> f64 {
        let wanted = (self.total * permille).div_ceil(1000);
        let mut seen = 0;
        for (step, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted && seen > 0 {
                return step as f64 / 100.0;
            }
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_step_that_so_many_do_not_exceed() {
        let mut latencies = Latencies::default();
        for ms in 1..=100 {
            latencies.add(Duration::from_millis(ms));
        }
        assert!((latencies.quantile_ms(500) - 50.0).abs() < 1e-9);
        assert!((latencies.quantile_ms(990) - 99.0).abs() < 1e-9);
        latencies.add(Duration::from_secs(3600));
        assert!((latencies.quantile_ms(1000) - 2000.0).abs() < 1e-9);
        assert!(Latencies::default().quantile_ms(990).is_nan());
    }
}
