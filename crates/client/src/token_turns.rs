//! Who is asked for a token as a way to a server begins, one after the other, and what they gave.

use tidelog_types::SortedMap;

use crate::effect::TabId;
use crate::protocol::Handle;

/// Milliseconds for which a token is good that came when nobody could be told it.
const TOKEN_KEPT_MS: u64 = 30_000;

/// A tab that can be asked for a token, by a document that it holds.
pub(crate) type TokenHolder = (TabId, Handle);

/// The turns of those who can give a token. Whoever gave none, or was silent, bars no other one,
/// nor is asked again before all others were asked since. Whose token let us in comes first.
#[derive(Debug)]
pub(crate) struct TokenTurns {
    /// Who was asked last, or by whose we were let in since.
    last: Option<TokenHolder>,
    /// The tab that asked to connect last: of those that are as good as never asked, it is first.
    called_by: Option<TabId>,
    /// Who was asked since the server let us in last, and whose token was refused since it let us
    /// in for a while: one that refuses what it has just let in is not asked by each in turn
    /// without an end.
    asked: SortedMap<TokenHolder, Asked>,
    /// Tokens for the next connections: they came when nobody could be told them.
    kept: SortedMap<TokenHolder, KeptToken>,
    /// How often somebody was asked.
    turns_ever: u64,
    /// The turn up to which they were asked when a round was counted last, and whether all were
    /// asked since, with the one whose token the server is told now.
    round_from: u64,
    is_round_over: bool,
}

/// When somebody was asked last, as a number that grows with each question, or zero where that is
/// as good as never, and how often without an answer: that may take longer than a connection lasts
/// without one. Each question is answered, whatever has become of the connection by then.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    turn: u64,
    owed: u32,
    /// How many of those answers the next connection does not want.
    late: u32,
    /// Whether what it gave was refused.
    is_refused: bool,
}

/// A token, and when it came.
#[derive(Debug)]
struct KeptToken {
    token: String,
    came_at_ms: u64,
}

/// What comes of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// How many more answers are owed.
    pub(crate) owed: u32,
    /// Whether the next connection does not want it.
    pub(crate) is_late: bool,
}

/// By what the next connection is tried.
pub(crate) enum Next {
    /// By a token that has come before.
    Kept(String),
    /// By one that this holder is asked for, who was as good as never asked if it `is_new`.
    Ask { holder: TokenHolder, is_new: bool },
    /// By none: nobody has any.
    None,
}

impl TokenTurns {
    pub(crate) fn new() -> Self {
        Self {
            last: None,
            called_by: None,
            asked: SortedMap::new(),
            kept: SortedMap::new(),
            turns_ever: 0,
            round_from: 0,
            is_round_over: true,
        }
    }

