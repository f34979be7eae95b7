//! `tandem journal`: the call facts of this node as they lie on its disk, beside a running daemon or after a crash.

use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Subcommand;
use db::Position;
use db::journal::{JournalReader, JournalReport, ReadError, Record};
use indicatif::{ProgressBar, ProgressStyle};
use model::event::fact::{CallSetup, Fact, Party};
use model::id::CallId;
use model::number::mask_digits;
use serde_json::{Value, json};

use super::{Failure, Output};
use crate::config::Config;

/// Records that `show` prints unless told otherwise: two screens.
const LIMIT_DEFAULT: usize = 100;
/// Records of one read.
const STEP: usize = 2_000;

/// What to do with the journal.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Files, size, first and last record, and how far each consumer has read.
    Stat,
    /// Read every record: none is missing, each is understood.
    Verify,
    /// Print records. Numbers are masked.
    Show {
        /// Only the records of this call.
        #[arg(long, value_name = "UUID")]
        call: Option<uuid::Uuid>,
        /// Begin with this record; left out: with the oldest.
        #[arg(long, value_name = "EPOCH/SEQUENCE")]
        from: Option<Place>,
        /// How many records at most.
        #[arg(long, default_value_t = LIMIT_DEFAULT)]
        limit: usize,
        /// Print numbers in full.
        #[arg(long)]
        clear: bool,
    },
}

/// The place of a record as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(Position);

/// The text names no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record is named by epoch and sequence, both from 1, such as 3/120")]
pub struct InvalidPosition;

impl FromStr for Place {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (epoch, sequence) = text.split_once(['/', ':']).ok_or(InvalidPosition)?;
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number > 0).ok_or(InvalidPosition);
        Ok(Self(Position::new(number(epoch)?, number(sequence)?)))
    }
}

impl Place {
    /// The place after which the record stands.
    const fn before(self) -> Position {
        Position::new(self.0.epoch, self.0.sequence - 1)
    }
}

