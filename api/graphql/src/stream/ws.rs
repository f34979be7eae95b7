//! The protocol `graphql-transport-ws` (that of the library `graphql-ws`): one WebSocket, many subscriptions. Queries
//! and mutations go by HTTP, where they are bounded as requests.

use std::borrow::Cow;
use std::net::IpAddr;

use api_http::Held;
use api_http::problem::Problem;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{Extensions, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::pass::{Pass, Standing, origin};
use super::{Event, Place, Running, Start, Streams, ticks};
use crate::limit::{
    CLOSE_TIMEOUT, INIT_TIMEOUT, KEEPALIVE_PERIOD, MESSAGE_MAX, RECHECK_PERIOD, SEND_TIMEOUT, SUBSCRIPTION_ID_MAX,
    SUBSCRIPTIONS_MAX,
};
use crate::request::{Asked, coded};

const PROTOCOL: &str = "graphql-transport-ws";
/// Octets that wait for the client besides the message that is on its way.
const WRITE_BUFFER: usize = 64 * 1_024;
/// Octets of the reason in a close frame (RFC 6455, section 5.5).
const REASON_MAX: usize = 123;

/// Why a connection ends: the code and what it says.
struct End(u16, Cow<'static, str>);

impl End {
    const GONE: Self = Self(1006, Cow::Borrowed("the client has gone"));
    const STOPPING: Self = Self(1001, Cow::Borrowed("the server stops"));
    const TRY_LATER: Self = Self(1013, Cow::Borrowed("the store is not available; try again later"));
    const SLOW: Self = Self(1008, Cow::Borrowed("changes are taken too slowly: read by the query what was missed"));
    const MALFORMED: Self = Self(4400, Cow::Borrowed("a message is malformed"));
    const ENDED: Self = Self(4401, Cow::Borrowed("the token has expired, was revoked, or may do something else now"));
    const TOO_EARLY: Self = Self(4401, Cow::Borrowed("Unauthorized"));
    const FORBIDDEN: Self = Self(4403, Cow::Borrowed("Forbidden"));
    const NO_PROTOCOL: Self = Self(4406, Cow::Borrowed("Subprotocol not acceptable"));
    const INIT_LATE: Self = Self(4408, Cow::Borrowed("Connection initialisation timeout"));
    const INIT_TWICE: Self = Self(4429, Cow::Borrowed("Too many initialisation requests"));
    const NO_PLACE: Self = Self(1013, Cow::Borrowed("the account has as many streams as it may; end others"));
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum FromClient {
    ConnectionInit { payload: Option<Map<String, Value>> },
    Ping { payload: Option<Value> },
    Pong {},
    Subscribe { id: String, payload: Value },
    Complete { id: String },
}

/// Takes the connection over. `token` came with the request, and was good.
pub(crate) fn upgrade(
    streams: Streams,
    upgrade: WebSocketUpgrade,
    token: Option<String>,
    extensions: &Extensions,
) -> Response {
    let (from, held) = (origin(extensions), extensions.get::<Held>().cloned());
    let stranger = token.is_none().then(|| streams.strangers.clone().try_acquire_owned()).transpose();
    let Ok(stranger) = stranger else {
        let detail = "as many connections as may have not said who they are";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overload", detail, "try again later");
        return problem.retry_after_s(1).into_response();
    };
    let upgrade = upgrade.protocols([PROTOCOL]).max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX);
    let upgrade = upgrade.write_buffer_size(0).max_write_buffer_size(WRITE_BUFFER + MESSAGE_MAX);
    upgrade.on_upgrade(move |mut socket| async move {
        let End(code, reason) = if socket.protocol().is_some_and(|protocol| protocol == PROTOCOL) {
            serve(&streams, &mut socket, token, from, stranger).await
        } else {
            End::NO_PROTOCOL
        };
        close(&mut socket, code, reason.into_owned()).await;
        drop(held);
    })
}

/// Says why, and lets the client take it: who closes a socket with something unread in it cuts off what was sent.
async fn close(socket: &mut WebSocket, code: u16, mut reason: String) {
    if code != End::GONE.0 {
        while reason.len() > REASON_MAX {
            reason.pop();
        }
        let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        if !matches!(timeout(SEND_TIMEOUT, socket.send(frame)).await, Ok(Ok(()))) {
            return;
        }
    }
    // An answer to the client's own close goes out by reading, too.
    let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = socket.recv().await {} }).await;
}

async fn serve(
    streams: &Streams,
    socket: &mut WebSocket,
    token: Option<String>,
    from: IpAddr,
    stranger: Option<OwnedSemaphorePermit>,
) -> End {
    let introduced = tokio::select! {
        () = streams.stopped() => return End::STOPPING,
        introduced = timeout(INIT_TIMEOUT, introduction(streams, socket, token, from)) => introduced,
    };
    let (pass, place) = match introduced {
        Ok(Ok(introduced)) => introduced,
        Ok(Err(end)) => return end,
        Err(_) => return End::INIT_LATE,
    };
    drop(stranger);
    let mut session = Session { streams, socket, pass, running: Running::new(), is_heard: true };
    let end = session.run().await.err().unwrap_or(End::GONE);
    tracing::info!(code = end.0, reason = &*end.1, actor = session.pass.ctx().actor.name, "a WebSocket ended");
    drop::<Place>(place);
    end
}

