//! What one connection's VFS and callbacks tell its owner, and the other way round.
//!
//! SQLite's result codes are not enough: it swallows some read errors, and a callback can only say
//! that it failed. So whatever goes wrong below SQLite is noted here and stays noted until the next
//! transaction begins. The owner looks here before it believes any result.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_types::limits::{MUTATION_SIZE_MAX, PAGE_SIZE, SCHEMA_PAGES_MAX, STATEMENT_EVENTS_MAX};
use tidelog_types::{Page, PageSet, Pgid, SortedMap};

use crate::event::InsertedEvent;
use crate::failure::Failure;
use crate::memory;
use crate::read_set::PageBits;
use crate::scan;
use crate::view::{Stopwatch, TimeLeft, View, schema_cookie};

/// Whose statement is prepared and run: what it may do follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Ours: anything.
    System,
    /// An app's mutation.
    App,
    /// An app's migration: a mutation that may change the schema too.
    Migration,
    /// An app's query.
    Query,
}

impl Origin {
    /// Whether two runs on the same pages must do the same.
    pub fn is_deterministic(self) -> bool {
        matches!(self, Self::App | Self::Migration)
    }
}

/// Bytes allocated or looked at that count as one step: about as much work.
pub(crate) const BYTES_PER_STEP: u64 = 16;

/// A connection's side of a [`View`], for one transaction at a time.
#[derive(Debug)]
pub(crate) struct State {
    pub view: View,
    /// Whether the connection may write at all.
    pub writes: bool,
    pub origin: Origin,
    /// Pages that the running transaction has written, over the view.
    written: BTreeMap<Pgid, Page>,
    /// Size of the database when the transaction began, and as it is now, in pages.
    db_pages_before: u32,
    db_pages: u32,
    pub reads: PageBits,
    /// The first page that was needed and not in memory. While it is set, every read fails.
    fault: Option<Pgid>,
    /// Whether a statement is run rather than prepared.
    pub steps_now: bool,
    /// Whether SQLite reads a schema now, with what it keeps of its tables.
    pub reads_schema: bool,
    /// Whether SQLite may have read some of a schema and gone on without the rest: it swallows
    /// faults while it reads one.
    schema_in_doubt: bool,
    /// The first failure of a callback. It outranks what SQLite says.
    failure: Option<Failure>,
    /// Steps that the app's statements have taken in the running transaction, and what their
    /// allocations count for; those of the running statement alone in a migration, which may go
    /// over all rows with each.
    steps: u64,
    /// The same for preparing them, which only a connection does that does not have them prepared:
    /// what a mutation may do is not to depend on that.
    prepare_steps: u64,
    /// Whether a statement is being prepared.
    pub prepares: bool,
    /// Whether the statement that was prepared last does something to the schema itself, and
    /// which table that SQLite keeps for itself its rows go to.
    pub is_of_schema: bool,
    pub writes_of_sqlite: Option<String>,
    /// Bytes of the largest literal of those statements that have done something to the schema in
    /// the running transaction.
    pub made_literal: usize,
    /// The same of all statements of all transactions, since somebody last asked.
    pub steps_taken: u64,
    /// Whether the transaction has run a statement of an app. Ours alone have no budget.
    is_apps: bool,
    /// Whether the app has changed anything in this transaction, behind the last event that was
    /// recorded, for `changes()`.
    pub app_changed: bool,
    /// What its last statement has inserted into the view of all events, and the bytes of that.
    inserted_events: Vec<InsertedEvent>,
    inserted_size: usize,
}

impl State {
    pub fn new(view: &View, writes: bool) -> Self {
        let db_pages = view.db_pages();
        Self {
            view: view.clone(),
            writes,
            origin: Origin::System,
            written: BTreeMap::new(),
            db_pages_before: db_pages,
            db_pages,
            reads: PageBits::default(),
            fault: None,
            steps_now: false,
            reads_schema: false,
            schema_in_doubt: false,
            failure: None,
            steps: 0,
            prepare_steps: 0,
            prepares: false,
            is_of_schema: false,
            writes_of_sqlite: None,
            made_literal: 0,
            steps_taken: 0,
            is_apps: false,
            app_changed: false,
            inserted_events: Vec::new(),
            inserted_size: 0,
        }
    }

