//! Numbers.

use db::dialect::{BulkRow, Value};
use db::sqlx::{self, AssertSqlSafe, FromRow};
use db::{DbError, Tx, on_tx};
use model::id::{AccountId, NumberId, SubscriberId};
use model::time::Timestamp;
use provisioning::resource::{Hold, HoldKind, Number};
use uuid::Uuid;

use crate::row::{Lock, New, Stored, one_row, owned_statements, parsed, revision};

owned_statements! {
    "number", "x.id, x.account_id, x.e164, x.subscriber_id, x.hold, x.hold_account, x.hold_until, \
        x.version, x.created_at, x.updated_at";
    /// Who has this number.
    E164 = "SELECT id FROM number WHERE e164 = $1";
    /// The numbers of a subscriber. Takes the lock clause.
    ASSIGNED = "SELECT x.id, x.account_id, x.e164, x.subscriber_id, x.hold, x.hold_account, x.hold_until, x.version, \
        x.created_at, x.updated_at FROM number x WHERE x.subscriber_id = $1 ORDER BY x.id";
    UPDATE = "UPDATE number SET subscriber_id = $3, version = version + 1, updated_at = $4, hold = $5, \
        hold_account = $6, hold_until = $7 WHERE id = $1 AND version = $2";
    DELETE = "DELETE FROM number WHERE id = $1 AND version = $2";
}

#[derive(Debug, FromRow)]
pub(crate) struct Row {
    id: Uuid,
    account_id: Uuid,
    e164: String,
    subscriber_id: Option<Uuid>,
    hold: Option<String>,
    hold_account: Option<Uuid>,
    hold_until: Option<i64>,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl Stored for Row {
    type Resource = Number;
    fn resource(self) -> Result<Number, DbError> {
        let held = self.hold.zip(self.hold_account).zip(self.hold_until);
        let hold = |((kind, account), until): ((String, Uuid), i64)| {
            let kind = HoldKind::parse(&kind).ok_or_else(|| DbError::corrupt("number.hold", kind))?;
            Ok::<_, DbError>(Hold { kind, account: AccountId::from_uuid(account), until: Timestamp(until) })
        };
        Ok(Number {
            id: NumberId::from_uuid(self.id),
            account: AccountId::from_uuid(self.account_id),
            e164: parsed("number.e164", &self.e164)?,
            subscriber: self.subscriber_id.map(SubscriberId::from_uuid),
            hold: held.map(hold).transpose()?,
            revision: revision(self.version, self.created_at, self.updated_at),
        })
    }
}

/// The numbers of a subscriber.
pub(crate) async fn assigned(tx: &mut Tx, subscriber: SubscriberId) -> Result<Vec<Number>, DbError> {
    let sql = AssertSqlSafe(format!("{ASSIGNED}{}", Lock::Held.clause(tx)));
    let rows: Vec<Row> = on_tx!(tx, c => sqlx::query_as(sql).bind(subscriber.uuid()).fetch_all(c).await)?;
    rows.into_iter().map(Row::resource).collect()
}

impl BulkRow for New<Number> {
    const TABLE: &'static str = "number";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "account_id",
        "e164",
        "subscriber_id",
        "hold",
        "hold_account",
        "hold_until",
        "version",
        "created_at",
        "updated_at",
    ];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let new = &self.0;
        out.extend([
            new.id.uuid().into(),
            new.account.uuid().into(),
            new.e164.to_string().into(),
            new.subscriber.map(SubscriberId::uuid).into(),
            new.hold.map(|hold| hold.kind.as_str()).into(),
            new.hold.map(|hold| hold.account.uuid()).into(),
            new.hold.map(|hold| hold.until.0).into(),
            new.revision.version.into(),
            new.revision.created_at.0.into(),
            new.revision.updated_at.0.into(),
        ]);
    }
}

pub(crate) async fn update(tx: &mut Tx, n: &Number) -> Result<(), DbError> {
    let affected = on_tx!(tx, c => sqlx::query(UPDATE)
        .bind(n.id.uuid()).bind(n.revision.version - 1).bind(n.subscriber.map(SubscriberId::uuid))
        .bind(n.revision.updated_at.0).bind(n.hold.map(|hold| hold.kind.as_str()))
        .bind(n.hold.map(|hold| hold.account.uuid())).bind(n.hold.map(|hold| hold.until.0))
        .execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}

pub(crate) async fn delete(tx: &mut Tx, id: NumberId, version: i64) -> Result<(), DbError> {
    let affected = on_tx!(tx, c => sqlx::query(DELETE)
        .bind(id.uuid()).bind(version).execute(c).await.map(|done| done.rows_affected()))?;
    one_row(affected)
}
