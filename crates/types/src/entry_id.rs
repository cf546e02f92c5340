//! The name of an entry that nothing else ever has.

use serde::{Deserialize, Serialize};

use crate::{JournalId, Life, Lsn};

/// One entry of a journal, by its place and its writer. A life gives each LSN once, so this names
/// the entry for ever, whatever becomes of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryId {
    /// Which journal.
    pub journal: JournalId,
    /// Who wrote it.
    pub life: Life,
    /// Its place.
    pub lsn: Lsn,
}
