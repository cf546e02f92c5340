//! A store at rest that was damaged: bits flipped, tails cut.
//!
//! Whatever became of its bytes, a store is refused with a typed error, or answers with what was
//! once true; if neither a cut tail nor damage was reported, with what is true now.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidelog_disk::{BLOCK_SIZE, CrashDevice, Disk, StoreFiles};
use tidelog_journal::{Found, Log, Seed, Witness};
use tidelog_pages::{
    Append, AppendError, DamageReport, OpenError, PageServer, RecoveryReport, StoreOptions,
    StoreReply, StoreRequest, Ticket,
};
use tidelog_types::limits::Limits;
use tidelog_types::{BudgetLimits, DocumentKey, Position};

use tidelog_testing::store::{
    Answer, Model, ModelDocument, OWNER, Run, Server, ask, files, plain, run_with, seed, settle,
    try_observe,
};

/// Bytes of log that the store to be damaged has.
const LOG_SIZE: Range<u64> = 64 * 1024..68 * 1024;
/// Bytes of log at which it would change over.
const CHANGE_OVER_SIZE: u64 = 80 * 1024;
/// Where the second copy of a header stands in any file, and how long each is.
const HEADER_COPY_AT: u64 = 4096;
const HEADER_SIZE: u64 = 512;
/// One bit in so many of it is flipped.
const HEADER_BITS_STEP: usize = 31;
/// Where a header says how far the copied state goes, and how far all was flushed when it was
/// written.
const STATE_END_AT: usize = 24;
const DURABLE_AT: usize = 32;
/// What a frame says in which a document begins, and is forgotten.
const KIND_DOCUMENT: u8 = 2;
const KIND_DESTROY: u8 = 3;
/// How often a document is destroyed and made again at most, until the log says so.
const AGAIN_MAX: u32 = 8;
/// Frames at whose every byte the log is cut.
const TAIL_FRAMES: usize = 3;

/// What was made of a damaged store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answers as if nothing had happened.
    Whole,
    /// It was opened, and a torn tail or damage was reported, or a document refused.
    Reported,
    /// It was refused with a typed error.
    Refused,
}

/// How often it came out how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// As if nothing had happened.
    pub whole: u64,
    /// Opened, and reported.
    pub reported: u64,
    /// Refused.
    pub refused: u64,
}

impl Tally {
    /// Counts one.
    pub fn note(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Whole => self.whole += 1,
            Outcome::Reported => self.reported += 1,
            Outcome::Refused => self.refused += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { whole, reported, refused } = self;
        write!(f, "{whole} harmless, {reported} reported, {refused} refused")
    }
}

/// A store at rest, and what it may answer.
pub struct Rest {
    device: CrashDevice,
    /// The states that each document has ever had, the last one last.
    states: BTreeMap<DocumentKey, Vec<Option<ModelDocument>>>,
    /// The log file that is appended to, and its size up to the end.
    active: &'static str,
    size: u64,
    /// Where the last frames of it begin.
    tail: u64,
    /// Where the bodies of its frames lie.
    bodies: Vec<Range<u64>>,
    again: Option<Again>,
    /// Says how many bytes were ever allocated.
    total_allocated: fn() -> usize,
    /// Bytes that may be allocated while one image is opened and read, one after the other.
    allowed: usize,
}

impl Rest {
    /// A store whose log has some 64 KiB, with copied state in it. `total_allocated` counts all
    /// bytes that were ever allocated: what an image makes it grow by, no single allocation can
    /// pass. More than the undamaged store takes and twice its log is too much.
    ///
    /// # Panics
    ///
    /// If no script makes one.
    #[must_use]
    pub fn new(total_allocated: fn() -> usize) -> Self {
        let (mut run, options) = Self::long_run();
        note_at_the_end(&mut run, options);
        Self::of(run, total_allocated)
    }

