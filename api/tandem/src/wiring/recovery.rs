//! After a crash: the calls that the dead node left open end at its last sign of life.

use db::Position;
use db::journal::{Journal, JournalReader, Opened, ReadError};
use model::event::fact::{Fact, Heartbeat};
use model::time::Timestamp;
use sip_services::recovery::OpenCalls;

/// Records that one read takes: bounds memory, not the work.
const RECORDS_MAX: usize = 4_096;

/// Why open calls could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// An earlier record cannot be read: ending calls without it would bill wrongly.
    #[error("the journal of the earlier runs cannot be read")]
    Read(#[from] ReadError),
    /// The earlier records end before the place that the journal named when it was opened.
    #[error("the journal of the earlier runs ends at {found}, and it had {last}")]
    Short {
        /// The last record that was found.
        found: Position,
        /// The last one that there was.
        last: Position,
    },
    /// The new journal takes no records.
    #[error("the ends of {0} calls could not be journaled")]
    Write(usize),
}

/// Ends the calls that earlier epochs left open, before anything else happens, and says how many there were. Then a
/// heartbeat without calls says that everything before it is over, so that the next start need not read it. Blocks.
///
/// # Errors
/// [`RecoveryError`]; the next start tries again.
pub fn end_open_calls(
    journal: &Journal,
    reader: &JournalReader,
    opened: Opened,
    now: Timestamp,
) -> Result<usize, RecoveryError> {
    let ends = match opened.previous {
        Some(last) => left_open(reader, last)?.close(),
        None => Vec::new(),
    };
    let count = ends.len();
    for end in ends {
        journal.append(&Fact::Ended(end), None).map_err(|_| RecoveryError::Write(count))?;
    }
    let (told, hear) = std::sync::mpsc::sync_channel(1);
    // Commits are in order: when this one is on the disk, so are all ends.
    let notify: db::journal::Notify = Box::new(move |durable| {
        // Nobody hears it when the start was given up meanwhile.
        let _heard = told.send(durable).is_ok();
    });
    let settled = Fact::Heartbeat(Heartbeat { at: now, calls_up: 0, stopping: None });
    journal.append(&settled, Some(notify)).map_err(|_| RecoveryError::Write(count))?;
    if hear.recv() != Ok(true) {
        return Err(RecoveryError::Write(count));
    }
    Ok(count)
}

fn left_open(reader: &JournalReader, last: Position) -> Result<OpenCalls, RecoveryError> {
    let mut open = OpenCalls::default();
    let mut position = newest_settled(reader, last)?;
    while position < last {
        let records = reader.read_after(position, RECORDS_MAX)?;
        let Some(end) = records.last().map(|record| record.position) else {
            return Err(RecoveryError::Short { found: position, last });
        };
        for record in records.iter().take_while(|record| record.position <= last) {
            open.apply(&record.fact);
        }
        position = end;
    }
    Ok(open)
}

/// The begin of the newest epoch that settled all calls before it; the begin of the journal when none did.
fn newest_settled(reader: &JournalReader, last: Position) -> Result<Position, RecoveryError> {
    for epoch in (1..=last.epoch).rev() {
        let begin = Position::new(epoch, 0);
        match settles(reader, begin) {
            Ok(true) => return Ok(begin),
            Ok(false) => {}
            // Older files were deleted: what is left is read from its begin.
            Err(ReadError::Gap { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Position::START)
}

/// Whether an epoch begins with the ends of earlier calls and the heartbeat that says that these were all.
fn settles(reader: &JournalReader, begin: Position) -> Result<bool, ReadError> {
    let mut position = begin;
    loop {
        let records = reader.read_after(position, RECORDS_MAX)?;
        for record in &records {
            match record.fact {
                Fact::Started(_) | Fact::Ended(_) if record.position.epoch == begin.epoch => {}
                Fact::Heartbeat(Heartbeat { calls_up: 0, .. }) => return Ok(record.position.epoch == begin.epoch),
                _ => return Ok(false),
            }
        }
        match records.last() {
            Some(record) => position = record.position,
            None => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::event::fact::{Answered, CallSetup, Party, TrunkParty};
    use model::id::{AccountId, CallId, TrunkId};
    use model::tenancy::AccountPath;
    use testkit::ManualClock;

    use super::*;

    fn answered(at: Timestamp) -> Fact {
        let id = uuid::Uuid::from_u128(7);
        let account = AccountId::from_uuid(id);
        let party = TrunkParty { trunk: TrunkId::from_uuid(id), account, path: AccountPath::root(account) };
        let setup = CallSetup {
            call: CallId::from_uuid(id),
            invited_at: at,
            a: Party::Trunk(party),
            b: None,
            dialled: "100".into(),
            called: None,
            calling: None,
            a_sip_call_id: "a".into(),
            b_sip_call_id: None,
            tried: None,
        };
        Fact::Answered(Answered { setup, answered_at: at, pdd_ms: 0 })
    }

    #[test]
    fn a_call_ends_once_and_not_later_than_its_node_was_alive() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        let open = || Journal::open(dir.path(), clock.clone(), "test").expect("the journal opens");
        let reader = JournalReader::open(dir.path());
        let now = Timestamp(1_000);

        let (journal, opened) = open();
        assert_eq!(end_open_calls(&journal, &reader, opened, now).expect("nothing was there"), 0);
        for fact in [answered(now), Fact::Heartbeat(Heartbeat { at: Timestamp(4_000), calls_up: 1, stopping: None })] {
            journal.append(&fact, None).expect("there is room");
        }
        journal.close();

        // A start an hour later that comes to nothing, and one that does.
        clock.set_utc(Timestamp(3_600_000));
        open().0.close();
        let (journal, opened) = open();
        let last = opened.previous.expect("there was a run before");
        assert_eq!(end_open_calls(&journal, &reader, opened, now).expect("it is written"), 1);
        let records = reader.read_after(last, 10).expect("it can be read");
        let ends: Vec<_> =
            records.iter().filter_map(|r| if let Fact::Ended(e) = &r.fact { Some(e) } else { None }).collect();
        assert_eq!(ends.iter().map(|end| (end.duration_ms, end.estimated)).collect::<Vec<_>>(), [(3_000, true)]);
        let settled = *journal.subscribe().borrow();
        journal.close();

        let (journal, opened) = open();
        let last = opened.previous.expect("there was a run before");
        assert_eq!(newest_settled(&reader, last).expect("it can be read").epoch, settled.epoch);
        assert_eq!(end_open_calls(&journal, &reader, opened, now).expect("it is written"), 0);
        journal.close();
        // Calls are not ended by half a journal.
        let short = left_open(&reader, Position::new(last.epoch + 1, 1_000));
        assert!(matches!(short, Err(RecoveryError::Short { .. })), "{short:?}");
        let missing = left_open(&reader, Position::new(last.epoch + 9, 1));
        assert!(matches!(missing, Err(RecoveryError::Read(ReadError::Ahead { .. }))), "{missing:?}");
    }
}
