//! Who handles tasks in the tabs: each is an instance of the document, at its server or, where
//! this device decides, here. What it is given stands in the document; what comes of it is said by
//! its tab, and decided there.

use std::mem;

use tidelog_document::{Authority, Change, Changed, Completion, Doctype, Handlers, InstanceId};
use tidelog_sqlite::{Failure, Run};
use tidelog_sync::{CompletionAnswer, ToRoom};
use tidelog_types::limits::{INSTANCE_COMMANDS_MAX, INSTANCE_KINDS_MAX, INSTANCE_SILENT_MS};
use tidelog_types::{CallId, ClientId, Rows, SortedMap, ValueRef};

use super::requests::{Ask, Ran};
use super::storing::Then;
use super::watches::{Watch, Watches};
use super::{Context, Document, Role, State};
use crate::effect::TabId;
use crate::outbox::Outbox;
use crate::protocol::{Call, CallFailure, Complete, FromCore, Handle, Handling};

/// How often a tab that works at something is told so again, to see that it hears.
const ASKED_EVERY_MS: u64 = INSTANCE_SILENT_MS / 3;

/// Since when a handler is away that has left where this device decides, or was an earlier core's:
/// it comes back as another one, and what it works at need not wait for it.
const LONG_AGO_MS: u64 = 0;

/// Those in the tabs of this core.
#[derive(Default)]
pub(super) struct OwnHandlers {
    own: SortedMap<Key, Own>,
    tags_ever: u32,
    /// Those of whom the server is to hear that they handle nothing any longer.
    gone: Vec<u32>,
    /// What they have said to have completed and nobody answers any more.
    unanswered: Vec<Key>,
    /// Whether they have begun anew for another history, which is on its way.
    are_anew: bool,
    /// All of them where this device decides; `None` before it has decided anything of them.
    local: Option<Handlers<Key>>,
}

/// The call by which a tab handles tasks.
type Key = (TabId, Call);

struct Own {
    handle: Handle,
    /// Its number on the channel.
    tag: u32,
    handling: Handling,
    instance: Option<InstanceId>,
    /// Whether the server was told of it on this channel, as it is now.
    is_said: bool,
    /// Whether it was, be it as it was before it began anew.
    is_there: bool,
    /// Whether it has answered that it is an instance.
    is_registered: bool,
    completing: Vec<Completing>,
    hearing: Hearing,
}

/// An attempt that has come to an end, and nobody has said what becomes of that.
struct Completing {
    call: Call,
    completion: Completion,
    is_said: bool,
}

/// What a handler has said, where this device decides: it is told once the disk has it, or it
/// would do nothing again that the disk has lost.
pub(super) struct Completed {
    key: Key,
    instance: InstanceId,
    call: Call,
    completion: Completion,
    said: (CompletionAnswer, u64),
}

impl Completed {
    pub(super) fn tell(self, out: &mut Outbox) {
        answer(self.key.0, self.call, self.said, out);
    }
}

/// Whether its tab hears what it is told.
#[derive(Clone, Copy)]
enum Hearing {
    /// It has nothing to hear.
    Unasked,
    /// It will have heard once it has heard so many lists; it was told that then, and had heard
    /// before.
    Asked { lists: u64, asked_ms: u64, heard_ms: u64 },
    /// It was told something, and has heard it.
    Heard { asked_ms: u64, heard_ms: u64 },
    /// It has not heard for so long that it handles nothing until it has.
    Deaf { lists: u64 },
}

impl OwnHandlers {
    fn by_tag(&mut self, tag: u32) -> Option<(Key, &mut Own)> {
        self.own.iter_mut().find(|(_, own)| own.tag == tag).map(|(key, own)| (*key, own))
    }

    /// Whether a tab handles tasks by this call.
    pub(super) fn has(&self, tab: TabId, call: Call) -> bool {
        self.own.contains_key(&(tab, call))
    }

    /// Whether a tab was told something that it has not heard: that is seen when it has.
    pub(super) fn wait_to_be_heard(&self) -> bool {
        let waits = |own: &Own| matches!(own.hearing, Hearing::Asked { .. } | Hearing::Deaf { .. });
        self.own.values().any(waits)
    }

