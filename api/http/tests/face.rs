//! The public face over in-memory ports: the walk of the routes, billing files, problems.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

// the name by which everybody else knows the crate
extern crate tandem_http as api_http;

mod support;

use std::sync::atomic::Ordering;

use api_http::limit::REQUESTS_PER_ACCOUNT_MAX;
use api_http::route::{Access, GRAPHQL_ASSET_PATH, GRAPHQL_PATH, GRAPHQL_WS_PATH, ROUTES, Route};
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Response, StatusCode};
use serde_json::Value;
use support::{Billing, FILE_SIZE, Face, face_with, file_bytes, job_id, request, run_id, send, stream_id};

fn face() -> Face {
    face_with(Billing::default(), Router::new())
}

fn header<'a>(response: &'a Response<Vec<u8>>, name: &str) -> &'a str {
    response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

fn json(response: &Response<Vec<u8>>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

/// A path of the table with the fakes' objects in it.
fn concrete(route: &Route) -> String {
    let stream = stream_id().to_string();
    let job = job_id().to_string();
    route
        .path
        .replace("{job}", &job)
        .replace("{stream}", &stream)
        .replace("{sequence}", "1")
        .replace("{run}", &run_id().to_string())
}

fn content() -> String {
    format!("/billing/streams/{}/files/1/content", stream_id())
}

fn call(route: &Route, token: Option<&str>) -> axum::http::Request<Body> {
    let is_upload = route.method == Method::POST && route.path == "/bulk/jobs";
    let content_type = if is_upload { "application/jsonl" } else { "application/json" };
    let builder = request(route.method.as_str(), &concrete(route), token).header("content-type", content_type);
    let body = if route.method == Method::POST { r#"{"accepted":true}"# } else { "" };
    builder.body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn each_route_is_walked_by_four_callers() {
    let face = face();
    let open: Vec<_> = ROUTES.iter().filter(|route| route.access == Access::Open).map(|route| route.path).collect();
    assert_eq!(open, [GRAPHQL_PATH, GRAPHQL_PATH, GRAPHQL_WS_PATH, GRAPHQL_ASSET_PATH]);
    for route in ROUTES {
        let Access::Needs(permission) = route.access else { continue };
        let name = format!("{} {}", route.method, route.path);
        for stranger in [None, Some("unknown")] {
            let refused = send(&face.router, call(route, stranger)).await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{name}");
            assert!(header(&refused, "www-authenticate").starts_with("Bearer"), "{name}");
        }
        let forbidden = send(&face.router, call(route, Some("none"))).await;
        assert_eq!(forbidden.status(), StatusCode::FORBIDDEN, "{name}");
        let allowed = send(&face.router, call(route, Some(&format!("only:{permission}")))).await;
        assert!(allowed.status().is_success(), "{name}: {}", String::from_utf8_lossy(allowed.body()));
        // a foreign object looks like a missing one; a foreign list is empty
        let foreign = send(&face.router, call(route, Some("foreign"))).await;
        if route.path.contains('{') {
            assert_eq!(foreign.status(), StatusCode::NOT_FOUND, "{name}");
            let missing = concrete(route).replace(&stream_id().to_string(), "x").replace(&run_id().to_string(), "x");
            let missing = missing.replace(&job_id().to_string(), "x");
            let method = route.method.as_str();
            let missing = request(method, &missing, Some("full")).header("content-type", "application/json");
            let missing = send(&face.router, missing.body(Body::from(r#"{"accepted":true}"#)).unwrap()).await;
            assert_eq!(missing.status(), StatusCode::NOT_FOUND, "{name}");
            let text = |r: &Response<Vec<u8>>| json(r).get("detail").cloned();
            assert_eq!(text(&foreign), text(&missing), "{name}");
        } else if route.path == "/bulk/jobs" {
            // it becomes a job of the caller's own account
            assert_eq!(foreign.status(), StatusCode::CREATED, "{name}");
        } else if route.path == "/bulk/export" {
            assert_eq!(foreign.body(), b"", "{name}");
        } else {
            assert_eq!(json(&foreign).get("items"), Some(&Value::Array(Vec::new())), "{name}");
        }
    }
}

/// Bodies that never end hold the places of their own account, and of no other.
#[tokio::test]
async fn an_account_cannot_take_the_places_of_others() {
    let face = face();
    let acknowledge = format!("/billing/streams/{}/files/1/ack", stream_id());
    let endless = || {
        let body = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let builder = request("POST", &acknowledge, Some("full")).header("content-type", "application/json");
        let (router, request) = (face.router.clone(), builder.body(body).unwrap());
        tokio::spawn(async move { send(&router, request).await })
    };
    let get = async |token| {
        let request = request("GET", "/billing/streams", Some(token)).body(Body::empty()).unwrap();
        send(&face.router, request).await
    };
    let held: Vec<_> = (0..REQUESTS_PER_ACCOUNT_MAX).map(|_| endless()).collect();
    // on one thread these are polled while this task steps back, and then wait for their bodies
    let step_back = async || {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    };
    step_back().await;
    let refused = get("full").await;
    assert_eq!((refused.status(), header(&refused, "retry-after")), (StatusCode::TOO_MANY_REQUESTS, "1"));
    assert_eq!(json(&refused)["type"], "urn:tandem:problem:account-busy");
    assert_eq!(get("foreign").await.status(), StatusCode::OK);
    held[0].abort();
    step_back().await;
    assert_eq!(get("full").await.status(), StatusCode::OK);
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn tokens_are_judged_strictly() {
    let face = face();
    let status = async |value: &str| {
        let request = axum::http::Request::builder().uri("/reports/runs").header("authorization", value);
        send(&face.router, request.body(Body::empty()).unwrap()).await.status()
    };
    assert_eq!(status("bearer full").await, StatusCode::OK);
    let long = format!("Bearer {}", "x".repeat(600));
    for bad in ["full", "Basic full", "Bearer", "Bearer ", "Bearer expired", &long] {
        assert_eq!(status(bad).await, StatusCode::UNAUTHORIZED, "{bad}");
    }
    assert_eq!(status("Bearer down").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status("Bearer panic").await, StatusCode::INTERNAL_SERVER_ERROR);
    let twice = request("GET", "/reports/runs", Some("full")).header("authorization", "Bearer full");
    let twice = send(&face.router, twice.body(Body::empty()).unwrap()).await;
    assert_eq!(twice.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn every_error_is_a_problem_with_its_trace() {
    let face = face();
    let check = async |method: &str, uri: &str, token: Option<&str>, status: u16, code: &str| {
        let response = send(&face.router, request(method, uri, token).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status().as_u16(), status, "{method} {uri}");
        assert_eq!(header(&response, "content-type"), "application/problem+json", "{method} {uri}");
        let problem = json(&response);
        assert_eq!(problem["type"], format!("urn:tandem:problem:{code}"), "{method} {uri}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["trace"], header(&response, "x-request-id"));
        assert!(problem["detail"].is_string() && problem["remedy"].is_string() && problem["title"].is_string());
        response
    };
    check("GET", "/nowhere", Some("full"), 404, "not-found").await;
    check("GET", "/nowhere", None, 401, "unauthenticated").await;
    let wrong = check("DELETE", "/billing/streams", Some("full"), 405, "method-not-allowed").await;
    assert!(header(&wrong, "allow").contains("GET"));
    let range = check("GET", "/billing/streams?first=101", Some("full"), 400, "invalid").await;
    assert_eq!(json(&range)["field"], "first");
    check("GET", "/billing/streams?frist=1", Some("full"), 400, "invalid").await;
    check("GET", "/billing/streams/%ff/files", Some("full"), 400, "invalid").await;
    check("POST", &content().replace("content", "ack"), Some("full"), 415, "unsupported-media-type").await;
}

#[tokio::test]
async fn a_file_is_fetched_whole_in_part_and_not_again() {
    let face = face();
    let fetch = async |method: &str, fields: &[(&str, &str)]| {
        let mut builder = request(method, &content(), Some("full"));
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        send(&face.router, builder.body(Body::empty()).unwrap()).await
    };
    let whole = fetch("GET", &[]).await;
    assert_eq!((whole.status(), whole.body() == &file_bytes()), (StatusCode::OK, true));
    assert_eq!(header(&whole, "etag"), "\"abc123\"");
    assert_eq!(header(&whole, "content-length"), FILE_SIZE.to_string());
    assert_eq!(header(&whole, "content-type"), "text/csv; charset=utf-8");
    assert_eq!(header(&whole, "content-disposition"), "attachment; filename=\"retail-000001.csv\"");
    assert_eq!(header(&whole, "accept-ranges"), "bytes");
    // 64 KiB at a time
    assert_eq!(face.billing.reads.load(Ordering::Relaxed), 3);

    let head = fetch("HEAD", &[]).await;
    assert_eq!((head.status(), head.body().len()), (StatusCode::OK, 0));
    assert_eq!(header(&head, "content-length"), FILE_SIZE.to_string());

    let rest = fetch("GET", &[("range", "bytes=149990-"), ("if-range", "\"abc123\"")]).await;
    assert_eq!(rest.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&rest, "content-range"), "bytes 149990-149999/150000");
    assert_eq!(Some(&rest.body()[..]), file_bytes().get(149_990..));
    let changed = fetch("GET", &[("range", "bytes=149990-"), ("if-range", "\"other\"")]).await;
    assert_eq!(changed.status(), StatusCode::OK);
    let beyond = fetch("GET", &[("range", "bytes=150000-")]).await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&beyond, "content-range"), "bytes */150000");
    let known = fetch("GET", &[("if-none-match", "\"abc123\"")]).await;
    assert_eq!((known.status(), known.body().len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(header(&known, "etag"), "\"abc123\"");
}

#[tokio::test]
async fn a_closed_file_that_is_not_published_is_asked_for_again() {
    let face = face_with(Billing { unpublished: true, ..Billing::default() }, Router::new());
    let response = send(&face.router, request("GET", &content(), Some("full")).body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&response, "retry-after"), "1");
}

#[tokio::test]
async fn files_are_acknowledged_and_closed_once_per_key() {
    let face = face();
    let ack = async |key: &str, body: &str| {
        let uri = content().replace("content", "ack");
        let builder = request("POST", &uri, Some("full")).header("content-type", "application/json; charset=utf-8");
        send(&face.router, builder.header("idempotency-key", key).body(Body::from(body.to_owned())).unwrap()).await
    };
    let accepted = ack("\"k1\"", r#"{"accepted":true}"#).await;
    assert_eq!(accepted.status(), StatusCode::OK);
    assert_eq!(json(&accepted)["file"]["sequence"], 1);
    assert_eq!(json(&ack("replayed", r#"{"accepted":false,"reason":"totals differ"}"#).await)["replayed"], true);
    for (key, body, status) in [
        ("a b", r#"{"accepted":true}"#, 400),
        ("k2", r#"{"accepted":"yes"}"#, 400),
        ("k2", r#"{"accepted":true,"reson":""}"#, 400),
        ("k2", &format!(r#"{{"accepted":true,"reason":"{}"}}"#, "x".repeat(20_000)), 413),
        ("conflict", r#"{"accepted":true}"#, 409),
        ("reused", r#"{"accepted":true}"#, 422),
        ("denied", r#"{"accepted":true}"#, 403),
        ("down", r#"{"accepted":true}"#, 503),
        ("panic", r#"{"accepted":true}"#, 500),
    ] {
        assert_eq!(ack(key, body).await.status().as_u16(), status, "{key} {body:.40}");
    }
    let before = face.pipeline.commits.load(Ordering::Relaxed);
    let uri = format!("/billing/streams/{}/close", stream_id());
    let closed = send(&face.router, request("POST", &uri, Some("full")).body(Body::empty()).unwrap()).await;
    assert_eq!(closed.status(), StatusCode::CREATED);
    assert_eq!(header(&closed, "location"), format!("/billing/streams/{}/files/1", stream_id()));
    assert_eq!(face.pipeline.commits.load(Ordering::Relaxed), before + 1);
}

#[tokio::test]
async fn global_identifiers_name_streams_too() {
    let global = api_http::global_id::encode(model::change::ResourceKind::Stream, stream_id());
    let uri = format!("/billing/streams/{global}/files");
    let files = send(&face().router, request("GET", &uri, Some("full")).body(Body::empty()).unwrap()).await;
    assert_eq!(json(&files)["items"][0]["sha256"], "abc123");
    assert_eq!(json(&files)["hasNext"], false);
}

#[tokio::test]
async fn reports_run_nothing_and_are_not_sent_again() {
    let face = face();
    let uri = format!("/reports/runs/{}/html", run_id());
    let html = send(&face.router, request("GET", &uri, Some("full")).body(Body::empty()).unwrap()).await;
    assert_eq!(header(&html, "content-type"), "text/html; charset=utf-8");
    assert!(header(&html, "content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(header(&html, "x-content-type-options"), "nosniff");
    let again = request("GET", &uri, Some("full")).header("if-none-match", header(&html, "etag"));
    let again = send(&face.router, again.body(Body::empty()).unwrap()).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let uri = format!("/reports/runs/{}/xlsx", run_id());
    let workbook = send(&face.router, request("GET", &uri, Some("full")).body(Body::empty()).unwrap()).await;
    assert_eq!(header(&workbook, "content-type"), "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet");
    assert_eq!(header(&workbook, "content-disposition"), "attachment; filename=\"report.xlsx\"");
}

#[tokio::test]
async fn bulk_files_are_taken_in_and_results_given_out() {
    let face = face();
    let upload = async |content_type: &str, body: &'static str| {
        let builder = request("POST", "/bulk/jobs?name=a.csv", Some("full")).header("content-type", content_type);
        send(&face.router, builder.body(Body::from(body)).unwrap()).await
    };
    for content_type in ["application/jsonl", "application/x-ndjson", "text/csv; charset=utf-8"] {
        let taken = upload(content_type, "kind,site\nsite,x\n").await;
        assert_eq!(taken.status(), StatusCode::CREATED);
        let id = json(&taken)["id"].as_str().unwrap().to_owned();
        assert_eq!(header(&taken, "location"), format!("/bulk/jobs/{id}"));
    }
    assert_eq!(upload("application/json", "{}").await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let header_refused = upload("text/csv", "kind,colour\n").await;
    assert_eq!(header_refused.status(), StatusCode::BAD_REQUEST);
    assert!(json(&header_refused).to_string().contains("colour"));

    let get = async |path: &str| {
        let got = send(&face.router, request("GET", path, Some("full")).body(Body::empty()).unwrap()).await;
        assert_eq!(got.status(), StatusCode::OK, "{path}");
        String::from_utf8(got.into_body()).unwrap()
    };
    let results = get(&format!("/bulk/jobs/{}/results", job_id())).await;
    let lines: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines[0]["password"].as_str(), lines[0]["outcome"].as_str()), (Some("=drawn"), Some("applied")));
    assert_eq!((lines[1]["line"].as_i64(), lines[1]["errors"][0]["code"].as_str()), (Some(3), Some("CONFLICT")));
    assert_eq!(lines.len(), 2);
    // a spreadsheet takes no cell for a formula
    let results = get(&format!("/bulk/jobs/{}/results?format=csv", job_id())).await;
    let records: Vec<&str> = results.lines().collect();
    assert_eq!(records[0], "line,outcome,kind,id,changeIds,password,code,field,message,remedy");
    assert!(records[1].contains(",'=drawn,"), "{results}");
    assert_eq!(records[2], "3,refused,,,,,CONFLICT,number,'=1+1,choose another");
    let export = get("/bulk/export?format=csv&kinds=site,account").await;
    let records: Vec<&str> = export.lines().collect();
    assert_eq!(records.len(), 3, "{export}");
    assert!(records[1].starts_with(",account,") && records[2].starts_with(",site,"), "{export}");
    assert!(records[1].contains(",'=1+1,"), "{export}");
}
