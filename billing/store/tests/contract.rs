//! Billing on both engines: from journal records to files that prove themselves.

#[cfg(test)]
mod contract {
    use std::path::PathBuf;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use billing::command::Command;
    use billing::file::{Manifest, manifest_name};
    use billing::port::Queries as _;
    use billing::resource::{AssignmentTarget, BillingFile, Rate, Side, UsageMedia, UsageState};
    use db::journal::{Journal, JournalOptions, JournalReader};
    use db::{Db, on_db, on_tx};
    use model::actor::Permissions;
    use model::cause::ReleaseCause;
    use model::change::{Change as _, ChangeError, CommitOptions, IdempotencyKey, RefusalCode};
    use model::ctx::Ctx;
    use model::event::fact::{
        AnswerAborted, Answered, CallSetup, Codec, Ended, Fact, MediaQuality, MediaStats, Party, ReleasedBy,
        SubscriberParty, TrunkParty,
    };
    use model::event::store::StoreEvent;
    use model::id::{AccountId, CallId, DomainId, FileId, InstallationId, StreamId, SubscriberId, TariffId, TrunkId};
    use model::money::{Rounding, RoundingMode};
    use model::page::{PageRequest, ReadError};
    use model::tenancy::AccountPath;
    use model::time::{Clock as _, Timestamp};
    use sha2::{Digest as _, Sha256};
    use sqlx::Connection as _;
    use tandem_billing_store::{
        BillingStore, ConsumeError, EXPORT_FAILING_MS, EXPORT_LATE_MS, Progress, Unrated, UnratedLimits, VerifyFinding,
    };
    use testkit::{TestDb, World, on_each_database};

    const BOUND: Duration = Duration::from_secs(20);
    const NODE: &str = "n1";

    #[derive(Clone)]
    struct Account {
        id: AccountId,
        path: AccountPath,
    }

    /// Media with every figure of its quality, no two alike.
    fn media() -> MediaStats {
        let quality = MediaQuality {
            codec: Codec::G729,
            packets_duplicate: 2,
            packets_late: 3,
            loss_run_max: 4,
            jitter_us: 5,
            jitter_max_us: 6,
            round_trip_us: Some(7),
            mos: Some(398),
            reported_lost: Some(9),
            reported_jitter_us: None,
            reported_mos: Some(401),
        };
        MediaStats {
            packets_received: 3_000,
            packets_sent: 2_999,
            packets_lost: 1,
            octets_received: 60_000,
            quality: Some(quality),
        }
    }

    struct Fixture {
        db: Db,
        world: World,
        store: BillingStore,
        dir: tempfile::TempDir,
        journal: Option<Journal>,
        installation: InstallationId,
        provider: Account,
        resellers: [Account; 2],
        customers: [Account; 2],
        trunk: TrunkId,
    }

    fn number(text: &str) -> Option<model::number::E164> {
        Some(text.parse().unwrap())
    }

    impl Fixture {
        /// A provider with a trunk, two resellers, a customer of each.
        async fn new(db: &Db) -> Self {
            let world = World::new();
            let dir = tempfile::tempdir().unwrap();
            let account = |parent: Option<&AccountPath>| {
                let id = AccountId::new(&*world.ids);
                Account { id, path: parent.map_or_else(|| AccountPath::root(id), |p| p.child(id).unwrap()) }
            };
            let provider = account(None);
            let resellers = [account(Some(&provider.path)), account(Some(&provider.path))];
            let customers = [account(Some(&resellers[0].path)), account(Some(&resellers[1].path))];
            let trunk = TrunkId::new(&*world.ids);
            let rows = [
                (provider.clone(), None, "provider"),
                (resellers[0].clone(), Some(provider.id), "reseller"),
                (resellers[1].clone(), Some(provider.id), "reseller"),
                (customers[0].clone(), Some(resellers[0].id), "customer"),
                (customers[1].clone(), Some(resellers[1].id), "customer"),
            ];
            let owner = provider.id;
            let seeded = db.write::<(), ChangeError, _>(move |tx| {
                let rows = rows.clone();
                Box::pin(async move {
                    for (index, (account, parent, kind)) in rows.iter().enumerate() {
                        on_tx!(&mut *tx, c => sqlx::query("INSERT INTO account (id, parent_id, path, kind, name, \
                            timezone, currency, enabled, version, created_at, updated_at) \
                            VALUES ($1, $2, $3, $4, $5, 'UTC', 'EUR', $6, 1, 0, 0)")
                            .bind(account.id.uuid()).bind(parent.map(AccountId::uuid)).bind(account.path.as_str())
                            .bind(*kind).bind(format!("Account {index}")).bind(true).execute(c).await.map(|_| ()))?;
                    }
                    on_tx!(tx, c => sqlx::query("INSERT INTO trunk (id, account_id, name, address, priority, \
                        keepalive_ms, enabled, version, created_at, updated_at) \
                        VALUES ($1, $2, 'Carrier', '192.0.2.1:5060', 1, 0, $3, 1, 0, 0)")
                        .bind(trunk.uuid()).bind(owner.uuid()).bind(true).execute(c).await.map(|_| ()))?;
                    Ok(())
                })
            });
            assert!(seeded.await.is_ok());
            let installation = InstallationId::new(&*world.ids);
            let store = BillingStore::new(
                db.clone(),
                dir.path().join("billing"),
                installation,
                world.clock.clone(),
                world.ids.clone(),
            );
            let options = JournalOptions { ballast_bytes: 0, ..JournalOptions::default() };
            let (journal, _) = Journal::open_with(dir.path(), world.clock.clone(), "test", options).unwrap();
            let journal = Some(journal);
            Self { db: db.clone(), world, store, dir, journal, installation, provider, resellers, customers, trunk }
        }

        fn reader(&self) -> JournalReader {
            JournalReader::open(self.dir.path())
        }

        /// Another process over the same store and folder.
        fn second_store(&self) -> BillingStore {
            let (clock, ids) = (self.world.clock.clone(), self.world.ids.clone());
            BillingStore::new(self.db.clone(), self.dir.path().join("billing"), self.installation, clock, ids)
        }

        fn write(&self, facts: &[Fact]) {
            let journal = self.journal.as_ref().unwrap();
            for (index, fact) in facts.iter().enumerate() {
                // The journal writes in order: who waits for the last waits for all, and in between keeps the queue short.
                let wait = index + 1 == facts.len() || index % 200 == 199;
                let (tell, told) = sync_channel(1);
                let notify: Option<db::journal::Notify> =
                    wait.then(|| Box::new(move |durable: bool| tell.send(durable).unwrap()) as db::journal::Notify);
                journal.append(fact, notify).unwrap();
                if wait {
                    assert!(told.recv_timeout(BOUND).unwrap());
                }
            }
        }

        async fn consume(&self) -> Progress {
            self.store.consume(&self.reader(), NODE, 10_000).await.unwrap()
        }

