//! Reading request bodies within their limits.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// The whole body, at most `max` octets.
///
/// # Errors
/// 413 when it is larger, 400 when the client broke off.
pub async fn read(body: Body, max: usize) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    let mut whole = BytesMut::new();
    let broken = |_| Problem::new(StatusCode::BAD_REQUEST, "invalid", "the body broke off", "send it again");
    while let Some(chunk) = stream.try_next().await.map_err(broken)? {
        if whole.len() + chunk.len() > max {
            let detail = format!("the body has more than {max} octets");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail, "send less at a time"));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// Whether the fields say JSON in UTF-8 (`application/json`, with no or the UTF-8 charset). A form, which a foreign
/// page can make a browser send, is none.
#[must_use]
pub fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let charset_fits = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    media_type.eq_ignore_ascii_case("application/json") && charset_fits
}

/// A JSON body as `T`.
///
/// # Errors
/// 415 for another content type, 413 and 400 as [`read`], 400 for JSON that is no `T`.
pub async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body, max: usize) -> Result<T, Problem> {
    if !is_json(headers) {
        return Err(unsupported_media_type());
    }
    let bytes = read(body, max).await?;
    serde_json::from_slice(&bytes).map_err(|error| Problem::invalid("", error.to_string(), "correct the JSON body"))
}

/// The body is no JSON by its content type.
#[must_use]
pub fn unsupported_media_type() -> Problem {
    let detail = "the content type is not application/json";
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        detail,
        "send Content-Type: application/json",
    )
}
