//! A clock that stands until it is advanced.

use std::sync::Mutex;
use std::time::Duration;

use model::time::{Clock, Now, Timestamp};

/// Where a [`ManualClock`] starts: 2026-01-01T00:00:00Z, the begin of a month, a day and a quarter of an hour.
pub const START: Timestamp = Timestamp(1_767_225_600_000);

/// Both clocks, moved by hand and together.
#[derive(Debug)]
pub struct ManualClock(Mutex<Now>);

impl Default for ManualClock {
    fn default() -> Self {
        Self::at(START)
    }
}

impl ManualClock {
    /// A clock that shows `utc`.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin; only differences are looked at")]
    pub fn at(utc: Timestamp) -> Self {
        Self(Mutex::new(Now { mono: std::time::Instant::now(), utc }))
    }

    /// Moves both clocks on.
    pub fn advance_ms(&self, ms: u32) {
        let mut now = self.lock();
        now.mono += Duration::from_millis(u64::from(ms));
        now.utc = now.utc.plus_ms(i64::from(ms));
    }

    /// Sets the wall clock alone, forwards or back, as NTP or an operator may.
    pub fn set_utc(&self, utc: Timestamp) {
        self.lock().utc = utc;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self.lock()
    }
}
