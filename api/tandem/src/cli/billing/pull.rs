//! `tandem billing fetch`: a puller that takes every file once, refuses what does not prove itself, and goes on where
//! it stopped. What it left in the directory is all that it knows: file and manifest, the manifest last.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use billing::file::{Manifest, file_name, manifest_name};
use indicatif::{ProgressBar, ProgressStyle};
use model::money::{Amount, Total};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::files::{self, Found};
use super::{Failure, Output};
use crate::cli::output::print;
use crate::client::{Client, ClientError};

/// Pulls all files after the last one that `directory` holds.
pub async fn run(client: &Client, stream: &str, directory: &Path, ack: bool, output: Output) -> Result<(), Failure> {
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let stream = files::find(client, stream).await?;
    let mut last = held(directory, &stream)?;
    let mut pulled = Vec::new();
    loop {
        let sequence = next(last.as_ref());
        let path = format!("/billing/streams/{}/files/{sequence}", stream.id);
        let bytes = match client.get(&format!("{path}/manifest")).await {
            Ok(bytes) => bytes,
            Err(ClientError::Status { status: 404, .. }) => break,
            Err(ClientError::Status { status: 503, .. }) => {
                eprintln!("file {sequence} is closed, and its bytes are still being written: come again for it");
                break;
            }
            Err(error) => return Err(error.into()),
        };
        let manifest = read_manifest(&bytes, &stream, last.as_ref())?;
        take(client, &path, directory, &manifest).await?;
        put(directory, &manifest_name(&manifest.name), &bytes)?;
        if ack {
            client.post(&format!("{path}/ack"), &json!({ "accepted": true })).await?;
        }
        last = Some(manifest.clone());
        pulled.push(manifest);
    }
    let json: Vec<_> = pulled
        .iter()
        .map(|file| {
            json!({
                "sequence": file.sequence, "file": directory.join(&file.name), "records": file.record_count,
                "totals": file.totals, "sha256": file.sha256,
            })
        })
        .collect();
    let rows = pulled.iter().map(|file| {
        let totals: Vec<String> = file.totals.iter().map(|t| format!("{} {}", t.amount, t.currency)).collect();
        let path = directory.join(&file.name).display().to_string();
        vec![file.sequence.to_string(), path, file.record_count.to_string(), totals.join(", "), file.sha256.clone()]
    });
    print(output, &json, &["sequence", "file", "records", "totals", "sha256"], rows)
}

fn next(last: Option<&Manifest>) -> i64 {
    last.map_or(1, |last| last.sequence + 1)
}

/// The last file that the directory holds, after all of them have proven themselves again.
fn held(directory: &Path, stream: &Found) -> Result<Option<Manifest>, Failure> {
    let mut last = None;
    loop {
        let path = directory.join(manifest_name(&file_name(&stream.name, next(last.as_ref()))));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(last),
            Err(error) => return Err(format!("{}: {error}", path.display()).into()),
        };
        let manifest = read_manifest(&bytes, stream, last.as_ref())?;
        let content = directory.join(&manifest.name);
        let proven = File::open(&content).map_err(Failure::from).and_then(|file| prove(file, &manifest));
        proven.map_err(|what| format!("{}: {what}; move it and its manifest away", content.display()))?;
        last = Some(manifest);
    }
}

/// The manifest of the file that follows `last`; refused is any other.
fn read_manifest(bytes: &[u8], stream: &Found, last: Option<&Manifest>) -> Result<Manifest, Failure> {
    let sequence = next(last);
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|error| format!("the manifest of file {sequence}: {error}"))?;
    // Its name becomes a path.
    if manifest.stream.id.to_string() != stream.id || manifest.name != file_name(&stream.name, sequence) {
        return Err(format!("the manifest of file {sequence} is that of another file, {:?}", manifest.name).into());
    }
    if manifest.sequence != sequence || manifest.previous_sha256.as_ref() != last.map(|last| &last.sha256) {
        return Err(format!("file {sequence} does not follow the file before it: do not load it").into());
    }
    Ok(manifest)
}

async fn take(client: &Client, path: &str, directory: &Path, manifest: &Manifest) -> Result<(), Failure> {
    let part = directory.join(format!("{}.part", manifest.name));
    let mut file = File::create(&part).map_err(|error| format!("{}: {error}", part.display()))?;
    let size = u64::try_from(manifest.size)?;
    let progress = ProgressBar::new(size)
        .with_style(ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}")?)
        .with_message(manifest.name.clone());
    let content = format!("{path}/content");
    let downloaded = client.download::<Failure>(&content, |piece| {
        progress.inc(u64::try_from(piece.len())?);
        if progress.position() > size {
            return Err(format!("{} is longer than its manifest says", manifest.name).into());
        }
        Ok(file.write_all(piece)?)
    });
    downloaded.await?;
    progress.finish_and_clear();
    file.sync_all()?;
    prove(File::open(&part)?, manifest).map_err(|what| format!("{}: {what}; do not load it", manifest.name))?;
    fs::rename(&part, directory.join(&manifest.name))?;
    sync_directory(directory)
}

fn put(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let part = directory.join(format!("{name}.part"));
    let mut file = File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, directory.join(name))?;
    sync_directory(directory)
}

fn sync_directory(directory: &Path) -> Result<(), Failure> {
    Ok(File::open(directory)?.sync_all()?)
}

/// Compares the bytes with what the manifest says of them: size, SHA-256, records, sum per currency.
fn prove(content: impl Read, manifest: &Manifest) -> Result<(), Failure> {
    let mut reader = csv::Reader::from_reader(Hashed { inner: content, size: 0, hash: Sha256::new() });
    let header = reader.headers()?.clone();
    let column = |name: &str| {
        header.iter().position(|found| found == name).ok_or_else(|| format!("the file has no column {name}"))
    };
    let (amount, currency) = (column("amount")?, column("currency")?);
    let (mut sums, mut records) = (BTreeMap::<String, Total>::new(), 0_i64);
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row)? {
        records += 1;
        let field = |index: usize| row.get(index).unwrap_or_default();
        sums.entry(field(currency).to_owned()).or_default().add(field(amount).parse::<Amount>()?);
    }
    let Hashed { size, hash, .. } = reader.into_inner();
    let found = sums.into_iter().map(|(currency, total)| (currency, total.to_string()));
    let said = manifest.totals.iter().map(|total| (total.currency.to_string(), total.amount.clone()));
    equal("size", size, manifest.size)?;
    equal("SHA-256", hex::encode(hash.finalize()), &manifest.sha256)?;
    equal("count of records", records, manifest.record_count)?;
    equal("sum per currency", shown(found.collect()), shown(said.collect()))
}

fn shown(sums: BTreeMap<String, String>) -> String {
    let sums: Vec<String> = sums.into_iter().map(|(currency, amount)| format!("{amount} {currency}")).collect();
    sums.join(", ")
}

fn equal(what: &str, found: impl ToString, said: impl ToString) -> Result<(), Failure> {
    let (found, said) = (found.to_string(), said.to_string());
    if found == said { Ok(()) } else { Err(format!("its {what} is {found}, the manifest says {said}").into()) }
}

/// A reader that remembers length and SHA-256 of all that was read.
struct Hashed<R> {
    inner: R,
    size: u64,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        self.size += length as u64;
        Ok(length)
    }
}
