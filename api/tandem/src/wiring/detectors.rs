//! Detectors: what is wrong now, as the full set of conditions each; the authority clears what is no longer in it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use db::journal::{ADMIT_BACKLOG_MAX, Health, Journal};
use fault::catalogue::{AlarmType, detector};
use fault::port::AlarmAuthority;
use fault::resource::{Alarm, Condition};
use fault_store::NodeAlarms;
use model::time::{Clock, Timestamp};
use reports_store::ReportsStore;
use reports_store::availability::TRUNK_RESOURCE;
use reports_store::troubles::TroubleKind;
use sip_services::directory::{Directory, Trunk};
use sip_services::trunk::TrunkReason;
use sip_transport::Node;

use super::consumers::{ConsumerLags, LAG_MAX};
use super::directory::LeftOut;
use super::duty::Duty;
use super::standing::keep_standing;
use super::worker::{Step, StepError, WorkerBoard};

/// How long a worker may fail, or a consumer be behind, before it is an alarm: a restart of the store is none.
const TROUBLE_MIN_MS: i64 = 5_000;
/// How long a step of a worker may take: the longest, a monthly report, takes seconds.
const STEP_MAX_MS: i64 = 300_000;
/// Records behind which the journal counts as lagging: half of what it may hold before it refuses calls.
const BACKLOG_MAX: usize = ADMIT_BACKLOG_MAX / 2;
/// Age of the oldest waiting record at which the journal counts as lagging.
const LAG_MAX_MS: u64 = 1_000;
/// How long after a refused call the journal counts as lagging: several looks, so that one alarm covers a bad minute.
const REFUSED_MS: i64 = 30_000;

/// What the detectors look at.
pub struct Detectors {
    /// Where conditions are reported.
    pub authority: NodeAlarms,
    /// The call core, for its trunks.
    pub node: Arc<Node>,
    /// Names of trunks and their owners.
    pub directory: Arc<ArcSwap<Directory>>,
    /// The journal.
    pub journal: Journal,
    /// The workers.
    pub board: WorkerBoard,
    /// How far the consumers are behind.
    pub lags: ConsumerLags,
    /// What the call core cannot use.
    pub left_out: Arc<ArcSwap<LeftOut>>,
    /// Name of this node.
    pub node_name: Arc<str>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// What is wrong with a trunk, for people.
fn trouble(reason: TrunkReason, trunk: &Trunk) -> String {
    let (name, address) = (&trunk.name, trunk.address);
    let registrar = trunk.registration.as_ref().map_or(address, |registration| registration.registrar);
    match reason {
        TrunkReason::RegistrationRefused(status) => {
            format!("trunk {name}: the registrar {registrar} refuses our registration with {status}")
        }
        TrunkReason::RegistrationExpired => {
            format!("trunk {name}: our registration at {registrar} has ended, and it does not answer")
        }
        TrunkReason::Unanswered | TrunkReason::Answered | TrunkReason::Unwatched | TrunkReason::Registered => {
            format!("trunk {name} at {address} does not answer")
        }
    }
}

/// What is wrong with reports. It reads the store, so it is a worker of its own: a store that is away neither keeps
/// the other detectors waiting nor clears an alarm.
pub struct ReportDetector {
    /// Which node looks.
    pub duty: Duty,
    /// Where conditions are reported.
    pub authority: Arc<dyn AlarmAuthority>,
    /// The reports.
    pub reports: Arc<ReportsStore>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl ReportDetector {
    /// Looks once, when it is this node's duty. What an earlier holder told, it takes back when it sees that it no longer
    /// is.
    ///
    /// # Errors
    /// When the store fails or the node database cannot be written.
    pub async fn look(&self) -> Result<Step, StepError> {
        let conditions = if self.duty.is_ours().await? { self.conditions().await? } else { Vec::new() };
        self.authority.observe(detector::REPORTS, conditions, self.clock.now().utc).await?;
        Ok(Step::Idle)
    }

    async fn conditions(&self) -> Result<Vec<Condition>, StepError> {
        let conditions = self.reports.troubles().await?.into_iter().map(|trouble| Condition {
            alarm_type: match trouble.kind {
                TroubleKind::Failed => AlarmType::ReportFailed,
                TroubleKind::Undelivered => AlarmType::MailUndeliverable,
            },
            resource: format!("report:{}", trouble.run),
            path: Some(trouble.path),
            severity: None,
            text: trouble.text,
        });
        Ok(conditions.collect())
    }
}

impl Detectors {
    /// Looks at everything once.
    ///
    /// # Errors
    /// When the node database cannot be written.
    pub async fn look(&self) -> Result<Step, StepError> {
        let now = self.clock.now().utc;
        self.authority.observe(detector::TRUNKS, self.trunks(self.authority.active().await?), now).await?;
        self.authority.observe(detector::JOURNAL, self.journal(now), now).await?;
        self.authority.observe(detector::CONSUMERS, self.consumers(now), now).await?;
        self.authority.observe(detector::WORKERS, self.workers(now), now).await?;
        self.authority.observe(detector::DIRECTORY, self.directory(), now).await?;
        Ok(Step::Idle)
    }

