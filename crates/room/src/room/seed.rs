//! A local document becomes the server's.
//!
//! Its pages may be many: they are staged in the store as they come, under a name of their own,
//! and are read from there like those of any document. When all are there and nothing about them
//! forbids it, the staged document takes the name of the real one, in one append.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_document::{PageLinks, chain_after, client_of, schema_of};
use tidelog_pages::{Append, AppendError, StorageEntry, StoreRequest};
use tidelog_sync::{CodedPage, FromRoom, Intent, Refusal};
use tidelog_types::limits::{ENTRY_PAGES_MAX, INSTANCES_MAX, SEED_LSN_MAX};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{
    ClientId, DocumentKey, JournalId, Life, Lsn, LsnRange, Page, PageSet, Pgid, Position, Value,
};

use super::caution::{Suspect, cautiously};
use super::document::{Document, Offered};
use super::leaving::{LeavingEntries, LeavingEntry};
use super::open::{decode_doctype, try_migrations, unusable_doctype};
use super::outbox::After;
use super::outlets::size_of_pages;
use super::record::{RoomRecord, Seeded};
use super::refusal::brief;
use super::subscriber::{Candidate, ChannelId, OpenRequest, Seed, SubscriberId, Walk};
use super::{Halt, May, Room, RoomEffect, State, Work, ran};

/// The other half of the name under which the pages of a local document are staged in the store,
/// until all are there. A server's own documents have no user.
pub const STAGED: &str = "staged";

/// Milliseconds in which something has to come of a document that is handed over while others wait
/// with theirs, or may soon find no room: fewer than after which those give up.
const SEED_SILENT_MS: u64 = 5_000;
/// The same while nobody does: what is kept of a document is not kept for somebody silent.
const SEED_IDLE_MS: u64 = 60_000;
/// How long a turn to hand over lasts at least while others wait, as long as something comes.
const SEED_TURN_MS: u64 = 60_000;
/// Bytes that have to come in each second of a longer one, on average.
const SEED_BYTES_PER_S: u64 = 16 * 1024;
/// How often all of that becomes twice as long, each time it was too short. Whoever is slow gets
/// through, then, and whoever is silent is waited for no longer than this.
const SEED_PATIENCE_MAX: u32 = 3;

/// How far a document has come that is handed over, by the shell's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeedProgress {
    subscriber: SubscriberId,
    /// Since when it is their turn.
    began_ms: u64,
    came_size: usize,
    /// Since when no more have come.
    silent_since_ms: u64,
    /// Since when the room takes nothing in, if it does not: that time is not theirs.
    held_since_ms: Option<u64>,
}

impl SeedProgress {
    fn begin(subscriber: SubscriberId, came_size: usize, now_ms: u64) -> Self {
        let (began_ms, silent_since_ms) = (now_ms, now_ms);
        Self { subscriber, began_ms, came_size, silent_since_ms, held_since_ms: None }
    }

    fn go_on(self, came_size: usize, now_ms: u64) -> Self {
        let is_silent = self.came_size == came_size;
        let silent_since_ms = if is_silent { self.silent_since_ms } else { now_ms };
        let held_ms = self.held_since_ms.map_or(0, |since_ms| now_ms - since_ms);
        let began_ms = self.began_ms + held_ms;
        Self { came_size, silent_since_ms, began_ms, held_since_ms: None, ..self }
    }

    /// When it has taken too long, if no more comes. `is_idle`: nobody waits for it to end.
    fn overdue_at_ms(&self, is_idle: bool, patience: u32) -> u64 {
        let silent_ms = if is_idle { SEED_IDLE_MS } else { SEED_SILENT_MS };
        let silent_at_ms = self.silent_since_ms + (silent_ms << patience);
        if is_idle {
            return silent_at_ms;
        }
        let came_ms = self.came_size as u64 * 1_000 / SEED_BYTES_PER_S;
        silent_at_ms.min(self.began_ms + (came_ms.max(SEED_TURN_MS) << patience))
    }
}

