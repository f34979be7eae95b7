//! The GraphQL face, and the only crate that knows async-graphql.
//!
//! What it does: the schema over the ports of the four folders, global identifiers, connections, one payload for all
//! mutations with plan, dry-run, idempotency and `userErrors`; GraphQL over HTTP with its own handler (the stock one
//! fails a MUST of the specification and executes mutations from GET and from forms); subscriptions over WebSocket and
//! server-sent events; the GraphiQL page. What it never does: SQL, SIP, decisions; anything for a stranger but the name of
//! the root type: introspection takes a token too.
//!
//! How to drive it: fill [`GraphqlDeps`], give [`graphql_router`] to [`api_http::router`]. [`sdl`] prints the schema; the
//! committed copy is `schemas/graphql/schema.graphql`, kept true by a test (`UPDATE=1` rewrites it).

mod argument;
mod batch;
mod document;
mod error;
mod handler;
mod input;
mod limit;
mod mutation;
mod object;
mod page;
mod payload;
mod query;
mod request;
mod scalar;
mod schema;
mod stranger;
mod stream;
mod subscription;
mod trunk_state;

pub use handler::graphql_router;
pub use schema::{GraphqlDeps, sdl};
pub use subscription::{ChangeFeed, ChangeNotice};
pub use trunk_state::{TrunkRegistrationState, TrunkState, TrunkStates};
