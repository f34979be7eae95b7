//! Renderings of kept figures: HTML with SVG charts, CSV, XLSX, and the text of the mail. Nothing but the figures goes in (no
//! clock, no store), so two renderings of one run are the same octets.

mod availability;
mod chart;
mod csv;
mod html;
mod number;
mod text;
mod xlsx;

use reports::figures::Figures;
use reports::resource::Format;

pub(crate) use csv::csv;
pub(crate) use html::html;
pub(crate) use text::{subject, text};
pub(crate) use xlsx::xlsx;

/// Renders one format.
pub(crate) fn render(format: Format, figures: &Figures) -> Result<Vec<u8>, RenderError> {
    match format {
        Format::Html => html(figures),
        Format::Csv => csv(figures),
        Format::Xlsx => xlsx(figures),
    }
}

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
    /// The workbook failed.
    #[error("the workbook: {0}")]
    Xlsx(#[from] rust_xlsxwriter::XlsxError),
    /// The figures hold a period or zone that is none.
    #[error("the period: {0}")]
    Period(#[from] reports::period::InvalidPeriod),
}
