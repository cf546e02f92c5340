//! Opening a document: making it, and bringing it to a doctype.

use std::collections::BTreeMap;

use tidelog_document::{Committed, Doctype, DoctypeHash, Replica, check};
use tidelog_sqlite::{Run, View};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{ErrorCode, Lineage, Lsn};

use super::open::RecordDue;
use super::requests::{Ask, Ran};
use super::storing::Then;
use super::{Context, Document, HandleState, Open, Role, State};
use crate::effect::TabId;
use crate::protocol::{CallFailure, FromCore, Handle, OpenRequest, Request};
use crate::record::{HashedDoctype, Record};

impl Document {
    #[inline(never)]
    pub(super) fn run_open(
        &mut self,
        ask: &Ask,
        request: &OpenRequest,
        ctx: &mut Context<'_>,
    ) -> Ran {
        self.seal();
        let doctype = &request.doctype;
        let recorded = self.open().and_then(|open| open.record.hash_of(doctype));
        let hash = recorded.unwrap_or_else(|| doctype.hash());
        // What is in the record was checked before it got there.
        if recorded.is_none()
            && let Err(error) = check(doctype, &View::new(usize::MAX, 0), ctx.found_right)
        {
            return Ran::Failed(CallFailure::of_doctype(&error));
        }
        if let State::Absent = self.state {
            self.create_again(ctx);
        }
        match &self.state {
            State::Open(open) => {
                let known = self.needed_that_parts_from(doctype, open);
                if let Some(why) = known.and_then(|known| doctype.parting_from(known)) {
                    return Ran::Failed(CallFailure::doctype_mismatch(&why));
                }
                if recorded.is_none() {
                    match self.compare_with_the_servers(doctype, hash) {
                        Ran::Done => {}
                        ran => return ran,
                    }
                }
            }
            _ => self.create(doctype, request.server.clone(), ctx),
        }
        // Before the layers would be built anew, which failed for that.
        if let Some(failure) = self.following.rebase_failure.take() {
            return Ran::Failed(failure);
        }
        let State::Open(open) = &mut self.state else { unreachable!("BUG: created just now") };
        let ready = match &mut open.role {
            Role::Local(_) if request.server.is_some() => self.run_offer(ask, request, ctx),
            Role::Local(_) => self.migrate(doctype),
            // What the disk can never have is not waited for.
            Role::Synced(synced) if !synced.is_recorded => match ctx.store.is_lost() {
                true => Ran::Failed(CallFailure::data_cleared()),
                false => Ran::Waits,
            },
            Role::Synced(synced) => {
                let replica = &mut synced.replica;
                replica.learn(doctype.clone());
                if !replica.is_built() {
                    return Ran::Waits;
                }
                match replica.migration_failure(doctype) {
                    Run::Done(None) => Ran::Done,
                    Run::Done(Some(failure)) | Run::Failed(failure) => {
                        Ran::Failed(CallFailure::of_migration(&failure))
                    }
                    Run::Fault(pgid) => Ran::Fault(pgid),
                }
            }
        };
        if !matches!(ready, Ran::Done) {
            return ready;
        }
        self.note_doctype(doctype, ctx);
        self.handles.insert(
            (ask.tab, ask.handle),
            HandleState {
                server: request.server.clone(),
                doctype: doctype.clone(),
                hash,
                has_token: request.has_token,
                told: None,
                told_at_ms: 0,
            },
        );
        if let (Some(server), Some(_)) = (&request.server, self.replica()) {
            self.note_server(server);
        }
        let (status, memo) = (self.status(doctype, ctx), self.memo());
        if let Some(handle) = self.handles.get_mut(&(ask.tab, ask.handle)) {
            handle.told = Some((status.clone(), memo));
        }
        ctx.out.tell(ask.tab, FromCore::Opened { call: ask.call, status, memo });
        self.tell_rejections(ctx.out);
        Ran::Done
    }

    /// Refuses a doctype that nobody has opened the document by here, and that it is not of: the
    /// server may have migrated it by one that this device has never heard of.
    fn compare_with_the_servers(&mut self, doctype: &Doctype, hash: DoctypeHash) -> Ran {
        let State::Open(open) = &mut self.state else { return Ran::Done };
        let Role::Synced(synced) = &open.role else { return Ran::Done };
        let replica = &synced.replica;
        // It is asked again until layers are built.
        let found = Some((hash, replica.base()));
        if open.found_to_go == found {
            return Ran::Done;
        }
        let newest = open.record.doctype(open.record.newest).expect("BUG: no newest doctype");
        match replica.is_of_another(doctype, newest, View::new(usize::MAX, 0)) {
            Ok(Run::Done(false)) => {
                open.found_to_go = found;
                Ran::Done
            }
            Ok(Run::Fault(pgid)) => Ran::Needs(replica.view().fork().to_fetch(pgid, 0)),
            Ok(Run::Failed(failure)) => Ran::Failed(CallFailure::of_query(&failure)),
            Ok(Run::Done(true)) => {
                reached(Probe::ServersDoctypeOther);
                let why = format!(
                    "its server has migrated it otherwise than the {} migrations of this {} do: \
                     only ever append migrations, or open another document",
                    doctype.migrations.len(),
                    doctype.name
                );
                Ran::Failed(CallFailure::doctype_mismatch(&why))
            }
            Err(error) => Ran::Failed(CallFailure::of_doctype(&error)),
        }
    }