        fn subscriber(&self, customer: usize) -> Party {
            let Account { id, path } = self.customers[customer].clone();
            Party::Subscriber(SubscriberParty {
                subscriber: SubscriberId::new(&*self.world.ids),
                account: id,
                path,
                domain: DomainId::new(&*self.world.ids),
                domain_name: "a.example".parse().unwrap(),
                site: None,
                extension: Some("100".to_owned()),
            })
        }

        fn over_trunk(&self) -> Party {
            let Account { id, path } = self.provider.clone();
            Party::Trunk(TrunkParty { trunk: self.trunk, account: id, path })
        }

        fn ended(&self, a: Party, b: Party, called: Option<&str>, duration_ms: i64) -> Ended {
            let answered_at = self.world.clock.now().utc;
            let setup = CallSetup {
                call: CallId::new(&*self.world.ids),
                invited_at: answered_at.plus_ms(-2_000),
                a,
                b: Some(b),
                dialled: called.unwrap_or("=100").to_owned(),
                called: called.and_then(number),
                calling: number("+43720000001"),
                a_sip_call_id: "a".to_owned(),
                b_sip_call_id: Some("b".to_owned()),
                tried: None,
            };
            Ended {
                answered: Answered { setup, answered_at, pdd_ms: 500 },
                ended_at: answered_at.plus_ms(duration_ms),
                duration_ms,
                cause: ReleaseCause::NormalClearing,
                released_by: ReleasedBy::Caller,
                estimated: false,
                a_media: Some(media()),
                b_media: Some(MediaStats { quality: None, packets_received: 0, ..media() }),
            }
        }

        /// A call of a customer over the trunk.
        fn outgoing(&self, customer: usize, duration_ms: i64) -> Fact {
            Fact::Ended(self.ended(self.subscriber(customer), self.over_trunk(), Some("+43720123456"), duration_ms))
        }

        fn system(&self) -> Ctx {
            self.world.system()
        }

        fn of(&self, account: &Account) -> Ctx {
            self.world.ctx(Permissions::all(), account.id, &account.path)
        }

        async fn commit(&self, ctx: &Ctx, command: Command) -> Result<uuid::Uuid, ChangeError> {
            let committed = self.store.commit(ctx, command, CommitOptions::default()).await?;
            Ok(committed.plan.effects[0].resource.id)
        }

        async fn tariff(&self, name: &str, fee: &str, price: &str) -> TariffId {
            let rate = |prefix: &str, fee: &str, price: &str| Rate {
                prefix: prefix.to_owned(),
                description: "Somewhere".to_owned(),
                connect_fee: fee.parse().unwrap(),
                price: price.parse().unwrap(),
                per_ms: 60_000,
                initial_ms: 1_000,
                increment_ms: 1_000,
            };
            let command = Command::TariffCreate {
                account: self.provider.id,
                name: name.to_owned(),
                currency: "EUR".parse().unwrap(),
                rounding: Rounding { mode: RoundingMode::HalfUp, decimals: 4 },
                rates: vec![rate("43", fee, price), rate("onnet", "0", "0")],
            };
            TariffId::from_uuid(self.commit(&self.system(), command).await.unwrap())
        }

        async fn assign(&self, tariff: TariffId, target: AssignmentTarget) {
            let command = Command::TariffAssign { tariff, target, valid_from: Timestamp(0), valid_to: None };
            self.commit(&self.system(), command).await.unwrap();
        }

        /// All customers pay 0.05 and 0.06 a minute; the carrier takes 0.03.
        async fn price(&self) {
            let sell = self.tariff("Retail", "0.05", "0.06").await;
            self.assign(sell, AssignmentTarget::Account(self.provider.id)).await;
            let buy = self.tariff("Carrier", "0", "0.03").await;
            self.assign(buy, AssignmentTarget::Trunk(self.trunk)).await;
        }

        async fn stream(&self, account: &Account, name: &str, side: Side, close_period_ms: i64) -> StreamId {
            let (account, name) = (account.id, name.to_owned());
            let command = Command::StreamCreate { account, name, side, close_period_ms };
            StreamId::from_uuid(self.commit(&self.system(), command).await.unwrap())
        }

        async fn close(&self, stream: StreamId) -> FileId {
            FileId::from_uuid(self.commit(&self.system(), Command::FileClose { stream }).await.unwrap())
        }

        async fn file(&self, id: FileId) -> BillingFile {
            self.store.file_get(&self.system(), id).await.unwrap().unwrap()
        }

        fn path(&self, file: &BillingFile, name: &str) -> PathBuf {
            self.dir.path().join("billing").join(file.stream.to_string()).join(name)
        }

        async fn count(&self, table: &str) -> i64 {
            let sql = format!("SELECT COUNT(*) FROM {table}");
            on_db!(&self.db, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(c).await).unwrap()
        }

        async fn execute(&self, sql: &'static str) {
            let done = self.db.write::<(), ChangeError, _>(move |tx| {
                Box::pin(async move {
                    on_tx!(tx, c => sqlx::query(sql).execute(c).await.map(|_| ()))?;
                    Ok(())
                })
            });
            assert!(done.await.is_ok());
        }

        async fn assert_sound(&self) {
            let report = self.store.reconcile(&self.system()).await.unwrap();
            assert!(report.is_clean(), "{report:#?}");
        }

        /// Usage, charges and postings without what each run draws anew.
        async fn effects(&self) -> Vec<String> {
            let ctx = self.system();
            let mut lines = Vec::new();
            for (_, usage) in self.store.usage_list(&ctx, None, PageRequest::default()).await.unwrap().items {
                lines.push(format!("{usage:?}"));
            }
            for (_, mut rated) in self.store.rated_list(&ctx, None, PageRequest::default()).await.unwrap().items {
                rated.batch = model::id::BatchId::from_uuid(uuid::Uuid::nil());
                lines.push(format!("{rated:?}"));
            }
            for (_, balance) in self.store.ledger_balance_list(&ctx, None, PageRequest::default()).await.unwrap().items
            {
                lines.push(format!("{balance:?}"));
            }
            lines
        }
    }

