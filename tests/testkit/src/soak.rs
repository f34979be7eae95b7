//! How long a seeded test runs: short in `make test`, long in `make soak`; and what counts as a finding.
//!
//! `TANDEM_SOAK` asks for the long run. Its value is how many minutes a fuzz target may take.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::seeded::Random;

/// Seeds of a property over the simulated network.
const SEEDS: u64 = 200;
/// As many in the long run.
const SEEDS_SOAK: u64 = 10_000;
/// Minutes of a fuzz target in the long run, where the variable names none.
const MINUTES: u64 = 10;
/// A round takes microseconds; one that takes this long, on however busy a machine, will not end.
const HANG: Duration = Duration::from_secs(120);
/// What the process may grow by, in KiB, over its peak before: inputs are below 64 KiB, and nothing is kept.
const GROWTH_MAX_KIB: u64 = 512 * 1_024;
/// Failed seeds that are told apart; more are counted.
const FAILURES_MAX: usize = 20;
/// How often the long run says how far it is.
const PROGRESS: Duration = Duration::from_secs(15);

/// Minutes that the long run may take per fuzz target; `None`: the short run.
#[must_use]
pub fn minutes() -> Option<u64> {
    let value = std::env::var("TANDEM_SOAK").ok()?;
    Some(value.trim().parse().ok().filter(|minutes| *minutes > 0).unwrap_or(MINUTES))
}

/// Whether the long run was asked for.
#[must_use]
pub fn is_long() -> bool {
    minutes().is_some()
}

/// Seeds of a property over the simulated network.
#[must_use]
pub fn seeds() -> u64 {
    if is_long() { SEEDS_SOAK } else { SEEDS }
}

/// Runs a property for the seeds from 1 to [`seeds`], on all cores; what it gives, by seed.
///
/// # Panics
/// When it fails for a seed, after all were tried: the message names the seeds.
pub fn sweep<T: Send>(name: &str, run: impl Fn(u64) -> T + Sync) -> BTreeMap<u64, T> {
    let (last, started) = (seeds(), now());
    let next = AtomicU64::new(1);
    let results = Mutex::new((BTreeMap::new(), Vec::new(), started));
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        return;
                    }
                    let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    let (done, failed, told) = &mut *results;
                    match result {
                        Ok(result) => drop(done.insert(seed, result)),
                        Err(_) => failed.push(seed),
                    }
                    if is_long() && told.elapsed() > PROGRESS {
                        *told = now();
                        let failed = failed.len();
                        say(&format!(
                            "{name}: {} of {last} seeds, {failed} failed, {:?}",
                            done.len(),
                            started.elapsed()
                        ));
                    }
                }
            });
        }
    });
    let (done, mut failed, _) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable();
    let count = failed.len();
    failed.truncate(FAILURES_MAX);
    if is_long() {
        say(&format!("{name}: all of {last} seeds, {count} failed {failed:?}, {:?}", started.elapsed()));
    }
    assert!(failed.is_empty(), "{name}: {count} of {last} seeds failed: {failed:?}");
    done
}

/// Runs rounds of a fuzz target, each with draws of its own: `rounds` in the short run, as many as fit into
/// [`minutes`] in the long one. Gives how many there were. A finding is a panic, a round that does not end, or memory
/// that grows without bound.
///
/// # Panics
/// At a finding, after naming seed and round.
pub fn campaign(name: &str, seed: u64, rounds: u64, mut round: impl FnMut(u64, &mut Random)) -> u64 {
    let (started, peak) = (now(), peak_kib());
    let ends = minutes().map(|minutes| started + Duration::from_secs(60 * minutes));
    let (at, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let wake = (Mutex::new(()), Condvar::new());
    std::thread::scope(|scope| {
        scope.spawn(|| watch(name, seed, &at, &done, &wake));
        let finish = Finish { name, seed, at: &at, done: &done, wake: &wake.1 };
        loop {
            let number = at.load(Ordering::Relaxed);
            // The clock is asked now and then: a round may be shorter than the question.
            let is_over = match ends {
                Some(ends) => number.is_multiple_of(64) && now() >= ends,
                None => number >= rounds,
            };
            if is_over {
                break;
            }
            round(number, &mut Random::of_round(seed, number));
            at.store(number + 1, Ordering::Relaxed);
        }
        drop(finish);
    });
    let rounds = at.into_inner();
    let growth = peak_kib().saturating_sub(peak);
    if is_long() {
        say(&format!("{name}: {rounds} rounds, {:?}, {growth} KiB more at the peak", started.elapsed()));
    }
    assert!(growth < GROWTH_MAX_KIB, "{name}: seed {seed:#x}: the process grew by {growth} KiB");
    rounds
}

/// Tells the watcher that the rounds are over, and who reads it where they stopped.
struct Finish<'a> {
    name: &'a str,
    seed: u64,
    at: &'a AtomicU64,
    done: &'a AtomicBool,
    wake: &'a Condvar,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("{}: seed {:#x} round {}", self.name, self.seed, self.at.load(Ordering::Relaxed)));
        }
        self.done.store(true, Ordering::Relaxed);
        self.wake.notify_all();
    }
}

/// Ends the process when a round does not end: nothing else can stop a thread that loops.
fn watch(name: &str, seed: u64, at: &AtomicU64, done: &AtomicBool, wake: &(Mutex<()>, Condvar)) {
    let (mut seen, mut since, mut told) = (0, now(), now());
    while !done.load(Ordering::Relaxed) {
        let guard = wake.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A notification between the question and the wait costs one such step.
        drop(wake.1.wait_timeout(guard, Duration::from_millis(50)));
        let number = at.load(Ordering::Relaxed);
        if number != seen {
            (seen, since) = (number, now());
        }
        if since.elapsed() > HANG {
            say(&format!("{name}: seed {seed:#x} round {number} does not end"));
            std::process::abort();
        }
        if is_long() && told.elapsed() > PROGRESS {
            told = now();
            say(&format!("{name}: {number} rounds"));
        }
    }
}

/// The most memory that the process has held, KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
}

/// Progress goes past the capture of the test harness: a long run that says nothing looks like one that hangs.
fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "how long a test runs is measured by the clock on the wall")]
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_tries_each_seed_once_and_names_the_failed_ones() {
        let results = sweep("squares", |seed| seed * seed);
        assert_eq!(u64::try_from(results.len()), Ok(seeds()));
        assert!(results.iter().all(|(seed, square)| *square == seed * seed));
        let failed = catch_unwind(|| sweep("odd", |seed| assert_ne!(seed % 100, 7))).unwrap_err();
        assert!(failed.downcast_ref::<String>().is_some_and(|text| text.contains("[7, 107")), "{failed:?}");
    }

    #[test]
    fn a_campaign_repeats_its_rounds() {
        let run = || {
            let mut draws = Vec::new();
            let rounds = campaign("draws", 5, 100, |_, random| draws.push(random.draw()));
            draws.truncate(100);
            (rounds >= 100, draws)
        };
        if !is_long() {
            assert_eq!(run(), run());
            assert!(run().0);
        }
        assert!(catch_unwind(|| campaign("fails", 5, 100, |round, _| assert!(round < 10))).is_err());
        assert!(peak_kib() > 0);
    }
}
