//! A transport that takes only so much from a client until it is opened.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const OPEN: u64 = u64::MAX;

/// Opens a [`Gated`] transport.
pub(crate) struct Gate(Arc<AtomicU64>);

impl Gate {
    pub(crate) fn open(&self) {
        self.0.store(OPEN, Ordering::Relaxed);
    }
}

/// Reads fail once the client has said so much before the gate was open, not counting the read that
/// passes the bound.
pub(crate) struct Gated<S> {
    inner: S,
    left: Arc<AtomicU64>,
}

impl<S> Gated<S> {
    pub(crate) fn new(inner: S, size_max: u64) -> (Self, Gate) {
        let left = Arc::new(AtomicU64::new(size_max));
        (Self { inner, left: Arc::clone(&left) }, Gate(left))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            let why = "more than a Hello was said before it";
            return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, why)));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if left != OPEN {
            let size = (buffer.filled().len() - before) as u64;
            self.left.store(left.saturating_sub(size), Ordering::Relaxed);
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
        Pin::new(&mut self.inner).poll_write(context, bytes)
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
    use tokio::io::AsyncReadExt;

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
    }
}
