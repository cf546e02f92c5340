//! Turns of documents, one at a time each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tidelog_room::Answer;
use tidelog_types::DocumentKey;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::timeout;

use super::{ANSWER_TAKES, TOO_MUCH};

/// Who has the turn of a document, or waits for it. There is nothing of documents of which nobody
/// does.
#[derive(Default)]
pub(crate) struct DocumentTurns(Mutex<HashMap<DocumentKey, Weak<AsyncMutex<()>>>>);

impl DocumentTurns {
    /// Waits for the turn of that document, in the order in which they ask, for as long as for an
    /// answer of its room: nobody may have gone long ago whose turn comes.
    ///
    /// # Errors
    ///
    /// The answer that nothing was begun.
    pub(crate) async fn of(&self, document: &DocumentKey) -> Result<OwnedMutexGuard<()>, Answer> {
        let turn = self.turn(document);
        let late = |_| Answer::Failed { reason: TOO_MUCH.to_owned() };
        timeout(ANSWER_TAKES, turn.lock_owned()).await.map_err(late)
    }

    fn turn(&self, document: &DocumentKey) -> Arc<AsyncMutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(document).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(document.clone(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Goal: one document waits for itself alone, and nothing is kept of those that are done.
    #[tokio::test]
    async fn a_turn_is_of_one_document() {
        let turns = DocumentTurns::default();
        let document = |name: &str| DocumentKey::new(name, "").expect("a name");
        let busy = turns.of(&document("busy")).await;
        assert!(turns.of(&document("busy")).now_or_never().is_none(), "it is somebody's");
        for number in 0..1_000 {
            // Which is nobody's.
            drop(turns.of(&document(&number.to_string())).await);
        }
        assert!(turns.of(&document("busy")).now_or_never().is_none(), "it is the same still");
        assert!(turns.0.lock().expect("whole").len() < 3);
        drop(busy);
        drop(turns.of(&document("busy")).await.expect("it is nobody's"));
    }

    /// Goal: nothing is done long after whoever asked for it has gone. Method: the turn is
    /// somebody's who does not get on.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_turn_longer_than_for_an_answer() {
        let turns = DocumentTurns::default();
        let document = DocumentKey::new("busy", "").expect("a name");
        let busy = turns.of(&document).await.expect("it is nobody's");
        let late = timeout(2 * ANSWER_TAKES, turns.of(&document)).await.expect("in time");
        assert!(matches!(late, Err(Answer::Failed { .. })), "{late:?}");
        drop(busy);
        assert!(turns.of(&document).await.is_ok());
    }
}
