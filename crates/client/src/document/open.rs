//! A document that is there: which side this device is for it, and its record.

use std::collections::BTreeMap;

use tidelog_document::{
    Authority, Doctype, DoctypeHash, OwnTimeline, Replica, is_migrated_to, public_life,
};
use tidelog_pages::OpenedDocument;
use tidelog_sqlite::{Reader, Run, View};
use tidelog_sync::{Sender, codec};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{
    CallId, DocumentKey, EntryId, ErrorCode, JournalId, Life, Lineage, Lsn, Outcome, Pgid, Position,
};

use super::{Context, Document, HandleState, State};
use crate::outbox::Outbox;
use crate::protocol::{CallFailure, FromCore};
use crate::record::{HashedDoctype, Record};
use crate::settings::ClientSettings;
use crate::store_link::StoreLink;

/// A document that is there.
pub(super) struct Open {
    pub role: Role,
    pub record: Record,
    /// Whether the record says something that was handed to no append yet.
    pub record_due: Option<RecordDue>,
    /// Whether the disk has it: what begins is there once its first append is.
    pub is_kept: bool,
    /// Whether it was read anew, and may have forgotten doctypes of tabs that hold it. That is
    /// mended with the next request, or after the pause in which nothing is written by itself.
    pub is_unadopted: bool,
    /// The doctypes of tabs for which there was no memory as they were to be known again by a local
    /// document.
    pub short_of: Vec<Doctype>,
    /// The lost page without which it cannot be at the version of all of them, if that was seen.
    pub adoption_lacks: Option<Pgid>,
    /// Something of this copy is lost, or nothing proves that it is whole.
    pub is_incomplete: bool,
    /// The doctype that was last found to go with what the server has made of the document, and at
    /// which position.
    pub found_to_go: Option<(DoctypeHash, Option<Position>)>,
    /// Storage entries before this LSN are on the disk.
    pub storage_durable: Lsn,
}

/// When a record that has changed goes to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RecordDue {
    /// With whatever goes there next.
    WithNext,
    /// Once the one before it is durable.
    BehindLast,
    /// With this step.
    Now,
}

/// Which side this device is for the document.
pub(super) enum Role {
    /// There is no server: this device decides.
    Local(Box<Authority>),
    /// A server decides.
    Synced(Box<Synced>),
}

/// The side that follows, and how far its timeline has come.
pub(super) struct Synced {
    pub replica: Replica,
    /// Timeline frames before this LSN are on the disk.
    pub durable: Lsn,
    pub sender: Sender,
    /// Whether the disk says so: what the server has just taken over is local there.
    pub is_recorded: bool,
}

impl Synced {
    /// A replica whose timeline is on the disk up to `durable`.
    pub fn new(replica: Replica, durable: Lsn) -> Self {
        let sender = Sender::new(replica.undecided().start());
        Self { replica, durable, sender, is_recorded: true }
    }

    /// Another timeline took the place of the one before: nothing of it is on the disk.
    pub fn begin_timeline(&mut self) {
        self.durable = Lsn::FIRST;
        self.sender = Sender::new(Lsn::FIRST);
    }
}

