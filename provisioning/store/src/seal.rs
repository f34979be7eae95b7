//! Sealing: ChaCha20-Poly1305 (RFC 8439) under a key derived from the key file. The row and the column are bound in,
//! so a sealed value that is moved to another row does not open.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use db::DbError;
use model::secret::Secret;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::key::{KeyFile, random};

/// First octet of a sealed value; another layout gets another.
const VERSION: u8 = 1;
/// Octets of the nonce, random per value.
const NONCE_LENGTH: usize = 12;

/// Which column a sealed value lies in; a failure names it.
pub(crate) type Column = &'static str;

/// Seals and opens; keys requests for idempotency.
#[derive(Debug)]
pub(crate) struct Sealer {
    seal: Secret<[u8; 32]>,
    request: Secret<[u8; 32]>,
}

impl Sealer {
    pub(crate) fn new(key: &KeyFile) -> Self {
        Self { seal: derive(key, b"tandem-seal-1"), request: derive(key, b"tandem-request-1") }
    }

    pub(crate) fn seal(&self, column: Column, row: Uuid, secret: &str) -> Result<Vec<u8>, DbError> {
        let nonce = drawn::<NONCE_LENGTH>()?;
        let aad = bound(column, row);
        let payload = Payload { msg: secret.as_bytes(), aad: &aad };
        let sealed = self.cipher().encrypt(Nonce::from_slice(&nonce), payload);
        let sealed = sealed.map_err(|_| DbError::corrupt(column, "it cannot be sealed"))?;
        Ok([&[VERSION], &nonce[..], &sealed].concat())
    }

    pub(crate) fn open(&self, column: Column, row: Uuid, sealed: &[u8]) -> Result<Secret<String>, DbError> {
        let refused = || DbError::corrupt(column, format!("{row} cannot be opened with this key file"));
        let (version, rest) = sealed.split_first().ok_or_else(refused)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LENGTH).ok_or_else(refused)?;
        if *version != VERSION {
            return Err(refused());
        }
        let payload = Payload { msg: sealed, aad: &bound(column, row) };
        let secret = self.cipher().decrypt(Nonce::from_slice(nonce), payload).map_err(|_| refused())?;
        String::from_utf8(secret).map(Secret::new).map_err(|_| refused())
    }

    /// Stands for a secret in the hash of a request: hashed twice under the key, so that neither the secret can be
    /// guessed from the table nor the hash be extended.
    pub(crate) fn request_digest(&self, secret: &Secret<String>) -> [u8; 32] {
        let key = self.request.expose();
        let inner = Sha256::new().chain_update(key).chain_update(secret.expose()).finalize();
        Sha256::new().chain_update(key).chain_update(inner).finalize().into()
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(Key::from_slice(self.seal.expose()))
    }
}

fn derive(key: &KeyFile, purpose: &[u8]) -> Secret<[u8; 32]> {
    Secret::new(Sha256::new().chain_update(purpose).chain_update(key.expose()).finalize().into())
}

fn bound(column: Column, row: Uuid) -> Vec<u8> {
    [column.as_bytes(), row.as_bytes()].concat()
}

/// Random octets, or the database's failure: nothing can be written without them.
pub(crate) fn drawn<const N: usize>() -> Result<[u8; N], DbError> {
    random().map_err(|error| DbError::Unavailable(db::sqlx::Error::Io(std::io::Error::other(error.to_string()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_where_it_was_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let key = |name: &str| KeyFile::open_or_create(&dir.path().join(name)).unwrap();
        let (sealer, other) = (Sealer::new(&key("a")), Sealer::new(&key("b")));
        let (row, column) = (Uuid::from_u128(7), "trunk.password");
        let sealed = sealer.seal(column, row, "secret").unwrap();
        assert_eq!(sealer.open(column, row, &sealed).unwrap().expose(), "secret");
        assert_ne!(sealed, sealer.seal(column, row, "secret").unwrap(), "a nonce is used once");
        assert!(sealer.open(column, Uuid::from_u128(8), &sealed).is_err());
        assert!(sealer.open("subscriber.ha1_md5", row, &sealed).is_err());
        assert!(other.open(column, row, &sealed).is_err());
        for length in 0..sealed.len() {
            assert!(sealer.open(column, row, &sealed[..length]).is_err());
        }
        let secret = Secret::new("secret".to_owned());
        assert_ne!(sealer.request_digest(&secret), other.request_digest(&secret));
    }
}