impl Room {
    pub(super) fn seed(
        &mut self,
        channel_id: ChannelId,
        position: Position,
        db_pages: u32,
        pages: &mut Vec<CodedPage>,
        last: bool,
    ) -> Result<(), Halt> {
        let Some(id) = self.subscriber_at(channel_id) else { return Ok(()) };
        let subscriber = self.subscribers.get_mut(&id).expect("BUG: nobody on a channel");
        let (timeline, secret) = (subscriber.timeline, subscriber.secret);
        let client = client_of(secret);
        let Some(mut seed) = subscriber.seed.take() else {
            return Err(broken_protocol("a seed that nobody asked for"));
        };
        let mut taken = self.stage(id, &mut seed, position, db_pages, std::mem::take(pages));
        if taken.is_ok() && last {
            taken = self.end_seed(&mut seed, (client, timeline), position, db_pages);
        }
        if taken.is_err() || !last {
            // It is gone on with, or given back.
            let subscriber = self.subscribers.get_mut(&id).expect("BUG: it was there");
            let pages_count = seed.pages_count;
            subscriber.seed = Some(seed);
            if taken.is_ok() {
                self.effects.push(channel_id.say(FromRoom::SeedTaken { pages_count }));
            }
            return taken;
        }
        let (doctype, intent) = (Vec::new().into(), Intent::Offer { lives: seed.lives });
        let (have, may) = (Some(position), May::Create);
        let open = OpenRequest { doctype, timeline, secret, have, intent, may };
        self.welcome(channel_id, &open)
    }

    /// Takes in some pages, and hands them to the store.
    fn stage(
        &mut self,
        id: SubscriberId,
        seed: &mut Seed,
        position: Position,
        db_pages: u32,
        pages: Vec<CodedPage>,
    ) -> Result<(), Halt> {
        if *seed.position.get_or_insert(position) != position {
            return Err(broken_protocol("two seeds at once"));
        }
        if db_pages as usize > ENTRY_PAGES_MAX {
            return Err(broken_protocol("a seed with more pages than a document may have"));
        }
        if position.next.get() > SEED_LSN_MAX {
            return Err(broken_protocol(
                "a seed that leaves no LSNs for what is written behind it",
            ));
        }
        let is_in_order = (seed.pages_count + 1..=db_pages)
            .zip(&pages)
            .filter(|(number, page)| page.pgid.0 == *number)
            .count();
        if is_in_order != pages.len() {
            return Err(broken_protocol("a seed with pages out of order"));
        }
        if pages.is_empty() {
            return Ok(());
        }
        if position.next == Lsn::FIRST {
            return Err(broken_protocol("a seed with pages that nobody wrote"));
        }
        seed.came_size += size_of_pages(&pages);
        let decoded = |page: &CodedPage| Some((page.pgid, page.decoded(|_| None)?));
        let pages: Option<BTreeMap<Pgid, Page>> = pages.iter().map(decoded).collect();
        let pages = pages.ok_or_else(|| broken_protocol("a seed with pages that are none"))?;
        self.commit();
        let is_first = !seed.is_staged();
        if is_first {
            // Nothing is left of what was staged before, nor of whether that failed.
            self.has_abandoned = false;
            let document = self.staging_key();
            self.effects.push(RoomEffect::Store(StoreRequest::Open { document }));
        }
        for (pgid, page) in &pages {
            seed.hasher.page(*pgid, page);
            seed.links.note(page, db_pages);
        }
        let pages_count = pages.len();
        seed.pages_count += u32::try_from(pages_count).expect("BUG: they are at most db_pages");
        let set = PageSet { db_pages, pages };
        let append = Append {
            begin_storage: is_first.then_some(position.journal),
            is_anew: is_first,
            is_cut: true,
            storage: vec![whole(position, set)],
            ..Append::to(self.staging_key())
        };
        let request = self.outbox.stage(id, append, pages_count);
        self.effects.push(RoomEffect::Store(request));
        Ok(())
    }

    /// All pages are there: they become the document, if they still may.
    fn end_seed(
        &mut self,
        seed: &mut Seed,
        (client, timeline): (ClientId, JournalId),
        position: Position,
        db_pages: u32,
    ) -> Result<(), Halt> {
        // It may have changed since the seed was asked for.
        let compared = match &mut self.state {
            State::Open(document) => {
                // Its client is welcomed without a further look at the pages. Where there is a
                // candidate, that was done: pages that are read from then on are staged ones.
                if seed.candidate.is_none() {
                    document.served(timeline)?;
                }
                document.compare_offer(client, &position, &seed.lives)
            }
            _ => Offered::Beyond,
        };
        match compared {
            Offered::Held => {
                self.has_abandoned |= seed.is_staged();
                Ok(())
            }
            Offered::Beyond => self.plant(seed, (client, timeline), position, db_pages),
            Offered::Other => Err(Halt::Refuse(Refusal::Exists)),
        }
    }

    /// There was no room for what this one staged: it is told, if it still hands it over. The store
    /// answers no read behind an append that failed, so none is waited for.
    pub(super) fn refuse_seed(&mut self, seeding: Option<SubscriberId>, error: &AppendError) {
        if self.seeding != seeding {
            return;
        }
        let staged = self.staging_key();
        if self.fetch.take_if(|fetch| fetch.document == staged).is_some() {
            self.run_ended();
        }
        self.refuse_seeding(&error.to_string());
    }

