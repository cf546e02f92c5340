//! Events that have left the document: whoever wants some waits until the server has given them.

use tidelog_document::{ArchivedEvents, InArchive, Replica};
use tidelog_sync::{ArchiveAnswer, ArchiveQuestion, ToRoom};
use tidelog_types::limits::{ARCHIVE_NAMES_SIZE_MAX, ARCHIVE_TYPES_MAX};

use super::{Context, Document};
use crate::effect::TabId;
use crate::protocol::{Call, CallFailure, Connection, FromCore};

/// Milliseconds for which somebody waits who asks while the server is on the way.
const ARCHIVE_WAITS_MS: u64 = 10_000;

const NOT_THERE: &str = "the server is not reached";
const NO_SERVER: &str = "the document has no server";
const ELSEWHERE: &str = "it is not there: the document was made of a file, which comes without it";
const ODD: &str = "it answers something else";

/// What somebody wants of the archive.
pub(super) struct ArchiveWait {
    place: InArchive,
    since_ms: u64,
    /// The number of the question that is under way.
    asked: Option<u32>,
    /// What was answered on the connection that is there, of the history that is here.
    pub(super) has: Option<ArchivedEvents>,
    /// The answer was none.
    is_vain: bool,
}

impl ArchiveWait {
    /// Of one who has looked, and finds what is wanted in the archive; with what was waited for
    /// before.
    pub(super) fn of(place: InArchive, before: Option<Self>, now_ms: u64) -> Self {
        match before {
            Some(before) if before.place.archive == place.archive => {
                // It was looked at with that, which says nothing of what is wanted.
                let is_vain = before.has.is_some();
                Self { place, is_vain, has: None, ..before }
            }
            _ => Self { place, since_ms: now_ms, asked: None, has: None, is_vain: false },
        }
    }
}

impl ArchiveWait {
    /// Whether that is what was asked by this number.
    fn is_of(&self, number: u32) -> bool {
        self.asked == Some(number)
    }

    /// Takes an answer in, if it is one to what was asked.
    pub(super) fn hear(&mut self, number: u32, answer: &mut Option<ArchivedEvents>) -> bool {
        if !self.is_of(number) {
            return false;
        }
        (self.asked, self.has) = (None, answer.take());
        true
    }
}

impl Document {
    /// Asks the server for what is wanted of the archive, and tells those whom it does not give it.
    pub(super) fn ask_archive(&mut self, ctx: &mut Context<'_>) {
        if self.watches.archive_waits().next().is_none() {
            return;
        }
        let link = self.wanted_server().map(|server| self.link_name(server));
        let link = link.and_then(|name| ctx.servers.get(&name));
        let (connection, _) = self.connection(link);
        let is_online = connection == Connection::Online;
        // What the server says is of what takes the place of all that is here.
        let is_outdated = self.replica().is_some_and(Replica::is_outdated);
        let (mut questions, mut failed) = (Vec::new(), Vec::new());
        for (tab, call, wait, wanted) in self.watches.archive_waits() {
            let ends_at_ms = wait.since_ms.saturating_add(ARCHIVE_WAITS_MS);
            let why = match connection {
                _ if wait.is_vain => Some(ODD),
                Connection::Local => Some(NO_SERVER),
                Connection::Offline => Some(NOT_THERE),
                Connection::Connecting if ctx.now_ms >= ends_at_ms => Some(NOT_THERE),
                Connection::Connecting | Connection::Online => None,
            };
            if let Some(why) = why {
                failed.push((tab, call, CallFailure::archived(wait.place.up_to, why)));
            } else if !is_online {
                // What was asked on a connection that has ended is asked anew, and what was told
                // there may be of another history than what the next one tells.
                (wait.asked, wait.has) = (None, None);
                ctx.out.wake_at(ends_at_ms);
            } else if is_outdated {
                (wait.asked, wait.has) = (None, None);
            } else if wait.asked.is_none() && wait.has.is_none() {
                self.archive_questions = self.archive_questions.wrapping_add(1);
                let number = self.archive_questions;
                wait.asked = Some(number);
                let mut question = ArchiveQuestion {
                    number,
                    archive: wait.place.archive,
                    aggregate: wanted.aggregate.clone(),
                    stream: wanted.stream.clone(),
                    types: wanted.types.clone(),
                    after: wanted.after,
                };
                let is_long = question.names_size() > ARCHIVE_NAMES_SIZE_MAX;
                if is_long || question.types.len() > ARCHIVE_TYPES_MAX {
                    question.types.clear();
                }
                questions.push(question);
            }
        }
        questions.into_iter().for_each(|question| self.say(ToRoom::Archived(question), ctx));
        self.fail_archived(failed, ctx);
    }

    /// The archive has answered.
    pub(super) fn on_archived(
        &mut self,
        number: u32,
        answer: ArchiveAnswer,
        ctx: &mut Context<'_>,
    ) {
        let why = match answer {
            ArchiveAnswer::Events { events, up_to } => {
                let archived = ArchivedEvents { events, up_to, ..ArchivedEvents::default() };
                return self.watches.hear_archive(number, archived);
            }
            ArchiveAnswer::Elsewhere => ELSEWHERE.to_owned(),
            ArchiveAnswer::Failed { reason } => reason,
        };
        let waits = self.watches.archive_waits();
        let asked = waits.filter(|(_, _, wait, _)| wait.is_of(number));
        let failed = asked
            .map(|(tab, call, wait, _)| (tab, call, CallFailure::archived(wait.place.up_to, &why)))
            .collect();
        self.fail_archived(failed, ctx);
    }

    fn fail_archived(&mut self, failed: Vec<(TabId, Call, CallFailure)>, ctx: &mut Context<'_>) {
        for (tab, call, failure) in failed {
            self.watches.remove(tab, call);
            ctx.out.tell(tab, FromCore::Failed { call, failure });
        }
    }
}
