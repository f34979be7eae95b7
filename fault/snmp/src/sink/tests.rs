//! What leaves, read by another implementation.

use std::net::SocketAddr;

use fault::notification::{NotificationKind, TEXT_OCTETS_MAX};
use fault::resource::Severity;
use snmp2::{MessageType, Pdu};
use testkit::ManualClock;
use tokio::net::UdpSocket;

use super::*;
use crate::user::{Authentication, Privacy};

/// No datagram of ours needs fragments on an Ethernet, tunnels included.
const DATAGRAM_OCTETS_MAX: usize = 1_400;

struct Receiver(UdpSocket);

impl Receiver {
    async fn bind() -> (Self, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        (Self(socket), address)
    }

    async fn datagram(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_535];
        let received = tokio::time::timeout(Duration::from_secs(10), self.0.recv(&mut buffer)).await;
        let octets = received.expect("a trap arrives").unwrap();
        buffer.truncate(octets);
        buffer
    }
}

fn sink(address: SocketAddr) -> (SnmpSink, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let target = SnmpTargetConfig::v2c("nms", address, "traps");
    (SnmpSink::new(&target, None, Oids::new(32_473), clock.clone(), None), clock)
}

fn outgoing() -> Outgoing {
    let raised_at = "2026-11-24T17:08:09.730Z".parse().unwrap();
    let notification = Notification {
        kind: NotificationKind::Raise,
        id: 17,
        alarm_type: "trunk_down".to_owned(),
        resource: "trunk:a".to_owned(),
        severity: Severity::Major,
        event_type: 2,
        probable_cause: 612,
        text: "Träger a antwortet nicht".to_owned(),
        raised_at,
        count: 3,
        resync: false,
    };
    told(Content::Alarm(notification))
}

fn told(content: Content) -> Outgoing {
    Outgoing { node: "node-a".to_owned(), epoch: 2, sequence: 4_000_000_000, content }
}

fn alarm() -> Notification {
    match outgoing().content {
        Content::Alarm(alarm) => alarm,
        other => panic!("{other:?}"),
    }
}

/// Each varbind as text: the identifier, and the value with its type.
fn decode(datagram: &[u8]) -> (String, Vec<(String, String)>) {
    let pdu = Pdu::from_bytes(datagram).unwrap();
    assert_eq!((pdu.message_type, pdu.error_status, pdu.error_index), (MessageType::Trap, 0, 0));
    let community = String::from_utf8(pdu.community.to_vec()).unwrap();
    let varbinds = pdu.varbinds.map(|(oid, value)| {
        let value = match value {
            snmp2::Value::OctetString(octets) => match std::str::from_utf8(octets) {
                Ok(text) if !text.contains('\0') => format!("text {text}"),
                _ => format!("octets {octets:?}"),
            },
            snmp2::Value::Integer(n) => format!("integer {n}"),
            snmp2::Value::Unsigned32(n) => format!("unsigned {n}"),
            snmp2::Value::Timeticks(n) => format!("ticks {n}"),
            snmp2::Value::ObjectIdentifier(oid) => format!("oid {oid}"),
            other => panic!("{other:?}"),
        };
        (oid.to_string(), value)
    });
    (community, varbinds.collect())
}

