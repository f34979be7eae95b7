//! Renderings of kept figures: HTML with SVG charts, CSV, and the text of the mail. Nothing but the figures goes in (no
//! clock, no store), so two renderings of one run are the same octets.

mod chart;
mod csv;
mod html;
mod number;
mod text;

pub(crate) use csv::csv;
pub(crate) use html::html;
pub(crate) use text::{subject, text};

/// Why figures could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The template failed.
    #[error("the page: {0}")]
    Html(#[from] askama::Error),
    /// A chart failed.
    #[error("a chart: {0}")]
    Chart(String),
    /// The table failed.
    #[error("the table: {0}")]
    Csv(#[from] ::csv::Error),
    /// The figures hold a period or zone that is none.
    #[error("the period: {0}")]
    Period(#[from] reports::period::InvalidPeriod),
}