    /// A store whose log says that a document was destroyed, and another one made of its name.
    ///
    /// # Panics
    ///
    /// If no script makes one.
    #[must_use]
    pub fn made_again(total_allocated: fn() -> usize) -> Self {
        let (mut run, options) = Self::long_run();
        // There may be so much less then that the log changes over, and has it no more.
        let found = (0..AGAIN_MAX).find_map(|_| {
            let key = make_again(&mut run, options);
            note_at_the_end(&mut run, options);
            Again::find(key, &run)
        });
        let again = Some(found.expect("a log that says so"));
        Self { again, ..Self::of(run, total_allocated) }
    }

    /// A store whose log has just changed over: what was appended meanwhile is durable by what the
    /// header says, and nothing else says so.
    ///
    /// # Panics
    ///
    /// If no script makes one.
    #[must_use]
    pub fn changed_over(total_allocated: fn() -> usize) -> Self {
        let limits = Limits {
            slice: BudgetLimits { pages: 1, bytes: 4096, ..Limits::DEFAULT.slice },
            ..Limits::DEFAULT
        };
        let options = StoreOptions { log_size_max: 16 * 1024, limits, ..StoreOptions::default() };
        let fits = |run: &Run| {
            let Some((active, size, _)) = Self::log_of(&run.device) else { return false };
            let (state_end, durable) = sealed(&run.device, active);
            state_end < durable && durable.next_multiple_of(BLOCK_SIZE as u64) == size
        };
        Self::of(Self::run_that(fits, options), total_allocated)
    }

    fn long_run() -> (Run, StoreOptions) {
        let options = StoreOptions {
            log_size_max: CHANGE_OVER_SIZE,
            pool_pages_max: 8,
            ..StoreOptions::default()
        };
        let fits = |run: &Run| {
            let log = Self::log_of(&run.device);
            log.is_some_and(|(_, size, _)| LOG_SIZE.contains(&size))
        };
        (Self::run_that(fits, options), options)
    }

    fn run_that(fits: impl Fn(&Run) -> bool, options: StoreOptions) -> Run {
        let runs = (20..80).map(|turns| run_with(CrashDevice::new(), 7, turns, options));
        runs.into_iter().find(fits).expect("a script that ends with such a log")
    }

    fn of(run: Run, total_allocated: fn() -> usize) -> Self {
        let (active, size, frames) = Self::log_of(&run.device).expect("a log");
        let tail = frames[frames.len() - TAIL_FRAMES].frame;
        let bodies = frames.into_iter().map(|frame| frame.body).collect();
        let mut states: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let last = &run.history.last().expect("the empty state").1;
        for key in run.history.iter().flat_map(|(_, model)| model.0.keys()) {
            states.entry(key.clone()).or_default();
        }
        for (_, model) in &run.history {
            let model = plain(model);
            states.iter_mut().for_each(|(key, of_key)| of_key.push(model.0.get(key).cloned()));
        }
        assert!(last.0.len() > 2, "several documents");
        let allowed = usize::MAX;
        let device = run.device;
        let again = None;
        let mut rest =
            Self { device, states, active, size, tail, bodies, again, total_allocated, allowed };
        let before = total_allocated();
        assert_eq!(rest.untouched(), Ok(Outcome::Whole));
        let log = usize::try_from(size).expect("BUG: a small log");
        rest.allowed = total_allocated() - before + 2 * log;
        rest
    }

    /// The active file, where its log ends, and its frames.
    fn log_of(device: &CrashDevice) -> Option<(&'static str, u64, Vec<FrameAt>)> {
        let image = device.crash(&mut |versions| versions - 1);
        let store = files(&image);
        let mut frames = Vec::new();
        let logs = [store.log_a, store.log_b];
        let (log, report) = Log::recover(logs, Witness::Used, Seed(0), 0, &mut |found| {
            if let Found::Frame(frame) = found {
                let body = frame.place.body..frame.place.body + frame.body.len() as u64;
                frames.push(FrameAt { frame: frame.place.frame, kind: frame.head.kind, body });
            }
            Ok(())
        })
        .ok()?;
        let name = if log.active().to_string() == "log-a" { "log-a" } else { "log-b" };
        let is_long = report.generation > 1 && frames.len() > TAIL_FRAMES;
        is_long.then_some((name, report.size, frames))
    }

