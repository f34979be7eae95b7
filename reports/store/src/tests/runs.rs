use db::on_tx;
use model::change::{Change as _, ChangeError, CommitOptions, IdempotencyKey, RefusalCode};
use model::id::AccountId;
use model::page::{PageRequest, ReadError};
use reports::command::Command;
use reports::port::Queries as _;
use reports::resource::{Format, ReportRun, RunState};
use testkit::{TestDb, on_each_database};

use super::{Fixture, run_of};
use crate::Definition;
use crate::worker::{ATTEMPTS_MAX, LEASE_MS, RunError};

/// How long a run waits until it looks again.
const WAIT_MS: u32 = 600_000;

/// Just past the lease of a claim.
const PAST_LEASE_MS: u32 = 300_001;

fn refusal(result: Result<impl std::fmt::Debug, ChangeError>) -> RefusalCode {
    match result {
        Err(ChangeError::Refused(refusals)) => refusals[0].code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_requested_run_is_finished_with_files_mail_and_event() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        f.set("2026-12-05T00:00:00Z");
        f.journal(&f.call(0, "2026-11-03T10:00:00Z", 90_000));
        f.count_all().await;
        f.rate(&[(0, "sell", 1_234_567, "2026-11-03T10:00:03Z")]).await;
        while f.store.revenue(10).await.unwrap() > 0 {}
        let id = f.requested("2026-11", &["ops@example.com", "boss@example.com"]).await;
        let ctx = f.ctx(&f.reseller);
        let due = f.store.run_get(&ctx, id).await.unwrap().unwrap();
        assert_eq!((due.state, due.revision, due.provisional), (RunState::Due, 0, false));
        assert_eq!(f.store.artefact_read(&ctx, id, Format::Html).await.unwrap(), None);
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 1);
        let run = f.store.run_get(&ctx, id).await.unwrap().unwrap();
        assert_eq!((run.state, run.finished_at), (RunState::Finished, Some("2026-12-05T00:00:00Z".parse().unwrap())));
        let html = String::from_utf8(f.store.artefact_read(&ctx, id, Format::Html).await.unwrap().unwrap()).unwrap();
        for shown in ["November 2026", "North", "1.234567", "Europe/Berlin", "100.0 %", "1:30", "<svg"] {
            assert!(html.contains(shown), "{shown}");
        }
        let csv = String::from_utf8(f.store.artefact_read(&ctx, id, Format::Csv).await.unwrap().unwrap()).unwrap();
        assert!(csv.contains("report,period,") && csv.contains("1.234567"));
        assert_eq!(f.scalar("SELECT COUNT(*) FROM outbox WHERE target LIKE 'mail:%'").await, 2);
        assert_eq!(f.scalar("SELECT COUNT(*) FROM event WHERE kind = 'reported'").await, 1);
        assert_eq!(f.scalar("SELECT COUNT(*) FROM audit WHERE command = 'report_run'").await, 1);
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 0);
        let xlsx = f.store.artefact_read(&ctx, id, Format::Xlsx).await.unwrap().unwrap();
        // Files that are lost or damaged are made again from the figures.
        let folder = f.dir.path().join("reports");
        std::fs::remove_file(folder.join(format!("{id}.html"))).unwrap();
        std::fs::write(folder.join(format!("{id}.csv")), "damaged").unwrap();
        assert_eq!(f.store.artefact_read(&ctx, id, Format::Html).await.unwrap().unwrap(), html.as_bytes());
        assert_eq!(f.store.artefact_read(&ctx, id, Format::Csv).await.unwrap().unwrap(), csv.as_bytes());
        std::fs::remove_file(folder.join(format!("{id}.xlsx"))).unwrap();
        assert_eq!(f.store.artefact_read(&ctx, id, Format::Xlsx).await.unwrap().unwrap(), xlsx);
        // A run from before there were workbooks.
        f.write(|tx| {
            Box::pin(async move {
                on_tx!(tx, c => sqlx::query("UPDATE report_run SET xlsx_sha256 = NULL").execute(c).await.map(|_| ()))?;
                Ok(())
            })
        })
        .await;
        assert_eq!(f.store.artefact_read(&ctx, id, Format::Xlsx).await.unwrap().unwrap(), xlsx);
    })
    .await;
}

