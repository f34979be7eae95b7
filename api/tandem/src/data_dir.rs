//! The data directory: one node at a time works in it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the lock file.
pub(crate) const LOCK_FILE: &str = "tandem.lock";
/// How often a daemon that starts asks for a directory that another one holds: for five seconds.
const ASKS_MAX: u32 = 100;
/// The time between two of them.
const ASK_PERIOD: Duration = Duration::from_millis(50);

/// A data directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system refused.
    #[error("the data directory {} cannot be used: {source}; check that it exists or can be made, and who owns it", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another daemon works in it.
    #[error("another tandem daemon works in {} (process {holder}); stop it, or give this one a directory of its own (node.data_dir)", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
        /// The process id that the other wrote, as text.
        holder: String,
    },
}

/// Holds the directory as long as it lives; the system gives it back even after a kill.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

/// Makes the directory when it is missing, readable for its owner alone.
///
/// # Errors
/// When the system refuses.
pub fn create(path: &Path) -> Result<(), DataDirError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| DataDirError::Io { path: path.to_owned(), source })
}

/// Takes the directory for this process.
///
/// # Errors
/// [`DataDirError::InUse`] when another daemon holds it.
pub fn lock(path: &Path) -> Result<DataDirLock, DataDirError> {
    create(path)?;
    let io = |source| DataDirError::Io { path: path.to_owned(), source };
    let file_path = path.join(LOCK_FILE);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file_path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(&file_path).unwrap_or_default().trim().to_owned();
            return Err(DataDirError::InUse { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(DataDirLock { _file: file })
}

/// Takes the directory for this process as soon as a daemon that is ending has let go of it: a killed one holds it until
/// its last write to the disk is done, and whoever starts the next one cannot know when that is.
///
/// # Errors
/// [`DataDirError::InUse`] when another daemon goes on holding it.
pub async fn lock_when_free(path: &Path) -> Result<DataDirLock, DataDirError> {
    let mut period = tokio::time::interval(ASK_PERIOD);
    for _ in 1..ASKS_MAX {
        period.tick().await;
        match lock(path) {
            Err(DataDirError::InUse { .. }) => {}
            outcome => return outcome,
        }
    }
    lock(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("data");
        let first = lock(&path).expect("free");
        match lock(&path) {
            Err(DataDirError::InUse { holder, .. }) => assert_eq!(holder, std::process::id().to_string()),
            other => panic!("{other:?}"),
        }
        drop(first);
        lock(&path).expect("free again");
    }

    #[tokio::test]
    async fn a_start_waits_for_a_daemon_that_is_ending() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ending = lock(dir.path()).expect("free");
        let mut next = std::pin::pin!(lock_when_free(dir.path()));
        let asked = tokio::time::timeout(ASK_PERIOD * 3, &mut next).await;
        assert!(asked.is_err(), "it waits");
        drop(ending);
        next.await.expect("it has the directory now");
    }
}
