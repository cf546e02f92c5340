//! What the server rejects, and who hears of it.

use tidelog_client::{Call, Connection, FromCore, Input, KeptRejections, ToCore};
use tidelog_pages::{Append, OpenedDocument, StoreReply, StoreRequest, TimelineState};
use tidelog_testing::client::core::{Core, key};
use tidelog_testing::client::server::{Server, back_online, offline, online, online_with, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{DocumentKey, ErrorCode, JournalId, Life, Lsn, LsnRange};

#[test]
fn what_the_server_rejects_is_gone_and_told_until_a_listener_has_returned() {
    let mut server = Server::default();
    let (mut first, mut second) = (online(1, &mut server), online(2, &mut server));
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    offline(&mut first);
    titled(&mut second, "theirs", "the same");
    talk(&mut server, &mut [&mut second]);
    let refused = titled(&mut first, "ours", "the same");
    let behind = add(&mut first, "behind");
    assert_eq!(first.status().pending, 2);
    back_online(&mut server, &mut first);

    let reason = "UNIQUE constraint failed: todo.title";
    assert_eq!(first.fate(refused), format!("durable 1, rejected: {reason}"));
    assert_eq!(first.fate(behind), "durable 2, confirmed 4");
    let ids = "select id from todo order by id";
    assert_eq!(first.query(ids), [[text("behind")], [text("theirs")]]);
    assert_eq!(first.rejections(TAB), [1]);

    // Kept for whoever comes later, until one has returned.
    first.cut_power();
    let call = first.start_open(TAB, Some(SERVER), &todos());
    first.opened(call);
    assert_eq!(first.rejections(TAB), [] as [u64; 0]);
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    assert_eq!(first.rejections(TAB), [1]);
    // Listening may travel with the request that opens the document.
    first.cut_power();
    let (call, open) = first.open_message(Some(SERVER), &todos());
    first.ask(TAB, vec![open, ToCore::ListenRejections { handle: HANDLE }]);
    first.opened(call);
    assert_eq!(first.rejections(TAB), [1]);
    first.ask(TAB, vec![ToCore::RejectionHandled { handle: HANDLE, id: call_id(refused) }]);
    first.cut_power();
    let call = first.start_open(TAB, Some(SERVER), &todos());
    first.opened(call);
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    assert_eq!(first.rejections(TAB), [] as [u64; 0]);
}

/// A device whose first mutation the server is about to reject, and that call.
fn about_to_be_rejected(server: &mut Server) -> (Device, Call) {
    let (mut first, mut second) = (online(1, server), online(2, server));
    offline(&mut first);
    titled(&mut second, "theirs", "the same");
    talk(server, &mut [&mut second]);
    let refused = titled(&mut first, "ours", "the same");
    (first, refused)
}

/// The server hears the device until it stands there, of which the device hears nothing yet.
fn send_until(server: &mut Server, device: &mut Device, next: Lsn) {
    while server.position().next < next {
        for message in device.take_sent() {
            let answers = server.hear(device.number, message);
            answers.iter().for_each(|answer| device.hear_server(answer));
        }
        if server.position().next < next {
            server.news(device.number).iter().for_each(|news| device.hear_server(news));
        }
    }
}

/// Goal: a rejection is told once, and what a listener has dealt with never again. Method: the disk
/// has no room to write it down, for minutes; meanwhile its listener returns.
#[test]
fn a_rejection_that_cannot_be_kept_is_told_once() {
    for is_handled in [true, false] {
        let mut server = Server::default();
        let (mut first, refused) = about_to_be_rejected(&mut server);
        first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
        first.server_is_up = true;
        first.pass(15_000);
        send_until(&mut server, &mut first, Lsn::FIRST.plus(3));
        first.fill_disk();
        server.news(first.number).iter().for_each(|news| first.hear_server(news));
        assert_eq!(first.rejections(TAB), [1]);
        if is_handled {
            first.ask(TAB, vec![ToCore::RejectionHandled { handle: HANDLE, id: call_id(refused) }]);
        }
        for second in 0..400 {
            first.disk.set_full(second < 200);
            first.pass(1_000);
            talk(&mut server, &mut [&mut first]);
        }
        assert_eq!(first.rejections(TAB), [1]);
        assert_eq!(first.status().pending, 0);
        first.cut_power();
        let call = first.start_open(TAB, Some(SERVER), &todos());
        first.opened(call);
        first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
        let left = if is_handled { &[] as &[u64] } else { &[1] };
        assert_eq!(first.rejections(TAB), left);
    }
}

/// Goal: the same where nobody holds the document once there is room. Method: the last tab closes
/// it, and opens it again when there is some.
#[test]
fn a_rejection_that_was_dealt_with_and_not_kept_is_not_told_to_who_opens_next() {
    let mut server = Server::default();
    let (mut first, refused) = about_to_be_rejected(&mut server);
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    first.server_is_up = true;
    first.pass(15_000);
    send_until(&mut server, &mut first, Lsn::FIRST.plus(3));
    first.fill_disk();
    server.news(first.number).iter().for_each(|news| first.hear_server(news));
    assert_eq!(first.rejections(TAB), [1]);
    first.ask(TAB, vec![ToCore::RejectionHandled { handle: HANDLE, id: call_id(refused) }]);
    first.close(TAB);
    first.pass(5_000);
    first.disk.set_full(false);
    first.pass(60_000);
    first.told.clear();
    let call = first.start_open(TAB, Some(SERVER), &todos());
    first.opened(call);
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    back_online(&mut server, &mut first);
    assert_eq!(first.status().pending, 0);
    assert_eq!(first.rejections(TAB), [] as [u64; 0]);
}

/// Goal: whoever opens a document finds it as if it had been forgotten when it was closed, though
/// it is kept for what is still to be noted. Method: it was told to stay away from its server.
#[test]
fn a_document_that_is_kept_for_a_note_goes_by_no_earlier_word() {
    let mut server = Server::default();
    let (mut first, refused) = about_to_be_rejected(&mut server);
    back_online(&mut server, &mut first);
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    first.fill_disk();
    first.ask(TAB, vec![ToCore::RejectionHandled { handle: HANDLE, id: call_id(refused) }]);
    first.ask(TAB, vec![ToCore::SetConnected { handle: HANDLE, word: 1 }]);
    assert!(first.status().away);
    first.close(TAB);
    first.pass(1_000);
    let call = first.start_open(TAB, Some(SERVER), &todos());
    assert!(!first.opened(call).away);
    back_online(&mut server, &mut first);
    assert_eq!(first.status().connection, Connection::Online);
}

/// Goal: the same of more rejections than are kept. Method: four come while nobody serves the
/// store, of which the record keeps one; then the disk has no room for what came with the last of
/// them.
#[test]
fn rejections_are_told_once_though_there_are_more_than_are_kept() {
    const COUNT: u64 = 4;
    let limits = Limits { rejections_kept_max: 1, ..Limits::DEFAULT };
    let mut server = Server::default();
    let (mut first, mut second) = (online_with(1, limits, &mut server), online(2, &mut server));
    (0..COUNT).for_each(|n| _ = add(&mut first, &n.to_string()));
    talk(&mut server, &mut [&mut first, &mut second]);
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    offline(&mut first);
    for device in [&mut first, &mut second] {
        (0..COUNT).for_each(|n| _ = device.mutate("remove", &[("id", text(&n.to_string()))]));
    }
    talk(&mut server, &mut [&mut second]);
    let decided = server.position().next.plus(COUNT);
    first.server_is_up = true;
    first.pass(15_000);
    send_until(&mut server, &mut first, decided);
    first.lose_page_server();
    second.mutate("note", &[("title", text(&"x".repeat(3 << 20)))]);
    talk(&mut server, &mut [&mut second]);
    talk(&mut server, &mut [&mut first]);
    assert_eq!(first.rejections(TAB).len() as u64, COUNT);
    first.disk.set_capacity(Some(first.disk.used() + (1 << 20)));
    first.lend();
    assert_eq!(first.status().error.as_ref().map(|it| it.code), Some(ErrorCode::StorageFull));
    first.disk.set_capacity(None);
    for _ in 0..20 {
        first.pass(1_000);
        talk(&mut server, &mut [&mut first]);
    }
    assert_eq!(first.status().pending, 0);
    let mut told = first.rejections(TAB);
    told.sort_unstable();
    assert_eq!(told, (COUNT + 1..=2 * COUNT).collect::<Vec<_>>());
}

/// Goal: nothing that is said of rejections while a document is read anew is lost. Method: its
/// tab begins to listen, and its listener returns, each before the store says where it stands.
#[test]
fn who_listens_while_the_document_is_read_anew_is_told_and_heard() {
    let mut server = Server::default();
    let (mut device, refused) = about_to_be_rejected(&mut server);
    back_online(&mut server, &mut device);
    let records = |asked: &[StoreRequest]| {
        let record = |request: &StoreRequest| match request {
            StoreRequest::Append { append, .. } => append.record.clone(),
            _ => None,
        };
        asked.iter().filter_map(record).collect::<Vec<_>>()
    };
    let record = records(&device.asked).pop().expect("it has one");
    let state = OpenedDocument {
        record: record.into_vec(),
        timeline: Some(TimelineState {
            journal: JournalId([3; 16]),
            range: LsnRange::empty_at(Lsn::FIRST.next()),
            frames: Vec::new(),
        }),
        storage: None,
        db_pages: 0,
        calls: Vec::new(),
        first_page: None,
        is_incomplete: false,
    };
    let opened = || {
        let state = Some(Box::new(state.clone()));
        StoreReply::Opened { document: key("list"), life: Life::NONE, state }
    };
    let told = |core: &Core| {
        let is_news = |it: &&FromCore| matches!(it, FromCore::RejectionNews { .. });
        core.told.iter().filter(is_news).count()
    };

    let mut core = Core::default();
    core.ask_to_open(TAB, Call(1), HANDLE, "list", Some(SERVER));
    core.reply(opened());
    let lost = core.add(Call(2), "lost");
    core.fail(lost);
    core.say(ToCore::ListenRejections { handle: HANDLE });
    assert_eq!(told(&core), 0, "it is not known what there is");
    core.reply(opened());
    assert_eq!(told(&core), 1);

    let lost = core.add(Call(3), "lost");
    core.fail(lost);
    core.say(ToCore::RejectionHandled { handle: HANDLE, id: call_id(refused) });
    core.asked.clear();
    core.reply(opened());
    core.pass(60_000);
    assert_eq!(told(&core), 1);
    let record = records(&core.asked).pop().expect("it is written down");
    let kept = KeptRejections::of_record(&record).expect("a record").kept;
    assert_eq!(kept.iter().map(|(.., is_handled)| *is_handled).collect::<Vec<_>>(), [true]);
}

/// How often a record was appended.
fn records(device: &Device) -> usize {
    let has_record = |request: &&StoreRequest| match request {
        StoreRequest::Append { append, .. } => append.record.is_some(),
        _ => false,
    };
    device.asked.iter().filter(has_record).count()
}

/// Goal: what is kept of rejections is written as a whole, and all the same not once for each of
/// them; none is lost for that. Method: many are decided one by one while no page server is there,
/// and written by the next one; then a listener returns for each. Power cuts end both.
#[test]
fn many_rejections_are_written_down_in_a_few_records() {
    const COUNT: u32 = 40;
    let limits = Limits { runs_per_lsn: u64::MAX, ..Limits::DEFAULT };
    let mut server = Server::default();
    let (mut first, mut second) = (online_with(1, limits, &mut server), online(2, &mut server));
    (0..COUNT).for_each(|n| _ = add(&mut first, &n.to_string()));
    talk(&mut server, &mut [&mut first, &mut second]);
    offline(&mut first);
    let remove =
        |device: &mut Device, n: u32| device.mutate("remove", &[("id", text(&n.to_string()))]);
    let refused: Vec<Call> = (0..COUNT).map(|n| remove(&mut first, n)).collect();
    (0..COUNT).for_each(|n| _ = remove(&mut second, n));
    talk(&mut server, &mut [&mut second]);

    first.server_is_up = true;
    first.pass(15_000);
    let frames = first.take_sent();
    first.lose_page_server();
    for message in frames {
        let answers = server.hear(first.number, message);
        answers.iter().for_each(|answer| first.hear_server(answer));
    }
    talk(&mut server, &mut [&mut first]);
    for call in &refused {
        assert!(first.fate(*call).contains("rejected"), "told at once: {}", first.fate(*call));
    }
    first.asked.clear();
    first.lend();
    assert!(records(&first) <= 2, "{} records", records(&first));

    first.cut_power();
    let (call, open) = first.open_message(Some(SERVER), &todos());
    first.ask(TAB, vec![open, ToCore::ListenRejections { handle: HANDLE }]);
    first.opened(call);
    assert_eq!(first.rejections(TAB).len(), COUNT as usize);
    first.asked.clear();
    first.disk.hold_flushes(true);
    for call in refused {
        first.ask(TAB, vec![ToCore::RejectionHandled { handle: HANDLE, id: call_id(call) }]);
    }
    first.flushed();
    first.flushed();
    assert!(records(&first) <= 2, "{} records", records(&first));
    first.cut_power();
    let (call, open) = first.open_message(Some(SERVER), &todos());
    first.ask(TAB, vec![open, ToCore::ListenRejections { handle: HANDLE }]);
    first.opened(call);
    assert_eq!(first.rejections(TAB), [] as [u64; 0]);
}

/// Goal: a tab that does not listen costs no more memory than a bound, and hears all that is kept
/// once it does. Method: mutations with much to say are rejected while a listener's tab is frozen.
#[test]
fn rejections_are_held_back_from_a_tab_that_does_not_listen() {
    const COUNT: usize = 20;
    const SIZE: usize = 4_000;
    let limits = Limits { tab_unheard_size_max: 5 * SIZE, ..Limits::DEFAULT };
    let mut server = Server::default();
    let (mut first, mut second) = (online_with(1, limits, &mut server), online(2, &mut server));
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    offline(&mut first);
    let title = |n: usize| format!("{n}{}", "x".repeat(SIZE));
    (0..COUNT).for_each(|n| _ = titled(&mut second, &n.to_string(), &title(n)));
    talk(&mut server, &mut [&mut second]);
    (0..COUNT).for_each(|n| _ = titled(&mut first, &format!("mine {n}"), &title(n)));
    first.tabs_hear = false;
    let lists = first.told.len();
    back_online(&mut server, &mut first);
    let told = first.rejections(TAB).len();
    assert!((1..=6).contains(&told), "{told} were told");
    first.tabs_hear = true;
    let messages = vec![ToCore::Heard { lists: (first.told.len() - lists) as u32 }];
    first.step(Input::FromTab { tab: TAB, messages });
    assert_eq!(first.rejections(TAB).len(), COUNT);
}

/// Goal: a listener hears of each rejection, though its tab is frozen while more come than are
/// kept. Method: the same, with a record that keeps half of them.
#[test]
fn a_rejection_that_is_not_kept_is_told_a_tab_that_does_not_listen_too() {
    const COUNT: usize = 20;
    let limits =
        Limits { tab_unheard_size_max: 1_000, rejections_kept_max: COUNT / 2, ..Limits::DEFAULT };
    let mut server = Server::default();
    let (mut first, mut second) = (online_with(1, limits, &mut server), online(2, &mut server));
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    offline(&mut first);
    (0..COUNT).for_each(|n| _ = titled(&mut second, &n.to_string(), &n.to_string()));
    talk(&mut server, &mut [&mut second]);
    (0..COUNT).for_each(|n| _ = titled(&mut first, &format!("mine {n}"), &n.to_string()));
    first.tabs_hear = false;
    let lists = first.told.len();
    back_online(&mut server, &mut first);
    assert_eq!(first.rejections(TAB).len(), COUNT / 2);
    first.tabs_hear = true;
    let messages = vec![ToCore::Heard { lists: (first.told.len() - lists) as u32 }];
    first.step(Input::FromTab { tab: TAB, messages });
    assert_eq!(first.rejections(TAB), (1..=COUNT as u64).collect::<Vec<_>>());
}

/// Goal: a tab that hears nothing costs a bounded memory, however much is rejected meanwhile, and
/// hears what is kept once it does. Method: the same, with far more than the record keeps.
#[test]
fn a_tab_that_does_not_listen_for_long_misses_what_nobody_keeps() {
    const COUNT: usize = 100;
    const KEPT: usize = 5;
    let limits =
        Limits { tab_unheard_size_max: 1_000, rejections_kept_max: KEPT, ..Limits::DEFAULT };
    let mut server = Server::default();
    let (mut first, mut second) = (online_with(1, limits, &mut server), online(2, &mut server));
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    offline(&mut first);
    (0..COUNT).for_each(|n| _ = titled(&mut second, &n.to_string(), &n.to_string()));
    talk(&mut server, &mut [&mut second]);
    first.tabs_hear = false;
    let lists = first.told.len();
    (0..COUNT).for_each(|n| _ = titled(&mut first, &format!("mine {n}"), &n.to_string()));
    back_online(&mut server, &mut first);
    let told = first.rejections(TAB).len();
    assert!(told < 20, "{told} were told");
    first.tabs_hear = true;
    let messages = vec![ToCore::Heard { lists: (first.told.len() - lists) as u32 }];
    first.step(Input::FromTab { tab: TAB, messages });
    let all = first.rejections(TAB);
    assert!(all.is_sorted(), "{all:?}");
    let kept = (COUNT - KEPT + 1) as u64..=COUNT as u64;
    assert_eq!(all[told..], kept.collect::<Vec<_>>());
}

/// Goal: who waits for the server does not wait for the disk, and a disk that stays full costs
/// little. Method: a listener has returned of a rejection, and there is no room to note that for a
/// minute; then there is, and nothing is asked.
#[test]
fn a_handled_rejection_that_cannot_be_noted_keeps_no_sync_from_the_server() {
    let mut server = Server::default();
    let (mut first, refused) = about_to_be_rejected(&mut server);
    back_online(&mut server, &mut first);
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    assert_eq!(first.rejections(TAB), [1]);
    first.fill_disk();
    first.ask(TAB, vec![ToCore::RejectionHandled { handle: HANDLE, id: call_id(refused) }]);
    let seconds_pass = |server: &mut Server, first: &mut Device, seconds: usize| {
        for _ in 0..seconds {
            first.pass(1_000);
            talk(server, &mut [first]);
        }
    };
    seconds_pass(&mut server, &mut first, 60);
    let (sync, appends) = (first.sync(), first.appends());
    seconds_pass(&mut server, &mut first, 3);
    assert!(matches!(first.answers(sync)[..], [FromCore::Done { .. }]), "{}", first.fate(sync));
    seconds_pass(&mut server, &mut first, 57);
    let appends = first.appends() - appends;
    assert!((3..=5).contains(&appends), "{appends} in a minute");
    first.disk.set_full(false);
    seconds_pass(&mut server, &mut first, 20);
    first.cut_power();
    let call = first.start_open(TAB, Some(SERVER), &todos());
    first.opened(call);
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    assert_eq!(first.rejections(TAB), [] as [u64; 0]);
}

/// Goal: what a listener has dealt with is told to nobody again, though the document was closed
/// before that could be noted. Method: there is room on the disk once nobody holds it any more.
#[test]
fn a_handled_rejection_is_noted_though_the_document_was_closed_meanwhile() {
    let mut server = Server::default();
    let (mut first, refused) = about_to_be_rejected(&mut server);
    back_online(&mut server, &mut first);
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    assert_eq!(first.rejections(TAB), [1]);
    first.fill_disk();
    first.ask(TAB, vec![ToCore::RejectionHandled { handle: HANDLE, id: call_id(refused) }]);
    first.close(TAB);
    first.pass(5_000);
    first.disk.set_full(false);
    first.pass(60_000);
    first.cut_power();
    let call = first.start_open(TAB, Some(SERVER), &todos());
    first.opened(call);
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    assert_eq!(first.rejections(TAB), [] as [u64; 0]);
}

/// Goal: what a listener has dealt with is not noted as fast as a full disk refuses it. Method:
/// nothing tells what the server has decided of the timeline, as on a damaged disk, so the document
/// begins another one whenever it is read.
#[test]
fn a_handled_rejection_is_not_noted_with_each_timeline_that_a_full_disk_refuses() {
    let mut server = Server::default();
    let (mut first, refused) = about_to_be_rejected(&mut server);
    back_online(&mut server, &mut first);
    first.close(TAB);
    let mut append = Append::to(DocumentKey::new("list", "").expect("a good name"));
    append.timeline_id = Some(JournalId([9; 16]));
    append.begin_timeline = Some((JournalId([9; 16]), Lsn::FIRST.plus(2)));
    first.append_past_the_core(append);
    first.server_is_up = false;
    first.kill_core();
    first.fill_disk();

    first.appends_left = 30;
    let call = first.start_open(TAB, Some(SERVER), &todos());
    first.opened(call);
    first.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    assert_eq!(first.rejections(TAB), [1]);
    first.ask(TAB, vec![ToCore::RejectionHandled { handle: HANDLE, id: call_id(refused) }]);
    first.pass(9_500);
    assert!((2..=11).contains(&first.appends()), "{} in ten seconds", first.appends());
}
