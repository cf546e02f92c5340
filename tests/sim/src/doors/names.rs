//! How a room calls what it runs, for whoever counts how often a server died of it: no two frames
//! have the same name.
//!
//! Whoever has the name of one that a server died of is rejected with it, and no server dies here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tidelog_pages::StoreRequest;
use tidelog_room::{Caution, RoomEffect, Suspect};
use tidelog_types::{DocumentKey, JournalId, Lsn};

/// What one room has run, and written down.
#[derive(Default)]
pub(crate) struct Names(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    names: BTreeSet<String>,
    /// What was run since that was asked last.
    runs: Vec<String>,
    /// Where the entries of each storage journal begin, of which each is what one run has made.
    entries: BTreeMap<JournalId, BTreeSet<Lsn>>,
}

impl Caution for Names {
    fn run(&self, suspect: &dyn Fn() -> Suspect, run: &mut dyn FnMut()) -> bool {
        let suspect = suspect();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.names.insert(suspect.to_string());
        seen.runs.push(suspect.what);
        drop(seen);
        run();
        true
    }
}

impl Names {
    /// What the room has run since that was asked last.
    pub(crate) fn take_runs(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).runs)
    }

    /// Something leaves the room.
    ///
    /// # Errors
    ///
    /// It has written down more than it has run under different names.
    pub(crate) fn leaves(&self, key: &DocumentKey, effect: &RoomEffect) -> Result<(), String> {
        let RoomEffect::Store(StoreRequest::Append { append, .. }) = effect else { return Ok(()) };
        if append.document != *key && append.take_name.is_none() {
            return Ok(());
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in &append.storage {
            let of_journal = seen.entries.entry(entry.position.journal).or_default();
            of_journal.insert(entry.range.start());
            let (entries, names) = (of_journal.len(), seen.names.len());
            if entries > names {
                return Err(format!("{entries} entries were run by {names} names"));
            }
        }
        Ok(())
    }
}
