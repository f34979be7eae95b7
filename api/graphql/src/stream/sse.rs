//! GraphQL over server-sent events, "distinct connections mode" (the protocol of `graphql-sse`): one answer per
//! subscription, with the events `next` and `complete`.

use std::convert::Infallible;

use api_http::problem::Problem;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, VARY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Sender};

use super::pass::{Pass, Standing};
use super::{Event, Place, Running, Start, Streams, ticks};
use crate::error::{UNAUTHENTICATED, UNAVAILABLE};
use crate::limit::{KEEPALIVE_PERIOD, RECHECK_PERIOD, SEND_TIMEOUT, STREAMS_PER_ACCOUNT_MAX};
use crate::request::Runnable;

/// A comment: it keeps the connection open and says nothing.
const KEEPALIVE: &[u8] = b":\n\n";
/// Tells a proxy not to gather what is sent.
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

fn next(body: &Value) -> String {
    format!("event: next\ndata: {body}\n\n")
}

const COMPLETE: &str = "event: complete\ndata:\n\n";

fn streamed(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(UNBUFFERED.0, HeaderValue::from_static(UNBUFFERED.1));
    response
}

/// One result as events.
pub(crate) fn events(body: &Value) -> Response {
    streamed(Body::from(next(body) + COMPLETE))
}

/// Answers a subscription with its results as they come. The head is sent when it has begun.
pub(crate) async fn answer_in_events(streams: &Streams, pass: Pass, runnable: Runnable) -> Response {
    let Some(place) = streams.place(pass.ctx()) else {
        let detail = format!("the account has {STREAMS_PER_ACCOUNT_MAX} streams, or the server as many as it may");
        let remedy = "end others, or share one WebSocket among several subscriptions";
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "streams-busy", detail, remedy);
        return problem.retry_after_s(10).into_response();
    };
    let mut running = Running::new();
    match running.start(&streams.schema, pass.ctx().clone(), String::new(), runnable).await {
        Start::Refused(errors) => return events(&json!({ "errors": errors })),
        Start::Runs => {}
    }
    // one piece on its way: the next waits for the client
    let (pieces, taken) = mpsc::channel(1);
    let streams = streams.clone();
    tokio::spawn(async move {
        let reason = feed(&streams, &pass, running, &pieces).await;
        tracing::info!(reason, actor = pass.ctx().actor.name, "a stream of events ended");
        drop::<Place>(place);
    });
    let pieces = futures::stream::unfold(taken, async |mut taken| {
        let piece: Bytes = taken.recv().await?;
        Some((Ok::<_, Infallible>(piece), taken))
    });
    streamed(Body::from_stream(pieces))
}

/// Sends until something ends it, and says what.
async fn feed(streams: &Streams, pass: &Pass, mut running: Running, pieces: &Sender<Bytes>) -> &'static str {
    let [mut recheck, mut keepalive] = [RECHECK_PERIOD, KEEPALIVE_PERIOD].map(ticks);
    loop {
        let piece = tokio::select! {
            () = streams.stopped() => return "the server stops",
            () = pieces.closed() => return "the client has gone",
            _ = keepalive.tick() => Bytes::from_static(KEEPALIVE),
            _ = recheck.tick() => match pass.standing().await {
                Standing::Good => continue,
                other => return end(other, pieces).await,
            },
            batch = running.next() => {
                match pass.standing().await {
                    Standing::Good => {}
                    other => return end(other, pieces).await,
                }
                let (text, is_complete) = written(&batch);
                if !send(pieces, text.into()).await {
                    return "the client is slow";
                }
                if is_complete {
                    return "the subscription is complete";
                }
                continue;
            }
        };
        if !send(pieces, piece).await {
            return "the client is slow";
        }
    }
}

fn written(batch: &[Event]) -> (String, bool) {
    let mut text = String::new();
    for event in batch {
        match event {
            Event::Next { body, .. } => text += &next(body),
            Event::Complete { .. } => return (text + COMPLETE, true),
        }
    }
    (text, false)
}

async fn end(standing: Standing, pieces: &Sender<Bytes>) -> &'static str {
    let (code, message) = match standing {
        Standing::Unknown => (UNAVAILABLE, "the store is not available; subscribe again"),
        _ => (UNAUTHENTICATED, "the token has expired, was revoked, or may do something else now"),
    };
    let errors = json!({ "errors": [{ "message": message, "extensions": { "code": code } }] });
    send(pieces, (next(&errors) + COMPLETE).into()).await;
    message
}

/// Whether the client has taken what was before it.
async fn send(pieces: &Sender<Bytes>, piece: Bytes) -> bool {
    pieces.send_timeout(piece, SEND_TIMEOUT).await.is_ok()
}
