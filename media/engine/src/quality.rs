//! What is measured of one leg: the RTP that it sends, as it arrives, and what its RTCP says of what it hears.
//!
//! The round trip is measured from the middle: a sender report of the other leg passes us on its way to this one; when
//! this one's report block repeats it (LSR), the time since then without the delay that it names (DLSR) is the way from
//! us to this leg and back (RFC 3550, section 6.4.1, with us in the place of A).

use model::event::fact::{Codec, MediaQuality, MediaStats};

use crate::emodel::{self, Conditions};
use crate::format::{Payload, PayloadFormat};
use crate::jitter::Jitter;
use crate::rtcp::{Report, ReportBlock, reports};
use crate::rtp::RtpHeader;
use crate::sequence::SequenceStats;

/// Sender reports that are remembered: with one in five seconds, twenty seconds for an answer.
const SENDER_REPORTS_KEPT: usize = 4;
/// A longer round trip is a wrong clock in somebody's report: a satellite and back is 600 ms.
const ROUND_TRIP_MAX_US: u64 = 10_000_000;
/// Jitter in a report beyond this is not believed.
const REPORTED_JITTER_MAX_US: u64 = 10_000_000;

/// A sender report that passed.
#[derive(Debug, Clone, Copy, Default)]
struct Passed {
    ssrc: u32,
    ntp_middle: u32,
    at_us: u64,
}

/// What was measured of one leg of a call.
#[derive(Debug, Clone, Copy, Default)]
pub struct LegMeter {
    sequence: SequenceStats,
    jitter: Jitter,
    counts: LegCounts,
    clock_rate: u32,
    passed: [Passed; SENDER_REPORTS_KEPT],
    passed_next: usize,
    /// The source that the last report block was about, and its loss; what sources before it had lost.
    reported: Option<(u32, u64)>,
    reported_before: u64,
}

impl LegMeter {
    /// An RTP packet of this leg arrived.
    pub fn rtp(&mut self, header: &RtpHeader, format: PayloadFormat, now_us: u64) {
        self.sequence.update(header.ssrc, header.sequence);
        // Telephone events keep the timestamp of their beginning (RFC 4733, section 2.2): no measure of time.
        if let Payload::Audio(codec) = format.payload {
            self.jitter.update(header.ssrc, format.clock_rate, header.timestamp, now_us);
            self.counts.codec = u64::from(codec.number()).saturating_add(1);
            self.clock_rate = format.clock_rate;
        }
        let counts = &mut self.counts;
        counts.received = counts.received.saturating_add(1);
        counts.octets = counts.octets.saturating_add(u64::try_from(header.payload_len).unwrap_or(0));
        counts.lost = self.sequence.lost();
        counts.missing = self.sequence.missing();
        counts.duplicate = self.sequence.duplicate();
        counts.late = self.sequence.late();
        (counts.loss_runs, counts.loss_run_max) = self.sequence.loss_runs();
        (counts.jitter_sum_us, counts.jitter_count) = self.jitter.sum_and_count();
        counts.jitter_max_us = self.jitter.max_us();
    }

    /// An RTP packet was sent to this leg.
    pub const fn sent(&mut self) {
        self.counts.sent = self.counts.sent.saturating_add(1);
    }

    /// A compound RTCP packet of this leg arrived; `other` is the leg that it goes to.
    pub fn rtcp(&mut self, other: &Self, packet: &[u8], now_us: u64) {
        for report in reports(packet) {
            match report {
                Report::Sender { ssrc, ntp_middle } => {
                    if let Some(place) = self.passed.get_mut(self.passed_next % SENDER_REPORTS_KEPT) {
                        *place = Passed { ssrc, ntp_middle, at_us: now_us };
                    }
                    self.passed_next = self.passed_next.wrapping_add(1);
                }
                Report::Block(block) => self.block(other, &block, now_us),
            }
        }
    }

