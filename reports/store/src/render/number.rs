//! Numbers as people read them: grouped, in integers, undefined as a dash.

use reports::resource::{Counters, Ratio};

/// What stands for a value that is not defined.
pub(crate) const UNDEFINED: &str = "–";

/// Groups the digits of a decimal text by thousands: `-1234567.5` becomes `-1,234,567.5`.
pub(crate) fn grouped(decimal: &str) -> String {
    let (sign, rest) = decimal.strip_prefix('-').map_or(("", decimal), |rest| ("-", rest));
    let (whole, fraction) = rest.split_once('.').map_or((rest, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut out = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

pub(crate) fn count(n: i64) -> String {
    grouped(&n.to_string())
}

pub(crate) fn percent(ratio: &Ratio) -> String {
    ratio.percent().map_or_else(|| UNDEFINED.to_owned(), |text| format!("{text} %"))
}

/// Loss is small: two decimal places.
pub(crate) fn percent_fine(ratio: &Ratio) -> String {
    let hundredfold = Ratio { numerator: ratio.numerator.saturating_mul(100), denominator: ratio.denominator };
    hundredfold.decimal(2).map_or_else(|| UNDEFINED.to_owned(), |text| format!("{text} %"))
}

/// Milliseconds as `m:ss`.
pub(crate) fn minutes_seconds(ms: &Ratio) -> String {
    let seconds = Ratio { numerator: ms.numerator, denominator: ms.denominator.saturating_mul(1_000) };
    seconds.scaled(1).map_or_else(|| UNDEFINED.to_owned(), |s| format!("{}:{:02}", count(s / 60), s % 60))
}

/// Milliseconds as seconds with two decimal places.
pub(crate) fn seconds(ms: &Ratio) -> String {
    let seconds = Ratio { numerator: ms.numerator, denominator: ms.denominator.saturating_mul(1_000) };
    seconds.decimal(2).map_or_else(|| UNDEFINED.to_owned(), |text| format!("{text} s"))
}

pub(crate) fn minutes(counters: &Counters) -> String {
    counters.minutes().decimal(0).map_or_else(|| UNDEFINED.to_owned(), |text| grouped(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_undefined_ones_dashed() {
        assert_eq!(grouped("-1234567.505"), "-1,234,567.505");
        assert_eq!((count(999), count(1_000), count(i64::MIN)).1, "1,000");
        assert_eq!(percent(&Ratio { numerator: 1, denominator: 0 }), UNDEFINED);
        assert_eq!(percent_fine(&Ratio { numerator: 1, denominator: 800 }), "0.13 %");
        assert_eq!(minutes_seconds(&Ratio { numerator: 125_499, denominator: 1 }), "2:05");
        assert_eq!(seconds(&Ratio { numerator: 3_001, denominator: 4 }), "0.75 s");
    }
}