impl Open {
    /// A document as the store has it.
    pub fn from_store(
        state: OpenedDocument,
        life: Life,
        settings: &ClientSettings,
    ) -> Result<Self, CallFailure> {
        let mut record = match codec::decode::<Record>(&state.record) {
            Ok(record) => record,
            Err(_) if state.is_incomplete => return Err(CallFailure::damaged_copy()),
            Err(_) => {
                return Err(CallFailure::new(
                    ErrorCode::NewerFormat,
                    "this copy was written by a release that this one cannot read: load the \
                     newer release of the app; nothing was touched",
                ));
            }
        };
        let view = new_view(state.db_pages, settings);
        view.fill(state.first_page.into_iter().map(|page| (Pgid(1), page)).collect());
        let role = match (&record.server, state.timeline, state.storage) {
            // Of an incomplete one it may tell of lives that wrote only what is lost.
            (None, _, Some(position)) => {
                record.lives = record.lives.before(position.next);
                let lives = record.lives.clone();
                Role::Local(Box::new(Authority::new(view, position, lives, public_life(life))))
            }
            (Some(_), Some(timeline), stored) => {
                let base = record.base(stored);
                let head = timeline.range.end();
                record.lives = record.lives.before(head);
                let (journal, lives) = (timeline.journal, record.lives.clone());
                let replica = Replica::open(
                    view,
                    base,
                    OwnTimeline { journal, head, lives, life },
                    timeline.frames,
                    record.doctypes_by_hash(),
                    record.newest,
                );
                Role::Synced(Box::new(Synced::new(replica, head)))
            }
            _ => {
                assert!(state.is_incomplete, "BUG: a document without its journals");
                return Err(CallFailure::damaged_copy());
            }
        };
        Ok(Self {
            role,
            record,
            record_due: None,
            is_kept: true,
            is_unadopted: true,
            short_of: Vec::new(),
            adoption_lacks: None,
            is_incomplete: state.is_incomplete,
            found_to_go: None,
            storage_durable: state.storage.map_or(Lsn::FIRST, |position| position.next),
        })
    }

    /// Of data that were cleared the last copy may have what never gets to any disk: that is shown,
    /// and neither called durable nor sent.
    fn forget_undurable(&mut self, key: &DocumentKey, store: &StoreLink) {
        if let Role::Synced(synced) = &mut self.role
            && let Some(first) = store.first_frame(key, synced.replica.timeline())
        {
            synced.durable = first.clamp(synced.replica.undecided().start(), synced.durable);
        }
        if let Some(journal) = self.base().map(|base| base.journal)
            && let Some(first) = store.first_entry(key, journal)
        {
            self.storage_durable = self.storage_durable.min(first);
        }
    }

    /// A document that begins, local or not as its record says, with this journal.
    pub fn begin(
        record: Record,
        journal: JournalId,
        life: Life,
        settings: &ClientSettings,
    ) -> Self {
        let view = new_view(0, settings);
        let role = if record.server.is_none() {
            let (start, lives) = (Position::start_of(journal), Lineage::default());
            Role::Local(Box::new(Authority::new(view, start, lives, public_life(life))))
        } else {
            Role::Synced(Box::new(Synced::begin(view, None, &record, journal, life)))
        };
        Self {
            role,
            record,
            record_due: None,
            is_kept: false,
            is_unadopted: false,
            short_of: Vec::new(),
            adoption_lacks: None,
            is_incomplete: false,
            found_to_go: None,
            storage_durable: Lsn::FIRST,
        }
    }

    pub fn view(&self) -> &View {
        match &self.role {
            Role::Local(authority) => authority.view(),
            Role::Synced(synced) => synced.replica.view(),
        }
    }

    /// The connection for queries, which see this time as now.
    pub fn reader_at(&mut self, now_ms: u64) -> &mut Reader {
        self.view().set_now(now_ms);
        self.reader()
    }

    /// Whether this device has issued something that nobody has decided.
    pub fn has_undecided(&self) -> bool {
        match &self.role {
            Role::Local(_) => false,
            Role::Synced(synced) => !synced.replica.undecided().is_empty(),
        }
    }

    /// The same for queries of what is confirmed alone.
    pub fn confirmed_reader_at(&mut self, now_ms: u64) -> &mut Reader {
        self.view().set_now(now_ms);
        match &mut self.role {
            Role::Local(authority) => authority.reader(),
            Role::Synced(synced) => synced.replica.confirmed_reader(),
        }
    }

    fn reader(&mut self) -> &mut Reader {
        match &mut self.role {
            Role::Local(authority) => authority.reader(),
            Role::Synced(synced) => synced.replica.reader(),
        }
    }

    /// Whether queries see it at the version of this doctype, or beyond.
    pub fn is_migrated_to(&mut self, doctype: &Doctype) -> Run<bool> {
        is_migrated_to(self.reader(), doctype)
    }

    /// How many migrations it has seen, where that is known.
    pub fn version(&self) -> Option<usize> {
        match &self.role {
            // It was brought to the newest before that was noted.
            Role::Local(_) => self.record.doctype(self.record.newest).map(|it| it.migrations.len()),
            Role::Synced(synced) => synced.replica.version(),
        }
    }

