//! A store whose durable bytes have changed: what is left of it, and what is said about it.

use std::collections::BTreeMap;

use tidelog_disk::{BLOCK_SIZE, CrashDevice, Disk, Grown};
use tidelog_journal::{FRAME_HEADER_SIZE, LogFile, RecoverError};
use tidelog_pages::{
    Append, AppendError, DamageReport, OpenError, PageServer, RecoveryReport, StoreOptions,
    StoreReply, StoreRequest, Ticket,
};
use tidelog_testing::store::make::{
    self, durable, entry, key, lsn, page, request, storage, timeline,
};
use tidelog_testing::store::{
    Model, OWNER, Server, ask, files, log_end, observe, open, open_document, open_with, plain,
    seed, settle, small_log, try_observe,
};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{Epoch, Life, Pgid};

/// Where the frames of a log file begin.
const LOG_START: u64 = tidelog_journal::LOG_START;

/// A store with three documents, and its states after each append.
struct Scene {
    device: CrashDevice,
    states: Vec<Model>,
    /// Where the log ended after each append.
    ends: Vec<u64>,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self { device: CrashDevice::new(), states: Vec::new(), ends: Vec::new() };
        let mut server = open(&scene.device);
        let mut both = timeline("b", 1..3);
        both.begin_storage = Some(make::STORAGE);
        both.storage = vec![entry(1, 2, 1, &[(1, 9)])];
        let mut notes = Append::to(key("c"));
        notes.record = Some(b"notes".to_vec().into());
        let appends = [
            storage("a", [entry(1, 2, 3, &[(1, 1), (2, 2)])]),
            both,
            notes,
            storage("a", [entry(2, 5, 2, &[(2, 3)])]),
            storage("a", [entry(5, 6, 2, &[(1, 4)])]),
            timeline("b", [3]),
        ];
        for (ticket, append) in (1..).zip(appends) {
            scene.append(&mut server, ticket, append);
        }
        scene
    }

    fn append(&mut self, server: &mut Server, ticket: u64, append: Append) {
        server.serve(OWNER, request(ticket, append));
        server.flush();
        assert_eq!(settle(server, &self.device), [durable(ticket)]);
        self.states.push(observe(server, &self.device));
        self.ends.push(log_end(server));
    }

    /// The same store with this bit flipped.
    fn with(&self, file: &str, bit: u64) -> CrashDevice {
        let device = self.device.kill();
        let byte = device.bytes_of(file).expect("a file")[(bit / 8) as usize];
        device.file(file).write_at_all(bit / 8, byte ^ (1 << (bit % 8)));
        device
    }
}

trait WriteAll {
    fn write_at_all(self, at: u64, byte: u8);
}

impl WriteAll for tidelog_disk::CrashDisk {
    fn write_at_all(mut self, at: u64, byte: u8) {
        tidelog_disk::Disk::write_at(&mut self, at, &[byte]).expect("room");
    }
}

fn open_damaged(device: &CrashDevice) -> (Server, RecoveryReport) {
    PageServer::open_with(files(device), seed(device), small_log())
        .expect("it can be opened for reading")
}

/// Where the write begins that follows what ends here.
fn begin_of(end: u64) -> u64 {
    end.next_multiple_of(BLOCK_SIZE as u64)
}

fn damage(device: &CrashDevice) -> DamageReport {
    open_damaged(device).1.damage.expect("it is damaged")
}

/// Goal: an owner knows the store by epochs that grow, though none can be written down. Method: one
/// says hello, under the epoch that it was granted last, each time that the store is opened.
#[test]
fn a_damaged_store_grants_a_higher_epoch_each_time_that_it_is_opened() {
    let scene = Scene::new();
    let device = scene.with("log-a", (scene.ends[2] + 1000) * 8);
    let mut epoch = Epoch(0);
    for _ in 0..3 {
        let (mut server, _) = open_damaged(&device);
        let hello = StoreRequest::Hello { epoch, life: Life::NONE };
        match ask(&mut server, &device, hello)[..] {
            [StoreReply::Ready { epoch: granted }] if granted > epoch => epoch = granted,
            ref other => panic!("{other:?} after {epoch}"),
        }
    }
}

