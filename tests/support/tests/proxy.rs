//! The proxy before a stand-in for a broker: each request is answered by its own number.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use millstream_test_support::frames::{Frame, api};
use millstream_test_support::proxy::{Catch, Proxy, Toward};
use millstream_test_support::wait::eventually;

const SOON: Duration = Duration::from_secs(30);
/// What a client that is to get nothing waits for in vain.
const NOTHING: Duration = Duration::from_millis(200);

/// A broker's port, and what it was asked for, in turn.
fn broker() -> Result<(u16, Receiver<(i16, i32)>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let (asked, questions) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), asked) = (stream, asked.clone()) else {
                return;
            };
            thread::spawn(move || {
                while let Ok(Some(frame)) = Frame::read(&mut stream) {
                    let Some((api, number)) = frame.request() else {
                        return;
                    };
                    if asked.send((api, number)).is_err() {
                        return;
                    }
                    let mut answer = vec![0, 0, 0, 4];
                    answer.extend(number.to_be_bytes());
                    let _ = stream.write_all(&answer);
                }
            });
        }
    });
    Ok((port, questions))
}

struct Client(TcpStream);

impl Client {
    fn of(proxy: &Proxy) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port()))?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(Self(stream))
    }

    fn ask(&mut self, api: i16, number: i32) -> std::io::Result<()> {
        let mut request = vec![0, 0, 0, 8];
        request.extend(api.to_be_bytes());
        request.extend([0, 0]);
        request.extend(number.to_be_bytes());
        self.0.write_all(&request)
    }

    /// The number of the next answer; `None` where the connection has ended.
    fn answer(&mut self) -> Option<i32> {
        Frame::read(&mut self.0).ok().flatten()?.answers()
    }

    fn gets_nothing(&mut self) -> Result<bool> {
        self.0.set_read_timeout(Some(NOTHING))?;
        let got = self.0.read(&mut [0]);
        self.0.set_read_timeout(Some(SOON))?;
        Ok(got.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock))
    }
}

#[test]
fn requests_and_answers_pass_until_the_connection_is_cut() -> Result<()> {
    let (port, questions) = broker()?;
    let proxy = Proxy::before(port)?;
    let (mut one, mut other) = (Client::of(&proxy)?, Client::of(&proxy)?);
    for client in [&mut one, &mut other] {
        client.ask(api::PRODUCE, 7)?;
        assert_eq!(client.answer(), Some(7));
        assert_eq!(questions.recv_timeout(SOON)?, (api::PRODUCE, 7));
    }
    assert_eq!(proxy.seen(&[api::PRODUCE, api::END_TXN]), 2);
    assert!(proxy.cut_one(2), "the third of two is the first");
    assert_eq!(one.answer(), None);
    eventually("the connection is forgotten", SOON, || {
        proxy.connections() == 1
    })?;
    other.ask(api::PRODUCE, 8)?;
    assert_eq!(other.answer(), Some(8));
    proxy.cut_all();
    assert_eq!(other.answer(), None);
    Ok(())
}

#[test]
fn a_request_caught_before_the_broker_does_not_reach_it() -> Result<()> {
    let (port, questions) = broker()?;
    let proxy = Proxy::before(port)?;
    proxy.snare(&[api::END_TXN], Catch::BeforeTheBroker, 1);
    let mut client = Client::of(&proxy)?;
    client.ask(api::END_TXN, 1)?;
    assert_eq!(client.answer(), None);
    let mut again = Client::of(&proxy)?;
    again.ask(api::END_TXN, 2)?;
    assert_eq!(again.answer(), Some(2));
    assert_eq!(questions.recv_timeout(SOON)?, (api::END_TXN, 2));
    assert_eq!(proxy.caught(), 1);
    Ok(())
}

#[test]
fn a_request_caught_after_the_broker_is_done_and_not_answered() -> Result<()> {
    let (port, questions) = broker()?;
    let proxy = Proxy::before(port)?;
    proxy.snare(&[api::END_TXN], Catch::AfterTheBroker, 1);
    let mut client = Client::of(&proxy)?;
    client.ask(api::PRODUCE, 1)?;
    client.ask(api::END_TXN, 2)?;
    assert_eq!(client.answer(), Some(1));
    assert_eq!(client.answer(), None);
    assert_eq!(questions.recv_timeout(SOON)?, (api::PRODUCE, 1));
    assert_eq!(questions.recv_timeout(SOON)?, (api::END_TXN, 2));
    Ok(())
}

#[test]
fn a_late_request_reaches_the_broker_after_its_client_was_cut_off() -> Result<()> {
    let (port, questions) = broker()?;
    let proxy = Proxy::before(port)?;
    let late = Duration::from_millis(300);
    proxy.snare(&[api::END_TXN], Catch::Late(late), 1);
    let mut client = Client::of(&proxy)?;
    client.ask(api::END_TXN, 1)?;
    assert_eq!(client.answer(), None);
    let mut next = Client::of(&proxy)?;
    next.ask(api::PRODUCE, 2)?;
    assert_eq!(questions.recv_timeout(SOON)?, (api::PRODUCE, 2));
    assert_eq!(questions.recv_timeout(SOON)?, (api::END_TXN, 1));
    Ok(())
}

#[test]
fn a_stalled_direction_goes_on_after_healing() -> Result<()> {
    let (port, questions) = broker()?;
    let proxy = Proxy::before(port)?;
    let mut client = Client::of(&proxy)?;
    proxy.stall(Toward::Client);
    client.ask(api::PRODUCE, 1)?;
    assert_eq!(questions.recv_timeout(SOON)?, (api::PRODUCE, 1));
    assert!(client.gets_nothing()?);
    proxy.heal();
    assert_eq!(client.answer(), Some(1));
    proxy.stall(Toward::Broker);
    client.ask(api::PRODUCE, 2)?;
    assert!(questions.recv_timeout(NOTHING).is_err());
    proxy.heal();
    assert_eq!(client.answer(), Some(2));
    Ok(())
}

#[test]
fn a_half_closed_connection_still_carries_requests() -> Result<()> {
    let (port, questions) = broker()?;
    let proxy = Proxy::before(port)?;
    let mut client = Client::of(&proxy)?;
    client.ask(api::PRODUCE, 1)?;
    assert_eq!(client.answer(), Some(1));
    questions.recv_timeout(SOON)?;
    assert!(proxy.half_close(0, Toward::Client));
    assert_eq!(client.answer(), None);
    client.ask(api::PRODUCE, 2)?;
    assert_eq!(questions.recv_timeout(SOON)?, (api::PRODUCE, 2));
    Ok(())
}

#[test]
fn whoever_is_refused_finds_the_connection_closed() -> Result<()> {
    let (port, _questions) = broker()?;
    let proxy = Proxy::before(port)?;
    proxy.refuse();
    let mut client = Client::of(&proxy)?;
    let _ = client.ask(api::PRODUCE, 1);
    assert_eq!(client.answer(), None);
    proxy.heal();
    let mut client = Client::of(&proxy)?;
    client.ask(api::PRODUCE, 2)?;
    assert_eq!(client.answer(), Some(2));
    Ok(())
}
