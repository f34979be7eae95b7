//! Shards: the call core on real sockets and threads.
//!
//! What it does: [`Node::start`] opens one UDP socket per shard on the same port (SO_REUSEPORT) and runs one
//! [`sip_services::Core`] on a thread of its own for each. Whichever socket a datagram arrives at, it is handed to the
//! shard that owns it ([`sip_services::shard::of_message`]) over a bounded queue; when that is full it is dropped and
//! counted, and the sender's retransmission tries again.
//!
//! Beside them one thread carries all TCP connections: it cuts the octets into messages, hands those to their shards
//! by the same queues, and writes what the shards want sent (docs/decisions/0009-one-thread-for-tcp.md).
//!
//! What it never does: decide what a message means, wait for a database or a disk, or end because one message made the
//! code panic: that call is ended, the others go on.
//!
//! How to drive it: fill [`Deps`], call [`Node::start`]; after each swap of the directory call
//! [`Node::directory_changed`]; to end, [`Node::drain`], then [`Node::shutdown`].

mod config;
mod node;
mod ports;
mod shard;
mod socket;
mod tally;
mod tcp;
#[cfg(test)]
mod tests;

pub use config::{InvalidConfig, TcpConfig, TransportConfig};
pub use node::{Deps, Node, StartError};
pub use ports::{JournalSink, NodeEvents, Notify, PlacesSink};
