//! What a tab does with runs that it was given: as `js/src/run.ts` has it, the code is run from its
//! beginning, is told what the run remembers in its order, and then what is new.

use std::collections::{BTreeMap, VecDeque};

use tidelog_client::{Call, Complete, Records, Request, ToCore};
use tidelog_document::{Completion, InstanceId, NewCommand, NewRecord, NewRun, Outcome, Recorded};
use tidelog_types::Value;

use super::Tab;
use super::tasks::{Given, Work, number, text};
use crate::app::{DO, FLOW, JOB, Release};
use crate::code::{Answer, Ask, Code, CodeOf, End, Key, Want, args_of, key_of, read_args};
use crate::docs::Doc;
use crate::rng::Rng;

/// How often each request was asked somewhere else, by its key. It is answered by that number.
pub(crate) type FarEnd = BTreeMap<String, u64>;

/// A run that a tab was given.
#[derive(Clone, Debug)]
pub(crate) struct GivenRun {
    pub(crate) given: Given,
    pub(crate) of: CodeOf,
    is_cancelled: bool,
}

/// One thing that a run remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) record: u64,
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) result: Option<String>,
    pub(crate) time: Option<i64>,
}

impl Known {
    /// What the code is told of it, if the run has heard what became of it.
    pub(crate) fn answer(&self) -> Option<Answer> {
        self.time?;
        match (self.kind.as_str(), self.state.as_str()) {
            ("cancel", _) => Some(Answer::Cancelled),
            (_, "done") => Some(Answer::Done(self.result.clone())),
            (_, "failed") => Some(Answer::Failed(self.result.clone().unwrap_or_default())),
            _ => None,
        }
    }
}

/// What a tab has to do with runs beside what it is told.
#[derive(Clone, Debug)]
pub(crate) enum RunNews {
    /// The code is told this as so many others before.
    Tells { doc: Doc, run: GivenRun, nth: usize, key: Key, answer: Answer },
    /// Somebody else is asked for something, by that key.
    Asks { doc: Doc, run: GivenRun, key: String },
    /// It is said what the attempt has come to so far.
    Says { doc: Doc, run: GivenRun },
}

/// What was said of an attempt, and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunSaid {
    pub(crate) given: Given,
    pub(crate) outcome: Outcome,
    pub(crate) answer: String,
    pub(crate) time_ms: u64,
    /// Keys of requests that are remembered by that.
    pub(crate) requests: Vec<String>,
}

struct Asked {
    key: Key,
    /// Whether nothing comes of it here.
    waits: bool,
    /// Where it is held back, since the run is to hear that it was cancelled.
    held: Option<Want>,
}

/// An attempt at a run.
pub(super) struct Attempt {
    run: GivenRun,
    reading: Option<Call>,
    records: BTreeMap<Key, Known>,
    is_read: bool,
    code: Option<Code>,
    asked: Vec<Asked>,
    fresh: VecDeque<(Key, Answer)>,
    told: usize,
    /// The last record of an event among those.
    told_event: u64,
    /// Steps and requests.
    at_work: Vec<(Key, Want)>,
    queue: Vec<NewRecord>,
    saying: Option<(Call, Outcome)>,
    has_heard_of_cancel: bool,
    is_over: bool,
}

impl Attempt {
    fn new(run: GivenRun) -> Self {
        Self {
            run,
            reading: None,
            records: BTreeMap::new(),
            is_read: false,
            code: None,
            asked: Vec::new(),
            fresh: VecDeque::new(),
            told: 0,
            told_event: 0,
            at_work: Vec::new(),
            queue: Vec::new(),
            saying: None,
            has_heard_of_cancel: false,
            is_over: false,
        }
    }

    fn begin(&mut self) {
        self.has_heard_of_cancel = self.records.values().any(|it| it.kind == "cancel");
        let (code, asks) = Code::begin(self.run.of.clone());
        self.code = Some(code);
        asks.into_iter().for_each(|ask| self.ask(ask));
    }

