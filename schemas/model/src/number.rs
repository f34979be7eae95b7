//! Telephone numbers (ITU-T E.164) and extensions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An international number: 2 to 15 digits, the first not zero (E.164, section 6). Printed and stored as `+` and
/// digits. Logs use [`E164::masked`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct E164(u64);

/// The text is no E.164 number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a number is + and 2 to 15 digits, the first not zero, such as +43720123456")]
pub struct InvalidNumber;

impl E164 {
    /// From digits without `+`.
    ///
    /// # Errors
    /// When the digits are not an E.164 number.
    pub fn from_digits(digits: &str) -> Result<Self, InvalidNumber> {
        let ok =
            (2..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
        if !ok {
            return Err(InvalidNumber);
        }
        digits.parse().map(Self).map_err(|_| InvalidNumber)
    }

    /// The digits without `+`.
    #[must_use]
    pub fn digits(self) -> String {
        self.0.to_string()
    }

    /// The number as a log may show it: country part and the last two digits.
    #[must_use]
    pub fn masked(self) -> String {
        mask_digits(&self.to_string())
    }
}

/// Masks a dialled string or number for logs: the first four and the last two characters stay.
#[must_use]
pub fn mask_digits(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= 6 {
        return "*".repeat(chars.len());
    }
    let head: String = chars.iter().take(4).collect();
    let tail: String = chars.iter().skip(chars.len() - 2).collect();
    format!("{head}…{tail}")
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

impl FromStr for E164 {
    type Err = InvalidNumber;
    fn from_str(text: &str) -> Result<Self, InvalidNumber> {
        Self::from_digits(text.strip_prefix('+').ok_or(InvalidNumber)?)
    }
}

impl TryFrom<String> for E164 {
    type Error = InvalidNumber;
    fn try_from(text: String) -> Result<Self, InvalidNumber> {
        text.parse()
    }
}

impl From<E164> for String {
    fn from(number: E164) -> Self {
        number.to_string()
    }
}

impl<C> minicbor::Encode<C> for E164 {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u64(self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for E164 {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::from_digits(&d.u64()?.to_string()).map_err(minicbor::decode::Error::message)
    }
}

/// A short number inside one customer: 2 to 8 digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Extension(String);

/// The text is no extension.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an extension is 2 to 8 digits, such as 100")]
pub struct InvalidExtension;

impl Extension {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Extension {
    type Err = InvalidExtension;
    fn from_str(text: &str) -> Result<Self, InvalidExtension> {
        if !(2..=8).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidExtension);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Extension {
    type Error = InvalidExtension;
    fn try_from(text: String) -> Result<Self, InvalidExtension> {
        text.parse()
    }
}

impl From<Extension> for String {
    fn from(extension: Extension) -> Self {
        extension.0
    }
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_judged() {
        for good in ["+12", "+43720123456", "+123456789012345"] {
            assert_eq!(good.parse::<E164>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "+", "+1", "43720", "+0123", "+1234567890123456", "+43 720", "+४३७२०"] {
            assert_eq!(bad.parse::<E164>(), Err(InvalidNumber), "{bad}");
        }
        assert_eq!("+43720123456".parse::<E164>().expect("valid").masked(), "+437…56");
        assert!("100".parse::<Extension>().is_ok());
        assert!("1".parse::<Extension>().is_err());
    }
}
