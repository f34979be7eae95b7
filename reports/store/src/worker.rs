//! The worker of runs: claim, figures, files, finish. Every write names the attempt of the claim, so that a worker that
//! was asleep past its lease cannot finish what another one holds.

use db::{DbError, Tx, WriteError, feed, on_tx, outbox};
use model::event::store::{Reported, StoreEvent};
use model::id::MessageId;
use model::time::Timestamp;
use reports::figures::Figures;
use reports::resource::{Format, ReportRun};
use reports::run;

use crate::rows::{RunRow, run_columns};
use crate::{ReportsStore, artefact, mail, render, snapshot};

/// How long a claim holds. A run takes seconds; a worker that died is replaced after this.
pub(crate) const LEASE_MS: i64 = 300_000;
/// Claims after which a run is given up: what fails so often fails again.
pub(crate) const ATTEMPTS_MAX: i64 = 5;
/// Wait after a failed attempt, times the attempt.
const RETRY_MS: i64 = 60_000;
/// How often a run looks whether what it waits for is there.
const WAIT_MS: i64 = 600_000;
/// Runs of one call, so that a long queue does not keep the caller from its other work.
const RUNS_MAX: usize = 20;

db::statements! {
    /// The oldest run that nobody holds and that waits for nothing, one that has waited last; of months that are caught
    /// up together the earlier one. The condition stands twice: on PostgreSQL a worker that waited for the row looks again at the outer one only.
    CLAIM = concat!("UPDATE report_run SET state = 'running', holder = $1, lease_until = $2, attempt = attempt + 1 \
        WHERE id = (SELECT id FROM report_run WHERE state IN ('due', 'running') \
            AND (lease_until IS NULL OR lease_until <= $3) ORDER BY COALESCE(lease_until, 0), created_at, \
                period_from, id LIMIT 1) \
        AND state IN ('due', 'running') AND (lease_until IS NULL OR lease_until <= $3) \
        RETURNING attempt, recipients, figures, ", run_columns!());
    /// The figures, once.
    KEEP = "UPDATE report_run SET figures = $3 WHERE id = $1 AND attempt = $2 AND state = 'running'";
    FINISH = "UPDATE report_run SET state = 'finished', provisional = $3, html_sha256 = $4, csv_sha256 = $5, \
        xlsx_sha256 = $6, finished_at = $7, holder = NULL, lease_until = NULL, error = NULL \
        WHERE id = $1 AND attempt = $2 AND state = 'running'";
    /// What the figures wait for may come: due again later, and no attempt.
    POSTPONE = "UPDATE report_run SET state = 'due', holder = NULL, attempt = attempt - 1, lease_until = $3 \
        WHERE id = $1 AND attempt = $2 AND state = 'running'";
    /// After a failed attempt: wait, or give up.
    RETRY = "UPDATE report_run SET error = $3, lease_until = $4 WHERE id = $1 AND attempt = $2 AND state = 'running'";
    GIVE_UP = "UPDATE report_run SET state = 'failed', error = $3, finished_at = $4, holder = NULL, \
        lease_until = NULL WHERE id = $1 AND attempt = $2 AND state = 'running'";
}

#[derive(sqlx::FromRow)]
struct ClaimRow {
    attempt: i64,
    recipients: String,
    figures: Option<String>,
    #[sqlx(flatten)]
    run: RunRow,
}

/// A run that this worker holds.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) run: ReportRun,
    pub(crate) attempt: i64,
    recipients: Vec<String>,
    figures: Option<String>,
}

