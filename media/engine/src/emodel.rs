//! How a conversation sounds: the E-model of ITU-T G.107 with its default values, reduced to what a relay can measure.
//!
//! R = 93.2 - Idd - Ie,eff (G.107, section 7: Ro - Is = 93.2 with all defaults, no echo, advantage factor 0).
//! Idd is the delay impairment of section 7.4 with mT = 100 ms and sT = 1 (not the linear form of older tools, which
//! differs by up to 10 points of R). Ie,eff = Ie + (95 - Ie) * Ppl / (Ppl / BurstR + Bpl) of section 7.5, with Ie and
//! Bpl from ITU-T G.113, appendix I, tables I.1 and I.3. MOS by Annex B.
//!
//! Only narrow-band codecs that have values there are judged. Wide-band ones (G.722, Opus) have a scale of their own
//! (G.107.1) that must not be mixed with this one in an average.

use model::event::fact::Codec;

/// Ro - Is with the default values.
const R_DEFAULT: f64 = 93.2;
/// Delay that nobody minds, milliseconds (mT).
const DELAY_UNNOTICED_MS: f64 = 100.0;
/// What a receiver's buffer holds on the average: twice the jitter, between these, milliseconds.
const BUFFER_MIN_MS: f64 = 40.0;
/// Above this, phones discard instead of waiting.
const BUFFER_MAX_MS: f64 = 200.0;
/// BurstR that is believed at most: beyond it the formula was not validated.
const BURST_RATIO_MAX: f64 = 8.0;

/// A mean opinion score (listening and conversational quality, narrow band) in hundredths: 100 to 450.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mos(u16);

impl Mos {
    /// In hundredths: 441 is 4.41.
    #[must_use]
    pub const fn hundredths(self) -> u16 {
        self.0
    }
}

/// What was measured of a stream in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// The codec.
    pub codec: Codec,
    /// Packets that were to come.
    pub expected: u64,
    /// Packets of those that did not.
    pub lost: u64,
    /// Runs that the lost ones came in; 0 when not known.
    pub loss_runs: u64,
    /// Interarrival jitter, microseconds.
    pub jitter_us: u64,
    /// Round trip, microseconds; where it is not known the network is taken to have no delay.
    pub round_trip_us: Option<u64>,
}

/// Ie and Bpl of a codec, and the delay of one packet of 20 ms (30 ms for G.723.1) with its look-ahead, milliseconds.
const fn codec_values(codec: Codec) -> Option<(f64, f64, f64)> {
    match codec {
        // With packet loss concealment, which phones have (table I.3: 25.1; without, it would be 4.3).
        Codec::Pcmu | Codec::Pcma => Some((0.0, 25.1, 20.0)),
        Codec::G729 => Some((11.0, 19.0, 25.0)),
        Codec::G723 => Some((15.0, 16.1, 37.5)),
        Codec::GsmEfr => Some((5.0, 10.0, 20.0)),
        Codec::Gsm | Codec::G722 | Codec::Ilbc | Codec::Amr | Codec::AmrWb | Codec::Opus | Codec::Other => None,
    }
}

/// The score of a stream; none for a codec without narrow-band values, and where no packet was expected.
#[must_use]
pub fn mos(conditions: &Conditions) -> Option<Mos> {
    let (ie, bpl, packet_ms) = codec_values(conditions.codec)?;
    if conditions.expected == 0 {
        return None;
    }
    let jitter_ms = float(conditions.jitter_us) / 1_000.0;
    let buffer_ms = (2.0 * jitter_ms).clamp(BUFFER_MIN_MS, BUFFER_MAX_MS);
    let network = (float(conditions.lost) / float(conditions.expected)).min(1.0);
    // A packet that comes later than twice the buffer is thrown away; delays are taken to have an exponential tail.
    let discarded = if jitter_ms > 0.0 { (-2.0 * buffer_ms / jitter_ms).exp() } else { 0.0 };
    let loss = network + (1.0 - network) * discarded;
    let delay_ms = float(conditions.round_trip_us.unwrap_or(0)) / 2_000.0 + packet_ms + buffer_ms;
    let burst = burst_ratio(conditions, network);
    Some(score(R_DEFAULT - delay_impairment(delay_ms) - equipment_impairment(ie, bpl, loss * 100.0, burst)))
}

/// BurstR: the mean run of losses against the one of random loss, which is 1 / (1 - Ppl).
fn burst_ratio(conditions: &Conditions, loss: f64) -> f64 {
    if conditions.loss_runs == 0 {
        return 1.0;
    }
    (float(conditions.lost) / float(conditions.loss_runs) * (1.0 - loss)).clamp(1.0, BURST_RATIO_MAX)
}

/// Idd.
fn delay_impairment(delay_ms: f64) -> f64 {
    if delay_ms <= DELAY_UNNOTICED_MS {
        return 0.0;
    }
    let x = (delay_ms / DELAY_UNNOTICED_MS).log2();
    25.0 * ((1.0 + x.powi(6)).powf(1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0).powi(6)).powf(1.0 / 6.0) + 2.0)
}

