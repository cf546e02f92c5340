//! What its server says of the document.

use tidelog_document::{ArrivingEntry, InstanceId, ServerEntry, public_entry};
use tidelog_sync::{Channel, EntryPart, FromRoom, PeerAhead, Refusal, UndecidedReason};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Budget, ErrorCode, Lineage, Lsn, Pgid, Position, Role as TokenRole};

use super::{NoVerdict, RETRY_FINAL_MS};
use crate::document::open::{Open, RecordDue, Synced};
use crate::document::reads::For;
use crate::document::{Context, Document, Role, State};
use crate::protocol::{Call, CallFailure};

impl Document {
    /// What the server says of this document.
    #[inline(never)]
    pub(crate) fn on_server(
        &mut self,
        server: &str,
        channel: Channel,
        message: FromRoom,
        ctx: &mut Context<'_>,
    ) {
        if !self.is_channel_at(server) || self.channel() != Some(channel) {
            return;
        }
        match message {
            FromRoom::Opened { storage, from, wanted, lives } => {
                self.on_opened(storage, from, (wanted, &lives), ctx);
            }
            FromRoom::Allowed { role } => self.on_allowed(role, ctx),
            FromRoom::Forbidden { lsn } => {
                if let Some(synced) = self.open_mut().and_then(|open| open.synced_mut()) {
                    synced.replica.withdraw(lsn);
                }
            }
            FromRoom::SeedWanted => self.seed_wanted(ctx),
            FromRoom::SeedTaken { pages_count } => self.seed_taken(pages_count, ctx),
            FromRoom::Seeded { position } => self.on_seeded(position, ctx),
            FromRoom::Entry(part) => self.on_entry(part, ctx),
            FromRoom::Acked { next } => {
                let synced = self.open_mut().and_then(|open| open.synced_mut());
                let acked = synced.map(|synced| synced.sender.on_acked(next, synced.durable));
                // Another copy of this device's data has gone on in the timeline.
                if let Some(Err(PeerAhead { .. })) = acked {
                    self.on_refused(&Refusal::Parted, ctx);
                }
            }
            FromRoom::Probed { probe, next } => {
                for sync in &mut self.syncs {
                    if sync.probe == Some(probe) {
                        sync.storage = Some(next);
                    }
                }
            }
            FromRoom::Refused(refusal) => self.on_refused(&refusal, ctx),
            FromRoom::Presence(news) => self.presence.hear(&news),
            FromRoom::Archived { number, answer } => self.on_archived(number, answer, ctx),
            FromRoom::Registered { tag, instance } => self.on_registered(tag, InstanceId(instance)),
            FromRoom::NotRegistered { tag, reason } => self.on_not_registered(tag, &reason, ctx),
            FromRoom::Completed { tag, number, answer, time_ms } => {
                self.on_completed(tag, Call(number), (answer, time_ms), ctx);
            }
            FromRoom::Undecided { why, .. } => {
                // What this device brings along itself changes when it does. Of one who may only
                // send the server takes no doctype: others bring it.
                let access = self.open().and_then(|open| open.record.access);
                let is_theirs = access == Some(TokenRole::Send)
                    || !matches!(why, UndecidedReason::UnknownDoctype { .. });
                let failure = CallFailure::of_undecided(&self.key.document, &why);
                if let Some(channel) = self.following.channel.as_mut().filter(|_| is_theirs) {
                    channel.ask_again_at_ms.get_or_insert(ctx.now_ms + RETRY_FINAL_MS);
                    let before = self.following.no_verdict.take();
                    self.following.no_verdict = Some(NoVerdict {
                        failure: failure.clone(),
                        said_at_ms: ctx.now_ms,
                        is_doubted: before.is_some_and(|before| before.is_doubted),
                    });
                }
                self.error = Some(failure);
            }
        }
    }

