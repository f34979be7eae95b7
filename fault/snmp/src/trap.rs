//! The sink for v2c traps (RFC 3416, section 4.2.6): the only module that names the SNMP library.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_snmp::transport::UdpHandle;
use async_snmp::{Auth, Client, ErrorKind, Oid, Value, VarBind};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{Datelike as _, Timelike as _};
use fault::notification::{Notification, one_line};
use fault::port::{NotificationSink, Outgoing, SinkError};
use model::time::{Clock, Timestamp};
use tokio::sync::Mutex;

use crate::config::{SnmpTargetConfig, SnmpVersion};
use crate::objects::{Object, Oids};

/// How long the system may take for one datagram, or for the socket. A local buffer that stays full for a second is
/// an outage, and other targets wait behind it.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends the notifications of one target as traps. A trap that left says nothing of its arrival: the sequence does.
pub struct SnmpSink {
    target: SnmpTargetConfig,
    oids: Oids,
    clock: Arc<dyn Clock>,
    started: Instant,
    /// Opened by the first trap and anew after a failure: a network that is not up yet is no error at start.
    client: Mutex<Option<Client<UdpHandle>>>,
}

impl SnmpSink {
    /// The sink of `target`. `sysUpTime` counts from here.
    #[must_use]
    pub fn new(target: &SnmpTargetConfig, oids: Oids, clock: Arc<dyn Clock>) -> Self {
        let started = clock.now().mono;
        Self { target: target.clone(), oids, clock, started, client: Mutex::new(None) }
    }

    /// Sends `tandemTestNotification` at once, beside the outbox and its sequence: for an operator who wants to see
    /// whether anything arrives.
    ///
    /// # Errors
    /// [`SinkError`].
    pub async fn send_test(&self, node: &str) -> Result<(), SinkError> {
        let text = format!("Test of the target {}; nothing is wrong", self.target.name);
        let varbinds =
            vec![self.varbind(Object::Node, text_value(node)), self.varbind(Object::Text, text_value(&text))];
        self.send(&self.oids.test_notification(), varbinds).await
    }

    async fn send(&self, trap_oid: &[u32], varbinds: Vec<VarBind>) -> Result<(), SinkError> {
        let mut slot = self.client.lock().await;
        let client = match slot.take() {
            Some(client) => client,
            None => self.connect().await?,
        };
        client.send_trap(&Oid::from_slice(trap_oid), self.uptime(), varbinds).await.map_err(sink_error)?;
        *slot = Some(client);
        Ok(())
    }

    async fn connect(&self) -> Result<Client<UdpHandle>, SinkError> {
        let auth = match self.target.version {
            SnmpVersion::V2c => Auth::v2c(self.target.community.as_str()),
        };
        Client::builder(self.target.address, auth)
            .send_timeout(SEND_TIMEOUT)
            .construction_timeout(SEND_TIMEOUT)
            .connect()
            .await
            .map_err(sink_error)
    }

    /// Hundredths of a second since the start; `TimeTicks` wrap after 497 days (RFC 2578, section 7.1.8).
    fn uptime(&self) -> u32 {
        let hundredths = self.clock.now().mono.saturating_duration_since(self.started).as_millis() / 10;
        u32::try_from(hundredths & u128::from(u32::MAX)).unwrap_or(u32::MAX)
    }

    fn varbind(&self, object: Object, value: Value) -> VarBind {
        VarBind::new(Oid::from_slice(&self.oids.instance(object)), value)
    }
}

#[async_trait]
impl NotificationSink for SnmpSink {
    async fn deliver(&self, outgoing: &Outgoing) -> Result<(), SinkError> {
        let varbinds =
            Object::ALL.iter().map(|object| self.varbind(*object, value(*object, outgoing))).collect::<Vec<_>>();
        self.send(&self.oids.notification(outgoing.notification.kind), varbinds).await
    }
}

fn value(object: Object, outgoing: &Outgoing) -> Value {
    let Notification { id, alarm_type, resource, severity, event_type, probable_cause, text, raised_at, count, .. } =
        &outgoing.notification;
    match object {
        Object::Sequence => unsigned(outgoing.sequence),
        Object::Epoch => unsigned(outgoing.epoch),
        Object::Node => text_value(&outgoing.node),
        Object::Id => Value::Gauge32(*id),
        Object::Type => text_value(alarm_type),
        Object::Resource => text_value(resource),
        Object::Severity => enumerated(severity.itu()),
        Object::EventType => enumerated(*event_type),
        Object::ProbableCause => Value::Gauge32(*probable_cause),
        Object::Text => text_value(text),
        Object::RaisedTime => Value::OctetString(Bytes::copy_from_slice(&date_and_time(*raised_at))),
        Object::Count => unsigned(*count),
    }
}

/// `Unsigned32`, which has the tag of `Gauge32`; held at the ends.
fn unsigned(value: i64) -> Value {
    Value::Gauge32(u32::try_from(value.max(0)).unwrap_or(u32::MAX))
}

fn enumerated(value: u32) -> Value {
    Value::Integer(i32::try_from(value).unwrap_or(i32::MAX))
}

fn text_value(text: &str) -> Value {
    Value::OctetString(Bytes::from(one_line(text)))
}

/// `DateAndTime` with its zone, UTC (RFC 2579, section 2).
fn date_and_time(at: Timestamp) -> [u8; 11] {
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
