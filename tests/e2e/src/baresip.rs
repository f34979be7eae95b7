//! `baresip`, a phone of Debian's: registers, calls, holds, and records what it hears.
//!
//! It is driven over its control socket (module `ctrl_tcp`: JSON in netstrings), plays a tone from a file (`aufile`) and
//! writes what it decodes into a WAV file (`sndfile`), so that a test can measure what has really arrived.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::Subscriber;

/// Where Debian puts its modules.
const MODULES: &str = "/usr/lib/baresip/modules";
/// Samples a second of all audio here: G.711.
const SAMPLE_RATE: u32 = 8_000;
/// How long an event or an answer may take.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// Longest message on the control socket that is taken.
const MESSAGE_MAX: usize = 65_536;

/// How a phone speaks SIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A connection.
    Tcp,
}

/// A running phone; it ends when this is dropped.
#[derive(Debug)]
pub struct Baresip {
    _child: Child,
    control: TcpStream,
    received: Vec<u8>,
    events: VecDeque<Value>,
    dir: PathBuf,
}

impl Baresip {
    /// Starts a phone below `dir` that answers every call and plays a tone of `tone_hz`, and waits until it is
    /// registered at `server`.
    ///
    /// # Panics
    /// When it cannot be started or does not register.
    pub async fn start(
        dir: &Path,
        subscriber: &Subscriber,
        server: SocketAddr,
        transport: Transport,
        tone_hz: f64,
    ) -> Self {
        let dir = dir.join(&subscriber.username);
        std::fs::create_dir_all(&dir).expect("a directory of its own");
        write_tone(&dir.join("tone.wav"), tone_hz);
        let port = || tandem::demo::process::free_udp().expect("a free port");
        let sip = port();
        // It listens for TLS on the port after that of SIP, whether anybody wants it or not.
        let _tls = port();
        let (control, rtp) = (tandem::demo::process::free_tcp().expect("a free port"), port().port());
        let modules = ["g711", "aufile", "sndfile", "account", "menu", "ctrl_tcp"].map(|m| format!("module {m}.so\n"));
        let config = format!(
            "poll_method epoll\nsip_listen {sip}\nnet_interface 127.0.0.1\ndns_server 127.0.0.1:9\n\
             audio_source aufile,{dir}/tone.wav\naudio_player aufile,{dir}/none.wav\n\
             rtp_ports {rtp}-{}\nrtcp_mux no\nsnd_path {dir}\nmodule_path {MODULES}\n{}\
             ctrl_tcp_listen {control}\ncall_local_timeout 60\n",
            rtp.saturating_add(9),
            modules.concat(),
            dir = dir.display(),
        );
        let transport = match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        let Subscriber { username, domain, password } = subscriber;
        let account = format!(
            "<sip:{username}@{domain};transport={transport}>;auth_user={username};auth_pass={password};\
             outbound=\"sip:{server};transport={transport}\";regint=60;answermode=auto\n"
        );
        for (name, text) in [("config", &*config), ("accounts", &*account), ("contacts", "")] {
            std::fs::write(dir.join(name), text).expect("the directory is writable");
        }
        let log = std::fs::File::create(dir.join("log")).expect("the directory is writable");
        let child = Command::new("baresip")
            .arg("-f")
            .arg(&dir)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a file"))
            .stdout(log)
            .kill_on_drop(true)
            .spawn()
            .expect("baresip is installed: .ci/install");
        let mut connection = None;
        testkit::wait_until(WAIT_MAX, async || {
            connection = TcpStream::connect(control).await.ok();
            connection.is_some()
        })
        .await;
        let control = connection.expect("the control socket is open");
        let mut phone = Self { _child: child, control, received: Vec::new(), events: VecDeque::new(), dir };
        testkit::wait_until(WAIT_MAX, async || phone.command("reginfo", "").await.contains("OK")).await;
        phone
    }

