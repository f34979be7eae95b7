//! The consumers of journal and feed: billing, counters, revenue. Each reads on from its cursor, which moves in the
//! transaction of its effects, so that any of them may be killed at any time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use db::journal::{Journal, JournalReader};
use db::{Db, Position};
use model::time::{Clock, Timestamp};

use super::worker::{Step, StepError, Workers};

/// Records of one batch: large enough for bulk statements, small enough for a transaction of some ten milliseconds.
pub const BATCH_MAX: usize = 2_048;
/// Records behind which a consumer counts as lagging: some seconds of its work.
pub const LAG_MAX: u64 = 20_000;
/// How often a consumer looks when nothing wakes it.
const PERIOD: Duration = Duration::from_millis(500);

/// A consumer of the node's journal: reads one batch, and says how many records it held.
pub trait JournalConsumer: Send + Sync + 'static {
    /// Its name in cursors, metrics and alarms.
    const NAME: &'static str;
    /// Takes the next batch, of at most [`BATCH_MAX`].
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
    /// Where lags are told.
    pub lags: ConsumerLags,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// How far each consumer is behind, for the detectors.
#[derive(Debug, Clone, Default)]
pub struct ConsumerLags(Arc<Mutex<BTreeMap<&'static str, Lag>>>);

/// How far a consumer is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Records that it has not read.
    pub records: u64,
    /// Since when they are more than [`LAG_MAX`]; none when they are not.
    pub over_since: Option<Timestamp>,
}

impl ConsumerLags {
    /// All consumers that have reported.
    pub fn list(&self) -> BTreeMap<&'static str, Lag> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn report(&self, consumer: &'static str, records: u64, now: Timestamp) {
        // A gauge is a float by its nature; lags are far below 2^53.
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; lags are far below 2^53")]
        metrics::gauge!("tandem_consumer_lag_records", "consumer" => consumer).set(records as f64);
        let mut lags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = lags.get(consumer).and_then(|lag| lag.over_since);
        let over_since = (records > LAG_MAX).then(|| since.unwrap_or(now));
        lags.insert(consumer, Lag { records, over_since });
    }
}

/// Starts a consumer of the journal.
pub fn spawn_journal<C: JournalConsumer>(workers: &mut Workers, feed: &JournalFeed, consumer: Arc<C>) {
    let shared = feed.clone();
    // Where it was last seen: while the store is away, nobody says where it is, and it falls behind all the same.
    let seen = Arc::new(Mutex::new(None));
    workers.spawn(C::NAME, PERIOD, Some(feed.journal.subscribe()), move || {
        let (feed, consumer, seen) = (shared.clone(), Arc::clone(&consumer), Arc::clone(&seen));
        async move {
            let end = *feed.journal.subscribe().borrow();
            let taken = take(&feed, &*consumer).await;
            let position = {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                *seen = taken.as_ref().ok().map(|(_, position)| *position).or(*seen);
                *seen
            };
            if let Some(position) = position {
                feed.lags.report(C::NAME, lag(position, end), feed.clock.now().utc);
            }
            let (records, _) = taken?;
            Ok(if records < BATCH_MAX { Step::Idle } else { Step::More })
        }
    });
}

/// Takes a batch; says how many records it had, and where the consumer is now.
async fn take<C: JournalConsumer>(feed: &JournalFeed, consumer: &C) -> Result<(usize, Position), StepError> {
    let records = consumer.consume(&feed.reader, &feed.node).await?;
    let source = db::cursor::journal_source(&feed.node);
    Ok((records, db::cursor::peek(&feed.store, C::NAME, &source).await?))
}

/// Starts a consumer of the store's feed; `step` says how many events it took and up to which it has come.
pub fn spawn_feed<F, Fut>(workers: &mut Workers, name: &'static str, feed: &JournalFeed, step: F)
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(usize, i64), StepError>> + Send,
{
    let feed = feed.clone();
    workers.spawn(name, Duration::from_millis(100), None::<tokio::sync::watch::Receiver<()>>, move || {
        let (step, feed) = (step.clone(), feed.clone());
        async move {
            let head = db::feed::head(&feed.store).await?;
            let (events, position) = step().await?;
            let behind = u64::try_from(head.saturating_sub(position)).unwrap_or_default();
            feed.lags.report(name, behind, feed.clock.now().utc);
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
