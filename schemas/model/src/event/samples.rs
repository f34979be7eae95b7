//! A stored record of every kind and version: what was journaled once must be understood for ever.
//!
//! Facts lie in `samples/fact-<kind>-<version>.hex`, store events in `samples/store-<kind>-<version>.json`. A file is
//! never changed; whoever adds a field adds a sample with the next version and keeps the old one.

use proptest::prelude::*;
use uuid::Uuid;

use super::fact::{
    AnswerAborted, Answered, Attempted, CallSetup, Codec, Ended, Fact, Heartbeat, Interim, MediaQuality, MediaStats,
    Party, ReleasedBy, Started, SubscriberParty, TriedTrunk, TrunkParty,
};
use super::store::{Billed, Changed, ChangedResource, Rated, Reported, StoreEvent};
use crate::cause::ReleaseCause;
use crate::change::{EffectKind, ResourceKind, ResourceRef};
use crate::domain::SipDomain;
use crate::id::{
    AccountId, BatchId, CallId, ChangeId, DomainId, FileId, RunId, SiteId, StreamId, SubscriberId, TrunkId,
};
use crate::number::E164;
use crate::tenancy::AccountPath;
use crate::time::Timestamp;

const AT: Timestamp = Timestamp(1_767_225_600_000);

fn uuid(n: u8) -> Uuid {
    Uuid::from_u128(0x019b_7700_0000_7000_8000_0000_0000_0000 | u128::from(n))
}

fn path() -> AccountPath {
    AccountPath::root(AccountId::from_uuid(uuid(1))).child(AccountId::from_uuid(uuid(2))).unwrap()
}

fn setup() -> CallSetup {
    CallSetup {
        call: CallId::from_uuid(uuid(10)),
        invited_at: AT,
        a: Party::Subscriber(SubscriberParty {
            subscriber: SubscriberId::from_uuid(uuid(3)),
            account: AccountId::from_uuid(uuid(2)),
            path: path(),
            domain: DomainId::from_uuid(uuid(4)),
            domain_name: "alpha.example".parse().unwrap(),
            site: Some(SiteId::from_uuid(uuid(5))),
            extension: Some("100".to_owned()),
        }),
        b: Some(Party::Trunk(TrunkParty {
            trunk: TrunkId::from_uuid(uuid(6)),
            account: AccountId::from_uuid(uuid(1)),
            path: AccountPath::root(AccountId::from_uuid(uuid(1))),
        })),
        dialled: "0049301234567".to_owned(),
        called: Some("+49301234567".parse().unwrap()),
        calling: Some("+493055501".parse().unwrap()),
        a_sip_call_id: "a84b4c76e66710@192.0.2.1".to_owned(),
        b_sip_call_id: Some("0-1f3c".to_owned()),
        tried: None,
    }
}

fn answered() -> Answered {
    Answered { setup: setup(), answered_at: AT.plus_ms(4_000), pdd_ms: 900 }
}

