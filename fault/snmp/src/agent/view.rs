//! One picture of the node as the agent answers it: every object with its value, in the order of a walk.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_snmp::handler::{
    BoxFuture, GetNextResult, GetResult, HandlerError, HandlerResult, MibHandler, RequestContext,
};
use async_snmp::{Oid, OidTable, Value, VarBind};
use bytes::Bytes;
use fault::port::{NodeSnapshot, NodeView, TargetStatus};
use fault::resource::{Alarm, Severity};
use model::time::{Clock, Timestamp};
use tokio::sync::Mutex;

use super::gate::{Doors, GateCounts};
use super::{snmp, system};
use crate::config::{SnmpConfig, SnmpKind, SnmpVersion};
use crate::objects::{Object, Oids};
use crate::sink::{date_and_time, enumerated, text_value, truth, unsigned};
use crate::tables::{ACTIVE, ENTRY, TARGETS, Table};

/// How old the picture may be. A walk of some seconds may see rows come and go between its steps; the order of the
/// rows does not change.
const REFRESH: Duration = Duration::from_secs(1);

pub(crate) struct View {
    oids: Oids,
    node: Arc<dyn NodeView>,
    clock: Arc<dyn Clock>,
    started: Instant,
    description: String,
    contact: String,
    location: String,
    heartbeat_s: u32,
    kinds: BTreeMap<String, u32>,
    counts: Arc<GateCounts>,
    doors: Doors,
    picture: Mutex<Option<(Instant, Arc<OidTable<Value>>)>>,
}

impl View {
    pub(crate) fn new(
        config: &SnmpConfig,
        version: &str,
        node: Arc<dyn NodeView>,
        clock: Arc<dyn Clock>,
        counts: Arc<GateCounts>,
    ) -> Self {
        let kind = |version, kind| match (version, kind) {
            (SnmpVersion::V2c, SnmpKind::Trap) => 1,
            (SnmpVersion::V2c, SnmpKind::Inform) => 2,
            (SnmpVersion::V3, SnmpKind::Trap) => 3,
            (SnmpVersion::V3, SnmpKind::Inform) => 4,
        };
        Self {
            oids: Oids::new(config.enterprise_number),
            node,
            started: clock.now().mono,
            clock,
            description: format!("Tandem {version}, management plane of communications as a service"),
            contact: config.agent.contact.clone(),
            location: config.agent.location.clone(),
            heartbeat_s: config.heartbeat_s,
            kinds: config.targets.iter().map(|t| (t.name.clone(), kind(t.version, t.kind()))).collect(),
            counts,
            doors: Doors::default(),
            picture: Mutex::new(None),
        }
    }

    pub(crate) fn doors(&self) -> Doors {
        Arc::clone(&self.doors)
    }

    /// The subtrees that are answered from the picture, in the order of a walk.
    pub(crate) fn prefixes(&self) -> Vec<Oid> {
        vec![system(), snmp(), Oid::from_slice(&self.oids.root())]
    }

    async fn picture(&self) -> HandlerResult<Arc<OidTable<Value>>> {
        let now = self.clock.now().mono;
        let mut picture = self.picture.lock().await;
        if let Some((at, table)) = &*picture
            && now.saturating_duration_since(*at) < REFRESH
        {
            return Ok(Arc::clone(table));
        }
        let snapshot = self.node.snapshot().await.map_err(|error| HandlerError::new(error.to_string()))?;
        let table = Arc::new(self.table(&snapshot).into_iter().collect::<OidTable<Value>>());
        *picture = Some((now, Arc::clone(&table)));
        Ok(table)
    }

    fn table(&self, snapshot: &NodeSnapshot) -> Vec<(Oid, Value)> {
        let mut rows = Vec::new();
        self.system_group(snapshot, &mut rows);
        self.snmp_group(&mut rows);
        self.scalars(snapshot, &mut rows);
        for alarm in &snapshot.alarms {
            self.row(&ACTIVE, &[alarm.id], active_alarm(alarm), &mut rows);
        }
        for target in &snapshot.targets {
            let name = target.name.name();
            let index: Vec<u32> = name.bytes().map(u32::from).collect();
            let kind = self.kinds.get(name).copied().unwrap_or(1);
            self.row(&TARGETS, &index, target_row(target, kind), &mut rows);
        }
        rows
    }

    fn system_group(&self, snapshot: &NodeSnapshot, rows: &mut Vec<(Oid, Value)>) {
        /// Applications (RFC 3418: layer 7).
        const SERVICES: i32 = 72;
        let values = [
            text_value(&self.description),
            Value::ObjectIdentifier(Oid::from_slice(&self.oids.root())),
            Value::TimeTicks(self.uptime()),
            text_value(&self.contact),
            text_value(&snapshot.node),
            text_value(&self.location),
            Value::Integer(SERVICES),
        ];
        rows.extend((1..).zip(values).map(|(arc, value)| (scalar(&system(), arc), value)));
    }

    /// Those of RFC 3418 that the gate counts.
    fn snmp_group(&self, rows: &mut Vec<(Oid, Value)>) {
        let counts = &self.counts;
        let disabled = Value::Integer(2);
        let malformed = Value::Counter32(counts.malformed.load(Ordering::Relaxed));
        let values = [
            (1, count(&counts.requests)),
            (3, count(&counts.versions)),
            (4, count(&counts.communities)),
            (6, malformed),
            // snmpEnableAuthenTraps: a wrong community is counted, not notified
            (30, disabled),
        ];
        rows.extend(values.map(|(arc, value)| (scalar(&snmp(), arc), value)));
    }

