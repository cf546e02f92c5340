//! What a tab asks its core for, and must not; and what it says that cores died of.
//!
//! A core does as it is told. That nobody wants it any more shows much later, or never.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{Call, FromCore, Handle, Request, ToCore};
use tidelog_tab::{Effect, Input};

/// Milliseconds after which a deletion is late, once the engine is there.
const DELETION_MS: u64 = 10_000;
/// Cores that have to die before something is taken for the cause.
const DEATHS: u32 = 3;
/// Milliseconds in which a core is to be reached, and then to answer, and a worker to load.
const LINK_MS_MAX: u64 = 12_000;
const LOAD_MS_MAX: u64 = 60_000;
/// How a tab says that a call is, and a document.
const DIED_OF_CALL: &str = "the engine died each time it was asked this";
const DIED_OF_DOCUMENT: &str = "the engine died each time it had this document open";

/// What the app of a tab has asked for, and been told.
#[derive(Default)]
pub(crate) struct TabDoor {
    /// Since when nothing has to be downloaded any more.
    loaded_ms: Option<u64>,
    /// Documents that were closed, or given up by whoever tried to.
    closed: BTreeSet<Handle>,
    /// Those that its core was asked to open, by these calls, and not to close.
    open: BTreeMap<Handle, Call>,
    /// When each deletion was asked for.
    deletions: BTreeMap<Call, u64>,
    /// Cores that have died so far, and how many had when each call was made and each document
    /// opened first.
    deaths: u32,
    calls: BTreeMap<Call, u32>,
    documents: BTreeMap<Handle, u32>,
    /// Documents that the app is about to close.
    closing: BTreeMap<Handle, Call>,
    /// The handle that each call opens, and the last word on connecting that was said of each.
    opens: BTreeMap<Call, Handle>,
    words: BTreeMap<Handle, u64>,
    /// By when a core that is sought has to be there, or to have answered, and a worker to load.
    linked_by_ms: Option<u64>,
    loaded_by_ms: Option<u64>,
}

impl TabDoor {
    /// The app asks for this.
    pub(crate) fn comes(&mut self, message: &ToCore, now_ms: u64) {
        if let ToCore::Ask { call, .. } | ToCore::Destroy { call, .. } = message {
            self.calls.insert(*call, self.deaths);
        }
        if let ToCore::Ask { handle, request: Request::Open(_), .. } = message {
            self.documents.entry(*handle).or_insert(self.deaths);
        }
        match message {
            ToCore::Ask { call, handle, request: Request::Close } => {
                self.closing.insert(*handle, *call);
            }
            ToCore::SetConnected { handle, word } => self.is_said(*handle, *word),
            _ => {}
        }
        if let ToCore::Destroy { call, .. } = message
            && self.loaded_ms.is_some()
        {
            self.deletions.insert(*call, now_ms);
        }
    }

    /// The app was told what became of it, whatever that is.
    pub(crate) fn is_settled(&mut self, message: &ToCore) {
        if let ToCore::Ask { handle, request: Request::Close, .. } = message {
            self.closed.insert(*handle);
            self.closing.remove(handle);
        }
    }

    fn is_said(&mut self, handle: Handle, word: u64) {
        let last = self.words.entry(handle).or_default();
        *last = word.max(*last);
    }

    /// The core says something.
    pub(crate) fn hears(&mut self, message: &FromCore) {
        match message {
            FromCore::Opened { call, memo, .. } => {
                if let Some(handle) = self.opens.get(call).copied() {
                    self.is_said(handle, memo.word);
                }
            }
            FromCore::Status { handle, memo, .. } => self.is_said(*handle, memo.word),
            _ => {}
        }
    }

    /// The browser brings something.
    pub(crate) fn takes(&mut self, input: &Input, now_ms: u64) {
        match input {
            Input::Connected { .. } => self.linked_by_ms = Some(now_ms + LINK_MS_MAX),
            Input::Welcome { .. } | Input::Hide => self.linked_by_ms = None,
            Input::Loaded { .. } | Input::Serves { .. } => self.loaded_by_ms = None,
            _ => {}
        }
    }

    /// The tab wants something of the browser.
    pub(crate) fn wants(&mut self, effect: &Effect, now_ms: u64) {
        match effect {
            Effect::Reach { .. } => drop(self.loaded_ms.get_or_insert(now_ms)),
            Effect::Connect { .. } => {
                self.core_is_gone();
                self.linked_by_ms = Some(now_ms + LINK_MS_MAX);
            }
            Effect::Leave { .. } => {
                self.core_is_gone();
                self.linked_by_ms = None;
            }
            Effect::Spawn { .. } => self.loaded_by_ms = Some(now_ms + LOAD_MS_MAX),
            Effect::End { .. } => self.loaded_by_ms = None,
            _ => {}
        }
    }

    /// Since when what a core needs is here, so that calls have ten seconds.
    pub(crate) fn loaded_ms(&self) -> Option<u64> {
        self.loaded_ms
    }

