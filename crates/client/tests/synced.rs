//! A document that is synced with a server.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tidelog_client::{
    Call, Connection, FromCore, Input, KeptRejections, PageServerFailure, PageServerId, Query,
    Request, TabId, ToCore,
};
use tidelog_disk::Disk;
use tidelog_document::{Doctype, hash_part};
use tidelog_pages::{OpenedDocument, StoreReply, StoreRequest, TimelineState};
use tidelog_sqlite::{be_short_beyond, held_size};
use tidelog_sync::{
    ByeReason, CodedPage, EntryPart, FromRoom, FromServer, ToRoom, ToServer, UndecidedReason, codec,
};
use tidelog_testing::client::core::{Core, key};
use tidelog_testing::client::server::{Server, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{
    EntryHash, ErrorCode, JournalId, Life, Lineage, Lsn, LsnRange, Outcome, Params, Pgid, Position,
    UnservedKind,
};

fn add(device: &mut Device, id: &str) -> Call {
    device.mutate("add", &[("id", text(id)), ("title", text(&format!("title of {id}")))])
}

fn titled(device: &mut Device, id: &str, title: &str) -> Call {
    device.mutate("add", &[("id", text(id)), ("title", text(title))])
}

/// A device that follows the server's document.
fn online(seed: u8, server: &mut Server) -> Device {
    online_with(seed, Limits::DEFAULT, server)
}

fn online_with(seed: u8, limits: Limits, server: &mut Server) -> Device {
    let mut device = Device::with_limits(seed, limits);
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    talk(server, &mut [&mut device]);
    assert_eq!(device.status().connection, Connection::Online);
    device
}

/// The server goes away, and what it had from there with it.
fn offline(device: &mut Device) {
    device.server_is_up = false;
    device.lose_socket();
}

fn back_online(server: &mut Server, device: &mut Device) {
    device.server_is_up = true;
    device.pass(15_000);
    talk(server, &mut [device]);
}

fn frames(device: &Device) -> Vec<usize> {
    let count = |message: &ToServer| match message {
        ToServer::About { body: ToRoom::Frames { frames, .. }, .. } => Some(frames.len()),
        _ => None,
    };
    device.sent.iter().filter_map(count).collect()
}

/// Each place where these bytes lie rots.
fn rot(device: &Device, text: &[u8]) {
    for file in ["log-a", "log-b", "pages"] {
        let bytes = device.disk.bytes_of(file).expect("a file");
        for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(text)) {
            device.disk.file(file).write_at(at as u64, b"?").expect("room");
        }
    }
}

fn count(device: &mut Device) -> Vec<Vec<tidelog_types::Value>> {
    device.query("select count(*) from todo")
}

#[test]
fn a_mutation_is_sent_only_once_it_is_durable_here() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    device.disk.hold_flushes(true);
    let milk = add(&mut device, "milk");
    add(&mut device, "bread");
    assert_eq!(frames(&device), [] as [usize; 0]);
    assert_eq!(
        device.positions(),
        "timeline 1..3 durable 1 acked 1 | storage durable 2 visible 2 | pending 2"
    );
    device.flushed();
    assert_eq!(device.fate(milk), "durable 1");
    assert_eq!(frames(&device), [2]);
    talk(&mut server, &mut [&mut device]);
    device.flushed();
    assert_eq!(device.fate(milk), "durable 1, confirmed 2");
    assert_eq!(
        device.positions(),
        "timeline 3..3 durable 3 acked 3 | storage durable 4 visible 4 | pending 0"
    );
}

/// The server answers each message, which shows that the line carries something: however much
/// waits, no message takes long.
#[test]
fn what_waits_for_the_server_comes_in_messages_of_a_bounded_size() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    for id in 0..10 {
        titled(&mut device, &id.to_string(), &id.to_string().repeat(60_000));
    }
    titled(&mut device, "large", &"x".repeat(600_000));
    device.server_is_up = true;
    device.pass(15_000);
    let mut sent = Vec::new();
    while !device.sent.is_empty() {
        sent.extend(frames(&device));
        for message in device.take_sent() {
            let answers = server.hear(device.number, message);
            answers.iter().for_each(|answer| device.hear_server(answer));
        }
    }
    assert_eq!(sent, [4, 4, 2, 1]);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(count(&mut device), [[tidelog_types::Value::Integer(11)]]);
}

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

/// Goal: what a server goes on to send while nobody can write it down takes a bounded amount of
/// memory, and what was not taken in comes once somebody can. Method: no page server is there as
/// another device writes; what is said to be received is what lets the server send more, and so
/// does a new connection.
#[test]
fn a_server_is_asked_for_no_more_than_the_disk_may_lack() {
    let limits = Limits { entries_unstored_size_max: 64 * 1024, ..Limits::DEFAULT };
    let mut server = Server::default();
    let (mut first, mut second) = (online_with(1, limits, &mut server), online(2, &mut server));
    let said = |device: &mut Device| {
        let said = device.take_sent().into_iter().filter_map(|message| match message {
            ToServer::About { body, .. } => Some(body),
            _ => None,
        });
        said.collect::<Vec<ToRoom>>()
    };
    let received = |said: &[ToRoom]| {
        let next = said.iter().rev().find_map(|body| match body {
            ToRoom::Received { next } => Some(*next),
            _ => None,
        });
        next.expect("some of it is")
    };
    let write = |server: &mut Server, device: &mut Device, first: u32| {
        (first..first + 60).for_each(|n| _ = add(device, &n.to_string()));
        talk(server, &mut [device]);
    };
    first.lose_page_server();
    let before = server.position().next;
    write(&mut server, &mut second, 0);
    server.news(1).iter().for_each(|news| first.hear_server(news));
    assert_eq!(count(&mut first), [[integer(60)]], "it is shown all the same");
    let next = received(&said(&mut first));
    assert!(before < next && next < before.plus(20), "{next} of {before} and 60 more");

    first.lend();
    assert_eq!(received(&said(&mut first)), server.position().next);

    first.lose_page_server();
    write(&mut server, &mut second, 100);
    server.news(1).iter().for_each(|news| first.hear_server(news));
    first.lose_socket();
    server.forget(1);
    first.pass(300);
    talk(&mut server, &mut [&mut first]);
    write(&mut server, &mut second, 200);
    talk(&mut server, &mut [&mut first]);
    assert_eq!(count(&mut first), [[integer(120)]], "it is not followed");
    first.lend();
    talk(&mut server, &mut [&mut first]);
    assert_eq!(count(&mut first), [[integer(180)]]);
    assert_eq!(first.status().connection, Connection::Online);
}

/// Goal: the same, where the data are cleared before anybody can write it down: all is shown then,
/// and kept for no disk.
#[test]
fn a_server_is_asked_for_all_once_there_is_no_disk_for_it() {
    let limits = Limits { entries_unstored_size_max: 64 * 1024, ..Limits::DEFAULT };
    let mut server = Server::default();
    let (mut first, mut second) = (online_with(1, limits, &mut server), online(2, &mut server));
    first.lose_page_server();
    (0..60).for_each(|n| _ = add(&mut second, &n.to_string()));
    talk(&mut server, &mut [&mut second]);
    server.news(1).iter().for_each(|news| first.hear_server(news));
    let next = server.position().next;
    let all_is_received = |device: &mut Device| {
        device.take_sent().iter().any(|message| match message {
            ToServer::About { body: ToRoom::Received { next: received }, .. } => *received == next,
            _ => false,
        })
    };
    assert!(!all_is_received(&mut first));
    let failure = PageServerFailure::new(UnservedKind::Lost, "");
    first.step(Input::PageServerFailed { server: PageServerId(9), failure });
    assert!(all_is_received(&mut first));
}

