//! What a core says of the storage under it: where it is, how safe, full, or gone.

use tidelog_client::{
    Call, Connection, FromCore, Input, PageServerFailure, PageServerId, Request, Status, Storage,
    ToCore,
};
use tidelog_disk::{BLOCK_SIZE, CrashDevice, Disk};
use tidelog_pages::{RequestId, StoreReply, StoreRequest};
use tidelog_testing::client::core::{Core, key};
use tidelog_testing::client::server::{Server, back_online, offline, online, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{ErrorCode, Life, Outcome, UnservedKind};

fn error(device: &Device) -> Option<ErrorCode> {
    device.status().error.as_ref().map(|failure| failure.code)
}

#[test]
fn where_the_data_are_kept_and_how_safe_is_part_of_the_status() {
    let mut device = Device::new(1);
    device.open(&todos());
    assert_eq!((device.status().storage, device.status().settling), (Storage::Opfs, false));
    device.lose_page_server();
    assert_eq!(device.status().storage, Storage::Waiting);
    let settled_at_ms = device.now_ms + 45_000;
    device.lend_in(Storage::IndexedDb, settled_at_ms);
    assert_eq!((device.status().storage, device.status().settling), (Storage::IndexedDb, true));
    device.pass(44_999);
    assert!(device.status().settling);
    device.pass(1);
    assert!(!device.status().settling, "told without being asked");
}

/// Goal: one word for as long as the disk is full, not an error that comes and goes with each try.
/// Method: a page server after another finds the disk full at its first write.
#[test]
fn a_full_disk_is_said_until_a_page_server_has_let_us_in() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    device.lose_page_server();
    let waiting = add(&mut device, "waiting");
    device.fill_disk();
    device.lend();
    assert_eq!(error(&device), Some(ErrorCode::StorageFull));
    device.told.clear();
    for _ in 0..3 {
        device.lend();
        add(&mut device, "more");
    }
    assert_eq!(error(&device), Some(ErrorCode::StorageFull));
    let comes_and_goes = |(_, message): &(_, FromCore)| match message {
        FromCore::Status { status, .. } => status.error.is_none(),
        _ => false,
    };
    assert!(!device.told.iter().any(comes_and_goes), "{:?}", device.told);
    assert_eq!(device.query("select count(*) from todo"), [[integer(3)]], "in memory it goes on");
    let refused = device.start_open(OTHER_TAB, None, &todos());
    assert_eq!(device.code(refused), ErrorCode::StorageFull);

    device.disk.set_full(false);
    device.lend();
    assert_eq!((error(&device), device.status().storage), (None, Storage::Opfs));
    assert_eq!(device.fate(waiting), "durable 3, confirmed 3");
    device.cut_power();
    device.open(&todos());
    assert_eq!(device.query("select count(*) from todo"), [[integer(3)]]);
}

/// Goal: a device without room does not fetch, all the time, what it cannot keep.
#[test]
fn what_a_full_disk_has_no_room_for_is_fetched_again_after_a_pause() {
    let mut server = Server::default();
    let [mut full, mut other] = [1, 2].map(|seed| online(seed, &mut server));
    full.fill_disk();
    add(&mut other, "milk");
    talk(&mut server, &mut [&mut other, &mut full]);
    full.pass(1_000);
    assert_eq!(error(&full), Some(ErrorCode::StorageFull));
    full.disk.set_full(false);
    full.pass(1_000);
    talk(&mut server, &mut [&mut other, &mut full]);
    assert_eq!(full.query("select id from todo"), [[text("milk")]]);
    assert_eq!(error(&full), None);
}

