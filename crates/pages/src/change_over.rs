//! The checkpoint, which is the change-over from one log file to the other: in slices, while
//! everybody works. `FORMAT.md` says why it can be cut short anywhere.
//!
//! It reads the old log up to a point as a reader at opening would, writes that state into the
//! page file and the other log file, and then copies what was appended behind the point. So it
//! shares nothing with the catalog of the running store but the files.

use std::collections::VecDeque;
use std::sync::Arc;

use tidelog_disk::{Disk, FlushId};
use tidelog_journal::{BatchPart, Found, FoundFrame, FrameHead, LOG_START, Log};
use tidelog_types::probe::{Probe, reached};

use crate::catalog::Catalog;
use crate::error::Fault;
use crate::page_file::Slot;
use crate::place::PagePlace;
use crate::state_copy::StateCopy;
use crate::store::Store;

/// Bytes that are read or written in one slice, unless more than that is appended meanwhile.
const SLICE_SIZE: u64 = 256 * 1024;
/// Bytes that are written before they are flushed: one flush of everything would hold up those of
/// others.
const FLUSH_SIZE: u64 = 1024 * 1024;
/// Pages written to the page file with one write, where they lie side by side.
const RUN_PAGES: usize = 64;
/// Bytes that the other log file has at least: on a full device a change-over makes room, and needs
/// some itself.
const STATE_RESERVE_SIZE: u64 = 64 * 1024;
/// How often what was appended meanwhile is copied and flushed before batches are held.
const ROUNDS_MAX: u32 = 3;

/// Whether the device has room for the store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Room {
    /// As far as is known.
    Plenty,
    /// It had none: so many times since the last change-over.
    Short { times: u32, wants_change_over: bool },
}

impl Room {
    fn wants_change_over(self) -> bool {
        matches!(self, Self::Short { wants_change_over: true, .. })
    }

    /// An append found no room. A change-over makes some; if it cannot, it is tried again, but not
    /// for each append that fails.
    pub fn missing(&mut self) {
        let times = match *self {
            Self::Plenty => 1,
            Self::Short { times, .. } => times.saturating_add(1),
        };
        let is_due = times.is_power_of_two() || times.is_multiple_of(SHORTAGES_BETWEEN_TRIES);
        *self = Self::Short { times, wants_change_over: is_due };
    }

    /// Something was forgotten: a change-over may now have the room that it lacked.
    pub fn more(&mut self) {
        if let Self::Short { wants_change_over, .. } = self {
            *wants_change_over = true;
        }
    }

    /// A change-over was given up.
    fn given_up(&mut self) {
        let times = match *self {
            Self::Plenty => 1,
            Self::Short { times, .. } => times,
        };
        *self = Self::Short { times, wants_change_over: false };
    }
}

/// Appends without room after which a change-over is tried once more, whatever came of the last.
const SHORTAGES_BETWEEN_TRIES: u32 = 64;

/// How far a change-over has come.
#[derive(Debug)]
pub(crate) struct ChangeOver {
    stage: Stage,
    /// The state is that of the old log up to here.
    point: u64,
    /// How far the old log has been read.
    read: u64,
    /// What the old log says up to there, and from the stage of the pages on with new slots.
    folded: Catalog,
    /// What the new log says as far as it is written.
    next: Catalog,
    /// Size of the old log at the last slice.
    log_size: u64,
    rounds: u32,
    /// Bytes written since a flush of them was asked for.
    unflushed: u64,
    /// Whether it waits for a flush, or for reads.
    pub is_waiting: bool,
}

#[derive(Debug)]
enum Stage {
    /// The old log is read up to the point.
    Fold,
    /// Waits until the old log is durable up to the point, and nobody reads from a slot that may
    /// be overwritten.
    Settle,
    /// Pages are written to their slots.
    Pages(VecDeque<(Slot, PagePlace)>),
    /// They are flushed.
    PagesFlush(FlushId),
    /// The header of the other log file is flushed: so its generation is not used again.
    Begin(FlushId),
    /// The rest of the state is written into the other log file.
    State(StateCopy),
    /// What was appended behind the point is copied.
    Tail,
    /// All that was copied is flushed.
    TailFlush(FlushId),
    /// What was appended during that is flushed; batches are held.
    LastFlush(FlushId),
    /// The seal is flushed.
    Seal(FlushId),
}

