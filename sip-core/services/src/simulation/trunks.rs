//! Several trunks: order, failover, and when there is none.

use model::cause::ReleaseCause;
use model::event::fact::{CallSetup, Fact, Party};
use model::id::TrunkId;

use super::{ALICE, BACKUP, Behaviour, CARRIER, Sim};
use crate::ServicesConfig;
use crate::directory::{Account, DirectoryEntry, Trunk};
use crate::testing::World;

fn setup(sim: &Sim) -> CallSetup {
    match sim.facts().last() {
        Some(Fact::Attempted(f)) => f.setup.clone(),
        Some(Fact::Ended(f)) => f.answered.setup.clone(),
        Some(Fact::AnswerAborted(f)) => f.setup.clone(),
        other => panic!("the last fact is {other:?}"),
    }
}

fn carried(setup: &CallSetup) -> TrunkId {
    match &setup.b {
        Some(Party::Trunk(trunk)) => trunk.trunk,
        other => panic!("the callee's side is {other:?}"),
    }
}

/// Calls outside over a carrier that behaves so, with a backup that answers at once; the caller's status, and what was
/// tried in vain.
fn call(carrier: Behaviour, wait_ms: u64) -> (Sim, Option<u16>, Vec<(u16, ReleaseCause)>) {
    let mut sim = Sim::new(4, 17);
    sim.plug_backup();
    sim.register();
    sim.phones[CARRIER].behaviour = carrier;
    sim.phones[BACKUP].behaviour = Behaviour::Answer(100);
    let call = sim.call(ALICE, "00493012345");
    sim.run(wait_ms);
    sim.phones[ALICE].hang_up(sim.now.mono, call);
    sim.finish();
    let status = sim.status(ALICE, call);
    let tried = setup(&sim).tried.unwrap_or_default().iter().map(|tried| (tried.status, tried.cause)).collect();
    (sim, status, tried)
}

#[test]
fn the_next_trunk_carries_what_the_first_cannot() {
    let check = |carrier: Behaviour, wait_ms: u64, failed: (u16, ReleaseCause)| {
        let (sim, status, tried) = call(carrier, wait_ms);
        assert_eq!((status, &tried[..]), (Some(200), &[failed][..]), "{carrier:?}");
        assert_eq!(carried(&setup(&sim)), sim.world.backup_trunk.id);
        assert_eq!((sim.kinds(), sim.phones[BACKUP].got.len()), (vec!["answered", "ended"], 1));
        assert_eq!(sim.cores.iter().map(|core| core.stats().trunk_failovers).sum::<u64>(), 1);
    };
    check(Behaviour::Refuse(503), 2_000, (503, ReleaseCause::NetworkFailure));
    check(Behaviour::Refuse(500), 2_000, (500, ReleaseCause::NetworkFailure));
    check(Behaviour::Refuse(408), 2_000, (408, ReleaseCause::NoResponse));
    check(Behaviour::Refuse(407), 2_000, (407, ReleaseCause::NetworkFailure));
    check(Behaviour::Silent, 6_000, (408, ReleaseCause::NoResponse));
}

#[test]
fn a_decision_of_the_called_side_is_the_answer() {
    let check = |carrier: Behaviour, expected: u16| {
        let (sim, status, tried) = call(carrier, 2_000);
        assert_eq!((status, tried.len(), sim.phones[BACKUP].got.len()), (Some(expected), 0, 0), "{carrier:?}");
        assert_eq!(carried(&setup(&sim)), sim.world.trunk.id);
    };
    for status in [486, 603, 404, 403, 480, 484, 600] {
        check(Behaviour::Refuse(status), status);
    }
    check(Behaviour::Refuse(302), 480);
    // The caller heard this trunk already.
    check(Behaviour::EarlyThenRefuse(500, 503), 503);
}

#[test]
fn ringing_without_a_session_does_not_bind_the_caller() {
    let (_, status, tried) = call(Behaviour::RingThenRefuse(500, 503), 3_000);
    assert_eq!((status, tried), (Some(200), vec![(503, ReleaseCause::NetworkFailure)]));
    let (_, status, tried) = call(Behaviour::RingThenRefuse(500, 408), 3_000);
    assert_eq!((status, tried), (Some(408), vec![]), "it rang and nobody answered");
}

