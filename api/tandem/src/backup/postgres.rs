//! The store on PostgreSQL, by the server's own tools: one snapshot in the custom format.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reqwest::Url;

/// Where Debian puts versions of the tools, one folder each.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";
/// Parameters of the URL that are ours, or that must not be seen in a list of processes.
const PARAMETERS_LEFT_OUT: [&str; 2] = ["statement-cache-capacity", "password"];

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The URL.
    #[error("database.url cannot be read: {0}")]
    Url(String),
    /// It cannot be run.
    #[error("{tool} cannot be run: {source}; install the client programs of PostgreSQL")]
    Run {
        /// Its name.
        tool: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It failed.
    #[error("{tool} failed: {text}")]
    Failed {
        /// Its name.
        tool: &'static str,
        /// What it said.
        text: String,
    },
}

pub(super) fn dump(url: &str, to: &Path) -> Result<(), ToolError> {
    let file: [OsString; 2] = ["--file".into(), to.into()];
    run(
        "pg_dump",
        url,
        ["--format=custom", "--no-owner", "--no-privileges"].map(OsString::from).into_iter().chain(file),
    )?;
    let synced = std::fs::File::open(to).and_then(|file| file.sync_all());
    synced.map_err(|source| ToolError::Run { tool: "pg_dump", source })
}

/// Plays a dump into a database without tables: all of it or nothing.
pub(super) fn load(url: &str, from: &Path) -> Result<(), ToolError> {
    let options = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"].map(OsString::from);
    run("pg_restore", url, options.into_iter().chain([from.into()]))
}

fn run(tool: &'static str, url: &str, arguments: impl Iterator<Item = OsString>) -> Result<(), ToolError> {
    let (url, password) = without_password(url).map_err(ToolError::Url)?;
    let mut command = Command::new(program(tool));
    command.arg("--no-password").arg("--dbname").arg(url).args(arguments).stdin(Stdio::null());
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    let output = command.output().map_err(|source| ToolError::Run { tool, source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(ToolError::Failed { tool, text: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// The newest version that Debian has installed, which reads every older server; else what the path gives.
fn program(tool: &str) -> PathBuf {
    let versions = std::fs::read_dir(DEBIAN_ROOT).into_iter().flatten().filter_map(Result::ok);
    let found = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((version, entry.path().join("bin").join(tool))).filter(|(_, path)| path.is_file())
    });
    found.max().map_or_else(|| tool.into(), |(_, path)| path)
}

/// The URL as it may stand in a list of processes, and the password, which travels in the environment.
fn without_password(url: &str) -> Result<(String, Option<String>), String> {
    let mut url = Url::parse(url).map_err(|error| error.to_string())?;
    let mut password = url.password().map(percent_decoded);
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    password = pairs.iter().find(|(key, _)| key == "password").map(|(_, value)| value.clone()).or(password);
    url.set_query(None);
    for (key, value) in pairs.iter().filter(|(key, _)| !PARAMETERS_LEFT_OUT.contains(&key.as_str())) {
        url.query_pairs_mut().append_pair(key, value);
    }
    if url.password().is_some() && url.set_password(None).is_err() {
        return Err("the password cannot be taken out of it".to_owned());
    }
    Ok((url.to_string(), password))
}

/// RFC 3986, section 2.1; a percent sign without two hex digits stands for itself.
fn percent_decoded(text: &str) -> String {
    let octets = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(octets.len()), 0);
    while let Some(octet) = octets.get(at) {
        let mut value = [0];
        let is_encoded = *octet == b'%'
            && octets.get(at + 1..at + 3).is_some_and(|digits| hex::decode_to_slice(digits, &mut value).is_ok());
        decoded.push(if is_encoded { value[0] } else { *octet });
        at += if is_encoded { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_leave_the_url() {
        for (url, shown, password) in [
            ("postgres://t:ge%40h%25@db:5433/tandem", "postgres://t@db:5433/tandem", Some("ge@h%")),
            (
                "postgres://t@db/tandem?password=geheim&sslmode=require",
                "postgres://t@db/tandem?sslmode=require",
                Some("geheim"),
            ),
            ("postgres://t:50%@db/tandem?statement-cache-capacity=9", "postgres://t@db/tandem", Some("50%")),
            ("postgres://t@localhost/tandem", "postgres://t@localhost/tandem", None),
        ] {
            assert_eq!(without_password(url), Ok((shown.to_owned(), password.map(str::to_owned))), "{url}");
        }
        assert!(without_password("tandem").is_err());
    }
}
