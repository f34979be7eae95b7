//! The grammar of digest challenges and credentials (RFC 3261, section 22; RFC 7616, section 3; RFC 8760).
//! The arithmetic is in the engine.

use std::borrow::Cow;

use crate::GrammarError;
use crate::grammar::{comma_list, hex_digit, is_all_token, quote, trim, unquote};
use crate::limits::PARAMS_MAX;

/// The hash of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `MD5`, also what an absent algorithm means.
    Md5,
    /// `MD5-sess`
    Md5Sess,
    /// `SHA-256`
    Sha256,
    /// `SHA-256-sess`
    Sha256Sess,
}

impl Algorithm {
    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Md5Sess => "MD5-sess",
            Self::Sha256 => "SHA-256",
            Self::Sha256Sess => "SHA-256-sess",
        }
    }

    /// Whether HA1 covers nonce and cnonce.
    #[must_use]
    pub const fn is_session(self) -> bool {
        matches!(self, Self::Md5Sess | Self::Sha256Sess)
    }

    fn parse(token: &[u8]) -> Option<Self> {
        [Self::Md5, Self::Md5Sess, Self::Sha256, Self::Sha256Sess]
            .into_iter()
            .find(|known| known.as_str().as_bytes().eq_ignore_ascii_case(token))
    }
}

/// The quality of protection of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Qop {
    /// None given (RFC 2069).
    None,
    /// `auth`
    Auth,
    /// `auth-int`: the body is covered.
    AuthInt,
}

/// A challenge of WWW-Authenticate or Proxy-Authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// The realm without quotes.
    pub realm: Cow<'a, [u8]>,
    /// The nonce without quotes.
    pub nonce: Cow<'a, [u8]>,
    /// To be sent back as it is.
    pub opaque: Option<Cow<'a, [u8]>>,
    /// The hash.
    pub algorithm: Algorithm,
    /// `auth` is offered.
    pub auth: bool,
    /// `auth-int` is offered.
    pub auth_int: bool,
    /// The nonce was too old, the password right.
    pub stale: bool,
}

impl<'a> Challenge<'a> {
    /// Reads one header value. A scheme other than Digest or an unknown hash is an error: the caller goes on to
    /// the next challenge.
    pub fn parse(value: &'a [u8]) -> Result<Self, GrammarError> {
        let params = AuthParams::parse(value)?;
        let algorithm = params.algorithm()?;
        let qop = params.text(b"qop");
        let offers = |wanted: &[u8]| {
            qop.as_deref().is_some_and(|list| comma_list(list).any(|token| token.eq_ignore_ascii_case(wanted)))
        };
        Ok(Self {
            realm: params.text(b"realm").ok_or(GrammarError::Digest)?,
            nonce: params.text(b"nonce").ok_or(GrammarError::Digest)?,
            opaque: params.text(b"opaque"),
            algorithm,
            auth: offers(b"auth"),
            auth_int: offers(b"auth-int"),
            stale: params.text(b"stale").is_some_and(|flag| flag.eq_ignore_ascii_case(b"true")),
        })
    }

    /// The header value.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut value = b"Digest realm=".to_vec();
        value.extend(quote(&self.realm));
        value.extend_from_slice(b", nonce=");
        value.extend(quote(&self.nonce));
        if let Some(opaque) = &self.opaque {
            value.extend_from_slice(b", opaque=");
            value.extend(quote(opaque));
        }
        value.extend_from_slice(b", algorithm=");
        value.extend_from_slice(self.algorithm.as_str().as_bytes());
        match (self.auth, self.auth_int) {
            (true, true) => value.extend_from_slice(b", qop=\"auth,auth-int\""),
            (true, false) => value.extend_from_slice(b", qop=\"auth\""),
            (false, true) => value.extend_from_slice(b", qop=\"auth-int\""),
            (false, false) => {}
        }
        if self.stale {
            value.extend_from_slice(b", stale=true");
        }
        value
    }
}

