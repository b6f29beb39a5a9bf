//! The listener: a cap on connections, limits on heads, and time-outs for those who dawdle.
//!
//! ```text
//! socket ─▶ seat ─▶ handshake, where TLS is configured ─▶ requests, one after the other ─▶ router
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::certificate::Certificate;
use super::reader::Reader;
use super::seats::{Seat, Seats};
use super::{State, metrics_router, router};
use crate::config::Admin;

/// Connections at once; see seats.rs for who goes when there is one more.
const MAX_CONNECTIONS: usize = 256;
/// Largest head of a request, in bytes, and most headers in it.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 128;
/// Longest that a head may take, and that a connection may lie idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest that a handshake may take. There are no more at once than connections: fewer turns would
/// let those who never shake hands hold them.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that the other side may read nothing of an answer.
const READER_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection's age from which it takes no further request.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Longest that the last request of such a connection may take.
const LAST_REQUEST: Duration = Duration::from_secs(60);
/// Longest that running requests are waited for after the end was asked for.
const LINGER: Duration = Duration::from_secs(5);
/// After the process ran out of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// To who speaks plain HTTP where TLS is spoken.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\
    content-length: 45\r\nconnection: close\r\n\r\n{\"error\":\"TLS is spoken here: use https://\"}\n";

/// Serves the whole interface until `stop`, then finishes the requests that run. With a
/// `certificate` it speaks TLS alone.
pub async fn serve(
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    state: Arc<State>,
    admin: &Admin,
    stop: CancellationToken,
) {
    let router = router(state, admin);
    let Some(certificate) = certificate else {
        return accept(listener, None, router, stop).await;
    };
    let acceptor = match certificate.acceptor() {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(%error, "the HTTP interface cannot speak TLS, so it is closed");
            return stop.cancelled().await;
        }
    };
    tokio::select! {
        () = accept(listener, Some(acceptor), router, stop) => {}
        () = certificate.follow() => {}
    }
}

/// Serves figures and health alone, for `[metrics] listen`, until `stop`.
pub async fn serve_metrics(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    accept(listener, None, metrics_router(state), stop).await;
}

/// What the connections of a listener share.
#[derive(Clone)]
struct House {
    router: Router,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
) {
    let seats = Seats::new(MAX_CONNECTIONS);
    let house = House {
        router,
        tls,
        stop: stop.clone(),
    };
    let mut connections = JoinSet::new();
    loop {
        // Not a branch of the choice below: it would drop who was accepted and waits for a seat.
        while connections.try_join_next().is_some() {}
        let next = async {
            let (stream, _) = listener.accept().await?;
            Ok::<_, std::io::Error>((stream, seats.take().await))
        };
        let accepted = tokio::select! {
            next = next => next,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, Some(seat))) => {
                connections.spawn(house.clone().welcome(stream, seat));
            }
            Ok((_, None)) => {}
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

impl House {
    async fn welcome(self, stream: TcpStream, seat: Arc<Seat>) {
        let Some(acceptor) = self.tls.clone() else {
            return self.requests(stream, seat).await;
        };
        let handshake = handshake(&acceptor, stream);
        let made = tokio::select! {
            made = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => made.ok().flatten(),
            () = seat.needed() => None,
            () = self.stop.cancelled() => None,
        };
        if let Some(stream) = made {
            self.requests(stream, seat).await;
        }
    }

    async fn requests<S>(self, stream: S, seat: Arc<Seat>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = TowerToHyperService::new(self.router);
        let working = seat.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let in_work = working.busy();
            let answer = router.call(request);
            async move {
                let answer = answer.await;
                drop(in_work);
                answer
            }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            // Who says that nothing more comes may still be told what became of it.
            .half_close(true)
            .max_buf_size(MAX_HEAD)
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_HEADERS);
        let stream = TokioIo::new(Reader::new(stream, READER_TIMEOUT));
        let connection = http.serve_connection(stream, service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = seat.needed() => return,
            () = self.stop.cancelled() => None,
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
}

/// Who speaks plain HTTP is told so, for what TLS answers means nothing to it.
async fn handshake(
    acceptor: &TlsAcceptor,
    mut stream: TcpStream,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let mut first = [0];
    stream.peek(&mut first).await.ok()?;
    if first[0].is_ascii_alphabetic() {
        // It may not listen.
        let _ = stream.write_all(SPEAK_TLS).await;
        let _ = stream.shutdown().await;
        return None;
    }
    match acceptor.accept(stream).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake with the HTTP interface failed");
            None
        }
    }
}
