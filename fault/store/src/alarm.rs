//! The store's copy of alarms: reads, and acknowledgements on their way to the node.

use async_trait::async_trait;
use db::change::{self, Entry, Replay};
use db::sqlx::AssertSqlSafe;
use db::{Db, DbError, Tx, WriteError, on_db, on_tx};
use fault::acknowledgement;
use fault::command::Command;
use fault::port::Queries;
use fault::resource::Alarm;
use model::actor::Permission;
use model::change::{Change, ChangeError, CommitOptions, Committed, Plan};
use model::ctx::Ctx;
use model::page::{Page, PageRequest, ReadError};

use crate::error::read_error;
use crate::row::CopyRow;

db::statements! {
    /// One alarm in a scope.
    ONE = "SELECT node, id, type, resource, path, severity, text, raised_at, changed_at, last_seen_at, cleared_at, \
        count, acked_by, acked_at, ack_note FROM alarm \
        WHERE node = $1 AND id = $2 AND path >= $3 AND path < $4";
    /// Alarms in a scope, newest first, after the last one of the page before.
    LIST = "SELECT node, id, type, resource, path, severity, text, raised_at, changed_at, last_seen_at, cleared_at, \
        count, acked_by, acked_at, ack_note FROM alarm \
        WHERE path >= $1 AND path < $2 AND (raised_at, node, id) < ($3, $4, $5) AND ($6 = 0 OR cleared_at IS NULL) \
        ORDER BY raised_at DESC, node DESC, id DESC LIMIT $7";
    /// Shown at once; the node says the same later.
    ACKNOWLEDGE = "UPDATE alarm SET acked_by = $3, acked_at = $4, ack_note = $5 \
        WHERE node = $1 AND id = $2 AND acked_by IS NULL";
    /// Travels to the node.
    SEND = "INSERT INTO alarm_ack (node, alarm_id, change_id, acked_by, acked_at, note) VALUES ($1, $2, $3, $4, $5, $6)";
}

/// Sorts after the name of every node.
const AFTER_ALL_NODES: &str = "\u{10ffff}";

/// Alarms of all nodes, as the store knows them.
#[derive(Debug, Clone)]
pub struct StoreAlarms {
    db: Db,
}

impl StoreAlarms {
    /// Over the store.
    #[must_use]
    pub const fn new(store_db: Db) -> Self {
        Self { db: store_db }
    }
}

#[async_trait]
impl Queries for StoreAlarms {
    async fn alarm_get(&self, ctx: &Ctx, node: &str, id: u32) -> Result<Option<Alarm>, ReadError> {
        ctx.require(Permission::AlarmRead)?;
        let row: Result<Option<CopyRow>, sqlx::Error> = on_db!(&self.db, c => sqlx::query_as(ONE)
            .bind(node).bind(i64::from(id)).bind(ctx.scope.lower()).bind(ctx.scope.upper()).fetch_optional(c).await);
        let row = row.map_err(|e| read_error(e.into()))?;
        row.map_or(Ok(None), alarm).map_err(read_error)
    }

    async fn alarm_list(&self, ctx: &Ctx, active: bool, page: PageRequest) -> Result<Page<Alarm>, ReadError> {
        ctx.require(Permission::AlarmRead)?;
        page.check()?;
        let (raised_at, node, id) = match &page.after {
            None => (i64::MAX, AFTER_ALL_NODES, i64::MAX),
            Some(cursor) => parse_cursor(cursor)?,
        };
        let rows: Result<Vec<CopyRow>, sqlx::Error> = on_db!(&self.db, c => sqlx::query_as(LIST)
            .bind(ctx.scope.lower()).bind(ctx.scope.upper()).bind(raised_at).bind(node).bind(id)
            .bind(i64::from(active)).bind(i64::from(page.first) + 1)
            .fetch_all(c).await);
        let rows = rows.map_err(|e| read_error(e.into()))?;
        let more = rows.len() > usize::try_from(page.first).unwrap_or(usize::MAX);
        let alarms: Result<Vec<Alarm>, DbError> = rows.into_iter().filter_map(|row| alarm(row).transpose()).collect();
        let mut cut = Page::cut(alarms.map_err(read_error)?, &page, cursor);
        // A type of a newer version is passed over, and the page is shorter; what follows still follows.
        cut.has_next = more;
        Ok(cut)
    }
}

