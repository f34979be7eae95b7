//! Availability: how long something was up, of how long it was looked at.
//!
//! - A **node** is up while its program runs. Its journal says so: a record at least every few seconds, also without
//!   calls. It was down from the last record of one run to the first of the next: *stopped* when the run ended in order
//!   (its last record says so), else *failed*. It is looked at from its first record to its last one: what came before
//!   and after, nobody knows.
//! - A **trunk** is up while no node has the alarm that it is down. It is looked at since it was made, while at least
//!   one node was up, and only when it is watched: by how it is watched today, for the whole of that time. Nobody keeps
//!   when that was changed.
//!
//! Time is counted in milliseconds and kept as [`Ratio`]s; a percentage is made when it is shown, and rounded down.

use std::collections::BTreeMap;

use model::event::fact::{Fact, Heartbeat};
use model::id::TrunkId;
use model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::period::Bounds;
use crate::resource::Ratio;

/// Runs that are shorter than this and follow an outage belong to it: a program that is started again and again without
/// success is one outage.
pub const RUN_MIN_MS: i64 = 10_000;
/// A record that is older by more than this than the one before it was written after the clock was set back: what an
/// earlier record said of later times was wrong. Less is a clock that is steered.
pub const SET_BACK_MIN_MS: i64 = 60_000;
/// Outages that a report lists; the longest ones when there are more.
pub const OUTAGES_MAX: usize = 100;

/// Why a node was down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutageCause {
    /// It was stopped in order.
    Stopped,
    /// It, its machine or its power failed.
    Failed,
}

impl OutageCause {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// The cause of a stored name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Stopped, Self::Failed].into_iter().find(|cause| cause.as_str() == text)
    }
}

/// A time in which a node was down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeOutage {
    /// Its last sign of life.
    pub begin: Timestamp,
    /// Its next one.
    pub end: Timestamp,
    /// Why.
    pub cause: OutageCause,
}

/// What the records of a node said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The first record.
    pub since: Timestamp,
    /// The latest one.
    pub last_sign: Timestamp,
    /// Whether the latest one was the last of a run that ended in order.
    pub stopped: bool,
    /// The latest outage.
    pub outage: Option<NodeOutage>,
}

/// The fold over the records of a node's journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LifeSigns {
    /// Where it stands.
    pub life: Option<Life>,
    /// Outages that were found, or became longer, by their begin.
    pub outages: BTreeMap<Timestamp, NodeOutage>,
    /// The earliest time to which the clock was set back: outages that were known before end by then.
    pub set_back: Option<Timestamp>,
}

impl LifeSigns {
    /// Goes on from where an earlier fold stood.
    #[must_use]
    pub fn from(life: Option<Life>) -> Self {
        Self { life, outages: BTreeMap::new(), set_back: None }
    }

    /// Takes the next record, which was written `at`.
    pub fn add(&mut self, at: Timestamp, fact: &Fact) {
        let stopped = matches!(fact, Fact::Heartbeat(Heartbeat { stopping: Some(true), .. }));
        let Some(life) = &mut self.life else {
            self.life = Some(Life { since: at, last_sign: at, stopped, outage: None });
            return;
        };
        // A clock that was ahead, once, would hide all outages until then, and has made one that ends there.
        if life.last_sign.ms_since(at) > SET_BACK_MIN_MS {
            self.set_back = Some(self.set_back.map_or(at, |before| before.min(at)));
            self.outages.retain(|begin, _| *begin < at);
            self.outages.values_mut().for_each(|outage| outage.end = outage.end.min(at));
            life.outage = life.outage.filter(|outage| outage.begin < at);
            life.outage = life.outage.map(|outage| NodeOutage { end: outage.end.min(at), ..outage });
            *life = Life { since: life.since.min(at), last_sign: at, stopped, ..*life };
            return;
        }
        // A clock that was set back makes no outage.
        if matches!(fact, Fact::Started(_)) && at > life.last_sign {
            let outage = match life.outage {
                Some(before) if life.last_sign.ms_since(before.end) < RUN_MIN_MS => NodeOutage { end: at, ..before },
                _ => {
                    let cause = if life.stopped { OutageCause::Stopped } else { OutageCause::Failed };
                    NodeOutage { begin: life.last_sign, end: at, cause }
                }
            };
            life.outage = Some(outage);
            self.outages.insert(outage.begin, outage);
        }
        life.last_sign = life.last_sign.max(at);
        life.stopped = stopped;
    }
}

