//! The registrar (RFC 3261, section 10): who may bind contacts to an address of record, and for how long.

use std::collections::BTreeSet;

use model::id::SubscriberId;
use model::time::Timestamp;
use sip_engine::{Peer, ServerKey};
use sip_message::{Contact, HeaderName, Message, Scheme};

use crate::auth::{Role, authenticate};
use crate::config::ServicesConfig;
use crate::io::{Io, Refusal};
use crate::location::{Binding, Registration, RegistrationChange};
use crate::ports::Output;
use crate::shard::of_address;

/// Longest contact URI that is kept.
const CONTACT_MAX: usize = 1_024;
/// Contacts of one REGISTER. A phone has one for each way to reach it.
const WISHES_MAX: usize = 32;
/// Longest Call-ID that is kept.
const CALL_ID_MAX: usize = 256;
/// How much of the User-Agent is kept.
const USER_AGENT_MAX: usize = 64;
/// Expired bindings that one call of the sweep removes; the rest follows in the next.
const SWEEP_MAX: usize = 512;

/// The part of the registrar that needs memory: when bindings of this shard end.
#[derive(Debug, Default)]
pub(crate) struct Registrar {
    ends: BTreeSet<(Timestamp, SubscriberId)>,
}

impl Registrar {
    /// Takes over the bindings of this shard that were read back from the store.
    pub fn new(io: &Io) -> Self {
        let part = io.shared.location.part(io.shard.index);
        let ends = part.iter().flat_map(|(id, bindings)| bindings.iter().map(|b| (b.expires_at, *id))).collect();
        Self { ends }
    }

    /// Answers a REGISTER.
    pub fn register(&mut self, io: &mut Io, key: ServerKey, msg: &Message, peer: Peer) {
        match self.bind(io, msg, peer) {
            Ok(bindings) => {
                io.stats.registers_accepted += 1;
                let tag = io.tokens.tag();
                let mut response = io.response(msg, peer, 200, &tag);
                for binding in bindings {
                    let seconds = binding.expires_at.ms_since(io.now.utc).max(0).saturating_add(999) / 1_000;
                    response = response.header(HeaderName::Contact, format!("<{}>;expires={seconds}", binding.contact));
                }
                io.respond(key, response);
            }
            Err(refusal) => io.refuse(key, msg, peer, refusal, None),
        }
    }

    fn bind(&mut self, io: &mut Io, msg: &Message, peer: Peer) -> Result<Vec<Binding>, Refusal> {
        let directory = io.directory();
        let to = msg.to().map_err(|_| Refusal::new(400))?;
        if let Some(required) = msg.header(HeaderName::Require) {
            return Err(Refusal::new(420).with(HeaderName::Unsupported, required));
        }
        // An address of record is a SIP URI (RFC 3261, section 10.3, step 5; RFC 4475, section 3.3.4).
        if !matches!(to.uri.scheme, Scheme::Sip | Scheme::Sips) {
            return Err(Refusal::new(400));
        }
        // An unknown domain learns nothing: neither that we host others nor which.
        let domain = directory.domain_by_name(&to.uri.host_text()).ok_or_else(|| Refusal::new(403))?;
        let subscriber = authenticate(io, &directory, domain, msg, Role::Server)?;
        // No registration on behalf of others.
        let own = to.uri.user_text().as_deref() == Some(subscriber.username.as_str());
        if !own || !subscriber.enabled || !directory.account_enabled(subscriber.account) {
            return Err(Refusal::new(403));
        }
        let shard = io.shard.index;
        // Calls look for the binding on the shard of the address; on another one it would be lost to them.
        if of_address(&subscriber.username, domain.name.as_str(), io.shard.count) != shard {
            return Err(Refusal::new(500));
        }
        let held = io.shared.location.bindings(shard, subscriber.id);
        let held = held.as_deref().unwrap_or_default();
        let next = update(held, &read(msg, peer, io.now.utc)?, &io.config)?;
        for old in held {
            self.ends.remove(&(old.expires_at, subscriber.id));
            if !next.iter().any(|b| b.contact == old.contact) {
                let contact = old.contact.clone();
                let change = RegistrationChange::Unbound { subscriber: subscriber.id, contact };
                io.out.push_back(Output::RegistrationChanged(change));
            }
        }
        for binding in &next {
            self.ends.insert((binding.expires_at, subscriber.id));
            if !held.contains(binding) {
                let registration = Registration { subscriber: subscriber.id, binding: binding.clone() };
                io.out.push_back(Output::RegistrationChanged(RegistrationChange::Bound(registration)));
            }
        }
        // A query changes nothing and must not copy the map.
        if held != next {
            io.shared.location.put(shard, subscriber.id, next.clone());
        }
        Ok(next)
    }

