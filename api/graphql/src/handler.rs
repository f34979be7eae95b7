//! GraphQL over HTTP (GraphQL Foundation, "GraphQL over HTTP", sections 4 to 6). GET runs queries alone, POST takes JSON
//! alone: what a foreign page can make a browser send changes nothing. No batches. Without a token a request is judged like
//! any other, and answered from the schema of [`crate::stranger`].

use api_http::body::{is_json, read};
use api_http::limit::{GRAPHQL_BODY_MAX, SMALL_BODY_MAX};
use api_http::problem::CHALLENGE;
use api_http::route::GRAPHQL_PATH;
use async_graphql::parser::parse_query;
use async_graphql::parser::types::{ExecutableDocument, OperationType};
use async_graphql::{Request, Variables};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::header::{ACCEPT, ALLOW, CONTENT_TYPE, VARY, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use model::ctx::Ctx;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{BAD_REQUEST, UNAUTHENTICATED};
use crate::limit::DOCUMENT_MAX;
use crate::page::{self, Page};
use crate::schema::{GraphqlDeps, Schema, schema};
use crate::{document, stranger};

/// The router of the GraphQL path, for [`api_http::router`].
pub fn graphql_router(deps: GraphqlDeps) -> Router {
    let face = Face { ours: schema(deps), strangers: stranger::schema(), page: Page::new() };
    Router::new().route(GRAPHQL_PATH, get(by_get).post(by_post)).merge(page::assets()).with_state(face)
}

/// What callers, strangers and browsers are answered from.
#[derive(Clone)]
struct Face {
    ours: Schema,
    strangers: stranger::Schema,
    page: Page,
}

/// Who asks; none: a stranger.
type Caller = Option<Extension<Ctx>>;

/// The media type of the answer. With the old one, errors of a well-formed request have status 200 (section 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    Json,
    GraphqlResponse,
}

/// What a client asks for, taken from query or body.
struct Asked {
    query: String,
    operation_name: Option<String>,
    variables: Value,
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
        asked(Value::Object(whole))
    });
    match asked {
        Ok(asked) => answer(&face, caller, asked, media, true).await,
        Err(message) => failed(StatusCode::BAD_REQUEST, media, &message),
    }
}

async fn by_post(State(face): State<Face>, caller: Caller, headers: HeaderMap, body: Body) -> Response {
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
    match parsed.and_then(asked) {
        Ok(asked) => answer(&face, caller, asked, media, false).await,
        Err(message) => failed(StatusCode::BAD_REQUEST, media, &message),
    }
}

/// The parameters (section 5.1): types are checked, null counts as left out, unknown ones are ignored.
fn asked(whole: Value) -> Result<Asked, String> {
    let Value::Object(mut whole) = whole else {
        return Err("the body is no JSON object; batches are not taken".to_owned());
    };
    let mut take = |name: &str| whole.remove(name).unwrap_or_default();
    let Value::String(query) = take("query") else { return Err("query is missing or no string".to_owned()) };
    let operation_name = match take("operationName") {
        Value::Null => None,
        Value::String(name) => Some(name),
        _ => return Err("operationName is no string".to_owned()),
    };
    let variables = take("variables");
    if !matches!(variables, Value::Null | Value::Object(_)) {
        return Err("variables is no map".to_owned());
    }
    if !matches!(take("extensions"), Value::Null | Value::Object(_)) {
        return Err("extensions is no map".to_owned());
    }
    if query.len() > DOCUMENT_MAX {
        return Err(format!("the document has more than {DOCUMENT_MAX} octets; put values into variables"));
    }
    Ok(Asked { query, operation_name, variables })
}

async fn answer(face: &Face, caller: Caller, asked: Asked, media: Media, by_get: bool) -> Response {
    let refused =
        |message: String| request_error(media, json!([{ "message": message, "extensions": { "code": BAD_REQUEST } }]));
    let document = match judge(&asked) {
        Ok(document) => document,
        Err(message) => return refused(message),
    };
    let operation = match document::operation(&document, asked.operation_name.as_deref()) {
        Ok(operation) => operation,
        Err(error) => return refused(error.to_string()),
    };
    if by_get && operation.ty != OperationType::Query {
        let mut response = failed(StatusCode::METHOD_NOT_ALLOWED, media, "GET runs queries alone; send it by POST");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let variables = Variables::from_json(document::with_defaults(operation, asked.variables));
    let is_for_strangers = caller.is_none() && stranger::is_for_strangers(&document, operation);
    let mut request = Request::new(asked.query).variables(variables);
    request.operation_name = asked.operation_name;
    request.set_parsed_query(document);
    let response = match caller {
        Some(Extension(ctx)) => face.ours.execute(request.data(ctx)).await,
        None if is_for_strangers => face.strangers.execute(request).await,
        None => return unauthenticated(media),
    };
    // a request error happened before execution: it has no data and no path (section 6.4.2)
    let before = !response.errors.is_empty() && response.errors.iter().all(|error| error.path.is_empty());
    let refused = before && response.data == async_graphql::Value::Null;
    let mut whole = serde_json::to_value(&response).unwrap_or_default();
    let mut errors = whole.get_mut("errors").map(Value::take).unwrap_or_default();
    for error in errors.as_array_mut().into_iter().flatten() {
        complete(error);
    }
    if refused {
        return request_error(media, errors);
    }
    let mut body = json!({ "data": whole.get_mut("data").map(Value::take).unwrap_or_default() });
    if let (Some(body), false) = (body.as_object_mut(), errors.is_null()) {
        body.insert("errors".to_owned(), errors);
    }
    respond(StatusCode::OK, media, &body)
}

/// Parses, and refuses what is too large before anybody walks it.
fn judge(asked: &Asked) -> Result<ExecutableDocument, String> {
    let document = parse_query(&asked.query).map_err(|error| error.to_string())?;
    document::check(&document).map_err(|error| error.to_string())?;
    let operation =
        document::operation(&document, asked.operation_name.as_deref()).map_err(|error| error.to_string())?;
    document::check_variables(operation, &asked.variables).map_err(|error| error.to_string())?;
    Ok(document)
}

/// An error of parsing, validation or coercion has no code of its own: the request is to blame.
fn complete(error: &mut Value) {
    let Some(error) = error.as_object_mut() else { return };
    let extensions = error.entry("extensions").or_insert_with(|| json!({}));
    if let Some(extensions) = extensions.as_object_mut() {
        extensions.entry("code").or_insert_with(|| Value::from(BAD_REQUEST));
    }
}

fn request_error(media: Media, errors: Value) -> Response {
    let status = if media == Media::Json { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    respond(status, media, &json!({ "errors": errors }))
}

fn failed(status: StatusCode, media: Media, message: &str) -> Response {
    respond(status, media, &json!({ "errors": [{ "message": message, "extensions": { "code": BAD_REQUEST } }] }))
}

fn unauthenticated(media: Media) -> Response {
    let message = "without a token only __typename is answered; send Authorization: Bearer followed by a valid token";
    let errors = json!([{ "message": message, "extensions": { "code": UNAUTHENTICATED } }]);
    let mut response = respond(StatusCode::UNAUTHORIZED, media, &json!({ "errors": errors }));
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    response
}

fn not_acceptable() -> Response {
    let message = "accept application/graphql-response+json or application/json";
    failed(StatusCode::NOT_ACCEPTABLE, Media::Json, message)
}

fn respond(status: StatusCode, media: Media, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let content_type = match media {
        Media::Json => "application/json; charset=utf-8",
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
