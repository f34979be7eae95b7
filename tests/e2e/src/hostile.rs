//! What strangers do to a daemon: datagrams at a rate, connections that say nothing or hardly anything; and what the
//! daemon holds of memory, descriptors and log meanwhile.
//!
//! Strangers come from other hosts of the loopback network than the peers of the calls, as strangers do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use testkit::{Random, torture};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Datagrams of each kind that are made beforehand: the sending thread should send, not draw.
const POOL: usize = 8_192;
/// Datagrams of one burst, and how often one is sent: 20,000 a second.
const BURST: u64 = 200;
const BURST_PERIOD: Duration = Duration::from_millis(10);
/// How long a burst may wait to be read, however many answers come; then the next goes out all the same.
const READ_WAIT: Duration = Duration::from_millis(200);
/// How often a slow connection says one more octet.
const OCTET_PERIOD: Duration = Duration::from_secs(1);
/// How soon a connection that was closed is opened again.
const REOPEN: Duration = Duration::from_millis(200);

/// Raises the soft limit of this process and its children on open descriptors to the hard one.
///
/// # Panics
/// When the hard limit is below `needed`, or the system tells or sets none.
pub fn raise_descriptors(needed: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("Linux tells it");
    assert!(
        hard >= needed,
        "this test needs {needed} open descriptors, and the hard limit is {hard}: raise it (`ulimit -Hn {needed}` as \
         root, LimitNOFILE= of systemd, --ulimit nofile={needed} of a container)"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit may go up to the hard one");
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Resident memory, KiB.
    pub resident_kib: u64,
    /// The most that was ever resident, KiB.
    pub peak_kib: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

impl Held {
    /// What the process with this number holds now.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    pub fn by(process: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process is there");
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells it");
            line.trim().trim_end_matches("kB").trim().parse().expect("a number")
        };
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).expect("it can be listed").count();
        Self { resident_kib: kib("VmRSS:"), peak_kib: kib("VmHWM:"), descriptors }
    }
}

/// The UDP ports that a process has bound, but for one: those of its media.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn media_ports(process: u32, sip: u16) -> Vec<u16> {
    let folder = std::fs::read_dir(format!("/proc/{process}/fd")).expect("the process is there");
    let links = folder.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inode = |link: std::path::PathBuf| {
        link.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')).map(str::to_owned)
    };
    let sockets: std::collections::BTreeSet<String> = links.filter_map(inode).collect();
    let table = std::fs::read_to_string(format!("/proc/{process}/net/udp")).expect("Linux tells it");
    let ports = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        (sockets.contains(*fields.get(9)?) && port != sip).then_some(port)
    });
    ports.collect()
}

/// Lines of a log.
#[must_use]
pub fn lines(log: &Path) -> usize {
    std::fs::read(log).unwrap_or_default().iter().filter(|octet| **octet == b'\n').count()
}

/// Datagrams at 20,000 a second, half to the SIP port and half to media ports, from a thread of its own.
///
/// On a machine that is too busy for that it is as many as are read: what overflows the buffer of a socket never meets
/// the daemon, and takes the datagrams of good peers with it.
#[derive(Debug)]
pub struct Attack {
    stop: Arc<AtomicBool>,
    cut: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Attack {
    /// Begins; ends after so many datagrams, at `end`, or when this is dropped.
    ///
    /// # Panics
    /// When no socket can be had.
    #[must_use]
    pub fn start(seed: u64, server: SocketAddr, media: Vec<u16>, datagrams: u64, end: Instant) -> Self {
        let (stop, cut, sent) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, late, count) = (Arc::clone(&stop), Arc::clone(&cut), Arc::clone(&sent));
        // Several sources: one address would be one flow.
        let sources: Vec<UdpSocket> = (0..8).map(|n| UdpSocket::bind((stranger(n), 0)).expect("a socket")).collect();
        let thread = std::thread::spawn(move || {
            let mut random = Random::new(seed);
            let mutator = torture::mutator();
            let sip: Vec<Vec<u8>> = (0..POOL)
                .map(|n| if n % 2 == 0 { torture::sip_noise(&mut random) } else { mutator.mutated(&mut random) })
                .collect();
            let rtp: Vec<Vec<u8>> = (0..POOL)
                .map(|n| if n % 2 == 0 { torture::rtp_noise(&mut random) } else { false_audio(&mut random) })
                .collect();
            let pace = (std::sync::Mutex::new(()), std::sync::Condvar::new());
            while count.load(Ordering::Relaxed) < datagrams && !stopped.load(Ordering::Relaxed) {
                if Instant::now() >= end {
                    late.store(true, Ordering::Relaxed);
                    break;
                }
                // One source for the burst: it reaches one shard, and the question after it comes after it.
                let socket = random.pick(&sources);
                for n in 0..BURST {
                    let (octets, to) = if n % 2 == 0 || media.is_empty() {
                        (random.pick(&sip), server)
                    } else {
                        (random.pick(&rtp), SocketAddr::new(server.ip(), *random.pick(&media)))
                    };
                    // A full buffer of ours is a datagram that was lost on the way.
                    drop(socket.send_to(octets, to));
                }
                let burst = count.fetch_add(BURST, Ordering::Relaxed);
                await_read(socket, server, burst);
                // Nobody notifies: this sets the rate.
                let guard = pace.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                drop(pace.1.wait_timeout(guard, BURST_PERIOD));
            }
        });
        Self { stop, cut, sent, thread: Some(thread) }
    }