    /// When the next binding ends, by the wall clock.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Removes what has ended.
    pub fn sweep(&mut self, io: &mut Io) {
        let now = io.now.utc;
        for _ in 0..SWEEP_MAX {
            let Some((at, subscriber)) = self.ends.first().copied().filter(|(at, _)| *at <= now) else { return };
            self.ends.remove(&(at, subscriber));
            let Some(held) = io.shared.location.bindings(io.shard.index, subscriber) else { continue };
            let (gone, left): (Vec<_>, Vec<_>) = held.iter().cloned().partition(|b| b.expires_at <= now);
            if gone.is_empty() {
                continue;
            }
            io.shared.location.put(io.shard.index, subscriber, left);
            for binding in gone {
                let change = RegistrationChange::Unbound { subscriber, contact: binding.contact };
                io.out.push_back(Output::RegistrationChanged(change));
            }
        }
    }
}

/// What a REGISTER asks for.
#[derive(Debug)]
struct Wish {
    now: Timestamp,
    peer: Peer,
    call_id: Box<str>,
    cseq: u32,
    user_agent: Box<str>,
    kind: WishKind,
}

#[derive(Debug)]
enum WishKind {
    /// No Contact: tell what there is.
    Query,
    /// `Contact: *` with `Expires: 0`.
    RemoveAll,
    /// Contact and its wished seconds.
    Bind(Vec<(Box<str>, Option<u32>)>),
}

fn read(msg: &Message, peer: Peer, now: Timestamp) -> Result<Wish, Refusal> {
    let bad = || Refusal::new(400);
    let (cseq, _) = msg.cseq().map_err(|_| bad())?;
    let call_id = text(msg.call_id(), CALL_ID_MAX).ok_or_else(bad)?;
    let mut contacts = Vec::new();
    let mut star = false;
    for contact in msg.contacts() {
        if contacts.len() >= WISHES_MAX {
            return Err(bad());
        }
        match contact.map_err(|_| bad())? {
            Contact::Star => star = true,
            Contact::Addr(addr) => {
                let uri = text(addr.uri.raw, CONTACT_MAX).ok_or_else(bad)?;
                let wished = addr.params.get(b"expires").and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
                contacts.push((uri, wished.or_else(|| msg.expires())));
            }
        }
    }
    let kind = match (star, contacts.is_empty()) {
        (true, true) if msg.expires() == Some(0) => WishKind::RemoveAll,
        (true, _) => return Err(bad()),
        (false, true) => WishKind::Query,
        (false, false) => WishKind::Bind(contacts),
    };
    let agent = msg.header(HeaderName::UserAgent).unwrap_or_default();
    let user_agent = String::from_utf8_lossy(agent).chars().take(USER_AGENT_MAX).collect::<String>().into();
    Ok(Wish { now, peer, call_id, cseq, user_agent, kind })
}

fn text(octets: &[u8], max: usize) -> Option<Box<str>> {
    std::str::from_utf8(octets).ok().filter(|t| t.len() <= max).map(Into::into)
}

