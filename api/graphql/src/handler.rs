//! GraphQL over HTTP (GraphQL Foundation, "GraphQL over HTTP", sections 4 to 6). GET runs queries alone, POST takes JSON
//! alone: what a foreign page can make a browser send changes nothing. No batches. Without a token a request is judged like
//! any other, and answered from the schema of [`crate::stranger`]. Subscriptions are answered in events, see
//! [`crate::stream`].

use api_http::bearer;
use api_http::body::{is_json, read};
use api_http::limit::{GRAPHQL_BODY_MAX, SMALL_BODY_MAX};
use api_http::problem::CHALLENGE;
use api_http::problem::Problem;
use api_http::route::{GRAPHQL_PATH, GRAPHQL_WS_PATH};
use async_graphql::parser::types::OperationType;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Extension, Query, State};
use axum::http::header::{ACCEPT, ALLOW, CONTENT_TYPE, VARY, WWW_AUTHENTICATE};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use model::ctx::Ctx;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::UNAUTHENTICATED;
use crate::page::{self, Page};
use crate::request::{Asked, Runnable, Written, coded};
use crate::schema::{GraphqlDeps, Schema, schema};
use crate::stranger;
use crate::stream::{self, Streams};

/// The router of the GraphQL path, for [`api_http::router`].
pub fn graphql_router(deps: GraphqlDeps) -> Router {
    let ours = schema(deps.clone());
    let streams = Streams::new(&deps, ours.clone());
    let face = Face { ours, strangers: stranger::schema(), page: Page::new(), streams };
    let paths = Router::new().route(GRAPHQL_PATH, get(by_get).post(by_post)).route(GRAPHQL_WS_PATH, get(by_websocket));
    paths.merge(page::assets()).with_state(face)
}

/// What callers, strangers and browsers are answered from.
#[derive(Clone)]
struct Face {
    ours: Schema,
    strangers: stranger::Schema,
    page: Page,
    streams: Streams,
}

/// Who asks; none: a stranger.
type Caller = Option<Extension<Ctx>>;

/// The media type of the answer. With the old one, errors of a well-formed request have status 200 (section 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    Json,
    GraphqlResponse,
    EventStream,
}

#[derive(Deserialize)]
struct GetParameters {
    query: Option<String>,
    #[serde(rename = "operationName")]
    operation_name: Option<String>,
    variables: Option<String>,
    extensions: Option<String>,
}

async fn by_get(
    State(face): State<Face>,
    caller: Caller,
    headers: HeaderMap,
    parameters: Result<Query<GetParameters>, QueryRejection>,
) -> Response {
    if parameters.as_ref().is_ok_and(|Query(parameters)| parameters.query.is_none()) && wants_page(&headers) {
        return face.page.response();
    }
    let Some(media) = negotiate(&headers) else { return not_acceptable() };
    let asked = parameters.map_err(|rejection| rejection.body_text()).and_then(|Query(parameters)| {
        let map = |text: Option<String>, name: &str| match text {
            None => Ok(Value::Null),
            Some(text) => serde_json::from_str(&text).map_err(|_| format!("{name} is no JSON")),
        };
        let mut whole = Map::new();
        whole.insert("query".to_owned(), parameters.query.map_or(Value::Null, Value::String));
        whole.insert("operationName".to_owned(), parameters.operation_name.map_or(Value::Null, Value::String));
        whole.insert("variables".to_owned(), map(parameters.variables, "variables")?);
        whole.insert("extensions".to_owned(), map(parameters.extensions, "extensions")?);
        Asked::of(Value::Object(whole))
    });
    let asked = match asked {
        Ok(asked) => asked,
        Err(message) => return failed(StatusCode::BAD_REQUEST, media, &message),
    };
    match asked.judge() {
        Err(message) => request_error(media, json!([coded(&message)])),
        Ok(runnable) if runnable.operation != OperationType::Query => {
            let mut response = failed(StatusCode::METHOD_NOT_ALLOWED, media, "GET runs queries alone; send it by POST");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            response
        }
        Ok(runnable) => answer(&face, caller, runnable, media).await,
    }
}

async fn by_websocket(
    State(face): State<Face>,
    headers: HeaderMap,
    extensions: Extensions,
    upgrade: WebSocketUpgrade,
) -> Response {
    match bearer(&headers) {
        Ok(token) => stream::upgrade(face.streams, upgrade, token.map(str::to_owned), &extensions),
        Err(problem) => problem.into_response(),
    }
}

async fn by_post(
    State(face): State<Face>,
    caller: Caller,
    headers: HeaderMap,
    extensions: Extensions,
    body: Body,
) -> Response {
    let Some(media) = negotiate(&headers) else { return not_acceptable() };
    if !is_json(&headers) {
        let message = "the content type is not application/json";
        return failed(StatusCode::UNSUPPORTED_MEDIA_TYPE, media, message);
    }
    let max = if caller.is_some() { GRAPHQL_BODY_MAX } else { SMALL_BODY_MAX };
    let bytes = match read(body, max).await {
        Ok(bytes) => bytes,
        Err(problem) => return problem.into_response(),
    };
    let parsed = serde_json::from_slice(&bytes).map_err(|_| "the body is no JSON".to_owned());
    let asked = match parsed.and_then(Asked::of) {
        Ok(asked) => asked,
        Err(message) => return failed(StatusCode::BAD_REQUEST, media, &message),
    };
    match asked.judge() {
        Err(message) => request_error(media, json!([coded(&message)])),
        Ok(runnable) if media == Media::EventStream && runnable.operation == OperationType::Subscription => {
            in_events(&face, &headers, &extensions, runnable).await
        }
        Ok(runnable) => answer(&face, caller, runnable, media).await,
    }
}

