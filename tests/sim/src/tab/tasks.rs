//! What a tab has to do with tasks: what it handles, what it was given, and what it asks of those
//! that it has sent.

use std::collections::BTreeMap;

use tidelog_client::{Call, CommandName, Complete, Handle, Handling, Mutate, Request, ToCore};
use tidelog_document::{Completion, InstanceId, Outcome, TaskKind};
use tidelog_types::{Rows, Value};

use super::Tab;
use super::runs::{Attempt, Known, RunSaid};
use crate::app::{CANCEL_FLOW, DO, FLOW, JOB, Release, SEND_DO, START_FLOW, flow_version};
use crate::code::{Key, args_of};
use crate::docs::Doc;
use crate::judge::Sent;

/// Of one tab.
#[derive(Default)]
pub(crate) struct Tasks {
    pub(super) handling: BTreeMap<(Doc, Work), Handler>,
    /// Attempts at runs, by their numbers.
    pub(super) runs: BTreeMap<(Doc, u64), Attempt>,
    /// What was asked of those that count no longer.
    pub(super) left: Vec<Call>,
    /// What became of attempts is asked by these calls, and what of commands.
    completing: BTreeMap<Call, (Doc, Given)>,
    outcomes: BTreeMap<Call, (Doc, Sent)>,
}

/// What a handler handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    Commands,
    Runs,
}

/// Which versions of a workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Versions {
    Own,
    UpToOwn,
    /// Also later ones: of those a tab knows the code here, and its app would not.
    All,
}

/// Handles what there is in one document.
pub(super) struct Handler {
    pub(super) handle: Handle,
    pub(super) call: Call,
    /// Commands.
    given: Vec<Given>,
}

/// An attempt that a tab was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) task: u64,
    pub(crate) attempt: u64,
    pub(crate) position: u64,
    pub(crate) instance: u64,
    pub(crate) stream: String,
    /// What its arguments say that it is.
    pub(crate) id: String,
}

/// What a tab is told of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TaskNews {
    /// A handler was given this, and all else that it was given is over.
    Given(Doc, Vec<Given>),
    /// What it said of an attempt was answered so.
    Answered(Doc, Given, String),
    /// A command has come to this end; `None` if nobody knows it any more.
    Over(Doc, Sent, Option<String>),
    /// A handler has read what a run remembers, a part of it.
    Read(Doc, Given, Vec<(Key, Known)>),
    /// What it said of an attempt at a run was answered.
    RunSaid(Doc, Box<RunSaid>),
}

impl Tab {
    /// Sends a command.
    pub(crate) fn send_command(
        &mut self,
        doc: Doc,
        sent: &Sent,
        name: &str,
        [now_ms, clock_ms]: [u64; 2],
    ) -> ToCore {
        let args = match sent.is_run {
            true => vec![("id", sent.key.clone()), ("args", args_of(&sent.id, 0))],
            false => vec![
                ("stream", sent.stream.clone()),
                ("args", format!("{{\"id\":\"{}\"}}", sent.id)),
                ("key", sent.key.clone()),
            ],
        };
        let mutation = if sent.is_run { START_FLOW } else { SEND_DO };
        self.mutate_task(doc, mutation, args, name, [now_ms, clock_ms])
    }

    /// Cancels a run.
    pub(crate) fn cancel_run(
        &mut self,
        doc: Doc,
        id: String,
        name: &str,
        times: [u64; 2],
    ) -> ToCore {
        self.mutate_task(doc, CANCEL_FLOW, vec![("id", id)], name, times)
    }

    fn mutate_task(
        &mut self,
        doc: Doc,
        mutation: &str,
        args: Vec<(&str, String)>,
        name: &str,
        [now_ms, clock_ms]: [u64; 2],
    ) -> ToCore {
        let call = self.next_call();
        self.names.insert(call, name.to_owned());
        self.issued_by.insert(call, self.held[&doc]);
        let args = args.into_iter().map(|(name, value)| (name.to_owned(), Value::Text(value)));
        let mutate = Mutate {
            id: self.call_id(self.held[&doc], call),
            name: mutation.to_owned(),
            args: args.collect(),
            now_ms: clock_ms,
            again: None,
        };
        let (handle, request) = (self.held[&doc], Request::Mutate(mutate));
        self.ask(call, ToCore::Ask { call, handle, request }, now_ms, Default::default())
    }

