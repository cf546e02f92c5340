//! Blocks of every format version, as they lie in `tests/golden`: each store opens and holds what
//! was put into it. `cargo xtask golden` writes those of the present version anew.

use std::io::Read as _;

use flate2::read::GzDecoder;
use js_sys::{Array, Uint8Array};
use tidelog_disk::Disk as _;
use tidelog_pages::{
    OpenError, OwnerId, PageServer, RequestId, Seed, StoreReply, StoreRequest, Urgency,
};
use tidelog_types::{DocumentKey, Pgid};
use wasm_bindgen::prelude::*;
use wasm_bindgen_test::*;

use super::{bytes_of, call, database, ended, files, property};

const GOLDEN: &[u8] = include_bytes!("../../../../tests/golden/blocks-v1.gz");
const VERSION: u32 = 1;

/// Puts records into a database, each under the key that it says.
const PUT: &str = "
    return new Promise((resolve, reject) => {
        const transaction = IDBDatabase.prototype.transaction.call(
            database, 'blocks', 'readwrite', { durability: 'strict' });
        const store = transaction.objectStore('blocks');
        store.put(1700000000000, 'made');
        for (const record of records) {
            store.put(record, Number(new DataView(record.buffer).getBigUint64(0, true)));
        }
        transaction.oncomplete = resolve;
        transaction.onabort = () => reject(transaction.error);
    });";

/// All records of a database, in the order of their keys, but not when it was made.
const GET: &str = "
    return new Promise((resolve) => {
        const transaction = IDBDatabase.prototype.transaction.call(database, 'blocks');
        const found = transaction.objectStore('blocks').getAll(IDBKeyRange.lowerBound(0));
        transaction.oncomplete = () =>
            resolve(found.result.filter((record) => record instanceof Uint8Array));
    });";

/// The golden records, in the order of their keys.
fn golden() -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    GzDecoder::new(GOLDEN).read_to_end(&mut bytes).expect("what was packed");
    let mut records = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((size, behind)) = rest.split_first_chunk() {
        let (record, behind) = behind.split_at(u32::from_le_bytes(*size) as usize);
        records.push(record.to_vec());
        rest = behind;
    }
    records
}

async fn put(database: &JsValue, records: &[Vec<u8>]) {
    let records: Array = records.iter().map(|it| Uint8Array::from(it.as_slice())).collect();
    call(PUT, "database, records", &[database, &records]).await;
}

async fn get(database: &JsValue) -> Vec<Vec<u8>> {
    let records: Array = call(GET, "database", &[database]).await.unchecked_into();
    records.iter().map(|record| Uint8Array::new(&record).to_vec()).collect()
}

#[wasm_bindgen_test]
async fn the_golden_blocks_hold_what_was_put_into_them() {
    let database = database("golden", true).await;
    put(&database, &golden()).await;
    let opened = PageServer::open(files(&database).await, Seed(1));
    let (mut server, report) = opened.expect("the store of an earlier release");
    assert!(!report.is_new && report.cut.is_none() && report.damage.is_none(), "{report:?}");
    let (document, urgency) =
        (DocumentKey::new("groceries", "ada").expect("a name"), Urgency::User);
    let pgids = vec![Pgid(2), Pgid(3)];
    server.serve(OwnerId(1), StoreRequest::List { request: RequestId(1) });
    server
        .serve(OwnerId(1), StoreRequest::Read { request: RequestId(2), urgency, document, pgids });
    let mut found = Vec::new();
    let mut names = Vec::new();
    while server.wants_poll() {
        for (_, reply) in server.poll() {
            match reply {
                StoreReply::Documents { documents, .. } => names = documents,
                StoreReply::Pages { pages, .. } => found.extend(pages),
                other => panic!("unasked: {other:?}"),
            }
        }
    }
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["filler", "groceries@ada"]);
    let fills: Vec<(Pgid, u8)> =
        found.iter().map(|(pgid, page)| (*pgid, page.bytes()[9])).collect();
    assert_eq!(fills, [(Pgid(2), 22), (Pgid(3), 13)]);
}

#[wasm_bindgen_test]
async fn what_is_written_today_is_the_golden_blocks_byte_for_byte() {
    let read = database("golden-read", true).await;
    put(&read, &golden()).await;
    let golden_files = files(&read).await;
    let written = database("golden-written", true).await;
    let mut disks = files(&written).await;
    let pairs = [
        (&golden_files.log_a, &mut disks.log_a),
        (&golden_files.log_b, &mut disks.log_b),
        (&golden_files.pages, &mut disks.pages),
    ];
    for (from, to) in pairs {
        let bytes = bytes_of(from);
        // Nothing is left in the log file that is not in use.
        if bytes.is_empty() {
            continue;
        }
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        to.write_at(0, &bytes[..used]).expect("room");
        to.set_size(bytes.len() as u64).expect("room");
        to.request_flush().expect("a healthy disk");
    }
    ended(&written).await;
    assert!(get(&written).await == golden(), "another version, or cargo xtask golden");
}

/// The first block of a file, which is made where nothing is left in the file: so it is in the log
/// file that is not in use.
fn first_block(records: &mut Vec<Vec<u8>>, file: u8) -> &mut [u8] {
    const BLOCK_SIZE: usize = 16 * 1024;
    let key = |block: u32| (u64::from(file) << 32 | u64::from(block)).to_le_bytes();
    let found = records.iter().position(|record| record[..8] == key(0));
    let at = found.unwrap_or_else(|| {
        let block = [key(0).as_slice(), &[0; BLOCK_SIZE]].concat();
        let size = [key(u32::MAX), (BLOCK_SIZE as u64).to_le_bytes()].concat();
        records.splice(0..0, [block, size]);
        0
    });
    &mut records[at]
}

#[wasm_bindgen_test]
async fn a_newer_version_in_the_blocks_is_refused_and_left_untouched() {
    for file in [0_u8, 1, 2] {
        let mut records = golden();
        let first = first_block(&mut records, file);
        for at in [8, 8 + 4096] {
            let header = &mut first[at..at + 512];
            header[..8].copy_from_slice(if file == 2 { b"TIDEPAGE" } else { b"TIDELOG1" });
            header[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
            let checksum = crc32c::crc32c(&header[..508]).to_le_bytes();
            header[508..].copy_from_slice(&checksum);
        }
        let database = database(&format!("golden-newer-{file}"), true).await;
        put(&database, &records).await;
        let error = PageServer::open(files(&database).await, Seed(1)).err();
        assert_eq!(error, Some(OpenError::NewerFormat { found: VERSION + 1, known: VERSION }));
        assert_eq!(property(&database, "asked").unchecked_into::<Array>().length(), 0);
        // Its disks have closed it.
        let again = super::database(&format!("golden-newer-{file}"), false).await;
        assert!(get(&again).await == records, "file {file} was touched");
    }
}