#[test]
fn a_damaged_body_costs_its_document_what_follows_and_others_nothing() {
    let scene = Scene::new();
    // In a page of the second entry of `a`.
    let device = scene.with("log-a", (scene.ends[2] + 1000) * 8);
    let report = damage(&device);
    assert_eq!(report.places.len(), 1);
    let (offset, size) = (report.places[0].offset, report.places[0].size);
    assert_eq!((begin_of(offset), offset + size), (scene.ends[2], scene.ends[3]));
    assert_eq!((report.incomplete, report.nameless), (vec![key("a")], 0));

    let (mut server, _) = open_damaged(&device);
    let expected = scene.states.last().expect("some");
    let observed = observe(&mut server, &device);
    for name in ["b", "c"] {
        assert_eq!(observed.0[&key(name)], expected.0[&key(name)]);
        let opened = open_document(&mut server, &device, &key(name)).expect("it is there");
        assert!(!opened.is_incomplete);
    }
    assert_eq!(observed.0[&key("a")], scene.states[2].0[&key("a")], "as before the gap");
    let opened = open_document(&mut server, &device, &key("a")).expect("it is there");
    assert!(opened.is_incomplete);
    assert_eq!(opened.storage.map(|position| position.next), Some(lsn(2)));
}

#[test]
fn nothing_is_written_to_a_damaged_store_and_everything_asked_for_is_answered() {
    let scene = Scene::new();
    let device = scene.with("log-a", (scene.ends[2] + 1000) * 8);
    let bytes = || ["log-a", "log-b", "pages"].map(|name| device.bytes_of(name));
    let before = bytes();
    let (mut server, report) = open_damaged(&device);
    server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(4), life: Life::NONE });
    server.flush();
    assert_eq!(settle(&mut server, &device), [StoreReply::Ready { epoch: Epoch(5) }]);
    assert_eq!(server.epoch(), Epoch(5));
    let error = AppendError::Damaged;
    let refused =
        |ticket| StoreReply::AppendFailed { ticket: Ticket(ticket), error: error.clone() };
    let append = request(1, timeline("b", [4]));
    assert_eq!(ask(&mut server, &device, append), [refused(1)]);
    let append = request(2, timeline("new", [1]));
    assert_eq!(ask(&mut server, &device, append), [refused(2)]);
    let destroy = StoreRequest::Destroy { ticket: Ticket(3), document: key("c") };
    assert_eq!(ask(&mut server, &device, destroy), [refused(3)]);
    drop(server);
    assert_eq!(bytes(), before);
    assert_eq!(open_damaged(&device).1, report, "it stays what it is");
}

/// Goal: nobody is told of an append that is in the log that nothing of it is recorded. Method: the
/// page server before this one recorded all of them and told nobody; so did one that destroyed a
/// document.
#[test]
fn what_a_damaged_store_has_is_durable_when_it_is_handed_over_again() {
    let scene = Scene::new();
    let hand_over = |server: &mut Server, request| {
        server.serve(OWNER, request);
        server.flush();
        settle(server, &scene.device)
    };
    let destroy = || StoreRequest::Destroy { ticket: Ticket(7), document: key("c") };
    assert_eq!(hand_over(&mut open(&scene.device), destroy()), [durable(7)]);
    let device = scene.with("log-a", (scene.ends[2] + 1000) * 8);
    let (mut server, report) = open_damaged(&device);
    assert_eq!(report.damage.expect("it is damaged").incomplete, [key("a")]);
    let mut answer = |ticket, append| hand_over(&mut server, request(ticket, append));
    assert_eq!(answer(1, storage("a", [entry(1, 2, 3, &[(1, 1), (2, 2)])])), [durable(1)]);
    assert_eq!(answer(6, timeline("b", [3])), [durable(6)]);
    let refused = |ticket| {
        let (ticket, error) = (Ticket(ticket), AppendError::Damaged);
        [StoreReply::AppendFailed { ticket, error }]
    };
    assert_eq!(answer(5, storage("a", [entry(5, 6, 2, &[(1, 4)])])), refused(5), "it is lost");
    assert_eq!(answer(8, timeline("b", [4])), refused(8), "it is new");
    assert_eq!(answer(9, timeline("b", [3])), refused(9), "it comes behind what was refused");
    assert_eq!(hand_over(&mut server, destroy()), [durable(7)]);
}

