//! How a client gets into a room: document, doctype and positions are compared.

use tidelog_document::{
    AppliedTimeline, Committed, Doctype, DoctypeError, DoctypeHash, check, client_of,
};
use tidelog_sync::{FromRoom, Intent, OpenDoctype, Refusal, codec};
use tidelog_types::limits::{DOCTYPE_SIZE_MAX, OFFER_LIVES_MAX};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{DocumentKey, Life, Lsn, Position, shortened};

use super::caution::{Caution, Suspect, cautiously};
use super::document::{Document, Offered};
use super::outbox::After;
use super::record::RoomRecord;
use super::subscriber::{ChannelId, OpenRequest, Seed, Subscriber, SubscriberId};
use super::{FailedMigration, Halt, May, Room, State, Work, ran};

/// Bytes of the offers that wait at most: a few, since a doctype has some kilobytes.
const OFFERS_SIZE_MAX: usize = 64 * 1024;

/// Why a document takes no more doctypes.
pub(super) const TOO_MANY_DOCTYPES: &str = "the document has as many doctypes as it may";

impl Room {
    /// Can be begun again at any point: each step finds out whether it was taken before.
    pub(super) fn open(&mut self, channel_id: ChannelId, open: &OpenRequest) -> Result<(), Halt> {
        let (hash, whole) = match &open.doctype {
            OpenDoctype::Named(hash) => (DoctypeHash(*hash), None),
            OpenDoctype::Whole(bytes) => {
                let doctype = decode_doctype(bytes)?;
                (doctype.hash(), Some(doctype))
            }
        };
        if let Intent::Offer { lives } = &open.intent
            && lives.lives().count() > OFFER_LIVES_MAX
        {
            let reason = format!("a document by more than {OFFER_LIVES_MAX} lives");
            return Err(Halt::Refuse(Refusal::Protocol { reason }));
        }
        if matches!(open.intent, Intent::Offer { .. }) && open.may < May::Create {
            return Err(no_access("the token does not allow to hand it over"));
        }
        self.check_damage(open, hash)?;
        if matches!(self.state, State::Absent) {
            match (&open.intent, open.have) {
                (Intent::Offer { .. }, _) => {
                    return self.want_seed(channel_id, open);
                }
                (Intent::Follow, Some(_)) => {
                    reached(Probe::DocumentMissing);
                    return Err(Halt::Refuse(Refusal::Missing));
                }
                (Intent::Follow, None) if open.may < May::Create => {
                    return Err(no_access(
                        "it is not there, and the token does not allow to begin it",
                    ));
                }
                (Intent::Follow, None) => self.create(whole.as_ref().ok_or_else(wanted)?)?,
            }
        } else if let (Intent::Offer { lives }, State::Open(document)) = (&open.intent, &self.state)
        {
            let client = client_of(open.secret);
            match open.have.map(|have| document.compare_offer(client, &have, lives)) {
                Some(Offered::Held) => reached(Probe::OfferHeld),
                Some(Offered::Beyond) => {
                    reached(Probe::OfferBeyond);
                    return self.want_seed(channel_id, open);
                }
                Some(Offered::Other) | None => {
                    reached(Probe::OfferRefused);
                    return Err(Halt::Refuse(Refusal::Exists));
                }
            }
        }
        let is_known = |document: &Document| document.record.find(hash).is_some();
        if !matches!(&self.state, State::Open(document) if is_known(document)) {
            self.admit(whole.ok_or_else(wanted)?, open.may)?;
        }
        self.welcome(channel_id, open)
    }

    /// A damaged store is only read. A document of which something may be lost is not served at
    /// all: a client could be sent pages that are older than what was confirmed to it. Nor is one
    /// called missing whose name may be what was lost.
    fn check_damage(&self, open: &OpenRequest, doctype: DoctypeHash) -> Result<(), Halt> {
        if !self.settings.is_damaged {
            return Ok(());
        }
        let State::Open(document) = &self.state else {
            return Err(Halt::Refuse(Refusal::Damaged));
        };
        let is_known = document.record.find(doctype).is_some();
        if document.is_incomplete || !is_known || open.intent != Intent::Follow {
            return Err(Halt::Refuse(Refusal::Damaged));
        }
        Ok(())
    }

