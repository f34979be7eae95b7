//! The figures of one run, taken once and kept: HTML, CSV and mail are made from them and from nothing else, so that a
//! rendering can be repeated to the octet.

use std::collections::BTreeMap;

use chrono::Timelike as _;
use chrono_tz::Tz;
use model::id::{AccountId, RunId, TrunkId};
use model::money::{Currency, Total};
use model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::availability::Availability;
use crate::period::{Bounds, Month};
use crate::resource::{Counters, INTERVAL_MS, Interval};

/// The layout of [`Figures`]; fields are added, never changed in meaning.
pub const FORMAT: u32 = 1;
/// Hours of a day.
pub const HOURS: usize = 24;

/// What a report shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// [`FORMAT`].
    pub format: u32,
    /// The run.
    pub run: RunId,
    /// Its revision.
    pub revision: i32,
    /// The account.
    pub account: AccountId,
    /// Its name.
    pub account_name: String,
    /// The month, `YYYY-MM`.
    pub period: String,
    /// The zone of its bounds, days and hours.
    pub timezone: String,
    /// Begin, inclusive.
    pub from: Timestamp,
    /// End, exclusive.
    pub to: Timestamp,
    /// The month was not over, or not settled, when the figures were taken.
    pub provisional: bool,
    /// When they were taken.
    pub taken_at: Timestamp,
    /// The account and all below it.
    pub totals: Counters,
    /// Money of the account and all below it, by currency.
    pub money: Vec<Money>,
    /// The accounts directly below, each with all below it, most attempts first.
    pub accounts: Vec<AccountFigures>,
    /// Accounts directly below that are not in the list because it is full.
    pub accounts_left_out: i64,
    /// The trunks that are owned at or below the account, most attempts first.
    pub trunks: Vec<TrunkFigures>,
    /// Trunks that are not in the list because it is full.
    pub trunks_left_out: i64,
    /// Every local day of the month.
    pub days: Vec<Day>,
    /// How long nodes and trunks were up; empty in figures from before it was kept.
    #[serde(default)]
    pub availability: Availability,
    /// How complete all this is.
    pub completeness: Completeness,
}

/// Sums of one currency, as exact decimal text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// The currency.
    pub currency: Currency,
    /// What was sold.
    pub revenue: String,
    /// What was bought.
    pub cost: String,
    /// Revenue less cost.
    pub margin: String,
    /// Rated records of both sides.
    pub rated_count: i64,
}

/// An account below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountFigures {
    /// Which.
    pub account: AccountId,
    /// Its name.
    pub name: String,
    /// It and all below it.
    pub counters: Counters,
    /// It and all below it.
    pub money: Vec<Money>,
}

/// A trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkFigures {
    /// Which.
    pub trunk: TrunkId,
    /// Its name; its identifier when it is gone.
    pub name: String,
    /// Attempts over it, both directions.
    pub counters: Counters,
}

/// A local day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// `YYYY-MM-DD`.
    pub date: String,
    /// The counts.
    pub counters: Counters,
    /// Attempts by local hour; absent for hours that this day does not have or that had not begun.
    pub attempts_by_hour: [Option<i64>; HOURS],
}

/// What the figures can be held against.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Completeness {
    /// Counting intervals of the period.
    pub intervals: i64,
    /// Of these, how many were over when the figures were taken.
    pub intervals_over: i64,
    /// Of these, how many had calls.
    pub intervals_with_calls: i64,
    /// Answered calls by the counters.
    pub answered_counted: i64,
    /// Calls in the usage records of billing, of the same INVITEs.
    pub usage_calls: i64,
    /// Legs answered in the period that are rated.
    pub usage_rated: i64,
    /// Legs answered in the period that nobody is charged for.
    pub usage_uncharged: i64,
    /// Legs answered in the period that wait in suspense.
    pub usage_suspense: i64,
    /// Rated records in the money of this report.
    pub rated_counted: i64,
    /// Open charges in suspense, of calls answered in the period.
    pub suspense_open: i64,
    /// What the money does not know yet: for the provider the rated batches that wait, for others their own charges of
    /// the period.
    pub events_pending: i64,
    /// Nodes whose journals were not read up to the end of the period, as far as it is known that there is more to read.
    /// Others than the provider learn only whether there are any: 0 or 1.
    #[serde(default)]
    pub nodes_unread: i64,
    /// Charges of the period that the money does not know yet.
    #[serde(default)]
    pub charges_pending: i64,
    /// How far the journals were read. The provider's alone: others learn nothing of the installation.
    pub journals: Vec<JournalRead>,
}

