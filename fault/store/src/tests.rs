//! The whole way of an alarm over real databases; what leaves is recorded by a sink in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use db::Db;
use db::dialect::bulk_statement;
use fault::catalogue::{AlarmType, detector};
use fault::command::Command;
use fault::notification::NotificationKind::{Ack, Change as Changed, Clear, Raise};
use fault::notification::{Content, Notification, NotificationKind};
use fault::port::{
    AlarmAuthority as _, Heartbeat, NodeView as _, NotificationSink, Outgoing, Queries as _, SinkError, TargetName,
};
use fault::resource::{Alarm, Condition, Severity};
use model::actor::Permissions;
use model::change::{
    Change as _, ChangeError, CommitOptions, IdempotencyKey, RefusalCode, ResourceRef, ResourceVersion,
};
use model::ctx::Ctx;
use model::id::AccountId;
use model::page::{PageRequest, ReadError};
use model::tenancy::AccountPath;
use model::time::Clock as _;
use testkit::{TestDb, World, on_each_database, prepare_all};

use crate::row::{COPY_CONFLICT, CopyRow};
use crate::{Drained, NodeAlarms, QUEUE_MAX, Sender, SenderOptions, StoreAlarms};

const NODE: &str = "node-a";
const HEARTBEAT: Duration = Duration::from_secs(60);

/// Keeps what it is given; answers as it is told, then well.
#[derive(Default)]
struct Recorder {
    heard: Mutex<Vec<Outgoing>>,
    heartbeats: Mutex<Vec<Heartbeat>>,
    answers: Mutex<VecDeque<SinkError>>,
}

impl Recorder {
    fn take(&self) -> Vec<Outgoing> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }

    fn fail_with(&self, error: SinkError) {
        self.answers.lock().unwrap().push_back(error);
    }
}

#[async_trait]
impl NotificationSink for Recorder {
    async fn deliver(&self, outgoing: &Outgoing) -> Result<(), SinkError> {
        self.heard.lock().unwrap().push(outgoing.clone());
        self.answers.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<(), SinkError> {
        self.heartbeats.lock().unwrap().push(heartbeat.clone());
        self.answers.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }
}

fn alarm_of(outgoing: &Outgoing) -> &Notification {
    match &outgoing.content {
        Content::Alarm(notification) => notification,
        other => panic!("{other:?}"),
    }
}

/// One node with its database; it can be killed and started again.
struct Node {
    dir: tempfile::TempDir,
    world: World,
    db: Db,
    alarms: NodeAlarms,
    sinks: Vec<(TargetName, Arc<Recorder>)>,
    sender: Sender,
}

impl Node {
    async fn start(targets: &[&str]) -> Self {
        let sinks = targets.iter().map(|name| (TargetName::snmp(name).unwrap(), Arc::default())).collect();
        Self::open(tempfile::tempdir().unwrap(), World::new(), sinks).await
    }

    async fn open(dir: tempfile::TempDir, world: World, sinks: Vec<(TargetName, Arc<Recorder>)>) -> Self {
        let db = db::node::open(dir.path()).await.unwrap();
        let names = sinks.iter().map(|(name, _)| name.clone()).collect();
        let alarms = NodeAlarms::new(db.clone(), NODE, names, world.ids.clone());
        let targets =
            sinks.iter().map(|(name, sink)| (name.clone(), Arc::clone(sink) as Arc<dyn NotificationSink>)).collect();
        let options = SenderOptions { heartbeat: Some(HEARTBEAT), ..SenderOptions::default() };
        let sender = Sender::new(&alarms, targets, options);
        Self { dir, world, db, alarms, sinks, sender }
    }

    /// Nothing is told to anybody: the process ends here and begins again.
    async fn kill_and_restart(self) -> Self {
        let Self { dir, world, db, sinks, .. } = self;
        // Only so that the files can be opened again by the same process
        db.close().await;
        Self::open(dir, world, sinks).await
    }

    async fn observe(&self, conditions: &[Condition]) {
        let now = self.world.clock.now().utc;
        self.alarms.observe(detector::TRUNKS, conditions.to_vec(), now).await.unwrap();
    }

    async fn drain(&self) -> Drained {
        self.sender.drain(self.world.clock.now()).await.unwrap()
    }

    fn heard(&self) -> Vec<(NotificationKind, i64, i64)> {
        let heard = self.sinks[0].1.take();
        heard.iter().map(|sent| (alarm_of(sent).kind, sent.epoch, sent.sequence)).collect()
    }

    /// As [`Self::heard`], with what is no alarm; what was told again has a mark.
    fn told(&self) -> Vec<(String, i64, i64)> {
        let name = |sent: &Outgoing| match &sent.content {
            Content::Alarm(alarm) => format!("{}{}", alarm.kind.as_str(), if alarm.resync { " again" } else { "" }),
            Content::ResyncBegin(mark) => format!("begin {}", mark.active),
            Content::ResyncEnd(mark) => format!("end {}", mark.active),
            Content::Test(test) => test.text.clone(),
        };
        self.sinks[0].1.take().iter().map(|sent| (name(sent), sent.epoch, sent.sequence)).collect()
    }

    fn heartbeats(&self) -> Vec<Heartbeat> {
        std::mem::take(&mut *self.sinks[0].1.heartbeats.lock().unwrap())
    }

