//! Availability in the store: the signs of life of nodes, kept as their journals are read, and the history of the alarms
//! of trunks.

use std::collections::BTreeMap;

use db::{DbError, Tx, on_tx};
use model::id::TrunkId;
use model::tenancy::{AccountPath, Scope};
use model::time::Timestamp;
use reports::availability::{
    Availability, Life, LifeSigns, NodeOutage, NodeRecord, OutageCause, TrunkRecord, availability,
};
use reports::period::Bounds;
use uuid::Uuid;

/// Nodes of a report.
const NODES_MAX: i64 = 100;
/// Outages of nodes that are read: a node that is started again every minute, for two weeks.
const OUTAGES_MAX: i64 = 20_000;
/// Alarms of trunks that are read: one a minute, for a month.
const ALARMS_MAX: i64 = 50_000;
/// The type of the alarm of a trunk that is down, as fault management stores it.
pub const TRUNK_DOWN: &str = "trunk_down";
/// What the resource of that alarm begins with; the identifier of the trunk follows.
pub const TRUNK_RESOURCE: &str = "trunk:";

db::statements! {
    /// What the records of a node said so far.
    LIFE = "SELECT since, last_sign_at, stopped FROM pm_node WHERE node = $1";
    /// Its latest outage.
    LATEST = "SELECT begin_at, end_at, cause FROM pm_outage WHERE node = $1 ORDER BY begin_at DESC LIMIT 1";
    /// What they say now.
    KEEP_LIFE = "INSERT INTO pm_node (node, since, last_sign_at, stopped) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (node) DO UPDATE SET since = excluded.since, last_sign_at = excluded.last_sign_at, \
        stopped = excluded.stopped";
    /// Outages that begin after the clock was set back were none.
    DROP_LATER = "DELETE FROM pm_outage WHERE node = $1 AND begin_at >= $2";
    /// Those that seemed to last until after it end there.
    CUT_LATER = "UPDATE pm_outage SET end_at = $2 WHERE node = $1 AND end_at > $2";
    /// An outage, new or longer.
    KEEP_OUTAGE = "INSERT INTO pm_outage (node, begin_at, end_at, cause) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (node, begin_at) DO UPDATE SET end_at = excluded.end_at";
    /// Nodes that were seen in a period.
    NODES = "SELECT node, since, last_sign_at FROM pm_node WHERE last_sign_at > $1 AND since < $2 \
        ORDER BY node LIMIT $3";
    /// When they were down.
    OUTAGES = "SELECT node, begin_at, end_at, cause FROM pm_outage WHERE end_at > $1 AND begin_at < $2 \
        ORDER BY begin_at, node LIMIT $3";
    /// The trunks at and below an account that are watched, and how many there are.
    WATCHED = "SELECT t.id, t.name, t.created_at, COUNT(*) OVER () AS found FROM account a \
        JOIN trunk t ON t.account_id = a.id WHERE a.path >= $1 AND a.path < $2 AND t.created_at < $3 AND t.enabled \
        AND (t.keepalive_ms > 0 OR t.registrar IS NOT NULL) ORDER BY t.name, t.id LIMIT $4";
    /// The alarms of trunks at and below an account that stood in a period.
    ALARMS = "SELECT resource, raised_at, cleared_at, text FROM alarm WHERE path >= $1 AND path < $2 AND type = $3 \
        AND raised_at < $5 AND (cleared_at IS NULL OR cleared_at > $4) ORDER BY raised_at, node, id LIMIT $6";
}

fn cause(text: &str) -> Result<OutageCause, DbError> {
    OutageCause::parse(text).ok_or_else(|| DbError::corrupt("pm_outage.cause", text))
}