#[tokio::test]
async fn the_same_request_is_one_run_and_another_one_the_next_revision() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        f.set("2026-11-24T00:00:00Z");
        let ctx = f.ctx(&f.reseller);
        let keyed =
            |key| CommitOptions { idempotency_key: Some(IdempotencyKey::new(key).unwrap()), ..Default::default() };
        let first = f.request(&ctx, f.reseller.0, "2026-11", &[], keyed("k")).await.unwrap();
        let again = f.request(&ctx, f.reseller.0, "2026-11", &[], keyed("k")).await.unwrap();
        assert_eq!((run_of(&again), again.replayed), (run_of(&first), true));
        let other = f.request(&ctx, f.reseller.0, "2026-11", &["a@example.com"], keyed("k")).await;
        assert_eq!(refusal(other), RefusalCode::IdempotencyConflict);
        let (a, b) = tokio::join!(f.requested("2026-11", &[]), f.requested("2026-11", &[]));
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 3);
        let mut revisions = Vec::new();
        for id in [run_of(&first), a, b] {
            let run = f.store.run_get(&ctx, id).await.unwrap().unwrap();
            assert!(run.provisional);
            revisions.push(run.revision);
        }
        revisions.sort_unstable();
        assert_eq!(revisions, [0, 1, 2]);
        let command = Command::ReportRun { account: f.reseller.0, period: "2026-10".into(), recipients: Vec::new() };
        let plan = f.store.plan(&ctx, &command);
        assert_eq!(plan.await.unwrap().effects.len(), 1);
        assert_eq!(f.scalar("SELECT COUNT(*) FROM report_run").await, 3);
    })
    .await;
}

#[tokio::test]
async fn a_foreign_account_or_run_looks_missing() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        f.set("2026-11-24T00:00:00Z");
        let id = f.requested("2026-10", &[]).await;
        f.store.run_due("node-1").await.unwrap();
        let ctx = f.ctx(&f.reseller);
        let options = CommitOptions::default;
        for foreign in [f.provider.0, f.other_reseller.0] {
            assert_eq!(refusal(f.request(&ctx, foreign, "2026-10", &[], options()).await), RefusalCode::NotFound);
        }
        let read_only = f.world.ctx("report:read".parse().unwrap(), f.reseller.0, &f.reseller.1);
        let denied = f.request(&read_only, f.reseller.0, "2026-10", &[], options()).await;
        assert_eq!(refusal(denied), RefusalCode::Forbidden);
        let other = f.ctx(&f.other_reseller);
        assert_eq!(f.store.run_get(&other, id).await.unwrap(), None);
        assert_eq!(f.store.artefact_read(&other, id, Format::Csv).await.unwrap(), None);
        assert!(f.store.run_list(&other, PageRequest::default()).await.unwrap().items.is_empty());
        // A customer does not see its reseller's run, the provider does.
        assert_eq!(f.store.run_get(&f.ctx(&f.customers[0]), id).await.unwrap(), None);
        assert!(f.store.run_get(&f.ctx(&f.provider), id).await.unwrap().is_some());
        let blind = f.world.ctx("report:write".parse().unwrap(), f.reseller.0, &f.reseller.1);
        assert!(matches!(f.store.run_get(&blind, id).await, Err(ReadError::Denied(_))));
        f.requested("2026-09", &[]).await;
        let page = |after| PageRequest { first: 1, after };
        let first = f.store.run_list(&ctx, page(None)).await.unwrap();
        assert_eq!((first.items[0].1.id, first.has_next), (id, true));
        let second = f.store.run_list(&ctx, page(Some(first.items[0].0.clone()))).await.unwrap();
        assert_eq!((second.items[0].1.period.as_str(), second.has_next), ("2026-09", false));
        assert!(f.store.run_list(&ctx, page(Some("x".into()))).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn two_workers_finish_each_run_once() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        f.set("2026-11-24T00:00:00Z");
        for period in ["2026-06", "2026-07", "2026-08", "2026-09", "2026-10"] {
            f.requested(period, &["ops@example.com"]).await;
        }
        let other = f.other_node();
        let mut finished = 0;
        // A worker that meets the other at one row goes away empty-handed and comes again.
        for _ in 0..10 {
            let (a, b) = tokio::join!(f.store.run_due("node-1"), other.run_due("node-2"));
            finished += a.unwrap() + b.unwrap();
        }
        assert_eq!(finished, 5);
        assert_eq!(f.scalar("SELECT COUNT(*) FROM report_run WHERE state = 'finished' AND attempt = 1").await, 5);
        assert_eq!(f.scalar("SELECT COUNT(*) FROM outbox").await, 5);
        assert_eq!(f.scalar("SELECT COUNT(*) FROM event WHERE kind = 'reported'").await, 5);
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_died_after_rendering_is_replaced_and_cannot_finish() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        f.set("2026-11-24T00:00:00Z");
        f.journal(&f.call(0, "2026-11-03T10:00:00Z", 90_000));
        f.count_all().await;
        let id = f.requested("2026-11", &["ops@example.com"]).await;
        let claim = f.store.claim("node-1").await.unwrap().unwrap();
        let figures = f.store.figures(&claim).await.unwrap();
        let rendered = f.store.render(&claim, &figures).await.unwrap();
        let ctx = f.ctx(&f.reseller);
        assert_eq!(f.store.artefact_read(&ctx, id, Format::Html).await.unwrap(), None);
        // More calls come in; the other node waits for the lease, then goes on from the figures that were kept.
        f.journal(&f.call(0, "2026-11-03T11:00:00Z", 90_000));
        f.count_all().await;
        let other = f.other_node();
        assert_eq!(other.run_due("node-2").await.unwrap(), 0);
        assert_eq!(i64::from(PAST_LEASE_MS), LEASE_MS + 1);
        f.world.clock.advance_ms(PAST_LEASE_MS);
        assert_eq!(other.run_due("node-2").await.unwrap(), 1);
        assert!(matches!(f.store.finish(&claim, rendered.clone()).await, Err(RunError::Fenced)));
        assert!(matches!(f.store.figures(&claim).await, Err(RunError::Fenced)));
        assert_eq!(other.artefact_read(&ctx, id, Format::Html).await.unwrap().unwrap(), rendered.html);
        assert_eq!(f.store.artefact_read(&ctx, id, Format::Csv).await.unwrap().unwrap(), rendered.csv);
        assert_eq!(f.scalar("SELECT COUNT(*) FROM outbox").await, 1);
        assert_eq!(f.scalar("SELECT COUNT(*) FROM event WHERE kind = 'reported'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_run_that_fails_again_and_again_is_given_up_with_its_reason() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        f.set("2026-11-24T00:00:00Z");
        // A file stands where the folder should be.
        std::fs::write(f.dir.path().join("reports"), "").unwrap();
        let id = f.requested("2026-10", &["ops@example.com"]).await;
        for attempt in 1..=ATTEMPTS_MAX {
            assert_eq!(f.store.run_due("node-1").await.unwrap(), 0);
            let run = f.store.run_get(&f.ctx(&f.reseller), id).await.unwrap().unwrap();
            let expected = if attempt == ATTEMPTS_MAX { RunState::Failed } else { RunState::Running };
            assert_eq!(run.state, expected, "{attempt}");
            assert!(run.error.unwrap().contains("disk"));
            f.world.clock.advance_ms(PAST_LEASE_MS);
        }
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 0);
        assert_eq!(f.scalar("SELECT COUNT(*) FROM outbox").await, 0);
    })
    .await;
}

