//! Storage: the store over SQLite or PostgreSQL, the node's own database, the node journal, and what travels with
//! every transaction (events, audit, idempotency, outbox, cursors).
//!
//! What it does: opens and migrates databases, runs write transactions with retry ([`Db::write`]), gives one SQL text
//! to both engines ([`on_db!`], [`on_tx!`]), appends to the feeds. What it never does: decide anything about tenants,
//! calls or money; know a table of one folder. Each `store` crate brings its own statements ([`statements!`]).
//!
//! A store method is: `db.write(move |tx| Box::pin(async move { load the view; decide; write; append the event }))`.
//! Mutations go through [`pipeline`]; a consumer of a feed ends with [`cursor::advance`]. Rows of [`counter`] are locked
//! last, in the order `rated`, `audit`, `event`, so that no two transactions wait for each other and nobody waits for them
//! long.

pub mod backup;
pub mod change;
pub mod counter;
pub mod cursor;
pub mod dialect;
pub mod error;
pub mod feed;
pub mod journal;
pub mod lease;
pub mod node;
pub mod outbox;
pub mod pipeline;
pub mod retention;
pub mod store;
pub mod system;

pub use cursor::Position;
pub use error::{DbError, WriteError};
pub use store::{Db, PostgresOptions, SqliteOptions, Tx};

/// Re-exported, so that the macros and the store crates speak of one version.
pub use sqlx;

/// Every statement of this crate that runs on both engines; a test prepares each on both.
#[doc(hidden)]
#[must_use]
pub fn all_statements() -> Vec<&'static str> {
    [change::ALL, counter::ALL, cursor::ALL, feed::ALL, lease::ALL, outbox::ALL].concat()
}
