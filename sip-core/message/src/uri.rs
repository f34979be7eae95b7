//! URIs in SIP (RFC 3261, section 19.1; RFC 3966 for `tel`). Schemes that are not SIP are carried as opaque.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::grammar::{hex_digit, number, unescape};
use crate::{GrammarError, Params};

/// The scheme of a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`
    Tel,
    /// Anything else; a request to it is answered with 416.
    Other,
}

/// A URI over the octets it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'a> {
    /// As on the wire.
    pub raw: &'a [u8],
    /// The scheme.
    pub scheme: Scheme,
    /// The user part without password, escapes unresolved; for `tel:` the number; `None` for other schemes.
    pub user: Option<&'a [u8]>,
    /// The password, a thing of the past.
    pub password: Option<&'a [u8]>,
    /// The host, an IPv6 literal without its brackets; empty when the scheme is not SIP.
    pub host: &'a [u8],
    /// The port if one is written.
    pub port: Option<u16>,
    /// Parameters of the URI.
    pub params: Params<'a>,
    /// What follows `?`.
    pub headers: Option<&'a [u8]>,
    /// Everything after the colon of the scheme.
    pub opaque: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Reads a URI. No octet of the input is skipped: blanks, angle brackets and control octets are refused.
    pub fn parse(raw: &'a [u8]) -> Result<Self, GrammarError> {
        let refused = |octet: &u8| octet.is_ascii_control() || matches!(octet, b' ' | b'<' | b'>' | b'"');
        if raw.iter().any(refused) {
            return Err(GrammarError::Uri);
        }
        let colon = raw.iter().position(|octet| *octet == b':').ok_or(GrammarError::Uri)?;
        let (name, rest) = raw.split_at(colon);
        let opaque = rest.get(1..).unwrap_or_default();
        let letter = name.first().is_some_and(u8::is_ascii_alphabetic);
        if !letter || !name.iter().all(|o| o.is_ascii_alphanumeric() || matches!(o, b'+' | b'-' | b'.')) {
            return Err(GrammarError::Uri);
        }
        let scheme = if name.eq_ignore_ascii_case(b"sip") {
            Scheme::Sip
        } else if name.eq_ignore_ascii_case(b"sips") {
            Scheme::Sips
        } else if name.eq_ignore_ascii_case(b"tel") {
            Scheme::Tel
        } else {
            Scheme::Other
        };
        let mut uri = Self {
            raw,
            scheme,
            user: None,
            password: None,
            host: b"",
            port: None,
            params: Params::default(),
            headers: None,
            opaque,
        };
        match scheme {
            Scheme::Sip | Scheme::Sips => uri.read_sip(opaque)?,
            Scheme::Tel => {
                let (number, params) = split_before(opaque, b';');
                if number.is_empty() {
                    return Err(GrammarError::Uri);
                }
                uri.user = Some(number);
                uri.params = Params::new(params);
            }
            Scheme::Other if opaque.is_empty() => return Err(GrammarError::Uri),
            Scheme::Other => {}
        }
        Ok(uri)
    }

    fn read_sip(&mut self, opaque: &'a [u8]) -> Result<(), GrammarError> {
        // The user part may hold `;` and `?`, so the first `@` decides before anything else is split.
        let rest = match opaque.iter().position(|octet| *octet == b'@') {
            Some(at) => {
                let (info, rest) = opaque.split_at(at);
                let (user, password) = split_before(info, b':');
                if user.is_empty() {
                    return Err(GrammarError::Uri);
                }
                self.user = Some(user);
                self.password = password.get(1..);
                rest.get(1..).unwrap_or_default()
            }
            None => opaque,
        };
        let (rest, headers) = split_before(rest, b'?');
        self.headers = headers.get(1..);
        let (host_port, params) = split_before(rest, b';');
        self.params = Params::new(params);
        (self.host, self.port) = host_and_port(host_port).ok_or(GrammarError::Uri)?;
        Ok(())
    }

    /// The user part with its escapes resolved.
    #[must_use]
    pub fn user_text(&self) -> Option<String> {
        self.user.map(|user| String::from_utf8_lossy(&unescape(user)).into_owned())
    }

    /// The host in lower case.
    #[must_use]
    pub fn host_text(&self) -> String {
        String::from_utf8_lossy(self.host).to_ascii_lowercase()
    }

    /// The host if it is an address and no name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        ip_of(self.host)
    }

    /// Whether both name the same resource: the rules of RFC 3261, section 19.1.4, for SIP, octets otherwise.
    #[must_use]
    pub fn equivalent(&self, other: &Uri<'_>) -> bool {
        if self.scheme != other.scheme {
            return false;
        }
        if !matches!(self.scheme, Scheme::Sip | Scheme::Sips) {
            return self.opaque.eq_ignore_ascii_case(other.opaque);
        }
        let same = |a: Option<&[u8]>, b: Option<&[u8]>| a.map(unescape) == b.map(unescape);
        same(self.user, other.user)
            && same(self.password, other.password)
            && self.host.eq_ignore_ascii_case(other.host)
            && self.port == other.port
            && params_match(&self.params, &other.params)
            && params_match(&other.params, &self.params)
            && headers_match(self.headers, other.headers)
    }
}

