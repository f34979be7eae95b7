//! A lean SIP caller and callee in one thread, and a lean registering client, so that the load is not the limit.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::secret::Secret;
use serde::{Deserialize, Serialize};
use sip_engine::digest::DigestClient;
use sip_message::Message;

use super::Latencies;

/// Requests that leave before answers are read again.
const BURST: u64 = 32;
/// How long the load waits when it has nothing to do.
const PAUSE: Duration = Duration::from_micros(30);
/// Without any progress for this long, what is open has failed.
const GIVE_UP_AFTER: Duration = Duration::from_secs(4);
/// Room for the largest message that is expected.
const MESSAGE_MAX: usize = 4096;
/// Socket buffers, octets: a burst must not be lost here.
const SOCKET_BUFFER: usize = 16 * 1024 * 1024;

/// What is driven, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The server.
    pub server: SocketAddr,
    /// Where the caller, or the registering phone, is.
    pub caller: SocketAddr,
    /// Where the callee is.
    pub callee: SocketAddr,
    /// Calls or registrations a second.
    pub rate: u64,
    /// How many in all.
    pub count: u64,
    /// How long a call stays up.
    pub hold: Hold,
    /// What is done.
    pub what: What,
}

/// How long a call stays up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// So many milliseconds.
    Ms(u64),
    /// Beyond the run: it is complete with its ACK.
    Open,
}

impl Hold {
    const fn duration(self) -> Duration {
        match self {
            Self::Ms(ms) => Duration::from_millis(ms),
            Self::Open => Duration::ZERO,
        }
    }
}

/// What is driven.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// INVITE, 180, 200, ACK, BYE, 200, with SDP, to this user.
    Calls {
        /// The dialled user part.
        to: String,
        /// The caller's RTP ports in turn; empty: one that nobody hears.
        caller_rtp: Vec<u16>,
        /// The callee's RTP ports in turn.
        callee_rtp: Vec<u16>,
    },
    /// REGISTER, 401, REGISTER with digest, 200: users `u0` to `u<users - 1>` with the passwords of [`password`].
    Registrations {
        /// Their domain.
        domain: String,
        /// How many take turns.
        users: u64,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Begun.
    pub made: u64,
    /// Completed.
    pub completed: u64,
    /// Final answers that were none of those wanted, by status.
    pub refused: BTreeMap<u64, u64>,
    /// Completed a second, from the first to the last.
    pub reached: f64,
    /// From the INVITE to its 200, or from the first REGISTER to its 200, milliseconds.
    pub p50_ms: f64,
    /// The same, 99 of 100.
    pub p99_ms: f64,
    /// Ports of the server that face caller and callee, of each call that was answered; they belong together when the
    /// plan has RTP ports.
    pub media: Vec<(u16, u16)>,
}

impl Outcome {
    /// Whether the server held this rate: at most one in a thousand failed, 97 % of the rate reached, p99 below 50 ms.
    #[must_use]
    pub fn holds(&self, rate: u64) -> bool {
        self.completed * 1000 >= self.made * 999 && self.reached >= rate as f64 * 0.97 && self.p99_ms < 50.0
    }
}

/// How far one call or registration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asked,
    /// Answered, or challenged.
    Answered,
    Ending,
    Done,
    Failed,
}

struct Entry {
    begun: Instant,
    state: State,
}

/// A call that is up: what its BYE needs.
struct Held {
    due: Instant,
    index: u64,
    target: Vec<u8>,
    routes: Vec<u8>,
    to: Vec<u8>,
}

struct Load<'a> {
    plan: &'a Plan,
    caller: UdpSocket,
    callee: Option<UdpSocket>,
    entries: Vec<Entry>,
    held: VecDeque<Held>,
    answered: u64,
    completed: u64,
    failed: u64,
    refused: BTreeMap<u64, u64>,
    last: Instant,
    latencies: Latencies,
    media: Vec<(u16, u16)>,
    /// The server's port in the last offer that the callee got.
    offered: u16,
    out: Vec<u8>,
    /// Sets the Call-IDs and branches of this run apart from all others.
    run: String,
}

/// Runs a plan to its end.
///
/// # Errors
/// When a socket cannot be had.
pub fn run(plan: &Plan) -> std::io::Result<Outcome> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let calls = matches!(plan.what, What::Calls { .. });
    let callee = if calls { Some(socket(plan.callee)?) } else { None };
    let start = Instant::now();
    let mut load = Load {
        plan,
        caller: socket(plan.caller)?,
        callee,
        entries: Vec::new(),
        held: VecDeque::new(),
        answered: 0,
        completed: 0,
        failed: 0,
        refused: BTreeMap::new(),
        last: start,
        latencies: Latencies::default(),
        media: Vec::new(),
        offered: 0,
        out: Vec::with_capacity(MESSAGE_MAX),
        run: format!("{}.{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed)),
    };
    load.drive(start);
    let reached = {
        let elapsed = load.last.duration_since(start).saturating_sub(plan.hold.duration());
        let completed = load.completed as f64;
        completed / elapsed.as_secs_f64().max(1e-9)
    };
    Ok(Outcome {
        made: plan.count,
        completed: load.completed,
        refused: load.refused,
        reached,
        p50_ms: load.latencies.quantile_ms(500),
        p99_ms: load.latencies.quantile_ms(990),
        media: load.media,
    })
}

