//! What every mutation commits beside its rows: audit entry with hash chain, change event, idempotency answer.
//!
//! In a write transaction: [`replay`] first; then load the view, plan, [`check_expected`], write the rows; [`record`]
//! last. [`crate::pipeline`] does so for every folder. The chain: the hash of an entry covers the hash before it and every
//! field, so a changed, missing or inserted entry is found by [`verify_audit`]. Plans, and so audit and answers, hold no secrets; a replay never repeats one.

use std::collections::BTreeSet;

use model::change::{ChangeError, CommitOptions, Committed, IdempotencyKey, Plan, Refusal, RefusalCode};
use model::ctx::Ctx;
use model::event::store::{Changed, ChangedResource, StoreEvent};
use model::id::ChangeId;
use model::tenancy::AccountPath;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::dialect::{BulkRow, Value};
use crate::error::{DbError, WriteError};
use crate::store::{Db, Tx};
use crate::{dialect, feed};

/// SHA-256.
pub type Hash = [u8; 32];

/// Begins every hashed audit entry: another layout gets another name.
const AUDIT_DOMAIN: &[u8] = b"tandem-audit-1";
/// Entries of one page when the chain is walked.
const PAGE: i64 = 1_000;

const ANSWER: &str = "SELECT request_hash, change_id, answer FROM idempotency WHERE actor_id = $1 AND key = $2";
const REMEMBER: &str = "INSERT INTO idempotency (actor_id, key, request_hash, change_id, answer, at) \
    VALUES ($1, $2, $3, $4, $5, $6)";
const NEXT: &str = "UPDATE counter SET value = value + 1 WHERE name = 'audit' RETURNING value, head";
const HEAD: &str = "UPDATE counter SET head = $1 WHERE name = 'audit'";
const AUDIT: &str = "INSERT INTO audit (sequence, change_id, at, path, actor_kind, actor_id, actor_name, trace_id, \
    command, plan, previous_hash, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
const WALK: &str = "SELECT sequence, change_id, at, path, actor_kind, actor_id, actor_name, trace_id, command, plan, \
    previous_hash, hash FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2";
const END: &str = "SELECT value, head FROM counter WHERE name = 'audit'";
const FORGET: &str = "DELETE FROM idempotency WHERE at < $1";
pub(crate) const ALL: &[&str] = &[ANSWER, REMEMBER, NEXT, HEAD, AUDIT, WALK, END, FORGET];

/// What the store knows of an idempotency key.
#[derive(Debug, Clone, PartialEq)]
pub enum Replay {
    /// Nothing: do it.
    Fresh,
    /// The answer of the same request.
    Answer(Committed),
}

/// Hashes a request for [`replay`]: the command's name and its fields in a fixed order, each with its length.
#[must_use]
pub fn hash_request(parts: &[&[u8]]) -> Hash {
    hash_parts(parts.iter().copied())
}

/// Looks the client's key up, and holds it until the transaction ends, so that the same request sent twice at the
/// same time runs once. Without a key everything is fresh.
///
/// # Errors
/// Refused with `IDEMPOTENCY_CONFLICT` when the key was used with another payload.
pub async fn replay(
    tx: &mut Tx,
    ctx: &Ctx,
    key: Option<&IdempotencyKey>,
    request: &Hash,
) -> Result<Replay, WriteError<ChangeError>> {
    let Some(key) = key else { return Ok(Replay::Fresh) };
    let actor = ctx.actor.id;
    dialect::serialize_on(tx, &[b"idempotency", actor.as_bytes(), key.as_str().as_bytes()]).await?;
    let row: Option<(Vec<u8>, Uuid, String)> = crate::on_tx!(tx, c => sqlx::query_as(ANSWER)
        .bind(actor).bind(key.as_str()).fetch_optional(c).await)?;
    let Some((stored, change, answer)) = row else { return Ok(Replay::Fresh) };
    if stored != request {
        let refusal = Refusal::new(
            RefusalCode::IdempotencyConflict,
            "idempotencyKey",
            "this idempotency key was used with another payload",
            "use a new key for a new request, and the old key only to repeat the old one",
        );
        return Err(WriteError::Refused(refusal.into()));
    }
    let answer: Answer = serde_json::from_str(&answer).map_err(|e| DbError::corrupt("idempotency.answer", e))?;
    let change = ChangeId::from_uuid(change);
    Ok(Replay::Answer(Committed { change, plan: answer.plan, replayed: true, revealed: None }))
}

