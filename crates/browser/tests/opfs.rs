//! The store on the origin private file system, in the only kind of worker that can open its files.

#![cfg(target_arch = "wasm32")]

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Object, Reflect, Uint8Array};
use serde_bytes::ByteBuf;
use tidelog_browser::{Left, OpfsDisk, PageServerHost, ReplyHost, Unopened};
use tidelog_disk::{CrashDevice, Disk, DiskError, StoreFiles, conformance};
use tidelog_pages::{
    Append, RequestId, StorageEntry, StoreOptions, StoreReply, StoreRequest, Ticket, Urgency,
};
use tidelog_sync::codec::port;
use tidelog_types::limits::Limits;
use tidelog_types::{
    DocumentKey, Epoch, JournalId, Life, Lsn, LsnRange, Page, PageSet, Pgid, Position, UnservedKind,
};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use wasm_bindgen_test::*;
use web_sys::{
    DedicatedWorkerGlobalScope, FileSystemDirectoryHandle, FileSystemFileHandle,
    FileSystemGetDirectoryOptions, FileSystemGetFileOptions, FileSystemRemoveOptions,
    FileSystemSyncAccessHandle,
};

wasm_bindgen_test_configure!(run_in_dedicated_worker);

/// Disks that the conformance suite uses up.
const DISKS: usize = 12;

/// An empty folder of that name.
async fn folder(name: &str) -> FileSystemDirectoryHandle {
    let scope: DedicatedWorkerGlobalScope = js_sys::global().unchecked_into();
    let root = JsFuture::from(scope.navigator().storage().get_directory()).await;
    let root: FileSystemDirectoryHandle = root.expect("files").unchecked_into();
    let recursive = FileSystemRemoveOptions::new();
    recursive.set_recursive(true);
    // It is not there at first.
    let _ = JsFuture::from(root.remove_entry_with_options(name, &recursive)).await;
    let create = FileSystemGetDirectoryOptions::new();
    create.set_create(true);
    let made = JsFuture::from(root.get_directory_handle_with_options(name, &create)).await;
    made.expect("a folder").unchecked_into()
}

async fn open(folder: &FileSystemDirectoryHandle, name: &str) -> FileSystemSyncAccessHandle {
    let create = FileSystemGetFileOptions::new();
    create.set_create(true);
    let file = JsFuture::from(folder.get_file_handle_with_options(name, &create)).await;
    let file: FileSystemFileHandle = file.expect("a file").unchecked_into();
    let handle = JsFuture::from(file.create_sync_access_handle()).await;
    handle.expect("nobody else has the file").unchecked_into()
}

async fn disk_in(folder: &FileSystemDirectoryHandle, name: &str) -> OpfsDisk {
    OpfsDisk::new(open(folder, name).await).expect("a size")
}

#[wasm_bindgen_test]
async fn a_disk_of_the_origin_keeps_the_laws() {
    let folder = folder("conformance").await;
    let mut disks = Vec::new();
    for index in 0..DISKS {
        disks.push(disk_in(&folder, &format!("disk-{index}")).await);
    }
    conformance::run(|| disks.pop().expect("BUG: the suite has grown: raise DISKS"));
}

#[wasm_bindgen_test]
async fn a_disk_keeps_its_bytes_and_frees_its_file_when_it_is_dropped() {
    let folder = folder("reopen").await;
    let mut disk = disk_in(&folder, "file").await;
    disk.write_at(3, b"abc").expect("room");
    disk.request_flush().expect("a healthy disk");
    drop(disk);
    let disk = disk_in(&folder, "file").await;
    let mut bytes = [9; 6];
    disk.read_at(0, &mut bytes).expect("within the file");
    assert_eq!(&bytes, b"\0\0\0abc");
}

#[wasm_bindgen_test]
async fn a_disk_whose_handle_was_closed_says_so() {
    let folder = folder("closed").await;
    let handle = open(&folder, "file").await;
    let mut disk = OpfsDisk::new(handle.clone()).expect("a size");
    handle.close();
    assert!(matches!(disk.write_at(0, b"abc"), Err(DiskError::Device { .. })));
    assert!(matches!(disk.request_flush(), Err(DiskError::Device { .. })));
    assert_eq!(disk.write_at(0, b"abc"), Err(DiskError::Poisoned));
}

