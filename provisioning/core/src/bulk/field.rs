//! The fields of a line before they have types, from JSON Lines or from CSV, and the cells of CSV.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use model::change::{Refusal, RefusalCode};
use serde_json::Value;

/// What takes a value away, in a cell of CSV: an empty cell leaves it as it is.
const NULL_CELL: &str = "-";
/// Every field, in the order of the columns of an export.
const COLUMNS: [&str; 22] = [
    "action",
    "kind",
    "account",
    "domain",
    "username",
    "number",
    "site",
    "displayName",
    "extension",
    "numbers",
    "subscriber",
    "password",
    "callLimit",
    "subscriberQuota",
    "enabled",
    "accountKind",
    "timezone",
    "currency",
    "countryCode",
    "nationalPrefix",
    "internationalPrefix",
    "id",
];

/// The columns of an export, in their order.
#[must_use]
pub const fn columns() -> &'static [&'static str] {
    &COLUMNS
}

/// The fields of a line, each taken once; what is wrong is gathered, so that a line tells all that is wrong with it.
#[derive(Debug, Default)]
pub struct Fields {
    left: BTreeMap<String, Value>,
    refusals: Vec<Refusal>,
}

impl Fields {
    /// From a JSON object.
    ///
    /// # Errors
    /// When it is none, or no JSON.
    pub fn from_json(text: &str) -> Result<Self, Refusal> {
        let refused =
            |message: String| Refusal::new(RefusalCode::Invalid, "", message, "send one JSON object in each line");
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Self { left: fields.into_iter().collect(), refusals: Vec::new() }),
            Ok(_) => Err(refused("the line is no JSON object".to_owned())),
            Err(error) => Err(refused(format!("the line is no JSON: {error}"))),
        }
    }

    /// From names and values; those that are [`None`] are left out.
    #[must_use]
    pub fn of<const N: usize>(fields: [(&str, Option<Value>); N]) -> Self {
        let given = fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?)));
        Self { left: given.collect(), refusals: Vec::new() }
    }

    /// As a record of CSV with [`columns`].
    #[must_use]
    pub fn to_record(&self) -> Vec<String> {
        let cell = |column: &&str| match self.left.get(*column) {
            None => String::new(),
            Some(Value::Null) => NULL_CELL.to_owned(),
            Some(Value::String(text)) => to_cell(text),
            Some(Value::Array(values)) => {
                let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
                to_cell(&texts.join(" "))
            }
            Some(other) => other.to_string(),
        };
        COLUMNS.iter().map(cell).collect()
    }

    /// From a record of CSV and the names of its columns.
    #[must_use]
    pub fn from_record<'a>(
        columns: impl IntoIterator<Item = &'a str>,
        cells: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let fields = columns.into_iter().zip(cells).filter(|(_, cell)| !cell.is_empty());
        let value = |cell: &str| if cell == NULL_CELL { Value::Null } else { Value::from(from_cell(cell)) };
        Self { left: fields.map(|(column, cell)| (column.to_owned(), value(cell))).collect(), refusals: Vec::new() }
    }

    /// As a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.left).unwrap_or_default()
    }

    pub(crate) fn refuse(&mut self, field: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.refusals.push(Refusal::new(RefusalCode::Invalid, field, message, remedy));
    }

    /// Text; a number in JSON is taken as it is written.
    pub(crate) fn text(&mut self, field: &str) -> Option<String> {
        match self.left.remove(field)? {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Null => {
                self.refuse(field, "it cannot be taken away", "leave it out, or send a value");
                None
            }
            _ => {
                self.refuse(field, "it is no text", "send text");
                None
            }
        }
    }

    /// Text that must be there; when it is missing that is noted, and the text is empty.
    pub(crate) fn required(&mut self, field: &str) -> String {
        if !self.left.contains_key(field) {
            self.refuse(field, "it is missing", "send it");
        }
        self.text(field).unwrap_or_default()
    }

    /// A value that has a text form.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&mut self, field: &str) -> Option<T> {
        let text = self.text(field)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(field, error.to_string(), "send a value of that form");
                None
            }
        }
    }

    /// A value that can be taken away: null.
    pub(crate) fn nullable<T>(
        &mut self,
        field: &str,
        take: impl FnOnce(&mut Self, &str) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.left.get(field) == Some(&Value::Null) {
            self.left.remove(field);
            return Some(None);
        }
        take(self, field).map(Some)
    }

    /// A count.
    pub(crate) fn count(&mut self, field: &str) -> Option<u32> {
        let text = self.text(field)?;
        let count = text.parse().ok();
        if count.is_none() {
            self.refuse(field, "it is no whole number from 0 to 4294967295", "send such a number");
        }
        count
    }

    /// A truth: `true` or `false`.
    pub(crate) fn truth(&mut self, field: &str) -> Option<bool> {
        if let Some(Value::Bool(truth)) = self.left.get(field) {
            let truth = *truth;
            self.left.remove(field);
            return Some(truth);
        }
        let text = self.text(field)?;
        let truth = text.parse().ok();
        if truth.is_none() {
            self.refuse(field, "it is neither true nor false", "send true or false");
        }
        truth
    }

    /// A list: of texts in JSON, separated by spaces in CSV; null is an empty one.
    pub(crate) fn list<T: FromStr<Err: Display>>(&mut self, field: &str) -> Option<Vec<T>> {
        let texts: Vec<String> = match self.left.remove(field)? {
            Value::Null => Vec::new(),
            Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
            Value::Array(values) if values.iter().all(Value::is_string) => {
                values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => {
                self.refuse(field, "it is no list of texts", "send a list of texts");
                return None;
            }
        };
        let mut values = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            match text.parse() {
                Ok(value) => values.push(value),
                Err(error) => {
                    let error: T::Err = error;
                    self.refuse(&format!("{field}[{place}]"), error.to_string(), "send a value of that form");
                }
            }
        }
        (values.len() == texts.len()).then_some(values)
    }

    /// What is wrong, fields included that nobody took.
    pub(crate) fn finish(mut self, what: &str) -> Result<(), Vec<Refusal>> {
        let left = std::mem::take(&mut self.left);
        for field in left.into_keys() {
            let message = if COLUMNS.contains(&field.as_str()) {
                format!("{what} has no such field")
            } else {
                "there is no such field".to_owned()
            };
            // The name comes from outside, and is told as long as a name can be.
            let field: String = field.chars().take(40).collect();
            self.refuse(&field, message, "leave it out");
        }
        if self.refusals.is_empty() { Ok(()) } else { Err(self.refusals) }
    }
}

