//! A server of one document that keeps everything in memory and decides with the real authority.

use std::collections::BTreeMap;

use tidelog_document::{Applied, Authority, Doctype, DoctypeHash, Mutation};
use tidelog_pages::StorageEntry;
use tidelog_sqlite::View;
use tidelog_sync::{EntryPart, FromServer, Intent, Origin, Refusal, ToServer, codec};
use tidelog_types::{JournalId, Lsn, PageSet, Pgid, Position};

use super::Device;

pub struct Server {
    pub document: Option<Authority>,
    doctypes: BTreeMap<DoctypeHash, Doctype>,
    entries: Vec<(StorageEntry, Option<Origin>)>,
    guests: BTreeMap<usize, Guest>,
    seed: PageSet,
    journal: u8,
    /// It refuses its document.
    pub is_damaged: bool,
}

struct Guest {
    channel: u32,
    timeline: JournalId,
    /// The entry that it is sent next.
    next: Lsn,
}

impl Server {
    pub fn new() -> Self {
        Self {
            document: None,
            doctypes: BTreeMap::new(),
            entries: Vec::new(),
            guests: BTreeMap::new(),
            seed: PageSet::default(),
            journal: 1,
            is_damaged: false,
        }
    }

    /// Loses everything; the next document is another one.
    pub fn lose_document(&mut self) {
        *self = Self { journal: self.journal + 1, ..Self::new() };
    }

    /// Makes the document, as for a client that follows it first.
    pub fn create(&mut self, doctype: &Doctype) {
        let position = Position::start_of(JournalId([self.journal; 16]));
        let mut authority = Authority::new(View::new(usize::MAX, 0), position);
        let entry = authority.migrate(doctype).unwrap().expect("it was empty");
        self.entries.push((entry, None));
        self.doctypes.insert(doctype.hash(), doctype.clone());
        self.document = Some(authority);
    }

    /// Answers one message of a device.
    pub fn hear(&mut self, device: usize, message: ToServer) -> Vec<FromServer> {
        match message {
            ToServer::Hello { .. } => vec![FromServer::Welcome],
            ToServer::Ping => vec![FromServer::Pong],
            ToServer::Open { channel, doctype, timeline, have, intent, .. } => {
                let doctype: Doctype = codec::decode(&doctype).expect("a doctype");
                self.doctypes.insert(doctype.hash(), doctype.clone());
                self.open(device, channel, &doctype, timeline, have, intent)
            }
            ToServer::Frames { channel, first, frames } => {
                let timeline = self.guests[&device].timeline;
                let mut lsn = first;
                for frame in frames {
                    self.take(timeline, lsn, &frame.body);
                    lsn = lsn.next();
                }
                vec![FromServer::Acked { channel, next: lsn }]
            }
            ToServer::Seed { channel, position, db_pages, pages, last } => {
                self.seed.db_pages = db_pages;
                self.seed.pages.extend(pages);
                match last {
                    true => self.seeded(device, channel, position),
                    false => Vec::new(),
                }
            }
            ToServer::Probe { channel, request } => {
                let next = self.position().next;
                vec![FromServer::Probed { channel, request, next }]
            }
            ToServer::Received { .. } => Vec::new(),
            ToServer::Close { .. } => {
                self.guests.remove(&device);
                Vec::new()
            }
        }
    }

    pub fn position(&self) -> Position {
        self.document.as_ref().expect("a document").position()
    }

    fn open(
        &mut self,
        device: usize,
        channel: u32,
        doctype: &Doctype,
        timeline: JournalId,
        have: Option<Position>,
        intent: Intent,
    ) -> Vec<FromServer> {
        let refused = |refusal| vec![FromServer::Refused { channel, refusal }];
        if self.is_damaged {
            return refused(Refusal::Damaged);
        }
        match (&mut self.document, intent, have) {
            (None, Intent::Offer, _) => return vec![FromServer::SeedWanted { channel }],
            (None, Intent::Follow, Some(_)) => return refused(Refusal::Missing),
            (None, Intent::Follow, None) => self.create(doctype),
            (Some(_), Intent::Offer, _) => return refused(Refusal::Exists),
            (Some(authority), Intent::Follow, _) => {
                if let Some(entry) = authority.migrate(doctype).unwrap() {
                    self.entries.push((entry, None));
                }
            }
        }
        self.welcome(device, channel, timeline, have)
    }

    fn welcome(
        &mut self,
        device: usize,
        channel: u32,
        timeline: JournalId,
        have: Option<Position>,
    ) -> Vec<FromServer> {
        let storage = self.position();
        let have = have.filter(|have| have.journal == storage.journal);
        let next = have.map_or(Lsn::FIRST, |have| have.next);
        self.guests.insert(device, Guest { channel, timeline, next });
        let wanted = self.document.as_mut().expect("a document").wanted(timeline).unwrap();
        vec![FromServer::Opened { channel, storage, wanted }]
    }

    fn seeded(&mut self, device: usize, channel: u32, position: Position) -> Vec<FromServer> {
        let seed = std::mem::take(&mut self.seed);
        let view = View::new(usize::MAX, seed.db_pages);
        view.fill(seed.pages.into_iter().collect::<Vec<(Pgid, _)>>());
        self.document = Some(Authority::new(view, position));
        let mut answers = vec![FromServer::Seeded { channel }];
        answers.extend(self.welcome(device, channel, JournalId([0; 16]), Some(position)));
        answers
    }

    fn take(&mut self, timeline: JournalId, lsn: Lsn, body: &[u8]) {
        let authority = self.document.as_mut().expect("a document");
        if lsn < authority.wanted(timeline).unwrap() {
            return;
        }
        let mutation = Mutation::decode(body).expect("a mutation");
        let origin = Origin { timeline, lsn };
        let doctype = &self.doctypes[&mutation.doctype];
        let Applied { entry, .. } = authority.apply(origin, &mutation, doctype).unwrap();
        self.entries.push((entry, Some(origin)));
    }

    /// The entries that a device lacks.
    pub fn news(&mut self, device: usize) -> Vec<FromServer> {
        let Some(guest) = self.guests.get_mut(&device) else { return Vec::new() };
        let channel = guest.channel;
        let lacking = self.entries.iter().filter(|(entry, _)| entry.range.start() >= guest.next);
        let news: Vec<FromServer> = lacking
            .map(|(entry, origin)| {
                let part = EntryPart {
                    range: entry.range,
                    position: entry.position,
                    db_pages: entry.set.db_pages,
                    origin: *origin,
                    pages: entry.set.pages.clone().into_iter().collect(),
                    last: true,
                };
                FromServer::Entry { channel, part }
            })
            .collect();
        guest.next = self.entries.last().map_or(guest.next, |(entry, _)| entry.range.end());
        news
    }

    pub fn forget(&mut self, device: usize) {
        self.guests.remove(&device);
    }

    pub fn image(&self) -> Vec<u8> {
        self.document.as_ref().expect("a document").view().image().expect("all is in memory")
    }
}

/// Carries messages both ways until there are none.
pub fn talk(server: &mut Server, devices: &mut [&mut Device]) {
    loop {
        let mut quiet = true;
        for device in devices.iter_mut() {
            let number = device.number;
            for message in device.take_sent() {
                quiet = false;
                for answer in server.hear(number, message) {
                    device.hear_server(&answer);
                }
            }
            if device.socket.is_none() {
                server.forget(number);
                continue;
            }
            for news in server.news(number) {
                quiet = false;
                device.hear_server(&news);
            }
        }
        if quiet {
            break;
        }
    }
}
