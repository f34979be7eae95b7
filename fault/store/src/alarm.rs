//! The store's copy of alarms: reads, and acknowledgements on their way to the node.

use async_trait::async_trait;
use db::dialect::is_storable;
use db::pipeline::{self, Commands, Decided, Failed, Written};
use db::sqlx::AssertSqlSafe;
use db::{Db, DbError, Tx, WriteError, on_db, on_tx};
use fault::acknowledgement;
use fault::command::Command;
use fault::port::Queries;
use fault::resource::Alarm;
use fault::resync::{self, TargetView};
use model::actor::Permission;
use model::change::{Change, ChangeError, CommitOptions, Committed, Plan, Refusal};
use model::ctx::Ctx;
use model::id::ChangeId;
use model::page::{Page, PageRequest, ReadError};

use crate::error::read_error;
use crate::node::NodeAlarms;
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
    SEND = "INSERT INTO alarm_ack (node, alarm_id, change_id, acked_by, acked_at, note, raised_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    /// A target, to be locked: it is looked at before what waits for it.
    TARGET = "SELECT target FROM notification_target WHERE node = $1 AND target = $2";
    /// Synchronisations that wait for its node.
    WAITING = "SELECT COUNT(*) FROM notification_resync WHERE node = $1 AND target = $2 AND applied_at IS NULL";
    /// Travels to the node.
    RESYNC = "INSERT INTO notification_resync (node, target, change_id, requested_at) VALUES ($1, $2, $3, $4)";
}

/// Sorts after the name of every node.
const AFTER_ALL_NODES: &str = "\u{10ffff}";

/// Alarms of all nodes, as the store knows them.
#[derive(Debug, Clone)]
pub struct StoreAlarms {
    db: Db,
    here: Option<NodeAlarms>,
}

impl StoreAlarms {
    /// Over the store.
    #[must_use]
    pub const fn new(store_db: Db) -> Self {
        Self { db: store_db, here: None }
    }

    /// In the process of a node: who saw one of its alarms at the node itself, or in a trap, can acknowledge it at
    /// once, before the copy would have been made.
    #[must_use]
    pub fn beside(self, here: NodeAlarms) -> Self {
        Self { here: Some(here), ..self }
    }
}

#[async_trait]
impl Queries for StoreAlarms {
    async fn alarm_get(&self, ctx: &Ctx, node: &str, id: u32) -> Result<Option<Alarm>, ReadError> {
        ctx.require(Permission::AlarmRead)?;
        if !is_storable(node) {
            return Ok(None);
        }
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
        pipeline::plan(self, ctx, command).await
    }

    async fn commit(&self, ctx: &Ctx, command: Command, options: CommitOptions) -> Result<Committed, ChangeError> {
        pipeline::commit(self, ctx, command, options).await
    }
}

/// What is written to the store, on its way to the node.
#[derive(Debug)]
pub enum Request {
    /// An acknowledgement of this alarm, with its note.
    Acknowledge(Box<Alarm>, String),
    /// A synchronisation of a target of a node.
    Resync {
        /// The node.
        node: String,
        /// The target.
        target: String,
    },
}

#[async_trait]
impl Commands for StoreAlarms {
    type Command = Command;
    type Write = Request;

    fn db(&self) -> &Db {
        &self.db
    }

