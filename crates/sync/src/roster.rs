//! Those who are seen, and what of them somebody was not told yet.

use std::sync::Arc;

use tidelog_types::SortedMap;

use crate::presence::{Attendee, PresenceWho, Present, StateText};

/// Those of a document who are seen, by their keys. Each change has a number, and each reader knows
/// up to which it was told: so who reads slowly skips what is outdated, and costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    listed: SortedMap<u64, Listed>,
    /// The number of the last change.
    version: u64,
    /// That of the last one by which somebody came or went.
    membership: u64,
}

/// One who is seen.
#[derive(Clone, Debug)]
struct Listed {
    who: PresenceWho,
    state: StateText,
    /// The change by which it came.
    came: u64,
    /// The last one of what it says of itself.
    changed: u64,
}

/// What one reader was told of a roster: all changes up to one, and in a round that did not fit one
/// message, those of the keys below one. By default it knows of nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RosterReader {
    told: u64,
    round: Option<Round>,
    /// Whether it may know of somebody.
    knows_some: bool,
    /// Whether it is to be told all keys, whatever it knows.
    is_anew: bool,
}

impl RosterReader {
    /// One that is told all anew, whatever it knows.
    pub const ANEW: Self = Self { told: 0, round: None, knows_some: true, is_anew: true };
}

/// A round through all keys, so that each has its turn however much changes meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Round {
    /// The change at which it began: all up to it are told once it has ended.
    began: u64,
    /// The first key that has not had its turn.
    next: u64,
}

/// What a reader is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterNews {
    /// The keys of all who are seen, if these have changed.
    pub keys: Option<Arc<[u64]>>,
    /// Those of whom there is something new.
    pub present: Arc<[Present]>,
}

impl RosterNews {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_none() && self.present.is_empty()
    }
}

/// How a reader sees one who is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not at all.
    Hidden,
    /// As somebody else.
    Other,
    /// As one of its own.
    Own(Attendee),
}