/// Times, each from its begin to before its end, in order and apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spans(Vec<(Timestamp, Timestamp)>);

impl Spans {
    /// All times that lie in at least one of `spans`.
    #[must_use]
    pub fn union(spans: impl IntoIterator<Item = (Timestamp, Timestamp)>) -> Self {
        let mut spans: Vec<_> = spans.into_iter().filter(|(begin, end)| begin < end).collect();
        spans.sort_unstable();
        let mut union: Vec<(Timestamp, Timestamp)> = Vec::with_capacity(spans.len());
        for (begin, end) in spans {
            match union.last_mut() {
                Some(last) if begin <= last.1 => last.1 = last.1.max(end),
                _ => union.push((begin, end)),
            }
        }
        Self(union)
    }

    /// The times that lie in both.
    #[must_use]
    pub fn within(&self, other: &Self) -> Self {
        let (mut both, mut a, mut b) = (Vec::new(), self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
            let (begin, end) = (left.0.max(right.0), left.1.min(right.1));
            if begin < end {
                both.push((begin, end));
            }
            if left.1 < right.1 {
                a.next()
            } else {
                b.next()
            };
        }
        Self(both)
    }

    /// What is left when the times of `other` are taken away.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let begin = Timestamp(i64::MIN);
        let ends = other.0.iter().map(|span| span.1);
        let begins = other.0.iter().map(|span| span.0).chain([Timestamp(i64::MAX)]);
        self.within(&Self::union(std::iter::once(begin).chain(ends).zip(begins)))
    }

    /// Their length, milliseconds.
    #[must_use]
    pub fn length_ms(&self) -> i64 {
        self.0.iter().fold(0, |sum, (begin, end)| sum.saturating_add(end.ms_since(*begin)))
    }
}

/// A node as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its name.
    pub node: String,
    /// Its first record.
    pub since: Timestamp,
    /// Its latest one.
    pub last_sign: Timestamp,
    /// When it was down.
    pub outages: Vec<NodeOutage>,
}

/// A trunk that is watched, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkRecord {
    /// Which.
    pub trunk: TrunkId,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub since: Timestamp,
    /// When a node had the alarm that it is down: from, to (none: it has it still), and its text.
    pub alarms: Vec<(Timestamp, Option<Timestamp>, String)>,
}

/// Availability of nodes and trunks in a period.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Availability {
    /// The nodes. The provider's alone: others learn nothing of the installation.
    pub nodes: Vec<NodeAvailability>,
    /// The trunks that are watched, at and below the account.
    pub trunks: Vec<TrunkAvailability>,
    /// Watched trunks that are not in the list because it is full.
    pub trunks_left_out: i64,
    /// When they were down, in the order of the begin.
    pub outages: Vec<Outage>,
    /// Outages that are not in the list because it is full, all shorter than those in it.
    pub outages_left_out: i64,
}

/// How long a node was up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAvailability {
    /// Its name.
    pub node: String,
    /// Milliseconds that it was up, of those in which it was looked at.
    pub up_ms: Ratio,
    /// Milliseconds that it was stopped in order.
    pub stopped_ms: i64,
    /// Milliseconds that it was down otherwise.
    pub failed_ms: i64,
}

/// How long a trunk was up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkAvailability {
    /// Which.
    pub trunk: TrunkId,
    /// Its name.
    pub name: String,
    /// Milliseconds that it was up, of those in which it was looked at.
    pub up_ms: Ratio,
}

/// What was down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum Down {
    /// A node, by its name.
    Node(String),
    /// A trunk.
    Trunk(TrunkId),
}

/// A time in which something was down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// What.
    pub down: Down,
    /// Its name.
    pub name: String,
    /// From when, also before the period.
    pub begin: Timestamp,
    /// Until when, also after the period; none while it goes on.
    pub end: Option<Timestamp>,
    /// The milliseconds of it that count in the period.
    pub counted_ms: i64,
    /// Why: `stopped` or `failed` of a node, the alarm's text of a trunk.
    pub cause: String,
}