/// How far the journal of a node was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRead {
    /// The node.
    pub node: String,
    /// Epoch and sequence of the last record.
    pub position: String,
    /// When it was read.
    pub at: Timestamp,
}

impl Completeness {
    /// Whether all that was recorded has come in: what is counted grows no more. What waits in suspense is another
    /// matter: that ends when somebody sees to it.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.nodes_unread == 0 && self.usage_calls >= self.answered_counted && self.charges_pending == 0
    }

    /// Whether the period is over and nothing is missing between calls, usage and money.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.intervals_over == self.intervals
            && self.usage_calls == self.answered_counted
            && self.usage_suspense == 0
            && self.suspense_open == 0
            && self.rated_counted >= self.usage_rated
            && self.events_pending == 0
            && self.nodes_unread == 0
    }
}

impl Figures {
    /// What the account itself originated: all less what the accounts below did. None when some are left out of the
    /// list, or when there are none below.
    #[must_use]
    pub fn own(&self) -> Option<Counters> {
        if self.accounts.is_empty() || self.accounts_left_out > 0 {
            return None;
        }
        let own = self.accounts.iter().fold(self.totals, |rest, account| rest.without(&account.counters));
        (!own.is_empty()).then_some(own)
    }

    /// The local hour with the most attempts: date, hour, attempts. The first of equals.
    #[must_use]
    pub fn busiest_hour(&self) -> Option<(&str, usize, i64)> {
        let hours = self.days.iter().flat_map(|day| {
            day.attempts_by_hour.iter().enumerate().filter_map(|(hour, n)| Some((day.date.as_str(), hour, (*n)?)))
        });
        hours.filter(|(_, _, n)| *n > 0).fold(None, |best: Option<(&str, usize, i64)>, next| match best {
            Some(best) if best.2 >= next.2 => Some(best),
            _ => Some(next),
        })
    }
}

/// Sums of money on their way into [`Money`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MoneySums(BTreeMap<Currency, Sums>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sums {
    revenue: Total,
    cost: Total,
    rated_count: i64,
}

impl MoneySums {
    /// Adds a sum of one currency; `is_cost` for what was bought.
    pub fn add(&mut self, currency: Currency, is_cost: bool, amount: impl Into<Total>, rated_count: i64) {
        let sums = self.0.entry(currency).or_default();
        let sum = if is_cost { &mut sums.cost } else { &mut sums.revenue };
        sum.0 = sum.0.saturating_add(amount.into().0);
        sums.rated_count = sums.rated_count.saturating_add(rated_count);
    }

    /// The sums, in the order of the currencies.
    #[must_use]
    pub fn finish(&self) -> Vec<Money> {
        let money = |(currency, sums): (&Currency, &Sums)| Money {
            currency: *currency,
            revenue: sums.revenue.to_string(),
            cost: sums.cost.to_string(),
            margin: Total(sums.revenue.0.saturating_sub(sums.cost.0)).to_string(),
            rated_count: sums.rated_count,
        };
        self.0.iter().map(money).collect()
    }
}

