//! Reading pages and frames from where they lie.

use std::cmp::Ordering;

use tidelog_disk::Disk;
use tidelog_journal::{FrameAt, FrameHead};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{Page, PageHash, Pgid};

use super::Store;
use crate::error::StoreError;
use crate::place::{PageAt, PagePlace};

/// Pages, and the numbers of those that are damaged.
pub(crate) type Fetched = (Vec<(Pgid, Page)>, Vec<Pgid>);

impl<D: Disk> Store<D> {
    /// Reads a page and makes sure that it is what was written.
    pub(super) fn fetch(&mut self, place: &PagePlace) -> Result<Page, StoreError> {
        if let Some(page) = self.pool.get(place.key) {
            return Ok(page);
        }
        let mut bytes = [0; PAGE_SIZE];
        self.read_page(place, &mut bytes)?;
        let page = place.checked(&bytes)?;
        self.pool.insert(place.key, page.clone());
        Ok(page)
    }

    /// Reads pages without taking them into the pool, those that lie side by side with one call: in
    /// some browsers a call takes as long for one page as for many.
    pub(super) fn read_pages(&self, places: &[PagePlace]) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; places.len() * PAGE_SIZE];
        let mut pages = bytes.chunks_exact_mut(PAGE_SIZE);
        for run in places.chunk_by(|one, next| next.at.follows(&one.at)) {
            let stored = self.read_run(run.iter())?;
            for (nth, place) in run.iter().enumerate() {
                let page = pages.next().expect("BUG: one for each place");
                if let Some(pooled) = self.pool.peek(place.key) {
                    page.copy_from_slice(pooled.bytes());
                    place.check(pooled.hash())?;
                    continue;
                }
                match &stored {
                    Some(stored) => place.unpack(&stored[nth], page)?,
                    None => self.read_page(place, page)?,
                }
                place.check(PageHash::of(page))?;
            }
        }
        Ok(bytes)
    }

    /// Reads a frame of the log, whatever it is.
    pub fn read_frame(&self, at: FrameAt) -> Result<(FrameHead, Vec<u8>), StoreError> {
        Ok(self.log.read_frame(at)?)
    }

    /// Fills `page` with what lies in a place, whatever that is. It is damaged if the device cannot
    /// read it, though it reads others.
    fn read_page(&self, place: &PagePlace, page: &mut [u8]) -> Result<(), StoreError> {
        match &place.at {
            PageAt::Slot(slot) => self.pages.read(*slot, page),
            PageAt::Log(file, pieces) => {
                let mut bytes = [0; PAGE_SIZE];
                for piece in pieces {
                    let bytes = &mut bytes[..piece.size.into()];
                    self.log.read_at(*file, piece.offset, bytes)?;
                    piece.apply(bytes, page).ok_or_else(|| place.damaged())?;
                }
                Ok(())
            }
        }
    }

    /// The bytes that lie in each of these places, which lie side by side, read with one call;
    /// `None` if it is a single one.
    fn read_run<'p>(
        &self,
        places: impl ExactSizeIterator<Item = &'p PagePlace> + Clone,
    ) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        let first = places.clone().next().map(|place| &place.at);
        let Some(first) = first.filter(|_| places.len() > 1) else { return Ok(None) };
        let sizes = places.map(|place| place.at.size().expect("BUG: others lie between"));
        let sizes: Vec<usize> = sizes.collect();
        let mut bytes = vec![0; sizes.iter().sum()];
        match first {
            PageAt::Slot(slot) => self.pages.read(*slot, &mut bytes)?,
            PageAt::Log(file, pieces) => self.log.read_at(*file, pieces[0].offset, &mut bytes)?,
        }
        let mut rest = bytes.as_slice();
        let split = |size| {
            let (stored, after) = rest.split_at(size);
            rest = after;
            stored.to_vec()
        };
        Ok(Some(sizes.into_iter().map(split).collect()))
    }

    /// Gives the pages in these places, and the numbers of those that are not what was written, or
    /// cannot be read. Those that lie side by side on the device are read with one call.
    pub fn fetch_all(&mut self, places: &[PagePlace]) -> Result<Fetched, StoreError> {
        let mut found: Vec<Option<Page>> =
            places.iter().map(|place| self.pool.get(place.key)).collect();
        let mut missing: Vec<usize> =
            (0..places.len()).filter(|index| found[*index].is_none()).collect();
        // A call for each comparison, which is put in a hundred places otherwise.
        let in_order: &dyn Fn(&usize, &usize) -> Ordering =
            &|one, next| places[*one].at.cmp(&places[*next].at);
        missing.sort_unstable_by(in_order);
        for run in missing.chunk_by(|one, next| places[*next].at.follows(&places[*one].at)) {
            let stored = match self.read_run(run.iter().map(|index| &places[*index])) {
                // Beside a page that the device cannot read are others that it can.
                Err(StoreError::Damaged { .. }) => None,
                stored => stored?,
            };
            for (nth, index) in run.iter().enumerate() {
                let place = &places[*index];
                let mut bytes = [0; PAGE_SIZE];
                let read = match &stored {
                    Some(stored) => place.unpack(&stored[nth], &mut bytes),
                    None => self.read_page(place, &mut bytes),
                };
                match read.and_then(|()| place.checked(&bytes)) {
                    Err(StoreError::Damaged { .. }) => {}
                    page => {
                        let page = page?;
                        self.pool.insert(place.key, page.clone());
                        found[*index] = Some(page);
                    }
                }
            }
        }
        let (mut pages, mut damaged) = (Vec::with_capacity(places.len()), Vec::new());
        for (place, page) in places.iter().zip(found) {
            match page {
                Some(page) => pages.push((place.key.pgid, page)),
                None => damaged.push(place.key.pgid),
            }
        }
        Ok((pages, damaged))
    }
}
