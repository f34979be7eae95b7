//! Records of the journal and events of the store from octets that nobody wrote: no panic, no allocation for a length
//! that is only claimed, and what is taken is written again with the same meaning.

#![allow(clippy::unwrap_used, reason = "a test may stop at what must not be")]

use std::path::{Path, PathBuf};

use tandem_model::event::fact::Fact;
use tandem_model::event::store::StoreEvent;
use testkit::{Mutator, soak};

const SEED: u64 = 0xfac7;
const ROUNDS: u64 = 60_000;

/// The stored samples whose name begins so.
fn samples(prefix: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/event/samples");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    assert!(!files.is_empty(), "{prefix}");
    files.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn octets_of_hex(text: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = text.iter().copied().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

#[test]
fn mutated_records_of_the_journal_are_refused_or_keep_their_meaning() {
    // Heads of CBOR (RFC 8949, section 3): long strings, long arrays and maps, indefinite lengths, tags, null, floats.
    const SPICE: &[&[u8]] = &[
        &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x7a, 0x7f, 0xff, 0xff, 0xff],
        &[0x9b, 0, 0, 0, 1, 0, 0, 0, 0],
        &[0xba, 0xff, 0xff, 0xff, 0xff],
        &[0x5f],
        &[0x7f],
        &[0x9f],
        &[0xbf],
        &[0xff],
        &[0xc2],
        &[0xf6],
        &[0xf9, 0x7e, 0],
        &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x81; 64],
        &[0x62, 0xc3, 0x28],
        &[0x80],
        &[0xa0],
    ];
    let corpus: Vec<Vec<u8>> = samples("fact-").iter().map(|text| octets_of_hex(text)).collect();
    assert!(corpus.iter().all(|octets| Fact::from_bytes(octets).is_ok()));
    let mutator = Mutator::new(corpus, SPICE).with_changes(1..=2);
    let mut accepted = 0;
    let rounds = soak::campaign("records of the journal", SEED, ROUNDS, |_, random| {
        let octets = mutator.mutated(random);
        let Ok(fact) = Fact::from_bytes(&octets) else { return };
        accepted += 1;
        let again = Fact::from_bytes(&fact.to_bytes());
        assert_eq!(again.as_ref().ok(), Some(&fact), "{octets:02x?}: {again:?}");
        assert!(!fact.kind().is_empty());
    });
    assert!(accepted > rounds / 50, "the mutations must not only break: {accepted} of {rounds}");
}

#[test]
fn mutated_events_of_the_store_are_refused_or_keep_their_meaning() {
    const SPICE: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b":",
        b",",
        b"null",
        b"true",
        b"-1",
        b"1e999",
        b"1.5",
        b"\\u0000",
        b"\\ud800",
        b"99999999999999999999999",
        b"\"kind\":\"changed\",",
        b"[[[[[[[[",
        b"\xff",
    ];
    let corpus = samples("store-");
    let mutator = Mutator::new(corpus, SPICE).with_changes(1..=2);
    let mut accepted = 0;
    let rounds = soak::campaign("events of the store", SEED ^ 1, ROUNDS, |_, random| {
        let octets = mutator.mutated(random);
        let Ok(event) = serde_json::from_slice::<StoreEvent>(&octets) else { return };
        accepted += 1;
        let text = serde_json::to_vec(&event).unwrap();
        assert_eq!(serde_json::from_slice::<StoreEvent>(&text).ok(), Some(event));
    });
    assert!(accepted > rounds / 200, "the mutations must not only break: {accepted} of {rounds}");
}
