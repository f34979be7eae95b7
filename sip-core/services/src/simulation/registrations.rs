//! Registrar and trunk keepalive.

use super::{ALICE, BOB, CARRIER, Event, MALLORY, Sim};
use crate::directory::{DirectoryEntry, Trunk};
use crate::location::RegistrationChange;
use crate::trunk::TrunkReason;

#[test]
fn a_registration_is_bound_stored_refreshed_and_expires() {
    let mut sim = Sim::new(4, 1);
    sim.register();
    assert_eq!(sim.shared.location.len(), 2);
    assert_eq!(sim.phones[ALICE].contacts, ["<sip:alice@10.0.1.1:5060>;expires=600"]);
    let bound = |change: &RegistrationChange| matches!(change, RegistrationChange::Bound(_));
    assert_eq!(sim.registrations.iter().filter(|c| bound(c)).count(), 2);
    sim.run(300_000);
    sim.phones[ALICE].register(sim.now.mono);
    sim.run(301_000);
    assert_eq!(sim.shared.location.len(), 1, "Bob did not refresh");
    assert!(!bound(sim.registrations.last().expect("a change")));
    sim.phones[ALICE].expires = Some(0);
    sim.phones[ALICE].register(sim.now.mono);
    sim.run(1_000);
    assert!(sim.shared.location.is_empty() && sim.phones[ALICE].contacts.is_empty());
    sim.phones[BOB].expires = Some(10);
    sim.phones[BOB].register(sim.now.mono);
    sim.run(1_000);
    assert_eq!(sim.phones[BOB].registered, Some(423));
}

#[test]
fn a_binding_is_found_however_its_domain_was_written() {
    let mut sim = Sim::new(4, 1);
    for phone in [ALICE, BOB] {
        sim.phones[phone].domain = "Alpha.Example.".to_owned();
    }
    sim.register();
    for (from, to) in [(ALICE, "101"), (BOB, "100")] {
        let call = sim.call(from, to);
        sim.run(2_000);
        assert_eq!(sim.status(from, call), Some(200));
        sim.phones[from].hang_up(sim.now.mono, call);
        sim.run(1_000);
    }
    sim.finish();
}