    fn block(&mut self, other: &Self, block: &ReportBlock, now_us: u64) {
        // Blocks about sources that the other leg does not use would let this one invent figures.
        if other.sequence.source() != Some(block.ssrc) {
            return;
        }
        let lost = u64::try_from(block.lost).unwrap_or(0);
        match self.reported {
            // Loss is counted from the beginning of a source.
            Some((ssrc, _)) if ssrc == block.ssrc => {}
            Some((_, before)) => self.reported_before = self.reported_before.saturating_add(before),
            None => {}
        }
        self.reported = Some((block.ssrc, lost));
        let counts = &mut self.counts;
        counts.reports = counts.reports.saturating_add(1);
        counts.reported_lost = self.reported_before.saturating_add(lost);
        if other.clock_rate > 0 {
            let jitter_us = u64::from(block.jitter).saturating_mul(1_000_000) / u64::from(other.clock_rate);
            let believed = jitter_us.min(REPORTED_JITTER_MAX_US);
            counts.reported_jitter_sum_us = counts.reported_jitter_sum_us.saturating_add(believed);
        }
        let matches = |passed: &&Passed| passed.ssrc == block.ssrc && passed.ntp_middle == block.last_sender_report;
        let Some(passed) = other.passed.iter().find(matches).filter(|_| block.last_sender_report != 0) else { return };
        let delay_us = u64::from(block.delay).saturating_mul(1_000_000) >> 16;
        let round_trip = now_us.checked_sub(passed.at_us).and_then(|since| since.checked_sub(delay_us));
        if let Some(round_trip_us) = round_trip.filter(|us| *us <= ROUND_TRIP_MAX_US) {
            counts.round_trip_sum_us = counts.round_trip_sum_us.saturating_add(round_trip_us);
            counts.round_trip_count = counts.round_trip_count.saturating_add(1);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counts(&self) -> &LegCounts {
        &self.counts
    }
}

/// Sums and counts of a leg: plain numbers, so that a relay thread can publish them as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LegCounts {
    received: u64,
    sent: u64,
    lost: u64,
    octets: u64,
    duplicate: u64,
    late: u64,
    missing: u64,
    loss_runs: u64,
    loss_run_max: u64,
    jitter_sum_us: u64,
    jitter_count: u64,
    jitter_max_us: u64,
    /// The number of the codec, plus one; 0 before the first audio.
    codec: u64,
    round_trip_sum_us: u64,
    round_trip_count: u64,
    reports: u64,
    reported_lost: u64,
    reported_jitter_sum_us: u64,
}

/// Numbers in [`LegCounts`].
pub const COUNTS: usize = 18;

impl LegCounts {
    /// The numbers in a fixed order.
    #[must_use]
    pub const fn to_words(&self) -> [u64; COUNTS] {
        [
            self.received,
            self.sent,
            self.lost,
            self.octets,
            self.duplicate,
            self.late,
            self.missing,
            self.loss_runs,
            self.loss_run_max,
            self.jitter_sum_us,
            self.jitter_count,
            self.jitter_max_us,
            self.codec,
            self.round_trip_sum_us,
            self.round_trip_count,
            self.reports,
            self.reported_lost,
            self.reported_jitter_sum_us,
        ]
    }

    /// Back from the numbers. They may be of two neighbouring moments: no sum depends on another.
    #[must_use]
    pub const fn from_words(words: [u64; COUNTS]) -> Self {
        let [
            received,
            sent,
            lost,
            octets,
            duplicate,
            late,
            missing,
            loss_runs,
            loss_run_max,
            jitter_sum_us,
            jitter_count,
            jitter_max_us,
            codec,
            round_trip_sum_us,
            round_trip_count,
            reports,
            reported_lost,
            reported_jitter_sum_us,
        ] = words;
        Self {
            received,
            sent,
            lost,
            octets,
            duplicate,
            late,
            missing,
            loss_runs,
            loss_run_max,
            jitter_sum_us,
            jitter_count,
            jitter_max_us,
            codec,
            round_trip_sum_us,
            round_trip_count,
            reports,
            reported_lost,
            reported_jitter_sum_us,
        }
    }

