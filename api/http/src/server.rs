//! Serving a router on a bound listener (HTTP/1.1, RFC 9112), in clear or over TLS, with limits that `axum::serve` has
//! no place for: open connections of all and of each source, time of a handshake, size and time of a head.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::limit::{
    ACCEPT_PAUSE, CONNECTIONS_MAX, CONNECTIONS_PER_SOURCE_MAX, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, HEAD_MAX, HEAD_TIMEOUT,
};
use crate::source::{Connection, Loopback, Sources};
use crate::tls::Tls;

/// Serves in clear until `shutdown` is done; then takes no connection any more, lets open requests end within
/// [`DRAIN_TIMEOUT`], and cuts what is left.
///
/// # Errors
/// When the listener has no address.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
    run(listener, router, None, bounded(), shutdown).await
}

/// As [`serve`], over TLS. A connection in its handshake has a place like any other, and ends with the shutdown.
///
/// # Errors
/// When the listener has no address.
pub async fn serve_tls(
    listener: TcpListener,
    router: Router,
    tls: Tls,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    run(listener, router, Some(tls), bounded(), shutdown).await
}

fn bounded() -> Arc<Sources> {
    Sources::new(CONNECTIONS_PER_SOURCE_MAX, Loopback::Exempt)
}

async fn run(
    listener: TcpListener,
    router: Router,
    tls: Option<Tls>,
    sources: Arc<Sources>,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    tracing::info!(%address, tls = tls.is_some(), "HTTP is served");
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            // reaped as they end, so that the set does not grow
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                // before the handshake, and without a line of the log: anybody can cause it at will
                let Some(share) = sources.take(peer.ip()) else {
                    metrics::counter!("tandem_http_connections_refused_total").increment(1);
                    continue;
                };
                let (router, tls, stopped) = (router.clone(), tls.clone(), stopped.clone());
                let peer = Peer { address: peer, held: Held { _place: Arc::new((place, share)) } };
                connections.spawn(async move {
                    match tls {
                        None => connection(stream, peer, router, stopped).await,
                        Some(tls) => secure(stream, peer, router, &tls, stopped).await,
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%address, %error, "a connection could not be accepted");
                if tokio::time::timeout(ACCEPT_PAUSE, &mut shutdown).await.is_ok() {
                    break;
                }
            }
        }
    }
    drop(listener);
    stop.send_replace(true);
    let drained = tokio::time::timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(%address, left = connections.len(), "open connections were cut at shutdown");
    }
    connections.shutdown().await;
    Ok(())
}

type Place = tokio::sync::OwnedSemaphorePermit;

/// The place of a connection among all and among those of its source. It is among the extensions of each request, for
/// whoever takes the connection over by an upgrade: the place is free when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Held {
    _place: Arc<(Place, Connection)>,
}

/// The other end of a connection.
struct Peer {
    address: SocketAddr,
    held: Held,
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, Place)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // answers are written whole; waiting for more only delays them
    stream.set_nodelay(true)?;
    Ok((stream, peer, place))
}

