//! How a client gets into a room: document, doctype and positions are compared.

use tidelog_document::{Doctype, DoctypeError, check};
use tidelog_pages::StorageEntry;
use tidelog_sqlite::View;
use tidelog_sync::{FromServer, Intent, Refusal, codec};
use tidelog_types::limits::{DOCTYPE_SIZE_MAX, POOL_PAGES_MAX};
use tidelog_types::{Chain, Lsn, LsnRange, PageSet, Pgid, Position};

use super::document::Document;
use super::guest::{Guest, GuestId, Seat, Seed, Wish};
use super::outbox::After;
use super::record::RoomRecord;
use super::{Halt, Room, RoomEffect, State, ran};

impl Room {
    /// Can be begun again at any point: each step finds out whether it was taken before.
    pub(super) fn open(&mut self, seat: Seat, wish: &Wish) -> Result<(), Halt> {
        let doctype = decode_doctype(&wish.doctype)?;
        self.check_damage(wish, &doctype)?;
        if matches!(self.state, State::Absent) {
            match (wish.intent, wish.have) {
                (Intent::Offer, _) => {
                    self.want_seed(seat, wish, doctype);
                    return Ok(());
                }
                (Intent::Follow, Some(_)) => return Err(Halt::Refuse(Refusal::Missing)),
                (Intent::Follow, None) => self.create(&doctype)?,
            }
        } else if wish.intent == Intent::Offer && !self.is_same_journal(wish.have) {
            return Err(Halt::Refuse(Refusal::Exists));
        }
        self.admit(doctype)?;
        self.compare(wish.have)?;
        self.welcome(seat, wish)
    }

    /// A damaged store is only read. A document of which something may be lost is not served at
    /// all: a client could be sent pages that are older than what was confirmed to it. Nor is one
    /// called missing whose name may be what was lost.
    fn check_damage(&self, wish: &Wish, doctype: &Doctype) -> Result<(), Halt> {
        if !self.settings.is_damaged {
            return Ok(());
        }
        let State::Open(document) = &self.state else {
            return Err(Halt::Refuse(Refusal::Damaged));
        };
        let is_known = document.record.find(doctype.hash()).is_some();
        if document.is_incomplete || !is_known || wish.intent == Intent::Offer {
            return Err(Halt::Refuse(Refusal::Damaged));
        }
        Ok(())
    }

    fn is_same_journal(&self, have: Option<Position>) -> bool {
        let State::Open(document) = &self.state else { return false };
        have.is_some_and(|have| have.journal == document.authority.position().journal)
    }

    fn want_seed(&mut self, seat: Seat, wish: &Wish, doctype: Doctype) {
        let id = self.seat(seat, wish);
        if let Some(guest) = self.guests.get_mut(&id) {
            guest.seed = Some(Seed {
                doctype,
                position: None,
                db_pages: 0,
                pages: std::collections::BTreeMap::new(),
            });
        }
        let message = FromServer::SeedWanted { channel: seat.channel };
        self.effects.push(RoomEffect::Send { conn: seat.conn, message });
    }

    fn create(&mut self, doctype: &Doctype) -> Result<(), Halt> {
        self.check_new(doctype)?;
        let start = Position::start_of(self.next_journal_id());
        let view = View::new(POOL_PAGES_MAX, 0);
        let record = RoomRecord::of(doctype.clone());
        let mut document = Document::new(view, start, record, start);
        let migrated = ran(document.authority.migrate(doctype)).map_err(invalid_migration)?;
        document.moved_on();
        self.commit();
        self.outbox.record(document.record.encode());
        self.outbox.begin_storage(start.journal);
        if let Some(entry) = migrated {
            self.outbox.entry(entry, None);
        }
        self.state = State::Open(Box::new(document));
        Ok(())
    }

    /// A doctype that nobody has brought here before, and that could be used.
    pub(super) fn check_new(&self, doctype: &Doctype) -> Result<(), Halt> {
        if !self.settings.dev {
            let reason = format!("doctype {} is not deployed on this server", doctype.name);
            return Err(Halt::Refuse(Refusal::DoctypeMismatch { reason }));
        }
        check(doctype).map_err(|error: DoctypeError| {
            Halt::Refuse(Refusal::DoctypeInvalid { reason: error.to_string() })
        })
    }

