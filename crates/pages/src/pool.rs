//! Pages in memory, bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidelog_journal::DocumentNumber;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Lsn, Page, Pgid};

/// Uses that are remembered of a page at most.
const USES_MAX: u8 = 3;
/// Uses in the small queue by which a page gets into the main one.
const USES_WANTED: u8 = 2;
/// The small queue's share of the pool is one in this many pages.
const SMALL_SHARE: usize = 10;

/// One version of one page. Each storage journal that is begun for a document is counted, so a key
/// never means two contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolKey {
    pub document: DocumentNumber,
    /// Which of its storage journals.
    pub begun: u64,
    pub pgid: Pgid,
    pub lsn: Lsn,
}

/// A page, whatever its version.
type Id = (DocumentNumber, u64, Pgid);

/// A buffer pool that a scan passes through without evicting what is wanted.
///
/// It is the S3-FIFO of Yang, Zhang, Qiu, Yue and Rashmi (*FIFO queues are all you need for cache
/// eviction*, SOSP 2023). What comes in stands in a **small** queue, a tenth of the pool. If it is
/// used again before its turn to go, it moves to the **main** queue, where each use spares it one
/// round. Otherwise only its number stays, in the **ghost** queue; a page that comes back while
/// it is remembered there goes to the main queue at once.
///
/// Of each page one version is held, the newest that came in.
///
/// Nothing is pinned here. A page whose bytes are not on the device yet is read from the log's
/// buffer, which holds it until it is written; what a transaction has read is pinned where the
/// transaction runs.
#[derive(Debug)]
pub(crate) struct BufferPool {
    frames: BTreeMap<Id, Frame>,
    small: VecDeque<Id>,
    main: VecDeque<Id>,
    ghosts: Ghosts,
    pages_max: usize,
    small_max: usize,
}

#[derive(Debug)]
struct Frame {
    lsn: Lsn,
    page: Page,
    uses: u8,
}

/// Pages that went lately, in the order in which they went.
#[derive(Debug, Default)]
struct Ghosts {
    queue: VecDeque<Id>,
    ids: BTreeSet<Id>,
}

impl Ghosts {
    fn add(&mut self, id: Id, count_max: usize) {
        self.ids.insert(id);
        self.queue.push_back(id);
        if self.queue.len() > count_max
            && let Some(oldest) = self.queue.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    /// Whether it was there. Its place in the queue stays taken until its turn to go.
    fn take(&mut self, id: &Id) -> bool {
        self.ids.remove(id)
    }
}

impl BufferPool {
    pub fn new(pages_max: usize) -> Self {
        let pages_max = pages_max.max(1);
        Self {
            frames: BTreeMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: Ghosts::default(),
            pages_max,
            small_max: (pages_max / SMALL_SHARE).max(1),
        }
    }

    /// This version of a page, if it is here. Counts as a use.
    pub fn get(&mut self, key: PoolKey) -> Option<Page> {
        let frame = self.frames.get_mut(&(key.document, key.begun, key.pgid))?;
        if frame.lsn != key.lsn {
            return None;
        }
        frame.uses = (frame.uses + 1).min(USES_MAX);
        Some(frame.page.clone())
    }

    /// The same, without counting as a use.
    pub fn peek(&self, key: PoolKey) -> Option<&Page> {
        let frame = self.frames.get(&(key.document, key.begun, key.pgid))?;
        (frame.lsn == key.lsn).then_some(&frame.page)
    }

    /// Takes a version of a page in, unless a newer one is here.
    pub fn insert(&mut self, key: PoolKey, page: Page) {
        let PoolKey { document, begun, pgid, lsn } = key;
        let id = (document, begun, pgid);
        if let Some(frame) = self.frames.get_mut(&id) {
            if lsn >= frame.lsn {
                (frame.lsn, frame.page) = (lsn, page);
            }
            return;
        }
        while self.frames.len() >= self.pages_max {
            self.evict();
        }
        let is_back = self.ghosts.take(&id);
        if is_back {
            reached(Probe::PoolGhostReturned);
        }
        let queue = if is_back { &mut self.main } else { &mut self.small };
        queue.push_back(id);
        self.frames.insert(id, Frame { lsn, page, uses: 0 });
    }

    /// Moves one page on: from the small queue to the main one or out, or from the head of the
    /// main queue to its end or out.
    fn evict(&mut self) {
        let from_small = self.small.len() >= self.small_max || self.main.is_empty();
        let queue = if from_small { &mut self.small } else { &mut self.main };
        let id = queue.pop_front().expect("BUG: evicted from an empty pool");
        let frame = self.frames.get_mut(&id).expect("BUG: a queue names what is not here");
        if from_small && frame.uses >= USES_WANTED {
            frame.uses = 0;
            self.main.push_back(id);
        } else if !from_small && frame.uses > 0 {
            frame.uses -= 1;
            self.main.push_back(id);
        } else {
            reached(Probe::PoolEvicted);
            self.frames.remove(&id);
            if from_small {
                self.ghosts.add(id, self.pages_max);
            }
        }
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.pages_max);
    }
}

#[cfg(test)]
mod tests;
