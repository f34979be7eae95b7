//! Requests by mutation through the real gate to the real agent: a manager is answered all the while, and never with
//! more than it may see.

use std::time::Duration;

use testkit::{Mutator, soak};

use super::tests::{config, serve};
use super::*;

const SEED: u64 = 0x161;
const ROUNDS: u64 = 900;
/// After so many a manager asks: fewer than are answered at once, for what is not answered holds its place a while.
const BATCH: u64 = 30;
/// How often the manager asks before it is a failure, and how long it waits each time.
const ASKS_MAX: usize = 100;
const ASK_WAIT: Duration = Duration::from_millis(300);

fn element(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let length = u8::try_from(content.len()).ok().filter(|length| *length < 128).expect("a short element");
    [&[tag, length], &content[..]].concat()
}

/// A request of v2c with one identifier (RFC 3416, section 3).
fn request(pdu: u8, community: &[u8], numbers: [u8; 3], oid: &[u8]) -> Vec<u8> {
    let varbind = element(0x30, &[&element(6, &[oid]), &[5, 0]]);
    let numbers = numbers.map(|number| element(2, &[&[number]])).concat();
    let pdu = element(pdu, &[&numbers, &element(0x30, &[&varbind])]);
    element(0x30, &[&[2, 1, 1], &element(4, &[community]), &pdu])
}

/// A manager looks for the engine (RFC 3414, section 4).
fn discovery() -> Vec<u8> {
    let header = element(0x30, &[&[2, 4, 1, 2, 3, 4], &[2, 3, 0, 0xff, 0xe3], &[4, 1, 4], &[2, 1, 3]]);
    let security = element(0x30, &[&[4, 0, 2, 1, 0, 2, 1, 0, 4, 0, 4, 0, 4, 0]]);
    let pdu = element(0xa0, &[&[2, 1, 1, 2, 1, 0, 2, 1, 0, 0x30, 0]]);
    let scoped = element(0x30, &[&[4, 0, 4, 0], &pdu]);
    element(0x30, &[&[2, 1, 3], &header, &element(4, &[&security]), &scoped])
}

/// `sysName.0`.
const NAME: &[u8] = &[0x2b, 6, 1, 2, 1, 1, 5, 0];
/// Where the objects of the documentation's enterprise begin.
const OURS: &[u8] = &[0x2b, 6, 1, 4, 1, 0x81, 0xfd, 0x58];

#[test]
fn mutated_requests_leave_the_agent_as_it_was() {
    const SPICE: &[&[u8]] = &[
        &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        &[0x30, 0x80],
        &[2, 1, 3],
        &[2, 1, 0],
        &[2, 5, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[4, 0],
        &[4, 7, b'm', b'o', b'n', b'i', b't', b'o', b'r'],
        &[5, 0],
        &[6, 0],
        &[6, 6, 0x2b, 0xff, 0xff, 0xff, 0xff, 0x7f],
        &[0xa3],
        &[0xa5],
        &[0xa7],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x2b; 200],
    ];
    let community = b"monitor";
    let good = request(0xa0, community, [1, 0, 0], NAME);
    let corpus = vec![
        good.clone(),
        request(0xa1, community, [2, 0, 0], OURS),
        request(0xa5, community, [3, 0, 50], OURS),
        request(0xa3, community, [4, 0, 0], NAME),
        request(0xa0, b"elsewhere", [5, 0, 0], NAME),
        discovery(),
    ];
    let mutator = Mutator::new(corpus, SPICE).with_changes(1..=2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut fast = config();
    fast.agent.requests_per_second = 10_000;
    let (served, strange, manager) = runtime.block_on(async {
        let served = serve(&fast).await;
        served.observe(&["carrier-a".to_owned()]).await;
        let bind = async || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        (served, bind().await, bind().await)
    });
    let agent = served.agent.local_addr();
    let mut asked = 0;
    let rounds = soak::campaign("SNMP requests", SEED, ROUNDS, |round, random| {
        let datagram = mutator.mutated(random);
        runtime.block_on(async {
            // What is not sent (an empty buffer of ours) is lost, as it may be.
            drop(strange.send_to(&datagram, agent).await);
            if round % BATCH == BATCH - 1 {
                asked += 1;
                assert!(is_answered(&manager, agent, &good).await, "the agent is silent");
            }
        });
    });
    let counts = served.agent.counts();
    let of = |counter: &std::sync::atomic::AtomicU32| u64::from(counter.load(std::sync::atomic::Ordering::Relaxed));
    assert!(asked > 0 && of(&counts.requests) > rounds / 2, "{counts:?}");
    assert!(of(&counts.malformed) > 0 && of(&counts.communities) > 0, "{counts:?}");
    runtime.block_on(served.end());
}

/// Asks until the name comes.
async fn is_answered(manager: &UdpSocket, agent: SocketAddr, question: &[u8]) -> bool {
    let mut answer = [0; 2_048];
    for _ in 0..ASKS_MAX {
        manager.send_to(question, agent).await.expect("loopback takes it");
        let received = tokio::time::timeout(ASK_WAIT, manager.recv(&mut answer)).await;
        if let Ok(Ok(octets)) = received {
            let answer = answer.get(..octets).unwrap_or_default();
            return answer.windows(6).any(|part| part == b"node-a");
        }
    }
    false
}