/// Goal: what a device had no memory to show for a moment is shown soon after, though nothing else
/// happens. Method: a core starts without a server while SQLite gets no memory, so that it builds
/// no layers; once there is some, time goes by.
#[test]
fn layers_that_found_no_memory_are_built_once_there_is_some() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "theirs");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    add(&mut device, "ours");
    device.kill_core();
    be_short_beyond(Some(0));
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    device.pass(10_000);
    be_short_beyond(None);
    let live = device.watch("select count(*) from todo");
    let seen = |device: &Device| match device.answers(live).last() {
        Some(FromCore::Rows { rows, .. }) => rows.decode(),
        other => panic!("{other:?}"),
    };
    assert_eq!(seen(&device), [[integer(1)]]);
    device.pass(16_000);
    assert_eq!(seen(&device), [[integer(2)]]);
    let error = device.status().error.as_ref().map(|error| error.code);
    assert_eq!(error, Some(ErrorCode::ServerUnreachable), "nothing else is wrong");
    back_online(&mut server, &mut device);
    assert_eq!((&device.status().error, device.status().pending), (&None, 0));
}

/// The same of the doctype of a tab. Method: a tab opens the document by a newer release, which the
/// disk has no room to note beside a mutation; as it is read anew, SQLite gets no memory.
#[test]
fn a_doctype_that_found_no_memory_is_learnt_again_once_there_is_some() {
    let mut newer = todos();
    newer.migrations.push("alter table todo add column star integer".to_owned());
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    device.lose_page_server();
    let (call, open) = device.open_message(Some(SERVER), &newer);
    let (_, large) = device.mutation("note", &[("title", text(&"x".repeat(3 << 20)))]);
    device.ask(OTHER_TAB, vec![open, large]);
    device.opened(call);
    device.disk.set_capacity(Some(device.disk.used() + (1 << 20)));
    be_short_beyond(Some(0));
    device.lend();
    device.try_query("select star from todo").expect_err("there is no memory");
    be_short_beyond(None);
    let (call, query) = device.query_message("select star from todo");
    device.ask(OTHER_TAB, vec![query]);
    assert_eq!(device.code(call), ErrorCode::Engine, "it is tried again later");
    assert_eq!(device.query("select count(*) from todo"), [[integer(0)]], "for the older release");
    device.pass(16_000);
    device.query("select star from todo");
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

#[test]
fn mutations_go_on_without_a_server_and_survive_until_it_is_back() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "before");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    assert_eq!(device.status().connection, Connection::Offline);
    assert_eq!(
        device.status().error.as_ref().map(|it| it.code),
        Some(ErrorCode::ServerUnreachable)
    );
    for n in 0..10 {
        add(&mut device, &n.to_string());
    }
    device.cut_power();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    assert_eq!(device.status().pending, 10);
    assert_eq!(count(&mut device), [[integer(11)]]);
    back_online(&mut server, &mut device);
    assert_eq!(device.status().pending, 0);
    assert_eq!(device.status().error, None);
    let export = device.next_call();
    device.ask(TAB, vec![ToCore::Ask { call: export, handle: HANDLE, request: Request::Export }]);
    let FromCore::Exported { file, .. } = device.answer(export) else { panic!() };
    assert!(*file == server.image(), "the two sides differ");
}

#[test]
fn a_document_made_offline_is_the_servers_once_it_is_there() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    let milk = add(&mut device, "milk");
    assert_eq!(device.fate(milk), "durable 1");
    back_online(&mut server, &mut device);
    assert_eq!(device.fate(milk), "durable 1, confirmed 2");
    assert_eq!(
        device.positions(),
        "timeline 2..2 durable 2 acked 2 | storage durable 3 visible 3 | pending 0"
    );
}

/// Goal: where many mutations are pending, what others do causes few of them to be run again, and
/// shows all the same. Method: nothing of ours reaches the server, where another device goes on:
/// its changes are seen after as many milliseconds as there are mutations to run again, the server
/// is told that they have come, and a second tab need not wait for that.
#[test]
fn changes_of_others_show_though_many_mutations_are_pending() {
    let mut server = Server::default();
    let (mut first, mut second) = (online(1, &mut server), online(2, &mut server));
    offline(&mut first);
    for n in 0..60 {
        add(&mut first, &n.to_string());
    }
    first.server_is_up = true;
    first.pass(1_000);
    let is_frames =
        |it: &ToServer| matches!(it, ToServer::About { body: ToRoom::Frames { .. }, .. });
    while first.sent.first().is_some_and(|message| !is_frames(message)) {
        let message = first.sent.remove(0);
        server.hear(1, message).iter().for_each(|answer| first.hear_server(answer));
    }
    first.sent.clear();
    let mut theirs = |id: &str, server: &mut Server, first: &mut Device| {
        add(&mut second, id);
        talk(server, &mut [&mut second]);
        server.news(1).iter().for_each(|news| first.hear_server(news));
    };
    theirs("theirs", &mut server, &mut first);
    theirs("theirs too", &mut server, &mut first);
    assert_eq!(count(&mut first), [[integer(60)]]);
    let mut received = first.sent.iter().filter_map(|message| match message {
        ToServer::About { body: ToRoom::Received { next }, .. } => Some(*next),
        _ => None,
    });
    assert_eq!(received.next_back(), Some(server.position().next));
    let tab = first.start_open(OTHER_TAB, Some(SERVER), &todos());
    first.opened(tab);
    first.pass(59);
    assert_eq!(count(&mut first), [[integer(60)]]);
    first.pass(1);
    assert_eq!(count(&mut first), [[integer(62)]]);
    assert_eq!(first.status().pending, 60);
    offline(&mut first);
    back_online(&mut server, &mut first);
    assert_eq!((first.status().pending, count(&mut first)), (0, vec![vec![integer(62)]]));
}

#[test]
fn sync_waits_for_every_verdict_and_for_what_the_server_has() {
    let mut server = Server::default();
    let (mut first, mut second) = (online(1, &mut server), online(2, &mut server));
    offline(&mut second);
    let mine = add(&mut second, "mine");
    let sync = second.sync();
    add(&mut first, "theirs");
    talk(&mut server, &mut [&mut first]);
    assert_eq!(second.answers(sync).len(), 0);
    back_online(&mut server, &mut second);
    assert!(matches!(second.answer(sync), FromCore::Done { .. }));
    assert_eq!(second.fate(mine), "durable 1, confirmed 3");
    assert_eq!(count(&mut second), [[integer(2)]]);
}

#[test]
fn sync_fails_where_trying_again_cannot_help() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    let sync = device.sync();
    device.server_is_up = true;
    device.pass(15_000);
    device.hear_server(&FromServer::Bye { reason: ByeReason::Version });
    assert_eq!(device.code(sync), ErrorCode::Protocol);
    let later = device.sync();
    assert_eq!(device.code(later), ErrorCode::Protocol);
    add(&mut device, "still works");
    assert_eq!(count(&mut device), [[integer(1)]]);
}

