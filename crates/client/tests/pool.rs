//! Documents that do not fit into memory.

use tidelog_client::{Call, Handle, Input, Request, ToCore};
use tidelog_pages::{Append, RequestId, StoreRequest, TimelineFrame, Urgency};
use tidelog_sync::UndecidedReason;
use tidelog_testing::client::server::{Server, offline, online_with, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{CallId, DocumentKey, JournalId, Lsn, Value};

fn workload(device: &mut Device) -> Vec<Vec<Vec<Value>>> {
    let mut seen = Vec::new();
    device.open(&todos());
    let live = device.watch("select count(*), sum(done) from todo");
    let mut number: u32 = 12345;
    let mut below = |end: u32| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 8) % end
    };
    for step in 0..500 {
        let id = text(&format!("todo-{}", below(300)));
        let title = text(&format!("{} {}", below(100_000), "a long title ".repeat(20)));
        match below(6) {
            0..=3 => device.mutate("add", &[("id", id), ("title", title)]),
            4 => device.mutate("toggle", &[("id", id)]),
            _ => device.mutate("remove", &[("id", id)]),
        };
        if step % 25 == 0 {
            seen.push(device.query("select id, done from todo order by title"));
            seen.push(device.query("select count(*) from todo where title like '%7%'"));
        }
        if step == 250 {
            device.kill_core();
            device.open(&todos());
        }
    }
    seen.extend(device.rows_told(live));
    seen.push(device.query("select * from todo order by id"));
    seen
}

#[test]
fn the_todo_workload_gives_the_same_rows_with_a_pool_of_16_pages() {
    let (mut small, mut large) = (Device::with_pool(1, 16), Device::new(1));
    let expected = workload(&mut large);
    assert_eq!(workload(&mut small), expected);
    assert!(expected.last().is_some_and(|rows| rows.len() > 100), "too little to prove anything");
    assert!(small.reads().0 > 10 * large.reads().0.max(1), "nothing was ever evicted");
}

/// Whether a device reads while its page server has as much to do as it takes in.
fn read_in_a_crowd(mut device: Device, ask: impl Fn(DocumentKey, u64) -> StoreRequest) {
    device.open(&todos());
    titled(&mut device, "a", "milk");
    device.kill_core();
    device.open(&todos());
    device.asked.clear();
    device.crowd_page_server(ask);
    assert_eq!(device.query("select title from todo"), [[text("milk")]]);
    assert!(device.reads().0 > 1, "it was taken in at once");
}

#[test]
fn a_read_that_the_page_server_has_no_room_for_is_asked_for_again() {
    read_in_a_crowd(Device::new(1), |document, request| {
        let (urgency, pgids) = (Urgency::User, Vec::new());
        StoreRequest::Read { request: RequestId(request), urgency, document, pgids }
    });
}

#[test]
fn a_read_that_openings_leave_no_room_for_is_asked_for_again() {
    let limits = Limits { read_chunk_pages: 1, owner_reads_max: 2, ..Limits::DEFAULT };
    let mut device = Device::with_limits(1, limits);
    // One with a timeline of several chunks.
    let long = DocumentKey::new("long", "").expect("a good name");
    let journal = JournalId([7; 16]);
    let frame = |lsn| TimelineFrame {
        lsn: Lsn::new(lsn).expect("from 1"),
        call: CallId([7; 16]),
        body: vec![7; PAGE_SIZE],
    };
    let mut append = Append::to(long.clone());
    append.record = Some(vec![7].into());
    append.begin_timeline = Some((journal, Lsn::FIRST));
    append.timeline_id = Some(journal);
    append.timeline = (1..9).map(frame).collect();
    device.append_past_the_core(append);
    device.kill_core();
    read_in_a_crowd(device, |_, _| StoreRequest::Open { document: long.clone() });
}

/// Goal: memory stays bounded though nobody asks for anything any more. Method: a tab goes while
/// its query waits for pages; a live query of another one keeps reading, and no page may stay.
#[test]
fn a_tab_that_goes_while_it_waits_for_pages_leaves_none_of_them_in_memory() {
    let mut server = Server::default();
    let [mut other, mut device] = [Device::new(2), Device::with_pool(1, 0)];
    for device in [&mut other, &mut device] {
        device.server_is_up = true;
        device.start_open(TAB, Some(SERVER), &todos());
        talk(&mut server, &mut [device]);
    }
    device.watch("select count(*) from todo");
    device.start_open(OTHER_TAB, Some(SERVER), &todos());
    device.lose_page_server();
    device.start_query(OTHER_TAB, "select * from note");
    device.step(Input::TabClosed { tab: OTHER_TAB });
    device.lend();
    for n in 0..4 {
        let args = [("id", integer(n)), ("title", integer(n))];
        let args = args.map(|(name, n)| (name, text(&format!("{n:?}"))));
        other.mutate("add", &args);
        device.asked.clear();
        talk(&mut server, &mut [&mut other, &mut device]);
        assert!(device.reads().0 > 0, "what it read before is still there");
    }
}

