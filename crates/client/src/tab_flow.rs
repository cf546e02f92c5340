//! How much each tab was told that it has not heard yet.
//!
//! Answers are bounded by what tabs ask. What they did not ask for is held back from a tab that is
//! busy or hidden: of the rows of live queries and of the status only the newest counts anyway, and
//! rejections wait for as long as they are kept. Those that are not kept any more are told all the
//! same, up to a bound of their own: what a frozen tab is told lies in memory until it goes on.

use std::collections::VecDeque;

use tidelog_types::SortedMap;

use crate::effect::TabId;
use crate::protocol::{FromCore, size_of_args};

/// Bytes that a message counts beside its values.
const MESSAGE_SIZE: usize = 256;

/// How many times as much a tab has to hear before it misses what nobody keeps for it: one that is
/// not frozen has heard of it long before.
const DEAF_TIMES: usize = 16;

/// What is on its way to all tabs.
#[derive(Debug, Default)]
pub(crate) struct TabFlow {
    tabs: SortedMap<TabId, Unheard>,
    /// Bytes that a tab has not heard, beyond which it is behind.
    unheard_size_max: usize,
}

/// What one tab was told.
#[derive(Debug, Default)]
struct Unheard {
    /// Bytes of each list of messages, oldest first.
    lists: VecDeque<usize>,
    /// Bytes that are to go in the next list.
    next: usize,
    /// Bytes in all of them.
    size: usize,
    /// How many lists it ever heard.
    heard: u64,
}

impl TabFlow {
    /// To no tab yet, each of which may have so much to hear.
    pub(crate) fn new(unheard_size_max: usize) -> Self {
        Self { tabs: SortedMap::new(), unheard_size_max }
    }

    /// A tab is there.
    pub(crate) fn meet(&mut self, tab: TabId) {
        self.tabs.get_or_insert_with(tab, Unheard::default);
    }

    /// Whether the tab is there.
    pub(crate) fn knows(&self, tab: TabId) -> bool {
        self.tabs.contains_key(&tab)
    }

    /// This message goes to a tab. Says no if it is gone: it hears nothing more.
    pub(crate) fn tell(&mut self, tab: TabId, message: &FromCore) -> bool {
        let Some(unheard) = self.tabs.get_mut(&tab) else { return false };
        let values_size = match message {
            FromCore::Rows { rows, .. } => rows.cells.len(),
            FromCore::RejectionNews { args, reason, .. } => size_of_args(args) + reason.len(),
            FromCore::Presence { others, .. } => others.iter().map(|it| it.state.len() + 64).sum(),
            _ => 0,
        };
        unheard.next += values_size + MESSAGE_SIZE;
        unheard.size += values_size + MESSAGE_SIZE;
        true
    }

    /// What a tab was told since the last list is a list.
    pub(crate) fn end_list(&mut self, tab: TabId) {
        if let Some(unheard) = self.tabs.get_mut(&tab) {
            unheard.lists.push_back(std::mem::take(&mut unheard.next));
        }
    }

    /// A tab has heard so many lists more.
    pub(crate) fn heard(&mut self, tab: TabId, lists: u32) {
        let Some(unheard) = self.tabs.get_mut(&tab) else { return };
        for _ in 0..lists {
            let Some(size) = unheard.lists.pop_front() else { break };
            unheard.size -= size;
            unheard.heard += 1;
        }
    }

    /// How many lists a tab ever heard, and how many once it has heard what it is told next.
    pub(crate) fn heard_and_next(&self, tab: TabId) -> (u64, u64) {
        let of = |it: &Unheard| (it.heard, it.heard + it.lists.len() as u64 + 1);
        self.tabs.get(&tab).map_or((0, 0), of)
    }

    /// What does not add up; for simulations.
    pub(crate) fn doubt(&self) -> Option<String> {
        let is_so = |it: &Unheard| it.size == it.next + it.lists.iter().sum::<usize>();
        let wrong = self.tabs.iter().find(|(_, unheard)| !is_so(unheard));
        wrong.map(|(tab, unheard)| format!("{tab:?} has to hear {unheard:?}"))
    }

    /// The tab is gone.
    pub(crate) fn forget(&mut self, tab: TabId) {
        self.tabs.remove(&tab);
    }

    /// Whether a tab has more to hear than it should be told on top of.
    pub(crate) fn is_behind(&self, tab: TabId) -> bool {
        self.tabs.get(&tab).is_some_and(|unheard| unheard.size >= self.unheard_size_max)
    }

    /// Whether a tab has so much to hear that was told before this step that it is not told what
    /// nobody keeps for it either. How much comes at once says nothing of who hears it.
    pub(crate) fn is_deaf(&self, tab: TabId) -> bool {
        let size_max = self.unheard_size_max.saturating_mul(DEAF_TIMES);
        self.tabs.get(&tab).is_some_and(|unheard| unheard.size - unheard.next >= size_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Call;

    const TAB: TabId = TabId(1);
    const LISTS: usize = 5;

    #[test]
    fn a_tab_is_behind_until_it_has_heard_enough() {
        let mut flow = TabFlow::new(LISTS * MESSAGE_SIZE);
        flow.meet(TAB);
        for _ in 0..LISTS {
            assert!(!flow.is_behind(TAB));
            assert!(flow.tell(TAB, &FromCore::Done { call: Call(1) }));
            flow.end_list(TAB);
        }
        assert!(flow.is_behind(TAB));
        assert!(!flow.is_behind(TabId(2)));
        flow.heard(TAB, 1);
        assert!(!flow.is_behind(TAB));
        flow.heard(TAB, u32::MAX);
        assert_eq!(flow.tabs[&TAB].size, 0);
    }
}
