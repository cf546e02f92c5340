//! How the documents of a tab stand, as far as it was told.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{CallFailure, Connection, Handle, Status, Storage};
use tidelog_types::{ErrorCode, Remedy, Role};

use super::{HEARD_MS, Tab};
use crate::docs::Doc;

impl Tab {
    /// Whether this is the handle by which it has its document.
    pub(super) fn holds(&self, handle: Handle) -> bool {
        self.docs.get(&handle).is_some_and(|doc| self.held.get(doc) == Some(&handle))
    }

    /// Mutations of a document of whose rejection the listener that is there was told; none if that
    /// has begun to listen too lately to have heard.
    pub(crate) fn told_rejections(&self, doc: Doc, now_ms: u64) -> Option<BTreeSet<String>> {
        let handle = self.held.get(&doc)?;
        let is_new = |at_ms: &u64| at_ms + HEARD_MS > now_ms;
        let told = self.told_rejections.get(handle).into_iter().flat_map(BTreeMap::keys);
        (!self.listens_anew.get(handle).is_some_and(is_new)).then(|| told.cloned().collect())
    }

    /// Whether its core said last that a document was damaged: what is whole of it is shown.
    pub(super) fn is_damaged(&self, doc: Doc) -> bool {
        let status = self.held.get(&doc).and_then(|handle| self.statuses.get(handle));
        let error = status.and_then(|(_, status)| status.error.as_ref());
        error.is_some_and(|it| it.code == ErrorCode::Storage && it.remedy == Remedy::Mend)
    }

