//! What a page server is asked and what it answers, seen at its door.
//!
//! Each request is answered once and in its turn, and nobody hears of what he did not ask; an error
//! says what is so; what is read is the newest that was appended before. Of a store at rest nothing
//! is left to be answered. Owners make up for most of what would go wrong here: they ask again, or
//! open the store anew, or had not noticed anyway.

mod known;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidelog_disk::CrashDevice;
use tidelog_pages::{Append, AppendError, OwnerId, RequestId, StoreReply, StoreRequest, Ticket};
use tidelog_types::limits::Limits;
use tidelog_types::{DocumentKey, Epoch, JournalId, Lsn, Page, Pgid};

use known::Known;

pub use known::Stand;

/// What has come in to a page server, and is to be answered.
pub struct Door {
    device: CrashDevice,
    limits: Limits,
    /// Whether something of its files is not what was written.
    may_be_damaged: bool,
    /// Whether a call of the device may have failed, though there was room.
    has_failed: bool,
    /// Whether there may have been no room on it.
    was_full: bool,
    owners: BTreeMap<OwnerId, Asked>,
    /// Those who went away.
    gone: BTreeSet<OwnerId>,
    /// Who holds the store, if somebody said hello.
    holder: Option<OwnerId>,
    epoch: Epoch,
    /// Where documents stand, of those that their owners know.
    documents: BTreeMap<DocumentKey, Known>,
    /// When something was asked last by which they change.
    touched: BTreeMap<DocumentKey, u64>,
    /// Those of which something has become durable.
    durable: BTreeSet<DocumentKey>,
    /// Requests so far.
    turn: u64,
    is_broken: bool,
}

/// What one owner has asked.
#[derive(Default)]
struct Asked {
    /// The epoch that it held last, each time that it said hello.
    hellos: VecDeque<Epoch>,
    /// Requests that come from one who does not hold the store any more.
    fenced: usize,
    opens: Vec<Open>,
    lists: Vec<RequestId>,
    reads: Vec<Read>,
    appends: BTreeMap<Ticket, Appended>,
    /// Pages that were sent ahead of an append.
    staged: Vec<(Ticket, u32, Pgid, Page)>,
    /// Documents of which it appended what failed, and that it has not opened since: nothing is
    /// read of them for it.
    failed: BTreeSet<DocumentKey>,
    /// What it was told last is durable.
    durable: Option<Ticket>,
    /// How many reads were to be answered before the replies at hand, and how many pages they had
    /// asked for, if that is known.
    crowd: (usize, Option<usize>),
}

impl Asked {
    /// Whether nothing waits for an answer, nor for the append that it was sent ahead of.
    fn is_answered(&self) -> bool {
        let Self { hellos, opens, lists, reads, appends, staged, .. } = self;
        let has_asked = !(hellos.is_empty() && opens.is_empty() && lists.is_empty());
        let has_work = !(reads.is_empty() && appends.is_empty() && staged.is_empty());
        !has_asked && !has_work
    }

    fn note_crowd(&mut self) {
        let of = |read: &Read| read.wanted.as_ref().map(BTreeSet::len);
        // What an opening reads, a long timeline, is not known here.
        let pages = self.reads.iter().map(of).sum::<Option<usize>>();
        let pages = pages.filter(|_| self.opens.is_empty());
        self.crowd = (self.reads.len() + self.opens.len(), pages);
    }
}

struct Appended {
    names: Vec<DocumentKey>,
    turn: u64,
    is_fenced: bool,
    /// Whether something else was to be answered as it came.
    is_behind: bool,
    /// Whether it deletes the document.
    destroys: bool,
}

struct Open {
    document: DocumentKey,
    turn: u64,
    /// What has to be found, if that is known.
    stand: Option<Stand>,
    may_be_dropped: bool,
}

struct Read {
    request: RequestId,
    document: DocumentKey,
    turn: u64,
    kind: Kind,
    /// Pages that may come, and have not.
    wanted: Option<BTreeSet<Pgid>>,
    /// What is known of them: `None` if there is no such page.
    known: BTreeMap<Pgid, Option<Page>>,
    /// The last page that came.
    last: Option<Pgid>,
    /// Whether nobody may wait for it any more.
    may_be_dropped: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Pages,
    PagesAt,
    Sync { journal: JournalId, since: Lsn, stand: Option<(JournalId, Lsn)> },
    Entries,
}

