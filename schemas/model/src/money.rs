//! Exact money. Rounded amounts are `i64` in 10⁻⁶ units of a currency, prices `i64` in 10⁻¹⁰, the exact amount of a
//! rated call a reduced fraction. No floating point anywhere; decimal text enters through `rust_decimal`.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// Decimal places of an [`Amount`].
pub const AMOUNT_DECIMALS: u32 = 6;
/// Decimal places of a [`Price`].
pub const PRICE_DECIMALS: u32 = 10;
const AMOUNT_ONE: i128 = 1_000_000;
const PRICE_ONE: i128 = 10_000_000_000;

/// A decimal text that is no amount or price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMoney {
    /// Not a plain decimal number.
    #[error("must be a decimal number such as 0.0125")]
    NotDecimal,
    /// More decimal places than can be kept.
    #[error("has more than {max} decimal places, which would be lost")]
    TooFine {
        /// The most that can be kept.
        max: u32,
    },
    /// Outside the range of the integer behind it.
    #[error("is too large")]
    TooLarge,
    /// Not three capital letters of ISO 4217.
    #[error("a currency is three capital letters of ISO 4217, such as EUR")]
    Currency,
}

/// A currency code of ISO 4217.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// ISO 4217 currencies whose minor unit is not 2, as of amendment 176: `(code, decimals)`.
const MINOR_UNITS: [(&str, u32); 22] = [
    ("BHD", 3),
    ("BIF", 0),
    ("CLF", 4),
    ("CLP", 0),
    ("DJF", 0),
    ("GNF", 0),
    ("IQD", 3),
    ("ISK", 0),
    ("JOD", 3),
    ("JPY", 0),
    ("KMF", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("LYD", 3),
    ("OMR", 3),
    ("PYG", 0),
    ("RWF", 0),
    ("TND", 3),
    ("UGX", 0),
    ("VND", 0),
    ("VUV", 0),
    ("XAF", 0),
];

impl Currency {
    /// The three letters.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }

    /// Decimal places of the minor unit (ISO 4217).
    #[must_use]
    pub fn minor_units(&self) -> u32 {
        MINOR_UNITS.iter().find(|(code, _)| *code == self.code()).map_or(2, |(_, decimals)| *decimals)
    }
}

impl FromStr for Currency {
    type Err = InvalidMoney;
    fn from_str(text: &str) -> Result<Self, InvalidMoney> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Self(code)),
            _ => Err(InvalidMoney::Currency),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = InvalidMoney;
    fn try_from(text: String) -> Result<Self, InvalidMoney> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.code().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Reads decimal text into units of 10^-decimals, exactly or not at all.
fn scaled(text: &str, decimals: u32) -> Result<i64, InvalidMoney> {
    let value = Decimal::from_str_exact(text).map_err(|_| InvalidMoney::NotDecimal)?.normalize();
    if value.scale() > decimals {
        return Err(InvalidMoney::TooFine { max: decimals });
    }
    let factor = 10_i128.pow(decimals - value.scale());
    value.mantissa().checked_mul(factor).and_then(|units| i64::try_from(units).ok()).ok_or(InvalidMoney::TooLarge)
}

/// Prints units of 10^-decimals with at least two decimal places and no superfluous zeros.
fn print_scaled(units: i128, decimals: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let one = 10_u128.pow(u32::try_from(decimals).map_err(|_| fmt::Error)?);
    let sign = if units < 0 { "-" } else { "" };
    let magnitude = units.unsigned_abs();
    let mut fraction = format!("{:0decimals$}", magnitude % one);
    while fraction.len() > 2 && fraction.ends_with('0') {
        fraction.pop();
    }
    write!(f, "{sign}{}.{fraction}", magnitude / one)
}

macro_rules! scaled_types {
    ($($(#[$doc:meta])+ $name:ident, $decimals:expr;)+) => {$(
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(i64);

        impl $name {
            /// From scaled units, for instance those of a row.
            #[must_use]
            pub const fn from_units(units: i64) -> Self { Self(units) }
            /// The scaled units, as they are stored.
            #[must_use]
            pub const fn units(self) -> i64 { self.0 }
        }

        impl FromStr for $name {
            type Err = InvalidMoney;
            fn from_str(text: &str) -> Result<Self, InvalidMoney> { scaled(text, $decimals).map(Self) }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidMoney;
            fn try_from(text: String) -> Result<Self, InvalidMoney> { text.parse() }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self { value.to_string() }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print_scaled(i128::from(self.0), $decimals as usize, f)
            }
        }
    )+};
}

scaled_types! {
    /// A rounded amount of money in 10⁻⁶ units; the currency stands beside it.
    Amount, AMOUNT_DECIMALS;
    /// A price in 10⁻¹⁰ units; the currency stands in the tariff.
    Price, PRICE_DECIMALS;
}

/// A sum of amounts: `i128` in 10⁻⁶ units, so that no number of rows overflows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Total(pub i128);

impl Total {
    /// Adds one amount.
    pub fn add(&mut self, amount: Amount) {
        self.0 += i128::from(amount.0);
    }
}

impl From<Amount> for Total {
    fn from(amount: Amount) -> Self {
        Self(i128::from(amount.0))
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_scaled(self.0, AMOUNT_DECIMALS as usize, f)
    }
}

/// How an exact amount becomes a rounded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoundingMode {
    /// Away from zero whenever anything remains.
    Up,
    /// Towards zero.
    Down,
    /// To the nearest, half away from zero.
    HalfUp,
    /// To the nearest, half to the even neighbour.
    HalfEven,
}

/// A rounding rule: mode and decimal places (0 to 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rounding {
    /// The mode.
    pub mode: RoundingMode,
    /// Decimal places, 0 to [`AMOUNT_DECIMALS`].
    pub decimals: u32,
}

