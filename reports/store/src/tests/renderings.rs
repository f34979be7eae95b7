use std::collections::HashMap;

use calamine::{Data, Reader as _};
use model::id::{AccountId, RunId, TrunkId};
use model::money::{Amount, Currency};
use model::time::Timestamp;
use reports::availability::{Availability, NodeOutage, NodeRecord, OutageCause, TrunkRecord, availability};
use reports::figures::{
    AccountFigures, Completeness, FORMAT, Figures, JournalRead, Money, MoneySums, TrunkFigures, days, intervals_over,
};
use reports::period::{Bounds, Month, zone};
use reports::resource::{Counters, INTERVAL_MS, Interval};

use crate::render;

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).unwrap() % below.max(1)
    }
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(n: u128) -> T {
    format!("{:032x}", 0x019a_0000_0000_7000_8000_0000_0000_0000 | n).parse().unwrap()
}

/// A quarter of an hour of an office: weekdays, office hours, a dip at noon.
fn office(start: Timestamp, dice: &mut Dice) -> Counters {
    use chrono::{Datelike as _, Timelike as _};
    let local = start.to_chrono().with_timezone(&zone("Europe/Berlin").unwrap());
    let load = match local.hour() {
        8 | 17 => 40,
        9..=11 | 13..=16 => 90,
        12 => 55,
        18..=21 => 12,
        _ => 2,
    };
    let load = if local.weekday().number_from_monday() > 5 { load / 8 + 1 } else { load };
    let attempts = dice.roll(load) + load / 3;
    let answered = attempts * (80 + dice.roll(12)) / 100;
    let rest = attempts - answered;
    let user_busy = rest / 4;
    let no_answer = rest / 2;
    let address_error = (rest - user_busy - no_answer) / 3;
    let conversation_ms = answered * (100_000 + dice.roll(90_000));
    Counters {
        attempts,
        answered,
        user_busy,
        no_answer,
        terminal_reject: 0,
        address_error,
        network_failure: rest - user_busy - no_answer - address_error,
        pdd_count: answered + no_answer,
        pdd_sum_ms: (answered + no_answer) * (900 + dice.roll(900)),
        ended: answered,
        conversation_ms,
        estimated: 0,
        packets_received: conversation_ms / 20,
        packets_lost: conversation_ms / 20 / 700,
    }
}

fn part(c: &Counters, percent: i64) -> Counters {
    let of = |n: i64| n * percent / 100;
    let (answered, user_busy, no_answer) = (of(c.answered), of(c.user_busy), of(c.no_answer));
    let (address_error, network_failure) = (of(c.address_error), of(c.network_failure));
    Counters {
        attempts: answered + user_busy + no_answer + address_error + network_failure,
        answered,
        user_busy,
        no_answer,
        terminal_reject: 0,
        address_error,
        network_failure,
        pdd_count: of(c.pdd_count),
        pdd_sum_ms: of(c.pdd_sum_ms),
        ended: of(c.ended),
        conversation_ms: of(c.conversation_ms),
        estimated: 0,
        packets_received: of(c.packets_received),
        packets_lost: of(c.packets_lost),
    }
}

fn euros(revenue: i64, cost: i64, rated: i64) -> Vec<Money> {
    let currency: Currency = "EUR".parse().unwrap();
    let mut sums = MoneySums::default();
    sums.add(currency, false, Amount::from_units(revenue), rated);
    sums.add(currency, true, Amount::from_units(cost), rated);
    sums.finish()
}

/// A node that failed once and was stopped once, a trunk that was down and one that is.
fn uptime(bounds: Bounds, taken_at: Timestamp) -> Availability {
    const HOUR_MS: i64 = 3_600_000;
    let at = |hour: i64| bounds.from.plus_ms(hour * HOUR_MS);
    let outage = |begin, end, cause| NodeOutage { begin: at(begin), end: at(end), cause };
    let outages = vec![outage(24, 26, OutageCause::Failed), outage(100, 101, OutageCause::Stopped)];
    let node = NodeRecord { node: "node-1".to_owned(), since: at(-5), last_sign: taken_at, outages };
    let trunk =
        |n, name: &str, alarms| TrunkRecord { trunk: id::<TrunkId>(n), name: name.to_owned(), since: at(0), alarms };
    let west = trunk(7, "Carrier West", vec![(at(30), Some(at(31)), "it does not answer".to_owned())]);
    let east = trunk(8, "-Carrier East", vec![(at(200), None, "=refused with 403".to_owned())]);
    availability(bounds, &[node], vec![west, east], true)
}

