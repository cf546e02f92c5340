//! How connections come in, and go again if they say nothing.
//!
//! A connection that was upgraded has deadlines of its own. Any other one, from which nothing comes
//! and to which nothing goes for a while, would take up a file for as long as its client likes.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};
use tracing::debug;

/// After which silence a connection that was not upgraded is closed.
pub(crate) const SILENCE_ENDS: Duration = Duration::from_secs(20);

/// Listens, and watches over who has come in.
pub(crate) struct Door(pub(crate) TcpListener);

impl Listener for Door {
    type Io = Visitor;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visitor, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // What is said is said whole: nothing is gained by waiting for more of it.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "a connection is gone already");
        }
        (Visitor::new(stream), address)
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Says that a connection was upgraded.
#[derive(Clone)]
pub(crate) struct Upgrade(Arc<AtomicBool>);

impl Upgrade {
    pub(crate) fn done(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Door>> for Upgrade {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(Arc::clone(&stream.io().is_upgraded))
    }
}

/// One who has come in.
pub(crate) struct Visitor {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    is_upgraded: Arc<AtomicBool>,
}

impl Visitor {
    fn new(stream: TcpStream) -> Self {
        Self { stream, silence: Box::pin(sleep(SILENCE_ENDS)), is_upgraded: Arc::default() }
    }

    /// Something came or went.
    fn is_heard(&mut self) {
        if !self.is_upgraded.load(Ordering::Relaxed) {
            self.silence.as_mut().reset(Instant::now() + SILENCE_ENDS);
        }
    }

    /// Fails once nothing has come or gone for too long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Result<()> {
        let is_over = !self.is_upgraded.load(Ordering::Relaxed)
            && self.silence.as_mut().poll(context).is_ready();
        if is_over { Err(Error::new(ErrorKind::TimedOut, "nothing was said")) } else { Ok(()) }
    }

    fn after_write(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<Result<usize>>,
    ) -> Poll<Result<usize>> {
        match written {
            Poll::Ready(Ok(_)) => self.is_heard(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.poll_silence(context)?,
        }
        written
    }
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        match read {
            Poll::Ready(Ok(())) => self.is_heard(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.poll_silence(context)?,
        }
        read
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.after_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn visit() -> (TcpStream, Visitor) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).await.expect("it listens");
        let (visitor, _) = Listener::accept(&mut Door(listener)).await;
        (client, visitor)
    }

    #[tokio::test]
    async fn no_message_waits_for_the_one_behind_it() {
        let (_client, visitor) = visit().await;
        assert!(visitor.stream.nodelay().expect("an option"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_says_nothing_is_let_go() {
        let (mut client, mut visitor) = visit().await;
        for _ in 0..3 {
            sleep(SILENCE_ENDS / 2).await;
            client.write_all(b"x").await.expect("it is there");
            assert_eq!(visitor.read_u8().await.expect("it was said"), b'x');
        }
        let silent = visitor.read_u8().await.expect_err("nothing more is said");
        assert_eq!(silent.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_was_upgraded_may_be_silent() {
        let (_client, mut visitor) = visit().await;
        Upgrade(Arc::clone(&visitor.is_upgraded)).done();
        tokio::select! {
            read = visitor.read_u8() => panic!("{read:?}"),
            () = sleep(3 * SILENCE_ENDS) => {}
        }
    }
}
