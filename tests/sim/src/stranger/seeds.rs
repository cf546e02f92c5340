//! How a local document becomes the server's.

use tidelog_sync::{CodedPage, Intent, ToRoom, codec};
use tidelog_types::limits::{ENTRY_PAGES_MAX, OFFER_LIVES_MAX};
use tidelog_types::{Chain, JournalId, Life, Page, Pgid, Position};

use super::{Stranger, lives, lsn, notes, open, open_named};

/// Where a local document stands that these many lives wrote, an entry each.
fn at(lives: u8) -> Position {
    let life = Life([99 + lives; 16]);
    let next = lsn(1 + u64::from(lives));
    Position { journal: JournalId([5; 16]), life, next, chain: Chain([6; 32]) }
}

fn offer(lives_count: u8) -> Intent {
    Intent::Offer { lives: lives(lives_count) }
}

fn seed(position: Position, db_pages: usize, pages: &[(Pgid, Page)], last: bool) -> ToRoom {
    let db_pages = u32::try_from(db_pages).expect("BUG: few");
    let pages = pages.iter().map(|(pgid, page)| CodedPage::new(*pgid, page, None)).collect();
    ToRoom::Seed { position, db_pages, pages, last }
}

/// The pages of a document that the stranger makes first, elsewhere.
fn pages(it: &mut Stranger) -> Result<Vec<(Pgid, Page)>, String> {
    let begun = ["opened from 1 wanted 1 lives 0", "entry 1..2"];
    let elsewhere = open_named("elsewhere", codec::encode(&notes(1)), None, Intent::Follow);
    it.says(99, elsewhere, &begun)?;
    let frames = it.frames(1, 1, &["add"]);
    it.says(99, frames, &["entry 2..3", "acked 2"])?;
    let pages: Vec<(Pgid, Page)> = it.pages.iter().map(|(at, page)| (*at, page.clone())).collect();
    // How many pages are free, as the header of the file has it.
    if pages[0].1.bytes()[36..40] == [0; 4] {
        return Err("no page of a document that is handed over is free".to_owned());
    }
    Ok(pages)
}

/// It is taken, and offered again in each state.
pub(super) fn tell(it: &mut Stranger) -> Result<(), String> {
    let pages = pages(it)?;
    let count = pages.len();
    let offered = open(&notes(1), Some(at(2)), offer(2));
    it.says(1, offered.clone(), &["seed wanted"])?;
    it.says(1, seed(at(2), count, &pages[..2], false), &["2 pages taken"])?;
    it.says(1, seed(at(2), count, &[], false), &["2 pages taken"])?;
    // Its timeline is what the pages say.
    let seeded = ["seeded 3", "opened from 3 wanted 2 lives 1"];
    it.says(1, seed(at(2), count, &pages[2..], true), &seeded)?;
    it.pages.clear();
    let follow = open(&notes(1), None, Intent::Follow);
    it.says(2, follow.clone(), &["opened from 1 wanted 2 lives 1", "entry 1..3"])?;
    if !it.pages.iter().eq(pages.iter().map(|(pgid, page)| (pgid, page))) {
        return Err("a document that was handed over has other pages".to_owned());
    }
    it.says(2, ToRoom::Close, &[])?;
    it.restart()?;
    it.says(1, offered.clone(), &seeded)?;
    it.says(
        1,
        open(&notes(1), Some(at(1)), offer(1)),
        &["seeded 2", "opened from 2 wanted 2 lives 1", "entry 2..3"],
    )?;
    let mut other = at(2);
    other.journal = JournalId([8; 16]);
    it.says(1, open(&notes(1), Some(other), offer(2)), &["exists"])?;
    // It has gone on, and nobody was heard to have written here.
    it.says(1, open(&notes(1), Some(at(3)), offer(3)), &["seed wanted"])?;
    let seeded = ["seeded 4", "opened from 4 wanted 2 lives 1"];
    it.says(1, seed(at(3), count, &pages, true), &seeded)?;
    // It goes on once more, and somebody writes here before all of that has come.
    it.says(1, open(&notes(1), Some(at(4)), offer(4)), &["seed wanted"])?;
    it.says(1, seed(at(4), count, &pages[..2], false), &["2 pages taken"])?;
    it.says(2, follow, &["opened from 1 wanted 2 lives 1", "entry 1..4"])?;
    let frames = it.frames(1, 2, &["add"]);
    it.says(2, frames, &["entry 4..5", "acked 3"])?;
    it.says(1, seed(at(4), count, &pages[2..], true), &["exists"])?;
    it.says(2, ToRoom::Close, &[])?;
    it.says(1, open(&notes(1), Some(at(4)), offer(4)), &["exists"])?;
    it.says(
        1,
        open(&notes(1), Some(at(3)), offer(3)),
        &["seeded 4", "opened from 4 wanted 3 lives 1", "entry 4..5"],
    )
}

