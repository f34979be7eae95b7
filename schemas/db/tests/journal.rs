//! The node journal: durable before it is told, dense, never blocked for calls that were admitted.

#[cfg(test)]
use tandem_db as db;

#[cfg(test)]
mod journal {
    use std::path::{Path, PathBuf};
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::db::Position;
    use super::db::journal::{
        Health, Journal, JournalError, JournalFull, JournalOptions, JournalReader, Notify, ReadError, prune,
    };
    use model::event::fact::{Fact, Heartbeat};
    use model::time::Timestamp;
    use tempfile::TempDir;
    use testkit::{ManualClock, wait_until};

    /// No commit takes so long.
    const BOUND: Duration = Duration::from_secs(20);
    const SMALL: JournalOptions = JournalOptions {
        file_bytes_max: 64 * 1024,
        places_max: 8,
        admit_backlog_max: 3,
        admit_lag_max_ms: 250,
        ballast_bytes: 100_000,
    };

    fn fact(n: u32) -> Fact {
        Fact::Heartbeat(Heartbeat { at: Timestamp(0), calls_up: n, stopping: None })
    }

    fn numbers(reader: &JournalReader) -> Vec<u32> {
        let records = reader.read_after(Position::START, 10_000).unwrap();
        records.iter().filter_map(|r| if let Fact::Heartbeat(h) = &r.fact { Some(h.calls_up) } else { None }).collect()
    }

    struct Fixture {
        dir: TempDir,
        clock: Arc<ManualClock>,
        journal: Journal,
    }

