//! Fault management over the databases: the node's own, which is the authority for its alarms, and the store's copy.
//!
//! What it does: [`NodeAlarms`] takes in what detectors see and commits transition, alarm row, history and one outbox
//! row per target as one transaction in `node.db`; [`Sender`] drains that outbox into the sinks, a lane per target, in
//! order and paced, with heartbeats;
//! [`NodeAlarms::copy_pending`] and [`NodeAlarms::apply_acks`] exchange alarms and acknowledgements with the store;
//! [`StoreAlarms`] answers the faces from the store's copy. What it never does: decide what an observation means
//! (`fault::state` does), speak SNMP, read a clock, need the store to raise an alarm.
//!
//! The root runs: a detector's period calls [`fault::port::AlarmAuthority::observe`]; a worker woken by
//! [`NodeAlarms::subscribe`] per target calls [`Lane::drain`]; another calls the two exchanges while the store answers.

mod alarm;
mod engine;
mod error;
mod exchange;
mod node;
mod row;
mod sender;

#[cfg(test)]
mod tests;

pub use alarm::StoreAlarms;
pub use engine::{EngineBoot, engine_boot, engine_known};
pub use node::{NodeAlarms, QUEUE_MAX};
pub use sender::{Drained, Lane, Sender, SenderOptions, UNREACHABLE_ATTEMPTS, UNREACHABLE_HEARTBEATS};