    /// Bits of the log.
    #[must_use]
    pub fn bits(&self) -> u64 {
        self.size * 8
    }

    /// Bytes of the log.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Sizes at which the log is cut off: at every byte of its last frames.
    #[must_use]
    pub fn tail_sizes(&self) -> Range<u64> {
        self.tail..self.size
    }

    /// Files beside the log in which bits can be flipped, with their bits.
    #[must_use]
    pub fn other_files(&self) -> Vec<(&'static str, u64)> {
        let names = ["log-a", "log-b", "pages"].into_iter().filter(|name| *name != self.active);
        names.map(|name| (name, self.device.file(name).size() * 8)).collect()
    }

    /// The store as it is.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn untouched(&self) -> Result<Outcome, String> {
        self.judge(&self.image(), Allowed::default())
    }

    /// With one bit of the log flipped.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn flip(&self, bit: u64) -> Result<Outcome, String> {
        let is_in_body = self.bodies.iter().any(|body| body.contains(&(bit / 8)));
        let doubtful_max = if is_in_body { 1 } else { usize::MAX };
        let image = self.image();
        flip(&image, self.active, bit)?;
        let is_all_durable = self.is_of_a_frame(bit);
        let begun = self.again.as_ref().map(|again| &again.begun);
        let knows_again = begun.is_some_and(|begun| !begun.contains(&(bit / 8)));
        let allowed = Allowed { doubtful_max, is_all_durable, knows_again, ..Allowed::default() };
        match self.judge(&image, allowed)? {
            Outcome::Refused => Err("all is lost for one bit of a log".to_owned()),
            outcome => Ok(outcome),
        }
    }

    /// With each bit flipped in turn, of every so many, of what says that a document was destroyed
    /// whose name another one has since.
    ///
    /// # Errors
    ///
    /// What does not hold of the first that fails.
    pub fn flip_destruction(&self, step: usize) -> Result<Tally, String> {
        let mut tally = Tally::default();
        let Some(Again { destroyed, .. }) = &self.again else { return Ok(tally) };
        for bit in (destroyed.start * 8..destroyed.end * 8).step_by(step) {
            let outcome = self.flip(bit);
            tally.note(outcome.map_err(|what| format!("bit {bit} of a destruction: {what}"))?);
        }
        Ok(tally)
    }

    /// A mark at the end of the log says that all frames are durable. Between them and the mark
    /// stands nothing.
    fn is_of_a_frame(&self, bit: u64) -> bool {
        bit / 8 < self.bodies.last().map_or(0, |body| body.end)
    }

    /// With each bit of the last batches flipped in turn, as of a store that was never at rest:
    /// nothing says that they were durable, so they may look like a torn tail, which is reported.
    ///
    /// # Errors
    ///
    /// What does not hold of the first that fails.
    pub fn flip_unmarked(&self, step: usize) -> Result<Tally, String> {
        let mut tally = Tally::default();
        for bit in (self.tail * 8..self.size * 8).step_by(step) {
            let image = self.image();
            // The mark stands where the next batch would.
            let erased = image.file(self.active).write_at(self.size, &[0; 8]);
            erased.map_err(|error| error.to_string())?;
            flip(&image, self.active, bit)?;
            let outcome = self.judge(&image, Allowed::default());
            tally.note(outcome.map_err(|what| format!("bit {bit} without a mark: {what}"))?);
        }
        Ok(tally)
    }

    /// With each bit flipped in turn that was flushed with the header, behind the copied state.
    /// Nothing of it was torn, though no mark says so.
    ///
    /// # Errors
    ///
    /// What does not hold of the first that fails.
    pub fn flip_sealed(&self, step: usize) -> Result<Tally, String> {
        let mut tally = Tally::default();
        let (state_end, durable) = sealed(&self.device, self.active);
        for bit in (state_end * 8..durable * 8).step_by(step) {
            let image = self.image();
            let erased = image.file(self.active).write_at(self.size, &[0; 8]);
            erased.map_err(|error| error.to_string())?;
            flip(&image, self.active, bit)?;
            let judged = self.judge(&image, Allowed { is_all_durable: true, ..Allowed::default() });
            tally.note(judged.map_err(|what| format!("bit {bit} that was sealed: {what}"))?);
        }
        Ok(tally)
    }

    /// With one bit of the log flipped, each in turn of every so many.
    ///
    /// # Errors
    ///
    /// What does not hold of the first that fails.
    pub fn flip_each(&self, step: usize) -> Result<Tally, String> {
        let mut tally = Tally::default();
        for bit in (0..self.bits()).step_by(step) {
            tally.note(self.flip(bit).map_err(|what| format!("bit {bit}: {what}"))?);
        }
        Ok(tally)
    }

    /// With two bits of the log flipped that lie far apart, each in turn of every so many.
    ///
    /// # Errors
    ///
    /// What does not hold of the first that fails.
    pub fn flip_pairs(&self, step: usize) -> Result<Tally, String> {
        let mut tally = Tally::default();
        for bit in (0..self.bits()).step_by(step) {
            let image = self.image();
            flip(&image, self.active, bit)?;
            let another = (bit + self.bits() / 3) % self.bits();
            flip(&image, self.active, another)?;
            let is_all_durable = self.is_of_a_frame(bit) && self.is_of_a_frame(another);
            let judged = self.judge(&image, Allowed { is_all_durable, ..Allowed::default() });
            tally.note(judged.map_err(|what| format!("bit {bit} and another: {what}"))?);
        }
        Ok(tally)
    }

    /// With one bit of a file flipped.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn flip_in(&self, name: &str, bit: u64) -> Result<Outcome, String> {
        let image = self.image();
        flip(&image, name, bit)?;
        self.judge(&image, Allowed::default())
    }

    /// Without one of its files.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn lose(&self, name: &str) -> Result<Outcome, String> {
        let image = self.image();
        image.lose(name);
        self.judge(&image, Allowed::default())
    }

    /// With one of the two copies of a file's header damaged, by every few bits of it. Nothing
    /// comes of that: the other copy is whole.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn flip_headers(&self) -> Result<Tally, String> {
        let mut tally = Tally::default();
        let names = StoreFiles::<()>::NAMES.into_iter().take(3);
        for (name, copy) in names.flat_map(|name| [(name, 0), (name, HEADER_COPY_AT)]) {
            for bit in (copy * 8..(copy + HEADER_SIZE) * 8).step_by(HEADER_BITS_STEP) {
                if bit / 8 >= self.device.file(name).size() {
                    break;
                }
                let outcome = self.flip_in(name, bit);
                let outcome = outcome.map_err(|what| format!("bit {bit} of {name}: {what}"))?;
                if outcome != Outcome::Whole {
                    return Err(format!("bit {bit} of {name}: a lost copy is {outcome:?}"));
                }
                tally.note(outcome);
            }
        }
        Ok(tally)
    }

    /// With the log cut off at this size.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn cut_off(&self, size: u64) -> Result<Outcome, String> {
        let image = self.image();
        image.file(self.active).set_size(size).map_err(|error| error.to_string())?;
        // A log that ends between two batches looks like one that was never longer.
        self.judge(&image, Allowed { may_be_earlier: true, ..Allowed::default() })
    }

    fn image(&self) -> CrashDevice {
        self.device.crash(&mut |versions| versions - 1)
    }

    fn judge(&self, image: &CrashDevice, allowed: Allowed) -> Result<Outcome, String> {
        let files_before = written(image);
        let judged = catch_unwind(AssertUnwindSafe(|| {
            let Some((mut server, report, answers)) = self.open_and_read(image)? else {
                return Ok((Outcome::Refused, true));
            };
            let was_told = report.cut.is_some() || report.damage.is_some();
            if allowed.is_all_durable && report.cut.is_some() && report.damage.is_none() {
                return Err(format!("rot is taken for a torn tail: {:?}", report.cut));
            }
            let believed = match &report.damage {
                Some(damage) => {
                    check_report(damage, &answers)?;
                    self.check_doubtful(&answers, allowed.doubtful_max)?;
                    refuses_appends(&mut server, image)?;
                    Believed::UnlessIncomplete
                }
                None if report.cut.is_some() || allowed.may_be_earlier => Believed::Earlier,
                None => Believed::Latest,
            };
            let outcome = self.compare(&answers, believed, allowed.knows_again)?;
            let outcome = if was_told { Outcome::Reported } else { outcome };
            Ok((outcome, report.damage.is_some()))
        }));
        let (outcome, is_damaged) = judged.unwrap_or_else(|_| Err("it panicked".to_owned()))?;
        if is_damaged && written(image) != files_before {
            return Err("a damaged store was written to".to_owned());
        }
        Ok(outcome)
    }

    /// `None` if the store is refused.
    fn open_and_read(&self, image: &CrashDevice) -> Result<Option<Read>, String> {
        let before = (self.total_allocated)();
        let read = match PageServer::open(files(image), seed(image)) {
            Ok((mut server, report)) => {
                let answers = try_observe(&mut server, image);
                Some((server, report, answers))
            }
            Err(OpenError::Disk(error)) => return Err(format!("the disk is sound: {error}")),
            Err(_) => None,
        };
        let taken = (self.total_allocated)() - before;
        if taken > self.allowed {
            return Err(format!("{taken} bytes allocated, of {} allowed", self.allowed));
        }
        Ok(read)
    }

    /// Damage to the body of one frame is no harm to other documents than its own.
    fn check_doubtful(
        &self,
        answers: &BTreeMap<DocumentKey, Answer>,
        doubtful_max: usize,
    ) -> Result<(), String> {
        let incomplete = answers.values().filter(|answer| answer.is_incomplete).count();
        let is_there = |states: &[Option<ModelDocument>]| states[states.len() - 1].is_some();
        let gone = self
            .states
            .iter()
            .filter(|(key, states)| is_there(states) && !answers.contains_key(*key));
        let doubtful = incomplete + gone.count();
        if doubtful > doubtful_max {
            return Err(format!("{doubtful} documents in doubt, of {doubtful_max} allowed"));
        }
        Ok(())
    }

    fn compare(
        &self,
        answers: &BTreeMap<DocumentKey, Answer>,
        believed: Believed,
        knows_again: bool,
    ) -> Result<Outcome, String> {
        let mut outcome = Outcome::Whole;
        if let Some(unknown) = answers.keys().find(|key| !self.states.contains_key(*key)) {
            return Err(format!("an invented document: {unknown:?}"));
        }
        for (key, states) in &self.states {
            let (document, is_incomplete) = match answers.get(key) {
                Some(Answer { document: None, .. }) => {
                    outcome = Outcome::Reported;
                    continue;
                }
                Some(Answer { document, is_incomplete }) => (document.as_ref(), *is_incomplete),
                // Its name may be among what is lost.
                None => (None, believed == Believed::UnlessIncomplete),
            };
            let latest = &states[states.len() - 1..];
            let again = self.again.as_ref().filter(|again| again.key == *key);
            let known = match again {
                _ if !is_incomplete && believed != Believed::Earlier => latest,
                // Whatever had the name before is gone.
                Some(again) => &states[again.since - usize::from(!knows_again)..],
                None => states,
            };
            let is_known = |state: &Option<ModelDocument>| match (state, document) {
                (Some(state), Some(document)) if is_incomplete => is_part(document, state),
                (state, document) => state.as_ref() == document,
            };
            if !known.iter().any(is_known) {
                return Err(format!("a wrong answer about {key:?}, {believed:?}: {document:?}"));
            }
        }
        Ok(outcome)
    }
}

