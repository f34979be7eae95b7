use model::change::CommitOptions;
use model::page::ReadError;
use model::time::Timestamp;
use reports::port::Queries as _;
use reports::resource::{Counters, Interval, Subject};
use testkit::{TestDb, on_each_database};

use super::{Fixture, NODE};

const FROM: &str = "2026-11-01T00:00:00Z";
const TO: &str = "2026-11-02T00:00:00Z";

async fn counters(f: &Fixture, subject: Subject) -> Vec<Interval> {
    let (from, to): (Timestamp, Timestamp) = (FROM.parse().unwrap(), TO.parse().unwrap());
    f.store.interval_list(&f.world.system(), subject, from, to).await.unwrap()
}

async fn sum(f: &Fixture, subject: Subject) -> Counters {
    let mut sum = Counters::default();
    counters(f, subject).await.iter().for_each(|interval| sum.add(&interval.counters));
    sum
}

fn some_calls(f: &Fixture) {
    let mut facts = Vec::new();
    facts.extend(f.call(0, "2026-11-01T10:14:50Z", 60_000));
    facts.extend(f.call(0, "2026-11-01T10:20:00Z", 30_000));
    facts.push(f.busy(0, "2026-11-01T10:29:59.999Z"));
    facts.extend(f.call(1, "2026-11-01T10:00:00Z", 1_800_000));
    f.journal(&facts);
}

#[tokio::test]
async fn calls_are_counted_for_each_subject_once() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        some_calls(&f);
        f.count_all().await;
        let all = sum(&f, Subject::Installation).await;
        assert_eq!((all.attempts, all.answered, all.user_busy, all.ended), (4, 3, 1, 3));
        assert_eq!((all.conversation_ms, all.packets_received, all.packets_lost), (1_890_000, 297, 3));
        for same in [Subject::Account(f.provider.0), Subject::Account(f.reseller.0), Subject::Trunk(f.trunk)] {
            assert_eq!(sum(&f, same).await, all, "{same:?}");
        }
        assert!(sum(&f, Subject::Account(f.other_reseller.0)).await.is_empty());
        let first = counters(&f, Subject::Account(f.customers[0].0)).await;
        let seen: Vec<_> = first.iter().map(|i| (i.start.to_string(), i.counters.attempts, i.counters.ended)).collect();
        // The first call began in one interval and ended in the next.
        assert_eq!(
            seen,
            [("2026-11-01T10:00:00.000Z".to_owned(), 1, 0), ("2026-11-01T10:15:00.000Z".to_owned(), 2, 2)]
        );
    })
    .await;
}

#[tokio::test]
async fn a_replay_and_a_second_worker_count_nothing_twice() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        some_calls(&f);
        let reader = f.reader();
        let other = f.other_node();
        while {
            let (a, b) = tokio::join!(f.store.count(&reader, NODE, 2), other.count(&reader, NODE, 2));
            a.unwrap() + b.unwrap() > 0
        } {}
        assert_eq!(f.store.count(&reader, NODE, 10).await.unwrap(), 0);
        assert_eq!(sum(&f, Subject::Installation).await.attempts, 4);
        f.journal(&[f.busy(1, "2026-11-01T10:00:00Z")]);
        f.count_all().await;
        assert_eq!(sum(&f, Subject::Installation).await.attempts, 5);
    })
    .await;
}

#[tokio::test]
async fn rated_batches_become_money_once() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        f.rate(&[(0, "sell", 125_000, "2026-11-01T10:14:59Z"), (0, "sell", 5, "2026-11-01T10:15:00Z")]).await;
        f.rate(&[(0, "sell", 1_000_000, "2026-11-01T10:01:00Z"), (1, "buy", 7, "2026-11-01T10:01:00Z")]).await;
        let other = f.other_node();
        while {
            let (a, b) = tokio::join!(f.store.revenue(1), other.revenue(1));
            a.unwrap() + b.unwrap() > 0
        } {}
        assert_eq!(f.scalar("SELECT COUNT(*) FROM pm_revenue").await, 3);
        let sold = "SELECT CAST(SUM(amount_millions) * 1000000 + SUM(amount) AS BIGINT) FROM pm_revenue WHERE side = 'sell'";
        assert_eq!(f.scalar(sold).await, 1_125_005);
        let first = "SELECT CAST(SUM(rated_count) AS BIGINT) FROM pm_revenue WHERE amount_millions * 1000000 + amount = 1125000";
        assert_eq!(f.scalar(first).await, 2);
    })
    .await;
}

