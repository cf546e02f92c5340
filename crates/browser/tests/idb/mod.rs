//! The store in IndexedDB, which both kinds of workers have.

mod golden;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use js_sys::{Array, Function, Object, Promise, Reflect, Uint8Array};
use tidelog_browser::{IdbDatabase, IdbDisk, Left, PageServerHost, ReplyHost};
use tidelog_disk::{Disk, DiskError, StoreFiles, conformance};
use tidelog_pages::{Append, StoreOptions, StoreReply, StoreRequest, Ticket};
use tidelog_sync::codec::port;
use tidelog_types::limits::BLOCK_STORE_SIZE_MAX;
use tidelog_types::{DocumentKey, Epoch, Life};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use wasm_bindgen_test::*;

/// Opens the database of that name, which is emptied first if told so. It notes the durability of
/// each transaction that writes in `asked`, and the last transaction in `last`.
const OPEN: &str = "
    return new Promise((resolve, reject) => {
        if (anew) indexedDB.deleteDatabase(name);
        const opening = indexedDB.open(name, 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore('blocks');
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
            const database = opening.result;
            database.asked = [];
            database.transaction = function (store, mode, options) {
                if (mode === 'readwrite') this.asked.push(options.durability);
                return (this.last = IDBDatabase.prototype.transaction.call(
                    this, store, mode, options));
            };
            resolve(database);
        };
    });";

/// Resolves when all transactions that were begun before have ended.
const ENDED: &str = "
    return new Promise((resolve) => {
        const last = IDBDatabase.prototype.transaction.call(database, 'blocks');
        last.objectStore('blocks').count();
        last.oncomplete = resolve;
    });";

async fn call(body: &str, names: &str, args: &[&JsValue]) -> JsValue {
    let function = Function::new_with_args(names, body);
    let args: Array = args.iter().copied().collect();
    let promise: Promise = function.apply(&JsValue::NULL, &args).expect("it runs").unchecked_into();
    JsFuture::from(promise).await.expect("it succeeds")
}

/// A database, as JavaScript has it.
async fn database(name: &str, anew: bool) -> JsValue {
    call(OPEN, "name, anew", &[&name.into(), &anew.into()]).await
}

async fn ended(database: &JsValue) {
    call(ENDED, "database", &[database]).await;
}

fn property(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &name.into()).expect("an object")
}

/// The files in a database, and how often it was said that a flush has ended.
async fn try_files(database: &JsValue) -> (Result<StoreFiles<IdbDisk>, DiskError>, Rc<Cell<u32>>) {
    let notified = Rc::new(Cell::new(0));
    let count = Rc::clone(&notified);
    let handle: IdbDatabase = database.clone().unchecked_into();
    let found = Rc::new(RefCell::new(None));
    let files = Rc::clone(&found);
    let opened = Promise::new(&mut |resolve, _| {
        let files = Rc::clone(&files);
        let count = Rc::clone(&count);
        let then = move |opened| {
            *files.borrow_mut() = Some(opened);
            resolve.call0(&JsValue::NULL).expect("a promise");
        };
        IdbDisk::open(handle.clone().unchecked_into(), move || count.set(count.get() + 1), then);
    });
    JsFuture::from(opened).await.expect("never rejected");
    let files = found.borrow_mut().take().expect("handed over");
    (files, notified)
}

async fn files(database: &JsValue) -> StoreFiles<IdbDisk> {
    try_files(database).await.0.expect("files")
}

fn bytes_of(disk: &IdbDisk) -> Vec<u8> {
    let mut bytes = vec![9; disk.size() as usize];
    disk.read_at(0, &mut bytes).expect("within the file");
    bytes
}

#[wasm_bindgen_test]
async fn a_disk_in_indexeddb_keeps_the_laws() {
    let mut disks = Vec::new();
    let mut databases = Vec::new();
    for index in 0..4 {
        let database = database(&format!("conformance-{index}"), true).await;
        let StoreFiles { log_a, log_b, pages, spare } = files(&database).await;
        disks.extend([log_a, log_b, pages, spare]);
        databases.push(database);
    }
    let new = || disks.pop().expect("BUG: the suite has grown: open more");
    conformance::run_later(new, async |_| {
        for database in &databases {
            // One is closed with the last of its disks.
            if is_open(database) {
                ended(database).await;
            }
        }
    })
    .await;
}

fn is_open(database: &JsValue) -> bool {
    let begin = Function::new_with_args(
        "database",
        "try { IDBDatabase.prototype.transaction.call(database, 'blocks'); return true; }
         catch { return false; }",
    );
    begin.call1(&JsValue::NULL, database).expect("it runs").is_truthy()
}