    /// Datagrams that were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether its time was over before all were sent.
    #[must_use]
    pub fn was_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Whether no more are sent.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(std::thread::JoinHandle::is_finished)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say: a panic of it is seen in what was sent.
            drop(thread.join());
        }
    }
}

/// Asks (OPTIONS), and waits a while for the answer: then what was sent before has been read.
fn await_read(socket: &UdpSocket, server: SocketAddr, number: u64) {
    let Ok(from) = socket.local_addr() else { return };
    let call_id = format!("probe-{number}-{}", from.port());
    let question = format!(
        "OPTIONS sip:{server} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{number}x{}\r\nMax-Forwards: 70\r\n\
         From: <sip:probe@{from}>;tag=p\r\nTo: <sip:{server}>\r\nCall-ID: {call_id}\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n",
        from.port()
    );
    drop(socket.send_to(question.as_bytes(), server));
    let deadline = Instant::now() + READ_WAIT;
    let mut answer = [0; 2_048];
    // Answers to what else was sent come first: no more than were sent in a few bursts.
    for _ in 0..8 * BURST {
        let left = deadline.saturating_duration_since(Instant::now());
        // No time is no time limit to a socket, and refused.
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            return;
        }
        let Ok(octets) = socket.recv(&mut answer) else { return };
        let answer = answer.get(..octets).unwrap_or_default();
        if answer.windows(call_id.len()).any(|part| part == call_id.as_bytes()) {
            return;
        }
    }
}

/// A good packet of PCMU, from a wrong place.
fn false_audio(random: &mut Random) -> Vec<u8> {
    let mut packet = random.octets(172);
    packet[0] = 0x80;
    packet[1] = 0;
    packet
}

/// A host that takes part in no call.
fn stranger(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 66, 1 + n))
}

/// How a connection wastes a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waste {
    /// It says nothing.
    Idle,
    /// It says the first at once, and then one octet of the second each second.
    Slow(&'static [u8], &'static [u8]),
}

/// Connections that are held open, and opened again when the server closes them.
#[derive(Debug)]
pub struct Connections {
    open: Arc<AtomicU64>,
    opened: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Connections {
    /// Opens so many, an eighth from each of eight hosts.
    #[must_use]
    pub fn open(server: SocketAddr, count: usize, waste: Waste) -> Self {
        let (open, opened) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for host in (0..8_u8).cycle().take(count) {
            let (open, opened) = (Arc::clone(&open), Arc::clone(&opened));
            tasks.spawn(async move {
                let mut reopen = tokio::time::interval(REOPEN);
                loop {
                    reopen.tick().await;
                    let Ok(stream) = connect(stranger(host), server).await else { continue };
                    open.fetch_add(1, Ordering::Relaxed);
                    opened.fetch_add(1, Ordering::Relaxed);
                    hold(stream, waste).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
        Self { open, opened, tasks }
    }

    /// How many are open now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// How many were opened in all.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Closes them.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn connect(from: IpAddr, server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(server).await
}

/// Until the server closes it.
async fn hold(mut stream: TcpStream, waste: Waste) {
    let (mut read, mut write) = stream.split();
    let mut octets = [0; 1_024];
    let closed = async { while matches!(read.read(&mut octets).await, Ok(1..)) {} };
    let say = async {
        let Waste::Slow(first, then) = waste else { return std::future::pending().await };
        if write.write_all(first).await.is_err() {
            return;
        }
        let mut pace = tokio::time::interval(OCTET_PERIOD);
        for octet in then.iter().cycle() {
            pace.tick().await;
            if write.write_all(&[*octet]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = closed => {}
        () = say => {}
    }
}
