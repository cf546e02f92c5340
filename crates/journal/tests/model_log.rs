//! The log against a plain model.
//!
//! Goal: whatever is done in whatever order, the log holds the batches that were committed and
//! not given up, and after a power cut a beginning of them with all that was durable. Method:
//! random operations on a log and on lists of frames, compared at every step that shows something.
//! `common/runs.rs` says how to do many and how to replay one.

use std::collections::VecDeque;

use tidelog_disk::{BLOCK_SIZE, CrashDevice, CrashDisk, DiskFault, SECTOR_SIZE};
use tidelog_journal::{
    BatchNumber, DocumentNumber, FRAME_HEADER_SIZE, Found, FoundFrame, FrameHead, LOG_START, Log,
    Seed, Witness,
};
use tidelog_testing::{Rng, runs};
use tidelog_types::{CallId, Chain, Epoch, JournalId, LsnRange};

/// Bytes of log after which it changes over.
const LOG_SIZE: u64 = 48 * 1024;
const OPERATIONS: u64 = 2_000;

/// A frame, and where it stands in the active file.
#[derive(Clone, Debug, PartialEq)]
struct Frame {
    place: u64,
    head: FrameHead,
    body: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Batch {
    number: u64,
    frames: Vec<Frame>,
}

impl Batch {
    fn ends_within(&self, size: u64) -> bool {
        let last = self.frames.last().expect("an empty batch is none");
        last.place + (last.head.header_size() + last.body.len()) as u64 <= size
    }
}

/// What the log should be.
#[derive(Debug, Default)]
struct Model {
    /// Frames of the copied state.
    state: Vec<Frame>,
    batches: Vec<Batch>,
    committed: u64,
    written: u64,
    /// The last batch that is durable, as the log counts.
    durable: u64,
    /// How many of `batches` survive a power cut.
    durable_count: usize,
    /// What each flush under way covers.
    flushes: VecDeque<u64>,
    /// Something was given up that a power cut could bring back before this is durable.
    doubtful_until: Option<u64>,
}

impl Model {
    fn written_count(&self) -> usize {
        self.batches.partition_point(|batch| batch.number <= self.written)
    }

    fn frames_of(&self, batches_count: usize) -> Vec<Frame> {
        let appended = self.batches[..batches_count].iter().flat_map(|batch| &batch.frames);
        self.state.iter().chain(appended).cloned().collect()
    }

    fn flushed(&mut self) {
        if let Some(number) = self.flushes.drain(..).next_back() {
            self.durable = number;
            self.doubtful_until = self.doubtful_until.filter(|until| *until > number);
            self.durable_count = self.batches.partition_point(|batch| batch.number <= number);
        }
    }
}

struct Scene<'r> {
    rng: &'r mut Rng,
    device: CrashDevice,
    log: Log<CrashDisk>,
    model: Model,
    /// Whether all frames are equal.
    has_twins: bool,
    /// Whether batches are held back for the end of a change-over.
    is_held: bool,
    /// Whether a torn tail was cut off when the log was opened.
    has_cut: bool,
}

/// The log, its frames, and whether a torn tail was cut off.
fn open(device: &CrashDevice) -> (Log<CrashDisk>, Vec<Frame>, bool) {
    let mut frames = Vec::new();
    let files = [device.file("a"), device.file("b")];
    let (log, report) = Log::recover(files, Witness::None, Seed(device.seed()), 0, &mut |found| {
        let Found::Frame(found) = found else { panic!("nothing was damaged: {found:?}") };
        let (place, body) = (found.place.frame, found.body.to_vec());
        frames.push(Frame { place, head: found.head, body });
        Ok(())
    })
    .expect("a log can always be opened");
    (log, frames, report.cut.is_some())
}

impl<'r> Scene<'r> {
    fn new(rng: &'r mut Rng) -> Self {
        let device = CrashDevice::new();
        device.hold_flushes(true);
        let (log, frames, has_cut) = open(&device);
        assert_eq!(frames, []);
        let has_twins = rng.one_in(2);
        Self { rng, device, log, model: Model::default(), has_twins, is_held: false, has_cut }
    }

    /// Not while batches are held, nor over a torn tail before it is cut off for good.
    fn may_write(&self) -> bool {
        !self.is_held && (!self.has_cut || self.log.is_found_durable())
    }

