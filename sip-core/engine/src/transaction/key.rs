//! Matching messages to transactions (RFC 3261, sections 17.1.3 and 17.2.3) by a keyed 128-bit hash.

use std::hash::{BuildHasher, DefaultHasher, Hasher};

use sip_message::{Message, Method};

/// The hash of what names a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyHash(u128);

/// Computes key hashes. Two SipHashes that begin with secret words: nobody outside can aim at a collision.
#[derive(Debug, Clone)]
pub(super) struct Matcher {
    left: DefaultHasher,
    right: DefaultHasher,
}

/// Two hashers that take the same parts, each with its length, so that no two part lists look alike.
struct Parts(DefaultHasher, DefaultHasher);

impl Parts {
    fn part(&mut self, octets: &[u8]) {
        for hasher in [&mut self.0, &mut self.1] {
            hasher.write_usize(octets.len());
            hasher.write(octets);
        }
    }

    /// A part in which case does not count.
    fn part_folded(&mut self, octets: &[u8]) {
        for hasher in [&mut self.0, &mut self.1] {
            hasher.write_usize(octets.len());
            for octet in octets {
                hasher.write_u8(octet.to_ascii_lowercase());
            }
        }
    }

    fn hash(&self) -> KeyHash {
        KeyHash(u128::from(self.0.finish()) << 64 | u128::from(self.1.finish()))
    }
}

impl Matcher {
    pub(super) fn new(seed: u64) -> Self {
        let keyed = |word: u64| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(seed);
            hasher.write_u64(word);
            hasher
        };
        Self { left: keyed(0x6c65_6674), right: keyed(0x7269_6768) }
    }

    fn parts(&self) -> Parts {
        Parts(self.left.clone(), self.right.clone())
    }

    /// Of a request of ours or a response to it: the branch and the method of CSeq.
    pub(super) fn client(&self, msg: &Message) -> Option<KeyHash> {
        let via = msg.top_via().ok()?;
        let mut parts = self.parts();
        parts.part(via.branch());
        parts.part(msg.method().as_bytes());
        Some(parts.hash())
    }

    /// Of a request to us; an ACK has the hash of its INVITE.
    pub(super) fn server(&self, msg: &Message) -> Option<KeyHash> {
        let method = if *msg.method() == Method::Ack { &Method::Invite } else { msg.method() };
        self.server_as(msg, method)
    }

    /// Of the INVITE that a CANCEL names.
    pub(super) fn cancelled(&self, msg: &Message) -> Option<KeyHash> {
        self.server_as(msg, &Method::Invite)
    }

    fn server_as(&self, msg: &Message, method: &Method) -> Option<KeyHash> {
        let via = msg.top_via().ok()?;
        let mut parts = self.parts();
        parts.part(method.as_bytes());
        if via.has_magic_cookie() {
            parts.part(via.branch());
            parts.part_folded(via.host);
            parts.part(&via.port.unwrap_or_default().to_be_bytes());
        } else {
            // A client of RFC 2543: no branch to trust. The To tag is left out, because that of an ACK is ours.
            parts.part(msg.request_uri());
            parts.part(msg.from().ok()?.tag().unwrap_or_default());
            parts.part(msg.call_id());
            parts.part(&msg.cseq().ok()?.0.to_be_bytes());
            parts.part(via.branch());
            parts.part_folded(via.host);
            parts.part(&via.port.unwrap_or_default().to_be_bytes());
        }
        Some(parts.hash())
    }
}

/// A hasher for keys that are spread already (hashes) or dense (serials): one multiplication.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct BuildKeyHasher;

impl BuildHasher for BuildKeyHasher {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher(0)
    }
}

#[derive(Debug)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.write_u64(u64::from(*octet));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(u64::try_from(word).unwrap_or_default());
    }

    fn write_isize(&mut self, word: isize) {
        self.write_usize(word.unsigned_abs());
    }

    fn write_u128(&mut self, word: u128) {
        self.write_u64(u64::try_from(word >> 64).unwrap_or_default());
        self.write_u64(u64::try_from(word & u128::from(u64::MAX)).unwrap_or_default());
    }
}
