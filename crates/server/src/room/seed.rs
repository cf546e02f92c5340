//! A local document becomes the server's.

use tidelog_pages::StorageEntry;
use tidelog_sqlite::View;
use tidelog_sync::{Intent, Refusal};
use tidelog_types::limits::POOL_PAGES_MAX;
use tidelog_types::{Lsn, LsnRange, Page, PageSet, Pgid, Position};

use super::document::Document;
use super::guest::{Seat, Seed, Wish};
use super::open::invalid_migration;
use super::record::RoomRecord;
use super::{Halt, Room, State, ran};

impl Room {
    pub(super) fn seed(
        &mut self,
        seat: Seat,
        position: Position,
        db_pages: u32,
        pages: &mut Vec<(Pgid, Page)>,
        last: bool,
    ) -> Result<(), Halt> {
        let guest = self.guest_at(seat).and_then(|id| self.guests.get_mut(&id));
        let Some(guest) = guest else { return Ok(()) };
        let timeline = guest.timeline;
        let Some(seed) = &mut guest.seed else {
            return Err(broken_protocol("a seed that nobody asked for"));
        };
        if *seed.position.get_or_insert(position) != position {
            return Err(broken_protocol("two seeds at once"));
        }
        seed.db_pages = db_pages;
        seed.pages.extend(pages.drain(..));
        if !last {
            return Ok(());
        }
        let Some(seed) = guest.seed.take() else { return Ok(()) };
        let wish =
            Wish { doctype: Vec::new(), timeline, have: Some(position), intent: Intent::Offer };
        match &self.state {
            State::Absent => self.plant(seed, position)?,
            State::Open(document) if document.authority.position().journal == position.journal => {}
            _ => return Err(Halt::Refuse(Refusal::Exists)),
        }
        self.welcome(seat, &wish)
    }

    /// Begins the document with the seed as its first entry.
    fn plant(&mut self, seed: Seed, position: Position) -> Result<(), Halt> {
        let Seed { doctype, db_pages, pages, .. } = seed;
        let whole = pages.len() == db_pages as usize
            && pages.keys().all(|pgid| (1..=db_pages).contains(&pgid.0));
        let range = LsnRange::new(Lsn::FIRST, position.next.max(Lsn::FIRST));
        if !whole || range.is_empty() != (db_pages == 0) {
            return Err(broken_protocol("a seed with pages missing"));
        }
        self.check_new(&doctype)?;
        let view = View::new(POOL_PAGES_MAX.max(pages.len()), db_pages);
        view.fill(pages.iter().map(|(pgid, page)| (*pgid, page.clone())).collect());
        let start = Position::start_of(position.journal);
        let record = RoomRecord::of(doctype.clone());
        let mut document = Document::new(view, position, record, start);
        let migrated = ran(document.authority.migrate(&doctype)).map_err(invalid_migration)?;
        document.moved_on();

        self.commit();
        self.outbox.record(document.record.encode());
        self.outbox.begin_storage(position.journal);
        if !range.is_empty() {
            let set = PageSet { db_pages, pages };
            self.outbox.entry(StorageEntry { range, position, calls: Vec::new(), set }, None);
        }
        if let Some(entry) = migrated {
            self.outbox.entry(entry, None);
        }
        self.state = State::Open(Box::new(document));
        Ok(())
    }
}

fn broken_protocol(reason: &str) -> Halt {
    Halt::Refuse(Refusal::Protocol { reason: reason.to_owned() })
}