/// The availability in a period. Nodes are listed for the provider alone (`with_nodes`), and needed for all: what
/// nobody could see is not counted.
#[must_use]
pub fn availability(bounds: Bounds, nodes: &[NodeRecord], trunks: Vec<TrunkRecord>, with_nodes: bool) -> Availability {
    let period = Spans::union([(bounds.from, bounds.to)]);
    let (mut found, mut outages, mut up) = (Availability::default(), Vec::new(), Vec::new());
    for node in nodes {
        let looked_at = Spans::union([(node.since, node.last_sign)]).within(&period);
        let of = |cause: Option<OutageCause>| {
            let outages = node.outages.iter().filter(|outage| cause.is_none_or(|cause| cause == outage.cause));
            Spans::union(outages.map(|outage| (outage.begin, outage.end))).within(&looked_at)
        };
        let was_up = looked_at.without(&of(None));
        found.nodes.push(NodeAvailability {
            node: node.node.clone(),
            up_ms: Ratio { numerator: was_up.length_ms(), denominator: looked_at.length_ms() },
            stopped_ms: of(Some(OutageCause::Stopped)).length_ms(),
            failed_ms: of(Some(OutageCause::Failed)).length_ms(),
        });
        outages.extend(node.outages.iter().map(|outage| Outage {
            down: Down::Node(node.node.clone()),
            name: node.node.clone(),
            begin: outage.begin,
            end: Some(outage.end),
            counted_ms: Spans::union([(outage.begin, outage.end)]).within(&looked_at).length_ms(),
            cause: outage.cause.as_str().to_owned(),
        }));
        up.extend(was_up.0);
    }
    if !with_nodes {
        found.nodes.clear();
        outages.clear();
    }
    let seen = Spans::union(up);
    for TrunkRecord { trunk, name, since, alarms } in trunks {
        let looked_at = Spans::union([(since, bounds.to)]).within(&seen);
        let span = |begin, end: Option<Timestamp>| (begin, end.unwrap_or(Timestamp(i64::MAX)));
        let down = Spans::union(alarms.iter().map(|(begin, end, _)| span(*begin, *end)));
        let was_up = looked_at.without(&down);
        outages.extend(alarms.into_iter().map(|(begin, end, cause)| Outage {
            down: Down::Trunk(trunk),
            name: name.clone(),
            begin,
            end,
            counted_ms: Spans::union([span(begin, end)]).within(&looked_at).length_ms(),
            cause,
        }));
        let up_ms = Ratio { numerator: was_up.length_ms(), denominator: looked_at.length_ms() };
        found.trunks.push(TrunkAvailability { trunk, name, up_ms });
    }
    outages.retain(|outage| outage.counted_ms > 0);
    outages.sort_by_key(|outage| (std::cmp::Reverse(outage.counted_ms), outage.begin));
    found.outages_left_out = i64::try_from(outages.len().saturating_sub(OUTAGES_MAX)).unwrap_or(i64::MAX);
    outages.truncate(OUTAGES_MAX);
    outages.sort_by_key(|outage| outage.begin);
    found.outages = outages;
    found
}

impl Ratio {
    /// The value in percent with three decimal places, rounded down, as of availability: what was down for a second
    /// in a month is not shown as 100 %. None when it is undefined.
    #[must_use]
    pub fn percent_rounded_down(&self) -> Option<String> {
        if self.denominator <= 0 {
            return None;
        }
        let thousandths = i128::from(self.numerator) * 100_000 / i128::from(self.denominator);
        Some(format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000))
    }
}

#[cfg(test)]
mod tests {
    use model::event::fact::Started;
    use proptest::prelude::*;

    use super::*;

    fn spans(spans: &[(i64, i64)]) -> Spans {
        Spans::union(spans.iter().map(|(begin, end)| (Timestamp(*begin), Timestamp(*end))))
    }

    fn started(at: i64) -> (i64, Fact) {
        (at, Fact::Started(Started { at: Timestamp(at), version: "0.1.0".to_owned() }))
    }

    fn alive(at: i64, stopping: Option<bool>) -> (i64, Fact) {
        (at, Fact::Heartbeat(Heartbeat { at: Timestamp(at), calls_up: 0, stopping }))
    }

    /// The outages as begin, end, cause.
    fn check(records: &[(i64, Fact)], expected: &[(i64, i64, OutageCause)]) -> Life {
        let expected: Vec<NodeOutage> = expected
            .iter()
            .map(|(begin, end, cause)| NodeOutage { begin: Timestamp(*begin), end: Timestamp(*end), cause: *cause })
            .collect();
        // The same in one go and record by record, each time going on from what is kept.
        let mut whole = LifeSigns::default();
        let (mut kept, mut outages) = (None, BTreeMap::new());
        for (at, fact) in records {
            whole.add(Timestamp(*at), fact);
            let mut signs = LifeSigns::from(kept);
            signs.add(Timestamp(*at), fact);
            kept = signs.life;
            if let Some(at) = signs.set_back {
                outages.retain(|begin, _| *begin < at);
                outages.values_mut().for_each(|outage: &mut NodeOutage| outage.end = outage.end.min(at));
            }
            outages.extend(signs.outages);
        }
        assert_eq!((whole.life, &whole.outages), (kept, &outages));
        assert_eq!(outages.into_values().collect::<Vec<_>>(), expected);
        kept.unwrap()
    }

