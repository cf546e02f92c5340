//! The server as a whole: started, stopped.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidelog_sync::ByeReason;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::connection::{Connection, Ending};
use crate::counters::Counters;
use crate::hall::Hall;
use crate::http;
use crate::room::{ConnId, RoomSettings};
use crate::settings::ServeSettings;
use crate::store::{OpenStoreError, Store, StoreHandle};

/// Within which time clients have to be gone when the server stops.
const GOODBYES_TAKE: Duration = Duration::from_secs(4);
/// After which time a client that does not read is let go.
const SLOW_AFTER: Duration = Duration::from_secs(30);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another server uses the folder.
    #[error("another server has {data} open: each needs a folder of its own")]
    InUse {
        /// The folder.
        data: PathBuf,
    },
    /// The store cannot be opened.
    #[error("cannot open the store in {data}: {reason}")]
    Store {
        /// The folder.
        data: PathBuf,
        /// Why.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A server that runs.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    store: Store,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

/// What every connection and request has a part in.
pub(crate) struct Shared {
    pub(crate) dev: bool,
    pub(crate) hall: Arc<Hall>,
    pub(crate) store: StoreHandle,
    pub(crate) counters: Arc<Counters>,
    pub(crate) connections_ever: AtomicU64,
    pub(crate) stopping: AtomicBool,
    pub(crate) slow_after: Duration,
    connections: Mutex<HashMap<ConnId, Connection>>,
}

impl Server {
    /// Opens the store and listens.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; nothing is left running then.
    pub async fn start(settings: &ServeSettings) -> Result<Self, ServerError> {
        let counters = Arc::new(Counters::default());
        let store = Store::open(&settings.data, Arc::clone(&counters)).map_err(|error| {
            let data = settings.data.clone();
            match error {
                OpenStoreError::InUse => ServerError::InUse { data },
                OpenStoreError::Failed { reason } => ServerError::Store { data, reason },
            }
        })?;
        let listen_error = |source| ServerError::Listen { listen: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;

        let handle = store.handle();
        let rooms = RoomSettings { dev: settings.dev, ..RoomSettings::default() };
        let shared = Arc::new(Shared {
            dev: settings.dev,
            hall: Hall::new(handle.clone(), rooms, Arc::clone(&counters)),
            store: handle,
            counters,
            connections_ever: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            slow_after: SLOW_AFTER,
            connections: Mutex::default(),
        });
        if !settings.dev {
            warn!("logins come in a later release: without --dev, every client is refused");
        }
        let router = http::router(Arc::clone(&shared), settings.serve.as_deref());
        let (stop, mut stopped) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            let stop = async move {
                // The sender going away means stop as well.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
                tracing::error!(%error, "cannot accept connections");
            }
        });
        info!(%address, data = %settings.data.display(), dev = settings.dev, "serving");
        Ok(Self { address, shared, store, stop, accepting })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, says goodbye to everybody, and closes the store. All that was
    /// acknowledged is on the disk already.
    pub async fn stop(self) {
        info!("stopping");
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.stop.send_replace(true);
        for connection in self.shared.connections().values() {
            connection.end(Ending::Bye(ByeReason::Shutdown));
        }
        let all_gone = async {
            while !self.shared.connections().is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(GOODBYES_TAKE, all_gone).await.is_err() {
            warn!("some clients did not take leave");
        }
        // A request over HTTP may still be under way; it has no claim to be waited for.
        let _ = timeout(Duration::from_secs(1), self.accepting).await;
        let store = self.store;
        let closed = tokio::task::spawn_blocking(move || store.close());
        let _ = timeout(GOODBYES_TAKE, closed).await;
        info!("stopped");
    }
}

impl Shared {
    pub(crate) fn enter(&self, connection: Connection) {
        if self.is_stopping() {
            connection.end(Ending::Bye(ByeReason::Shutdown));
        }
        self.connections().insert(connection.id(), connection);
    }

    pub(crate) fn exit(&self, id: ConnId) {
        self.connections().remove(&id);
    }

    pub(crate) fn store_is_open(&self) -> bool {
        self.store.is_open()
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<ConnId, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
