//! Counters of the connections, told to the metrics once a second.

use std::time::Instant;

use super::connection::Ended;
use crate::tally::{Garbage, Reporter, Tally};
use sip_services::Stats;

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    accepted: u64,
    refused_full: u64,
    refused_source: u64,
    accept_failed: u64,
    opened: u64,
    open_failed: u64,
    pings: u64,
    parked: u64,
    ended: [u64; Ended::ALL.len()],
}

#[derive(Debug)]
pub(super) struct TcpTally {
    /// Messages in both directions, as shards count theirs.
    pub messages: Tally,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Refused, because there are as many as there may be.
    pub refused_full: u64,
    /// Refused, because their address has as many as it may have.
    pub refused_source: u64,
    /// The system could not give one.
    pub accept_failed: u64,
    /// Connections of ours.
    pub opened: u64,
    /// Those that did not come about.
    pub open_failed: u64,
    /// Keep-alives that were answered.
    pub pings: u64,
    /// Messages that had to wait for their shard.
    pub parked: u64,
    ended: [u64; Ended::ALL.len()],
    told: Counts,
    reporter: Reporter,
}

impl TcpTally {
    pub fn new(now: Instant) -> Self {
        Self {
            messages: Tally::default(),
            accepted: 0,
            refused_full: 0,
            refused_source: 0,
            accept_failed: 0,
            opened: 0,
            open_failed: 0,
            pings: 0,
            parked: 0,
            ended: [0; Ended::ALL.len()],
            told: Counts::default(),
            reporter: Reporter::new(now),
        }
    }

    pub fn ended(&mut self, why: Ended) {
        let slot = Ended::ALL.iter().position(|known| *known == why).and_then(|at| self.ended.get_mut(at));
        if let Some(slot) = slot {
            *slot += 1;
        }
    }

    /// Tells what has grown since the last time, at most once in a period.
    pub fn report(&mut self, now: Instant, connections: usize, buffered: usize, garbage: &Garbage) {
        if !self.reporter.report(now, &mut self.messages, &Stats::default(), garbage) {
            return;
        }
        let counts = Counts {
            accepted: self.accepted,
            refused_full: self.refused_full,
            refused_source: self.refused_source,
            accept_failed: self.accept_failed,
            opened: self.opened,
            open_failed: self.open_failed,
            pings: self.pings,
            parked: self.parked,
            ended: self.ended,
        };
        let told = std::mem::replace(&mut self.told, counts);
        let grown = [
            ("sip_tcp_accepted_total", counts.accepted, told.accepted),
            ("sip_tcp_accept_failed_total", counts.accept_failed, told.accept_failed),
            ("sip_tcp_opened_total", counts.opened, told.opened),
            ("sip_tcp_open_failed_total", counts.open_failed, told.open_failed),
            ("sip_tcp_pings_total", counts.pings, told.pings),
            ("sip_tcp_parked_total", counts.parked, told.parked),
        ];
        for (name, new, old) in grown {
            if new > old {
                metrics::counter!(name).increment(new - old);
            }
        }
        let refused =
            [("all", counts.refused_full, told.refused_full), ("source", counts.refused_source, told.refused_source)];
        for (bound, new, old) in refused {
            if new > old {
                metrics::counter!("sip_tcp_refused_total", "bound" => bound).increment(new - old);
            }
        }
        for (why, (new, old)) in Ended::ALL.iter().zip(counts.ended.iter().zip(&told.ended)) {
            if new > old {
                metrics::counter!("sip_tcp_ended_total", "why" => why.as_str()).increment(new - old);
            }
        }
        metrics::gauge!("sip_tcp_connections").set(float(connections));
        metrics::gauge!("sip_tcp_buffered_bytes").set(float(buffered));
    }
}

/// Exact for all that is counted here.
fn float(value: usize) -> f64 {
    u32::try_from(value).map_or(f64::MAX, f64::from)
}
