//! A plain model of a store, a workload, and a driver that compares the two; here, how a store is
//! opened and asked.

pub mod door;
pub mod make;
mod model;
mod run;
mod workload;

use std::collections::BTreeMap;

use tidelog_disk::{CrashDevice, CrashDisk, Disk, StoreFiles};
use tidelog_pages::{
    Append, OpenedDocument, OwnerId, PageServer, RequestId, Seed, StoreOptions, StoreReply,
    StoreRequest, Urgency,
};
use tidelog_types::{DocumentKey, JournalId, Lsn, Page, PageSet, Pgid, Position};

use make::{durable, key, read_of, request};
pub use model::{Model, ModelDocument, is_same, plain};
pub use run::{Run, run, run_with, ticket_of};
pub use workload::{Shape, Workload, with_ticket};

pub type Server = PageServer<CrashDisk>;

pub const OWNER: OwnerId = OwnerId(1);

/// The files of a store on this device.
pub fn files(device: &CrashDevice) -> StoreFiles<CrashDisk> {
    StoreFiles::open_each(|name| Ok::<_, ()>(device.file(name))).expect("no errors")
}

pub fn seed(device: &CrashDevice) -> Seed {
    Seed(device.seed())
}

pub fn small_log() -> StoreOptions {
    StoreOptions {
        log_size_max: 96 * 1024,
        pool_pages_max: 8,
        log_buffer_size_max: 6 * 1024,
        ..StoreOptions::default()
    }
}

pub fn open(device: &CrashDevice) -> Server {
    open_with(device, small_log())
}

pub fn open_with(device: &CrashDevice, options: StoreOptions) -> Server {
    let opened = PageServer::open_with(files(device), seed(device), options);
    opened.expect("the store can always be opened").0
}

/// An empty store, and the device that it is on.
pub fn new() -> (CrashDevice, Server) {
    let device = CrashDevice::new();
    let server = open(&device);
    (device, server)
}

/// Where the log ends, with what is not written yet.
pub fn log_end(server: &Server) -> u64 {
    shown(server, " size ")
}

/// How often the log was changed over, and one more.
pub fn generation(server: &Server) -> u64 {
    shown(server, " generation ")
}

/// The number that a server shows behind this.
fn shown(server: &Server, name: &str) -> u64 {
    let text = server.to_string();
    let number = text.split_once(name).and_then(|(_, rest)| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).expect("it is displayed")
}

/// Polls until there is nothing left to do, completing flushes that a device holds.
pub fn settle(server: &mut Server, device: &CrashDevice) -> Vec<StoreReply> {
    let mut replies = poll_all(server);
    while device.has_held_flushes() {
        device.complete_flushes();
        replies.extend(poll_all(server));
    }
    replies
}

/// Polls until there is nothing left to do now.
pub fn poll_all(server: &mut PageServer<impl Disk>) -> Vec<StoreReply> {
    let mut replies = Vec::new();
    loop {
        replies.extend(server.poll().into_iter().map(|(_, reply)| reply));
        if !server.wants_poll() {
            return replies;
        }
    }
}

pub fn ask(server: &mut Server, device: &CrashDevice, request: StoreRequest) -> Vec<StoreReply> {
    server.serve(OWNER, request);
    settle(server, device)
}

/// Appends, flushes, and gives what is answered.
pub fn append(
    server: &mut Server,
    device: &CrashDevice,
    ticket: u64,
    append: Append,
) -> Vec<StoreReply> {
    server.serve(OWNER, request(ticket, append));
    server.flush();
    settle(server, device)
}

/// Those of these pages that the document has.
pub fn read(
    server: &mut Server,
    device: &CrashDevice,
    name: &str,
    pgids: &[u32],
) -> Vec<(Pgid, Page)> {
    let request = read_of(9, name, pgids.iter().copied());
    let mut found = Vec::new();
    for reply in ask(server, device, request) {
        let StoreReply::Pages { pages, .. } = reply else { panic!("read answered {reply:?}") };
        found.extend(pages);
    }
    found
}

