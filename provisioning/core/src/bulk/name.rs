//! How a line names an account: the names from the root of the caller's scope down, such as `Harbour/Quay Hotel`.

use std::fmt;

use model::change::{Refusal, RefusalCode};
use model::tenancy::DEPTH_MAX;

/// The root itself.
const ROOT: &str = ".";

/// The names of the accounts from below the root of a scope down to one; empty: the root itself, written `.`. A `/`
/// within a name is written `%2F`, a `%` is written `%25`, and an account that is called `.` is written `%2E`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(Vec<String>);

impl AccountName {
    /// From the names.
    #[must_use]
    pub const fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// Reads it.
    ///
    /// # Errors
    /// When a name is empty, there are more levels than a tree has, or `%` does not begin an escape.
    pub fn parse(field: &str, text: &str) -> Result<Self, Refusal> {
        let refused = |message: &str, remedy: &str| Refusal::new(RefusalCode::Invalid, field, message, remedy);
        if text == ROOT {
            return Ok(Self::default());
        }
        let names = text.split('/').map(unescaped).collect::<Option<Vec<_>>>();
        let Some(names) = names else {
            return Err(refused("a % begins no escape", "write % as %25, and a / within a name as %2F"));
        };
        if names.iter().any(String::is_empty) {
            let remedy = "send names from the account of the token down, separated by /, or . for that account itself";
            return Err(refused("a name is empty", remedy));
        }
        if names.len() > DEPTH_MAX {
            return Err(refused("it has more levels than a tree", "name an account that there is"));
        }
        Ok(Self(names))
    }

    /// The names, from the top down.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The account above, and the name below it; none for the root.
    #[must_use]
    pub fn split(&self) -> Option<(Self, &str)> {
        let (name, above) = self.0.split_last()?;
        Some((Self(above.to_vec()), name))
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(ROOT);
        }
        for (level, name) in self.0.iter().enumerate() {
            if level > 0 {
                f.write_str("/")?;
            }
            match name.as_str() {
                ROOT => f.write_str("%2E")?,
                name => f.write_str(&name.replace('%', "%25").replace('/', "%2F"))?,
            }
        }
        Ok(())
    }
}

fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('%');
    let mut whole = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        whole.push(match code {
            "25" => '%',
            "2F" | "2f" => '/',
            "2E" | "2e" => '.',
            _ => return None,
        });
        whole.push_str(rest);
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_told() {
        let message = |text: &str| AccountName::parse("account", text).expect_err(text).message;
        assert_eq!(message(""), "a name is empty");
        assert_eq!(message("a//b"), "a name is empty");
        assert_eq!(message("50% off"), "a % begins no escape");
        assert_eq!(message("a%"), "a % begins no escape");
        assert_eq!(message(&"a/".repeat(40)), "a name is empty");
        assert_eq!(message(&vec!["a"; DEPTH_MAX + 1].join("/")), "it has more levels than a tree");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(names in proptest::collection::vec("[./%a2FE]{1,6}|\\PC{1,10}", 0..5)) {
            let name = AccountName::new(names);
            prop_assert_eq!(AccountName::parse("account", &name.to_string()), Ok(name));
        }
    }
}
