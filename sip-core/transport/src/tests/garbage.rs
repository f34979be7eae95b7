//! Calls beside a stream of octets that are no SIP.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use testkit::{Random, soak, torture};

use super::*;

/// Datagrams of a short run: one second's worth.
const DATAGRAMS: u64 = 20_000;
/// Datagrams of a long run.
const DATAGRAMS_SOAK: u64 = 1_000_000;
/// Calls beside them: the relay of these tests has 32 sessions, and rests each after its use.
const CALLS: u64 = 25;
/// 20,000 a second, in bursts.
const BURST: u64 = 200;
const BURST_PERIOD: Duration = Duration::from_millis(10);
const SEED: u64 = 0x6a72_6261;

/// Ends the repetitions, however the test ends.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn random_datagrams_fail_no_call() {
    let rig = start(Vec::new());
    let server = rig.node.local_addrs()[0];
    let wanted = if soak::is_long() { DATAGRAMS_SOAK } else { DATAGRAMS };
    let (sent, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let pace = (Mutex::new(()), Condvar::new());
    let (mut alice, mut bob) = (Phone::new("alice", &rig), Phone::new("bob", &rig));
    alice.register();
    bob.register();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let mut random = Random::new(SEED);
            while sent.load(Ordering::Relaxed) < wanted {
                for _ in 0..BURST {
                    socket.send_to(&torture::sip_noise(&mut random), server).unwrap();
                }
                sent.fetch_add(BURST, Ordering::Relaxed);
                // Nobody notifies: this sets the rate.
                drop(pace.1.wait_timeout(pace.0.lock().unwrap(), BURST_PERIOD).unwrap());
            }
        });
        // Also when a phone waits in vain: else the thread below would be waited for as well.
        let _done = Done(&done);
        // The buffer of a socket may overflow, as it may anywhere: phones say again what is not answered (timer A).
        let lasts = [alice.wire.last(), bob.wire.last()];
        let (sent, done, pace) = (&sent, &done, &pace);
        scope.spawn(move || {
            while sent.load(Ordering::Relaxed) < wanted || !done.load(Ordering::Relaxed) {
                drop(pace.1.wait_timeout(pace.0.lock().unwrap(), wire::REPEAT).unwrap());
                lasts.iter().for_each(wire::Last::repeat);
            }
        });
        for call in 0..CALLS {
            while sent.load(Ordering::Relaxed) < wanted / CALLS * call {
                drop(pace.1.wait_timeout(pace.0.lock().unwrap(), BURST_PERIOD).unwrap());
            }
            whole_call(&mut alice, &bob, &format!("beside-{call}"));
        }
    });
    assert_eq!((rig.node.calls(), rig.node.drain(WAIT_MAX)), (0, 0));
    rig.node.shutdown();
    rig.journal.close();
    let facts = facts(rig.data.path());
    let calls = usize::try_from(CALLS).ok();
    assert_eq!(Some(facts.iter().filter(|fact| matches!(fact, Fact::Answered(_))).count()), calls, "seed {SEED:#x}");
    assert_eq!(Some(facts.iter().filter(|fact| matches!(fact, Fact::Ended(_))).count()), calls, "seed {SEED:#x}");
}