    /// Whoever waited to hand over another local document is answered now.
    pub(super) fn end_seeding(&mut self) {
        self.seeding = None;
        // They came before all that is in the queue, which may say that they have gone.
        while let Some((channel_id, open)) = self.offers.pop_back() {
            self.queue.push_front(Work::Open(channel_id, open));
        }
    }

    /// When, on the clock of whoever asks, [`RoomInput::SeedOverdue`](super::RoomInput) is due: by
    /// then nothing has come of the document that is handed over, or too little. `None` if there is
    /// none.
    pub fn seed_overdue_at_ms(&mut self, now_ms: u64) -> Option<u64> {
        let seeding = self.seeding.and_then(|id| {
            let came_size = self.subscribers.get(&id)?.seed.as_ref()?.came_size;
            Some((id, came_size))
        });
        let before = self.seed_progress;
        self.seed_progress = seeding.map(|(id, came_size)| {
            // Since when is known, whoever came or went meanwhile.
            match before.filter(|before| before.subscriber == id) {
                Some(before) => before.go_on(came_size, now_ms),
                None => SeedProgress::begin(id, came_size, now_ms),
            }
        });
        let is_idle = self.offers.is_empty() && !self.is_pressed;
        let patience = self.overdue_count.min(SEED_PATIENCE_MAX);
        let takes_messages = self.takes_messages();
        let progress = self.seed_progress.as_mut()?;
        progress.held_since_ms = (!takes_messages).then_some(now_ms);
        takes_messages.then(|| progress.overdue_at_ms(is_idle, patience))
    }

    /// Whether others may soon not be able to hand over, since much is kept of what is handed over
    /// in all rooms.
    pub fn press_seed(&mut self, is_pressed: bool) {
        self.is_pressed = is_pressed;
    }

    /// Lets the next one hand over.
    pub(super) fn end_overdue_seed(&mut self, now_ms: u64) {
        if self.seed_overdue_at_ms(now_ms).is_some_and(|at_ms| at_ms <= now_ms) {
            reached(Probe::SeedOverdue);
            self.overdue_count += 1;
            self.refuse_seeding("too little came of the document for too long");
        }
    }

    /// The server keeps more of documents that are handed over than it may.
    pub(super) fn end_unkept_seed(&mut self) {
        // What has come as a whole is looked at, and is kept no longer.
        if self.takes_messages() {
            self.refuse_seeding("others are handing over as much as the server keeps at once");
        }
    }

    fn refuse_seeding(&mut self, reason: &str) {
        let seeding = self.seeding.and_then(|id| self.subscribers.get(&id));
        if let Some(channel_id) = seeding.map(|subscriber| subscriber.channel_id) {
            self.vacate(channel_id);
            let refusal = brief(Refusal::Storage { reason: reason.to_owned() });
            self.effects.push(channel_id.say(FromRoom::Refused(refusal)));
        }
    }

    pub(super) fn staging_key(&self) -> DocumentKey {
        DocumentKey { user: STAGED.to_owned(), ..self.document.clone() }
    }

    /// What a seed that ends would be, while it is looked at.
    pub(super) fn candidate_of(&self, work: &Work) -> Option<&Candidate> {
        let Work::Seed { channel_id, .. } = work else { return None };
        let subscriber = self.subscribers.get(&self.subscriber_at(*channel_id)?)?;
        subscriber.seed.as_ref()?.candidate.as_deref()
    }

    /// Has the store forget what is staged and not gone on with.
    pub(super) fn give_back_staged(&mut self) {
        if std::mem::take(&mut self.has_abandoned) {
            let request = self.outbox.unstage(self.staging_key());
            self.effects.push(RoomEffect::Store(request));
        }
    }