/// File, text and meaning. The match of [`fact_number`] and the test below it make a kind without a sample fail.
fn facts() -> Vec<(&'static str, &'static str, Fact)> {
    let media = MediaStats {
        packets_received: 500,
        packets_sent: 498,
        packets_lost: 2,
        octets_received: 80_000,
        quality: None,
    };
    let quality = MediaQuality {
        codec: Codec::Pcma,
        packets_duplicate: 1,
        packets_late: 3,
        loss_run_max: 2,
        jitter_us: 1_250,
        jitter_max_us: 7_000,
        round_trip_us: Some(31_000),
        mos: Some(437),
        reported_lost: Some(4),
        reported_jitter_us: Some(2_125),
        reported_mos: None,
    };
    let ended = |media| Ended {
        answered: answered(),
        ended_at: AT.plus_ms(14_000),
        duration_ms: 10_000,
        cause: ReleaseCause::NormalClearing,
        released_by: ReleasedBy::Callee,
        estimated: false,
        a_media: Some(media),
        b_media: None,
    };
    vec![
        (
            "fact-started-1",
            include_str!("samples/fact-started-1.hex"),
            Fact::Started(Started { at: AT, version: "0.1.0".to_owned() }),
        ),
        (
            "fact-heartbeat-1",
            include_str!("samples/fact-heartbeat-1.hex"),
            Fact::Heartbeat(Heartbeat { at: AT, calls_up: 7, stopping: None }),
        ),
        (
            "fact-heartbeat-2",
            include_str!("samples/fact-heartbeat-2.hex"),
            Fact::Heartbeat(Heartbeat { at: AT, calls_up: 0, stopping: Some(true) }),
        ),
        (
            "fact-attempted-1",
            include_str!("samples/fact-attempted-1.hex"),
            Fact::Attempted(Attempted {
                setup: CallSetup { b: None, called: None, calling: None, b_sip_call_id: None, ..setup() },
                ended_at: AT.plus_ms(80),
                status: 404,
                cause: ReleaseCause::UnallocatedNumber,
                pdd_ms: None,
            }),
        ),
        (
            "fact-attempted-2",
            include_str!("samples/fact-attempted-2.hex"),
            Fact::Attempted(Attempted {
                setup: CallSetup {
                    tried: Some(vec![TriedTrunk {
                        trunk: TrunkParty {
                            trunk: TrunkId::from_uuid(uuid(7)),
                            account: AccountId::from_uuid(uuid(1)),
                            path: AccountPath::root(AccountId::from_uuid(uuid(1))),
                        },
                        status: 408,
                        cause: ReleaseCause::NoResponse,
                    }]),
                    ..setup()
                },
                ended_at: AT.plus_ms(6_000),
                status: 503,
                cause: ReleaseCause::NetworkFailure,
                pdd_ms: None,
            }),
        ),
        ("fact-answered-1", include_str!("samples/fact-answered-1.hex"), Fact::Answered(answered())),
        (
            "fact-interim-1",
            include_str!("samples/fact-interim-1.hex"),
            Fact::Interim(Interim { call: CallId::from_uuid(uuid(10)), at: AT.plus_ms(904_000), elapsed_ms: 900_000 }),
        ),
        ("fact-ended-1", include_str!("samples/fact-ended-1.hex"), Fact::Ended(ended(media))),
        (
            "fact-ended-2",
            include_str!("samples/fact-ended-2.hex"),
            Fact::Ended(ended(MediaStats { quality: Some(quality), ..media })),
        ),
        (
            "fact-answer_aborted-1",
            include_str!("samples/fact-answer_aborted-1.hex"),
            Fact::AnswerAborted(AnswerAborted {
                setup: setup(),
                answered_at: AT.plus_ms(4_000),
                ended_at: AT.plus_ms(4_500),
                duration_ms: 500,
                status: 503,
                cause: ReleaseCause::AnswerHoldExpired,
                pdd_ms: 900,
                after_answered: false,
            }),
        ),
        (
            "fact-answer_aborted-2",
            include_str!("samples/fact-answer_aborted-2.hex"),
            Fact::AnswerAborted(AnswerAborted {
                setup: setup(),
                answered_at: AT.plus_ms(4_000),
                ended_at: AT.plus_ms(4_500),
                duration_ms: 500,
                status: 503,
                cause: ReleaseCause::AnswerHoldExpired,
                pdd_ms: 900,
                after_answered: true,
            }),
        ),
    ]
}

fn store_events() -> Vec<(&'static str, &'static str, StoreEvent)> {
    vec![
        (
            "store-changed-1",
            include_str!("samples/store-changed-1.json"),
            StoreEvent::Changed(Changed {
                change: ChangeId::from_uuid(uuid(20)),
                path: path(),
                resources: vec![ChangedResource {
                    effect: EffectKind::Created,
                    resource: ResourceRef { kind: ResourceKind::TariffAssignment, id: uuid(21) },
                }],
            }),
        ),
        (
            "store-rated-1",
            include_str!("samples/store-rated-1.json"),
            StoreEvent::Rated(Rated {
                batch: BatchId::from_uuid(uuid(22)),
                usage_count: 10,
                rated_count: 18,
                suspense_count: 2,
            }),
        ),
        (
            "store-billed-1",
            include_str!("samples/store-billed-1.json"),
            StoreEvent::Billed(Billed {
                file: FileId::from_uuid(uuid(23)),
                stream: StreamId::from_uuid(uuid(24)),
                sequence: 12,
                account: AccountId::from_uuid(uuid(2)),
                path: path(),
                record_count: 18,
            }),
        ),
        (
            "store-reported-1",
            include_str!("samples/store-reported-1.json"),
            StoreEvent::Reported(Reported { run: RunId::from_uuid(uuid(25)), path: path(), at: AT }),
        ),
    ]
}

/// Kinds of facts; the match below does not compile without the new one.
const FACT_KINDS: usize = 7;
const fn fact_number(fact: &Fact) -> usize {
    match fact {
        Fact::Started(_) => 0,
        Fact::Heartbeat(_) => 1,
        Fact::Attempted(_) => 2,
        Fact::Answered(_) => 3,
        Fact::Interim(_) => 4,
        Fact::Ended(_) => 5,
        Fact::AnswerAborted(_) => 6,
    }
}

