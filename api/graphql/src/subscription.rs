//! The subscriptions.

use std::sync::Arc;

use async_graphql::{Context, ID, Result, Subscription};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use model::actor::Permission as Right;
use model::change::ResourceKind;
use model::ctx::Ctx;
use model::event::store::Changed;
use model::id::{AccountId, BulkJobId};
use model::page::ReadError;
use provisioning::bulk::job::JobState;
use provisioning::port::Bulk;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;

use crate::argument::{allowed, deps, filter, required};
use crate::error::{self, SLOW_CONSUMER};
use crate::limit::LOOK_PERIOD;
use crate::object::{BulkJob, Change};

/// A committed change with its place in the feed of the store.
#[derive(Debug, Clone)]
pub struct ChangeNotice {
    /// Its place: rises from one to the next.
    pub sequence: i64,
    /// What was changed.
    pub changed: Arc<Changed>,
}

/// What is committed, told to all who listen by one reader of the feed.
#[async_trait]
pub trait ChangeFeed: Send + Sync {
    /// The place of the newest event in the feed.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] when the store cannot be asked.
    async fn head(&self) -> Result<i64, ReadError>;

    /// Whatever is committed from now on, in order, perhaps after some of before. A receiver that falls behind loses the
    /// oldest and is told so.
    fn listen(&self) -> Receiver<ChangeNotice>;
}

/// Says that a subscription has begun: what is committed from then on is not missed.
pub(crate) type Begun = std::sync::Mutex<Option<oneshot::Sender<()>>>;

/// What is pushed as it happens. Over WebSocket (`graphql-transport-ws`) at `/graphql/ws`, or as server-sent events from
/// `/graphql`.
pub struct Subscription;

#[Subscription]
impl Subscription {
    /// Every change from now on, at and below an account or all within reach, in the order of commit, each once.
    async fn changes(
        &self,
        context: &Context<'_>,
        account_id: Option<ID>,
    ) -> Result<BoxStream<'static, Result<Change>>> {
        let ctx = allowed(context, Right::AuditRead)?.clone();
        let account = filter(ResourceKind::Account, "accountId", account_id)?;
        let deps = deps(context)?;
        // First listen, then ask where the feed ends: what lies between comes twice, not never.
        let notices = deps.changes.listen();
        let head = deps.changes.head().await.map_err(error::read)?;
        has_begun(context);
        let changes = Changes { ctx, account, provisioning: Arc::clone(&deps.provisioning), notices, head };
        let entries = stream::unfold(Some(changes), async |changes| {
            let mut changes = changes?;
            match changes.next().await? {
                Ok(change) => Some((Ok(change), Some(changes))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(entries.boxed())
    }

    /// A bulk job as it is, and whenever it has come further, until it has ended. After a check it is `STAGED` again,
    /// with `finishedAt`, and can be started: the subscription goes on.
    async fn bulk_job(&self, context: &Context<'_>, id: ID) -> Result<BoxStream<'static, Result<BulkJob>>> {
        let ctx = allowed(context, Right::ProvisioningRead)?.clone();
        let job = required(ResourceKind::BulkJob, "id", &id)?;
        let bulk = Arc::clone(&deps(context)?.bulk);
        if bulk.job_get(&ctx, job).await.map_err(error::read)?.is_none() {
            return Err(error::coded(error::BAD_REQUEST, "id: there is no such bulk job within reach of this token"));
        }
        has_begun(context);
        let progress = Progress { ctx, job, bulk, seen: None };
        let told = stream::unfold(Some(progress), async |progress| {
            let mut progress = progress?;
            match progress.next().await? {
                Ok(job) => Some((Ok(job), Some(progress))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(told.boxed())
    }
}

/// What comes from now on is told.
fn has_begun(context: &Context<'_>) {
    if let Some(begun) = context.data_opt::<Begun>().and_then(|begun| begun.lock().ok()?.take()) {
        // an error means that nobody waits for it any more
        let _ = begun.send(());
    }
}

/// A job on its way. Each turn of it is a transaction of its own and no event of the feed, so it is looked at.
struct Progress {
    ctx: Ctx,
    job: BulkJobId,
    bulk: Arc<dyn Bulk>,
    seen: Option<(i64, JobState)>,
}

impl Progress {
    /// The job, once it differs from what was told; none: it has ended, or is gone.
    async fn next(&mut self) -> Option<Result<BulkJob>> {
        if self.seen.is_some_and(|(_, state)| state.has_ended()) {
            return None;
        }
        loop {
            match self.bulk.job_get(&self.ctx, self.job).await {
                Ok(Some(job)) => {
                    let now = (job.revision.version, job.state);
                    if self.seen.replace(now) != Some(now) {
                        return Some(Ok(job.into()));
                    }
                }
                Ok(None) => return None,
                Err(failure) => return Some(Err(error::read(failure))),
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }
}

struct Changes {
    ctx: Ctx,
    account: Option<AccountId>,
    provisioning: Arc<dyn provisioning::port::Queries>,
    notices: Receiver<ChangeNotice>,
    head: i64,
}

impl Changes {
    /// The next change that is to be told; none: the feed has ended. After an error there is no next one.
    async fn next(&mut self) -> Option<Result<Change>> {
        loop {
            let notice = match self.notices.recv().await {
                Ok(notice) => notice,
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(missed)) => {
                    let message =
                        format!("{missed} changes were not taken in time; read them by the query, then subscribe");
                    return Some(Err(error::coded(SLOW_CONSUMER, message)));
                }
            };
            let path = &notice.changed.path;
            let is_sought = self.account.is_none_or(|account| path.includes(account));
            if notice.sequence <= self.head || !is_sought || !self.ctx.scope.contains(path) {
                continue;
            }
            match self.provisioning.audit_get(&self.ctx, notice.changed.change).await {
                Ok(Some(entry)) => return Some(Ok(entry.into())),
                Ok(None) => {}
                Err(failure) => return Some(Err(error::read(failure))),
            }
        }
    }
}
