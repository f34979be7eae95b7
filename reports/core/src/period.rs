//! The periods of reports: calendar months in an IANA zone, as UTC instants from local midnight to local midnight.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike as _, Days, LocalResult, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use model::time::Timestamp;

use crate::resource::INTERVAL_MS;

/// The first year that a report may be about. Since then every zone is a whole number of quarters of an hour from UTC.
pub const YEAR_MIN: i32 = 2000;
/// The last one: four digits.
pub const YEAR_MAX: i32 = 9998;
/// Quarters of an hour that a gap of the clock at a midnight may last: a whole day was the longest.
const GAP_STEPS_MAX: i32 = 96;

/// A calendar month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i32,
    month: u32,
}

/// The text is no month, or the zone is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPeriod {
    /// Not `YYYY-MM`.
    #[error("a period is a month such as 2026-11")]
    Malformed,
    /// Outside the years that are kept.
    #[error("a period lies in the years {YEAR_MIN} to {YEAR_MAX}")]
    OutOfRange,
    /// Not in the database of zones.
    #[error("{0} is no time zone of the IANA database")]
    Zone(String),
}

/// The begin and the end of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Inclusive.
    pub from: Timestamp,
    /// Exclusive.
    pub to: Timestamp,
}

impl Bounds {
    /// How many counting intervals it has.
    #[must_use]
    pub const fn intervals(&self) -> i64 {
        self.to.ms_since(self.from) / INTERVAL_MS
    }
}

/// The zone of a name such as `Europe/Berlin`.
///
/// # Errors
/// When there is no such zone.
pub fn zone(name: &str) -> Result<Tz, InvalidPeriod> {
    name.parse().map_err(|_| InvalidPeriod::Zone(name.to_owned()))
}

impl Month {
    /// A month; `month` counts from 1.
    ///
    /// # Errors
    /// When it is none, or outside [`YEAR_MIN`] to [`YEAR_MAX`].
    pub fn new(year: i32, month: u32) -> Result<Self, InvalidPeriod> {
        if !(1..=12).contains(&month) {
            return Err(InvalidPeriod::Malformed);
        }
        if !(YEAR_MIN..=YEAR_MAX).contains(&year) {
            return Err(InvalidPeriod::OutOfRange);
        }
        Ok(Self { year, month })
    }

    /// The month that `at` lies in, in the zone.
    ///
    /// # Errors
    /// When the year is out of range.
    pub fn containing(at: Timestamp, zone: Tz) -> Result<Self, InvalidPeriod> {
        let local = at.to_chrono().with_timezone(&zone);
        Self::new(local.year(), local.month())
    }

    /// The month before.
    ///
    /// # Errors
    /// When the year is out of range.
    pub fn previous(self) -> Result<Self, InvalidPeriod> {
        if self.month == 1 { Self::new(self.year - 1, 12) } else { Self::new(self.year, self.month - 1) }
    }

    /// The year.
    #[must_use]
    pub const fn year(self) -> i32 {
        self.year
    }

    /// The month, counted from 1.
    #[must_use]
    pub const fn month(self) -> u32 {
        self.month
    }

    /// Its days, in order.
    #[must_use]
    pub fn days(self) -> Vec<NaiveDate> {
        let days = NaiveDate::from_ymd_opt(self.year, self.month, 1).into_iter().flat_map(|first| first.iter_days());
        days.take_while(|day| day.month() == self.month).collect()
    }

    /// Its begin and end.
    ///
    /// # Errors
    /// When the zone has no such midnight, which no zone of the database does to us.
    pub fn bounds(self, zone: Tz) -> Result<Bounds, InvalidPeriod> {
        let days = self.days();
        let (Some(first), Some(last)) = (days.first(), days.last()) else { return Err(InvalidPeriod::OutOfRange) };
        let next = last.checked_add_days(Days::new(1)).ok_or(InvalidPeriod::OutOfRange)?;
        let no_midnight = || InvalidPeriod::Zone(zone.name().to_owned());
        let (from, to) = (midnight(*first, zone), midnight(next, zone));
        Ok(Bounds { from: from.ok_or_else(no_midnight)?.into(), to: to.ok_or_else(no_midnight)?.into() })
    }
}

