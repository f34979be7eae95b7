//! A carrier of the simulation that wants REGISTER: a small registrar with real digest.

use std::time::Instant;

use model::secret::Secret;
use sip_engine::digest::{Attempt, DigestConfig, DigestServer, Verdict, find_credentials, ha1};
use sip_engine::{Peer, ServerKey};
use sip_message::{HeaderName, Message};

use super::Phone;

const REALM: &[u8] = b"carrier";

/// How a carrier takes a REGISTER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Asks for credentials, and grants at most so many seconds.
    Grant(u32),
    /// This status, with this Retry-After where it is not 0.
    Refuse(u16, u32),
    /// 423 with this Min-Expires for anything shorter; longer wishes are granted.
    Min(u32),
    /// No response.
    Silent,
}

/// The registrar's side of a carrier.
pub struct Registrar {
    pub rule: Rule,
    digest: DigestServer,
    password: Secret<String>,
    /// Every REGISTER that came, in order: seconds wished for, and whether it had credentials.
    pub seen: Vec<(u32, bool)>,
    /// User parts of the Contacts that are bound now.
    pub bound: Vec<String>,
    /// Algorithms of accepted credentials.
    pub algorithms: Vec<String>,
}

impl Registrar {
    pub fn new(rule: Rule, now: Instant, password: &str, config: DigestConfig) -> Self {
        Self {
            rule,
            digest: DigestServer::new(config, [9; 32], now),
            password: Secret::new(password.to_owned()),
            seen: Vec::new(),
            bound: Vec::new(),
            algorithms: Vec::new(),
        }
    }
}

impl Phone {
    pub(super) fn register_asked(&mut self, now: Instant, key: ServerKey, msg: &Message, peer: Peer) {
        let Some(registrar) = &mut self.registrar else { return self.reply(now, key, msg, peer, 501, "r") };
        let wished = msg.expires().unwrap();
        let credentials = find_credentials(msg, HeaderName::Authorization, REALM).unwrap();
        registrar.seen.push((wished, credentials.is_some()));
        let (mut status, mut headers) = (200, Vec::new());
        match registrar.rule {
            Rule::Silent => return,
            Rule::Refuse(refusal, retry_after) => {
                status = refusal;
                if retry_after > 0 {
                    headers.push((HeaderName::RetryAfter, format!("{retry_after} (later)").into_bytes()));
                }
            }
            Rule::Min(min) if wished > 0 && wished < min => {
                status = 423;
                headers.push((HeaderName::MinExpires, min.to_string().into_bytes()));
            }
            Rule::Min(_) | Rule::Grant(_) => {
                let verdict = credentials.as_ref().map(|credentials| {
                    let ha1 = ha1(credentials.algorithm, &credentials.username, REALM, &registrar.password);
                    let attempt =
                        Attempt { credentials, realm: REALM, method: b"REGISTER", body: b"", ha1: Some(&ha1) };
                    registrar.digest.verify(now, &attempt)
                });
                match verdict {
                    Some(Verdict::Accepted) => {
                        let name = format!("{:?}", credentials.as_ref().unwrap().algorithm);
                        registrar.algorithms.push(name);
                        let granted = match registrar.rule {
                            Rule::Grant(most) => wished.min(most),
                            _ => wished,
                        };
                        let contact = msg.contacts().next().unwrap().unwrap();
                        let sip_message::Contact::Addr(addr) = contact else { panic!("a contact") };
                        let user = addr.uri.user_text().unwrap();
                        registrar.bound.retain(|bound| *bound != user);
                        if granted > 0 {
                            registrar.bound.push(user);
                            let raw = String::from_utf8(addr.uri.raw.to_vec()).unwrap();
                            headers.push((HeaderName::Contact, format!("<{raw}>;expires={granted}").into_bytes()));
                        }
                    }
                    Some(Verdict::Rejected) => status = 403,
                    _ => {
                        status = 401;
                        let stale = verdict == Some(Verdict::Stale);
                        let asked = registrar.digest.challenge(now, REALM, stale);
                        headers.extend(asked.into_iter().map(|value| (HeaderName::WwwAuthenticate, value)));
                    }
                }
            }
        }
        let mut builder = sip_message::build::ResponseBuilder::response_to(msg, status, sip_message::reason_of(status))
            .source(peer.remote)
            .to_tag(b"r");
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        let bytes = builder.finish().unwrap();
        self.transactions.respond(now, key, bytes);
    }
}
