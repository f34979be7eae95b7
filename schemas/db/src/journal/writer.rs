//! The writer's thread and the checkpointer's.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::event::fact::{Fact, Started};
use rusqlite::{Connection, params};
use tokio::sync::watch;

use super::file::{self, FileName};
use super::reader::last_position;
use super::{BATCH_MAX, Entry, JournalError, Opened, Shared, State};
use crate::cursor::Position;

/// Pause between attempts on a failing disk: below the time that an answer is held.
const RETRY_PERIOD: Duration = Duration::from_millis(200);
/// A freed ballast file is made again no sooner: whoever filled the disk has just been cleaning up.
const BALLAST_PERIOD: Duration = Duration::from_secs(10);
/// Bytes between two checkpoints: keeps the write-ahead log small without a checkpoint all the time.
const CHECKPOINT_BYTES: u64 = 4 * 1024 * 1024;
/// What a record takes beside its body: key, time, kind, cell header.
const RECORD_OVERHEAD: u64 = 40;
/// SQLite's own limit of pages.
const PAGES_MAX: u32 = 4_294_967_294;

const LOCK: &str = "lock";
const BALLAST: &str = "ballast";
const INSERT: &str = "INSERT INTO record (seq, at, kind, body) VALUES (?1, ?2, ?3, ?4)";

pub(super) struct StartedThreads {
    pub position: watch::Receiver<Position>,
    pub threads: Vec<JoinHandle<()>>,
}

struct Writer {
    shared: Arc<Shared>,
    folder: PathBuf,
    connection: Connection,
    name: FileName,
    next: i64,
    file_bytes: u64,
    unchecked_bytes: u64,
    checkpoints: SyncSender<PathBuf>,
    position: watch::Sender<Position>,
    page_limit: Option<u32>,
    ballast_at: Option<Instant>,
    // Held while the journal is open; the system frees it with the process.
    _lock: File,
}

/// Opens the folder, begins the epoch and starts the threads.
pub(super) fn start(
    folder: &Path,
    shared: &Arc<Shared>,
    version: &str,
) -> Result<(StartedThreads, Opened), JournalError> {
    let io = |source| JournalError::Io { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(io)?;
    let lock = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK)).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(JournalError::InUse { path: folder.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => return Err(io(source)),
    }
    let files = file::list(folder).map_err(io)?;
    let previous = last_position(folder, &files)?;
    let epoch = files.last().map_or(0, |file| file.epoch) + 1;
    let name = FileName { epoch, first: 1 };
    let (checkpoints, due) = sync_channel(1);
    let (position, watched) = watch::channel(Position::new(epoch, 0));
    let mut writer = Writer {
        shared: shared.clone(),
        folder: folder.to_owned(),
        connection: file::create(folder, name)?,
        name,
        next: 1,
        file_bytes: 0,
        unchecked_bytes: 0,
        checkpoints,
        position,
        page_limit: None,
        ballast_at: None,
        _lock: lock,
    };
    let now = shared.clock.now();
    let fact = Fact::Started(Started { at: now.utc, version: version.to_owned() });
    let entry = Entry { at: now.utc, since: now.mono, kind: fact.kind(), body: fact.to_bytes(), notify: None };
    let began = writer.write(&[entry]);
    began.map_err(|source| JournalError::Sqlite { path: name.path(folder), source })?;
    writer.advance(1);
    writer.make_ballast();
    let spawn = |thread: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(thread.to_owned()).spawn(work).map_err(io)
    };
    let threads = vec![
        spawn("journal", Box::new(move || writer.run()))?,
        spawn("journal-checkpoint", Box::new(move || checkpoint(&due)))?,
    ];
    Ok((StartedThreads { position: watched, threads }, Opened { epoch, previous }))
}

/// However the writer's thread ends, nobody waits for it in vain.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.stopped = true;
        let left = std::mem::take(&mut state.queue);
        drop(state);
        if !left.is_empty() {
            tracing::error!(records = left.len(), "the journal was closed with records that could not be written");
        }
        tell(left, false);
    }
}

fn tell(entries: impl IntoIterator<Item = Entry>, durable: bool) {
    for notify in entries.into_iter().filter_map(|entry| entry.notify) {
        notify(durable);
    }
}

