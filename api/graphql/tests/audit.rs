//! The audits of GraphQL over HTTP: the suite of the npm package `graphql-http`, all 61 checks, on a served instance,
//! with a token and without one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

mod support;

use support::face;
use support::node::Node;
use tokio::net::TcpListener;

/// The number of checks changed between versions: pinned.
const PACKAGES: [&str; 2] = ["graphql-http@1.23.1", "graphql@16.15.0"];
const AUDITS: usize = 61;

const SCRIPT: &str = "
import { serverAudits } from 'graphql-http';
const [url, token] = process.argv.slice(2);
const fetchFn = (to, init = {}) =>
  fetch(to, { ...init, headers: { ...init.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) } });
let ok = 0, rest = [];
for (const audit of serverAudits({ url, fetchFn })) {
  const result = await audit.fn();
  if (result.status === 'ok') ok += 1; else rest.push(`${result.id} ${result.status}: ${result.name}: ${result.reason}`);
}
console.log(JSON.stringify({ ok, rest }));
";

#[tokio::test(flavor = "multi_thread")]
async fn all_audits_pass() {
    let node = Node::set_up(&PACKAGES, SCRIPT).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/graphql", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(api_http::serve(listener, face().router, async { drop(stopped.await) }));
    for arguments in [vec![url.as_str(), "full"], vec![url.as_str()]] {
        let report = node.run(&arguments).await;
        assert_eq!(report["rest"], serde_json::json!([]), "audits that are not ok: {arguments:?}");
        assert_eq!(report["ok"], AUDITS, "{arguments:?}");
    }
    drop(stop);
    served.await.unwrap().unwrap();
}
