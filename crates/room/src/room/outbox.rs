//! What a room hands to the store, and what it says once that is durable.

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;
use tidelog_document::{Committed, Intervened, Replayed};
use tidelog_pages::{Append, AppendLedger, StoreRequest, Ticket};
use tidelog_sync::FromRoom;
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{DocumentKey, EntryId, JournalId, Lsn};

use super::Answer;
use super::leaving::{LeavingEntries, LeavingEntry, Sender};
use super::subscriber::{ChannelId, SubscriberId};

/// Something to do when all that came before it is durable, and not earlier: persist, then send.
#[derive(Debug)]
pub(super) enum After {
    /// Tell a subscriber, unless it is gone.
    Tell(SubscriberId, FromRoom),
    /// Tell one who is let go.
    TellChannel(ChannelId, FromRoom),
    /// The subscriber is followed from now on, from this LSN, and told so.
    Follow { subscriber: SubscriberId, from: Lsn, opened: FromRoom },
    /// These entries may leave.
    Entries(LeavingEntries),
    /// Answer the shell.
    Answer(u64, Answer),
    /// So many pages of memory are free again, which the record has taken.
    Recorded(usize),
}

/// What the room hands to the store, with what waits for it.
pub(super) struct Outbox {
    ledger: AppendLedger<After>,
    /// What is on its way to what is staged for the document: if it fails, the document is what it
    /// was.
    staging: BTreeMap<Ticket, Staging>,
    last: Ticket,
    /// Whether the store has not answered yet for what is staged becoming the document.
    is_planting: bool,
    draft_pages: usize,
    /// As many pages may one entry have that travels.
    entry_pages_max: usize,
    /// What was taken in and has not left, as [`held_of`] counts it.
    held: usize,
}

/// Those who waited for what is lost, and who are not found among the subscribers.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// The numbers of the shell's questions.
    pub(super) questions: Vec<u64>,
    /// Those of them that want something done, which may have come to pass.
    pub(super) in_doubt: Vec<u64>,
    /// Where those are who were let go, and have not been told.
    pub(super) channel_ids: Vec<ChannelId>,
    /// Whether what is staged was to become the document, and is left as it is.
    pub(super) is_left_staged: bool,
}

/// An append to what is staged, or its destruction.
pub(super) struct Staging {
    /// Whose it is; nobody's if it is destroyed.
    pub(super) seeding: Option<SubscriberId>,
    /// How much is held until it is durable.
    held: usize,
}

impl Outbox {
    pub(super) fn new(document: DocumentKey, entry_pages_max: usize) -> Self {
        Self {
            entry_pages_max,
            staging: BTreeMap::new(),
            ledger: AppendLedger::new(document),
            last: Ticket(0),
            is_planting: false,
            draft_pages: 0,
            held: 0,
        }
    }

    pub(super) fn record(&mut self, record: Vec<u8>) {
        let record = ByteBuf::from(record);
        self.after(recorded(&record));
        self.ledger.draft().record = Some(record);
    }

    /// Begins another storage journal; what was appended before must be on its way.
    pub(super) fn begin_storage(&mut self, journal: JournalId) {
        let draft = self.ledger.draft();
        assert!(draft.storage.is_empty(), "BUG: entries of two journals in one append");
        draft.begin_storage = Some(journal);
    }

    pub(super) fn entry(
        &mut self,
        committed: Committed,
        origin: Option<EntryId>,
        sender: Option<Sender>,
    ) {
        self.draft_pages += committed.entry.set.pages.len();
        self.ledger.draft().storage.push(committed.entry.clone());
        let entry = LeavingEntry::new(committed, origin, sender);
        let held = entry.held();
        let mut gathered = self.ledger.following_mut().iter_mut().rev();
        // What is told once the same append is durable may be told behind what this entry leaves
        // with; one who follows from a place between two entries lacks the second.
        let tells = |after: &&mut After| matches!(after, After::Tell(..) | After::TellChannel(..));
        let before = gathered.find(|after| !tells(after));
        let entry = match before {
            Some(After::Entries(entries)) => entries.take(entry, self.entry_pages_max),
            _ => Some(entry),
        };
        match entry {
            Some(entry) => self.after(After::Entries(LeavingEntries::of(entry))),
            None => self.held += held,
        }
    }