#[test]
fn credentials_are_good_for_the_uri_that_they_sign() {
    let mut sim = Sim::new(2, 1);
    sim.register();
    for (signed, status) in [
        ("sip:101@ALPHA.example", 200),
        ("sip:%3101@alpha.example:5060;user=phone", 200),
        ("sip:alpha.example", 200),
        ("sip:10.0.0.1:5060", 200),
        ("sip:100@alpha.example", 400),
        ("sip:101@beta.example", 400),
        ("sip:beta.example", 400),
        ("tel:101", 400),
        ("/index.html", 400),
    ] {
        sim.phones[ALICE].signed_uri = Some(signed);
        let call = sim.call(ALICE, "101");
        sim.run(2_000);
        assert_eq!(sim.status(ALICE, call), Some(status), "{signed}");
        sim.phones[ALICE].hang_up(sim.now.mono, call);
        sim.run(1_000);
    }
    for (signed, status) in [("sip:alice@alpha.example", 200), ("sip:10.0.0.1", 200), ("sip:beta.example", 400)] {
        sim.phones[ALICE].signed_uri = Some(signed);
        sim.phones[ALICE].register(sim.now.mono);
        sim.run(1_000);
        assert_eq!(sim.phones[ALICE].registered, Some(status), "{signed}");
    }
    sim.finish();
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_alike() {
    let mut sim = Sim::new(2, 1);
    sim.phones[MALLORY].register(sim.now.mono);
    sim.run(1_000);
    assert_eq!(sim.phones[MALLORY].registered, Some(403));
    sim.phones[MALLORY].user = "nobody".to_owned();
    sim.phones[MALLORY].register(sim.now.mono);
    sim.run(1_000);
    assert_eq!(sim.phones[MALLORY].registered, Some(403));
    assert!(sim.shared.location.is_empty() && sim.registrations.is_empty());
    assert_eq!(sim.cores.iter().map(|core| core.stats().authentications_failed).sum::<u64>(), 2);
}

#[test]
fn a_trunk_goes_down_and_comes_up() {
    let mut sim = Sim::new(2, 1);
    let watched = Trunk { keepalive_ms: 10_000, ..sim.world.trunk.clone() };
    assert!(!sim.shared.trunks.is_known(&watched), "nobody has asked yet");
    sim.change(vec![DirectoryEntry::Trunk(watched.clone())]);
    sim.run(25_000);
    assert_eq!(sim.phones[CARRIER].pings, 3);
    assert!(sim.shared.trunks.is_known(&watched));
    assert!(sim.trunk_changes.is_empty() && sim.shared.trunks.is_up(watched.id));
    sim.phones[CARRIER].alive = false;
    sim.run(40_000);
    assert_eq!(sim.trunk_changes, [(false, TrunkReason::Unanswered)], "told once");
    let states = sim.shared.trunks.snapshot();
    assert_eq!((states.generation, states.list().len()), (1, 1));
    sim.phones[CARRIER].alive = true;
    sim.run(15_000);
    assert_eq!(sim.trunk_changes.last(), Some(&(true, TrunkReason::Answered)));
    assert!(sim.shared.trunks.is_up(watched.id));
    // Watching ends while it is down: the alarm must not stay.
    sim.phones[CARRIER].alive = false;
    sim.run(40_000);
    sim.change(vec![DirectoryEntry::Trunk(Trunk { keepalive_ms: 0, ..watched.clone() })]);
    sim.run(1_000);
    assert_eq!(sim.trunk_changes.last(), Some(&(true, TrunkReason::Unwatched)));
    assert!(sim.shared.trunks.snapshot().list().is_empty());
    assert!(!sim.shared.trunks.is_known(&Trunk { keepalive_ms: 10_000, ..watched }), "it would begin anew");
}

#[test]
fn an_idle_node_shows_soon_that_it_runs() {
    let mut sim = Sim::new(2, 1);
    let grown: Vec<usize> = [5_500, 5_000, 5_000, 10_000, 6_000]
        .into_iter()
        .map(|ms| {
            sim.run(ms);
            sim.heartbeats()
        })
        .collect();
    assert_eq!(grown, [1, 2, 3, 3, 4], "after 5, 10, 15 and 30 seconds");
}

#[test]
fn a_trunk_that_never_answered_is_known_once_it_counts_as_down() {
    let mut sim = Sim::new(2, 1);
    let watched = Trunk { keepalive_ms: 10_000, ..sim.world.trunk.clone() };
    sim.phones[CARRIER].alive = false;
    sim.change(vec![DirectoryEntry::Trunk(watched.clone())]);
    sim.run(12_000);
    let trunks = &sim.shared.trunks;
    assert_eq!((trunks.is_up(watched.id), trunks.is_known(&watched)), (true, false), "one answer may be lost");
    sim.run(40_000);
    let trunks = &sim.shared.trunks;
    assert_eq!((trunks.is_up(watched.id), trunks.is_known(&watched)), (false, true));
}

#[test]
fn a_request_that_cannot_be_answered_holds_nothing() {
    let mut sim = Sim::new(1, 1);
    let address = std::net::SocketAddr::from(([10, 0, 1, 9], 5060));
    let ask = |method: &str, via: &str, from: &str, n: usize| {
        format!(
            "{method} sip:x@alpha.example SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{method}{n}{via}\r\n\
             From: {from};tag=1\r\nTo: <sip:x@alpha.example>\r\nCall-ID: {method}{n}\r\nCSeq: 1 {method}\r\n\r\n"
        )
    };
    // Too large once we say where it came from; a NUL in what would be repeated; as many Vias as are let in.
    let long = format!(";rport;x={}", "y".repeat(8_128));
    let vias = "\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx".repeat(123);
    for (n, method) in ["REGISTER", "INVITE", "OPTIONS", "BYE", "SUBSCRIBE"].into_iter().enumerate() {
        sim.deliver(ask(method, &long, "<sip:a@alpha.example>", n).into(), address);
        sim.deliver(ask(method, "", "\"\0\" <sip:a@alpha.example>", 10 + n).into(), address);
        sim.deliver(ask(method, &vias, "<sip:a@alpha.example>", 20 + n).into(), address);
        assert!(sim.cores[0].server_transactions() > 0);
    }
    let stats = *sim.cores[0].stats();
    assert_eq!((stats.unbuildable, stats.garbage), (5, 5), "the third kind is answered");
    sim.run(100_000);
    assert_eq!(sim.cores[0].server_transactions(), 0);
    assert_eq!(sim.shared.calls.current(), 0);
}

#[test]
fn methods_and_garbage_are_answered_by_rule() {
    let mut sim = Sim::new(2, 1);
    let address = sim.phones[ALICE].address;
    let mut ask = |head: &str, tag: &str| {
        let text = format!(
            "{head} sip:x@alpha.example SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{head}{tag}\r\n\
             From: <sip:a@alpha.example>;tag=1\r\nTo: <sip:x@alpha.example>{tag}\r\nCall-ID: {head}{tag}\r\nCSeq: 1 {head}\r\n\r\n"
        );
        sim.deliver(text.into(), address);
        sim.drain();
        let mut statuses = Vec::new();
        for event in std::mem::take(&mut sim.queue).into_values() {
            if let Event::Deliver { bytes, .. } = event {
                statuses.push(sip_message::Message::parse_datagram(bytes).expect("readable").status());
            }
        }
        statuses
    };
    assert_eq!(ask("OPTIONS", ""), [200]);
    assert_eq!(ask("SUBSCRIBE", ""), [405]);
    assert_eq!(ask("FROBNICATE", ""), [501]);
    assert_eq!(ask("BYE", ";tag=2"), [481]);
    assert_eq!(ask("INVITE", ";tag=2"), [481]);
    assert_eq!(ask("UPDATE", ";tag=2"), [481]);
    assert_eq!(ask("ACK", ";tag=2"), [] as [u16; 0]);
    assert_eq!(ask("CANCEL", ""), [481]);
    for junk in ["\r\n\r\n", "", "hello", "\0\0\0\0", "INVITE sip:x SIP/2.0\r\n\r\n"] {
        sim.deliver(junk.as_bytes().to_vec().into(), address);
    }
    sim.run(1_000);
}
