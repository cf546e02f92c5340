//! Replies that wait until a batch is durable.

use std::collections::VecDeque;

use tidelog_journal::BatchNumber;
use tidelog_types::{DocumentKey, Epoch, SortedMap};

use crate::{AppendError, OwnerId, StoreReply, Ticket};

/// Replies that wait for a flush, in the order of the batches that they are about.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    queue: VecDeque<Ack>,
    waiting: SortedMap<OwnerId, Waiting>,
}

/// What an owner waits for.
#[derive(Debug, Default)]
struct Waiting {
    /// How many acks.
    count: usize,
    /// The highest ticket that is durable and was not told yet.
    durable: Option<Ticket>,
}

#[derive(Debug)]
struct Ack {
    batch: BatchNumber,
    owner: OwnerId,
    reply: Reply,
}

#[derive(Debug)]
enum Reply {
    /// An append to a document of these names.
    Durable(Ticket, Vec<DocumentKey>),
    /// An append that was in the log before, as far as that is written.
    Repeated(Ticket),
    Destroyed(Ticket, DocumentKey),
    /// The grant of this epoch.
    Granted(Epoch),
    /// What was found, under this epoch, which is not written down.
    Ready(Epoch),
    /// There was no room, and this is what is left to say. Said only when nothing of what failed
    /// can be found again.
    Failed(StoreReply),
}

/// How much of what is spared is written at once: as many frames as fit into one block.
pub(crate) const SPARED_AT_ONCE: usize = 24;

/// What found no room beside something else, and may take the reserve by itself.
#[derive(Debug)]
pub(crate) enum Spared {
    Destroy(Ticket, DocumentKey),
    Grant(Epoch),
    /// This one needs none, and is in the log: but it is told of behind those that were asked for
    /// before it, since whoever hears of a ticket takes those before for done.
    Repeat(Ticket),
}

/// What became of the acks for batches that were taken back.
#[derive(Debug, Default)]
pub(crate) struct TakenBack {
    /// Whose appends to which documents failed.
    pub refused: Vec<(OwnerId, DocumentKey)>,
    /// What has to be carried out again, in this order.
    pub spared: Vec<(OwnerId, Spared)>,
}

impl Acks {
    pub fn durable(
        &mut self,
        batch: BatchNumber,
        owner: OwnerId,
        ticket: Ticket,
        names: Vec<DocumentKey>,
    ) {
        self.push(Ack { batch, owner, reply: Reply::Durable(ticket, names) });
    }

    pub fn repeated(&mut self, batch: BatchNumber, owner: OwnerId, ticket: Ticket) {
        self.push(Ack { batch, owner, reply: Reply::Repeated(ticket) });
    }

    pub fn destroyed(
        &mut self,
        batch: BatchNumber,
        owner: OwnerId,
        ticket: Ticket,
        document: DocumentKey,
    ) {
        self.push(Ack { batch, owner, reply: Reply::Destroyed(ticket, document) });
    }

    pub fn granted(&mut self, batch: BatchNumber, owner: OwnerId, epoch: Epoch) {
        self.push(Ack { batch, owner, reply: Reply::Granted(epoch) });
    }

    pub fn ready(&mut self, batch: BatchNumber, owner: OwnerId, epoch: Epoch) {
        self.push(Ack { batch, owner, reply: Reply::Ready(epoch) });
    }

    fn push(&mut self, ack: Ack) {
        let last = self.queue.back().map_or(BatchNumber(0), |last| last.batch);
        assert!(last <= ack.batch, "BUG: acks out of order");
        self.waiting.get_or_insert_with(ack.owner, Waiting::default).count += 1;
        self.queue.push_back(ack);
    }

    fn count_off(&mut self, owner: OwnerId) -> &mut Waiting {
        let waiting = self.waiting.get_mut(&owner).expect("BUG: an ack nobody counted");
        waiting.count -= 1;
        waiting
    }

