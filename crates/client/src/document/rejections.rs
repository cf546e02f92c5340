//! Which rejections listeners were told, and which of them they have dealt with.

use std::collections::BTreeSet;

use tidelog_document::{Decided, Verdict};
use tidelog_types::limits::Limits;
use tidelog_types::{CallId, SortedMap};

use super::open::{Open, Role};
use super::storing::Then;
use super::{Context, Document, State};
use crate::effect::TabId;
use crate::outbox::Outbox;
use crate::protocol::{CallFailure, FromCore, Handle};
use crate::record::KeptRejection;

/// What listeners were told of rejections, and have said of them. It outlives the document in
/// memory: what could not be kept is rejected anew once the document was read anew.
#[derive(Default)]
pub(super) struct RejectionNews {
    /// Who listens, and what it was told; also those whose request to open is still in the queue.
    listeners: SortedMap<(TabId, Handle), BTreeSet<CallId>>,
    /// Those from whom something is held back, since their tab has much to hear.
    behind: BTreeSet<(TabId, Handle)>,
    /// What a listener has dealt with.
    handled: BTreeSet<CallId>,
    /// What was withdrawn, until that is durable: nobody is told before.
    withdrawn: BTreeSet<CallId>,
}

impl RejectionNews {
    /// Who listens.
    pub(super) fn tabs(&self) -> impl Iterator<Item = TabId> {
        self.listeners.keys().map(|(holder, _)| *holder)
    }

    pub(super) fn drop_tab(&mut self, tab: TabId) {
        self.listeners.retain(|(holder, _), _| *holder != tab);
        self.behind.retain(|(holder, _)| *holder != tab);
    }

    pub(super) fn drop_listener(&mut self, tab: TabId, handle: Handle) {
        self.listeners.remove(&(tab, handle));
        self.behind.remove(&(tab, handle));
    }

    /// Tells those who listen, and of whom one `holds` the document, of these; each once, in their
    /// order, and no more than its tab can hear. Those that `are_kept` no longer are told whatever
    /// else it has to hear, unless it seems to hear nothing at all.
    fn tell<'r>(
        &mut self,
        rejections: impl Iterator<Item = &'r KeptRejection> + Clone,
        are_kept: bool,
        holds: impl Fn(&(TabId, Handle)) -> bool,
        out: &mut Outbox,
    ) {
        for (holder, told) in self.listeners.iter_mut().filter(|(holder, _)| holds(holder)) {
            let (tab, handle) = *holder;
            // Older ones come first.
            if are_kept && self.behind.contains(holder) {
                continue;
            }
            for rejection in rejections.clone().filter(|rejection| !rejection.handled) {
                if told.contains(&rejection.call) || self.withdrawn.contains(&rejection.call) {
                    continue;
                }
                if are_kept && out.flow.is_behind(tab) {
                    self.behind.insert(*holder);
                    break;
                }
                if !are_kept && out.flow.is_deaf(tab) {
                    break;
                }
                told.insert(rejection.call);
                out.tell(tab, rejection.news(handle));
            }
        }
    }

    /// Of how many rejections it knows at most, of one listener.
    fn count(&self) -> usize {
        let told = self.listeners.values().map(BTreeSet::len);
        told.chain([self.handled.len()]).max().unwrap_or(0)
    }

    /// Whether this call was withdrawn, and the disk does not have that yet.
    pub(super) fn holds_back(&self, call: CallId) -> bool {
        self.withdrawn.contains(&call)
    }

    /// Whether nobody may be told yet what became of some calls.
    pub(super) fn holds_back_some(&self) -> bool {
        !self.withdrawn.is_empty()
    }

    /// What was withdrawn did not become durable, and is undecided again.
    pub(super) fn forget_withdrawn(&mut self) {
        self.withdrawn.clear();
    }

    /// Whether a listener has dealt with one of these.
    pub(super) fn has_handled(&self, is_one: impl Fn(CallId) -> bool) -> bool {
        self.handled.iter().any(|call| is_one(*call))
    }

    /// Forgets what nobody can be told again.
    fn forget_all_but(&mut self, matters: impl Fn(&CallId) -> bool) {
        self.listeners.values_mut().for_each(|told| told.retain(&matters));
        self.handled.retain(matters);
    }
}

impl Document {
    /// A tab listens for rejections from now on, or from when it holds the document: it is told all
    /// that are kept, also those that it was told before.
    pub(crate) fn listen(&mut self, tab: TabId, handle: Handle, out: &mut Outbox) {
        self.rejection_news.listeners.insert((tab, handle), BTreeSet::new());
        self.tell_rejections(out);
    }

