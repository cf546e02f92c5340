//! Who handles the document's tasks: clients that register, what they are given, and what they
//! say came of it. All of it is decided here, by the shell's clock, and is an entry like any other.

use std::collections::BTreeSet;
use std::fmt;

use tidelog_document::{
    Change, Changed, Completion, Handlers, InstanceId, Outcome, TaskKind, client_of,
};
use tidelog_sqlite::Failure;
use tidelog_sync::{CompletionAnswer, FromRoom, Refusal};
use tidelog_types::limits::{INSTANCE_COMMANDS_MAX, INSTANCES_MAX};
use tidelog_types::{Budget, shortened};

use super::caution::{ENDED_BY_COMPLETION, Suspect, cautiously};
use super::outbox::After;
use super::subscriber::{ChannelId, SubscriberId};
use super::{ConnId, Halt, Room, Speaker, State, Work, brief, ran};

/// Somebody who handles tasks: at which client, and under which of its numbers.
pub(super) type Place = (SubscriberId, u32);

/// Bytes of the names of the kinds of tasks that one instance handles.
const KINDS_SIZE_MAX: usize = 64 * 1024;

/// What whoever wants something of a document is told that is full, say.
pub(super) const TAKES_NOTHING_MORE: &str = "the document takes nothing more";

/// Why a document does not take what its room has decided.
pub(super) enum Untaken {
    /// Servers have died of it.
    EndsTheServer,
    /// It has no doctype.
    NoDoctype,
    /// It cannot be written: the document is full, say.
    Failed(Failure),
}

impl fmt::Display for Untaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndsTheServer => f.write_str("the server crashed each time"),
            Self::NoDoctype => f.write_str("the document has no doctype"),
            Self::Failed(failure) => f.write_str(&shortened(failure.to_string())),
        }
    }
}

const NOT_ALLOWED: &str = "the token does not allow to handle its commands and workflows";

/// What a client says of somebody who handles tasks.
pub(super) enum Word {
    /// It begins to, as the instance that it was before, if it was one.
    Register { before: InstanceId, kinds: Vec<TaskKind>, concurrency: u32 },
    /// It handles none any longer.
    Deregister,
    /// An attempt has come to an end.
    Complete { number: u32, completion: Vec<u8> },
}

impl Word {
    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Register { kinds, .. } => {
                kinds.iter().map(|kind| 64 + kind.aggregate.len() + kind.name.len()).sum()
            }
            Self::Deregister => 0,
            Self::Complete { completion, .. } => completion.len(),
        }
    }
}

impl Room {
    /// What the time is, in milliseconds since the epoch, until it is told anew.
    pub fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// When a step is due by the clock alone, if ever: see
    /// [`RoomInput::GoOn`](super::RoomInput::GoOn).
    #[must_use]
    pub fn handling_due_at_ms(&self) -> Option<u64> {
        self.may_plan().then(|| self.handlers.as_ref()?.due_at_ms()).flatten()
    }

    /// Puts what is to be decided by the room itself behind what waits, one at a time. Says whether
    /// there is anything.
    pub(super) fn plan_a_change(&mut self) -> bool {
        if !self.may_plan() {
            return false;
        }
        let change = self.handlers.as_mut().and_then(|it| it.next_change(self.now_ms));
        let is_one = change.is_some();
        self.queue.extend(change.map(Work::Change));
        is_one
    }

    /// Whether anything may be planned: not while something is, and waits for its turn or a page.
    fn may_plan(&self) -> bool {
        let is_change = |work: &Work| matches!(work, Work::Change(_));
        let begun = self.fetch.iter().map(|fetch| &fetch.work);
        matches!(self.state, State::Open(_))
            && !self.settings.is_damaged
            && !self.queue.iter().chain(begun).any(is_change)
    }

    /// Commands cannot be given for want of a page: whoever handles them is refused, and everybody
    /// else goes on.
    pub(super) fn end_handling(&mut self, refusal: &Refusal) {
        let Some(handlers) = self.handlers.take() else { return };
        let ids: BTreeSet<SubscriberId> = handlers.places().map(|(id, _)| id).collect();
        for id in ids {
            let Some(channel_id) = self.subscribers.get(&id).map(|it| it.channel_id) else {
                continue;
            };
            self.vacate(channel_id);
            let refused = FromRoom::Refused(brief(refusal.clone()));
            self.outbox.after(After::TellChannel(channel_id, refused));
        }
    }

    /// Those who handle commands, as the document knows them.
    pub(super) fn handlers(&mut self) -> Result<&mut Handlers<Place>, Halt> {
        if self.handlers.is_none()
            && let State::Open(document) = &mut self.state
        {
            let work = ran(document.authority.work())?;
            self.handlers = Some(Handlers::of(work, self.now_ms));
        }
        Ok(self.handlers.get_or_insert_default())
    }