    /// Whoever may send or write from now on comes anew: only then does the server take a doctype
    /// that is newer than its own, and frames of which it has said that it takes none.
    fn on_allowed(&mut self, role: TokenRole, ctx: &mut Context<'_>) {
        let was = self.open().and_then(|open| open.record.access);
        self.note_access(Some(role));
        let might_not_write = was.is_some_and(|was| was < TokenRole::Write);
        if self.is_online() && might_not_write && was < Some(role) {
            self.leave_server(ctx);
        }
    }

    /// What the server allows this copy, as far as it has said so.
    fn note_access(&mut self, access: Option<TokenRole>) {
        if let Some(open) = self.open_mut()
            && open.record.access != access
        {
            open.record.access = access;
            open.record_due = open.record_due.max(Some(RecordDue::WithNext));
        }
    }

    /// The server stands at `storage`, sends what follows on `from`, and has applied of our
    /// timeline what came before the LSN, written by these lives.
    fn on_opened(
        &mut self,
        storage: Position,
        from: Lsn,
        (wanted, lives): (Lsn, &Lineage),
        ctx: &mut Context<'_>,
    ) {
        let server = self.following.channel.as_ref().map(|it| self.link_name(&it.server));
        let subject = server.and_then(|link| ctx.servers.get(&link)?.subject());
        if subject.is_none() {
            self.note_access(Some(TokenRole::Admin));
        }
        let State::Open(open) = &mut self.state else { return };
        let Role::Synced(synced) = &mut open.role else { return };
        let Some(channel) = &mut self.following.channel else { return };
        if channel.lacks_doctypes {
            // The server takes the newest by now, and is told all of them.
            self.forget_refusal();
            return self.leave_server(ctx);
        }
        let replica = &mut synced.replica;
        let other = replica.base().is_some_and(|base| base.journal != storage.journal);
        if other && self.following.moved.is_some() {
            reached(Probe::NamesakeMet);
            let failure = CallFailure::exists(&self.key.document);
            return self.refuse(failure, ctx);
        }
        let moved = self.following.moved.take();
        // It was told the newest doctype first, and has taken all of them.
        if moved.is_some() || open.record.taken != Some(open.record.newest) {
            open.record.server = moved.or(open.record.server.take());
            open.record.taken = Some(open.record.newest);
            open.record_due = open.record_due.max(Some(self.write_again.note_due()));
        }
        channel.is_open = true;
        // Whoever wants those behind the last may be wrong about what the server has.
        self.watches.mark_confirmed();
        self.presence.is_followed();
        channel.stood_at = storage.next;
        self.following.no_verdict = None;
        self.following.refused = false;
        self.following.refused_doctype = None;
        self.following.brings_doctypes = false;
        self.following.silences = 0;
        // What was under way when this was asked for begins anew.
        channel.arriving = ArrivingEntry::default();
        channel.waiting.clear();
        (channel.said, channel.unsaid_size, channel.unsaid) = (from, 0, None);
        self.reads.forget_fault(For::Entry);
        let held = channel.have.map_or(Lsn::FIRST, |have| have.next);
        let is_lost = from != held;
        self.error = if is_lost {
            Some(CallFailure::replaced(&self.key.document))
        } else {
            open.is_incomplete.then(CallFailure::damaged_copy)
        };
        self.handlers.is_followed(is_lost, &mut self.watches);
        if is_lost {
            reached(Probe::RestoreFound);
        } else if from == storage.next {
            self.write_again.has_entries();
        }
        replica.follow(is_lost);
        if let (None, Some(subject)) = (&open.record.subject, subject) {
            open.record.subject = Some(subject.to_owned());
            open.record_due = open.record_due.max(Some(RecordDue::WithNext));
        }
        // Whoever comes by a token is its subject, which was compared.
        let owes_rename = subject.is_some_and(|subject| replica.has_others_than(subject));
        let (first, head) = (replica.undecided().start(), replica.head());
        let common = replica.public_lives().common_prefix(head, lives, wanted);
        if owes_rename {
            // What was issued before goes on in a timeline of its own, by which we come again; of
            // what a server has applied that knew no users it tells first.
        } else if common == Some(wanted) && first <= wanted {
            if let Err(error) = synced.sender.connected(wanted, synced.durable) {
                return self.break_off(&error.to_string(), ctx);
            }
        } else if from == storage.next && replica.is_rebased() {
            // Pages that are visible already cannot tell of a timeline that parted later.
            return self.break_off("the server has no pages that go with its timelines", ctx);
        } else {
            reached(Probe::TimelinesParted);
        }
        // Otherwise its pages tell what became of our frames, and the others then go on in a
        // timeline of their own. What the server said here may be older than some of those who wait
        // for all that it has: it is asked for each.
        let mut syncs = std::mem::take(&mut self.syncs);
        for sync in &mut syncs {
            self.probe(sync, ctx);
        }
        self.syncs = syncs;
        let has_all = storage.next == Lsn::FIRST || self.has_caught_up();
        if owes_rename && has_all {
            self.rename_others();
        }
    }

