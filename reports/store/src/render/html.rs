//! The page: complete in itself, readable on screen, in a mail and on paper.

use askama::Template;
use chrono::NaiveDate;
use reports::figures::{Figures, Money};
use reports::period::{Month, local_text, zone};
use reports::resource::{Counters, Ratio};

use super::number::{count, grouped, minutes, minutes_seconds, percent, percent_fine, seconds};
use super::{RenderError, availability, chart};

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    figures: &'a Figures,
    month: String,
    from: String,
    to: String,
    taken: String,
    cards: [[Card; 4]; 2],
    attempts_chart: String,
    minutes_chart: String,
    heat_map: String,
    busiest: Option<String>,
    outcomes: Vec<Outcome>,
    accounts: Vec<Line>,
    total: Line,
    trunks: Vec<Line>,
    money: Vec<MoneyLine>,
    nodes: Vec<availability::Line>,
    watched: Vec<availability::Line>,
    outages: Vec<availability::OutageLine>,
    checks: Vec<Check>,
    complete: bool,
    estimated: String,
}

/// One of the figures at the top, with what it is made of.
struct Card {
    label: &'static str,
    value: String,
    parts: String,
}

struct Outcome {
    label: &'static str,
    count: String,
    share: String,
    /// Width of the bar in whole percent.
    width: i64,
    class: &'static str,
}

struct Line {
    name: String,
    class: &'static str,
    attempts: String,
    answered: String,
    asr: String,
    ner: String,
    acd: String,
    pdd: String,
    minutes: String,
    revenue: Vec<String>,
}

struct MoneyLine {
    currency: String,
    revenue: String,
    cost: String,
    margin: String,
    rated: String,
}

struct Check {
    label: &'static str,
    value: String,
    good: bool,
}

/// Renders the page.
pub(crate) fn html(figures: &Figures) -> Result<Vec<u8>, RenderError> {
    let zone = zone(&figures.timezone)?;
    let totals = &figures.totals;
    let mut accounts: Vec<Line> =
        figures.accounts.iter().map(|a| line(a.name.clone(), "", &a.counters, &a.money)).collect();
    if let Some(own) = figures.own() {
        accounts.push(line(format!("{} itself", figures.account_name), "own", &own, &[]));
    }
    let page = Page {
        month: month_name(&figures.period)?,
        from: local_text(figures.from, zone),
        to: local_text(figures.to, zone),
        taken: local_text(figures.taken_at, zone),
        cards: cards(figures),
        attempts_chart: chart::attempts_by_day(&figures.days)?,
        minutes_chart: chart::minutes_by_day(&figures.days)?,
        heat_map: chart::heat_map(&figures.days)?,
        busiest: figures
            .busiest_hour()
            .map(|(date, hour, n)| format!("{date}, {hour:02}:00–{:02}:00, {} attempts", hour + 1, count(n))),
        outcomes: outcomes(totals),
        accounts,
        total: line("Total".to_owned(), "total", totals, &figures.money),
        trunks: figures.trunks.iter().map(|t| line(t.name.clone(), "", &t.counters, &[])).collect(),
        money: figures.money.iter().map(money_line).collect(),
        nodes: availability::nodes(&figures.availability),
        watched: availability::trunks(&figures.availability),
        outages: availability::outages(&figures.availability, |at| local_text(at, zone)),
        checks: checks(figures),
        complete: figures.completeness.is_complete(),
        estimated: count(totals.estimated),
        figures,
    };
    Ok(page.render()?.into_bytes())
}

/// `November 2026`.
pub(crate) fn month_name(period: &str) -> Result<String, RenderError> {
    let month: Month = period.parse()?;
    let first = NaiveDate::from_ymd_opt(month.year(), month.month(), 1).unwrap_or_default();
    Ok(first.format("%B %Y").to_string())
}

fn parts(ratio: &Ratio, of: &str) -> String {
    format!("{} of {} {of}", count(ratio.numerator), count(ratio.denominator))
}

