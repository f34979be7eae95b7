//! Jobs that run take turns: a turn is one transaction with some lines of a job, their results among it. The lines of a
//! job are done in their order, and nobody else does them meanwhile, since the job's row is held.

use std::sync::Arc;

use db::change::Entry;
use db::sqlx;
use db::{DbError, Tx, WriteError, lease, on_db, on_tx};
use model::actor::Permission;
use model::change::{ChangeError, Plan, Refusal, RefusalCode, ResourceRef};
use model::ctx::Ctx;
use model::id::{BulkJobId, ChangeId, IdSource, TraceId};
use model::tenancy::{AccountPath, Scope};
use model::time::Clock;
use provisioning::bulk::job::{BulkJob, JobMode, JobState, LineOutcome, LineResult};
use provisioning::bulk::{Line, Outcome, Picture, Step, decide_line};
use provisioning::port::StagedLine;
use uuid::Uuid;

use super::{Row, lines, load};
use crate::row::{Lock, parsed};
use crate::write::Writer;
use crate::{ProvisioningStore, access, account, row};

/// Lines of one turn: some tens of milliseconds in which others wait for the writer.
const TURN: u32 = 256;
/// Lines of which a check takes note at a time.
const CHECK_TURN: u32 = 2_048;
/// How long a check may be silent until another node takes it over.
const CHECK_LEASE_MS: i64 = 60_000;
/// Turns in a row that may come to nothing.
const FAILURES_MAX: i64 = 5;
/// Effects after which a turn ends before its last line: as many writes as some tens of milliseconds hold.
const EFFECTS_MAX: usize = 2_000;
/// Effects of lines that are done all or none: some seconds in which others wait for the writer.
const ALL_EFFECTS_MAX: usize = 50_000;
/// The command of changes that lines make.
const COMMAND: &str = "bulk_apply";