    fn frame(&mut self) -> (FrameHead, Vec<u8>) {
        let rng = &mut *self.rng;
        if self.has_twins {
            // Frames of a sector each, one like the other: what was given up fits behind what is
            // written in its place.
            return (
                FrameHead::new(1, DocumentNumber(1), Epoch(1)),
                vec![0; SECTOR_SIZE - FRAME_HEADER_SIZE],
            );
        }
        let bytes16 = |rng: &mut Rng| [rng.next().to_le_bytes(), rng.next().to_le_bytes()].concat();
        let number = rng.next();
        let mut head =
            FrameHead::new(number as u8, DocumentNumber(number >> 60), Epoch(number >> 50 & 7));
        if rng.one_in(2) {
            head.journal = JournalId(bytes16(rng).try_into().expect("16 bytes"));
            let start = 1 + rng.next() % 1000;
            head.lsns = LsnRange::checked(start, start + rng.next() % 9);
            head.call = Some(CallId(bytes16(rng).try_into().expect("16 bytes")));
            head.chain = Chain([number as u8; 32]);
        }
        let size = if rng.one_in(50) { rng.below(6000) } else { rng.below(100) };
        (head, vec![(number >> 8) as u8; size])
    }

    fn commit(&mut self) {
        let mut frames = Vec::new();
        let count = if self.has_twins { 1 } else { self.rng.below(4) };
        for _ in 0..count {
            let (head, body) = self.frame();
            let (one, two) = body.split_at(body.len() / 2);
            let place = self.log.push(&head, &[one, two]).frame;
            frames.push(Frame { place, head, body });
        }
        // An empty batch is none.
        self.model.committed += u64::from(!frames.is_empty());
        let number = self.model.committed;
        assert_eq!(self.log.commit(), BatchNumber(number));
        if !frames.is_empty() {
            self.model.batches.push(Batch { number, frames });
        }
    }

    /// A batch that is written as it is put together, as far as there is room.
    fn commit_parts(&mut self) {
        // What waits is written by itself before, which is not done where it may not.
        if !self.may_write() {
            return;
        }
        self.write();
        let mut frames = Vec::new();
        let count = 1 + self.rng.below(5) as u32;
        let mut has_failed = false;
        for index in 0..count {
            if index > 0 && !has_failed && self.rng.one_in(2) {
                if self.rng.one_in(8) {
                    let fault =
                        if self.rng.one_in(2) { DiskFault::Full } else { DiskFault::ShortWrite };
                    self.device.fail_call(self.device.calls() + 1, fault);
                }
                has_failed = self.log.write_parts().is_err();
            }
            let (head, body) = self.frame();
            let place = self.log.push_part(&head, &[&body], (index, count)).frame;
            frames.push(Frame { place, head, body });
        }
        self.model.committed += 1;
        let number = self.model.committed;
        assert_eq!(self.log.commit_parts(), BatchNumber(number));
        self.model.batches.push(Batch { number, frames });
        if has_failed {
            self.give_up();
        }
    }

    fn write(&mut self) {
        self.log.write().expect("room");
        if self.may_write() {
            self.model.written = self.model.committed;
        }
    }

    /// Writes on a device that is full, and gives up what was to be written.
    fn write_in_vain(&mut self) {
        if self.model.written == self.model.committed || !self.may_write() {
            return;
        }
        let fault = if self.rng.one_in(2) { DiskFault::Full } else { DiskFault::ShortWrite };
        self.device.fail_call(self.device.calls() + 1, fault);
        let Err(error) = self.log.write() else {
            // All that was missing is room for zeros ahead of the log.
            self.model.written = self.model.committed;
            return;
        };
        assert!(error.is_full());
        self.give_up();
    }

    fn give_up(&mut self) {
        let written_count = self.model.written_count();
        self.model.batches.truncate(written_count);
        self.model.written += 1;
        self.model.committed = self.model.written;
        self.model.doubtful_until = Some(self.model.written);
        let number = self.log.discard().expect("room for an end mark");
        assert_eq!(number, BatchNumber(self.model.written));
    }

    fn request_flush(&mut self) {
        let calls = self.device.calls();
        self.log.request_flush().expect("healthy");
        // Nothing is asked for twice.
        if self.device.calls() > calls {
            self.model.flushes.push_back(self.model.written);
        }
    }

    fn complete_flushes(&mut self) {
        self.device.complete_flushes();
        let durable = self.log.poll_flushed().expect("healthy");
        self.model.flushed();
        assert_eq!(durable, BatchNumber(self.model.durable));
        let is_durable = self.model.durable == self.model.committed && self.log.is_found_durable();
        assert!(!self.log.is_all_durable() || is_durable);
    }

