//! A server of one document that keeps everything in memory and decides with the real authority,
//! and devices on their way to it and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidelog_client::Connection;
use tidelog_document::{
    Applied, AppliedTimeline, ArchivePart, ArchivedEvents, Authority, Change, Changed, CommandRef,
    Committed, Completion, Doctype, DoctypeHash, FoundEvents, Handlers, InArchive, InstanceId,
    Intervened, Intervention, Mutation, StreamRef, TaskKind, WantedEvents, archive_doctype,
    chain_of, client_of, find_archivable, find_events, hash_of, is_reserved, public_entry,
    public_life,
};
use tidelog_pages::StorageEntry;
use tidelog_sqlite::View;
use tidelog_sync::{
    ArchiveAnswer, ArchiveQuestion, Channel, CodedPage, CompletionAnswer, EntryPart, FromRoom,
    FromServer, Intent, OpenDoctype, PresenceWord, Refusal, ToRoom, ToServer, UndecidedReason,
    WireFrame, codec,
};
use tidelog_types::limits::Limits;
use tidelog_types::{
    Chain, CopySecret, EntryId, JournalId, Life, Lineage, Lsn, LsnRange, PageSet, Pgid, Position,
    Role,
};

use super::{Device, SERVER, TAB, todos};

pub struct Server {
    pub document: Option<Authority>,
    /// What has left it.
    pub archive: Option<Authority>,
    doctypes: BTreeMap<DoctypeHash, Doctype>,
    entries: Vec<Made>,
    subscribers: BTreeMap<usize, Subscriber>,
    seed: PageSet,
    journal: u8,
    /// The number of its present life.
    lives: u8,
    /// It refuses its document.
    pub is_damaged: bool,
    /// Why its document takes no verdict.
    pub no_verdict: Option<UndecidedReason>,
    /// How often devices have asked for the document.
    pub opens: usize,
    /// What each device has said that only it and we know.
    secret_of: BTreeMap<usize, CopySecret>,
    /// Whose tokens devices show; `None` as long as it asks for none.
    pub subject: Option<String>,
    /// Devices that may only read it.
    pub readers: BTreeSet<usize>,
    /// The devices of those that may send, and not write otherwise.
    pub senders: BTreeSet<usize>,
    /// What devices have said of who is present.
    pub presence_words: Vec<PresenceWord>,
    /// Who handles commands: which device, by which of its numbers.
    pub handlers: Handlers<(usize, u32)>,
    /// Its clock.
    pub now_ms: u64,
}

struct Subscriber {
    channel: Channel,
    timeline: JournalId,
    /// The entry that it is sent next.
    next: Lsn,
    /// What was here as it came is read for it.
    came_at: Lsn,
}

/// An entry, and the device that has predicted it.
struct Made {
    committed: Committed,
    origin: Option<EntryId>,
    predicted_by: Option<usize>,
}

impl Made {
    /// Of no frame.
    fn by_itself(committed: Committed) -> Self {
        Self { committed, origin: None, predicted_by: None }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            document: None,
            archive: None,
            doctypes: BTreeMap::new(),
            entries: Vec::new(),
            subscribers: BTreeMap::new(),
            seed: PageSet::default(),
            journal: 1,
            lives: 77,
            is_damaged: false,
            no_verdict: None,
            opens: 0,
            secret_of: BTreeMap::new(),
            subject: None,
            readers: BTreeSet::new(),
            senders: BTreeSet::new(),
            presence_words: Vec::new(),
            handlers: Handlers::default(),
            now_ms: 1_000_000,
        }
    }
}

impl Server {
    /// Loses everything; the next document is another one.
    pub fn lose_document(&mut self) {
        *self = Self { journal: self.journal + 1, ..Self::default() };
    }

    /// Is put back to what it had before an LSN, and goes on as another life.
    pub fn restore(&mut self, next: Lsn) {
        self.entries.retain(|it| it.committed.entry.range.end() <= next);
        let mut set = PageSet::default();
        self.entries.iter().for_each(|it| set.absorb(&it.committed.entry.set));
        let view = View::new(usize::MAX, set.db_pages);
        view.fill(set.pages.into_iter().collect::<Vec<(Pgid, _)>>());
        let old = self.document.take().expect("a document");
        let lives = old.lives().clone().before(next);
        let position = self.entries.last().expect("a document").committed.entry.position;
        self.lives += 1;
        let mut document = Authority::new(view, position, lives, Life([self.lives; 16]));
        self.handlers = Handlers::of(document.work().unwrap(), self.now_ms);
        self.document = Some(document);
        self.subscribers.clear();
    }

