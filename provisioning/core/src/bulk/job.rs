//! Jobs: a file that was sent, line by line on its way.

use std::str::FromStr;

use model::id::{AccountId, BulkJobId, ChangeId};
use model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::resource::Revision;

/// Lines of one job: the picture of a check is held in memory.
pub const LINES_MAX: u32 = 250_000;
/// Lines of a job that is done in one transaction or not at all: others wait for it, for seconds at most.
pub const ALL_OR_NOTHING_MAX: u32 = 10_000;

macro_rules! named {
    ($(#[$doc:meta])+ $name:ident { $($(#[$variant_doc:meta])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])+ #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// The stored name.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text,)+ } }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text { $($text => Ok(Self::$variant),)+ _ => Err(format!("{text} is not known")) }
            }
        }
    };
}

named! {
    /// How lines that are refused bear on the others.
    JobMode {
        /// Each line is done or refused for itself.
        PerLine = "per_line",
        /// One refused line, and none is done. At most [`ALL_OR_NOTHING_MAX`] lines.
        AllOrNothing = "all_or_nothing",
        /// Every line is decided, as if those before it were done, and nothing is done: a dry-run.
        Check = "check",
    }
}

named! {
    /// How far a job is.
    JobState {
        /// Its lines are on their way in.
        Uploading = "uploading",
        /// All lines are there; it can be started. Also after a check.
        Staged = "staged",
        /// Lines are done, or checked.
        Running = "running",
        /// Every line has a result.
        Finished = "finished",
        /// A line was refused, and all were to be done or none: nothing was done.
        Refused = "refused",
        /// It was cancelled; what was done before stays.
        Cancelled = "cancelled",
        /// It cannot go on, `reason` says why; what was done before stays.
        Stopped = "stopped",
    }
}

impl JobState {
    /// Whether nothing goes on with it, unless it is started again.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Refused | Self::Cancelled | Self::Stopped)
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkJob {
    /// Its identifier.
    pub id: BulkJobId,
    /// Whose it is: the names of its lines are read from this account down.
    pub account: AccountId,
    /// Name of the file, for people.
    pub name: String,
    /// How far it is.
    pub state: JobState,
    /// How it was started last.
    pub mode: Option<JobMode>,
    /// Lines that it has.
    pub total: u32,
    /// Lines that were done, or would be.
    pub applied: u32,
    /// Lines that ask for what is so already.
    pub unchanged: u32,
    /// Lines that were refused.
    pub refused: u32,
    /// Who started it last.
    pub started_by: Option<String>,
    /// Why it cannot go on.
    pub reason: Option<String>,
    /// When it was started last.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Version and times.
    pub revision: Revision,
}

named! {
    /// What became of a line.
    LineOutcome {
        /// It is done; in a check: it would be.
        Applied = "applied",
        /// All was as it says.
        Unchanged = "unchanged",
        /// It is refused, `refusals` say why.
        Refused = "refused",
    }
}

/// The result of a line.
#[derive(Debug, Clone, PartialEq)]
pub struct LineResult {
    /// The line of the file, counted from 1; in CSV the header is one.
    pub line: u32,
    /// What became of it.
    pub outcome: LineOutcome,
    /// The object that it is about.
    pub object: Option<model::change::ResourceRef>,
    /// The changes that did it, in their order: one for each account that it touched.
    pub changes: Vec<ChangeId>,
    /// Why it was refused.
    pub refusals: Vec<model::change::Refusal>,
    /// The SIP password that was drawn.
    pub password: Option<model::secret::Secret<String>>,
}
