//! What a document that was taken out says of runs: read by plain SQL, and folded by hand.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, Row};

use crate::code::{Answer, Ask, Code, CodeOf, End, Key, key_of, read_args};
use crate::tab::Known;

/// What there is.
pub(crate) struct Runs {
    runs: BTreeMap<u64, Run>,
    events: Vec<Event>,
    /// Commands by their keys.
    commands: BTreeMap<String, Sent>,
}

struct Event {
    sequence: u64,
    stream: String,
    name: String,
    /// The command that has recorded it.
    command: Option<u64>,
}

struct Sent {
    state: String,
    first: Option<u64>,
    last: Option<u64>,
    reason: Option<String>,
}

#[derive(Debug)]
struct Run {
    key: String,
    id: String,
    round: u64,
    version: u64,
    state: String,
    attempt: u64,
    instance: Option<u64>,
    records_count: u64,
    is_cancelled: bool,
    result: Option<String>,
    reason: Option<String>,
    is_over: bool,
    /// The last event that it does not see, if that is known.
    first: Option<u64>,
    /// The last event of each stream that it was given before it went on as new.
    seen: BTreeMap<String, u64>,
    records: BTreeMap<Key, Record>,
}

#[derive(Clone, Debug)]
struct Record {
    known: Known,
    due: Option<u64>,
    stream: Option<String>,
}

/// How a task is remembered by whoever waits for it.
fn outcome<'s>(
    state: &'s str,
    done: Option<String>,
    reason: Option<&String>,
) -> (&'s str, Option<String>) {
    match state {
        "completed" => ("done", done),
        "failed" | "cancelled" => ("failed", reason.cloned()),
        _ => ("waiting", None),
    }
}

impl Sent {
    fn outcome(&self) -> (&str, Option<String>) {
        let number = |it: Option<u64>| it.map_or("null".to_owned(), |it| it.to_string());
        let [first, last] = [self.first, self.last].map(number);
        let done = format!("{{\"first\":{first},\"last\":{last}}}");
        outcome(&self.state, Some(done), self.reason.as_ref())
    }
}

impl Run {
    fn code(&self, is_later: bool) -> CodeOf {
        let Self { id, round, version, .. } = self;
        CodeOf { id: id.clone(), round: *round, version: *version, is_later }
    }

    fn outcome(&self) -> (&str, Option<String>) {
        outcome(&self.state, self.result.clone(), self.reason.as_ref())
    }
}