#[tokio::test]
async fn the_schedule_catches_up_once_whoever_looks() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        let missing = model::id::AccountId::new(&*f.world.ids);
        let definition = |account| Definition { account, recipients: vec!["ops@example.com".to_owned()] };
        let definitions = [definition(f.reseller.0), definition(missing)];
        f.set("2027-03-31T22:29:00Z");
        // Somebody was early: a run by hand is not the one that the recipients wait for.
        f.requested("2027-02", &[]).await;
        let other = f.other_node();
        let (a, b) = tokio::join!(f.store.schedule_due(&definitions), other.schedule_due(&definitions));
        assert_eq!(a.unwrap() + b.unwrap(), 3);
        f.set("2027-03-31T22:30:00Z");
        assert_eq!(f.store.schedule_due(&definitions).await.unwrap(), 1);
        assert_eq!(other.schedule_due(&definitions).await.unwrap(), 0);
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 5);
        let made = "SELECT COUNT(*) FROM report_run WHERE definition LIKE 'scheduled:%' AND revision = 0";
        assert_eq!(f.scalar(made).await, 4);
        assert_eq!(f.scalar("SELECT COUNT(*) FROM outbox").await, 4);
    })
    .await;
}

/// A scheduled report waits for the rest of a journal and for the money, holds up no other, and says so when it has
/// waited in vain.
#[tokio::test]
async fn the_schedule_waits_for_what_is_missing_and_not_forever() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        let definition = |account: &(AccountId, _)| Definition { account: account.0, recipients: Vec::new() };
        let (ours, theirs) = (definition(&f.reseller), definition(&f.other_reseller));
        f.set("2026-10-01T00:00:00Z");
        f.journal(&[]);
        f.store.schedule_due(&[ours.clone(), theirs.clone()]).await.unwrap();
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 6);
        // The node is seen in October, and fails with a call in its journal that nobody has counted.
        f.set("2026-10-30T10:00:00Z");
        f.journal(&[f.busy(0, "2026-10-30T09:59:00Z")]);
        f.count_all().await;
        f.set("2026-10-31T10:00:00Z");
        f.journal(&[f.busy(0, "2026-10-31T09:59:00Z")]);
        f.rate(&[(0, "sell", 1_000_000, "2026-10-31T10:00:00Z")]).await;
        f.set("2026-11-02T12:00:00Z");
        assert_eq!(f.store.schedule_due(std::slice::from_ref(&ours)).await.unwrap(), 1);
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 0);
        let run = async || {
            let found = f.store.run_list(&f.ctx(&f.reseller), PageRequest::default()).await.unwrap().items;
            found.into_iter().map(|(_, run)| run).find(|run| run.period == "2026-10").unwrap()
        };
        assert_eq!(run().await.state, RunState::Due);
        // Who asks gets what there is; nobody waits behind the one that waits.
        f.requested("2026-10", &[]).await;
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 1);
        let asked = f.figures().await;
        assert_eq!((&asked["provisional"], &asked["completeness"]["nodes_unread"]), (&true.into(), &1.into()));
        // The node is back, and its journal is read: the money is still missing.
        f.journal(&[f.busy(1, "2026-11-02T12:00:00Z")]);
        f.count_all().await;
        f.world.clock.advance_ms(WAIT_MS);
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 0);
        while f.store.revenue(10).await.unwrap() > 0 {}
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 0, "it looks again later");
        f.world.clock.advance_ms(WAIT_MS);
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 1);
        let made = f.store.run_list(&f.ctx(&f.reseller), PageRequest::default()).await.unwrap().items;
        let scheduled = reports::run::scheduled(f.reseller.0);
        let of_october = |run: &ReportRun| run.period == "2026-10" && run.definition == scheduled;
        let made = made.into_iter().map(|(_, run)| run).find(of_october).unwrap();
        assert_eq!((made.state, made.provisional), (RunState::Finished, false));
        // What never comes: after half a day the report goes out and says that it is provisional.
        f.rate(&[(0, "sell", 1_000_000, "2026-11-03T10:00:00Z")]).await;
        f.set("2026-12-02T12:00:00Z");
        assert_eq!(f.store.schedule_due(&[ours]).await.unwrap(), 1);
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 0);
        f.set("2026-12-03T00:00:00Z");
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 1);
        let late = f.figures().await;
        let found = (&late["period"], &late["provisional"], &late["completeness"]["charges_pending"]);
        assert_eq!(found, (&"2026-11".into(), &true.into(), &1.into()));
    })
    .await;
}

