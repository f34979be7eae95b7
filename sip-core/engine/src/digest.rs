//! Digest authentication (RFC 3261, section 22; RFC 7616; RFC 8760): the arithmetic of both sides.
//!
//! Nonces are stateless until they are used rightly: a serial, an instant and a keyed hash. Only a verified nonce
//! takes a place in the table that holds its nonce counts, so a flood of challenges costs no memory. When the table
//! is full, the oldest nonce leaves and all nonces up to it count as stale: nothing can be replayed through a gap.
//!
//! A nonce is good in the shard that made it (give each shard a key of its own): another shard answers `stale`,
//! and the client repeats with a fresh one, without asking its user.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use md5::Md5;
use model::secret::Secret;
use sha2::{Digest as _, Sha256};
use sip_message::digest::{Algorithm, Challenge, Credentials, Qop};
use sip_message::{GrammarError, HeaderName, Message};
use subtle::ConstantTimeEq as _;

/// How the server challenges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestConfig {
    /// How long a nonce is good. Too low: clients are challenged again and again; too high: a stolen nonce is
    /// good for longer.
    pub nonce_lifetime: Duration,
    /// Most nonces whose counts are kept. Too low: busy clients are told `stale` early; too high: memory, about
    /// 40 octets each.
    pub nonces_max: usize,
    /// Offer SHA-256, before MD5.
    pub sha256: bool,
    /// Offer MD5. Most phones know nothing else.
    pub md5: bool,
    /// Accept answers without `qop`, once for each nonce (RFC 2069).
    pub without_qop: bool,
}

impl Default for DigestConfig {
    fn default() -> Self {
        Self {
            nonce_lifetime: Duration::from_secs(300),
            nonces_max: 65_536,
            sha256: true,
            md5: true,
            without_qop: true,
        }
    }
}

/// The outcome of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The sender knows the password, and the request is fresh.
    Accepted,
    /// The password is right, the nonce too old, foreign or used up: challenge again with `stale`.
    Stale,
    /// Wrong password, unknown user or another realm: challenge again, or refuse.
    Rejected,
    /// Credentials that this server never asked for, such as an algorithm that it does not offer.
    Unacceptable,
}

/// What is verified.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The credentials, from [`find_credentials`].
    pub credentials: &'a Credentials<'a>,
    /// The realm that they must be for.
    pub realm: &'a [u8],
    /// The method of the request.
    pub method: &'a [u8],
    /// The body of the request, for `auth-int`.
    pub body: &'a [u8],
    /// HA1 of the user for `credentials.algorithm`, as octets (16 for MD5, 32 for SHA-256); `None` when there is no
    /// such user.
    pub ha1: Option<&'a [u8]>,
}

/// The server's side, one for each shard.
pub struct DigestServer {
    config: DigestConfig,
    key: Secret<[u8; 32]>,
    epoch: Instant,
    serial: u64,
    windows: BTreeMap<u64, Window>,
    /// Nonces up to this serial that have no window are stale.
    floor: u64,
}

/// The counts seen of one nonce: the highest, and which of the 64 up to it.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    highest: u32,
    seen: u64,
}

impl Window {
    /// Marks the count; `false` when it was seen, or is too far behind to tell.
    fn take(&mut self, count: u32) -> bool {
        if count > self.highest {
            let ahead = count.saturating_sub(self.highest);
            self.seen = self.seen.checked_shl(ahead).unwrap_or_default() | 1;
            self.highest = count;
            return true;
        }
        let behind = self.highest.saturating_sub(count);
        let Some(bit) = 1u64.checked_shl(behind) else { return false };
        let fresh = self.seen & bit == 0;
        self.seen |= bit;
        fresh
    }
}

/// Octets of a nonce: serial, milliseconds since the epoch, keyed hash.
const NONCE_LEN: usize = 32;

impl DigestServer {
    /// `key` is secret and fresh with each start; `epoch` is any instant before the first challenge.
    #[must_use]
    pub fn new(config: DigestConfig, key: [u8; 32], epoch: Instant) -> Self {
        Self { config, key: Secret::new(key), epoch, serial: 0, windows: BTreeMap::new(), floor: 0 }
    }

