//! The built-in SIP caller and answerer: `tandem call`, and the phones of demo, tests and load.
//!
//! What it does: registers accounts, places and answers calls with digest, ACK, BYE and CANCEL, sends and counts 20 ms
//! PCMU both ways, and plays a carrier's trunk ([`Trunk`]). What it never does: share a line of call logic with the
//! server. It does share the message and engine crates, so a defect there can hide from both: only foreign peers show it.
//!
//! How to drive it: [`Agent::start`], [`Agent::register`] or trunk routes in [`AgentConfig`], then [`Agent::call`], or
//! [`Agent::place`] for a [`CallHandle`] that can be watched and hung up. The call logic is `ua`: without socket and
//! clock; `agent` drives it on one UDP socket; `rtp` sends and counts media.

mod agent;
mod cli;
mod rtp;
#[cfg(test)]
mod tests;
mod types;
mod ua;

pub use agent::{Agent, AgentConfig, CallHandle, StartError};
pub use cli::{CallArgs, CallFailure, run};
pub use types::{
    Account, AccountId, Behaviour, CallOutcome, CallRequest, Caller, PlaceError, Progress, RegisterError, Role, Talk,
    Trunk,
};
