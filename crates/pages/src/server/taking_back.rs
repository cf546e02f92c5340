//! What is taken back since it found no room, and what of it may take the reserve.

use tidelog_disk::Disk;
use tidelog_journal::BatchNumber;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Budget, DocumentKey};

use super::PageServer;
use crate::AppendError;
use crate::acks::{SPARED_AT_ONCE, Spared, TakenBack};
use crate::error::StoreError;

impl<D: Disk> PageServer<D> {
    /// Writes what was appended. If there is no room for it, it is as if it had never been, but for
    /// what may take the reserve.
    pub(super) fn write_log(&mut self) -> Result<(), StoreError> {
        if self.is_taking_back || self.is_lost {
            return Ok(());
        }
        let written = self.store.write();
        self.or_take_back(written)
    }

    pub(super) fn or_take_back(
        &mut self,
        written: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match written {
            Err(error) if error.is_full() && !self.is_lost => {
                self.take_back();
                Ok(())
            }
            written => written,
        }
    }

    /// What was appended and not written is taken back. Reads that were asked for before that was
    /// known are answered first, from the buffer, and nothing else is served meanwhile.
    fn take_back(&mut self) {
        reached(Probe::TakenBack);
        self.is_taking_back = true;
        self.is_discarded = false;
        // It was decided on what is taken back.
        if let Some(recorded) = self.recording.take() {
            self.store.give_up();
            self.ack_recorded(&recorded);
            self.half = Some(recorded);
        }
    }

    /// Goes on with that. What had to wait is for the next poll: were it to fail as well, nothing
    /// would ever come to the change-over that makes room.
    pub(super) fn go_on_taking_back(&mut self, budget: &mut Budget) -> Result<(), StoreError> {
        if !self.is_discarded {
            self.discard_unwritten(budget)?;
        }
        // Before anything joins it that must leave the reserve alone.
        while self.is_discarded && !self.spared.is_empty() {
            if budget.is_spent() {
                return Ok(());
            }
            let before = self.store.log_size();
            self.carry_out_spared();
            budget.spend_steps(1);
            budget.spend_bytes(self.store.log_size().saturating_sub(before));
            let written = self.store.write();
            self.or_take_back(written)?;
        }
        if !self.is_discarded {
            return Ok(());
        }
        self.is_taking_back = false;
        self.is_discarded = false;
        self.flush_now()
    }

    /// Forgets what was appended and not written, and finds out what of it is spared, until that is
    /// done or the budget is spent.
    fn discard_unwritten(&mut self, budget: &mut Budget) -> Result<(), StoreError> {
        while !self.reads.is_empty() && !budget.is_spent() {
            budget.spend_pages(self.serve_turn()?);
        }
        if !self.reads.is_empty() {
            return Ok(());
        }
        // What an earlier one left is not dropped at once.
        if !self.change_overs.go_on_forgetting(budget) {
            return Ok(());
        }
        let begun = self.discarding.take().map_or_else(|| self.store.begin_discarding(), Ok);
        let mut discarding = begun?;
        if !self.store.go_on_discarding(&mut discarding, budget)? {
            self.discarding = Some(discarding);
            return Ok(());
        }
        let written = self.store.written();
        let needed_reserve = self.store.needs_reserve();
        let (batch, former) = self.store.end_discarding(discarding)?;
        self.change_overs.forget(former);
        self.half = None;
        let numbers = &self.store.catalog().numbers;
        let is_there = |document: &DocumentKey| numbers.contains_key(document);
        let TakenBack { refused, spared } =
            self.acks.take_back(written, batch, needed_reserve, &is_there);
        let is_reserve_spent = !needed_reserve && spared.is_empty();
        for key in refused {
            self.refused.insert(key, AppendError::Full);
        }
        for spared in spared.into_iter().rev() {
            self.spared.push_front(spared);
        }
        if is_reserve_spent {
            self.refuse_spared(batch);
        }
        self.is_discarded = true;
        Ok(())
    }

    /// Carries out what is written at once of what was spared: one grant, or as many destructions
    /// as fit into a block.
    fn carry_out_spared(&mut self) {
        for _ in 0..SPARED_AT_ONCE {
            match self.spared.pop_front() {
                Some((owner, Spared::Destroy(ticket, document))) => {
                    self.forget_document(owner, ticket, document);
                }
                Some((owner, Spared::Repeat(ticket))) => {
                    self.acks.repeated(self.store.committed(), owner, ticket);
                }
                Some((owner, Spared::Grant(epoch))) => return self.grant(owner, epoch),
                None => return,
            }
            if matches!(self.spared.front(), Some((_, Spared::Grant(_)))) {
                return;
            }
        }
    }

    /// Not even what makes room has any: what is left of that would find none either.
    fn refuse_spared(&mut self, batch: BatchNumber) {
        for (owner, spared) in std::mem::take(&mut self.spared) {
            let numbers = &self.store.catalog().numbers;
            match spared {
                Spared::Destroy(ticket, document) if !numbers.contains_key(&document) => {
                    self.acks.repeated(batch, owner, ticket);
                }
                Spared::Destroy(ticket, document) => {
                    self.refused.insert((owner, document), AppendError::Full);
                    self.acks.not_destroyed(batch, owner, ticket);
                }
                Spared::Repeat(ticket) => self.acks.repeated(batch, owner, ticket),
                grant @ Spared::Grant(_) => self.spared.push_back((owner, grant)),
            }
        }
    }
}