    /// The channel by which a device follows.
    #[must_use]
    pub fn channel_of(&self, device: usize) -> Channel {
        self.subscribers[&device].channel
    }

    /// Whether it was brought this doctype.
    #[must_use]
    pub fn knows(&self, doctype: &Doctype) -> bool {
        self.doctypes.contains_key(&doctype.hash())
    }

    /// Makes the document, as for a client that follows it first.
    pub fn create(&mut self, doctype: &Doctype) {
        let position = Position::start_of(JournalId([self.journal; 16]));
        let mut authority = Authority::new(
            View::new(usize::MAX, 0),
            position,
            Lineage::default(),
            Life([self.lives; 16]),
        );
        let entry = authority.migrate(doctype).unwrap().expect("it was empty");
        self.entries.push(Made::by_itself(entry));
        self.doctypes.insert(doctype.hash(), doctype.clone());
        self.document = Some(authority);
    }

    /// Answers one message of a device.
    pub fn hear(&mut self, device: usize, message: ToServer) -> Vec<FromServer> {
        match message {
            ToServer::Hello { .. } => {
                // Whatever channels it had are gone with the connection before.
                self.forget(device);
                let admitted = self.subject.clone().map(|subject| {
                    let seconds_left = 1_000_000;
                    FromServer::Admitted { subject, seconds_left }
                });
                admitted.into_iter().chain([FromServer::Welcome]).collect()
            }
            ToServer::Renew { .. } => vec![FromServer::NotRenewed],
            ToServer::Ping => vec![FromServer::Pong],
            ToServer::About { channel, body } => {
                let answers = self.hear_of(device, channel, body);
                answers.into_iter().map(|body| FromServer::About { channel, body }).collect()
            }
        }
    }