impl Door {
    pub fn new(device: &CrashDevice, limits: Limits, may_be_damaged: bool) -> Self {
        Self {
            device: device.clone(),
            limits,
            may_be_damaged,
            has_failed: false,
            was_full: false,
            owners: BTreeMap::new(),
            gone: BTreeSet::new(),
            holder: None,
            epoch: Epoch(0),
            documents: BTreeMap::new(),
            touched: BTreeMap::new(),
            durable: BTreeSet::new(),
            turn: 0,
            is_broken: false,
        }
    }

    /// A document of which something has become durable since this was asked last, and nothing is
    /// outstanding, and how it has to be found on the disk.
    pub fn take_durable(&mut self) -> Option<(DocumentKey, Stand)> {
        let durable = std::mem::take(&mut self.durable);
        durable.into_iter().find_map(|name| self.stand(&name).map(|stand| (name, stand)))
    }

    /// What is known of a document that nothing is outstanding of, which is what the disk has.
    fn stand(&self, document: &DocumentKey) -> Option<Stand> {
        let mut appends = self.owners.values().flat_map(|asked| asked.appends.values());
        let is_still = !appends.any(|append| append.names.contains(document));
        let known = self.documents.get(document).filter(|_| is_still && !self.has_failed);
        known.map(Known::stand)
    }

    fn look_at_device(&mut self) {
        self.has_failed |= self.device.may_fail();
        self.was_full |= self.device.may_be_full();
    }

    /// The owner asks.
    pub fn comes(&mut self, owner: OwnerId, request: &StoreRequest) {
        self.look_at_device();
        self.turn += 1;
        let turn = self.turn;
        if let StoreRequest::Hello { .. } = request
            && self.holder.is_none_or(|holder| holder <= owner)
        {
            self.holder = Some(owner);
            // Nobody waits any more for what an earlier owner has begun.
            for (_, other) in self.owners.iter_mut().filter(|(other, _)| **other != owner) {
                other.reads.iter_mut().for_each(|read| read.may_be_dropped = true);
                other.opens.iter_mut().for_each(|open| open.may_be_dropped = true);
            }
            self.documents.clear();
        }
        let is_fenced = self.holder.is_some_and(|holder| holder != owner);
        let is_behind = !self.owners.values().all(Asked::is_answered);
        let asked = self.owners.entry(owner).or_default();
        match request {
            StoreRequest::Append { ticket, append } => {
                let (mut append, names) = (append.clone(), names_of(append));
                for (_, entry, pgid, page) in asked.staged.drain(..).filter(|it| it.0 == *ticket) {
                    if let Some(entry) = append.storage.get_mut(entry as usize) {
                        entry.set.pages.insert(pgid, page);
                    }
                }
                self.touched.extend(names.iter().map(|name| (name.clone(), turn)));
                let is_behind = is_behind || names.iter().any(|name| asked.failed.contains(name));
                let (names_asked, destroys) = (names.clone(), false);
                let before = Appended { names: names_asked, turn, is_fenced, is_behind, destroys };
                asked.appends.insert(*ticket, before);
                if !is_fenced {
                    self.appended(owner, names, append);
                }
            }
            StoreRequest::Destroy { ticket, document } => {
                let names = vec![document.clone()];
                let is_behind = is_behind || asked.failed.contains(document);
                let before = Appended { names, turn, is_fenced, is_behind, destroys: true };
                asked.appends.insert(*ticket, before);
                self.documents.remove(document);
                self.touched.insert(document.clone(), turn);
            }
            _ if is_fenced => asked.fenced += 1,
            StoreRequest::Hello { epoch, .. } => asked.hellos.push_back(*epoch),
            StoreRequest::Stage { ticket, pages } => {
                let staged = pages.iter().map(|it| (*ticket, it.entry, it.pgid, it.page.clone()));
                asked.staged.extend(staged);
            }
            StoreRequest::List { request } => asked.lists.push(*request),
            StoreRequest::Open { document } => {
                let stand = self.documents.get(document).map(Known::stand);
                asked.failed.remove(document);
                let (document, may_be_dropped) = (document.clone(), false);
                asked.opens.push(Open { document, turn, stand, may_be_dropped });
            }
            _ => {
                let Some(mut read) = read_of(request, turn, &self.documents) else { return };
                read.may_be_dropped = asked.failed.contains(&read.document);
                asked.reads.push(read);
            }
        }
    }

