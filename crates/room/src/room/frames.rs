//! Timeline frames on their way into the document.

use std::collections::VecDeque;

use tidelog_document::{
    Applied, Handlers, Mutation, Verdict, client_of, is_reserved, public_entry,
};
use tidelog_sqlite::Failure;
use tidelog_sync::{FromRoom, Refusal, UndecidedReason, WireFrame};
use tidelog_types::limits::LSN_MAX;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Budget, ClientId, CopySecret, DocumentKey, EntryId, Life, Lsn, shortened};

use super::caution::{Caution, ENDED_THE_SERVER, Suspect, cautiously};
use super::document::Document;
use super::leaving::Sender;
use super::outbox::After;
use super::subscriber::{ChannelId, Subscriber, SubscriberId};
use super::{Halt, May, Room, Speaker, State, ran};

/// What a frame costs at least, in steps, one that came before too.
const FRAME_STEPS: u64 = 50;

/// Whose frames somebody may bring.
struct Issuer<'s> {
    client: ClientId,
    /// `None` where nobody is asked who they are.
    user: Option<&'s str>,
    /// At least [`May::Send`].
    may: May,
}

impl Issuer<'_> {
    fn has_issued(&self, mutation: &Mutation) -> bool {
        self.client == mutation.client && self.user.is_none_or(|user| user == mutation.user)
    }

    /// What is no mutation is nothing that a sender may bring.
    fn may_bring<E>(&self, mutation: &Result<Mutation, E>) -> bool {
        self.may >= May::Write
            || mutation.as_ref().is_ok_and(|mutation| is_reserved(&mutation.name))
    }
}

/// What became of one frame.
enum Fate {
    /// It has its verdict.
    Decided(Applied),
    /// It had it before.
    Repeated,
    /// Who brings it may not, and nothing has changed.
    Forbidden,
    /// There is no verdict for now, and nothing has changed.
    Undecided(UndecidedReason),
}

impl Room {
    /// Takes the frames in their order, each out of `frames` when it is done with, for as long as
    /// the step may go on.
    pub(super) fn frames(
        &mut self,
        channel_id: ChannelId,
        life: Life,
        speaker: &Speaker,
        (first, frames): (&mut Lsn, &mut VecDeque<WireFrame>),
        budget: &mut Budget,
    ) -> Result<(), Halt> {
        // One who was refused, or has closed the channel, may still have had some on the way.
        let Some(id) = self.subscriber_at(channel_id) else { return Ok(()) };
        let subscriber = &self.subscribers[&id];
        let (timeline, undecided) = (subscriber.timeline, subscriber.undecided);
        let user = speaker.subject.as_deref();
        let issuer = Issuer { client: client_of(subscriber.secret), user, may: speaker.may };
        let is_undecided = |lsn: Lsn| undecided.is_some_and(|undecided| lsn >= undecided);
        if is_undecided(*first) {
            return Ok(());
        }
        while let Some(frame) = frames.front().filter(|_| !is_undecided(*first)) {
            if self.is_full() {
                reached(Probe::RoomWaitedForDisk);
                return Err(Halt::Pause);
            }
            if budget.is_spent() {
                reached(Probe::RoomSliceSpent);
                return Err(Halt::Pause);
            }
            budget.spend_steps(FRAME_STEPS);
            budget.spend_bytes(frame.body.len() as u64);
            let State::Open(document) = &mut self.state else { return Ok(()) };
            if self.settings.is_damaged {
                return Err(Halt::Refuse(Refusal::Damaged));
            }
            let origin = EntryId { journal: timeline, life, lsn: *first };
            let fate = document.decide(&self.document, origin, &issuer, frame, &*self.caution);
            budget.spend_steps(document.authority.take_steps());
            match fate? {
                Fate::Repeated => reached(Probe::FrameRepeated),
                Fate::Forbidden => {
                    self.outbox.acked(id, *first);
                    self.forbid(id, *first);
                    return Ok(());
                }
                Fate::Decided(applied) => {
                    match applied.verdict {
                        Verdict::Applied => {
                            self.counts.applied += 1;
                            // It may have sent a command.
                            self.handlers.iter_mut().for_each(Handlers::note);
                        }
                        Verdict::Rejected { .. } => self.counts.rejected += 1,
                    }
                    let committed = applied.committed;
                    budget.spend_pages(committed.entry.set.pages.len() as u64);
                    let has_predicted = frame.predicted == Some(committed.hash.start());
                    let sender = Some(Sender { id, has_predicted });
                    self.outbox.entry(committed, Some(public_entry(origin)), sender);
                    self.run_ended();
                }
                Fate::Undecided(why) => {
                    self.stop_timeline(id, *first, why);
                    break;
                }
            }
            frames.pop_front();
            *first = first.next();
        }
        let State::Open(document) = &mut self.state else { return Ok(()) };
        // What is applied behind these frames can be another copy's.
        let next = document.served(timeline)?.wanted.min(*first);
        self.outbox.acked(id, next);
        Ok(())
    }

