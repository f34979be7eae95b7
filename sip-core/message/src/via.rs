//! Via (RFC 3261, section 20.42; `rport` of RFC 3581).

use std::net::IpAddr;

use crate::grammar::{is_all_token, number, trim};
use crate::uri::{host_and_port, ip_of};
use crate::{GrammarError, Params};

/// One Via value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via<'a> {
    /// The transport token as on the wire; unknown ones are legal.
    pub transport: &'a [u8],
    /// The host of sent-by, an IPv6 literal without its brackets.
    pub host: &'a [u8],
    /// The port of sent-by.
    pub port: Option<u16>,
    /// The parameters.
    pub params: Params<'a>,
}

/// The start of every branch that is unique in RFC 3261's sense (section 8.1.1.7).
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

impl<'a> Via<'a> {
    /// Reads one value (not a comma list).
    pub fn parse(text: &'a [u8]) -> Result<Self, GrammarError> {
        let text = trim(text);
        let (name, rest) = part(text, b'/')?;
        let (version, rest) = part(rest, b'/')?;
        if !name.eq_ignore_ascii_case(b"SIP") || version != b"2.0" {
            return Err(GrammarError::Via);
        }
        let end = rest.iter().position(|o| matches!(o, b' ' | b'\t')).ok_or(GrammarError::Via)?;
        let (transport, rest) = rest.split_at(end);
        let rest = trim(rest);
        let (sent_by, params) = rest.split_at(rest.iter().position(|o| *o == b';').unwrap_or(rest.len()));
        if !is_all_token(transport) {
            return Err(GrammarError::Via);
        }
        let (host, port) = sent_by_parts(trim(sent_by)).ok_or(GrammarError::Via)?;
        Ok(Self { transport, host, port, params: Params::new(params) })
    }

    /// The branch; empty when there is none.
    #[must_use]
    pub fn branch(&self) -> &'a [u8] {
        self.params.get(b"branch").unwrap_or_default()
    }

    /// Whether the branch is one of RFC 3261, so that it alone (with sent-by and method) names the transaction.
    #[must_use]
    pub fn has_magic_cookie(&self) -> bool {
        let branch = self.branch();
        branch.len() > MAGIC_COOKIE.len()
            && branch.get(..MAGIC_COOKIE.len()).is_some_and(|start| start.eq_ignore_ascii_case(MAGIC_COOKIE))
    }

    /// The address of `received`.
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        self.params.get(b"received").and_then(ip_of)
    }

    /// `rport`: `None` when absent, `Some(None)` when asked for, `Some(Some(port))` when filled in.
    #[must_use]
    pub fn rport(&self) -> Option<Option<u16>> {
        let param = self.params.param(b"rport")?;
        Some(param.value.and_then(|value| number(value).ok()).and_then(|port| u16::try_from(port).ok()))
    }

    /// The host of sent-by if it is an address.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        ip_of(self.host)
    }
}

fn part(text: &[u8], separator: u8) -> Result<(&[u8], &[u8]), GrammarError> {
    let at = text.iter().position(|o| *o == separator).ok_or(GrammarError::Via)?;
    let (left, right) = text.split_at(at);
    Ok((trim(left), trim(right.get(1..).unwrap_or_default())))
}

/// As in a URI, but blanks around the colon are legal (`host : 5060`).
fn sent_by_parts(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    if !text.iter().any(|o| matches!(o, b' ' | b'\t')) {
        return host_and_port(text);
    }
    let colon = text.iter().rposition(|o| *o == b':')?;
    let (host, port) = text.split_at(colon);
    let (host, none) = host_and_port(trim(host))?;
    if none.is_some() {
        return None;
    }
    Some((host, Some(u16::try_from(number(trim(port.get(1..)?)).ok()?).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_shapes_of_the_torture_tests() {
        let via = Via::parse(b"SIP / 2.0 / UDP 192.0.2.2 : 5070 ;branch=z9hG4bK390skdjuw;rport").unwrap();
        assert_eq!((via.transport, via.host, via.port), (&b"UDP"[..], &b"192.0.2.2"[..], Some(5070)));
        assert_eq!(via.branch(), b"z9hG4bK390skdjuw");
        assert_eq!(via.rport(), Some(None));
        let via = Via::parse(b"SIP/2.0/UNKNOWN [2001:db8::9:1]:6050;received=[2001:db8::1];rport=7").unwrap();
        assert_eq!(via.host, b"2001:db8::9:1");
        assert_eq!(via.received(), "2001:db8::1".parse().ok());
        assert_eq!(via.rport(), Some(Some(7)));
        assert!(!via.has_magic_cookie());
        assert_eq!(Via::parse(b"SIP/2.0/UDP h;received=2001:db8::1").unwrap().received(), "2001:db8::1".parse().ok());
        for bad in [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ;branch=x",
            "SIP/3.0/UDP h",
            "SIP/2.0/ h",
            "SIP/2.0/UDP h:0x1",
            "SIP/2.0/UDP [::1 : 5060",
            "HTTP/2.0/UDP h",
        ] {
            assert!(Via::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
