//! A proxy on the loopback before one broker, which does to connections what networks do.
//!
//! ```text
//! client ─▶ requests, frame by frame ─▶ broker      cut, half close, stall, delay, refuse;
//!        ◀─ answers, frame by frame  ◀─             catch a request on its way
//! ```
//! Two threads a connection; all end with the proxy.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::frames::Frame;
use crate::wait::Deadline;

/// How long a broker may take to answer a request that was delivered after its client was cut off.
const LATE_ANSWER: Duration = Duration::from_secs(10);

/// How many times of requests are kept.
const MOST_TIMES: usize = 100_000;

/// A direction through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    Broker,
    Client,
}

/// What happens to a request that is caught. Its connection ends in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catch {
    /// It never reaches the broker.
    BeforeTheBroker,
    /// The broker does what it asks for, and the answer is lost.
    AfterTheBroker,
    /// The client is cut off at once; the broker gets the request so much later.
    Late(Duration),
}

/// A proxy. Dropping it ends its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    broker: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    refusing: bool,
    stalled: Vec<Toward>,
    delay: Duration,
    snare: Option<Snare>,
    caught: u64,
    seen: BTreeMap<i16, u64>,
    /// When requests of these kinds came.
    noted: Vec<i16>,
    times: Vec<(Instant, i16)>,
    links: Vec<Arc<Link>>,
}

#[derive(Clone, Debug)]
struct Snare {
    apis: Vec<i16>,
    catch: Catch,
    left: u32,
}

/// One connection.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    broker: TcpStream,
    /// The answer with which it ends, undelivered.
    last: Mutex<Option<i32>>,
    /// Whether the client was cut off while its last request is still to be delivered.
    orphaned: AtomicBool,
}

impl Link {
    fn cut(&self) {
        // One that is closed already is cut, too.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.broker.shutdown(Shutdown::Both);
    }

    fn last(&self) -> MutexGuard<'_, Option<i32>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// A proxy before the broker that listens, or will listen, on this port of the loopback.
    ///
    /// # Errors
    /// No port is to be had.
    pub fn before(broker: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port for a proxy")?;
        let port = listener.local_addr().context("no port for a proxy")?.port();
        let shared = Arc::new(Shared {
            broker: SocketAddr::from(([127, 0, 0, 1], broker)),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.state().ended {
                    return;
                }
                if let Ok(client) = client {
                    accepting.take(client);
                }
            }
        });
        Ok(Self { port, shared })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections pass through it.
    pub fn connections(&self) -> usize {
        self.shared.state().links.len()
    }

    /// How many requests of these kinds have come so far.
    pub fn seen(&self, apis: &[i16]) -> u64 {
        let state = self.shared.state();
        apis.iter().filter_map(|api| state.seen.get(api)).sum()
    }

    /// From here on it notes when requests of these kinds come, for [`Proxy::times`].
    pub fn note(&self, apis: &[i16]) {
        let apis = apis.to_vec();
        self.change(|state| {
            state.noted = apis;
            state.times.clear();
        });
    }

    /// When requests came that were to be noted, the oldest first; a hundred thousand at most.
    pub fn times(&self) -> Vec<(Instant, i16)> {
        self.shared.state().times.clone()
    }

    /// Ends all connections.
    pub fn cut_all(&self) {
        for link in &self.shared.state().links {
            link.cut();
        }
    }

    /// Ends one connection, the `nth` counted around; false where there is none.
    pub fn cut_one(&self, nth: usize) -> bool {
        self.one(nth).inspect(|link| link.cut()).is_some()
    }

    /// Closes one direction of one connection; the other stays open. False where there is none.
    pub fn half_close(&self, nth: usize, toward: Toward) -> bool {
        let link = self.one(nth);
        if let Some(link) = &link {
            let end = match toward {
                Toward::Broker => &link.broker,
                Toward::Client => &link.client,
            };
            let _ = end.shutdown(Shutdown::Write);
        }
        link.is_some()
    }

    /// From here on nothing moves in this direction; connections stay open.
    pub fn stall(&self, toward: Toward) {
        self.change(|state| state.stalled.push(toward));
    }

    /// From here on each request and each answer waits so long.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// From here on new connections are closed at once.
    pub fn refuse(&self) {
        self.change(|state| state.refusing = true);
    }

    /// The next `count` requests of these kinds are caught.
    pub fn snare(&self, apis: &[i16], catch: Catch, count: u32) {
        let apis = apis.to_vec();
        self.change(|state| {
            state.snare = Some(Snare {
                apis,
                catch,
                left: count,
            });
        });
    }

