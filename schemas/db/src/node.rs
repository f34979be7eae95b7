//! The node's own database `node.db`: at hand even while the store is away, and on a full disk.
//!
//! That the disk is full must still be told, so the file keeps free pages within itself, and a write-ahead log as long
//! as they ([`keep_reserve`]): SQLite writes there without asking the file system for space, and nobody else can take it,
//! as they could take that of a ballast file which is given up. It holds where a block of a file is written in place
//! (ext4, XFS, tmpfs), not where each write takes a new one (Btrfs, ZFS).

use std::convert::Infallible;
use std::path::Path;

use model::time::Timestamp;

use crate::error::{DbError, WriteError};
use crate::store::{Db, SqliteOptions, Tx};

/// The file in the data directory.
pub const FILE: &str = "node.db";

const GET: &str = "SELECT value FROM node_meta WHERE key = $1";
const SET: &str = "INSERT INTO node_meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2";

/// Pages of 4 KiB that are kept free: a thousand notifications.
const RESERVE_PAGES: i64 = 512;
/// Pages of the write-ahead log after which it is folded into the file and begins anew: far fewer than it is long, so
/// that it does not grow on a full disk.
const CHECKPOINT_PAGES: u32 = 64;
/// The key of the row that takes the pages and gives them up; another program does not write it.
const RESERVE_KEY: &str = "reserve";
/// Row of the last sign of life.
const ALIVE_KEY: &str = "alive_at";

/// Two hexadecimal digits an octet.
const TAKE: &str = "INSERT INTO node_meta (key, value) VALUES ($1, hex(zeroblob($2 * 4096 / 2))) \
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const GIVE_UP: &str = "DELETE FROM node_meta WHERE key = $1";
const FREE_PAGES: &str = "PRAGMA freelist_count";
const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// Opens (and makes and migrates) the database of the node whose data lie in `dir`.
///
/// # Errors
/// When the file cannot be opened or migrated.
pub async fn open(dir: &Path) -> Result<Db, DbError> {
    let db = Db::open_sqlite_with(&SqliteOptions { path: dir.join(FILE) }, CHECKPOINT_PAGES).await?;
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

/// Fills the file with free pages, and its write-ahead log to the same length, from which writes are served on a full
/// disk. Whoever opens the database for long calls it: the log goes with the last one who closes it.
///
/// # Errors
/// When the database fails, as on a disk that is full already.
pub async fn keep_reserve(db: &Db) -> Result<(), DbError> {
    let Db::Sqlite(pools) = db else { return Ok(()) };
    let mut connection = pools.writer.acquire().await?;
    // Both in commits of their own: pages that are freed in the transaction that took them are never written.
    sqlx::query(TAKE).bind(RESERVE_KEY).bind(RESERVE_PAGES).execute(&mut *connection).await?;
    sqlx::query(CHECKPOINT).execute(&mut *connection).await?;
    sqlx::query(GIVE_UP).bind(RESERVE_KEY).execute(&mut *connection).await?;
    Ok(())
}

/// Whether half of the reserve is used up: time to call [`keep_reserve`] again.
///
/// # Errors
/// When the database fails.
pub async fn reserve_is_low(db: &Db) -> Result<bool, DbError> {
    let free: i64 = crate::on_db!(db, c => sqlx::query_scalar(FREE_PAGES).fetch_one(c).await)?;
    Ok(free < RESERVE_PAGES / 2)
}

/// A sign of life, which is on the disk when this returns.
///
/// # Errors
/// When the database cannot be written.
pub async fn alive(db: &Db, now: Timestamp) -> Result<(), DbError> {
    let written = db.write::<_, Infallible, _>(move |tx| {
        let text = now.0.to_string();
        Box::pin(async move { Ok(set_meta(tx, ALIVE_KEY, &text).await?) })
    });
    written.await.map_err(|error| match error {
        WriteError::Db(error) => error,
        WriteError::Refused(never) => match never {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_reserve_lies_in_the_file_and_its_log_and_is_made_again_when_it_is_used_up() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path()).await.unwrap();
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        let reserve = u64::try_from(RESERVE_PAGES * 4_096).unwrap();
        assert!(reserve_is_low(&db).await.unwrap());
        keep_reserve(&db).await.unwrap();
        assert!(!reserve_is_low(&db).await.unwrap());
        let (file, log) = (size(FILE), size("node.db-wal"));
        assert!(file >= reserve && log >= reserve, "{file} {log}");
        // Thousands of pages of commits need neither a longer file nor a longer log.
        for n in 0..2_000 {
            alive(&db, Timestamp(n)).await.unwrap();
        }
        assert_eq!((size(FILE), size("node.db-wal")), (file, log));
        assert_eq!(meta(&db, ALIVE_KEY).await.unwrap().as_deref(), Some("1999"));
        keep_reserve(&db).await.unwrap();
        assert_eq!(size(FILE), file, "what is there is used again");
        let text = "x".repeat(usize::try_from(reserve * 3 / 4).unwrap());
        let used = db.write::<_, Infallible, _>(move |tx| {
            let text = text.clone();
            Box::pin(async move { Ok(set_meta(tx, "large", &text).await?) })
        });
        assert!(used.await.is_ok());
        assert!(reserve_is_low(&db).await.unwrap());
        assert_eq!(size(FILE), file);
        keep_reserve(&db).await.unwrap();
        assert!(!reserve_is_low(&db).await.unwrap());
        db.close().await;
    }
}
