//! How a document stands, for those who look.

use tidelog_document::Doctype;
use tidelog_types::{ErrorCode, Lsn};

use super::open::{Open, Role};
use super::{Context, Document, State};
use crate::protocol::{CallFailure, Connection, FromCore, Memo, Status};
use crate::server_link::{ServerLink, Stage};
use crate::store_link::StoreLink;

/// Milliseconds between two messages that say nothing but other numbers. They go along with
/// whatever else a tab is told.
const NUMBERS_PAUSE_MS: u64 = 50;

/// What the status says that the document does not know itself.
pub(crate) struct Surroundings<'s> {
    pub(crate) now_ms: u64,
    pub(crate) link: Option<&'s ServerLink>,
    pub(crate) store: &'s StoreLink,
    pub(crate) persisted: bool,
    pub(crate) usage: u64,
    pub(crate) quota: u64,
}

impl Document {
    /// How it stands for who opens it by this doctype, as far as it knows itself.
    pub(super) fn status(&self, doctype: &Doctype, ctx: &Context<'_>) -> Status {
        let quiet = Surroundings {
            now_ms: ctx.now_ms,
            link: None,
            store: ctx.store,
            persisted: false,
            usage: 0,
            quota: 0,
        };
        self.status_in(&quiet).seen_by(doctype, self.version(), None)
    }

    fn status_in(&self, around: &Surroundings<'_>) -> Status {
        let (pending, timeline) = match self.synced() {
            Some(synced) => {
                let undecided = synced.replica.undecided();
                let (start, head) = (undecided.start(), undecided.end());
                let acked = synced.sender.acked().max(start);
                // Right after a replacement the frames are not in the new timeline yet.
                let durable = synced.durable.clamp(acked.min(head), head);
                (undecided.count(), [start, acked, durable, head].map(Lsn::get))
            }
            None => (0, [0; 4]),
        };
        let storage = match self.open() {
            Some(Open { role: Role::Local(authority), storage_durable, .. }) => {
                [*storage_durable, authority.head()]
            }
            Some(open) => [open.storage_durable, open.visible()],
            None => [Lsn::FIRST; 2],
        };
        let (connection, failure) = self.connection(around.link);
        let open = self.open();
        let synced = connection == Connection::Local || open.is_some_and(|it| it.record.synced);
        let device = around.store.failure.as_ref().map(CallFailure::of_page_server);
        Status {
            connection,
            away: self.following.is_away(),
            error: device.or_else(|| self.why_wrong().cloned()).or(failure),
            pending,
            confirmed_lsn: storage[1].get() - 1,
            storage: around.store.storage(),
            settling: around.now_ms < around.store.settled_at_ms,
            persisted: around.persisted,
            usage: around.usage,
            quota: around.quota,
            timeline,
            storage_lsns: storage.map(Lsn::get),
            synced,
            newer_elsewhere: false,
            access: self.synced().and(self.open()).and_then(|open| open.record.access),
        }
    }

    /// How many migrations the document has seen, where that is known.
    fn version(&self) -> Option<usize> {
        self.open().and_then(Open::version)
    }

    /// What tabs keep for the next core.
    pub(super) fn memo(&self) -> Memo {
        let kept = self.open().filter(|open| open.is_kept);
        Memo {
            word: self.following.word,
            copy: kept.map(|open| open.record.client()),
            head: kept.map(Open::durable_head),
        }
    }

    pub(super) fn connection(
        &self,
        link: Option<&ServerLink>,
    ) -> (Connection, Option<CallFailure>) {
        let is_local = match &self.state {
            State::Open(open) => matches!(open.role, Role::Local(_)),
            // It is made again for those who hold it.
            State::Absent => self.first_named_server().is_none(),
            State::Asking { .. } | State::Broken(_) => false,
        };
        if is_local {
            return (Connection::Local, None);
        }
        if self.wanted_server().is_none() {
            let server = self.open().and_then(|open| open.record.server.as_deref());
            let is_unnamed = !self.following.is_away() && self.first_named_server().is_none();
            return (Connection::Offline, server.filter(|_| is_unnamed).map(CallFailure::unnamed));
        }
        let Some(link) = link else { return (Connection::Connecting, None) };
        let connection = match link.stage {
            Stage::Welcomed if self.is_online() => Connection::Online,
            Stage::Welcomed if self.why_wrong().is_some_and(CallFailure::is_final) => {
                Connection::Offline
            }
            Stage::Welcomed => Connection::Connecting,
            _ if link.failure.is_some() => Connection::Offline,
            _ => Connection::Connecting,
        };
        (connection, link.failure.clone())
    }

