//! The key file: 256 random bits, in hex, for the owner's eyes alone. Without it sealed secrets cannot be read; with
//! the database alone nobody can read them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use model::secret::Secret;

/// Octets of the key.
const KEY_LENGTH: usize = 32;
/// A key file is 64 digits and a line end; what is longer is another file.
const FILE_MAX: u64 = 256;
/// Bits of the mode that must be off: group and others.
const FOREIGN: u32 = 0o077;

/// The key that seals secrets in the store.
#[derive(Debug, Clone)]
pub struct KeyFile {
    key: Secret<[u8; KEY_LENGTH]>,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or made.
    #[error("the key file {path} cannot be opened or made; check the directory and its owner")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("the key file {path} may be used by others (mode {mode:o}); run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It does not hold a key.
    #[error("the key file {path} does not hold 64 hex digits; restore it from the backup of this installation")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bits.
    #[error("the system gives no random bits: {0}")]
    Random(getrandom::Error),
}

impl KeyFile {
    /// Reads the key, or draws one and keeps it when there is no such file.
    ///
    /// # Errors
    /// [`KeyFileError`]. A file that is there is never overwritten.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyFileError> {
        match Self::open(path) {
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Self::create(path),
            other => other,
        }
    }

    /// Reads the key.
    ///
    /// # Errors
    /// [`KeyFileError`]; of kind `NotFound` when there is no such file.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |source| KeyFileError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & FOREIGN != 0 {
            return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut text).map_err(failed)?;
        let mut key = [0; KEY_LENGTH];
        hex::decode_to_slice(text.trim_ascii(), &mut key)
            .map_err(|_| KeyFileError::Malformed { path: path.to_owned() })?;
        Ok(Self { key: Secret::new(key) })
    }

    /// Written whole under another name and then linked, so that nobody ever sees half a key, and of two processes
    /// that make one at the same time both use the same.
    fn create(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |source| KeyFileError::Io { path: path.to_owned(), source };
        let key = random::<KEY_LENGTH>().map_err(KeyFileError::Random)?;
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.new", hex::encode(random::<8>().map_err(KeyFileError::Random)?)));
        let draft = PathBuf::from(name);
        let written = write_new(&draft, &key).and_then(|()| match fs::hard_link(&draft, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        });
        let removed = fs::remove_file(&draft);
        written.and(removed).map_err(failed)?;
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            File::open(directory).and_then(|d| d.sync_all()).map_err(failed)?;
        }
        Self::open(path)
    }

    pub(crate) const fn expose(&self) -> &[u8; KEY_LENGTH] {
        self.key.expose()
    }
}

fn write_new(path: &Path, key: &[u8; KEY_LENGTH]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", hex::encode(key))?;
    file.sync_all()
}

/// Random octets of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.key");
        let first = KeyFile::open_or_create(&path).unwrap();
        let again = KeyFile::open_or_create(&path).unwrap();
        assert_eq!(first.expose(), again.expose());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft stays behind");
        assert!(!format!("{first:?}").contains(&hex::encode(first.expose())));
    }

    #[test]
    fn refuses_what_others_may_read_and_what_is_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.key");
        KeyFile::open_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(KeyFile::open_or_create(&path), Err(KeyFileError::Exposed { .. })), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key").unwrap();
        assert!(matches!(KeyFile::open_or_create(&path), Err(KeyFileError::Malformed { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "no key", "it is never overwritten");
        assert!(matches!(KeyFile::open_or_create(&dir.path().join("a/b")), Err(KeyFileError::Io { .. })));
    }
}