/// Credentials of Authorization or Proxy-Authorization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Who it claims to be.
    pub username: Cow<'a, [u8]>,
    /// The realm they are for.
    pub realm: Cow<'a, [u8]>,
    /// The nonce of the challenge.
    pub nonce: Cow<'a, [u8]>,
    /// The URI that was hashed, exactly as sent.
    pub uri: Cow<'a, [u8]>,
    /// The answer, hexadecimal.
    pub response: Cow<'a, [u8]>,
    /// The hash.
    pub algorithm: Algorithm,
    /// The client's nonce.
    pub cnonce: Option<Cow<'a, [u8]>>,
    /// The challenge's opaque.
    pub opaque: Option<Cow<'a, [u8]>>,
    /// The quality of protection.
    pub qop: Qop,
    /// The nonce count as sent, eight hexadecimal digits.
    pub nc: Option<Cow<'a, [u8]>>,
}

impl<'a> Credentials<'a> {
    /// Reads one header value.
    pub fn parse(value: &'a [u8]) -> Result<Self, GrammarError> {
        let params = AuthParams::parse(value)?;
        let must = |name: &[u8]| params.text(name).ok_or(GrammarError::Digest);
        let qop = match params.text(b"qop") {
            None => Qop::None,
            Some(token) if token.eq_ignore_ascii_case(b"auth") => Qop::Auth,
            Some(token) if token.eq_ignore_ascii_case(b"auth-int") => Qop::AuthInt,
            Some(_) => return Err(GrammarError::Digest),
        };
        let credentials = Self {
            username: must(b"username")?,
            realm: must(b"realm")?,
            nonce: must(b"nonce")?,
            uri: must(b"uri")?,
            response: must(b"response")?,
            algorithm: params.algorithm()?,
            cnonce: params.text(b"cnonce"),
            opaque: params.text(b"opaque"),
            qop,
            nc: params.text(b"nc"),
        };
        let counted = credentials.nc_value().is_some() && credentials.cnonce.is_some();
        let session = credentials.algorithm.is_session() && credentials.cnonce.is_none();
        if session || (qop != Qop::None && !counted) {
            return Err(GrammarError::Digest);
        }
        Ok(credentials)
    }

    /// The nonce count: eight hexadecimal digits, not zero.
    #[must_use]
    pub fn nc_value(&self) -> Option<u32> {
        let digits = self.nc.as_deref().filter(|digits| digits.len() == 8)?;
        let mut value = 0u32;
        for digit in digits {
            value = value.checked_mul(16)?.checked_add(u32::from(hex_digit(*digit)?))?;
        }
        (value > 0).then_some(value)
    }

    /// The header value.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut value = b"Digest username=".to_vec();
        value.extend(quote(&self.username));
        for (name, text) in
            [(" realm=", &self.realm), (" nonce=", &self.nonce), (" uri=", &self.uri), (" response=", &self.response)]
        {
            value.push(b',');
            value.extend_from_slice(name.as_bytes());
            value.extend(quote(text));
        }
        value.extend_from_slice(b", algorithm=");
        value.extend_from_slice(self.algorithm.as_str().as_bytes());
        if let Some(cnonce) = &self.cnonce {
            value.extend_from_slice(b", cnonce=");
            value.extend(quote(cnonce));
        }
        if let Some(opaque) = &self.opaque {
            value.extend_from_slice(b", opaque=");
            value.extend(quote(opaque));
        }
        match self.qop {
            Qop::None => {}
            Qop::Auth => value.extend_from_slice(b", qop=auth"),
            Qop::AuthInt => value.extend_from_slice(b", qop=auth-int"),
        }
        if let Some(nc) = &self.nc {
            value.extend_from_slice(b", nc=");
            value.extend_from_slice(nc);
        }
        value
    }
}

