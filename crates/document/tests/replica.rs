//! A replica and its authority, entry by entry, each scenario with pools of several sizes.

mod common;

use common::*;
use tidelog_document::{
    Doctype, MutationDefinition, Replica, ReplicaError, ServerEntry, Verdict, is_unknown,
};
use tidelog_pages::TimelineFrame;
use tidelog_sqlite::{Failure, be_short_beyond};
use tidelog_types::limits::{Limits, REASON_SIZE_MAX};
use tidelog_types::{BudgetLimits, CallId, EntryId, JournalId, Life, LsnRange, Value};

fn add(device: &mut Device, doctype: &Doctype, id: &str, n: i64) -> TimelineFrame {
    device.issue(doctype, "add", &[("id", text(id)), ("n", integer(n))])
}

fn bump(device: &mut Device, doctype: &Doctype, by: i64) -> TimelineFrame {
    device.issue(doctype, "bump", &[("by", integer(by))])
}

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

/// A server with some items, and devices that hold them, for each size of the pool.
fn with_items(scenario: impl Fn(Doctype, Server, Device, Device)) {
    for pool in POOLS {
        let doctype = items();
        let mut server = Server::new(1, pool, &doctype);
        let mut first = Device::following(1, pool, &doctype, &server);
        for n in 0..40 {
            add(&mut first, &doctype, &format!("item-{n}"), n % 7);
        }
        converge(&mut server, &mut first);
        first.decided.clear();
        let second = Device::following(2, pool, &doctype, &server);
        assert_same(&server, &second);
        scenario(doctype, server, first, second);
    }
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
fn a_client_ahead_runs_the_migration_itself_until_the_authority_has() {
    with_items(|doctype, mut server, mut device, mut other| {
        let newer = items_with_tags();
        add(&mut device, &doctype, "before", 1);
        device.replica.learn(newer.clone());
        device.settle();
        let args = [("id", text("before")), ("tag", text("fresh"))];
        device.issue(&newer, "tag", &args);
        // The migration is the lowest layer: it ran before the undecided item came.
        assert_eq!(device.query("select count(*) from tag"), [[integer(41)]]);

        // The authority is still behind, and goes on without knowing of it.
        let theirs = add(&mut other, &doctype, "theirs", 2);
        let (_, entry) = server.take(other.replica.origin(theirs.lsn), &theirs);
        device.hear(entry);
        device.settle();
        assert_eq!(device.query("select count(*) from tag"), [[integer(42)]]);

        let seen = device.image();
        server.learn(&newer);
        device.changed.clear();
        follow(&server, &mut device);
        assert_eq!(device.changed, [], "the authority's migration is the one that was predicted");
        assert!(device.image() == seen);
        converge(&mut server, &mut device);
        assert_eq!(device.verdicts(), [applied(41), applied(42)]);
        follow(&server, &mut other);
        assert_same(&server, &other);
    });
}

/// Goal: what is forgotten comes back with no rebase. Method: one is given up behind that.
#[test]
fn a_doctype_that_was_unlearnt_is_not_the_newest_again() {
    with_items(|doctype, _, mut device, _| {
        device.replica.learn(items_with_tags());
        device.settle();
        device.replica.unlearn(doctype.hash());
        device.replica.give_up();
        assert_eq!(device.replica.newest(), doctype.hash());
        assert!(device.replica.is_behind(&items_with_tags()));
    });
}

#[test]
fn undecided_mutations_of_the_older_doctype_run_by_it_after_a_successor_came() {
    with_items(|doctype, mut server, mut device, mut other| {
        let newer = items_with_tags();
        device.issue(&doctype, "add_in_order", &[("id", text("late")), ("n", integer(1))]);
        device.issue(&doctype, "move", &[("id", text("item-1")), ("n", integer(9))]);
        server.learn(&newer);
        other.replica.learn(newer.clone());
        follow(&server, &mut other);
        follow(&server, &mut device);
        assert_eq!(device.replica.doctypes_in_use().len(), 1, "it knows the older one only");

        device.replica.learn(newer.clone());
        device.settle();
        assert_eq!(device.replica.doctypes_in_use().len(), 2);
        converge(&mut server, &mut device);
        let reason = "table item has 6 columns but 5 values were supplied";
        assert_eq!(device.verdicts(), [rejected(41, reason), applied(42)]);
        assert_eq!(device.replica.doctypes_in_use().len(), 1);
        follow(&server, &mut other);
        assert_same(&server, &other);
    });
}

#[test]
fn a_migration_that_fails_on_this_document_holds_nobody_up() {
    with_items(|doctype, mut server, mut device, mut other| {
        let mut newer = items_with_tags();
        newer.migrations[1].push_str("; create unique index one_n on item (n)");
        add(&mut device, &doctype, "ours", 1);
        let seen = device.image();
        device.replica.learn(newer.clone());
        device.settle();
        assert!(device.fails_to_migrate_to(&newer));
        let with_its_migrations = Doctype { mutations: Vec::new(), ..newer.clone() };
        assert!(device.fails_to_migrate_to(&with_its_migrations));
        assert!(!device.fails_to_migrate_to(&doctype));
        assert!(device.image() == seen);

        add(&mut device, &doctype, "and more", 2);
        let theirs = add(&mut other, &doctype, "theirs", 2);
        server.take(other.replica.origin(theirs.lsn), &theirs);
        converge(&mut server, &mut device);
        assert_eq!(device.verdicts(), [applied(41), applied(42)]);
    });
}

#[test]
fn a_frame_of_an_unknown_doctype_changes_nothing_here_and_waits_for_its_verdict() {
    with_items(|doctype, mut server, mut device, _| {
        let newer = items_with_tags();
        device.replica.learn(newer.clone());
        device.settle();
        device.issue(&newer, "tag", &[("id", text("item-1")), ("tag", text("x"))]);
        // Opened again by a tab that knows the older doctype only.
        device.reopen(&[&doctype]);
        assert_eq!(device.replica.undecided().count(), 1);
        assert_eq!(device.query("select name from sqlite_schema where name = 'tag'"), [[]; 0]);
        server.learn(&newer);
        converge(&mut server, &mut device);
        assert_eq!(device.verdicts(), [applied(41)]);
    });
}

#[test]
fn a_frame_that_cannot_be_read_is_rejected_in_its_place() {
    with_items(|doctype, mut server, mut device, _| {
        add(&mut device, &doctype, "before", 1);
        add(&mut device, &doctype, "damaged", 1);
        add(&mut device, &doctype, "after", 1);
        device.frames[1].body = b"no mutation".to_vec();
        device.reopen(&[&doctype]);
        assert_eq!(device.query("select count(*) from item where n = 1"), [[integer(8)]]);
        converge(&mut server, &mut device);
        assert_eq!(device.verdicts(), [applied(41), rejected(42, "unreadable"), applied(43)]);
    });
}

#[test]
fn a_frame_that_cannot_be_read_moves_to_another_timeline_as_it_is() {
    with_items(|doctype, _, mut device, _| {
        add(&mut device, &doctype, "before", 1);
        add(&mut device, &doctype, "of a later release", 1);
        let body = b"no mutation of this release".to_vec();
        device.frames[1].body = body.clone();
        device.reopen(&[&doctype]);
        let mut other = Server::new(2, device.pool, &doctype);
        let mut stranger = Device::following(3, device.pool, &doctype, &other);
        add(&mut stranger, &doctype, "strange", 2);
        converge(&mut other, &mut stranger);
        let old = device.replica.timeline();
        device.hear(other.coalesced(lsn(1)));
        device.settle();
        assert_ne!(device.replica.timeline(), old);
        let is_same: Vec<bool> = device.frames.iter().map(|frame| frame.body == body).collect();
        assert_eq!(is_same, [false, true]);
        converge(&mut other, &mut device);
        assert_eq!(device.verdicts(), [applied(1), rejected(2, "unreadable")]);
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

#[test]
fn mutations_beyond_the_layers_share_one() {
    let doctype = items();
    let mut server = Server::new(1, usize::MAX, &doctype);
    let mut device = Device::following(1, usize::MAX, &doctype, &server);
    let count = Limits::DEFAULT.layers_max as u64 + 20;
    for _ in 0..count {
        bump(&mut device, &doctype, 0);
    }
    let mut at_once = 0;
    for frame in device.frames.clone() {
        let (_, entry) = server.take(device.replica.origin(frame.lsn), &frame);
        at_once += u64::from(device.hear(entry));
        device.settle();
    }
    assert!(
        (Limits::DEFAULT.layers_max as u64..count).contains(&at_once),
        "{at_once} of {count} at once"
    );
    assert_same(&server, &device);
    assert_eq!(device.decided.len() as u64, count);
}

/// Goal: what a client has to run again while its mutations are decided one by one grows with their
/// number, not with its square. Method: more of them than have layers of their own are issued, so
/// that most share one, and are opened anew, and then decided as predicted.
#[test]
fn each_mutation_is_run_again_at_most_once_while_they_are_decided_as_predicted() {
    let doctype = items();
    let mut server = Server::new(1, usize::MAX, &doctype);
    let mut device = Device::following(1, usize::MAX, &doctype, &server);
    device.limits.layers_max = 4;
    device.reopen(&[&doctype]);
    let count = 60;
    for _ in 0..count {
        bump(&mut device, &doctype, 1);
    }
    device.reopen(&[&doctype]);
    let after_opening = device.replica.runs_again();
    assert_eq!(after_opening, count);
    for frame in device.frames.clone() {
        let (_, entry) = server.take(device.replica.origin(frame.lsn), &frame);
        device.hear(entry);
        device.settle();
    }
    assert_same(&server, &device);
    assert_eq!(device.decided.len() as u64, count);
    let runs = device.replica.runs_again() - after_opening;
    assert!(runs <= count, "{count} mutations were run {runs} times");
}

/// Goal: as above, under steady traffic of others, with nothing decided as predicted. Method: after
/// each mutation that is decided another device changes the same row; four times as many mutations
/// may take four times as many runs, and no more.
#[test]
fn pending_mutations_drain_in_linear_work_under_traffic_of_others() {
    let doctype = items();
    for count in [300_u64, 1200] {
        let mut server = Server::new(1, usize::MAX, &doctype);
        let mut other = Device::following(2, usize::MAX, &doctype, &server);
        let mut device = Device::following(1, usize::MAX, &doctype, &server);
        for _ in 0..count {
            bump(&mut device, &doctype, 0);
        }
        device.is_patient = true;
        for frame in device.frames.clone() {
            let (_, own) = server.take(device.replica.origin(frame.lsn), &frame);
            let theirs = bump(&mut other, &doctype, 0);
            let (_, theirs) = server.take(other.replica.origin(theirs.lsn), &theirs);
            for entry in [own, theirs] {
                other.hear(entry.clone());
                other.settle();
                device.hear(entry);
                while !device.replica.is_rebased() && device.replica.put_off().is_none() {
                    device.step();
                }
            }
        }
        assert!(device.replica.is_rebased(), "nothing is put off when all is decided");
        assert_same(&server, &device);
        assert_eq!(device.decided.len() as u64, count);
        let runs = device.replica.runs_again();
        assert!(runs <= 10 * count, "{count} mutations were run {runs} times");
    }
}

/// Goal: many pending mutations fit in memory. Method: at each slice of the rebase that opening
/// them is, and of one over an entry of another device, few have a layer of their own.
#[test]
fn layers_are_shared_while_a_rebase_is_under_way_too() {
    with_items(|doctype, mut server, mut first, mut second| {
        first.limits.layers_max = 8;
        for n in 0..90 {
            bump(&mut first, &doctype, n % 2);
        }
        let before = first.image();
        first.begin_to_reopen(&[&doctype]);
        let mut slices = 0;
        while !first.replica.is_rebased() {
            first.step();
            slices += 1;
            let count = first.replica.layers_count();
            assert!(count <= 2 * 8, "{count} layers");
        }
        assert!(slices > 1, "too little to prove anything");
        assert!(first.image() == before);
        let theirs = add(&mut second, &doctype, "theirs", 3);
        let (_, entry) = server.take(second.replica.origin(theirs.lsn), &theirs);
        first.hear(entry);
        while !first.replica.is_rebased() {
            first.step();
            let count = first.replica.layers_count();
            assert!(count <= 2 * 8, "{count} layers");
        }
        converge(&mut server, &mut first);
        assert_eq!(first.query("select count from total"), [[integer(45)]]);
    });
}

/// Goal: layers fit in memory where mutations change much, too. Method: the budget of pages has
/// room for one mutation of those that rewrite many rows, and small ones are issued between them.
/// The layers of what is shown, and of a rebase, are within it after each mutation, at each slice
/// of the rebase at opening, and of one over an entry of another device.
#[test]
fn layers_are_bounded_in_pages_too() {
    with_items(|doctype, mut server, mut first, mut second| {
        let pages_max = 32;
        first.limits.layer_pages_max = pages_max;
        first.limits.slice.pages = 64;
        first.reopen(&[&doctype]);
        let check = |device: &Device| {
            let counts = device.replica.layer_pages_counts();
            assert!(counts.iter().all(|count| *count <= pages_max), "{counts:?} pages in layers");
        };
        let rewrite = |device: &mut Device| {
            device.issue(&doctype, "shift", &[("by", integer(1))]);
            check(device);
        };
        for _ in 0..20 {
            rewrite(&mut first);
            bump(&mut first, &doctype, 1);
            check(&first);
        }
        assert!(first.replica.layers_count() > 1, "one that is too much shuts nobody else out");
        let before = first.image();
        first.begin_to_reopen(&[&doctype]);
        let mut slices = 0;
        while !first.replica.is_rebased() {
            first.step();
            check(&first);
            slices += 1;
        }
        assert!(slices > 4, "too little to prove anything");
        assert!(first.image() == before);
        let theirs = add(&mut second, &doctype, "theirs", 3);
        let (_, entry) = server.take(second.replica.origin(theirs.lsn), &theirs);
        first.hear(entry);
        // What is issued meanwhile has its layer beside those of the rebase.
        first.step();
        rewrite(&mut first);
        while !first.replica.is_rebased() {
            first.step();
            check(&first);
        }
        let count = first.replica.layers_count();
        for frame in first.frames.clone() {
            let (_, entry) = server.take(first.replica.origin(frame.lsn), &frame);
            first.hear(entry);
            first.settle();
            // The pages of those that are decided are there for others.
            rewrite(&mut first);
            bump(&mut first, &doctype, 0);
            check(&first);
        }
        assert!(first.replica.layers_count() >= count);
        converge(&mut server, &mut first);
        assert_eq!(first.query("select count from total"), [[integer(20)]]);
    });
}

/// Goal: a mutation of which one layer is too large is folded like others that share one. Method:
/// no layer has room; all are decided as predicted, and then another device's entry comes first.
#[test]
fn a_mutation_whose_layer_is_too_large_is_run_once_to_be_folded() {
    with_items(|doctype, mut server, mut first, mut second| {
        first.limits.layer_pages_max = 1;
        first.reopen(&[&doctype]);
        let before = first.replica.runs_again();
        for _ in 0..10 {
            first.issue(&doctype, "shift", &[("by", integer(1))]);
        }
        for frame in first.frames.clone() {
            let (_, entry) = server.take(first.replica.origin(frame.lsn), &frame);
            first.hear(entry);
            first.settle();
            assert_eq!(first.replica.layer_pages_counts(), [0, 0]);
        }
        assert_eq!(first.replica.runs_again() - before, 10);
        assert_same(&server, &first);

        first.issue(&doctype, "shift", &[("by", integer(1))]);
        first.issue(&doctype, "shift", &[("by", integer(1))]);
        let theirs = first.frames[0].clone();
        let other = add(&mut second, &doctype, "theirs", 3);
        server.take(second.replica.origin(other.lsn), &other);
        server.take(first.replica.origin(theirs.lsn), &theirs);
        follow(&server, &mut first);
        assert_eq!(first.replica.layer_pages_counts(), [0, 0]);
        converge(&mut server, &mut first);
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

/// All verdicts so far say that nobody can tell.
#[track_caller]
fn assert_reported(device: &Device, lsns: std::ops::Range<u64>) {
    let decided: Vec<u64> = device.decided.iter().map(|it| it.entry.lsn.get()).collect();
    assert_eq!(decided, lsns.collect::<Vec<_>>());
    let is_reported = |verdict: &Verdict| match verdict {
        Verdict::Rejected { reason } => is_unknown(reason),
        Verdict::Applied => false,
    };
    assert!(device.decided.iter().all(|it| is_reported(&it.verdict)), "{:?}", device.verdicts());
}

/// Goal: what nobody can know is reported, not guessed, and nothing is stuck behind it. Method: in
/// another copy of the profile so many lives have written on that the pages remember none of ours.
#[test]
fn a_mutation_whose_verdict_nobody_can_tell_is_reported() {
    let doctype = items();
    let mut server = Server::new(1, usize::MAX, &doctype);
    let mut device = Device::following(1, usize::MAX, &doctype, &server);
    for _ in 0..20 {
        bump(&mut device, &doctype, 1);
    }
    let timeline = device.replica.timeline();
    for (number, frame) in (100..).zip(&device.frames[..18]) {
        server.take(EntryId { journal: timeline, life: Life([number; 16]), lsn: frame.lsn }, frame);
    }
    follow(&server, &mut device);
    assert_reported(&device, 1..19);
    assert_ne!(device.replica.timeline(), timeline);
    assert_eq!(device.replica.undecided().to_string(), "1..3", "not applied for sure");
    converge(&mut server, &mut device);
}

/// The same where a machine was put back while its core ran: its own life is behind its own head.
#[test]
fn what_a_machine_that_was_rolled_back_wrote_again_is_reported() {
    let doctype = items();
    let mut server = Server::new(1, usize::MAX, &doctype);
    let mut device = Device::following(1, usize::MAX, &doctype, &server);
    let mut before = Device::following(1, usize::MAX, &doctype, &server);
    for _ in 0..5 {
        let frame = bump(&mut before, &doctype, 1);
        server.take(before.replica.origin(frame.lsn), &frame);
    }
    for _ in 0..2 {
        bump(&mut device, &doctype, 2);
    }
    let timeline = device.replica.timeline();
    follow(&server, &mut device);
    assert_reported(&device, 1..3);
    assert_ne!(device.replica.timeline(), timeline);
    converge(&mut server, &mut device);
}

/// Goal: a verdict is that of its own timeline. Method: mutations of a timeline end as rejections
/// together with it, and one of the next timeline, with an LSN among theirs, is rejected too.
#[test]
fn what_is_rejected_in_the_next_timeline_is_told_though_the_last_one_had_rejections() {
    let doctype = items();
    let mut server = Server::new(1, usize::MAX, &doctype);
    let mut device = Device::following(1, usize::MAX, &doctype, &server);
    let mut before = Device::following(1, usize::MAX, &doctype, &server);
    for _ in 0..5 {
        let frame = bump(&mut before, &doctype, 1);
        server.take(before.replica.origin(frame.lsn), &frame);
    }
    bump(&mut device, &doctype, 2);
    bump(&mut device, &doctype, 2);
    follow(&server, &mut device);
    assert_reported(&device, 1..3);
    device.decided.clear();

    let mut other = Device::following(2, usize::MAX, &doctype, &server);
    let theirs = bump(&mut other, &doctype, 60);
    server.take(other.replica.origin(theirs.lsn), &theirs);
    let ours = bump(&mut device, &doctype, 50);
    assert_eq!(ours.lsn, lsn(1));
    converge(&mut server, &mut device);
    assert_eq!(device.verdicts(), [rejected(1, "CHECK constraint failed: count < 99")]);
}

/// Goal: a copy of a profile does not take for applied what was rejected and told to another copy,
/// which then let go of it. Method: a profile is restored to before the verdict of a mutation, and
/// opened once the rejection is gone.
#[test]
fn what_was_rejected_and_kept_by_another_copy_is_not_called_applied() {
    let doctype = items();
    let mut server = Server::new(1, usize::MAX, &doctype);
    let mut device = Device::following(1, usize::MAX, &doctype, &server);
    let mut backup = Device::following(1, usize::MAX, &doctype, &server);
    let mut other = Device::following(2, usize::MAX, &doctype, &server);
    let theirs = bump(&mut other, &doctype, 60);
    for copy in [&mut device, &mut backup] {
        bump(copy, &doctype, 50);
    }
    server.take(other.replica.origin(theirs.lsn), &theirs);
    converge(&mut server, &mut device);
    assert_eq!(device.verdicts(), [rejected(1, "CHECK constraint failed: count < 99")]);
    bump(&mut device, &doctype, 1);
    bump(&mut device, &doctype, 1);
    converge(&mut server, &mut device);
    assert_eq!(server.query_system("select lsn from _tidelog_rejection"), [] as [[Value; 1]; 0]);

    backup.reopen(&[&doctype]);
    let mine = bump(&mut backup, &doctype, 2);
    follow(&server, &mut backup);
    assert_reported(&backup, 1..2);
    assert_eq!(backup.frames[0].call, mine.call, "what was issued since goes on");
    converge(&mut server, &mut backup);
}

/// Three states of one profile with the same undecided mutations. The first goes on in their
/// timeline before the others meet the server, so that those have to move.
fn parted(doctype: &Doctype, server: &mut Server, by: &[i64]) -> [Device; 2] {
    let mut copies = [(); 3].map(|()| Device::following(1, usize::MAX, doctype, server));
    for copy in &mut copies[1..] {
        for by in by {
            bump(copy, doctype, *by);
        }
    }
    let [clone, device, backup] = &mut copies;
    clone.life = Life([7; 16]);
    clone.reopen(&[doctype]);
    bump(clone, doctype, 30);
    converge(server, clone);
    (device.timelines, backup.timelines) = (0, 10);
    let [_, device, backup] = copies;
    [device, backup]
}

/// Goal: a mutation that has moved to another timeline is applied once, whichever copies of the
/// profile bring it. Method: two copies move the same mutations, each to a timeline of its own.
#[test]
fn what_two_copies_of_a_profile_move_is_applied_once() {
    let doctype = items();
    let mut server = Server::new(1, usize::MAX, &doctype);
    let copies = parted(&doctype, &mut server, &[1, 70, 9]);
    let mut timelines = Vec::new();
    for mut copy in copies {
        follow(&server, &mut copy);
        assert_eq!(copy.replica.undecided().to_string(), "1..4", "they have moved");
        assert_eq!(copy.query("select count from total"), [[integer(40)]], "shown once");
        timelines.push(copy.replica.timeline());
        converge(&mut server, &mut copy);
        let full = "CHECK constraint failed: count < 99";
        assert_eq!(copy.verdicts(), [applied(1), rejected(2, full), applied(3)]);
    }
    assert_ne!(timelines[0], timelines[1]);
    assert_eq!(server.query("select count from total"), [[integer(40)]]);
}

/// The same where what has moved once moves again.
#[test]
fn what_moves_twice_is_applied_once() {
    let doctype = items();
    let mut server = Server::new(1, usize::MAX, &doctype);
    let [mut device, mut backup] = parted(&doctype, &mut server, &[1]);
    follow(&server, &mut device);
    // A copy of the profile that has moved it: it goes on in the other timeline.
    let moved = EntryId { life: Life([8; 16]), ..device.replica.origin(lsn(1)) };
    let mut other = Device::following(2, usize::MAX, &doctype, &server);
    let theirs = bump(&mut other, &doctype, 5);
    server.take(moved, &theirs);
    follow(&server, &mut device);
    assert_eq!(device.replica.timeline(), JournalId([201; 16]), "it has moved again");
    converge(&mut server, &mut device);
    follow(&server, &mut backup);
    converge(&mut server, &mut backup);
    assert_eq!(server.query("select count from total"), [[integer(36)]]);
    assert_eq!((device.verdicts(), backup.verdicts()), (vec![applied(1)], vec![applied(1)]));
}

/// Goal: the same holds where a server lost what it had confirmed, and one copy can go on in the
/// timeline that the other has to leave. Method: either copy comes first.
#[test]
fn what_moves_away_from_a_timeline_that_another_copy_goes_on_in_is_applied_once() {
    for the_one_that_moves_is_first in [true, false] {
        let doctype = items();
        let mut lost = Server::new(1, usize::MAX, &doctype);
        let mut device = Device::following(1, usize::MAX, &doctype, &lost);
        let mut backup = Device::following(1, usize::MAX, &doctype, &lost);
        for copy in [&mut device, &mut backup] {
            for by in [1, 2, 4, 60] {
                bump(copy, &doctype, by);
            }
        }
        for frame in &device.frames[..2] {
            lost.take(device.replica.origin(frame.lsn), frame);
        }
        follow(&lost, &mut device);
        assert_eq!(device.replica.undecided().to_string(), "3..5");

        let mut server = Server::new(2, usize::MAX, &doctype);
        let mut other = Device::following(2, usize::MAX, &doctype, &server);
        let theirs = bump(&mut other, &doctype, 36);
        server.take(other.replica.origin(theirs.lsn), &theirs);
        let mut copies = [device, backup];
        if !the_one_that_moves_is_first {
            copies.reverse();
        }
        for mut copy in copies {
            copy.replica.follow(true);
            follow(&server, &mut copy);
            converge(&mut server, &mut copy);
            let full = "CHECK constraint failed: count < 99";
            let verdicts: Vec<Verdict> = copy.verdicts().into_iter().map(|it| it.1).collect();
            let is_full = Verdict::Rejected { reason: full.to_owned() };
            let applied = || Verdict::Applied;
            assert_eq!(verdicts, [applied(), applied(), applied(), is_full]);
        }
        assert_eq!(server.query("select count from total"), [[integer(43)]]);
    }
}
