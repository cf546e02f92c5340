//! Turns for runs that keep many pages in memory while they wait for more.
//!
//! A run that faults keeps all that it has read, up to 128 MiB, and begins anew. Where all rooms
//! together keep as much as they may, one such run at a time gets more pages: all others wait for
//! theirs, in the order in which they faulted.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use tidelog_pages::StoreRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turn of a room's run, which lasts until the run has ended.
pub(super) enum RunTurn {
    NotNeeded,
    /// Comes with what is to be read then.
    Awaited(Pin<Box<dyn Future<Output = (OwnedSemaphorePermit, StoreRequest)> + Send>>),
    Taken {
        _turn: OwnedSemaphorePermit,
    },
}

impl RunTurn {
    /// Asks for one, to read this then.
    pub(super) fn awaited(turns: &Arc<Semaphore>, read: StoreRequest) -> Self {
        let turn = Arc::clone(turns).acquire_owned();
        Self::Awaited(Box::pin(async { (turn.await.expect("BUG: turns are never closed"), read) }))
    }

    pub(super) fn is_taken(&self) -> bool {
        matches!(self, Self::Taken { .. })
    }

    /// What is to be read, once it is the turn of that, if it is awaited.
    pub(super) async fn comes(&mut self) -> StoreRequest {
        let Self::Awaited(turn) = self else { return pending().await };
        let (turn, read) = turn.await;
        *self = Self::Taken { _turn: turn };
        read
    }
}