/// What came of one step.
#[derive(Debug)]
enum Step {
    /// Hardly anything was done, and this is next.
    Next(Stage),
    /// A slice was done, and this is next if there is no more of the same.
    Slice(Option<Stage>),
    /// There is nothing to be done now.
    Wait,
    /// The seal is flushed.
    Sealed,
}

impl<D: Disk> Store<D> {
    /// Whether the log has grown long enough.
    pub fn wants_change_over(&self) -> bool {
        let is_idle = self.change_over.is_none() && !self.log.is_damaged();
        is_idle && (self.log.size() >= self.change_over_at || self.room.wants_change_over())
    }

    /// Whether there is something to do for a change-over that goes on, without any flush
    /// completing or read ending.
    pub fn can_advance(&self) -> bool {
        self.change_over.as_ref().is_some_and(|change_over| !change_over.is_waiting)
    }

    /// Begins a change-over. Everything goes on as before.
    pub fn begin_change_over(&mut self) -> Result<(), Fault> {
        assert!(self.change_over.is_none(), "BUG: two change-overs at once");
        self.log.request_flush()?;
        self.begin_era();
        self.change_over = Some(ChangeOver {
            stage: Stage::Fold,
            point: self.log.written_size(),
            read: LOG_START,
            folded: Catalog::new(self.pages.slots()),
            next: Catalog::default(),
            log_size: self.log.size(),
            rounds: 0,
            unflushed: 0,
            is_waiting: false,
        });
        Ok(())
    }

    /// Does a slice of the change-over, if one is going on. Answers whether it has ended: then
    /// what was appended last may have to be written and flushed.
    pub fn advance(&mut self) -> Result<bool, Fault> {
        let Some(mut change_over) = self.change_over.take() else { return Ok(false) };
        // What is left shrinks though appends go on.
        let appended = self.log.size().saturating_sub(change_over.log_size);
        change_over.log_size = self.log.size();
        let size = SLICE_SIZE.max(2 * appended);
        match change_over.advance(self, size) {
            Ok(true) => {
                reached(Probe::ChangedOver);
                change_over.switch(self)?;
                Ok(true)
            }
            Ok(false) => {
                self.change_over = Some(change_over);
                Ok(false)
            }
            // Once sealed, which file is the active one is settled by a flush and nothing else.
            Err(fault) if fault.is_full() && !change_over.is_sealing() => {
                reached(Probe::ChangeOverGivenUp);
                self.give_up(self.log.size() + self.options.log_size_max / 4);
                Ok(true)
            }
            // What is damaged cannot be copied. Everything else goes on, with a log that grows.
            Err(Fault::Damaged { .. }) if !change_over.is_sealing() => {
                self.give_up(u64::MAX);
                Ok(true)
            }
            Err(fault) => Err(fault),
        }
    }

    /// The change-over cannot go on; the next is begun once the log is this large.
    fn give_up(&mut self, next_at: u64) {
        self.log.abort_copy();
        self.change_over_at = next_at;
        self.room.given_up();
        self.is_shed = false;
    }

    /// Reads that are asked for from now on are told apart from those before.
    fn begin_era(&mut self) {
        let era = std::mem::take(&mut self.era);
        self.readers.push(era);
    }

    /// Gives back room on the device that the last change-over has left, or has taken in vain, once
    /// nobody reads there.
    pub fn shed(&mut self) -> Result<(), Fault> {
        let is_idle = self.change_over.is_none() && !self.log.is_damaged();
        let is_known = is_idle && self.log.is_found_durable();
        if is_known && !self.is_shed && !self.has_old_readers() {
            reached(Probe::FilesShed);
            self.log.resize_other(STATE_RESERVE_SIZE.max(2 * self.log.state_size()))?;
            self.pages.shed(self.catalog.extents.count())?;
            self.is_shed = true;
        }
        Ok(())
    }

    /// Whether reads go on that began before the change-over did.
    fn has_old_readers(&mut self) -> bool {
        self.readers.retain(|era| Arc::strong_count(era) > 1);
        !self.readers.is_empty()
    }

    /// Whether the change-over waits for such reads, and has done so for long.
    pub fn is_held_up_by_reads(&mut self) -> bool {
        let settles = matches!(&self.change_over, Some(it) if matches!(it.stage, Stage::Settle));
        settles
            && self.log.size() >= self.change_over_at.saturating_mul(2)
            && self.has_old_readers()
    }
}

