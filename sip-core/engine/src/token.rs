//! Tags, branches and Call-IDs (RFC 3261, sections 8.1.1.4, 8.1.1.7, 19.3) from a seed.
//!
//! A SHA-256 of the secret seed and a counter: unguessable while the seed is secret, the same in each run of a test.

use sha2::{Digest as _, Sha256};

/// A generator of tokens. Give each shard a seed of its own.
#[derive(Clone)]
pub struct Tokens {
    seed: [u8; 32],
    counter: u64,
}

impl Tokens {
    /// A generator over a secret seed.
    #[must_use]
    pub const fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    /// 32 fresh octets, also good as the seed of another part.
    pub fn octets(&mut self) -> [u8; 32] {
        self.counter = self.counter.wrapping_add(1);
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.counter.to_be_bytes());
        hash.finalize().into()
    }

    fn hex(&mut self, octets: usize) -> String {
        let fresh = self.octets();
        hex::encode(fresh.get(..octets).unwrap_or(&fresh))
    }

    /// A From or To tag.
    pub fn tag(&mut self) -> String {
        self.hex(8)
    }

    /// A branch with the magic cookie.
    pub fn branch(&mut self) -> String {
        format!("z9hG4bK{}", self.hex(12))
    }

    /// A Call-ID that begins with `prefix` (the shard's number).
    pub fn call_id(&mut self, prefix: &str) -> String {
        format!("{prefix}{}", self.hex(16))
    }

    /// A client nonce.
    pub fn cnonce(&mut self) -> String {
        self.hex(8)
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_repeat_with_the_seed() {
        let (mut a, mut b) = (Tokens::new([1; 32]), Tokens::new([1; 32]));
        let first = a.branch();
        assert_eq!(first, b.branch());
        assert_ne!(first, a.branch());
        assert!(a.call_id("3-").starts_with("3-"));
        assert_ne!(Tokens::new([2; 32]).tag(), Tokens::new([1; 32]).tag());
    }
}