    fn scalars(&self, snapshot: &NodeSnapshot, rows: &mut Vec<(Oid, Value)>) {
        let active = u32::try_from(snapshot.alarms.len()).unwrap_or(u32::MAX);
        rows.push((Oid::from_slice(&self.oids.instance(Object::ActiveCount)), Value::Gauge32(active)));
        let period = Value::Gauge32(self.heartbeat_s);
        rows.push((Oid::from_slice(&self.oids.instance(Object::HeartbeatPeriod)), period));
        let of = |severity| {
            let alarms = snapshot.alarms.iter().filter(|alarm| alarm.severity == severity).count();
            Value::Gauge32(u32::try_from(alarms).unwrap_or(u32::MAX))
        };
        let values = [
            of(Severity::Critical),
            of(Severity::Major),
            of(Severity::Minor),
            of(Severity::Warning),
            of(Severity::Indeterminate),
            count(&self.counts.foreign),
            count(&self.counts.excess),
            count(&self.counts.users),
        ];
        for (column, value) in crate::tables::SCALARS.iter().zip(values) {
            rows.push((Oid::from_slice(&self.oids.of_agent(&[column.arc, 0])), value));
        }
    }

    fn row(&self, table: &Table, index: &[u32], values: Vec<Value>, rows: &mut Vec<(Oid, Value)>) {
        let columns = table.columns.iter().skip(1);
        rows.extend(columns.zip(values).map(|(column, value)| {
            let arcs = [&[table.arc, ENTRY, column.arc], index].concat();
            (Oid::from_slice(&self.oids.of_agent(&arcs)), value)
        }));
    }

    /// Hundredths of a second since the start; `TimeTicks` wrap after 497 days (RFC 2578, section 7.1.8).
    fn uptime(&self) -> u32 {
        let hundredths = self.clock.now().mono.saturating_duration_since(self.started).as_millis() / 10;
        u32::try_from(hundredths & u128::from(u32::MAX)).unwrap_or(u32::MAX)
    }

    /// The value at an identifier of the picture; the time does not stand still between two pictures.
    fn value(&self, oid: &Oid, value: &Value) -> Value {
        if *oid == scalar(&system(), 3) { Value::TimeTicks(self.uptime()) } else { value.clone() }
    }

    /// Whether the request came through the gate.
    fn check(&self, context: &RequestContext) -> HandlerResult<()> {
        let source = context.source();
        let doors = self.doors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if source.ip() == Ipv4Addr::LOCALHOST && doors.contains(&source.port()) {
            Ok(())
        } else {
            Err(HandlerError::new("the request did not come through the gate"))
        }
    }
}

fn scalar(group: &Oid, arc: u32) -> Oid {
    Oid::from_slice(&[group.arcs(), &[arc, 0]].concat())
}

fn count(counter: &AtomicU32) -> Value {
    Value::Counter32(counter.load(Ordering::Relaxed))
}

/// The columns after the index.
fn active_alarm(alarm: &Alarm) -> Vec<Value> {
    let definition = alarm.alarm_type.definition();
    let time = |at: Timestamp| Value::OctetString(Bytes::copy_from_slice(&date_and_time(at)));
    let by = alarm.acknowledgement.as_ref().map_or("", |(by, ..)| by.as_str());
    vec![
        text_value(definition.key),
        text_value(&alarm.resource),
        enumerated(alarm.severity.itu()),
        enumerated(definition.event_type),
        Value::Gauge32(definition.probable_cause),
        text_value(&alarm.text),
        time(alarm.raised_at),
        time(alarm.changed_at),
        time(alarm.last_seen_at),
        unsigned(alarm.count),
        truth(alarm.acknowledgement.is_some()),
        text_value(by),
    ]
}

/// The columns after the index.
fn target_row(target: &TargetStatus, kind: u32) -> Vec<Value> {
    // Counters wrap (RFC 2578, section 7.1.6)
    let counter = |count: u64| Value::Counter32(u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX));
    vec![
        enumerated(kind),
        unsigned(target.epoch),
        unsigned(target.last_sequence),
        unsigned(target.waiting),
        counter(target.sent),
        counter(target.failed),
        truth(target.reachable),
    ]
}

/// One subtree of the picture: the library asks for each below its own prefix.
pub(crate) struct Subtree {
    view: Arc<View>,
    prefix: Oid,
}

impl Subtree {
    pub(crate) fn new(view: Arc<View>, prefix: Oid) -> Self {
        Self { view, prefix }
    }
}

impl MibHandler for Subtree {
    fn get<'a>(&'a self, context: &'a RequestContext, oid: &'a Oid) -> BoxFuture<'a, HandlerResult<GetResult>> {
        Box::pin(async move {
            self.view.check(context)?;
            let picture = self.view.picture().await?;
            if let Some(value) = picture.get(oid) {
                return Ok(GetResult::Value(self.view.value(oid, value)));
            }
            // What follows the object without its instance tells whether there is such an object
            let object = Oid::from_slice(oid.arcs().split_last().map_or(&[], |(_, object)| object));
            let known = picture
                .get_next(&object)
                .is_some_and(|(next, _)| next.starts_with(&object) && object.arcs().len() > self.prefix.arcs().len());
            Ok(if known { GetResult::NoSuchInstance } else { GetResult::NoSuchObject })
        })
    }

    fn get_next<'a>(
        &'a self,
        context: &'a RequestContext,
        oid: &'a Oid,
    ) -> BoxFuture<'a, HandlerResult<GetNextResult>> {
        Box::pin(async move {
            self.view.check(context)?;
            let picture = self.view.picture().await?;
            let from = if *oid < self.prefix { &self.prefix } else { oid };
            Ok(match picture.get_next(from) {
                Some((next, value)) if next.starts_with(&self.prefix) => {
                    GetNextResult::Value(VarBind::new(next.clone(), self.view.value(next, value)))
                }
                _ => GetNextResult::EndOfMibView,
            })
        })
    }
}
