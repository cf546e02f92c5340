//! What a core says and asks, seen at its door: it calls nothing durable, or deleted, of which its
//! page server has not said so, hands the next page server all that the last one has not answered,
//! forgets no word of a tab's on whether a document is to be connected, and does not ask again and
//! again for what is refused.
//!
//! Whoever is told too early would otherwise be noticed only if the device lost its power in the
//! few milliseconds before the flush.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use tidelog_client::{
    Call, CallFailure, Effect, FromCore, Handle, Input, KeptRejections, Notice, PageServerId,
    Request, TabId, ToCore,
};
use tidelog_pages::{Append, StoreReply, StoreRequest, Ticket};
use tidelog_types::limits::Limits;
use tidelog_types::{CallId, DocumentKey, Epoch, Position};

use super::access::{AccessDoor, NO_ACCESS};
use super::core_notes::CoreNotes;
use super::deletions::Deletions;
use super::entries::Entries;
use super::greetings::Greetings;
use super::line::LineDoor;
use super::refusals::{Refusals, Stored};
use super::rejections::RejectionsDoor;
use super::runs::Runs;
use super::tries::Tries;

/// How often one document is made again within a second, at most, and refused, for which no tab has
/// asked meanwhile.
const REFUSED_MAX: usize = 4;

/// What has come in to a core, and to those before it.
pub(crate) struct CoreDoor {
    limits: Limits,
    page_server: Option<PageServerId>,
    /// The mutations that tabs have asked for.
    mutations: BTreeMap<(TabId, Call), CallId>,
    /// Those in each append that the page server has not answered.
    asked: BTreeMap<Ticket, (DocumentKey, Vec<CallId>)>,
    /// The same without those that follow one of their document that was refused.
    owed: BTreeMap<Ticket, Owed>,
    /// Those that the page server which has just let the core in was not handed again.
    to_hand_over: BTreeSet<Ticket>,
    /// The epoch in which the core was let in last.
    epoch: Epoch,
    refused: BTreeMap<DocumentKey, Refused>,
    /// The last append that it has made: what comes before is handed over again.
    newest: Option<Ticket>,
    /// Those that are on the disk, as far as the page server has said, or that may be.
    durable: BTreeSet<CallId>,
    lines: LineDoor,
    /// Of all cores that the device had.
    access: AccessDoor,
    notes: CoreNotes,
    rejections: RejectionsDoor,
    refusals: Refusals,
    deletions: Deletions,
    greetings: Greetings,
    tries: Tries,
    /// Whether the page server has let the core in.
    is_let_in: bool,
    /// Of all cores that the device had.
    entries: Entries,
    /// The handle that a tab opens, and the last word on connecting that it knows.
    opens: BTreeMap<(TabId, Call), (Handle, u64)>,
    /// The document of each handle.
    documents: BTreeMap<(TabId, Handle), String>,
    /// The last word of which each tab was told.
    words: BTreeMap<(TabId, Handle), u64>,
    /// What the page server was given to tell tabs in this step, with the first message of it.
    notices: Vec<Notice>,
    /// Tabs that the page server has a way to.
    reached: BTreeSet<TabId>,
    /// How often page servers were asked to delete a document.
    pub(crate) deletions_count: u64,
}

/// An append that the page server has not answered.
struct Owed {
    document: DocumentKey,
    /// Where its storage journal stands behind it, if it brings entries that are whole.
    position: Option<Position>,
    has_entries: bool,
}

/// What the page server has refused of a document.
#[derive(Default)]
struct Refused {
    /// When it refused what had been made after it refused the one before.
    times: VecDeque<u64>,
    /// The last append at that time.
    last: Option<Ticket>,
    /// What had been tried when something was durable last, of what tabs had asked for, and what
    /// was refused since faster than anything may be that nobody waits for.
    asked_count: u64,
}

