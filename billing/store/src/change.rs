//! The commands of billing as changes: loaded, decided and written in one transaction.

use async_trait::async_trait;
use billing::charging::{Outcome, assess};
use billing::command::Command;
use billing::decide::{self, AccountView, Refusals, Retried};
use billing::file::{FORMAT_VERSION, file_name};
use billing::mediation::{LEG_CALLEE, LEG_CALLER, Leg, claim};
use billing::resource::{Acknowledgement, AssignmentTarget, BillingFile, Stream, Tariff, TariffAssignment};
use db::dialect::bulk_insert;
use db::pipeline::{self, Commands, Decided, Failed, Written};
use db::{Db, DbError, Tx, WriteError};
use model::actor::Permission;
use model::change::{Change, ChangeError, CommitOptions, Committed, Plan};
use model::ctx::Ctx;
use model::event::store::{Billed, StoreEvent};
use model::id::{AccountId, AssignmentId, BatchId, ChangeId, FileId, StreamId, TariffId};
use model::tenancy::Scope;

use crate::consume::rated_event;
use crate::rated::{self, Charged};
use crate::suspense::{self, RETRIED, SuspenseRow};
use crate::troubles::{self, Stage};
use crate::{BillingStore, account, file, stream, tariff, usage};

/// What is written. Public only as an associated type of the pipeline.
#[derive(Debug)]
pub enum Write {
    /// A tariff with its rates.
    Tariff(Box<Tariff>),
    /// An assignment, and who owns it.
    Assignment(TariffAssignment, AccountId),
    /// A stream.
    Stream(Stream),
    /// A file that is closed.
    File(Box<ClosedFile>),
    /// What the BSS said of a file.
    Acknowledgement(FileId, Acknowledgement),
    /// What a retry found.
    Retry(Retry),
}

/// A file with its items: the rows that its stream takes next.
#[derive(Debug)]
pub struct ClosedFile {
    state: stream::StreamState,
    file: BillingFile,
    rated_to: i64,
}

/// What a retry found for each charge that waited.
#[derive(Debug)]
pub struct Retry {
    charged: Vec<Charged>,
    rows: Vec<SuspenseRow>,
    suspended: usize,
}

fn refused(refusals: Refusals) -> Failed {
    WriteError::Refused(ChangeError::Refused(refusals))
}

/// What is asked of billing.
#[derive(Debug, Clone)]
pub enum Asked {
    /// By a client.
    Command(Command),
    /// By the daemon, when the period of a stream has passed; asked again under the stream's lock.
    CloseDue(StreamId),
}

/// Why a file is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closure {
    Request,
    Period,
}

impl Closure {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Period => "period",
        }
    }
}

#[async_trait]
impl Change<Command> for BillingStore {
    async fn plan(&self, ctx: &Ctx, command: &Command) -> Result<Plan, ChangeError> {
        pipeline::plan(self, ctx, &Asked::Command(command.clone())).await
    }

    async fn commit(&self, ctx: &Ctx, command: Command, options: CommitOptions) -> Result<Committed, ChangeError> {
        pipeline::commit(self, ctx, Asked::Command(command), options).await
    }
}

#[async_trait]
impl Commands for BillingStore {
    type Command = Asked;
    type Write = Write;

    fn db(&self) -> &Db {
        &self.db
    }