    /// Tells all who listen the rejections that they were not told.
    pub(super) fn tell_rejections(&mut self, out: &mut Outbox) {
        let State::Open(open) = &self.state else { return };
        let holds = |holder: &(TabId, Handle)| self.handles.contains_key(holder);
        self.rejection_news.tell(open.record.rejections.iter(), true, holds, out);
    }

    /// Tells what was held back from those who have heard enough since.
    pub(super) fn tell_held_back_rejections(&mut self, out: &mut Outbox) {
        let is_behind = |holder: &(TabId, Handle)| out.flow.is_behind(holder.0);
        if self.rejection_news.behind.extract_if(.., |holder| !is_behind(holder)).count() > 0 {
            self.tell_rejections(out);
        }
    }

    /// Tells all who listen of these rejections, and writes them down: once, however many they are.
    pub(super) fn keep_rejections(
        &mut self,
        mut rejections: Vec<KeptRejection>,
        ctx: &mut Context<'_>,
    ) {
        // Those that were dealt with before they could be kept.
        for rejection in &mut rejections {
            rejection.handled = self.rejection_news.handled.contains(&rejection.call);
        }
        let holds = |holder: &(TabId, Handle)| self.handles.contains_key(holder);
        self.rejection_news.tell(rejections.iter(), true, holds, ctx.out);
        let limits = &ctx.settings.limits;
        let State::Open(open) = &mut self.state else { unreachable!("BUG: not open") };
        if let Role::Synced(synced) = &open.role {
            let timeline = synced.replica.timeline();
            let forgotten = open.record.keep_rejections(rejections, timeline, limits);
            open.record.forget_handled(timeline, limits);
            // A listener that is held up is told of them now or never.
            self.rejection_news.tell(forgotten.iter(), false, holds, ctx.out);
        }
        self.append_rejections();
    }

    /// Keeps mutations that this device has taken back out of its timeline, since they may not be
    /// applied: nobody is told before that is durable.
    pub(super) fn withdraw(&mut self, withdrawn: Vec<Decided>, ctx: &mut Context<'_>) {
        if withdrawn.is_empty() {
            return;
        }
        let rejections: Vec<_> = withdrawn.into_iter().map(KeptRejection::of).collect();
        self.rejection_news.withdrawn.extend(rejections.iter().map(|rejection| rejection.call));
        let State::Open(open) = &mut self.state else { unreachable!("BUG: not open") };
        if let Role::Synced(synced) = &open.role {
            let timeline = synced.replica.timeline();
            let limits = &ctx.settings.limits;
            let forgotten = open.record.keep_rejections(rejections.clone(), timeline, limits);
            // Those of before that give way are told now or never, as where others do.
            let holds = |holder: &(TabId, Handle)| self.handles.contains_key(holder);
            self.rejection_news.tell(forgotten.iter(), false, holds, ctx.out);
        }
        self.ledger.after(Then::Withdrawn(rejections));
    }

    /// It is durable: whoever waits for what became of them is told.
    pub(super) fn tell_withdrawn(&mut self, withdrawn: &[KeptRejection], out: &mut Outbox) {
        for rejection in withdrawn {
            self.rejection_news.withdrawn.remove(&rejection.call);
            if let Some((tab, call)) = self.confirming.remove(&rejection.call) {
                let failure = CallFailure::rejected(&rejection.mutation, &rejection.reason);
                out.tell(tab, FromCore::Rejected { call, entry: rejection.entry, failure });
            }
        }
        // What the record had no room for is told now or never.
        let kept: Option<BTreeSet<CallId>> =
            self.open().map(|open| open.record.rejections.iter().map(|it| it.call).collect());
        let is_kept = |it: &KeptRejection| kept.as_ref().is_none_or(|kept| kept.contains(&it.call));
        let (kept, forgotten): (Vec<_>, Vec<_>) = withdrawn.iter().partition(|it| is_kept(it));
        let holds = |holder: &(TabId, Handle)| self.handles.contains_key(holder);
        self.rejection_news.tell(forgotten.into_iter(), false, holds, out);
        self.rejection_news.tell(kept.into_iter(), true, holds, out);
    }

    /// A record is durable. Only once it says all that is known here, what is old is forgotten: a
    /// document that is read anew before that rejects again what no record has.
    pub(super) fn record_is_durable(&mut self, limits: &Limits) {
        let is_latest = self.open().is_some_and(|open| open.record_due.is_none());
        let is_much = self.rejection_news.count() > 2 * limits.rejections_kept_max;
        if is_much && is_latest && !self.has_record_in_flight() {
            self.forget_old_news();
        }
    }