    async fn copy_to(&self, store: &Db) {
        while self.alarms.copy_pending(store).await.unwrap() > 0 {}
    }
}

fn trunk(name: &str) -> Condition {
    Condition {
        alarm_type: AlarmType::TrunkDown,
        resource: format!("trunk:{name}"),
        path: None,
        severity: None,
        text: format!("trunk {name} left 2 OPTIONS unanswered"),
    }
}

fn trunk_of(name: &str, path: &AccountPath) -> Condition {
    Condition { path: Some(path.clone()), ..trunk(name) }
}

fn named((name, epoch, sequence): (&str, i64, i64)) -> (String, i64, i64) {
    (name.to_owned(), epoch, sequence)
}

async fn run(db: &Db, sql: &'static str) {
    let done = db.write::<_, (), _>(move |tx| {
        Box::pin(async move { Ok(db::on_tx!(tx, c => sqlx::query(sql).execute(c).await.map(|_| ()))?) })
    });
    done.await.unwrap();
}

async fn count(db: &Db, sql: &'static str) -> i64 {
    db::on_db!(db, c => sqlx::query_scalar(sql).fetch_one(c).await).unwrap()
}

// The node ------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_alarm_is_raised_counted_and_cleared_with_the_same_fields() {
    let node = Node::start(&["nms", "second"]).await;
    for _ in 0..5 {
        node.observe(&[trunk("a")]).await;
        node.world.clock.advance_ms(1_000);
    }
    assert_eq!(node.drain().await, Drained { sent: 2, failed: 0, wait: None });
    assert_eq!(node.alarms.active().await.unwrap()[0].count, 5);
    node.observe(&[]).await;
    node.observe(&[]).await;
    assert_eq!(node.drain().await.sent, 2);
    let heard = node.sinks[0].1.take();
    let [raise, clear] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((raise.epoch, raise.sequence, clear.epoch, clear.sequence), (1, 1, 1, 2));
    let expected = Notification { kind: Clear, severity: Severity::Cleared, count: 5, ..alarm_of(raise).clone() };
    assert_eq!(alarm_of(clear), &expected);
    assert_eq!(node.sinks[1].1.take(), heard, "each target has the same story in its own sequence");
    assert!(node.alarms.active().await.unwrap().is_empty());
    assert_eq!(count(&node.db, "SELECT COUNT(*) FROM alarm_event").await, 2);
}

#[tokio::test]
async fn a_change_of_severity_is_told_and_a_second_outage_is_a_new_alarm() {
    let node = Node::start(&["nms"]).await;
    node.observe(&[trunk("a")]).await;
    node.observe(&[Condition { severity: Some(Severity::Critical), ..trunk("a") }]).await;
    node.observe(&[]).await;
    node.observe(&[trunk("a")]).await;
    node.drain().await;
    let ids: Vec<_> = node.sinks[0].1.take().iter().map(|sent| (alarm_of(sent).kind, alarm_of(sent).id)).collect();
    assert_eq!(ids, [(Raise, 1), (Changed, 1), (Clear, 1), (Raise, 2)]);
}

#[tokio::test]
async fn a_restart_keeps_alarms_and_the_first_full_set_clears_what_is_gone() {
    let node = Node::start(&["nms"]).await;
    node.observe(&[trunk("a"), trunk("b")]).await;
    let before = node.alarms.active().await.unwrap();
    let node = node.kill_and_restart().await;
    assert_eq!(node.alarms.active().await.unwrap(), before);
    // Another detector's set says nothing of trunks
    node.alarms.observe(detector::JOURNAL, vec![], node.world.clock.now().utc).await.unwrap();
    assert_eq!(node.alarms.active().await.unwrap(), before);
    node.observe(&[trunk("b")]).await;
    let left: Vec<_> = node.alarms.active().await.unwrap().into_iter().map(|alarm| (alarm.id, alarm.count)).collect();
    assert_eq!(left, [(2, 2)]);
}

#[tokio::test]
async fn a_kill_between_commit_and_send_loses_nothing() {
    let node = Node::start(&["nms"]).await;
    node.observe(&[trunk("a")]).await;
    let node = node.kill_and_restart().await;
    assert_eq!(node.drain().await.sent, 1);
    assert_eq!(node.heard(), [(Raise, 1, 1)]);
    // Sent, but killed before that was noted: the same once more, with the same place
    node.observe(&[]).await;
    node.sinks[0].1.fail_with(SinkError::Unreachable("killed here".to_owned()));
    node.drain().await;
    assert_eq!(node.heard(), [(Clear, 1, 2)]);
    let node = node.kill_and_restart().await;
    node.world.clock.advance_ms(1_000);
    node.drain().await;
    assert_eq!(node.heard(), [(Clear, 1, 2)]);
    assert_eq!(node.drain().await, Drained::default());
}

#[tokio::test]
async fn order_is_kept_while_a_target_is_away_and_the_other_goes_on() {
    let node = Node::start(&["nms", "second"]).await;
    node.observe(&[trunk("a")]).await;
    node.observe(&[]).await;
    node.sinks[0].1.fail_with(SinkError::Unreachable("no route".to_owned()));
    assert_eq!(node.drain().await, Drained { sent: 2, failed: 1, wait: None });
    assert_eq!(node.heard(), [(Raise, 1, 1)]);
    assert_eq!(node.drain().await, Drained::default(), "the first is not due, and the second waits for it");
    node.world.clock.advance_ms(1_000);
    assert_eq!(node.drain().await.sent, 2);
    assert_eq!(node.heard(), [(Raise, 1, 1), (Clear, 1, 2)]);
    assert_eq!(node.sender.pending().await.unwrap(), 0);
}

#[tokio::test]
async fn what_can_never_be_sent_is_given_up_and_leaves_a_gap() {
    let node = Node::start(&["nms"]).await;
    node.observe(&[trunk("a")]).await;
    node.observe(&[]).await;
    node.sinks[0].1.fail_with(SinkError::Unsendable("too large".to_owned()));
    assert_eq!(node.drain().await, Drained { sent: 1, failed: 1, wait: None });
    assert_eq!(node.heard(), [(Raise, 1, 1), (Clear, 1, 2)]);
    assert_eq!(count(&node.db, "SELECT COUNT(*) FROM outbox WHERE state = 'failed'").await, 1);
}

