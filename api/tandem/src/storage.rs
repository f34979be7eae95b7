//! Opens the databases that the configuration names.

use std::path::{Path, PathBuf};

use db::{Db, DbError, PostgresOptions, SqliteOptions};

use crate::config::Config;

/// File of the embedded store in the data directory.
const STORE_FILE: &str = "store.db";

/// Opens the store and brings its schema to this version of the program.
///
/// # Errors
/// When it cannot be reached or migrated.
pub async fn open_store(config: &Config) -> Result<Db, DbError> {
    let store = connect(config).await?;
    store.migrate().await?;
    Ok(store)
}

/// Opens a store that is there, and changes nothing in it; none when the file of the embedded store is missing.
///
/// # Errors
/// When it cannot be reached.
pub async fn open_existing_store(config: &Config) -> Result<Option<Db>, DbError> {
    if config.database.url.is_empty() && !config.node.data_dir.join(STORE_FILE).is_file() {
        return Ok(None);
    }
    connect(config).await.map(Some)
}

/// Connects, and changes nothing but that an embedded store is made when it is missing.
pub(crate) async fn connect(config: &Config) -> Result<Db, DbError> {
    if config.database.url.is_empty() {
        Db::open_sqlite(&SqliteOptions { path: config.node.data_dir.join(STORE_FILE) }).await
    } else {
        Db::connect_postgres(&PostgresOptions {
            url: config.database.url.clone(),
            connections_max: config.database.connections_max,
        })
        .await
    }
}

/// The folder of the embedded store's files: where a link leads, if `store.db` is one.
#[must_use]
pub fn store_folder(config: &Config) -> PathBuf {
    let file = config.node.data_dir.join(STORE_FILE);
    let file = std::fs::canonicalize(&file).unwrap_or(file);
    file.parent().map_or_else(|| config.node.data_dir.clone(), Path::to_owned)
}

/// Where the key lies that seals secrets in the store.
#[must_use]
pub fn key_file(config: &Config) -> PathBuf {
    config.node.data_dir.join("secrets.key")
}