#[tokio::test]
async fn a_trap_has_the_fixed_list_of_varbinds() {
    let (receiver, address) = Receiver::bind().await;
    let (sink, clock) = sink(address);
    clock.advance_ms(12_349);
    sink.deliver(&outgoing()).await.unwrap();
    let (community, varbinds) = decode(&receiver.datagram().await);
    let object = |arc: u32| format!("1.3.6.1.4.1.32473.1.1.{arc}.0");
    let expected = [
        ("1.3.6.1.2.1.1.3.0".to_owned(), "ticks 1234"),
        ("1.3.6.1.6.3.1.1.4.1.0".to_owned(), "oid 1.3.6.1.4.1.32473.1.0.1"),
        (object(1), "unsigned 4000000000"),
        (object(2), "unsigned 2"),
        (object(3), "text node-a"),
        (object(4), "unsigned 17"),
        (object(5), "text trunk_down"),
        (object(6), "text trunk:a"),
        (object(7), "integer 4"),
        (object(8), "integer 2"),
        (object(9), "unsigned 612"),
        (object(10), "text Träger a antwortet nicht"),
        (object(11), "octets [7, 234, 11, 24, 17, 8, 9, 7, 43, 0, 0]"),
        (object(12), "unsigned 3"),
        (object(13), "integer 2"),
    ];
    let expected: Vec<_> = expected.into_iter().map(|(oid, value)| (oid, value.to_owned())).collect();
    assert_eq!((community.as_str(), varbinds), ("traps", expected));
}

#[tokio::test]
async fn each_kind_has_its_notification_and_the_same_list() {
    let (receiver, address) = Receiver::bind().await;
    let (sink, _) = sink(address);
    let kinds = [NotificationKind::Raise, NotificationKind::Change, NotificationKind::Clear, NotificationKind::Ack];
    let mut lists = std::collections::BTreeSet::new();
    for (kind, arc) in kinds.into_iter().zip(1..) {
        sink.deliver(&told(Content::Alarm(Notification { kind, ..alarm() }))).await.unwrap();
        let (_, varbinds) = decode(&receiver.datagram().await);
        assert_eq!(varbinds[1].1, format!("oid 1.3.6.1.4.1.32473.1.0.{arc}"));
        lists.insert(varbinds.into_iter().skip(2).collect::<Vec<_>>());
    }
    assert_eq!(lists.len(), 1);
}

#[tokio::test]
async fn the_largest_notification_fits_one_datagram() {
    let (receiver, address) = Receiver::bind().await;
    let (sink, _) = sink(address);
    let long = "ü".repeat(400);
    let largest = Notification { count: i64::MAX, resource: long.clone(), text: long.clone(), ..alarm() };
    let outgoing = Outgoing { node: long, sequence: i64::MAX, ..told(Content::Alarm(largest)) };
    sink.deliver(&outgoing).await.unwrap();
    let datagram = receiver.datagram().await;
    assert!(datagram.len() <= DATAGRAM_OCTETS_MAX, "{} octets", datagram.len());
    let (_, varbinds) = decode(&datagram);
    assert_eq!((varbinds.len(), varbinds[11].1.len()), (15, "text ".len() + TEXT_OCTETS_MAX - 1));
    assert_eq!(varbinds[2].1, "unsigned 4294967295");
}

#[tokio::test]
async fn a_test_says_that_it_is_one() {
    let (receiver, address) = Receiver::bind().await;
    let (sink, _) = sink(address);
    sink.send_test("node-a").await.unwrap();
    let (_, varbinds) = decode(&receiver.datagram().await);
    let values: Vec<_> = varbinds.iter().skip(1).map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["oid 1.3.6.1.4.1.32473.1.0.9", "text node-a", "text Test of the target nms; nothing is wrong"]);
}