/// Waits for `connection_init`. A token in it goes before that of the request.
async fn introduction(
    streams: &Streams,
    socket: &mut WebSocket,
    token: Option<String>,
    from: IpAddr,
) -> Result<(Pass, Place), End> {
    let payload = loop {
        match receive(socket).await? {
            Some(FromClient::ConnectionInit { payload }) => break payload.unwrap_or_default(),
            Some(FromClient::Ping { payload }) => send(socket, &pong(payload)).await?,
            None | Some(FromClient::Pong {}) => {}
            Some(FromClient::Subscribe { .. } | FromClient::Complete { .. }) => return Err(End::TOO_EARLY),
        }
    };
    let token = token_of(&payload).or(token).ok_or(End::FORBIDDEN)?;
    let pass = streams.gate.pass(token, from).await.map_err(|_| End::TRY_LATER)?.ok_or(End::FORBIDDEN)?;
    let place = streams.place(pass.ctx()).ok_or(End::NO_PLACE)?;
    send(socket, &json!({ "type": "connection_ack" })).await?;
    Ok((pass, place))
}

/// `Authorization: Bearer …` as a header has it, in any case, or `token`.
fn token_of(payload: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| {
        let (_, value) = payload.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        value.as_str().map(str::trim)
    };
    let bearer = text("authorization").map(|field| match field.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => field,
    });
    bearer.or_else(|| text("token")).filter(|token| token.len() <= api_http::limit::TOKEN_MAX).map(str::to_owned)
}

struct Session<'a> {
    streams: &'a Streams,
    socket: &'a mut WebSocket,
    pass: Pass,
    running: Running,
    /// Whether the client has said anything since the last keepalive.
    is_heard: bool,
}

impl Session<'_> {
    async fn run(&mut self) -> Result<(), End> {
        let [mut recheck, mut keepalive] = [RECHECK_PERIOD, KEEPALIVE_PERIOD].map(ticks);
        loop {
            tokio::select! {
                () = self.streams.stopped() => return Err(End::STOPPING),
                message = receive(self.socket) => {
                    self.is_heard = true;
                    if let Some(message) = message? {
                        self.take(message).await?;
                    }
                }
                _ = recheck.tick() => look(&self.pass).await?,
                _ = keepalive.tick() => {
                    if !std::mem::take(&mut self.is_heard) {
                        return Err(End::GONE);
                    }
                    send_frame(self.socket, Message::Ping(Vec::new().into())).await?;
                }
                batch = self.running.next() => {
                    look(&self.pass).await?;
                    for event in batch {
                        self.tell(event).await?;
                    }
                }
            }
        }
    }

    async fn take(&mut self, message: FromClient) -> Result<(), End> {
        match message {
            FromClient::ConnectionInit { .. } => Err(End::INIT_TWICE),
            FromClient::Ping { payload } => send(self.socket, &pong(payload)).await,
            FromClient::Pong {} => Ok(()),
            FromClient::Complete { id } => {
                self.running.complete(&id);
                Ok(())
            }
            FromClient::Subscribe { id, payload } => self.subscribe(id, payload).await,
        }
    }

    async fn subscribe(&mut self, id: String, payload: Value) -> Result<(), End> {
        if id.is_empty() || id.len() > SUBSCRIPTION_ID_MAX {
            return Err(End::MALFORMED);
        }
        if self.running.open.contains_key(&id) {
            return Err(End(4409, format!("Subscriber for {id} already exists").into()));
        }
        let errors = match self.runnable(payload) {
            Ok(runnable) => {
                let ctx = self.pass.ctx().clone();
                match self.running.start(&self.streams.schema, ctx, id.clone(), runnable).await {
                    Start::Runs => return Ok(()),
                    Start::Refused(errors) => errors,
                }
            }
            Err(message) => json!([coded(&message)]),
        };
        send(self.socket, &json!({ "id": id, "type": "error", "payload": errors })).await
    }

    fn runnable(&self, payload: Value) -> Result<crate::request::Runnable, String> {
        if self.running.open.len() >= SUBSCRIPTIONS_MAX {
            return Err(format!("the connection has {SUBSCRIPTIONS_MAX} subscriptions; complete others"));
        }
        let runnable = Asked::of(payload)?.judge()?;
        if runnable.operation == async_graphql::parser::types::OperationType::Subscription {
            Ok(runnable)
        } else {
            Err("only subscriptions run over WebSocket; send queries and mutations by POST".to_owned())
        }
    }

    async fn tell(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Next { is_slow: true, .. } => Err(End::SLOW),
            Event::Next { id, body, .. } => {
                send(self.socket, &json!({ "id": id, "type": "next", "payload": body })).await
            }
            Event::Complete { id } => send(self.socket, &json!({ "id": id, "type": "complete" })).await,
        }
    }
}

async fn look(pass: &Pass) -> Result<(), End> {
    match pass.standing().await {
        Standing::Good => Ok(()),
        Standing::Ended => Err(End::ENDED),
        Standing::Unknown => Err(End::TRY_LATER),
    }
}

fn pong(payload: Option<Value>) -> Value {
    let mut message = json!({ "type": "pong" });
    if let (Some(message), Some(payload)) = (message.as_object_mut(), payload) {
        message.insert("payload".to_owned(), payload);
    }
    message
}

/// The next message; none: a frame that the protocol knows nothing of. It may be dropped while it waits.
async fn receive(socket: &mut WebSocket) -> Result<Option<FromClient>, End> {
    match socket.recv().await {
        Some(Ok(Message::Text(text))) => serde_json::from_str(&text).map(Some).map_err(|_| End::MALFORMED),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        Some(Ok(Message::Binary(_))) => Err(End::MALFORMED),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(End::GONE),
    }
}

async fn send(socket: &mut WebSocket, message: &Value) -> Result<(), End> {
    send_frame(socket, Message::Text(message.to_string().into())).await
}

async fn send_frame(socket: &mut WebSocket, message: Message) -> Result<(), End> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::GONE),
        Err(_) => Err(End::SLOW),
    }
}
