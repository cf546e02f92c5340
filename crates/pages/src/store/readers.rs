//! Which reads may still look at places that are about to be written over.

use std::sync::Arc;

/// The reads that go on, by era: another era begins with each begin and each end of a change-over.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    era: Arc<()>,
    /// Earlier eras, as far as reads may hold them.
    earlier: Vec<Arc<()>>,
}

impl Readers {
    /// The era that it is now. A read holds it until it ends.
    pub fn era(&self) -> Arc<()> {
        self.era.clone()
    }

    /// Reads that are asked for from now on are told apart from those before.
    pub fn begin_era(&mut self) {
        let era = std::mem::take(&mut self.era);
        self.earlier.push(era);
    }

    /// Whether reads of earlier eras go on.
    pub fn has_earlier(&mut self) -> bool {
        self.earlier.retain(|era| Arc::strong_count(era) > 1);
        !self.earlier.is_empty()
    }
}