    /// Tells all who hold the document how it stands, if that is news.
    pub(crate) fn tell_status(
        &mut self,
        around: &Surroundings<'_>,
        out: &mut crate::outbox::Outbox,
    ) {
        if self.handles.is_empty() {
            return;
        }
        let now = (self.status_in(around), self.memo());
        let version = self.version();
        // All of one that is not there was taken back.
        let is_unread = matches!(self.state, State::Asking { .. } | State::Broken(_));
        if around.now_ms < around.store.settled_at_ms {
            out.wake_at(around.store.settled_at_ms);
        }
        for ((tab, handle), state) in self.handles.iter_mut() {
            let told = match &state.told {
                Some(before) if is_unread => unread(before, &now),
                before => {
                    let before = before.as_ref().map(|(status, _)| status);
                    let mut status = now.0.clone().seen_by(&state.doctype, version, before);
                    // What has come is shown first: an empty list may only not be here yet.
                    status.synced &= before.is_none_or(|before| before.synced)
                        || self.watches.are_current(*tab, *handle);
                    (status, now.1)
                }
            };
            if state.told.as_ref() == Some(&told) || out.flow.is_behind(*tab) {
                continue;
            }
            let (status, memo) = &told;
            let is_urgent = |(before, known): &(Status, Memo)| {
                (known.word, known.copy) != (memo.word, memo.copy)
                    || !before.differs_in_numbers(status)
            };
            let urgent = state.told.as_ref().is_none_or(is_urgent);
            let pause_ends_ms = state.told_at_ms + NUMBERS_PAUSE_MS;
            if urgent || out.has_news_for(*tab) || around.now_ms >= pause_ends_ms {
                let (handle, status, memo) = (*handle, status.clone(), *memo);
                out.tell(*tab, FromCore::Status { handle, status, memo });
                state.told = Some(told.clone());
                state.told_at_ms = around.now_ms;
            } else {
                out.wake_at(pause_ends_ms);
            }
        }
    }

    /// An append went through: the device has recovered. What is being read anew may not be there
    /// any more, and those who wait for it are to be told why.
    pub(crate) fn storage_works(&mut self) {
        if !self.is_loaded() {
            return;
        }
        self.write_again.works_elsewhere();
        self.error.take_if(|error| passes_with_the_disk(error));
    }

    /// Whether what is wrong may be over once the disk takes something, be it of another document.
    pub(super) fn may_recover(&self) -> bool {
        self.write_again.failure.is_some() || self.error.as_ref().is_some_and(passes_with_the_disk)
    }
}

/// Whether this is the device's trouble, and may be over by itself.
fn passes_with_the_disk(failure: &CallFailure) -> bool {
    matches!(failure.code, ErrorCode::Storage | ErrorCode::StorageFull) && !failure.is_final()
}

/// What is told of a document that is not read at present, or cannot be: what only its data tell
/// is what was told `before`, and the rest as it is `now`.
fn unread(before: &(Status, Memo), now: &(Status, Memo)) -> (Status, Memo) {
    let ((before, known), (now, memo)) = (before, now);
    let is_local = before.connection == Connection::Local;
    let status = Status {
        connection: if is_local { Connection::Local } else { now.connection },
        pending: before.pending,
        confirmed_lsn: before.confirmed_lsn,
        timeline: before.timeline,
        storage_lsns: before.storage_lsns,
        synced: before.synced,
        newer_elsewhere: before.newer_elsewhere,
        ..now.clone()
    };
    (status, Memo { word: memo.word, ..*known })
}

impl Status {
    /// The same for who has it open by this doctype, where it has seen so many migrations; where
    /// that is not known yet, as whoever it is was told `before`.
    fn seen_by(self, doctype: &Doctype, version: Option<usize>, before: Option<&Self>) -> Self {
        let newer_elsewhere = match version {
            Some(version) => version > doctype.migrations.len(),
            None => before.is_some_and(|before| before.newer_elsewhere),
        };
        Self { newer_elsewhere, ..self }
    }

    /// Whether the two differ in nothing but positions and sizes.
    fn differs_in_numbers(&self, other: &Self) -> bool {
        let numbers = Self {
            confirmed_lsn: other.confirmed_lsn,
            usage: other.usage,
            quota: other.quota,
            timeline: other.timeline,
            storage_lsns: other.storage_lsns,
            ..self.clone()
        };
        numbers == *other
    }
}
