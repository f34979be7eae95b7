//! The GraphiQL page for browsers at the GraphQL path, with all that it loads, out of the binary. It holds no data, so it
//! is for strangers; the token that its user enters stays in the page.

use std::fmt::Write as _;
use std::sync::Arc;

use api_http::route::GRAPHQL_ASSET_PATH;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use sha2::{Digest, Sha256};

/// Scripts and styles from here alone, nothing inline, requests to here alone, and no other page around this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The name of an asset changes with its content.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Characters of the content's SHA-256 in the name of an asset: two versions do not share twelve.
const VERSION_LENGTH: usize = 12;

struct Asset {
    file: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
    gzip: bool,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! asset {
    ($file:literal, $content_type:expr) => {
        Asset {
            file: $file,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../graphiql/", $file)),
            gzip: false,
        }
    };
    (vendor $file:literal, $content_type:expr) => {
        Asset {
            file: $file,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../graphiql/vendor/", $file, ".gz")),
            gzip: true,
        }
    };
}

const ASSETS: [Asset; 6] = [
    asset!("page.css", STYLE),
    asset!("page.js", SCRIPT),
    asset!(vendor "graphiql.min.css", STYLE),
    asset!(vendor "graphiql.min.js", SCRIPT),
    asset!(vendor "react.production.min.js", SCRIPT),
    asset!(vendor "react-dom.production.min.js", SCRIPT),
];

impl Asset {
    /// `<version>-<file>`
    fn name(&self) -> String {
        let hash = Sha256::digest(self.bytes);
        let mut name = hash.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        name.truncate(VERSION_LENGTH);
        name + "-" + self.file
    }
}

/// The page, written with the names of what it loads.
#[derive(Clone)]
pub(crate) struct Page(Arc<str>);

impl Page {
    pub(crate) fn new() -> Self {
        let folder = GRAPHQL_ASSET_PATH.trim_end_matches("{asset}");
        let page = ASSETS.iter().fold(include_str!("../graphiql/page.html").to_owned(), |page, asset| {
            page.replace(&format!("{{{{{}}}}}", asset.file), &format!("{folder}{}", asset.name()))
        });
        Self(page.into())
    }

    /// The answer to a browser.
    pub(crate) fn response(&self) -> Response {
        let mut response = Response::new(Body::from(self.0.to_string()));
        let headers = response.headers_mut();
        for (name, value) in [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_FRAME_OPTIONS, "DENY"),
            (REFERRER_POLICY, "no-referrer"),
            (CACHE_CONTROL, "no-cache"),
            (VARY, "accept"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The router of what the page loads.
pub(crate) fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let named: Arc<[_]> = ASSETS.into_iter().map(|asset| (asset.name(), asset)).collect();
    Router::new().route(GRAPHQL_ASSET_PATH, get(asset).with_state(named))
}

async fn asset(State(assets): State<Arc<[(String, Asset)]>>, Path(name): Path<String>) -> Response {
    let Some((_, asset)) = assets.iter().find(|(known, _)| *known == name) else {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let mut response = Response::new(Body::from(asset.bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(FOR_EVER));
    if asset.gzip {
        // there is no browser that does not take it
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}
