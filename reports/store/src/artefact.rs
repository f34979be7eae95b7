//! Finished reports on disk: `<run>.html`, `<run>.csv` and `<run>.xlsx`, whole or not there.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use model::id::RunId;
use reports::resource::Format;
use sha2::{Digest as _, Sha256};

/// The name of the file.
pub(crate) fn name(run: RunId, format: Format) -> String {
    match format {
        Format::Html => format!("{run}.html"),
        Format::Csv => format!("{run}.csv"),
        Format::Xlsx => format!("{run}.xlsx"),
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Writes the file under a name of its own, makes it durable, gives it its final name, and makes that durable.
/// `attempt` keeps two workers apart; both write the same bytes.
pub(crate) async fn write(
    folder: &Path,
    run: RunId,
    format: Format,
    attempt: i64,
    bytes: Vec<u8>,
) -> std::io::Result<()> {
    let folder: PathBuf = folder.to_owned();
    let name = name(run, format);
    let written = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&folder)?;
        let part = folder.join(format!("{name}.{attempt}.part"));
        let mut file = std::fs::File::create(&part)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, folder.join(name))?;
        std::fs::File::open(&folder)?.sync_all()
    });
    written.await.unwrap_or_else(|ended| Err(std::io::Error::other(ended)))
}

/// Reads the file; none when it is not on this node.
pub(crate) async fn read(folder: &Path, run: RunId, format: Format) -> std::io::Result<Option<Vec<u8>>> {
    match tokio::fs::read(folder.join(name(run, format))).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
