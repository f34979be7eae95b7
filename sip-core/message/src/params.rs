//! Parameter lists `;name=value;flag` (RFC 3261, section 25.1, `generic-param`, `uri-parameter`).

use crate::grammar::trim;

/// One parameter. The value is as on the wire, with its quotes; `None` for a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param<'a> {
    /// The name as on the wire.
    pub name: &'a [u8],
    /// The value as on the wire.
    pub value: Option<&'a [u8]>,
}

/// A list of parameters, read when it is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Params<'a> {
    raw: &'a [u8],
}

impl<'a> Params<'a> {
    /// Over `;a=b;c`, with or without the first semicolon.
    #[must_use]
    pub const fn new(raw: &'a [u8]) -> Self {
        Self { raw }
    }

    /// As on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.raw
    }

    /// The parameters in order, at most [`crate::limits::PARAMS_MAX`].
    pub fn iter(&self) -> impl Iterator<Item = Param<'a>> + use<'a> {
        ParamIter { rest: self.raw }.take(crate::limits::PARAMS_MAX)
    }

    /// The first parameter of that name, in any case.
    #[must_use]
    pub fn param(&self, name: &[u8]) -> Option<Param<'a>> {
        self.iter().find(|param| param.name.eq_ignore_ascii_case(name))
    }

    /// The value of the first parameter of that name; empty for a flag.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.param(name).map(|param| param.value.unwrap_or_default())
    }

    /// Whether there is a parameter of that name.
    #[must_use]
    pub fn has(&self, name: &[u8]) -> bool {
        self.param(name).is_some()
    }
}

struct ParamIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for ParamIter<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let end = end_of_param(self.rest);
            let (part, tail) = self.rest.split_at(end);
            self.rest = tail.get(1..).unwrap_or_default();
            let part = trim(part);
            if part.is_empty() {
                continue;
            }
            let mut halves = part.splitn(2, |octet| *octet == b'=');
            let name = trim(halves.next().unwrap_or_default());
            return Some(Param { name, value: halves.next().map(trim) });
        }
    }
}

/// The next semicolon outside quotes. Angle brackets stand in parameter values only inside quotes.
fn end_of_param(text: &[u8]) -> usize {
    let mut quoted = false;
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
        } else if octet == b'"' {
            quoted = true;
        } else if octet == b';' {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_colons_quotes_and_brackets() {
        let params = Params::new(br#";+sip.instance="<urn:uuid:a;b>"; lr ;gr=urn:x:y;received=[2001:db8::1]"#);
        assert_eq!(params.get(b"+SIP.instance"), Some(&br#""<urn:uuid:a;b>""#[..]));
        assert_eq!(params.get(b"lr"), Some(&b""[..]));
        assert_eq!(params.param(b"lr").map(|p| p.value), Some(None));
        assert_eq!(params.get(b"gr"), Some(&b"urn:x:y"[..]));
        assert_eq!(params.get(b"received"), Some(&b"[2001:db8::1]"[..]));
        assert!(!params.has(b"b"));
        assert_eq!(Params::new(b";;").iter().count(), 0);
    }
}
