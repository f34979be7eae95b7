//! The public face over real stores, on both engines.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

mod face;
mod hostile;
mod jobs;
mod samples;
mod statements;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
mod types;
