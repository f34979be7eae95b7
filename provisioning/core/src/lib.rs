//! Provisioning: the account tree, domains, sites, subscribers, numbers, trunks and API tokens.
//!
//! What it does: the commands and their pure decisions, the resources as they may be shown, and the ports that faces
//! and call core use. What it never does: SQL, sockets, clocks, secrets in anything that can be shown. Each mutation
//! is a [`command::Command`] through [`model::change::Change`]; each read takes the caller's scope.
//!
//! The store drives it: it loads a [`view::View`], asks [`decide::decide`], and carries out the [`view::Write`]s of
//! the decision in the transaction in which the view was loaded. A dry-run shows the plan alone.

mod account;
pub mod bulk;
pub mod canonical;
pub mod command;
pub mod decide;
mod domain;
mod label;
pub mod number;
pub mod port;
pub mod resource;
mod revert;
mod site;
mod subscriber;
mod token;
mod trunk;
pub mod view;