type Heard = Rc<RefCell<Vec<(u32, StoreReply)>>>;
type Notices = Vec<(Ticket, u32, ByteBuf)>;

thread_local! {
    /// Whose tabs were told what.
    static TOLD: RefCell<Vec<(u32, u32, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
    /// Why page servers could not go on.
    static FAILED: RefCell<Vec<(u32, String)>> = const { RefCell::new(Vec::new()) };
}

/// A host, and what is answered through it.
fn listener() -> (ReplyHost, Heard) {
    let heard = Heard::default();
    let told = Rc::clone(&heard);
    let reply = Closure::<dyn Fn(u32, Uint8Array)>::new(move |owner, bytes: Uint8Array| {
        let replies: Vec<StoreReply> = port::decode(&bytes.to_vec()).expect("replies");
        told.borrow_mut().extend(replies.into_iter().map(|reply| (owner, reply)));
    });
    let tell = Closure::<dyn Fn(u32, u32, Uint8Array)>::new(|owner, tab, bytes: Uint8Array| {
        TOLD.with_borrow_mut(|told| told.push((owner, tab, bytes.to_vec())));
    });
    let host = Object::new();
    let failed = Closure::<dyn Fn(u32, String)>::new(|kind, reason| {
        FAILED.with_borrow_mut(|failed| failed.push((kind, reason)));
    });
    Reflect::set(&host, &"tell".into(), &tell.into_js_value()).expect("an object");
    Reflect::set(&host, &"failed".into(), &failed.into_js_value()).expect("an object");
    Reflect::set(&host, &"reply".into(), &reply.into_js_value()).expect("an object");
    (host.unchecked_into(), heard)
}

/// A page server on the files in `folder`, and what it answers.
async fn page_server(
    folder: &FileSystemDirectoryHandle,
) -> Result<(PageServerHost, Heard), Unopened> {
    let files = StoreFiles {
        log_a: disk_in(folder, "log-a").await,
        log_b: disk_in(folder, "log-b").await,
        pages: disk_in(folder, "pages").await,
        spare: disk_in(folder, "spare").await,
    };
    let (host, heard) = listener();
    Ok((PageServerHost::open(files, StoreOptions::of_device(), host)?, heard))
}

/// Goal: nothing that a hand-over needs is run for the first time then. Method: whoever warms up is
/// let in and told durable at each opening, also of what the log held already.
#[wasm_bindgen_test]
fn a_warm_up_serves_what_a_hand_over_asks_for() {
    let (host, heard) = listener();
    tidelog_browser::warm_up(&host);
    let heard = heard.borrow();
    let ready = heard.iter().filter(|(_, reply)| matches!(reply, StoreReply::Ready { .. })).count();
    let durable: Vec<Ticket> = heard.iter().filter_map(|(_, reply)| durable_of(reply)).collect();
    assert!(ready > 1, "{heard:?}");
    assert_eq!(durable, vec![durable[0]; ready], "{heard:?}");
    assert_eq!(heard.len(), 2 * ready, "nothing fails: {heard:?}");
}

fn durable_of(reply: &StoreReply) -> Option<Ticket> {
    match reply {
        StoreReply::Durable { ticket } => Some(*ticket),
        _ => None,
    }
}

fn ask(server: &mut PageServerHost, owner: u32, requests: &[StoreRequest]) -> Left {
    ask_noting(server, owner, requests, vec![])
}

fn ask_noting(
    server: &mut PageServerHost,
    owner: u32,
    requests: &[StoreRequest],
    notices: Notices,
) -> Left {
    let mut left = server.serve(owner, &port::encode(&(requests, notices)));
    while left == Left::More {
        left = server.proceed();
    }
    left
}

#[wasm_bindgen_test]
async fn what_was_called_durable_is_found_by_the_next_page_server() {
    let folder = folder("store").await;
    let document = DocumentKey::new("groceries", "").expect("a name");
    let mut append = Append::to(document.clone());
    append.record = Some(b"notes".to_vec().into());
    let (mut server, heard) = page_server(&folder).await.expect("a store");
    let requests = [
        StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE },
        StoreRequest::Append { ticket: Ticket(1), append },
    ];
    assert_eq!(ask(&mut server, 0, &requests), Left::Nothing);
    let epoch = match heard.borrow().as_slice() {
        [(0, StoreReply::Ready { epoch }), (0, StoreReply::Durable { ticket: Ticket(1) })] => {
            *epoch
        }
        other => panic!("unexpected replies: {other:?}"),
    };
    drop(server);

    let (mut server, heard) = page_server(&folder).await.expect("a store");
    let requests = [
        StoreRequest::Hello { epoch, life: Life::NONE },
        StoreRequest::Open { document: document.clone() },
    ];
    assert_eq!(ask(&mut server, 0, &requests), Left::Nothing);
    let found = heard.borrow().iter().find_map(|(_, reply)| match reply {
        StoreReply::Opened { state, .. } => state.as_ref().map(|state| state.record.clone()),
        _ => None,
    });
    assert_eq!(found.as_deref(), Some(b"notes".as_slice()));
    let granted = heard.borrow().iter().find_map(|(_, reply)| match reply {
        StoreReply::Ready { epoch } => Some(*epoch),
        _ => None,
    });
    assert!(granted > Some(epoch), "each page server grants a higher epoch");

    // A core that was replaced is told so, and the store goes on.
    ask(&mut server, 1, &[StoreRequest::Hello { epoch: Epoch(1), life: Life::NONE }]);
    heard.borrow_mut().clear();
    assert_eq!(ask(&mut server, 0, &[StoreRequest::Open { document }]), Left::Nothing);
    assert!(matches!(heard.borrow().as_slice(), [(0, StoreReply::Broken { .. })]));
}

