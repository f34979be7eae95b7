//! A walk of the whole schema: no field without a token, none without its permission, every mutation with the same
//! conventions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

mod support;

use std::fmt::Write;

use api_http::global_id;
use axum::body::Body;
use axum::http::StatusCode;
use model::change::ResourceKind;
use serde_json::{Value, json};
use support::http::{Face, account, file_id, request, run_id, send, stream_id};
use support::{ask, code, face, post};

const INTROSPECTION: &str = "{ __schema { types { kind name enumValues { name } inputFields { name type { ...T } } \
    fields { name args { name defaultValue type { ...T } } type { ...T } } } } } \
    fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }";

async fn types(face: &Face) -> Vec<Value> {
    let answer = ask(face, "none", INTROSPECTION, Value::Null).await;
    answer["data"]["__schema"]["types"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

fn find<'a>(types: &'a [Value], name: &str) -> &'a Value {
    types.iter().find(|kind| kind["name"] == name).unwrap_or_else(|| panic!("no type {name}"))
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A literal of a type.
fn literal(types: &[Value], kind: &Value) -> String {
    let name = kind["name"].as_str().unwrap_or_default();
    match kind["kind"].as_str().unwrap() {
        "NON_NULL" => literal(types, &kind["ofType"]),
        "LIST" => format!("[{}]", literal(types, &kind["ofType"])),
        "ENUM" => array(&find(types, name)["enumValues"])[0]["name"].as_str().unwrap().to_owned(),
        "INPUT_OBJECT" => {
            let required = array(&find(types, name)["inputFields"]).iter().filter(|f| f["type"]["kind"] == "NON_NULL");
            required.fold("{".to_owned(), |mut text, field| {
                write!(text, "{}: {} ", field["name"].as_str().unwrap(), literal(types, &field["type"])).unwrap();
                text
            }) + "}"
        }
        _ => match name {
            "Int" | "Long" => "1",
            "Boolean" => "true",
            "Timestamp" => "\"2026-01-01T00:00:00Z\"",
            "E164" => "\"+43720123456\"",
            "Currency" => "\"EUR\"",
            "Permission" => "\"billing:read\"",
            "Decimal" => "\"1.5\"",
            "ID" | "String" => "\"x\"",
            other => panic!("say how to write a {other}"),
        }
        .to_owned(),
    }
}

/// A document with one root field and what it requires.
fn document(types: &[Value], operation: &str, field: &Value) -> String {
    let args = array(&field["args"]).iter().filter(|a| a["type"]["kind"] == "NON_NULL" && a["defaultValue"].is_null());
    let args: Vec<_> =
        args.map(|a| format!("{}: {}", a["name"].as_str().unwrap(), literal(types, &a["type"]))).collect();
    let args = if args.is_empty() { String::new() } else { format!("({})", args.join(", ")) };
    format!("{operation} {{ {}{args} {{ __typename }} }}", field["name"].as_str().unwrap())
}

#[tokio::test]
async fn no_field_without_token_and_permission() {
    let face = face();
    let types = types(&face).await;
    for (operation, root, least) in [("query", "Query", 20), ("mutation", "Mutation", 23)] {
        let fields = array(&find(&types, root)["fields"]);
        assert!(fields.len() >= least, "{root} has {} fields", fields.len());
        for field in fields {
            let document = document(&types, operation, field);
            for stranger in [None, Some("unknown")] {
                let status = post(&face, stranger, &document, Value::Null).await.status();
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{document}");
            }
            let without = ask(&face, "none", &document, Value::Null).await;
            // `viewer` tells callers about themselves, `node` depends on the kind: see below
            if !["viewer", "node"].contains(&field["name"].as_str().unwrap()) {
                assert_eq!(code(&without), "FORBIDDEN", "{document}: {without}");
                assert!(without["data"].is_null(), "{document}: {without}");
            }
        }
    }
    for field in array(&find(&types, "Subscription")["fields"]) {
        let document = document(&types, "subscription", field);
        for (token, status, code) in
            [(None, 401, "UNAUTHENTICATED"), (Some("unknown"), 401, ""), (Some("none"), 200, "FORBIDDEN")]
        {
            let builder = request("POST", "/graphql", token).header("content-type", "application/json");
            let body = Body::from(json!({ "query": document }).to_string());
            let answer = send(&face.router, builder.header("accept", "text/event-stream").body(body).unwrap()).await;
            assert_eq!(answer.status().as_u16(), status, "{document}");
            assert!(String::from_utf8_lossy(answer.body()).contains(code), "{document}");
        }
    }
    assert_eq!(face.pipeline.commits.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn with_every_permission_each_field_answers() {
    let face = face();
    let types = types(&face).await;
    for field in array(&find(&types, "Query")["fields"]) {
        let document = document(&types, "query", field).replace("\"x\"", &format!("\"{}\"", stream_id()));
        let answer = ask(&face, "full", &document, Value::Null).await;
        assert!(answer["errors"].is_null(), "{document}: {answer}");
    }
    for field in array(&find(&types, "Mutation")["fields"]) {
        let document = document(&types, "mutation", field).replace("__typename", "id userErrors { code field }");
        let answer = ask(&face, "full", &document, Value::Null).await;
        let name = field["name"].as_str().unwrap();
        // "x" names no object: a refusal that a client finds among the userErrors
        let errors = &answer["data"][name]["userErrors"];
        assert!(["NOT_FOUND", "INVALID"].contains(&errors[0]["code"].as_str().unwrap_or_default()), "{name}: {answer}");
    }
}

#[tokio::test]
async fn nodes_are_guarded_by_kind_and_scope() {
    let face = face();
    let document = "query($id: ID!) { node(id: $id) { __typename id } }";
    let known = [
        (ResourceKind::Account, account(2).to_string(), "Account"),
        (ResourceKind::Stream, stream_id().to_string(), "Stream"),
        (ResourceKind::BillingFile, file_id().to_string(), "BillingFile"),
        (ResourceKind::ReportRun, run_id().to_string(), "ReportRun"),
        (ResourceKind::Alarm, "node1/7".to_owned(), "Alarm"),
    ];
    for (kind, key, name) in &known {
        let id = global_id::encode(*kind, key);
        let found = ask(&face, "full", document, json!({ "id": id })).await;
        assert_eq!(found["data"]["node"], json!({ "__typename": name, "id": id }), "{found}");
    }
    for kind in ResourceKind::ALL {
        let key =
            known.iter().find(|(known, ..)| known == kind).map_or(file_id().to_string(), |(_, key, _)| key.clone());
        let variables = json!({ "id": global_id::encode(*kind, key) });
        assert_eq!(code(&ask(&face, "none", document, variables.clone()).await), "FORBIDDEN", "{kind:?}");
        let foreign = ask(&face, "foreign", document, variables).await;
        assert_eq!(foreign, json!({ "data": { "node": null } }), "{kind:?}");
    }
    for nonsense in ["", "x", "bm9uc2Vuc2U6MQ"] {
        assert_eq!(ask(&face, "full", document, json!({ "id": nonsense })).await, json!({ "data": { "node": null } }));
    }
}

#[tokio::test]
async fn every_mutation_has_the_same_conventions() {
    let face = face();
    let types = types(&face).await;
    for field in array(&find(&types, "Mutation")["fields"]) {
        let name = field["name"].as_str().unwrap();
        let args: Vec<_> = array(&field["args"]).iter().map(|arg| arg["name"].as_str().unwrap()).collect();
        assert_eq!(args, ["input", "dryRun", "idempotencyKey", "expectedVersions"], "{name}");
        let input = &array(&field["args"])[0]["type"]["ofType"]["name"];
        let mut letters = name.chars();
        let first = letters.next().unwrap().to_ascii_uppercase();
        assert_eq!(input, &json!(format!("{first}{}Input", letters.as_str())));
    }
}