impl ChangeOver {
    fn is_sealing(&self) -> bool {
        matches!(self.stage, Stage::LastFlush(_) | Stage::Seal(_))
    }

    /// Goes on until a slice is done, or there is nothing to be done now. Answers whether the seal
    /// is flushed.
    fn advance<D: Disk>(&mut self, store: &mut Store<D>, size: u64) -> Result<bool, Fault> {
        loop {
            let step = self.step(store, size)?;
            self.is_waiting = matches!(step, Step::Wait);
            match step {
                Step::Next(stage) => self.stage = stage,
                Step::Slice(next) => {
                    if let Some(next) = next {
                        self.stage = next;
                    }
                    return Ok(false);
                }
                Step::Wait => return Ok(false),
                Step::Sealed => return Ok(true),
            }
        }
    }

    fn step<D: Disk>(&mut self, store: &mut Store<D>, size: u64) -> Result<Step, Fault> {
        Ok(match &mut self.stage {
            Stage::Fold => self.fold(&store.log, size)?,
            Stage::Settle => {
                store.log.poll_flushed()?;
                let has_readers = store.has_old_readers();
                if has_readers {
                    reached(Probe::ChangeOverWaitedForReads);
                }
                if store.log.durable_size() < self.point || has_readers {
                    return Ok(Step::Wait);
                }
                let places = self.assign_slots(&store.log);
                if !places.is_empty() {
                    store.pages.prepare(self.folded.extents.count())?;
                }
                Step::Next(Stage::Pages(places))
            }
            Stage::Pages(places) => {
                write_pages(store, places, size)?;
                let is_last = places.is_empty();
                if !self.is_flush_due(size) && !is_last {
                    return Ok(Step::Slice(None));
                }
                let id = store.pages.request_flush()?;
                Step::Slice(is_last.then_some(Stage::PagesFlush(id)))
            }
            Stage::PagesFlush(id) => {
                if !store.pages.is_flushed(*id)? {
                    return Ok(Step::Wait);
                }
                store.log.begin_copy()?;
                Step::Next(Stage::Begin(store.log.flush_copy()?))
            }
            Stage::Begin(id) => {
                if !store.log.is_copy_flushed(*id)? {
                    return Ok(Step::Wait);
                }
                self.next = Catalog::new(store.pages.slots());
                let copy = StateCopy::begin(
                    &mut store.log,
                    &self.folded,
                    &mut self.next,
                    store.options.limits.calls_kept_max,
                )?;
                Step::Next(Stage::State(copy))
            }
            Stage::State(copy) => {
                let is_left = copy.slice(&mut store.log, &mut self.folded, &mut self.next, size)?;
                if !is_left {
                    store.log.end_state()?;
                }
                if self.is_flush_due(size) {
                    store.log.flush_copy()?;
                }
                Step::Slice((!is_left).then_some(Stage::Tail))
            }
            Stage::Tail => {
                self.copy_tail(&mut store.log, size)?;
                let is_little = store.log.written_size() - self.read < SLICE_SIZE;
                if !self.is_flush_due(size) && !is_little {
                    return Ok(Step::Slice(None));
                }
                let id = store.log.flush_copy()?;
                Step::Slice(is_little.then_some(Stage::TailFlush(id)))
            }
            Stage::TailFlush(id) => {
                if !store.log.is_copy_flushed(*id)? {
                    return Ok(Step::Wait);
                }
                self.rounds += 1;
                if store.log.written_size() - self.read >= SLICE_SIZE && self.rounds < ROUNDS_MAX {
                    return Ok(Step::Next(Stage::Tail));
                }
                store.log.write()?;
                store.log.hold();
                self.copy_tail(&mut store.log, u64::MAX)?;
                Step::Next(Stage::LastFlush(store.log.flush_copy()?))
            }
            Stage::LastFlush(id) => {
                if !store.log.is_copy_flushed(*id)? {
                    return Ok(Step::Wait);
                }
                Step::Next(Stage::Seal(store.log.seal()?))
            }
            Stage::Seal(id) => {
                if !store.log.is_copy_flushed(*id)? {
                    return Ok(Step::Wait);
                }
                Step::Sealed
            }
        })
    }