    fn code<T: std::fmt::Debug>(result: Result<T, ChangeError>) -> RefusalCode {
        match result {
            Err(ChangeError::Refused(refusals)) => refusals[0].code,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_batch_becomes_usage_and_money() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.price().await;
            let Fact::Ended(call) = f.outgoing(0, 60_000) else { unreachable!() };
            let aborted = AnswerAborted {
                setup: CallSetup { call: CallId::new(&*f.world.ids), ..call.answered.setup.clone() },
                answered_at: call.answered.answered_at,
                ended_at: call.ended_at,
                duration_ms: 1_000,
                status: 487,
                cause: ReleaseCause::CancelledRinging,
                pdd_ms: 500,
                after_answered: false,
            };
            let on_net = f.ended(f.subscriber(0), f.subscriber(0), None, 5_000);
            let incoming = f.ended(f.over_trunk(), f.subscriber(1), Some("+43720000002"), 5_000);
            f.write(&[
                Fact::Answered(call.answered.clone()),
                Fact::Ended(call.clone()),
                Fact::AnswerAborted(aborted.clone()),
                Fact::Ended(on_net),
                Fact::Ended(incoming),
            ]);
            let progress = f.consume().await;
            // The first record of the journal is its own.
            assert_eq!((progress.records, progress.usage, progress.rated, progress.suspended), (6, 8, 4, 0));
            assert_eq!(f.consume().await, Progress { position: progress.position, ..Progress::default() });
            let ctx = f.system();
            let usage = f.store.usage_get(&ctx, call.answered.setup.call).await.unwrap();
            let states: Vec<UsageState> = usage.iter().map(|u| u.state).collect();
            assert_eq!(states, [UsageState::Rated, UsageState::Rated]);
            assert_eq!((usage[0].answered_at, usage[0].duration_ms), (call.answered.answered_at, 60_000));
            assert_eq!(usage[0].media, call.a_media.map(UsageMedia::from), "every figure comes back");
            assert_eq!(usage[1].media, call.b_media.map(UsageMedia::from));
            let states: Vec<(bool, UsageState)> = f
                .store
                .usage_get(&ctx, aborted.setup.call)
                .await
                .unwrap()
                .iter()
                .map(|u| (u.aborted, u.state))
                .collect();
            assert_eq!(states, [(true, UsageState::Uncharged), (true, UsageState::Rated)]);
            let rated = f.store.rated_list(&ctx, None, PageRequest::default()).await.unwrap();
            let amounts: Vec<(Side, String, String)> =
                rated.items.iter().map(|(_, r)| (r.side, r.prefix.clone(), r.amount.to_string())).collect();
            let row = |side, prefix: &str, amount: &str| (side, prefix.to_owned(), amount.to_owned());
            let expected = [
                row(Side::Buy, "43", "0.03"),
                row(Side::Buy, "43", "0.0005"),
                row(Side::Sell, "43", "0.11"),
                row(Side::Sell, "onnet", "0.00"),
            ];
            assert_eq!(amounts, expected);
            let mut numbers: Vec<i64> = rated.items.iter().map(|(_, r)| r.sequence).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, [1, 2, 3, 4]);
            let balances = f.store.ledger_balance_list(&ctx, None, PageRequest::default()).await.unwrap().items;
            let mut books: Vec<(String, String)> = balances.into_iter().map(|(_, b)| (b.book, b.amount)).collect();
            books.sort();
            let book = |book: &str, amount: &str| (book.to_owned(), amount.to_owned());
            let expected = [
                book("cost", "0.0305"),
                book("payable", "-0.0305"),
                book("receivable", "0.11"),
                book("revenue", "-0.11"),
            ];
            assert_eq!(books, expected);
            let events = db::feed::read_after(&db, 0, 100).await.unwrap();
            let last = &events.last().unwrap().event;
            let StoreEvent::Rated(event) = last else { panic!("{last:?}") };
            assert_eq!((event.usage_count, event.rated_count, event.suspense_count), (8, 4, 0));
            f.assert_sound().await;
        })
        .await;
    }

    #[tokio::test]
    async fn the_same_record_is_ignored_and_another_one_is_kept_aside() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.price().await;
            let first = f.outgoing(0, 60_000);
            let Fact::Ended(mut other) = first.clone() else { unreachable!() };
            other.duration_ms = 61_000;
            f.write(&[first.clone(), first.clone()]);
            let progress = f.consume().await;
            assert_eq!((progress.usage, progress.duplicates, progress.conflicts), (2, 2, 0));
            let before = f.effects().await;
            f.write(&[first, Fact::Ended(other)]);
            let progress = f.consume().await;
            assert_eq!((progress.usage, progress.duplicates, progress.conflicts), (0, 2, 2));
            assert_eq!(f.effects().await, before);
            assert_eq!(f.count("conflict").await, 2);
            f.assert_sound().await;
        })
        .await;
    }

    #[tokio::test]
    async fn a_replay_of_the_journal_gives_the_same() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.price().await;
            let calls: Vec<Fact> = (0..30).map(|n| f.outgoing(n % 2, 1_000 * i64::try_from(n).unwrap())).collect();
            f.write(&calls);
            // In batches of seven, as with a crash after each.
            while f.store.consume(&f.reader(), NODE, 7).await.unwrap().records > 0 {}
            let before = f.effects().await;
            assert_eq!(f.count("usage").await, 60);
            // Only the cursor is lost, as in a store that was restored: nothing is billed twice.
            f.execute("DELETE FROM consumer_cursor").await;
            let progress = f.consume().await;
            assert_eq!((progress.usage, progress.duplicates), (0, 60));
            assert_eq!(f.effects().await, before);
            // All effects are lost: they come again, to the cent.
            for table in [
                "DELETE FROM consumer_cursor",
                "DELETE FROM usage",
                "DELETE FROM rated",
                "DELETE FROM ledger",
                "UPDATE counter SET value = 0 WHERE name = 'rated'",
            ] {
                f.execute(table).await;
            }
            while f.store.consume(&f.reader(), NODE, 11).await.unwrap().records > 0 {}
            assert_eq!(f.effects().await, before);
            f.assert_sound().await;
        })
        .await;
    }

    #[tokio::test]
    async fn an_unknown_record_stops_the_consumer_before_it() {
        on_each_database(async |db: TestDb| {
            let mut f = Fixture::new(&db).await;
            f.price().await;
            f.write(&[f.outgoing(0, 60_000)]);
            f.journal.take().unwrap().close();
            let mut entries = std::fs::read_dir(f.dir.path().join("journal")).unwrap().map(|e| e.unwrap().path());
            let path = entries.find(|path| path.extension().is_some_and(|e| e == "journal")).unwrap();
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let mut file = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
            let newer = "INSERT INTO record (seq, at, kind, body) VALUES (3, 0, 'adopted', X'8218638100')";
            sqlx::query(newer).execute(&mut file).await.unwrap();
            file.close().await.unwrap();
            // What came before it is billed; then it stands, and nothing is skipped.
            assert_eq!(f.consume().await.usage, 2);
            for _ in 0..2 {
                let error = f.store.consume(&f.reader(), NODE, 10).await.unwrap_err();
                assert!(error.is_unknown_record() && !error.is_transient(), "{error:?}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn two_workers_bill_once() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.price().await;
            f.write(&(0..50).map(|_| f.outgoing(0, 60_000)).collect::<Vec<_>>());
            let other = f.second_store();
            loop {
                let readers = (f.reader(), f.reader());
                let (a, b) = tokio::join!(f.store.consume(&readers.0, NODE, 10), other.consume(&readers.1, NODE, 10));
                for result in [&a, &b] {
                    assert!(result.as_ref().err().is_none_or(ConsumeError::is_transient), "{result:?}");
                }
                if a.is_ok_and(|p| p.records == 0) {
                    break;
                }
            }
            assert_eq!((f.count("usage").await, f.count("rated").await), (100, 100));
            f.assert_sound().await;
        })
        .await;
    }

    #[tokio::test]
    async fn what_has_no_price_waits_until_it_has_one() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.write(&[f.outgoing(0, 60_000), f.outgoing(1, 60_000), f.outgoing(0, -1)]);
            let progress = f.consume().await;
            assert_eq!((progress.usage, progress.rated, progress.suspended), (6, 0, 3));
            f.assert_sound().await;
            let [own, other] = [f.of(&f.resellers[0]), f.of(&f.resellers[1])];
            let waiting = f.store.suspense_list(&own, None, PageRequest::default()).await.unwrap().items;
            let codes: Vec<&str> = waiting.iter().map(|(_, s)| &*s.code).collect();
            assert_eq!(codes, ["no_tariff", "invalid_usage"]);
            f.price().await;
            // A dry-run says what would happen and does nothing.
            let retry = || Command::SuspenseRetry { account: f.resellers[0].id };
            let plan = f.store.plan(&own, &retry()).await.unwrap();
            assert_eq!(plan.effects[0].after.as_ref().unwrap()["rated"], 1);
            assert_eq!(f.count("rated").await, 0);
            assert_eq!(code(f.commit(&other, retry()).await), RefusalCode::NotFound);
            f.commit(&own, retry()).await.unwrap();
            let waiting = f.store.suspense_list(&own, None, PageRequest::default()).await.unwrap().items;
            assert_eq!(waiting.len(), 1);
            assert_eq!((&*waiting[0].1.code, waiting[0].1.attempts), ("invalid_usage", 2));
            assert_eq!(f.store.suspense_list(&other, None, PageRequest::default()).await.unwrap().items.len(), 1);
            let rated = f.store.rated_list(&own, None, PageRequest::default()).await.unwrap().items;
            assert_eq!((rated.len(), rated[0].1.amount.to_string()), (1, "0.11".to_owned()));
            // Again: nothing new.
            f.commit(&own, retry()).await.unwrap();
            assert_eq!(f.count("rated").await, 1);
            f.assert_sound().await;
        })
        .await;
    }

    #[tokio::test]
    async fn a_closed_file_is_published_once_and_proves_itself() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.price().await;
            let stream = f.stream(&f.resellers[0], "retail-eur", Side::Sell, 0).await;
            f.write(&[f.outgoing(0, 60_000), f.outgoing(1, 60_000), f.outgoing(0, 1_000)]);
            f.consume().await;
            let dry = f.store.plan(&f.system(), &Command::FileClose { stream }).await.unwrap();
            assert_eq!(dry.effects[0].after.as_ref().unwrap()["record_count"], 2);
            let first = f.close(stream).await;
            let file = f.file(first).await;
            assert!(!file.published);
            assert_eq!((&*file.name, file.record_count, file.sequence), ("retail-eur_0000000001.csv", 2, 1));
            assert_eq!(f.store.file_read(&f.system(), first, 0, 10).await.unwrap(), None);
            // Closed, not published: a file that follows waits its turn, in the same round.
            f.write(&[f.outgoing(0, 120_000)]);
            f.consume().await;
            let second = f.close(stream).await;
            let empty = f.close(stream).await;
            assert_eq!(f.store.publish_planned().await.unwrap(), [first, second, empty]);
            assert_eq!(f.store.publish_planned().await.unwrap(), []);
            let mut previous = None;
            for (id, records, amount) in [(first, 2, Some("0.161")), (second, 1, Some("0.17")), (empty, 0, None)] {
                let file = f.file(id).await;
                let size = usize::try_from(file.size.unwrap()).unwrap();
                let bytes = f.store.file_read(&f.system(), id, 0, size + 100).await.unwrap().unwrap();
                assert_eq!(bytes, std::fs::read(f.path(&file, &file.name)).unwrap());
                assert_eq!(file.sha256, Some(hex::encode(Sha256::digest(&bytes))));
                assert_eq!(file.previous_sha256, previous);
                previous.clone_from(&file.sha256);
                let manifest = f.store.manifest_read(&f.system(), id).await.unwrap().unwrap();
                let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
                assert_eq!((manifest.record_count, manifest.sequence), (records, file.sequence));
                assert_eq!((Some(manifest.sha256), manifest.previous_sha256), (file.sha256, file.previous_sha256));
                assert_eq!(manifest.totals.first().map(|t| &*t.amount), amount);
                let middle = f.store.file_read(&f.system(), id, 3, 7).await.unwrap().unwrap();
                assert_eq!(middle, bytes[3..10]);
                let mut lines = csv::Reader::from_reader(&bytes[..]);
                assert_eq!(i64::try_from(lines.records().count()).unwrap(), records);
            }
            let report = f.store.verify(&f.system(), stream).await.unwrap().unwrap();
            assert!(report.is_clean(), "{report:?}");
            assert_eq!((report.files, report.records), (3, 3));
            f.assert_sound().await;
            // The BSS has the last word.
            let say =
                |accepted, reason: &str| Command::FileAcknowledge { file: first, accepted, reason: reason.to_owned() };
            f.commit(&f.of(&f.resellers[0]), say(false, "record 2")).await.unwrap();
            f.commit(&f.of(&f.resellers[0]), say(true, "")).await.unwrap();
            let said = f.file(first).await.acknowledgement.unwrap();
            assert_eq!((said.accepted, &*said.by), (true, "test"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_crash_between_plan_and_publication_changes_no_byte() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.price().await;
            let stream = f.stream(&f.provider, "all", Side::Sell, 0).await;
            f.write(&(0..20).map(|n| f.outgoing(n % 2, 60_000)).collect::<Vec<_>>());
            f.consume().await;
            let id = f.close(stream).await;
            let file = f.file(id).await;
            // A publisher died in the middle: a part, and bytes under the final name that nobody vouches for.
            let folder = f.path(&file, "x").parent().unwrap().to_owned();
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("{}.dead.part", file.name)), "half").unwrap();
            std::fs::write(folder.join(&file.name), "half").unwrap();
            // More calls come before the restart: they are not in the file.
            f.write(&[f.outgoing(0, 60_000)]);
            f.consume().await;
            let other = f.second_store();
            let (a, b) = tokio::join!(f.store.publish_planned(), other.publish_planned());
            assert_eq!([a.unwrap(), b.unwrap()].concat(), [id]);
            let file = f.file(id).await;
            let bytes = std::fs::read(f.path(&file, &file.name)).unwrap();
            assert_eq!((file.record_count, file.sha256.clone()), (20, Some(hex::encode(Sha256::digest(&bytes)))));
            let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert!(!left.iter().any(|name| name.to_string_lossy().contains(".dead.")), "{left:?}");
            // The process died before it marked the file: redone, the bytes are the same.
            f.execute("UPDATE billing_file SET state = 'planned', size = NULL, sha256 = NULL").await;
            f.world.clock.advance_ms(5_000);
            assert_eq!(f.second_store().publish_planned().await.unwrap(), [id]);
            assert_eq!(std::fs::read(f.path(&file, &file.name)).unwrap(), bytes);
            assert_eq!(f.file(id).await.sha256, file.sha256);
            f.assert_sound().await;
        })
        .await;
    }

    #[tokio::test]
    async fn damage_is_found_and_mended_only_with_the_same_bytes() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.price().await;
            let stream = f.stream(&f.provider, "all", Side::Sell, 0).await;
            f.write(&[f.outgoing(0, 60_000)]);
            f.consume().await;
            let id = f.close(stream).await;
            f.store.publish_planned().await.unwrap();
            let file = f.file(id).await;
            let path = f.path(&file, &file.name);
            let bytes = std::fs::read(&path).unwrap();
            // Changed in place: found, and mended on request.
            let mut changed = bytes.clone();
            *changed.last_mut().unwrap() = b'!';
            std::fs::write(&path, &changed).unwrap();
            let report = f.store.verify(&f.system(), stream).await.unwrap().unwrap();
            assert!(matches!(&report.findings[..], [VerifyFinding::Disk { name, .. }] if *name == file.name));
            f.store.restore(id).await.unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            // Gone: whoever reads gets the same bytes.
            std::fs::remove_file(&path).unwrap();
            std::fs::remove_file(f.path(&file, &manifest_name(&file.name))).unwrap();
            let read = f.store.file_read(&f.system(), id, 0, bytes.len()).await.unwrap().unwrap();
            assert_eq!(read, bytes);
            assert!(f.store.verify(&f.system(), stream).await.unwrap().unwrap().is_clean());
            // The rows were changed: nothing is written over the evidence.
            f.execute("UPDATE usage SET dialled = 'forged'").await;
            std::fs::remove_file(&path).unwrap();
            assert!(f.store.restore(id).await.unwrap_err().to_string().contains("differs"));
            assert!(matches!(f.store.file_read(&f.system(), id, 0, 10).await, Err(ReadError::Internal(_))));
            assert!(!path.exists());
            let report = f.store.verify(&f.system(), stream).await.unwrap().unwrap();
            assert!(matches!(&report.findings[..], [VerifyFinding::Rendering { .. }]), "{report:?}");
            // A charge was changed: the sums no longer hold.
            f.execute("UPDATE rated SET amount = amount + 1 WHERE side = 'sell'").await;
            assert!(!f.store.reconcile(&f.system()).await.unwrap().is_clean());
        })
        .await;
    }

    #[tokio::test]
    async fn a_period_closes_its_file_once() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.price().await;
            let hourly = f.stream(&f.provider, "hourly", Side::Buy, 3_600_000).await;
            f.stream(&f.provider, "manual", Side::Buy, 0).await;
            f.write(&[f.outgoing(0, 60_000)]);
            f.consume().await;
            assert_eq!(f.store.close_due(&f.system()).await.unwrap(), []);
            f.world.clock.advance_ms(3_600_000);
            let (other, first, second) = (f.second_store(), f.system(), f.system());
            let (a, b) = tokio::join!(f.store.close_due(&first), other.close_due(&second));
            let closed = [a.unwrap(), b.unwrap()].concat();
            assert_eq!(closed.len(), 1);
            let file = f.file(closed[0]).await;
            assert_eq!((file.stream, file.record_count, &*file.closure_reason), (hourly, 1, "period"));
            f.world.clock.advance_ms(3_599_999);
            assert_eq!(f.store.close_due(&f.system()).await.unwrap(), []);
            f.world.clock.advance_ms(1);
            let closed = f.store.close_due(&f.system()).await.unwrap();
            assert_eq!(f.file(closed[0]).await.record_count, 0);
        })
        .await;
    }

    #[tokio::test]
    async fn charges_that_wait_too_long_or_are_too_many_are_a_trouble_of_their_account() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            let begin = f.world.clock.now().utc;
            let hour = 3_600_000;
            let unrated = async |age_max_ms, records_max| {
                f.store.unrated(UnratedLimits { age_max_ms, records_max }).await.unwrap()
            };
            f.write(&[f.outgoing(0, 60_000), f.outgoing(0, -1)]);
            f.consume().await;
            f.world.clock.advance_ms(1_000);
            f.write(&[f.outgoing(1, 60_000)]);
            f.consume().await;
            let of = |account: &Account, records, oldest, code: &str| Unrated {
                account: account.id,
                path: account.path.clone(),
                records,
                oldest,
                code: code.to_owned(),
            };
            let first = of(&f.customers[0], 2, begin, "no_tariff");
            let second = of(&f.customers[1], 1, begin.plus_ms(1_000), "no_tariff");
            assert_eq!(unrated(hour, 2).await, []);
            // One more than may wait, of one account and not of all together.
            assert_eq!(unrated(hour, 1).await, std::slice::from_ref(&first));
            assert_eq!(unrated(hour, 0).await, [first.clone(), second.clone()]);
            // The age is over when more than it has passed.
            f.world.clock.set_utc(begin.plus_ms(hour));
            assert_eq!(unrated(hour, 2).await, []);
            f.world.clock.set_utc(begin.plus_ms(hour + 1));
            assert_eq!(unrated(hour, 2).await, [first]);
            f.world.clock.set_utc(begin.plus_ms(hour + 1_001));
            assert_eq!(unrated(hour, 2).await.len(), 2);
            // What a retry rates is none any more; what it does not rate has the new reason and the old age.
            f.price().await;
            f.commit(&f.system(), Command::SuspenseRetry { account: f.provider.id }).await.unwrap();
            assert_eq!(unrated(hour, 2).await, [of(&f.customers[0], 1, begin, "invalid_usage")]);
        })
        .await;
    }

    #[tokio::test]
    async fn charges_that_wait_longest_come_first() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            for customer in [1, 0] {
                f.write(&[f.outgoing(customer, 60_000)]);
                f.consume().await;
                f.world.clock.advance_ms(1_000);
            }
            let unrated = f.store.unrated(UnratedLimits { age_max_ms: 3_600_000, records_max: 0 }).await.unwrap();
            let accounts: Vec<_> = unrated.into_iter().map(|unrated| unrated.account).collect();
            assert_eq!(accounts, [f.customers[1].id, f.customers[0].id]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_closed_file_that_cannot_be_written_is_a_trouble_until_it_is() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            let stream = f.stream(&f.resellers[0], "retail", Side::Sell, 0).await;
            let other = f.stream(&f.resellers[1], "other", Side::Sell, 0).await;
            // A file stands where the folder of one stream should be.
            let files = f.dir.path().join("billing");
            std::fs::create_dir_all(&files).unwrap();
            std::fs::write(files.join(stream.to_string()), "").unwrap();
            let first = f.close(stream).await;
            f.close(stream).await;
            f.close(other).await;
            let failures = async |store: &BillingStore| store.export_failures().await.unwrap();
            assert!(f.store.publish_planned().await.is_err());
            assert_eq!(failures(&f.store).await, [], "it may be over in a moment");
            f.world.clock.advance_ms(u32::try_from(EXPORT_FAILING_MS).unwrap());
            assert!(f.store.publish_planned().await.is_err());
            let [failure] = failures(&f.store).await.try_into().unwrap();
            assert_eq!((failure.stream, &failure.path), (stream, &f.resellers[0].path));
            for part in ["retail_0000000001.csv", "stream retail", "and 1 after it", "directory"] {
                assert!(failure.text.contains(part), "{part}: {}", failure.text);
            }
            let place = f.dir.path().to_string_lossy().into_owned();
            assert!(!failure.text.contains(&place), "the tenant learns nothing of our disk: {}", failure.text);
            // Whoever did not try knows after a while that nobody did it.
            let idle = f.second_store();
            assert_eq!(failures(&idle).await, []);
            f.world.clock.advance_ms(u32::try_from(EXPORT_LATE_MS).unwrap());
            assert_eq!(failures(&idle).await.len(), 1);
            // Another one writes it: nothing is wrong any more for either.
            std::fs::remove_file(files.join(stream.to_string())).unwrap();
            assert_eq!(f.second_store().publish_planned().await.unwrap().len(), 2);
            assert!(f.file(first).await.published);
            assert_eq!((failures(&f.store).await, failures(&idle).await), (vec![], vec![]));
            // What failed before is forgotten: a new failure has its own time.
            assert_eq!(f.store.publish_planned().await.unwrap(), []);
            std::fs::remove_dir_all(files.join(stream.to_string())).unwrap();
            std::fs::write(files.join(stream.to_string()), "").unwrap();
            f.close(stream).await;
            assert!(f.store.publish_planned().await.is_err());
            assert_eq!(failures(&f.store).await, []);
        })
        .await;
    }

    #[tokio::test]
    async fn a_file_that_is_due_and_cannot_be_closed_is_a_trouble_until_it_is() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.price().await;
            let hour = 3_600_000;
            let stream = f.stream(&f.resellers[0], "hourly", Side::Sell, i64::from(hour)).await;
            f.write(&[f.outgoing(0, 60_000)]);
            f.consume().await;
            f.world.clock.advance_ms(hour);
            assert_eq!(f.store.export_failures().await.unwrap(), []);
            // A row that this version does not understand.
            f.execute("UPDATE stream SET side = 'sideways'").await;
            assert!(f.store.close_due(&f.system()).await.is_err());
            f.world.clock.advance_ms(u32::try_from(EXPORT_FAILING_MS).unwrap());
            assert!(f.store.close_due(&f.system()).await.is_err());
            let [failure] = f.store.export_failures().await.unwrap().try_into().unwrap();
            assert_eq!((failure.stream, &failure.path), (stream, &f.resellers[0].path));
            assert!(failure.text.contains("stream hourly") && failure.text.contains("not closed"), "{}", failure.text);
            f.execute("UPDATE stream SET side = 'sell'").await;
            assert_eq!(f.store.close_due(&f.system()).await.unwrap().len(), 1);
            assert_eq!(f.store.export_failures().await.unwrap(), []);
        })
        .await;
    }

    #[tokio::test]
    async fn a_foreign_object_looks_like_a_missing_one() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.price().await;
            let stream = f.stream(&f.resellers[0], "retail", Side::Sell, 0).await;
            let fact = f.outgoing(0, 60_000);
            let Fact::Ended(call) = &fact else { unreachable!() };
            f.write(std::slice::from_ref(&fact));
            f.consume().await;
            let file = f.close(stream).await;
            f.store.publish_planned().await.unwrap();
            let page = PageRequest::default;
            let (tariff, own, foreign) =
                (f.tariff("Other", "0", "0").await, f.of(&f.resellers[0]), f.of(&f.resellers[1]));
            let s = &f.store;
            // What the owner sees …
            assert!(s.stream_get(&own, stream).await.unwrap().is_some());
            assert_eq!(s.stream_list(&own, None, page()).await.unwrap().items.len(), 1);
            assert_eq!(s.file_list(&own, stream, page()).await.unwrap().items.len(), 1);
            assert!(s.file_find(&own, stream, 1).await.unwrap().is_some());
            assert!(s.verify(&own, stream).await.unwrap().is_some());
            assert_eq!(s.ledger_balance_list(&own, None, page()).await.unwrap().items.len(), 2);
            // … the other one does not, nor does either see what lies above.
            assert_eq!(s.stream_get(&foreign, stream).await.unwrap(), None);
            assert_eq!(s.stream_list(&foreign, Some(f.resellers[0].id), page()).await.unwrap().items, []);
            assert_eq!(s.file_get(&foreign, file).await.unwrap(), None);
            assert_eq!(s.file_find(&foreign, stream, 1).await.unwrap(), None);
            assert_eq!(s.file_list(&foreign, stream, page()).await.unwrap().items, []);
            assert_eq!(s.file_read(&foreign, file, 0, 10).await.unwrap(), None);
            assert_eq!(s.manifest_read(&foreign, file).await.unwrap(), None);
            assert_eq!(s.usage_get(&foreign, call.answered.setup.call).await.unwrap(), []);
            assert_eq!(s.usage_list(&foreign, None, page()).await.unwrap().items, []);
            assert_eq!(s.rated_list(&foreign, Some(f.customers[0].id), page()).await.unwrap().items, []);
            assert_eq!(s.suspense_list(&foreign, None, page()).await.unwrap().items, []);
            assert_eq!(s.ledger_balance_list(&foreign, None, page()).await.unwrap().items, []);
            assert_eq!(s.ledger_balance_list(&foreign, Some(f.customers[0].id), page()).await.unwrap().items, []);
            assert_eq!(s.verify(&foreign, stream).await.unwrap(), None);
            assert_eq!(s.reconcile(&foreign).await.unwrap().streams, []);
            assert_eq!(s.usage_get(&own, call.answered.setup.call).await.unwrap().len(), 1);
            for ctx in [&own, &foreign] {
                assert_eq!(s.tariff_get(ctx, tariff).await.unwrap(), None);
                assert_eq!(s.tariff_list(ctx, None, page()).await.unwrap().items, []);
                assert_eq!(s.rate_lists(ctx, &[tariff], page()).await.unwrap()[0].items, []);
                assert_eq!(s.tariff_assignment_list(ctx, page()).await.unwrap().items, []);
            }
            let commands = [
                Command::TariffCreate {
                    account: f.resellers[0].id,
                    name: "Mine".to_owned(),
                    currency: "EUR".parse().unwrap(),
                    rounding: Rounding { mode: RoundingMode::Up, decimals: 2 },
                    rates: Vec::new(),
                },
                Command::TariffAssign {
                    tariff,
                    target: AssignmentTarget::Account(f.resellers[0].id),
                    valid_from: Timestamp(0),
                    valid_to: None,
                },
                Command::StreamCreate {
                    account: f.resellers[0].id,
                    name: "mine".to_owned(),
                    side: Side::Sell,
                    close_period_ms: 0,
                },
                Command::FileClose { stream },
                Command::FileAcknowledge { file, accepted: true, reason: String::new() },
                Command::SuspenseRetry { account: f.resellers[0].id },
            ];
            for command in commands {
                assert_eq!(code(s.plan(&foreign, &command).await), RefusalCode::NotFound, "{command:?}");
                assert_eq!(code(f.commit(&foreign, command.clone()).await), RefusalCode::NotFound, "{command:?}");
                let mut nobody = own.clone();
                nobody.actor.permissions = Permissions::default();
                assert_eq!(code(f.commit(&nobody, command).await), RefusalCode::Forbidden);
            }
            let mut nobody = own.clone();
            nobody.actor.permissions = Permissions::default();
            assert!(matches!(s.file_read(&nobody, file, 0, 1).await, Err(ReadError::Denied(_))));
            assert!(matches!(s.usage_list(&nobody, None, page()).await, Err(ReadError::Denied(_))));
            assert!(matches!(s.ledger_balance_list(&nobody, None, page()).await, Err(ReadError::Denied(_))));
        })
        .await;
    }

    /// A BSS reads and acknowledges; it closes nothing. A token that only reads does neither.
    #[tokio::test]
    async fn acknowledging_is_a_right_of_its_own() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            let stream = f.stream(&f.provider, "all", Side::Sell, 0).await;
            let file = f.close(stream).await;
            f.store.publish_planned().await.unwrap();
            let with = |permissions: &str| {
                let mut ctx = f.of(&f.provider);
                ctx.actor.permissions = permissions.parse().unwrap();
                ctx
            };
            let acknowledge = Command::FileAcknowledge { file, accepted: true, reason: String::new() };
            let close = Command::FileClose { stream };
            let (bss, reader, clerk) =
                (with("billing:read billing:acknowledge"), with("billing:read"), with("billing:write"));
            assert_eq!(code(f.commit(&reader, acknowledge.clone()).await), RefusalCode::Forbidden);
            assert_eq!(code(f.commit(&clerk, acknowledge.clone()).await), RefusalCode::Forbidden);
            f.commit(&bss, acknowledge).await.unwrap();
            assert_eq!(code(f.commit(&bss, close.clone()).await), RefusalCode::Forbidden);
            assert_eq!(code(f.commit(&reader, close.clone()).await), RefusalCode::Forbidden);
            f.commit(&clerk, close).await.unwrap();
        })
        .await;
    }

    /// A file of another version of the program is listed; only what would have to render it fails.
    #[tokio::test]
    async fn a_file_of_another_format_is_listed() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            let stream = f.stream(&f.provider, "all", Side::Sell, 0).await;
            let file = f.close(stream).await;
            f.store.publish_planned().await.unwrap();
            let changed = db.write::<(), ChangeError, _>(|tx| {
                Box::pin(async move {
                    let sql = "UPDATE billing_file SET format_version = 99";
                    on_tx!(tx, c => sqlx::query(sql).execute(c).await.map(|_| ()))?;
                    Ok(())
                })
            });
            assert!(changed.await.is_ok());
            let ctx = f.of(&f.provider);
            let listed = f.store.file_list(&ctx, stream, PageRequest::default()).await.unwrap().items;
            assert_eq!(listed[0].1.format_version, 99);
            assert!(f.store.file_read(&ctx, file, 0, 10).await.unwrap().is_some_and(|bytes| bytes.len() == 10));
            std::fs::remove_dir_all(f.dir.path().join("billing")).unwrap();
            assert!(matches!(f.store.file_read(&ctx, file, 0, 10).await, Err(ReadError::Internal(_))));
        })
        .await;
    }

    /// Who asks for a foreign row neither holds it nor waits for who does.
    #[tokio::test]
    async fn a_foreign_row_is_not_waited_for() {
        let db = TestDb::postgres().await;
        let f = Fixture::new(&db).await;
        let stream = f.stream(&f.resellers[0], "retail", Side::Sell, 0).await;
        let file = f.close(stream).await;
        let db::Db::Postgres(pool) = &*db else { panic!("a PostgreSQL database") };
        let mut held = pool.begin().await.unwrap();
        for table in ["stream", "billing_file", "trunk"] {
            let sql = format!("SELECT id FROM {table} FOR UPDATE");
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *held).await.unwrap();
        }
        let foreign = f.of(&f.resellers[1]);
        let commands =
            [Command::FileClose { stream }, Command::FileAcknowledge { file, accepted: true, reason: String::new() }];
        for command in commands {
            let answer = f.commit(&foreign, command.clone());
            let answer = tokio::time::timeout(BOUND, answer).await;
            assert_eq!(code(answer.expect("it does not wait")), RefusalCode::NotFound, "{command:?}");
        }
        held.rollback().await.unwrap();
        db.remove().await;
    }

    /// Every list in pages of one, with and without a filter: nothing comes twice, nothing is left out.
    #[tokio::test]
    async fn pages_of_one_hold_what_one_page_holds() {
        /// `$list` in one page and in pages of one; and what a forged cursor gives.
        macro_rules! check {
            ($least:literal, $page:ident => $list:expr) => {{
                let read = async |$page: PageRequest| $list.await.unwrap();
                let whole = read(PageRequest::default()).await.items;
                assert!(whole.len() >= $least, "{} of {}: {}", whole.len(), $least, stringify!($list));
                let (mut after, mut found) = (None, Vec::new());
                loop {
                    let page = read(PageRequest { first: 1, after }).await;
                    after = page.items.last().map(|(cursor, _)| cursor.clone());
                    found.extend(page.items);
                    assert_eq!(page.has_next, found.len() < whole.len());
                    if !page.has_next {
                        break;
                    }
                }
                assert_eq!(found, whole);
            }};
        }
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.price().await;
            let facts = [f.outgoing(0, 60_000), f.outgoing(0, 120_000), f.outgoing(1, 60_000), f.outgoing(1, 1_000)];
            f.write(&facts);
            f.consume().await;
            let s = &f.store;
            let ctx = f.of(&f.provider);
            let customer = Some(f.customers[0].id);
            check!(4, page => s.usage_list(&ctx, None, page));
            check!(2, page => s.usage_list(&ctx, customer, page));
            check!(4, page => s.rated_list(&ctx, None, page));
            check!(2, page => s.rated_list(&ctx, customer, page));
            check!(4, page => s.ledger_balance_list(&ctx, None, page));
            check!(2, page => s.ledger_balance_list(&ctx, customer, page));
            check!(1, page => s.tariff_list(&ctx, None, page));
            let tariff = s.tariff_list(&ctx, None, PageRequest::default()).await.unwrap().items[0].1.id;
            check!(2, page => async { Ok::<_, ReadError>(s.rate_lists(&ctx, &[tariff], page).await?.remove(0)) });
            // Several at once, in the order that was asked for, of whom one is not there
            let nobody = TariffId::from_uuid(uuid::Uuid::nil());
            let first = PageRequest { first: 1, after: None };
            let several = s.rate_lists(&ctx, &[nobody, tariff, tariff], first).await.unwrap();
            assert_eq!(several.iter().map(|page| page.items.len()).collect::<Vec<_>>(), [0, 1, 1]);
            assert!(!several[0].has_next && several[1].has_next && several[1] == several[2]);
            assert_eq!(s.rate_lists(&ctx, &[], PageRequest::default()).await.unwrap(), []);
            // A cursor from before the caller's scope opens nothing.
            let own = f.of(&f.resellers[1]);
            let first = s.usage_list(&ctx, None, PageRequest { first: 1, after: None }).await.unwrap();
            assert!(!own.scope.contains(&first.items[0].1.path));
            let after = Some(first.items[0].0.clone());
            let seen = s.usage_list(&own, None, PageRequest { first: 100, after }).await.unwrap().items;
            assert!(!seen.is_empty() && seen.iter().all(|(_, usage)| own.scope.contains(&usage.path)), "{seen:?}");
            for nonsense in ["", "x", "0/0/0/0", "////"] {
                let page = PageRequest { first: 1, after: Some(nonsense.to_owned()) };
                assert!(matches!(s.usage_list(&own, None, page.clone()).await, Err(ReadError::Invalid { .. })));
                assert!(matches!(s.ledger_balance_list(&own, None, page).await, Err(ReadError::Invalid { .. })));
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_repeated_request_is_answered_and_not_done_again() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            let stream = f.stream(&f.provider, "all", Side::Sell, 0).await;
            let options = || CommitOptions {
                idempotency_key: Some(IdempotencyKey::new("close-1").unwrap()),
                expected: Vec::new(),
            };
            let ctx = f.of(&f.provider);
            let first = f.store.commit(&ctx, Command::FileClose { stream }, options()).await.unwrap();
            let again = f.store.commit(&ctx, Command::FileClose { stream }, options()).await.unwrap();
            assert!(again.replayed && again.plan == first.plan && again.change == first.change);
            assert_eq!(f.count("billing_file").await, 1);
            let other = Command::SuspenseRetry { account: f.provider.id };
            assert_eq!(code(f.store.commit(&ctx, other, options()).await), RefusalCode::IdempotencyConflict);
            // Names and times that are taken.
            let twice = Command::StreamCreate {
                account: f.provider.id,
                name: "all".to_owned(),
                side: Side::Buy,
                close_period_ms: 0,
            };
            assert_eq!(code(f.commit(&ctx, twice).await), RefusalCode::Conflict);
            let tariff = f.tariff("Retail", "0", "0.01").await;
            let target = AssignmentTarget::Account(f.customers[0].id);
            let assign = |from, to| Command::TariffAssign { tariff, target, valid_from: Timestamp(from), valid_to: to };
            f.commit(&ctx, assign(0, Some(Timestamp(100)))).await.unwrap();
            assert_eq!(code(f.commit(&ctx, assign(99, None)).await), RefusalCode::Conflict);
            f.commit(&ctx, assign(100, None)).await.unwrap();
            assert!(f.store.tariff_get(&ctx, tariff).await.unwrap().is_some());
            assert_eq!(f.store.rate_lists(&ctx, &[tariff], PageRequest::default()).await.unwrap()[0].items.len(), 2);
            let listed = f.store.tariff_assignment_list(&ctx, PageRequest::default()).await.unwrap();
            assert_eq!(listed.items.len(), 2);
        })
        .await;
    }

    #[tokio::test]
    async fn a_thousand_calls_add_up() {
        on_each_database(async |db: TestDb| {
            let f = Fixture::new(&db).await;
            f.price().await;
            let all = f.stream(&f.provider, "all", Side::Sell, 0).await;
            let one = f.stream(&f.resellers[1], "one", Side::Sell, 0).await;
            let bought = f.stream(&f.provider, "bought", Side::Buy, 0).await;
            let mut expected = 0_i64;
            for round in 0_i64..4 {
                let calls = (0_i64..250).map(|n| {
                    let seconds = (round * 250 + n) % 600;
                    // 0.05 once answered for longer than nothing, 0.001 a second: in millionths.
                    expected += if seconds > 0 { 50_000 + seconds * 1_000 } else { 0 };
                    f.outgoing(usize::try_from(n % 2).unwrap(), seconds * 1_000)
                });
                let calls: Vec<Fact> = calls.collect();
                f.write(&calls);
                f.world.clock.advance_ms(3_600_000);
                while f.store.consume(&f.reader(), NODE, 100).await.unwrap().records > 0 {}
                f.close(all).await;
                if round % 2 == 0 {
                    f.close(one).await;
                }
                f.store.publish_planned().await.unwrap();
            }
            f.close(bought).await;
            f.store.publish_planned().await.unwrap();
            let report = f.store.reconcile(&f.system()).await.unwrap();
            assert!(report.is_clean(), "{report:#?}");
            let sold = report.rated.iter().find(|t| t.side == Side::Sell).unwrap();
            let expected = model::money::Amount::from_units(expected).to_string();
            assert_eq!((sold.rated_count, &sold.amount), (1_000, &expected));
            let receivable = report.ledger.iter().find(|b| b.book == "receivable").unwrap();
            assert_eq!(receivable.amount, expected);
            let filed = report.streams.iter().find(|s| s.stream == all).unwrap();
            assert_eq!((filed.files, &filed.filed[0].1, &filed.open[..]), (4, &expected, &[][..]));
            let open = report.streams.iter().find(|s| s.stream == one).unwrap();
            assert_eq!((open.filed[0].2, open.open[0].2), (375, 125));
            for stream in [all, one, bought] {
                let report = f.store.verify(&f.system(), stream).await.unwrap().unwrap();
                assert!(report.is_clean(), "{report:?}");
            }
            // Every page of every list, none twice.
            let (mut seen, mut after) = (std::collections::BTreeSet::new(), None);
            loop {
                let request = PageRequest { first: 100, after };
                let page = f.store.rated_list(&f.system(), None, request).await.unwrap();
                for (cursor, _) in &page.items {
                    assert!(seen.insert(cursor.clone()));
                }
                after = page.items.last().map(|(cursor, _)| cursor.clone());
                if !page.has_next {
                    break;
                }
            }
            assert_eq!(seen.len(), 2_000);
            let bad = PageRequest { first: 1, after: Some("x/1".to_owned()) };
            assert!(matches!(f.store.usage_list(&f.system(), None, bad).await, Err(ReadError::Invalid { .. })));
        })
        .await;
    }
}
