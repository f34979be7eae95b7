//! The server on real sockets: graceful end, health, metrics.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what must not be")]

// the name by which everybody else knows the crate
extern crate tandem_http as api_http;

mod support;

use std::sync::Arc;
use std::time::Duration;

use api_http::{Check, Readiness, admin_router, serve};
use async_trait::async_trait;
use axum::Router;
use metrics_exporter_prometheus::PrometheusBuilder;
use support::{Billing, face_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const BOUND: Duration = Duration::from_secs(5);

struct Ready(bool);

#[async_trait]
impl Readiness for Ready {
    async fn checks(&self) -> Vec<Check> {
        vec![Check { name: "store", ok: self.0, detail: "asked".to_owned() }]
    }
}

async fn exchange(stream: &mut TcpStream, path: &str, more: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(BOUND, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

async fn started(router: Router) -> (std::net::SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        serve(listener, router, async { drop(stopped.await) }).await.unwrap();
    });
    (address, stop, served)
}

#[tokio::test]
async fn it_serves_until_it_is_told_to_end() {
    let (address, stop, served) = started(face_with(Billing::default(), Router::new()).router).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let answer = exchange(&mut stream, "/reports/runs", "authorization: Bearer full\r\nconnection: close\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    // refused without being understood: the answer itself may be lost to the reset that follows unread octets
    let mut large = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /reports/runs HTTP/1.1\r\nhost: test\r\nx: {}\r\n\r\n", "a".repeat(300_000));
    let _ = large.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(BOUND, large.read_to_end(&mut answer)).await.expect("the connection ends");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    // an idle connection does not hold the end up
    let mut idle = TcpStream::connect(address).await.unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(BOUND, served).await.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn health_and_metrics_know_no_tokens() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || metrics::counter!("tandem_test_total").increment(3));
    for (ready, status) in [(true, "200"), (false, "503")] {
        let (address, stop, served) = started(admin_router(handle.clone(), Arc::new(Ready(ready)))).await;
        let get = async |path: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            exchange(&mut stream, path, "connection: close\r\n").await
        };
        assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get("/metrics").await.contains("tandem_test_total 3"));
        let answer = get("/readyz").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains("\"store\""), "{answer}");
        stop.send(()).unwrap();
        tokio::time::timeout(BOUND, served).await.unwrap().unwrap();
    }
}
