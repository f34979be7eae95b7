//! The workbook (ECMA-376): what the report is about and how complete on the first sheet, then one sheet per table.
//!
//! Numbers are numbers, texts are never formulas. A spreadsheet counts in binary floating point, so amounts of money
//! stand beside their exact decimal text. The document's date is that of the figures: the same octets each time.

use reports::availability::Availability;
use reports::figures::{Figures, Money};
use reports::period::{local_text, zone};
use reports::resource::Counters;
use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, FormatAlign, Workbook, Worksheet, XlsxError};

use super::RenderError;
use super::availability::{OUTAGE_COLUMNS, UP_COLUMNS, outage_cells, up_cells};
use super::csv::{COLUMNS, COUNTERS_AT, MONEY_AT, completeness, counts, indicators};
use super::text::subject;

/// Largest whole number that a cell holds exactly: 2^53.
const EXACT_MAX: u64 = 1 << 53;
/// Width of a column of numbers, in characters.
const NUMBER_WIDTH: f64 = 16.0;
/// Width of a column of names.
const NAME_WIDTH: f64 = 40.0;
/// Columns of a table of money.
const MONEY_COLUMNS: [&str; 8] =
    ["currency", "revenue", "cost", "margin", "rated_count", "revenue_exact", "cost_exact", "margin_exact"];

/// Renders the workbook.
pub(crate) fn xlsx(figures: &Figures) -> Result<Vec<u8>, RenderError> {
    let mut book = Book::new();
    let created = ExcelDateTime::from_timestamp(figures.taken_at.0.div_euclid(1_000))?;
    let properties = DocProperties::new().set_title(subject(figures)?).set_creation_datetime(&created);
    book.workbook.set_properties(&properties);
    book.statement(figures)?;
    let total = [(String::new(), figures.account_name.clone(), &figures.totals)];
    book.counters("Total", ["id", "account"], &total)?;
    let own = [(figures.account.to_string(), figures.account_name.clone(), figures.money.as_slice())];
    book.money("Money", &own)?;
    let accounts = figures.accounts.iter();
    let lines: Vec<_> = accounts.map(|a| (a.account.to_string(), a.name.clone(), &a.counters)).collect();
    book.counters("Accounts", ["id", "account"], &lines)?;
    let accounts = figures.accounts.iter();
    let lines: Vec<_> = accounts.map(|a| (a.account.to_string(), a.name.clone(), a.money.as_slice())).collect();
    book.money("Money by account", &lines)?;
    let trunks = figures.trunks.iter();
    let lines: Vec<_> = trunks.map(|t| (t.trunk.to_string(), t.name.clone(), &t.counters)).collect();
    book.counters("Trunks", ["id", "trunk"], &lines)?;
    let days: Vec<_> = figures.days.iter().map(|day| (day.date.clone(), String::new(), &day.counters)).collect();
    book.counters("Days", ["date", ""], &days)?;
    book.hours(figures)?;
    book.availability(&figures.availability)?;
    Ok(book.workbook.save_to_buffer()?)
}

/// A workbook and the formats of its cells.
struct Book {
    workbook: Workbook,
    title: Format,
    header: Format,
    whole: Format,
    tenths: Format,
    amount: Format,
}

impl Book {
    fn new() -> Self {
        Self {
            workbook: Workbook::new(),
            title: Format::new().set_bold().set_font_size(14),
            header: Format::new().set_bold().set_align(FormatAlign::Center).set_text_wrap(),
            whole: Format::new().set_num_format("#,##0"),
            tenths: Format::new().set_num_format("0.0"),
            amount: Format::new().set_num_format("#,##0.00####"),
        }
    }

