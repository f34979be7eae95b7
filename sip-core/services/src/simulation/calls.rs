//! Calls from end to end.

use std::collections::BTreeMap;
use std::time::Duration;

use media_engine::Side;
use model::cause::ReleaseCause;
use model::event::fact::{Fact, Party, ReleasedBy};
use sip_message::Method;
use testkit::soak;

use super::{ALICE, BACKUP, BOB, Behaviour, CARRIER, Disk, Leg, MALLORY, Network, OFFER, OnChange, Sim, session};
use crate::directory::{Account, DirectoryEntry, Subscriber, Trunk};
use crate::testing::World;
use crate::{Input, ServicesConfig};

fn ended(sim: &Sim) -> model::event::fact::Ended {
    match sim.facts().last() {
        Some(Fact::Ended(ended)) => ended.clone(),
        other => panic!("the last fact is {other:?}"),
    }
}

fn attempt(sim: &Sim) -> (u16, ReleaseCause) {
    match sim.facts().last() {
        Some(Fact::Attempted(attempt)) => (attempt.status, attempt.cause),
        other => panic!("the last fact is {other:?}"),
    }
}

#[test]
fn a_call_on_net_is_answered_and_ended() {
    let mut sim = Sim::new(4, 1);
    sim.register();
    let call = sim.call(ALICE, "101");
    sim.run(11_000);
    assert_eq!((sim.status(ALICE, call), &sim.phones[ALICE].placed[call].progress[..]), (Some(200), &[180][..]));
    // Media is anchored: each side was told the relay's address for it.
    let offer = String::from_utf8_lossy(sim.phones[BOB].got[0].invite.body()).into_owned();
    let answer = String::from_utf8_lossy(&sim.phones[ALICE].placed[call].body).into_owned();
    assert!(offer.contains("m=audio 16386 ") && offer.contains("c=IN IP4 10.0.0.1"), "{offer}");
    assert!(answer.contains("m=audio 16384 "), "{answer}");
    assert!(sim.phones[BOB].got[0].acknowledged);
    assert!(
        sim.phones[BOB].got[0].invite.lists(sip_message::HeaderName::Allow, b"UPDATE"),
        "what is answered is allowed"
    );
    assert_eq!(sim.remotes().iter().map(|(side, _)| *side).collect::<Vec<_>>(), [Side::Caller, Side::Callee]);
    sim.phones[ALICE].hang_up(sim.now.mono, call);
    sim.run(1_000);
    assert!(sim.phones[BOB].got[0].released);
    let ended = ended(&sim);
    assert!((9_990..10_010).contains(&ended.duration_ms), "{}", ended.duration_ms);
    assert_eq!((ended.cause, ended.released_by), (ReleaseCause::NormalClearing, ReleasedBy::Caller));
    assert_eq!(ended.a_media.map(|m| m.packets_received), Some(10));
    let setup = &ended.answered.setup;
    assert!(matches!((&setup.a, &setup.b), (Party::Subscriber(a), Some(Party::Subscriber(b)))
        if a.extension.as_deref() == Some("100") && b.extension.as_deref() == Some("101")));
    assert_eq!((setup.dialled.as_str(), setup.called, setup.calling), ("101", None, Some(sim.world.alice_number)));
    assert!(setup.b_sip_call_id.as_deref().is_some_and(|id| id.starts_with("td")));
    assert!(ended.answered.pdd_ms > 0 && sim.heartbeats() >= 9);
    sim.finish();
    assert_eq!(sim.kinds(), ["answered", "ended"]);
}

