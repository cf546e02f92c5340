//! Whether the device is full, and whether a change-over may make room.

/// Whether the device has room for the store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Space {
    /// As far as is known.
    Plenty,
    /// It had none: so many times since the last change-over. Whether one is wanted stays said
    /// until it is begun: nothing that fails meanwhile takes that back.
    Short { times: u32, wants_change_over: bool },
}

impl Space {
    pub fn is_plenty(self) -> bool {
        matches!(self, Self::Plenty)
    }

    pub fn wants_change_over(self) -> bool {
        matches!(self, Self::Short { wants_change_over: true, .. })
    }

    /// An append found no room. A change-over makes some; if it cannot, it is tried again, but not
    /// for each append that fails.
    pub fn missing(&mut self) {
        let (times, is_wanted) = match *self {
            Self::Plenty => (1, false),
            Self::Short { times, wants_change_over } => {
                (times.saturating_add(1), wants_change_over)
            }
        };
        let is_due = times.is_power_of_two() || times.is_multiple_of(SHORTAGES_BETWEEN_TRIES);
        *self = Self::Short { times, wants_change_over: is_wanted || is_due };
    }

    /// Something was forgotten: a change-over may now have the room that it lacked.
    pub fn more(&mut self) {
        if let Self::Short { wants_change_over, .. } = self {
            *wants_change_over = true;
        }
    }

    /// A change-over was begun.
    pub fn begun(&mut self) {
        if let Self::Short { wants_change_over, .. } = self {
            *wants_change_over = false;
        }
    }

    /// A change-over was given up.
    pub fn given_up(&mut self) {
        if self.is_plenty() {
            *self = Self::Short { times: 1, wants_change_over: false };
        }
    }
}

/// Appends without room after which a change-over is tried once more, whatever came of the last.
const SHORTAGES_BETWEEN_TRIES: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn short(times: u32) -> Space {
        let mut space = Space::Plenty;
        (0..times).for_each(|_| space.missing());
        space.begun();
        space
    }

    #[test]
    fn a_change_over_that_is_wanted_stays_so_until_it_is_begun() {
        let (mut forgotten, mut failed) = (short(2), short(63));
        forgotten.more();
        failed.missing();
        for mut space in [forgotten, failed] {
            assert!(space.wants_change_over());
            (0..3).for_each(|_| space.missing());
            assert!(space.wants_change_over(), "what failed since has taken it back");
            space.begun();
            assert!(!space.wants_change_over(), "it was tried");
        }
    }

    #[test]
    fn what_is_forgotten_while_a_change_over_goes_on_is_worth_another_one() {
        let mut space = short(3);
        space.more();
        space.given_up();
        assert!(space.wants_change_over());
    }
}
