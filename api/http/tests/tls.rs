//! The server over TLS, on real sockets: versions, the replaced certificate, slow handshakes, the end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

// the name by which everybody else knows the crate
extern crate tandem_http as api_http;

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api_http::limit::{HANDSHAKE_TIMEOUT, HEAD_TIMEOUT};
use api_http::{Tls, TlsIdentity, serve_tls};
use axum::Router;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use support::{Billing, face_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const BOUND: Duration = Duration::from_secs(5);
const REQUEST: &[u8] = b"GET /reports/runs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer full\r\n\r\n";

/// A certificate that is its own authority, and the server's identity with it.
struct Issued {
    identity: TlsIdentity,
    certificate: CertificateDer<'static>,
}

fn issue() -> Issued {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("certificate.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let identity = TlsIdentity::load(&certificate, &key).unwrap();
    Issued { identity, certificate: CertificateDer::from_pem_file(&certificate).unwrap() }
}

struct Served {
    address: SocketAddr,
    tls: Tls,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

async fn started(identity: TlsIdentity) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let (router, tls) = (face_with(Billing::default(), Router::new()).router, Tls::new(identity));
    let shown = tls.clone();
    let ended = tokio::spawn(async move {
        serve_tls(listener, router, shown, async { drop(stopped.await) }).await.unwrap();
    });
    Served { address, tls, stop, ended }
}

async fn connect(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    tokio::time::timeout(BOUND, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
}

/// One request on a connection that stays open.
async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut part = [0; 4_096];
        let read = tokio::time::timeout(BOUND, stream.read(&mut part)).await.unwrap().unwrap();
        assert!(read > 0, "the connection ended after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..read]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn both_versions_are_spoken_and_a_replaced_certificate_is_shown_to_new_connections() {
    let (old, new) = (issue(), issue());
    let served = started(old.identity).await;
    let (tls12, tls13): (&[_], &[_]) = (&[&rustls::version::TLS12], &[&rustls::version::TLS13]);
    for (versions, spoken) in [(tls12, ProtocolVersion::TLSv1_2), (tls13, ProtocolVersion::TLSv1_3)] {
        let mut stream = connect(served.address, &old.certificate, versions).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(spoken));
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    }
    let mut begun = connect(served.address, &old.certificate, tls13).await.unwrap();
    assert!(ask(&mut begun).await.starts_with("HTTP/1.1 200 OK"));

    let expiry = new.identity.not_after();
    served.tls.replace(new.identity);
    assert_eq!(served.tls.identity().not_after(), expiry);
    assert!(ask(&mut begun).await.starts_with("HTTP/1.1 200 OK"), "a connection outlives the change");
    assert!(connect(served.address, &old.certificate, tls13).await.is_err(), "the old one is not shown any more");
    let mut stream = connect(served.address, &new.certificate, tls13).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap(), std::slice::from_ref(&new.certificate));
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200 OK"));

    // HTTP in clear gets no answer that could be taken for one
    let mut clear = TcpStream::connect(served.address).await.unwrap();
    clear.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(BOUND, clear.read_to_end(&mut answer)).await.expect("the connection ends");
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    served.stop.send(()).unwrap();
    tokio::time::timeout(BOUND, served.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_is_slow_or_idle_holds_nobody_else_and_is_left() {
    let issued = issue();
    let served = started(issued.identity).await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        // the begin of a record (RFC 8446, section 5.1) that never comes whole
        stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        slow.push(stream);
    }
    let mut stream = connect(served.address, &issued.certificate, rustls::ALL_VERSIONS).await.unwrap();
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    // it stays idle from here on, and has as long as without TLS
    for stream in &mut slow {
        let left = tokio::time::timeout(HANDSHAKE_TIMEOUT + BOUND, stream.read(&mut [0; 16])).await;
        assert_eq!(left.expect("it is left").unwrap_or_default(), 0);
    }
    let left = tokio::time::timeout(HEAD_TIMEOUT + BOUND, stream.read(&mut [0; 16])).await;
    assert_eq!(left.expect("it is left").unwrap_or_default(), 0);
    served.stop.send(()).unwrap();
    tokio::time::timeout(BOUND, served.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_end_waits_neither_for_handshakes_nor_for_idle_connections() {
    let issued = issue();
    let served = started(issued.identity).await;
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    let mut idle = connect(served.address, &issued.certificate, rustls::ALL_VERSIONS).await.unwrap();
    assert!(ask(&mut idle).await.starts_with("HTTP/1.1 200 OK"));
    served.stop.send(()).unwrap();
    tokio::time::timeout(BOUND, served.ended).await.unwrap().unwrap();
    assert_eq!(slow.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    // an orderly end: close_notify (RFC 8446, section 6.1), without which this would be an error
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(TcpStream::connect(served.address).await.is_err());
}
