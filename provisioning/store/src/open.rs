//! Store and key file belong together: a node that has another key would seal what nobody else can open, so it does not
//! start.

use std::path::{Path, PathBuf};

use db::sqlx;
use db::{Db, DbError, Tx, WriteError, on_tx};
use uuid::Uuid;

use crate::key::{KeyFile, KeyFileError};
use crate::seal::Sealer;
use crate::{ProvisioningStore, subscriber, trunk};

/// Where the check value lies, and what it says when it is opened.
const KEY_CHECK: &str = "installation.key_check";
const CHECK: &str = "tandem";

db::statements! {
    /// The installation and its check value.
    INSTALLATION = "SELECT id, key_check FROM installation";
    /// Kept once.
    ADOPT = "UPDATE installation SET key_check = $2 WHERE id = $1 AND key_check IS NULL";
    /// A sealed secret of each kind: what an installation without check value is known by.
    SUBSCRIBER = "SELECT id, ha1_md5 FROM subscriber ORDER BY id LIMIT 1";
    TRUNK = "SELECT id, password FROM trunk WHERE password IS NOT NULL ORDER BY id LIMIT 1";
}

/// Why store and key file could not be opened together.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// There is an installation and no key file.
    #[error(
        "there is no key file {path}, and the store holds an installation; check the data directory, or restore the file from the backup of this installation"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is no installation yet.
    #[error(
        "this installation has no provider yet; run `tandem account init --name NAME --timezone ZONE --currency CODE` first"
    )]
    Empty,
    /// The secrets of the store were sealed with another key.
    #[error(
        "the key file {path} is not that of this store; check the data directory and the database that are configured, or restore the key file from the backup of this installation"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[source] DbError),
}

impl ProvisioningStore {
    /// Opens provisioning over a migrated database, with the key file at `path`, which must be there and be that of the
    /// store.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(db: Db, path: &Path) -> Result<Self, OpenError> {
        match KeyFile::open(path) {
            Ok(key) => {
                let store = Self::new(db, &key);
                store.check_key(path).await?;
                Ok(store)
            }
            Err(KeyFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let found = db.read::<_, DbError, _>(|tx| Box::pin(installation(tx))).await;
                let path = path.to_owned();
                Err(found.map_or_else(OpenError::Store, |found| {
                    found.map_or(OpenError::Empty, |_| OpenError::Missing { path })
                }))
            }
            Err(other) => Err(other.into()),
        }
    }

    /// As [`ProvisioningStore::open`], for the one who makes an installation: draws the key when there is neither key nor
    /// installation.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn create(db: Db, path: &Path) -> Result<Self, OpenError> {
        match Self::open(db.clone(), path).await {
            Err(OpenError::Empty) => Ok(Self::new(db, &KeyFile::open_or_create(path)?)),
            other => other,
        }
    }

    /// Whether the key is that of the store; notes it in an installation from before the check.
    async fn check_key(&self, path: &Path) -> Result<(), OpenError> {
        let foreign = || OpenError::Foreign { path: path.to_owned() };
        let db = &self.db;
        let found = db.read::<_, DbError, _>(|tx| Box::pin(installation(tx))).await.map_err(OpenError::Store)?;
        let Some((id, check)) = found else { return Ok(()) };
        if let Some(check) = check {
            let opened = self.sealer.open(KEY_CHECK, id, &check);
            return if opened.is_ok_and(|text| text.expose() == CHECK) { Ok(()) } else { Err(foreign()) };
        }
        let sealed = db.read::<_, DbError, _>(|tx| Box::pin(samples(tx))).await.map_err(OpenError::Store)?;
        if sealed.iter().any(|(column, row, sealed)| self.sealer.open(column, *row, sealed).is_err()) {
            return Err(foreign());
        }
        let check = sealed_check(&self.sealer, id).map_err(OpenError::Store)?;
        let kept = db.write::<(), std::convert::Infallible, _>(move |tx| {
            let check = check.clone();
            Box::pin(async move {
                on_tx!(tx, c => sqlx::query(ADOPT).bind(id).bind(check).execute(c).await.map(|_| ()))?;
                Ok(())
            })
        });
        kept.await.map_err(|error| match error {
            WriteError::Db(error) => OpenError::Store(error),
            WriteError::Refused(never) => match never {},
        })
    }
}

/// What the installation `id` keeps to know the key by.
pub(crate) fn sealed_check(sealer: &Sealer, id: Uuid) -> Result<Vec<u8>, DbError> {
    sealer.seal(KEY_CHECK, id, CHECK)
}

async fn installation(tx: &mut Tx) -> Result<Option<(Uuid, Option<Vec<u8>>)>, DbError> {
    Ok(on_tx!(tx, c => sqlx::query_as(INSTALLATION).fetch_optional(c).await)?)
}

/// A sealed value of each kind.
async fn samples(tx: &mut Tx) -> Result<Vec<(&'static str, Uuid, Vec<u8>)>, DbError> {
    let subscriber: Option<(Uuid, Vec<u8>)> =
        on_tx!(&mut *tx, c => sqlx::query_as(SUBSCRIBER).fetch_optional(c).await)?;
    let trunk: Option<(Uuid, Vec<u8>)> = on_tx!(tx, c => sqlx::query_as(TRUNK).fetch_optional(c).await)?;
    let subscriber = subscriber.map(|(row, sealed)| (subscriber::HA1_MD5, row, sealed));
    Ok(subscriber.into_iter().chain(trunk.map(|(row, sealed)| (trunk::PASSWORD, row, sealed))).collect())
}
