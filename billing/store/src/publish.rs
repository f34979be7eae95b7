//! Closed files become bytes on disk: rendered from the committed items, `.part`, fsync, rename, fsync of the folder;
//! the file first, then its manifest, then the row. Whoever repeats it writes the same bytes under the same names.

use std::path::{Path, PathBuf};

use billing::file::{Closed, FORMAT_VERSION, Manifest, RenderError, Rendered, Renderer, manifest_name};
use billing::resource::BillingFile;
use db::{DbError, WriteError};
use model::id::{FileId, StreamId};
use model::tenancy::Scope;
use tokio::io::AsyncWriteExt as _;

use crate::stream::StreamState;
use crate::troubles::{self, Stage};
use crate::{BillingStore, file, stream};

/// Records of one page: a few megabytes.
const PAGE: i64 = 2_000;
/// Files of a stream in one round; the next round takes the rest.
const ROUND_MAX: i64 = 1_000;

/// Why a file was not published or restored.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The store failed.
    #[error("the billing file {file} cannot be read from the store")]
    Store {
        /// The file.
        file: FileId,
        /// Why.
        source: DbError,
    },
    /// The list of closed files cannot be read.
    #[error("the list of closed billing files cannot be read")]
    List(#[source] DbError),
    /// The disk refused.
    #[error("{} cannot be written", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes cannot be made.
    #[error("the billing file {file} cannot be rendered")]
    Render {
        /// The file.
        file: FileId,
        /// Why.
        source: RenderError,
    },
    /// The file has the format of another version of the program.
    #[error("the billing file {file} has format {version}, which this program does not write")]
    Format {
        /// The file.
        file: FileId,
        /// Its format.
        version: i64,
    },
    /// The rows behind a file are no longer those that it was closed with. The bytes on disk, if any, were left alone:
    /// stop, and restore the store from a backup.
    #[error("the billing file {file} would not be what it was: {what} differs")]
    Differs {
        /// The file.
        file: FileId,
        /// What differs.
        what: &'static str,
    },
    /// The file before it in the stream is not published, so its hash is not known.
    #[error("the billing file {file} waits for the one before it")]
    Waits {
        /// The file.
        file: FileId,
    },
}

/// Where a file or its manifest lies.
pub(crate) fn path(files: &Path, file: &BillingFile, name: &str) -> PathBuf {
    files.join(file.stream.to_string()).join(name)
}

impl BillingStore {
    /// Publishes every closed file, each stream in the order of its sequence, at most [`ROUND_MAX`] of each. Two may call
    /// it at once, also on two nodes; after a crash it redoes what was not finished. Gives the files that it published.
    ///
    /// # Errors
    /// The first failure, after the other streams were served.
    pub async fn publish_planned(&self) -> Result<Vec<FileId>, PublishError> {
        let streams = file::streams_with_planned(&self.db).await.map_err(PublishError::List)?;
        self.failures.keep(Stage::Write, |stream| streams.contains(&stream));
        let (mut published, mut failure) = (Vec::new(), None);
        for stream in streams {
            match self.publish_stream(stream, &mut published).await {
                Ok(()) => self.failures.succeeded(Stage::Write, stream),
                Err(error) => {
                    self.failures.failed(Stage::Write, stream, self.clock.now().utc, troubles::why_not_written(&error));
                    failure = failure.or(Some(error));
                }
            }
        }
        failure.map_or(Ok(published), Err)
    }

    async fn publish_stream(&self, stream: StreamId, published: &mut Vec<FileId>) -> Result<(), PublishError> {
        let planned = file::planned(&self.db, stream, ROUND_MAX).await.map_err(PublishError::List)?;
        for id in planned {
            // Otherwise another publisher was faster.
            if self.publish(id).await? {
                published.push(id);
            }
        }
        Ok(())
    }

