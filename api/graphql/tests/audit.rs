//! The audits of GraphQL over HTTP: the suite of the npm package `graphql-http`, all 61 checks, on a served instance.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

mod support;

use std::process::Stdio;
use std::time::Duration;

use support::face;
use tokio::net::TcpListener;
use tokio::process::Command;

/// The number of checks changed between versions: pinned.
const PACKAGES: [&str; 2] = ["graphql-http@1.23.1", "graphql@16"];
const AUDITS: usize = 61;
/// Installing from a registry may be slow; the audits themselves take a second.
const BOUND: Duration = Duration::from_secs(180);

const SCRIPT: &str = "
import { serverAudits } from 'graphql-http';
const fetchFn = (url, init = {}) =>
  fetch(url, { ...init, headers: { ...init.headers, authorization: 'Bearer full' } });
let ok = 0, rest = [];
for (const audit of serverAudits({ url: process.argv[2], fetchFn })) {
  const result = await audit.fn();
  if (result.status === 'ok') ok += 1; else rest.push(`${result.id} ${result.status}: ${result.name}: ${result.reason}`);
}
console.log(JSON.stringify({ ok, rest }));
";

async fn run(command: &mut Command, remedy: &str) -> String {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(BOUND, command.output()).await.expect("within the bound");
    let output = output.unwrap_or_else(|error| panic!("{remedy}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{remedy}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_audits_pass() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("package.json"), r#"{"private":true,"type":"module"}"#).unwrap();
    std::fs::write(folder.path().join("audit.js"), SCRIPT).unwrap();
    let remedy = "install node and npm, and let npm reach a registry";
    let mut install = Command::new("npm");
    install.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]).args(PACKAGES).current_dir(folder.path());
    run(&mut install, remedy).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/graphql", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(api_http::serve(listener, face().router, async { drop(stopped.await) }));
    let text = run(Command::new("node").args(["audit.js", &url]).current_dir(folder.path()), remedy).await;
    drop(stop);
    served.await.unwrap().unwrap();

    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["rest"], serde_json::json!([]), "audits that are not ok");
    assert_eq!(report["ok"], AUDITS);
}