db::statements! {
    NEXT = "SELECT id, mode, run FROM bulk_job WHERE state = 'running' AND mode <> 'check' ORDER BY stepped_at, id LIMIT 1";
    NEXT_CHECK = "SELECT id, mode, run FROM bulk_job WHERE state = 'running' AND mode = 'check' ORDER BY stepped_at, id LIMIT 1";
    /// With whose rights, and from which account down.
    RIGHTS = "SELECT j.token_id, j.run, a.path FROM bulk_job j JOIN account a ON a.id = j.account_id WHERE j.id = $1";
    STEPPED = "UPDATE bulk_job SET state = $2, reason = $3, applied = applied + $4, unchanged = unchanged + $5, \
        refused = refused + $6, stepped_at = $7, updated_at = $7, finished_at = $8, failures = 0, version = version + 1 WHERE id = $1";
    /// A turn came to nothing: others have theirs first, and after some in a row the job stops.
    FAILED = "UPDATE bulk_job SET failures = failures + 1, stepped_at = $2, updated_at = $2, version = version + 1, \
        state = CASE WHEN failures + 1 < $3 THEN state ELSE 'stopped' END, \
        reason = CASE WHEN failures + 1 < $3 THEN reason ELSE $4 END, \
        finished_at = CASE WHEN failures + 1 < $3 THEN finished_at ELSE $2 END \
        WHERE id = $1 AND state = 'running' AND run = $5";
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkStep {
    /// Lines were done, or a job ended: there may be more.
    Worked,
    /// No job runs.
    Idle,
}

/// Why a turn ended without a result.
type Failed = WriteError<ChangeError>;

/// What a turn needs beside the transaction.
#[derive(Clone)]
struct Turn {
    store: ProvisioningStore,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    job: BulkJobId,
    /// The start that it belongs to.
    run: i64,
}

/// What lines came to.
#[derive(Default)]
struct Done {
    results: Vec<LineResult>,
    /// Changes in their order, each with the results that it belongs to.
    steps: Vec<(Step, Vec<usize>)>,
    effects: usize,
}

/// What is noted of a turn.
#[derive(Default)]
struct Tally {
    applied: i64,
    unchanged: i64,
    refused: i64,
}

impl Tally {
    fn of(results: &[LineResult]) -> Self {
        let mut tally = Self::default();
        for result in results {
            match result.outcome {
                LineOutcome::Applied => tally.applied += 1,
                LineOutcome::Unchanged => tally.unchanged += 1,
                LineOutcome::Refused => tally.refused += 1,
            }
        }
        tally
    }
}

impl ProvisioningStore {
    /// Gives the job that waits longest its turn.
    ///
    /// # Errors
    /// When the database fails; nothing of the turn was done then, and the next call tries it again.
    pub async fn bulk_step(&self, clock: &Arc<dyn Clock>, ids: &Arc<dyn IdSource>) -> Result<BulkStep, DbError> {
        let Some((turn, mode)) = self.turn(NEXT, clock, ids).await? else { return Ok(BulkStep::Idle) };
        let working = turn.clone();
        turn.guarded(async move {
            match mode {
                JobMode::AllOrNothing => working.all_or_nothing().await,
                JobMode::PerLine | JobMode::Check => working.per_line().await,
            }
        })
        .await
    }

    /// Does the check that waits longest, whole. Beside [`ProvisioningStore::bulk_step`], which it does not hold up.
    ///
    /// # Errors
    /// When the database fails; the next call begins the check anew.
    pub async fn bulk_check(
        &self,
        node: &str,
        clock: &Arc<dyn Clock>,
        ids: &Arc<dyn IdSource>,
    ) -> Result<BulkStep, DbError> {
        let Some((turn, _)) = self.turn(NEXT_CHECK, clock, ids).await? else { return Ok(BulkStep::Idle) };
        if !turn.holds_check(node).await? {
            return Ok(BulkStep::Idle);
        }
        let (working, node) = (turn.clone(), node.to_owned());
        turn.guarded(async move { working.check(&node).await }).await
    }

    async fn turn(
        &self,
        next: &'static str,
        clock: &Arc<dyn Clock>,
        ids: &Arc<dyn IdSource>,
    ) -> Result<Option<(Turn, JobMode)>, DbError> {
        let next: Option<(Uuid, String, i64)> = on_db!(&self.db, c => sqlx::query_as(next).fetch_optional(c).await)?;
        let Some((job, mode, run)) = next else { return Ok(None) };
        let (clock, ids) = (Arc::clone(clock), Arc::clone(ids));
        let turn = Turn { store: self.clone(), clock, ids, job: BulkJobId::from_uuid(job), run };
        Ok(Some((turn, parsed("bulk_job.mode", &mode)?)))
    }
}

impl Turn {
    /// Whatever becomes of a turn, the next one is another job's: a job that fails, or a defect that it meets, keeps
    /// nobody else from theirs.
    async fn guarded(
        self,
        work: impl Future<Output = Result<(), DbError>> + Send + 'static,
    ) -> Result<BulkStep, DbError> {
        let why = match tokio::spawn(work).await {
            Ok(Ok(())) => return Ok(BulkStep::Worked),
            Ok(Err(error)) if is_of_the_store(&error) => return Err(error),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => format!("a defect of the program: {panic}"),
        };
        tracing::error!(job.id = %self.job, error = why, "a turn of a bulk job came to nothing");
        let (job, run, now) = (self.job.uuid(), self.run, self.clock.now().utc.0);
        let noted = self.store.db.write::<_, ChangeError, _>(move |tx| {
            Box::pin(async move {
                let reason = "a defect or a damaged row keeps it from going on; the log has the cause";
                on_tx!(tx, c => sqlx::query(FAILED)
                    .bind(job).bind(now).bind(FAILURES_MAX).bind(reason).bind(run).execute(c).await.map(|_| ()))?;
                Ok(())
            })
        });
        done(noted.await)?;
        Ok(BulkStep::Worked)
    }

    /// Some lines, each for itself. When they cannot be done together, as when another change took what one of them wants
    /// at the same time, they come again one by one, and the one that cannot be done is refused.
    async fn per_line(&self) -> Result<(), DbError> {
        match self.lines_done(TURN, None).await {
            Err(WriteError::Db(error)) if !is_of_the_store(&error) => {}
            other => return done(other),
        }
        let refused: ChangeError = match self.lines_done(1, None).await {
            Err(WriteError::Db(DbError::Unique { constraint })) => {
                <ProvisioningStore as db::pipeline::Commands>::raced(constraint)
            }
            Err(WriteError::Db(DbError::ForeignKey)) => {
                let message = "what it refers to was removed at the same time";
                Refusal::new(RefusalCode::Conflict, "", message, "look it up, and send the line again").into()
            }
            Err(WriteError::Db(error)) if !is_of_the_store(&error) => {
                tracing::error!(job.id = %self.job, %error, "a line of a bulk job could not be done");
                let message = "a damaged row or a defect keeps it from being done; the log has the cause";
                Refusal::new(RefusalCode::Conflict, "", message, "tell the operator, then send the line again").into()
            }
            other => return done(other),
        };
        done(self.lines_done(1, Some(refused)).await)
    }

    async fn lines_done(&self, limit: u32, refused: Option<ChangeError>) -> Result<(), Failed> {
        let shared = Arc::new((self.clone(), refused));
        self.store
            .db
            .write(move |tx| {
                let shared = Arc::clone(&shared);
                Box::pin(async move {
                    let (turn, refused) = &*shared;
                    turn.lines_in(tx, limit, refused.as_ref()).await
                })
            })
            .await
    }

    async fn lines_in(&self, tx: &mut Tx, limit: u32, refused: Option<&ChangeError>) -> Result<(), Failed> {
        let Some((job, ctx)) = self.begun(tx).await? else { return Ok(()) };
        let sealer = &self.store.sealer;
        let staged = lines::waiting(tx, sealer, self.job, 0, limit).await?;
        let Some(last) = staged.last().map(|line| line.line) else {
            return Ok(self.ended(tx, JobState::Finished, None).await?);
        };
        let mut done = match refused {
            None => decided(tx, &ctx, staged, &mut Picture::default(), EFFECTS_MAX).await?,
            Some(error) => Done { results: vec![refused_line(last, reasons(error))], ..Done::default() },
        };
        let last = done.results.last().map_or(last, |result| result.line);
        self.write(tx, &ctx, &mut done).await?;
        lines::done(tx, self.job, last).await?;
        self.stepped(tx, job.state, None, &Tally::of(&done.results), None).await?;
        Ok(())
    }

    /// Every line, or none. The writer is held for all of them, which is why they are bounded.
    async fn all_or_nothing(&self) -> Result<(), DbError> {
        let turn = Arc::new(self.clone());
        let written = self.store.db.write(move |tx| {
            let turn = Arc::clone(&turn);
            Box::pin(async move { turn.all_in(tx).await })
        });
        done(written.await)
    }

    async fn all_in(&self, tx: &mut Tx) -> Result<(), Failed> {
        let Some((_, ctx)) = self.begun(tx).await? else { return Ok(()) };
        lines::wait_anew(tx, self.job).await?;
        let (mut done, mut picture, mut last) = (Done::default(), Picture::default(), 0);
        loop {
            let staged = lines::waiting(tx, &self.store.sealer, self.job, last, TURN).await?;
            let Some(line) = staged.last().map(|line| line.line) else { break };
            last = line;
            done.join(decided(tx, &ctx, staged, &mut picture, usize::MAX).await?);
            if done.effects > ALL_EFFECTS_MAX {
                let reason =
                    format!("it changes more than {ALL_EFFECTS_MAX} objects: start it line by line, or divide it");
                let now = Some(ctx.now().0);
                return Ok(self.stepped(tx, JobState::Refused, Some(reason), &Tally::default(), now).await?);
            }
        }
        if done.results.iter().any(|result| result.outcome == LineOutcome::Refused) {
            // the others were not done either: only what was refused has a result
            done.results.retain(|result| result.outcome == LineOutcome::Refused);
            lines::store_results(tx, &self.store.sealer, self.job, &done.results).await?;
            let reason = "a line was refused, so nothing was done".to_owned();
            self.stepped(tx, JobState::Refused, Some(reason), &Tally::of(&done.results), Some(ctx.now().0)).await?;
            return Ok(());
        }
        self.write(tx, &ctx, &mut done).await?;
        lines::done(tx, self.job, last).await?;
        let tally = Tally::of(&done.results);
        self.stepped(tx, JobState::Finished, None, &tally, Some(ctx.now().0)).await?;
        Ok(())
    }

    /// Decides on every line as if those before it were done. The writer is held for the results alone.
    async fn check(&self, node: &str) -> Result<(), DbError> {
        let turn = Arc::new(self.clone());
        let begun = self.store.db.write(move |tx| {
            let turn = Arc::clone(&turn);
            Box::pin(async move {
                let Some((_, ctx)) = turn.begun(tx).await? else { return Ok(None) };
                lines::wait_anew(tx, turn.job).await?;
                Ok::<_, Failed>(Some(ctx))
            })
        });
        let ctx = match begun.await {
            Ok(Some(ctx)) => ctx,
            Ok(None) => return Ok(()),
            Err(WriteError::Db(error)) => return Err(error),
            Err(WriteError::Refused(refused)) => return Err(DbError::corrupt("bulk_job", refused)),
        };
        let (mut picture, mut last) = (Picture::default(), 0);
        loop {
            let (turn, shared, before) = (self.clone(), ctx.clone(), (picture.clone(), last));
            let read = self.store.db.read::<_, DbError, _>(move |tx| {
                Box::pin(async move {
                    let (mut picture, last) = before;
                    let staged = lines::waiting(tx, &turn.store.sealer, turn.job, last, CHECK_TURN).await?;
                    let last = staged.last().map(|line| line.line);
                    let done = decided(tx, &shared, staged, &mut picture, usize::MAX).await?;
                    Ok((picture, last, done))
                })
            });
            let (after, line, mut done) = read.await?;
            for result in &mut done.results {
                // what a check would have drawn or made is never used
                if result.outcome == LineOutcome::Applied {
                    result.object = None;
                }
            }
            let goes_on = self.checked(Arc::new(done.results), line.is_none()).await?;
            let Some(line) = line.filter(|_| goes_on) else { return Ok(()) };
            (picture, last) = (after, line);
            if !self.holds_check(node).await? {
                return Ok(());
            }
        }
    }

    async fn holds_check(&self, node: &str) -> Result<bool, DbError> {
        let name = format!("bulk/{}", self.job);
        lease::hold(&self.store.db, &name, node, self.clock.now().utc, CHECK_LEASE_MS).await
    }

    /// Notes results of a check; false when the job runs no more.
    async fn checked(&self, results: Arc<Vec<LineResult>>, is_end: bool) -> Result<bool, DbError> {
        let turn = Arc::new(self.clone());
        let written = self.store.db.write(move |tx| {
            let (turn, results) = (Arc::clone(&turn), Arc::clone(&results));
            Box::pin(async move {
                let Some((job, ctx)) = turn.begun(tx).await? else { return Ok(false) };
                lines::store_results(tx, &turn.store.sealer, turn.job, &results).await?;
                let (state, finished_at) =
                    if is_end { (JobState::Staged, Some(ctx.now().0)) } else { (job.state, None) };
                turn.stepped(tx, state, None, &Tally::of(&results), finished_at).await?;
                Ok::<_, Failed>(!is_end)
            })
        });
        match written.await {
            Ok(goes_on) => Ok(goes_on),
            Err(WriteError::Db(error)) => Err(error),
            Err(WriteError::Refused(refused)) => Err(DbError::corrupt("bulk_job", refused)),
        }
    }

    /// Holds the job, when it still runs, and gives it with the rights of its token; a token without them stops it.
    async fn begun(&self, tx: &mut Tx) -> Result<Option<(BulkJob, Ctx)>, DbError> {
        let job = row::load::<Row>(tx, super::LOAD, self.job.uuid(), Lock::Held).await?;
        let Some(job) = job.filter(|job| job.state == JobState::Running) else { return Ok(None) };
        let (token, run, path): (Option<Uuid>, i64, String) =
            on_tx!(tx, c => sqlx::query_as(RIGHTS).bind(self.job.uuid()).fetch_one(c).await)?;
        if run != self.run {
            return Ok(None);
        }
        let path: AccountPath = parsed("account.path", &path)?;
        let now = self.clock.now().utc;
        let actor = match token {
            Some(token) => access::actor(tx, token, now).await?,
            None => None,
        };
        let enabled = account::ancestry(tx, &path, Lock::Free).await?.iter().all(|account| account.enabled);
        let actor = actor.filter(|actor| {
            enabled && actor.path.contains(&path) && actor.permissions.has(Permission::ProvisioningWrite)
        });
        let Some(mut actor) = actor else {
            let reason = "the token that started it has ended or lacks provisioning:write, or the account is disabled"
                .to_owned();
            self.ended(tx, JobState::Stopped, Some(reason)).await?;
            return Ok(None);
        };
        // The names of the lines are read from the job's account down, whoever started it from above.
        let scope = Scope::of(&path);
        (actor.account, actor.path) = (job.account, path);
        let (clock, ids) = (Arc::clone(&self.clock), Arc::clone(&self.ids));
        let trace = TraceId::new(&*ids);
        Ok(Some((job, Ctx { actor, scope, clock, ids, trace })))
    }

    async fn ended(&self, tx: &mut Tx, state: JobState, reason: Option<String>) -> Result<(), DbError> {
        self.stepped(tx, state, reason, &Tally::default(), Some(self.clock.now().utc.0)).await
    }

    async fn stepped(
        &self,
        tx: &mut Tx,
        state: JobState,
        reason: Option<String>,
        tally: &Tally,
        finished_at: Option<i64>,
    ) -> Result<(), DbError> {
        on_tx!(tx, c => sqlx::query(STEPPED)
            .bind(self.job.uuid()).bind(state.as_str()).bind(reason).bind(tally.applied).bind(tally.unchanged)
            .bind(tally.refused).bind(self.clock.now().utc.0).bind(finished_at)
            .execute(c).await.map(|_| ()))?;
        Ok(())
    }

    /// Writes what lines do, a change for each step, and their results.
    async fn write(&self, tx: &mut Tx, ctx: &Ctx, done: &mut Done) -> Result<(), DbError> {
        let steps: Vec<(ChangeId, Step, Vec<usize>)> = std::mem::take(&mut done.steps)
            .into_iter()
            .map(|(step, of)| (ChangeId::new(&*ctx.ids), step, of))
            .collect();
        let mut recorded = Vec::with_capacity(steps.len());
        let mut writer = Writer::new(tx, &self.store.sealer, ctx.now());
        for (change, step, of) in steps {
            for place in of {
                if let Some(result) = done.results.get_mut(place) {
                    result.changes.push(change);
                }
            }
            let Step { path, effects, writes, reversibility } = step;
            writer.take(change, writes).await?;
            recorded.push((change, path, Plan { effects, versions: Vec::new(), reversibility }));
        }
        for (object, password) in writer.finish().await? {
            let named = |result: &&mut LineResult| result.object.is_some_and(|of| of.id == object);
            if let Some(result) = done.results.iter_mut().find(named) {
                result.password = Some(password);
            }
        }
        lines::store_results(tx, &self.store.sealer, self.job, &done.results).await?;
        for (change, path, plan) in &recorded {
            let entry = Entry { command: COMMAND, plan, key: None, request: &[0; 32], path, events: &[] };
            db::change::record(tx, ctx, *change, entry).await?;
        }
        Ok(())
    }
}

impl Done {
    fn join(&mut self, next: Self) {
        let before = self.results.len();
        self.results.extend(next.results);
        self.effects += next.effects;
        for (step, of) in next.steps {
            self.push(step, of.into_iter().map(|place| place + before));
        }
    }

    /// Steps in a row that go together are one change.
    fn push(&mut self, step: Step, of: impl Iterator<Item = usize>) {
        let next = match self.steps.last_mut() {
            Some((last, _)) if last.effects.len() < usize::try_from(TURN).unwrap_or(usize::MAX) => last.join(step),
            _ => Err(step),
        };
        match (next, self.steps.last_mut()) {
            (Ok(()), Some((_, places))) => places.extend(of),
            (Err(step), _) => self.steps.push((step, of.collect())),
            (Ok(()), None) => {}
        }
    }
}

/// Decides on lines one after the other, until they have as many effects.
async fn decided(
    tx: &mut Tx,
    ctx: &Ctx,
    staged: Vec<StagedLine>,
    picture: &mut Picture,
    effects_max: usize,
) -> Result<Done, DbError> {
    let parsed: Vec<(u32, Result<Line, Vec<Refusal>>)> = staged
        .into_iter()
        .map(|StagedLine { line, fields }| (line, fields.map_err(|refusal| vec![refusal]).and_then(Line::parse)))
        .collect();
    let lines = parsed.iter().filter_map(|(_, line)| line.as_ref().ok());
    load::load(tx, (ctx.actor.account, &ctx.actor.path), lines, picture).await?;
    let mut done = Done::default();
    for (line, parsed) in parsed {
        let decision = parsed.and_then(|parsed| decide_line(ctx, picture, &parsed));
        let place = done.results.len();
        match decision {
            Ok(decision) => {
                let outcome = match decision.outcome() {
                    Outcome::Applied => LineOutcome::Applied,
                    Outcome::Unchanged => LineOutcome::Unchanged,
                };
                let object = decision.object.map(|(kind, id)| ResourceRef { kind, id });
                let result =
                    LineResult { line, outcome, object, changes: Vec::new(), refusals: Vec::new(), password: None };
                done.results.push(result);
                for step in decision.steps {
                    done.effects += step.effects.len();
                    done.push(step, std::iter::once(place));
                }
            }
            Err(refusals) => done.results.push(refused_line(line, refusals)),
        }
        if done.effects >= effects_max {
            break;
        }
    }
    Ok(done)
}

const fn refused_line(line: u32, refusals: Vec<Refusal>) -> LineResult {
    LineResult { line, outcome: LineOutcome::Refused, object: None, changes: Vec::new(), refusals, password: None }
}

fn reasons(error: &ChangeError) -> Vec<Refusal> {
    match error {
        ChangeError::Refused(refusals) => refusals.clone(),
        other => {
            let message = other.to_string();
            vec![Refusal::new(RefusalCode::Conflict, "", message, "send the line again")]
        }
    }
}

/// Whether the store is away, busy or full: then nobody's turn would go better.
const fn is_of_the_store(error: &DbError) -> bool {
    matches!(error, DbError::Unavailable(_) | DbError::Contended { .. } | DbError::Full(_))
}

fn done(outcome: Result<(), Failed>) -> Result<(), DbError> {
    match outcome {
        Ok(()) => Ok(()),
        Err(WriteError::Db(error)) => Err(error),
        Err(WriteError::Refused(refused)) => Err(DbError::corrupt("bulk_job", refused)),
    }
}