#[test]
fn where_a_header_is_lost_too_only_what_is_found_later_proves_a_document_whole() {
    let scene = Scene::new();
    // The header of the second entry of `a`: nothing of `c` follows, and of `b` something does.
    let report = damage(&scene.with("log-a", (scene.ends[2] + 60) * 8));
    assert_eq!(report.incomplete, [key("a"), key("c")]);
    // That of the document `c`, or of its notes.
    let report = damage(&scene.with("log-a", (scene.ends[1] + 60) * 8));
    assert_eq!((report.incomplete, report.nameless), (vec![], 1));
    // A name alone.
    let report = damage(&scene.with("log-a", (LOG_START + FRAME_HEADER_SIZE as u64 + 5) * 8));
    assert_eq!((report.incomplete, report.nameless), (vec![], 1), "all of `a` was one batch");
}

#[test]
fn a_damaged_checkpoint_leaves_what_lies_before_and_behind() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    for (ticket, name) in [(1, "a"), (2, "b"), (3, "c")] {
        server.serve(OWNER, request(ticket, storage(name, [entry(1, 2, 8, &[(1, ticket as u8)])])));
    }
    let mut filler = Append::to(key("filler"));
    filler.record = Some(vec![1; 80_000].into());
    server.serve(OWNER, request(4, filler));
    server.flush();
    settle(&mut server, &device);
    assert!(server.to_string().contains("log log-b generation 2"), "{server}");
    server.serve(OWNER, request(5, storage("c", [entry(2, 3, 8, &[(2, 33)])])));
    server.flush();
    settle(&mut server, &device);
    let expected = plain(&observe(&mut server, &device));
    drop(server);
    let bytes = device.bytes_of("log-b").expect("a file");
    let name = bytes.windows(6).position(|it| it == b"\x01\0b\0\0\0").expect("its name") as u64;
    let device = {
        let left = device.kill();
        left.file("log-b").write_at_all(name, 9);
        left
    };
    let (mut server, report) = open_damaged(&device);
    let report = report.damage.expect("it is damaged");
    assert_eq!((report.incomplete, report.nameless), (vec![], 1));
    let observed = observe(&mut server, &device);
    assert_eq!(observed.0.len(), 3);
    assert!(observed.0.iter().all(|(key, document)| expected.0[key] == *document));
    assert_eq!(observed.0[&key("c")].pages[&Pgid(2)].1, page(33));
}

/// Goal: slots that were flushed and are gone are damage, which no opening repairs: what lay in
/// them is nowhere else. Method: pages are checkpointed, and the page file is cut off behind its
/// header and one slot.
#[test]
fn a_page_file_that_lost_checkpointed_pages_is_refused_and_left_as_it_is() {
    let device = CrashDevice::new();
    let mut server = open(&device);
    server.serve(OWNER, request(1, storage("a", [entry(1, 2, 2, &[(1, 1), (2, 2)])])));
    let mut filler = Append::to(key("filler"));
    filler.record = Some(vec![1; 80_000].into());
    server.serve(OWNER, request(2, filler));
    server.flush();
    settle(&mut server, &device);
    assert!(server.to_string().contains("log log-b generation 2"), "{server}");
    drop(server);
    device.file("pages").set_size(3 * PAGE_SIZE as u64).expect("it gets shorter");
    let before = ["log-a", "log-b", "pages"].map(|file| device.bytes_of(file));
    let opened = PageServer::open_with(files(&device), seed(&device), small_log());
    let error = opened.map(|(_, report)| report).expect_err("a page is nowhere");
    assert!(matches!(error, OpenError::Log(RecoverError::Malformed { .. })), "{error:?}");
    assert_eq!(["log-a", "log-b", "pages"].map(|file| device.bytes_of(file)), before);
}

