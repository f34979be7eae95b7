//! The contract of the store on both engines: counters, money, runs, mail.

mod counters;
mod mails;
mod renderings;
mod runs;
mod troubles;
mod uptime;

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use db::dialect::bulk_statement;
use db::journal::{Journal, JournalReader};
use db::{Db, WriteError, feed, on_db, on_tx};
use model::actor::Permissions;
use model::cause::ReleaseCause;
use model::change::{Change as _, ChangeError, CommitOptions, Committed};
use model::ctx::Ctx;
use model::event::fact::{
    Answered, Attempted, CallSetup, Ended, Fact, MediaStats, Party, ReleasedBy, SubscriberParty, TrunkParty,
};
use model::event::store::{Rated, StoreEvent};
use model::id::{AccountId, BatchId, CallId, DomainId, RunId, SubscriberId, TrunkId};
use model::tenancy::AccountPath;
use model::time::Timestamp;
use reports::command::Command;
use tempfile::TempDir;
use testkit::{TestDb, World, on_each_database, prepare_all};
use uuid::Uuid;

use crate::rows::{IntervalRow, RevenueRow};
use crate::{ReportsStore, availability, change, count, queries, revenue, schedule, snapshot, worker};

const NODE: &str = "node-1";

#[tokio::test]
async fn statements_prepare() {
    on_each_database(async |db: TestDb| {
        let statements = [
            availability::ALL,
            change::ALL,
            count::ALL,
            queries::ALL,
            revenue::ALL,
            schedule::ALL,
            snapshot::ALL,
            worker::ALL,
        ];
        prepare_all(&db, &[&statements.concat(), crate::troubles::ALL].concat()).await;
        let intervals = bulk_statement::<IntervalRow<'_>>(2, crate::rows::INTERVAL_CONFLICT);
        let money = bulk_statement::<RevenueRow>(2, crate::rows::REVENUE_CONFLICT);
        prepare_all(&db, &[&intervals, &money]).await;
    })
    .await;
}

/// Provider > two resellers; the first has two customers. One trunk of the provider.
struct Fixture {
    db: Db,
    world: World,
    dir: TempDir,
    journal: Journal,
    store: ReportsStore,
    provider: (AccountId, AccountPath),
    reseller: (AccountId, AccountPath),
    other_reseller: (AccountId, AccountPath),
    customers: [(AccountId, AccountPath); 2],
    trunk: TrunkId,
}

