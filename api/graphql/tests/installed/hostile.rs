//! What no well-meaning client sends, at every place of every mutation and query: refused with a type, or stored and
//! shown again as it was sent. Never a defect, never a table less.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};
use testkit::{TestDb, on_each_database};

use super::face::{HERE, Installed, mutation_document};
use super::samples::{self, name, place, shown_at, type_of};
use super::support::http::request;
use super::types::{Leaf, Step, Types, array, at, put, text, told};

/// Codes of a request that is refused as a whole.
const REQUEST_CODES: [&str; 2] = ["BAD_REQUEST", "FORBIDDEN"];
/// Places of a list that is too long.
const HUGE: usize = 10_000;
/// The longest answer to anything: a refusal does not grow with what is refused.
const ANSWER_MAX: usize = 64 * 1_024;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// The request as a whole.
    Refused,
    /// The change, field by field.
    UserErrors,
    Done,
}

/// Judges an answer to a mutation or a query.
fn fate(place: &str, status: StatusCode, body: &[u8]) -> (Fate, Value) {
    assert!(status.is_success() || status.is_client_error(), "{place}: {status}");
    assert!(body.len() < ANSWER_MAX, "{place}: an answer of {} octets", body.len());
    let answer: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{place}: {error}"));
    if let Some(errors) = answer["errors"].as_array() {
        assert!(!errors.is_empty(), "{place}: {answer}");
        for error in errors {
            let code = text(&error["extensions"]["code"]);
            assert!(REQUEST_CODES.contains(&code), "{place}: {answer}");
        }
        return (Fate::Refused, answer);
    }
    assert!(status.is_success(), "{place}: {status}: {answer}");
    let payload = answer["data"].as_object().unwrap().values().next().unwrap().clone();
    let errors = array(&payload["userErrors"]);
    for error in errors {
        assert!(error["code"].is_string() && error["field"].is_string(), "{place}: {answer}");
        assert!(!text(&error["message"]).is_empty() && !text(&error["remedy"]).is_empty(), "{place}: {answer}");
    }
    (if errors.is_empty() { Fate::Done } else { Fate::UserErrors }, payload)
}

/// The mutations with the types of their inputs.
fn mutations(types: &Types) -> Vec<(String, Value)> {
    let input =
        |field: &Value| array(&field["args"]).iter().find(|arg| arg["name"] == "input").unwrap()["type"].clone();
    types.fields("Mutation").iter().map(|field| (name(field).to_owned(), input(field))).collect()
}

async fn installed(db: TestDb) -> (Installed, Types) {
    let face = Installed::new(db).await;
    face.alarms(1, 6_000).await;
    face.execute(vec!["INSERT INTO notification_target (node, target) VALUES ('node1', 'noc')".to_owned()]).await;
    let types = Types::of(&face).await;
    (face, types)
}

/// Every table is there, and the audit trail is whole.
async fn assert_whole(face: &Installed, tables: i64) {
    assert_eq!(count_tables(face).await, tables);
    db::change::verify_audit(&face.db).await.unwrap();
    let answer = face.ask("{ accounts { nodes { name } } }", Value::Null).await;
    assert!(array(&answer["data"]["accounts"]["nodes"]).len() > 2, "{answer}");
}

async fn count_tables(face: &Installed) -> i64 {
    match face.db.name() {
        "sqlite" => face.count("sqlite_schema WHERE type = 'table'").await,
        _ => face.count("pg_tables WHERE schemaname = 'public'").await,
    }
}

