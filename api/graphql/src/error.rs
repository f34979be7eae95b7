//! Top-level errors: what is no refusal of a change. `extensions.code` is for programs.

use async_graphql::{Error, ErrorExtensions, Value};
use model::ctx::Denied;
use model::page::ReadError;

/// The request is malformed, or names what cannot be.
pub(crate) const BAD_REQUEST: &str = "BAD_REQUEST";
/// It takes a token to ask for this.
pub(crate) const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
/// A permission is missing.
pub(crate) const FORBIDDEN: &str = "FORBIDDEN";
/// A subscriber does not keep up.
pub(crate) const SLOW_CONSUMER: &str = "SLOW_CONSUMER";
/// The store is away; the same request may be repeated.
pub(crate) const UNAVAILABLE: &str = "UNAVAILABLE";
/// A defect of ours.
pub(crate) const INTERNAL: &str = "INTERNAL";

/// An error with its code.
pub(crate) fn coded(code: &'static str, message: impl Into<String>) -> Error {
    Error::new(message).extend_with(|_, extensions| extensions.set("code", Value::from(code)))
}

/// A permission is missing.
pub(crate) fn forbidden(denied: Denied) -> Error {
    coded(FORBIDDEN, denied.to_string())
}

/// The store is away.
pub(crate) fn unavailable(cause: &str) -> Error {
    tracing::warn!(cause, "a GraphQL field found the store unavailable");
    coded(UNAVAILABLE, "the store is not available; nothing was changed; repeat the request")
}

/// A defect: the cause goes to the log, the client gets the trace from the response's `x-request-id`.
pub(crate) fn internal(cause: &str) -> Error {
    tracing::error!(cause, "a GraphQL field failed by a defect");
    coded(INTERNAL, "the request failed by a defect of the server; the log has the cause under the x-request-id")
}

/// A read that gave nothing.
pub(crate) fn read(error: ReadError) -> Error {
    match error {
        ReadError::Denied(denied) => forbidden(denied),
        ReadError::Invalid { .. } => coded(BAD_REQUEST, error.to_string()),
        ReadError::Unavailable(cause) => unavailable(&cause),
        ReadError::Internal(cause) => internal(&cause),
    }
}