#[test]
fn refusals_reach_the_caller_with_their_cause() {
    let check = |behaviour: Behaviour, to: &str, expected: (u16, ReleaseCause)| {
        let mut sim = Sim::new(2, 7);
        sim.register();
        sim.phones[BOB].behaviour = behaviour;
        let call = sim.call(ALICE, to);
        sim.run(130_000);
        assert_eq!(sim.status(ALICE, call), Some(expected.0), "{behaviour:?}");
        sim.finish();
        assert_eq!((sim.kinds().len(), attempt(&sim)), (1, expected), "{behaviour:?}");
    };
    check(Behaviour::Refuse(486), "101", (486, ReleaseCause::UserBusy));
    check(Behaviour::Refuse(603), "101", (603, ReleaseCause::Rejected));
    check(Behaviour::Refuse(302), "101", (480, ReleaseCause::Rejected));
    check(Behaviour::Refuse(401), "101", (503, ReleaseCause::NetworkFailure));
    check(Behaviour::Refuse(488), "101", (488, ReleaseCause::Incompatible));
    check(Behaviour::Ring, "101", (480, ReleaseCause::NoAnswer));
    check(Behaviour::Silent, "101", (408, ReleaseCause::NoResponse));
    check(Behaviour::Ring, "999", (404, ReleaseCause::UnallocatedNumber));
}

#[test]
fn nobody_home_wrong_password_and_hops() {
    let mut sim = Sim::new(2, 1);
    let call = sim.call(ALICE, "101");
    sim.run(1_000);
    assert_eq!((sim.status(ALICE, call), attempt(&sim)), (Some(480), (480, ReleaseCause::SubscriberAbsent)));
    // A wrong password leaves no fact: it is only counted.
    let call = sim.call(MALLORY, "101");
    sim.run(1_000);
    assert_eq!((sim.status(MALLORY, call), sim.kinds().len()), (Some(403), 1));
    assert!(sim.cores.iter().map(|core| core.stats().invites_unauthenticated).sum::<u64>() >= 2);
    sim.finish();
}

#[test]
fn a_caller_may_give_up() {
    let mut sim = Sim::new(2, 1);
    sim.register();
    sim.phones[BOB].behaviour = Behaviour::Ring;
    let call = sim.call(ALICE, "101");
    sim.run(3_000);
    sim.phones[ALICE].cancel(sim.now.mono, call);
    sim.run(1_000);
    assert_eq!(sim.status(ALICE, call), Some(487));
    assert!(sim.phones[BOB].got[0].cancelled);
    sim.finish();
    assert_eq!(attempt(&sim), (487, ReleaseCause::CancelledRinging));
    assert_eq!(sim.kinds(), ["attempted"]);
}

#[test]
fn over_the_trunk_and_back() {
    let mut sim = Sim::new(3, 1);
    sim.register();
    sim.phones[CARRIER].behaviour = Behaviour::Challenge(500);
    let call = sim.call(ALICE, "00493012345");
    sim.run(3_000);
    assert_eq!(sim.status(ALICE, call), Some(200));
    let invite = &sim.phones[CARRIER].got[0].invite;
    assert!(invite.request_uri().starts_with(b"sip:+493012345@10.0.9.1"));
    assert_eq!(invite.from().unwrap().uri.user_text().as_deref(), Some("+43720000100"));
    assert_eq!(invite.cseq().unwrap().0, 2, "the challenge was answered");
    assert!(sim.phones[CARRIER].got[0].acknowledged, "the ACK has the credentials of the INVITE");
    sim.phones[CARRIER].hang_up_got(sim.now.mono, 0);
    sim.run(1_000);
    assert!(sim.phones[ALICE].placed[call].released);
    assert_eq!(ended(&sim).released_by, ReleasedBy::Callee);
    // In: known by address, no password asked.
    let call = sim.call(CARRIER, "+43720000101");
    sim.run(3_000);
    assert_eq!(sim.status(CARRIER, call), Some(200));
    sim.phones[CARRIER].hang_up(sim.now.mono, call);
    sim.run(1_000);
    let last = ended(&sim);
    assert!(matches!(last.answered.setup.a, Party::Trunk(_)));
    assert_eq!(last.answered.setup.called, Some(sim.world.bob_number));
    // A trunk is no way to another trunk.
    let call = sim.call(CARRIER, "+493099999");
    sim.run(1_000);
    assert_eq!(sim.status(CARRIER, call), Some(404));
    sim.finish();
}