/// Goal: a scan of a document that is not in memory faults seldom. Method: 20 MiB, a new core, one
/// query over all of it; each request to the page server is one more run of the query.
#[test]
fn a_cold_scan_of_20_mib_takes_under_200_runs() {
    let mut device = Device::new(1);
    fill_shelves(&mut device, 10_500);
    device.kill_core();
    device.open(&shelves());
    let rows = device.query("select count(*), sum(length(text)) from book");
    let Value::Integer(size) = rows[0][1] else { panic!("{rows:?}") };
    assert!(rows[0][0] == integer(10_500) && size > 19 << 20, "{rows:?}");
    let (runs, pages) = device.reads();
    assert!(pages > 20 << 8, "only {pages} pages");
    assert!(runs < 200, "{runs} runs");
    device.asked.clear();
    device.query("select count(*), sum(length(text)) from book");
    assert_eq!(device.reads(), (0, 0), "it is warm now");
}

/// Goal: what is read again for a rebase is what its mutations need, and memory does not fill with
/// the rest. Method: mutations of rows that are far from each other are undecided as the core ends,
/// and the next one, which has nothing in memory, has to run them again.
#[test]
fn a_cold_rebase_reads_little_more_than_its_mutations_need() {
    const ROWS: usize = 600;
    const UNDECIDED: usize = 40;
    let mut server = Server::default();
    let limits = Limits { pool_pages_max: 16, ..Limits::DEFAULT };
    let mut device = online_with(1, limits, &mut server);
    for id in 0..ROWS {
        titled(&mut device, &id.to_string(), &format!("{id} {}", "long".repeat(PAGE_SIZE / 4)));
    }
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    for id in (0..ROWS).step_by(ROWS / UNDECIDED) {
        device.mutate("toggle", &[("id", text(&id.to_string()))]);
    }
    device.kill_core();
    device.asked.clear();
    let call = device.start_open(TAB, Some(SERVER), &todos());
    assert_eq!(device.opened(call).pending, UNDECIDED as u64);
    let first = device.query("select done from todo where id = '0'");
    assert_eq!(first, [[integer(1)]]);
    let (reads, pages) = device.reads();
    assert!(pages < 8 * UNDECIDED, "{pages} pages in {reads} reads");
}

/// Goal: a rebase of many mutations that read here and there keeps in memory what the one at hand
/// needs, beside a live query, which is answered though an entry of the server comes each time that
/// it has met a few faults. Method: no mutation of this device gets a verdict, replies of the page
/// server are let through one by one, and memory has room for four pages.
#[test]
fn a_cold_rebase_beside_a_waiting_live_query_keeps_few_pages_and_answers_it() {
    const ROWS: usize = 400;
    const UNDECIDED: usize = 40;
    let mut server = Server::default();
    let mut other = online_with(2, Limits::DEFAULT, &mut server);
    let limits = Limits { pool_pages_max: 4, fault_pages_max: 2, ..Limits::DEFAULT };
    let mut device = online_with(1, limits, &mut server);
    for id in 0..ROWS {
        titled(&mut other, &id.to_string(), &format!("{id} {}", "long".repeat(PAGE_SIZE / 4)));
    }
    talk(&mut server, &mut [&mut other, &mut device]);
    let no_verdict = Some(UndecidedReason::VerdictFailed { reason: "later".to_owned() });
    server.no_verdict = no_verdict.clone();
    for id in (0..ROWS).step_by(ROWS / UNDECIDED) {
        device.mutate("toggle", &[("id", text(&id.to_string()))]);
    }
    talk(&mut server, &mut [&mut device]);
    let looked_at: Vec<String> = (0..8).map(|nth| format!("'{}'", nth * 45 + 7)).collect();
    let live = device.watch(&format!(
        "select count(*), sum(done), sum(at > 0) from todo where id in ({})",
        looked_at.join(", ")
    ));
    let told_before = device.rows_told(live).len();

    (device.holds_replies, device.pool_pages_most) = (true, 0);
    for nth in 0..1_500 {
        if nth % 4 == 0 {
            let id = (nth / 4 % 8) * 45 + 7;
            other.mutate("toggle", &[("id", text(&id.to_string()))]);
            server.no_verdict = None;
            talk(&mut server, &mut [&mut other]);
            server.no_verdict = no_verdict.clone();
            talk(&mut server, &mut [&mut device]);
            device.pass(UNDECIDED as u64);
        }
        device.let_reply_through();
    }
    assert_eq!(device.status().pending, UNDECIDED as u64);
    let told = device.rows_told(live).len() - told_before;
    assert!(told >= 5, "told {told} times");
    let most = device.pool_pages_most;
    assert!(most < 40, "{most} pages");
}

