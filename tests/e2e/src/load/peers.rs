//! The peers in the seats that Tandem takes too: Kamailio for signalling, rtpengine for media. Both are Debian's; where
//! one is not installed (`.ci/install bench`), its lines are missing.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::machine::{Priority, SERVER_CORE, pinned};

/// Until a peer listens.
const READY_MAX: Duration = Duration::from_secs(10);
/// How often it is looked for.
const ASK_PERIOD: Duration = Duration::from_millis(50);
/// Shared memory for all, and private memory for each process, MB: enough that allocation is never the limit.
const KAMAILIO_MEMORY: [&str; 4] = ["-m", "2048", "-M", "64"];
/// The allocator for production: the default one is for debugging and costs more than twice as much.
const KAMAILIO_ALLOCATOR: [&str; 4] = ["-x", "fm", "-X", "fm"];

/// What Kamailio does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// Stateful proxy with record-route.
    Proxy,
    /// The same with dialogs and one line of log per call; neither dialog rewritten nor media anchored.
    CdrLine,
    /// Digest registrar, passwords and bindings in memory.
    Registrar,
}

/// A running peer; it ends when this is dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Drop for Peer {
    fn drop(&mut self) {
        use nix::sys::signal::{Signal, kill};
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        // Its children end with it only when it may say so to them.
        let _signalled = kill(id, Signal::SIGTERM);
        let asked = Instant::now();
        while asked.elapsed() < READY_MAX {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(ASK_PERIOD);
        }
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

impl Peer {
    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Kamailio with one worker, its files in `folder`; none when it is not installed.
    ///
    /// # Panics
    /// When it is installed and does not start.
    #[must_use]
    pub fn kamailio(folder: &Path, seat: Seat, callee: SocketAddr) -> Option<Self> {
        let program = program("kamailio")?;
        std::fs::create_dir_all(folder).expect("a folder for the peer");
        let address = tandem::demo::process::free_udp().expect("a free port");
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/kamailio.cfg");
        let mut command = pinned(&program, SERVER_CORE, Priority::RealTime);
        command.args(["-DD", "-E", "-f"]).arg(config).args(["-l", &format!("udp:{address}"), "-n", "1", "-w", "."]);
        command.args(KAMAILIO_MEMORY).args(KAMAILIO_ALLOCATOR);
        command.args(["-A", &format!("UAS_URI=\"sip:{callee}\"")]);
        let flags: &[&str] = match seat {
            Seat::Proxy => &[],
            Seat::CdrLine => &["WITH_DLG", "WITH_CDRLOG"],
            Seat::Registrar => &["WITH_REG"],
        };
        for flag in flags {
            command.args(["-A", flag]);
        }
        Some(Self::start(command, folder, address))
    }

    /// rtpengine with one thread and no kernel module; none when it is not installed.
    ///
    /// # Panics
    /// When it is installed and does not start.
    #[must_use]
    pub fn rtpengine(folder: &Path) -> Option<Self> {
        let program = program("rtpengine")?;
        std::fs::create_dir_all(folder).expect("a folder for the peer");
        let address = tandem::demo::process::free_udp().expect("a free port");
        let mut command = pinned(&program, SERVER_CORE, Priority::RealTime);
        command.args(["--config-file=none", "-f", "-E", "-L", "3", "-i", "127.0.0.1", "-n", &address.to_string()]);
        command.args(["-m", "40000", "-M", "60000", "-t", "-1", "--num-threads", "1"]);
        Some(Self::start(command, folder, address))
    }

    fn start(mut command: std::process::Command, folder: &Path, address: SocketAddr) -> Self {
        let log = folder.join("peer.log");
        let file = std::fs::File::create(&log).expect("a log file");
        command.current_dir(folder).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a second handle")).stderr(file);
        let mut peer = Self { child: command.spawn().expect("the peer starts"), address };
        let asked = Instant::now();
        // The line of a bound socket in the kernel's table: ADDRESS:PORT in hexadecimal.
        let wanted = format!(":{:04X} ", address.port());
        while !std::fs::read_to_string("/proc/net/udp").is_ok_and(|table| table.contains(&wanted)) {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(peer.lives() && asked.elapsed() < READY_MAX, "the peer does not listen on {address}:\n{log}");
            std::thread::sleep(ASK_PERIOD);
        }
        peer
    }
}

/// Daemons lie in a directory that is not on every user's path.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/local/sbin", "/usr/sbin", "/sbin"]);
    folders.map(|folder| Path::new(folder).join(name)).find(|program| program.is_file())
}

/// Sets up calls in an rtpengine by its control protocol (`ng`: a cookie and a bencoded dictionary); gives the ports
/// that face caller and callee, and the time for one call.
///
/// # Panics
/// When it does not answer as documented.
#[must_use]
pub fn anchor(control: SocketAddr, calls: usize, caller: &[u16], callee: &[u16]) -> (Vec<(u16, u16)>, Duration) {
    let socket = UdpSocket::bind((control.ip(), 0)).expect("a socket");
    socket.connect(control).expect("a peer");
    socket.set_read_timeout(Some(READY_MAX)).expect("a timeout");
    let ask = |number: usize, words: &BTreeMap<&str, String>| {
        let mut request = format!("k{number} d");
        for (key, word) in words {
            request.push_str(&format!("{}:{key}{}:{word}", key.len(), word.len()));
        }
        request.push('e');
        socket.send(request.as_bytes()).expect("sent");
        let mut answer = [0; 8192];
        let length = socket.recv(&mut answer).expect("rtpengine answers");
        let port = super::sip::media_port(&answer[..length]);
        assert_ne!(port, 0, "rtpengine: {}", String::from_utf8_lossy(&answer[..length]));
        port
    };
    let begun = Instant::now();
    let mut ports = Vec::new();
    for call in 0..calls {
        let mut words = BTreeMap::from([("call-id", format!("c{call}")), ("from-tag", format!("a{call}"))]);
        words.insert("command", "offer".into());
        words.insert("ICE", "remove".into());
        words.insert("sdp", super::sip::sdp(caller[call % caller.len()]));
        let facing_callee = ask(call * 2, &words);
        words.insert("command", "answer".into());
        words.insert("to-tag", format!("b{call}"));
        words.insert("sdp", super::sip::sdp(callee[call % callee.len()]));
        ports.push((ask(call * 2 + 1, &words), facing_callee));
    }
    (ports, begun.elapsed() / u32::try_from(calls.max(1)).unwrap_or(u32::MAX))
}
