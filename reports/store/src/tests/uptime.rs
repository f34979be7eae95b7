use db::journal::Journal;
use db::on_tx;
use model::change::CommitOptions;
use model::event::fact::{Fact, Heartbeat};
use model::id::AccountId;
use model::tenancy::AccountPath;
use model::time::Timestamp;
use serde_json::Value;
use testkit::{TestDb, on_each_database};

use super::{Fixture, NODE};
use crate::availability::{TRUNK_DOWN, TRUNK_RESOURCE};

const MINUTE_MS: i64 = 60_000;

impl Fixture {
    fn alive(&self, at: &str, stopping: Option<bool>) {
        self.set(at);
        let heartbeat = Heartbeat { at: self.store.now(), calls_up: 0, stopping };
        self.journal(&[Fact::Heartbeat(heartbeat)]);
    }

    /// The node is started again.
    fn started(self, at: &str) -> Self {
        let Self { db, world, dir, journal, store, provider, reseller, other_reseller, customers, trunk } = self;
        journal.close();
        world.clock.set_utc(at.parse().unwrap());
        let (journal, _) = Journal::open(dir.path(), world.clock.clone(), "0.1.0").unwrap();
        Self { db, world, dir, journal, store, provider, reseller, other_reseller, customers, trunk }
    }

    /// An alarm of the trunk in the store's copy.
    async fn trunk_alarm(&self, id: i64, raised: &str, cleared: Option<&str>) {
        const SQL: &str = "INSERT INTO alarm (node, id, type, resource, path, severity, text, raised_at, changed_at, \
            last_seen_at, cleared_at, count) VALUES ($1, $2, $3, $4, $5, 'major', 'it does not answer', $6, $6, $6, $7, 1)";
        let (resource, path) = (format!("{TRUNK_RESOURCE}{}", self.trunk), self.provider.1.as_str().to_owned());
        let raised: Timestamp = raised.parse().unwrap();
        let cleared: Option<Timestamp> = cleared.map(|at| at.parse().unwrap());
        self.write(move |tx| {
            let (resource, path) = (resource.clone(), path.clone());
            Box::pin(async move {
                on_tx!(tx, c => sqlx::query(SQL).bind(NODE).bind(id).bind(TRUNK_DOWN).bind(resource).bind(path)
                    .bind(raised.0).bind(cleared.map(|at| at.0)).execute(c).await.map(|_| ()))?;
                Ok(())
            })
        })
        .await;
    }

    async fn availability(&self, account: &(AccountId, AccountPath), period: &str) -> Value {
        let ctx = self.ctx(&self.provider);
        self.request(&ctx, account.0, period, &[], CommitOptions::default()).await.unwrap();
        assert_eq!(self.store.run_due(NODE).await.unwrap(), 1);
        self.figures().await["availability"].clone()
    }
}

/// The minutes of a ratio.
fn minutes(up_ms: &Value) -> (i64, i64) {
    let of = |part: &str| up_ms[part].as_i64().unwrap() / MINUTE_MS;
    (of("numerator"), of("denominator"))
}

