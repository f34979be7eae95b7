//! Background work: each worker has no input, reads what should be done, does it, and may run twice. It is started by
//! a signal and by a period; its last failure is seen by the detectors.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use model::time::{Clock, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// From a signal to the step: what else arrives meanwhile goes into the same batch. Twenty transactions a second of a
/// busy worker leave the disk to the journal, which calls wait for.
const GATHER: Duration = Duration::from_millis(50);
/// Pause after the first failure; it grows by as much with each further one in a row.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest pause after failures: a store that is back is noticed within this time.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Whether there is more to do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Yes: come back without waiting.
    More,
    /// No: wait for the signal or the period.
    Idle,
    /// Not before this time is over.
    After(Duration),
}

/// Any failure of a step, as text for log and alarm.
pub type StepError = Box<dyn std::error::Error + Send + Sync>;

/// Since when a worker fails, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The first failure in a row.
    pub since: Timestamp,
    /// The last failure, with its causes.
    pub error: String,
}

/// What the workers say of themselves.
#[derive(Debug, Clone, Default)]
pub struct WorkerBoard {
    troubles: Arc<Mutex<BTreeMap<Arc<str>, Trouble>>>,
    steps: Arc<Mutex<BTreeMap<Arc<str>, Timestamp>>>,
}

impl WorkerBoard {
    /// The workers that fail now.
    pub fn troubles(&self) -> BTreeMap<Arc<str>, Trouble> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The steps that are not over, with their begin.
    pub fn steps(&self) -> BTreeMap<Arc<str>, Timestamp> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn step_begins(&self, worker: &Arc<str>, now: Timestamp) {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(worker), now);
    }

    fn step_ends(&self, worker: &Arc<str>) {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).remove(worker);
    }

    fn report(&self, worker: &Arc<str>, failure: Option<String>, now: Timestamp) -> bool {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            None => troubles.remove(worker).is_some(),
            Some(error) => {
                let first = !troubles.contains_key(worker);
                let since = troubles.get(worker).map_or(now, |trouble| trouble.since);
                troubles.insert(Arc::clone(worker), Trouble { since, error });
                first
            }
        }
    }
}

/// How a worker lets time pass; tests let it pass by hand.
pub type Pause = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// The workers of the daemon, in one set, so that a stop waits for all of them.
pub struct Workers {
    tasks: JoinSet<()>,
    board: WorkerBoard,
    clock: Arc<dyn Clock>,
    pause: Pause,
    stop: watch::Sender<bool>,
}

impl Workers {
    /// No workers yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::pausing(clock, Arc::new(|pause| tokio::time::sleep(pause).boxed()))
    }

    /// As [`Workers::new`], with another way to let time pass.
    pub fn pausing(clock: Arc<dyn Clock>, pause: Pause) -> Self {
        Self { tasks: JoinSet::new(), board: WorkerBoard::default(), clock, pause, stop: watch::Sender::new(false) }
    }

    /// What the workers say of themselves.
    pub fn board(&self) -> WorkerBoard {
        self.board.clone()
    }

    /// Runs `step` soon after `signal` has changed and at least each `period`, one step at a time. A step that panics has
    /// failed, and is tried again.
    pub fn spawn<S, F, Fut>(
        &mut self,
        name: impl Into<Arc<str>>,
        period: Duration,
        signal: Option<watch::Receiver<S>>,
        step: F,
    ) where
        S: Send + Sync + 'static,
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Step, StepError>> + Send,
    {
        let name = name.into();
        let (board, clock, mut stop) = (self.board.clone(), Arc::clone(&self.clock), self.stop.subscribe());
        let let_pass = Arc::clone(&self.pause);
        self.tasks.spawn(async move {
            let mut signal = signal;
            let mut failures: u32 = 0;
            while !*stop.borrow() {
                board.step_begins(&name, clock.now().utc);
                let outcome = AssertUnwindSafe(step()).catch_unwind().await;
                let outcome = outcome.unwrap_or_else(|panic| Err(panic_text(&*panic).into()));
                board.step_ends(&name);
                let now = clock.now().utc;
                let pause = match outcome {
                    Ok(step) => {
                        failures = 0;
                        if board.report(&name, None, now) {
                            tracing::info!(worker = &*name, "the worker works again");
                        }
                        match step {
                            Step::More => continue,
                            Step::Idle => period,
                            Step::After(wait) => wait,
                        }
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        let text = with_causes(&*error);
                        if board.report(&name, Some(text.clone()), now) {
                            tracing::warn!(worker = &*name, error = text, "the worker failed and will try again");
                        }
                        (RETRY_FIRST * failures.min(50)).min(BACKOFF_MAX)
                    }
                };
                tokio::select! {
                    () = let_pass(pause) => {}
                    () = gathered(&mut signal), if failures == 0 => {}
                    _ = stop.changed() => {}
                }
            }
        });
    }

    /// Lets each finish its step, and waits for all.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(outcome) = self.tasks.join_next().await {
            if let Err(error) = outcome
                && error.is_panic()
            {
                tracing::error!(%error, "a worker panicked");
            }
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a defect of the program: {}", text.unwrap_or("a panic without a text"))
}

/// Comes back [`GATHER`] after the signal has changed; never, when there is none (any more).
async fn gathered<S>(signal: &mut Option<watch::Receiver<S>>) {
    if let Some(receiver) = signal
        && receiver.changed().await.is_ok()
    {
        return tokio::time::sleep(GATHER).await;
    }
    *signal = None;
    std::future::pending().await
}

/// The text of an error with those of its causes.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_failing_worker_is_seen_and_goes_on() {
        let clock: Arc<dyn Clock> = Arc::new(db::system::SystemClock);
        let mut workers = Workers::new(clock);
        let (rounds, board) = (Arc::new(AtomicU32::new(0)), workers.board());
        let (counted, signal) = (Arc::clone(&rounds), watch::Sender::new(0));
        let (done, mut heard) = tokio::sync::mpsc::channel(16);
        workers.spawn("test", Duration::from_secs(3_600), Some(signal.subscribe()), move || {
            let (round, done) = (counted.fetch_add(1, Ordering::SeqCst), done.clone());
            async move {
                done.send(round).await?;
                match round {
                    0 => Ok(Step::More),
                    1 => Err("the store is away".into()),
                    3 => panic!("a defect"),
                    _ => Ok(Step::Idle),
                }
            }
        });
        assert_eq!(heard.recv().await, Some(0));
        assert_eq!(heard.recv().await, Some(1));
        while board.troubles().is_empty() {
            tokio::task::yield_now().await;
        }
        // The failure is known until the next step has gone well.
        assert_eq!(board.troubles().get("test").map(|trouble| &*trouble.error), Some("the store is away"));
        assert_eq!(heard.recv().await, Some(2));
        signal.send_replace(1);
        assert_eq!(heard.recv().await, Some(3));
        assert_eq!(heard.recv().await, Some(4), "a panic is a failure like others");
        workers.stop().await;
        assert!(board.troubles().is_empty() && board.steps().is_empty(), "it recovered");
        assert!(rounds.load(Ordering::SeqCst) >= 5);
    }
}
