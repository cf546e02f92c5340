//! A store against a plain model: documents, timelines, pages as of any LSN.
//!
//! Goal: whatever is appended, destroyed, begun anew, checkpointed and opened again in whatever
//! order, the store says what a few maps say, and after a power cut it holds a state that it had,
//! at or after the last that was called durable. Method: random operations of one owner on a
//! store with a small log, compared piece by piece, and as a whole now and then.
//! `tests/testing/src/runs.rs` says how to do many and how to replay one.

use std::collections::{BTreeMap, VecDeque};

use tidelog_disk::CrashDevice;
use tidelog_pages::{
    Cursor, Direction, RequestId, StoreOptions, StoreReply, StoreRequest, Ticket, Urgency,
};
use tidelog_testing::store::{
    Model, ModelDocument, OWNER, Server, Shape, Workload, ask, is_same, observe, open_with, plain,
    whole,
};
use tidelog_testing::{Rng, runs};
use tidelog_types::{DocumentKey, JournalId, Lsn, Page, Pgid};

const OPERATIONS: u64 = 1_000;

/// The pages of a storage journal after each append, by the LSN that was next then.
#[derive(Debug, Default)]
struct Past {
    journal: Option<JournalId>,
    pages: BTreeMap<Lsn, BTreeMap<Pgid, Page>>,
}

struct Scene {
    rng: Rng,
    device: CrashDevice,
    server: Server,
    workload: Workload,
    options: StoreOptions,
    /// The states since the last durable one, and the requests that led to them.
    states: Vec<(Ticket, Model)>,
    past: BTreeMap<DocumentKey, Past>,
    requests: u64,
    /// Answers from the past, so that it is known whether there were any.
    answered_from_past: u64,
}

impl Scene {
    fn new(mut rng: Rng) -> Self {
        let device = CrashDevice::new();
        let log_size_max = (16 * 1024) << rng.below(4);
        let options = StoreOptions {
            log_size_max,
            pool_pages_max: 1 + rng.below(30),
            log_buffer_size_max: 4096 << rng.below(4),
            ..StoreOptions::default()
        };
        let server = open_with(&device, options);
        let mut workload = Workload::new(rng.next());
        if rng.one_in(3) {
            workload.shape = Shape::Staged;
        }
        let states = vec![(Ticket(0), Model::default())];
        let past = BTreeMap::new();
        let answered_from_past = 0;
        Self {
            rng,
            device,
            server,
            workload,
            options,
            states,
            past,
            requests: 0,
            answered_from_past,
        }
    }

    fn model(&self) -> &Model {
        &self.workload.model
    }

    fn document(&mut self) -> (DocumentKey, ModelDocument) {
        let name = format!("document-{}", self.rng.below(self.workload.documents));
        let key = DocumentKey::new(&name, "").expect("a good name");
        let known = self.model().0.get(&key).cloned().unwrap_or_default();
        (key, known)
    }

    fn append(&mut self) {
        let request = self.workload.next_at(0);
        self.states.push((tidelog_testing::store::ticket_of(&request), self.model().clone()));
        self.server.serve(OWNER, request);
        self.remember();
    }

    /// Notes how each document stands, for who asks later; what was of another journal, or is taken
    /// back, is forgotten.
    fn remember(&mut self) {
        let documents = &self.workload.model.0;
        self.past.retain(|key, _| documents.contains_key(key));
        for (key, document) in documents {
            let past = self.past.entry(key.clone()).or_default();
            let journal = document.storage.map(|position| position.journal);
            if past.journal != journal {
                *past = Past { journal, ..Past::default() };
            }
            let Some(position) = document.storage else { continue };
            past.pages.retain(|lsn, _| *lsn < position.next);
            let pages = document.pages.iter().map(|(pgid, (_, page))| (*pgid, page.clone()));
            past.pages.insert(position.next, pages.collect());
        }
    }