    /// Finds the doctype among those of the document, or registers it and migrates.
    pub(super) fn admit(&mut self, doctype: Doctype) -> Result<(), Halt> {
        let State::Open(document) = &self.state else {
            unreachable!("BUG: no document to admit to")
        };
        if document.record.find(doctype.hash()).is_some() {
            return Ok(());
        }
        let newest = document.record.newest();
        let is_newer = newest.as_ref().is_none_or(|newest| doctype.succeeds(newest));
        let is_older = newest.as_ref().is_some_and(|newest| newest.succeeds(&doctype));
        if !is_newer && !is_older {
            let reason = format!(
                "the document is of doctype {}, and neither that nor doctype {} succeeds the other",
                newest.map_or_else(String::new, |it| it.name.clone()),
                doctype.name,
            );
            return Err(Halt::Refuse(Refusal::DoctypeMismatch { reason }));
        }
        self.check_new(&doctype)?;
        let State::Open(document) = &mut self.state else { unreachable!("BUG: it was open") };
        if is_newer {
            let entry = ran(document.authority.migrate(&doctype)).map_err(invalid_migration)?;
            document.moved_on();
            if let Some(entry) = entry {
                self.outbox.entry(entry, None);
            }
            document.record.add_newest(doctype);
        } else {
            document.record.add_older(doctype);
        }
        self.outbox.record(document.record.encode());
        Ok(())
    }

    /// A client that holds what we never had shows that we lost some: our folder was restored
    /// from a backup. From then on the journal is another one.
    fn compare(&mut self, have: Option<Position>) -> Result<(), Halt> {
        let State::Open(document) = &self.state else { return Ok(()) };
        let head = document.authority.position();
        let Some(have) = have.filter(|have| have.journal == head.journal) else {
            return Ok(());
        };
        let diverged = document.recent.get(&have.next).is_some_and(|chain| *chain != have.chain);
        if have.next > head.next || diverged {
            if self.settings.is_damaged {
                return Err(Halt::Refuse(Refusal::Damaged));
            }
            self.begin_other_journal()?;
        }
        Ok(())
    }

    fn begin_other_journal(&mut self) -> Result<(), Halt> {
        let State::Open(document) = &self.state else { return Ok(()) };
        document.need_all_pages()?;
        let view = document.authority.view().clone();
        let head = document.authority.position().next;
        let record = document.record.clone();
        let journal = self.next_journal_id();
        self.commit();

        let start = Position::start_of(journal);
        let range = LsnRange::new(Lsn::FIRST, head);
        let set = all_pages(&view);
        let mut position = start;
        if !range.is_empty() {
            let chain = tidelog_document::chain_of(Chain::default(), range, &set);
            position = Position { journal, next: head, chain };
        }
        self.outbox.begin_storage(journal);
        if !range.is_empty() {
            self.outbox.entry(StorageEntry { range, position, calls: Vec::new(), set }, None);
        }
        self.state = State::Open(Box::new(Document::new(view, position, record, start)));
        self.catch_ups.clear();
        // The others hold the old journal: they must compare anew.
        for guest in std::mem::take(&mut self.guests).into_values() {
            self.effects.push(RoomEffect::Disconnect { conn: guest.seat.conn });
        }
        Ok(())
    }

    pub(super) fn welcome(&mut self, seat: Seat, wish: &Wish) -> Result<(), Halt> {
        let State::Open(document) = &mut self.state else {
            unreachable!("BUG: no document to be welcome to")
        };
        let wanted = document.wanted(wish.timeline)?;
        let storage = document.authority.position();
        let same = wish.have.filter(|have| have.journal == storage.journal);
        let from = same.map_or(Lsn::FIRST, |have| have.next);
        let guest = self.seat(seat, wish);
        if wish.intent == Intent::Offer {
            let message = FromServer::Seeded { channel: seat.channel };
            self.outbox.after(After::Tell(guest, message));
        }
        self.outbox.after(After::Follow { guest, storage, wanted, from });
        Ok(())
    }

    /// Gives the client its seat; who sat there before is gone.
    fn seat(&mut self, seat: Seat, wish: &Wish) -> GuestId {
        self.guests.retain(|_, guest| guest.seat != seat);
        self.guests_ever += 1;
        let id = GuestId(self.guests_ever);
        self.guests.insert(id, Guest::new(seat, wish.timeline));
        id
    }
}

fn decode_doctype(bytes: &[u8]) -> Result<Doctype, Halt> {
    let invalid = |reason: String| Halt::Refuse(Refusal::DoctypeInvalid { reason });
    if bytes.len() > DOCTYPE_SIZE_MAX {
        return Err(invalid(format!("it has more than {DOCTYPE_SIZE_MAX} bytes")));
    }
    codec::decode(bytes).map_err(|error| invalid(error.to_string()))
}

/// A migration that fails is the doctype's fault, whoever finds out.
pub(super) fn invalid_migration(halt: Halt) -> Halt {
    match halt {
        Halt::Failed(failure) => {
            let reason = format!("its migrations do not run: {failure}");
            Halt::Refuse(Refusal::DoctypeInvalid { reason })
        }
        other => other,
    }
}

fn all_pages(view: &View) -> PageSet {
    let db_pages = view.base_db_pages();
    let page = |number| {
        let page = view.base_page(Pgid(number)).expect("BUG: no page is missing");
        (Pgid(number), page)
    };
    PageSet { db_pages, pages: (1..=db_pages).map(page).collect() }
}
