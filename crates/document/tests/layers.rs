//! The layers of undecided mutations: how many, how large, and how often each is run.

mod common;

use common::*;
use tidelog_types::limits::Limits;

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

/// Goal: a device that is never without an undecided mutation keeps no more in memory than those
/// few have changed. Method: one is always on its way while many are decided as predicted, with a
/// layer of its own and with one that all share.
#[test]
fn what_was_decided_is_not_kept_for_as_long_as_others_wait() {
    let doctype = items();
    for layers_max in [Limits::DEFAULT.layers_max, 1] {
        let mut server = Server::new(1, usize::MAX, &doctype);
        let mut device = Device::following(1, usize::MAX, &doctype, &server);
        device.limits.layers_max = layers_max;
        device.reopen(&[&doctype]);
        let count = 400;
        let id = |n: i64| format!("{n:0900}");
        let mut before = add(&mut device, &doctype, &id(0), 0);
        for n in 1..count {
            let next = add(&mut device, &doctype, &id(n), n);
            let (_, entry) = server.take(device.replica.origin(before.lsn), &before);
            device.hear(entry);
            device.settle();
            let kept = device.replica.view().overlay_pages().len();
            assert!(kept < 40, "{kept} pages after {n}, {layers_max} layers");
            before = next;
        }
        let (_, entry) = server.take(device.replica.origin(before.lsn), &before);
        device.hear(entry);
        device.settle();
        assert_same(&server, &device);
        assert!(device.image().len() > 80 * 4096, "too little to prove anything");
    }
}

/// Goal: what is seen stays as it is while mutations are decided as predicted, also where one
/// brings a page back to what it was. Method: one adds to a number, another one takes that away.
#[test]
fn what_comes_back_to_what_it_was_is_seen_until_it_is_decided() {
    let doctype = items();
    for layers_max in [Limits::DEFAULT.layers_max, 1] {
        for is_reopened in [false, true] {
            let mut server = Server::new(1, usize::MAX, &doctype);
            let mut device = Device::following(1, usize::MAX, &doctype, &server);
            device.limits.layers_max = layers_max;
            device.reopen(&[&doctype]);
            for by in [1, -1, 1, -1, 1] {
                bump(&mut device, &doctype, by);
            }
            if is_reopened {
                device.reopen(&[&doctype]);
                bump(&mut device, &doctype, -1);
            }
            let seen = device.image();
            for frame in device.frames.clone() {
                let (_, entry) = server.take(device.replica.origin(frame.lsn), &frame);
                device.hear(entry);
                device.settle();
                assert!(device.image() == seen, "{layers_max} layers, {is_reopened}");
            }
            assert_same(&server, &device);
        }
    }
}