    fn hear_of(&mut self, device: usize, channel: Channel, message: ToRoom) -> Vec<FromRoom> {
        match message {
            ToRoom::Open { doctype, timeline, secret, have, intent, .. } => {
                let doctype: Doctype = match doctype {
                    OpenDoctype::Named(hash) => match self.doctypes.get(&DoctypeHash(hash)) {
                        Some(known) => known.clone(),
                        None => return vec![FromRoom::Refused(Refusal::DoctypeWanted)],
                    },
                    OpenDoctype::Whole(bytes) => codec::decode(&bytes).expect("a doctype"),
                };
                self.opens += 1;
                self.secret_of.insert(device, secret);
                let goes_with =
                    |known: &Doctype| doctype.succeeds(known) || known.succeeds(&doctype);
                if !self.doctypes.values().all(goes_with) {
                    let reason = "neither succeeds the other".to_owned();
                    return vec![FromRoom::Refused(Refusal::DoctypeMismatch { reason })];
                }
                self.doctypes.insert(doctype.hash(), doctype.clone());
                let role = self.role_of(device);
                let allowed = self.subject.is_some().then_some(FromRoom::Allowed { role });
                let answers = self.open(device, channel, &doctype, timeline, have, &intent);
                allowed.into_iter().chain(answers).collect()
            }
            ToRoom::Frames { life, first, frames } => {
                if let Some(why) = self.no_verdict.clone() {
                    return vec![FromRoom::Undecided { lsn: first, why }];
                }
                let timeline = self.subscribers[&device].timeline;
                if self.readers.contains(&device) {
                    let document = self.document.as_mut().expect("a document");
                    let AppliedTimeline { wanted, .. } = document.applied(timeline).unwrap();
                    return vec![FromRoom::Forbidden { lsn: wanted }];
                }
                let mut lsn = first;
                for frame in frames {
                    let origin = EntryId { journal: timeline, life, lsn };
                    let mutation = Mutation::decode(&frame.body).expect("a mutation");
                    if self.senders.contains(&device) && !is_reserved(&mutation.name) {
                        return vec![FromRoom::Acked { next: lsn }, FromRoom::Forbidden { lsn }];
                    }
                    if !self.take(device, origin, &frame) {
                        self.subscribers.remove(&device);
                        return vec![FromRoom::Refused(Refusal::Parted)];
                    }
                    lsn = lsn.next();
                }
                // All that there is of the timeline, whichever copy of the device sent it.
                let document = self.document.as_mut().expect("a document");
                let AppliedTimeline { wanted, .. } = document.applied(timeline).unwrap();
                vec![FromRoom::Acked { next: wanted }]
            }
            ToRoom::Seed { position, db_pages, pages, last } => {
                self.seed.db_pages = db_pages;
                let alone = |page: &CodedPage| {
                    (page.pgid, page.decoded(|_| None).expect("a page by itself"))
                };
                self.seed.pages.extend(pages.iter().map(alone));
                match last {
                    true => self.seeded(device, channel, position),
                    false => {
                        let pages_count = u32::try_from(self.seed.pages.len()).expect("few");
                        vec![FromRoom::SeedTaken { pages_count }]
                    }
                }
            }
            ToRoom::Probe { probe } => {
                vec![FromRoom::Probed { probe, next: self.position().next }]
            }
            ToRoom::Received { .. } => Vec::new(),
            ToRoom::Presence(word) => {
                self.presence_words.push(word);
                Vec::new()
            }
            ToRoom::Register { tag, instance, kinds, concurrency } => {
                let client = client_of(self.secret_of[&device]);
                let before = InstanceId(instance);
                let resumed = self.handlers.may_resume(before, client).then_some(before);
                let known = self.handlers.at((device, tag)).or(resumed);
                let kind = |(aggregate, name)| TaskKind { aggregate, name };
                let kinds: Vec<TaskKind> = kinds.into_iter().map(kind).collect();
                let instance = known.unwrap_or_else(|| {
                    let kinds = kinds.clone();
                    let user = self.subject.clone().unwrap_or_default();
                    match self.change(&Change::Register { client, user, kinds }) {
                        Changed::Registered(instance) => instance,
                        other => panic!("{other:?}"),
                    }
                });
                self.handlers.register(instance, (device, tag), client, kinds, concurrency);
                vec![FromRoom::Registered { tag, instance: instance.0 }]
            }
            ToRoom::Deregister { tag } => {
                if let Some(instance) = self.handlers.at((device, tag)) {
                    self.change(&Change::Deregister(instance));
                }
                Vec::new()
            }
            ToRoom::Complete { tag, number, completion } => {
                let completion = Completion::decode(&completion).expect("a completion");
                let (answer, time_ms) = match self.handlers.at((device, tag)) {
                    Some(instance) => {
                        let changed = self.change(&Change::Complete { instance, completion });
                        changed.answer(self.now_ms).expect("a completion")
                    }
                    None => (CompletionAnswer::Late, self.now_ms),
                };
                vec![FromRoom::Completed { tag, number, answer, time_ms }]
            }
            ToRoom::Archived(question) => {
                let number = question.number;
                vec![FromRoom::Archived { number, answer: self.archived(question) }]
            }
            ToRoom::Close => {
                self.forget(device);
                Vec::new()
            }
        }
    }

    /// Decides something, and gives what came of it.
    pub fn change(&mut self, change: &Change) -> Changed {
        let doctypes = self.doctypes.values();
        let newest = doctypes.reduce(|one, other| if other.succeeds(one) { other } else { one });
        let doctype = newest.expect("a doctype").clone();
        let authority = self.document.as_mut().expect("a document");
        let (changed, committed) = authority.change(change, &doctype, self.now_ms).unwrap();
        self.entries.extend(committed.map(Made::by_itself));
        self.handlers.decided(change, &changed);
        changed
    }

    /// Decides what there is to decide of those who handle commands.
    pub fn dispatch(&mut self) {
        self.handlers.note();
        while let Some(change) = self.handlers.next_change(self.now_ms) {
            self.change(&change);
        }
    }