    /// What mutations and queries have cost since this was last called, in steps.
    pub fn take_steps(&mut self) -> u64 {
        match &mut self.role {
            Role::Local(authority) => authority.take_steps(),
            Role::Synced(synced) => synced.replica.take_steps(),
        }
    }

    /// Who wrote the journal that this device writes.
    pub fn lives(&self) -> &Lineage {
        match &self.role {
            Role::Local(authority) => authority.lives(),
            Role::Synced(synced) => synced.replica.lives(),
        }
    }

    /// The entry at `lsn` of the journal that this device writes.
    pub fn entry_id(&self, lsn: Lsn) -> EntryId {
        match &self.role {
            Role::Local(authority) => authority.entry_id(lsn),
            Role::Synced(synced) => synced.replica.origin(lsn),
        }
    }

    /// The entry that is written next to the journal that this device writes, of no life yet.
    pub fn head(&self) -> EntryId {
        let (journal, lsn) = match &self.role {
            Role::Local(authority) => (authority.position().journal, authority.head()),
            Role::Synced(synced) => (synced.replica.timeline(), synced.replica.head()),
        };
        EntryId { journal, life: Life::NONE, lsn }
    }

    /// Where that journal ends on the disk: what is behind may be taken back, and given to others.
    pub fn durable_head(&self) -> EntryId {
        let lsn = match &self.role {
            Role::Local(_) => self.storage_durable,
            Role::Synced(synced) => synced.durable,
        };
        EntryId { lsn, ..self.head() }
    }

    /// Whether this entry is in the journal that this device writes, and has its verdict.
    pub fn has_decided(&self, entry: EntryId) -> bool {
        let decided = match &self.role {
            Role::Local(authority) => authority.head(),
            Role::Synced(synced) => synced.replica.undecided().start(),
        };
        entry.lsn < decided && entry.life != Life::NONE && self.entry_id(entry.lsn) == entry
    }

    /// Whether a mutation that has its verdict was applied, as far as is known.
    pub fn is_applied(&self, entry: EntryId) -> bool {
        match &self.role {
            Role::Local(_) => true,
            Role::Synced(synced) => self.record.is_applied(entry, synced.replica.timeline()),
        }
    }

    /// The entries of calls that the store remembers, oldest first, given their LSNs: the youngest
    /// are of the journal that this device writes, up to where its decided entries end.
    pub fn entries_of(&self, calls: Vec<(CallId, Lsn)>) -> Vec<(CallId, EntryId)> {
        let own_count = match &self.role {
            Role::Local(_) => calls.len() as u64,
            Role::Synced(synced) => synced.replica.undecided().start().get() - 1,
        };
        let others_count = (calls.len() as u64).saturating_sub(own_count);
        let entries = (0..).zip(calls).map(|(nth, (call, lsn))| match nth < others_count {
            true => (call, EntryId { journal: JournalId::NONE, life: Life::NONE, lsn }),
            false => (call, self.entry_id(lsn)),
        });
        entries.collect()
    }

    /// What is visible of the storage journal; `None` before the first entry of a server.
    pub fn base(&self) -> Option<Position> {
        match &self.role {
            Role::Local(authority) => Some(authority.position()),
            Role::Synced(synced) => synced.replica.base(),
        }
    }

    /// The first storage LSN that is not visible.
    pub fn visible(&self) -> Lsn {
        self.base().map_or(Lsn::FIRST, |position| position.next)
    }

    /// Whether the document is not at the version of who holds it so, for want of memory alone; or
    /// which page is missing to tell.
    pub fn is_short_of(&mut self, HandleState { doctype, .. }: &HandleState) -> Result<bool, Pgid> {
        match &mut self.role {
            Role::Local(_) => Ok(self.short_of.contains(doctype)),
            Role::Synced(synced) => synced.replica.is_short_of(doctype),
        }
    }

    /// Whether there was no memory for something that is to be shown.
    pub fn is_short(&self) -> bool {
        match &self.role {
            Role::Local(_) => !self.short_of.is_empty(),
            Role::Synced(synced) => synced.replica.is_short(),
        }
    }

