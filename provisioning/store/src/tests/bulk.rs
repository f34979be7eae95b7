//! Files of many changes: what their lines do, that it is done once, and that a line decides as any other change.

use std::collections::BTreeMap;

use model::change::Reversibility;
use model::id::{BulkJobId, ChangeId, IdSource};
use model::page::PageRequest;
use model::time::Clock;
use provisioning::bulk::file::{Format, read};
use provisioning::bulk::job::{BulkJob, JobMode, JobState, LineOutcome, LineResult};
use provisioning::bulk::{Fields, Kind};
use provisioning::port::Bulk as _;

use super::*;
use crate::BulkStep;

const ALL: u32 = 100_000;

/// Everything that a customer can have, in one file.
const FILE: &str = r#"
{"kind":"account","account":"Quay Hotel","accountKind":"customer","timezone":"Europe/Vienna","currency":"EUR","subscriberQuota":3}
{"kind":"domain","account":"Quay Hotel","domain":"quay.example","countryCode":"43","nationalPrefix":"0","internationalPrefix":"00"}
{"kind":"site","account":"Quay Hotel","site":"Front desk"}
{"kind":"number","account":".","number":"+43720000100"}
{"kind":"subscriber","domain":"quay.example","username":"100","displayName":"Desk","site":"Front desk","extension":"100","numbers":["+43720000100","+43720000101"],"password":"correct-horse"}
{"kind":"subscriber","domain":"quay.example","username":"101","callLimit":2,"enabled":false}
"#;

impl House {
    /// A caller whose token is real, since a job goes on without its request.
    async fn token(&self, of: &Ctx) -> Ctx {
        let issued = self.done(of, token_issue(of.actor.account, "bulk", &of.actor.permissions.to_string())).await;
        let mut ctx = of.clone();
        ctx.actor.id = issued;
        ctx
    }

    async fn staged(&self, ctx: &Ctx, format: Format, file: &str) -> BulkJob {
        let job = self.store.job_create(ctx, "file").await.unwrap();
        let lines: Vec<_> = read(format, file.as_bytes()).unwrap().collect();
        self.store.job_append(ctx, job.id, lines).await.unwrap();
        self.store.job_staged(ctx, job.id).await.unwrap()
    }

    async fn start(&self, ctx: &Ctx, id: BulkJobId, mode: JobMode) {
        self.commit(ctx, Command::BulkJobStart { id, mode }).await.unwrap();
    }

    async fn step(&self) -> BulkStep {
        let clock: Arc<dyn Clock> = self.world.clock.clone();
        let ids: Arc<dyn IdSource> = self.world.ids.clone();
        match self.store.bulk_step(&clock, &ids).await.unwrap() {
            BulkStep::Idle => self.store.bulk_check("node1", &clock, &ids).await.unwrap(),
            worked => worked,
        }
    }

    async fn run(&self, ctx: &Ctx, id: BulkJobId, mode: JobMode) -> (BulkJob, Vec<LineResult>) {
        self.start(ctx, id, mode).await;
        while self.step().await == BulkStep::Worked {}
        let job = self.store.job_get(ctx, id).await.unwrap().unwrap();
        (job, self.store.job_results(ctx, id, 0, ALL).await.unwrap())
    }

    async fn sent(&self, ctx: &Ctx, file: &str) -> (BulkJob, Vec<LineResult>) {
        let job = self.staged(ctx, Format::JsonLines, file).await;
        self.run(ctx, job.id, JobMode::PerLine).await
    }

    async fn exported(&self, ctx: &Ctx) -> Vec<Fields> {
        let mut lines = Vec::new();
        for kind in Kind::ALL {
            let page = self.store.export(ctx, kind, PageRequest { first: 100, after: None }).await.unwrap();
            lines.extend(page.items.into_iter().map(|(_, fields)| fields));
        }
        lines
    }
}

