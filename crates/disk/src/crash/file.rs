//! One file of a crash device: what surely survives, what is seen, and what lies between.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::Grown;
use super::image::{Block, Image, is_same};
use crate::{BLOCK_SIZE, DiskError, FlushId, SECTOR_SIZE};

/// In place of the clock: a flush that failed has left the sector clean in the caches. It is as
/// un-flushed as before, and a later flush leaves it so unless it is written again.
const CLEAN: u64 = u64::MAX;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// What a sector has held, in its block as that was then, and the clock at the write.
type Version = (u64, Option<Block>);

#[derive(Clone, Debug, Default)]
pub(super) struct FileState {
    pub name: String,
    /// What surely survives.
    durable: Image,
    /// What a read sees.
    pub now: Image,
    /// What each sector has held since it was last durable, oldest first; [`CLEAN`] is the clock of
    /// what no flush covers any more.
    pub unflushed: BTreeMap<usize, Vec<Version>>,
    /// The sizes likewise.
    sizes: Vec<(u64, usize)>,
    /// Flushes asked for and not complete, with the clock at the request.
    pub requested: Vec<(FlushId, u64)>,
    /// Whether the flushes that are asked for now will fail.
    pub flush_will_fail: bool,
    flushes: u64,
    pub flushed: Option<FlushId>,
    pub poisoned: bool,
    /// Blocks that nobody has written and that take up no room, where a device has such.
    holes: BTreeSet<u64>,
    /// Bytes that no call can read: the device is worn out there, whoever opens the file.
    pub unreadable: Vec<Range<u64>>,
}

impl FileState {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// It got its size, from this one on, without a write.
    pub fn note_hole(&mut self, before: usize) {
        // Part of a block is never a hole, whichever end of the file it was.
        let (before, now) = ((before as u64).div_ceil(BLOCK), self.now.len() as u64 / BLOCK);
        self.holes.extend(before..now);
        drop(self.holes.split_off(&now));
    }

    /// Bytes that take up no room.
    pub fn hole_size(&self) -> u64 {
        self.holes.len() as u64 * BLOCK
    }

    /// And of these, those that a write from `offset` to `end` would fill.
    pub fn hole_size_in(&self, offset: u64, end: u64) -> u64 {
        self.holes.range(offset / BLOCK..end.div_ceil(BLOCK)).count() as u64 * BLOCK
    }

    fn note_sectors(&mut self, clock: u64, start: usize, end: usize) {
        let cuts = Cuts::of(&self.sizes);
        for sector in start / SECTOR_SIZE..end.div_ceil(SECTOR_SIZE) {
            let block = self.now.block_of(sector);
            // The same again makes no image that was not there without it.
            let gone = cuts.last_of(sector);
            let last = self.unflushed.get(&sector).and_then(|versions| versions.last());
            let is_new = match last.filter(|(at, _)| *at > gone) {
                Some((at, last)) => *at == CLEAN || !is_same(sector, last.as_ref(), block),
                None if gone > 0 => !is_same(sector, None, block),
                None => !is_same(sector, self.durable.block_of(sector), block),
            };
            if is_new {
                let block = block.cloned();
                self.unflushed.entry(sector).or_default().push((clock, block));
            }
        }
    }

    /// Whether these bytes can be read at all.
    pub fn is_readable(&self, offset: u64, count: usize) -> bool {
        let end = offset.saturating_add(count as u64);
        !self.unreadable.iter().any(|worn| worn.start < end && offset < worn.end)
    }

