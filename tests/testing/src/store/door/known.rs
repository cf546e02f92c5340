//! What an owner knows of a document that it has opened.

use std::collections::BTreeMap;

use tidelog_pages::{Append, OpenedDocument, OwnerId};
use tidelog_types::{JournalId, Lsn, Page, Pgid};

/// Where a document stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stand {
    pub is_there: bool,
    record: Vec<u8>,
    /// From where to where.
    timeline: Option<(JournalId, Lsn, Lsn)>,
    storage: Option<(JournalId, Lsn)>,
    db_pages: u32,
}

/// A document that nobody but its owner has changed since that opened it.
pub(super) struct Known {
    pub owner: OwnerId,
    stand: Stand,
    /// Pages that were appended since, each with its LSN.
    pages: BTreeMap<Pgid, (Lsn, Page)>,
}

impl Stand {
    pub fn of(state: Option<&OpenedDocument>) -> Self {
        let Some(state) = state else { return Self::default() };
        let timeline = state.timeline.as_ref();
        Self {
            is_there: true,
            record: state.record.clone(),
            timeline: timeline.map(|it| (it.journal, it.range.start(), it.range.end())),
            storage: state.storage.map(|it| (it.journal, it.next)),
            db_pages: state.db_pages,
        }
    }
}

impl Known {
    pub fn of(owner: OwnerId, state: Option<&OpenedDocument>) -> Self {
        Self { owner, stand: Stand::of(state), pages: BTreeMap::new() }
    }

    pub fn stand(&self) -> Stand {
        self.stand.clone()
    }

    pub fn storage(&self) -> Option<(JournalId, Lsn)> {
        self.stand.storage
    }

    /// The newest version of a page: `None` if it is not known, and within if there is none.
    pub fn page(&self, pgid: Pgid) -> Option<Option<Page>> {
        if pgid.0 > self.stand.db_pages {
            return Some(None);
        }
        self.pages.get(&pgid).map(|(_, page)| Some(page.clone()))
    }

    /// The pages that are known to be no older than that.
    pub fn since(&self, since: Lsn, from: Pgid) -> impl Iterator<Item = (Pgid, Option<Page>)> + '_ {
        let pages = self.pages.range(from..).filter(move |(_, (lsn, _))| *lsn >= since);
        pages.map(|(pgid, (_, page))| (*pgid, Some(page.clone())))
    }

    /// Its owner appends. Says whether it is known what comes of that.
    pub fn append(&mut self, append: Append) -> bool {
        let Self { stand, pages, .. } = self;
        stand.is_there = true;
        if let Some(record) = append.record {
            stand.record = record.into_vec();
        }
        if let Some((journal, start)) = append.begin_timeline
            && stand.timeline.is_none_or(|timeline| timeline.0 != journal)
        {
            stand.timeline = Some((journal, start, start));
        }
        if append.timeline_id.is_some_and(|id| stand.timeline.is_none_or(|it| it.0 != id)) {
            return false;
        }
        if let Some((_, start, end)) = &mut stand.timeline {
            *end = append.timeline.last().map_or(*end, |frame| frame.lsn.next()).max(*end);
            *start = append.trim_timeline.unwrap_or(*start).max(*start);
        }
        if let Some(journal) = append.begin_storage
            && (append.is_anew || stand.storage.is_none_or(|storage| storage.0 != journal))
        {
            (stand.storage, stand.db_pages) = (Some((journal, Lsn::FIRST)), 0);
            pages.clear();
        }
        let count = append.storage.len();
        for (nth, entry) in (1..).zip(append.storage) {
            let Some((journal, next)) = stand.storage else { return false };
            if entry.position.journal != journal || entry.range.start() > next {
                return false;
            }
            if entry.range.end() <= next {
                continue;
            }
            let lsn = Lsn::new(entry.range.end().get() - 1).unwrap_or(Lsn::FIRST);
            pages.extend(entry.set.pages.into_iter().map(|(pgid, page)| (pgid, (lsn, page))));
            if append.is_cut && nth == count {
                // Of how many pages it is meanwhile is the store's own business.
                return false;
            }
            stand.storage = Some((journal, entry.position.next));
            stand.db_pages = entry.set.db_pages;
            pages.retain(|pgid, _| pgid.0 <= stand.db_pages);
        }
        true
    }
}
