//! Reading pages and frames from where they lie.

use tidelog_disk::Disk;
use tidelog_journal::{FrameAt, FrameHead};
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{Page, Pgid};

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
        self.read_at(place.at, &mut bytes)?;
        let page = place.checked(&bytes)?;
        self.pool.insert(place.key, page.clone());
        Ok(page)
    }

    /// Reads pages past the pool, those that lie side by side with one call: in some browsers a
    /// call takes as long for one page as for many.
    pub(super) fn read_pages(&self, places: &[PagePlace]) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; places.len() * PAGE_SIZE];
        let mut rest = bytes.as_mut_slice();
        for run in places.chunk_by(|one, next| next.at.follows(one.at)) {
            let (pages, after) = rest.split_at_mut(run.len() * PAGE_SIZE);
            self.read_at(run[0].at, pages)?;
            for (place, page) in run.iter().zip(pages.chunks_exact(PAGE_SIZE)) {
                place.check(page)?;
            }
            rest = after;
        }
        Ok(bytes)
    }

    /// Reads a frame of the log, whatever it is.
    pub fn read_frame(&self, at: FrameAt) -> Result<(FrameHead, Vec<u8>), StoreError> {
        Ok(self.log.read_frame(at)?)
    }

    /// Fills `bytes` from a place on, whatever is there. They are damaged if the device cannot read
    /// them, though it reads others.
    fn read_at(&self, at: PageAt, bytes: &mut [u8]) -> Result<(), StoreError> {
        match at {
            PageAt::Log(file, offset) => Ok(self.log.read_at(file, offset, bytes)?),
            PageAt::Slot(slot) => self.pages.read(slot, bytes),
        }
    }

    /// Gives the pages in these places, and the numbers of those that are not what was written, or
    /// cannot be read. Those that lie side by side on the device are read with one call.
    pub fn fetch_all(&mut self, places: &[PagePlace]) -> Result<Fetched, StoreError> {
        let mut found: Vec<Option<Page>> =
            places.iter().map(|place| self.pool.get(place.key)).collect();
        let mut missing: Vec<usize> =
            (0..places.len()).filter(|index| found[*index].is_none()).collect();
        missing.sort_unstable_by_key(|index| places[*index].at);
        for run in missing.chunk_by(|one, next| places[*next].at.follows(places[*one].at)) {
            let mut bytes = vec![0; run.len() * PAGE_SIZE];
            let is_read = match self.read_at(places[run[0]].at, &mut bytes) {
                Err(StoreError::Damaged { .. }) => false,
                read => read.map(|()| true)?,
            };
            for (index, bytes) in run.iter().zip(bytes.chunks_exact_mut(PAGE_SIZE)) {
                let place = &places[*index];
                // Beside a page that the device cannot read are others that it can.
                let read = if is_read { Ok(()) } else { self.read_at(place.at, bytes) };
                match read.and_then(|()| place.checked(bytes)) {
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