/// What is no document, or not the one that was offered.
pub(super) fn tell_of_flaws(it: &mut Stranger) -> Result<(), String> {
    let pages = pages(it)?;
    let count = pages.len();
    let offered = open(&notes(1), Some(at(2)), offer(2));
    let (mut gap, mut swapped) = (pages.clone(), pages.clone());
    gap.remove(1);
    swapped.swap(0, 1);
    let of_nobody = Position { life: Life([3; 16]), ..at(2) };
    let unwritten = Position { next: lsn(1), ..at(2) };
    let flawed = [
        seed(at(2), ENTRY_PAGES_MAX + 1, &pages, false),
        seed(at(2), count, &gap, true),
        seed(at(2), count, &swapped, true),
        seed(at(2), count, &pages[..count - 1], true),
        seed(at(2), count - 1, &pages, true),
        seed(at(2), count, &[], true),
        seed(at(2), 0, &[], true),
        seed(of_nobody, count, &pages, true),
        seed(unwritten, count, &pages, true),
    ];
    for seed in flawed {
        it.says(1, offered.clone(), &["seed wanted"])?;
        it.says(1, seed.clone(), &["protocol"])?;
        // Nobody asks for one of who was refused.
        it.says(1, seed, &[])?;
    }
    it.says(1, offered.clone(), &["seed wanted"])?;
    it.says(1, seed(at(2), count, &pages[..1], false), &["1 pages taken"])?;
    it.says(1, seed(at(1), count, &pages[1..], true), &["protocol"])?;
    // It is no document of that doctype.
    let mut other = notes(1);
    other.migrations[0] = "create table note (id text primary key)".to_owned();
    other.mutations.clear();
    it.says(1, open(&other, Some(at(2)), offer(2)), &["seed wanted"])?;
    it.says(1, seed(at(2), count, &pages, true), &["protocol"])?;
    let most = u8::try_from(OFFER_LIVES_MAX).expect("BUG: few");
    it.says(1, open(&notes(1), Some(at(most + 1)), offer(most + 1)), &["protocol"])?;
    it.says(1, open(&notes(1), Some(at(most)), offer(most)), &["seed wanted"])?;
    it.says(1, ToRoom::Close, &[])?;
    it.says(1, offered, &["seed wanted"])?;
    it.says(1, seed(at(2), count, &pages[..1], false), &["1 pages taken"])?;
    // None of them has made the document, and one that is made meanwhile stays.
    let begun = ["opened from 1 wanted 1 lives 0", "entry 1..2"];
    it.says(2, open(&notes(1), None, Intent::Follow), &begun)?;
    it.says(1, seed(at(2), count, &pages[1..], true), &["exists"])?;
    let frames = it.frames(1, 1, &["add"]);
    it.says(2, frames, &["entry 2..3", "acked 2"])?;
    it.says(2, seed(at(2), count, &pages, true), &["protocol"])
}

/// Several offer a document of one name.
pub(super) fn tell_of_rivals(it: &mut Stranger) -> Result<(), String> {
    let pages = pages(it)?;
    let count = pages.len();
    let offered = || open(&notes(1), Some(at(2)), offer(2));
    it.says(1, offered(), &["seed wanted"])?;
    for channel in [2, 3, 4, 5] {
        it.says(channel, offered(), &[])?;
    }
    // Those who leave are not waited for, nor asked, in whichever place they were.
    it.says(3, ToRoom::Close, &[])?;
    it.says(1, ToRoom::Close, &[])?;
    it.hears(2, &["seed wanted"])?;
    // Whoever is silent is waited for a while, and longer the next time.
    it.pass(4_990)?;
    it.hears(2, &[])?;
    it.says(2, seed(at(2), count, &pages[..1], false), &["1 pages taken"])?;
    it.pass(20)?;
    it.pass(4_970)?;
    it.hears(2, &[])?;
    it.pass(100)?;
    it.hears(2, &["storage"])?;
    it.hears(3, &[])?;
    it.hears(4, &["seed wanted"])?;
    it.pass(1)?;
    it.pass(9_900)?;
    it.hears(4, &[])?;
    it.says(4, offered(), &[])?;
    // Whoever begins anew is behind the others.
    it.hears(5, &["seed wanted"])?;
    it.says(5, seed(at(2), count, &pages, true), &["seeded 3", "opened from 3 wanted 2 lives 1"])?;
    it.hears(4, &["seeded 3", "opened from 3 wanted 2 lives 1"])
}

/// There is no room for what is staged, and another time there is.
pub(super) fn tell_of_no_room(it: &mut Stranger) -> Result<(), String> {
    let pages = pages(it)?;
    let count = pages.len();
    let offered = || open(&notes(1), Some(at(2)), offer(2));
    let taken = format!("{count} pages taken");
    for staged in [0, 1] {
        it.says(1, offered(), &["seed wanted"])?;
        let (first, rest) = pages.split_at(staged);
        if staged > 0 {
            it.says(1, seed(at(2), count, first, false), &["1 pages taken"])?;
        }
        it.host.disk.set_full(true);
        it.says(1, seed(at(2), count, rest, false), &[&taken, "storage"])?;
        it.host.disk.set_full(false);
    }
    it.says(2, offered(), &["seed wanted"])?;
    it.says(2, seed(at(2), count, &pages[..2], false), &["2 pages taken"])?;
    let seeded = ["seeded 3", "opened from 3 wanted 2 lives 1"];
    it.says(2, seed(at(2), count, &pages[2..], true), &seeded)
}
