//! What was said of commands, and what has to be there of them in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::{Judge, News, When};
use crate::code::is_of_run;
use crate::docs::Doc;
use crate::swarm::{History, Swarm};
use crate::tab::{Given, TaskNews};
use crate::task_tables;

/// What begins the names of what sends a command.
pub(crate) const SENDING: &str = "send-";
/// The same of what is told again of such a document, when nobody knows its name any more.
pub(crate) fn sending_in(doc: Doc) -> String {
    format!("{SENDING}of-{}-", doc.0)
}

/// What begins the reason for which one is rejected whose key stands for another one.
const KEY_REUSED: &str = "key reused: ";

/// A command as somebody sends it, or a run as somebody starts it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sent {
    pub(crate) stream: String,
    pub(crate) key: String,
    /// What its arguments say.
    pub(crate) id: String,
    /// Whether it is a run that is started, and its key the run's id.
    pub(crate) is_run: bool,
}

/// All that is known of commands.
#[derive(Default)]
pub(crate) struct TaskLedger {
    pub(super) sent: BTreeMap<String, (Doc, Sent)>,
    pub(super) confirmed: BTreeSet<(Doc, Sent)>,
    /// When a device was told first that what sends a command was rejected.
    rejected_ms: BTreeMap<(usize, String), u64>,
    /// Those for which a listener there has returned.
    handled: BTreeSet<(usize, String)>,
    /// What was told to be over, and how.
    told: BTreeMap<(Doc, Sent), String>,
    /// Which attempts were told to be taken, and by whom.
    taken: BTreeSet<(Doc, u64, u64, String)>,
    /// What is known of runs.
    pub(super) runs: super::runs::RunLedger,
    /// Who was given each attempt.
    given: BTreeMap<(Doc, u64, u64, String), u64>,
    /// Whether servers, or devices, may lose what they have said.
    pub(crate) may_lose: bool,
    /// Whether the data of a device may be cleared, with local documents.
    may_be_cleared: bool,
    /// Whether a clock may go on so far that what is over is forgotten.
    pub(crate) may_forget: bool,
    /// Documents that are decided on a device, or were: an attempt counts there before that is on
    /// the disk, and is given again where it was lost.
    pub(super) local: BTreeSet<Doc>,
    /// Documents of which a copy that nobody else has was deleted.
    lost: BTreeSet<Doc>,
}

impl TaskLedger {
    /// When a device was last told of a rejection of what sends a command: of those that a listener
    /// of the document is told now, and those for which one has returned.
    pub(super) fn last_rejected_ms(
        &self,
        device: usize,
        doc: Doc,
        told: &BTreeSet<String>,
    ) -> Option<u64> {
        let beginning = sending_in(doc);
        let is_it = |(rejected, _): &(&(usize, String), &u64)| {
            let (at, name) = rejected;
            let is_handled = self.handled.contains(*rejected) && name.starts_with(&beginning);
            *at == device && (told.contains(name) || is_handled)
        };
        self.rejected_ms.iter().filter(is_it).map(|(_, at_ms)| *at_ms).max()
    }
}

impl News {
    /// Whether it is about a mutation that sends a command.
    pub(super) fn is_of_sending(&self) -> bool {
        match self {
            Self::Durable(name)
            | Self::Confirmed(name)
            | Self::Rejected(name, _)
            | Self::Failed(name, _)
            | Self::Forbidden(name)
            | Self::Unknown(name)
            | Self::Left(name)
            | Self::Kept(name)
            | Self::Handled(name) => name.starts_with(SENDING),
            Self::Rows { .. } | Self::Task(_) => false,
        }
    }
}

impl Judge {
    /// There are tasks in this world.
    pub(crate) fn expect_tasks(&mut self, swarm: &Swarm, may_forget: bool, local: BTreeSet<Doc>) {
        self.tasks.local = local;
        let parts = swarm.servers_go_back() || swarm.devices_part() || swarm.rots();
        self.tasks.may_lose = parts || swarm.rivals || swarm.forks();
        self.tasks.may_forget = may_forget;
        let is_clearing = |(_, it): &(u64, History)| *it == History::ClearDevice;
        self.tasks.may_be_cleared = swarm.history.iter().any(is_clearing);
    }

    /// Somebody sends a command. Gives the name of the mutation that does.
    pub(crate) fn sends(&mut self, doc: Doc, sent: &Sent) -> String {
        self.tasks_count += 1;
        let name = format!("{SENDING}{}", self.tasks_count);
        self.tasks.sent.insert(name.clone(), (doc, sent.clone()));
        name
    }

    /// What was sent by that name.
    pub(crate) fn sent(&self, name: &str) -> Option<(Doc, Sent)> {
        self.tasks.sent.get(name).cloned()
    }

    /// The same of a document of which nothing else may be left.
    pub(crate) fn tasks_may_be_lost(&mut self, doc: Doc) {
        self.tasks.lost.insert(doc);
    }

    /// Whether a copy that nobody else has may have been deleted, or cleared.
    pub(super) fn may_be_gone(&self, doc: Doc) -> bool {
        let is_cleared = self.tasks.may_be_cleared && self.tasks.local.contains(&doc);
        self.tasks.lost.contains(&doc) || is_cleared
    }