#[tokio::test]
async fn a_storm_leaves_at_the_pace_of_the_receiver() {
    let node = Node::start(&["nms"]).await;
    let storm: Vec<_> = (0..180).map(|n| trunk(&n.to_string())).collect();
    node.observe(&storm).await;
    let (mut sent, mut elapsed_ms) = (0, 0);
    while sent < 180 {
        let drained = node.drain().await;
        sent += drained.sent;
        assert!(sent <= 50 + elapsed_ms / 10, "{sent} after {elapsed_ms} ms");
        let Some(wait) = drained.wait else { break };
        assert_eq!(wait, Duration::from_millis(10));
        node.world.clock.advance_ms(200);
        elapsed_ms += 200;
    }
    assert_eq!((sent, elapsed_ms), (180, 1_400), "50 at once, then 20 each 200 ms");
    let places: Vec<_> = node.heard().into_iter().map(|(_, _, sequence)| sequence).collect();
    assert_eq!(places, (1..=180).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_full_queue_gives_up_the_newest_and_the_sequence_shows_it() {
    let node = Node::start(&["nms"]).await;
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) \
        INSERT INTO outbox (target, sequence, epoch, message_id, kind, payload, state, attempts, next_attempt_at, \
        created_at) SELECT 'snmp:nms', i, 0, randomblob(16), 'alarm', '', 'pending', 0, 0, 0 FROM n";
    node.db
        .write::<_, (), _>(move |tx| {
            Box::pin(async move { Ok(db::on_tx!(tx, c => sqlx::query(fill).execute(c).await.map(|_| ()))?) })
        })
        .await
        .unwrap();
    assert_eq!(node.sender.pending().await.unwrap(), QUEUE_MAX);
    node.observe(&[trunk("a")]).await;
    assert_eq!(node.sender.pending().await.unwrap(), QUEUE_MAX);
    let dropped =
        "SELECT COUNT(*) FROM outbox WHERE state = 'failed' AND last_error = 'the queue of the target is full'";
    assert_eq!(count(&node.db, dropped).await, 1);
    assert_eq!(node.alarms.active().await.unwrap().len(), 1, "the alarm itself stands");
}

#[tokio::test]
async fn a_resync_begins_an_epoch_with_every_active_alarm() {
    let node = Node::start(&["nms", "second"]).await;
    node.observe(&[trunk("a"), trunk("b")]).await;
    node.drain().await;
    node.observe(&[trunk("b")]).await;
    node.heard();
    node.sinks[1].1.take();
    let now = node.world.clock.now().utc;
    assert_eq!(node.alarms.resync(&node.sinks[0].0, now).await.unwrap(), 1);
    node.drain().await;
    let expected = [("begin 1", 2, 1), ("raise again", 2, 2), ("end 1", 2, 3)];
    assert_eq!(node.told(), expected.map(named), "the clear of the epoch before is superseded");
    let other: Vec<_> = node.sinks[1].1.take().into_iter().map(|sent| (sent.epoch, sent.sequence)).collect();
    assert_eq!(other, [(1, 3)]);
    let unknown = TargetName::snmp("nobody").unwrap();
    assert!(matches!(node.alarms.resync(&unknown, now).await, Err(ReadError::Invalid { field: "target", .. })));
}

#[tokio::test]
async fn heartbeats_say_how_far_the_sequence_has_come() {
    let node = Node::start(&["nms"]).await;
    node.drain().await;
    let beat =
        |epoch, last_sequence, active| Heartbeat { node: NODE.to_owned(), epoch, last_sequence, active, period_s: 60 };
    assert_eq!(node.heartbeats(), [beat(1, 0, 0)], "a target that never heard anything knows that the node is there");
    node.observe(&[trunk("a")]).await;
    node.drain().await;
    assert_eq!(node.heartbeats(), [], "it is not time yet");
    node.world.clock.advance_ms(60_000);
    node.drain().await;
    assert_eq!(node.heartbeats(), [beat(1, 1, 1)]);
    node.alarms.resync(&node.sinks[0].0, node.world.clock.now().utc).await.unwrap();
    node.world.clock.advance_ms(60_000);
    node.drain().await;
    assert_eq!(node.heartbeats(), [beat(2, 3, 1)]);
    // What is given up is counted: the gap is real
    node.sinks[0].1.fail_with(SinkError::Unsendable("too large".to_owned()));
    node.observe(&[]).await;
    node.world.clock.advance_ms(60_000);
    node.drain().await;
    assert_eq!(node.heartbeats(), [beat(2, 4, 0)]);
    // While something waits it is silent
    node.observe(&[trunk("a")]).await;
    node.sinks[0].1.fail_with(SinkError::Unreachable("away".to_owned()));
    node.world.clock.advance_ms(60_000);
    node.drain().await;
    assert_eq!(node.heartbeats(), []);
}

async fn unreachable(node: &Node) -> Vec<String> {
    node.sender.observe_targets(node.world.clock.now().utc).await.unwrap();
    let active = node.alarms.active().await.unwrap();
    let mut texts = active.into_iter().filter(|a| a.alarm_type == AlarmType::NotificationTargetUnreachable);
    texts.by_ref().map(|alarm| alarm.text).collect()
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_an_alarm_and_keeps_its_order() {
    let node = Node::start(&["nms", "second"]).await;
    node.observe(&[trunk("a")]).await;
    for attempt in 1..=5 {
        assert_eq!(unreachable(&node).await, Vec::<String>::new(), "{attempt}");
        node.sinks[0].1.fail_with(SinkError::Unreachable("no answer in 2 s".to_owned()));
        node.drain().await;
        node.world.clock.advance_ms(16_000);
    }
    let expected = "target nms took nothing in 5 attempts: the target cannot be reached: no answer in 2 s";
    assert_eq!(unreachable(&node).await, [expected]);
    let targets = node.sender.snapshot().await.unwrap().targets;
    let reachable: Vec<_> = targets.iter().map(|target| (target.name.name(), target.reachable)).collect();
    assert_eq!(reachable, [("nms", false), ("second", true)]);
    node.sinks[0].1.take();
    node.observe(&[]).await;
    node.drain().await;
    assert_eq!(node.heard(), [(Raise, 1, 1), (Raise, 1, 2), (Clear, 1, 3)], "the second raise is that of the target");
    assert_eq!(unreachable(&node).await, Vec::<String>::new());
    node.drain().await;
    assert_eq!(node.heard(), [(Clear, 1, 4)]);
    assert_eq!(node.sinks[1].1.take().len(), 4, "the other target heard of it at once");
}

#[tokio::test]
async fn silent_heartbeats_are_an_alarm_too() {
    let node = Node::start(&["nms"]).await;
    for beats in 0..3 {
        assert_eq!(unreachable(&node).await, Vec::<String>::new(), "{beats}");
        node.sinks[0].1.fail_with(SinkError::Unreachable("no answer".to_owned()));
        node.drain().await;
        node.world.clock.advance_ms(60_000);
    }
    assert_eq!(unreachable(&node).await, ["target nms acknowledged none of 3 heartbeats"]);
    node.drain().await;
    assert_eq!(unreachable(&node).await, Vec::<String>::new(), "it took the alarm about itself");
}

#[tokio::test]
async fn what_is_too_old_is_given_up_and_the_target_synchronised_when_it_answers() {
    let node = Node::start(&["nms"]).await;
    node.observe(&[trunk("a"), trunk("b")]).await;
    node.observe(&[trunk("b")]).await;
    node.world.clock.advance_ms(86_400_000);
    for _ in 0..2 {
        node.sinks[0].1.fail_with(SinkError::Unreachable("away".to_owned()));
    }
    node.observe(&[trunk("b"), trunk("c")]).await;
    node.drain().await;
    let failed = "SELECT COUNT(*) FROM outbox WHERE state = 'failed' AND last_error LIKE '%away'";
    assert_eq!(count(&node.db, failed).await, 2);
    let expected = [
        ("raise", 1, 1),
        ("raise", 1, 2),
        ("clear", 1, 3),
        ("begin 2", 2, 1),
        ("raise again", 2, 2),
        ("raise again", 2, 3),
        ("end 2", 2, 4),
    ];
    assert_eq!(node.told(), expected.map(named), "two attempts failed, the clear arrived, and then what holds");
    // A young one is tried again, and nothing more was lost
    node.sinks[0].1.fail_with(SinkError::Unreachable("away again".to_owned()));
    node.observe(&[trunk("b")]).await;
    node.drain().await;
    node.world.clock.advance_ms(1_000);
    node.drain().await;
    assert_eq!(node.told(), [("clear", 2, 5), ("clear", 2, 5)].map(named));
}

#[tokio::test]
async fn a_test_has_its_place_in_the_sequence_and_an_outcome() {
    let node = Node::start(&["nms"]).await;
    let now = node.world.clock.now().utc;
    let message = node.alarms.enqueue_test(&node.sinks[0].0, "hello", now).await.unwrap();
    assert_eq!(node.alarms.message_outcome(message).await.unwrap(), None);
    node.drain().await;
    assert_eq!(node.told(), [("hello".to_owned(), 1, 1)]);
    assert_eq!(node.alarms.message_outcome(message).await.unwrap(), Some(Ok(())));
    let message = node.alarms.enqueue_test(&node.sinks[0].0, "hello", now).await.unwrap();
    node.sinks[0].1.fail_with(SinkError::Unsendable("no".to_owned()));
    node.drain().await;
    let outcome = node.alarms.message_outcome(message).await.unwrap().unwrap();
    assert!(outcome.unwrap_err().contains("no"));
}

#[tokio::test]
async fn the_boots_of_the_engine_grow_and_its_identifier_stays_with_the_database() {
    let node = Node::start(&[]).await;
    let boot = async |db: &Db, id: &[u8]| crate::engine_boot(db, id.to_vec()).await.unwrap();
    let first = boot(&node.db, &[0x80, 0, 0x7e, 0xd9, 5, 0xff]).await;
    let node = node.kill_and_restart().await;
    let second = boot(&node.db, &[0x80, 0, 0, 1, 5, 1]).await;
    assert_eq!((first.boots, second.boots, &second.engine_id), (1, 2, &first.engine_id));
    let fresh = Node::start(&[]).await;
    let other = boot(&fresh.db, &[0x80, 0, 0, 1, 5, 1]).await;
    assert_eq!((other.boots, other.engine_id), (1, vec![0x80, 0, 0, 1, 5, 1]));
    run(&node.db, "UPDATE node_meta SET value = 'xy' WHERE key = 'snmp_engine'").await;
    assert!(crate::engine_boot(&node.db, vec![1; 5]).await.is_err());
}

#[tokio::test]
async fn a_condition_of_another_detector_is_refused_whole() {
    let node = Node::start(&[]).await;
    let now = node.world.clock.now().utc;
    let refused = node.alarms.observe(detector::JOURNAL, vec![trunk("a")], now).await;
    assert!(matches!(refused, Err(ReadError::Invalid { .. })), "{refused:?}");
    assert!(node.alarms.active().await.unwrap().is_empty());
}

#[tokio::test]
async fn old_rows_go_and_numbers_stay_used() {
    let node = Node::start(&["nms"]).await;
    let store = TestDb::sqlite().await;
    node.observe(&[trunk("a"), trunk("b")]).await;
    node.observe(&[trunk("b")]).await;
    node.drain().await;
    node.world.clock.advance_ms(1);
    let now = node.world.clock.now().utc;
    node.alarms.prune(now).await.unwrap();
    assert_eq!(count(&node.db, "SELECT COUNT(*) FROM alarm").await, 2, "the store has to have it first");
    node.copy_to(&store).await;
    node.alarms.prune(now).await.unwrap();
    assert_eq!(count(&node.db, "SELECT COUNT(*) FROM alarm").await, 1);
    assert_eq!(count(&node.db, "SELECT COUNT(*) FROM outbox").await, 0);
    node.observe(&[]).await;
    node.copy_to(&store).await;
    node.alarms.prune(now.plus_ms(1)).await.unwrap();
    node.observe(&[trunk("c")]).await;
    assert_eq!(node.alarms.active().await.unwrap()[0].id, 3);
}

#[tokio::test]
async fn a_type_of_a_newer_version_is_passed_over() {
    let node = Node::start(&["nms"]).await;
    node.observe(&[trunk("a")]).await;
    node.db
        .write::<_, (), _>(|tx| {
            let sql = "UPDATE alarm SET type = 'sun_spots'";
            Box::pin(async move { Ok(db::on_tx!(tx, c => sqlx::query(sql).execute(c).await.map(|_| ()))?) })
        })
        .await
        .unwrap();
    node.observe(&[]).await;
    assert_eq!(node.drain().await.sent, 1, "the raise that was queued; nobody here can clear it");
}

// The store -----------------------------------------------------------------------------------------------------------

fn account(world: &World) -> (AccountId, AccountPath) {
    let id = AccountId::new(&*world.ids);
    (id, AccountPath::root(id))
}

fn below(world: &World, path: &AccountPath) -> (AccountId, AccountPath) {
    let id = AccountId::new(&*world.ids);
    (id, path.child(id).unwrap())
}

fn acknowledge(id: u32) -> Command {
    Command::AlarmAcknowledge { node: NODE.to_owned(), id, note: "on it".to_owned() }
}

fn refusal(error: ChangeError) -> RefusalCode {
    match error {
        ChangeError::Refused(refusals) => refusals[0].code,
        other => panic!("{other:?}"),
    }
}

async fn resources(alarms: &StoreAlarms, ctx: &Ctx, active: bool) -> Vec<String> {
    let page = alarms.alarm_list(ctx, active, PageRequest::default()).await.unwrap();
    page.items.into_iter().map(|(_, alarm)| alarm.resource).collect()
}

#[tokio::test]
async fn the_copy_follows_the_node() {
    on_each_database(async |store: TestDb| {
        let node = Node::start(&["nms"]).await;
        let (alarms, system) = (StoreAlarms::new((*store).clone()), node.world.system());
        let (_, path) = account(&node.world);
        node.observe(&[trunk_of("a", &path), trunk("b")]).await;
        node.copy_to(&store).await;
        assert_eq!(node.alarms.copy_pending(&store).await.unwrap(), 0);
        let expected = node.alarms.active().await.unwrap();
        let copy: Alarm = alarms.alarm_get(&system, NODE, 1).await.unwrap().unwrap();
        assert_eq!(copy, expected[0]);
        node.world.clock.advance_ms(5);
        node.observe(&[trunk("b")]).await;
        node.copy_to(&store).await;
        let cleared = alarms.alarm_get(&system, NODE, 1).await.unwrap().unwrap();
        assert_eq!(cleared.cleared_at, Some(node.world.clock.now().utc));
        assert_eq!(cleared.severity, Severity::Major, "the last one while it was active");
        assert_eq!(alarms.alarm_get(&system, NODE, 2).await.unwrap().unwrap().count, 2);
        assert_eq!(resources(&alarms, &system, true).await, ["trunk:b"]);
        assert_eq!(resources(&alarms, &system, false).await, ["trunk:b", "trunk:a"]);
        assert_eq!(alarms.alarm_get(&system, "node-b", 1).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn pages_hold_every_alarm_once_newest_first() {
    on_each_database(async |store: TestDb| {
        let node = Node::start(&[]).await;
        let (alarms, system) = (StoreAlarms::new((*store).clone()), node.world.system());
        let mut conditions = Vec::new();
        for n in 0..7 {
            // Pairs at the same instant: the number decides
            conditions.push(trunk(&n.to_string()));
            if n % 2 == 1 {
                node.observe(&conditions).await;
                node.world.clock.advance_ms(10);
            }
        }
        node.observe(&conditions).await;
        node.copy_to(&store).await;
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = alarms.alarm_list(&system, true, PageRequest { first: 3, after }).await.unwrap();
            seen.extend(page.items.iter().map(|(_, alarm)| alarm.id));
            if !page.has_next {
                break;
            }
            after = page.items.last().map(|(cursor, _)| cursor.clone());
        }
        assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
        for bad in ["", "1.2", "x.1.node", "1.x.node"] {
            let page = PageRequest { first: 3, after: Some(bad.to_owned()) };
            assert!(matches!(
                alarms.alarm_list(&system, true, page).await,
                Err(ReadError::Invalid { field: "after", .. })
            ));
        }
    })
    .await;
}

#[tokio::test]
async fn a_scope_ends_at_its_subtree_and_the_platform_is_not_in_it() {
    on_each_database(async |store: TestDb| {
        let node = Node::start(&[]).await;
        let alarms = StoreAlarms::new((*store).clone());
        let (provider_id, provider) = account(&node.world);
        let (left_id, left) = below(&node.world, &provider);
        let (_, right) = below(&node.world, &provider);
        node.observe(&[
            trunk("platform"),
            trunk_of("provider", &provider),
            trunk_of("left", &left),
            trunk_of("right", &right),
        ])
        .await;
        node.copy_to(&store).await;
        let all = Permissions::all();
        let of = async |ctx: Ctx| {
            let mut list = resources(&alarms, &ctx, true).await;
            list.sort();
            let mut found = Vec::new();
            for id in 1..=4 {
                found.extend(alarms.alarm_get(&ctx, NODE, id).await.unwrap().map(|alarm| alarm.resource));
            }
            found.sort();
            assert_eq!(list, found, "what is listed can be read, and nothing else");
            for id in 1..=4 {
                let planned = alarms.plan(&ctx, &acknowledge(id)).await;
                let seen = alarms.alarm_get(&ctx, NODE, id).await.unwrap().is_some();
                match planned {
                    Ok(_) => assert!(seen),
                    Err(error) => assert_eq!((seen, refusal(error)), (false, RefusalCode::NotFound)),
                }
            }
            list
        };
        assert_eq!(of(node.world.ctx(all, left_id, &left)).await, ["trunk:left"]);
        assert_eq!(
            of(node.world.ctx(all, provider_id, &provider)).await,
            ["trunk:left", "trunk:provider", "trunk:right"]
        );
        assert_eq!(of(node.world.system()).await.len(), 4);
        let none = node.world.ctx(Permissions::default(), provider_id, &provider);
        assert!(matches!(alarms.alarm_get(&none, NODE, 1).await, Err(ReadError::Denied(_))));
        let denied = alarms.alarm_list(&none, true, PageRequest::default()).await;
        assert!(matches!(denied, Err(ReadError::Denied(_))));
        assert_eq!(refusal(alarms.plan(&none, &acknowledge(1)).await.unwrap_err()), RefusalCode::Forbidden);
        let denied = alarms.commit(&none, acknowledge(1), CommitOptions::default()).await;
        assert_eq!(refusal(denied.unwrap_err()), RefusalCode::Forbidden);
    })
    .await;
}

#[tokio::test]
async fn what_the_node_knows_can_be_acknowledged_before_the_copy_would_have_been_made() {
    on_each_database(async |store: TestDb| {
        let node = Node::start(&[]).await;
        let system = node.world.system();
        node.observe(&[trunk("a"), trunk("b")]).await;
        let elsewhere = StoreAlarms::new((*store).clone());
        let refused = elsewhere.plan(&system, &acknowledge(1)).await.unwrap_err();
        assert_eq!(refusal(refused), RefusalCode::NotFound, "the store does not have it yet");
        let here = elsewhere.beside(node.alarms.clone());
        here.plan(&system, &acknowledge(1)).await.unwrap();
        node.observe(&[trunk("a"), trunk("b"), trunk("c")]).await;
        here.commit(&system, acknowledge(3), CommitOptions::default()).await.unwrap();
        node.alarms.apply_acks(&store, node.world.clock.now().utc).await.unwrap();
        assert!(node.alarms.active().await.unwrap()[2].acknowledgement.is_some());
        let refused = here.plan(&system, &acknowledge(4)).await.unwrap_err();
        assert_eq!(refusal(refused), RefusalCode::NotFound);
    })
    .await;
}

#[tokio::test]
async fn an_acknowledgement_travels_to_the_node_and_is_told_once() {
    on_each_database(async |store: TestDb| {
        let node = Node::start(&["nms"]).await;
        let alarms = StoreAlarms::new((*store).clone());
        let (id, path) = account(&node.world);
        let ctx = node.world.ctx(Permissions::all(), id, &path);
        node.observe(&[trunk_of("a", &path)]).await;
        node.drain().await;
        node.heard();
        node.copy_to(&store).await;

        let plan = alarms.plan(&ctx, &acknowledge(1)).await.unwrap();
        let at = node.world.clock.now().utc;
        let key = IdempotencyKey::new("k-1").unwrap();
        let options = CommitOptions { idempotency_key: Some(key.clone()), expected: vec![] };
        let committed = alarms.commit(&ctx, acknowledge(1), options.clone()).await.unwrap();
        assert_eq!((committed.plan == plan, committed.replayed), (true, false));
        let replayed = alarms.commit(&ctx, acknowledge(1), options.clone()).await.unwrap();
        assert_eq!((replayed.change, replayed.replayed), (committed.change, true));
        let other = alarms.commit(&ctx, acknowledge(2), options).await.unwrap_err();
        assert_eq!(refusal(other), RefusalCode::IdempotencyConflict);
        let again = alarms.commit(&ctx, acknowledge(1), CommitOptions::default()).await.unwrap_err();
        assert_eq!(refusal(again), RefusalCode::Conflict);
        assert_eq!(db::change::verify_audit(&store).await.unwrap().entries, 1);
        assert_eq!(db::feed::read_after(&store, 0, 10).await.unwrap().len(), 1);

        // Seen at once, and not lost by a copy that the node made before it knew
        let acknowledged = Some(("test".to_owned(), at, "on it".to_owned()));
        node.observe(&[trunk_of("a", &path)]).await;
        node.copy_to(&store).await;
        let shown = alarms.alarm_get(&ctx, NODE, 1).await.unwrap().unwrap();
        assert_eq!((shown.acknowledgement.clone(), shown.count), (acknowledged.clone(), 2));

        assert_eq!(node.alarms.apply_acks(&store, at).await.unwrap(), 1);
        assert_eq!(node.alarms.apply_acks(&store, at).await.unwrap(), 0);
        assert_eq!(node.alarms.active().await.unwrap()[0].acknowledgement, acknowledged);
        node.drain().await;
        assert_eq!(node.heard(), [(Ack, 1, 2)]);
        // Applied, and killed before that was noted: no second word
        store
            .write::<_, (), _>(|tx| {
                let sql = "UPDATE alarm_ack SET applied_at = NULL";
                Box::pin(async move { Ok(db::on_tx!(tx, c => sqlx::query(sql).execute(c).await.map(|_| ()))?) })
            })
            .await
            .unwrap();
        assert_eq!(node.alarms.apply_acks(&store, at).await.unwrap(), 1);
        node.drain().await;
        assert_eq!(node.heard(), []);

        // A resync tells it too, and the next outage begins without it
        node.alarms.resync(&node.sinks[0].0, at).await.unwrap();
        node.observe(&[]).await;
        node.observe(&[trunk_of("a", &path)]).await;
        node.drain().await;
        let again = [("begin 1", 2, 1), ("raise again", 2, 2), ("ack again", 2, 3), ("end 1", 2, 4)];
        let on = [("clear", 2, 5), ("raise", 2, 6)];
        assert_eq!(node.told(), again.iter().chain(&on).copied().map(named).collect::<Vec<_>>());
        assert_eq!(node.alarms.active().await.unwrap()[0].acknowledgement, None);
    })
    .await;
}

#[tokio::test]
async fn two_who_acknowledge_at_once_get_one_answer() {
    on_each_database(async |store: TestDb| {
        let node = Node::start(&[]).await;
        let alarms = StoreAlarms::new((*store).clone());
        let system = node.world.system();
        node.observe(&[trunk("a")]).await;
        node.copy_to(&store).await;
        let commit = || alarms.commit(&system, acknowledge(1), CommitOptions::default());
        let (one, other) = tokio::join!(commit(), commit());
        assert_eq!(usize::from(one.is_ok()) + usize::from(other.is_ok()), 1);
        assert_eq!(count(&store, "SELECT COUNT(*) FROM alarm_ack").await, 1);
    })
    .await;
}

#[tokio::test]
async fn an_expected_version_is_refused_for_alarms_have_none() {
    let store = TestDb::sqlite().await;
    let node = Node::start(&[]).await;
    let alarms = StoreAlarms::new((*store).clone());
    node.observe(&[trunk("a")]).await;
    node.copy_to(&store).await;
    let resource = ResourceRef { kind: model::change::ResourceKind::Alarm, id: fault::resource::alarm_uuid(NODE, 1) };
    let options = CommitOptions { idempotency_key: None, expected: vec![ResourceVersion { resource, version: 1 }] };
    let refused = alarms.commit(&node.world.system(), acknowledge(1), options).await.unwrap_err();
    assert_eq!(refusal(refused), RefusalCode::VersionMismatch);
}

#[tokio::test]
async fn an_acknowledgement_of_an_alarm_that_the_node_lost_is_put_aside() {
    let store = TestDb::sqlite().await;
    let (alarms, node) = (StoreAlarms::new((*store).clone()), Node::start(&["nms"]).await);
    node.observe(&[trunk("a")]).await;
    node.copy_to(&store).await;
    alarms.commit(&node.world.system(), acknowledge(1), CommitOptions::default()).await.unwrap();
    // The machine came back with an empty disk
    let fresh = Node::start(&["nms"]).await;
    let now = node.world.clock.now().utc;
    assert_eq!(fresh.alarms.apply_acks(&store, now).await.unwrap(), 1);
    assert_eq!(fresh.alarms.apply_acks(&store, now).await.unwrap(), 0);
}

#[tokio::test]
async fn a_new_alarm_under_an_old_number_has_no_old_acknowledgement() {
    on_each_database(async |store: TestDb| {
        let (alarms, node) = (StoreAlarms::new((*store).clone()), Node::start(&[]).await);
        let system = node.world.system();
        node.observe(&[trunk("a")]).await;
        node.copy_to(&store).await;
        alarms.commit(&system, acknowledge(1), CommitOptions::default()).await.unwrap();
        // The machine came back with an empty disk, a while later: another alarm is number 1
        let fresh = Node::start(&["nms"]).await;
        fresh.world.clock.advance_ms(5_000);
        let now = fresh.world.clock.now().utc;
        fresh.observe(&[trunk("b")]).await;
        assert_eq!(fresh.alarms.apply_acks(&store, now).await.unwrap(), 1);
        assert_eq!(fresh.alarms.active().await.unwrap()[0].acknowledgement, None);
        fresh.copy_to(&store).await;
        let shown = alarms.alarm_get(&system, NODE, 1).await.unwrap().unwrap();
        assert_eq!((shown.resource.as_str(), shown.acknowledgement), ("trunk:b", None));
        fresh.drain().await;
        assert_eq!(fresh.heard(), [(Raise, 1, 1)]);
        // And it can be acknowledged itself
        alarms.commit(&system, acknowledge(1), CommitOptions::default()).await.unwrap();
        assert_eq!(fresh.alarms.apply_acks(&store, now).await.unwrap(), 1);
        assert!(fresh.alarms.active().await.unwrap()[0].acknowledgement.is_some());
    })
    .await;
}

#[tokio::test]
async fn an_acknowledgement_that_reaches_no_row_is_not_recorded() {
    let store = TestDb::sqlite().await;
    let (alarms, node) = (StoreAlarms::new((*store).clone()), Node::start(&[]).await);
    node.observe(&[trunk("a")]).await;
    node.copy_to(&store).await;
    run(&store, "CREATE TRIGGER held BEFORE UPDATE ON alarm BEGIN SELECT RAISE(IGNORE); END").await;
    let failed = alarms.commit(&node.world.system(), acknowledge(1), CommitOptions::default()).await;
    assert!(matches!(failed, Err(ChangeError::Internal(_))), "{failed:?}");
    assert_eq!(count(&store, "SELECT COUNT(*) FROM alarm_ack").await, 0);
    assert_eq!(db::change::verify_audit(&store).await.unwrap().entries, 0);
}

#[tokio::test]
async fn every_row_is_written_before_the_change_is_recorded() {
    let store = TestDb::sqlite().await;
    let (alarms, node) = (StoreAlarms::new((*store).clone()), Node::start(&["nms"]).await);
    node.observe(&[trunk("a")]).await;
    node.copy_to(&store).await;
    node.alarms.publish_targets(&store).await.unwrap();
    // The counters of audit and feed stay locked from the record to the commit: nothing may come after it
    run(
        &store,
        "CREATE TRIGGER ack_late BEFORE INSERT ON alarm_ack WHEN EXISTS (SELECT 1 FROM audit WHERE change_id = \
        NEW.change_id) BEGIN SELECT RAISE(ABORT, 'the record is not last'); END",
    )
    .await;
    run(
        &store,
        "CREATE TRIGGER resync_late BEFORE INSERT ON notification_resync WHEN EXISTS (SELECT 1 FROM audit WHERE \
        change_id = NEW.change_id) BEGIN SELECT RAISE(ABORT, 'the record is not last'); END",
    )
    .await;
    const NEWEST: &str = "SELECT change_id FROM audit ORDER BY sequence DESC LIMIT 1";
    let system = node.world.system();
    for command in [acknowledge(1), resync("nms")] {
        let committed = alarms.commit(&system, command, CommitOptions::default()).await.unwrap();
        let audited: Vec<u8> = db::on_db!(&*store, c => sqlx::query_scalar(NEWEST).fetch_one(c).await).unwrap();
        assert_eq!(audited, committed.change.uuid().as_bytes());
    }
}

fn resync(target: &str) -> Command {
    Command::AlarmResync { node: NODE.to_owned(), target: target.to_owned() }
}

#[tokio::test]
async fn a_resync_is_asked_for_in_the_store_and_begun_by_the_node() {
    on_each_database(async |store: TestDb| {
        let node = Node::start(&["nms"]).await;
        let (alarms, system) = (StoreAlarms::new((*store).clone()), node.world.system());
        node.observe(&[trunk("a")]).await;
        node.drain().await;
        assert_eq!(node.told(), [("raise".to_owned(), 1, 1)]);
        let unknown = alarms.plan(&system, &resync("nms")).await.unwrap_err();
        assert_eq!(refusal(unknown), RefusalCode::NotFound, "the node has not said yet which targets it has");
        node.alarms.publish_targets(&store).await.unwrap();
        node.alarms.publish_targets(&store).await.unwrap();
        // Targets belong to the platform; an account below does not see them
        let (_, provider) = account(&node.world);
        let (reseller_id, reseller) = below(&node.world, &provider);
        let reseller = node.world.ctx(Permissions::all(), reseller_id, &reseller);
        assert_eq!(refusal(alarms.plan(&reseller, &resync("nms")).await.unwrap_err()), RefusalCode::NotFound);
        let mut none = system.clone();
        none.actor.permissions = Permissions::default();
        assert_eq!(refusal(alarms.plan(&none, &resync("nms")).await.unwrap_err()), RefusalCode::Forbidden);
        assert_eq!(refusal(alarms.plan(&system, &resync("nobody")).await.unwrap_err()), RefusalCode::NotFound);

        let plan = alarms.plan(&system, &resync("nms")).await.unwrap();
        assert_eq!(
            node.alarms.apply_resyncs(&store, node.world.clock.now().utc).await.unwrap(),
            0,
            "a plan does nothing"
        );
        let key = IdempotencyKey::new("r-1").unwrap();
        let options = CommitOptions { idempotency_key: Some(key), expected: vec![] };
        let committed = alarms.commit(&system, resync("nms"), options.clone()).await.unwrap();
        assert_eq!((committed.plan == plan, committed.replayed), (true, false));
        assert!(alarms.commit(&system, resync("nms"), options).await.unwrap().replayed);
        let again = alarms.commit(&system, resync("nms"), CommitOptions::default()).await.unwrap_err();
        assert_eq!(refusal(again), RefusalCode::Conflict, "one is under way");
        assert_eq!(db::change::verify_audit(&store).await.unwrap().entries, 1);

        let now = node.world.clock.now().utc;
        assert_eq!(node.alarms.apply_resyncs(&store, now).await.unwrap(), 1);
        assert_eq!(node.alarms.apply_resyncs(&store, now).await.unwrap(), 0);
        node.drain().await;
        assert_eq!(node.told(), [("begin 1", 2, 1), ("raise again", 2, 2), ("end 1", 2, 3)].map(named));
        alarms.commit(&system, resync("nms"), CommitOptions::default()).await.unwrap();
        // Another start without the target: what was asked for is put aside
        let gone = NodeAlarms::new(node.db.clone(), NODE, Vec::new(), node.world.ids.clone());
        gone.publish_targets(&store).await.unwrap();
        assert_eq!(gone.apply_resyncs(&store, now).await.unwrap(), 1);
        assert_eq!(refusal(alarms.plan(&system, &resync("nms")).await.unwrap_err()), RefusalCode::NotFound);
    })
    .await;
}

#[tokio::test]
async fn every_statement_prepares() {
    let node = Node::start(&[]).await;
    prepare_all(&node.db, crate::node::ALL).await;
    prepare_all(&node.db, crate::exchange::on_node::ALL).await;
    prepare_all(&node.db, crate::sender::ALL).await;
    on_each_database(async |store: TestDb| {
        prepare_all(&store, crate::alarm::ALL).await;
        prepare_all(&store, crate::exchange::on_store::ALL).await;
        prepare_all(&store, &[&bulk_statement::<CopyRow>(2, COPY_CONFLICT)]).await;
    })
    .await;
}
