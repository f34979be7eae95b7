//! The whole schema under schemathesis, with identifiers that exist, on both databases: whatever is asked, an error has
//! a reason of the request's.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails says why, and one that passes what it measured"
)]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tandem::demo::{calls, world::World};
use tandem_e2e::{ENGINES, Engine, install, provision};
use tokio::process::Command;

const PACKAGE: &str = "schemathesis==4.32.5";
/// Documents of each field and engine.
const EXAMPLES: &str = "8";
/// The same documents in each run, so that a failure is one of the change under test. Another finds others.
const SEED: &str = "20261125";
/// Installing from a registry may be slow; the run takes seconds.
const BOUND: Duration = Duration::from_secs(300);

/// Runs a command to its end and gives what it printed.
async fn finish(command: &mut Command) -> (bool, String) {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(BOUND, command.output()).await.expect("within the bound");
    let output = output.unwrap_or_else(|error| panic!("install python3 with venv: {error}"));
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

async fn schemathesis(folder: &Path) -> std::path::PathBuf {
    let (made, told) = finish(Command::new("python3").args(["-m", "venv"]).arg(folder)).await;
    assert!(made, "install python3 with venv: {told}");
    let mut pip = Command::new(folder.join("bin/pip"));
    let (installed, told) = finish(pip.args(["install", "--quiet", "--disable-pip-version-check", PACKAGE])).await;
    assert!(installed, "let pip reach a registry: {told}");
    folder.join("bin/schemathesis")
}

/// Every object of the installation but tokens: the one in use would be revoked.
async fn identifiers(world: &World) -> Vec<Value> {
    let kinds = "accounts domains sites subscribers numbers trunks tariffs streams alarms reportRuns changes";
    let fields = kinds.split(' ').map(|kind| format!("{kind}(first: 10) {{ nodes {{ id }} }} "));
    let found = world.provider.graphql(&format!("{{ {} }}", fields.collect::<String>()), json!({})).await;
    let found = found.expect("what there is");
    let lists = found.as_object().into_iter().flat_map(|found| found.values());
    lists.filter_map(|list| list["nodes"].as_array()).flatten().map(|node| node["id"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_an_error_has_a_reason() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let schemathesis = schemathesis(folder.path()).await;
    for engine in ENGINES {
        fuzz(engine, &schemathesis, folder.path()).await;
    }
}

async fn fuzz(engine: Engine, schemathesis: &Path, folder: &Path) {
    let at = install(engine, |_| {}).await;
    let daemon = at.installation.start().await.expect("it starts");
    let carrier = calls::start_carrier(at.installation.config.sip.transport.listen).await.expect("a carrier");
    let world = provision(&at.installation, carrier.local_addr()).await;
    let rights: Vec<&str> = model::actor::Permission::ALL.iter().map(|p| p.as_str()).collect();
    let token = json!({ "accountId": world.resellers[0].account, "name": "all-rights", "permissions": rights });
    let token = world.provider.mutate("tokenIssue", token).await.expect("a token").secret.expect("revealed");
    let identifiers = identifiers(&world).await;
    assert!(identifiers.len() > 40, "{engine:?}: {} objects", identifiers.len());

    let mut run = Command::new(schemathesis);
    run.arg("run").arg(format!("http://{}/graphql", at.installation.config.http.listen));
    run.args(["--header", &format!("Authorization: Bearer {}", token.expose())]);
    run.args(["--checks", "errors_have_a_reason", "--max-examples", EXAMPLES, "--seed", SEED, "--no-color"]);
    run.env("SCHEMATHESIS_HOOKS", "fuzz_graphql").env("IDENTIFIERS", Value::from(identifiers).to_string());
    run.env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")).env("PYTHONDONTWRITEBYTECODE", "1");
    let (passed, told) = finish(run.current_dir(folder)).await;
    assert!(passed, "{engine:?}: {told}");
    let count = told.lines().find(|line| line.contains("generated")).unwrap_or_default();
    println!("{engine:?}: {}", count.trim());
    assert!(count.ends_with("passed"), "{engine:?}: {told}");
    daemon.terminate().await.expect("it stops");
}
