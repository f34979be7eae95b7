//! The detector of steps of the wall clock: it compares how far the wall clock and the monotonic clock went between two
//! looks. Calls are timed by the monotonic clock (`model::time::Now`); what is written down (begin of a call, period of
//! a file, end of a lease) is the wall clock's, and a step of it shows there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fault::catalogue::{AlarmType, detector};
use fault::port::AlarmAuthority;
use fault::resource::Condition;
use model::time::{Clock, Now, Timestamp};

use super::worker::{Step, StepError};

/// A difference of at least this much between two looks is a step. NTP slews by half a millisecond a second, and steps
/// only what is further off; readings of the two clocks lie microseconds apart.
pub const STEP_MIN_MS: i64 = 1_000;
/// How long after the last step the alarm stays up: long enough to be seen, and to cover a clock that is set back and
/// forth.
pub const STEP_SEEN: Duration = Duration::from_secs(300);
/// Readings per look. A task that is taken off the processor between the two clocks of one reading would see a step
/// that was none; of three readings the undisturbed one counts.
const READINGS: usize = 3;

/// What the detector looks at.
pub struct ClockDetector {
    /// Where conditions are reported.
    pub authority: Arc<dyn AlarmAuthority>,
    /// Name of this node.
    pub node_name: Arc<str>,
    /// The clock that is watched.
    pub clock: Arc<dyn Clock>,
    /// What was seen so far.
    pub watch: Mutex<ClockWatch>,
}

impl ClockDetector {
    /// Looks once.
    ///
    /// # Errors
    /// When the node database cannot be written.
    pub async fn look(&self) -> Result<Step, StepError> {
        let (now, step) = {
            let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
            let now = steadiest(std::iter::repeat_with(|| self.clock.now()).take(READINGS), watch.begin)
                .unwrap_or_else(|| self.clock.now());
            let new = watch.read(now);
            if let Some(step) = new {
                tracing::warn!(step_ms = step.by_ms, at = %step.at, "the wall clock of this machine was set");
                metrics::counter!("tandem_clock_steps_total").increment(1);
            }
            (now, watch.recent(now.mono))
        };
        let condition = step.map(|step| Condition {
            alarm_type: AlarmType::ClockStepped,
            resource: format!("clock:{}", self.node_name),
            path: None,
            severity: None,
            text: step.text(),
        });
        self.authority.observe(detector::CLOCK, condition.into_iter().collect(), now.utc).await?;
        Ok(Step::Idle)
    }
}

/// One step of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// How far, milliseconds; negative: back.
    pub by_ms: i64,
    /// The wall clock after it.
    pub at: Timestamp,
    seen: Instant,
}

impl ClockStep {
    fn text(&self) -> String {
        let (far, whither) = (self.by_ms.unsigned_abs(), if self.by_ms < 0 { "back" } else { "forward" });
        let Self { at, .. } = self;
        format!("the clock of this machine was set {whither} by {}.{:03} s, to {at}", far / 1_000, far % 1_000)
    }
}

/// How far the wall clock is ahead of the monotonic one, from look to look.
#[derive(Debug, Clone, Copy)]
pub struct ClockWatch {
    begin: Now,
    ahead_ms: i64,
    last: Option<ClockStep>,
}

impl ClockWatch {
    /// Begins to watch. Of several readings the undisturbed one counts, as at each look: a baseline whose clocks were
    /// read apart would make the first look see a step that was none.
    #[must_use]
    pub fn begin(clock: &dyn Clock) -> Self {
        let first = clock.now();
        let readings = std::iter::once(first).chain(std::iter::repeat_with(|| clock.now()).take(READINGS - 1));
        Self::since(steadiest(readings, first).unwrap_or(first))
    }

    const fn since(begin: Now) -> Self {
        Self { begin, ahead_ms: 0, last: None }
    }

    /// Takes in a reading; gives the step that the wall clock made since the last one. Smaller differences are no
    /// step, and do not add up to one.
    pub fn read(&mut self, now: Now) -> Option<ClockStep> {
        let ahead_ms = ahead_ms(now, self.begin);
        let by_ms = ahead_ms.saturating_sub(self.ahead_ms);
        self.ahead_ms = ahead_ms;
        if by_ms.saturating_abs() < STEP_MIN_MS {
            return None;
        }
        self.last = Some(ClockStep { by_ms, at: now.utc, seen: now.mono });
        self.last
    }

    /// The last step, until [`STEP_SEEN`] after it.
    #[must_use]
    pub fn recent(&self, mono: Instant) -> Option<ClockStep> {
        self.last.filter(|step| mono.saturating_duration_since(step.seen) < STEP_SEEN)
    }
}

