//! The agent: one task that drives the machine of `ua` on one UDP socket.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use model::time::Clock;
use sip_engine::Timers;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::rtp::RtpStreams;
use super::types::{
    Account, AccountId, Behaviour, CallOutcome, CallRequest, PlaceError, Progress, RegisterError, Trunk,
};
use super::ua::{CallKey, Event, UserAgent};

/// Commands that wait for the agent's task.
const COMMANDS_MAX: usize = 1024;
/// Finished incoming calls that are kept until they are taken; older ones are dropped.
const RECEIVED_KEPT_MAX: usize = 20_000;
/// Octets of the socket's receive buffer that are asked for: a burst of some thousand messages.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Datagrams read before commands and timers get their turn.
const READS_MAX: usize = 64;

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Address of SIP and RTP; the port may be 0. An unspecified address is replaced by the one that reaches `server`.
    pub local: SocketAddr,
    /// Where requests go.
    pub server: SocketAddr,
    /// What is done with calls that name no account: the carrier's side of a trunk.
    pub trunk: Vec<Trunk>,
    /// SIP timers.
    pub timers: Timers,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl AgentConfig {
    /// A phone: no trunk routes, timers of the standard.
    #[must_use]
    pub fn new(local: SocketAddr, server: SocketAddr) -> Self {
        Self { local, server, trunk: Vec::new(), timers: Timers::default(), clock: Arc::new(db::system::SystemClock) }
    }

    /// The same agent as a carrier that does this with every call.
    #[must_use]
    pub fn trunk(mut self, prefix: impl Into<String>, behaviour: Behaviour) -> Self {
        self.trunk.push(Trunk { prefix: prefix.into(), behaviour });
        self
    }
}

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket could not be had.
    #[error("no socket for SIP at {local}")]
    Socket {
        /// The address that was asked for.
        local: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("the system gave no randomness for tags and branches")]
    Random,
}

enum Command {
    Add { account: Account, done: oneshot::Sender<Result<AccountId, RegisterError>> },
    SetExpiry { account: AccountId, expires_s: Option<u32>, done: oneshot::Sender<Result<u32, RegisterError>> },
    Behave { account: AccountId, behaviour: Behaviour },
    Trunk(Vec<Trunk>),
    Place { request: CallRequest, done: oneshot::Sender<Result<CallHandle, PlaceError>> },
    HangUp(CallKey),
    Abandon(CallKey),
}

