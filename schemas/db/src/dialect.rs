//! The one place for what differs between the engines: locks by name, bulk rows, text that can be stored.

use sha2::{Digest as _, Sha256};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::error::DbError;
use crate::store::Tx;

/// Values of one statement: SQLite takes 32,766, PostgreSQL 65,535.
const BINDS_MAX: usize = 32_766;
/// Rows of one statement. Beyond about five hundred nothing is gained; the bound keeps the statement's text short.
const ROWS_MAX: usize = 1_024;

/// Holds a name until the transaction ends, so that two writers with the same name run one after the other. SQLite has
/// one writer, and a reader holds nothing: nothing to do there.
///
/// # Errors
/// When the database fails.
pub async fn serialize_on(tx: &mut Tx, parts: &[&[u8]]) -> Result<(), DbError> {
    if let Tx::Postgres(transaction, true) = tx {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let key = hash.finalize().first_chunk().copied().map_or(0, i64::from_be_bytes);
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(key).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Whether a column can hold a text. `TEXT` of PostgreSQL takes no NUL and fails on it, also in a look-up; no decision
/// lets one be stored, on either engine. So who looks for what a client wrote asks here before: nothing is found by it.
#[must_use]
pub fn is_storable(text: &str) -> bool {
    !text.contains('\0')
}

/// A value of a bulk row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// A number or an instant.
    Int(Option<i64>),
    /// Text.
    Text(Option<&'a str>),
    /// Text that is made for the row.
    Owned(String),
    /// An identifier.
    Uuid(Option<Uuid>),
    /// Octets.
    Bytes(Option<&'a [u8]>),
    /// A truth.
    Bool(bool),
}

impl Value<'_> {
    /// NULL of the same type.
    const fn none(&self) -> Self {
        match self {
            Self::Int(_) | Self::Bool(_) => Self::Int(None),
            Self::Text(_) | Self::Owned(_) => Self::Text(None),
            Self::Uuid(_) => Self::Uuid(None),
            Self::Bytes(_) => Self::Bytes(None),
        }
    }
}

macro_rules! value_from {
    ($($type:ty => $variant:ident;)+) => {$(
        impl<'a> From<$type> for Value<'a> {
            fn from(value: $type) -> Self { Self::$variant(Some(value)) }
        }
        impl<'a> From<Option<$type>> for Value<'a> {
            fn from(value: Option<$type>) -> Self { Self::$variant(value) }
        }
    )+};
}

value_from! { i64 => Int; &'a str => Text; Uuid => Uuid; &'a [u8] => Bytes; }

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Owned(value)
    }
}

/// A row that is written in bulk.
pub trait BulkRow {
    /// The table.
    const TABLE: &'static str;
    /// Its columns, in the order of [`BulkRow::values`].
    const COLUMNS: &'static [&'static str];

    /// Pushes one value per column.
    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>);
}

/// How a statement marks its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marks {
    /// `$1`, `$2`, …, as PostgreSQL wants them. SQLite takes these as names and looks for each among all others, once
    /// when it parses and once when the driver asks for it: with ten thousands of values that is all that it does.
    Numbered,
    /// `?`, for SQLite: places without a name.
    Plain,
}

/// The statement for `rows` rows, with numbered values; `conflict` is empty or an `ON CONFLICT` clause. Public for tests
/// that prepare it.
#[must_use]
pub fn bulk_statement<R: BulkRow>(rows: usize, conflict: &str) -> String {
    statement::<R>(Marks::Numbered, rows, conflict)
}

fn statement<R: BulkRow>(marks: Marks, rows: usize, conflict: &str) -> String {
    let width = R::COLUMNS.len();
    let mark = |number: usize| match marks {
        Marks::Numbered => format!("${number}"),
        Marks::Plain => "?".to_owned(),
    };
    let tuple = |row: usize| {
        let marks: Vec<String> = (1..=width).map(|column| mark(row * width + column)).collect();
        format!("({})", marks.join(","))
    };
    let tuples: Vec<String> = (0..rows).map(tuple).collect();
    format!("INSERT INTO {} ({}) VALUES {} {conflict}", R::TABLE, R::COLUMNS.join(", "), tuples.join(","))
}