/// Goal: a disk that stays full costs little, and is said to be full all the while. Method: what
/// another device writes does not fit for minutes; then it does, and then again it does not.
#[test]
fn a_disk_that_stays_full_is_tried_less_and_less_often_and_said_all_the_while() {
    let mut server = Server::default();
    let [mut full, mut other] = [1, 2].map(|seed| online(seed, &mut server));
    full.fill_disk();
    add(&mut other, "milk");
    talk(&mut server, &mut [&mut other, &mut full]);
    full.pass(1_000);
    full.told.clear();
    full.asked.clear();
    let pass = |server: &mut Server, full: &mut Device, seconds: u32| {
        for _ in 0..seconds {
            full.pass(1_000);
            talk(server, &mut [full]);
        }
    };
    pass(&mut server, &mut full, 180);
    assert!((12..=16).contains(&full.appends()), "{} in three minutes", full.appends());
    let is_unsaid = |(_, message): &(_, FromCore)| match message {
        FromCore::Status { status, .. } => status.error.is_none(),
        _ => false,
    };
    assert!(!full.told.iter().any(is_unsaid), "it comes and goes");
    assert_eq!(error(&full), Some(ErrorCode::StorageFull));

    full.disk.set_full(false);
    pass(&mut server, &mut full, 16);
    assert_eq!(full.query("select id from todo"), [[text("milk")]]);
    assert_eq!(error(&full), None);
    full.fill_disk();
    add(&mut other, "bread");
    talk(&mut server, &mut [&mut other, &mut full]);
    full.pass(1_000);
    full.disk.set_full(false);
    pass(&mut server, &mut full, 1);
    assert_eq!(full.query("select count(*) from todo"), [[integer(2)]], "it begins anew");
}

/// Goal: what room there is elsewhere does not speak for what a document lacks. Method: an entry of
/// the server does not fit; once there is room, a mutation is durable before it comes again.
#[test]
fn a_disk_is_full_until_what_it_had_no_room_for_is_durable() {
    let mut server = Server::default();
    let [mut full, mut other] = [1, 2].map(|seed| online(seed, &mut server));
    full.fill_disk();
    add(&mut other, "milk");
    talk(&mut server, &mut [&mut other, &mut full]);
    full.pass(1_000);
    offline(&mut full);
    full.disk.set_full(false);
    let tea = add(&mut full, "tea");
    assert_eq!(full.fate(tea), "durable 1");
    assert_eq!(error(&full), Some(ErrorCode::StorageFull));
    back_online(&mut server, &mut full);
    full.pass(1_000);
    assert_eq!(error(&full), None);
}

/// Goal: what the disk has no room for is fetched no more often because there is room for less.
/// Method: what another device writes does not fit for minutes, and a small mutation does each
/// second.
#[test]
fn what_a_disk_has_no_room_for_is_not_fetched_with_each_mutation_that_fits() {
    let mut server = Server::default();
    let [mut full, mut other] = [1, 2].map(|seed| online(seed, &mut server));
    let title = text(&"x".repeat(3 << 20));
    other.mutate("note", &[("title", title)]);
    full.disk.set_capacity(Some(full.disk.used() + (2 << 20)));
    talk(&mut server, &mut [&mut other, &mut full]);
    assert_eq!(error(&full), Some(ErrorCode::StorageFull));
    full.asked.clear();
    for n in 0..180 {
        let small = add(&mut full, &n.to_string());
        assert!(full.fate(small).starts_with("durable"), "{n}: {}", full.fate(small));
        full.pass(1_000);
        talk(&mut server, &mut [&mut full]);
    }
    let of_the_server = |request: &&StoreRequest| match request {
        StoreRequest::Append { append, .. } => !append.storage.is_empty(),
        _ => false,
    };
    let fetched = full.asked.iter().filter(of_the_server).count();
    assert!((12..=16).contains(&fetched), "{fetched} times in three minutes");
    assert_eq!(error(&full), Some(ErrorCode::StorageFull));

    full.disk.set_capacity(None);
    full.pass(16_000);
    talk(&mut server, &mut [&mut full]);
    assert_eq!(full.query("select count(*) from todo"), [[integer(180)]]);
    assert_eq!(error(&full), None);
}

