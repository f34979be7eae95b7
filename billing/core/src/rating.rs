//! The price of one call: integers until one division at the end.

use model::money::{Amount, Fraction, MoneyOverflow, Rounding};

use crate::resource::Rate;

/// The most that one charge may come to, in units of an amount: 100 million of the currency. More is a mistake in a
/// price list, and the bound keeps the sum of any batch within 64 bits.
pub const CHARGE_MAX: Amount = Amount::from_units(100_000_000_000_000);

/// What a duration costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// The charged time, milliseconds.
    pub billed_ms: i64,
    /// The exact amount.
    pub exact: Fraction,
    /// The charged amount, rounded once.
    pub amount: Amount,
}

/// The charged time: the initial period whole, then whole increments. A call without duration has none.
///
/// # Errors
/// When the sum does not fit.
pub fn billed_ms(rate: &Rate, duration_ms: i64) -> Result<i64, MoneyOverflow> {
    if duration_ms <= 0 {
        return Ok(0);
    }
    let beyond = duration_ms.saturating_sub(rate.initial_ms).max(0);
    let increment = rate.increment_ms.max(1);
    let increments = beyond / increment + i64::from(beyond % increment != 0);
    increments.checked_mul(increment).and_then(|ms| ms.checked_add(rate.initial_ms)).ok_or(MoneyOverflow)
}

/// Connect fee (once, if the call has a duration) and charged time at the price, exactly; then rounded once.
///
/// # Errors
/// When the amount does not fit or exceeds [`CHARGE_MAX`]: such usage waits in suspense.
pub fn cost(rate: &Rate, rounding: Rounding, duration_ms: i64) -> Result<Cost, MoneyOverflow> {
    let billed_ms = billed_ms(rate, duration_ms)?;
    let per_ms = i128::from(rate.per_ms);
    let fee = if duration_ms > 0 { i128::from(rate.connect_fee.units()) } else { 0 };
    let time = i128::from(rate.price.units()).checked_mul(i128::from(billed_ms)).ok_or(MoneyOverflow)?;
    let sum = fee.checked_mul(per_ms).and_then(|fee| fee.checked_add(time)).ok_or(MoneyOverflow)?;
    let exact = Fraction::from_price_units(sum, per_ms)?;
    let amount = exact.round(rounding)?;
    if amount.units().unsigned_abs() > CHARGE_MAX.units().unsigned_abs() {
        return Err(MoneyOverflow);
    }
    Ok(Cost { billed_ms, exact, amount })
}

#[cfg(test)]
mod tests {
    use model::money::{Price, RoundingMode};
    use proptest::prelude::*;
    use rust_decimal::Decimal;

    use super::*;
    use crate::samples;

    const UP_4: Rounding = Rounding { mode: RoundingMode::Up, decimals: 4 };

    fn rate(fee: &str, price: &str, per_ms: i64, initial_ms: i64, increment_ms: i64) -> Rate {
        Rate { per_ms, initial_ms, increment_ms, ..samples::rate("43", fee, price) }
    }

    #[test]
    fn calls_cost_what_the_price_list_says() {
        let check = |rate: &Rate, duration_ms, billed, amount: &str| {
            let cost = cost(rate, UP_4, duration_ms).unwrap();
            assert_eq!((cost.billed_ms, cost.amount.to_string()), (billed, amount.to_owned()), "{duration_ms}");
        };
        let by_second = rate("0.05", "0.02", 60_000, 1_000, 1_000);
        check(&by_second, 0, 0, "0.00");
        check(&by_second, -5, 0, "0.00");
        check(&by_second, 1, 1_000, "0.0504");
        check(&by_second, 60_000, 60_000, "0.07");
        let thirty_six = rate("0", "0.06", 60_000, 30_000, 6_000);
        check(&thirty_six, 1, 30_000, "0.03");
        check(&thirty_six, 30_000, 30_000, "0.03");
        check(&thirty_six, 30_001, 36_000, "0.036");
        check(&thirty_six, 86_400_000, 86_400_000, "86.40");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let most = Price::from_units(i64::MAX).to_string();
        assert_eq!(cost(&rate("0", &most, 1, 1, 1), UP_4, 604_800_000), Err(MoneyOverflow));
        assert_eq!(cost(&rate(&most, "0", 1, 1, 1), UP_4, 1), Err(MoneyOverflow));
        assert_eq!(billed_ms(&rate("0", "1", 1, 1_000, 1_000), i64::MAX), Err(MoneyOverflow));
        assert!(cost(&rate("100000000", "0", 1, 1, 1), UP_4, 1).is_ok());
        assert_eq!(cost(&rate("100000000.0001", "0", 1, 1, 1), UP_4, 1), Err(MoneyOverflow));
    }

    /// Walks the call step by step, in decimals: nothing shared with the closed form.
    fn walk(rate: &Rate, duration_ms: i64) -> (i64, Decimal) {
        let scaled = |price: Price| Decimal::from_i128_with_scale(i128::from(price.units()), 10);
        if duration_ms == 0 {
            return (0, Decimal::ZERO);
        }
        let mut charged = rate.initial_ms;
        let mut sum = scaled(rate.connect_fee) * Decimal::from(rate.per_ms);
        sum += scaled(rate.price) * Decimal::from(rate.initial_ms);
        while charged < duration_ms {
            charged += rate.increment_ms;
            sum += scaled(rate.price) * Decimal::from(rate.increment_ms);
        }
        (charged, sum)
    }

    proptest! {
        #[test]
        fn cost_equals_the_walk_and_never_falls(
            fee in 0_i64..20_000_000_000,
            price in 0_i64..50_000_000_000,
            per in prop_oneof![Just(1_000_i64), Just(60_000), 1_i64..100_000],
            initial in 1_i64..90_000,
            increment in 500_i64..90_000,
            duration in 0_i64..400_000,
            more in 0_i64..100_000,
            decimals in 0_u32..=6,
        ) {
            let mut rate = rate("0", "0", per, initial, increment);
            (rate.connect_fee, rate.price) = (Price::from_units(fee), Price::from_units(price));
            let rounding = Rounding { mode: RoundingMode::HalfUp, decimals };
            let found = cost(&rate, rounding, duration).unwrap();
            let (billed, sum) = walk(&rate, duration);
            prop_assert_eq!(found.billed_ms, billed);
            // sum = exact * per, both sides whole numbers over the denominator
            let exact = Decimal::from(found.exact.numerator()) * Decimal::from(per);
            prop_assert_eq!(exact, sum * Decimal::from(found.exact.denominator()));
            let longer = cost(&rate, rounding, duration + more).unwrap();
            prop_assert!(longer.amount >= found.amount && longer.billed_ms >= found.billed_ms);
            prop_assert!(found.billed_ms >= duration);
        }
    }
}