    fn name(asked: &Asked) -> &'static str {
        match asked {
            Asked::Command(command) => command.name(),
            Asked::CloseDue(stream) => Command::FileClose { stream: *stream }.name(),
        }
    }

    fn required(asked: &Asked) -> Permission {
        match asked {
            Asked::Command(command) => decide::required(command),
            Asked::CloseDue(_) => Permission::BillingWrite,
        }
    }

    fn request(&self, asked: &Asked) -> Vec<Vec<u8>> {
        match asked {
            Asked::Command(command) => vec![decide::request_bytes(command)],
            Asked::CloseDue(stream) => vec![stream.uuid().as_bytes().to_vec()],
        }
    }

    async fn decide(&self, tx: &mut Tx, ctx: &Ctx, asked: &Asked) -> Result<Option<Decided<Write>>, Failed> {
        match asked {
            Asked::Command(command) => self.decide_command(tx, ctx, command).await,
            Asked::CloseDue(stream) => decide_close(tx, ctx, *stream, Closure::Period).await,
        }
    }

    async fn write(&self, tx: &mut Tx, ctx: &Ctx, _: ChangeId, write: Write) -> Result<Written, DbError> {
        Ok(Written { events: write_rows(tx, ctx, write).await?, ..Written::default() })
    }
}

impl BillingStore {
    /// Closes the open file of each stream whose period has passed at the time of `ctx`, which is the daemon's own.
    /// Two may call it at once. Gives the files that were closed.
    ///
    /// # Errors
    /// The first [`ChangeError`], after all streams were tried: one that cannot be closed does not hold up the others.
    pub async fn close_due(&self, ctx: &Ctx) -> Result<Vec<FileId>, ChangeError> {
        ctx.require(Permission::BillingWrite)?;
        let now = ctx.now();
        let due = self.db.read::<_, DbError, _>(move |tx| Box::pin(async move { stream::due(tx, now).await })).await?;
        self.failures.keep(Stage::Close, |stream| due.contains(&stream));
        let (mut closed, mut failure) = (Vec::new(), None);
        for stream in due {
            let asked = Asked::CloseDue(stream);
            let committed = match pipeline::commit_if_needed(self, ctx, asked, CommitOptions::default()).await {
                Ok(committed) => committed,
                Err(error) => {
                    self.failures.failed(Stage::Close, stream, now, troubles::why_not_closed(&error));
                    failure.get_or_insert(error);
                    continue;
                }
            };
            self.failures.succeeded(Stage::Close, stream);
            let effects = committed.into_iter().flat_map(|committed| committed.plan.effects);
            closed.extend(effects.map(|effect| FileId::from_uuid(effect.resource.id)));
        }
        failure.map_or(Ok(closed), Err)
    }

    /// Loads what the command looks at and decides.
    async fn decide_command(
        &self,
        tx: &mut Tx,
        ctx: &Ctx,
        command: &Command,
    ) -> Result<Option<Decided<Write>>, Failed> {
        match command {
            Command::TariffCreate { account, name, currency, rounding, rates } => {
                let tariff = Tariff {
                    id: TariffId::new(&*ctx.ids),
                    account: *account,
                    name: name.clone(),
                    currency: *currency,
                    rounding: *rounding,
                    rates: rates.clone(),
                    version: 1,
                };
                let owner = account::get(tx, &ctx.scope, *account).await?;
                let taken = owner.is_some() && tariff::name_taken(tx, *account, name).await?;
                let plan = decide::tariff_create(owner.as_ref(), taken, &tariff).map_err(refused)?;
                Ok(owner.map(|owner| Decided { plan, path: owner.path, write: Write::Tariff(Box::new(tariff)) }))
            }
            Command::TariffAssign { tariff, target, valid_from, valid_to } => {
                let assignment = TariffAssignment {
                    id: AssignmentId::new(&*ctx.ids),
                    tariff: *tariff,
                    target: *target,
                    valid_from: *valid_from,
                    valid_to: *valid_to,
                    version: 1,
                };
                decide_assignment(tx, ctx, assignment).await
            }
            Command::StreamCreate { account, name, side, close_period_ms } => {
                let stream = Stream {
                    id: StreamId::new(&*ctx.ids),
                    account: *account,
                    name: name.clone(),
                    side: *side,
                    close_period_ms: *close_period_ms,
                    next_sequence: 1,
                    version: 1,
                };
                let owner = account::get(tx, &ctx.scope, *account).await?;
                let taken = owner.is_some() && stream::name_taken(tx, *account, name).await?;
                let plan = decide::stream_create(owner.as_ref(), taken, &stream).map_err(refused)?;
                Ok(owner.map(|owner| Decided { plan, path: owner.path, write: Write::Stream(stream) }))
            }
            Command::FileClose { stream } => decide_close(tx, ctx, *stream, Closure::Request).await,
            Command::FileAcknowledge { file, accepted, reason } => {
                let (accepted, reason) = (*accepted, reason.clone());
                let said = Acknowledgement { accepted, reason, by: ctx.actor.name.clone(), at: ctx.now() };
                let found = file::get(tx, &ctx.scope, *file).await?;
                let plan = decide::file_acknowledge(found.as_ref(), &said).map_err(refused)?;
                let Some(found) = found else { return Ok(None) };
                let state = stream::get(tx, &ctx.scope, found.stream).await?;
                let path = state.ok_or_else(|| DbError::corrupt("billing_file.stream_id", found.stream))?.path;
                Ok(Some(Decided { plan, path, write: Write::Acknowledgement(*file, said) }))
            }
            Command::SuspenseRetry { account } => {
                let found = account::get(tx, &ctx.scope, *account).await?;
                let (retried, retry) = match &found {
                    Some(account) => self.retry(tx, ctx, account).await?,
                    None => (Retried::default(), Retry { charged: Vec::new(), rows: Vec::new(), suspended: 0 }),
                };
                let plan = decide::suspense_retry(found.as_ref(), retried).map_err(refused)?;
                Ok(found.map(|account| Decided { plan, path: account.path, write: Write::Retry(retry) }))
            }
        }
    }