impl CoreDoor {
    /// Of cores with these limits.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            page_server: None,
            mutations: BTreeMap::new(),
            asked: BTreeMap::new(),
            owed: BTreeMap::new(),
            to_hand_over: BTreeSet::new(),
            epoch: Epoch::default(),
            refused: BTreeMap::new(),
            newest: None,
            durable: BTreeSet::new(),
            limits,
            lines: LineDoor::new(limits, Runs::default()),
            access: AccessDoor::default(),
            notes: CoreNotes::default(),
            rejections: RejectionsDoor::default(),
            refusals: Refusals::default(),
            deletions: Deletions::default(),
            greetings: Greetings::default(),
            tries: Tries::default(),
            is_let_in: false,
            entries: Entries::default(),
            opens: BTreeMap::new(),
            documents: BTreeMap::new(),
            words: BTreeMap::new(),
            notices: Vec::new(),
            reached: BTreeSet::new(),
            deletions_count: 0,
        }
    }

    /// Another core begins: what the one before asked may have been carried out.
    pub(crate) fn core_is_new(&mut self) {
        self.page_server = None;
        self.lines = LineDoor::new(self.limits, mem::take(&mut self.lines.runs));
        self.access.core_is_new();
        self.notes = CoreNotes::default();
        self.rejections = RejectionsDoor::default();
        self.refusals = Refusals::default();
        self.deletions = Deletions::default();
        self.greetings = Greetings::default();
        self.tries = Tries::default();
        self.is_let_in = false;
        self.newest = None;
        self.mutations.clear();
        self.opens.clear();
        self.documents.clear();
        self.words.clear();
        self.notices.clear();
        self.reached.clear();
        self.refused.clear();
        self.owed.clear();
        self.to_hand_over.clear();
        self.epoch = Epoch::default();
        self.all_may_be_durable();
    }

    fn all_may_be_durable(&mut self) {
        let asked = mem::take(&mut self.asked).into_values();
        self.durable.extend(asked.flat_map(|(_, calls)| calls));
    }

    /// # Errors
    ///
    /// The core has not told what it had to tell before.
    pub(crate) fn comes(&mut self, input: &Input, now_ms: u64) -> Result<(), String> {
        let notices = mem::take(&mut self.notices);
        notices.iter().try_for_each(|notice| self.may_be_told(notice))?;
        let is_served = self.is_let_in && self.page_server.is_some();
        self.lines.are_forgotten();
        if let Some(ticket) = self.to_hand_over.pop_first() {
            return Err(format!("{ticket:?} was not handed to the next page server"));
        }
        if is_served {
            let is_on_its_way =
                |name: &str| self.owed.values().any(|it| it.document.to_string() == name);
            self.rejections.must_be_noted(is_on_its_way, now_ms)?;
        }
        match input {
            Input::FromTab { tab, messages } => {
                for message in messages {
                    if let ToCore::Destroy { call, document: Some(document), user, .. } = message {
                        let (document, user) = (document.clone(), user.clone());
                        self.deletions.is_asked(*tab, *call, DocumentKey { document, user });
                    }
                    let ToCore::Ask { call, handle, request } = message else { continue };
                    match request {
                        Request::Mutate(mutate) => {
                            self.mutations.insert((*tab, *call), mutate.id);
                            if let Some(document) = self.documents.get(&(*tab, *handle)) {
                                self.access.is_asked(mutate.id, document);
                            }
                        }
                        Request::Open(open) => {
                            self.documents.insert((*tab, *handle), open.document.clone());
                            self.opens.insert((*tab, *call), (*handle, open.word));
                        }
                        _ => {}
                    }
                }
            }
            Input::PageServerLent { server, .. } => {
                self.page_server = Some(*server);
                self.is_let_in = false;
                self.reached.clear();
            }
            Input::TabReached { tab, server } if self.page_server == Some(*server) => {
                self.reached.insert(*tab);
            }
            Input::FromPageServer { server, replies } => {
                for reply in replies {
                    // It may say in between that it is broken.
                    if self.page_server == Some(*server) {
                        self.is_answered(reply, now_ms)?;
                    }
                }
            }
            Input::FromServer { socket, bytes } => self.access.hears(*socket, bytes),
            Input::SocketClosed { socket } => self.access.ends(*socket),
            Input::PageServerGone { server } | Input::PageServerFailed { server, .. } => {
                self.page_server.take_if(|it| it == server);
            }
            _ => {}
        }
        self.greetings.comes(input, now_ms)?;
        self.tries.comes(input, now_ms);
        self.rejections.comes(input, is_served, now_ms)?;
        self.lines.comes(input)
    }

    /// How often this mutation may have been run again.
    pub(crate) fn may_run(&self, call: CallId) -> u64 {
        self.lines.runs.of(call)
    }

    fn is_answered(&mut self, reply: &StoreReply, now_ms: u64) -> Result<(), String> {
        match reply {
            StoreReply::Durable { ticket } => {
                self.deletions.are_durable(*ticket);
                self.access.are_durable(*ticket);
                let later = self.owed.split_off(&Ticket(ticket.0 + 1));
                let mut stored = Vec::new();
                for (ticket, owed) in mem::replace(&mut self.owed, later) {
                    let Owed { document, position, has_entries } = owed;
                    self.lines.stands_at(&document, position);
                    stored.push(Stored { ticket, document, has_entries });
                }
                let is_on_its_way =
                    |it: &DocumentKey| self.owed.values().any(|owed| owed.document == *it);
                self.refusals.are_stored(&stored, is_on_its_way, now_ms);
                let later = self.asked.split_off(&Ticket(ticket.0 + 1));
                let mut counted = BTreeSet::new();
                for (document, calls) in mem::replace(&mut self.asked, later).into_values() {
                    self.durable.extend(calls);
                    if !counted.insert(document.clone()) {
                        continue;
                    }
                    let name = document.to_string();
                    let refused = self.refused.entry(document).or_default();
                    // What tabs had asked for until now has had its turn to be refused.
                    let asked_count = self.lines.asked_count(&name) - refused.asked_count;
                    let asked_count = (asked_count as usize).min(refused.times.len());
                    refused.times.drain(..asked_count);
                    refused.asked_count = self.lines.tried_count(&name);
                }
            }
            StoreReply::AppendFailed { ticket, .. } => {
                self.deletions.has_failed(*ticket);
                if let Some((document, _)) = self.asked.remove(ticket) {
                    self.access.is_read_anew(&document);
                    let lost = self.owed.extract_if(*ticket.., |_, owed| owed.document == document);
                    let has_unwritten = self.lines.has_unwritten(&document);
                    let loses_entries =
                        lost.fold(has_unwritten, |any, (_, owed)| any | owed.has_entries);
                    let loses_entries = loses_entries && !self.lines.is_local(&document.document);
                    self.refusals.is_refused(&document, self.newest, loses_entries);
                    self.rejections.is_refused(&document.to_string(), now_ms);
                    self.lines.is_read_anew(&document.to_string());
                    return self.is_refused(document, *ticket, now_ms);
                }
            }
            // All that the store has is durable, of what an earlier one was asked too.
            StoreReply::Ready { epoch } => {
                self.is_let_in = true;
                self.rejections.is_let_in(*epoch <= self.epoch, now_ms);
                // Of another store it wants nothing.
                if *epoch > self.epoch {
                    self.epoch = *epoch;
                    self.to_hand_over = self.owed.keys().copied().collect();
                }
                self.all_may_be_durable();
            }
            StoreReply::Damaged { document, .. } => {
                self.rejections.is_given_up(&document.to_string());
            }
            StoreReply::Broken { .. } => {
                self.page_server = None;
                self.is_let_in = false;
                self.to_hand_over.clear();
            }
            StoreReply::Opened { document, state, .. } => {
                self.notes.is_opened(document, state.as_deref());
                self.access.is_opened(document, state.as_deref());
                self.entries.is_opened(document, state.as_deref());
                self.refusals.is_read(document);
                let kept = state.iter().find_map(|it| KeptRejections::of_record(&it.record));
                self.rejections.is_opened(&document.to_string(), kept.as_ref());
                let position = state.as_ref().and_then(|state| state.storage);
                self.lines.stands_at(document, position);
                self.lines.runs.opens(&document.to_string());
                let timeline = state.iter().flat_map(|state| &state.timeline);
                for frame in timeline.flat_map(|timeline| &timeline.frames) {
                    self.durable.insert(frame.call);
                    self.lines.runs.is_here(frame.call, &document.to_string());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What a disk refuses is not made again as fast as the disk answers.
    fn is_refused(
        &mut self,
        document: DocumentKey,
        ticket: Ticket,
        now_ms: u64,
    ) -> Result<(), String> {
        let asked_count = self.lines.asked_count(&document.to_string());
        let Refused { times, last, asked_count: before } =
            self.refused.entry(document).or_default();
        // What was under way already is refused with it.
        if last.is_some_and(|last| ticket <= last) {
            return Ok(());
        }
        *last = self.newest;
        times.push_back(now_ms);
        while times.front().is_some_and(|at| at + 1_000 <= now_ms) {
            times.pop_front();
        }
        // It may be for what a tab waits for, which had to wait for slower ones itself.
        if times.len() > REFUSED_MAX && *before < asked_count {
            *before += 1;
            times.pop_back();
        }
        match times.len() > REFUSED_MAX {
            true => Err(format!("{ticket:?} is the {}th refused within a second", times.len())),
            false => Ok(()),
        }
    }

    /// # Errors
    ///
    /// The core may not say so.
    pub(crate) fn leaves(&mut self, effect: &Effect) -> Result<(), String> {
        self.greetings.leaves(effect);
        self.tries.leaves(effect)?;
        self.lines.leaves(effect, |call| self.durable.contains(call))?;
        match effect {
            Effect::ToServer { socket, bytes } => self.access.says(*socket, bytes),
            Effect::CloseSocket { socket } => {
                self.access.ends(*socket);
                Ok(())
            }
            Effect::ToTab { tab, messages } => {
                for message in messages {
                    self.goes_on(*tab, message)?;
                    self.is_that_entry(*tab, message)?;
                    self.rejections.tells(*tab, message)?;
                    self.is_without_access(*tab, message)?;
                    if let FromCore::Done { call } = message {
                        self.deletions.may_be_done(*tab, *call)?;
                    }
                    if let FromCore::Failed { call, failure } = message {
                        self.deletions.may_have_failed(*tab, *call, failure)?;
                    }
                }
                self.must_be_durable(*tab, messages, |call| self.durable.contains(call))
            }
            Effect::ToPageServer { requests, notices, .. } => {
                // It may have failed by then, and would be told of with what is durable next.
                let is_late = |notice: &&Notice| self.asked.contains_key(&notice.ticket);
                if let Some(Notice { ticket, .. }) = notices.iter().find(is_late) {
                    return Err(format!("whom to tell of {ticket:?} comes behind that"));
                }
                for request in requests {
                    if let StoreRequest::Destroy { ticket, document } = request {
                        self.deletions_count += 1;
                        self.access.is_read_anew(document);
                        self.deletions.leaves(*ticket, document);
                        self.rejections.is_given_up(&document.to_string());
                    }
                    if let StoreRequest::Append { ticket, append } = request {
                        in_their_order(append)?;
                        let asked = (append.document.clone(), calls_of(append));
                        self.asked.insert(*ticket, asked);
                        let last = append.storage.last().filter(|_| !append.is_cut);
                        let position = last.map(|entry| entry.position);
                        let document = append.document.clone();
                        let has_entries = !append.storage.is_empty();
                        if has_entries {
                            self.lines.is_written(&document);
                        }
                        self.access.writes(*ticket, append);
                        self.owed.insert(*ticket, Owed { document, position, has_entries });
                        self.to_hand_over.remove(ticket);
                        if self.newest.is_none_or(|newest| newest < *ticket) {
                            self.newest = Some(*ticket);
                            self.writes_down(append)?;
                        }
                    }
                }
                self.notices.extend(notices.iter().cloned());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn writes_down(&mut self, append: &Append) -> Result<(), String> {
        let record = append.record.as_ref();
        let kept = record.and_then(|record| KeptRejections::of_record(record));
        self.notes.leaves(append, kept.as_ref(), &self.limits)?;
        self.entries.leaves(append);
        let Some(kept) = kept else { return Ok(()) };
        self.entries.may_be_kept(&kept)?;
        self.rejections.is_recorded(&append.document.to_string(), &kept)
    }

    /// A mutation is told to be an entry that it was written down as.
    fn is_that_entry(&self, tab: TabId, message: &FromCore) -> Result<(), String> {
        match message {
            FromCore::Rejected { call, entry, .. } => {
                let call = self.rejections.mutation(tab, *call);
                call.map_or(Ok(()), |call| self.entries.may_be(call, *entry))
            }
            FromCore::RejectionNews { id, lsn, .. } => self.entries.may_be_at(*id, *lsn),
            _ => Ok(()),
        }
    }

    fn is_without_access(&self, tab: TabId, message: &FromCore) -> Result<(), String> {
        let call = match message {
            FromCore::Rejected { call, failure, .. }
                if failure.reason.as_deref() == Some(NO_ACCESS) =>
            {
                self.rejections.mutation(tab, *call)
            }
            FromCore::RejectionNews { id, reason, .. } if reason == NO_ACCESS => Some(*id),
            _ => None,
        };
        call.map_or(Ok(()), |call| self.access.tells(call))
    }

    /// A tab is told of a rejection though it has enough to hear: the record has it no more.
    pub(crate) fn is_told_too_early(&mut self, tab: TabId, handle: Handle, call: CallId) {
        self.rejections.is_told_too_early(tab, handle, call);
    }

    /// Since when what a tab was told last of what is wrong with a document has been over, as far
    /// as this core can know.
    pub(crate) fn over_since(&self, document: &DocumentKey, failure: &CallFailure) -> Option<u64> {
        let is_served = self.is_let_in && self.page_server.is_some();
        is_served.then(|| self.refusals.over_since(document, failure)).flatten()
    }

    /// No word on connecting is taken back by one that was said before it.
    fn goes_on(&mut self, tab: TabId, message: &FromCore) -> Result<(), String> {
        let (handle, known, word) = match message {
            FromCore::Opened { call, memo, .. } => match self.opens.get(&(tab, *call)) {
                Some((handle, known)) => (*handle, *known, memo.word),
                None => return Ok(()),
            },
            FromCore::Status { handle, memo, .. } => (*handle, 0, memo.word),
            _ => return Ok(()),
        };
        let last = self.words.insert((tab, handle), word).unwrap_or(0).max(known);
        match last > word {
            true => Err(format!("{}: word {word} on connecting comes after {last}", tab.0)),
            false => Ok(()),
        }
    }

    /// What a page server tells a tab itself is so once the append is durable.
    fn may_be_told(&self, notice: &Notice) -> Result<(), String> {
        if !self.reached.contains(&notice.tab) {
            return Err(format!(
                "a page server has no way to tab {}, and is to tell it",
                notice.tab.0
            ));
        }
        let with_it = || self.asked.range(..=notice.ticket).flat_map(|(_, (_, calls))| calls);
        self.must_be_durable(notice.tab, &notice.messages, |call| {
            self.durable.contains(call) || with_it().any(|asked| asked == call)
        })
    }

    fn must_be_durable(
        &self,
        tab: TabId,
        messages: &[FromCore],
        is_durable: impl Fn(&CallId) -> bool,
    ) -> Result<(), String> {
        for message in messages {
            let FromCore::Durable { call, entry } = message else { continue };
            let mutation = self.mutations.get(&(tab, *call));
            if !mutation.is_some_and(&is_durable) {
                return Err(format!("a mutation is called durable, as {entry:?}, and is not"));
            }
        }
        Ok(())
    }
}

/// What goes to the disk at once is in the order in which the server has it.
fn in_their_order(append: &Append) -> Result<(), String> {
    let ranges = append.storage.iter().map(|entry| entry.range);
    let mut pairs = ranges.clone().zip(ranges.skip(1));
    match pairs.find(|(before, after)| before.end() != after.start()) {
        Some((before, after)) => Err(format!("the page server is given {after} after {before}")),
        None => Ok(()),
    }
}

fn calls_of(append: &Append) -> Vec<CallId> {
    let here = append.storage.iter().flat_map(|entry| entry.calls.iter().map(|(call, _)| *call));
    append.timeline.iter().map(|frame| frame.call).chain(here).collect()
}
