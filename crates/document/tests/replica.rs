//! A replica and its authority, entry by entry, each scenario with pools of several sizes.

mod common;

use common::*;
use tidelog_document::{
    Doctype, MutationDefinition, OwnTimeline, Replica, ReplicaError, ServerEntry, Verdict,
};
use tidelog_pages::TimelineFrame;
use tidelog_sqlite::{Failure, Run, View, be_short_beyond};
use tidelog_types::limits::{Limits, REASON_SIZE_MAX};
use tidelog_types::{
    Budget, BudgetLimits, CallId, JournalId, Life, Lineage, Lsn, LsnRange, Position, Value,
};

/// The first device hears of three items that the second one has added.
fn hear_theirs(doctype: &Doctype, server: &mut Server, first: &mut Device, second: &mut Device) {
    for n in 0..3 {
        let theirs = add(second, doctype, &format!("theirs-{n}"), n);
        let (_, entry) = server.take(second.replica.origin(theirs.lsn), &theirs);
        first.hear(entry);
    }
}

fn ids(device: &mut Device) -> String {
    let rows = device.query("select id from item order by id");
    rows.iter().map(|row| format!("{:?} ", row[0])).collect::<String>().replace("Text", "")
}

#[test]
fn an_entry_as_predicted_takes_its_layers_place_and_nothing_runs_again() {
    with_items(|doctype, mut server, mut device, _| {
        let frame = add(&mut device, &doctype, "new", 1);
        let seen = device.image();
        assert_eq!(device.replica.to_string(), "timeline 41..42 | visible 42");
        let (verdict, entry) = server.take(device.replica.origin(frame.lsn), &frame);
        assert_eq!(verdict, Verdict::Applied);

        device.changed.clear();
        assert!(device.hear(entry), "it had to wait for a rebase");
        assert!(device.replica.is_rebased());
        assert_eq!(device.changed, []);
        assert_eq!(device.verdicts(), [applied(41)]);
        assert_eq!(device.frames, []);
        assert_eq!(device.replica.to_string(), "timeline 42..42 | visible 43");
        assert!(device.image() == seen);
        assert_same(&server, &device);
    });
}

#[test]
fn mutations_run_again_over_an_entry_of_another_device() {
    with_items(|doctype, mut server, mut first, mut second| {
        let theirs = add(&mut second, &doctype, "theirs", 5);
        add(&mut first, &doctype, "ours", 4);
        first.issue(&doctype, "shift", &[("by", integer(10))]);
        let before = first.image();

        let (_, entry) = server.take(second.replica.origin(theirs.lsn), &theirs);
        assert!(!first.hear(entry));
        assert_eq!(first.replica.to_string(), "timeline 41..43 | visible 42 | staged 1");
        assert!(first.image() == before, "readers saw half of a rebase");

        first.changed.clear();
        first.settle();
        assert_eq!(first.replica.to_string(), "timeline 41..43 | visible 43");
        assert!(!first.changed.is_empty());
        let shifted = "select n from item where id in ('ours', 'theirs') order by id";
        assert_eq!(first.query(shifted), [[integer(14)], [integer(15)]]);
        assert_eq!(first.verdicts(), []);
        converge(&mut server, &mut first);
        follow(&server, &mut second);
        assert_same(&server, &second);
        assert_eq!(second.query(shifted), [[integer(14)], [integer(15)]]);
    });
}

