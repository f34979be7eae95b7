//! Transactions (RFC 3261, section 17, with RFC 6026; CANCEL after RFC 3261, section 9; responses after RFC 3581).
//!
//! One value holds all transactions of a shard. Keys handed to the user are serial numbers that are never used
//! again, so a late answer can't reach a younger transaction. Messages find their transaction by a 128-bit keyed
//! hash of branch, sent-by and method; nothing is formatted for it. Timers are one heap in which a transaction has
//! one live entry; entries that came too early are put back, so the heap is bounded by the transactions.

mod client;
mod key;
mod server;
#[cfg(test)]
mod tests;
mod timer;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_message::{Message, Method};

use client::Client;
use key::{BuildKeyHasher, KeyHash, Matcher};
use server::Server;
use timer::{Heap, Owner};

use crate::Peer;

/// Names one client transaction for as long as the node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(u64);

/// Names one server transaction for as long as the node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey(u64);

/// The base timers (RFC 3261, table 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Estimate of the round trip. Too low: needless retransmissions; too high: slow recovery from loss.
    pub t1: Duration,
    /// Longest interval of retransmissions of non-INVITE requests and INVITE responses.
    pub t2: Duration,
    /// How long a message stays in the network.
    pub t4: Duration,
    /// Timer D on UDP: how long retransmitted finals of an INVITE are answered with ACK; at least 32 s.
    pub d: Duration,
}

impl Timers {
    /// 64*T1, the length of timers B, F, H, J, L, M.
    #[must_use]
    pub const fn t1_64(&self) -> Duration {
        self.t1.saturating_mul(64)
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            d: Duration::from_secs(32),
        }
    }
}

/// How the transactions of one shard behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionConfig {
    /// The base timers.
    pub timers: Timers,
    /// Most transactions at a time, client and server each; requests of ours within dialogs are bounded by their calls.
    /// When there are as many, the oldest that only absorbs repetitions ends before its time; when there is none,
    /// requests are refused with 503. Too low: late repetitions are taken for new requests, and load is refused that
    /// the node could carry; too high: a flood fills the memory (a transaction takes about 2 KiB).
    pub transactions_max: usize,
    /// How long an INVITE may wait for its next response of ours before it is forgotten. It must be longer than anybody
    /// may ring. Too low: calls that ring for long can't be answered; too high: requests that a defect left unanswered
    /// hold their place for long.
    pub invite_max: Duration,
    /// Answer to the source port even when the client asks for no `rport`. Off is the standard; on helps phones
    /// behind NAT that don't know RFC 3581.
    pub force_rport: bool,
}

impl Default for TransactionConfig {
    fn default() -> Self {
        Self {
            timers: Timers::default(),
            transactions_max: 200_000,
            invite_max: Duration::from_secs(1_800),
            force_rport: false,
        }
    }
}

/// What the user of the transactions is told.
#[derive(Debug, Clone)]
pub enum TransactionEvent {
    /// A new request other than ACK and CANCEL. It must be answered with a final response.
    Request {
        /// Its server transaction.
        key: ServerKey,
        /// The request.
        msg: Message,
        /// Where it came from.
        peer: Peer,
    },
    /// A CANCEL. It must be answered: 200 when `invite` is known, 481 otherwise.
    Cancel {
        /// The transaction of the CANCEL itself.
        key: ServerKey,
        /// The INVITE transaction that it names, if there is one (also when a final response was sent already).
        invite: Option<ServerKey>,
        /// The CANCEL.
        msg: Message,
        /// Where it came from.
        peer: Peer,
    },
    /// An ACK that no transaction absorbed: for a 2xx. Retransmitted ones come too.
    Ack {
        /// The ACK.
        msg: Message,
        /// Where it came from.
        peer: Peer,
    },
    /// A response to a request of ours: every provisional one, the final one, and each further 2xx to an INVITE
    /// (retransmitted or from another fork), which needs an ACK each time.
    Response {
        /// The client transaction.
        key: ClientKey,
        /// The response.
        msg: Message,
    },
    /// A response that no transaction waits for, such as a 2xx after Timer M.
    StrayResponse {
        /// The response.
        msg: Message,
        /// Where it came from.
        peer: Peer,
    },
    /// No final response in time (timer B or F, or 64*T1 after a CANCEL): treat as 408.
    Timeout {
        /// The client transaction, which is gone.
        key: ClientKey,
    },
    /// The transport failed under a request: treat as 503.
    TransportError {
        /// The client transaction, which is gone.
        key: ClientKey,
    },
    /// No ACK came for our non-2xx final response to an INVITE (timer H).
    AckTimeout {
        /// The server transaction, which is gone.
        key: ServerKey,
    },
    /// A client transaction is over after its final response.
    ClientTerminated {
        /// The client transaction.
        key: ClientKey,
    },
    /// A server transaction is over: after its final response, or because none was given for too long.
    ServerTerminated {
        /// The server transaction.
        key: ServerKey,
    },
}

