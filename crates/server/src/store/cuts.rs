//! Cuts through the store that somebody copies: see [`StoreCut`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tidelog_disk::NativeDisk;
use tidelog_pages::{CutError, PageServer, StoreCut};
use tidelog_types::limits::{BACKUP_LOG_SIZE_MAX, BACKUPS_MAX};
use tracing::warn;

/// What is copied, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct HeldCut {
    /// What the log file is called.
    pub(crate) log: String,
    pub(crate) log_head: Vec<u8>,
    pub(crate) log_size: u64,
    pub(crate) pages_size: u64,
    was_let_go: AtomicBool,
}

impl HeldCut {
    /// Whether nothing of it has been written over so far.
    pub(crate) fn is_held(&self) -> bool {
        !self.was_let_go.load(Ordering::Acquire)
    }
}

/// The cuts that are held.
#[derive(Default)]
pub(super) struct Cuts(Vec<(StoreCut, Weak<HeldCut>)>);

impl Cuts {
    /// Another one, if there may be.
    pub(super) fn take(&mut self, server: &PageServer<NativeDisk>) -> Result<Arc<HeldCut>, String> {
        self.sweep(server);
        if self.0.len() >= BACKUPS_MAX {
            return Err("another backup or check is under way".to_owned());
        }
        let cut = server.cut().map_err(|error: CutError| error.to_string())?;
        let held = Arc::new(HeldCut {
            log: cut.log.to_string(),
            log_head: cut.log_head.clone(),
            log_size: cut.log_size,
            pages_size: cut.pages_size,
            was_let_go: AtomicBool::new(false),
        });
        self.0.push((cut, Arc::downgrade(&held)));
        Ok(held)
    }

    /// Lets go of what nobody copies any more, and of all where the log has grown too long for it.
    pub(super) fn sweep(&mut self, server: &PageServer<NativeDisk>) {
        self.0.retain(|(_, held)| held.strong_count() > 0);
        let is_too_long =
            |cut: &StoreCut| server.log_size().saturating_sub(cut.log_size) > BACKUP_LOG_SIZE_MAX;
        if self.0.iter().any(|(cut, _)| is_too_long(cut)) {
            warn!("a backup or check takes too long, and is given up: the log has grown for it");
            self.let_go();
        }
    }

    /// The files are opened anew, or go on without those who copy them.
    pub(super) fn let_go(&mut self) {
        for (_, held) in self.0.drain(..) {
            // Before anything is written over.
            held.upgrade().inspect(|held| held.was_let_go.store(true, Ordering::Release));
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_types::limits::Limits;

    use super::*;

    #[test]
    fn one_cut_at_a_time_is_held_until_it_is_let_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = super::super::open_page_server(folder.path(), Limits::DEFAULT);
        let (server, _) = opened.expect("a store");
        let mut cuts = Cuts::default();
        let first = cuts.take(&server).expect("it is whole");
        assert_eq!(first.log_head.len() as u64, first.log_size, "nothing is in it");
        assert!(cuts.take(&server).is_err(), "another one is held");
        assert!(first.is_held());
        drop(first);
        let second = cuts.take(&server).expect("nobody copies the first one");
        cuts.sweep(&server);
        assert!(second.is_held());
        cuts.let_go();
        assert!(!second.is_held(), "whoever copied it learns that");
    }
}
