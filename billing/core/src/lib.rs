//! Billing: from call facts to usage, from usage to exact money, from money to files that prove their completeness.
//!
//! What it does: correlation of facts to usage, tariffs and rating, ledger postings, the plan of a billing file and its
//! deterministic bytes, the ports that faces use. What it never does: SQL, files, clocks, floating point.
//!
//! How to drive it: [`mediation::mediate`] turns a fact into legs with their claims; [`charging::assess`] rates each by
//! a [`tariff::TariffBook`] that holds the assignments the legs can meet; [`ledger::postings`] sums a batch of charges.
//! A command is judged by the function of its name in [`decide`], on what the store found. [`file::Renderer`] gives the
//! bytes of a closed file. Interim facts are not billed apart yet: a call is billed whole at its end.

pub mod charging;
pub mod command;
pub mod decide;
pub mod file;
pub mod ledger;
pub mod mediation;
pub mod port;
pub mod rating;
pub mod resource;
pub mod tariff;

#[cfg(test)]
mod samples;