    /// What is neither kept nor undecided cannot be rejected again, nor told.
    fn forget_old_news(&mut self) {
        let State::Open(open) = &self.state else { return };
        let kept: BTreeSet<CallId> = open.record.rejections.iter().map(|it| it.call).collect();
        let replica = match &open.role {
            Role::Synced(synced) => Some(&synced.replica),
            Role::Local(_) => None,
        };
        let is_undecided = |call| replica.is_some_and(|it| it.find_call(call).is_some());
        self.rejection_news.forget_all_but(|call| kept.contains(call) || is_undecided(*call));
    }

    /// A listener has dealt with a rejection.
    pub(crate) fn rejection_handled(&mut self, id: CallId, limits: &Limits) {
        self.rejection_news.handled.insert(id);
        self.note_handled(limits);
    }

    /// The document was read: what listeners have said meanwhile is noted, and what they have not
    /// heard is told.
    pub(super) fn catch_up_listeners(&mut self, ctx: &mut Context<'_>) {
        self.forget_old_news();
        self.note_handled(&ctx.settings.limits);
        self.tell_rejections(ctx.out);
    }

    /// Notes in the record what listeners have dealt with.
    fn note_handled(&mut self, limits: &Limits) {
        let State::Open(open) = &mut self.state else { return };
        let Open { record, role: Role::Synced(synced), .. } = &mut **open else { return };
        let handled = &self.rejection_news.handled;
        let mut has_news = false;
        for rejection in record.rejections.iter_mut().filter(|it| handled.contains(&it.call)) {
            has_news |= !std::mem::replace(&mut rejection.handled, true);
        }
        if has_news {
            record.forget_handled(synced.replica.timeline(), limits);
            self.append_rejections();
        }
    }
}

impl KeptRejection {
    /// A mutation that was rejected, whose listeners have heard nothing yet.
    pub(super) fn of(decided: Decided) -> Self {
        let Decided { entry, call, mutation, verdict } = decided;
        let Verdict::Rejected { reason } = verdict else { unreachable!("BUG: it was applied") };
        let (mutation, args) = (mutation.name, mutation.args);
        Self { call, entry, mutation, args, reason, handled: false }
    }

    fn news(&self, handle: Handle) -> FromCore {
        FromCore::RejectionNews {
            handle,
            id: self.call,
            mutation: self.mutation.clone(),
            args: self.args.clone(),
            reason: self.reason.clone(),
            lsn: self.entry.lsn.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_types::{EntryId, JournalId, Life, Lsn};

    use super::*;
    use crate::effect::Effect;
    use crate::tab_flow::TabFlow;

    fn rejection(number: u8) -> KeptRejection {
        let (journal, life) = (JournalId([1; 16]), Life([2; 16]));
        KeptRejection {
            call: CallId([number; 16]),
            entry: EntryId { journal, life, lsn: Lsn::FIRST.plus(u64::from(number)) },
            mutation: "add".to_owned(),
            args: Vec::new(),
            reason: "no".to_owned(),
            handled: false,
        }
    }

    /// Goal: what was held back is told before what came later. Method: a tab has heard enough just
    /// as one more is rejected.
    #[test]
    fn rejections_are_told_in_their_order() {
        const HOLDER: (TabId, Handle) = (TabId(1), Handle(1));
        let rejections: Vec<_> = (1..=3).map(rejection).collect();
        let mut news = RejectionNews::default();
        news.listeners.insert(HOLDER, BTreeSet::new());
        let mut out = Outbox::new(TabFlow::new(1));
        out.flow.meet(HOLDER.0);
        news.tell(rejections[..2].iter(), true, |_| true, &mut out);
        out.flow.end_list(HOLDER.0);
        out.flow.heard(HOLDER.0, 1);
        news.tell(rejections[2..].iter(), true, |_| true, &mut out);
        news.behind.clear();
        news.tell(rejections.iter(), true, |_| true, &mut out);

        let effects = out.into_effects(None, &Limits::DEFAULT);
        let [Effect::ToTab { messages, .. }] = &effects[..] else { panic!("{effects:?}") };
        let told = messages.iter().map(|it| match it {
            FromCore::RejectionNews { id, .. } => *id,
            other => panic!("{other:?}"),
        });
        assert_eq!(told.collect::<Vec<_>>(), [1, 2].map(|number| rejection(number).call));
    }
}