impl Fixture {
    async fn new(db: &TestDb) -> Self {
        let world = World::new();
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), world.clock.clone(), "0.1.0").unwrap();
        let db: Db = (**db).clone();
        let store = ReportsStore::new(db.clone(), world.clock.clone(), world.ids.clone(), dir.path().join("reports"));
        let id = || AccountId::new(&*world.ids);
        let root = id();
        let provider = (root, AccountPath::root(root));
        let below = |parent: &(AccountId, AccountPath)| {
            let child = id();
            (child, parent.1.child(child).unwrap())
        };
        let reseller = below(&provider);
        let other_reseller = below(&provider);
        let customers = [below(&reseller), below(&reseller)];
        let trunk = TrunkId::new(&*world.ids);
        let fixture = Self { db, world, dir, journal, store, provider, reseller, other_reseller, customers, trunk };
        let f = &fixture;
        f.account(&f.provider, None, "provider", "Provider").await;
        f.account(&f.reseller, Some(f.provider.0), "reseller", "North").await;
        f.account(&f.other_reseller, Some(f.provider.0), "reseller", "South").await;
        f.account(&f.customers[0], Some(f.reseller.0), "customer", "Harbour").await;
        f.account(&f.customers[1], Some(f.reseller.0), "customer", "=cmd|'/c calc'!A1").await;
        f.trunk().await;
        fixture
    }

    async fn account(&self, (id, path): &(AccountId, AccountPath), parent: Option<AccountId>, kind: &str, name: &str) {
        const SQL: &str = "INSERT INTO account (id, parent_id, path, kind, name, timezone, currency, enabled, version, \
            created_at, updated_at) VALUES ($1, $2, $3, $4, $5, 'Europe/Berlin', 'EUR', $6, 1, $7, $7)";
        let (id, parent) = (id.uuid(), parent.map(AccountId::uuid));
        let (path, kind, name) = (path.as_str().to_owned(), kind.to_owned(), name.to_owned());
        let since: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
        self.write(move |tx| {
            let (path, kind, name) = (path.clone(), kind.clone(), name.clone());
            Box::pin(async move {
                on_tx!(tx, c => sqlx::query(SQL).bind(id).bind(parent).bind(path).bind(kind).bind(name).bind(true)
                    .bind(since.0).execute(c).await.map(|_| ()))?;
                Ok(())
            })
        })
        .await;
    }

    async fn write(
        &self,
        work: impl for<'t> Fn(
            &'t mut db::Tx,
        )
            -> std::pin::Pin<Box<dyn Future<Output = Result<(), WriteError<ChangeError>>> + Send + 't>>
        + Send
        + Sync
        + 'static,
    ) {
        self.db.write(work).await.unwrap();
    }

    fn reader(&self) -> JournalReader {
        JournalReader::open(self.dir.path())
    }

    /// Journals the facts and waits until they are on the disk.
    fn journal(&self, facts: &[Fact]) {
        let (tell, told) = sync_channel(1);
        for (index, fact) in facts.iter().enumerate() {
            let tell = tell.clone();
            let notify: Option<db::journal::Notify> =
                (index + 1 == facts.len()).then(|| Box::new(move |done| tell.send(done).unwrap()) as _);
            self.journal.append(fact, notify).unwrap();
        }
        assert!(facts.is_empty() || told.recv().unwrap());
    }

    async fn count_all(&self) {
        while self.store.count(&self.reader(), NODE, 3).await.unwrap() > 0 {}
    }

    fn setup(&self, customer: usize, at: &str) -> CallSetup {
        let (account, path) = self.customers[customer].clone();
        CallSetup {
            call: CallId::new(&*self.world.ids),
            invited_at: at.parse().unwrap(),
            a: Party::Subscriber(SubscriberParty {
                subscriber: SubscriberId::new(&*self.world.ids),
                account,
                path,
                domain: DomainId::new(&*self.world.ids),
                domain_name: "alpha.example".parse().unwrap(),
                site: None,
                extension: None,
            }),
            b: Some(Party::Trunk(TrunkParty {
                trunk: self.trunk,
                account: self.provider.0,
                path: self.provider.1.clone(),
            })),
            dialled: "0301234567".to_owned(),
            called: None,
            calling: None,
            a_sip_call_id: "a".to_owned(),
            b_sip_call_id: None,
            tried: None,
        }
    }

    fn busy(&self, customer: usize, at: &str) -> Fact {
        let setup = self.setup(customer, at);
        let ended_at = setup.invited_at.plus_ms(500);
        Fact::Attempted(Attempted { setup, ended_at, status: 486, cause: ReleaseCause::UserBusy, pdd_ms: None })
    }

    /// The answer and the end of a call.
    fn call(&self, customer: usize, at: &str, duration_ms: i64) -> [Fact; 2] {
        let setup = self.setup(customer, at);
        let answered = Answered { answered_at: setup.invited_at.plus_ms(3_000), setup, pdd_ms: 800 };
        let media =
            MediaStats { packets_received: 99, packets_sent: 99, packets_lost: 1, octets_received: 0, quality: None };
        let ended = Ended {
            ended_at: answered.answered_at.plus_ms(duration_ms),
            answered: answered.clone(),
            duration_ms,
            cause: ReleaseCause::NormalClearing,
            released_by: ReleasedBy::Caller,
            estimated: false,
            a_media: Some(media),
            b_media: None,
        };
        [Fact::Answered(answered), Fact::Ended(ended)]
    }

    async fn trunk(&self) {
        const SQL: &str = "INSERT INTO trunk (id, account_id, name, address, priority, keepalive_ms, enabled, version, \
            created_at, updated_at) VALUES ($1, $2, 'Carrier', '192.0.2.1:5060', 1, 0, $3, 1, 0, 0)";
        let (trunk, account) = (self.trunk.uuid(), self.provider.0.uuid());
        self.write(move |tx| {
            Box::pin(async move {
                on_tx!(tx, c => sqlx::query(SQL).bind(trunk).bind(account).bind(true).execute(c).await.map(|_| ()))?;
                Ok(())
            })
        })
        .await;
    }

    /// A batch of rated rows as billing commits it: customer, side, amount, answer.
    async fn rate(&self, rows: &[(usize, &str, i64, &str)]) {
        const NEXT: &str = "UPDATE counter SET value = value + 1 WHERE name = 'rated' RETURNING value";
        const SQL: &str = "INSERT INTO rated (call_id, leg, part, account_id, side, version, sequence, batch_id, path, \
            tariff_id, tariff_version, prefix, billed_ms, currency, exact_numerator, exact_denominator, amount, \
            answered_at, rated_at) VALUES ($1, 0, 0, $2, $3, 1, $4, $5, $6, $7, 1, '49', 60000, 'EUR', 1, 1, $8, $9, 0)";
        let batch = BatchId::new(&*self.world.ids);
        let rows: Vec<(Uuid, Uuid, String, String, i64, Timestamp)> = rows
            .iter()
            .map(|(customer, side, amount, at)| {
                let (account, path) = &self.customers[*customer];
                let call = CallId::new(&*self.world.ids).uuid();
                (call, account.uuid(), path.as_str().to_owned(), (*side).to_owned(), *amount, at.parse().unwrap())
            })
            .collect();
        self.write(move |tx| {
            let rows = rows.clone();
            Box::pin(async move {
                let rated_count = i64::try_from(rows.len()).unwrap();
                for (call, account, path, side, amount, at) in rows {
                    let sequence: i64 = on_tx!(tx, c => sqlx::query_scalar(NEXT).fetch_one(c).await)?;
                    on_tx!(tx, c => sqlx::query(SQL).bind(call).bind(account).bind(side).bind(sequence)
                        .bind(batch.uuid()).bind(path).bind(call).bind(amount).bind(at.0)
                        .execute(c).await.map(|_| ()))?;
                }
                let rated = Rated { batch, usage_count: rated_count, rated_count, suspense_count: 0 };
                feed::append(tx, Timestamp(0), &StoreEvent::Rated(rated)).await?;
                Ok(())
            })
        })
        .await;
    }

    fn ctx(&self, account: &(AccountId, AccountPath)) -> Ctx {
        self.world.ctx(Permissions::all(), account.0, &account.1)
    }

    async fn request(
        &self,
        ctx: &Ctx,
        account: AccountId,
        period: &str,
        recipients: &[&str],
        options: CommitOptions,
    ) -> Result<Committed, ChangeError> {
        let recipients = recipients.iter().map(|r| (*r).to_owned()).collect();
        self.store.commit(ctx, Command::ReportRun { account, period: period.to_owned(), recipients }, options).await
    }

    /// A run of the first reseller by itself.
    async fn requested(&self, period: &str, recipients: &[&str]) -> RunId {
        let ctx = self.ctx(&self.reseller);
        let done = self.request(&ctx, self.reseller.0, period, recipients, CommitOptions::default()).await.unwrap();
        run_of(&done)
    }

    async fn scalar(&self, sql: &'static str) -> i64 {
        on_db!(&self.db, c => sqlx::query_scalar(sql).fetch_one(c).await).unwrap()
    }

    /// The figures of the newest finished run.
    async fn figures(&self) -> serde_json::Value {
        let sql = "SELECT figures FROM report_run WHERE figures IS NOT NULL ORDER BY id DESC LIMIT 1";
        let text: String = on_db!(&self.db, c => sqlx::query_scalar(sql).fetch_one(c).await).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn set(&self, at: &str) {
        self.world.clock.set_utc(at.parse().unwrap());
    }

    /// A second node on the same store, with files of its own.
    fn other_node(&self) -> ReportsStore {
        let dir = self.dir.path().join("other");
        ReportsStore::new(self.db.clone(), self.world.clock.clone(), Arc::clone(&self.world.ids) as _, dir)
    }
}

fn run_of(committed: &Committed) -> RunId {
    RunId::from_uuid(committed.plan.effects[0].resource.id)
}