#[test]
fn a_local_document_becomes_the_servers() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    for n in 0..30 {
        add(&mut device, &n.to_string());
    }
    device.close(TAB);
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    assert_eq!(device.answers(call).len(), 0, "only the server can say");
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.opened(call).confirmed_lsn, 31);
    assert!(server.image() == image(&mut device), "the two sides differ");

    let milk = add(&mut device, "milk");
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.fate(milk), "durable 1, confirmed 32");
    // It stays what it is, also when it is opened without a server.
    device.cut_power();
    let status = device.open(&todos());
    assert_eq!(status.connection, Connection::Offline);
    assert_eq!(count(&mut device), [[integer(31)]]);
}

/// Goal: who follows cannot write in the name of the device that handed the document over. Method:
/// what it says of who wrote the local document, which others are told, is not the life with which
/// it sends frames.
#[test]
fn a_document_that_is_handed_over_tells_nothing_of_the_life_that_sends_frames() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "a");
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.hear_server(&FromServer::Welcome);
    let offered = codec::encode(&device.sent);
    want_seed(&mut server, &mut device);
    assert_eq!(seeds(&device.sent), 1);
    let seed = codec::encode(&device.sent);
    talk(&mut server, &mut [&mut device]);
    device.opened(call);
    add(&mut device, "b");
    let life = device.sent.iter().find_map(|message| match message {
        ToServer::About { body: ToRoom::Frames { life, .. }, .. } => Some(life.0),
        _ => None,
    });
    let life = life.expect("a frame was sent");
    for said in [offered, seed] {
        assert!(!said.windows(16).any(|some| some == life), "others are told of it");
    }
}

/// What a device says that it holds.
fn held(message: &ToServer) -> Option<Option<Position>> {
    match message {
        ToServer::About { body: ToRoom::Open { have, .. }, .. } => Some(*have),
        _ => None,
    }
}

/// A server makes one entry of all that it is handed, so the chain there is not that of the entries
/// which were written here.
#[test]
fn a_core_knows_where_the_server_stood_when_it_took_the_document_over() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "a");
    add(&mut device, "b");
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    talk(&mut server, &mut [&mut device]);
    device.opened(call);

    device.kill_core();
    server.forget(device.number);
    device.take_sent();
    device.start_open(TAB, Some(SERVER), &todos());
    let mut have = None;
    while have.is_none() {
        for message in device.take_sent() {
            have = have.or(held(&message));
            for answer in server.hear(device.number, message) {
                device.hear_server(&answer);
            }
        }
    }
    assert_eq!(have, Some(Some(server.position())));
    add(&mut device, "c");
    talk(&mut server, &mut [&mut device]);
    assert!(server.image() == image(&mut device), "the two sides differ");
}

/// The pages that are handed over are those of the newest release, whichever offers them.
#[test]
fn a_document_is_offered_by_the_newest_doctype_that_it_has() {
    let mut device = Device::new(1);
    let mut newer = todos();
    newer.migrations.push("alter table todo add column star integer".to_owned());
    device.open(&newer);
    device.server_is_up = true;
    device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.pass(100);
    device.hear_server(&FromServer::Welcome);
    let offered = device.take_sent().into_iter().find_map(|message| match message {
        ToServer::About { body: ToRoom::Open { doctype, .. }, .. } => Some(doctype),
        _ => None,
    });
    assert!(offered == Some(codec::encode(&newer)), "by an older one, or not at all");
}

/// Until the disk says so, a power cut or a full disk would make it a local one again.
#[test]
fn a_document_is_the_servers_only_once_that_is_durable() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "a");
    device.server_is_up = true;
    let call = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.fill_disk();
    talk(&mut server, &mut [&mut device]);
    assert!(server.document.is_some(), "it was handed over");
    assert_eq!(device.answers(call).len(), 0, "and could not be written down");
    device.disk.set_full(false);
    for _ in 0..5 {
        device.pass(1_000);
        talk(&mut server, &mut [&mut device]);
    }
    device.opened(call);
    add(&mut device, "b");
    talk(&mut server, &mut [&mut device]);
    assert!(server.image() == image(&mut device), "the two sides differ");
}

fn image(device: &mut Device) -> Vec<u8> {
    let call = device.next_call();
    device.ask(TAB, vec![ToCore::Ask { call, handle: HANDLE, request: Request::Export }]);
    match device.answer(call) {
        FromCore::Exported { file, .. } => file.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_local_document_stays_local_where_the_server_has_another_one() {
    let mut server = Server::default();
    server.create(&todos());
    let mut device = Device::new(1);
    device.open(&todos());
    let milk = add(&mut device, "milk");
    assert_eq!(device.fate(milk), "durable 2, confirmed 2");
    device.close(TAB);
    let before = device.disk.bytes_of("pages");
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.code(call), ErrorCode::DocumentExists);
    assert_eq!(device.disk.bytes_of("pages"), before);
    assert_eq!(device.open(&todos()).connection, Connection::Local);
    assert_eq!(count(&mut device), [[integer(1)]]);
}

#[test]
fn a_local_document_stays_local_where_no_server_answers_within_ten_seconds() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    device.close(TAB);
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.pass(5_000);
    assert_eq!(device.answers(call).len(), 0, "it may still come");
    device.pass(5_000);
    assert_eq!(device.code(call), ErrorCode::ServerUnreachable);
    let message = &device.failure(call).message;
    assert!(message.contains("stays local"), "nothing goes on by itself");
    assert!(message.contains("does not answer"), "{message}");
    assert_eq!(device.open(&todos()).connection, Connection::Local);
    assert_eq!(count(&mut device), [[integer(1)]]);
}

/// How many whole seeds a device hands over.
fn seeds(sent: &[ToServer]) -> usize {
    let ends_seed = |message: &&ToServer| {
        matches!(message, ToServer::About { body: ToRoom::Seed { last: true, .. }, .. })
    };
    sent.iter().filter(ends_seed).count()
}

/// Offers the device's document on its connection, and has the server ask for the seed.
fn want_seed(server: &mut Server, device: &mut Device) {
    let sent = device.take_sent();
    assert!(sent.iter().any(|message| held(message).is_some()), "it was not offered");
    for message in sent {
        for answer in server.hear(device.number, message) {
            device.hear_server(&answer);
        }
    }
}

/// Goal: a seed is handed over on the connection on which it is wanted, and once for each time.
/// Method: a connection is lost after the server wanted the seed and before its pages were read;
/// they are there when the document is offered again.
#[test]
fn a_seed_that_was_wanted_on_a_lost_connection_is_not_handed_over_on_the_next_one() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    // The next core has read none of its pages.
    device.kill_core();
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.hear_server(&FromServer::Welcome);
    device.lose_page_server();
    want_seed(&mut server, &mut device);
    assert_eq!(seeds(&device.sent), 0, "its pages are not there");

    device.lose_socket();
    device.pass(5_000);
    device.hear_server(&FromServer::Welcome);
    device.lend();
    assert_eq!(seeds(&device.sent), 0, "nobody wants it on this connection yet");
    want_seed(&mut server, &mut device);
    assert_eq!(seeds(&device.sent), 1);
    talk(&mut server, &mut [&mut device]);
    device.opened(call);
    assert!(server.image() == image(&mut device), "the two sides differ");
}

