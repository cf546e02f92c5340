//! Page servers that come and go, disks that are full, cores that are killed.

use tidelog_client::{
    Call, FromCore, Input, PageServerFailure, PageServerId, Storage, TabId, ToCore,
};
use tidelog_pages::Append;
use tidelog_testing::client::server::{Server, back_online, online, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{DocumentKey, ErrorCode, JournalId, Lsn, Outcome, UnservedKind, Value};

#[test]
fn a_full_disk_fails_the_call_takes_it_back_and_later_ones_work() {
    let mut device = Device::new(1);
    device.open(&todos());
    let milk = add(&mut device, "milk");
    let count = device.watch("select count(*) from todo");
    device.fill_disk();
    let bread = add(&mut device, "bread");
    let failure = device.failure(bread);
    assert_eq!(failure.code, ErrorCode::StorageFull);
    assert_eq!(device.status().error.as_ref().map(|it| it.code), Some(ErrorCode::StorageFull));
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);

    device.disk.set_full(false);
    let bread = add(&mut device, "bread");
    assert_eq!(device.fate(milk), "durable 2, confirmed 2");
    assert_eq!(device.fate(bread), "durable 3, confirmed 3");
    assert_eq!(device.status().error, None);
    assert!(device.answers(count).len() >= 2, "the watch goes on");
    device.cut_power();
    device.open(&todos());
    assert_eq!(device.query("select count(*) from todo"), [[integer(2)]]);
}

/// Goal: whoever hands a document over to a server is told that there is no room to write that
/// down, and nothing is lost. Method: the disk is full from then on; once it is not, it is tried
/// again.
#[test]
fn a_disk_that_stays_full_as_a_document_is_handed_over_fails_that_in_time() {
    let (mut server, mut device) = (Server::default(), Device::new(1));
    device.open(&todos());
    add(&mut device, "milk");
    device.server_is_up = true;
    let first = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.fill_disk();
    let start_ms = device.now_ms;
    while device.answers(first).is_empty() {
        talk(&mut server, &mut [&mut device]);
        device.pass(500);
        assert!(device.now_ms - start_ms < 10_000, "it has no answer");
    }
    assert!(server.document.is_some(), "it was handed over");
    assert!(device.now_ms - start_ms > 5_000, "there may be room soon");
    assert_eq!(device.code(first), ErrorCode::StorageFull);
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);

    device.disk.set_full(false);
    let second = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    for _ in 0..4 {
        device.pass(1_000);
        talk(&mut server, &mut [&mut device]);
    }
    device.opened(second);
    let bread = add(&mut device, "bread");
    talk(&mut server, &mut [&mut device]);
    assert!(device.fate(bread).contains("confirmed"), "{}", device.fate(bread));
}

/// Goal: a document is handed over in time, however often the disk was found full before that.
/// Method: mutations of a local document fail for a quarter of a minute; then there is room.
#[test]
fn a_document_is_handed_over_soon_after_a_disk_that_was_full_for_long() {
    let (mut server, mut device) = (Server::default(), Device::new(1));
    device.open(&todos());
    add(&mut device, "milk");
    device.fill_disk();
    for n in 0..16 {
        let refused = add(&mut device, &n.to_string());
        assert_eq!(device.code(refused), ErrorCode::StorageFull);
        device.pass(1_000);
    }
    device.disk.set_full(false);
    device.server_is_up = true;
    let open = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    for _ in 0..3 {
        talk(&mut server, &mut [&mut device]);
        device.pass(1_000);
    }
    device.opened(open);
    assert!(server.document.is_some(), "it is the server's");
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);
}

