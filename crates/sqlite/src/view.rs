//! What the connections of one document read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{Page, PageSet, Pgid};

use crate::base_pool::BasePool;

/// What the connections of one document read: its base pages, and an overlay over them.
///
/// A clone is the same view; a [`fork`](View::fork) shares the base only. Nobody may change a view
/// while a transaction of its connections runs, and all its connections are to be refreshed
/// when what they have already read changes other than by pushing the page set they just made.
///
/// ```
/// use tidelog_sqlite::{Params, Reader, View, Writer};
/// use tidelog_types::Value;
///
/// let view = View::new(100, 0);
/// let (mut writer, mut reader) = (Writer::new(&view), Reader::new(&view));
/// let ((), set) = writer.write(&mut |tx| tx.run_migration("create table item (id)")).unwrap();
/// view.push(&set);
/// let ((), set) = writer.write(&mut |tx| tx.run_app("insert into item values (1)", &[])).unwrap();
///
/// let query = "select count(*) from item";
/// let mut count = || reader.query(query, &Params::NONE).unwrap().decode();
/// assert_eq!(count(), [[Value::Integer(0)]], "a write changes no view");
/// view.push(&set);
/// assert_eq!(count(), [[Value::Integer(1)]]);
/// ```
#[derive(Clone, Debug)]
pub struct View {
    base: Arc<Mutex<Base>>,
    overlay: Arc<Mutex<Overlay>>,
    limits: Limits,
    stopwatch: Option<Arc<dyn Stopwatch>>,
    query_stopwatch: Option<&'static dyn Stopwatch>,
}

/// From this fault on a transaction is taken for one that goes over much of a document.
const MANY_FAULTS: u32 = 16;

/// Measures how long a transaction runs, for a host that is not to be kept busy for long. Steps do
/// not tell: some take a nanosecond and some a millisecond.
pub trait Stopwatch: fmt::Debug + Send + Sync {
    /// A transaction begins, on this thread.
    fn start(&self);

    /// What is left of the time that it may take.
    fn time_left(&self) -> TimeLeft;
}

/// What is left of the time that a transaction may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimeLeft {
    /// It goes on.
    Enough,
    /// None for now: it ends as [`Failure::CutOff`](crate::Failure::CutOff).
    NoneNow,
    /// None at all: it ends as [`Failure::Budget`](crate::Failure::Budget).
    NoneEver,
}

#[derive(Debug)]
struct Base {
    pool: BasePool,
    now_ms: u64,
    /// How many pages the run had read that faulted, until somebody fetches for it.
    faulted_reads_count: usize,
}

/// All layers as one: the newest version of each page wins.
#[derive(Debug, Default)]
struct Overlay {
    /// Size of the database on top of the newest layer; `None` without layers.
    db_pages: Option<u32>,
    /// Each page, and the number of the layer that it is of.
    pages: BTreeMap<Pgid, (Page, u64)>,
    /// The number of several that were laid as one.
    joint: Option<u64>,
}

/// The number of layers that stay for as long as nobody replaces them.
const STAYS: u64 = u64::MAX;