/// Goal: a disk is not called full for ever because of one write, which its caller was told of.
/// Method: a mutation of a document that follows a server fails, and nothing more is written.
#[test]
fn a_disk_that_nothing_is_left_to_write_to_is_called_full_for_a_while() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    device.fill_disk();
    let refused = add(&mut device, "milk");
    assert_eq!(device.code(refused), ErrorCode::StorageFull);
    assert_eq!(error(&device), Some(ErrorCode::StorageFull));
    device.pass(999);
    assert_eq!(error(&device), Some(ErrorCode::StorageFull));
    device.pass(1);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(error(&device), None);
}

#[test]
fn a_page_server_that_found_no_room_for_its_files_is_a_full_disk() {
    let mut device = Device::new(1);
    device.open(&todos());
    device.lose_page_server();
    let failure = PageServerFailure::new(UnservedKind::Full, "");
    device.step(Input::PageServerFailed { server: PageServerId(2), failure });
    assert_eq!(error(&device), Some(ErrorCode::StorageFull));
    device.lend();
    assert_eq!(error(&device), None);
}

/// Goal: a store that is not the one that we wrote to gets nothing of what builds on the other.
#[test]
fn another_store_in_place_of_ours_is_noticed_and_gets_nothing() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    device.lose_page_server();
    let late = add(&mut device, "late");
    device.disk = CrashDevice::new();
    device.asked.clear();
    for _ in 0..2 {
        device.lend();
        assert_eq!(error(&device), Some(ErrorCode::Storage));
        assert_eq!(device.status().storage, Storage::Waiting);
    }
    assert!(device.is_lost());
    let later = add(&mut device, "later");
    assert_eq!(device.code(later), ErrorCode::Storage, "it is refused at once");
    assert!(
        matches!(device.asked.as_slice(), [StoreRequest::Hello { .. }]),
        "nothing but one greeting: {:?}",
        device.asked
    );
    assert_eq!(device.fate(late), "failed: Storage", "it never is durable");
    assert_eq!(device.query("select count(*) from todo"), [[integer(2)]], "nothing is taken away");
    let refused = device.start_open(OTHER_TAB, None, &todos());
    assert_eq!(device.code(refused), ErrorCode::Storage);

    // Another core begins anew.
    device.kill_core();
    device.open(&todos());
    assert_eq!(device.query("select count(*) from todo"), [[integer(0)]]);
    assert!(!device.is_lost());
}

/// Goal: nobody waits for ever until all is in step. Method: a mutation can never be sent, since
/// the store that was to keep it is gone; somebody waits for its verdict before that, and somebody
/// only then.
#[test]
fn what_can_never_be_sent_is_waited_for_by_nobody() {
    let mut device = Device::new(1);
    let open = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(open);
    device.lose_page_server();
    add(&mut device, "late");
    let before = device.sync();
    device.disk = CrashDevice::new();
    device.lend();
    let after = device.sync();
    for call in [before, after] {
        assert_eq!(device.code(call), ErrorCode::Storage);
        assert!(device.failure(call).message.contains("cleared"));
    }
}

/// Goal: nobody waits for ever for a document to be handed over. Method: the server has taken it
/// over, and the store that was to keep that is gone.
#[test]
fn a_hand_over_that_can_never_be_written_down_is_waited_for_by_nobody() {
    let (mut server, mut device) = (Server::default(), Device::new(1));
    device.open(&todos());
    add(&mut device, "milk");
    device.server_is_up = true;
    device.lose_page_server();
    let first = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    talk(&mut server, &mut [&mut device]);
    assert!(server.document.is_some() && device.answers(first).is_empty());
    device.disk = CrashDevice::new();
    device.lend();
    assert_eq!(device.code(first), ErrorCode::Storage);
    assert!(device.failure(first).message.contains("cleared"));
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);
}

