//! Opening a document: making it, bringing it to a doctype, handing it to a server.

use tidelog_document::{Authority, Doctype, Replica, check};
use tidelog_sqlite::{Run, View};
use tidelog_types::limits::CALL_SETTLES_MS;
use tidelog_types::{Lsn, Position};

use super::following::Offer;
use super::ops::{OpenCall, Ran};
use super::{Context, Document, HandleState, Role};
use crate::effect::TabId;
use crate::protocol::{Call, CallFailure, FromCore};
use crate::record::Record;

impl Document {
    #[inline(never)]
    pub(super) fn run_open(
        &mut self,
        tab: TabId,
        call: Call,
        open: &OpenCall,
        ctx: &mut Context<'_>,
    ) -> Ran {
        self.seal();
        // What is in the record was checked before it got there.
        let known = self.record.as_ref().is_some_and(|record| record.doctype(open.hash).is_some());
        if !known && !ctx.checked.contains(&open.hash) {
            if let Err(error) = check(&open.doctype) {
                return Ran::Failed(CallFailure::of_doctype(&error));
            }
            ctx.checked.push(open.hash);
        }
        if let Some(record) = &self.record {
            let newest = record.doctype(record.newest).expect("BUG: a record without its doctype");
            if !open.doctype.succeeds(newest) && !newest.succeeds(&open.doctype) {
                let describe = |doctype: &Doctype| {
                    format!("{} with {} migrations", doctype.name, doctype.migrations.len())
                };
                return Ran::Failed(CallFailure::doctype_mismatch(
                    &describe(newest),
                    &describe(&open.doctype),
                ));
            }
        } else {
            self.create(&open.doctype, open.server.clone(), ctx);
        }
        let ready = match self.role.as_mut().expect("BUG: created just now") {
            Role::Local(_) if open.server.is_some() => self.run_offer(tab, open, ctx),
            Role::Local(authority) => match authority.migrate(&open.doctype) {
                Run::Done(entry) => {
                    if let Some(entry) = entry {
                        let changed = entry.set.pgids();
                        self.append_storage(entry);
                        self.mark_dirty(&changed);
                    }
                    Ran::Done
                }
                Run::Fault(pgid) => Ran::Fault(pgid),
                Run::Failed(failure) => Ran::Failed(CallFailure::of_migration(&failure)),
            },
            Role::Synced(replica) => {
                replica.learn(open.doctype.clone());
                match replica.migration_failure(open.hash) {
                    _ if !replica.is_settled() => Ran::Waits,
                    Some(failure) => Ran::Failed(CallFailure::of_migration(failure)),
                    None => Ran::Done,
                }
            }
        };
        if !matches!(ready, Ran::Done) {
            return ready;
        }
        if let Some(failure) = self.following.rebase_failure.take() {
            return Ran::Failed(failure);
        }
        self.note_doctype(&open.doctype, ctx);
        self.handles.insert(
            (tab, open.handle),
            HandleState {
                server: open.server.clone(),
                doctype: open.doctype.clone(),
                hash: open.hash,
                has_token: open.has_token,
                listens: false,
                told: None,
                told_at_ms: 0,
            },
        );
        if let (Some(server), Role::Synced(_)) = (&open.server, self.role.as_ref().expect("open")) {
            self.note_server(server);
        }
        let status = self.status(ctx);
        ctx.out.tell(tab, FromCore::Opened { call, status });
        Ran::Done
    }

    /// Makes the document, in memory; its first append makes it in the store.
    fn create(&mut self, doctype: &Doctype, server: Option<String>, ctx: &mut Context<'_>) {
        let view = View::new(self.settings.pool_pages_max, 0);
        let hash = doctype.hash();
        let record = Record {
            client: ctx.rng.client(),
            server,
            doctypes: vec![doctype.clone()],
            newest: hash,
            kept: Lsn::FIRST,
            rejections: Vec::new(),
        };
        let journal = ctx.rng.journal();
        self.role = Some(if record.server.is_none() {
            self.append.begin_storage = Some(journal);
            Role::Local(Box::new(Authority::new(view, Position::start_of(journal))))
        } else {
            self.append.begin_timeline = Some((journal, Lsn::FIRST));
            self.durable = Lsn::FIRST;
            Role::Synced(Box::new(Replica::open(
                view,
                None,
                (journal, Lsn::FIRST),
                Vec::new(),
                Lsn::FIRST,
                [(hash, doctype.clone())].into(),
                hash,
            )))
        });
        self.record = Some(record);
        self.append_record();
    }

