//! The store's port refuses for ten minutes, by a clock that is moved by hand: the real loop of a consumer over a real
//! journal and a real PostgreSQL, which is reached through a port that can be closed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use billing_store::BillingStore;
use db::journal::{Journal, JournalOptions, JournalReader};
use db::{Db, PostgresOptions, on_db, on_tx};
use model::cause::ReleaseCause;
use model::change::ChangeError;
use model::event::fact::{Answered, CallSetup, Ended, Fact, Party, ReleasedBy, SubscriberParty};
use model::id::{AccountId, CallId, DomainId, IdSource, InstallationId, SubscriberId};
use model::tenancy::AccountPath;
use model::time::{Clock as _, Timestamp};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use testkit::World;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::consumers::{ConsumerLags, JournalFeed, spawn_journal};
use super::worker::{BACKOFF_MAX, Workers};
use crate::daemon::BillingConsumer;
use crate::demo::process::free_tcp;

const NODE: &str = "node1";
/// How long the port refuses.
const AWAY_MS: i64 = 600_000;
/// Calls that end during each pause of the consumer.
const CALLS_A_PAUSE: usize = 10;
/// Real time for one attempt, in which the pool asks the port again and again; the simulated time does not count it.
const ATTEMPT_MAX: Duration = Duration::from_millis(100);
/// Pauses after which the consumer must have caught up.
const PAUSES_MAX: usize = 500;

/// PostgreSQL behind a port that can refuse.
struct Door {
    port: u16,
    socket: PathBuf,
    open: Option<JoinHandle<()>>,
}

impl Door {
    async fn open(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let socket = self.socket.clone();
        self.open = Some(tokio::spawn(async move {
            // Dropped with this task: connections break when the door closes.
            let mut passing = tokio::task::JoinSet::new();
            while let Ok((outside, _)) = listener.accept().await {
                passing.spawn(pass(outside, socket.clone()));
            }
        }));
    }

    async fn close(&mut self) {
        let open = self.open.take().unwrap();
        open.abort();
        assert!(open.await.unwrap_err().is_cancelled());
        assert!(TcpStream::connect(("127.0.0.1", self.port)).await.is_err(), "the port refuses");
    }
}

async fn pass(mut outside: TcpStream, socket: PathBuf) {
    if let Ok(mut inside) = UnixStream::connect(socket).await {
        // Whoever breaks off first ends it.
        drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
    }
}

/// A consumer's pause: how long, and the word that it is over.
type Asked = (Duration, oneshot::Sender<()>);

struct Fixture {
    world: World,
    journal: Journal,
    reader: JournalReader,
    /// Around the door.
    direct: Db,
    account: (AccountId, AccountPath),
    pauses: mpsc::Receiver<Asked>,
    /// Calls of the journal.
    calls: usize,
    _dir: tempfile::TempDir,
}

impl Fixture {
    /// The consumer's next pause, which is over at once; the clock has moved by it.
    async fn pass(&mut self) -> Duration {
        let asked = tokio::time::timeout(Duration::from_secs(60), self.pauses.recv()).await;
        let (pause, over) = asked.expect("the consumer goes on").expect("it runs");
        self.world.clock.advance_ms(u32::try_from(pause.as_millis()).unwrap());
        // Nobody hears it when a record has woken the consumer meanwhile.
        let _heard = over.send(()).is_ok();
        pause
    }

    fn end_calls(&mut self, n: usize) {
        let party = || {
            let (account, path) = self.account.clone();
            Party::Subscriber(SubscriberParty {
                subscriber: SubscriberId::new(&*self.world.ids),
                account,
                path,
                domain: DomainId::new(&*self.world.ids),
                domain_name: "a.example".parse().unwrap(),
                site: None,
                extension: Some("100".to_owned()),
            })
        };
        for _ in 0..n {
            let at = self.world.clock.now().utc;
            let setup = CallSetup {
                call: CallId::new(&*self.world.ids),
                invited_at: at.plus_ms(-2_000),
                a: party(),
                b: Some(party()),
                dialled: "100".to_owned(),
                called: None,
                calling: None,
                a_sip_call_id: "a".to_owned(),
                b_sip_call_id: Some("b".to_owned()),
                tried: None,
            };
            let ended = Ended {
                answered: Answered { setup, answered_at: at.plus_ms(-1_000), pdd_ms: 500 },
                ended_at: at,
                duration_ms: 1_000,
                cause: ReleaseCause::NormalClearing,
                released_by: ReleasedBy::Caller,
                estimated: false,
                a_media: None,
                b_media: None,
            };
            self.journal.append(&Fact::Ended(ended), None).unwrap();
        }
        self.calls += n;
    }

    async fn billed(&self) -> usize {
        const SQL: &str = "SELECT COUNT(DISTINCT (call_id, leg)) FROM usage";
        let legs: i64 = on_db!(&self.direct, c => sqlx::query_scalar(SQL).fetch_one(c).await).unwrap();
        usize::try_from(legs).unwrap()
    }

    async fn rows(&self) -> usize {
        let rows: i64 =
            on_db!(&self.direct, c => sqlx::query_scalar("SELECT COUNT(*) FROM usage").fetch_one(c).await).unwrap();
        usize::try_from(rows).unwrap()
    }

    /// Lets the consumer work until it has billed all calls.
    async fn catch_up(&mut self) {
        for _ in 0..PAUSES_MAX {
            if self.billed().await == 2 * self.calls {
                return;
            }
            self.pass().await;
        }
        assert_eq!(self.billed().await, 2 * self.calls, "it has caught up");
    }
}

