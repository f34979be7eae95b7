//! The whole way of a copy, with the real program: calls are billed, the copy is made while further calls go on, the
//! installation is destroyed and restored, and the books are as exact as before.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tandem::call::{Account, Agent, AgentConfig, Behaviour, CallRequest, Talk};
use tandem::demo::calls::register_phone;
use tandem::demo::installation::{Installation, configure};
use tandem::demo::world::World;
use tokio::process::Command;

async fn tandem(at: &Installation, arguments: &[&str]) -> Output {
    let mut command = Command::new(&at.program);
    command.args(arguments).args(["--output", "json", "--config"]).arg(&at.config_file);
    command.output().await.expect("the program runs")
}

async fn done(at: &Installation, arguments: &[&str]) -> Value {
    let output = tandem(at, arguments).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    serde_json::from_str(&out).expect("JSON")
}

async fn refused(at: &Installation, arguments: &[&str], because: &str) {
    let output = tandem(at, arguments).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(because), "{arguments:?}: {text}");
}

async fn clean(at: &Installation) {
    let streams = done(at, &["billing", "verify"]).await;
    let complete = |stream: &Value| stream["findings"] == json!([]);
    assert!(streams.as_array().is_some_and(|streams| !streams.is_empty() && streams.iter().all(complete)), "{streams}");
    assert_eq!(done(at, &["billing", "reconcile"]).await["findings"], json!([]));
    assert_eq!(done(at, &["journal", "verify"]).await["finding"], Value::Null);
    done(at, &["audit", "verify"]).await;
}

struct Phones {
    agent: Agent,
    caller: tandem::call::AccountId,
    callee: String,
}

impl Phones {
    async fn register(world: &World, server: SocketAddr) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let agent = Agent::start(AgentConfig::new(any, server)).await.expect("phones");
        let mut accounts = Vec::new();
        for phone in world.phones_of(0).take(2) {
            let account = Account::new(&*phone.username, world.customers[0].domain, phone.password.expose());
            let account = account.behaving(Behaviour::Answer { after_ms: 0, talk: Talk::UntilFarEnd });
            accounts.push(register_phone(&agent, account).await.expect("it registers"));
        }
        let callee = world.phones_of(0).nth(1).expect("a second phone").extension.clone();
        Self { agent, caller: accounts[0], callee }
    }

    async fn call(&self) {
        let request = CallRequest::new(self.caller, self.callee.clone(), 30);
        let outcome = self.agent.place(request).await.expect("it is placed").outcome().await.expect("it ends");
        assert!(outcome.is_answered(), "{} {}", outcome.status, outcome.reason);
    }
}

async fn close_file(world: &World, sequence: u32) -> Value {
    world.provider.mutate("billingFileClose", json!({ "streamId": world.stream })).await.expect("it is closed");
    let path = format!("/billing/streams/{}/files/{sequence}", world.stream);
    let published = tandem::demo::await_some("a file", async || {
        // Not there yet, or not published yet.
        let file = world.bss.get_json(&path).await.unwrap_or_default();
        Ok::<_, tandem::client::ClientError>((file["published"] == true).then_some(file))
    });
    published.await.expect("it is published")
}

/// Calls that go on while the copy is made.
const DURING: u64 = 3;

async fn way(url: String, empty_url: String) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = configure(dir.path()).expect("free ports");
    config.database.url = url;
    let program = Path::new(env!("CARGO_BIN_EXE_tandem"));
    let at = Installation::prepare(program, dir.path(), config.clone()).await.expect("an installation");
    let daemon = at.start().await.expect("it starts");
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let client = at.client().expect("a client");
    let world = tandem::demo::world::provision(client, &at.provider_account, nobody).await.expect("the world");
    let phones = Phones::register(&world, config.sip.transport.listen).await;
    for _ in 0..5 {
        phones.call().await;
    }
    tandem::demo::await_settled(&at).await.expect("billed");
    let first = close_file(&world, 1).await;
    assert_eq!(first["recordCount"], 5, "{first}");

    // Calls go on while it is copied.
    let copy = dir.path().join("copy");
    let to = copy.to_str().expect("text").to_owned();
    let arguments = ["backup", "--to", to.as_str()];
    let (made, ()) = tokio::join!(done(&at, &arguments), async {
        for _ in 0..DURING {
            phones.call().await;
        }
    });
    assert!(made["files"].as_u64().is_some_and(|files| files >= 4), "{made}");
    refused(&at, &arguments, "is there already").await;
    refused(&at, &["restore", "--from", &to], "another tandem daemon works in").await;
    daemon.terminate().await.expect("it drains");
    refused(&at, &["restore", "--from", &to], "is not empty").await;

    // The installation is lost; the copy is damaged, then whole again.
    std::fs::remove_dir_all(&config.node.data_dir).expect("it is destroyed");
    let text = std::fs::read_to_string(&at.config_file).expect("it can be read");
    if !config.database.url.is_empty() {
        refused(&at, &["restore", "--from", &to], "the database is not empty").await;
        let text = text.replace(&config.database.url, &empty_url);
        std::fs::write(&at.config_file, text).expect("it can be written");
    }
    let key = copy.join("secrets.key");
    let kept = std::fs::read(&key).expect("it can be read");
    std::fs::write(&key, [&kept[..], b"x"].concat()).expect("it can be written");
    refused(&at, &["restore", "--from", &to], "the backup is damaged").await;
    std::fs::write(&key, kept).expect("it can be written");
    let restored = done(&at, &["restore", "--from", &to]).await;
    assert_eq!(restored["billing_files"], 1, "{restored}");
    clean(&at).await;

    // It goes on: the same file, the next sequence, every record of the copied journal billed.
    let daemon = at.start().await.expect("it starts on what was restored");
    let path = format!("/billing/streams/{}/files/1", world.stream);
    let again = world.bss.get_json(&path).await.expect("the file is there");
    assert_eq!(again["sha256"], first["sha256"], "{again}");
    let phones = Phones::register(&world, config.sip.transport.listen).await;
    phones.call().await;
    tandem::demo::await_settled(&at).await.expect("no cursor is ahead of the journal");
    let second = close_file(&world, 2).await;
    let count = second["recordCount"].as_u64().expect("a count");
    assert!((1..=DURING + 1).contains(&count), "{count}: at most {DURING} during the copy, and one after");
    clean(&at).await;
    daemon.terminate().await.expect("it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_made_under_load_is_an_installation_again_on_sqlite() {
    way(String::new(), String::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_made_under_load_is_an_installation_again_on_postgresql() {
    let url = testkit::postgres::fresh_database(false).await;
    way(url, testkit::postgres::fresh_database(false).await).await;
}
