//! What a core says and asks, seen at its door: it calls nothing durable of which its page server
//! has not said so, and forgets no word of a tab's on whether a document is to be connected.
//!
//! Whoever is told too early would otherwise be noticed only if the device lost its power in the
//! few milliseconds before the flush.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{
    Call, Effect, FromCore, Handle, Input, Notice, PageServerId, Request, TabId, ToCore,
};
use tidelog_pages::{Append, StoreReply, StoreRequest, Ticket};
use tidelog_types::CallId;
use tidelog_types::limits::Limits;

use super::core_notes::CoreNotes;
use super::line::LineDoor;

/// What has come in to a core, and to those before it.
pub(crate) struct CoreDoor {
    limits: Limits,
    page_server: Option<PageServerId>,
    /// The mutations that tabs have asked for.
    mutations: BTreeMap<(TabId, Call), CallId>,
    /// Those in each append that the page server has not answered.
    asked: BTreeMap<Ticket, Vec<CallId>>,
    /// The last append that it has made: what comes before is handed over again.
    newest: Option<Ticket>,
    /// Those that are on the disk, as far as the page server has said, or that may be.
    durable: BTreeSet<CallId>,
    lines: LineDoor,
    notes: CoreNotes,
    /// The handle that a tab opens, and the last word on connecting that it knows.
    opens: BTreeMap<(TabId, Call), (Handle, u64)>,
    /// The last word of which each tab was told.
    words: BTreeMap<(TabId, Handle), u64>,
}

impl CoreDoor {
    /// Of cores with these limits.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            page_server: None,
            mutations: BTreeMap::new(),
            asked: BTreeMap::new(),
            newest: None,
            durable: BTreeSet::new(),
            limits,
            lines: LineDoor::new(limits),
            notes: CoreNotes::default(),
            opens: BTreeMap::new(),
            words: BTreeMap::new(),
        }
    }

    /// Another core begins: what the one before asked may have been carried out.
    pub(crate) fn core_is_new(&mut self) {
        self.page_server = None;
        self.lines = LineDoor::new(self.limits);
        self.notes = CoreNotes::default();
        self.newest = None;
        self.mutations.clear();
        self.opens.clear();
        self.words.clear();
        self.durable.extend(std::mem::take(&mut self.asked).into_values().flatten());
    }

    /// # Errors
    ///
    /// The core has not told what it had to tell before.
    pub(crate) fn comes(&mut self, input: &Input) -> Result<(), String> {
        match input {
            Input::FromTab { tab, messages } => {
                for message in messages {
                    let ToCore::Ask { call, handle, request } = message else { continue };
                    match request {
                        Request::Mutate(mutate) => {
                            self.mutations.insert((*tab, *call), mutate.id);
                        }
                        Request::Open(open) => {
                            self.opens.insert((*tab, *call), (*handle, open.word));
                        }
                        _ => {}
                    }
                }
            }
            Input::PageServerLent { server, .. } => self.page_server = Some(*server),
            Input::FromPageServer { server, replies } if self.page_server == Some(*server) => {
                replies.iter().for_each(|reply| self.is_answered(reply));
            }
            _ => {}
        }
        self.lines.comes(input)
    }

    fn is_answered(&mut self, reply: &StoreReply) {
        match reply {
            StoreReply::Durable { ticket } => {
                let later = self.asked.split_off(&Ticket(ticket.0 + 1));
                let durable = std::mem::replace(&mut self.asked, later);
                self.durable.extend(durable.into_values().flatten());
            }
            StoreReply::AppendFailed { ticket, .. } => {
                self.asked.remove(ticket);
            }
            // All that the store has is durable, of what an earlier one was asked too.
            StoreReply::Ready { .. } => {
                self.durable.extend(std::mem::take(&mut self.asked).into_values().flatten());
            }
            StoreReply::Opened { document, state, .. } => {
                self.notes.is_opened(document, state.as_deref());
                let timeline = state.iter().flat_map(|state| &state.timeline);
                let frames = timeline.flat_map(|timeline| &timeline.frames);
                self.durable.extend(frames.map(|frame| frame.call));
            }
            _ => {}
        }
    }

    /// # Errors
    ///
    /// The core may not say so.
    pub(crate) fn leaves(&mut self, effect: &Effect) -> Result<(), String> {
        self.lines.leaves(effect, |call| self.durable.contains(call))?;
        match effect {
            Effect::ToTab { tab, messages } => {
                messages.iter().try_for_each(|message| self.goes_on(*tab, message))?;
                self.must_be_durable(*tab, messages, |call| self.durable.contains(call))
            }
            Effect::ToPageServer { requests, notices, .. } => {
                for request in requests {
                    if let StoreRequest::Append { ticket, append } = request {
                        self.asked.insert(*ticket, calls_of(append));
                        if self.newest.is_none_or(|newest| newest < *ticket) {
                            self.newest = Some(*ticket);
                            self.notes.leaves(append, &self.limits)?;
                        }
                    }
                }
                notices.iter().try_for_each(|notice| self.may_be_told(notice))
            }
            _ => Ok(()),
        }
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
        let with_it = || self.asked.range(..=notice.ticket).flat_map(|(_, calls)| calls);
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

fn calls_of(append: &Append) -> Vec<CallId> {
    let here = append.storage.iter().flat_map(|entry| entry.calls.iter().map(|(call, _)| *call));
    append.timeline.iter().map(|frame| frame.call).chain(here).collect()
}
