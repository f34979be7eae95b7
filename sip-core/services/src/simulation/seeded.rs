//! The races of an answer and storms of retransmissions, by seed: four shards, a network that loses, doubles and
//! reorders.

use std::collections::{BTreeMap, BTreeSet};

use model::event::fact::Fact;
use testkit::soak;

use super::{ALICE, BOB, Behaviour, Disk, Network, Sim};

/// Calls of one seed.
const CALLS: usize = 12;
/// How often a phone whose BYE was lost says it again before an operator ends the call.
const GOODBYES: usize = 6;

/// What happens around the callee's 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Race {
    /// CANCEL leaves while the 200 does.
    CancelAgainst200,
    /// The callee answers although, and after, it has heard the CANCEL.
    Late200,
    /// The callee hangs up before the journal has its answer.
    ByeBeforeCommit,
    /// The journal takes so long that the callee repeats its 200.
    Repeated200,
}

const RACES: [Race; 4] = [Race::CancelAgainst200, Race::Late200, Race::ByeBeforeCommit, Race::Repeated200];

/// Ends all calls that are up, however bad the network is.
fn clear(sim: &mut Sim) {
    for _ in 0..GOODBYES {
        for call in 0..sim.phones[ALICE].placed.len() {
            if !sim.phones[ALICE].placed[call].released {
                sim.phones[ALICE].hang_up(sim.now.mono, call);
            }
        }
        sim.run(7_000);
    }
    for fact in sim.facts() {
        if let Fact::Answered(answered) = fact {
            let now = sim.now;
            sim.cores.iter_mut().for_each(|core| core.handle(now, crate::Input::Hangup { call: answered.setup.call }));
        }
    }
    sim.finish();
}

/// Call-IDs of the caller whose facts say so; each at most once.
fn told(sim: &Sim, kind: &str) -> BTreeSet<String> {
    let ids = sim.facts().into_iter().filter(|fact| fact.kind() == kind).filter_map(|fact| match fact {
        Fact::Answered(fact) => Some(fact.setup.a_sip_call_id),
        Fact::Ended(fact) => Some(fact.answered.setup.a_sip_call_id),
        Fact::AnswerAborted(fact) => Some(fact.setup.a_sip_call_id),
        _ => None,
    });
    ids.collect()
}

/// Races of one seed; kinds of facts that they left.
fn races(seed: u64) -> BTreeMap<(Race, &'static str), u32> {
    let mut sim = Sim::new(4, seed);
    sim.register();
    sim.network = Network::BAD;
    let mut run = Vec::new();
    for _ in 0..CALLS {
        let race = RACES[usize::try_from(sim.random(4)).unwrap()];
        let answers_ms = 300 + sim.random(400);
        // Around the answer, so that each may come first.
        let acts_ms = answers_ms - 150 + sim.random(400);
        sim.disk = match (race, sim.random(8)) {
            (_, 0) => Disk::Fails,
            (_, 1) => Disk::Hangs,
            (Race::Repeated200, _) => Disk::After(400 + sim.random(200)),
            _ => Disk::After(1 + sim.random(300)),
        };
        sim.phones[BOB].behaviour =
            if race == Race::Late200 { Behaviour::AnswerLate(answers_ms) } else { Behaviour::Answer(answers_ms) };
        let call = sim.call(ALICE, "101");
        sim.run(acts_ms);
        let now = sim.now.mono;
        match race {
            Race::CancelAgainst200 | Race::Late200 => sim.phones[ALICE].cancel(now, call),
            Race::ByeBeforeCommit => {
                let got = sim.phones[BOB].got.len();
                if got > 0 && sim.phones[BOB].got[got - 1].answered {
                    sim.phones[BOB].hang_up_got(now, got - 1);
                }
            }
            Race::Repeated200 => {}
        }
        let rest = sim.random(2_000);
        sim.run(rest);
        run.push(race);
    }
    clear(&mut sim);
    let (answered, ended, aborted) = (told(&sim, "answered"), told(&sim, "ended"), told(&sim, "answer_aborted"));
    let mut counts = BTreeMap::new();
    for (placed, race) in sim.phones[ALICE].placed.iter().zip(run) {
        let id = String::from_utf8_lossy(placed.invite.call_id()).into_owned();
        // What a caller heard is a subset of what is billed.
        let heard = placed.status == Some(200);
        assert!(!heard || (answered.contains(&id) && ended.contains(&id) && !aborted.contains(&id)), "{id}");
        for (kind, ids) in [("answered", &answered), ("ended", &ended), ("answer_aborted", &aborted)] {
            *counts.entry((race, kind)).or_insert(0) += u32::from(ids.contains(&id));
        }
    }
    // Whoever answered is not left with a 200 that nobody acknowledges.
    for got in sim.phones[BOB].got.iter().filter(|got| got.answered) {
        assert!(got.acknowledged || got.released, "{:?}", got.invite.call_id());
    }
    counts
}

#[test]
fn the_races_of_an_answer_have_one_winner_whatever_the_network_does() {
    let mut counts = BTreeMap::new();
    for seed in soak::sweep("races of an answer", races).into_values() {
        for (key, count) in seed {
            *counts.entry(key).or_insert(0) += count;
        }
    }
    println!("{counts:?}");
    // Races are worth something only if each of them is lost and won.
    for race in RACES {
        for kind in ["answered", "ended", "answer_aborted"] {
            assert!(counts.get(&(race, kind)).is_some_and(|count| *count >= 20), "{race:?} {kind}: {counts:?}");
        }
    }
}

/// Each datagram comes up to eight times, over a third of a second; a fifth is lost.
const STORM: Network = Network { delay_ms: (1, 350), lost: 200, repeated: 600, copies: 8 };

/// Calls in a storm; datagrams that the cores got and sent.
fn storm(seed: u64) -> (u64, u64) {
    let mut sim = Sim::new(4, seed);
    sim.register();
    sim.network = STORM;
    for _ in 0..CALLS {
        sim.phones[BOB].behaviour = match sim.random(4) {
            0 => Behaviour::Refuse(486),
            1 => Behaviour::Ring,
            _ => Behaviour::Answer(sim.random(500)),
        };
        sim.disk = if sim.random(6) == 0 { Disk::Hangs } else { Disk::After(1 + sim.random(450)) };
        let call = sim.call(ALICE, "101");
        let pause = sim.random(3_000);
        sim.run(pause);
        if sim.random(3) == 0 {
            sim.phones[ALICE].cancel(sim.now.mono, call);
        }
    }
    clear(&mut sim);
    // However often an INVITE came: each call rang once, and left one trace.
    let rung: BTreeSet<_> = sim.phones[BOB].got.iter().map(|got| got.invite.call_id().to_vec()).collect();
    assert_eq!(rung.len(), sim.phones[BOB].got.len(), "a call has rung twice");
    let admitted: u64 = sim.cores.iter().map(|core| core.stats().calls_admitted).sum();
    assert!(admitted <= u64::try_from(CALLS).unwrap(), "{admitted} calls were made of {CALLS}");
    sim.traffic
}

#[test]
fn a_storm_of_retransmissions_makes_no_call_and_is_not_amplified() {
    let traffic = soak::sweep("storms of retransmissions", storm);
    let got: u64 = traffic.values().map(|(got, _)| got).sum();
    let sent: u64 = traffic.values().map(|(_, sent)| sent).sum();
    println!("{got} datagrams got, {sent} sent");
    assert!(sent < got, "a storm is answered with less than itself: {got} got, {sent} sent");
}
