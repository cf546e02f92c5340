//! A local document becomes the server's.

use tidelog_document::{Doctype, DoctypeError, chain_of, schema_of};
use tidelog_pages::StorageEntry;
use tidelog_sync::{Intent, Refusal};
use tidelog_types::limits::ENTRY_PAGES_MAX;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Lsn, LsnRange, Page, PageSet, Pgid, Position};

use super::document::{Document, Offered};
use super::record::RoomRecord;
use super::subscriber::{ChannelId, OpenRequest, Seed};
use super::{Halt, Room, State, Work, ran};

impl Room {
    pub(super) fn seed(
        &mut self,
        channel_id: ChannelId,
        position: Position,
        db_pages: u32,
        pages: &mut Vec<(Pgid, Page)>,
        last: bool,
    ) -> Result<(), Halt> {
        let subscriber =
            self.subscriber_at(channel_id).and_then(|id| self.subscribers.get_mut(&id));
        let Some(subscriber) = subscriber else { return Ok(()) };
        let timeline = subscriber.timeline;
        let Some(seed) = &mut subscriber.seed else {
            return Err(broken_protocol("a seed that nobody asked for"));
        };
        if *seed.position.get_or_insert(position) != position {
            return Err(broken_protocol("two seeds at once"));
        }
        if db_pages as usize > ENTRY_PAGES_MAX {
            return Err(broken_protocol("a seed with more pages than a document may have"));
        }
        for (pgid, page) in pages.drain(..) {
            if pgid.0 as usize != seed.pages.len() + 1 || pgid.0 > db_pages {
                return Err(broken_protocol("a seed with pages out of order"));
            }
            seed.pages.push(page);
        }
        if !last {
            return Ok(());
        }
        let Some(seed) = subscriber.seed.take() else { return Ok(()) };
        let lives = seed.lives.clone();
        // It may have changed since the seed was asked for.
        let compared = match &self.state {
            State::Open(document) => document.compare_offer(&position, &lives),
            _ => Offered::Beyond,
        };
        match compared {
            Offered::Held => {}
            Offered::Beyond => self.plant(seed, position, db_pages)?,
            Offered::Other => return Err(Halt::Refuse(Refusal::Exists)),
        }
        let (doctype, intent) = (Vec::new(), Intent::Offer { lives });
        let open = OpenRequest { doctype, timeline, have: Some(position), intent };
        self.welcome(channel_id, &open)
    }

    /// Whoever waited to hand over another local document is answered now.
    pub(super) fn end_seeding(&mut self) {
        self.seeding = None;
        // They came before all that is in the queue, which may say that they have gone.
        for (channel_id, open) in std::mem::take(&mut self.offers).into_iter().rev() {
            self.queue.push_front(Work::Open(channel_id, open));
        }
    }

    /// Makes the seed the document's first entry, or the next one of the same local document.
    fn plant(&mut self, seed: Seed, position: Position, db_pages: u32) -> Result<(), Halt> {
        let Seed { doctype, mut lives, pages, .. } = seed;
        let (start, durable, mut record) = match &self.state {
            State::Open(document) => {
                (document.authority.position(), document.durable, document.record.clone())
            }
            _ => {
                let start = Position::start_of(position.journal);
                (start, start, RoomRecord::default())
            }
        };
        let is_last = Some(position.next)
            == lives.common_with_position(position.next, position.life, position.next);
        let is_empty = position.next == Lsn::FIRST;
        if pages.len() != db_pages as usize || !is_last || is_empty != (db_pages == 0) {
            return Err(broken_protocol("a seed with pages missing"));
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
        let range = LsnRange::new(start.next, position.next);
        let pages: Vec<(Pgid, Page)> = (1..).map(Pgid).zip(pages).collect();
        let view = self.new_view(db_pages, pages.len());
        view.fill(pages.clone());
        let set = PageSet { db_pages, pages: pages.into_iter().collect() };
        let position = if range.is_empty() {
            start
        } else {
            Position { chain: chain_of(start.chain, range, &set), ..position }
        };
        record.seeded = Some(position);
        let mut document = Document::new(view, position, record, durable, self.life);
        let migrated = document.migrate(&self.document, &doctype, &*self.caution)?;
        inspect(&mut document, &doctype)?;

        reached(Probe::SeedPlanted);
        self.commit();
        self.outbox.record(document.record.encode());
        if !matches!(self.state, State::Open(_)) {
            self.outbox.begin_storage(position.journal);
        }
        if !range.is_empty() {
            self.outbox.entry(StorageEntry { range, position, calls: Vec::new(), set }, None);
        }
        if let Some(entry) = migrated {
            self.outbox.entry(entry, None);
        }
        self.state = State::Open(Box::new(document));
        Ok(())
    }
}

/// Nothing is taken over but what the doctype's migrations make: no trigger on the system tables,
/// no view in place of a table, no file that is no database.
fn inspect(document: &mut Document, doctype: &Doctype) -> Result<(), Halt> {
    let expected = schema_of(doctype).map_err(|error: DoctypeError| {
        Halt::Refuse(Refusal::DoctypeInvalid { reason: error.to_string() })
    })?;
    match ran(document.authority.schema()) {
        Ok(schema) if schema == expected => Ok(()),
        Ok(_) => Err(broken_protocol("a seed whose schema is not that of its doctype")),
        Err(Halt::Failed(failure)) if !failure.is_passing() => {
            Err(broken_protocol(&format!("a seed that cannot be read: {failure}")))
        }
        Err(halt) => Err(halt),
    }
}

fn broken_protocol(reason: &str) -> Halt {
    Halt::Refuse(Refusal::Protocol { reason: reason.to_owned() })
}
