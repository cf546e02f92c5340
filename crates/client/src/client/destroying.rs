//! Local copies that somebody wants gone: one, or all of a user's.

use std::collections::BTreeSet;

use tidelog_pages::{AppendError, RequestId, StoreRequest, Ticket};
use tidelog_types::limits::CALL_SETTLES_MS;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{DocumentKey, ErrorCode, Outcome};

use super::Client;
use crate::document::Document;
use crate::effect::TabId;
use crate::outbox::Outbox;
use crate::protocol::{Call, CallFailure, FromCore, Handle};

/// Milliseconds for which tabs may take to close a document that is to be deleted everywhere: half
/// of what a call may take, so that its caller is told who did not.
const CLOSED_MS: u64 = CALL_SETTLES_MS / 2;

/// A call that wants copies gone. Either all of them go, or none.
pub(super) struct Destroy {
    pub(super) tab: TabId,
    call: Call,
    which: Which,
    stage: Stage,
    /// Also with mutations pending.
    force: bool,
    /// Who has one open is told to close it; absent where nobody is to be told.
    closing: Option<Closing>,
}

/// What a tab says of it.
pub(super) struct Wish {
    pub(super) tab: TabId,
    pub(super) call: Call,
    pub(super) force: bool,
    pub(super) everywhere: bool,
}

enum Which {
    One(DocumentKey),
    /// All copies of this user.
    AllOf(String),
}

#[derive(Default)]
struct Closing {
    /// Until when they may do so, once somebody was told.
    until_ms: Option<u64>,
    told: BTreeSet<(TabId, Handle)>,
}

enum Stage {
    /// The store has to say which copies there are.
    Unlisted {
        /// As what this page server was asked, if it was.
        asked: Option<RequestId>,
    },
    /// It is not known yet what would be destroyed.
    Asked {
        /// The copies that the store has, or the one.
        listed: Vec<DocumentKey>,
    },
    /// The store was told, and has not said yet that these are gone.
    Told {
        tickets: BTreeSet<Ticket>,
        /// Whether there is no other copy that may be gone.
        is_one: bool,
    },
}

impl Destroy {
    /// Whether a copy is among those that are to go.
    pub(super) fn is_about(&self, key: &DocumentKey) -> bool {
        match &self.which {
            Which::One(one) => one == key,
            Which::AllOf(user) => *user == key.user,
        }
    }

    fn fail(&self, failure: CallFailure, out: &mut Outbox) {
        out.tell(self.tab, FromCore::Failed { call: self.call, failure });
    }
}

impl Client {
    /// A tab wants a document's copy gone, or those of all documents.
    pub(super) fn take_destroy(
        &mut self,
        wish: Wish,
        document: Option<&str>,
        user: &str,
        out: &mut Outbox,
    ) {
        let Wish { tab, call, force, everywhere } = wish;
        // A user is checked as part of a name.
        let key = match DocumentKey::new(document.unwrap_or("any"), user) {
            Ok(key) => key,
            Err(error) => {
                let failure = CallFailure::invalid(error.to_string());
                return out.tell(tab, FromCore::Failed { call, failure });
            }
        };
        if let Some(failure) = &self.store.failure {
            let failure = CallFailure::of_page_server(failure);
            return out.tell(tab, FromCore::Failed { call, failure });
        }
        let (which, stage) = match document {
            Some(_) => (Which::One(key.clone()), Stage::Asked { listed: vec![key] }),
            None => (Which::AllOf(key.user), Stage::Unlisted { asked: None }),
        };
        let closing = everywhere.then(Closing::default);
        self.destroying.push(Destroy { tab, call, which, stage, force, closing });
    }

    /// A tab waits no longer. What the store was told is done, or not, whoever waits for that.
    pub(super) fn give_up_destroy(&mut self, tab: TabId, call: Call) {
        self.end_destroys(|it| {
            (it.tab, it.call) == (tab, call) && !matches!(it.stage, Stage::Told { .. })
        });
    }

