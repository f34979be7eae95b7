//! The limits of the face, each with its reason.

use std::time::Duration;

/// Open connections. Each may hold a buffer of [`HEAD_MAX`]; more clients than this wait in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Open connections of one source (an IPv4 address, the /64 of an IPv6 one): an office behind one address has fewer, and
/// four sources that hold all they may are needed to fill the face. What is over it is closed at once. This machine
/// itself is not bounded: a proxy on it speaks for all its clients.
pub const CONNECTIONS_PER_SOURCE_MAX: usize = 256;
/// Requests in work. Beyond it the answer is 503 with `Retry-After`: the store would only queue them.
pub const REQUESTS_MAX: usize = 256;
/// Requests in work of one account: four that hold all they may are needed to fill the face, by slow bodies or by dear
/// queries. Beyond it the answer is 429 with `Retry-After`.
pub const REQUESTS_PER_ACCOUNT_MAX: usize = 64;
/// Requests in work of all strangers together, where a route takes them: an eighth of all, so that whoever sends slow
/// bodies without a token takes places from others without one, and from nobody else. Beyond it the answer is 429.
pub const REQUESTS_OF_STRANGERS_MAX: usize = 32;
/// Request line and header fields, octets. GraphQL by GET and long cursors fit; more is nobody's header.
/// A single large read may overshoot it by as much again before it is noticed.
pub const HEAD_MAX: usize = 64 * 1_024;
/// How long a client may take to send a head (also how long an idle connection stays open).
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may take for its TLS handshake: a few round trips over the worst path.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may take until its head is answered, the reading of its body included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Body of a GraphQL request, octets: a tariff of several thousand rates fits.
pub const GRAPHQL_BODY_MAX: usize = 1_024 * 1_024;
/// Body of a bulk upload, octets: 250,000 subscribers. A slow link must send it within [`REQUEST_TIMEOUT`]: who cannot
/// divides the file.
pub const BULK_BODY_MAX: usize = 64 * 1_024 * 1_024;
/// Bulk uploads at a time: each may hold [`BULK_BODY_MAX`].
pub const BULK_UPLOADS_MAX: usize = 2;
/// Lines of a bulk upload that are stored in one transaction: some milliseconds of the writer.
pub const BULK_LINES: usize = 1_000;
/// Results of a bulk job that are read at a time.
pub const BULK_RESULTS: u32 = 1_000;
/// Body of any other request, octets: an acknowledgement with its reason is far smaller.
pub const SMALL_BODY_MAX: usize = 16 * 1_024;
/// Characters of a bearer token. Ours have fewer than 100.
pub const TOKEN_MAX: usize = 512;
/// Octets of a billing file that are read and sent at a time: few system calls, little memory per slow client.
pub const CHUNK: usize = 64 * 1_024;
/// How long open requests may go on after a shutdown has begun.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept (no file descriptors left): long enough for others to close, short for a person.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Items of a page when the client does not say.
pub const PAGE_DEFAULT: u32 = 50;
