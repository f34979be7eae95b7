//! The node: its shards from start to end.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use mio::net::TcpListener;
use mio::{Interest, Poll, Waker};
use model::id::{CallId, IdSource, TrunkId};
use model::secret::Secret;
use model::time::Clock;
use sip_engine::digest::DigestConfig;
use sip_engine::{Tokens, TransactionConfig};
use sip_services::directory::Directory;
use sip_services::location::Registration;
use sip_services::shard::{ShardIndex, of_address};
use sip_services::trunk::{DownTrunks, RegistrationState};
use sip_services::{Core, MediaPort, Parts, ServicesConfig, Shared};

use crate::config::TransportConfig;
use crate::ports::{JournalSink, Mailbox, NodeEvents, ShardJournal};
use crate::shard::{Control, Neighbour, SOCKET, Shard, WAKER};
use crate::socket;
use crate::tally::{Garbage, Tally};
use crate::tcp::{self, Streams, TcpParts, TcpSender};

/// Room for controls beside one per call: directory changes, drains, hang-ups.
const CONTROLS_EXTRA: usize = 1_024;
/// Lost connections that a shard may have waiting; the thread of TCP keeps the rest.
const LOST_MAX: usize = 1_024;
/// Largest UDP payload, and one more octet so that nothing is cut unseen.
const BUFFER_BYTES: usize = 65_536;

