//! The consumers of journal and feed: billing, counters, revenue. Each reads on from its cursor, which moves in the
//! transaction of its effects, so that any of them may be killed at any time.

use std::sync::Arc;
use std::time::Duration;

use db::journal::{Journal, JournalReader};
use db::{Db, Position};

use super::worker::{Step, StepError, Workers};

/// Records of one batch: large enough for bulk statements, small enough for a transaction of some ten milliseconds.
pub const BATCH_MAX: usize = 2_048;
/// How often a consumer looks when nothing wakes it.
const PERIOD: Duration = Duration::from_millis(500);

/// A consumer of the node's journal: reads one batch, and says whether there was any.
pub trait JournalConsumer: Send + Sync + 'static {
    /// Its name in cursors, metrics and alarms.
    const NAME: &'static str;
    /// Takes the next batch.
    fn consume(&self, reader: &JournalReader, node: &str) -> impl Future<Output = Result<usize, StepError>> + Send;
}

/// What each consumer of the journal is given.
#[derive(Clone)]
pub struct JournalFeed {
    /// Reads the files.
    pub reader: Arc<JournalReader>,
    /// Says when there is more.
    pub journal: Journal,
    /// The store with the cursors.
    pub store: Db,
    /// Name of the node.
    pub node: Arc<str>,
}

/// Starts a consumer of the journal.
pub fn spawn_journal<C: JournalConsumer>(workers: &mut Workers, feed: &JournalFeed, consumer: Arc<C>) {
    let shared = feed.clone();
    workers.spawn(C::NAME, PERIOD, Some(feed.journal.subscribe()), move || {
        let (feed, consumer) = (shared.clone(), Arc::clone(&consumer));
        async move {
            let end = *feed.journal.subscribe().borrow();
            let records = consumer.consume(&feed.reader, &feed.node).await?;
            let source = db::cursor::journal_source(&feed.node);
            let position = db::cursor::peek(&feed.store, C::NAME, &source).await?;
            report_lag(C::NAME, lag(position, end));
            Ok(if records > 0 { Step::More } else { Step::Idle })
        }
    });
}

/// Starts a consumer of the store's feed; `step` says how many events it took and up to which it has come.
pub fn spawn_feed<F, Fut>(workers: &mut Workers, name: &'static str, store: &Db, step: F)
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(usize, i64), StepError>> + Send,
{
    let store = store.clone();
    workers.spawn(name, Duration::from_millis(100), None::<tokio::sync::watch::Receiver<()>>, move || {
        let (step, store) = (step.clone(), store.clone());
        async move {
            let head = db::feed::head(&store).await?;
            let (events, position) = step().await?;
            report_lag(name, u64::try_from(head.saturating_sub(position)).unwrap_or_default());
            Ok(if events > 0 { Step::More } else { Step::Idle })
        }
    });
}

/// Records between a consumer and the end, as far as they can be counted: an earlier epoch counts as at least one.
fn lag(position: Position, end: Position) -> u64 {
    if position >= end {
        return 0;
    }
    let behind = if position.epoch == end.epoch { end.sequence - position.sequence } else { end.sequence + 1 };
    u64::try_from(behind).unwrap_or_default()
}

fn report_lag(consumer: &'static str, records: u64) {
    // A gauge is a float by its nature; lags are far below 2^53.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; lags are far below 2^53")]
    metrics::gauge!("tandem_consumer_lag_records", "consumer" => consumer).set(records as f64);
}
