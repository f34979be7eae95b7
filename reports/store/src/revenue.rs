//! The consumer of the store's feed: rated batches become money per 15 minutes of the answer.

use std::collections::BTreeMap;

use db::cursor::{self, Position};
use db::dialect::bulk_insert;
use db::{DbError, Tx, feed, on_tx};
use model::event::store::StoreEvent;
use model::id::BatchId;
use model::time::Timestamp;
use uuid::Uuid;

use crate::rows::{REVENUE_CONFLICT, RevenueRow};
use crate::{CONSUMER, ConsumeError, ReportsStore, unless_moved};

db::statements! {
    /// A batch, summed as it is kept. 900,000 is the interval's length in milliseconds.
    BATCH = "SELECT answered_at - answered_at % 900000 AS start_at, account_id, side, currency, path, \
        COUNT(*) AS rated_count, CAST(SUM(billed_ms) AS BIGINT) AS billed_ms, \
        CAST(SUM(amount / 1000000) AS BIGINT) AS amount_millions, CAST(SUM(amount % 1000000) AS BIGINT) AS amount \
        FROM rated WHERE batch_id = $1 \
        GROUP BY answered_at - answered_at % 900000, account_id, side, currency, path";
}

impl ReportsStore {
    /// Reads at most `limit` events of the feed and adds the batches that were rated to the money; rows and cursor are
    /// one transaction. Gives how many events were read: call it until that is 0.
    ///
    /// # Errors
    /// When the feed or the store fails; the cursor stays then.
    pub async fn revenue(&self, limit: u32) -> Result<usize, ConsumeError> {
        let from = cursor::peek(&self.db, CONSUMER, feed::SOURCE).await?;
        let records = feed::read_after(&self.db, from.sequence, limit).await?;
        let Some(last) = records.last() else { return Ok(0) };
        let (to, read) = (Position::new(0, last.sequence), records.len());
        let batches = records.iter().filter_map(|record| match &record.event {
            StoreEvent::Rated(rated) => Some(rated.batch),
            _ => None,
        });
        let (batches, now): (Vec<BatchId>, _) = (batches.collect(), self.now());
        let written = self.db.write::<usize, std::convert::Infallible, _>(move |tx| {
            let batches = batches.clone();
            Box::pin(async move {
                write(tx, &batches, from, to, now).await?;
                Ok(read)
            })
        });
        unless_moved(written.await)
    }
}

async fn write(tx: &mut Tx, batches: &[BatchId], from: Position, to: Position, now: Timestamp) -> Result<(), DbError> {
    let mut sums: BTreeMap<(i64, Uuid, String, String), RevenueRow> = BTreeMap::new();
    for batch in batches {
        let rows: Vec<RevenueRow> =
            on_tx!(tx, c => sqlx::query_as(BATCH).bind(batch.uuid()).fetch_all(c).await).map_err(DbError::from)?;
        for row in rows {
            let key = (row.start_at, row.account_id, row.side.clone(), row.currency.clone());
            match sums.get_mut(&key) {
                Some(sum) => {
                    sum.rated_count = sum.rated_count.saturating_add(row.rated_count);
                    sum.billed_ms = sum.billed_ms.saturating_add(row.billed_ms);
                    sum.amount_millions = sum.amount_millions.saturating_add(row.amount_millions);
                    sum.amount = sum.amount.saturating_add(row.amount);
                }
                None => {
                    sums.insert(key, row);
                }
            }
        }
    }
    let rows: Vec<RevenueRow> = sums.into_values().collect();
    bulk_insert(tx, &rows, REVENUE_CONFLICT).await?;
    cursor::advance(tx, CONSUMER, feed::SOURCE, from, to, now).await
}
