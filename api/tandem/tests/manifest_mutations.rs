//! Manifests of backups by mutation: a restore begins with one, and it comes from wherever the copy was kept.

#![allow(clippy::unwrap_used, reason = "a test may stop at what must not be")]

use sha2::{Digest as _, Sha256};
use tandem::backup::Manifest;
use testkit::{Mutator, soak};

const SEED: u64 = 0xbac0;
const ROUNDS: u64 = 3_000;

#[test]
fn mutated_manifests_are_refused_or_true() {
    const SPICE: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b":",
        b",",
        b"null",
        b"-1",
        b"1e999",
        b"18446744073709551616",
        b"../",
        b"/",
        b"\\u0000",
        b"\\ud800",
        b"[[[[[[[[[[[[[[[[",
        b"\xff",
        b"store.db",
        b"journal/",
        b"manifest.json",
    ];
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    let files = [("store.db", b"a store".as_slice()), ("journal/1", b"facts"), ("key", b"key")];
    let entries = files.map(|(path, content)| {
        std::fs::write(dir.path().join(path), content).unwrap();
        format!(
            "{{\"path\":\"{path}\",\"bytes\":{},\"sha256\":\"{}\"}}",
            content.len(),
            hex::encode(Sha256::digest(content))
        )
    });
    let manifest = format!(
        "{{\"format\":1,\"version\":\"0.1.0\",\"made_at_ms\":5,\"store\":\"store.db\",\"files\":[{}]}}",
        entries.join(",")
    );
    let path = dir.path().join("manifest.json");
    std::fs::write(&path, &manifest).unwrap();
    let true_one = Manifest::verify(dir.path()).unwrap();
    for spelling in ["journal//1", "./journal/1", "journal/./1", "journal/1/", "key/../journal/1", "/journal/1"] {
        std::fs::write(&path, manifest.replace("journal/1", spelling)).unwrap();
        assert!(Manifest::verify(dir.path()).is_err(), "{spelling}");
    }
    let mutator = Mutator::new(vec![manifest.into_bytes()], SPICE).with_changes(1..=2);
    let (mut taken, mut refused) = (0, 0);
    soak::campaign("manifests of backups", SEED, ROUNDS, |_, random| {
        std::fs::write(&path, mutator.mutated(random)).unwrap();
        match Manifest::verify(dir.path()) {
            Ok(manifest) => {
                taken += 1;
                // What is told of files is true; version and time are words.
                assert!(manifest.files.iter().all(|entry| true_one.files.contains(entry)), "{manifest:?}");
                assert!(manifest.files.iter().any(|entry| entry.path == manifest.store), "{manifest:?}");
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    });
    assert!(taken > 10 && refused > 10, "{taken} taken, {refused} refused");
}