/// Whether a spreadsheet would take such a cell for a formula, once apostrophes before it are gone.
fn looks_like_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// A text as a cell: with an apostrophe before what a spreadsheet would take for a formula.
#[must_use]
pub fn to_cell(text: &str) -> String {
    if looks_like_formula(text) { format!("'{text}") } else { text.to_owned() }
}

/// The text of a cell: without the apostrophe that [`to_cell`] put there.
#[must_use]
pub fn from_cell(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|text| looks_like_formula(text)).unwrap_or(cell)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cell_is_no_formula_and_is_read_as_it_was(text in "[-=+@'\t\ra]{0,5}|\\PC{0,20}") {
            let cell = to_cell(&text);
            prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']));
            prop_assert_eq!(from_cell(&cell), text);
        }

        #[test]
        fn no_line_panics(text in "\\PC*|.*|[\\[\\]{}\",:a1 ]*") {
            drop(Fields::from_json(&text));
        }
    }

    #[test]
    fn a_cell_is_empty_or_takes_away() {
        let mut fields = Fields::from_record(["callLimit", "site", "extension"], ["", "-", "'-"]);
        assert_eq!(fields.nullable("callLimit", Fields::count), None);
        assert_eq!(fields.nullable("site", Fields::text), Some(None));
        assert_eq!(fields.text("extension"), Some("-".to_owned()));
        assert_eq!(fields.finish("a subscriber"), Ok(()));
    }
}
