//! What a shard has counted since its start.

/// Counters of one core; they only grow. The transport turns them into metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// INVITEs that were answered with a challenge, or refused before it was known whose they are: from unknown senders,
    /// and from those whose account the directory does not have. They leave no fact.
    pub invites_unauthenticated: u64,
    /// Wrong passwords and unknown users, in any request.
    pub authentications_failed: u64,
    /// Calls that were admitted.
    pub calls_admitted: u64,
    /// Calls that were refused for a limit of tenant, subscriber or trunk.
    pub calls_limited: u64,
    /// Calls that were refused because the journal, the relay, this shard, or a drain had no room.
    pub calls_shed: u64,
    /// Calls that were answered towards their caller.
    pub calls_answered: u64,
    /// Calls that went to another trunk because one could not carry them; counted for each trunk that was left.
    pub trunk_failovers: u64,
    /// Answers that never reached their caller.
    pub answers_aborted: u64,
    /// REGISTERs that were accepted.
    pub registers_accepted: u64,
    /// Datagrams that are no message.
    pub garbage: u64,
    /// Messages of ours that could not be written, because a value from outside would have broken them.
    pub unbuildable: u64,
    /// Responses that nobody waited for.
    pub strays: u64,
    /// Panics that were caught while a message was handled.
    pub panics: u64,
}
