//! Appends that are too large for one message travel in parts: their pages first, a batch at a
//! time, and then the append, which begins when all of it has arrived.

use tidelog_types::in_parts;
use tidelog_types::limits::APPEND_PAGES_MAX;

use crate::{Append, AppendError, StagedPage, StoreRequest, Ticket};

impl StoreRequest {
    /// This request as it travels: one message, or several for an append of more than so many
    /// pages.
    #[must_use]
    pub fn into_parts(self, part_pages_max: usize) -> Vec<Self> {
        let Self::Append { ticket, mut append } = self else { return vec![self] };
        let pages_count: usize = append.storage.iter().map(|entry| entry.set.pages.len()).sum();
        if pages_count <= part_pages_max {
            return vec![Self::Append { ticket, append }];
        }
        let pages = append.storage.iter_mut().zip(0..).flat_map(|(it, entry)| {
            let pages = std::mem::take(&mut it.set.pages).into_iter();
            pages.map(move |(pgid, page)| StagedPage { entry, pgid, page })
        });
        let staged = in_parts(pages, part_pages_max).map(|pages| Self::Stage { ticket, pages });
        let mut parts: Vec<Self> = staged.collect();
        parts.push(Self::Append { ticket, append });
        parts
    }
}

/// The pages of an append that is still to come.
#[derive(Debug)]
pub(crate) struct Staged {
    ticket: Ticket,
    pages: Vec<StagedPage>,
    /// Why none is kept and the append will be refused.
    refusal: Option<AppendError>,
}

impl Staged {
    /// None yet, of this append.
    pub fn of(ticket: Ticket) -> Self {
        Self { ticket, pages: Vec::new(), refusal: None }
    }

    /// None, nor will there be any: too much of their owner waited.
    pub fn refused(ticket: Ticket) -> Self {
        Self { ticket, pages: Vec::new(), refusal: Some(AppendError::Busy) }
    }

    /// How many pages there are.
    pub fn count(&self) -> usize {
        self.pages.len()
    }

    /// Takes more pages in, as far as they are not too many. Those of an earlier append, which
    /// never came, are forgotten.
    pub fn add(&mut self, ticket: Ticket, mut pages: Vec<StagedPage>) {
        if self.ticket != ticket {
            *self = Self::of(ticket);
        }
        if self.pages.len() + pages.len() > APPEND_PAGES_MAX {
            let reason = format!("more than {APPEND_PAGES_MAX} pages in one append");
            self.refusal.get_or_insert(AppendError::OutOfPlace { reason });
        }
        if self.refusal.is_some() {
            self.pages = Vec::new();
        } else {
            self.pages.append(&mut pages);
        }
    }

    /// Whether this is the append that they come for.
    pub fn is_of(&self, ticket: Ticket) -> bool {
        self.ticket == ticket
    }

    /// Another append came between them and the one that they come for, which is refused.
    pub fn overtaken(self) -> Self {
        let reason = "another append came between its parts".to_owned();
        let refusal = self.refusal.unwrap_or(AppendError::OutOfPlace { reason });
        Self { pages: Vec::new(), refusal: Some(refusal), ..self }
    }

    /// Puts the pages where they belong, in the append that they came for.
    ///
    /// # Errors
    ///
    /// They are too many, or waited beside too many others, or another append came between them, or
    /// the append has no such entry.
    pub fn join(self, append: &mut Append) -> Result<(), AppendError> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        for StagedPage { entry, pgid, page } in self.pages {
            let index = usize::try_from(entry).unwrap_or(usize::MAX);
            let Some(entry) = append.storage.get_mut(index) else {
                let reason = format!("a page of entry {index}, which is not there");
                return Err(AppendError::OutOfPlace { reason });
            };
            entry.set.pages.insert(pgid, page);
        }
        Ok(())
    }
}