#[test]
fn what_the_authority_rejects_is_gone_and_what_was_behind_it_is_applied() {
    with_items(|doctype, mut server, mut first, mut second| {
        // Both sides accept it alone; together they break the constraint.
        let theirs = bump(&mut second, &doctype, 60);
        bump(&mut first, &doctype, 50);
        add(&mut first, &doctype, "behind", 1);
        let (_, entry) = server.take(second.replica.origin(theirs.lsn), &theirs);
        first.hear(entry);
        first.settle();
        assert_eq!(first.query("select count from total"), [[integer(60)]]);
        assert_eq!(first.query("select n from item where id = 'behind'"), [[integer(1)]]);
        assert_eq!(first.verdicts(), [], "only the authority gives verdicts");

        converge(&mut server, &mut first);
        let reason = "CHECK constraint failed: count < 99";
        assert_eq!(first.verdicts(), [rejected(41, reason), applied(42)]);
        assert_eq!(first.query("select count from total"), [[integer(60)]]);
        assert_eq!(first.query("select n from item where id = 'behind'"), [[integer(1)]]);
    });
}

#[test]
fn what_fails_where_it_was_issued_leaves_nothing() {
    with_items(|doctype, mut server, mut device, _| {
        add(&mut device, &doctype, "first", 1);
        let (seen, state) = (device.image(), device.replica.to_string());
        let args = [("id", text("nobody")), ("n", integer(1))];
        let failed = device.try_issue(&doctype, "move", &args).expect_err("nobody is there");
        assert_eq!(failed, Failure::Rejected { reason: "no such item".to_owned() });
        let failed = device.try_issue(&doctype, "bump", &[("by", integer(99))]);
        let Err(Failure::Rejected { reason }) = failed else { panic!("{failed:?}") };
        assert_eq!(reason, "CHECK constraint failed: count < 99");
        assert!(device.try_issue(&doctype, "none", &[]).is_err());
        assert!(device.try_issue(&doctype, "bump", &[]).is_err());

        assert_eq!(device.replica.to_string(), state);
        assert!(device.image() == seen);
        bump(&mut device, &doctype, 3);
        converge(&mut server, &mut device);
        assert_eq!(device.verdicts(), [applied(41), applied(42)]);
    });
}

/// Goal: what a rebase had no memory to run is shown by the next one, which is known to be due.
/// Method: of two mutations the second is run while SQLite gets none.
#[test]
fn a_mutation_that_found_no_memory_is_left_out_until_it_is_run_again() {
    with_items(|doctype, _, mut device, _| {
        add(&mut device, &doctype, "new-1", 1);
        add(&mut device, &doctype, "new-2", 2);
        device.limits.slice = BudgetLimits::SMALLEST;
        device.begin_to_reopen(&[&doctype]);
        assert!(!device.step(), "all ran in one slice");
        be_short_beyond(Some(0));
        device.step();
        be_short_beyond(None);
        device.settle();
        let seen = ids(&mut device);
        assert!(seen.contains("new-1") && !seen.contains("new-2"), "{seen}");
        assert!(device.replica.is_short());
        device.replica.retry();
        device.settle();
        assert!(ids(&mut device).contains("new-2"));
        assert!(!device.replica.is_short());
    });
}

#[test]
fn a_mutation_issued_while_a_rebase_is_under_way_joins_its_end() {
    with_items(|doctype, mut server, mut first, mut second| {
        // More than one slice of a rebase.
        for n in 0..70 {
            bump(&mut first, &doctype, n % 2);
        }
        let theirs = bump(&mut second, &doctype, 10);
        let (_, entry) = server.take(second.replica.origin(theirs.lsn), &theirs);
        first.hear(entry);
        assert!(!first.step(), "all ran in one slice");
        assert!(!first.replica.is_rebased());

        bump(&mut first, &doctype, 20);
        let count = "select count from total";
        assert_eq!(first.query(count), [[integer(35 + 20)]], "readers see the old pages meanwhile");
        first.settle();
        assert_eq!(first.query(count), [[integer(35 + 20 + 10)]]);
        assert_eq!(first.replica.to_string(), "timeline 41..112 | visible 43");
        converge(&mut server, &mut first);
        assert_eq!(first.query(count), [[integer(65)]]);
    });
}

