//! What a flood of requests leaves in the log: of those for whom nobody answers one line together, of all others one each.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

// the name by which everybody else knows the crate
extern crate tandem_http as api_http;

mod support;

use std::sync::{Arc, Mutex};

use api_http::limit::{REQUESTS_MAX, REQUESTS_PER_ACCOUNT_MAX};
use api_http::route::GRAPHQL_PATH;
use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::get;
use support::{Billing, face_with, request, send};
use tokio::sync::Semaphore;
use tracing_subscriber::fmt::MakeWriter;

/// The log, kept.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    /// How many lines there are that tell of one request, and of strangers together.
    fn lines(&self) -> (usize, usize) {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = |words: &str| text.lines().filter(|line| line.contains(words)).count();
        (lines("request answered"), lines("requests came that nobody is known to answer for"))
    }
}

#[tokio::test]
async fn requests_have_a_line_each_only_when_somebody_answers_for_them() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(log.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let gate = Arc::new(Semaphore::new(0));
    let waits = gate.clone();
    let graphql = Router::new().route(
        GRAPHQL_PATH,
        // A panic is answered by a layer that no longer has the request, as its limit of time is.
        get(async || -> StatusCode { panic!("a planted panic") }).post(async move || {
            drop(waits.acquire().await);
            StatusCode::NO_CONTENT
        }),
    );
    let face = face_with(Billing::default(), graphql);
    let status = async |method: &str, path: &str, token: Option<&str>| {
        send(&face.router, request(method, path, token).body(Body::empty()).unwrap()).await.status().as_u16()
    };

    // Without a token, with one made up, with one that nobody can look up, or whose lookup is a defect: on a route and
    // on none.
    let strangers = [(None, 401), (Some("unknown"), 401), (Some("down"), 503), (Some("panic"), 500)];
    for _ in 0..50 {
        for (token, expected) in strangers {
            for path in ["/reports/runs", "/nowhere"] {
                assert_eq!(status("GET", path, token).await, expected, "{path} {token:?}");
            }
        }
    }
    assert_eq!(log.lines(), (0, 1));

    // Good tokens, whatever becomes of the request: answered, forbidden, no route, no such method, a defect.
    let known = [
        ("GET", "/reports/runs", "full", 200),
        ("GET", "/reports/runs", "none", 403),
        ("GET", "/nowhere", "full", 404),
        ("DELETE", "/reports/runs", "full", 405),
        ("GET", GRAPHQL_PATH, "full", 500),
    ];
    for (method, path, token, expected) in known {
        assert_eq!(status(method, path, Some(token)).await, expected, "{method} {path}");
    }
    assert_eq!(log.lines(), (known.len(), 1));

    // All places are taken: nobody has looked at the token of a request that finds none.
    let accounts = REQUESTS_MAX.div_ceil(REQUESTS_PER_ACCOUNT_MAX);
    let tokens: Vec<String> = (0..REQUESTS_MAX).map(|n| format!("of:{}", 10 + n % accounts)).collect();
    let places = futures::future::join_all(tokens.iter().map(|token| status("POST", GRAPHQL_PATH, Some(token))));
    let refused = async {
        for _ in 0..50 {
            assert_eq!(status("POST", GRAPHQL_PATH, Some("full")).await, 503);
        }
        assert_eq!(log.lines(), (known.len(), 1));
        gate.add_permits(REQUESTS_MAX);
    };
    let (answered, ()) = tokio::join!(places, refused);
    assert!(answered.iter().all(|status| *status == 204), "{answered:?}");
    assert_eq!(log.lines(), (known.len() + REQUESTS_MAX, 1));
}