    async fn publish(&self, id: FileId) -> Result<bool, PublishError> {
        let (state, file, previous) = self.load(id).await?;
        if file.sequence > 1 && previous.is_none() {
            return Err(PublishError::Waits { file: id });
        }
        let rendered = match self.put(&state, &file, previous).await {
            Ok(rendered) => rendered,
            // Another publisher finished and cleaned up while this one wrote.
            Err(error) => {
                let (_, file, _) = self.load(id).await?;
                return if file.published { Ok(false) } else { Err(error) };
            }
        };
        let written = self.db.write::<bool, std::convert::Infallible, _>(move |tx| {
            let (size, sha256) = (rendered.size, rendered.sha256);
            Box::pin(async move { Ok(file::published(tx, id, size, sha256, previous).await?) })
        });
        let first = match written.await {
            Ok(first) => first,
            Err(WriteError::Db(source)) => return Err(PublishError::Store { file: id, source }),
            Err(WriteError::Refused(never)) => match never {},
        };
        self.sweep(&file).await;
        Ok(first)
    }

    /// Writes a published file and its manifest again, when they are missing or damaged on disk.
    ///
    /// # Errors
    /// [`PublishError::Differs`] when the rows no longer give the recorded hash; nothing was written then.
    pub async fn restore(&self, id: FileId) -> Result<(), PublishError> {
        let (state, file, previous) = self.load(id).await?;
        if !file.published {
            return Err(PublishError::Waits { file: id });
        }
        if previous.map(hex::encode) != file.previous_sha256 {
            return Err(PublishError::Differs { file: id, what: "the hash of the file before" });
        }
        self.put(&state, &file, previous).await?;
        tracing::warn!(file.name = %file.name, "a published billing file was missing on disk and was written again");
        Ok(())
    }

    /// The file with its stream and the hash of the file before it.
    async fn load(&self, id: FileId) -> Result<(StreamState, BillingFile, Option<[u8; 32]>), PublishError> {
        let loaded = self.db.read::<_, DbError, _>(move |tx| {
            Box::pin(async move {
                let scope = Scope::installation();
                let missing = || DbError::corrupt("billing_file.id", id);
                let file = file::get(tx, &scope, id).await?.ok_or_else(missing)?;
                let state = stream::get(tx, &scope, file.stream).await?.ok_or_else(missing)?;
                let previous = file::hash_of(tx, file.stream, file.sequence - 1).await?;
                Ok((state, file, previous))
            })
        });
        loaded.await.map_err(|source| PublishError::Store { file: id, source })
    }

    /// Renders file and manifest and puts both under their final names.
    pub(crate) async fn put(
        &self,
        state: &StreamState,
        file: &BillingFile,
        previous: Option<[u8; 32]>,
    ) -> Result<Rendered, PublishError> {
        let folder = self.files.join(file.stream.to_string());
        make_folder(&self.files, &folder).await?;
        let part = Part::new(&folder, &file.name, &self.ids.next().to_string());
        let rendered = match self.render(file, Some(&part.part)).await {
            Ok(rendered) => rendered,
            Err(error) => {
                part.discard().await;
                return Err(error);
            }
        };
        part.keep().await?;
        let manifest = self.manifest(state, file, previous, &rendered)?;
        let part = Part::new(&folder, &manifest_name(&file.name), &self.ids.next().to_string());
        part.write(&manifest).await?;
        part.keep().await?;
        Ok(rendered)
    }

    pub(crate) fn manifest(
        &self,
        state: &StreamState,
        file: &BillingFile,
        previous: Option<[u8; 32]>,
        rendered: &Rendered,
    ) -> Result<Vec<u8>, PublishError> {
        let closed = Closed {
            file: file.id,
            sequence: file.sequence,
            name: file.name.clone(),
            closure_reason: file.closure_reason.clone(),
            closed_at: file.closed_at,
            previous_sha256: previous,
        };
        let manifest = Manifest::new(self.installation, &state.stream, &closed, rendered);
        manifest.to_bytes().map_err(|source| PublishError::Render { file: file.id, source })
    }

