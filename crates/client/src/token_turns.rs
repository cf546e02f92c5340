//! Who is asked for a token as a way to a server begins, one after the other, and what they gave.

use tidelog_types::{Life, SortedMap};

use crate::effect::TabId;
use crate::protocol::Handle;

/// Milliseconds for which a token is good that came when nobody could be told it.
const TOKEN_KEPT_MS: u64 = 30_000;
/// Questions whose answers are waited for at most: a token function may never give any.
const QUESTIONS_MAX: u64 = 64;

/// A tab that can be asked for a token, by a document that it holds.
pub(crate) type TokenHolder = (TabId, Handle);

/// Numbers for the questions of a core. No other core has them: a tab may answer what that one has
/// asked.
#[derive(Debug)]
pub(crate) struct Questions {
    next: u64,
}

impl Questions {
    /// They begin at random, as lives are, and far below 2^53, up to which JavaScript counts.
    pub(crate) fn of(life: Life) -> Self {
        let drawn = *life.0.first_chunk().expect("BUG: 16 bytes hold 8");
        Self { next: u64::from_le_bytes(drawn) >> 16 }
    }

    fn draw(&mut self) -> u64 {
        let drawn = self.next;
        self.next += 1;
        drawn
    }
}

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
    /// Who was asked, by the number of the question, for as long as its answer is wanted: that may
    /// take longer than a connection lasts without one.
    asked_by: SortedMap<u64, TokenHolder>,
    /// What was asked last.
    latest: Option<u64>,
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
/// as good as never.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    turn: u64,
    /// Whether what it gave was refused.
    is_refused: bool,
}

/// A token, and when it came.
#[derive(Debug)]
struct KeptToken {
    token: String,
    came_at_ms: u64,
}

/// By what the next connection is tried.
pub(crate) enum Next {
    /// By a token that has come before.
    Kept(String),
    /// By one that this holder is asked for, who was as good as never asked if it `is_new`.
    Ask { holder: TokenHolder, question: u64, is_new: bool },
    /// By none: nobody has any.
    None,
}

impl TokenTurns {
    pub(crate) fn new() -> Self {
        Self {
            last: None,
            called_by: None,
            asked: SortedMap::new(),
            asked_by: SortedMap::new(),
            latest: None,
            kept: SortedMap::new(),
            turns_ever: 0,
            round_from: 0,
            is_round_over: true,
        }
    }

    /// Whose turn it is, of those who can give one.
    pub(crate) fn next(
        &mut self,
        now_ms: u64,
        holders: &[TokenHolder],
        questions: &mut Questions,
    ) -> Next {
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
        let question = self.asks(holder, questions);
        self.is_round_over = self.had_turns(holders);
        Next::Ask { holder, question, is_new }
    }

    /// This one is asked for a token. Gives the number of the question.
    pub(crate) fn asks(&mut self, holder: TokenHolder, questions: &mut Questions) -> u64 {
        self.move_behind(holder);
        let question = questions.draw();
        self.asked_by.insert(question, holder);
        self.asked_by.retain(|before, _| question - before < QUESTIONS_MAX);
        self.latest = Some(question);
        question
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

    /// Whether this tab was asked that, and its answer is wanted.
    pub(crate) fn has_asked(&self, tab: TabId, question: u64) -> bool {
        self.asked_by.get(&question).is_some_and(|holder| holder.0 == tab)
    }

    /// Whether nothing was asked later.
    pub(crate) fn is_latest(&self, question: u64) -> bool {
        self.latest == Some(question)
    }

    /// That question is answered. Gives who was asked.
    pub(crate) fn answered(&mut self, question: u64) -> TokenHolder {
        self.asked_by.remove(&question).expect("BUG: an answer without a question")
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
        self.asked.retain(|holder, asked| asked.is_refused && Some(*holder) != let_in);
        self.want_no_more();
        self.called_by = None;
    }

    /// Who was asked, and what it gave, says nothing any more.
    pub(crate) fn begin_anew(&mut self) {
        self.asked.clear();
    }

    /// The same of what has come meanwhile, or is to come.
    pub(crate) fn forget(&mut self) {
        self.begin_anew();
        self.want_no_more();
    }

    /// That tab is gone, and answers nothing any more.
    pub(crate) fn drop_tab(&mut self, tab: TabId) {
        self.asked.retain(|holder, _| holder.0 != tab);
        self.asked_by.retain(|_, holder| holder.0 != tab);
    }

    /// Nothing that was asked for is said on the next connection.
    pub(crate) fn want_no_more(&mut self) {
        self.asked_by.clear();
        self.kept.clear();
    }

    /// This tab asks for the server anew. It may have another token by now, and so is asked before
    /// others.
    pub(crate) fn is_called_by(&mut self, tab: TabId) {
        self.called_by = Some(tab);
        for (_, asked) in self.asked.iter_mut().filter(|(holder, _)| holder.0 == tab) {
            (asked.turn, asked.is_refused) = (0, false);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_of_who_has_answered_or_is_gone() {
        let [answers, leaves] = [(TabId(1), Handle(1)), (TabId(2), Handle(1))];
        let (mut turns, mut questions) = (TokenTurns::new(), Questions::of(Life([7; 16])));
        let answered = turns.asks(answers, &mut questions);
        turns.asks(leaves, &mut questions);
        assert_eq!(turns.answered(answered), answers);
        assert_eq!(turns.asked_by.values().collect::<Vec<_>>(), [&leaves]);
        turns.drop_tab(leaves.0);
        assert!(turns.asked_by.is_empty());
        assert_eq!(turns.asked.keys().collect::<Vec<_>>(), [&answers]);
    }

    /// Goal: a token function that never gives anything costs no more with each question.
    #[test]
    fn so_many_answers_are_waited_for_at_most() {
        let holder = (TabId(1), Handle(1));
        let (mut turns, mut questions) = (TokenTurns::new(), Questions::of(Life([7; 16])));
        let mut ask = |_| turns.asks(holder, &mut questions);
        let asked: Vec<_> = (0..2 * QUESTIONS_MAX).map(&mut ask).collect();
        let is_open = |question: &u64| turns.has_asked(holder.0, *question);
        let (older, newer) = asked.split_at(asked.len() / 2);
        assert!(!older.iter().any(is_open) && newer.iter().all(is_open));
    }
}