/// How far the wall clock went since `begin`, beyond the monotonic one.
fn ahead_ms(now: Now, begin: Now) -> i64 {
    let elapsed = now.mono.saturating_duration_since(begin.mono);
    now.utc.ms_since(begin.utc).saturating_sub(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// The reading whose clocks were read closest to each other: the wall clock is read first, so a pause between makes it
/// seem behind.
fn steadiest(readings: impl Iterator<Item = Now>, begin: Now) -> Option<Now> {
    readings.max_by_key(|now| ahead_ms(*now, begin))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use fault_store::NodeAlarms;
    use testkit::{CountingIds, ManualClock};

    use super::*;

    fn start() -> Timestamp {
        "2026-11-25T08:00:00Z".parse().expect("an instant")
    }

    #[test]
    fn steps_are_told_from_slewing_and_from_long_rounds() {
        let clock = ManualClock::at(start());
        let mut watch = ClockWatch::since(clock.now());
        let mut look = |advance_ms: u32, set_by_ms: i64| {
            clock.advance_ms(advance_ms);
            clock.set_utc(clock.now().utc.plus_ms(set_by_ms));
            watch.read(clock.now()).map(|step| (step.by_ms, step.text()))
        };
        assert_eq!(look(1_000, 0), None);
        assert_eq!(look(90_000, 0), None, "a late look is no step");
        for _ in 0..10_000 {
            assert_eq!(look(1_000, 1), None, "slewed, and ten seconds off in the end");
        }
        assert_eq!(look(1_000, 999), None);
        let (by_ms, text) = look(1_000, 3_600_250).expect("a step");
        assert_eq!(by_ms, 3_600_250);
        assert!(text.contains("forward by 3600.250 s"), "{text}");
        let (by_ms, text) = look(0, -1_000).expect("a step");
        assert_eq!(by_ms, -1_000);
        assert!(text.contains("back by 1.000 s"), "{text}");
        assert_eq!(look(1_000, 0), None, "a step is seen once");
    }

    #[test]
    fn a_pause_between_the_two_clocks_of_a_reading_is_no_step() {
        let clock = ManualClock::at(start());
        let begin = clock.now();
        clock.advance_ms(1_000);
        let good = clock.now();
        // the wall clock was read, then two seconds passed until the monotonic one was
        let torn = Now { mono: good.mono + Duration::from_secs(2), utc: good.utc };
        assert_eq!(steadiest([torn, good, torn].into_iter(), begin), Some(good));
        assert_eq!(
            ClockWatch::since(begin).read(torn).map(|step| step.by_ms),
            Some(-2_000),
            "which alone would be one"
        );
    }

    /// A clock of whose readings one is torn: two seconds pass between its wall clock and its monotonic one.
    #[derive(Debug)]
    struct TornOnce {
        clock: ManualClock,
        torn: usize,
        read: AtomicUsize,
    }

    impl Clock for TornOnce {
        fn now(&self) -> Now {
            let before = self.clock.now();
            if self.read.fetch_add(1, Ordering::Relaxed) == self.torn {
                self.clock.advance_ms(2_000);
            }
            Now { mono: self.clock.now().mono, utc: before.utc }
        }
    }

    #[test]
    fn a_pause_while_the_watch_begins_is_no_step() {
        for torn in 0..READINGS {
            let clock = TornOnce { clock: ManualClock::at(start()), torn, read: AtomicUsize::new(0) };
            let mut watch = ClockWatch::begin(&clock);
            clock.clock.advance_ms(1_000);
            assert_eq!(watch.read(clock.now()), None, "reading {torn} was torn");
        }
    }

    #[tokio::test]
    async fn a_step_is_raised_once_and_cleared_after_a_while_by_the_monotonic_clock() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(start()));
        let node_db = db::node::open(dir.path()).await.expect("a node database");
        let ids = Arc::new(CountingIds::default());
        let alarms = NodeAlarms::new(node_db, "node1", Vec::new(), ids);
        let detector = ClockDetector {
            authority: Arc::new(alarms.clone()),
            node_name: "node1".into(),
            clock: clock.clone(),
            watch: Mutex::new(ClockWatch::begin(&*clock)),
        };
        let seen = async || {
            clock.advance_ms(1_000);
            detector.look().await.expect("it looks");
            let active = alarms.active().await.expect("it can be read");
            active.iter().map(|alarm| (alarm.alarm_type, alarm.resource.clone(), alarm.count)).collect::<Vec<_>>()
        };
        assert_eq!(seen().await, []);
        clock.set_utc(clock.now().utc.plus_ms(-7_200_000));
        let stepped = |count| [(AlarmType::ClockStepped, "clock:node1".to_owned(), count)];
        assert_eq!(seen().await, stepped(1));
        assert_eq!(seen().await, stepped(2));
        // set right again, which is a step as well: still the same alarm
        clock.set_utc(clock.now().utc.plus_ms(7_200_000));
        assert_eq!(seen().await, stepped(3));
        clock.advance_ms(298_000);
        assert_eq!(seen().await, stepped(4));
        assert_eq!(seen().await, []);
    }
}