    /// Has what was issued before it was known whose copy this is go on as that one's. All that the
    /// server had is visible. Says whether there is any.
    pub(in crate::document) fn rename_others(&mut self) -> bool {
        let State::Open(open) = &mut self.state else { return false };
        let Open { role: Role::Synced(synced), record, .. } = &mut **open else { return false };
        let Some(subject) = &record.subject else { return false };
        let are_there = synced.replica.has_others_than(subject);
        if are_there {
            synced.replica.rename(subject);
        }
        are_there
    }

    fn on_entry(&mut self, part: EntryPart, ctx: &mut Context<'_>) {
        let Some(channel) = &mut self.following.channel else { return };
        channel.waiting.push_back(part);
        if channel.waiting.len() == 1 {
            self.take_entries(&mut Budget::new(ctx.settings.limits.slice), ctx);
        }
    }

    /// Takes in what has come of entries, for as long as the budget goes, up to one that goes by
    /// pages which are to be read first.
    pub(in crate::document) fn take_entries(&mut self, budget: &mut Budget, ctx: &mut Context<'_>) {
        while !budget.is_spent()
            && let Some(kth) = self.reads.faults_met(For::Entry)
        {
            let Some(channel) = &self.following.channel else { break };
            let Some(part) = channel.waiting.front() else { break };
            let by_previous = part.pages.iter().filter(|page| page.needs_previous());
            let needed: Vec<Pgid> = by_previous.map(|page| page.pgid).collect();
            let lacking = self.not_in_memory(&needed);
            let is_lost = self.reads.why_lost(&lacking, ctx.store).is_some();
            budget.spend_pages(part.pages.len() as u64);
            // What has come stays for it, as does what was there. What it lacks then is nowhere.
            let may_come = kth == 0 && !is_lost;
            if may_come && self.reads.fetch(For::Entry, lacking, kth, &self.key, ctx) {
                self.reads.keep(For::Entry, needed);
                return reached(Probe::EntryWaitedForPages);
            }
            self.reads.forget_fault(For::Entry);
            self.take_entry(ctx);
        }
    }

    /// Those of the pages behind all that is held which are to be read first.
    fn not_in_memory(&self, pgids: &[Pgid]) -> Vec<Pgid> {
        let Some(replica) = self.replica() else { return Vec::new() };
        let is_lacking = |pgid: &Pgid| replica.held_page(*pgid).is_none();
        pgids.iter().copied().filter(is_lacking).collect()
    }