/// What a node is made of.
pub struct Deps {
    /// Tenants, subscribers, numbers, trunks; the root swaps it and calls [`Node::directory_changed`].
    pub directory: Arc<ArcSwap<Directory>>,
    /// The registrations that the store had at the last end.
    pub registrations: Vec<Registration>,
    /// Makes the media port of a shard; called once for each.
    pub media: Box<dyn FnMut(u16) -> Box<dyn MediaPort>>,
    /// The node journal.
    pub journal: Arc<dyn JournalSink>,
    /// Who wants to know what happens.
    pub events: Arc<dyn NodeEvents>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where call ids come from.
    pub ids: Arc<dyn IdSource>,
    /// 32 random octets, fresh with each start.
    pub seed: Secret<[u8; 32]>,
    /// Settings of registrar, calls and trunks.
    pub services: ServicesConfig,
    /// Timers and bounds of transactions.
    pub transactions: TransactionConfig,
    /// How requests are challenged.
    pub digest: DigestConfig,
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The transport's settings.
    #[error(transparent)]
    Transport(#[from] crate::config::InvalidConfig),
    /// The services' settings.
    #[error(transparent)]
    Services(#[from] sip_services::InvalidConfig),
    /// The port is taken, or the address is not of this machine.
    #[error("SIP can't be heard at {listen}")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system gave no poll or no thread.
    #[error("a shard could not be started")]
    Shard(#[source] io::Error),
}

/// Wakes whoever waits for the last call to end.
#[derive(Debug)]
pub(crate) struct Drained {
    shared: Arc<Shared>,
    lock: Mutex<()>,
    ended: Condvar,
}

impl Drained {
    /// A shard looks up from its work, at least once a second: so a waiter that just missed the last end waits no
    /// longer than that.
    pub fn look(&self) {
        if self.shared.calls.current() == 0 {
            self.ended.notify_all();
        }
    }
}

/// A running node. Dropping it stops the shards; calls that are up are ended then.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    drained: Arc<Drained>,
    addresses: Vec<SocketAddr>,
    mailboxes: Vec<Mailbox>,
    threads: Vec<JoinHandle<()>>,
    /// The thread of TCP and what wakes it; it ends by itself when the last shard has.
    streams: Option<(JoinHandle<()>, Arc<Waker>)>,
}

impl Node {
    /// Opens the sockets and starts the shards.
    ///
    /// # Errors
    /// When the settings contradict each other, the port is taken, or the system refuses a thread.
    pub fn start(config: &TransportConfig, mut deps: Deps) -> Result<Self, StartError> {
        config.validate()?;
        deps.services.validate()?;
        let shards = match config.shards {
            0 => std::thread::available_parallelism()
                .ok()
                .and_then(|n| u16::try_from(n.get()).ok())
                .unwrap_or(1)
                .min(crate::config::SHARDS_MAX),
            shards => shards,
        };
        let listen = config.listen;
        let refused = |source| StartError::Listen { listen, source };
        let sockets = socket::open(listen, shards, config.socket_buffer_bytes, config.tcp.enabled).map_err(refused)?;
        let (sockets, listener) = (sockets.udp, sockets.tcp);
        let mut addresses = Vec::new();
        for socket in sockets.iter().take(1) {
            addresses.push(socket.local_addr().map_err(refused)?);
        }
        let advertised = addresses
            .iter()
            .map(|local| SocketAddr::new(config.advertised.unwrap_or(local.ip()), local.port()))
            .collect();
        let shared = Arc::new(Shared::new(Arc::clone(&deps.directory), shards, advertised));
        preload(&shared, std::mem::take(&mut deps.registrations), shards);
        let drained = Arc::new(Drained { shared: Arc::clone(&shared), lock: Mutex::new(()), ended: Condvar::new() });
        let mut node = Self {
            shared: Arc::clone(&shared),
            drained,
            addresses,
            mailboxes: Vec::new(),
            threads: Vec::new(),
            streams: None,
        };
        let mut tokens = Tokens::new(*deps.seed.expose());
        let mut halves = Vec::with_capacity(sockets.len());
        let mut senders = Vec::with_capacity(sockets.len());
        for mut socket in sockets {
            let poll = Poll::new().map_err(StartError::Shard)?;
            poll.registry().register(&mut socket, SOCKET, Interest::READABLE).map_err(StartError::Shard)?;
            let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(StartError::Shard)?);
            let (messages_in, messages) = sync_channel(config.queue_max);
            let (lost_in, lost) = sync_channel(LOST_MAX);
            let (controls_in, controls) = sync_channel(deps.services.calls_max.saturating_add(CONTROLS_EXTRA));
            node.mailboxes.push(Mailbox { controls: controls_in, waker });
            senders.push((messages_in, lost_in));
            halves.push((socket, poll, messages, controls, lost));
        }
        let now = deps.clock.now();
        let garbage = Arc::new(Garbage::new(now.mono));
        let neighbours: Vec<Neighbour> = senders
            .into_iter()
            .zip(&node.mailboxes)
            .map(|((messages, lost), mailbox)| Neighbour { messages, lost, mailbox: mailbox.clone() })
            .collect();
        let tcp = match listener {
            Some(listener) => Some(node.start_tcp(config, listener, &deps, &neighbours, &garbage, tokens.octets())?),
            None => None,
        };
        for ((socket, poll, messages, controls, lost), index) in halves.into_iter().zip(0_u16..) {
            let Some(mailbox) = node.mailboxes.get(usize::from(index)).cloned() else { break };
            let parts = Parts {
                config: deps.services.clone(),
                transactions: deps.transactions,
                digest: deps.digest,
                shard: ShardIndex { index, count: shards },
                shared: Arc::clone(&shared),
                ids: Arc::clone(&deps.ids),
                media: (deps.media)(index),
                journal: Box::new(ShardJournal { sink: Arc::clone(&deps.journal), mailbox }),
                seed: tokens.octets(),
            };
            let shard = Shard {
                index,
                core: Core::new(parts, now),
                poll,
                socket,
                messages,
                controls,
                lost,
                neighbours: neighbours.clone(),
                clock: Arc::clone(&deps.clock),
                events: Arc::clone(&deps.events),
                drained: Arc::clone(&node.drained),
                tally: Tally::default(),
                garbage: Arc::clone(&garbage),
                tcp: tcp.clone(),
                buffer: vec![0; BUFFER_BYTES].into(),
            };
            let thread = std::thread::Builder::new().name(format!("sip-{index}")).spawn(move || shard.run());
            node.threads.push(thread.map_err(StartError::Shard)?);
        }
        tracing::info!(shards, listen = ?node.addresses, tcp = config.tcp.enabled, "SIP is heard");
        Ok(node)
    }

    /// Starts the thread of TCP; what the shards reach it by.
    fn start_tcp(
        &mut self,
        config: &TransportConfig,
        mut listener: TcpListener,
        deps: &Deps,
        neighbours: &[Neighbour],
        garbage: &Arc<Garbage>,
        seed: [u8; 32],
    ) -> Result<TcpSender, StartError> {
        let poll = Poll::new().map_err(StartError::Shard)?;
        poll.registry().register(&mut listener, tcp::LISTENER, Interest::READABLE).map_err(StartError::Shard)?;
        let waker = Arc::new(Waker::new(poll.registry(), tcp::WAKER).map_err(StartError::Shard)?);
        let (sender, outgoing) = sync_channel(config.queue_max);
        let streams = Streams::new(TcpParts {
            config: config.tcp,
            poll,
            listener,
            outgoing,
            shards: neighbours.to_vec(),
            clock: Arc::clone(&deps.clock),
            tokens: Tokens::new(seed),
            garbage: Arc::clone(garbage),
        });
        let thread = std::thread::Builder::new().name("sip-tcp".to_owned()).spawn(move || streams.run());
        self.streams = Some((thread.map_err(StartError::Shard)?, Arc::clone(&waker)));
        Ok(TcpSender { outgoing: sender, waker })
    }

    /// Where SIP is heard, with the real port.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The directory was swapped: trunks may have come or gone.
    pub fn directory_changed(&self) {
        self.tell(Control::DirectoryChanged);
    }

    /// Ends a call, whichever shard it is on.
    pub fn hangup(&self, call: CallId) {
        self.tell(Control::Hangup(call));
    }

    /// Takes no new calls from now on and waits until the last one has ended, but not longer than `wait_max`. Returns
    /// how many are left. It blocks: call it off the async threads.
    #[must_use]
    pub fn drain(&self, wait_max: Duration) -> u32 {
        self.tell(Control::Drain);
        let guard = self.drained.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let left = || self.shared.calls.current();
        let waited = self.drained.ended.wait_timeout_while(guard, wait_max, |()| left() > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        left()
    }

    /// Ends the calls that are still up and stops the shards. When it returns, all facts are in the journal's queue.
    pub fn shutdown(mut self) {
        self.stop();
    }

    /// Answered calls that are up.
    #[must_use]
    pub fn calls_up(&self) -> u32 {
        self.shared.answered.current()
    }

    /// Calls that are up or being set up.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.shared.calls.current()
    }

    /// Subscribers that have a binding.
    #[must_use]
    pub fn registered(&self) -> usize {
        self.shared.location.len()
    }

    /// The trunks that are down, with a generation that grows with each change.
    #[must_use]
    pub fn trunk_states(&self) -> DownTrunks {
        self.shared.trunks.snapshot()
    }

    /// How our registration at a trunk stands; none when it wants none.
    #[must_use]
    pub fn trunk_registration(&self, trunk: TrunkId) -> Option<RegistrationState> {
        self.shared.trunks.registration(trunk)
    }

    /// Shards whose thread has ended while the node runs: their calls are lost, and what belongs to them is not
    /// answered until a restart. The thread of TCP counts as one. Zero unless there is a defect.
    #[must_use]
    pub fn shards_dead(&self) -> usize {
        let streams = self.streams.iter().map(|(thread, _)| thread);
        self.threads.iter().chain(streams).filter(|thread| thread.is_finished()).count()
    }

    /// What the shards share: location, counters, directory; to read.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn tell(&self, control: Control) {
        for mailbox in &self.mailboxes {
            mailbox.send(control);
        }
    }

    fn stop(&mut self) {
        for mailbox in &self.mailboxes {
            mailbox.stop();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a shard ended with a panic");
            }
        }
        if let Some((thread, waker)) = self.streams.take() {
            if let Err(error) = waker.wake() {
                tracing::error!(%error, "the thread of TCP could not be woken");
            }
            if thread.join().is_err() {
                tracing::error!("the thread of TCP ended with a panic");
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Puts the stored registrations where the shards will look for them; what no longer has a subscriber is left out.
fn preload(shared: &Shared, registrations: Vec<Registration>, shards: u16) {
    let directory = shared.directory.load();
    let mut by_subscriber = std::collections::BTreeMap::new();
    for registration in registrations {
        by_subscriber.entry(registration.subscriber).or_insert_with(Vec::new).push(registration.binding);
    }
    for (id, bindings) in by_subscriber {
        let domain = directory.subscriber(id).and_then(|s| Some((s, directory.domain(s.domain)?)));
        if let Some((subscriber, domain)) = domain {
            let shard = of_address(&subscriber.username, domain.name.as_str(), shards);
            shared.location.put(shard, id, bindings);
        }
    }
}