    fn ask(&mut self, Ask { key, want }: Ask) {
        let is_answered = self.records.get(&key).is_some_and(|it| it.answer().is_some());
        let is_held = !is_answered && !self.is_begun(&key) && self.is_to_hear_of_cancel();
        let held = is_held.then(|| want.clone());
        let begins = !is_answered && held.is_none();
        self.asked.push(Asked { key: key.clone(), waits: false, held });
        if begins {
            self.begin_with(key, want);
        }
    }

    /// Begins with what the code has asked for, or goes on.
    fn begin_with(&mut self, key: Key, want: Want) {
        let record = self.records.get(&key);
        let is_known = record.is_some();
        let goes_on = record.is_some_and(|it| matches!(it.state.as_str(), "waiting" | "done"));
        let is_work = !goes_on && matches!(want, Want::Step | Want::Request);
        if let Some(asked) = self.asked.iter_mut().find(|it| it.key == key) {
            asked.waits = !is_work;
        }
        if let Some(what) = self.first_record(&key, &want).filter(|_| !is_known) {
            self.remember(&key, what);
        }
        if is_work && self.code.as_ref().is_some_and(|code| code.end.is_none()) {
            self.at_work.push((key, want));
        }
    }

    fn begin_held(&mut self) {
        let held = |it: &mut Asked| it.held.take().map(|want| (it.key.clone(), want));
        let held: Vec<_> = self.asked.iter_mut().filter_map(held).collect();
        held.into_iter().for_each(|(key, want)| self.begin_with(key, want));
    }

    fn first_record(&self, key: &Key, want: &Want) -> Option<Recorded> {
        Some(match want {
            Want::Step => return None,
            Want::Request => Recorded::Begun,
            Want::Sleep { ms } => Recorded::Sleep { ms: *ms },
            Want::WaitFor { stream, timeout_ms } => Recorded::WaitFor {
                aggregate: JOB.to_owned(),
                stream: stream.clone(),
                event: crate::app::DONE.to_owned(),
                timeout_ms: *timeout_ms,
            },
            Want::Send { stream } => {
                let key = self.key_of(key);
                Recorded::Send(NewCommand {
                    aggregate: JOB.to_owned(),
                    stream: stream.clone(),
                    name: DO.to_owned(),
                    args: format!("{{\"id\":\"{key}\"}}"),
                    key,
                })
            }
            Want::Start => {
                let id = self.key_of(key);
                let args = args_of(&id, 0);
                Recorded::Start(NewRun { workflow: FLOW.to_owned(), id, args })
            }
        })
    }

    /// The same each time, whoever has the run go on.
    fn key_of(&self, key: &Key) -> String {
        let Given { stream: id, task, .. } = &self.run.given;
        key_of(id, *task, key)
    }

    fn remember(&mut self, key: &Key, what: Recorded) {
        let (name, count) = key.clone();
        let record = NewRecord { name, count, what };
        let is_it = |it: &&mut NewRecord| (&it.name, it.count) == (&record.name, record.count);
        match self.queue.iter_mut().find(is_it) {
            Some(begun) => *begun = record,
            None => self.queue.push(record),
        }
    }

    /// Whether somebody else has begun it, so that it may have been carried out.
    fn is_begun(&self, key: &Key) -> bool {
        self.records.get(key).is_some_and(|it| it.state == "started")
    }

    fn is_to_hear_of_cancel(&self) -> bool {
        self.run.is_cancelled && !self.has_heard_of_cancel
    }

    /// Once the code has heard all else it hears of that in what it waits for by now, and not in
    /// what has lost a race. While it waits for what is at work alone, or for what may have been
    /// carried out, it hears of it later.
    fn hear_of_cancel(&mut self) {
        let is_end =
            |it: &NewRecord| matches!(it.what, Recorded::Done { .. } | Recorded::Failed { .. });
        let Some(code) = &self.code else { return };
        if !self.fresh.is_empty() || self.queue.iter().any(is_end) {
            return;
        }
        if self.asked.iter().any(|it| code.waits_for(&it.key) && self.is_begun(&it.key)) {
            return;
        }
        let hears = |it: &&mut Asked| (it.waits || it.held.is_some()) && code.waits_for(&it.key);
        let told = self.asked.iter_mut().find(hears).map(|asked| {
            (asked.waits, asked.held) = (false, None);
            asked.key.clone()
        });
        self.has_heard_of_cancel |= told.is_some();
        self.begin_held();
        if let Some(key) = told {
            self.remember(&key, Recorded::Cancel);
        }
    }

