//! RTP of the built-in caller: 20 ms of silence in G.711 per packet, sent and counted; a task and a socket per call.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use media_engine::rtp::{HEADER_LEN, PACKET_MAX, PacketKind, RtpHeader, classify};
use media_engine::sdp::AudioFormat;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use super::ua::{CallKey, Media};

/// Audio of a packet.
const PACKET_MS: u64 = 20;
/// Samples, and octets, of a packet at 8 kHz.
const SAMPLES: usize = 160;
/// Packets read at a tick: more than a stream has, less than a flood needs to hold the task.
const READS_MAX: usize = 64;

#[derive(Debug)]
struct Stream {
    socket: Arc<UdpSocket>,
    counts: Arc<Counts>,
    task: Option<AbortHandle>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
}

/// The streams of an agent.
#[derive(Debug)]
pub struct RtpStreams {
    bind: IpAddr,
    streams: HashMap<CallKey, Stream>,
}

impl RtpStreams {
    pub fn new(bind: IpAddr) -> Self {
        Self { bind, streams: HashMap::new() }
    }
}

impl Drop for RtpStreams {
    fn drop(&mut self) {
        self.streams.values().filter_map(|stream| stream.task.as_ref()).for_each(AbortHandle::abort);
    }
}

impl Media for RtpStreams {
    fn open(&mut self, call: CallKey) -> Option<SocketAddr> {
        let socket = std::net::UdpSocket::bind(SocketAddr::new(self.bind, 0)).ok()?;
        socket.set_nonblocking(true).ok()?;
        let addr = socket.local_addr().ok()?;
        let socket = Arc::new(UdpSocket::from_std(socket).ok()?);
        self.streams.insert(call, Stream { socket, counts: Arc::default(), task: None });
        Some(addr)
    }

    fn start(&mut self, call: CallKey, remote: SocketAddr, format: AudioFormat) {
        if let Some(stream) = self.streams.get_mut(&call)
            && stream.task.is_none()
        {
            let ssrc = u32::try_from(call & 0xffff_ffff).unwrap_or_default();
            let talk = talk(Arc::clone(&stream.socket), Arc::clone(&stream.counts), remote, format, ssrc);
            stream.task = Some(tokio::spawn(talk).abort_handle());
        }
    }

    fn close(&mut self, call: CallKey) -> (u64, u64) {
        let Some(stream) = self.streams.remove(&call) else { return (0, 0) };
        if let Some(task) = &stream.task {
            task.abort();
            // What came since the last tick counts.
            count_received(&stream.socket, &stream.counts);
        }
        (stream.counts.sent.load(Ordering::Relaxed), stream.counts.received.load(Ordering::Relaxed))
    }
}

async fn talk(socket: Arc<UdpSocket>, counts: Arc<Counts>, remote: SocketAddr, format: AudioFormat, ssrc: u32) {
    let silence = match format {
        AudioFormat::Pcmu => 0xff,
        AudioFormat::Pcma => 0xd5,
    };
    let mut packet = [silence; HEADER_LEN + SAMPLES];
    let mut header = RtpHeader {
        marker: true,
        payload_type: format.payload_type(),
        sequence: 1,
        timestamp: 0,
        ssrc,
        header_len: HEADER_LEN,
        payload_len: SAMPLES,
    };
    let step = u32::try_from(SAMPLES).unwrap_or_default();
    // Held: nothing is to be sent, only counted.
    let sends = !remote.ip().is_unspecified() && remote.port() != 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(PACKET_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        ticks.tick().await;
        if sends {
            if let Some(start) = packet.first_chunk_mut::<HEADER_LEN>() {
                *start = header.to_bytes();
            }
            // A packet that the system does not take now is late anyway.
            if socket.try_send_to(&packet, remote).is_ok() {
                counts.sent.fetch_add(1, Ordering::Relaxed);
            }
            header.marker = false;
            header.sequence = header.sequence.wrapping_add(1);
            header.timestamp = header.timestamp.wrapping_add(step);
        }
        count_received(&socket, &counts);
    }
}

fn count_received(socket: &UdpSocket, counts: &Counts) {
    let mut buffer = [0; PACKET_MAX];
    for _ in 0..READS_MAX {
        match socket.try_recv(&mut buffer) {
            Ok(length) => {
                if matches!(buffer.get(..length).map(classify), Some(PacketKind::Rtp(_))) {
                    counts.received.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(_) => return,
        }
    }
}