#[test]
fn all_who_hand_a_document_over_are_told_in_time_that_the_disk_stays_full() {
    let (mut server, mut device) = (Server::default(), Device::new(1));
    device.open(&todos());
    add(&mut device, "milk");
    device.server_is_up = true;
    let opens = [OTHER_TAB, TabId(3)].map(|tab| device.start_open(tab, Some(SERVER), &todos()));
    let local = device.start_open(TabId(4), None, &todos());
    device.fill_disk();
    for _ in 0..20 {
        talk(&mut server, &mut [&mut device]);
        device.pass(500);
    }
    assert_eq!(opens.map(|call| device.code(call)), [ErrorCode::StorageFull; 2]);
    device.opened(local);
}

/// Goal: live queries of a newer release show what they showed on a full disk, and the migration is
/// written once there is room, whatever else is asked. Method: a table that it brings is watched.
#[test]
fn live_queries_of_a_newer_release_go_on_while_the_disk_is_full() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    device.close(TAB);
    device.fill_disk();
    let mut newer = todos();
    newer.migrations.push("create table tag (name text) strict".to_owned());
    device.open(&newer);
    let tags = device.watch("select count(*) from tag");
    device.pass(5_000);
    assert!(matches!(device.answers(tags)[..], [FromCore::Rows { .. }]), "{}", device.fate(tags));
    assert_eq!(device.status().error.as_ref().map(|it| it.code), Some(ErrorCode::StorageFull));
    device.disk.set_full(false);
    device.pass(2_000);
    assert_eq!(device.status().error, None);
    assert!(matches!(device.answers(tags)[..], [FromCore::Rows { .. }]), "{}", device.fate(tags));
}

/// Goal: the same where nothing is asked at all, and a disk that stays full costs little. Method:
/// the migration finds no room for minutes.
#[test]
fn a_migration_that_found_no_room_is_written_once_there_is_some() {
    let mut device = Device::new(1);
    device.open(&todos());
    device.close(TAB);
    device.fill_disk();
    let mut newer = todos();
    newer.migrations.push("create table tag (name text) strict".to_owned());
    device.open(&newer);
    device.asked.clear();
    (0..180).for_each(|_| device.pass(1_000));
    assert!((12..=16).contains(&device.appends()), "{} in three minutes", device.appends());
    assert_eq!(device.status().error.as_ref().map(|it| it.code), Some(ErrorCode::StorageFull));
    device.disk.set_full(false);
    (0..16).for_each(|_| device.pass(1_000));
    assert_eq!(device.status().error, None);
    device.cut_power();
    device.open(&todos());
    assert_eq!(device.query("select count(*) from tag"), [[integer(0)]]);
}

/// Goal: no state of a document is handed over that this device may not have tomorrow. Method: a
/// newer release's migration found no room, and is to be written again in a while, when another tab
/// hands the document over.
#[test]
fn what_could_not_be_written_is_not_handed_over() {
    let (mut server, mut device) = (Server::default(), Device::new(1));
    device.open(&todos());
    add(&mut device, "milk");
    device.close(TAB);
    device.fill_disk();
    let mut newer = todos();
    newer.migrations.push("create table tag (name text) strict".to_owned());
    device.open(&newer);
    assert_eq!(device.query("select count(*) from tag"), [[integer(0)]]);
    device.server_is_up = true;
    device.ask(TAB, vec![ToCore::SetConnected { handle: HANDLE, word: 0 }]);
    let open = device.start_open(OTHER_TAB, Some(SERVER), &newer);
    talk(&mut server, &mut [&mut device]);
    assert!(server.document.is_none(), "it is on no disk");
    assert_eq!(device.code(open), ErrorCode::StorageFull);
}

#[test]
fn calls_behind_one_that_found_the_disk_full_are_told_too() {
    let mut device = Device::new(1);
    device.open(&todos());
    device.disk.hold_flushes(true);
    let kept = add(&mut device, "kept");
    device.fill_disk();
    let lost = [add(&mut device, "lost"), add(&mut device, "lost too")];
    device.disk.set_full(false);
    device.flushed();
    device.flushed();
    assert_eq!(device.fate(kept), "durable 2, confirmed 2");
    for call in lost {
        assert_eq!(device.fate(call), "failed: StorageFull");
    }
    assert_eq!(device.query("select id from todo"), [[text("kept")]]);
}