#[test]
fn an_invite_by_two_paths_is_one_call() {
    let mut sim = Sim::new(2, 1);
    sim.register();
    let source = sim.world.trunk.address;
    let invite = |branch: &str, tag: &str, cseq: u32| {
        format!(
            "INVITE sip:+43720000101@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {source};branch=z9hG4bK{branch}\r\n\
             From: <sip:+491@10.0.9.1>;tag={tag}\r\nTo: <sip:+43720000101@10.0.0.1>\r\nCall-ID: {}\r\n\
             CSeq: {cseq} INVITE\r\nContact: <sip:{source}>\r\nContent-Type: application/sdp\r\n\r\n{OFFER}",
            "c".repeat(300)
        )
    };
    for (branch, tag, cseq, calls) in
        [("one", "t", 1, 1), ("two", "t", 1, 1), ("one", "t", 1, 1), ("three", "u", 1, 2), ("four", "t", 2, 3)]
    {
        sim.deliver(invite(branch, tag, cseq).into(), source);
        sim.run(100);
        assert_eq!(sim.phones[BOB].got.len(), calls, "{branch}");
    }
    assert_eq!(sim.shared.calls.current(), 3);
    sim.finish();
    let Some(Fact::Ended(ended)) = sim.facts().pop() else { panic!("no end") };
    assert_eq!(ended.answered.setup.a_sip_call_id.len(), 256);
}

#[test]
fn a_trunk_is_released_whatever_it_answered() {
    let mut sim = Sim::new(2, 1);
    sim.phones[CARRIER].behaviour = Behaviour::Challenge(500);
    let call = sim.call(ALICE, "00493012345");
    sim.run(3_000);
    sim.phones[ALICE].hang_up(sim.now.mono, call);
    sim.run(1_000);
    assert!(sim.phones[CARRIER].got[0].released);
    // A 200 without a session that could be relayed.
    sim.phones[CARRIER].answer_body = "v=0\r\n";
    let call = sim.call(ALICE, "00493012345");
    sim.run(3_000);
    assert_eq!(sim.status(ALICE, call), Some(503));
    assert!(sim.phones[CARRIER].got[1].acknowledged && sim.phones[CARRIER].got[1].released);
    sim.finish();
    assert_eq!(sim.kinds(), ["answered", "ended", "answer_aborted"]);
}

#[test]
fn a_trunk_that_is_down_is_passed_over() {
    let mut world = World::new();
    world.trunk.keepalive_ms = 5_000;
    world.backup_trunk.keepalive_ms = 5_000;
    let mut sim = Sim::with(2, 1, ServicesConfig::default(), world);
    sim.register();
    sim.phones[CARRIER].alive = false;
    sim.run(15_000);
    let call = sim.call(ALICE, "00493012345");
    sim.run(1_000);
    assert_eq!((sim.status(ALICE, call), attempt(&sim)), (Some(503), (503, ReleaseCause::NoRoute)));
    sim.phones[CARRIER].alive = true;
    sim.run(6_000);
    let call = sim.call(ALICE, "00493012345");
    sim.run(2_000);
    assert_eq!(sim.status(ALICE, call), Some(200));
    sim.phones[ALICE].hang_up(sim.now.mono, call);
    sim.finish();
}

#[test]
fn limits_hold_on_every_level_and_come_back() {
    let check = |change: &dyn Fn(&World) -> DirectoryEntry, to: &str, expected: u16| {
        let mut sim = Sim::new(2, 3);
        let entry = change(&sim.world);
        sim.change(vec![entry]);
        sim.register();
        let first = sim.call(ALICE, to);
        sim.run(3_000);
        assert_eq!(sim.status(ALICE, first), Some(200));
        let second = sim.call(ALICE, to);
        sim.run(1_000);
        assert_eq!(sim.status(ALICE, second), Some(expected));
        sim.phones[ALICE].hang_up(sim.now.mono, first);
        sim.run(1_000);
        let third = sim.call(ALICE, to);
        sim.run(3_000);
        assert_eq!(sim.status(ALICE, third), Some(200), "the place came back");
        sim.phones[ALICE].hang_up(sim.now.mono, third);
        sim.finish();
    };
    let account =
        |n: usize| move |w: &World| DirectoryEntry::Account(Account { call_limit: Some(1), ..w.accounts[n].clone() });
    check(&account(0), "101", 503);
    check(&account(1), "101", 503);
    check(&account(2), "101", 503);
    check(&|w| DirectoryEntry::Subscriber(Subscriber { call_limit: Some(1), ..w.alice.clone() }), "101", 503);
    check(&|w| DirectoryEntry::Subscriber(Subscriber { call_limit: Some(1), ..w.bob.clone() }), "101", 486);
}

