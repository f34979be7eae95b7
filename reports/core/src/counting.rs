//! From call facts to raw counts per 15 minutes.
//!
//! What is counted where (ITU-T E.425, per originating attempt):
//! - an attempt counts once, in the interval of its INVITE: at `Attempted` and `AnswerAborted` (unanswered for the
//!   caller, by its cause), or at `Answered`. An `AnswerAborted` after `Answered` takes that answer back: the attempt
//!   and its delay stay counted, its outcome becomes that of the cause;
//! - the end of an answered call counts in the interval of the end. `Ended` repeats the answer and never counts the
//!   attempt, also when recovery wrote it: the answer was journaled before the caller heard it;
//! - subjects: the installation, every account from the root down to the caller's own (an account's figures are those
//!   of the calls that it and all below it originate), and each trunk that is a side of the call, whatever the
//!   direction;
//! - a trunk that could not carry a call, so that another was tried, has an attempt of its own with its own cause; the
//!   installation and the accounts count the call once all the same.

use std::collections::BTreeMap;

use model::cause::{AttemptClass, ReleaseCause};
use model::event::fact::{Answered, CallSetup, Ended, Fact, MediaStats, Party};
use model::id::TrunkId;
use model::tenancy::AccountPath;
use model::time::Timestamp;

use crate::resource::{Counters, INTERVAL_MS};

/// The most that one fact adds to one counter: far above any real call (31 years of talk, 600 years of packets),
/// far enough below the range that no number of rows overflows a sum.
pub const DELTA_MAX: i64 = 1_000_000_000_000;

/// What a count belongs to. Accounts are named by their path, which is what a fact knows of the levels above.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// The whole installation.
    Installation,
    /// The account at this path, for itself and all below.
    Account(AccountPath),
    /// A trunk, with the path of its owner.
    Trunk(TrunkId, AccountPath),
}

/// What one fact adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Begin of the interval.
    pub start: Timestamp,
    /// To whom it is added, each once.
    pub subjects: Vec<Counted>,
    /// The counts.
    pub counters: Counters,
}

/// The begin of the interval that `at` lies in.
#[must_use]
pub const fn interval_start(at: Timestamp) -> Timestamp {
    Timestamp(at.0.saturating_sub(at.0.rem_euclid(INTERVAL_MS)))
}

/// What `fact` adds; nothing for facts that are no attempt and no end.
#[must_use]
pub fn count(fact: &Fact) -> Option<Delta> {
    match fact {
        Fact::Attempted(e) => Some(attempt(&e.setup, unanswered(e.cause), e.pdd_ms)),
        Fact::AnswerAborted(e) if e.after_answered => Some(Delta {
            start: interval_start(e.setup.invited_at),
            subjects: subjects(&e.setup),
            counters: Counters { answered: -1, ..unanswered(e.cause) },
        }),
        Fact::AnswerAborted(e) => Some(attempt(&e.setup, unanswered(e.cause), Some(e.pdd_ms))),
        Fact::Answered(e) => Some(attempt(&e.setup, Counters { answered: 1, ..Counters::default() }, Some(e.pdd_ms))),
        Fact::Ended(e) => Some(end(e)),
        Fact::Started(_) | Fact::Heartbeat(_) | Fact::Interim(_) => None,
    }
}

/// What `fact` adds to the trunks that were tried before the one of the call.
pub fn count_tried(fact: &Fact) -> impl Iterator<Item = Delta> {
    let setup = match fact {
        Fact::Attempted(e) => Some(&e.setup),
        Fact::AnswerAborted(e) => Some(&e.setup),
        Fact::Answered(e) => Some(&e.setup),
        Fact::Ended(_) | Fact::Started(_) | Fact::Heartbeat(_) | Fact::Interim(_) => None,
    };
    setup.into_iter().flat_map(|setup| {
        setup.tried.iter().flatten().map(|tried| Delta {
            start: interval_start(setup.invited_at),
            subjects: vec![Counted::Trunk(tried.trunk.trunk, tried.trunk.path.clone())],
            counters: Counters { attempts: 1, ..unanswered(tried.cause) },
        })
    })
}

fn attempt(setup: &CallSetup, outcome: Counters, pdd_ms: Option<i64>) -> Delta {
    let counters = Counters {
        attempts: 1,
        pdd_count: i64::from(pdd_ms.is_some()),
        pdd_sum_ms: pdd_ms.unwrap_or(0).clamp(0, DELTA_MAX),
        ..outcome
    };
    Delta { start: interval_start(setup.invited_at), subjects: subjects(setup), counters }
}

