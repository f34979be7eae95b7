//! The limits of one document and of streams, each with its reason.

use std::time::Duration;

/// Text of a document, octets. Large inputs belong into variables, which the body's limit bounds.
pub const DOCUMENT_MAX: usize = 64 * 1_024;
/// Nesting of fields. The standard introspection query has 13.
pub const DEPTH_MAX: usize = 15;
/// Nesting of selection sets as the parser sees them, before fields are known.
pub const RECURSION_MAX: usize = 32;
/// Cost of an operation: a field costs 1, a connection its page size times what is selected. Two full pages of the
/// widest object fit.
pub const COMPLEXITY_MAX: usize = 5_000;
/// Nesting of fields for strangers: below `__type`, which knows nothing, there is nothing to nest.
pub const STRANGER_DEPTH_MAX: usize = 5;
/// Aliases of a document: an alias repeats a field, which is what floods are made of.
pub const ALIASES_MAX: usize = 30;
/// Directives at one place, and in a whole document: more has no meaning.
pub const DIRECTIVES_MAX: usize = 30;
/// Fragments of a document. They may multiply each other, which [`SELECTIONS_MAX`] bounds.
pub const FRAGMENTS_MAX: usize = 100;
/// Operations of a document; one of them is run.
pub const OPERATIONS_MAX: usize = 20;
/// Selections of an operation with its fragments written out.
pub const SELECTIONS_MAX: usize = 5_000;
/// Lists of the introspection (`fields`, `interfaces`, `possibleTypes`, `inputFields`) within each other: each level
/// multiplies the answer by the size of the schema.
pub const INTROSPECTION_LISTS_MAX: usize = 2;
/// Subscriptions of one WebSocket connection: a page that shows much at once has fewer.
pub const SUBSCRIPTIONS_MAX: usize = 16;
/// Streams of all callers together, each a WebSocket connection or an answer of server-sent events: every one has a task
/// and is served each change.
pub const STREAMS_MAX: usize = 256;
/// Streams of one account: a few portals with a few tabs each. Eight that have all they may are needed to take all.
pub const STREAMS_PER_ACCOUNT_MAX: usize = 32;
/// WebSocket connections that have not said who they are: they take no place from those that have.
pub const STRANGER_STREAMS_MAX: usize = 64;
/// How long a WebSocket connection may take to say who it is.
pub const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the token of a stream is looked at while nothing is sent under it.
pub const RECHECK_PERIOD: Duration = Duration::from_secs(3);
/// Looks at a token that find no store before the stream ends: half a minute, in which a store comes back or does not.
pub const RECHECKS_MAX: u32 = 10;
/// How often a bulk job is looked at for who waits for its progress: one row by its identifier.
pub const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// How often a stream without news is written to, so that either side notices that the other has gone.
pub const KEEPALIVE_PERIOD: Duration = Duration::from_secs(15);
/// How long a client may take to take what it is sent, before it counts as gone.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to answer the close of its WebSocket.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Results of a stream's subscriptions that wait to be sent: one of each.
pub const RESULTS_MAX: usize = SUBSCRIPTIONS_MAX;
/// Results that are sent under one look at the token.
pub const BATCH_MAX: usize = 64;
/// Octets of a message of a client: a document and small variables.
pub const MESSAGE_MAX: usize = 128 * 1_024;
/// Characters of the identifier of a subscription; clients use UUIDs or numbers.
pub const SUBSCRIPTION_ID_MAX: usize = 100;
/// Versions that a change may expect.
pub const EXPECTED_VERSIONS_MAX: usize = 100;
/// Legs and parts of one call: entries of a list that is not paged and has no better bound.
pub const LIST_COMPLEXITY: usize = 20;