fn json_lines(lines: &[Fields]) -> String {
    lines.iter().map(|fields| fields.to_json() + "\n").collect()
}

fn outcomes(results: &[LineResult]) -> Vec<(u32, LineOutcome)> {
    results.iter().map(|result| (result.line, result.outcome)).collect()
}

fn refusals(results: &[LineResult]) -> Vec<(u32, RefusalCode, &str)> {
    let mut said = Vec::new();
    for result in results {
        said.extend(result.refusals.iter().map(|refusal| (result.line, refusal.code, refusal.field.as_str())));
    }
    said
}

#[tokio::test]
async fn a_file_is_done_once_and_can_be_sent_again() {
    use LineOutcome::{Applied, Refused, Unchanged};
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let ctx = house.token(&t.ctx).await;
        let (job, results) = house.sent(&ctx, FILE).await;
        assert_eq!(outcomes(&results), [2, 3, 4, 5, 6, 7].map(|line| (line, Applied)), "{results:?}");
        assert_eq!((job.state, job.total, job.applied, job.refused), (JobState::Finished, 6, 6, 0));
        let password = |line: usize| results[line].password.as_ref().map(|password| password.expose().len());
        assert_eq!((password(4), password(5)), (None, Some(24)), "one was given, one is drawn");
        assert_eq!(house.count("bulk_line").await, 0, "no line is kept");
        // customer and reseller, and what hangs below; the counts go up the tree
        let customer = AccountId::from_uuid(results[0].object.unwrap().id);
        let account = house.store.account_get(&ctx, customer).await.unwrap().unwrap();
        assert_eq!((account.subscriber_count, account.parent), (2, Some(t.reseller.id)));
        let first = SubscriberId::from_uuid(results[4].object.unwrap().id);
        let subscriber = house.store.subscriber_get(&ctx, first).await.unwrap().unwrap();
        assert_eq!((subscriber.display_name.as_str(), subscriber.site.is_some()), ("Desk", true));
        let numbers = house.store.number_list(&ctx, None, PageRequest { first: 100, after: None }).await.unwrap();
        let numbers: BTreeMap<String, _> =
            numbers.items.iter().map(|(_, n)| (n.e164.to_string(), (n.account, n.subscriber))).collect();
        assert_eq!(numbers["+43720000100"], (t.reseller.id, Some(first)), "the reseller's own number");
        assert_eq!(numbers["+43720000101"], (customer, Some(first)), "a number that was not there");
        // the same file again asks for nothing
        let (job, results) = house.sent(&ctx, FILE).await;
        assert_eq!(outcomes(&results), [2, 3, 4, 5, 6, 7].map(|line| (line, Unchanged)), "{results:?}");
        assert_eq!((job.applied, job.unchanged), (0, 6));

        // what is exported asks for nothing either, and says what is edited in it
        let exported = house.exported(&ctx).await;
        let (_, results) = house.sent(&ctx, &json_lines(&exported)).await;
        assert!(results.iter().all(|result| result.outcome == Unchanged), "{results:?}");
        let csv: Vec<String> = exported.iter().map(|fields| fields.to_record().join(",")).collect();
        let csv = format!("{}\n{}\n", provisioning::bulk::columns().join(","), csv.join("\n"));
        let edited = csv.replace(",Desk,", ",Reception,");
        assert_ne!(edited, csv);
        let job = house.staged(&ctx, Format::Csv, &edited).await;
        let (job, _) = house.run(&ctx, job.id, JobMode::PerLine).await;
        assert_eq!((job.applied, job.refused), (1, 0));
        let subscriber = house.store.subscriber_get(&ctx, first).await.unwrap().unwrap();
        assert_eq!(subscriber.display_name, "Reception");

        let (_, results) = house
            .sent(
                &ctx,
                r#"{"action":"delete","kind":"subscriber","domain":"quay.example","username":"100"}
{"action":"delete","kind":"subscriber","domain":"quay.example","username":"101"}
{"action":"delete","kind":"number","number":"+43720000100"}
{"action":"delete","kind":"site","account":"Quay Hotel","site":"Front desk"}
{"action":"delete","kind":"domain","domain":"quay.example"}
{"action":"delete","kind":"domain","domain":"quay.example"}
{"action":"update","kind":"account","account":"Quay Hotel","enabled":false}"#,
            )
            .await;
        let expected = [Applied, Applied, Applied, Applied, Applied, Refused, Applied];
        assert_eq!(results.iter().map(|r| r.outcome).collect::<Vec<_>>(), expected, "{results:?}");
        db::change::verify_audit(&house.db).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_lines_did_is_taken_back_account_by_account() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let ctx = house.token(&t.ctx).await;
        let before = json_lines(&house.exported(&ctx).await);
        let lines: String = (0..20)
            .map(|n| {
                format!(
                    "{{\"kind\":\"subscriber\",\"domain\":\"c1.example\",\"username\":\"{n}\",\
                     \"numbers\":[\"+4372010{n:04}\"],\"enabled\":{}}}\n",
                    n % 2 == 0
                )
            })
            .collect();
        let (job, results) = house.sent(&ctx, &lines).await;
        assert_eq!((job.applied, job.refused), (20, 0), "{results:?}");
        let changes: std::collections::BTreeSet<ChangeId> = results.iter().flat_map(|r| r.changes.clone()).collect();
        assert_eq!(changes.len(), 1, "lines of one account are one change");
        let change = *changes.first().unwrap();
        let entry = house.store.audit_get(&ctx, change).await.unwrap().unwrap();
        assert_eq!((entry.command.as_str(), entry.plan.effects.len()), ("bulk_apply", 40));
        assert_eq!(entry.plan.reversibility, Reversibility::Reversible);
        let reverted = house.commit(&ctx, Command::ChangeRevert { change }).await.unwrap();
        assert_eq!(reverted.plan.effects.len(), 40);
        assert_eq!(json_lines(&house.exported(&ctx).await), before);
        let customer = house.store.account_get(&ctx, t.customer.id).await.unwrap().unwrap();
        assert_eq!(customer.subscriber_count, t.customer.subscriber_count);
        // and back again
        let again = Command::ChangeRevert { change: reverted.change };
        assert_eq!(house.commit(&ctx, again).await.unwrap().plan.effects.len(), 40);
        db::change::verify_audit(&house.db).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_refused_line_says_why_and_the_others_are_done() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let (t, other) = (house.tenant(1).await, house.tenant(2).await);
        let ctx = house.token(&t.ctx).await;
        house.done(&house.provider, quota(t.reseller.id, 3)).await;
        let file = r#"nonsense
{"kind":"subscriber","domain":"c2.example","username":"100"}
{"kind":"number","number":"+43720000002","account":"."}
{"kind":"subscriber","domain":"c1.example","username":"a:b","extension":"100","site":"Nowhere"}
{"kind":"subscriber","domain":"c1.example","username":"200","extension":"100"}
{"kind":"subscriber","domain":"c1.example","username":"200","numbers":["+43720000500"]}
{"action":"create","kind":"subscriber","domain":"c1.example","username":"200"}
{"kind":"subscriber","domain":"c1.example","username":"201","numbers":["+43720000501","+43720000500"]}
{"kind":"subscriber","domain":"c1.example","username":"202"}
{"kind":"subscriber","domain":"c1.example","username":"203"}
{"action":"delete","kind":"site","account":"Customer 1","site":"Harbour"}
{"action":"delete","kind":"account","account":"Customer 1"}
{"kind":"account","account":"Customer 1","timezone":"UTC"}
{"kind":"account","account":"New","accountKind":"customer"}
{"kind":"domain","account":"Customer 1","domain":"c2.example"}
{"kind":"site","account":"Customer 2","site":"x"}
{"kind":"site","account":"Customer 1","site":"a\u0000b"}
{"kind":"site","account":"Customer\u0000","site":"'; DROP TABLE account; --"}
{"kind":"subscriber","domain":"c1.example","username":"a\u0000"}"#;
        let (job, results) = house.sent(&ctx, file).await;
        use RefusalCode::{Conflict, InUse, Invalid, NotFound, QuotaExceeded};
        let expected = [
            (1, Invalid, ""),
            // another tenant's domain, and its number
            (2, NotFound, "domain"),
            (3, Conflict, "number"),
            (4, NotFound, "site"),
            (5, Conflict, "extension"),
            (7, Conflict, "username"),
            // the line is whole or not at all
            (8, Conflict, "numbers[1]"),
            (10, QuotaExceeded, ""),
            (11, InUse, "site"),
            (12, Conflict, "action"),
            (13, Invalid, "timezone"),
            (14, Invalid, "timezone"),
            (14, Invalid, "currency"),
            (15, Invalid, "countryCode"),
            (16, NotFound, "account"),
            (17, Invalid, "site"),
            (18, NotFound, "account"),
            (19, Invalid, "username"),
            (19, QuotaExceeded, ""),
        ];
        assert_eq!(refusals(&results), expected);
        assert_eq!((job.state, job.applied, job.refused), (JobState::Finished, 2, 17));
        let reseller = house.store.account_get(&ctx, t.reseller.id).await.unwrap().unwrap();
        assert_eq!(reseller.subscriber_count, 3);
        let numbers = house.store.number_list(&ctx, None, PageRequest { first: 100, after: None }).await.unwrap();
        assert!(numbers.items.iter().all(|(_, number)| number.e164.to_string() != "+43720000501"));
        let foreign = house.store.job_get(&other.ctx, job.id).await.unwrap();
        assert_eq!(foreign, None, "another tenant's job looks missing");
        assert!(house.store.job_results(&other.ctx, job.id, 0, ALL).await.unwrap().is_empty());
        refused_as(house.commit(&other.ctx, Command::BulkJobCancel { id: job.id }).await, NotFound, "id");
    })
    .await;
}

