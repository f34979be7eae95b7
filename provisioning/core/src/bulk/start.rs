//! Starting and cancelling bulk jobs.

use model::actor::ActorKind;
use model::change::{RefusalCode, ResourceKind};
use model::id::BulkJobId;

use super::job::{ALL_OR_NOTHING_MAX, BulkJob, JobMode, JobState};
use crate::decide::Case;
use crate::view::Write;

/// What is done line by line is taken back change by change.
const FINAL: &str = "what a job does is taken back by taking its changes back: its result names them";

pub(crate) fn start(case: &mut Case<'_>, id: BulkJobId, mode: JobMode) {
    let Some(before) = named(case, id) else { return };
    let refused = match before.state {
        JobState::Staged | JobState::Refused | JobState::Cancelled | JobState::Stopped => None,
        JobState::Uploading => Some(("its lines are not all there", "send the file to its end")),
        JobState::Running => Some(("it is running", "wait for its end, or cancel it")),
        JobState::Finished => {
            Some(("every line has its result", "send the lines that are to be done again as a new job"))
        }
    };
    if let Some((message, remedy)) = refused {
        case.refuse(RefusalCode::Conflict, "id", message, remedy);
    }
    let has_begun = before.state == JobState::Cancelled || before.state == JobState::Stopped;
    if has_begun && before.mode.is_some_and(|begun| begun == JobMode::PerLine && mode != begun) {
        let message = "it was begun line by line";
        case.refuse(RefusalCode::Conflict, "mode", message, "let it go on as it was begun");
    }
    if mode == JobMode::AllOrNothing && before.total > ALL_OR_NOTHING_MAX {
        let message = format!("it has {} lines, and at most {ALL_OR_NOTHING_MAX} are done all or none", before.total);
        case.invalid("mode", &message, "check it, then start it line by line, or divide it");
    }
    if case.ctx.actor.kind != ActorKind::Machine {
        let message = "a job runs with the rights of an API token";
        case.refuse(RefusalCode::Forbidden, "id", message, "start it with an API token");
    }
    let after = BulkJob {
        state: JobState::Running,
        mode: Some(mode),
        started_by: Some(case.ctx.actor.name.clone()),
        reason: None,
        started_at: Some(case.now),
        finished_at: None,
        ..next(case, before)
    };
    changed(case, before, &after);
    case.write(Write::BulkJobBegun { job: id, token: case.ctx.actor.id });
}

pub(crate) fn cancel(case: &mut Case<'_>, id: BulkJobId) {
    let Some(before) = named(case, id) else { return };
    match before.state {
        JobState::Finished | JobState::Cancelled => {
            case.refuse(RefusalCode::Conflict, "id", "it has ended", "take back what it did, change by change");
        }
        JobState::Uploading => {
            let message = "its lines are not all there";
            case.refuse(RefusalCode::Conflict, "id", message, "leave it: what is not sent to its end is forgotten");
        }
        JobState::Staged | JobState::Running | JobState::Refused | JobState::Stopped => {}
    }
    let after = BulkJob { state: JobState::Cancelled, finished_at: Some(case.now), ..next(case, before) };
    changed(case, before, &after);
}

fn next(case: &Case<'_>, before: &BulkJob) -> BulkJob {
    BulkJob { revision: case.next_revision(before.revision), ..before.clone() }
}

fn named<'a>(case: &mut Case<'a>, id: BulkJobId) -> Option<&'a BulkJob> {
    let found = case.view.job.as_ref().filter(|job| job.id == id);
    let found = found.filter(|_| case.owner().is_some());
    match found {
        Some(job) => case.looked_at(ResourceKind::BulkJob, id.uuid(), job.revision),
        None => case.missing("id", "bulk job", id),
    }
    found
}

fn changed(case: &mut Case<'_>, before: &BulkJob, after: &BulkJob) {
    case.is_final(FINAL);
    let write = Write::BulkJobUpdate(after.clone());
    case.effect((ResourceKind::BulkJob, after.id.uuid()), after.name.clone(), Some(before), Some(after), write);
}