/// Compares the versions that the client expects with those that the plan was made against.
///
/// # Errors
/// `VERSION_MISMATCH`, one refusal per resource that differs.
pub fn check_expected(plan: &Plan, options: &CommitOptions) -> Result<(), ChangeError> {
    let differs = |expected: &&model::change::ResourceVersion| !plan.versions.contains(expected);
    let refusals: Vec<Refusal> = options
        .expected
        .iter()
        .filter(differs)
        .map(|expected| {
            let found = plan.versions.iter().find(|v| v.resource == expected.resource).map(|v| v.version);
            let found = found.map_or_else(|| "none that this change looks at".to_owned(), |v| v.to_string());
            Refusal::new(
                RefusalCode::VersionMismatch,
                "expected",
                format!(
                    "{} {} has version {found}, not {}",
                    expected.resource.kind.as_str(),
                    expected.resource.id,
                    expected.version
                ),
                "read it again, look at what changed, and repeat the change",
            )
        })
        .collect();
    if refusals.is_empty() { Ok(()) } else { Err(ChangeError::Refused(refusals)) }
}

/// A change that is about to be committed.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The name of the command, such as `subscriber_create`.
    pub command: &'a str,
    /// What it does; holds no secrets.
    pub plan: &'a Plan,
    /// The client's key, when it sent one.
    pub key: Option<&'a IdempotencyKey>,
    /// What [`replay`] was asked with.
    pub request: &'a Hash,
    /// The account whose subtree is changed.
    pub path: &'a AccountPath,
    /// Events beside `changed`.
    pub events: &'a [StoreEvent],
}

/// Writes audit entry, event and answer of a change; its number was drawn before its rows were written. The counter rows
/// stay locked until the transaction ends: call it last.
///
/// # Errors
/// When the database fails.
pub async fn record(tx: &mut Tx, ctx: &Ctx, change: ChangeId, entry: Entry<'_>) -> Result<(), DbError> {
    let now = ctx.now();
    if let Some(key) = entry.key {
        let answer = serde_json::to_string(&AnswerRef { plan: entry.plan });
        let answer = answer.map_err(|e| DbError::corrupt("idempotency.answer", e))?;
        crate::on_tx!(tx, c => sqlx::query(REMEMBER)
            .bind(ctx.actor.id).bind(key.as_str()).bind(&entry.request[..]).bind(change.uuid()).bind(answer).bind(now.0)
            .execute(c).await.map(|_| ()))?;
    }
    let plan = serde_json::to_string(entry.plan).map_err(|e| DbError::corrupt("audit.plan", e))?;
    let (sequence, head): (i64, Option<Vec<u8>>) = crate::on_tx!(tx, c => sqlx::query_as(NEXT).fetch_one(c).await)?;
    let row = AuditRow {
        sequence,
        change_id: change.uuid(),
        at: now.0,
        path: entry.path.as_str().to_owned(),
        actor_kind: ctx.actor.kind.as_str().to_owned(),
        actor_id: ctx.actor.id,
        actor_name: ctx.actor.name.clone(),
        trace_id: ctx.trace.uuid(),
        command: entry.command.to_owned(),
        plan,
        previous_hash: head.unwrap_or_else(|| vec![0; 32]),
        hash: Vec::new(),
    };
    let hash = row.expected_hash();
    crate::on_tx!(tx, c => sqlx::query(AUDIT)
        .bind(row.sequence).bind(row.change_id).bind(row.at).bind(&row.path).bind(&row.actor_kind).bind(row.actor_id)
        .bind(&row.actor_name).bind(row.trace_id).bind(&row.command).bind(&row.plan).bind(&row.previous_hash)
        .bind(&hash[..])
        .execute(c).await.map(|_| ()))?;
    crate::on_tx!(tx, c => sqlx::query(HEAD).bind(&hash[..]).execute(c).await.map(|_| ()))?;
    let touched: BTreeSet<Uuid> = entry.plan.effects.iter().map(|effect| effect.resource.id).collect();
    let touched: Vec<Touched> = touched.into_iter().map(|resource_id| Touched { resource_id, sequence }).collect();
    dialect::bulk_insert(tx, &touched, "").await?;
    let resources = entry.plan.effects.iter();
    let resources = resources.map(|e| ChangedResource { effect: e.kind, resource: e.resource }).collect();
    let changed = StoreEvent::Changed(Changed { change, path: entry.path.clone(), resources });
    feed::append(tx, now, &changed).await?;
    for event in entry.events {
        feed::append(tx, now, event).await?;
    }
    Ok(())
}