#[tokio::test]
async fn a_month_has_the_outages_of_its_nodes_and_trunks() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        f.write(|tx| {
            Box::pin(async move {
                let watched = "UPDATE trunk SET keepalive_ms = 1000, created_at = 1793404800000";
                on_tx!(tx, c => sqlx::query(watched).execute(c).await.map(|_| ()))?;
                Ok(())
            })
        })
        .await;
        // The account's zone is Berlin: the month is 43,200 minutes from 23:00 UTC. The node begins 10 hours before it.
        let f = f.started("2026-10-31T13:00:00Z");
        f.count_all().await;
        // Read in part before and in part after the restarts.
        f.alive("2026-11-10T10:00:00Z", Some(true));
        let f = f.started("2026-11-10T10:30:00Z");
        f.alive("2026-11-20T10:00:00Z", None);
        f.count_all().await;
        let f = f.started("2026-11-20T12:00:00Z");
        f.alive("2026-12-01T05:00:00Z", None);
        f.count_all().await;
        f.trunk_alarm(1, "2026-11-05T00:00:00Z", Some("2026-11-05T00:20:00Z")).await;
        // While the node failed, too: 60 minutes of it nobody saw.
        f.trunk_alarm(2, "2026-11-20T11:00:00Z", Some("2026-11-20T12:10:00Z")).await;
        f.trunk_alarm(3, "2026-11-30T22:00:00Z", None).await;
        let found = f.availability(&f.provider, "2026-11").await;
        let node = &found["nodes"][0];
        // The fixture opened the journal before, at the begin of time.
        assert_eq!((node["node"].as_str(), minutes(&node["up_ms"])), (Some(NODE), (43_200 - 150, 43_200)));
        let down = |cause: &str| node[cause].as_i64().unwrap() / MINUTE_MS;
        assert_eq!((down("stopped_ms"), down("failed_ms")), (30, 120));
        let trunk = &found["trunks"][0];
        assert_eq!((trunk["name"].as_str(), minutes(&trunk["up_ms"])), (Some("Carrier"), (43_050 - 90, 43_050)));
        let outages: Vec<(String, i64)> = found["outages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| (o["cause"].as_str().unwrap().to_owned(), o["counted_ms"].as_i64().unwrap() / MINUTE_MS))
            .collect();
        let silent = "it does not answer";
        let expected = [(silent, 20), ("stopped", 30), ("failed", 120), (silent, 10), (silent, 60)];
        assert_eq!(outages, expected.map(|(cause, minutes)| (cause.to_owned(), minutes)));
        assert_eq!(found["outages"][4]["end"], Value::Null);
        // A reseller owns no trunk, and learns nothing of the installation.
        let none = f.availability(&f.reseller, "2026-11").await;
        for list in ["nodes", "trunks", "outages"] {
            assert_eq!(none[list], Value::Array(Vec::new()), "{list}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_second_reader_finds_no_outage_twice() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        let f = f.started("2026-11-01T00:00:00Z");
        f.alive("2026-11-01T00:01:00Z", None);
        let f = f.started("2026-11-01T00:05:00Z");
        let (reader, other) = (f.reader(), f.other_node());
        while {
            let (a, b) = tokio::join!(f.store.count(&reader, NODE, 1), other.count(&reader, NODE, 2));
            a.unwrap() + b.unwrap() > 0
        } {}
        let outage = "SELECT end_at - begin_at FROM pm_outage WHERE end_at > 1793491200000";
        assert_eq!(f.scalar(outage).await, 4 * MINUTE_MS);
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_was_ahead_once_leaves_no_outage_in_the_future() {
    const FOUND: &str = "SELECT COUNT(*) FROM pm_outage WHERE end_at > 1793491200000";
    const FIRST_END: &str = "SELECT MIN(end_at) FROM pm_outage WHERE end_at > 1793491200000";
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        let f = f.started("2026-11-01T00:00:00Z");
        f.alive("2026-11-01T00:10:00Z", None);
        let f = f.started("2031-01-01T00:00:00Z").started("2031-01-02T00:00:00Z");
        f.alive("2031-01-03T00:00:00Z", None);
        f.count_all().await;
        // The clock is right again; the later outages are found as ever.
        f.alive("2026-11-01T00:20:00Z", None);
        f.count_all().await;
        f.alive("2026-11-01T01:00:00Z", None);
        let f = f.started("2026-11-01T01:05:00Z");
        f.count_all().await;
        let begin = 1_793_491_200_000;
        assert_eq!((f.scalar(FOUND).await, f.scalar(FIRST_END).await), (2, begin + 20 * MINUTE_MS));
        assert_eq!(f.scalar("SELECT MAX(begin_at) FROM pm_outage").await, begin + 60 * MINUTE_MS);
        assert_eq!(f.scalar("SELECT MAX(end_at) FROM pm_outage").await, begin + 65 * MINUTE_MS);
    })
    .await;
}
