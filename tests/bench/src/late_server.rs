//! A server that answers every request after a millisecond and takes little of the machine itself: what
//! it takes is missing to those who ask.
//!
//! ```text
//! connections ─▶ one thread reads (epoll) ─▶ queue ─▶ one thread waits until the oldest is due, answers
//! ```
//! All wait for as long, so the order in which they came is the order in which they are due.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use tokio::time::Instant;

/// How long each request waits.
pub const LATE: Duration = Duration::from_millis(1);

const ANSWER: &[u8] = b"HTTP/1.1 200 -\r\ncontent-length: 4\r\n\r\nlate";
/// What a request without a body ends with.
const END: &[u8] = b"\r\n\r\n";
/// Bytes of a request at most; a longer one ends its connection.
const MOST: usize = 64 << 10;
const STOP: Token = Token(0);
const ACCEPT: Token = Token(1);

/// The server; it ends when this is dropped.
pub struct LateServer {
    address: SocketAddr,
    counts: Arc<Counts>,
    waker: Waker,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

/// A request that waits.
type Due = (Instant, Arc<TcpStream>);

impl LateServer {
    /// Listens on a free port of `127.0.0.1`.
    ///
    /// # Errors
    /// There is none, or the system has no more handles.
    pub fn start() -> Result<Self> {
        let poll = Poll::new().context("no epoll")?;
        let waker = Waker::new(poll.registry(), STOP).context("no epoll")?;
        let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .context("no port for a server")?;
        let address = listener.local_addr()?;
        let registry = poll.registry();
        registry.register(&mut listener, ACCEPT, Interest::READABLE)?;
        let counts = Arc::new(Counts::default());
        let (sender, due) = mpsc::channel();
        let reader = Reader {
            poll,
            listener,
            connections: HashMap::new(),
            counts: counts.clone(),
            due: sender,
        };
        let answered = counts.clone();
        Ok(Self {
            address,
            counts,
            waker,
            threads: vec![
                thread::spawn(move || reader.run()),
                thread::spawn(move || answer(&due, &answered)),
            ],
        })
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where to ask.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Requests that reached it.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// The most requests that waited at once.
    pub fn most_at_once(&self) -> usize {
        self.counts.most_at_once.load(Ordering::Relaxed)
    }
}

impl Drop for LateServer {
    fn drop(&mut self) {
        if self.waker.wake().is_ok() {
            for thread in self.threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

struct Connection {
    stream: Arc<TcpStream>,
    /// What came of the next request.
    begun: Vec<u8>,
}

struct Reader {
    poll: Poll,
    listener: TcpListener,
    connections: HashMap<Token, Connection>,
    counts: Arc<Counts>,
    due: mpsc::Sender<Due>,
}

impl Reader {
    fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let mut next = ACCEPT.0 + 1;
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
                Ok(()) => {}
            }
            for event in &events {
                match event.token() {
                    STOP => return,
                    ACCEPT => self.accept(&mut next),
                    token => self.read(token),
                }
            }
        }
    }

    fn accept(&mut self, next: &mut usize) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let token = Token(*next);
            *next += 1;
            let registry = self.poll.registry();
            let heard = registry.register(&mut stream, token, Interest::READABLE);
            // A connection that breaks is its client's affair.
            if heard.is_ok() && stream.set_nodelay(true).is_ok() {
                let connection = Connection {
                    stream: Arc::new(stream),
                    begun: Vec::new(),
                };
                self.connections.insert(token, connection);
            }
        }
    }

    fn read(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let mut piece = [0; 4096];
        loop {
            match (&*connection.stream).read(&mut piece) {
                Ok(read @ 1..) if connection.begun.len() < MOST => {
                    connection.begun.extend_from_slice(&piece[..read])
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut ends = connection.begun.windows(END.len());
                    // Nobody sends the next request before this one's answer.
                    if ends.any(|end| end == END) {
                        connection.begun.clear();
                        let due = (Instant::now() + LATE, connection.stream.clone());
                        self.counts.came();
                        let _ = self.due.send(due);
                    }
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        self.connections.remove(&token);
    }
}

impl Counts {
    fn came(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let now = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(now, Ordering::Relaxed);
    }
}

/// Answers each request when it is due, until no more can come.
#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, whose wait is what is asked for"
)]
fn answer(due: &mpsc::Receiver<Due>, counts: &Counts) {
    for (at, stream) in due {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        counts.at_once.fetch_sub(1, Ordering::Relaxed);
        // An answer this short finds room, or its client does not listen any more.
        let _ = (&*stream).write_all(ANSWER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Caller;

    /// One that answers sooner would let the wait be spread better than it is, and one that answers
    /// the same connection but once would count other things than requests.
    #[test]
    fn each_request_is_answered_after_a_millisecond_and_counted() {
        let server = LateServer::start().expect("a server");
        let caller = Caller::new(&server.address());
        for _ in 0..3 {
            let begun = Instant::now();
            assert_eq!(
                caller.get("/").expect("an answer"),
                (200, "late".to_owned())
            );
            assert!(begun.elapsed() >= LATE, "{:?}", begun.elapsed());
        }
        assert_eq!((server.requests(), server.most_at_once()), (3, 1));
    }
}