    /// Makes the seed the document, or its next state. Can be begun again after a fault.
    fn plant(
        &mut self,
        seed: &mut Seed,
        (client, timeline): (ClientId, JournalId),
        position: Position,
        db_pages: u32,
    ) -> Result<(), Halt> {
        let mut candidate = match seed.candidate.take() {
            Some(candidate) => candidate,
            None => Box::new(self.candidate(seed, client, position, db_pages)?),
        };
        if let Err(halt) = self.look_at(&mut candidate, &seed.links, timeline) {
            seed.candidate = Some(candidate);
            return Err(halt);
        }
        reached(Probe::SeedPlanted);
        self.overdue_count = 0;
        self.commit();
        let Candidate { mut document, migrated, .. } = *candidate;
        document.record.lives = document.authority.lives().clone();
        let mut append = Append {
            record: Some(document.record.encode().into()),
            take_name: Some(self.document.clone()),
            ..Append::to(self.staging_key())
        };
        let mut after = Vec::new();
        let planted = document.record.seeded.map(|seeded| seeded.position);
        if let Some(planted) = planted.filter(|_| seed.is_staged()) {
            let rest = PageSet { db_pages, pages: BTreeMap::new() };
            append.storage.push(whole(planted, rest));
            after.push(After::Entries(LeavingEntries::of(LeavingEntry::planted(planted))));
        } else {
            append.begin_storage = Some(position.journal);
            append.is_anew = true;
        }
        if let Some(committed) = migrated {
            append.storage.push(committed.entry.clone());
            let entry = LeavingEntry::new(committed, None, None);
            after.push(After::Entries(LeavingEntries::of(entry)));
        }
        let request = self.outbox.plant(append, after);
        self.effects.push(RoomEffect::Store(request));
        self.forget_tasks();
        self.state = State::Open(Box::new(document));
        Ok(())
    }

    /// The document that the staged pages are, as far as that can be told without them.
    fn candidate(
        &self,
        seed: &Seed,
        client: ClientId,
        position: Position,
        db_pages: u32,
    ) -> Result<Candidate, Halt> {
        let (doctype, mut lives) = (decode_doctype(&seed.doctype)?, seed.lives.clone());
        let start = Position::start_of(position.journal);
        let (durable, mut record) = match &self.state {
            State::Open(document) => (document.durable, document.record.clone()),
            _ => (start, RoomRecord::default()),
        };
        let is_empty = position.next == Lsn::FIRST;
        if seed.pages_count != db_pages || is_empty != (db_pages == 0) {
            return Err(broken_protocol("a seed with pages missing"));
        }
        // Each wrote some of it, once, and the last one what is last; this store wrote none of it.
        let known: BTreeSet<Life> = lives.lives().map(|(life, _)| life).collect();
        if known.len() < lives.lives().count() || known.contains(&self.life) {
            return Err(broken_protocol("a seed of lives that cannot have written it"));
        }
        let last = lives.lives().last();
        let is_last = last.map(|(life, _)| life) == (!is_empty).then_some(position.life);
        if !is_last || last.is_some_and(|(_, begin)| begin >= position.next) {
            return Err(broken_protocol("a seed whose lives are not those that wrote it"));
        }
        if record.find(doctype.hash()).is_none() {
            self.check_new(&doctype, &record)?;
            if record.newest().is_some_and(|newest| !doctype.succeeds(&newest)) {
                return Err(Halt::Refuse(Refusal::Exists));
            }
            record.add_newest(doctype.clone());
        }
        lives.forget(self.settings.limits.lives_kept_max, position.next);
        record.lives = lives;
        let range = LsnRange::new(Lsn::FIRST, position.next);
        let position = if range.is_empty() {
            start
        } else {
            let hash = seed.hasher.clone().finish(db_pages);
            Position { chain: chain_after(start.chain, range, hash), ..position }
        };
        record.seeded = Some(Seeded { position, client });
        record.due = None;
        let view = self.new_view(db_pages);
        let document = Document::new(view, position, record, durable, self.life);
        let schema_of = || schema_of(&doctype, self.new_view(0));
        let schema = try_migrations(&*self.caution, &self.document, &doctype, schema_of)?
            .map_err(unusable_doctype)?;
        Ok(Candidate { document, doctype, walk: Walk::NotBegun, migrated: None, schema })
    }

    /// Brings a candidate to its doctype's version, and makes sure that it is of that doctype.
    fn look_at(
        &self,
        candidate: &mut Candidate,
        links: &PageLinks,
        timeline: JournalId,
    ) -> Result<(), Halt> {
        let Candidate { document, doctype, walk, migrated, schema } = candidate;
        let seeded = document.record.seeded.map(|seeded| seeded.position);
        let position = seeded.unwrap_or(document.authority.position());
        let suspect = || Suspect::seed(&self.document, position);
        let crashed =
            || Err(broken_protocol("a seed at which the server crashed each time it looked at it"));
        // Before anything is changed: each page that was read can be read again.
        let walked = cautiously(&*self.caution, suspect, || go_on(walk, links, document));
        walked.unwrap_or_else(crashed)?;
        if let Some(entry) = document.migrate(&self.document, doctype, &*self.caution)? {
            *migrated = Some(entry);
        }
        // What the pages say is anybody's, and SQLite reads them.
        let look = || {
            inspect(document, schema)?;
            // Its client is welcomed without a further look at the pages.
            document.applied(timeline).map(drop).map_err(unreadable)
        };
        cautiously(&*self.caution, suspect, look).unwrap_or_else(crashed)
    }
}

