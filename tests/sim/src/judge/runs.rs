//! What was said of runs of a workflow: what each attempt was told, and what was taken of it.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_document::{Outcome, Recorded};

use super::Judge;
use crate::code::{Answer, CodeOf, Key, is_of_run};
use crate::docs::Doc;
use crate::run_tables;
use crate::tab::{Given, GivenRun, Known, RunNews, RunSaid};

/// Which run: its document, its number, and what its arguments say.
type Run = (Doc, u64, String);

/// All that is known of runs.
#[derive(Default)]
pub(super) struct RunLedger {
    /// The ids of runs that somebody has cancelled, or wanted to.
    cancelled: BTreeSet<(Doc, String)>,
    /// The last attempt that anybody was given.
    latest: BTreeMap<Run, u64>,
    /// What the code was told, in its order, by which code.
    told: BTreeMap<(Run, CodeOf), Vec<(Key, Answer)>>,
    /// What stands in records whose run has heard of them.
    known: BTreeMap<(Run, Key), Known>,
    /// When what sleeps may go on, and the earliest time at which what waits gives up.
    due_ms: BTreeMap<(Run, Key), u64>,
    /// Requests that are remembered to be done, or to have failed.
    remembered: BTreeSet<String>,
    /// How far the deciding clock was when each attempt last said something.
    said_ms: BTreeMap<(Run, u64, u64), u64>,
    /// Attempts of which nothing more may be taken, since a later one was given before.
    late: BTreeSet<(Run, u64, u64)>,
    /// The attempt by which each has ended.
    ended: BTreeMap<Run, u64>,
}

impl Judge {
    /// Somebody wants a run cancelled. Gives the name of the mutation that does.
    pub(crate) fn cancels(&mut self, doc: Doc, id: &str) -> String {
        self.tasks_count += 1;
        self.tasks.runs.cancelled.insert((doc, id.to_owned()));
        format!("{}{}", super::SENDING, self.tasks_count)
    }

    /// Whether what is said of this document's runs may be said again, of others.
    fn forgets_runs(&self, doc: Doc) -> bool {
        self.tasks.may_lose || self.tasks.local.contains(&doc)
    }

    /// # Errors
    ///
    /// Runs are given that are over.
    pub(super) fn runs_given(&mut self, doc: Doc, given: &[Given]) -> Result<(), String> {
        let forgets = self.forgets_runs(doc);
        for Given { task, attempt, id, .. } in given {
            let run = (doc, *task, id.clone());
            if let Some(ended) = self.tasks.runs.ended.get(&run)
                && attempt > ended
                && !forgets
            {
                return Err(format!("{run:?} has ended by attempt {ended}: {attempt} is given"));
            }
            let latest = self.tasks.runs.latest.entry(run).or_default();
            *latest = *attempt.max(latest);
        }
        Ok(())
    }

    /// # Errors
    ///
    /// What was remembered is remembered otherwise.
    pub(super) fn run_was_read(
        &mut self,
        doc: Doc,
        run: &Given,
        known: Vec<(Key, Known)>,
    ) -> Result<(), String> {
        let forgets = self.forgets_runs(doc);
        let run = (doc, run.task, run.id.clone());
        for (key, it) in known.into_iter().filter(|(_, it)| it.answer().is_some()) {
            let before = self.tasks.runs.known.insert((run.clone(), key.clone()), it.clone());
            if let Some(before) = before.filter(|before| *before != it && !forgets) {
                return Err(format!("{key:?} of {run:?} was {before:?}, and is {it:?}"));
            }
        }
        Ok(())
    }

    /// # Errors
    ///
    /// It cannot be taken, and is, or stands for something else than before.
    pub(super) fn run_was_answered(&mut self, doc: Doc, said: &RunSaid) -> Result<(), String> {
        let forgets = self.forgets_runs(doc);
        let RunSaid { given, outcome, answer, time_ms, requests } = said;
        let run = (doc, given.task, given.id.clone());
        if answer != "done" {
            return match answer.as_str() {
                "late" => Ok(()),
                _ => Err(format!("what {run:?} has come to is {answer}")),
            };
        }
        let attempt = (run.clone(), given.attempt, given.instance);
        let runs = &mut self.tasks.runs;
        if runs.late.contains(&attempt) && !forgets {
            return Err(format!("what {attempt:?} has come to is taken, and a later one is given"));
        }
        let Outcome::Progressed { records, .. } = outcome else {
            let is_end = !matches!(outcome, Outcome::Stopped { .. });
            if is_end
                && let Some(before) = runs.ended.insert(run.clone(), given.attempt)
                && !forgets
            {
                return Err(format!("{attempt:?} has ended, and has by attempt {before}"));
            }
            return Ok(());
        };
        runs.remembered.extend(requests.iter().cloned());
        // It may have been decided as it was said first, of which nobody has heard, and be over by
        // the time of this answer.
        let since_ms = runs.said_ms.get(&attempt).map_or(*time_ms, |said_ms| *time_ms.min(said_ms));
        for record in records {
            if let Recorded::Sleep { ms } = record.what {
                let key = (run.clone(), (record.name.clone(), record.count));
                runs.due_ms.insert(key, since_ms + ms);
            }
        }
        Ok(())
    }

