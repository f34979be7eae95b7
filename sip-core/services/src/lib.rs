//! The services of the call core: registrar, calls between subscribers and over trunks, limits, routing.
//!
//! What it does: a [`Core`] is one shard. It takes messages, timeouts and answers of the journal as [`Input`], and gives
//! [`Output`]; calls reach the media relay and the journal through the ports [`MediaPort`] and [`JournalPort`]. The
//! [`directory::Directory`] is its read-only picture of tenants, [`location::Location`] knows where subscribers are,
//! [`recovery::OpenCalls`] ends the calls that a dead node left open.
//!
//! What it never does: read a clock, open a socket, start a thread, touch a database, or ask anybody in the middle of a
//! message: what it needs to know it finds in [`Shared`].
//!
//! How to drive it: call [`Core::handle`] for each input, then [`Core::poll`] until it is empty, then wait for the next
//! input or for [`Core::next_timeout`], whichever comes first, and hand in [`Input::Timeout`] then. A message goes to the
//! core of its [`shard::of_message`]. When `handle` panics, call [`Core::after_panic`] and go on.

mod auth;
mod b2bua;
pub mod config;
mod core;
pub mod directory;
mod io;
pub mod limits;
pub mod location;
pub mod numbering;
mod outbound;
pub mod ports;
pub mod recovery;
mod registrar;
pub mod routing;
pub mod shard;
#[cfg(test)]
mod simulation;
pub mod stats;
#[cfg(test)]
mod testing;
pub mod trunk;

pub use auth::ha1_pair;
pub use config::{InvalidConfig, ServicesConfig};
pub use core::{Core, Parts};
pub use ports::{Input, JournalPlaces, JournalPort, MediaPort, Output, Shared, Token};
pub use stats::Stats;
