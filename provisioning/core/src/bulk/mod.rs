//! Bulk: many changes from one file, line by line, by the names that people know: accounts by their path of names,
//! subscribers by their address of record, numbers by their digits. The same form is exported, so that what was exported,
//! edited and sent again does what was edited.
//!
//! A line is parsed ([`Line`]), and decided on a [`Picture`] of what its names stand for ([`decide_line`]), by the same
//! decisions as every other change.

mod decision;
mod field;
pub mod file;
pub mod job;
mod line;
mod name;
mod picture;
pub(crate) mod start;

pub use self::decision::{LineDecision, Outcome, Step, decide_line};
pub use self::field::{Fields, columns, from_cell, to_cell};
pub use self::line::{Action, AddressOfRecord, Kind, Line, Object};
pub use self::name::AccountName;
pub use self::picture::Picture;