    /// A client is gone, and all at it that handled commands.
    pub(super) fn handlers_leave(&mut self, id: SubscriberId) {
        let now_ms = self.now_ms;
        if let Some(handlers) = &mut self.handlers {
            handlers.leave(|(at, _)| at == id, now_ms);
        }
    }

    /// A client goes that was last heard then, and all at it that handled commands.
    pub(super) fn silent_leave(&mut self, conn: ConnId, since_ms: u64) {
        let channel_ids = self.channels_of(conn).into_iter();
        let ids: BTreeSet<SubscriberId> =
            channel_ids.filter_map(|it| self.subscriber_at(it)).collect();
        if let Some(handlers) = &mut self.handlers {
            handlers.leave(|(at, _)| ids.contains(&at), since_ms);
        }
    }

    /// Carries out what the room has decided.
    pub(super) fn carry_out_change(
        &mut self,
        change: &Change,
        budget: &mut Budget,
    ) -> Result<(), Halt> {
        // A client may have said something ahead of it since it was planned.
        match self.handlers()?.still(change) {
            Some(change) => self.decide(&change, budget),
            None => Ok(()),
        }
    }

    /// Decides it now, or puts it off.
    fn decide(&mut self, change: &Change, budget: &mut Budget) -> Result<(), Halt> {
        let (changed, now_ms) = (self.change(change, budget)?, self.now_ms);
        match changed {
            Ok(changed) => self.handlers()?.decided(change, &changed),
            Err(why) => {
                self.note_untaken(change, &why);
                self.handlers()?.put_off(change, now_ms);
            }
        }
        Ok(())
    }

    /// What it comes to, or why the document does not take it.
    pub(super) fn change(
        &mut self,
        change: &Change,
        budget: &mut Budget,
    ) -> Result<Result<Changed, Untaken>, Halt> {
        let now_ms = self.now_ms;
        let State::Open(document) = &mut self.state else { unreachable!("BUG: nothing to change") };
        let Some(doctype) = document.record.newest() else { return Ok(Err(Untaken::NoDoctype)) };
        let at = document.authority.position();
        let suspect = || Suspect::change(&self.document, change, at);
        let run = || document.authority.change(change, &doctype, now_ms);
        let Some(run) = cautiously(&*self.caution, suspect, run) else {
            return Ok(Err(Untaken::EndsTheServer));
        };
        let ran = ran(run);
        budget.spend_steps(document.authority.take_steps());
        let (changed, committed) = match ran {
            Ok(ran) => ran,
            Err(Halt::Failed(failure)) if !failure.is_passing() => {
                return Ok(Err(Untaken::Failed(failure)));
            }
            Err(halt) => return Err(halt),
        };
        if let Some(committed) = committed {
            document.moved_on(None);
            budget.spend_pages(committed.entry.set.pages.len() as u64);
            self.outbox.entry(committed, None, None);
        }
        Ok(Ok(changed))
    }

    /// For whoever watches the server: nobody who says such a thing is told why.
    fn note_untaken(&mut self, change: &Change, why: &Untaken) {
        let what = match change {
            Change::Register { .. } | Change::Deregister(_) => "who handles its tasks",
            Change::Dispatch(_) => "who is given which task",
            _ => "what a task has come to",
        };
        self.untaken.push(format!("{what} cannot be written: {why}"));
    }

    /// Hears somebody who handles commands.
    pub(super) fn handling(
        &mut self,
        channel_id: ChannelId,
        tag: u32,
        word: &Word,
        speaker: &Speaker,
        budget: &mut Budget,
    ) -> Result<(), Halt> {
        let Some(id) = self.subscriber_at(channel_id) else { return Ok(()) };
        let State::Open(document) = &self.state else { return Ok(()) };
        if self.settings.is_damaged {
            return Err(Halt::Refuse(Refusal::Damaged));
        }
        let has_tasks = document.record.has_tasks();
        match word {
            Word::Register { before, kinds, concurrency } => {
                let may = match (speaker.handles, has_tasks) {
                    (true, true) => Ok(()),
                    (false, _) => Err(NOT_ALLOWED),
                    (true, false) => Err("the document has no commands or workflows"),
                };
                let user = speaker.subject.as_deref().unwrap_or_default();
                self.register((id, tag), (*before, kinds, *concurrency), (user, may), budget)
            }
            Word::Deregister => match self.handlers()?.at((id, tag)) {
                Some(instance) => self.decide(&Change::Deregister(instance), budget),
                None => Ok(()),
            },
            Word::Complete { number, completion } => {
                if !speaker.handles {
                    self.unregister((id, tag), budget)?;
                }
                let (answer, time_ms) = match Completion::decode(completion) {
                    Ok(completion) if speaker.handles => {
                        self.complete((id, tag), completion, budget)?
                    }
                    // Nobody has been given that.
                    _ => (CompletionAnswer::Late, self.now_ms),
                };
                let told = FromRoom::Completed { tag, number: *number, answer, time_ms };
                self.outbox.after(After::Tell(id, told));
                Ok(())
            }
        }
    }