    /// The store has lost what was never durable: the document begins anew for those who hold it.
    pub(super) fn create_again(&mut self, ctx: &mut Context<'_>) {
        let newest = self.handles.values().max_by_key(|handle| handle.doctype.migrations.len());
        let Some(doctype) = newest.map(|handle| handle.doctype.clone()) else { return };
        let server = self.handles.values().find_map(|handle| handle.server.clone());
        self.create(&doctype, server, ctx);
        self.unadopted = true;
    }

    /// The document was read anew while tabs hold it: it has to know their doctypes again.
    pub(super) fn adopt_handles(&mut self, ctx: &mut Context<'_>) -> Ran {
        for doctype in self.doctypes_of_handles() {
            match &mut self.role {
                Some(Role::Local(authority)) => match authority.migrate(&doctype) {
                    Run::Done(None) => {}
                    Run::Done(Some(entry)) => {
                        let changed = entry.set.pgids();
                        self.append_storage(entry);
                        self.mark_dirty(&changed);
                    }
                    Run::Fault(pgid) => return Ran::Fault(pgid),
                    // It stays at its version, and what needs the newer one fails.
                    Run::Failed(_) => {}
                },
                Some(Role::Synced(replica)) => replica.learn(doctype.clone()),
                None => {}
            }
            // The server may have been asked meanwhile, by what the disk had of them.
            self.note_doctype(&doctype, ctx);
        }
        self.unadopted = false;
        Ran::Done
    }

    /// The doctypes that tabs know it by, each succeeding those before it.
    pub(super) fn doctypes_of_handles(&self) -> Vec<Doctype> {
        let doctypes = self.handles.values().map(|handle| handle.doctype.clone());
        let mut doctypes: Vec<Doctype> = doctypes.collect();
        doctypes.sort_by_key(|doctype| doctype.migrations.len());
        doctypes
    }

    /// Keeps the doctypes that are needed in the record, and tells the server of a new one.
    fn note_doctype(&mut self, doctype: &Doctype, ctx: &mut Context<'_>) {
        if self.record_doctype(doctype) && self.following.offer.is_none() {
            // The server has to know every doctype that frames may name.
            self.leave_server(ctx);
        }
    }

    /// Keeps the doctypes that are needed in the record, no more. Says whether that changed it.
    fn record_doctype(&mut self, doctype: &Doctype) -> bool {
        let record = self.record.as_mut().expect("BUG: open without a record");
        let before = record.clone();
        let newest = record.doctype(record.newest).expect("BUG: a record without its doctype");
        if doctype.succeeds(newest) {
            record.newest = doctype.hash();
        }
        if record.doctype(doctype.hash()).is_none() {
            record.doctypes.push(doctype.clone());
        }
        let mut needed = match &self.role {
            Some(Role::Synced(replica)) => replica.doctypes_in_use(),
            _ => Vec::new(),
        };
        needed.push(record.newest);
        needed.extend(self.handles.values().map(|handle| handle.hash));
        needed.push(doctype.hash());
        record.doctypes.retain(|doctype| needed.contains(&doctype.hash()));
        let changed = *record != before;
        if changed {
            self.append_record();
        }
        changed
    }

    #[inline(never)]
    fn run_offer(&mut self, tab: TabId, open: &OpenCall, ctx: &mut Context<'_>) -> Ran {
        match self.following.offer.take() {
            None => {
                let url = open.server.clone().expect("BUG: an offer to nobody");
                let deadline_ms = ctx.now_ms + CALL_SETTLES_MS * 8 / 10;
                let token_from = open.has_token.then_some((tab, open.handle));
                let doctype = open.doctype.clone();
                self.following.offer = Some(Offer::new(url, doctype, token_from, deadline_ms));
                Ran::Waits
            }
            Some(offer) => match offer.outcome(ctx.now_ms) {
                None => {
                    self.following.offer = Some(offer);
                    Ran::Waits
                }
                Some(failure) => {
                    self.following.offer = Some(offer);
                    self.give_up_offer(ctx);
                    Ran::Failed(failure)
                }
            },
        }
    }
}