    /// Takes none of the frames, of one who may only follow, and says which of them is the first.
    /// Those that were taken while it might write have their verdict.
    pub(super) fn forbidden_frames(
        &mut self,
        channel_id: ChannelId,
        first: Lsn,
        frames: &VecDeque<WireFrame>,
    ) -> Result<(), Halt> {
        let Some(id) = self.subscriber_at(channel_id) else { return Ok(()) };
        let subscriber = &self.subscribers[&id];
        if subscriber.undecided.is_some() {
            return Ok(());
        }
        let timeline = subscriber.timeline;
        let State::Open(document) = &mut self.state else { return Ok(()) };
        if self.settings.is_damaged {
            return Err(Halt::Refuse(Refusal::Damaged));
        }
        let end = first.plus(frames.len() as u64);
        let lsn = document.served(timeline)?.wanted;
        if end <= lsn {
            self.outbox.acked(id, end);
            return Ok(());
        }
        self.forbid(id, lsn);
        Ok(())
    }

    /// Takes no frames from this one on, and says so behind what became of those before it.
    fn forbid(&mut self, id: SubscriberId, lsn: Lsn) {
        reached(Probe::FramesForbidden);
        let secret = self.subscribers[&id].secret;
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            // Also once it may write again: its client has been told that they are rejected.
            subscriber.undecided = Some(lsn);
        }
        self.outbox.after(After::Tell(id, FromRoom::Forbidden { lsn }));
        self.end_other_ways(id, secret);
    }

    /// Takes no more of a copy from its other connections: one that is not noticed dead yet may
    /// have the same frames on the way, by a token that allows what this one does not, and their
    /// client rejects them. Who has not said the copy's secret ends nobody's.
    fn end_other_ways(&mut self, id: SubscriberId, secret: CopySecret) {
        let is_other =
            |(other, it): &(&SubscriberId, &Subscriber)| **other != id && it.secret == secret;
        let others = self.subscribers.iter().filter(is_other).map(|(_, it)| it.channel_id);
        for channel_id in others.collect::<Vec<_>>() {
            self.send_away(channel_id, Refusal::Parted);
        }
    }

    fn stop_timeline(&mut self, id: SubscriberId, lsn: Lsn, why: UndecidedReason) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        subscriber.undecided = Some(lsn);
        self.outbox.after(After::Tell(id, FromRoom::Undecided { lsn, why }));
    }
}

