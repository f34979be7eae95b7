//! What an operator may set in the call core.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest time to ring that can be set: the transaction of the caller's INVITE must outlive it.
pub const RING_TIMEOUT_MAX_MS: u32 = 900_000;

/// Settings of registrar, B2BUA and trunks. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServicesConfig {
    /// Shortest registration that is granted, seconds; shorter wishes get 423. Too low: REGISTER traffic grows; too
    /// high: phones behind a NAT lose their binding before they refresh it.
    pub expires_min_s: u32,
    /// Longest registration that is granted, seconds; longer wishes are cut. Too low: REGISTER traffic grows; too
    /// high: a phone that vanished is rung for long.
    pub expires_max_s: u32,
    /// Registration that is granted when the phone names none, seconds. As the two above.
    pub expires_default_s: u32,
    /// Contacts of one address of record; beyond them the one that was refreshed longest ago gives way. Too low: a user's
    /// new phone takes the calls away from an old one; too high: memory for whoever
    /// registers without end.
    pub contacts_max: usize,
    /// How long the callee may ring, milliseconds. Too low: people don't reach the phone; too high: calls that nobody
    /// takes hold ports and limits. At most 900000.
    pub ring_timeout_ms: u32,
    /// How long a callee's 200 may wait for the journal, milliseconds. Too low: a slow disk costs calls; too high: the
    /// caller hears silence after the callee has spoken.
    pub answer_hold_max_ms: u32,
    /// A call without any media for this long is ended, milliseconds; 0: never. A call on hold is let be. Too low: calls
    /// with silence suppression are cut; too high: dead calls go on being charged.
    pub media_timeout_ms: u32,
    /// Longest call, milliseconds. Too low: conferences are cut; too high: a forgotten or fraudulent call costs more.
    pub call_duration_max_ms: u32,
    /// Calls that one shard holds, ringing or up. Too low: 503 though the machine has room; too high: memory.
    pub calls_max: usize,
    /// Missed OPTIONS until a trunk is down. Too low: one lost datagram raises an alarm; too high: calls go into the
    /// void for longer.
    pub trunk_misses_max: u32,
    /// How long an OPTIONS to a trunk is waited for, milliseconds. Too low: a slow peer looks down; too high: the
    /// alarm comes late.
    pub trunk_answer_max_ms: u32,
    /// How long a trunk may leave an INVITE without any response before the next trunk is tried, milliseconds. Too low:
    /// a slow path looks dead, and a call may reach two carriers; too high: callers wait in silence for a dead one.
    pub trunk_attempt_timeout_ms: u32,
    /// First wait after a registration at a carrier has failed, seconds; it doubles with each failure. Too low: a
    /// carrier that refuses us may lock the account; too high: a short outage lasts longer here.
    pub trunk_register_retry_min_s: u32,
    /// Longest of these waits, seconds. Too low: as above; too high: calls stay away long after the carrier is back.
    pub trunk_register_retry_max_s: u32,
    /// Seconds in Retry-After of a 503. Too low: the load comes right back; too high: callers wait without need.
    pub retry_after_s: u32,
    /// Value of Server and User-Agent.
    pub product: String,
}

impl Default for ServicesConfig {
    fn default() -> Self {
        Self {
            expires_min_s: 60,
            expires_max_s: 3_600,
            expires_default_s: 600,
            contacts_max: 10,
            ring_timeout_ms: 120_000,
            answer_hold_max_ms: 500,
            media_timeout_ms: 300_000,
            call_duration_max_ms: 14_400_000,
            calls_max: 20_000,
            trunk_misses_max: 2,
            trunk_answer_max_ms: 4_000,
            trunk_attempt_timeout_ms: 4_000,
            trunk_register_retry_min_s: 10,
            trunk_register_retry_max_s: 600,
            retry_after_s: 5,
            product: "Tandem".to_owned(),
        }
    }
}

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// The three registration times are out of order.
    #[error("expires_min_s, expires_default_s and expires_max_s must rise in this order, and the first be at least 1")]
    Expires,
    /// The two waits of a registration at a carrier are out of order.
    #[error("trunk_register_retry_min_s must not exceed trunk_register_retry_max_s")]
    Retry,
    /// A value that must not be zero is.
    #[error("{0} must not be 0")]
    Zero(&'static str),
    /// It would ring for longer than [`RING_TIMEOUT_MAX_MS`].
    #[error("ring_timeout_ms must not be above {RING_TIMEOUT_MAX_MS}")]
    RingTimeout,
    /// The product name would break a header.
    #[error("product must be visible ASCII")]
    Product,
}

impl ServicesConfig {
    /// Checks what one field can't say alone.
    ///
    /// # Errors
    /// When the settings contradict each other.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let rising = self.expires_min_s >= 1
            && self.expires_min_s <= self.expires_default_s
            && self.expires_default_s <= self.expires_max_s;
        if !rising {
            return Err(InvalidConfig::Expires);
        }
        if self.trunk_register_retry_min_s > self.trunk_register_retry_max_s {
            return Err(InvalidConfig::Retry);
        }
        let zero = [
            ("contacts_max", self.contacts_max == 0),
            ("ring_timeout_ms", self.ring_timeout_ms == 0),
            ("answer_hold_max_ms", self.answer_hold_max_ms == 0),
            ("call_duration_max_ms", self.call_duration_max_ms == 0),
            ("calls_max", self.calls_max == 0),
            ("trunk_misses_max", self.trunk_misses_max == 0),
            ("trunk_answer_max_ms", self.trunk_answer_max_ms == 0),
            ("trunk_attempt_timeout_ms", self.trunk_attempt_timeout_ms == 0),
            ("trunk_register_retry_min_s", self.trunk_register_retry_min_s == 0),
        ];
        if let Some((name, _)) = zero.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(InvalidConfig::Zero(name));
        }
        if self.ring_timeout_ms > RING_TIMEOUT_MAX_MS {
            return Err(InvalidConfig::RingTimeout);
        }
        if !self.product.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return Err(InvalidConfig::Product);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_named() {
        let default = ServicesConfig::default();
        assert_eq!(default.validate(), Ok(()));
        let check = |config: ServicesConfig, error| assert_eq!(config.validate(), Err(error));
        check(ServicesConfig { expires_min_s: 4_000, ..default.clone() }, InvalidConfig::Expires);
        check(ServicesConfig { ring_timeout_ms: 900_001, ..default.clone() }, InvalidConfig::RingTimeout);
        check(ServicesConfig { trunk_register_retry_min_s: 601, ..default.clone() }, InvalidConfig::Retry);
        check(ServicesConfig { calls_max: 0, ..default.clone() }, InvalidConfig::Zero("calls_max"));
        check(ServicesConfig { product: "a\r\nb".to_owned(), ..default }, InvalidConfig::Product);
    }
}