/// Its page server fails what it is to append: see crate `browser`.
#[test]
fn a_store_whose_data_were_cleared_is_read_and_not_replaced() {
    let mut device = Device::with_pool(1, 0);
    device.open(&todos());
    for n in 0..50 {
        add(&mut device, &n.to_string());
    }
    let server = PageServerId(1);
    let failure = PageServerFailure::new(UnservedKind::Lost, "");
    device.step(Input::PageServerFailed { server, failure });
    assert_eq!(error(&device), Some(ErrorCode::Storage));
    assert!(device.status().error.as_ref().is_some_and(|it| it.message.contains("cleared")));
    assert_eq!(device.status().storage, Storage::Waiting);
    assert!(device.is_lost());
    device.asked.clear();
    assert_eq!(device.query("select count(*) from todo"), [[integer(50)]]);
    let is_read = |request: &StoreRequest| matches!(request, StoreRequest::Read { .. });
    assert!(device.asked.iter().any(is_read), "what is not in memory is still read");
    device.asked.clear();
    let late = add(&mut device, "late");
    assert_eq!(
        (device.code(late), device.failure(late).outcome),
        (ErrorCode::Storage, Outcome::None)
    );
    assert_eq!(device.query("select count(*) from todo"), [[integer(50)]]);
    let reads_anew = |request: &StoreRequest| {
        matches!(request, StoreRequest::Append { .. } | StoreRequest::Open { .. })
    };
    assert!(!device.asked.iter().any(reads_anew), "what is shown is left alone");
    device.asked.clear();
    device.lend();
    assert!(device.asked.is_empty(), "another store is not asked for anything: {:?}", device.asked);
    assert_eq!(error(&device), Some(ErrorCode::Storage));
}

/// Goal: nobody waits for ever for a disk whose data were cleared, nor is told that it may still
/// come. Method: one of two mutations is on its way to it then; the other one was durable before,
/// and has its verdict.
#[test]
fn what_is_on_its_way_to_the_disk_as_its_data_are_cleared_is_told() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    let kept = add(&mut device, "kept");
    device.disk.hold_flushes(true);
    let lost = add(&mut device, "lost");
    let failure = PageServerFailure::new(UnservedKind::Lost, "");
    device.step(Input::PageServerFailed { server: PageServerId(1), failure });
    let told = device.failure(lost);
    assert!(told.message.contains("cleared"), "{told:?}");
    assert_eq!((told.code, told.outcome), (ErrorCode::Storage, Outcome::Unknown), "it is shown");
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.fate(kept), "durable 1, confirmed 2");
    assert_eq!(device.fate(lost), "failed: Storage");
    let shown = device.query("select id from todo order by id");
    assert_eq!(shown, [[text("kept")], [text("lost")]]);
}

/// Goal: what others write is shown though the data were cleared, and no disk is handed anything
/// that it would refuse. Method: a mutation is on its way to the disk then.
#[test]
fn nothing_is_written_to_a_store_whose_data_were_cleared() {
    let mut server = Server::default();
    let [mut device, mut other] = [1, 2].map(|seed| online(seed, &mut server));
    device.disk.hold_flushes(true);
    add(&mut device, "lost");
    let failure = PageServerFailure::new(UnservedKind::Lost, "");
    device.step(Input::PageServerFailed { server: PageServerId(1), failure });
    device.asked.clear();
    add(&mut other, "tea");
    talk(&mut server, &mut [&mut other, &mut device]);
    let shown = device.query("select id from todo order by id");
    assert_eq!(shown, [[text("lost")], [text("tea")]]);
    assert_eq!(device.appends(), 0);
}