impl Runs {
    /// # Errors
    ///
    /// It cannot be read.
    pub(crate) fn read(file: &Connection) -> Result<Self, String> {
        let read = || -> rusqlite::Result<Result<Self, String>> {
            let mut runs = BTreeMap::new();
            let sql = "select number, id, args, version, state, attempt, instance, records,
                              is_cancelled, result, reason, ended is not null,
                              (select first from _tidelog_task as of where of.number = it.number),
                              user, client
                       from tidelog_workflows as it where workflow = 'flow' order by number";
            let mut statement = file.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let args: String = row.get(2)?;
                let (id, round) = match read_args(&args) {
                    Ok(read) => read,
                    Err(what) => return Ok(Err(what)),
                };
                let run = Run {
                    key: row.get(1)?,
                    id,
                    round,
                    version: number(row, 3)?,
                    state: row.get(4)?,
                    attempt: number(row, 5)?,
                    instance: optional(row, 6)?,
                    records_count: number(row, 7)?,
                    is_cancelled: row.get(8)?,
                    result: row.get(9)?,
                    reason: row.get(10)?,
                    is_over: row.get(11)?,
                    first: optional(row, 12)?,
                    seen: BTreeMap::new(),
                    records: BTreeMap::new(),
                };
                runs.insert(number(row, 0)?, run);
            }
            let sql =
                "select it.record, it.number, it.name, it.count, it.kind, it.state, it.result,
                              it.time, it.due, of.stream
                       from tidelog_records as it
                       join _tidelog_record as of on of.number = it.record";
            let mut statement = file.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let of = number(row, 1)?;
                let (key, record) = record(row)?;
                let Some(run) = runs.get_mut(&of) else {
                    return Ok(Err(format!("record {key:?} is of {of}, which is no run")));
                };
                run.records.insert(key, record);
            }
            let sql = "select task, stream, cast(result as integer) from _tidelog_record
                       where kind = 'seen'";
            let mut statement = file.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let of = number(row, 0)?;
                let Some(run) = runs.get_mut(&of) else {
                    return Ok(Err(format!("what {of} has seen is of no run")));
                };
                run.seen.insert(row.get(1)?, number(row, 2)?);
            }
            let events = file
                .prepare(
                    "select sequence, stream, type, cause from tidelog_events
                     where aggregate = 'job' order by sequence",
                )?
                .query_map([], |row| {
                    let cause: String = row.get(3)?;
                    let command = cause.strip_prefix("command:").and_then(|it| it.parse().ok());
                    let (sequence, stream, name) = (number(row, 0)?, row.get(1)?, row.get(2)?);
                    Ok(Event { sequence, stream, name, command })
                })?
                .collect::<rusqlite::Result<_>>()?;
            let commands = file
                .prepare(
                    "select key, state, first, last, reason from tidelog_commands
                     where key is not null",
                )?
                .query_map([], |row| {
                    let sent = Sent {
                        state: row.get(1)?,
                        first: optional(row, 2)?,
                        last: optional(row, 3)?,
                        reason: row.get(4)?,
                    };
                    Ok((row.get(0)?, sent))
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Ok(Self { runs, events, commands }))
        };
        read().map_err(|error| format!("the runs: {error}"))?
    }

    /// Folds the records, and compares what each code makes of them with what its run has come to.
    ///
    /// # Errors
    ///
    /// What is not so.
    pub(crate) fn fold(&self, may_forget: bool, is_over: bool) -> Result<(), String> {
        let mut keys = BTreeSet::new();
        for (number, run) in &self.runs {
            let say = |what: &str| format!("run {number} {what}: {run:?}");
            if run.is_over
                != matches!(run.state.as_str(), "completed" | "failed" | "cancelled" | "continued")
                || run.is_over && run.instance.is_some()
                || (run.state == "started") != run.instance.is_some() && is_over
            {
                return Err(say("stands as none can"));
            }
            if run.state != "continued" && !keys.insert(&run.key) && !may_forget {
                return Err(say("is there twice"));
            }
            if run.records.len() as u64 != run.records_count {
                // They are forgotten before their run is.
                if may_forget && run.is_over {
                    continue;
                }
                return Err(say("has not as many records as it says"));
            }
            self.judge_end(*number, run, may_forget).map_err(|what| say(&what))?;
            self.judge_events(*number, run).map_err(|what| say(&what))?;
            if !(may_forget && run.is_over) {
                self.judge_seen(*number, run).map_err(|what| say(&what))?;
            }
            for (key, record) in &run.records {
                self.judge_record(key, record, run, *number, may_forget)
                    .map_err(|what| say(&what))?;
            }
        }
        Ok(())
    }

    /// Whether the end of a run is what its code makes of its records.
    fn judge_end(&self, number: u64, run: &Run, may_forget: bool) -> Result<(), String> {
        let ends = [false, true].map(|is_later| replay(&run.code(is_later), run).1);
        let is_any = |end: &End| ends.iter().flatten().any(|it| it == end);
        let next = || {
            let mut others = self.runs.iter().filter(|(_, other)| other.key == run.key);
            others.any(|(other, it)| *other > number && it.round == run.round + 1)
        };
        let is_so = match run.state.as_str() {
            "completed" => run.result.clone().is_some_and(|it| is_any(&End::Returns(it))),
            "failed" => run.reason.clone().is_some_and(|it| is_any(&End::Fails(it))),
            "continued" => {
                let args = crate::code::args_of(&run.id, run.round + 1);
                is_any(&End::Continues(args)) && (next() || may_forget)
            }
            "cancelled" => {
                let is_unbegun = run.attempt == 0 && run.round == 0;
                run.is_cancelled && (is_unbegun || is_any(&End::Cancelled))
            }
            _ => true,
        };
        if is_so { Ok(()) } else { Err(format!("has not come to what its code does, {ends:?}")) }
    }

    /// Events since its start it has seen one by one, in their order. Of a run that is over nobody
    /// knows any more after which event it was started: surely before those of later commands.
    fn judge_events(&self, number: u64, run: &Run) -> Result<(), String> {
        let mut seen: BTreeMap<&str, Vec<(u32, u64)>> = BTreeMap::new();
        for ((_, count), record) in run.records.iter().filter(|(_, it)| it.known.kind == "event") {
            let Some(stream) = &record.stream else { return Err("waits for nothing".to_owned()) };
            let result = record.known.result.as_ref();
            let sequence = result.map(|it| it.parse().map_err(|_| format!("has seen {it}")));
            if let Some(sequence) = sequence.transpose()? {
                seen.entry(stream).or_default().push((*count, sequence));
            }
        }
        for (stream, mut seen) in seen {
            seen.sort_unstable();
            let is_its = |it: &&Event| it.stream == stream && it.name == "done";
            let its: Vec<&Event> = self.events.iter().filter(is_its).collect();
            let seen_before = run.seen.get(stream).copied().unwrap_or(0);
            let is_since = |it: &&Event| match run.first {
                Some(first) => it.sequence > first.max(seen_before),
                None => run.round == 0 && it.command > Some(number),
            };
            let since = its.iter().position(is_since).unwrap_or(its.len());
            let seen: Vec<u64> = seen.into_iter().map(|(_, sequence)| sequence).collect();
            let begins = its.iter().position(|it| it.sequence == seen[0]).unwrap_or(its.len());
            let there: Vec<u64> =
                its.iter().skip(begins).map(|it| it.sequence).take(seen.len()).collect();
            let is_late = begins > since || run.first.is_some() && begins < since;
            if seen != there || is_late {
                return Err(format!("has seen {seen:?} of {stream}, and there are {there:?}"));
            }
        }
        Ok(())
    }

    /// Whether it knows which events its earlier rounds have heard of, and of no others.
    fn judge_seen(&self, number: u64, run: &Run) -> Result<(), String> {
        let is_earlier = |it: &&Run| it.key == run.key && it.round < run.round;
        let earlier: Vec<&Run> =
            self.runs.range(..number).map(|(_, it)| it).filter(is_earlier).collect();
        let is_whole = |it: &&Run| it.records.len() as u64 == it.records_count;
        if earlier.len() as u64 != run.round || !earlier.iter().all(is_whole) {
            // Some were forgotten.
            return Ok(());
        }
        // What goes on from a run is left what that knew.
        if run.state == "continued" {
            return if run.seen.is_empty() { Ok(()) } else { Err("knows of events".to_owned()) };
        }
        // It may have been the code of either release that has ended it.
        let mut heard = BTreeSet::from([BTreeMap::new()]);
        for it in earlier {
            let told = [false, true].map(|is_later| events_told(&it.code(is_later), it));
            heard =
                heard.iter().flat_map(|before| told.iter().map(|of| later(before, of))).collect();
        }
        if heard.contains(&run.seen) {
            return Ok(());
        }
        Err(format!("knows of {:?}, and its earlier rounds have heard of {heard:?}", run.seen))
    }

    fn judge_record(
        &self,
        key: &Key,
        record: &Record,
        run: &Run,
        number: u64,
        may_forget: bool,
    ) -> Result<(), String> {
        let Record { known, due, .. } = record;
        let Known { kind, state, result, .. } = known;
        let is_waiting = state == "waiting";
        let timed = matches!(kind.as_str(), "sleep" | "event");
        if due.is_some() != (is_waiting && timed) {
            return Err(format!("has {key:?}, due at {due:?}: {known:?}"));
        }
        let is_so = match (kind.as_str(), state.as_str()) {
            ("command" | "workflow", _) => {
                let id = key_of(&run.key, number, key);
                let found = match kind.as_str() {
                    "command" => self.commands.get(&id).map(Sent::outcome),
                    // What has continued is over, and its next round is what counts.
                    _ => {
                        let last = self.runs.values().rfind(|it| it.key == id);
                        last.filter(|it| it.state != "continued").map(Run::outcome)
                    }
                };
                // What it waited for may be forgotten before it, and its last round before others.
                let is_it = |it: (&str, Option<String>)| it == (state, result.clone());
                found.map_or(may_forget, is_it)
            }
            ("sleep", "waiting" | "done") | ("event", "waiting") => result.is_none(),
            ("event", "done") => true,
            ("request", "started") => result.is_none(),
            ("step" | "request", "done" | "failed") => result.is_some(),
            ("cancel", "failed") => run.is_cancelled,
            _ => false,
        };
        if is_so { Ok(()) } else { Err(format!("has {key:?} as {known:?}")) }
    }

    /// A run that is not over.
    pub(crate) fn open(&self) -> Option<String> {
        let open = self.runs.iter().find(|(_, run)| !run.is_over);
        open.map(|(number, run)| format!("run {number}: {run:?}"))
    }

    /// What the arguments of runs say that they are.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.runs.values().map(|run| run.id.as_str())
    }

    /// By which ids those were started that are to hear that they are cancelled, or have.
    pub(crate) fn cancelled_ids(&self) -> impl Iterator<Item = &str> {
        self.runs.values().filter(|run| run.is_cancelled).map(|run| run.key.as_str())
    }

    /// Whether what a code was told is what it is told by the records that there are.
    ///
    /// # Errors
    ///
    /// What is not so.
    pub(crate) fn compare(
        &self,
        task: u64,
        id: &str,
        of: &CodeOf,
        told: &[(Key, Answer)],
    ) -> Result<(), String> {
        let run = self.runs.get(&task).filter(|run| run.id == id);
        let run = run.ok_or_else(|| format!("run {task} of {id} is gone"))?;
        let (again, end) = replay(of, run);
        // What was told is remembered first; and who has ended is told nothing more.
        match again.starts_with(told) || (end.is_some() && told.starts_with(&again)) {
            true => Ok(()),
            false => Err(format!("{of:?} was told {told:?}, and is told {again:?}")),
        }
    }

    /// # Errors
    ///
    /// What stands there is not what somebody has read.
    pub(crate) fn compare_record(
        &self,
        task: u64,
        id: &str,
        key: &Key,
        known: &Known,
    ) -> Result<(), String> {
        let run = self.runs.get(&task).filter(|run| run.id == id);
        let found = run.and_then(|run| run.records.get(key)).map(|it| &it.known);
        match found == Some(known) {
            true => Ok(()),
            false => Err(format!("{key:?} of {task} was {known:?}, and is {found:?}")),
        }
    }
}

