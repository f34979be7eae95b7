//! What must not stand in the tree: paths of one machine, unfinished work, ignored tests, fixed waits.

use std::fmt;
use std::path::Path;

/// Directories of one machine. A path in a program is configured, relative, or made by `mktemp`.
const MACHINE_PATHS: [&str; 4] = ["/home/", "/root/", "/tmp/", "/work/"];

/// What stands before an absolute path, or nothing; before anything else it is the rest of a longer one.
const PATH_BEFORE: [char; 7] = ['"', '\'', '`', ' ', '=', '(', ':'];

/// Words that Rust sources must not hold, with what to do instead.
const RUST_WORDS: [(&str, &str); 7] = [
    ("TODO", "do it, or file an issue"),
    ("FIXME", "do it, or file an issue"),
    ("todo!", "do it, or leave room without a stub"),
    ("unimplemented!", "do it, or leave room without a stub"),
    ("#[ignore", "a test runs or does not exist"),
    ("thread::sleep", "advance the clock, step the worker, or wait on a predicate with a bound"),
    ("time::sleep(", "advance the clock, step the worker, or wait on a predicate with a bound"),
];

/// Where a word may stand all the same: file, word, reason. An entry without a use is a finding too.
const ALLOWED: [(&str, &str, &str); 16] = [
    ("api/graphql/src/subscription.rs", "time::sleep(", "a job is looked at again whether it has come further"),
    ("api/tandem/src/cli/apply.rs", "time::sleep(", "the daemon is asked again how far a job is"),
    ("api/tandem/src/cli/report.rs", "time::sleep(", "the daemon is asked again whether a run is finished"),
    ("api/tandem/src/demo/alarm.rs", "time::sleep(", "listens for a notification that must not come"),
    ("api/tandem/src/demo/mod.rs", "time::sleep(", "calls are up for a while before the kill"),
    ("api/tandem/src/wiring/worker.rs", "time::sleep(", "the period of a worker, cut short by a signal or the stop"),
    ("schemas/db/src/store.rs", "time::sleep(", "the pause before a transaction that collided is tried again"),
    ("tests/e2e/benches/figures/provisioning.rs", "time::sleep(", "a bench asks again until it is done"),
    ("tests/e2e/src/load/peers.rs", "thread::sleep", "a peer is asked again whether it is ready"),
    ("tests/e2e/src/load/rtp.rs", "thread::sleep", "a generator's pause when it has nothing to do"),
    ("tests/e2e/src/load/sip.rs", "thread::sleep", "a generator's pause when it has nothing to do"),
    ("tests/e2e/src/load/world.rs", "time::sleep(", "the daemon is asked again whether it is ready"),
    ("tests/e2e/tests/phones.rs", "time::sleep(", "the time for which phones talk"),
    ("tests/e2e/tests/bulk.rs", "time::sleep(", "the moment of a kill is drawn, and a job is asked for with a bound"),
    ("tests/e2e/tests/kill.rs", "time::sleep(", "the moment of a kill is drawn, not waited for"),
    ("tests/testkit/src/wait.rs", "time::sleep(", "the one wait on a predicate with a bound"),
];

/// This file must name what it looks for.
const OWN_FILE: &str = "tests/xtask/src/hygiene.rs";

/// Files above this size are data, not text that somebody wrote.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Something that must not stand where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, below the root.
    file: String,
    /// The line, from 1; 0: the whole file.
    line: usize,
    /// What is wrong, and what to do.
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Looks through the files. What is no text, or gone since git listed it, is passed over.
pub fn check(root: &Path, files: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = [false; ALLOWED.len()];
    for file in files.iter().filter(|file| *file != OWN_FILE) {
        let Ok(bytes) = std::fs::read(root.join(file)) else { continue };
        if bytes.len() > FILE_BYTES_MAX {
            continue;
        }
        if let Ok(text) = String::from_utf8(bytes) {
            check_text(file, &text, &ALLOWED, &mut used, &mut findings);
        }
    }
    for ((file, word, _), _) in ALLOWED.iter().zip(used).filter(|(_, used)| !used) {
        let message = format!("is allowed to hold `{word}` and does not: take it off the list in {OWN_FILE}");
        findings.push(Finding { file: (*file).to_owned(), line: 0, message });
    }
    findings
}

fn check_text(file: &str, text: &str, allowed: &[(&str, &str, &str)], used: &mut [bool], findings: &mut Vec<Finding>) {
    let is_rust = Path::new(file).extension().is_some_and(|extension| extension == "rs");
    for (number, line) in text.lines().enumerate() {
        let mut found = |message: String| findings.push(Finding { file: file.to_owned(), line: number + 1, message });
        for path in MACHINE_PATHS.iter().filter(|path| holds_path(line, path)) {
            found(format!("`{path}` is a path of one machine: configure it, or make it with mktemp or tempfile"));
        }
        if !is_rust {
            continue;
        }
        for (word, remedy) in RUST_WORDS.iter().filter(|(word, _)| line.contains(word)) {
            match allowed.iter().position(|(path, name, _)| *path == file && name == word) {
                Some(entry) => used[entry] = true,
                None => found(format!("`{word}`: {remedy}")),
            }
        }
    }
}

/// Whether the line holds the path as an absolute one, not as the end of a longer path or URL.
fn holds_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        line.get(..at).and_then(|before| before.chars().next_back()).is_none_or(|before| PATH_BEFORE.contains(&before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(file: &str, text: &str) -> Vec<usize> {
        let mut findings = Vec::new();
        check_text(file, text, &[("a/wait.rs", "time::sleep(", "the reason")], &mut [false], &mut findings);
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn each_word_is_found_in_rust_alone() {
        for (word, _) in RUST_WORDS {
            assert_eq!(lines("a/b.rs", &format!("fn x() {{}}\n    {word}\n")), [2], "{word}");
            assert!(lines("a/b.md", word).is_empty(), "{word}");
        }
    }

    #[test]
    fn an_entry_allows_one_word_in_one_file() {
        assert!(lines("a/wait.rs", "time::sleep(STEP)").is_empty());
        assert_eq!(lines("a/wait.rs", "thread::sleep(STEP)"), [1]);
        assert_eq!(lines("a/other.rs", "time::sleep(STEP)"), [1]);
    }

    #[test]
    fn paths_of_a_machine_are_absolute_ones() {
        for path in MACHINE_PATHS {
            assert_eq!(lines("a.toml", &format!("dir = \"{path}x\"")), [1], "{path}");
            assert_eq!(lines("Makefile", &format!("{path}x")), [1], "{path}");
            assert!(lines("a.md", &format!("see docs{path}x and https://example.org{path}x")).is_empty(), "{path}");
        }
    }

    #[test]
    fn an_allowance_that_nobody_uses_is_a_finding() {
        assert_eq!(check(Path::new("no-such-directory"), &[]).len(), ALLOWED.len());
    }
}
