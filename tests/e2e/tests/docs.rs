//! A page that lies fails here: every shell block that the documentation shows to a user is run, page by page, against
//! an installation that the demo left. What a page promises it proves itself, by commands that fail when it does not
//! hold. How a fence says what becomes of its block: `tandem_e2e::pages`.
#![expect(clippy::panic, reason = "a test that fails says why")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tandem_e2e::page_shell::Desk;
use tandem_e2e::pages::{Kind, Page};
use tandem_e2e::program;

/// The pages that are run; the first one shows how to make and start the installation that all of them use.
const PAGES: [&str; 12] = [
    "README.md",
    "docs/tutorial.md",
    "docs/guides/install.md",
    "docs/guides/sell-as-a-reseller.md",
    "docs/guides/import-customers.md",
    "docs/guides/load-billing-files.md",
    "docs/guides/receive-traps.md",
    "docs/guides/read-the-monthly-report.md",
    "docs/interfaces/provisioning.md",
    "docs/interfaces/billing-files.md",
    "docs/interfaces/snmp.md",
    "docs/operating/first-steps.md",
];
/// Blocks for root that are shown and not run, over all pages: few, since nothing proves them.
const ROOT_BLOCKS_MAX: usize = 6;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the root of the repository")
}

fn page(path: &str) -> Page {
    Page::read(&root(), path).unwrap_or_else(|complaint| panic!("{complaint}"))
}

#[tokio::test]
async fn every_block_of_every_page_runs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (root, pages) = (root(), PAGES.map(page));
    let desk = Desk::set_up(dir.path(), &root, &program(), &pages[0]).await;
    let desk = desk.unwrap_or_else(|complaint| panic!("the installation: {complaint}"));
    let mut failures = Vec::new();
    for page in &pages {
        match desk.run(page).await {
            Ok(0) => failures.push(format!("{}: has no block that can be run", page.path)),
            Ok(blocks) => println!("{}: {blocks} blocks", page.path),
            Err(complaint) => failures.push(complaint),
        }
    }
    assert!(failures.is_empty(), "{} of {} pages fail\n\n{}", failures.len(), pages.len(), failures.join("\n\n"));
}

#[test]
fn no_page_shows_commands_that_nothing_runs() {
    let mut files = BTreeSet::new();
    for folder in ["docs", "deploy"] {
        markdown(&root(), Path::new(folder), &mut files);
    }
    let mut root_blocks = 0;
    for file in files.iter().filter(|file| !PAGES.contains(&file.as_str())) {
        let page = page(file);
        let unrun: Vec<usize> = page.executable().map(|block| block.line).collect();
        assert!(unrun.is_empty(), "{file}: lines {unrun:?} are run by nothing: add the page to PAGES");
    }
    for file in files.iter().map(String::as_str).chain(["README.md"]) {
        for block in page(file).blocks.iter().filter(|block| block.kind == Kind::Root) {
            root_blocks += 1;
            let read = std::process::Command::new("bash").args(["-n", "-c", &block.text]).stdin(Stdio::null()).output();
            let read = read.expect("bash is there");
            assert!(read.status.success(), "{file}:{}: {}", block.line, String::from_utf8_lossy(&read.stderr));
        }
    }
    assert!(root_blocks <= ROOT_BLOCKS_MAX, "{root_blocks} blocks for root: run what does not need it");
}

/// Markdown files below a folder, as paths below the root.
fn markdown(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(root.join(folder)).expect("the folder is there") {
        let entry = entry.expect("it can be listed");
        let path = folder.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            markdown(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.insert(path.display().to_string());
        }
    }
}
