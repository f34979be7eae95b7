//! The timers of all transactions: one heap, one wanted entry per transaction.
//!
//! A transaction asks for its earliest deadline. When that moves later, the old entry stays and is put back as it
//! fires; only a deadline that moves earlier adds an entry. So an entry is stale at most once, and the heap holds
//! no more than a few entries per transaction that lives; entries of those that died before their time are swept out
//! when they are most of it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

use super::key::BuildKeyHasher;

/// Entries of the heap, for each that is wanted, at which the others are swept out.
const SWEEP_FACTOR: usize = 4;
/// So few entries are left alone.
const SWEEP_MIN: usize = 1_024;

/// Whose timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Owner {
    Client(u64),
    Server(u64),
}

#[derive(Default)]
pub(super) struct Heap {
    heap: BinaryHeap<Reverse<(Instant, Owner)>>,
    wanted: HashMap<Owner, Wanted, BuildKeyHasher>,
}

struct Wanted {
    deadline: Instant,
    /// The earliest entry in the heap.
    entry: Instant,
}

impl Heap {
    /// The owner wants to fire at `deadline`, or not at all.
    pub(super) fn schedule(&mut self, owner: Owner, deadline: Option<Instant>) {
        let Some(deadline) = deadline else {
            self.wanted.remove(&owner);
            return;
        };
        let wanted = self.wanted.entry(owner).or_insert_with(|| {
            self.heap.push(Reverse((deadline, owner)));
            Wanted { deadline, entry: deadline }
        });
        wanted.deadline = deadline;
        if deadline < wanted.entry {
            wanted.entry = deadline;
            self.heap.push(Reverse((deadline, owner)));
        }
    }

    pub(super) fn forget(&mut self, owner: Owner) {
        self.wanted.remove(&owner);
        if self.heap.len() > SWEEP_FACTOR * self.wanted.len() + SWEEP_MIN {
            let wanted = &self.wanted;
            self.heap.retain(|Reverse((at, owner))| wanted.get(owner).is_some_and(|wanted| wanted.entry == *at));
        }
    }

    /// The owner of one timer that is due. It must schedule again.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Owner> {
        while let Some(&Reverse((at, owner))) = self.heap.peek() {
            if at > now {
                return None;
            }
            self.heap.pop();
            let Some(wanted) = self.wanted.get_mut(&owner) else { continue };
            if wanted.entry != at {
                continue;
            }
            if wanted.deadline > now {
                wanted.entry = wanted.deadline;
                self.heap.push(Reverse((wanted.deadline, owner)));
                continue;
            }
            self.wanted.remove(&owner);
            return Some(owner);
        }
        None
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.heap.len()
    }
}