async fn seed(direct: &Db, account: AccountId, path: &AccountPath) {
    let path = path.as_str().to_owned();
    let seeded = direct.write::<(), ChangeError, _>(move |tx| {
        let path = path.clone();
        Box::pin(async move {
            on_tx!(tx, c => sqlx::query("INSERT INTO account (id, parent_id, path, kind, name, timezone, currency, \
                enabled, version, created_at, updated_at) VALUES ($1, NULL, $2, 'provider', 'P', 'UTC', 'EUR', true, \
                1, 0, 0)").bind(account.uuid()).bind(&path).execute(c).await.map(|_| ()))?;
            Ok(())
        })
    });
    seeded.await.unwrap();
}

#[tokio::test]
async fn a_port_that_refuses_for_ten_minutes_costs_no_record_and_bills_none_twice() {
    let url = testkit::postgres::fresh_database(true).await;
    let direct = Db::connect_postgres(&PostgresOptions { url: url.clone(), connections_max: 2 }).await.unwrap();
    let options: PgConnectOptions = url.parse().unwrap();
    let socket = options.get_socket().expect("clusters of tests listen on a socket").join(".s.PGSQL.5432");
    let mut door = Door { port: free_tcp().unwrap().port(), socket, open: None };
    door.open().await;
    // As the daemon's, but for the time that an attempt takes.
    let through = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(door.port).username("tandem");
    let through = through.database(options.get_database().unwrap()).ssl_mode(sqlx::postgres::PgSslMode::Disable);
    let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(ATTEMPT_MAX).connect_lazy_with(through);
    let store = Db::Postgres(pool);

    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions { ballast_bytes: 0, ..JournalOptions::default() };
    let (journal, _) = Journal::open_with(dir.path(), world.clock.clone(), "test", options).unwrap();
    let account = AccountId::new(&*world.ids);
    let path = AccountPath::root(account);
    seed(&direct, account, &path).await;
    let billing = BillingStore::new(
        store.clone(),
        dir.path().join("billing"),
        InstallationId::new(&*world.ids),
        world.clock.clone(),
        Arc::clone(&world.ids) as Arc<dyn IdSource>,
    );
    let reader = JournalReader::open(dir.path());
    let lags = ConsumerLags::default();
    let feed = JournalFeed {
        reader: Arc::new(reader.clone()),
        journal: journal.clone(),
        store: store.clone(),
        node: NODE.into(),
        lags: lags.clone(),
        clock: world.clock.clone(),
    };
    let (ask, pauses) = mpsc::channel::<Asked>(1);
    let pause = move |pause| -> futures::future::BoxFuture<'static, ()> {
        let ask = ask.clone();
        Box::pin(async move {
            let (over, heard) = oneshot::channel();
            // The test is over when nobody asks any more; the stop of the workers ends the pause then.
            if ask.send((pause, over)).await.is_err() || heard.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    };
    let mut workers = Workers::pausing(world.clock.clone(), Arc::new(pause));
    let board = workers.board();
    spawn_journal(&mut workers, &feed, Arc::new(BillingConsumer(Arc::new(billing.clone()))));
    let account = (account, path);
    let mut f = Fixture { world, journal, reader, direct, account, pauses, calls: 0, _dir: dir };

    f.end_calls(50);
    f.catch_up().await;
    let before = f.calls;

    door.close().await;
    let gone: Timestamp = f.world.clock.now().utc;
    let mut attempts = 0;
    while f.world.clock.now().utc.ms_since(gone) < AWAY_MS {
        f.end_calls(CALLS_A_PAUSE);
        let pause = f.pass().await;
        assert!(pause <= BACKOFF_MAX, "a store that is back is noticed soon: {pause:?}");
        attempts += 1;
    }
    // 0.1 s, 0.2 s and so on up to 5 s, then each 5 s: neither a storm nor a rest.
    assert!((120..=160).contains(&attempts), "{attempts} attempts");
    let trouble = board.troubles().get("billing").cloned().expect("its failure is known");
    assert!(trouble.since.ms_since(gone) < 10_000, "{trouble:?}");
    assert_eq!(f.rows().await, 2 * before, "nothing was billed");
    assert!(f.journal.backlog() == 0 || f.journal.lag_ms() < 1_000, "the journal takes its records all the same");
    let lag = lags.list().get("billing").copied().expect("it has reported");
    let waiting = u64::try_from(f.calls - before).unwrap();
    assert!(lag.records > waiting / 2 && lag.records <= waiting, "it knows that it is behind: {lag:?} of {waiting}");

    door.open().await;
    f.catch_up().await;
    assert_eq!(f.rows().await, 2 * f.calls, "each leg once");
    let records = f.reader.verify().unwrap().records;
    assert_eq!(records, u64::try_from(f.calls).unwrap() + 1, "and the begin of the epoch");
    assert!(billing.reconcile(&f.world.system()).await.unwrap().is_clean());
    let idle = async || board.troubles().is_empty() && lags.list().get("billing").is_some_and(|lag| lag.records == 0);
    for _ in 0..PAUSES_MAX {
        if idle().await {
            break;
        }
        f.pass().await;
    }
    assert!(idle().await, "{:?} {:?}", board.troubles(), lags.list());
    drop(f.pauses);
    workers.stop().await;
}
