//! The races of an answer: what may happen between the callee's 200 and the caller's.

use model::cause::ReleaseCause;
use model::event::fact::{AnswerAborted, Fact};

use super::{ALICE, BOB, Behaviour, Disk, Sim};

fn aborted(sim: &Sim) -> AnswerAborted {
    match sim.facts().last() {
        Some(Fact::AnswerAborted(aborted)) => aborted.clone(),
        other => panic!("the last fact is {other:?}"),
    }
}

/// Rings Bob, who answers after a second, with this disk; returns 1.1 s later: Bob has answered, the disk has not.
fn answering(disk: Disk) -> (Sim, usize) {
    let mut sim = Sim::new(2, 9);
    sim.register();
    sim.disk = disk;
    let call = sim.call(ALICE, "101");
    sim.run(1_100);
    assert!(sim.phones[BOB].got[0].answered);
    assert_eq!((sim.status(ALICE, call), sim.kinds()), (None, vec!["answered"]));
    assert!(!sim.phones[BOB].got[0].acknowledged, "nobody hears of the answer before the journal has it");
    (sim, call)
}

#[test]
fn the_caller_hears_the_answer_when_it_is_on_the_disk() {
    let (mut sim, call) = answering(Disk::After(450));
    // Bob repeats its 200 after 500 ms; it is absorbed, then acknowledged.
    sim.run(5_000);
    assert_eq!(sim.status(ALICE, call), Some(200));
    assert!(sim.phones[BOB].got[0].acknowledged);
    sim.phones[ALICE].hang_up(sim.now.mono, call);
    sim.finish();
    let facts = sim.facts();
    let (Some(Fact::Answered(answered)), Some(Fact::Ended(ended))) = (facts.first(), facts.last()) else {
        panic!("{facts:?}")
    };
    assert_eq!(&ended.answered, answered);
    assert!(ended.duration_ms >= 5_000, "the answer counts from the callee's 200");
}

#[test]
fn a_cancel_before_the_commit() {
    let (mut sim, call) = answering(Disk::After(400));
    sim.phones[ALICE].cancel(sim.now.mono, call);
    sim.finish();
    assert_eq!(sim.status(ALICE, call), Some(487));
    assert_eq!((aborted(&sim).status, aborted(&sim).cause), (487, ReleaseCause::CancelledRinging));
    assert!(sim.phones[BOB].got[0].acknowledged && sim.phones[BOB].got[0].released);
    assert_eq!(sim.kinds(), ["answered", "answer_aborted"], "the late commit changes nothing");
    assert!(aborted(&sim).after_answered);
}

#[test]
fn a_bye_of_the_callee_before_the_commit() {
    let (mut sim, call) = answering(Disk::After(400));
    sim.phones[BOB].hang_up_got(sim.now.mono, 0);
    sim.finish();
    assert_eq!((sim.status(ALICE, call), aborted(&sim).status), (Some(480), 480));
    assert!(sim.phones[BOB].got[0].acknowledged);
}

#[test]
fn the_wait_is_bounded() {
    let (mut sim, call) = answering(Disk::Hangs);
    sim.finish();
    assert_eq!(sim.status(ALICE, call), Some(503));
    assert_eq!((aborted(&sim).status, aborted(&sim).cause), (503, ReleaseCause::AnswerHoldExpired));
    assert!((500..510).contains(&aborted(&sim).duration_ms));
    assert!(sim.phones[BOB].got[0].released);
}

#[test]
fn a_commit_after_the_wait_changes_nothing() {
    let (mut sim, call) = answering(Disk::After(600));
    sim.finish();
    assert_eq!((sim.status(ALICE, call), sim.kinds()), (Some(503), vec!["answered", "answer_aborted"]));
}

#[test]
fn a_journal_that_fails() {
    let mut sim = Sim::new(2, 9);
    sim.register();
    sim.disk = Disk::Fails;
    let call = sim.call(ALICE, "101");
    sim.finish();
    assert_eq!((sim.status(ALICE, call), aborted(&sim).status), (Some(503), 503));
    assert!(sim.phones[BOB].got[0].released);
}

#[test]
fn a_200_that_crosses_the_cancel() {
    let mut sim = Sim::new(2, 9);
    sim.register();
    sim.phones[BOB].behaviour = Behaviour::AnswerOnCancel;
    let call = sim.call(ALICE, "101");
    sim.run(2_000);
    sim.phones[ALICE].cancel(sim.now.mono, call);
    sim.finish();
    assert_eq!(sim.status(ALICE, call), Some(487));
    assert_eq!(sim.kinds(), ["answer_aborted"]);
    assert_eq!((aborted(&sim).status, aborted(&sim).cause), (487, ReleaseCause::CancelledRinging));
    assert!(sim.phones[BOB].got[0].acknowledged && sim.phones[BOB].got[0].released);
}

#[test]
fn the_ring_timeout_crosses_the_answer() {
    let mut sim = Sim::new(2, 9);
    sim.register();
    sim.phones[BOB].behaviour = Behaviour::AnswerOnCancel;
    let call = sim.call(ALICE, "101");
    sim.run(125_000);
    sim.finish();
    assert_eq!((sim.status(ALICE, call), aborted(&sim).status), (Some(480), 480));
}
