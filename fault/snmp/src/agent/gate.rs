//! The gate: the socket that managers see. It lets a datagram through to the library's agent, or drops it; the answer
//! goes back the same way, each request over a socket of its own, so that answers need no matching.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_snmp::message::{SecurityLevel, V3Message};
use async_snmp::v3::report_oids;
use async_snmp::{DecodeConfig, PduType};
use bytes::Bytes;
use fault::pacing::TokenBucket;
use model::time::Clock;
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, watch};

use super::config::{AgentConfig, contains};

/// Requests that are answered at once. More wait in the socket's buffer no longer than it takes to drop them.
pub(crate) const IN_FLIGHT_MAX: usize = 64;
/// Largest request that is looked at: a GETBULK of a hundred identifiers has a third.
const REQUEST_OCTETS_MAX: usize = 8_192;
/// Largest answer that the library makes (1,472), and room.
const ANSWER_OCTETS_MAX: usize = 2_048;
/// How long an answer may take: it comes from memory, or not at all.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Sources whose rate is remembered. Beyond it all begin with a full bucket again.
const SOURCES_REMEMBERED_MAX: usize = 1_024;
/// At most one line about refusals in this time.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The ports of the gate's own sockets: the library answers nobody else.
pub(crate) type Doors = Arc<Mutex<BTreeSet<u16>>>;

/// What was asked and what was refused, since the start.
#[derive(Debug, Default)]
pub struct GateCounts {
    /// Datagrams.
    pub requests: AtomicU32,
    /// From sources that are not on the list.
    pub foreign: AtomicU32,
    /// Beyond the rate of a source, or beyond what is answered at once.
    pub excess: AtomicU32,
    /// No SNMP message.
    pub malformed: AtomicU32,
    /// A version that is not spoken (v1).
    pub versions: AtomicU32,
    /// A community that is unknown, or not for this source.
    pub communities: AtomicU32,
    /// A v3 user that is unknown, or a wrong key, or less than authentication and privacy.
    pub users: AtomicU32,
}

/// Why a request gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Foreign,
    Excess,
    Malformed,
    Version,
    Community,
    User,
}

impl Refused {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "source",
            Self::Excess => "rate",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Community => "community",
            Self::User => "user",
        }
    }
}

impl GateCounts {
    fn refused(&self, why: Refused) -> &AtomicU32 {
        match why {
            Refused::Foreign => &self.foreign,
            Refused::Excess => &self.excess,
            Refused::Malformed => &self.malformed,
            Refused::Version => &self.versions,
            Refused::Community => &self.communities,
            Refused::User => &self.users,
        }
    }
}

pub(crate) struct Gate {
    shared: Arc<Shared>,
    config: AgentConfig,
    buckets: BTreeMap<IpAddr, TokenBucket>,
}

struct Shared {
    socket: UdpSocket,
    library: SocketAddr,
    doors: Doors,
    counts: Arc<GateCounts>,
    clock: Arc<dyn Clock>,
    places: Arc<Semaphore>,
    logged: Mutex<(Option<Instant>, u32)>,
}

impl Gate {
    pub(crate) fn new(
        socket: UdpSocket,
        library: SocketAddr,
        config: &AgentConfig,
        doors: Doors,
        counts: Arc<GateCounts>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let shared = Shared { socket, library, doors, counts, clock, places, logged: Mutex::new((None, 0)) };
        Self { shared: Arc::new(shared), config: config.clone(), buckets: BTreeMap::new() }
    }

    /// Serves until `stop` is true.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        // One more than is looked at: what fills it is too large
        let mut buffer = vec![0; REQUEST_OCTETS_MAX + 1];
        loop {
            let received = tokio::select! {
                received = self.shared.socket.recv_from(&mut buffer) => received,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let (octets, source) = match received {
                Ok(received) => received,
                Err(error) => {
                    // Such as an ICMP error of an earlier answer: it concerns that one alone
                    tracing::debug!(%error, "a datagram of SNMP could not be received");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            self.shared.counts.requests.fetch_add(1, Ordering::Relaxed);
            let datagram = buffer.get(..octets).unwrap_or_default();
            if let Err(why) = self.admit(datagram, source.ip()) {
                self.shared.refuse(why, source);
                continue;
            }
            let Ok(place) = Arc::clone(&self.shared.places).try_acquire_owned() else {
                self.shared.refuse(Refused::Excess, source);
                continue;
            };
            let (shared, datagram) = (Arc::clone(&self.shared), datagram.to_vec());
            // It ends by itself within ANSWER_WAIT
            tokio::spawn(async move {
                if let Err(error) = shared.relay(&datagram, source).await {
                    tracing::debug!(%error, "a request of SNMP was not answered");
                }
                drop(place);
            });
        }
    }

    fn admit(&mut self, datagram: &[u8], source: IpAddr) -> Result<(), Refused> {
        if !contains(&self.config.sources, source) {
            return Err(Refused::Foreign);
        }
        if self.buckets.len() >= SOURCES_REMEMBERED_MAX && !self.buckets.contains_key(&source) {
            self.buckets.clear();
        }
        let rate = self.config.requests_per_second;
        let bucket = self.buckets.entry(source).or_insert_with(|| TokenBucket::new(rate, rate.saturating_mul(2)));
        if bucket.take(self.shared.clock.now().mono).is_err() {
            return Err(Refused::Excess);
        }
        if datagram.len() > REQUEST_OCTETS_MAX {
            return Err(Refused::Malformed);
        }
        match header(datagram) {
            None => Err(Refused::Malformed),
            Some(Header::Other) => Err(Refused::Version),
            Some(Header::V3) if self.config.users.is_empty() => Err(Refused::Version),
            Some(Header::V3) => Ok(()),
            Some(Header::V2c(community)) => {
                let admits = self.config.communities.values().any(|entry| entry.admits(community, source));
                if admits { Ok(()) } else { Err(Refused::Community) }
            }
        }
    }
}

impl Shared {
    async fn relay(&self, datagram: &[u8], manager: SocketAddr) -> std::io::Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let door = Door::open(&self.doors, socket.local_addr()?.port());
        socket.connect(self.library).await?;
        socket.send(datagram).await?;
        let mut answer = vec![0; ANSWER_OCTETS_MAX];
        let received = tokio::time::timeout(ANSWER_WAIT, socket.recv(&mut answer)).await;
        drop(door);
        let Ok(octets) = received else { return Ok(()) };
        answer.truncate(octets?);
        if tells_of_users(&answer) {
            self.refuse(Refused::User, manager);
            return Ok(());
        }
        self.socket.send_to(&answer, manager).await?;
        Ok(())
    }

    fn refuse(&self, why: Refused, source: SocketAddr) {
        self.counts.refused(why).fetch_add(1, Ordering::Relaxed);
        metrics::counter!("tandem_snmp_requests_refused_total", "reason" => why.as_str()).increment(1);
        let now = self.clock.now().mono;
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, since) = &mut *logged;
        *since = since.saturating_add(1);
        if at.is_none_or(|at| now.saturating_duration_since(at) >= LOG_PERIOD) {
            tracing::warn!(snmp.source = %source, reason = why.as_str(), refused = *since, "SNMP requests are refused");
            (*at, *since) = (Some(now), 0);
        }
    }
}

