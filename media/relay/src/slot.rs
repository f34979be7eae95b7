//! A slot: the ports of one session, and what the threads tell each other about it.

use std::array;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use media_engine::quality::{COUNTS, LegCounts};
use media_engine::remote::must_send;
use media_engine::{MediaSnapshot, RemoteMedia, Side};

use crate::remote::SharedRemote;

/// `free_at_ms` of a slot that is in use.
const TAKEN: u64 = u64::MAX;

/// Counters of one side; written by the relay thread alone, so plain loads and stores do.
#[derive(Debug)]
pub struct SideCounters {
    counts: [AtomicU64; COUNTS],
    /// Milliseconds since the start, plus one; 0 before the first packet.
    last_packet: AtomicU64,
}

impl Default for SideCounters {
    fn default() -> Self {
        Self { counts: array::from_fn(|_| AtomicU64::new(0)), last_packet: AtomicU64::new(0) }
    }
}

impl SideCounters {
    fn counts(&self) -> LegCounts {
        LegCounts::from_words(self.counts.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }

    pub fn publish(&self, counts: &LegCounts) {
        for (place, word) in self.counts.iter().zip(counts.to_words()) {
            place.store(word, Ordering::Relaxed);
        }
    }

    pub fn note_packet(&self, now_ms: u64) {
        self.last_packet.store(now_ms.saturating_add(1), Ordering::Relaxed);
    }

    fn reset(&self) {
        self.publish(&LegCounts::default());
        self.last_packet.store(0, Ordering::Relaxed);
    }
}

/// One session's place in the pool.
#[derive(Debug)]
pub struct Slot {
    local: [SocketAddr; 2],
    /// When the slot may be taken, or [`TAKEN`].
    free_at_ms: AtomicU64,
    /// Uses of the slot so far.
    uses: AtomicU64,
    /// The generation that is open; 0 when none is.
    open: AtomicU64,
    remote: [SharedRemote; 2],
    /// Since when each side must be heard, milliseconds since the start, plus one; 0: it need not be. Written by the
    /// handle.
    must_send_since: [AtomicU64; 2],
    /// The generation that the counters belong to.
    counted: AtomicU64,
    counters: [SideCounters; 2],
}

fn of<T>(both: &[T; 2], side: Side) -> &T {
    let [caller, callee] = both;
    match side {
        Side::Caller => caller,
        Side::Callee => callee,
    }
}

impl Slot {
    pub fn new(local: [SocketAddr; 2]) -> Self {
        Self {
            local,
            free_at_ms: AtomicU64::new(0),
            uses: AtomicU64::new(0),
            open: AtomicU64::new(0),
            remote: Default::default(),
            must_send_since: Default::default(),
            counted: AtomicU64::new(0),
            counters: Default::default(),
        }
    }

    // What handles do.

    pub fn open(&self, now_ms: u64) -> Option<u64> {
        let free_at_ms = self.free_at_ms.load(Ordering::Relaxed);
        if free_at_ms > now_ms {
            return None;
        }
        self.free_at_ms.compare_exchange(free_at_ms, TAKEN, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        self.remote.iter().for_each(|remote| remote.store(None));
        self.must_send_since.iter().for_each(|since| since.store(0, Ordering::Relaxed));
        let generation = self.uses.load(Ordering::Relaxed).wrapping_add(1);
        self.uses.store(generation, Ordering::Relaxed);
        self.open.store(generation, Ordering::Release);
        Some(generation)
    }

    pub fn close(&self, generation: u64, now_ms: u64, free_at_ms: u64) -> MediaSnapshot {
        if self.open.compare_exchange(generation, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return MediaSnapshot::default();
        }
        let snapshot = self.counted(generation, now_ms);
        self.free_at_ms.store(free_at_ms.min(TAKEN.wrapping_sub(1)), Ordering::Release);
        snapshot
    }

    pub fn snapshot(&self, generation: u64, now_ms: u64) -> MediaSnapshot {
        if self.generation() == generation { self.counted(generation, now_ms) } else { MediaSnapshot::default() }
    }

    fn counted(&self, generation: u64, now_ms: u64) -> MediaSnapshot {
        let counted = self.counted.load(Ordering::Acquire) == generation;
        let silence_ms = Side::BOTH.into_iter().filter_map(|side| self.silence_ms(side, counted, now_ms)).min();
        if !counted {
            // No packet of this use yet: the counters are still those of the last one.
            return MediaSnapshot { silence_ms, ..MediaSnapshot::default() };
        }
        let [a, b] = self.counters.each_ref().map(SideCounters::counts);
        MediaSnapshot { a: a.stats(&b), b: b.stats(&a), silence_ms }
    }

    /// For how long a side that must be heard was not.
    fn silence_ms(&self, side: Side, counted: bool, now_ms: u64) -> Option<u64> {
        let since = of(&self.must_send_since, side).load(Ordering::Relaxed).checked_sub(1)?;
        let last = self.counters(side).last_packet.load(Ordering::Relaxed).checked_sub(1).filter(|_| counted);
        Some(now_ms.saturating_sub(last.map_or(since, |last| last.max(since))))
    }

    pub fn set_remote(&self, generation: u64, side: Side, media: &RemoteMedia, now_ms: u64) {
        if self.generation() != generation {
            return;
        }
        self.remote(side).store(Some(media));
        // The writer is here: nothing is being written.
        let known = |side| self.remote(side).load().and_then(|(_, media)| media);
        for side in Side::BOTH {
            let expected = known(side).zip(known(side.other())).is_some_and(|(from, to)| must_send(&from, &to));
            let since = of(&self.must_send_since, side);
            match (expected, since.load(Ordering::Relaxed)) {
                (true, 0) => since.store(now_ms.saturating_add(1), Ordering::Relaxed),
                (true, _) => {}
                (false, _) => since.store(0, Ordering::Relaxed),
            }
        }
    }

    pub fn local(&self, side: Side) -> SocketAddr {
        *of(&self.local, side)
    }

    pub fn is_open(&self) -> bool {
        self.generation() != 0
    }

    // What the relay thread does.

    /// The generation that is open; 0 when none is.
    pub fn generation(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    pub fn remote(&self, side: Side) -> &SharedRemote {
        of(&self.remote, side)
    }

    pub fn counters(&self, side: Side) -> &SideCounters {
        of(&self.counters, side)
    }

    /// Clears the counters for a new use.
    pub fn begin(&self, generation: u64) {
        self.counters.iter().for_each(SideCounters::reset);
        self.counted.store(generation, Ordering::Release);
    }
}
