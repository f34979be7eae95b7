//! The node journal: call facts on this node's disk before anybody acts on them.
//!
//! Files of SQLite below `<data>/journal/`, one per epoch (a start of the node) or 256 MiB. Records are numbered
//! `(epoch, seq)`, dense, `seq` from 1 in each epoch; files are append-only and deleted whole ([`prune`]), never by
//! row. One thread writes: it commits at once when it is idle and gathers only while a commit runs. A record whose
//! `notify` was told `true` is on the disk (`synchronous=FULL`).
//!
//! Drive it: [`Journal::open`]; for each admitted call [`Journal::reserve`], whose [`Places`] take the facts that must
//! not meet a full queue; [`Journal::append`] for the rest. Consumers read with a [`JournalReader`] from their cursor
//! and wait on [`Journal::subscribe`].
//!
//! When the disk fails: a record that somebody waits for (with `notify`) is tried once more on the space of the ballast
//! file, then told `false` and dropped: its call is not answered. A record that nobody waits for (an end) is kept and
//! tried again until it is written. [`Journal::health`] shows it, and [`Journal::reserve`] refuses new calls, until a
//! write succeeds again: the writer tries one several times a second also when no record waits.

mod file;
mod reader;
mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use model::event::fact::Fact;
use model::time::{Clock, Timestamp};
use tokio::sync::watch;

use crate::cursor::Position;
pub use reader::{JournalReader, JournalReport, JournalStat, ReadError, Record, prune};

/// Folder below the data directory.
pub const FOLDER: &str = "journal";
/// Size at which a file is closed: large enough for an hour of a busy node, small enough to be deleted as a whole.
pub const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Records that wait or have their place reserved. At half a KiB a record this is 128 MiB at worst, and two places for
/// each of 130,000 calls, more than one node carries.
pub const PLACES_MAX: usize = 262_144;
/// Waiting records above which no call is admitted: what a small machine commits in a tenth of a second.
pub const ADMIT_BACKLOG_MAX: usize = 8_192;
/// Age of the oldest waiting record above which no call is admitted: half of the time that an answer is held.
pub const ADMIT_LAG_MAX_MS: u64 = 250;
/// Places of an admitted call: its answer and its end.
pub const PLACES_PER_CALL: usize = 2;
/// Records of one commit: bounds how long the first of them waits.
pub const BATCH_MAX: usize = 2_048;
/// Space that is given back when the disk is full: the ends of some ten thousand calls.
pub const BALLAST_BYTES: u64 = 16 * 1024 * 1024;

/// Names of the files in the journal's `folder`, in the order of their records; none when there is no folder yet.
pub(crate) fn file_names(folder: &Path) -> std::io::Result<Vec<String>> {
    match file::list(folder) {
        Ok(files) => Ok(files.into_iter().map(|name| name.path(Path::new("")).display().to_string()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Told on the writer's thread whether the record is on the disk. It must be quick: it holds up the next commit.
pub type Notify = Box<dyn FnOnce(bool) + Send>;

/// The journal takes no more: the queue is full, the disk fails, or it was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node journal cannot keep up")]
pub struct JournalFull;

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("{} cannot be used for the journal", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process writes this journal.
    #[error("the journal in {} is in use: is another node running on this data directory?", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// SQLite refused.
    #[error("the journal file {} cannot be written", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The end of the last epoch cannot be read.
    #[error("the journal cannot be read back")]
    Read(#[from] ReadError),
}

/// How the journal is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Records reach the disk.
    Good,
    /// They do not, since this time, for this reason. Ends are kept in memory and tried again.
    Failing {
        /// Since when.
        since: Timestamp,
        /// What SQLite or the system says.
        error: String,
    },
    /// It was closed.
    Closed,
}

/// Bounds and sizes; [`Default`] gives the constants of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalOptions {
    /// See [`FILE_BYTES_MAX`].
    pub file_bytes_max: u64,
    /// See [`PLACES_MAX`].
    pub places_max: usize,
    /// See [`ADMIT_BACKLOG_MAX`].
    pub admit_backlog_max: usize,
    /// See [`ADMIT_LAG_MAX_MS`].
    pub admit_lag_max_ms: u64,
    /// See [`BALLAST_BYTES`].
    pub ballast_bytes: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            file_bytes_max: FILE_BYTES_MAX,
            places_max: PLACES_MAX,
            admit_backlog_max: ADMIT_BACKLOG_MAX,
            admit_lag_max_ms: ADMIT_LAG_MAX_MS,
            ballast_bytes: BALLAST_BYTES,
        }
    }
}

/// What [`Journal::open`] found and began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The new epoch.
    pub epoch: i64,
    /// The last record of all epochs before; none in a new journal. Calls still open there ended in a crash.
    pub previous: Option<Position>,
}