pub(crate) fn socket(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    if super::machine::is_realtime() {
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &SOCKET_BUFFER)?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Load<'_> {
    fn drive(&mut self, start: Instant) {
        let step = Duration::from_secs(1).div_f64(self.plan.rate.max(1) as f64);
        let hold = self.plan.hold.duration();
        let (mut seen, mut progress) = (0, start);
        loop {
            let now = Instant::now();
            let due = (now.duration_since(start).as_nanos() / step.as_nanos().max(1)) as u64 + 1;
            let due = due.min(self.plan.count).min(self.may_begin());
            let mut begun = 0;
            while (self.entries.len() as u64) < due && begun < BURST {
                self.begin();
                begun += 1;
            }
            let mut heard = self.hear_callee();
            heard += self.hear_caller();
            while self.held.front().is_some_and(|held| held.due <= now) {
                if let Some(held) = self.held.pop_front() {
                    self.end(&held);
                }
            }
            let done = self.completed + self.failed;
            if done == self.plan.count {
                return;
            }
            let sum = done + self.answered + self.entries.len() as u64;
            if sum != seen {
                (seen, progress) = (sum, now);
            } else if now.duration_since(progress) > GIVE_UP_AFTER + hold {
                return;
            }
            if begun == 0 && heard == 0 {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Calls with media begin one after the other: the callee's offer tells which ports are theirs.
    fn may_begin(&self) -> u64 {
        match &self.plan.what {
            What::Calls { caller_rtp, .. } if !caller_rtp.is_empty() => self.answered + self.failed + 1,
            _ => u64::MAX,
        }
    }

    fn begin(&mut self) {
        let index = self.entries.len() as u64;
        self.entries.push(Entry { begun: Instant::now(), state: State::Asked });
        match &self.plan.what {
            What::Calls { to, caller_rtp, .. } => {
                let sdp = sdp(port_of(caller_rtp, index));
                let Plan { server, caller, .. } = self.plan;
                let run = &self.run;
                self.out.clear();
                let _written = write!(
                    self.out,
                    "INVITE sip:{to}@{server} SIP/2.0\r\nVia: SIP/2.0/UDP {caller};branch=z9hG4bKi{index}.{run}\r\n\
                     Max-Forwards: 70\r\nFrom: \"Caller\" <sip:2000@{caller}>;tag=c{index}\r\nTo: <sip:{to}@{server}>\r\n\
                     Call-ID: {index}.{run}@load\r\nCSeq: 1 INVITE\r\nContact: <sip:2000@{caller}>\r\n\
                     Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\nContent-Type: application/sdp\r\n\
                     Content-Length: {}\r\n\r\n{sdp}",
                    sdp.len()
                );
                self.send();
            }
            What::Registrations { .. } => self.register(index, None),
        }
    }

    fn send(&self) {
        // What does not leave is a failed call.
        let _sent = self.caller.send_to(&self.out, self.plan.server);
    }

    fn hear_callee(&mut self) -> u32 {
        let Some(socket) = self.callee.take() else { return 0 };
        let mut buffer = [0; MESSAGE_MAX];
        let mut heard = 0;
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            heard += 1;
            let message = &buffer[..length];
            if message.starts_with(b"SIP/2.0") || message.starts_with(b"ACK") {
                continue;
            }
            let invite = message.starts_with(b"INVITE");
            if invite {
                self.answer(message, b"180 Ringing", b";tag=s", None);
                let _sent = socket.send_to(&self.out, from);
                self.offered = media_port(message);
                let What::Calls { callee_rtp, .. } = &self.plan.what else { continue };
                let sdp = sdp(port_of(callee_rtp, self.answered));
                self.answer(message, b"200 OK", b";tag=s", Some(&sdp));
            } else {
                self.answer(message, b"200 OK", b"", None);
            }
            let _sent = socket.send_to(&self.out, from);
        }
        self.callee = Some(socket);
        heard
    }

    /// An answer to `request` into the buffer.
    fn answer(&mut self, request: &[u8], status: &[u8], tag: &[u8], sdp: Option<&str>) {
        self.out.clear();
        for part in [&b"SIP/2.0 "[..], status, b"\r\n"] {
            self.out.extend_from_slice(part);
        }
        for line in lines(request) {
            let kept = ["via", "v", "record-route", "from", "f", "call-id", "i", "cseq"];
            let is_to = is_named(line, "to") || is_named(line, "t");
            if is_to || kept.iter().any(|name| is_named(line, name)) {
                self.out.extend_from_slice(line);
                if is_to {
                    self.out.extend_from_slice(tag);
                }
                self.out.extend_from_slice(b"\r\n");
            }
        }
        if !tag.is_empty() {
            let _written = write!(self.out, "Contact: <sip:1000@{}>\r\n", self.plan.callee);
        }
        if let Some(sdp) = sdp {
            let _written =
                write!(self.out, "Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len());
        } else {
            self.out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        }
    }

    fn hear_caller(&mut self) -> u32 {
        let mut buffer = [0; MESSAGE_MAX];
        let mut heard = 0;
        while let Ok((length, from)) = self.caller.recv_from(&mut buffer) {
            heard += 1;
            let message = &buffer[..length];
            let Some(status) = message.strip_prefix(b"SIP/2.0 ") else {
                if !message.starts_with(b"ACK") {
                    self.answer(message, b"200 OK", b"", None);
                    let _sent = self.caller.send_to(&self.out, from);
                }
                continue;
            };
            let status = number(status);
            let (Some(call_id), Some(cseq)) = (value(message, "call-id", "i"), value(message, "cseq", "cseq")) else {
                continue;
            };
            let index = number(call_id);
            if status < 200 || index >= self.entries.len() as u64 {
                continue;
            }
            if matches!(self.plan.what, What::Calls { .. }) {
                self.call_answered(index, status, number(cseq), message);
            } else {
                self.register_answered(index, status, message);
            }
        }
        heard
    }

    fn entry(&mut self, index: u64) -> &mut Entry {
        &mut self.entries[index as usize]
    }

    fn fail(&mut self, index: u64) {
        if !matches!(self.entry(index).state, State::Done | State::Failed) {
            self.entry(index).state = State::Failed;
            self.failed += 1;
        }
    }

    fn refuse(&mut self, index: u64, status: u64) {
        *self.refused.entry(status).or_default() += 1;
        self.fail(index);
    }

    fn done(&mut self, index: u64) {
        self.entry(index).state = State::Done;
        self.completed += 1;
        self.last = Instant::now();
    }

    fn call_answered(&mut self, index: u64, status: u64, cseq: u64, message: &[u8]) {
        match (self.entry(index).state, cseq) {
            (State::Asked, 1) if status == 200 => {
                let begun = self.entry(index).begun;
                self.latencies.add(begun.elapsed());
                let contact = value(message, "contact", "m").map(inside_brackets);
                let (Some(target), Some(to)) = (contact, value(message, "to", "t")) else { return self.fail(index) };
                // The route set is the Record-Route values in reverse (RFC 3261, section 12.1.2).
                let mut routes = Vec::new();
                let recorded: Vec<&[u8]> = lines(message).filter(|line| is_named(line, "record-route")).collect();
                for line in recorded.into_iter().rev() {
                    let value = line.iter().position(|octet| *octet == b':').map_or(line, |colon| &line[colon..]);
                    routes.extend_from_slice(b"Route");
                    routes.extend_from_slice(value);
                    routes.extend_from_slice(b"\r\n");
                }
                self.answered += 1;
                self.entry(index).state = State::Answered;
                self.media.push((media_port(message), self.offered));
                let due = Instant::now() + self.plan.hold.duration();
                let held = Held { due, index, target: target.to_vec(), routes, to: to.to_vec() };
                self.in_dialog("ACK", 1, &held);
                match self.plan.hold {
                    Hold::Open => self.done(index),
                    Hold::Ms(0) => self.end(&held),
                    Hold::Ms(_) => self.held.push_back(held),
                }
            }
            (State::Asked, 1) => {
                let to = value(message, "to", "t").unwrap_or_default().to_vec();
                let held = Held { due: Instant::now(), index, target: b"sip:x".to_vec(), routes: Vec::new(), to };
                self.in_dialog("ACK", 1, &held);
                self.refuse(index, status);
            }
            // The 200 came again: its ACK was lost.
            (State::Ending, 2) if status == 200 => self.done(index),
            (State::Ending, 2) => self.refuse(index, status),
            _ => {}
        }
    }

    fn end(&mut self, held: &Held) {
        if self.entry(held.index).state == State::Answered {
            self.entry(held.index).state = State::Ending;
            self.in_dialog("BYE", 2, held);
        }
    }

    fn in_dialog(&mut self, method: &str, cseq: u32, held: &Held) {
        let (caller, run, index) = (self.plan.caller, &self.run, held.index);
        self.out.clear();
        let _written = write!(self.out, "{method} ");
        self.out.extend_from_slice(&held.target);
        let _written = write!(
            self.out,
            " SIP/2.0\r\nVia: SIP/2.0/UDP {caller};branch=z9hG4bK{method}{index}.{run}\r\nMax-Forwards: 70\r\n"
        );
        self.out.extend_from_slice(&held.routes);
        let _written = write!(self.out, "From: \"Caller\" <sip:2000@{caller}>;tag=c{index}\r\nTo: ");
        self.out.extend_from_slice(&held.to);
        let _written =
            write!(self.out, "\r\nCall-ID: {index}.{run}@load\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n");
        self.send();
    }

    fn register(&mut self, index: u64, authorization: Option<&[u8]>) {
        let What::Registrations { domain, users } = &self.plan.what else { return };
        let (user, caller, run) = (index % users, self.plan.caller, &self.run);
        let cseq = 1 + u32::from(authorization.is_some());
        self.out.clear();
        let _written = write!(
            self.out,
            "REGISTER sip:{domain} SIP/2.0\r\nVia: SIP/2.0/UDP {caller};branch=z9hG4bK{cseq}r{index}.{run}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:u{user}@{domain}>;tag=r{index}\r\nTo: <sip:u{user}@{domain}>\r\n\
             Call-ID: {index}.{run}@load\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:u{user}@{caller}>\r\n\
             Expires: 3600\r\n"
        );
        if let Some(authorization) = authorization {
            self.out.extend_from_slice(b"Authorization: ");
            self.out.extend_from_slice(authorization);
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        self.send();
    }

    fn register_answered(&mut self, index: u64, status: u64, message: &[u8]) {
        let What::Registrations { domain, users } = &self.plan.what else { return };
        match (self.entry(index).state, status) {
            (State::Asked, 401) => {
                let user = index % users;
                let mut client = DigestClient::new(format!("u{user}"), Secret::new(password(user)));
                let uri = format!("sip:{domain}");
                let refusal = Message::parse_datagram(Bytes::copy_from_slice(message)).ok();
                let answer = refusal.and_then(|refusal| {
                    client.answer(&refusal, b"REGISTER", uri.as_bytes(), b"", &format!("c{index}"))
                });
                let Some((_, credentials)) = answer else { return self.fail(index) };
                self.entry(index).state = State::Answered;
                self.answered += 1;
                self.register(index, Some(&credentials));
            }
            (State::Answered, 200) => {
                let begun = self.entry(index).begun;
                self.latencies.add(begun.elapsed());
                self.done(index);
            }
            (State::Asked | State::Answered, 300..) => self.fail(index),
            _ => {}
        }
    }
}

/// The password of a user that registers; the peer's configuration says the same.
#[must_use]
pub fn password(user: u64) -> String {
    format!("password-{user}")
}

fn port_of(ports: &[u16], index: u64) -> u16 {
    /// A port that nobody hears.
    const NOBODY: u16 = 9;
    let count = ports.len().max(1) as u64;
    ports.get((index % count) as usize).copied().unwrap_or(NOBODY)
}

pub(crate) fn sdp(port: u16) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 8 101\r\n\
         a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n\
         a=sendrecv\r\n"
    )
}

/// The lines of the header, without the start line and without their ends.
fn lines(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = message.split(|octet| *octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.skip(1).take_while(|line| !line.is_empty())
}

fn is_named(line: &[u8], name: &str) -> bool {
    let (Some(head), Some(rest)) = (line.get(..name.len()), line.get(name.len()..)) else { return false };
    head.eq_ignore_ascii_case(name.as_bytes()) && matches!(rest.first(), Some(b':' | b' '))
}

fn value<'a>(message: &'a [u8], name: &str, compact: &str) -> Option<&'a [u8]> {
    let line = lines(message).find(|line| is_named(line, name) || is_named(line, compact))?;
    let colon = line.iter().position(|octet| *octet == b':')?;
    Some(line.get(colon + 1..)?.trim_ascii())
}

/// The decimal number at the beginning.
fn number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|octet| octet.is_ascii_digit());
    digits.fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

fn inside_brackets(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|octet| *octet == b'<').map_or(0, |at| at + 1);
    let end = value.iter().position(|octet| *octet == b'>').unwrap_or(value.len());
    value.get(start..end).unwrap_or(value)
}

/// The port of the first `m=audio` line; 0 without one.
pub(crate) fn media_port(message: &[u8]) -> u16 {
    let line = message.split(|octet| *octet == b'\n').find_map(|line| line.strip_prefix(b"m=audio "));
    u16::try_from(number(line.unwrap_or_default())).unwrap_or(0)
}
