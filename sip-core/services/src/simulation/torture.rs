//! What the node answers to the torture messages of RFC 4475 and RFC 5118, all of them (`sip-core/corpus`). The parser's
//! verdicts alone are tested in `sip-core/message`.

use sip_engine::digest::DigestClient;
use sip_message::edit::Editor;
use sip_message::{Fault, HeaderName};
use uuid::Uuid;

use super::*;
use crate::directory::{Directory, Domain, Subscriber};
use model::id::{DomainId, SubscriberId};
use model::secret::Secret;

/// What happens to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Answered with this status at once.
    Answered(u16),
    /// Its sender is challenged, and with the right password answered with this status.
    Proven(u16),
    /// Nobody is challenged with a password that is known; challenged, and that is all.
    Challenged(u16),
    /// Not answered, and counted as no message.
    Dropped,
    /// A response that nobody waits for: counted.
    Stray,
}
use Verdict::{Answered, Challenged, Dropped, Proven, Stray};

/// Every message with its verdict. Callers and callees of the valid ones exist and are not registered: 480 says that the
/// message was understood to its end.
const VERDICTS: [(&str, Verdict); 61] = [
    // A request within a dialog that is not.
    ("rfc4475/wsinv", Answered(481)),
    ("rfc4475/intmeth", Answered(501)),
    ("rfc4475/esc01", Proven(480)),
    ("rfc4475/escnull", Challenged(401)),
    ("rfc4475/esc02", Answered(501)),
    ("rfc4475/lwsdisp", Answered(200)),
    ("rfc4475/longreq", Proven(480)),
    ("rfc4475/dblreq", Proven(200)),
    ("rfc4475/semiuri", Answered(200)),
    ("rfc4475/transports", Answered(200)),
    ("rfc4475/mpart01", Answered(405)),
    ("rfc4475/unreason", Stray),
    ("rfc4475/noreason", Stray),
    ("rfc4475/badinv01", Answered(400)),
    ("rfc4475/clerr", Answered(400)),
    ("rfc4475/ncl", Answered(400)),
    ("rfc4475/scalar02", Answered(400)),
    ("rfc4475/scalarlg", Dropped),
    ("rfc4475/quotbal", Answered(400)),
    ("rfc4475/ltgtruri", Answered(400)),
    ("rfc4475/lwsruri", Answered(400)),
    ("rfc4475/lwsstart", Answered(400)),
    ("rfc4475/trws", Answered(400)),
    ("rfc4475/escruri", Answered(400)),
    ("rfc4475/baddate", Proven(480)),
    ("rfc4475/regbadct", Proven(400)),
    ("rfc4475/badaspec", Answered(200)),
    ("rfc4475/baddn", Answered(400)),
    ("rfc4475/badvers", Answered(505)),
    ("rfc4475/mismatch01", Answered(400)),
    ("rfc4475/mismatch02", Answered(501)),
    ("rfc4475/bigcode", Dropped),
    ("rfc4475/badbranch", Answered(200)),
    ("rfc4475/insuf", Answered(400)),
    ("rfc4475/unkscm", Answered(416)),
    ("rfc4475/novelsc", Answered(416)),
    ("rfc4475/unksm2", Answered(400)),
    ("rfc4475/bext01", Answered(420)),
    ("rfc4475/invut", Proven(415)),
    ("rfc4475/regaut01", Challenged(401)),
    ("rfc4475/multi01", Answered(400)),
    ("rfc4475/mcl01", Answered(400)),
    // Its topmost Via is not ours: it must not be passed on to the broadcast address of the second.
    ("rfc4475/bcast", Stray),
    // An endpoint takes it as if the value were positive; only what is passed on gets 483.
    ("rfc4475/zeromf", Answered(200)),
    ("rfc4475/cparam01", Proven(200)),
    ("rfc4475/cparam02", Proven(200)),
    ("rfc4475/regescrt", Proven(200)),
    ("rfc4475/sdp01", Proven(406)),
    // Its syntax is taken; its caller is a stranger here.
    ("rfc4475/inv2543", Challenged(407)),
    ("rfc5118/ipv6-good", Proven(200)),
    ("rfc5118/ipv6-bad", Answered(400)),
    ("rfc5118/port-ambiguous", Proven(200)),
    ("rfc5118/port-unambiguous", Proven(200)),
    ("rfc5118/via-received-param-with-delim", Answered(481)),
    ("rfc5118/via-received-param-no-delim", Answered(200)),
    ("rfc5118/ipv6-in-sdp", Proven(480)),
    ("rfc5118/mult-ip-in-header", Answered(481)),
    ("rfc5118/mult-ip-in-sdp", Proven(480)),
    ("rfc5118/ipv4-mapped-ipv6", Proven(480)),
    ("rfc5118/ipv6-bug-abnf-3-colons", Answered(400)),
    ("rfc5118/ipv6-correct-abnf-2-colons", Answered(200)),
];

