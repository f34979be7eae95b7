//! RTP through a relay: two-way calls of 20 ms G.711 (172 octets a packet), paced in slots of a millisecond.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tandem::demo::process::free_udp;

use super::Latencies;

/// Octets of a packet: 12 of header and 20 ms of PCMU.
const PACKET: usize = 172;
/// Slots of a frame: packets of a stream leave every 20 ms.
const SLOTS: u64 = 20;
const SLOT: Duration = Duration::from_millis(1);
/// What is sent before counts nothing: the relay learns the sources.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long the last packets are waited for.
const TAIL: Duration = Duration::from_millis(500);
/// How long the load waits when it has nothing to do.
const PAUSE: Duration = Duration::from_micros(50);
/// Latest slot that is made up for; more would be a burst that no phone makes.
const SLOT_LATE_MAX: Duration = Duration::from_millis(200);

/// Sockets of each side: calls share them, as trunks do.
pub const SOCKETS: usize = 8;

/// Ports of the phones, in the order that calls take them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phones {
    /// [`SOCKETS`] of them.
    pub callers: Vec<u16>,
    /// As many.
    pub callees: Vec<u16>,
}

impl Phones {
    /// On free ports.
    ///
    /// # Errors
    /// When there are none.
    pub fn on_free_ports() -> std::io::Result<Self> {
        let side = || (0..SOCKETS).map(|_| Ok(free_udp()?.port())).collect::<std::io::Result<Vec<u16>>>();
        Ok(Self { callers: side()?, callees: side()? })
    }
}

/// What is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Ports of the relay that face caller and callee, of each call.
    pub ports: Vec<(u16, u16)>,
    /// Where the phones are.
    pub phones: Phones,
    /// Seconds that count.
    pub seconds: u64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Packets of the plan, after the warm-up.
    pub due: u64,
    /// Sent of them.
    pub sent: u64,
    /// Received at the other side.
    pub received: u64,
    /// All that was received, the warm-up included: what the relay's work is divided by.
    pub relayed: u64,
    /// Streams of which nothing arrived.
    pub silent: u64,
    /// From sending to receiving, milliseconds.
    pub p50_ms: f64,
    /// The same, 99 of 100.
    pub p99_ms: f64,
}

impl Outcome {
    /// Whether the generator offered what the plan wants; else it is the limit, not the relay.
    #[must_use]
    pub const fn is_offered(&self) -> bool {
        self.sent * 100 >= self.due * 99
    }

    /// Whether the relay held it: all offered, no silent stream, less than one in a thousand lost, p99 below 20 ms. Loss alone would
    /// pass a relay that queues for a tenth of a second.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.is_offered()
            && self.silent == 0
            && (self.sent - self.received.min(self.sent)) * 1000 < self.sent
            && self.p99_ms < 20.0
    }
}

struct Load {
    sockets: Vec<UdpSocket>,
    counted_from: u64,
    received: u64,
    relayed: u64,
    heard: Vec<u32>,
    latencies: Latencies,
    origin: Instant,
}

/// Sends and receives for the plan's time.
///
/// # Errors
/// When a socket cannot be had.
pub fn run(plan: &Plan) -> std::io::Result<Outcome> {
    let ports = plan.phones.callers.iter().chain(&plan.phones.callees);
    let sockets = ports.map(|port| super::sip::socket(SocketAddr::from(([127, 0, 0, 1], *port))));
    let streams = plan.ports.len() * 2;
    let mut load = Load {
        sockets: sockets.collect::<Result<_, _>>()?,
        counted_from: u64::MAX,
        received: 0,
        relayed: 0,
        heard: vec![0; streams],
        latencies: Latencies::default(),
        origin: Instant::now(),
    };
    let (mut sent, mut slot) = (0, 0);
    let end = WARM_UP + Duration::from_secs(plan.seconds);
    loop {
        let now = load.origin.elapsed();
        if now >= end {
            break;
        }
        let due = SLOT * u32::try_from(slot).unwrap_or(u32::MAX);
        if now < due {
            if load.hear() == 0 {
                std::thread::sleep(PAUSE);
            }
            continue;
        }
        if now > due + SLOT_LATE_MAX {
            slot = u64::try_from(now.as_millis()).unwrap_or(slot);
            continue;
        }
        let counts = now >= WARM_UP;
        if counts && load.counted_from == u64::MAX {
            load.counted_from = load.nanos();
        }
        let mut stream = usize::try_from(slot % SLOTS).unwrap_or(0);
        while stream < streams {
            sent += u64::from(load.send(plan, stream, slot / SLOTS) && counts);
            stream += SLOTS as usize;
            if stream % 512 < SLOTS as usize {
                load.hear();
            }
        }
        slot += 1;
    }
    let tail = Instant::now();
    while tail.elapsed() < TAIL {
        if load.hear() == 0 {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(Outcome {
        due: streams as u64 * plan.seconds * (1_000 / SLOTS),
        sent,
        received: load.received,
        relayed: load.relayed,
        silent: load.heard.iter().filter(|count| **count == 0).count() as u64,
        p50_ms: load.latencies.quantile_ms(500),
        p99_ms: load.latencies.quantile_ms(990),
    })
}

impl Load {
    fn nanos(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Sends the next packet of a stream: first those of the callers, then those of the callees.
    fn send(&self, plan: &Plan, stream: usize, frame: u64) -> bool {
        let calls = plan.ports.len();
        let (call, callee) = (stream % calls, stream >= calls);
        let (facing_caller, facing_callee) = plan.ports[call];
        let socket = &self.sockets[call % SOCKETS + if callee { SOCKETS } else { 0 }];
        let mut packet = [0xd5; PACKET];
        packet[..2].copy_from_slice(&[0x80, 0]);
        packet[2..4].copy_from_slice(&(frame as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&((frame * 160) as u32).to_be_bytes());
        packet[8..12].copy_from_slice(&(stream as u32 + 1).to_be_bytes());
        packet[12..20].copy_from_slice(&self.nanos().to_be_bytes());
        let port = if callee { facing_callee } else { facing_caller };
        socket.send_to(&packet, SocketAddr::from(([127, 0, 0, 1], port))).is_ok()
    }

    fn hear(&mut self) -> u32 {
        let mut heard = 0;
        let mut packet = [0; PACKET + 1];
        for at in 0..self.sockets.len() {
            while let Ok(length) = self.sockets[at].recv(&mut packet) {
                heard += 1;
                let (Some(stream), Some(sent)) = (packet.get(8..12), packet.get(12..20)) else { continue };
                let stream = u32::from_be_bytes(stream.try_into().unwrap_or_default()) as usize;
                let sent = u64::from_be_bytes(sent.try_into().unwrap_or_default());
                self.relayed += u64::from(length == PACKET);
                if length != PACKET || sent < self.counted_from {
                    continue;
                }
                if let Some(count) = stream.checked_sub(1).and_then(|stream| self.heard.get_mut(stream)) {
                    *count += 1;
                    self.received += 1;
                    self.latencies.add(Duration::from_nanos(self.nanos().saturating_sub(sent)));
                }
            }
        }
        heard
    }
}