    /// How many requests were caught so far.
    pub fn caught(&self) -> u64 {
        self.shared.state().caught
    }

    /// Ends all that it does to connections; they go on where they are open.
    pub fn heal(&self) {
        self.change(|state| {
            state.stalled.clear();
            state.delay = Duration::ZERO;
            state.refusing = false;
            state.snare = None;
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_all();
    }

    fn one(&self, nth: usize) -> Option<Arc<Link>> {
        let state = self.shared.state();
        let at = nth.checked_rem(state.links.len())?;
        state.links.get(at).cloned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|state| state.ended = true);
        self.cut_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, client: TcpStream) {
        if self.state().refusing {
            return;
        }
        // A broker that is down closes the client's connection, as its kernel would refuse it.
        let Ok(broker) = TcpStream::connect_timeout(&self.broker, Duration::from_secs(1)) else {
            return;
        };
        let _ = client.set_nodelay(true);
        let _ = broker.set_nodelay(true);
        let link = Arc::new(Link {
            client,
            broker,
            last: Mutex::default(),
            orphaned: AtomicBool::new(false),
        });
        self.state().links.push(Arc::clone(&link));
        let up = (Arc::clone(self), Arc::clone(&link));
        thread::spawn(move || {
            if up.0.requests(&up.1).is_none() {
                up.1.cut();
            }
        });
        let down = Arc::clone(self);
        thread::spawn(move || {
            if down.answers(&link).is_none() {
                link.cut();
            }
            down.state().links.retain(|one| !Arc::ptr_eq(one, &link));
        });
    }

    /// Carries requests; `None` where the whole connection is to end.
    fn requests(&self, link: &Link) -> Option<()> {
        let mut client = &link.client;
        loop {
            let Some(frame) = Frame::read(&mut client).ok()? else {
                return link.broker.shutdown(Shutdown::Write).ok();
            };
            let (api, number) = frame.request()?;
            self.pass(Toward::Broker)?;
            match self.caught(api) {
                None => {}
                Some(Catch::BeforeTheBroker) => return None,
                Some(Catch::AfterTheBroker) => *link.last() = Some(number),
                Some(Catch::Late(late)) => {
                    *link.last() = Some(number);
                    link.orphaned.store(true, Ordering::Release);
                    let _ = link.client.shutdown(Shutdown::Both);
                    self.wait_for(late);
                    link.broker.set_read_timeout(Some(LATE_ANSWER)).ok()?;
                    (&link.broker).write_all(frame.bytes()).ok()?;
                    return Some(());
                }
            }
            (&link.broker).write_all(frame.bytes()).ok()?;
        }
    }

    /// Carries answers; `None` where the whole connection is to end.
    fn answers(&self, link: &Link) -> Option<()> {
        let mut broker = &link.broker;
        loop {
            let Some(frame) = Frame::read(&mut broker).ok()? else {
                return link.client.shutdown(Shutdown::Write).ok();
            };
            if *link.last() == Some(frame.answers()?) {
                return None;
            }
            self.pass(Toward::Client)?;
            let delivered = (&link.client).write_all(frame.bytes());
            if !link.orphaned.load(Ordering::Acquire) {
                delivered.ok()?;
            }
        }
    }

    /// What happens to a request of this kind, where something does.
    fn caught(&self, api: i16) -> Option<Catch> {
        let mut state = self.state();
        *state.seen.entry(api).or_default() += 1;
        if state.noted.contains(&api) && state.times.len() < MOST_TIMES {
            state.times.push((Instant::now(), api));
        }
        let snare = state.snare.as_mut()?;
        if snare.left == 0 || !snare.apis.contains(&api) {
            return None;
        }
        snare.left -= 1;
        let catch = snare.catch;
        state.caught += 1;
        Some(catch)
    }

    /// Waits as long as this direction is stalled, and the delay; `None` at the proxy's end.
    fn pass(&self, toward: Toward) -> Option<()> {
        let mut state = self.state();
        while !state.ended && state.stalled.contains(&toward) {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let (ended, delay) = (state.ended, state.delay);
        drop(state);
        if !delay.is_zero() {
            self.wait_for(delay);
        }
        (!ended).then_some(())
    }

    /// Waits, no longer than the proxy lives.
    fn wait_for(&self, wait: Duration) {
        let deadline = Deadline::after(wait);
        let mut state = self.state();
        while !state.ended && !deadline.passed() {
            let waited = self.changed.wait_timeout(state, deadline.left());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
