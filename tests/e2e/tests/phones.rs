//! Two phones of Debian's (`baresip`) call each other through Tandem, one over UDP and one over TCP, hold and resume:
//! each hears the other's tone, and the call is billed once with the quality of its legs.

use std::time::Duration;

use tandem_e2e::baresip::{Baresip, Transport};
use tandem_e2e::ledger::{assert_books, number, store, usage};
use tandem_e2e::{Engine, Subscriber, install, provision};

/// What the caller plays, and what the callee plays.
const TONES_HZ: (f64, f64) = (1_000.0, 600.0);
/// The share of the tone in what is heard: G.711 and the resampling to 16 bits leave almost all of it.
const SHARE_MIN: f64 = 0.9;

/// The talk itself: what is measured is what goes by in this time.
async fn talk(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_phones_talk_hold_and_resume_over_udp_and_tcp() {
    let at = install(Engine::Sqlite, |config| {
        // baresip 1.0 knows MD5 alone.
        config.sip.challenge_sha256 = false;
    })
    .await;
    let daemon = at.installation.start().await.expect("the daemon starts");
    let world = provision(&at.installation, tandem::demo::process::free_udp().expect("a free port")).await;
    let server = at.installation.config.sip.transport.listen;
    let (caller, callee) = (Subscriber::of(&world, 0), Subscriber::of(&world, 1));
    let mut alice = Baresip::start(at.dir.path(), &caller, server, Transport::Udp, TONES_HZ.0).await;
    let mut bob = Baresip::start(at.dir.path(), &callee, server, Transport::Tcp, TONES_HZ.1).await;

    alice.command("dial", &format!("sip:{}@{}", world.phones[1].extension, callee.domain)).await;
    alice.event("CALL_ESTABLISHED").await;
    bob.event("CALL_ESTABLISHED").await;
    talk(3).await;
    alice.command("hold", "").await;
    talk(2).await;
    alice.command("resume", "").await;
    talk(3).await;
    alice.command("hangup", "").await;
    bob.event("CALL_CLOSED").await;
    drop((alice.command("reginfo", "").await, bob.command("reginfo", "").await));

    for (phone, tone, other) in [(&alice, TONES_HZ.1, TONES_HZ.0), (&bob, TONES_HZ.0, TONES_HZ.1)] {
        let heard = |hz| phone.heard(hz, 1_000).expect("more than two seconds were heard");
        assert!(heard(tone) > SHARE_MIN && heard(other) < 0.05, "{} and {}", heard(tone), heard(other));
        // What was on hold is not recorded: the end of the recording is what came after it.
        let last = phone.heard_last(tone).expect("more than a second was heard");
        assert!(last > SHARE_MIN, "after the resume: {last}");
    }

    tandem::demo::await_settled(&at.installation).await.expect("the consumers catch up");
    daemon.terminate().await.expect("the daemon drains");
    let db = store(&at.installation.config).await;
    assert_books(&db).await;
    let rows = usage(&db).await;
    assert_eq!(rows.len(), 2, "one call, one usage per leg: its re-INVITEs are no calls");
    for (call, leg, duration_ms, estimated, aborted) in rows {
        assert_eq!((estimated, aborted), (false, false), "{call} {leg}");
        assert!((8_000..15_000).contains(&duration_ms), "{call} {leg}: {duration_ms} ms");
    }
    let judged = number(&db, "SELECT COUNT(*) FROM usage WHERE mos >= 400 AND mos <= 450").await;
    assert_eq!(judged, 2, "both legs have a MOS, and a good one");
}
