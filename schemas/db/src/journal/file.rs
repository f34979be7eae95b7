//! Names and shape of the journal's files.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::JournalError;

/// `user_version` of the files: another shape gets another number.
pub(super) const FORMAT: i32 = 1;
const SUFFIX: &str = ".journal";

/// A file: its epoch and the sequence of its first record. Their order is the order of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileName {
    pub epoch: i64,
    pub first: i64,
}

impl FileName {
    pub fn path(self, folder: &Path) -> PathBuf {
        folder.join(format!("{:010}-{:019}{SUFFIX}", self.epoch, self.first))
    }

    fn parse(name: &str) -> Option<Self> {
        let (epoch, first) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        Some(Self { epoch: epoch.parse().ok()?, first: first.parse().ok()? })
    }

    /// Deletes the file and what SQLite keeps beside it.
    pub fn delete(self, folder: &Path) -> std::io::Result<()> {
        let path = self.path(folder);
        for suffix in ["-wal", "-shm"] {
            let mut beside = path.clone().into_os_string();
            beside.push(suffix);
            match std::fs::remove_file(beside) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::remove_file(path)
    }
}

/// The files in order.
pub(super) fn list(folder: &Path) -> std::io::Result<Vec<FileName>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        files.extend(entry?.file_name().to_str().and_then(FileName::parse));
    }
    files.sort();
    Ok(files)
}

/// Makes a file to write.
pub(super) fn create(folder: &Path, name: FileName) -> Result<Connection, JournalError> {
    let path = name.path(folder);
    let make = || {
        let connection = Connection::open(&path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A commit that was told `true` is on the disk.
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Checkpoints run on a thread of their own: none in the way of a commit.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "user_version", FORMAT)?;
        connection.execute_batch(
            "CREATE TABLE record (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL) \
             STRICT",
        )?;
        Ok(connection)
    };
    let connection = make().map_err(|source| JournalError::Sqlite { path: path.clone(), source })?;
    // The names of the new files must outlive a crash as their content does.
    sync_folder(folder)?;
    Ok(connection)
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), JournalError> {
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| JournalError::Io { path: folder.to_owned(), source })
}

/// Opens a file to read, whether or not it is being written. A crash between making the file and its first commit
/// leaves it without its table: none then.
pub(super) fn open_to_read(folder: &Path, name: FileName) -> rusqlite::Result<Option<Connection>> {
    // Not read-only: SQLite has to map the index of the write-ahead log, and to recover the log after a crash.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(name.path(folder), flags)?;
    connection.pragma_update(None, "query_only", true)?;
    let tables: i64 =
        connection.query_row("SELECT COUNT(*) FROM sqlite_schema WHERE name = 'record'", [], |row| row.get(0))?;
    Ok((tables == 1).then_some(connection))
}

/// The last sequence in a file and the time of its record.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<Option<(i64, i64)>> {
    use rusqlite::OptionalExtension as _;
    let sql = "SELECT seq, at FROM record ORDER BY seq DESC LIMIT 1";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_records_do() {
        let names = [(1, 1), (1, 900_000), (2, 1), (10, 1)].map(|(epoch, first)| FileName { epoch, first });
        let texts = names.map(|name| name.path(Path::new("")).to_string_lossy().into_owned());
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(texts.each_ref().map(|text| FileName::parse(text)), names.map(Some));
        assert_eq!(FileName::parse("0000000001-0000000000000000001.journal-wal"), None);
    }
}