    /// Whoever appends knows where the document stands.
    fn appended(&mut self, owner: OwnerId, names: Vec<DocumentKey>, append: Append) {
        let known = self.documents.get_mut(&append.document);
        let goes_on = append.take_name.is_none()
            && known.is_some_and(|known| known.owner == owner && known.append(append));
        if !goes_on {
            names.iter().for_each(|name| drop(self.documents.remove(name)));
        }
    }

    /// The owner goes away, and hears nothing any more.
    pub fn forgets(&mut self, owner: OwnerId) {
        self.owners.remove(&owner);
        self.gone.insert(owner);
    }

    /// What came of a poll.
    ///
    /// # Errors
    ///
    /// That may not be said.
    pub fn leaves(
        &mut self,
        replies: &[(OwnerId, StoreReply)],
        is_broken: bool,
    ) -> Result<(), String> {
        self.look_at_device();
        let mut pages_count = 0;
        self.owners.values_mut().for_each(Asked::note_crowd);
        for (owner, reply) in replies {
            let about = |what| format!("owner {} is answered {}: {what}", owner.0, name_of(reply));
            if let StoreReply::Pages { pages, .. } | StoreReply::SyncPart { pages, .. } = reply {
                pages_count += pages.len();
            }
            self.leaves_one(*owner, reply).map_err(about)?;
        }
        // One turn, and what fits into a slice beside it.
        let chunk = self.limits.read_chunk_pages as u64;
        if pages_count as u64 > 2 * chunk + self.limits.slice.pages {
            return Err(format!("{pages_count} pages are read at once, of {chunk} that may be"));
        }
        if is_broken && !self.is_broken {
            self.is_broken = true;
            if !self.has_failed && !self.was_full && !self.may_be_damaged {
                return Err("a store on a sound device cannot go on".to_owned());
            }
            // Each who waits is told so.
            return self.is_all_answered();
        }
        Ok(())
    }

    /// Nothing is left to do, and nobody else has to do anything first.
    ///
    /// # Errors
    ///
    /// Something was not answered.
    pub fn rests(&self) -> Result<(), String> {
        if self.is_broken { Ok(()) } else { self.is_all_answered() }
    }

    fn is_all_answered(&self) -> Result<(), String> {
        for (owner, asked) in &self.owners {
            let opens = asked.opens.iter().filter(|open| !open.may_be_dropped);
            let opens = opens.map(|open| format!("the opening of {}", open.document));
            let reads = asked.reads.iter().filter(|read| !read.may_be_dropped);
            let reads = reads.map(|read| format!("read {} of {}", read.request.0, read.document));
            let lists = asked.lists.iter().map(|request| format!("list {}", request.0));
            let appends = asked.appends.keys().map(|ticket| format!("append {}", ticket.0));
            let mut left: Vec<String> = opens.chain(reads).chain(lists).chain(appends).collect();
            left.extend((!asked.hellos.is_empty()).then(|| "its hello".to_owned()));
            if !left.is_empty() {
                return Err(format!("owner {} was never answered: {}", owner.0, left.join(", ")));
            }
        }
        Ok(())
    }