/// Runs a code by what its run remembers. Gives what it is told, and how it ends, if it does.
fn replay(of: &CodeOf, run: &Run) -> (Vec<(Key, Answer)>, Option<End>) {
    let (mut code, asks) = Code::begin(of.clone());
    let mut asked: Vec<Key> = asks.into_iter().map(|Ask { key, .. }| key).collect();
    let mut told = Vec::new();
    while code.end.is_none() {
        let over = asked.iter().filter_map(|key| {
            let known = &run.records.get(key)?.known;
            Some((known.record, key.clone(), known.answer()?))
        });
        let Some((_, key, answer)) = over.min_by_key(|(record, ..)| *record) else { break };
        asked.retain(|it| *it != key);
        asked.extend(code.hear(&key, &answer).into_iter().map(|Ask { key, .. }| key));
        told.push((key, answer));
    }
    (told, code.end)
}

/// The last event of each stream that a code is told of by what its run remembers.
fn events_told(of: &CodeOf, run: &Run) -> BTreeMap<String, u64> {
    let mut last = BTreeMap::new();
    for (key, answer) in replay(of, run).0 {
        let stream = run.records.get(&key).and_then(|record| record.stream.clone());
        if let (Some(stream), Answer::Done(Some(sequence))) = (stream, answer)
            && let Ok(sequence) = sequence.parse()
        {
            last = later(&last, &BTreeMap::from([(stream, sequence)]));
        }
    }
    last
}

/// Of each stream the later of both.
fn later(one: &BTreeMap<String, u64>, other: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut all = one.clone();
    for (stream, sequence) in other {
        let last = all.entry(stream.clone()).or_default();
        *last = (*last).max(*sequence);
    }
    all
}

fn record(row: &Row<'_>) -> rusqlite::Result<(Key, Record)> {
    let known = Known {
        record: number(row, 0)?,
        kind: row.get(4)?,
        state: row.get(5)?,
        result: row.get(6)?,
        time: row.get(7)?,
    };
    Ok(((row.get(2)?, row.get(3)?), Record { known, due: optional(row, 8)?, stream: row.get(9)? }))
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::unsigned_abs)
}

fn optional(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    row.get::<_, Option<i64>>(column).map(|it| it.map(i64::unsigned_abs))
}
