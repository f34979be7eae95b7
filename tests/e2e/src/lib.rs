//! End-to-end tests: the real binary, real sockets, real peers, on both databases.
//!
//! What it does: makes throw-away installations on SQLite and PostgreSQL, reads journal and store afterwards as an
//! auditor would, drives `sipp`, runs the commands that the documentation shows. What it never does: reach into the
//! daemon; everything goes through the program's own faces, and through its files once it is dead.

pub mod baresip;
pub mod hostile;
pub mod ledger;
pub mod load;
pub mod page_shell;
pub mod pages;
pub mod sipp;
pub mod small_disks;
pub mod traps;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tandem::call::{Account, Agent, AgentConfig};
use tandem::demo::calls::register_phone;
use tandem::demo::installation::{Installation, configure};
use tandem::demo::world::World;
use tempfile::TempDir;

/// Which database the store is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The embedded default.
    Sqlite,
    /// A fresh database of the test cluster.
    Postgres,
}

/// Both, for tests that run on each.
pub const ENGINES: [Engine; 2] = [Engine::Sqlite, Engine::Postgres];

/// An installation in a directory that goes with it.
#[derive(Debug)]
pub struct TestInstallation {
    /// The installation.
    pub installation: Installation,
    /// Its directory.
    pub dir: TempDir,
}

/// A subscriber that a peer plays.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// Digest username, also the user part of its address.
    pub username: String,
    /// Password.
    pub password: String,
    /// Domain.
    pub domain: String,
}

impl Subscriber {
    /// The phone with this number in the demo's world.
    #[must_use]
    pub fn of(world: &World, index: usize) -> Self {
        let phone = &world.phones[index];
        let domain = world.customers[phone.customer].domain.to_owned();
        Self { username: phone.username.clone(), password: phone.password.expose().clone(), domain }
    }
}

/// The `tandem` program of this build: beside the test's own executable.
///
/// # Panics
/// When it was not built: `cargo build --release` first.
#[must_use]
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has an executable");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let program = folder.join("tandem");
    assert!(program.is_file(), "{} is missing: run `cargo build --release --workspace` first", program.display());
    program
}

/// Makes an installation; `change` adjusts the configuration.
///
/// # Panics
/// When it cannot be made.
pub async fn install(engine: Engine, change: impl FnOnce(&mut tandem::config::Config)) -> TestInstallation {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut config = configure(dir.path()).expect("free ports");
    if engine == Engine::Postgres {
        config.database.url = testkit::postgres::fresh_database(false).await;
    }
    change(&mut config);
    let installation = Installation::prepare(&program(), dir.path(), config).await.expect("an installation");
    TestInstallation { installation, dir }
}

/// What the daemon says of its readiness: the HTTP status, and the checks that do not hold.
///
/// # Panics
/// When it does not answer.
pub async fn readiness(config: &tandem::config::Config) -> (u16, Vec<(String, String)>) {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().expect("a client");
    let answer = http.get(format!("http://{}/readyz", config.admin.listen)).send().await.expect("it answers");
    let status = answer.status().as_u16();
    let body: serde_json::Value = answer.json().await.expect("JSON");
    let text = |check: &serde_json::Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let checks = body["checks"].as_array().cloned().unwrap_or_default();
    let failed = checks.iter().filter(|check| check["ok"] == false);
    (status, failed.map(|check| (text(check, "name"), text(check, "detail"))).collect())
}

/// Waits until every consumer has caught up, however slow the machine is.
///
/// # Panics
/// When that takes longer than two minutes.
pub async fn settle(at: &Installation) {
    let mut settled = Ok(());
    for _ in 0..8 {
        settled = tandem::demo::await_settled(at).await;
        if settled.is_ok() {
            return;
        }
    }
    settled.expect("the consumers catch up");
}

/// Provisions the demo's world on a running installation, and waits until the call core knows the last phone; the
/// carrier's address is that of the trunk.
///
/// # Panics
/// When a request is refused.
pub async fn provision(at: &Installation, carrier: SocketAddr) -> World {
    let provider = at.client().expect("a client");
    let world =
        tandem::demo::world::provision(provider, &at.provider_account, carrier).await.expect("the demo's world");
    let (last, any) = (world.phones.last().expect("there are phones"), SocketAddr::from(([127, 0, 0, 1], 0)));
    let agent = Agent::start(AgentConfig::new(any, at.config.sip.transport.listen)).await.expect("an agent");
    let account = Account::new(&*last.username, world.customers[last.customer].domain, last.password.expose());
    let account = register_phone(&agent, account).await.expect("the last phone is known to the core");
    agent.unregister(account).await.expect("it goes again");
    world
}