#[tokio::test]
async fn a_check_changes_nothing_and_says_what_would_come() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let ctx = house.token(&t.ctx).await;
        let before = json_lines(&house.exported(&ctx).await);
        let audit = house.count("audit").await;
        let file = format!("{FILE}{{\"kind\":\"subscriber\",\"domain\":\"quay.example\",\"username\":\"a b\"}}\n");
        let job = house.staged(&ctx, Format::JsonLines, &file).await;
        for _ in 0..2 {
            let (checked, results) = house.run(&ctx, job.id, JobMode::Check).await;
            assert_eq!((checked.state, checked.applied, checked.refused), (JobState::Staged, 6, 1));
            assert_eq!(refusals(&results), [(8, RefusalCode::Invalid, "username")]);
            assert!(results.iter().all(|result| result.changes.is_empty() && result.password.is_none()));
        }
        assert_eq!(json_lines(&house.exported(&ctx).await), before);
        assert_eq!(house.count("audit").await, audit + 2, "two starts");
        // all or none: none
        let (job, results) = house.run(&ctx, job.id, JobMode::AllOrNothing).await;
        assert_eq!((job.state, job.applied, job.refused), (JobState::Refused, 0, 1));
        assert_eq!(refusals(&results), [(8, RefusalCode::Invalid, "username")]);
        assert_eq!(json_lines(&house.exported(&ctx).await), before);
        // and after the check, line by line
        let (job, results) = house.run(&ctx, job.id, JobMode::PerLine).await;
        assert_eq!((job.state, results.len()), (JobState::Finished, 7));
        assert_eq!((job.applied, job.refused), (6, 1));
        // all or none: all
        let more = "{\"kind\":\"site\",\"account\":\"Quay Hotel\",\"site\":\"a\"}\n\
                    {\"kind\":\"site\",\"account\":\"Quay Hotel\",\"site\":\"b\"}\n";
        let job = house.staged(&ctx, Format::JsonLines, more).await;
        let (job, results) = house.run(&ctx, job.id, JobMode::AllOrNothing).await;
        assert_eq!((job.state, job.applied, results.len()), (JobState::Finished, 2, 2));
        refused_as(
            house.commit(&ctx, Command::BulkJobStart { id: job.id, mode: JobMode::PerLine }).await,
            RefusalCode::Conflict,
            "id",
        );
    })
    .await;
}