    /// The store as of an LSN, or that the log does not know it any more.
    fn read_at(&mut self) {
        let (document, known) = self.document();
        let Some(past) = self.past.get(&document).filter(|past| !past.pages.is_empty()) else {
            return;
        };
        // Lately more often than long ago.
        let back = self.rng.below(past.pages.len().min(6));
        let (at, pages) = past.pages.iter().nth_back(back).expect("counted");
        let (at, pages, journal) = (*at, pages.clone(), past.journal.expect("it has pages"));
        let pgids: Vec<Pgid> = (1..=known.db_pages + 2).map(Pgid).collect();
        let (request, urgency) = (self.next_request(), Urgency::User);
        let asked = StoreRequest::ReadAt {
            request: RequestId(request),
            urgency,
            document,
            pgids,
            journal,
            at,
        };
        let mut found = BTreeMap::new();
        for reply in self.ask(asked) {
            match reply {
                StoreReply::Pages { pages, .. } => found.extend(pages),
                StoreReply::Trimmed { .. } => return,
                other => panic!("unasked: {other:?}"),
            }
        }
        let expected = pages.into_iter().filter(|(pgid, _)| pgid.0 <= known.db_pages + 2);
        assert!(expected.eq(found), "the pages as of {at}");
        self.answered_from_past += u64::from(back > 0);
    }

    /// Flushes, and polls as far as there is something to do.
    fn settle(&mut self) {
        self.server.flush();
        let last = self.states.last().expect("the first one").0;
        let mut durable = self.states[0].0;
        for reply in tidelog_testing::store::settle(&mut self.server, &self.device) {
            let StoreReply::Durable { ticket } = reply else { panic!("unasked: {reply:?}") };
            durable = ticket;
        }
        assert_eq!(durable, last, "all that was appended is durable");
        self.states.drain(..self.states.len() - 1);
    }

    /// Serves a question, with what went before it in any state of durability. Replies to appends
    /// are not looked at: `settle` does.
    fn ask(&mut self, request: StoreRequest) -> Vec<StoreReply> {
        let mut replies = ask(&mut self.server, &self.device, request);
        for reply in replies.extract_if(.., |reply| matches!(reply, StoreReply::Durable { .. })) {
            let StoreReply::Durable { ticket } = reply else { unreachable!("looked at") };
            self.states.retain(|(state, _)| *state >= ticket);
        }
        replies
    }

    fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    fn open_document(&mut self) {
        let (document, known) = self.document();
        let is_known = self.model().0.contains_key(&document);
        let replies = self.ask(StoreRequest::Open { document });
        let [StoreReply::Opened { state, .. }] = replies.as_slice() else { panic!("{replies:?}") };
        assert_eq!(state.is_some(), is_known);
        let Some(state) = state else { return };
        assert_eq!(state.record, known.record);
        assert_eq!((state.storage, state.db_pages), (known.storage, known.db_pages));
        let timeline = state.timeline.clone().map(|it| (it.journal, it.range.start(), it.frames));
        assert_eq!(timeline, known.timeline);
        let first = known.pages.get(&Pgid(1)).map(|(_, page)| page.clone());
        assert_eq!(state.first_page, first);
    }

    fn read(&mut self) {
        let (document, known) = self.document();
        let count = self.rng.below(12);
        let mut pgids: Vec<Pgid> =
            (0..count).map(|_| Pgid(self.rng.below(known.db_pages as usize + 3) as u32)).collect();
        pgids.sort_unstable();
        pgids.dedup();
        let urgency = Urgency::User;
        let (request, wanted) = (self.next_request(), pgids.clone());
        let replies =
            self.ask(StoreRequest::Read { request: RequestId(request), urgency, document, pgids });
        let [StoreReply::Pages { request: answered, pages, last: true, .. }] = replies.as_slice()
        else {
            panic!("{replies:?}")
        };
        let expected = wanted
            .iter()
            .filter_map(|pgid| known.pages.get(pgid).map(|(_, page)| (*pgid, page.clone())));
        assert!(*answered == RequestId(request) && expected.eq(pages.iter().cloned()));
    }

    /// What changed since an LSN, which is the store as of any LSN.
    fn changes(&mut self) {
        let (document, known) = self.document();
        let next = known.storage.map_or(1, |position| position.next.get());
        let since = Lsn::FIRST.plus(self.rng.next() % next);
        let (request, urgency) = (self.next_request(), Urgency::Background);
        let journal = known.storage.map_or(JournalId([9; 16]), |position| position.journal);
        let asked = StoreRequest::SyncPrepare {
            request: RequestId(request),
            urgency,
            document,
            journal,
            since,
            from: Pgid(1),
            pages_max: u32::MAX,
        };
        let (position, set) = match whole(self.ask(asked)) {
            Ok(prepared) => prepared,
            Err(position) => return assert_eq!((position, known.storage), (None, None)),
        };
        assert_eq!((Some(position), set.db_pages), (known.storage, known.db_pages));
        let newer = known.pages.iter().filter(|(_, (lsn, _))| *lsn >= since);
        let newer = newer.map(|(pgid, (_, page))| (pgid, page));
        assert!(newer.eq(&set.pages), "the pages since {since}");
    }