    /// A tab handles tasks no longer.
    pub(super) fn give_up(&mut self, tab: TabId, call: Call) {
        if let Some(own) = self.own.remove(&(tab, call)) {
            // Whoever asks by the same call is another one.
            self.local.iter_mut().for_each(|it| it.leave(|key| key == (tab, call), LONG_AGO_MS));
            self.gone.extend(own.is_there.then_some(own.tag));
            self.unanswered.extend(own.completing.iter().map(|it| (tab, it.call)));
        }
    }

    /// The server has said where the document stands: it is told all. Of one that has lost what is
    /// here they may be instances still, from before that: they begin anew at once.
    pub(super) fn is_followed(&mut self, is_lost: bool, watches: &mut Watches) {
        self.are_anew = is_lost;
        self.channel_lost();
        if is_lost {
            self.begin_anew(watches);
        }
    }

    /// Another history took the place of the one that they are instances of.
    pub(super) fn are_replaced(&mut self, watches: &mut Watches) {
        if !mem::take(&mut self.are_anew) {
            self.begin_anew(watches);
        }
    }

    /// In another history they may be others, and what they have done may be to be done.
    fn begin_anew(&mut self, watches: &mut Watches) {
        self.say_again();
        for (key, own) in self.own.iter_mut() {
            self.unanswered.extend(own.begin_anew(*key, watches));
        }
    }

    /// The document is read anew from the disk, which may lack what was decided here.
    pub(super) fn are_read_anew(&mut self) {
        self.local = None;
    }

    /// The disk does not have what came of these: that is decided once more.
    pub(super) fn complete_again(&mut self, lost: Vec<Completed>) {
        for Completed { key, instance, call, completion, .. } in lost.into_iter().rev() {
            match self.own.get_mut(&key).filter(|own| own.instance == Some(instance)) {
                Some(own) => {
                    own.completing.insert(0, Completing { call, completion, is_said: false });
                }
                None => self.unanswered.push((key.0, call)),
            }
        }
    }

    /// Those that the document knows still go on as who they were. The others begin anew: they were
    /// told of nothing that they were given, or of what counts no longer.
    fn resume(&mut self, mut local: Handlers<Key>, client: ClientId, watches: &mut Watches) {
        for (key, own) in self.own.iter_mut() {
            let Some(instance) = own.instance else { continue };
            if local.may_resume(instance, client) {
                own.register(*key, instance, client, &mut local);
            } else {
                self.unanswered.extend(own.begin_anew(*key, watches));
            }
        }
        self.local = Some(local);
    }

    /// The channel is gone: what was said there is said again.
    pub(super) fn channel_lost(&mut self) {
        self.gone.clear();
        self.own.values_mut().for_each(|own| own.is_there = false);
        self.say_again();
    }

    fn say_again(&mut self) {
        for own in self.own.values_mut() {
            (own.is_said, own.is_registered) = (false, false);
            own.completing.iter_mut().for_each(|it| it.is_said = false);
        }
    }
}

impl Document {
    /// A tab begins to handle tasks.
    pub(super) fn begin_handling(
        &mut self,
        ask: &Ask,
        handling: &Handling,
        ctx: &mut Context<'_>,
    ) -> Ran {
        if !self.handles[&(ask.tab, ask.handle)].doctype.has_tasks() {
            return Ran::Failed(CallFailure::no_tasks());
        }
        if handling.kinds.len() > INSTANCE_KINDS_MAX {
            return Ran::Failed(CallFailure::many_kinds());
        }
        let key = (ask.tab, ask.call);
        // Asked again it was told that it had failed, and begins anew.
        self.handlers.give_up(ask.tab, ask.call);
        let ran = self.run_watch(ask, Watch::of_given(ask.handle), ctx);
        if matches!(ran, Ran::Done) {
            self.handlers.tags_ever += 1;
            let own = Own {
                handle: ask.handle,
                tag: self.handlers.tags_ever,
                handling: handling.clone(),
                instance: None,
                is_said: false,
                is_there: false,
                is_registered: false,
                completing: Vec::new(),
                hearing: Hearing::Unasked,
            };
            self.handlers.own.insert(key, own);
        }
        ran
    }