    /// Renders a file from its items, to disk when `to` names a place, and compares with what was committed.
    pub(crate) async fn render(&self, file: &BillingFile, to: Option<&Path>) -> Result<Rendered, PublishError> {
        let id = file.id;
        if file.format_version != FORMAT_VERSION {
            return Err(PublishError::Format { file: id, version: file.format_version });
        }
        let stored = |source| PublishError::Store { file: id, source };
        let failed = |source| PublishError::Render { file: id, source };
        let io = |source| PublishError::Io { path: to.unwrap_or_else(|| Path::new("")).to_owned(), source };
        let mut out = match to {
            Some(path) => Some(tokio::fs::File::create_new(path).await.map_err(io)?),
            None => None,
        };
        let mut renderer = Renderer::default();
        let mut bytes = renderer.header().map_err(failed)?;
        let mut position = 0;
        loop {
            if let Some(out) = &mut out {
                out.write_all(&bytes).await.map_err(io)?;
            }
            if position >= file.record_count {
                break;
            }
            let page = self.db.read::<_, DbError, _>(|tx| Box::pin(file::records(tx, id, position, PAGE)));
            let records = page.await.map_err(stored)?;
            if records.is_empty() {
                return Err(PublishError::Differs { file: id, what: "the list of items" });
            }
            bytes = renderer.records(&records).map_err(failed)?;
            position += PAGE;
        }
        let rendered = renderer.finish();
        if let Some(mut out) = out {
            out.flush().await.map_err(io)?;
            out.sync_all().await.map_err(io)?;
        }
        match difference(file, &rendered) {
            Some(what) => Err(PublishError::Differs { file: id, what }),
            None => Ok(rendered),
        }
    }

    /// Removes what publishers that crashed left beside a published file.
    async fn sweep(&self, file: &BillingFile) {
        let folder = self.files.join(file.stream.to_string());
        let Ok(mut entries) = tokio::fs::read_dir(&folder).await else { return };
        let names = [format!("{}.", file.name), format!("{}.", manifest_name(&file.name))];
        while let Ok(Some(entry)) = entries.next_entry().await {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(PART) && names.iter().any(|begin| name.starts_with(begin)) {
                // Left over: whether it can be removed now changes nothing.
                drop(tokio::fs::remove_file(entry.path()).await);
            }
        }
    }
}

/// What a rendering has other than the row says.
fn difference(file: &BillingFile, rendered: &Rendered) -> Option<&'static str> {
    if rendered.record_count != file.record_count {
        return Some("the number of records");
    }
    if rendered.billed_ms != file.billed_ms || rendered.totals != file.totals {
        return Some("a total");
    }
    if file.size.is_some_and(|size| size != rendered.size) {
        return Some("the size");
    }
    let hash = hex::encode(rendered.sha256);
    file.sha256.as_ref().is_some_and(|sha256| *sha256 != hash).then_some("the hash")
}

const PART: &str = ".part";

/// A file under a name of its own, until it is whole.
struct Part {
    folder: PathBuf,
    part: PathBuf,
    name: PathBuf,
}

impl Part {
    fn new(folder: &Path, name: &str, unique: &str) -> Self {
        let part = folder.join(format!("{name}.{unique}{PART}"));
        Self { folder: folder.to_owned(), part, name: folder.join(name) }
    }

    async fn write(&self, bytes: &[u8]) -> Result<(), PublishError> {
        let io = |source| PublishError::Io { path: self.part.clone(), source };
        let mut out = tokio::fs::File::create_new(&self.part).await.map_err(io)?;
        out.write_all(bytes).await.map_err(io)?;
        out.flush().await.map_err(io)?;
        out.sync_all().await.map_err(io)
    }

    async fn keep(&self) -> Result<(), PublishError> {
        let io = |source| PublishError::Io { path: self.name.clone(), source };
        tokio::fs::rename(&self.part, &self.name).await.map_err(io)?;
        sync_folder(&self.folder).await
    }

    async fn discard(&self) {
        // It stays behind at worst, and the next publisher of this file removes it.
        drop(tokio::fs::remove_file(&self.part).await);
    }
}

async fn sync_folder(folder: &Path) -> Result<(), PublishError> {
    let io = |source| PublishError::Io { path: folder.to_owned(), source };
    let open = tokio::fs::File::open(folder).await.map_err(io)?;
    open.sync_all().await.map_err(io)
}

async fn make_folder(files: &Path, folder: &Path) -> Result<(), PublishError> {
    if tokio::fs::try_exists(folder).await.unwrap_or(false) {
        return Ok(());
    }
    let io = |source| PublishError::Io { path: folder.to_owned(), source };
    tokio::fs::create_dir_all(folder).await.map_err(io)?;
    sync_folder(files).await
}