#[async_trait]
impl Change<Command> for StoreAlarms {
    async fn plan(&self, ctx: &Ctx, command: &Command) -> Result<Plan, ChangeError> {
        ctx.require(Permission::AlarmWrite)?;
        let (ctx, command) = (ctx.clone(), command.clone());
        self.db
            .read::<_, ChangeError, _>(move |tx| Box::pin(async move { Ok(planned(tx, &ctx, &command).await?.0) }))
            .await
    }

    async fn commit(&self, ctx: &Ctx, command: Command, options: CommitOptions) -> Result<Committed, ChangeError> {
        ctx.require(Permission::AlarmWrite)?;
        let ctx = ctx.clone();
        let committed = self.db.write(move |tx| {
            let (ctx, command, options) = (ctx.clone(), command.clone(), options.clone());
            Box::pin(async move { commit(tx, &ctx, &command, &options).await })
        });
        committed.await.map_err(ChangeError::from)
    }
}

async fn commit(
    tx: &mut Tx,
    ctx: &Ctx,
    command: &Command,
    options: &CommitOptions,
) -> Result<Committed, WriteError<ChangeError>> {
    let Command::AlarmAcknowledge { node, id, note } = command;
    let request =
        change::hash_request(&[command.name().as_bytes(), node.as_bytes(), &id.to_be_bytes(), note.as_bytes()]);
    let key = options.idempotency_key.as_ref();
    if let Replay::Answer(committed) = change::replay(tx, ctx, key, &request).await? {
        return Ok(committed);
    }
    let (plan, alarm) = planned(tx, ctx, command).await.map_err(WriteError::Refused)?;
    change::check_expected(&plan, options).map_err(WriteError::Refused)?;
    let (by, at) = (ctx.actor.name.as_str(), ctx.now());
    on_tx!(tx, c => sqlx::query(ACKNOWLEDGE)
        .bind(node).bind(i64::from(*id)).bind(by).bind(at.0).bind(note).execute(c).await.map(|_| ()))?;
    // An alarm of the platform has no path: the change is noted where the actor sits.
    let path = alarm.path.as_ref().unwrap_or(&ctx.actor.path);
    let entry = Entry { command: command.name(), plan: &plan, key, request: &request, path, events: &[] };
    let change = change::record(tx, ctx, entry).await?;
    // After the record, for the row needs the number of the change.
    on_tx!(tx, c => sqlx::query(SEND)
        .bind(node).bind(i64::from(*id)).bind(change.uuid()).bind(by).bind(at.0).bind(note)
        .execute(c).await.map(|_| ()))?;
    Ok(Committed { change, plan, replayed: false, revealed: None })
}

async fn planned(tx: &mut Tx, ctx: &Ctx, command: &Command) -> Result<(Plan, Alarm), ChangeError> {
    let Command::AlarmAcknowledge { node, id, note } = command;
    let sql = format!("{ONE}{}", tx.lock_clause());
    let row: Result<Option<CopyRow>, sqlx::Error> = on_tx!(tx, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(node).bind(i64::from(*id)).bind(ctx.scope.lower()).bind(ctx.scope.upper()).fetch_optional(c).await);
    let view = row.map_err(DbError::from)?.map_or(Ok(None), alarm)?;
    acknowledgement::plan(view.as_ref(), &ctx.actor.name, ctx.now(), note).map_err(ChangeError::from)
}

fn alarm(row: CopyRow) -> Result<Option<Alarm>, DbError> {
    row.alarm.alarm(&row.node)
}

/// The sort key; the node comes last, for its name may hold dots.
fn cursor(alarm: &Alarm) -> String {
    format!("{}.{}.{}", alarm.raised_at.0, alarm.id, alarm.node)
}

fn parse_cursor(cursor: &str) -> Result<(i64, &str, i64), ReadError> {
    let mut parts = cursor.splitn(3, '.');
    let parsed = (|| {
        let (raised_at, id, node) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        Some((raised_at, node, id))
    })();
    parsed.ok_or_else(|| ReadError::Invalid {
        field: "after",
        message: "this is no cursor of a list of alarms; take it from the page before".to_owned(),
    })
}
