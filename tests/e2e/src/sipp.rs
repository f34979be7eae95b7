//! Drives `sipp` (Debian's `sip-tester`), and reads its short message log.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::Subscriber;

/// A folder with scenarios, a media file and a data file for one run.
#[derive(Debug)]
pub struct Bench {
    folder: PathBuf,
}

/// Octets of the media file: one second of PCMU.
const TONE_OCTETS: usize = 8_000;

impl Bench {
    /// Copies the scenarios into `folder`.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        for name in ["register.xml", "caller.xml", "callee.xml"] {
            std::fs::copy(scenarios.join(name), folder.join(name)).expect("the scenario is there");
        }
        let tone: Vec<u8> = (0..TONE_OCTETS).map(|n| if n % 16 < 8 { 0x90 } else { 0x10 }).collect();
        std::fs::write(folder.join("tone.raw"), tone).expect("a media file");
        Self { folder: folder.to_owned() }
    }

    /// As [`Bench::new`], without media: where the calls count and the machine has other work.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn silent(folder: &Path) -> Self {
        let bench = Self::new(folder);
        let caller = folder.join("caller.xml");
        let text = std::fs::read_to_string(&caller).expect("the scenario was copied");
        let silent: String =
            text.lines().filter(|line| !line.contains("rtp_stream")).map(|l| format!("{l}\n")).collect();
        std::fs::write(&caller, silent).expect("it can be written");
        bench
    }

    /// Writes the data file of a phone that dials `to`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn data(&self, name: &str, phone: &Subscriber, to: &str) {
        let Subscriber { username, password, domain } = phone;
        let line =
            format!("{username};{password};{domain};[authentication username={username} password={password}];{to}");
        std::fs::write(self.folder.join(name), format!("SEQUENTIAL\n{line}\n")).expect("a data file");
    }

    /// Starts `sipp` with a scenario from a port towards the server.
    ///
    /// # Panics
    /// When `sipp` is missing: `make test` installs it.
    #[must_use]
    pub fn start(
        &self,
        scenario: &str,
        data: &str,
        local: SocketAddr,
        server: SocketAddr,
        arguments: &[&str],
    ) -> Child {
        let log = std::fs::File::create(self.folder.join(format!("{scenario}.log"))).expect("a log file");
        // A busy machine makes Tandem send an INVITE twice, for which sipp's callee has no place: it goes on all the same.
        let patience: &[&str] = if scenario == "callee" { &["-default_behaviors", "all,-abortunexp"] } else { &[] };
        Command::new("sipp")
            .current_dir(&self.folder)
            .args(["-sf", &format!("{scenario}.xml"), "-inf", data, "-i", "127.0.0.1"])
            .args(["-p", &local.port().to_string(), "-nostdin", "-trace_shortmsg", "-trace_err"])
            .args(["-shortmessage_file", &format!("{scenario}.short"), "-error_file", &format!("{scenario}.err")])
            .args(patience)
            .args(arguments)
            .arg(server.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("sipp (Debian's sip-tester) is installed by `make test`")
    }

    /// The errors that a scenario reported, for messages of failed tests.
    #[must_use]
    pub fn errors(&self, scenario: &str) -> String {
        let text = std::fs::read_to_string(self.folder.join(format!("{scenario}.err"))).unwrap_or_default();
        text.lines().take(40).collect::<Vec<_>>().join("\n")
    }

    /// What the log of a scenario says of each call.
    ///
    /// # Panics
    /// When the log is missing.
    #[must_use]
    pub fn calls(&self, scenario: &str) -> BTreeMap<String, LoggedCall> {
        let text = std::fs::read_to_string(self.folder.join(format!("{scenario}.short"))).expect("a short message log");
        let mut calls: BTreeMap<String, LoggedCall> = BTreeMap::new();
        for message in text.lines().filter_map(parse_line) {
            let call = calls.entry(message.call_id.clone()).or_default();
            let key = (message.sent, message.cseq.clone(), message.start.clone());
            let seen = call.seen.entry(key).or_default();
            *seen += 1;
            call.retransmissions |= *seen > 1;
            if message.start.starts_with("SIP/2.0 200") && message.cseq.ends_with("INVITE") {
                call.answered_ms.get_or_insert(message.at_ms);
            }
            if message.start.starts_with("BYE ") {
                call.bye_ms.get_or_insert(message.at_ms);
            }
        }
        calls
    }
}

/// One call in the log.
#[derive(Debug, Clone, Default)]
pub struct LoggedCall {
    /// When the 200 to the INVITE was received or sent, milliseconds since the epoch.
    pub answered_ms: Option<f64>,
    /// When the BYE was sent or received.
    pub bye_ms: Option<f64>,
    /// Whether any message came twice.
    pub retransmissions: bool,
    seen: BTreeMap<(bool, String, String), u32>,
}

impl LoggedCall {
    /// The start line by which the call was refused; the challenge is none.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        let mut starts = self.seen.keys().map(|(_, _, start)| start.as_str());
        starts.find(|start| {
            let status = start.strip_prefix("SIP/2.0 ").unwrap_or_default();
            status.starts_with(['3', '4', '5', '6']) && !status.starts_with("407")
        })
    }
}

struct Line {
    at_ms: f64,
    sent: bool,
    call_id: String,
    cseq: String,
    start: String,
}

/// `date\ttime\tseconds.microseconds\tS|R\tCall-ID\tCSeq:n METHOD\tstart line`.
fn parse_line(line: &str) -> Option<Line> {
    let fields: Vec<&str> = line.split('\t').collect();
    let direction = fields.iter().position(|field| matches!(*field, "S" | "R"))?;
    let seconds: f64 = fields.get(direction.checked_sub(1)?)?.trim().parse().ok()?;
    let text = |index: usize| fields.get(direction + index).map(|field| (*field).trim().to_owned());
    Some(Line {
        at_ms: seconds * 1_000.0,
        sent: fields.get(direction) == Some(&"S"),
        call_id: text(1)?,
        cseq: text(2)?,
        start: text(3)?,
    })
}
