//! The RTP relay: threads that carry packets between the two sides of anchored calls.
//!
//! What it does: binds a pool of RTP and RTCP port pairs at start, two pairs a session; relays what comes from the
//! right source (symmetric latching, see `media_engine::latch`) to the other side; measures per side what arrives and,
//! by RTCP, what is heard (see `media_engine::quality`). What it never does: read SDP, know a call, decode audio, change a packet, or take a lock or allocate per
//! packet.
//!
//! How to drive it: [`Relay::start`] once per process (after the metrics recorder is installed), [`Relay::handle`] once
//! per SIP shard. A handle reserves ([`RelayHandle::open`]), tells addresses ([`RelayHandle::local`],
//! [`RelayHandle::set_remote`]), reads counters and closes, all by atomics: no method blocks or waits for a relay
//! thread. A closed session's ports rest for `quarantine_ms`, so that stray packets don't count for the next call.
//!
//! Who writes what: a slot is taken by compare-and-swap; its remote addresses are written by the handle that took it
//! and read by the relay thread that owns its sockets; its counters are written by that thread alone, and are tagged
//! with the generation that they belong to.

mod config;
mod ports;
mod remote;
mod slot;
#[cfg(test)]
mod tests;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

pub use config::{InvalidConfig, RelayConfig};
pub use media_engine::{MediaSession, MediaSnapshot, RemoteMedia, Side};
use model::time::Clock;

use crate::slot::Slot;
use crate::worker::Worker;

/// Why the relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("the configuration of the relay can't be used")]
    Config(#[source] InvalidConfig),
    /// Too few ports could be bound. "Too many open files" wants a higher limit: four files a session.
    #[error(
        "only {bound} of {wanted} media sessions could be bound; free or widen the port range, or lower `sessions`"
    )]
    Bind {
        /// Sessions that have their ports.
        bound: usize,
        /// Sessions that were asked for.
        wanted: usize,
        /// What the last port said; absent when the range simply ended.
        #[source]
        source: Option<std::io::Error>,
    },
    /// A thread or its poll could not be made.
    #[error("a relay thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// What handles and threads share.
#[derive(Debug)]
struct Shared {
    slots: Vec<Slot>,
    clock: Arc<dyn Clock>,
    epoch: Instant,
    stop: AtomicBool,
    silence_ms: u64,
    quarantine_ms: u64,
}

impl Shared {
    /// Microseconds since the start.
    fn now_us(&self) -> u64 {
        let elapsed = self.clock.now().mono.saturating_duration_since(self.epoch);
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since the start.
    fn now_ms(&self) -> u64 {
        self.now_us() / 1_000
    }
}

/// The running relay. Dropping it ends its threads.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    handles: AtomicUsize,
    threads: Vec<(mio::Waker, JoinHandle<()>)>,
}

impl Relay {
    /// Binds all ports and starts the threads.
    ///
    /// # Errors
    /// When the configuration contradicts itself, ports are taken, or a thread can't be started.
    pub fn start(config: &RelayConfig, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        let bound = ports::bind_all(config)?;
        let epoch = clock.now().mono;
        let public = config.public_address();
        let slots = bound.iter().map(|sockets| Slot::new(sockets.local_ports().map(|p| SocketAddr::new(public, p))));
        let shared = Arc::new(Shared {
            slots: slots.collect(),
            clock,
            epoch,
            stop: AtomicBool::new(false),
            silence_ms: config.silence_ms,
            quarantine_ms: config.quarantine_ms,
        });
        let per_thread = bound.len().div_ceil(config.threads.max(1));
        let mut relay = Self { shared: Arc::clone(&shared), handles: AtomicUsize::new(0), threads: Vec::new() };
        let mut rest = bound.into_iter();
        let mut first = 0;
        while first < shared.slots.len() {
            let sockets: Vec<_> = rest.by_ref().take(per_thread).collect();
            let next = first.saturating_add(sockets.len());
            let (worker, waker) = Worker::new(Arc::clone(&shared), first, sockets).map_err(StartError::Thread)?;
            let name = format!("media-{}", relay.threads.len());
            let thread = std::thread::Builder::new().name(name).spawn(move || worker.run());
            relay.threads.push((waker, thread.map_err(StartError::Thread)?));
            first = next;
        }
        tracing::info!(sessions = shared.slots.len(), threads = relay.threads.len(), "the media relay is ready");
        Ok(relay)
    }