#[wasm_bindgen_test]
async fn a_tab_is_told_what_is_durable_and_nothing_of_an_append_that_failed() {
    let folder = folder("notices").await;
    let document = DocumentKey::new("groceries", "").expect("a name");
    let append = |ticket, trim| {
        let mut append = Append::to(document.clone());
        append.record = Some(b"notes".to_vec().into());
        append.trim_timeline = trim;
        StoreRequest::Append { ticket: Ticket(ticket), append }
    };
    let notice = |ticket, tab| (Ticket(ticket), tab, b"it is on disk".to_vec().into());
    let (mut server, heard) = page_server(&folder).await.expect("a store");
    let hello = StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE };
    ask_noting(&mut server, 0, &[hello, append(1, None)], vec![notice(1, 7), notice(3, 7)]);
    // There is no timeline to trim.
    ask_noting(&mut server, 0, &[append(2, Lsn::new(9))], vec![notice(2, 8)]);
    let told = TOLD.take();
    assert_eq!(told, [(0, 7, b"it is on disk".to_vec())]);
    let failed = |(_, reply): &(u32, StoreReply)| {
        matches!(reply, StoreReply::AppendFailed { ticket: Ticket(2), .. })
    };
    assert!(heard.borrow().iter().any(failed), "{heard:?}");
}

/// Goal: where somebody waits, nobody waits for long. Method: pages are counted slice by slice, of
/// a large read alone, and after another owner asked amid it.
#[wasm_bindgen_test]
async fn who_asks_amid_a_large_read_makes_its_slices_shorter() {
    const PAGES: u32 = 1000;
    let folder = folder("slices").await;
    let document = DocumentKey::new("groceries", "").expect("a name");
    let journal = JournalId([1; 16]);
    let (range, page) = (LsnRange::one(Lsn::FIRST), Page::zeroed());
    let pages = (1..=PAGES).map(|pgid| (Pgid(pgid), page.clone())).collect();
    let position = Position { next: range.end(), ..Position::start_of(journal) };
    let set = PageSet { db_pages: PAGES, pages };
    let mut append = Append::to(document.clone());
    append.begin_storage = Some(journal);
    append.storage = vec![StorageEntry { range, position, calls: Vec::new(), set }];
    let (mut server, heard) = page_server(&folder).await.expect("a store");
    ask(&mut server, 0, &[StoreRequest::Append { ticket: Ticket(1), append }]);
    heard.take();

    let read = |pgids| {
        let (request, urgency, document) = (RequestId(1), Urgency::User, document.clone());
        let request = StoreRequest::Read { request, urgency, document, pgids };
        port::encode(&(vec![request], Notices::new()))
    };
    let pages_heard = || {
        let pages = |reply: (u32, StoreReply)| match reply {
            (0, StoreReply::Pages { pages, .. }) => pages.len(),
            _ => 0,
        };
        heard.take().into_iter().map(pages).sum::<usize>()
    };
    assert_eq!(server.serve(0, &read((1..=PAGES).map(Pgid).collect())), Left::More);
    assert!(pages_heard() > Limits::DEFAULT.read_chunk_pages);
    server.proceed();
    assert!(pages_heard() > Limits::DEFAULT.read_chunk_pages);
    assert_eq!(server.serve(1, &read(vec![Pgid(7)])), Left::More);
    pages_heard();
    for _ in 0..5 {
        assert_eq!(server.proceed(), Left::More);
        assert_eq!(pages_heard(), Limits::DEFAULT.read_chunk_pages);
    }
}