#[tokio::test]
async fn what_is_valid_is_taken() {
    on_each_database(async |db: TestDb| {
        let (face, types) = installed(db).await;
        for (mutation, kind) in mutations(&types) {
            let input = samples::input(&face, &types, &mutation, &kind);
            let answer = face.change(&mutation, json!({ "input": input, "dryRun": true })).await;
            let payload = &answer["data"][&mutation];
            assert!(payload["plan"].is_object(), "{mutation} {input}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn hostile_texts_are_refused_or_shown_as_they_were_sent() {
    on_each_database(async |db: TestDb| {
        let (face, types) = installed(db).await;
        let tables = count_tables(&face).await;
        let mut fates: BTreeMap<(String, Fate), usize> = BTreeMap::new();
        for (mutation, kind) in mutations(&types) {
            let document = mutation_document(&mutation);
            for (way, leaf) in types.leaves(&kind, &[]).0 {
                let every = match leaf {
                    Leaf::Text => 1,
                    // Judged by its type, before anybody looks at the field
                    Leaf::Formed => 5,
                    Leaf::Number | Leaf::Boolean => continue,
                };
                let place = place(&mutation, &way);
                let valid = samples::input(&face, &types, &mutation, &kind);
                let valid = at(&valid, &told(&way)).cloned().unwrap_or_default();
                let is_identifier = valid.as_str().is_some_and(|text| api_http::global_id::decode(text).is_some());
                let identifiers = if is_identifier { samples::identifiers(&valid) } else { Vec::new() };
                for hostile in samples::texts().into_iter().step_by(every).chain(identifiers) {
                    let mut input = samples::input(&face, &types, &mutation, &kind);
                    put(&mut input, &way, json!(hostile));
                    let response = face.post(&face.token, &document, json!({ "input": input })).await;
                    let told = format!("{place} = {hostile:.40?}");
                    let (fate, payload) = fate(&told, response.status(), response.body());
                    *fates.entry((place.clone(), fate)).or_default() += 1;
                    if fate == Fate::Done {
                        assert_shown(&face, &types, &mutation, &way, &payload, &hostile).await;
                    }
                }
            }
        }
        for ((place, fate), count) in &fates {
            println!("{}: {place}: {fate:?} {count}", face.db.name());
        }
        assert_whole(&face, tables).await;
    })
    .await;
}

/// The object is shown with the text as it was sent.
async fn assert_shown(face: &Installed, types: &Types, mutation: &str, way: &[Step], payload: &Value, sent: &str) {
    let Some(shown_at) = shown_at(mutation, &told(way)) else { return };
    let id = text(&payload["id"]);
    let kind = type_of(id);
    let document =
        format!("query($id: ID!) {{ node(id: $id) {{ ... on {kind} {{ {} }} }} }}", types.selection(&kind, 2));
    let answer = face.ask(&document, json!({ "id": id })).await;
    let shown = at(&answer["data"]["node"], &shown_at);
    assert_eq!(shown, Some(&json!(sent)), "{mutation}({}): {answer}", told(way));
}

#[tokio::test]
async fn numbers_and_lists_beyond_reason_are_refused_with_a_type() {
    on_each_database(async |db: TestDb| {
        let (face, types) = installed(db).await;
        let tables = count_tables(&face).await;
        for (mutation, kind) in mutations(&types) {
            let document = mutation_document(&mutation);
            let (leaves, lists) = types.leaves(&kind, &[]);
            for (way, _) in leaves.into_iter().filter(|(_, leaf)| matches!(leaf, Leaf::Number | Leaf::Boolean)) {
                for number in samples::numbers() {
                    let mut input = samples::input(&face, &types, &mutation, &kind);
                    put(&mut input, &way, number.clone());
                    let response = face.post(&face.token, &document, json!({ "input": input, "dryRun": true })).await;
                    fate(&format!("{} = {number}", place(&mutation, &way)), response.status(), response.body());
                }
            }
            for way in lists {
                let mut input = samples::input(&face, &types, &mutation, &kind);
                let one = at(&input, &told(&way)).unwrap()[0].clone();
                for one in [one, json!("\0"), Value::Null] {
                    put(&mut input, &way, json!(vec![one; HUGE]));
                    let response = face.post(&face.token, &document, json!({ "input": input, "dryRun": true })).await;
                    if response.status() != StatusCode::PAYLOAD_TOO_LARGE {
                        fate(&place(&mutation, &way), response.status(), response.body());
                    }
                }
            }
        }
        assert_whole(&face, tables).await;
    })
    .await;
}

#[tokio::test]
async fn keys_and_versions_are_judged_like_everything_else() {
    on_each_database(async |db: TestDb| {
        let (face, _) = installed(db).await;
        let site = json!({ "accountId": face.customer, "name": "Never" });
        let mutation = mutation_document("siteCreate");
        for hostile in samples::texts().into_iter().chain(samples::identifiers(&json!(face.customer))) {
            for arguments in [
                json!({ "input": site, "dryRun": true, "idempotencyKey": hostile }),
                json!({ "input": site, "dryRun": true, "expectedVersions": [{ "id": hostile, "version": 1 }] }),
            ] {
                let response = face.post(&face.token, &mutation, arguments).await;
                fate(&format!("{hostile:.40?}"), response.status(), response.body());
            }
        }
        let version = json!({ "id": face.customer, "version": 1 });
        for versions in [json!(vec![version; HUGE]), json!([{ "id": face.customer, "version": i64::MAX }])] {
            let arguments = json!({ "input": site, "expectedVersions": versions });
            let response = face.post(&face.token, &mutation, arguments).await;
            assert_eq!(fate("expectedVersions", response.status(), response.body()).0, Fate::UserErrors);
        }
    })
    .await;
}

#[tokio::test]
async fn hostile_questions_are_answered_or_refused() {
    on_each_database(async |db: TestDb| {
        let (face, types) = installed(db).await;
        let tables = count_tables(&face).await;
        for field in types.fields("Query") {
            let scalar = ["Node", "Viewer"].contains(&type_name(&field["type"]));
            let selection = if scalar || !type_name(&field["type"]).ends_with("Connection") {
                "__typename"
            } else {
                "edges { cursor }"
            };
            let texts = array(&field["args"])
                .iter()
                .filter(|arg| matches!(types.leaves(&arg["type"], &[]).0[0].1, Leaf::Text | Leaf::Formed));
            for argument in texts {
                let (field, argument, kind) = (name(field), name(argument), written(&argument["type"]));
                let others = match field {
                    "billingFiles" if argument != "streamId" => format!(", streamId: \"{}\"", face.stream),
                    "performanceIntervals" => {
                        let bounds = [("from", "2026-01-01T00:00:00Z"), ("to", "2026-01-01T01:00:00Z")];
                        bounds
                            .into_iter()
                            .filter(|(name, _)| *name != argument)
                            .map(|(name, at)| format!(", {name}: \"{at}\""))
                            .collect()
                    }
                    _ => String::new(),
                };
                let document = format!("query($x: {kind}) {{ {field}({argument}: $x{others}) {{ {selection} }} }}");
                let hostile = samples::texts().into_iter().chain(samples::identifiers(&json!(face.customer)));
                for hostile in hostile {
                    let response = face.post(&face.token, &document, json!({ "x": hostile })).await;
                    fate(&format!("{field}({argument} = {hostile:.40?})"), response.status(), response.body());
                }
            }
        }
        // A list within an object has a cursor, too.
        let rates =
            "query($id: ID!, $x: String) { node(id: $id) { ... on Tariff { rates(after: $x) { edges { cursor } } } } }";
        for hostile in samples::texts() {
            let response = face.post(&face.token, rates, json!({ "id": face.tariff, "x": hostile })).await;
            fate(&format!("rates(after = {hostile:.40?})"), response.status(), response.body());
        }
        assert_whole(&face, tables).await;
    })
    .await;
}

fn type_name(kind: &Value) -> &str {
    if kind["ofType"].is_null() { text(&kind["name"]) } else { type_name(&kind["ofType"]) }
}

/// A type as documents write it.
fn written(kind: &Value) -> String {
    match text(&kind["kind"]) {
        "NON_NULL" => format!("{}!", written(&kind["ofType"])),
        "LIST" => format!("[{}]", written(&kind["ofType"])),
        _ => text(&kind["name"]).to_owned(),
    }
}

/// Bodies that are no text at all, and text that is none within a document.
#[tokio::test]
async fn broken_encodings_are_refused() {
    on_each_database(async |db: TestDb| {
        let face = Installed::new(db).await;
        let whole = |name: &[u8]| {
            let document = mutation_document("siteCreate");
            let mut body = json!({ "query": document, "variables": { "input": { "accountId": face.customer } } });
            body["variables"]["input"]["name"] = json!("NAME");
            let text = body.to_string();
            let (before, after) = text.split_once("NAME").unwrap();
            [before.as_bytes(), name, after.as_bytes()].concat()
        };
        let bodies = [
            whole(b"\xff"),
            whole(b"\xc0\xaf"),
            whole(b"\xe0\x80\xaf"),
            whole(b"\xf0\x80\x80\xaf"),
            whole(b"\xed\xa0\x80"),
            whole(b"\xf4\x90\x80\x80"),
            whole(b"\xe2\x82"),
            whole(br"\ud800"),
            whole(br"\udc00\ud800"),
            whole(br"\u12"),
            whole(b"\n"),
            whole(b"\0"),
            b"\xef\xbb\xbf{\"query\": \"{ __typename }\"}".to_vec(),
            "{\"query\": \"{ __typename }\"}".encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Vec::new(),
            b"\0".repeat(100),
            b"[".repeat(200_000),
            b"{\"query\":".repeat(20_000),
        ];
        for body in bodies {
            let told = String::from_utf8_lossy(&body).chars().take(200).collect::<String>();
            let response = face.send_from(HERE, request("POST", "/graphql", Some(&face.token)), body).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{told}");
        }
        // Within a document, where JSON has no say
        let sites = face.count("site").await;
        for escape in
            [r"\ud800", r"\udc00\ud800", r"\u0000", r"\u{110000}", r"\u{ffffffffffffffff}", r"\u12", r"\x41", r"\"]
        {
            let input = format!("{{ accountId: \"{}\", name: \"a{escape}\" }}", face.customer);
            let document = format!(
                "mutation {{ siteCreate(input: {input}) {{ id userErrors {{ code field message remedy }} }} }}"
            );
            let response = face.post(&face.token, &document, Value::Null).await;
            let (fate, _) = fate(escape, response.status(), response.body());
            assert_ne!(fate, Fate::Done, "{escape}");
        }
        for number in ["99999999999999999999999999", "-1", "1e999", "0x10", "01"] {
            let document = format!("{{ accounts(first: {number}) {{ edges {{ cursor }} }} }}");
            let response = face.post(&face.token, &document, Value::Null).await;
            assert_eq!(fate(number, response.status(), response.body()).0, Fate::Refused);
        }
        assert_eq!(face.count("site").await, sites);
    })
    .await;
}

/// Paths with what a path should not hold: no such object, or no such path.
#[tokio::test]
async fn hostile_paths_name_nothing() {
    on_each_database(async |db: TestDb| {
        let face = Installed::new(db).await;
        let hostile = [
            "%00",
            "..%2f..%2fetc%2fpasswd",
            "%2e%2e",
            "%ff",
            "%c0%af",
            "'%20OR%201=1--",
            "%0d%0aX:%20y",
            "-1",
            "99999999999999999999",
            "%E2%80%AE",
            "%3Cscript%3E",
            "x%00.csv",
        ];
        for route in api_http::route::ROUTES.iter().filter(|route| route.path.contains('{')) {
            for value in hostile {
                let parameters = ["{stream}", "{sequence}", "{run}"];
                for parameter in parameters.into_iter().filter(|parameter| route.path.contains(parameter)) {
                    let path = route
                        .path
                        .replace(parameter, value)
                        .replace("{stream}", &face.stream)
                        .replace("{sequence}", "1");
                    let builder = request(route.method.as_str(), &path, Some(&face.token));
                    let response = face.send_from(HERE, builder, b"{\"accepted\": true}".to_vec()).await;
                    assert!(response.status().is_client_error(), "{path}: {}", response.status());
                    assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
                }
            }
        }
    })
    .await;
}
