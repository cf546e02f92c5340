//! What was said to a room while it worked on something else.

use std::collections::{BTreeMap, VecDeque};

use super::mail::RoomMail;

/// Mail in the order in which it came. Large messages can be let go before their turn, of which
/// there are few, however much else waits.
#[derive(Default)]
pub(super) struct Waiting {
    turns: VecDeque<Turn>,
    large: BTreeMap<u64, RoomMail>,
    large_ever: u64,
}

/// Whose turn it is.
enum Turn {
    Small(RoomMail),
    /// The number of a large message, unless that was let go.
    Large(u64),
}

impl Waiting {
    pub(super) fn push(&mut self, mail: RoomMail) {
        self.turns.push_back(match mail.space() {
            None => Turn::Small(mail),
            Some(_) => {
                self.large_ever += 1;
                self.large.insert(self.large_ever, mail);
                Turn::Large(self.large_ever)
            }
        });
    }

    pub(super) fn pop(&mut self) -> Option<RoomMail> {
        loop {
            let mail = match self.turns.pop_front()? {
                Turn::Small(mail) => Some(mail),
                Turn::Large(number) => self.large.remove(&number),
            };
            if mail.is_some() {
                return mail;
            }
        }
    }

    pub(super) fn has_large(&self) -> bool {
        !self.large.is_empty()
    }

    /// Bytes of the large messages.
    pub(super) fn large_size(&self) -> usize {
        self.large.values().filter_map(RoomMail::space).map(|space| space.size()).sum()
    }

    /// Lets go of large messages for which nobody waits, or whose turn does not come in time.
    pub(super) fn let_go(&mut self) {
        self.large.values().for_each(RoomMail::let_go_if_overdue);
        self.large.retain(|_, mail| !mail.is_for_nobody());
    }
}
