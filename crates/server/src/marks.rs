//! Which mutation was being run when the server died.
//!
//! A mutation that kills the process is sent again by its client, and would kill the next one. So
//! there is a file beside the store that says whether the server that wrote it was stopped. If
//! not, the next server is *careful* for a while: it runs one thing at a time, and names it in the
//! file, flushed, before it does. What two servers died of is not run a third time. One death alone
//! says little: somebody may have killed the server while something innocent was being run.
//!
//! A flush may take far longer than what is run after it, so most of those who are killed by
//! somebody are killed there. That it is being run is therefore said once more behind the flush,
//! and without another: whoever dies leaves to the system what it has written. If the machine dies
//! as well, the name alone is left, and tells less.
//!
//! A server that was stopped is followed by one that names nothing: so no mutation costs a second
//! flush but after a crash.
//!
//! The file is one line of JSON, and whatever is left behind it of a longer line before. A power
//! cut can tear it: then nothing is known but that the server was not stopped.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidelog_room::{Caution, Suspect};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use tracing::{error, warn};

const FILE_NAME: &str = "marks";
/// How long a server is careful. Clients come back within seconds.
const CAREFUL_FOR: Duration = Duration::from_secs(120);
/// What a death tells about what was being run, or was only named.
const POINTS_OF_RUN: u32 = 3;
const POINTS_OF_NAME: u32 = 1;
/// What so much was told about is not run again.
const POINTS_MAX: u32 = 2 * POINTS_OF_RUN;
/// How many deaths are remembered; the oldest are forgotten first.
const DEATHS_KEPT_MAX: usize = 64;

/// The marks of one server.
pub(crate) struct Marks {
    careful_until: Instant,
    has_condemned: bool,
    turns: Turns,
    notes: Mutex<Notes>,
}

struct Notes {
    /// `None` if it cannot be used: nothing is marked then.
    file: Option<File>,
    written: Written,
    /// What the file names for certain, whatever happens to the machine.
    flushed: Option<Suspect>,
}

/// What stands in the file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Written {
    /// Whether the server that wrote it was stopped.
    is_stopped: bool,
    /// What is about to be run, or is.
    named: Option<Suspect>,
    is_running: bool,
    /// Oldest first.
    deaths: Vec<Death>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Death {
    suspect: Suspect,
    points: u32,
}

impl Death {
    fn condemns(&self) -> bool {
        self.points >= POINTS_MAX
    }
}

impl Written {
    /// What a server has to know that comes after the one that wrote this.
    fn inherited(mut self) -> Self {
        let was_running = std::mem::take(&mut self.is_running);
        if let Some(suspect) = self.named.take() {
            error!(%suspect, was_running, "the server died when it was at this");
            let points = if was_running { POINTS_OF_RUN } else { POINTS_OF_NAME };
            match self.deaths.iter_mut().find(|death| death.suspect == suspect) {
                Some(death) => death.points += points,
                None => self.deaths.push(Death { suspect, points }),
            }
        }
        let oldest = self.deaths.len().saturating_sub(DEATHS_KEPT_MAX);
        self.deaths.drain(..oldest);
        self
    }
}

impl Marks {
    /// Reads what the last server in this folder has left, and says that there is another one.
    pub(crate) fn open(folder: &Path) -> Self {
        Self::open_for(folder, CAREFUL_FOR)
    }

    fn open_for(folder: &Path, careful_for: Duration) -> Self {
        let (file, before) = match open_file(folder) {
            Ok((file, before)) => (Some(file), before),
            Err(error) => {
                warn!(%error, "what crashes the server cannot be marked");
                (None, Written { is_stopped: true, ..Written::default() })
            }
        };
        let mut careful_until = Instant::now();
        if !before.is_stopped {
            warn!("the server was not stopped: for a while, it runs one mutation at a time");
            careful_until += careful_for;
        }
        let written = Written { is_stopped: false, ..before.inherited() };
        let has_condemned = written.deaths.iter().any(Death::condemns);
        let mut notes = Notes { file, written, flushed: None };
        notes.write(true);
        Self { careful_until, has_condemned, turns: Turns::default(), notes: Mutex::new(notes) }
    }

