//! Copies of SQLite files while they are written: each is one snapshot, whole and without a write-ahead log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::journal;

/// How long a copy waits for a checkpoint that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a file could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The file system refused.
    #[error("{} cannot be copied", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("{} cannot be copied", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

/// Copies the database `from` as it is at one moment into the new file `to`, and waits until that is on the disk.
/// Writers go on meanwhile. Blocks.
///
/// # Errors
/// [`CopyError`]; also when `to` is there already.
pub fn copy_sqlite(from: &Path, to: &Path) -> Result<(), CopyError> {
    let refused = |source| CopyError::Sqlite { path: from.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(from, flags).map_err(refused)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(refused)?;
    let target = to.to_str().ok_or_else(|| refused(rusqlite::Error::InvalidPath(to.to_owned())))?;
    connection.execute("VACUUM INTO ?1", [target]).map_err(refused)?;
    File::open(to).and_then(|file| file.sync_all()).map_err(|source| CopyError::Io { path: to.to_owned(), source })
}

/// Copies the journal below the data directory `dir` into the folder `to`, which must be there: a dense run of records
/// up to some moment after the call began. Gives the names of the files. Blocks.
///
/// # Errors
/// [`CopyError`].
pub fn copy_journal(dir: &Path, to: &Path) -> Result<Vec<String>, CopyError> {
    let folder = dir.join(journal::FOLDER);
    let mut copied = Vec::new();
    for name in journal::file_names(&folder).map_err(|source| CopyError::Io { path: folder.clone(), source })? {
        match copy_sqlite(&folder.join(&name), &to.join(&name)) {
            Ok(()) => copied.push(name),
            // The oldest files may be pruned meanwhile: every consumer has read them.
            Err(_) if copied.is_empty() && !folder.join(&name).exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(copied)
}
