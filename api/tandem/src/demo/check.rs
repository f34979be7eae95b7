//! What the demo expects, and what it found.

use serde::Serialize;

/// One check of the demo.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What is checked.
    pub name: String,
    /// What had to be.
    pub expected: String,
    /// What was.
    pub found: String,
    /// Whether they agree.
    pub ok: bool,
}

/// The checks in the order in which they were made.
#[derive(Debug, Default, Serialize)]
pub struct Checks(Vec<Check>);

impl Checks {
    /// Compares two values by their printed form.
    pub fn equal(&mut self, name: &str, expected: impl ToString, found: impl ToString) {
        let (expected, found) = (expected.to_string(), found.to_string());
        let ok = expected == found;
        self.0.push(Check { name: name.to_owned(), expected, found, ok });
    }

    /// Takes the verdict of the caller.
    pub fn verdict(&mut self, name: &str, expected: impl ToString, found: impl ToString, ok: bool) {
        self.0.push(Check { name: name.to_owned(), expected: expected.to_string(), found: found.to_string(), ok });
    }

    /// All checks.
    #[must_use]
    pub fn list(&self) -> &[Check] {
        &self.0
    }

    /// Whether there are checks and all hold.
    #[must_use]
    pub fn all_hold(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|check| check.ok)
    }
}
