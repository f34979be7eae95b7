//! Tariffs as the rater reads them: a prefix tree per tariff, and which tariff applies to whom at what time.

use std::collections::HashMap;
use std::sync::Arc;

use model::id::{TariffId, TrunkId};
use model::money::{Currency, Rounding};
use model::tenancy::AccountPath;
use model::time::Timestamp;

use crate::resource::{ON_NET_PREFIX, Rate, Tariff};

/// Digits of a prefix: no E.164 number is longer.
pub const PREFIX_MAX: usize = 15;

/// No child and no rate.
const NONE: u32 = u32::MAX;

/// A stored tariff that cannot be used: commands never write one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTariff {
    /// A prefix is neither digits nor [`ON_NET_PREFIX`].
    #[error("the prefix {0:?} is neither 1 to {PREFIX_MAX} digits nor {ON_NET_PREFIX}")]
    Prefix(String),
    /// A prefix stands twice.
    #[error("the prefix {0:?} stands twice")]
    Duplicate(String),
    /// More rates than can be counted.
    #[error("the tariff has too many rates")]
    TooMany,
}

/// A tariff made ready for look-ups. Immutable, shared, and cached by identifier and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledTariff {
    id: TariffId,
    version: i64,
    currency: Currency,
    rounding: Rounding,
    rates: Vec<Rate>,
    nodes: Vec<Node>,
    on_net: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    children: [u32; 10],
    rate: u32,
}

impl Node {
    const EMPTY: Self = Self { children: [NONE; 10], rate: NONE };
}

impl CompiledTariff {
    /// Builds the tree.
    ///
    /// # Errors
    /// [`InvalidTariff`], which a row that was written by a command never is.
    pub fn new(tariff: Tariff) -> Result<Self, InvalidTariff> {
        let mut nodes = vec![Node::EMPTY];
        let mut on_net = None;
        for (index, rate) in tariff.rates.iter().enumerate() {
            if rate.prefix == ON_NET_PREFIX {
                if on_net.replace(index).is_some() {
                    return Err(InvalidTariff::Duplicate(rate.prefix.clone()));
                }
                continue;
            }
            if !is_digits(&rate.prefix) {
                return Err(InvalidTariff::Prefix(rate.prefix.clone()));
            }
            let mut at = 0;
            for digit in digits(&rate.prefix) {
                let child = nodes[at].children[digit];
                at = if child == NONE {
                    let new = nodes.len();
                    nodes.push(Node::EMPTY);
                    nodes[at].children[digit] = number(new)?;
                    new
                } else {
                    place(child)
                };
            }
            if nodes[at].rate != NONE {
                return Err(InvalidTariff::Duplicate(rate.prefix.clone()));
            }
            nodes[at].rate = number(index)?;
        }
        let Tariff { id, version, currency, rounding, rates, .. } = tariff;
        Ok(Self { id, version, currency, rounding, rates, nodes, on_net })
    }

    /// The rate of the longest prefix of `called`, digits without `+`.
    #[must_use]
    pub fn longest_prefix(&self, called: &str) -> Option<&Rate> {
        let mut best = NONE;
        let mut at = 0;
        for digit in digits(called) {
            let node = self.nodes.get(at)?;
            let Some(child) = node.children.get(digit).filter(|child| **child != NONE) else { break };
            at = place(*child);
            if let Some(node) = self.nodes.get(at).filter(|node| node.rate != NONE) {
                best = node.rate;
            }
        }
        self.rates.get(place(best))
    }

    /// The rate of calls within one customer.
    #[must_use]
    pub fn on_net(&self) -> Option<&Rate> {
        self.on_net.and_then(|index| self.rates.get(index))
    }

    /// Its identifier.
    #[must_use]
    pub const fn id(&self) -> TariffId {
        self.id
    }

    /// Its version.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// The currency of its prices.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        self.currency
    }

    /// How its amounts are rounded.
    #[must_use]
    pub const fn rounding(&self) -> Rounding {
        self.rounding
    }
}

/// Whether a prefix is 1 to [`PREFIX_MAX`] ASCII digits.
#[must_use]
pub(crate) fn is_digits(prefix: &str) -> bool {
    (1..=PREFIX_MAX).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_digit())
}

fn digits(text: &str) -> impl Iterator<Item = usize> {
    text.bytes().map(|b| usize::from(b.wrapping_sub(b'0')))
}

