//! The schedule: rows that are owed, not timers. Any node may look at any time; a downtime of any length is caught up.

use db::{DbError, on_db};
use model::id::{AccountId, RunId};
use model::tenancy::Scope;
use model::time::Timestamp;
use reports::period::{Bounds, Month, zone};
use reports::run::{self, months_due};

use crate::worker::unrefused;
use crate::{ReportsStore, change};

db::statements! {
    /// The zone of an account, and since when it exists.
    ACCOUNT_SINCE = "SELECT timezone, created_at FROM account WHERE id = $1";
    /// Whether the schedule has made a run.
    IS_MADE = "SELECT COUNT(*) FROM report_run WHERE definition = $1 AND period = $2";
}

/// A monthly report that is made without asking: of which account, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The account, for itself and all below.
    pub account: AccountId,
    /// Mail addresses; may be empty: the report then waits to be fetched.
    pub recipients: Vec<String>,
}

impl ReportsStore {
    /// Writes a due run for each of the last finished months that has none, at most
    /// [`CATCH_UP_MAX`](reports::run::CATCH_UP_MAX) per definition. Gives how many were written.
    /// A definition whose account is missing or whose zone is unknown is logged and passed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn schedule_due(&self, definitions: &[Definition]) -> Result<usize, DbError> {
        let now = self.now();
        let mut written = 0;
        for definition in definitions {
            for (month, bounds) in self.owed(definition.account, now).await? {
                written += usize::from(self.schedule(definition, month, bounds, now).await?);
            }
        }
        Ok(written)
    }

    async fn owed(&self, account: AccountId, now: Timestamp) -> Result<Vec<(Month, Bounds)>, DbError> {
        let row: Option<(String, i64)> =
            on_db!(&self.db, c => sqlx::query_as(ACCOUNT_SINCE).bind(account.uuid()).fetch_optional(c).await)?;
        let Some((timezone, since)) = row else {
            tracing::warn!(account.id = %account, "a scheduled report names an account that does not exist");
            return Ok(Vec::new());
        };
        let months = zone(&timezone).and_then(|zone| months_due(zone, Timestamp(since), now));
        let months = months.unwrap_or_else(|error| {
            tracing::warn!(account.id = %account, %error, "a scheduled report has no period");
            Vec::new()
        });
        let definition = run::scheduled(account);
        let mut owed = Vec::new();
        for (month, bounds) in months {
            let made: i64 = on_db!(&self.db, c => sqlx::query_scalar(IS_MADE)
                .bind(&definition).bind(month.to_string()).fetch_one(c).await)?;
            if made == 0 {
                owed.push((month, bounds));
            }
        }
        Ok(owed)
    }

    async fn schedule(
        &self,
        definition: &Definition,
        month: Month,
        bounds: Bounds,
        now: Timestamp,
    ) -> Result<bool, DbError> {
        let (account, recipients) = (definition.account, definition.recipients.clone());
        let id = RunId::new(&*self.ids);
        let written = self.db.write::<bool, std::convert::Infallible, _>(move |tx| {
            let recipients = recipients.clone();
            Box::pin(async move {
                let name = run::scheduled(account);
                let view = change::view(tx, &Scope::installation(), account, &name, &month.to_string()).await?;
                let Some(mut view) = view else { return Ok(false) };
                // Always the first revision: a second node meets the unique key.
                view.next_revision = 0;
                let planned = run::plan_scheduled(&view, month, bounds, &recipients, id, now);
                Ok(change::insert(tx, &planned.run, &planned.recipients).await?)
            })
        });
        unrefused(written.await)
    }
}
