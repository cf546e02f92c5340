//! What is to be said once a batch is durable.

use std::collections::{BTreeMap, VecDeque};

use tidelog_journal::BatchNumber;
use tidelog_types::{DocumentKey, Epoch};

use crate::{AppendError, OwnerId, StoreReply, Ticket};

/// Replies that wait for a flush, in the order of the batches that they are about.
#[derive(Debug, Default)]
pub(crate) struct Promises(VecDeque<Promise>);

#[derive(Debug)]
struct Promise {
    batch: BatchNumber,
    owner: OwnerId,
    what: Promised,
}

#[derive(Debug)]
enum Promised {
    Durable(Ticket, DocumentKey),
    Ready(Epoch),
    /// There was no room. Said only when nothing of it can be found again.
    Failed(StoreReply),
}

impl Promises {
    pub fn durable(
        &mut self,
        batch: BatchNumber,
        owner: OwnerId,
        ticket: Ticket,
        document: DocumentKey,
    ) {
        self.push(Promise { batch, owner, what: Promised::Durable(ticket, document) });
    }

    pub fn ready(&mut self, batch: BatchNumber, owner: OwnerId, epoch: Epoch) {
        self.push(Promise { batch, owner, what: Promised::Ready(epoch) });
    }

    fn push(&mut self, promise: Promise) {
        let last = self.0.back().map_or(BatchNumber(0), |last| last.batch);
        assert!(last <= promise.batch, "BUG: promises out of order");
        self.0.push_back(promise);
    }

    /// Takes out what may be said now that everything up to this batch is durable; of the tickets
    /// of one owner only the highest.
    pub fn keep(&mut self, durable: BatchNumber, replies: &mut Vec<(OwnerId, StoreReply)>) {
        let mut tickets: BTreeMap<OwnerId, Ticket> = BTreeMap::new();
        let count = self.0.partition_point(|promise| promise.batch <= durable);
        for Promise { owner, what, .. } in self.0.drain(..count) {
            match what {
                Promised::Durable(ticket, _) => {
                    let latest = tickets.entry(owner).or_insert(ticket);
                    *latest = ticket.max(*latest);
                }
                Promised::Ready(epoch) => replies.push((owner, StoreReply::Ready { epoch })),
                Promised::Failed(reply) => replies.push((owner, reply)),
            }
        }
        let durable = |(owner, ticket)| (owner, StoreReply::Durable { ticket });
        replies.extend(tickets.into_iter().map(durable));
    }

    /// Turns what was promised for batches after `written` into failures, told when `batch` is
    /// durable. Gives whose appends to which documents they were.
    pub fn take_back(
        &mut self,
        written: BatchNumber,
        batch: BatchNumber,
    ) -> Vec<(OwnerId, DocumentKey)> {
        let first = self.0.partition_point(|promise| promise.batch <= written);
        let mut documents = Vec::new();
        for Promise { owner, what, .. } in self.0.split_off(first) {
            let error = AppendError::Full;
            let reply = match what {
                Promised::Durable(ticket, document) => {
                    documents.push((owner, document));
                    StoreReply::AppendFailed { ticket, error }
                }
                Promised::Ready(_) => StoreReply::Broken { error },
                Promised::Failed(reply) => reply,
            };
            self.push(Promise { batch, owner, what: Promised::Failed(reply) });
        }
        documents
    }

    pub fn forget(&mut self, owner: OwnerId) {
        self.0.retain(|promise| promise.owner != owner);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}
