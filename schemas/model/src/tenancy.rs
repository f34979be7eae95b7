//! The account tree and the scope of a request.
//!
//! Accounts form a tree of any depth: provider > reseller > … > customer. The path of an account is the
//! concatenation of fixed-width segments, so that in C order a subtree is one contiguous range of text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::AccountId;

/// Characters of one path segment: 60 bits of the account's identifier in lower-case base 32 (RFC 4648, extended hex).
pub const SEGMENT_LENGTH: usize = 12;
/// Levels that a path may have. Sixteen are more than any delegation chain seen; the limit bounds row width.
pub const DEPTH_MAX: usize = 16;

/// What an account is. The kinds carry no rights of their own; they name the seat in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    /// The root: who runs the installation.
    Provider,
    /// Sells on to resellers or customers below.
    Reseller,
    /// Owns domains, sites and subscribers, and is charged for calls.
    Customer,
}

impl AccountKind {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Reseller => "reseller",
            Self::Customer => "customer",
        }
    }
}

impl FromStr for AccountKind {
    type Err = InvalidAccountKind;
    fn from_str(text: &str) -> Result<Self, InvalidAccountKind> {
        match text {
            "provider" => Ok(Self::Provider),
            "reseller" => Ok(Self::Reseller),
            "customer" => Ok(Self::Customer),
            _ => Err(InvalidAccountKind),
        }
    }
}

/// The text names no kind of account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an account is a provider, a reseller or a customer")]
pub struct InvalidAccountKind;

/// Where an account sits in the tree. Usage, ledger and audit keep the path of their time.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, minicbor::Encode, minicbor::Decode,
)]
#[serde(try_from = "String", into = "String")]
#[cbor(transparent)]
pub struct AccountPath(#[n(0)] String);

/// The text is no account path, or the tree would grow too deep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// Not a whole number of segments.
    #[error("an account path is made of segments of {SEGMENT_LENGTH} characters 0-9 and a-v")]
    Malformed,
    /// Deeper than [`DEPTH_MAX`].
    #[error("the account tree is at most {DEPTH_MAX} levels deep")]
    TooDeep,
}

impl AccountPath {
    /// The path of a root account.
    #[must_use]
    pub fn root(id: AccountId) -> Self {
        Self(segment(id))
    }

    /// The path of `id` directly below `self`.
    ///
    /// # Errors
    /// When the tree would become deeper than [`DEPTH_MAX`].
    pub fn child(&self, id: AccountId) -> Result<Self, InvalidPath> {
        if self.depth() >= DEPTH_MAX {
            return Err(InvalidPath::TooDeep);
        }
        Ok(Self(format!("{}{}", self.0, segment(id))))
    }

    /// Levels, 1 for a root.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.len() / SEGMENT_LENGTH
    }

    /// The stored text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` is this account or lies below it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// Whether `id` is this account or one above it.
    #[must_use]
    pub fn includes(&self, id: AccountId) -> bool {
        let sought = segment(id);
        self.0.as_bytes().chunks(SEGMENT_LENGTH).any(|segment| segment == sought.as_bytes())
    }

    /// The paths from the root down to this account, itself last.
    #[must_use]
    pub fn ancestry(&self) -> Vec<Self> {
        (1..=self.depth())
            .filter_map(|level| self.0.get(..level * SEGMENT_LENGTH).map(|p| Self(p.to_owned())))
            .collect()
    }
}

fn segment(id: AccountId) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let low = id.uuid().as_u128();
    (0..SEGMENT_LENGTH)
        .rev()
        .map(|i| char::from(ALPHABET[usize::try_from((low >> (5 * i)) & 31).unwrap_or(0)]))
        .collect()
}

impl FromStr for AccountPath {
    type Err = InvalidPath;
    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let whole = !text.is_empty() && text.len().is_multiple_of(SEGMENT_LENGTH);
        if !whole || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v')) {
            return Err(InvalidPath::Malformed);
        }
        if text.len() > DEPTH_MAX * SEGMENT_LENGTH {
            return Err(InvalidPath::TooDeep);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for AccountPath {
    type Error = InvalidPath;
    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<AccountPath> for String {
    fn from(path: AccountPath) -> Self {
        path.0
    }
}

impl fmt::Display for AccountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a request may touch: everything at and below one account, as a half-open range of paths in C order. Every
/// store method takes one; a foreign object looks like a missing one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    lower: String,
    upper: String,
}

impl Scope {
    /// What an account may touch: its subtree; a root account, who runs the installation, also what belongs to no
    /// account, such as the platform's own alarms.
    #[must_use]
    pub fn of(path: &AccountPath) -> Self {
        if path.depth() == 1 { Self::installation() } else { Self::subtree(path) }
    }

    /// The subtree of one account.
    #[must_use]
    pub fn subtree(path: &AccountPath) -> Self {
        Self { lower: path.0.clone(), upper: format!("{}~", path.0) }
    }

    /// Everything in the installation.
    #[must_use]
    pub fn installation() -> Self {
        Self { lower: String::new(), upper: "~".to_owned() }
    }

    /// The lower bound, inclusive: `path >= $lower`.
    #[must_use]
    pub fn lower(&self) -> &str {
        &self.lower
    }

    /// The upper bound, exclusive: `path < $upper`.
    #[must_use]
    pub fn upper(&self) -> &str {
        &self.upper
    }

    /// Whether the account at `path` lies in the scope.
    #[must_use]
    pub fn contains(&self, path: &AccountPath) -> bool {
        path.as_str() >= self.lower.as_str() && path.as_str() < self.upper.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn account(n: u128) -> AccountId {
        AccountId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn a_scope_is_the_subtree_and_nothing_else() {
        let root = AccountPath::root(account(1));
        let left = root.child(account(2)).expect("shallow");
        let right = root.child(account(3)).expect("shallow");
        let leaf = left.child(account(31)).expect("shallow");
        let scope = Scope::subtree(&left);
        assert!(scope.contains(&left) && scope.contains(&leaf));
        assert!(!scope.contains(&root) && !scope.contains(&right));
        assert_eq!(Scope::of(&root), Scope::installation());
        assert_eq!(Scope::of(&left), Scope::subtree(&left));
        assert!(Scope::installation().contains(&root));
        assert_eq!(leaf.ancestry(), vec![root, left, leaf.clone()]);
        assert_eq!(leaf.as_str().parse(), Ok(leaf));
    }

    #[test]
    fn depth_is_bounded() {
        let mut path = AccountPath::root(account(1));
        for n in 2..=16 {
            path = path.child(account(n)).expect("within the bound");
        }
        assert_eq!(path.child(account(17)), Err(InvalidPath::TooDeep));
    }
}
