//! Counters of one shard, kept in plain memory and handed to the metrics once a second. Labels are methods and status
//! classes: never numbers, names or Call-IDs.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sip_message::{Fault, Message, Method};
use sip_services::Stats;

const PERIOD: Duration = Duration::from_secs(1);
const OTHER: &str = "other";
const CLASSES: [&str; 7] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx"];
/// The methods that have a label of their own, and one more for the rest.
const METHODS: usize = Method::KNOWN.len() + 1;

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    requests: [u64; METHODS],
    responses: [u64; 7],
    sent_requests: u64,
    sent_responses: [u64; 7],
    /// What could not be read, by kind.
    faults: [u64; Fault::ALL.len()],
    /// Handed to another shard.
    pub handed_over: u64,
    /// Dropped, because the owner's queue was full.
    pub queue_full: u64,
    /// Could not be sent.
    pub send_failed: u64,
    core: Stats,
}

impl Tally {
    pub fn received(&mut self, message: &Message) {
        let slot = if message.is_request() {
            let known = Method::KNOWN.iter().position(|method| method == message.method());
            self.requests.get_mut(known.unwrap_or(METHODS - 1))
        } else {
            self.responses.get_mut(usize::from(message.status() / 100))
        };
        if let Some(slot) = slot {
            *slot += 1;
        }
    }

    /// Octets that are no message. This is all that they leave: a line of log for each would be a way to fill the disk.
    pub fn refused(&mut self, fault: Fault) {
        let slot = Fault::ALL.iter().position(|known| *known == fault).and_then(|at| self.faults.get_mut(at));
        if let Some(slot) = slot {
            *slot += 1;
        }
    }

    pub fn sent(&mut self, octets: &[u8]) {
        match octets.strip_prefix(b"SIP/2.0 ").and_then(|rest| rest.first()) {
            Some(digit) => {
                let class = usize::from(digit.saturating_sub(b'0'));
                if let Some(slot) = self.sent_responses.get_mut(class) {
                    *slot += 1;
                }
            }
            None => self.sent_requests += 1,
        }
    }
}

/// How often there is a line of log about what could not be read, at most, on the whole node.
const LINE_PERIOD_MS: u64 = 60_000;

/// What could not be read, on all threads of the node, for one line of log now and then.
#[derive(Debug)]
pub(crate) struct Garbage {
    start: Instant,
    counts: [AtomicU64; Fault::ALL.len()],
    /// When the next line may be written, since the start.
    line_at_ms: AtomicU64,
}

impl Garbage {
    pub fn new(start: Instant) -> Self {
        Self { start, counts: Default::default(), line_at_ms: AtomicU64::new(0) }
    }

    fn add(&self, fault: usize, count: u64) {
        if let Some(slot) = self.counts.get(fault) {
            slot.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The line, when one is due and there is something to say: what came since the last, by kind.
    fn line(&self, now: Instant) -> Option<(u64, String)> {
        if self.counts.iter().all(|count| count.load(Ordering::Relaxed) == 0) {
            return None;
        }
        let elapsed = u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        let due = self.line_at_ms.load(Ordering::Relaxed);
        let next = elapsed.saturating_add(LINE_PERIOD_MS);
        // Of several threads one writes.
        if elapsed < due || self.line_at_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return None;
        }
        let (mut total, mut kinds) = (0, String::new());
        for (fault, count) in Fault::ALL.iter().zip(&self.counts) {
            let count = count.swap(0, Ordering::Relaxed);
            if count > 0 {
                total += count;
                // Writing to a String can't fail.
                let _ = write!(kinds, "{}{}={count}", if kinds.is_empty() { "" } else { " " }, fault.as_str());
            }
        }
        Some((total, kinds))
    }

    fn look(&self, now: Instant) {
        if let Some((count, kinds)) = self.line(now) {
            tracing::warn!(count, kinds, "what was received and is no SIP was refused or dropped");
        }
    }
}

/// What has been told to the metrics, and when.
#[derive(Debug)]
pub(crate) struct Reporter {
    told: Tally,
    at: Instant,
}

impl Reporter {
    pub fn new(now: Instant) -> Self {
        Self { told: Tally::default(), at: now }
    }

