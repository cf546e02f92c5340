//! Files are no longer than what is in them.

use tidelog_disk::CrashDevice;
use tidelog_testing::store::make::{entry, key, storage, timeline};
use tidelog_testing::store::open_document;
use tidelog_types::limits::PAGE_SIZE;

use super::{KIB, append, destroy, open, size};

#[test]
fn files_shrink_again() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    let pages: Vec<(u32, u8)> = (1..=2000).map(|pgid| (pgid, 1)).collect();
    assert!(append(&mut server, &device, 1, storage("large", [entry(1, 2, 2000, &pages)])));
    let filler = |fill: u8| {
        let mut filler = timeline("filler", []);
        filler.record = Some(vec![fill; 50_000].into());
        filler
    };
    assert!(append(&mut server, &device, 2, filler(1)));
    let logs = size(&device, "log-a") + size(&device, "log-b");
    assert!(logs < 700 * KIB, "an import of 8 MiB leaves logs of {logs}");
    assert!(size(&device, "pages") > 2000 * PAGE_SIZE as u64);
    destroy(&mut server, &device, 3, "large");
    for ticket in 4..12 {
        assert!(append(&mut server, &device, ticket, filler(ticket as u8)));
    }
    let left = size(&device, "pages");
    assert!(left < 16 * KIB, "a page file of {left} bytes for no page");
    drop(server);
    assert!(open_document(&mut open(&device), &device, &key("filler")).is_some());
}

/// Goal: documents of some hundred pages take about as much of the device as they are large.
/// Method: several of them, with names of their own, all in the page file.
#[test]
fn documents_of_a_hundred_pages_take_about_as_much_room_as_they_have_pages() {
    const PAGES: u32 = 100;
    for documents in [10, 40] {
        let device = CrashDevice::new();
        let mut server = open(&device);
        let pages: Vec<(u32, u8)> = (1..=PAGES).map(|pgid| (pgid, 1)).collect();
        for number in 1..=documents {
            let document = storage(&format!("d{number}"), [entry(1, 2, PAGES, &pages)]);
            assert!(append(&mut server, &device, number, document));
        }
        let (taken, pages) = (size(&device, "pages"), documents * u64::from(PAGES));
        let most = (pages + pages / 10) * PAGE_SIZE as u64 + 256 * PAGE_SIZE as u64;
        assert!(taken <= most, "{taken} bytes for {pages} pages");
    }
}