/// Goal: a local document of any size gets over a line of any speed, and neither side holds much of
/// it. Method: the server takes a part every five seconds, far longer than an offer may take.
#[test]
fn a_large_local_document_is_handed_over_as_fast_as_the_server_takes_it() {
    let mut server = Server::default();
    let limits = Limits {
        pool_pages_max: 8,
        fault_pages_max: 4,
        message_pages_max: 4,
        seed_pages_ahead_max: 8,
        ..Limits::DEFAULT
    };
    let mut device = Device::with_limits(1, limits);
    device.open(&shelves());
    device.mutate("fill", &[("from", integer(0)), ("count", integer(300))]);
    device.server_is_up = true;
    let call = device.start_open(OTHER_TAB, Some(SERVER), &shelves());
    let other = device.start_open(TabId(3), Some(SERVER), &shelves());
    let (mut rounds, mut taken) = (0, 0);
    while device.answers(call).is_empty() {
        let sent = device.take_sent();
        let parts = sent
            .iter()
            .filter(|message| matches!(message, ToServer::About { body: ToRoom::Seed { .. }, .. }));
        assert!(parts.count() <= 2, "more is on its way than the server has taken");
        for message in sent {
            device.now_ms += 5_000;
            let answers = server.hear(device.number, message);
            answers.iter().for_each(|answer| device.hear_server(answer));
            let is_taken = |answer: &&FromServer| {
                let FromServer::About { body, .. } = answer else { return false };
                matches!(body, FromRoom::SeedWanted | FromRoom::SeedTaken { .. })
            };
            taken += answers.iter().filter(is_taken).count();
        }
        rounds += 1;
        assert!(rounds < 100, "it is not handed over");
    }
    device.opened(call);
    assert!(rounds > 10, "it was small");
    device.opened(other);
    // Their tabs know that it goes on, and wait.
    for (tab, call) in [(OTHER_TAB, call), (TabId(3), other)] {
        let is_told = |told: &&(_, FromCore)| **told == (tab, FromCore::HandingOver { call });
        assert_eq!(device.told.iter().filter(is_told).count(), taken);
    }
    talk(&mut server, &mut [&mut device]);
    assert!(server.image() == image(&mut device), "the two sides differ");
}

#[test]
fn a_server_that_stops_taking_a_local_document_leaves_it_local() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    let call = offer_much(&mut device);
    want_seed(&mut server, &mut device);
    assert!(!device.take_sent().is_empty(), "no part of the seed");
    let mut seconds = 0;
    while device.answers(call).is_empty() {
        device.hear_server(&FromServer::Pong);
        device.pass(1_000);
        seconds += 1;
    }
    assert_eq!(seconds, 60);
    assert_eq!(device.code(call), ErrorCode::ServerUnreachable);
    assert!(device.failure(call).message.contains("taken in no more"), "it says why");
    assert_eq!(device.status().connection, Connection::Local);
}

/// A local document of many pages is offered to a server that has heard hello.
fn offer_much(device: &mut Device) -> Call {
    device.open(&shelves());
    device.mutate("fill", &[("from", integer(0)), ("count", integer(2_000))]);
    device.server_is_up = true;
    let call = device.start_open(OTHER_TAB, Some(SERVER), &shelves());
    device.hear_server(&FromServer::Welcome);
    call
}

/// Goal: a server that wants a document and never takes any of it is not tried for ever. Method:
/// the connection breaks at each first part, as where something on the way lets none that large
/// pass.
#[test]
fn a_local_document_that_breaks_each_connection_stays_local() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    let call = offer_much(&mut device);
    let start_ms = device.now_ms;
    while device.answers(call).is_empty() {
        want_seed(&mut server, &mut device);
        device.lose_socket();
        device.pass(5_000);
        if device.answers(call).is_empty() {
            device.hear_server(&FromServer::Welcome);
        }
        assert!(device.now_ms - start_ms < 70_000, "it has no answer");
    }
    assert!(device.now_ms - start_ms > 50_000, "a line may get better");
    assert_eq!(device.code(call), ErrorCode::ServerUnreachable);
    assert_eq!(device.status().connection, Connection::Local);
}

/// Goal: a hand-over that never comes to its end is given up, however much of the document the
/// server takes each time. Method: each connection breaks at the same place, as where something on
/// the way lets none last.
#[test]
fn a_local_document_that_gets_no_further_on_any_connection_stays_local() {
    let mut server = Server::default();
    let limits = Limits { message_pages_max: 4, seed_pages_ahead_max: 8, ..Limits::DEFAULT };
    let mut device = Device::with_limits(1, limits);
    let call = offer_much(&mut device);
    let start_ms = device.now_ms;
    while device.answers(call).is_empty() {
        want_seed(&mut server, &mut device);
        for _ in 0..3 {
            device.pass(5_000);
            for message in device.take_sent() {
                for answer in server.hear(device.number, message) {
                    device.hear_server(&answer);
                }
            }
        }
        if device.answers(call).is_empty() {
            device.lose_socket();
            device.pass(5_000);
            device.hear_server(&FromServer::Welcome);
        }
        assert!(device.now_ms - start_ms < 130_000, "it has no answer");
    }
    assert!(device.now_ms - start_ms > 60_000, "a line may get better");
    assert_eq!(device.code(call), ErrorCode::ServerUnreachable);
    assert_eq!(device.status().connection, Connection::Local);
}

/// Goal: whoever waits for somebody else's hand-over in vain is told what it may have waited for.
/// Method: the server says nothing to the offer, as to one that is behind another.
#[test]
fn an_offer_that_waits_for_another_one_in_vain_says_so() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    device.server_is_up = true;
    let call = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.hear_server(&FromServer::Welcome);
    while device.answers(call).is_empty() {
        device.hear_server(&FromServer::Pong);
        device.pass(1_000);
    }
    assert_eq!(device.code(call), ErrorCode::ServerUnreachable);
    let message = &device.failure(call).message;
    assert!(message.contains("may be handing over one of that name"), "{message}");
    assert!(message.contains("stays local"), "{message}");
}

#[test]
fn whoever_waits_behind_an_offer_in_vain_is_told_why_in_time() {
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    let first = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.pass(1_000);
    let second = device.start_open(TabId(3), Some(SERVER), &todos());
    let local = device.start_open(TabId(4), None, &todos());
    device.pass(8_000);
    for call in [first, second] {
        assert!(device.failure(call).message.contains("does not answer"));
    }
    device.opened(local);
}

/// Goal: where a page is lost, whoever hands its document over is told so, and at once.
#[test]
fn a_local_document_with_a_damaged_page_is_not_handed_over_and_says_why() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    for n in 0..500 {
        titled(&mut device, &n.to_string(), &format!("title of {n}"));
    }
    device.kill_core();
    device.open(&todos());
    rot(&device, b"title of 250");
    device.server_is_up = true;
    let call = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.hear_server(&FromServer::Welcome);
    want_seed(&mut server, &mut device);
    assert_eq!(device.code(call), ErrorCode::Storage);
    assert!(device.failure(call).message.contains("damaged"));
    assert_eq!(device.status().connection, Connection::Local);
}