/// Why a request could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The octets are no request, or an ACK or CANCEL: use [`Transactions::send`] or [`Transactions::cancel`].
    #[error("these octets are no request that begins a transaction")]
    NotARequest,
    /// Another transaction has the same branch.
    #[error("the branch is in use")]
    BranchInUse,
    /// As many transactions as the configuration allows, and the request is outside of any dialog.
    #[error("too many transactions")]
    Full,
}

/// All transactions of one shard.
pub struct Transactions {
    config: TransactionConfig,
    matcher: Matcher,
    serial: u64,
    clients: HashMap<u64, Client, BuildKeyHasher>,
    servers: HashMap<u64, Server, BuildKeyHasher>,
    clients_by_hash: HashMap<KeyHash, u64, BuildKeyHasher>,
    servers_by_hash: HashMap<KeyHash, u64, BuildKeyHasher>,
    clients_absorbing: Absorbing,
    servers_absorbing: Absorbing,
    timers: Heap,
    out: Output,
}

/// Transactions that have done their work and only absorb repetitions, in the order in which they came to it. Some may
/// be gone already.
#[derive(Default)]
struct Absorbing {
    invites: VecDeque<u64>,
    others: VecDeque<u64>,
}

impl Absorbing {
    fn push(&mut self, serial: u64, is_invite: bool) {
        let queue = if is_invite { &mut self.invites } else { &mut self.others };
        queue.push_back(serial);
    }

    /// The oldest, one of an INVITE last: who repeats its 2xx for want of an ACK is still served.
    fn pop(&mut self, lives: impl Fn(u64) -> bool) -> Option<u64> {
        [&mut self.others, &mut self.invites]
            .into_iter()
            .find_map(|queue| std::iter::from_fn(|| queue.pop_front()).find(|serial| lives(*serial)))
    }

    /// Forgets those that are gone, as far as they are the oldest.
    fn trim(&mut self, lives: impl Fn(u64) -> bool) {
        for queue in [&mut self.others, &mut self.invites] {
            while queue.pop_front_if(|serial| !lives(*serial)).is_some() {}
        }
    }
}

/// What waits to be drained.
#[derive(Default)]
struct Output {
    transmits: VecDeque<(Bytes, Peer)>,
    events: VecDeque<TransactionEvent>,
}

impl Output {
    fn transmit(&mut self, bytes: Bytes, peer: Peer) {
        self.transmits.push_back((bytes, peer));
    }

    fn event(&mut self, event: TransactionEvent) {
        self.events.push_back(event);
    }
}

/// Timers that fire in one call of [`Transactions::handle_timeout`]; the rest fires in the next one, so that a
/// stalled shard takes its datagrams in between.
const TIMERS_PER_CALL_MAX: usize = 1024;