const USERS: [(&str, &str); 10] = [
    ("user", "example.com"),
    ("j.user", "example.com"),
    ("watson", "example.com"),
    ("caller", "example.net"),
    ("I have spaces", "example.net"),
    ("sips:user@example.com", "example.net"),
    (LONG_NAME, "example.net"),
    ("resource", "example.com"),
    ("user", "east.example.com"),
    ("UserB", "example.com"),
];
const LONG_NAME: &str = "amazinglylongcallernameamazinglylongcallernameamazinglylongcallernameamazinglylongcallername\
    amazinglylongcallername";

fn directory() -> Directory {
    let world = World::new();
    let mut entries: Vec<_> = world.accounts.iter().cloned().map(DirectoryEntry::Account).collect();
    let mut domains: Vec<Domain> = Vec::new();
    for (at, (user, host)) in (0_u128..).zip(USERS) {
        let known = domains.iter().find(|domain| domain.name.as_str() == host).cloned();
        let domain = known.unwrap_or_else(|| {
            let id = DomainId::from_uuid(Uuid::from_u128(100 + at));
            let domain = Domain { id, name: host.parse().unwrap(), ..world.domain.clone() };
            domains.push(domain.clone());
            domain
        });
        let (md5, sha256) = crate::ha1_pair(user, host, &Secret::new(PASSWORD.to_owned()));
        entries.push(DirectoryEntry::Subscriber(Subscriber {
            id: SubscriberId::from_uuid(Uuid::from_u128(200 + at)),
            domain: domain.id,
            username: user.to_owned(),
            extension: None,
            ha1_md5: Secret::new(md5),
            ha1_sha256: Secret::new(sha256),
            ..world.alice.clone()
        }));
    }
    let domains = domains.into_iter().map(DirectoryEntry::Domain);
    // Subscribers come after their domains.
    let (accounts, subscribers): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| matches!(entry, DirectoryEntry::Account(_)));
    let all = accounts.into_iter().chain(domains).chain(subscribers);
    Directory::default().apply(all.map(DirectoryChange::Upsert))
}

/// A node of one shard that nobody knows yet.
struct Node {
    core: Core,
    now: Now,
}

impl Node {
    fn new() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant can be had from the clock only; it stands still here"
        )]
        let now = Now { mono: Instant::now(), utc: Timestamp(1_700_000_000_000) };
        let journal = JournalState { facts: Vec::new(), waiting: Vec::new(), reserved: 0, places_max: u32::MAX };
        let parts = Parts {
            config: ServicesConfig::default(),
            transactions: TransactionConfig::default(),
            digest: DigestConfig::default(),
            shard: ShardIndex { index: 0, count: 1 },
            shared: Arc::new(Shared::new(Arc::new(ArcSwap::from_pointee(directory())), 1, vec![SERVER])),
            ids: Arc::new(Ids::default()),
            media: Box::new(Relay(Arc::default())),
            journal: Box::new(Journal { shard: 0, state: Arc::new(Mutex::new(journal)) }),
            seed: [1; 32],
        };
        Self { core: Core::new(parts, now), now }
    }

    /// What is sent back to the sender.
    fn hear(&mut self, octets: &Bytes) -> Vec<Message> {
        self.core.handle(self.now, input(octets));
        let mut answers = Vec::new();
        while let Some(output) = self.core.poll() {
            if let Output::Transmit { bytes, .. } = output {
                answers.push(Message::parse_datagram(bytes));
            }
        }
        // An answer to a message with a defect repeats that defect.
        answers.into_iter().filter_map(Result::ok).collect()
    }
}

/// The octets as a shard hands them to its core.
fn input(octets: &Bytes) -> Input {
    let peer = Peer::udp(SocketAddr::from(([192, 0, 2, 1], 5060)), 0);
    match Message::parse_datagram(octets.clone()) {
        Ok(message) => Input::Message { message, peer },
        Err(error) => Input::Refused { error, peer },
    }
}