    /// The server is stopped, and was not killed by anything, what is being run among it.
    pub(crate) fn close(&self) {
        let mut notes = self.notes();
        notes.written.is_stopped = true;
        notes.written.named = None;
        notes.written.is_running = false;
        notes.written.deaths.retain(Death::condemns);
        notes.write(true);
    }

    fn is_careful(&self) -> bool {
        Instant::now() < self.careful_until
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caution for Marks {
    fn run(&self, suspect: &dyn Fn() -> Suspect, run: &mut dyn FnMut()) -> bool {
        let is_careful = self.is_careful();
        if !self.has_condemned && !is_careful {
            run();
            return true;
        }
        let suspect = suspect();
        let condemns = |death: &Death| death.condemns() && death.suspect == suspect;
        let is_condemned = self.notes().written.deaths.iter().any(condemns);
        if is_condemned {
            warn!(%suspect, "not run: the server died each time");
            return false;
        }
        // Whoever else wants to run something comes next, once this has its name no more.
        let _turn = is_careful.then(|| self.turns.enter());
        let _marked = is_careful.then(|| Marked::new(self, suspect));
        run();
        true
    }
}

/// One at a time, in the order in which they came: with a mutex alone, a document with much to do
/// would keep all others waiting.
#[derive(Default)]
struct Turns {
    /// The number that the next one draws, and the one whose turn it is.
    numbers: Mutex<(u64, u64)>,
    moved_on: Condvar,
}

struct Turn<'t>(&'t Turns);

impl Turns {
    fn enter(&self) -> Turn<'_> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let own = numbers.0;
        numbers.0 += 1;
        let is_next = numbers.1 == own;
        drop(numbers);
        if !is_next {
            giving_way(|| self.wait_for(own));
        }
        Turn(self)
    }

    fn wait_for(&self, own: u64) {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        while numbers.1 != own {
            numbers = self.moved_on.wait(numbers).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Waits for something, on a thread that others use as well: what they have to do is done by
/// another one meanwhile.
fn giving_way(wait: impl FnOnce()) {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(wait),
        _ => wait(),
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.numbers.lock().unwrap_or_else(PoisonError::into_inner).1 += 1;
        self.0.moved_on.notify_all();
    }
}

/// While it is there, the file names what is run, unless the server is being stopped: that waits
/// for nobody. A panic ends a room, and not the process.
struct Marked<'m>(&'m Marks);

impl<'m> Marked<'m> {
    fn new(marks: &'m Marks, suspect: Suspect) -> Self {
        let mut notes = marks.notes();
        if !notes.written.is_stopped {
            let is_new = notes.flushed.as_ref() != Some(&suspect);
            notes.written.named = Some(suspect);
            notes.write(is_new);
            notes.written.is_running = true;
            notes.write(false);
        }
        Self(marks)
    }
}

impl Drop for Marked<'_> {
    fn drop(&mut self) {
        let mut notes = self.0.notes();
        if !notes.written.is_stopped {
            notes.written.named = None;
            notes.written.is_running = false;
            notes.write(false);
        }
    }
}

impl Notes {
    /// Writes the file anew. What cannot be marked is run all the same.
    fn write(&mut self, is_flushed: bool) {
        let Some(file) = &mut self.file else { return };
        match write(file, &self.written, is_flushed) {
            Ok(()) if is_flushed => self.flushed = self.written.named.clone(),
            Ok(()) => {}
            Err(error) => warn!(%error, "what is run could not be marked"),
        }
    }
}

fn write(file: &mut File, written: &Written, is_flushed: bool) -> io::Result<()> {
    let mut line = serde_json::to_vec(written)?;
    line.push(b'\n');
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&line)?;
    if is_flushed { file.sync_data() } else { Ok(()) }
}

