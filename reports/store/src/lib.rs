//! Reports over the store: counters from the journal, money from the feed, monthly reports as files and as mail.
//!
//! What it does: two consumers named `reports` ([`ReportsStore::count`] on a node's journal, [`ReportsStore::revenue`]
//! on the store's feed), each with its effects and its cursor in one transaction; the change pipeline and the reads of
//! report runs; a worker ([`ReportsStore::run_due`]) that takes the figures of a run once, renders HTML, CSV and XLSX from
//! them, and queues the mail; the delivery of that mail ([`ReportsStore::deliver_due`]); a ticker.
//! What it never does: keep a schedule in memory, send mail that is not in the outbox, render anything that is not in
//! the stored figures.
//!
//! Drive it: call [`ReportsStore::count`] and [`ReportsStore::revenue`] until they give 0; every few seconds
//! [`ReportsStore::schedule_due`], [`ReportsStore::run_due`], [`ReportsStore::deliver_due`], on every node: a run has
//! one finisher (a claim with a lease, every write fenced by the attempt), the outbox one server (a lease).
//!
//! A run is generated exactly once. Its mail is sent at least once: after a crash between the server's 250 and our
//! commit it is sent again, with the same `Message-ID`, by which servers drop it.

mod artefact;
pub mod availability;
mod change;
mod count;
pub mod mail;
mod queries;
mod render;
mod revenue;
mod rows;
mod schedule;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod ticker;
pub mod troubles;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use db::{Db, DbError, feed, journal};
use model::id::IdSource;
use model::time::{Clock, Timestamp};

pub use schedule::Definition;

/// The name of the consumers in cursors.
pub const CONSUMER: &str = "reports";

/// Reports over one store.
#[derive(Debug, Clone)]
pub struct ReportsStore {
    db: Db,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    artefacts: PathBuf,
}

/// Why a consumer could not go on. It stands before what it could not read.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The store failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The journal could not be read on.
    #[error(transparent)]
    Journal(#[from] journal::ReadError),
    /// The feed could not be read on.
    #[error(transparent)]
    Feed(#[from] feed::FeedError),
}

impl ReportsStore {
    /// Over `db`, with finished reports below `artefact_dir`, which is made when the first one is written.
    #[must_use]
    pub fn new(db: Db, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>, artefact_dir: PathBuf) -> Self {
        Self { db, clock, ids, artefacts: artefact_dir }
    }

    fn now(&self) -> Timestamp {
        self.clock.now().utc
    }
}

/// Another worker of the consumer was faster: nothing is lost, its effects are there.
fn unless_moved(result: Result<usize, db::WriteError<std::convert::Infallible>>) -> Result<usize, ConsumeError> {
    match result {
        Err(db::WriteError::Db(DbError::CursorMoved { .. })) => Ok(0),
        Err(db::WriteError::Db(error)) => Err(error.into()),
        Err(db::WriteError::Refused(never)) => match never {},
        Ok(read) => Ok(read),
    }
}
