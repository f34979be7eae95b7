//! PostgreSQL goes away under load and comes back: no call notices, the alarm is told meanwhile, everything is billed
//! once afterwards.

use std::time::Duration;

use tandem::demo::installation::send_traps_to;
use tandem::demo::process::{free_tcp, free_udp};
use tandem::demo::sinks::TrapReceiver;
use tandem_e2e::ledger::{assert_books, assert_reconciled, journaled_calls, number, store, usage};
use tandem_e2e::sipp::Bench;
use tandem_e2e::traps::{Said, everything, told};
use tandem_e2e::{Engine, Subscriber, install, provision, readiness, settle};
use testkit::postgres::OwnCluster;
use testkit::wait_until;
use tokio::time::{Instant, sleep_until};

/// Calls a second.
const RATE: usize = 50;
/// How long calls are placed.
const LOAD: Duration = Duration::from_secs(50);
/// All of them.
const CALLS: usize = RATE * 50;
/// When the store goes, after the first call.
const GOES: Duration = Duration::from_secs(10);
/// For how long it is away.
const AWAY: Duration = Duration::from_secs(30);
/// How long anything may take on a slow machine.
const BOUND: Duration = Duration::from_secs(120);
/// The alarm's resource.
const STORE: &str = "store:node1";

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_while_the_store_is_away_and_all_is_caught_up_once() {
    let cluster = OwnCluster::start(free_tcp().expect("a free port").port());
    let traps = TrapReceiver::start().await.expect("a receiver");
    let at = install(Engine::Sqlite, |config| {
        config.database.url = cluster.url();
        config.media.sessions = 600;
        config.sip.challenge_sha256 = false;
        // A slow disk of the machine is not what is looked at: it must refuse no call.
        config.sip.services.answer_hold_max_ms = 5_000;
        config.node.journal_lag_max_ms = 5_000;
        send_traps_to(config, traps.address());
    })
    .await;
    let config = &at.installation.config;
    let daemon = at.installation.start().await.expect("the daemon starts");
    let world = provision(&at.installation, free_udp().expect("a free port")).await;
    let server = config.sip.transport.listen;
    let bench = Bench::silent(at.dir.path());
    bench.data("callee.csv", &Subscriber::of(&world, 1), "");
    bench.data("caller.csv", &Subscriber::of(&world, 0), &world.phones[1].extension);
    let callee_port = free_udp().expect("a free port");
    let registered = bench.start("register", "callee.csv", callee_port, server, &["-m", "1"]).wait().await;
    assert!(registered.is_ok_and(|status| status.success()), "{}", bench.errors("register"));

    let (calls, rate) = (CALLS.to_string(), RATE.to_string());
    let mut callee = bench.start("callee", "callee.csv", callee_port, server, &["-m", &calls]);
    let begin = Instant::now();
    let arguments = ["-m", &calls, "-r", &rate, "-l", "500"];
    let mut caller = bench.start("caller", "caller.csv", free_udp().expect("a free port"), server, &arguments);

    sleep_until(begin + GOES).await;
    assert_eq!(readiness(config).await, (200, Vec::new()));
    cluster.crash();
    let gone = Instant::now();
    wait_until(BOUND, async || told(&traps, Said::Raise, STORE) > 0).await;
    let (status, failed) = readiness(config).await;
    assert!(status == 503 && failed.iter().any(|(name, _)| name == "store"), "{status} {failed:?}");
    assert_eq!(told(&traps, Said::Clear, STORE), 0);
    sleep_until(gone + AWAY).await;
    cluster.restart();

    wait_until(BOUND, async || told(&traps, Said::Clear, STORE) > 0).await;
    let done = tokio::time::timeout(LOAD + BOUND, caller.wait()).await;
    assert!(matches!(done, Ok(Ok(status)) if status.success()), "{done:?}\n{}", bench.errors("caller"));
    let done = tokio::time::timeout(BOUND, callee.wait()).await;
    assert!(matches!(done, Ok(Ok(status)) if status.success()), "{done:?}\n{}", bench.errors("callee"));
    settle(&at.installation).await;
    assert_eq!(readiness(config).await, (200, Vec::new()));
    daemon.terminate().await.expect("the daemon drains");

    let journal = journaled_calls(config);
    assert_eq!(journal.values().filter(|call| call.answered == 1 && call.ended == 1).count(), CALLS);
    assert_eq!(journal.len(), CALLS, "none was refused or broken off");
    let db = store(config).await;
    assert_books(&db).await;
    assert_eq!(usage(&db).await.len(), 2 * CALLS, "one usage per leg");
    assert_eq!(number(&db, "SELECT COUNT(*) FROM rated WHERE side = 'sell'").await, 2_500);
    assert_reconciled(&at.installation).await;
    let heard = [Said::Raise, Said::Clear].map(|said| told(&traps, said, STORE));
    assert_eq!(heard, [1, 1], "{}", everything(&traps));
}