impl Document {
    fn decide(
        &mut self,
        key: &DocumentKey,
        origin: EntryId,
        issuer: &Issuer<'_>,
        frame: &WireFrame,
        caution: &dyn Caution,
    ) -> Result<Fate, Halt> {
        let public = public_entry(origin);
        let EntryId { journal: timeline, life, lsn } = public;
        let known = self.served(timeline)?;
        if lsn > known.wanted {
            let reason = format!("frame {lsn} came where {} was wanted", known.wanted);
            return Err(Halt::Refuse(Refusal::Protocol { reason }));
        }
        // Whoever handed the document over may have said that all before it was applied.
        if lsn.get() == LSN_MAX {
            let reason = format!("no frame comes behind {lsn}");
            return Err(Halt::Refuse(Refusal::Protocol { reason }));
        }
        // A life does not come back once another one has gone on in the timeline, and an LSN is not
        // given twice: then there are two copies of the client.
        let is_repeat = lsn < known.wanted;
        let writer = known.lives.life_at(lsn);
        let has_left = known.lives.begin_of(life).is_some() && writer != Some(life);
        if has_left || (is_repeat && writer != Some(life)) {
            reached(Probe::FramesParted);
            return Err(Halt::Refuse(Refusal::Parted));
        }
        if is_repeat {
            return Ok(Fate::Repeated);
        }
        let is_anothers = known.client.is_some_and(|client| client != issuer.client);
        let mutation = Mutation::decode(&frame.body);
        if !issuer.may_bring(&mutation) {
            return Ok(Fate::Forbidden);
        }
        // Everybody who follows the document reads the id of each timeline.
        if is_anothers {
            let reason = "its timeline is another copy's".to_owned();
            return Err(Halt::Refuse(Refusal::Access { reason }));
        }
        let is_readable = mutation.is_ok();
        let run = match mutation {
            // Who says it is not whose it is: nothing is found wrong with it.
            Ok(mutation) if !issuer.has_issued(&mutation) => {
                reached(Probe::OtherUsersFrameRefused);
                let reason = "its mutations are another copy's, or another user's".to_owned();
                return Err(Halt::Refuse(Refusal::Access { reason }));
            }
            Ok(mutation) => {
                let Some(doctype) = self.record.find(mutation.doctype) else {
                    let reason = shortened(format!(
                        "doctype {} of mutation {} is not known to the server",
                        mutation.doctype, mutation.name
                    ));
                    return Ok(Fate::Undecided(UndecidedReason::UnknownDoctype { reason }));
                };
                let run = || self.authority.apply(origin, &mutation, &doctype);
                cautiously(caution, || Suspect::frame(key, public), run).unwrap_or_else(|| {
                    // What ended it may be the trim.
                    let bare = Mutation { kept_rejections: Lsn::FIRST, ..mutation };
                    self.authority.reject(origin, Some(&bare), ENDED_THE_SERVER)
                })
            }
            // It will never be a mutation: rejected in its place, it holds nobody up.
            Err(error) => self.authority.reject(origin, None, &error.to_string()),
        };
        let applied = match ran(run) {
            Ok(applied) => applied,
            // It was not applied, and that could not be said either.
            Err(Halt::Failed(failure)) if !failure.is_passing() => {
                return Ok(Fate::Undecided(no_verdict(&failure)));
            }
            Err(halt) => return Err(halt),
        };
        let kept_max = self.authority.view().limits().timeline_lives_kept_max;
        let known = self.served(timeline)?;
        known.client = known.client.or(is_readable.then_some(issuer.client));
        known.wanted = lsn.next();
        known.lives.note(life, lsn);
        known.lives.forget(kept_max, lsn);
        self.moved_on(Some(public));
        Ok(Fate::Decided(applied))
    }
}

/// Why a verdict could not be written down.
fn no_verdict(failure: &Failure) -> UndecidedReason {
    let reason = shortened(format!("the document takes no verdict: {failure}"));
    match failure {
        // Others may make room.
        Failure::Budget { .. } => {
            reached(Probe::VerdictWithoutRoom);
            UndecidedReason::NoRoomForVerdict { reason }
        }
        _ => UndecidedReason::VerdictFailed { reason },
    }
}