/// Why an attempt did not finish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("the report could not be rendered: {0}")]
    Render(#[from] render::RenderError),
    #[error("the report could not be written to disk: {0}")]
    Artefact(#[from] std::io::Error),
    #[error("another worker holds the run")]
    Fenced,
    #[error("the figures still grow")]
    Waits,
}

impl From<WriteError<Self>> for RunError {
    fn from(error: WriteError<Self>) -> Self {
        match error {
            WriteError::Db(error) => error.into(),
            WriteError::Refused(refused) => refused,
        }
    }
}

/// The renderings of a run.
#[derive(Debug, Clone)]
pub(crate) struct Rendered {
    pub(crate) html: Vec<u8>,
    pub(crate) csv: Vec<u8>,
    pub(crate) xlsx: Vec<u8>,
    provisional: bool,
}

impl ReportsStore {
    /// Finishes the runs that are due, one after the other, as `holder` (the node's name). Gives how many it finished.
    /// A run whose attempt fails is tried again later; after a few attempts it is `failed`, with its reason.
    ///
    /// # Errors
    /// When the store fails; what was claimed is free again when its lease ends.
    pub async fn run_due(&self, holder: &str) -> Result<usize, DbError> {
        let mut finished = 0;
        for _ in 0..RUNS_MAX {
            let Some(claim) = self.claim(holder).await? else { break };
            let started = self.clock.now().mono;
            match self.run_claimed(&claim).await {
                Ok(()) => {
                    finished += 1;
                    let duration_ms = self.clock.now().mono.saturating_duration_since(started).as_millis();
                    tracing::info!(run.id = %claim.run.id, period = %claim.run.period, duration_ms, "report finished");
                }
                Err(RunError::Fenced) => tracing::info!(run.id = %claim.run.id, "another worker took the report over"),
                Err(RunError::Waits) => self.postpone(&claim).await?,
                Err(RunError::Db(error)) if error.is_transient() => return Err(error),
                Err(error) => self.attempt_failed(&claim, &error).await?,
            }
        }
        Ok(finished)
    }

    async fn run_claimed(&self, claim: &Claim) -> Result<(), RunError> {
        let figures = self.figures(claim).await?;
        let rendered = self.render(claim, &figures).await?;
        self.finish(claim, rendered).await
    }

    /// Takes the oldest run that nobody holds.
    pub(crate) async fn claim(&self, holder: &str) -> Result<Option<Claim>, DbError> {
        let (holder, now) = (holder.to_owned(), self.now());
        let row: Option<ClaimRow> = unrefused(
            self.db
                .write(move |tx| {
                    let holder = holder.clone();
                    Box::pin(async move {
                        Ok(on_tx!(tx, c => sqlx::query_as(CLAIM)
                            .bind(holder).bind(now.plus_ms(LEASE_MS).0).bind(now.0).fetch_optional(c).await)?)
                    })
                })
                .await,
        )?;
        let Some(row) = row else { return Ok(None) };
        let recipients = serde_json::from_str(&row.recipients);
        Ok(Some(Claim {
            run: row.run.run()?,
            attempt: row.attempt,
            recipients: recipients.map_err(|e| DbError::corrupt("report_run.recipients", e))?,
            figures: row.figures,
        }))
    }

    /// The figures of the run: those that an earlier attempt kept, or those of now, kept before anything is made of
    /// them; [`RunError::Waits`] when they still grow.
    pub(crate) async fn figures(&self, claim: &Claim) -> Result<Figures, RunError> {
        if let Some(kept) = &claim.figures {
            return Ok(serde_json::from_str(kept).map_err(|e| DbError::corrupt("report_run.figures", e))?);
        }
        let (taken, now) = (claim.run.clone(), self.now());
        let figures = self
            .db
            .read::<Figures, DbError, _>(move |tx| Box::pin(async move { snapshot::take(tx, &taken, now).await }))
            .await?;
        if run::waits(&claim.run, &figures.completeness, now) {
            return Err(RunError::Waits);
        }
        let text = serde_json::to_string(&figures).map_err(|e| DbError::corrupt("report_run.figures", e))?;
        let (id, attempt) = (claim.run.id.uuid(), claim.attempt);
        let kept = self.db.write::<(), RunError, _>(move |tx| {
            let text = text.clone();
            Box::pin(async move {
                let rows = on_tx!(tx, c => sqlx::query(KEEP)
                    .bind(id).bind(attempt).bind(text).execute(c).await.map(|done| done.rows_affected()))?;
                fenced(rows)
            })
        });
        kept.await?;
        Ok(figures)
    }

    /// Renders every format and writes it; nobody sees them before [`ReportsStore::finish`].
    pub(crate) async fn render(&self, claim: &Claim, figures: &Figures) -> Result<Rendered, RunError> {
        let (html, csv, xlsx) = (render::html(figures)?, render::csv(figures)?, render::xlsx(figures)?);
        for (format, bytes) in [(Format::Html, &html), (Format::Csv, &csv), (Format::Xlsx, &xlsx)] {
            artefact::write(&self.artefacts, claim.run.id, format, claim.attempt, bytes.clone()).await?;
        }
        Ok(Rendered { html, csv, xlsx, provisional: figures.provisional })
    }

    /// State, hashes, mail and event, in one transaction.
    pub(crate) async fn finish(&self, claim: &Claim, rendered: Rendered) -> Result<(), RunError> {
        let now = self.now();
        let hashes = [&rendered.html, &rendered.csv, &rendered.xlsx].map(|bytes| artefact::sha256(bytes));
        let mut recipients = claim.recipients.clone();
        // In order, so that two runs lock their targets in the same order.
        recipients.sort();
        let mails: Vec<(String, MessageId)> =
            recipients.into_iter().map(|recipient| (recipient, MessageId::new(&*self.ids))).collect();
        let (run, attempt, provisional) = (claim.run.clone(), claim.attempt, rendered.provisional);
        let finished = self.db.write::<(), RunError, _>(move |tx| {
            let (run, mails) = (run.clone(), mails.clone());
            Box::pin(async move { finish(tx, &run, attempt, provisional, hashes, &mails, now).await })
        });
        finished.await?;
        Ok(())
    }

    async fn postpone(&self, claim: &Claim) -> Result<(), DbError> {
        let (id, attempt, until) = (claim.run.id.uuid(), claim.attempt, self.now().plus_ms(WAIT_MS));
        tracing::debug!(run.id = %claim.run.id, period = %claim.run.period, %until, "a report waits for what is missing");
        let postponed = self.db.write(move |tx| {
            Box::pin(async move {
                on_tx!(tx, c => sqlx::query(POSTPONE).bind(id).bind(attempt).bind(until.0)
                    .execute(c).await.map(|_| ()))?;
                Ok(())
            })
        });
        unrefused(postponed.await)
    }

    async fn attempt_failed(&self, claim: &Claim, error: &RunError) -> Result<(), DbError> {
        let (id, attempt, now, text) = (claim.run.id.uuid(), claim.attempt, self.now(), error.to_string());
        let give_up = attempt >= ATTEMPTS_MAX;
        tracing::error!(run.id = %claim.run.id, attempt, give_up, error = %text, "a report could not be made");
        let (sql, at) = if give_up { (GIVE_UP, now.0) } else { (RETRY, now.plus_ms(RETRY_MS * attempt).0) };
        unrefused(
            self.db
                .write(move |tx| {
                    let text = text.clone();
                    Box::pin(async move {
                        on_tx!(tx, c => sqlx::query(sql).bind(id).bind(attempt).bind(text).bind(at)
                            .execute(c).await.map(|_| ()))?;
                        Ok(())
                    })
                })
                .await,
        )
    }
}

async fn finish(
    tx: &mut Tx,
    run: &ReportRun,
    attempt: i64,
    provisional: bool,
    [html, csv, xlsx]: [[u8; 32]; 3],
    mails: &[(String, MessageId)],
    now: Timestamp,
) -> Result<(), WriteError<RunError>> {
    let rows = on_tx!(tx, c => sqlx::query(FINISH)
        .bind(run.id.uuid()).bind(attempt).bind(provisional).bind(&html[..]).bind(&csv[..]).bind(&xlsx[..]).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected()))?;
    fenced(rows)?;
    for (recipient, message) in mails {
        let payload = mail::payload(run.id, recipient)?;
        let target = format!("{}{recipient}", mail::TARGET_PREFIX);
        outbox::enqueue(tx, &target, mail::KIND, &payload, *message, now).await?;
    }
    let event = StoreEvent::Reported(Reported { run: run.id, path: run.path.clone(), at: now });
    feed::append(tx, now, &event).await?;
    Ok(())
}

fn fenced(rows: u64) -> Result<(), WriteError<RunError>> {
    if rows == 1 { Ok(()) } else { Err(WriteError::Refused(RunError::Fenced)) }
}

pub(crate) fn unrefused<T>(result: Result<T, WriteError<std::convert::Infallible>>) -> Result<T, DbError> {
    match result {
        Ok(value) => Ok(value),
        Err(WriteError::Db(error)) => Err(error),
        Err(WriteError::Refused(never)) => match never {},
    }
}
