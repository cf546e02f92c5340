//! What a tab is told of a mutation that it was told before is durable, where the data it is asked
//! of are not those it was recorded in any more: never that it was applied, unless it was.

use tidelog_client::{Call, FromCore, ToCore};
use tidelog_pages::StoreReply;
use tidelog_testing::client::core::{Core, key};
use tidelog_testing::client::server::{Server, back_online, connect, offline, online, talk};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{ErrorCode, Life, Outcome};

/// Nobody can tell what became of it, and that is what its tab is told.
#[track_caller]
fn nobody_knows(device: &Device, call: Call, code: ErrorCode) {
    let last = device.answers(call).pop().expect("an answer");
    let FromCore::Failed { failure, .. } = last else { panic!("{last:?}") };
    assert_eq!((failure.code, failure.outcome), (code, Outcome::Unknown));
}

fn is_confirmed(device: &Device, call: Call) -> bool {
    matches!(device.answers(call).last(), Some(FromCore::Confirmed { .. }))
}

#[test]
fn what_was_durable_before_the_data_of_the_site_were_cleared_is_not_called_confirmed() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    offline(&mut device);
    let lost = add(&mut device, "lost");
    assert_eq!(device.fate(lost), "durable 1");
    device.clear_site();
    connect(&mut server, &mut device);
    let other = add(&mut device, "other");
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.fate(other), "durable 1, confirmed 2", "it has the LSN of the lost one");
    device.ask_again(&[lost]);
    nobody_knows(&device, lost, ErrorCode::Storage);
    assert_eq!(device.query("select id from todo"), [[text("other")]]);
}

#[test]
fn what_was_durable_in_a_local_document_that_was_cleared_is_not_called_confirmed() {
    let mut device = Device::new(1);
    device.open(&todos());
    let lost = add(&mut device, "lost");
    device.clear_site();
    device.open(&todos());
    add(&mut device, "other");
    device.ask_again(&[lost]);
    nobody_knows(&device, lost, ErrorCode::Storage);
}

/// Goal: what the server has applied is not run once more because the device knows nothing of it
/// any more. Method: it is recorded and sent, and no tab hears of that before the data are cleared.
#[test]
fn what_was_recorded_and_told_to_nobody_is_not_run_on_data_that_begin_anew() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    let applied = device.mutate("note", &[("title", text("once"))]);
    talk(&mut server, &mut [&mut device]);
    device.never_told(&[applied]);
    device.clear_site();
    connect(&mut server, &mut device);
    device.told.clear();
    device.ask_again(&[applied]);
    nobody_knows(&device, applied, ErrorCode::Storage);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.query("select text from note"), [[text("once")]]);
}

#[test]
fn what_was_told_to_nobody_is_found_where_the_data_are_what_they_were() {
    let mut device = Device::new(1);
    device.open(&todos());
    let notes = ["a", "b"].map(|title| device.mutate("note", &[("title", text(title))]));
    device.never_told(&notes);
    device.kill_core();
    device.open(&todos());
    device.told.clear();
    device.ask_again(&notes);
    assert!(notes.iter().all(|note| is_confirmed(&device, *note)));
    assert_eq!(device.query("select text from note"), ["a", "b"].map(|note| [text(note)]));
}

/// Goal: what another copy of the profile has brought to the server is not run once more by this
/// one. Method: it gets its verdict as this copy leaves their timeline, and then the core dies.
#[test]
fn what_was_decided_as_its_timeline_was_left_is_not_run_again() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    talk(&mut server, &mut [&mut device]);
    offline(&mut device);
    let once = device.mutate("note", &[("title", text("once"))]);
    let mut clone = device.clone_profile(2);
    device.never_told(&[once]);
    // A call of the one's tab is not one of the other's.
    while clone.next_call() < Call(9) {}
    connect(&mut server, &mut clone);
    clone.mutate("note", &[("title", text("theirs"))]);
    talk(&mut server, &mut [&mut clone]);
    server.join(2);
    back_online(&mut server, &mut device);
    let notes = [[text("once")], [text("theirs")]];
    assert_eq!(device.query("select text from note"), notes);
    device.kill_core();
    connect(&mut server, &mut device);
    device.ask_again(&[once]);
    talk(&mut server, &mut [&mut device]);
    assert_eq!(device.query("select text from note"), notes);
    nobody_knows(&device, once, ErrorCode::Engine);
}