#[test]
fn a_rebase_gets_on_under_a_budget_that_is_spent_on_other_work() {
    with_items(|doctype, mut server, mut first, mut second| {
        bump(&mut first, &doctype, 1);
        let theirs = bump(&mut second, &doctype, 10);
        let (_, entry) = server.take(second.replica.origin(theirs.lsn), &theirs);
        first.hear(entry);
        for _ in 0..3 {
            first.step_after(u64::MAX);
        }
        assert!(first.replica.is_rebased(), "it would never end: {}", first.replica);
    });
}

/// Goal: of two connections none is opened in vain, which takes as long as many mutations. Method:
/// a device that opens with something to run again needs the one for mutations, and one that opens
/// with nothing the one for queries, which stays.
#[test]
fn a_rebase_opens_no_connection_but_the_one_that_is_needed_next() {
    with_items(|doctype, _server, mut first, mut second| {
        bump(&mut first, &doctype, 1);
        for device in [&mut first, &mut second] {
            device.reopen(&[&doctype]);
            device.settle();
        }
        assert!(!first.replica.reader().is_open());
        assert!(second.replica.reader().is_open());
    });
}

#[test]
fn entries_that_come_during_a_rebase_wait_for_the_next_one() {
    with_items(|doctype, mut server, mut first, mut second| {
        for _ in 0..70 {
            bump(&mut first, &doctype, 0);
        }
        for n in 0..3 {
            let theirs = add(&mut second, &doctype, &format!("theirs-{n}"), n);
            let (_, entry) = server.take(second.replica.origin(theirs.lsn), &theirs);
            first.hear(entry);
            first.step();
        }
        assert_eq!(first.replica.sync_request(), Some(server.authority.position()));
        first.settle();
        converge(&mut server, &mut first);
        assert_eq!(
            first.query("select count(*) from item where id like 'theirs%'"),
            [[integer(3)]]
        );
    });
}

#[test]
fn entries_of_a_rebase_that_is_given_up_for_a_newer_doctype_keep_their_order() {
    with_items(|doctype, mut server, mut first, mut second| {
        for _ in 0..70 {
            bump(&mut first, &doctype, 0);
        }
        hear_theirs(&doctype, &mut server, &mut first, &mut second);
        assert!(!first.step(), "all ran in one slice");
        first.replica.learn(items_with_tags());
        assert_eq!(first.replica.sync_request(), Some(server.authority.position()));
        first.settle();
        assert_eq!(
            first.query("select count(*) from item where id like 'theirs%'"),
            [[integer(3)]]
        );
        server.learn(&items_with_tags());
        follow(&server, &mut first);
        converge(&mut server, &mut first);
    });
}

#[test]
fn a_replaced_document_is_taken_and_undecided_mutations_begin_a_new_timeline() {
    with_items(|doctype, _, mut device, _| {
        add(&mut device, &doctype, "kept", 1);
        device.issue(&doctype, "move", &[("id", text("item-3")), ("n", integer(50))]);
        bump(&mut device, &doctype, 7);
        let mut other = Server::new(2, device.pool, &doctype);
        let mut stranger = Device::following(3, device.pool, &doctype, &other);
        add(&mut stranger, &doctype, "strange", 2);
        converge(&mut other, &mut stranger);

        device.hear(other.coalesced(lsn(1)));
        assert_eq!(ids(&mut device).matches("item-").count(), 40, "the old copy stays till then");
        let old = device.replica.timeline();
        device.settle();
        assert_ne!(device.replica.timeline(), old);
        assert_eq!(device.replica.to_string(), "timeline 1..4 | visible 3");
        let lsns: Vec<u64> = device.frames.iter().map(|frame| frame.lsn.get()).collect();
        assert_eq!(lsns, [1, 2, 3]);
        assert_eq!(ids(&mut device), "(\"kept\") (\"strange\") ");

        converge(&mut other, &mut device);
        let expected = [applied(1), rejected(2, "no such item"), applied(3)];
        assert_eq!(device.verdicts(), expected);
    });
}

