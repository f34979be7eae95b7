//! `tandem apply` and `tandem export`: many changes from one file, and what there is as such a file, through the daemon,
//! as the one whose token it is.

use std::collections::HashMap;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use provisioning::bulk::Fields;
use provisioning::bulk::file::{self, Format};
use provisioning::bulk::job::ALL_OR_NOTHING_MAX;
use serde_json::{Map, Value, json};

use super::output::{cell, print};
use super::remote::Remote;
use super::tenants::Tenants;
use super::{Failure, Output};
use crate::client::{Client, ClientError};
use crate::config::Config;

/// How often a job is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(200);
/// Rows of one table; all others are in the file of results.
const SHOWN_MAX: usize = 200;
/// What stands where a secret is.
const HIDDEN: &str = "(set)";

/// Make what a file says so: accounts, domains, sites, subscribers and numbers, by their names. Everything is checked
/// before anything is changed, and the difference is shown.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    remote: Remote,
    /// The file: .yaml (tenants, nested), .jsonl or .csv (an object in each line).
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Show what it would do, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do the lines that can be done, though others are refused, however many there are. Without it, one refused line and
    /// nothing is done, and a file has at most 10,000 lines.
    #[arg(long)]
    partial: bool,
    /// Write the result of every line, with the SIP passwords that were drawn, to this new file (.jsonl or .csv).
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// Tenants, nested.
    Yaml,
    /// An object in each line.
    Jsonl,
    /// A table.
    Csv,
}

/// Write what there is at and below the account of the token, in the form that 'apply' takes.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    remote: Remote,
    /// The form.
    #[arg(long, value_enum, default_value_t = ExportFormat::Yaml)]
    format: ExportFormat,
    /// With jsonl and csv: kinds of objects, separated by commas: account, domain, site, number, subscriber; left
    /// out: all.
    #[arg(long, default_value = "")]
    kinds: String,
    /// Where to; left out: standard output.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub async fn export(args: ExportArgs, config: Config) -> Result<ExitCode, Failure> {
    let client = args.remote.client(&config)?;
    let format = if args.format == ExportFormat::Csv { "csv" } else { "jsonl" };
    if args.format == ExportFormat::Yaml && !args.kinds.is_empty() {
        return Err("YAML holds tenants with all that they have: --kinds goes with --format jsonl or csv".into());
    }
    let kinds: String = args.kinds.chars().filter(|c| c.is_ascii_lowercase() || *c == ',').collect();
    let path = format!("/bulk/export?format={format}&kinds={kinds}");
    let mut out: Box<dyn std::io::Write> = match &args.file {
        Some(file) => Box::new(std::io::BufWriter::new(std::fs::File::create(file)?)),
        None => Box::new(std::io::stdout().lock()),
    };
    if args.format == ExportFormat::Yaml {
        let lines = fetched(&client, &path).await?;
        out.write_all(Tenants::of_lines(&lines).to_yaml()?.as_bytes())?;
    } else {
        client.download::<Failure>(&path, |piece| Ok(out.write_all(piece)?)).await?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// A file as it is sent, and its lines by their numbers.
struct Sent {
    format: Format,
    octets: Vec<u8>,
    lines: HashMap<u64, Map<String, Value>>,
}

impl Sent {
    fn read(path: &Path) -> Result<Self, Failure> {
        let octets = std::fs::read(path).map_err(|error| format!("the file {}: {error}", path.display()))?;
        let (format, octets) = match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => {
                let text = String::from_utf8(octets).map_err(|_| "the file is no UTF-8")?;
                let lines = Tenants::parse(&text)?.lines();
                let lines: String = lines.iter().map(|line| line.to_json() + "\n").collect();
                (Format::JsonLines, lines.into_bytes())
            }
            Some("jsonl" | "ndjson") => (Format::JsonLines, octets),
            Some("csv") => (Format::Csv, octets),
            _ => return Err("the name of the file ends in none of .yaml, .jsonl and .csv".into()),
        };
        let staged = file::read(format, &octets).map_err(|refusal| refusal.to_string())?;
        let line = |fields: &Fields| serde_json::from_str(&fields.to_json()).unwrap_or_default();
        let lines = staged.filter_map(|staged| Some((u64::from(staged.line), line(&staged.fields.ok()?)))).collect();
        Ok(Self { format, octets, lines })
    }

    const fn content_type(&self) -> &'static str {
        match self.format {
            Format::JsonLines => "application/jsonl",
            Format::Csv => "text/csv",
        }
    }
}

