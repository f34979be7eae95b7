//! What every store crate relies on, on both engines.

#[cfg(test)]
use tandem_db as db;

#[cfg(test)]
mod contract {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::db;
    use super::db::change::{self, AuditError, Entry, Replay};
    use super::db::dialect::{BulkRow, Value, bulk_insert, bulk_statement};
    use super::db::outbox::{self, Next};
    use super::db::retention::Pruned;
    use super::db::{Db, DbError, Position, Tx, WriteError, cursor, feed, lease, on_db, on_tx, sqlx};
    use futures::future::BoxFuture;
    use model::change::{
        ChangeError, CommitOptions, Effect, EffectKind, IdempotencyKey, Plan, RefusalCode, ResourceKind, ResourceRef,
        ResourceVersion, Reversibility,
    };
    use model::ctx::Ctx;
    use model::event::store::{Rated, StoreEvent};
    use model::id::{AccountId, BatchId, MessageId};
    use model::tenancy::AccountPath;
    use model::time::Timestamp;
    use testkit::{TestDb, World, on_each_database};

    async fn write<T: Send + 'static>(
        db: &Db,
        work: impl for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, WriteError<ChangeError>>> + Send + Sync + 'static,
    ) -> Result<T, ChangeError> {
        db.write(work).await.map_err(ChangeError::from)
    }

    async fn count(db: &Db, table: &str) -> i64 {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        on_db!(db, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(c).await).unwrap()
    }

    async fn execute(db: &Db, sql: &'static str) {
        write(db, move |tx| {
            Box::pin(async move {
                on_tx!(tx, c => sqlx::query(sql).execute(c).await.map(|_| ()))?;
                Ok(())
            })
        })
        .await
        .unwrap();
    }

    fn plan(ctx: &Ctx) -> Plan {
        let resource = ResourceRef { kind: ResourceKind::Site, id: ctx.ids.next() };
        Plan {
            effects: vec![Effect {
                kind: EffectKind::Created,
                resource,
                name: "Harbour".to_owned(),
                before: None,
                after: Some(serde_json::json!({"name": "Harbour"})),
            }],
            versions: vec![ResourceVersion { resource, version: 3 }],
            reversibility: Reversibility::Reversible,
        }
    }

    fn caller(world: &World) -> Ctx {
        let account = AccountId::new(&*world.ids);
        world.ctx(model::actor::Permissions::all(), account, &AccountPath::root(account))
    }

    /// A mutation as a store makes it; `payload` stands for the command.
    async fn mutate(
        db: &Db,
        ctx: &Ctx,
        key: Option<&str>,
        payload: &str,
    ) -> Result<(model::id::ChangeId, bool), ChangeError> {
        let (ctx, plan) = (ctx.clone(), plan(ctx));
        let key = key.map(|key| IdempotencyKey::new(key).unwrap());
        let request = change::hash_request(&[b"site_create", payload.as_bytes()]);
        write(db, move |tx| {
            let (ctx, plan, key) = (ctx.clone(), plan.clone(), key.clone());
            Box::pin(async move {
                if let Replay::Answer(committed) = change::replay(tx, &ctx, key.as_ref(), &request).await? {
                    return Ok((committed.change, committed.replayed));
                }
                let events = [StoreEvent::Rated(Rated {
                    batch: BatchId::new(&*ctx.ids),
                    usage_count: 1,
                    rated_count: 2,
                    suspense_count: 0,
                })];
                let path = ctx.actor.path.clone();
                let entry = Entry {
                    command: "site_create",
                    plan: &plan,
                    key: key.as_ref(),
                    request: &request,
                    path: &path,
                    events: &events,
                };
                let change = model::id::ChangeId::new(&*ctx.ids);
                change::record(tx, &ctx, change, entry).await?;
                Ok((change, false))
            })
        })
        .await
    }

    #[tokio::test]
    async fn only_what_every_consumer_has_read_is_pruned() {
        on_each_database(async |db: TestDb| {
            let ctx = caller(&World::new());
            mutate(&db, &ctx, Some("k1"), "a").await.unwrap();
            let (old, later) = (Timestamp(0), Timestamp(i64::MAX));
            assert_eq!(
                db::retention::prune(&db, &["slow"], old, old).await.unwrap(),
                Pruned::default(),
                "all is young"
            );
            let unread = db::retention::prune(&db, &["slow"], old, later).await.unwrap();
            assert_eq!(unread, Pruned::default(), "nobody has read");
            for (consumer, sequence) in [("fast", 2), ("slow", 1)] {
                let to = Position::new(0, sequence);
                let moved = write(&db, move |tx| {
                    Box::pin(async move {
                        Ok(cursor::advance(tx, consumer, feed::SOURCE, Position::START, to, Timestamp(5)).await?)
                    })
                });
                moved.await.unwrap();
            }
            let waiting = db::retention::prune(&db, &["slow", "new"], old, later).await.unwrap();
            assert_eq!(waiting, Pruned::default(), "one that is expected has never read");
            let pruned = db::retention::prune(&db, &["slow"], later, later).await.unwrap();
            assert_eq!(pruned, Pruned { answers: 1, messages: 0, events: 1 });
            let kept: Vec<i64> = feed::read_after(&db, 0, 100).await.unwrap().iter().map(|r| r.sequence).collect();
            assert_eq!((kept, feed::head(&db).await.unwrap()), (vec![2], 2), "the sequence goes on");
            assert!(!mutate(&db, &ctx, Some("k1"), "b").await.unwrap().1, "a forgotten key is new");
        })
        .await;
    }

    #[tokio::test]
    async fn a_full_disk_passes() {
        async fn run(tx: &mut Tx, sql: String) -> Result<(), DbError> {
            Ok(on_tx!(tx, c => sqlx::query(sqlx::AssertSqlSafe(sql)).execute(c).await.map(|_| ()))?)
        }
        let db = TestDb::sqlite().await;
        let made =
            write(&db, |tx| Box::pin(async move { Ok(run(tx, "CREATE TABLE kept (octets BLOB)".into()).await?) }));
        made.await.expect("there is room");
        let fill = write(&db, |tx| {
            Box::pin(async move {
                let pages = on_tx!(tx, c => sqlx::query_scalar("PRAGMA page_count").fetch_one(c).await);
                let pages: i64 = pages.map_err(DbError::from)?;
                run(tx, format!("PRAGMA max_page_count = {}", pages + 2)).await?;
                // A plain row: SQLite then ends the whole transaction by itself.
                Ok(run(tx, "INSERT INTO kept VALUES (zeroblob(1000000))".into()).await?)
            })
        });
        assert!(fill.await.is_err(), "there is no room");
        // The connection that met it is not lent again: neither its limit nor its broken transaction lives on.
        for _ in 0..3 {
            let again = write(&db, |tx| {
                Box::pin(async move { Ok(run(tx, "INSERT INTO kept VALUES (zeroblob(1000000))".into()).await?) })
            });
            again.await.expect("space is there again");
        }
    }

    #[tokio::test]
    async fn statements_prepare() {
        on_each_database(async |db: TestDb| testkit::prepare_all(&db, &db::all_statements()).await).await;
    }

    #[tokio::test]
    async fn a_change_is_recorded_once_and_replayed() {
        on_each_database(async |db: TestDb| {
            let ctx = caller(&World::new());
            let (first, replayed) = mutate(&db, &ctx, Some("k1"), "a").await.unwrap();
            assert!(!replayed);
            assert_eq!(mutate(&db, &ctx, Some("k1"), "a").await.unwrap(), (first, true));
            let Err(ChangeError::Refused(refusals)) = mutate(&db, &ctx, Some("k1"), "b").await else {
                panic!("another payload under the same key")
            };
            assert_eq!(refusals[0].code, RefusalCode::IdempotencyConflict);
            // another actor's key is another key; no key is always fresh
            let mut other = ctx.clone();
            other.actor.id = ctx.ids.next();
            assert!(!mutate(&db, &other, Some("k1"), "b").await.unwrap().1);
            assert!(!mutate(&db, &ctx, None, "a").await.unwrap().1);
            assert_eq!(
                (count(&db, "audit").await, count(&db, "event").await, count(&db, "idempotency").await),
                (3, 6, 2)
            );
            let records = feed::read_after(&db, 0, 100).await.unwrap();
            let sequences: Vec<i64> = records.iter().map(|r| r.sequence).collect();
            assert_eq!(sequences, [1, 2, 3, 4, 5, 6]);
            assert!(matches!(&records[0].event, StoreEvent::Changed(e) if e.change == first && e.resources.len() == 1));
        })
        .await;
    }

    #[tokio::test]
    async fn the_same_request_twice_at_the_same_time_runs_once() {
        on_each_database(async |db: TestDb| {
            let ctx = caller(&World::new());
            let twice = futures::future::join_all((0..6).map(|_| mutate(&db, &ctx, Some("k"), "a"))).await;
            let fresh = twice.iter().filter(|r| !r.as_ref().unwrap().1).count();
            assert_eq!((fresh, count(&db, "audit").await), (1, 1));
        })
        .await;
    }

    #[tokio::test]
    async fn concurrent_changes_make_one_chain_and_dense_sequences() {
        on_each_database(async |db: TestDb| {
            let ctx = caller(&World::new());
            let all = futures::future::join_all((0..20).map(|_| mutate(&db, &ctx, None, "a"))).await;
            assert!(all.iter().all(Result::is_ok), "{all:?}");
            let report = change::verify_audit(&db).await.unwrap();
            assert_eq!((report.entries, report.head.is_some()), (20, true));
            let sequences: Vec<i64> = feed::read_after(&db, 0, 100).await.unwrap().iter().map(|r| r.sequence).collect();
            assert_eq!(sequences, (1..=40).collect::<Vec<_>>());
            assert_eq!(feed::head(&db).await.unwrap(), 40);
        })
        .await;
    }

    /// What a migration makes of an audit trail from before is what is written beside it now.
    #[tokio::test]
    async fn the_history_of_resources_is_made_from_an_older_trail() {
        const SQLITE: &str = include_str!("../../migrations/sqlite/0013_reversals.sql");
        const POSTGRES: &str = include_str!("../../migrations/postgres/0013_reversals.sql");
        on_each_database(async |db: TestDb| {
            let ctx = caller(&World::new());
            for _ in 0..3 {
                mutate(&db, &ctx, None, "a").await.unwrap();
            }
            execute(&db, "UPDATE audit SET plan = '{\"effects\":[]}' WHERE sequence = 2").await;
            execute(&db, "DELETE FROM audit_resource WHERE sequence = 2").await;
            let history = async || -> Vec<(uuid::Uuid, i64)> {
                const SQL: &str = "SELECT resource_id, sequence FROM audit_resource ORDER BY sequence, resource_id";
                db::on_db!(&*db, c => sqlx::query_as(SQL).fetch_all(c).await).unwrap()
            };
            let written = history().await;
            assert_eq!(written.len(), 2);
            execute(&db, "DELETE FROM audit_resource").await;
            let migration = if matches!(&*db, Db::Sqlite(_)) { SQLITE } else { POSTGRES };
            let statements = migration.split(';').map(str::trim);
            let fill = statements.filter(|sql| sql.starts_with("INSERT")).collect::<Vec<_>>();
            assert_eq!(fill.len(), 1);
            execute(&db, fill[0]).await;
            assert_eq!(history().await, written);
        })
        .await;
    }

    #[tokio::test]
    async fn tampering_with_the_audit_is_found() {
        for (sql, at) in [
            ("UPDATE audit SET plan = '{}' WHERE sequence = 2", 2),
            ("DELETE FROM audit WHERE sequence = 2", 2),
            ("DELETE FROM audit WHERE sequence = 3", 3),
            ("UPDATE audit SET actor_name = 'other' WHERE sequence = 3", 3),
            ("UPDATE audit SET previous_hash = hash WHERE sequence = 1", 1),
        ] {
            on_each_database(async |db: TestDb| {
                let ctx = caller(&World::new());
                assert_eq!(change::verify_audit(&db).await.unwrap().entries, 0);
                for _ in 0..3 {
                    mutate(&db, &ctx, None, "a").await.unwrap();
                }
                assert_eq!(change::verify_audit(&db).await.unwrap().entries, 3);
                execute(&db, sql).await;
                let broken = change::verify_audit(&db).await;
                assert!(matches!(broken, Err(AuditError::Broken { sequence, .. }) if sequence == at), "{broken:?}");
            })
            .await;
        }
    }

    #[test]
    fn expected_versions_are_compared() {
        let ctx = caller(&World::new());
        let plan = plan(&ctx);
        let options = |version| CommitOptions {
            expected: vec![ResourceVersion { version, ..plan.versions[0] }],
            ..CommitOptions::default()
        };
        assert_eq!(change::check_expected(&plan, &options(3)), Ok(()));
        let Err(ChangeError::Refused(refusals)) = change::check_expected(&plan, &options(2)) else {
            panic!("version 2 is gone")
        };
        assert_eq!(refusals[0].code, RefusalCode::VersionMismatch);
    }

    #[tokio::test]
    async fn an_unknown_event_stops_its_consumer() {
        on_each_database(async |db: TestDb| {
            mutate(&db, &caller(&World::new()), None, "a").await.unwrap();
            execute(
                &db,
                "INSERT INTO event (sequence, at, kind, payload) VALUES (3, 0, 'sung', '{\"kind\":\"sung\"}')",
            )
            .await;
            assert_eq!(feed::read_after(&db, 0, 100).await.unwrap().len(), 2, "what comes before is read");
            let stopped = feed::read_after(&db, 2, 100).await;
            assert!(matches!(stopped, Err(feed::FeedError::Unreadable { sequence: 3, .. })), "{stopped:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_cursor_moves_forward_and_once() {
        on_each_database(async |db: TestDb| {
            let step = async |from: Position, to: Position| {
                db.write::<_, (), _>(move |tx| {
                    Box::pin(async move {
                        assert_eq!(cursor::load(tx, "other", "journal:a").await?, Position::START);
                        cursor::advance(tx, "billing", "journal:a", from, to, Timestamp(5)).await?;
                        Ok(())
                    })
                })
                .await
            };
            let (start, a, b) = (Position::START, Position::new(1, 7), Position::new(2, 1));
            assert!(step(start, start).await.is_err(), "not forward");
            step(start, a).await.unwrap();
            assert_eq!(cursor::peek(&db, "billing", "journal:a").await.unwrap(), a);
            assert!(matches!(step(start, a).await, Err(WriteError::Db(DbError::CursorMoved { .. }))), "applied twice");
            step(a, b).await.unwrap();
            assert!(step(a, Position::new(3, 1)).await.is_err(), "it is not there any more");
            assert!(step(b, a).await.is_err(), "backwards");
            assert_eq!(cursor::slowest(&db, "journal:a", &["billing"]).await.unwrap(), b);
            assert_eq!(cursor::slowest(&db, "journal:a", &["billing", "reports"]).await.unwrap(), start);
            assert_eq!(cursor::slowest(&db, "journal:b", &[]).await.unwrap(), start, "nobody ever read");
        })
        .await;
    }

    async fn enqueue(db: &Db, world: &World, target: &'static str) -> (MessageId, Position) {
        let id = MessageId::new(&*world.ids);
        let position = write(db, move |tx| {
            Box::pin(async move { Ok(outbox::enqueue(tx, target, "trap", "{}", id, Timestamp(100)).await?) })
        });
        (id, position.await.unwrap())
    }

    async fn the_outbox(db: &Db) {
        let world = World::new();
        let (first, at) = enqueue(db, &world, "snmp:a").await;
        assert_eq!(at, Position::new(1, 1));
        let (second, at) = enqueue(db, &world, "snmp:a").await;
        assert_eq!(at, Position::new(1, 2));
        let (other, at) = enqueue(db, &world, "snmp:b").await;
        assert_eq!(at, Position::new(1, 1));
        enqueue(db, &world, "mail:a").await;
        let due = async |now: i64| -> Vec<MessageId> {
            outbox::due(db, "snmp:", Timestamp(now), 10).await.unwrap().iter().map(|m| m.id).collect()
        };
        assert_eq!(due(99).await, []);
        assert_eq!(due(100).await, [first, other]);
        assert!(outbox::failed(db, first, &"ä".repeat(600), Next::Retry(Timestamp(500))).await.unwrap());
        assert_eq!(due(499).await, [other], "the second waits for the first");
        assert!(outbox::sent(db, other, Timestamp(150)).await.unwrap());
        assert!(!outbox::sent(db, other, Timestamp(151)).await.unwrap(), "only once");
        let again = outbox::due(db, "snmp:", Timestamp(500), 10).await.unwrap();
        assert_eq!(again.iter().map(|m| (m.id, m.attempts)).collect::<Vec<_>>(), [(first, 1)]);
        assert!(outbox::failed(db, first, "gone", Next::GiveUp).await.unwrap());
        assert_eq!(due(500).await, [second]);
        assert_eq!(outbox::pending_count(db, "").await.unwrap(), 2);
        let epoch = write(db, |tx| Box::pin(async move { Ok(outbox::begin_epoch(tx, "snmp:a").await?) }));
        assert_eq!(epoch.await.unwrap(), Some(2));
        let (third, at) = enqueue(db, &world, "snmp:a").await;
        assert_eq!(at, Position::new(2, 1));
        assert_eq!(due(500).await, [second], "what waits from the old epoch goes first");
        assert!(outbox::sent(db, second, Timestamp(501)).await.unwrap());
        assert_eq!(due(501).await, [third]);
        let pruned = write(db, |tx| Box::pin(async move { Ok(outbox::prune(tx, Timestamp(1_000)).await?) }));
        assert_eq!(pruned.await.unwrap(), 3);
        assert_eq!(outbox::pending_count(db, "").await.unwrap(), 2);
    }

    #[tokio::test]
    async fn the_outbox_keeps_the_order_of_a_target() {
        on_each_database(async |db: TestDb| the_outbox(&db).await).await;
        let dir = tempfile::tempdir().unwrap();
        let node = db::node::open(dir.path()).await.unwrap();
        the_outbox(&node).await;
        node.close().await;
    }

    #[tokio::test]
    async fn the_node_remembers() {
        let dir = tempfile::tempdir().unwrap();
        for expected in [None, Some("1".to_owned())] {
            let node = db::node::open(dir.path()).await.unwrap();
            assert_eq!(db::node::meta(&node, "boots").await.unwrap(), expected);
            write(&node, |tx| Box::pin(async move { Ok(db::node::set_meta(tx, "boots", "1").await?) })).await.unwrap();
            node.close().await;
        }
    }

    #[tokio::test]
    async fn a_lease_has_one_holder_and_fences_the_last() {
        on_each_database(async |db: TestDb| {
            let acquire = async |holder: &'static str, now: i64| {
                write(&db, move |tx| {
                    Box::pin(async move { Ok(lease::acquire(tx, "reports", holder, Timestamp(now), 1_000).await?) })
                })
                .await
                .unwrap()
            };
            let a = acquire("a", 0).await.unwrap();
            assert_eq!((a.fence, a.until), (1, Timestamp(1_000)));
            assert_eq!(acquire("b", 999).await, None);
            let held = a.clone();
            let a = write(&db, move |tx| {
                let held = held.clone();
                Box::pin(async move { Ok(lease::renew(tx, &held, Timestamp(900), 1_000).await?) })
            })
            .await
            .unwrap();
            assert_eq!(acquire("b", 1_500).await, None, "renewed");
            let b = acquire("b", 1_900).await.unwrap();
            assert_eq!(b.fence, 2);
            for (lease, holds) in [(a, false), (b.clone(), true)] {
                let checked = db.write::<_, (), _>(move |tx| {
                    let lease = lease.clone();
                    Box::pin(async move { Ok(lease::check(tx, &lease).await?) })
                });
                assert_eq!(checked.await.is_ok(), holds);
            }
            write(&db, move |tx| {
                let b = b.clone();
                Box::pin(async move { Ok(lease::release(tx, &b).await?) })
            })
            .await
            .unwrap();
            assert_eq!(acquire("a", 1_901).await.unwrap().fence, 3);
            assert_eq!(acquire("a", 1_902).await.unwrap().fence, 4, "its own from before a restart");
        })
        .await;
    }

    struct Meta(i64);

    impl BulkRow for Meta {
        const TABLE: &'static str = "suspense";
        const COLUMNS: &'static [&'static str] = &[
            "call_id",
            "leg",
            "part",
            "account_id",
            "side",
            "path",
            "code",
            "detail",
            "attempts",
            "created_at",
            "resolved_at",
        ];
        fn values<'a>(&'a self, out: &mut Vec<Value<'a>>) {
            let id = sqlx::types::Uuid::from_u128(u128::try_from(self.0).unwrap());
            out.extend([id.into(), 0.into(), 0.into(), id.into(), "sell".into(), "".into(), "no_rate".into()]);
            out.extend([format!("row {}", self.0).into(), 1.into(), self.0.into(), None::<i64>.into()]);
        }
    }

    #[tokio::test]
    async fn bulk_rows_are_written_in_few_statements() {
        const KEEP: &str = "ON CONFLICT DO NOTHING";
        on_each_database(async |db: TestDb| {
            testkit::prepare_all(&db, &[&bulk_statement::<Meta>(2, KEEP)]).await;
            for (to, expected) in [(2_500, 2_500), (2_501, 1)] {
                let written = write(&db, move |tx| {
                    Box::pin(async move {
                        let rows: Vec<Meta> = (0..to).map(Meta).collect();
                        Ok(bulk_insert(tx, &rows, KEEP).await?)
                    })
                });
                assert_eq!(written.await.unwrap(), expected);
            }
            assert_eq!(count(&db, "suspense").await, 2_501);
        })
        .await;
    }

    /// Two writers lock two rows in opposite order: PostgreSQL ends one with 40P01, which runs again.
    #[tokio::test]
    async fn a_collision_is_run_again() {
        on_each_database(async |db: TestDb| {
            let attempts = Arc::new(AtomicU32::new(0));
            let both_hold_one = Arc::new(tokio::sync::Barrier::new(2));
            let is_postgres = db.name() == "postgres";
            let add = |first: &'static str, second: &'static str| {
                let (attempts, both) = (attempts.clone(), both_hold_one.clone());
                let first_try = Arc::new(AtomicU32::new(0));
                db.write::<_, (), _>(move |tx| {
                    let (attempts, both, first_try) = (attempts.clone(), both.clone(), first_try.clone());
                    Box::pin(async move {
                        attempts.fetch_add(1, Ordering::Relaxed);
                        db::counter::next_range(tx, first, 1).await?;
                        if is_postgres && first_try.fetch_add(1, Ordering::Relaxed) == 0 {
                            both.wait().await;
                        }
                        db::counter::next_range(tx, second, 1).await?;
                        Ok(())
                    })
                })
            };
            let (one, other) = tokio::join!(add("rated", "event"), add("event", "rated"));
            one.unwrap();
            other.unwrap();
            let sum: i64 = on_db!(&*db, c => sqlx::query_scalar("SELECT CAST(SUM(value) AS BIGINT) FROM counter")
                .fetch_one(c).await)
            .unwrap();
            assert_eq!((sum, attempts.load(Ordering::Relaxed)), (4, if is_postgres { 3 } else { 2 }));
        })
        .await;
    }

    /// A caller who goes away at any step of a read leaves no session inside a transaction: what comes after on the same
    /// connection reads what is there now, and may write.
    #[tokio::test]
    async fn a_read_that_is_given_up_leaves_no_transaction_behind() {
        on_each_database(async |db: TestDb| {
            let read = || {
                db.read::<i64, DbError, _>(|tx| {
                    Box::pin(async move {
                        let sql = "SELECT value FROM counter WHERE name = 'rated'";
                        Ok(on_tx!(tx, c => sqlx::query_scalar(sql).fetch_one(c).await)?)
                    })
                })
            };
            for round in 0..600_u32 {
                let steps = round % 60;
                let given_up = async {
                    for _ in 0..steps {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    biased;
                    found = read() => assert_eq!(found.unwrap(), i64::from(round)),
                    () = given_up => {}
                }
                let first = db.write::<i64, (), _>(|tx| {
                    Box::pin(async move { Ok(db::counter::next_range(tx, "rated", 1).await?) })
                });
                assert_eq!(first.await.unwrap(), i64::from(round) + 1, "given up after {steps} steps");
                assert_eq!(read().await.unwrap(), i64::from(round) + 1, "given up after {steps} steps");
            }
        })
        .await;
    }
}