    /// Some entries of a timeline, from anywhere, either way.
    fn frames(&mut self) {
        let (document, known) = self.document();
        let Some((journal, start, frames)) = known.timeline else { return };
        let at = self.rng.below(frames.len() + 1);
        let count = self.rng.below(frames.len() + 2);
        let direction = [Direction::Forwards, Direction::Backwards][self.rng.below(2)];
        let cursor = Cursor { journal, at: start.plus(at as u64), direction };
        let (request, urgency, count_max) = (self.next_request(), Urgency::User, count as u32);
        let asked = StoreRequest::Entries {
            request: RequestId(request),
            urgency,
            document,
            cursor,
            count: count_max,
        };
        let expected: Vec<_> = match direction {
            Direction::Forwards => frames[at..].iter().take(count).collect(),
            Direction::Backwards => frames[..at].iter().rev().take(count).collect(),
        };
        let mut found = Vec::new();
        for reply in self.ask(asked) {
            match reply {
                StoreReply::Frames { frames, .. } => found.extend(frames),
                StoreReply::Trimmed { history, .. } => {
                    assert!(direction == Direction::Backwards && at == 0 && start > Lsn::FIRST);
                    assert_eq!(history.map(|range| range.start()), Some(start));
                }
                other => panic!("unasked: {other:?}"),
            }
        }
        assert!(found.iter().eq(expected), "{count} from {cursor:?}");
    }

    fn compare(&mut self) {
        self.settle();
        let observed = observe(&mut self.server, &self.device);
        assert_eq!(observed, plain(self.model()));
    }

    /// Opens the store anew, as after the end of its process: what was not written is lost.
    fn reopen(&mut self) {
        self.device.hold_flushes(false);
        self.server = open_with(&self.device, self.options);
        self.found();
    }

    /// Cuts the power, and opens what is left.
    fn cut(&mut self) {
        let rng = &mut self.rng;
        let mood = rng.below(3);
        self.device = self.device.crash(&mut |versions| match mood {
            0 if !rng.one_in(6) => 0,
            1 if !rng.one_in(6) => versions - 1,
            _ => rng.below(versions),
        });
        self.server = open_with(&self.device, self.options);
        self.found();
    }

    /// Takes the state that is found for the one that there is.
    fn found(&mut self) {
        let observed = observe(&mut self.server, &self.device);
        let index = self.states.iter().rposition(|(_, model)| is_same(&observed, model));
        let Some(index) = index else { panic!("not one of the last {} states", self.states.len()) };
        let (ticket, model) = self.states.swap_remove(index);
        self.workload.go_back_to(model.clone(), VecDeque::new());
        self.remember();
        self.states = vec![(ticket, model)];
        // What was found is durable with the next flush, and only then.
        self.server.flush();
        let replies = tidelog_testing::store::settle(&mut self.server, &self.device);
        assert_eq!(replies, [], "nobody of this life has asked for anything");
    }

    fn step(&mut self) {
        match self.rng.below(1000) {
            0..450 => self.append(),
            450..600 => self.settle(),
            600..650 => self.open_document(),
            650..800 => self.read(),
            800..880 => self.read_at(),
            880..930 => self.changes(),
            930..985 => self.frames(),
            985..990 => self.compare(),
            990..995 => self.reopen(),
            _ => self.cut(),
        }
        let is_held = self.rng.one_in(3);
        self.device.hold_flushes(is_held);
    }
}

#[test]
fn a_store_agrees_with_a_plain_model() {
    let mut answered_from_past = 0;
    runs("model of the store", 20_000, |rng| {
        let mut scene = Scene::new(Rng::new(rng.next()));
        for _ in 0..OPERATIONS {
            scene.step();
        }
        scene.compare();
        answered_from_past += scene.answered_from_past;
        OPERATIONS
    });
    assert!(answered_from_past > 100, "only {answered_from_past} answers from the past");
}
