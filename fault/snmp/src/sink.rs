//! The sink for notifications: traps and informs (RFC 3416, sections 4.2.6 and 4.2.7), v2c and v3.
//!
//! With a trap this node's engine is authoritative, so the receiver must know its `snmpEngineID`; with an inform the
//! receiver's is, and it is discovered (RFC 3414, section 4).

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_snmp::transport::UdpHandle;
use async_snmp::{Auth, Client, ErrorKind, Oid, Retry, Value, VarBind};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{Datelike as _, Timelike as _};
use fault::notification::{Content, Notification, ResyncMark, one_line};
use fault::port::{Heartbeat, NotificationSink, Outgoing, SinkError};
use model::time::{Clock, Timestamp};
use tokio::sync::Mutex;

use crate::config::{SnmpKind, SnmpTargetConfig, SnmpVersion};
use crate::engine::Engine;
use crate::objects::{NotificationName, Object, Oids};
use crate::user::SnmpUserConfig;

/// How long the system may take for one datagram, or for the socket. A local buffer that stays full for a second is
/// an outage.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends the notifications of one target. A trap that left says nothing of its arrival: the sequence does. An inform
/// that was delivered was acknowledged.
pub struct SnmpSink {
    target: SnmpTargetConfig,
    user: Option<SnmpUserConfig>,
    oids: Oids,
    clock: Arc<dyn Clock>,
    started: Instant,
    engine: Option<Engine>,
    /// Opened by the first notification and anew after a failure: a network that is not up yet is no error at start,
    /// and a receiver that came back with another engine is discovered again.
    client: Mutex<Option<Client<UdpHandle>>>,
}

impl SnmpSink {
    /// The sink of `target`, whose v3 user is `user`. `sysUpTime` counts from here. Without an engine v3 traps are
    /// refused.
    pub(crate) fn new(
        target: &SnmpTargetConfig,
        user: Option<&SnmpUserConfig>,
        oids: Oids,
        clock: Arc<dyn Clock>,
        engine: Option<Engine>,
    ) -> Self {
        let started = clock.now().mono;
        let client = Mutex::new(None);
        Self { target: target.clone(), user: user.cloned(), oids, clock, started, engine, client }
    }

    /// Sends `tandemTestNotification` at once, beside the outbox and its sequence: for an operator who wants to see
    /// whether anything arrives. Of an inform, success says that it was acknowledged.
    ///
    /// # Errors
    /// [`SinkError`].
    pub async fn send_test(&self, node: &str) -> Result<(), SinkError> {
        let text = test_text(&self.target.name);
        let varbinds =
            vec![self.varbind(Object::Node, text_value(node)), self.varbind(Object::Text, text_value(&text))];
        self.send(NotificationName::Test, varbinds).await
    }

    async fn send(&self, name: NotificationName, varbinds: Vec<VarBind>) -> Result<(), SinkError> {
        let mut slot = self.client.lock().await;
        let client = match slot.take() {
            Some(client) => client,
            None => self.connect().await?,
        };
        let oid = Oid::from_slice(&self.oids.notification(name));
        match self.target.kind() {
            SnmpKind::Trap => client.send_trap(&oid, self.uptime(), varbinds).await,
            SnmpKind::Inform => client.send_inform(&oid, self.uptime(), varbinds).await,
        }
        .map_err(sink_error)?;
        *slot = Some(client);
        Ok(())
    }

    async fn connect(&self) -> Result<Client<UdpHandle>, SinkError> {
        let auth = match (self.target.version, &self.user) {
            (SnmpVersion::V2c, _) => Auth::v2c(self.target.community.as_str()),
            (SnmpVersion::V3, Some(user)) => {
                Auth::Usm(user.originator(&self.target.user).map_err(|e| SinkError::Unsendable(e.to_string()))?)
            }
            (SnmpVersion::V3, None) => return Err(SinkError::Unsendable("the target has no user".to_owned())),
        };
        let timeout = Duration::from_millis(u64::from(self.target.inform_timeout_ms));
        let mut builder = Client::builder(self.target.address, auth)
            .send_timeout(SEND_TIMEOUT)
            .construction_timeout(SEND_TIMEOUT)
            .request_timeout(timeout)
            // The outbox repeats, with waits that grow and survive a restart
            .retry(Retry::none());
        if let Some(engine) = &self.engine {
            builder = builder.local_authoritative_engine(engine.0.clone());
        }
        builder.connect().await.map_err(sink_error)
    }

    /// Hundredths of a second since the start; `TimeTicks` wrap after 497 days (RFC 2578, section 7.1.8).
    fn uptime(&self) -> u32 {
        let hundredths = self.clock.now().mono.saturating_duration_since(self.started).as_millis() / 10;
        u32::try_from(hundredths & u128::from(u32::MAX)).unwrap_or(u32::MAX)
    }

    fn varbind(&self, object: Object, value: Value) -> VarBind {
        VarBind::new(Oid::from_slice(&self.oids.instance(object)), value)
    }

