//! When tasks of the document are due, for whoever handles those of many documents and has few of
//! them open.
//!
//! The room looks while nothing else is to be done: soon after the document has changed, and at
//! once where nobody is here any more. What it finds then goes to the disk, since the room may be
//! dropped. With the first entry behind that the record says that it is not known any more: so a
//! document that was changed as its server died is looked at again, and none is forgotten.

use std::collections::BTreeSet;

use tidelog_document::{Doctype, DueTasks, TaskKind, find_due};
use tidelog_types::limits::INSTANCE_SILENT_MS;

use super::{Halt, Room, RoomEffect, State, Work, ran};

/// After which time it looks while somebody is here: however much happens, not more often.
const LOOKS_AFTER_MS: u64 = 250;

impl Room {
    /// When a step is due so that it is looked when tasks are due, if ever: see
    /// [`RoomInput::GoOn`](super::RoomInput::GoOn).
    #[must_use]
    pub fn looks_at_ms(&self) -> Option<u64> {
        self.may_look().then_some(self.looks_at_ms).flatten()
    }

    /// Whether nobody has looked since the document changed, or it is not recorded what was found
    /// and nobody is here any more; and whether the room has time to.
    fn may_look(&self) -> bool {
        let State::Open(document) = &self.state else { return false };
        let is_served = !self.settings.is_damaged && !document.is_incomplete;
        let has_time = self.queue.is_empty() && self.fetch.is_none();
        let has_tasks = || document.record.has_tasks();
        let is_recorded = !self.subscribers.is_empty() || document.record.due == document.due;
        let is_known = document.due.is_some() && is_recorded;
        !is_known && !self.looks_in_vain && is_served && has_time && has_tasks()
    }

    /// Has it looked when tasks are due, if it is time to. Says whether it is.
    pub(super) fn plan_a_look(&mut self) -> bool {
        if !self.may_look() {
            return false;
        }
        let at_ms = *self.looks_at_ms.get_or_insert(self.now_ms.saturating_add(LOOKS_AFTER_MS));
        // The clock may have been set back since.
        let is_late = at_ms <= self.now_ms || at_ms > self.now_ms.saturating_add(LOOKS_AFTER_MS);
        let is_time = self.subscribers.is_empty() || is_late;
        if is_time {
            self.queue.push_back(Work::Look);
        }
        is_time
    }

    /// Looks when tasks are due.
    pub(super) fn look(&mut self) -> Result<(), Halt> {
        // Those whom the document knows may come back for so long. For whoever handled tasks there
        // before the room was made, it does not wait.
        let is_known = self.handlers.as_ref().is_some_and(|it| it.count() > 0);
        let given_ms = if is_known { self.now_ms.saturating_add(INSTANCE_SILENT_MS) } else { 0 };
        let is_left = self.subscribers.is_empty();
        let is_damaged = self.settings.is_damaged;
        let State::Open(document) = &mut self.state else { return Ok(()) };
        let due = match ran(find_due(document.authority.reader(), given_ms)) {
            Ok(due) => due,
            Err(Halt::Failed(failure)) if !failure.is_passing() => {
                self.look_in_vain();
                return Ok(());
            }
            Err(halt) => return Err(halt),
        };
        self.looks_at_ms = None;
        if is_left && !is_damaged && document.record.due.as_ref() != Some(&due) {
            document.record.due = Some(due.clone());
            self.outbox.record(document.record.encode());
        }
        document.due = Some(due);
        Ok(())
    }

    /// It cannot be told when: nobody could handle them either, as long as it is open.
    pub(super) fn look_in_vain(&mut self) {
        self.looks_in_vain = true;
    }

    /// Tells the shell when tasks are due that nobody handles who is here, if that has changed.
    /// What is stopped fits the code of none of those.
    pub(super) fn tell_due(&mut self) {
        let State::Open(document) = &self.state else { return };
        // Where it has changed since it was looked, only what somebody handles by now is known.
        let Some(due) = document.due.as_ref().or(self.told_due.as_ref()) else { return };
        let handled = self.handlers.iter().flat_map(|it| it.handled());
        let handled: BTreeSet<&TaskKind> = handled.collect();
        let mut due = due.clone();
        due.at_ms.retain(|kind, _| !handled.contains(kind));
        if document
            .record
            .newest()
            .is_some_and(|it| kinds_of(&it).iter().all(|kind| handled.contains(kind)))
        {
            due.others_at_ms = None;
        }
        self.note_due(due);
    }

    /// What is due may be anything, and is found out by whoever opens the document: what the room
    /// had seen of it may not be on the disk.
    pub(super) fn tell_any_is_due(&mut self) {
        let State::Open(document) = &self.state else { return };
        if document.record.has_tasks() {
            self.note_due(DueTasks { others_at_ms: Some(0), ..DueTasks::default() });
        }
    }

    /// There is another document from now on: nobody handles tasks there, and nobody has looked.
    pub(super) fn forget_tasks(&mut self) {
        self.handlers = None;
        self.looks_at_ms = None;
        self.looks_in_vain = false;
    }

    /// The document is gone, unless there is another one already.
    pub(super) fn tell_none_is_due(&mut self) {
        if !matches!(self.state, State::Open(_)) {
            self.note_due(DueTasks::default());
        }
    }

    fn note_due(&mut self, due: DueTasks) {
        if self.told_due.as_ref() != Some(&due) {
            self.told_due = Some(due.clone());
            self.effects.push(RoomEffect::Due(due));
        }
    }
}

/// What its tasks can be, as far as this doctype says.
fn kinds_of(doctype: &Doctype) -> BTreeSet<TaskKind> {
    let kind = |aggregate: &str, name: String| TaskKind { aggregate: aggregate.to_owned(), name };
    let commands = doctype.streams.iter().flat_map(|stream| {
        stream.commands.iter().map(|command| kind(&stream.name, command.name.clone()))
    });
    let runs = doctype.workflows.iter().map(|it| kind(&it.name, it.version.to_string()));
    commands.chain(runs).collect()
}
