//! The store's copy of alarms: reads, and acknowledgements on their way to the node.

use async_trait::async_trait;
use db::change::{self, Entry, Replay};
use db::sqlx::AssertSqlSafe;
use db::{Db, DbError, Tx, WriteError, on_db, on_tx};
use fault::acknowledgement;
use fault::command::Command;
use fault::port::Queries;
use fault::resource::Alarm;
use fault::resync::{self, TargetView};
use model::actor::Permission;
use model::change::{Change, ChangeError, CommitOptions, Committed, Plan};
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

    async fn copy_of(&self, command: &Command) -> Result<(), DbError> {
        let Command::AlarmAcknowledge { node, .. } = command else { return Ok(()) };
        if let Some(here) = self.here.as_ref().filter(|here| here.inner.node == *node) {
            while here.copy_pending(&self.db).await? > 0 {}
        }
        Ok(())
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
        self.copy_of(command).await?;
        let (ctx, command) = (ctx.clone(), command.clone());
        self.db
            .read::<_, ChangeError, _>(move |tx| {
                Box::pin(async move { Ok(planned(tx, &ctx, &command).await?.into_plan()) })
            })
            .await
    }

    async fn commit(&self, ctx: &Ctx, command: Command, options: CommitOptions) -> Result<Committed, ChangeError> {
        ctx.require(Permission::AlarmWrite)?;
        self.copy_of(&command).await?;
        let ctx = ctx.clone();
        let committed = self.db.write(move |tx| {
            let (ctx, command, options) = (ctx.clone(), command.clone(), options.clone());
            Box::pin(async move { commit(tx, &ctx, &command, &options).await })
        });
        committed.await.map_err(ChangeError::from)
    }
}

/// A decided command: its plan, and the alarm that it is about.
enum Planned {
    Acknowledge(Plan, Box<Alarm>),
    Resync(Plan),
}

impl Planned {
    const fn plan(&self) -> &Plan {
        match self {
            Self::Acknowledge(plan, _) | Self::Resync(plan) => plan,
        }
    }

    fn into_plan(self) -> Plan {
        match self {
            Self::Acknowledge(plan, _) | Self::Resync(plan) => plan,
        }
    }
}

async fn commit(
    tx: &mut Tx,
    ctx: &Ctx,
    command: &Command,
    options: &CommitOptions,
) -> Result<Committed, WriteError<ChangeError>> {
    let name = command.name();
    let request = match command {
        Command::AlarmAcknowledge { node, id, note } => {
            change::hash_request(&[name.as_bytes(), node.as_bytes(), &id.to_be_bytes(), note.as_bytes()])
        }
        Command::AlarmResync { node, target } => {
            change::hash_request(&[name.as_bytes(), node.as_bytes(), target.as_bytes()])
        }
    };
    let key = options.idempotency_key.as_ref();
    if let Replay::Answer(committed) = change::replay(tx, ctx, key, &request).await? {
        return Ok(committed);
    }
    let planned = planned(tx, ctx, command).await.map_err(WriteError::Refused)?;
    change::check_expected(planned.plan(), options).map_err(WriteError::Refused)?;
    let change = ChangeId::new(&*ctx.ids);
    // What belongs to the platform has no path: the change is noted where the actor sits.
    let mut path = &ctx.actor.path;
    match (command, &planned) {
        (Command::AlarmAcknowledge { node, id, note }, Planned::Acknowledge(_, alarm)) => {
            acknowledge(tx, ctx, (node, *id, note), alarm, change).await?;
            path = alarm.path.as_ref().unwrap_or(path);
        }
        (Command::AlarmResync { node, target }, _) => {
            let at = ctx.now();
            on_tx!(tx, c => sqlx::query(RESYNC)
                .bind(node).bind(target).bind(change.uuid()).bind(at.0).execute(c).await.map(|_| ()))?;
        }
        (Command::AlarmAcknowledge { .. }, Planned::Resync(_)) => {
            return Err(DbError::corrupt("plan", "an acknowledgement was planned as something else").into());
        }
    }
    let entry = Entry { command: name, plan: planned.plan(), key, request: &request, path, events: &[] };
    let change = change::record_as(tx, ctx, change, entry).await?;
    Ok(Committed { change, plan: planned.into_plan(), replayed: false, revealed: None })
}

async fn acknowledge(
    tx: &mut Tx,
    ctx: &Ctx,
    (node, id, note): (&str, u32, &str),
    alarm: &Alarm,
    change: ChangeId,
) -> Result<(), DbError> {
    let (by, at) = (ctx.actor.name.as_str(), ctx.now());
    let rows = on_tx!(tx, c => sqlx::query(ACKNOWLEDGE)
        .bind(node).bind(i64::from(id)).bind(by).bind(at.0).bind(note).execute(c).await
        .map(|done| done.rows_affected()))?;
    if rows != 1 {
        // The plan saw it unacknowledged, in this transaction and locked
        return Err(DbError::corrupt("alarm.acked_by", format!("alarm {id} of {node} changed after it was planned")));
    }
    on_tx!(tx, c => sqlx::query(SEND)
        .bind(node).bind(i64::from(id)).bind(change.uuid()).bind(by).bind(at.0).bind(note).bind(alarm.raised_at.0)
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

async fn planned(tx: &mut Tx, ctx: &Ctx, command: &Command) -> Result<Planned, ChangeError> {
    match command {
        Command::AlarmAcknowledge { node, id, note } => {
            let sql = format!("{ONE}{}", tx.lock_clause());
            let row: Result<Option<CopyRow>, sqlx::Error> = on_tx!(tx, c => sqlx::query_as(AssertSqlSafe(sql))
                .bind(node).bind(i64::from(*id)).bind(ctx.scope.lower()).bind(ctx.scope.upper()).fetch_optional(c).await);
            let view = row.map_err(DbError::from)?.map_or(Ok(None), alarm)?;
            let planned = acknowledgement::plan(view.as_ref(), &ctx.actor.name, ctx.now(), note);
            planned.map(|(plan, _)| (plan, view)).map_err(ChangeError::from).and_then(|(plan, view)| match view {
                Some(alarm) => Ok(Planned::Acknowledge(plan, Box::new(alarm))),
                None => Err(ChangeError::from(DbError::corrupt("alarm", "it was planned and is gone"))),
            })
        }
        Command::AlarmResync { node, target } => {
            let sql = format!("{TARGET}{}", tx.lock_clause());
            let known: Result<Option<String>, sqlx::Error> = on_tx!(tx, c => sqlx::query_scalar(AssertSqlSafe(sql))
                .bind(node).bind(target).fetch_optional(c).await);
            let known = known.map_err(DbError::from)?;
            let waiting: Result<i64, sqlx::Error> = on_tx!(tx, c => sqlx::query_scalar(WAITING)
                .bind(node).bind(target).fetch_one(c).await);
            let pending = waiting.map_err(DbError::from)? > 0;
            let view = known.map(|target| TargetView { node: node.clone(), target, pending });
            resync::plan(view.as_ref(), ctx).map(Planned::Resync).map_err(ChangeError::from)
        }
    }
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