    /// One offer at a time: whoever comes second is answered when it is known what became of the
    /// first.
    fn want_seed(&mut self, channel_id: ChannelId, open: &OpenRequest) -> Result<(), Halt> {
        if self.seeding.is_some() && self.seeding == self.subscriber_at(channel_id) {
            // Whoever begins anew is behind those who wait, whose offers come next in the queue.
            let waiting_count = self.offers.len();
            self.vacate(channel_id);
            if waiting_count > 0 {
                self.queue.insert(waiting_count, Work::Open(channel_id, open.clone()));
                return Ok(());
            }
        }
        if self.seeding.is_some() {
            reached(Probe::OfferWaited);
            return self.let_wait(channel_id, open);
        }
        let OpenDoctype::Whole(doctype) = &open.doctype else { return Err(wanted()) };
        let id = self.subscribe(channel_id, open);
        self.seeding = Some(id);
        if let (Some(subscriber), Intent::Offer { lives }) =
            (self.subscribers.get_mut(&id), &open.intent)
        {
            subscriber.seed = Some(Box::new(Seed::new(doctype.clone(), lives.clone())));
        }
        // Not before what was said on this channel, nor of what may still be there.
        self.outbox.after(After::Tell(id, FromRoom::SeedWanted));
        Ok(())
    }

    /// Remembers an offer until it is known what became of the one before it. What waits is
    /// bounded, since nothing else holds up its clients meanwhile.
    fn let_wait(&mut self, channel_id: ChannelId, open: &OpenRequest) -> Result<(), Halt> {
        self.offers.retain(|(waiting, _)| *waiting != channel_id);
        self.offers.push_back((channel_id, open.clone()));
        let sizes = self.offers.iter().map(|(_, open)| open.size());
        if sizes.sum::<usize>() <= OFFERS_SIZE_MAX {
            return Ok(());
        }
        let reason = "others are handing over a document of that name".to_owned();
        Err(Halt::Refuse(Refusal::Storage { reason }))
    }

    fn create(&mut self, doctype: &Doctype) -> Result<(), Halt> {
        self.check_new(doctype, &RoomRecord::default())?;
        let start = Position::start_of(self.next_journal_id());
        let view = self.new_view(0);
        let record = RoomRecord::of(doctype.clone());
        let mut document = Document::new(view, start, record, start, self.life);
        let migrated = document.migrate(&self.document, doctype, &*self.caution)?;
        self.commit();
        self.outbox.record(document.record.encode());
        self.outbox.begin_storage(start.journal);
        if let Some(committed) = migrated {
            self.outbox.entry(committed, None, None);
        }
        self.forget_tasks();
        self.state = State::Open(Box::new(document));
        Ok(())
    }

    /// A doctype that nobody has brought here before, and that could be used beside the others.
    pub(super) fn check_new(&self, doctype: &Doctype, known: &RoomRecord) -> Result<(), Halt> {
        if !self.settings.doctypes.takes(doctype.hash()) {
            let reason = format!("doctype {} is not deployed on this server", doctype.name);
            return Err(Halt::Refuse(Refusal::DoctypeMismatch { reason }));
        }
        if !known.has_room_for(doctype) {
            let reason = TOO_MANY_DOCTYPES.to_owned();
            return Err(Halt::Refuse(Refusal::DoctypeMismatch { reason }));
        }
        let check = || check(doctype, &self.new_view(0), &self.settings.found_right);
        try_migrations(&*self.caution, &self.document, doctype, check)?.map_err(unusable_doctype)
    }

    /// Registers a doctype that the document does not know, and migrates. For one who may only
    /// follow it does neither: who is ahead migrates its own copy.
    pub(super) fn admit(&mut self, doctype: Doctype, may: May) -> Result<(), Halt> {
        let State::Open(document) = &self.state else {
            unreachable!("BUG: no document to admit to")
        };
        let newest = document.record.newest();
        let is_newer = newest.as_ref().is_none_or(|newest| doctype.succeeds(newest));
        if let Some(reason) = newest.and_then(|newest| doctype.parting_from(&newest)) {
            return Err(Halt::Refuse(Refusal::DoctypeMismatch { reason }));
        }
        if may < May::Write {
            return Ok(());
        }
        self.check_new(&doctype, &document.record)?;
        let State::Open(document) = &mut self.state else { unreachable!("BUG: it was open") };
        if is_newer {
            reached(Probe::DoctypeAdmitted);
            let migrated = document.migrate(&self.document, &doctype, &*self.caution);
            if let Err(Halt::Refuse(Refusal::DoctypeInvalid { reason })) = &migrated {
                let (hash, name, reason) =
                    (doctype.hash(), doctype.name, shortened(reason.clone()));
                self.failed_migrations.push(FailedMigration { doctype: hash, name, reason });
                return migrated.map(drop);
            }
            let committed = migrated?;
            if let Some(committed) = committed {
                self.outbox.entry(committed, None, None);
            }
            document.record.add_newest(doctype);
        } else {
            document.record.add_older(doctype);
        }
        self.outbox.record(document.record.encode());
        Ok(())
    }