#[tokio::test]
async fn heartbeats_marks_and_tests_carry_their_place() {
    let (receiver, address) = Receiver::bind().await;
    let (sink, _) = sink(address);
    let heard = async || {
        let (_, varbinds) = decode(&receiver.datagram().await);
        varbinds.into_iter().skip(1).map(|(oid, value)| (oid.rsplit('.').nth(1).unwrap().to_owned(), value)).collect()
    };
    let check = |heard: Vec<(String, String)>, expected: &[(&str, &str)]| {
        let expected: Vec<_> = expected.iter().map(|(arc, value)| ((*arc).to_owned(), (*value).to_owned())).collect();
        assert_eq!(heard, expected);
    };
    let beat = Heartbeat { node: "node-a".to_owned(), epoch: 3, last_sequence: 17, active: 2, period_s: 60 };
    sink.heartbeat(&beat).await.unwrap();
    let expected = [
        ("1", "oid 1.3.6.1.4.1.32473.1.0.5"),
        ("1", "unsigned 17"),
        ("2", "unsigned 3"),
        ("3", "text node-a"),
        ("1", "unsigned 2"),
        ("2", "unsigned 60"),
    ];
    check(heard().await, &expected);
    sink.deliver(&told(Content::ResyncBegin(ResyncMark { active: 9 }))).await.unwrap();
    let begin = [
        ("1", "oid 1.3.6.1.4.1.32473.1.0.6"),
        ("1", "unsigned 4000000000"),
        ("2", "unsigned 2"),
        ("3", "text node-a"),
        ("1", "unsigned 9"),
    ];
    check(heard().await, &begin);
    sink.deliver(&told(Content::ResyncEnd(ResyncMark { active: 9 }))).await.unwrap();
    assert_eq!(heard().await[0].1, "oid 1.3.6.1.4.1.32473.1.0.7");
    let test = fault::notification::TestMessage { text: "hello".to_owned() };
    sink.deliver(&told(Content::Test(test))).await.unwrap();
    let test = [
        ("1", "oid 1.3.6.1.4.1.32473.1.0.9"),
        ("3", "text node-a"),
        ("10", "text hello"),
        ("1", "unsigned 4000000000"),
        ("2", "unsigned 2"),
    ];
    check(heard().await, &test);
}

#[tokio::test]
async fn an_inform_that_nobody_acknowledges_is_a_failure() {
    let (receiver, address) = Receiver::bind().await;
    let target = SnmpTargetConfig {
        kind: Some(SnmpKind::Inform),
        inform_timeout_ms: 100,
        ..SnmpTargetConfig::v2c("nms", address, "traps")
    };
    let sink = SnmpSink::new(&target, None, Oids::new(32_473), Arc::new(ManualClock::default()), None);
    let failed = sink.deliver(&outgoing()).await;
    assert!(matches!(failed, Err(SinkError::Unreachable(_))), "{failed:?}");
    let datagram = receiver.datagram().await;
    assert_eq!(Pdu::from_bytes(&datagram).unwrap().message_type, MessageType::InformRequest);
}

#[tokio::test]
async fn a_v3_trap_without_an_engine_is_refused() {
    let (_receiver, address) = Receiver::bind().await;
    let target = SnmpTargetConfig { kind: Some(SnmpKind::Trap), ..SnmpTargetConfig::v3("nms", address, "noc") };
    let user = SnmpUserConfig::new(Authentication::Sha256, "authentic1", Privacy::Aes128, "private12");
    let sink = SnmpSink::new(&target, Some(&user), Oids::new(32_473), Arc::new(ManualClock::default()), None);
    let refused = sink.deliver(&outgoing()).await;
    assert!(matches!(refused, Err(SinkError::Unsendable(_))), "{refused:?}");
}

#[tokio::test]
async fn a_receiver_that_is_away_is_no_failure_and_hears_again() {
    let (receiver, address) = Receiver::bind().await;
    let (sink, _) = sink(address);
    drop(receiver);
    for _ in 0..3 {
        // Whether the system reports the closed port is its own affair; a failure would be tried again
        let _ = sink.deliver(&outgoing()).await;
    }
    let receiver = Receiver(UdpSocket::bind(address).await.unwrap());
    let heard = async {
        while sink.deliver(&outgoing()).await.is_err() {}
        receiver.datagram().await
    };
    assert!(!heard.await.is_empty());
}

#[test]
fn dates_at_the_ends_do_no_harm() {
    assert_eq!(date_and_time(Timestamp(0)), [7, 178, 1, 1, 0, 0, 0, 0, b'+', 0, 0]);
    date_and_time(Timestamp(i64::MAX));
    date_and_time(Timestamp(i64::MIN));
}