    fn place(&self, node: &str, epoch: i64, sequence: i64) -> Vec<VarBind> {
        vec![
            self.varbind(Object::Sequence, unsigned(sequence)),
            self.varbind(Object::Epoch, unsigned(epoch)),
            self.varbind(Object::Node, text_value(node)),
        ]
    }
}

/// The text of a test.
#[must_use]
pub fn test_text(target: &str) -> String {
    format!("Test of the target {target}; nothing is wrong")
}

#[async_trait]
impl NotificationSink for SnmpSink {
    async fn deliver(&self, outgoing: &Outgoing) -> Result<(), SinkError> {
        let Outgoing { node, epoch, sequence, content } = outgoing;
        let mut varbinds = self.place(node, *epoch, *sequence);
        let name = match content {
            Content::Alarm(alarm) => {
                varbinds.extend(Object::OF_ALARMS.iter().map(|object| self.varbind(*object, value(*object, alarm))));
                NotificationName::of(alarm.kind)
            }
            Content::ResyncBegin(ResyncMark { active }) => {
                varbinds.push(self.varbind(Object::ActiveCount, Value::Gauge32(*active)));
                NotificationName::ResyncBegin
            }
            Content::ResyncEnd(ResyncMark { active }) => {
                varbinds.push(self.varbind(Object::ActiveCount, Value::Gauge32(*active)));
                NotificationName::ResyncEnd
            }
            Content::Test(test) => {
                // As the MIB has it, and behind it the place that it took
                let place = varbinds.split_off(2);
                varbinds = [place, vec![self.varbind(Object::Text, text_value(&test.text))], varbinds].concat();
                NotificationName::Test
            }
        };
        self.send(name, varbinds).await
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<(), SinkError> {
        let Heartbeat { node, epoch, last_sequence, active, period_s } = heartbeat;
        let mut varbinds = self.place(node, *epoch, *last_sequence);
        varbinds.push(self.varbind(Object::ActiveCount, Value::Gauge32(*active)));
        varbinds.push(self.varbind(Object::HeartbeatPeriod, Value::Gauge32(*period_s)));
        self.send(NotificationName::Heartbeat, varbinds).await
    }
}

/// The value of an object of an alarm; those of the place in the sequence are not of the alarm.
pub(crate) fn value(object: Object, alarm: &Notification) -> Value {
    let Notification { id, alarm_type, resource, severity, event_type, probable_cause, text, raised_at, .. } = alarm;
    match object {
        Object::Id => Value::Gauge32(*id),
        Object::Type => text_value(alarm_type),
        Object::Resource => text_value(resource),
        Object::Severity => enumerated(severity.itu()),
        Object::EventType => enumerated(*event_type),
        Object::ProbableCause => Value::Gauge32(*probable_cause),
        Object::Text => text_value(text),
        Object::RaisedTime => Value::OctetString(Bytes::copy_from_slice(&date_and_time(*raised_at))),
        Object::Count => unsigned(alarm.count),
        Object::Resync => truth(alarm.resync),
        Object::Sequence | Object::Epoch | Object::Node | Object::ActiveCount | Object::HeartbeatPeriod => Value::Null,
    }
}

/// `TruthValue` (RFC 2579).
pub(crate) fn truth(value: bool) -> Value {
    Value::Integer(if value { 1 } else { 2 })
}

/// `Unsigned32`, which has the tag of `Gauge32`; held at the ends.
pub(crate) fn unsigned(value: i64) -> Value {
    Value::Gauge32(u32::try_from(value.max(0)).unwrap_or(u32::MAX))
}

pub(crate) fn enumerated(value: u32) -> Value {
    Value::Integer(i32::try_from(value).unwrap_or(i32::MAX))
}

pub(crate) fn text_value(text: &str) -> Value {
    Value::OctetString(Bytes::from(one_line(text)))
}

/// `DateAndTime` with its zone, UTC (RFC 2579, section 2).
pub(crate) fn date_and_time(at: Timestamp) -> [u8; 11] {
    let at = at.to_chrono();
    let octet = |value: u32| u8::try_from(value).unwrap_or(0);
    let [high, low] = u16::try_from(at.year()).unwrap_or(0).to_be_bytes();
    let deciseconds = octet(at.timestamp_subsec_millis() / 100);
    let [month, day, hour] = [octet(at.month()), octet(at.day()), octet(at.hour())];
    [high, low, month, day, hour, octet(at.minute()), octet(at.second()), deciseconds, b'+', 0, 0]
}

fn sink_error(error: Box<async_snmp::Error>) -> SinkError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::OutboundMessageTooLarge | ErrorKind::InvalidMessage | ErrorKind::InvalidOid | ErrorKind::Config => {
            SinkError::Unsendable(text)
        }
        _ => SinkError::Unreachable(text),
    }
}

#[cfg(test)]
mod tests;
