//! How far an attempt at a run has come: what its code has asked for, what of that it is to hear,
//! and what is to be remembered. Decides, and waits for nothing.
//!
//! What the code waits for it is told one by one, in the order in which the run has heard of it:
//! that of the records, and behind these the order in which the authority has taken what is new. In
//! between the code comes to rest. So of two things that race for it the same wins each time, and
//! what it does next it does by the same name and count.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::{Context, Poll, Waker};

use tidelog_document::{NewRecord, Outcome, Recorded};
use tidelog_types::limits::{COMPLETION_ITEMS_MAX, WORKFLOW_RECORDS_MAX};

use crate::drawing::Drawing;
use crate::events::Event;
use crate::records::{Known, KnownRecord};

/// Bytes of what travels at a time, with one record more than those.
const PROGRESS_SIZE_MAX: usize = 4 * 1024 * 1024;

/// What the code has asked for, by its place among all that it has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// What the code is told of something that it has asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// It was done, and this came of it, as text.
    Done(Option<String>),
    /// It has happened.
    Event(Box<Event>),
    /// It has failed, and why.
    Failed(String),
    /// The run is cancelled.
    Cancelled,
}

/// What became of something, which the code is to hear.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Heard {
    pub(crate) ticket: Ticket,
    pub(crate) told: Told,
    /// By the authority's clock.
    pub(crate) time: i64,
}

/// What the code asks for.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    /// Something that it does itself: `step` or `request`.
    Work(&'static str),
    /// Something that happens elsewhere, and what is remembered of it at once.
    Wait(Recorded),
}

impl Question {
    /// The kind of record that comes of it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Work(kind) => kind,
            Self::Wait(Recorded::Sleep { .. }) => "sleep",
            Self::Wait(Recorded::WaitFor { .. }) => "event",
            Self::Wait(Recorded::Send(_)) => "command",
            Self::Wait(Recorded::Start(_)) => "workflow",
            Self::Wait(_) => unreachable!("BUG: nothing else is waited for"),
        }
    }

    fn event(&self) -> Option<[String; 2]> {
        match self {
            Self::Wait(Recorded::WaitFor { aggregate, stream, .. }) => {
                Some([aggregate.clone(), stream.clone()])
            }
            _ => None,
        }
    }
}

/// How far it is with something that was asked for.
#[derive(Debug, PartialEq)]
enum Stage {
    /// It happens elsewhere.
    Waits,
    /// Nobody wants it to be done yet, or any more.
    Idle,
    /// It is to be done once the code has heard all that the run remembers.
    Wanted,
    /// It is being done.
    Works,
    /// What became of it is remembered, or on its way.
    Ends,
    /// The code may take that.
    Told(Told),
}

#[derive(Debug)]
struct Asked {
    name: String,
    count: u32,
    kind: &'static str,
    /// Where an event is waited for: of which aggregate and stream.
    event: Option<[String; 2]>,
    /// Whether anything of it was remembered before.
    is_known: bool,
    /// Whether nobody waits for it any more.
    is_left: bool,
    stage: Stage,
    waker: Option<Waker>,
    /// When the code has last looked at it.
    looked: Option<Look>,
}

/// When the code has looked at something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Look {
    /// Until it came to rest again: what it waits for together it looks at in one turn.
    turn: u64,
    number: u64,
}

impl Asked {
    /// Whether somebody else has begun it, and what came of it is not known.
    fn is_begun(&self) -> bool {
        self.is_known && matches!(self.stage, Stage::Wanted | Stage::Works)
    }