#[test]
fn a_full_trunk_and_a_disabled_one_carry_nothing() {
    let mut sim = Sim::new(2, 3);
    let full = Trunk { call_limit: Some(0), ..sim.world.trunk.clone() };
    let off = Trunk { enabled: false, ..sim.world.backup_trunk.clone() };
    sim.change(vec![DirectoryEntry::Trunk(full), DirectoryEntry::Trunk(off)]);
    let call = sim.call(ALICE, "00493012345");
    sim.run(1_000);
    assert_eq!((sim.status(ALICE, call), attempt(&sim)), (Some(503), (503, ReleaseCause::LimitReached)));
    sim.finish();
}

#[test]
fn a_journal_without_room_and_a_drain_shed_new_calls_only() {
    let mut sim = Sim::new(2, 3);
    sim.register();
    let call = sim.call(ALICE, "101");
    sim.run(3_000);
    sim.limit_places(1);
    let shed = sim.call(ALICE, "101");
    sim.run(1_000);
    assert_eq!(sim.status(ALICE, shed), Some(503));
    sim.limit_places(100);
    let now = sim.now;
    sim.cores.iter_mut().for_each(|core| core.handle(now, Input::Drain));
    let drained = sim.call(ALICE, "101");
    sim.run(1_000);
    assert_eq!(sim.status(ALICE, drained), Some(503));
    sim.phones[ALICE].hang_up(sim.now.mono, call);
    sim.run(1_000);
    assert_eq!(ended(&sim).cause, ReleaseCause::NormalClearing);
    sim.finish();
}

#[test]
fn disabled_subscribers_and_accounts_cannot_call() {
    let mut sim = Sim::new(2, 3);
    sim.register();
    let reseller = Account { enabled: false, ..sim.world.accounts[1].clone() };
    sim.change(vec![DirectoryEntry::Account(reseller)]);
    let call = sim.call(ALICE, "101");
    sim.run(1_000);
    assert_eq!((sim.status(ALICE, call), attempt(&sim)), (Some(403), (403, ReleaseCause::Forbidden)));
    sim.finish();
}

#[test]
fn a_delayed_offer_is_answered_in_the_ack() {
    let mut sim = Sim::new(2, 3);
    sim.register();
    let now = sim.now.mono;
    let call = sim.phones[ALICE].call(now, "101", "");
    sim.run(3_000);
    assert_eq!(sim.status(ALICE, call), Some(200));
    assert!(sim.phones[BOB].got[0].invite.body().is_empty());
    let ack = String::from_utf8_lossy(&sim.phones[BOB].got[0].ack_body).into_owned();
    assert!(ack.contains("m=audio 16386 "), "{ack}");
    sim.phones[ALICE].hang_up(sim.now.mono, call);
    sim.finish();
    assert_eq!(sim.kinds(), ["answered", "ended"]);
}