fn number(index: usize) -> Result<u32, InvalidTariff> {
    u32::try_from(index).ok().filter(|n| *n != NONE).ok_or(InvalidTariff::TooMany)
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A tariff for a time.
#[derive(Debug, Clone)]
struct Assigned {
    valid_from: Timestamp,
    valid_to: Option<Timestamp>,
    tariff: Arc<CompiledTariff>,
}

impl Assigned {
    fn applies(&self, at: Timestamp) -> bool {
        self.valid_from <= at && self.valid_to.is_none_or(|to| at < to)
    }
}

/// Which tariff applies to whom: the assignments that one batch of calls can meet.
#[derive(Debug, Clone, Default)]
pub struct TariffBook {
    accounts: HashMap<AccountPath, Vec<Assigned>>,
    trunks: HashMap<TrunkId, Vec<Assigned>>,
}

impl TariffBook {
    /// Notes an assignment to the account at `path`.
    pub fn assign_account(
        &mut self,
        path: AccountPath,
        valid_from: Timestamp,
        valid_to: Option<Timestamp>,
        tariff: Arc<CompiledTariff>,
    ) {
        self.accounts.entry(path).or_default().push(Assigned { valid_from, valid_to, tariff });
    }

    /// Notes an assignment to a trunk.
    pub fn assign_trunk(
        &mut self,
        trunk: TrunkId,
        valid_from: Timestamp,
        valid_to: Option<Timestamp>,
        tariff: Arc<CompiledTariff>,
    ) {
        self.trunks.entry(trunk).or_default().push(Assigned { valid_from, valid_to, tariff });
    }

    /// What the account at `path` pays by for a call answered at `at`: its own assignment, or that of the nearest
    /// account above it.
    #[must_use]
    pub fn sell(&self, path: &AccountPath, at: Timestamp) -> Option<&CompiledTariff> {
        let nearest_first = path.ancestry().into_iter().rev();
        nearest_first.filter_map(|path| self.accounts.get(&path)).find_map(|assigned| find(assigned, at))
    }

    /// What the operator behind the trunk charges us by for a call answered at `at`.
    #[must_use]
    pub fn buy(&self, trunk: TrunkId, at: Timestamp) -> Option<&CompiledTariff> {
        self.trunks.get(&trunk).and_then(|assigned| find(assigned, at))
    }
}

fn find(assigned: &[Assigned], at: Timestamp) -> Option<&CompiledTariff> {
    assigned.iter().find(|assigned| assigned.applies(at)).map(|assigned| &*assigned.tariff)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::id::AccountId;
    use proptest::prelude::*;

    use super::*;
    use crate::samples;

    fn compiled(prefixes: &[&str]) -> CompiledTariff {
        CompiledTariff::new(samples::tariff(prefixes.iter().map(|p| samples::rate(p, "0.01", "0.10")).collect()))
            .unwrap()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let tariff = compiled(&["4", "43", "43720", ON_NET_PREFIX]);
        let check = |called, expected: Option<&str>| {
            assert_eq!(tariff.longest_prefix(called).map(|r| &*r.prefix), expected, "{called}");
        };
        check("43720123", Some("43720"));
        check("437", Some("43"));
        check("49", Some("4"));
        check("1", None);
        check("", None);
        check("4x", Some("4"));
        assert_eq!(tariff.on_net().map(|r| &*r.prefix), Some(ON_NET_PREFIX));
    }

    #[test]
    fn a_damaged_tariff_is_refused() {
        let check = |prefixes: &[&str]| {
            CompiledTariff::new(samples::tariff(prefixes.iter().map(|p| samples::rate(p, "0", "0")).collect()))
        };
        assert_eq!(check(&["43", "43"]), Err(InvalidTariff::Duplicate("43".to_owned())));
        assert_eq!(check(&["4a"]), Err(InvalidTariff::Prefix("4a".to_owned())));
        assert_eq!(check(&[""]), Err(InvalidTariff::Prefix(String::new())));
    }

    #[test]
    fn the_nearest_assignment_of_the_time_applies() {
        let id = |n| samples::id::<AccountId>(n);
        let root = AccountPath::root(id(1));
        let customer = root.child(id(2)).unwrap();
        let (high, low) = (Arc::new(compiled(&["1"])), Arc::new(compiled(&["2"])));
        let mut book = TariffBook::default();
        book.assign_account(root.clone(), Timestamp(0), None, high);
        book.assign_account(customer.clone(), Timestamp(100), Some(Timestamp(200)), low);
        let prefix = |at| book.sell(&customer, Timestamp(at)).and_then(|t| t.longest_prefix("1")).is_some();
        assert!(prefix(99) && !prefix(100) && !prefix(199) && prefix(200));
        assert!(book.sell(&root, Timestamp(-1)).is_none());
    }

    proptest! {
        #[test]
        fn look_up_equals_brute_force(
            prefixes in proptest::collection::btree_set("[1-3]{1,6}", 0..40),
            called in proptest::collection::vec("[1-4]{0,9}", 1..40),
        ) {
            let prefixes: BTreeSet<String> = prefixes;
            let tariff = compiled(&prefixes.iter().map(|p| &**p).collect::<Vec<_>>());
            for number in called {
                let expected = prefixes.iter().filter(|p| number.starts_with(&***p)).max_by_key(|p| p.len());
                prop_assert_eq!(tariff.longest_prefix(&number).map(|r| &r.prefix), expected);
            }
        }
    }
}
