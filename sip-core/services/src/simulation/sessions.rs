//! Changes of the session within a call: hold and resume, moves, delayed offers, glare, refusals, what passes through.

use media_engine::Side;
use model::cause::ReleaseCause;
use model::event::fact::{Ended, Fact};
use sip_message::{HeaderName, Method};

use super::{ALICE, BOB, Behaviour, CARRIER, Leg, OnChange, Sim, session};
use crate::ServicesConfig;
use crate::testing::World;

const ALICES: Leg = Leg::Placed(0);
const BOBS: Leg = Leg::Got(0);

/// Alice talks to Bob.
fn talking(config: ServicesConfig) -> Sim {
    let mut sim = Sim::with(4, 11, config, World::new());
    sim.register();
    let call = sim.call(ALICE, "101");
    sim.run(2_000);
    assert_eq!((sim.status(ALICE, call), sim.kinds()), (Some(200), vec!["answered"]));
    sim
}

/// Asks for a change and gives it a second; its final statuses.
fn change(sim: &mut Sim, phone: usize, leg: Leg, offer: &str, late: &str) -> Vec<u16> {
    let now = sim.now.mono;
    let at = sim.phones[phone].change(now, leg, Method::Invite, offer, late).expect("a dialog");
    sim.run(1_000);
    sim.phones[phone].changes[at].statuses.clone()
}

