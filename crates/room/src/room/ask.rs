//! What somebody who is no client wants of a document.

use tidelog_document::{Change, Changed, Doctype, Erasable, ErasedUpTo};
use tidelog_sqlite::Failure;
use tidelog_sync::{Channel, FromRoom, Intent, Refusal};
use tidelog_types::{Budget, CopySecret, JournalId, Lineage, Lsn, shortened};

use super::handling::TAKES_NOTHING_MORE;
use super::open::{TOO_MANY_DOCTYPES, invalid_migration, try_migrations};
use super::outbox::After;
use super::subscriber::{ChannelId, OpenRequest};
use super::{Answer, Ask, Halt, May, Room, RoomEffect, Service, State, ran};

impl Room {
    pub(super) fn answer(
        &mut self,
        request: u64,
        ask: &Ask,
        budget: &mut Budget,
    ) -> Result<(), Halt> {
        let subscribers_count = self.subscribers.len();
        let is_damaged = self.settings.is_damaged;
        if let (State::Absent, Ask::TakeIn(part), false) = (&self.state, ask, is_damaged)
            && part.archive.is_none()
        {
            self.begin_archive()?;
        }
        let State::Open(document) = &mut self.state else {
            let reason = "the store is damaged, and this document is not among what is left of it";
            let answer = match is_damaged {
                true => Answer::Failed { reason: reason.to_owned() },
                false => Answer::Missing,
            };
            // That it is gone may not be durable yet.
            self.outbox.after(After::Answer(request, answer));
            return Ok(());
        };
        match ask {
            Ask::Describe => {
                let answer = Answer::Description {
                    position: document.durable,
                    db_pages: document.authority.view().base_db_pages(),
                    subscribers_count,
                    doctype: document
                        .record
                        .newest()
                        .map_or_else(String::new, |it| it.name.clone()),
                    service: match (document.is_incomplete, is_damaged) {
                        (true, _) => Service::None,
                        (false, true) => Service::ReadOnly,
                        (false, false) => Service::Full,
                    },
                };
                self.effects.push(RoomEffect::Answer { request, answer });
            }
            &Ask::Export { conn } => {
                let storage = document.authority.position();
                let (from, wanted, lives) = (Lsn::FIRST, Lsn::FIRST, Lineage::default());
                let (timeline, intent, may) = (JournalId::NONE, Intent::Follow, May::Follow);
                // Which nobody else can say: whoever did would be taken for the same copy.
                let secret = CopySecret(self.next_journal_id().0);
                let (doctype, have) = (Vec::new().into(), None);
                let open = OpenRequest { doctype, timeline, secret, have, intent, may };
                let subscriber = self.subscribe(ChannelId { conn, channel: Channel(0) }, &open);
                let answer = Answer::Exporting;
                self.effects.push(RoomEffect::Answer { request, answer });
                // Nothing leaves that could still be lost.
                let opened = FromRoom::Opened { storage, from, wanted, lives };
                self.outbox.after(After::Follow { subscriber, from, opened });
            }
            Ask::Try { doctype } => {
                let answer = self.try_doctype(doctype)?;
                self.effects.push(RoomEffect::Answer { request, answer });
            }
            Ask::Erase { what, after } => {
                let answer = self.erase(what, *after, budget)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Upcast { aggregate, after } => {
                let answer = self.upcast(aggregate.as_deref(), *after, budget)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Replay(wanted) => {
                let answer = self.replay(wanted, budget)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Events(wanted, archived) => {
                let answer = self.events(wanted, archived.as_deref())?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Recorded(wanted, archived) => {
                let answer = self.recorded(wanted, archived.as_deref())?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Archivable(stream) => {
                let answer = self.archivable(stream)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::TakeIn(part) => {
                let answer = self.take_in(part, budget)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Archive { stream, archive, archived, end } => {
                let answer = self.let_go(stream, *archive, [*archived, *end], budget)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Archived(wanted, archive) => {
                let answer = self.archived(wanted, *archive)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Commands(wanted) => {
                let answer = self.commands(wanted)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Streams(wanted) => {
                let answer = self.streams(wanted)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Stream(stream, after) => {
                let answer = self.stream(stream, *after)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::FailedCommands(after) => {
                let answer = self.failed_commands(*after)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Intervene(command, intervention) => {
                let answer = self.intervene(command, intervention, budget)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Append { events, by } => {
                let answer = self.append(events, by, budget)?;
                self.outbox.after(After::Answer(request, answer));
            }
            Ask::Look => {
                self.look()?;
                self.effects.push(RoomEffect::Answer { request, answer: Answer::Looked });
            }
            Ask::Destroy => self.destroy(request),
        }
        Ok(())
    }

    /// Runs the migrations as for one who opens the document by this doctype.
    fn try_doctype(&mut self, doctype: &Doctype) -> Result<Answer, Halt> {
        let State::Open(document) = &mut self.state else {
            unreachable!("BUG: no document to try it on")
        };
        if self.settings.is_damaged || document.is_incomplete {
            let reason = "the store is damaged, and nothing can be migrated".to_owned();
            return Ok(Answer::Failed { reason });
        }
        let record = &document.record;
        let Some(newest) = record.newest().filter(|it| it.name == doctype.name) else {
            return Ok(Answer::OfOther);
        };
        let failed = |reason| Ok(Answer::Tried { failure: Some(shortened(reason)) });
        if record.find(doctype.hash()).is_some() {
            return Ok(Answer::Tried { failure: None });
        }
        if let Some(reason) = doctype.parting_from(&newest) {
            return failed(reason);
        }
        if !record.has_room_for(doctype) {
            return failed(TOO_MANY_DOCTYPES.to_owned());
        }
        let run = || document.authority.try_migration(doctype);
        let run = try_migrations(&*self.caution, &self.document, doctype, run);
        match run.and_then(ran).map_err(invalid_migration) {
            Ok(_) => Ok(Answer::Tried { failure: None }),
            Err(Halt::Refuse(Refusal::DoctypeInvalid { reason })) => failed(reason),
            // This host could not tell.
            Err(Halt::Failed(failure)) if failure != Failure::CutOff => {
                Ok(Answer::Failed { reason: failure.to_string() })
            }
            Err(halt) => Err(halt),
        }
    }

    fn erase(
        &mut self,
        what: &Erasable,
        after: ErasedUpTo,
        budget: &mut Budget,
    ) -> Result<Answer, Halt> {
        if self.settings.is_damaged {
            let reason = "the store is damaged, and nothing can be erased".to_owned();
            return Ok(Answer::Failed { reason });
        }
        let change = Change::Erase { what: what.clone(), after };
        Ok(match self.change(&change, budget)? {
            Ok(Changed::Erased(erased)) => Answer::Erased(erased),
            Ok(_) => unreachable!("BUG: it erases"),
            Err(why) => Answer::Failed { reason: format!("{TAKES_NOTHING_MORE}: {why}") },
        })
    }

    pub(super) fn destroy(&mut self, request: u64) {
        self.commit();
        for channel_id in self.vacate_all() {
            let refused = FromRoom::Refused(Refusal::Missing);
            self.outbox.after(After::TellChannel(channel_id, refused));
        }
        self.outbox.after(After::Answer(request, Answer::Destroyed));
        self.effects.push(RoomEffect::Store(self.outbox.destroy(self.document.clone())));
        self.state = State::Absent;
    }
}
