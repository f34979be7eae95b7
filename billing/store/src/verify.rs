//! Whether the files of a stream are whole: dense, chained, on disk as recorded, and what their items give.

use std::path::Path;

use billing::file::manifest_name;
use billing::resource::BillingFile;
use db::DbError;
use model::actor::Permission;
use model::ctx::{Ctx, Denied};
use model::id::StreamId;
use model::page::PageRequest;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

use crate::publish::PublishError;
use crate::stream::StreamState;
use crate::{BillingStore, file, publish, stream};

/// Findings that a report lists; beyond them it only counts.
pub(crate) const FINDINGS_MAX: usize = 100;
/// Octets read at a time.
const CHUNK: usize = 64 * 1024;

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A permission is missing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The store failed.
    #[error("the store cannot be read")]
    Store(#[source] DbError),
}

impl From<DbError> for VerifyError {
    fn from(error: DbError) -> Self {
        Self::Store(error)
    }
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyFinding {
    /// A sequence is missing.
    #[error("file {sequence} is missing")]
    Missing {
        /// The sequence that is not there.
        sequence: i64,
    },
    /// The next sequence of the stream does not follow its last file.
    #[error("the stream goes on with {next} after file {last}")]
    Next {
        /// The last file.
        last: i64,
        /// What the stream says comes next.
        next: i64,
    },
    /// It names another hash than the file before it has.
    #[error("file {sequence} does not follow the file before it")]
    Chain {
        /// The file.
        sequence: i64,
    },
    /// The items are not dense, or not as many as the file has records.
    #[error("file {sequence} has {items} items up to position {last} for {records} records")]
    Items {
        /// The file.
        sequence: i64,
        /// Its items.
        items: i64,
        /// The highest position.
        last: i64,
        /// Its records.
        records: i64,
    },
    /// Rendering it again does not give what was recorded.
    #[error("file {sequence} cannot be rendered again: {detail}")]
    Rendering {
        /// The file.
        sequence: i64,
        /// Why.
        detail: String,
    },
    /// The bytes on disk are not those that were recorded.
    #[error("{name} on disk is not what was recorded: {detail}")]
    Disk {
        /// The file or manifest.
        name: String,
        /// How it differs.
        detail: String,
    },
}

/// What [`BillingStore::verify`] found of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// The stream.
    pub stream: StreamId,
    /// Its name.
    pub name: String,
    /// Published files.
    pub files: i64,
    /// Closed files that are not published yet.
    pub planned: i64,
    /// Records in the files.
    pub records: i64,
    /// What does not fit, at most a hundred.
    pub findings: Vec<VerifyFinding>,
}

impl VerifyReport {
    /// Whether everything fits.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn note(&mut self, finding: VerifyFinding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

impl BillingStore {
    /// Verifies every file of a stream against its row, its items, its bytes on disk and the file before it. None when
    /// there is no such stream in the scope.
    ///
    /// # Errors
    /// When it cannot be read at all; what does not fit is in the report.
    pub async fn verify(&self, ctx: &Ctx, id: StreamId) -> Result<Option<VerifyReport>, VerifyError> {
        ctx.require(Permission::BillingRead)?;
        let scope = ctx.scope.clone();
        let found = self.db.read::<_, DbError, _>(move |tx| Box::pin(async move { stream::get(tx, &scope, id).await }));
        let Some(state) = found.await? else { return Ok(None) };
        let name = state.stream.name.clone();
        let mut report = VerifyReport { stream: id, name, files: 0, planned: 0, records: 0, findings: Vec::new() };
        let (mut last, mut previous): (i64, Option<String>) = (0, None);
        loop {
            let scope = ctx.scope.clone();
            let page = self.db.read::<_, DbError, _>(move |tx| {
                Box::pin(async move { file::list(tx, &scope, id, last, &PageRequest::default()).await })
            });
            let page = page.await?;
            for (_, file) in page.items {
                for sequence in (last + 1)..file.sequence.min(last.saturating_add(100)) {
                    report.note(VerifyFinding::Missing { sequence });
                }
                last = file.sequence;
                self.verify_file(&state, &file, previous.as_deref(), &mut report).await?;
                previous.clone_from(&file.sha256);
            }
            if !page.has_next {
                break;
            }
        }
        let next = state.stream.next_sequence;
        // Files that were closed since the stream was read are no finding.
        if last + 1 < next {
            report.note(VerifyFinding::Next { last, next });
        }
        Ok(Some(report))
    }

    async fn verify_file(
        &self,
        state: &StreamState,
        file: &BillingFile,
        previous: Option<&str>,
        report: &mut VerifyReport,
    ) -> Result<(), VerifyError> {
        let (sequence, id) = (file.sequence, file.id);
        report.records += file.record_count;
        let span = self.db.read::<_, DbError, _>(move |tx| Box::pin(async move { file::item_span(tx, id).await }));
        let (items, last) = span.await?;
        if (items, last) != (file.record_count, file.record_count) {
            report.note(VerifyFinding::Items { sequence, items, last, records: file.record_count });
        }
        if !file.published {
            report.planned += 1;
            return Ok(());
        }
        report.files += 1;
        if file.previous_sha256.as_deref() != previous {
            report.note(VerifyFinding::Chain { sequence });
        }
        let rendered = match self.render(file, None).await {
            Ok(rendered) => rendered,
            Err(PublishError::Store { source, .. }) if source.is_transient() => return Err(source.into()),
            Err(error) => {
                report.note(VerifyFinding::Rendering { sequence, detail: error.to_string() });
                return Ok(());
            }
        };
        let path = publish::path(&self.files, file, &file.name);
        compare(&path, &file.name, rendered.sha256, report).await;
        let hash = file.previous_sha256.as_deref().map(hex::decode).and_then(Result::ok);
        let hash = hash.and_then(|hash| hash.try_into().ok());
        if let Ok(manifest) = self.manifest(state, file, hash, &rendered) {
            let name = manifest_name(&file.name);
            let path = publish::path(&self.files, file, &name);
            compare(&path, &name, Sha256::digest(&manifest).into(), report).await;
        }
        Ok(())
    }
}

async fn compare(path: &Path, name: &str, expected: [u8; 32], report: &mut VerifyReport) {
    let detail = match hash_file(path).await {
        Ok(hash) if hash == expected => return,
        Ok(hash) => format!("its SHA-256 is {}, not {}", hex::encode(hash), hex::encode(expected)),
        Err(error) => error.to_string(),
    };
    report.note(VerifyFinding::Disk { name: name.to_owned(), detail });
}

async fn hash_file(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut file = tokio::fs::File::open(path).await?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = file.read(&mut chunk).await?;
        let Some(read) = chunk.get(..n).filter(|read| !read.is_empty()) else { break };
        hash.update(read);
    }
    Ok(hash.finalize().into())
}
