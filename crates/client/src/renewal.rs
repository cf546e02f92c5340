//! When a token is renewed on a connection that stands, and who gives the next one.

use tidelog_types::probe::{Probe, reached};

use crate::token_turns::TokenHolder;

/// Milliseconds for which somebody who was asked for a token is waited for before another one is,
/// and after which all are asked again where none of them had one that was taken; the latter
/// doubles, up to the longest.
const ASKED_MS: u64 = 5_000;
const AGAIN_FIRST_MS: u64 = 5_000;
const AGAIN_LONGEST_MS: u64 = 300_000;
/// Milliseconds for which a token is kept at least that does not allow all that is wanted.
const KEPT_MS: u64 = 30_000;
/// Milliseconds after which it is looked again at the latest: no timer is set for weeks.
const LOOKS_EVERY_MS: u64 = 24 * 60 * 60 * 1_000;

/// How it stands with the token that a server takes at present. Times are those of the device, and
/// only how much of it passes counts: how long the token is good yet is the server's word.
#[derive(Debug)]
pub(crate) struct Renewal {
    /// When the token was taken.
    taken_at_ms: u64,
    /// When the next one is asked for.
    due_at_ms: u64,
    /// Who is asked, and until when it is waited for.
    asked: Option<(TokenHolder, u64)>,
    /// Who was asked since it is due.
    tried: Vec<TokenHolder>,
    /// How often nobody had one that was taken.
    failures: u32,
}

impl Renewal {
    /// The server takes a token for so long yet: at three quarters of that it is renewed, or up to
    /// a sixteenth before, which is not the same for all clients by their `share` of 256.
    pub(crate) fn new(now_ms: u64, seconds_left: u64, share: u8) -> Self {
        let left_ms = seconds_left.min(u64::from(u32::MAX)) * 1_000;
        let early_ms = left_ms / 16 * u64::from(share) / 256;
        // An app may give the same one again and again, until it is over.
        let due_at_ms = now_ms + (left_ms / 4 * 3 - early_ms).max(AGAIN_FIRST_MS);
        Self { taken_at_ms: now_ms, due_at_ms, asked: None, tried: Vec::new(), failures: 0 }
    }

    /// The token does not allow something that is wanted: the next one may, and is asked for soon.
    pub(crate) fn hurry(&mut self, now_ms: u64) {
        if self.failures == 0 {
            self.due_at_ms = self.due_at_ms.min(now_ms.max(self.taken_at_ms + KEPT_MS));
        }
    }

    /// Whether somebody is to be asked now.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.due_at_ms && self.asked.is_none_or(|(_, until_ms)| now_ms >= until_ms)
    }

    /// Who is to be asked, of these; one who was let in comes `first`. If all were, that is done
    /// again after a while.
    pub(crate) fn ask(
        &mut self,
        now_ms: u64,
        holders: &[TokenHolder],
        first: Option<TokenHolder>,
    ) -> Option<TokenHolder> {
        let mut left = holders.iter().filter(|holder| !self.tried.contains(holder));
        let next = left.clone().find(|holder| Some(**holder) == first).or_else(|| left.next());
        match next.copied() {
            Some(holder) => {
                self.tried.push(holder);
                self.asked = Some((holder, now_ms + ASKED_MS));
                Some(holder)
            }
            None => {
                reached(Probe::TokenNotRenewed);
                let pause_ms = (AGAIN_FIRST_MS << self.failures.min(6)).min(AGAIN_LONGEST_MS);
                self.failures += 1;
                self.due_at_ms = now_ms + pause_ms;
                self.asked = None;
                self.tried.clear();
                None
            }
        }
    }

    /// Who was asked last has no token that is taken: the next one is asked at once.
    pub(crate) fn was_refused(&mut self) {
        self.asked = None;
    }

    /// The same, if it was this one.
    pub(crate) fn has_none(&mut self, holder: TokenHolder) {
        self.asked.take_if(|(asked, _)| *asked == holder);
    }

    /// When it is looked at next.
    pub(crate) fn wakes_at_ms(&self, now_ms: u64) -> u64 {
        let at_ms = self.asked.map_or(self.due_at_ms, |(_, until_ms)| until_ms);
        at_ms.min(now_ms + LOOKS_EVERY_MS)
    }
}
