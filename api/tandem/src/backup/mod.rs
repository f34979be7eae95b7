//! A copy of an installation while it works, and an installation from a copy.
//!
//! Order is what makes the copy consistent: first the store, then the node's database, the journal last. So no cursor
//! stands beyond the end of the copied journal, and no alarm in the store is newer than the node's. Billing files are
//! not copied: they are rendered again from the store, with the same bytes.

mod manifest;
mod postgres;
mod restore;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use model::time::Timestamp;

use crate::config::Config;
pub use manifest::{Manifest, ManifestError};
pub use postgres::ToolError;
pub use restore::{RestoreError, Restored, restore};

/// The store of SQLite, and the dump of PostgreSQL, in a copy.
const SQLITE_STORE: &str = "store.db";
const POSTGRES_STORE: &str = "store.pgdump";
const REPORTS: &str = "reports";

/// Why no copy was made. What was begun lies in a directory whose name ends in `.part`.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something already.
    #[error("{} is there already; name a new directory, or remove what an interrupted backup left", .0.display())]
    Exists(PathBuf),
    /// There is nothing to copy.
    #[error("{} holds no installation; check node.data_dir", .0.display())]
    Nothing(PathBuf),
    /// The file system refused.
    #[error("{} cannot be used", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A database of SQLite.
    #[error("a database cannot be copied")]
    Copy(#[from] db::backup::CopyError),
    /// PostgreSQL.
    #[error("the store cannot be copied")]
    Tool(#[from] ToolError),
    /// The manifest.
    #[error("the manifest cannot be written")]
    Manifest(#[from] ManifestError),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { path, source }
}

/// Copies the installation into the new directory `to`; the daemon may run. Blocks.
///
/// # Errors
/// [`BackupError`]; `to` is not there then.
pub fn backup(config: &Config, to: &Path, now: Timestamp) -> Result<Manifest, BackupError> {
    let data = &config.node.data_dir;
    let mut name = to.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    for path in [to, &part] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(BackupError::Exists(path.to_owned()));
        }
    }
    let key = crate::storage::key_file(config);
    if !key.is_file() {
        return Err(BackupError::Nothing(data.clone()));
    }
    make_private(&part).map_err(at(&part))?;
    let store = if config.database.url.is_empty() {
        db::backup::copy_sqlite(&data.join(SQLITE_STORE), &part.join(SQLITE_STORE))?;
        SQLITE_STORE
    } else {
        postgres::dump(&config.database.url, &part.join(POSTGRES_STORE))?;
        POSTGRES_STORE
    };
    if data.join(db::node::FILE).is_file() {
        db::backup::copy_sqlite(&data.join(db::node::FILE), &part.join(db::node::FILE))?;
    }
    let journal = part.join(db::journal::FOLDER);
    make_private(&journal).map_err(at(&journal))?;
    db::backup::copy_journal(data, &journal)?;
    copy_tree(&config.reports_dir(), &part.join(REPORTS))?;
    copy_file(&key, &part.join(key.file_name().unwrap_or_default())).map_err(at(&key))?;

    let manifest = Manifest::of(&part, store, now)?;
    manifest.write(&part)?;
    for folder in folders(&part).map_err(at(&part))? {
        sync(&folder).map_err(at(&folder))?;
    }
    fs::rename(&part, to).map_err(at(to))?;
    // The name of the copy, too, must outlive a crash.
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync(parent).map_err(at(parent))?;
    Ok(manifest)
}

fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Copies octets and mode, and waits until they are on the disk.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

/// Copies a folder of finished files; one that is not there is empty. Files that are just being made are left out: they
/// bear other names until they are whole.
fn copy_tree(from: &Path, to: &Path) -> Result<(), BackupError> {
    if !from.is_dir() {
        return Ok(());
    }
    make_private(to).map_err(at(to))?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().map_err(at(&path))?.is_dir() {
            copy_tree(&path, &to.join(name))?;
        } else {
            match copy_file(&path, &to.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// A folder and all below it, the deepest first.
fn folders(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(folders(&entry.path())?);
        }
    }
    found.push(root.to_owned());
    Ok(found)
}
