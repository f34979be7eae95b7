//! From dialled digits to E.164 by the plan of a domain.

use model::number::E164;

use crate::directory::Domain;

/// Visual separators that RFC 3966, section 5.1.1 allows in a number.
const SEPARATORS: &[char] = &['-', '.', '(', ')', ' '];
/// Longest dialled text that is looked at: 15 digits, a prefix and separators fit well.
const DIALLED_MAX: usize = 40;

/// Fewest digits of an international number without any prefix: more than an extension has, so that a mistyped
/// extension never leaves the house.
const BARE_INTERNATIONAL_MIN: usize = 9;
/// Fewest digits of a national number where the plan has no national prefix (the shortest such plans have 7).
const BARE_NATIONAL_MIN: usize = 6;

/// The number that `dialled` means in `domain`; none when it is no number.
///
/// `+` and the international prefix go before the national prefix (`00` before `0`). Digits without any prefix are a
/// national number where the plan has no national prefix, otherwise an international number without its `+`; short ones
/// are neither.
#[must_use]
pub fn normalise(dialled: &str, domain: &Domain) -> Option<E164> {
    let digits = strip(dialled)?;
    if let Some(rest) = digits.strip_prefix('+') {
        return E164::from_digits(rest).ok();
    }
    if let Some(rest) = after(&digits, &domain.international_prefix) {
        return E164::from_digits(rest).ok();
    }
    if let Some(rest) = after(&digits, &domain.national_prefix) {
        return if rest.is_empty() { None } else { E164::from_digits(&format!("{}{rest}", domain.country_code)).ok() };
    }
    if domain.national_prefix.is_empty() && digits.len() >= BARE_NATIONAL_MIN {
        return E164::from_digits(&format!("{}{digits}", domain.country_code)).ok();
    }
    if digits.len() < BARE_INTERNATIONAL_MIN {
        return None;
    }
    E164::from_digits(&digits).ok()
}

/// A number as a trunk sends it: E.164 with or without `+`.
#[must_use]
pub fn from_trunk(user: &str) -> Option<E164> {
    let digits = strip(user)?;
    E164::from_digits(digits.strip_prefix('+').unwrap_or(&digits)).ok()
}

fn after<'a>(digits: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() { None } else { digits.strip_prefix(prefix) }
}

fn strip(dialled: &str) -> Option<String> {
    // Parameters of a number in the user part (RFC 3261, section 19.1.6): `+4372;phone-context=…`.
    let number = dialled.split(';').next().unwrap_or_default();
    if number.is_empty() || number.len() > DIALLED_MAX {
        return None;
    }
    let digits: String = number.chars().filter(|c| !SEPARATORS.contains(c)).collect();
    let bare = digits.strip_prefix('+').unwrap_or(&digits);
    (!bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn dialled_digits_become_e164() {
        let mut domain = World::new().domain;
        let check = |domain: &Domain, dialled: &str, expected: Option<&str>| {
            assert_eq!(normalise(dialled, domain).map(|n| n.to_string()).as_deref(), expected, "{dialled}");
        };
        check(&domain, "+43720123456", Some("+43720123456"));
        check(&domain, "+43-720.123(456)", Some("+43720123456"));
        check(&domain, "+43720123456;phone-context=x", Some("+43720123456"));
        check(&domain, "0043720123456", Some("+43720123456"));
        check(&domain, "0720123456", Some("+43720123456"));
        check(&domain, "43720123456", Some("+43720123456"));
        for bad in
            ["", "+", "alice", "0", "00", "999", "12345678", "+0123", "12345678901234567890", "*43#", "4372012345é"]
        {
            check(&domain, bad, None);
        }
        domain.national_prefix = String::new();
        check(&domain, "720123456", Some("+43720123456"));
        check(&domain, "999", None);
        assert_eq!(from_trunk("4930123").map(|n| n.to_string()).as_deref(), Some("+4930123"));
        assert_eq!(from_trunk("anonymous"), None);
    }
}