/// Goal: what is shown of data that were cleared never gets older. Method: one of two entries of
/// the server is on its way to the disk then, the other one comes later; the page server that could
/// still read is gone, and none can take its place.
#[test]
fn of_data_that_were_cleared_the_newest_stays_shown_when_no_page_server_comes() {
    let mut server = Server::default();
    let [mut device, mut other] = [1, 2].map(|seed| online(seed, &mut server));
    device.disk.hold_flushes(true);
    add(&mut other, "tea");
    talk(&mut server, &mut [&mut other, &mut device]);
    let failure = PageServerFailure::new(UnservedKind::Lost, "");
    device.step(Input::PageServerFailed { server: PageServerId(1), failure });
    add(&mut other, "eggs");
    talk(&mut server, &mut [&mut other, &mut device]);
    let shown = [[text("eggs")], [text("tea")]];
    assert_eq!(device.query("select id from todo order by id"), shown);
    device.step(Input::PageServerGone { server: PageServerId(1) });
    let failure = PageServerFailure::new(UnservedKind::Unavailable, "");
    device.step(Input::PageServerFailed { server: PageServerId(2), failure });
    assert_eq!(device.query("select id from todo order by id"), shown);
}

/// Goal: a byte that rots takes what stands on it and no more, and nobody is left in the dark.
/// Method: one in the second of three mutations of a local document; another one is whole.
#[test]
fn a_damaged_document_is_as_it_was_before_says_so_and_takes_no_more() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    let log = device.disk.bytes_of("log-a").expect("a file");
    let before = log.iter().rposition(|byte| *byte != 0).expect("it is written to");
    add(&mut device, "bread");
    add(&mut device, "eggs");
    // In the block of the second one, behind the head of a frame.
    let at = before.next_multiple_of(BLOCK_SIZE) + 200;
    let rotten = device.disk.bytes_of("log-a").expect("a file")[at] ^ 1;
    device.disk.file("log-a").write_at(at as u64, &[rotten]).expect("room");
    device.kill_core();

    device.open(&todos());
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);
    assert_eq!(error(&device), Some(ErrorCode::Storage));
    let refused = add(&mut device, "butter");
    assert_eq!(device.code(refused), ErrorCode::Storage);
    assert!(device.failure(refused).message.contains("exported"));
    assert_eq!(device.query("select id from todo"), [[text("milk")]], "and it goes on");
    let call = device.next_call();
    device.ask(TAB, vec![ToCore::Ask { call, handle: HANDLE, request: Request::Export }]);
    assert!(matches!(device.answer(call), FromCore::Exported { .. }));
    device.close(TAB);
    let refused = device.destroy(true);
    assert_eq!(device.code(refused), ErrorCode::Storage, "that would be a write");
    assert!(device.failure(refused).message.contains("destroyAll()"));
}

/// Goal: what is left of a damaged document is read by every release. Method: a page of a large
/// mutation is lost, and what its core noted of itself with it is not; a newer release comes, which
/// would migrate what is there. That core once took its life for one that had written more.
#[test]
fn a_damaged_document_is_opened_by_a_newer_release() {
    let fill = |device: &mut Device, from, count| {
        device.mutate("fill", &[("from", integer(from)), ("count", integer(count))]);
    };
    let mut device = Device::new(1);
    device.open(&shelves());
    fill(&mut device, 0, 1);
    device.kill_core();
    device.open(&shelves());
    fill(&mut device, 1_000, 1_000);
    fill(&mut device, 5_000, 1);
    device.rot(b"0001500");
    device.kill_core();

    let mut newer = shelves();
    newer.migrations.push("create table author (name text) strict".to_owned());
    device.open(&newer);
    assert_eq!(error(&device), Some(ErrorCode::Storage));
    assert_eq!(device.query("select count(*) from book"), [[integer(1)]]);
}

/// Goal: a store that can only be read is not taken for another one, whichever tab lends it: what
/// it grants cannot be written down. Method: a byte rots, and then page servers come and go.
#[test]
fn a_damaged_store_is_still_the_same_when_another_tab_lends_it() {
    let mut device = Device::new(1);
    device.open(&todos());
    for id in ["milk", "bread", "eggs"] {
        add(&mut device, id);
    }
    device.rot(b"title of bread");
    for _ in 0..3 {
        device.lose_page_server();
        device.lend();
        assert!(!device.is_lost(), "it is there");
    }
    device.kill_core();
    device.open(&todos());
    device.lose_page_server();
    device.lend();
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);
}