    /// Tells the code all that there is to tell. Gives that.
    fn tell(&mut self) -> Vec<(usize, Key, Answer)> {
        let mut all = Vec::new();
        while self.code.as_ref().is_some_and(|code| code.end.is_none()) {
            let past = self.asked.iter().filter_map(|it| {
                let known = self.records.get(&it.key)?;
                Some((known.record, it.key.clone(), known.answer()?))
            });
            let past = past.min_by_key(|(record, ..)| *record);
            if let Some((record, key, _)) = &past
                && self.records[key].kind == "event"
            {
                self.told_event = self.told_event.max(*record);
            }
            let past = past.map(|(_, key, what)| (key, what));
            let Some((key, answer)) = past.or_else(|| self.fresh.pop_front()) else { break };
            self.asked.retain(|it| it.key != key);
            let code = self.code.as_mut().expect("BUG: it is there");
            let asks = code.hear(&key, &answer);
            all.push((self.told, key, answer));
            self.told += 1;
            asks.into_iter().for_each(|ask| self.ask(ask));
        }
        all
    }

    /// Does something that is done here. Gives the key by which somebody else was asked.
    fn work(&mut self, rng: &mut Rng, far_end: &mut FarEnd, finishes: bool) -> Option<String> {
        let (key, want) = self.at_work.remove(rng.index(self.at_work.len()));
        let kind = want.kind().to_owned();
        let request = (want == Want::Request).then(|| self.key_of(&key));
        let result = match &request {
            Some(request) => {
                let asked = far_end.entry(request.clone()).or_default();
                *asked += 1;
                *asked
            }
            None => rng.next() >> 16,
        };
        let fails = !finishes && rng.once_in(8);
        let what = match fails {
            true => Recorded::Failed { kind, reason: format!("not {result}") },
            false => Recorded::Done { kind, result: result.to_string() },
        };
        self.remember(&key, what);
        request
    }

    /// What the authority is to be told next, and whether nothing more comes of the attempt.
    fn next_outcome(&mut self) -> Option<Outcome> {
        let code = self.code.as_ref().filter(|_| self.saying.is_none())?;
        if let Some(end) = code.end.clone() {
            self.begin_held();
            let records = std::mem::take(&mut self.queue);
            if !records.is_empty() {
                return Some(Outcome::Progressed { records, suspends: false });
            }
            return Some(match end {
                End::Returns(result) => Outcome::Returned { result },
                End::Fails(reason) => Outcome::Failed { reason, is_final: true },
                End::Continues(args) => Outcome::Continued { args },
                End::Cancelled => Outcome::Cancelled,
            });
        }
        if self.is_to_hear_of_cancel() {
            self.hear_of_cancel();
        }
        let suspends = self.asked.iter().all(|it| it.waits);
        let records = std::mem::take(&mut self.queue);
        (suspends || !records.is_empty()).then_some(Outcome::Progressed { records, suspends })
    }

    /// What it has said was answered.
    fn answered(&mut self, outcome: &Outcome, answer: &str) {
        let Outcome::Progressed { records, suspends: false } = outcome else {
            self.is_over = true;
            return;
        };
        if answer != "done" {
            self.is_over = true;
            return;
        }
        for NewRecord { name, count, what } in records {
            let answer = match what {
                Recorded::Done { result, .. } => Answer::Done(Some(result.clone())),
                Recorded::Failed { reason, .. } => Answer::Failed(reason.clone()),
                Recorded::Cancel => Answer::Cancelled,
                _ => continue,
            };
            self.fresh.push_back(((name.clone(), *count), answer));
        }
    }
}