/// Goal: a power cut amid the leaving of a timeline makes nobody believe that its frames are of
/// others. Method: the frame of one copy is brought to the server by another one, and the power
/// goes after each append with which the first goes over to a timeline of its own.
#[test]
fn what_another_copy_has_brought_is_not_run_again_however_far_the_leaving_of_a_timeline_came() {
    for appends in 0..4 {
        let mut server = Server::default();
        let mut device = online(1, &mut server);
        talk(&mut server, &mut [&mut device]);
        offline(&mut device);
        device.mutate("note", &[("title", text("once"))]);
        let mut clone = device.clone_profile(2);
        // What follows is of another life than what the other copy brings.
        device.kill_core();
        device.start_open(TAB, Some(SERVER), &todos());
        device.mutate("note", &[("title", text("ours"))]);
        while clone.next_call() < Call(9) {}
        connect(&mut server, &mut clone);
        clone.mutate("note", &[("title", text("theirs"))]);
        talk(&mut server, &mut [&mut clone]);
        server.join(2);
        device.appends_left = appends;
        back_online(&mut server, &mut device);
        device.cut_power();
        connect(&mut server, &mut device);
        talk(&mut server, &mut [&mut device]);
        let notes = [[text("once")], [text("theirs")], [text("ours")]];
        assert_eq!(device.query("select text from note"), notes, "after {appends} appends");
    }
}

/// What begins here and is not on the disk yet leaves nothing behind: what was handed over to it
/// runs in whatever begins next.
#[test]
fn a_copy_has_a_name_once_it_is_on_the_disk() {
    let mut core = Core::default();
    core.ask_to_open(TAB, Call(1), HANDLE, "list", None);
    core.reply(StoreReply::Opened { document: key("list"), life: Life::NONE, state: None });
    assert_eq!(core.memo().copy, None);
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    assert!(core.memo().copy.is_some());
}

/// Goal: a call is looked for from where it can be on, though what was counted before it is taken
/// back and its LSNs are given to others. Method: a tab is told nothing of what is not on the disk.
#[test]
fn what_was_taken_back_is_no_place_behind_which_a_call_is_looked_for() {
    let mut core = Core::open();
    let lsn = |core: &Core| core.memo().head.expect("it is on the disk").lsn;
    let first = lsn(&core);
    for call in [Call(2), Call(3)] {
        core.add(call, &call.0.to_string());
    }
    core.pass(1_000);
    assert_eq!(lsn(&core), first, "nothing of that is on the disk");
    core.reply(StoreReply::Durable { ticket: core.last_ticket() });
    core.pass(1_000);
    assert_eq!(lsn(&core), first.plus(2));
}

/// Goal: an LSN that was given to something else says nothing. Method: the disk is put back to
/// before a mutation, and another one takes its LSN and is applied.
#[test]
fn what_a_restored_profile_has_lost_is_not_called_confirmed() {
    let mut server = Server::default();
    let mut device = online(1, &mut server);
    let kept = add(&mut device, "kept");
    talk(&mut server, &mut [&mut device]);
    let backup = device.disk.kill();
    offline(&mut device);
    let lost = add(&mut device, "lost");
    device.restore_profile(&backup);
    connect(&mut server, &mut device);
    let other = add(&mut device, "other");
    talk(&mut server, &mut [&mut device]);
    assert_eq!((device.fate(other).as_str(), lost), ("durable 2, confirmed 3", Call(3)));
    device.ask_again(&[kept, lost]);
    assert!(is_confirmed(&device, kept));
    nobody_knows(&device, lost, ErrorCode::Storage);
}

/// Two copies of a profile, of which the second has gone on in a timeline of its own: what it
/// issued before, that was rejected there, and after.
fn parted(server: &mut Server) -> (Device, [Call; 3], [Call; 2]) {
    let mut first = online(1, server);
    titled(&mut first, "taken", "taken");
    talk(server, &mut [&mut first]);
    let mut second = first.clone_profile(2);
    titled(&mut first, "theirs", "theirs");
    talk(server, &mut [&mut first]);
    // A call of the first one's tab is not one of the second one's.
    while second.next_call() < Call(9) {}
    second.start_open(TAB, Some(SERVER), &todos());
    let before =
        [("a", "theirs"), ("b", "b"), ("c", "c")].map(|(id, t)| titled(&mut second, id, t));
    connect(server, &mut second);
    talk(server, &mut [&mut second]);
    offline(&mut first);
    let mut other = online(3, server);
    offline(&mut second);
    titled(&mut other, "other", "d");
    talk(server, &mut [&mut other]);
    let after = [("d", "d"), ("e", "e")].map(|(id, t)| titled(&mut second, id, t));
    second.pass(15_000);
    back_online(server, &mut second);
    (second, before, after)
}

