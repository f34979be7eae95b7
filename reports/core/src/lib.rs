//! Performance management and reports: 15-minute counters, key indicators, monthly report.
//!
//! What it does: counting call facts into raw numerators and denominators, indicators from counters (ITU-T E.425,
//! RFC 6076), report periods in real zones, the figures of a report. What it never does: SQL, files, mail, clocks,
//! stored percentages. A denominator of zero makes an indicator undefined, not zero.

pub mod command;
pub mod port;
pub mod resource;