/// The file, made if it is not there, and what stands in it.
fn open_file(folder: &Path) -> io::Result<(File, Written)> {
    let path = folder.join(FILE_NAME);
    let is_new = !path.exists();
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if is_new {
        if cfg!(unix) {
            File::open(folder)?.sync_all()?;
        }
        return Ok((file, Written { is_stopped: true, ..Written::default() }));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok((file, serde_json::from_slice(line).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    fn suspect(number: u64) -> Suspect {
        Suspect { document: "list".to_owned(), what: format!("frame {number}") }
    }

    /// Runs it, or is denied it.
    fn run(marks: &Marks, number: u64) -> bool {
        let mut is_run = false;
        let answer = marks.run(&|| suspect(number), &mut || is_run = true);
        assert_eq!(answer, is_run);
        is_run
    }

    /// The server dies while it runs this.
    fn die(folder: &Path, number: u64) {
        let marks = Marks::open(folder);
        marks.run(&|| suspect(number), &mut || {
            let left = folder.with_extension("left");
            std::fs::copy(folder.join(FILE_NAME), left).expect("copied");
        });
        drop(marks);
        std::fs::rename(folder.with_extension("left"), folder.join(FILE_NAME)).expect("as it was");
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn named(folder: &Path) -> String {
        std::fs::read_to_string(folder.join(FILE_NAME)).expect("text")
    }

    #[test]
    fn what_two_careful_servers_died_of_is_not_run_again() {
        let folder = folder();
        let folder = folder.path();
        for _ in 0..2 {
            assert!(run(&Marks::open(folder), 1), "it is not known to be bad");
            die(folder, 1);
        }
        let marks = Marks::open(folder);
        assert!(!run(&marks, 1));
        assert!(run(&marks, 2), "the others are run");
        marks.close();
        let marks = Marks::open(folder);
        assert!(!run(&marks, 1), "never again");
        assert!(run(&marks, 2));
    }

    /// The machine dies while this is run: what was not flushed is lost.
    fn lose_power(folder: &Path, number: u64) {
        die(folder, number);
        let line = named(folder).replace("\"is_running\":true", "\"is_running\":false");
        std::fs::write(folder.join(FILE_NAME), line).expect("written");
    }

    #[test]
    fn what_was_named_alone_tells_less() {
        let folder = folder();
        let folder = folder.path();
        for _ in 0..5 {
            assert!(run(&Marks::open(folder), 1));
            lose_power(folder, 1);
        }
        assert!(run(&Marks::open(folder), 1));
        lose_power(folder, 1);
        assert!(!run(&Marks::open(folder), 1), "but it tells something");
    }

    #[test]
    fn something_innocent_survives_that_the_server_is_killed() {
        let folder = folder();
        let folder = folder.path();
        for number in 0..20 {
            die(folder, number);
        }
        let marks = Marks::open(folder);
        assert!((0..20).all(|number| run(&marks, number)));
    }

    #[test]
    fn nothing_is_named_behind_a_server_that_was_stopped() {
        let folder = folder();
        let folder = folder.path();
        Marks::open(folder).close();
        let marks = Marks::open(folder);
        marks.run(&|| panic!("nobody asks for its name"), &mut || {
            assert!(!named(folder).contains("frame 1"));
        });
        drop(marks);
        let marks = Marks::open(folder);
        let seen = |number| {
            let mut line = String::new();
            marks.run(&|| suspect(number), &mut || line = named(folder));
            line
        };
        assert!(seen(1).contains("frame 1"), "and behind one that was not, it is");
        assert!(seen(2).contains("frame 2"));
        assert!(!named(folder).lines().next().expect("a line").contains("frame"));
    }

    /// Goal: a careful server stops in time, and blames nothing. Method: it is stopped while
    /// something is run that takes longer.
    #[test]
    fn a_server_that_is_stopped_while_it_runs_something_does_not_wait_for_that() {
        let folder = folder();
        drop(Marks::open(folder.path()));
        let marks = Marks::open(folder.path());
        let ((enter, entered), (end, ended)) = (mpsc::channel(), mpsc::channel());
        let (close, closed) = mpsc::channel();
        let (in_time, line) = std::thread::scope(|scope| {
            let marks = &marks;
            scope.spawn(move || {
                marks.run(&|| suspect(1), &mut || {
                    enter.send(()).expect("the test waits");
                    ended.recv().expect("the test tells");
                })
            });
            entered.recv().expect("it is run");
            scope.spawn(move || {
                marks.close();
                close.send(()).expect("the test waits");
            });
            let in_time = closed.recv_timeout(Duration::from_secs(5)).is_ok();
            let line = named(folder.path());
            end.send(()).expect("it waits");
            (in_time, line)
        });
        assert!(in_time);
        assert!(!line.lines().next().expect("a line").contains("frame 1"), "{line}");
        assert!(!Marks::open(folder.path()).is_careful(), "and it was stopped");
    }

    #[test]
    fn a_server_calms_down() {
        let folder = folder();
        let folder = folder.path();
        drop(Marks::open(folder));
        let marks = Marks::open_for(folder, Duration::ZERO);
        marks.run(&|| panic!("nobody asks for its name"), &mut || {});
    }

    #[test]
    fn a_torn_file_says_that_the_server_was_not_stopped() {
        let folder = folder();
        let folder = folder.path();
        Marks::open(folder).close();
        std::fs::write(folder.join(FILE_NAME), "{\"is_stopp\0\0\0\0").expect("written");
        assert!(Marks::open(folder).is_careful());
    }

    #[test]
    fn who_came_first_is_next() {
        let (turns, order) = (Turns::default(), Mutex::new(Vec::new()));
        let busy = turns.enter();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _turn = turns.enter();
                order.lock().expect("no panic").push("the one who waited");
            });
            while turns.numbers.lock().expect("no panic").0 < 2 {
                std::thread::yield_now();
            }
            drop(busy);
            let _turn = turns.enter();
            order.lock().expect("no panic").push("the busy one again");
        });
        let order = order.into_inner().expect("no panic");
        assert_eq!(order, ["the one who waited", "the busy one again"]);
    }

    /// V10. Goal: behind a crash what waits for its turn keeps no thread from those that run
    /// nothing. Method: one thing is run for long, as many wait for their turn as there are threads
    /// and more, and something else is to be done.
    #[test]
    fn who_waits_for_a_turn_keeps_no_thread() {
        let folder = folder();
        drop(Marks::open(folder.path()));
        let marks = Arc::new(Marks::open(folder.path()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        let runtime = runtime.expect("threads");
        let ((enter, entered), (end, ended)) = (mpsc::channel(), mpsc::channel());
        let of_first = Arc::clone(&marks);
        let first = runtime.spawn(async move {
            of_first.run(&|| suspect(0), &mut || {
                enter.send(()).expect("the test waits");
                ended.recv().expect("the test tells");
            })
        });
        entered.recv().expect("it is run");
        let run = |number| {
            let marks = Arc::clone(&marks);
            runtime.spawn(async move { run(&marks, number) })
        };
        let others: Vec<_> = (1..6).map(run).collect();
        let until = Instant::now() + Duration::from_secs(10);
        let all_wait = || marks.turns.numbers.lock().expect("no panic").0 == 6;
        while !all_wait() && Instant::now() < until {
            std::thread::yield_now();
        }
        let (done, is_done) = mpsc::channel();
        runtime.spawn(async move { done.send(()) });
        let in_time = all_wait() && is_done.recv_timeout(Duration::from_secs(10)).is_ok();
        end.send(()).expect("it waits");
        assert!(in_time, "nothing else was done");
        for task in [first].into_iter().chain(others) {
            assert!(runtime.block_on(task).expect("no panic"));
        }
    }

    #[test]
    fn one_thing_is_run_at_a_time_behind_a_crash() {
        let folder = folder();
        drop(Marks::open(folder.path()));
        let marks = Marks::open(folder.path());
        let most = Mutex::new((0, 0));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (marks, most) = (&marks, &most);
                scope.spawn(move || {
                    for number in 0..20 {
                        let id = thread * 100 + number;
                        marks.run(&|| suspect(id), &mut || {
                            let named = || marks.notes().written.named.clone();
                            assert_eq!(named(), Some(suspect(id)), "whoever was before erased it");
                            let mut now = most.lock().expect("no panic");
                            now.0 += 1;
                            now.1 = now.1.max(now.0);
                            drop(now);
                            std::thread::yield_now();
                            assert_eq!(named(), Some(suspect(id)), "whoever was before erased it");
                            most.lock().expect("no panic").0 -= 1;
                        });
                    }
                });
            }
        });
        assert_eq!(most.into_inner().expect("no panic"), (0, 1));
    }
}
