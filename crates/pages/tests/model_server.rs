//! A page server with many owners against a plain model.
//!
//! Goal: each read is answered once, with the pages as they were when it was asked for, whatever
//! is appended, destroyed and checkpointed meanwhile; nobody is answered after it went; while an
//! owner waits each other one has one turn at most; what nobody waits for is not starved. Method:
//! random requests, polls and flushes in any order, and beside them what each answer has to be.
//! `tests/testing/src/runs.rs` says how to do many and how to replay one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidelog_disk::CrashDevice;
use tidelog_pages::{
    Append, OwnerId, RequestId, StorageEntry, StoreOptions, StoreReply, StoreRequest, Ticket,
    Urgency,
};
use tidelog_testing::store::{Compaction, Parts, Server, open_with};
use tidelog_testing::{Rng, runs};
use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{Chain, DocumentKey, JournalId, Lsn, LsnRange, Page, PageSet, Pgid, Position};

const OPERATIONS: u64 = 4_000;
/// Turns for users after which one is for what nobody waits for.
const USER_TURNS: usize = 7;

/// Where a document's storage journal stands, and the newest version of each page.
#[derive(Clone, Debug, Default)]
struct Document {
    position: Option<Position>,
    db_pages: u32,
    pages: BTreeMap<Pgid, (Lsn, Page)>,
}

/// What is still to be answered.
#[derive(Debug)]
enum Expected {
    Pages(VecDeque<(Pgid, Page)>),
    Compaction(Compaction),
}

#[derive(Debug, Default)]
struct Owner {
    tickets: u64,
    durable: u64,
    reads: BTreeMap<RequestId, (Urgency, Expected)>,
}

/// Who was served since others began to wait.
#[derive(Debug, Default)]
struct Fairness {
    /// By those who wait.
    passed: BTreeMap<(Urgency, u64), Vec<u64>>,
    user_turns: usize,
}

struct Scene<'r> {
    rng: &'r mut Rng,
    device: CrashDevice,
    options: StoreOptions,
    server: Server,
    documents: Vec<Document>,
    owners: BTreeMap<u64, Owner>,
    owners_ever: u64,
    requests: u64,
    /// Without it, since compactions are put together here, and count for no turn.
    fairness: Option<Fairness>,
    parts: Parts,
}

fn key(number: usize) -> DocumentKey {
    DocumentKey::new(&format!("document-{number}"), "").expect("a good name")
}

impl<'r> Scene<'r> {
    fn new(rng: &'r mut Rng) -> Self {
        let device = CrashDevice::new();
        let log_size_max = (64 * 1024) << rng.below(5);
        let options = StoreOptions {
            log_size_max,
            pool_pages_max: 1 + rng.below(100),
            log_buffer_size_max: 4096 << rng.below(10),
            ..StoreOptions::default()
        };
        let server = open_with(&device, options);
        let owners_count = 1 + rng.below(6) as u64;
        let owners = (1..=owners_count).map(|owner| (owner, Owner::default())).collect();
        Self {
            device,
            options,
            server,
            documents: vec![Document::default(); 1 + rng.below(5)],
            owners,
            owners_ever: owners_count,
            requests: 0,
            fairness: rng.one_in(2).then(Fairness::default),
            parts: Parts::default(),
            rng,
        }
    }

    fn owner(&mut self) -> u64 {
        let index = self.rng.below(self.owners.len());
        *self.owners.keys().nth(index).expect("counted")
    }

    fn append(&mut self) {
        let (owner, number) = (self.owner(), self.rng.below(self.documents.len()));
        let mut append = Append::to(key(number));
        let document = &mut self.documents[number];
        if document.position.is_none() || self.rng.one_in(60) {
            let journal = JournalId([self.rng.next() as u8; 16]);
            if document.position.is_none_or(|position| position.journal != journal) {
                let position = Some(Position::start_of(journal));
                *document = Document { position, ..Document::default() };
            }
            append.begin_storage = Some(journal);
        }
        let position = document.position.as_mut().expect("just begun");
        let range = LsnRange::new(position.next, position.next.plus(1 + self.rng.next() % 3));
        let chain = Chain([self.rng.next() as u8; 32]);
        *position = Position { next: range.end(), chain, ..*position };
        let count = if self.rng.one_in(20) { self.rng.below(300) } else { self.rng.below(5) };
        document.db_pages = match self.rng.below(40) {
            0 => document.db_pages / 2 + 1,
            _ => (document.db_pages + count as u32 / 2).clamp(1, 500),
        };
        let mut set = PageSet { db_pages: document.db_pages, pages: BTreeMap::new() };
        for _ in 0..count {
            let pgid = Pgid(1 + self.rng.below(set.db_pages as usize) as u32);
            let fill = self.rng.next().to_le_bytes();
            let page = Page::new(&fill.repeat(PAGE_SIZE / 8)).expect("the size of a page");
            set.pages.insert(pgid, page);
        }
        let lsn = Lsn::new(range.end().get() - 1).expect("not empty");
        let pages = set.pages.iter().map(|(pgid, page)| (*pgid, (lsn, page.clone())));
        document.pages.extend(pages);
        document.pages.retain(|pgid, _| pgid.0 <= set.db_pages);
        append.storage = vec![StorageEntry { range, position: *position, calls: Vec::new(), set }];
        let ticket = self.next_ticket(owner);
        self.server.serve(OwnerId(owner), StoreRequest::Append { ticket, append });
    }

