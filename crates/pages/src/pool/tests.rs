//! The pool against a plain model, and what a scan leaves behind.

use super::*;
use tidelog_testing::{Rng, runs};

fn key(pgid: u32, lsn: u64) -> PoolKey {
    PoolKey {
        document: DocumentNumber(1),
        begun: 1,
        pgid: Pgid(pgid),
        lsn: Lsn::new(lsn).expect("from 1"),
    }
}

fn page(tag: u64) -> Page {
    Page::zeroed().with(0, &tag.to_le_bytes())
}

fn check(pool: &BufferPool) {
    assert!(pool.frames.len() <= pool.pages_max, "{} pages", pool.frames.len());
    assert_eq!(pool.small.len() + pool.main.len(), pool.frames.len(), "each in one queue");
    assert!(pool.ghosts.queue.len() <= pool.pages_max);
    assert!(pool.ghosts.ids.len() <= pool.ghosts.queue.len());
}

fn check_each(pool: &BufferPool) {
    let queued: BTreeSet<Id> = pool.small.iter().chain(&pool.main).copied().collect();
    assert!(queued.iter().eq(pool.frames.keys()), "the queues name what is here");
    assert!(pool.frames.keys().all(|id| !pool.ghosts.ids.contains(id)), "here and a ghost");
}

/// Reads a page as a store does: from the pool, or from the device and into the pool. Answers
/// whether it was there.
fn read(pool: &mut BufferPool, pgid: u32) -> bool {
    let found = pool.get(key(pgid, 1));
    if found.is_none() {
        pool.insert(key(pgid, 1), page(pgid.into()));
    }
    check(pool);
    found.is_some()
}

#[test]
fn a_scan_of_ten_times_the_pool_leaves_what_is_wanted_in() {
    let mut pool = BufferPool::new(100);
    let hot = 1..=60;
    for _ in 0..4 {
        hot.clone().for_each(|pgid| {
            read(&mut pool, pgid);
        });
    }
    for pgid in 1000..2000 {
        assert!(!read(&mut pool, pgid));
    }
    assert_eq!(hot.filter(|pgid| pool.get(key(*pgid, 1)).is_some()).count(), 60);
}

#[test]
fn what_is_wanted_gets_in_while_a_scan_goes_on() {
    let mut pool = BufferPool::new(100);
    let mut misses = 0;
    for step in 0..5000 {
        read(&mut pool, 1000 + step);
        misses += u32::from(!read(&mut pool, 1 + step % 30));
    }
    assert!(misses < 200, "{misses} misses of 30 pages read 166 times each");
}

#[test]
fn what_is_not_wanted_any_more_makes_room() {
    let mut pool = BufferPool::new(100);
    for round in 0..20 {
        let hits = (0..2000).filter(|step| read(&mut pool, round * 100 + step % 80)).count();
        assert!(hits >= 1600, "round {round}: {hits} hits");
    }
}

#[test]
fn a_newer_version_takes_the_place_of_an_older_one_and_not_the_other_way() {
    let mut pool = BufferPool::new(4);
    pool.insert(key(1, 5), page(5));
    pool.insert(key(1, 7), page(7));
    pool.insert(key(1, 6), page(6));
    assert_eq!(pool.get(key(1, 5)), None);
    assert_eq!(pool.get(key(1, 6)), None);
    assert_eq!(pool.get(key(1, 7)), Some(page(7)));
    assert_eq!(pool.frames.len(), 1);
    let other = PoolKey { begun: 2, ..key(1, 1) };
    pool.insert(other, page(1));
    assert_eq!(pool.get(other), Some(page(1)), "another journal");
}

/// Goal: a pool never answers with anything but the newest version that came in, and holds no
/// more than it may. Method: a plain map of the newest versions beside it.
#[test]
fn a_pool_agrees_with_a_plain_model() {
    runs("model of the pool", 40_000, |rng: &mut Rng| {
        let pages_max = 1 + rng.below(40);
        let mut pool = BufferPool::new(pages_max);
        let mut newest: BTreeMap<(u64, u32), (u64, u64)> = BTreeMap::new();
        let span = 1 + rng.below(3 * pages_max);
        let operations = 5_000;
        for operation in 0..operations {
            let mut pgid = rng.below(span) as u32;
            if rng.one_in(2) {
                pgid /= 4;
            }
            let begun = rng.below(2) as u64;
            let found = newest.get(&(begun, pgid)).copied();
            let lsn = match found {
                Some((lsn, _)) if !rng.one_in(8) => lsn,
                _ => 1 + rng.below(50) as u64,
            };
            let key = PoolKey { begun, ..key(pgid, lsn) };
            match rng.below(100) {
                0 => {
                    pool.clear();
                    assert_eq!(pool.get(key), None);
                }
                1..60 => {
                    let expected = found.filter(|(newest, _)| *newest == lsn);
                    if let Some(found) = pool.get(key) {
                        assert_eq!(Some(found), expected.map(|(_, tag)| page(tag)));
                    }
                }
                _ => {
                    let is_here = pool.frames.contains_key(&(DocumentNumber(1), begun, Pgid(pgid)));
                    pool.insert(key, page(operation));
                    if !is_here || found.is_none_or(|(newest, _)| lsn >= newest) {
                        newest.insert((begun, pgid), (lsn, operation));
                        assert_eq!(pool.get(key), Some(page(operation)), "just inserted");
                    }
                }
            }
            check(&pool);
            if operation % 64 == 0 {
                check_each(&pool);
            }
        }
        operations
    });
}
