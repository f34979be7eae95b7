//! Identifiers that are counted, so that a test run gives the same ones again.

use std::sync::atomic::{AtomicU64, Ordering};

use model::id::IdSource;
use uuid::Uuid;

/// Milliseconds in the first identifier: 2026-01-01T00:00:00Z.
const START_MS: u128 = 1_767_225_600_000;

/// Valid UUIDv7 in rising order: one millisecond apart, the count also in the low bits (from which account paths
/// are made).
#[derive(Debug, Default)]
pub struct CountingIds(AtomicU64);

impl IdSource for CountingIds {
    fn next(&self) -> Uuid {
        let n = u128::from(self.0.fetch_add(1, Ordering::Relaxed)) + 1;
        // RFC 9562, section 5.7: 48 bits of milliseconds, version 7, variant 10
        Uuid::from_u128(((START_MS + n) & 0xffff_ffff_ffff) << 80 | 0x7 << 76 | 0b10 << 62 | (n & 0xffff_ffff))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_ordered_and_of_version_7() {
        let ids = CountingIds::default();
        let (a, b) = (ids.next(), ids.next());
        assert!(a < b);
        assert_eq!((a.get_version_num(), a.get_variant()), (7, uuid::Variant::RFC4122));
    }
}
