//! A web server on loopback that answers as a test says: small, and able to misbehave.
//!
//! ```text
//! request ─▶ noted ─▶ the test's function ─▶ Reply ─▶ sent, cut short, or held back
//! ```

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::wait::step;

/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The length that is announced, where it is another one; `Some(None)` announces none.
    pub announced: Option<Option<usize>>,
    /// Whether the body is held back until the server ends.
    pub stalls: bool,
}

impl Reply {
    /// An answer with a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: body.into(),
            ..Self::default()
        }
    }

    /// The same, with a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server. It ends when it is dropped.
pub struct Web {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    handler: Box<Handler>,
    tls: Option<Arc<ServerConfig>>,
    requests: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

impl Web {
    /// Serves until it is dropped.
    ///
    /// # Errors
    /// No port is to be had.
    pub fn start(
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port")?;
        let address = listener.local_addr()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            tls,
            requests: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let serving = shared.clone();
        let accepting = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.stopped.load(Ordering::Acquire) {
                    return;
                }
                let serving = serving.clone();
                // A client that hangs up is its own affair.
                thread::spawn(move || serving.connection(stream).ok());
            }
        });
        Ok(Self {
            address,
            scheme,
            shared,
            accepting: Some(accepting),
        })
    }

    /// `host:port`.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// The URL of a path that begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// All that was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        let requests = self.shared.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        let requests = self.requests();
        requests.iter().filter(|asked| asked.path == path).count()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Wakes the thread that accepts; it may have ended.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn connection(&self, stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        match &self.tls {
            None => self.exchange(stream),
            Some(tls) => {
                let connection = ServerConnection::new(tls.clone())?;
                self.exchange(StreamOwned::new(connection, stream))
            }
        }
    }

    /// One request a connection: nothing here is about keeping them.
    fn exchange(&self, stream: impl Read + Write) -> Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap_or_default().to_owned();
        let mut request = Request {
            method: word(),
            path: word(),
            headers: Vec::new(),
        };
        loop {
            let mut line = String::new();
            ensure!(reader.read_line(&mut line)? > 0, "no whole head");
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            let header = (name.to_ascii_lowercase(), value.trim().to_owned());
            request.headers.push(header);
        }
        let reply = (self.handler)(&request);
        let requests = self.requests.lock();
        requests
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        self.send(reader.into_inner(), &reply)
    }

    fn send(&self, mut stream: impl Write, reply: &Reply) -> Result<()> {
        let mut head = format!("HTTP/1.1 {} Told\r\nconnection: close\r\n", reply.status);
        if let Some(length) = reply.announced.unwrap_or(Some(reply.body.len())) {
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(head.as_bytes())?;
        stream.write_all(b"\r\n")?;
        stream.flush()?;
        while reply.stalls && !self.stopped.load(Ordering::Acquire) {
            step();
        }
        stream.write_all(&reply.body)?;
        stream.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::get;

    #[test]
    fn what_is_asked_is_noted_and_answered() {
        let web = Web::start(None, |request| match &*request.path {
            "/a?b=c" => Reply::new(200, "hello").with("x-y", "z"),
            _ => Reply::new(404, ""),
        })
        .unwrap();
        let authority = web.authority();
        assert_eq!(get(&authority, "/a?b=c").unwrap(), (200, "hello".into()));
        assert_eq!(get(&authority, "/d").unwrap().0, 404);
        assert_eq!((web.asked("/a?b=c"), web.requests().len()), (1, 2));
        drop(web);
        assert!(get(&authority, "/d").is_err(), "the server has ended");
    }
}
