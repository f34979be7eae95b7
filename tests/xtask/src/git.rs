//! What git says about files: which exist, which changed.

use std::path::Path;
use std::process::Command;

/// The branch that a change is compared with when nobody names another.
const TRUNK: &str = "origin/main";

/// Why git gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// git does not run.
    #[error("git cannot be started: {0}")]
    Start(std::io::Error),
    /// git refuses.
    #[error("git {arguments}: {message}")]
    Refused {
        /// What it was asked.
        arguments: String,
        /// What it said.
        message: String,
    },
}

/// All files of the tree, those not yet added too, as paths below the root.
///
/// # Errors
/// [`GitError`].
pub fn files(root: &Path) -> Result<Vec<String>, GitError> {
    let mut files = paths(root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    files.sort();
    files.dedup();
    Ok(files)
}

/// Files that differ from a revision, committed or not, added or deleted.
///
/// # Errors
/// [`GitError`].
pub fn changed_files(root: &Path, base: &str) -> Result<Vec<String>, GitError> {
    let mut files = paths(root, &["diff", "-z", "--name-only", "--no-renames", base, "--"])?;
    files.extend(paths(root, &["ls-files", "-z", "--others", "--exclude-standard"])?);
    files.sort();
    files.dedup();
    Ok(files)
}

/// Where this branch left the trunk; HEAD when there is no trunk to be seen.
///
/// # Errors
/// [`GitError`].
pub fn branch_point(root: &Path) -> Result<String, GitError> {
    match ask(root, &["merge-base", "HEAD", TRUNK]) {
        Ok(revision) => Ok(revision.trim().to_owned()),
        Err(GitError::Refused { .. }) => Ok("HEAD".to_owned()),
        Err(error) => Err(error),
    }
}

fn paths(root: &Path, arguments: &[&str]) -> Result<Vec<String>, GitError> {
    Ok(ask(root, arguments)?.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

fn ask(root: &Path, arguments: &[&str]) -> Result<String, GitError> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().map_err(GitError::Start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(GitError::Refused { arguments: arguments.join(" "), message })
}
