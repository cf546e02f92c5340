//! A replica ahead of its authority, and frames of doctypes that it does not know or cannot read.

mod common;

use common::*;
use tidelog_document::Doctype;

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

/// Goal: a rebase that is for no entry is not forgotten with those that had come. Method: it is
/// given up amid the newer release's migration.
#[test]
fn a_migration_that_is_broken_off_is_run_anew() {
    with_items(|doctype, _, mut device, _| {
        for _ in 0..70 {
            bump(&mut device, &doctype, 0);
        }
        device.replica.learn(items_with_tags());
        assert!(!device.step(), "all ran in one slice");
        device.replica.forget_staged();
        device.settle();
        assert_eq!(device.query("select count(*) from tag"), [[integer(40)]]);
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
        assert_eq!(device.verdicts(), [applied(41), applied(42)]);
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
