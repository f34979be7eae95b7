//! The life of the daemon: one per directory, drained by SIGTERM, durable before it answers.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use db::sqlx::query_scalar;
use db::{Db, SqliteOptions, on_db};
use tandem::call::{Account, Agent, AgentConfig, CallRequest};
use tandem::priority::is_call_core;
use tandem_e2e::load::machine::threads;
use tandem_e2e::{Engine, install, program, provision};

#[tokio::test]
async fn a_second_daemon_on_the_same_directory_is_refused() {
    let at = install(Engine::Sqlite, |_| {}).await;
    let daemon = at.installation.start().await.expect("the first starts");
    let second = tokio::process::Command::new(program())
        .args(["serve", "--config"])
        .arg(&at.installation.config_file)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("it runs");
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains("another tandem daemon"), "{text}");
    let status = daemon.terminate().await.expect("it stops");
    assert!(status.success(), "SIGTERM is a clean end: {status}");
}

/// Billing, reports, the database and the faces must not take the processor from calls.
#[tokio::test]
async fn every_thread_besides_the_call_core_gives_way_to_it() {
    let at = install(Engine::Sqlite, |_| {}).await;
    let daemon = at.installation.start().await.expect("it starts");
    let threads = threads(daemon.id().expect("it runs"));
    let of_calls = |begin: &str| threads.iter().any(|(name, _)| is_call_core(name) && name.starts_with(begin));
    assert!(of_calls("sip-") && of_calls("media-") && of_calls("journal"), "{threads:?}");
    // The daemon inherits the niceness of this test.
    let own = rustix::process::getpriority_process(None).expect("it lives");
    for (name, thread) in &threads {
        let thread = rustix::process::Pid::from_raw((*thread).try_into().expect("an id"));
        let niceness = rustix::process::getpriority_process(thread).expect("it lives");
        assert_eq!(niceness > own, !is_call_core(name), "{name} has {niceness}, this process {own}");
    }
    daemon.terminate().await.expect("it stops");
}

/// REGISTER is answered to the end of a stop; the worker that stores registrations gathers them, and ends before.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_of_the_last_moment_before_a_stop_is_kept() {
    let at = install(Engine::Sqlite, |_| {}).await;
    let daemon = at.installation.start().await.expect("it starts");
    let config = &at.installation.config;
    let world = provision(&at.installation, tandem::demo::process::free_udp().expect("a free port")).await;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let phones = Agent::start(AgentConfig::new(any, config.sip.transport.listen)).await.expect("phones");
    let mut registered: i64 = 0;
    for phone in world.phones_of(0).take(2) {
        let account = Account::new(&*phone.username, world.customers[0].domain, phone.password.expose());
        phones.register(account).await.expect("it registers");
        registered += 1;
    }
    assert!(daemon.terminate().await.expect("it stops").success());
    let store = Db::open_sqlite(&SqliteOptions { path: config.node.data_dir.join("store.db") }).await.expect("a store");
    let kept: i64 = on_db!(&store, c => query_scalar("SELECT count(*) FROM registration").fetch_one(c).await)
        .expect("it can be read");
    assert_eq!(kept, registered);
    store.close().await;
}

/// The journal's fsync or fdatasync returns before the 200 leaves for the caller, as the kernel saw it.
#[tokio::test(flavor = "multi_thread")]
async fn the_record_is_on_the_disk_before_the_caller_hears_200() {
    let at = install(Engine::Sqlite, |config| config.sip.transport.shards = 1).await;
    let daemon = at.installation.start().await.expect("it starts");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = at.installation.config.sip.transport.listen;
    let carrier = tandem::demo::process::free_udp().expect("a free port");
    let world = provision(&at.installation, carrier).await;
    let phones = Agent::start(AgentConfig::new(any, server)).await.expect("phones");
    let mut accounts = Vec::new();
    for phone in world.phones_of(0).take(2) {
        let account = Account::new(&*phone.username, world.customers[0].domain, phone.password.expose());
        accounts.push(phones.register(account).await.expect("it registers"));
    }
    let pid = daemon.id().expect("it runs").to_string();
    let trace = at.dir.path().join("trace");
    let mut strace = tokio::process::Command::new("strace")
        .args([
            "-f",
            "-ttt",
            "-T",
            "-y",
            "-s",
            "64",
            "-e",
            "trace=fsync,fdatasync,sendto,sendmsg,sendmmsg",
            "-p",
            &pid,
            "-o",
        ])
        .arg(&trace)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("strace is installed by `make test`");
    testkit::wait_until(Duration::from_secs(10), async || trace.is_file()).await;
    let outcome =
        phones.call(CallRequest::new(accounts[0], world.phones[1].extension.clone(), 300)).await.expect("it is placed");
    assert!(outcome.is_answered(), "{outcome:?}");
    // Detaching writes the rest of the trace.
    let tracer = strace.id().and_then(|id| i32::try_from(id).ok()).expect("strace runs");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(tracer), nix::sys::signal::Signal::SIGINT).expect("it hears");
    strace.wait().await.expect("it ends");
    let text = std::fs::read_to_string(&trace).expect("a trace");
    let journal_sync = first_sync(&text);
    let answer = text.lines().position(|l| l.contains("send") && l.contains("SIP/2.0 200") && !l.contains("OPTIONS"));
    let (Some(journal_sync), Some(answer)) = (journal_sync, answer) else {
        panic!("both must be in the trace:\n{text}")
    };
    assert!(journal_sync < answer, "the 200 left first:\n{text}");
    daemon.terminate().await.expect("it stops");
}

/// Where the first sync of the journal has returned; a call that was interrupted by other threads returns in a line of
/// its own.
fn first_sync(trace: &str) -> Option<usize> {
    let lines: Vec<&str> = trace.lines().collect();
    let begun = lines.iter().position(|line| line.contains("sync(") && line.contains("/journal/"))?;
    if !lines[begun].contains("<unfinished") {
        return Some(begun);
    }
    let thread = lines[begun].split_whitespace().next()?;
    let resumed = |line: &&str| line.starts_with(thread) && line.contains("sync resumed");
    lines.iter().skip(begun).position(resumed).map(|after| begun + after)
}
