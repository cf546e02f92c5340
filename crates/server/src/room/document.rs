//! The document in a room, while it is open.

use std::collections::BTreeMap;

use tidelog_document::Authority;
use tidelog_sqlite::View;
use tidelog_types::limits::ENTRIES_IN_FLIGHT_MAX;
use tidelog_types::{Chain, JournalId, Lsn, Position};

use super::record::RoomRecord;
use super::{Halt, ran};

/// The document as a room holds it while it is open.
pub(super) struct Document {
    pub(super) authority: Authority,
    pub(super) record: RoomRecord,
    /// Where the part of the storage journal ends that is on the disk.
    pub(super) durable: Position,
    /// The chain at each of the latest LSNs, to notice a client whose journal went another way.
    pub(super) recent: BTreeMap<Lsn, Chain>,
    /// First LSN that is not applied, of those timelines that were asked for.
    pub(super) wanted: BTreeMap<JournalId, Lsn>,
    /// Something of it is lost, or nothing proves that it is whole.
    pub(super) is_incomplete: bool,
}

impl Document {
    pub(super) fn new(
        view: View,
        position: Position,
        record: RoomRecord,
        durable: Position,
    ) -> Self {
        Self {
            authority: Authority::new(view, position),
            record,
            durable,
            recent: BTreeMap::from([(position.next, position.chain)]),
            wanted: BTreeMap::new(),
            is_incomplete: false,
        }
    }

    /// Remembers where the journal stands now.
    pub(super) fn moved_on(&mut self) {
        let position = self.authority.position();
        self.recent.insert(position.next, position.chain);
        while self.recent.len() as u64 > ENTRIES_IN_FLIGHT_MAX {
            self.recent.pop_first();
        }
    }

    pub(super) fn wanted(&mut self, timeline: JournalId) -> Result<Lsn, Halt> {
        if let Some(wanted) = self.wanted.get(&timeline) {
            return Ok(*wanted);
        }
        let wanted = ran(self.authority.wanted(timeline))?;
        self.wanted.insert(timeline, wanted);
        Ok(wanted)
    }

    pub(super) fn need_all_pages(&self) -> Result<(), Halt> {
        let missing = self.authority.view().missing();
        if missing.is_empty() { Ok(()) } else { Err(Halt::Missing(missing)) }
    }

    pub(super) fn whole_image(&self) -> Result<Vec<u8>, Halt> {
        self.need_all_pages()?;
        let broken = || Halt::Broken("pages are missing of which none is missing".to_owned());
        self.authority.view().image().ok_or_else(broken)
    }
}
