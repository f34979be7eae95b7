//! Where subscribers can be reached: their bindings (RFC 3261, section 10), shared read-only by all shards.
//!
//! Each shard writes only its own part, the addresses of record that hash to it, so there is one writer and no lock.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use imbl::HashMap;
use model::id::SubscriberId;
use model::time::Timestamp;
use sip_engine::{Flow, Peer, Transport};

/// One contact of an address of record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The contact URI as the phone gave it: the Request-URI of requests to it.
    pub contact: Box<str>,
    /// Where requests go: the source of the REGISTER, which also opens the NAT (RFC 3581).
    pub source: SocketAddr,
    /// Index of the listener that the REGISTER came in by.
    pub listener: u16,
    /// The transport of the REGISTER.
    pub transport: Transport,
    /// The connection of the REGISTER: requests take it while it lives (RFC 5626, section 5.3). It does not outlive the
    /// node.
    pub flow: Option<Flow>,
    /// Call-ID of the REGISTER.
    pub call_id: Box<str>,
    /// CSeq of the REGISTER.
    pub cseq: u32,
    /// User-Agent of the phone, cut to a bound.
    pub user_agent: Box<str>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was last refreshed: calls ring the latest.
    pub refreshed_at: Timestamp,
}

impl Binding {
    /// Where requests to this contact go.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer { remote: self.source, local: self.listener, transport: self.transport, flow: self.flow }
    }
}

/// A binding with its owner, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Whose it is.
    pub subscriber: SubscriberId,
    /// The binding.
    pub binding: Binding,
}

/// What the store has to write after a REGISTER or an expiry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationChange {
    /// New or refreshed.
    Bound(Registration),
    /// Gone: removed by the phone, or expired.
    Unbound {
        /// Whose it was.
        subscriber: SubscriberId,
        /// The contact URI.
        contact: Box<str>,
    },
}

/// The bindings of the addresses of record of one shard.
pub type Bindings = HashMap<SubscriberId, Arc<[Binding]>>;

/// The location service of the node: one part per shard.
#[derive(Debug)]
pub struct Location {
    parts: Box<[ArcSwap<Bindings>]>,
}

impl Location {
    /// An empty one for `shards` shards.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        Self { parts: (0..shards.max(1)).map(|_| ArcSwap::from_pointee(Bindings::new())).collect() }
    }

    /// The bindings of a subscriber whose address of record belongs to `shard`, expired ones included.
    #[must_use]
    pub fn bindings(&self, shard: u16, subscriber: SubscriberId) -> Option<Arc<[Binding]>> {
        self.parts.get(usize::from(shard))?.load().get(&subscriber).cloned()
    }

    /// The binding that a call rings: the latest that has not expired.
    #[must_use]
    pub fn latest(&self, shard: u16, subscriber: SubscriberId, now: Timestamp) -> Option<Binding> {
        let bindings = self.bindings(shard, subscriber)?;
        bindings.iter().filter(|b| b.expires_at > now).max_by_key(|b| b.refreshed_at).cloned()
    }

    /// Subscribers with at least one binding.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.load().len()).sum()
    }

    /// Whether nobody is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One shard's whole part.
    #[must_use]
    pub fn part(&self, shard: u16) -> Arc<Bindings> {
        self.parts.get(usize::from(shard)).map(ArcSwap::load_full).unwrap_or_default()
    }

    /// Replaces the bindings of one subscriber. Only the shard that owns the part calls this.
    pub fn put(&self, shard: u16, subscriber: SubscriberId, bindings: Vec<Binding>) {
        let Some(part) = self.parts.get(usize::from(shard)) else { return };
        let mut next = Bindings::clone(&part.load());
        if bindings.is_empty() {
            next.remove(&subscriber);
        } else {
            next.insert(subscriber, bindings.into());
        }
        part.store(Arc::new(next));
    }
}
