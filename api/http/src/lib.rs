//! The HTTP face: bearer tokens, limits, billing files, reports, health and metrics.
//!
//! What it does: turns a bearer token into a [`model::ctx::Ctx`] whose scope is the subtree of the token's account,
//! checks the permission that [`route::ROUTES`] names, calls one use case, and answers; errors are problem details
//! (RFC 9457). What it never does: SQL, SIP, decisions. GraphQL is a router of its own that is merged in, behind the
//! same tokens and limits.
//!
//! How to drive it: fill [`HttpDeps`], make [`router`] and [`admin_router`], and give each with a bound listener to
//! [`serve`], or [`serve_tls`] with a [`Tls`], whose certificate can be replaced while it serves. A route that is not in
//! [`route::ROUTES`] is refused, so a new one begins there.

mod admin;
mod auth;
mod billing_files;
pub mod body;
mod bulk;
mod byte_range;
mod commit;
mod deps;
pub mod global_id;
pub mod limit;
mod page;
pub mod problem;
mod reports;
pub mod route;
mod server;
mod share;
mod shield;
mod source;
mod stranger;
mod tls;

pub use admin::{Check, MetricsHandle, Readiness, admin_router, install_metrics};
pub use auth::bearer;
pub use commit::commit;
pub use deps::HttpDeps;
pub use route::router;
pub use server::{Held, serve, serve_tls};
pub use share::{Share, Shares};
pub use tls::{Tls, TlsError, TlsIdentity};