/// Ends the call: it was billed once, from its first answer.
fn ended(mut sim: Sim) -> Ended {
    let facts = sim.facts();
    let Some(Fact::Answered(answered)) = facts.first() else { panic!("{facts:?}") };
    sim.phones[ALICE].hang_up(sim.now.mono, 0);
    sim.run(1_000);
    sim.finish();
    let facts = sim.facts();
    let Some(Fact::Ended(ended)) = facts.last() else { panic!("{facts:?}") };
    assert_eq!(&ended.answered, answered);
    assert_eq!(facts.iter().filter(|fact| matches!(fact, Fact::Answered(_) | Fact::Ended(_))).count(), 2);
    ended.clone()
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

#[test]
fn hold_and_resume_pass_with_the_relays_address() {
    for (holder, leg, held, ports) in [(ALICE, ALICES, BOB, ("16386", "16384")), (BOB, BOBS, ALICE, ("16384", "16386"))]
    {
        for (direction, answered) in [("sendonly", "recvonly"), ("inactive", "inactive"), ("0.0.0.0", "")] {
            let mut sim = talking(ServicesConfig::default());
            assert_eq!(change(&mut sim, holder, leg, &session(5_000, direction), ""), [200]);
            let offer = text(sim.phones[held].asked[0].request.body());
            let answer = text(&sim.phones[holder].changes[0].body);
            assert!(offer.contains(&format!("m=audio {} ", ports.0)), "{offer}");
            assert!(
                answer.contains(&format!("m=audio {} ", ports.1)) && answer.contains("c=IN IP4 10.0.0.1"),
                "{answer}"
            );
            if direction == "0.0.0.0" {
                assert!(offer.contains("c=IN IP4 0.0.0.0"), "{offer}");
            } else {
                assert!(offer.contains(&format!("a={direction}")) && offer.contains("c=IN IP4 10.0.0.1"), "{offer}");
                assert!(answer.contains(&format!("a={answered}")), "{answer}");
            }
            assert!(sim.phones[held].asked[0].acknowledged);
            assert_eq!(change(&mut sim, holder, leg, &session(5_000, ""), ""), [200]);
            assert_eq!(ended(sim).cause, ReleaseCause::NormalClearing);
        }
    }
}

#[test]
fn a_call_on_hold_may_be_silent_and_a_resumed_one_may_not() {
    let config = ServicesConfig { media_timeout_ms: 20_000, ..ServicesConfig::default() };
    let mut sim = talking(config);
    assert_eq!(change(&mut sim, BOB, BOBS, &session(5_000, "sendonly"), ""), [200]);
    sim.set_silent_media();
    sim.run(1_800_000);
    assert_eq!(sim.kinds(), ["answered", "interim", "interim"], "held for half an hour");
    assert_eq!(change(&mut sim, BOB, BOBS, &session(5_000, ""), ""), [200]);
    sim.run(15_000);
    assert_eq!(sim.cores.iter().map(crate::Core::calls_up).sum::<usize>(), 0);
    let Some(Fact::Ended(ended)) = sim.facts().last().cloned() else { panic!("not ended") };
    assert_eq!(ended.cause, ReleaseCause::MediaTimeout);
    sim.finish();
}

#[test]
fn the_relay_follows_a_move_that_is_agreed_and_no_other() {
    let mut sim = talking(ServicesConfig::default());
    let before = sim.remotes().len();
    sim.phones[BOB].on_change = OnChange::Refuse(488);
    assert_eq!(change(&mut sim, ALICE, ALICES, &session(6_000, ""), ""), [488]);
    assert_eq!(sim.remotes().len(), before, "a refused offer moves nothing");
    sim.phones[BOB].on_change = OnChange::Accept;
    assert_eq!(change(&mut sim, ALICE, ALICES, &session(6_002, ""), ""), [200]);
    let moved = sim.remotes().split_off(before);
    let at = |port: u16| std::net::SocketAddr::from(([10, 1, 1, 1], port));
    assert_eq!(moved, [(Side::Caller, at(6_002)), (Side::Callee, at(4_444))]);
    // The codec of the new offer went through.
    assert!(text(sim.phones[BOB].asked[1].request.body()).contains("RTP/AVP 8"));
    ended(sim);
}

#[test]
fn a_delayed_offer_within_a_call_is_answered_in_the_ack() {
    for (asker, leg, offerer, port) in [(ALICE, ALICES, BOB, "16386"), (BOB, BOBS, ALICE, "16384")] {
        let mut sim = talking(ServicesConfig::default());
        let before = sim.remotes().len();
        assert_eq!(change(&mut sim, asker, leg, "", &session(7_000, "")), [200]);
        assert!(sim.phones[offerer].asked[0].request.body().is_empty());
        let ack = text(&sim.phones[offerer].asked[0].ack_body);
        assert!(ack.contains(&format!("m=audio {port} ")), "{ack}");
        assert_eq!(sim.remotes().len(), before + 2);
        ended(sim);
    }
    // Without the answer there is no session.
    let mut sim = talking(ServicesConfig::default());
    assert_eq!(change(&mut sim, ALICE, ALICES, "", ""), [200]);
    assert!(sim.phones[BOB].got[0].released && sim.phones[BOB].asked[0].acknowledged);
    let Some(Fact::Ended(ended)) = sim.facts().last().cloned() else { panic!("not ended") };
    assert_eq!(ended.cause, ReleaseCause::Incompatible);
    sim.finish();
}

#[test]
fn a_delayed_offer_of_the_first_invite_can_be_changed_later() {
    let mut sim = Sim::new(4, 3);
    sim.register();
    let now = sim.now.mono;
    sim.phones[ALICE].call(now, "101", "");
    sim.run(2_000);
    assert!(text(&sim.phones[BOB].got[0].ack_body).contains("m=audio 16386 "));
    assert_eq!(change(&mut sim, BOB, BOBS, &session(5_000, "sendonly"), ""), [200]);
    assert_eq!(change(&mut sim, ALICE, ALICES, &session(5_002, ""), ""), [200]);
    ended(sim);
}

#[test]
fn glare_ends_with_both_changes_made() {
    let mut sim = talking(ServicesConfig::default());
    let now = sim.now.mono;
    sim.phones[ALICE].change(now, ALICES, Method::Invite, &session(5_000, ""), "");
    sim.phones[BOB].change(now, BOBS, Method::Invite, &session(5_100, ""), "");
    sim.run(10_000);
    let statuses = |phone: usize| sim.phones[phone].changes[0].statuses.clone();
    assert!(
        statuses(ALICE).contains(&491) && statuses(BOB).contains(&491),
        "{:?} {:?}",
        statuses(ALICE),
        statuses(BOB)
    );
    assert_eq!((statuses(ALICE).last(), statuses(BOB).last()), (Some(&200), Some(&200)));
    ended(sim);
}

#[test]
fn whoever_interrupts_itself_is_told_to_wait() {
    let mut sim = talking(ServicesConfig::default());
    sim.phones[BOB].on_change = OnChange::Wait;
    assert_eq!(change(&mut sim, ALICE, ALICES, &session(5_000, ""), ""), [0_u16; 0]);
    assert_eq!(change(&mut sim, ALICE, ALICES, &session(5_002, ""), ""), [500]);
    // A CANCEL ends the first; the session goes on.
    sim.phones[ALICE].changes.truncate(1);
    sim.phones[ALICE].cancel_change(sim.now.mono);
    sim.run(1_000);
    assert_eq!(sim.phones[ALICE].changes[0].statuses, [487]);
    sim.phones[BOB].on_change = OnChange::Accept;
    assert_eq!(change(&mut sim, BOB, BOBS, &session(5_004, ""), ""), [200]);
    ended(sim);
}

#[test]
fn a_change_that_nobody_decides_is_cancelled() {
    let config = ServicesConfig { ring_timeout_ms: 30_000, ..ServicesConfig::default() };
    let mut sim = talking(config);
    sim.phones[BOB].on_change = OnChange::Wait;
    change(&mut sim, ALICE, ALICES, &session(5_000, ""), "");
    sim.run(31_000);
    assert_eq!(sim.phones[ALICE].changes[0].statuses, [487]);
    ended(sim);
}

#[test]
fn a_lost_dialog_and_silence_end_the_call() {
    for (behaviour, status) in [(OnChange::Refuse(481), 481), (OnChange::Silent, 408)] {
        let mut sim = talking(ServicesConfig::default());
        sim.phones[BOB].on_change = behaviour;
        change(&mut sim, ALICE, ALICES, &session(5_000, ""), "");
        sim.run(40_000);
        assert_eq!(sim.phones[ALICE].changes[0].statuses, [status]);
        assert!(sim.phones[ALICE].placed[0].released);
        let Some(Fact::Ended(ended)) = sim.facts().last().cloned() else { panic!("not ended") };
        assert_eq!(ended.cause, ReleaseCause::PeerLost);
        sim.finish();
    }
}

#[test]
fn a_hang_up_in_the_middle_of_a_change() {
    for (asker, leg) in [(ALICE, ALICES), (BOB, BOBS)] {
        let mut sim = talking(ServicesConfig::default());
        sim.phones[ALICE].on_change = OnChange::Wait;
        sim.phones[BOB].on_change = OnChange::Wait;
        change(&mut sim, asker, leg, &session(5_000, ""), "");
        sim.phones[BOB].hang_up_got(sim.now.mono, 0);
        sim.run(1_000);
        assert_eq!(sim.phones[asker].changes[0].statuses, [487]);
        assert!(sim.phones[ALICE].placed[0].released);
        sim.finish();
    }
}

#[test]
fn what_cannot_be_offered_is_refused_here() {
    let mut sim = talking(ServicesConfig::default());
    assert_eq!(change(&mut sim, ALICE, ALICES, "v=0\r\nno session", ""), [488]);
    assert!(sim.phones[BOB].asked.is_empty());
    ended(sim);
}

#[test]
fn an_update_passes_with_an_offer_and_is_answered_here_without() {
    let mut sim = talking(ServicesConfig::default());
    let now = sim.now.mono;
    let at = sim.phones[BOB].change(now, BOBS, Method::Update, &session(5_000, "sendonly"), "").unwrap();
    sim.run(1_000);
    assert_eq!(sim.phones[BOB].changes[at].statuses, [200]);
    assert!(text(&sim.phones[BOB].changes[at].body).contains("a=recvonly"));
    assert!(text(sim.phones[ALICE].asked[0].request.body()).contains("m=audio 16384 "));
    let at = sim.phones[ALICE].change(sim.now.mono, ALICES, Method::Update, "", "").unwrap();
    sim.run(1_000);
    assert_eq!((sim.phones[ALICE].changes[at].statuses.clone(), sim.phones[BOB].asked.len()), (vec![200], 0));
    ended(sim);
}

#[test]
fn info_and_message_pass_from_end_to_end() {
    let mut sim = talking(ServicesConfig::default());
    let now = sim.now.mono;
    sim.phones[ALICE].send(now, ALICES, &Method::Info, "application/dtmf-relay", "Signal=5\r\nDuration=160\r\n");
    sim.run(100);
    sim.phones[BOB].send(sim.now.mono, BOBS, &Method::Message, "text/plain", "hello");
    sim.run(1_000);
    assert_eq!(sim.phones[BOB].heard, [(Method::Info, b"Signal=5\r\nDuration=160\r\n".to_vec())]);
    assert_eq!(sim.phones[ALICE].heard, [(Method::Message, b"hello".to_vec())]);
    assert_eq!((sim.phones[ALICE].replies[0].0, sim.phones[BOB].replies[0].0), (200, 200));
    ended(sim);
}

#[test]
fn a_call_over_a_trunk_is_held_too() {
    let mut sim = Sim::new(4, 5);
    sim.register();
    sim.phones[CARRIER].behaviour = Behaviour::Challenge(100);
    sim.call(ALICE, "00493012345");
    sim.run(2_000);
    assert_eq!(change(&mut sim, ALICE, ALICES, &session(5_000, "sendonly"), ""), [200]);
    let asked = &sim.phones[CARRIER].asked[0];
    assert!(asked.request.header(HeaderName::ProxyAuthorization).is_some(), "its challenge was answered");
    assert!(asked.acknowledged);
    assert_eq!(change(&mut sim, CARRIER, BOBS, &session(5_000, ""), ""), [200]);
    ended(sim);
}
