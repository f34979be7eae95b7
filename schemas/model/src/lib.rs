//! The contracts of Tandem: the values that every folder speaks of.
//!
//! What it does: typed identifiers, tenancy, actors, money, telephone numbers, SIP domains, instants, release
//! causes, the shape of a change, and the catalogue of events ([`event`]). What it never does: read a clock, draw
//! a random number, open a socket or a database. Who needs an instant or an identifier asks a [`time::Clock`] or
//! an [`id::IdSource`] that was passed in.
//!
//! Every other crate may use this one; it uses none of ours.

pub mod actor;
pub mod cause;
pub mod change;
pub mod ctx;
pub mod domain;
pub mod event;
pub mod id;
pub mod money;
pub mod network;
pub mod number;
pub mod page;
pub mod secret;
pub mod tenancy;
pub mod text;
pub mod time;
