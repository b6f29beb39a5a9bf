//! A connection whose other side must read: one that takes nothing for a while is broken off.
//!
//! Reading has time-outs of its own (heads in server.rs, bodies in budget.rs). Writing has none in
//! the HTTP library: an answer that nobody reads would be held until the connection is old.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// See the module.
#[derive(Debug)]
pub struct Reader<S> {
    inner: S,
    patience: Duration,
    stalled: Pin<Box<Sleep>>,
    /// Whether `stalled` counts.
    waiting: bool,
}

impl<S> Reader<S> {
    /// `inner`, broken off where it takes nothing for `patience`.
    pub fn new(inner: S, patience: Duration) -> Self {
        Self {
            inner,
            patience,
            stalled: Box::pin(tokio::time::sleep(patience)),
            waiting: false,
        }
    }

    /// An operation that is pending counts against the other side's time, one that is done ends it.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.waiting = false;
            return done;
        }
        if !self.waiting {
            self.waiting = true;
            let deadline = Instant::now() + self.patience;
            self.stalled.as_mut().reset(deadline);
        }
        ready!(self.stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the other side does not read",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Reader<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Reader<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.judge(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        self.judge(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_flush(context);
        self.judge(context, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_shutdown(context);
        self.judge(context, done)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_broken_off() {
        let (near, far) = tokio::io::duplex(64);
        let mut near = Reader::new(near, PATIENCE);
        let error = near.write_all(&[0; 1000]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(far);
    }

    /// Slow is not stuck: a large answer over a slow line takes longer than the patience.
    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_its_answer() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Reader::new(near, PATIENCE);
        let reading = tokio::spawn(async move {
            let (mut taken, mut part) = (0, [0; 64]);
            while taken < 1000 {
                tokio::time::sleep(PATIENCE / 2).await;
                taken += far.read(&mut part).await.expect("read");
            }
        });
        near.write_all(&[0; 1000]).await.expect("written");
        reading.await.expect("all read");
    }
}
