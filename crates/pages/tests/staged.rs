//! An entry that comes in many appends, of a document that then takes the place of another one.
//!
//! Goal: nobody sees a part of it as a whole, whatever happens in between. Method: a document is
//! replaced by one that was put together under another name, through change-overs, and with the
//! power cut after each disk call.

use tidelog_disk::{BLOCK_SIZE, CrashDevice, Disk};
use tidelog_pages::{
    Append, AppendError, PageServer, RequestId, StoreOptions, StoreReply, StoreRequest, Ticket,
};
use tidelog_testing::store::make::{durable, entry, key, lsn, page, read_of, request, storage};
use tidelog_testing::store::{
    OWNER, Server, ask, changes, files, log_end, open, open_document, seed, settle, small_log,
    with_ticket,
};
use tidelog_types::{Lsn, Pgid};

const PART_PAGES: u32 = 5;
const PARTS: u32 = 6;
const PAGES: u32 = PART_PAGES * PARTS;

/// What is at the name before.
fn old() -> Append {
    storage("list", [entry(1, 2, 3, &[(1, 101), (2, 102), (3, 103)])])
}

fn fill(number: u32) -> u8 {
    u8::try_from(number).expect("few")
}

fn part(index: u32) -> Append {
    let pages: Vec<(u32, u8)> =
        (1..=PART_PAGES).map(|n| index * PART_PAGES + n).map(|n| (n, fill(n))).collect();
    let mut entry = entry(1, 9, PAGES, &pages);
    entry.calls.clear();
    Append { is_cut: true, ..storage("staged", [entry]) }
}

/// What ends the entry.
fn end() -> Append {
    let mut rest = entry(1, 9, PAGES, &[]);
    rest.calls.clear();
    let entries = [rest, entry(9, 10, PAGES, &[(2, 99)])];
    Append { take_name: Some(key("list")), ..storage("staged", entries) }
}

fn script() -> Vec<StoreRequest> {
    let appends = [old()].into_iter().chain((0..PARTS).map(part)).chain([end()]);
    appends.zip(1..).map(|(append, ticket)| request(ticket, append)).collect()
}