#[test]
fn an_offer_whose_tab_is_gone_does_not_fail_the_next_one() {
    let mut server = Server::default();
    let mut device = Device::new(1);
    device.open(&todos());
    add(&mut device, "milk");
    device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.step(tidelog_client::Input::TabClosed { tab: OTHER_TAB });
    device.pass(30_000);
    device.server_is_up = true;
    let call = device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.pass(1_000);
    talk(&mut server, &mut [&mut device]);
    device.opened(call);
}

#[test]
fn a_document_is_not_destroyed_while_mutations_are_pending_unless_by_force() {
    let mut device = Device::new(1);
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    add(&mut device, "milk");
    device.close(TAB);
    let refused = device.destroy(false);
    assert_eq!(device.code(refused), ErrorCode::Pending);
    let destroyed = device.destroy(true);
    assert!(matches!(device.answer(destroyed), FromCore::Done { .. }));
    let call = device.start_open(TAB, Some(SERVER), &todos());
    assert_eq!(device.opened(call).pending, 0);
    assert_eq!(count(&mut device), [[integer(0)]]);
}

#[test]
fn a_killed_core_leaves_undecided_calls_to_the_next_one() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    let decided = add(&mut device, "decided");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    let undecided = add(&mut device, "undecided");
    device.kill_core();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    device.ask_again(&[decided, undecided]);
    assert_eq!(device.fate(decided), "durable 1, confirmed 2");
    assert_eq!(device.fate(undecided), "durable 2");
    back_online(&mut server, &mut device);
    assert_eq!(device.fate(undecided), "durable 2, confirmed 3");
    assert_eq!(count(&mut device), [[integer(2)]]);
}

#[test]
fn a_call_that_was_decided_before_its_tab_asks_again_is_not_run_again() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    let milk = add(&mut device, "milk");
    device.kill_core();
    // Another tab is first to notice, and what was undecided is decided for it.
    device.start_open(OTHER_TAB, Some(SERVER), &todos());
    back_online(&mut server, &mut device);
    let call = device.start_open(TAB, Some(SERVER), &todos());
    assert_eq!(device.opened(call).pending, 0);
    device.ask_again(&[milk]);
    assert_eq!(device.fate(milk), "durable 1, confirmed 2");
    assert_eq!(count(&mut device), [[integer(1)]]);
    // So does one that greets the same core once more, on a port of its own.
    let bread = add(&mut device, "bread");
    talk(&mut server, &mut [&mut device]);
    device.told.clear();
    device.ask_again(&[bread]);
    assert_eq!(device.fate(bread), "durable 2, confirmed 3");
    assert_eq!(count(&mut device), [[integer(2)]]);
}

#[test]
fn a_document_that_is_closed_with_something_on_its_way_and_opened_again_follows_the_server() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    device.disk.hold_flushes(true);
    let milk = add(&mut device, "milk");
    device.close(TAB);
    assert_eq!(device.socket, None, "nobody needs the server now");
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    device.disk.hold_flushes(false);
    device.flushed();
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.fate(milk), "durable 1, confirmed 2");
    assert_eq!(device.status().connection, Connection::Online);
    assert_eq!(device.status().pending, 0);
}

#[test]
fn a_replaced_document_takes_the_undecided_mutations_along() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "old");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    let milk = add(&mut device, "milk");
    server.lose_document();
    server.create(&todos());
    back_online(&mut server, &mut device);
    let told = device.told.iter().any(|(_, message)| {
        matches!(message, FromCore::Status { status, .. } if status.error.as_ref()
            .is_some_and(|error| error.code == ErrorCode::DocumentReplaced))
    });
    assert!(told, "nobody was told");
    assert_eq!(device.fate(milk), "durable 2, confirmed 2");
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);
    assert_eq!(device.status().error, None);
    assert!(image(&mut device) == server.image(), "the two sides differ");
    device.cut_power();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    assert_eq!(device.query("select id from todo"), [[text("milk")]]);
}

#[test]
fn no_more_of_a_replaced_document_is_called_durable_than_there_is() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    for id in ["milk", "bread", "salt"] {
        add(&mut device, id);
    }
    talk(&mut server, &mut [&mut device]);
    device.pass(1_000);
    assert_eq!(device.status().storage_lsns, [5, 5]);
    server.restore(Lsn::FIRST.plus(2));
    offline(&mut device);
    device.told.clear();
    back_online(&mut server, &mut device);
    device.pass(1_000);
    assert_eq!(device.status().storage_lsns, [3, 3]);
    let lsns = device.told.iter().filter_map(|(_, message)| match message {
        FromCore::Status { status, .. } => Some(status.storage_lsns),
        _ => None,
    });
    let claims: Vec<_> = lsns.filter(|[durable, visible]| durable > visible).collect();
    assert_eq!(claims, [[0; 2]; 0], "so long as it is not written down either");
}

#[test]
fn a_server_that_has_lost_the_document_changes_nothing_here() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "milk");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    server.lose_document();
    back_online(&mut server, &mut device);
    assert_eq!(device.status().error.as_ref().map(|it| it.code), Some(ErrorCode::DocumentMissing));
    add(&mut device, "bread");
    assert_eq!(count(&mut device), [[integer(2)]]);
    assert_eq!(device.status().pending, 1);
}

#[test]
fn an_app_that_stays_away_keeps_its_mutations_until_it_goes_back() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    device.ask(TAB, vec![ToCore::SetConnected { handle: HANDLE, word: 1 }]);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.status().connection, Connection::Offline);
    let milk = add(&mut device, "milk");
    device.pass(60_000);
    assert_eq!(device.fate(milk), "durable 1");
    device.ask(TAB, vec![ToCore::SetConnected { handle: HANDLE, word: 2 }]);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.fate(milk), "durable 1, confirmed 2");
}

#[test]
fn a_migration_that_fails_here_fails_its_tab_and_nobody_else() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    for title in ["a", "b"] {
        device.mutate("note", &[("title", text(title))]);
    }
    talk(&mut server, &mut [&mut device]);
    let mut newer = todos();
    newer.migrations.push(
        "create table one (x integer primary key) strict;
                           insert into one select 1 from note"
            .to_owned(),
    );
    let refused = device.start_open(OTHER_TAB, Some(SERVER), &newer);
    assert_eq!(device.code(refused), ErrorCode::Doctype);
    let milk = add(&mut device, "milk");
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.fate(milk), "durable 3, confirmed 4");
    assert_eq!(device.status().error, None);
}

#[test]
fn a_rebase_finds_pages_that_a_layer_covers_for_readers() {
    // With no page kept in memory, base pages under the layers are gone when a rebase needs them.
    let mut server = Server::default();
    let mut other = online(2, &mut server);
    let mut device = Device::with_pool(1, 0);
    device.server_is_up = true;
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    talk(&mut server, &mut [&mut device]);
    for n in 0..20 {
        add(&mut device, &n.to_string());
    }
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    for n in 20..25 {
        add(&mut device, &n.to_string());
    }
    add(&mut other, "theirs");
    talk(&mut server, &mut [&mut other]);
    back_online(&mut server, &mut device);
    assert_eq!(device.status().error, None);
    assert_eq!(device.status().pending, 0);
    assert_eq!(count(&mut device), [[integer(26)]]);
}

