//! What a room says and asks, seen at its door: to its clients nothing that its disk may still lose
//! and nothing of frames that never came, to its store nothing that has no place there.
//!
//! Whoever is told too early would otherwise be noticed only if the server lost its power in the
//! few milliseconds before the flush, and an append that is refused is made up for.

use std::collections::{BTreeMap, VecDeque};

use tidelog_pages::{AppendError, StoreReply, StoreRequest, Ticket};
use tidelog_room::{ConnId, RoomEffect, RoomInput};
use tidelog_sync::{Channel, FromRoom, FromServer, ToRoom};
use tidelog_types::{DocumentKey, JournalId, Lsn, Position};

/// What has come in to a room.
#[derive(Default)]
pub(crate) struct Door {
    /// Where the storage journal stood after each append that the store has not answered.
    asked: VecDeque<(Ticket, Position)>,
    /// Where the part of each that is durable ends.
    durable: BTreeMap<JournalId, Lsn>,
    /// Where the timeline frames end that have come on each channel.
    frames: BTreeMap<(ConnId, Channel), Lsn>,
}

impl Door {
    /// Something comes in to the room of this document.
    ///
    /// # Errors
    ///
    /// The store has refused an append as one that nobody may make.
    pub(crate) fn comes(&mut self, key: &DocumentKey, input: &RoomInput) -> Result<(), String> {
        match input {
            RoomInput::Message { conn, channel, message: ToRoom::Frames { first, frames, .. } } => {
                let end = self.frames.entry((*conn, *channel)).or_insert(Lsn::FIRST);
                *end = first.plus(frames.len() as u64).max(*end);
            }
            RoomInput::Store(StoreReply::Durable { ticket }) => {
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
        match body {
            FromRoom::Entry(part) => self.must_be_durable(part.position),
            FromRoom::Opened { storage, .. } => self.must_be_durable(*storage),
            FromRoom::Seeded { position } => self.must_be_durable(*position),
            FromRoom::Acked { next } => {
                let end = self.frames.get(&to).copied().unwrap_or(Lsn::FIRST);
                if *next <= end {
                    return Ok(());
                }
                Err(format!("frames before {next} are acknowledged, those before {end} have come"))
            }
            _ => Ok(()),
        }
    }

    fn must_be_durable(&self, position: Position) -> Result<(), String> {
        let end = self.durable.get(&position.journal).copied().unwrap_or(Lsn::FIRST);
        if position.next <= end {
            return Ok(());
        }
        Err(format!("a room tells of {position}, and only what is before {end} is durable"))
    }
}