    fn open(options: JournalOptions) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::default());
        let (journal, opened) = Journal::open_with(dir.path(), clock.clone(), "0.1.0", options).unwrap();
        assert_eq!((opened.epoch, opened.previous), (1, None));
        Fixture { dir, clock, journal }
    }

    impl Fixture {
        fn reader(&self) -> JournalReader {
            JournalReader::open(self.dir.path())
        }

        fn files(&self) -> Vec<PathBuf> {
            let entries = std::fs::read_dir(self.dir.path().join("journal")).unwrap();
            let mut files: Vec<PathBuf> = entries
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|e| e == "journal"))
                .collect();
            files.sort();
            files
        }

        /// Appends and waits for what the journal says.
        fn append(&self, n: u32) -> bool {
            let (notify, told) = notify();
            self.journal.append(&fact(n), Some(notify)).unwrap();
            told.recv_timeout(BOUND).unwrap()
        }

        /// Holds the writer in a `notify` until the returned sender is dropped.
        fn hold(&self) -> SyncSender<()> {
            let (release, released) = sync_channel::<()>(1);
            let (holds, held) = sync_channel(1);
            let notify: Notify = Box::new(move |_| {
                holds.send(()).unwrap();
                assert!(released.recv().is_err(), "released by drop");
            });
            self.journal.append(&fact(0), Some(notify)).unwrap();
            held.recv_timeout(BOUND).unwrap();
            release
        }
    }

    fn notify() -> (Notify, Receiver<bool>) {
        let (tell, told) = sync_channel(1);
        (Box::new(move |durable| tell.send(durable).unwrap()), told)
    }

    /// What a crash leaves: the files as they are, without the index that SQLite keeps in shared memory.
    fn crash_copy(from: &Path) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        let to = copy.path().join("journal");
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(from.join("journal")).unwrap() {
            let path = entry.unwrap().path();
            if !path.to_string_lossy().ends_with("-shm") {
                std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        }
        copy
    }

    #[test]
    fn what_was_told_survives_a_crash() {
        let f = open(JournalOptions::default());
        for n in 1..=5 {
            assert!(f.append(n));
        }
        let copy = crash_copy(f.dir.path());
        let reader = JournalReader::open(copy.path());
        assert_eq!(numbers(&reader), [1, 2, 3, 4, 5]);
        let (again, opened) = Journal::open(copy.path(), f.clock.clone(), "0.1.1").unwrap();
        assert_eq!((opened.epoch, opened.previous), (2, Some(Position::new(1, 6))));
        again.append(&fact(6), None).unwrap();
        again.close();
        let report = reader.verify().unwrap();
        assert_eq!((report.epochs, report.records, report.last), (2, 8, Some(Position::new(2, 2))));
        assert_eq!(report.kinds["started"], 2);
        let records = reader.read_after(Position::new(1, 5), 10).unwrap();
        let positions: Vec<Position> = records.iter().map(|r| r.position).collect();
        assert_eq!(positions, [Position::new(1, 6), Position::new(2, 1), Position::new(2, 2)]);
        assert_eq!(again.append(&fact(7), None), Err(JournalFull), "closed");
        assert_eq!(again.health(), Health::Closed);
    }

    #[test]
    fn an_epoch_that_never_wrote_is_passed() {
        let f = open(JournalOptions::default());
        f.append(1);
        f.journal.close();
        // a crash between making the file and its first commit
        std::fs::write(f.dir.path().join("journal/0000000002-0000000000000000001.journal"), b"").unwrap();
        let (again, opened) = Journal::open(f.dir.path(), f.clock.clone(), "0.1.0").unwrap();
        assert_eq!((opened.epoch, opened.previous), (3, Some(Position::new(1, 2))));
        drop(again);
        let records = f.reader().read_after(Position::new(1, 2), 10).unwrap();
        assert_eq!(records[0].position, Position::new(3, 1));
        assert_eq!(f.reader().read_after(Position::new(3, 1), 10).unwrap(), []);
    }

    #[test]
    fn one_node_at_a_time() {
        let f = open(JournalOptions::default());
        let second = Journal::open(f.dir.path(), f.clock.clone(), "0.1.0");
        assert!(matches!(second, Err(JournalError::InUse { .. })), "{second:?}");
    }

    #[test]
    fn records_gather_only_while_a_commit_runs() {
        let f = open(JournalOptions::default());
        assert!(f.append(1));
        let release = f.hold();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let position = f.journal.subscribe();
        for n in 0..100 {
            let (seen, position) = (seen.clone(), position.clone());
            let notify: Notify = Box::new(move |_| seen.lock().unwrap().push(position.borrow().sequence));
            f.journal.append(&fact(n), Some(notify)).unwrap();
        }
        assert_eq!(position.borrow().sequence, 3, "the hold is written, the rest waits");
        drop(release);
        f.journal.close();
        assert_eq!(*seen.lock().unwrap(), vec![103; 100], "one commit");
    }

    #[test]
    fn admitted_calls_never_meet_a_full_queue() {
        let f = open(SMALL);
        let mut call = f.journal.reserve().unwrap();
        let release = f.hold();
        // held: 1 in flight or done, 2 places reserved, 8 in all
        let taken = (0..20).take_while(|n| f.journal.append(&fact(*n), None).is_ok()).count();
        assert!((5..=6).contains(&taken), "{taken}");
        assert!(matches!(f.journal.reserve(), Err(JournalFull)), "behind: no new calls");
        let (answered, told) = notify();
        call.append(&fact(100), Some(answered)).unwrap();
        call.append(&fact(101), None).unwrap();
        assert_eq!(call.append(&fact(102), None), Err(JournalFull), "its two places are used");
        drop(release);
        assert!(told.recv_timeout(BOUND).unwrap());
        f.journal.close();
        assert_eq!(numbers(&f.reader()).iter().filter(|n| **n >= 100).count(), 2);
    }

    #[test]
    fn unused_places_come_back_and_age_refuses_too() {
        let f = open(SMALL);
        for _ in 0..100 {
            drop(f.journal.reserve().unwrap());
        }
        let release = f.hold();
        f.journal.append(&fact(1), None).unwrap();
        drop(f.journal.reserve().unwrap());
        f.clock.advance_ms(251);
        assert_eq!(f.journal.lag_ms(), 251);
        assert!(f.journal.reserve().is_err());
        drop(release);
    }

    #[tokio::test]
    async fn a_full_disk_refuses_calls_and_loses_no_end() {
        let f = open(JournalOptions { places_max: 100_000, ..SMALL });
        let ballast = f.dir.path().join("journal/ballast");
        assert_eq!(std::fs::metadata(&ballast).unwrap().len(), 100_000);
        let mut call = f.journal.reserve().unwrap();
        f.journal.limit_pages(Some(1));
        let ends = 500;
        for n in 0..ends {
            f.journal.append(&fact(n), None).unwrap();
        }
        wait_until(BOUND, async || matches!(f.journal.health(), Health::Failing { .. })).await;
        assert!(f.journal.reserve().is_err());
        assert!(!ballast.exists());
        assert!(f.journal.ballast_gone_at().is_some());
        let (answered, told) = notify();
        call.append(&fact(9_999), Some(answered)).unwrap();
        assert!(!told.recv_timeout(BOUND).unwrap(), "who waits is told, and it is not written later");
        call.append(&fact(ends), None).unwrap();
        f.journal.limit_pages(None);
        wait_until(BOUND, async || f.journal.health() == Health::Good && f.journal.backlog() == 0).await;
        assert!(f.journal.reserve().is_ok());
        assert_eq!(numbers(&f.reader()), (0..=ends).collect::<Vec<_>>());
        f.clock.advance_ms(60_000);
        wait_until(BOUND, async || f.journal.ballast_gone_at().is_none()).await;
        assert_eq!(std::fs::metadata(&ballast).unwrap().len(), 100_000, "made again without a record");
        assert!(f.append(1));
        f.reader().verify().unwrap();
    }

    #[tokio::test]
    async fn a_journal_without_records_finds_by_itself_that_the_disk_takes_them_again() {
        let f = open(JournalOptions { ballast_bytes: 0, ..SMALL });
        f.journal.limit_pages(Some(1));
        // Who waits is told, and nothing is left to be tried again.
        while f.append(1) {}
        wait_until(BOUND, async || f.journal.backlog() == 0).await;
        f.journal.limit_pages(None);
        wait_until(BOUND, async || f.journal.health() == Health::Good).await;
        let records = f.reader().verify().unwrap().records;
        assert!(f.append(2));
        assert_eq!(f.reader().verify().unwrap().records, records + 1, "the attempts left no record");
    }

    #[test]
    fn files_follow_each_other_and_go_whole() {
        let f = open(SMALL);
        for n in 0..6_000 {
            while f.journal.append(&fact(n), None).is_err() {
                std::thread::yield_now();
            }
        }
        while f.journal.backlog() > 0 {
            std::thread::yield_now();
        }
        assert!(f.append(6_000));
        let reader = f.reader();
        let files = f.files();
        assert!(files.len() >= 4, "{files:?}");
        assert_eq!(reader.verify().unwrap().records, 6_002);
        assert_eq!(numbers(&reader), (0..=6_000).collect::<Vec<_>>());
        let stat = reader.stat().unwrap();
        assert_eq!(
            (stat.files, stat.first, stat.last),
            (files.len(), Some(Position::new(1, 1)), Some(Position::new(1, 6_002)))
        );

        let dir = f.dir.path();
        let now = f.clock.as_ref();
        let later = model::time::Clock::now(now).utc.plus_ms(1);
        assert_eq!(prune(dir, Position::START, later).unwrap(), 0, "a consumer has not read it");
        assert_eq!(prune(dir, Position::new(9, 9), Timestamp(0)).unwrap(), 0, "it is young");
        let second = reader.read_after(Position::START, 10_000).unwrap();
        let second = second[2_000].position;
        assert!(prune(dir, second, later).unwrap() >= 1);
        let kept = reader.read_after(Position::START, 1).unwrap()[0].position;
        assert!(kept > Position::new(1, 1) && kept <= Position::new(1, second.sequence + 1));
        assert_eq!(reader.read_after(second, 1).unwrap()[0].position.sequence, second.sequence + 1);
        let missed = reader.read_after(Position::new(1, 1), 10);
        assert!(matches!(missed, Err(ReadError::Gap { .. })), "{missed:?}");
        let beyond = reader.read_after(Position::new(1, 7_000), 10);
        assert!(matches!(beyond, Err(ReadError::Ahead { .. })), "{beyond:?}");

        let files = f.files();
        std::fs::remove_file(&files[1]).unwrap();
        let hole = f.reader().verify();
        assert!(matches!(hole, Err(ReadError::Gap { .. })), "{hole:?}");
        assert!(prune(dir, Position::new(9, 9), later).unwrap() >= 1);
        assert_eq!(f.files().len(), 1, "all but the newest");
    }

    #[test]
    fn a_record_that_is_not_understood_stops_its_consumer() {
        let f = open(JournalOptions::default());
        f.append(1);
        f.journal.close();
        let connection = rusqlite::Connection::open(&f.files()[0]).unwrap();
        for (sequence, kind, body) in [(3, "sung", vec![0x82, 0x18, 0x63, 0x80]), (4, "ended", fact(1).to_bytes())] {
            connection.execute("INSERT INTO record VALUES (?1, 0, ?2, ?3)", (sequence, kind, body)).unwrap();
        }
        let reader = f.reader();
        assert_eq!(reader.read_after(Position::START, 10).unwrap().len(), 2, "what comes before is read");
        for sequence in [3, 4] {
            let stopped = reader.read_after(Position::new(1, sequence - 1), 10);
            let expected = Position::new(1, sequence);
            assert!(
                matches!(stopped, Err(ReadError::Unreadable { position, .. }) if position == expected),
                "{stopped:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_consumer_reads_while_it_is_written() {
        let f = open(JournalOptions { places_max: 100_000, ..SMALL });
        let reader = f.reader();
        let mut moved = f.journal.subscribe();
        let journal = f.journal.clone();
        let writer = std::thread::spawn(move || {
            for n in 0..5_000 {
                journal.append(&fact(n), None).unwrap();
            }
        });
        let mut at = Position::START;
        while at.sequence < 5_001 {
            let records = reader.next(at, 700).await.unwrap();
            match records.last() {
                Some(last) => at = last.position,
                None => tokio::time::timeout(BOUND, moved.changed()).await.unwrap().unwrap(),
            }
        }
        writer.join().unwrap();
        assert_eq!(numbers(&reader), (0..5_000).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_there_before_the_first_start() {
        let dir = tempfile::tempdir().unwrap();
        let reader = JournalReader::open(dir.path());
        assert_eq!(reader.read_after(Position::START, 10).unwrap(), []);
        assert_eq!(reader.verify().unwrap().records, 0);
        assert_eq!(prune(dir.path(), Position::START, Timestamp(0)).unwrap(), 0);
    }
}
