//! The figures of `make bench`: what one core holds, beside the peers in the same seat and the same run.
//!
//! `figures [SECTION…]` runs all sections or the named ones; see [`SECTIONS`]. CPU and latency of all sides are taken
//! alternately, `RUNS` times each; what is printed is the median, and the spread behind it. Limits come after, each once.
#![expect(clippy::print_stdout, reason = "figures are for people")]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]
#![expect(clippy::cast_precision_loss, reason = "figures are for people")]

mod micro;
mod provisioning;
mod signalling;

use std::io::Read as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tandem_e2e::ENGINES;
use tandem_e2e::load::machine::{self, LOAD_CORE, Priority};

/// Sections, in their order.
const SECTIONS: [(&str, &str); 8] = [
    ("index", "SIP messages indexed, with allocations"),
    ("journal", "call facts made durable"),
    ("rating", "calls rated in memory"),
    ("calls", "calls: B2BUA with journal, beside Kamailio"),
    ("registrations", "registrations with digest, beside Kamailio"),
    ("media", "RTP relayed, beside rtpengine"),
    ("memory", "memory of a call that is up"),
    ("provisioning", "provisioning with 100,000 subscribers of 5,000 customers: server and load on all cores"),
];

/// Runs of each figure.
pub const RUNS: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("generate-sip") => generate(|plan| tandem_e2e::load::sip::run(&plan)),
        Some("generate-rtp") => generate(|plan| tandem_e2e::load::rtp::run(&plan)),
        _ => return report(&arguments),
    }
    ExitCode::SUCCESS
}

fn report(wanted: &[String]) -> ExitCode {
    if let Some(unknown) = wanted.iter().find(|name| !SECTIONS.iter().any(|(known, _)| known == name)) {
        println!("unknown section {unknown}; there are:");
        for (name, text) in SECTIONS {
            println!("  {name:14} {text}");
        }
        return ExitCode::FAILURE;
    }
    println!("{}\n{RUNS} runs a figure: median (lowest to highest)", machine::describe());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    for (name, text) in SECTIONS {
        if !wanted.is_empty() && !wanted.iter().any(|word| word == name) {
            continue;
        }
        println!("\n{text}");
        match name {
            "index" => micro::index(),
            "journal" => micro::journal(),
            "rating" => micro::rating(),
            "calls" => runtime.block_on(signalling::calls()),
            "registrations" => runtime.block_on(signalling::registrations()),
            "media" => runtime.block_on(signalling::media()),
            "memory" => runtime.block_on(signalling::memory()),
            _ => runtime.block_on(async {
                for engine in ENGINES {
                    provisioning::figures(engine).await;
                }
            }),
        }
    }
    ExitCode::SUCCESS
}

/// Runs a load in a process of its own, on its own core.
///
/// # Panics
/// When it fails.
pub fn load<Outcome: DeserializeOwned>(kind: &str, plan: &impl Serialize) -> Outcome {
    let own = std::env::current_exe().expect("a bench has an executable");
    let mut command = machine::pinned(Path::new(&own), LOAD_CORE, Priority::RealTime);
    command.arg(kind).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the load starts");
    let input = child.stdin.take().expect("a pipe");
    serde_json::to_writer(input, plan).expect("the plan is read");
    let output = child.wait_with_output().expect("the load ends");
    serde_json::from_slice(&output.stdout).expect("an outcome; see what it printed above")
}

fn generate<Plan: DeserializeOwned, Outcome: Serialize>(run: impl Fn(Plan) -> std::io::Result<Outcome>) {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).expect("a plan");
    let plan = serde_json::from_str(&text).expect("a plan");
    let outcome = run(plan).expect("sockets for the load");
    println!("{}", serde_json::to_string(&outcome).expect("an outcome"));
}

/// One line of figures: median, lowest, highest.
pub fn line(what: &str, unit: &str, figures: &[f64]) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) = (sorted.first(), sorted.last()) else {
        println!("  {what:58} not measured");
        return;
    };
    let median = sorted[sorted.len() / 2];
    println!("  {what:58} {:>10} {unit} ({} to {})", figure(median), figure(*low), figure(*high));
}

fn figure(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