    /// Whose turn it is, of those who can give one.
    pub(crate) fn next(&mut self, now_ms: u64, holders: &[TokenHolder]) -> Next {
        self.kept.retain(|_, kept| now_ms < kept.came_at_ms + TOKEN_KEPT_MS);
        self.is_round_over = self.had_turns(holders);
        let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.came_at_ms);
        if let Some(holder) = oldest.map(|(holder, _)| *holder)
            && let Some(kept) = self.kept.remove(&holder)
        {
            self.last = Some(holder);
            return Next::Kept(kept.token);
        }
        let rank = |holder: &&TokenHolder| {
            let (is_called, is_first) =
                (self.called_by == Some(holder.0), self.last == Some(**holder));
            (self.turn_of(holder), !is_called, !is_first)
        };
        let Some(holder) = holders.iter().min_by_key(rank).copied() else { return Next::None };
        let is_new = self.turn_of(&holder) == 0;
        self.last = Some(holder);
        self.asks(holder);
        self.is_round_over = self.had_turns(holders);
        Next::Ask { holder, is_new }
    }

    /// This one is asked for a token.
    pub(crate) fn asks(&mut self, holder: TokenHolder) {
        self.move_behind(holder).owed += 1;
    }

    /// All others have their turn before this one.
    fn move_behind(&mut self, holder: TokenHolder) -> &mut Asked {
        self.turns_ever += 1;
        let asked = self.asked.get_or_insert_with(holder, Asked::default);
        asked.turn = self.turns_ever;
        asked
    }

    /// Who was asked last, or by whose token we were let in since.
    pub(crate) fn last(&self) -> Option<TokenHolder> {
        self.last
    }

    /// The server is told this one's token, or lets us in by it.
    pub(crate) fn goes_by(&mut self, holder: TokenHolder) {
        self.last = Some(holder);
    }

    /// Whether this one was asked, and has not answered.
    pub(crate) fn has_asked(&self, holder: TokenHolder) -> bool {
        self.asked.get(&holder).is_some_and(|asked| asked.owed > 0)
    }

    /// Whether anybody has not answered.
    pub(crate) fn has_asked_any(&self) -> bool {
        self.asked.values().any(|asked| asked.owed > 0)
    }

    /// Somebody who was asked has answered, the oldest question first as far as anybody knows.
    pub(crate) fn answered(&mut self, holder: TokenHolder) -> Answered {
        let asked = self.asked.get_mut(&holder).filter(|asked| asked.owed > 0);
        let asked = asked.expect("BUG: an answer without a question");
        let is_late = asked.late > 0;
        asked.owed -= 1;
        asked.late = asked.late.saturating_sub(1);
        Answered { owed: asked.owed, is_late }
    }

    /// A token for the next connection.
    pub(crate) fn keep(&mut self, holder: TokenHolder, token: String, now_ms: u64) {
        self.kept.insert(holder, KeptToken { token, came_at_ms: now_ms });
    }

    pub(crate) fn has_kept(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Whether one of those was as good as never asked.
    pub(crate) fn has_new(&self, holders: &[TokenHolder]) -> bool {
        holders.iter().any(|holder| self.turn_of(holder) == 0)
    }

    /// Whether one of those has another token than what was refused, as far as is known: it was not
    /// asked, or what it has given was not said yet.
    pub(crate) fn has_unasked(&self, holders: &[TokenHolder]) -> bool {
        self.has_new(holders) || holders.iter().any(|holder| self.kept.contains_key(holder))
    }

    /// The token by which we came, or had been let in, is refused.
    pub(crate) fn last_is_refused(&mut self) {
        if let Some(holder) = self.last {
            self.move_behind(holder).is_refused = true;
        }
    }

    /// Whether all who can give a token were asked since this was so last.
    pub(crate) fn ends_round(&mut self) -> bool {
        if self.is_round_over {
            self.round_from = self.turns_ever;
        }
        self.is_round_over
    }

    /// The server has let us in: nobody else's token is waited for, and whose this was is asked
    /// first again.
    pub(crate) fn is_let_in(&mut self) {
        let let_in = self.last;
        for (holder, asked) in self.asked.iter_mut() {
            if !asked.is_refused || Some(*holder) == let_in {
                asked.forget_turn();
            }
        }
        self.drop_idle();
        self.want_no_more();
        self.called_by = None;
    }

    /// Who was asked, and what it gave, says nothing any more.
    pub(crate) fn begin_anew(&mut self) {
        self.asked.values_mut().for_each(Asked::forget_turn);
        self.drop_idle();
    }

    /// The same of what has come meanwhile, or is to come.
    pub(crate) fn forget(&mut self) {
        self.begin_anew();
        self.want_no_more();
    }

    /// That tab is gone, and answers nothing any more.
    pub(crate) fn drop_tab(&mut self, tab: TabId) {
        self.asked.retain(|holder, _| holder.0 != tab);
    }

    /// Nothing that was asked for is kept for the next connection.
    fn want_no_more(&mut self) {
        self.asked.values_mut().for_each(|asked| asked.late = asked.owed);
        self.kept.clear();
    }

    /// Forgets those who are as good as never asked, and owe no answer.
    fn drop_idle(&mut self) {
        self.asked.retain(|_, asked| asked.turn > 0 || asked.owed > 0);
    }

    /// This tab asks for the server anew. It may have another token by now, and so is asked before
    /// others.
    pub(crate) fn is_called_by(&mut self, tab: TabId) {
        self.called_by = Some(tab);
        for (_, asked) in self.asked.iter_mut().filter(|(holder, _)| holder.0 == tab) {
            asked.forget_turn();
        }
    }

    /// Whether all of those were asked since a round was counted last.
    fn had_turns(&self, holders: &[TokenHolder]) -> bool {
        holders.iter().all(|holder| self.turn_of(holder) > self.round_from)
    }

    /// When that one was asked last; zero if it was not.
    fn turn_of(&self, holder: &TokenHolder) -> u64 {
        self.asked.get(holder).map_or(0, |asked| asked.turn)
    }
}

impl Asked {
    /// It is as good as never asked. What it owes, it owes.
    fn forget_turn(&mut self) {
        (self.turn, self.is_refused) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_of_who_has_answered_or_is_gone() {
        let [answers, leaves] = [(TabId(1), Handle(1)), (TabId(2), Handle(1))];
        let mut turns = TokenTurns::new();
        turns.asks(answers);
        turns.asks(leaves);
        turns.answered(answers);
        assert!(turns.has_asked_any());
        turns.begin_anew();
        assert_eq!(turns.asked.keys().collect::<Vec<_>>(), [&leaves]);
        turns.drop_tab(leaves.0);
        assert!(turns.asked.is_empty());
    }
}
