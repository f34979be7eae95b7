//! From the node journal to usage and money, batch by batch, each in one transaction with the cursor.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use billing::charging::{Outcome, assess};
use billing::mediation::{Leg, mediate};
use billing::resource::SuspenseCode;
use db::dialect::bulk_insert;
use db::journal::{JournalReader, ReadError, Record};
use db::{DbError, Position, Tx, WriteError, cursor, feed};
use model::event::store::{Rated, StoreEvent};
use model::id::{BatchId, CallId};
use model::time::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::BillingStore;
use crate::rated::{self, Charged};
use crate::suspense::{CONFLICT_KNOWN, NewConflict, SuspenseRow};
use crate::tariff;
use crate::usage::{self, NewUsage};

/// The name of this consumer in cursors.
pub const CONSUMER: &str = "billing";

/// What one batch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Records that were read; 0: the journal has no more.
    pub records: usize,
    /// Rows of usage that were written.
    pub usage: usize,
    /// Charges among them that have a price.
    pub rated: usize,
    /// Charges that wait.
    pub suspended: usize,
    /// Legs that were there already, from the same record.
    pub duplicates: usize,
    /// Legs that were there already, from another record.
    pub conflicts: usize,
    /// The record last read.
    pub position: Position,
}

/// Why a batch was not taken. Nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The journal could not be read on.
    #[error("the journal of {node} cannot be read on")]
    Journal {
        /// The node.
        node: String,
        /// Why.
        source: ReadError,
    },
    /// The store failed.
    #[error("a batch of the journal of {node} could not be written")]
    Store {
        /// The node.
        node: String,
        /// Why.
        source: DbError,
    },
}

impl ConsumeError {
    /// Whether the next record is of a kind or shape that this version of the program does not know. Trying again does
    /// not help; the operator must update the program.
    #[must_use]
    pub const fn is_unknown_record(&self) -> bool {
        matches!(self, Self::Journal { source: ReadError::Unreadable { .. }, .. })
    }

    /// Whether the same call may succeed later by itself.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Journal { .. } => false,
            // Another worker was faster, or billed the same call: the next attempt begins behind it.
            Self::Store { source: DbError::CursorMoved { .. } | DbError::Unique { .. }, .. } => true,
            Self::Store { source, .. } => source.is_transient(),
        }
    }
}

/// A record that gives usage.
#[derive(Debug)]
struct Mediated {
    position: Position,
    hash: [u8; 32],
    body: Vec<u8>,
    legs: Vec<Leg>,
}

struct Batch {
    node: String,
    source: String,
    from: Position,
    to: Position,
    records: usize,
    calls: Vec<CallId>,
    mediated: Vec<Mediated>,
}

impl BillingStore {
    /// Takes the next records of `node`'s journal, at most `limit`: usage, charges, suspense, conflicts, postings, the
    /// event and the cursor in one transaction. Two workers may call it at once: the slower finds the cursor moved.
    ///
    /// # Errors
    /// [`ConsumeError`]; nothing was written then.
    pub async fn consume(&self, reader: &JournalReader, node: &str, limit: usize) -> Result<Progress, ConsumeError> {
        let stored = |source| ConsumeError::Store { node: node.to_owned(), source };
        let source = cursor::journal_source(node);
        let from = cursor::peek(&self.db, CONSUMER, &source).await.map_err(stored)?;
        let records =
            reader.next(from, limit).await.map_err(|source| ConsumeError::Journal { node: node.to_owned(), source })?;
        let Some(to) = records.last().map(|record| record.position) else {
            return Ok(Progress { position: from, ..Progress::default() });
        };
        let batch = Arc::new(Batch::new(node, source, from, to, records));
        let store = self.clone();
        let written = self.db.write::<Progress, std::convert::Infallible, _>(move |tx| {
            let (store, batch) = (store.clone(), batch.clone());
            Box::pin(async move { store.take(tx, &batch).await.map_err(WriteError::Db) })
        });
        let progress = match written.await {
            Ok(progress) => progress,
            Err(WriteError::Db(error)) => return Err(stored(error)),
            Err(WriteError::Refused(never)) => match never {},
        };
        count("tandem_billing_usage_total", progress.usage);
        count("tandem_billing_rated_total", progress.rated);
        count("tandem_billing_suspended_total", progress.suspended);
        count("tandem_billing_duplicates_total", progress.duplicates);
        count("tandem_billing_conflicts_total", progress.conflicts);
        Ok(progress)
    }