/// Appends two batches of one frame each, of two documents: the last one says that the one before
/// it is durable, and no other says that it was ever there itself.
fn note_at_the_end(run: &mut Run, options: StoreOptions) {
    let opened = PageServer::open_with(files(&run.device), seed(&run.device), options);
    let mut server = opened.expect("a sound store").0;
    let (mut last, mut model) = run.history.last().expect("the empty state").clone();
    let documents: Vec<DocumentKey> = model.0.keys().take(2).cloned().collect();
    for document in documents.into_iter().rev() {
        last = Ticket(last.0 + 1);
        let append = Append { record: Some(vec![7; 40].into()), ..Append::to(document) };
        let request = StoreRequest::Append { ticket: last, append };
        model.apply(&request);
        run.history.push((last, model.clone()));
        server.serve(OWNER, request);
        server.flush();
        settle(&mut server, &run.device);
    }
    server.mark_durable();
    server.flush();
    settle(&mut server, &run.device);
}

/// Destroys a document and makes another one of that name, which has one more thing to say. Gives
/// the name.
fn make_again(run: &mut Run, options: StoreOptions) -> DocumentKey {
    let opened = PageServer::open_with(files(&run.device), seed(&run.device), options);
    let mut server = opened.expect("a sound store").0;
    let (mut ticket, mut model) = run.history.last().expect("the empty state").clone();
    let document = model.0.keys().next_back().expect("a document").clone();
    let note = |byte| {
        let record = Some(vec![byte; 40].into());
        Some(Append { record, ..Append::to(document.clone()) })
    };
    for append in [None, note(8), note(9)] {
        ticket = Ticket(ticket.0 + 1);
        let request = match append {
            Some(append) => StoreRequest::Append { ticket, append },
            None => StoreRequest::Destroy { ticket, document: document.clone() },
        };
        model.apply(&request);
        run.history.push((ticket, model.clone()));
        server.serve(OWNER, request);
        server.flush();
        settle(&mut server, &run.device);
    }
    document
}