/// A month of a reseller as an operations manager may see it.
pub(super) fn sample(taken_at: &str) -> Figures {
    let (month, zone): (Month, _) = ("2026-10".parse().unwrap(), zone("Europe/Berlin").unwrap());
    let (bounds, taken_at): (_, Timestamp) = (month.bounds(zone).unwrap(), taken_at.parse().unwrap());
    let mut dice = Dice(7);
    let mut intervals = Vec::new();
    let mut start = bounds.from;
    while start < bounds.to && start < taken_at {
        intervals.push(Interval { start, counters: office(start, &mut dice) });
        start = start.plus_ms(INTERVAL_MS);
    }
    let mut totals = Counters::default();
    intervals.iter().for_each(|interval| totals.add(&interval.counters));
    totals.estimated = 3;
    let account = |n, name: &str, percent| AccountFigures {
        account: id::<AccountId>(n),
        name: name.to_owned(),
        counters: part(&totals, percent),
        money: euros(83_517_123_450 * percent / 10, 1, 1),
    };
    let provisional = taken_at < bounds.to;
    Figures {
        format: FORMAT,
        run: id::<RunId>(1),
        revision: 0,
        account: id::<AccountId>(2),
        account_name: "Nordwind Telecom".to_owned(),
        period: "2026-10".to_owned(),
        timezone: "Europe/Berlin".to_owned(),
        from: bounds.from,
        to: bounds.to,
        provisional,
        taken_at,
        totals,
        money: euros(8_351_712_345_000, 3_120_004_417_300, totals.answered),
        accounts: vec![
            account(3, "Hafenlogistik Kiel", 48),
            account(4, "Klinik am Wald, Verwaltung und Notaufnahme", 31),
            account(5, "<script>alert(1)</script>", 12),
            account(6, "=HYPERLINK(\"https://example.com\",\"x\")", 5),
        ],
        accounts_left_out: 0,
        trunks: vec![
            TrunkFigures { trunk: id::<TrunkId>(7), name: "Carrier West".to_owned(), counters: part(&totals, 57) },
            TrunkFigures { trunk: id::<TrunkId>(8), name: "-Carrier East".to_owned(), counters: Counters::default() },
        ],
        trunks_left_out: 0,
        days: days(month, zone, bounds, taken_at, &intervals),
        availability: uptime(bounds, taken_at),
        completeness: Completeness {
            intervals: bounds.intervals(),
            intervals_over: intervals_over(bounds, taken_at),
            intervals_with_calls: i64::try_from(intervals.len()).unwrap(),
            answered_counted: totals.answered,
            usage_calls: totals.answered,
            usage_rated: 2 * totals.answered,
            usage_uncharged: 412,
            usage_suspense: 0,
            rated_counted: 2 * totals.answered,
            suspense_open: i64::from(provisional),
            nodes_unread: 0,
            charges_pending: 0,
            events_pending: 0,
            journals: vec![JournalRead { node: "node-1".to_owned(), position: "4:812".to_owned(), at: taken_at }],
        },
    }
}

#[test]
fn two_renderings_are_the_same_octets() {
    let kept = serde_json::to_string(&sample("2026-11-03T06:00:00Z")).unwrap();
    let figures = || serde_json::from_str::<Figures>(&kept).unwrap();
    assert_eq!(render::html(&figures()).unwrap(), render::html(&figures()).unwrap());
    assert_eq!(render::csv(&figures()).unwrap(), render::csv(&figures()).unwrap());
    let workbook = render::xlsx(&figures()).unwrap();
    assert_eq!(workbook, render::xlsx(&figures()).unwrap());
}