/// The one entry that a local document is, with some of its pages.
fn whole(position: Position, set: PageSet) -> StorageEntry {
    let range = LsnRange::new(Lsn::FIRST, position.next);
    StorageEntry { range, position, calls: Vec::new(), set }
}

/// Nothing is taken over but what the doctype's migrations make: no trigger on the system tables,
/// no view in place of a table, no table in place of a system table, no file that is no database.
/// That no page is in place of another was seen [before](go_on).
fn inspect(document: &mut Document, expected: &[Vec<Value>]) -> Result<(), Halt> {
    let schema = ran(document.authority.schema()).map_err(unreadable)?;
    if let Some(odd) = odd_one(&schema, expected) {
        let why = format!("a seed whose schema is not that of its doctype: {odd}");
        return Err(broken_protocol(&why));
    }
    if !ran(document.authority.has_own_roots()).map_err(unreadable)? {
        return Err(broken_protocol("a seed with tables in the place of others"));
    }
    // They are kept in memory for as long as it is open.
    if ran(document.authority.work()).map_err(unreadable)?.instances.len() > INSTANCES_MAX {
        return Err(broken_protocol("a seed in which more handle its tasks than may"));
    }
    Ok(())
}

/// What of the schema is not as it should be, if anything is not.
fn odd_one(schema: &[Vec<Value>], expected: &[Vec<Value>]) -> Option<String> {
    let text = |value: Option<&Value>| match value {
        Some(Value::Text(text)) => text.to_string(),
        _ => "?".to_owned(),
    };
    let name = |row: &Vec<Value>| format!("{} {}", text(row.first()), text(row.get(1)));
    let is_absent = |row: &&Vec<Value>| !schema.contains(row);
    // An index that comes with its table says less.
    let is_by_itself = |row: &&Vec<Value>| matches!(row.get(3), Some(Value::Text(_)));
    let absent = || expected.iter().filter(is_absent);
    if let Some(row) = absent().find(is_by_itself).or_else(|| absent().next()) {
        return Some(format!("{} is not there, or another one", name(row)));
    }
    let extra = schema.iter().find(|row| !expected.contains(row)).map(name);
    // Both have the same rows, then, and one has some of them twice, or in another order.
    let is_other = || (schema != expected).then(|| "something stands there twice".to_owned());
    extra.map(|name| format!("{name} is too much")).or_else(is_other)
}

/// Looks whether each page of a candidate stands in one place.
fn go_on(walk: &mut Walk, links: &PageLinks, document: &mut Document) -> Result<(), Halt> {
    let malformed = |_| broken_protocol("a seed with pages in the place of others");
    if let Walk::NotBegun = walk {
        // The table that names the roots comes first: SQLite would read one that names a page
        // thousands of times as often.
        links.walk(&[]).map_err(malformed)?;
        let roots = ran(document.authority.roots()).map_err(unreadable)?;
        *walk = Walk::Free(links.walk(&roots).map_err(malformed)?);
    }
    if let Walk::Free(free) = walk {
        ran(free.go_on(document.authority.view()))?.map_err(malformed)?;
        *walk = Walk::Ended;
    }
    Ok(())
}

/// What fails to read what came is its client's fault, unless this host cannot tell.
fn unreadable(halt: Halt) -> Halt {
    match halt {
        Halt::Failed(failure) if !failure.is_passing() => {
            broken_protocol(&format!("a seed that cannot be read: {failure}"))
        }
        halt => halt,
    }
}

fn broken_protocol(reason: &str) -> Halt {
    Halt::Refuse(Refusal::Protocol { reason: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whoever hands a document over is not called slow for what the server takes in late.
    /// Method: a part comes after a minute in which nothing is taken in, and then little more.
    #[test]
    fn a_turn_to_hand_over_does_not_pass_while_nothing_is_taken_in() {
        let began = SeedProgress::begin(SubscriberId(1), 0, 1_000);
        let held = SeedProgress { held_since_ms: Some(2_000), ..began };
        let gone_on = held.go_on(1, 72_000);
        assert_eq!(gone_on.overdue_at_ms(false, 0), 72_000 + SEED_SILENT_MS);
        let trickles = (72_000..=140_000).step_by(1_000);
        let last = trickles.fold(gone_on, |it, now_ms| it.go_on(it.came_size + 4_096, now_ms));
        assert_eq!(last.overdue_at_ms(false, 0), 1_000 + 70_000 + SEED_TURN_MS);
    }
}