/// A document whose name another one had before, which was destroyed.
struct Again {
    key: DocumentKey,
    /// The first of the states of that name that is one of it.
    since: usize,
    /// The frame that says that the other one is destroyed.
    destroyed: Range<u64>,
    /// The write in which it begins: what is lost of that takes its name with it.
    begun: Range<u64>,
}

impl Again {
    /// `None` where the log does not say so.
    fn find(key: DocumentKey, run: &Run) -> Option<Self> {
        let is_absent = |(_, model): &(Ticket, Model)| !model.0.contains_key(&key);
        let since = 1 + run.history.iter().rposition(is_absent).expect("it was destroyed");
        let (_, _, frames) = Rest::log_of(&run.device)?;
        let range = |at: &FrameAt| at.frame..at.body.end;
        let is_begin = |at: &FrameAt| at.kind == KIND_DOCUMENT;
        let destroyed = frames.iter().rfind(|it| it.kind == KIND_DESTROY).map(range)?;
        let (before, behind) = frames.split_at(1 + frames.iter().rposition(is_begin)?);
        let next = behind.iter().find(|it| it.frame.is_multiple_of(BLOCK_SIZE as u64))?;
        let begun = before.last()?.frame..next.frame;
        (destroyed.end <= begun.start).then_some(Self { key, since, destroyed, begun })
    }
}