#[wasm_bindgen_test]
async fn what_was_flushed_is_found_again_and_nothing_else() {
    let database_1 = database("reopen", true).await;
    let StoreFiles { mut log_a, mut pages, .. } = files(&database_1).await;
    log_a.write_at(3, b"abc").expect("room");
    log_a.write_at(40_000, b"far").expect("room");
    pages.write_at(0, &[7; 50_000]).expect("room");
    log_a.request_flush().expect("a healthy disk");
    pages.request_flush().expect("a healthy disk");
    // A tail that is cut off is gone from the database too, and a gap stays a gap.
    pages.set_size(20_000).expect("a smaller size");
    pages.write_at(60_000, b"z").expect("room");
    pages.request_flush().expect("a healthy disk");
    log_a.write_at(0, b"not flushed").expect("room");
    ended(&database_1).await;
    assert_eq!(
        property(&database_1, "asked").unchecked_into::<Array>().join(" "),
        "strict strict strict"
    );
    drop((log_a, pages));

    let found = files(&database("reopen", false).await).await;
    assert_eq!(found.log_a.size(), 40_003);
    assert_eq!(bytes_of(&found.log_a)[..6], *b"\0\0\0abc");
    assert_eq!(bytes_of(&found.log_a)[40_000..], *b"far");
    let mut expected = vec![0; 60_001];
    expected[..20_000].fill(7);
    expected[60_000] = b'z';
    assert!(bytes_of(&found.pages) == expected);
    assert_eq!((found.log_b.size(), found.spare.size()), (0, 0));
}

#[wasm_bindgen_test]
async fn many_blocks_are_found_again() {
    let database_1 = database("many", true).await;
    let StoreFiles { mut pages, mut spare, .. } = files(&database_1).await;
    let bytes: Vec<u8> = (0..9_000_000_u32).map(|index| (index / 16_000) as u8).collect();
    pages.write_at(0, &bytes).expect("room");
    spare.write_at(0, b"behind them").expect("room");
    pages.request_flush().expect("a healthy disk");
    spare.request_flush().expect("a healthy disk");
    ended(&database_1).await;
    drop((pages, spare));
    let found = files(&database("many", false).await).await;
    assert!(bytes_of(&found.pages) == bytes);
    assert_eq!(bytes_of(&found.spare), b"behind them");
}

/// Ends the last transaction as a device does that is full.
const FAIL: &str = "
    Object.defineProperty(database.last, 'error', {
        value: new DOMException('no room', 'QuotaExceededError'),
    });
    database.last.abort();
    return Promise.resolve();";

#[wasm_bindgen_test]
async fn a_transaction_that_fails_poisons_and_says_why_once() {
    let database_1 = database("poison", true).await;
    let (files_1, notified) = try_files(&database_1).await;
    let StoreFiles { mut log_a, mut pages, .. } = files_1.expect("files");
    log_a.write_at(0, b"kept").expect("room");
    log_a.request_flush().expect("a healthy disk");
    ended(&database_1).await;
    log_a.write_at(0, b"lost").expect("room");
    let id = log_a.request_flush().expect("so far");
    call(FAIL, "database", &[&database_1]).await;
    assert!(log_a.flushed().expect("nothing has come yet") < Some(id));
    ended(&database_1).await;
    assert_eq!(notified.get(), 2, "its host was told both times");
    // Until somebody asks what became of it, what is here can be read, and nothing be added.
    assert_eq!(bytes_of(&log_a), b"lost");
    assert_eq!(pages.set_size(7), Err(DiskError::Poisoned));
    assert_eq!(log_a.write_at(0, b"abc"), Err(DiskError::Poisoned));
    assert_eq!(log_a.request_flush(), Err(DiskError::Poisoned));
    assert_eq!(log_a.flushed(), Err(DiskError::FlushFull));
    assert_eq!(log_a.flushed(), Err(DiskError::Poisoned));
    assert_eq!(log_a.write_at(0, b"abc"), Err(DiskError::Poisoned));
    assert_eq!(log_a.request_flush(), Err(DiskError::Poisoned));
    // They are one store.
    assert_eq!(pages.set_size(7), Err(DiskError::Poisoned));
    assert_eq!(pages.read_at(0, &mut []), Err(DiskError::Poisoned));
    drop((log_a, pages));
    let found = files(&database("poison", false).await).await;
    assert_eq!(bytes_of(&found.log_a), b"kept");
}

/// Of the next transactions each has no room for its second block.
const REFUSE: &str = "
    database.transaction = function (store, mode, options) {
        const transaction = IDBDatabase.prototype.transaction.call(this, store, mode, options);
        let left = 1;
        transaction.objectStore(store).put = function (...record) {
            if (left-- === 0) throw new RangeError('no room');
            return IDBObjectStore.prototype.put.apply(this, record);
        };
        return transaction;
    };
    return Promise.resolve();";

#[wasm_bindgen_test]
async fn of_a_transaction_that_cannot_be_filled_nothing_is_kept() {
    let database_1 = database("refuse", true).await;
    let StoreFiles { mut log_a, .. } = files(&database_1).await;
    log_a.write_at(0, &[7; 50_000]).expect("room");
    log_a.request_flush().expect("a healthy disk");
    ended(&database_1).await;
    log_a.set_size(20_000).expect("a smaller size");
    log_a.write_at(0, &[8; 20_000]).expect("room");
    call(REFUSE, "database", &[&database_1]).await;
    assert!(matches!(log_a.request_flush(), Err(DiskError::Device { .. })));
    ended(&database_1).await;
    assert_eq!(log_a.flushed(), Err(DiskError::Poisoned), "it was said already");
    drop(log_a);
    let found = files(&database("refuse", false).await).await;
    assert!(bytes_of(&found.log_a) == [7; 50_000]);
}

