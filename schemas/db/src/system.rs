//! The one place where wall clock, monotonic clock and randomness are read.

use model::id::IdSource;
use model::time::{Clock, Now, Timestamp};
use uuid::Uuid;

/// The clocks of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
    fn now(&self) -> Now {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let utc = Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX));
        Now { mono: std::time::Instant::now(), utc }
    }
}

/// UUIDv7 from clock and random bits of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    #[expect(clippy::disallowed_methods, reason = "this is the source that everything else is given")]
    fn next(&self) -> Uuid {
        Uuid::now_v7()
    }
}