#[test]
fn what_became_of_a_call_is_known_though_its_timeline_was_left() {
    let mut server = Server::default();
    let (mut device, before, after) = parted(&mut server);
    let calls: Vec<Call> = before.into_iter().chain(after).collect();
    let fates = |device: &Device| -> Vec<bool> {
        let rejected = |call: &Call| {
            let last = device.answers(*call).pop().expect("an answer");
            assert!(matches!(last, FromCore::Confirmed { .. } | FromCore::Rejected { .. }));
            matches!(last, FromCore::Rejected { .. })
        };
        calls.iter().map(rejected).collect()
    };
    let told = fates(&device);
    assert_eq!(told, [true, false, false, true, false]);
    device.kill_core();
    connect(&mut server, &mut device);
    device.ask_again(&calls);
    assert_eq!(fates(&device), told);
}

/// Goal: a listener that has dealt with one rejection is still told the other. Method: the two
/// have the same LSN, in timelines of which one took the place of the other.
#[test]
fn rejections_of_two_timelines_are_told_apart() {
    let mut server = Server::default();
    let (mut first, mut other) = (online(1, &mut server), online(2, &mut server));
    offline(&mut first);
    titled(&mut other, "x", "x");
    talk(&mut server, &mut [&mut other]);
    let not_handled = titled(&mut first, "mine", "x");
    connect(&mut server, &mut first);
    let mut second = first.clone_profile(3);
    titled(&mut first, "theirs", "theirs");
    talk(&mut server, &mut [&mut first]);
    while second.next_call() < Call(9) {}
    second.start_open(TAB, Some(SERVER), &todos());
    let refused = titled(&mut second, "mine too", "x");
    assert_eq!(second.fate(refused), "failed: Rejected", "it is seen to be taken");
    let handled = titled(&mut second, "mine too", "theirs");
    connect(&mut server, &mut second);
    second.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    assert_eq!(second.rejections(TAB), [1, 1]);
    second.ask(TAB, vec![ToCore::RejectionHandled { handle: HANDLE, id: call_id(handled) }]);
    second.kill_core();
    connect(&mut server, &mut second);
    second.ask(TAB, vec![ToCore::ListenRejections { handle: HANDLE }]);
    let news = second.told.iter().filter_map(|(_, message)| match message {
        FromCore::RejectionNews { id, .. } => Some(*id),
        _ => None,
    });
    assert_eq!(news.collect::<Vec<_>>(), [call_id(not_handled)]);
}

/// Goal: a mutation is called confirmed only while it is known not to have been rejected. Method:
/// of two rejections one alone is kept, with mutations that were applied before, between and after.
#[test]
fn a_verdict_that_was_forgotten_is_not_taken_for_a_good_one() {
    let mut server = Server::default();
    let limits = Limits { rejections_kept_max: 1, ..Limits::DEFAULT };
    let mut device = Device::with_limits(1, limits);
    connect(&mut server, &mut device);
    offline(&mut device);
    let mut other = online(2, &mut server);
    for id in ["x", "y"] {
        titled(&mut other, id, id);
    }
    talk(&mut server, &mut [&mut other]);
    let [before, x, between, y, after] = ["a", "x", "b", "y", "c"].map(|title| {
        let id = format!("mine {title}");
        titled(&mut device, &id, title)
    });
    connect(&mut server, &mut device);
    device.kill_core();
    connect(&mut server, &mut device);
    device.ask_again(&[before, x, between, y, after]);
    for forgotten in [before, x] {
        nobody_knows(&device, forgotten, ErrorCode::Engine);
    }
    assert!(is_confirmed(&device, between) && is_confirmed(&device, after));
    assert!(matches!(device.answers(y).last(), Some(FromCore::Rejected { .. })));
}

