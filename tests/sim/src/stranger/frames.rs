//! What becomes of timeline frames, whoever sends them.

use tidelog_sync::{Intent, ProbeId, ToRoom};
use tidelog_types::limits::TIMELINE_LIVES_KEPT_MAX;

use super::{Stranger, lsn, notes, open};

const FOLLOW: Intent = Intent::Follow;

/// Repeats, gaps, rejections, rubbish and what cannot be decided.
pub(super) fn tell(it: &mut Stranger) -> Result<(), String> {
    let begun = ["opened from 1 wanted 1 lives 0", "entry 1..2"];
    it.says(1, open(&notes(1), None, FOLLOW), &begun)?;
    let frames = it.frames(1, 1, &["add"]);
    it.says(1, frames, &["entry 2..3", "acked 2"])?;
    let frames = it.frames(1, 1, &["add", "no"]);
    it.says(1, frames, &["entry 3..4", "acked 3"])?;
    // No mutation at all, and one of no name that is known.
    let frames = it.frames(1, 3, &["", "nothing"]);
    it.says(1, frames, &["entry 4..6", "acked 5"])?;
    it.says(1, ToRoom::Probe { probe: ProbeId(1) }, &["probed 6"])?;
    let unknown = it.frames_of(&notes(9), 1, 5, &["add", "add"]);
    it.says(1, unknown, &["undecided 5", "acked 5"])?;
    // Until it opens again, nothing behind it is looked at, and what was before it is.
    let frames = it.frames(1, 5, &["add"]);
    it.says(1, frames, &[])?;
    let frames = it.frames(1, 4, &["add"]);
    it.says(1, frames, &["acked 5"])?;
    let have = it.position;
    it.says(1, open(&notes(1), have, FOLLOW), &["opened from 6 wanted 5 lives 1"])?;
    let frames = it.frames(1, 5, &["add"]);
    it.says(1, frames, &["entry 6..7", "acked 6"])?;
    let frames = it.frames(1, 7, &["add"]);
    it.says(1, frames, &["protocol"])?;
    // Whoever was refused is not heard.
    let frames = it.frames(1, 6, &["add"]);
    it.says(1, frames, &[])?;
    // Of a history that never was, nothing is gone on with.
    let mut other = have;
    other.iter_mut().for_each(|it| it.life.0[0] ^= 1);
    let anew = ["opened from 1 wanted 6 lives 1", "entry 1..7"];
    it.says(2, open(&notes(1), other, FOLLOW), &anew)?;
    let mut beyond = it.position;
    beyond.iter_mut().for_each(|it| it.next = lsn(9));
    it.says(3, open(&notes(1), beyond, FOLLOW), &anew)?;
    // One who follows hears what others write, and nothing once it has gone.
    let frames = it.frames(1, 6, &["add"]);
    it.says(2, frames, &["entry 7..8", "acked 7"])?;
    it.hears(3, &["entry 7..8"])?;
    it.says(3, ToRoom::Close, &[])?;
    let frames = it.frames(1, 7, &["add"]);
    it.says(2, frames, &["entry 8..9", "acked 8"])?;
    it.hears(3, &[])?;
    it.restart()?;
    let have = it.position;
    it.says(1, open(&notes(1), have, FOLLOW), &["opened from 9 wanted 8 lives 1"])
}

/// Two copies of one client, and more lives than are remembered.
pub(super) fn tell_of_lives(it: &mut Stranger) -> Result<(), String> {
    let begun = ["opened from 1 wanted 1 lives 0", "entry 1..2"];
    it.says(1, open(&notes(1), None, FOLLOW), &begun)?;
    let kept = u8::try_from(TIMELINE_LIVES_KEPT_MAX).expect("BUG: few");
    let lives = kept + 3;
    for life in 1..=lives {
        let first = u64::from(life);
        let frames = it.frames(life, first, &["no"]);
        let entry = format!("entry {}..{}", first + 1, first + 2);
        it.says(1, frames, &[&entry, &format!("acked {}", first + 1)])?;
    }
    let wanted = u64::from(lives) + 1;
    let opened = format!("opened from {} wanted {wanted} lives {kept}", wanted + 1);
    it.restart()?;
    let again = |it: &mut Stranger| {
        let have = it.position;
        it.says(1, open(&notes(1), have, FOLLOW), &[&opened])
    };
    again(it)?;
    // The oldest life that is remembered, and the one before it.
    let oldest = lives - kept + 1;
    let frames = it.frames(oldest, u64::from(oldest), &["no"]);
    it.says(1, frames, &[&format!("acked {}", oldest + 1)])?;
    let frames = it.frames(oldest - 1, u64::from(oldest) - 1, &["no"]);
    it.says(1, frames, &["parted"])?;
    again(it)?;
    // One that has left does not come back, and none writes what another one has written.
    let frames = it.frames(lives - 1, wanted, &["no"]);
    it.says(1, frames, &["parted"])?;
    again(it)?;
    let frames = it.frames(200, wanted - 1, &["no"]);
    it.says(1, frames, &["parted"])?;
    again(it)
}

/// A document that is deleted, as all are told who follow it, and made again.
pub(super) fn tell_of_deletion(it: &mut Stranger) -> Result<(), String> {
    let begun = ["opened from 1 wanted 1 lives 0", "entry 1..2"];
    it.says(1, open(&notes(1), None, FOLLOW), &begun)?;
    let frames = it.frames(1, 1, &["add", "add"]);
    it.says(1, frames, &["entry 2..4", "acked 3"])?;
    let have = it.position;
    it.says(2, open(&notes(1), have, FOLLOW), &["opened from 4 wanted 3 lives 1"])?;
    it.destroy()?;
    it.hears(1, &["missing"])?;
    it.hears(2, &["missing"])?;
    it.says(1, open(&notes(1), have, FOLLOW), &["missing"])?;
    it.says(1, open(&notes(1), None, FOLLOW), &begun)?;
    let anew = ["opened from 1 wanted 1 lives 0", "entry 1..2"];
    it.says(2, open(&notes(1), have, FOLLOW), &anew)?;
    let frames = it.frames(1, 1, &["add", "add", "add"]);
    it.says(1, frames, &["entry 2..5", "acked 4"])?;
    it.hears(2, &["entry 2..5"])?;
    // The former one is no part of this one, of which the chains are not remembered.
    it.restart()?;
    let anew = ["opened from 1 wanted 4 lives 1", "entry 1..5"];
    it.says(1, open(&notes(1), have, FOLLOW), &anew)
}
