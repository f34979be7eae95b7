//! Registrations over a restart: a batch is one transaction and safe to repeat.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use db::dialect::{BulkRow, Value, bulk_insert};
use db::sqlx::{self, AssertSqlSafe, FromRow};
use db::{DbError, Tx, WriteError, on_db, on_tx};
use model::id::SubscriberId;
use model::page::ReadError;
use model::time::Timestamp;
use provisioning::port::{Registration, RegistrationChange, Registrations};
use uuid::Uuid;

use crate::ProvisioningStore;
use crate::row::{failed, parsed, read_error, unsigned};

/// Subscribers that one statement asks for; the last is repeated to fill it up, so that its text stays the same.
const PRESENT_MAX: usize = 256;
/// How often a batch is run again when a subscriber goes between the look and the insert.
const ATTEMPTS_MAX: u32 = 5;

const CONFLICT: &str = "ON CONFLICT (subscriber_id, contact) DO UPDATE SET source = excluded.source, \
    call_id = excluded.call_id, cseq = excluded.cseq, user_agent = excluded.user_agent, \
    expires_at = excluded.expires_at";

db::statements! {
    LIST = "SELECT subscriber_id, contact, source, call_id, cseq, user_agent, expires_at FROM registration \
        WHERE expires_at > $1 ORDER BY subscriber_id, contact";
    DELETE = "DELETE FROM registration WHERE subscriber_id = $1 AND contact = $2";
    EXPIRE = "DELETE FROM registration WHERE expires_at <= $1";
}

#[derive(Debug, FromRow)]
struct Row {
    subscriber_id: Uuid,
    contact: String,
    source: String,
    call_id: String,
    cseq: i64,
    user_agent: String,
    expires_at: i64,
}

impl Row {
    fn registration(self) -> Result<Registration, DbError> {
        Ok(Registration {
            subscriber: SubscriberId::from_uuid(self.subscriber_id),
            contact: self.contact,
            source: parsed("registration.source", &self.source)?,
            call_id: self.call_id,
            cseq: unsigned("registration.cseq", self.cseq)?,
            user_agent: self.user_agent,
            expires_at: Timestamp(self.expires_at),
        })
    }
}

struct Bound<'a>(&'a Registration);

impl BulkRow for Bound<'_> {
    const TABLE: &'static str = "registration";
    const COLUMNS: &'static [&'static str] =
        &["subscriber_id", "contact", "source", "call_id", "cseq", "user_agent", "expires_at"];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let r = self.0;
        out.extend([
            r.subscriber.uuid().into(),
            r.contact.as_str().into(),
            r.source.to_string().into(),
            r.call_id.as_str().into(),
            i64::from(r.cseq).into(),
            r.user_agent.as_str().into(),
            r.expires_at.0.into(),
        ]);
    }
}

#[async_trait]
impl Registrations for ProvisioningStore {
    /// Asked once, at a start: what has ended goes, since nobody will unbind it any more.
    async fn registration_list(&self, now: Timestamp) -> Result<Vec<Registration>, ReadError> {
        let expired = self.db.write(move |tx| {
            Box::pin(async move {
                on_tx!(tx, c => sqlx::query(EXPIRE).bind(now.0).execute(c).await.map(|_| ()))?;
                Ok::<(), WriteError<DbError>>(())
            })
        });
        expired.await.map_err(write_error)?;
        let rows: Vec<Row> =
            on_db!(&self.db, c => sqlx::query_as(LIST).bind(now.0).fetch_all(c).await).map_err(failed)?;
        rows.into_iter().map(Row::registration).collect::<Result<_, _>>().map_err(read_error)
    }

    async fn registration_store(&self, changes: Vec<RegistrationChange>) -> Result<(), ReadError> {
        let changes = Arc::new(last_of_each(changes));
        for _ in 0..ATTEMPTS_MAX {
            let changes = Arc::clone(&changes);
            let stored = self.db.write(move |tx| {
                let changes = Arc::clone(&changes);
                Box::pin(async move { store(tx, &changes).await.map_err(WriteError::<DbError>::Db) })
            });
            match stored.await {
                Err(WriteError::Db(DbError::ForeignKey)) => {}
                other => return other.map_err(write_error),
            }
        }
        Err(read_error(DbError::Contended { attempts: ATTEMPTS_MAX }))
    }
}

type Key = (SubscriberId, String);

/// The last change of each binding decides; a statement must not name a row twice.
fn last_of_each(changes: Vec<RegistrationChange>) -> BTreeMap<Key, Option<Registration>> {
    let keyed = changes.into_iter().map(|change| match change {
        RegistrationChange::Bound(r) => ((r.subscriber, r.contact.clone()), Some(r)),
        RegistrationChange::Unbound(subscriber, contact) => ((subscriber, contact), None),
    });
    keyed.collect()
}

async fn store(tx: &mut Tx, changes: &BTreeMap<Key, Option<Registration>>) -> Result<(), DbError> {
    let subscribers: BTreeSet<Uuid> = changes.values().flatten().map(|r| r.subscriber.uuid()).collect();
    let present = present(tx, subscribers.into_iter().collect()).await?;
    for ((subscriber, contact), change) in changes {
        if change.is_none() {
            on_tx!(tx, c => sqlx::query(DELETE).bind(subscriber.uuid()).bind(contact).execute(c).await.map(|_| ()))?;
        }
    }
    let bound = changes.values().flatten().filter(|r| present.contains(&r.subscriber.uuid()));
    let bound: Vec<Bound<'_>> = bound.map(Bound).collect();
    bulk_insert(tx, &bound, CONFLICT).await?;
    Ok(())
}

/// Which of these subscribers there are.
async fn present(tx: &mut Tx, subscribers: Vec<Uuid>) -> Result<BTreeSet<Uuid>, DbError> {
    let mut present = BTreeSet::new();
    for chunk in subscribers.chunks(PRESENT_MAX) {
        let sql = AssertSqlSafe(present_statement());
        let found: Vec<Uuid> = on_tx!(tx, c => {
            let mut query = sqlx::query_scalar(sql);
            for id in chunk.iter().chain(std::iter::repeat_n(&chunk[chunk.len() - 1], PRESENT_MAX - chunk.len())) {
                query = query.bind(*id);
            }
            query.fetch_all(c).await
        })?;
        present.extend(found);
    }
    Ok(present)
}

pub(crate) fn present_statement() -> String {
    let marks: Vec<String> = (1..=PRESENT_MAX).map(|n| format!("${n}")).collect();
    format!("SELECT id FROM subscriber WHERE id IN ({})", marks.join(","))
}

#[cfg(test)]
pub(crate) fn bulk_statement() -> String {
    db::dialect::bulk_statement::<Bound<'_>>(2, CONFLICT)
}

fn write_error(error: WriteError<DbError>) -> ReadError {
    match error {
        WriteError::Db(error) | WriteError::Refused(error) => read_error(error),
    }
}