/// Goal: a document that was replaced before anything of it had come is taken as well. Method: what
/// is held is the beginning of a journal, and the first entry is of another one.
#[test]
fn another_journal_takes_the_place_of_one_of_which_nothing_had_come() {
    let doctype = items();
    let server = Server::new(1, usize::MAX, &doctype);
    let entry = server.coalesced(Lsn::FIRST);
    let theirs = entry.position.journal;
    for (held, begun) in [(JournalId([77; 16]), Some(theirs)), (theirs, None)] {
        let own = OwnTimeline {
            journal: JournalId([101; 16]),
            head: Lsn::FIRST,
            lives: Lineage::default(),
            life: Life([1; 16]),
        };
        let doctypes = [(doctype.hash(), doctype.clone())].into();
        let base = Some(Position::start_of(held));
        let view = View::new(usize::MAX, 0);
        let mut replica = Replica::open(view, base, own, Vec::new(), doctypes, doctype.hash());
        let mut advance = replica.sync_receive(entry.clone()).expect("in order");
        while advance.is_none() {
            let mut budget = Budget::new(Limits::DEFAULT.slice);
            let step = replica.step(JournalId([201; 16]), false, &mut budget);
            let Run::Done(done) = step else { panic!("{step:?}") };
            advance = done;
        }
        assert_eq!(advance.expect("visible").begin_storage, begun);
    }
}

#[test]
fn gaps_and_diverged_chains_are_refused_and_repeats_passed_over() {
    with_items(|doctype, mut server, mut first, mut second| {
        let mut entries = Vec::new();
        for n in 0..3 {
            let theirs = add(&mut second, &doctype, &format!("theirs-{n}"), n);
            entries.push(server.take(second.replica.origin(theirs.lsn), &theirs).1);
        }
        add(&mut first, &doctype, "ours", 1);
        let (seen, state) = (first.image(), first.replica.to_string());

        let gap = first.replica.sync_receive(entries[1].clone()).expect_err("a gap");
        assert_eq!(gap, ReplicaError::Gap { range: entries[1].range, expected: lsn(42) });
        let mut wrong = entries[0].clone();
        wrong.position.chain = wrong_chain(&wrong);
        let diverged = first.replica.sync_receive(wrong).expect_err("another chain");
        assert_eq!(diverged, ReplicaError::Diverged { range: entries[0].range });
        let overlapping =
            ServerEntry { range: LsnRange::new(lsn(41), lsn(43)), ..entries[0].clone() };
        assert!(first.replica.sync_receive(overlapping).is_err());
        let known = server.entries[3].clone();
        assert!(matches!(first.replica.sync_receive(known), Ok(None)));
        assert_eq!(first.replica.to_string(), state);
        assert!(first.replica.is_rebased());
        assert!(first.image() == seen);

        for entry in &entries {
            first.hear(entry.clone());
            assert!(matches!(first.replica.sync_receive(entry.clone()), Ok(None)), "a repeat");
        }
        first.settle();
        converge(&mut server, &mut first);
    });
}

#[test]
fn staged_entries_can_be_forgotten_and_come_again() {
    with_items(|doctype, mut server, mut first, mut second| {
        for _ in 0..70 {
            bump(&mut first, &doctype, 0);
        }
        hear_theirs(&doctype, &mut server, &mut first, &mut second);
        first.step();
        first.replica.forget_staged();
        assert_eq!(first.replica.sync_request(), first.replica.base());
        first.settle();
        assert_eq!(first.replica.to_string(), "timeline 41..111 | visible 42");
        follow(&server, &mut first);
        converge(&mut server, &mut first);
    });
}