/// Sums beyond 64 bits stay exact, in one batch and over batches, of either sign.
#[tokio::test]
async fn sums_of_the_largest_amounts_are_exact() {
    let at = "2026-11-03T10:00:00Z";
    let amounts = [i64::MAX, i64::MAX - 1, i64::MAX, 999_999, 1_000_001, i64::MAX];
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        f.set("2026-12-05T00:00:00Z");
        for batch in [&amounts[..4], &amounts[4..]] {
            let sold: Vec<_> = batch.iter().map(|amount| (0, "sell", *amount, at)).collect();
            let bought: Vec<_> = batch.iter().map(|amount| (1, "buy", -*amount, at)).collect();
            f.rate(&sold).await;
            f.rate(&bought).await;
        }
        while f.store.revenue(1).await.unwrap() > 0 {}
        f.requested("2026-11", &[]).await;
        f.store.run_due("node-1").await.unwrap();
        let figures = f.figures().await;
        let sum: i128 = amounts.iter().map(|amount| i128::from(*amount)).sum();
        let shown = |units| model::money::Total(units).to_string();
        assert_eq!(figures["money"][0]["revenue"], shown(sum));
        assert_eq!(figures["money"][0]["cost"], shown(-sum));
        assert_eq!(figures["money"][0]["margin"], shown(2 * sum));
    })
    .await;
}

/// A tenant's report tells of the tenant's own calls alone; the provider's of the installation.
#[tokio::test]
async fn what_others_wait_for_stays_theirs() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        f.set("2026-12-05T00:00:00Z");
        f.journal(&f.call(0, "2026-11-03T10:00:00Z", 60_000));
        f.count_all().await;
        f.rate(&[(0, "sell", 1, "2026-11-03T10:00:03Z"), (0, "sell", 1, "2026-12-03T10:00:03Z")]).await;
        let report = async |account: &(model::id::AccountId, model::tenancy::AccountPath)| {
            let ctx = f.ctx(&f.provider);
            f.request(&ctx, account.0, "2026-11", &[], CommitOptions::default()).await.unwrap();
            f.store.run_due("node-1").await.unwrap();
            let figures = f.figures().await;
            let completeness = &figures["completeness"];
            (completeness["events_pending"].as_i64().unwrap(), completeness["journals"].as_array().unwrap().len())
        };
        assert_eq!(report(&f.other_reseller).await, (0, 0), "nothing of others");
        assert_eq!(report(&f.reseller).await, (1, 0), "its own charge of the month");
        let (pending, journals) = report(&f.provider).await;
        assert!(pending > 0 && journals == 1, "{pending} {journals}");
        while f.store.revenue(10).await.unwrap() > 0 {}
        assert_eq!(report(&f.reseller).await, (0, 0));
        assert_eq!(report(&f.provider).await, (0, 1));
    })
    .await;
}

#[tokio::test]
async fn counters_are_confined_to_the_scope() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        some_calls(&f);
        f.count_all().await;
        let (from, to): (Timestamp, Timestamp) = (FROM.parse().unwrap(), TO.parse().unwrap());
        let ctx = f.ctx(&f.reseller);
        let see = async |subject| f.store.interval_list(&ctx, subject, from, to).await.unwrap().len();
        assert!(see(Subject::Account(f.customers[0].0)).await > 0);
        for foreign in [Subject::Installation, Subject::Account(f.provider.0), Subject::Trunk(f.trunk)] {
            assert_eq!(see(foreign).await, 0, "{foreign:?}");
        }
        let other = f.ctx(&f.other_reseller);
        let foreign = Subject::Account(f.customers[0].0);
        assert!(f.store.interval_list(&other, foreign, from, to).await.unwrap().is_empty());
        for (from, to) in [(from, from), (from, from.plus_ms(32 * 86_400_000))] {
            let refused = f.store.interval_list(&ctx, foreign, from, to).await;
            assert!(matches!(refused, Err(ReadError::Invalid { field: "to", .. })));
        }
        let nobody = f.world.ctx("billing:read".parse().unwrap(), f.reseller.0, &f.reseller.1);
        assert!(matches!(f.store.interval_list(&nobody, foreign, from, to).await, Err(ReadError::Denied(_))));
    })
    .await;
}