impl Overlay {
    fn push(&mut self, set: &PageSet, number: u64) {
        let shrinks = self.db_pages.is_some_and(|db_pages| set.db_pages < db_pages);
        self.db_pages = Some(set.db_pages);
        self.pages.extend(set.pages.iter().map(|(pgid, page)| (*pgid, (page.clone(), number))));
        if shrinks {
            self.pages.split_off(&Pgid(set.db_pages.saturating_add(1)));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves what is locked here whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl View {
    /// A view of a base of `db_pages` pages, none of them in memory yet. `pool_pages_max` bounds
    /// how many stay there.
    #[must_use]
    pub fn new(pool_pages_max: usize, db_pages: u32) -> Self {
        let pool = BasePool::new(pool_pages_max, db_pages);
        let base = Base { pool, now_ms: 0, faulted_reads_count: 0 };
        let (base, overlay) = (Arc::new(Mutex::new(base)), Arc::default());
        Self { base, overlay, limits: Limits::DEFAULT, stopwatch: None, query_stopwatch: None }
    }

    /// A view of no pages, for connections that may take as much as those of this one.
    #[must_use]
    pub fn emptied(&self) -> Self {
        let (limits, query_stopwatch) = (self.limits, self.query_stopwatch);
        let stopwatch = self.stopwatch.clone();
        Self { limits, stopwatch, query_stopwatch, ..Self::new(usize::MAX, 0) }
    }

    /// The same view for connections with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same view for connections whose transactions are measured.
    #[must_use]
    pub fn with_stopwatch(self, stopwatch: Arc<dyn Stopwatch>) -> Self {
        Self { stopwatch: Some(stopwatch), ..self }
    }

    /// The same view for connections whose queries alone are measured: what becomes of a mutation
    /// does not hang on a clock.
    #[must_use]
    pub fn with_query_stopwatch(self, query_stopwatch: Option<&'static dyn Stopwatch>) -> Self {
        Self { query_stopwatch, ..self }
    }

    pub(crate) fn stopwatch(&self) -> Option<&dyn Stopwatch> {
        self.stopwatch.as_deref()
    }

    pub(crate) fn query_stopwatch(&self) -> Option<&dyn Stopwatch> {
        self.query_stopwatch
    }

    /// How much connections may take, and whoever keeps something beside them.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Another view over the same base, with an empty overlay of its own.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { overlay: Arc::default(), ..self.clone() }
    }

    /// Size of the database as readers see it, in pages.
    #[must_use]
    pub fn db_pages(&self) -> u32 {
        let overlay = lock(&self.overlay).db_pages;
        overlay.unwrap_or_else(|| self.base_db_pages())
    }

    /// Size of the base, in pages.
    #[must_use]
    pub fn base_db_pages(&self) -> u32 {
        lock(&self.base).pool.db_pages()
    }

    /// Fills in fetched pages of the base. One that is in memory already is kept, one beyond the
    /// base is ignored.
    pub fn fill(&self, pages: Vec<(Pgid, Page)>) {
        self.base().pool.fill(pages);
    }

    /// Moves the base on by one entry.
    pub fn advance_base(&self, set: &PageSet) {
        self.base().pool.advance(set);
    }

    /// Replaces the base by another one, of which no page is in memory.
    pub fn reset_base(&self, db_pages: u32) {
        lock(&self.base).pool.reset(db_pages);
    }

    /// Lays a page set over what is seen now.
    pub fn push(&self, set: &PageSet) {
        self.push_numbered(set, STAYS);
    }

    /// The same of a layer that [settles](Self::settle) by its number: higher than all before it.
    pub fn push_numbered(&self, set: &PageSet, number: u64) {
        lock(&self.overlay).push(set, number);
    }

    /// The base has come to what the lowest layer was, which has this set and number, as to all
    /// lower ones before: what is of no higher one goes from the overlay, and may be evicted. What
    /// is seen stays as it is.
    pub fn settle(&self, set: &PageSet, number: u64) {
        let mut overlay = lock(&self.overlay);
        for pgid in set.pages.keys() {
            if overlay.pages.get(pgid).is_some_and(|(_, of)| *of <= number) {
                overlay.pages.remove(pgid);
            }
        }
        // Which pages are of it alone nobody knows.
        if overlay.joint.take_if(|joint| *joint <= number).is_some() {
            overlay.pages.retain(|_, (_, of)| *of > number);
        }
    }

    /// Replaces the overlay by these layers, oldest first.
    pub fn set_overlay<'a>(&self, layers: impl IntoIterator<Item = &'a PageSet>) {
        self.set_overlay_numbered(layers, STAYS);
    }

    /// The same of layers that are several others as one: the highest number of these is theirs.
    pub fn set_overlay_numbered<'a>(
        &self,
        layers: impl IntoIterator<Item = &'a PageSet>,
        number: u64,
    ) {
        let mut overlay = Overlay { joint: Some(number), ..Overlay::default() };
        for layer in layers {
            overlay.push(layer, number);
        }
        *lock(&self.overlay) = overlay;
    }

    /// Drops base pages beyond the pool's bound, the least recently used first.
    ///
    /// While a transaction waits for a fault, what was fetched for it has to
    /// [stay](Self::evict_but), or its next run meets the same faults again.
    pub fn evict(&self) {
        self.evict_but(0, |_| false);
    }

    /// The same, but for pages that are to stay, at most so many: they come on top of the bound.
    pub fn evict_but(&self, stay_max: usize, stays: impl Fn(Pgid) -> bool) {
        self.base().pool.evict(stay_max, stays);
    }

