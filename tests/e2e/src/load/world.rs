//! Tandem in the seat that is measured: an installation, a trunk where the caller is, a subscriber where the callee is,
//! and users that register.

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tandem::client::Client;
use tandem::demo::installation::Installation;
use tandem::priority::is_call_core;

use super::machine::{LOAD_CORE, Priority, SERVER_CORE, move_thread, pinned, threads};
use super::sip::{self, Hold, Outcome, Plan, What};
/// Who registers.
pub const DOMAIN: &str = "bench.example";
/// The callee's number, as the carrier dials it.
pub const NUMBER: &str = "+43720100100";
/// Its user among those that register.
const CALLEE_USER: u64 = 0;
/// Users that are provisioned; user `uN` has the password of [`super::sip::password`].
pub const USERS: u64 = 1_000;
/// Requests of provisioning that are under way at a time.
const TOGETHER: usize = 8;
/// Until the daemon is ready or the directory has reached the core.
const READY_MAX: Duration = Duration::from_secs(60);
/// How often it is asked.
const ASK_PERIOD: Duration = Duration::from_millis(50);

/// Where the consumers of the journal, the database and the faces run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumers {
    /// On the core of the call core: all that Tandem does is in the figure. At ordinary priority, since that of the
    /// threads to each other counts here: other work of the machine is in the figure too.
    SameCore,
    /// On the core of the load: the figure is that of the call core, with its journal.
    OtherCore,
}

/// A running Tandem, pinned.
#[derive(Debug)]
pub struct Seat<'a> {
    child: Child,
    at: &'a Installation,
    admin: Client,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// Provisions the trunk, the callee and the users on a running installation.
///
/// # Panics
/// When a request is refused.
pub async fn provision(at: &Installation, caller: SocketAddr) {
    let client = at.client().expect("a client");
    let provider = &at.provider_account;
    let made = |answer: Result<tandem::client::Mutated, _>| answer.expect("it is provisioned").id;
    let input = json!({
        "parentId": provider, "kind": "CUSTOMER", "name": "Bench", "timezone": "Europe/Vienna", "currency": "EUR",
    });
    let account = made(client.mutate("accountCreate", input).await);
    let trunk = json!({
        "accountId": provider, "name": "load", "address": caller.to_string(), "priority": 1, "keepaliveMs": 0,
    });
    made(client.mutate("trunkCreate", trunk).await);
    let plan = json!({ "countryCode": "43", "nationalPrefix": "0", "internationalPrefix": "00" });
    let domain =
        made(client.mutate("domainCreate", json!({ "accountId": account, "name": DOMAIN, "dialPlan": plan })).await);
    let users: Vec<u64> = (0..USERS).collect();
    let first = std::sync::Arc::new(std::sync::OnceLock::new());
    let mut tasks = tokio::task::JoinSet::new();
    for chunk in users.chunks(users.len().div_ceil(TOGETHER)) {
        let (client, domain, chunk, first) =
            (client.clone(), domain.clone(), chunk.to_vec(), std::sync::Arc::clone(&first));
        tasks.spawn(async move {
            for user in chunk {
                let id = subscriber(&client, &domain, user).await;
                if user == CALLEE_USER {
                    let _first = first.set(id);
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("the users are provisioned");
    }
    let callee = first.get().expect("the callee is there");
    let number = json!({ "accountId": account, "e164": NUMBER, "subscriberId": callee });
    made(client.mutate("numberCreate", number).await);
}

async fn subscriber(client: &Client, domain: &str, user: u64) -> String {
    let input = json!({
        "domainId": domain, "username": format!("u{user}"), "displayName": format!("User {user}"),
        "password": super::sip::password(user),
    });
    client.mutate("subscriberCreate", input).await.expect("it is provisioned").id
}

impl<'a> Seat<'a> {
    /// Starts the daemon of an installation on the server's core and registers the callee.
    ///
    /// # Panics
    /// When it does not become ready, or does not know the users.
    pub async fn take(at: &'a Installation, consumers: Consumers, caller: SocketAddr, callee: SocketAddr) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&at.log_file);
        let log = log.expect("a log file");
        let priority = match consumers {
            Consumers::OtherCore => Priority::RealTime,
            Consumers::SameCore => Priority::Ordinary,
        };
        let mut command = pinned(&at.program, SERVER_CORE, priority);
        command.args(["serve", "--config"]).arg(&at.config_file);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = command.spawn().expect("the daemon starts");
        let admin = Client::new(&format!("http://{}", at.config.admin.listen), at.token.clone()).expect("a client");
        let mut seat = Self { child, at, admin };
        let asked = Instant::now();
        while seat.admin.get("/readyz").await.is_err() {
            let lives = seat.child.try_wait().is_ok_and(|status| status.is_none());
            assert!(lives && asked.elapsed() < READY_MAX, "the daemon is not ready: see its log");
            tokio::time::sleep(ASK_PERIOD).await;
        }
        if consumers == Consumers::OtherCore {
            for (_, thread) in threads(seat.id()).into_iter().filter(|(name, _)| !is_call_core(name)) {
                move_thread(thread, LOAD_CORE);
            }
        }
        seat.register(caller, callee);
        seat
    }

    /// Registers the callee's user at the callee's address.
    fn register(&self, caller: SocketAddr, callee: SocketAddr) {
        let what = What::Registrations { domain: DOMAIN.to_owned(), users: 1 };
        let server = self.at.config.sip.transport.listen;
        let plan = Plan { server, caller: callee, callee: caller, rate: 1, count: 1, hold: Hold::Ms(0), what };
        let asked = Instant::now();
        loop {
            let Outcome { completed, .. } = sip::run(&plan).expect("sockets");
            if completed == 1 {
                return;
            }
            assert!(asked.elapsed() < READY_MAX, "the callee cannot register");
        }
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Records that the slowest consumer is behind, as of its last step.
    ///
    /// # Panics
    /// When the metrics cannot be had.
    pub async fn lag(&self) -> f64 {
        let text = self.admin.get("/metrics").await.expect("metrics");
        let text = String::from_utf8_lossy(&text);
        let lags = text.lines().filter(|line| line.starts_with("tandem_consumer_lag_records"));
        lags.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).fold(0.0, f64::max)
    }
}
