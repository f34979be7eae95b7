//! The consumer of the journals: call facts become counts per 15 minutes.

use std::collections::BTreeMap;
use std::sync::Arc;

use db::cursor::{self, Position, journal_source};
use db::dialect::bulk_insert;
use db::journal::{JournalReader, Record};
use db::{DbError, Tx, on_tx};
use model::time::Timestamp;
use reports::availability::LifeSigns;
use reports::counting::{Counted, Tally};
use reports::resource::Counters;
use uuid::Uuid;

use crate::rows::{INTERVAL_CONFLICT, IntervalRow};
use crate::{CONSUMER, ConsumeError, ReportsStore, availability, unless_moved};

db::statements! {
    /// The account of a path: facts name the levels above the caller's account by path only.
    ACCOUNT_AT = "SELECT id FROM account WHERE path = $1";
}

impl ReportsStore {
    /// Reads at most `limit` records of the journal of `node` and adds them to the counters; rows and cursor are one
    /// transaction. Gives how many records were read: call it until that is 0.
    ///
    /// # Errors
    /// When the journal or the store fails; the cursor stays then.
    pub async fn count(&self, reader: &JournalReader, node: &str, limit: usize) -> Result<usize, ConsumeError> {
        let source = journal_source(node);
        let from = cursor::peek(&self.db, CONSUMER, &source).await?;
        let records = reader.next(from, limit).await?;
        let Some(last) = records.last() else { return Ok(0) };
        let (to, read) = (last.position, records.len());
        let mut tally = Tally::default();
        records.iter().for_each(|record| tally.add(&record.fact));
        let (node, now, records) = (node.to_owned(), self.now(), Arc::new(records));
        let written = self.db.write::<usize, std::convert::Infallible, _>(move |tx| {
            let (tally, node, source) = (tally.clone(), node.clone(), source.clone());
            let records = Arc::clone(&records);
            Box::pin(async move {
                availability::keep(tx, &node, |signs| signs_of_life(signs, &records)).await?;
                write(tx, &tally, &node, &source, from, to, now).await?;
                Ok(read)
            })
        });
        unless_moved(written.await)
    }
}

fn signs_of_life(signs: &mut LifeSigns, records: &[Record]) {
    records.iter().for_each(|record| signs.add(record.at, &record.fact));
}

async fn write(
    tx: &mut Tx,
    tally: &Tally,
    node: &str,
    source: &str,
    from: Position,
    to: Position,
    now: Timestamp,
) -> Result<(), DbError> {
    let rows = rows(tx, tally, node).await?;
    bulk_insert(tx, &rows, INTERVAL_CONFLICT).await?;
    cursor::advance(tx, CONSUMER, source, from, to, now).await
}

/// One row per key, in the order of the keys, so that two nodes lock them in the same order.
async fn rows<'a>(tx: &mut Tx, tally: &Tally, node: &'a str) -> Result<Vec<IntervalRow<'a>>, DbError> {
    let mut known: BTreeMap<&str, Option<Uuid>> = BTreeMap::new();
    let mut rows: BTreeMap<(i64, &'static str, Uuid), (String, Counters)> = BTreeMap::new();
    for ((start, subject), counters) in &tally.0 {
        let (kind, id, path) = match subject {
            Counted::Installation => ("installation", Uuid::nil(), ""),
            Counted::Trunk(trunk, path) => ("trunk", trunk.uuid(), path.as_str()),
            Counted::Account(path) => {
                let path = path.as_str();
                let id = match known.get(path) {
                    Some(id) => *id,
                    None => {
                        let id = on_tx!(tx, c => sqlx::query_scalar(ACCOUNT_AT).bind(path).fetch_optional(c).await)?;
                        known.insert(path, id);
                        id
                    }
                };
                let Some(id) = id else {
                    // The installation's row has the calls; nobody can ask for an account that is not there.
                    tracing::warn!(account.path = path, "calls of an account that the store does not know");
                    continue;
                };
                ("account", id, path)
            }
        };
        let row = rows.entry((start.0, kind, id)).or_insert_with(|| (path.to_owned(), Counters::default()));
        row.1.add(counters);
    }
    let row = |((start_at, scope_kind, scope_id), (path, counters))| IntervalRow {
        start_at,
        scope_kind,
        scope_id,
        node,
        path,
        counters,
    };
    Ok(rows.into_iter().map(row).collect())
}