/// `Digest name=value, …` taken apart.
struct AuthParams<'a> {
    params: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> AuthParams<'a> {
    fn parse(value: &'a [u8]) -> Result<Self, GrammarError> {
        let value = trim(value);
        let scheme_end = value.iter().position(|o| matches!(o, b' ' | b'\t')).ok_or(GrammarError::Digest)?;
        let (scheme, rest) = value.split_at(scheme_end);
        if !scheme.eq_ignore_ascii_case(b"Digest") {
            return Err(GrammarError::Digest);
        }
        let mut params: Vec<(&[u8], &[u8])> = Vec::with_capacity(12);
        for part in comma_list(rest) {
            let equals = part.iter().position(|o| *o == b'=').ok_or(GrammarError::Digest)?;
            let (name, value) = part.split_at(equals);
            let (name, value) = (trim(name), trim(value.get(1..).unwrap_or_default()));
            // A repeated parameter would let two readers see two different credentials.
            let repeated = params.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
            if !is_all_token(name) || !value_is_whole(value) || repeated || params.len() >= PARAMS_MAX {
                return Err(GrammarError::Digest);
            }
            params.push((name, value));
        }
        Ok(Self { params })
    }

    fn text(&self, name: &[u8]) -> Option<Cow<'a, [u8]>> {
        self.params.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| unquote(value))
    }

    fn algorithm(&self) -> Result<Algorithm, GrammarError> {
        match self.text(b"algorithm") {
            None => Ok(Algorithm::Md5),
            Some(token) => Algorithm::parse(&token).ok_or(GrammarError::Digest),
        }
    }
}

/// One quoted string that ends at the end, or text without quotes and commas.
fn value_is_whole(value: &[u8]) -> bool {
    let Some(inner) = value.strip_prefix(b"\"") else { return !value.iter().any(|o| matches!(o, b'"' | b',')) };
    let Some(inner) = inner.strip_suffix(b"\"") else { return false };
    let mut escaped = false;
    for &octet in inner {
        if !escaped && octet == b'"' {
            return false;
        }
        escaped = !escaped && octet == b'\\';
    }
    !escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_challenge_and_writes_it_back() {
        let raw = br#"Digest realm="a\"b, c", nonce="n==", algorithm=SHA-256, qop="auth,auth-int", stale=TRUE"#;
        let challenge = Challenge::parse(raw).unwrap();
        assert_eq!(&*challenge.realm, b"a\"b, c");
        assert_eq!(challenge.algorithm, Algorithm::Sha256);
        assert!(challenge.auth && challenge.auth_int && challenge.stale);
        assert_eq!(Challenge::parse(&challenge.write()).unwrap(), challenge);
    }

    #[test]
    fn reads_credentials_of_phones() {
        let raw = br#"Digest username="bob", realm="r", nonce="n", uri="sip:r;transport=tcp", response="00ff", qop="auth",nc=0000010A , cnonce="c""#;
        let credentials = Credentials::parse(raw).unwrap();
        assert_eq!(credentials.nc_value(), Some(0x10a));
        assert_eq!(&*credentials.uri, b"sip:r;transport=tcp");
        assert_eq!(credentials.qop, Qop::Auth);
        assert_eq!(Credentials::parse(&credentials.write()).unwrap(), credentials);
    }

    #[test]
    fn refuses_ambiguous_ones() {
        let head = "Digest username=\"b\", realm=\"r\", nonce=\"n\", uri=\"u\", response=\"x\"";
        assert!(Credentials::parse(head.as_bytes()).is_ok());
        for tail in [
            ", qop=auth, cnonce=\"c\"",
            ", qop=auth, nc=1, cnonce=\"c\"",
            ", qop=auth, nc=0000000g, cnonce=\"c\"",
            ", qop=auth, nc=00000000, cnonce=\"c\"",
            ", username=\"z\"",
            ", qop=huh",
            ", algorithm=SHA-1",
            ", opaque=\"o",
            ", algorithm=MD5-sess",
            ", x",
        ] {
            assert!(Credentials::parse(format!("{head}{tail}").as_bytes()).is_err(), "{tail}");
        }
        assert!(Credentials::parse(b"Basic abc").is_err());
        assert!(Challenge::parse(b"Digest realm=\"r\", nonce=\"n\", algorithm=AKAv1-MD5").is_err());
    }
}