/// Writes `rows` in statements of many rows and gives how many were written (fewer than given, when `conflict` says
/// `ON CONFLICT … DO NOTHING`).
///
/// # Errors
/// When the database fails, or a row does not give one value per column.
pub async fn bulk_insert<R: BulkRow + Sync>(tx: &mut Tx, rows: &[R], conflict: &str) -> Result<u64, DbError> {
    let chunk_max = (BINDS_MAX / R::COLUMNS.len().max(1)).clamp(1, ROWS_MAX);
    let marks = if matches!(tx, Tx::Postgres(..)) { Marks::Numbered } else { Marks::Plain };
    let mut written = 0;
    for chunk in rows.chunks(chunk_max) {
        let sql = statement::<R>(marks, chunk.len(), conflict);
        let mut values = Vec::with_capacity(chunk.len() * R::COLUMNS.len());
        for row in chunk {
            row.values(&mut values);
        }
        if values.len() != chunk.len() * R::COLUMNS.len() {
            return Err(DbError::corrupt(R::TABLE, "a bulk row must give one value per column"));
        }
        // Only the full statement and that of one row come again; a rest of each length would push others out of the cache.
        let persistent = chunk.len() == chunk_max || chunk.len() == 1;
        written += crate::on_tx!(tx, c => {
            let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(persistent);
            for value in values {
                query = match value {
                    Value::Int(v) => query.bind(v),
                    Value::Text(v) => query.bind(v),
                    Value::Owned(v) => query.bind(v),
                    Value::Uuid(v) => query.bind(v),
                    Value::Bytes(v) => query.bind(v),
                    Value::Bool(v) => query.bind(v),
                };
            }
            query.execute(c).await.map(|done| done.rows_affected())
        })?;
    }
    Ok(written)
}

/// Keys of one statement of [`select_keyed`]: more gain nothing.
const KEYS_MAX: usize = 512;

/// The statement of [`select_keyed`] for so many keys. Public for tests that prepare it.
#[must_use]
pub fn keyed_statement(columns: &str, table: &str, key: &[&str], keys: usize, tail: &str) -> String {
    let tuple = |row: usize| {
        let marks: Vec<String> = (1..=key.len()).map(|column| format!("${}", row * key.len() + column)).collect();
        format!("({})", marks.join(","))
    };
    let tuples: Vec<String> = (0..keys).map(tuple).collect();
    let same: Vec<String> =
        key.iter().enumerate().map(|(place, column)| format!("x.{column} = v.column{}", place + 1)).collect();
    format!(
        "SELECT {columns} FROM (VALUES {}) AS v CROSS JOIN {table} x WHERE {} {tail}",
        tuples.join(","),
        same.join(" AND ")
    )
}

/// The rows of `table`, called `x`, whose columns `key` have one of the values `keys` (each once), a few statements for
/// any number of keys. `tail`: order and lock.
///
/// # Errors
/// When the database fails, or a row is not understood.
pub async fn select_keyed<R>(
    tx: &mut Tx,
    (columns, table): (&str, &str),
    key: &[&str],
    keys: &[Vec<Value<'_>>],
    tail: &str,
) -> Result<Vec<R>, DbError>
where
    R: for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow>
        + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>
        + Send
        + Unpin,
{
    let mut rows = Vec::new();
    let can_be = |value: &Value<'_>| match value {
        Value::Text(Some(text)) => is_storable(text),
        Value::Owned(text) => is_storable(text),
        _ => true,
    };
    let keys: Vec<&Vec<Value<'_>>> = keys.iter().filter(|key| key.iter().all(can_be)).collect();
    for part in keys.chunks(KEYS_MAX) {
        // Few lengths, so few statements. The rest is NULL, which equals nothing.
        let length = part.len().next_power_of_two();
        let sql = keyed_statement(columns, table, key, length, tail);
        let nothing: Vec<Value<'_>> = part.first().into_iter().flat_map(|key| key.iter().map(Value::none)).collect();
        let padded = part.iter().copied().chain(std::iter::repeat_n(&nothing, length - part.len()));
        let found: Vec<R> = crate::on_tx!(tx, c => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql));
            for value in padded.flatten() {
                query = match value {
                    Value::Int(v) => query.bind(*v),
                    Value::Text(v) => query.bind(*v),
                    Value::Owned(v) => query.bind(v.as_str()),
                    Value::Uuid(v) => query.bind(*v),
                    Value::Bytes(v) => query.bind(*v),
                    Value::Bool(v) => query.bind(*v),
                };
            }
            query.fetch_all(c).await
        })?;
        rows.extend(found);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair;

    impl BulkRow for Pair {
        const TABLE: &'static str = "pair";
        const COLUMNS: &'static [&'static str] = &["a", "b"];

        fn values<'a>(&'a self, _: &mut Vec<Value<'a>>) {}
    }

    #[test]
    fn sqlite_gets_places_without_names() {
        let text = |marks| statement::<Pair>(marks, 2, "ON CONFLICT DO NOTHING");
        let expected = |tuples| format!("INSERT INTO pair (a, b) VALUES {tuples} ON CONFLICT DO NOTHING");
        assert_eq!(text(Marks::Plain), expected("(?,?),(?,?)"));
        assert_eq!(text(Marks::Numbered), expected("($1,$2),($3,$4)"));
        assert_eq!(bulk_statement::<Pair>(2, "ON CONFLICT DO NOTHING"), text(Marks::Numbered));
    }
}
