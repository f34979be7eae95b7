//! What stands around every request: trace and log line, panics, admission, time.

use std::any::Any;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use model::id::TraceId;
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::deps::HttpDeps;
use crate::limit::{REQUEST_TIMEOUT, REQUESTS_MAX};
use crate::problem::{self, Problem};
use crate::stranger::{Known, Strangers};

/// The route of a path that has none, in metrics and log.
const NO_ROUTE: &str = "none";

/// The response field that carries the trace.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What [`observe`] works with.
#[derive(Clone)]
pub(crate) struct Observer {
    deps: HttpDeps,
    strangers: Arc<Strangers>,
}

impl Observer {
    /// One for a router.
    pub(crate) fn new(deps: HttpDeps) -> Self {
        Self { deps, strangers: Arc::default() }
    }
}

/// Mints the trace, logs the request once, counts it, and finishes problems. Strangers have a line together.
pub(crate) async fn observe(State(observer): State<Observer>, mut request: Request, next: Next) -> Response {
    let Observer { deps, strangers } = observer;
    let trace = TraceId::new(&*deps.ids);
    let begun = deps.clock.now().mono;
    let method = known(request.method());
    // the pattern, not the path: identifiers stay out of metrics and logs
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| NO_ROUTE.to_owned(), |p| p.as_str().to_owned());
    request.extensions_mut().insert(trace);
    let known_actor = Known::default();
    request.extensions_mut().insert(known_actor.clone());
    let span = tracing::info_span!("http", %trace, method, route);
    let response = next.run(request).instrument(span.clone()).await;
    let mut response = problem::finish(response, trace);
    let status = response.status();
    let took = deps.clock.now().mono.saturating_duration_since(begun);
    let duration_ms = took.as_secs_f64() * 1_000.0;
    if known_actor.is_set() {
        span.in_scope(|| tracing::info!(status = status.as_u16(), duration_ms, "request answered"));
    } else {
        span.in_scope(|| tracing::debug!(status = status.as_u16(), duration_ms, "request answered"));
        if let Some(count) = strangers.count(deps.clock.now().mono) {
            tracing::info!(count, "requests came that nobody is known to answer for");
        }
    }
    let labels = [("method", method.to_owned()), ("route", route), ("status", status.as_str().to_owned())];
    metrics::counter!("tandem_http_requests_total", &labels).increment(1);
    metrics::histogram!("tandem_http_request_duration_seconds", &labels).record(took.as_secs_f64());
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&trace.to_string()) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A method is any token (RFC 9110, section 9.1), and whoever invents one must not make a metric of it.
const fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The places for requests in work.
pub(crate) fn admission() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(REQUESTS_MAX))
}

/// Refuses at once when all places are taken: a queue here would only hide that the store is behind.
pub(crate) async fn admit(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    match places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => {
            let detail = "the server works on as many requests as it may";
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overload", detail, "repeat the request later");
            problem.retry_after_s(1).into_response()
        }
    }
}

/// Ends the waiting, not the work: a change that was begun goes on in its own task (see [`crate::commit()`]).
pub(crate) async fn time_limit(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = "the request took too long; whether a change was made is not known";
            let remedy = "repeat it with the same idempotency key";
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", detail, remedy).into_response()
        }
    }
}

/// A panic costs one answer, not the connection.
pub(crate) fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("not a text");
    tracing::error!(cause = text, "a handler panicked");
    Problem::internal().into_response()
}