    /// The values of WWW-Authenticate or Proxy-Authenticate, one field each, strongest first (RFC 8760).
    pub fn challenge(&mut self, now: Instant, realm: &[u8], stale: bool) -> Vec<Vec<u8>> {
        self.serial = self.serial.wrapping_add(1);
        let nonce = self.nonce(self.serial, self.millis(now), realm);
        let offer = |algorithm| {
            Challenge {
                realm: realm.into(),
                nonce: nonce.as_bytes().into(),
                opaque: None,
                algorithm,
                auth: true,
                auth_int: false,
                stale,
            }
            .write()
        };
        let sha256 = self.config.sha256.then(|| offer(Algorithm::Sha256));
        let md5 = self.config.md5.then(|| offer(Algorithm::Md5));
        sha256.into_iter().chain(md5).collect()
    }

    /// Verifies credentials. The hash is computed also for unknown users, so that they take as long as others.
    pub fn verify(&mut self, now: Instant, attempt: &Attempt<'_>) -> Verdict {
        let credentials = attempt.credentials;
        let (offered, length) = match credentials.algorithm {
            Algorithm::Md5 | Algorithm::Md5Sess => (self.config.md5, 16),
            Algorithm::Sha256 | Algorithm::Sha256Sess => (self.config.sha256, 32),
        };
        if !offered || (credentials.qop == Qop::None && !self.config.without_qop) {
            return Verdict::Unacceptable;
        }
        let nobody = [0u8; 32];
        let known = attempt.ha1.filter(|ha1| ha1.len() == length);
        let ha1 = known.unwrap_or_else(|| nobody.get(..length).unwrap_or_default());
        let expected = response(credentials, ha1, attempt.method, attempt.body);
        let given = credentials.response.to_ascii_lowercase();
        let matches = bool::from(expected.as_bytes().ct_eq(&given));
        if !matches || known.is_none() || *credentials.realm != *attempt.realm {
            return Verdict::Rejected;
        }
        // An answer without a count is good once.
        let count = if credentials.qop == Qop::None { Some(1) } else { credentials.nc_value() };
        match count {
            Some(count) if self.take(now, &credentials.nonce, attempt.realm, count) => Verdict::Accepted,
            _ => Verdict::Stale,
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    fn nonce(&self, serial: u64, issued: u64, realm: &[u8]) -> String {
        let (serial, issued) = (serial.to_be_bytes(), issued.to_be_bytes());
        let inner = Sha256::new()
            .chain_update(self.key.expose())
            .chain_update(serial)
            .chain_update(issued)
            .chain_update(realm)
            .finalize();
        let outer = Sha256::new().chain_update(self.key.expose()).chain_update(inner).finalize();
        let mut nonce = Vec::with_capacity(NONCE_LEN);
        nonce.extend_from_slice(&serial);
        nonce.extend_from_slice(&issued);
        nonce.extend_from_slice(outer.get(..16).unwrap_or_default());
        hex::encode(nonce)
    }

    /// Whether the nonce is ours, young, and the count new.
    fn take(&mut self, now: Instant, nonce: &[u8], realm: &[u8], count: u32) -> bool {
        let mut octets = [0u8; NONCE_LEN];
        if hex::decode_to_slice(nonce, &mut octets).is_err() {
            return false;
        }
        let word =
            |from: usize| octets.iter().skip(from).take(8).fold(0u64, |word, octet| word << 8 | u64::from(*octet));
        let (serial, issued) = (word(0), word(8));
        if !bool::from(self.nonce(serial, issued, realm).as_bytes().ct_eq(nonce)) {
            return false;
        }
        let age = Duration::from_millis(self.millis(now).saturating_sub(issued));
        if age > self.config.nonce_lifetime {
            self.windows.remove(&serial);
            self.floor = self.floor.max(self.oldest_gone(serial));
            return false;
        }
        if let Some(window) = self.windows.get_mut(&serial) {
            return window.take(count);
        }
        if serial <= self.floor {
            return false;
        }
        self.windows.insert(serial, Window::default());
        while self.windows.len() > self.config.nonces_max.max(1) {
            if let Some((oldest, _)) = self.windows.pop_first() {
                self.floor = self.floor.max(oldest);
            }
        }
        self.windows.get_mut(&serial).is_some_and(|window| window.take(count))
    }

    /// An expired nonce can't come back, and neither can those made before it.
    fn oldest_gone(&mut self, serial: u64) -> u64 {
        let younger = self.windows.split_off(&serial);
        self.windows = younger;
        serial
    }
}

impl std::fmt::Debug for DigestServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DigestServer").field("nonces", &self.windows.len()).finish_non_exhaustive()
    }
}