/// The first instant of a local day: some zones skip midnight when their clocks go forward, some have it twice.
fn midnight(day: NaiveDate, zone: Tz) -> Option<DateTime<Utc>> {
    let midnight: NaiveDateTime = day.and_hms_opt(0, 0, 0)?;
    (0..=GAP_STEPS_MAX).find_map(|step| {
        let local = midnight.checked_add_signed(TimeDelta::minutes(i64::from(step) * 15))?;
        match zone.from_local_datetime(&local) {
            LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Some(at.with_timezone(&Utc)),
            LocalResult::None => None,
        }
    })
}

/// An instant as the clock on the wall shows it: `2026-11-01 00:00 +01:00`.
#[must_use]
pub fn local_text(at: Timestamp, zone: Tz) -> String {
    at.to_chrono().with_timezone(&zone).format("%Y-%m-%d %H:%M %:z").to_string()
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = InvalidPeriod;
    fn from_str(text: &str) -> Result<Self, InvalidPeriod> {
        let (year, month) = text.split_once('-').ok_or(InvalidPeriod::Malformed)?;
        let digits = |part: &str, width| part.len() == width && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return Err(InvalidPeriod::Malformed);
        }
        let number = |_| InvalidPeriod::Malformed;
        Self::new(year.parse().map_err(number)?, month.parse().map_err(number)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(month: &str, name: &str, from: &str, to: &str) {
        let bounds = month.parse::<Month>().unwrap().bounds(zone(name).unwrap()).unwrap();
        assert_eq!((bounds.from, bounds.to), (from.parse().unwrap(), to.parse().unwrap()), "{month} {name}");
    }

    #[test]
    fn months_begin_and_end_at_local_midnight() {
        check("2027-03", "Europe/Berlin", "2027-02-28T23:00:00Z", "2027-03-31T22:00:00Z");
        check("2027-04", "Europe/Berlin", "2027-03-31T22:00:00Z", "2027-04-30T22:00:00Z");
        check("2027-10", "Europe/Berlin", "2027-09-30T22:00:00Z", "2027-10-31T23:00:00Z");
        check("2026-12", "UTC", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check("2026-11", "Asia/Kathmandu", "2026-10-31T18:15:00Z", "2026-11-30T18:15:00Z");
        // Clocks went forward at midnight of the first: the month begins at one o'clock.
        check("2017-10", "America/Asuncion", "2017-10-01T04:00:00Z", "2017-11-01T03:00:00Z");
    }

    #[test]
    fn the_month_of_an_instant_is_the_local_one() {
        let berlin = zone("Europe/Berlin").unwrap();
        let at: Timestamp = "2027-03-31T22:05:00Z".parse().unwrap();
        let april = Month::containing(at, berlin).unwrap();
        assert_eq!((april.to_string(), april.previous().unwrap().to_string()), ("2027-04".into(), "2027-03".into()));
        assert_eq!(Month::new(2027, 1).unwrap().previous(), Month::new(2026, 12));
    }

    #[test]
    fn what_is_no_month_is_refused() {
        for text in ["", "2026", "2026-1", "2026-13", "2026-00", "+026-01", "2026-11-01", "2026/11", "２０２６-11"]
        {
            assert_eq!(text.parse::<Month>(), Err(InvalidPeriod::Malformed), "{text}");
        }
        assert_eq!("1999-12".parse::<Month>(), Err(InvalidPeriod::OutOfRange));
        assert!(zone("Europe/Atlantis").is_err());
    }

    #[test]
    fn every_month_of_every_zone_is_a_whole_number_of_intervals_and_follows_the_one_before() {
        for zone in chrono_tz::TZ_VARIANTS {
            let mut before = Month::new(2000, 1).unwrap().bounds(zone).unwrap();
            for year in 2000..2040 {
                for month in 1..=12 {
                    let bounds = Month::new(year, month).unwrap().bounds(zone).unwrap();
                    assert!(bounds.from == before.to || (year, month) == (2000, 1), "{zone} {year}-{month}");
                    assert_eq!(bounds.from.0 % INTERVAL_MS, 0, "{zone} {year}-{month}");
                    assert!((27 * 96..=32 * 96).contains(&bounds.intervals()), "{zone} {year}-{month}");
                    before = bounds;
                }
            }
        }
    }
}