fn cards(figures: &Figures) -> [[Card; 4]; 2] {
    let c = &figures.totals;
    let card = |label, value, parts| Card { label, value, parts };
    let (revenue, rated) = match figures.money.as_slice() {
        [] => ("–".to_owned(), "no rated calls".to_owned()),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(", {} more currencies", rest.len()) };
            let value = format!("{} {}", first.currency, grouped(&first.revenue));
            (value, format!("{} rated records{more}", count(first.rated_count)))
        }
    };
    [
        [
            card("Call attempts", count(c.attempts), format!("{} answered", count(c.answered))),
            card("ASR", percent(&c.asr()), parts(&c.asr(), "answered")),
            card("NER", percent(&c.ner()), parts(&c.ner(), "effective")),
            card("Revenue", revenue, rated),
        ],
        [
            card("Minutes", minutes(c), format!("{} calls ended", count(c.ended))),
            card("ACD (m:ss)", minutes_seconds(&c.acd_ms()), format!("over {} ended calls", count(c.ended))),
            card("PDD, mean", seconds(&c.pdd_ms()), format!("over {} attempts", count(c.pdd_count))),
            card("Packet loss", percent_fine(&c.loss()), parts(&c.loss(), "packets")),
        ],
    ]
}

fn outcomes(c: &Counters) -> Vec<Outcome> {
    let outcome = |label, numerator, class| {
        let share = Ratio { numerator, denominator: c.attempts };
        Outcome {
            label,
            count: count(numerator),
            share: percent(&share),
            width: share.scaled(100).unwrap_or(0).clamp(0, 100),
            class,
        }
    };
    vec![
        outcome("Answered", c.answered, "good"),
        outcome("No answer", c.no_answer, "called"),
        outcome("User busy", c.user_busy, "called"),
        outcome("Refused by the terminal", c.terminal_reject, "called"),
        outcome("Wrong or unknown number", c.address_error, "fault"),
        outcome("Network failure or limit", c.network_failure, "fault"),
    ]
}

fn line(name: String, class: &'static str, c: &Counters, money: &[Money]) -> Line {
    Line {
        name,
        class,
        attempts: count(c.attempts),
        answered: count(c.answered),
        asr: percent(&c.asr()),
        ner: percent(&c.ner()),
        acd: minutes_seconds(&c.acd_ms()),
        pdd: seconds(&c.pdd_ms()),
        minutes: minutes(c),
        revenue: money.iter().map(|m| format!("{} {}", m.currency, grouped(&m.revenue))).collect(),
    }
}

fn money_line(money: &Money) -> MoneyLine {
    MoneyLine {
        currency: money.currency.to_string(),
        revenue: grouped(&money.revenue),
        cost: grouped(&money.cost),
        margin: grouped(&money.margin),
        rated: count(money.rated_count),
    }
}

fn checks(figures: &Figures) -> Vec<Check> {
    let c = &figures.completeness;
    let check = |label, value, good| Check { label, value, good };
    let of = |n, of| format!("{} of {}", count(n), count(of));
    // Only the provider's report has them.
    let journals = c.journals.iter().map(|journal| journal.at).max().map(|at| {
        let nodes = if c.journals.len() == 1 { "node" } else { "nodes" };
        let at = zone(&figures.timezone).map_or_else(|_| at.to_string(), |zone| local_text(at, zone));
        check("Call journals", format!("{} {nodes}, last record read {at}", c.journals.len()), true)
    });
    let own = [
        check(
            "Counting intervals (15 minutes) that are over",
            of(c.intervals_over, c.intervals),
            c.intervals_over == c.intervals,
        ),
        check("Of these, intervals with calls", count(c.intervals_with_calls), true),
        check(
            "Answered calls that have a usage record",
            of(c.usage_calls, c.answered_counted),
            c.usage_calls == c.answered_counted,
        ),
        check(
            "Usage records to be charged, and rated records in the money",
            of(c.rated_counted, c.usage_rated),
            c.rated_counted >= c.usage_rated,
        ),
        check("Usage records that nobody is charged for", count(c.usage_uncharged), true),
        check("Usage records of the month in suspense", count(c.usage_suspense), c.usage_suspense == 0),
        check("Open charges in suspense of calls of the month", count(c.suspense_open), c.suspense_open == 0),
        check("Sources of call records that are still to be read", count(c.nodes_unread), c.nodes_unread == 0),
        check("Rated, and not yet in the money", count(c.events_pending), c.events_pending == 0),
    ];
    journals.into_iter().chain(own).collect()
}
