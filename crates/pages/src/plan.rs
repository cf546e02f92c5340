//! What is to be read for an answer: where it lies, and how the answer is put together.

use std::collections::VecDeque;

use tidelog_journal::FrameAt;
use tidelog_types::{CallId, JournalId, Life, Lsn, Pgid, Position};

use crate::place::PagePlace;
use crate::{OpenedDocument, StorageEntry};

/// What is still to be read for an answer, and how it is put together.
#[derive(Debug)]
pub(crate) struct Plan {
    pub pages: VecDeque<PagePlace>,
    pub frames: VecDeque<LoggedFrame>,
    pub answer: Answer,
}

/// A timeline entry in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoggedFrame {
    pub lsn: Lsn,
    pub call: CallId,
    pub at: FrameAt,
}

/// How it is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Each chunk by itself, and at the end those that are damaged.
    Pages { damaged: Vec<Pgid> },
    /// Likewise, of pages whose slots may have been written over since: then they are gone.
    PagesAt { journal: JournalId },
    /// Each chunk by itself.
    Sync { position: Position, db_pages: u32, next: Option<Pgid> },
    /// Each chunk by itself. So many pages are left of the first, and so many of each of the
    /// others.
    Entries { entries: VecDeque<(StorageEntry, usize)> },
    /// Each chunk by itself.
    Frames,
    /// All at once, when all of its timeline is read.
    Opened { life: Life, state: Option<Box<OpenedDocument>> },
}

impl Plan {
    pub fn of_pages(pages: VecDeque<PagePlace>, answer: Answer) -> Self {
        Self { pages, frames: VecDeque::new(), answer }
    }

    pub fn of_frames(frames: VecDeque<LoggedFrame>, answer: Answer) -> Self {
        Self { pages: VecDeque::new(), frames, answer }
    }

    /// How many pages and frames are still to be read.
    pub fn left(&self) -> usize {
        self.pages.len() + self.frames.len()
    }
}
