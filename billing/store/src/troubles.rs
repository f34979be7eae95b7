//! What is wrong with billing now: charges that wait without a price for too long, and files that are due and not
//! there. Both for the alarms.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use db::{DbError, on_db, statements};
use model::change::ChangeError;
use model::id::{AccountId, StreamId};
use model::tenancy::AccountPath;
use model::time::Timestamp;
use uuid::Uuid;

use crate::sql::parse;
use crate::{BillingStore, PublishError};

/// Accounts or streams of one look. More than these have one cause, which the first ones tell.
const ROWS_MAX: i64 = 500;
/// How long a stream may fail before it counts: a restart of the store is no trouble.
pub const EXPORT_FAILING_MS: i64 = 5_000;
/// How late a file may be although nobody says why: the largest ones take minutes to write, and a node that hangs, or
/// another one, says nothing.
pub const EXPORT_LATE_MS: i64 = 300_000;

statements! {
    /// Those that wait longest, when there are too many: a new one must not push out one that is told.
    UNRATED = "SELECT waiting.account_id, waiting.path, waiting.records, waiting.oldest, \
        (SELECT o.code FROM suspense o WHERE o.path = waiting.path AND o.account_id = waiting.account_id \
            AND o.resolved_at IS NULL ORDER BY o.created_at, o.call_id, o.leg, o.part, o.side LIMIT 1) AS code FROM \
        (SELECT account_id, path, COUNT(*) AS records, MIN(created_at) AS oldest FROM suspense \
            WHERE resolved_at IS NULL GROUP BY path, account_id \
            HAVING COUNT(*) > $1 OR MIN(created_at) < $2 ORDER BY MIN(created_at), account_id LIMIT $3) waiting \
        ORDER BY waiting.oldest, waiting.account_id";
    /// Files that are closed and not written: of each stream the first one, and how many there are.
    UNWRITTEN = "SELECT s.id, s.name, a.path, f.name AS file, f.closed_at AS due_at, w.files FROM \
        (SELECT stream_id, MIN(sequence) AS sequence, COUNT(*) AS files FROM billing_file WHERE state = 'planned' \
            GROUP BY stream_id) w \
        JOIN billing_file f ON f.stream_id = w.stream_id AND f.sequence = w.sequence \
        JOIN stream s ON s.id = w.stream_id JOIN account a ON a.id = s.account_id \
        ORDER BY f.closed_at, s.id LIMIT $1";
    /// Streams whose period has passed at `$1`, with the time at which it did.
    UNCLOSED = "SELECT d.id, d.name, d.path, d.due_at FROM (SELECT s.id, s.name, a.path, s.close_period_ms + \
            COALESCE((SELECT MAX(f.closed_at) FROM billing_file f WHERE f.stream_id = s.id), s.created_at) AS due_at \
            FROM stream s JOIN account a ON a.id = s.account_id WHERE s.close_period_ms > 0) d \
        WHERE d.due_at <= $1 ORDER BY d.due_at, d.id LIMIT $2";
}

/// How much may wait in suspense before it is a trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnratedLimits {
    /// The longest that a charge may wait, milliseconds.
    pub age_max_ms: i64,
    /// The most charges of one account that may wait.
    pub records_max: i64,
}

/// Charges of an account that wait in suspense, too many or for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrated {
    /// The account that they belong to.
    pub account: AccountId,
    /// Its path.
    pub path: AccountPath,
    /// How many wait.
    pub records: i64,
    /// Since when the oldest waits.
    pub oldest: Timestamp,
    /// Why the oldest waits: a code of [`billing::resource::SuspenseCode`].
    pub code: String,
}

/// A file of a stream that is due and not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportFailure {
    /// The stream.
    pub stream: StreamId,
    /// The account of the stream.
    pub path: AccountPath,
    /// One sentence that names stream and file, since when it is due, and why it is not there.
    pub text: String,
}

/// What of a stream failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Its file could not be closed.
    Close,
    /// Its closed file could not be written.
    Write,
}

#[derive(Debug, Clone)]
struct Failing {
    since: Timestamp,
    why: String,
}

/// What this process could not close or write the last time it tried. The store knows that a file is not there; why,
/// only the one who tries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failures(Arc<Mutex<BTreeMap<(Stage, StreamId), Failing>>>);