    /// Forgets the transaction before, and looks at the view anew.
    pub fn begin(&mut self) {
        let stopwatches = [self.view.stopwatch(), self.query_stopwatch()];
        stopwatches.into_iter().flatten().for_each(Stopwatch::start);
        self.written.clear();
        self.db_pages_before = self.view.db_pages();
        self.db_pages = self.db_pages_before;
        self.reads.clear();
        self.fault = None;
        self.steps_now = false;
        self.reads_schema = false;
        self.schema_in_doubt = false;
        self.failure = None;
        (self.steps, self.prepare_steps, self.prepares) = (0, 0, false);
        self.made_literal = 0;
        self.is_apps = false;
        self.app_changed = false;
        self.take_inserted();
    }

    /// The running statement inserts an event, which is recorded once it has ended.
    pub fn insert_event(&mut self, event: InsertedEvent) {
        self.inserted_size += event.size();
        self.inserted_events.push(event);
        if self.inserted_events.len() > STATEMENT_EVENTS_MAX {
            self.fail(Failure::budget(format!("{STATEMENT_EVENTS_MAX} events of a statement")));
        } else if self.inserted_size > MUTATION_SIZE_MAX {
            let what = format!("{MUTATION_SIZE_MAX} bytes of events of a statement");
            self.fail(Failure::budget(what));
        }
    }

    /// Whether the last statement has inserted events.
    pub fn has_inserted(&self) -> bool {
        !self.inserted_events.is_empty()
    }

    /// What it has inserted, in its order.
    pub fn take_inserted(&mut self) -> Vec<InsertedEvent> {
        self.inserted_size = 0;
        std::mem::take(&mut self.inserted_events)
    }

    /// What follows is prepared and run for `origin`.
    pub fn begin_as(&mut self, origin: Origin) {
        self.origin = origin;
        self.is_apps |= origin != Origin::System;
        memory::take_allocated();
        self.start_statement();
    }

    /// The transaction may read and change as much as one of an app, and no more.
    pub fn bound_as_apps(&mut self) {
        self.is_apps = true;
    }

    /// Another statement is prepared and run.
    pub fn start_statement(&mut self) {
        if self.origin == Origin::Migration {
            self.start_budget();
        }
        self.count_steps(0);
    }

    /// What follows has a budget of its own.
    pub fn start_budget(&mut self) {
        (self.steps, self.prepare_steps) = (0, 0);
    }

    /// Fails once the transaction has taken longer than it may, for now or at all.
    pub fn check_time(&mut self) {
        let is_query = self.origin == Origin::Query;
        let of_query = self.query_stopwatch().filter(|_| is_query);
        let stopwatches = self.view.stopwatch().into_iter().chain(of_query);
        match stopwatches.map(Stopwatch::time_left).max() {
            Some(TimeLeft::NoneEver) => self.fail(Failure::budget("time")),
            Some(TimeLeft::NoneNow) => self.fail(Failure::CutOff),
            Some(TimeLeft::Enough) | None => {}
        }
    }

    fn query_stopwatch(&self) -> Option<&dyn Stopwatch> {
        self.view.query_stopwatch().filter(|_| !self.writes)
    }

    /// The running statement has taken so many steps more. With what was allocated for it meanwhile
    /// they count towards the budget of its transaction, and what is left of that may be allocated.
    pub fn count_steps(&mut self, steps: u64) {
        let steps = steps + memory::take_allocated() / BYTES_PER_STEP;
        self.steps_taken += steps;
        let counted = if self.prepares { &mut self.prepare_steps } else { &mut self.steps };
        if self.origin != Origin::System {
            *counted += steps;
        }
        let counted = *counted;
        let steps_max = self.view.limits().statement_steps_max;
        if counted > steps_max {
            self.fail(Failure::budget(format!("{steps_max} steps")));
        }
        // One step more than is left: whatever is refused is over the budget.
        let left = steps_max.saturating_sub(counted).saturating_add(1);
        let is_ours = self.origin == Origin::System;
        memory::allow(if is_ours { u64::MAX } else { left.saturating_mul(BYTES_PER_STEP) });
    }

