//! What an operator may set in the relay.

use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most sessions: the ports of one address end below this.
pub const SESSIONS_MAX: usize = 16_000;
/// Most relay threads; more than cores never help.
pub const THREADS_MAX: usize = 64;
/// Ports of a session: RTP and RTCP for each side.
pub const PORTS_PER_SESSION: usize = 4;

/// Settings of the media relay. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// Threads. Too low: packets are late once a thread fills its core; too high: threads that fight for
    /// cores with signalling.
    pub threads: usize,
    /// Calls that can be anchored at once. Each takes four ports and open files from the start on. Too low: new calls
    /// get 503; too high: the start fails for want of ports or open files.
    pub sessions: usize,
    /// The address that ports are bound to.
    pub bind: IpAddr,
    /// The address that goes into SDP, when it is another than `bind`: needed when `bind` is unspecified or behind a
    /// one-to-one NAT.
    pub public: Option<IpAddr>,
    /// Lowest port; 0 takes free ports of the system (for tests: firewalls want a range). Too low: system services.
    pub port_min: u16,
    /// Highest port. Too low: too few sessions fit; too high: it meets the ephemeral range of outgoing connections.
    pub port_max: u16,
    /// After this silence of a leg another source may take it over, milliseconds. Too low: a stranger can slip into a
    /// pause of silence suppression; too high: a phone that changed its address stays unheard.
    pub silence_ms: u64,
    /// How long the ports of an ended call rest, milliseconds. Too low: late packets count for the next call; too
    /// high: more sessions are needed for the same calls.
    pub quarantine_ms: u64,
    /// DSCP of sent packets, 0 to 63; 46 is expedited forwarding (RFC 3246). Too low: routers queue voice behind bulk.
    pub dscp: u8,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            threads: 1,
            sessions: 512,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            public: None,
            port_min: 16_384,
            port_max: 32_767,
            silence_ms: 3_000,
            quarantine_ms: 2_000,
            dscp: 46,
        }
    }
}

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// Too many or no threads.
    #[error("`threads` must be 1 to {THREADS_MAX}")]
    Threads,
    /// Too many or no sessions.
    #[error("`sessions` must be 1 to {SESSIONS_MAX}")]
    Sessions,
    /// The range holds too few ports.
    #[error("ports {min} to {max} hold {fit} sessions, `sessions` asks for {wanted}")]
    Range {
        /// `port_min`.
        min: u16,
        /// `port_max`.
        max: u16,
        /// Sessions that fit.
        fit: usize,
        /// Sessions that were asked for.
        wanted: usize,
    },
    /// SDP would say 0.0.0.0, which means hold.
    #[error("`public` must be set when `bind` is 0.0.0.0 or ::, and must be an address that others can reach")]
    Public,
    /// No DSCP.
    #[error("`dscp` must be 0 to 63")]
    Dscp,
}

impl RelayConfig {
    /// Checks what can be checked before anything starts.
    ///
    /// # Errors
    /// The first setting that can't be.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.threads == 0 || self.threads > THREADS_MAX {
            return Err(InvalidConfig::Threads);
        }
        if self.sessions == 0 || self.sessions > SESSIONS_MAX {
            return Err(InvalidConfig::Sessions);
        }
        if self.public_address().is_unspecified() {
            return Err(InvalidConfig::Public);
        }
        if self.dscp > 63 {
            return Err(InvalidConfig::Dscp);
        }
        let fit = self.pairs().len() / (PORTS_PER_SESSION / 2);
        if self.port_min != 0 && fit < self.sessions {
            let (min, max) = (self.port_min, self.port_max);
            return Err(InvalidConfig::Range { min, max, fit, wanted: self.sessions });
        }
        Ok(())
    }

    /// The address that goes into SDP.
    #[must_use]
    pub fn public_address(&self) -> IpAddr {
        self.public.unwrap_or(self.bind)
    }

    /// The even ports whose next port is in the range too: RTP takes the even one (RFC 3550, section 11).
    pub(crate) fn pairs(&self) -> impl ExactSizeIterator<Item = u16> + use<> {
        let first = self.port_min.checked_next_multiple_of(2).unwrap_or(u16::MAX);
        let count = self.port_max.saturating_sub(first).saturating_add(u16::from(self.port_max >= first)) / 2;
        (0..count).map(move |n| first.saturating_add(n.saturating_mul(2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(edit: impl FnOnce(&mut RelayConfig)) -> Result<(), InvalidConfig> {
        let mut config = RelayConfig::default();
        edit(&mut config);
        config.validate()
    }

    #[test]
    fn says_what_cannot_be() {
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|c| c.threads = 0), Err(InvalidConfig::Threads));
        assert_eq!(with(|c| c.sessions = 0), Err(InvalidConfig::Sessions));
        assert_eq!(with(|c| c.dscp = 64), Err(InvalidConfig::Dscp));
        assert_eq!(with(|c| c.bind = Ipv4Addr::UNSPECIFIED.into()), Err(InvalidConfig::Public));
        assert_eq!(with(|c| c.sessions = 4_096), Ok(()));
        let range = |min, max, fit, wanted| InvalidConfig::Range { min, max, fit, wanted };
        assert_eq!(with(|c| c.sessions = 4_097), Err(range(16_384, 32_767, 4_096, 4_097)));
        assert_eq!(with(|c| c.port_min = 65_535), Err(range(65_535, 32_767, 0, 512)));
    }

    #[test]
    fn pairs_begin_even_and_end_inside() {
        let pairs = |port_min, port_max| RelayConfig { port_min, port_max, ..RelayConfig::default() }.pairs();
        assert_eq!(pairs(10_001, 10_006).collect::<Vec<_>>(), [10_002, 10_004]);
        assert_eq!(pairs(10_000, 10_003).collect::<Vec<_>>(), [10_000, 10_002]);
        assert_eq!(pairs(10_000, 10_000).count(), 0);
        assert_eq!(pairs(65_534, 65_535).collect::<Vec<_>>(), [65_534]);
        assert_eq!(pairs(65_535, 65_535).count(), 0);
    }
}