/// The bindings after a REGISTER (RFC 3261, section 10.3, steps 6 and 7): all of its wishes or none.
fn update(held: &[Binding], wish: &Wish, config: &ServicesConfig) -> Result<Vec<Binding>, Refusal> {
    let mut next: Vec<Binding> = held.iter().filter(|b| b.expires_at > wish.now).cloned().collect();
    // The same Call-ID with an older or equal CSeq is a REGISTER that was overtaken.
    let overtaken = |binding: &Binding| binding.call_id == wish.call_id && wish.cseq <= binding.cseq;
    let contacts = match &wish.kind {
        WishKind::Query => return Ok(next),
        WishKind::RemoveAll if next.iter().any(overtaken) => return Err(Refusal::new(400)),
        WishKind::RemoveAll => return Ok(Vec::new()),
        WishKind::Bind(contacts) => contacts,
    };
    for (contact, wished) in contacts {
        let seconds = wished.unwrap_or(config.expires_default_s).min(config.expires_max_s);
        if seconds > 0 && seconds < config.expires_min_s {
            return Err(Refusal::new(423).with(HeaderName::MinExpires, config.expires_min_s.to_string()));
        }
        let same = next.iter().position(|b| b.contact == *contact);
        if same.and_then(|at| next.get(at)).is_some_and(overtaken) {
            return Err(Refusal::new(400));
        }
        if let Some(at) = same {
            next.remove(at);
        }
        if seconds > 0 {
            next.push(Binding {
                contact: contact.clone(),
                source: wish.peer.remote,
                listener: wish.peer.local,
                transport: wish.peer.transport,
                flow: wish.peer.flow,
                call_id: wish.call_id.clone(),
                cseq: wish.cseq,
                user_agent: wish.user_agent.clone(),
                expires_at: wish.now.plus_ms(i64::from(seconds).saturating_mul(1_000)),
                refreshed_at: wish.now,
            });
        }
    }
    // A phone that takes a new port at each start must not lock itself out: the oldest contact gives way.
    while next.len() > config.contacts_max {
        let oldest = next.iter().enumerate().min_by_key(|(_, b)| b.refreshed_at).map_or(0, |(at, _)| at);
        next.remove(oldest);
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(now: i64, call_id: &str, cseq: u32, kind: WishKind) -> Wish {
        Wish {
            now: Timestamp(now),
            peer: Peer::udp("192.0.2.1:5060".parse().unwrap(), 0),
            call_id: call_id.into(),
            cseq,
            user_agent: "".into(),
            kind,
        }
    }

    fn bind(contact: &str, expires: Option<u32>) -> WishKind {
        WishKind::Bind(vec![(contact.into(), expires)])
    }

    #[test]
    fn one_register_has_so_many_contacts_at_most() {
        let read_one = |contacts: usize, fields: usize| {
            let list = "<sip:a@1>,".repeat(contacts - 1) + "<sip:a@1>";
            let text = format!(
                "REGISTER sip:a.example SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
                 To: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\n{}\r\n",
                format!("Contact: {list}\r\n").repeat(fields)
            );
            let msg = Message::parse_datagram(text.into()).unwrap();
            read(&msg, Peer::udp("192.0.2.1:5060".parse().unwrap(), 0), Timestamp(0)).err().map(|r| r.status)
        };
        assert_eq!(read_one(WISHES_MAX, 1), None);
        for (contacts, fields) in [(WISHES_MAX + 1, 1), (800, 1), (1, WISHES_MAX + 1), (800, 7)] {
            assert_eq!(read_one(contacts, fields), Some(400), "{contacts} in each of {fields}");
        }
    }

    fn status(result: Result<Vec<Binding>, Refusal>) -> u16 {
        result.err().map_or(200, |refusal| refusal.status)
    }

    #[test]
    fn bindings_follow_the_rules_of_the_registrar() {
        let config = ServicesConfig { contacts_max: 2, ..ServicesConfig::default() };
        let first = update(&[], &wish(0, "c1", 1, bind("sip:a@1", Some(9_999))), &config).unwrap();
        assert_eq!(first.first().map(|b| b.expires_at), Some(Timestamp(3_600_000)), "cut to the longest");
        // Overtaken, equal CSeq, fresh CSeq, and another Call-ID.
        assert_eq!(status(update(&first, &wish(1, "c1", 1, bind("sip:a@1", None)), &config)), 400);
        assert_eq!(status(update(&first, &wish(1, "c1", 1, WishKind::RemoveAll), &config)), 400);
        let fresh = update(&first, &wish(1, "c1", 2, bind("sip:a@1", None)), &config).unwrap();
        assert_eq!((fresh.len(), fresh.first().map(|b| b.cseq)), (1, Some(2)));
        assert_eq!(status(update(&first, &wish(1, "c2", 1, bind("sip:a@1", None)), &config)), 200);
        // Too short is refused, nought removes, all or nothing.
        assert_eq!(status(update(&first, &wish(1, "c1", 2, bind("sip:a@1", Some(59))), &config)), 423);
        assert!(update(&first, &wish(1, "c1", 2, bind("sip:a@1", Some(0))), &config).unwrap().is_empty());
        let both = WishKind::Bind(vec![("sip:a@2".into(), None), ("sip:a@3".into(), Some(1))]);
        assert_eq!(status(update(&first, &wish(1, "c1", 2, both), &config)), 423);
        assert!(update(&first, &wish(1, "c9", 1, WishKind::RemoveAll), &config).unwrap().is_empty());
        // The oldest gives way; what has expired is not counted.
        let two = update(&first, &wish(1, "c1", 2, bind("sip:a@2", None)), &config).unwrap();
        let three = update(&two, &wish(2, "c1", 3, bind("sip:a@3", None)), &config).unwrap();
        assert_eq!(three.iter().map(|b| &*b.contact).collect::<Vec<_>>(), ["sip:a@2", "sip:a@3"]);
        assert!(update(&three, &wish(3_600_000, "q", 1, WishKind::Query), &config).unwrap().is_empty());
    }
}