#[test]
fn no_ack_silent_media_and_the_longest_call_end_a_call() {
    let end = |config: ServicesConfig, prepare: &dyn Fn(&mut Sim, usize), ms: u64| {
        let mut sim = Sim::with(2, 5, config, World::new());
        sim.register();
        let call = sim.call(ALICE, "101");
        prepare(&mut sim, call);
        sim.run(ms);
        sim.finish();
        assert_eq!(sim.kinds().last(), Some(&"ended"));
        (ended(&sim).cause, ended(&sim).duration_ms / 1_000)
    };
    let config = ServicesConfig::default();
    let lost = end(config.clone(), &|sim, call| sim.phones[ALICE].placed[call].mute_ack = true, 60_000);
    assert_eq!(lost, (ReleaseCause::PeerLost, 32));
    let short = ServicesConfig { media_timeout_ms: 20_000, ..config.clone() };
    assert_eq!(end(short, &|sim, _| sim.set_silent_media(), 60_000), (ReleaseCause::MediaTimeout, 20));
    let short = ServicesConfig { call_duration_max_ms: 1_000_000, ..config };
    assert_eq!(end(short, &|_, _| {}, 1_100_000), (ReleaseCause::DurationLimit, 1_000));
}

#[test]
fn a_long_call_leaves_interim_facts_and_can_be_hung_up_by_an_operator() {
    let mut sim = Sim::new(2, 5);
    sim.register();
    sim.call(ALICE, "101");
    sim.run(1_900_000);
    assert_eq!(sim.kinds(), ["answered", "interim", "interim"]);
    let Some(Fact::Answered(answered)) = sim.facts().first().cloned() else { panic!("answered first") };
    let now = sim.now;
    sim.cores.iter_mut().for_each(|core| core.handle(now, Input::Hangup { call: answered.setup.call }));
    sim.finish();
    assert_eq!(ended(&sim).cause, ReleaseCause::AdministrativeClearing);
}

/// What a storm has seen: kinds of facts, statuses of changes, and how often another trunk was tried.
struct Storm {
    kinds: Vec<&'static str>,
    changes: Vec<u16>,
    failovers: u64,
}

/// The property over a bad network: whatever is lost, doubled, reordered, cancelled or refused, each admitted call has
/// one end, and all that it held comes back. [`Sim::finish`] checks it.
fn storm(seed: u64) -> Storm {
    let mut sim = Sim::new(4, seed);
    sim.plug_backup();
    sim.register();
    sim.network = Network::BAD;
    let behaviours = [
        Behaviour::Answer(50),
        Behaviour::Answer(900),
        Behaviour::Ring,
        Behaviour::Refuse(486),
        Behaviour::Silent,
        Behaviour::AnswerOnCancel,
        Behaviour::Challenge(10),
        Behaviour::Refuse(503),
        Behaviour::RingThenRefuse(300, 500),
        Behaviour::EarlyThenRefuse(300, 503),
    ];
    let changes = [OnChange::Accept, OnChange::Accept, OnChange::Refuse(488), OnChange::Wait, OnChange::Refuse(481)];
    let sessions = [session(5_000, ""), session(5_002, "sendonly"), session(5_004, "0.0.0.0"), String::new()];
    let disks = [Disk::After(2), Disk::After(2), Disk::After(600), Disk::Fails, Disk::Hangs];
    let mut live: Vec<usize> = Vec::new();
    for _ in 0..24 {
        let pick = usize::try_from(sim.random(10)).unwrap();
        sim.phones[BOB].behaviour = behaviours[pick];
        sim.phones[CARRIER].behaviour = behaviours[pick];
        let pick = usize::try_from(sim.random(10)).unwrap();
        sim.phones[BACKUP].behaviour = behaviours[pick];
        for phone in [ALICE, BOB, CARRIER, BACKUP] {
            let pick = usize::try_from(sim.random(5)).unwrap();
            sim.phones[phone].on_change = changes[pick];
        }
        let disk = usize::try_from(sim.random(5)).unwrap();
        sim.disk = disks[disk];
        let to = ["101", "00493012345", "bob"][usize::try_from(sim.random(3)).unwrap()];
        let offer = if sim.random(4) == 0 { "" } else { OFFER };
        let now = sim.now.mono;
        live.push(sim.phones[ALICE].call(now, to, offer));
        let pause = sim.random(1_200);
        sim.run(pause);
        let at = usize::try_from(sim.random(u64::try_from(live.len()).unwrap())).unwrap();
        let (call, now) = (live[at], sim.now.mono);
        let pick = usize::try_from(sim.random(4)).unwrap();
        let wanted = &sessions[pick];
        // Both sides at once: now and then that is glare.
        for phone in [ALICE, BOB, CARRIER, BACKUP] {
            let leg = match sim.phones[phone].got.len() {
                0 => Leg::Placed(call),
                got => Leg::Got(got - 1),
            };
            match sim.random(6) {
                0..=2 => {
                    sim.phones[phone].change(now, leg, Method::Invite, wanted, OFFER);
                }
                3 => {
                    sim.phones[phone].change(now, leg, Method::Update, wanted, "");
                }
                _ => {}
            }
        }
        match sim.random(6) {
            0 => sim.phones[ALICE].cancel(now, call),
            1 => sim.phones[ALICE].hang_up(now, call),
            2 => {
                let got = sim.phones[BOB].got.len();
                if got > 0 {
                    sim.phones[BOB].hang_up_got(now, got - 1);
                }
            }
            _ => {}
        }
    }
    let ends = sim.now.mono + Duration::from_secs(60);
    for phone in [ALICE] {
        for call in 0..sim.phones[phone].placed.len() {
            sim.phones[phone].hang_up(sim.now.mono, call);
        }
    }
    while sim.now.mono < ends {
        sim.run(5_000);
        for call in 0..sim.phones[ALICE].placed.len() {
            if !sim.phones[ALICE].placed[call].released {
                sim.phones[ALICE].hang_up(sim.now.mono, call);
            }
        }
    }
    // What nobody hung up in this noise ends by an operator.
    for fact in sim.facts() {
        if let Fact::Answered(answered) = fact {
            let now = sim.now;
            sim.cores.iter_mut().for_each(|core| core.handle(now, Input::Hangup { call: answered.setup.call }));
        }
    }
    sim.finish();
    let changes = sim.phones.iter().flat_map(|phone| &phone.changes).flat_map(|change| change.statuses.clone());
    Storm {
        kinds: sim.kinds(),
        changes: changes.collect(),
        failovers: sim.cores.iter().map(|core| core.stats().trunk_failovers).sum(),
    }
}