    /// A trunk that was down before a start is down until something that watches it has had an outcome.
    fn trunks(&self, active: Vec<Alarm>) -> Vec<Condition> {
        let directory = self.directory.load();
        let states = &self.node.shared().trunks;
        let is_unknown = |resource: &str| {
            let id = resource.strip_prefix(TRUNK_RESOURCE).and_then(|id| id.parse().ok());
            id.and_then(|id| directory.trunk(id)).is_some_and(|trunk| !states.is_known(trunk))
        };
        // Before what is down: what becomes known meanwhile is in one of them.
        let mut standing = Vec::new();
        keep_standing(&mut standing, active, AlarmType::TrunkDown, is_unknown);
        let down = self.node.trunk_states().list();
        let mut conditions: Vec<Condition> = down
            .into_iter()
            .filter_map(|down| {
                let trunk = directory.trunk(down.trunk)?;
                Some(Condition {
                    alarm_type: AlarmType::TrunkDown,
                    // The reports read the history of this alarm.
                    resource: format!("{TRUNK_RESOURCE}{}", trunk.id),
                    path: Some(trunk.path.clone()),
                    severity: None,
                    text: trouble(down.reason, trunk),
                })
            })
            .collect();
        standing.retain(|alarm| conditions.iter().all(|down| down.resource != alarm.resource));
        conditions.append(&mut standing);
        conditions
    }

    fn journal(&self, now: Timestamp) -> Vec<Condition> {
        let (backlog, lag_ms) = (self.journal.backlog(), self.journal.lag_ms());
        let refused_at = self.journal.refused_at().filter(|at| now.ms_since(*at) < REFUSED_MS);
        let text = match self.journal.health() {
            Health::Failing { since, error } => format!("the journal cannot be written since {since}: {error}"),
            // The detectors stop before an orderly close: this is the end of its writer.
            Health::Closed => "the journal takes no records any more: restart the node".to_owned(),
            Health::Good if backlog > BACKLOG_MAX || lag_ms > LAG_MAX_MS => {
                format!("{backlog} records wait for the disk, the oldest for {lag_ms} ms")
            }
            Health::Good => match refused_at {
                Some(at) => format!("calls were refused because the disk is slow, the last one at {at}"),
                None => return Vec::new(),
            },
        };
        let resource = format!("journal:{}", self.node_name);
        vec![Condition { alarm_type: AlarmType::JournalLag, resource, path: None, severity: None, text }]
    }

    fn consumers(&self, now: Timestamp) -> Vec<Condition> {
        let lags = self.lags.list().into_iter();
        let behind = lags.filter_map(|(consumer, lag)| Some((consumer, lag.records, lag.over_since?)));
        behind
            .filter(|(.., since)| now.ms_since(*since) >= TROUBLE_MIN_MS)
            .map(|(consumer, records, since)| Condition {
                alarm_type: AlarmType::ConsumerLag,
                resource: format!("consumer:{}/{consumer}", self.node_name),
                path: None,
                severity: None,
                text: format!("{consumer} is {records} records behind, and more than {LAG_MAX} since {since}"),
            })
            .collect()
    }

    fn workers(&self, now: Timestamp) -> Vec<Condition> {
        let condition = |worker: &str, text: String| Condition {
            alarm_type: AlarmType::WorkerFailing,
            resource: format!("worker:{}/{worker}", self.node_name),
            path: None,
            severity: None,
            text,
        };
        let troubles = self.board.troubles();
        let fails = troubles.iter().filter(|(_, trouble)| now.ms_since(trouble.since) >= TROUBLE_MIN_MS);
        let mut conditions: Vec<Condition> = fails
            .map(|(worker, trouble)| {
                condition(worker, format!("{worker} fails since {}: {}", trouble.since, trouble.error))
            })
            .collect();
        let steps = self.board.steps().into_iter();
        let hangs =
            steps.filter(|(worker, since)| now.ms_since(*since) >= STEP_MAX_MS && !troubles.contains_key(worker));
        conditions.extend(hangs.map(|(worker, since)| {
            condition(&worker, format!("{worker} has not come back from a step that it began at {since}"))
        }));
        let dead = self.node.shards_dead();
        if dead > 0 {
            let text = format!("{dead} shards of the call core have ended, with their calls: restart the node");
            conditions.push(condition("sip_shards", text));
        }
        conditions
    }

    fn directory(&self) -> Vec<Condition> {
        let left_out = self.left_out.load();
        left_out
            .iter()
            .map(|(resource, why)| Condition {
                alarm_type: AlarmType::DirectoryIncomplete,
                resource: format!("{}:{}", resource.kind.as_str(), resource.id),
                path: None,
                severity: None,
                text: why.clone(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_find_the_alarm_of_trunks_by_its_key() {
        assert_eq!(reports_store::availability::TRUNK_DOWN, AlarmType::TrunkDown.key());
    }
}