    /// Those of which this is so are over: what was kept for them may be let go of.
    fn end_destroys(&mut self, is_over: impl FnMut(&mut Destroy) -> bool) {
        for destroy in self.destroying.extract_if(.., is_over) {
            self.documents.wake(|key| destroy.is_about(key));
        }
    }

    /// No page server can start.
    pub(super) fn fail_destroys(&mut self, failure: &CallFailure, out: &mut Outbox) {
        let is_lost = self.store.is_lost();
        self.end_destroys(|destroy| {
            let outcome = match destroy.stage {
                Stage::Unlisted { .. } | Stage::Asked { .. } => Outcome::None,
                Stage::Told { .. } if is_lost => Outcome::Unknown,
                Stage::Told { .. } => return false,
            };
            destroy.fail(CallFailure { outcome, ..failure.clone() }, out);
            true
        });
    }

    /// Another page server has let us in: it knows nothing of what the one before was asked.
    pub(super) fn list_anew(&mut self) {
        for destroy in &mut self.destroying {
            if let Stage::Unlisted { asked } = &mut destroy.stage {
                *asked = None;
            }
        }
    }

    /// The store has said which copies there are.
    pub(super) fn listed(&mut self, request: RequestId, documents: Vec<DocumentKey>) {
        let is_it = |it: &&mut Destroy| match it.stage {
            Stage::Unlisted { asked } => asked == Some(request),
            _ => false,
        };
        let Some(destroy) = self.destroying.iter_mut().find(is_it) else { return };
        let listed = documents.into_iter().filter(|key| destroy.is_about(key)).collect();
        destroy.stage = Stage::Asked { listed };
    }

    #[inline(never)]
    pub(super) fn run_destroys(&mut self, out: &mut Outbox) {
        for mut destroy in std::mem::take(&mut self.destroying) {
            match &mut destroy.stage {
                Stage::Unlisted { asked } => {
                    if asked.is_none() && self.store.is_ready() {
                        let request = self.store.next_request();
                        self.store.ask(StoreRequest::List { request }, out);
                        *asked = Some(request);
                    }
                }
                Stage::Asked { .. } => match self.look_at_doomed(&mut destroy, out) {
                    Ok(Some(keys)) if keys.is_empty() => {
                        out.tell(destroy.tab, FromCore::Done { call: destroy.call });
                        continue;
                    }
                    Ok(Some(keys)) => self.tell_store(&mut destroy, keys, out),
                    Ok(None) => {}
                    Err(failure) => {
                        destroy.fail(failure, out);
                        self.documents.wake(|key| destroy.is_about(key));
                        continue;
                    }
                },
                Stage::Told { .. } => {}
            }
            self.destroying.push(destroy);
        }
    }

    /// The copies that are to go, once nothing holds any of them.
    ///
    /// # Errors
    ///
    /// Why one of them stays, and so all do.
    fn look_at_doomed(
        &mut self,
        destroy: &mut Destroy,
        out: &mut Outbox,
    ) -> Result<Option<Vec<DocumentKey>>, CallFailure> {
        let Stage::Asked { listed } = &destroy.stage else { return Ok(None) };
        // Also those that were begun since: whoever opens one may not have recorded it yet.
        let begun = self.documents.keys().filter(|key| destroy.is_about(key)).cloned();
        let keys: BTreeSet<DocumentKey> = begun.chain(listed.iter().cloned()).collect();
        for key in &keys {
            // There is none yet, or another call has just destroyed it.
            self.ensure(key, out);
        }
        if !keys.iter().all(|key| self.documents[key].is_loaded()) {
            return Ok(None);
        }
        let refusal = |key| refusal_to_destroy(&self.documents[key], destroy.force);
        let refusals: Vec<_> = keys.iter().filter_map(|key| Some((key, refusal(key)?))).collect();
        // Nobody closes anything for what is refused.
        let is_final = |(key, failure): &&(&DocumentKey, CallFailure)| {
            !can_be_closed(&self.documents[*key], failure)
        };
        let Some((_, first)) = refusals.iter().find(is_final).or(refusals.first()) else {
            // Whoever waits for one is answered first.
            let is_idle = keys.iter().all(|key| self.documents[key].is_idle());
            return Ok(is_idle.then(|| keys.into_iter().collect()));
        };
        if refusals.iter().any(|it| is_final(&it)) {
            return Err(first.clone());
        }
        let Some(closing) = &mut destroy.closing else { return Err(first.clone()) };
        let until_ms = *closing.until_ms.get_or_insert(self.now_ms + CLOSED_MS);
        if self.now_ms >= until_ms {
            return Err(first.clone());
        }
        for (key, _) in &refusals {
            self.documents[*key].want_closed(&mut closing.told, out);
        }
        out.wake_at(until_ms);
        Ok(None)
    }