    fn name(command: &Command) -> &'static str {
        command.name()
    }

    fn required(_: &Command) -> Permission {
        Permission::AlarmWrite
    }

    fn request(&self, command: &Command) -> Vec<Vec<u8>> {
        match command {
            Command::AlarmAcknowledge { node, id, note } => {
                vec![node.as_bytes().to_vec(), id.to_be_bytes().to_vec(), note.as_bytes().to_vec()]
            }
            Command::AlarmResync { node, target } => vec![node.as_bytes().to_vec(), target.as_bytes().to_vec()],
        }
    }

    async fn prepare(&self, command: &Command) {
        let Command::AlarmAcknowledge { node, id, .. } = command else { return };
        if let Some(here) = self.here.as_ref().filter(|here| here.inner.node == *node)
            && let Err(error) = here.copy_one(&self.db, *id).await
        {
            tracing::warn!(alarm.id = id, "the store may not know this alarm yet: {error}");
        }
    }

    async fn decide(&self, tx: &mut Tx, ctx: &Ctx, command: &Command) -> Result<Option<Decided<Request>>, Failed> {
        let refused = |refusal: Refusal| WriteError::Refused(refusal.into());
        // What belongs to the platform has no path: the change is noted where the actor sits.
        let own = ctx.actor.path.clone();
        match command {
            Command::AlarmAcknowledge { node, id, note } => {
                let found = load(tx, ctx, node, *id).await?;
                let planned = acknowledgement::plan(found.as_ref(), &ctx.actor.name, ctx.now(), note);
                let (plan, _) = planned.map_err(refused)?;
                Ok(found.map(|alarm| {
                    let path = alarm.path.clone().unwrap_or(own);
                    Decided { plan, path, write: Request::Acknowledge(Box::new(alarm), note.clone()) }
                }))
            }
            Command::AlarmResync { node, target } => {
                let view = load_target(tx, node, target).await?;
                let plan = resync::plan(view.as_ref(), ctx).map_err(refused)?;
                let write = Request::Resync { node: node.clone(), target: target.clone() };
                Ok(Some(Decided { plan, path: own, write }))
            }
        }
    }

    async fn write(&self, tx: &mut Tx, ctx: &Ctx, change: ChangeId, request: Request) -> Result<Written, DbError> {
        match request {
            Request::Acknowledge(alarm, note) => acknowledge(tx, ctx, &alarm, &note, change).await?,
            Request::Resync { node, target } => {
                on_tx!(tx, c => sqlx::query(RESYNC)
                    .bind(&node).bind(&target).bind(change.uuid()).bind(ctx.now().0).execute(c).await.map(|_| ()))?;
            }
        }
        Ok(Written::default())
    }
}

async fn acknowledge(tx: &mut Tx, ctx: &Ctx, alarm: &Alarm, note: &str, change: ChangeId) -> Result<(), DbError> {
    let (node, id, by, at) = (&alarm.node, i64::from(alarm.id), ctx.actor.name.as_str(), ctx.now());
    let rows = on_tx!(tx, c => sqlx::query(ACKNOWLEDGE)
        .bind(node).bind(id).bind(by).bind(at.0).bind(note).execute(c).await
        .map(|done| done.rows_affected()))?;
    if rows != 1 {
        // The plan saw it unacknowledged, in this transaction and locked
        return Err(DbError::corrupt("alarm.acked_by", format!("alarm {id} of {node} changed after it was planned")));
    }
    on_tx!(tx, c => sqlx::query(SEND)
        .bind(node).bind(id).bind(change.uuid()).bind(by).bind(at.0).bind(note).bind(alarm.raised_at.0)
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

fn alarm(row: CopyRow) -> Result<Option<Alarm>, DbError> {
    row.alarm.alarm(&row.node)
}

/// An alarm in the scope of `ctx`.
async fn load(tx: &mut Tx, ctx: &Ctx, node: &str, id: u32) -> Result<Option<Alarm>, DbError> {
    if !is_storable(node) {
        return Ok(None);
    }
    let sql = format!("{ONE}{}", tx.lock_clause());
    let row: Option<CopyRow> = on_tx!(tx, c => sqlx::query_as(AssertSqlSafe(sql))
        .bind(node).bind(i64::from(id)).bind(ctx.scope.lower()).bind(ctx.scope.upper()).fetch_optional(c).await)?;
    row.map_or(Ok(None), alarm)
}

/// A target of a node.
async fn load_target(tx: &mut Tx, node: &str, target: &str) -> Result<Option<TargetView>, DbError> {
    if !is_storable(node) || !is_storable(target) {
        return Ok(None);
    }
    let sql = format!("{TARGET}{}", tx.lock_clause());
    let known: Option<String> =
        on_tx!(tx, c => sqlx::query_scalar(AssertSqlSafe(sql)).bind(node).bind(target).fetch_optional(c).await)?;
    let waiting: i64 = on_tx!(tx, c => sqlx::query_scalar(WAITING).bind(node).bind(target).fetch_one(c).await)?;
    Ok(known.map(|target| TargetView { node: node.to_owned(), target, pending: waiting > 0 }))
}

/// The sort key; the node comes last, for its name may hold dots.
fn cursor(alarm: &Alarm) -> String {
    format!("{}.{}.{}", alarm.raised_at.0, alarm.id, alarm.node)
}

fn parse_cursor(cursor: &str) -> Result<(i64, &str, i64), ReadError> {
    let mut parts = cursor.splitn(3, '.');
    let parsed = (|| {
        let (raised_at, id, node) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        is_storable(node).then_some((raised_at, node, id))
    })();
    parsed.ok_or_else(|| ReadError::Invalid {
        field: "after",
        message: "this is no cursor of a list of alarms; take it from the page before".to_owned(),
    })
}