impl Tab {
    /// Runs are given to the handler of a document, and all else that it was given is over.
    ///
    /// # Errors
    ///
    /// The rows are none of runs.
    pub(super) fn take_runs(&mut self, doc: Doc, rows: &[Vec<Value>]) -> Result<(), String> {
        let is_later = self.release != Release::First;
        let mut given = BTreeMap::new();
        for row in rows {
            let run = given_run(row, is_later)?;
            given.insert(run.given.task, run);
        }
        let gone = self.tasks.runs.extract_if(.., |(of, task), it| {
            let is_same = |run: &GivenRun| is_same(&run.given, &it.run.given);
            *of == doc && !it.is_over && !given.get(task).is_some_and(is_same)
        });
        let mut left: Vec<Call> = gone.flat_map(|(_, it)| it.calls()).collect();
        for (task, run) in given {
            match self.tasks.runs.get_mut(&(doc, task)) {
                Some(it) if is_same(&it.run.given, &run.given) => {
                    it.run.is_cancelled = run.is_cancelled;
                }
                _ => {
                    let before = self.tasks.runs.insert((doc, task), Attempt::new(run));
                    left.extend(before.into_iter().flat_map(|it| it.calls()));
                }
            }
        }
        self.let_go.extend(&left);
        self.tasks.left.extend(left);
        Ok(())
    }

    /// What was asked of attempts that count no longer is given up.
    pub(super) fn give_up_runs(&mut self) -> Vec<ToCore> {
        std::mem::take(&mut self.tasks.left)
            .into_iter()
            .map(|call| ToCore::GiveUp { call })
            .collect()
    }

    /// What it was given of a document that is not over.
    pub(super) fn given_runs(&self, doc: Doc) -> Vec<Given> {
        let runs = self.tasks.runs.iter().filter(|((of, _), it)| *of == doc && !it.is_over);
        runs.map(|(_, it)| it.run.given.clone()).collect()
    }

    /// Goes on with all runs that it was given.
    pub(crate) fn go_on_with_runs(
        &mut self,
        rng: &mut Rng,
        far_end: &mut FarEnd,
        finishes: bool,
    ) -> (Vec<ToCore>, Vec<RunNews>) {
        let (mut messages, mut news) = (Vec::new(), Vec::new());
        let mut runs = std::mem::take(&mut self.tasks.runs);
        for ((doc, task), it) in &mut runs {
            let doc = *doc;
            let Some(handler) = self.tasks.handling.get(&(doc, Work::Runs)) else { continue };
            let (handle, handling) = (handler.handle, handler.call);
            if it.is_over {
                continue;
            }
            if !it.is_read {
                if it.reading.is_none() {
                    let call = self.next_call();
                    it.reading = Some(call);
                    let after = it.records.values().map(|it| it.record).max().unwrap_or(0);
                    let request = Request::Records(Records {
                        task: *task,
                        attempt: it.run.given.attempt,
                        after,
                    });
                    messages.push(ToCore::Ask { call, handle, request });
                }
                continue;
            }
            if it.code.is_none() {
                it.begin();
            }
            let run = it.run.clone();
            let told = it.tell().into_iter().map(|(nth, key, answer)| {
                let run = run.clone();
                RunNews::Tells { doc, run, nth, key, answer }
            });
            news.extend(told);
            if !it.at_work.is_empty() && (finishes || rng.once_in(2)) {
                let key = it.work(rng, far_end, finishes);
                news.extend(key.map(|key| RunNews::Asks { doc, run: run.clone(), key }));
            }
            if !finishes && rng.once_in(4) {
                continue;
            }
            let stops = !finishes && it.saying.is_none() && rng.once_in(24);
            let outcome = match stops {
                true => Some(Outcome::Stopped { reason: "this code does not fit".to_owned() }),
                false => it.next_outcome(),
            };
            let Some(outcome) = outcome else { continue };
            let call = self.next_call();
            let Given { task, attempt, instance, .. } = it.run.given;
            let instance = InstanceId(instance);
            let position = it.told_event;
            let completion = Completion { task, attempt, position, outcome: outcome.clone() };
            let request = Request::Complete(Complete { handling, instance, completion });
            it.saying = Some((call, outcome));
            news.push(RunNews::Says { doc, run });
            messages.push(ToCore::Ask { call, handle, request });
        }
        self.tasks.runs = runs;
        (messages, news)
    }

    /// Whether it waits for an answer of that call for a run.
    pub(super) fn is_about_runs(&self, call: Call) -> bool {
        self.tasks.runs.values().any(|it| it.calls().any(|it| it == call))
    }