#[test]
fn the_next_page_server_is_handed_everything_that_is_not_durable() {
    let mut device = Device::new(1);
    device.open(&todos());
    device.disk.hold_flushes(true);
    let written = add(&mut device, "written");
    device.lose_page_server();
    assert_eq!(device.status().storage, Storage::Waiting);
    let waiting = add(&mut device, "waiting");
    assert_eq!(
        device.query("select count(*) from todo"),
        [[integer(2)]],
        "nobody waits for a disk"
    );
    assert_eq!(device.fate(written) + &device.fate(waiting), "");

    device.disk.hold_flushes(false);
    device.lend();
    // The first lay in the log already; it is not there twice.
    assert_eq!(device.fate(written), "durable 2, confirmed 2");
    assert_eq!(device.fate(waiting), "durable 3, confirmed 3");
    assert_eq!(device.status().storage, Storage::Opfs);
    device.cut_power();
    device.open(&todos());
    assert_eq!(
        device.query("select id from todo order by id"),
        [[text("waiting")], [text("written")]]
    );
    assert_eq!(device.status().storage_lsns, [4, 4]);
}

#[test]
fn what_a_lost_page_server_had_not_flushed_is_handed_over_whole() {
    let mut device = Device::new(1);
    device.open(&todos());
    device.disk.hold_flushes(true);
    let calls: Vec<Call> = (0..10).map(|n| add(&mut device, &n.to_string())).collect();
    // The power goes for the disk alone, as if the machine had been cut between the two.
    device.lose_page_server();
    device.disk = device.disk.crash(&mut |_| 0);
    device.lend();
    for (index, call) in calls.iter().enumerate() {
        assert_eq!(device.fate(*call), format!("durable {0}, confirmed {0}", index + 2));
    }
    device.cut_power();
    device.open(&todos());
    assert_eq!(device.query("select count(*) from todo"), [[integer(10)]]);
}

#[test]
fn answers_of_a_replaced_page_server_are_not_heard() {
    let mut device = Device::new(1);
    device.open(&todos());
    device.disk.hold_flushes(true);
    let milk = add(&mut device, "milk");
    device.lose_page_server();
    let ticket = tidelog_pages::Ticket(99);
    let replies = vec![tidelog_pages::StoreReply::Durable { ticket }];
    device.step(Input::FromPageServer { server: PageServerId(1), replies });
    assert_eq!(device.fate(milk), "");
}

#[test]
fn a_page_that_was_asked_for_when_the_page_server_went_is_asked_for_again() {
    let mut device = Device::with_pool(1, 0);
    device.open(&todos());
    for n in 0..50 {
        add(&mut device, &n.to_string());
    }
    device.lose_page_server();
    let call = device.start_query(TAB, "select count(*) from todo");
    assert_eq!(device.answers(call).len(), 0);
    device.lend();
    assert_eq!(device.answers(call).len(), 1);
}

#[test]
fn calls_of_a_killed_core_are_settled_by_the_next_one_and_run_once() {
    let mut device = Device::new(1);
    device.open(&todos());
    let told = add(&mut device, "told");
    device.disk.hold_flushes(true);
    let written = add(&mut device, "written");
    device.disk.hold_flushes(false);
    let [never, failed] = ["never", "written"]
        .map(|id| device.mutation("add", &[("id", text(id)), ("title", text("new"))]).0);

    device.kill_core();
    device.open(&todos());
    // The last one failed, and so it does again.
    device.ask_again(&[told, written, never, failed]);
    assert_eq!(device.fate(told), "durable 2, confirmed 3");
    assert_eq!(device.fate(written), "durable 3, confirmed 3");
    assert_eq!(device.fate(never), "durable 4, confirmed 4");
    assert_eq!(device.fate(failed), "failed: Rejected");
    assert_eq!(device.query("select count(*) from todo"), [[integer(3)]]);
}

