//! Performance management and reports: 15-minute counters, key indicators, monthly report.
//!
//! What it does: counting call facts into raw numerators and denominators, indicators from counters (ITU-T E.425,
//! RFC 6076), report periods in real zones, the figures of a report. What it never does: SQL, files, mail, clocks,
//! stored percentages. A denominator of zero makes an indicator undefined, not zero.
//!
//! Drive it: [`counting::Tally`] takes facts and gives the counts to add to stored rows; [`run::plan`] decides a
//! command; [`figures::days`] and [`figures::Figures`] hold what a report shows, and the indicators are methods of
//! [`resource::Counters`].

pub mod availability;
pub mod command;
pub mod counting;
pub mod figures;
pub mod kpi;
pub mod period;
pub mod port;
pub mod resource;
pub mod run;

#[cfg(test)]
mod testing;
