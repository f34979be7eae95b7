//! Who sent a request: digest authentication of subscribers (RFC 3261, section 22; RFC 8760) against the directory.

use std::sync::Arc;

use model::secret::Secret;
use sip_engine::digest::{Attempt, Verdict, find_credentials, ha1};
use sip_message::digest::Algorithm;
use sip_message::{HeaderName, Message, Method, Scheme, Uri};

use crate::directory::{Directory, Domain, Listed, Subscriber};
use crate::io::{Io, Refusal};

/// Which pair of headers is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// 401: the registrar is a server.
    Server,
    /// 407: for calls we stand between.
    Proxy,
}

impl Role {
    const fn parts(self) -> (u16, HeaderName, HeaderName) {
        match self {
            Self::Server => (401, HeaderName::WwwAuthenticate, HeaderName::Authorization),
            Self::Proxy => (407, HeaderName::ProxyAuthenticate, HeaderName::ProxyAuthorization),
        }
    }
}

/// The subscriber of `domain` that proves to have sent the request. An unknown user and a wrong password are refused
/// alike, and take as long.
pub(crate) fn authenticate(
    io: &mut Io,
    directory: &Directory,
    domain: &Domain,
    request: &Message,
    role: Role,
) -> Result<Arc<Listed<Subscriber>>, Refusal> {
    let (status, asks, answers) = role.parts();
    let realm = domain.name.as_str().as_bytes();
    let credentials = match find_credentials(request, answers, realm) {
        Ok(Some(credentials)) => credentials,
        Ok(None) => return Err(challenge(io, realm, status, asks, false)),
        Err(_) => return Err(Refusal::new(400)),
    };
    if !signs(io, domain, &credentials.uri, request) {
        return Err(Refusal::new(400));
    }
    let user = std::str::from_utf8(&credentials.username).ok();
    let subscriber = user.and_then(|user| directory.subscriber_by_name(domain.id, user)).cloned();
    let ha1 = subscriber.as_ref().map(|s| match credentials.algorithm {
        Algorithm::Md5 | Algorithm::Md5Sess => &s.ha1_md5.expose()[..],
        Algorithm::Sha256 | Algorithm::Sha256Sess => &s.ha1_sha256.expose()[..],
    });
    let attempt =
        Attempt { credentials: &credentials, realm, method: request.method().as_bytes(), body: request.body(), ha1 };
    match (io.digest.verify(io.now.mono, &attempt), subscriber) {
        (Verdict::Accepted, Some(subscriber)) => Ok(subscriber),
        (Verdict::Stale, _) => Err(challenge(io, realm, status, asks, true)),
        (Verdict::Unacceptable, _) => Err(challenge(io, realm, status, asks, false)),
        (Verdict::Accepted | Verdict::Rejected, _) => {
            io.stats.authentications_failed += 1;
            Err(Refusal::new(403))
        }
    }
}

/// Whether the URI that credentials were made for is the one that the request asks for (RFC 7616, section 3.4.6): whoever
/// gets hold of a signed request must not send it elsewhere. What decides where a call goes is the user and the host;
/// phones are known to leave out or to add port and parameters. A URI that names only the server, as some write it
/// (sipp does), is bound to no callee by its sender, and we can't bind it afterwards.
fn signs(io: &Io, domain: &Domain, signed: &[u8], request: &Message) -> bool {
    if signed == request.request_uri() {
        return true;
    }
    let (Ok(signed), Ok(asked)) = (Uri::parse(signed), request.uri()) else { return false };
    if signed.equivalent(&asked) {
        return true;
    }
    let sip = |uri: &Uri<'_>| matches!(uri.scheme, Scheme::Sip | Scheme::Sips);
    if !sip(&signed) {
        return false;
    }
    let ours = signed.host.eq_ignore_ascii_case(domain.name.as_str().as_bytes())
        || io.shared.listeners.iter().any(|listener| signed.ip() == Some(listener.ip()));
    if ours && (signed.user.is_none() || *request.method() == Method::Register) {
        return true;
    }
    sip(&asked) && signed.host.eq_ignore_ascii_case(asked.host) && signed.user_text() == asked.user_text()
}

fn challenge(io: &mut Io, realm: &[u8], status: u16, name: HeaderName, stale: bool) -> Refusal {
    io.digest
        .challenge(io.now.mono, realm, stale)
        .into_iter()
        .fold(Refusal::new(status), |refusal, value| refusal.with(name, value))
}

/// HA1 of a subscriber for MD5 and SHA-256, as the directory holds it.
#[must_use]
pub fn ha1_pair(username: &str, realm: &str, password: &Secret<String>) -> ([u8; 16], [u8; 32]) {
    let hash = |algorithm| ha1(algorithm, username.as_bytes(), realm.as_bytes(), password);
    let mut pair = ([0; 16], [0; 32]);
    for (to, from) in pair.0.iter_mut().zip(hash(Algorithm::Md5)) {
        *to = from;
    }
    for (to, from) in pair.1.iter_mut().zip(hash(Algorithm::Sha256)) {
        *to = from;
    }
    pair
}
