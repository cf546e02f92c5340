//! A way to a server: one WebSocket, in a task of its own.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tidelog_client::SocketId;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{Connector, connect_async_tls_with_config};
use tracing::{debug, warn};

use crate::engine::{Mail, Mailbox};

/// Within which time a connection is there; one that is not is tried again by the core.
const CONNECTING_TAKES: Duration = Duration::from_secs(20);

/// Connects, and carries messages both ways until either side has enough. The engine is told all of
/// it, the end last.
pub(crate) async fn carry(
    socket: SocketId,
    url: String,
    outgoing: UnboundedReceiver<Bytes>,
    engine: Mailbox,
) {
    if let Err(error) = carry_until_closed(socket, &url, outgoing, &engine).await {
        debug!(%url, %error, "the way to the server is closed");
    }
    engine.send(Mail::SocketClosed(socket));
}

async fn carry_until_closed(
    socket: SocketId,
    url: &str,
    mut outgoing: UnboundedReceiver<Bytes>,
    engine: &Mailbox,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // What is said in two messages leaves at once.
    let is_undelayed = true;
    let tls = url.starts_with("wss:").then(tls);
    let connecting = connect_async_tls_with_config(url, None, is_undelayed, tls);
    let (stream, _) = timeout(CONNECTING_TAKES, connecting).await??;
    engine.send(Mail::SocketOpened(socket));
    let (mut writer, mut reader) = stream.split();
    let write = async {
        while let Some(bytes) = outgoing.recv().await {
            writer.feed(Message::Binary(bytes)).await?;
            if outgoing.is_empty() {
                writer.flush().await?;
            }
        }
        writer.close().await
    };
    let read = async {
        while let Some(message) = reader.next().await {
            match message? {
                Message::Binary(bytes) => engine.send(Mail::FromServer(socket, bytes)),
                Message::Close(_) => break,
                _ => {}
            }
        }
        Ok::<(), tokio_tungstenite::tungstenite::Error>(())
    };
    tokio::select! {
        ended = write => ended?,
        ended = read => ended?,
    }
    Ok(())
}

/// Trusts what the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name something else.
fn tls() -> Connector {
    static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            warn!(%error, "a certificate that the system trusts cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("BUG: the provider knows the usual versions");
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    });
    Connector::Rustls(Arc::clone(&CONFIG))
}