#[test]
fn whatever_bit_flips_no_document_is_what_it_never_was() {
    let scene = Scene::new();
    let size = *scene.ends.last().expect("some");
    let (mut damaged, mut incomplete, mut gaps) = (0, 0, 0);
    let bytes = scene.device.bytes_of("log-a").expect("a file");
    let last = scene.states.last().expect("some");
    for at in (LOG_START..size).step_by(3) {
        let device = scene.with("log-a", at * 8 + at % 8);
        let (mut server, report) = open_damaged(&device);
        let observed = observe(&mut server, &device);
        let rest = &bytes[at as usize..begin_of(at + 1) as usize];
        if report.damage.is_none() && observed == *last && rest.iter().all(|byte| *byte == 0) {
            gaps += 1;
            continue;
        }
        let Some(report) = report.damage else {
            // Of the last batch nothing says that it was durable.
            assert!(report.cut.is_some() && at >= scene.ends[4], "byte {at}");
            assert_eq!(observed, scene.states[4], "byte {at}");
            continue;
        };
        damaged += 1;
        incomplete += report.incomplete.len();
        for (key, document) in &observed.0 {
            if report.incomplete.contains(key) {
                let mut states = scene.states.iter().filter_map(|state| state.0.get(key));
                assert!(states.any(|state| state == document), "byte {at}: {key:?}");
            } else {
                assert_eq!(document, &last.0[key], "byte {at}: {key:?}");
            }
        }
        let missing = last.0.len() - observed.0.len();
        assert!(report.nameless <= missing, "byte {at}: {report:?}");
    }
    assert!(damaged > 4_000 && incomplete > 1_000 && gaps > 1_000, "{damaged} {incomplete} {gaps}");
}

/// Goal: records, calls, mutations and pages are read from the log again and again, and never are
/// what nobody wrote. Method: each byte of both log files is damaged in turn under an open server,
/// with all kinds of frames in copied state and behind it, and put right again.
#[test]
fn what_rots_under_an_open_server_is_refused_and_answered_once_it_is_whole_again() {
    let device = CrashDevice::new();
    let options = StoreOptions { log_size_max: 16 * 1024, pool_pages_max: 1, ..small_log() };
    let mut server = open_with(&device, options);
    let noted = |name: &str, record: &[u8]| {
        let mut append = Append::to(key(name));
        append.record = Some(record.to_vec().into());
        append
    };
    let mut mutations = timeline("b", 1..5);
    mutations.record = Some(vec![3; 700].into());
    let mut trim = Append::to(key("b"));
    trim.trim_timeline = Some(lsn(3));
    let appends = [
        storage("a", [entry(1, 2, 3, &[(1, 1), (2, 2)])]),
        mutations,
        noted("c", b"notes of some length"),
        storage("a", [entry(2, 5, 3, &[(2, 3)])]),
        trim,
        noted("a", b"notes of a, of some length"),
        timeline("b", [5]),
        storage("a", [entry(5, 6, 3, &[(1, 4), (3, 5)])]),
    ];
    for (ticket, append) in (1..).zip(appends) {
        server.serve(OWNER, request(ticket, append));
        server.flush();
        assert_eq!(settle(&mut server, &device), [durable(ticket)]);
    }
    let whole = observe(&mut server, &device);
    let mut refused = BTreeMap::<_, u32>::new();
    let mut of_notes = None;
    for name in ["log-a", "log-b"] {
        let bytes = device.bytes_of(name).expect("a file");
        let is_used = |at: &usize| bytes[at / 8 * 8..].iter().take(8).any(|byte| *byte != 0);
        for at in (0..bytes.len()).filter(is_used) {
            device.file(name).write_at_all(at as u64, bytes[at] ^ (1 << (at % 8)));
            server.rest();
            for (key, answer) in try_observe(&mut server, &device) {
                match answer.document {
                    Some(document) => assert_eq!(document, whole.0[&key], "{name} {at}"),
                    None => {
                        of_notes = of_notes.or((key.document == "c").then_some((name, at)));
                        *refused.entry(key).or_default() += 1;
                    }
                }
            }
            device.file(name).write_at_all(at as u64, bytes[at]);
        }
    }
    let counts: Vec<u32> = refused.into_values().collect();
    assert!(counts.len() == 3 && counts.iter().all(|count| *count > 60), "{counts:?}");
    assert_eq!(observe(&mut server, &device), whole);

    // To note what was noted already is no reason to leave it rotten.
    let (name, at) = of_notes.expect("its record is in the log");
    let byte = device.bytes_of(name).expect("a file")[at];
    device.file(name).write_at_all(at as u64, !byte);
    server.serve(OWNER, request(9, noted("c", b"notes of some length")));
    server.flush();
    assert_eq!(settle(&mut server, &device), [durable(9)]);
    assert_eq!(observe(&mut server, &device), whole);
}

