//! What a core tells of rejections, seen at its door: each listener of each once, and before the
//! record of the document has it no more. What a listener has dealt with is written down at once.
//!
//! What no record has any more is told nobody again: it is missed by none but those who were held
//! up as it was forgotten.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{Call, FromCore, Handle, Input, KeptRejections, Request, TabId, ToCore};
use tidelog_types::CallId;

use super::name_of;
use super::refusals::WRITTEN_AGAIN_MS;

type Holder = (TabId, Handle);

/// Milliseconds in which it is written down that a listener has dealt with a rejection, while the
/// disk has answered all that was asked for its document.
const NOTED_MS: u64 = 1_000;

/// What one core has told of rejections.
#[derive(Default)]
pub(super) struct RejectionsDoor {
    /// The document of each handle that tabs have named, and the handles that they hold.
    documents: BTreeMap<Holder, String>,
    opens: BTreeMap<(TabId, Call), Handle>,
    held: BTreeSet<Holder>,
    mutations: BTreeMap<(TabId, Call), (CallId, String)>,
    /// What each listener was told since it listens.
    told: BTreeMap<Holder, BTreeSet<CallId>>,
    /// Those that have begun to listen while there was no page server: records that were made
    /// before leave once there is one, and may have what was forgotten in between.
    listens_unserved: BTreeSet<Holder>,
    /// What was rejected while there was none: a record that was made before it lacks that.
    rejected_unserved: BTreeSet<CallId>,
    is_served: bool,
    /// For which a listener has returned, to this core or as the disk knows.
    handled: BTreeSet<CallId>,
    /// Of each document the rejections that are known, with the listeners that were not told.
    untold: BTreeMap<String, BTreeMap<CallId, BTreeSet<Holder>>>,
    /// Those that were told a tab which had enough to hear, since the record forgets them.
    forgotten: BTreeMap<String, BTreeSet<CallId>>,
    /// What the last record of each document has, which left while the core was telling more. One
    /// before it may lack what was rejected since, and it has nothing that that one has forgotten.
    records: BTreeMap<String, BTreeSet<CallId>>,
    /// Those that the last record of each document has as not dealt with, and when a listener has
    /// dealt with some of them.
    open: BTreeMap<String, BTreeSet<CallId>>,
    unnoted: BTreeMap<(String, CallId), u64>,
    /// When the store last refused what each document was to write. It writes nothing of itself for
    /// a while then.
    refused_ms: BTreeMap<String, u64>,
    /// Whether there is no disk any more that would keep anything.
    is_lost: bool,
}

impl RejectionsDoor {
    /// Something else comes in: what had to be told of what came before was told. Before it there
    /// was a page server that took what the core writes down, or not.
    ///
    /// # Errors
    ///
    /// It was not.
    pub(super) fn comes(
        &mut self,
        input: &Input,
        was_served: bool,
        now_ms: u64,
    ) -> Result<(), String> {
        for (document, kept) in std::mem::take(&mut self.records) {
            self.must_be_told(&document, &kept)?;
        }
        if was_served {
            self.listens_unserved.clear();
            self.rejected_unserved.clear();
        }
        self.is_served = was_served;
        match input {
            Input::FromTab { tab, messages } => {
                for message in messages {
                    self.asks(*tab, message, now_ms);
                    if let ToCore::ListenRejections { handle } = message
                        && !was_served
                    {
                        self.listens_unserved.insert((*tab, *handle));
                    }
                }
            }
            Input::TabClosed { tab } => {
                self.held.retain(|(holder, _)| holder != tab);
                self.told.retain(|(holder, _), _| holder != tab);
            }
            _ => {}
        }
        Ok(())
    }

