//! A thousand calls of `sipp` through Tandem to `sipp`, with digest and RTP: all of them in the books, none twice, with
//! the durations that the peer's own log shows.

use std::collections::BTreeMap;
use std::time::Duration;

use tandem_e2e::ledger::{assert_books, journaled_calls, number, store, usage};
use tandem_e2e::sipp::{Bench, LoggedCall};
use tandem_e2e::{ENGINES, Subscriber, install, provision};

/// Calls of a run.
const CALLS: usize = 1_000;
/// Calls a second.
const RATE: &str = "50";
/// Longest run: 20 s of calls, 3 s of talk, and room for a slow machine.
const RUN_MAX: Duration = Duration::from_secs(90);
/// How far a duration may be from the peer's log.
const TOLERANCE_MS: f64 = 20.0;

/// Runs of the caller until all calls were answered.
const ROUNDS_MAX: u32 = 4;

fn answered_in(log: &BTreeMap<String, LoggedCall>) -> usize {
    log.values().filter(|call| call.answered_ms.is_some()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_of_sipp_are_billed_once_with_their_durations() {
    for engine in ENGINES {
        let at = install(engine, |config| {
            config.media.sessions = 600;
            // sipp looks at the first challenge alone, and knows MD5.
            config.sip.challenge_sha256 = false;
        })
        .await;
        let daemon = at.installation.start().await.expect("the daemon starts");
        let carrier = tandem::demo::process::free_udp().expect("a free port");
        let world = provision(&at.installation, carrier).await;
        let server = at.installation.config.sip.transport.listen;
        let bench = Bench::new(at.dir.path());
        bench.data("callee.csv", &Subscriber::of(&world, 1), "");
        bench.data("caller.csv", &Subscriber::of(&world, 0), &world.phones[1].extension);

        // The callee's port is where its calls go: it registers from there, then waits there.
        let callee_port = tandem::demo::process::free_udp().expect("a free port");
        let mut register = bench.start("register", "callee.csv", callee_port, server, &["-m", "1"]);
        let registered = tokio::time::timeout(RUN_MAX, register.wait()).await.expect("in time").expect("sipp ran");
        assert!(registered.success(), "{engine:?}: {}", bench.errors("register"));
        let calls = CALLS.to_string();
        let arguments = ["-m", &calls, "-rtp_echo", "-mp", "17000"];
        let mut callee = bench.start("callee", "callee.csv", callee_port, server, &arguments);
        let caller_port = tandem::demo::process::free_udp().expect("a free port");
        // A disk that stalls makes the node refuse with 503: such calls are placed again, as a phone would.
        let mut log = BTreeMap::new();
        for _ in 0..ROUNDS_MAX {
            let left = (CALLS - answered_in(&log)).to_string();
            let arguments = ["-m", &left, "-r", RATE, "-l", "400", "-mp", "18000"];
            let mut caller = bench.start("caller", "caller.csv", caller_port, server, &arguments);
            let done = tokio::time::timeout(RUN_MAX, caller.wait()).await;
            assert!(matches!(done, Ok(Ok(_))), "{engine:?}: {done:?}\n{}", bench.errors("caller"));
            log.extend(bench.calls("caller"));
            if answered_in(&log) == CALLS {
                break;
            }
        }
        assert_eq!(answered_in(&log), CALLS, "{engine:?}: {}", bench.errors("caller"));
        let done = tokio::time::timeout(RUN_MAX, callee.wait()).await;
        assert!(matches!(done, Ok(Ok(status)) if status.success()), "{engine:?}: {done:?}\n{}", bench.errors("callee"));

        tandem::demo::await_settled(&at.installation).await.expect("the consumers catch up");
        daemon.terminate().await.expect("the daemon drains");

        let db = store(&at.installation.config).await;
        assert_books(&db).await;
        let rows = usage(&db).await;
        assert_eq!(rows.len(), 2 * CALLS, "{engine:?}: one usage per leg");
        assert_eq!(number(&db, "SELECT COUNT(*) FROM rated WHERE side = 'sell'").await, 1_000, "{engine:?}");
        let journal = journaled_calls(&at.installation.config);
        let answered: Vec<_> = journal.iter().filter(|(_, call)| call.answered > 0).collect();
        assert_eq!(answered.len(), CALLS, "{engine:?}");

        let callee_log = bench.calls("callee");
        let (mut near, mut far, mut repeated, mut silent) = (0, Vec::new(), 0, 0);
        for (_, call) in &answered {
            // A call lasts from the callee's 200 (as the callee sent it) to the caller's BYE (as the caller sent it).
            let logged = log.get(&call.a_sip_call_id).expect("the caller logged the call");
            let callee = callee_log.get(&call.b_sip_call_id).expect("the callee logged the call");
            silent += usize::from(call.packets_received < 20);
            if logged.retransmissions || callee.retransmissions {
                repeated += 1;
                continue;
            }
            #[expect(clippy::cast_precision_loss, reason = "a duration in milliseconds is far below 2^52")]
            let difference =
                logged.bye_ms.expect("a BYE") - callee.answered_ms.expect("a 200") - call.duration_ms as f64;
            if difference.abs() <= TOLERANCE_MS { near += 1 } else { far.push(difference) }
        }
        println!(
            "{engine:?}: {near} within {TOLERANCE_MS} ms, {} beyond {far:?}, {repeated} with retransmissions",
            far.len()
        );
        assert!(far.len() * 100 <= near + far.len(), "{engine:?}: durations differ: {far:?}");
        // sipp itself may come to send nothing on a machine that does much else.
        assert!(silent * 100 <= CALLS, "{engine:?}: {silent} calls without RTP");
        for (call, leg, duration, estimated, aborted) in rows {
            assert_eq!((estimated, aborted), (false, false), "{call} {leg}");
            assert_eq!(duration, journal[&call].duration_ms, "{call} {leg}");
        }
    }
}
