//! Scalars: instants, decimals, numbers, permissions. Text in the protocol, exact types behind it.

use std::fmt::Display;
use std::str::FromStr;

use async_graphql::{InputType, InputValueError, InputValueResult, Scalar, ScalarType, Value};

fn parse<T: FromStr<Err: Display> + InputType>(value: Value) -> InputValueResult<T> {
    match value {
        Value::String(text) => text.parse().map_err(|error: T::Err| InputValueError::custom(error)),
        other => Err(InputValueError::expected_type(other)),
    }
}

macro_rules! text_scalars {
    ($($(#[$doc:meta])+ $name:ident($inner:ty);)+) => {$(
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl FromStr for $name {
            type Err = <$inner as FromStr>::Err;
            fn from_str(text: &str) -> Result<Self, Self::Err> { text.parse().map(Self) }
        }

        $(#[$doc])+
        #[Scalar]
        impl ScalarType for $name {
            fn parse(value: Value) -> InputValueResult<Self> { parse(value) }
            fn to_value(&self) -> Value { Value::String(self.0.to_string()) }
        }
    )+};
}

text_scalars! {
    /// An instant: RFC 3339 in UTC with milliseconds, such as `2026-11-24T17:00:00.000Z`. Input may have any offset.
    Timestamp(model::time::Timestamp);
    /// A telephone number of ITU-T E.164: `+` and 2 to 15 digits.
    E164(model::number::E164);
    /// A currency code of ISO 4217, such as `EUR`.
    Currency(model::money::Currency);
    /// What a token may do, such as `billing:read`.
    Permission(model::actor::Permission);
}

/// A decimal number as text, such as `"0.0125"`. Never a floating-point number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal(pub String);

/// A decimal number as text, such as `"0.0125"`. Never a floating-point number.
#[Scalar]
impl ScalarType for Decimal {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            // judged where its scale is known: a price may be finer than an amount
            Value::String(text) => Ok(Self(text)),
            other => Err(InputValueError::expected_type(other)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// A 64-bit integer as a JSON number: counts, sequences, milliseconds. All of ours stay below 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Long(pub i64);

/// A 64-bit integer as a JSON number: counts, sequences, milliseconds. All of ours stay below 2^53.
#[Scalar]
impl ScalarType for Long {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::Number(number) => number.as_i64().map(Self).ok_or_else(|| InputValueError::expected_type(value)),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::from(self.0)
    }
}
