//! Values that several test modules share.

use model::cause::ReleaseCause;
use model::event::fact::{
    AnswerAborted, Answered, CallSetup, Codec, Ended, MediaQuality, MediaStats, Party, ReleasedBy, SubscriberParty,
    TrunkParty,
};
use model::id::{AccountId, CallId, DomainId, SubscriberId, TariffId, TrunkId};
use model::money::{Rounding, RoundingMode};
use model::tenancy::AccountPath;
use model::time::Timestamp;

use crate::resource::{Rate, Tariff};

/// Any identifier, by number.
pub(crate) fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(n: u128) -> T {
    format!("00000000-0000-7000-8000-{n:012x}").parse().unwrap()
}

pub(crate) fn account(n: u128) -> (AccountId, AccountPath) {
    let account = id::<AccountId>(n);
    (account, AccountPath::root(id(1)).child(account).unwrap())
}

pub(crate) fn rate(prefix: &str, fee: &str, price: &str) -> Rate {
    Rate {
        prefix: prefix.to_owned(),
        description: "Somewhere".to_owned(),
        connect_fee: fee.parse().unwrap(),
        price: price.parse().unwrap(),
        per_ms: 60_000,
        initial_ms: 1_000,
        increment_ms: 1_000,
    }
}

pub(crate) fn tariff(rates: Vec<Rate>) -> Tariff {
    Tariff {
        id: id::<TariffId>(900),
        account: account(1).0,
        name: "Standard".to_owned(),
        currency: "EUR".parse().unwrap(),
        rounding: Rounding { mode: RoundingMode::HalfUp, decimals: 4 },
        rates,
        version: 1,
    }
}

pub(crate) fn subscriber(customer: u128) -> Party {
    let (account, path) = account(customer);
    Party::Subscriber(SubscriberParty {
        subscriber: id::<SubscriberId>(customer * 100),
        account,
        path,
        domain: id::<DomainId>(customer * 1_000),
        domain_name: "a.example".parse().unwrap(),
        site: None,
        extension: None,
    })
}

pub(crate) fn trunk() -> Party {
    let (account, path) = account(1);
    Party::Trunk(TrunkParty { trunk: id::<TrunkId>(77), account, path })
}

pub(crate) fn setup(a: Party, b: Option<Party>, called: Option<&str>) -> CallSetup {
    CallSetup {
        call: id::<CallId>(5_000),
        invited_at: Timestamp(1_000),
        a,
        b,
        dialled: called.unwrap_or("100").to_owned(),
        called: called.map(|n| n.parse().unwrap()),
        calling: Some("+43720000001".parse().unwrap()),
        a_sip_call_id: "a".to_owned(),
        b_sip_call_id: None,
        tried: None,
    }
}

pub(crate) fn ended(a: Party, b: Option<Party>, called: Option<&str>, duration_ms: i64) -> Ended {
    Ended {
        answered: Answered { setup: setup(a, b, called), answered_at: Timestamp(3_000), pdd_ms: 400 },
        ended_at: Timestamp(3_000 + duration_ms),
        duration_ms,
        cause: ReleaseCause::NormalClearing,
        released_by: ReleasedBy::Callee,
        estimated: false,
        a_media: Some(MediaStats {
            packets_received: 10,
            packets_sent: 9,
            packets_lost: 1,
            octets_received: 1,
            quality: Some(quality()),
        }),
        b_media: None,
    }
}

pub(crate) fn aborted(a: Party, b: Option<Party>, called: Option<&str>, duration_ms: i64) -> AnswerAborted {
    AnswerAborted {
        setup: setup(a, b, called),
        answered_at: Timestamp(3_000),
        ended_at: Timestamp(3_000 + duration_ms),
        duration_ms,
        status: 487,
        cause: ReleaseCause::CancelledRinging,
        pdd_ms: 400,
        after_answered: false,
    }
}

/// Quality with a number that no database holds.
fn quality() -> MediaQuality {
    MediaQuality {
        codec: Codec::Pcmu,
        packets_duplicate: 2,
        packets_late: 3,
        loss_run_max: 1,
        jitter_us: 1_500,
        jitter_max_us: u64::MAX,
        round_trip_us: Some(24_000),
        mos: Some(433),
        reported_lost: Some(4),
        reported_jitter_us: Some(2_000),
        reported_mos: None,
    }
}