#[tokio::test]
async fn a_job_has_the_rights_of_its_token_and_no_others() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let ctx = house.token(&t.ctx).await;
        let line = |n: u32| format!("{{\"kind\":\"site\",\"account\":\"Customer 1\",\"site\":\"{n}\"}}\n");
        let file: String = (0..600).map(line).collect();
        let job = house.staged(&ctx, Format::JsonLines, &file).await;
        house.start(&ctx, job.id, JobMode::PerLine).await;
        assert_eq!(house.step().await, BulkStep::Worked);
        house.done(&t.ctx, Command::TokenRevoke { id: TokenId::from_uuid(ctx.actor.id) }).await;
        while house.step().await == BulkStep::Worked {}
        let stopped = house.store.job_get(&t.ctx, job.id).await.unwrap().unwrap();
        assert_eq!((stopped.state, stopped.applied), (JobState::Stopped, 256));
        assert!(stopped.reason.unwrap().contains("token"));
        // somebody else lets it go on where it stopped
        let issued =
            house.done(&t.ctx, token_issue(t.reseller.id, "other", "provisioning:read provisioning:write")).await;
        let mut other = ctx.clone();
        other.actor.id = issued;
        refused_as(
            house.commit(&other, Command::BulkJobStart { id: job.id, mode: JobMode::Check }).await,
            RefusalCode::Conflict,
            "mode",
        );
        house.start(&other, job.id, JobMode::PerLine).await;
        assert_eq!(house.step().await, BulkStep::Worked);
        house.done(&other, Command::BulkJobCancel { id: job.id }).await;
        assert_eq!(house.step().await, BulkStep::Idle);
        let (finished, results) = house.run(&other, job.id, JobMode::PerLine).await;
        assert_eq!((finished.state, finished.applied, finished.refused), (JobState::Finished, 600, 0));
        assert_eq!(results.iter().map(|r| r.line).collect::<Vec<_>>(), (1..=600).collect::<Vec<_>>());
        let now = house.world.clock.now().utc;
        assert!(house.store.forget_job(now.plus_ms(1), now).await.unwrap());
        assert!(!house.store.forget_job(now.plus_ms(1), now).await.unwrap());
        assert_eq!(house.count("bulk_result").await, 0);
    })
    .await;
}