/// Goal: a call that was recorded is not run again however much was recorded since. Method: a page
/// that was put aside heard nothing of it, and others have gone on.
#[test]
fn what_so_much_was_recorded_after_that_it_is_forgotten_is_not_run_again() {
    let limits = Limits { calls_remembered_max: 2, calls_kept_max: 1, ..Limits::DEFAULT };
    let mut device = Device::with_limits(1, limits);
    device.open(&todos());
    let recorded = device.mutate("note", &[("title", text("once"))]);
    for n in 0..4 {
        add(&mut device, &n.to_string());
    }
    device.never_told(&[recorded]);
    device.told.clear();
    device.ask_again(&[recorded]);
    nobody_knows(&device, recorded, ErrorCode::Engine);
    assert_eq!(device.query("select text from note"), [[text("once")]]);
}

/// Goal: the same where the next core knows no more than what its store has kept. Method: the log
/// changes over after a mutation that is durable and of which its tab heard nothing.
#[test]
fn what_the_store_has_forgotten_is_not_run_again_by_the_next_core() {
    let limits = Limits { calls_kept_max: 1, ..Limits::DEFAULT };
    let mut device = Device::with_limits(1, limits);
    device.log_size_max = 1;
    device.kill_core();
    device.open(&todos());
    let recorded = device.mutate("note", &[("title", text("once"))]);
    let last = (0..20).map(|n| add(&mut device, &n.to_string())).last().expect("some");
    device.never_told(&[recorded, last]);
    device.kill_core();
    device.open(&todos());
    device.told.clear();
    device.ask_again(&[recorded, last]);
    nobody_knows(&device, recorded, ErrorCode::Engine);
    assert!(is_confirmed(&device, last), "the store keeps that one");
    assert_eq!(device.query("select text from note"), [[text("once")]]);
    assert_eq!(device.query("select count(*) from todo"), [[integer(20)]]);
}

/// Goal: calls of one tab take effect in their order or not at all. Method: one is refused, which
/// its tab does not hear, and would be possible behind the next one.
#[test]
fn what_was_refused_is_not_run_behind_what_its_tab_issued_later() {
    let mut device = Device::new(1);
    device.open(&todos());
    let refused = device.mutate("remove", &[("id", text("a"))]);
    let later = add(&mut device, "a");
    assert_eq!(device.fate(refused), "failed: Rejected");
    device.never_told(&[refused, later]);
    for is_new_core in [false, true] {
        if is_new_core {
            device.kill_core();
            device.open(&todos());
        }
        device.told.clear();
        device.ask_again(&[refused, later]);
        let last = device.answers(refused).pop().expect("an answer");
        let FromCore::Failed { failure, .. } = last else { panic!("{last:?}") };
        assert_eq!((failure.code, failure.outcome), (ErrorCode::Engine, Outcome::None));
        assert!(is_confirmed(&device, later));
        assert_eq!(device.query("select id from todo"), [[text("a")]]);
    }
}

#[test]
fn what_was_issued_last_is_run_though_older_calls_are_forgotten() {
    let limits = Limits { calls_remembered_max: 2, calls_kept_max: 1, ..Limits::DEFAULT };
    let mut device = Device::with_limits(1, limits);
    device.open(&todos());
    for n in 0..4 {
        add(&mut device, &n.to_string());
    }
    device.pass(50);
    // Its core died before it heard of this one.
    let (late, _) = device.mutation("note", &[("title", text("once"))]);
    device.kill_core();
    device.open(&todos());
    device.ask_again(&[late]);
    assert!(is_confirmed(&device, late), "{}", device.fate(late));
    assert_eq!(device.query("select text from note"), [[text("once")]]);
}

/// Goal: of a mutation of which nobody can tell whether it was applied, nobody says that it left
/// nothing behind. Method: a machine is put back while its core runs, which goes on as the same
/// life; what it had issued before is applied already.
#[test]
fn of_a_verdict_that_nobody_can_tell_the_outcome_is_unknown() {
    let mut server = Server::default();
    let [mut before, mut device] = [(); 2].map(|()| {
        let mut device = Device::new(1);
        device.start_open(TAB, Some(SERVER), &todos());
        device
    });
    device.number = 2;
    back_online(&mut server, &mut before);
    for id in ["a", "b", "c"] {
        add(&mut before, id);
    }
    talk(&mut server, &mut [&mut before]);
    server.join(3);
    let call = add(&mut device, "d");
    back_online(&mut server, &mut device);
    match device.answers(call).pop() {
        Some(FromCore::Rejected { failure, .. }) => {
            assert_eq!(failure.outcome, Outcome::Unknown, "{failure:?}");
        }
        other => panic!("{other:?}"),
    }
}
