//! What the GraphQL path answers without a token: it says what is wrong with a request, and tells nothing of the schema.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

mod support;

use std::sync::atomic::Ordering;

use api_http::limit::{GRAPHQL_BODY_MAX, REQUESTS_OF_STRANGERS_MAX, SMALL_BODY_MAX};
use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};
use support::http::{Face, request, send};
use support::{code, face, post};

const NEW: &str = "application/graphql-response+json";

/// Status and body of a document that is sent by POST.
async fn ask(face: &Face, token: Option<&str>, document: &str) -> (u16, Value) {
    let builder = request("POST", "/graphql", token).header("content-type", "application/json").header("accept", NEW);
    let body = json!({ "query": document }).to_string();
    let response = send(&face.router, builder.body(Body::from(body)).unwrap()).await;
    assert_eq!(response.headers()["content-type"], format!("{NEW}; charset=utf-8"), "{document:.80}");
    (response.status().as_u16(), parsed(&response))
}

fn parsed(response: &Response<Vec<u8>>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

#[tokio::test]
async fn only_the_name_of_the_root_type_is_for_strangers() {
    let face = face();
    for (document, data) in [
        ("{ __typename }", json!({ "__typename": "Query" })),
        ("query($no: Boolean = true) { ... @skip(if: $no) { a: __typename } b: __typename }", json!({ "b": "Query" })),
        ("{ ... on Query { ...f } } fragment f on Query { __typename }", json!({ "__typename": "Query" })),
        // a type of ours and one that nobody has look the same
        ("{ __type(name: \"Account\") { name fields { name } } }", json!({ "__type": null })),
        ("{ __type(name: \"Nothing\") { name fields { name } } }", json!({ "__type": null })),
    ] {
        assert_eq!(ask(&face, None, document).await, (200, json!({ "data": data })), "{document}");
    }
    let ours = ask(&face, Some("none"), "{ __type(name: \"Account\") { name } __schema { queryType { name } } }").await;
    let ours = ours.1;
    assert_eq!(
        ours["data"],
        json!({ "__type": { "name": "Account" }, "__schema": { "queryType": { "name": "Query" } } })
    );
}

/// What exists and what does not have the same answer, so nothing can be found out by trying.
#[tokio::test]
async fn all_else_needs_a_token_and_tells_nothing() {
    let face = face();
    let refusal = ask(&face, None, "{ viewer { name } }").await;
    assert_eq!((refusal.0, code(&refusal.1)), (401, "UNAUTHENTICATED"));
    assert!(refusal.1.get("data").is_none());
    for document in [
        "{ viewr { name } }",
        "{ __typename accounts(first: 1) { nodes { id } } }",
        "{ accounts(frst: 1) { nodes { id } } }",
        "{ __schema { types { name } } }",
        "{ ... on Account { __typename } }",
        "{ ... on Acount { __typename } }",
        "{ ...f } fragment f on Query { viewer { name } }",
        "{ ...f } fragment f on Account { __typename }",
        "mutation { __typename }",
        "mutation { billingFileClose(input: { streamId: \"x\" }) { id } }",
        "subscription { changes { id } }",
        "subscription { __typename }",
    ] {
        assert_eq!(ask(&face, None, document).await, refusal, "{document}");
    }
    // what the validation of the empty schema finds names nothing but what was sent
    for (kind, other) in [("AccountCreateInput", "AccountCreteInput"), ("Timestamp", "Timestmp")] {
        let [known, unknown] = [kind, other].map(|kind| format!("query($x: {kind}) {{ __typename }}"));
        let (known, unknown) = (ask(&face, None, &known).await, ask(&face, None, &unknown).await);
        assert_eq!((known.0, unknown.0), (400, 400));
        assert_eq!(known.1.to_string().replace(kind, other), unknown.1.to_string());
    }
    let refused = post(&face, None, "{ viewer { name } }", Value::Null).await;
    assert_eq!(
        (refused.status(), &refused.headers()["www-authenticate"]),
        (StatusCode::UNAUTHORIZED, &json_challenge())
    );
    assert_eq!(face.pipeline.commits.load(Ordering::Relaxed), 0);
}

fn json_challenge() -> axum::http::HeaderValue {
    axum::http::HeaderValue::from_static(api_http::problem::CHALLENGE)
}

#[tokio::test]
async fn a_token_that_is_no_good_makes_no_stranger() {
    let face = face();
    for field in ["Bearer unknown", "Bearer", "Basic full", ""] {
        let builder = request("POST", "/graphql", None).header("content-type", "application/json");
        let body = Body::from(json!({ "query": "{ __typename }" }).to_string());
        let refused = send(&face.router, builder.header("authorization", field).body(body).unwrap()).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{field}");
        assert_eq!(refused.headers()["content-type"], "application/problem+json", "{field}");
    }
    // the path alone is open, and not for every method
    for (method, path) in [("DELETE", "/graphql"), ("GET", "/graphql/x"), ("GET", "/reports/runs")] {
        let refused = send(&face.router, request(method, path, None).body(Body::empty()).unwrap()).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
    }
}

/// With a token and without, the transport refuses the same.
#[tokio::test]
async fn the_transport_is_as_strict_with_strangers() {
    let face = face();
    let mutation = "mutation { billingFileClose(input: { streamId: \"x\" }) { id } }";
    let uri = "/graphql?query=mutation%20%7B%20billingFileClose(input%3A%20%7B%20streamId%3A%20%22x%22%20%7D)%20%7B%20id%20%7D%20%7D";
    let aliases: String = (0..31).map(|i| format!("a{i}: __typename ")).collect();
    let deep = "ofType { ".repeat(20) + "name" + &" }".repeat(20);
    let deep = format!("{{ __type(name: \"Query\") {{ {deep} }} }}");
    // each fragment spreads the next twice
    let bomb: String = (0..40).map(|i| format!("fragment f{i} on Query {{ ...f{0} ...f{0} }} ", i + 1)).collect();
    let bomb = format!("{{ ...f0 }} {bomb} fragment f40 on Query {{ __typename }}");
    for token in [None, Some("full")] {
        let by_get = send(&face.router, request("GET", uri, token).body(Body::empty()).unwrap()).await;
        assert_eq!((by_get.status().as_u16(), &by_get.headers()["allow"]), (405, &"POST".parse().unwrap()));
        for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
            let builder = request("POST", "/graphql", token).header("content-type", content_type);
            let body = Body::from(json!({ "query": mutation }).to_string());
            let refused = send(&face.router, builder.body(body).unwrap()).await;
            assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type} {token:?}");
        }
        let max = if token.is_some() { GRAPHQL_BODY_MAX } else { SMALL_BODY_MAX };
        let (fits, large) = ("x".repeat(max - 100), "x".repeat(max));
        for (text, status) in [(fits, StatusCode::OK), (large, StatusCode::PAYLOAD_TOO_LARGE)] {
            let answered = post(&face, token, "{ __typename }", json!({ "x": text })).await;
            assert_eq!(answered.status(), status, "{token:?}");
        }
        for document in [&format!("{{ {aliases} }}"), &deep, &bomb, "{", "{ ... @nothing { __typename } }"] {
            let (status, answer) = ask(&face, token, document).await;
            assert_eq!((status, code(&answer)), (400, "BAD_REQUEST"), "{document:.80} {token:?}: {answer}");
            assert!(answer.get("data").is_none());
        }
    }
    assert_eq!(face.pipeline.commits.load(Ordering::Relaxed), 0);
}

/// Bodies without a token that never end take the places of strangers, and of nobody else.
#[tokio::test]
async fn strangers_have_few_places_together() {
    let face = face();
    let endless = || {
        let body = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let builder = request("POST", "/graphql", None).header("content-type", "application/json");
        let (router, request) = (face.router.clone(), builder.body(body).unwrap());
        tokio::spawn(async move { send(&router, request).await })
    };
    let held: Vec<_> = (0..REQUESTS_OF_STRANGERS_MAX).map(|_| endless()).collect();
    // on one thread these are polled while this task steps back, and then wait for their bodies
    let step_back = async || {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    };
    step_back().await;
    let status = async |token| post(&face, token, "{ __typename }", Value::Null).await.status();
    assert_eq!(status(None).await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(status(Some("none")).await, StatusCode::OK);
    held[0].abort();
    step_back().await;
    assert_eq!(status(None).await, StatusCode::OK);
    held.iter().for_each(tokio::task::JoinHandle::abort);
}