#[test]
fn the_page_states_zone_bounds_parts_and_state() {
    let check = |taken_at, shown: &[&str]| {
        let figures = sample(taken_at);
        let page = String::from_utf8(render::html(&figures).unwrap()).unwrap();
        for text in shown {
            assert!(page.contains(text), "{text}");
        }
        let asr = figures.totals.asr();
        let parts = format!("{} of {} answered", render_count(asr.numerator), render_count(asr.denominator));
        assert!(page.contains(&parts), "{parts}");
        assert!(!page.contains("<script") && page.contains("&#60;script&#62;"));
        // Complete in itself: nothing is loaded from elsewhere.
        assert!(!page.contains("src=") && !page.contains("href=") && !page.contains("url("));
    };
    check("2026-11-03T06:00:00Z", &["Final and complete", "2026-10-01 00:00 +02:00 to 2026-11-01 00:00 +01:00"]);
    // 745 hours, two of them failed and one stopped; of the trunk 742 were observed.
    let availability = ["99.597 %", "44,520.0 of 44,700.0", "99.865 %", "44,460.0 of 44,520.0", "goes on"];
    check("2026-11-03T06:00:00Z", &availability);
    check("2026-11-03T06:00:00Z", &["2026-10-02 00:00 +02:00", "2026-10-02 02:00 +02:00", ">failed<", ">stopped<"]);
    check("2026-10-20T06:00:00Z", &["Provisional", "Europe/Berlin", ">open<", "EUR 8,351,712.345"]);
}

fn render_count(n: i64) -> String {
    let digits = n.to_string();
    let (head, tail) = digits.split_at(digits.len() - 3);
    format!("{head},{tail}")
}

#[test]
fn an_empty_month_is_undefined_not_zero() {
    let mut figures = sample("2026-09-30T22:00:00Z");
    figures.accounts.clear();
    figures.money.clear();
    let page = String::from_utf8(render::html(&figures).unwrap()).unwrap();
    assert!(page.contains("–") && !page.contains("NaN") && !page.contains(">0.0 %<"));
}

#[test]
fn cells_cannot_become_formulas_and_each_line_has_every_column() {
    let table = render::csv(&sample("2026-11-03T06:00:00Z")).unwrap();
    let text = String::from_utf8(table.clone()).unwrap();
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    let mut reader = csv::ReaderBuilder::new().has_headers(true).from_reader(&table[..]);
    let columns = reader.headers().unwrap().len();
    let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
    for record in &records {
        assert_eq!(record.len(), columns);
        for cell in record {
            let is_number = cell.parse::<f64>().is_ok();
            assert!(is_number || !cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell}");
        }
    }
    let named = |name: &str| records.iter().filter(|r| &r[2] == name).count();
    assert!(named("'=HYPERLINK(\"https://example.com\",\"x\")") > 0 && named("'-Carrier East") > 0);
    let total = records.iter().find(|r| &r[0] == "total").unwrap();
    let days: i64 = records.iter().filter(|r| &r[0] == "day").map(|r| r[3].parse::<i64>().unwrap()).sum();
    assert_eq!(total[3].parse::<i64>().unwrap(), days);
}

/// The rows of a sheet, each by the name of its columns.
fn sheet(book: &mut calamine::Xlsx<std::io::Cursor<Vec<u8>>>, name: &str) -> Vec<HashMap<String, Data>> {
    let range = book.worksheet_range(name).unwrap();
    let mut rows = range.rows();
    let columns: Vec<String> = rows.next().unwrap().iter().map(ToString::to_string).collect();
    rows.map(|row| columns.iter().cloned().zip(row.iter().cloned()).collect()).collect()
}

/// Workbook and table say the same of availability and outages.
fn availability_agrees(book: &mut calamine::Xlsx<std::io::Cursor<Vec<u8>>>, lines: &[HashMap<String, String>]) {
    let sections =
        [("Availability", &["node_availability", "trunk_availability"][..], 3), ("Outages", &["outage"][..], 4)];
    for (name, sections, expected) in sections {
        let lines: Vec<_> = lines.iter().filter(|line| sections.contains(&line["section"].as_str())).collect();
        let rows = sheet(book, name);
        assert_eq!((rows.len(), lines.len()), (expected, expected), "{name}");
        for (row, line) in rows.iter().zip(lines) {
            assert_eq!(row["id"], Data::String(line["key"].clone()));
            for (column, cell) in row.iter().filter(|(column, _)| !["id", "name", "cause"].contains(&column.as_str())) {
                match cell {
                    Data::Float(n) => {
                        assert_eq!(n.to_bits(), line[column].parse::<f64>().unwrap().to_bits(), "{column}")
                    }
                    Data::Empty => assert_eq!(line[column], "", "{column}"),
                    text => assert_eq!(text.to_string(), line[column], "{column}"),
                }
            }
        }
    }
}