/// A port of ours, while a request is answered.
struct Door<'a> {
    doors: &'a Doors,
    port: u16,
}

impl<'a> Door<'a> {
    fn open(doors: &'a Doors, port: u16) -> Self {
        doors.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        Self { doors, port }
    }
}

impl Drop for Door<'_> {
    fn drop(&mut self) {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.port);
    }
}

/// What the gate reads of a message: `SEQUENCE { version INTEGER, … }` (RFC 1901, section 3; RFC 3412, section 6).
#[derive(Debug, PartialEq, Eq)]
enum Header<'a> {
    V2c(&'a [u8]),
    V3,
    Other,
}

fn header(datagram: &[u8]) -> Option<Header<'_>> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const OCTET_STRING: u8 = 0x04;
    let (message, _) = element(datagram, SEQUENCE)?;
    let (version, rest) = element(message, INTEGER)?;
    match version {
        [1] => element(rest, OCTET_STRING).map(|(community, _)| Header::V2c(community)),
        [3] => Some(Header::V3),
        _ => Some(Header::Other),
    }
}

/// One element of BER with this tag: its content, and what follows.
fn element(octets: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = octets.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length & 0x80 != 0 {
        let (octets, after) = rest.split_at_checked(length & 0x7f)?;
        if octets.is_empty() || octets.len() > 4 {
            return None;
        }
        length = octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
        rest = after;
    }
    (*found == tag).then_some(rest.split_at_checked(length)?)
}

/// Whether an answer would tell a stranger which users there are, or how near a guess came. The two Reports that a
/// manager needs to find the engine and its time (RFC 3414, section 4) do not.
fn tells_of_users(answer: &[u8]) -> bool {
    let Some(Header::V3) = header(answer) else { return false };
    let Ok(decoded) = V3Message::decode(Bytes::copy_from_slice(answer), DecodeConfig::DEFAULT) else { return true };
    let message = decoded.value;
    if message.security_level() != SecurityLevel::NoAuthNoPriv {
        return false;
    }
    let Some(pdu) = message.pdu() else { return true };
    let report = pdu.pdu_type() == PduType::Report;
    let found = [report_oids::unknown_engine_ids(), report_oids::not_in_time_windows()];
    !(report && pdu.varbinds().iter().all(|varbind| found.contains(&varbind.oid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_nothing_else() {
        let check = |octets: &[u8], expected| assert_eq!(header(octets), expected, "{octets:?}");
        check(&[0x30, 8, 2, 1, 1, 4, 3, b'n', b'm', b's'], Some(Header::V2c(b"nms")));
        check(&[0x30, 0x81, 8, 2, 1, 1, 4, 3, b'n', b'm', b's', 9, 9], Some(Header::V2c(b"nms")));
        check(&[0x30, 3, 2, 1, 3], Some(Header::V3));
        check(&[0x30, 3, 2, 1, 0], Some(Header::Other));
        check(&[0x30, 4, 2, 2, 1, 0], Some(Header::Other));
        for octets in [
            &[][..],
            &[0x30],
            &[0x30, 0x80],
            &[0x30, 5, 2, 1, 3],
            &[0x30, 0x85, 1, 1, 1, 1, 1, 2, 1, 3],
            &[0x30, 0xff],
            &[0x31, 3, 2, 1, 3],
            &[0x30, 8, 2, 1, 1, 4, 30, b'n', b'm', b's'],
        ] {
            check(octets, None);
        }
    }

    #[test]
    fn doors_close_however_a_request_ends() {
        let doors = Doors::default();
        let door = Door::open(&doors, 7);
        assert!(doors.lock().unwrap().contains(&7));
        drop(door);
        assert!(doors.lock().unwrap().is_empty());
    }
}
