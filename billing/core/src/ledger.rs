//! Postings: what a batch of charges moves between the books of an account.
//!
//! Double entry per batch: what is sold stands in `receivable` and, negative, in `revenue`; what is bought in `cost`
//! and, negative, in `payable`. So the postings of a batch sum to zero per currency.

use std::collections::BTreeMap;

use model::id::AccountId;
use model::money::{Amount, Currency, MoneyOverflow};
use model::tenancy::AccountPath;

use crate::charging::Charge;
use crate::resource::Side;

/// One posting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// The account.
    pub account: AccountId,
    /// Its path at the time of the calls.
    pub path: AccountPath,
    /// `receivable`, `revenue`, `cost` or `payable`.
    pub book: &'static str,
    /// The currency.
    pub currency: Currency,
    /// Signed.
    pub amount: Amount,
    /// Charges behind it.
    pub rated_count: i64,
}

/// The books that a side moves: what grows, and what stands against it.
#[must_use]
pub const fn books(side: Side) -> [&'static str; 2] {
    match side {
        Side::Sell => ["receivable", "revenue"],
        Side::Buy => ["cost", "payable"],
    }
}

/// The postings of a batch, ordered by account, side and currency.
///
/// # Errors
/// When a sum does not fit, which [`crate::rating::CHARGE_MAX`] rules out for batches below 92,000 charges.
pub fn postings<'a>(charges: impl IntoIterator<Item = &'a Charge>) -> Result<Vec<Posting>, MoneyOverflow> {
    let mut sums: BTreeMap<(AccountId, Side, Currency), (&AccountPath, i128, i64)> = BTreeMap::new();
    for charge in charges {
        let key = (charge.account, charge.side, charge.currency);
        let (_, sum, count) = sums.entry(key).or_insert((&charge.path, 0, 0));
        *sum += i128::from(charge.amount.units());
        *count += 1;
    }
    let mut postings = Vec::with_capacity(sums.len() * 2);
    for ((account, side, currency), (path, sum, rated_count)) in sums {
        let sum = i64::try_from(sum).map_err(|_| MoneyOverflow)?;
        let against = sum.checked_neg().ok_or(MoneyOverflow)?;
        for (book, amount) in books(side).into_iter().zip([sum, against]) {
            let amount = Amount::from_units(amount);
            postings.push(Posting { account, path: path.clone(), book, currency, amount, rated_count });
        }
    }
    Ok(postings)
}

#[cfg(test)]
mod tests {
    use model::money::Fraction;
    use proptest::prelude::*;

    use super::*;
    use crate::samples;

    fn charge(account: u128, side: Side, currency: &str, units: i64) -> Charge {
        let (account, path) = samples::account(account);
        let tariff = samples::tariff(Vec::new());
        Charge {
            account,
            path,
            side,
            tariff: tariff.id,
            tariff_version: 1,
            prefix: "43".to_owned(),
            billed_ms: 1,
            currency: currency.parse().unwrap(),
            exact: Fraction::ZERO,
            amount: Amount::from_units(units),
        }
    }

    #[test]
    fn one_pair_per_account_side_and_currency() {
        let charges = [
            charge(2, Side::Sell, "EUR", 5),
            charge(2, Side::Sell, "EUR", 6),
            charge(2, Side::Sell, "USD", 1),
            charge(1, Side::Buy, "EUR", 4),
        ];
        let found = postings(&charges).unwrap();
        let found: Vec<_> =
            found.iter().map(|p| (p.book, p.currency.code(), p.amount.units(), p.rated_count)).collect();
        let expected = [
            ("cost", "EUR", 4, 1),
            ("payable", "EUR", -4, 1),
            ("receivable", "EUR", 11, 2),
            ("revenue", "EUR", -11, 2),
            ("receivable", "USD", 1, 1),
            ("revenue", "USD", -1, 1),
        ];
        assert_eq!(found, expected);
        let much = [charge(2, Side::Sell, "EUR", i64::MAX), charge(2, Side::Sell, "EUR", 1)];
        assert_eq!(postings(&much), Err(MoneyOverflow));
    }

    proptest! {
        #[test]
        fn a_batch_sums_to_zero_per_currency(rows in proptest::collection::vec((1_u128..5, any::<bool>(), any::<bool>(), 0_i64..1_000_000_000), 0..60)) {
            let charges: Vec<Charge> = rows.iter().map(|(account, buy, usd, units)| {
                charge(*account, if *buy { Side::Buy } else { Side::Sell }, if *usd { "USD" } else { "EUR" }, *units)
            }).collect();
            let found = postings(&charges).unwrap();
            for currency in ["EUR", "USD"] {
                let sum: i64 = found.iter().filter(|p| p.currency.code() == currency).map(|p| p.amount.units()).sum();
                prop_assert_eq!(sum, 0);
            }
            let counted: i64 = found.iter().map(|p| p.rated_count).sum();
            prop_assert_eq!(counted, 2 * i64::try_from(charges.len()).unwrap());
        }
    }
}