    fn tell_store(&mut self, destroy: &mut Destroy, keys: Vec<DocumentKey>, out: &mut Outbox) {
        let is_one = keys.len() == 1;
        let mut tickets = BTreeSet::new();
        for key in keys {
            self.documents.remove(&key);
            tickets.insert(self.store.destroy(key, out));
        }
        destroy.stage = Stage::Told { tickets, is_one };
    }

    /// The store has done all before a ticket.
    pub(super) fn destroyed(&mut self, durable: Ticket, out: &mut Outbox) {
        self.end_destroys(|destroy| {
            let Stage::Told { tickets, .. } = &mut destroy.stage else { return false };
            tickets.retain(|ticket| *ticket > durable);
            if !tickets.is_empty() {
                return false;
            }
            reached(Probe::CopyDestroyed);
            out.tell(destroy.tab, FromCore::Done { call: destroy.call });
            true
        });
    }

    pub(super) fn names_are_decided(
        &mut self,
        keys: impl IntoIterator<Item = DocumentKey>,
        out: &mut Outbox,
    ) {
        for key in keys {
            self.with(&key, out, |document, ctx| document.name_is_decided(ctx));
        }
    }

    pub(super) fn destroy_failed(&mut self, failed: Ticket, error: &AppendError, out: &mut Outbox) {
        let is_repeat = self.store.is_repeat(failed);
        let kept = self.store.give_up_destroy(failed);
        self.end_destroys(|destroy| match &destroy.stage {
            Stage::Told { tickets, is_one } if tickets.contains(&failed) => {
                let failure = match is_one {
                    true => CallFailure::of_append(error, is_repeat),
                    false => CallFailure::of_some_destroyed(error),
                };
                destroy.fail(failure, out);
                true
            }
            _ => false,
        });
        self.names_are_decided(kept, out);
    }
}

/// Whether somebody who has the document in use may be told to close it. Who hands it over is
/// waited for by nobody, and need not lose it for this.
fn can_be_closed(document: &Document, refusal: &CallFailure) -> bool {
    refusal.code == ErrorCode::DocumentInUse && !document.is_handing_over()
}

/// Why a document is not destroyed, if it is not.
fn refusal_to_destroy(document: &Document, force: bool) -> Option<CallFailure> {
    let pending = document.pending();
    if pending > 0 && !force {
        return Some(CallFailure::pending(&document.key.document, pending));
    }
    // Nobody can tell what is pending of it.
    if let Some(failure) = document.why_broken().filter(|_| !force) {
        return Some(failure.clone());
    }
    let why = if document.is_handing_over() {
        // That takes as long as the line needs, and nobody may wait for either any more.
        "the document is being handed over to its server: try again once that has ended"
    } else if document.is_in_use() {
        "the document is open: close it in every tab before it is destroyed, or destroy it \
         { everywhere: true }"
    } else {
        return None;
    };
    Some(CallFailure::new(ErrorCode::DocumentInUse, why))
}
