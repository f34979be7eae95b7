//! Statistics of a stream from its sequence numbers: RFC 3550, appendix A.1 (validity, extended sequence) and A.3
//! (expected and lost).
//!
//! Two choices where the appendix leaves room. A source counts from its first packet (MIN_SEQUENTIAL is zero): the
//! source address was checked by the latch, and a leg's first packet is heard. A new SSRC or a restart of the sequence
//! closes a segment: its loss is kept and counting begins anew, since a device may change its source in a call.

/// Largest jump ahead that is loss; a larger one is a restart (a minute of 20 ms packets).
const MAX_DROPOUT: u16 = 3000;
/// Largest step back that is reordering.
const MAX_MISORDER: u16 = 100;
/// Sequence numbers of one cycle.
const MODULUS: u64 = 1 << 16;

/// One run of sequence numbers.
#[derive(Debug, Clone, Copy)]
struct Segment {
    ssrc: u32,
    base: u16,
    /// Highest number seen, and the cycles before it times [`MODULUS`].
    max: u16,
    cycles: u64,
    received: u64,
    /// Of those, the ones that came before.
    duplicate: u64,
    /// Which of the last 128 numbers came: bit n is `max` - n.
    seen: u128,
    /// The number after the one that jumped: two in a row are a restart.
    bad: Option<u16>,
}

impl Segment {
    const fn new(ssrc: u32, sequence: u16) -> Self {
        Self { ssrc, base: sequence, max: sequence, cycles: 0, received: 1, duplicate: 0, seen: 1, bad: None }
    }

    fn expected(&self) -> u64 {
        let extended = self.cycles.saturating_add(u64::from(self.max));
        extended.saturating_sub(u64::from(self.base)).saturating_add(1)
    }

    /// Expected minus received, not below zero: duplicates count as received.
    fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.received)
    }

    /// What was expected and never came, whatever came twice.
    fn missing(&self) -> u64 {
        self.expected().saturating_sub(self.received.saturating_sub(self.duplicate))
    }
}

/// Statistics of the RTP that one leg sends.
#[derive(Debug, Clone, Copy, Default)]
pub struct SequenceStats {
    segment: Option<Segment>,
    lost_before: u64,
    missing_before: u64,
    restarts: u64,
    duplicate: u64,
    late: u64,
    loss_runs: u64,
    loss_run_max: u64,
}

/// What a packet was within its run.
enum Step {
    /// The next, after so many that are missing.
    Ahead(u64),
    /// It came before.
    Duplicate,
    /// A later one came before it.
    Late,
    /// A jump that the next packet must confirm.
    Noise,
    /// The jump is confirmed.
    Restart,
}

impl SequenceStats {
    /// Takes note of a packet.
    pub fn update(&mut self, ssrc: u32, sequence: u16) {
        match &mut self.segment {
            Some(segment) if segment.ssrc == ssrc => match advance(segment, sequence) {
                Step::Ahead(0) | Step::Noise => {}
                Step::Ahead(missing) => {
                    self.loss_runs = self.loss_runs.saturating_add(1);
                    self.loss_run_max = self.loss_run_max.max(missing);
                }
                Step::Duplicate => self.duplicate = self.duplicate.saturating_add(1),
                Step::Late => self.late = self.late.saturating_add(1),
                Step::Restart => {
                    // The restarted run began with the packet that jumped; both are received.
                    let mut restarted = Segment::new(ssrc, sequence.wrapping_sub(1));
                    restarted.max = sequence;
                    restarted.cycles = if sequence == 0 { MODULUS } else { 0 };
                    restarted.received = 2;
                    restarted.seen = 0b11;
                    self.close(restarted);
                }
            },
            Some(_) => self.close(Segment::new(ssrc, sequence)),
            None => self.segment = Some(Segment::new(ssrc, sequence)),
        }
    }