impl Transactions {
    /// No transactions yet. The seed keys the hashes; it should be secret and differ between shards.
    #[must_use]
    pub fn new(config: TransactionConfig, seed: u64) -> Self {
        Self {
            config,
            matcher: Matcher::new(seed),
            serial: 0,
            clients: HashMap::default(),
            servers: HashMap::default(),
            clients_by_hash: HashMap::default(),
            servers_by_hash: HashMap::default(),
            clients_absorbing: Absorbing::default(),
            servers_absorbing: Absorbing::default(),
            timers: Heap::default(),
            out: Output::default(),
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &TransactionConfig {
        &self.config
    }

    /// Transactions that live now, client and server.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len().saturating_add(self.servers.len())
    }

    /// Server transactions that live now.
    #[must_use]
    pub fn servers_len(&self) -> usize {
        self.servers.len()
    }

    /// Whether no transaction lives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn next_serial(&mut self) -> u64 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    /// Takes a message from the network.
    pub fn receive(&mut self, now: Instant, msg: Message, peer: Peer) {
        if msg.is_request() {
            self.receive_request(now, msg, peer);
        } else {
            self.receive_response(now, msg, peer);
        }
    }

    /// Sends a request in a new client transaction. The octets are complete, with a Via of ours on top.
    pub fn request(&mut self, now: Instant, msg: Bytes, peer: Peer) -> Result<ClientKey, RequestError> {
        let message = Message::parse_datagram(msg).map_err(|_| RequestError::NotARequest)?;
        if !message.is_request() || matches!(message.method(), Method::Ack | Method::Cancel) {
            return Err(RequestError::NotARequest);
        }
        // A request within a dialog is let out: its call was admitted, and a BYE that is not sent leaves a leg up.
        let within = message.to().is_ok_and(|to| to.tag().is_some());
        if self.clients.len() >= self.config.transactions_max && !self.end_oldest_client() && !within {
            return Err(RequestError::Full);
        }
        self.start_client(now, &message, peer, false).map(ClientKey)
    }

    fn start_client(
        &mut self,
        now: Instant,
        message: &Message,
        peer: Peer,
        internal: bool,
    ) -> Result<u64, RequestError> {
        let hash = self.matcher.client(message).ok_or(RequestError::NotARequest)?;
        if self.clients_by_hash.contains_key(&hash) {
            return Err(RequestError::BranchInUse);
        }
        let serial = self.next_serial();
        let client = Client::start(now, &self.config.timers, message, peer, hash, internal);
        self.out.transmit(message.as_bytes().clone(), peer);
        self.timers.schedule(Owner::Client(serial), client.deadline());
        self.clients_by_hash.insert(hash, serial);
        self.clients.insert(serial, client);
        Ok(serial)
    }

    /// Cancels an INVITE of ours. The CANCEL goes out now, or when the first provisional response arrives (RFC
    /// 3261, section 9.1); its own response is absorbed. The INVITE still ends with an event: its final response
    /// (487, or a 200 that came first), or [`TransactionEvent::Timeout`]. `false` when there is nothing to cancel.
    pub fn cancel(&mut self, now: Instant, key: ClientKey) -> bool {
        let Some(client) = self.clients.get_mut(&key.0) else { return false };
        let wanted = client.want_cancel(now, &self.config.timers);
        let deadline = client.deadline();
        self.timers.schedule(Owner::Client(key.0), deadline);
        match wanted {
            client::CancelStep::Refused => false,
            client::CancelStep::Later => true,
            client::CancelStep::Now => {
                self.send_cancel(now, key.0);
                true
            }
        }
    }

    fn send_cancel(&mut self, now: Instant, serial: u64) {
        let Some(client) = self.clients.get(&serial) else { return };
        let peer = client.peer();
        let Some(cancel) = client.cancel_request() else { return };
        // A second CANCEL has the same branch and is refused here, which is right.
        let _already_sent = self.start_client(now, &cancel, peer, true);
    }

    /// Answers a request. Further provisional responses and, for a 2xx to an INVITE, repeated finals may follow.
    /// An answer to a transaction that is gone, or a second final, is dropped.
    pub fn respond(&mut self, now: Instant, key: ServerKey, response: Bytes) {
        let Some(server) = self.servers.get_mut(&key.0) else { return };
        server.respond(now, &self.config, response, &mut self.out);
        self.settle_server(key.0);
    }

    /// Gives up a request that can't be answered. Its repetitions are absorbed until the client has given up too; then
    /// its place is free.
    pub fn abandon(&mut self, now: Instant, key: ServerKey) {
        let Some(server) = self.servers.get_mut(&key.0) else { return };
        server.abandon(now, &self.config.timers);
        self.settle_server(key.0);
    }

    /// Where responses of that transaction go: for a [`crate::Retransmit`] of its 2xx.
    #[must_use]
    pub fn response_peer(&self, key: ServerKey) -> Option<Peer> {
        self.servers.get(&key.0).map(Server::peer)
    }

    /// Sends octets outside any transaction: the ACK for a 2xx, a 2xx again, a stateless refusal.
    pub fn send(&mut self, msg: Bytes, peer: Peer) {
        self.out.transmit(msg, peer);
    }

    /// The transport could not send to this peer: all client transactions there that wait for a final response
    /// end with [`TransactionEvent::TransportError`]. A peer with a connection means that connection, and requests that
    /// named none; looking for them costs a walk over all client transactions.
    pub fn transport_failed(&mut self, peer: Peer) {
        let mut failed: Vec<u64> =
            self.clients.iter().filter(|(_, client)| client.fails_with(peer)).map(|(serial, _)| *serial).collect();
        failed.sort_unstable();
        for serial in failed {
            if let Some(client) = self.remove_client(serial)
                && !client.is_internal()
            {
                self.out.event(TransactionEvent::TransportError { key: ClientKey(serial) });
            }
        }
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..TIMERS_PER_CALL_MAX {
            let Some(owner) = self.timers.pop_due(now) else { return };
            match owner {
                Owner::Client(serial) => {
                    let Some(client) = self.clients.get_mut(&serial) else { continue };
                    client.handle_timeout(now, &self.config.timers, ClientKey(serial), &mut self.out);
                    self.settle_client(serial);
                }
                Owner::Server(serial) => {
                    let Some(server) = self.servers.get_mut(&serial) else { continue };
                    server.handle_timeout(now, &self.config.timers, ServerKey(serial), &mut self.out);
                    self.settle_server(serial);
                }
            }
        }
    }

    /// When [`Transactions::handle_timeout`] wants to be called, at the earliest. It may then find nothing due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next octets to send.
    pub fn poll_transmit(&mut self) -> Option<(Bytes, Peer)> {
        self.out.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TransactionEvent> {
        self.out.events.pop_front()
    }

    fn receive_request(&mut self, now: Instant, msg: Message, peer: Peer) {
        let Some(hash) = self.matcher.server(&msg) else { return };
        let known = self.servers_by_hash.get(&hash).copied();
        if *msg.method() == Method::Ack {
            let absorbed = known.and_then(|serial| {
                let server = self.servers.get_mut(&serial)?;
                let absorbed = server.ack(now, &self.config.timers);
                self.settle_server(serial);
                Some(absorbed)
            });
            if absorbed != Some(true) {
                self.out.event(TransactionEvent::Ack { msg, peer });
            }
            return;
        }
        if let Some(serial) = known {
            if let Some(server) = self.servers.get_mut(&serial) {
                server.retransmitted(&mut self.out);
            }
            return;
        }
        let response_peer = server::response_peer(&msg, peer, self.config.force_rport);
        // Before room is made for it.
        let is_cancel = *msg.method() == Method::Cancel;
        let invite = if is_cancel { self.matcher.cancelled(&msg) } else { None };
        let invite = invite.and_then(|hash| self.servers_by_hash.get(&hash).copied()).map(ServerKey);
        if self.servers.len() >= self.config.transactions_max && !self.end_oldest_server() {
            if let Some(refusal) = server::overload(&msg, peer) {
                self.out.transmit(refusal, response_peer);
            }
            return;
        }
        let serial = self.next_serial();
        let is_invite = *msg.method() == Method::Invite;
        let server = Server::new(now, &self.config, is_invite, response_peer, hash);
        self.timers.schedule(Owner::Server(serial), server.deadline());
        self.servers.insert(serial, server);
        self.servers_by_hash.insert(hash, serial);
        let key = ServerKey(serial);
        if is_cancel {
            self.out.event(TransactionEvent::Cancel { key, invite, msg, peer });
        } else {
            self.out.event(TransactionEvent::Request { key, msg, peer });
        }
    }

    fn receive_response(&mut self, now: Instant, msg: Message, peer: Peer) {
        let serial = self.matcher.client(&msg).and_then(|hash| self.clients_by_hash.get(&hash).copied());
        let Some((serial, client)) = serial.and_then(|serial| Some((serial, self.clients.get_mut(&serial)?))) else {
            self.out.event(TransactionEvent::StrayResponse { msg, peer });
            return;
        };
        let send_cancel = client.receive(now, &self.config.timers, msg, ClientKey(serial), &mut self.out);
        self.settle_client(serial);
        if send_cancel {
            self.send_cancel(now, serial);
        }
    }

    /// After a step: removes the transaction when it is over, else sees to its timer.
    fn settle_client(&mut self, serial: u64) {
        let Some(client) = self.clients.get_mut(&serial) else { return };
        if client.is_over() {
            self.end_client(serial);
            return;
        }
        if let Some(is_invite) = client.begins_to_absorb() {
            self.clients_absorbing.push(serial, is_invite);
        }
        self.timers.schedule(Owner::Client(serial), client.deadline());
    }

    fn end_client(&mut self, serial: u64) {
        let Some(client) = self.remove_client(serial) else { return };
        self.clients_absorbing.trim(|serial| self.clients.contains_key(&serial));
        if !client.is_internal() && !client.was_told() {
            self.out.event(TransactionEvent::ClientTerminated { key: ClientKey(serial) });
        }
    }

    /// Ends the client transaction that has only absorbed repetitions for the longest; `false` when there is none.
    fn end_oldest_client(&mut self) -> bool {
        let oldest = self.clients_absorbing.pop(|serial| self.clients.contains_key(&serial));
        oldest.inspect(|serial| self.end_client(*serial)).is_some()
    }

    fn remove_client(&mut self, serial: u64) -> Option<Client> {
        let client = self.clients.remove(&serial)?;
        self.clients_by_hash.remove(&client.hash());
        self.timers.forget(Owner::Client(serial));
        Some(client)
    }

    fn settle_server(&mut self, serial: u64) {
        let Some(server) = self.servers.get_mut(&serial) else { return };
        if server.is_over() {
            self.end_server(serial);
            return;
        }
        if let Some(is_invite) = server.begins_to_absorb() {
            self.servers_absorbing.push(serial, is_invite);
        }
        self.timers.schedule(Owner::Server(serial), server.deadline());
    }

    fn end_server(&mut self, serial: u64) {
        let Some(server) = self.servers.remove(&serial) else { return };
        self.servers_by_hash.remove(&server.hash());
        self.timers.forget(Owner::Server(serial));
        self.servers_absorbing.trim(|serial| self.servers.contains_key(&serial));
        if !server.was_told() {
            self.out.event(TransactionEvent::ServerTerminated { key: ServerKey(serial) });
        }
    }

    /// As [`Transactions::end_oldest_client`], of server transactions.
    fn end_oldest_server(&mut self) -> bool {
        let oldest = self.servers_absorbing.pop(|serial| self.servers.contains_key(&serial));
        oldest.inspect(|serial| self.end_server(*serial)).is_some()
    }
}

impl std::fmt::Debug for Transactions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transactions")
            .field("clients", &self.clients.len())
            .field("servers", &self.servers.len())
            .finish_non_exhaustive()
    }
}

/// The instant at which simulated time begins.
#[cfg(test)]
pub(crate) fn test_start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an Instant can be had from the clock only; tests then step it")]
    Instant::now()
}
