//! Pages on their way from the page server, and who waits for them.

use std::collections::BTreeSet;

use tidelog_pages::{RequestId, StorageEntry, StoreRequest, Urgency};
use tidelog_sqlite::View;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{DocumentKey, Page, Pgid, SortedMap};

use super::Context;
use crate::protocol::CallFailure;
use crate::store_link::StoreLink;

/// Reads that the page server has not answered, and the faults that wait for them.
#[derive(Default)]
pub(super) struct Reads {
    front: Option<PageFault>,
    past_offer: Option<PageFault>,
    rebase: Option<PageFault>,
    entry: Option<PageFault>,
    back: Option<PageFault>,
    under_way: SortedMap<RequestId, Read>,
    /// Pages that this device has lost.
    damaged: BTreeSet<Pgid>,
}

/// Who waits for pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// The request at the front of the queue.
    Front,
    /// A query that overtakes whoever hands the document over.
    PastOffer,
    /// A mutation of a rebase: live queries come after all of them.
    Rebase,
    /// An entry of the server that says how pages differ from those before it.
    Entry,
    /// What else nobody waits for in particular.
    Background,
}

/// A page that somebody waits for.
struct PageFault {
    request: RequestId,
    /// Which fault of one run it is, from 0.
    kth: u32,
    /// All pages that were fetched for the run so far, and those that it [keeps](Reads::keep). They
    /// stay in memory until it has ended: it begins anew at each fault, and each adds to them, so
    /// that it comes to its end.
    fetched: BTreeSet<Pgid>,
}

struct Read {
    urgency: Urgency,
    pgids: Vec<Pgid>,
    /// The page server had too much of ours to do: it is to be asked again.
    is_refused: bool,
    /// Pages that were written meanwhile: what is on its way may be older.
    stale: BTreeSet<Pgid>,
    /// Pages that have not come, by this read or another.
    left: BTreeSet<Pgid>,
}

impl Read {
    fn new(urgency: Urgency, pgids: Vec<Pgid>) -> Self {
        let left = pgids.iter().copied().collect();
        Self { urgency, pgids, is_refused: false, stale: BTreeSet::new(), left }
    }

    fn ask(&self, request: RequestId, document: &DocumentKey) -> StoreRequest {
        let (document, pgids) = (document.clone(), self.pgids.clone());
        StoreRequest::Read { request, urgency: self.urgency, document, pgids }
    }
}

impl Reads {
    fn fault(&mut self, who: For) -> &mut Option<PageFault> {
        match who {
            For::Front => &mut self.front,
            For::PastOffer => &mut self.past_offer,
            For::Entry => &mut self.entry,
            For::Rebase => &mut self.rebase,
            For::Background => &mut self.back,
        }
    }

    /// The faults of all runs that are to be run again.
    fn faults(&self) -> impl Iterator<Item = &PageFault> {
        [&self.front, &self.past_offer, &self.rebase, &self.entry, &self.back].into_iter().flatten()
    }

    /// Whether anybody's run met a fault and is to be run again.
    pub fn has_faults(&self) -> bool {
        self.faults().next().is_some()
    }