    /// Runs a command of the phone, as its menu knows it, and gives what it prints.
    ///
    /// # Panics
    /// When it is not answered or refused.
    pub async fn command(&mut self, command: &str, parameters: &str) -> String {
        let message = json!({ "command": command, "params": parameters, "token": command }).to_string();
        let framed = format!("{}:{message},", message.len());
        self.control.write_all(framed.as_bytes()).await.expect("the control socket is open");
        let response = tokio::time::timeout(WAIT_MAX, async {
            loop {
                let message = self.read().await;
                if message["response"] == true && message["token"] == command {
                    return message;
                }
                self.events.push_back(message);
            }
        });
        let response = response.await.unwrap_or_default();
        assert_eq!(response["ok"], true, "{command}: {response}\n{}", self.log());
        response["data"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits for an event of this type, and forgets those before it.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn event(&mut self, kind: &str) -> Value {
        let found = tokio::time::timeout(WAIT_MAX, async {
            loop {
                let event = match self.events.pop_front() {
                    Some(event) => event,
                    None => self.read().await,
                };
                if event["type"] == kind {
                    return event;
                }
            }
        });
        let found = found.await;
        assert!(found.is_ok(), "no event {kind}\n{}", self.log());
        found.unwrap_or_default()
    }

    /// How much of what was heard, from `from_ms` on for a second, is a tone of `hz`: 0 to 1; none when the recording
    /// is not that long.
    ///
    /// # Panics
    /// When there is no recording.
    #[must_use]
    pub fn heard(&self, hz: f64, from_ms: u32) -> Option<f64> {
        let samples = self.recording();
        let at = |ms: u32| usize::try_from(u64::from(ms) * u64::from(SAMPLE_RATE) / 1_000).unwrap_or(usize::MAX);
        samples.get(at(from_ms)..at(from_ms + 1_000)).map(|second| share(second, hz))
    }

    /// As [`Baresip::heard`], of the last second but the very end.
    ///
    /// # Panics
    /// When there is no recording.
    #[must_use]
    pub fn heard_last(&self, hz: f64) -> Option<f64> {
        let samples = self.recording();
        let second = usize::try_from(SAMPLE_RATE).unwrap_or(usize::MAX);
        let end = samples.len().checked_sub(second / 10)?;
        samples.get(end.checked_sub(second)?..end).map(|second| share(second, hz))
    }

    fn recording(&self) -> Vec<f64> {
        let recordings = std::fs::read_dir(&self.dir).expect("the directory is there").filter_map(Result::ok);
        let mut decoded: Vec<PathBuf> =
            recordings.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with("-dec.wav")).collect();
        decoded.sort();
        assert!(!decoded.is_empty(), "nothing was recorded\n{}", self.log());
        let path = decoded.pop().unwrap_or_default();
        let mut reader = hound::WavReader::open(path).expect("a WAV file");
        reader.samples::<i16>().filter_map(Result::ok).map(f64::from).collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    async fn read(&mut self) -> Value {
        loop {
            if let Some(message) = take_netstring(&mut self.received) {
                return message;
            }
            assert!(self.received.len() < MESSAGE_MAX, "a message without end");
            let mut piece = [0; 4_096];
            let length = self.control.read(&mut piece).await.expect("the control socket is open");
            assert!(length > 0, "baresip has ended\n{}", self.log());
            self.received.extend(&piece[..length]);
        }
    }
}

/// Takes the first whole netstring (`length:text,`) out of the buffer.
fn take_netstring(buffer: &mut Vec<u8>) -> Option<Value> {
    let colon = buffer.iter().position(|octet| *octet == b':')?;
    let length: usize = std::str::from_utf8(&buffer[..colon]).ok()?.trim().parse().ok()?;
    let end = colon + 1 + length;
    if buffer.len() <= end {
        return None;
    }
    let message = serde_json::from_slice(&buffer[colon + 1..end]).unwrap_or_default();
    buffer.drain(..=end);
    Some(message)
}

fn write_tone(path: &Path, hz: f64) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: SAMPLE_RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).expect("the directory is writable");
    for index in 0..SAMPLE_RATE * 30 {
        let angle = std::f64::consts::TAU * hz * f64::from(index) / f64::from(SAMPLE_RATE);
        #[expect(clippy::cast_possible_truncation, reason = "at most 12,000")]
        writer.write_sample((12_000.0 * angle.sin()) as i16).expect("the file is writable");
    }
    writer.finalize().expect("the file is writable");
}

/// The share of a tone in the energy of the samples (Goertzel's algorithm).
fn share(samples: &[f64], hz: f64) -> f64 {
    let coefficient = 2.0 * (std::f64::consts::TAU * hz / f64::from(SAMPLE_RATE)).cos();
    let (mut last, mut before) = (0.0, 0.0);
    for sample in samples {
        (last, before) = (sample + coefficient * last - before, last);
    }
    let energy: f64 = samples.iter().map(|sample| sample * sample).sum();
    #[expect(clippy::cast_precision_loss, reason = "a second has 8,000 samples")]
    let count = samples.len() as f64;
    let tone = last * last + before * before - coefficient * last * before;
    if energy > 0.0 { 2.0 * tone / (count * energy) } else { 0.0 }
}
