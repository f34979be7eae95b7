//! After a crash: the calls that the dead node left open end at its last sign of life.

use db::Position;
use db::journal::{Journal, JournalReader, Opened, ReadError};
use model::event::fact::Fact;
use sip_services::recovery::OpenCalls;

/// Records that one read takes: bounds memory, not the work.
const RECORDS_MAX: usize = 4_096;

/// Why open calls could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// An earlier record cannot be read: ending calls without it would bill wrongly.
    #[error("the journal of the earlier runs cannot be read")]
    Read(#[from] ReadError),
    /// The new journal takes no records.
    #[error("the ends of {0} calls could not be journaled")]
    Write(usize),
}

/// Ends the calls that earlier epochs left open, before anything else happens, and says how many there were. Blocks.
///
/// # Errors
/// [`RecoveryError`]; the next start tries again.
pub fn end_open_calls(journal: &Journal, reader: &JournalReader, opened: Opened) -> Result<usize, RecoveryError> {
    let Some(last) = opened.previous else { return Ok(0) };
    let mut open = OpenCalls::default();
    let mut position = Position::default();
    while position < last {
        let records = reader.read_after(position, RECORDS_MAX)?;
        let Some(end) = records.last().map(|record| record.position) else { break };
        for record in records.iter().take_while(|record| record.position <= last) {
            open.apply(&record.fact);
        }
        position = end;
    }
    let ends = open.close();
    let count = ends.len();
    let (told, hear) = std::sync::mpsc::sync_channel(1);
    for (index, end) in ends.into_iter().enumerate() {
        let told = told.clone();
        // The last one is waited for: commits are in order, so all before it are on the disk too.
        let notify = (index + 1 == count).then(|| {
            let notify: db::journal::Notify = Box::new(move |durable| {
                // Nobody hears it when the start was given up meanwhile.
                let _heard = told.send(durable).is_ok();
            });
            notify
        });
        journal.append(&Fact::Ended(end), notify).map_err(|_| RecoveryError::Write(count))?;
    }
    if count > 0 && hear.recv() != Ok(true) {
        return Err(RecoveryError::Write(count));
    }
    Ok(count)
}