    /// Whether a write would put anything but zeros and what was there.
    pub fn has_news(&self, offset: u64, bytes: &[u8]) -> bool {
        let left = (self.now.len() as u64).saturating_sub(offset);
        let mut there = vec![0; bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        if !there.is_empty() {
            self.now.read(offset, &mut there).expect("BUG: no more than there is");
        }
        let is_new = |(index, byte): (usize, &u8)| *byte != 0 && there.get(index) != Some(byte);
        bytes.iter().enumerate().any(is_new)
    }

    pub fn write(&mut self, clock: u64, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let size = self.now.len();
        self.now.write(offset, bytes)?;
        if !bytes.is_empty() {
            let start = usize::try_from(offset).expect("BUG: the write succeeded");
            if !self.holes.is_empty() {
                let end = offset + bytes.len() as u64;
                (offset / BLOCK..end.div_ceil(BLOCK)).for_each(|block| {
                    self.holes.remove(&block);
                });
            }
            self.note_sectors(clock, start, start + bytes.len());
        }
        if self.now.len() != size {
            self.sizes.push((clock, self.now.len()));
        }
        Ok(())
    }

    pub fn set_size(&mut self, clock: u64, size: usize) -> Result<(), DiskError> {
        let before = self.now.len();
        self.now.resize(size)?;
        if size < before && !size.is_multiple_of(SECTOR_SIZE) {
            // The rest of this sector has to read as zeros should the file grow again.
            self.note_sectors(clock, size, size + 1);
        }
        self.sizes.push((clock, size));
        Ok(())
    }

    pub fn request_flush(&mut self, clock: u64) -> FlushId {
        self.flushes += 1;
        let id = FlushId(self.flushes);
        self.requested.push((id, clock));
        id
    }

    pub fn complete_flushes(&mut self) {
        if let Some(last) = self.requested.len().checked_sub(1) {
            self.complete_flushes_to(last);
        }
    }

    /// Completes the flushes that were asked for up to this one.
    pub fn complete_flushes_to(&mut self, last: usize) {
        let (id, clock) = self.requested[last];
        self.requested.drain(..=last);
        if self.flush_will_fail {
            self.fail_flush(clock);
            return;
        }
        self.flushed = Some(id);
        let count = self.sizes.iter().take_while(|(at, _)| *at <= clock).count();
        take_sizes(&mut self.durable, &self.sizes[..count]);
        let cuts = Cuts::of(&self.sizes[..count]);
        for (sector, versions) in &mut self.unflushed {
            let gone = cuts.last_of(*sector);
            let covered = versions.iter().rposition(|(at, _)| *at <= clock && *at > gone);
            if let Some(covered) = covered {
                self.durable.lay(*sector, versions[covered].1.as_ref());
                versions.drain(..=covered);
            }
            versions.retain(|(at, _)| *at > gone);
        }
        self.sizes.drain(..count);
        self.unflushed.retain(|_, versions| !versions.is_empty());
    }

    /// A flush of all that was written by then fails.
    pub fn fail_flush(&mut self, clock: u64) {
        self.poisoned = true;
        for (at, _) in self.unflushed.values_mut().flatten().filter(|(at, _)| *at <= clock) {
            *at = CLEAN;
        }
    }

    /// The file after a power cut, at rest. What became longer, and did not get what was written
    /// there, holds zeros or what the device had there before.
    pub fn crash(&self, choose: &mut dyn FnMut(usize) -> usize, grown: Grown) -> Self {
        let mut image = self.durable.clone();
        let choice = if self.sizes.is_empty() { 0 } else { choose(self.sizes.len() + 1) };
        let sizes = &self.sizes[..choice];
        take_sizes(&mut image, sizes);
        if grown == Grown::Garbage && image.len() > self.durable.len() {
            let first = self.durable.len().next_multiple_of(SECTOR_SIZE).min(image.len());
            let end = image.len();
            fill_with_garbage(&mut image, first..end);
        }
        let cuts = Cuts::of(sizes);
        for (sector, versions) in &self.unflushed {
            if sector * SECTOR_SIZE >= image.len() {
                // It lies behind the end of this image, whatever became of it.
                continue;
            }
            let gone = cuts.last_of(*sector);
            let versions = &versions[versions.partition_point(|(at, _)| *at <= gone)..];
            if versions.is_empty() {
                continue;
            }
            let choice = choose(versions.len() + 1);
            if choice > 0 {
                image.lay(*sector, versions[choice - 1].1.as_ref());
            }
        }
        self.at_rest(image)
    }

    /// The file, of its newest size, after a power cut that tears whole blocks: of each in which
    /// something changed since it was durable 0 is what was durable, 1 garbage, and 2 the newest.
    pub fn tear(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut image = self.durable.clone();
        take_sizes(&mut image, &self.sizes);
        let cuts = Cuts::of(&self.sizes);
        let is_there = |(sector, versions): &(&usize, &Vec<Version>)| {
            let gone = cuts.last_of(**sector);
            *sector * SECTOR_SIZE < image.len() && versions.last().is_some_and(|(at, _)| *at > gone)
        };
        let changed: Vec<_> = self.unflushed.iter().filter(is_there).collect();
        let block_of = |sector: usize| sector * SECTOR_SIZE / BLOCK_SIZE;
        for sectors in changed.chunk_by(|(one, _), (other, _)| block_of(**one) == block_of(**other))
        {
            match choose(3) {
                0 => {}
                1 => {
                    let start = block_of(*sectors[0].0) * BLOCK_SIZE;
                    let end = (start + BLOCK_SIZE).min(image.len());
                    fill_with_garbage(&mut image, start..end);
                }
                _ => sectors.iter().for_each(|(sector, versions)| {
                    image.lay(**sector, versions[versions.len() - 1].1.as_ref());
                }),
            }
        }
        self.at_rest(image)
    }

    /// The file with this content, all of it durable.
    fn at_rest(&self, image: Image) -> Self {
        let (name, now, mut holes) = (self.name.clone(), image.clone(), self.holes.clone());
        drop(holes.split_off(&(now.len() as u64 / BLOCK)));
        let unreadable = self.unreadable.clone();
        Self { name, durable: image, now, holes, unreadable, ..Self::default() }
    }

    /// The file after its owner was killed, for the next one.
    pub fn kill(&self) -> Self {
        Self {
            name: self.name.clone(),
            durable: self.durable.clone(),
            now: self.now.clone(),
            unflushed: self.unflushed.clone(),
            sizes: self.sizes.clone(),
            holes: self.holes.clone(),
            unreadable: self.unreadable.clone(),
            ..Self::default()
        }
    }
}

/// A file gets these sizes, one after the other.
fn take_sizes(image: &mut Image, sizes: &[(u64, usize)]) {
    for (_, size) in sizes {
        image.resize(*size).expect("BUG: the file has had this size");
    }
}

/// Nothing that anybody would write, and no zeros.
fn fill_with_garbage(image: &mut Image, range: Range<usize>) {
    let garbage = (0_u32..).take(range.len()).map(|at| (at.wrapping_mul(167) >> 3) as u8 | 1);
    let filled = image.write(range.start as u64, &garbage.collect::<Vec<u8>>());
    filled.expect("BUG: a file has room for what is within it");
}

/// Changes of a file's size, looked at as what they cut off.
struct Cuts<'a> {
    sizes: &'a [(u64, usize)],
    /// The least of them: in a file that only grows none is looked for.
    least: usize,
}

impl<'a> Cuts<'a> {
    fn of(sizes: &'a [(u64, usize)]) -> Self {
        let least = sizes.iter().map(|(_, size)| *size).min().unwrap_or(usize::MAX);
        Self { sizes, least }
    }

    /// When this sector was cut off last; 0 if never. What it was before is gone with that.
    fn last_of(&self, sector: usize) -> u64 {
        let start = sector * SECTOR_SIZE;
        if self.least > start {
            return 0;
        }
        let cut = self.sizes.iter().rfind(|(_, size)| *size <= start);
        cut.map_or(0, |(clock, _)| *clock)
    }
}
