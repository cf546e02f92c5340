//! Who waits until the document is in step with its server.

use tidelog_sync::{ProbeId, ToRoom};

use crate::document::{Context, Document, Role, State, SyncWait};
use crate::outbox::Outbox;
use crate::protocol::{CallFailure, FromCore};

/// Milliseconds in which the tabs of a core that has ended are back at the next one.
const TABS_BACK_MS: u64 = 5_000;

impl Document {
    pub(in crate::document) fn probe(&mut self, sync: &mut SyncWait, ctx: &mut Context<'_>) {
        if self.is_online() {
            self.following.next_probe += 1;
            let probe = ProbeId(self.following.next_probe);
            sync.probe = Some(probe);
            self.say(ToRoom::Probe { probe }, ctx);
        }
    }

    /// Tells those who wait until all is in step, if it is.
    pub(in crate::document) fn settle_syncs(&mut self, ctx: &mut Context<'_>) {
        let State::Open(open) = &self.state else { return };
        let Role::Synced(synced) = &open.role else { return };
        // What was withdrawn has no verdict that anybody may know of yet.
        if self.rejection_news.holds_back_some() {
            return;
        }
        let replica = &synced.replica;
        let (first, head, visible) = (replica.undecided().start(), replica.head(), open.visible());
        let is_outdated = replica.is_outdated();
        // What the server refused the document for, it is asked anew for.
        let is_asked_anew = self.following.refused
            && self.following.channel.as_ref().is_some_and(|channel| !channel.is_open);
        let is_certain =
            |it: &&CallFailure| it.is_final() && !is_asked_anew && !self.following.is_doubted(it);
        let failure = self.why_wrong().filter(is_certain).cloned();
        let is_lost = ctx.store.is_lost();
        // Nobody connects to the server of a document that no tab has opened with one, or will.
        let is_nobodys = !self.handles.values().any(|handle| handle.server.is_some());
        if is_nobodys {
            self.syncs.iter().for_each(|sync| ctx.out.wake_at(sync.asked_at_ms + TABS_BACK_MS));
        }
        let now_ms = ctx.now_ms;
        self.syncs.retain(|sync| {
            // The head goes back when mutations are taken back.
            let needed = sync.timeline.1.min(head);
            let decided = first >= needed;
            let is_seen = !is_outdated && sync.storage.is_some_and(|storage| visible >= storage);
            if decided && is_seen {
                ctx.out.tell(sync.tab, FromCore::Done { call: sync.call });
                return false;
            }
            // What the disk can never have is never sent.
            let is_stuck = is_lost && synced.durable < needed;
            let cleared = || is_stuck.then(CallFailure::data_cleared);
            let is_alone = is_nobodys && now_ms >= sync.asked_at_ms + TABS_BACK_MS;
            let nobody = || is_alone.then(CallFailure::no_server_named);
            if let Some(failure) = failure.clone().or_else(cleared).or_else(nobody) {
                ctx.out.tell(sync.tab, FromCore::Failed { call: sync.call, failure });
                return false;
            }
            true
        });
    }

    /// The way to the server is barred: who waits for it is told.
    pub(crate) fn server_barred(&mut self, failure: &CallFailure, ctx: &mut Context<'_>) {
        if self.fail_offer(failure.clone()) {
            // Whoever makes it is told by the next run.
            ctx.out.wake_at(ctx.now_ms);
        }
        self.fail_syncs(failure, ctx.out);
    }

    /// Tells those who wait until all is in step that it does not get there.
    pub(in crate::document) fn fail_syncs(&mut self, failure: &CallFailure, out: &mut Outbox) {
        for sync in std::mem::take(&mut self.syncs) {
            let failure = failure.clone();
            out.tell(sync.tab, FromCore::Failed { call: sync.call, failure });
        }
    }
}
