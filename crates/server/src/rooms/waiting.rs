//! What was said to a room while it worked on something else.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_room::ConnId;

use super::mail::RoomMail;
use crate::large_messages::Space;

/// Mail in the order in which it came. Large messages can be let go before their turn, of which
/// there are few, however much else waits.
#[derive(Default)]
pub(super) struct Waiting {
    mails: BTreeMap<u64, RoomMail>,
    /// The numbers of large messages among them.
    large: BTreeSet<u64>,
    mails_ever: u64,
    /// Bytes of all mail that is not large.
    small_size: usize,
}

impl Waiting {
    pub(super) fn push(&mut self, mail: RoomMail) {
        self.mails_ever += 1;
        self.small_size += mail.small_size();
        if mail.space().is_some() {
            self.large.insert(self.mails_ever);
        }
        self.mails.insert(self.mails_ever, mail);
    }

    pub(super) fn pop(&mut self) -> Option<RoomMail> {
        let (number, mail) = self.mails.pop_first()?;
        self.large.remove(&number);
        self.small_size -= mail.small_size();
        Some(mail)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mails.is_empty()
    }

    /// Bytes of the large messages.
    pub(super) fn large_size(&self) -> usize {
        self.large().filter_map(RoomMail::space).map(Space::size).sum()
    }

    /// Bytes of all others.
    pub(super) fn small_size(&self) -> usize {
        self.small_size
    }

    /// Lets go of large messages for which nobody waits, or whose turn does not come in time.
    pub(super) fn let_go(&mut self) {
        self.large().for_each(RoomMail::let_go_if_overdue);
        let Self { mails, large, .. } = self;
        large.retain(|number| {
            let stays = !mails[number].is_for_nobody();
            if !stays {
                mails.remove(number);
            }
            stays
        });
    }

    /// Forgets what those who have gone left behind: all that one said, so that nothing is heard of
    /// a gap, and that it left, unless the room knows it.
    pub(super) fn sweep(&mut self, is_known: impl Fn(ConnId) -> bool) {
        let (mut there, mut left) = (BTreeSet::new(), BTreeSet::new());
        for mail in self.mails.values() {
            match mail {
                RoomMail::Message { connection, .. } if !connection.has_ended() => {
                    there.insert(connection.id());
                }
                RoomMail::Left { conn } => {
                    left.insert(*conn);
                }
                _ => {}
            }
        }
        self.mails.retain(|_, mail| match mail {
            RoomMail::Message { connection, .. } => {
                let conn = connection.id();
                there.contains(&conn) || !left.contains(&conn)
            }
            RoomMail::Left { conn } => there.contains(conn) || is_known(*conn),
            _ => !mail.is_for_nobody(),
        });
        self.large.retain(|number| self.mails.contains_key(number));
        self.small_size = self.mails.values().map(RoomMail::small_size).sum();
    }

    fn large(&self) -> impl Iterator<Item = &RoomMail> {
        self.large.iter().map(|number| &self.mails[number])
    }
}
