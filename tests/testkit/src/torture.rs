//! The torture messages of RFC 4475 and RFC 5118 (`sip-core/corpus`), and what strangers send.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::seeded::{Mutator, Random};

/// What a SIP parser is sensitive to.
pub const SIP_SPICE: &[&[u8]] = &[
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"\"",
    b"<",
    b">",
    b";",
    b",",
    b":",
    b"@",
    b"%",
    b"[",
    b"]",
    b" ",
    b"\\",
    b"\xff",
    b"Content-Length: 99999999999999999999\r\n",
    b"l: -1\r\n",
    b"\r\n ",
    b"Via: ",
    b"SIP/2.0",
    b"=",
    b"?",
    b"*",
    b"()",
];

/// Longest noise, in octets: longer than most SIP messages' start, shorter than a datagram on a wire.
const NOISE_MAX: usize = 600;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../sip-core/corpus")
}

/// The names of all messages, as `rfc4475/wsinv`.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rfc in ["rfc4475", "rfc5118"] {
        for entry in std::fs::read_dir(folder().join(rfc)).expect("the corpus is in the tree") {
            let path = entry.expect("the corpus can be listed").path();
            let stem = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            names.insert(format!("{rfc}/{stem}"));
        }
    }
    names
}

/// A message by its name.
///
/// # Panics
/// When there is none of that name.
#[must_use]
pub fn octets(name: &str) -> Vec<u8> {
    let path = folder().join(format!("{name}.dat"));
    let read = std::fs::read(&path);
    read.unwrap_or_else(|error| unreachable!("the corpus has {}: {error}", path.display()))
}

/// Mutations of all of them.
#[must_use]
pub fn mutator() -> Mutator {
    Mutator::new(names().iter().map(|name| octets(name)).collect(), SIP_SPICE)
}

/// Octets that are no SIP; a part of them looks like it for a while.
pub fn sip_noise(random: &mut Random) -> Vec<u8> {
    let start: &[u8] = match random.below(8) {
        0 => b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n",
        1 => b"SIP/2.0 200 OK\r\nVia: x\r\n",
        2 => b"REGISTER sip:alpha.example SIP/2.0\r\nContent-Length: 99999999999999999999\r\n\r\n",
        _ => b"",
    };
    let length = random.below(NOISE_MAX);
    [start.to_vec(), random.octets(length)].concat()
}

/// Octets that are no RTP or RTCP of anybody here: bare ones, or behind the first two octets of either.
pub fn rtp_noise(random: &mut Random) -> Vec<u8> {
    let length = random.below(NOISE_MAX);
    let mut octets = random.octets(length);
    match (random.below(3), &mut octets[..]) {
        (0, [first, second, ..]) => (*first, *second) = (0x80, 0),
        (1, [first, second, ..]) => (*first, *second) = (0x81, 200 + (*second & 1)),
        _ => {}
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_is_whole_and_noise_is_of_each_kind() {
        assert_eq!(names().len(), 61);
        assert!(octets("rfc4475/wsinv").starts_with(b"INVITE "));
        let mut random = Random::new(1);
        let noise: Vec<_> = (0..100).map(|_| sip_noise(&mut random)).collect();
        assert!(noise.iter().any(|octets| octets.starts_with(b"INVITE ")));
        let noise: Vec<_> = (0..100).map(|_| rtp_noise(&mut random)).collect();
        assert!(noise.iter().any(|octets| octets.starts_with(&[0x80, 0])));
    }
}