    fn leaves_one(&mut self, owner: OwnerId, reply: &StoreReply) -> Result<(), String> {
        if self.gone.contains(&owner) {
            return Err("it went away".to_owned());
        }
        if self.is_broken && !matches!(reply, StoreReply::Broken { .. }) {
            return Err("the store was broken before".to_owned());
        }
        let asked = self.owners.get_mut(&owner).ok_or("it has asked for nothing")?;
        match reply {
            StoreReply::Ready { epoch } => {
                let held = asked.hellos.pop_front().ok_or("it said no hello")?;
                // A store that nobody ever held does not take in who has held another one.
                let is_taken_in = self.epoch > Epoch(0) || held == Epoch(0) || *epoch != held;
                if is_taken_in && *epoch <= self.epoch {
                    return Err(format!("{epoch} after {}", self.epoch));
                }
                if is_taken_in {
                    self.epoch = *epoch;
                }
                for (_, other) in self.owners.iter_mut().filter(|(other, _)| **other < owner) {
                    other.reads.retain(|read| !read.may_be_dropped);
                    other.opens.retain(|open| !open.may_be_dropped);
                }
                Ok(())
            }
            StoreReply::Durable { ticket } => {
                if asked.durable >= Some(*ticket) {
                    return Err(format!("{ticket:?} after {:?}", asked.durable));
                }
                asked.durable = Some(*ticket);
                let later = asked.appends.split_off(&Ticket(ticket.0 + 1));
                let durable = std::mem::replace(&mut asked.appends, later);
                if !durable.contains_key(ticket) || durable.values().any(|it| it.is_fenced) {
                    return Err(format!("{ticket:?} is no append that it waits for"));
                }
                durable.into_values().for_each(|append| self.is_durable(owner, append));
                Ok(())
            }
            StoreReply::AppendFailed { ticket, error } => {
                let appended = asked.appends.remove(ticket).ok_or("it was answered before")?;
                self.fails(owner, &appended, error)
            }
            StoreReply::Documents { request, documents } => {
                let place = asked.lists.iter().position(|it| it == request);
                asked.lists.remove(place.ok_or("it asked for no list")?);
                let is_sorted = documents.is_sorted_by(|one, next| one < next);
                is_sorted.then_some(()).ok_or("in no order".to_owned())
            }
            StoreReply::Opened { document, state, .. } => {
                let place = asked.opens.iter().position(|open| open.document == *document);
                let Open { turn, stand, .. } =
                    asked.opens.remove(place.ok_or("it has not opened that")?);
                let found = Known::of(owner, state.as_deref());
                if let Some(stand) = stand.filter(|_| !self.has_failed)
                    && stand != found.stand()
                {
                    return Err(format!("{document} stands at {stand:?}, not {:?}", found.stand()));
                }
                // Of what was appended meanwhile it says nothing.
                let is_latest = self.touched.get(document).is_none_or(|last| *last < turn);
                let is_incomplete = state.as_ref().is_some_and(|state| state.is_incomplete);
                if is_latest && !is_incomplete {
                    let known = self.documents.entry(document.clone()).or_insert(found);
                    known.owner = owner;
                }
                Ok(())
            }
            StoreReply::Damaged { request: RequestId::OPENING, document, .. }
                if asked.opens.iter().any(|open| open.document == *document) =>
            {
                let place = asked.opens.iter().position(|open| open.document == *document);
                asked.opens.remove(place.ok_or("it has not opened that")?);
                self.is_damaged()
            }
            StoreReply::Broken { error } => self.breaks(owner, error),
            reply => self.reads(owner, reply),
        }
    }

    fn is_durable(&mut self, owner: OwnerId, append: Appended) {
        for name in append.names {
            // Nobody has begun it anew behind that.
            if append.destroys && self.touched.get(&name) == Some(&append.turn) {
                self.documents.insert(name.clone(), Known::of(owner, None));
            }
            self.durable.insert(name);
        }
    }

    fn is_damaged(&self) -> Result<(), String> {
        let is_sound = !self.may_be_damaged && !self.has_failed;
        if is_sound { Err("on a sound device".to_owned()) } else { Ok(()) }
    }

    fn breaks(&mut self, owner: OwnerId, error: &AppendError) -> Result<(), String> {
        let asked = self.owners.get_mut(&owner).ok_or("it has asked for nothing")?;
        if matches!(error, AppendError::Fenced { .. }) {
            asked.fenced = asked.fenced.checked_sub(1).ok_or("it holds the store")?;
            return Ok(());
        }
        let is_so = match error {
            AppendError::Full => self.was_full,
            _ => self.has_failed || self.may_be_damaged,
        };
        if !is_so {
            return Err(format!("{error} on a sound device"));
        }
        *asked = Asked::default();
        Ok(())
    }