    /// Has those events of a stream leave that can. Says how many that were.
    pub fn archive(&mut self, stream: &StreamRef) -> u64 {
        let mut events = 0;
        loop {
            let reader = self.document.as_mut().expect("a document").reader();
            let part = find_archivable(reader, stream).unwrap().expect("it can be archived");
            let (archived, end, has_more) = (part.archived, part.end(), part.has_more);
            let archive = self.take_into_archive(part);
            let stream = stream.clone();
            match self.change(&Change::Archive { stream, archive, archived, end }) {
                Changed::Archived(archived) => events += archived.expect("as it was read"),
                other => panic!("{other:?}"),
            }
            if !has_more {
                return events;
            }
        }
    }

    /// Gives the id of the archive.
    pub fn take_into_archive(&mut self, part: ArchivePart) -> JournalId {
        let doctype = archive_doctype();
        let archive = self.archive.get_or_insert_with(|| {
            let position = Position::start_of(JournalId([99; 16]));
            let (view, lives) = (View::new(usize::MAX, 0), Lineage::default());
            let mut archive = Authority::new(view, position, lives, Life([self.lives; 16]));
            archive.migrate(&doctype).unwrap().expect("it was empty");
            archive
        });
        archive.change(&Change::TakeIn(part.into()), &doctype, self.now_ms).unwrap();
        archive.position().journal
    }

    fn archived(&mut self, question: ArchiveQuestion) -> ArchiveAnswer {
        let ArchiveQuestion { archive: id, aggregate, stream, types, after, .. } = question;
        let is_it = |archive: &&mut Authority| archive.position().journal == id;
        let Some(archive) = self.archive.as_mut().filter(is_it) else {
            return ArchiveAnswer::Elsewhere;
        };
        let wanted = WantedEvents { aggregate, stream, types, after };
        let found = find_events(archive.reader(), &archive_doctype(), &wanted, None).unwrap();
        let reader = self.document.as_mut().expect("a document").reader();
        let mut of_document =
            |archived| find_events(reader, &Doctype::default(), &wanted, archived).unwrap();
        let (found, left_up_to) = match of_document(None) {
            FoundEvents::Archived(InArchive { archive, .. }) if archive != id => {
                return ArchiveAnswer::Elsewhere;
            }
            FoundEvents::Archived(InArchive { up_to, count, .. }) => {
                (of_document(Some(&ArchivedEvents::of(found, after, count))), up_to)
            }
            found => (found, u64::MAX),
        };
        let ArchivedEvents { events, up_to, .. } =
            ArchivedEvents::of_both(found, after, left_up_to);
        ArchiveAnswer::Events { events, up_to }
    }

    /// Whoever runs the server does that to a command.
    pub fn intervene(&mut self, command: CommandRef, intervention: Intervention) -> Intervened {
        match self.change(&Change::Intervene(command, intervention)) {
            Changed::Intervened(intervened) => intervened,
            other => panic!("{other:?}"),
        }
    }

    fn role_of(&self, device: usize) -> Role {
        match device {
            _ if self.readers.contains(&device) => Role::Read,
            _ if self.senders.contains(&device) => Role::Send,
            _ => Role::Write,
        }
    }

    /// The device may only read or send from now on, or write again. It is told.
    pub fn allow(&mut self, device: usize, role: Role) -> Vec<FromServer> {
        self.readers.remove(&device);
        self.senders.remove(&device);
        match role {
            Role::Read => _ = self.readers.insert(device),
            Role::Send => _ = self.senders.insert(device),
            Role::Write | Role::Admin => {}
        }
        let Some(Subscriber { channel, .. }) = self.subscribers.get(&device) else {
            return Vec::new();
        };
        vec![FromServer::About { channel: *channel, body: FromRoom::Allowed { role } }]
    }

    pub fn position(&self) -> Position {
        self.document.as_ref().expect("a document").position()
    }

