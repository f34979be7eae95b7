//! Tandem and its peers in one seat: calls, registrations, media, memory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tandem_e2e::load::machine::{CpuTime, memory_kb};
use tandem_e2e::load::peers::{self, Peer};
use tandem_e2e::load::sip::{Hold, Outcome, Plan, What};
use tandem_e2e::load::world::{self, Consumers, Seat};
use tandem_e2e::load::{peers::Seat as PeerSeat, rtp};
use tandem_e2e::{Engine, TestInstallation, install};

use crate::{RUNS, line, load};

/// Calls or registrations a second at which CPU is compared: a rate that both sides hold easily.
const RATE: u64 = 1_000;
/// Seconds of a run.
const SECONDS: u64 = 5;
/// Sessions of the relay: twenty thousand descriptors, the usual hard limit, are enough for them.
const SESSIONS: usize = 4_000;
/// Calls that are held for the memory of one.
const HELD: u64 = 3_000;
/// A second try of a step, on a fresh server: against noise.
const TRIES: usize = 2;
/// A relay's step from one count of calls to the next.
const MEDIA_CALLS: [u64; 8] = [300, 500, 700, 850, 1_000, 1_200, 1_400, 1_600];

/// Who sits in the seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Kamailio(PeerSeat),
    Tandem(Consumers),
}

impl Who {
    const fn name(self) -> &'static str {
        match self {
            Self::Kamailio(PeerSeat::Proxy) => "Kamailio, proxy",
            Self::Kamailio(PeerSeat::CdrLine) => "Kamailio, proxy with dialog, CDR line in the log",
            Self::Kamailio(PeerSeat::Registrar) => "Kamailio, registrar, all in memory",
            Self::Tandem(Consumers::OtherCore) => "Tandem, B2BUA, durable; consumers on the other core",
            Self::Tandem(Consumers::SameCore) => "Tandem, B2BUA, durable; consumers on the same core",
        }
    }
}

/// The throw-away installation and the addresses of the load.
struct Bench {
    at: TestInstallation,
    caller: SocketAddr,
    callee: SocketAddr,
    folder: PathBuf,
}

/// What a run gave: the outcome, and CPU of the whole server and of its call core, microseconds.
struct Run {
    outcome: Outcome,
    cpu_us: f64,
    core_us: f64,
    /// Calls a second that the consumers finished after the load had ended; none when they had kept up.
    drained: Option<f64>,
}

impl Bench {
    async fn set_up() -> Self {
        let at = install(Engine::Sqlite, |config| {
            config.sip.transport.shards = 1;
            config.sip.challenge_sha256 = false;
            config.media.sessions = SESSIONS;
            config.media.quarantine_ms = 200;
            config.log.level = "warn".into();
        })
        .await;
        let free = || tandem::demo::process::free_udp().expect("a free port");
        let (caller, callee) = (free(), free());
        let daemon = at.installation.start().await.expect("the daemon starts");
        world::provision(&at.installation, caller).await;
        daemon.terminate().await.expect("the daemon ends");
        let folder = at.dir.path().join("peer");
        Self { at, caller, callee, folder }
    }

    fn plan(&self, server: SocketAddr, rate: u64, count: u64, what: What) -> Plan {
        Plan { server, caller: self.caller, callee: self.callee, rate, count, hold: Hold::Ms(0), what }
    }

    /// One run on a fresh server; none when the peer is not installed.
    async fn run(&self, who: Who, rate: u64, what: &What) -> Option<Run> {
        match who {
            Who::Kamailio(seat) => {
                let peer = Peer::kamailio(&self.folder, seat, self.callee)?;
                let plan = self.plan(peer.address, rate, rate * SECONDS, what.clone());
                let warm: Outcome = load("generate-sip", &self.plan(peer.address, RATE, RATE, what.clone()));
                assert_eq!(warm.completed, warm.made, "{}: {:?}", who.name(), warm.refused);
                let before = CpuTime::of(peer.id());
                let outcome = load("generate-sip", &plan);
                let cpu_us = CpuTime::of(peer.id()).us_since(&before, |_| true);
                Some(Run { outcome, cpu_us, core_us: cpu_us, drained: None })
            }
            Who::Tandem(consumers) => {
                let at = &self.at.installation;
                let seat = Seat::take(at, consumers, self.caller, self.callee).await;
                let server = at.config.sip.transport.listen;
                let warm: Outcome = load("generate-sip", &self.plan(server, RATE, RATE, what.clone()));
                assert_eq!(warm.completed, warm.made, "{}: {:?}", who.name(), warm.refused);
                await_drained(&seat).await;
                let before = CpuTime::of(seat.id());
                let outcome: Outcome = load("generate-sip", &self.plan(server, rate, rate * SECONDS, what.clone()));
                let ended = Instant::now();
                let core_us = CpuTime::of(seat.id()).us_since(&before, tandem::priority::is_call_core);
                let behind = lag(&seat).await;
                await_drained(&seat).await;
                let cpu_us = CpuTime::of(seat.id()).us_since(&before, |_| true);
                // Two records a call: its answer and its end.
                let drained = (behind > RATE as f64).then(|| behind / 2.0 / ended.elapsed().as_secs_f64());
                Some(Run { outcome, cpu_us, core_us, drained })
            }
        }
    }