/// Goal: a live query is answered while the server confirms one mutation after the other, each of
/// which runs once more for that. Method: all of them share a layer, and come with an entry that
/// the live query shows before them; replies of the page server, of which memory keeps few, are let
/// through one by one.
#[test]
fn a_live_query_does_not_wait_until_all_that_shares_a_layer_is_confirmed() {
    const ROWS: usize = 40;
    let mut server = Server::default();
    let mut other = online_with(2, Limits::DEFAULT, &mut server);
    let limits = Limits { pool_pages_max: 4, fault_pages_max: 2, layers_max: 1, ..Limits::DEFAULT };
    let mut device = online_with(1, limits, &mut server);
    for id in 0..=ROWS {
        titled(&mut device, &id.to_string(), &format!("{id} {}", "long".repeat(PAGE_SIZE / 4)));
    }
    talk(&mut server, &mut [&mut other, &mut device]);
    let live = device.watch("select sum(done) from todo");
    other.mutate("toggle", &[("id", text(&ROWS.to_string()))]);
    talk(&mut server, &mut [&mut other]);
    for id in 0..ROWS {
        device.mutate("toggle", &[("id", text(&id.to_string()))]);
    }
    device.holds_replies = true;
    talk(&mut server, &mut [&mut device]);
    let shown = |device: &Device| device.rows_told(live).last().map(|rows| rows[0][0].clone());
    assert_eq!(shown(&device), Some(integer(ROWS as i64)));
    assert_eq!(device.status().pending, ROWS as u64);
    while shown(&device) != Some(integer(ROWS as i64 + 1)) {
        device.let_reply_through();
    }
    assert!(device.status().pending > ROWS as u64 / 2, "{} are left", device.status().pending);
}

/// Goal: however many documents tabs have open, those that are at rest fill no memory. Method: two
/// that were read as a whole, with room for the pages of one: the one that was asked last has them.
#[test]
fn documents_at_rest_give_back_their_pages_where_all_of_them_have_too_many() {
    let limits = Limits { pools_pages_max: 60, ..Limits::DEFAULT };
    let mut device = Device::with_limits(1, limits);
    let handles = [Handle(1), Handle(2)];
    let ask = |device: &mut Device, to: Handle, (call, mut message): (Call, ToCore)| {
        let ToCore::Ask { handle, request, .. } = &mut message else { unreachable!() };
        *handle = to;
        if let Request::Open(open) = request {
            open.document = format!("list {}", to.0);
        }
        device.pass(1);
        device.ask(TAB, vec![message]);
        call
    };
    for handle in handles {
        let open = device.open_message(None, &todos());
        ask(&mut device, handle, open);
        for id in 0..10 {
            let title = format!("{id} {}", "long".repeat(PAGE_SIZE));
            let args = [("id", text(&id.to_string())), ("title", text(&title))];
            let add = device.mutation("add", &args);
            ask(&mut device, handle, add);
        }
    }
    let mut pages_read_of = |handle| {
        device.asked.clear();
        let query = device.query_message("select count(*), sum(length(title)) from todo");
        let call = ask(&mut device, handle, query);
        assert_eq!(device.rows_told(call)[0][0][0], integer(10));
        device.reads().1
    };
    let [first, second] = handles;
    assert_eq!(pages_read_of(second), 0, "it was used last");
    assert!(pages_read_of(first) > 40, "it is there though another one was used since");
    assert_eq!(pages_read_of(first), 0);
    assert!(pages_read_of(second) > 40, "it is there though another one was used since");
}
