//! Change-overs that find no room, or damage.

use tidelog_disk::{CrashDevice, Disk as _};
use tidelog_pages::{Append, OwnerId, RequestId, StoreOptions, StoreReply, StoreRequest, Ticket};
use tidelog_testing::store::make::{
    durable, entry, key, page, read_of, request, storage, timeline,
};
use tidelog_testing::store::{OWNER, ask, open_document, open_with, settle};
use tidelog_types::Pgid;
use tidelog_types::limits::PAGE_SIZE;

use super::{KIB, append, kept, open, size, sizes};

/// A device with a document of one page and as many others, on which nothing more fits: a
/// change-over least of all, since the other log file would have to grow.
fn filled(others: u64) -> CrashDevice {
    let device = CrashDevice::new();
    let options = StoreOptions { log_size_max: 4096 * KIB, ..sizes() };
    let mut server = open_with(&device, options);
    assert!(append(&mut server, &device, 1, storage("d", [entry(1, 2, 1, &[(1, 1)])])));
    for ticket in 2..2 + others {
        server.serve(OWNER, request(ticket, timeline(&format!("d{ticket}"), [])));
    }
    server.flush();
    device.set_capacity(Some(device.used()));
    settle(&mut server, &device);
    for size in [4000, 4] {
        let mut notes = Append::to(key("notes"));
        let is_full = (0..1000).any(|fill| {
            notes.record = Some(vec![fill as u8; size].into());
            open_document(&mut server, &device, &key("notes"));
            !append(&mut server, &device, 900_000, notes.clone())
        });
        assert!(is_full, "a change-over made room");
    }
    device
}

/// Goal: of what may take the reserve as much is carried out as fits. Method: more documents are
/// destroyed at once than the reserve has room for, with and without an append beside them.
#[test]
fn as_much_is_destroyed_on_a_full_device_as_the_reserve_has_room_for() {
    for is_beside in [false, true] {
        let device = filled(2000);
        let mut server = open(&device);
        if is_beside {
            let mut large = Append::to(key("large"));
            large.record = Some(vec![1; 300_000].into());
            server.serve(OwnerId(2), request(1, large));
        }
        for ticket in 2..2002 {
            let document = key(&format!("d{ticket}"));
            server.serve(OWNER, StoreRequest::Destroy { ticket: Ticket(ticket), document });
        }
        server.flush();
        let replies = settle(&mut server, &device);
        let is_failed = |reply: &&StoreReply| matches!(reply, StoreReply::AppendFailed { .. });
        let failed = replies.iter().filter(is_failed).count() - usize::from(is_beside);
        assert!(failed < 1700, "{failed} of 2000 destructions failed");
        drop(server);
        let mut server = open(&device);
        let listed = ask(&mut server, &device, StoreRequest::List { request: RequestId(1) });
        let [StoreReply::Documents { documents, .. }] = listed.as_slice() else { panic!() };
        let left = documents.iter().filter(|key| key.document.starts_with('d')).count() - 1;
        assert_eq!(left, failed, "what failed is there, and nothing else");
    }
}

/// Goal: a change-over that can never succeed is not tried for ever. Method: one is given up for
/// want of room, what it would read rots, and something is destroyed, so that it is tried again.
#[test]
fn a_change_over_that_meets_damage_is_not_begun_again_at_once() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    for ticket in 1..=6 {
        let of = storage(&format!("d{ticket}"), [entry(1, 2, 1, &[(1, 0xA0 + ticket as u8)])]);
        assert!(append(&mut server, &device, ticket, of));
    }
    device.set_full(true);
    let mut large = Append::to(key("large"));
    large.record = Some(vec![1; 100_000].into());
    assert!(!append(&mut server, &device, 7, large));
    device.set_full(false);
    let log = device.bytes_of("log-a").expect("a file");
    let at = log.windows(PAGE_SIZE).position(|run| run.iter().all(|byte| *byte == 0xA2));
    let at = at.expect("the page lies there") as u64 + 100;
    device.file("log-a").write_at(at, &[0xAA]).expect("room");
    let ticket = Ticket(8);
    server.serve(OWNER, StoreRequest::Destroy { ticket, document: key("d1") });
    server.flush();
    let (mut polls, mut replies) = (0, Vec::new());
    while server.wants_poll() {
        polls += 1;
        assert!(polls < 1000, "it has something to do for ever");
        replies.extend(server.poll().into_iter().map(|(_, reply)| reply));
    }
    assert_eq!(replies, [durable(8)]);
    let read = ask(&mut server, &device, read_of(1, "d4", [1]));
    assert!(matches!(read.as_slice(), [StoreReply::Pages { pages, .. }] if pages.len() == 1));
}