    #[test]
    fn a_node_is_down_between_its_runs() {
        use OutageCause::{Failed, Stopped};
        let life = check(&[started(0), alive(1, None), alive(60_000, None)], &[]);
        assert_eq!((life.since, life.last_sign, life.stopped), (Timestamp(0), Timestamp(60_000), false));
        check(&[started(0), alive(60_000, None), started(90_000)], &[(60_000, 90_000, Failed)]);
        check(&[started(0), alive(60_000, Some(true)), started(61_000)], &[(60_000, 61_000, Stopped)]);
        // Starts that come to nothing are one outage, which has the cause of its begin.
        let vain = [started(0), alive(60_000, Some(true)), started(61_000), started(66_000), started(71_000)];
        check(&vain, &[(60_000, 71_000, Stopped)]);
        let two = [started(0), alive(60_000, None), started(61_000), alive(71_000, None), started(72_000)];
        check(&two, &[(60_000, 61_000, Failed), (71_000, 72_000, Failed)]);
        // The clock went back: nothing is known, so nothing is said.
        check(&[started(0), alive(60_000, None), started(50_000), alive(70_000, None)], &[]);
    }

    #[test]
    fn a_clock_that_was_ahead_once_hides_nothing_later() {
        use OutageCause::Failed;
        let ahead = [started(0), alive(60_000, None), started(9_000_000), alive(9_010_000, None)];
        let cut = [&ahead[..], &[alive(70_000, None), alive(90_000, None), started(200_000)]].concat();
        let life = check(&cut, &[(60_000, 70_000, Failed), (90_000, 200_000, Failed)]);
        assert_eq!((life.since, life.last_sign), (Timestamp(0), Timestamp(200_000)));
        // Two starts in the future, then one before all of it: what seemed to be outages were none.
        let dropped = [&ahead[..], &[started(9_100_000), started(50_000)]].concat();
        assert_eq!(check(&dropped, &[]).last_sign, Timestamp(50_000));
        // The first record of all was ahead.
        let life = check(&[started(9_000_000), alive(1_000, None)], &[]);
        assert_eq!((life.since, life.last_sign), (Timestamp(1_000), Timestamp(1_000)));
    }

    #[test]
    fn spans_are_joined_cut_and_taken_away() {
        assert_eq!(spans(&[(5, 7), (1, 3), (3, 4), (9, 9), (6, 8)]).0, spans(&[(1, 4), (5, 8)]).0);
        assert_eq!(spans(&[(1, 4), (5, 8)]).within(&spans(&[(3, 6), (7, 9)])), spans(&[(3, 4), (5, 6), (7, 8)]));
        assert_eq!(spans(&[(1, 9)]).without(&spans(&[(0, 2), (4, 5)])), spans(&[(2, 4), (5, 9)]));
        assert_eq!(spans(&[(1, 9)]).without(&Spans::default()).length_ms(), 8);
        assert_eq!(spans(&[(1, 9)]).without(&spans(&[(0, 10)])).length_ms(), 0);
    }

    proptest! {
        #[test]
        fn spans_hold_the_instants_that_they_should(
            a in proptest::collection::vec((0_i64..40, 0_i64..40), 0..6),
            b in proptest::collection::vec((0_i64..40, 0_i64..40), 0..6),
        ) {
            let holds = |spans: &Spans, at: i64| spans.0.iter().any(|(from, to)| from.0 <= at && at < to.0);
            let (a, b) = (spans(&a), spans(&b));
            let (both, left) = (a.within(&b), a.without(&b));
            for at in -1..41 {
                prop_assert_eq!(holds(&both, at), holds(&a, at) && holds(&b, at));
                prop_assert_eq!(holds(&left, at), holds(&a, at) && !holds(&b, at));
            }
            prop_assert_eq!(both.length_ms() + left.length_ms(), a.length_ms());
        }
    }

    const MINUTE: i64 = 60_000;

    fn at(minute: i64) -> Timestamp {
        Timestamp(minute * MINUTE)
    }