#[wasm_bindgen_test]
async fn a_database_that_was_closed_under_a_disk_says_so() {
    let database = database("closed", true).await;
    let StoreFiles { mut log_a, .. } = files(&database).await;
    let close: Function = property(&database, "close").unchecked_into();
    close.call0(&database).expect("open");
    log_a.write_at(0, b"abc").expect("memory");
    assert!(matches!(log_a.request_flush(), Err(DiskError::Device { .. })));
    assert_eq!(log_a.write_at(0, b"abc"), Err(DiskError::Poisoned));
}

#[wasm_bindgen_test]
async fn a_store_as_large_as_memory_may_be_is_full_and_can_be_cut() {
    let database = database("bound", true).await;
    let StoreFiles { mut log_a, mut pages, .. } = files(&database).await;
    let chunk = vec![1; 1 << 20];
    let mut written = 0;
    while log_a.write_at(written, &chunk).is_ok() {
        written += chunk.len() as u64;
    }
    assert_eq!(written, BLOCK_STORE_SIZE_MAX);
    assert_eq!(log_a.write_at(written, b"x"), Err(DiskError::Full));
    assert_eq!(pages.write_at(0, b"x"), Err(DiskError::Full), "the bound is the store's");
    log_a.write_at(7, b"within").expect("no more blocks");
    pages.set_size(1 << 30).expect("zeros take no room");
    assert_eq!(pages.write_at(u64::MAX, b"x"), Err(DiskError::Full));
    assert_eq!(pages.set_size(u64::MAX), Err(DiskError::Full));
    log_a.set_size(written / 2).expect("a smaller size");
    pages.write_at(1 << 29, &chunk).expect("room again");
}

type Heard = Rc<RefCell<Vec<StoreReply>>>;

/// A page server on the files in `database`, and what it answers.
async fn page_server(database: &JsValue) -> (PageServerHost, Heard) {
    let heard = Heard::default();
    let told = Rc::clone(&heard);
    let reply = Closure::<dyn Fn(u32, Uint8Array)>::new(move |_, bytes: Uint8Array| {
        let replies: Vec<StoreReply> = port::decode(&bytes.to_vec()).expect("replies");
        told.borrow_mut().extend(replies);
    });
    let host = Object::new();
    Reflect::set(&host, &"reply".into(), &reply.into_js_value()).expect("an object");
    let host = host.unchecked_into::<ReplyHost>();
    (
        PageServerHost::open(files(database).await, StoreOptions::in_memory(), host)
            .expect("a store"),
        heard,
    )
}

#[wasm_bindgen_test]
async fn a_page_server_says_durable_when_the_transaction_is_complete_and_not_before() {
    let document = DocumentKey::new("groceries", "").expect("a name");
    let mut append = Append::to(document.clone());
    append.record = Some(b"notes".to_vec().into());
    let hello = StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE };
    let append = StoreRequest::Append { ticket: Ticket(1), append };
    // Until only the end of a transaction can bring more.
    let go_on = |server: &mut PageServerHost, mut left: Left| {
        while left == Left::More {
            left = server.proceed();
        }
        assert_eq!(left, Left::Nothing);
    };
    let ask = |server: &mut PageServerHost, requests: &[StoreRequest]| {
        let notices: Vec<(Ticket, u32, serde_bytes::ByteBuf)> = vec![];
        let left = server.serve(0, &port::encode(&(requests, notices)));
        go_on(server, left);
    };
    let proceed = |server: &mut PageServerHost| go_on(server, Left::More);
    let database_1 = database("store", true).await;
    let (mut server, heard) = page_server(&database_1).await;
    ask(&mut server, &[hello.clone(), append]);
    assert!(heard.borrow().is_empty(), "a transaction takes its time: {heard:?}");
    ended(&database_1).await;
    proceed(&mut server);
    assert!(heard.borrow().is_empty(), "first the pages' blocks say that there is a log");
    ended(&database_1).await;
    proceed(&mut server);
    let replies = heard.take();
    let epoch = match replies.as_slice() {
        [StoreReply::Ready { epoch }, StoreReply::Durable { ticket: Ticket(1) }] => *epoch,
        other => panic!("unexpected replies: {other:?}"),
    };
    drop(server);

    let database_2 = database("store", false).await;
    let (mut server, heard) = page_server(&database_2).await;
    ask(&mut server, &[hello, StoreRequest::Open { document }]);
    ended(&database_2).await;
    proceed(&mut server);
    let replies = heard.take();
    let found = replies.iter().find_map(|reply| match reply {
        StoreReply::Opened { state, .. } => state.as_ref().map(|state| state.record.clone()),
        _ => None,
    });
    assert_eq!(found.as_deref(), Some(b"notes".as_slice()));
    let higher =
        |reply: &StoreReply| matches!(reply, StoreReply::Ready { epoch: it } if *it > epoch);
    assert!(replies.iter().any(higher), "{replies:?}");
}