/// A running agent. It ends when it is dropped; calls that are up are then abandoned without BYE.
#[derive(Debug)]
pub struct Agent {
    local: SocketAddr,
    commands: mpsc::Sender<Command>,
    answering: Arc<AtomicBool>,
    received: Arc<Mutex<Vec<CallOutcome>>>,
    task: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    /// Binds the socket and starts the task.
    ///
    /// # Errors
    /// When the socket can't be bound.
    pub async fn start(config: AgentConfig) -> Result<Self, StartError> {
        let socket_error = |source| StartError::Socket { local: config.local, source };
        let mut local = config.local;
        if local.ip().is_unspecified() {
            local.set_ip(address_towards(config.server).await.map_err(socket_error)?);
        }
        let socket = UdpSocket::bind(local).await.map_err(socket_error)?;
        // A smaller buffer works too, only not under load.
        if let Err(error) = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &RECEIVE_BUFFER) {
            tracing::debug!(%error, "the receive buffer stays as it is");
        }
        let local = socket.local_addr().map_err(socket_error)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| StartError::Random)?;
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let answering = Arc::new(AtomicBool::new(true));
        let received = Arc::new(Mutex::new(Vec::new()));
        let driver = Driver {
            machine: UserAgent::new(local, config.server, config.trunk, config.timers, seed),
            media: RtpStreams::new(local.ip()),
            socket,
            clock: config.clock,
            commands: commands.clone(),
            registering: HashMap::new(),
            placed: HashMap::new(),
            answering: Arc::clone(&answering),
            received: Arc::clone(&received),
        };
        let task = tokio::spawn(driver.run(inbox));
        Ok(Self { local, commands, answering, received, task })
    }

    /// The address of SIP.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Adds an account and registers it. The account exists afterwards even when the server refused, unless this
    /// fails with [`RegisterError::Gone`]; a wrong password can so be tried with [`Agent::call`] by [`Agent::add`].
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn register(&self, account: Account) -> Result<AccountId, RegisterError> {
        let id = self.add(account).await?;
        self.refresh(id).await.map(|_| id)
    }

    /// Adds an account without registering it: it can place calls, not receive any.
    ///
    /// # Errors
    /// When the agent has ended.
    pub async fn add(&self, account: Account) -> Result<AccountId, RegisterError> {
        let (done, result) = oneshot::channel();
        self.send(Command::Add { account, done }).await;
        result.await.unwrap_or(Err(RegisterError::Gone))
    }

    /// Registers an account again now; the seconds that were granted.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn refresh(&self, account: AccountId) -> Result<u32, RegisterError> {
        self.set_expiry(account, None).await
    }

    /// Takes a registration back.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn unregister(&self, account: AccountId) -> Result<(), RegisterError> {
        self.set_expiry(account, Some(0)).await.map(|_| ())
    }

    async fn set_expiry(&self, account: AccountId, expires_s: Option<u32>) -> Result<u32, RegisterError> {
        let (done, result) = oneshot::channel();
        self.send(Command::SetExpiry { account, expires_s, done }).await;
        result.await.unwrap_or(Err(RegisterError::Gone))
    }

    /// Changes what an account does with calls that come from now on.
    pub async fn behave(&self, account: AccountId, behaviour: Behaviour) {
        self.send(Command::Behave { account, behaviour }).await;
    }

    /// Changes the trunk routes.
    pub async fn route(&self, trunk: Vec<Trunk>) {
        self.send(Command::Trunk(trunk)).await;
    }

    /// Whether datagrams are heard. Off is a carrier that is down: nothing is answered, not even OPTIONS.
    pub fn set_answering(&self, answering: bool) {
        self.answering.store(answering, Ordering::Release);
    }

    /// Places a call.
    ///
    /// # Errors
    /// When it could not even be tried.
    pub async fn place(&self, request: CallRequest) -> Result<CallHandle, PlaceError> {
        let (done, result) = oneshot::channel();
        self.send(Command::Place { request, done }).await;
        result.await.unwrap_or(Err(PlaceError::Gone))
    }

    /// Places a call and waits for its end.
    ///
    /// # Errors
    /// When it could not even be tried.
    pub async fn call(&self, request: CallRequest) -> Result<CallOutcome, PlaceError> {
        self.place(request).await?.outcome().await
    }

    /// The incoming calls that ended since this was asked last.
    #[must_use]
    pub fn take_received(&self) -> Vec<CallOutcome> {
        self.received.lock().map(|mut received| std::mem::take(&mut *received)).unwrap_or_default()
    }

    async fn send(&self, command: Command) {
        // When the task has ended, the command's answer is dropped with it, and the caller sees that.
        let _ended = self.commands.send(command).await;
    }
}

/// A placed call.
#[derive(Debug)]
pub struct CallHandle {
    key: CallKey,
    commands: mpsc::Sender<Command>,
    progress: watch::Receiver<Progress>,
    outcome: oneshot::Receiver<CallOutcome>,
}

impl CallHandle {
    /// How far the call is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Waits until the call is at least so far. False when it ended before (unless the end is what is waited for).
    pub async fn reached(&mut self, wanted: Progress) -> bool {
        let seen = self.progress.wait_for(|progress| *progress >= wanted).await.map(|progress| *progress);
        // A sender that is gone has ended the call.
        let seen = seen.unwrap_or(Progress::Ended);
        seen == wanted || seen < Progress::Ended
    }

    /// Hangs up: BYE, or CANCEL before the answer.
    pub async fn hang_up(&self) {
        let _ended = self.commands.send(Command::HangUp(self.key)).await;
    }