/// Goal: nobody waits for the verdict of what this device has lost. Method: a byte rots in the
/// second of three durable mutations while nobody serves the store; a fourth one cannot be
/// recorded, so the document is read anew.
#[test]
fn who_waits_for_a_verdict_of_what_was_lost_is_told_that_nobody_knows_it() {
    let mut device = Device::new(1);
    let open = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(open);
    let milk = add(&mut device, "milk");
    let lost = ["bread", "eggs"].map(|id| add(&mut device, id));
    device.lose_page_server();
    device.rot(b"title of bread");
    device.lend();
    let refused = add(&mut device, "butter");
    assert_eq!(device.failure(refused).outcome, Outcome::None);
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);
    assert_eq!(device.fate(milk), "durable 1", "it may have one yet");
    for call in lost {
        let [FromCore::Durable { .. }, FromCore::Failed { failure, .. }] = device.answers(call)[..]
        else {
            panic!("{}", device.fate(call));
        };
        assert_eq!((failure.code, failure.outcome), (ErrorCode::Storage, Outcome::Unknown));
    }
}

/// Goal: a page that rots while the store is open fails whoever needs it, with a word that can be
/// understood, and nobody else; it is not asked for again and again. Method: each place where one
/// row lies, among five hundred.
#[test]
fn a_page_that_rotted_fails_the_calls_that_need_it_and_no_others() {
    let mut device = Device::new(1);
    device.open(&todos());
    for n in 0..500 {
        add(&mut device, &n.to_string());
    }
    device.kill_core();
    device.open(&todos());
    device.rot(b"title of 250");
    device.asked.clear();
    for _ in 0..3 {
        let failure = device.try_query("select count(title) from todo").expect_err("it is damaged");
        assert_eq!(failure.code, ErrorCode::Storage);
        assert!(failure.message.contains("damaged"), "{failure:?}");
    }
    assert!(device.asked.len() < 20, "{} requests", device.asked.len());
    assert_eq!(device.query("select title from todo where rowid = 1"), [[text("title of 0")]]);
    let butter = add(&mut device, "butter");
    assert_eq!(device.fate(butter), "durable 502, confirmed 502");
    assert_eq!(device.status().storage, Storage::Opfs, "the page server goes on");
}

/// Goal: a live query that needs a lost page is told so, and holds up no other one. Method: one of
/// all rows and one of a single row, both of which a mutation changes; no page stays in memory.
#[test]
fn a_live_query_that_needs_a_lost_page_holds_up_no_other_one() {
    let mut device = Device::with_pool(1, 0);
    device.open(&todos());
    for n in 0..500 {
        add(&mut device, &n.to_string());
    }
    let all = device.watch("select sum(done), count(title) from todo");
    let first = device.watch("select done from todo where rowid = 1");
    device.lose_page_server();
    device.lend();
    device.rot(b"title of 250");
    device.mutate("toggle", &[("id", text("0"))]);
    let [FromCore::Rows { .. }, FromCore::Failed { failure, .. }] = device.answers(all)[..] else {
        panic!("{:?}", device.answers(all));
    };
    assert!(failure.message.contains("damaged"), "{failure:?}");
    let [_, FromCore::Rows { rows, .. }] = device.answers(first)[..] else {
        panic!("{:?}", device.answers(first));
    };
    assert_eq!(rows.decode(), [[integer(1)]]);
}