    /// What its core said last to be wrong with each document, if it hears that one.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (Doc, &CallFailure)> {
        self.held.iter().filter_map(|(doc, handle)| {
            let (_, status) = self.statuses.get(handle)?;
            let failure = status.error.as_ref().filter(|_| self.is_told_of(*doc));
            failure.map(|failure| (*doc, failure))
        })
    }

    /// Whether the core that it hears has said how a document stands.
    pub(crate) fn is_told_of(&self, doc: Doc) -> bool {
        let status = self.held.get(&doc).and_then(|handle| self.statuses.get(handle));
        self.port.is_heard && status.is_some_and(|(core, _)| *core == self.port.core)
    }

    /// Whether a document could not be opened again, as its app was told.
    pub(crate) fn is_shut(&self, doc: Doc) -> bool {
        self.held.get(&doc).is_some_and(|handle| self.port.lost.contains_key(handle))
    }

    /// Whether its core said last that a document is of a release that does not go with another one
    /// that its device has.
    pub(crate) fn is_mismatched(&self, doc: Doc) -> bool {
        let Some(handle) = self.held.get(&doc) else { return false };
        let status = self.statuses.get(handle);
        let told = status.and_then(|(_, status)| status.error.as_ref()).map(|error| error.code);
        let lost = self.port.lost.get(handle).copied();
        lost.or(told) == Some(ErrorCode::DoctypeMismatch)
    }

    /// Whether something of a document was on its way to its server when its core said last how it
    /// stands.
    pub(crate) fn is_sending(&self, doc: Doc) -> bool {
        let status = self.held.get(&doc).and_then(|handle| self.statuses.get(handle));
        status.is_some_and(|(_, it)| it.connection == Connection::Online && it.pending > 0)
    }

    /// Whether nothing of a document waited for its server when its core said last how it stands.
    pub(crate) fn has_nothing_to_send(&self, doc: Doc) -> bool {
        let status = self.held.get(&doc).and_then(|handle| self.statuses.get(handle));
        status.is_none_or(|(_, it)| it.pending == 0)
    }

    /// Whether a server that had lost a document refused it, or one whose disk was damaged, as its
    /// core said last: it is asked again after a while.
    pub(crate) fn is_refused_any(&self) -> bool {
        let mut statuses = self.held.values().filter_map(|handle| self.statuses.get(handle));
        let is_refusal = |failure: &CallFailure| {
            failure.code == ErrorCode::DocumentMissing || failure.remedy == Remedy::Mend
        };
        statuses.any(|(_, it)| it.error.as_ref().is_some_and(is_refusal))
    }

    /// Whether a server had no room for a verdict, as the core said last.
    pub(crate) fn lacks_room(&self) -> bool {
        let mut statuses = self.held.values().filter_map(|handle| self.statuses.get(handle));
        statuses.any(|(_, it)| {
            it.error.as_ref().is_some_and(|failure| failure.code == ErrorCode::BudgetExceeded)
        })
    }

    /// Whether all of a document was decided, and told to a tab that hears of it, when its core
    /// said last how it stands.
    pub(crate) fn is_in_step(&self, doc: Doc) -> bool {
        let status = self.held.get(&doc).and_then(|handle| self.statuses.get(handle));
        let is_done = |it: &Status| it.connection == Connection::Online && it.pending == 0;
        self.port.is_heard && status.is_some_and(|(_, it)| is_done(it))
    }

    /// Whether its server allows to write to a document, as far as it was told.
    pub(crate) fn may_write(&self, doc: Doc) -> bool {
        let status = self.held.get(&doc).and_then(|handle| self.statuses.get(handle));
        status.is_none_or(|(_, status)| status.access >= Some(Role::Write))
    }

    /// Whether a document was to stay away from its server when its core said last how it stands.
    pub(crate) fn is_away(&self, doc: Doc) -> bool {
        let status = self.held.get(&doc).and_then(|handle| self.statuses.get(handle));
        status.is_none_or(|(_, status)| status.away)
    }

    /// Whether a document was not at rest for what its store had refused of what a server has sent,
    /// or it writes of itself, when its core said last how that stands: it is written again by
    /// itself, or asked for anew, after a pause. That a store has refused something lately is not
    /// said any more once it has taken something of another document, and the pause goes on all
    /// the same. Behind it the server is asked anew, which takes as long as a line does, and as a
    /// token.
    pub(crate) fn waits_for_store(&self, refused_lately: bool) -> bool {
        let mut statuses = self.held.values().filter_map(|handle| self.statuses.get(handle));
        statuses.any(|(_, it)| {
            let [kept, seen] = it.storage_lsns;
            let is_apart = matches!(it.connection, Connection::Connecting | Connection::Offline);
            match it.error.as_ref().map(|failure| (failure.code, failure.remedy)) {
                Some((ErrorCode::StorageFull, _)) => kept < seen,
                Some((ErrorCode::Storage, remedy)) => remedy == Remedy::Retry,
                _ => refused_lately && (kept < seen || is_apart),
            }
        })
    }

    /// Whether the core that it hears has said how each of its documents stands: it may have found
    /// its next one just now, or be about to.
    pub(crate) fn is_told(&self) -> bool {
        let said =
            |handle| self.statuses.get(handle).is_some_and(|(core, _)| *core == self.port.core);
        !self.port.is_heard || self.held.values().all(said)
    }

    /// Whether a document was shown with entries of its server that its store lacked, when its core
    /// said last how it stands: they may be put off.
    pub(crate) fn is_ahead_of_store(&self) -> bool {
        let mut statuses = self.held.values().filter_map(|handle| self.statuses.get(handle));
        statuses.any(|(_, it)| it.storage_lsns[0] < it.storage_lsns[1])
    }

    /// When all is in step, and nobody does anything, the status of a document says so. Gives what
    /// it says of the storage journal.
    ///
    /// # Errors
    ///
    /// If it says something else, or its core has said nothing.
    pub(crate) fn judge_status(&self, doc: Doc, is_synced: bool) -> Result<[u64; 2], String> {
        let handle = self.held.get(&doc).expect("BUG: one that is not held");
        let told = self.statuses.get(handle).filter(|(core, _)| *core == self.port.core);
        let Some((_, status)) = told else {
            return Err(format!("nobody has said how {doc:?} stands"));
        };
        let connection = if is_synced { Connection::Online } else { Connection::Local };
        // Of a document that nothing is written to, what was wrong with its store may be what was
        // wrong last. Of what has to do with its server nothing stays.
        let may_stay =
            |it: &CallFailure| matches!(it.code, ErrorCode::Storage | ErrorCode::StorageFull);
        let is_well = status.error.as_ref().is_none_or(may_stay);
        let [_, acked, durable, issued] = status.timeline;
        let is_whole = acked == issued && durable == issued || !is_synced;
        let [kept, seen] = status.storage_lsns;
        let is_kept = kept == seen && status.confirmed_lsn + 1 == seen && !status.settling;
        let role = if self.may_only_read { Role::Write } else { Role::Admin };
        let is_at_rest = status.connection == connection
            && status.access == is_synced.then_some(role)
            && status.storage == Storage::Opfs
            && (status.pending == 0 && !status.away || !is_synced)
            && is_well
            && is_whole
            && is_kept
            && status.synced;
        if is_at_rest {
            Ok(status.storage_lsns)
        } else {
            Err(format!("all is in step, and {doc:?} stands like this: {status:?}"))
        }
    }
}
