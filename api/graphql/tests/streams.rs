//! Subscriptions, seen by clients that others wrote: `graphql-ws` and `graphql-sse`, on a served instance.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use api_http::global_id;
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use model::change::ResourceKind;
use model::tenancy::AccountPath;
use serde_json::json;
use support::http::{account, owner};
use support::node::Node;
use support::{Streaming, face_over};
use tokio::net::TcpListener;

const PACKAGES: [&str; 4] = ["graphql-ws@6.4.2", "graphql-sse@2.6.1", "ws@8.23.0", "graphql@16.15.0"];

/// What the script may do to the instance.
fn hands(streaming: Streaming) -> Router {
    let commit = async |State(streaming): State<Streaming>, Path((whose, times)): Path<(String, u32)>| {
        let path = match whose.as_str() {
            "owner" => owner(),
            "below" => owner().child(account(20)).unwrap(),
            _ => AccountPath::root(account(1)).child(account(3)).unwrap(),
        };
        (0..times).for_each(|_| streaming.feed.commit(path.clone()));
    };
    let revoke = async |State(streaming): State<Streaming>| streaming.tokens.revoked.store(true, Ordering::SeqCst);
    let restore = async |State(streaming): State<Streaming>| streaming.tokens.revoked.store(false, Ordering::SeqCst);
    let stop = async |State(streaming): State<Streaming>| {
        streaming.stop.send_replace(true);
    };
    let hands = Router::new().route("/commit/{whose}/{times}", post(commit)).route("/revoke", post(revoke));
    hands.route("/restore", post(restore)).route("/stop", post(stop)).with_state(streaming)
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_are_told_what_is_theirs_until_their_token_ends() {
    let node = Node::set_up(&PACKAGES, include_str!("streams.js")).await;
    let streaming = Streaming::default();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut served = Vec::new();
    let mut ports = Vec::new();
    for router in [face_over(Arc::default(), &streaming).router, hands(streaming)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ports.push(listener.local_addr().unwrap().to_string());
        let mut stopped = stopped.clone();
        served.push(tokio::spawn(api_http::serve(listener, router, async move {
            drop(stopped.wait_for(|stop| *stop).await);
        })));
    }
    let [face, hands] = ports.try_into().unwrap();
    let below = global_id::encode(ResourceKind::Account, account(20));
    let urls = [format!("http://{face}/graphql"), format!("ws://{face}/graphql/ws"), format!("http://{hands}"), below];
    let seen = node.run(&urls.each_ref().map(String::as_str)).await;
    stop.send_replace(true);
    for server in served {
        server.await.unwrap().unwrap();
    }

    // 1 was committed before; 4 is another reseller's; 6 lies below
    assert_eq!(seen["mine"], json!([2, 3, 5, 6]), "{seen}");
    assert_eq!(seen["events"], seen["mine"]);
    assert_eq!((&seen["theirs"], &seen["narrow"]), (&json!([4]), &json!([6])));
    assert_eq!((&seen["command"], &seen["disposed"]), (&json!("account_update"), &json!(["complete", "complete"])));

    assert_eq!(seen["denied"], "FORBIDDEN");
    assert_eq!([&seen["unknownField"], &seen["twoFields"]], ["BAD_REQUEST"; 2]);
    assert_eq!(seen["query"], "only subscriptions run over WebSocket; send queries and mutations by POST");
    let codes = json!({ "noToken": 4403, "badToken": 4403, "badHeader": 401, "header": 1000, "tooEarly": 4401,
        "nonsense": 4400, "twice": 4429, "sameId": 4409, "protocol": 4406 });
    assert_eq!(seen["codes"], codes);
    assert_eq!((&seen["tooMany"], &seen["idAgain"]), (&json!(["16"]), &json!(1000)));

    assert_eq!(seen["deaf"], 1006);
    assert_eq!(seen["slow"], json!([1008, 1008, "SLOW_CONSUMER"]));
    let ended = json!({ "code": 4401, "reason": "the token has expired, was revoked, or may do something else now", "told": 0 });
    assert_eq!(seen["revoked"], ended);
    assert_eq!(seen["revokedInEvents"], json!(["UNAUTHENTICATED", 1]));
    assert_eq!(seen["stopped"], 1001, "{seen}");
}
