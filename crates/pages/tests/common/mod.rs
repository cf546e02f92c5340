//! A plain model of a store, a workload, and a driver that compares the two; here, how a store is
//! opened and asked.

#![allow(dead_code, reason = "each test file uses its part of it")]

mod model;
mod run;
mod workload;

use std::collections::BTreeMap;

use tidelog_disk::{CrashDevice, CrashDisk, StoreFiles};
use tidelog_pages::{
    OpenedDocument, OwnerId, PageServer, StoreOptions, StoreReply, StoreRequest, Urgency,
};
use tidelog_types::{DocumentKey, Lsn, PageSet};

#[allow(unused_imports, reason = "each test file uses its part of it")]
pub use {
    model::{Model, ModelDocument, is_same, plain},
    run::{Run, run, run_with, ticket_of},
    workload::{Rng, Workload},
};

pub type Server = PageServer<CrashDisk>;

pub const OWNER: OwnerId = OwnerId(1);

/// The files of a store on this device.
pub fn files(device: &CrashDevice) -> StoreFiles<CrashDisk> {
    StoreFiles::open_each(|name| Ok::<_, ()>(device.file(name))).expect("no errors")
}

pub fn small_log() -> StoreOptions {
    StoreOptions { log_size_max: 48 * 1024, pool_pages_max: 8 }
}

pub fn open(device: &CrashDevice) -> Server {
    let opened = PageServer::open_with(files(device), small_log());
    opened.expect("the store can always be opened").0
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
pub fn poll_all(server: &mut Server) -> Vec<StoreReply> {
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
    let replies = ask(server, device, StoreRequest::List { request: 1 });
    let [StoreReply::Documents { documents, .. }] = replies.as_slice() else {
        panic!("list answered {replies:?}");
    };
    let mut model = Model::default();
    for key in documents {
        let opened = open_document(server, device, key).expect("it was listed");
        let mut pages = BTreeMap::new();
        if opened.storage.is_some() {
            pages = changes(server, device, key, Lsn::FIRST).pages;
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
    let replies = ask(server, device, StoreRequest::List { request: 1 });
    let [StoreReply::Documents { documents, .. }] = replies.as_slice() else {
        panic!("list answered {replies:?}");
    };
    let mut found = BTreeMap::new();
    for (index, key) in documents.iter().enumerate() {
        let owner = OwnerId(100 + index as u64);
        server.serve(owner, StoreRequest::Open { document: key.clone() });
        let (document, since, urgency) = (key.clone(), Lsn::FIRST, Urgency::User);
        server.serve(owner, StoreRequest::Changes { request: 2, urgency, document, since });
        let answer = match settle(server, device).as_slice() {
            [StoreReply::Opened { state: Some(opened), .. }, StoreReply::Changes { set, .. }] => {
                let document = Some(ModelDocument::of(opened, set.pages.clone()));
                Answer { document, is_incomplete: opened.is_incomplete }
            }
            replies => {
                let is_broken = |reply: &StoreReply| matches!(reply, StoreReply::Broken { .. });
                assert!(replies.iter().any(is_broken), "{key:?} answered {replies:?}");
                Answer { document: None, is_incomplete: false }
            }
        };
        found.insert(key.clone(), answer);
    }
    found
}

pub fn changes(
    server: &mut Server,
    device: &CrashDevice,
    document: &DocumentKey,
    since: Lsn,
) -> PageSet {
    let request = StoreRequest::Changes {
        request: 2,
        urgency: Urgency::User,
        document: document.clone(),
        since,
    };
    match ask(server, device, request).as_slice() {
        [StoreReply::Changes { set, .. }] => set.clone(),
        other => panic!("changes answered {other:?}"),
    }
}
