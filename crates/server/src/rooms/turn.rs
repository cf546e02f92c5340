//! Turns of rooms, where all of them together have as much of something as they may.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use tidelog_pages::StoreRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

type Permits = Vec<OwnedSemaphorePermit>;

/// The turn of a room, until it is given back. They go in the order in which they were asked for.
pub(super) enum Turn<T> {
    NotNeeded,
    /// Comes with what is to be done then.
    Awaited(Pin<Box<dyn Future<Output = (Permits, T)> + Send>>),
    Taken {
        _turn: Permits,
    },
}

/// For a run that keeps many pages in memory while it waits for more. A run that faults keeps all
/// that it has read, up to 128 MiB, and begins anew: it lasts until that has ended, and comes with
/// what is to be read, or with nothing for a run that was given up and is yet to begin.
pub(super) type RunTurn = Turn<Option<StoreRequest>>;

/// For one step of a room that is [slow](super::pace), or of a client that is: it lasts until that
/// has ended.
pub(super) type SlowTurn = Turn<()>;

/// For one entry, which may have 64 MiB: it lasts until that is durable.
pub(super) type WriteTurn = Turn<()>;

impl<T: Send + 'static> Turn<T> {
    /// Asks for one of each of these, in this order.
    pub(super) fn awaited<'a>(
        turns: impl IntoIterator<Item = &'a Arc<Semaphore>>,
        what: T,
    ) -> Self {
        let turns: Vec<_> = turns.into_iter().map(|it| Arc::clone(it).acquire_owned()).collect();
        Self::Awaited(Box::pin(async {
            let mut permits = Permits::new();
            for turn in turns {
                permits.push(turn.await.expect("BUG: turns are never closed"));
            }
            (permits, what)
        }))
    }

    pub(super) fn is_taken(&self) -> bool {
        matches!(self, Self::Taken { .. })
    }

    /// What is to be done, once it is the turn of that, if it is awaited.
    pub(super) async fn comes(&mut self) -> T {
        let Self::Awaited(turn) = self else { return pending().await };
        let (turn, what) = turn.await;
        *self = Self::Taken { _turn: turn };
        what
    }
}