    /// What the call's record says of this leg; `other` is the other leg, whose codec this one hears.
    #[must_use]
    pub fn stats(&self, other: &Self) -> MediaStats {
        MediaStats {
            packets_received: self.received,
            packets_sent: self.sent,
            packets_lost: self.lost,
            octets_received: self.octets,
            quality: self.quality(other),
        }
    }

    fn codec(&self) -> Option<Codec> {
        self.codec.checked_sub(1).and_then(|number| u8::try_from(number).ok()).and_then(Codec::from_number)
    }

    fn quality(&self, other: &Self) -> Option<MediaQuality> {
        let codec = self.codec()?;
        let jitter_us = self.jitter_sum_us.checked_div(self.jitter_count).unwrap_or(0);
        let round_trip_us = self.round_trip_sum_us.checked_div(self.round_trip_count);
        let arrived = self.received.saturating_sub(self.duplicate);
        let mos = emodel::mos(&Conditions {
            codec,
            expected: arrived.saturating_add(self.missing),
            lost: self.missing,
            loss_runs: self.loss_runs,
            jitter_us,
            round_trip_us,
        });
        let reported_jitter_us = self.reported_jitter_sum_us.checked_div(self.reports);
        let reported_mos = reported_jitter_us.zip(other.codec()).and_then(|(jitter_us, codec)| {
            emodel::mos(&Conditions {
                codec,
                // What was lost on the way to us was never sent on, and is in the leg's count.
                expected: self.sent.saturating_add(other.lost),
                lost: self.reported_lost.min(self.sent.saturating_add(other.lost)),
                loss_runs: 0,
                jitter_us,
                round_trip_us,
            })
        });
        Some(MediaQuality {
            codec,
            packets_duplicate: self.duplicate,
            packets_late: self.late,
            loss_run_max: self.loss_run_max,
            jitter_us,
            jitter_max_us: self.jitter_max_us,
            round_trip_us,
            mos: mos.map(emodel::Mos::hundredths),
            reported_lost: (self.reports > 0).then_some(self.reported_lost),
            reported_jitter_us,
            reported_mos: reported_mos.map(emodel::Mos::hundredths),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::tests::{block, receiver_report, sender_report};
    use crate::rtp::HEADER_LEN;

    const PCMA: PayloadFormat = PayloadFormat::assigned(8);
    const EVENT: PayloadFormat = PayloadFormat { payload_type: 101, payload: Payload::Event, clock_rate: 8_000 };

    fn header(ssrc: u32, sequence: u16, timestamp: u32) -> RtpHeader {
        RtpHeader {
            marker: false,
            payload_type: 8,
            sequence,
            timestamp,
            ssrc,
            header_len: HEADER_LEN,
            payload_len: 160,
        }
    }

    /// Packets of 20 ms; those in `missing` never come.
    fn talk(meter: &mut LegMeter, ssrc: u32, count: u16, missing: &[u16]) {
        for n in (0..count).filter(|n| !missing.contains(n)) {
            meter.rtp(&header(ssrc, n, u32::from(n) * 160), PCMA, u64::from(n) * 20_000);
        }
    }

    #[test]
    fn a_clean_leg_scores_best_and_a_silent_one_has_no_quality() {
        let (mut a, b) = (LegMeter::default(), LegMeter::default());
        talk(&mut a, 1, 500, &[]);
        let stats = a.counts().stats(b.counts());
        assert_eq!((stats.packets_received, stats.packets_lost, stats.octets_received), (500, 0, 80_000));
        let quality = stats.quality.unwrap();
        assert_eq!((quality.codec, quality.mos, quality.jitter_us), (Codec::Pcma, Some(441), 0));
        assert_eq!((quality.round_trip_us, quality.reported_lost, quality.reported_mos), (None, None, None));
        assert_eq!(b.counts().stats(a.counts()), MediaStats::default());
        assert_eq!(LegCounts::from_words(a.counts().to_words()), *a.counts());
    }

    #[test]
    fn loss_and_events_are_told_apart_from_jitter() {
        let (mut a, b) = (LegMeter::default(), LegMeter::default());
        talk(&mut a, 1, 100, &[10, 40, 41, 42, 70]);
        // A digit: the timestamp stands still for ten packets.
        for n in 100..110 {
            a.rtp(&header(1, n, 100 * 160), EVENT, u64::from(n) * 20_000);
        }
        a.rtp(&header(1, 110, 110 * 160), PCMA, 110 * 20_000);
        let quality = a.counts().stats(b.counts()).quality.unwrap();
        assert_eq!((quality.loss_run_max, quality.jitter_us, quality.jitter_max_us), (3, 0, 0));
        assert_eq!(quality.codec, Codec::Pcma, "events are no codec");
        assert!(quality.mos.is_some_and(|mos| (380..420).contains(&mos)), "{quality:?}");
    }

    #[test]
    fn the_round_trip_is_measured_from_the_middle() {
        let (mut a, mut b) = (LegMeter::default(), LegMeter::default());
        talk(&mut a, 1, 50, &[]);
        talk(&mut b, 2, 50, &[]);
        (0..50).for_each(|_| b.sent());
        // A's report passes at one second; B answers after 100 ms of its own and 30 ms of the way.
        a.rtcp(&b, &sender_report(1, 0x1111_2222, &[]), 1_000_000);
        let delay = 65_536 / 10;
        b.rtcp(&a, &receiver_report(2, &[block(1, 5, 160, 0x1111_2222, delay)]), 1_130_000);
        let quality = b.counts().stats(a.counts()).quality.unwrap();
        let round_trip = quality.round_trip_us.unwrap();
        assert!((30_000..30_020).contains(&round_trip), "{round_trip}");
        assert_eq!((quality.reported_lost, quality.reported_jitter_us), (Some(5), Some(20_000)));
        // 10 % lost, 1.8 % late: R near 63.
        assert!(quality.reported_mos.is_some_and(|mos| (300..340).contains(&mos)), "{quality:?}");
        assert_eq!(a.counts().stats(b.counts()).quality.unwrap().round_trip_us, None);
    }

    #[test]
    fn reports_that_cannot_be_are_not_believed() {
        let (mut a, mut b) = (LegMeter::default(), LegMeter::default());
        talk(&mut a, 1, 50, &[]);
        talk(&mut b, 2, 50, &[]);
        a.rtcp(&b, &sender_report(1, 7, &[]), 1_000_000);
        let mut check = |block: Vec<u8>, at_us: u64, reports: u64| {
            b.rtcp(&a, &receiver_report(2, &[block]), at_us);
            let quality = b.counts().stats(a.counts()).quality.unwrap();
            assert_eq!((quality.round_trip_us, b.counts().reports), (None, reports));
        };
        check(block(99, 5, 0, 7, 0), 1_010_000, 0);
        check(block(1, 5, 0, 8, 0), 1_010_000, 1);
        check(block(1, 5, 0, 0, 0), 1_010_000, 2);
        check(block(1, 5, 0, 7, 65_536), 1_010_000, 3);
        check(block(1, 5, 0, 7, 0), 999_999, 4);
        check(block(1, 5, u32::MAX, 7, 0), 90_000_000, 5);
        assert!(b.counts().reported_jitter_sum_us <= REPORTED_JITTER_MAX_US);
        // A negative loss is none; a new source of the other leg keeps what the old one had lost.
        talk(&mut a, 3, 10, &[]);
        b.rtcp(&a, &receiver_report(2, &[block(3, 2, 0, 0, 0)]), 2_000_000);
        assert_eq!(b.counts().reported_lost, 7);
        b.rtcp(&a, &receiver_report(2, &[block(3, -2, 0, 0, 0)]), 2_100_000);
        assert_eq!(b.counts().reported_lost, 5);
    }
}