#[test]
fn a_document_whose_destruction_is_lost_gives_way_to_the_next_of_its_name() {
    let mut scene = Scene::new();
    let mut server = open(&scene.device);
    server.serve(OWNER, StoreRequest::Destroy { ticket: Ticket(7), document: key("a") });
    scene.append(&mut server, 8, storage("a", [entry(1, 2, 1, &[(1, 8)])]));
    scene.append(&mut server, 9, timeline("b", [4]));
    drop(server);
    let device = scene.with("log-a", (scene.ends[5] + 100) * 8);
    assert_eq!(begin_of(damage(&device).places[0].offset), scene.ends[5]);
    let (mut server, _) = open_damaged(&device);
    let observed = observe(&mut server, &device);
    assert_eq!(observed.0[&key("a")], scene.states[6].0[&key("a")]);
}

#[test]
fn a_newer_format_and_an_unknown_kind_are_refused_and_left_untouched() {
    let scene = Scene::new();
    let with = |file: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let left = scene.device.kill();
        let mut bytes = left.bytes_of(file).expect("a file");
        change(&mut bytes);
        tidelog_disk::Disk::write_at(&mut left.file(file), 0, &bytes).expect("room");
        let answer = PageServer::open(files(&left), seed(&left)).map(|_| ());
        assert_eq!(left.bytes_of(file), Some(bytes), "{file}");
        answer
    };
    let newer = |magic: &'static [u8; 8]| {
        move |bytes: &mut Vec<u8>| {
            bytes.resize(bytes.len().max(LOG_START as usize), 0);
            for copy in [0, 4096] {
                bytes[copy..copy + 8].copy_from_slice(magic);
                bytes[copy + 8] = 7;
                let checksum = crc32c::crc32c(&bytes[copy..copy + 508]).to_le_bytes();
                bytes[copy + 508..copy + 512].copy_from_slice(&checksum);
            }
        }
    };
    let error = OpenError::NewerFormat { found: 7, known: 1 };
    for (file, magic) in [("log-a", b"TIDELOG1"), ("log-b", b"TIDELOG1"), ("pages", b"TIDEPAGE")] {
        assert_eq!(with(file, &newer(magic)), Err(error.clone()), "{file}");
    }

    let device = CrashDevice::new();
    let mut server = open(&device);
    server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE });
    server.flush();
    settle(&mut server, &device);
    let scene = Scene { device, states: Vec::new(), ends: Vec::new() };
    let with = |kind: u8| {
        let left = scene.device.kill();
        let mut bytes = left.bytes_of("log-a").expect("a file");
        let salt = bytes[40..48].to_vec();
        let frame = &mut bytes[LOG_START as usize..][..FRAME_HEADER_SIZE];
        frame[12] = kind;
        let covered = [&salt[..], &LOG_START.to_le_bytes(), &frame[8..]].concat();
        frame[4..8].copy_from_slice(&crc32c::crc32c(&covered).to_le_bytes());
        tidelog_disk::Disk::write_at(&mut left.file("log-a"), 0, &bytes).expect("room");
        let answer = PageServer::open(files(&left), seed(&left)).map(|_| ());
        assert_eq!(left.bytes_of("log-a"), Some(bytes));
        answer
    };
    assert_eq!(with(1), Ok(()));
    let unknown = with(200);
    assert!(matches!(unknown, Err(OpenError::Log(_))), "{unknown:?}");
}