/// The status of octets that may repeat what is wrong with the request.
fn status(core: &mut Core, now: Now, octets: &Bytes) -> Option<u16> {
    core.handle(now, input(octets));
    let mut status = None;
    while let Some(output) = core.poll() {
        if let Output::Transmit { bytes, .. } = output {
            assert!(status.is_none(), "one answer");
            let digits = bytes.strip_prefix(b"SIP/2.0 ").and_then(|rest| rest.get(..3)).expect("a response");
            status = std::str::from_utf8(digits).unwrap().parse().ok();
        }
    }
    status
}

fn octets(name: &str) -> Bytes {
    Bytes::from(testkit::torture::octets(name))
}

/// The request again, with credentials and another branch.
fn proven(request: &Message, challenge: &Message) -> Bytes {
    let mut client =
        DigestClient::new(request.from().unwrap().uri.user_text().unwrap(), Secret::new(PASSWORD.to_owned()));
    let method = request.method().as_bytes().to_vec();
    let (name, value) =
        client.answer(challenge, &method, request.request_uri(), request.body(), "cnonce").expect("a challenge");
    let mut editor = Editor::new(request);
    editor.push(HeaderName::Via, b"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKproven").append(name, &value);
    editor.finish().unwrap()
}

#[test]
fn every_torture_message_is_answered_as_it_should_be() {
    for (name, expected) in VERDICTS {
        let octets = octets(name);
        let mut node = Node::new();
        let first = status(&mut node.core, node.now, &octets);
        let stats = *node.core.stats();
        let found = match first {
            None if stats.garbage == 1 => Dropped,
            None if stats.strays == 1 => Stray,
            None => panic!("{name}: neither answered nor counted"),
            Some(status @ (401 | 407)) => {
                let request = Message::parse_datagram(octets.clone()).unwrap();
                let mut other = Node::new();
                let challenge = other.hear(&octets).pop().unwrap();
                let user = request.from().unwrap().uri.user_text().unwrap_or_default();
                if USERS.iter().any(|(known, _)| *known == user) && !matches!(expected, Challenged(_)) {
                    let answers = other.hear(&proven(&request, &challenge));
                    Proven(answers.last().unwrap_or_else(|| panic!("{name}: no answer to the proof")).status())
                } else {
                    Challenged(status)
                }
            }
            Some(status) => Answered(status),
        };
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn no_torture_message_is_left_out() {
    let names = testkit::torture::names();
    assert_eq!(names, VERDICTS.iter().map(|(name, _)| (*name).to_owned()).collect());
}

#[test]
fn a_refusal_says_what_it_must() {
    let answer = |name: &str| Node::new().hear(&octets(name)).pop().unwrap();
    let listed = |name: &str, header| answer(name).header(header).map(<[u8]>::to_vec);
    assert_eq!(
        listed("rfc4475/bext01", HeaderName::Unsupported).as_deref(),
        Some(&b"nothingSupportsThis, nothingSupportsThisEither"[..])
    );
    assert!(listed("rfc4475/mpart01", HeaderName::Allow).is_some());
    assert_eq!(answer("rfc4475/intmeth").to().unwrap().display, b"\"BEL:\\\x07 NUL:\\\0 DEL:\\\x7f\"");
    // The contact that is bound is the one that was meant: with the parameter of its URI, without that of the header.
    for (name, contact) in [
        ("rfc4475/cparam01", "<sip:+19725552222@gw1.example.net>;expires=600"),
        ("rfc4475/cparam02", "<sip:+19725552222@gw1.example.net;unknownparam>;expires=600"),
        ("rfc4475/regescrt", "<sip:user@example.com?Route=%3Csip:sip.example.com%3E>;expires=600"),
        ("rfc5118/ipv6-good", "<sip:caller@[2001:db8::1]>;expires=600"),
    ] {
        let mut node = Node::new();
        let request = Message::parse_datagram(octets(name)).unwrap();
        let challenge = node.hear(&octets(name)).pop().unwrap();
        let ok = node.hear(&proven(&request, &challenge)).pop().unwrap();
        assert_eq!(ok.header(HeaderName::Contact), Some(contact.as_bytes()), "{name}");
    }
    assert_eq!(Message::parse_datagram(octets("rfc4475/bigcode")).unwrap_err().fault(), Fault::StartLine);
}