    /// A handle for one SIP shard.
    #[must_use]
    pub fn handle(&self) -> RelayHandle {
        // Handles begin their search at different places, so that they seldom meet.
        let number = self.handles.fetch_add(1, Ordering::Relaxed);
        let slots = self.shared.slots.len().max(1);
        RelayHandle { shared: Arc::clone(&self.shared), cursor: number.wrapping_mul(slots.div_ceil(8)) % slots }
    }

    /// Sessions that are open now.
    #[must_use]
    pub fn sessions_open(&self) -> usize {
        self.shared.slots.iter().filter(|slot| slot.is_open()).count()
    }

    /// Sessions that there are.
    #[must_use]
    pub fn sessions_max(&self) -> usize {
        self.shared.slots.len()
    }

    /// Ends the threads and waits for them.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for (waker, thread) in self.threads.drain(..) {
            if let Err(error) = waker.wake() {
                // Joining a thread that was not woken would hang.
                tracing::warn!(%error, "a relay thread could not be woken for its end");
                continue;
            }
            if thread.join().is_err() {
                tracing::error!("a relay thread had panicked: the calls on its ports lost their media");
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One shard's access to the relay.
#[derive(Debug)]
pub struct RelayHandle {
    shared: Arc<Shared>,
    cursor: usize,
}

impl RelayHandle {
    /// Reserves a session; none when all are open or resting.
    pub fn open(&mut self) -> Option<MediaSession> {
        let now_ms = self.shared.now_ms();
        let slots = &self.shared.slots;
        for step in 0..slots.len() {
            let at = self.cursor.wrapping_add(step) % slots.len();
            if let Some(generation) = slots.get(at).and_then(|slot| slot.open(now_ms)) {
                self.cursor = at.wrapping_add(1) % slots.len();
                return Some(MediaSession { slot: u32::try_from(at).ok()?, generation });
            }
        }
        None
    }

    /// The address that goes into our SDP for `side`: RTP; RTCP is the next port.
    #[must_use]
    pub fn local(&self, session: MediaSession, side: Side) -> SocketAddr {
        // A handle of another relay names no slot: port 0 refuses the stream in SDP.
        self.slot(session).map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |slot| slot.local(side))
    }

    /// What the last description of `side` says: at call setup, and again once a re-INVITE or UPDATE is agreed. An
    /// unspecified address or port 0: nothing is sent to it. Another address than before opens its latch again; the
    /// same one leaves it alone. While the directions hold the call, [`MediaSnapshot::silence_ms`] is absent; when both
    /// sides are to be heard again, it counts from this moment.
    pub fn set_remote(&mut self, session: MediaSession, side: Side, media: &RemoteMedia) {
        if let Some(slot) = self.slot(session) {
            slot.set_remote(session.generation, side, media, self.shared.now_ms());
        }
    }

    /// What has been counted so far; zeros for a session that is closed.
    #[must_use]
    pub fn snapshot(&self, session: MediaSession) -> MediaSnapshot {
        self.slot(session).map(|slot| slot.snapshot(session.generation, self.shared.now_ms())).unwrap_or_default()
    }

    /// Ends the session and says what was counted in all; zeros when it was closed before.
    pub fn close(&mut self, session: MediaSession) -> MediaSnapshot {
        let now_ms = self.shared.now_ms();
        let free_at_ms = now_ms.saturating_add(self.shared.quarantine_ms);
        self.slot(session).map(|slot| slot.close(session.generation, now_ms, free_at_ms)).unwrap_or_default()
    }

    fn slot(&self, session: MediaSession) -> Option<&Slot> {
        self.shared.slots.get(usize::try_from(session.slot).ok()?)
    }
}