    fn close(&mut self, next: Segment) {
        self.lost_before = self.lost();
        self.missing_before = self.missing();
        self.restarts = self.restarts.saturating_add(1);
        self.segment = Some(next);
    }

    /// Packets that never came.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost_before.saturating_add(self.segment.map_or(0, |segment| segment.lost()))
    }

    /// Packets that never came even where a duplicate hides it from [`SequenceStats::lost`]: what the ear misses.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing_before.saturating_add(self.segment.map_or(0, |segment| segment.missing()))
    }

    /// The source that was heard last.
    #[must_use]
    pub fn source(&self) -> Option<u32> {
        self.segment.map(|segment| segment.ssrc)
    }

    /// Packets that came a second time (while at most 127 later ones had come).
    #[must_use]
    pub const fn duplicate(&self) -> u64 {
        self.duplicate
    }

    /// Packets that came after a later one.
    #[must_use]
    pub const fn late(&self) -> u64 {
        self.late
    }

    /// Runs of missing packets, as they looked when the next packet came, and the longest of them.
    #[must_use]
    pub const fn loss_runs(&self) -> (u64, u64) {
        (self.loss_runs, self.loss_run_max)
    }

    /// How often the source changed or restarted.
    #[must_use]
    pub const fn restarts(&self) -> u64 {
        self.restarts
    }
}

