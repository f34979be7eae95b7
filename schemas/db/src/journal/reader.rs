//! Reading the journal, while it is written or after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use model::event::fact::Fact;
use model::time::Timestamp;
use rusqlite::{Connection, params};

use super::FOLDER;
use super::file::{self, FileName};
use crate::cursor::Position;

/// Most records of one read: a batch whose effects fit a short transaction.
pub const READ_MAX: usize = 10_000;
/// Records of one step of [`JournalReader::verify`].
const VERIFY_STEP: usize = 2_000;

const READ: &str = "SELECT seq, at, kind, body FROM record WHERE seq > ?1 ORDER BY seq LIMIT ?2";

/// A record with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Epoch and sequence.
    pub position: Position,
    /// When it was queued.
    pub at: Timestamp,
    /// Its kind, as stored.
    pub kind: String,
    /// Its octets, as stored: what conflicts are compared by.
    pub body: Vec<u8>,
    /// What they say.
    pub fact: Fact,
}

/// Why a journal could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system refused.
    #[error("the journal folder {} cannot be read", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("the journal file {} cannot be read", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Records are missing.
    #[error("records are missing in the journal: {found} follows {after}")]
    Gap {
        /// The last record that was read.
        after: Position,
        /// The next one that is there.
        found: Position,
    },
    /// The cursor is beyond the end of the journal: that is older than the store, as after a restore, or a new one under
    /// the name of a node that lost its own.
    #[error(
        "the cursor {cursor} is beyond the end of the journal at {end}: restore journal and store of one time, or, if the \
         node has lost its data directory, give it a name that no node had (node.name)"
    )]
    Ahead {
        /// The cursor.
        cursor: Position,
        /// The last record of its epoch, or a record of the last epoch there is.
        end: Position,
    },
    /// The next record is of a kind or shape that this version of the program does not know. The consumer stops
    /// before it: skipping would lose its effects.
    #[error("record {position} of kind {kind} is not understood: {detail}")]
    Unreadable {
        /// Its place.
        position: Position,
        /// Its kind, as stored.
        kind: String,
        /// What the decoder says.
        detail: String,
    },
    /// The task that read was ended, as at shutdown.
    #[error("the read was ended")]
    Ended,
}

/// What [`JournalReader::stat`] shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalStat {
    /// Files.
    pub files: usize,
    /// Their size with the write-ahead logs.
    pub bytes: u64,
    /// Epochs that have a file.
    pub epochs: usize,
    /// The first record that is kept.
    pub first: Option<Position>,
    /// The last one.
    pub last: Option<Position>,
}

/// What [`JournalReader::verify`] found: all there, all understood.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JournalReport {
    /// Epochs that have records.
    pub epochs: usize,
    /// Records.
    pub records: u64,
    /// Records per kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// The first record.
    pub first: Option<Position>,
    /// The last record.
    pub last: Option<Position>,
}

/// Reads a journal, also while another thread or process writes it. Clones share one open file.
#[derive(Debug, Clone)]
pub struct JournalReader {
    folder: PathBuf,
    open: Arc<Mutex<Option<(FileName, Connection)>>>,
}