    /// A client may not handle tasks any longer, whose channel this is.
    pub(super) fn handles_no_more(
        &mut self,
        channel_id: ChannelId,
        budget: &mut Budget,
    ) -> Result<(), Halt> {
        let Some(id) = self.subscriber_at(channel_id) else { return Ok(()) };
        let places = self.handlers.iter().flat_map(|it| it.places());
        let places: Vec<Place> = places.filter(|(at, _)| *at == id).collect();
        for place in places {
            self.unregister(place, budget)?;
        }
        Ok(())
    }

    /// It could handle tasks when it was registered: what it is given is given to others.
    fn unregister(&mut self, place: Place, budget: &mut Budget) -> Result<(), Halt> {
        if let Some(instance) = self.handlers()?.at(place) {
            self.decide(&Change::Deregister(instance), budget)?;
            self.tell_not_registered(place, NOT_ALLOWED);
        }
        Ok(())
    }

    fn tell_not_registered(&mut self, (id, tag): Place, reason: &str) {
        let told = FromRoom::NotRegistered { tag, reason: shortened(reason.to_owned()) };
        self.outbox.after(After::Tell(id, told));
    }

    fn register(
        &mut self,
        place: Place,
        (before, kinds, concurrency): (InstanceId, &[TaskKind], u32),
        (user, may): (&str, Result<(), &str>),
        budget: &mut Budget,
    ) -> Result<(), Halt> {
        let (id, tag) = place;
        if let Err(reason) = may {
            self.tell_not_registered(place, reason);
            return Ok(());
        }
        let (client, user) = (client_of(self.subscribers[&id].secret), user.to_owned());
        let handlers = self.handlers()?;
        let known =
            handlers.at(place).or_else(|| handlers.may_resume(before, client).then_some(before));
        let is_full = known.is_none() && handlers.count() >= INSTANCES_MAX;
        let many = if is_full { Err("too many handle its commands already") } else { Ok(()) };
        let size = kinds.iter().map(|kind| kind.aggregate.len() + kind.name.len()).sum::<usize>();
        let much = if size > KINDS_SIZE_MAX { Err("it handles too much") } else { Ok(()) };
        if let Err(reason) = many.and(much) {
            self.tell_not_registered(place, reason);
            return Ok(());
        }
        let instance = match known {
            Some(instance) => instance,
            None => {
                let begins = Change::Register { client, user, kinds: kinds.to_vec() };
                match self.change(&begins, budget)? {
                    Ok(Changed::Registered(instance)) => instance,
                    Ok(_) => unreachable!("BUG: it begins"),
                    Err(why) => {
                        self.note_untaken(&begins, &why);
                        self.tell_not_registered(place, TAKES_NOTHING_MORE);
                        return Ok(());
                    }
                }
            }
        };
        let concurrency = concurrency.clamp(1, INSTANCE_COMMANDS_MAX);
        self.handlers()?.register(instance, place, client, kinds.to_vec(), concurrency);
        let told = FromRoom::Registered { tag, instance: instance.0 };
        self.outbox.after(After::Tell(id, told));
        Ok(())
    }

    fn complete(
        &mut self,
        place: Place,
        completion: Completion,
        budget: &mut Budget,
    ) -> Result<(CompletionAnswer, u64), Halt> {
        let late = (CompletionAnswer::Late, self.now_ms);
        let Some(instance) = self.handlers()?.at(place) else { return Ok(late) };
        let mut change = Change::Complete { instance, completion };
        let mut changed = self.change(&change, budget)?;
        // Whether its handler means to go on with a run that has failed so.
        let mut is_amid = false;
        if matches!(changed, Err(Untaken::EndsTheServer))
            && let Change::Complete { completion, .. } = &mut change
        {
            let reason = ENDED_BY_COMPLETION.to_owned();
            is_amid = matches!(completion.outcome, Outcome::Progressed { .. });
            completion.outcome = Outcome::Failed { reason, is_final: true };
            changed = self.change(&change, budget)?;
        }
        let changed = match changed {
            Ok(changed) => changed,
            // Where not even that it has failed can be written down it is given again, in time.
            Err(why) => {
                self.note_untaken(&change, &why);
                return Ok(late);
            }
        };
        self.handlers()?.decided(&change, &changed);
        match is_amid {
            true => Ok(late),
            false => Ok(changed.answer(self.now_ms).expect("BUG: it was a completion")),
        }
    }
}
