//! The page for browsers: everything that it loads comes from here, and is what was vendored.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

mod support;

use std::path::Path;
use std::process::Command;

use axum::body::Body;
use axum::http::Response;
use sha2::{Digest, Sha256};
use support::face;
use support::http::{Face, request, send};

/// What Chromium and Firefox send when somebody opens a page.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";

async fn get(face: &Face, uri: &str, accept: &str) -> Response<Vec<u8>> {
    send(&face.router, request("GET", uri, None).header("accept", accept).body(Body::empty()).unwrap()).await
}

fn header<'a>(response: &'a Response<Vec<u8>>, name: &str) -> &'a str {
    response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

#[tokio::test]
async fn a_browser_gets_a_page_that_loads_from_here_alone() {
    let face = face();
    let page = get(&face, "/graphql", BROWSER).await;
    assert_eq!((page.status().as_u16(), header(&page, "content-type")), (200, "text/html; charset=utf-8"));
    let policy = header(&page, "content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!((header(&page, "x-frame-options"), header(&page, "x-content-type-options")), ("DENY", "nosniff"));
    assert_eq!((header(&page, "cache-control"), header(&page, "vary")), ("no-cache", "accept"));

    let html = std::str::from_utf8(page.body()).unwrap();
    let loads: Vec<_> = ["src=\"", "href=\""]
        .into_iter()
        .flat_map(|attribute| html.split(attribute).skip(1))
        .map(|rest| rest.split('"').next().unwrap())
        .filter(|path| *path != "data:,")
        .collect();
    assert_eq!(loads.len(), 6, "{loads:?}");
    assert!(!html.contains("//") && !html.contains("{{"), "{html}");
    for path in loads {
        assert!(path.starts_with("/graphql/assets/"), "{path}");
        let asset = get(&face, path, "*/*").await;
        assert_eq!(asset.status().as_u16(), 200, "{path}");
        let script = path.ends_with(".js");
        let content_type = if script { "text/javascript; charset=utf-8" } else { "text/css; charset=utf-8" };
        assert_eq!(header(&asset, "content-type"), content_type, "{path}");
        assert_eq!(header(&asset, "cache-control"), "public, max-age=31536000, immutable", "{path}");
        let is_gzip = asset.body().starts_with(&[0x1f, 0x8b]);
        assert_eq!(
            (header(&asset, "content-encoding") == "gzip", path.contains("page.")),
            (is_gzip, !is_gzip),
            "{path}"
        );
    }
    assert_eq!(get(&face, "/graphql/assets/page.js", "*/*").await.status().as_u16(), 404);
}

#[tokio::test]
async fn programs_do_not_get_the_page() {
    let face = face();
    for (uri, accept, status) in [
        ("/graphql", "*/*", 400),
        ("/graphql", "application/json, text/html;q=0.9", 400),
        ("/graphql?query=%7B__typename%7D", BROWSER, 200),
        ("/graphql?query=%7B__typename%7D", "text/html", 406),
    ] {
        let answer = get(&face, uri, accept).await;
        assert_eq!(answer.status().as_u16(), status, "{uri} {accept}");
        assert_eq!(header(&answer, "content-type"), "application/json; charset=utf-8", "{uri} {accept}");
    }
}

#[test]
fn what_is_vendored_is_what_the_sums_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("graphiql");
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), 4);
    for line in sums.lines() {
        let (sum, file) = line.split_once("  ").unwrap();
        let unpacked = Command::new("gzip").arg("-dc").arg(folder.join(format!("vendor/{file}.gz"))).output().unwrap();
        assert!(unpacked.status.success(), "{file}");
        let found: String = Sha256::digest(&unpacked.stdout).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, sum, "{file}");
        assert!(!unpacked.stdout.windows(16).any(|text| text == b"sourceMappingURL"), "{file}");
    }
}