    fn asks(&mut self, tab: TabId, message: &ToCore, now_ms: u64) {
        match message {
            ToCore::Ask { call, handle, request } => match request {
                Request::Open(open) => {
                    self.documents.insert((tab, *handle), name_of(open));
                    self.opens.insert((tab, *call), *handle);
                }
                Request::Mutate(mutate) => {
                    if let Some(document) = self.documents.get(&(tab, *handle)) {
                        let asked = (mutate.id, document.clone());
                        self.mutations.insert((tab, *call), asked);
                    }
                }
                Request::Close => {
                    self.held.remove(&(tab, *handle));
                    self.told.remove(&(tab, *handle));
                }
                _ => {}
            },
            // It is told all that is kept, from the beginning.
            ToCore::ListenRejections { handle } => {
                self.told.insert((tab, *handle), BTreeSet::new());
                let untold = self.untold.values_mut().flat_map(BTreeMap::values_mut);
                untold.for_each(|holders| holders.retain(|it| *it != (tab, *handle)));
            }
            ToCore::RejectionHandled { handle, id } => {
                self.handled.insert(*id);
                self.is_handled((tab, *handle), *id, now_ms);
            }
            _ => {}
        }
    }

    fn is_handled(&mut self, holder: Holder, call: CallId, now_ms: u64) {
        let document = self.documents.get(&holder).filter(|_| self.held.contains(&holder));
        let Some(document) = document.filter(|_| !self.is_lost) else { return };
        if self.open.get(document).is_some_and(|open| open.contains(&call)) {
            self.unnoted.entry((document.clone(), call)).or_insert(now_ms);
        }
    }

    /// The core has a page server, and more `is_on_its_way` to that of some documents.
    ///
    /// # Errors
    ///
    /// What a listener has dealt with is not written down.
    pub(super) fn must_be_noted(
        &self,
        is_on_its_way: impl Fn(&str) -> bool,
        now_ms: u64,
    ) -> Result<(), String> {
        let is_late = |document: &String, handled_ms: u64| {
            let pauses_until_ms =
                self.refused_ms.get(document).map(|at_ms| at_ms + WRITTEN_AGAIN_MS);
            handled_ms.max(pauses_until_ms.unwrap_or(0)) + NOTED_MS < now_ms
        };
        let mut unnoted = self.unnoted.iter();
        let late = unnoted.find(|((document, _), handled_ms)| {
            is_late(document, **handled_ms) && !is_on_its_way(document)
        });
        match late {
            Some(((document, call), _)) => {
                Err(format!("{document}: that {call:?} was dealt with is not written down"))
            }
            None => Ok(()),
        }
    }

    /// A page server lets the core in, whose data that has, or not any more.
    pub(super) fn is_let_in(&mut self, is_lost: bool, now_ms: u64) {
        self.is_lost |= is_lost;
        self.unnoted.retain(|_, _| !is_lost);
        self.unnoted.values_mut().for_each(|at_ms| *at_ms = now_ms);
    }

    /// The disk has this record of a document.
    pub(super) fn is_opened(&mut self, document: &str, kept: Option<&KeptRejections>) {
        self.is_read_anew(document);
        let Some(kept) = kept else { return };
        let all = kept.calls.iter().zip(&kept.kept);
        self.handled.extend(all.filter(|(_, (.., is_handled))| *is_handled).map(|(call, _)| *call));
        self.has_open(document, kept);
    }

    /// Nothing is written down of a document for now.
    pub(super) fn is_given_up(&mut self, document: &str) {
        self.open.remove(document);
        self.unnoted.retain(|(of, _), _| of != document);
    }

    fn has_open(&mut self, document: &str, kept: &KeptRejections) {
        let all = kept.calls.iter().zip(&kept.kept);
        let open = all.filter(|(_, (.., is_handled))| !is_handled).map(|(call, _)| *call);
        let open: BTreeSet<CallId> = open.collect();
        self.unnoted.retain(|(of, call), _| of != document || open.contains(call));
        self.open.insert(document.to_owned(), open);
    }

    /// The store refuses what the document was to write, which is read anew then.
    pub(super) fn is_refused(&mut self, document: &str, now_ms: u64) {
        self.refused_ms.insert(document.to_owned(), now_ms);
        self.is_read_anew(document);
    }

    /// The document is read anew: what no record has is rejected once more.
    fn is_read_anew(&mut self, document: &str) {
        self.is_given_up(document);
        self.untold.remove(document);
        self.forgotten.remove(document);
        self.records.remove(document);
    }