    /// Drops all base pages, but for pages that are to stay. Says how many went.
    pub fn rest_but(&self, stays: impl Fn(Pgid) -> bool) -> usize {
        let pool = &mut self.base().pool;
        let before = pool.len();
        pool.shrink(0, stays);
        before - pool.len()
    }

    /// Drops all base pages. Not while a transaction waits for a fault, as above.
    pub fn rest(&self) {
        lock(&self.base).pool.clear();
    }

    /// The pages to fetch for the `kth` fault (from 0) of a transaction, ascending: up to 2^`kth`
    /// of those that are not in memory, so that a scan faults seldom, whichever way it goes. They
    /// are those from `fault` on, or those down from it if a scan came from above; where these are
    /// too few, those on the other side of it too.
    ///
    /// A transaction begins anew after each fault. So one with many of them fetches more at once
    /// the more it has read, and all runs of a scan together cost a few times what the last does.
    /// What is in memory does not tell: reads here and there would soon fetch all of a document.
    #[must_use]
    pub fn to_fetch(&self, fault: Pgid, kth: u32) -> Vec<Pgid> {
        let reads_count = std::mem::take(&mut lock(&self.base).faulted_reads_count);
        let quarter = if kth < MANY_FAULTS { 0 } else { reads_count / 4 };
        let most = self.limits.fault_pages_max.max(quarter);
        let count = 1_usize.checked_shl(kth).unwrap_or(usize::MAX).min(most);
        let is_here = |number: u32| self.with_page(Pgid(number), |_| ()).is_some();
        let came_down = is_here(fault.0.saturating_add(1)) && !is_here(fault.0.saturating_sub(1));
        let mut pgids = match came_down {
            true => self.absent_down_from(fault.0, count),
            false => self.absent(fault.0, count),
        };
        let rest = count - pgids.len();
        pgids.extend(match came_down {
            true => self.absent(fault.0.saturating_add(1), rest),
            false => self.absent_down_from(fault.0.saturating_sub(1), rest),
        });
        pgids.sort_unstable();
        pgids
    }

    /// A run of a transaction faulted, having read so many pages.
    pub(crate) fn note_fault(&self, reads_count: usize) {
        lock(&self.base).faulted_reads_count = reads_count;
    }

    /// The pages that the overlay holds, ascending.
    #[must_use]
    pub fn overlay_pages(&self) -> Vec<Pgid> {
        let mut pgids: Vec<Pgid> = lock(&self.overlay).pages.keys().copied().collect();
        pgids.sort_unstable();
        pgids
    }

    /// Pages of what readers see that are not in memory, at most [`Limits::fault_pages_max`].
    #[must_use]
    pub fn missing(&self) -> Vec<Pgid> {
        self.absent(1, self.limits.fault_pages_max)
    }

    /// Up to `count` pages from `first` on that readers see and that are not in memory.
    fn absent(&self, first: u32, count: usize) -> Vec<Pgid> {
        let overlay = lock(&self.overlay);
        let base = self.base();
        let end = base.pool.db_pages().min(overlay.db_pages.unwrap_or(u32::MAX));
        let first = first.max(1);
        let mut in_overlay = overlay.pages.range(Pgid(first)..).map(|(pgid, _)| *pgid).peekable();
        let mut in_pool = base.pool.from(Pgid(first)).peekable();
        let is_absent = |pgid: &Pgid| {
            let is_over = in_overlay.next_if_eq(pgid).is_some();
            in_pool.next_if_eq(pgid).is_none() && !is_over
        };
        (first..=end).map(Pgid).filter(is_absent).take(count).collect()
    }

    /// Up to `count` pages from `last` down that readers see and that are not in memory.
    fn absent_down_from(&self, last: u32, count: usize) -> Vec<Pgid> {
        let overlay = lock(&self.overlay);
        let base = self.base();
        let end = base.pool.db_pages().min(overlay.db_pages.unwrap_or(u32::MAX));
        let is_absent = |pgid: &Pgid| !overlay.pages.contains_key(pgid) && !base.pool.has(*pgid);
        (1..=end.min(last)).rev().map(Pgid).filter(is_absent).take(count).collect()
    }

    /// The page as readers see it; `None` if it is not in memory, or beyond the database.
    #[must_use]
    pub fn page(&self, pgid: Pgid) -> Option<Page> {
        self.with_page(pgid, Page::clone)
    }