/// Goal: nothing that rots while a change-over goes on takes the place of what is whole. Method: a
/// byte of a page that it moves changes behind each of its polls, and is put right at the end.
#[test]
fn what_rots_amid_a_change_over_is_not_moved() {
    let (mut tries, mut given_up) = (0, 0);
    loop {
        let device = CrashDevice::new();
        let mut server = open(&device);
        assert!(append(&mut server, &device, 1, storage("d", [entry(1, 2, 1, &[(1, 0xA2)])])));
        server.rest();
        server.serve(OWNER, request(2, kept("notes", 100)));
        server.flush();
        (0..tries).for_each(|_| drop(server.poll()));
        let log = device.bytes_of("log-a").expect("a file");
        let at = log.windows(PAGE_SIZE).position(|run| run.iter().all(|byte| *byte == 0xA2));
        // Once it has ended, the file is cut off.
        let Some(at) = at else { break };
        tries += 1;
        let mut log = device.file("log-a");
        let mut becomes = |byte| log.write_at(at as u64 + 100, &[byte]).expect("room");
        becomes(0xAA);
        settle(&mut server, &device);
        if server.to_string().contains("log-a generation 1 ") {
            given_up += 1;
            becomes(0xA2);
        }
        let read = ask(&mut server, &device, read_of(1, "d", [1]));
        let [StoreReply::Pages { pages, .. }] = read.as_slice() else {
            panic!("{tries}: {read:?}")
        };
        assert_eq!(*pages, [(Pgid(1), page(0xA2))], "behind poll {tries}");
    }
    assert!((1..tries).contains(&given_up), "{given_up} of {tries} were given up");
}

/// Goal: a change-over that is given up leaves no less room than there was. Method: one that has
/// room for part of the state, and none for the rest.
#[test]
fn a_change_over_that_is_given_up_gives_back_what_it_took() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    assert!(append(&mut server, &device, 1, storage("d", [entry(1, 2, 1, &[(1, 1)])])));
    let free = 800 * KIB;
    let used = || ["log-a", "log-b", "pages"].iter().map(|file| size(&device, file)).sum::<u64>();
    device.set_capacity(Some(used() + free));
    let notes = |size: u64| {
        let mut notes = Append::to(key("notes"));
        notes.record = Some(vec![1; usize::try_from(size).expect("small")].into());
        notes
    };
    assert!(append(&mut server, &device, 2, notes(300 * KIB)));
    let log = size(&device, "log-a");
    assert!(used() < log + 230 * KIB, "a change-over was begun and took {} bytes", used() - log);
    assert!(append(&mut server, &device, 3, notes(500 * KIB)), "there is room in the log");
}

/// Goal: the same of one that is begun by the first poll of all. Method: a log that was never
/// polled, and room for part of the state.
#[test]
fn a_change_over_that_is_given_up_at_opening_gives_back_what_it_took() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    assert!(append(&mut server, &device, 1, timeline("d", 1..=1)));
    let before = size(&device, "log-b");
    for ticket in 2..17 {
        let mut large = timeline(&format!("large{ticket}"), []);
        large.record = Some(vec![1; 60_000].into());
        server.serve(OWNER, request(ticket, large));
    }
    server.flush();
    drop(server);
    device.set_capacity(Some(device.used() + 500 * KIB));
    let mut server = open(&device);
    settle(&mut server, &device);
    assert!(server.to_string().contains("generation 1 "), "it had room: {server}");
    assert_eq!(size(&device, "log-b"), before);
    assert!(append(&mut server, &device, 17, timeline("d", 2..=2)));
}