    pub(super) fn after(&mut self, after: After) {
        self.held += held_of(&after);
        self.ledger.after(after);
    }

    /// Tells one that its frames before `next` are applied, in place of what it was to be told of
    /// that once the same append is durable.
    pub(super) fn acked(&mut self, id: SubscriberId, next: Lsn) {
        let is_ack = |message: &FromRoom| matches!(message, FromRoom::Acked { .. });
        let is_earlier = |after: &mut After| match after {
            After::Tell(to, message) => *to == id && is_ack(message),
            _ => false,
        };
        let earlier = self.ledger.following_mut().extract_if(.., is_earlier);
        self.held -= earlier.map(|after| held_of(&after)).sum::<usize>();
        self.after(After::Tell(id, FromRoom::Acked { next }));
    }

    /// Whether something has come together that is not on its way.
    pub(super) fn has_gathered(&self) -> bool {
        self.ledger.has_gathered() || self.ledger.is_followed()
    }

    /// Whether so much has come together that it should go before more does.
    pub(super) fn is_full(&self, pages_max: usize) -> bool {
        self.draft_pages >= pages_max
    }

    /// Whether nothing is on its way or waits to go.
    pub(super) fn is_empty(&self) -> bool {
        self.ledger.is_empty() && self.staging.is_empty()
    }

    /// Whether the store has answered for all that it was handed.
    pub(super) fn is_drained(&self) -> bool {
        self.ledger.is_drained()
    }

    /// Whether it is not known yet if what is staged is the document.
    pub(super) fn is_planting(&self) -> bool {
        self.is_planting
    }

    /// Closes the current append, if it says anything, and gives the request for it.
    pub(super) fn commit(&mut self) -> Option<StoreRequest> {
        let mut request = None;
        let ticket = Ticket(self.last.0 + 1);
        self.ledger.commit(|append| {
            request = Some(StoreRequest::Append { ticket, append });
            ticket
        })?;
        self.last = ticket;
        self.draft_pages = 0;
        request
    }

    /// The destruction of the document; nothing may be left to commit.
    pub(super) fn destroy(&mut self, document: DocumentKey) -> StoreRequest {
        self.last = Ticket(self.last.0 + 1);
        self.ledger.in_flight_as(self.last);
        StoreRequest::Destroy { ticket: self.last, document }
    }

    /// The append by which what is staged becomes the document, and what follows it; nothing may be
    /// left to commit, and nothing may be handed over behind it until it is answered. If it fails,
    /// the document is what it was, and the store would note of that what was meant for the other.
    pub(super) fn plant(
        &mut self,
        append: Append,
        after: impl IntoIterator<Item = After>,
    ) -> StoreRequest {
        self.last = Ticket(self.last.0 + 1);
        let recorded = append.record.as_ref().map(recorded);
        after.into_iter().chain(recorded).for_each(|after| self.after(after));
        self.ledger.in_flight_as(self.last);
        self.is_planting = true;
        StoreRequest::Append { ticket: self.last, append }
    }

    /// Stages so many pages of what this one hands over.
    pub(super) fn stage(
        &mut self,
        seeding: SubscriberId,
        append: Append,
        pages_count: usize,
    ) -> StoreRequest {
        let (seeding, held) = (Some(seeding), 1 + pages_count);
        StoreRequest::Append { ticket: self.staging_ticket(Staging { seeding, held }), append }
    }

    /// The destruction of what is staged.
    pub(super) fn unstage(&mut self, document: DocumentKey) -> StoreRequest {
        let ticket = self.staging_ticket(Staging { seeding: None, held: 1 });
        StoreRequest::Destroy { ticket, document }
    }

    fn staging_ticket(&mut self, staging: Staging) -> Ticket {
        self.last = Ticket(self.last.0 + 1);
        self.held += staging.held;
        self.staging.insert(self.last, staging);
        self.last
    }

    /// All appends up to this one are durable.
    pub(super) fn on_durable(&mut self, ticket: Ticket) {
        self.ledger.on_durable(ticket);
        // Nothing was handed over behind it.
        self.is_planting &= !self.ledger.is_drained();
        while let Some(first) = self.staging.first_entry().filter(|it| *it.key() <= ticket) {
            self.held -= first.remove().held;
        }
    }

