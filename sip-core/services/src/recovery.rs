//! What a restart makes of the journal: calls that were up when the node died end at its last sign of life.

use std::collections::HashMap;

use model::cause::ReleaseCause;
use model::event::fact::{Answered, Ended, Fact, ReleasedBy};
use model::id::CallId;
use model::time::Timestamp;

/// A call that was answered and has no end yet.
#[derive(Debug, Clone)]
struct Open {
    answered: Answered,
    /// What an [`Fact::Interim`] proves: it lasted at least this long.
    elapsed_ms: i64,
    /// The last sign of life of the run that answered it, once that run is over.
    last_sign: Option<Timestamp>,
}

/// The fold over the facts of one or more epochs. Each call ends at the last sign of life of the run that carried it:
/// a run that was started later and died before it had ended the calls proves nothing about them.
#[derive(Debug, Default)]
pub struct OpenCalls {
    calls: HashMap<CallId, Open>,
    /// Of the epoch that is read.
    last_sign: Option<Timestamp>,
}

impl OpenCalls {
    /// Takes the next fact, in journal order.
    pub fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::Started(started) => {
                for open in self.calls.values_mut() {
                    open.last_sign = open.last_sign.or(self.last_sign);
                }
                self.last_sign = Some(started.at);
            }
            Fact::Heartbeat(heartbeat) => self.seen(heartbeat.at),
            Fact::Attempted(attempted) => self.seen(attempted.ended_at),
            Fact::Answered(answered) => {
                self.seen(answered.answered_at);
                self.calls
                    .insert(answered.setup.call, Open { answered: answered.clone(), elapsed_ms: 0, last_sign: None });
            }
            Fact::Interim(interim) => {
                self.seen(interim.at);
                if let Some(open) = self.calls.get_mut(&interim.call) {
                    open.elapsed_ms = open.elapsed_ms.max(interim.elapsed_ms);
                }
            }
            Fact::Ended(ended) => {
                self.seen(ended.ended_at);
                self.calls.remove(&ended.answered.setup.call);
            }
            Fact::AnswerAborted(aborted) => {
                self.seen(aborted.ended_at);
                self.calls.remove(&aborted.setup.call);
            }
        }
    }

    /// Calls without an end.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether every call has its end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The ends that the dead node could not write, oldest answer first: estimated, at its last heartbeat (or any
    /// later fact), by the network. A duration is never negative, nor shorter than an interim fact has proved.
    #[must_use]
    pub fn close(self) -> Vec<Ended> {
        let last_sign = self.last_sign;
        let mut ends: Vec<Ended> = self
            .calls
            .into_values()
            .map(|open| {
                let answered_at = open.answered.answered_at;
                let last_sign = open.last_sign.or(last_sign);
                let by_heartbeat = last_sign.map_or(0, |at| at.ms_since(answered_at));
                let duration_ms = by_heartbeat.max(open.elapsed_ms).max(0);
                Ended {
                    ended_at: answered_at.plus_ms(duration_ms),
                    duration_ms,
                    cause: ReleaseCause::SystemFailure,
                    released_by: ReleasedBy::Network,
                    estimated: true,
                    a_media: None,
                    b_media: None,
                    answered: open.answered,
                }
            })
            .collect();
        ends.sort_by_key(|end| (end.answered.answered_at, end.answered.setup.call));
        ends
    }

    fn seen(&mut self, at: Timestamp) {
        self.last_sign = self.last_sign.max(Some(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::answered;
    use model::event::fact::{Heartbeat, Interim, Started};

    fn ended(answered: &Answered, duration_ms: i64) -> Fact {
        Fact::Ended(Ended {
            answered: answered.clone(),
            ended_at: answered.answered_at.plus_ms(duration_ms),
            duration_ms,
            cause: ReleaseCause::NormalClearing,
            released_by: ReleasedBy::Caller,
            estimated: false,
            a_media: None,
            b_media: None,
        })
    }

    #[test]
    fn open_calls_end_at_the_last_heartbeat() {
        let (first, second, third) = (answered(1, 1_000), answered(2, 2_000), answered(3, 9_500));
        let facts = [
            Fact::Started(Started { at: Timestamp(0), version: "1".to_owned() }),
            Fact::Answered(first.clone()),
            Fact::Answered(second.clone()),
            ended(&first, 500),
            Fact::Heartbeat(Heartbeat { at: Timestamp(9_000), calls_up: 1, stopping: None }),
            Fact::Answered(third.clone()),
        ];
        let mut open = OpenCalls::default();
        facts.iter().for_each(|fact| open.apply(fact));
        assert_eq!(open.len(), 2);
        let ends = open.close();
        assert_eq!(ends.iter().map(|e| e.duration_ms).collect::<Vec<_>>(), vec![7_500, 0]);
        assert!(ends.iter().all(|e| e.estimated && e.cause == ReleaseCause::SystemFailure));
        assert_eq!(ends.first().map(|e| e.ended_at), Some(Timestamp(9_500)));
        // Replay over the written ends leaves nothing open.
        let mut again = OpenCalls::default();
        facts.iter().for_each(|fact| again.apply(fact));
        ends.into_iter().for_each(|end| again.apply(&Fact::Ended(end)));
        assert!(again.is_empty());
    }

    #[test]
    fn a_start_that_failed_is_no_sign_of_life_of_the_run_before() {
        let (first, second) = (answered(1, 1_000), answered(2, 7_200_000));
        let started = |at| Fact::Started(Started { at: Timestamp(at), version: "1".to_owned() });
        let facts = [
            started(0),
            Fact::Answered(first),
            Fact::Heartbeat(Heartbeat { at: Timestamp(9_000), calls_up: 1, stopping: None }),
            // An hour later a start that ended before it had written the end.
            started(3_600_000),
            started(7_000_000),
            Fact::Answered(second),
            Fact::Heartbeat(Heartbeat { at: Timestamp(7_201_000), calls_up: 1, stopping: None }),
        ];
        let mut open = OpenCalls::default();
        facts.iter().for_each(|fact| open.apply(fact));
        assert_eq!(open.close().iter().map(|e| e.duration_ms).collect::<Vec<_>>(), vec![8_000, 1_000]);
    }

    #[test]
    fn a_clock_set_back_never_makes_a_duration_negative_and_interim_counts() {
        let call = answered(1, 10_000);
        let mut open = OpenCalls::default();
        open.apply(&Fact::Answered(call.clone()));
        open.apply(&Fact::Interim(Interim { call: call.setup.call, at: Timestamp(5_000), elapsed_ms: 900_000 }));
        open.apply(&Fact::Heartbeat(Heartbeat { at: Timestamp(6_000), calls_up: 1, stopping: None }));
        assert_eq!(open.close().first().map(|e| e.duration_ms), Some(900_000));
    }
}