    /// A tab says what came of an attempt.
    pub(super) fn take_completion(
        &mut self,
        ask: &Ask,
        complete: &Complete,
        out: &mut Outbox,
    ) -> Ran {
        let own = self.handlers.own.get_mut(&(ask.tab, complete.handling));
        match own.filter(|own| own.instance == Some(complete.instance)) {
            Some(own) => {
                let completion = complete.completion.clone().bounded();
                own.completing.push(Completing { call: ask.call, completion, is_said: false });
            }
            None => answer(ask.tab, ask.call, LATE, out),
        }
        Ran::Done
    }

    pub(super) fn on_registered(&mut self, tag: u32, instance: InstanceId) {
        let Some((key, own)) = self.handlers.by_tag(tag) else { return };
        let before = own.instance.replace(instance);
        own.is_registered = true;
        // What another one was given is not this one's to complete.
        let is_other = before.is_some_and(|before| before != instance);
        let late = if is_other { mem::take(&mut own.completing) } else { Vec::new() };
        self.handlers.unanswered.extend(late.iter().map(|it| (key.0, it.call)));
        self.watches.note_instance(key, Some(instance));
    }

    pub(super) fn on_not_registered(&mut self, tag: u32, reason: &str, ctx: &mut Context<'_>) {
        let Some((key, _)) = self.handlers.by_tag(tag) else { return };
        self.fail_handler(key, &CallFailure::may_not_handle(reason), ctx.out);
    }

    pub(super) fn on_completed(
        &mut self,
        tag: u32,
        call: Call,
        said: (CompletionAnswer, u64),
        ctx: &mut Context<'_>,
    ) {
        let Some(((tab, _), own)) = self.handlers.by_tag(tag) else { return };
        let is_it = |it: &Completing| it.call == call && it.is_said;
        if let Some(place) = own.completing.iter().position(is_it) {
            let done = own.completing.remove(place);
            answer(tab, done.call, said, ctx.out);
        }
    }

    /// It handles nothing any longer, and its tab is told why.
    fn fail_handler(&mut self, key: Key, failure: &CallFailure, out: &mut Outbox) {
        let (tab, call) = key;
        let Some(own) = self.handlers.own.remove(&key) else { return };
        self.watches.remove(tab, call);
        let waiting = own.completing.iter().map(|it| it.call);
        for call in waiting.chain([call]) {
            out.tell(tab, FromCore::Failed { call, failure: failure.clone() });
        }
    }

    /// Has the server know who handles tasks here, and what came of their attempts.
    pub(super) fn look_after_handlers(&mut self, ctx: &mut Context<'_>) {
        if self.let_go_of_closed() | self.see_who_hears(ctx) {
            // What follows is decided, and told, in the slice of the next step.
            ctx.out.wake_at(ctx.now_ms);
        }
        for (tab, call) in mem::take(&mut self.handlers.unanswered) {
            answer(tab, call, LATE, ctx.out);
        }
        if self.handlers.own.is_empty() && self.handlers.gone.is_empty() {
            return;
        }
        let is_local = self.open().is_some_and(|open| matches!(open.role, Role::Local(_)));
        if is_local || !self.is_online() {
            self.handlers.gone.clear();
            return;
        }
        for tag in mem::take(&mut self.handlers.gone) {
            self.say(ToRoom::Deregister { tag }, ctx);
        }
        let mut words = Vec::new();
        for own in self.handlers.own.values_mut() {
            let tag = own.tag;
            if !own.is_said && !matches!(own.hearing, Hearing::Deaf { .. }) {
                (own.is_said, own.is_there) = (true, true);
                let kinds = own.handling.kinds.iter();
                let kinds = kinds.map(|it| (it.aggregate.clone(), it.name.clone())).collect();
                let instance = own.instance.map_or(0, |it| it.0);
                let concurrency = own.handling.concurrency;
                words.push(ToRoom::Register { tag, instance, kinds, concurrency });
            }
            let unsaid = own.completing.iter_mut().filter(|it| !it.is_said);
            for it in unsaid.filter(|_| own.is_registered) {
                it.is_said = true;
                let (number, completion) = (it.call.0, it.completion.encode());
                words.push(ToRoom::Complete { tag, number, completion });
            }
        }
        words.into_iter().for_each(|word| self.say(word, ctx));
    }