    /// Forgets the call without a word, as a phone does whose battery died.
    pub async fn abandon(&self) {
        let _ended = self.commands.send(Command::Abandon(self.key)).await;
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When the agent ended first.
    pub async fn outcome(self) -> Result<CallOutcome, PlaceError> {
        self.outcome.await.map_err(|_| PlaceError::Gone)
    }
}

struct Placed {
    progress: watch::Sender<Progress>,
    outcome: oneshot::Sender<CallOutcome>,
}

struct Driver {
    machine: UserAgent,
    media: RtpStreams,
    socket: UdpSocket,
    clock: Arc<dyn Clock>,
    commands: mpsc::Sender<Command>,
    registering: HashMap<AccountId, Vec<oneshot::Sender<Result<u32, RegisterError>>>>,
    placed: HashMap<CallKey, Placed>,
    answering: Arc<AtomicBool>,
    received: Arc<Mutex<Vec<CallOutcome>>>,
}

impl Driver {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut buffer = vec![0; sip_message::limits::MESSAGE_MAX];
        loop {
            let next = self.machine.next_timeout();
            let wake = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                readable = self.socket.readable() => {
                    if let Err(error) = readable {
                        tracing::error!(%error, "the SIP socket of the caller failed");
                        return;
                    }
                    self.read(&mut buffer);
                }
                command = inbox.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = wake => {}
            }
            let now = self.clock.now();
            if self.machine.next_timeout().is_some_and(|at| at <= now.mono) {
                self.machine.handle_timeout(now, &mut self.media);
            }
            self.drain().await;
        }
    }

    fn read(&mut self, buffer: &mut [u8]) {
        for _ in 0..READS_MAX {
            match self.socket.try_recv_from(buffer) {
                Ok((length, from)) => {
                    if self.answering.load(Ordering::Acquire)
                        && let Some(datagram) = buffer.get(..length)
                    {
                        let now = self.clock.now();
                        self.machine.receive(now, Bytes::copy_from_slice(datagram), from, &mut self.media);
                    }
                }
                // Nothing left, or an ICMP error of an earlier packet: the transactions' timers see to that.
                Err(_) => return,
            }
        }
    }

    fn command(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Add { account, done } => {
                let _gone = done.send(self.machine.add_account(account).ok_or(RegisterError::Address));
            }
            Command::SetExpiry { account, expires_s, done } => {
                self.registering.entry(account).or_default().push(done);
                self.machine.register(now, account, expires_s);
            }
            Command::Behave { account, behaviour } => self.machine.set_behaviour(account, behaviour),
            Command::Trunk(trunk) => self.machine.set_trunk(trunk),
            Command::Place { request, done } => {
                let placed = self.machine.place(now, request, &mut self.media);
                let handle = placed.map(|key| {
                    let (progress, progress_seen) = watch::channel(Progress::Calling);
                    let (outcome, outcome_seen) = oneshot::channel();
                    self.placed.insert(key, Placed { progress, outcome });
                    CallHandle { key, commands: self.commands.clone(), progress: progress_seen, outcome: outcome_seen }
                });
                let _gone = done.send(handle);
            }
            Command::HangUp(call) => self.machine.hang_up(now, call, &mut self.media),
            Command::Abandon(call) => self.machine.abandon(now, call, &mut self.media),
        }
    }

    async fn drain(&mut self) {
        while let Some((bytes, peer)) = self.machine.poll_transmit() {
            if let Err(error) = self.socket.send_to(&bytes, peer.remote).await {
                tracing::debug!(%error, "a SIP message was not taken by the system; timers repeat it");
            }
        }
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Progress(call, progress) => {
                    if let Some(placed) = self.placed.get(&call) {
                        placed.progress.send_replace(progress);
                    }
                }
                Event::Ended(call, outcome) => match self.placed.remove(&call) {
                    Some(placed) => {
                        placed.progress.send_replace(Progress::Ended);
                        let _gone = placed.outcome.send(*outcome);
                    }
                    None => self.keep(*outcome),
                },
                Event::Registered(account, result) => {
                    // Results come in the order of the requests: one dialogless transaction after the other.
                    let waiting = self.registering.entry(account).or_default();
                    if !waiting.is_empty() {
                        let _gone = waiting.remove(0).send(result);
                    }
                }
            }
        }
    }

    fn keep(&self, outcome: CallOutcome) {
        if let Ok(mut received) = self.received.lock() {
            if received.len() >= RECEIVED_KEPT_MAX {
                received.remove(0);
            }
            received.push(outcome);
        }
    }
}

/// Our address as the way to `server` has it; nothing is sent.
async fn address_towards(server: SocketAddr) -> io::Result<std::net::IpAddr> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let probe = UdpSocket::bind(any).await?;
    probe.connect(server).await?;
    Ok(probe.local_addr()?.ip())
}