/// The handshake, within its time and in the connection's own task: who is slow at it holds nobody else.
async fn secure(stream: TcpStream, peer: Peer, router: Router, tls: &Tls, mut stopped: watch::Receiver<bool>) {
    let address = peer.address;
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        _ = stopped.wait_for(|stop| *stop) => return,
    };
    let count = |outcome| metrics::counter!("tandem_http_tls_handshakes_total", "outcome" => outcome).increment(1);
    match shaken {
        Ok(Ok(stream)) => {
            count("done");
            connection(stream, peer, router, stopped).await;
        }
        // anybody can cause it at will: counted, not told line by line
        Ok(Err(error)) => {
            count("failed");
            tracing::debug!(peer = %address, %error, "a TLS handshake failed");
        }
        Err(_) => {
            count("timeout");
            tracing::debug!(peer = %address, "a TLS handshake took too long");
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Peer { address, held }: Peer,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        request.extensions_mut().insert(held.clone());
        router.clone().oneshot(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let mut draining = false;
    loop {
        tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    tracing::debug!(peer = %address, %error, "a connection broke off");
                }
                return;
            }
            _ = stopped.wait_for(|stop| *stop), if !draining => {
                served.as_mut().graceful_shutdown();
                draining = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::get;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;

    use super::*;

    const BOUND: Duration = Duration::from_secs(30);

    async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("an address of this machine");
        socket.connect(to).await.expect("it listens")
    }

    /// Whether a request is answered, on a connection that stays open; else it was closed.
    async fn is_answered(stream: &mut TcpStream) -> bool {
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
        let mut answer = Vec::new();
        while asked.is_ok() && !answer.ends_with(b"here") {
            let mut part = [0; 1_024];
            match tokio::time::timeout(BOUND, stream.read(&mut part)).await.expect("an answer or the end") {
                Ok(read @ 1..) => answer.extend_from_slice(&part[..read]),
                _ => return false,
            }
        }
        asked.is_ok()
    }

    /// Takes the connection over, echoes one octet, and lets it go.
    async fn upgrade(mut request: axum::extract::Request) -> axum::http::Response<axum::body::Body> {
        let held = request.extensions().get::<Held>().cloned();
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.expect("it is taken over"));
            let octet = stream.read_u8().await.expect("an octet");
            stream.write_u8(octet).await.expect("it is sent");
            drop(held);
        });
        let answer = axum::http::Response::builder().status(101).header("connection", "upgrade");
        answer.header("upgrade", "echo").body(axum::body::Body::empty()).expect("an answer")
    }

    #[tokio::test]
    async fn whoever_takes_a_connection_over_keeps_its_place() {
        let from = [127, 0, 0, 1];
        with_server(Sources::new(1, Loopback::Counted), async |address| {
            let mut taken = connect(from, address).await;
            let head = b"GET /upgrade HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
            taken.write_all(head).await.expect("it is sent");
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(taken.read_u8().await.expect("an answer"));
            }
            assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
            for _ in 0..3 {
                assert!(!is_answered(&mut connect(from, address).await).await, "the place is taken");
            }
            taken.write_u8(7).await.expect("it is sent");
            assert_eq!(taken.read_u8().await.expect("it echoes"), 7);
            let free = async { while !is_answered(&mut connect(from, address).await).await {} };
            tokio::time::timeout(BOUND, free).await.expect("its end makes room");
        })
        .await;
    }

    async fn with_server(sources: Arc<Sources>, test: impl AsyncFnOnce(SocketAddr)) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().route("/", get(async || "here")).route("/upgrade", get(upgrade));
        let served = tokio::spawn(async move {
            let mut stopped = stopped;
            run(listener, router, None, sources, async { drop(stopped.wait_for(|stop| *stop).await) }).await
        });
        test(address).await;
        stop.send_replace(true);
        tokio::time::timeout(BOUND, served).await.expect("it ends").expect("no panic").expect("it served");
    }

    #[tokio::test]
    async fn one_source_cannot_take_the_places_of_others() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _counted_here = metrics::set_default_local_recorder(&recorder);
        let (one, other) = ([127, 0, 0, 1], [127, 0, 0, 2]);
        with_server(Sources::new(2, Loopback::Counted), async |address| {
            let mut silent = [connect(one, address).await, connect(one, address).await];
            assert!(!is_answered(&mut connect(one, address).await).await, "the third is closed at once");
            assert!(is_answered(&mut connect(other, address).await).await, "another source is served");
            for stream in &mut silent {
                assert!(is_answered(stream).await, "those that are open stay");
            }
            let refused = "tandem_http_connections_refused_total 1\n";
            assert!(recorder.handle().render().contains(refused), "{}", recorder.handle().render());
            drop(silent);
            // its end is seen by the server's task
            let free = async { while !is_answered(&mut connect(one, address).await).await {} };
            tokio::time::timeout(BOUND, free).await.expect("a closed connection makes room");
        })
        .await;
    }

    #[tokio::test]
    async fn a_proxy_on_this_machine_is_not_bounded() {
        with_server(Sources::new(1, Loopback::Exempt), async |address| {
            let mut held = Vec::new();
            for _ in 0..3 {
                let mut stream = connect([127, 0, 0, 1], address).await;
                assert!(is_answered(&mut stream).await);
                held.push(stream);
            }
        })
        .await;
    }
}