    pub fn fault(&self) -> Option<Pgid> {
        self.fault
    }

    /// What to answer instead of SQLite's result, if anything was noted.
    pub fn noted(&self) -> Option<Failure> {
        self.fault.map(|_| Failure::Faulted).or_else(|| self.failure.clone())
    }

    /// SQLite reads the schema anew, or changes it.
    pub fn doubt_schema(&mut self) {
        self.schema_in_doubt = true;
    }

    /// It has read all of it.
    pub fn trust_schema(&mut self) {
        self.schema_in_doubt = false;
    }

    /// Faults unless the first page is in memory, without which nothing else is read.
    pub fn need_first_page(&mut self) -> Result<(), Failure> {
        if self.view.schema_cookie().is_none() {
            self.fault = Some(Pgid(1));
        }
        self.noted().map_or(Ok(()), Err)
    }

    /// Whether nothing but pages can be wrong in what SQLite holds after a fault.
    pub fn has_whole_schema(&self) -> bool {
        !self.schema_in_doubt
    }

    /// Goes on after a fault, since the next run fetches what it lacked, or after a failure.
    pub fn forget_failure(&mut self) {
        self.fault = None;
        self.failure = None;
    }

    /// Notes a failure; the first one stays.
    pub fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// A statement begins to be prepared.
    pub fn begin_prepare(&mut self) {
        self.prepares = true;
        (self.is_of_schema, self.writes_of_sqlite) = (false, None);
    }

    /// It is prepared: `None` if it could not be, when nothing is known of it as a whole. SQLite
    /// itself writes its tables in a migration, where that analyzes, or drops what was analyzed;
    /// the rows of no other statement may go there.
    pub fn end_prepare(&mut self, statement: Option<&str>) {
        self.prepares = false;
        if let (true, Some(sql)) = (self.is_of_schema, statement) {
            self.made_literal = self.made_literal.max(scan::largest_literal(sql));
        }
        // SQLite does not say that it analyzes tables of its own.
        match (self.writes_of_sqlite.take(), statement) {
            (Some(table), Some(sql)) if !self.is_of_schema && !scan::is_analyze(sql) => {
                self.fail(Failure::forbidden(table));
            }
            _ => {}
        }
    }

    /// Takes back a failure that only told about one statement.
    pub fn forgive(&mut self) {
        self.failure = None;
    }

    pub fn db_size(&self) -> i64 {
        i64::from(self.db_pages) * PAGE_SIZE as i64
    }

    /// Copies the part of a page at `offset` to `out`, which is left alone otherwise.
    pub fn read(&mut self, pgid: Pgid, offset: usize, out: &mut [MaybeUninit<u8>]) -> Read {
        if self.fault.is_some() || self.failure.is_some() {
            return Read::Failed;
        }
        if pgid.0 > self.db_pages {
            return Read::Beyond;
        }
        // The header of page 1 is read to see whether the file changed, not for what it says. Parts
        // of other pages are what SQLite reads of long values past its cache.
        if pgid != Pgid(1) || out.len() == PAGE_SIZE {
            self.reads.insert(pgid);
            let pages = self.reads.count();
            if self.is_apps && pages > self.view.limits().read_set_pages_max {
                self.fail(Failure::ReadSetTooLarge { pages });
                return Read::Failed;
            }
            if self.reads_schema && pages > SCHEMA_PAGES_MAX {
                self.fail(Failure::budget(format!("{SCHEMA_PAGES_MAX} pages for a schema")));
                return Read::Failed;
            }
        }
        let mut copy = |page: &Page| {
            out.write_copy_of_slice(&page.bytes()[offset..offset + out.len()]);
        };
        if let Some(page) = self.written.get(&pgid) {
            copy(page);
        } else if self.view.with_page(pgid, copy).is_none() {
            self.fault = Some(pgid);
            self.schema_in_doubt |= !self.steps_now;
            return Read::Failed;
        }
        Read::Copied
    }