    /// Wants to know what becomes of a command.
    pub(crate) fn ask_outcome(&mut self, doc: Doc, sent: &Sent) -> Option<ToCore> {
        let handle = *self.held.get(&doc)?;
        let call = self.next_call();
        self.tasks.outcomes.insert(call, (doc, sent.clone()));
        // A run is known by its id, and has no name.
        let [aggregate, name] = if sent.is_run { [FLOW, ""] } else { [JOB, DO] }.map(str::to_owned);
        let (stream, key) = (sent.stream.clone(), sent.key.clone());
        let request = Request::Outcome(CommandName { aggregate, stream, name, key });
        Some(ToCore::Ask { call, handle, request })
    }

    /// Whether it handles tasks of a document.
    pub(crate) fn handles(&self, doc: Doc, work: Work) -> bool {
        self.tasks.handling.contains_key(&(doc, work))
    }

    /// Handles tasks from now on, so many at a time; runs of these versions up to its own, or of
    /// any, where nobody else may be there who knows them.
    pub(crate) fn begin_handling(
        &mut self,
        doc: Doc,
        work: Work,
        concurrency: u32,
        versions: Versions,
    ) -> Option<ToCore> {
        let handle = *self.held.get(&doc)?;
        let call = self.next_call();
        self.tasks.handling.insert((doc, work), Handler { handle, call, given: Vec::new() });
        let own = flow_version(self.release);
        let versions = match versions {
            Versions::Own => own..=own,
            Versions::UpToOwn => 1..=own,
            Versions::All => 1..=flow_version(Release::Second),
        };
        let kinds = match work {
            Work::Commands => vec![(JOB, DO.to_owned())],
            Work::Runs => versions.map(|it| (FLOW, it.to_string())).collect(),
        };
        let kind =
            |(aggregate, name): (&str, String)| TaskKind { aggregate: aggregate.to_owned(), name };
        let kinds = kinds.into_iter().map(kind).collect();
        let request = Request::Handle(Handling { kinds, concurrency });
        Some(ToCore::Ask { call, handle, request })
    }

    /// Handles none any longer.
    pub(crate) fn end_handling(&mut self, doc: Doc, work: Work) -> Vec<ToCore> {
        let Some(Handler { call, .. }) = self.tasks.handling.remove(&(doc, work)) else {
            return Vec::new();
        };
        let of_runs = if work == Work::Runs { self.leave_runs(doc) } else { Vec::new() };
        let calls = of_runs.into_iter().chain([call]);
        calls
            .map(|call| {
                self.let_go.insert(call);
                ToCore::GiveUp { call }
            })
            .collect()
    }

    /// What it was given in all documents, and has said nothing of.
    pub(crate) fn given(&self) -> Vec<(Doc, Given)> {
        let said = |given: &Given| self.tasks.completing.values().any(|(_, it)| it == given);
        let of = |((doc, _), it): (&(Doc, Work), &Handler)| -> Vec<_> {
            it.given.iter().map(|given| (*doc, given.clone())).collect()
        };
        let all = self.tasks.handling.iter().flat_map(of);
        all.filter(|(_, given)| !said(given)).collect()
    }

    /// Says what came of an attempt.
    pub(crate) fn complete(&mut self, doc: Doc, given: &Given, outcome: Outcome) -> Option<ToCore> {
        let Handler { handle, call: handling, .. } =
            *self.tasks.handling.get(&(doc, Work::Commands))?;
        let call = self.next_call();
        self.tasks.completing.insert(call, (doc, given.clone()));
        let Given { task, attempt, position, instance, .. } = *given;
        let instance = InstanceId(instance);
        let completion = Completion { task, attempt, position, outcome };
        let request = Request::Complete(Complete { handling, instance, completion });
        Some(ToCore::Ask { call, handle, request })
    }

