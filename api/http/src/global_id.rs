//! Global identifiers: one opaque text per object, base64url without padding (RFC 4648, section 5) of `kind:key`.
//! GraphQL hands them out; where an identifier of a known kind is asked for, the bare key (a UUID) is taken too, since
//! files and logs show it.

use model::change::ResourceKind;

/// Longest text that is looked at. The longest key is an alarm's, a node name and a number.
pub const GLOBAL_ID_MAX: usize = 256;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The global identifier of an object.
#[must_use]
pub fn encode(kind: ResourceKind, key: impl std::fmt::Display) -> String {
    let plain = format!("{}:{key}", kind.as_str());
    let mut text = String::with_capacity(plain.len().div_ceil(3) * 4);
    for chunk in plain.as_bytes().chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..=chunk.len() {
            let index = (bits >> (18 - 6 * i)) & 63;
            text.push(char::from(ALPHABET[usize::try_from(index).unwrap_or(0)]));
        }
    }
    text
}

/// Kind and key of a global identifier.
#[must_use]
pub fn decode(text: &str) -> Option<(ResourceKind, String)> {
    if text.len() > GLOBAL_ID_MAX || text.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for i in 0..4 {
            let value = match chunk.get(i) {
                Some(letter) => ALPHABET.iter().position(|known| known == letter)?,
                None => 0,
            };
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        let [_, first, second, third] = bits.to_be_bytes();
        bytes.extend([first, second, third].iter().take(chunk.len() - 1));
    }
    let plain = String::from_utf8(bytes).ok()?;
    let (kind, key) = plain.split_once(':')?;
    Some((ResourceKind::parse(kind)?, key.to_owned()))
}

/// The key of an object of a known kind, from its global identifier or the bare key itself.
#[must_use]
pub fn key<K: std::str::FromStr>(kind: ResourceKind, text: &str) -> Option<K> {
    match decode(text) {
        Some((found, key)) => (found == kind).then(|| key.parse().ok()).flatten(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::id::StreamId;
    use proptest::prelude::*;

    #[test]
    fn a_kind_does_not_pass_for_another() {
        let id = StreamId::from_uuid(uuid::Uuid::from_u128(7));
        let text = encode(ResourceKind::Stream, id);
        assert_eq!(key(ResourceKind::Stream, &text), Some(id));
        assert_eq!(key(ResourceKind::Stream, &id.to_string()), Some(id));
        assert_eq!(key::<StreamId>(ResourceKind::Account, &text), None);
        assert_eq!(encode(ResourceKind::Site, "f"), "c2l0ZTpm");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(key in "[ -~]{0,60}") {
            prop_assert_eq!(decode(&encode(ResourceKind::Alarm, &key)), Some((ResourceKind::Alarm, key)));
        }

        #[test]
        fn nothing_panics(text in ".{0,300}") {
            let _ = decode(&text);
            let _ = key::<StreamId>(ResourceKind::Stream, &text);
        }
    }
}