/// Another change takes a name between the look and the write of a turn, which only PostgreSQL lets happen.
#[tokio::test]
async fn lines_race_with_other_changes() {
    on_each_database(async |db: TestDb| {
        let house = Arc::new(House::new(db).await);
        let t = house.tenant(1).await;
        let ctx = house.token(&t.ctx).await;
        let line = |n: u32| {
            format!(
                "{{\"action\":\"create\",\"kind\":\"subscriber\",\"domain\":\"c1.example\",\"username\":\"u{n}\"}}\n"
            )
        };
        let file: String = (0..300).map(line).collect();
        let job = house.staged(&ctx, Format::JsonLines, &file).await;
        house.start(&ctx, job.id, JobMode::PerLine).await;
        let (rival, caller, domain) = (Arc::clone(&house), ctx.clone(), t.domain);
        let rivals = tokio::spawn(async move {
            let mut made = 0;
            for n in (0..300).rev().step_by(3) {
                match rival.commit(&caller, subscriber_create(domain, &format!("u{n}"), None)).await {
                    Ok(_) => made += 1,
                    Err(ChangeError::Refused(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            made
        });
        while house.step().await == BulkStep::Worked {}
        let made = rivals.await.unwrap();
        let job = house.store.job_get(&ctx, job.id).await.unwrap().unwrap();
        assert_eq!(job.applied + made, 300);
        assert_eq!(job.applied + job.refused, 300);
        let customer = house.store.account_get(&ctx, t.customer.id).await.unwrap().unwrap();
        assert_eq!(i64::from(customer.subscriber_count), house.count("subscriber").await);
        assert_eq!(customer.subscriber_count, 301);
        db::change::verify_audit(&house.db).await.unwrap();
    })
    .await;
}

fn subscriber_line(action: &str, n: u32, rest: &str) -> String {
    format!(
        "{{\"action\":\"{action}\",\"kind\":\"subscriber\",\"domain\":\"bulk.example\",\"username\":\"{n}\"{rest}}}\n"
    )
}

/// A domain of the first tenant's customer.
async fn with_domain(house: &House, t: &Tenant) -> Ctx {
    house.done(&t.ctx, domain_create(t.customer.id, "bulk.example")).await;
    house.token(&t.ctx).await
}

#[tokio::test]
async fn what_lines_before_did_counts_however_many_there_are() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let ctx = with_domain(&house, &t).await;
        let domain_goes = "{\"action\":\"delete\",\"kind\":\"domain\",\"domain\":\"bulk.example\"}\n";
        let made: String = (0..300).map(|n| subscriber_line("create", n, "")).collect();
        let job = house.staged(&ctx, Format::JsonLines, &format!("{made}{domain_goes}")).await;
        for mode in [JobMode::Check, JobMode::AllOrNothing] {
            let (_, results) = house.run(&ctx, job.id, mode).await;
            assert_eq!(refusals(&results), [(301, RefusalCode::InUse, "domain")], "{mode:?}");
        }
        let (job, _) = house.run(&ctx, job.id, JobMode::PerLine).await;
        assert_eq!((job.applied, job.refused), (300, 1));
        let gone: String = (0..300).map(|n| subscriber_line("delete", n, "")).collect();
        let job = house.staged(&ctx, Format::JsonLines, &format!("{gone}{domain_goes}")).await;
        for (mode, state) in [(JobMode::Check, JobState::Staged), (JobMode::AllOrNothing, JobState::Finished)] {
            let (job, results) = house.run(&ctx, job.id, mode).await;
            assert_eq!((job.state, job.applied), (state, 301), "{mode:?} {:?}", refusals(&results));
        }
    })
    .await;
}

#[tokio::test]
async fn objects_and_what_lies_in_them_are_taken_back_one_after_the_other() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let ctx = house.token(&t.ctx).await;
        let before = json_lines(&house.exported(&ctx).await);
        let revert_all = async |results: &[LineResult]| {
            let changes: Vec<ChangeId> = results.iter().flat_map(|result| result.changes.clone()).collect();
            let mut done = Vec::new();
            for change in changes.into_iter().rev() {
                if !done.contains(&change) {
                    house.commit(&ctx, Command::ChangeRevert { change }).await.unwrap();
                    done.push(change);
                }
            }
        };
        let domain = "{\"kind\":\"domain\",\"account\":\"Customer 1\",\"domain\":\"bulk.example\",\"countryCode\":\"43\",\
            \"internationalPrefix\":\"00\"}\n{\"kind\":\"site\",\"account\":\"Customer 1\",\"site\":\"Wharf\"}\n";
        let sits = ",\"site\":\"Wharf\"";
        let made = format!(
            "{domain}{}{}",
            subscriber_line("put", 1, &format!("{sits},\"numbers\":[\"+43720100001\"]")),
            subscriber_line("put", 2, sits)
        );
        let (job, results) = house.sent(&ctx, &made).await;
        assert_eq!((job.applied, job.refused), (4, 0), "{results:?}");
        revert_all(&results).await;
        assert_eq!(json_lines(&house.exported(&ctx).await), before, "what was made is gone");

        house.sent(&ctx, &made).await;
        let full = json_lines(&house.exported(&ctx).await);
        // a number goes from one to the other, and all goes
        let moved = format!(
            "{}{}{}{}{}",
            subscriber_line("delete", 1, ""),
            subscriber_line("create", 3, ",\"numbers\":[\"+43720100001\"]"),
            subscriber_line("delete", 2, ""),
            subscriber_line("delete", 3, ""),
            "{\"action\":\"delete\",\"kind\":\"domain\",\"domain\":\"bulk.example\"}\n"
        );
        let (job, results) = house.sent(&ctx, &moved).await;
        assert_eq!((job.applied, job.refused), (5, 0), "{results:?}");
        revert_all(&results).await;
        let sorted = |lines: &str| {
            let mut lines: Vec<String> = lines.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(sorted(&json_lines(&house.exported(&ctx).await)), sorted(&full), "what went is there again");
    })
    .await;
}

