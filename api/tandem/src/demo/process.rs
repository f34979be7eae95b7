//! The daemon as a process of its own: started, watched, killed by its id.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// How long a daemon may take until it is ready: journal recovery and migration included.
const READY_MAX: Duration = Duration::from_secs(30);
/// How often it is asked.
const READY_PERIOD: Duration = Duration::from_millis(50);

/// A daemon that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("{} could not be started: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It ended or was not ready in time.
    #[error("the daemon did not become ready; its log ends with:\n{log}")]
    NotReady {
        /// The end of its log.
        log: String,
    },
    /// It could not be signalled or waited for.
    #[error("the daemon could not be stopped: {0}")]
    Stop(std::io::Error),
}

/// A running daemon; it is killed when this is dropped.
#[derive(Debug)]
pub struct DaemonProcess {
    child: Child,
    log: PathBuf,
}

impl DaemonProcess {
    /// Runs `program serve --config config`, its log appended to `log`, and waits until `admin` says that it is ready.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn start(program: &Path, config: &Path, log: &Path, admin: SocketAddr) -> Result<Self, ProcessError> {
        let start = |source| ProcessError::Start { program: program.to_owned(), source };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(start)?;
        let child = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(start)?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let mut daemon = Self { child, log: log.to_owned() };
        daemon.ready(admin).await?;
        Ok(daemon)
    }

    async fn ready(&mut self, admin: SocketAddr) -> Result<(), ProcessError> {
        let url = format!("http://{admin}/readyz");
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build().unwrap_or_default();
        let rounds = READY_MAX.as_millis() / READY_PERIOD.as_millis();
        let mut period = tokio::time::interval(READY_PERIOD);
        for _ in 0..rounds {
            period.tick().await;
            if http.get(&url).send().await.is_ok_and(|response| response.status().is_success()) {
                return Ok(());
            }
            if self.child.try_wait().ok().flatten().is_some() {
                break;
            }
        }
        Err(ProcessError::NotReady { log: self.log_end() })
    }

    /// Its process id; none after it ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// SIGKILL: no chance to write anything more.
    ///
    /// # Errors
    /// [`ProcessError::Stop`].
    pub async fn kill(mut self) -> Result<(), ProcessError> {
        self.child.kill().await.map_err(ProcessError::Stop)
    }

    /// SIGTERM, and waits until it has drained.
    ///
    /// # Errors
    /// [`ProcessError::Stop`].
    pub async fn terminate(mut self) -> Result<std::process::ExitStatus, ProcessError> {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            kill(Pid::from_raw(id), Signal::SIGTERM).map_err(|errno| ProcessError::Stop(errno.into()))?;
        }
        self.child.wait().await.map_err(ProcessError::Stop)
    }
}

/// Ports that are handed out: below the ephemeral range, so that no socket of the demo or of a test takes one while the
/// daemon is down.
const PORTS: std::ops::Range<u16> = 30_000..32_700;

/// A TCP port of loopback that is free now.
///
/// # Errors
/// When there is none.
pub fn free_tcp() -> std::io::Result<SocketAddr> {
    free(|address| TcpListener::bind(address).map(drop))
}

/// A UDP port of loopback that is free now.
///
/// # Errors
/// When there is none.
pub fn free_udp() -> std::io::Result<SocketAddr> {
    free(|address| UdpSocket::bind(address).map(drop))
}

/// Tries the ports in turn, each process from a place of its own, none twice.
fn free(bind: impl Fn(SocketAddr) -> std::io::Result<()>) -> std::io::Result<SocketAddr> {
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(31);
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
    for _ in PORTS {
        let step = first.wrapping_add(HANDED_OUT.fetch_add(1, Ordering::Relaxed)) % u32::from(PORTS.end - PORTS.start);
        let port = PORTS.start.saturating_add(u16::try_from(step).unwrap_or_default());
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        match bind(address) {
            Ok(()) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}