    /// Whether something of it is still to be built.
    pub fn is_unbuilt(&self) -> bool {
        match &self.role {
            Role::Local(_) => self.is_unadopted,
            Role::Synced(synced) => !synced.replica.is_rebased(),
        }
    }

    /// Whether it is to be brought to the doctypes of the tabs that hold it, and nothing is known
    /// that is in the way.
    pub fn awaits_adoption(&self) -> bool {
        self.is_unadopted && self.short_of.is_empty() && self.adoption_lacks.is_none()
    }

    pub fn synced_mut(&mut self) -> Option<&mut Synced> {
        match &mut self.role {
            Role::Synced(synced) => Some(synced),
            Role::Local(_) => None,
        }
    }

    /// Keeps the doctypes that are needed in the record, no more: the newest, the one that the
    /// server has, those of frames and handles. A newest one that parts from this is not. Says
    /// whether that changed it.
    pub fn record_doctype(&mut self, doctype: &Doctype, held: &[DoctypeHash]) -> bool {
        let record = &mut self.record;
        let hashes = |record: &Record| -> Vec<_> {
            let hashes = record.doctypes.iter().map(|known| known.hash);
            hashes.chain([record.newest]).collect()
        };
        let hash = record.hash_of(doctype).unwrap_or_else(|| doctype.hash());
        let before = hashes(record);
        let newest = record.doctype(record.newest).expect("BUG: a record without its doctype");
        let parts = doctype.parts_from(newest);
        if parts {
            reached(Probe::DoctypeGaveWay);
        }
        // Of two with the same migrations none takes the place of one that is held, or they would
        // take turns.
        let stays = newest.succeeds(doctype) && held.contains(&record.newest);
        if parts || doctype.succeeds(newest) && !stays {
            record.newest = hash;
        }
        if record.doctype(hash).is_none() {
            record.doctypes.push(HashedDoctype { hash, doctype: doctype.clone() });
        }
        let mut needed = match &self.role {
            Role::Synced(synced) => synced.replica.doctypes_in_use(),
            Role::Local(_) => Vec::new(),
        };
        needed.push(record.newest);
        needed.extend(record.taken);
        needed.extend(held);
        needed.push(hash);
        record.doctypes.retain(|known| needed.contains(&known.hash));
        hashes(record) != before
    }

    /// Forgets the newest doctype, which nobody needs, if it is this one and there is another. Says
    /// whether it has.
    pub fn forget_newest(&mut self, doctype: DoctypeHash) -> bool {
        let Role::Synced(synced) = &mut self.role else { return false };
        let record = &mut self.record;
        if record.newest != doctype {
            return false;
        }
        let others = record.doctypes.iter().filter(|known| known.hash != doctype);
        let next = others.max_by_key(|known| known.doctype.migrations.len());
        let Some(next) = next.map(|known| known.hash) else { return false };
        record.newest = next;
        record.doctypes.retain(|known| known.hash != doctype);
        if synced.replica.newest() == doctype {
            synced.replica.unlearn(next);
        }
        true
    }
}

impl Synced {
    /// A replica over these pages with a timeline that begins here.
    pub fn begin(
        view: View,
        base: Option<Position>,
        record: &Record,
        journal: JournalId,
        life: Life,
    ) -> Self {
        let (head, lives) = (Lsn::FIRST, Lineage::default());
        let start = OwnTimeline { journal, head, lives, life };
        let (doctypes, newest) = (record.doctypes_by_hash(), record.newest);
        let replica = Replica::open(view, base, start, Vec::new(), doctypes, newest);
        Self::new(replica, Lsn::FIRST)
    }
}

/// A view of a base of `db_pages` pages, none of them in memory yet.
fn new_view(db_pages: u32, settings: &ClientSettings) -> View {
    let ClientSettings { limits, query_stopwatch } = *settings;
    View::new(limits.pool_pages_max, db_pages)
        .with_limits(limits)
        .with_query_stopwatch(query_stopwatch)
}

impl Document {
    pub(super) fn open_mut(&mut self) -> Option<&mut Open> {
        match &mut self.state {
            State::Open(open) => Some(open),
            _ => None,
        }
    }

