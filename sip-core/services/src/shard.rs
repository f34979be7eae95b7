//! Which shard owns a message.
//!
//! Dialogs belong to the shard of their Call-ID; the Call-IDs that we make begin with the shard's number, so that the B
//! leg stays with the A leg. REGISTER belongs to the shard of its address of record. The hash is fixed, not seeded: all
//! shards, and each restart, must agree.

use sip_message::{Message, Method};

/// How our own Call-IDs begin: this and the shard's number, then `-`.
pub const CALL_ID_PREFIX: &str = "td";

/// Which shard this is, and of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardIndex {
    /// From 0.
    pub index: u16,
    /// At least 1.
    pub count: u16,
}

/// The beginning of the Call-IDs that shard `index` makes.
#[must_use]
pub fn call_id_prefix(index: u16) -> String {
    format!("{CALL_ID_PREFIX}{index}-")
}

/// The shard that owns a Call-ID.
#[must_use]
pub fn of_call_id(call_id: &[u8], count: u16) -> u16 {
    own_shard(call_id).filter(|index| *index < count).unwrap_or_else(|| bucket(hash(call_id.iter().copied()), count))
}

/// The shard that owns an address of record: the user part unescaped, the host as the directory knows domains
/// ([`model::domain::SipDomain`]): in lower case and without the dot of the root.
#[must_use]
pub fn of_address(user: &str, host: &str, count: u16) -> u16 {
    let host = host.strip_suffix('.').unwrap_or(host);
    let octets = user.bytes().chain(std::iter::once(b'@')).chain(host.bytes().map(|b| b.to_ascii_lowercase()));
    bucket(hash(octets), count)
}

/// The shard that owns a message.
#[must_use]
pub fn of_message(message: &Message, count: u16) -> u16 {
    if message.is_request()
        && *message.method() == Method::Register
        && let Ok(to) = message.to()
        && let Some(user) = to.uri.user_text()
    {
        return of_address(&user, &to.uri.host_text(), count);
    }
    of_call_id(message.call_id(), count)
}

fn own_shard(call_id: &[u8]) -> Option<u16> {
    let rest = call_id.strip_prefix(CALL_ID_PREFIX.as_bytes())?;
    let end = rest.iter().take(6).position(|b| *b == b'-')?;
    std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
}

fn bucket(hash: u64, count: u16) -> u16 {
    u16::try_from(hash % u64::from(count.max(1))).unwrap_or(0)
}

/// FNV-1a with a final mix; small inputs, no state, no dependency.
fn hash(octets: impl Iterator<Item = u8>) -> u64 {
    let mut value = octets.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    value ^= value >> 32;
    value = value.wrapping_mul(0xd6e8_feb8_6659_fd93);
    value ^ (value >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_call_ids_stay_and_foreign_ones_spread() {
        assert_eq!(of_call_id(b"td3-abc", 4), 3);
        assert!(of_call_id(b"td7-abc", 4) < 4, "a forged number must not leave the range");
        let mut seen = [0_u32; 4];
        for n in 0..4_000 {
            seen[usize::from(of_call_id(format!("{n}@phone").as_bytes(), 4))] += 1;
        }
        assert!(seen.iter().all(|n| (800..1_200).contains(n)), "{seen:?}");
    }

    #[test]
    fn an_address_has_one_shard_however_it_is_written() {
        assert_eq!(of_address("alice", "Alpha.Example", 8), of_address("alice", "alpha.example", 8));
        let register = |to: &str| {
            let text = format!(
                "REGISTER sip:alpha.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
                 To: {to}\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\n\r\n"
            );
            of_message(&Message::parse_datagram(text.into()).unwrap(), 64)
        };
        assert_eq!(register("<sip:%61lice@ALPHA.example>"), register("\"A\" <sip:alice@alpha.example:5060>"));
        assert_eq!(register("<sip:alice@alpha.example.>"), register("<sip:alice@alpha.example>"));
        assert_eq!(register("sip:alice@alpha.example"), of_address("alice", "alpha.example", 64));
    }
}
