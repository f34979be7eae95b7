//! From the database's failures to those of the ports.

use std::convert::Infallible;
use std::error::Error as _;

use db::{DbError, WriteError};
use model::page::ReadError;

/// The failure as a port tells it.
pub(crate) fn read_error(error: DbError) -> ReadError {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        chain.push_str(": ");
        chain.push_str(&cause.to_string());
        source = cause.source();
    }
    if error.is_transient() { ReadError::Unavailable(chain) } else { ReadError::Internal(chain) }
}

/// Of a transaction that refuses nothing.
pub(crate) fn db_error(error: WriteError<Infallible>) -> DbError {
    match error {
        WriteError::Db(error) => error,
        WriteError::Refused(never) => match never {},
    }
}