    /// # Errors
    ///
    /// If it cannot be true.
    pub(super) fn hear_of_sending(&mut self, news: News, when: When) -> Result<(), String> {
        if let News::Rejected(name, _) = &news {
            let at_ms = self.tasks.rejected_ms.entry((when.device, name.clone()));
            at_ms.or_insert(when.now_ms);
        }
        match news {
            News::Handled(name) => _ = self.tasks.handled.insert((when.device, name)),
            News::Confirmed(name) => {
                self.tasks.confirmed.extend(self.tasks.sent.get(&name).cloned());
            }
            News::Rejected(name, reason) | News::Failed(name, Some(reason))
                if reason.starts_with(KEY_REUSED) =>
            {
                let Some((doc, sent)) = self.tasks.sent.get(&name) else { return Ok(()) };
                let is_other = |(of, it): &(Doc, Sent)| {
                    let both = [it, sent].map(|it| (&it.stream, &it.key, it.is_run));
                    of == doc && both[0] == both[1] && it != sent
                };
                if !self.tasks.sent.values().any(is_other) {
                    return Err(format!("{sent:?} is told: {reason}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// # Errors
    ///
    /// If it cannot be true.
    pub(super) fn hear_of_task(&mut self, news: TaskNews) -> Result<(), String> {
        self.tasks_count += 1;
        let may_lose = self.tasks.may_lose;
        match news {
            TaskNews::Given(doc, given) => {
                self.runs_given(doc, &given)?;
                for Given { task, attempt, instance, id, .. } in given {
                    let attempt = (doc, task, attempt, id);
                    let other = self.tasks.given.insert(attempt.clone(), instance);
                    let is_local = self.tasks.local.contains(&doc);
                    if other.is_some_and(|other| other != instance) && !may_lose && !is_local {
                        return Err(format!("{attempt:?} was given to {other:?} and {instance}"));
                    }
                }
            }
            TaskNews::Answered(doc, Given { task, attempt, id, .. }, answer) => {
                if answer == "done"
                    && !self.tasks.taken.insert((doc, task, attempt, id.clone()))
                    && !may_lose
                    && !self.tasks.local.contains(&doc)
                {
                    return Err(format!("attempt {attempt} at {id} was taken twice"));
                }
            }
            TaskNews::Read(doc, run, known) => self.run_was_read(doc, &run, known)?,
            TaskNews::RunSaid(doc, said) => self.run_was_answered(doc, &said)?,
            TaskNews::Over(doc, sent, Some(state)) => {
                let is_end = matches!(state.as_str(), "completed" | "failed");
                if !(is_end || sent.is_run && state == "cancelled") {
                    return Err(format!("{sent:?} is over, and {state}"));
                }
                self.tasks.told.insert((doc, sent), state);
            }
            TaskNews::Over(doc, sent, None) => {
                let of = &self.tasks;
                let is_lost = of.lost.contains(&doc) || of.may_be_cleared;
                let may_be_gone = of.may_forget || may_lose || is_lost;
                if !may_be_gone {
                    return Err(format!("{sent:?} is confirmed, and nobody knows it"));
                }
            }
        }
        Ok(())
    }

    /// Compares what was said of commands with what a document has of them in the end, when all
    /// that could be handled was.
    pub(crate) fn judge_tasks(
        &self,
        doc: Doc,
        found: &task_tables::Tasks,
        is_over: bool,
    ) -> Result<(), String> {
        let TaskLedger { may_forget, may_lose, .. } = self.tasks;
        found.fold(may_forget, is_over)?;
        let may_lose = may_lose || self.may_be_gone(doc);
        if is_over && let Some(open) = found.open() {
            return Err(format!("{open:?} is not over, and there is somebody who handles it"));
        }
        let sent: BTreeSet<&str> =
            self.tasks.sent.values().map(|(_, sent)| sent.id.as_str()).collect();
        // What runs send is judged with those.
        let is_sent = |id: &str| {
            let id = id.trim_end_matches("-next");
            sent.contains(id) || is_of_run(id)
        };
        if let Some(id) = found.ids().find(|id| !is_sent(id)) {
            return Err(format!("{id} is there, and nobody has sent it"));
        }
        if may_lose {
            return Ok(());
        }
        let here = |(of, sent): &&(Doc, Sent)| *of == doc && !sent.is_run;
        for (_, sent) in self.tasks.confirmed.iter().filter(here) {
            match found.state(sent) {
                Some((id, _)) if id == sent.id => {}
                _ if may_forget => {}
                other => return Err(format!("{sent:?} was confirmed, and there is {other:?}")),
            }
        }
        for ((_, sent), told) in self.tasks.told.iter().filter(|(key, _)| here(key)) {
            let has_events = found.events_of(&sent.id) > 0;
            if has_events != (told == "completed") && !may_forget {
                return Err(format!("{sent:?} was told to be {told}: its events {has_events}"));
            }
        }
        Ok(())
    }
}