    /// The first sheet: whose figures these are, of when, in which zone, and how complete.
    fn statement(&mut self, figures: &Figures) -> Result<(), RenderError> {
        let zone = zone(&figures.timezone)?;
        let state = match (figures.provisional, figures.completeness.is_complete()) {
            (true, _) => "provisional: the month was not over, or not settled, when these figures were taken",
            (false, true) => "final and complete: calls, usage records and money agree",
            (false, false) => "final, with open points: see the counts below",
        };
        let stated = [
            ("account", figures.account_name.clone()),
            ("account_id", figures.account.to_string()),
            ("period", figures.period.clone()),
            ("timezone", figures.timezone.clone()),
            ("from", local_text(figures.from, zone)),
            ("to", local_text(figures.to, zone)),
            ("state", state.to_owned()),
            ("taken_at", local_text(figures.taken_at, zone)),
            ("revision", figures.revision.to_string()),
            ("run_id", figures.run.to_string()),
        ];
        let sheet = self.workbook.add_worksheet();
        sheet.set_name("Report")?;
        sheet.set_column_width(0, 22.0)?;
        sheet.set_column_width(1, NAME_WIDTH)?;
        sheet.write_string_with_format(0, 0, subject(figures)?, &self.title)?;
        sheet.set_freeze_panes(1, 0)?;
        let mut row = 2;
        for (key, value) in stated {
            sheet.write_string(row, 0, key)?;
            sheet.write_string(row, 1, value)?;
            row += 1;
        }
        row += 1;
        sheet.write_string_with_format(row, 0, "completeness", &self.header)?;
        for (key, value) in completeness(figures) {
            row += 1;
            sheet.write_string(row, 0, key)?;
            write_whole(sheet, (row, 1), value, &self.whole)?;
        }
        Ok(())
    }

    /// A sheet whose first row names its columns and stays when the others move.
    fn sheet(&mut self, name: &str, columns: &[&str]) -> Result<&mut Worksheet, XlsxError> {
        let sheet = self.workbook.add_worksheet();
        sheet.set_name(name)?;
        sheet.set_freeze_panes(1, 0)?;
        for (index, column) in (0_u16..).zip(columns) {
            sheet.set_column_width(index, if index < 2 { NAME_WIDTH } else { NUMBER_WIDTH })?;
            sheet.write_string_with_format(0, index, *column, &self.header)?;
        }
        Ok(sheet)
    }

    fn counters(
        &mut self,
        name: &str,
        keys: [&str; 2],
        lines: &[(String, String, &Counters)],
    ) -> Result<(), RenderError> {
        let (whole, tenths) = (self.whole.clone(), self.tenths.clone());
        let columns: Vec<&str> = keys.iter().chain(&COLUMNS[COUNTERS_AT..MONEY_AT]).copied().collect();
        let sheet = self.sheet(name, &columns)?;
        for (row, (key, name, c)) in (1_u32..).zip(lines) {
            sheet.write_string(row, 0, key)?;
            sheet.write_string(row, 1, name)?;
            let counts = counts(c);
            let shares = u16::try_from(counts.len()).unwrap_or(u16::MAX).saturating_add(2);
            for (column, count) in (2_u16..).zip(counts) {
                write_whole(sheet, (row, column), count, &whole)?;
            }
            // An indicator that is not defined is an empty cell.
            for (column, share) in (shares..).zip(indicators(c)) {
                if let Some(share) = share {
                    write_decimal(sheet, (row, column), &share, &tenths)?;
                }
            }
        }
        Ok(())
    }

    fn money(&mut self, name: &str, lines: &[(String, String, &[Money])]) -> Result<(), RenderError> {
        let (whole, amount) = (self.whole.clone(), self.amount.clone());
        let columns: Vec<&str> = ["id", "account"].iter().chain(&MONEY_COLUMNS).copied().collect();
        let sheet = self.sheet(name, &columns)?;
        let sums = lines.iter().flat_map(|(key, name, money)| money.iter().map(move |money| (key, name, money)));
        for (row, (key, name, money)) in (1_u32..).zip(sums) {
            sheet.write_string(row, 0, key)?;
            sheet.write_string(row, 1, name)?;
            sheet.write_string(row, 2, money.currency.to_string())?;
            for (column, exact) in (3_u16..).zip([&money.revenue, &money.cost, &money.margin]) {
                write_decimal(sheet, (row, column), exact, &amount)?;
                sheet.write_string(row, column + 4, exact)?;
            }
            write_whole(sheet, (row, 6), money.rated_count, &whole)?;
        }
        Ok(())
    }

