//! SIGKILL at random moments under load: what a caller heard answered is billed, once, and nothing is lost that was not
//! in flight at the kill.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails says why, and one that passes what it measured"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tandem::call::{Account, AccountId, Agent, AgentConfig, Behaviour, CallRequest, Talk};
use tandem::demo::world::World;
use tandem_e2e::ledger::{assert_books, journaled_calls, number, store};
use tandem_e2e::{ENGINES, Engine, TestInstallation, install, provision};
use tokio::task::JoinSet;

/// Kills per engine; `make soak` makes more.
const ROUNDS: u64 = 20;
/// As many in `make soak`.
const ROUNDS_SOAK: u64 = 200;
/// 50 calls a second.
const SPACING: Duration = Duration::from_millis(20);
/// How long a call may need to notice that the daemon is gone.
const CALL_MAX: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_heard_answered_is_billed_once_on_sqlite() {
    rounds(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_heard_answered_is_billed_once_on_postgresql() {
    rounds(Engine::Postgres).await;
}

async fn rounds(engine: Engine) {
    assert!(ENGINES.contains(&engine));
    let rounds = if testkit::soak::is_long() { ROUNDS_SOAK } else { ROUNDS };
    let seed = u64::from(std::process::id());
    println!("{engine:?}: seed {seed}");
    // The moment of each kill is drawn from a seed that is printed.
    let mut random = testkit::Random::new(seed);
    let at = install(engine, |config| config.media.sessions = 400).await;
    let mut daemon = at.installation.start().await.expect("the daemon starts");
    let server = at.installation.config.sip.transport.listen;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let answer = Behaviour::Answer { after_ms: 20, talk: Talk::UntilFarEnd };
    let carrier = Agent::start(AgentConfig::new(any, server).trunk("", answer)).await.expect("a carrier");
    let world = provision(&at.installation, carrier.local_addr()).await;
    let phones = Agent::start(AgentConfig::new(any, server)).await.expect("phones");
    let accounts = register(&world, &phones).await;

    let mut heard: BTreeSet<String> = BTreeSet::new();
    let mut calls = JoinSet::new();
    for round in 0..rounds {
        let until_kill = Duration::from_millis(200 + random.draw() % 1_300);
        let mut spacing = tokio::time::interval(SPACING);
        let kill = tokio::time::sleep(until_kill);
        tokio::pin!(kill);
        let mut n: usize = 0;
        loop {
            tokio::select! {
                () = &mut kill => break,
                _ = spacing.tick() => {}
            }
            n += 1;
            let caller = accounts[n % 4];
            let to = if n.is_multiple_of(3) {
                format!("00493055{round:04}{n:04}")
            } else {
                world.phones[(n + 1) % 4].extension.clone()
            };
            let talk_ms = 100 + random.draw() % 900;
            if let Ok(handle) = phones.place(CallRequest::new(caller, to, talk_ms)).await {
                calls.spawn(tokio::time::timeout(CALL_MAX, handle.outcome()));
            }
        }
        daemon.kill().await.expect("it is killed");
        daemon = at.installation.start().await.unwrap_or_else(|error| panic!("{engine:?} round {round}: {error}"));
    }
    while let Some(outcome) = calls.join_next().await {
        if let Ok(Ok(Ok(outcome))) = outcome
            && outcome.is_answered()
        {
            heard.insert(outcome.call_id);
        }
    }
    assert!(heard.len() > 100, "{engine:?}: only {} calls were answered", heard.len());
    settle(&at).await;
    daemon.terminate().await.expect("it drains");
    audit(engine, &at, &heard).await;
}

async fn register(world: &World, phones: &Agent) -> Vec<AccountId> {
    let mut accounts = Vec::new();
    for phone in world.phones_of(0).take(4) {
        let account = Account::new(&*phone.username, world.customers[0].domain, phone.password.expose());
        let account = account.behaving(Behaviour::Answer { after_ms: 20, talk: Talk::UntilFarEnd });
        accounts.push(phones.register(account).await.expect("it registers"));
    }
    accounts
}

/// Waits until the consumers have read the whole journal.
async fn settle(at: &TestInstallation) {
    tandem::demo::await_settled(&at.installation).await.expect("the consumers catch up");
}

async fn audit(engine: Engine, at: &TestInstallation, heard: &BTreeSet<String>) {
    let journal = journaled_calls(&at.installation.config);
    for (call, told) in &journal {
        assert!(told.answered <= 1 && told.ended <= 1 && told.unanswered <= 1, "{engine:?}: {call} {told:?}");
        assert_eq!(told.answered, told.ended, "{engine:?}: an answered call has one end: {call} {told:?}");
    }
    let answered: BTreeSet<&String> =
        journal.values().filter(|call| call.answered == 1).map(|call| &call.a_sip_call_id).collect();
    let lost: Vec<&String> = heard.iter().filter(|call| !answered.contains(call)).collect();
    assert!(lost.is_empty(), "{engine:?}: heard answered, but not journaled: {lost:?}");

    let db = store(&at.installation.config).await;
    assert_books(&db).await;
    let billed = number(&db, "SELECT COUNT(*) FROM usage WHERE leg = 0 AND aborted = false").await;
    assert_eq!(usize::try_from(billed), Ok(answered.len()), "{engine:?}: every answered call has its usage");
    let charges = number(&db, "SELECT COUNT(*) FROM rated WHERE side = 'sell'").await;
    assert_eq!(charges, billed, "{engine:?}: every answered call is charged once");
    let estimated = journal.values().filter(|call| call.estimated).count();
    println!("{engine:?}: {} answered, {} heard, {estimated} ended by estimate", answered.len(), heard.len());
    assert!(estimated > 0, "{engine:?}: no kill met a call that was up");
}