    /// Whether enough was written to be flushed, after a slice of about `size` bytes.
    fn is_flush_due(&mut self, size: u64) -> bool {
        self.unflushed += size;
        let is_due = self.unflushed >= FLUSH_SIZE;
        self.unflushed = if is_due { 0 } else { self.unflushed };
        is_due
    }

    /// Reads a slice of the old log.
    fn fold<D: Disk>(&mut self, log: &Log<D>, size: u64) -> Result<Step, Fault> {
        let folded = &mut self.folded;
        let mut answer = Ok(());
        let mut visit = |frame: FoundFrame<'_>, _| {
            if answer.is_ok() {
                answer = folded.take_in(Found::Frame(frame));
            }
        };
        self.read = log.read_from(self.read, self.point, to_usize(size), &mut visit)?;
        answer.expect("BUG: the log says what cannot be");
        Ok(Step::Slice((self.read == self.point).then_some(Stage::Settle)))
    }

    /// Gives every page in the log a slot. Gives their places, in the order of the slots.
    fn assign_slots<D: Disk>(&mut self, log: &Log<D>) -> VecDeque<(Slot, PagePlace)> {
        let mut places = Vec::new();
        let Catalog { documents, extents, .. } = &mut self.folded;
        for (number, document) in documents {
            let db_pages = document.db_pages;
            let moved = document.pages.checkpoint(|| extents.allocate(*number, db_pages));
            let moved = moved.into_iter();
            places.extend(moved.map(|(slot, page)| (slot, document.place_of(page, log.active()))));
        }
        places.sort_unstable_by_key(|(slot, _)| *slot);
        places.into()
    }

    /// Copies a slice of what was appended to the old log behind the point.
    fn copy_tail<D: Disk>(&mut self, log: &mut Log<D>, size: u64) -> Result<(), Fault> {
        let end = log.written_size();
        let mut left = size;
        while self.read < end && left > 0 {
            // What is in memory at once is bounded, however much there is to be copied.
            let piece = left.min(SLICE_SIZE);
            let mut frames: Vec<(FrameHead, Vec<u8>, BatchPart)> = Vec::new();
            let mut visit = |frame: FoundFrame<'_>, part| {
                frames.push((frame.head, frame.body.to_vec(), part));
            };
            let read = log.read_from(self.read, end, to_usize(piece), &mut visit)?;
            for (head, body, part) in frames {
                let head = FrameHead { nth: self.next.nth(head.document), ..head };
                let place = log.copy_part(&head, &[&body], part)?;
                self.next.apply_copied(&FoundFrame { place, head, body: &body });
            }
            left = left.saturating_sub(read - self.read);
            self.read = read;
        }
        Ok(())
    }

    /// The new log is sealed: goes over to it, with what was appended while batches were held.
    fn switch<D: Disk>(mut self, store: &mut Store<D>) -> Result<(), Fault> {
        for frame in store.log.switch()? {
            let (head, body) = (frame.head, frame.body);
            let head = FrameHead { nth: self.next.nth(head.document), ..head };
            let place = store.log.push(&head, &[&body]);
            self.next.apply_copied(&FoundFrame { place, head, body: &body });
            if frame.ends_batch {
                store.log.commit();
            }
        }
        self.next.take_over(&store.catalog);
        store.catalog = self.next;
        store.change_over_at = store.options.log_size_max.max(2 * store.log.state_size());
        store.begin_era();
        store.room = Room::Plenty;
        store.is_shed = false;
        Ok(())
    }
}

/// Writes pages to their slots, of at least one run and of about `size` bytes.
fn write_pages<D: Disk>(
    store: &mut Store<D>,
    places: &mut VecDeque<(Slot, PagePlace)>,
    size: u64,
) -> Result<(), Fault> {
    let mut written = 0;
    while written < size
        && let Some((first, _)) = places.front().copied()
    {
        let mut run: Vec<PagePlace> = Vec::new();
        while run.len() < RUN_PAGES
            && let Some((slot, place)) = places.front()
            && slot.number() as usize == first.number() as usize + run.len()
        {
            run.push(*place);
            places.pop_front();
        }
        let run = store.read_pages(&run)?;
        store.pages.write(first, &run)?;
        written += run.len() as u64;
    }
    Ok(())
}

fn to_usize(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