pub async fn apply(args: ApplyArgs, config: Config, output: Output) -> Result<ExitCode, Failure> {
    let client = args.remote.client(&config)?;
    let sent = Sent::read(&args.file)?;
    // before anything is done: passwords are drawn once
    let results_file = args.results.as_deref().map(new_private_file).transpose()?;
    let name: String = args.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let before = if output == Output::Table { before(&client, &sent).await? } else { Objects::new() };
    let job = client.upload("/bulk/jobs", &name, sent.content_type(), sent.octets.clone()).await?;
    let id = job["id"].as_str().ok_or(ClientError::Missing("job"))?.to_owned();
    let checked = run(&client, &id, "CHECK").await?;
    let results = results(&client, &id).await?;
    let refused = checked["refused"].as_u64().unwrap_or_default();
    let is_too_long = checked["total"].as_u64().is_some_and(|total| total > u64::from(ALL_OR_NOTHING_MAX));
    let is_done = !args.dry_run && (args.partial || (refused == 0 && !is_too_long));
    if output == Output::Table {
        show_differences(&sent, &before, &results)?;
        show_refusals(&sent, &results)?;
    }
    if !is_done {
        if output == Output::Json {
            println!("{}", serde_json::to_string_pretty(&json!({ "job": checked, "results": results }))?);
        } else {
            summary("would be", &checked);
        }
        if !args.dry_run && refused == 0 {
            return Err(format!(
                "nothing was changed: more than {ALL_OR_NOTHING_MAX} lines are not done all or none; do them line by line with --partial"
            )
            .into());
        }
        if !args.dry_run {
            eprintln!("nothing was changed: mend the lines, or do the others with --partial");
        }
        return Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mode = if args.partial { "PER_LINE" } else { "ALL_OR_NOTHING" };
    let done = run(&client, &id, mode).await?;
    let results = self::results(&client, &id).await?;
    if let (Some(mut out), Some(file)) = (results_file, &args.results) {
        let format = if file.extension().is_some_and(|extension| extension == "csv") { "csv" } else { "jsonl" };
        let path = format!("/bulk/jobs/{id}/results?format={format}");
        let fetched = client.download::<Failure>(&path, |piece| Ok(out.write_all(piece)?)).await;
        fetched.map_err(|error| format!("the job {id} is done, but its results could not be fetched: {error}"))?;
        out.sync_all()?;
    }
    match output {
        // Passwords go to the file of results alone.
        Output::Json => {
            let bare: Vec<Value> = results.into_iter().map(without_password).collect();
            println!("{}", serde_json::to_string_pretty(&json!({ "job": done, "results": bare }))?);
        }
        Output::Table => {
            // else the check told of them
            if refused == 0 {
                show_refusals(&sent, &results)?;
            }
            summary("were", &done);
            let drawn = results.iter().filter(|result| result["password"].is_string()).count();
            if drawn > 0 && args.results.is_none() {
                println!("{drawn} SIP passwords were drawn: fetch them within 7 days from /bulk/jobs/{id}/results");
            }
        }
    }
    let is_whole = done["state"] == "finished" && done["refused"] == 0;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn without_password(mut result: Value) -> Value {
    if let Some(result) = result.as_object_mut() {
        result.remove("password");
    }
    result
}

/// A file that nobody else can read, and that was not there.
fn new_private_file(path: &Path) -> Result<std::fs::File, Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    Ok(opened.map_err(|error| format!("the file of results {}: {error}", path.display()))?)
}

/// Starts a job and waits for its end.
async fn run(client: &Client, id: &str, mode: &str) -> Result<Value, Failure> {
    client.mutate("bulkJobStart", json!({ "id": id, "mode": mode })).await?;
    let progress = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let verb = if mode == "CHECK" { "checked" } else { "done" };
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos} of {len} lines {msg}")?);
    progress.set_message(verb);
    loop {
        let job = client.get_json(&format!("/bulk/jobs/{id}")).await?;
        let count = |field: &str| job[field].as_u64().unwrap_or_default();
        progress.set_length(count("total"));
        progress.set_position(count("applied") + count("unchanged") + count("refused"));
        match job["state"].as_str() {
            Some("running") => tokio::time::sleep(LOOK_PERIOD).await,
            Some("stopped" | "cancelled") => {
                progress.finish_and_clear();
                let reason = cell(&job["reason"]);
                return Err(format!("the job {id} ended before its last line: {reason}").into());
            }
            _ => {
                progress.finish_and_clear();
                return Ok(job);
            }
        }
    }
}