    /// The highest rate that holds: rising by a quarter, then halving the gap twice; each step on a fresh server.
    async fn search(&self, who: Who, from: u64, what: &What) -> Option<(u64, Option<f64>)> {
        let (mut low, mut high, mut rate, mut drained) = (0, None, from, None);
        for _ in 0..16 {
            let mut holds = false;
            for _ in 0..TRIES {
                let run = self.run(who, rate, what).await?;
                holds = run.outcome.holds(rate);
                if holds {
                    drained = run.drained.or(drained);
                    break;
                }
            }
            if holds {
                low = rate;
            } else {
                high = Some(rate);
            }
            rate = match high {
                None => rate * 5 / 4,
                Some(high) if low == 0 => high * 3 / 5,
                Some(high) if (high - low) * 12 <= high => break,
                Some(high) => u64::midpoint(low, high),
            };
        }
        Some((low, drained))
    }
}

async fn lag(seat: &Seat<'_>) -> f64 {
    seat.metric("tandem_consumer_lag_records{consumer=\"billing\"}").await
}

/// Waits until billing has read all; the gauge is set about once a second.
async fn await_drained(seat: &Seat<'_>) {
    let mut period = tokio::time::interval(Duration::from_millis(100));
    let mut quiet = 0;
    while quiet < 12 {
        period.tick().await;
        quiet = if lag(seat).await > 0.0 { 0 } else { quiet + 1 };
    }
}

fn dialled() -> What {
    What::Calls { to: world::NUMBER.to_owned(), caller_rtp: Vec::new(), callee_rtp: Vec::new() }
}

/// Runs everybody in turn and prints CPU for each unit of work, then the highest rates.
async fn compare(bench: &Bench, all: &[Who], what: &What, unit: &str, from: u64) {
    let mut runs: Vec<(Who, Vec<Run>)> = all.iter().map(|who| (*who, Vec::new())).collect();
    for _ in 0..RUNS {
        for (who, own) in &mut runs {
            own.extend(bench.run(*who, RATE, what).await);
        }
    }
    for (who, own) in &runs {
        let each = |of: fn(&Run) -> f64| -> Vec<f64> {
            own.iter().map(|run| of(run) / run.outcome.completed.max(1) as f64).collect()
        };
        let failed: u64 = own.iter().map(|run| run.outcome.made - run.outcome.completed).sum();
        println!("  {} at {RATE}/s, {failed} failed", who.name());
        line("  CPU of the server", &format!("us a {unit}"), &each(|run| run.cpu_us));
        if matches!(who, Who::Tandem(_)) {
            line("  of it call core and journal", &format!("us a {unit}"), &each(|run| run.core_us));
        }
        let p99: Vec<f64> = own.iter().map(|run| run.outcome.p99_ms).collect();
        line("  answered, 99 of 100 within", "ms", &p99);
    }
    for who in all {
        match bench.search(*who, from, what).await {
            Some((rate, drained)) => {
                println!("  {:58} {rate:>10} {unit}s/s held (steps of about 8 %)", who.name());
                if let Some(drained) = drained {
                    println!(
                        "  {:58} {drained:>10.0} calls/s usage, rating and counters stored",
                        "  consumers behind it"
                    );
                }
            }
            None => println!("  {:58} not installed: .ci/install bench", who.name()),
        }
    }
}

pub async fn calls() {
    let bench = Bench::set_up().await;
    let all = [
        Who::Kamailio(PeerSeat::Proxy),
        Who::Kamailio(PeerSeat::CdrLine),
        Who::Tandem(Consumers::OtherCore),
        Who::Tandem(Consumers::SameCore),
    ];
    compare(&bench, &all, &dialled(), "call", 2_000).await;
}

pub async fn registrations() {
    let bench = Bench::set_up().await;
    let what = What::Registrations { domain: world::DOMAIN.to_owned(), users: world::USERS };
    let all = [Who::Kamailio(PeerSeat::Registrar), Who::Tandem(Consumers::OtherCore), Who::Tandem(Consumers::SameCore)];
    compare(&bench, &all, &what, "registration", 4_000).await;
}

/// Sets up calls that stay up, and gives the relay's ports.
fn hold(bench: &Bench, server: SocketAddr, calls: u64, phones: &rtp::Phones) -> std::thread::JoinHandle<Outcome> {
    let what = What::Calls {
        to: world::NUMBER.to_owned(),
        caller_rtp: phones.callers.clone(),
        callee_rtp: phones.callees.clone(),
    };
    let plan = Plan { hold: Hold::Open, ..bench.plan(server, 2_000, calls, what) };
    std::thread::spawn(move || load("generate-sip", &plan))
}