/// Ie,eff; the loss in percent.
fn equipment_impairment(ie: f64, bpl: f64, loss: f64, burst_ratio: f64) -> f64 {
    ie + (95.0 - ie) * loss / (loss / burst_ratio + bpl)
}

/// Annex B. The cubic falls below 1 near R = 3, where it is held.
fn score(r: f64) -> Mos {
    let mos = if r <= 0.0 {
        1.0
    } else if r >= 100.0 {
        4.5
    } else {
        1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6
    };
    Mos(hundredths(mos.clamp(1.0, 4.5)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1.0 to 4.5 by its only caller")]
fn hundredths(mos: f64) -> u16 {
    (mos * 100.0).round() as u16
}

/// Counts and times beyond 2^32 are of no known call: the ratio of two of them would be off, and nothing else.
fn float(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 0.006, "{found} is not {expected}");
    }

    /// The values of G.107 with the default form of Idd, for codec, loss and delay.
    #[test]
    fn agrees_with_published_values() {
        let check = |(ie, bpl): (f64, f64), loss, burst, delay, idd, ie_eff, r: f64, mos: u16| {
            near(delay_impairment(delay), idd);
            near(equipment_impairment(ie, bpl, loss, burst), ie_eff);
            let found = R_DEFAULT - delay_impairment(delay) - equipment_impairment(ie, bpl, loss, burst);
            near(found, r);
            assert_eq!(score(found).hundredths(), mos);
        };
        let (g711, g711_bare, g729a) = ((0.0, 25.1), (0.0, 4.3), (11.0, 19.0));
        check(g711, 0.0, 1.0, 0.0, 0.0, 0.0, 93.2, 441);
        check(g711, 1.0, 1.0, 100.0, 0.0, 3.64, 89.56, 433);
        check(g711, 1.0, 1.0, 200.0, 3.04, 3.64, 86.52, 424);
        check(g711, 5.0, 1.0, 150.0, 0.16, 15.78, 77.26, 392);
        check(g711_bare, 1.0, 1.0, 100.0, 0.0, 17.92, 75.28, 383);
        check(g711, 3.0, 2.0, 150.0, 0.16, 10.71, 82.32, 411);
        check(g711, 3.0, 1.0, 150.0, 0.16, 10.14, 82.89, 413);
        check(g729a, 2.0, 1.0, 200.0, 3.04, 19.0, 71.16, 365);
        check(g711, 0.0, 1.0, 400.0, 24.07, 0.0, 69.13, 356);
    }

    #[test]
    fn the_scale_has_its_ends() {
        for (r, mos) in [(-5.0, 100), (0.0, 100), (3.2, 100), (50.0, 258), (60.0, 310), (70.0, 360), (80.0, 402)] {
            assert_eq!(score(r).hundredths(), mos, "{r}");
        }
        assert_eq!((score(90.0).hundredths(), score(100.0).hundredths(), score(120.0).hundredths()), (434, 450, 450));
    }

    fn good() -> Conditions {
        Conditions { codec: Codec::Pcmu, expected: 1_000, lost: 0, loss_runs: 0, jitter_us: 0, round_trip_us: None }
    }

    fn hundredths_of(conditions: Conditions) -> u16 {
        mos(&conditions).unwrap().hundredths()
    }

    #[test]
    fn what_is_measured_moves_the_score() {
        assert_eq!(hundredths_of(good()), 441);
        assert_eq!(hundredths_of(Conditions { codec: Codec::G729, ..good() }), 410);
        // 5 % in single packets, 20 + 40 ms: Ie,eff 15.78, R 77.42.
        assert_eq!(hundredths_of(Conditions { lost: 50, loss_runs: 50, ..good() }), 392);
        let bursty = Conditions { lost: 50, loss_runs: 10, ..good() };
        assert!(hundredths_of(bursty) < 392, "in runs of five it is worse");
        // Half of 680 ms + 60 = 400 ms.
        assert_eq!(hundredths_of(Conditions { round_trip_us: Some(680_000), ..good() }), 356);
        assert_eq!(hundredths_of(Conditions { jitter_us: 5_000, ..good() }), 441, "within the buffer");
        assert!(hundredths_of(Conditions { jitter_us: 60_000, ..good() }) < 430);
        assert!(hundredths_of(Conditions { jitter_us: 400_000, ..good() }) < 260);
        assert_eq!(hundredths_of(Conditions { lost: 1_000, ..good() }), 118, "all is lost");
        assert_eq!(mos(&Conditions { codec: Codec::Opus, ..good() }), None);
        assert_eq!(mos(&Conditions { expected: 0, ..good() }), None);
    }

    proptest! {
        #[test]
        fn stays_on_the_scale(expected in 1u64.., lost in any::<u64>(), loss_runs in any::<u64>(), jitter_us in any::<u64>(),
            round_trip_us in any::<Option<u64>>()) {
            let conditions = Conditions { codec: Codec::G729, expected, lost, loss_runs, jitter_us, round_trip_us };
            prop_assert!((100..=450).contains(&hundredths_of(conditions)));
        }
    }
}
