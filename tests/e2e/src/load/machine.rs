//! Cores, priorities, the CPU time and the memory of processes, as Linux tells them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The core of the server that is measured.
pub const SERVER_CORE: usize = 0;
/// The core of the load, and of what of the server is not measured.
pub const LOAD_CORE: usize = 1;
/// Round-robin priority of both: above all other work of the machine.
const PRIORITY: &str = "10";

/// Whether this process may use real-time priorities.
#[must_use]
pub fn is_realtime() -> bool {
    nix::unistd::geteuid().is_root()
}

/// What the kernel prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Real-time, where that is allowed: other work of the machine stays out of the figure.
    RealTime,
    /// That of any program: its threads stand to each other as they do when it is not measured.
    Ordinary,
}

/// `program` on one core; both commands are Debian's `util-linux`.
#[must_use]
pub fn pinned(program: &Path, core: usize, priority: Priority) -> Command {
    let core = core.to_string();
    let mut words: Vec<&str> = Vec::new();
    if priority == Priority::RealTime && is_realtime() {
        words.extend(["chrt", "-r", PRIORITY]);
    }
    words.extend(["taskset", "-c", &core]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(program);
    command
}

/// Moves a thread that runs already to a core, at ordinary priority: it must starve neither the load, when they share
/// the core, nor the kernel's threads that bring the journal's writes to the disk.
///
/// # Panics
/// When the machine refuses.
pub fn move_thread(thread: u32, core: usize) {
    let (thread, core) = (thread.to_string(), core.to_string());
    run(&["taskset", "-cp", &core, &thread]);
    if is_realtime() {
        run(&["chrt", "-o", "-p", "0", &thread]);
    }
}

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().expect("util-linux is installed");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The threads of a process and of those that it started: name and id.
#[must_use]
pub fn threads(root: u32) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for process in tree(root) {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { continue };
        for task in tasks.flatten() {
            let Some(id) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            found.push((name.trim().to_owned(), id));
        }
    }
    found
}

/// A process and all that it started.
fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name in brackets may hold anything; the parent stands two words behind it.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if let Some(parent) = parent.and_then(|parent| parent.parse().ok()) {
            children.entry(parent).or_default().push(id);
        }
    }
    let (mut found, mut open) = (Vec::new(), vec![root]);
    while let Some(id) = open.pop() {
        found.push(id);
        open.extend(children.remove(&id).unwrap_or_default());
    }
    found
}

/// CPU time that the threads of a process tree have used, nanoseconds by thread.
#[derive(Debug, Clone, Default)]
pub struct CpuTime(BTreeMap<(u32, String), u64>);

impl CpuTime {
    /// As of now.
    #[must_use]
    pub fn of(root: u32) -> Self {
        let of = |(name, id): (String, u32)| {
            // RUNNING WAITING SLICES (Documentation/scheduler/sched-stats.rst of Linux).
            let text = std::fs::read_to_string(format!("/proc/{id}/schedstat")).ok()?;
            Some(((id, name), text.split_whitespace().next()?.parse().ok()?))
        };
        Self(threads(root).into_iter().filter_map(of).collect())
    }

    /// Microseconds since `before`, of the threads whose name passes.
    #[must_use]
    pub fn us_since(&self, before: &Self, passes: impl Fn(&str) -> bool) -> f64 {
        let own = self.0.iter().filter(|((_, name), _)| passes(name));
        own.map(|(key, now)| now.saturating_sub(before.0.get(key).copied().unwrap_or(0)) as f64 / 1_000.0).sum()
    }
}

/// Memory of a process tree that nobody else would give back, kB (proportional set size).
#[must_use]
pub fn memory_kb(root: u32) -> u64 {
    let of = |id: u32| {
        let text = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    tree(root).into_iter().filter_map(of).sum()
}

/// What the figures were taken on, one line.
#[must_use]
pub fn describe() -> String {
    let first = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let disk = Command::new("findmnt").args(["-no", "FSTYPE", "-T"]).arg(std::env::temp_dir()).output();
    let disk = disk.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let disk =
        if disk == "tmpfs" { "tmpfs: NOTHING IS DURABLE, set TMPDIR to a folder of a disk".to_owned() } else { disk };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let priority = if is_realtime() { "real-time priority" } else { "ordinary priority: other work is in the figures" };
    format!(
        "{cores} cores, {}, Linux {}, {} memory, journal on {disk}; server on core {SERVER_CORE}, load on core {LOAD_CORE}, {priority}",
        first("/proc/cpuinfo", "model name"),
        kernel.trim(),
        first("/proc/meminfo", "MemTotal")
    )
}