/// The credentials for a realm among the fields of `name` (Authorization or Proxy-Authorization); other realms and
/// other schemes are passed over. `Err` when there are Digest credentials that can't be read.
pub fn find_credentials<'a>(
    msg: &'a Message,
    name: HeaderName,
    realm: &[u8],
) -> Result<Option<Credentials<'a>>, GrammarError> {
    let mut broken = false;
    for value in msg.headers(name) {
        match Credentials::parse(value) {
            Ok(credentials) if *credentials.realm == *realm => return Ok(Some(credentials)),
            Ok(_) => {}
            Err(_) => broken |= value.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Digest")),
        }
    }
    if broken { Err(GrammarError::Digest) } else { Ok(None) }
}

/// HA1 of a user, as octets (RFC 7616, section 3.4.2, without the session part).
#[must_use]
pub fn ha1(algorithm: Algorithm, username: &[u8], realm: &[u8], password: &Secret<String>) -> Vec<u8> {
    hash(algorithm, &[username, realm, password.expose().as_bytes()])
}

/// Hash of the parts with colons between them.
fn hash(algorithm: Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    fn over<H: sha2::Digest>(parts: &[&[u8]]) -> Vec<u8> {
        let mut hash = H::new();
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                hash.update(b":");
            }
            hash.update(part);
        }
        hash.finalize().to_vec()
    }
    match algorithm {
        Algorithm::Md5 | Algorithm::Md5Sess => over::<Md5>(parts),
        Algorithm::Sha256 | Algorithm::Sha256Sess => over::<Sha256>(parts),
    }
}

/// The answer that these credentials should carry (RFC 7616, section 3.4.1); the URI is hashed exactly as sent.
fn response(credentials: &Credentials<'_>, ha1: &[u8], method: &[u8], body: &[u8]) -> String {
    let algorithm = credentials.algorithm;
    let hashed = |parts: &[&[u8]]| hex::encode(hash(algorithm, parts));
    let cnonce = credentials.cnonce.as_deref().unwrap_or_default();
    let mut a1 = hex::encode(ha1);
    if algorithm.is_session() {
        a1 = hashed(&[a1.as_bytes(), &credentials.nonce, cnonce]);
    }
    let a2 = match credentials.qop {
        Qop::AuthInt => hashed(&[method, &credentials.uri, hashed(&[body]).as_bytes()]),
        Qop::None | Qop::Auth => hashed(&[method, &credentials.uri]),
    };
    let qop: &[u8] = match credentials.qop {
        Qop::None => return hashed(&[a1.as_bytes(), &credentials.nonce, a2.as_bytes()]),
        Qop::Auth => b"auth",
        Qop::AuthInt => b"auth-int",
    };
    let nc = credentials.nc.as_deref().unwrap_or_default();
    hashed(&[a1.as_bytes(), &credentials.nonce, nc, cnonce, qop, a2.as_bytes()])
}

/// The client's side: one user at one server.
#[derive(Debug, Clone)]
pub struct DigestClient {
    username: String,
    password: Secret<String>,
    nonce: Vec<u8>,
    count: u32,
}

impl DigestClient {
    /// A user and its password.
    #[must_use]
    pub fn new(username: impl Into<String>, password: Secret<String>) -> Self {
        Self { username: username.into(), password, nonce: Vec::new(), count: 0 }
    }

    /// Answers the first challenge of a 401 or 407 that it can: the header to add to the repeated request. `method`,
    /// `uri` and `body` are those of the request; `cnonce` is fresh.
    ///
    /// The second 401 in a row means a wrong password unless it says `stale`: see [`is_stale`].
    pub fn answer(
        &mut self,
        refusal: &Message,
        method: &[u8],
        uri: &[u8],
        body: &[u8],
        cnonce: &str,
    ) -> Option<(HeaderName, Vec<u8>)> {
        let (asked, answer) = headers_of(refusal.status())?;
        let challenge = refusal.headers(asked).find_map(|value| Challenge::parse(value).ok())?;
        if self.nonce != *challenge.nonce {
            self.nonce = challenge.nonce.to_vec();
            self.count = 0;
        }
        self.count = self.count.checked_add(1)?;
        let qop = match (challenge.auth, challenge.auth_int) {
            (true, _) => Qop::Auth,
            (false, true) => Qop::AuthInt,
            (false, false) => Qop::None,
        };
        let counted = qop != Qop::None;
        let mut credentials = Credentials {
            username: self.username.as_bytes().into(),
            realm: challenge.realm.clone(),
            nonce: challenge.nonce.clone(),
            uri: uri.into(),
            response: b""[..].into(),
            algorithm: challenge.algorithm,
            cnonce: (counted || challenge.algorithm.is_session()).then(|| cnonce.as_bytes().into()),
            opaque: challenge.opaque.clone(),
            qop,
            nc: counted.then(|| format!("{:08x}", self.count).into_bytes().into()),
        };
        let ha1 = ha1(challenge.algorithm, self.username.as_bytes(), &challenge.realm, &self.password);
        credentials.response = response(&credentials, &ha1, method, body).into_bytes().into();
        Some((answer, credentials.write()))
    }
}

