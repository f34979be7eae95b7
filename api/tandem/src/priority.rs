//! Calls come first: what this process does besides them asks the kernel for less.

use std::path::Path;

use rustix::process::{Pid, setpriority_process};

/// Niceness of every thread that is not of the call core (setpriority(2)): under load such a thread gets about a ninth
/// of what a thread of signalling, media or journal gets, and is preempted by it.
const NICENESS: i32 = 10;
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
    let main_name = name_of(Path::new("/proc/self"));
    for task in tasks.flatten() {
        let thread = task.file_name().to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        let name = name_of(&task.path());
        // A thread that still has the main thread's name has not run yet: it may be one of the call core.
        let is_unnamed = name == main_name && thread != Some(own);
        if is_call_core(&name) || is_unnamed {
            continue;
        }
        // Being nicer is never refused to a process for its own threads; one that has ended needs none.
        let _given = setpriority_process(thread, NICENESS);
    }
}