    /// The tab does nothing more before it is woken.
    ///
    /// # Errors
    ///
    /// It waits for a core or a worker without end.
    pub(crate) fn sleeps(&self, wake_at_ms: Option<u64>) -> Result<(), String> {
        let is_late = |by_ms: &u64| wake_at_ms.is_none_or(|at_ms| at_ms > *by_ms);
        if let Some(by_ms) = self.linked_by_ms.filter(is_late) {
            return Err(format!("nobody looks at {by_ms} whether a core is there: {wake_at_ms:?}"));
        }
        match self.loaded_by_ms.filter(is_late) {
            Some(by_ms) => Err(format!("nobody looks at {by_ms} whether a worker has loaded")),
            None => Ok(()),
        }
    }

    /// The core says that nothing came of a call.
    pub(crate) fn has_failed(&mut self, failed: Call) {
        self.open.retain(|_, call| *call != failed);
    }

    /// Whether the tab takes it that there is no core to be had.
    pub(crate) fn gives_up(input: &Input, effects: &[Effect]) -> bool {
        let leaves = effects.iter().any(|it| matches!(it, Effect::Leave { .. }));
        let seeks = effects.iter().any(|it| matches!(it, Effect::Connect { .. }));
        leaves && !seeks && !matches!(input, Input::Hide)
    }

    /// It has given up, and waits for this still.
    ///
    /// # Errors
    ///
    /// Its app was not told, and waits for no mutation that may be recorded, and watches nothing.
    pub(crate) fn has_given_up<'a>(
        mut asked: impl Iterator<Item = &'a ToCore>,
    ) -> Result<(), String> {
        let may_wait = |it: &ToCore| match it {
            ToCore::Ask { request, .. } => {
                matches!(
                    request,
                    Request::Mutate(_)
                        | Request::Watch(_)
                        | Request::Handle(_)
                        | Request::Complete(_)
                        | Request::Outcome(_)
                        | Request::Records(_)
                )
            }
            _ => false,
        };
        match asked.find(|it| !may_wait(it)) {
            Some(it) => {
                let what: String = format!("{it:?}").chars().take(120).collect();
                Err(format!("there is no core to be had, and this waits for one: {what}"))
            }
            None => Ok(()),
        }
    }

    /// The tab knows that its core is gone.
    pub(crate) fn core_is_gone(&mut self) {
        self.open.clear();
    }

    /// It has died.
    pub(crate) fn core_died(&mut self) {
        self.deaths += 1;
    }

    /// The tab says why a call fails.
    ///
    /// # Errors
    ///
    /// Not so many cores have died since it was made.
    pub(crate) fn blames_call(&self, call: Call, why: &str) -> Result<(), String> {
        let may_be = why != DIED_OF_CALL || self.have_died_since(self.calls.get(&call));
        if may_be { Ok(()) } else { Err(format!("{call:?} is taken for the cause of deaths")) }
    }

    /// The tab says what is wrong with a document.
    ///
    /// # Errors
    ///
    /// Not so many cores have died since it was opened first.
    pub(crate) fn blames_document(&self, handle: Handle, why: &str) -> Result<(), String> {
        let may_be = why != DIED_OF_DOCUMENT || self.have_died_since(self.documents.get(&handle));
        if may_be { Ok(()) } else { Err(format!("{handle:?} is taken for the cause of deaths")) }
    }

    fn have_died_since(&self, before: Option<&u32>) -> bool {
        self.deaths - before.unwrap_or(&0) >= DEATHS
    }

    /// The tab has done all that follows from something.
    ///
    /// # Errors
    ///
    /// Its core has something open for nobody.
    pub(crate) fn rests(&self) -> Result<(), String> {
        match self.open.keys().find(|handle| self.closed.contains(handle)) {
            Some(handle) => Err(format!("{handle:?} was closed, and the core is not told")),
            None => Ok(()),
        }
    }

    /// The tab asks its core for this.
    ///
    /// # Errors
    ///
    /// Nobody wants that any more, or should not be given it.
    pub(crate) fn leaves(&mut self, message: &ToCore, now_ms: u64) -> Result<(), String> {
        match message {
            ToCore::Ask { handle, request: Request::Open(open), .. }
                if self.closed.contains(handle) =>
            {
                Err(format!("{} was closed, and is opened again for nobody", open.document))
            }
            ToCore::Ask { call, handle, request: Request::Open(open) } => {
                self.open.insert(*handle, *call);
                self.opens.insert(*call, *handle);
                self.must_be_last(*handle, open.word)
            }
            ToCore::Ask { handle, request: Request::Close, .. } => {
                self.open.remove(handle);
                Ok(())
            }
            ToCore::Destroy { call, document, .. } => match self.deletions.get(call) {
                Some(at_ms) if now_ms > at_ms + DELETION_MS => {
                    let ms = now_ms - at_ms;
                    Err(format!("{document:?} is to be deleted, as was asked for {ms} ms ago"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The next core is to go by the last word on connecting, if the app wants anything of the
    /// document still.
    fn must_be_last(&self, handle: Handle, word: u64) -> Result<(), String> {
        let is_left = self.closing.contains_key(&handle);
        let last = if is_left { 0 } else { self.words.get(&handle).copied().unwrap_or(0) };
        // A clock that was set back makes a later word higher.
        match if is_left { word > last } else { word < last } {
            true => Err(format!("{handle:?} is opened again with word {word}, and not {last}")),
            false => Ok(()),
        }
    }
}
