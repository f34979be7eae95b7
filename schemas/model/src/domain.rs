//! SIP domains: globally unique host names that are also the digest realm.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A canonical SIP domain: a lower-case host name (RFC 1123 labels), at most 253 octets, at least two labels.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, minicbor::Encode, minicbor::Decode,
)]
#[serde(try_from = "String", into = "String")]
#[cbor(transparent)]
pub struct SipDomain(#[n(0)] String);

/// The text is no SIP domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a SIP domain is a host name of two labels or more, letters, digits and hyphens, such as alpha.example")]
pub struct InvalidDomain;

impl SipDomain {
    /// The canonical name, lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SipDomain {
    type Err = InvalidDomain;
    fn from_str(text: &str) -> Result<Self, InvalidDomain> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label_ok = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let all_digits = text.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        if text.len() > 253 || all_digits || !text.contains('.') || !text.split('.').all(label_ok) {
            return Err(InvalidDomain);
        }
        Ok(Self(text))
    }
}

impl TryFrom<String> for SipDomain {
    type Error = InvalidDomain;
    fn try_from(text: String) -> Result<Self, InvalidDomain> {
        text.parse()
    }
}

impl From<SipDomain> for String {
    fn from(domain: SipDomain) -> Self {
        domain.0
    }
}

impl fmt::Display for SipDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_names_only() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(text.parse::<SipDomain>().ok().as_ref().map(SipDomain::as_str), expected, "{text}");
        };
        check("Alpha.Example.", Some("alpha.example"));
        check("a-b.c1.example", Some("a-b.c1.example"));
        for bad in ["", "localhost", "10.0.0.1", "-a.example", "a..example", "a_b.example", "a b.example", "ä.example"]
        {
            check(bad, None);
        }
    }
}