/// Where a frame lies, and what it says.
struct FrameAt {
    frame: u64,
    kind: u8,
    body: Range<u64>,
}

/// What is no fault of a store that was damaged in some way.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    /// It cannot know that it was ever longer.
    may_be_earlier: bool,
    /// Documents that are incomplete, or whose names are lost.
    doubtful_max: usize,
    /// Nothing of it was torn, and it knows that.
    is_all_durable: bool,
    /// It has what says that a document began anew.
    knows_again: bool,
}

impl Default for Allowed {
    fn default() -> Self {
        Self {
            may_be_earlier: false,
            doubtful_max: usize::MAX,
            is_all_durable: false,
            knows_again: false,
        }
    }
}

/// Where the copied state of a log ends, and what was flushed when its header was written.
fn sealed(device: &CrashDevice, active: &str) -> (u64, u64) {
    let bytes = device.bytes_of(active).expect("the log is there");
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    (number(STATE_END_AT), number(DURABLE_AT))
}

fn flip(image: &CrashDevice, name: &str, bit: u64) -> Result<(), String> {
    let mut file = image.file(name);
    let mut byte = [0];
    file.read_at(bit / 8, &mut byte).map_err(|error| error.to_string())?;
    byte[0] ^= 1 << (bit % 8);
    file.write_at(bit / 8, &byte).map_err(|error| error.to_string())
}