    pub(super) fn synced(&self) -> Option<&Synced> {
        match &self.open()?.role {
            Role::Synced(synced) => Some(synced),
            Role::Local(_) => None,
        }
    }

    pub(super) fn replica(&self) -> Option<&Replica> {
        self.synced().map(|synced| &synced.replica)
    }

    /// The store says where the document stands.
    pub(crate) fn opened(&mut self, state: Option<OpenedDocument>, ctx: &mut Context<'_>) {
        if self.is_loaded() {
            return;
        }
        let before = match &mut self.state {
            State::Asking { server } => server.take(),
            _ => unreachable!("BUG: nobody asked"),
        };
        let Some(mut state) = state else {
            self.state = State::Absent;
            self.stay_where_it_was_found(before);
            // It is made again with the next request: until then no server is asked for it.
            if let Some(failure) = self.why_wrong().cloned() {
                self.fail_listeners(&failure, ctx.out);
            }
            return;
        };
        let calls = std::mem::take(&mut state.calls);
        // The store keeps at least as many.
        let has_forgotten = calls.len() >= ctx.settings.limits.calls_kept_max;
        let frames = state.timeline.iter().flat_map(|timeline| &timeline.frames);
        let frames: Vec<_> = frames.map(|frame| (frame.call, frame.lsn)).collect();
        match Open::from_store(state, ctx.life, &ctx.settings) {
            Ok(mut open) => {
                self.recorded.has_forgotten |= has_forgotten;
                self.recorded.extend(open.entries_of(calls));
                let entry = |(call, lsn)| (call, open.entry_id(lsn));
                self.recorded.extend(frames.into_iter().map(entry));
                if let Role::Synced(synced) = &mut open.role {
                    // What was taken back is not waited for; another timeline has LSNs of its own.
                    let (timeline, head) = (synced.replica.timeline(), synced.replica.head());
                    for sync in &mut self.syncs {
                        let (before, needed) = sync.timeline;
                        let needed = if before == timeline { needed.min(head) } else { head };
                        sync.timeline = (timeline, needed);
                    }
                }
                self.remind_of_doctypes(&mut open);
                open.forget_undurable(&self.key, ctx.store);
                let is_incomplete = open.is_incomplete;
                self.state = State::Open(Box::new(open));
                self.stay_where_it_was_found(before);
                if is_incomplete {
                    let failure = CallFailure::damaged_copy();
                    self.fail_confirming(&failure, ctx.out);
                    self.error = Some(failure);
                }
                self.catch_up_listeners(ctx);
            }
            Err(failure) => self.break_down(failure, ctx.out),
        }
    }

    /// The data were cleared, and nobody reads any more what there was.
    pub(crate) fn store_is_over(&mut self, out: &mut Outbox) {
        self.reads.give_up();
        if !self.is_loaded() {
            self.break_down(CallFailure::data_cleared(), out);
        }
    }

    /// It cannot be opened: calls are told when they are made, and those who have made theirs now.
    pub(super) fn break_down(&mut self, failure: CallFailure, out: &mut Outbox) {
        self.fail_listeners(&failure, out);
        self.state = State::Broken(failure);
    }

    /// There is nothing to be told of the document at present.
    fn fail_listeners(&mut self, failure: &CallFailure, out: &mut Outbox) {
        self.fail_confirming(failure, out);
        self.fail_syncs(failure, out);
        self.watches.fail_all(failure, out);
    }

    /// Tells who waits for a verdict of what is not here any more: it may have been applied.
    fn fail_confirming(&mut self, failure: &CallFailure, out: &mut Outbox) {
        let confirming = std::mem::take(&mut self.confirming);
        let is_here = |id| self.replica().is_some_and(|replica| replica.find_call(id).is_some());
        let (kept, lost) = confirming.into_iter().partition(|(id, _)| is_here(*id));
        self.confirming = kept;
        for (tab, call) in BTreeMap::into_values(lost) {
            let failure = CallFailure { outcome: Outcome::Unknown, ..failure.clone() };
            out.tell(tab, FromCore::Failed { call, failure });
        }
    }
}