/// Kinds of store events; the match below does not compile without the new one.
const STORE_KINDS: usize = 4;
const fn store_number(event: &StoreEvent) -> usize {
    match event {
        StoreEvent::Changed(_) => 0,
        StoreEvent::Rated(_) => 1,
        StoreEvent::Billed(_) => 2,
        StoreEvent::Reported(_) => 3,
    }
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn every_kind_of_fact_has_a_sample_that_decodes() {
    let mut seen = [false; FACT_KINDS];
    for (file, text, expected) in facts() {
        assert!(file.starts_with(&format!("fact-{}-", expected.kind())), "{file}");
        let decoded = Fact::from_bytes(&octets(text));
        assert_eq!(decoded.as_ref().ok(), Some(&expected), "{file}: {decoded:?}, now {}", hex(&expected.to_bytes()));
        // What is written today is what the newest sample shows: a change of it is seen in review.
        let newest = facts().into_iter().rfind(|(_, _, fact)| fact.kind() == expected.kind());
        if newest.is_some_and(|(newest, ..)| newest == file) {
            assert_eq!(hex(&expected.to_bytes()), hex(&octets(text)), "{file}");
        }
        seen[fact_number(&expected)] = true;
    }
    assert_eq!(seen, [true; FACT_KINDS]);
}

#[test]
fn every_kind_of_store_event_has_a_sample_that_decodes() {
    let mut seen = [false; STORE_KINDS];
    for (file, text, expected) in store_events() {
        let now = serde_json::to_string(&expected).unwrap();
        assert!(file.starts_with(&format!("store-{}-", expected.kind())), "{file}");
        let decoded: Result<StoreEvent, _> = serde_json::from_str(text);
        assert_eq!(decoded.as_ref().ok(), Some(&expected), "{file}: {decoded:?}, now {now}");
        let newest = store_events().into_iter().rfind(|(_, _, event)| event.kind() == expected.kind());
        if newest.is_some_and(|(newest, ..)| newest == file) {
            assert_eq!(text.trim_end(), now, "{file}");
        }
        seen[store_number(&expected)] = true;
    }
    assert_eq!(seen, [true; STORE_KINDS]);
}

#[test]
fn fields_of_a_later_version_are_passed_over_and_kinds_are_not() {
    let heartbeat = Fact::Heartbeat(Heartbeat { at: AT, calls_up: 7, stopping: None });
    let mut later = heartbeat.to_bytes();
    // [1, [{0: at, 1: 7}]]: the map gets a third entry, {99: "x"}
    let map = later.iter().position(|octet| *octet == 0xa2).unwrap();
    later[map] = 0xa3;
    later.extend([0x18, 99, 0x61, b'x']);
    assert_eq!(Fact::from_bytes(&later).unwrap(), heartbeat);
    later[1] = 23;
    assert!(Fact::from_bytes(&later).is_err());
    assert!(serde_json::from_str::<StoreEvent>(r#"{"kind":"sung"}"#).is_err());
}

fn ids() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn times() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp)
}

fn paths() -> impl Strategy<Value = AccountPath> {
    prop::collection::vec(ids(), 1..=4).prop_map(|ids| {
        let mut ids = ids.into_iter().map(AccountId::from_uuid);
        let root = AccountPath::root(ids.next().unwrap());
        ids.fold(root, |path, id| path.child(id).unwrap())
    })
}

fn numbers() -> impl Strategy<Value = Option<E164>> {
    prop::option::of("[1-9][0-9]{6,13}".prop_map(|digits| E164::from_digits(&digits).unwrap()))
}

prop_compose! {
    fn subscribers()(
        subscriber in ids(), account in ids(), path in paths(), domain in ids(), name in "[a-z]{1,9}\\.example",
        site in prop::option::of(ids()), extension in prop::option::of("[0-9]{2,8}"),
    ) -> Party {
        Party::Subscriber(SubscriberParty {
            subscriber: SubscriberId::from_uuid(subscriber),
            account: AccountId::from_uuid(account),
            path,
            domain: DomainId::from_uuid(domain),
            domain_name: name.parse::<SipDomain>().unwrap(),
            site: site.map(SiteId::from_uuid),
            extension,
        })
    }
}

fn parties() -> impl Strategy<Value = Party> {
    let trunks = (ids(), ids(), paths()).prop_map(|(trunk, account, path)| {
        Party::Trunk(TrunkParty { trunk: TrunkId::from_uuid(trunk), account: AccountId::from_uuid(account), path })
    });
    prop_oneof![subscribers(), trunks]
}

prop_compose! {
    fn setups()(
        call in ids(), invited_at in times(), a in parties(), b in prop::option::of(parties()), dialled in ".{0,40}",
        called in numbers(), calling in numbers(), a_id in ".{0,40}", b_id in prop::option::of(".{0,40}"),
    ) -> CallSetup {
        CallSetup {
            call: CallId::from_uuid(call), invited_at, a, b, dialled, called, calling,
            a_sip_call_id: a_id, b_sip_call_id: b_id, tried: None,
        }
    }
}

fn causes() -> impl Strategy<Value = ReleaseCause> {
    prop::sample::select(ReleaseCause::ALL)
}

prop_compose! {
    fn answers()(setup in setups(), answered_at in times(), pdd_ms in any::<i64>()) -> Answered {
        Answered { setup, answered_at, pdd_ms }
    }
}

fn media() -> impl Strategy<Value = Option<MediaStats>> {
    let known = prop::option::of((any::<[u64; 5]>(), any::<[Option<u64>; 3]>(), any::<[Option<u16>; 2]>(), codecs()));
    let quality = known.prop_map(|known| {
        let (counts, reported, [mos, reported_mos], codec) = known?;
        let [packets_duplicate, packets_late, loss_run_max, jitter_us, jitter_max_us] = counts;
        let [round_trip_us, reported_lost, reported_jitter_us] = reported;
        Some(MediaQuality {
            codec,
            packets_duplicate,
            packets_late,
            loss_run_max,
            jitter_us,
            jitter_max_us,
            round_trip_us,
            mos,
            reported_lost,
            reported_jitter_us,
            reported_mos,
        })
    });
    let stats = (any::<[u64; 4]>(), quality).prop_map(|(counts, quality)| {
        let [packets_received, packets_sent, packets_lost, octets_received] = counts;
        MediaStats { packets_received, packets_sent, packets_lost, octets_received, quality }
    });
    prop::option::of(stats)
}

fn codecs() -> impl Strategy<Value = Codec> {
    prop::sample::select(Codec::ALL.to_vec())
}

#[test]
fn codecs_are_numbered() {
    for codec in Codec::ALL {
        assert_eq!(Codec::from_number(codec.number()), Some(codec));
        assert_eq!(Codec::parse(codec.rtp_name()), Some(codec));
        assert_eq!(minicbor::to_vec(codec).unwrap(), [codec.number()]);
    }
    assert_eq!(Codec::from_number(12), None);
}

prop_compose! {
    fn ends()(
        answered in answers(), ended_at in times(), duration_ms in any::<i64>(), cause in causes(),
        released_by in prop::sample::select(vec![ReleasedBy::Caller, ReleasedBy::Callee, ReleasedBy::Network]),
        estimated in any::<bool>(), a_media in media(), b_media in media(),
    ) -> Fact {
        Fact::Ended(Ended { answered, ended_at, duration_ms, cause, released_by, estimated, a_media, b_media })
    }
}

fn any_fact() -> impl Strategy<Value = Fact> {
    let started = (times(), ".{0,20}").prop_map(|(at, version)| Fact::Started(Started { at, version }));
    let heartbeat = (times(), any::<u32>(), any::<Option<bool>>())
        .prop_map(|(at, calls_up, stopping)| Fact::Heartbeat(Heartbeat { at, calls_up, stopping }));
    let interim = (ids(), times(), any::<i64>())
        .prop_map(|(call, at, elapsed_ms)| Fact::Interim(Interim { call: CallId::from_uuid(call), at, elapsed_ms }));
    let attempted = (setups(), times(), any::<u16>(), causes(), any::<Option<i64>>()).prop_map(
        |(setup, ended_at, status, cause, pdd_ms)| {
            Fact::Attempted(Attempted { setup, ended_at, status, cause, pdd_ms })
        },
    );
    let aborted = (answers(), times(), any::<i64>(), any::<u16>(), causes(), any::<bool>()).prop_map(
        |(answered, ended_at, duration_ms, status, cause, after_answered)| {
            let Answered { setup, answered_at, pdd_ms } = answered;
            Fact::AnswerAborted(AnswerAborted {
                setup,
                answered_at,
                ended_at,
                duration_ms,
                status,
                cause,
                pdd_ms,
                after_answered,
            })
        },
    );
    prop_oneof![started, heartbeat, interim, attempted, answers().prop_map(Fact::Answered), ends(), aborted]
}

proptest! {
    #[test]
    fn facts_round_trip(fact in any_fact()) {
        prop_assert_eq!(Fact::from_bytes(&fact.to_bytes()).ok(), Some(fact));
    }

    #[test]
    fn mutated_octets_are_refused_or_decoded_and_never_panic(
        fact in any_fact(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
    ) {
        let mut octets = fact.to_bytes();
        for (index, octet) in mutations {
            let at = index.index(octets.len());
            octets[at] = octet;
        }
        drop(Fact::from_bytes(&octets));
        octets.truncate(end.index(octets.len()));
        drop(Fact::from_bytes(&octets));
    }

    #[test]
    fn any_octets_are_refused_or_decoded(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(Fact::from_bytes(&octets));
    }
}
