//! How often a core connects to a server, seen at its door: with pauses that grow, whatever comes
//! of it. Who is refused at once, or let in and refused then, would ask without end otherwise, and
//! both sides do nothing else.

use std::collections::{BTreeMap, VecDeque};

use tidelog_client::{Effect, Input, ToCore};

/// Milliseconds in which tries are counted.
const WINDOW_MS: u64 = 10_000;
/// Tries within them that pauses leave room for, and one of each tab that may be asked for a token.
const TRIES_MAX: usize = 12;

/// When a core has tried to connect.
#[derive(Default)]
pub(super) struct Tries {
    at_ms: BTreeMap<String, VecDeque<u64>>,
    /// When tabs have said something for which it may try at once.
    told_ms: VecDeque<u64>,
    now_ms: u64,
}

impl Tries {
    pub(super) fn comes(&mut self, input: &Input, now_ms: u64) {
        self.now_ms = now_ms;
        forget(&mut self.told_ms, now_ms);
        let is_news = |message: &ToCore| !matches!(message, ToCore::Heard { .. });
        let tells = match input {
            Input::FromTab { messages, .. } => messages.iter().any(is_news),
            Input::TabClosed { .. } => true,
            _ => false,
        };
        if tells {
            self.told_ms.push_back(now_ms);
        }
    }

    /// # Errors
    ///
    /// It tries too often.
    pub(super) fn leaves(&mut self, effect: &Effect) -> Result<(), String> {
        let Effect::OpenSocket { url, .. } = effect else { return Ok(()) };
        let at_ms = self.at_ms.entry(url.clone()).or_default();
        forget(at_ms, self.now_ms);
        at_ms.push_back(self.now_ms);
        if at_ms.len() > TRIES_MAX + self.told_ms.len() {
            return Err(format!("{url} is tried {} times within ten seconds", at_ms.len()));
        }
        Ok(())
    }
}

fn forget(at_ms: &mut VecDeque<u64>, now_ms: u64) {
    while at_ms.front().is_some_and(|at_ms| at_ms + WINDOW_MS < now_ms) {
        at_ms.pop_front();
    }
}