#[test]
fn a_call_that_the_power_cut_took_is_run_again() {
    let mut device = Device::new(1);
    device.open(&todos());
    device.disk.hold_flushes(true);
    let lost = add(&mut device, "lost");
    device.cut_power();
    device.open(&todos());
    device.ask_again(&[lost]);
    assert_eq!(device.fate(lost), "durable 2, confirmed 2");
}

#[test]
fn a_page_server_that_cannot_start_fails_what_waits_for_it_with_the_reason() {
    let mut device = Device::new(1);
    device.lose_page_server();
    let waiting = device.start_open(TAB, None, &todos());
    let failure = PageServerFailure::new(UnservedKind::NewerFormat, "");
    device.step(Input::PageServerFailed { server: PageServerId(2), failure });
    assert_eq!(device.code(waiting), ErrorCode::NewerFormat);
    let later = device.start_open(TAB, None, &todos());
    assert_eq!(device.code(later), ErrorCode::NewerFormat);
    device.lend();
    device.open(&todos());
}

#[test]
fn a_page_server_that_cannot_start_fails_what_is_to_be_destroyed_with_the_reason() {
    let mut device = Device::new(1);
    device.lose_page_server();
    let waiting = device.destroy(true);
    let failure = PageServerFailure::new(UnservedKind::NewerFormat, "");
    device.step(Input::PageServerFailed { server: PageServerId(2), failure });
    assert_eq!(device.code(waiting), ErrorCode::NewerFormat);
    let later = device.destroy(true);
    assert_eq!(device.code(later), ErrorCode::NewerFormat);
    device.lend();
    let done = device.destroy(true);
    assert!(matches!(device.answer(done), FromCore::Done { .. }));
}

#[test]
fn opening_on_a_full_disk_says_so_and_works_once_there_is_room() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    device.kill_core_on_a_full_disk();
    let refused = device.start_open(TAB, None, &todos());
    assert_eq!(device.code(refused), ErrorCode::StorageFull);
    device.disk.set_full(false);
    device.lend();
    device.open(&todos());
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);
}

/// Goal: no live query goes on showing what its caller was told is not there. Method: the disk has
/// no room for what makes the document, nor for a mutation of it; once it has, somebody asks for
/// it.
#[test]
fn a_live_query_of_a_document_that_the_disk_had_no_room_for_is_told() {
    let mut device = Device::new(1);
    device.fill_disk();
    device.open(&todos());
    let count = device.watch("select count(*) from todo");
    let lost = add(&mut device, "lost");
    assert_eq!(device.code(lost), ErrorCode::StorageFull);
    let said = *device.answers(count).last().expect("it is a live query");
    assert!(matches!(said, FromCore::Failed { .. }), "{said:?}");
    device.disk.set_full(false);
    let told = device.answers(count).len();
    assert_eq!(device.query("select count(*) from todo"), [[integer(0)]]);
    let [FromCore::Rows { rows, .. }] = device.answers(count)[told..] else { panic!() };
    assert_eq!(rows.decode(), [[integer(0)]]);
}

/// Goal: no `sync` waits for a document that there is no longer. Method: the disk has no room for
/// what makes the document, and nobody asks for it after that.
#[test]
fn who_waits_for_a_document_that_the_disk_had_no_room_for_is_told() {
    let mut device = Device::new(1);
    device.fill_disk();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    let sync = device.sync();
    assert_eq!(device.code(sync), ErrorCode::StorageFull);
}

