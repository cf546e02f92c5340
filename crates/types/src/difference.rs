//! A page in few bytes: as its difference from another one.

mod moves;

use std::borrow::Cow;
use std::ops::Range;

use moves::{MOVED_MIN, Moved, Moves};

use crate::base128::{put_number, take_number};
use crate::limits::PAGE_SIZE;

/// How the bytes of a page are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Coding {
    /// As they are.
    Whole = 0,
    /// As their difference from zeros.
    Zeros = 1,
    /// As their difference from the version before it.
    Previous = 2,
}

impl Coding {
    /// The coding of this number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        [Self::Whole, Self::Zeros, Self::Previous].into_iter().find(|it| *it as u8 == number)
    }

    /// Makes of the version before it, if that is what it is coded by, the page that these bytes
    /// say; `None` if they say none.
    #[must_use]
    pub fn apply(self, bytes: &[u8], page: &mut [u8]) -> Option<()> {
        match self {
            Self::Whole if bytes.len() == page.len() => page.copy_from_slice(bytes),
            Self::Whole => return None,
            Self::Zeros => {
                page.fill(0);
                apply_difference(page, bytes)?;
            }
            Self::Previous => apply_difference(page, bytes)?,
        }
        Some(())
    }
}

/// A page in the fewest bytes: by its `previous` version, if that is at hand, it takes no more than
/// `previous_size_max` that way, and fewer than alone; else by itself, in at most [`PAGE_SIZE`].
///
/// # Panics
///
/// If a page is not [`PAGE_SIZE`] bytes long.
#[must_use]
pub fn coded<'p>(
    page: &'p [u8],
    previous: Option<&[u8]>,
    previous_size_max: usize,
) -> (Coding, Cow<'p, [u8]>) {
    let by_previous = previous.and_then(|base| difference(base, page, previous_size_max));
    // So many at most that it is worth it.
    let size_max = by_previous.as_ref().map_or(PAGE_SIZE - 1, Vec::len);
    match (difference_from_zeros(page, size_max), by_previous) {
        (Some(by_zeros), _) => (Coding::Zeros, Cow::Owned(by_zeros)),
        (None, Some(by_previous)) => (Coding::Previous, Cow::Owned(by_previous)),
        (None, None) => (Coding::Whole, Cow::Borrowed(page)),
    }
}

/// Bytes that two pages share between two runs of a difference, at least: fewer are cheaper to
/// repeat than another run's numbers.
const SHARED_MIN: usize = 4;

/// Bytes of a difference for which there is room at once: most take fewer.
const USUAL_SIZE: usize = 64;

/// The bytes in which `page` differs from `base`, or `None` if that takes more than `size_max`, or
/// if more than that in a row were not found in the base: for each run of them, how many bytes of
/// the base it leaves before it, and twice how many it is. Then come these bytes; or, with one more
/// than that, how far from there they stand in the base: twice that far before, or one more than
/// twice that far behind. Numbers are in base 128, the low digits first, with the high bit set in
/// all but the last byte. What is left behind the last run is the base's.
///
/// # Panics
///
/// If one of them is not [`PAGE_SIZE`] bytes long.
#[must_use]
pub fn difference(base: &[u8], page: &[u8], size_max: usize) -> Option<Vec<u8>> {
    assert!(base.len() == PAGE_SIZE && page.len() == PAGE_SIZE, "BUG: no page");
    let first_other = |from| first_difference(base, page, from);
    let is_same = |at: usize| base[at] == page[at];
    let mut moves = Moves::new(base, page);
    runs_of(page, size_max, first_other, is_same, |start, at| moves.at(start, at))
}

/// Its difference from zeros, none of which has moved.
fn difference_from_zeros(page: &[u8], size_max: usize) -> Option<Vec<u8>> {
    let first_other = |from| first_difference(&[0; PAGE_SIZE], page, from);
    runs_of(page, size_max, first_other, |at| page[at] == 0, |_, _| None)
}