    fn settle(&mut self) {
        if !self.may_write() {
            self.request_flush();
            self.complete_flushes();
        }
        self.write();
        self.request_flush();
        self.complete_flushes();
        assert!(self.log.is_all_durable());
    }

    fn read_frame(&mut self) {
        let all = self.model.state.len() + self.model.batches.len();
        if all == 0 {
            return;
        }
        let index = self.rng.below(all);
        let frame = match index.checked_sub(self.model.state.len()) {
            None => &self.model.state[index],
            Some(batch) => {
                let frames = &self.model.batches[batch].frames;
                &frames[self.rng.below(frames.len())]
            }
        };
        let read = self.log.read_frame(self.log.frame_at(frame.place));
        assert_eq!(read, Ok((frame.head, frame.body.clone())));
    }

    fn replay(&mut self) {
        let mut frames = Vec::new();
        let mut visit = |found: FoundFrame<'_>, _| {
            let (place, body) = (found.place.frame, found.body.to_vec());
            frames.push(Frame { place, head: found.head, body });
        };
        let read = self.log.read_from(LOG_START, u64::MAX, 1 << 20, &mut visit);
        assert_eq!(read, Ok(self.log.written_size()));
        assert_eq!(frames, self.model.frames_of(self.model.written_count()));
    }

    /// Opens the log anew, as after the end of its process.
    fn reopen(&mut self) {
        let (log, frames, has_cut) = open(&self.device);
        self.has_cut = has_cut;
        let written_count = self.model.written_count();
        if self.model.doubtful_until.is_none() {
            assert_eq!(frames, self.model.frames_of(written_count));
        }
        let is_doubtful = self.model.doubtful_until.is_some();
        self.found(log, frames, self.model.durable_count);
        // The next flush, which covers all that was found, ends that.
        self.model.doubtful_until = is_doubtful.then_some(0);
    }

    /// Cuts the power, and opens what is left.
    fn cut(&mut self) {
        if self.model.doubtful_until.is_some() {
            self.request_flush();
            self.complete_flushes();
        }
        let rng = &mut *self.rng;
        let mood = rng.below(3);
        let tears = rng.one_in(2);
        let choose = &mut |versions| match mood {
            0 if !rng.one_in(6) => 0,
            1 if !rng.one_in(6) => versions - 1,
            _ => rng.below(versions),
        };
        self.device = if tears { self.device.tear(choose) } else { self.device.crash(choose) };
        self.device.hold_flushes(true);
        let (log, frames, has_cut) = open(&self.device);
        self.has_cut = has_cut;
        let counts = self.model.durable_count..=self.model.written_count();
        let count = counts.clone().find(|count| frames == self.model.frames_of(*count));
        let count = count.unwrap_or_else(|| panic!("not a beginning of {counts:?} batches"));
        self.found(log, frames, count);
        if has_cut {
            // The block in which a torn tail begins is written again, and so can be torn again.
            let size = self.log.written_size();
            let size = size - size % BLOCK_SIZE as u64;
            let is_safe = |batch: &Batch| batch.ends_within(size);
            self.model.durable_count = self.model.batches.partition_point(is_safe);
        }
    }

    /// Takes what was found for what there is.
    fn found(&mut self, log: Log<CrashDisk>, frames: Vec<Frame>, durable_count: usize) {
        self.log = log;
        self.is_held = false;
        let appended = frames[self.model.state.len()..].iter();
        let mut batches = Vec::new();
        let known: Vec<usize> = self.model.batches.iter().map(|batch| batch.frames.len()).collect();
        let mut appended = appended.cloned();
        for count in known {
            let frames: Vec<Frame> = appended.by_ref().take(count).collect();
            if !frames.is_empty() {
                batches.push(Batch { number: 0, frames });
            }
        }
        assert_eq!(appended.next(), None);
        let state = std::mem::take(&mut self.model.state);
        self.model = Model { state, batches, durable_count, ..Model::default() };
    }

    /// What may happen while the log changes over.
    fn work_meanwhile(&mut self) {
        for _ in 0..self.rng.below(6) {
            match self.rng.below(8) {
                0..2 => self.commit(),
                2 => self.commit_parts(),
                3 => self.write(),
                4 if !self.is_held && self.rng.one_in(8) => self.write_in_vain(),
                5 => self.request_flush(),
                6 => self.complete_flushes(),
                _ => self.read_frame(),
            }
        }
    }

    /// Copies the frames that were written behind `from` since they were copied last.
    fn copy_tail(&mut self, from: &mut u64, places: &mut VecDeque<u64>) {
        let mut tail = Vec::new();
        let size = 1 + self.rng.below(4000);
        while *from < self.log.written_size() {
            let read = self.log.read_from(*from, u64::MAX, size, &mut |found, part| {
                tail.push((found.head, found.body.to_vec(), part));
            });
            *from = read.expect("a whole log");
        }
        for (head, body, part) in tail {
            places.push_back(self.log.copy_part(&head, &[&body], part).expect("room").frame);
        }
    }

    /// Copies some of what is there into the other file and goes over to it, or gives it up.
    fn change_over(&mut self) {
        self.settle();
        let point = self.model.batches.len();
        let mut from = self.log.written_size();
        self.log.begin_copy().expect("room");
        let share = 1 + self.rng.below(4);
        let kept = self.model.frames_of(point).into_iter();
        let kept: Vec<Frame> = kept.filter(|_| self.rng.one_in(share)).collect();
        let mut state = Vec::new();
        for frame in kept {
            let copied = self.log.copy(&frame.head, &[&frame.body]).expect("room");
            state.push(Frame { place: copied.frame, ..frame });
        }
        self.work_meanwhile();
        self.log.end_state().expect("room");
        let mut places = VecDeque::new();
        for _ in 0..self.rng.below(3) {
            self.work_meanwhile();
            self.copy_tail(&mut from, &mut places);
        }
        match self.rng.below(6) {
            0 => return self.log.abort_copy(),
            1 => return self.cut(),
            _ => self.write(),
        }
        self.log.hold();
        self.is_held = true;
        self.copy_tail(&mut from, &mut places);
        let id = self.log.flush_copy().expect("room");
        self.work_meanwhile();
        if self.rng.one_in(6) {
            return self.cut();
        }
        self.device.complete_flushes();
        assert_eq!(self.log.is_copy_flushed(id), Ok(true));
        let id = self.log.seal().expect("room");
        self.work_meanwhile();
        self.device.complete_flushes();
        assert_eq!(self.log.is_copy_flushed(id), Ok(true));
        self.switch(point, state, places);
    }

    fn switch(&mut self, point: usize, state: Vec<Frame>, mut places: VecDeque<u64>) {
        self.is_held = false;
        for frame in self.log.switch().expect("room") {
            places.push_back(self.log.push(&frame.head, &[&frame.body]).frame);
            if frame.ends_batch {
                self.log.commit();
            }
        }
        self.model.state = state;
        self.model.batches.drain(..point);
        for frame in self.model.batches.iter_mut().flat_map(|batch| &mut batch.frames) {
            frame.place = places.pop_front().expect("it was copied");
        }
        assert!(places.is_empty(), "{places:?}");
        self.device.complete_flushes();
        self.log.poll_flushed().expect("healthy");
        self.model.flushes.clear();
        self.model.durable = self.model.written;
        self.model.durable_count = self.model.written_count();
        self.model.doubtful_until = None;
    }

    fn step(&mut self) {
        // Twins are there to see what is taken for what after a failed write or a cut.
        let weights_end = if self.has_twins { 1100 } else { 1000 };
        match self.rng.below(weights_end) {
            0..310 => self.commit(),
            310..350 => self.commit_parts(),
            350..470 => self.write(),
            470..480 => self.write_in_vain(),
            480..580 => self.request_flush(),
            580..680 => self.complete_flushes(),
            680..990 => self.read_frame(),
            990..993 => self.replay(),
            993..996 => self.reopen(),
            1000..1050 => self.write_in_vain(),
            _ => self.cut(),
        }
        assert_eq!(self.log.committed(), BatchNumber(self.model.committed));
        assert_eq!(self.log.written(), BatchNumber(self.model.written));
        if self.log.size() > LOG_SIZE.max(2 * self.log.state_size()) {
            self.change_over();
        }
    }
}

#[test]
fn a_log_agrees_with_a_plain_model() {
    runs("model of the log", 20_000, |rng| {
        let mut scene = Scene::new(rng);
        for _ in 0..OPERATIONS {
            scene.step();
        }
        scene.settle();
        scene.replay();
        OPERATIONS
    });
}