/// The journal of this node, to write. Clones share it; the last one that goes closes it.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    position: watch::Receiver<Position>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    epoch: i64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn close(&self) {
        self.shared.lock().stopping = true;
        self.shared.wake.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // A `notify` that held the last clone closes from the writer's thread: it cannot wait for itself.
        let current = std::thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != current) {
            if thread.join().is_err() {
                tracing::error!("a thread of the journal ended with a panic");
            }
        }
    }
}

struct Entry {
    at: Timestamp,
    since: Instant,
    kind: &'static str,
    body: Vec<u8>,
    notify: Option<Notify>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Entry>,
    /// Records of the commit that runs, and since when the oldest of them waits.
    in_flight: usize,
    in_flight_since: Option<Instant>,
    reserved: usize,
    failing: Option<(Timestamp, String)>,
    refused_at: Option<Timestamp>,
    ballast_gone_at: Option<Timestamp>,
    stopping: bool,
    stopped: bool,
    page_limit: Option<u32>,
}

impl State {
    fn backlog(&self) -> usize {
        self.queue.len() + self.in_flight
    }

    fn taken(&self) -> usize {
        self.backlog() + self.reserved
    }

    fn oldest(&self) -> Option<Instant> {
        self.in_flight_since.or_else(|| self.queue.front().map(|entry| entry.since))
    }
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    clock: Arc<dyn Clock>,
    options: JournalOptions,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called before the lock is taken: all shards and the writer share it.
    fn entry(&self, fact: &Fact, notify: Option<Notify>) -> Entry {
        let now = self.clock.now();
        Entry { at: now.utc, since: now.mono, kind: fact.kind(), body: fact.to_bytes(), notify }
    }

    fn push(&self, state: &mut State, entry: Entry) {
        state.queue.push_back(entry);
        self.wake.notify_all();
    }