async fn results(client: &Client, id: &str) -> Result<Vec<Value>, Failure> {
    let lines = fetched(client, &format!("/bulk/jobs/{id}/results")).await?;
    Ok(lines.into_iter().map(Value::Object).collect())
}

/// Lines of JSON.
async fn fetched(client: &Client, path: &str) -> Result<Vec<Map<String, Value>>, Failure> {
    let mut text = Vec::new();
    client
        .download::<Failure>(path, |piece| {
            text.extend_from_slice(piece);
            Ok(())
        })
        .await?;
    let lines = text.split(|octet| *octet == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(serde_json::from_slice).collect::<Result<_, _>>()?)
}

/// By what an object is known.
fn key(line: &Map<String, Value>) -> (String, String) {
    let text = |field: &str| line.get(field).map(cell).unwrap_or_default();
    let kind = text("kind");
    let name = match kind.as_str() {
        "domain" => text("domain"),
        "site" => format!("{} at {}", text("site"), text("account")),
        "subscriber" => format!("{}@{}", text("username"), text("domain")),
        "number" => text("number"),
        _ => text("account"),
    };
    (kind, name)
}

type Objects = HashMap<(String, String), Map<String, Value>>;

/// What there is of the kinds that the file has.
async fn before(client: &Client, sent: &Sent) -> Result<Objects, Failure> {
    let mut kinds: Vec<String> = sent.lines.values().map(|line| key(line).0).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.retain(|kind| ["account", "domain", "site", "number", "subscriber"].contains(&kind.as_str()));
    if kinds.is_empty() {
        return Ok(Objects::new());
    }
    let lines = fetched(client, &format!("/bulk/export?kinds={}", kinds.join(","))).await?;
    Ok(lines.into_iter().map(|line| (key(&line), line)).collect())
}

/// What differs, field by field.
fn show_differences(sent: &Sent, before: &Objects, results: &[Value]) -> Result<(), Failure> {
    let applied = results.iter().filter(|result| result["outcome"] == "applied");
    let lines = applied.filter_map(|result| sent.lines.get(&result["line"].as_u64()?));
    let mut rows: Vec<Vec<String>> = lines.flat_map(|line| differences(line, before.get(&key(line)))).collect();
    let left = rows.len().saturating_sub(SHOWN_MAX);
    rows.truncate(SHOWN_MAX);
    if rows.is_empty() {
        return Ok(());
    }
    print(Output::Table, &(), &["", "of", "field", "before", "after"], rows)?;
    if left > 0 {
        println!("… and {left} more");
    }
    Ok(())
}

