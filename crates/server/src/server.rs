//! The server as a whole: started, stopped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidelog_sync::ByeReason;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::access::{AccessError, end_expired, watch_keys};
use crate::connection::Ending;
#[cfg(unix)]
use crate::control;
use crate::deployments::DoctypesError;
use crate::door::Door;
use crate::heartbeat;
use crate::house::House;
use crate::http;
use crate::settings::ServeSettings;
use crate::shared::Shared;
use crate::tls::Tls;

/// Within which time clients have to be gone when the server stops.
const GOODBYES_TAKE: Duration = Duration::from_secs(4);

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
    /// Who may come in cannot be told.
    #[error("cannot tell who may come in")]
    Access(#[source] AccessError),
    /// The doctypes that were deployed cannot be read.
    #[error("cannot tell which doctypes were deployed")]
    Doctypes(#[source] DoctypesError),
    /// The threads that run rooms cannot be started.
    #[error("cannot start threads")]
    Threads {
        /// What the system said.
        #[source]
        source: std::io::Error,
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
    tls: Option<Arc<Tls>>,
    shared: Arc<Shared>,
    house: House,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    seats_count: usize,
}

impl Server {
    /// Opens the store and listens.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; nothing is left running then.
    pub async fn start(settings: &ServeSettings) -> Result<Self, ServerError> {
        let house = House::open(settings)?;
        let bound = async {
            let listener = TcpListener::bind(settings.listen).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = match bound.await {
            Ok(bound) => bound,
            Err(source) => {
                house.close().await;
                return Err(ServerError::Listen { listen: settings.listen, source });
            }
        };
        let shared = Arc::clone(&house.shared);
        if !settings.dev && !settings.access.lets_somebody_in() {
            warn!(
                "every client is refused, since nobody can have a token: set \
                 TIDELOG_ADMIN_PASSWORD, or --token-key or another key of the app's; see --help"
            );
        }
        let (stop, stopped) = watch::channel(false);
        let heartbeat = Arc::clone(&shared.heartbeat);
        tokio::spawn(heartbeat::listen(heartbeat, shared.store.clone(), stopped.clone()));
        tokio::spawn(end_expired(shared.expiries.clone(), stopped.clone()));
        if let Some(guard) = shared.guard.clone() {
            tokio::spawn(watch_keys(guard, stopped.clone()));
        }
        #[cfg(unix)]
        if let Err(error) = control::listen(&settings.data, Arc::clone(&shared), stopped.clone()) {
            warn!(%error, "no command reaches this server while it runs: there is no backup");
        }
        let router = http::router(Arc::clone(&shared), settings.serve.as_deref());
        let tls = settings.tls.as_ref().map(|tls| Arc::new(Tls::new(tls)));
        shared.note_certificate(settings.tls.as_ref());
        let may_be_overheard = tls.is_none() && settings.access.trusted_proxies.is_empty();
        if may_be_overheard && !settings.listen.ip().is_loopback() {
            warn!(
                listen = %settings.listen,
                "tokens and passwords can be read on their way: set --tls-cert and --tls-key, or \
                 --trusted-proxy if a proxy that speaks TLS is before this server"
            );
        }
        let proxies = &settings.access.trusted_proxies;
        let door = Door::new(listener, tls.clone(), settings.connections_max, proxies);
        let accepting = tokio::spawn(door.serve(router, stopped));
        let (data, dev, has_tls) = (settings.data.display(), settings.dev, tls.is_some());
        info!(%address, %data, dev, tls = has_tls, "serving");
        let seats_count = shared.seats.available_permits();
        Ok(Self { address, tls, shared, house, stop, accepting, seats_count })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How clients reach it there.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Takes the app's keys, the allowed origins and the certificate of settings that were read
    /// again, at once. All else needs a restart. Tokens whose keys are gone end, with their
    /// connections; another certificate is shown to whoever comes from now on.
    ///
    /// # Errors
    ///
    /// [`AccessError::Key`] if one of the keys cannot be used; nothing has changed then.
    pub fn reload(&self, settings: &ServeSettings) -> Result<(), AccessError> {
        let reloaded = self.shared.guard.as_ref().map(|guard| guard.reload(&settings.access));
        reloaded.transpose().map_err(AccessError::Key)?;
        match (&self.tls, &settings.tls) {
            (Some(tls), Some(new)) => {
                tls.show(new);
                self.shared.note_certificate(Some(new));
            }
            (None, None) => {}
            _ => warn!("whether this server speaks TLS changes with a restart"),
        }
        Ok(())
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
        // One that is just being upgraded has a seat, and comes in yet.
        let all_gone = async {
            while self.shared.seats.available_permits() < self.seats_count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(GOODBYES_TAKE, all_gone).await.is_err() {
            warn!("some clients did not take leave");
        }
        // A request over HTTP may still be under way; it has no claim to be waited for.
        let _ = timeout(Duration::from_secs(1), self.accepting).await;
        self.house.close().await;
        info!("stopped");
    }
}

#[cfg(test)]
mod tests {
    use tidelog_room::ConnId;

    use super::*;
    use crate::connection::Connection;
    use crate::settings::AccessSettings;

    /// V24. Goal: whoever comes while the server stops is told so. Method: a connection is being
    /// upgraded when everybody is said goodbye to, and comes in behind that.
    #[tokio::test]
    async fn a_connection_that_comes_while_the_server_stops_is_said_goodbye_to() {
        let data = tempfile::tempdir().expect("a folder");
        let settings = ServeSettings {
            data: data.path().to_owned(),
            listen: "127.0.0.1:0".parse().expect("an address"),
            dev: true,
            serve: None,
            documents_max: 10,
            connections_max: 10,
            access: AccessSettings::default(),
            tls: None,
        };
        let server = Server::start(&settings).await.expect("it starts");
        let shared = Arc::clone(&server.shared);
        let seat = Arc::clone(&shared.seats).try_acquire_owned().expect("a seat");
        let mut stopping = Box::pin(server.stop());
        assert!(timeout(GOODBYES_TAKE / 4, &mut stopping).await.is_err(), "it is waited for");
        let (connection, _end) = Connection::new(ConnId(1_000));
        shared.enter(connection.clone());
        let ending = connection.ended().borrow().clone();
        assert_eq!(ending, Some(Ending::Bye(ByeReason::Shutdown)));
        shared.exit(connection.id());
        drop(seat);
        timeout(GOODBYES_TAKE / 2, stopping).await.expect("nobody is left");
    }
}
