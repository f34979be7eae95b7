//! Runs the blocks of a page as a reader would: one shell per page, programs in the background beside it, in a directory
//! that is as if the repository had been checked out there.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tandem::config::Config;
use tandem::demo::process::{free_tcp, free_udp};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::pages::{Block, Kind, Page};

/// Longest run of one block, a fetch of a package from the network included.
const BLOCK_MAX: Duration = Duration::from_secs(90);
/// Longest run of the block that makes the installation.
const INSTALLATION_MAX: Duration = Duration::from_secs(180);
/// Until a program in the background is ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// Until it has ended after SIGTERM.
const END_MAX: Duration = Duration::from_secs(20);
/// How often a readiness is asked for.
const ASK_PERIOD: Duration = Duration::from_millis(50);
/// Output of a failed block that is shown: its end.
const OUTPUT_LINES_MAX: usize = 60;
/// The directory that `sh installation` makes.
const INSTALLATION: &str = "demo-installation";

/// What stands for `cargo` on the path: pages run the program that was built, they do not build.
const CARGO: &str = r#"#!/bin/sh
if [ "$1 $2 $3" != "run --release --" ]; then
  echo "cargo $*: pages run 'cargo run --release -- ARGUMENTS'" >&2
  exit 64
fi
shift 3
exec tandem "$@"
"#;

/// Where pages run.
#[derive(Debug)]
pub struct Desk {
    dir: PathBuf,
    root: PathBuf,
    path: String,
    /// The block that made the installation.
    installation: Block,
    /// The block that starts it, for pages that do not say it themselves.
    serve: Block,
}

impl Desk {
    /// Sets up `dir` and makes the installation, both by the words of `first`: the page that shows how.
    ///
    /// # Errors
    /// What is missing on the page, or what went wrong.
    pub async fn set_up(dir: &Path, root: &Path, program: &Path, first: &Page) -> Result<Self, String> {
        let of = |wanted: fn(&Kind) -> bool| first.blocks.iter().find(|block| wanted(&block.kind)).cloned();
        let installation = of(|kind| *kind == Kind::Installation).ok_or("the first page makes no installation")?;
        let serve = of(|kind| matches!(kind, Kind::Background(_))).ok_or("the first page starts no daemon")?;
        let programs = dir.join("programs");
        std::fs::create_dir_all(&programs).map_err(text)?;
        std::os::unix::fs::symlink(program, programs.join("tandem")).map_err(text)?;
        let cargo = programs.join("cargo");
        std::fs::write(&cargo, CARGO).map_err(text)?;
        std::fs::set_permissions(&cargo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(text)?;
        // Daemons lie in a directory that is not on every user's path.
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}:/usr/local/sbin:/usr/sbin:/sbin", programs.display());
        let desk = Self { dir: dir.to_owned(), root: root.to_owned(), path, installation, serve };
        desk.clear().await?;
        let mut shell = Shell::start(&desk)?;
        let made = shell.run(0, &desk.installation.text, INSTALLATION_MAX).await;
        shell.end().await;
        made.map_err(|output| format!("{}:{}: {output}", first.path, desk.installation.line))?;
        copy(&desk.reader().join(INSTALLATION), &desk.dir.join("kept")).await?;
        Ok(desk)
    }

    /// The reader's directory.
    fn reader(&self) -> PathBuf {
        self.dir.join("reader")
    }

    /// The reader's directory as after a check-out.
    async fn clear(&self) -> Result<(), String> {
        for name in ["reader", "blocks"] {
            if self.dir.join(name).exists() {
                tokio::fs::remove_dir_all(self.dir.join(name)).await.map_err(text)?;
            }
            tokio::fs::create_dir(self.dir.join(name)).await.map_err(text)?;
        }
        for name in ["deploy", "schemas"] {
            std::os::unix::fs::symlink(self.root.join(name), self.reader().join(name)).map_err(text)?;
        }
        Ok(())
    }

    /// Runs a page on an installation of its own; gives the number of blocks that were run.
    ///
    /// # Errors
    /// Page, line and output of the first block that failed.
    pub async fn run(&self, page: &Page) -> Result<usize, String> {
        self.clear().await?;
        copy(&self.dir.join("kept"), &self.reader().join(INSTALLATION)).await?;
        let mut shell = Shell::start(self)?;
        let mut beside = Vec::new();
        let run = self.run_blocks(page, &mut shell, &mut beside).await;
        shell.end().await;
        for program in beside.into_iter().rev() {
            program.end().await;
        }
        run
    }