#[test]
fn calls_wait_for_the_layers_after_a_failed_append() {
    // Nothing of the document was ever durable, or only some of what is undecided.
    for kept in 0..3 {
        let mut device = Device::new(1);
        device.disk.hold_flushes(true);
        let call = device.start_open(TAB, Some(SERVER), &todos());
        device.opened(call);
        let ids: Vec<String> = (0..kept).map(|n| n.to_string()).collect();
        for id in &ids {
            add(&mut device, id);
        }
        if kept > 0 {
            device.flushed();
        }
        device.fill_disk();
        let lost = add(&mut device, "lost");
        let count = device.start_query(TAB, "select count(*) from todo");
        let sync = device.sync();
        device.disk.set_full(false);
        device.disk.hold_flushes(false);
        device.flushed();
        assert_eq!(device.fate(lost), "failed: StorageFull");
        assert_eq!(device.answers(count).len(), 1);
        assert_eq!(device.query("select count(*) from todo"), [[integer(kept)]]);
        let mut server = Server::default();
        back_online(&mut server, &mut device);
        assert!(matches!(device.answer(sync), FromCore::Done { .. }));
        assert_eq!(device.status().pending, 0);
    }
}

/// A document that was never durable is made again by the next tab that opens it, which may be of
/// another release than those that hold it.
#[test]
fn a_document_that_another_release_makes_again_knows_the_doctypes_of_its_tabs() {
    for url in [None, Some(SERVER)] {
        let mut device = Device::new(1);
        device.fill_disk();
        let call = device.start_open(TAB, url, &todos());
        device.opened(call);
        device.disk.set_full(false);

        let mut newer = todos();
        newer.migrations.push("alter table todo add column star integer".to_owned());
        let call = device.start_open(OTHER_TAB, url, &newer);
        device.opened(call);
        let milk = add(&mut device, "milk");
        assert!(device.fate(milk).starts_with("durable"), "{}", device.fate(milk));
        assert_eq!(device.query("select id, star from todo"), [[text("milk"), Value::Null]]);
    }
}

#[test]
fn a_release_that_found_the_disk_full_goes_on_once_there_is_room() {
    for url in [None, Some(SERVER)] {
        let mut device = Device::new(1);
        let call = device.start_open(TAB, url, &todos());
        device.opened(call);
        add(&mut device, "milk");
        device.fill_disk();
        let mut newer = todos();
        newer.migrations.push("alter table todo add column star integer".to_owned());
        newer.mutations.push(define("star", &[], &["update todo set star = 1"]));
        let call = device.start_open(OTHER_TAB, url, &newer);
        device.opened(call);
        device.disk.set_full(false);

        // Its note that there is a newer doctype was lost; the tab is still of that one.
        let (star, message) = device.mutation("star", &[]);
        device.ask(OTHER_TAB, vec![message]);
        assert!(device.fate(star).starts_with("durable"), "{}", device.fate(star));
        let mut server = Server::default();
        back_online(&mut server, &mut device);
        assert!(device.fate(star).contains("confirmed"), "{}", device.fate(star));
        device.cut_power();
        let call = device.start_open(TAB, url, &newer);
        device.opened(call);
        assert_eq!(device.query("select id, star from todo"), [[text("milk"), integer(1)]]);
    }
}

#[test]
fn a_release_that_found_the_disk_full_is_told_to_a_server_that_was_asked_before_there_was_room() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    device.fill_disk();
    let mut newer = todos();
    newer.migrations.push("alter table todo add column star integer".to_owned());
    newer.mutations.push(define("star", &[], &["update todo set star = 1"]));
    let call = device.start_open(OTHER_TAB, Some(SERVER), &newer);
    device.opened(call);
    device.disk.set_full(false);
    // The document was read anew, and what the disk has of it names the older release alone.
    device.pass(15_000);
    talk(&mut server, &mut [&mut device]);

    let (star, message) = device.mutation("star", &[]);
    device.ask(OTHER_TAB, vec![message]);
    device.pass(15_000);
    talk(&mut server, &mut [&mut device]);
    assert!(device.fate(star).contains("confirmed"), "{}", device.fate(star));
}

