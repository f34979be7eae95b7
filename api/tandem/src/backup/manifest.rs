//! `manifest.json` of a copy: every file with its size and SHA-256.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};

use model::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Its name in the copy.
const NAME: &str = "manifest.json";
/// Another shape gets another number.
const FORMAT: u32 = 1;
/// A line of some 200 octets for each of 300,000 files.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// Version of the program that made it.
    pub version: String,
    /// When it was begun, milliseconds since 1970 (UTC).
    pub made_at_ms: i64,
    /// The file with the store: `store.db` (SQLite) or `store.pgdump` (PostgreSQL).
    pub store: String,
    /// Every other file of the copy.
    pub files: Vec<Entry>,
}

/// A file of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its path below the copy.
    pub path: String,
    /// Octets.
    pub bytes: u64,
    /// SHA-256, in hex.
    pub sha256: String,
}

/// A copy that is not what its manifest says.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file cannot be read or written.
    #[error("{} cannot be used", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifest itself.
    #[error("{} is no manifest of a backup that this version understands: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A file is another one than was copied.
    #[error("{} is not the file that was copied: the backup is damaged", .0.display())]
    Differs(PathBuf),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ManifestError {
    let path = path.to_owned();
    move |source| ManifestError::Io { path, source }
}

impl Manifest {
    /// The manifest of what lies in `dir`.
    pub(super) fn of(dir: &Path, store: &str, now: Timestamp) -> Result<Self, ManifestError> {
        let mut files = Vec::new();
        collect(dir, dir, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Self { format: FORMAT, version, made_at_ms: now.0, store: store.to_owned(), files })
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), ManifestError> {
        let path = dir.join(NAME);
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        let written = File::create_new(&path).and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
        written.map_err(at(&path))
    }

    /// Reads the manifest of a copy and compares every file with it.
    ///
    /// # Errors
    /// [`ManifestError`]: the first file that is not as it was.
    pub fn verify(dir: &Path) -> Result<Self, ManifestError> {
        let path = dir.join(NAME);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut text));
        read.map_err(at(&path))?;
        let malformed = |detail: String| ManifestError::Malformed { path: path.clone(), detail };
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(malformed(format!("its format is {}", manifest.format)));
        }
        if !manifest.files.iter().any(|entry| entry.path == manifest.store) {
            return Err(malformed("it lists no store".to_owned()));
        }
        for entry in &manifest.files {
            let below = Path::new(&entry.path);
            // In no other spelling: `journal//1` is a file twice.
            let is_plain = below.components().collect::<PathBuf>().as_os_str() == entry.path.as_str();
            if !is_plain || below.components().any(|part| !matches!(part, Component::Normal(_))) {
                return Err(malformed(format!("{} does not lie below it", entry.path)));
            }
            let path = dir.join(below);
            if measure(&path)? != (entry.bytes, entry.sha256.clone()) {
                return Err(ManifestError::Differs(path));
            }
        }
        Ok(manifest)
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<Entry>) -> Result<(), ManifestError> {
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
            continue;
        }
        let below = path.strip_prefix(root).ok().and_then(Path::to_str).map(str::to_owned);
        let detail = "its name is no text".to_owned();
        let below = below.ok_or_else(|| ManifestError::Malformed { path: path.clone(), detail })?;
        let (bytes, sha256) = measure(&path)?;
        files.push(Entry { path: below, bytes, sha256 });
    }
    Ok(())
}

fn measure(path: &Path) -> Result<(u64, String), ManifestError> {
    let mut hash = Sha256::new();
    let bytes = File::open(path).and_then(|mut file| io::copy(&mut file, &mut hash)).map_err(at(path))?;
    Ok((bytes, hex::encode(hash.finalize())))
}
