//! A transport that takes only so much from a client until it is let, and that counts what
//! passes: a message that takes a slow line minutes is no silence.

use std::future::poll_fn;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

const OPEN: u64 = u64::MAX;

/// Opens a [`Gated`] transport, and knows what has passed it.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Passed>);

struct Passed {
    /// Bytes that may still be read, or [`OPEN`].
    left: AtomicU64,
    /// Whether it was ever opened, or let anything pass: what is more than that waits, and fails
    /// before.
    waits: AtomicBool,
    read: AtomicU64,
    written: AtomicU64,
    began: Instant,
    /// When something was read last, in milliseconds since it began.
    read_at_ms: AtomicU64,
    /// Whether the system had no room for what was written last, and when it had again.
    is_full: AtomicBool,
    drained_at_ms: AtomicU64,
}

impl Passed {
    fn note_read(&self, size: u64) {
        if size > 0 {
            self.read.fetch_add(size, Ordering::Relaxed);
            self.note_time(&self.read_at_ms);
        }
    }

    fn note_written(&self, written: &Poll<Result<usize>>) {
        let was_full = self.is_full.swap(written.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(size)) = written {
            self.written.fetch_add(*size as u64, Ordering::Relaxed);
            if was_full {
                self.note_time(&self.drained_at_ms);
            }
        }
    }

    fn note_time(&self, of: &AtomicU64) {
        let at_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        of.store(at_ms, Ordering::Relaxed);
    }

    fn since(&self, at_ms: &AtomicU64) -> Duration {
        let at = Duration::from_millis(at_ms.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(at)
    }
}

impl Gate {
    pub(crate) fn open(&self) {
        self.let_pass(OPEN);
    }

    /// Lets so many bytes pass from now on. Whoever reads beyond them waits until more may, and has
    /// to read again then.
    pub(crate) fn let_pass(&self, size: u64) {
        self.0.left.store(size, Ordering::Relaxed);
        self.0.waits.store(true, Ordering::Relaxed);
    }

    /// Comes once no more bytes may pass. For whoever reads in the same task, before it looks here.
    pub(crate) async fn is_shut(&self) {
        poll_fn(|_| match self.0.left.load(Ordering::Relaxed) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
    }

    /// Bytes that came from the client so far.
    pub(crate) fn read_size(&self) -> u64 {
        self.0.read.load(Ordering::Relaxed)
    }

    /// For how long nothing came from the client.
    pub(crate) fn silence(&self) -> Duration {
        self.0.since(&self.0.read_at_ms)
    }

    /// For how long nothing came from the client, and nothing shows that it takes what it is told:
    /// what the system has room for at once, as for a ping, it takes for one that is gone, too.
    pub(crate) fn stillness(&self) -> Duration {
        self.silence().min(self.0.since(&self.0.drained_at_ms))
    }

    /// Bytes that the system took for the client so far.
    pub(crate) fn written_size(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }
}

/// Reads fail once the client has said so much before the gate was open, not counting the read that
/// passes the bound.
pub(crate) struct Gated<S> {
    inner: S,
    passed: Arc<Passed>,
}

impl<S> Gated<S> {
    pub(crate) fn new(inner: S, size_max: u64) -> (Self, Gate) {
        let left = AtomicU64::new(size_max);
        let [read, written, read_at_ms, drained_at_ms] = [0; 4].map(AtomicU64::new);
        let [waits, is_full] = [false; 2].map(AtomicBool::new);
        let began = Instant::now();
        let passed = Arc::new(Passed {
            left,
            waits,
            read,
            written,
            began,
            read_at_ms,
            is_full,
            drained_at_ms,
        });
        (Self { inner, passed: Arc::clone(&passed) }, Gate(passed))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let left = self.passed.left.load(Ordering::Relaxed);
        if left == 0 && self.passed.waits.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        if left == 0 {
            let why = "more than a Hello was said before it";
            return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, why)));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        let size = (buffer.filled().len() - before) as u64;
        self.passed.note_read(size);
        if left != OPEN {
            self.passed.left.store(left.saturating_sub(size), Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.passed.note_written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.passed.note_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
    use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role as Side;

    use super::*;

    #[tokio::test]
    async fn nothing_passes_a_closed_gate_beyond_its_bound() {
        let (mut gated, gate) = Gated::new(&[7_u8; 40][..], 16);
        let mut bytes = [0; 16];
        gated.read_exact(&mut bytes).await.expect("within the bound");
        let refused = gated.read_u8().await.expect_err("beyond it");
        assert_eq!(refused.kind(), ErrorKind::InvalidData);
        gate.open();
        gated.read_exact(&mut bytes).await.expect("open");
        assert_eq!(gate.read_size(), 32);
    }

    #[tokio::test]
    async fn what_is_beyond_a_bound_waits_once_the_gate_was_open() {
        let (mut gated, gate) = Gated::new(&[7_u8; 40][..], 0);
        gate.let_pass(16);
        let mut bytes = [0; 16];
        tokio::select! {
            biased;
            read = gated.read_exact(&mut bytes) => drop(read.expect("within the bound")),
            () = gate.is_shut() => panic!("all of it came"),
        }
        tokio::select! {
            biased;
            _ = gated.read_u8() => panic!("beyond it"),
            () = gate.is_shut() => {}
        }
        gate.open();
        gated.read_exact(&mut bytes).await.expect("open");
    }

    #[tokio::test]
    async fn a_message_that_comes_bit_by_bit_is_counted_as_it_comes() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let (transport, gate) = Gated::new(server, u64::MAX);
        let mut socket = WebSocketStream::from_raw_socket(transport, Side::Server, None).await;
        // A binary message of 1,000 bytes, under a mask of zeros.
        client.write_all(&[0x82, 0xfe, 3, 232, 0, 0, 0, 0]).await.expect("there is room");
        for size in [500, 499] {
            let before = gate.read_size();
            client.write_all(&vec![7; size]).await.expect("there is room");
            assert!(socket.next().now_or_never().is_none(), "there is more of it");
            assert!(gate.read_size() >= before + size as u64);
        }
        client.write_all(&[7]).await.expect("there is room");
        assert!(matches!(socket.next().await, Some(Ok(Message::Binary(_)))));
        let before = gate.written_size();
        socket.send(Message::Binary(vec![7; 1_000].into())).await.expect("there is room");
        assert!(gate.written_size() >= before + 1_000);
    }
}