    async fn take(&self, tx: &mut Tx, batch: &Batch) -> Result<Progress, DbError> {
        let now = self.clock.now().utc;
        let from = cursor::load(tx, CONSUMER, &batch.source).await?;
        if from != batch.from {
            let (consumer, feed) = (CONSUMER.to_owned(), batch.source.clone());
            return Err(DbError::CursorMoved { consumer, feed, from: batch.from, to: batch.to });
        }
        let mut progress = Progress { records: batch.records, position: batch.to, ..Progress::default() };
        let known = usage::known(tx, &batch.calls).await?;
        let (fresh, conflicts) = sort_out(batch, known, now, &mut progress);
        let legs: Vec<Leg> = fresh.iter().map(|(_, leg)| (*leg).clone()).collect();
        let book = tariff::book(tx, &self.tariffs, &legs).await?;
        let (mut usages, mut charged, mut suspended) = (Vec::with_capacity(legs.len()), Vec::new(), Vec::new());
        for ((record, _), leg) in fresh.iter().zip(legs) {
            let outcome = assess(&leg, &book);
            let mut usage = leg.usage;
            usage.state = outcome.state();
            let key = (usage.call, usage.leg, usage.part);
            match outcome {
                Outcome::Uncharged => {}
                Outcome::Rated(charge) => charged.push(Charged { key, answered_at: usage.answered_at, charge }),
                Outcome::Suspended { side, code, detail } => {
                    let owner = (usage.account, &usage.path);
                    suspended.push(SuspenseRow::new(key, owner, side, SuspenseCode::as_str(code), detail, now));
                }
            }
            let (node, position, raw_hash) = (batch.node.clone(), record.position, record.hash);
            usages.push(NewUsage { usage, node, position, raw_hash });
        }
        (progress.usage, progress.rated, progress.suspended) = (usages.len(), charged.len(), suspended.len());
        bulk_insert(tx, &usages, "").await?;
        bulk_insert(tx, &suspended, "").await?;
        bulk_insert(tx, &conflicts, CONFLICT_KNOWN).await?;
        cursor::advance(tx, CONSUMER, &batch.source, batch.from, batch.to, now).await?;
        if progress.usage > 0 {
            let id = BatchId::new(&*self.ids);
            rated::insert(tx, &*self.ids, id, &charged, now).await?;
            feed::append(tx, now, &rated_event(id, progress.usage, progress.rated, progress.suspended)).await?;
        }
        Ok(progress)
    }
}

/// The event of a batch.
pub(crate) fn rated_event(batch: BatchId, usage: usize, rated: usize, suspended: usize) -> StoreEvent {
    let count = |n| i64::try_from(n).unwrap_or(i64::MAX);
    StoreEvent::Rated(Rated {
        batch,
        usage_count: count(usage),
        rated_count: count(rated),
        suspense_count: count(suspended),
    })
}

impl Batch {
    fn new(node: &str, source: String, from: Position, to: Position, records: Vec<Record>) -> Self {
        let count = records.len();
        let mediated: Vec<Mediated> = records
            .into_iter()
            .map(|record| Mediated {
                position: record.position,
                legs: mediate(&record.fact),
                hash: [0; 32],
                body: record.body,
            })
            .filter(|record| !record.legs.is_empty())
            .map(|record| Mediated { hash: Sha256::digest(&record.body).into(), ..record })
            .collect();
        let calls: BTreeSet<CallId> = mediated.iter().flat_map(|m| &m.legs).map(|leg| leg.usage.call).collect();
        let calls = calls.into_iter().collect();
        Self { node: node.to_owned(), source, from, to, records: count, calls, mediated }
    }
}

/// Parts what is new from what was there: the same record again is ignored, another one is a conflict.
fn sort_out<'b>(
    batch: &'b Batch,
    mut known: HashMap<usage::Key, Vec<u8>>,
    now: Timestamp,
    progress: &mut Progress,
) -> (Vec<(&'b Mediated, &'b Leg)>, Vec<NewConflict<'b>>) {
    let (mut fresh, mut conflicts) = (Vec::new(), Vec::new());
    for record in &batch.mediated {
        for leg in &record.legs {
            let key = (leg.usage.call, leg.usage.leg, leg.usage.part);
            match known.get(&key) {
                None => {
                    known.insert(key, record.hash.to_vec());
                    fresh.push((record, leg));
                }
                Some(hash) if hash[..] == record.hash => progress.duplicates += 1,
                Some(_) => {
                    progress.conflicts += 1;
                    let (position, record) = (record.position, &*record.body);
                    conflicts.push(NewConflict { node: &batch.node, position, key, record, now });
                }
            }
        }
    }
    (fresh, conflicts)
}

fn count(name: &'static str, n: usize) {
    metrics::counter!(name).increment(u64::try_from(n).unwrap_or(u64::MAX));
}