/// A subscription. The door has let the token through; from now on the stream looks at it.
async fn in_events(face: &Face, headers: &HeaderMap, extensions: &Extensions, runnable: Runnable) -> Response {
    let token = match bearer(headers) {
        Ok(Some(token)) => token.to_owned(),
        Ok(None) => return unauthenticated(Media::Json),
        Err(problem) => return problem.into_response(),
    };
    match face.streams.pass(token, stream::origin(extensions)).await {
        Ok(Some(pass)) => stream::answer_in_events(&face.streams, pass, runnable).await,
        Ok(None) => Problem::unauthenticated(true).into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

async fn answer(face: &Face, caller: Caller, runnable: Runnable, media: Media) -> Response {
    let response = match caller {
        Some(Extension(ctx)) => {
            if runnable.operation == OperationType::Subscription {
                let message = "a subscription is a stream: accept text/event-stream, or use WebSocket at /graphql/ws";
                return failed(StatusCode::NOT_ACCEPTABLE, media, message);
            }
            face.ours.execute(runnable.request.data(ctx)).await
        }
        None if runnable.is_for_strangers => face.strangers.execute(runnable.request).await,
        None => return unauthenticated(media),
    };
    let Written { body, is_refusal } = Written::of(&response);
    if is_refusal { request_error(media, body["errors"].clone()) } else { respond(StatusCode::OK, media, &body) }
}

fn request_error(media: Media, errors: Value) -> Response {
    let status = if media == Media::GraphqlResponse { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    respond(status, media, &json!({ "errors": errors }))
}

fn failed(status: StatusCode, media: Media, message: &str) -> Response {
    respond(status, media, &json!({ "errors": [coded(message)] }))
}

fn unauthenticated(media: Media) -> Response {
    let message = "without a token only __typename is answered; send Authorization: Bearer followed by a valid token";
    let errors = json!([{ "message": message, "extensions": { "code": UNAUTHENTICATED } }]);
    let mut response = respond(StatusCode::UNAUTHORIZED, media, &json!({ "errors": errors }));
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    response
}

fn not_acceptable() -> Response {
    let message = "accept application/graphql-response+json, application/json or text/event-stream";
    failed(StatusCode::NOT_ACCEPTABLE, Media::Json, message)
}

fn respond(status: StatusCode, media: Media, body: &Value) -> Response {
    if media == Media::EventStream && status == StatusCode::OK {
        return stream::events(body);
    }
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let content_type = match media {
        Media::Json | Media::EventStream => "application/json; charset=utf-8",
        Media::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// The media types that the client takes, each with its weight, in its order; names in lower case.
fn accepted(headers: &HeaderMap) -> impl Iterator<Item = (String, u32)> {
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    ranges.filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().filter(|media| !media.is_empty())?.to_ascii_lowercase();
        Some((media, parts.find_map(|parameter| parameter.strip_prefix("q=")).map_or(1_000, weight)))
    })
}

/// The media type that the client likes best; without a wish, JSON (section 6.1: legacy clients).
fn negotiate(headers: &HeaderMap) -> Option<Media> {
    let mut best: Option<(u32, Media)> = None;
    let mut wished = false;
    for (media, weight) in accepted(headers) {
        wished = true;
        let media = match media.as_str() {
            "application/graphql-response+json" => Media::GraphqlResponse,
            "application/json" | "application/*" | "*/*" => Media::Json,
            "text/event-stream" => Media::EventStream,
            _ => continue,
        };
        if weight > 0 && best.is_none_or(|(before, _)| weight > before) {
            best = Some((weight, media));
        }
    }
    match best {
        Some((_, media)) => Some(media),
        None => (!wished).then_some(Media::Json),
    }
}

/// Whether HTML is liked better than any JSON, as browsers do when somebody opens the path.
fn wants_page(headers: &HeaderMap) -> bool {
    let (mut html, mut other) = (0, 0);
    for (media, weight) in accepted(headers) {
        match media.as_str() {
            "text/html" => html = html.max(weight),
            "application/graphql-response+json" | "application/json" | "application/*" | "*/*" => {
                other = other.max(weight);
            }
            _ => {}
        }
    }
    html > other
}

/// Thousandths of a quality value (RFC 9110, section 12.4.2); malformed ones count as none.
fn weight(text: &str) -> u32 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    match (whole, thousandths.parse::<u32>()) {
        ("1", Ok(_)) => 1_000,
        ("0", Ok(thousandths)) => thousandths,
        _ => 0,
    }
}