#[test]
fn an_opening_between_two_parts_of_an_entry_lets_it_begin_anew() {
    let mut server = Server::default();
    let (mut writer, mut device) = (online(1, &mut server), online(2, &mut server));
    add(&mut writer, "milk");
    talk(&mut server, &mut [&mut writer]);
    let news = server.news(device.number);
    let [FromServer::About { channel, body: FromRoom::Entry(part) }] = news.as_slice() else {
        panic!("{news:?}")
    };
    let say = |body| FromServer::About { channel: *channel, body };
    let absent =
        (1..=part.db_pages).map(Pgid).find(|it| part.pages.iter().all(|page| page.pgid != *it));
    let old = CodedPage { pgid: absent.expect("not all pages change"), ..part.pages[0].clone() };
    let (pgid, page) = old.clone().decoded();
    let hash = hash_part(EntryHash::default(), [(pgid, &page)], part.db_pages);
    let begun = EntryPart { pages: vec![old], hash, is_last: false, ..part.clone() };
    device.hear_server(&say(FromRoom::Entry(begun)));
    let (storage, wanted, lives) = (server.position(), Lsn::FIRST, Lineage::default());
    let from = Lsn::FIRST;
    device.hear_server(&say(FromRoom::Opened { storage, from, wanted, lives }));
    device.hear_server(&news[0]);
    assert_eq!(count(&mut device), [[tidelog_types::Value::Integer(1)]]);
}

/// Goal: a server whose window is full hears of what it sent. Method: a channel that is opened
/// anew, with a doctype more, gets again what was taken in before the answer came.
#[test]
fn an_entry_that_comes_again_is_acknowledged_again() {
    let mut server = Server::default();
    let (mut writer, mut device) = (online(1, &mut server), online(2, &mut server));
    add(&mut writer, "milk");
    talk(&mut server, &mut [&mut writer]);
    let news = server.news(device.number);
    let [FromServer::About { channel, body: FromRoom::Entry(_) }] = news.as_slice() else {
        panic!("{news:?}")
    };
    let (from, storage) = (Lsn::FIRST, server.position());
    let (wanted, lives) = (Lsn::FIRST, Lineage::default());
    let opened = FromRoom::Opened { storage, from, wanted, lives };
    let opened = FromServer::About { channel: *channel, body: opened };
    let is_received = |said: &ToServer| {
        let ToServer::About { body: ToRoom::Received { next }, .. } = said else { return false };
        *next == storage.next
    };
    device.hear_server(&news[0]);
    assert!(device.take_sent().iter().any(is_received));
    device.hear_server(&opened);
    device.take_sent();
    device.hear_server(&news[0]);
    let sent = device.take_sent();
    assert!(sent.iter().any(is_received), "the server would wait for ever: {sent:?}");
}

/// Goal: damage on the server costs nobody anything that is here. Method: a server that refuses
/// the document, and serves it again.
#[test]
fn a_document_that_is_damaged_on_the_server_waits_offline_and_goes_on() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    let milk = add(&mut device, "milk");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    server.is_damaged = true;
    back_online(&mut server, &mut device);
    let eggs = add(&mut device, "eggs");
    let synced = device.sync();
    let status = device.status().clone();
    let error = status.error.expect("an error");
    assert_eq!((status.connection, status.pending), (Connection::Offline, 1));
    assert_eq!(error.code, ErrorCode::Storage);
    assert!(error.message.contains("wait safely"), "{}", error.message);
    assert_eq!(device.code(synced), ErrorCode::Storage, "it is not worth waiting for");
    assert_eq!(device.fate(eggs), "durable 2");
    assert_eq!(count(&mut device), [[integer(2)]]);

    server.is_damaged = false;
    offline(&mut device);
    back_online(&mut server, &mut device);
    assert_eq!(device.status().connection, Connection::Online);
    assert_eq!((&device.status().error, device.status().pending), (&None, 0));
    for call in [milk, eggs] {
        assert!(device.fate(call).contains("confirmed"), "{}", device.fate(call));
    }
}

/// The server's document is full, even of rejections, until somebody else deletes something; or it
/// is not what it should be, until its operator mends it.
#[test]
fn mutations_whose_verdict_cannot_be_written_wait_and_are_sent_again_later() {
    let reason = "nothing goes in".to_owned();
    for (why, code) in [
        (UndecidedReason::NoRoomForVerdict { reason: reason.clone() }, ErrorCode::BudgetExceeded),
        (UndecidedReason::VerdictFailed { reason: reason.clone() }, ErrorCode::Storage),
    ] {
        let mut server = Server::default();
        let mut device = online(1, &mut server);
        server.no_verdict = Some(why);
        let milk = add(&mut device, "milk");
        talk(&mut server, &mut [&mut device]);
        let status = device.status().clone();
        assert_eq!((status.connection, status.pending), (Connection::Online, 1), "it follows on");
        let error = status.error.expect("an error");
        assert_eq!(error.code, code);
        for part in ["wait safely", &reason] {
            assert!(error.message.contains(part), "{}", error.message);
        }
        // That this device writes something says nothing of the server.
        add(&mut device, "bread");
        assert_eq!(device.status().error.as_ref().map(|error| error.code), Some(code));
        server.no_verdict = None;
        device.pass(30_000);
        talk(&mut server, &mut [&mut device]);
        assert_eq!((&device.status().error, device.status().pending), (&None, 0));
        assert!(device.fate(milk).contains("confirmed"), "{}", device.fate(milk));
    }
}

/// Goal: whoever asks anew whether all is in step hears the server's word of now, and not that of
/// half a minute ago; whoever asks on and on does not make it try many times a second. Method: it
/// cannot write a verdict, and is mended, while it follows or while it is away.
#[test]
fn sync_asks_a_server_again_that_was_mended_meanwhile() {
    let is_open = |it: &ToServer| matches!(it, ToServer::About { body: ToRoom::Open { .. }, .. });
    let reason = "nothing goes in".to_owned();
    for goes_away in [false, true] {
        let mut server = Server::default();
        let mut device = online(1, &mut server);
        server.no_verdict = Some(UndecidedReason::VerdictFailed { reason: reason.clone() });
        add(&mut device, "milk");
        talk(&mut server, &mut [&mut device]);
        for _ in 0..2 {
            let sync = device.sync();
            let error = device.status().error.as_ref().map(|error| error.code);
            assert_eq!(error, Some(ErrorCode::Storage), "nothing else is known");
            device.pass(999);
            assert!(!device.sent.iter().any(is_open), "it has just been asked");
            device.pass(1);
            talk(&mut server, &mut [&mut device]);
            assert_eq!(device.code(sync), ErrorCode::Storage, "it is as it was");
        }
        if goes_away {
            offline(&mut device);
        }
        server.no_verdict = None;
        let sync = device.sync();
        device.server_is_up = true;
        device.pass(1_000);
        talk(&mut server, &mut [&mut device]);
        assert!(matches!(device.answer(sync), FromCore::Done { .. }));
        assert_eq!((&device.status().error, device.status().pending), (&None, 0));
    }
}

