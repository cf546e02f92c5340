//! Who is served when, without a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidelog_journal::DocumentNumber;
use tidelog_types::{DocumentKey, Lsn, Pgid};

use super::*;
use crate::RequestId;
use crate::page_file::Slot;
use crate::place::{PageAt, PagePlace};
use crate::plan::{Answer, Plan};
use crate::pool::PoolKey;
use tidelog_testing::{Rng, runs};

const URGENCIES: [Urgency; 2] = [Urgency::User, Urgency::Background];
const CHUNK: usize = 8;

fn read(owner: u64, urgency: Urgency, request: u64, pages: usize) -> ActiveRead {
    let key = PoolKey { document: DocumentNumber(1), begun: 1, pgid: Pgid(1), lsn: Lsn::FIRST };
    let at = PageAt::Slot(Slot::new(1).expect("from 1"));
    let places = std::iter::repeat_n(PagePlace { key, checksum: 0, at }, pages).collect();
    let document = DocumentKey::new("a", "").expect("a good name");
    let (owner, plan, _era) = (
        OwnerId(owner),
        Plan::of_pages(places, Answer::Pages { damaged: Vec::new() }),
        Arc::default(),
    );
    ActiveRead { owner, urgency, request: RequestId(request), document, plan, _era }
}

/// Serves one turn as the page server does. Gives whose it was, and the requests that it ended.
fn turn(turns: &mut ReadQueue) -> Option<(Urgency, u64, Vec<u64>)> {
    let (urgency, owner) = turns.next()?;
    let (mut left, mut ended) = (CHUNK, Vec::new());
    while left > 0
        && let Some(mut read) = turns.take(urgency, owner)
    {
        let count = read.plan.pages.len().min(left);
        read.plan.pages.drain(..count);
        left -= count.max(1);
        match read.plan.pages.is_empty() {
            true => ended.push(read.request.0),
            false => turns.put_back(read),
        }
    }
    Some((urgency, owner.0, ended))
}

fn owners(turns: &mut ReadQueue, count: usize) -> Vec<u64> {
    (0..count).map_while(|_| turn(turns)).map(|(_, owner, _)| owner).collect()
}

#[test]
fn an_owner_with_a_thousand_reads_does_not_hold_up_one_with_a_single_read() {
    let mut turns = ReadQueue::default();
    for request in 0..1000 {
        turns.push(read(1, Urgency::User, request, CHUNK));
    }
    assert_eq!(owners(&mut turns, 3), [1, 1, 1]);
    turns.push(read(2, Urgency::User, 1, 1));
    assert_eq!(owners(&mut turns, 3), [2, 1, 1]);
    turns.push(read(2, Urgency::User, 2, 1));
    turns.push(read(3, Urgency::User, 1, 3 * CHUNK));
    assert_eq!(owners(&mut turns, 8), [2, 3, 1, 3, 1, 3, 1, 1]);
}

#[test]
fn coming_back_all_the_time_does_not_help() {
    let mut turns = ReadQueue::default();
    turns.push(read(1, Urgency::User, 1, 1000));
    let mut served = Vec::new();
    for request in 0..10 {
        turns.push(read(2, Urgency::User, request, CHUNK));
        served.extend(owners(&mut turns, 1));
    }
    assert!(served.windows(2).all(|pair| pair[0] != pair[1]), "{served:?}");
}

#[test]
fn within_an_owner_a_long_read_holds_up_no_other_that_somebody_waits_for() {
    let mut turns = ReadQueue::default();
    turns.push(read(1, Urgency::User, 1, 100 * CHUNK));
    turns.push(read(1, Urgency::User, 2, 1));
    turns.push(read(1, Urgency::Background, 3, 2 * CHUNK));
    turns.push(read(1, Urgency::Background, 4, 1));
    let ended: Vec<u64> =
        (0..40).filter_map(|_| turn(&mut turns)).flat_map(|(.., ended)| ended).collect();
    assert_eq!(ended, [2, 3, 4], "the background one after the other");
}

#[test]
fn what_a_user_waits_for_goes_first_and_the_rest_is_not_starved() {
    let mut turns = ReadQueue::default();
    turns.push(read(1, Urgency::Background, 1, 1000));
    turns.push(read(2, Urgency::User, 1, 1000));
    let served = owners(&mut turns, 24);
    let background = served.iter().filter(|owner| **owner == 1).count();
    assert_eq!((served[0], background), (2, 3), "every eighth: {served:?}");
    turns.forget(OwnerId(2));
    assert_eq!(owners(&mut turns, 3), [1, 1, 1], "nobody else is there");
}