impl Failures {
    pub(crate) fn failed(&self, stage: Stage, stream: StreamId, now: Timestamp, why: String) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.entry((stage, stream)).or_insert_with(|| Failing { since: now, why: String::new() }).why = why;
    }

    pub(crate) fn succeeded(&self, stage: Stage, stream: StreamId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(stage, stream));
    }

    /// Forgets streams in which there is nothing to do any more: another node did it.
    pub(crate) fn keep(&self, stage: Stage, streams: impl Fn(StreamId) -> bool) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|(of, stream), _| *of != stage || streams(*stream));
    }

    /// Since when and why, once it has failed for long enough.
    fn why(&self, stage: Stage, stream: StreamId, now: Timestamp) -> Option<String> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = failures.get(&(stage, stream))?;
        (now.ms_since(failing.since) >= EXPORT_FAILING_MS).then(|| failing.why.clone())
    }
}

/// Why a file was not closed, for the tenant whose stream it is: without details of the store, which the log has.
pub(crate) fn why_not_closed(error: &ChangeError) -> String {
    match error {
        ChangeError::Refused(_) => error.to_string(),
        ChangeError::Unavailable(_) => "the store is not available".to_owned(),
        ChangeError::Internal(_) => "the store gave an error".to_owned(),
    }
}

/// Why a file was not written, for the tenant whose stream it is: without places on our disk, which the log has.
pub(crate) fn why_not_written(error: &PublishError) -> String {
    match error {
        PublishError::Io { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

#[derive(Debug, sqlx::FromRow)]
struct UnratedRow {
    account_id: Uuid,
    path: String,
    records: i64,
    oldest: i64,
    code: String,
}

#[derive(Debug, sqlx::FromRow)]
struct UnwrittenRow {
    id: Uuid,
    name: String,
    path: String,
    file: String,
    due_at: i64,
    files: i64,
}

#[derive(Debug, sqlx::FromRow)]
struct UnclosedRow {
    id: Uuid,
    name: String,
    path: String,
    due_at: i64,
}

impl BillingStore {
    /// The accounts of which more charges wait in suspense than `limits` allows, or for longer.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn unrated(&self, limits: UnratedLimits) -> Result<Vec<Unrated>, DbError> {
        let before = self.clock.now().utc.plus_ms(-limits.age_max_ms);
        let rows: Vec<UnratedRow> = on_db!(&self.db, c => sqlx::query_as(UNRATED)
            .bind(limits.records_max).bind(before.0).bind(ROWS_MAX).fetch_all(c).await)?;
        let unrated = |row: UnratedRow| {
            Ok(Unrated {
                account: AccountId::from_uuid(row.account_id),
                path: parse("suspense.path", &row.path)?,
                records: row.records,
                oldest: Timestamp(row.oldest),
                code: row.code,
            })
        };
        rows.into_iter().map(unrated).collect()
    }

    /// The streams with a file that is due and could not be closed or written, each once: by this process for
    /// [`EXPORT_FAILING_MS`], or by anybody for [`EXPORT_LATE_MS`].
    ///
    /// # Errors
    /// When the store fails.
    pub async fn export_failures(&self) -> Result<Vec<ExportFailure>, DbError> {
        let now = self.clock.now().utc;
        let mut failures = BTreeMap::new();
        let unwritten: Vec<UnwrittenRow> =
            on_db!(&self.db, c => sqlx::query_as(UNWRITTEN).bind(ROWS_MAX).fetch_all(c).await)?;
        for row in unwritten {
            let (stream, due_at) = (StreamId::from_uuid(row.id), Timestamp(row.due_at));
            let Some(why) = self.excuse(Stage::Write, stream, due_at, now) else { continue };
            let (name, file) = (&row.name, &row.file);
            let more = if row.files > 1 { format!(" and {} after it", row.files - 1) } else { String::new() };
            let text = format!("the file {file} of stream {name}{more}, closed at {due_at}, is not written: {why}");
            failures.insert(stream, ExportFailure { stream, path: parse("account.path", &row.path)?, text });
        }
        let unclosed: Vec<UnclosedRow> =
            on_db!(&self.db, c => sqlx::query_as(UNCLOSED).bind(now.0).bind(ROWS_MAX).fetch_all(c).await)?;
        for row in unclosed {
            let (stream, due_at) = (StreamId::from_uuid(row.id), Timestamp(row.due_at));
            let Some(why) = self.excuse(Stage::Close, stream, due_at, now) else { continue };
            let text = format!("the file of stream {} that was due at {due_at} is not closed: {why}", row.name);
            let path = parse("account.path", &row.path)?;
            failures.entry(stream).or_insert(ExportFailure { stream, path, text });
        }
        Ok(failures.into_values().collect())
    }

    /// Why something of a stream is not done; none while it may still be under way.
    fn excuse(&self, stage: Stage, stream: StreamId, due_at: Timestamp, now: Timestamp) -> Option<String> {
        let late = now.ms_since(due_at) >= EXPORT_LATE_MS;
        self.failures.why(stage, stream, now).or_else(|| late.then(|| "no node has said why".to_owned()))
    }
}
