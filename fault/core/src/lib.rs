//! Fault management: alarms, their catalogue and state machine (ITU-T X.733, RFC 3877, TMF642).
//!
//! What it does: the catalogue of alarm types with cause, effect and action, the pure decision what an observation
//! does to an alarm, the notifications that follow, the ports that detectors and faces use. What it never does: SQL,
//! sockets, clocks. The node that detects is the authority for its alarms.

pub mod catalogue;
pub mod command;
pub mod port;
pub mod resource;