    fn open(
        &mut self,
        device: usize,
        channel: Channel,
        doctype: &Doctype,
        timeline: JournalId,
        have: Option<Position>,
        intent: &Intent,
    ) -> Vec<FromRoom> {
        let refused = |refusal| vec![FromRoom::Refused(refusal)];
        if self.is_damaged {
            return refused(Refusal::Damaged);
        }
        match (&mut self.document, intent, have) {
            (None, Intent::Offer { .. }, _) => {
                self.seed = PageSet::default();
                return vec![FromRoom::SeedWanted];
            }
            (None, Intent::Follow, Some(_)) => return refused(Refusal::Missing),
            (None, Intent::Follow, None) => self.create(doctype),
            // Of the same document a later state, as long as nobody has written here.
            (Some(_), Intent::Offer { .. }, Some(_)) if self.entries.is_empty() => {
                return vec![FromRoom::SeedWanted];
            }
            (Some(_), Intent::Offer { .. }, _) => return refused(Refusal::Exists),
            (Some(authority), Intent::Follow, _) => {
                if let Some(entry) = authority.migrate(doctype).unwrap() {
                    self.entries.push(Made::by_itself(entry));
                }
            }
        }
        self.welcome(device, channel, timeline, have)
    }

    fn welcome(
        &mut self,
        device: usize,
        channel: Channel,
        timeline: JournalId,
        have: Option<Position>,
    ) -> Vec<FromRoom> {
        let storage = self.position();
        let authority = self.document.as_mut().expect("a document");
        let is_held = |have: &Position| {
            let common = authority.lives().common_with_position(storage.next, have.life, have.next);
            let is_known = have.next == storage.next;
            let is_same = !is_known || have.chain == storage.chain;
            have.journal == storage.journal && common == Some(have.next) && is_same
        };
        let from = have.filter(is_held).map_or(Lsn::FIRST, |have| have.next);
        let AppliedTimeline { wanted, lives, .. } = authority.applied(timeline).unwrap();
        self.subscribers
            .insert(device, Subscriber { channel, timeline, next: from, came_at: storage.next });
        vec![FromRoom::Opened { storage, from, wanted, lives }]
    }

    fn seeded(&mut self, device: usize, channel: Channel, position: Position) -> Vec<FromRoom> {
        let seed = std::mem::take(&mut self.seed);
        let view = View::new(usize::MAX, seed.db_pages);
        view.fill(seed.pages.clone().into_iter().collect::<Vec<(Pgid, _)>>());
        let lives = Lineage::try_from(vec![(position.life, Lsn::FIRST)]).expect("one life");
        // One entry stands for all that was written there.
        let range = LsnRange::new(Lsn::FIRST, position.next);
        let chain = chain_of(Chain::default(), range, &seed);
        let position = Position { chain, ..position };
        self.document = Some(Authority::new(view, position, lives, Life([self.lives; 16])));
        let mut answers = vec![FromRoom::Seeded { position }];
        answers.extend(self.welcome(device, channel, JournalId([0; 16]), Some(position)));
        answers
    }

    /// Applies a frame, or says no if it is another copy's.
    fn take(&mut self, device: usize, origin: EntryId, frame: &WireFrame) -> bool {
        let authority = self.document.as_mut().expect("a document");
        let applied = authority.applied(origin.journal).unwrap();
        if origin.lsn < applied.wanted {
            return applied.lives.life_at(origin.lsn) == Some(public_life(origin.life));
        }
        let mutation = Mutation::decode(&frame.body).expect("a mutation");
        assert_eq!(mutation.client, client_of(self.secret_of[&device]), "another copy's");
        assert!(self.subject.as_ref().is_none_or(|it| *it == mutation.user), "another user's");
        let doctype = &self.doctypes[&mutation.doctype];
        let Applied { committed, .. } = authority.apply(origin, &mutation, doctype).unwrap();
        let is_predicted = frame.predicted == Some(committed.hash.start());
        let predicted_by = is_predicted.then_some(device);
        self.entries.push(Made { origin: Some(public_entry(origin)), predicted_by, committed });
        true
    }

