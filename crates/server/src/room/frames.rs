//! Timeline frames on their way into the document.

use std::collections::VecDeque;

use tidelog_document::{Applied, Mutation, Verdict};
use tidelog_sync::{FromServer, Origin, Refusal, WireFrame};
use tidelog_types::{JournalId, Lsn};

use super::document::Document;
use super::guest::{GuestId, Seat};
use super::outbox::After;
use super::{Halt, Room, State, ran};

/// What became of one frame.
enum Fate {
    /// It has its verdict.
    Decided(Origin, Applied),
    /// It had it before.
    Repeated,
    /// Nobody here knows its doctype.
    Undecided { reason: String },
}

impl Room {
    /// Takes the frames in their order, each out of `frames` when it is done with.
    pub(super) fn frames(
        &mut self,
        seat: Seat,
        first: &mut Lsn,
        frames: &mut VecDeque<WireFrame>,
    ) -> Result<(), Halt> {
        // A guest who was refused, or has closed the channel, may still have had some on the way.
        let Some(id) = self.guest_at(seat) else { return Ok(()) };
        let guest = &self.guests[&id];
        let timeline = guest.timeline;
        if guest.undecided.is_some_and(|undecided| *first >= undecided) {
            return Ok(());
        }
        while let Some(frame) = frames.front() {
            let State::Open(document) = &mut self.state else { return Ok(()) };
            if self.settings.is_damaged {
                return Err(Halt::Refuse(Refusal::Damaged));
            }
            match document.decide(timeline, *first, frame)? {
                Fate::Repeated => {}
                Fate::Decided(origin, applied) => {
                    match applied.verdict {
                        Verdict::Applied => self.counts.applied += 1,
                        Verdict::Rejected { .. } => self.counts.rejected += 1,
                    }
                    self.outbox.entry(applied.entry, Some(origin));
                    self.settled();
                }
                Fate::Undecided { reason } => {
                    self.stop_timeline(id, *first, reason);
                    break;
                }
            }
            frames.pop_front();
            *first = first.next();
        }
        let State::Open(document) = &mut self.state else { return Ok(()) };
        let next = document.wanted(timeline)?;
        let acked = FromServer::Acked { channel: seat.channel, next };
        self.outbox.after(After::Tell(id, acked));
        Ok(())
    }

    fn stop_timeline(&mut self, id: GuestId, lsn: Lsn, reason: String) {
        let Some(guest) = self.guests.get_mut(&id) else { return };
        guest.undecided = Some(lsn);
        let channel = guest.seat.channel;
        self.outbox.after(After::Tell(id, FromServer::Undecided { channel, lsn, reason }));
    }
}

impl Document {
    fn decide(&mut self, timeline: JournalId, lsn: Lsn, frame: &WireFrame) -> Result<Fate, Halt> {
        let wanted = self.wanted(timeline)?;
        if lsn < wanted {
            return Ok(Fate::Repeated);
        }
        if lsn > wanted {
            let reason = format!("frame {lsn} came where {wanted} was wanted");
            return Err(Halt::Refuse(Refusal::Protocol { reason }));
        }
        let origin = Origin { timeline, lsn };
        let applied = match Mutation::decode(&frame.body) {
            Ok(mutation) => {
                let Some(doctype) = self.record.find(mutation.doctype) else {
                    let reason = format!(
                        "doctype {} of mutation {} is not known to the server",
                        mutation.doctype, mutation.name
                    );
                    return Ok(Fate::Undecided { reason });
                };
                let run = self.authority.apply(origin, &mutation, &doctype);
                self.or_reject(origin, ran(run))?
            }
            // It will never be a mutation: rejected in its place, it holds nobody up.
            Err(error) => ran(self.authority.reject(origin, &error.to_string()))?,
        };
        self.wanted.insert(timeline, lsn.next());
        self.moved_on();
        Ok(Fate::Decided(origin, applied))
    }

    /// What fails even as a rejection is rejected without having been run.
    fn or_reject(
        &mut self,
        origin: Origin,
        applied: Result<Applied, Halt>,
    ) -> Result<Applied, Halt> {
        match applied {
            Err(Halt::Failed(failure)) => ran(self.authority.reject(origin, &failure.to_string())),
            other => other,
        }
    }
}
