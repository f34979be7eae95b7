//! How much of something bounded each of many has: one that takes all it can get must leave places to others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// What each holds. It remembers only those that hold something.
#[derive(Debug)]
pub struct Shares<K: Eq + Hash + Copy> {
    held: Mutex<HashMap<K, usize>>,
    max: usize,
}

impl<K: Eq + Hash + Copy> Shares<K> {
    /// At most `max` places for each.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { held: Mutex::default(), max })
    }

    /// A place for `who`, until what is given back is dropped; none: they have as many as they may.
    #[must_use]
    pub fn take(self: &Arc<Self>, who: K) -> Option<Share<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let has = held.get(&who).copied().unwrap_or_default();
        if has >= self.max {
            return None;
        }
        held.insert(who, has + 1);
        Some(Share { shares: Arc::clone(self), who })
    }

    /// Whether nobody holds anything.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// One place, as long as it is held.
#[derive(Debug)]
pub struct Share<K: Eq + Hash + Copy> {
    shares: Arc<Shares<K>>,
    who: K,
}

impl<K: Eq + Hash + Copy> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.who) {
            Some(has) if *has > 1 => *has -= 1,
            _ => drop(held.remove(&self.who)),
        }
    }
}