#[test]
fn the_workbook_holds_the_figures_of_the_table_as_numbers() {
    let figures = sample("2026-11-03T06:00:00Z");
    let bytes = render::xlsx(&figures).unwrap();
    let mut book: calamine::Xlsx<_> = calamine::open_workbook_from_rs(std::io::Cursor::new(bytes)).unwrap();
    let table = render::csv(&figures).unwrap();
    let mut reader = csv::Reader::from_reader(&table[..]);
    let lines: Vec<HashMap<String, String>> = reader.deserialize().collect::<Result<_, _>>().unwrap();
    let sections = [
        ("Total", "total"),
        ("Money", "money"),
        ("Accounts", "account"),
        ("Money by account", "account_money"),
        ("Trunks", "trunk"),
        ("Days", "day"),
    ];
    let names: Vec<&str> = sections.iter().map(|(name, _)| *name).collect();
    assert_eq!(book.sheet_names(), [&["Report"], &names[..], &["Hours", "Availability", "Outages"]].concat());
    availability_agrees(&mut book, &lines);
    let mut compared = 0;
    for (name, section) in sections {
        let lines: Vec<_> = lines.iter().filter(|line| line["section"] == section).collect();
        let rows = sheet(&mut book, name);
        assert!(!lines.is_empty() && rows.len() == lines.len(), "{name}");
        for (row, line) in rows.iter().zip(lines) {
            for (column, cell) in row {
                // The exact text of an amount, and its number.
                let (key, exact) = column.strip_suffix("_exact").map_or((column.as_str(), false), |key| (key, true));
                let Some(expected) = line.get(key) else { continue };
                match cell {
                    Data::Float(number) => {
                        // The same decimal, read twice: the same bits.
                        let expected: f64 = expected.parse().unwrap();
                        assert_eq!(number.to_bits(), expected.to_bits(), "{name}: {column}");
                    }
                    Data::String(text) => assert!(*text == *expected && (exact || key == "currency"), "{column}"),
                    Data::Empty => assert_eq!(expected, "", "{name}: {column}"),
                    other => panic!("{name}: {column} is {other:?}"),
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 31 * 18, "{compared}");
    let hours = sheet(&mut book, "Hours");
    let attempts = |line: &HashMap<String, String>| line["value"].parse::<f64>().unwrap();
    let expected: f64 = lines.iter().filter(|line| line["section"] == "hour").map(attempts).sum();
    let cells = hours.iter().flat_map(|row| row.values());
    let found: f64 = cells.filter_map(|cell| if let Data::Float(n) = cell { Some(*n) } else { None }).sum();
    assert_eq!((found, hours.len()), (expected, 31));
    // A name is a name, whatever it begins with.
    let names: Vec<String> = sheet(&mut book, "Accounts").iter().map(|row| row["account"].to_string()).collect();
    assert!(names.contains(&"=HYPERLINK(\"https://example.com\",\"x\")".to_owned()), "{names:?}");
    assert!(book.worksheet_formula("Accounts").unwrap().is_empty());
}

#[test]
fn the_first_sheet_states_zone_bounds_and_completeness() {
    for (taken_at, state, open) in
        [("2026-11-03T06:00:00Z", "final and complete", 0.0), ("2026-10-20T06:00:00Z", "provisional", 1.0)]
    {
        let bytes = render::xlsx(&sample(taken_at)).unwrap();
        let mut book: calamine::Xlsx<_> = calamine::open_workbook_from_rs(std::io::Cursor::new(bytes)).unwrap();
        let range = book.worksheet_range("Report").unwrap();
        let stated: HashMap<String, Data> = range.rows().map(|row| (row[0].to_string(), row[1].clone())).collect();
        assert_eq!(stated["timezone"], Data::String("Europe/Berlin".to_owned()));
        assert_eq!(stated["from"], Data::String("2026-10-01 00:00 +02:00".to_owned()));
        assert_eq!(stated["to"], Data::String("2026-11-01 00:00 +01:00".to_owned()));
        assert!(stated["state"].to_string().starts_with(state), "{}", stated["state"]);
        assert_eq!(stated["suspense_open"], Data::Float(open));
    }
}