    fn next_ticket(&mut self, owner: u64) -> Ticket {
        let owner = self.owners.get_mut(&owner).expect("a living one");
        owner.tickets += 1;
        Ticket(owner.tickets)
    }

    fn destroy(&mut self) {
        let (owner, number) = (self.owner(), self.rng.below(self.documents.len()));
        self.documents[number] = Document::default();
        let (ticket, document) = (self.next_ticket(owner), key(number));
        self.server.serve(OwnerId(owner), StoreRequest::Destroy { ticket, document });
    }

    fn read(&mut self) {
        let (owner, number) = (self.owner(), self.rng.below(self.documents.len()));
        let urgency = [Urgency::User, Urgency::Background][self.rng.below(2)];
        self.requests += 1;
        let (request, document) = (self.requests, key(number));
        let known = &self.documents[number];
        let (asked, expected) = if self.fairness.is_none() && self.rng.one_in(4) {
            let next = known.position.map_or(1, |position| position.next.get());
            let since = Lsn::FIRST.plus(self.rng.next() % next);
            let newer = known.pages.iter().filter(|(_, (lsn, _))| *lsn >= since);
            let pages = newer.map(|(pgid, (_, page))| (*pgid, page.clone())).collect();
            let set = PageSet { db_pages: known.db_pages, pages };
            let expected = known.position.map(|position| (position, set)).ok_or(None);
            let journal = known.position.map_or(JournalId([0; 16]), |position| position.journal);
            let asked = StoreRequest::SyncPrepare {
                request: RequestId(request),
                urgency,
                document,
                journal,
                since,
                from: Pgid(1),
                pages_max: u32::MAX,
            };
            (asked, Expected::Compaction(expected))
        } else {
            let count = if self.rng.one_in(5) { self.rng.below(400) } else { self.rng.below(5) };
            let first = 1 + self.rng.below(known.db_pages as usize + 2) as u32;
            let step = 1 + self.rng.below(2) as u32;
            let pgids: Vec<Pgid> = (0..count as u32).map(|n| Pgid(first + n * step)).collect();
            let page = |pgid: &Pgid| Some((*pgid, known.pages.get(pgid)?.1.clone()));
            let expected = Expected::Pages(pgids.iter().filter_map(page).collect());
            (StoreRequest::Read { request: RequestId(request), urgency, document, pgids }, expected)
        };
        self.server.serve(OwnerId(owner), asked);
        let reads = &mut self.owners.get_mut(&owner).expect("a living one").reads;
        reads.insert(RequestId(request), (urgency, expected));
        if let Some(fairness) = &mut self.fairness {
            fairness.passed.entry((urgency, owner)).or_default();
        }
    }

    fn poll(&mut self) {
        // A read behind an append that is being recorded has no turn before that is done.
        let was_behind = self.server.is_behind();
        let mut turn: Option<((Urgency, u64), usize)> = None;
        for (OwnerId(owner), reply) in self.server.poll() {
            let served = self.take(owner, reply);
            let Some((urgency, pages)) = served else { continue };
            let who = (urgency, owner);
            turn = match turn {
                Some((same, count))
                    if same == who && count + pages <= Limits::DEFAULT.read_chunk_pages =>
                {
                    Some((who, count + pages))
                }
                before => {
                    self.had_turn(before.map(|(who, _)| who));
                    Some((who, pages))
                }
            };
        }
        self.had_turn(turn.map(|(who, _)| who));
        if let Some(fairness) = self.fairness.as_mut().filter(|_| was_behind) {
            fairness.passed.values_mut().for_each(Vec::clear);
        }
    }