    /// Whoever has closed the document handles nothing there. Says whether there was anybody.
    fn let_go_of_closed(&mut self) -> bool {
        let Self { handlers, handles, .. } = self;
        let own = handlers.own.iter();
        let left = own.filter(|((tab, _), own)| !handles.contains_key(&(*tab, own.handle)));
        let left: Vec<Key> = left.map(|(key, _)| *key).collect();
        for (tab, call) in &left {
            self.handlers.give_up(*tab, *call);
            self.watches.remove(*tab, *call);
        }
        !left.is_empty()
    }

    /// A tab that was given something and hears nothing for long, as one that is frozen, handles
    /// nothing until it does. Says whether one begins or ends to be such a tab.
    fn see_who_hears(&mut self, ctx: &mut Context<'_>) -> bool {
        let now_ms = ctx.now_ms;
        let mut is_any_other = false;
        let Self { handlers, watches, .. } = self;
        for (key, own) in handlers.own.iter_mut() {
            let (tab, call) = *key;
            let (heard, next) = ctx.out.flow.heard_and_next(tab);
            let (asked_ms, heard_ms) = match own.hearing {
                Hearing::Unasked => (None, now_ms),
                Hearing::Deaf { lists } if heard >= lists => {
                    is_any_other = true;
                    (None, now_ms)
                }
                Hearing::Deaf { .. } => continue,
                Hearing::Asked { lists, asked_ms, heard_ms } if heard < lists => {
                    let deaf_at_ms = deaf_at_ms(asked_ms, heard_ms);
                    if now_ms < deaf_at_ms {
                        ctx.out.wake_at(deaf_at_ms);
                        continue;
                    }
                    own.hearing = Hearing::Deaf { lists };
                    handlers.gone.extend(own.is_there.then_some(own.tag));
                    (own.is_said, own.is_there, own.is_registered) = (false, false, false);
                    handlers.unanswered.extend(own.begin_anew(*key, watches));
                    is_any_other = true;
                    continue;
                }
                Hearing::Asked { asked_ms, .. } => (Some(asked_ms), now_ms),
                Hearing::Heard { asked_ms, heard_ms } => (Some(asked_ms), heard_ms),
            };
            if let Some(asked_ms) = asked_ms.filter(|it| now_ms < it + ASKED_EVERY_MS) {
                own.hearing = Hearing::Heard { asked_ms, heard_ms };
                ctx.out.wake_at(asked_ms + ASKED_EVERY_MS);
                continue;
            }
            own.hearing = match watches.given(key) {
                Some(rows) => {
                    ctx.out.tell(tab, FromCore::Rows { call, rows: rows.clone() });
                    ctx.out.wake_at(deaf_at_ms(now_ms, heard_ms));
                    Hearing::Asked { lists: next, asked_ms: now_ms, heard_ms }
                }
                // It has too much to hear to be told of what it is given.
                None if ctx.out.flow.is_behind(tab) && heard + 1 < next => {
                    ctx.out.wake_at(deaf_at_ms(now_ms, heard_ms));
                    Hearing::Asked { lists: next - 1, asked_ms: now_ms, heard_ms }
                }
                None => Hearing::Unasked,
            };
        }
        is_any_other
    }

