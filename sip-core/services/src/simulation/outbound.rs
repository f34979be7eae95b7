//! Our registrations at a carrier.

use model::event::fact::{Fact, Party};
use sip_engine::digest::DigestConfig;

use super::{ALICE, Behaviour, CARRIER, Network, OFFER, Registrar, Rule, Sim};
use crate::ServicesConfig;
use crate::directory::{DirectoryEntry, Trunk, TrunkRegistration};
use crate::testing::{TRUNK_PASSWORD, World};
use crate::trunk::{RegistrationState, TrunkReason};

fn registering(expires_s: u32) -> (World, Trunk) {
    let mut world = World::new();
    let registration =
        TrunkRegistration { registrar: world.trunk.address, domain: "carrier.example".to_owned(), expires_s };
    world.trunk.registration = Some(registration);
    let trunk = world.trunk.clone();
    (world, trunk)
}

/// A carrier that wants REGISTER, by this rule.
fn carrier(rule: Rule, expires_s: u32, password: &str, digest: DigestConfig) -> (Sim, Trunk) {
    let (world, trunk) = registering(expires_s);
    let mut sim = Sim::with(4, 23, ServicesConfig::default(), world);
    sim.phones[CARRIER].registrar = Some(Registrar::new(rule, sim.now.mono, password, digest));
    (sim, trunk)
}

fn registrar(sim: &mut Sim) -> &mut Registrar {
    sim.phones[CARRIER].registrar.as_mut().unwrap()
}

#[test]
fn it_registers_with_either_digest_and_refreshes_in_time() {
    for (digest, algorithm) in [
        (DigestConfig { md5: false, ..DigestConfig::default() }, "Sha256"),
        (DigestConfig { sha256: false, ..DigestConfig::default() }, "Md5"),
        (DigestConfig::default(), "Sha256"),
    ] {
        let (mut sim, trunk) = carrier(Rule::Grant(1_000), 3_600, TRUNK_PASSWORD, digest);
        sim.run(1_000);
        let seen = registrar(&mut sim).seen.clone();
        assert_eq!(seen, [(3_600, false), (3_600, true)]);
        assert_eq!(registrar(&mut sim).algorithms, [algorithm]);
        let state = sim.shared.trunks.registration(trunk.id);
        assert!(matches!(state, Some(RegistrationState::Registered { .. })), "{state:?}");
        // Refreshed at 80 % of what was granted, not of what was wished for.
        sim.run(790_000);
        assert_eq!(registrar(&mut sim).seen.len(), 2);
        sim.run(20_000);
        assert_eq!(registrar(&mut sim).seen.len(), 4);
        assert_eq!(registrar(&mut sim).bound.len(), 1, "the same Contact again");
        assert!(sim.shared.trunks.is_up(trunk.id) && sim.trunk_changes.is_empty());
    }
}

#[test]
fn a_short_wish_is_lengthened() {
    let (mut sim, trunk) = carrier(Rule::Min(1_800), 60, TRUNK_PASSWORD, DigestConfig::default());
    sim.run(1_000);
    assert_eq!(registrar(&mut sim).seen, [(60, false), (1_800, false), (1_800, true)]);
    assert!(matches!(sim.shared.trunks.registration(trunk.id), Some(RegistrationState::Registered { .. })));
}

#[test]
fn a_refusal_takes_the_trunk_down_and_is_tried_again_later() {
    let (mut sim, trunk) = carrier(Rule::Grant(600), 600, "another password", DigestConfig::default());
    assert!(!sim.shared.trunks.is_known(&trunk), "no answer has come yet");
    sim.run(1_000);
    assert_eq!(sim.shared.trunks.registration(trunk.id), Some(RegistrationState::Refused { status: 403 }));
    let down = sim.shared.trunks.snapshot().list();
    assert_eq!((down.len(), down[0].reason), (1, TrunkReason::RegistrationRefused(403)));
    assert!(sim.shared.trunks.is_known(&trunk));
    assert!(!sim.shared.trunks.is_up(trunk.id));
    // Calls take the other trunk.
    sim.register();
    sim.phones[CARRIER].behaviour = Behaviour::Answer(10);
    sim.call(ALICE, "00493012345");
    sim.run(1_000);
    assert!(sim.phones[CARRIER].got.is_empty());
    // Ten seconds, twenty, forty and so on: not a storm.
    sim.run(600_000);
    let tries = registrar(&mut sim).seen.len() / 2;
    assert!((5..=9).contains(&tries), "{tries}");
    sim.finish();
}

