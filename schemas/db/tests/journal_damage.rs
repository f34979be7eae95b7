//! Journal files that were cut or written over: a reader says where, or reads on; nothing panics, and no record is given
//! out of order or under another's number.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::event::fact::{Fact, Heartbeat, Started};
use model::time::Timestamp;
use tandem_db::Position;
use tandem_db::journal::{Journal, JournalOptions, JournalReader, prune};
use testkit::{ManualClock, Random, soak};

const SEED: u64 = 0xd15c;
/// Each opens files a dozen times.
const ROUNDS: u64 = 150;
const RECORDS: u32 = 600;
/// Reads of one round: far more than the records need, so that a reader that does not get on is a failure.
const READS_MAX: usize = 200;
/// Records of one read.
const STEP: usize = 64;
const SMALL: JournalOptions = JournalOptions {
    file_bytes_max: 32 * 1024,
    places_max: 8,
    admit_backlog_max: 1_024,
    admit_lag_max_ms: 60_000,
    ballast_bytes: 4_096,
};

fn fact(n: u32) -> Fact {
    match n % 3 {
        0 => Fact::Started(Started {
            at: Timestamp(i64::from(n)),
            version: "x".repeat(usize::try_from(n % 90).unwrap()),
        }),
        _ => Fact::Heartbeat(Heartbeat { at: Timestamp(i64::from(n)), calls_up: n, stopping: None }),
    }
}

/// A journal of two epochs and several files; the second epoch as a crash leaves it, its log beside it.
fn journal() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    for epoch in 0..2 {
        let (journal, _) = Journal::open_with(dir.path(), clock.clone(), "0.1.0", SMALL).unwrap();
        for n in 0..RECORDS {
            let (tell, told) = std::sync::mpsc::sync_channel(1);
            journal.append(&fact(n), Some(Box::new(move |durable| tell.send(durable).unwrap()))).unwrap();
            assert!(told.recv().unwrap());
        }
        if epoch == 0 {
            journal.close();
            continue;
        }
        // What a crash leaves: the files as they are, without the index that SQLite keeps in shared memory.
        let copy = tempfile::tempdir().unwrap();
        copy_files(dir.path(), copy.path());
        journal.close();
        return copy;
    }
    unreachable!("the second epoch returns")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| !path.to_string_lossy().ends_with("-shm"));
    files.sort();
    files
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("journal")).unwrap();
    for path in files(from) {
        std::fs::copy(&path, to.join("journal").join(path.file_name().unwrap())).unwrap();
    }
}

/// Cuts, flips, writes over.
fn damage(random: &mut Random, path: &Path) {
    let mut octets = std::fs::read(path).unwrap();
    let at = random.below(octets.len() + 1);
    match random.below(5) {
        0 => octets.truncate(at),
        1 => {
            for _ in 0..=random.below(64) {
                let at = random.below(octets.len());
                if let Some(octet) = octets.get_mut(at) {
                    *octet ^= 1 << random.below(8);
                }
            }
        }
        2 => {
            let noise = random.octets(512);
            octets.iter_mut().skip(at).zip(noise).for_each(|(octet, noise)| *octet = noise);
        }
        3 => octets.iter_mut().skip(at / 4_096 * 4_096).take(4_096).for_each(|octet| *octet = 0),
        // The head of the file: its format and sizes.
        _ => {
            let at = random.below(100);
            if let Some(octet) = octets.get_mut(at) {
                *octet = random.octet();
            }
        }
    }
    std::fs::write(path, octets).unwrap();
}

#[test]
fn damaged_files_are_told_and_never_read_wrongly() {
    let whole = journal();
    let clean = JournalReader::open(whole.path()).verify().unwrap();
    assert!(clean.records >= 2 * u64::from(RECORDS) && clean.epochs == 2, "{clean:?}");
    assert!(files(whole.path()).len() > 4, "several files");
    let (mut told, mut unharmed) = (0_u64, 0_u64);
    let rounds = soak::campaign("damaged journal files", SEED, ROUNDS, |_, random| {
        let dir = tempfile::tempdir().unwrap();
        copy_files(whole.path(), dir.path());
        let paths = files(dir.path());
        for _ in 0..=random.below(2) {
            let path = &paths[random.below(paths.len())];
            damage(random, path);
        }
        let reader = JournalReader::open(dir.path());
        let mut at = Position::START;
        let mut error = None;
        for _ in 0..READS_MAX {
            match reader.read_after(at, STEP) {
                Ok(records) => {
                    let Some(last) = records.last() else { break };
                    for record in &records {
                        assert!(record.position > at, "{} after {at}", record.position);
                        assert!(record.position.epoch > at.epoch || record.position.sequence == at.sequence + 1);
                        let again = Fact::from_bytes(&record.fact.to_bytes());
                        assert_eq!(again.ok().as_ref(), Some(&record.fact), "what is read can be written");
                        at = record.position;
                    }
                    assert_eq!(last.position, at);
                }
                Err(found) => {
                    error = Some(found);
                    break;
                }
            }
        }
        assert!(error.is_some() || reader.read_after(at, STEP).is_ok_and(|left| left.is_empty()), "it came to an end");
        let verified = reader.verify();
        assert_eq!(verified.is_err(), error.is_some(), "{verified:?} {error:?}");
        match &verified {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                told += 1;
            }
            Ok(report) => {
                assert!(report.records <= clean.records);
                unharmed += 1;
            }
        }
        // None of these has to succeed; none may panic.
        drop((reader.stat(), reader.count_after(Position::new(1, 5)), prune(dir.path(), at, Timestamp(i64::MAX))));
        // A daemon that starts on it makes a new epoch, or says why it can't.
        if let Ok((journal, opened)) = Journal::open_with(dir.path(), Arc::new(ManualClock::default()), "0.1.0", SMALL)
        {
            assert!(opened.epoch >= 1);
            journal.close();
        }
    });
    assert!(told > rounds / 10 && unharmed > rounds / 20, "{told} told, {unharmed} unharmed of {rounds}");
}
