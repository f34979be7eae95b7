//! Small grammars shared by the headers: tokens, quoted strings, comma lists, numbers (RFC 3261, section 25.1).

use std::borrow::Cow;

use crate::GrammarError;
use crate::limits::PARAMS_MAX;

/// Whether the octet may stand in a token.
#[must_use]
pub const fn is_token(octet: u8) -> bool {
    matches!(octet, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
        | b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

/// Whether the slice is a non-empty token.
#[must_use]
pub fn is_all_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token)
}

/// Without blanks at either end.
#[must_use]
pub const fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// A decimal number without sign. More digits than the type can hold are an error, not a wrap.
pub fn number(text: &[u8]) -> Result<u32, GrammarError> {
    if text.is_empty() {
        return Err(GrammarError::Number);
    }
    let mut value = 0u32;
    for octet in text {
        let digit = match octet {
            b'0'..=b'9' => u32::from(octet - b'0'),
            _ => return Err(GrammarError::Number),
        };
        value = value.checked_mul(10).and_then(|v| v.checked_add(digit)).ok_or(GrammarError::Number)?;
    }
    Ok(value)
}

/// The position of the first of `wanted` outside quotes and angle brackets. `Err` when a quote or a bracket does
/// not close.
pub(crate) fn find_outside(text: &[u8], wanted: &[u8]) -> Result<Option<usize>, GrammarError> {
    let mut quoted = false;
    let mut bracketed = false;
    let mut escaped = false;
    for (at, &octet) in text.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if quoted {
            match octet {
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
        } else if bracketed {
            match octet {
                b'>' => bracketed = false,
                b'<' => return Err(GrammarError::NameAddr),
                _ => {}
            }
        } else if wanted.contains(&octet) {
            return Ok(Some(at));
        } else {
            match octet {
                b'"' => quoted = true,
                b'<' => bracketed = true,
                _ => {}
            }
        }
    }
    if quoted || bracketed { Err(GrammarError::NameAddr) } else { Ok(None) }
}

/// The values of a comma list; commas in quotes and in angle brackets don't split. A rest whose quotes don't close
/// is one value, so that its own grammar refuses it; so is what follows [`PARAMS_MAX`] commas.
#[must_use]
pub fn comma_list(text: &[u8]) -> CommaList<'_> {
    CommaList { rest: Some(text), splits: PARAMS_MAX }
}

/// See [`comma_list`].
#[derive(Debug, Clone)]
pub struct CommaList<'a> {
    rest: Option<&'a [u8]>,
    /// Commas that may still be split at.
    splits: usize,
}

impl<'a> Iterator for CommaList<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let rest = self.rest.take()?;
            let comma = if self.splits == 0 { Ok(None) } else { find_outside(rest, b",") };
            let value = match comma {
                Ok(Some(at)) => {
                    self.splits = self.splits.saturating_sub(1);
                    let (value, tail) = rest.split_at(at);
                    self.rest = tail.get(1..);
                    value
                }
                Ok(None) | Err(_) => rest,
            };
            let value = trim(value);
            if !value.is_empty() {
                return Some(value);
            }
        }
    }
}

/// The text of a quoted string without its quotes and escapes; anything else as it is.
#[must_use]
pub fn unquote(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = text.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")) else {
        return Cow::Borrowed(text);
    };
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = Vec::with_capacity(inner.len());
    let mut octets = inner.iter().copied();
    while let Some(octet) = octets.next() {
        plain.push(if octet == b'\\' { octets.next().unwrap_or(b'\\') } else { octet });
    }
    Cow::Owned(plain)
}

/// A quoted string of any octets; CR, LF and NUL are dropped, quotes and backslashes are escaped.
#[must_use]
pub fn quote(text: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(text.len().saturating_add(2));
    quoted.push(b'"');
    for &octet in text {
        match octet {
            b'\r' | b'\n' | 0 => {}
            b'"' | b'\\' => quoted.extend_from_slice(&[b'\\', octet]),
            _ => quoted.push(octet),
        }
    }
    quoted.push(b'"');
    quoted
}

/// The text with its `%HH` escapes resolved (RFC 3261, section 19.1.2); a `%` that begins no escape stays.
#[must_use]
pub fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&octet, tail)) = rest.split_first() {
        rest = tail;
        if octet == b'%'
            && let [high, low, after @ ..] = tail
            && let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low))
        {
            plain.push(high << 4 | low);
            rest = after;
            continue;
        }
        plain.push(octet);
    }
    Cow::Owned(plain)
}

/// The value of a hexadecimal digit.
#[must_use]
pub const fn hex_digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// Whether a line of a header holds neither a CR on its own, which might be a line end to the next hop, nor a NUL, which
/// might be the end of the text: a request with one in its Call-ID could not even be refused. Behind a backslash a NUL is
/// legal (RFC 3261, section 25.1, quoted-pair).
pub(crate) fn octets_are_clean(line: &[u8]) -> bool {
    let quoted = |at: usize| at.checked_sub(1).and_then(|before| line.get(before)) == Some(&b'\\');
    memchr::memchr2_iter(b'\r', 0, line).all(|at| line.get(at) == Some(&0) && quoted(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comma_lists_respect_quotes_and_brackets() {
        let values: Vec<_> = comma_list(b"\"a, \\\"b\" <sip:x,y@z>;q=1 ,, <sip:c>").collect();
        assert_eq!(values, [&b"\"a, \\\"b\" <sip:x,y@z>;q=1"[..], b"<sip:c>"]);
        assert_eq!(comma_list(b"\"open, <sip:a>").count(), 1);
        assert_eq!(comma_list(b" , ").count(), 0);
        let long = "<sip:a>,".repeat(1_000);
        let values: Vec<_> = comma_list(long.as_bytes()).collect();
        assert_eq!(values.len(), PARAMS_MAX + 1);
        assert!(crate::NameAddr::parse(values[PARAMS_MAX]).is_err(), "the rest is whole, and refused by its grammar");
    }

    #[test]
    fn numbers_do_not_wrap() {
        assert_eq!(number(b"4294967295"), Ok(u32::MAX));
        assert_eq!(number(b"4294967296"), Err(GrammarError::Number));
        assert_eq!(number(b"-1"), Err(GrammarError::Number));
        assert_eq!(number(b""), Err(GrammarError::Number));
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(&*unquote(br#""a\"b\\""#), br#"a"b\"#);
        assert_eq!(quote(b"a\"\r\nb"), br#""a\"b""#);
        assert_eq!(&*unescape(b"%61%zz%4"), b"a%zz%4");
    }

    proptest::proptest! {
        #[test]
        fn what_is_quoted_comes_back(text: Vec<u8>) {
            let kept: Vec<u8> = text.iter().copied().filter(|o| !matches!(o, b'\r' | b'\n' | 0)).collect();
            let quoted = quote(&text);
            proptest::prop_assert_eq!(&*unquote(&quoted), &kept[..]);
            // Quoted text is one value, whatever it holds.
            let list = [&quoted[..], b", x"].concat();
            proptest::prop_assert_eq!(comma_list(&list).collect::<Vec<_>>(), [&quoted[..], b"x"]);
        }

        #[test]
        fn nothing_panics_on_any_octets(text: Vec<u8>) {
            let _ = (unescape(&text), unquote(&text), number(&text), comma_list(&text).count());
            let _ = (crate::Uri::parse(&text), crate::NameAddr::parse(&text), crate::Via::parse(&text));
        }
    }
}
