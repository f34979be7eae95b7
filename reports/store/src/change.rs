//! The change pipeline of reports: a run is asked for, planned in `core`, and written as due.

use async_trait::async_trait;
use db::dialect::is_storable;
use db::pipeline::{self, Commands, Decided, Failed, Written};
use db::{Db, DbError, Tx, WriteError, dialect, on_tx};
use model::actor::Permission;
use model::change::{Change, ChangeError, CommitOptions, Committed, Plan};
use model::ctx::Ctx;
use model::id::{AccountId, ChangeId, RunId};
use model::tenancy::Scope;
use reports::command::Command;
use reports::resource::ReportRun;
use reports::run::{self, Planned, View};
use uuid::Uuid;

use crate::{ReportsStore, rows};

db::statements! {
    /// An account in a scope.
    ACCOUNT = "SELECT path, name, timezone FROM account WHERE id = $1 AND path >= $2 AND path < $3";
    /// The revision that comes next.
    NEXT_REVISION = "SELECT COALESCE(MAX(revision) + 1, 0) FROM report_run WHERE definition = $1 AND period = $2";
    /// A run that is due. What is there already stays: the schedule writes the same row on every node.
    INSERT = "INSERT INTO report_run (id, definition, period, revision, account_id, path, timezone, period_from, \
        period_to, provisional, state, attempt, recipients, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'due', 0, $11, $12) \
        ON CONFLICT (definition, period, revision) DO NOTHING";
}

#[async_trait]
impl Change<Command> for ReportsStore {
    async fn plan(&self, ctx: &Ctx, command: &Command) -> Result<Plan, ChangeError> {
        pipeline::plan(self, ctx, command).await
    }

    async fn commit(&self, ctx: &Ctx, command: Command, options: CommitOptions) -> Result<Committed, ChangeError> {
        pipeline::commit(self, ctx, command, options).await
    }
}

#[async_trait]
impl Commands for ReportsStore {
    type Command = Command;
    type Write = Planned;

    fn db(&self) -> &Db {
        &self.db
    }

    fn name(command: &Command) -> &'static str {
        command.name()
    }

    fn required(Command::ReportRun { .. }: &Command) -> Permission {
        Permission::ReportWrite
    }

    fn request(&self, command: &Command) -> Vec<Vec<u8>> {
        let Command::ReportRun { account, period, recipients } = command;
        let mut parts = vec![account.uuid().as_bytes().to_vec(), period.as_bytes().to_vec()];
        parts.extend(recipients.iter().map(|recipient| recipient.as_bytes().to_vec()));
        parts
    }

    async fn decide(&self, tx: &mut Tx, ctx: &Ctx, command: &Command) -> Result<Option<Decided<Planned>>, Failed> {
        let Command::ReportRun { account, period, .. } = command;
        let definition = run::requested(*account);
        // Two requests for one period get two revisions, whatever their timing.
        dialect::serialize_on(tx, &[b"report_run", definition.as_bytes(), period.as_bytes()]).await?;
        let view = view(tx, &ctx.scope, *account, &definition, period).await?;
        let planned = run::plan(view.as_ref(), command, RunId::new(&*ctx.ids), ctx.now());
        let planned = planned.map_err(|r| WriteError::Refused(ChangeError::Refused(r)))?;
        Ok(Some(Decided { plan: planned.plan.clone(), path: planned.run.path.clone(), write: planned }))
    }

    async fn write(&self, tx: &mut Tx, _: &Ctx, _: ChangeId, planned: Planned) -> Result<Written, DbError> {
        insert(tx, &planned.run, &planned.recipients).await?;
        Ok(Written::default())
    }
}

/// The account as far as `scope` sees it, and what was run before.
pub(crate) async fn view(
    tx: &mut Tx,
    scope: &Scope,
    account: AccountId,
    definition: &str,
    period: &str,
) -> Result<Option<View>, DbError> {
    let row: Option<(String, String, String)> = on_tx!(tx, c => sqlx::query_as(ACCOUNT)
        .bind(account.uuid()).bind(scope.lower()).bind(scope.upper()).fetch_optional(c).await)?;
    let Some((path, name, timezone)) = row else { return Ok(None) };
    // No month, which the decision tells
    let next: i64 = match is_storable(period) {
        true => on_tx!(tx, c => sqlx::query_scalar(NEXT_REVISION).bind(definition).bind(period).fetch_one(c).await)?,
        false => 0,
    };
    let next_revision = i32::try_from(next).map_err(|e| DbError::corrupt("report_run.revision", e))?;
    Ok(Some(View { account, path: rows::path("account.path", &path)?, name, timezone, next_revision }))
}

/// Writes a run as due. False when it is there already.
pub(crate) async fn insert(tx: &mut Tx, run: &ReportRun, recipients: &[String]) -> Result<bool, DbError> {
    let recipients = serde_json::to_string(recipients).map_err(|e| DbError::corrupt("report_run.recipients", e))?;
    let id: Uuid = run.id.uuid();
    let rows = on_tx!(tx, c => sqlx::query(INSERT)
        .bind(id).bind(&run.definition).bind(&run.period).bind(i64::from(run.revision)).bind(run.account.uuid())
        .bind(run.path.as_str()).bind(&run.timezone).bind(run.period_from.0).bind(run.period_to.0)
        .bind(run.provisional).bind(recipients).bind(run.created_at.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}
