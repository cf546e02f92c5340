//! TLS: what is agreed on with a visitor before it says what it wants.
//!
//! It has a place of the [door](crate::door)'s from the beginning: so there are only as many who
//! have not agreed yet as there may be visitors, and each has a while, and only so many bytes. It
//! is agreed on in the visitor's own task, and holds up nobody who comes in.

use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use tidelog_types::limits::HANDSHAKE_SIZE_MAX;
use tokio::io::{self, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::door::Visitor;
use crate::gate::Gated;
use crate::settings::TlsSettings;

/// Within which time it has to be agreed on.
pub(crate) const HANDSHAKE_TAKES: Duration = Duration::from_secs(10);
/// What TLS begins with.
const HANDSHAKE: u8 = 22;
/// Bytes that wait to be sent within TLS: what is beyond them is not taken, as by a socket that is
/// full. A client that takes none of them for a while is slow.
const BUFFER_SIZE: usize = 16 * 1024;
/// What whoever speaks HTTP without TLS is told.
const PLAIN_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    connection: close\r\ncontent-length: 37\r\n\r\nthis server speaks TLS: ask by https\n";

/// What TLS is spoken by.
pub(crate) struct Tls {
    /// Another one takes its place when the certificate changes; connections keep theirs.
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub(crate) fn new(settings: &TlsSettings) -> Self {
        Self { config: RwLock::new(Arc::clone(&settings.config)) }
    }

    /// Shows this certificate to whoever comes from now on.
    pub(crate) fn show(&self, settings: &TlsSettings) {
        let mut config = self.config.write().unwrap_or_else(PoisonError::into_inner);
        *config = Arc::clone(&settings.config);
    }

    /// Agrees on it with one who has come in.
    pub(crate) async fn agree(&self, visitor: Visitor) -> Result<TlsStream<Gated<Visitor>>> {
        let late = |_| Error::new(ErrorKind::TimedOut, "TLS was not agreed on in time");
        timeout(HANDSHAKE_TAKES, self.agree_in_time(visitor)).await.map_err(late)?
    }

    async fn agree_in_time(&self, mut visitor: Visitor) -> Result<TlsStream<Gated<Visitor>>> {
        let mut first = [0];
        visitor.peek(&mut first).await?;
        let [first] = first;
        let odd = || Error::new(ErrorKind::InvalidData, "it does not speak TLS");
        if first.is_ascii_uppercase() {
            // Whoever mistook the address for another one learns what is wrong with it.
            visitor.write_all(PLAIN_ANSWER).await?;
            take_leave(visitor).await?;
            return Err(odd());
        }
        if first != HANDSHAKE {
            return Err(odd());
        }
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        let (gated, gate) = Gated::new(visitor, HANDSHAKE_SIZE_MAX);
        let limit = |connection: &mut rustls::ServerConnection| {
            connection.set_buffer_limit(Some(BUFFER_SIZE));
        };
        let stream = TlsAcceptor::from(config).accept_with(gated, limit).into_fallible();
        match stream.await {
            Ok(stream) => {
                gate.open();
                Ok(stream)
            }
            Err((error, gated)) => {
                // It was told why, as TLS has it.
                take_leave(gated).await?;
                Err(error)
            }
        }
    }
}

/// Closes such that what was said arrives: what nobody has read by then would take it along.
async fn take_leave(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    stream.shutdown().await?;
    io::copy(&mut stream.take(HANDSHAKE_SIZE_MAX), &mut io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use axum::Router;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;
    use tokio::time::Instant;

    use super::*;
    use crate::door::Door;
    use crate::settings::TlsFlags;

    /// Goal: those who do not agree keep others out for a while at most. Method: one more than
    /// there are places, of whom all but the last one are silent from some byte on.
    #[tokio::test(start_paused = true)]
    async fn who_does_not_agree_in_time_is_let_go() {
        let file = |name: &str| {
            Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name))
        };
        let flags = TlsFlags { tls_cert: file("one.pem"), tls_key: file("one.key") };
        let settings = flags.resolve().expect("usable").expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let door = Door::new(listener, Some(Arc::new(Tls::new(&settings))), 1, &[]);
        let places = door.places().available_permits();
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(door.serve(Router::new(), stopped));
        let began = Instant::now();
        let mut silent = Vec::new();
        for size in (0..3).cycle().take(places) {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream.write_all(&[HANDSHAKE, 3, 1][..size]).await.expect("sent");
            silent.push(stream);
        }
        let mut last = TcpStream::connect(address).await.expect("it listens");
        last.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
        last.shutdown().await.expect("sent");
        let mut heard = Vec::new();
        last.read_to_end(&mut heard).await.expect("it ends");
        assert_eq!(heard, PLAIN_ANSWER);
        let took = began.elapsed();
        assert!(took >= HANDSHAKE_TAKES && took < 2 * HANDSHAKE_TAKES, "{took:?}");
    }
}
