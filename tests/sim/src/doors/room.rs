//! What a room says and asks, seen at its door: to its clients nothing that its disk may still lose
//! and nothing of frames that never came, to its store nothing that has no place there.
//!
//! Whoever is told too early would otherwise be noticed only if the server lost its power in the
//! few milliseconds before the flush, and an append that is refused is made up for.

use std::collections::{BTreeMap, VecDeque};

use tidelog_pages::{AppendError, StoreReply, StoreRequest, Ticket};
use tidelog_room::{Ask, ConnId, RoomEffect, RoomInput};
use tidelog_sync::{Channel, FromRoom, FromServer, ToRoom};
use tidelog_types::{CallId, DocumentKey, JournalId, Lsn, Position};

/// What has come in to a room.
#[derive(Default)]
pub(crate) struct RoomDoor {
    /// Where the storage journal stood after each append that the store has not answered.
    asked: VecDeque<(Ticket, Position)>,
    /// Where the part of each that is durable ends.
    durable: BTreeMap<JournalId, Lsn>,
    /// How often the store has said what it has on the disk.
    answers_count: u64,
    /// The timeline frames that have come on each channel.
    frames: BTreeMap<(ConnId, Channel), Frames>,
    /// How often the store had said that when each call first came, on whichever channel.
    calls: BTreeMap<CallId, u64>,
    /// How often each channel was opened, and not refused.
    opened: BTreeMap<(ConnId, Channel), u32>,
}

/// What has come on one channel.
struct Frames {
    /// Where it ends.
    end: Lsn,
    /// The first frame that the room did not have when the channel was opened.
    wanted: Lsn,
    /// The calls of those that are not acknowledged.
    calls: BTreeMap<Lsn, CallId>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { end: Lsn::FIRST, wanted: Lsn::FIRST, calls: BTreeMap::new() }
    }
}

impl RoomDoor {
    /// Something comes in to the room of this document.
    ///
    /// # Errors
    ///
    /// The store has refused an append as one that nobody may make.
    pub(crate) fn comes(&mut self, key: &DocumentKey, input: &RoomInput) -> Result<(), String> {
        match input {
            RoomInput::Message {
                conn,
                channel,
                message: ToRoom::Frames { first, frames, .. },
                ..
            } => {
                let come = self.frames.entry((*conn, *channel)).or_default();
                come.end = first.plus(frames.len() as u64).max(come.end);
                for (nth, frame) in (0..).zip(frames) {
                    come.calls.insert(first.plus(nth), frame.call);
                    self.calls.entry(frame.call).or_insert(self.answers_count);
                }
            }
            RoomInput::Message { conn, channel, message: ToRoom::Open { .. }, .. } => {
                *self.opened.entry((*conn, *channel)).or_default() += 1;
            }
            RoomInput::Ask { ask: Ask::Export { conn }, .. } => {
                *self.opened.entry((*conn, Channel(0))).or_default() += 1;
            }
            RoomInput::Store(StoreReply::Durable { ticket }) => {
                self.answers_count += 1;
                while let Some((_, position)) = self.asked.pop_front_if(|(of, _)| *of <= *ticket) {
                    self.reach(position);
                }
            }
            RoomInput::Store(StoreReply::AppendFailed { ticket, error }) => {
                self.asked.retain(|(of, _)| of != ticket);
                if let AppendError::OutOfPlace { reason } = error {
                    return Err(format!("a room's append has no place in its store: {reason}"));
                }
            }
            RoomInput::Store(StoreReply::Broken { .. }) => self.asked.clear(),
            // A room asks once all that it has handed over is answered.
            RoomInput::Store(StoreReply::Opened { document, state: Some(state), .. })
                if document == key =>
            {
                self.answers_count += 1;
                state.storage.into_iter().for_each(|position| self.reach(position));
            }
            _ => {}
        }
        Ok(())
    }

    fn reach(&mut self, position: Position) {
        let end = self.durable.entry(position.journal).or_insert(position.next);
        *end = position.next.max(*end);
    }

    /// Something leaves the room.
    ///
    /// # Errors
    ///
    /// It may not.
    pub(crate) fn leaves(&mut self, effect: &RoomEffect) -> Result<(), String> {
        let (to, body) = match effect {
            RoomEffect::Store(StoreRequest::Append { ticket, append }) => {
                if let Some(entry) = append.storage.last().filter(|_| !append.is_cut) {
                    self.asked.push_back((*ticket, entry.position));
                }
                return Ok(());
            }
            RoomEffect::Send { conn, message: FromServer::About { channel, body } } => {
                ((*conn, *channel), body)
            }
            _ => return Ok(()),
        };
        let opened = self.opened.entry(to).or_default();
        if *opened == 0 {
            return Err(format!("something is said on a channel that was refused: {body:?}"));
        }
        *opened -= u32::from(matches!(body, FromRoom::Refused(_)));
        match body {
            FromRoom::Entry(part) => self.must_be_durable(part.position),
            FromRoom::Opened { storage, wanted, .. } => {
                let come = self.frames.entry(to).or_default();
                come.wanted = come.wanted.max(*wanted);
                self.must_be_durable(*storage)
            }
            FromRoom::Seeded { position } => self.must_be_durable(*position),
            FromRoom::Acked { next } => self.may_be_acknowledged(to, *next),
            _ => Ok(()),
        }
    }

    /// Of frames that the room did not have before, its store has said something since they came.
    fn may_be_acknowledged(&mut self, to: (ConnId, Channel), next: Lsn) -> Result<(), String> {
        let come = self.frames.entry(to).or_default();
        if next > come.end {
            let end = come.end;
            return Err(format!(
                "frames before {next} are acknowledged, those before {end} have come"
            ));
        }
        let later = come.calls.split_off(&next);
        for (lsn, call) in std::mem::replace(&mut come.calls, later) {
            if lsn >= come.wanted && self.calls[&call] == self.answers_count {
                return Err(format!("frame {lsn} is acknowledged and not durable"));
            }
        }
        Ok(())
    }

    fn must_be_durable(&self, position: Position) -> Result<(), String> {
        let end = self.durable.get(&position.journal).copied().unwrap_or(Lsn::FIRST);
        if position.next <= end {
            return Ok(());
        }
        Err(format!("a room tells of {position}, and only what is before {end} is durable"))
    }
}