/// Whether a 401 or 407 says that only the nonce was too old.
#[must_use]
pub fn is_stale(refusal: &Message) -> bool {
    headers_of(refusal.status())
        .is_some_and(|(asked, _)| refusal.headers(asked).any(|v| Challenge::parse(v).is_ok_and(|c| c.stale)))
}

const fn headers_of(status: u16) -> Option<(HeaderName, HeaderName)> {
    match status {
        401 => Some((HeaderName::WwwAuthenticate, HeaderName::Authorization)),
        407 => Some((HeaderName::ProxyAuthenticate, HeaderName::ProxyAuthorization)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn agrees_with_the_examples_of_the_standards() {
        // RFC 7616, section 3.9.1.
        for (algorithm, expected) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let value = format!(
                "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", \
                 algorithm={algorithm}, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
                 cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, response=\"{expected}\""
            );
            let credentials = Credentials::parse(value.as_bytes()).unwrap();
            let ha1 = ha1(credentials.algorithm, b"Mufasa", b"http-auth@example.org", &secret("Circle of Life"));
            assert_eq!(response(&credentials, &ha1, b"GET", b""), expected);
        }
        // RFC 2617, section 3.5, and RFC 2069 without qop over the same values.
        let value = "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", \
            nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", uri=\"/dir/index.html\", qop=auth, nc=00000001, \
            cnonce=\"0a4f113b\", response=\"6629fae49393a05397450978507c4ef1\"";
        let credentials = Credentials::parse(value.as_bytes()).unwrap();
        let ha1 = ha1(Algorithm::Md5, b"Mufasa", b"testrealm@host.com", &secret("Circle Of Life"));
        assert_eq!(response(&credentials, &ha1, b"GET", b"").as_bytes(), &*credentials.response);
    }

    const REALM: &[u8] = b"example.com";

    struct Side {
        server: DigestServer,
        client: DigestClient,
        now: Instant,
    }

    impl Side {
        fn new(config: DigestConfig) -> Self {
            let now = crate::transaction::test_start();
            Self {
                server: DigestServer::new(config, [7; 32], now),
                client: DigestClient::new("bob", secret("pass")),
                now,
            }
        }

        fn refusal(&mut self, stale: bool) -> Message {
            let mut text = b"SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP a\r\nFrom: <sip:a@b>;tag=1\r\n\
                To: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\n"
                .to_vec();
            for value in self.server.challenge(self.now, REALM, stale) {
                text.extend_from_slice(b"WWW-Authenticate: ");
                text.extend_from_slice(&value);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"\r\n");
            Message::parse_datagram(Bytes::from(text)).unwrap()
        }

        fn answer(&mut self, refusal: &Message) -> Vec<u8> {
            self.client.answer(refusal, b"REGISTER", b"sip:example.com", b"", "cn").unwrap().1
        }

        fn verify(&mut self, value: &[u8], password: &str) -> Verdict {
            let credentials = Credentials::parse(value).unwrap();
            let ha1 = ha1(credentials.algorithm, b"bob", REALM, &secret(password));
            let attempt =
                Attempt { credentials: &credentials, realm: REALM, method: b"REGISTER", body: b"", ha1: Some(&ha1) };
            self.server.verify(self.now, &attempt)
        }
    }

    #[test]
    fn a_nonce_serves_many_requests_but_none_twice() {
        for sha256 in [true, false] {
            let mut side = Side::new(DigestConfig { sha256, ..DigestConfig::default() });
            let refusal = side.refusal(false);
            let mut last = Vec::new();
            // Beyond nc=0a and nc=100: the digits are hexadecimal.
            for _ in 0..300 {
                last = side.answer(&refusal);
                assert_eq!(side.verify(&last, "pass"), Verdict::Accepted);
            }
            assert!(String::from_utf8(last.clone()).unwrap().contains("nc=0000012c"));
            assert_eq!(side.verify(&last, "pass"), Verdict::Stale, "replayed");
            let next = side.answer(&refusal);
            assert_eq!(side.verify(&next, "other"), Verdict::Rejected);
        }
    }

    #[test]
    fn counts_may_arrive_out_of_order_within_the_window() {
        let mut side = Side::new(DigestConfig::default());
        let refusal = side.refusal(false);
        let mut answers: Vec<_> = (0..70).map(|_| side.answer(&refusal)).collect();
        let newest = answers.pop().unwrap();
        assert_eq!(side.verify(&newest, "pass"), Verdict::Accepted);
        let verdicts: Vec<_> = answers.iter().rev().map(|answer| side.verify(answer, "pass")).collect();
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Accepted).count(), 63);
        assert_eq!(verdicts.last(), Some(&Verdict::Stale));
    }

    #[test]
    fn old_foreign_and_forgotten_nonces_are_stale() {
        let mut side = Side::new(DigestConfig { nonces_max: 2, ..DigestConfig::default() });
        let first = side.refusal(false);
        let first_answer = side.answer(&first);
        assert_eq!(side.verify(&first_answer, "pass"), Verdict::Accepted);
        for _ in 0..2 {
            let refusal = side.refusal(false);
            let answer = side.answer(&refusal);
            assert_eq!(side.verify(&answer, "pass"), Verdict::Accepted);
        }
        assert_eq!(side.verify(&first_answer, "pass"), Verdict::Stale, "pushed out of the table, not forgiven");

        let refusal = side.refusal(false);
        let answer = side.answer(&refusal);
        side.now += Duration::from_secs(301);
        assert_eq!(side.verify(&answer, "pass"), Verdict::Stale);
        let refusal = side.refusal(true);
        assert!(is_stale(&refusal));
        let answer = side.answer(&refusal);
        assert_eq!(side.verify(&answer, "pass"), Verdict::Accepted);

        let mut other = Side::new(DigestConfig::default());
        other.server = DigestServer::new(DigestConfig::default(), [8; 32], other.now);
        assert_eq!(other.verify(&answer, "pass"), Verdict::Stale);
    }

    #[test]
    fn sessions_bodies_and_absent_qop_are_understood() {
        let mut side = Side::new(DigestConfig::default());
        let refusal = side.refusal(false);
        let nonce = Challenge::parse(refusal.header(HeaderName::WwwAuthenticate).unwrap()).unwrap().nonce;
        let mut check = |qop, nc: Option<&'static [u8]>, algorithm, body: &[u8], sent: &[u8], expected| {
            let mut credentials = Credentials {
                username: b"bob"[..].into(),
                realm: REALM.into(),
                nonce: nonce.clone(),
                uri: b"sip:example.com"[..].into(),
                response: b""[..].into(),
                algorithm,
                cnonce: Some(b"cn"[..].into()),
                opaque: None,
                qop,
                nc: nc.map(Into::into),
            };
            let ha1 = ha1(algorithm, b"bob", REALM, &secret("pass"));
            credentials.response = response(&credentials, &ha1, b"INVITE", body).into_bytes().into();
            let attempt =
                Attempt { credentials: &credentials, realm: REALM, method: b"INVITE", body: sent, ha1: Some(&ha1) };
            assert_eq!(side.server.verify(side.now, &attempt), expected, "{qop:?} {algorithm:?}");
        };
        check(Qop::None, None, Algorithm::Md5, b"", b"", Verdict::Accepted);
        check(Qop::None, None, Algorithm::Md5, b"", b"", Verdict::Stale);
        check(Qop::Auth, Some(b"00000002"), Algorithm::Md5Sess, b"", b"", Verdict::Accepted);
        check(Qop::AuthInt, Some(b"00000003"), Algorithm::Sha256Sess, b"sdp", b"sdp", Verdict::Accepted);
        check(Qop::AuthInt, Some(b"00000004"), Algorithm::Sha256, b"sdp", b"spd", Verdict::Rejected);
    }

    #[test]
    fn an_unknown_user_is_rejected() {
        let mut side = Side::new(DigestConfig::default());
        let refusal = side.refusal(false);
        let value = side.answer(&refusal);
        let credentials = Credentials::parse(&value).unwrap();
        let attempt = Attempt { credentials: &credentials, realm: REALM, method: b"REGISTER", body: b"", ha1: None };
        assert_eq!(side.server.verify(side.now, &attempt), Verdict::Rejected);
    }

    proptest::proptest! {
        #[test]
        fn no_count_is_taken_twice(counts in proptest::collection::vec(1u32..200, 0..400)) {
            let mut window = Window::default();
            let mut taken = std::collections::BTreeSet::new();
            for count in counts {
                let highest = taken.last().copied().unwrap_or(0);
                let expected = !taken.contains(&count) && count.saturating_add(64) > highest;
                proptest::prop_assert_eq!(window.take(count), expected);
                if expected {
                    taken.insert(count);
                }
            }
        }
    }
}
