//! Noise from strangers beside a call.

use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;

use testkit::{Random, soak, torture};

use super::*;

/// Datagrams of noise; many more in the long run.
const DATAGRAMS: usize = 3_000;
const DATAGRAMS_SOAK: usize = 300_000;

/// Counts what relay threads log, at any level.
struct Lines(&'static AtomicUsize);

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        std::thread::current().name().is_some_and(|name| name.starts_with("media-"))
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
    fn register_callsite(&self, _: &'static tracing::Metadata<'static>) -> tracing::subscriber::Interest {
        // The answer depends on the thread.
        tracing::subscriber::Interest::sometimes()
    }
}

fn lines() -> &'static AtomicUsize {
    static LINES: AtomicUsize = AtomicUsize::new(0);
    static SET: OnceLock<()> = OnceLock::new();
    SET.get_or_init(|| tracing::subscriber::set_global_default(Lines(&LINES)).expect("only this test sets one"));
    &LINES
}

#[test]
fn noise_beside_a_call_changes_nothing_and_writes_no_line() {
    const SEED: u64 = 0x0bad_cafe;
    let control = lines().load(Ordering::SeqCst);
    let thread = std::thread::Builder::new().name("media-control".to_owned());
    thread.spawn(|| tracing::trace!("a line of a relay thread is counted")).unwrap().join().unwrap();
    let lines_before = lines().load(Ordering::SeqCst);
    assert_eq!(lines_before, control + 1);
    let mut rig = rig(&config(1));
    let ((a, a_rtcp), (b, b_rtcp), stranger) = (Phone::pair(), Phone::pair(), Phone::new());
    let (session, to_a, to_b) = rig.call(&a, &b);
    let next = |addr: SocketAddr| SocketAddr::new(addr.ip(), addr.port() + 1);
    let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
    let mut sequence = 0_u16;
    let mut round = |rig: &Rig| {
        sequence = sequence.wrapping_add(1);
        a.send(sequence, to_a);
        assert_eq!(b.receive(), (sequence, to_b));
        b.send(sequence, to_b);
        assert_eq!(a.receive(), (sequence, to_a), "still where A is");
        a_rtcp.raw(&report, next(to_a));
        assert_eq!(b_rtcp.receive_raw(), (report.to_vec(), next(to_b)));
        b_rtcp.raw(&report, next(to_b));
        assert_eq!(a_rtcp.receive_raw(), (report.to_vec(), next(to_a)));
        rig.clock.advance(20);
    };
    round(&rig);
    let mut random = Random::new(SEED);
    let datagrams = if soak::is_long() { DATAGRAMS_SOAK } else { DATAGRAMS };
    let mut rounds = 1;
    for n in 0..datagrams {
        let port = [to_a, next(to_a), to_b, next(to_b)][random.below(4)];
        stranger.raw(&torture::rtp_noise(&mut random), port);
        // Between bursts the parties go on: what they hear is each other, in order, from the same port.
        if n % 10 == 9 {
            round(&rig);
            rounds += 1;
        }
    }
    let snapshot = wait_for(&rig.handle, session, |s| s.a.packets_sent == rounds && s.b.packets_sent == rounds);
    for stats in [snapshot.a, snapshot.b] {
        assert_eq!((stats.packets_received, stats.packets_lost, stats.octets_received), (rounds, 0, rounds * 160));
        let quality = stats.quality.unwrap();
        assert_eq!((quality.mos, quality.jitter_max_us, quality.packets_duplicate), (Some(441), 0, 0));
        assert_eq!(quality.reported_lost, None, "reports of strangers are not read");
    }
    // To the ports of no call: nothing either.
    rig.handle.close(session);
    (0..100).for_each(|_| stranger.raw(&torture::rtp_noise(&mut random), to_a));
    rig.relay.shutdown();
    assert_eq!(lines().load(Ordering::SeqCst), lines_before, "seed {SEED:#x}");
}