#[tokio::test]
async fn a_reversal_does_not_pass_a_quota() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let ctx = with_domain(&house, &t).await;
        let lines =
            |action: &str, from: u32, to: u32| (from..to).map(|n| subscriber_line(action, n, "")).collect::<String>();
        house.sent(&ctx, &lines("create", 0, 10)).await;
        let (_, results) = house.sent(&ctx, &lines("delete", 0, 10)).await;
        house.done(&house.provider, quota(t.reseller.id, 12)).await;
        house.sent(&ctx, &lines("create", 100, 109)).await;
        let change = results[0].changes[0];
        let refused = house.commit(&ctx, Command::ChangeRevert { change }).await;
        let codes = super::refused(refused);
        assert!(!codes.is_empty() && codes.iter().all(|(code, _)| *code == RefusalCode::QuotaExceeded), "{codes:?}");
        house.sent(&ctx, &lines("delete", 100, 108)).await;
        house.commit(&ctx, Command::ChangeRevert { change }).await.unwrap();
        let reseller = house.store.account_get(&ctx, t.reseller.id).await.unwrap().unwrap();
        assert_eq!(reseller.subscriber_count, 12);
    })
    .await;
}

#[tokio::test]
async fn a_page_of_an_export_says_each_thing_once() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let ctx = with_domain(&house, &t).await;
        let numbers = |n: u32| format!(",\"numbers\":[\"+4372010{n:04}\",\"+4372020{n:04}\"]");
        let file: String = (0..65).map(|n| subscriber_line("put", n, &numbers(n))).collect();
        house.sent(&ctx, &file).await;
        let exported = house.exported(&ctx).await;
        for line in exported.iter().map(Fields::to_json) {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert!(line["numbers"].as_array().is_none_or(|numbers| numbers.len() <= 2), "{line}");
        }
        let (job, results) = house.sent(&ctx, &json_lines(&exported)).await;
        assert_eq!((job.applied, job.refused), (0, 0), "{:?}", refusals(&results));
    })
    .await;
}

