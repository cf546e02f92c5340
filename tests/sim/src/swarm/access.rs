//! Worlds whose servers ask for tokens.

use tidelog_types::BudgetLimits;
use tidelog_types::limits::Limits;

use super::{History, Swarm};
use crate::rng::Rng;

/// What happens to tokens.
const SCENES: [History; 7] = [
    History::Demote,
    History::Demote,
    History::Demote,
    History::Expire,
    History::Revoke,
    History::OtherUser,
    History::BeginOffline,
];

impl Swarm {
    /// Draws tokens, and what happens to them: one thing, or two in a row.
    pub(super) fn ask_for_tokens(&mut self, rng: &mut Rng) {
        self.guarded = true;
        (self.tokens, self.silent_tabs, self.flaky_tokens) = (true, false, false);
        self.token_ms = [3_600_000, 120_000, 40_000][rng.index(3)];
        self.one_user = rng.once_in(2);
        // Nothing of it may look like what a store that goes back does.
        self.history.clear();
        (self.fills, self.logs_rot) = (false, false);
        self.limits.document_pages_max = Limits::DEFAULT.document_pages_max;
        self.limits.verdict_pages_max = Limits::DEFAULT.verdict_pages_max;
        // Who is cut off in the end does not hear that it may write again.
        (self.heals_late, self.drains) = (false, false);
        for _ in 0..1 + u32::from(rng.once_in(3)) {
            let scene = SCENES[rng.index(SCENES.len())];
            self.history.push((rng.below(self.actions), scene));
            if scene == History::Demote && rng.once_in(2) {
                // Something happens while mutations are taken back.
                self.limits.slice = BudgetLimits::SMALLEST;
                self.core_slice_ms_max = [40, 150][rng.index(2)];
            }
            if scene == History::Demote && rng.once_in(2) {
                // Some frames are decided, and their client knows of none when others are not
                // taken.
                self.limits.frames_in_flight_size_max = 1;
                self.limits.message_frames_size_max = 0;
                self.limits.entries_in_flight_max = 1;
                self.net_ms_max = self.net_ms_max.max(80);
            }
            if scene == History::OtherUser {
                // A copy that is begun then is that user's.
                (self.destroying, self.drafts, self.rivals) = (false, false, false);
            }
        }
    }
}