/// Goal: a document that is asked for at another server is that server's only if it is the same
/// one, however often the app comes back. Method: the other server has another one of that name;
/// its address is that of the next opening too, and of the next core's.
#[test]
fn a_document_is_not_replaced_by_that_of_another_server_in_the_next_session_either() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    add(&mut device, "ours");
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    add(&mut device, "pending");
    let mut other = Server::default();
    other.lose_document();
    other.create(&todos());
    device.server_is_up = true;
    for session in ["the first", "reopened", "another core"] {
        match session {
            "reopened" => device.close(TAB),
            "another core" => device.kill_core(),
            _ => {}
        }
        device.start_open(TAB, Some("ws://other"), &todos());
        device.pass(40_000);
        talk(&mut other, &mut [&mut device]);
        let error = device.status().error.as_ref().map(|it| it.code);
        assert_eq!(error, Some(ErrorCode::DocumentExists), "{session}");
        assert_eq!(count(&mut device), [[integer(2)]], "{session}");
    }
    device.start_open(TAB, Some(SERVER), &todos());
    assert_eq!(device.status().error, None, "this server has refused nothing");
    device.pass(40_000);
    talk(&mut server, &mut [&mut device]);
    assert_eq!((device.status().pending, &device.status().error), (0, &None));
    assert_eq!(count(&mut device), [[integer(2)]]);
}

/// Goal: a page that is lost holds nobody up: what needs it is told, the rest of the document is
/// read. Method: an undecided mutation needs it to be run again as the document is opened.
#[test]
fn a_document_is_read_though_a_page_is_lost_that_a_pending_mutation_needs() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    for n in 0..500 {
        titled(&mut device, &n.to_string(), &format!("title of {n}"));
    }
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.status().pending, 0);
    offline(&mut device);
    device.mutate("toggle", &[("id", text("250"))]);
    device.kill_core();
    rot(&device, b"title of 250");
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.pass(1_000);
    assert_eq!(device.opened(call).pending, 1);
    assert_eq!(device.query("select title from todo where rowid = 1"), [[text("title of 0")]]);
    back_online(&mut server, &mut device);
    device.pass(30_000);
    talk(&mut server, &mut [&mut device]);
    let error = device.status().error.as_ref().expect("it is said for as long as it lasts");
    assert!(error.message.contains("damaged"), "{error:?}");
}

/// Goal: no app is told that a document is open by a doctype that it could not be brought to.
/// Method: its migration needs a page that is lost; it is opened twice while another tab holds it.
#[test]
fn a_migration_that_needs_a_lost_page_fails_each_opening() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    for n in 0..500 {
        titled(&mut device, &n.to_string(), &format!("title of {n}"));
    }
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    device.kill_core();
    rot(&device, b"title of 250");
    let call = device.start_open(TAB, Some(SERVER), &todos());
    device.opened(call);
    let mut newer = todos();
    newer.migrations.push("update todo set title = title || '!'".to_owned());
    for _ in 0..2 {
        let call = device.start_open(OTHER_TAB, Some(SERVER), &newer);
        device.pass(1_000);
        assert!(device.failure(call).message.contains("damaged"), "{:?}", device.failure(call));
    }
    assert_eq!(device.query("select title from todo where rowid = 1"), [[text("title of 0")]]);
}

/// A newer release of the todo list, whose migration needs every page of it.
fn marked() -> Doctype {
    let mut newer = todos();
    newer.migrations.push(
        "update todo set title = title || '!';
         create table mark (id text primary key) strict"
            .to_owned(),
    );
    newer.mutations.push(define("mark", &[], &["insert into mark values ('x')"]));
    newer
}

/// Goal: a document of which something is lost that its release needs sends all the same what
/// waits in it, and shows nothing. Method: it was opened by that while its server was away.
#[test]
fn a_document_that_damage_keeps_from_its_release_sends_what_is_pending() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    for n in 0..500 {
        titled(&mut device, &n.to_string(), &format!("title of {n}"));
    }
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &marked());
    device.opened(call);
    let milk = add(&mut device, "milk");
    device.kill_core();
    rot(&device, b"title of 250");
    let call = device.start_open(TAB, Some(SERVER), &marked());
    device.pass(1_000);
    assert_eq!(device.opened(call).pending, 1);
    for sql in ["select id from mark", "select title from todo"] {
        let failure = device.try_query(sql).expect_err("it is not there");
        assert!(failure.message.contains("damaged"), "{failure:?}");
    }
    assert_eq!(device.query("select title from todo where rowid = 1"), [[text("title of 0")]]);
    let bread = add(&mut device, "bread");
    assert_eq!(device.code(bread), ErrorCode::Storage, "it would run by an older schema");
    device.ask_again(&[milk]);
    for _ in 0..2 {
        back_online(&mut server, &mut device);
    }
    let confirmed = device.answers(milk).pop();
    assert!(matches!(confirmed, Some(FromCore::Confirmed { .. })), "{}", device.fate(milk));
    let sql = "select title from todo where id = '250'";
    assert_eq!(device.query(sql), [[text("title of 250!")]], "the server has migrated it");
    assert_eq!((device.query("select id from mark"), &device.status().error), (vec![], &None));
}

/// Goal: damage is not blamed on the words of whoever asks, and costs nobody what is whole. Method:
/// two releases have a document open; what the newer one's migration needs is lost, and it is read
/// anew without that, since the disk had no room.
#[test]
fn a_release_that_damage_keeps_a_document_from_is_told_the_damage() {
    let few = Limits { pool_pages_max: 0, ..Limits::DEFAULT };
    for url in [None, Some(SERVER)] {
        let mut server = Server::default();
        let mut device = match url {
            None => Device::with_limits(1, few),
            Some(_) => online_with(1, few, &mut server),
        };
        if url.is_none() {
            device.open(&todos());
        }
        // So that what rots is in the page file.
        device.log_size_max = 64 << 10;
        device.lose_page_server();
        device.lend();
        for n in 0..500 {
            titled(&mut device, &n.to_string(), &format!("title of {n}"));
        }
        if url.is_some() {
            talk(&mut server, &mut [&mut device]);
            offline(&mut device);
        }
        device.disk.set_full(url.is_none());
        let call = device.start_open(OTHER_TAB, url, &marked());
        device.opened(call);
        device.lose_page_server();
        device.lend();
        rot(&device, b"title of 250");
        if url.is_some() {
            device.fill_disk();
            let full = add(&mut device, "bread");
            device.pass(1_000);
            assert_eq!(device.code(full), ErrorCode::StorageFull);
        }
        device.disk.set_full(false);
        device.pass(1_000);

        let (mark, message) = device.mutation("mark", &[]);
        device.ask(OTHER_TAB, vec![message]);
        let query = query_elsewhere(&mut device, "select id from mark");
        let live = watch_elsewhere(&mut device, "select id from mark");
        for call in [mark, query, live] {
            let failure = device.failure(call);
            assert_eq!((failure.code, failure.outcome), (ErrorCode::Storage, Outcome::None));
            assert!(failure.message.contains("damaged"), "{failure:?}");
        }
        let milk = add(&mut device, "milk");
        assert!(device.fate(milk).starts_with("durable"), "{}", device.fate(milk));
        let sql = "select title from todo where rowid = 1";
        assert_eq!(device.query(sql), [[text("title of 0")]]);
        let again = device.answers(live).len();
        assert_eq!(again, 2, "it is told again as that may have changed: {}", device.fate(live));
    }
}

/// A newer release of the todo list that parts from [`marked`].
fn parting() -> Doctype {
    let mut newer = todos();
    newer.migrations.push("create table badge (id text primary key) strict".to_owned());
    newer.mutations.push(define("pin", &[], &["insert into badge values ('x')"]));
    newer
}

