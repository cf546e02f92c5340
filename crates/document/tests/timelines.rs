//! Mutations that move to another timeline, and verdicts that nobody can tell.

mod common;

use common::*;
use tidelog_document::{Doctype, Verdict, is_unknown};
use tidelog_types::{EntryId, JournalId, Life, Value};

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