    /// Where this device decides: decides the next thing of those who handle tasks, if there is
    /// any.
    pub(super) fn decide_locally(&mut self, ctx: &mut Context<'_>) -> Option<Run<()>> {
        if self.following.offer.is_some() {
            return None;
        }
        let Self { handlers, handles, state, .. } = self;
        let State::Open(open) = state else { return None };
        // It may lack what those need who handle its tasks.
        if open.awaits_adoption() {
            return None;
        }
        let (client, user) = (open.record.client(), self.key.user.clone());
        let Role::Local(authority) = &mut open.role else {
            handlers.local = None;
            return None;
        };
        if handlers.own.is_empty() && handlers.local.is_none() {
            return None;
        }
        let doctype = newest(handles.values().map(|it| &it.doctype))?;
        if handlers.local.is_none() {
            match authority.work() {
                Run::Done(work) => {
                    handlers.resume(Handlers::of(work, LONG_AGO_MS), client, &mut self.watches);
                }
                Run::Fault(pgid) => return Some(Run::Fault(pgid)),
                Run::Failed(_) => return None,
            }
        }
        let local = handlers.local.as_mut().expect("BUG: it was read");
        let own = &mut handlers.own;
        local.leave(|key| own.get(&key).is_none_or(Own::is_deaf), LONG_AGO_MS);
        let is_new = |(_, own): &(&Key, &mut Own)| own.instance.is_none() && !own.is_deaf();
        let (change, subject) = if let Some((key, own)) = own.iter_mut().find(is_new) {
            let kinds = own.handling.kinds.clone();
            (Change::Register { client, user, kinds }, Some((*key, None)))
        } else if let Some((key, own)) = own.iter_mut().find(|(_, own)| !own.completing.is_empty())
        {
            let Completing { call, completion, .. } = own.completing.remove(0);
            let instance = own.instance.expect("BUG: it completes nothing before it is one");
            (Change::Complete { instance, completion }, Some((*key, Some(call))))
        } else {
            (local.next_change(ctx.now_ms)?, None)
        };
        let call = CallId(ctx.rng.journal().0);
        let ran = decide(authority, call, &change, doctype, ctx.now_ms);
        if !matches!(ran, Run::Done(_))
            && let (Change::Complete { completion, .. }, Some((key, Some(call)))) =
                (&change, subject)
            && let Some(own) = own.get_mut(&key)
        {
            let completion = completion.clone();
            own.completing.insert(0, Completing { call, completion, is_said: false });
        }
        let changed = match ran {
            Run::Done(changed) => changed,
            Run::Fault(pgid) => {
                if let Change::Dispatch(_) = change {
                    local.note();
                }
                return Some(Run::Fault(pgid));
            }
            Run::Failed(failure) => {
                local.put_off(&change, ctx.now_ms);
                self.fail_locally(subject.map(|(key, _)| key), &failure, ctx.out);
                return Some(Run::Done(()));
            }
        };
        local.decided(&change, &changed.0);
        match (changed.0, subject) {
            (Changed::Registered(instance), Some((key, _))) => {
                if let Some(own) = own.get_mut(&key) {
                    own.instance = Some(instance);
                    own.register(key, instance, client, local);
                    self.watches.note_instance(key, Some(instance));
                }
            }
            (answered, Some((key, Some(call)))) => {
                let said = answered.answer(ctx.now_ms).expect("BUG: it was a completion");
                match change {
                    Change::Complete { instance, completion } if changed.1.is_some() => {
                        let completed = Completed { key, instance, call, completion, said };
                        self.ledger.after(Then::Completed(Box::new(completed)));
                    }
                    _ => answer(key.0, call, said, ctx.out),
                }
            }
            _ => {}
        }
        if let Some(pgids) = changed.1 {
            self.watches.mark(&pgids, open.view());
            self.watches.mark_confirmed();
            self.note_lives();
        }
        Some(Run::Done(()))
    }

    /// What was to be decided cannot be written down: whoever it is about is told, or the app.
    fn fail_locally(&mut self, about: Option<Key>, failure: &Failure, out: &mut Outbox) {
        let failure = CallFailure::of_mutation("handling commands", failure);
        match about {
            Some(key) => self.fail_handler(key, &failure, out),
            None => self.error = Some(failure),
        }
    }

    /// Nothing can be decided here for want of a page: whoever handles tasks is told so, and the
    /// page is not asked for again and again.
    pub(super) fn end_handling_locally(&mut self, failure: &CallFailure, out: &mut Outbox) {
        self.handlers.local = None;
        let keys: Vec<Key> = self.handlers.own.iter().map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.fail_handler(key, failure, out));
    }

    /// When something is to be decided here by the clock.
    pub(super) fn handlers_due_at_ms(&self) -> Option<u64> {
        self.handlers.local.as_ref()?.due_at_ms()
    }

    /// A mutation was applied here, which may have sent a command.
    pub(super) fn note_local_command(&mut self) {
        self.handlers.local.iter_mut().for_each(Handlers::note);
    }
}