/// The difference of a page from the version before all these differences, of which each is from
/// the version that the one before it makes, and the last makes the page. `None` if they are none,
/// or if that takes no fewer bytes than the page.
///
/// # Panics
///
/// If the page is not [`PAGE_SIZE`] bytes long.
#[must_use]
pub fn difference_of_all<'d>(
    page: &[u8],
    differences: impl IntoIterator<Item = &'d [u8]>,
) -> Option<Vec<u8>> {
    /// Of a byte that is not in the first version.
    const NOWHERE: u16 = u16::MAX;
    assert!(page.len() == PAGE_SIZE, "BUG: no page");
    // Where each byte stands in the first version; copied for each difference, so it is small.
    let mut stood: Vec<u16> = (0..PAGE_SIZE as u16).collect();
    for mut runs in differences {
        let before = stood.clone();
        let mut end = 0;
        while !runs.is_empty() {
            let Run { place, says } = take_run(&mut runs, end)?;
            end = place.end;
            match says {
                Says::Bytes(_) => stood[place].fill(NOWHERE),
                Says::From(from) => {
                    let size = place.len();
                    stood[place].copy_from_slice(&before[from..from + size]);
                }
            }
        }
    }
    let is_same = |at: usize| usize::from(stood[at]) == at;
    let moved = |_, at: usize| {
        let from = usize::from(Some(stood[at]).filter(|from| *from != NOWHERE)?);
        let follows = |(far, stands): (usize, &u16)| usize::from(*stands) == from + far;
        let size = stood[at..].iter().enumerate().take_while(|it| follows(*it)).count();
        (size >= MOVED_MIN).then_some(Moved { at, from, size })
    };
    let first_other = |from| (from..PAGE_SIZE).find(|at| !is_same(*at));
    runs_of(page, PAGE_SIZE - 1, first_other, is_same, moved)
}

/// Runs of a difference, in at most so many bytes, by where a page is another one first from a
/// place on, whether it is the same at one, and what has moved there, or to a little before it, but
/// not before where the new bytes begin.
fn runs_of(
    page: &[u8],
    size_max: usize,
    first_other: impl Fn(usize) -> Option<usize>,
    is_same: impl Fn(usize) -> bool,
    mut moved: impl FnMut(usize, usize) -> Option<Moved>,
) -> Option<Vec<u8>> {
    let mut runs = Vec::with_capacity(USUAL_SIZE);
    let mut end = 0;
    while let Some(start) = first_other(end) {
        let (mut next, mut last) = (start, start);
        let mut is_moved = None;
        while next < PAGE_SIZE && next - last < SHARED_MIN {
            if !is_same(next) {
                is_moved = moved(start, next);
                if let Some(Moved { at, .. }) = is_moved {
                    last = last.min(at);
                    break;
                }
                last = next + 1;
                if last - start > size_max {
                    return None;
                }
            }
            next += 1;
        }
        if last > start {
            put_size(&mut runs, start - end);
            put_size(&mut runs, 2 * (last - start));
            runs.extend_from_slice(&page[start..last]);
            end = last;
        }
        if let Some(Moved { at, from, size }) = is_moved {
            put_size(&mut runs, at - end);
            put_size(&mut runs, 2 * size + 1);
            let far = at.abs_diff(from);
            put_size(&mut runs, 2 * far + usize::from(from > at));
            end = at + size;
        }
        if runs.len() > size_max {
            return None;
        }
    }
    Some(runs)
}

/// One run of a difference.
struct Run<'r> {
    place: Range<usize>,
    says: Says<'r>,
}

enum Says<'r> {
    /// These bytes.
    Bytes(&'r [u8]),
    /// Those of the base from here on.
    From(usize),
}

/// Takes a run that begins behind `end` off the runs that are left; `None` if there is none within
/// a page. One without bytes is none: so a page has no more runs than bytes, whoever sends them.
fn take_run<'r>(runs: &mut &'r [u8], end: usize) -> Option<Run<'r>> {
    let start = end + take_size(runs)?;
    let twice = take_size(runs)?;
    let size = twice / 2;
    let place = start..start + size;
    if place.is_empty() || place.end > PAGE_SIZE {
        return None;
    }
    let says = if twice % 2 == 0 {
        let (bytes, rest) = runs.split_at_checked(size)?;
        *runs = rest;
        Says::Bytes(bytes)
    } else {
        let far = take_size(runs)?;
        let from = if far % 2 == 0 { start.checked_sub(far / 2)? } else { start + far / 2 };
        if from + size > PAGE_SIZE {
            return None;
        }
        Says::From(from)
    };
    Some(Run { place, says })
}

/// Makes of a base the page that differs from it in this way, or `None` if these are no runs within
/// a page; what is in it then is neither.
#[must_use]
pub fn apply_difference(page: &mut [u8], mut runs: &[u8]) -> Option<()> {
    let base: [u8; PAGE_SIZE] = (&*page).try_into().ok()?;
    let mut end = 0;
    while !runs.is_empty() {
        let Run { place, says } = take_run(&mut runs, end)?;
        end = place.end;
        let bytes = match says {
            Says::Bytes(bytes) => bytes,
            Says::From(from) => &base[from..from + place.len()],
        };
        page[place].copy_from_slice(bytes);
    }
    Some(())
}