#[wasm_bindgen_test]
async fn bytes_that_are_no_requests_break_the_page_server() {
    let folder = folder("garbage").await;
    let (mut server, heard) = page_server(&folder).await.expect("a store");
    assert_eq!(server.serve(0, &[1, 2, 3]), Left::Nothing);
    assert!(heard.borrow().is_empty());
    let [(kind, reason)] = <[_; 1]>::try_from(FAILED.take()).expect("its host is told once");
    assert_eq!(kind, UnservedKind::Unavailable.number(), "{reason}");
}

#[wasm_bindgen_test]
async fn files_that_are_no_store_any_more_are_left_alone() {
    let folder = folder("foreign").await;
    let (mut server, heard) = page_server(&folder).await.expect("a store");
    let mut append = Append::to(DocumentKey::new("groceries", "").expect("a name"));
    append.record = Some(b"notes".to_vec().into());
    let hello = StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE };
    let append = StoreRequest::Append { ticket: Ticket(1), append };
    ask(&mut server, 0, &[hello, append]);
    let is_durable = |(_, reply): &(u32, _)| matches!(reply, StoreReply::Durable { .. });
    assert!(heard.borrow().iter().any(is_durable), "{heard:?}");
    drop(server);
    for name in ["log-a", "log-b"] {
        let mut disk = disk_in(&folder, name).await;
        disk.write_at(0, &[7; 10_000]).expect("room");
    }
    let refused = page_server(&folder).await.err().expect("no store");
    assert_eq!(refused.kind, UnservedKind::Damaged, "{refused:?}");
    let mut start = vec![0; 10_000];
    disk_in(&folder, "log-a").await.read_at(0, &mut start).expect("bytes");
    assert_eq!(start, [7; 10_000]);
}

#[wasm_bindgen_test]
async fn a_device_without_room_for_a_store_is_told_from_a_damaged_one() {
    let device = CrashDevice::new();
    device.set_capacity(Some(100));
    let files = StoreFiles::open_each(|name| Ok::<_, ()>(device.file(name))).expect("no errors");
    let host = Object::new().unchecked_into::<ReplyHost>();
    let refused =
        PageServerHost::open(files, StoreOptions::of_device(), host).err().expect("no room");
    assert_eq!(refused.kind, UnservedKind::Full, "{refused:?}");
}

#[wasm_bindgen_test]
async fn after_the_data_were_cleared_appends_fail_and_reads_do_not() {
    let folder = folder("cleared").await;
    let document = DocumentKey::new("groceries", "").expect("a name");
    let append = |ticket, record: &[u8]| {
        let mut append = Append::to(document.clone());
        append.record = Some(record.to_vec().into());
        StoreRequest::Append { ticket: Ticket(ticket), append }
    };
    let (mut server, heard) = page_server(&folder).await.expect("a store");
    ask(
        &mut server,
        0,
        &[StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE }, append(1, b"kept")],
    );
    server.lose();
    heard.borrow_mut().clear();
    let notice = (Ticket(2), 7, b"it is on disk".to_vec().into());
    assert_eq!(ask_noting(&mut server, 0, &[append(2, b"lost")], vec![notice]), Left::Nothing);
    let failed =
        |reply: &StoreReply| matches!(reply, StoreReply::AppendFailed { ticket: Ticket(2), .. });
    assert!(matches!(heard.borrow().as_slice(), [(0, reply)] if failed(reply)), "{heard:?}");
    heard.borrow_mut().clear();
    ask(&mut server, 0, &[StoreRequest::Open { document }]);
    let found = heard.borrow().iter().find_map(|(_, reply)| match reply {
        StoreReply::Opened { state, .. } => state.as_ref().map(|state| state.record.clone()),
        _ => None,
    });
    assert_eq!(found.as_deref(), Some(b"kept".as_slice()));
    assert_eq!(TOLD.take(), []);
}