    /// Rates what waits at and below an account again.
    async fn retry(&self, tx: &mut Tx, ctx: &Ctx, account: &AccountView) -> Result<(Retried, Retry), DbError> {
        let scope = Scope::subtree(&account.path);
        let open = suspense::open_count(tx, &scope).await?;
        let rows = suspense::open(tx, &scope, decide::RETRY_MAX).await?;
        let keys = rows.iter().map(SuspenseRow::key).collect::<Result<Vec<_>, _>>()?;
        let mut calls: Vec<_> = keys.iter().map(|(call, _, _)| *call).collect();
        calls.sort_unstable();
        calls.dedup();
        let usages = usage::of_calls(tx, &calls).await?;
        let mut legs = Vec::with_capacity(keys.len());
        for (call, leg, part) in &keys {
            let usage = usages.get(&(*call, *leg, *part));
            let usage = usage.ok_or_else(|| DbError::corrupt("suspense.call_id", "it waits without usage"))?;
            let other = if *leg == LEG_CALLER { LEG_CALLEE } else { LEG_CALLER };
            let claim = claim(usage, usages.get(&(*call, other, *part)));
            legs.push(Leg { usage: usage.clone(), claim });
        }
        let book = tariff::book(tx, &self.tariffs, &legs).await?;
        let now = ctx.now();
        let tried = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let mut retry = Retry { charged: Vec::new(), rows: Vec::with_capacity(rows.len()), suspended: 0 };
        for ((row, key), leg) in rows.into_iter().zip(keys).zip(legs) {
            match assess(&leg, &book) {
                Outcome::Rated(charge) if charge.side == row.side()? => {
                    retry.charged.push(Charged { key, answered_at: leg.usage.answered_at, charge });
                    retry.rows.push(row.resolved(now));
                }
                Outcome::Suspended { code, detail, .. } => {
                    retry.suspended += 1;
                    retry.rows.push(row.still(Some((code.as_str(), detail))));
                }
                Outcome::Rated(_) | Outcome::Uncharged => {
                    retry.suspended += 1;
                    retry.rows.push(row.still(None));
                }
            }
        }
        let rated = i64::try_from(retry.charged.len()).unwrap_or(i64::MAX);
        Ok((Retried { open, tried, rated }, retry))
    }
}

