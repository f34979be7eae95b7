//! The SIP wire: an index over the received octets, grammars over byte slices, edits as splices, a builder.
//!
//! What it does: [`Message::parse_datagram`] makes one pass over a datagram and remembers where each header lies;
//! [`stream::Framer`] finds the messages in the octets of a stream;
//! the typed forms ([`Via`], [`NameAddr`], [`Uri`], [`digest::Credentials`]) are read when they are asked for and
//! borrow from the message. [`edit::Editor`] changes a received message and leaves every other octet as it came;
//! [`build::RequestBuilder`] and [`build::ResponseBuilder`] write our own messages.
//!
//! What it never does: open a socket, read a clock, keep state, or turn a header into text because it might be
//! UTF-8. Nothing here panics on any input; every length is checked before it is used, and the limits of
//! [`limits`] are checked before the work they bound.
//!
//! How to drive it:
//!
//! ```
//! # use tandem_sip_message as sip_message;
//! use bytes::Bytes;
//! use sip_message::{HeaderName, Message, build::ResponseBuilder};
//!
//! let datagram = Bytes::from_static(
//!     b"OPTIONS sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
//!       f: <sip:a@example.com>;tag=1\r\nTo: <sip:example.com>\r\ni: 1@192.0.2.1\r\nCSeq: 7 OPTIONS\r\n\r\n",
//! );
//! match Message::parse_datagram(datagram) {
//!     Ok(request) => {
//!         assert_eq!(request.header(HeaderName::From), Some(&b"<sip:a@example.com>;tag=1"[..]));
//!         let answer = ResponseBuilder::response_to(&request, 200, "OK").to_tag(b"local").finish();
//!         assert!(answer.is_ok());
//!     }
//!     Err(error) => {
//!         // A request that can be answered is answered: the error holds what was found of it.
//!         if let (Some(status), Some(request)) = (error.status(), error.request()) {
//!             let _answer = ResponseBuilder::response_to(request, status, sip_message::reason_of(status)).finish();
//!         }
//!     }
//! }
//! ```

pub mod build;
pub mod digest;
pub mod edit;
mod error;
pub mod grammar;
mod header;
pub mod limits;
mod message;
mod method;
mod name_addr;
mod params;
mod reason;
pub mod stream;
#[cfg(test)]
mod torture;
mod uri;
mod via;

pub use error::{Fault, GrammarError, ParseError};
pub use header::HeaderName;
pub use message::{Contact, Message};
pub use method::Method;
pub use name_addr::NameAddr;
pub use params::{Param, Params};
pub use reason::reason_of;
pub use uri::{Scheme, Uri};
pub use via::Via;