/// Goal: what was written by a release that the server does not take is shown as it was. Method:
/// tabs of two releases have the document; nothing of it comes before the server has looked at the
/// newer one, which it refuses.
#[test]
fn the_newest_release_is_brought_to_the_server_before_all_others() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &parting());
    device.opened(call);
    let (_, pin) = device.mutation("pin", &[]);
    device.ask(OTHER_TAB, vec![pin]);
    device.take_sent();
    device.server_is_up = true;
    device.pass(15_000);
    device.hear_server(&FromServer::Welcome);
    let brought = device.take_sent().into_iter().filter_map(|message| match message {
        ToServer::About { body: ToRoom::Open { doctype, .. }, .. } => {
            Some(codec::decode::<Doctype>(&doctype).expect("a doctype"))
        }
        _ => None,
    });
    assert_eq!(brought.collect::<Vec<_>>(), [parting(), todos()]);
}

/// Goal: a release that the server's document is not of is refused where it is opened, and nothing
/// changes. Method: another device has brought a newer release; then one is opened that parts from
/// that, which this device has never heard of either.
#[test]
fn a_release_that_parts_from_what_the_server_has_is_not_opened() {
    let mut server = Server::default();
    let mut other = online(1, &mut server);
    let call = other.start_open(OTHER_TAB, Some(SERVER), &marked());
    other.opened(call);
    talk(&mut server, &mut [&mut other]);
    let mut device = online(2, &mut server);
    let mut longer = parting();
    longer.migrations.push("create table more (id text) strict".to_owned());
    for doctype in [parting(), longer] {
        let call = device.start_open(OTHER_TAB, Some(SERVER), &doctype);
        assert_eq!(device.code(call), ErrorCode::DoctypeMismatch);
    }
    let milk = add(&mut device, "milk");
    talk(&mut server, &mut [&mut device, &mut other]);
    let confirmed = device.answers(milk).pop();
    assert!(matches!(confirmed, Some(FromCore::Confirmed { .. })), "{}", device.fate(milk));
    assert_eq!(device.status().error, None);
    let call = device.start_open(OTHER_TAB, Some(SERVER), &marked());
    device.opened(call);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.status().error, None);
}

/// Bytes that the migration of [`starred`] needs.
const MUCH: u64 = 15_000_000;

/// A newer release of the todo list.
fn starred() -> Doctype {
    let mut newer = todos();
    newer.migrations.push(format!(
        "alter table todo add column star integer;
         insert into note select '' where length(zeroblob({MUCH}) || '') > {MUCH}"
    ));
    newer.mutations.push(define("rate", &[], &["update todo set star = 1"]));
    newer
}

/// What SQLite holds is counted for all tests together: those that measure it wait for each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on there is memory for all but that migration.
fn be_short_of_much() {
    be_short_beyond(Some(held_size()[0] + MUCH / 2));
}

fn query_elsewhere(device: &mut Device, sql: &str) -> Call {
    let (call, query) = device.query_message(sql);
    device.ask(OTHER_TAB, vec![query]);
    call
}

fn watch_elsewhere(device: &mut Device, sql: &str) -> Call {
    let (call, handle, sql) = (device.next_call(), HANDLE, sql.to_owned());
    let request = Request::Watch(Query { sql, params: Params::NONE });
    device.ask(OTHER_TAB, vec![ToCore::Ask { call, handle, request }]);
    call
}

/// Goal: a passing want of memory is no fault of a doctype, nor of what is asked by it, and what
/// was opened by a newer one shows it once there is memory again. Who needs nothing newer goes on.
/// Method: a document is opened by a newer release on a full disk, and so read anew; there is
/// memory for all but the migration.
#[test]
fn a_migration_that_finds_no_memory_is_run_once_there_is_some() {
    let _alone = alone();
    let mut device = Device::new(2);
    device.open(&todos());
    add(&mut device, "milk");
    device.fill_disk();
    let call = device.start_open(OTHER_TAB, None, &starred());
    device.opened(call);
    device.disk.set_full(false);
    be_short_of_much();
    let call = query_elsewhere(&mut device, "select star from todo");
    assert_eq!(device.code(call), ErrorCode::Engine, "it has no such column yet");
    let (call, message) = device.mutation("rate", &[]);
    device.ask(OTHER_TAB, vec![message]);
    assert_eq!(device.code(call), ErrorCode::Engine);
    let bread = add(&mut device, "bread");
    assert!(device.fate(bread).starts_with("durable"), "{}", device.fate(bread));
    assert_eq!(device.query("select count(*) from todo"), [[integer(2)]], "for the older release");
    let sync = device.sync();
    assert!(matches!(device.answer(sync), FromCore::Done { .. }));
    be_short_beyond(None);
    let call = query_elsewhere(&mut device, "select star from todo");
    assert!(matches!(device.answer(call), FromCore::Rows { .. }), "{}", device.fate(call));
}

/// Goal: what became of a mutation is found out though there is no memory for what another tab
/// needs. Method: it is asked for again before it is written, and before what the other tab has
/// issued behind it, for which there is no room.
#[test]
fn a_mutation_is_looked_for_though_there_is_no_memory_for_a_newer_release() {
    let _alone = alone();
    let mut device = Device::new(2);
    device.open(&todos());
    device.lose_page_server();
    let milk = add(&mut device, "milk");
    let (call, open) = device.open_message(None, &starred());
    let (large, note) = device.mutation("note", &[("title", text(&"x".repeat(3 << 20)))]);
    device.ask(OTHER_TAB, vec![open, note]);
    device.opened(call);
    device.ask_again(&[milk]);
    device.disk.set_capacity(Some(device.disk.used() + (1 << 20)));
    be_short_of_much();
    device.lend();
    assert_eq!(device.code(large), ErrorCode::StorageFull);
    assert_eq!(device.fate(milk), "durable 2, confirmed 2, durable 2, confirmed 2");
    be_short_beyond(None);
}

/// Goal: a live query of a newer release outlives that there is no memory for its schema. Method:
/// the document is read anew below it, as the disk has no room for what was issued with it.
#[test]
fn a_live_query_goes_on_once_there_is_memory_for_its_release() {
    let _alone = alone();
    let mut local = Device::new(2);
    local.open(&todos());
    let mut synced = online(2, &mut Server::default());
    offline(&mut synced);
    for (mut device, url) in [(local, None), (synced, Some(SERVER))] {
        device.lose_page_server();
        let (call, open) = device.open_message(url, &starred());
        let (_, note) = device.mutation("note", &[("title", text(&"x".repeat(3 << 20)))]);
        device.ask(OTHER_TAB, vec![open, note]);
        device.opened(call);
        let live = watch_elsewhere(&mut device, "select star from todo");
        device.disk.set_capacity(Some(device.disk.used() + (1 << 20)));
        be_short_of_much();
        device.lend();
        let [FromCore::Rows { .. }, FromCore::Failed { failure, .. }] = device.answers(live)[..]
        else {
            panic!("{}", device.fate(live))
        };
        assert_eq!(failure.code, ErrorCode::Engine, "{failure:?}");
        assert_eq!(device.query("select count(*) from todo"), [[integer(0)]]);
        be_short_beyond(None);
        device.pass(16_000);
        let last = device.answers(live).pop();
        assert!(matches!(last, Some(FromCore::Rows { .. })), "{}", device.fate(live));
    }
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