/// A customer whose number is the reseller's.
#[tokio::test]
async fn a_number_from_above_stays_where_it_is() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let t = house.tenant(1).await;
        let number = number_create(t.reseller.id, "+43720999999", Some(t.subscriber));
        house.done(&t.ctx, number).await;
        let below = house.world.ctx(Permissions::all(), t.customer.id, &t.customer.path);
        let ctx = house.token(&below).await;
        let (job, results) = house.sent(&ctx, &json_lines(&house.exported(&ctx).await)).await;
        assert_eq!((job.applied, job.refused), (0, 0), "{:?}", refusals(&results));
        let bare = "{\"kind\":\"subscriber\",\"domain\":\"c1.example\",\"username\":\"alice\",\"numbers\":[]}";
        let (job, results) = house.sent(&ctx, bare).await;
        assert_eq!((job.applied, job.refused), (1, 0), "{:?}", refusals(&results));
        assert_eq!(house.count("number WHERE subscriber_id IS NOT NULL").await, 1, "its own was freed");
    })
    .await;
}

#[tokio::test]
async fn a_damaged_row_holds_up_its_own_lines_alone() {
    on_each_database(async |db: TestDb| {
        let house = House::new(db).await;
        let (t, other) = (house.tenant(1).await, house.tenant(2).await);
        let (ctx, theirs) = (house.token(&t.ctx).await, house.token(&other.ctx).await);
        let damaged = house.db.write::<(), ChangeError, _>(|tx| {
            Box::pin(async move {
                let sql = "UPDATE account SET kind = 'damaged' WHERE name = 'Customer 1'";
                db::on_tx!(tx, c => db::sqlx::query(sql).execute(c).await.map(|_| ()))?;
                Ok(())
            })
        });
        damaged.await.unwrap();
        let line = |customer: u32, site: u32| {
            format!("{{\"kind\":\"site\",\"account\":\"Customer {customer}\",\"site\":\"{site}\"}}\n")
        };
        let file: String = (0..3).map(|site| line(1, site)).collect();
        let all = house.staged(&ctx, Format::JsonLines, &file).await;
        let each = house.staged(&ctx, Format::JsonLines, &file).await;
        let whole = house.staged(&theirs, Format::JsonLines, &line(2, 0)).await;
        house.start(&ctx, all.id, JobMode::AllOrNothing).await;
        house.start(&ctx, each.id, JobMode::PerLine).await;
        let (whole, _) = house.run(&theirs, whole.id, JobMode::PerLine).await;
        assert_eq!((whole.state, whole.applied), (JobState::Finished, 1), "others are not held up");
        let all = house.store.job_get(&ctx, all.id).await.unwrap().unwrap();
        assert_eq!(all.state, JobState::Stopped, "{all:?}");
        let each = house.store.job_get(&ctx, each.id).await.unwrap().unwrap();
        assert_eq!((each.state, each.refused), (JobState::Finished, 3), "{each:?}");
    })
    .await;
}