    /// A document is closed: what concerned its tasks is over.
    pub(super) fn leave_tasks(&mut self, doc: Doc) -> Vec<ToCore> {
        let outcomes = self.tasks.outcomes.extract_if(.., |_, (of, _)| *of == doc);
        let completing = self.tasks.completing.extract_if(.., |_, (of, _)| *of == doc);
        let calls: Vec<Call> = outcomes.map(|it| it.0).chain(completing.map(|it| it.0)).collect();
        self.let_go.extend(&calls);
        let mut messages: Vec<ToCore> =
            calls.into_iter().map(|call| ToCore::GiveUp { call }).collect();
        for work in [Work::Commands, Work::Runs] {
            messages.extend(self.end_handling(doc, work));
        }
        messages
    }

    /// Whether that call concerns tasks, and is no mutation.
    pub(super) fn is_about_tasks(&self, call: Call) -> bool {
        self.tasks.handling.values().any(|it| it.call == call)
            || self.tasks.completing.contains_key(&call)
            || self.tasks.outcomes.contains_key(&call)
            || self.is_about_runs(call)
    }

    /// It has failed, for good or for now.
    pub(super) fn task_call_failed(&mut self, call: Call, last: bool) {
        self.tasks.completing.remove(&call);
        self.tasks.outcomes.remove(&call);
        self.run_call_failed(call);
        if last {
            let ended = self.tasks.handling.extract_if(.., |_, it| it.call == call);
            let ended: Vec<(Doc, Work)> = ended.map(|(key, _)| key).collect();
            for (doc, _) in ended.into_iter().filter(|(_, work)| *work == Work::Runs) {
                let left = self.leave_runs(doc);
                self.let_go.extend(left);
            }
        } else if let Some(it) = self.tasks.handling.values_mut().find(|it| it.call == call) {
            it.given.clear();
        }
    }

    /// Rows about tasks have come.
    ///
    /// # Errors
    ///
    /// They are none of that kind.
    pub(super) fn task_rows(&mut self, call: Call, rows: &Rows) -> Result<TaskNews, String> {
        let all = rows.decode();
        if let Some((doc, given)) = self.tasks.completing.remove(&call) {
            let row = all.first().ok_or("a completion was answered by nothing")?;
            // The next list may come later, and nobody says of one attempt what came of it twice.
            if let Some(handler) = self.tasks.handling.get_mut(&(doc, Work::Commands)) {
                handler.given.retain(|it| *it != given);
            }
            return Ok(TaskNews::Answered(doc, given, text(row, 0)?));
        }
        if let Some((doc, sent)) = self.tasks.outcomes.remove(&call) {
            let state = all.first().map(|row| text(row, 1)).transpose()?;
            return Ok(TaskNews::Over(doc, sent, state));
        }
        if self.is_about_runs(call) {
            return self.run_rows(call, &all);
        }
        let mut handlers = self.tasks.handling.iter_mut();
        let ((doc, work), handler) =
            handlers.find(|(_, it)| it.call == call).expect("BUG: it is known");
        if *work == Work::Runs {
            let doc = *doc;
            self.take_runs(doc, &all)?;
            return Ok(TaskNews::Given(doc, self.given_runs(doc)));
        }
        handler.given = all.iter().map(|row| given(row)).collect::<Result<_, _>>()?;
        Ok(TaskNews::Given(*doc, handler.given.clone()))
    }
}

fn given(row: &[Value]) -> Result<Given, String> {
    let args = text(row, 4)?;
    let id = args.strip_prefix("{\"id\":\"").and_then(|rest| rest.strip_suffix("\"}"));
    Ok(Given {
        task: number(row, 0)?,
        attempt: number(row, 9)?,
        position: number(row, 10)?,
        instance: number(row, 12)?,
        stream: text(row, 2)?,
        id: id.ok_or_else(|| format!("a task was given with {args}"))?.to_owned(),
    })
}

pub(super) fn number(row: &[Value], column: usize) -> Result<u64, String> {
    match row.get(column) {
        Some(Value::Integer(number)) => Ok(number.unsigned_abs()),
        other => Err(format!("column {column} is {other:?}")),
    }
}

pub(super) fn text(row: &[Value], column: usize) -> Result<String, String> {
    match row.get(column) {
        Some(Value::Text(text)) => Ok(text.clone()),
        other => Err(format!("column {column} is {other:?}")),
    }
}