/// `+` for what comes into being, `-` for what goes, `~` for what changes.
fn differences(line: &Map<String, Value>, before: Option<&Map<String, Value>>) -> Vec<Vec<String>> {
    let (kind, name) = key(line);
    let of = format!("{kind} {name}");
    if line.get("action").is_some_and(|action| action == "delete") {
        return vec![vec!["-".to_owned(), of, String::new(), String::new(), String::new()]];
    }
    let sign = if before.is_some() { "~" } else { "+" };
    // `put` leaves the password of one that is there
    let is_put = line.get("action").is_none_or(|action| action == "put");
    let is_kept = |field: &str| field == "password" && is_put && before.is_some();
    let told = |field: &str| {
        !is_kept(field) && !["action", "kind", "account", "domain", "username", "number", "id"].contains(&field)
    };
    let fields = line.iter().filter(|(field, _)| told(field) || (*field == "account" && kind == "number"));
    let rows: Vec<Vec<String>> = fields
        .filter_map(|(field, after)| {
            let before = before.and_then(|before| before.get(field)).cloned().unwrap_or_default();
            let after = if field == "password" { json!(HIDDEN) } else { after.clone() };
            let (before, after) = (shown(&before), shown(&after));
            (before != after).then(|| vec![sign.to_owned(), of.clone(), field.clone(), before, after])
        })
        .collect();
    if rows.is_empty() { vec![vec![sign.to_owned(), of, String::new(), String::new(), String::new()]] } else { rows }
}

/// A value as a cell; a list in the order of its values, separated by spaces, as CSV has it.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(values) => {
            let mut texts: Vec<String> = values.iter().map(cell).collect();
            texts.sort_unstable();
            texts.join(" ")
        }
        other => cell(other),
    }
}

fn show_refusals(sent: &Sent, results: &[Value]) -> Result<(), Failure> {
    let refused = results.iter().filter(|result| result["outcome"] == "refused");
    let mut rows: Vec<Vec<String>> = Vec::new();
    for result in refused {
        let line = result["line"].as_u64().unwrap_or_default();
        let of = sent.lines.get(&line).map(key).map(|(kind, name)| format!("{kind} {name}")).unwrap_or_default();
        for error in result["errors"].as_array().into_iter().flatten() {
            let cells = ["field", "message", "remedy"].map(|field| cell(&error[field]));
            rows.push([line.to_string(), of.clone()].into_iter().chain(cells).collect());
        }
    }
    let left = rows.len().saturating_sub(SHOWN_MAX);
    rows.truncate(SHOWN_MAX);
    if rows.is_empty() {
        return Ok(());
    }
    print(Output::Table, &(), &["line", "refused", "field", "message", "remedy"], rows)?;
    if left > 0 {
        println!("… and {left} more");
    }
    Ok(())
}

fn summary(verb: &str, job: &Value) {
    let count = |field: &str| cell(&job[field]);
    println!(
        "{} of {} lines {verb} applied, {} say what is so already, {} {verb} refused",
        count("applied"),
        count("total"),
        count("unchanged"),
        count("refused"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_difference_is_told_field_by_field() {
        let line =
            object(json!({ "kind": "subscriber", "username": "100", "domain": "a.example", "displayName": "Desk",
            "numbers": ["+2", "+1"], "callLimit": null, "password": "secret" }));
        let before = object(json!({ "kind": "subscriber", "username": "100", "domain": "a.example", "displayName": "",
            "numbers": ["+1", "+2"], "callLimit": 2 }));
        let told = |rows: Vec<Vec<String>>| rows.iter().map(|row| row.join("|")).collect::<Vec<_>>();
        let of = "subscriber 100@a.example";
        let expected = [format!("~|{of}|callLimit|2|"), format!("~|{of}|displayName||Desk")];
        assert_eq!(told(differences(&line, Some(&before))), expected);
        let made = told(differences(&line, None));
        assert!(made.contains(&format!("+|{of}|password||{HIDDEN}")), "{made:?}");
        let gone = object(json!({ "action": "delete", "kind": "site", "site": "Quay", "account": "A" }));
        assert_eq!(told(differences(&gone, None)), ["-|site Quay at A|||"]);
    }
}