/// Keeps what more records of a node say, in the transaction of the cursor. `add` adds them to what was known.
pub(crate) async fn keep(tx: &mut Tx, node: &str, add: impl Fn(&mut LifeSigns) + Send) -> Result<(), DbError> {
    let known: Option<(i64, i64, bool)> =
        on_tx!(&mut *tx, c => sqlx::query_as(LIFE).bind(node).fetch_optional(c).await)?;
    let latest: Option<(i64, i64, String)> =
        on_tx!(&mut *tx, c => sqlx::query_as(LATEST).bind(node).fetch_optional(c).await)?;
    let outage = latest
        .map(|(begin, end, why)| {
            Ok::<_, DbError>(NodeOutage { begin: Timestamp(begin), end: Timestamp(end), cause: cause(&why)? })
        })
        .transpose()?;
    let life = known.map(|(since, last_sign, stopped)| Life {
        since: Timestamp(since),
        last_sign: Timestamp(last_sign),
        stopped,
        outage,
    });
    let mut signs = LifeSigns::from(life);
    add(&mut signs);
    let Some(life) = signs.life else { return Ok(()) };
    if let Some(at) = signs.set_back {
        for sql in [DROP_LATER, CUT_LATER] {
            on_tx!(&mut *tx, c => sqlx::query(sql).bind(node).bind(at.0).execute(c).await.map(|_| ()))?;
        }
    }
    for outage in signs.outages.values() {
        on_tx!(&mut *tx, c => sqlx::query(KEEP_OUTAGE).bind(node).bind(outage.begin.0).bind(outage.end.0)
            .bind(outage.cause.as_str()).execute(c).await.map(|_| ()))?;
    }
    on_tx!(tx, c => sqlx::query(KEEP_LIFE).bind(node).bind(life.since.0).bind(life.last_sign.0).bind(life.stopped)
        .execute(c).await.map(|_| ()))?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct WatchedRow {
    id: Uuid,
    name: String,
    created_at: i64,
    found: i64,
}

/// A time with an alarm, and its text.
type Alarmed = (Timestamp, Option<Timestamp>, String);

/// The availability of nodes and trunks in a period, as an account may see it.
pub(crate) async fn take(tx: &mut Tx, path: &AccountPath, bounds: Bounds) -> Result<Availability, DbError> {
    let nodes = nodes(tx, bounds).await?;
    let scope = Scope::subtree(path);
    let watched: Vec<WatchedRow> = on_tx!(&mut *tx, c => sqlx::query_as(WATCHED)
        .bind(scope.lower()).bind(scope.upper()).bind(bounds.to.0).bind(crate::snapshot::TRUNKS_MAX)
        .fetch_all(c).await)?;
    let alarms: Vec<(String, i64, Option<i64>, String)> = on_tx!(tx, c => sqlx::query_as(ALARMS)
        .bind(scope.lower()).bind(scope.upper()).bind(TRUNK_DOWN).bind(bounds.from.0).bind(bounds.to.0)
        .bind(ALARMS_MAX).fetch_all(c).await)?;
    let mut by_trunk: BTreeMap<Uuid, Vec<Alarmed>> = BTreeMap::new();
    for (resource, raised_at, cleared_at, text) in alarms {
        let Some(Ok(id)) = resource.strip_prefix(TRUNK_RESOURCE).map(str::parse::<Uuid>) else { continue };
        let alarmed = (Timestamp(raised_at), cleared_at.map(Timestamp), text);
        by_trunk.entry(id).or_default().push(alarmed);
    }
    let shown = i64::try_from(watched.len()).unwrap_or(i64::MAX);
    let trunks_left_out = watched.first().map_or(0, |row| row.found.saturating_sub(shown));
    let trunk = |row: WatchedRow| TrunkRecord {
        trunk: TrunkId::from_uuid(row.id),
        name: row.name,
        since: Timestamp(row.created_at),
        alarms: by_trunk.remove(&row.id).unwrap_or_default(),
    };
    let trunks = watched.into_iter().map(trunk).collect();
    // What concerns the installation is the provider's business.
    let found = availability(bounds, &nodes, trunks, path.depth() == 1);
    Ok(Availability { trunks_left_out, ..found })
}

async fn nodes(tx: &mut Tx, bounds: Bounds) -> Result<Vec<NodeRecord>, DbError> {
    let seen: Vec<(String, i64, i64)> = on_tx!(&mut *tx, c => sqlx::query_as(NODES)
        .bind(bounds.from.0).bind(bounds.to.0).bind(NODES_MAX).fetch_all(c).await)?;
    let down: Vec<(String, i64, i64, String)> = on_tx!(tx, c => sqlx::query_as(OUTAGES)
        .bind(bounds.from.0).bind(bounds.to.0).bind(OUTAGES_MAX).fetch_all(c).await)?;
    let record = |(node, since, last_sign)| NodeRecord {
        node,
        since: Timestamp(since),
        last_sign: Timestamp(last_sign),
        outages: Vec::new(),
    };
    let mut nodes: Vec<NodeRecord> = seen.into_iter().map(record).collect();
    for (node, begin, end, why) in down {
        let outage = NodeOutage { begin: Timestamp(begin), end: Timestamp(end), cause: cause(&why)? };
        nodes.iter_mut().filter(|known| known.node == node).for_each(|known| known.outages.push(outage));
    }
    Ok(nodes)
}