    /// What `look` makes of a page, without a copy of it.
    pub(crate) fn with_page<T>(&self, pgid: Pgid, look: impl FnOnce(&Page) -> T) -> Option<T> {
        let overlay = lock(&self.overlay);
        if let Some((page, _)) = overlay.pages.get(&pgid) {
            return Some(look(page));
        }
        if overlay.db_pages.is_some_and(|db_pages| pgid.0 > db_pages) {
            return None;
        }
        self.base().pool.get(pgid).map(look)
    }

    /// The page of the base, whatever lies over it.
    #[must_use]
    pub fn base_page(&self, pgid: Pgid) -> Option<Page> {
        self.base().pool.get(pgid).cloned()
    }

    /// Whether this page of the base is in memory. It does not count as used by that.
    #[must_use]
    pub fn has_base_page(&self, pgid: Pgid) -> bool {
        self.base().pool.has(pgid)
    }

    /// What readers see as a SQLite file; `None` while a page of it is not in memory.
    #[must_use]
    pub fn image(&self) -> Option<Vec<u8>> {
        // Whoever asks again and again until all is there, copies it once.
        if !self.absent(1, 1).is_empty() {
            return None;
        }
        let db_pages = self.db_pages();
        let mut image = Vec::with_capacity(db_pages as usize * PAGE_SIZE);
        for pgid in 1..=db_pages {
            self.with_page(Pgid(pgid), |page| image.extend_from_slice(page.bytes()))?;
        }
        Some(image)
    }

    /// Sets the time that queries see as `'now'`, in milliseconds since the epoch.
    pub fn set_now(&self, now_ms: u64) {
        lock(&self.base).now_ms = now_ms;
    }

    pub(crate) fn now_ms(&self) -> u64 {
        lock(&self.base).now_ms
    }

    /// How many base pages are in memory.
    #[must_use]
    pub fn pool_pages(&self) -> usize {
        lock(&self.base).pool.len()
    }

    /// Bytes of the base pages that are in memory.
    #[must_use]
    pub fn pool_size(&self) -> usize {
        lock(&self.base).pool.size()
    }

    /// Keeps the base pages in fewer bytes until one is read, if there are few.
    pub fn pack(&self) {
        lock(&self.base).pool.pack();
    }

    /// The base, whose pages can be read.
    fn base(&self) -> MutexGuard<'_, Base> {
        let mut base = lock(&self.base);
        base.pool.unpack();
        base
    }

    /// SQLite's number of the schema, 0 if there is none yet; `None` while page 1 is not in memory.
    #[must_use]
    pub fn schema_cookie(&self) -> Option<u32> {
        if self.db_pages() == 0 {
            return Some(0);
        }
        self.with_page(Pgid(1), schema_cookie)
    }
}

/// What SQLite made its schema of: the pages that it read for that.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SchemaPages(Vec<(Pgid, Page)>);

impl SchemaPages {
    /// Those of `view`; `None` unless all are in memory.
    pub fn of(view: &View, pgids: impl Iterator<Item = Pgid>) -> Option<Self> {
        pgids.map(|pgid| Some((pgid, view.page(pgid)?))).collect::<Option<_>>().map(Self)
    }

    /// Whether another view has the same schema, seen without fetching a page.
    pub fn are_those_of(&self, view: &View) -> bool {
        let is_same = |(pgid, page): &(Pgid, Page)| match pgid {
            // Every transaction counts itself in the header.
            Pgid(1) => view.with_page(*pgid, |other| schema_part(other) == schema_part(page)),
            _ => view.with_page(*pgid, |other| other == page),
        };
        self.0.iter().all(|page| is_same(page) == Some(true))
    }
}

/// What page 1 says about the schema: its cookie and format, how text is encoded, and the tables.
fn schema_part(page_1: &Page) -> (&[u8], &[u8]) {
    (&page_1.bytes()[40..60], &page_1.bytes()[100..])
}

