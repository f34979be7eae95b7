//! Fault management: alarms, their catalogue and state machine (ITU-T X.733, RFC 3877, TMF642).
//!
//! What it does: the catalogue of alarm types with cause, effect and action, the pure decision what an observation
//! does to an alarm, the notifications that follow, the ports that detectors and faces use. What it never does: SQL,
//! sockets, clocks. The node that detects is the authority for its alarms.
//!
//! A detector reports its full set of [`resource::Condition`]s; [`state::decide_all`] compares it with the active
//! alarms and says what becomes of each; a transition that [`state::Transition::notification`] has words for is sent
//! to every target. The store beside this crate commits all of that as one transaction.

pub mod acknowledgement;
pub mod catalogue;
pub mod command;
pub mod notification;
pub mod pacing;
pub mod port;
pub mod resource;
pub mod resync;
pub mod state;
