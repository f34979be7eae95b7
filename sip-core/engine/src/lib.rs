//! The SIP engine: transactions, dialogs, digest, tokens. No clock, no socket, no task, no thread.
//!
//! What it does: [`transaction::Transactions`] runs all transactions of one shard after RFC 3261, section 17, with
//! the Accepted states of RFC 6026; [`dialog::Dialog`] keeps what requests within a dialog need;
//! [`digest`] verifies credentials with nonce counts and answers challenges; [`retransmit::Retransmit`] repeats a
//! 2xx until its ACK comes; [`token::Tokens`] makes tags, branches and Call-IDs from a seed.
//!
//! What it never does: read a clock or draw randomness (instants and seeds are arguments), decide what a request
//! means, resolve names, or keep a queue that its owner can't drain: every call adds a bounded number of outputs.
//!
//! How to drive it: after each [`Transactions::receive`], [`Transactions::request`], [`Transactions::respond`],
//! [`Transactions::cancel`] or [`Transactions::handle_timeout`], drain [`Transactions::poll_transmit`] and
//! [`Transactions::poll_event`] until both are empty; then sleep until [`Transactions::next_timeout`] or the next
//! datagram, whichever comes first.
//!
//! [`Transactions::receive`]: transaction::Transactions::receive
//! [`Transactions::request`]: transaction::Transactions::request
//! [`Transactions::respond`]: transaction::Transactions::respond
//! [`Transactions::cancel`]: transaction::Transactions::cancel
//! [`Transactions::handle_timeout`]: transaction::Transactions::handle_timeout
//! [`Transactions::poll_transmit`]: transaction::Transactions::poll_transmit
//! [`Transactions::poll_event`]: transaction::Transactions::poll_event
//! [`Transactions::next_timeout`]: transaction::Transactions::next_timeout

pub mod dialog;
pub mod digest;
pub mod peer;
pub mod retransmit;
pub mod token;
pub mod transaction;

pub use dialog::{Dialog, DialogId};
pub use peer::{Flow, Peer, Transport};
pub use retransmit::{Due, Retransmit};
pub use token::Tokens;
pub use transaction::{ClientKey, RequestError, ServerKey, Timers, TransactionConfig, TransactionEvent, Transactions};