/// An exact amount in units of the currency as a reduced fraction, the denominator positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fraction {
    numerator: i64,
    denominator: i64,
}

/// The exact amount, or one of its steps, does not fit the integers behind it. Such usage waits in suspense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the exact amount does not fit 64-bit numerator and denominator")]
pub struct MoneyOverflow;

impl Fraction {
    /// Zero.
    pub const ZERO: Self = Self { numerator: 0, denominator: 1 };

    /// Reduces `numerator / denominator` (in units of the currency).
    ///
    /// # Errors
    /// When the denominator is not positive or the reduced parts do not fit `i64`.
    pub fn new(numerator: i128, denominator: i128) -> Result<Self, MoneyOverflow> {
        if denominator <= 0 {
            return Err(MoneyOverflow);
        }
        let divisor = gcd(numerator.unsigned_abs(), denominator.unsigned_abs());
        let divisor = i128::try_from(divisor).map_err(|_| MoneyOverflow)?.max(1);
        Ok(Self {
            numerator: i64::try_from(numerator / divisor).map_err(|_| MoneyOverflow)?,
            denominator: i64::try_from(denominator / divisor).map_err(|_| MoneyOverflow)?,
        })
    }

    /// From a sum of prices: `price_units / parts`, where `price_units` counts 10⁻¹⁰ units.
    ///
    /// # Errors
    /// As [`Fraction::new`].
    pub fn from_price_units(price_units: i128, parts: i128) -> Result<Self, MoneyOverflow> {
        Self::new(price_units, parts.checked_mul(PRICE_ONE).ok_or(MoneyOverflow)?)
    }

    /// The numerator of the reduced fraction.
    #[must_use]
    pub const fn numerator(self) -> i64 {
        self.numerator
    }

    /// The denominator of the reduced fraction, positive.
    #[must_use]
    pub const fn denominator(self) -> i64 {
        self.denominator
    }

    /// Rounds once, by one integer division.
    ///
    /// # Errors
    /// When the rule has more than six decimals or the amount does not fit.
    pub fn round(self, rule: Rounding) -> Result<Amount, MoneyOverflow> {
        if rule.decimals > AMOUNT_DECIMALS {
            return Err(MoneyOverflow);
        }
        let step = 10_i128.pow(rule.decimals);
        let scaled = i128::from(self.numerator).checked_mul(step).ok_or(MoneyOverflow)?;
        let denominator = i128::from(self.denominator);
        let quotient = scaled / denominator;
        let remainder = (scaled % denominator).abs();
        let away = match rule.mode {
            RoundingMode::Up => remainder != 0,
            RoundingMode::Down => false,
            RoundingMode::HalfUp => remainder * 2 >= denominator,
            RoundingMode::HalfEven => {
                remainder * 2 > denominator || (remainder * 2 == denominator && quotient % 2 != 0)
            }
        };
        let rounded = quotient + if away { scaled.signum() } else { 0 };
        i64::try_from(rounded * (AMOUNT_ONE / step)).map(Amount).map_err(|_| MoneyOverflow)
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimal_text_is_exact_or_refused() {
        assert_eq!("0.0198".parse::<Amount>().map(Amount::units), Ok(19_800));
        assert_eq!("-1.5".parse::<Amount>().map(|a| a.to_string()), Ok("-1.50".to_owned()));
        assert_eq!("0.0000001".parse::<Amount>(), Err(InvalidMoney::TooFine { max: 6 }));
        assert_eq!("9999999999999999".parse::<Amount>(), Err(InvalidMoney::TooLarge));
        assert_eq!("1e3".parse::<Amount>(), Err(InvalidMoney::NotDecimal));
        assert!("0.123456789012345678901234567890".parse::<Price>().is_err());
        assert_eq!("1.0000000000000000".parse::<Price>().map(Price::units), Ok(10_000_000_000));
    }

    #[test]
    fn one_rounding_per_mode() {
        let check = |num, den, mode, decimals, expected: &str| {
            let rule = Rounding { mode, decimals };
            let amount = Fraction::new(num, den).expect("fits").round(rule).expect("fits");
            assert_eq!(amount.to_string(), expected, "{num}/{den} {mode:?} {decimals}");
        };
        check(1, 3, RoundingMode::Up, 4, "0.3334");
        check(1, 3, RoundingMode::Down, 4, "0.3333");
        check(1, 8, RoundingMode::HalfUp, 2, "0.13");
        check(1, 8, RoundingMode::HalfEven, 2, "0.12");
        check(-1, 3, RoundingMode::Up, 2, "-0.34");
        check(2, 100, RoundingMode::Up, 4, "0.02");
    }

    proptest! {
        #[test]
        fn rounding_stays_within_one_step(num in -1_000_000_000_i128..1_000_000_000, den in 1_i128..1_000_000, decimals in 0_u32..=6) {
            let exact = Fraction::new(num, den).expect("fits");
            let step = 10_i128.pow(6 - decimals);
            for mode in [RoundingMode::Up, RoundingMode::Down, RoundingMode::HalfUp, RoundingMode::HalfEven] {
                let rounded = i128::from(exact.round(Rounding { mode, decimals }).expect("fits").units());
                // |rounded - exact| < one step, compared without division
                prop_assert!((rounded * den - num * 1_000_000).abs() < step * den || num == 0);
                prop_assert_eq!(rounded % step, 0);
            }
        }

        #[test]
        fn text_round_trips(units in any::<i64>()) {
            let amount = Amount::from_units(units);
            prop_assert_eq!(amount.to_string().parse::<Amount>(), Ok(amount));
        }
    }
}
