//! The node's own database `node.db`: at hand even while the store is away.

use std::path::Path;

use crate::error::DbError;
use crate::store::{Db, SqliteOptions, Tx};

/// The file in the data directory.
pub const FILE: &str = "node.db";

const GET: &str = "SELECT value FROM node_meta WHERE key = $1";
const SET: &str = "INSERT INTO node_meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2";

/// Opens (and makes and migrates) the database of the node whose data lie in `dir`.
///
/// # Errors
/// When the file cannot be opened or migrated.
pub async fn open(dir: &Path) -> Result<Db, DbError> {
    let db = Db::open_sqlite(&SqliteOptions { path: dir.join(FILE) }).await?;
    db.migrate_node().await?;
    Ok(db)
}

/// A value that the node keeps for itself, such as its SNMP engine boots.
///
/// # Errors
/// When the database fails.
pub async fn meta(db: &Db, key: &str) -> Result<Option<String>, DbError> {
    Ok(crate::on_db!(db, c => sqlx::query_scalar(GET).bind(key).fetch_optional(c).await)?)
}

/// Sets such a value.
///
/// # Errors
/// When the database fails.
pub async fn set_meta(tx: &mut Tx, key: &str, value: &str) -> Result<(), DbError> {
    crate::on_tx!(tx, c => sqlx::query(SET).bind(key).bind(value).execute(c).await.map(|_| ()))?;
    Ok(())
}