#[tokio::test]
async fn months_that_were_missed_are_run_once_each_and_in_order() {
    on_each_database(async |db: TestDb| {
        let f = Fixture::new(&db).await;
        let definitions = [Definition { account: f.reseller.0, recipients: vec!["ops@example.com".to_owned()] }];
        f.set("2026-10-01T00:00:00Z");
        assert_eq!(f.store.schedule_due(&definitions).await.unwrap(), 3);
        assert_eq!(f.store.run_due("node-1").await.unwrap(), 3);
        // Down over two ends of a month; what comes up has nothing but the store, and there are two of it.
        f.set("2026-12-05T12:00:00Z");
        let (a, b) = (f.other_node(), f.other_node());
        let (x, y) = tokio::join!(a.schedule_due(&definitions), b.schedule_due(&definitions));
        assert_eq!(x.unwrap() + y.unwrap(), 2);
        for (node, holder, period) in [(&a, "node-1", "2026-10"), (&b, "node-2", "2026-11")] {
            let claim = node.claim(holder).await.unwrap().unwrap();
            assert_eq!((claim.run.period.as_str(), claim.run.revision), (period, 0));
            let figures = node.figures(&claim).await.unwrap();
            let rendered = node.render(&claim, &figures).await.unwrap();
            node.finish(&claim, rendered).await.unwrap();
        }
        for node in [&a, &b] {
            assert_eq!(node.schedule_due(&definitions).await.unwrap() + node.run_due("node-3").await.unwrap(), 0);
        }
        let runs = f.store.run_list(&f.ctx(&f.reseller), PageRequest::default()).await.unwrap().items;
        let mut periods: Vec<(String, RunState)> = runs.into_iter().map(|(_, run)| (run.period, run.state)).collect();
        periods.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let expected = ["2026-07", "2026-08", "2026-09", "2026-10", "2026-11"];
        assert_eq!(periods, expected.map(|period| (period.to_owned(), RunState::Finished)));
        // The recipient gets them in the order of the months.
        let mut mailed = Vec::new();
        while let Some(message) = db::outbox::due(&f.db, "mail:", f.store.now(), 1).await.unwrap().pop() {
            let run = crate::mail::run_of(&message.payload).unwrap();
            mailed.push(f.store.run_get(&f.ctx(&f.reseller), run).await.unwrap().unwrap().period);
            assert!(db::outbox::sent(&f.db, message.id, f.store.now()).await.unwrap());
        }
        assert_eq!(mailed, expected);
    })
    .await;
}