impl JournalReader {
    /// A reader of the journal below `dir`, the data directory; nothing is opened yet.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        Self { folder: dir.join(FOLDER), open: Arc::new(Mutex::new(None)) }
    }

    /// Reads at most `limit` (and [`READ_MAX`]) records after `after`, across files and epochs, in order. From
    /// [`Position::START`] it begins with the oldest record that is kept. Blocks; see [`JournalReader::next`].
    ///
    /// # Errors
    /// When the very next record is missing or not understood; a later one ends the batch before it.
    pub fn read_after(&self, after: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        let limit = limit.min(READ_MAX);
        let files = list(&self.folder)?;
        let mut records: Vec<Record> = Vec::new();
        let mut at = after;
        for (index, file) in files.iter().enumerate() {
            let next = files.get(index + 1).filter(|next| next.epoch == file.epoch);
            let is_past = file.epoch < at.epoch
                || (file.epoch == at.epoch && next.is_some_and(|next| next.first <= at.sequence + 1));
            if is_past {
                continue;
            }
            if at != Position::START && file.epoch > at.epoch + 1 {
                let found = Position::new(file.epoch, file.first);
                return if records.is_empty() { Err(ReadError::Gap { after: at, found }) } else { Ok(records) };
            }
            match self.read_file(*file, &mut at, limit, &mut records) {
                Ok(()) if records.len() >= limit => break,
                Ok(()) => {}
                Err(_) if !records.is_empty() => break,
                Err(error) => return Err(error),
            }
            // An epoch without records was passed: the next one follows it.
            if at != Position::START && at.epoch < file.epoch {
                at = Position::new(file.epoch, 0);
            }
        }
        // Each epoch has a file, if only for its first record.
        if let Some(last) = files.last().filter(|last| last.epoch < after.epoch) {
            return Err(ReadError::Ahead { cursor: after, end: Position::new(last.epoch, last.first) });
        }
        Ok(records)
    }

    /// As [`JournalReader::read_after`], off the caller's task.
    ///
    /// # Errors
    /// As [`JournalReader::read_after`].
    pub async fn next(&self, after: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        let reader = self.clone();
        let read = tokio::task::spawn_blocking(move || reader.read_after(after, limit));
        read.await.unwrap_or(Err(ReadError::Ended))
    }

    fn read_file(
        &self,
        name: FileName,
        at: &mut Position,
        limit: usize,
        records: &mut Vec<Record>,
    ) -> Result<(), ReadError> {
        let sqlite = |source| ReadError::Sqlite { path: name.path(&self.folder), source };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_none_or(|(current, _)| *current != name) {
            *open = file::open_to_read(&self.folder, name).map_err(sqlite)?.map(|connection| (name, connection));
        }
        let Some((_, connection)) = &*open else { return Ok(()) };
        let from = if name.epoch == at.epoch { at.sequence } else { 0 };
        let left = i64::try_from(limit - records.len()).unwrap_or(i64::MAX);
        let mut statement = connection.prepare_cached(READ).map_err(sqlite)?;
        let mut rows = statement.query(params![from, left]).map_err(sqlite)?;
        let mut is_empty = true;
        while let Some(row) = rows.next().map_err(sqlite)? {
            is_empty = false;
            let position = Position::new(name.epoch, row.get(0).map_err(sqlite)?);
            let follows = if name.epoch == at.epoch { at.sequence + 1 } else { 1 };
            if *at != Position::START && position.sequence != follows {
                return Err(ReadError::Gap { after: *at, found: position });
            }
            let (kind, body): (String, Vec<u8>) = (row.get(2).map_err(sqlite)?, row.get(3).map_err(sqlite)?);
            let fact = match Fact::from_bytes(&body) {
                Ok(fact) if fact.kind() == kind => fact,
                Ok(fact) => {
                    let detail = format!("its octets are a record of kind {}", fact.kind());
                    return Err(ReadError::Unreadable { position, kind, detail });
                }
                Err(error) => return Err(ReadError::Unreadable { position, kind, detail: error.to_string() }),
            };
            records.push(Record { position, at: Timestamp(row.get(1).map_err(sqlite)?), kind, body, fact });
            *at = position;
        }
        if is_empty && from > 0 {
            let end = file::last(connection).map_err(sqlite)?.map_or(name.first - 1, |(sequence, _)| sequence);
            if end < from {
                return Err(ReadError::Ahead { cursor: *at, end: Position::new(name.epoch, end) });
            }
        }
        Ok(())
    }

    /// Reads everything: dense, decodable.
    ///
    /// # Errors
    /// The first place that is not.
    pub fn verify(&self) -> Result<JournalReport, ReadError> {
        self.verify_with(|_| {})
    }

    /// As [`JournalReader::verify`]; `progress` is told now and then what was read so far, and before an error too.
    ///
    /// # Errors
    /// As [`JournalReader::verify`].
    pub fn verify_with(&self, mut progress: impl FnMut(&JournalReport)) -> Result<JournalReport, ReadError> {
        let mut report = JournalReport::default();
        let mut epochs = BTreeSet::new();
        let mut at = Position::START;
        loop {
            let records = self.read_after(at, VERIFY_STEP)?;
            let Some(last) = records.last() else { break };
            at = last.position;
            report.first = report.first.or_else(|| records.first().map(|record| record.position));
            for record in &records {
                report.records += 1;
                *report.kinds.entry(record.fact.kind()).or_default() += 1;
                epochs.insert(record.position.epoch);
            }
            report.last = Some(at);
            report.epochs = epochs.len();
            progress(&report);
        }
        Ok(report)
    }

    /// Sizes and ends.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn stat(&self) -> Result<JournalStat, ReadError> {
        let files = list(&self.folder)?;
        let size = |path: PathBuf| std::fs::metadata(path).map_or(0, |data| data.len());
        let bytes = files.iter().map(|file| {
            let path = file.path(&self.folder);
            let mut log = path.clone().into_os_string();
            log.push("-wal");
            size(path) + size(log.into())
        });
        let bytes = bytes.sum();
        let first = self.read_after(Position::START, 1)?.first().map(|record| record.position);
        let epochs = files.iter().map(|file| file.epoch).collect::<BTreeSet<_>>().len();
        Ok(JournalStat { files: files.len(), bytes, epochs, first, last: last_position(&self.folder, &files)? })
    }

    /// Records after `position`: what a consumer that stands there has still to read. They are dense, so only the ends
    /// of the files are looked at.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn count_after(&self, position: Position) -> Result<u64, ReadError> {
        let mut count = 0;
        for file in list(&self.folder)?.into_iter().filter(|file| file.epoch >= position.epoch) {
            let Some((last, _)) = last_of(&self.folder, file)? else { continue };
            let read = if file.epoch == position.epoch { position.sequence } else { 0 };
            count += u64::try_from(last - read.max(file.first - 1)).unwrap_or(0);
        }
        Ok(count)
    }
}

