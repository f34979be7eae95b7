//! Whether a database takes writes, as small ones find that are tried now and then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use db::DbError;
use model::time::{Clock, Now, Timestamp};

use super::worker::with_causes;

/// How long a write may take: a busy disk needs less, and a caller does not wait for ever to be told.
const ANSWER_MAX_MS: u128 = 3_000;

/// Since when no write has succeeded, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// The begin of the first attempt in a row that failed.
    pub since: Now,
    /// What the last one met.
    pub error: String,
    /// Whether the disk is full.
    pub is_full: bool,
}

impl Failing {
    /// How long it has been so, in milliseconds by the clock that nobody sets.
    #[must_use]
    pub fn ms(&self, now: Now) -> u128 {
        now.mono.saturating_duration_since(self.since.mono).as_millis()
    }

    /// Since when, for people.
    #[must_use]
    pub const fn since(&self) -> Timestamp {
        self.since.utc
    }
}

/// What is known of one database. Clones share it.
#[derive(Debug, Clone)]
pub struct WriteHealth {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct State {
    /// The attempt that is under way.
    began: Option<Now>,
    failing: Option<Failing>,
}

impl WriteHealth {
    /// Nothing is known, which counts as good.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { state: Arc::default(), clock }
    }

    /// Makes an attempt, however long it takes. One at a time.
    pub async fn attempt(&self, write: impl Future<Output = Result<(), DbError>>) {
        let began = self.clock.now();
        self.lock().began = Some(began);
        let outcome = write.await;
        let mut state = self.lock();
        state.began = None;
        state.failing = match outcome {
            Ok(()) => None,
            Err(error) => {
                let since = state.failing.take().map_or(began, |failing| failing.since);
                let is_full = matches!(error, DbError::Full(_));
                Some(Failing { since, error: with_causes(&error), is_full })
            }
        };
    }

    /// Why no write succeeds; none when one does, or nothing is known yet.
    #[must_use]
    pub fn failing(&self) -> Option<Failing> {
        let now = self.clock.now();
        let state = self.lock();
        if let Some(failing) = &state.failing {
            return Some(failing.clone());
        }
        let failing = Failing { since: state.began?, error: "it does not answer".to_owned(), is_full: false };
        (failing.ms(now) > ANSWER_MAX_MS).then_some(failing)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use testkit::ManualClock;

    use super::*;

    fn away() -> DbError {
        DbError::Contended { attempts: 1 }
    }

    #[tokio::test]
    async fn the_first_failure_in_a_row_says_since_when() {
        let clock = Arc::new(ManualClock::default());
        let health = WriteHealth::new(clock.clone());
        assert_eq!(health.failing(), None);
        let first = clock.now();
        health.attempt(async { Err(away()) }).await;
        clock.advance_ms(7_000);
        health.attempt(async { Err(away()) }).await;
        let failing = health.failing().unwrap();
        assert_eq!((failing.since, failing.ms(clock.now())), (first, 7_000));
        assert!(failing.error.contains("collided"), "{failing:?}");
        health.attempt(async { Ok(()) }).await;
        assert_eq!(health.failing(), None);
    }

    #[tokio::test]
    async fn an_attempt_that_does_not_come_back_is_a_failure() {
        let clock = Arc::new(ManualClock::default());
        let health = WriteHealth::new(clock.clone());
        let began = clock.now();
        let mut attempt = std::pin::pin!(health.attempt(std::future::pending()));
        assert!(futures::poll!(&mut attempt).is_pending());
        clock.advance_ms(3_000);
        assert_eq!(health.failing(), None);
        clock.advance_ms(1);
        assert_eq!(health.failing().map(|failing| failing.since), Some(began));
    }
}
