//! What a document that was taken out says of tasks: read by plain SQL, and folded by hand.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use crate::judge::Sent;

/// What there is.
pub(crate) struct Tasks {
    events: Vec<Event>,
    commands: Vec<Command>,
    /// Sent, done and failed, by stream.
    jobs: BTreeMap<String, [i64; 3]>,
    done: Vec<(i64, String, i64, String)>,
    instances: BTreeSet<i64>,
}

struct Event {
    sequence: i64,
    aggregate: String,
    stream: String,
    position: i64,
    id: String,
    cause: String,
    /// By which attempt, and how long its stream was by what that knew.
    attempt: Option<i64>,
    after: Option<i64>,
}

/// A command that is known still.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    number: i64,
    stream: String,
    key: Option<String>,
    id: String,
    state: String,
    first: Option<i64>,
    last: Option<i64>,
    instance: Option<i64>,
    attempt: i64,
}

impl Tasks {
    /// # Errors
    ///
    /// It cannot be read.
    pub(crate) fn read(file: &Connection) -> Result<Self, String> {
        let read = || -> rusqlite::Result<Self> {
            let events = "select sequence, aggregate, stream, position, data ->> 'id', cause,
                                 data ->> 'attempt', data ->> 'after'
                          from tidelog_events order by sequence";
            let events = file
                .prepare(events)?
                .query_map([], |row| {
                    Ok(Event {
                        sequence: row.get(0)?,
                        aggregate: row.get(1)?,
                        stream: row.get(2)?,
                        position: row.get(3)?,
                        id: row.get(4)?,
                        cause: row.get(5)?,
                        attempt: row.get(6)?,
                        after: row.get(7)?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            let commands =
                "select number, stream, key, args ->> 'id', state, first, last, instance,
                                   attempt
                            from tidelog_commands order by number";
            let commands = file
                .prepare(commands)?
                .query_map([], |row| {
                    Ok(Command {
                        number: row.get(0)?,
                        stream: row.get(1)?,
                        key: row.get(2)?,
                        id: row.get(3)?,
                        state: row.get(4)?,
                        first: row.get(5)?,
                        last: row.get(6)?,
                        instance: row.get(7)?,
                        attempt: row.get(8)?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            let jobs = file
                .prepare("select stream, sent, done, failed from job")?
                .query_map([], |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?])))?
                .collect::<rusqlite::Result<_>>()?;
            let done = file
                .prepare("select sequence, stream, position, id from job_done order by sequence")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let instances = file
                .prepare("select instance from tidelog_instances")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Self { events, commands, jobs, done, instances })
        };
        read().map_err(|error| format!("the tasks: {error}"))
    }

    /// Folds the events, and compares that with what follows from them, and with the commands.
    ///
    /// # Errors
    ///
    /// What is not so.
    pub(crate) fn fold(&self, may_forget: bool, is_over: bool) -> Result<(), String> {
        let mut lengths: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        let mut done: BTreeMap<&str, i64> = BTreeMap::new();
        let mut rows = Vec::new();
        let mut causes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (nth, event) in (1..).zip(&self.events) {
            let Event { sequence, aggregate, stream, position, id, cause, .. } = event;
            let length = lengths.entry((aggregate, stream)).or_default();
            *length += 1;
            if (*sequence, *position) != (nth, *length) {
                return Err(format!(
                    "event {nth}, the {length}th of {stream}, is {sequence} and {position}"
                ));
            }
            if aggregate == crate::app::JOB {
                *done.entry(stream).or_default() += 1;
                rows.push((*sequence, stream.clone(), *position, id.clone()));
                causes.entry(id).or_default().insert(cause);
            }
        }
        if rows != self.done {
            return Err(format!("what was done is {:?}, and events say {rows:?}", self.done));
        }
        let twice = causes.iter().find(|(_, causes)| causes.len() > 1 && !may_forget);
        if let Some((id, causes)) = twice {
            return Err(format!("{id} has completed by each of {causes:?}"));
        }
        for (stream, [sent, was_done, failed]) in &self.jobs {
            let of = || self.commands.iter().filter(|it| it.stream == *stream);
            let count = |it: usize| i64::try_from(it).unwrap_or(i64::MAX);
            let known = count(of().count());
            let known_failed = count(of().filter(|it| it.state == "failed").count());
            let is_known = (*sent, *failed) == (known, known_failed)
                || may_forget && *sent >= known && *failed >= known_failed;
            if !is_known || done.get(stream.as_str()).copied().unwrap_or(0) != *was_done {
                return Err(format!(
                    "{stream} was sent {sent}, done {was_done} and failed {failed} times: known \
                     are {known}, failed {known_failed}, events {done:?}"
                ));
            }
        }
        let mut last: BTreeMap<&str, &Command> = BTreeMap::new();
        for command in self.commands.iter().filter(|it| it.first.is_some()) {
            let before = last.insert(&command.stream, command);
            if let Some(before) = before.filter(|before| before.last > command.first) {
                return Err(format!("{before:?} was received before {command:?}"));
            }
        }
        self.commands.iter().try_for_each(|command| self.judge(command, may_forget, is_over))
    }

    fn judge(&self, command: &Command, may_forget: bool, is_over: bool) -> Result<(), String> {
        let Command { number, first, last, instance, .. } = command;
        let cause = format!("command:{number}");
        let caused: Vec<&Event> = self
            .events
            .iter()
            .filter(|it| it.cause == cause && (it.id == command.id || !may_forget))
            .collect();
        let after = caused.first().map(|first| first.position - 1);
        let its = |event: &&Event| {
            let decided = (event.attempt, event.after);
            (&event.stream, &event.id) == (&command.stream, &command.id)
                && decided == (Some(command.attempt), after)
        };
        let ends = [caused.first(), caused.last()].map(|it| it.map(|it| it.sequence));
        let is_so = match command.state.as_str() {
            "completed" => caused.iter().all(its) && ends == [*first, *last] && !caused.is_empty(),
            "started" => {
                // What was handed over is nobody's until somebody handles it there.
                let is_its = |it: i64| self.instances.contains(&it) || !is_over;
                caused.is_empty() && instance.is_some_and(is_its)
            }
            "received" | "failed" => caused.is_empty() && instance.is_none(),
            _ => false,
        };
        let mut others = self.commands.iter().filter(|it| it.number != *number);
        let is_again = others
            .any(|it| it.key.is_some() && (&it.stream, &it.key) == (&command.stream, &command.key));
        match is_so && !is_again {
            true => Ok(()),
            false => Err(format!("{command:?} cannot be, with events {ends:?} of its own")),
        }
    }

    /// A command that is not over.
    pub(crate) fn open(&self) -> Option<&Command> {
        self.commands.iter().find(|it| matches!(it.state.as_str(), "received" | "started"))
    }

    /// What was sent, and what was done.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        let commands = self.commands.iter().map(|it| it.id.as_str());
        commands.chain(self.done.iter().map(|it| it.3.as_str()))
    }

    /// What stands there by the key of a command, and how it is.
    pub(crate) fn state(&self, sent: &Sent) -> Option<(&str, &str)> {
        let is_it = |it: &&Command| it.stream == sent.stream && it.key.as_ref() == Some(&sent.key);
        self.commands.iter().find(is_it).map(|it| (it.id.as_str(), it.state.as_str()))
    }

    /// How many events a command has.
    pub(crate) fn events_of(&self, id: &str) -> usize {
        self.done.iter().filter(|it| it.3 == id).count()
    }
}