    /// The entries that a device lacks.
    pub fn news(&mut self, device: usize) -> Vec<FromServer> {
        let Some(subscriber) = self.subscribers.get_mut(&device) else { return Vec::new() };
        let channel = subscriber.channel;
        let lacks = |it: &&Made| it.committed.entry.range.start() >= subscriber.next;
        let news: Vec<FromServer> = (self.entries.iter().filter(lacks))
            .map(|Made { committed: Committed { entry, hash, coded }, origin, predicted_by }| {
                let is_read = entry.range.end() <= subscriber.came_at;
                let is_predicted = !is_read && *predicted_by == Some(device);
                let part = EntryPart {
                    range: entry.range,
                    position: entry.position,
                    db_pages: entry.set.db_pages,
                    origin: *origin,
                    pages: match (is_read, is_predicted) {
                        (true, _) => alone(entry.clone()).coded.expect("coded"),
                        (false, true) => Arc::default(),
                        // More than a message has, which a room would have read.
                        (false, false) => {
                            coded.clone().or(alone(entry.clone()).coded).expect("coded")
                        }
                    },
                    is_predicted,
                    hash: *hash,
                    is_last: true,
                };
                FromServer::About { channel, body: FromRoom::Entry(part) }
            })
            .collect();
        subscriber.next =
            self.entries.last().map_or(subscriber.next, |it| it.committed.entry.range.end());
        news
    }

    /// One entry stands for the latest ones, as for those who lag.
    pub fn join(&mut self, count: usize) {
        let latest = self.entries.split_off(self.entries.len() - count);
        let joined = latest.into_iter().map(|it| it.committed.entry).reduce(|mut joined, entry| {
            joined.range = LsnRange::new(joined.range.start(), entry.range.end());
            joined.position = entry.position;
            joined.set.absorb(&entry.set);
            joined
        });
        self.entries.extend(joined.map(|entry| Made::by_itself(alone(entry))));
    }

    /// A device was last heard so long ago that its connection is taken for gone.
    pub fn is_silent(&mut self, device: usize, for_ms: u64) {
        let since_ms = self.now_ms.saturating_sub(for_ms);
        self.handlers.leave(|(at, _)| at == device, since_ms);
        self.forget(device);
        self.dispatch();
    }

    pub fn forget(&mut self, device: usize) {
        self.handlers.leave(|(at, _)| at == device, self.now_ms);
        self.subscribers.remove(&device);
    }

    pub fn image(&self) -> Vec<u8> {
        self.document.as_ref().expect("a document").view().image().expect("all is in memory")
    }
}

/// An entry that goes by no other page.
pub fn alone(entry: StorageEntry) -> Committed {
    let pages = entry.set.pages.iter();
    let coded = pages.map(|(pgid, page)| CodedPage::new(*pgid, page, None)).collect();
    Committed { hash: hash_of(&entry.set), coded: Some(coded), entry }
}

/// Times that both sides have something to say, more than any test needs.
const TALK_ROUNDS_MAX: u32 = 20_000;

/// Carries messages both ways until there are none.
pub fn talk(server: &mut Server, devices: &mut [&mut Device]) {
    for round in 0.. {
        assert!(round < TALK_ROUNDS_MAX, "they have ever more to say");
        let mut quiet = true;
        for device in devices.iter_mut() {
            let number = device.number;
            for message in device.take_sent() {
                quiet = false;
                for answer in server.hear(number, message) {
                    // It may have gone at the one before.
                    if device.socket.is_some() {
                        device.hear_server(&answer);
                    }
                }
            }
            if device.socket.is_none() {
                server.forget(number);
                continue;
            }
            server.dispatch();
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

/// A device that follows the server's list of todos.
pub fn online(seed: u8, server: &mut Server) -> Device {
    online_with(seed, Limits::DEFAULT, server)
}

pub fn online_with(seed: u8, limits: Limits, server: &mut Server) -> Device {
    let mut device = Device::with_limits(seed, limits);
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    talk(server, &mut [&mut device]);
    assert_eq!(device.status().connection, Connection::Online);
    device
}

/// The server goes away, and what it had from there with it.
pub fn offline(device: &mut Device) {
    device.server_is_up = false;
    device.lose_socket();
}

/// The server is there again, and the device has waited for as long as it may before it tries.
pub fn back_online(server: &mut Server, device: &mut Device) {
    device.server_is_up = true;
    device.pass(15_000);
    talk(server, &mut [device]);
}

/// The same, once the first tab has opened the list: the core may be a new one.
pub fn connect(server: &mut Server, device: &mut Device) {
    device.server_is_up = true;
    device.start_open(TAB, Some(SERVER), &todos());
    back_online(server, device);
    assert_eq!(device.status().connection, Connection::Online, "{:?}", device.status());
}