    /// A tab goes on with a run, where the deciding clock was at this at the furthest.
    ///
    /// # Errors
    ///
    /// That is not how it went on before, or not yet.
    pub(crate) fn hear_of_run(&mut self, news: RunNews, clock_ms: u64) -> Result<(), String> {
        match news {
            RunNews::Says { doc, run: GivenRun { given, .. } } => {
                let run = (doc, given.task, given.id);
                let attempt = (run.clone(), given.attempt, given.instance);
                if self.tasks.runs.latest.get(&run).is_some_and(|it| *it > given.attempt) {
                    self.tasks.runs.late.insert(attempt.clone());
                }
                self.tasks.runs.said_ms.insert(attempt, clock_ms);
            }
            RunNews::Asks { doc, run: GivenRun { given, .. }, key } => {
                let run = (doc, given.task, given.id);
                // Whoever was given it before may not have heard that it goes on elsewhere.
                let is_latest = self.tasks.runs.latest.get(&run) == Some(&given.attempt);
                let is_known = self.tasks.runs.remembered.contains(&key);
                if is_latest && is_known && !self.forgets_runs(doc) {
                    return Err(format!("{key} is asked again, and it is known what came of it"));
                }
            }
            RunNews::Tells { doc, run: GivenRun { given, of, .. }, nth, key, answer } => {
                let forgets = self.forgets_runs(doc);
                let run = (doc, given.task, given.id);
                let due_ms = self.tasks.runs.due_ms.get(&(run.clone(), key.clone()));
                if let Some(due_ms) = due_ms.filter(|due_ms| **due_ms > clock_ms)
                    && matches!(answer, Answer::Done(_))
                    && !forgets
                {
                    return Err(format!("{key:?} of {run:?} is over at {clock_ms}, due {due_ms}"));
                }
                let told = self.tasks.runs.told.entry((run.clone(), of)).or_default();
                match told.get(nth) {
                    None => told.push((key, answer)),
                    Some(before) if *before == (key.clone(), answer.clone()) || forgets => {}
                    Some(before) => {
                        return Err(format!(
                            "{run:?} was told {before:?} as {nth}, and now {key:?}: {answer:?}"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Compares what was said of runs with what a document has of them in the end.
    pub(crate) fn judge_runs(
        &self,
        doc: Doc,
        found: &run_tables::Runs,
        is_over: bool,
    ) -> Result<(), String> {
        let (may_forget, may_lose) = (self.tasks.may_forget, self.tasks.may_lose);
        found.fold(may_forget, is_over)?;
        let is_started = |id: &str| {
            let mut sent = self.tasks.sent.values();
            is_of_run(id) || sent.any(|(of, it)| *of == doc && it.is_run && it.id == id)
        };
        if let Some(id) = found.ids().find(|id| !is_started(id)) {
            return Err(format!("{id} is there, and nobody has started it"));
        }
        for id in found.cancelled_ids() {
            let is_it = self.tasks.runs.cancelled.contains(&(doc, id.to_owned()));
            if !is_it && !is_of_run(id) {
                return Err(format!("{id} was cancelled, and nobody wanted that"));
            }
        }
        if may_lose || may_forget || self.may_be_gone(doc) {
            return Ok(());
        }
        let here = self.tasks.confirmed.iter().filter(|(of, sent)| *of == doc && sent.is_run);
        for (_, sent) in here {
            if !found.ids().any(|id| id == sent.id) {
                return Err(format!("{sent:?} was confirmed, and is not there"));
            }
        }
        if self.tasks.local.contains(&doc) {
            return Ok(());
        }
        let told = self.tasks.runs.told.iter().filter(|(((of, ..), _), _)| *of == doc);
        for (((_, task, id), of), told) in told {
            found.compare(*task, id, of, told)?;
        }
        let known = self.tasks.runs.known.iter().filter(|(((of, ..), _), _)| *of == doc);
        for (((_, task, id), key), known) in known {
            found.compare_record(*task, id, key, known)?;
        }
        Ok(())
    }
}