    /// That has failed: it begins from what the run remembers.
    pub(super) fn run_call_failed(&mut self, call: Call) {
        let mut runs = self.tasks.runs.values_mut();
        if let Some(it) = runs.find(|it| it.calls().any(|it| it == call)) {
            *it = Attempt::new(it.run.clone());
        }
    }

    /// A document is closed: nobody goes on with its runs here. Gives what was asked of them.
    pub(super) fn leave_runs(&mut self, doc: Doc) -> Vec<Call> {
        let left = self.tasks.runs.extract_if(.., |(of, _), _| *of == doc);
        left.flat_map(|(_, it)| it.calls()).collect()
    }

    /// Rows about a run have come: what it remembers, or what was said to what it has come to.
    ///
    /// # Errors
    ///
    /// They are none of that kind.
    pub(super) fn run_rows(
        &mut self,
        call: Call,
        rows: &[Vec<Value>],
    ) -> Result<super::TaskNews, String> {
        let mut runs = self.tasks.runs.iter_mut();
        let ((doc, _), it) =
            runs.find(|(_, it)| it.calls().any(|it| it == call)).expect("BUG: it is known");
        let (doc, given) = (*doc, it.run.given.clone());
        if it.reading == Some(call) {
            it.reading = None;
            it.is_read = rows.is_empty();
            let known = rows.iter().map(|row| known(row)).collect::<Result<Vec<_>, _>>()?;
            it.records.extend(known.iter().cloned());
            return Ok(super::TaskNews::Read(doc, given, known));
        }
        let row = rows.first().ok_or("a completion was answered by nothing")?;
        let (answer, time_ms) = (text(row, 0)?, number(row, 1)?);
        let (_, outcome) = it.saying.take().expect("BUG: it was said");
        it.answered(&outcome, &answer);
        let requests = match &outcome {
            Outcome::Progressed { records, .. } => {
                let is_request = |it: &&NewRecord| {
                    matches!(&it.what, Recorded::Done { kind, .. } | Recorded::Failed { kind, .. }
                        if kind == "request")
                };
                let key = |record: &NewRecord| it.key_of(&(record.name.clone(), record.count));
                records.iter().filter(is_request).map(key).collect()
            }
            _ => Vec::new(),
        };
        let said = RunSaid { given, outcome, answer, time_ms, requests };
        Ok(super::TaskNews::RunSaid(doc, Box::new(said)))
    }
}

impl Attempt {
    fn calls(&self) -> impl Iterator<Item = Call> + use<> {
        self.reading.into_iter().chain(self.saying.as_ref().map(|(call, _)| *call))
    }
}

/// Whether both are of one attempt.
fn is_same(one: &Given, other: &Given) -> bool {
    (one.attempt, one.instance) == (other.attempt, other.instance)
}

fn given_run(row: &[Value], is_later: bool) -> Result<GivenRun, String> {
    let (id, round) = read_args(&text(row, 4)?)?;
    let name = text(row, 3)?;
    let version = name.parse().map_err(|_| format!("a run has version {name}"))?;
    let given = Given {
        task: number(row, 0)?,
        attempt: number(row, 9)?,
        position: number(row, 10)?,
        instance: number(row, 12)?,
        stream: text(row, 2)?,
        id: id.clone(),
    };
    Ok(GivenRun {
        given,
        of: CodeOf { id, round, version, is_later },
        is_cancelled: number(row, 11)? == 1,
    })
}

fn known(row: &[Value]) -> Result<(Key, Known), String> {
    let count = u32::try_from(number(row, 2)?).map_err(|_| "a record has a large count")?;
    let optional = |column: usize| match row.get(column) {
        Some(Value::Null) => Ok(None),
        _ => text(row, column).map(Some),
    };
    let time = match row.get(6) {
        Some(Value::Integer(time)) => Some(*time),
        _ => None,
    };
    let (kind, state, result) = (text(row, 3)?, text(row, 4)?, optional(5)?);
    let known = Known { record: number(row, 0)?, kind, state, result, time };
    Ok(((text(row, 1)?, count), known))
}
