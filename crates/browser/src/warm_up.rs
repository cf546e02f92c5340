//! What a page server's worker does while it waits for the store.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_bytes::ByteBuf;
use tidelog_disk::{Disk, DiskError, FlushId, MemoryDisk, StoreFiles};
use tidelog_pages::{Append, StorageEntry, StoreOptions, StoreRequest, Ticket, TimelineFrame};
use tidelog_sync::codec::port;
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{
    CallId, Chain, DocumentKey, Epoch, JournalId, Life, Lsn, LsnRange, Page, PageSet, Pgid,
    Position,
};
use wasm_bindgen::prelude::*;

use crate::{EncodedNotice, PageServerHost, ReplyHost};

/// Appends in the log that is recovered: as many as fill about a megabyte.
const APPENDS: u64 = 84;

/// Times that it is recovered: by the last, a browser has compiled the loops in it well.
const RECOVERIES: usize = 3;

/// Opens a store in memory and is served by it, as the first core is by the store in the files.
///
/// A browser compiles a function of a WebAssembly module when it is first called, and optimizes it
/// when it was called often. A tab that takes the page server over waits for none of that. The host
/// is told what concerns nobody.
#[wasm_bindgen(js_name = warmUpStore)]
pub fn warm_up(host: &ReplyHost) {
    let files = StoreFiles::<SharedDisk>::default();
    let appends: Vec<StoreRequest> = (1..=APPENDS).filter_map(append).collect();
    for number in 0..=RECOVERIES {
        let options = StoreOptions::in_memory();
        let opened = PageServerHost::open(files.clone(), options, host.clone());
        let Ok(mut server) = opened else { return };
        let hello = StoreRequest::Hello { epoch: Epoch(0), life: Life([1; 16]) };
        let mut ask = |requests: &[StoreRequest]| {
            server.serve(0, &port::encode(&(requests, Vec::<EncodedNotice>::new())));
        };
        ask(&[hello]);
        if number == 0 {
            ask(&appends);
        } else {
            // Skipped, since they are there.
            ask(&appends[appends.len() - 2..]);
        }
    }
}

/// What a mutation appends that a server confirms at once.
fn append(number: u64) -> Option<StoreRequest> {
    let (timeline, journal) = (JournalId([1; 16]), JournalId([2; 16]));
    let lsn = Lsn::new(number)?;
    let range = LsnRange::one(lsn);
    let mut append = Append::to(DocumentKey::new("warm-up", "").ok()?);
    append.record = Some(ByteBuf::from([3; 64]));
    if number == 1 {
        append.begin_timeline = Some((timeline, lsn));
        append.begin_storage = Some(journal);
    }
    let call = CallId([number as u8; 16]);
    append.timeline = vec![TimelineFrame { lsn, call, body: vec![4; 64] }];
    let page = Page::new(&[number as u8; PAGE_SIZE])?;
    let pages: BTreeMap<_, _> = (1..=3).map(|pgid| (Pgid(pgid), page.clone())).collect();
    append.storage = vec![StorageEntry {
        range,
        position: Position {
            journal,
            life: Life([1; 16]),
            next: range.end(),
            chain: Chain::default(),
        },
        calls: vec![(call, lsn)],
        set: PageSet { db_pages: 3, pages },
    }];
    Some(StoreRequest::Append { ticket: Ticket(number), append })
}

/// Bytes in memory that outlive the store in them.
#[derive(Clone, Debug, Default)]
struct SharedDisk(Rc<RefCell<MemoryDisk>>);

impl Disk for SharedDisk {
    fn size(&self) -> u64 {
        self.0.borrow().size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.0.borrow().read_at(offset, buf)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.0.borrow_mut().write_at(offset, bytes)
    }

    fn set_size(&mut self, size: u64) -> Result<(), DiskError> {
        self.0.borrow_mut().set_size(size)
    }

    fn request_flush(&mut self) -> Result<FlushId, DiskError> {
        self.0.borrow_mut().request_flush()
    }

    fn flushed(&mut self) -> Result<Option<FlushId>, DiskError> {
        self.0.borrow_mut().flushed()
    }
}
