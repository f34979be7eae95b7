//! Small things that every statement module needs: lists of marks, integers of the right width, errors of reads.

use db::dialect::Value;
use db::{DbError, Tx};
use model::money::{Amount, Total};
use model::page::ReadError;
use model::tenancy::Scope;

/// Values of one `IN` list: long enough that a batch takes few statements, short enough for a plan to stay cheap.
pub(crate) const LIST_MAX: usize = 500;

/// `$first, $first+1, …`, `n` of them.
pub(crate) fn marks(first: usize, n: usize) -> String {
    let marks: Vec<String> = (first..first + n).map(|mark| format!("${mark}")).collect();
    marks.join(", ")
}

/// An integer of a column in the width of the domain.
pub(crate) fn narrow<T: TryFrom<i64, Error: ToString>>(column: &'static str, value: i64) -> Result<T, DbError> {
    T::try_from(value).map_err(|e| DbError::corrupt(column, e.to_string()))
}

/// A text of a column as a type of the domain.
pub(crate) fn parse<T: std::str::FromStr<Err: ToString>>(column: &'static str, text: &str) -> Result<T, DbError> {
    text.parse().map_err(|e: T::Err| DbError::corrupt(column, e.to_string()))
}

/// What is appended to a `SELECT` with joins whose row of `alias` the decision depends on; see [`Tx::lock_clause`]. The
/// scope stands in the same statement, so nobody can hold or await what is not theirs.
pub(crate) fn lock_of(tx: &Tx, alias: &str) -> String {
    match tx.lock_clause() {
        "" => String::new(),
        clause => format!("{clause} OF {alias}"),
    }
}

/// Where a list by path begins: after the cursor, and never before the scope.
pub(crate) fn first_path<'a>(scope: &'a Scope, after: &'a str) -> &'a str {
    if after < scope.lower() { scope.lower() } else { after }
}

/// Optional text that is made for the row.
pub(crate) fn text<'a>(value: Option<String>) -> Value<'a> {
    value.map_or(Value::Text(None), Value::Owned)
}

/// Puts a sum together that the database made in two parts: whole millions of units, and the rest. So a sum of any
/// number of rows fits the 64 bits of the database.
pub(crate) fn total(millions: i64, rest: i64) -> Total {
    let mut total = Total(i128::from(millions) * 1_000_000);
    total.add(Amount::from_units(rest));
    total
}

/// A failure of the database as a read tells it.
pub(crate) fn read_error(error: DbError) -> ReadError {
    let transient = error.is_transient();
    let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    let text = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    if transient { ReadError::Unavailable(text) } else { ReadError::Internal(text) }
}
