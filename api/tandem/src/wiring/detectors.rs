//! Detectors: what is wrong now, as the full set of conditions each; the authority clears what is no longer in it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use db::journal::{Health, Journal};
use fault::catalogue::AlarmType;
use fault::port::AlarmAuthority;
use fault::resource::Condition;
use model::time::{Clock, Timestamp};
use sip_services::directory::Directory;
use sip_transport::Node;

use super::worker::{Step, StepError, WorkerBoard};

/// How long a worker may fail before it is an alarm: a restart of the store is none.
const TROUBLE_MIN_MS: i64 = 5_000;
/// Records behind which the journal counts as lagging.
const BACKLOG_MAX: usize = 4_096;
/// Age of the oldest waiting record at which the journal counts as lagging.
const LAG_MAX_MS: u64 = 1_000;

/// What the detectors look at.
pub struct Detectors {
    /// Where conditions are reported.
    pub authority: Arc<dyn AlarmAuthority>,
    /// The call core, for its trunks.
    pub node: Arc<Node>,
    /// Names of trunks and their owners.
    pub directory: Arc<ArcSwap<Directory>>,
    /// The journal.
    pub journal: Journal,
    /// The workers.
    pub board: WorkerBoard,
    /// Name of this node.
    pub node_name: Arc<str>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Detectors {
    /// Looks at everything once.
    ///
    /// # Errors
    /// When the node database cannot be written.
    pub async fn look(&self) -> Result<Step, StepError> {
        let now = self.clock.now().utc;
        self.authority.observe("trunks", self.trunks(), now).await?;
        self.authority.observe("journal", self.journal(), now).await?;
        self.authority.observe("consumers", self.consumers(now), now).await?;
        Ok(Step::Idle)
    }

    fn trunks(&self) -> Vec<Condition> {
        let directory = self.directory.load();
        let down = self.node.trunk_states().list();
        down.into_iter()
            .filter_map(|down| {
                let trunk = directory.trunk(down.trunk)?;
                Some(Condition {
                    alarm_type: AlarmType::TrunkDown,
                    resource: format!("trunk:{}", trunk.id),
                    path: Some(trunk.path.clone()),
                    severity: None,
                    text: format!("trunk {} at {} does not answer", trunk.name, trunk.address),
                })
            })
            .collect()
    }

    fn journal(&self) -> Vec<Condition> {
        let (backlog, lag_ms) = (self.journal.backlog(), self.journal.lag_ms());
        let text = match self.journal.health() {
            Health::Failing { since, error } => format!("the journal cannot be written since {since}: {error}"),
            Health::Closed => return Vec::new(),
            Health::Good if backlog > BACKLOG_MAX || lag_ms > LAG_MAX_MS => {
                format!("{backlog} records wait for the disk, the oldest for {lag_ms} ms")
            }
            Health::Good => return Vec::new(),
        };
        let resource = format!("journal:{}", self.node_name);
        vec![Condition { alarm_type: AlarmType::JournalLag, resource, path: None, severity: None, text }]
    }

    fn consumers(&self, now: Timestamp) -> Vec<Condition> {
        let troubles = self.board.troubles();
        troubles
            .into_iter()
            .filter(|(_, trouble)| now.ms_since(trouble.since) >= TROUBLE_MIN_MS)
            .map(|(worker, trouble)| Condition {
                alarm_type: AlarmType::ConsumerLag,
                resource: format!("worker:{}/{worker}", self.node_name),
                path: None,
                severity: None,
                text: format!("{worker} fails since {}: {}", trouble.since, trouble.error),
            })
            .collect()
    }
}