    /// An append of these names left nothing.
    fn fails(
        &mut self,
        owner: OwnerId,
        appended: &Appended,
        error: &AppendError,
    ) -> Result<(), String> {
        let is_so = match error {
            AppendError::Fenced { .. } => appended.is_fenced,
            AppendError::Full => self.was_full,
            AppendError::Device { .. } => self.has_failed,
            AppendError::Busy => appended.is_behind,
            AppendError::Damaged => self.may_be_damaged,
            AppendError::OutOfPlace { .. } | AppendError::EntryTooLarge { .. } => {
                self.has_failed || self.was_full
            }
            _ => true,
        };
        if !is_so || appended.is_fenced != matches!(error, AppendError::Fenced { .. }) {
            return Err(format!("{error}, which is not so"));
        }
        let asked = self.owners.entry(owner).or_default();
        for name in &appended.names {
            self.documents.remove(name);
            let reopened = asked.opens.iter().filter(|open| open.document == *name);
            let reopened = reopened.map(|open| open.turn).filter(|turn| *turn > appended.turn);
            let reopened = reopened.min().unwrap_or(u64::MAX);
            if reopened == u64::MAX {
                asked.failed.insert(name.clone());
            }
            for open in asked.opens.iter_mut().filter(|open| open.document == *name) {
                open.stand = None;
            }
            for read in asked.reads.iter_mut().filter(|read| read.document == *name) {
                read.may_be_dropped |= read.turn < reopened;
                read.known.clear();
            }
        }
        Ok(())
    }

    /// A part of what was read, or why there is none.
    fn reads(&mut self, owner: OwnerId, reply: &StoreReply) -> Result<(), String> {
        let (StoreReply::Pages { request, document, .. }
        | StoreReply::SyncPart { request, document, .. }
        | StoreReply::Unrelated { request, document, .. }
        | StoreReply::Entries { request, document, .. }
        | StoreReply::Frames { request, document, .. }
        | StoreReply::Trimmed { request, document, .. }
        | StoreReply::Damaged { request, document, .. }
        | StoreReply::Busy { request, document }) = reply
        else {
            unreachable!("BUG: told apart before");
        };
        let (has_failed, damaged) = (self.has_failed, self.is_damaged());
        let asked = self.owners.get_mut(&owner).ok_or("it has asked for nothing")?;
        let is_it = |read: &Read| read.request == *request && read.document == *document;
        let Some(place) = asked.reads.iter().position(is_it) else {
            // One that was fenced off may be told that first.
            let is_busy = matches!(reply, StoreReply::Busy { .. });
            asked.fenced = asked.fenced.checked_sub(usize::from(is_busy)).ok_or("unasked")?;
            return if is_busy { Ok(()) } else { Err("it did not ask for that".to_owned()) };
        };
        let read = &mut asked.reads[place];
        let is_last = match (reply, read.kind) {
            (StoreReply::Pages { pages, last, .. }, Kind::Pages | Kind::PagesAt) => {
                read.come(pages, has_failed)?;
                if *last && !has_failed {
                    read.must_be_whole(None)?;
                }
                *last
            }
            (
                StoreReply::SyncPart { pages, last, position, next, .. },
                Kind::Sync { journal, since, stand },
            ) => {
                read.come(pages, has_failed)?;
                let is_there = stand.is_none_or(|it| it == (position.journal, position.next));
                if position.journal != journal || position.next < since {
                    return Err(format!("{position}, asked from {since} of {journal:?}"));
                }
                if !has_failed && !is_there {
                    return Err(format!("{position}, and it stood at {stand:?}"));
                }
                if *last && !has_failed {
                    read.must_be_whole(*next)?;
                }
                *last
            }
            (StoreReply::Unrelated { position, .. }, Kind::Sync { journal, since, stand }) => {
                let told = position.map(|it| (it.journal, it.next));
                let is_wrong = stand.is_some_and(|it| Some(it) != told);
                let is_related = told.is_some_and(|(id, next)| id == journal && since <= next);
                if (is_wrong && !has_failed) || is_related {
                    return Err(format!("it stands at {told:?}, and stood at {stand:?}"));
                }
                true
            }
            (StoreReply::Entries { last, .. } | StoreReply::Frames { last, .. }, Kind::Entries) => {
                *last
            }
            (StoreReply::Trimmed { .. }, Kind::Entries | Kind::PagesAt) => true,
            (StoreReply::Damaged { .. }, _) => {
                damaged?;
                true
            }
            (StoreReply::Busy { .. }, _) => {
                let (count, pages) = asked.crowd;
                let others = count - 1;
                let is_full = pages.is_none_or(|pages| pages > self.limits.owner_read_pages_max);
                if others == 0 || (others < self.limits.owner_reads_max && !is_full) {
                    return Err(format!("only {others} others wait, of {pages:?} pages"));
                }
                true
            }
            _ => return Err("it asked for something else".to_owned()),
        };
        if is_last {
            asked.reads.remove(place);
        }
        Ok(())
    }
}