#[test]
fn an_owner_has_no_more_outstanding_than_it_may() {
    let mut turns = ReadQueue::default();
    let whole = 4 * Limits::DEFAULT.owner_read_pages_max;
    assert!(turns.has_room(OwnerId(1), whole, &Limits::DEFAULT), "a single one may be large");
    turns.push(read(1, Urgency::User, 1, whole));
    assert!(!turns.has_room(OwnerId(1), 1, &Limits::DEFAULT));
    assert!(turns.has_room(OwnerId(2), 1, &Limits::DEFAULT), "another owner");
    while !turns.is_empty() {
        turn(&mut turns);
    }
    for request in 0..Limits::DEFAULT.owner_reads_max as u64 {
        let urgency = URGENCIES[request as usize % 2];
        turns.push(read(1, urgency, request, 0));
    }
    assert!(!turns.has_room(OwnerId(1), 0, &Limits::DEFAULT));
    turn(&mut turns);
    assert!(turns.has_room(OwnerId(1), 0, &Limits::DEFAULT), "some were answered");
    turns.forget(OwnerId(1));
    assert!(turns.is_empty());
    assert!(turns.has_room(OwnerId(1), 0, &Limits::DEFAULT));
}

/// Goal: every read is answered once, nobody waits for long, and nothing is left of who went.
/// Method: counts, beside the queue, of the turns since each owner began to wait.
#[test]
fn turns_agree_with_a_plain_model() {
    runs("model of the turns", 40_000, |rng: &mut Rng| {
        let operations = 5_000;
        let mut turns = ReadQueue::default();
        let mut waiting: BTreeMap<(Urgency, u64), BTreeMap<u64, usize>> = BTreeMap::new();
        // Who was served since each of those who wait was served or came.
        let mut passed: BTreeMap<(Urgency, u64), Vec<u64>> = BTreeMap::new();
        let mut user_turns = 0;
        let owners_count = 1 + rng.below(9);
        for operation in 0..operations {
            let owner = rng.below(owners_count) as u64;
            if rng.one_in(60) {
                turns.forget(OwnerId(owner));
                for urgency in URGENCIES {
                    waiting.remove(&(urgency, owner));
                    passed.remove(&(urgency, owner));
                }
                // If it comes back it is another one.
                passed.values_mut().for_each(|by| by.retain(|it| *it != owner));
            } else if rng.below(100) < 45 {
                let urgency = URGENCIES[rng.below(2)];
                let pages_max = if rng.one_in(10) { 20 * CHUNK } else { CHUNK / 2 };
                let pages = rng.below(pages_max);
                turns.push(read(owner, urgency, operation, pages));
                passed.entry((urgency, owner)).or_default();
                waiting.entry((urgency, owner)).or_default().insert(operation, pages);
            } else if let Some((urgency, owner, ended)) = turn(&mut turns) {
                let queue = waiting.get_mut(&(urgency, owner)).expect("it waited");
                assert!(ended.iter().all(|request| queue.remove(request).is_some()));
                if queue.is_empty() {
                    waiting.remove(&(urgency, owner));
                    passed.remove(&(urgency, owner));
                } else {
                    passed.insert((urgency, owner), Vec::new());
                }
                for ((of, _), by) in passed.iter_mut().filter(|((_, it), _)| *it != owner) {
                    by.extend((*of == urgency).then_some(owner));
                    let each: BTreeSet<u64> = by.iter().copied().collect();
                    assert_eq!(each.len(), by.len(), "somebody was served twice before it");
                }
                let waits = |of: Urgency| waiting.keys().any(|(urgency, _)| *urgency == of);
                match urgency {
                    Urgency::User if waits(Urgency::Background) => user_turns += 1,
                    _ => user_turns = 0,
                }
                assert!(user_turns <= 1 + USER_TURNS, "the background is starved");
            } else {
                assert!(waiting.is_empty(), "somebody waits and nobody is served");
            }
            let left: usize = waiting.values().map(BTreeMap::len).sum();
            assert_eq!((turns.len(), turns.is_empty()), (left, left == 0));
        }
        operations
    });
}