#[test]
fn every_call_has_one_end_whatever_the_network_does() {
    let storms = soak::sweep("calls over a bad network", storm);
    let (mut counts, mut changes, mut failovers) = (BTreeMap::new(), BTreeMap::new(), 0);
    for storm in storms.into_values() {
        for kind in storm.kinds {
            *counts.entry(kind).or_insert(0) += 1;
        }
        for status in storm.changes {
            *changes.entry(status).or_insert(0) += 1;
        }
        failovers += storm.failovers;
    }
    println!("{counts:?} {changes:?} {failovers} failovers");
    // The storm is worth something only if every end is common in it.
    for kind in ["attempted", "answered", "ended", "answer_aborted"] {
        assert!(counts.get(kind).is_some_and(|n| *n > 100), "{counts:?}");
    }
    for status in [200, 488, 491, 481, 487] {
        assert!(changes.get(&status).is_some_and(|n| *n > 50), "{changes:?}");
    }
    assert!(failovers > 100, "{failovers}");
}

#[test]
fn a_panic_ends_the_call_in_hand_and_no_other() {
    let mut sim = Sim::new(1, 5);
    sim.register();
    let first = sim.call(ALICE, "101");
    sim.run(3_000);
    let second = sim.call(ALICE, "101");
    sim.run(1_500);
    assert_eq!((sim.status(ALICE, first), sim.status(ALICE, second)), (Some(200), Some(200)));
    sim.panic_once();
    sim.run(10_000);
    assert!(sim.phones[ALICE].placed[first].released && !sim.phones[ALICE].placed[second].released);
    assert_eq!((ended(&sim).cause, sim.cores[0].stats().panics), (ReleaseCause::SystemFailure, 1));
    sim.phones[ALICE].hang_up(sim.now.mono, second);
    sim.finish();
}