fn list(folder: &Path) -> Result<Vec<FileName>, ReadError> {
    match file::list(folder) {
        Ok(files) => Ok(files),
        // Nothing was written yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(ReadError::Io { path: folder.to_owned(), source }),
    }
}

/// The last record of all.
pub(super) fn last_position(folder: &Path, files: &[FileName]) -> Result<Option<Position>, ReadError> {
    for file in files.iter().rev() {
        if let Some((sequence, _)) = last_of(folder, *file)? {
            return Ok(Some(Position::new(file.epoch, sequence)));
        }
    }
    Ok(None)
}

fn last_of(folder: &Path, name: FileName) -> Result<Option<(i64, i64)>, ReadError> {
    let sqlite = |source| ReadError::Sqlite { path: name.path(folder), source };
    match file::open_to_read(folder, name).map_err(sqlite)? {
        Some(connection) => file::last(&connection).map_err(sqlite),
        None => Ok(None),
    }
}

/// Deletes whole files of the journal below `dir` whose records all lie at or before `before`, the cursor of the
/// slowest consumer, and are older than `older_than`. The newest file stays: it names the epoch. Gives how many went.
///
/// # Errors
/// When a file cannot be read or deleted.
pub fn prune(dir: &Path, before: Position, older_than: Timestamp) -> Result<usize, ReadError> {
    let folder = dir.join(FOLDER);
    let files = list(&folder)?;
    let mut deleted = 0;
    for file in files.iter().take(files.len().saturating_sub(1)) {
        let is_done = match last_of(&folder, *file)? {
            Some((sequence, at)) => Position::new(file.epoch, sequence) <= before && Timestamp(at) < older_than,
            None => file.epoch < before.epoch,
        };
        // In order, so that what is kept has no hole.
        if !is_done {
            break;
        }
        file.delete(&folder).map_err(|source| ReadError::Io { path: file.path(&folder), source })?;
        deleted += 1;
    }
    Ok(deleted)
}
