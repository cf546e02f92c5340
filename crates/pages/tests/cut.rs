//! Cuts through a store that goes on.

use std::collections::BTreeMap;

use tidelog_disk::{CrashDevice, Disk, StoreFiles};
use tidelog_pages::{CutError, PageServer, StoreCut, StoreRequest, Ticket};
use tidelog_testing::Rng;
use tidelog_testing::store::make::{entry, key, request, storage, timeline};
use tidelog_testing::store::{
    OWNER, Server, files, observe, open, open_with, seed, settle, small_log,
};

/// Bytes that are copied between two steps of the store.
const PIECE_SIZE: u64 = 16 * 1024;

/// Appends something of one of three documents, or destroys one of them.
struct Writer {
    rng: Rng,
    ticket: u64,
    /// Where the storage journals of the documents stand.
    next: [u64; 3],
}

impl Writer {
    fn write(&mut self, server: &mut Server) {
        self.ticket += 1;
        let index = self.rng.below(3);
        let name = ["a", "b", "c"][index];
        if self.rng.below(40) == 0 {
            let (ticket, document) = (Ticket(self.ticket), key(name));
            server.serve(OWNER, StoreRequest::Destroy { ticket, document });
            self.next[index] = 1;
        } else {
            let next = self.next[index];
            let pages: Vec<(u32, u8)> = (0..1 + self.rng.below(12))
                .map(|_| (1 + self.rng.below(90) as u32, self.rng.below(255) as u8))
                .collect::<BTreeMap<_, _>>()
                .into_iter()
                .collect();
            self.next[index] += 1;
            let append = storage(name, [entry(next, next + 1, 90, &pages)]);
            server.serve(OWNER, request(self.ticket, append));
        }
        server.flush();
    }
}

/// Copies so many bytes of a file from there on.
fn copy(from: &CrashDevice, to: &CrashDevice, name: &str, at: u64, end: u64) -> u64 {
    let size = PIECE_SIZE.min(end - at);
    let mut bytes = vec![0; size as usize];
    from.file(name).read_at(at, &mut bytes).expect("it is there");
    to.file(name).write_at(at, &bytes).expect("there is room");
    at + size
}

/// All files as they are at this moment, as a process that is killed would leave them.
fn snapshot(device: &CrashDevice) -> CrashDevice {
    let left = CrashDevice::new();
    for name in StoreFiles::<()>::NAMES {
        let size = device.file(name).size();
        let mut at = 0;
        while at < size {
            at = copy(device, &left, name, at, size);
        }
    }
    left
}

/// Copies what a cut speaks of, a piece at a time, while `meanwhile` happens in between.
fn copied(device: &CrashDevice, cut: &StoreCut, mut meanwhile: impl FnMut()) -> CrashDevice {
    let to = CrashDevice::new();
    let log = cut.log.to_string();
    to.file(&log).write_at(0, &cut.log_head).expect("there is room");
    let mut log_at = cut.log_head.len() as u64;
    let mut pages_at = 0;
    while log_at < cut.log_size || pages_at < cut.pages_size {
        meanwhile();
        if pages_at < cut.pages_size {
            pages_at = copy(device, &to, "pages", pages_at, cut.pages_size);
        } else {
            log_at = copy(device, &to, &log, log_at, cut.log_size);
        }
    }
    to
}

fn generation(server: &Server) -> u64 {
    let text = server.to_string();
    let after = text.split("generation ").nth(1).expect("it is displayed");
    after.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Goal: whoever copies the files has the store as it was when the copy began, to the byte, however
/// much is written meanwhile. Method: cuts at many moments, amid change-overs too, copied while so
/// much is appended that the log would go over to its other file several times; what a process
/// leaves that is killed at the moment of the cut has to be the same.
#[test]
fn a_cut_is_the_store_as_it_was_however_long_it_is_copied() {
    let (mut amid, mut grown) = (0, 0);
    for number in 0..24 {
        let device = CrashDevice::new();
        let mut server = open(&device);
        let mut writer = Writer { rng: Rng::new(number), ticket: 0, next: [1; 3] };
        for _ in 0..40 + number * 7 {
            writer.write(&mut server);
            if writer.rng.below(3) == 0 {
                settle(&mut server, &device);
            } else {
                server.poll();
            }
        }
        amid += u64::from(server.wants_poll());
        let cut = server.cut().expect("it is whole");
        let left = snapshot(&device);
        let expected = observe(&mut open(&left), &left);
        let before = generation(&server);
        let to = copied(&device, &cut, || {
            for _ in 0..6 {
                writer.write(&mut server);
                settle(&mut server, &device);
            }
        });
        grown += u64::from(server.log_size() > 3 * small_log().log_size_max);
        assert!(generation(&server) <= before + 1, "the next one waits");
        drop(cut);
        let mut restored = open(&to);
        assert_eq!(observe(&mut restored, &to), expected, "seed {number}");
        // It goes on, and so does the other one, which changes over now.
        settle(&mut server, &device);
        assert!(generation(&server) > before, "seed {number}");
        let now = observe(&mut server, &device);
        assert_eq!(observe(&mut open(&device), &device), now, "seed {number}");
        let again = request(1_000_000, timeline("later", 1..3));
        restored.serve(OWNER, again);
        restored.flush();
        settle(&mut restored, &to);
        let now = observe(&mut restored, &to);
        assert_eq!(observe(&mut open(&to), &to), now);
    }
    assert!(amid > 4 && grown > 4, "{amid} amid something, {grown} with a long log");
}

#[test]
fn there_is_no_cut_through_what_is_damaged() {
    let (device, mut server) = tidelog_testing::store::new();
    server.serve(OWNER, request(1, timeline("a", 1..50)));
    server.flush();
    settle(&mut server, &device);
    server.mark_durable();
    drop(server);
    device.file("log-a").write_at(8192 + 200, &[0xff; 64]).expect("there is room");
    let (server, found) =
        PageServer::open_with(files(&device), seed(&device), small_log()).expect("it is read");
    assert!(found.damage.is_some());
    assert_eq!(server.cut().err(), Some(CutError::Damaged));
    drop(server);
    let _ = open_with(&device, small_log());
}
