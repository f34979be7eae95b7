//! The text of the mail, for readers without HTML, and its subject.

use reports::figures::Figures;
use reports::period::{local_text, zone};

use super::RenderError;
use super::html::month_name;
use super::number::{count, grouped, minutes, minutes_seconds, percent, seconds};

/// The subject of the mail.
pub(crate) fn subject(figures: &Figures) -> Result<String, RenderError> {
    let provisional = if figures.provisional { " (provisional)" } else { "" };
    let revision = if figures.revision == 0 { String::new() } else { format!(", revision {}", figures.revision) };
    Ok(format!("Call report {} – {}{revision}{provisional}", month_name(&figures.period)?, figures.account_name))
}

/// The headline figures as plain text.
pub(crate) fn text(figures: &Figures) -> Result<String, RenderError> {
    let zone = zone(&figures.timezone)?;
    let c = &figures.totals;
    let mut lines = vec![
        subject(figures)?,
        format!("{} to {} ({})", local_text(figures.from, zone), local_text(figures.to, zone), figures.timezone),
        String::new(),
        format!("Call attempts  {}", count(c.attempts)),
        format!("ASR            {} ({} answered)", percent(&c.asr()), count(c.answered)),
        format!("NER            {}", percent(&c.ner())),
        format!("Minutes        {}", minutes(c)),
        format!("ACD (m:ss)     {} ({} ended calls)", minutes_seconds(&c.acd_ms()), count(c.ended)),
        format!("PDD, mean      {}", seconds(&c.pdd_ms())),
    ];
    lines.extend(figures.money.iter().map(|m| format!("Revenue        {} {}", m.currency, grouped(&m.revenue))));
    lines.push(String::new());
    if figures.provisional {
        lines.push("Provisional: the month was not over or not settled when these figures were taken.".to_owned());
    }
    lines.push(
        if figures.completeness.is_complete() {
            "Complete: calls, usage and money agree."
        } else {
            "Not complete yet: the page lists what is open."
        }
        .to_owned(),
    );
    lines.push("The page with charts, the table and a workbook are attached.".to_owned());
    Ok(lines.join("\r\n"))
}
