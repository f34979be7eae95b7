//! The audit trail, as far as a scope reaches. It is written by `db::change` and verified by `db::change`.

use db::sqlx::{self, FromRow};
use db::{Db, DbError, on_db};
use model::id::ChangeId;
use model::page::{Page, PageRequest, ReadError};
use model::tenancy::Scope;
use model::time::Timestamp;
use provisioning::port::AuditEntry;
use uuid::Uuid;

use crate::row::{Stored, bad_cursor, failed, parsed, read_error};

db::statements! {
    LIST = "SELECT sequence, change_id, at, path, actor_kind, actor_name, command, plan, hash FROM audit \
        WHERE path >= $1 AND path < $2 AND sequence > $3 ORDER BY sequence LIMIT $4";
}

#[derive(Debug, FromRow)]
struct Row {
    sequence: i64,
    change_id: Uuid,
    at: i64,
    path: String,
    actor_kind: String,
    actor_name: String,
    command: String,
    plan: String,
    hash: Vec<u8>,
}

impl Stored for Row {
    type Resource = AuditEntry;
    fn resource(self) -> Result<AuditEntry, DbError> {
        Ok(AuditEntry {
            sequence: self.sequence,
            change: ChangeId::from_uuid(self.change_id),
            at: Timestamp(self.at),
            path: parsed("audit.path", &self.path)?,
            actor_kind: self.actor_kind,
            actor_name: self.actor_name,
            command: self.command,
            plan: serde_json::from_str(&self.plan).map_err(|e| DbError::corrupt("audit.plan", e))?,
            hash: self.hash,
        })
    }
}

pub(crate) async fn audit_list(db: &Db, scope: &Scope, page: &PageRequest) -> Result<Page<AuditEntry>, ReadError> {
    page.check()?;
    let after = page.after.as_deref().map_or(Ok(0_i64), |after| after.parse().map_err(|_| bad_cursor()))?;
    let rows: Vec<Row> = on_db!(db, c => sqlx::query_as(LIST)
        .bind(scope.lower()).bind(scope.upper()).bind(after).bind(i64::from(page.first) + 1).fetch_all(c).await)
    .map_err(failed)?;
    let rows = rows.into_iter().map(Row::resource).collect::<Result<Vec<_>, _>>().map_err(read_error)?;
    Ok(Page::cut(rows, page, |entry| entry.sequence.to_string()))
}
