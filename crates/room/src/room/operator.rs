//! What whoever runs the server reads of a document, records there, and has done to its commands.

use std::sync::Arc;

use tidelog_document::{
    AppendedEvent, ArchivedEvents, Change, Changed, CommandRef, Doctype, FailedUpTo, InspectedUpTo,
    Intervention, Replay, StreamRef, WantedCommands, WantedEvents, WantedStreams, find_commands,
    find_events, find_failed, find_streams, inspect_stream,
};
use tidelog_sqlite::{Failure, Run};
use tidelog_types::{Budget, shortened};

use super::document::Document;
use super::handling::TAKES_NOTHING_MORE;
use super::{Answer, Halt, Room, State, ran};

/// Why a document is not read that has lost something.
const INCOMPLETE: &str = "the store is damaged, and something of this document is lost";

impl Room {
    /// A bounded number of events, as the newest doctype knows them.
    pub(super) fn events(
        &mut self,
        wanted: &WantedEvents,
        archived: Option<&ArchivedEvents>,
    ) -> Result<Answer, Halt> {
        self.look_up(|document| {
            let Some(doctype) = document.record.newest() else {
                return Run::Failed(Failure::Sql { message: "it has no doctype".to_owned() });
            };
            let reader = document.authority.reader();
            find_events(reader, &doctype, wanted, archived).map(Answer::Events)
        })
    }

    /// A bounded number of events, as they were recorded.
    pub(super) fn recorded(
        &mut self,
        wanted: &WantedEvents,
        archived: Option<&ArchivedEvents>,
    ) -> Result<Answer, Halt> {
        self.look_up(|document| {
            // A doctype that brings nothing to another version.
            let (reader, doctype) = (document.authority.reader(), Doctype::default());
            find_events(reader, &doctype, wanted, archived).map(Answer::Events)
        })
    }

    /// A bounded number of commands.
    pub(super) fn commands(&mut self, wanted: &WantedCommands) -> Result<Answer, Halt> {
        self.look_up(|document| {
            find_commands(document.authority.reader(), wanted).map(Answer::Commands)
        })
    }

    /// A bounded number of streams.
    pub(super) fn streams(&mut self, wanted: &WantedStreams) -> Result<Answer, Halt> {
        self.look_up(|document| {
            find_streams(document.authority.reader(), wanted).map(Answer::Streams)
        })
    }

    /// A bounded part of what there is of a stream.
    pub(super) fn stream(
        &mut self,
        stream: &StreamRef,
        after: InspectedUpTo,
    ) -> Result<Answer, Halt> {
        self.look_up(|document| {
            inspect_stream(document.authority.reader(), stream, after).map(Answer::Stream)
        })
    }

    /// Of which streams commands have failed, of a bounded number of these.
    pub(super) fn failed_commands(&mut self, after: FailedUpTo) -> Result<Answer, Halt> {
        self.look_up(|document| {
            find_failed(document.authority.reader(), after).map(Answer::FailedCommands)
        })
    }

    /// Has it done by the authority, as an entry like any other.
    pub(super) fn intervene(
        &mut self,
        command: &CommandRef,
        intervention: &Intervention,
        budget: &mut Budget,
    ) -> Result<Answer, Halt> {
        self.decide_at_word(&Change::Intervene(command.clone(), intervention.clone()), budget)
    }

    /// Records events, as one entry.
    pub(super) fn append(
        &mut self,
        events: &Arc<[AppendedEvent]>,
        by: &str,
        budget: &mut Budget,
    ) -> Result<Answer, Halt> {
        self.decide_at_word(
            &Change::Append { events: Arc::clone(events), by: by.to_owned() },
            budget,
        )
    }

    /// Rewrites a slice of events, as one entry.
    pub(super) fn upcast(
        &mut self,
        aggregate: Option<&str>,
        after: u64,
        budget: &mut Budget,
    ) -> Result<Answer, Halt> {
        let aggregate = aggregate.map(str::to_owned);
        self.decide_at_word(&Change::Upcast { aggregate, after }, budget)
    }

    /// Makes anew what follows from events, as one entry.
    pub(super) fn replay(
        &mut self,
        wanted: &Arc<Replay>,
        budget: &mut Budget,
    ) -> Result<Answer, Halt> {
        self.decide_at_word(&Change::Replay(Arc::clone(wanted)), budget)
    }

    pub(super) fn decide_at_word(
        &mut self,
        change: &Change,
        budget: &mut Budget,
    ) -> Result<Answer, Halt> {
        let State::Open(document) = &self.state else { return Ok(Answer::Missing) };
        if self.settings.is_damaged || document.is_incomplete {
            let reason = "the store is damaged, and nothing is written to it".to_owned();
            return Ok(Answer::Failed { reason });
        }
        // Those who handle tasks are known before there is one more to give.
        self.handlers()?;
        let changed = match self.change(change, budget)? {
            Ok(changed) => changed,
            Err(why) => {
                let reason = format!("{TAKES_NOTHING_MORE}: {why}");
                return Ok(Answer::Failed { reason });
            }
        };
        self.handlers()?.decided(change, &changed);
        Ok(match changed {
            Changed::Intervened(intervened) => Answer::Intervened(intervened),
            Changed::Appended(appended) => Answer::Appended(appended),
            Changed::Archived(archived) => Answer::Archived(archived),
            Changed::Upcast(upcast) => Answer::Upcast(upcast),
            Changed::Replayed(replayed) => Answer::Replayed(replayed),
            _ => unreachable!("BUG: nobody has asked for that"),
        })
    }

    pub(super) fn look_up(
        &mut self,
        find: impl FnOnce(&mut Document) -> Run<Answer>,
    ) -> Result<Answer, Halt> {
        let State::Open(document) = &mut self.state else { return Ok(Answer::Missing) };
        if document.is_incomplete {
            return Ok(Answer::Failed { reason: INCOMPLETE.to_owned() });
        }
        match ran(find(document)) {
            // What was asked cannot be answered, and that is nobody else's affair.
            Err(Halt::Failed(failure)) if !failure.is_passing() => {
                Ok(Answer::Failed { reason: shortened(failure.to_string()) })
            }
            ran => ran,
        }
    }
}
