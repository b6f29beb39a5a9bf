//! When connections of a client end.
//!
//! librdkafka sends what was on its way once more and keeps most of it to itself: an error like the
//! last one is told again after 30 s only. The end of a socket is always seen.

use std::ffi::{c_int, c_void};

use rdkafka::config::NativeClientConfig;
use rdkafka_sys as sys;

use crate::broker::kafka::client::Listener;

/// Has a client of this configuration, whose context must be a [`Listener`], tell it of each
/// connection that ends.
pub(super) fn tell_of_ends(config: &NativeClientConfig) {
    // SAFETY: the configuration is valid and not used by a client yet.
    unsafe { sys::rd_kafka_conf_set_closesocket_cb(config.ptr(), Some(closed)) };
}

/// Called by librdkafka's own threads, before what was on its way is sent again.
///
/// # Safety
/// `opaque` must be the context of the client, which is a [`Listener`], or null.
unsafe extern "C" fn closed(socket: c_int, opaque: *mut c_void) -> c_int {
    if was_established(socket) {
        // SAFETY: the client was made with its context as its opaque value, and holds the context
        // until librdkafka's client is destroyed with all of its threads.
        if let Some(listener) = unsafe { opaque.cast::<Listener>().as_ref() } {
            listener.lost_a_connection();
        }
    }
    // SAFETY: librdkafka gives the socket away to be closed, once.
    unsafe { libc::close(socket) }
}

/// Whether anything can ever have been sent: a host with several addresses may refuse at one.
/// In doubt it can.
#[cfg(target_os = "linux")]
fn was_established(socket: c_int) -> bool {
    // SAFETY: all zeros are a valid `tcp_info`, which is numbers alone.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`.
    let answer = unsafe {
        libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    // The handshake is the first round trip that is measured.
    answer != 0 || info.tcpi_rtt > 0
}

#[cfg(not(target_os = "linux"))]
fn was_established(_: c_int) -> bool {
    true
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsRawFd, FromRawFd};

    use super::*;

    /// A connection that broke after it was made must never pass for one that was never made.
    #[test]
    fn a_connection_that_ended_was_established() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        // What it has not read makes the end a reset.
        client.write_all(b"request").unwrap();
        drop(server);
        let ended = client.read(&mut [0; 1]);
        assert!(matches!(ended, Ok(0) | Err(_)));
        assert!(was_established(client.as_raw_fd()));
    }

    /// Taken for an end, a second address that is refused would have every producer replaced.
    #[test]
    fn a_connection_that_was_refused_was_not() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        // SAFETY: no preconditions; the socket is owned and closed by the stream below.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
        // SAFETY: the socket is fresh and has no other owner.
        let _owner = unsafe { TcpStream::from_raw_fd(socket) };
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
            },
            sin_zero: [0; 8],
        };
        // SAFETY: the address is valid and of the length that is said.
        let answer = unsafe {
            libc::connect(
                socket,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_in>() as libc::socklen_t,
            )
        };
        assert_ne!(answer, 0);
        assert!(!was_established(socket));
    }
}
