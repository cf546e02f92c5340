//! What every connection and request has a part in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{Extensions, HeaderMap};
use tidelog_access::TokenError;
use tidelog_room::ConnId;
use tidelog_sync::ByeReason;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::access::{Expiries, Guard, Pass, now_s};
use crate::client_address::network;
use crate::connection::{Connection, Ending};
use crate::counters::Counters;
use crate::deployments::Deployments;
use crate::door::Peer;
use crate::export::Exports;
use crate::heartbeat::Heartbeat;
use crate::http::DueListeners;
use crate::large_messages::LargeMessages;
use crate::rooms::Rooms;
use crate::settings::TlsSettings;
use crate::shares::{Share, Shares};
use crate::store::StoreHandle;

/// The parts of a server that runs, for whoever serves a connection or a request.
pub(crate) struct Shared {
    /// Who decides who may come in; nobody on a development server.
    pub(crate) guard: Option<Arc<Guard>>,
    /// The connections that end with their tokens.
    pub(crate) expiries: Expiries,
    pub(crate) deployments: Arc<Deployments>,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) store: StoreHandle,
    pub(crate) heartbeat: Arc<Heartbeat>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) connections_ever: AtomicU64,
    pub(crate) stopping: AtomicBool,
    /// The second since 1970 at which the certificate ends that clients are shown; 0 without one.
    pub(crate) certificate_ends_at_s: AtomicU64,
    pub(crate) slow_after: Duration,
    /// The store's folder.
    pub(crate) data: PathBuf,
    pub(crate) exports: Exports,
    /// Who listens to which documents have work.
    pub(crate) due_listeners: DueListeners,
    /// One for each connection that there may be.
    pub(crate) seats: Arc<Semaphore>,
    /// Those of them that are not let in, by their addresses.
    pub(crate) greetings: Arc<Shares<IpAddr>>,
    /// Those that have said Hello with a token, by its subject.
    pub(crate) subjects: Arc<Shares<Arc<str>>>,
    pub(crate) large_messages: Arc<LargeMessages>,
    pub(crate) connections: Mutex<HashMap<ConnId, Connection>>,
}

impl Shared {
    /// Whoever comes too late to be found when the server stops finds that it does.
    pub(crate) fn enter(&self, connection: Connection) {
        self.connections().insert(connection.id(), connection.clone());
        if self.is_stopping() {
            connection.end(Ending::Bye(ByeReason::Shutdown));
        }
    }

    pub(crate) fn exit(&self, id: ConnId) {
        let mut connections = self.connections();
        connections.remove(&id);
        // What a crowd has taken is given back when it has left.
        if connections.len() < connections.capacity() / 4 {
            connections.shrink_to_fit();
        }
    }

    /// The address of whoever sent a request with these parts.
    pub(crate) fn address(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<IpAddr> {
        let Peer(peer) = *extensions.get::<Peer>()?;
        Some(self.guard.as_ref().map_or(peer, |guard| guard.address(peer, headers)))
    }

    /// Whether a pass that was given holds by now.
    pub(crate) fn check(&self, pass: &Pass) -> Result<(), TokenError> {
        self.guard.as_ref().map_or(Ok(()), |guard| guard.check(pass))
    }

    /// What a connection from this address takes up until it is let in, if anything: `Err` if
    /// the address has as many of them as it may.
    pub(crate) fn greeting(&self, address: Option<IpAddr>) -> Result<Option<Share<IpAddr>>, ()> {
        let is_trusted = |it| self.guard.as_ref().is_some_and(|guard| guard.trusts(it));
        let is_spared = |it: IpAddr| it.is_loopback() || is_trusted(it);
        let address = address.map(|it| it.to_canonical()).filter(|it| !is_spared(*it));
        let share = |address| self.greetings.take(network(address)).ok_or(());
        address.map(share).transpose()
    }

    /// Bytes that wait for clients to read, about.
    pub(crate) fn outbox_size(&self) -> usize {
        self.connections().values().map(Connection::outbox_size).sum()
    }

    /// Clients are shown this certificate from now on, if any.
    pub(crate) fn note_certificate(&self, tls: Option<&TlsSettings>) {
        let ends_at_s = tls.and_then(|tls| tls.ends_at_s).unwrap_or(0);
        self.certificate_ends_at_s.store(ends_at_s, Ordering::Relaxed);
        if self.certificate_left_s().is_some_and(|left_s| left_s <= 0) {
            warn!("the certificate has expired: browsers refuse it");
        }
    }

    /// How many seconds the certificate is good yet; fewer than none once it has expired.
    pub(crate) fn certificate_left_s(&self) -> Option<i64> {
        let ends_at_s = self.certificate_ends_at_s.load(Ordering::Relaxed);
        (ends_at_s > 0).then(|| ends_at_s.cast_signed().saturating_sub(now_s().cast_signed()))
    }

    /// Whether all who may are served, or why not.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        if self.is_stopping() {
            return Err("the server goes down".to_owned());
        }
        if !self.heartbeat.is_there() {
            return Err("the store does not answer".to_owned());
        }
        self.store.damage().map_or(Ok(()), Err)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> MutexGuard<'_, HashMap<ConnId, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Shared {
    /// Those of a server that has these rooms, and nothing that there is only so much of.
    pub(crate) fn of(scene: &crate::rooms::tests::Scene) -> Self {
        Self {
            guard: None,
            expiries: Expiries::default(),
            deployments: Arc::new(Deployments::none()),
            rooms: Arc::clone(&scene.rooms),
            store: scene.store(),
            heartbeat: Heartbeat::new(),
            counters: Arc::default(),
            connections_ever: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            certificate_ends_at_s: AtomicU64::new(0),
            slow_after: Duration::from_secs(30),
            data: std::env::temp_dir(),
            exports: Exports::new(0),
            due_listeners: DueListeners::new(),
            seats: Arc::new(Semaphore::new(0)),
            greetings: Shares::new(0),
            subjects: Shares::new(0),
            large_messages: LargeMessages::new(0, 0),
            connections: Mutex::default(),
        }
    }
}
