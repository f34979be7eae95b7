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
/// Seconds of the run that confirms a rate: longer than a transaction lives (64 T1 = 32 s, RFC 3261, section 17), so that
/// as many of them end as begin.
const SUSTAINED_SECONDS: u64 = 40;
/// Hundredths of the rate found that are tried for so long, in turn.
const SUSTAINED_SHARES: [u64; 5] = [100, 90, 80, 70, 60];
/// Until the consumers have done what a run left them.
const DRAIN_MAX: Duration = Duration::from_secs(180);
/// Calls a second that may begin where one waits for the one before it: more than can.
const HOLD_RATE: u64 = 1_000_000;
/// Sessions of the relay: twenty thousand descriptors, the usual hard limit, are enough for them.
const SESSIONS: usize = 4_000;
/// Calls that are held for the memory of one.
const HELD: u64 = 3_000;
/// A second try of a step, on a fresh server: against noise.
const TRIES: usize = 2;
/// A relay's step from one count of calls to the next.
const MEDIA_CALLS: [u64; 9] = [300, 500, 700, 850, 1_000, 1_200, 1_400, 1_600, 1_800];

/// Who sits in the seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Kamailio(PeerSeat),
    Tandem(Consumers),
}

impl Who {
    fn name(self, unit: &Unit) -> String {
        match self {
            Self::Kamailio(PeerSeat::Proxy) => "Kamailio, proxy".to_owned(),
            Self::Kamailio(PeerSeat::CdrLine) => "Kamailio, proxy with dialog, CDR line in the log".to_owned(),
            Self::Kamailio(PeerSeat::Registrar) => "Kamailio, registrar, all in memory".to_owned(),
            Self::Tandem(Consumers::OtherCore) => format!("Tandem, {}; consumers on the other core", unit.seat),
            Self::Tandem(Consumers::SameCore) => format!("Tandem, {}; consumers on the same core", unit.seat),
        }
    }
}

/// What is counted.
struct Unit {
    /// In one word.
    name: &'static str,
    /// Tandem's part in it.
    seat: &'static str,
    what: What,
    /// Whether the consumers of the journal get something of it.
    consumed: bool,
    /// Where the search begins, a second.
    from: u64,
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
    /// From the begin of the load until the consumers had done all of it; none: not within [`DRAIN_MAX`], or
    /// nobody waited.
    stored_within: Option<Duration>,
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

    /// One run on a fresh server; none when the peer is not installed. `whole` waits for what the consumers do after one
    /// that held.
    async fn run(&self, who: Who, rate: u64, seconds: u64, whole: bool, what: &What) -> Option<Run> {
        let warm = |server| {
            let warm: Outcome = load("generate-sip", &self.plan(server, RATE, RATE, what.clone()));
            assert_eq!(warm.completed, warm.made, "{who:?}: {:?}", warm.refused);
        };
        match who {
            Who::Kamailio(seat) => {
                let peer = Peer::kamailio(&self.folder, seat, self.callee)?;
                warm(peer.address);
                let before = CpuTime::of(peer.id());
                let outcome = load("generate-sip", &self.plan(peer.address, rate, rate * seconds, what.clone()));
                let cpu_us = CpuTime::of(peer.id()).us_since(&before, |_| true);
                Some(Run { outcome, cpu_us, core_us: cpu_us, stored_within: None })
            }
            Who::Tandem(consumers) => {
                let at = &self.at.installation;
                let seat = Seat::take(at, consumers, self.caller, self.callee).await;
                let server = at.config.sip.transport.listen;
                warm(server);
                assert!(drained(&seat).await.is_some(), "the consumers do what is there");
                let (begun, before) = (Instant::now(), CpuTime::of(seat.id()));
                let outcome: Outcome = load("generate-sip", &self.plan(server, rate, rate * seconds, what.clone()));
                let core_us = CpuTime::of(seat.id()).us_since(&before, tandem::priority::is_call_core);
                let done = if whole && outcome.holds(rate) { drained(&seat).await } else { None };
                let stored_within = done.map(|at| at.duration_since(begun));
                let cpu_us = CpuTime::of(seat.id()).us_since(&before, |_| true);
                Some(Run { outcome, cpu_us, core_us, stored_within })
            }
        }
    }