#[test]
fn retry_after_is_followed_and_the_trunk_comes_up_again() {
    let (mut sim, trunk) = carrier(Rule::Refuse(503, 300), 600, TRUNK_PASSWORD, DigestConfig::default());
    sim.run(290_000);
    assert_eq!(registrar(&mut sim).seen.len(), 1);
    registrar(&mut sim).rule = Rule::Grant(600);
    sim.run(20_000);
    assert!(sim.shared.trunks.is_up(trunk.id));
    assert_eq!(sim.trunk_changes, [(false, TrunkReason::RegistrationRefused(503)), (true, TrunkReason::Registered)]);
}

#[test]
fn a_carrier_that_falls_silent_counts_until_the_registration_ends() {
    let (mut sim, trunk) = carrier(Rule::Grant(600), 600, TRUNK_PASSWORD, DigestConfig::default());
    sim.run(1_000);
    registrar(&mut sim).rule = Rule::Silent;
    sim.run(590_000);
    assert!(sim.shared.trunks.is_up(trunk.id), "still registered, though a refresh has failed");
    sim.run(20_000);
    assert_eq!(sim.shared.trunks.registration(trunk.id), Some(RegistrationState::Expired));
    assert_eq!(sim.trunk_changes, [(false, TrunkReason::RegistrationExpired)]);
    registrar(&mut sim).rule = Rule::Grant(600);
    sim.run(700_000);
    assert!(sim.shared.trunks.is_up(trunk.id));
}

#[test]
fn a_trunk_that_no_longer_registers_takes_its_contact_back() {
    let (mut sim, trunk) = carrier(Rule::Grant(600), 600, TRUNK_PASSWORD, DigestConfig::default());
    sim.run(1_000);
    let contact = registrar(&mut sim).bound[0].clone();
    assert_eq!(sim.shared.trunks.by_contact(&contact), Some(trunk.id));
    sim.change(vec![DirectoryEntry::Trunk(Trunk { registration: None, ..trunk.clone() })]);
    sim.run(1_000);
    assert_eq!(registrar(&mut sim).seen.last(), Some(&(0, true)));
    assert!(registrar(&mut sim).bound.is_empty());
    assert_eq!((sim.shared.trunks.by_contact(&contact), sim.shared.trunks.registration(trunk.id)), (None, None));
    sim.run(2_000_000);
    assert_eq!(registrar(&mut sim).seen.len(), 4);
}

#[test]
fn a_call_to_our_contact_is_the_carriers_wherever_it_comes_from() {
    let (mut sim, trunk) = carrier(Rule::Grant(600), 600, TRUNK_PASSWORD, DigestConfig::default());
    sim.register();
    let contact = registrar(&mut sim).bound[0].clone();
    // The carrier's media gateway has another address than its registrar.
    sim.plug_backup();
    sim.phones[super::BACKUP].address = ([10, 0, 9, 200], 5060).into();
    let now = sim.now.mono;
    let number = sim.world.bob_number;
    let gateway = &mut sim.phones[super::BACKUP];
    let call = gateway.call_as(now, &format!("sip:{contact}@10.0.0.1"), &format!("<sip:{number}@carrier>"), OFFER);
    sim.run(3_000);
    assert_eq!(sim.status(super::BACKUP, call), Some(200));
    let now = sim.now.mono;
    let guess = &mut sim.phones[super::BACKUP];
    let guessed = guess.call_as(now, "sip:0123456789abcdef@10.0.0.1", &format!("<sip:{number}@carrier>"), OFFER);
    sim.run(1_000);
    assert_ne!(sim.status(super::BACKUP, guessed), Some(200));
    sim.phones[super::BACKUP].hang_up(sim.now.mono, call);
    sim.run(1_000);
    let Some(Fact::Ended(ended)) = sim.facts().last().cloned() else { panic!("not ended") };
    let setup = ended.answered.setup;
    assert!(matches!(&setup.a, Party::Trunk(party) if party.trunk == trunk.id));
    assert_eq!((setup.called, setup.dialled), (Some(number), number.to_string()));
    sim.finish();
}

#[test]
fn a_bad_network_does_not_keep_us_away() {
    testkit::soak::sweep("registration over a bad network", |seed| {
        let (world, trunk) = registering(120);
        let mut sim = Sim::with(4, seed, ServicesConfig::default(), world);
        sim.network = Network::BAD;
        let registrar = Registrar::new(Rule::Grant(3_600), sim.now.mono, TRUNK_PASSWORD, DigestConfig::default());
        sim.phones[CARRIER].registrar = Some(registrar);
        sim.run(3_600_000);
        let state = sim.shared.trunks.registration(trunk.id);
        assert!(matches!(state, Some(RegistrationState::Registered { .. })), "seed {seed}: {state:?}");
    });
}