/// As a metric; a figure beyond 2^32 is wrong by then anyway.
fn figure(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

impl Writer {
    fn run(mut self) {
        let _ends = Ends(self.shared.clone());
        while let Some(batch) = self.take() {
            self.commit(batch);
        }
    }

    /// Waits for records; none when the journal is closed and all is written. A journal that fails and has nothing to
    /// write gives an empty batch now and then: who waits for it to become ready sends it no calls.
    fn take(&mut self) -> Option<Vec<Entry>> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        while state.queue.is_empty() {
            if state.stopping {
                return None;
            }
            if state.failing.is_none() && self.ballast_at.is_none() {
                state = shared.wake.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
                continue;
            }
            let idle = |state: &mut State| state.queue.is_empty() && !state.stopping;
            let waited = shared.wake.wait_timeout_while(state, RETRY_PERIOD, idle);
            let (woken, timeout) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
            state = woken;
            if timeout.timed_out() && state.failing.is_some() {
                break;
            }
            drop(state);
            self.remake_ballast();
            state = shared.lock();
        }
        let backlog = state.queue.len();
        state.in_flight_since = state.queue.front().map(|entry| entry.since);
        let batch: Vec<Entry> = state.queue.drain(..backlog.min(BATCH_MAX)).collect();
        state.in_flight = batch.len();
        let limit = state.page_limit;
        drop(state);
        metrics::gauge!("tandem_journal_backlog").set(figure(backlog));
        if limit != self.page_limit {
            self.page_limit = limit;
            let sql = format!("PRAGMA max_page_count = {}", limit.unwrap_or(PAGES_MAX));
            if let Err(error) = self.connection.query_row(&sql, [], |_| Ok(())) {
                tracing::warn!(%error, "the limit of pages could not be set");
            }
        }
        Some(batch)
    }

    fn commit(&mut self, batch: Vec<Entry>) {
        let began = self.shared.clock.now().mono;
        let mut written = self.write(&batch);
        if written.as_ref().is_err_and(is_full) && self.free_ballast() {
            written = self.write(&batch);
        }
        match written {
            Ok(bytes) => self.committed(batch, bytes, began),
            Err(error) => self.failed(batch, &error),
        }
    }

    /// Writes a batch as one transaction and gives its size.
    fn write(&mut self, batch: &[Entry]) -> rusqlite::Result<u64> {
        let mut bytes = 0;
        let mut sequence = self.next;
        let transaction = self.connection.transaction()?;
        if batch.is_empty() {
            // The same number again: a page that must reach the disk, and no record.
            transaction.pragma_update(None, "user_version", file::FORMAT)?;
        }
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for entry in batch {
                insert.execute(params![sequence, entry.at.0, entry.kind, entry.body])?;
                sequence += 1;
                bytes += u64::try_from(entry.body.len()).unwrap_or(0) + RECORD_OVERHEAD;
            }
        }
        transaction.commit()?;
        Ok(bytes)
    }

    fn advance(&mut self, records: usize) {
        self.next += i64::try_from(records).unwrap_or(0);
        self.position.send_replace(Position::new(self.name.epoch, self.next - 1));
    }

    fn committed(&mut self, batch: Vec<Entry>, bytes: u64, began: Instant) {
        self.advance(batch.len());
        let mut state = self.shared.lock();
        state.in_flight = 0;
        state.in_flight_since = None;
        let recovered = state.failing.take();
        drop(state);
        if let Some((since, _)) = recovered {
            tracing::info!(%since, "the journal reaches the disk again");
        }
        let took = self.shared.clock.now().mono.saturating_duration_since(began);
        metrics::histogram!("tandem_journal_commit_seconds").record(took.as_secs_f64());
        metrics::counter!("tandem_journal_records_total").increment(u64::try_from(batch.len()).unwrap_or(0));
        tell(batch, true);
        self.file_bytes += bytes;
        self.unchecked_bytes += bytes;
        if self.unchecked_bytes >= CHECKPOINT_BYTES {
            self.unchecked_bytes = 0;
            // A checkpoint that runs already will be followed by another one later.
            drop(self.checkpoints.try_send(self.name.path(&self.folder)));
        }
        if self.file_bytes >= self.shared.options.file_bytes_max {
            self.rotate();
        }
        self.remake_ballast();
    }

    fn failed(&mut self, batch: Vec<Entry>, error: &rusqlite::Error) {
        let (waited_for, kept): (Vec<Entry>, Vec<Entry>) = batch.into_iter().partition(|e| e.notify.is_some());
        let mut state = self.shared.lock();
        state.in_flight = 0;
        state.in_flight_since = None;
        if state.failing.is_none() {
            tracing::error!(%error, "the journal does not reach the disk; no new calls are admitted");
            state.failing = Some((self.shared.clock.now().utc, error.to_string()));
        }
        let stopping = state.stopping;
        for entry in kept.into_iter().rev() {
            state.queue.push_front(entry);
        }
        if stopping {
            // The last attempt failed; `Ends` reports what is lost.
            let left = std::mem::take(&mut state.queue);
            drop(state);
            tracing::error!(records = left.len(), "the journal was closed with records that could not be written");
            tell(left, false);
        } else {
            drop(state);
        }
        metrics::counter!("tandem_journal_failures_total").increment(1);
        tell(waited_for, false);
        if !stopping {
            let state = self.shared.lock();
            let pause = self.shared.wake.wait_timeout_while(state, RETRY_PERIOD, |state| !state.stopping);
            drop(pause.unwrap_or_else(std::sync::PoisonError::into_inner));
        }
    }

    /// Goes on in a new file. When that fails, the old one is used on.
    fn rotate(&mut self) {
        let name = FileName { epoch: self.name.epoch, first: self.next };
        match file::create(&self.folder, name) {
            Ok(connection) => {
                self.connection = connection;
                self.name = name;
                self.file_bytes = 0;
                self.unchecked_bytes = 0;
                self.page_limit = None;
            }
            Err(error) => {
                tracing::error!(%error, "the journal cannot begin a new file and goes on in the old one");
                drop(name.delete(&self.folder));
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join(BALLAST)
    }

    /// Gives the ballast's space back; false when there was none.
    fn free_ballast(&mut self) -> bool {
        self.ballast_at = self.shared.clock.now().mono.checked_add(BALLAST_PERIOD);
        let freed = std::fs::remove_file(self.ballast()).is_ok();
        if freed {
            self.shared.lock().ballast_gone_at = Some(self.shared.clock.now().utc);
            tracing::error!("the disk of the journal is full: the ballast file was given up; free space now");
        }
        freed
    }

    /// Makes the ballast again when it is time and there is space for it and as much again: an attempt that fails would
    /// take what is left of a full disk away from others for a moment.
    fn remake_ballast(&mut self) {
        let now = self.shared.clock.now().mono;
        if self.ballast_at.is_none_or(|at| now < at) {
            return;
        }
        let wanted = self.shared.options.ballast_bytes.saturating_mul(2);
        match free_bytes(&self.folder) {
            Some(free) if free < wanted => self.ballast_at = now.checked_add(BALLAST_PERIOD),
            _ => self.make_ballast(),
        }
    }

    /// Keeps space for hard times: written out, since a file of holes keeps none.
    fn make_ballast(&mut self) {
        self.ballast_at = None;
        let size = self.shared.options.ballast_bytes;
        if std::fs::metadata(self.ballast()).is_ok_and(|ballast| ballast.len() == size) {
            return;
        }
        let make = || -> std::io::Result<()> {
            let mut ballast = File::create(self.ballast())?;
            let block = [0x54; 64 * 1024];
            let mut left = size;
            while left > 0 {
                let n = usize::try_from(left).unwrap_or(block.len()).min(block.len());
                ballast.write_all(block.get(..n).unwrap_or(&block))?;
                left -= u64::try_from(n).unwrap_or(left);
            }
            ballast.sync_all()
        };
        let now = self.shared.clock.now();
        match make() {
            Ok(()) => self.shared.lock().ballast_gone_at = None,
            Err(error) => {
                tracing::warn!(%error, "there is no space for the journal's ballast file");
                drop(std::fs::remove_file(self.ballast()));
                self.ballast_at = now.mono.checked_add(BALLAST_PERIOD);
                self.shared.lock().ballast_gone_at.get_or_insert(now.utc);
            }
        }
    }
}

/// None when the system does not tell.
fn free_bytes(folder: &Path) -> Option<u64> {
    let space = nix::sys::statvfs::statvfs(folder).ok()?;
    let (blocks, size): (u64, u64) = (space.blocks_available(), space.fragment_size());
    Some(blocks.saturating_mul(size))
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

/// Moves what was committed from the write-ahead log into the file, beside the writer, until the writer is gone.
fn checkpoint(due: &Receiver<PathBuf>) {
    let mut open: Option<(PathBuf, Connection)> = None;
    for path in due {
        if open.as_ref().is_none_or(|(current, _)| *current != path) {
            match Connection::open(&path) {
                Ok(connection) => open = Some((path, connection)),
                Err(error) => tracing::warn!(%error, "a journal file cannot be opened for a checkpoint"),
            }
        }
        if let Some((_, connection)) = &open
            && let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        {
            tracing::warn!(%error, "a checkpoint of the journal failed; the next one does its work");
        }
    }
}
