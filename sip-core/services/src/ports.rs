//! What a [`Core`](crate::Core) takes in, gives out, and asks of the world around it.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use media_engine::{MediaSession, MediaSnapshot, RemoteMedia, Side};
use model::event::fact::Fact;
use model::id::{CallId, TrunkId};
use sip_engine::Peer;
use sip_message::{Message, ParseError};

use crate::directory::Directory;
use crate::limits::Counter;
use crate::location::{Location, RegistrationChange};
use crate::trunk::{TrunkReason, TrunkStates};

/// Names a record that a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// What happens to a core.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "moved a few times per message; a box would be an allocation for each")]
pub enum Input {
    /// A message that this shard owns: see [`crate::shard::of_message`].
    Message {
        /// The message.
        message: Message,
        /// Where it came from.
        peer: Peer,
    },
    /// A message that could not be read; it is answered where that is possible.
    Refused {
        /// What was wrong.
        error: ParseError,
        /// Where it came from.
        peer: Peer,
    },
    /// What was sent to this peer can't reach it: its connection is gone, or none can be opened.
    Unreachable {
        /// Where it should have gone.
        peer: Peer,
    },
    /// [`crate::Core::next_timeout`] has come.
    Timeout,
    /// The record is on the disk.
    JournalCommitted {
        /// Which.
        token: Token,
    },
    /// The record will not reach the disk.
    JournalFailed {
        /// Which.
        token: Token,
    },
    /// [`Shared::directory`] holds another picture.
    DirectoryChanged,
    /// No new calls from now on; those that are up go on.
    Drain,
    /// An operator ends a call.
    Hangup {
        /// Which; unknown on this shard: nothing happens.
        call: CallId,
    },
    /// The node stops: every call of this shard ends.
    HangupAll,
}

/// What a core wants done.
#[derive(Debug)]
pub enum Output {
    /// Send this.
    Transmit {
        /// The octets.
        bytes: Bytes,
        /// Where to.
        peer: Peer,
    },
    /// The store has to write this.
    RegistrationChanged(RegistrationChange),
    /// A trunk went down or came up.
    TrunkState {
        /// Which.
        trunk: TrunkId,
        /// Whether it is up now.
        up: bool,
        /// Why.
        reason: TrunkReason,
    },
}

/// What all shards of a node see.
#[derive(Debug)]
pub struct Shared {
    /// Tenants, subscribers, numbers, trunks; the root swaps it.
    pub directory: Arc<ArcSwap<Directory>>,
    /// Bindings.
    pub location: Location,
    /// Which trunks are down.
    pub trunks: TrunkStates,
    /// Answered calls that are up.
    pub answered: Counter,
    /// Calls that are up or being set up.
    pub calls: Counter,
    /// The address of each listener as peers reach it: host and port of our Via and Contact.
    pub listeners: Vec<SocketAddr>,
}

impl Shared {
    /// What `shards` shards share.
    #[must_use]
    pub fn new(directory: Arc<ArcSwap<Directory>>, shards: u16, listeners: Vec<SocketAddr>) -> Self {
        Self {
            directory,
            location: Location::new(shards),
            trunks: TrunkStates::default(),
            answered: Counter::default(),
            calls: Counter::default(),
            listeners,
        }
    }
}

/// The media relay as calls use it. Called in the middle of a message: no method may block.
pub trait MediaPort: Send {
    /// Reserves a port pair for each side; none when the pool is empty.
    fn open(&mut self, call: CallId) -> Option<MediaSession>;
    /// The address that goes into our SDP for that side.
    fn local(&self, session: MediaSession, side: Side) -> SocketAddr;
    /// What that side's last description says: address and direction; symmetric latching may correct the address.
    /// Told again when a later offer was agreed (not when it was only made): another address resets the latching of
    /// that side, a hold ends the counting of [`MediaSnapshot::silence_ms`].
    fn set_remote(&mut self, session: MediaSession, side: Side, media: &RemoteMedia);
    /// What has been counted so far.
    fn snapshot(&self, session: MediaSession) -> MediaSnapshot;
    /// Gives the ports back and says what has been counted in all.
    fn close(&mut self, session: MediaSession) -> MediaSnapshot;
}

/// The node journal as calls use it. No method may block.
pub trait JournalPort: Send {
    /// Reserves the places of one call, for its answer and its end; none when the journal can't keep up: 503.
    fn reserve(&mut self) -> Option<Box<dyn JournalPlaces>>;
    /// Queues a record that nobody waits for and that has no place reserved.
    fn append(&mut self, fact: Fact);
}

/// The reserved places of one call. What is not used comes back on drop.
pub trait JournalPlaces: Send {
    /// Queues a record of the call; never refused. With a token, [`Input::JournalCommitted`] or
    /// [`Input::JournalFailed`] follows exactly once.
    fn append(&mut self, fact: Fact, notify: Option<Token>);
}
