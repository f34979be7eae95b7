//! Counters of one shard, kept in plain memory and handed to the metrics once a second. Labels are methods and status
//! classes: never numbers, names or Call-IDs.

use std::time::{Duration, Instant};

use sip_message::{Message, Method};
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

    /// Tells what has grown since the last time, at most once in a period.
    pub fn report(&mut self, now: Instant, tally: &mut Tally, stats: &Stats) {
        if now.saturating_duration_since(self.at) < PERIOD {
            return;
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
            ("sip_garbage_total", new.garbage, old.garbage),
            ("sip_unbuildable_total", new.unbuildable, old.unbuildable),
            ("sip_stray_responses_total", new.strays, old.strays),
            ("sip_panics_total", new.panics, old.panics),
        ];
        for (name, new, old) in grown {
            if new > old {
                metrics::counter!(name).increment(new - old);
            }
        }
    }
}
