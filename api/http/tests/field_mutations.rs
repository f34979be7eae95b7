//! Fields of conditional and partial fetches (RFC 9110, sections 13 and 14) by mutation, on the route of a billing file:
//! each answer is one of those that the RFC names, and its octets are the ones that it says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

// the name by which everybody else knows the crate
extern crate tandem_http as api_http;

mod support;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use support::{Billing, FILE_SIZE, face_with, file_bytes, request, send, stream_id};
use testkit::{Mutator, soak};

const SEED: u64 = 0x9110;
/// Many of them give the whole file, octet for octet.
const ROUNDS: u64 = 600;

#[test]
fn mutated_ranges_and_validators_get_the_octets_that_the_answer_says() {
    const SPICE: &[&[u8]] = &[
        b"-",
        b"=",
        b",",
        b" ",
        b"\t",
        b"\"",
        b"W/",
        b"*",
        b"bytes",
        b"0",
        b"18446744073709551615",
        b"18446744073709551616",
        b"149999",
        b"150000",
        b"\xff",
        b"bytes=0-0,1-1,2-2",
        b"--",
        b"Mon, 01 Jan 2026",
    ];
    let mutator = |corpus: &[&str]| {
        let corpus = corpus.iter().map(|text| text.as_bytes().to_vec()).collect();
        Mutator::new(corpus, SPICE).with_changes(0..=2)
    };
    let ranges = mutator(&[
        "bytes=0-0",
        "bytes=149990-",
        "bytes=-10",
        "bytes=100-200000",
        "bytes=0-1,5-6",
        "bytes=5-4",
        "bytes=150000-",
        "bytes=-0",
    ]);
    let validators = mutator(&["\"abc123\"", "W/\"abc123\"", "*", "\"other\", \"abc123\"", "\"\""]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let face = face_with(Billing::default(), Router::new());
    let uri = format!("/billing/streams/{}/files/1/content", stream_id());
    let whole = file_bytes();
    let mut statuses = std::collections::BTreeMap::new();
    soak::campaign("fields of partial fetches", SEED, ROUNDS, |_, random| {
        let method = if random.below(8) == 0 { "HEAD" } else { "GET" };
        let mut builder = request(method, &uri, Some("full"));
        let mut said = Vec::new();
        for (name, mutator, of) in
            [("range", &ranges, 8), ("if-range", &validators, 3), ("if-none-match", &validators, 2)]
        {
            // Some fields are missing, some are there twice.
            for _ in 0..[0, 1, 1, 2][random.below(4)] {
                if random.below(8) >= of {
                    continue;
                }
                // What is no field value does not come through the HTTP library.
                if let Ok(value) = HeaderValue::from_bytes(&mutator.mutated(random)) {
                    said.push(format!("{name}: {value:?}"));
                    builder = builder.header(name, value);
                }
            }
        }
        let answer = runtime.block_on(send(&face.router, builder.body(Body::empty()).unwrap()));
        let field = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        *statuses.entry(answer.status().as_u16()).or_insert(0) += 1;
        let body = if method == "HEAD" { None } else { Some(answer.body()) };
        match answer.status() {
            StatusCode::OK => assert!(body.is_none_or(|body| *body == whole), "{said:?}"),
            StatusCode::PARTIAL_CONTENT => {
                let range = field("content-range").unwrap();
                let (ends, size) = range.strip_prefix("bytes ").unwrap().split_once('/').unwrap();
                let (first, last) = ends.split_once('-').unwrap();
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                assert_eq!(size, FILE_SIZE.to_string(), "{said:?}");
                assert!(body.is_none_or(|body| body[..] == whole[first..=last]), "{said:?} {range}");
            }
            StatusCode::NOT_MODIFIED => assert!(answer.body().is_empty() && field("etag").is_some(), "{said:?}"),
            StatusCode::RANGE_NOT_SATISFIABLE => {
                assert_eq!(field("content-range"), Some(format!("bytes */{FILE_SIZE}")), "{said:?}");
            }
            other => panic!("{other}: {said:?}"),
        }
    });
    for status in [200, 206, 304, 416] {
        assert!(statuses.get(&status).is_some_and(|count| *count >= 5), "{statuses:?}");
    }
}