#[test]
fn an_opened_replica_shows_what_it_showed_before() {
    with_items(|doctype, mut server, mut device, mut other| {
        add(&mut device, &doctype, "one", 1);
        let seen = device.image();
        device.reopen(&[&doctype]);
        assert!(device.image() == seen);
        assert_eq!(device.replica.find_call(device.frames[0].call), Some(lsn(41)));
        assert_eq!(device.replica.find_call(CallId([0; 16])), None);
        // What was undecided is predicted again, so its entry needs no rebase.
        let (_, entry) =
            server.take(device.replica.origin(device.frames[0].lsn), &device.frames[0].clone());
        assert!(device.hear(entry));
        bump(&mut device, &doctype, 1);
        let theirs = bump(&mut other, &doctype, 1);
        server.take(other.replica.origin(theirs.lsn), &theirs);
        converge(&mut server, &mut device);
    });
}

#[test]
fn one_entry_for_many_decides_all_that_they_decided() {
    with_items(|doctype, mut server, mut first, mut second| {
        let theirs = bump(&mut second, &doctype, 70);
        server.take(second.replica.origin(theirs.lsn), &theirs);
        add(&mut first, &doctype, "a", 1);
        bump(&mut first, &doctype, 40);
        add(&mut first, &doctype, "b", 1);
        add(&mut first, &doctype, "c", 1);
        for frame in &first.frames[..3] {
            server.take(first.replica.origin(frame.lsn), frame);
        }
        first.hear(server.coalesced(lsn(42)));
        first.settle();
        let reason = "CHECK constraint failed: count < 99";
        assert_eq!(first.verdicts(), [applied(41), rejected(42, reason), applied(43)]);
        assert_eq!(first.replica.to_string(), "timeline 44..45 | visible 46");
        converge(&mut server, &mut first);
    });
}

#[test]
fn a_rejection_that_the_client_has_kept_is_removed_by_its_next_mutation() {
    with_items(|doctype, mut server, mut first, mut second| {
        let theirs = bump(&mut second, &doctype, 90);
        bump(&mut first, &doctype, 20);
        // Issued before the client knew, so it says nothing of that.
        bump(&mut first, &doctype, 1);
        server.take(second.replica.origin(theirs.lsn), &theirs);
        follow(&server, &mut second);
        converge(&mut server, &mut first);
        let rejections = "select lsn from _tidelog_rejection";
        assert_eq!(server.query_system(rejections), [[integer(41)]]);
        // Nor does a mutation of somebody else.
        bump(&mut second, &doctype, 1);
        converge(&mut server, &mut second);
        follow(&server, &mut first);
        assert_eq!(server.query_system(rejections), [[integer(41)]]);

        bump(&mut first, &doctype, 1);
        converge(&mut server, &mut first);
        assert_eq!(server.query_system(rejections), [] as [[Value; 1]; 0]);
        assert_eq!(first.verdicts().len(), 3);
    });
}

/// Goal: what is wrong with mutations never keeps an authority from its verdicts, nor a device from
/// taking them in. Method: a full document, to which a device that did not know it adds far more
/// than the pages of the rejections have room for; then the device runs them again itself.
#[test]
fn a_full_document_rejects_what_there_is_no_room_for_and_holds_nobody_up() {
    let doctype = items();
    let limits = Limits { document_pages_max: 14, ..Limits::DEFAULT };
    let mut server = Server::with_limits(1, usize::MAX, &doctype, limits);
    let mut first = Device::following(1, usize::MAX, &doctype, &server);
    let mut second = Device::following(2, usize::MAX, &doctype, &server);
    for n in 0..200 {
        add(&mut first, &doctype, &format!("{n} {}", "long ".repeat(30)), n);
    }
    let smaller = first.issue(&doctype, "remove", &[("id", text("nobody"))]);
    second.limits.document_pages_max = 14;
    second.reopen(&[&doctype]);
    while add_unless_full(&mut second, &doctype) {}
    bump(&mut second, &doctype, 1);
    for frame in second.frames.clone() {
        let (verdict, _) = server.take(second.replica.origin(frame.lsn), &frame);
        assert_eq!(verdict, Verdict::Applied);
    }

    first.limits.document_pages_max = 14;
    first.reopen(&[&doctype]);
    follow(&server, &mut first);
    assert_eq!(first.query("select count from total"), [[integer(1)]]);
    converge(&mut server, &mut first);
    let reason = "over the budget of 14 pages in a document";
    assert_eq!(first.verdicts()[7], rejected(8, reason));
    assert_eq!(first.verdicts().last(), Some(&applied(smaller.lsn.get())));
    follow(&server, &mut second);
    assert_same(&server, &second);
    assert!(server.rest.0.db_pages > 14, "the rejections had room all the same");
}

