//! Billing: from call facts to usage, from usage to exact money, from money to files that prove their completeness.
//!
//! What it does: correlation of facts to usage, tariffs and rating, ledger postings, the plan of a billing file and its
//! deterministic bytes, the ports that faces use. What it never does: SQL, files, clocks, floating point.

pub mod command;
pub mod port;
pub mod resource;
