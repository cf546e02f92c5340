//! Forgetting batches that could not be written, in slices.

use tidelog_disk::Disk;
use tidelog_journal::{BatchNumber, Found, FoundFrame, LOG_START};
use tidelog_types::Budget;

use super::Store;
use crate::catalog::Catalog;
use crate::error::StoreError;

/// Bytes of the log that are read at once, unless a host wants smaller slices.
const PIECE_SIZE: u64 = 256 * 1024;

/// What the log says without the batches that could not be written, as far as it was read.
#[derive(Debug)]
pub(crate) struct Discarding {
    catalog: Catalog,
    read: u64,
}

impl<D: Disk> Store<D> {
    /// Begins to forget the batches that could not be written. Until that has
    /// [ended](Self::end_discarding) they are known as before, and nothing may be written.
    pub fn begin_discarding(&mut self) -> Result<Discarding, StoreError> {
        self.pages.give_back()?;
        Ok(Discarding { catalog: Catalog::new(self.pages.slots()), read: LOG_START })
    }

    /// Reads the log again until the budget is spent. Answers whether that was all of it.
    pub fn go_on_discarding(
        &self,
        Discarding { catalog, read }: &mut Discarding,
        budget: &mut Budget,
    ) -> Result<bool, StoreError> {
        let end = self.log.written_size();
        let size = PIECE_SIZE.min(self.options.limits.slice.bytes);
        let size = usize::try_from(size).expect("BUG: a small number");
        while *read < end {
            if budget.is_spent() {
                return Ok(false);
            }
            let mut answer = Ok(());
            let mut visit = |frame: FoundFrame<'_>, _| {
                if answer.is_ok() {
                    answer = catalog.take_in(Found::Frame(frame));
                }
            };
            let before = std::mem::replace(read, self.log.read_from(*read, end, size, &mut visit)?);
            answer.expect("BUG: the log says what cannot be");
            budget.spend_steps(1);
            budget.spend_bytes(*read - before);
        }
        Ok(true)
    }

    /// Forgets those batches, in the log and in the catalog. Once the given number is durable they
    /// will never be found again. Gives what was known with them.
    pub fn end_discarding(
        &mut self,
        Discarding { mut catalog, .. }: Discarding,
    ) -> Result<(BatchNumber, Catalog), StoreError> {
        let number = self.log.discard()?;
        self.space.missing();
        self.pool.clear();
        if !self.pages.is_tight() {
            catalog.extents.let_grow();
        }
        self.unwritten.clear();
        Ok((number, std::mem::replace(&mut self.catalog, catalog)))
    }
}