fn names(server: &mut Server, device: &CrashDevice) -> Vec<String> {
    match ask(server, device, StoreRequest::List { request: RequestId(1) }).as_slice() {
        [StoreReply::Documents { documents, .. }] => {
            documents.iter().map(|key| key.document.clone()).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Whether the document is the new one, and whole; otherwise it is the old one, and whole.
fn is_new(server: &mut Server, device: &CrashDevice) -> bool {
    let opened = open_document(server, device, &key("list")).expect("it is one of the two");
    let set = changes(server, device, &key("list"), Lsn::FIRST);
    assert_eq!(opened.db_pages, set.db_pages);
    let fills: Vec<u8> = set.pages.values().map(|page| page.bytes()[0]).collect();
    let next = opened.storage.expect("it was begun").next;
    if next == lsn(2) {
        assert_eq!(fills, [101, 102, 103]);
        return false;
    }
    assert_eq!(next, lsn(10));
    let expected = (1..=PAGES).map(|number| if number == 2 { 99 } else { fill(number) });
    assert_eq!(fills, expected.collect::<Vec<_>>());
    true
}

#[test]
fn an_entry_comes_in_many_appends_and_its_document_takes_the_place_of_another() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let mut requests = script();
    let last = requests.pop().expect("the end");
    for request in requests {
        server.serve(OWNER, request);
        server.flush();
        settle(&mut server, &device);
    }
    for _ in 0..2 {
        let staged = open_document(&mut server, &device, &key("staged")).expect("it has begun");
        assert_eq!(staged.storage.map(|it| (it.next, staged.db_pages)), Some((Lsn::FIRST, 0)));
        let replies = ask(&mut server, &device, read_of(7, "staged", [1, PAGES]));
        let [StoreReply::Pages { pages, .. }] = replies.as_slice() else { panic!("{replies:?}") };
        assert_eq!(pages[..], [(Pgid(1), page(1)), (Pgid(PAGES), page(fill(PAGES)))]);
        assert!(!is_new(&mut server, &device));
        drop(server);
        server = open(&device);
    }
    server.serve(OWNER, last);
    server.flush();
    let replies = settle(&mut server, &device);
    assert_eq!(replies, [durable(u64::from(PARTS) + 2)]);
    for _ in 0..2 {
        assert!(is_new(&mut server, &device));
        assert_eq!(names(&mut server, &device), ["list"]);
        drop(server);
        server = open(&device);
    }
}

/// Goal: nothing that is said of the new document becomes that of the one before. Method: the
/// append by which it takes the name fails, each time for another reason, and notes follow it.
#[test]
fn what_comes_behind_a_document_that_could_not_take_its_name_is_refused() {
    let misplaced = AppendError::OutOfPlace { reason: String::new() };
    for (is_full, next, error) in [(true, lsn(10), AppendError::Full), (false, lsn(12), misplaced)]
    {
        let device = CrashDevice::new();
        let mut server = open(&device);
        let mut requests = script();
        requests.pop();
        for request in requests {
            server.serve(OWNER, request);
            server.flush();
            settle(&mut server, &device);
        }
        let ticket = u64::from(PARTS) + 2;
        let mut end = end();
        end.storage[1].position.next = next;
        device.set_full(is_full);
        server.serve(OWNER, request(ticket, end));
        server.flush();
        device.set_full(false);
        let mut notes = Append::to(key("list"));
        notes.record = Some(vec![7].into());
        server.serve(OWNER, request(ticket + 1, notes));
        server.flush();
        let mut failed: Vec<(Ticket, bool)> = settle(&mut server, &device)
            .into_iter()
            .map(|reply| match reply {
                StoreReply::AppendFailed { ticket, error: it } => {
                    (ticket, std::mem::discriminant(&it) == std::mem::discriminant(&error))
                }
                other => panic!("{other:?} after {error}"),
            })
            .collect();
        failed.sort_unstable();
        assert_eq!(failed, [(Ticket(ticket), true), (Ticket(ticket + 1), true)]);
        assert!(!is_new(&mut server, &device));
        let opened = open_document(&mut server, &device, &key("list")).expect("it is there");
        assert!(opened.record.is_empty(), "what was said of the other one");
    }
}

/// Goal: no document takes the name of one of which its owner does not know yet that an append
/// failed, since it was made behind that.
#[test]
fn no_document_takes_a_name_behind_an_append_to_it_that_failed() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let mut requests = script();
    let last = requests.pop().expect("the end");
    for request in requests {
        server.serve(OWNER, request);
        server.flush();
        settle(&mut server, &device);
    }
    let misplaced = storage("list", [entry(4, 5, 3, &[(1, 1)])]);
    server.serve(OWNER, request(u64::from(PARTS) + 2, misplaced));
    server.serve(OWNER, with_ticket(last, Ticket(u64::from(PARTS) + 3)));
    server.flush();
    let replies = settle(&mut server, &device);
    let is_failure = |reply: &StoreReply| matches!(reply, StoreReply::AppendFailed { .. });
    assert!(replies.len() == 2 && replies.iter().all(is_failure), "{replies:?}");
    assert!(!is_new(&mut server, &device));
}

#[test]
fn a_power_cut_leaves_one_document_or_the_other() {
    let whole = CrashDevice::new();
    let run = |device: &CrashDevice, cut: u64| {
        device.power_off_after(cut);
        let mut server = open(device);
        let mut heard = Vec::new();
        for request in script() {
            server.serve(OWNER, request);
            server.flush();
            heard.extend(settle(&mut server, device));
        }
        heard.contains(&durable(u64::from(PARTS) + 2))
    };
    assert!(run(&whole, u64::MAX));
    let first = CrashDevice::new();
    drop(open(&first));
    let mut seen = [0, 0];
    for cut in whole.changing_calls().into_iter().filter(|call| *call > first.calls()) {
        for choice in 0..3_usize {
            let device = CrashDevice::new();
            let is_told = run(&device, cut);
            let left = device.crash(&mut |versions| choice.min(versions - 1));
            let mut server = open(&left);
            if open_document(&mut server, &left, &key("list")).is_none() {
                assert!(!is_told);
                continue;
            }
            let is_new_now = is_new(&mut server, &left);
            assert!(is_new_now || !is_told, "call {cut}: what was durable is gone");
            seen[usize::from(is_new_now)] += 1;
            // It can be done again over what is left.
            let mut again = script();
            if let Some(StoreRequest::Append { append, .. }) = again.get_mut(1) {
                append.is_anew = true;
            }
            for request in again.into_iter().skip(1) {
                server.serve(OWNER, request);
                server.flush();
                settle(&mut server, &left);
            }
            assert!(is_new(&mut server, &left), "call {cut}");
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// Goal: a document that was replaced is never taken for the newest state, whatever of its
/// successor has rotted; and what has nothing to do with the two is in no doubt as long as the name
/// that was taken can be read. Method: bytes of the log change, one at a time.
#[test]
fn a_document_whose_successor_is_damaged_is_in_doubt() {
    let open = |device: &CrashDevice| {
        let options = StoreOptions { log_size_max: 1024 * 1024, ..small_log() };
        PageServer::open_with(files(device), seed(device), options).expect("it can be read")
    };
    let device = CrashDevice::new();
    let mut server = open(&device).0;
    let others = (1..=2).map(|ticket| request(100 + ticket, storage(&format!("o{ticket}"), [])));
    let untouched = request(100, storage("untouched", []));
    let mut ends = Vec::new();
    for request in [untouched].into_iter().chain(script()).chain(others) {
        server.serve(OWNER, request);
        server.flush();
        settle(&mut server, &device);
        ends.push(log_end(&server));
    }
    drop(server);
    let (start, end) = (ends[1], ends[usize::try_from(PARTS).expect("few") + 2]);
    let mut beside = 0;
    for at in (start..end).step_by(193) {
        let device = device.kill();
        let bytes = device.bytes_of("log-a").expect("a file");
        let block_end = (at + 1).next_multiple_of(BLOCK_SIZE as u64);
        let [at_byte, block_end] = [at, block_end].map(|at| usize::try_from(at).expect("small"));
        if bytes[at_byte..block_end].iter().all(|byte| *byte == 0) {
            // Between two writes nothing is said.
            continue;
        }
        let byte = bytes[at_byte];
        device.file("log-a").write_at(at, &[byte ^ 4]).expect("room");
        let (mut server, report) = open(&device);
        assert!(report.damage.is_some(), "{at}");
        let opened = open_document(&mut server, &device, &key("list")).expect("it is there");
        assert_eq!(opened.storage.map(|position| position.next), Some(lsn(2)));
        assert!(opened.is_incomplete, "a byte at {at} changed: it is older than what was durable");
        let other = open_document(&mut server, &device, &key("o1")).expect("it is there");
        assert!(!other.is_incomplete, "a byte at {at} changed");
        let is_in_page = bytes[at_byte - 8..at_byte + 8].iter().all(|it| *it == byte);
        if byte > 0 && is_in_page {
            let other =
                open_document(&mut server, &device, &key("untouched")).expect("it is there");
            assert!(!other.is_incomplete, "a byte at {at} changed, in a page of another document");
            beside += usize::from(byte == 99);
        }
    }
    assert!(beside > 0, "no page changed that stands beside the name");
}