    /// Takes out what may be said now that everything up to this batch is durable; of the tickets
    /// of one owner only the highest.
    pub fn release(&mut self, durable: BatchNumber, replies: &mut Vec<(OwnerId, StoreReply)>) {
        let count = self.queue.partition_point(|ack| ack.batch <= durable);
        if count == 0 {
            return;
        }
        let later = self.queue.split_off(count);
        for Ack { owner, reply, .. } in std::mem::replace(&mut self.queue, later) {
            let waiting = self.count_off(owner);
            match reply {
                Reply::Durable(ticket, _)
                | Reply::Repeated(ticket)
                | Reply::Destroyed(ticket, _) => {
                    waiting.durable = waiting.durable.max(Some(ticket));
                }
                Reply::Granted(epoch) | Reply::Ready(epoch) => {
                    replies.push((owner, StoreReply::Ready { epoch }));
                }
                Reply::Failed(reply) => replies.push((owner, reply)),
            }
        }
        self.waiting.retain(|owner, waiting| {
            let durable = waiting.durable.take();
            replies.extend(durable.map(|ticket| (*owner, StoreReply::Durable { ticket })));
            waiting.count > 0
        });
    }

    /// Turns acks for batches after `written` into failures, told when `batch` is durable; what was
    /// in the log before stays there, and is told to be durable then. Spared is what may take the
    /// reserve, if it stood beside something that `needed_reserve`, or if it was more than is
    /// written at once.
    pub fn take_back(
        &mut self,
        written: BatchNumber,
        batch: BatchNumber,
        needed_reserve: bool,
        is_there: &dyn Fn(&DocumentKey) -> bool,
    ) -> TakenBack {
        let first = self.queue.partition_point(|ack| ack.batch <= written);
        let mut taken = TakenBack::default();
        let failed = self.queue.split_off(first);
        let is_one_chunk = failed.len() <= SPARED_AT_ONCE;
        for Ack { owner, reply, .. } in failed {
            self.count_off(owner);
            let error = AppendError::Full;
            let reply = match reply {
                // It was asked for before, and is done.
                Reply::Destroyed(ticket, document) if !is_there(&document) => {
                    Reply::Repeated(ticket)
                }
                reply => reply,
            };
            let reply = match reply {
                // The batch that lacked room was others'.
                Reply::Repeated(ticket) if taken.spared.is_empty() => {
                    self.repeated(batch, owner, ticket);
                    continue;
                }
                Reply::Repeated(ticket) => {
                    taken.spared.push((owner, Spared::Repeat(ticket)));
                    continue;
                }
                Reply::Destroyed(ticket, document) if needed_reserve || !is_one_chunk => {
                    taken.spared.push((owner, Spared::Destroy(ticket, document)));
                    continue;
                }
                Reply::Granted(epoch) if needed_reserve || !is_one_chunk => {
                    taken.spared.push((owner, Spared::Grant(epoch)));
                    continue;
                }
                Reply::Durable(ticket, names) => {
                    taken.refused.extend(names.into_iter().map(|name| (owner, name)));
                    StoreReply::AppendFailed { ticket, error }
                }
                Reply::Destroyed(ticket, document) => {
                    taken.refused.push((owner, document));
                    StoreReply::AppendFailed { ticket, error }
                }
                Reply::Granted(_) => StoreReply::Broken { error },
                // Nothing of it was in the log.
                Reply::Ready(epoch) => StoreReply::Ready { epoch },
                Reply::Failed(reply) => reply,
            };
            self.push(Ack { batch, owner, reply: Reply::Failed(reply) });
        }
        taken
    }

    /// The document was not destroyed, for want of room, which is told when `batch` is durable.
    pub fn not_destroyed(&mut self, batch: BatchNumber, owner: OwnerId, ticket: Ticket) {
        let reply = StoreReply::AppendFailed { ticket, error: AppendError::Full };
        self.push(Ack { batch, owner, reply: Reply::Failed(reply) });
    }

    pub fn forget(&mut self, owner: OwnerId) {
        self.queue.retain(|ack| ack.owner != owner);
        self.waiting.remove(&owner);
    }

    /// How many wait of this owner.
    pub fn count_of(&self, owner: OwnerId) -> usize {
        self.waiting.get(&owner).map_or(0, |waiting| waiting.count)
    }

    pub fn count(&self) -> usize {
        self.queue.len()
    }
}