    /// A record is on its way to the disk.
    ///
    /// # Errors
    ///
    /// It has what it was said to forget.
    pub(super) fn is_recorded(
        &mut self,
        document: &str,
        kept: &KeptRejections,
    ) -> Result<(), String> {
        let calls: BTreeSet<CallId> = kept.calls.iter().copied().collect();
        let forgotten = self.forgotten.remove(document).unwrap_or_default();
        if let Some(call) = forgotten.intersection(&calls).next() {
            return Err(format!("{call:?} is told beyond what a tab can hear, and is kept"));
        }
        self.records.insert(document.to_owned(), calls);
        self.has_open(document, kept);
        let open = kept.calls.iter().zip(&kept.kept).filter(|(_, (.., is_handled))| !is_handled);
        let late = std::mem::take(&mut self.listens_unserved);
        open.for_each(|(call, _)| self.is_rejected(document, *call, &late));
        self.listens_unserved = late;
        Ok(())
    }

    /// Whoever listens is to be told, now or later, but those who may have begun to `late`.
    fn is_rejected(&mut self, document: &str, call: CallId, late: &BTreeSet<Holder>) {
        let is_of_it = |holder: &Holder| {
            self.held.contains(holder)
                && !late.contains(holder)
                && self.documents.get(holder).is_some_and(|it| it == document)
        };
        let listeners = self.told.iter().filter(|(holder, _)| is_of_it(holder));
        let untold = listeners.filter(|(_, told)| !told.contains(&call)).map(|(it, _)| *it);
        let untold: BTreeSet<Holder> = untold.collect();
        if !untold.is_empty() {
            let of_document = self.untold.entry(document.to_owned()).or_default();
            of_document.entry(call).or_default().extend(untold);
        }
    }

    fn must_be_told(&mut self, document: &str, kept: &BTreeSet<CallId>) -> Result<(), String> {
        let Some(untold) = self.untold.get_mut(document) else { return Ok(()) };
        let (told, handled) = (&self.told, &self.handled);
        let is_untold = |call: &CallId, holder: &Holder| {
            !handled.contains(call) && told.get(holder).is_some_and(|told| !told.contains(call))
        };
        untold.retain(|call, holders| {
            holders.retain(|holder| is_untold(call, holder));
            !holders.is_empty()
        });
        // One that leaves as there is a page server again was made before.
        let is_in = |call: &CallId| kept.contains(call) || self.rejected_unserved.contains(call);
        match untold.iter().find(|(call, _)| !is_in(call)) {
            Some((call, holders)) => {
                Err(format!("{call:?} was rejected and is forgotten, and {holders:?} not told"))
            }
            None => Ok(()),
        }
    }

    /// A tab is told of a rejection though it has enough to hear.
    pub(super) fn is_told_too_early(&mut self, tab: TabId, handle: Handle, call: CallId) {
        if let Some(document) = self.documents.get(&(tab, handle)) {
            self.forgotten.entry(document.clone()).or_default().insert(call);
        }
    }

    /// # Errors
    ///
    /// It was told that before.
    pub(super) fn tells(&mut self, tab: TabId, message: &FromCore) -> Result<(), String> {
        match message {
            FromCore::Opened { call, .. } => {
                self.held.extend(self.opens.remove(&(tab, *call)).map(|handle| (tab, handle)));
            }
            FromCore::Rejected { call, .. } => {
                if let Some((id, document)) = self.mutations.get(&(tab, *call)).cloned() {
                    self.rejected_unserved.extend((!self.is_served).then_some(id));
                    self.is_rejected(&document, id, &BTreeSet::new());
                }
            }
            FromCore::RejectionNews { handle, id, .. } => {
                let told = self.told.get_mut(&(tab, *handle));
                if told.is_some_and(|told| !told.insert(*id)) {
                    return Err(format!("{} is told twice that {id:?} was rejected", tab.0));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The mutation that a tab has asked for by this call.
    pub(super) fn mutation(&self, tab: TabId, call: Call) -> Option<CallId> {
        self.mutations.get(&(tab, call)).map(|(id, _)| *id)
    }
}
