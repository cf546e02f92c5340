//! Whether a core has asked to be woken for all that it means to do: one that is woken before the
//! time that it asked for has nothing to do.
//!
//! Whoever forgets to ask is woken by whatever comes next, and in a world something always does.

use tidelog_client::{Client, Effect, Input};
use tidelog_sync::{ToServer, decode_message};

/// Steps of which one is looked at: no world takes much longer by that.
const LOOKED_AT_ONCE_IN: u32 = 16;

/// What a core has asked for, on its own clock.
#[derive(Default)]
pub(crate) struct WakeDoor {
    asked_ms: Option<u64>,
    stepped_ms: u64,
    steps_count: u32,
    /// Whether what the core shows was looked at since time last went on.
    is_seen: bool,
}

impl WakeDoor {
    /// A core is about to be told something. Wakes it before that, now and then, and gives what it
    /// sends then: signs of life are asked for by the way, behind what was sent just now.
    ///
    /// # Errors
    ///
    /// It does what it has not asked to be woken for.
    pub(crate) fn comes(&mut self, core: &mut Client, now_ms: u64) -> Result<Vec<Effect>, String> {
        let is_new = std::mem::replace(&mut self.stepped_ms, now_ms) < now_ms;
        self.steps_count += u32::from(is_new);
        self.is_seen &= !is_new;
        if self.asked_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.asked_ms = None;
            return Ok(Vec::new());
        }
        if !is_new || !self.steps_count.is_multiple_of(LOOKED_AT_ONCE_IN) {
            return Ok(Vec::new());
        }
        // Those that rest have nothing to do either.
        core.wake_all();
        let asked_ms = self.asked_ms;
        let is_asked = |effect: &Effect| match effect {
            Effect::WakeAt { at_ms } => asked_ms.is_some_and(|asked_ms| asked_ms <= *at_ms),
            Effect::ToServer { bytes, .. } => matches!(decode_message(bytes), Ok(ToServer::Ping)),
            _ => false,
        };
        let mut effects = core.step(now_ms, Input::Wake);
        match effects.iter().find(|effect| !is_asked(effect)) {
            None => {
                effects.retain(|effect| matches!(effect, Effect::ToServer { .. }));
                Ok(effects)
            }
            Some(effect) => {
                let what: String = format!("{effect:?}").chars().take(300).collect();
                Err(format!("at {now_ms}, a core was not woken, asked for {asked_ms:?}: {what}"))
            }
        }
    }

    /// What is wrong with what the core shows, looked at now and then.
    pub(crate) fn doubt(&mut self, core: &Client) -> Option<String> {
        let is_seen = std::mem::replace(&mut self.is_seen, true);
        let is_due = !is_seen && self.steps_count.is_multiple_of(4 * LOOKED_AT_ONCE_IN);
        is_due.then(|| core.doubt()).flatten()
    }

    pub(crate) fn leaves(&mut self, effect: &Effect) {
        if let Effect::WakeAt { at_ms } = effect {
            self.asked_ms = Some(*at_ms);
        }
    }
}
