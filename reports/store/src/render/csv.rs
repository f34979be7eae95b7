//! The table (RFC 4180, UTF-8, CRLF): one line per total, account, trunk and day, with the raw counts beside the
//! indicators; money, availability, outages and completeness in lines of their own.

use reports::figures::{Figures, Money};
use reports::resource::Counters;

use super::RenderError;
use super::availability::{outage_cells, up_cells};

/// The columns. New ones are added at the end.
pub(super) const COLUMNS: [&str; 36] = [
    "section",
    "key",
    "name",
    "attempts",
    "answered",
    "user_busy",
    "no_answer",
    "terminal_reject",
    "address_error",
    "network_failure",
    "pdd_count",
    "pdd_sum_ms",
    "ended",
    "conversation_ms",
    "estimated",
    "packets_received",
    "packets_lost",
    "asr_percent",
    "ner_percent",
    "acd_ms",
    "pdd_mean_ms",
    "currency",
    "revenue",
    "cost",
    "margin",
    "rated_count",
    "value",
    "up_ms",
    "observed_ms",
    "availability_percent",
    "stopped_ms",
    "failed_ms",
    "begin",
    "end",
    "counted_ms",
    "cause",
];
pub(super) const COUNTERS_AT: usize = 3;
pub(super) const MONEY_AT: usize = 21;
const VALUE_AT: usize = 26;
const UP_AT: usize = 27;
const OUTAGE_AT: usize = 32;

/// Makes a text harmless for spreadsheets, which take a cell that begins so for a formula.
fn neutral(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { format!("'{text}") } else { text.to_owned() }
}

/// Renders the table.
pub(crate) fn csv(figures: &Figures) -> Result<Vec<u8>, RenderError> {
    let mut table = Table(csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new()));
    table.0.write_record(COLUMNS)?;
    let stated = [
        ("account_id", figures.account.to_string()),
        ("account", neutral(&figures.account_name)),
        ("period", figures.period.clone()),
        ("revision", figures.revision.to_string()),
        ("timezone", figures.timezone.clone()),
        ("from", figures.from.to_string()),
        ("to", figures.to.to_string()),
        ("provisional", figures.provisional.to_string()),
        ("complete", figures.completeness.is_complete().to_string()),
        ("taken_at", figures.taken_at.to_string()),
        ("run_id", figures.run.to_string()),
    ];
    for (key, value) in stated {
        table.value("report", key, value)?;
    }
    table.counters("total", "", &figures.account_name, &figures.totals)?;
    table.money("money", "", &figures.account_name, &figures.money)?;
    for account in &figures.accounts {
        let id = account.account.to_string();
        table.counters("account", &id, &account.name, &account.counters)?;
        table.money("account_money", &id, &account.name, &account.money)?;
    }
    for trunk in &figures.trunks {
        table.counters("trunk", &trunk.trunk.to_string(), &trunk.name, &trunk.counters)?;
    }
    for day in &figures.days {
        table.counters("day", &day.date, "", &day.counters)?;
    }
    for day in &figures.days {
        for (hour, attempts) in day.attempts_by_hour.iter().enumerate() {
            if let Some(attempts) = attempts {
                table.value("hour", &format!("{}T{hour:02}", day.date), attempts.to_string())?;
            }
        }
    }
    for (section, key, name, cells) in up_cells(&figures.availability) {
        let cells: Vec<_> = (UP_AT..).zip(cells.map(Option::unwrap_or_default)).collect();
        table.line(section, &key, name, &cells)?;
    }
    for outage in &figures.availability.outages {
        let (key, cells) = outage_cells(outage);
        let cells: Vec<_> = (OUTAGE_AT..).zip(cells.map(|cell| neutral(&cell))).collect();
        table.line("outage", &key, &outage.name, &cells)?;
    }
    for (key, value) in completeness(figures) {
        table.value("completeness", key, value.to_string())?;
    }
    table.0.into_inner().map_err(|e| RenderError::Csv(e.into_error().into()))
}

/// The counts by which a reader sees whether something is missing.
pub(super) fn completeness(figures: &Figures) -> [(&'static str, i64); 16] {
    let c = &figures.completeness;
    [
        ("intervals", c.intervals),
        ("intervals_over", c.intervals_over),
        ("intervals_with_calls", c.intervals_with_calls),
        ("answered_counted", c.answered_counted),
        ("usage_calls", c.usage_calls),
        ("usage_rated", c.usage_rated),
        ("usage_uncharged", c.usage_uncharged),
        ("usage_suspense", c.usage_suspense),
        ("rated_counted", c.rated_counted),
        ("suspense_open", c.suspense_open),
        ("events_pending", c.events_pending),
        ("nodes_unread", c.nodes_unread),
        ("accounts_left_out", figures.accounts_left_out),
        ("trunks_left_out", figures.trunks_left_out),
        ("watched_trunks_left_out", figures.availability.trunks_left_out),
        ("outages_left_out", figures.availability.outages_left_out),
    ]
}

/// The raw counts, in the order of [`COLUMNS`].
pub(super) const fn counts(c: &Counters) -> [i64; 14] {
    [
        c.attempts,
        c.answered,
        c.user_busy,
        c.no_answer,
        c.terminal_reject,
        c.address_error,
        c.network_failure,
        c.pdd_count,
        c.pdd_sum_ms,
        c.ended,
        c.conversation_ms,
        c.estimated,
        c.packets_received,
        c.packets_lost,
    ]
}

/// The indicators that follow them; none where the denominator is zero.
pub(super) fn indicators(c: &Counters) -> [Option<String>; 4] {
    [c.asr().percent(), c.ner().percent(), c.acd_ms().decimal(0), c.pdd_ms().decimal(0)]
}

struct Table(csv::Writer<Vec<u8>>);

impl Table {
    fn line(&mut self, section: &str, key: &str, name: &str, cells: &[(usize, String)]) -> Result<(), RenderError> {
        let mut line: [String; COLUMNS.len()] = std::array::from_fn(|_| String::new());
        line[..COUNTERS_AT].clone_from_slice(&[section.to_owned(), key.to_owned(), neutral(name)]);
        for (index, cell) in cells {
            if let Some(place) = line.get_mut(*index) {
                place.clone_from(cell);
            }
        }
        Ok(self.0.write_record(&line)?)
    }

    fn value(&mut self, section: &str, key: &str, value: String) -> Result<(), RenderError> {
        self.line(section, key, "", &[(VALUE_AT, value)])
    }

    fn counters(&mut self, section: &str, key: &str, name: &str, c: &Counters) -> Result<(), RenderError> {
        let indicators = indicators(c).map(Option::unwrap_or_default);
        let cells = counts(c).map(|n| n.to_string()).into_iter().chain(indicators);
        let cells: Vec<(usize, String)> = (COUNTERS_AT..).zip(cells).collect();
        self.line(section, key, name, &cells)
    }

    fn money(&mut self, section: &str, key: &str, name: &str, money: &[Money]) -> Result<(), RenderError> {
        for m in money {
            let cells = [
                m.currency.to_string(),
                m.revenue.clone(),
                m.cost.clone(),
                m.margin.clone(),
                m.rated_count.to_string(),
            ];
            let cells: Vec<(usize, String)> = (MONEY_AT..).zip(cells).collect();
            self.line(section, key, name, &cells)?;
        }
        Ok(())
    }
}