    /// A doctype that somebody needs, of which this one is neither an older nor a newer release.
    fn needed_that_parts_from<'a>(
        &'a self,
        doctype: &Doctype,
        open: &'a Open,
    ) -> Option<&'a Doctype> {
        // Read anew, it may have forgotten some that tabs hold it by.
        let held = self.handles.values().map(|handle| &handle.doctype);
        let recorded = open.record.doctypes.iter();
        let parting = recorded.filter(|known| doctype.parts_from(&known.doctype));
        let needed = parting.filter(|known| self.is_needed(known.hash, open));
        needed
            .map(|known| &known.doctype)
            .chain(held.filter(|held| doctype.parts_from(held)))
            .next()
    }

    /// Whether the document cannot go on without this doctype: its pages are migrated to it, here
    /// or at the server, or somebody has it open by that, or is to open it, or has issued what
    /// waits for its verdict.
    pub(super) fn is_needed(&self, doctype: DoctypeHash, open: &Open) -> bool {
        let Record { newest, taken, .. } = open.record;
        match &open.role {
            Role::Local(_) => doctype == newest,
            Role::Synced(_) if taken == Some(doctype) => true,
            Role::Synced(synced) => {
                self.is_wanted(doctype, &self.queue) || synced.replica.has_undecided_of(doctype)
            }
        }
    }

    /// Somebody has let go of the document, or does not open it after all: what nobody wants any
    /// more is of no use.
    pub(super) fn let_go_of_doctypes(&mut self) {
        self.unlearn_unwanted_doctype();
        self.forget_refused_doctype();
    }

    /// Whoever was to open the document by a newer doctype may be gone before it was, or it could
    /// not be: no server knows of that, and nobody shows what is migrated to it. One that the
    /// document was ever opened by is in the record.
    fn unlearn_unwanted_doctype(&mut self) {
        let Some(newest) = self.replica().map(Replica::newest) else { return };
        let is_recorded = self.open().is_some_and(|open| open.record.doctype(newest).is_some());
        // Whoever is to open it later learns it again: until then others are shown what is here.
        if is_recorded || self.is_wanted(newest, self.queue.front()) {
            return;
        }
        let State::Open(open) = &mut self.state else { return };
        let Role::Synced(synced) = &mut open.role else { return };
        synced.replica.unlearn(open.record.newest);
    }

    /// Whether a tab has the document open by this doctype, or one of these is to open it.
    pub(super) fn is_wanted<'a>(
        &self,
        doctype: DoctypeHash,
        asks: impl IntoIterator<Item = &'a Ask>,
    ) -> bool {
        let opens = |ask: &Ask| match &ask.request {
            Request::Open(request) => request.doctype.hash() == doctype,
            _ => false,
        };
        let is_held = self.handles.values().any(|handle| handle.hash == doctype);
        is_held || asks.into_iter().any(opens)
    }

    /// Brings a document that this device decides to a doctype's version.
    fn migrate(&mut self, doctype: &Doctype) -> Ran {
        // Mutations of the same step come before it.
        self.seal();
        let State::Open(open) = &mut self.state else { unreachable!("BUG: not open") };
        let Role::Local(authority) = &mut open.role else { return Ran::Done };
        match authority.migrate(doctype) {
            Run::Done(None) => Ran::Done,
            Run::Done(Some(Committed { entry, .. })) => {
                self.watches.mark(&entry.set.pgids(), open.view());
                self.watches.mark_confirmed();
                self.append_storage(entry);
                Ran::Done
            }
            Run::Fault(pgid) => Ran::Fault(pgid),
            Run::Failed(failure) => Ran::Failed(CallFailure::of_migration(&failure)),
        }
    }

    /// Makes the document, in memory; its first append makes it in the store.
    fn create(&mut self, doctype: &Doctype, server: Option<String>, ctx: &mut Context<'_>) {
        // That was said of the document that was there before.
        self.following.moved = None;
        let record = Record {
            secret: ctx.rng.secret(),
            server,
            newest: doctype.hash(),
            taken: None,
            doctypes: vec![HashedDoctype::new(doctype.clone())],
            lives: Lineage::default(),
            seeded: None,
            access: None,
            subject: None,
            synced: false,
            rejections: Vec::new(),
            forgotten: None,
            consumers: BTreeMap::new(),
        };
        let journal = ctx.rng.journal();
        let mut open = Open::begin(record, journal, ctx.life, &ctx.settings);
        // Whoever holds it may do so by another doctype.
        open.is_unadopted = !self.handles.is_empty();
        match &open.role {
            Role::Local(_) => self.ledger.draft().begin_storage = Some(journal),
            Role::Synced(_) => self.ledger.draft().begin_timeline = Some((journal, Lsn::FIRST)),
        }
        self.state = State::Open(Box::new(open));
        self.append_record();
        self.ledger.after(Then::Kept);
    }

    /// The store has lost what was never durable: the document begins anew for those who hold it,
    /// if anybody does.
    pub(super) fn create_again(&mut self, ctx: &mut Context<'_>) {
        let newest = self.handles.values().max_by_key(|handle| handle.doctype.migrations.len());
        let Some(doctype) = newest.map(|handle| handle.doctype.clone()) else { return };
        reached(Probe::DocumentMadeAgain);
        let server = self.server_to_begin_at();
        self.create(&doctype, server, ctx);
    }

    /// Where the document was read anew while tabs hold it, it has to know their doctypes again.
    /// What finds no memory for that is noted, and holds up nobody who needs nothing newer: it is
    /// tried again for whoever `needs` it.
    pub(super) fn adopt_handles(
        &mut self,
        needs: Option<(TabId, Handle)>,
        ctx: &mut Context<'_>,
    ) -> Ran {
        let handle = needs.and_then(|holder| self.handles.get(&holder));
        let is_due = |open: &Open| {
            let is_short = handle.is_some_and(|handle| open.short_of.contains(&handle.doctype));
            open.is_unadopted && (open.short_of.is_empty() || is_short)
        };
        if !self.open().is_some_and(is_due) {
            return Ran::Done;
        }
        let mut short_of = Vec::new();
        for doctype in self.doctypes_of_handles() {
            // Where it fails it stays at its version, and what needs the newer one fails.
            match self.migrate(&doctype) {
                Ran::Fault(pgid) => return Ran::Fault(pgid),
                Ran::Failed(failure) if failure.code == ErrorCode::Engine => {
                    short_of.push(doctype.clone());
                }
                _ => {}
            }
            if let State::Open(open) = &mut self.state
                && let Role::Synced(synced) = &mut open.role
            {
                synced.replica.learn(doctype.clone());
            }
            // One that was made again, or is local, knows but one of them.
            self.note_doctype(&doctype, ctx);
        }
        if let State::Open(open) = &mut self.state {
            open.is_unadopted = !short_of.is_empty();
            open.short_of = short_of;
            // What was lost is there again.
            open.adoption_lacks = None;
        }
        Ran::Done
    }

    /// A synced document that was read anew knows the doctypes of tabs at once, which the disk may
    /// not have: its server is to hear of them, and so is the disk, with the next frame that may
    /// name one, whether the document can be brought to them or not.
    pub(super) fn remind_of_doctypes(&self, open: &mut Open) {
        let held: Vec<_> = self.handles.values().map(|handle| handle.hash).collect();
        for doctype in self.doctypes_of_handles() {
            let Role::Synced(synced) = &mut open.role else { return };
            synced.replica.learn(doctype.clone());
            if open.record_doctype(&doctype, &held) {
                open.record_due = open.record_due.max(Some(RecordDue::WithNext));
            }
        }
    }

    /// The doctypes that tabs know it by, each succeeding those before it.
    pub(super) fn doctypes_of_handles(&self) -> Vec<Doctype> {
        let doctypes = self.handles.values().map(|handle| handle.doctype.clone());
        let mut doctypes: Vec<Doctype> = doctypes.collect();
        doctypes.sort_by_key(|doctype| doctype.migrations.len());
        doctypes
    }

    /// Keeps the doctypes that are needed in the record, and tells the server of a new one.
    pub(super) fn note_doctype(&mut self, doctype: &Doctype, ctx: &mut Context<'_>) {
        let held: Vec<_> = self.handles.values().map(|handle| handle.hash).collect();
        let State::Open(open) = &mut self.state else { unreachable!("BUG: not open") };
        if !open.record_doctype(doctype, &held) {
            return;
        }
        self.append_record();
        self.forget_refusal_of_another();
        if self.following.offer.is_none() {
            // The server has to know every doctype that frames may name. What it has sent comes
            // again once it has taken this one: it may be of another that parts from it.
            self.leave_server(ctx);
            if let State::Open(open) = &mut self.state
                && let Some(synced) = open.synced_mut()
                && !synced.replica.is_rebased()
            {
                synced.replica.forget_staged();
            }
        }
    }
}