/// `update_seq` of RFC 3550, A.1, with a memory of what came.
fn advance(segment: &mut Segment, sequence: u16) -> Step {
    let ahead = sequence.wrapping_sub(segment.max);
    if ahead != 0 && ahead < MAX_DROPOUT {
        if sequence < segment.max {
            segment.cycles = segment.cycles.saturating_add(MODULUS);
        }
        segment.max = sequence;
        segment.received = segment.received.saturating_add(1);
        segment.seen = segment.seen.checked_shl(u32::from(ahead)).unwrap_or(0) | 1;
        return Step::Ahead(u64::from(ahead).saturating_sub(1));
    }
    if ahead != 0 && ahead <= u16::MAX - MAX_MISORDER {
        let restart = segment.bad == Some(sequence);
        segment.bad = Some(sequence.wrapping_add(1));
        // A lone jump is noise: neither expected nor received.
        return if restart { Step::Restart } else { Step::Noise };
    }
    segment.received = segment.received.saturating_add(1);
    // At most MAX_MISORDER: within the memory.
    let place = 1_u128.checked_shl(u32::from(segment.max.wrapping_sub(sequence))).unwrap_or(0);
    let before = segment.seen;
    segment.seen |= place;
    if before & place == 0 {
        return Step::Late;
    }
    segment.duplicate = segment.duplicate.saturating_add(1);
    Step::Duplicate
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lost(packets: impl IntoIterator<Item = (u32, u16)>) -> (u64, u64) {
        let mut stats = SequenceStats::default();
        packets.into_iter().for_each(|(ssrc, sequence)| stats.update(ssrc, sequence));
        (stats.lost(), stats.restarts())
    }

    #[test]
    fn counts_gaps_over_the_wrap() {
        assert_eq!(lost([]), (0, 0));
        assert_eq!(lost((0..10).map(|n| (1, n))), (0, 0));
        assert_eq!(lost([(1, 65_534), (1, 65_535), (1, 2), (1, 3)]), (2, 0));
        assert_eq!(lost([(1, 5), (1, 7), (1, 6)]), (0, 0), "reordered is not lost");
        assert_eq!(lost([(1, 5), (1, 5), (1, 7)]), (0, 0), "a duplicate hides a loss, as in A.3");
    }

    #[test]
    fn tells_late_from_duplicate_and_measures_runs() {
        let check = |sequences: &[u16], late: u64, duplicate: u64, runs: (u64, u64)| {
            let mut stats = SequenceStats::default();
            sequences.iter().for_each(|sequence| stats.update(9, *sequence));
            assert_eq!((stats.late(), stats.duplicate(), stats.loss_runs()), (late, duplicate, runs), "{sequences:?}");
        };
        check(&[1, 2, 3], 0, 0, (0, 0));
        check(&[1, 3, 2, 2, 3, 4], 1, 2, (1, 1));
        check(&[65_534, 1, 65_535, 0, 0, 65_534], 2, 2, (1, 2));
        check(&[10, 14, 15, 18, 19, 119], 0, 0, (3, 99));
        check(&[100, 200, 101, 101], 1, 1, (1, 99));
        check(&[5, 5_000, 5_001, 5_000, 5_001, 4_999], 1, 2, (0, 0));
    }

    #[test]
    fn a_new_source_restarts_and_keeps_the_loss() {
        assert_eq!(lost([(1, 5), (1, 8), (2, 40_000), (2, 40_002)]), (3, 1));
        assert_eq!(lost([(1, 5), (1, 8), (1, 40_000), (1, 40_001), (1, 40_003)]), (3, 1), "two in a row");
        assert_eq!(lost([(1, 5), (1, 40_000), (1, 6), (1, 7)]), (0, 0), "a lone jump is noise");
        assert_eq!(lost([(1, 30_000), (1, 65_535), (1, 0), (1, 1)]), (0, 1), "restart across the wrap");
    }

    proptest! {
        /// Against a naive oracle that knows the true index of each packet: some are lost, some duplicated, and
        /// neighbours are swapped within the misorder window.
        #[test]
        fn agrees_with_the_naive_count(
            start in any::<u16>(),
            fates in proptest::collection::vec(0u8..10, 1..400),
            swaps in proptest::collection::vec((any::<prop::sample::Index>(), 1usize..20), 0..40),
        ) {
            let mut indices: Vec<u64> = Vec::new();
            for (index, fate) in fates.iter().enumerate() {
                let copies = match fate { 0 | 1 => 0, 2 => 2, _ => 1 };
                indices.extend(std::iter::repeat_n(index as u64, copies));
            }
            for (at, by) in swaps {
                if indices.len() > 1 {
                    let from = at.index(indices.len());
                    let to = (from + by).min(indices.len() - 1);
                    indices.swap(from, to);
                }
            }
            let expected = match (indices.first(), indices.iter().max()) {
                (Some(first), Some(max)) => (max - first + 1).saturating_sub(indices.len() as u64),
                _ => 0,
            };
            let wire = |index: &u64| u16::try_from((u64::from(start) + index) % MODULUS).unwrap();
            prop_assert_eq!(lost(indices.iter().map(|index| (7, wire(index)))), (expected, 0));
            // What came before the first is none of the run's: the rest is late or duplicate by its index.
            let mut stats = SequenceStats::default();
            let (mut came, mut max, mut late, mut duplicate) = (std::collections::HashSet::new(), None, 0, 0);
            for index in &indices {
                stats.update(7, wire(index));
                match (came.insert(*index), max) {
                    (false, _) => duplicate += 1,
                    (true, Some(max)) if max > *index => late += 1,
                    (true, _) => {}
                }
                max = max.max(Some(*index));
            }
            prop_assert_eq!((stats.late(), stats.duplicate()), (late, duplicate));
            let first = indices.first().copied().unwrap_or(0);
            if indices.iter().all(|index| *index >= first) {
                let expected = max.map_or(0, |max| max - first + 1);
                prop_assert_eq!(stats.missing(), expected - came.len() as u64);
            }
        }

        /// Long streams: every cycle counts.
        #[test]
        fn extends_over_many_cycles(start in any::<u16>(), steps in proptest::collection::vec(1u64..2_900, 1..300)) {
            let mut at = u64::from(start);
            let mut packets = vec![(1, start)];
            for step in &steps {
                at += step;
                packets.push((1, u16::try_from(at % MODULUS).unwrap()));
            }
            let expected = steps.iter().map(|step| step - 1).sum::<u64>();
            prop_assert_eq!(lost(packets), (expected, 0));
        }
    }
}