    /// Takes a written page into the transaction's set. False: it must not.
    pub fn write(&mut self, pgid: Pgid, page: Page) -> bool {
        if !self.writes {
            self.fail(Failure::ReadOnly);
            return false;
        }
        self.written.insert(pgid, page);
        self.db_pages = self.db_pages.max(pgid.0);
        let limits = self.view.limits();
        let (changed_max, pages_max) = (limits.mutation_pages_max, limits.document_pages_max);
        let verdict_pages = if self.is_apps { 0 } else { limits.verdict_pages_max };
        let has_grown = self.db_pages > self.db_pages_before;
        if has_grown && self.db_pages as usize > pages_max + verdict_pages {
            self.fail(Failure::budget(format!("{pages_max} pages in a document")));
        } else if self.is_apps && self.written.len() > changed_max {
            self.fail(Failure::budget(format!("{changed_max} changed pages")));
        }
        self.failure.is_none()
    }

    /// Whether the transaction changes more than it may, if that is so many pages, some of which
    /// were read only.
    pub fn check_cache(&mut self, pages: usize, spare: usize) {
        let pages_max = self.view.limits().mutation_pages_max;
        if self.writes && self.is_apps && pages > self.reads.count() + pages_max + spare {
            self.fail(Failure::budget(format!("{pages_max} changed pages")));
        }
    }

    /// The cookie of the schema as the transaction leaves it; `None` if page 1 is not in memory.
    pub fn schema_cookie(&self) -> Option<u32> {
        let written = self.written.get(&Pgid(1)).map(schema_cookie);
        written.or_else(|| self.view.schema_cookie())
    }

    pub fn truncate(&mut self, db_pages: u32) {
        self.db_pages = db_pages;
        self.written.split_off(&Pgid(db_pages.saturating_add(1)));
    }

    /// What the transaction has written. Every page that is new is in it, also one that SQLite
    /// never writes because nothing is on it: so no page of a base is ever without bytes.
    pub fn take_written(&mut self) -> PageSet {
        let mut pages = std::mem::take(&mut self.written);
        for pgid in self.db_pages_before + 1..=self.db_pages {
            pages.entry(Pgid(pgid)).or_insert_with(Page::zeroed);
        }
        PageSet { db_pages: self.db_pages, pages }
    }

    pub fn is_new_database(&self) -> bool {
        self.db_pages_before == 0
    }
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Copied,
    /// The database ends before that page.
    Beyond,
    Failed,
}

/// A [`State`] as its connection's owner and callbacks hold it. They take turns: SQLite calls back
/// only while its owner waits for it, without holding the lock.
pub(crate) type SharedState = Mutex<State>;

/// The state, also after a panic elsewhere: what it notes is one field at a time.
pub(crate) fn lock(state: &SharedState) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections that are being opened, by the number that is their file name.
static OPENING: Mutex<(u64, SortedMap<u64, Arc<SharedState>>)> = Mutex::new((0, SortedMap::new()));

/// Makes a state known under a number until [`opened`] takes it.
pub(crate) fn announce(state: &Arc<SharedState>) -> u64 {
    let mut opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    opening.0 += 1;
    let number = opening.0;
    opening.1.insert(number, Arc::clone(state));
    number
}

/// The state announced under `number`; a second call finds nothing.
pub(crate) fn opened(number: u64) -> Option<Arc<SharedState>> {
    OPENING.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&number)
}

thread_local! {
    /// The connection that this thread runs SQLite for. The clock belongs to a VFS, not to one
    /// of its files, so it has no other way to know who asks.
    static RUNNING: RefCell<Option<Arc<SharedState>>> = const { RefCell::new(None) };
}

/// Says who asks, while it lives.
pub(crate) struct Running(Option<Arc<SharedState>>);

impl Running {
    pub fn new(state: &Arc<SharedState>) -> Self {
        Self(RUNNING.replace(Some(Arc::clone(state))))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        memory::allow(u64::MAX);
        RUNNING.set(self.0.take());
    }
}

/// What `look` makes of the state of whoever runs; `None` if nobody does.
pub(crate) fn with_running<T>(look: impl FnOnce(&mut State) -> T) -> Option<T> {
    RUNNING.with_borrow(|running| running.as_ref().map(|state| look(&mut lock(state))))
}