/// Where they first differ from here on.
fn first_difference(base: &[u8], page: &[u8], from: usize) -> Option<usize> {
    /// Bytes that are compared at once.
    const WORD: usize = 16;
    let mut at = from;
    while at + WORD <= PAGE_SIZE && base[at..at + WORD] == page[at..at + WORD] {
        at += WORD;
    }
    (at..PAGE_SIZE).find(|at| base[*at] != page[*at])
}

fn put_size(runs: &mut Vec<u8>, size: usize) {
    put_number(runs, u32::try_from(size).expect("BUG: more than a page"));
}

/// A number below 2^14: there is none above the size of a page.
fn take_size(runs: &mut &[u8]) -> Option<usize> {
    take_number(runs).filter(|size| *size < 1 << 14).map(|size| size as usize)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn page(changes: &[(usize, u8)]) -> Vec<u8> {
        let mut page: Vec<u8> = (0..PAGE_SIZE).map(|at| (at % 7) as u8).collect();
        changes.iter().for_each(|(at, byte)| page[*at] = *byte);
        page
    }

    fn comes_back(base: &[u8], page: &[u8]) -> usize {
        let runs = difference(base, page, usize::MAX).expect("no bound");
        let mut made = base.to_vec();
        assert_eq!(apply_difference(&mut made, &runs), Some(()));
        assert!(made == page);
        runs.len()
    }

    #[test]
    fn a_page_comes_back_from_its_difference() {
        let base = page(&[]);
        let last = PAGE_SIZE - 1;
        assert_eq!(comes_back(&base, &base), 0);
        assert_eq!(comes_back(&base, &page(&[(0, 99)])), 3);
        assert_eq!(comes_back(&base, &page(&[(last, 99)])), 4);
        assert_eq!(comes_back(&base, &page(&[(100, 99), (101, 98), (300, 97)])), 4 + 4);
        let all: Vec<u8> = base.iter().map(|byte| byte ^ 0xFF).collect();
        assert_eq!(comes_back(&base, &all), PAGE_SIZE + 3);
        let zeros = vec![0; PAGE_SIZE];
        comes_back(&zeros, &base);
        comes_back(&base, &zeros);
        assert_eq!(comes_back(&zeros, &zeros), 0);
    }

    #[test]
    fn a_page_takes_the_fewest_bytes() {
        let full: Vec<u8> = (0..PAGE_SIZE).map(|at| (at % 251) as u8 + 1).collect();
        let mut near = full.clone();
        near[7] = 0;
        let zeros = vec![0; PAGE_SIZE];
        let of = |page: &[u8], previous: Option<&[u8]>, max| {
            let (coding, bytes) = coded(page, previous, max);
            (coding, bytes.len())
        };
        assert_eq!(of(&full, None, 100), (Coding::Whole, PAGE_SIZE));
        assert_eq!(of(&full, Some(&near), 100), (Coding::Previous, 3));
        assert_eq!(of(&full, Some(&near), 2), (Coding::Whole, PAGE_SIZE));
        assert_eq!(of(&zeros, None, 100), (Coding::Zeros, 0));
        assert_eq!(of(&zeros, Some(&zeros), 100), (Coding::Zeros, 0), "it needs nothing before it");
        assert_eq!(of(&zeros, Some(&near), PAGE_SIZE), (Coding::Zeros, 0));
        let all = [Coding::Whole, Coding::Zeros, Coding::Previous];
        assert_eq!(all.map(|it| Coding::of(it as u8)), all.map(Some));
        assert_eq!(Coding::of(3), None);
    }

    /// Goal: every page comes back, whatever lies beside what. Method: pages by chance, of few
    /// changes to many.
    #[test]
    fn pages_by_chance_come_back() {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        for round in 0..500 {
            let base = page(&[]);
            let mut other = base.clone();
            for _ in 0..next() % (1 + round) {
                other[next() % PAGE_SIZE] = (next() % 256) as u8;
            }
            comes_back(&base, &other);
        }
    }

    /// Bytes over and over, with others here and there.
    fn any_page() -> impl Strategy<Value = Vec<u8>> {
        let repeated = (1..=4_u8).prop_flat_map(|below| vec(0..below, 1..60));
        let others = vec((0..PAGE_SIZE, vec(any::<u8>(), 1..600)), 0..5);
        (repeated, others).prop_map(|(repeated, others)| {
            let mut page: Vec<u8> = repeated.into_iter().cycle().take(PAGE_SIZE).collect();
            others.iter().for_each(|(at, bytes)| put(&mut page, *at, bytes));
            page
        })
    }

    /// Lays bytes over a page from a place on, as far as they are within it.
    fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
        page[at..].iter_mut().zip(bytes).for_each(|(byte, new)| *byte = *new);
    }

    /// Where bytes go to, where they stood, how many they are, and what is there then.
    type Change = (usize, usize, usize, Vec<u8>);

    fn any_change() -> impl Strategy<Value = Change> {
        let size = prop_oneof![0..20_usize, 0..200_usize, 0..PAGE_SIZE];
        (0..PAGE_SIZE, 0..PAGE_SIZE, size, vec(any::<u8>(), 0..40))
    }

    fn change(page: &mut [u8], (at, from, size, new): &Change) {
        let stood: Vec<u8> = page[*from..].iter().take(*size).copied().collect();
        put(page, *at, &stood);
        put(page, *from, new);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Goal: a page comes back from its difference, and from that of all differences on the
        /// way to it, whatever has moved where. Method: pages in which bytes repeat by chance.
        #[test]
        fn whatever_moves_in_a_page_comes_back(
            base in any_page(),
            steps in vec(vec(any_change(), 1..6), 1..5),
            size_max in 0..PAGE_SIZE,
        ) {
            let (mut last, mut differences) = (base.clone(), Vec::new());
            for changes in steps {
                let mut now = last.clone();
                changes.iter().for_each(|it| change(&mut now, it));
                comes_back(&last, &now);
                let whole = difference(&last, &now, usize::MAX).expect("no bound");
                if let Some(bounded) = difference(&last, &now, size_max) {
                    prop_assert!(bounded.len() <= size_max && bounded == whole);
                }
                let (coding, bytes) = coded(&now, Some(&last), size_max);
                prop_assert_eq!(coding.apply(&bytes, &mut last), Some(()));
                prop_assert!(last == now);
                differences.push(whole);
            }
            if let Some(of_all) = difference_of_all(&last, differences.iter().map(Vec::as_slice)) {
                let mut made = base;
                prop_assert_eq!(apply_difference(&mut made, &of_all), Some(()));
                prop_assert!(made == last && of_all.len() < PAGE_SIZE);
            }
        }

        #[test]
        fn no_bytes_make_a_decoder_panic(runs in vec(prop_oneof![0..6_u8, any::<u8>()], 0..400)) {
            let mut page = page(&[]);
            let is_one = apply_difference(&mut page, &runs).is_some();
            let made = difference_of_all(&page, [runs.as_slice()]);
            prop_assert!(is_one || made.is_none());
        }
    }

    /// Goal: a number that is put into a row, or taken out, costs no more than itself, wherever
    /// what moves ends, and beside other changes. Method: rows in a page as SQLite's begin.
    #[test]
    fn what_moves_within_a_page_is_named_and_not_said() {
        let row = |skipped: Option<u16>| {
            let numbers = (0..200_u16).map(|n| 4000 - n * 19).filter(|n| Some(*n) != skipped);
            let mut page: Vec<u8> = [0x0A, 0, 0, 0].into_iter().collect();
            page.extend(numbers.flat_map(u16::to_be_bytes));
            page.resize(PAGE_SIZE, 7);
            page
        };
        let whole = row(None);
        for number in [4000, 4000 - 19 * 50, 4000 - 19 * 150, 4000 - 19 * 190] {
            let without = row(Some(number));
            let (taken, put) = (comes_back(&whole, &without), comes_back(&without, &whole));
            assert!(taken < 12 && put < 14, "{number}: {taken} and {put} bytes");
        }
        let mut other = row(Some(4000 - 19 * 60));
        other[1] = 9;
        other[30] = 9;
        other[300] = 9;
        other[PAGE_SIZE - 1] = 9;
        assert!(comes_back(&whole, &other) < 40);
    }

    /// Goal: rows that are put in another order in a page, as SQLite does when it makes room in
    /// one or shares it out, cost some bytes each, wherever they stood and whatever stands between
    /// them. Method: a page of sixty rows; all of them packed in the order of their numbers, half
    /// of them, and with new ones among them.
    #[test]
    fn rows_that_move_far_are_named_and_not_said() {
        let row = |number: usize| -> Vec<u8> {
            (0..55).map(|at| ((number * 7919 + at * at * 31) % 251) as u8 + 1).collect()
        };
        let page = |numbers: &[usize]| {
            let rows: Vec<u8> = numbers.iter().flat_map(|number| row(*number)).collect();
            let mut page = vec![0; PAGE_SIZE - rows.len()];
            page.extend(rows);
            page
        };
        let stood: Vec<usize> = (0..60).map(|n| n * 37 % 60).collect();
        let base = page(&stood);
        let in_order: Vec<usize> = (0..60).collect();
        let all = comes_back(&base, &page(&in_order));
        let half = comes_back(&base, &page(&in_order[30..]));
        let with_new: Vec<usize> = (20..60).flat_map(|n| [n, 60 + n]).take(60).collect();
        let with_new = comes_back(&base, &page(&with_new));
        println!("{all} bytes for sixty rows, {half} for half of them, {with_new} with new ones");
        assert!(all < 60 * 9 && half < 30 * 9 + 20 && with_new < 30 * 9 + 30 * (55 + 4));
    }

    /// Goal: of several differences one is left, by which whoever has the first version gets to the
    /// last, and what has moved is named in it too. Method: rows as SQLite's pages begin with, into
    /// and out of which numbers go, beside other changes by chance, however many at a time.
    #[test]
    fn of_several_differences_one_is_left() {
        let mut state = 11_u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for round in 0..300 {
            let mut numbers: Vec<u16> = (0..100).map(|n| 4000 - n * 31).collect();
            let mut tail = vec![round as u8; 3000];
            let page = |numbers: &[u16], tail: &[u8]| {
                let row = numbers.iter().flat_map(|number| number.to_be_bytes());
                let mut page: Vec<u8> = row.collect();
                page.resize(PAGE_SIZE - tail.len(), 3);
                page.extend(tail);
                page
            };
            let first = page(&numbers, &tail);
            let (mut last, mut differences) = (first.clone(), Vec::new());
            for _ in 0..1 + next(5) {
                for _ in 0..next(3) {
                    let at = next(numbers.len());
                    numbers.insert(at, next(4096) as u16);
                }
                for _ in 0..next(3) {
                    numbers.remove(next(numbers.len()));
                }
                for _ in 0..next(4) {
                    tail[next(3000)] = next(256) as u8;
                }
                let now = page(&numbers, &tail);
                differences.push(difference(&last, &now, usize::MAX).expect("no bound"));
                last = now;
            }
            let one = difference_of_all(&last, differences.iter().map(Vec::as_slice));
            let one = one.expect("differences");
            let mut made = first.clone();
            assert_eq!(apply_difference(&mut made, &one), Some(()));
            assert!(made == last, "round {round}");
            // What has moved is said in parts where something is put into it later.
            let most: usize = differences.iter().map(Vec::len).sum();
            assert!(one.len() <= 2 * most, "{} of {most}", one.len());
        }
        assert_eq!(difference_of_all(&page(&[]), [[7].as_slice()]), None);
    }

    #[test]
    fn bytes_that_are_close_share_a_run() {
        let base = page(&[]);
        assert_eq!(comes_back(&base, &page(&[(9, 99), (13, 99)])), 2 + 5);
        assert_eq!(comes_back(&base, &page(&[(9, 99), (14, 99)])), 3 + 3);
    }

    #[test]
    fn what_is_no_difference_is_refused() {
        let mut base = page(&[]);
        let huge = [0xFF, 0x7F];
        let cases: [&[u8]; 13] = [
            &[1],
            &[0x80],
            &[0, 4, 7],
            &[0x80, 0x80, 1],
            &huge,
            &[0xFF, 0x1F, 4, 1, 1],
            &[0, 0x80],
            // From before the page's first byte, from behind its last, and from nowhere.
            &[1, 3, 4],
            &[0xFE, 0x1F, 3, 5],
            &[0xFF, 0x1F, 3, 3],
            &[1, 3],
            // Runs without bytes, of which there could be any number.
            &[0, 0],
            &[1, 1, 0],
        ];
        for runs in cases {
            assert_eq!(apply_difference(&mut base, runs), None, "{runs:?}");
        }
        assert_eq!(apply_difference(&mut base, &[0xFF, 0x1F, 2, 1]), Some(()), "its last byte");
        assert_eq!(apply_difference(&mut base, &[0xFE, 0x1F, 3, 3]), Some(()), "from the last one");
        assert_eq!(apply_difference(&mut base[1..], &[]), None, "no page");
    }
}
