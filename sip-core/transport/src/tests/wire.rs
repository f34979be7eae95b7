//! How a phone of these tests reaches the node: a UDP socket, which sends again what was lost, or a TCP connection.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sip_message::Message;
use sip_message::stream::{Frame, Framer};

/// T1: when a phone on UDP says again what it said last.
pub const REPEAT: Duration = Duration::from_millis(500);

/// What a phone on UDP said last, so that it can be said again while the test reads another phone.
#[derive(Clone)]
pub struct Last {
    socket: Arc<UdpSocket>,
    server: SocketAddr,
    octets: Arc<Mutex<Vec<u8>>>,
}

impl Last {
    pub fn repeat(&self) {
        self.socket.send_to(&self.octets.lock().unwrap(), self.server).unwrap();
    }
}

pub enum Wire {
    Udp(Last),
    Tcp { stream: RefCell<TcpStream>, framer: RefCell<Framer> },
}

impl Wire {
    pub fn udp(socket: UdpSocket, server: SocketAddr) -> Self {
        socket.set_read_timeout(Some(REPEAT)).unwrap();
        Self::Udp(Last { socket: Arc::new(socket), server, octets: Arc::default() })
    }

    /// What it said last, for a phone on UDP.
    pub fn last(&self) -> Last {
        match self {
            Self::Udp(last) => last.clone(),
            Self::Tcp { .. } => panic!("TCP says nothing twice"),
        }
    }

    pub fn tcp(server: SocketAddr) -> Self {
        Self::stream(TcpStream::connect(server).unwrap())
    }

    pub fn stream(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::Tcp { stream: RefCell::new(stream), framer: RefCell::default() }
    }

    /// The next connection to this listener.
    pub fn accepted(listener: &TcpListener) -> Self {
        Self::stream(listener.accept().unwrap().0)
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Udp(last) => last.socket.local_addr().unwrap(),
            Self::Tcp { stream, .. } => stream.borrow().local_addr().unwrap(),
        }
    }

    /// As in Via.
    pub fn transport(&self) -> &'static str {
        match self {
            Self::Udp(_) => "UDP",
            Self::Tcp { .. } => "TCP",
        }
    }

    /// What the URI of Contact says of it.
    pub fn contact_param(&self) -> &'static str {
        match self {
            Self::Udp(_) => "",
            Self::Tcp { .. } => ";transport=tcp",
        }
    }

    pub fn send(&self, octets: &[u8]) {
        match self {
            Self::Udp(last) => {
                *last.octets.lock().unwrap() = octets.to_vec();
                last.repeat();
            }
            Self::Tcp { stream, .. } => stream.borrow_mut().write_all(octets).unwrap(),
        }
    }

    /// The next message; none when it does not come in time or the connection ends.
    pub fn receive(&self, wait_max: Duration) -> Option<Message> {
        let mut buffer = [0; 65_536];
        match self {
            Self::Udp(last) => {
                for _ in 0..=wait_max.as_millis() / REPEAT.as_millis() {
                    match last.socket.recv_from(&mut buffer) {
                        Ok((length, _)) => {
                            let octets = Bytes::copy_from_slice(&buffer[..length]);
                            return Some(Message::parse_datagram(octets).unwrap());
                        }
                        Err(_) => last.repeat(),
                    }
                }
                None
            }
            Self::Tcp { stream, framer } => {
                let (mut stream, mut framer) = (stream.borrow_mut(), framer.borrow_mut());
                stream.set_read_timeout(Some(wait_max)).unwrap();
                loop {
                    match framer.poll().unwrap() {
                        Some(Frame::Message(message)) => return Some(message),
                        Some(other) => panic!("{other:?}"),
                        None => {}
                    }
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => return None,
                        Ok(length) => framer.push(&buffer[..length]),
                    }
                }
            }
        }
    }

    /// Octets as they come; none when the connection has ended.
    pub fn read(&self, wait_max: Duration) -> Option<Vec<u8>> {
        let Self::Tcp { stream, .. } = self else { panic!("not a stream") };
        let mut buffer = [0; 65_536];
        stream.borrow().set_read_timeout(Some(wait_max)).unwrap();
        match stream.borrow_mut().read(&mut buffer) {
            Ok(0) => None,
            Ok(length) => Some(buffer[..length].to_vec()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("neither octets nor an end: {error}"),
        }
    }

    /// Whether the far side ends the connection; what it still says is returned.
    pub fn read_to_end(&self, wait_max: Duration) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(octets) = self.read(wait_max) {
            all.extend(octets);
        }
        all
    }
}