    async fn run_blocks(&self, page: &Page, shell: &mut Shell, beside: &mut Vec<Background>) -> Result<usize, String> {
        let at = |block: &Block, complaint: String| format!("{}:{}: {complaint}", page.path, block.line);
        let ports = Ports::draw().map_err(text)?;
        if !page.executable().any(serves) {
            let started = self.start(0, &self.serve, &ports).await;
            beside.push(started.map_err(|complaint| format!("{}: the daemon before it: {complaint}", page.path))?);
        }
        let mut count = 0;
        for (number, block) in page.executable().enumerate() {
            count = number + 1;
            let commands = ports.put_into(&block.text);
            match &block.kind {
                Kind::Installation if block.text != self.installation.text => {
                    return Err(at(block, format!("another page says: {}", self.installation.text)));
                }
                Kind::Background(_) => {
                    let program = self.start(count, block, &ports).await.map_err(|complaint| at(block, complaint))?;
                    beside.push(program);
                }
                Kind::Shell => shell.run(count, &commands, BLOCK_MAX).await.map_err(|output| at(block, output))?,
                Kind::Installation | Kind::Root | Kind::Shown => {}
            }
        }
        Ok(count)
    }

    /// Starts a block beside the page's shell and waits until it is ready.
    async fn start(&self, number: usize, block: &Block, ports: &Ports) -> Result<Background, String> {
        let commands = ports.put_into(&block.text);
        let output = self.dir.join(format!("blocks/{number}.out"));
        let file = std::fs::File::create(&output).map_err(text)?;
        let mut command = self.bash();
        command.arg("-c").arg(&commands).stdin(Stdio::null());
        command.stdout(file.try_clone().map_err(text)?).stderr(file);
        let mut program = Background { child: command.spawn().map_err(text)?, output };
        let ready = match (&block.kind, serves(block)) {
            (_, true) => Ready::Answers(self.readiness(&commands)?),
            (Kind::Background(Some(words)), false) => Ready::Prints(words.clone()),
            _ => Ready::AtOnce,
        };
        match program.is_ready(&ready).await {
            Ok(()) => Ok(program),
            Err(complaint) => {
                let output = end_of(&program.output);
                program.end().await;
                Err(format!("{complaint}\n{output}"))
            }
        }
    }

    /// Where the daemon that the commands start says that it is ready.
    fn readiness(&self, commands: &str) -> Result<String, String> {
        let mut words = commands.split_whitespace().skip_while(|word| *word != "--config");
        let file = words.nth(1).ok_or("say which --config the daemon is started with")?;
        let config = Config::load(Some(&self.reader().join(file))).map_err(text)?;
        Ok(format!("http://{}/readyz", config.admin.listen))
    }

    fn bash(&self) -> Command {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail"]).current_dir(self.reader()).env("PATH", &self.path);
        command.env("LC_ALL", "C.UTF-8").env("no_proxy", "127.0.0.1").env("SNMP_PERSISTENT_DIR", self.dir.join("snmp"));
        // All that a block leaves running ends with its page.
        command.process_group(0).kill_on_drop(true);
        command
    }
}

fn serves(block: &Block) -> bool {
    matches!(block.kind, Kind::Background(_)) && block.text.split_whitespace().any(|word| word == "serve")
}