    pub(super) fn welcome(
        &mut self,
        channel_id: ChannelId,
        open: &OpenRequest,
    ) -> Result<(), Halt> {
        let State::Open(document) = &mut self.state else {
            unreachable!("BUG: no document to be welcome to")
        };
        let storage = document.authority.position();
        let seeded = document.record.seeded.map(|seeded| seeded.position);
        // Of what is offered it is known by now.
        let is_offered = open.intent != Intent::Follow;
        let held = open.have.filter(|have| is_offered || document.has(have));
        let from = held.map_or(Lsn::FIRST, |held| held.next);
        if held.is_none() && open.have.is_some() {
            reached(Probe::HeldIsLost);
        }
        // What is left may be older than what its client was told.
        if self.settings.is_damaged && held.is_none() && open.have.is_some() {
            return Err(Halt::Refuse(Refusal::Damaged));
        }
        // Kept until whoever is served goes: so it is read of nobody else.
        let AppliedTimeline { wanted, lives, .. } = document.served(open.timeline)?.clone();
        let subscriber = self.subscribe(channel_id, open);
        if let (true, Some(held)) = (is_offered, held) {
            let position = match seeded {
                Some(seeded) if held.next == seeded.next => seeded,
                // Its chain is that of entries which are not here: nothing can follow on it, and
                // its client asks for the whole document.
                Some(seeded) if held.next < seeded.next => Position { life: Life::NONE, ..held },
                _ => held,
            };
            self.outbox.after(After::Tell(subscriber, FromRoom::Seeded { position }));
        }
        let opened = FromRoom::Opened { storage, from, wanted, lives };
        self.outbox.after(After::Follow { subscriber, from, opened });
        Ok(())
    }

    /// Puts the client on its channel; who was there before is gone. Who was present stays so: it
    /// may only bring another doctype.
    pub(super) fn subscribe(&mut self, channel_id: ChannelId, open: &OpenRequest) -> SubscriberId {
        self.unseat(channel_id);
        self.subscribers_ever += 1;
        let id = SubscriberId(self.subscribers_ever);
        let subscriber = Subscriber::new(channel_id, open, &self.settings.limits);
        self.subscribers.insert(id, subscriber);
        self.channels.insert(channel_id, id);
        id
    }
}

fn wanted() -> Halt {
    Halt::Refuse(Refusal::DoctypeWanted)
}

fn no_access(reason: &str) -> Halt {
    Halt::Refuse(Refusal::Access { reason: reason.to_owned() })
}

pub(super) fn decode_doctype(bytes: &[u8]) -> Result<Doctype, Halt> {
    let invalid = |reason: String| Halt::Refuse(Refusal::DoctypeInvalid { reason });
    if bytes.len() > DOCTYPE_SIZE_MAX {
        return Err(invalid(format!("it has more than {DOCTYPE_SIZE_MAX} bytes")));
    }
    codec::decode_untrusted(bytes).map_err(|error| invalid(error.to_string()))
}

impl Document {
    /// Brings the document to the doctype's version, if it is not there or beyond.
    pub(super) fn migrate(
        &mut self,
        key: &DocumentKey,
        doctype: &Doctype,
        caution: &dyn Caution,
    ) -> Result<Option<Committed>, Halt> {
        let run = || self.authority.migrate(doctype);
        let run = try_migrations(caution, key, doctype, run)?;
        let migrated = ran(run).map_err(invalid_migration)?;
        self.moved_on(None);
        Ok(migrated)
    }
}

/// Does what runs the migrations of a doctype, be it to look at them: a server may die of them.
pub(super) fn try_migrations<T>(
    caution: &dyn Caution,
    key: &DocumentKey,
    doctype: &Doctype,
    run: impl FnMut() -> T,
) -> Result<T, Halt> {
    cautiously(caution, || Suspect::migrations(key, doctype), run).ok_or_else(|| {
        let reason = "the server crashed each time it ran its migrations".to_owned();
        Halt::Refuse(Refusal::DoctypeInvalid { reason })
    })
}

/// A doctype that cannot be used is its client's fault, unless this host cannot tell.
pub(super) fn unusable_doctype(error: DoctypeError) -> Halt {
    match error {
        DoctypeError::Unchecked { failure, .. } => Halt::Failed(failure),
        flawed => Halt::Refuse(Refusal::DoctypeInvalid { reason: flawed.to_string() }),
    }
}

/// A migration that fails is the doctype's fault, whoever finds out.
pub(super) fn invalid_migration(halt: Halt) -> Halt {
    match halt {
        Halt::Failed(failure) if !failure.is_passing() => {
            let reason = format!("its migrations do not run: {failure}");
            Halt::Refuse(Refusal::DoctypeInvalid { reason })
        }
        other => other,
    }
}