    fn lag_ms(&self, state: &State) -> u64 {
        let waited = state.oldest().map(|since| self.clock.now().mono.saturating_duration_since(since));
        waited.map_or(0, |waited| u64::try_from(waited.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Journal {
    /// Opens the journal below `dir` and begins a new epoch, whose first record says when and with which `version`
    /// of the program. That record is on the disk when this returns.
    ///
    /// # Errors
    /// When the folder cannot be used, or another process does.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>, version: &str) -> Result<(Self, Opened), JournalError> {
        Self::open_with(dir, clock, version, JournalOptions::default())
    }

    /// As [`Journal::open`], with other bounds.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_with(
        dir: &Path,
        clock: Arc<dyn Clock>,
        version: &str,
        options: JournalOptions,
    ) -> Result<(Self, Opened), JournalError> {
        let shared = Arc::new(Shared { state: Mutex::new(State::default()), wake: Condvar::new(), clock, options });
        let (started, opened) = writer::start(&dir.join(FOLDER), &shared, version)?;
        let inner =
            Inner { shared, position: started.position, threads: Mutex::new(started.threads), epoch: opened.epoch };
        Ok((Self { inner: Arc::new(inner) }, opened))
    }

    /// The epoch of this start.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.inner.epoch
    }

    /// Queues a record. `notify` hears whether it reached the disk; who passes one decides what happens otherwise.
    ///
    /// # Errors
    /// When the queue is full; `notify` is dropped unheard then.
    pub fn append(&self, fact: &Fact, notify: Option<Notify>) -> Result<(), JournalFull> {
        self.push(self.inner.shared.entry(fact, notify))
    }

    fn push(&self, entry: Entry) -> Result<(), JournalFull> {
        let shared = &self.inner.shared;
        let mut state = shared.lock();
        if state.stopping || state.stopped || state.taken() >= shared.options.places_max {
            return Err(JournalFull);
        }
        shared.push(&mut state, entry);
        Ok(())
    }

    /// Admits a call: keeps places for its answer and its end.
    ///
    /// # Errors
    /// When the journal does not keep up or its disk fails: the call gets 503.
    pub fn reserve(&self) -> Result<Places, JournalFull> {
        let shared = &self.inner.shared;
        let mut state = shared.lock();
        let behind = state.backlog() >= shared.options.admit_backlog_max
            || shared.lag_ms(&state) > shared.options.admit_lag_max_ms
            || state.taken() + PLACES_PER_CALL > shared.options.places_max;
        if behind || state.failing.is_some() || state.stopping || state.stopped {
            state.refused_at = Some(shared.clock.now().utc);
            return Err(JournalFull);
        }
        state.reserved += PLACES_PER_CALL;
        drop(state);
        Ok(Places { journal: self.clone(), left: PLACES_PER_CALL })
    }

    /// How it is doing.
    #[must_use]
    pub fn health(&self) -> Health {
        let state = self.inner.shared.lock();
        match &state.failing {
            _ if state.stopped => Health::Closed,
            Some((since, error)) => Health::Failing { since: *since, error: error.clone() },
            None => Health::Good,
        }
    }

    /// When a call was last refused for want of the journal.
    #[must_use]
    pub fn refused_at(&self) -> Option<Timestamp> {
        self.inner.shared.lock().refused_at
    }

    /// Since when the ballast file is missing: its space was needed, or is not there. The disk counts as full until it
    /// is made again.
    #[must_use]
    pub fn ballast_gone_at(&self) -> Option<Timestamp> {
        self.inner.shared.lock().ballast_gone_at
    }

    /// Records that wait for the disk.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.inner.shared.lock().backlog()
    }

    /// How long the oldest of them waits, milliseconds.
    #[must_use]
    pub fn lag_ms(&self) -> u64 {
        let state = self.inner.shared.lock();
        self.inner.shared.lag_ms(&state)
    }

    /// The last record on the disk, as it moves.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        self.inner.position.clone()
    }

    /// Writes what waits and closes the files. Blocks until that is done.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Makes the disk "full" at so many pages of the current file, for drills and tests; `None` lifts it.
    #[doc(hidden)]
    pub fn limit_pages(&self, pages: Option<u32>) {
        self.inner.shared.lock().page_limit = pages;
    }
}

/// Reserved places of one admitted call. What is left is given back on drop.
#[derive(Debug)]
pub struct Places {
    journal: Journal,
    left: usize,
}

impl Places {
    /// Queues a record of the call; never refused while places are left. Beyond them it is an [`Journal::append`].
    /// On a closed journal `notify` hears `false`.
    ///
    /// # Errors
    /// When no place is left and the queue is full, or the journal was closed.
    pub fn append(&mut self, fact: &Fact, notify: Option<Notify>) -> Result<(), JournalFull> {
        let shared = &self.journal.inner.shared;
        let entry = shared.entry(fact, notify);
        if self.left == 0 {
            return self.journal.push(entry);
        }
        let mut state = shared.lock();
        if state.stopping || state.stopped {
            drop(state);
            if let Some(notify) = entry.notify {
                notify(false);
            }
            return Err(JournalFull);
        }
        self.left -= 1;
        state.reserved -= 1;
        shared.push(&mut state, entry);
        Ok(())
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.journal.inner.shared.lock().reserved -= self.left;
    }
}
