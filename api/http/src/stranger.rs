//! Requests that nobody answers for: whatever was answered without an actor, be it for want of a good token, of a store
//! to look it up, or of a place among the requests in work, or because the route is open. Anybody can send them at will,
//! so they have one line of the log together, not one each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// At most one line about them in this time.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Whether the actor of a request is known. It travels with the request, and is asked of the answer: that may come from
/// a layer that has lost the request, such as the limit of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known(Arc<AtomicBool>);

impl Known {
    /// The token was good.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody answers for the request.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts them between lines.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    since: u64,
}

impl Strangers {
    /// Counts one; how many there were since the last line, when it is time for the next.
    pub(crate) fn count(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.since = told.since.saturating_add(1);
        if told.at.is_some_and(|at| now.saturating_duration_since(at) < LOG_PERIOD) {
            return None;
        }
        told.at = Some(now);
        Some(std::mem::take(&mut told.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::time::Clock as _;

    #[test]
    fn many_have_a_line_now_and_then_and_none_is_lost() {
        let (strangers, start) = (Strangers::default(), testkit::ManualClock::default().now().mono);
        let at = |ms| strangers.count(start + Duration::from_millis(ms));
        assert_eq!(
            [at(0), at(1), at(9_999), at(10_000), at(10_001), at(40_000)],
            [Some(1), None, None, Some(3), None, Some(2)]
        );
    }
}
