//! Conditional and partial fetches of one immutable representation (RFC 9110, sections 13.1 and 14).

use axum::http::HeaderMap;
use axum::http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};

/// What the client asks of a representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing: it has these octets.
    NotModified,
    /// All.
    Whole,
    /// Octets `first..=last`.
    Part {
        /// The first octet.
        first: u64,
        /// The last octet, inclusive.
        last: u64,
    },
    /// A range that lies beyond the end.
    Unsatisfiable,
}

/// Reads the fields. `etag` is the strong validator with its quotes. More than one range is answered whole, which
/// section 14.2 allows: a billing file is fetched from where the last try broke off.
pub(crate) fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    if headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|list| matches(list, etag)) {
        return Wanted::NotModified;
    }
    // section 13.1.5: a date, or another or weak validator, means the whole
    if text(IF_RANGE).is_some_and(|validator| validator.trim() != etag) {
        return Wanted::Whole;
    }
    text(RANGE).map_or(Wanted::Whole, |range| part(range, size))
}

/// Weak comparison (section 8.8.3.2) against a list or `*`.
fn matches(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|entry| entry == "*" || entry.strip_prefix("W/").unwrap_or(entry) == etag)
}

fn part(range: &str, size: u64) -> Wanted {
    let Some((unit, set)) = range.split_once('=') else { return Wanted::Whole };
    let Some((first, last)) = set.trim().split_once('-') else { return Wanted::Whole };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    // also a set of several ranges ends here: its comma is no digit
    if !unit.trim().eq_ignore_ascii_case("bytes") || !digits(first) || !digits(last) {
        return Wanted::Whole;
    }
    // digits that do not fit are beyond any end
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let (first, last) = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Wanted::Whole,
        (true, false) if number(last) == 0 => return Wanted::Unsatisfiable,
        (true, false) => (size.saturating_sub(number(last)), u64::MAX),
        (false, true) => (number(first), u64::MAX),
        (false, false) if number(last) < number(first) => return Wanted::Whole,
        (false, false) => (number(first), number(last)),
    };
    if first >= size { Wanted::Unsatisfiable } else { Wanted::Part { first, last: last.min(size - 1) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;
    use proptest::prelude::*;

    const ETAG: &str = "\"abc\"";

    fn check(fields: &[(HeaderName, &str)], expected: Wanted) {
        let headers: HeaderMap = fields.iter().map(|(n, v)| (n.clone(), v.parse().expect("a value"))).collect();
        assert_eq!(wanted(&headers, ETAG, 100), expected, "{fields:?}");
    }

    #[test]
    fn ranges_and_validators() {
        check(&[], Wanted::Whole);
        check(&[(RANGE, "bytes=0-0")], Wanted::Part { first: 0, last: 0 });
        check(&[(RANGE, "bytes=90-")], Wanted::Part { first: 90, last: 99 });
        check(&[(RANGE, "bytes=-10")], Wanted::Part { first: 90, last: 99 });
        check(&[(RANGE, "bytes=-1000")], Wanted::Part { first: 0, last: 99 });
        check(&[(RANGE, "bytes=50-1000")], Wanted::Part { first: 50, last: 99 });
        check(&[(RANGE, "bytes=100-")], Wanted::Unsatisfiable);
        check(&[(RANGE, "bytes=-0")], Wanted::Unsatisfiable);
        check(&[(RANGE, "bytes=99999999999999999999-")], Wanted::Unsatisfiable);
        for ignored in ["bytes=5-4", "bytes=-", "bytes=0-1,3-4", "lines=0-1", "bytes", "bytes=a-b"] {
            check(&[(RANGE, ignored)], Wanted::Whole);
        }
        check(&[(RANGE, "bytes=0-0"), (IF_RANGE, ETAG)], Wanted::Part { first: 0, last: 0 });
        check(&[(RANGE, "bytes=0-0"), (IF_RANGE, "\"old\"")], Wanted::Whole);
        check(&[(RANGE, "bytes=0-0"), (IF_RANGE, "W/\"abc\"")], Wanted::Whole);
        check(&[(IF_NONE_MATCH, "\"x\", W/\"abc\"")], Wanted::NotModified);
        check(&[(IF_NONE_MATCH, "*"), (RANGE, "bytes=0-0")], Wanted::NotModified);
        check(&[(IF_NONE_MATCH, "\"x\""), (RANGE, "bytes=0-0")], Wanted::Part { first: 0, last: 0 });
    }

    proptest! {
        #[test]
        fn a_part_lies_within(range in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in any::<u64>()) {
            if let Wanted::Part { first, last } = part(&range, size) {
                prop_assert!(first <= last && last < size);
            }
        }
    }
}
