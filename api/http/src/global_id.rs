//! Global identifiers: one opaque text per object, base64url without padding (RFC 4648, section 5) of `kind:key`.
//! GraphQL hands them out; where an identifier of a known kind is asked for, the bare key (a UUID) is taken too, since
//! files and logs show it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::change::ResourceKind;

/// Longest text that is looked at. The longest key is an alarm's, a node name and a number.
pub const GLOBAL_ID_MAX: usize = 256;

/// The global identifier of an object.
#[must_use]
pub fn encode(kind: ResourceKind, key: impl std::fmt::Display) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}:{key}", kind.as_str()))
}

/// Kind and key of a global identifier.
#[must_use]
pub fn decode(text: &str) -> Option<(ResourceKind, String)> {
    if text.len() > GLOBAL_ID_MAX {
        return None;
    }
    let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
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