    /// How long nodes and trunks were up, and when they were not. Times are UTC, as in the table.
    fn availability(&mut self, availability: &Availability) -> Result<(), RenderError> {
        let (whole, percent) = (self.whole.clone(), Format::new().set_num_format("0.000"));
        let columns: Vec<&str> = ["id", "name"].iter().chain(&UP_COLUMNS).copied().collect();
        let sheet = self.sheet("Availability", &columns)?;
        for (row, (_, key, name, cells)) in (1_u32..).zip(up_cells(availability)) {
            sheet.write_string(row, 0, key)?;
            sheet.write_string(row, 1, name)?;
            for ((column, cell), heading) in (2_u16..).zip(cells).zip(UP_COLUMNS) {
                let format = if heading.ends_with("_percent") { &percent } else { &whole };
                if let Some(cell) = cell {
                    write_decimal(sheet, (row, column), &cell, format)?;
                }
            }
        }
        let columns: Vec<&str> = ["id", "name"].iter().chain(&OUTAGE_COLUMNS).copied().collect();
        let sheet = self.sheet("Outages", &columns)?;
        for (row, outage) in (1_u32..).zip(&availability.outages) {
            let (key, [begin, end, _, cause]) = outage_cells(outage);
            sheet.write_string(row, 0, key)?;
            sheet.write_string(row, 1, &outage.name)?;
            sheet.write_string(row, 2, begin)?;
            sheet.write_string(row, 3, end)?;
            write_whole(sheet, (row, 4), outage.counted_ms, &whole)?;
            sheet.write_string(row, 5, cause)?;
        }
        for column in 2..4 {
            sheet.set_column_width(column, 24.0)?;
        }
        sheet.set_column_width(5, NAME_WIDTH)?;
        Ok(())
    }

    /// Attempts by local hour; an hour that the day does not have, or that had not begun, is an empty cell.
    fn hours(&mut self, figures: &Figures) -> Result<(), RenderError> {
        let whole = self.whole.clone();
        let hours: Vec<String> = (0..reports::figures::HOURS).map(|hour| format!("{hour:02}:00")).collect();
        let columns: Vec<&str> = std::iter::once("date").chain(hours.iter().map(String::as_str)).collect();
        let sheet = self.sheet("Hours", &columns)?;
        for column in 1..u16::try_from(columns.len()).unwrap_or(u16::MAX) {
            sheet.set_column_width(column, 8)?;
        }
        for (row, day) in (1_u32..).zip(&figures.days) {
            sheet.write_string(row, 0, &day.date)?;
            for (column, attempts) in (1_u16..).zip(day.attempts_by_hour) {
                if let Some(attempts) = attempts {
                    write_whole(sheet, (row, column), attempts, &whole)?;
                }
            }
        }
        Ok(())
    }
}

/// A whole number, as text where a cell would round it.
fn write_whole(sheet: &mut Worksheet, (row, column): (u32, u16), n: i64, format: &Format) -> Result<(), XlsxError> {
    if n.unsigned_abs() > EXACT_MAX {
        sheet.write_string(row, column, n.to_string())?;
        return Ok(());
    }
    write_decimal(sheet, (row, column), &n.to_string(), format)
}

/// A decimal text as the nearest number of a cell.
fn write_decimal(
    sheet: &mut Worksheet,
    (row, column): (u32, u16),
    text: &str,
    format: &Format,
) -> Result<(), XlsxError> {
    match text.parse::<f64>() {
        Ok(number) => sheet.write_number_with_format(row, column, number, format)?,
        Err(_) => sheet.write_string(row, column, text)?,
    };
    Ok(())
}