    /// Whether nothing is on its way, and nobody waits for anything.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty() && !self.has_faults()
    }

    /// Whether a run that is to be run again has had this page fetched.
    pub fn needs(&self, pgid: Pgid) -> bool {
        self.faults().any(|fault| fault.fetched.contains(&pgid))
    }

    /// How many pages [those](Self::needs) are at most.
    pub fn needed_max(&self) -> usize {
        self.faults().map(|fault| fault.fetched.len()).sum()
    }

    /// How many faults the run has met so far; `None` while its pages are on their way.
    pub fn faults_met(&mut self, who: For) -> Option<u32> {
        match self.fault(who) {
            Some(PageFault { request, kth, .. }) => {
                let (request, kth) = (*request, *kth);
                let has_come = |read: &Read| read.left.is_empty();
                self.under_way.get(&request).is_none_or(has_come).then_some(kth + 1)
            }
            None => Some(0),
        }
    }

    /// The run is over, or begins anew.
    pub fn forget_fault(&mut self, who: For) {
        *self.fault(who) = None;
    }

    /// Asks for the pages around the `kth` fault of a run. Says no if nothing of it can be had.
    pub fn fetch(
        &mut self,
        who: For,
        pgids: Vec<Pgid>,
        kth: u32,
        document: &DocumentKey,
        ctx: &mut Context<'_>,
    ) -> bool {
        if pgids.is_empty() {
            return false;
        }
        let urgency = match who {
            For::Front | For::PastOffer => Urgency::User,
            For::Rebase | For::Entry | For::Background => Urgency::Background,
        };
        let request = ctx.store.next_request();
        let earlier = self.fault(who).take().filter(|_| kth > 0);
        let mut fetched = earlier.map(|fault| fault.fetched).unwrap_or_default();
        fetched.extend(&pgids);
        *self.fault(who) = Some(PageFault { request, kth, fetched });
        let read = Read::new(urgency, pgids);
        ctx.store.ask(read.ask(request, document), ctx.out);
        self.under_way.insert(request, read);
        true
    }

    /// Pages by which a run with a fault goes as well: those that are in memory stay there.
    pub fn keep(&mut self, who: For, pgids: impl IntoIterator<Item = Pgid>) {
        if let Some(fault) = self.fault(who) {
            fault.fetched.extend(pgids);
        }
    }

    /// Pages that were asked for: those that are still what was asked for go into `view`.
    pub fn came(
        &mut self,
        request: RequestId,
        pages: Vec<(Pgid, Page)>,
        last: bool,
        view: Option<&View>,
    ) {
        let Some(read) = self.under_way.get_mut(&request) else { return };
        for (pgid, _) in &pages {
            read.left.remove(pgid);
        }
        if pages.iter().any(|(pgid, _)| read.stale.contains(pgid)) {
            reached(Probe::PageCameStale);
        }
        let fresh = pages.into_iter().filter(|(pgid, _)| !read.stale.contains(pgid));
        let fresh: Vec<(Pgid, Page)> = fresh.collect();
        if let Some(view) = view {
            // Whoever else asked for them need not wait until that is answered too.
            for other in self.under_way.values_mut() {
                fresh.iter().for_each(|(pgid, _)| _ = other.left.remove(pgid));
            }
            view.fill(fresh);
        }
        if last && let Some(read) = self.under_way.get(&request) {
            // Of a document of which something is lost the store may not have all of them.
            let left: Vec<Pgid> = read.left.iter().copied().collect();
            self.lost(request, &left);
        }
    }

    /// A read has ended, since these pages are damaged.
    pub fn damaged(&mut self, request: RequestId, pgids: &[Pgid]) {
        reached(Probe::PagesDamaged);
        self.lost(request, pgids);
    }

    /// A read has ended, and these pages cannot be had.
    fn lost(&mut self, request: RequestId, pgids: &[Pgid]) {
        // What was written since is whole, and what an earlier reading asked for is asked for anew.
        let Some(Read { stale, .. }) = self.under_way.remove(&request) else { return };
        self.damaged.extend(pgids.iter().filter(|pgid| !stale.contains(pgid)));
    }

    /// Nobody reads any more for this core.
    pub fn give_up(&mut self) {
        self.under_way.clear();
    }

    /// Why these pages cannot be had, if one of them is lost on this device.
    pub fn why_lost(&self, pgids: &[Pgid], store: &StoreLink) -> Option<CallFailure> {
        if store.is_over() {
            return Some(CallFailure::data_cleared());
        }
        let is_lost = pgids.iter().any(|pgid| self.damaged.contains(pgid));
        is_lost.then(CallFailure::damaged_copy)
    }

    /// These pages are written: what is on its way of them is old.
    pub fn written(&mut self, entry: &StorageEntry) {
        for read in self.under_way.values_mut() {
            read.stale.extend(entry.set.pages.keys());
        }
        self.damaged.retain(|pgid| !entry.set.pages.contains_key(pgid));
    }

    /// The page server does not take this read in before it has answered another one.
    pub fn refused(&mut self, request: RequestId) {
        if let Some(read) = self.under_way.get_mut(&request) {
            reached(Probe::ReadRefused);
            read.is_refused = true;
        }
    }

    /// The page server has answered another read: asks again for those that were refused.
    pub fn ask_refused_again(&mut self, document: &DocumentKey, ctx: &mut Context<'_>) {
        for (request, read) in self.under_way.iter_mut().filter(|(_, read)| read.is_refused) {
            read.is_refused = false;
            ctx.store.ask(read.ask(*request, document), ctx.out);
        }
    }

    /// Another page server is there: asks it for all that the last one has not answered.
    pub fn ask_all_again(&mut self, document: &DocumentKey, ctx: &mut Context<'_>) {
        for (request, read) in self.under_way.iter_mut() {
            reached(Probe::ReadAskedOfNext);
            read.is_refused = false;
            ctx.out.ask_store(read.ask(*request, document));
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_types::{JournalId, Lsn, LsnRange, PageSet, Position};

    use super::*;

    #[test]
    fn a_page_that_came_by_another_read_is_waited_for_no_longer() {
        let mut reads = Reads::default();
        reads.under_way.insert(RequestId(3), Read::new(Urgency::User, vec![Pgid(2)]));
        reads.under_way.insert(RequestId(4), Read::new(Urgency::Background, vec![Pgid(2)]));
        let fetched = BTreeSet::from([Pgid(2)]);
        reads.back = Some(PageFault { request: RequestId(4), kth: 0, fetched });
        assert_eq!(reads.faults_met(For::Background), None);
        let view = View::new(usize::MAX, 2);
        reads.came(RequestId(3), vec![(Pgid(2), Page::zeroed())], true, Some(&view));
        assert_eq!(reads.faults_met(For::Background), Some(1));
    }

    #[test]
    fn a_page_that_was_written_since_it_was_asked_for_is_not_lost() {
        let mut reads = Reads::default();
        let (urgency, pgids) = (Urgency::User, vec![Pgid(1), Pgid(2)]);
        reads.under_way.insert(RequestId(7), Read::new(urgency, pgids.clone()));
        let set = PageSet { db_pages: 2, pages: [(Pgid(1), Page::zeroed())].into_iter().collect() };
        let position = Position::start_of(JournalId([1; 16]));
        let range = LsnRange::one(Lsn::FIRST);
        reads.written(&StorageEntry { range, position, calls: Vec::new(), set });
        reads.damaged(RequestId(7), &pgids);
        let store = StoreLink::default();
        assert_eq!(reads.why_lost(&[Pgid(1)], &store), None);
        assert_eq!(reads.why_lost(&[Pgid(2)], &store), Some(CallFailure::damaged_copy()));
    }
}