/// A job is cancelled and started in another way while a check of it is at work.
#[tokio::test]
async fn a_check_that_was_overtaken_leaves_nothing_behind() {
    on_each_database(async |db: TestDb| {
        let house = Arc::new(House::new(db).await);
        let t = house.tenant(1).await;
        let ctx = house.token(&t.ctx).await;
        for round in 0..5_u32 {
            let site = |n: u32| format!("{{\"kind\":\"site\",\"account\":\"Customer 1\",\"site\":\"{round} {n}\"}}\n");
            let file: String = (0..3_000).map(site).collect();
            let job = house.staged(&ctx, Format::JsonLines, &file).await;
            house.start(&ctx, job.id, JobMode::Check).await;
            let checking = Arc::clone(&house);
            let check = tokio::spawn(async move { checking.step().await });
            for _ in 0..round * 20 {
                tokio::task::yield_now().await;
            }
            drop(house.commit(&ctx, Command::BulkJobCancel { id: job.id }).await);
            house.start(&ctx, job.id, JobMode::PerLine).await;
            check.await.unwrap();
            while house.step().await == BulkStep::Worked {}
            let job = house.store.job_get(&ctx, job.id).await.unwrap().unwrap();
            assert_eq!((job.state, job.applied, job.refused), (JobState::Finished, 3_000, 0), "round {round}: {job:?}");
            let results = house.store.job_results(&ctx, job.id, 0, ALL).await.unwrap();
            assert!(results.iter().map(|result| result.line).eq(1..=3_000), "round {round}");
        }
    })
    .await;
}