    /// Takes a reply in. Of a read it gives the urgency, and the pages served.
    fn take(&mut self, owner: u64, reply: StoreReply) -> Option<(Urgency, usize)> {
        let state = self.owners.get_mut(&owner).expect("told something after it went");
        match reply {
            StoreReply::Durable { ticket: Ticket(ticket) } => {
                assert!(ticket > state.durable && ticket <= state.tickets, "durable {ticket}");
                state.durable = ticket;
                None
            }
            StoreReply::Pages { request, pages, last, .. } => {
                let (urgency, expected) = state.reads.get_mut(&request).expect("asked for");
                let (urgency, count) = (*urgency, pages.len());
                let Expected::Pages(left) = expected else { panic!("pages for {expected:?}") };
                for page in pages {
                    assert_eq!(Some(page), left.pop_front(), "as when it was asked for");
                }
                assert_eq!(last, left.is_empty());
                if last {
                    state.reads.remove(&request);
                }
                Some((urgency, count))
            }
            StoreReply::SyncPart { request, .. } | StoreReply::Unrelated { request, .. } => {
                let compaction = self.parts.take(reply)?;
                let (_, expected) = state.reads.remove(&request).expect("asked for");
                let Expected::Compaction(expected) = expected else {
                    panic!("a compaction for {expected:?}")
                };
                assert!(compaction == expected, "as when it was asked for");
                None
            }
            other => panic!("unasked: {other:?}"),
        }
    }

    fn had_turn(&mut self, who: Option<(Urgency, u64)>) {
        let (Some((urgency, owner)), Some(fairness)) = (who, &mut self.fairness) else { return };
        let reads = self
            .owners
            .iter()
            .flat_map(|(owner, state)| state.reads.values().map(|(urgency, _)| (*urgency, *owner)));
        let waiting: BTreeSet<(Urgency, u64)> = reads.collect();
        fairness.passed.retain(|who, _| waiting.contains(who));
        if let Some(passed) = fairness.passed.get_mut(&(urgency, owner)) {
            passed.clear();
        }
        for ((of, waits), passed) in &mut fairness.passed {
            if *of == urgency && *waits != owner {
                assert!(!passed.contains(&owner), "{owner} twice before {waits}");
                passed.push(owner);
            }
        }
        let background_waits = waiting.iter().any(|(of, _)| *of == Urgency::Background);
        fairness.user_turns = match urgency {
            Urgency::User if background_waits => fairness.user_turns + 1,
            _ => 0,
        };
        assert!(fairness.user_turns <= 1 + USER_TURNS, "the background is starved");
    }

    fn forget(&mut self) {
        let owner = self.owner();
        self.server.forget_owner(OwnerId(owner));
        self.owners.remove(&owner);
        if let Some(fairness) = &mut self.fairness {
            fairness.passed.retain(|(_, waits), _| *waits != owner);
        }
        self.owners_ever += 1;
        self.owners.insert(self.owners_ever, Owner::default());
    }

    /// Lets everything come to rest: all is durable, and everybody is answered.
    fn settle(&mut self) {
        self.server.flush();
        self.poll();
        while self.server.wants_poll() || self.device.has_held_flushes() {
            self.device.complete_flushes();
            self.poll();
        }
        for (owner, state) in &self.owners {
            assert_eq!(state.durable, state.tickets, "owner {owner}");
            assert!(state.reads.is_empty(), "owner {owner} waits for {:?}", state.reads.keys());
        }
    }

    fn reopen(&mut self) {
        self.settle();
        self.server = open_with(&self.device, self.options);
        // What was found is flushed before anything is called durable.
        self.server.flush();
    }

    fn step(&mut self) {
        let hold = self.rng.one_in(2);
        match self.rng.below(1000) {
            0..300 => self.read(),
            300..450 => self.append(),
            450..900 => self.poll(),
            900..940 => self.server.flush(),
            940..980 => self.device.complete_flushes_of_one(&mut |count| self.rng.below(count)),
            980..990 => self.device.hold_flushes(hold),
            990..994 => self.destroy(),
            994..997 => self.forget(),
            997..999 => self.settle(),
            _ => self.reopen(),
        }
    }
}

#[test]
fn a_page_server_with_many_owners_agrees_with_a_plain_model() {
    runs("model of the page server", 20_000, |rng| {
        let mut scene = Scene::new(rng);
        for _ in 0..OPERATIONS {
            scene.step();
        }
        scene.settle();
        OPERATIONS
    });
}