impl Roster {
    /// How many are seen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.listed.len()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// The keys of those who are seen, lowest first.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = u64> {
        self.listed.keys().copied()
    }

    /// Whether that one is seen.
    #[must_use]
    pub fn contains(&self, key: u64) -> bool {
        self.listed.contains_key(&key)
    }

    /// Who that is, if it is seen.
    #[must_use]
    pub fn who(&self, key: u64) -> Option<&PresenceWho> {
        self.listed.get(&key).map(|listed| &listed.who)
    }

    /// That one is seen from now on, and is so.
    pub fn list(&mut self, key: u64, who: PresenceWho, state: StateText) {
        self.version += 1;
        let version = self.version;
        self.membership = version;
        self.listed.insert(key, Listed { who, state, came: version, changed: version });
    }

    /// That one is so from now on, if it is seen.
    pub fn change(&mut self, key: u64, state: StateText) {
        let Some(listed) = self.listed.get_mut(&key) else { return };
        if listed.state != state {
            self.version += 1;
            listed.state = state;
            listed.changed = self.version;
        }
    }

    /// Only those are seen any longer of whom this is true.
    pub fn retain(&mut self, mut stays: impl FnMut(u64) -> bool) {
        let before = self.listed.len();
        self.listed.retain(|key, _| stays(*key));
        if self.listed.len() < before {
            self.version += 1;
            self.membership = self.version;
        }
    }

    /// Whether the reader was told all.
    #[must_use]
    pub fn is_told(&self, reader: RosterReader) -> bool {
        reader.round.is_none() && reader.told == self.version && !reader.is_anew
    }

    /// What to tell the reader next in about so many bytes, and what it was told then. It sees each
    /// as `seen` says, which has to be the same each time.
    #[must_use]
    pub fn news(
        &self,
        reader: RosterReader,
        size_max: usize,
        seen: impl Fn(u64) -> Seen,
    ) -> (RosterNews, RosterReader) {
        let begins = Round { began: self.version, next: 0 };
        let round = reader.round.unwrap_or(begins);
        let is_visible = |key: &u64| seen(*key) != Seen::Hidden;
        let has_changed = reader.is_anew || self.membership > reader.told;
        let has_new_keys = reader.round.is_none() && has_changed;
        let keys = has_new_keys.then(|| self.keys().filter(is_visible).collect::<Arc<[u64]>>());
        let keys = keys.filter(|keys| reader.knows_some || !keys.is_empty());
        let knows_some = reader.knows_some || keys.is_some();
        let mut size = keys.as_ref().map_or(0, |keys| keys.len() * 8);
        let mut present = Vec::new();
        let mut after = RosterReader { told: round.began, round: None, knows_some, is_anew: false };
        for (&key, listed) in self.listed.iter() {
            if key < round.next || listed.changed <= reader.told || !is_visible(&key) {
                continue;
            }
            let own = match seen(key) {
                Seen::Own(attendee) => Some(attendee),
                _ => None,
            };
            let is_new = listed.came > reader.told;
            let who = is_new.then(|| PresenceWho { own, ..listed.who.clone() });
            let it = Present { key, who, state: listed.state.clone() };
            if size >= size_max {
                after = RosterReader {
                    told: reader.told,
                    round: Some(Round { began: round.began, next: key }),
                    knows_some,
                    is_anew: false,
                };
                break;
            }
            size += it.size();
            present.push(it);
        }
        (RosterNews { keys, present: present.into() }, after)
    }

    /// Takes what a server says.
    pub fn take(&mut self, keys: Option<&[u64]>, present: &[Present]) {
        if let Some(keys) = keys {
            self.retain(|key| keys.contains(&key));
        }
        for Present { key, who, state } in present {
            match who {
                Some(who) if self.who(*key) != Some(who) => {
                    self.list(*key, who.clone(), state.clone());
                }
                _ => self.change(*key, state.clone()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_types::ClientId;

    use super::*;

    fn who(number: u8) -> PresenceWho {
        PresenceWho { user: None, client: ClientId([number; 16]), own: None }
    }

    fn text(text: &str) -> StateText {
        StateText::new(text).expect("short")
    }

    fn roster(count: u8) -> Roster {
        let mut roster = Roster::default();
        for number in 1..=count {
            roster.list(number.into(), who(number), text("0"));
        }
        roster
    }

    fn others(_: u64) -> Seen {
        Seen::Other
    }

    /// What somebody knows of a roster who has taken all that it was told.
    fn states(roster: &Roster) -> Vec<(u64, String)> {
        roster.listed.iter().map(|(key, it)| (*key, it.state.to_string())).collect()
    }

    #[test]
    fn a_reader_is_told_what_is_new_and_only_the_newest_of_it() {
        let mut roster = roster(2);
        let (news, reader) = roster.news(RosterReader::default(), usize::MAX, others);
        assert_eq!(news.keys.as_deref(), Some(&[1, 2][..]));
        assert!(news.present.iter().all(|it| it.who.is_some()));
        assert!(roster.is_told(reader));
        for number in 0..9 {
            roster.change(2, text(&format!("{number}")));
        }
        let (news, reader) = roster.news(reader, usize::MAX, others);
        assert_eq!(news.keys, None);
        assert_eq!(*news.present, [Present { key: 2, who: None, state: text("8") }]);
        roster.retain(|key| key != 1);
        let (news, reader) = roster.news(reader, usize::MAX, others);
        assert_eq!((news.keys.as_deref(), news.present.len()), (Some(&[2][..]), 0));
        assert!(roster.news(reader, usize::MAX, others).0.is_empty());
    }

    #[test]
    fn who_comes_back_under_its_key_is_told_as_who_it_is() {
        let mut roster = roster(2);
        let (_, reader) = roster.news(RosterReader::default(), usize::MAX, others);
        roster.retain(|key| key != 1);
        roster.list(1, who(9), text("back"));
        let (news, _) = roster.news(reader, usize::MAX, others);
        assert_eq!(news.keys.as_deref(), Some(&[1, 2][..]));
        assert_eq!(*news.present, [Present { key: 1, who: Some(who(9)), state: text("back") }]);
    }

    /// Goal: where more changes than a reader can be told, each has its turn. Method: all change
    /// before each word, of which each has room for a few.
    #[test]
    fn where_all_change_all_the_time_each_has_its_turn() {
        let mut roster = roster(20);
        let (mut mirror, mut reader) = (Roster::default(), RosterReader::default());
        let mut told = [0; 20];
        for round in 1..=60 {
            for key in 1..=20 {
                roster.change(key, text(&round.to_string()));
            }
            let (news, after) = roster.news(reader, 60, others);
            assert!(news.present.len() <= 10, "{}", news.present.len());
            news.present.iter().for_each(|it| told[it.key as usize - 1] += 1);
            mirror.take(news.keys.as_deref(), &news.present);
            reader = after;
        }
        assert!(told.iter().all(|times| *times >= 6), "{told:?}");
        // And once nothing changes any more, all is told.
        while !roster.is_told(reader) {
            let (news, after) = roster.news(reader, 60, others);
            mirror.take(news.keys.as_deref(), &news.present);
            reader = after;
        }
        assert_eq!(states(&mirror), states(&roster));
    }

    /// Goal: whoever knows nobody is told nothing of a roster without anybody for it, and whoever
    /// may know somebody is told that there is nobody.
    #[test]
    fn who_knows_nobody_is_not_told_that_there_is_nobody() {
        let roster = roster(1);
        let nobody = |_| Seen::Hidden;
        let (news, reader) = roster.news(RosterReader::default(), usize::MAX, nobody);
        assert!(news.is_empty() && roster.is_told(reader));
        for roster in [roster, Roster::default()] {
            let (news, reader) = roster.news(RosterReader::ANEW, usize::MAX, nobody);
            assert_eq!(news.keys.as_deref(), Some(&[][..]));
            assert!(roster.is_told(reader), "once");
        }
    }

    #[test]
    fn one_sees_its_own_as_its_own_or_not_at_all() {
        let roster = roster(3);
        let seen = |key| match key {
            1 => Seen::Hidden,
            2 => Seen::Own(Attendee(7)),
            _ => Seen::Other,
        };
        let (news, _) = roster.news(RosterReader::default(), usize::MAX, seen);
        assert_eq!(news.keys.as_deref(), Some(&[2, 3][..]));
        let owns = news.present.iter().map(|it| it.who.as_ref().and_then(|who| who.own));
        assert_eq!(owns.collect::<Vec<_>>(), [Some(Attendee(7)), None]);
    }
}