/// The schema cookie in the database header.
pub(crate) fn schema_cookie(page_1: &Page) -> u32 {
    let bytes = page_1.bytes()[40..44].try_into().expect("BUG: a page has 4 bytes there");
    u32::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(byte: u8) -> Page {
        Page::zeroed().with(0, &[byte])
    }

    fn set(db_pages: u32, pages: &[(u32, u8)]) -> PageSet {
        let pages = pages.iter().map(|(pgid, byte)| (Pgid(*pgid), page(*byte))).collect();
        PageSet { db_pages, pages }
    }

    #[test]
    fn the_newest_layer_wins_and_forks_have_layers_of_their_own() {
        let view = View::new(8, 2);
        view.fill(vec![(Pgid(1), page(1)), (Pgid(2), page(2))]);
        view.push(&set(2, &[(1, 10)]));
        view.push(&set(3, &[(1, 11), (3, 13)]));
        assert_eq!(view.page(Pgid(1)), Some(page(11)));
        assert_eq!(view.page(Pgid(2)), Some(page(2)));
        assert_eq!((view.db_pages(), view.base_db_pages()), (3, 2));
        let fork = view.fork();
        assert_eq!(fork.page(Pgid(1)), Some(page(1)));
        assert_eq!(fork.db_pages(), 2);
        view.set_overlay([&set(2, &[(2, 20)])]);
        assert_eq!(view.page(Pgid(1)), Some(page(1)));
        assert_eq!(view.page(Pgid(2)), Some(page(20)));
        assert_eq!(view.page(Pgid(3)), None);
    }

    #[test]
    fn a_layer_that_shrinks_the_database_hides_what_is_beyond() {
        let view = View::new(8, 3);
        view.fill(vec![(Pgid(3), page(3))]);
        view.push(&set(4, &[(4, 4)]));
        view.push(&set(1, &[]));
        assert_eq!(view.page(Pgid(3)), None);
        assert_eq!(view.page(Pgid(4)), None);
    }

    #[test]
    fn an_image_that_cannot_be_whole_is_not_begun() {
        let view = View::new(8, u32::MAX);
        view.fill(vec![(Pgid(1), page(1))]);
        assert_eq!(view.image(), None, "there would be no room for the half of it");
        view.push(&set(2, &[(2, 2)]));
        assert_eq!(view.image().map(|image| image.len()), Some(2 * PAGE_SIZE));
    }

    #[test]
    fn the_kth_fault_fetches_twice_as_much_as_the_one_before() {
        let view = View::new(8, 1000);
        assert_eq!(view.to_fetch(Pgid(10), 0), [Pgid(10)]);
        view.fill([9, 11].map(|number| (Pgid(number), page(1))).to_vec());
        view.push(&set(1000, &[(12, 1)]));
        assert_eq!(view.to_fetch(Pgid(10), 1), [Pgid(10), Pgid(13)]);
        assert_eq!(view.to_fetch(Pgid(10), 60).len(), 256);
        assert_eq!(view.missing().len(), 256);
    }

    /// How many faults a transaction has that reads all of 10,000 pages in this order.
    fn faults_of(order: impl Iterator<Item = u32> + Clone) -> u32 {
        let view = View::new(0, 10_000);
        let mut faults_count = 0;
        let is_absent = |number| view.page(Pgid(number)).is_none();
        while let Some(index) = order.clone().position(is_absent) {
            view.note_fault(index + 1);
            let fault = order.clone().nth(index).map(Pgid).expect("it is there");
            let fetched = view.to_fetch(fault, faults_count);
            assert!(fetched.contains(&fault) && fetched.is_sorted());
            view.fill(fetched.into_iter().map(|pgid| (pgid, page(1))).collect());
            faults_count += 1;
        }
        faults_count
    }

    #[test]
    fn a_scan_faults_seldom_whichever_way_it_goes() {
        let up = faults_of(1..=10_000);
        let down = faults_of((1..=10_000).rev());
        // 7,919 is prime, so it comes to every page.
        let across = faults_of((0..10_000).map(|number| number * 7_919 % 10_000 + 1));
        assert!(up < 24 && down < 24 && across < 48, "{up} up, {down} down, {across} across");
    }

    #[test]
    fn a_scan_that_comes_down_fetches_what_is_below() {
        let view = View::new(8, 1000);
        view.fill(vec![(Pgid(501), page(1))]);
        assert_eq!(view.to_fetch(Pgid(500), 2), [497, 498, 499, 500].map(Pgid));
        view.fill(vec![(Pgid(499), page(1))]);
        assert_eq!(view.to_fetch(Pgid(500), 2), [500, 502, 503, 504].map(Pgid));
        assert_eq!(view.to_fetch(Pgid(999), 2), [997, 998, 999, 1000].map(Pgid));
        assert_eq!(view.to_fetch(Pgid(2), 2), [2, 3, 4, 5].map(Pgid));
    }
}
