//! What is wrong with reports now: runs that were given up, and mail that was. Both for the alarms.

use std::collections::{BTreeMap, HashMap};

use db::{DbError, on_db};
use model::id::{AccountId, RunId};
use model::tenancy::AccountPath;
use reports::resource::ReportRun;

use crate::rows::{RunRow, run_columns};
use crate::{ReportsStore, mail};

/// How long a mail that was given up stays a trouble, counted from when its last attempt was due: after a week nobody
/// mends it any more, the report can be fetched.
pub const UNDELIVERED_MS: i64 = 7 * 86_400_000;
/// Most rows of one look. More than these have one cause, which the first ones tell.
const ROWS_MAX: i64 = 500;
/// Recipients that a text names.
const NAMED_MAX: usize = 3;

db::statements! {
    /// Runs that were given up, and no later run of the same account and month has come to an end: by the schedule or
    /// by hand.
    FAILED = concat!("SELECT ", run_columns!(), " FROM report_run r WHERE r.state = 'failed' AND NOT EXISTS \
        (SELECT 1 FROM report_run n WHERE n.account_id = r.account_id AND n.period = r.period \
            AND n.state IN ('finished', 'failed') \
            AND (n.created_at > r.created_at OR (n.created_at = r.created_at AND n.id > r.id))) \
        ORDER BY r.created_at, r.id LIMIT $1");
    /// Mail that was given up.
    GIVEN_UP = "SELECT target, epoch, sequence, payload, last_error FROM outbox WHERE state = 'failed' \
        AND next_attempt_at >= $1 AND target >= $2 AND target < $3 ORDER BY target, epoch, sequence LIMIT $4";
    /// What was queued for a recipient since.
    LATER = "SELECT payload FROM outbox WHERE target = $1 \
        AND (epoch > $2 OR (epoch = $2 AND sequence > $3)) ORDER BY epoch DESC, sequence DESC LIMIT $4";
    RUN = concat!("SELECT ", run_columns!(), " FROM report_run WHERE id = $1");
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TroubleKind {
    /// A run was given up, and no later one of the same account and month has finished.
    Failed,
    /// A report could not be mailed to somebody, and was not queued for them again.
    Undelivered,
}

/// One trouble with one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What is wrong.
    pub kind: TroubleKind,
    /// The run.
    pub run: RunId,
    /// The account whose report it is.
    pub path: AccountPath,
    /// One sentence with the reason.
    pub text: String,
}

#[derive(Debug, sqlx::FromRow)]
struct GivenUp {
    target: String,
    epoch: i64,
    sequence: i64,
    payload: String,
    last_error: Option<String>,
}

/// The report that a run is a revision of: two of the same account and month carry the same figures.
type Report = (AccountId, String);

fn report(run: &ReportRun) -> Report {
    (run.account, run.period.clone())
}

impl ReportsStore {
    /// All that is wrong now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn troubles(&self) -> Result<Vec<Trouble>, DbError> {
        let mut troubles = self.failed_runs().await?;
        troubles.extend(self.undelivered().await?);
        Ok(troubles)
    }

    async fn failed_runs(&self) -> Result<Vec<Trouble>, DbError> {
        let rows: Vec<RunRow> = on_db!(&self.db, c => sqlx::query_as(FAILED).bind(ROWS_MAX).fetch_all(c).await)?;
        let trouble = |row: RunRow| {
            let run = row.run()?;
            let why = run.error.as_deref().unwrap_or("no reason was kept");
            let text = format!("the report of {} (revision {}) was given up: {why}", run.period, run.revision);
            Ok(Trouble { kind: TroubleKind::Failed, run: run.id, path: run.path, text })
        };
        rows.into_iter().map(trouble).collect()
    }

    async fn undelivered(&self) -> Result<Vec<Trouble>, DbError> {
        let since = self.now().plus_ms(-UNDELIVERED_MS);
        let (from, to) = (mail::TARGET_PREFIX, format!("{}\u{10ffff}", mail::TARGET_PREFIX));
        let given_up: Vec<GivenUp> = on_db!(&self.db, c => sqlx::query_as(GIVEN_UP)
            .bind(since.0).bind(from).bind(&to).bind(ROWS_MAX).fetch_all(c).await)?;
        let mut runs = Runs { store: self, known: HashMap::new() };
        let mut by_run: BTreeMap<RunId, (ReportRun, Vec<(String, String)>)> = BTreeMap::new();
        for message in given_up {
            let Some(run) = runs.of(&message.payload).await? else { continue };
            if self.queued_again(&message, &report(&run), &mut runs).await? {
                continue;
            }
            let recipient = message.target.strip_prefix(mail::TARGET_PREFIX).unwrap_or(&message.target).to_owned();
            let why = message.last_error.unwrap_or_default();
            by_run.entry(run.id).or_insert_with(|| (run, Vec::new())).1.push((recipient, why));
        }
        let trouble = |(id, (run, mails)): (RunId, (ReportRun, Vec<(String, String)>))| Trouble {
            kind: TroubleKind::Undelivered,
            run: id,
            path: run.path,
            text: undelivered_text(&run.period, run.revision, &mails),
        };
        Ok(by_run.into_iter().map(trouble).collect())
    }

    /// Whether a later mail to the same recipient carries the same report: sent, on its way, or given up as well, which
    /// is then the trouble.
    async fn queued_again(&self, message: &GivenUp, report: &Report, runs: &mut Runs<'_>) -> Result<bool, DbError> {
        let later: Vec<String> = on_db!(&self.db, c => sqlx::query_scalar(LATER)
            .bind(&message.target).bind(message.epoch).bind(message.sequence).bind(ROWS_MAX).fetch_all(c).await)?;
        for payload in later {
            if runs.of(&payload).await?.is_some_and(|run| self::report(&run) == *report) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The runs of mails, each read once.
struct Runs<'a> {
    store: &'a ReportsStore,
    known: HashMap<RunId, Option<ReportRun>>,
}

impl Runs<'_> {
    /// The run that a mail carries; none when the payload is of another kind or the run is gone.
    async fn of(&mut self, payload: &str) -> Result<Option<ReportRun>, DbError> {
        let Some(id) = mail::run_of(payload) else { return Ok(None) };
        if let Some(known) = self.known.get(&id) {
            return Ok(known.clone());
        }
        let row: Option<RunRow> =
            on_db!(&self.store.db, c => sqlx::query_as(RUN).bind(id.uuid()).fetch_optional(c).await)?;
        let run = row.map(RunRow::run).transpose()?;
        self.known.insert(id, run.clone());
        Ok(run)
    }
}

fn undelivered_text(period: &str, revision: i32, mails: &[(String, String)]) -> String {
    let named: Vec<String> = mails.iter().take(NAMED_MAX).map(|(to, why)| format!("{to} ({why})")).collect();
    let rest = mails.len().saturating_sub(NAMED_MAX);
    let more = if rest == 0 { String::new() } else { format!(" and {rest} more") };
    format!("the report of {period} (revision {revision}) could not be mailed to {}{more}", named.join(", "))
}