#[test]
fn a_slow_trunk_that_answers_after_all_is_released() {
    // The first response comes when the next trunk rings already.
    let mut sim = Sim::new(4, 17);
    sim.plug_backup();
    sim.register();
    sim.phones[CARRIER].behaviour = Behaviour::AnswerLate(4_500);
    sim.phones[BACKUP].behaviour = Behaviour::Answer(2_000);
    let call = sim.call(ALICE, "00493012345");
    sim.run(9_000);
    assert_eq!(sim.status(ALICE, call), Some(200));
    let late = &sim.phones[CARRIER].got[0];
    assert!(late.acknowledged && late.released, "its answer got an ACK and a BYE");
    assert!(!sim.phones[ALICE].placed[call].released);
    sim.phones[ALICE].hang_up(sim.now.mono, call);
    sim.finish();
    assert_eq!(carried(&setup(&sim)), sim.world.backup_trunk.id);
}

#[test]
fn when_all_have_failed_the_last_one_is_the_answer() {
    let mut sim = Sim::new(4, 17);
    sim.plug_backup();
    sim.register();
    sim.phones[CARRIER].behaviour = Behaviour::Refuse(503);
    sim.phones[BACKUP].behaviour = Behaviour::Refuse(502);
    let call = sim.call(ALICE, "00493012345");
    sim.run(2_000);
    assert_eq!(sim.status(ALICE, call), Some(502));
    sim.finish();
    let setup = setup(&sim);
    assert_eq!((carried(&setup), setup.tried.map(|tried| tried.len())), (sim.world.backup_trunk.id, Some(1)));
}

#[test]
fn a_trunk_alone_has_the_whole_of_timer_b() {
    let mut sim = Sim::new(4, 17);
    let off = Trunk { enabled: false, ..sim.world.backup_trunk.clone() };
    sim.change(vec![DirectoryEntry::Trunk(off)]);
    sim.register();
    sim.phones[CARRIER].behaviour = Behaviour::Silent;
    let call = sim.call(ALICE, "00493012345");
    sim.run(30_000);
    assert_eq!(sim.status(ALICE, call), None);
    sim.run(4_000);
    assert_eq!(sim.status(ALICE, call), Some(408));
    sim.finish();
}

#[test]
fn the_order_is_that_of_the_priorities() {
    let mut sim = Sim::new(4, 17);
    sim.plug_backup();
    sim.register();
    let first = Trunk { priority: 0, ..sim.world.backup_trunk.clone() };
    sim.change(vec![DirectoryEntry::Trunk(first)]);
    sim.phones[BACKUP].behaviour = Behaviour::Answer(10);
    let call = sim.call(ALICE, "00493012345");
    sim.run(1_000);
    assert_eq!((sim.status(ALICE, call), sim.phones[CARRIER].got.len()), (Some(200), 0));
    sim.phones[ALICE].hang_up(sim.now.mono, call);
    sim.finish();
}

#[test]
fn the_next_trunk_may_take_the_place_of_the_first() {
    // One call at the owner of both trunks: the second trunk needs the place that the first one gives back.
    let mut world = World::new();
    world.trunk.account = world.accounts[3].id;
    world.trunk.path = world.accounts[1].path.clone();
    let mut sim = Sim::with(4, 17, ServicesConfig::default(), world);
    sim.plug_backup();
    sim.register();
    let entry = DirectoryEntry::Account(Account { call_limit: Some(1), ..sim.world.accounts[1].clone() });
    sim.change(vec![entry]);
    sim.phones[CARRIER].behaviour = Behaviour::Refuse(503);
    sim.phones[BACKUP].behaviour = Behaviour::Answer(10);
    let call = sim.call(ALICE, "00493012345");
    sim.run(2_000);
    assert_eq!(sim.status(ALICE, call), Some(200));
    sim.phones[ALICE].hang_up(sim.now.mono, call);
    sim.finish();
}

#[test]
fn a_caller_that_gives_up_stops_the_hunt() {
    let mut sim = Sim::new(4, 17);
    sim.plug_backup();
    sim.register();
    sim.phones[CARRIER].behaviour = Behaviour::Silent;
    let call = sim.call(ALICE, "00493012345");
    sim.run(1_000);
    sim.phones[ALICE].cancel(sim.now.mono, call);
    sim.run(10_000);
    assert_eq!((sim.status(ALICE, call), sim.phones[BACKUP].got.len()), (Some(487), 0));
    sim.finish();
    assert_eq!(sim.kinds(), ["attempted"]);
}