fn add_unless_full(device: &mut Device, doctype: &Doctype) -> bool {
    let id = format!("full {}", device.frames.len());
    device.try_issue(doctype, "add", &[("id", text(&id)), ("n", integer(1))]).is_ok()
}

/// The same of a reason that is as long as a value may be: what is written down of it is short.
#[test]
fn a_reason_that_is_too_long_is_shortened_on_either_side() {
    let mut doctype = items();
    doctype.mutations.push(MutationDefinition {
        name: "refuse".to_owned(),
        params: Vec::new(),
        sql: vec!["select reject(hex(zeroblob(8388600))) from total where count > 50".to_owned()],
    });
    let mut server = Server::new(1, usize::MAX, &doctype);
    let mut first = Device::following(1, usize::MAX, &doctype, &server);
    let mut second = Device::following(2, usize::MAX, &doctype, &server);
    first.issue(&doctype, "refuse", &[]);
    let theirs = bump(&mut second, &doctype, 60);
    let (_, entry) = server.take(second.replica.origin(theirs.lsn), &theirs);
    first.hear(entry);
    first.settle();
    converge(&mut server, &mut first);
    let reason = format!("{} ...", "0".repeat(REASON_SIZE_MAX));
    assert_eq!(first.verdicts(), [rejected(1, &reason)]);
}

/// Goal: a slice of a rebase is short also where mutations change little and take long. Method:
/// such mutations are run again when their device opens.
#[test]
fn a_slice_of_a_rebase_is_bounded_in_steps() {
    let mut doctype = items();
    doctype.mutations.push(spin());
    let server = Server::new(1, usize::MAX, &doctype);
    let mut device = Device::following(1, usize::MAX, &doctype, &server);
    for _ in 0..12 {
        device.issue(&doctype, "spin", &[("times", integer(10_000))]);
    }
    device.limits.slice.steps = 200_000;
    device.begin_to_reopen(&[&doctype]);
    let mut slices = 0;
    while !device.replica.is_rebased() {
        device.step();
        slices += 1;
    }
    assert!((4..=13).contains(&slices), "{slices} slices");
}

#[test]
fn a_call_is_found_in_its_place_until_it_is_decided() {
    let doctype = items();
    let mut server = Server::new(1, usize::MAX, &doctype);
    let mut device = Device::following(1, usize::MAX, &doctype, &server);
    let frames: Vec<TimelineFrame> = (0..5).map(|_| bump(&mut device, &doctype, 1)).collect();
    let (_, entry) = server.take(device.replica.origin(frames[0].lsn), &frames[0]);
    device.hear(entry);
    assert_eq!(device.replica.find_call(frames[0].call), None, "it has its verdict");
    for frame in &frames[1..] {
        assert_eq!(device.replica.find_call(frame.call), Some(frame.lsn));
    }
    device.reopen(&[&doctype]);
    assert_eq!(device.replica.find_call(frames[4].call), Some(frames[4].lsn));
}

#[test]
fn a_replica_is_shown_in_one_line() {
    let device = Device::new(1, usize::MAX, &items());
    let line = |replica: &Replica| replica.to_string();
    assert_eq!(line(&device.replica), "timeline 1..1 | nothing from the server");
}
