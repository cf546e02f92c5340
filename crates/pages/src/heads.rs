//! What may follow what in the journals of a document.
//!
//! An append is decided by these rules, and a frame found in the log is believed by them: what one
//! page server writes, the next one reads.

use tidelog_types::limits::FRAME_BODY_SIZE_MAX;
use tidelog_types::{CallId, JournalId, Lsn, LsnRange, Pgid, Position};

use crate::frame_body::CALL_SIZE;

/// Where the journals of one document stand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heads {
    /// The timeline's id, and the LSNs of its entries that are not trimmed.
    pub timeline: Option<(JournalId, LsnRange)>,
    pub storage: Option<Position>,
    /// The LSNs of the storage journal's next entry, if a part of it is there.
    pub unended: Option<LsnRange>,
}

/// What cannot follow, and why.
pub(crate) type Refused = String;

impl Heads {
    /// A timeline begins, empty at `start`, in place of any other.
    pub fn begin_timeline(&mut self, journal: JournalId, start: Lsn) -> Result<(), Refused> {
        self.timeline = Some((journal, LsnRange::empty_at(place(start)?)));
        Ok(())
    }

    /// The timeline's next entry.
    pub fn extend_timeline(&mut self, journal: JournalId, lsn: Lsn) -> Result<(), Refused> {
        let range = self.timeline_of(journal)?;
        if lsn != range.end() {
            return Err(format!("timeline entry {lsn} behind {range}"));
        }
        self.timeline = Some((journal, LsnRange::new(range.start(), place(lsn.next())?)));
        Ok(())
    }

    /// The timeline's entries before `floor` are forgotten.
    pub fn trim_timeline(&mut self, journal: JournalId, floor: Lsn) -> Result<(), Refused> {
        let range = self.timeline_of(journal)?;
        if floor < range.start() || floor > range.end() {
            return Err(format!("timeline {range} trimmed before {floor}"));
        }
        self.timeline = Some((journal, LsnRange::new(floor, range.end())));
        Ok(())
    }

    fn timeline_of(&self, journal: JournalId) -> Result<LsnRange, Refused> {
        let known = self.timeline.filter(|(id, _)| *id == journal);
        known.map(|(_, range)| range).ok_or_else(|| format!("no timeline {journal}"))
    }

    /// A storage journal begins, empty, in place of any other.
    pub fn begin_storage(&mut self, journal: JournalId) {
        self.storage = Some(Position::start_of(journal));
        self.unended = None;
    }

    /// Pages of the storage journal's next entry. Gives the LSN that they carry.
    pub fn pages(
        &self,
        journal: JournalId,
        range: LsnRange,
        db_pages: u32,
        pgids: impl IntoIterator<Item = Pgid>,
    ) -> Result<Lsn, Refused> {
        let position = self.storage.ok_or("there is no storage journal")?;
        if position.journal != journal || position.next != range.start() {
            return Err(format!("storage entry {range} where {position} is"));
        }
        if let Some(unended) = self.unended.filter(|unended| *unended != range) {
            return Err(format!("storage entry {range} where a part of {unended} is"));
        }
        if range.is_empty() {
            return Err(format!("storage entry {range} without an LSN"));
        }
        if let Some(pgid) = pgids.into_iter().find(|pgid| pgid.0 == 0 || pgid.0 > db_pages) {
            return Err(format!("page {pgid} of {db_pages}"));
        }
        place(range.end())?;
        Ok(range.start().plus(range.count() - 1))
    }

    /// The storage journal's next entry, all of whose pages were [checked](Self::pages).
    pub fn extend_storage(&mut self, position: Position) {
        self.storage = Some(position);
        self.unended = None;
    }
}

/// An LSN at which a journal can stand.
fn place(lsn: Lsn) -> Result<Lsn, Refused> {
    Lsn::new(lsn.get()).ok_or_else(|| format!("LSN {lsn} is past the last one"))
}

/// The calls of one frame.
pub(crate) fn calls(calls: &[(CallId, Lsn)]) -> Result<(), Refused> {
    if calls.len() > FRAME_BODY_SIZE_MAX / CALL_SIZE {
        return Err(format!("{} calls in one frame", calls.len()));
    }
    calls.iter().try_for_each(|(_, lsn)| place(*lsn).map(drop))
}
