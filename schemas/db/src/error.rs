//! What can go wrong between us and a database.

use model::change::ChangeError;

/// A database failed. The message of the driver is kept as source.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// It cannot be reached, is shutting down, or gave no connection in time. The same call is safe to repeat.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// Transactions collided more often than we retry.
    #[error("the database was too busy: {attempts} attempts collided")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// A unique index refused a row.
    #[error("a row with this key exists ({constraint})")]
    Unique {
        /// Name of the index or, on SQLite, the columns.
        constraint: String,
    },
    /// A foreign key refused a row.
    #[error("a row that this one refers to is missing, or still referred to")]
    ForeignKey,
    /// The disk is full.
    #[error("the disk of the database is full")]
    Full(#[source] sqlx::Error),
    /// Schema and program do not fit.
    #[error("the schema could not be migrated; run `tandem migrate` with this version of the program")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// A row holds what the program does not understand.
    #[error("column {column} holds a value that is not understood: {detail}")]
    Corrupt {
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A cursor is not where the consumer read it: another worker of the consumer was faster, or the step goes back.
    #[error("the cursor of {consumer} on {feed} cannot move from {from} to {to}: it stands elsewhere")]
    CursorMoved {
        /// The consumer.
        consumer: String,
        /// The source that it reads.
        feed: String,
        /// Where it was read.
        from: crate::cursor::Position,
        /// Where it was to go.
        to: crate::cursor::Position,
    },
    /// A lease has passed to another holder; the effects of its duty must not be written.
    #[error("the lease {name} is held by another node")]
    LeaseLost {
        /// The duty.
        name: String,
    },
    /// Anything else that the driver says.
    #[error("the database refused a statement")]
    Statement(#[source] sqlx::Error),
}

impl DbError {
    /// A value that cannot be read back.
    #[must_use]
    pub fn corrupt(column: &'static str, detail: impl ToString) -> Self {
        Self::Corrupt { column, detail: detail.to_string() }
    }

    /// Whether the outside is to blame and the same call may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Contended { .. } | Self::Full(_))
    }
}

/// SQLite's primary result code for "disk full".
const SQLITE_FULL: &str = "13";

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Tls(_) => {
                return Self::Unavailable(error);
            }
            sqlx::Error::Database(database) => {
                if database.is_unique_violation() {
                    let constraint = database.constraint().unwrap_or_else(|| database.message()).to_owned();
                    return Self::Unique { constraint };
                }
                if database.is_foreign_key_violation() {
                    return Self::ForeignKey;
                }
                // PostgreSQL: class 57P is "operator intervention" (shutdown), 08 "connection exception", 53100 disk full
                let code = database.code().unwrap_or_default();
                if code.starts_with("57P") || code.starts_with("08") {
                    return Self::Unavailable(error);
                }
                if code == "53100" || code == SQLITE_FULL {
                    return Self::Full(error);
                }
            }
            _ => {}
        }
        Self::Statement(error)
    }
}

impl From<sqlx::migrate::MigrateError> for DbError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Migration(error)
    }
}

/// Why a write transaction did not commit: the database failed, or the decision inside refused (`R`).
#[derive(Debug)]
pub enum WriteError<R> {
    /// The database failed.
    Db(DbError),
    /// The work inside refused; everything was rolled back.
    Refused(R),
}

impl<R> From<DbError> for WriteError<R> {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl<R> From<sqlx::Error> for WriteError<R> {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

impl From<DbError> for ChangeError {
    fn from(error: DbError) -> Self {
        let chain = with_sources(&error);
        if error.is_transient() { Self::Unavailable(chain) } else { Self::Internal(chain) }
    }
}

impl From<WriteError<Self>> for ChangeError {
    fn from(error: WriteError<Self>) -> Self {
        match error {
            WriteError::Db(error) => error.into(),
            WriteError::Refused(refused) => refused,
        }
    }
}

/// The error and what it stems from on one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |e| e.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Whether the database asks for the transaction to be run again: PostgreSQL's serialization failure and deadlock,
/// SQLite's busy and locked.
pub(crate) fn asks_for_retry(error: &DbError) -> bool {
    let (DbError::Statement(sqlx::Error::Database(database)) | DbError::Unavailable(sqlx::Error::Database(database))) =
        error
    else {
        return false;
    };
    let code = database.code().unwrap_or_default();
    matches!(&*code, "40001" | "40P01" | "5" | "6" | "261" | "517")
}