/// Goal: what a document writes of itself is not tried as fast as a full disk refuses it. Method:
/// nothing tells what the server has decided of its timeline, as on a damaged disk, so it begins
/// another one whenever it is read.
#[test]
fn another_timeline_is_not_begun_over_and_over_on_a_full_disk() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    add(&mut device, "milk");
    talk(&mut server, &mut [&mut device]);
    device.close(TAB);
    let mut append = Append::to(DocumentKey::new("list", "").expect("a good name"));
    append.timeline_id = Some(JournalId([9; 16]));
    append.begin_timeline = Some((JournalId([9; 16]), Lsn::FIRST.plus(2)));
    device.append_past_the_core(append);
    device.server_is_up = false;
    device.kill_core();
    device.fill_disk();

    device.appends_left = 30;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    device.pass(9_500);
    assert!((2..=11).contains(&device.appends()), "{} in ten seconds", device.appends());
    device.disk.set_full(false);
    device.pass(1_000);
    let tea = add(&mut device, "tea");
    assert_eq!(device.fate(tea), "durable 1");
    assert_eq!(device.query("select id from todo"), [[text("milk")], [text("tea")]]);
}

#[test]
fn a_record_of_a_newer_release_is_left_alone() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    let document = DocumentKey::new("list", "").expect("a good name");
    let mut append = Append::to(document);
    append.record = Some(vec![1, 2, 3].into());
    device.close(TAB);
    device.append_past_the_core(append);
    device.kill_core();
    let refused = device.start_open(TAB, None, &todos());
    assert_eq!(device.code(refused), ErrorCode::NewerFormat);
    let refused = device.destroy(false);
    assert_eq!(device.code(refused), ErrorCode::NewerFormat, "mutations may be pending");
    assert_eq!(device.appends(), 0);
    let destroyed = device.destroy(true);
    assert!(matches!(device.answer(destroyed), FromCore::Done { .. }));
}

/// Goal: what a local document has on its way to the disk takes a bounded amount of memory, and
/// nothing that was accepted is lost for that. Method: the disk answers nothing for a while, and
/// then nobody serves it; what is issued meanwhile waits, or is refused once there is too much.
#[test]
fn no_more_of_a_local_document_waits_for_the_disk_than_there_is_memory_for() {
    let limits = Limits { entries_unstored_size_max: 256 * 1024, ..Limits::DEFAULT };
    let mut device = Device::with_limits(1, limits);
    device.open(&todos());
    device.disk.hold_flushes(true);
    let before = device.appends();
    let issue = |device: &mut Device, ids: std::ops::Range<u32>| -> Vec<Call> {
        ids.map(|id| titled(device, &id.to_string(), &id.to_string().repeat(400))).collect()
    };
    let slow = issue(&mut device, 0..60);
    assert!(device.appends() - before < 40, "all is on its way to a disk that does not answer");
    device.disk.hold_flushes(false);
    device.flushed();
    assert!(slow.iter().all(|call| device.fate(*call).starts_with("durable")));

    device.lose_page_server();
    let unserved = issue(&mut device, 60..120);
    assert!(unserved.iter().all(|call| device.answers(*call).is_empty()), "one may come soon");
    device.pass(6_000);
    let refused = unserved.iter().position(|call| !device.answers(*call).is_empty());
    let (accepted, refused) = unserved.split_at(refused.expect("there is only so much memory"));
    assert!(accepted.len() > 4, "{} are few", accepted.len());
    for call in refused {
        let failure = device.failure(*call);
        assert_eq!((failure.code, failure.outcome), (ErrorCode::Storage, Outcome::None));
    }
    device.lend();
    assert!(accepted.iter().all(|call| device.fate(*call).starts_with("durable")));
    assert_eq!(count(&mut device), [[integer(60 + i64::try_from(accepted.len()).expect("few"))]]);
    let later = add(&mut device, "later");
    assert!(device.fate(later).starts_with("durable"));
}
