//! Provisioning: the account tree, domains, sites, subscribers, numbers, trunks and API tokens.
//!
//! What it does: the commands and their pure decisions, the resources as they may be shown, and the ports that faces
//! and call core use. What it never does: SQL, sockets, clocks, secrets in anything that can be shown. Each mutation
//! is a [`command::Command`] through [`model::change::Change`]; each read takes the caller's scope.

pub mod command;
pub mod port;
pub mod resource;
