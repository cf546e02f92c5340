//! The document in a room, while it is open.

use std::collections::BTreeMap;

use tidelog_document::{AppliedTimeline, Authority, DueTasks};
use tidelog_sqlite::View;
use tidelog_sync::Refusal;
use tidelog_types::{Chain, ClientId, EntryId, JournalId, Life, Lineage, Lsn, LsnRange, Position};

use super::record::{RoomRecord, Seeded};
use super::{Halt, ran};

/// About how many bytes it takes to remember an entry.
const RECENT_ENTRY_SIZE: usize = 128;

/// How a local document that is offered stands to the one that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// All of it is here.
    Held,
    /// What is here is an earlier state of it, by the same copy, which was not heard to have gone
    /// on.
    Beyond,
    /// It is another one, or somebody has written here since.
    Other,
}

/// The document as a room holds it while it is open.
pub(super) struct Document {
    pub(super) authority: Authority,
    pub(super) record: RoomRecord,
    /// Where the part of the storage journal ends that is on the disk.
    pub(super) durable: Position,
    /// The latest entries, by the LSNs behind them.
    pub(super) recent: BTreeMap<Lsn, RecentEntry>,
    /// How much is applied of the timelines of those who are here, read from the pages.
    pub(super) timelines: BTreeMap<JournalId, AppliedTimeline>,
    /// Something of it is lost, or nothing proves that it is whole.
    pub(super) is_incomplete: bool,
    /// When its tasks are due; `None` if it has changed since somebody looked.
    pub(super) due: Option<DueTasks>,
}

/// What is remembered of an entry.
pub(super) struct RecentEntry {
    /// The chain behind it, to notice a client whose journal went another way.
    chain: Chain,
    /// The frame that it decided.
    origin: Option<EntryId>,
}

impl Document {
    pub(super) fn new(
        view: View,
        position: Position,
        record: RoomRecord,
        durable: Position,
        life: Life,
    ) -> Self {
        Self {
            authority: Authority::new(view, position, record.lives.clone(), life),
            due: record.due.clone(),
            record,
            durable,
            recent: BTreeMap::from([(
                position.next,
                RecentEntry { chain: position.chain, origin: None },
            )]),
            timelines: BTreeMap::new(),
            is_incomplete: false,
        }
    }

    /// Remembers where the journal stands now, and the frame of which that came.
    pub(super) fn moved_on(&mut self, origin: Option<EntryId>) {
        self.due = None;
        let position = self.authority.position();
        self.recent.insert(position.next, RecentEntry { chain: position.chain, origin });
        while self.recent.len() as u64 > self.authority.view().limits().entries_in_flight_max {
            self.recent.pop_first();
        }
    }

    /// Gives back what its connections keep, and keeps its pages in fewer bytes.
    pub(super) fn rest(&mut self) {
        self.authority.rest();
        self.authority.view().pack();
    }

    /// Gives back the pages, and what is remembered of entries but the last one.
    pub(super) fn give_pages_back(&mut self) {
        self.authority.view().rest();
        let newest = self.recent.pop_last();
        self.recent = newest.into_iter().collect();
    }

    /// About how many bytes it keeps that could be given back.
    pub(super) fn kept_size(&self) -> usize {
        let entries_count = self.recent.len().saturating_sub(1);
        self.authority.kept_size() + entries_count * RECENT_ENTRY_SIZE
    }

    /// The frame that these LSNs decided, if they are one that is remembered.
    pub(super) fn origin_of(&self, range: LsnRange) -> Option<EntryId> {
        let is_one = range == LsnRange::one(range.start());
        self.recent.get(&range.end()).filter(|_| is_one)?.origin
    }

    pub(super) fn applied(&mut self, timeline: JournalId) -> Result<&mut AppliedTimeline, Halt> {
        if !self.timelines.contains_key(&timeline) {
            let applied = ran(self.authority.applied(timeline))?;
            self.timelines.insert(timeline, applied);
        }
        Ok(self.timelines.get_mut(&timeline).expect("BUG: it is there by now"))
    }

    /// The same where the document is served. A file that was handed over may hold a row which
    /// cannot be read: whoever wants that one goes without, and nobody else.
    pub(super) fn served(&mut self, timeline: JournalId) -> Result<&mut AppliedTimeline, Halt> {
        self.applied(timeline).map_err(|halt| match halt {
            Halt::Failed(failure) if !failure.is_passing() => Halt::Refuse(Refusal::Damaged),
            other => other,
        })
    }

    /// Whether all that is held at this position is here: whoever holds it goes on from there.
    /// Otherwise it is a history that was lost here, in a restore, or that never was.
    pub(super) fn has(&self, held: &Position) -> bool {
        let head = self.authority.position();
        let lives = self.authority.lives();
        let common = lives.common_with_position(head.next, held.life, held.next);
        let recent = self.recent.get(&held.next);
        held.journal == head.journal
            && common == Some(held.next)
            && recent.is_none_or(|recent| recent.chain == held.chain)
    }

    /// Compares a local document that this client offers, whose storage journal stands at `offered`
    /// and was written by `lives`.
    pub(super) fn compare_offer(
        &self,
        client: ClientId,
        offered: &Position,
        lives: &Lineage,
    ) -> Offered {
        let head = self.authority.position();
        let common = self.authority.lives().common_prefix(head.next, lives, offered.next);
        // Everybody who follows may know the lives of what was handed over.
        let goes_on = |seeded: Seeded| seeded.position.next == head.next && seeded.client == client;
        let goes_on = self.record.seeded.is_some_and(goes_on);
        match common {
            _ if offered.journal != head.journal => Offered::Other,
            Some(common) if common == offered.next => Offered::Held,
            Some(common) if common == head.next && goes_on => Offered::Beyond,
            _ => Offered::Other,
        }
    }
}