/// The outcome of an attempt whose caller got no 200. A cause of answered calls (a drain, a crash) can end an attempt
/// too: then the network ended it.
fn unanswered(cause: ReleaseCause) -> Counters {
    let mut counters = Counters::default();
    let outcome = match cause.class() {
        AttemptClass::UserBusy => &mut counters.user_busy,
        AttemptClass::NoAnswer => &mut counters.no_answer,
        AttemptClass::TerminalReject => &mut counters.terminal_reject,
        AttemptClass::AddressError => &mut counters.address_error,
        AttemptClass::NetworkFailure | AttemptClass::Answered => &mut counters.network_failure,
    };
    *outcome = 1;
    counters
}

fn end(ended: &Ended) -> Delta {
    let Answered { setup, .. } = &ended.answered;
    let legs = [&ended.a_media, &ended.b_media];
    let sum = |of: fn(&MediaStats) -> u64| {
        legs.iter().filter_map(|leg| leg.as_ref()).fold(0_i64, |sum, media| sum.saturating_add(clamped(of(media))))
    };
    let counters = Counters {
        ended: 1,
        conversation_ms: ended.duration_ms.clamp(0, DELTA_MAX),
        estimated: i64::from(ended.estimated),
        packets_received: sum(|media| media.packets_received),
        packets_lost: sum(|media| media.packets_lost),
        ..Counters::default()
    };
    Delta { start: interval_start(ended.ended_at), subjects: subjects(setup), counters }
}

fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(DELTA_MAX).min(DELTA_MAX)
}

fn subjects(setup: &CallSetup) -> Vec<Counted> {
    let (_, path) = setup.a.account();
    let mut subjects = vec![Counted::Installation];
    subjects.extend(path.ancestry().into_iter().map(Counted::Account));
    for party in [Some(&setup.a), setup.b.as_ref()].into_iter().flatten() {
        if let Party::Trunk(trunk) = party {
            let counted = Counted::Trunk(trunk.trunk, trunk.path.clone());
            if !subjects.contains(&counted) {
                subjects.push(counted);
            }
        }
    }
    subjects
}

/// The counts of many facts, ready to be added to stored rows, in one fixed order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally(pub BTreeMap<(Timestamp, Counted), Counters>);

