//! GraphQL over HTTP and the limits of a document, over in-memory ports.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

mod support;

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};
use support::http::{Face, request, send, stream_id};
use support::{ask, code, face, post};

const MUTATION: &str = "mutation($key: String, $dry: Boolean! = false, $s: ID!) { \
    billingFileClose(input: { streamId: $s }, dryRun: $dry, idempotencyKey: $key) { \
    id changeId replayed revealedSecret plan { reversible effects { kind resourceKind } } userErrors { code field } } }";

async fn change(face: &Face, variables: Value) -> Value {
    let mut variables = variables;
    variables["s"] = json!(stream_id());
    ask(face, "full", MUTATION, variables).await
}

fn parsed(response: &Response<Vec<u8>>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

#[tokio::test]
async fn a_mutation_comes_by_post_and_json_alone() {
    let face = face();
    let text = "mutation { billingFileClose(input: { streamId: \"x\" }) { id } }";
    let uri = "/graphql?query=mutation%20%7B%20billingFileClose(input%3A%20%7B%20streamId%3A%20%22x%22%20%7D)%20%7B%20id%20%7D%20%7D";
    let by_get = send(&face.router, request("GET", uri, Some("full")).body(Body::empty()).unwrap()).await;
    assert_eq!(by_get.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(by_get.headers()["allow"], "POST");
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
        let body = json!({ "query": text }).to_string();
        let builder = request("POST", "/graphql", Some("full")).header("content-type", content_type);
        let refused = send(&face.router, builder.body(Body::from(body)).unwrap()).await;
        assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
    }
    let batch = request("POST", "/graphql", Some("full")).header("content-type", "application/json");
    let batch = batch.body(Body::from(json!([{ "query": "{ __typename }" }]).to_string())).unwrap();
    assert_eq!(send(&face.router, batch).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(face.pipeline.commits.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_answer_has_the_media_type_that_is_liked() {
    let face = face();
    let check = async |accept: Option<&str>, query: &str, status: u16, content_type: &str| {
        let mut builder = request("POST", "/graphql", Some("full")).header("content-type", "application/json");
        if let Some(accept) = accept {
            builder = builder.header("accept", accept);
        }
        let body = json!({ "query": query }).to_string();
        let response = send(&face.router, builder.body(Body::from(body)).unwrap()).await;
        assert_eq!(response.status().as_u16(), status, "{accept:?} {query}");
        let found = response.headers()["content-type"].to_str().unwrap();
        assert_eq!(found, format!("{content_type}; charset=utf-8"), "{accept:?} {query}");
        parsed(&response)
    };
    let (old, new) = ("application/json", "application/graphql-response+json");
    check(None, "{ __typename }", 200, old).await;
    check(Some("*/*"), "{ __typename }", 200, old).await;
    check(Some(new), "{ __typename }", 200, new).await;
    check(Some(&format!("{old};q=0.5, {new}")), "{ __typename }", 200, new).await;
    check(Some(&format!("{old}, {new};q=0.9")), "{ __typename }", 200, old).await;
    check(Some("text/html"), "{ __typename }", 406, old).await;
    for broken in ["{", "{ nothing }", "query($id: ID!) { node(id: $id) { id } }"] {
        let answer = check(Some(new), broken, 400, new).await;
        assert!(answer.get("data").is_none(), "{broken}: {answer}");
        let answer = check(Some(old), broken, 200, old).await;
        assert_eq!(code(&answer), "BAD_REQUEST", "{broken}: {answer}");
    }
}

#[tokio::test]
async fn a_change_is_planned_committed_or_refused() {
    let face = face();
    let commits = || face.pipeline.commits.load(Ordering::Relaxed);
    let planned = change(&face, json!({ "dry": true })).await;
    let payload = &planned["data"]["billingFileClose"];
    assert_eq!(payload["plan"]["effects"][0], json!({ "kind": "CREATED", "resourceKind": "billing_file" }));
    assert!(payload["id"].is_null() && payload["changeId"].is_null(), "{planned}");
    assert_eq!(commits(), 0);

    let done = change(&face, json!({ "key": "k1" })).await;
    let payload = &done["data"]["billingFileClose"];
    assert_eq!(payload["revealedSecret"], "once");
    assert!(
        payload["id"].is_string() && payload["changeId"].is_string() && payload["userErrors"] == json!([]),
        "{done}"
    );
    assert_eq!(commits(), 1);
    let again = change(&face, json!({ "key": "replayed" })).await;
    let payload = &again["data"]["billingFileClose"];
    assert!(payload["replayed"] == true && payload["revealedSecret"].is_null(), "{again}");

    for (key, refusal, field) in [
        ("conflict", "CONFLICT", "name"),
        ("grant", "FORBIDDEN", "permissions"),
        ("reused", "IDEMPOTENCY_CONFLICT", "idempotencyKey"),
        ("", "INVALID", "idempotencyKey"),
        ("a b", "INVALID", "idempotencyKey"),
    ] {
        let answer = change(&face, json!({ "key": key })).await;
        let payload = &answer["data"]["billingFileClose"];
        assert_eq!(payload["userErrors"], json!([{ "code": refusal, "field": field }]), "{key}: {answer}");
        assert!(payload["id"].is_null() && payload["plan"].is_null());
    }
    for (key, expected) in [("denied", "FORBIDDEN"), ("down", "UNAVAILABLE"), ("panic", "INTERNAL")] {
        assert_eq!(code(&change(&face, json!({ "key": key })).await), expected, "{key}");
    }
}

#[tokio::test]
async fn a_default_skips_as_a_value_does() {
    let face = face();
    let skipped = "mutation($skip: Boolean = true, $s: ID!) { __typename \
        ... @skip(if: $skip) { billingFileClose(input: { streamId: $s }) { id } } }";
    let run = async |variables: Value| ask(&face, "full", skipped, variables).await;
    assert_eq!(run(json!({ "s": stream_id() })).await, json!({ "data": { "__typename": "Mutation" } }));
    assert_eq!(face.pipeline.commits.load(Ordering::Relaxed), 0);
    assert!(run(json!({ "s": stream_id(), "skip": false })).await["data"]["billingFileClose"]["id"].is_string());
    let query = "query($with: Boolean = true) { viewer { name @include(if: $with) accountId @skip(if: $with) } }";
    let viewer = ask(&face, "full", query, Value::Null).await;
    assert_eq!(viewer["data"]["viewer"], json!({ "name": "full" }));
}

#[tokio::test]
async fn floods_are_refused_before_they_cost() {
    let face = face();
    let page = "edges { cursor node { id parentId kind name timezone currency callLimit subscriberQuota version } }";
    let full = |n: usize| -> String {
        let fields: String = (0..n).map(|i| format!("a{i}: accounts(first: 100) {{ {page} }} ")).collect();
        format!("{{ {fields} }}")
    };
    assert!(ask(&face, "full", &full(2), Value::Null).await["errors"].is_null());
    let deep = "{ __schema { types { name ofType { ofType { ofType { ofType { ofType { ofType { ofType { ofType { ofType { \
                ofType { ofType { ofType { ofType { name } } } } } } } } } } } } } } } }";
    let long = format!("{{ __typename {} }}", "#".repeat(70_000));
    let directives = format!("{{ __typename {} }}", "@skip(if: false) ".repeat(31));
    let bomb: String = (0..40).map(|i| format!("fragment f{i} on Query {{ ...f{0} ...f{0} }} ", i + 1)).collect();
    let bomb = format!("{{ ...f0 }} {bomb} fragment f40 on Query {{ __typename }}");
    let two = "mutation { a: alarmAcknowledge(input: { id: \"x\" }) { id } b: alarmAcknowledge(input: { id: \"y\" }) { id } }";
    // lists within lists cost both sizes, intervals the span that is asked for
    let rates = "{ tariffs(first: 100) { edges { node { rates(first: 100) { edges { node { prefix } } } } } } }";
    let aliased: String = (0..25)
        .map(|i| format!("a{i}: tariffs {{ nodes {{ rates(first: 100) {{ nodes {{ prefix price }} }} }} }} "))
        .collect();
    let aliased = format!("{{ {aliased} }}");
    let intervals = |to: &str, fields: &str| {
        format!("{{ performanceIntervals(from: \"2026-01-01T00:00:00Z\", to: \"{to}\") {{ {fields} }} }}")
    };
    let month = intervals("2026-02-01T00:00:00Z", "start attempts");
    let age = intervals("2999-01-01T00:00:00Z", "start");
    let balances = "{ ledgerBalances(first: 101) { nodes { book } } }";
    let day = intervals("2026-01-02T00:00:00Z", "start attempts answered");
    assert!(ask(&face, "full", &day, Value::Null).await["errors"].is_null());
    for document in [rates, &aliased, &month, &age, balances] {
        assert_eq!(code(&ask(&face, "full", document, Value::Null).await), "BAD_REQUEST", "{document:.80}");
    }
    for document in [&full(8), &full(31), deep, &long, &directives, &bomb, two, &"{".repeat(60_000)] {
        let answer = ask(&face, "full", document, Value::Null).await;
        assert_eq!(code(&answer), "BAD_REQUEST", "{document:.80}: {answer}");
        assert!(answer["data"].is_null());
    }
    for first in [0_i64, 101, 4_294_967_295, 4_294_967_296, -1] {
        let document = format!("{{ accounts(first: {first}) {{ nodes {{ id }} }} }}");
        assert_eq!(code(&ask(&face, "full", &document, Value::Null).await), "BAD_REQUEST", "{first}");
    }
    let large = "x".repeat(1_100_000);
    let status = post(&face, Some("full"), "{ __typename }", json!({ "x": large })).await.status();
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn rates_are_read_when_they_are_asked_for() {
    let billing = std::sync::Arc::new(support::http::Billing::default());
    let face = support::face_with_billing(billing.clone());
    let names = ask(&face, "full", "{ tariffs { nodes { id name } } }", Value::Null).await;
    assert_eq!(names["data"]["tariffs"]["nodes"][0]["name"], "Retail", "{names}");
    assert_eq!(billing.reads.load(Ordering::Relaxed), 0);
    let document = "query($id: ID!, $after: String) { node(id: $id) { ... on Tariff { \
        rates(first: 2, after: $after) { nodes { prefix price } pageInfo { hasNextPage endCursor } } } } }";
    let id = &names["data"]["tariffs"]["nodes"][0]["id"];
    let first = ask(&face, "full", document, json!({ "id": id })).await;
    let rates = &first["data"]["node"]["rates"];
    assert_eq!(rates["nodes"], json!([{ "prefix": "1", "price": "0.05" }, { "prefix": "43", "price": "0.05" }]));
    assert_eq!(rates["pageInfo"]["hasNextPage"], true);
    let next = ask(&face, "full", document, json!({ "id": id, "after": rates["pageInfo"]["endCursor"] })).await;
    assert_eq!(next["data"]["node"]["rates"]["nodes"], json!([{ "prefix": "44", "price": "0.05" }]));
    assert_eq!(billing.reads.load(Ordering::Relaxed), 2);
    let foreign = ask(&face, "foreign", document, json!({ "id": id })).await;
    assert_eq!(foreign["data"], json!({ "node": null }));
}

#[tokio::test]
async fn lists_are_connections_within_the_scope() {
    let face = face();
    let document = "query($after: String) { accounts(first: 1, after: $after) { \
        edges { cursor node { name currency } } pageInfo { hasNextPage hasPreviousPage endCursor } } }";
    let mine = ask(&face, "full", document, Value::Null).await;
    assert_eq!(mine["data"]["accounts"]["edges"][0]["node"], json!({ "name": "North", "currency": "EUR" }));
    let next = json!({ "after": mine["data"]["accounts"]["pageInfo"]["endCursor"] });
    let next = ask(&face, "full", document, next).await;
    assert_eq!(next["data"]["accounts"]["pageInfo"]["hasPreviousPage"], true);
    let foreign = ask(&face, "foreign", document, Value::Null).await;
    assert_eq!(foreign["data"]["accounts"]["edges"], json!([]));
    let viewer = ask(&face, "only:billing:read", "{ viewer { name permissions } }", Value::Null).await;
    assert_eq!(viewer["data"]["viewer"]["permissions"], json!(["billing:read"]));
}