    fn node(outages: &[(i64, i64, OutageCause)]) -> NodeRecord {
        let outage = |(begin, end, cause): &(i64, i64, OutageCause)| NodeOutage {
            begin: at(*begin),
            end: at(*end),
            cause: *cause,
        };
        let outages = outages.iter().map(outage).collect();
        NodeRecord { node: "node1".to_owned(), since: at(-50), last_sign: at(900), outages }
    }

    fn trunk(since: i64, alarms: &[(i64, Option<i64>)]) -> TrunkRecord {
        let alarm = |(begin, end): &(i64, Option<i64>)| (at(*begin), end.map(at), "it does not answer".to_owned());
        let trunk = format!("{:032x}", 6).parse().unwrap();
        TrunkRecord { trunk, name: "Carrier".to_owned(), since: at(since), alarms: alarms.iter().map(alarm).collect() }
    }

    const PERIOD: Bounds = Bounds { from: Timestamp(0), to: Timestamp(1_000 * MINUTE) };

    fn minutes(ratio: Ratio) -> (i64, i64) {
        (ratio.numerator / MINUTE, ratio.denominator / MINUTE)
    }

    #[test]
    fn what_nobody_could_see_is_not_counted() {
        use OutageCause::{Failed, Stopped};
        // Begun before the period; 100 minutes after the last sign of life are unknown.
        let nodes = [node(&[(-10, 20, Failed), (100, 110, Stopped), (500, 505, Failed)])];
        // Down while the node was stopped, too; and still.
        let alarms = [(90, Some(120)), (300, Some(310)), (305, Some(320)), (850, None)];
        let found = availability(PERIOD, &nodes, vec![trunk(200, &[]), trunk(-1, &alarms)], true);
        assert_eq!(minutes(found.nodes[0].up_ms), (900 - 35, 900));
        assert_eq!((found.nodes[0].stopped_ms / MINUTE, found.nodes[0].failed_ms / MINUTE), (10, 25));
        assert_eq!(minutes(found.trunks[0].up_ms), (700 - 5, 700 - 5));
        assert_eq!(minutes(found.trunks[1].up_ms), (865 - 20 - 20 - 50, 865));
        let listed: Vec<_> = found.outages.iter().map(|o| (o.begin.0 / MINUTE, o.counted_ms / MINUTE)).collect();
        assert_eq!(listed, [(-10, 20), (90, 20), (100, 10), (300, 10), (305, 15), (500, 5), (850, 50)]);
        assert_eq!(found.outages[6].end, None);
        // A tenant sees its trunks with the same figures, and no node.
        let tenant = availability(PERIOD, &nodes, vec![trunk(-1, &alarms)], false);
        assert_eq!((tenant.nodes.len(), &tenant.trunks[0]), (0, &found.trunks[1]));
        assert!(tenant.outages.iter().all(|outage| matches!(outage.down, Down::Trunk(_))));
    }

    #[test]
    fn two_nodes_look_at_a_trunk_while_one_of_them_is_up() {
        let nodes = [node(&[(100, 200, OutageCause::Failed)]), node(&[(150, 250, OutageCause::Failed)])];
        let found = availability(PERIOD, &nodes, vec![trunk(-1, &[(160, Some(170))])], true);
        assert_eq!(minutes(found.trunks[0].up_ms), (850, 850), "both were down then");
    }

    #[test]
    fn a_full_list_keeps_the_longest() {
        let alarms: Vec<_> = (0..150).map(|n| (n * 5, Some(n * 5 + 1 + n % 3))).collect();
        let found = availability(PERIOD, &[node(&[])], vec![trunk(-1, &alarms)], true);
        assert_eq!((found.outages.len(), found.outages_left_out), (OUTAGES_MAX, 50));
        assert!(found.outages.iter().all(|outage| outage.counted_ms > MINUTE));
        assert!(found.outages.is_sorted_by_key(|outage| outage.begin));
    }

    #[test]
    fn a_second_of_a_month_shows() {
        let month = 30 * 86_400_000;
        let percent = |numerator, denominator| Ratio { numerator, denominator }.percent_rounded_down();
        assert_eq!(percent(month - 1_000, month).as_deref(), Some("99.999"));
        assert_eq!(percent(month, month).as_deref(), Some("100.000"));
        assert_eq!(percent(1, 3).as_deref(), Some("33.333"));
        assert_eq!(percent(0, 0), None);
    }
}