impl Tally {
    /// Adds one fact.
    pub fn add(&mut self, fact: &Fact) {
        for delta in count(fact).into_iter().chain(count_tried(fact)) {
            for subject in delta.subjects {
                self.0.entry((delta.start, subject)).or_default().add(&delta.counters);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{MIDNIGHT, aborted, answered, attempted, customer, ended, root, setup, trunk_path};
    use model::event::fact::{Heartbeat, Interim, TriedTrunk, TrunkParty};
    use proptest::prelude::*;

    fn check(fact: &Fact, start_ms: i64, expected: Counters) {
        let delta = count(fact).unwrap();
        assert_eq!((delta.start, delta.counters), (MIDNIGHT.plus_ms(start_ms), expected), "{fact:?}");
    }

    #[test]
    fn attempts_count_at_their_invite_and_ends_at_the_end() {
        let none = Counters::default();
        let one = Counters { attempts: 1, ..none };
        let with_pdd = |counters| Counters { pdd_count: 1, pdd_sum_ms: 700, ..counters };
        let at = INTERVAL_MS - 1;
        check(&answered(1, at), 0, with_pdd(Counters { answered: 1, ..one }));
        check(&attempted(1, at, ReleaseCause::UserBusy, None), 0, Counters { user_busy: 1, ..one });
        check(&attempted(1, at, ReleaseCause::NoAnswer, Some(700)), 0, with_pdd(Counters { no_answer: 1, ..one }));
        let cancelled = ReleaseCause::CancelledRinging;
        check(&aborted(1, at, cancelled, false), 0, with_pdd(Counters { no_answer: 1, ..one }));
        check(&aborted(1, at, cancelled, true), 0, Counters { answered: -1, no_answer: 1, ..none });
        let expired = Counters { network_failure: 1, ..one };
        check(&aborted(1, at, ReleaseCause::AnswerHoldExpired, false), 0, with_pdd(expired));
        let end = Counters { ended: 1, conversation_ms: 60_000, packets_received: 5_990, packets_lost: 10, ..none };
        check(&ended(1, at, 60_000, false), INTERVAL_MS, end);
        check(&ended(1, at, 60_000, true), INTERVAL_MS, Counters { estimated: 1, ..end });
        assert_eq!(count(&Fact::Heartbeat(Heartbeat { at: MIDNIGHT, calls_up: 3, stopping: None })), None);
        let interim = Interim { call: setup(1, 0).call, at: MIDNIGHT, elapsed_ms: 900_000 };
        assert_eq!(count(&Fact::Interim(interim)), None);
    }

    #[test]
    fn every_cause_of_an_unanswered_attempt_has_one_outcome() {
        for cause in ReleaseCause::ALL {
            let c = count(&attempted(1, 0, *cause, None)).unwrap().counters;
            let outcomes = c.user_busy + c.no_answer + c.terminal_reject + c.address_error + c.network_failure;
            assert_eq!((c.attempts, c.answered, outcomes), (1, 0, 1), "{cause:?}");
            assert_eq!(c.ner().numerator == 1, cause.class().is_effective() && c.network_failure == 0, "{cause:?}");
        }
    }

    #[test]
    fn subjects_are_the_callers_line_of_accounts_and_the_trunks() {
        let delta = count(&answered(1, 0)).unwrap();
        let path = customer().1;
        let trunk = Counted::Trunk(crate::testing::trunk(), trunk_path());
        let expected = [Counted::Installation, Counted::Account(root()), Counted::Account(path), trunk];
        assert_eq!(delta.subjects, expected);
    }

    #[test]
    fn a_trunk_that_was_tried_in_vain_has_an_attempt_of_its_own() {
        let mut fact = answered(1, 0);
        let vain: TrunkId = format!("{:032x}", 99).parse().unwrap();
        let Fact::Answered(answer) = &mut fact else { panic!("an answer") };
        answer.setup.tried = Some(vec![TriedTrunk {
            trunk: TrunkParty { trunk: vain, account: customer().0, path: trunk_path() },
            status: 503,
            cause: ReleaseCause::NetworkFailure,
        }]);
        let mut tally = Tally::default();
        tally.add(&fact);
        let of = |subject: Counted| tally.0.get(&(MIDNIGHT, subject)).copied().unwrap_or_default();
        let failed = Counters { attempts: 1, network_failure: 1, ..Counters::default() };
        assert_eq!(of(Counted::Trunk(vain, trunk_path())), failed);
        let carried = of(Counted::Trunk(crate::testing::trunk(), trunk_path()));
        assert_eq!((carried.attempts, carried.answered), (1, 1));
        assert_eq!(of(Counted::Installation).attempts, 1);
    }

    fn any_fact() -> impl Strategy<Value = Fact> {
        let cause = (0..ReleaseCause::ALL.len()).prop_map(|i| ReleaseCause::ALL[i]);
        prop_oneof![
            (0_u128..50, 0_i64..5_000_000, cause.clone(), proptest::option::of(0_i64..9_000))
                .prop_map(|(call, at, cause, pdd)| attempted(call, at, cause, pdd)),
            (0_u128..50, 0_i64..5_000_000).prop_map(|(call, at)| answered(call, at)),
            (0_u128..50, 0_i64..5_000_000, cause, any::<bool>()).prop_map(|(call, at, cause, after_answered)| aborted(
                call,
                at,
                cause,
                after_answered
            )),
            (0_u128..50, 0_i64..5_000_000, 0_i64..2_000_000, any::<bool>())
                .prop_map(|(call, at, duration, estimated)| ended(call, at, duration, estimated)),
        ]
    }

    proptest! {
        #[test]
        fn intervals_sum_to_the_naive_count(facts in proptest::collection::vec(any_fact(), 0..60)) {
            // What an aborted answer takes back was journaled before.
            let facts: Vec<Fact> = facts.into_iter().flat_map(|fact| match &fact {
                Fact::AnswerAborted(e) if e.after_answered => {
                    let (setup, answered_at, pdd_ms) = (e.setup.clone(), e.answered_at, e.pdd_ms);
                    vec![Fact::Answered(Answered { setup, answered_at, pdd_ms }), fact]
                }
                _ => vec![fact],
            }).collect();
            let mut tally = Tally::default();
            facts.iter().for_each(|fact| tally.add(fact));
            let mut sum = Counters::default();
            for ((start, subject), counters) in &tally.0 {
                prop_assert_eq!(start.0 % INTERVAL_MS, 0);
                if *subject == Counted::Installation {
                    sum.add(counters);
                }
            }
            let number = |of: fn(&Fact) -> bool| i64::try_from(facts.iter().filter(|f| of(f)).count()).unwrap();
            let taken_back = number(|f| matches!(f, Fact::AnswerAborted(e) if e.after_answered));
            prop_assert_eq!(sum.attempts, number(|f| !matches!(f, Fact::Ended(_))) - taken_back);
            prop_assert_eq!(sum.answered, number(|f| matches!(f, Fact::Answered(_))) - taken_back);
            prop_assert_eq!(sum.ended, number(|f| matches!(f, Fact::Ended(_))));
            let outcomes = sum.answered + sum.user_busy + sum.no_answer + sum.terminal_reject + sum.address_error
                + sum.network_failure;
            prop_assert_eq!(sum.attempts, outcomes);
            let conversation: i64 =
                facts.iter().map(|f| if let Fact::Ended(e) = f { e.duration_ms } else { 0 }).sum();
            prop_assert_eq!(sum.conversation_ms, conversation);
        }
    }
}
