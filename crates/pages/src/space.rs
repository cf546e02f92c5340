//! Whether the device is full, and whether a change-over may make room.

/// Whether the device has room for the store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Space {
    /// As far as is known.
    Plenty,
    /// It had none: so many times since the last change-over.
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
        let times = match *self {
            Self::Plenty => 1,
            Self::Short { times, .. } => times.saturating_add(1),
        };
        let is_due = times.is_power_of_two() || times.is_multiple_of(SHORTAGES_BETWEEN_TRIES);
        *self = Self::Short { times, wants_change_over: is_due };
    }

    /// Something was forgotten: a change-over may now have the room that it lacked.
    pub fn more(&mut self) {
        if let Self::Short { wants_change_over, .. } = self {
            *wants_change_over = true;
        }
    }

    /// A change-over was given up.
    pub fn given_up(&mut self) {
        let times = match *self {
            Self::Plenty => 1,
            Self::Short { times, .. } => times,
        };
        *self = Self::Short { times, wants_change_over: false };
    }
}

/// Appends without room after which a change-over is tried once more, whatever came of the last.
const SHORTAGES_BETWEEN_TRIES: u32 = 64;
