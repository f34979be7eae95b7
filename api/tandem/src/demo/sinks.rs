//! The receivers that the demo plays: an SMTP server that keeps what it is sent, and an SNMP trap receiver.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use snmp2::{Pdu, Value};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

use super::process::{free_tcp, free_udp};

/// Largest mail that the sink keeps; a report is below 1 MiB.
const MAIL_MAX: usize = 8 * 1024 * 1024;
/// Notifications that the receiver keeps; the demo makes a handful.
const NOTIFICATIONS_MAX: usize = 1_000;

/// A mail that arrived.
#[derive(Debug, Clone)]
pub struct Mail {
    /// `RCPT TO` of the envelope.
    pub recipients: Vec<String>,
    /// The message as it came, headers and body.
    pub data: String,
}

/// An SMTP server (RFC 5321, the commands that a client needs) on loopback that keeps mails in memory.
#[derive(Debug)]
pub struct SmtpSink {
    address: SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
    task: JoinHandle<()>,
}

impl SmtpSink {
    /// Listens on a free port.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> std::io::Result<Self> {
        // As below: a kept installation names it.
        let listener = TcpListener::bind(free_tcp()?).await?;
        let address = listener.local_addr()?;
        let mails: Arc<Mutex<Vec<Mail>>> = Arc::default();
        let kept = Arc::clone(&mails);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    // A client that breaks off has sent no mail; there is nothing to keep.
                    drop(session(stream, &kept).await);
                });
            }
        });
        Ok(Self { address, mails, task })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has arrived so far.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn session(stream: TcpStream, mails: &Mutex<Vec<Mail>>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 demo.example ESMTP\r\n").await?;
    let mut recipients = Vec::new();
    while let Some(line) = lines.next_line().await? {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer: &[u8] = match verb.as_str() {
            "EHLO" => b"250-demo.example\r\n250 8BITMIME\r\n",
            "HELO" | "MAIL" | "NOOP" => b"250 OK\r\n",
            "RSET" => {
                recipients.clear();
                b"250 OK\r\n"
            }
            "RCPT" => {
                let address = line.split(['<', '>']).nth(1).unwrap_or_default();
                recipients.push(address.to_owned());
                b"250 OK\r\n"
            }
            "DATA" => {
                write.write_all(b"354 go on\r\n").await?;
                let mut data = String::new();
                while let Some(line) = lines.next_line().await? {
                    if line == "." {
                        break;
                    }
                    if data.len() < MAIL_MAX {
                        data.push_str(line.strip_prefix('.').unwrap_or(&line));
                        data.push_str("\r\n");
                    }
                }
                let mail = Mail { recipients: std::mem::take(&mut recipients), data };
                mails.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
                b"250 kept\r\n"
            }
            "QUIT" => {
                write.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => b"502 unknown\r\n",
        };
        write.write_all(answer).await?;
    }
    Ok(())
}

/// A notification as `snmp2` decoded it: object identifiers and values as text.
#[derive(Debug, Clone)]
pub struct Notification {
    /// `(object identifier, value)` in their order.
    pub varbinds: Vec<(String, String)>,
}

impl Notification {
    /// The value of `snmpTrapOID.0`.
    #[must_use]
    pub fn trap_oid(&self) -> &str {
        self.value_below("1.3.6.1.6.3.1.1.4.1").unwrap_or_default()
    }

    /// The value of the first object below `prefix`.
    #[must_use]
    pub fn value_below(&self, prefix: &str) -> Option<&str> {
        self.varbinds
            .iter()
            .find(|(oid, _)| oid.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
            .map(|(_, value)| value.as_str())
    }
}

/// Receives v2c traps on a free loopback port.
#[derive(Debug)]
pub struct TrapReceiver {
    address: SocketAddr,
    notifications: Arc<Mutex<Vec<Notification>>>,
    task: JoinHandle<()>,
}

impl TrapReceiver {
    /// Listens on a free port.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> std::io::Result<Self> {
        // Not one of the kernel's choice: a kept installation names it, and another socket may have it by then.
        let socket = UdpSocket::bind(free_udp()?).await?;
        let address = socket.local_addr()?;
        let notifications: Arc<Mutex<Vec<Notification>>> = Arc::default();
        let kept = Arc::clone(&notifications);
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 65_535];
            while let Ok(length) = socket.recv(&mut buffer).await {
                let Some(notification) = buffer.get(..length).and_then(decode) else { continue };
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() < NOTIFICATIONS_MAX {
                    kept.push(notification);
                }
            }
        });
        Ok(Self { address, notifications, task })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has arrived so far.
    #[must_use]
    pub fn notifications(&self) -> Vec<Notification> {
        self.notifications.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for TrapReceiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn decode(datagram: &[u8]) -> Option<Notification> {
    let pdu = Pdu::from_bytes(datagram).ok()?;
    let text = |value: &Value<'_>| match value {
        Value::OctetString(octets) => String::from_utf8_lossy(octets).into_owned(),
        Value::ObjectIdentifier(oid) => oid.to_string(),
        Value::Integer(n) => n.to_string(),
        Value::Unsigned32(n) | Value::Timeticks(n) | Value::Counter32(n) => n.to_string(),
        Value::Counter64(n) => n.to_string(),
        other => format!("{other:?}"),
    };
    let varbinds = pdu.varbinds.map(|(oid, value)| (oid.to_string(), text(&value))).collect();
    Some(Notification { varbinds })
}