/// A parameter in both must match; `user`, `ttl`, `method`, `maddr` and `transport` in one only are a difference.
fn params_match(left: &Params<'_>, right: &Params<'_>) -> bool {
    left.iter().all(|param| match right.param(param.name) {
        Some(other) => {
            let (a, b) = (param.value.unwrap_or_default(), other.value.unwrap_or_default());
            unescape(a).eq_ignore_ascii_case(&unescape(b))
        }
        None => ![&b"user"[..], b"ttl", b"method", b"maddr", b"transport"]
            .iter()
            .any(|name| param.name.eq_ignore_ascii_case(name)),
    })
}

fn headers_match(left: Option<&[u8]>, right: Option<&[u8]>) -> bool {
    let (Some(left), Some(right)) = (left, right) else { return left.is_none() && right.is_none() };
    let sorted = |text: &[u8]| {
        let mut parts: Vec<Vec<u8>> = text.split(|o| *o == b'&').map(|p| unescape(p).into_owned()).collect();
        parts.sort_unstable();
        parts
    };
    sorted(left) == sorted(right)
}

/// Splits so that the second half begins with `octet`, or is empty.
fn split_before(text: &[u8], octet: u8) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|o| *o == octet).unwrap_or(text.len()))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; the brackets are taken off.
pub(crate) fn host_and_port(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let (host, rest) = if let Some(inner) = text.strip_prefix(b"[") {
        let (host, rest) = split_before(inner, b']');
        std::str::from_utf8(host).ok()?.parse::<Ipv6Addr>().ok()?;
        (host, rest.strip_prefix(b"]")?)
    } else {
        let (host, rest) = split_before(text, b':');
        let legal = |o: &u8| o.is_ascii_alphanumeric() || matches!(o, b'-' | b'.' | b'_' | b'%');
        if host.is_empty() || !host.iter().all(legal) {
            return None;
        }
        // A host is not escaped by the grammar; some senders do it, so only a broken escape is refused.
        let broken = host.iter().enumerate().any(|(at, octet)| {
            let digit = |ahead: usize| at.checked_add(ahead).and_then(|i| host.get(i)).copied().and_then(hex_digit);
            *octet == b'%' && (digit(1).is_none() || digit(2).is_none())
        });
        if broken {
            return None;
        }
        (host, rest)
    };
    let port = match rest.strip_prefix(b":") {
        Some(digits) => Some(u16::try_from(number(digits).ok()?).ok()?),
        None if rest.is_empty() => None,
        None => return None,
    };
    Some((host, port))
}

pub(crate) fn ip_of(host: &[u8]) -> Option<IpAddr> {
    let host = std::str::from_utf8(host).ok()?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host.parse::<Ipv4Addr>().map(IpAddr::V4).or_else(|_| host.parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, user: Option<&str>, host: &str, port: Option<u16>) {
        let uri = Uri::parse(raw.as_bytes()).unwrap();
        assert_eq!(uri.user, user.map(str::as_bytes), "{raw}");
        assert_eq!(uri.host, host.as_bytes(), "{raw}");
        assert_eq!(uri.port, port, "{raw}");
    }

    #[test]
    fn reads_what_the_field_sends() {
        check("sip:john.doe@example.com", Some("john.doe"), "example.com", None);
        check("sip:a:b@[2001:db8::10]:5070;transport=tcp", Some("a"), "2001:db8::10", Some(5070));
        check("SIPS:example.com?subject=x", None, "example.com", None);
        check("sip:user;par=u%40example.net@example.com", Some("user;par=u%40example.net"), "example.com", None);
        check("sip:+12125551212;ext=1@gw;user=phone", Some("+12125551212;ext=1"), "gw", None);
        check("tel:+1-201-555-0123;phone-context=x", Some("+1-201-555-0123"), "", None);
        check("nobodyKnowsThisScheme:totallyopaquecontent", None, "", None);
        check("sip:192.0.2.1:5060", None, "192.0.2.1", Some(5060));
    }

    #[test]
    fn keeps_parameters_and_headers_apart() {
        let uri = Uri::parse(b"sip:a@h;gr=urn:uuid:1;lr?Route=%3Csip:x%3E&b=c").unwrap();
        assert_eq!(uri.params.get(b"gr"), Some(&b"urn:uuid:1"[..]));
        assert!(uri.params.has(b"lr"));
        assert_eq!(uri.headers, Some(&b"Route=%3Csip:x%3E&b=c"[..]));
    }

    #[test]
    fn refuses_what_is_none() {
        for raw in [
            "",
            "sip",
            "sip:",
            "sip:@h",
            "sip:a@",
            "sip:a@h:99999",
            "sip:a@h:x",
            "sip:[::1",
            "sip:[zz]",
            "sip:a b@h",
            "<sip:a@h>",
            ":x",
            "1sip:a",
            "tel:",
            "sip:a@b@c",
            "sip:h:",
        ] {
            assert!(Uri::parse(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    #[test]
    fn compares_by_the_rules() {
        let same = |a: &str, b: &str| Uri::parse(a.as_bytes()).unwrap().equivalent(&Uri::parse(b.as_bytes()).unwrap());
        assert!(same("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtlanTa.CoM;Transport=tcp"));
        assert!(same("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"));
        assert!(same("sip:b@h?to=a&priority=u", "sip:b@h?priority=u&to=a"));
        assert!(!same("SIP:ALICE@h", "sip:alice@h"));
        assert!(!same("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"));
        assert!(!same("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"));
        assert!(!same("sip:c@h;security=on", "sip:c@h;security=off"));
        assert!(!same("sip:c@h", "sip:c@h?Subject=x"));
    }
}