/// What a store says of itself decides what may be believed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Believed {
    /// Each document is as it was last.
    Latest,
    /// Each is as it was at some time.
    Earlier,
    /// Each is as it was last, but for those that say that they are not.
    UnlessIncomplete,
}

/// Whether a document that says that it is incomplete is part of what it once was: what it says at
/// all is true, and of its timeline the beginning is there.
fn is_part(document: &ModelDocument, state: &ModelDocument) -> bool {
    let ModelDocument { record, timeline, storage, db_pages, calls, pages } = document;
    let is_timeline = match (timeline, &state.timeline) {
        (None, _) => true,
        (Some((journal, start, frames)), Some((known_journal, known_start, known))) => {
            (journal, start) == (known_journal, known_start) && known.starts_with(frames)
        }
        (Some(_), None) => false,
    };
    let is_storage = match (storage, &state.storage) {
        (None, _) => *db_pages == 0 && pages.is_empty(),
        (Some(at), Some(known)) if *at == Position::start_of(known.journal) => *db_pages == 0,
        (Some(at), Some(known)) => at == known && *db_pages == state.db_pages,
        (Some(_), None) => false,
    };
    let is_page = |(pgid, page)| state.pages.get(pgid) == Some(page);
    let is_record = record.is_empty() || *record == state.record;
    let is_calls = state.calls.starts_with(calls);
    is_record && is_timeline && is_storage && is_calls && pages.iter().all(is_page)
}

/// The report says where, and which documents.
fn check_report(
    damage: &DamageReport,
    answers: &BTreeMap<DocumentKey, Answer>,
) -> Result<(), String> {
    if damage.places.is_empty() {
        return Err("damage without a place".to_owned());
    }
    let said: Vec<_> = answers.iter().filter(|(_, answer)| answer.is_incomplete).collect();
    let named: Vec<_> = said.iter().map(|(key, _)| (*key).clone()).collect();
    if named != damage.incomplete {
        return Err(format!("{named:?} are incomplete, and {:?} reported", damage.incomplete));
    }
    Ok(())
}

/// What was read of a damaged store.
type Read = (Server, RecoveryReport, BTreeMap<DocumentKey, Answer>);

/// The log, and how much else has been written.
fn written(image: &CrashDevice) -> ([Option<Vec<u8>>; 2], u64) {
    (["log-a", "log-b"].map(|name| image.bytes_of(name)), image.file("pages").size())
}

/// Nothing is written to a damaged store.
fn refuses_appends(server: &mut Server, image: &CrashDevice) -> Result<(), String> {
    let document = DocumentKey::new("document-0", "").expect("a good name");
    // Of nothing there is nothing to refuse.
    let record = Some(b"of a later day".to_vec().into());
    let append = Append { record, ..Append::to(document) };
    let mut replies = ask(server, image, StoreRequest::Append { ticket: Ticket(1), append });
    server.flush();
    replies.extend(settle(server, image));
    let is_refused = |reply: &StoreReply| {
        matches!(reply, StoreReply::AppendFailed { error: AppendError::Damaged, .. })
    };
    if !replies.iter().all(is_refused) || replies.is_empty() {
        return Err(format!("an append to a damaged store: {replies:?}"));
    }
    Ok(())
}
