//! A server behind its door: what serves documents, whoever it is that asks for them.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidelog_room::{Caution, Doctypes, RoomSettings};
use tidelog_types::limits::{
    CONNECTIONS_OF_SUBJECT_MAX, EXPORTS_MAX, HELLOS_OF_ADDRESS_MAX, LARGE_MESSAGES_MAX,
    LARGE_MESSAGES_SIZE_MAX, Limits,
};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use crate::access::{Expiries, Guard};
use crate::counters::Counters;
use crate::deployments::Deployments;
use crate::export::Exports;
use crate::heartbeat::Heartbeat;
use crate::http::DueListeners;
use crate::large_messages::LargeMessages;
use crate::marks::Marks;
use crate::rooms::{RoomThreads, Rooms};
use crate::server::ServerError;
use crate::settings::ServeSettings;
use crate::shared::Shared;
use crate::shares::Shares;
use crate::store::{OpenStoreError, Store};

/// Within which time the store has to carry out what it was asked, and close.
const STORE_TAKES: Duration = Duration::from_secs(3);
/// Within which time it has to be written down that the server was stopped.
const MARKS_TAKE: Duration = Duration::from_secs(1);
/// Pages of a document that its room keeps in memory: all others are a fault away.
const ROOM_POOL_PAGES: usize = 1024;
/// After which time a client that does not read is let go.
const SLOW_AFTER: Duration = Duration::from_secs(30);

/// What a server has but for its door. One that is dropped closes too, and has its successor be
/// careful, as one that was killed.
pub(crate) struct House {
    pub(crate) shared: Arc<Shared>,
    store: Store,
    marks: Arc<Marks>,
    _threads: RoomThreads,
}

impl House {
    /// Opens the store in the folder of these settings; what they say of a door does not count.
    pub(crate) fn open(settings: &ServeSettings) -> Result<Self, ServerError> {
        let counters = Arc::new(Counters::default());
        let limits = Limits { documents_max: settings.documents_max, ..Limits::DEFAULT };
        let store =
            Store::open(&settings.data, limits, Arc::clone(&counters)).map_err(|error| {
                let data = settings.data.clone();
                match error {
                    OpenStoreError::InUse => ServerError::InUse { data },
                    OpenStoreError::Failed { reason } => ServerError::Store { data, reason },
                }
            })?;
        let guard = match settings.dev {
            true => None,
            false => Some(Guard::open(&settings.data, &settings.access)),
        };
        let guard = guard.transpose().map_err(ServerError::Access)?.map(Arc::new);
        let handle = store.handle();
        let limits = Limits { pool_pages_max: ROOM_POOL_PAGES, ..limits };
        let rooms = match settings.dev {
            true => RoomSettings { doctypes: Doctypes::any(), limits, ..RoomSettings::default() },
            false => RoomSettings { limits, ..RoomSettings::default() },
        };
        let (taken, found_right) = (rooms.doctypes.clone(), rooms.found_right.clone());
        let deployments = Deployments::open(&settings.data, taken, found_right, limits);
        let deployments = Arc::new(deployments.map_err(ServerError::Doctypes)?);
        let threads = RoomThreads::start().map_err(|source| ServerError::Threads { source })?;
        let marks = Arc::new(Marks::open(&settings.data));
        let seats_count = settings.connections_max.min(Semaphore::MAX_PERMITS);
        let caution = Arc::clone(&marks) as Arc<dyn Caution>;
        let (store_handle, room_threads) = (handle.clone(), threads.handle());
        let shared = Arc::new(Shared {
            expiries: Expiries::of(guard.clone()),
            guard,
            deployments,
            rooms: Rooms::new(store_handle, rooms, caution, Arc::clone(&counters), room_threads),
            store: handle,
            heartbeat: Heartbeat::new(),
            counters,
            connections_ever: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            certificate_ends_at_s: AtomicU64::new(0),
            slow_after: SLOW_AFTER,
            data: settings.data.clone(),
            exports: Exports::new(EXPORTS_MAX),
            due_listeners: DueListeners::new(),
            seats: Arc::new(Semaphore::new(seats_count)),
            greetings: Shares::new(HELLOS_OF_ADDRESS_MAX.min((seats_count / 4).max(1))),
            subjects: Shares::new(CONNECTIONS_OF_SUBJECT_MAX.min((seats_count / 2).max(1))),
            large_messages: LargeMessages::new(LARGE_MESSAGES_MAX, LARGE_MESSAGES_SIZE_MAX),
            connections: Mutex::default(),
        });
        Ok(Self { shared, store, marks, _threads: threads })
    }

    /// Closes the store, and writes down that it was stopped. All that was acknowledged is on the
    /// disk already.
    pub(crate) async fn close(self) {
        let store = self.store;
        if timeout(STORE_TAKES, spawn_blocking(move || store.close())).await.is_err() {
            warn!("the store does not close");
        }
        let marks = self.marks;
        if timeout(MARKS_TAKE, spawn_blocking(move || marks.close())).await.is_err() {
            warn!("what the server was stopped amid cannot be written down");
        }
    }
}