/// CPU in microseconds for each packet: of the whole server, and of its relay.
struct MediaRun {
    outcome: rtp::Outcome,
    cpu_us: f64,
    relay_us: f64,
    setup_us: f64,
}

async fn relay(bench: &Bench, tandem: bool, calls: u64, phones: &rtp::Phones) -> Option<MediaRun> {
    let run = |ports: Vec<(u16, u16)>, id: u32, setup_us: f64| {
        let before = CpuTime::of(id);
        let outcome: rtp::Outcome =
            load("generate-rtp", &rtp::Plan { ports, phones: phones.clone(), seconds: SECONDS });
        let packets = outcome.relayed.max(1) as f64;
        let cpu_us = CpuTime::of(id).us_since(&before, |_| true) / packets;
        let relay_us = CpuTime::of(id).us_since(&before, |thread| thread.starts_with("media-")) / packets;
        MediaRun { outcome, cpu_us, relay_us, setup_us }
    };
    if !tandem {
        let peer = Peer::rtpengine(&bench.folder)?;
        let count = usize::try_from(calls).unwrap_or(usize::MAX);
        let (ports, setup) = peers::anchor(peer.address, count, &phones.callers, &phones.callees);
        return Some(run(ports, peer.id(), setup.as_secs_f64() * 1e6));
    }
    let at = &bench.at.installation;
    let seat = Seat::take(at, Consumers::OtherCore, bench.caller, bench.callee).await;
    let begun = Instant::now();
    let held = hold(bench, at.config.sip.transport.listen, calls, phones).join().ok()?;
    let setup_us = begun.elapsed().as_secs_f64() * 1e6 / calls as f64;
    assert_eq!(held.completed, calls, "all calls are up: {:?}", held.refused);
    Some(run(held.media, seat.id(), setup_us))
}

pub async fn media() {
    let bench = Bench::set_up().await;
    let phones = rtp::Phones::on_free_ports().expect("free ports");
    for tandem in [false, true] {
        let name = if tandem { "Tandem" } else { "rtpengine, one thread, no kernel module" };
        let mut first: Vec<MediaRun> = Vec::new();
        for _ in 0..RUNS {
            first.extend(relay(&bench, tandem, MEDIA_CALLS[0], &phones).await);
        }
        if first.is_empty() {
            println!("  {name:58} not installed: .ci/install bench");
            continue;
        }
        println!("  {name}, {} calls", MEDIA_CALLS[0]);
        let each = |of: fn(&MediaRun) -> f64| first.iter().map(of).collect::<Vec<_>>();
        line("  CPU of the server", "us a packet", &each(|run| run.cpu_us));
        if tandem {
            line("  of it the relay", "us a packet", &each(|run| run.relay_us));
        }
        line("  on the way, 99 of 100 within", "ms", &each(|run| run.outcome.p99_ms));
        line("  set up, one after the other", "us a call", &each(|run| run.setup_us));
        let (mut held, mut cpu_us) = (0, f64::NAN);
        for calls in MEDIA_CALLS {
            let mut holding = None;
            for _ in 0..TRIES {
                holding = relay(&bench, tandem, calls, &phones).await.filter(|run| run.outcome.holds());
                if holding.is_some() {
                    break;
                }
            }
            let Some(run) = holding else { break };
            (held, cpu_us) = (calls, run.cpu_us);
        }
        println!("  {name:58} {held:>10} calls, p99 under 20 ms (steps of about 15 %)");
        line("  CPU of the server then", "us a packet", &[cpu_us]);
    }
}

pub async fn memory() {
    let bench = Bench::set_up().await;
    let at = &bench.at.installation;
    let seat = Seat::take(at, Consumers::OtherCore, bench.caller, bench.callee).await;
    let idle = memory_kb(seat.id());
    let plan = Plan { hold: Hold::Ms(10_000), ..bench.plan(at.config.sip.transport.listen, 500, HELD, dialled()) };
    let held = std::thread::spawn(move || load::<Outcome>("generate-sip", &plan));
    let mut most = idle;
    let mut period = tokio::time::interval(Duration::from_millis(500));
    while !held.is_finished() {
        period.tick().await;
        most = most.max(memory_kb(seat.id()));
    }
    let outcome = held.join().expect("the load ends");
    println!("  {} of {HELD} calls were up; {SESSIONS} sessions of the relay are made at the start", outcome.completed);
    line("of a call that is up, anchored", "kB", &[(most - idle) as f64 / HELD as f64]);
    line("idle, its share of the relay's sessions included", "kB a session", &[idle as f64 / SESSIONS as f64]);
}
