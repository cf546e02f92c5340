//! Appends of one document on their way to the disk, each with what follows once it is durable.

use std::collections::VecDeque;

use tidelog_types::DocumentKey;

use crate::{Append, Ticket};

/// What an owner of one document has handed to the store, and the consequences that wait for it.
///
/// Both who owns many documents (the core) and who owns one (a room) gather changes in
/// [`draft`](Self::draft), close them with [`commit`](Self::commit), and act on what
/// [`next_ready`](Self::next_ready) gives: persist, then send.
///
/// An append that failed takes all later ones along, since they build on it; older ones are still
/// answered. Until they are, [`is_drained`](Self::is_drained) says no, and the document is not to
/// be opened again: what the store would say of it may not be durable.
#[derive(Debug)]
pub struct AppendLedger<T> {
    document: DocumentKey,
    draft: Append,
    /// What follows when `draft` is durable.
    after: Vec<T>,
    /// Oldest first.
    in_flight: VecDeque<(Ticket, Vec<T>)>,
    ready: VecDeque<T>,
}

impl<T> AppendLedger<T> {
    /// A ledger of this document in which nothing stands.
    #[must_use]
    pub fn new(document: DocumentKey) -> Self {
        Self {
            draft: Append::to(document.clone()),
            document,
            after: Vec::new(),
            in_flight: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// The append that is being gathered.
    pub fn draft(&mut self) -> &mut Append {
        &mut self.draft
    }

    /// Whether what is gathered says anything.
    #[must_use]
    pub fn has_gathered(&self) -> bool {
        !self.draft.is_empty()
    }

    /// Whether something follows what is gathered.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        !self.after.is_empty()
    }

    /// Does this once all that has been gathered so far is durable.
    pub fn after(&mut self, then: T) {
        self.after.push(then);
    }

    /// What follows what is gathered, in its order.
    pub fn following_mut(&mut self) -> &mut Vec<T> {
        &mut self.after
    }

    /// Closes the append that was gathered, if it says anything, under the ticket that
    /// `take_ticket` draws. If it says nothing, what was to follow it follows the youngest append
    /// in flight, or at once.
    pub fn commit(
        &mut self,
        take_ticket: impl FnOnce(Append) -> Ticket,
    ) -> Option<(Ticket, &mut Vec<T>)> {
        if !self.has_gathered() {
            match self.in_flight.back_mut() {
                Some((_, waiting)) => waiting.append(&mut self.after),
                None => self.ready.extend(self.after.drain(..)),
            }
            return None;
        }
        let append = std::mem::replace(&mut self.draft, Append::to(self.document.clone()));
        let ticket = take_ticket(append);
        Some((ticket, self.in_flight_under(ticket)))
    }

    /// Something else than an append is on its way under this ticket: what was to follow, follows
    /// that.
    ///
    /// # Panics
    ///
    /// If an append was gathered and not committed.
    pub fn in_flight_as(&mut self, ticket: Ticket) {
        assert!(self.draft.is_empty(), "BUG: an append is left behind");
        self.in_flight_under(ticket);
    }

    fn in_flight_under(&mut self, ticket: Ticket) -> &mut Vec<T> {
        let last = self.in_flight.back().map_or(Ticket(0), |(last, _)| *last);
        assert!(last < ticket, "BUG: tickets go back");
        self.in_flight.push_back((ticket, std::mem::take(&mut self.after)));
        &mut self.in_flight.back_mut().expect("BUG: pushed just now").1
    }

    /// All appends up to this one are durable.
    pub fn on_durable(&mut self, ticket: Ticket) {
        while self.in_flight.front().is_some_and(|(first, _)| *first <= ticket) {
            let (_, waited) = self.in_flight.pop_front().expect("BUG: there was one");
            self.ready.extend(waited);
        }
    }

    /// This append left nothing behind. Gives what waited for it and for those after it, which
    /// build on it, gathered ones included; `None` if it is none of those in flight.
    pub fn on_failed(&mut self, ticket: Ticket) -> Option<Vec<T>> {
        let index = self.in_flight.iter().position(|(waiting, _)| *waiting == ticket)?;
        let lost = self.in_flight.split_off(index);
        Some(lost.into_iter().flat_map(|(_, waiting)| waiting).chain(self.forget_draft()).collect())
    }

    /// Forgets what was gathered. Gives what was to follow it.
    pub fn forget_draft(&mut self) -> Vec<T> {
        self.draft = Append::to(self.document.clone());
        std::mem::take(&mut self.after)
    }

    /// The store is gone, and with it all that was not durable. Gives what waited.
    pub fn reset(&mut self) -> Vec<T> {
        let lost = std::mem::take(&mut self.in_flight);
        lost.into_iter().flat_map(|(_, waiting)| waiting).chain(self.forget_draft()).collect()
    }

    /// The next thing that may be done now.
    pub fn next_ready(&mut self) -> Option<T> {
        self.ready.pop_front()
    }

    /// All that waits or may be done, in no order.
    pub fn waiting(&self) -> impl Iterator<Item = &T> {
        let in_flight = self.in_flight.iter().flat_map(|(_, waiting)| waiting);
        in_flight.chain(&self.after).chain(&self.ready)
    }

    /// Whether something may be done now.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether the store has answered for all that it was handed.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether nothing is on its way or waits to go.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.after.is_empty() && self.ready.is_empty()
    }

