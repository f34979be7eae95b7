//! Admission: how many calls are up on an account, a subscriber, a trunk.
//!
//! Whatever is taken is held by guards: each way out of a call gives its slots back, because dropping them does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;

/// Calls that are up on something with a limit. Clones count together; all shards share them.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU32>);

impl Counter {
    /// Calls that are up now.
    #[must_use]
    pub fn current(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes a place unless `limit` calls are up already. Two shards at the last place: exactly one gets it.
    #[must_use]
    pub fn acquire(&self, limit: Option<u32>) -> Option<CallSlot> {
        let limit = limit.unwrap_or(u32::MAX);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |current| (current < limit).then(|| current + 1))
            .ok()
            .map(|_| CallSlot(self.clone()))
    }
}

/// A place that is taken; dropping it frees it.
#[derive(Debug)]
pub struct CallSlot(Counter);

impl Drop for CallSlot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Every place that one call holds: the accounts above the caller and callee, the two parties, the node.
#[derive(Debug, Default)]
pub struct Slots(SmallVec<[CallSlot; 8]>);

impl Slots {
    /// Takes a place and keeps it; false when the limit is reached.
    #[must_use]
    pub fn take(&mut self, counter: &Counter, limit: Option<u32>) -> bool {
        match counter.acquire(limit) {
            Some(slot) => {
                self.0.push(slot);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_and_every_place_comes_back() {
        let counter = Counter::default();
        let mut slots = Slots::default();
        assert!(slots.take(&counter, Some(2)) && slots.take(&counter, Some(2)));
        assert!(!slots.take(&counter, Some(2)));
        assert!(counter.acquire(None).is_some(), "no limit of its own");
        assert_eq!(counter.current(), 2);
        drop(slots);
        assert_eq!(counter.current(), 0);
    }

    #[test]
    fn the_last_place_goes_to_one_of_two_threads() {
        let counter = Counter::default();
        let taken: Vec<CallSlot> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..100).filter_map(|_| counter.acquire(Some(50))).collect::<Vec<_>>()))
                .collect();
            workers.into_iter().flat_map(|w| w.join().unwrap_or_default()).collect()
        });
        assert_eq!((taken.len(), counter.current()), (50, 50));
    }
}
