//! Reads the feed of the store once for all who subscribed to changes.

use std::sync::Arc;
use std::time::Duration;

use api_graphql::ChangeNotice;
use async_trait::async_trait;
use db::DbError;
use db::feed::{FeedError, READ_MAX};
use model::event::store::StoreEvent;
use model::page::ReadError;
use tokio::sync::{Mutex, broadcast};

use super::worker::Step;

/// How often the feed is looked at: what a person sees happen at once.
pub const CHANGES_PERIOD: Duration = Duration::from_millis(200);
/// Changes that are kept for subscribers who are behind: two looks that were full. Who is further behind is ended.
const KEPT: usize = 2 * READ_MAX as usize;

/// The reader.
pub struct ChangeFeed {
    store: db::Db,
    /// The event last told.
    sequence: Mutex<i64>,
    told: broadcast::Sender<ChangeNotice>,
}

impl ChangeFeed {
    /// One that tells what is committed from now on.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn begin(store: db::Db) -> Result<Self, DbError> {
        let sequence = Mutex::new(db::feed::head(&store).await?);
        Ok(Self { store, sequence, told: broadcast::Sender::new(KEPT) })
    }

    /// Tells what was committed since the last look, to whoever listens.
    ///
    /// # Errors
    /// When the store cannot be read; the next look goes on from the same place.
    pub async fn look(&self) -> Result<Step, FeedError> {
        let mut sequence = self.sequence.lock().await;
        for record in db::feed::read_after(&self.store, *sequence, READ_MAX).await? {
            *sequence = record.sequence;
            if let StoreEvent::Changed(changed) = record.event {
                // an error means that nobody listens
                let _ = self.told.send(ChangeNotice { sequence: record.sequence, changed: Arc::new(changed) });
            }
        }
        // no more before the period is over: whoever listens has that time to take them
        Ok(Step::Idle)
    }
}

#[async_trait]
impl api_graphql::ChangeFeed for ChangeFeed {
    async fn head(&self) -> Result<i64, ReadError> {
        db::feed::head(&self.store).await.map_err(|error| ReadError::Unavailable(error.to_string()))
    }

    fn listen(&self) -> broadcast::Receiver<ChangeNotice> {
        self.told.subscribe()
    }
}