    /// Tells what has grown since the last time, at most once in a period; whether it did.
    pub fn report(&mut self, now: Instant, tally: &mut Tally, stats: &Stats, garbage: &Garbage) -> bool {
        if now.saturating_duration_since(self.at) < PERIOD {
            return false;
        }
        self.at = now;
        tally.core = *stats;
        let told = std::mem::replace(&mut self.told, *tally);
        for (at, (new, old)) in tally.requests.iter().zip(&told.requests).enumerate() {
            if new > old {
                let method =
                    Method::KNOWN.get(at).map_or(OTHER, |m| std::str::from_utf8(m.as_bytes()).unwrap_or(OTHER));
                metrics::counter!("sip_requests_received_total", "method" => method.to_owned()).increment(new - old);
            }
        }
        for (class, (new, old)) in CLASSES.iter().zip(tally.responses.iter().zip(&told.responses)) {
            if new > old {
                metrics::counter!("sip_responses_received_total", "class" => *class).increment(new - old);
            }
        }
        for (class, (new, old)) in CLASSES.iter().zip(tally.sent_responses.iter().zip(&told.sent_responses)) {
            if new > old {
                metrics::counter!("sip_responses_sent_total", "class" => *class).increment(new - old);
            }
        }
        for (at, (fault, (new, old))) in Fault::ALL.iter().zip(tally.faults.iter().zip(&told.faults)).enumerate() {
            if new > old {
                metrics::counter!("sip_garbage_total", "kind" => fault.as_str()).increment(new - old);
                if *fault != Fault::KeepAlive {
                    garbage.add(at, new - old);
                }
            }
        }
        garbage.look(now);
        let (new, old) = (&tally.core, &told.core);
        let grown = [
            ("sip_requests_sent_total", tally.sent_requests, told.sent_requests),
            ("sip_shard_handed_over_total", tally.handed_over, told.handed_over),
            ("sip_shard_queue_full_total", tally.queue_full, told.queue_full),
            ("sip_send_failed_total", tally.send_failed, told.send_failed),
            ("sip_invites_unauthenticated_total", new.invites_unauthenticated, old.invites_unauthenticated),
            ("sip_authentications_failed_total", new.authentications_failed, old.authentications_failed),
            ("sip_calls_admitted_total", new.calls_admitted, old.calls_admitted),
            ("sip_calls_limited_total", new.calls_limited, old.calls_limited),
            ("sip_calls_shed_total", new.calls_shed, old.calls_shed),
            ("sip_calls_answered_total", new.calls_answered, old.calls_answered),
            ("sip_trunk_failovers_total", new.trunk_failovers, old.trunk_failovers),
            ("sip_answers_aborted_total", new.answers_aborted, old.answers_aborted),
            ("sip_registers_accepted_total", new.registers_accepted, old.registers_accepted),
            ("sip_unbuildable_total", new.unbuildable, old.unbuildable),
            ("sip_stray_responses_total", new.strays, old.strays),
            ("sip_panics_total", new.panics, old.panics),
        ];
        for (name, new, old) in grown {
            if new > old {
                metrics::counter!(name).increment(new - old);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use db::system::SystemClock;
    use model::time::Clock;

    #[test]
    fn garbage_makes_one_line_a_minute() {
        let start = SystemClock.now().mono;
        let garbage = Garbage::new(start);
        let (mut tally, mut first, mut second) = (Tally::default(), Reporter::new(start), Reporter::new(start));
        assert_eq!(garbage.line(start + PERIOD), None, "nothing to say");
        let mut lines = 0;
        for second_no in 1..=180 {
            let now = start + PERIOD * second_no;
            for _ in 0..20_000 {
                tally.refused(Fault::NotSip);
            }
            tally.refused(Fault::CSeq);
            tally.refused(Fault::KeepAlive);
            // As `Reporter::report` does, but that the line is looked at here.
            let told = std::mem::replace(&mut first.told, tally);
            for at in 0..Fault::ALL.len() {
                if Fault::ALL[at] != Fault::KeepAlive {
                    garbage.add(at, tally.faults[at] - told.faults[at]);
                }
            }
            if let Some((count, kinds)) = garbage.line(now) {
                lines += 1;
                let seconds = if lines == 1 { 1 } else { 60 };
                assert_eq!((count, kinds), (seconds * 20_001, format!("not-sip={} cseq={seconds}", seconds * 20_000)));
            }
        }
        assert_eq!(lines, 3);
        assert!(second.report(start + PERIOD, &mut tally, &Stats::default(), &garbage));
        assert!(!second.report(start + PERIOD, &mut tally, &Stats::default(), &garbage), "once in a period");
    }
}