pub async fn run(command: JournalCommand, config: Config, output: Output) -> Result<ExitCode, Failure> {
    let reader = JournalReader::open(&config.node.data_dir);
    match command {
        JournalCommand::Stat => stat(&reader, &config, output).await,
        JournalCommand::Verify => tokio::task::spawn_blocking(move || verify(&reader, output)).await?,
        JournalCommand::Show { call, from, limit, clear } => {
            let from = from.map_or(Position::START, Place::before);
            let call = call.map(CallId::from_uuid);
            let records = tokio::task::spawn_blocking(move || select(&reader, from, call, limit)).await??;
            show(&records, clear, output)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn stat(reader: &JournalReader, config: &Config, output: Output) -> Result<ExitCode, Failure> {
    let blocking = reader.clone();
    let stat = tokio::task::spawn_blocking(move || blocking.stat()).await??;
    let cursors = cursors(config).await;
    let mut consumers = Vec::new();
    for (name, position) in cursors.as_ref().ok().into_iter().flatten() {
        let (blocking, position) = (reader.clone(), *position);
        let lag = tokio::task::spawn_blocking(move || blocking.count_after(position)).await??;
        consumers.push((name, position, lag));
    }
    let place = |position: Option<Position>| position.map(typed);
    let json = json!({
        "files": stat.files, "bytes": stat.bytes, "epochs": stat.epochs,
        "first": place(stat.first), "last": place(stat.last),
        "consumers": cursors.is_ok().then(|| consumers.iter().map(|(name, position, lag)| {
            json!({ "consumer": name, "position": typed(*position), "lag": lag })
        }).collect::<Vec<_>>()),
        "store_error": cursors.as_ref().err(),
    });
    let shown = |position: Option<Position>| place(position).unwrap_or_else(|| "none".to_owned());
    let mut rows = vec![
        vec!["files".to_owned(), stat.files.to_string()],
        vec!["bytes".to_owned(), stat.bytes.to_string()],
        vec!["epochs".to_owned(), stat.epochs.to_string()],
        vec!["first record".to_owned(), shown(stat.first)],
        vec!["last record".to_owned(), shown(stat.last)],
    ];
    rows.extend(consumers.iter().map(|(name, position, lag)| {
        vec![format!("read by {name}"), format!("{}, {lag} records behind", typed(*position))]
    }));
    if let Err(error) = &cursors {
        rows.push(vec!["consumers".to_owned(), format!("not known: {error}")]);
    }
    super::output::print(output, &json, &["what", "value"], rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Where the consumers stand, or why that is not known: the store may be away while the journal is looked at.
async fn cursors(config: &Config) -> Result<Vec<(String, Position)>, String> {
    let store = crate::storage::open_existing_store(config).await.map_err(|error| error.to_string())?;
    let store = store.ok_or_else(|| "there is no store yet".to_owned())?;
    let listed = db::cursor::list(&store, &db::cursor::journal_source(&config.node.name)).await;
    store.close().await;
    listed.map_err(|error| error.to_string())
}

fn verify(reader: &JournalReader, output: Output) -> Result<ExitCode, Failure> {
    // Drawn on a terminal alone.
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} {spinner} {pos} records read")?);
    let mut seen = JournalReport::default();
    let result = reader.verify_with(|report| {
        progress.set_position(report.records);
        seen.clone_from(report);
    });
    progress.finish_and_clear();
    let finding = result.err().map(|error| error_text(&error));
    let json = json!({
        "records": seen.records, "epochs": seen.epochs, "kinds": seen.kinds,
        "first": seen.first.map(typed), "last": seen.last.map(typed), "finding": finding,
    });
    let mut rows: Vec<Vec<String>> =
        seen.kinds.iter().map(|(kind, count)| vec![(*kind).to_owned(), count.to_string()]).collect();
    rows.push(vec!["all records".to_owned(), seen.records.to_string()]);
    rows.push(vec!["epochs".to_owned(), seen.epochs.to_string()]);
    rows.push(vec!["finding".to_owned(), finding.clone().unwrap_or_else(|| "none: dense and understood".to_owned())]);
    super::output::print(output, &json, &["what", "value"], rows)?;
    Ok(if finding.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn error_text(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The records from a place on, of one call or of all.
fn select(
    reader: &JournalReader,
    from: Position,
    call: Option<CallId>,
    limit: usize,
) -> Result<Vec<Record>, ReadError> {
    let (mut at, mut found) = (from, Vec::new());
    while found.len() < limit {
        let step = if call.is_some() { STEP } else { STEP.min(limit - found.len()) };
        let records = reader.read_after(at, step)?;
        let Some(last) = records.last() else { break };
        at = last.position;
        let wanted = |record: &Record| call.is_none_or(|call| call_of(&record.fact) == Some(call));
        found.extend(records.into_iter().filter(wanted));
    }
    found.truncate(limit);
    Ok(found)
}

fn show(records: &[Record], clear: bool, output: Output) -> Result<(), Failure> {
    let json: Vec<_> = records.iter().map(|record| json_of(record, clear)).collect();
    let rows = records.iter().map(|record| {
        let call = call_of(&record.fact).map(|call| call.to_string()).unwrap_or_default();
        let text = Said { fact: &record.fact, clear }.to_string();
        vec![typed(record.position), record.at.to_string(), record.kind.clone(), call, text]
    });
    super::output::print(output, &json, &["record", "written", "kind", "call", "what it says"], rows)
}

/// A place as `--from` takes it.
fn typed(position: Position) -> String {
    format!("{}/{}", position.epoch, position.sequence)
}

fn setup_of(fact: &Fact) -> Option<&CallSetup> {
    match fact {
        Fact::Started(_) | Fact::Heartbeat(_) | Fact::Interim(_) => None,
        Fact::Attempted(fact) => Some(&fact.setup),
        Fact::Answered(fact) => Some(&fact.setup),
        Fact::Ended(fact) => Some(&fact.answered.setup),
        Fact::AnswerAborted(fact) => Some(&fact.setup),
    }
}

fn call_of(fact: &Fact) -> Option<CallId> {
    match fact {
        Fact::Interim(interim) => Some(interim.call),
        other => setup_of(other).map(|setup| setup.call),
    }
}

fn digits(text: &str, clear: bool) -> String {
    if clear { text.to_owned() } else { mask_digits(text) }
}

/// A fact in a few words.
struct Said<'a> {
    fact: &'a Fact,
    clear: bool,
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(setup) = setup_of(self.fact) {
            let calling =
                setup.calling.map_or_else(|| "?".to_owned(), |number| digits(&number.to_string(), self.clear));
            write!(f, "{calling} dialled {}: ", digits(&setup.dialled, self.clear))?;
        }
        match self.fact {
            Fact::Started(fact) => write!(f, "version {} started", fact.version),
            Fact::Heartbeat(fact) if fact.stopping == Some(true) => write!(f, "{} calls up, stopping", fact.calls_up),
            Fact::Heartbeat(fact) => write!(f, "{} calls up", fact.calls_up),
            Fact::Attempted(fact) => write!(f, "{} {}", fact.status, fact.cause.as_str()),
            Fact::Answered(fact) => write!(f, "answered after {} ms", fact.pdd_ms),
            Fact::Interim(fact) => write!(f, "up for {} ms", fact.elapsed_ms),
            Fact::Ended(fact) => {
                let estimated = if fact.estimated { ", estimated" } else { "" };
                let by = fact.released_by.as_str();
                write!(f, "{} ms, {}, by {by}{estimated}", fact.duration_ms, fact.cause.as_str())
            }
            Fact::AnswerAborted(fact) => write!(f, "answer not delivered, {} {}", fact.status, fact.cause.as_str()),
        }
    }
}

fn json_of(record: &Record, clear: bool) -> Value {
    let details = match &record.fact {
        Fact::Started(fact) => json!({ "at": fact.at, "version": fact.version }),
        Fact::Heartbeat(fact) => json!({ "at": fact.at, "calls_up": fact.calls_up, "stopping": fact.stopping }),
        Fact::Attempted(fact) => json!({
            "ended_at": fact.ended_at, "status": fact.status, "cause": fact.cause.as_str(), "pdd_ms": fact.pdd_ms,
        }),
        Fact::Answered(fact) => json!({ "answered_at": fact.answered_at, "pdd_ms": fact.pdd_ms }),
        Fact::Interim(fact) => json!({ "at": fact.at, "elapsed_ms": fact.elapsed_ms }),
        Fact::Ended(fact) => json!({
            "answered_at": fact.answered.answered_at, "pdd_ms": fact.answered.pdd_ms, "ended_at": fact.ended_at,
            "duration_ms": fact.duration_ms, "cause": fact.cause.as_str(),
            "released_by": fact.released_by.as_str(), "estimated": fact.estimated,
        }),
        Fact::AnswerAborted(fact) => json!({
            "answered_at": fact.answered_at, "ended_at": fact.ended_at, "duration_ms": fact.duration_ms,
            "status": fact.status, "cause": fact.cause.as_str(), "pdd_ms": fact.pdd_ms,
            "after_answered": fact.after_answered,
        }),
    };
    let setup = setup_of(&record.fact).map(|setup| {
        json!({
            "invited_at": setup.invited_at, "a": party_json(&setup.a, clear),
            "b": setup.b.as_ref().map(|party| party_json(party, clear)), "dialled": digits(&setup.dialled, clear),
            "called": setup.called.map(|number| digits(&number.to_string(), clear)),
            "calling": setup.calling.map(|number| digits(&number.to_string(), clear)),
            "a_sip_call_id": setup.a_sip_call_id, "b_sip_call_id": setup.b_sip_call_id,
        })
    });
    json!({
        "position": typed(record.position), "written_at": record.at, "kind": record.kind,
        "call": call_of(&record.fact), "setup": setup, "details": details,
    })
}

fn party_json(party: &Party, clear: bool) -> Value {
    match party {
        Party::Subscriber(party) => json!({
            "subscriber": party.subscriber, "account": party.account, "domain": party.domain_name.to_string(),
            "extension": party.extension.as_deref().map(|extension| digits(extension, clear)),
        }),
        Party::Trunk(party) => json!({ "trunk": party.trunk, "account": party.account }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use db::journal::Journal;
    use model::cause::ReleaseCause;
    use model::event::fact::{Answered, Attempted, Ended, ReleasedBy, TrunkParty};
    use model::id::{AccountId, TrunkId};
    use model::tenancy::AccountPath;
    use model::time::Timestamp;
    use testkit::ManualClock;

    use super::*;

    fn setup(n: u128) -> CallSetup {
        let account = AccountId::from_uuid(uuid::Uuid::from_u128(1));
        let trunk = TrunkId::from_uuid(uuid::Uuid::from_u128(2));
        CallSetup {
            call: CallId::from_uuid(uuid::Uuid::from_u128(n)),
            invited_at: Timestamp(0),
            a: Party::Trunk(TrunkParty { trunk, account, path: AccountPath::root(account) }),
            b: None,
            dialled: "0043720123456".into(),
            called: Some("+43720123456".parse().expect("a number")),
            calling: Some("+493012345678".parse().expect("a number")),
            a_sip_call_id: "a@192.0.2.1".into(),
            b_sip_call_id: None,
            tried: None,
        }
    }

    #[test]
    fn places_are_typed_as_they_are_shown() {
        for (text, place) in [("3/120", (3, 120)), ("1:1", (1, 1))] {
            assert_eq!(text.parse(), Ok(Place(Position::new(place.0, place.1))), "{text}");
        }
        for bad in ["", "3", "/", "0/1", "1/0", "-1/2", "a/b", "1/2/3", "1/99999999999999999999"] {
            assert_eq!(bad.parse::<Place>(), Err(InvalidPosition), "{bad}");
        }
    }

    #[test]
    fn records_are_found_by_place_and_call_and_numbers_are_masked() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::default());
        let (journal, _) = Journal::open(dir.path(), clock, "test").expect("the journal opens");
        for n in 1..=3 {
            let answered = Answered { setup: setup(n), answered_at: Timestamp(1), pdd_ms: 1 };
            journal.append(&Fact::Answered(answered.clone()), None).expect("there is room");
            let end = Ended {
                answered,
                ended_at: Timestamp(2),
                duration_ms: 1,
                cause: ReleaseCause::UserBusy,
                released_by: ReleasedBy::Caller,
                estimated: false,
                a_media: None,
                b_media: None,
            };
            journal.append(&Fact::Ended(end), None).expect("there is room");
        }
        let status = 486;
        let (ended_at, cause) = (Timestamp(9), ReleaseCause::UserBusy);
        let busy = Attempted { setup: setup(4), ended_at, status, cause, pdd_ms: None };
        journal.append(&Fact::Attempted(busy), None).expect("there is room");
        journal.close();

        let reader = JournalReader::open(dir.path());
        let places = |from, call: Option<u128>, limit| -> Vec<String> {
            let call = call.map(|n| CallId::from_uuid(uuid::Uuid::from_u128(n)));
            let found = select(&reader, from, call, limit).expect("it can be read");
            found.iter().map(|record| typed(record.position)).collect()
        };
        assert_eq!(places(Position::START, None, 100).len(), 8, "with the start of the epoch");
        let from: Place = "1/3".parse().expect("a place");
        assert_eq!(places(from.before(), None, 2), ["1/3", "1/4"]);
        assert_eq!(places(Position::START, Some(2), 100), ["1/4", "1/5"]);
        assert_eq!(places(Position::START, Some(2), 1), ["1/4"]);
        assert_eq!(places(Position::START, Some(9), 100), [""; 0]);
        assert_eq!(reader.count_after(Position::START).expect("it can be read"), 8);
        assert_eq!(reader.count_after(Position::new(1, 6)).expect("it can be read"), 2);

        let record = &select(&reader, from.before(), None, 1).expect("it can be read")[0];
        let shown = |clear| format!("{}{}", Said { fact: &record.fact, clear }, json_of(record, clear));
        for number in ["43720123456", "493012345678"] {
            assert!(!shown(false).contains(number), "{}", shown(false));
            assert!(shown(true).contains(number), "{}", shown(true));
        }
    }
}
