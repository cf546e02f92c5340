//! What a core notes of rejections, seen as it goes to the disk: no more than may be kept, nothing
//! left out that there is room for, and of what is left out, that something is.
//!
//! Whoever keeps too many writes them all anew with each further one, and what is forgotten too
//! early is missed only by the few who ask again.

use std::collections::BTreeMap;

use tidelog_client::KeptRejections;
use tidelog_pages::{Append, OpenedDocument};
use tidelog_types::limits::Limits;
use tidelog_types::{DocumentKey, EntryId, JournalId};

/// The record of each document that went to the disk last, or came from there.
#[derive(Default)]
pub(crate) struct CoreNotes {
    last: BTreeMap<DocumentKey, KeptRejections>,
    /// Its timeline: of those before it any one that is forgotten stands for all.
    timelines: BTreeMap<DocumentKey, JournalId>,
}

impl CoreNotes {
    /// What the disk has of a document now.
    pub(crate) fn is_opened(&mut self, document: &DocumentKey, state: Option<&OpenedDocument>) {
        self.last.remove(document);
        let kept = state.and_then(|state| KeptRejections::of_record(&state.record));
        self.last.extend(kept.map(|kept| (document.clone(), kept)));
        self.timelines.remove(document);
        let timeline = state.and_then(|state| state.timeline.as_ref());
        self.timelines.extend(timeline.map(|timeline| (document.clone(), timeline.journal)));
    }

    /// # Errors
    ///
    /// It is not what it should be.
    pub(crate) fn leaves(
        &mut self,
        append: &Append,
        now: Option<&KeptRejections>,
        limits: &Limits,
    ) -> Result<(), String> {
        if let Some((timeline, _)) = append.begin_timeline {
            self.timelines.insert(append.document.clone(), timeline);
        }
        let Some(now) = now else { return Ok(()) };
        let what = |what| format!("rejections of {}: {what}", append.document.document);
        let before = self.last.insert(append.document.clone(), now.clone());
        is_bounded(now, limits).map_err(what)?;
        match before {
            Some(before) => {
                let timeline = self.timelines.get(&append.document).copied();
                follows(&before, now, timeline, limits).map_err(what)
            }
            None => Ok(()),
        }
    }
}

fn size_of(kept: &[(EntryId, usize, bool)]) -> usize {
    kept.iter().map(|(_, size, _)| size).sum()
}

fn handled_count(kept: &KeptRejections) -> usize {
    kept.kept.iter().filter(|(.., is_handled)| *is_handled).count()
}

fn is_bounded(now: &KeptRejections, limits: &Limits) -> Result<(), String> {
    let (count, size) = (now.kept.len(), size_of(&now.kept));
    let is_small = count <= 1 || size <= limits.rejections_kept_size_max;
    let handled_count = handled_count(now);
    if count <= limits.rejections_kept_max
        && is_small
        && handled_count <= limits.handled_rejections_kept_max
    {
        return Ok(());
    }
    Err(format!("{count} of {size} bytes are kept, and {handled_count} of them were handled"))
}

/// What was forgotten had no room, and who looks for it finds that it may have been there.
fn follows(
    before: &KeptRejections,
    now: &KeptRejections,
    timeline: Option<JournalId>,
    limits: &Limits,
) -> Result<(), String> {
    let is_kept = |entry: &EntryId| now.kept.iter().any(|(kept, ..)| kept == entry);
    let gone: Vec<_> = before.kept.iter().filter(|(entry, ..)| !is_kept(entry)).copied().collect();
    let is_full = now.kept.len() == limits.rejections_kept_max
        || size_of(&now.kept) + size_of(&gone) > limits.rejections_kept_size_max
        || handled_count(now) == limits.handled_rejections_kept_max;
    let is_forgetful = !gone.is_empty() || now.forgotten != before.forgotten;
    if is_forgetful && !is_full {
        return Err(format!("there was room for {gone:?}, {:?} is forgotten", now.forgotten));
    }
    let is_known = |entry: &EntryId| {
        let is_former = timeline != Some(entry.journal);
        let is_covered = |it: EntryId| it.journal == entry.journal && it.lsn >= entry.lsn;
        now.forgotten.is_some_and(|it| is_former || is_covered(it))
    };
    match gone.iter().find(|(entry, ..)| !is_known(entry)) {
        Some((entry, ..)) => Err(format!("{entry:?} is forgotten, and only {:?}", now.forgotten)),
        None => Ok(()),
    }
}