    /// Whether nothing comes of it here, or what did is known already.
    fn is_at_rest(&self) -> bool {
        matches!(self.stage, Stage::Waits | Stage::Idle | Stage::Told(_))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress {
    known: Known,
    /// How many records there are, with those that are on their way.
    records: u64,
    counts: HashMap<String, u32>,
    tickets: u64,
    asked: BTreeMap<Ticket, Asked>,
    /// What it is to hear from the records, by their places; and then of what is new.
    past: BTreeMap<u64, Heard>,
    fresh: VecDeque<Heard>,
    /// The place of the last record of an event that the code was told of.
    told: u64,
    /// What is to be remembered and was not taken.
    queue: VecDeque<(Ticket, NewRecord)>,
    is_cancelled: bool,
    has_heard_of_cancel: bool,
    looks: Look,
    outcome: Option<Outcome>,
    /// Nothing more comes of it.
    is_over: bool,
    /// By the authority's clock, the latest that the run has heard of.
    heard_at: i64,
    /// That; before anything is heard of, the time at which it was started, by whoever did.
    now: i64,
    drawing: Drawing,
}

/// What is to be remembered next.
#[derive(Debug, PartialEq)]
pub(crate) struct Next {
    pub(crate) records: Vec<(Ticket, NewRecord)>,
    /// Whether nothing but waiting is left: the attempt is over.
    pub(crate) suspends: bool,
}

impl Progress {
    /// Of a run that remembers this, and was started then; its numbers are drawn from the text.
    pub(crate) fn new(known: Known, time: i64, drawn_from: &str) -> Self {
        Self {
            records: known.len() as u64,
            has_heard_of_cancel: known.values().any(|it| it.kind == "cancel"),
            known,
            counts: HashMap::new(),
            tickets: 0,
            asked: BTreeMap::new(),
            past: BTreeMap::new(),
            fresh: VecDeque::new(),
            told: 0,
            queue: VecDeque::new(),
            is_cancelled: false,
            looks: Look::default(),
            outcome: None,
            is_over: false,
            now: time,
            heard_at: 0,
            drawing: Drawing::from(drawn_from),
        }
    }

    pub(crate) fn now(&self) -> i64 {
        self.now
    }

    pub(crate) fn draw(&mut self) -> f64 {
        self.drawing.draw()
    }

    /// How many of that name were asked for.
    pub(crate) fn count_of(&self, name: &str) -> u32 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// The code asks for something. `None` where it never hears of that: the attempt is over.
    pub(crate) fn ask(&mut self, name: &str, question: Question) -> Option<Ticket> {
        let count = self.count_of(name);
        self.counts.insert(name.to_owned(), count + 1);
        if self.is_over || self.outcome.is_some() {
            return None;
        }
        let kind = question.kind();
        let found = self.known.get(&(name.to_owned(), count)).cloned();
        if let Some(record) = found.as_ref().filter(|it| it.kind != kind && it.kind != "cancel") {
            let reason = mismatch(record);
            self.end(Outcome::Stopped { reason });
            return None;
        }
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        let asked = Asked {
            name: name.to_owned(),
            count,
            kind,
            event: question.event(),
            is_known: found.is_some(),
            is_left: false,
            stage: if matches!(question, Question::Work(_)) { Stage::Idle } else { Stage::Waits },
            waker: None,
            looked: None,
        };
        self.asked.insert(ticket, asked);
        match found {
            Some(record) if record.is_over() => self.hear_of(ticket, record),
            Some(_) => {}
            None => self.begin(ticket, question),
        }
        Some(ticket)
    }

    fn begin(&mut self, ticket: Ticket, question: Question) {
        if self.records >= WORKFLOW_RECORDS_MAX {
            let most = WORKFLOW_RECORDS_MAX;
            let reason = format!("it has {most} records: let it go on by continue_as_new()");
            self.end(Outcome::Failed { reason, is_final: true });
            return;
        }
        self.records += 1;
        if let Question::Wait(recorded) = question {
            self.remember(ticket, recorded);
        }
    }

    /// What became of it stands in a record.
    fn hear_of(&mut self, ticket: Ticket, record: KnownRecord) {
        let KnownRecord { record: place, kind, state, result, time, .. } = record;
        let told = match (kind.as_str(), state.as_str()) {
            ("cancel", _) => Told::Cancelled,
            (_, "done") => Told::Done(result),
            _ => Told::Failed(result.unwrap_or_default()),
        };
        self.stage(ticket, Stage::Ends);
        self.past.insert(place, Heard { ticket, told, time: time.unwrap_or_default() });
    }

    fn remember(&mut self, ticket: Ticket, what: Recorded) {
        let Some(Asked { name, count, .. }) = self.asked.get(&ticket) else { return };
        let record = NewRecord { name: name.clone(), count: *count, what };
        // What has ended before anybody was told that it was begun takes the place of that.
        match self.queue.iter_mut().find(|(queued, _)| *queued == ticket) {
            Some((_, queued)) => *queued = record,
            None => self.queue.push_back((ticket, record)),
        }
    }

    fn stage(&mut self, ticket: Ticket, stage: Stage) {
        if let Some(asked) = self.asked.get_mut(&ticket) {
            asked.stage = stage;
        }
    }

    /// The code is looked at anew: the run is to hear that it was cancelled, or not.
    pub(crate) fn note_cancelled(&mut self, is_cancelled: bool) {
        self.is_cancelled = is_cancelled;
        self.looks.turn += 1;
    }

    /// Whether the run is to hear of it, and has come to the end of something that the code hears
    /// first: it may go on by that.
    fn hears_of_cancel_later(&self) -> bool {
        let ends = || self.asked.values().any(|it| it.stage == Stage::Ends);
        self.is_cancelled && !self.has_heard_of_cancel && ends()
    }

    /// Where the run is cancelled the code hears of it once, at what it has looked at last and
    /// waits for or wants to do: what has lost a race and is kept it does not look at any more.
    /// While it looks at nothing but what is being done, it goes on, and hears of it at the next
    /// thing; so it does while it looks, beside anything else, at what may have been carried out,
    /// which is asked once more to know.
    pub(crate) fn hear_of_cancel(&mut self) {
        let is_to_hear = self.is_cancelled && !self.has_heard_of_cancel;
        if !is_to_hear || self.hears_of_cancel_later() || self.asks_once_more() {
            return;
        }
        let waits = |(looked, ticket, it): (Look, Ticket, &Asked)| {
            matches!(it.stage, Stage::Waits | Stage::Wanted).then_some((looked, ticket))
        };
        if let Some((_, ticket)) = self.looked_at().filter_map(waits).max() {
            self.has_heard_of_cancel = true;
            self.stage(ticket, Stage::Ends);
            self.remember(ticket, Recorded::Cancel);
        }
    }

    /// What the code looks at by now: what it has looked at last, in one turn.
    fn looked_at(&self) -> impl Iterator<Item = (Look, Ticket, &Asked)> {
        let kept = || self.asked.iter().filter(|(_, it)| !it.is_left);
        let turn = kept().filter_map(|(_, it)| it.looked).max().map(|it| it.turn);
        kept().filter_map(move |(ticket, it)| {
            let looked = it.looked.filter(|look| Some(look.turn) == turn)?;
            Some((looked, *ticket, it))
        })
    }

    /// Whether a request is among that which somebody else has begun.
    fn asks_once_more(&self) -> bool {
        self.looked_at().any(|(_, _, it)| it.is_begun())
    }

    /// What the code is told of this, which it takes; until then `waker` is woken by it.
    pub(crate) fn take_told(&mut self, ticket: Ticket, context: &Context<'_>) -> Poll<Told> {
        let Some(asked) = self.asked.get_mut(&ticket) else { return Poll::Pending };
        if !matches!(asked.stage, Stage::Told(_)) {
            asked.waker = Some(context.waker().clone());
            self.looks.number += 1;
            asked.looked = Some(self.looks);
            return Poll::Pending;
        }
        match self.asked.remove(&ticket).map(|it| it.stage) {
            Some(Stage::Told(told)) => Poll::Ready(told),
            _ => unreachable!("BUG: it was told"),
        }
    }

    /// The code wants this to be done. Says whether it may do that now.
    pub(crate) fn want(&mut self, ticket: Ticket) -> bool {
        let Some(asked) = self.asked.get_mut(&ticket) else { return false };
        if asked.stage == Stage::Idle {
            asked.stage = Stage::Wanted;
        }
        asked.stage == Stage::Works
    }

    /// Lets the code do what it wants to, once it has heard all that the run remembers: what it
    /// gives up by that it does not do again each time. Says whether there was anything.
    pub(crate) fn begin_wanted(&mut self) -> bool {
        if self.hears_of_cancel_later() {
            return false;
        }
        let is_to_hear = self.is_cancelled && !self.has_heard_of_cancel;
        let begun_alone = is_to_hear && self.asks_once_more();
        let is_wanted = |(_, it): &(&Ticket, &Asked)| {
            it.stage == Stage::Wanted && (it.is_begun() || !begun_alone)
        };
        let wanted: Vec<_> = self.asked.iter().filter(is_wanted).map(|(it, _)| *it).collect();
        for ticket in &wanted {
            let asked = self.asked.get_mut(ticket).expect("BUG: it was found");
            asked.stage = Stage::Works;
            let is_begun = asked.kind == "request" && !asked.is_known;
            asked.waker.take().inspect(Waker::wake_by_ref);
            if is_begun {
                self.remember(*ticket, Recorded::Begun);
            }
        }
        !wanted.is_empty()
    }

    /// What the code has done comes to this, as JSON, or has failed.
    pub(crate) fn finish(&mut self, ticket: Ticket, came: Result<String, String>) {
        if self.is_over || self.outcome.is_some() {
            return;
        }
        let Some(asked) = self.asked.get_mut(&ticket) else { return };
        asked.stage = Stage::Ends;
        let kind = asked.kind.to_owned();
        let recorded = match came {
            Ok(result) => Recorded::Done { kind, result },
            Err(reason) => Recorded::Failed { kind, reason },
        };
        self.remember(ticket, recorded);
    }

    /// Nobody waits for that any more. What is done for it here is dropped with who waited; what
    /// happens elsewhere does so, and the run still hears of it in its order.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        let Some(asked) = self.asked.get_mut(&ticket) else { return };
        asked.is_left = true;
        match asked.stage {
            Stage::Wanted | Stage::Works => asked.stage = Stage::Idle,
            Stage::Told(_) => drop(self.asked.remove(&ticket)),
            Stage::Waits | Stage::Idle | Stage::Ends => {}
        }
    }

    /// What the code hears next, if anything is there.
    pub(crate) fn next_heard(&mut self) -> Option<Heard> {
        let Some((place, heard)) = self.past.pop_first() else { return self.fresh.pop_front() };
        // Also one that nobody looks at: the next attempt would be told it before what comes then.
        if self.event_of(heard.ticket).is_some() {
            self.told = self.told.max(place);
        }
        Some(heard)
    }

    /// The number of the last record of an event that the code was told of.
    pub(crate) fn told(&self) -> u64 {
        self.told
    }

    /// Of which aggregate and stream an event was waited for by this.
    pub(crate) fn event_of(&self, ticket: Ticket) -> Option<[String; 2]> {
        self.asked.get(&ticket).and_then(|it| it.event.clone())
    }

    /// Tells the code.
    pub(crate) fn tell(&mut self, Heard { ticket, told, time }: Heard) {
        self.heard_at = self.heard_at.max(time);
        self.now = self.heard_at;
        let Some(asked) = self.asked.get_mut(&ticket) else { return };
        asked.stage = Stage::Told(told);
        asked.waker.take().inspect(Waker::wake_by_ref);
        if asked.is_left {
            self.asked.remove(&ticket);
        }
    }

    /// As much of what is to be remembered as travels at a time, once the code has come to rest.
    pub(crate) fn take_next(&mut self) -> Next {
        let is_at_rest = self.asked.values().any(|it| it.stage == Stage::Waits)
            && self.asked.values().all(|it| it.is_at_rest());
        let (mut records, mut size) = (Vec::new(), 0);
        while records.len() < COMPLETION_ITEMS_MAX && size <= PROGRESS_SIZE_MAX {
            let Some((ticket, record)) = self.queue.pop_front() else { break };
            size += size_of(&record);
            records.push((ticket, record));
        }
        Next { suspends: is_at_rest && self.queue.is_empty(), records }
    }

    /// That is remembered now, by the authority at this time: the code hears of what has come to
    /// its end by it.
    pub(crate) fn note_remembered(&mut self, records: Vec<(Ticket, NewRecord)>, time: i64) {
        for (ticket, record) in records {
            let told = match record.what {
                Recorded::Done { result, .. } => Told::Done(Some(result)),
                Recorded::Failed { reason, .. } => Told::Failed(reason),
                Recorded::Cancel => Told::Cancelled,
                _ => continue,
            };
            self.fresh.push_back(Heard { ticket, told, time });
        }
    }

    /// The code has come to its end, unless it had before.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }

    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Nothing more comes of it: what the code still asks for it never hears.
    pub(crate) fn give_up(&mut self) {
        self.is_over = true;
        self.asked.clear();
        self.known.clear();
    }
}

/// The code does something else by that name.
fn mismatch(KnownRecord { kind, count, name, .. }: &KnownRecord) -> String {
    format!("it remembers a {kind} as number {count} of {name}, which is none any more")
}

/// Bytes that a record takes, roughly.
fn size_of(record: &NewRecord) -> usize {
    let texts = match &record.what {
        Recorded::Done { result: text, .. } | Recorded::Failed { reason: text, .. } => text.len(),
        Recorded::Send(command) => command.args.len() + command.key.len() + command.stream.len(),
        Recorded::Start(run) => run.args.len() + run.id.len(),
        Recorded::WaitFor { stream, .. } => stream.len(),
        Recorded::Begun | Recorded::Sleep { .. } | Recorded::Cancel => 0,
    };
    record.name.len() + texts + 64
}

#[cfg(test)]
mod tests;
