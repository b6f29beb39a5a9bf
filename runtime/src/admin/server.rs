//! The listener: a cap on connections, limits on heads, and time-outs for those who dawdle.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{State, metrics_router, router};
use crate::config::Admin;

/// Connections at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// Largest head of a request, in bytes, and most headers in it.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 128;
/// Longest that a head may take, and that a connection may lie idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection's age from which it takes no further request: one that never reads its answer would
/// hold its place for ever.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Longest that the last request of such a connection may take.
const LAST_REQUEST: Duration = Duration::from_secs(60);
/// Longest that running requests are waited for after the end was asked for.
const LINGER: Duration = Duration::from_secs(5);
/// After the process ran out of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the whole interface until `stop`, then finishes the requests that run.
pub async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    admin: &Admin,
    stop: CancellationToken,
) {
    accept(listener, router(state, admin), stop).await;
}

/// Serves figures and health alone, for `[metrics] listen`, until `stop`.
pub async fn serve_metrics(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    accept(listener, metrics_router(state), stop).await;
}

async fn accept(listener: TcpListener, router: Router, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let room = room.clone().acquire_owned().await;
            (room, listener.accept().await)
        };
        let (room, accepted) = tokio::select! {
            next = next => next,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(room);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the HTTP interface was not accepted");
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    () = stop.cancelled() => break,
                }
            }
        }
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LINGER, rest).await.is_err() {
        tracing::warn!("requests to the HTTP interface were cut off at the end");
    }
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_header_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => None,
        () = tokio::time::sleep(MAX_AGE) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LAST_REQUEST, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the HTTP interface ended");
    }
}
