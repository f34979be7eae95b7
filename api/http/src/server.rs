//! Serving a router on a bound listener (HTTP/1.1, RFC 9112), in clear or over TLS, with limits that `axum::serve` has
//! no place for: open connections, time of a handshake, size and time of a head.

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

use crate::limit::{ACCEPT_PAUSE, CONNECTIONS_MAX, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, HEAD_MAX, HEAD_TIMEOUT};
use crate::tls::Tls;

/// Serves in clear until `shutdown` is done; then takes no connection any more, lets open requests end within
/// [`DRAIN_TIMEOUT`], and cuts what is left.
///
/// # Errors
/// When the listener has no address.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
    run(listener, router, None, shutdown).await
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
    run(listener, router, Some(tls), shutdown).await
}

async fn run(
    listener: TcpListener,
    router: Router,
    tls: Option<Tls>,
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
                let (router, tls, stopped) = (router.clone(), tls.clone(), stopped.clone());
                connections.spawn(async move {
                    match tls {
                        None => connection(stream, peer, router, stopped).await,
                        Some(tls) => secure(stream, peer, router, &tls, stopped).await,
                    }
                    drop(place);
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

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, Place)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // answers are written whole; waiting for more only delays them
    stream.set_nodelay(true)?;
    Ok((stream, peer, place))
}

/// The handshake, within its time and in the connection's own task: who is slow at it holds nobody else.
async fn secure(stream: TcpStream, peer: SocketAddr, router: Router, tls: &Tls, mut stopped: watch::Receiver<bool>) {
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
            tracing::debug!(%peer, %error, "a TLS handshake failed");
        }
        Err(_) => {
            count("timeout");
            tracing::debug!(%peer, "a TLS handshake took too long");
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let mut draining = false;
    loop {
        tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a connection broke off");
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