    /// The highest rate that holds: rising by a quarter, then halving the gap twice; each step on a fresh server.
    async fn search(&self, who: Who, unit: &Unit) -> Option<u64> {
        let (mut low, mut high, mut rate) = (0, None, unit.from);
        for _ in 0..16 {
            let mut holds = false;
            for _ in 0..TRIES {
                holds = self.run(who, rate, SECONDS, false, &unit.what).await?.outcome.holds(rate);
                if holds {
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
        Some(low)
    }

    /// How much of a rate holds for longer.
    async fn sustain(&self, who: Who, rate: u64, unit: &Unit) {
        for share in SUSTAINED_SHARES {
            let rate = rate * share / 100;
            let Some(run) = self.run(who, rate, SUSTAINED_SECONDS, unit.consumed, &unit.what).await else { return };
            let found = &run.outcome;
            if !found.holds(rate) {
                let (failed, reached, p99) = (found.made - found.completed, found.reached, found.p99_ms);
                println!(
                    "    not {rate}/s for {SUSTAINED_SECONDS} s: {failed} failed {:?}, {reached:.0}/s, p99 {p99:.1} ms",
                    found.refused
                );
                continue;
            }
            println!("    {:56} {rate:>10} {}s/s", format!("and for {SUSTAINED_SECONDS} s"), unit.name);
            let completed = run.outcome.completed as f64;
            line("    CPU of its call core then", &format!("us a {}", unit.name), &[run.core_us / completed]);
            if let Some(within) = run.stored_within {
                let stored = completed / within.as_secs_f64();
                line("    done by all consumers, from begin to end", &format!("{}s/s", unit.name), &[stored]);
            }
            return;
        }
        println!("    no share of it holds for {SUSTAINED_SECONDS} s");
    }
}

/// When the consumers had read all; none when they need longer than [`DRAIN_MAX`]. Their gauges are set once a step, so
/// that only a row of zeros counts; its first one is the moment. What is stored without a consumer, as registrations
/// are, is done by its end too.
async fn drained(seat: &Seat<'_>) -> Option<Instant> {
    const ROW: u32 = 12;
    let begun = Instant::now();
    let mut period = tokio::time::interval(Duration::from_millis(100));
    let (mut row, mut first) = (0, begun);
    while row < ROW {
        period.tick().await;
        let now = Instant::now();
        if now.duration_since(begun) > DRAIN_MAX {
            return None;
        }
        if seat.lag().await > 0.0 {
            row = 0;
            continue;
        }
        if row == 0 {
            first = now;
        }
        row += 1;
    }
    Some(first)
}

/// Runs everybody in turn and prints CPU for each unit of work, then the highest rates.
async fn compare(bench: &Bench, all: &[Who], unit: &Unit) {
    let mut runs: Vec<(Who, Vec<Run>)> = all.iter().map(|who| (*who, Vec::new())).collect();
    for _ in 0..RUNS {
        for (who, own) in &mut runs {
            own.extend(bench.run(*who, RATE, SECONDS, true, &unit.what).await);
        }
    }
    for (who, own) in &runs {
        let each = |of: fn(&Run) -> f64| -> Vec<f64> {
            own.iter().map(|run| of(run) / run.outcome.completed.max(1) as f64).collect()
        };
        let failed: u64 = own.iter().map(|run| run.outcome.made - run.outcome.completed).sum();
        println!("  {} at {RATE}/s, {failed} failed", who.name(unit));
        line("    CPU of the server", &format!("us a {}", unit.name), &each(|run| run.cpu_us));
        if matches!(who, Who::Tandem(_)) {
            line("    of it call core and journal", &format!("us a {}", unit.name), &each(|run| run.core_us));
        }
        let p99: Vec<f64> = own.iter().map(|run| run.outcome.p99_ms).collect();
        line("    answered, 99 of 100 within", "ms", &p99);
    }
    for who in all {
        let name = who.name(unit);
        match bench.search(*who, unit).await {
            Some(rate) => {
                println!("  {name:58} {rate:>10} {}s/s held for {SECONDS} s (steps of about 8 %)", unit.name);
                bench.sustain(*who, rate, unit).await;
            }
            None => println!("  {name:58} not installed: .ci/install bench"),
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
    let unit = Unit { name: "call", seat: "B2BUA, durable", what: dialled(), consumed: true, from: 2_000 };
    compare(&bench, &all, &unit).await;
}

pub async fn registrations() {
    let bench = Bench::set_up().await;
    let all = [Who::Kamailio(PeerSeat::Registrar), Who::Tandem(Consumers::OtherCore), Who::Tandem(Consumers::SameCore)];
    let what = What::Registrations { domain: world::DOMAIN.to_owned(), users: world::USERS };
    let unit =
        Unit { name: "registration", seat: "registrar, stored behind the answer", what, consumed: false, from: 4_000 };
    compare(&bench, &all, &unit).await;
}

fn dialled() -> What {
    What::Calls { to: world::NUMBER.to_owned(), caller_rtp: Vec::new(), callee_rtp: Vec::new() }
}

/// Sets up calls that stay up, one after the other, and gives the relay's ports.
fn hold(bench: &Bench, server: SocketAddr, calls: u64, phones: &rtp::Phones) -> Outcome {
    let what = What::Calls {
        to: world::NUMBER.to_owned(),
        caller_rtp: phones.callers.clone(),
        callee_rtp: phones.callees.clone(),
    };
    load("generate-sip", &Plan { hold: Hold::Open, ..bench.plan(server, HOLD_RATE, calls, what) })
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
    let held = hold(bench, at.config.sip.transport.listen, calls, phones);
    assert_eq!(held.completed, calls, "all calls are up: {:?}", held.refused);
    Some(run(held.media, seat.id(), 1e6 / held.reached))
}

pub async fn media() {
    let bench = Bench::set_up().await;
    let phones = rtp::Phones::on_free_ports().expect("free ports");
    let mut first: [Vec<MediaRun>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        for (tandem, own) in [false, true].into_iter().zip(&mut first) {
            own.extend(relay(&bench, tandem, MEDIA_CALLS[0], &phones).await);
        }
    }
    for (tandem, own) in [false, true].into_iter().zip(&first) {
        let name = if tandem { "Tandem" } else { "rtpengine, one thread, no kernel module" };
        if own.is_empty() {
            println!("  {name:58} not installed: .ci/install bench");
            continue;
        }
        println!("  {name}, {} calls", MEDIA_CALLS[0]);
        let each = |of: fn(&MediaRun) -> f64| own.iter().map(of).collect::<Vec<_>>();
        line("    CPU of the server", "us a packet", &each(|run| run.cpu_us));
        if tandem {
            line("    of it the relay", "us a packet", &each(|run| run.relay_us));
        }
        line("    on the way, 99 of 100 within", "ms", &each(|run| run.outcome.p99_ms));
        let set_up = if tandem { "    set up one by one, by SIP, durable" } else { "    set up one by one, by ng" };
        line(set_up, "us a call", &each(|run| run.setup_us));
        let (mut held, mut cpu_us, mut limit) = (0, f64::NAN, "at least: no more was tried");
        for calls in MEDIA_CALLS {
            let mut holds = false;
            for _ in 0..TRIES {
                let Some(run) = relay(&bench, tandem, calls, &phones).await else { break };
                holds = run.outcome.holds();
                if holds {
                    (held, cpu_us) = (calls, run.cpu_us);
                    break;
                }
                limit =
                    if run.outcome.is_offered() { "steps of about 15 %" } else { "at least: the load was the limit" };
            }
            if !holds {
                break;
            }
            limit = "at least: no more was tried";
        }
        println!("  {name:58} {held:>10} calls, p99 under 20 ms ({limit})");
        line("    CPU of the server then", "us a packet", &[cpu_us]);
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
    let (up, refused) = (outcome.completed, &outcome.refused);
    println!("  {up} of {HELD} calls were up {refused:?}; {SESSIONS} sessions of the relay are made at the start");
    line("of a call that is up, anchored", "kB", &[(most - idle) as f64 / up as f64]);
    line("idle, its share of the relay's sessions included", "kB a session", &[idle as f64 / SESSIONS as f64]);
}
