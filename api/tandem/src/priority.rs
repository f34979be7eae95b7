//! Calls come first: what this process does besides them asks the kernel for less.

use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, getpriority_process, setpriority_process};

/// How much nicer than the process every thread is that is not of the call core (setpriority(2)): under load such a
/// thread gets about a ninth of what a thread of signalling, media or journal gets, and is preempted by it.
const NICER_BY: i32 = 10;
/// The highest niceness there is (setpriority(2)).
const NICENESS_MAX: i32 = 19;
/// How the names of the call core's threads begin: signalling, media, journal.
const CALL_CORE: [&str; 3] = ["sip-", "media-", "journal"];

/// Whether the thread of this name belongs to the call core.
#[must_use]
pub fn is_call_core(name: &str) -> bool {
    CALL_CORE.iter().any(|begin| name.starts_with(begin))
}

/// Makes all threads besides the call core's give way to these: the runtime with consumers and faces, the threads of
/// the database, and the calling main thread. Threads that these start later inherit it. To be called on the main
/// thread, which has started the call core.
pub fn put_calls_first() {
    let own = rustix::process::getpid();
    let name_of = |task: &Path| std::fs::read_to_string(task.join("comm")).unwrap_or_default().trim().to_owned();
    let tasks = match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => tasks,
        Err(error) => return tracing::warn!(%error, "threads cannot be listed: all keep the same priority"),
    };
    // A unit with Nice= starts the process where a fixed niceness might be below what the call core has.
    let niceness = match getpriority_process(None) {
        Ok(own) => nicer(own),
        Err(error) => return tracing::warn!(%error, "niceness cannot be read: all threads keep the same priority"),
    };
    let mut refused = None;
    let main_name = name_of(Path::new("/proc/self"));
    for task in tasks.flatten() {
        let thread = task.file_name().to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        let name = name_of(&task.path());
        // A thread that still has the main thread's name has not run yet: it may be one of the call core.
        let is_unnamed = name == main_name && thread != Some(own);
        if is_call_core(&name) || is_unnamed {
            continue;
        }
        match setpriority_process(thread, niceness) {
            // one that has ended meanwhile needs none
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => refused = Some((name, error)),
        }
    }
    if let Some((thread, error)) = refused {
        tracing::warn!(thread, %error, "threads beside the calls' keep the priority of these: check the unit's filters");
    }
}

/// The niceness of the other threads of a process that has `own`.
const fn nicer(own: i32) -> i32 {
    let wanted = own.saturating_add(NICER_BY);
    if wanted < NICENESS_MAX { wanted } else { NICENESS_MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_never_less_nice_than_the_calls() {
        for (own, others) in [(-20, -10), (-5, 5), (0, 10), (9, 19), (15, 19), (19, 19)] {
            assert_eq!(nicer(own), others, "{own}");
        }
    }
}
