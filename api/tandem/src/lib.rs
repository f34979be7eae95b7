//! Tandem's root: configuration, wiring, lifecycle and command line, as a library and the one binary.
//!
//! What it does: reads and checks the configuration, opens databases and journal, builds cores, stores and faces,
//! injects each into the other, starts them, drains them ([`daemon`]); the command line ([`cli`]); the demo ([`demo`]);
//! the built-in SIP caller ([`call`]). What it never does: decide anything about calls, money, tenants or alarms; hold
//! a statement of SQL.

pub mod backup;
pub mod call;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod data_dir;
pub mod demo;
pub mod logging;
pub mod priority;
pub mod reload;
pub mod storage;
mod wiring;