/// Writes what was decided and gives the events beside `changed`.
async fn write_rows(tx: &mut Tx, ctx: &Ctx, write: Write) -> Result<Vec<StoreEvent>, DbError> {
    let now = ctx.now();
    match write {
        Write::Tariff(tariff) => tariff::insert(tx, &tariff, now).await?,
        Write::Assignment(assignment, owner) => tariff::assign(tx, &assignment, owner, now).await?,
        Write::Stream(stream) => stream::insert(tx, &stream, now).await?,
        Write::File(closed) => {
            let ClosedFile { state, file, rated_to } = *closed;
            file::insert(tx, &file, &state, rated_to).await?;
            stream::advance(tx, file.stream, file.sequence, rated_to, now).await?;
            return Ok(vec![StoreEvent::Billed(Billed {
                file: file.id,
                stream: file.stream,
                sequence: file.sequence,
                account: state.stream.account,
                path: state.path,
                record_count: file.record_count,
            })]);
        }
        Write::Acknowledgement(file, said) => file::acknowledge(tx, file, &said).await?,
        Write::Retry(Retry { charged, rows, suspended }) => {
            bulk_insert(tx, &rows, RETRIED).await?;
            if !charged.is_empty() {
                let batch = BatchId::new(&*ctx.ids);
                let (first, end) = rated::insert(tx, &*ctx.ids, batch, &charged, now).await?;
                usage::resolve(tx, first, end).await?;
                return Ok(vec![rated_event(batch, 0, charged.len(), suspended)]);
            }
        }
    }
    Ok(Vec::new())
}

async fn decide_assignment(
    tx: &mut Tx,
    ctx: &Ctx,
    assignment: TariffAssignment,
) -> Result<Option<Decided<Write>>, Failed> {
    let target: AssignmentTarget = assignment.target;
    let found = tariff::get(tx, &ctx.scope, assignment.tariff).await?;
    let view = account::target(tx, &ctx.scope, target).await?;
    let existing = if view.is_some() { tariff::assignments_of(tx, target).await? } else { Vec::new() };
    // The decision looks at owner and currency, never at rates.
    let found = found.map(|(head, path)| (head.with(Vec::new()), path));
    let tariff = found.as_ref().map(|(tariff, path)| (tariff, path));
    let plan = decide::tariff_assign(&ctx.scope, tariff, view.as_ref(), &existing, &assignment).map_err(refused)?;
    Ok(view.map(|view| {
        let write = Write::Assignment(assignment, view.account.id);
        Decided { plan, path: view.account.path, write }
    }))
}

async fn decide_close(
    tx: &mut Tx,
    ctx: &Ctx,
    id: StreamId,
    closure: Closure,
) -> Result<Option<Decided<Write>>, Failed> {
    let now = ctx.now();
    let found = stream::get(tx, &ctx.scope, id).await?;
    let Some(state) = found else {
        return decide::file_close(None).map(|_| None).map_err(refused);
    };
    if closure == Closure::Period && !stream::is_due(tx, &state, now).await? {
        return Ok(None);
    }
    let contents = file::contents(tx, &state).await?;
    let sequence = state.stream.next_sequence;
    let file = BillingFile {
        id: FileId::new(&*ctx.ids),
        stream: id,
        sequence,
        name: file_name(&state.stream.name, sequence),
        format_version: FORMAT_VERSION,
        closure_reason: closure.as_str().to_owned(),
        closed_at: now,
        record_count: contents.record_count,
        billed_ms: contents.billed_ms,
        totals: contents.totals,
        answered_range: contents.answered_range,
        published: false,
        size: None,
        sha256: None,
        previous_sha256: None,
        acknowledgement: None,
    };
    let plan = decide::file_close(Some((&state.stream, &file))).map_err(refused)?;
    let path = state.path.clone();
    let write = Write::File(Box::new(ClosedFile { state, file, rated_to: contents.rated_to }));
    Ok(Some(Decided { plan, path, write }))
}
