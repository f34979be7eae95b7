//! An alarm as it stands in a row, on the node and in the store.

use db::DbError;
use db::dialect::{BulkRow, Value};
use fault::catalogue::AlarmType;
use fault::resource::{Alarm, Severity};
use model::time::Timestamp;

/// The columns that both tables have.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct AlarmRow {
    pub(crate) id: i64,
    pub(crate) r#type: String,
    resource: String,
    path: String,
    severity: String,
    text: String,
    raised_at: i64,
    changed_at: i64,
    last_seen_at: i64,
    cleared_at: Option<i64>,
    count: i64,
    acked_by: Option<String>,
    acked_at: Option<i64>,
    ack_note: Option<String>,
}

impl AlarmRow {
    /// The alarm; none when its type is of a newer version of the program, which alone can speak of it.
    pub(crate) fn alarm(self, node: &str) -> Result<Option<Alarm>, DbError> {
        let Some(alarm_type) = AlarmType::parse(&self.r#type) else {
            tracing::warn!(
                alarm.id = self.id,
                alarm.r#type = self.r#type,
                "an alarm of a type that this version does not know is passed over"
            );
            return Ok(None);
        };
        let severity = Severity::parse(&self.severity)
            .ok_or_else(|| DbError::corrupt("alarm.severity", format!("{} is none", self.severity)))?;
        let path = match self.path.as_str() {
            "" => None,
            path => Some(path.parse().map_err(|e| DbError::corrupt("alarm.path", e))?),
        };
        Ok(Some(Alarm {
            node: node.to_owned(),
            id: alarm_id(self.id)?,
            alarm_type,
            resource: self.resource,
            path,
            severity,
            text: self.text,
            raised_at: Timestamp(self.raised_at),
            changed_at: Timestamp(self.changed_at),
            last_seen_at: Timestamp(self.last_seen_at),
            cleared_at: self.cleared_at.map(Timestamp),
            count: self.count,
            acknowledgement: self
                .acked_by
                .zip(self.acked_at)
                .map(|(by, at)| (by, Timestamp(at), self.ack_note.unwrap_or_default())),
        }))
    }
}

/// The number that the node drew.
pub(crate) fn alarm_id(id: i64) -> Result<u32, DbError> {
    u32::try_from(id).map_err(|e| DbError::corrupt("alarm.id", e))
}

/// The stored path; an alarm of the platform has the path ''.
pub(crate) fn path_text(alarm: &Alarm) -> &str {
    alarm.path.as_ref().map_or("", |path| path.as_str())
}

/// A row of the store's copy.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct CopyRow {
    pub(crate) node: String,
    #[sqlx(flatten)]
    pub(crate) alarm: AlarmRow,
}

/// The node's word replaces the copy. An acknowledgement is never taken back: the copy may have one that the node has
/// yet to apply. It belongs to the alarm that was raised then: a node that lost its database counts from 1 again, and
/// its new alarm is another one under the same number.
pub(crate) const COPY_CONFLICT: &str = "ON CONFLICT (node, id) DO UPDATE SET type = excluded.type, \
    resource = excluded.resource, path = excluded.path, severity = excluded.severity, text = excluded.text, \
    raised_at = excluded.raised_at, changed_at = excluded.changed_at, last_seen_at = excluded.last_seen_at, \
    cleared_at = excluded.cleared_at, count = excluded.count, \
    acked_by = CASE WHEN excluded.acked_by IS NULL AND excluded.raised_at = alarm.raised_at \
        THEN alarm.acked_by ELSE excluded.acked_by END, \
    acked_at = CASE WHEN excluded.acked_by IS NULL AND excluded.raised_at = alarm.raised_at \
        THEN alarm.acked_at ELSE excluded.acked_at END, \
    ack_note = CASE WHEN excluded.acked_by IS NULL AND excluded.raised_at = alarm.raised_at \
        THEN alarm.ack_note ELSE excluded.ack_note END";

impl BulkRow for CopyRow {
    const TABLE: &'static str = "alarm";
    const COLUMNS: &'static [&'static str] = &[
        "node",
        "id",
        "type",
        "resource",
        "path",
        "severity",
        "text",
        "raised_at",
        "changed_at",
        "last_seen_at",
        "cleared_at",
        "count",
        "acked_by",
        "acked_at",
        "ack_note",
    ];

    fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
        let row = &self.alarm;
        out.extend([
            Value::from(self.node.as_str()),
            row.id.into(),
            row.r#type.as_str().into(),
            row.resource.as_str().into(),
            row.path.as_str().into(),
            row.severity.as_str().into(),
            row.text.as_str().into(),
            row.raised_at.into(),
            row.changed_at.into(),
            row.last_seen_at.into(),
            row.cleared_at.into(),
            row.count.into(),
            row.acked_by.as_deref().into(),
            row.acked_at.into(),
            row.ack_note.as_deref().into(),
        ]);
    }
}
