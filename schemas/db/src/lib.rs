//! Storage: the store over SQLite or PostgreSQL, the node's own database, the node journal, and what travels with
//! every transaction (events, audit, idempotency, outbox, cursors).
//!
//! What it does: opens and migrates databases, runs write transactions with retry ([`Db::write`]), gives one SQL text
//! to both engines ([`on_db!`], [`on_tx!`]), appends to the feeds. What it never does: decide anything about tenants,
//! calls or money; know a table of one folder. Each `store` crate brings its own statements ([`statements!`]).
//!
//! A store method is: `db.write(move |tx| Box::pin(async move { load the view; decide; write; append the event }))`.

pub mod error;
pub mod store;
pub mod system;

pub use error::{DbError, WriteError};
pub use store::{Db, PostgresOptions, SqliteOptions, Tx};

/// Re-exported, so that the macros and the store crates speak of one version.
pub use sqlx;