/// The page file says that there was a log, though it has no page yet.
#[test]
fn a_log_that_is_gone_is_not_taken_for_one_that_never_was() {
    let scene = Scene::new();
    let device = scene.device.crash(&mut |_| 0);
    device.lose("log-a");
    let opened = PageServer::open_with(files(&device), seed(&device), small_log());
    let error = opened.map(|(_, report)| report).expect_err("three documents");
    assert_eq!(error, OpenError::Log(RecoverError::Lost));
    assert_eq!(device.bytes_of("log-a"), Some(Vec::new()), "nothing was written");
}

/// Goal: the same on a device that has hardly any room: nothing is called durable there as long as
/// the page file cannot say that there is a log. Method: devices of more and more room, an owner
/// that says hello, and then both copies of the log's header rot.
#[test]
fn a_log_is_not_taken_for_one_that_never_was_where_the_device_was_full() {
    let (mut ready, mut full) = (0, 0);
    for kib in 1..40 {
        let device = CrashDevice::new();
        device.set_capacity(Some(kib * 1024));
        let open = |device| PageServer::open_with(files(device), seed(device), small_log());
        let is_ready = open(&device).is_ok_and(|(mut server, _)| {
            server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE });
            server.flush();
            let mut replies = (0..50).flat_map(|_| server.poll());
            replies.any(|(_, reply)| matches!(reply, StoreReply::Ready { .. }))
        });
        if !is_ready {
            full += 1;
            continue;
        }
        ready += 1;
        let left = device.crash(&mut |_| 0);
        for copy in [0, 4096] {
            left.file("log-a").write_at_all(copy + 20, 0xAA);
        }
        let error = open(&left).map(|(_, report)| report).expect_err("an epoch was granted");
        let damaged = RecoverError::DamagedHeader { file: LogFile::A };
        assert_eq!(error, OpenError::Log(damaged), "{kib} KiB");
    }
    assert!(ready > 0 && full > 0, "{ready} {full}");
}

/// A power cut at the first opening may leave a file that is as long as its header, and garbage in
/// place of that.
#[test]
fn a_store_can_be_begun_where_a_power_cut_has_left_garbage() {
    for cut in 1..40 {
        let device = CrashDevice::new();
        device.hold_flushes(true);
        device.power_off_after(cut);
        if let Ok((mut server, _)) =
            PageServer::open_with(files(&device), seed(&device), small_log())
        {
            server.serve(OWNER, StoreRequest::Hello { epoch: Epoch(0), life: Life::NONE });
            server.flush();
            settle(&mut server, &device);
        }
        for survives in 0..8 {
            // Sizes are chosen before the sectors.
            let mut nth = 0;
            let image = device.crash_with(Grown::Garbage, &mut |versions| {
                nth += 1;
                if nth <= survives { versions - 1 } else { 0 }
            });
            let opened = PageServer::open_with(files(&image), seed(&image), small_log());
            let (mut server, report) = opened.unwrap_or_else(|error| {
                panic!("cut after call {cut}, {survives} survive: {error:?}")
            });
            assert_eq!(report.damage, None);
            assert_eq!(observe(&mut server, &image), Model::default());
        }
    }
}