/// Fills the log with a document nobody looks at, until it has changed over `times` times.
pub fn change_over(server: &mut Server, device: &CrashDevice, times: usize) {
    let generation = |server: &Server| {
        let text = server.to_string();
        let after = text.split("generation ").nth(1).expect("it is displayed");
        after.split(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number")
    };
    let target = generation(server) + times as u64;
    let mut ticket = 1_000_000;
    while generation(server) < target {
        ticket += 1;
        let mut filler = Append::to(key("zz-filler"));
        filler.record = Some(vec![ticket as u8; 9000].into());
        assert_eq!(append(server, device, ticket, filler), [durable(ticket)]);
    }
}

pub fn open_document(
    server: &mut Server,
    device: &CrashDevice,
    document: &DocumentKey,
) -> Option<OpenedDocument> {
    let replies = ask(server, device, StoreRequest::Open { document: document.clone() });
    match replies.as_slice() {
        [StoreReply::Opened { state, .. }] => state.as_deref().cloned(),
        other => panic!("open answered {other:?}"),
    }
}

/// Everything that a server holds, asked for as an owner would.
pub fn observe(server: &mut Server, device: &CrashDevice) -> Model {
    let replies = ask(server, device, StoreRequest::List { request: RequestId(1) });
    let [StoreReply::Documents { documents, .. }] = replies.as_slice() else {
        panic!("list answered {replies:?}");
    };
    let mut model = Model::default();
    for key in documents {
        let opened = open_document(server, device, key).expect("it was listed");
        let mut pages = BTreeMap::new();
        if let Some(Position { journal, .. }) = opened.storage {
            let prepared = sync_prepare(server, device, key, journal, Lsn::FIRST);
            pages = prepared.expect("it is that journal").1.pages;
        }
        model.0.insert(key.clone(), ModelDocument::of(&opened, pages));
    }
    model
}

/// What a server that may be damaged says of a document.
#[derive(Debug)]
pub struct Answer {
    /// `None` if it is refused.
    pub document: Option<ModelDocument>,
    /// It says that something may be lost: all of it is as it was at some time before, and pages
    /// may be missing.
    pub is_incomplete: bool,
}

/// Everything that a server holds which may be damaged. To refuse one document breaks off its
/// owner, so each is asked for by an owner of its own.
pub fn try_observe(server: &mut Server, device: &CrashDevice) -> BTreeMap<DocumentKey, Answer> {
    let replies = ask(server, device, StoreRequest::List { request: RequestId(1) });
    let [StoreReply::Documents { documents, .. }] = replies.as_slice() else {
        panic!("list answered {replies:?}");
    };
    let mut found = BTreeMap::new();
    for (index, key) in documents.iter().enumerate() {
        let owner = OwnerId(100 + index as u64);
        server.serve(owner, StoreRequest::Open { document: key.clone() });
        let mut replies = settle(server, device);
        let mut state = None;
        if let [StoreReply::Opened { state: Some(opened), .. }] = replies.as_slice() {
            let journal = opened.storage.map_or(JournalId([0; 16]), |position| position.journal);
            state = Some(opened.clone());
            server.serve(owner, prepare(2, key, journal, Lsn::FIRST));
            replies = settle(server, device);
        }
        let is_broken = |reply: &StoreReply| {
            matches!(reply, StoreReply::Broken { .. } | StoreReply::Damaged { .. })
        };
        let answer = match state.filter(|_| !replies.iter().any(is_broken)) {
            Some(opened) => {
                let pages = whole(replies).map(|(_, set)| set.pages).unwrap_or_default();
                let document = Some(ModelDocument::of(&opened, pages));
                Answer { document, is_incomplete: opened.is_incomplete }
            }
            None => Answer { document: None, is_incomplete: false },
        };
        found.insert(key.clone(), answer);
    }
    found
}

/// A compaction and where it leads, or where the storage journal is that it does not lead to.
pub type Compaction = Result<(Position, PageSet), Option<Position>>;

fn prepare(request: u64, document: &DocumentKey, journal: JournalId, since: Lsn) -> StoreRequest {
    let (urgency, document) = (Urgency::User, document.clone());
    StoreRequest::SyncPrepare {
        request: RequestId(request),
        urgency,
        document,
        journal,
        since,
        from: Pgid(1),
        pages_max: u32::MAX,
    }
}

/// Puts the parts of a compaction together.
pub fn whole(replies: Vec<StoreReply>) -> Compaction {
    let mut parts = Parts::default();
    let mut answers = replies.into_iter().filter_map(|reply| parts.take(reply));
    let answer = answers.next().expect("an answer");
    assert_eq!(answers.next(), None, "one answer");
    answer
}

/// Compactions of which some parts have come.
#[derive(Default)]
pub struct Parts(BTreeMap<RequestId, PageSet>);

impl Parts {
    /// Takes a part in. Gives the whole if it is the last.
    pub fn take(&mut self, reply: StoreReply) -> Option<Compaction> {
        match reply {
            StoreReply::SyncPart { request, position, db_pages, pages, last, .. } => {
                let set = self.0.entry(request).or_default();
                set.db_pages = db_pages;
                for (pgid, page) in pages {
                    assert_eq!(set.pages.insert(pgid, page), None, "{pgid} twice");
                }
                if last { Some(Ok((position, self.0.remove(&request)?))) } else { None }
            }
            StoreReply::Unrelated { position, .. } => Some(Err(position)),
            other => panic!("unasked: {other:?}"),
        }
    }
}

pub fn sync_prepare(
    server: &mut Server,
    device: &CrashDevice,
    document: &DocumentKey,
    journal: JournalId,
    since: Lsn,
) -> Compaction {
    whole(ask(server, device, prepare(2, document, journal, since)))
}

/// What a follower of the document lacks that holds everything before `since`.
pub fn changes(
    server: &mut Server,
    device: &CrashDevice,
    document: &DocumentKey,
    since: Lsn,
) -> PageSet {
    let opened = open_document(server, device, document).expect("it is there");
    let journal = opened.storage.expect("it was begun").journal;
    sync_prepare(server, device, document, journal, since).expect("it is that journal").1
}