/// Goal: no message to the page server is large, whatever a mutation changes; and all of it is
/// handed over again to the next one. Method: rows of two megabytes.
#[test]
fn a_large_append_travels_in_parts_and_is_handed_over_again() {
    let mut device = Device::new(1);
    device.open(&todos());
    let title = text(&"x".repeat(2 << 20));
    device.mutate("note", &[("title", title.clone())]);
    device.lose_page_server();
    let waiting = device.mutate("note", &[("title", title)]);
    device.asked.clear();
    device.lend();
    assert_eq!(device.fate(waiting), "durable 3, confirmed 3");
    let mut pages_count = 0;
    for request in &device.asked {
        match request {
            StoreRequest::Stage { pages, .. } => {
                assert!(pages.len() <= Limits::DEFAULT.append_part_pages_max);
                pages_count += pages.len();
            }
            StoreRequest::Append { append, .. } => {
                assert!(append.storage.iter().all(|entry| entry.set.pages.is_empty()));
            }
            _ => {}
        }
    }
    assert!(pages_count > 512, "{pages_count}");
    device.cut_power();
    device.open(&todos());
    let sizes = device.query("select sum(length(text)) from note");
    assert_eq!(sizes, [[integer(4 << 20)]]);
}

fn last_status(core: &Core) -> &Status {
    let status = core.told.iter().rev().find_map(|it| match it {
        FromCore::Status { status, .. } => Some(status),
        _ => None,
    });
    status.expect("it says how it stands")
}

/// Goal: what is wrong is said also while a document cannot be shown. Method: no page server is
/// there as an append has failed, or one finds the data damaged as the document is read anew.
#[test]
fn a_document_that_is_read_anew_says_how_it_stands() {
    let mut core = Core::open();
    let ticket = core.add(Call(2), "milk");
    core.fail(ticket);
    core.told.clear();
    core.lose_storage();
    let error = |core: &Core| {
        let status = last_status(core);
        (status.storage, status.error.as_ref().map(|it| it.message.clone()).unwrap_or_default())
    };
    let (storage, message) = error(&core);
    assert_eq!(storage, Storage::Waiting);
    assert!(message.contains("nothing to keep data in"), "{message}");

    let mut core = Core::open();
    let memo = core.memo();
    let ticket = core.add(Call(2), "milk");
    core.fail(ticket);
    core.reply(StoreReply::Damaged {
        request: RequestId::OPENING,
        document: key("list"),
        pgids: Vec::new(),
    });
    assert!(error(&core).1.contains("damaged"), "{}", error(&core).1);
    assert_eq!(core.memo().copy, memo.copy, "what is issued now may be recorded in it");
}

/// Goal: a document that is being read anew is never said to be empty. Method: its tab has much to
/// hear as it is opened, and so is told how it stands for the first time after an append has
/// failed.
#[test]
fn a_tab_that_has_heard_nothing_since_it_opened_a_document_is_told_no_other_state() {
    let mut core = Core::with_limits(Limits { tab_unheard_size_max: 1, ..Limits::DEFAULT });
    core.open_new(Call(1), HANDLE, "list", None);
    let ticket = core.add(Call(2), "milk");
    core.fail(ticket);
    core.say(ToCore::Heard { lists: u32::MAX });
    let status = last_status(&core);
    assert_eq!((status.connection, status.confirmed_lsn), (Connection::Local, 1));
}

/// Goal: nothing is called pending of which all was taken back. Method: the disk has no room for
/// what makes a document, nor for what was issued to it.
#[test]
fn nothing_is_pending_of_a_document_that_could_not_be_made() {
    for server in [None, Some(SERVER)] {
        let mut core = Core::default();
        let opened = || StoreReply::Opened { document: key("list"), life: Life::NONE, state: None };
        core.ask_to_open(TAB, Call(1), HANDLE, "list", server);
        core.reply(opened());
        let began = core.last_ticket();
        core.add(Call(2), "milk");
        assert_eq!(last_status(&core).pending, u64::from(server.is_some()));
        core.fail(began);
        core.reply(opened());
        core.pass(50);
        let status = last_status(&core);
        assert_eq!((status.pending, status.timeline, status.storage_lsns), (0, [0; 4], [1; 2]));
        assert_eq!(status.connection == Connection::Local, server.is_none());
    }
}
