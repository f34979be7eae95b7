//! What people and devices may be called, and the ranges of limits.

use model::secret::Secret;
use model::text::is_deceptive;

use crate::decide::Case;

/// Longest name, in characters: fits a table column and a label of a phone.
pub(crate) const NAME_MAX: usize = 100;
/// Longest username, in octets: what common phones store.
pub(crate) const USERNAME_MAX: usize = 64;
/// Shortest password that a client may choose.
pub(crate) const PASSWORD_MIN: usize = 8;
/// Longest password, in octets: common phones store no more.
pub(crate) const PASSWORD_MAX: usize = 128;
/// Highest call limit: more than one installation carries.
pub(crate) const CALL_LIMIT_MAX: u32 = 1_000_000;

impl Case<'_> {
    /// A name for people, of at least `min` characters.
    pub(crate) fn check_name(&mut self, field: &str, name: &str, min: usize) {
        let length = name.chars().count();
        if length < min || length > NAME_MAX {
            let message = format!("it has {length} characters");
            self.invalid(field, &message, &format!("send {min} to {NAME_MAX} characters"));
        }
        if name.chars().any(is_deceptive) {
            self.invalid(field, "it has control or text direction characters", "send visible characters and spaces");
        }
        if name.trim() != name {
            self.invalid(field, "it begins or ends with a space", "send it without");
        }
    }

    /// The user part of an address of record: characters that are both in `token` and, unescaped, in `user`
    /// (RFC 3261, section 25.1). None is a colon, which would make the input of HA1 ambiguous. A leading plus is
    /// kept for numbers of the inventory.
    pub(crate) fn check_username(&mut self, field: &str, username: &str) {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"-.!*_+'~".contains(&b);
        if username.is_empty() || username.len() > USERNAME_MAX || !username.bytes().all(known) {
            let remedy = format!("send 1 to {USERNAME_MAX} of letters, digits and -.!*_+'~");
            self.invalid(field, "it cannot be the user part of a SIP address", &remedy);
        } else if username.starts_with('+') {
            self.invalid(field, "a username does not begin with +", "add the number to the inventory and assign it");
        }
    }

    /// A password that the client chose.
    pub(crate) fn check_password(&mut self, field: &str, password: &Secret<String>) {
        let password = password.expose();
        let fits = password.chars().count() >= PASSWORD_MIN && password.len() <= PASSWORD_MAX;
        if !fits || password.chars().any(char::is_control) {
            let remedy =
                format!("send {PASSWORD_MIN} to {PASSWORD_MAX} characters without controls, or none to get one");
            self.invalid(field, "the password is too short, too long or has control characters", &remedy);
        }
    }

    /// A limit of concurrent calls.
    pub(crate) fn check_call_limit(&mut self, limit: Option<u32>) {
        if limit.is_some_and(|limit| limit > CALL_LIMIT_MAX) {
            let remedy = format!("send at most {CALL_LIMIT_MAX}, or none for no limit");
            self.invalid("callLimit", "the call limit is too high", &remedy);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decide::testing::{refusals, world};

    fn fits(check: impl FnOnce(&mut Case<'_>)) -> bool {
        refusals(&world().0, check).is_empty()
    }

    #[test]
    fn names_are_judged() {
        let name = |text: &str| fits(|case| case.check_name("name", text, 1));
        assert!(name("Österreichische Mühle & Söhne") && name("山田") && name(&"x".repeat(NAME_MAX)));
        for bad in ["", " a", "a ", "a\nb", "a\u{202e}b", "\u{feff}a", "a\u{2066}b", &"x".repeat(NAME_MAX + 1)] {
            assert!(!name(bad), "{bad:?}");
        }
    }

    #[test]
    fn usernames_are_judged() {
        let username = |text: &str| fits(|case| case.check_username("username", text));
        assert!(username("alice") && username("100") && username("john.doe_1~x"));
        for bad in ["", "a:b", "a b", "a@b", "ä", "+43720", "a%41", "a\"", "a\\", &"a".repeat(USERNAME_MAX + 1)] {
            assert!(!username(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_passes_is_safe(text in "\\PC*|.*") {
            if fits(|case| case.check_name("name", &text, 1)) {
                prop_assert!(!text.chars().any(char::is_control) && text.chars().count() <= NAME_MAX);
            }
            if fits(|case| case.check_username("username", &text)) {
                prop_assert!(text.is_ascii() && !text.contains([':', '@', '"', '\\', ' ']));
            }
        }
    }
}
