//! What a store should hold, in the plainest way.

use std::collections::BTreeMap;

use tidelog_pages::{Append, OpenedDocument, StoreRequest, TimelineFrame};
use tidelog_types::{CallId, DocumentKey, JournalId, Lsn, Page, Pgid, Position};

/// What one document should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelDocument {
    pub record: Vec<u8>,
    pub timeline: Option<(JournalId, Lsn, Vec<TimelineFrame>)>,
    pub storage: Option<Position>,
    pub db_pages: u32,
    /// Calls of storage entries, and of timeline entries that were trimmed, oldest first.
    pub calls: Vec<(CallId, Lsn)>,
    /// Each page and its LSN.
    pub pages: BTreeMap<Pgid, (Lsn, Page)>,
}

/// What a store should hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model(pub BTreeMap<DocumentKey, ModelDocument>);

impl Model {
    /// Applies a request as the docs of the protocol say.
    pub fn apply(&mut self, request: &StoreRequest) {
        match request {
            StoreRequest::Append { append, .. } => {
                self.0.entry(append.document.clone()).or_default().append(append);
                if let Some(name) = &append.take_name
                    && let Some(document) = self.0.remove(&append.document)
                {
                    self.0.insert(name.clone(), document);
                }
            }
            StoreRequest::Destroy { document, .. } => {
                self.0.remove(document);
            }
            _ => {}
        }
    }
}

impl ModelDocument {
    /// What a server says a document is.
    pub fn of(opened: &OpenedDocument, pages: BTreeMap<Pgid, Page>) -> Self {
        let timeline = opened.timeline.as_ref().map(|timeline| {
            assert_eq!(timeline.range.count(), timeline.frames.len() as u64);
            (timeline.journal, timeline.range.start(), timeline.frames.clone())
        });
        let pages = pages.into_iter().map(|(pgid, page)| (pgid, (Lsn::FIRST, page))).collect();
        let OpenedDocument { storage, db_pages, .. } = *opened;
        let (record, calls) = (opened.record.clone(), opened.calls.clone());
        Self { record, timeline, storage, db_pages, calls, pages }
    }

    pub fn append(&mut self, append: &Append) {
        if let Some(record) = &append.record {
            self.record = record.to_vec();
        }
        if let Some((journal, start)) = append.begin_timeline
            && self.timeline.as_ref().is_none_or(|timeline| timeline.0 != journal)
        {
            self.timeline = Some((journal, start, Vec::new()));
        }
        if let Some((_, start, frames)) = &mut self.timeline {
            for frame in &append.timeline {
                if frame.lsn == start.plus(frames.len() as u64) {
                    frames.push(frame.clone());
                }
            }
            if let Some(floor) = append.trim_timeline {
                while *start < floor {
                    self.calls.push((frames.remove(0).call, *start));
                    *start = start.next();
                }
            }
        }
        if let Some(journal) = append.begin_storage
            && self.storage.is_none_or(|position| position.journal != journal)
        {
            self.storage = Some(Position::start_of(journal));
            self.db_pages = 0;
            self.pages.clear();
        }
        for (entry, left) in append.storage.iter().zip((0..append.storage.len()).rev()) {
            let position = self.storage.as_mut().expect("a storage journal");
            if entry.range.start() == position.next {
                let lsn = Lsn::new(entry.range.end().get() - 1).expect("not empty");
                for (pgid, page) in &entry.set.pages {
                    self.pages.insert(*pgid, (lsn, page.clone()));
                }
                if append.is_cut && left == 0 {
                    continue;
                }
                *position = entry.position;
                self.calls.extend(&entry.calls);
                self.db_pages = entry.set.db_pages;
                self.pages.retain(|pgid, _| pgid.0 <= entry.set.db_pages);
            }
        }
    }
}

/// The model without the LSNs of pages, which `observe` does not ask for.
pub fn plain(model: &Model) -> Model {
    let mut model = model.clone();
    for document in model.0.values_mut() {
        document.pages.values_mut().for_each(|(lsn, _)| *lsn = Lsn::FIRST);
    }
    model
}

/// Whether the two are the same but for the LSNs of pages.
pub fn is_same(observed: &Model, model: &Model) -> bool {
    *observed == plain(model)
}