/// Deletes stored answers older than `before`: a client repeats within hours. Gives how many.
///
/// # Errors
/// When the database fails.
pub async fn forget_answers(tx: &mut Tx, before: model::time::Timestamp) -> Result<u64, DbError> {
    Ok(crate::on_tx!(tx, c => sqlx::query(FORGET).bind(before.0).execute(c).await.map(|done| done.rows_affected()))?)
}

/// The audit chain, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    /// Entries.
    pub entries: i64,
    /// The hash of the newest one. Kept elsewhere, it proves that nothing was rewritten since.
    pub head: Option<Hash>,
}

/// Why the audit chain could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The chain is broken here.
    #[error("the audit trail is broken at entry {sequence}: {what}")]
    Broken {
        /// The first entry that does not fit.
        sequence: i64,
        /// What does not fit.
        what: &'static str,
    },
}

/// Walks the chain on one snapshot.
///
/// # Errors
/// [`AuditError::Broken`] with the first entry that was changed, removed or inserted.
pub async fn verify_audit(db: &Db) -> Result<AuditReport, AuditError> {
    db.read(|tx| Box::pin(walk(tx))).await
}

async fn walk(tx: &mut Tx) -> Result<AuditReport, AuditError> {
    let (entries, head): (i64, Option<Vec<u8>>) =
        crate::on_tx!(tx, c => sqlx::query_as(END).fetch_one(c).await).map_err(DbError::from)?;
    let (mut last, mut previous) = (0, vec![0; 32]);
    loop {
        let rows: Vec<AuditRow> = crate::on_tx!(tx, c => sqlx::query_as(WALK).bind(last).bind(PAGE).fetch_all(c).await)
            .map_err(DbError::from)?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let broken = |what| Err(AuditError::Broken { sequence: last + 1, what });
            if row.sequence != last + 1 {
                return broken("it is missing");
            }
            if row.previous_hash != previous {
                return broken("it does not follow the entry before it");
            }
            if row.expected_hash()[..] != row.hash[..] {
                return broken("its content was changed");
            }
            (last, previous) = (row.sequence, row.hash);
        }
    }
    if last != entries {
        return Err(AuditError::Broken { sequence: last + 1, what: "the counter says that there are more or fewer" });
    }
    let hash: Option<Hash> = head.and_then(|head| head.try_into().ok());
    if last > 0 && hash.is_none_or(|hash| hash[..] != previous[..]) {
        return Err(AuditError::Broken { sequence: last, what: "it is not the one that the counter names" });
    }
    Ok(AuditReport { entries, head: hash })
}

#[derive(Serialize)]
struct AnswerRef<'a> {
    plan: &'a Plan,
}

#[derive(Deserialize)]
struct Answer {
    plan: Plan,
}

/// One resource that a change touched.
pub(crate) struct Touched {
    resource_id: Uuid,
    sequence: i64,
}

impl BulkRow for Touched {
    const TABLE: &'static str = "audit_resource";
    const COLUMNS: &'static [&'static str] = &["resource_id", "sequence"];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        out.extend([self.resource_id.into(), self.sequence.into()]);
    }
}

#[derive(sqlx::FromRow)]
struct AuditRow {
    sequence: i64,
    change_id: Uuid,
    at: i64,
    path: String,
    actor_kind: String,
    actor_id: Uuid,
    actor_name: String,
    trace_id: Uuid,
    command: String,
    plan: String,
    previous_hash: Vec<u8>,
    hash: Vec<u8>,
}

impl AuditRow {
    fn expected_hash(&self) -> Hash {
        hash_parts([
            AUDIT_DOMAIN,
            &self.previous_hash,
            &self.sequence.to_be_bytes(),
            self.change_id.as_bytes(),
            &self.at.to_be_bytes(),
            self.path.as_bytes(),
            self.actor_kind.as_bytes(),
            self.actor_id.as_bytes(),
            self.actor_name.as_bytes(),
            self.trace_id.as_bytes(),
            self.command.as_bytes(),
            self.plan.as_bytes(),
        ])
    }
}

/// Each part with its length before it, so that no two lists of parts give the same octets.
fn hash_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Hash {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
