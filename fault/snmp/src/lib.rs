//! Notifications by SNMP (v2c traps, RFC 3416 section 4.2.6), and the MIB that names them.
//!
//! What it does: [`SnmpSink`] is a [`fault::port::NotificationSink`] that sends each notification of an alarm as one
//! trap with a fixed list of varbinds ([`objects`]); [`mib::render`] writes the MIB modules from the same list and the
//! catalogue of alarms; [`SnmpConfig`] is what an operator sets. What it never does: keep or order notifications (the
//! outbox and its sender do), read a database, decide anything about alarms.
//!
//! `trap` is the one module that names the SNMP library. Informs, version 3 and the agent get their own sinks and
//! settings beside what is here.

pub mod config;
pub mod mib;
pub mod objects;
mod trap;

#[cfg(test)]
mod receivers;

pub use config::{SnmpConfig, SnmpConfigError, SnmpTargetConfig, SnmpVersion, sinks};
pub use trap::SnmpSink;
