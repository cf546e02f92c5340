//! What a tab asks its core for, and must not.
//!
//! A core does as it is told. That nobody wants it any more shows much later, or never.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{Call, Handle, Request, ToCore};

/// Milliseconds after which a deletion is late, once the engine is there.
const DELETION_MS: u64 = 10_000;

/// What the app of a tab has asked for, and been told.
#[derive(Default)]
pub(crate) struct TabDoor {
    /// Whether nothing has to be downloaded any more.
    is_loaded: bool,
    /// Documents that were closed, or given up by whoever tried to.
    closed: BTreeSet<Handle>,
    /// Those that its core was asked to open, by these calls, and not to close.
    open: BTreeMap<Handle, Call>,
    /// When each deletion was asked for.
    deletions: BTreeMap<Call, u64>,
}

impl TabDoor {
    pub(crate) fn is_loaded(&mut self) {
        self.is_loaded = true;
    }

    /// The app asks for this.
    pub(crate) fn comes(&mut self, message: &ToCore, now_ms: u64) {
        if let ToCore::Destroy { call, .. } = message
            && self.is_loaded
        {
            self.deletions.insert(*call, now_ms);
        }
    }

    /// The app was told what became of it, whatever that is.
    pub(crate) fn is_settled(&mut self, message: &ToCore) {
        if let ToCore::Ask { handle, request: Request::Close, .. } = message {
            self.closed.insert(*handle);
        }
    }

    /// The core says that nothing came of a call.
    pub(crate) fn has_failed(&mut self, failed: Call) {
        self.open.retain(|_, call| *call != failed);
    }

    /// The tab knows that its core is gone.
    pub(crate) fn core_is_gone(&mut self) {
        self.open.clear();
    }

    /// The tab has done all that follows from something.
    ///
    /// # Errors
    ///
    /// Its core has something open for nobody.
    pub(crate) fn rests(&self) -> Result<(), String> {
        match self.open.keys().find(|handle| self.closed.contains(handle)) {
            Some(handle) => Err(format!("{handle:?} was closed, and the core is not told")),
            None => Ok(()),
        }
    }

    /// The tab asks its core for this.
    ///
    /// # Errors
    ///
    /// Nobody wants that any more, or should not be given it.
    pub(crate) fn leaves(&mut self, message: &ToCore, now_ms: u64) -> Result<(), String> {
        match message {
            ToCore::Ask { handle, request: Request::Open(open), .. }
                if self.closed.contains(handle) =>
            {
                Err(format!("{} was closed, and is opened again for nobody", open.document))
            }
            ToCore::Ask { call, handle, request: Request::Open(_) } => {
                self.open.insert(*handle, *call);
                Ok(())
            }
            ToCore::Ask { handle, request: Request::Close, .. } => {
                self.open.remove(handle);
                Ok(())
            }
            ToCore::Destroy { call, document, .. } => match self.deletions.get(call) {
                Some(at_ms) if now_ms > at_ms + DELETION_MS => {
                    let ms = now_ms - at_ms;
                    Err(format!("{document} is to be deleted, as was asked for {ms} ms ago"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
