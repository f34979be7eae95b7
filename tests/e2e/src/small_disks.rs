//! Small file systems in memory, in a mount namespace of the daemon's own: each directory of an installation can be
//! filled without harm to the machine. Everything goes with the value.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::geteuid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Name of the file that fills a file system.
const FILLER: &str = "filler";
/// Octets of one write of it.
const BLOCK: usize = 64 * 1024;

/// Mounts what it is told (folder and size in turns), then stays until its standard input ends: as long as it lives, the
/// namespace does.
const HOLD: &str = r#"
while [ "$#" -gt 0 ]; do mkdir -p "$1" && mount -t tmpfs -o "size=$2,mode=0700" tmpfs "$1" || exit 1; shift 2; done
echo ready
exec cat >/dev/null
"#;

/// Mounts one file system on the folder, and goes with it.
const PROBE: &str = r#"mount -t tmpfs -o size=1m tmpfs "$1""#;

/// `unshare` with a mount namespace, and one of users where that takes it.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
}

/// The namespace with its file systems.
#[derive(Debug)]
pub struct SmallDisks {
    holder: Child,
    program: PathBuf,
}

impl SmallDisks {
    /// Whether file systems can be mounted in a namespace here, as tried on a folder; nothing of it stays.
    ///
    /// # Errors
    /// What the system says, with what helps.
    pub async fn probe(folder: &Path) -> Result<(), String> {
        let mut command = unshare();
        command.args(["sh", "-c", PROBE, "small-disks"]).arg(folder);
        let said = match command.output().await {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => format!("unshare (Debian: util-linux): {error}"),
        };
        Err(format!(
            "no file system can be mounted in a namespace: {said}. Run the tests as root (in a container with \
             CAP_SYS_ADMIN), or allow namespaces of users (sysctl kernel.unprivileged_userns_clone=1, \
             kernel.apparmor_restrict_unprivileged_userns=0); TANDEM_NO_NAMESPACES=1 leaves this test out"
        ))
    }

    /// Mounts file systems of so many MiB on folders, which are made, in this order. `dir` takes the program that runs
    /// `program` among them.
    ///
    /// # Panics
    /// When the system refuses: it takes root, or namespaces of users.
    pub async fn mount(dir: &Path, program: &Path, disks: &[(&Path, u32)]) -> Self {
        let is_root = geteuid().is_root();
        let mut command = unshare();
        command.args(["sh", "-c", HOLD, "small-disks"]);
        for (folder, mib) in disks {
            command.arg(folder).arg(format!("{mib}m"));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut holder = command.spawn().expect("unshare (Debian: util-linux) is there");
        let mut line = String::new();
        let output = holder.stdout.take().expect("it was asked for");
        BufReader::new(output).read_line(&mut line).await.expect("it can be read");
        assert_eq!(line.trim(), "ready", "file systems can be mounted in a namespace");
        let id = holder.id().expect("it runs");
        let user = if is_root { "" } else { "--user --preserve-credentials" };
        let script = format!("#!/bin/sh\nexec nsenter --target {id} {user} --mount '{}' \"$@\"\n", program.display());
        let inside = dir.join("tandem-inside");
        std::fs::write(&inside, script).expect("it can be written");
        std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o700)).expect("it can be made executable");
        Self { holder, program: inside }
    }

    /// The program as it runs among the file systems.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A path as this process reaches it.
    ///
    /// # Panics
    /// When the namespace is gone, or the path is not absolute.
    #[must_use]
    pub fn outside(&self, path: &Path) -> PathBuf {
        let id = self.holder.id().expect("the namespace is held");
        Path::new("/proc").join(id.to_string()).join("root").join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// Takes all the space that is left on the file system of `folder`. Repeated, it takes what became free.
    ///
    /// # Panics
    /// When it fails for another reason than space.
    pub fn fill(&self, folder: &Path) {
        let path = self.outside(folder).join(FILLER);
        let mut file = std::fs::File::options().create(true).append(true).open(&path).expect("an inode is left");
        let block = vec![0; BLOCK];
        let mut size = BLOCK;
        while size > 0 {
            match file.write(&block[..size]) {
                Ok(written) if written > 0 => {}
                Ok(_) => size /= 2,
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{}: {error}", path.display());
                    size /= 2;
                }
            }
        }
    }

    /// Gives the space back.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn free(&self, folder: &Path) {
        std::fs::remove_file(self.outside(folder).join(FILLER)).expect("it was filled");
    }

    /// Copies a folder with what lies below out of the namespace; links become what they lead to.
    ///
    /// # Panics
    /// When something cannot be copied.
    pub fn copy(&self, folder: &Path, to: &Path) {
        std::fs::create_dir_all(to).expect("a folder");
        for entry in std::fs::read_dir(self.outside(folder)).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            let (from, to) = (folder.join(&name), to.join(&name));
            if self.outside(&from).is_dir() {
                self.copy(&from, &to);
            } else {
                std::fs::copy(self.outside(&from), &to).expect("a copy");
            }
        }
    }
}
