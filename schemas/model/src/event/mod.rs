//! The event catalogue: what is journaled on a node ([`fact`]) and what happens in the store ([`store`]).
//!
//! Two feeds, one consumer, never copied into each other. Records are additive: fields are numbered, a number is
//! never reused, and a sample of every kind and version is kept in `samples/` and must decode for ever.

pub mod fact;
pub mod store;

#[cfg(test)]
mod samples;