    /// Takes in the part that has come first.
    fn take_entry(&mut self, ctx: &mut Context<'_>) {
        let Some(channel) = &mut self.following.channel else { return };
        let Some(part) = channel.waiting.pop_front() else { return };
        channel.unsaid_size += part.pages.len() * PAGE_SIZE;
        let State::Open(open) = &mut self.state else { return };
        let Role::Synced(synced) = &mut open.role else { return };
        let Synced { replica, sender, durable, .. } = &mut **synced;
        if let Some(origin) = part.origin.filter(|_| part.is_last)
            && origin == public_entry(replica.origin(origin.lsn))
        {
            // Whatever leaves the server is on its disk, and so is the frame that it is of. The
            // word of that comes right behind, and changes nothing then that tabs are told of; one
            // that is ahead of this disk is dealt with there.
            let _ = sender.on_acked(origin.lsn.next(), *durable);
        }
        let arrived = match part.is_predicted {
            true => replica.predicted_entry(&part).map(Some),
            false => channel.arriving.take(part, |pgid| replica.held_page(pgid)),
        };
        let arrived = match arrived {
            Ok(None) => return reached(Probe::EntryInParts),
            Ok(Some(entry)) => Ok(entry),
            Err(error) => Err(error),
        };
        let base = replica.base();
        let is_held = |entry: &ServerEntry| {
            base.is_some_and(|base| {
                base.journal == entry.position.journal && entry.range.end() <= base.next
            })
        };
        let is_repeat = arrived.as_ref().is_ok_and(is_held);
        match arrived.and_then(|entry| replica.sync_receive(entry)) {
            Ok(None) => {
                self.following.restarted = false;
                // It was sent anew to a channel that was opened anew, and counts until we say so.
                if is_repeat {
                    reached(Probe::RepeatedEntryAcked);
                    self.say_received(ctx);
                }
            }
            Ok(Some(advance)) => {
                self.following.restarted = false;
                self.advance(advance, ctx);
            }
            Err(error) => {
                reached(Probe::EntriesAskedAnew);
                replica.forget_staged();
                let message = error.to_string();
                if std::mem::replace(&mut self.following.restarted, true) {
                    self.break_off(&message, ctx);
                } else {
                    self.leave_server(ctx);
                }
            }
        }
    }

    fn on_refused(&mut self, refusal: &Refusal, ctx: &mut Context<'_>) {
        let is_named = self.following.channel.as_ref().is_some_and(|channel| channel.is_named);
        if *refusal == Refusal::DoctypeWanted && is_named {
            // Asked anew at once. What it wants again of what it was brought it is never asked so.
            reached(Probe::DoctypeWanted);
            self.following.brings_doctypes = true;
            self.forget_refusal();
            return self.leave_server(ctx);
        }
        reached(Probe::DocumentRefused);
        let failure = CallFailure::of_refusal(&self.key.document, refusal);
        if let Refusal::Access { .. } = refusal {
            self.note_access(None);
        }
        let is_of_doctype = matches!(failure.code, ErrorCode::DoctypeMismatch | ErrorCode::Doctype);
        // Once it has said where the document stands, it has taken the newest.
        let is_of_newest = is_of_doctype && !self.is_online();
        self.refuse(failure, ctx);
        if is_of_newest && self.following.refused {
            if let State::Open(open) = &mut self.state {
                let newest = open.record.newest;
                self.following.refused_doctype = Some(newest);
                // It may have been restored from a backup since it said that it has it.
                if open.record.taken.take_if(|taken| *taken == newest).is_some() {
                    open.record_due = open.record_due.max(Some(self.write_again.note_due()));
                }
            }
            self.forget_refused_doctype();
        }
    }

    fn break_off(&mut self, reason: &str, ctx: &mut Context<'_>) {
        let failure = match self.open().is_some_and(|open| open.is_incomplete) {
            // It forgot what the server knows of it.
            true => CallFailure::damaged_copy(),
            false => CallFailure::protocol(reason),
        };
        self.refuse(failure, ctx);
    }

    pub(in crate::document) fn refuse(&mut self, failure: CallFailure, ctx: &mut Context<'_>) {
        self.leave_server(ctx);
        if self.following.offer.is_some() {
            self.fail_offer(failure);
            return;
        }
        self.follow_later(&failure, ctx);
        self.following.no_verdict = None;
        self.following.refused = true;
        self.error = Some(failure);
    }
}
