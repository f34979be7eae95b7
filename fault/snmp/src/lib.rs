//! SNMP: notifications (v2c and v3, traps and informs, RFC 3416 sections 4.2.6 and 4.2.7), the agent, and the MIB that
//! names what both carry.
//!
//! What it does: [`SnmpSink`] is a [`fault::port::NotificationSink`] that sends each message of the outbox as one trap or
//! inform with a fixed list of varbinds ([`objects`]); [`Agent`] answers managers from a [`fault::port::NodeView`];
//! [`mib::render`] writes the MIB modules from the same lists and the catalogue of alarms; [`SnmpConfig`] is what an
//! operator sets. What it never does: keep, order or repeat notifications (the outbox and its sender do), read a
//! database, decide anything about alarms, set anything that a manager asks for.
//!
//! This crate is the one place that names the SNMP library (`async-snmp`): `sink`, `user`, `engine` and `agent`.

pub mod agent;
pub mod config;
pub mod engine;
pub mod mib;
mod network;
pub mod objects;
mod sink;
mod tables;
pub mod user;

#[cfg(test)]
mod receivers;

pub use agent::{Agent, AgentConfig, AgentError, CommunityConfig};
pub use config::{SnmpConfig, SnmpConfigError, SnmpKind, SnmpTargetConfig, SnmpVersion, sinks};
pub use engine::{Engine, EngineError, engine_id};
pub use network::Network;
pub use sink::{SnmpSink, test_text};
pub use user::{Authentication, Privacy, SnmpUserConfig, UserError};
