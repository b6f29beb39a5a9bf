//! A server on the other side of plugins' requests, which does what the path asks.
//!
//! | path | answers |
//! | --- | --- |
//! | `/echo…` | the request as it came, a line each for its parts |
//! | `/slow/MS…` | after so many milliseconds |
//! | `/giant/BYTES` | a body of so many bytes, its length announced |
//! | `/stream/BYTES` | the same in chunks, its length unknown |
//! | `/redirect` | 302, to `/echo` |
//! | `/status/CODE` | that status, with `retry-after: 1` |
//! | `/hang-up` | closes the connection without an answer |

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Bytes that are sent at once.
const PIECE: usize = 16 << 10;
/// Bytes of a request's head.
const MAX_HEAD: u64 = 64 << 10;

/// The server; it ends when this is dropped.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicUsize,
    requests: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    ended: Mutex<bool>,
    ending: Condvar,
}

impl Origin {
    /// Listens on a free port of `127.0.0.1`.
    ///
    /// # Errors
    /// There is none.
    pub fn start() -> Result<Self> {
        Self::start_at(0)
    }

    /// Listens on this port of `127.0.0.1`.
    ///
    /// # Errors
    /// Somebody else does.
    pub fn start_at(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).context("no port for an origin")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            for connection in listener.incoming() {
                if own.stop.load(Ordering::Acquire) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                own.connections.fetch_add(1, Ordering::Relaxed);
                let own = Arc::clone(&own);
                // A connection that breaks is its client's affair.
                thread::spawn(move || drop(serve(&connection, &own)));
            }
        });
        Ok(Self {
            address,
            shared,
            accepting: Some(accepting),
        })
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// A URL of it, by its address.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections that were made to it.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Requests that reached it.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// The most requests that it was answering at once.
    pub fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(Ordering::Relaxed)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        *lock(&self.shared.ended) = true;
        self.shared.ending.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

fn lock(ended: &Mutex<bool>) -> std::sync::MutexGuard<'_, bool> {
    ended.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Waits this long, or until the server ends.
    fn pause(&self, time: Duration) {
        let ended = lock(&self.ended);
        let waited = self.ending.wait_timeout_while(ended, time, |ended| !*ended);
        drop(waited);
    }
}

/// Answers one request after another.
fn serve(connection: &TcpStream, shared: &Shared) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            let read = reader.by_ref().take(MAX_HEAD).read_line(&mut line)?;
            ensure!(read > 0, "the client has gone");
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let length = head.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<u64>().ok())?
        });
        let mut body = Vec::new();
        reader
            .by_ref()
            .take(length.unwrap_or_default())
            .read_to_end(&mut body)?;
        shared.requests.fetch_add(1, Ordering::Relaxed);
        let now = shared.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        shared.most_at_once.fetch_max(now, Ordering::Relaxed);
        let answered = answer(connection, &head, body.len(), shared);
        shared.at_once.fetch_sub(1, Ordering::Relaxed);
        answered?;
    }
}

fn answer(mut to: &TcpStream, head: &[String], body: usize, shared: &Shared) -> Result<()> {
    let target = head.first().and_then(|line| line.split(' ').nth(1));
    let target = target.context("no target")?;
    let mut parts = target.trim_start_matches('/').split(['/', '?']);
    let (what, argument) = (parts.next().unwrap_or_default(), parts.next());
    let number = argument
        .and_then(|text| text.parse::<usize>().ok())
        .unwrap_or_default();
    let plain = |status: u16, more: &str, text: &str| {
        format!(
            "HTTP/1.1 {status} -\r\n{more}content-length: {}\r\n\r\n{text}",
            text.len()
        )
    };
    match what {
        "slow" => {
            shared.pause(Duration::from_millis(number as u64));
            to.write_all(plain(200, "", "late").as_bytes())?;
        }
        "giant" => {
            let head = format!("HTTP/1.1 200 -\r\ncontent-length: {number}\r\n\r\n");
            to.write_all(head.as_bytes())?;
            let mut left = number;
            while left > 0 {
                let size = left.min(PIECE);
                to.write_all(&[b'x'; PIECE][..size])?;
                left -= size;
            }
        }
        "stream" => {
            to.write_all(b"HTTP/1.1 200 -\r\ntransfer-encoding: chunked\r\n\r\n")?;
            let mut left = number;
            while left > 0 {
                let size = left.min(PIECE);
                write!(to, "{size:x}\r\n")?;
                to.write_all(&[b'x'; PIECE][..size])?;
                to.write_all(b"\r\n")?;
                left -= size;
            }
            to.write_all(b"0\r\n\r\n")?;
        }
        "redirect" => to.write_all(plain(302, "location: /echo\r\n", "").as_bytes())?,
        "status" => {
            let status = u16::try_from(number)?;
            to.write_all(plain(status, "retry-after: 1\r\n", "").as_bytes())?;
        }
        "hang-up" => {
            to.shutdown(std::net::Shutdown::Both)?;
            anyhow::bail!("told to");
        }
        _ => {
            let text = format!("{}\nbody: {body}", head.join("\n"));
            to.write_all(plain(200, "", &text).as_bytes())?;
        }
    }
    Ok(())
}