impl Own {
    /// It is no instance before it is another one: what it has said of its attempts counts no
    /// longer. Gives whom that is to be told.
    fn begin_anew(&mut self, key: Key, watches: &mut Watches) -> Vec<Key> {
        self.instance = None;
        watches.note_instance(key, None);
        let late = mem::take(&mut self.completing);
        late.into_iter().map(|it| (key.0, it.call)).collect()
    }

    fn register(
        &self,
        key: Key,
        instance: InstanceId,
        client: ClientId,
        local: &mut Handlers<Key>,
    ) {
        let Handling { kinds, concurrency } = self.handling.clone();
        local.register(instance, key, client, kinds, concurrency.clamp(1, INSTANCE_COMMANDS_MAX));
    }

    fn is_deaf(&self) -> bool {
        matches!(self.hearing, Hearing::Deaf { .. })
    }
}

/// When a tab is taken for deaf. A core that has not run for long, as on a device that was asleep,
/// asks late: the tab has time to answer all the same.
fn deaf_at_ms(asked_ms: u64, heard_ms: u64) -> u64 {
    (heard_ms + INSTANCE_SILENT_MS).max(asked_ms + ASKED_EVERY_MS)
}

/// The one that succeeds the others.
fn newest<'d>(doctypes: impl Iterator<Item = &'d Doctype>) -> Option<&'d Doctype> {
    doctypes.reduce(|one, other| if other.succeeds(one) { other } else { one })
}

type Decided = (Changed, Option<std::collections::BTreeSet<tidelog_types::Pgid>>);

fn decide(
    authority: &mut Authority,
    call: CallId,
    change: &Change,
    doctype: &Doctype,
    now_ms: u64,
) -> Run<Decided> {
    let ran = authority.change_local(call, change, doctype, now_ms);
    ran.map(|(changed, applied)| (changed, applied.map(|it| it.changed)))
}

/// Said of what counts no longer: at no time.
const LATE: (CompletionAnswer, u64) = (CompletionAnswer::Late, 0);

/// Says what becomes of a completion, and what the time is where that was decided.
fn answer(tab: TabId, call: Call, (said, time_ms): (CompletionAnswer, u64), out: &mut Outbox) {
    let said = match said {
        CompletionAnswer::Done => "done",
        CompletionAnswer::Late => "late",
        CompletionAnswer::Stale => "stale",
    };
    let columns = ["answer", "time"].map(str::to_owned).to_vec();
    let mut rows = Rows { columns, ..Rows::default() };
    let time = i64::try_from(time_ms).unwrap_or(i64::MAX);
    rows.push([ValueRef::Text(said.as_bytes()), ValueRef::Integer(time)]);
    out.tell(tab, FromCore::Rows { call, rows });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: nobody is given tasks who handles none any longer. Method: one gives up on a channel,
    /// and before the server was told so another history takes the place of what it is of.
    #[test]
    fn who_gave_up_is_told_of_also_where_the_others_begin_anew() {
        let mut handlers = OwnHandlers { gone: vec![7], ..OwnHandlers::default() };
        handlers.are_replaced(&mut Watches::default());
        assert_eq!(handlers.gone, [7]);
        handlers.channel_lost();
        assert!(handlers.gone.is_empty(), "the server has noticed that by itself");
    }

    /// The same of one who gives up only then, and has not been said once more.
    #[test]
    fn who_gives_up_as_the_others_begin_anew_is_told_of() {
        let (tab, call) = (TabId(1), Call(1));
        let own = Own {
            handle: Handle(1),
            tag: 7,
            handling: Handling { kinds: Vec::new(), concurrency: 1 },
            instance: None,
            is_said: true,
            is_there: true,
            is_registered: true,
            completing: Vec::new(),
            hearing: Hearing::Unasked,
        };
        let mut handlers = OwnHandlers::default();
        handlers.own.insert((tab, call), own);
        handlers.are_replaced(&mut Watches::default());
        handlers.give_up(tab, call);
        assert_eq!(handlers.gone, [7]);
    }
}
