//! Facts for the tests of this crate.

use std::fmt::Debug;
use std::str::FromStr;

use model::cause::ReleaseCause;
use model::event::fact::{
    AnswerAborted, Answered, Attempted, CallSetup, Ended, Fact, MediaStats, Party, ReleasedBy, SubscriberParty,
    TrunkParty,
};
use model::id::{AccountId, TrunkId};
use model::tenancy::AccountPath;
use model::time::Timestamp;

pub(crate) const MIDNIGHT: Timestamp = Timestamp(1_767_225_600_000);

fn id<T: FromStr<Err: Debug>>(n: u128) -> T {
    format!("{n:032x}").parse().unwrap()
}

pub(crate) fn root() -> AccountPath {
    AccountPath::root(id(1))
}

pub(crate) fn customer() -> (AccountId, AccountPath) {
    let account: AccountId = id(2);
    (account, root().child(account).unwrap())
}

pub(crate) fn trunk() -> TrunkId {
    id(6)
}

pub(crate) fn trunk_path() -> AccountPath {
    root()
}

pub(crate) fn setup(call: u128, at_ms: i64) -> CallSetup {
    let (account, path) = customer();
    CallSetup {
        call: id(0x1000 + call),
        invited_at: MIDNIGHT.plus_ms(at_ms),
        a: Party::Subscriber(SubscriberParty {
            subscriber: id(3),
            account,
            path,
            domain: id(4),
            domain_name: "alpha.example".parse().unwrap(),
            site: None,
            extension: Some("100".to_owned()),
        }),
        b: Some(Party::Trunk(TrunkParty { trunk: trunk(), account: id(1), path: trunk_path() })),
        dialled: "0049301234567".to_owned(),
        called: None,
        calling: None,
        a_sip_call_id: "a".to_owned(),
        b_sip_call_id: None,
        tried: None,
    }
}

fn answer(call: u128, at_ms: i64) -> Answered {
    let setup = setup(call, at_ms);
    Answered { answered_at: setup.invited_at.plus_ms(4_000), setup, pdd_ms: 700 }
}

pub(crate) fn answered(call: u128, at_ms: i64) -> Fact {
    Fact::Answered(answer(call, at_ms))
}

pub(crate) fn attempted(call: u128, at_ms: i64, cause: ReleaseCause, pdd_ms: Option<i64>) -> Fact {
    let setup = setup(call, at_ms);
    Fact::Attempted(Attempted { ended_at: setup.invited_at.plus_ms(9_000), setup, status: 486, cause, pdd_ms })
}

pub(crate) fn aborted(call: u128, at_ms: i64, cause: ReleaseCause, after_answered: bool) -> Fact {
    let setup = setup(call, at_ms);
    let answered_at = setup.invited_at.plus_ms(4_000);
    let ended_at = answered_at.plus_ms(500);
    Fact::AnswerAborted(AnswerAborted {
        setup,
        answered_at,
        ended_at,
        duration_ms: 500,
        status: 503,
        cause,
        pdd_ms: 700,
        after_answered,
    })
}

pub(crate) fn ended(call: u128, at_ms: i64, duration_ms: i64, estimated: bool) -> Fact {
    let answered = answer(call, at_ms);
    let media = |received, lost| {
        Some(MediaStats {
            packets_received: received,
            packets_sent: received,
            packets_lost: lost,
            octets_received: 0,
            quality: None,
        })
    };
    Fact::Ended(Ended {
        ended_at: answered.answered_at.plus_ms(duration_ms),
        answered,
        duration_ms,
        cause: ReleaseCause::NormalClearing,
        released_by: ReleasedBy::Caller,
        estimated,
        a_media: media(2_995, 5),
        b_media: media(2_995, 5),
    })
}
