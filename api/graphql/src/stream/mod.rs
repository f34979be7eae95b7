//! Streams: subscriptions over WebSocket and server-sent events. What both share: places, the token that is looked at
//! again and again, the running subscriptions.
//!
//! Nothing is buffered for a client beyond what the feed keeps for all. Who does not take what is sent is ended.

mod pass;
mod sse;
mod ws;

use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api_http::{Share, Shares};
use async_graphql::Response;
use futures::{FutureExt, StreamExt};
use model::ctx::Ctx;
use model::id::AccountId;
use model::page::ReadError;
use serde_json::Value;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use self::pass::Gate;
use crate::error::SLOW_CONSUMER;
use crate::limit::{BATCH_MAX, RESULTS_MAX, STRANGER_STREAMS_MAX, STREAMS_MAX, STREAMS_PER_ACCOUNT_MAX};
use crate::request::{Runnable, Written};
use crate::schema::{GraphqlDeps, Schema};
use crate::subscription::Begun;

pub(crate) use self::pass::{Pass, origin};
pub(crate) use self::sse::{answer_in_events, events};
pub(crate) use self::ws::upgrade;

/// What streams are made with.
#[derive(Clone)]
pub(crate) struct Streams {
    schema: Schema,
    gate: Gate,
    places: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    accounts: Arc<Shares<AccountId>>,
    stop: watch::Receiver<bool>,
}

/// The place of one stream, until it is dropped.
pub(crate) struct Place {
    _all: OwnedSemaphorePermit,
    _account: Share<AccountId>,
}

impl Streams {
    pub(crate) fn new(deps: &GraphqlDeps, schema: Schema) -> Self {
        Self {
            schema,
            gate: Gate::new(deps),
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            strangers: Arc::new(Semaphore::new(STRANGER_STREAMS_MAX)),
            accounts: Shares::new(STREAMS_PER_ACCOUNT_MAX),
            stop: deps.stop.clone(),
        }
    }

    /// A pass for a token; none: it is no good.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub(crate) async fn pass(&self, token: String, from: IpAddr) -> Result<Option<Pass>, ReadError> {
        self.gate.pass(token, from).await
    }

    /// A place; none: the account, or all together, have as many as they may.
    fn place(&self, ctx: &Ctx) -> Option<Place> {
        let all = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place { _all: all, _account: self.accounts.take(ctx.actor.account)? })
    }

    /// Waits for the stop of the face.
    async fn stopped(&self) {
        // an error means that the sender is gone, which is the end as well
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }
}

/// What a subscription has to tell.
#[derive(Debug)]
enum Event {
    Next { id: String, body: Value, is_slow: bool },
    Complete { id: String },
}

/// How a subscription begins.
enum Start {
    /// It runs.
    Runs,
    /// It was refused with these errors.
    Refused(Value),
}

/// A result, or the end, of the subscription with a serial number: an identifier may be used again.
type Item = (u64, Option<Response>);

/// The running subscriptions of one stream, each in a task of its own: a stream that waits for its client must not leave
/// them half-way in a read, with a connection to the store in their hands.
struct Running {
    results: Receiver<Item>,
    sender: Sender<Item>,
    tasks: JoinSet<()>,
    open: HashMap<String, (u64, AbortHandle)>,
    serial: u64,
}

impl Running {
    fn new() -> Self {
        let (sender, results) = mpsc::channel(RESULTS_MAX);
        Self { results, sender, tasks: JoinSet::new(), open: HashMap::new(), serial: 0 }
    }

    /// Starts one, and waits until it has begun: what is committed after that is told.
    async fn start(&mut self, schema: &Schema, ctx: Ctx, id: String, runnable: Runnable) -> Start {
        let (begun, has_begun) = oneshot::channel();
        let begun: Begun = Mutex::new(Some(begun));
        let mut stream = schema.execute_stream(runnable.request.data(ctx).data(begun));
        let first = tokio::select! {
            biased;
            first = stream.next() => first,
            Ok(()) = has_begun => None,
        };
        if let Some(first) = &first {
            let Written { body, .. } = Written::of(first);
            if body.get("data").is_none_or(Value::is_null) {
                return Start::Refused(body.get("errors").cloned().unwrap_or_default());
            }
        }
        self.serial += 1;
        let (serial, sender) = (self.serial, self.sender.clone());
        let mut results = futures::stream::iter(first).chain(stream);
        // those that have ended
        while self.tasks.try_join_next().is_some() {}
        let handle = self.tasks.spawn(async move {
            let told = AssertUnwindSafe(async {
                while let Some(result) = results.next().await {
                    // an error means that the stream ends
                    let _ = sender.send((serial, Some(result))).await;
                }
            });
            if told.catch_unwind().await.is_err() {
                tracing::error!("a subscription panicked");
            }
            let _ = sender.send((serial, None)).await;
        });
        self.open.insert(id, (serial, handle));
        Start::Runs
    }

    /// The client wants no more of it.
    fn complete(&mut self, id: &str) {
        if let Some((_, handle)) = self.open.remove(id) {
            handle.abort();
        }
    }

    /// What is there to tell, at most [`BATCH_MAX`]. It may be dropped while it waits.
    async fn next(&mut self) -> Vec<Event> {
        // it never ends: a sender is kept here
        let Some(first) = self.results.recv().await else { return Vec::new() };
        let mut batch: Vec<_> = self.event(first).into_iter().collect();
        while batch.len() < BATCH_MAX
            && let Ok(item) = self.results.try_recv()
        {
            batch.extend(self.event(item));
        }
        batch
    }

    fn event(&mut self, (serial, response): Item) -> Option<Event> {
        let id = self.open.iter().find(|(_, (open, _))| *open == serial).map(|(id, _)| id.clone())?;
        let Some(response) = response else {
            self.open.remove(&id);
            return Some(Event::Complete { id });
        };
        let is_slow = response.errors.iter().any(|error| {
            let code = error.extensions.as_ref().and_then(|extensions| extensions.get("code"));
            code == Some(&SLOW_CONSUMER.into())
        });
        Some(Event::Next { id, body: Written::of(&response).body, is_slow })
    }
}

/// Ticks from one period on.
fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