    /// How many appends the store has not answered for.
    #[must_use]
    pub fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes out what waits for an append, gathered ones included, where it is wanted.
    pub fn take_waiting(&mut self, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        let in_flight = self.in_flight.iter_mut().map(|(_, waiting)| waiting);
        for waiting in in_flight.chain([&mut self.after]) {
            taken.extend(waiting.extract_if(.., |then| is_wanted(then)));
        }
        taken
    }

    /// What waits for the appends in flight, oldest first.
    pub fn waiting_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.in_flight.iter_mut().flat_map(|(_, waiting)| waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> AppendLedger<u32> {
        AppendLedger::new(DocumentKey::new("d", "").expect("a good name"))
    }

    fn append(ledger: &mut AppendLedger<u32>, ticket: u64, then: u32) {
        ledger.draft().record = Some(vec![1].into());
        ledger.after(then);
        assert!(ledger.commit(|_| Ticket(ticket)).is_some());
    }

    fn ready(ledger: &mut AppendLedger<u32>) -> Vec<u32> {
        std::iter::from_fn(|| ledger.next_ready()).collect()
    }

    #[test]
    fn what_follows_an_append_waits_until_it_is_durable() {
        let mut ledger = ledger();
        append(&mut ledger, 4, 1);
        append(&mut ledger, 7, 2);
        ledger.after(3);
        assert!(ledger.commit(|_| unreachable!("it says nothing")).is_none());
        ledger.on_durable(Ticket(6));
        assert_eq!(ready(&mut ledger), [1]);
        ledger.on_durable(Ticket(9));
        assert_eq!(ready(&mut ledger), [2, 3]);
        ledger.after(4);
        assert!(ledger.commit(|_| unreachable!("it says nothing")).is_none());
        assert_eq!(ready(&mut ledger), [4]);
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_failure_takes_along_what_was_built_on_it_and_nothing_older() {
        let mut ledger = ledger();
        append(&mut ledger, 1, 1);
        append(&mut ledger, 2, 2);
        append(&mut ledger, 3, 3);
        ledger.draft().record = Some(vec![2].into());
        ledger.after(4);
        assert_eq!(ledger.on_failed(Ticket(2)), Some(vec![2, 3, 4]));
        assert_eq!(ledger.on_failed(Ticket(3)), None, "it went with the one before it");
        assert!(!ledger.is_drained(), "an older one may still fail");
        ledger.on_durable(Ticket(1));
        assert!(ledger.is_drained());
        assert_eq!(ready(&mut ledger), [1]);
        assert!(ledger.commit(|_| unreachable!("what was gathered is forgotten")).is_none());
    }
}
