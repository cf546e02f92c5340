//! How much one slice of work may cost.

use crate::limits::Limits;

/// What one slice of work may cost: a step of a room, a poll of a page server, a slice of a rebase.
///
/// A value and no constant, so that a simulated world can shrink it. Each is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Pages that are read, changed or sent.
    pub pages: u64,
    /// Steps of SQLite's virtual machine, and at least one for each piece of work.
    pub steps: u64,
    /// Bytes that are taken in or put out, other than pages.
    pub bytes: u64,
}

impl BudgetLimits {
    /// One piece of work in each slice: the most slices that any work can be cut into.
    pub const SMALLEST: Self = Self { pages: 1, steps: 1, bytes: 1 };
}

impl Default for BudgetLimits {
    /// What a slice may cost outside of a simulation.
    fn default() -> Self {
        Limits::DEFAULT.slice
    }
}

/// What is left of a slice of work.
///
/// Whoever takes one does a piece of work, spends what that has cost, and goes on unless the budget
/// [is spent](Self::is_spent). What is left then goes back to where it came from, as after a fault,
/// and is carried on with in a later slice, under a fresh budget.
///
/// The piece that passes the bound is done whole. So every slice gets on, however small its budget
/// is, and costs at most the budget and one piece.
///
/// ```
/// use tidelog_types::{Budget, BudgetLimits};
///
/// let mut budget = Budget::new(BudgetLimits { pages: 3, steps: 100, bytes: 100 });
/// let mut sets = vec![2, 2, 2];
/// while !budget.is_spent() {
///     let Some(pages_count) = sets.pop() else { break };
///     budget.spend_pages(pages_count);
/// }
/// assert_eq!(sets, [2], "the second set passed the bound, and the third waits");
/// ```
#[derive(Debug)]
pub struct Budget {
    left: BudgetLimits,
}

impl Budget {
    /// A fresh budget.
    ///
    /// # Panics
    ///
    /// If a limit is 0: such a slice would not get on.
    #[must_use]
    pub fn new(limits: BudgetLimits) -> Self {
        assert!(limits.pages > 0, "BUG: a slice without a page");
        assert!(limits.steps > 0, "BUG: a slice without a step");
        assert!(limits.bytes > 0, "BUG: a slice without a byte");
        Self { left: limits }
    }

    /// A piece of work was about that many pages.
    pub fn spend_pages(&mut self, count: u64) {
        self.left.pages = self.left.pages.saturating_sub(count);
    }

    /// A piece of work took that many steps.
    pub fn spend_steps(&mut self, count: u64) {
        self.left.steps = self.left.steps.saturating_sub(count);
    }

    /// A piece of work took in or put out that many bytes.
    pub fn spend_bytes(&mut self, count: u64) {
        self.left.bytes = self.left.bytes.saturating_sub(count);
    }

    /// Whether one of the limits is reached: the rest is for a later slice.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.left.pages == 0 || self.left.steps == 0 || self.left.bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_ends_a_slice_by_itself() {
        let limits = BudgetLimits { pages: 2, steps: 2, bytes: 2 };
        let spends: [fn(&mut Budget, u64); 3] =
            [Budget::spend_pages, Budget::spend_steps, Budget::spend_bytes];
        for spend in spends {
            let mut budget = Budget::new(limits);
            spend(&mut budget, 1);
            assert!(!budget.is_spent());
            spend(&mut budget, 1);
            assert!(budget.is_spent());
        }
    }

    #[test]
    fn the_piece_that_passes_the_bound_is_paid_for_once() {
        let mut budget = Budget::new(BudgetLimits::default());
        budget.spend_bytes(u64::MAX);
        budget.spend_bytes(u64::MAX);
        assert!(budget.is_spent());
        assert!(!Budget::new(BudgetLimits::default()).is_spent());
    }

    #[test]
    fn the_smallest_slice_is_one_piece_of_work() {
        let mut budget = Budget::new(BudgetLimits::SMALLEST);
        assert!(!budget.is_spent());
        budget.spend_steps(1);
        assert!(budget.is_spent());
    }

    #[test]
    #[should_panic(expected = "BUG: a slice without a step")]
    fn a_slice_that_would_not_get_on_is_refused() {
        let _ = Budget::new(BudgetLimits { steps: 0, ..BudgetLimits::default() });
    }
}