/// Spreads intervals over the local days and hours of a month. Hours that had not begun at `taken_at` stay absent,
/// and so does the hour that a change of the clock skips; an hour that comes twice holds both.
#[must_use]
pub fn days(month: Month, zone: Tz, bounds: Bounds, taken_at: Timestamp, intervals: &[Interval]) -> Vec<Day> {
    let mut days: Vec<Day> = month
        .days()
        .iter()
        .map(|date| Day { date: date.to_string(), counters: Counters::default(), attempts_by_hour: [None; HOURS] })
        .collect();
    let mut place = |at: Timestamp, counters: &Counters| {
        let local = at.to_chrono().with_timezone(&zone);
        let date = local.date_naive().to_string();
        let Some(day) = days.iter_mut().find(|day| day.date == date) else { return };
        day.counters.add(counters);
        let hour = usize::try_from(local.hour()).ok().and_then(|hour| day.attempts_by_hour.get_mut(hour));
        if let Some(hour) = hour {
            *hour = Some(hour.unwrap_or(0).saturating_add(counters.attempts));
        }
    };
    let mut at = bounds.from;
    while at < bounds.to && at <= taken_at {
        place(at, &Counters::default());
        at = at.plus_ms(INTERVAL_MS);
    }
    for interval in intervals.iter().filter(|i| (bounds.from..bounds.to).contains(&i.start)) {
        place(interval.start, &interval.counters);
    }
    days
}

/// Intervals of the period that were over at `taken_at`.
#[must_use]
pub fn intervals_over(bounds: Bounds, taken_at: Timestamp) -> i64 {
    (taken_at.ms_since(bounds.from) / INTERVAL_MS).clamp(0, bounds.intervals())
}

#[cfg(test)]
mod tests {
    use model::money::Amount;

    use super::*;
    use crate::period::zone;

    fn spread(month: &str, taken_at: &str, starts: &[(&str, i64)]) -> Vec<Day> {
        let (month, zone): (Month, Tz) = (month.parse().unwrap(), zone("Europe/Berlin").unwrap());
        let interval = |(start, attempts): &(&str, i64)| Interval {
            start: start.parse().unwrap(),
            counters: Counters { attempts: *attempts, ..Counters::default() },
        };
        let intervals: Vec<Interval> = starts.iter().map(interval).collect();
        days(month, zone, month.bounds(zone).unwrap(), taken_at.parse().unwrap(), &intervals)
    }

    #[test]
    fn days_and_hours_are_local() {
        let after = "2028-01-01T00:00:00Z";
        let march = spread("2027-03", after, &[("2027-02-28T23:00:00Z", 1), ("2027-03-31T21:45:00Z", 2)]);
        assert_eq!((march.len(), march[0].attempts_by_hour[0], march[30].attempts_by_hour[23]), (31, Some(1), Some(2)));
        // 28 March: from 02:00 straight to 03:00; 31 October: 02:00 to 03:00 twice.
        assert_eq!((march[27].attempts_by_hour[2], march[27].attempts_by_hour[3]), (None, Some(0)));
        let october = spread("2027-10", after, &[("2027-10-31T00:30:00Z", 3), ("2027-10-31T01:30:00Z", 4)]);
        assert_eq!(october[30].attempts_by_hour[2], Some(7));
        assert_eq!(october[30].counters.attempts, 7);
    }

    #[test]
    fn hours_that_had_not_begun_are_absent() {
        let march = spread("2027-03", "2027-03-02T10:59:00Z", &[]);
        assert_eq!((march[1].attempts_by_hour[11], march[1].attempts_by_hour[12]), (Some(0), None));
        assert_eq!(march[2].attempts_by_hour, [None; HOURS]);
    }

    #[test]
    fn money_is_exact_and_does_not_overflow() {
        let mut sums = MoneySums::default();
        let currency: Currency = "EUR".parse().unwrap();
        sums.add(currency, false, Amount::from_units(i64::MAX), 1);
        sums.add(currency, false, Amount::from_units(i64::MAX), 1);
        sums.add(currency, true, Amount::from_units(1), 1);
        let money = sums.finish();
        assert_eq!((money[0].revenue.as_str(), money[0].rated_count), ("18446744073709.551614", 3));
        assert_eq!((money[0].cost.as_str(), money[0].margin.as_str()), ("0.000001", "18446744073709.551613"));
    }
}