    /// What was to what is staged, if this was, and left nothing behind. What came after it is
    /// answered by itself, since it may be somebody else's.
    pub(super) fn on_staging_failed(&mut self, ticket: Ticket) -> Option<Staging> {
        let failed = self.staging.remove(&ticket)?;
        self.held -= failed.held;
        Some(failed)
    }

    /// This append left nothing behind. Gives who waited for it and for those behind it; `None` if
    /// the room does not wait for it any more.
    pub(super) fn on_failed(&mut self, ticket: Ticket) -> Option<Lost> {
        let lost = self.ledger.on_failed(ticket)?;
        // What was gathered builds on it, and is lost too.
        self.draft_pages = 0;
        Some(self.lost_in_flight(lost))
    }

    /// The next thing that may be done now.
    pub(super) fn next_ready(&mut self) -> Option<After> {
        let ready = self.ledger.next_ready()?;
        self.held -= held_of(&ready);
        Some(ready)
    }

    /// Whether something may be done now.
    pub(super) fn has_ready(&self) -> bool {
        self.ledger.has_ready()
    }

    /// How much is held until it may leave: pages of entries and of records, and one for each thing
    /// to be said.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Forgets what was gathered and not handed over. Gives who waited.
    pub(super) fn forget_draft(&mut self) -> Lost {
        self.draft_pages = 0;
        let lost = self.ledger.forget_draft();
        self.lost(lost)
    }

    /// Forgets everything, since the store failed: what of it is in the log is found when that is
    /// opened anew. Gives who waited. Tickets are not used again.
    pub(super) fn reset(&mut self) -> Lost {
        self.draft_pages = 0;
        let staging = std::mem::take(&mut self.staging);
        self.held -= staging.values().map(|staging| staging.held).sum::<usize>();
        let afters = self.ledger.reset();
        let deed = |after: &After| match after {
            After::Answer(
                request,
                Answer::Destroyed
                | Answer::Erased(Ok(_))
                | Answer::Appended(Ok(_))
                | Answer::Upcast(Ok(_))
                | Answer::TakenIn(Ok(_))
                | Answer::Archived(Ok(_))
                | Answer::Replayed(Ok(Replayed { is_dry: false, .. }))
                | Answer::Intervened(Intervened::Done(_)),
            ) => Some(*request),
            _ => None,
        };
        let in_doubt = afters.iter().filter_map(deed).collect();
        Lost { in_doubt, ..self.lost_in_flight(afters) }
    }

    /// The youngest append is lost, and maybe others.
    fn lost_in_flight(&mut self, afters: Vec<After>) -> Lost {
        let is_left_staged = std::mem::take(&mut self.is_planting);
        Lost { is_left_staged, ..self.lost(afters) }
    }

    fn lost(&mut self, afters: Vec<After>) -> Lost {
        self.held -= afters.iter().map(held_of).sum::<usize>();
        let mut lost = Lost::default();
        for after in afters {
            match after {
                After::Answer(request, _) => lost.questions.push(request),
                After::TellChannel(channel_id, _) => lost.channel_ids.push(channel_id),
                // It is for subscribers.
                After::Tell(..)
                | After::Follow { .. }
                | After::Entries(..)
                | After::Recorded(_) => {}
            }
        }
        lost
    }

    /// What does not add up; for simulations.
    pub(super) fn doubt(&self) -> Option<String> {
        let waiting: usize = self.ledger.waiting().map(held_of).sum();
        let staged: usize = self.staging.values().map(|staging| staging.held).sum();
        let held = self.held;
        (held != waiting + staged).then(|| format!("{held} held for {waiting} and {staged} staged"))
    }

    pub(super) fn in_flight_count(&self) -> usize {
        self.ledger.in_flight_count() + self.staging.len()
    }
}

/// What is free again once this is on the disk.
fn recorded(record: &ByteBuf) -> After {
    After::Recorded(record.len().div_ceil(PAGE_SIZE))
}

fn held_of(after: &After) -> usize {
    match after {
        After::Entries(entries) => entries.held(),
        After::Recorded(pages_count) => *pages_count,
        _ => 1,
    }
}