impl Read {
    /// Pages come, each one that is wanted, once, in their order.
    fn come(&mut self, pages: &[(Pgid, Page)], has_failed: bool) -> Result<(), String> {
        for (pgid, page) in pages {
            let is_wanted = self.wanted.as_mut().is_none_or(|wanted| wanted.remove(pgid));
            if !is_wanted || self.last >= Some(*pgid) {
                return Err(format!("page {pgid} was not asked for, or has come"));
            }
            self.last = Some(*pgid);
            match self.known.remove(pgid) {
                Some(newest) if newest.as_ref() != Some(page) && !has_failed => {
                    return Err(format!("page {pgid} of {} is not the newest", self.document));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// All that is there has come, as far as the page that is next.
    fn must_be_whole(&self, next: Option<Pgid>) -> Result<(), String> {
        let mut left = self.known.iter().filter(|(_, page)| page.is_some());
        match left.find(|(pgid, _)| next.is_none_or(|next| **pgid < next)) {
            Some((pgid, _)) => Err(format!("page {pgid} of {} is left out", self.document)),
            None => Ok(()),
        }
    }
}

fn read_of(
    request: &StoreRequest,
    turn: u64,
    documents: &BTreeMap<DocumentKey, Known>,
) -> Option<Read> {
    let (number, document, kind) = match request {
        StoreRequest::Read { request, document, .. } => (*request, document, Kind::Pages),
        StoreRequest::ReadAt { request, document, .. } => (*request, document, Kind::PagesAt),
        StoreRequest::Entries { request, document, .. } => (*request, document, Kind::Entries),
        StoreRequest::SyncPrepare { request, document, journal, since, .. } => {
            let stand = documents.get(document).and_then(Known::storage);
            let kind = Kind::Sync { journal: *journal, since: *since, stand };
            (*request, document, kind)
        }
        _ => return None,
    };
    let mut wanted = None;
    let mut known = BTreeMap::new();
    match request {
        StoreRequest::Read { pgids, .. } => {
            wanted = Some(pgids.iter().copied().collect());
            if let Some(document) = documents.get(document) {
                let of = |pgid: &Pgid| document.page(*pgid).map(|page| (*pgid, page));
                known = pgids.iter().filter_map(of).collect();
            }
        }
        StoreRequest::ReadAt { pgids, .. } => wanted = Some(pgids.iter().copied().collect()),
        StoreRequest::SyncPrepare { since, from, .. } => {
            if let Some(document) = documents.get(document) {
                known = document.since(*since, *from).collect();
            }
        }
        _ => {}
    }
    let document = document.clone();
    Some(Read {
        request: number,
        document,
        turn,
        kind,
        wanted,
        known,
        last: None,
        may_be_dropped: false,
    })
}

fn names_of(append: &Append) -> Vec<DocumentKey> {
    [&append.document].into_iter().chain(&append.take_name).cloned().collect()
}

fn name_of(reply: &StoreReply) -> String {
    format!("{reply:?}").chars().take_while(|it| it.is_alphanumeric()).collect()
}