/// Free ports for the pages that name the defaults: an installation from nothing.
struct Ports([(&'static str, String); 3]);

impl Ports {
    fn draw() -> std::io::Result<Self> {
        Ok(Self([
            ("127.0.0.1:8080", free_tcp()?.to_string()),
            ("127.0.0.1:9090", free_tcp()?.to_string()),
            ("127.0.0.1:5060", free_udp()?.to_string()),
        ]))
    }

    fn put_into(&self, commands: &str) -> String {
        self.0.iter().fold(commands.to_owned(), |text, (default, free)| text.replace(default, free))
    }
}

/// The shell of a page.
struct Shell {
    child: Child,
    commands: ChildStdin,
    done: Lines<BufReader<ChildStdout>>,
    blocks: PathBuf,
}

impl Shell {
    fn start(desk: &Desk) -> Result<Self, String> {
        let mut command = desk.bash();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(text)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (commands, done) = pipes.ok_or("the shell has no pipes")?;
        Ok(Self { child, commands, done: BufReader::new(done).lines(), blocks: desk.dir.join("blocks") })
    }

    /// Runs a block to its end; fails with what it printed.
    async fn run(&mut self, number: usize, commands: &str, bound: Duration) -> Result<(), String> {
        let file = self.blocks.join(format!("{number}.sh"));
        let output = self.blocks.join(format!("{number}.out"));
        std::fs::write(&file, commands).map_err(text)?;
        let (script, log) = (file.display(), output.display());
        let line = format!("source '{script}' </dev/null >'{log}' 2>&1; echo done {number}\n");
        // A shell that is gone says so by the end of its output.
        let _written = self.commands.write_all(line.as_bytes()).await;
        match tokio::time::timeout(bound, self.done.next_line()).await {
            Ok(Ok(Some(line))) if line == format!("done {number}") => Ok(()),
            Ok(_) => Err(format!("failed:\n{commands}--- it printed\n{}", end_of(&output))),
            Err(_) => Err(format!("still runs after {bound:?}:\n{commands}--- it printed\n{}", end_of(&output))),
        }
    }

    async fn end(self) {
        end(self.child, Signal::SIGKILL).await;
    }
}

/// A program beside the page's shell.
struct Background {
    child: Child,
    output: PathBuf,
}

enum Ready {
    AtOnce,
    Prints(String),
    Answers(String),
}

impl Background {
    async fn is_ready(&mut self, ready: &Ready) -> Result<(), String> {
        let mut period = tokio::time::interval(ASK_PERIOD);
        for _ in 0..READY_MAX.as_millis() / ASK_PERIOD.as_millis() {
            period.tick().await;
            let is_ready = match ready {
                Ready::AtOnce => true,
                Ready::Prints(words) => {
                    tokio::fs::read_to_string(&self.output).await.is_ok_and(|text| text.contains(words.as_str()))
                }
                Ready::Answers(url) => answers(url).await,
            };
            if is_ready {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().map_err(text)? {
                return Err(format!("ended ({status}) before it was ready:"));
            }
        }
        Err(format!("was not ready within {READY_MAX:?}:"))
    }

    async fn end(self) {
        end(self.child, Signal::SIGTERM).await;
    }
}

async fn answers(url: &str) -> bool {
    let asked = Command::new("curl").args(["-fsS", "-m", "2", "-o", "/dev/null", url]).stderr(Stdio::null()).status();
    asked.await.is_ok_and(|status| status.success())
}

/// Ends a process and all that it started: by the group that was made for it.
async fn end(mut child: Child, signal: Signal) {
    let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw) else { return };
    // One that has ended meanwhile is what we want.
    let _ended = killpg(group, signal);
    if tokio::time::timeout(END_MAX, child.wait()).await.is_err() {
        let _ended = killpg(group, Signal::SIGKILL);
        let _waited = tokio::time::timeout(END_MAX, child.wait()).await;
    }
}

async fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().await.map_err(text)?;
    if copied.success() { Ok(()) } else { Err(format!("{} could not be copied", from.display())) }
}

fn end_of(output: &Path) -> String {
    let text = std::fs::read(output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(OUTPUT_LINES_MAX)..).unwrap_or_default().join("\n")
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A desk without an installation, and a daemon that is none.
    fn desk(dir: &Path) -> Desk {
        let block = |kind, text: &str| Block { line: 1, kind, text: text.to_owned() };
        let desk = Desk {
            dir: dir.to_owned(),
            root: dir.to_owned(),
            path: std::env::var("PATH").unwrap_or_default(),
            installation: block(Kind::Installation, "make\n"),
            serve: block(Kind::Background(Some("up".to_owned())), "echo up; exec tail -f /dev/null\n"),
        };
        std::fs::create_dir(dir.join("kept")).unwrap();
        desk
    }

    async fn run(blocks: &[(Kind, &str)]) -> Result<usize, String> {
        let dir = tempfile::tempdir().unwrap();
        let desk = desk(dir.path());
        let block = |(at, (kind, text)): (usize, &(Kind, &str))| Block {
            line: 10 * (at + 1),
            kind: kind.clone(),
            text: format!("{text}\n"),
        };
        let blocks = blocks.iter().enumerate().map(block).collect();
        desk.run(&Page { path: "a.md".to_owned(), blocks }).await
    }

    #[tokio::test]
    async fn blocks_share_a_shell_and_see_what_runs_beside_it() {
        let beside = Kind::Background(Some("it is up".to_owned()));
        let blocks = [
            (Kind::Shell, "A=1; f() { test $1 = 1; }"),
            (beside, "echo 'it is up' | tee up.txt; exec tail -f /dev/null"),
            (Kind::Shown, "false"),
            (Kind::Shell, "f $A; grep up up.txt; test -d demo-installation"),
        ];
        assert_eq!(run(&blocks).await, Ok(3));
    }

    #[tokio::test]
    async fn a_block_that_fails_is_told_with_page_line_and_output() {
        for lie in [
            "echo seen; false; echo on",
            "echo seen; false | cat",
            "echo seen; echo $NO_SUCH_NAME",
            "echo seen; exit 3",
        ] {
            let complaint = run(&[(Kind::Shell, "true"), (Kind::Shell, lie)]).await.unwrap_err();
            assert!(complaint.starts_with("a.md:20: failed:") && complaint.contains("\nseen"), "{lie}: {complaint}");
        }
    }

    #[tokio::test]
    async fn a_program_that_ends_before_it_is_ready_is_told() {
        let ends = Kind::Background(Some("never".to_owned()));
        let complaint = run(&[(ends, "echo no port; exit 1"), (Kind::Shell, "true")]).await.unwrap_err();
        assert!(complaint.starts_with("a.md:10: ended") && complaint.contains("no port"), "{complaint}");
    }

    #[tokio::test]
    async fn another_way_to_the_installation_is_refused() {
        assert_eq!(run(&[(Kind::Installation, "make")]).await, Ok(1));
        let complaint = run(&[(Kind::Installation, "make another")]).await.unwrap_err();
        assert!(complaint.contains("another page says: make"), "{complaint}");
    }
}
