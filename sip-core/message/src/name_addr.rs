//! `name-addr` and `addr-spec` with header parameters: From, To, Contact, Route, … (RFC 3261, section 20).

use std::borrow::Cow;

use crate::grammar::{find_outside, is_token, trim, unquote};
use crate::{GrammarError, Params, Uri};

/// A name and an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The display name as on the wire, with quotes; empty when there is none.
    pub display: &'a [u8],
    /// The URI.
    pub uri: Uri<'a>,
    /// The parameters of the header, not of the URI.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value (not a comma list).
    pub fn parse(text: &'a [u8]) -> Result<Self, GrammarError> {
        let text = trim(text);
        let (display, uri, params) = match bracket(text)? {
            Some(open) => {
                let (display, rest) = text.split_at(open);
                let inner = rest.get(1..).unwrap_or_default();
                let close = inner.iter().position(|o| *o == b'>').ok_or(GrammarError::NameAddr)?;
                let (uri, rest) = inner.split_at(close);
                (trim(display), uri, rest.get(1..).unwrap_or_default())
            }
            None => {
                // Without brackets every parameter belongs to the header, and the URI may have no `?`.
                let (uri, params) = text.split_at(text.iter().position(|o| *o == b';').unwrap_or(text.len()));
                if uri.contains(&b'?') || uri.contains(&b',') {
                    return Err(GrammarError::NameAddr);
                }
                (&b""[..], trim(uri), params)
            }
        };
        if !display_is_legal(display) {
            return Err(GrammarError::NameAddr);
        }
        let params = trim(params);
        if !params.is_empty() && !params.starts_with(b";") {
            return Err(GrammarError::NameAddr);
        }
        // An open quote in the parameters would hide the rest of the list.
        find_outside(params, b"")?;
        // RFC 4475, 3.1.2.15 sends blanks inside the brackets; what is meant is clear.
        Ok(Self { display, uri: Uri::parse(trim(uri))?, params: Params::new(params) })
    }

    /// The tag, when there is one that is not empty.
    #[must_use]
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.get(b"tag").filter(|tag| !tag.is_empty())
    }

    /// The display name without quotes and escapes.
    #[must_use]
    pub fn display_text(&self) -> Cow<'a, [u8]> {
        unquote(self.display)
    }
}

/// Where the `<` of the address stands: the first one outside quotes.
fn bracket(text: &[u8]) -> Result<Option<usize>, GrammarError> {
    find_outside(text, b"<")
}

/// Tokens and blanks, or one quoted string. Octets above ASCII are let through unquoted: phones send them.
fn display_is_legal(display: &[u8]) -> bool {
    match display.strip_prefix(b"\"") {
        Some(rest) => {
            let mut escaped = false;
            let close = rest.iter().position(|octet| {
                let ends = !escaped && *octet == b'"';
                escaped = !escaped && *octet == b'\\';
                ends
            });
            close.is_some_and(|at| at.checked_add(1) == Some(rest.len()))
        }
        None => display.iter().all(|o| is_token(*o) || matches!(o, b' ' | b'\t') || !o.is_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, display: &str, uri: &str, tag: Option<&str>) {
        let parsed = NameAddr::parse(text.as_bytes()).unwrap();
        assert_eq!(&*parsed.display_text(), display.as_bytes(), "{text}");
        assert_eq!(parsed.uri.raw, uri.as_bytes(), "{text}");
        assert_eq!(parsed.tag(), tag.map(str::as_bytes), "{text}");
    }

    #[test]
    fn reads_all_shapes() {
        check("sip:a@b;tag=1", "", "sip:a@b", Some("1"));
        check("<sip:a@b;x=1>;tag=2", "", "sip:a@b;x=1", Some("2"));
        check("caller<sip:a@b>", "caller", "sip:a@b", None);
        check("\"A <sip:x@y> \\\" \\\\\" <sip:a@b> ; tag = 3", "A <sip:x@y> \" \\", "sip:a@b", Some("3"));
        check("The Big Caller <sip:a@b;t=u?h=v>;TAG=4", "The Big Caller", "sip:a@b;t=u?h=v", Some("4"));
        check("\"Wat, T\" < sip:t.w@example.org >;tag=5", "Wat, T", "sip:t.w@example.org", Some("5"));
        check("<tel:+15550100>;tag=", "", "tel:+15550100", None);
    }

    #[test]
    fn refuses_broken_ones() {
        for text in [
            "",
            "\"open <sip:a@b>",
            "<sip:a@b",
            "Bell, A <sip:a@b>",
            "sip:a@b?x=y",
            "<sip:a@b> x",
            "\"a\" b <sip:a@b>",
            "<>",
            "<sip:a@b>;x=\"open",
        ] {
            assert!(NameAddr::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
