//! An installation from a copy. Everything is verified and put beside its place first; the key file comes last, since
//! no daemon starts without it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use billing::port::Queries as _;
use db::DbError;
use db::journal::{JournalReader, ReadError};
use model::page::PageRequest;

use super::{
    Manifest, ManifestError, POSTGRES_STORE, SQLITE_STORE, ToolError, copy_file, folders, make_private, postgres, sync,
};
use crate::cli::Local;
use crate::config::Config;
use crate::data_dir::DataDirError;

/// Where the copy is put together, in the data directory.
const PART: &str = "restore.part";

/// Why nothing was restored, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The copy is damaged.
    #[error("the backup cannot be used; nothing was changed")]
    Manifest(#[from] ManifestError),
    /// The copy is of the other engine.
    #[error("the backup holds {found}, and the configuration wants {wanted}: set database.url as it was")]
    Engine {
        /// The file of the store.
        found: String,
        /// That of the configuration.
        wanted: &'static str,
    },
    /// A daemon runs, or the directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is an installation already.
    #[error("{} is not empty (it holds {found}); restore into an empty directory", path.display())]
    NotEmpty {
        /// The data directory.
        path: PathBuf,
        /// One thing in it.
        found: String,
    },
    /// There are tables already.
    #[error("the database is not empty; restore into a new one")]
    DatabaseNotEmpty,
    /// The file system refused.
    #[error("{} cannot be used", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// PostgreSQL's tools.
    #[error("the store cannot be restored")]
    Tool(#[from] ToolError),
    /// The store does not answer.
    #[error("the store cannot be used")]
    Store(#[from] DbError),
    /// The journal of the copy.
    #[error("the restored journal cannot be read")]
    Journal(#[from] ReadError),
    /// What was restored does not fit together.
    #[error("the restored installation cannot be opened: {0}")]
    Open(String),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io { path, source }
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The copy.
    pub manifest: Manifest,
    /// Records of the journal.
    pub records: u64,
    /// Billing files that were rendered again.
    pub billing_files: usize,
}

/// Makes the installation that the configuration names from the copy in `from`: its data directory must hold nothing,
/// and its database no table.
///
/// # Errors
/// [`RestoreError`]. Until the whole copy was verified nothing is changed; what fails later leaves no key file behind,
/// so that no daemon starts on half an installation.
pub async fn restore(config: &Config, from: &Path) -> Result<Restored, RestoreError> {
    let data = config.node.data_dir.clone();
    let _lock = crate::data_dir::lock(&data)?;
    empty(&data)?;
    let wanted = if config.database.url.is_empty() { SQLITE_STORE } else { POSTGRES_STORE };
    let copy = from.to_owned();
    let manifest = blocking(move || Ok(Manifest::verify(&copy)?)).await?;
    if manifest.store != wanted {
        return Err(RestoreError::Engine { found: manifest.store, wanted });
    }
    if !config.database.url.is_empty() {
        let target = crate::storage::connect(config).await?;
        let blank = target.is_blank().await;
        target.close().await;
        if !blank? {
            return Err(RestoreError::DatabaseNotEmpty);
        }
    }
    let key = crate::storage::key_file(config).file_name().unwrap_or_default().to_owned();
    let (copy, listed, url) = (from.to_owned(), manifest.clone(), config.database.url.clone());
    blocking(move || place(&copy, &data, &listed, &url, &key)).await?;
    let (records, billing_files) = prove(config).await?;
    Ok(Restored { manifest, records, billing_files })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|ended| Err(RestoreError::Open(ended.to_string())))
}

/// Whether the data directory holds nothing but its lock, and what an interrupted restore left.
fn empty(data: &Path) -> Result<(), RestoreError> {
    for entry in fs::read_dir(data).map_err(at(data))? {
        let name = entry.map_err(at(data))?.file_name();
        if name == PART {
            let left = data.join(PART);
            fs::remove_dir_all(&left).map_err(at(&left))?;
        } else if name != crate::data_dir::LOCK_FILE {
            return Err(RestoreError::NotEmpty { path: data.to_owned(), found: name.display().to_string() });
        }
    }
    Ok(())
}

fn place(from: &Path, data: &Path, manifest: &Manifest, url: &str, key: &OsStr) -> Result<(), RestoreError> {
    let part = data.join(PART);
    make_private(&part).map_err(at(&part))?;
    for entry in manifest.files.iter().filter(|entry| entry.path != POSTGRES_STORE) {
        let (source, target) = (from.join(&entry.path), part.join(&entry.path));
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(at(folder))?;
        }
        copy_file(&source, &target).map_err(at(&source))?;
    }
    for folder in folders(&part).map_err(at(&part))? {
        sync(&folder).map_err(at(&folder))?;
    }
    if manifest.store == POSTGRES_STORE {
        postgres::load(url, &from.join(POSTGRES_STORE))?;
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&part).map_err(at(&part))? {
        names.push(entry.map_err(at(&part))?.file_name());
    }
    names.sort_by_key(|name| name == key);
    for name in names {
        let target = data.join(&name);
        fs::rename(part.join(&name), &target).map_err(at(&target))?;
    }
    fs::remove_dir(&part).map_err(at(&part))?;
    sync(data).map_err(at(data))
}

/// Opens what was restored as a daemon would: key and store fit, the journal is whole, no cursor stands beyond it; and
/// renders the billing files again.
async fn prove(config: &Config) -> Result<(u64, usize), RestoreError> {
    let open = |error: &dyn std::fmt::Display| RestoreError::Open(error.to_string());
    let local = Local::open(config).await.map_err(|error| open(&error))?;
    let reader = JournalReader::open(&config.node.data_dir);
    let whole = reader.clone();
    let report = blocking(move || Ok(whole.verify()?)).await?;
    for (_, cursor) in db::cursor::list(&local.store, &db::cursor::journal_source(&config.node.name)).await? {
        // An error says that the cursor is ahead, or that records between are missing.
        reader.next(cursor, 1).await?;
    }
    let system = local.system().await.map_err(|error| open(&error))?;
    let billing = local.billing(config).await.map_err(|error| open(&error))?;
    let (mut streams, mut rendered) = (PageRequest::default(), 0);
    loop {
        let page = billing.stream_list(&system, None, streams.clone()).await.map_err(|error| open(&error))?;
        for (_, stream) in &page.items {
            let mut files = PageRequest::default();
            loop {
                let listed =
                    billing.file_list(&system, stream.id, files.clone()).await.map_err(|error| open(&error))?;
                for (_, file) in listed.items.iter().filter(|(_, file)| file.published) {
                    billing.restore(file.id).await.map_err(|error| open(&error))?;
                    rendered += 1;
                }
                match listed.items.last() {
                    Some((cursor, _)) if listed.has_next => files.after = Some(cursor.clone()),
                    _ => break,
                }
            }
        }
        match page.items.last() {
            Some((cursor, _)) if page.has_next => streams.after = Some(cursor.clone()),
            _ => break,
        }
    }
    local.store.close().await;
    Ok((report.records, rendered))
}
