//! Who is present: what clients say of themselves, and what each is to be told of the others.
//!
//! None of it is ever on a disk, nor does it leave before anything that is. It goes in ticks: what
//! clients say between two of them is told with the second, the newest of each. Whoever reads
//! slowly is told less often, and then the newest too. Where nobody says anything nothing is due,
//! and where one is alone nobody is told.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tidelog_document::public_client;
use tidelog_sync::{
    Attendee, FromRoom, Hears, PresenceNews, PresenceWho, PresenceWord, Roster, RosterNews,
    RosterReader, Seen, StateText,
};
use tidelog_types::ClientId;
use tidelog_types::limits::{
    PRESENCE_ATTENDEES_MAX, PRESENCE_NEWS_SIZE_MAX, PRESENCE_RATE_SIZE_MAX, PRESENCE_SEEN_MAX,
    PRESENCE_SILENT_MS, PRESENCE_TICK_MS, PRESENCE_UNHEARD_MAX, PRESENCE_UNHEARD_SIZE_MAX,
};

use super::subscriber::ChannelId;
use super::{Outlets, Room, RoomEffect};

/// About how many bytes one who is present takes beside what it says.
const PRESENT_SIZE: usize = 256;

/// Those who are seen: whoever is told may have one of its own among them.
const LISTED_MAX: usize = PRESENCE_SEEN_MAX + 1;

/// Who is on a connection, by the server's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The subject of its token; `None` on a development server.
    pub user: Option<Arc<str>>,
    /// The client, as others may know it.
    pub client: ClientId,
}

impl Identity {
    /// Who comes by a token of this user, and has said in Hello which client it is. Others hear a
    /// hash of that, or one of them could come as this one.
    #[must_use]
    pub fn new(user: Option<Arc<str>>, client: ClientId) -> Self {
        Self { user, client: public_client(client) }
    }
}

/// Who is present in a room.
#[derive(Default)]
pub(super) struct Presence {
    channels: BTreeMap<ChannelId, Attending>,
    /// All who are present, by their keys: also those of whose clients nothing is heard.
    all: BTreeMap<u64, Here>,
    keys_ever: u64,
    /// The first of those who are heard of.
    roster: Roster,
    /// The others, all of whom came after those.
    unlisted: BTreeSet<u64>,
    /// How many are heard of.
    count: u32,
    /// Bytes that all of it takes, about.
    size: usize,
    /// Whether somebody may have something to be told.
    has_news: bool,
    /// When somebody was last told something.
    told_at_ms: Option<u64>,
    /// Nobody is silent for too long before this.
    silent_at_ms: u64,
}

/// One who is present.
struct Here {
    identity: Arc<Identity>,
    state: StateText,
}

/// A client that has said something of who is present.
struct Attending {
    hears: Hears,
    /// Those of its own who are present.
    keys: BTreeMap<Attendee, u64>,
    heard_at_ms: u64,
    /// Whether it has been silent for too long, so that nobody sees them.
    is_silent: bool,
    reader: RosterReader,
    told_elsewhere: u32,
    /// Sizes of the news that it was told and may not have heard yet.
    unheard: VecDeque<usize>,
    unheard_size: usize,
    /// Bytes that it may be told before it has to wait, and as of when. Below zero, it waits.
    allowance: i64,
    allowed_at_ms: u64,
}

impl Attending {
    fn new(now_ms: u64) -> Self {
        Self {
            hears: Hears::Nothing,
            keys: BTreeMap::new(),
            heard_at_ms: now_ms,
            is_silent: false,
            reader: RosterReader::default(),
            told_elsewhere: 0,
            unheard: VecDeque::new(),
            unheard_size: 0,
            allowance: RATE,
            allowed_at_ms: now_ms,
        }
    }

    fn has_heard(&mut self, count: u32) {
        for _ in 0..count {
            let Some(size) = self.unheard.pop_front() else { break };
            self.unheard_size -= size;
        }
    }

    /// Whether it has to hear something first: it says so itself then.
    fn is_full(&self) -> bool {
        self.unheard.len() >= PRESENCE_UNHEARD_MAX || self.unheard_size >= PRESENCE_UNHEARD_SIZE_MAX
    }

    /// Whether it may be told something at this time.
    fn is_allowed(&mut self, now_ms: u64) -> bool {
        let passed_ms = now_ms.saturating_sub(self.allowed_at_ms).min(1_000);
        self.allowed_at_ms = now_ms;
        self.allowance = (self.allowance + RATE * passed_ms as i64 / 1_000).min(RATE);
        self.allowance >= 0
    }

    fn is_told(&mut self, size: usize) {
        self.unheard.push_back(size);
        self.unheard_size += size;
        self.allowance -= size as i64;
    }

    /// How many of its own others see.
    fn own_count(&self) -> u32 {
        if self.is_silent { 0 } else { self.keys.len() as u32 }
    }

    /// How it sees the one of this key.
    fn sees(&self, key: u64) -> Seen {
        match self.keys.iter().find(|(_, own)| **own == key) {
            None => Seen::Other,
            Some((attendee, _)) if self.hears == Hears::All => Seen::Own(*attendee),
            Some(_) => Seen::Hidden,
        }
    }
}

/// Bytes a second.
const RATE: i64 = PRESENCE_RATE_SIZE_MAX as i64;

impl Presence {
    /// A client on that channel says something. It may not take more memory where there is too
    /// little for all rooms.
    pub(super) fn hear(
        &mut self,
        channel_id: ChannelId,
        identity: &Arc<Identity>,
        word: PresenceWord,
        may_grow: bool,
        now_ms: u64,
    ) {
        let attending = self.channels.entry(channel_id).or_insert_with(|| Attending::new(now_ms));
        attending.heard_at_ms = now_ms;
        attending.has_heard(word.heard);
        if attending.hears == Hears::Nothing {
            attending.hears = word.hears;
        } else if word.hears != attending.hears {
            // Of its own it may have been told nothing yet, or in other words.
            attending.hears = word.hears;
            attending.reader = RosterReader::ANEW;
        }
        let was_silent = std::mem::take(&mut attending.is_silent);
        if was_silent {
            self.count += attending.own_count();
            let keys: Vec<u64> = attending.keys.values().copied().collect();
            keys.into_iter().for_each(|key| self.show(key));
        }
        for (attendee, state) in word.changes {
            match state {
                Some(state) => {
                    self.set(channel_id, attendee, identity, state, may_grow, now_ms);
                }
                None => self.unset(channel_id, attendee),
            }
        }
        self.has_news = true;
        let is_gone = |it: &Attending| it.hears == Hears::Nothing && it.keys.is_empty();
        if let Entry::Occupied(entry) = self.channels.entry(channel_id)
            && is_gone(entry.get())
        {
            entry.remove();
        }
    }

    fn set(
        &mut self,
        channel_id: ChannelId,
        attendee: Attendee,
        identity: &Arc<Identity>,
        state: StateText,
        may_grow: bool,
        now_ms: u64,
    ) {
        let Some(attending) = self.channels.get_mut(&channel_id) else { return };
        if let Some(key) = attending.keys.get(&attendee) {
            let here = self.all.get_mut(key).expect("BUG: one's own is here");
            if may_grow || state.len() <= here.state.len() {
                self.size = self.size + state.len() - here.state.len();
                here.state = state.clone();
                self.roster.change(*key, state);
            }
            return;
        }
        if !may_grow || attending.keys.len() >= PRESENCE_ATTENDEES_MAX {
            return;
        }
        if self.count == 0 {
            self.silent_at_ms = now_ms + PRESENCE_SILENT_MS;
        }
        self.keys_ever += 1;
        attending.keys.insert(attendee, self.keys_ever);
        self.size += PRESENT_SIZE + state.len();
        let identity = Arc::clone(identity);
        self.all.insert(self.keys_ever, Here { identity, state });
        self.count += 1;
        self.show(self.keys_ever);
    }

    fn unset(&mut self, channel_id: ChannelId, attendee: Attendee) {
        let Some(attending) = self.channels.get_mut(&channel_id) else { return };
        let Some(key) = attending.keys.remove(&attendee) else { return };
        let is_silent = attending.is_silent;
        self.forget(key);
        if !is_silent {
            self.hide(&[key].into());
        }
    }

    fn forget(&mut self, key: u64) {
        let here = self.all.remove(&key).expect("BUG: one's own is here");
        self.size -= PRESENT_SIZE + here.state.len();
    }

    /// Nobody of that channel is here any longer.
    pub(super) fn leave(&mut self, channel_id: ChannelId) {
        let Some(left) = self.channels.remove(&channel_id) else { return };
        left.keys.values().for_each(|key| self.forget(*key));
        if !left.is_silent {
            self.hide(&left.keys.into_values().collect());
        }
    }

    /// That one may be seen, if few enough were here before.
    fn show(&mut self, key: u64) {
        self.has_news = true;
        if self.roster.len() >= LISTED_MAX {
            let last = self.roster.keys().next_back().expect("BUG: it is full");
            self.unlisted.insert(last.max(key));
            if last < key {
                return;
            }
            self.roster.retain(|other| other != last);
        }
        let here = &self.all[&key];
        let Identity { user, client } = &*here.identity;
        let (user, client) = (user.as_deref().map(str::to_owned), *client);
        self.roster.list(key, PresenceWho { user, client, own: None }, here.state.clone());
    }

    /// Those are not heard of any longer; whoever came next takes the place of those who were seen.
    fn hide(&mut self, gone: &BTreeSet<u64>) {
        if gone.is_empty() {
            return;
        }
        self.has_news = true;
        self.count -= gone.len() as u32;
        for key in gone {
            self.unlisted.remove(key);
        }
        self.roster.retain(|key| !gone.contains(&key));
        while self.roster.len() < LISTED_MAX
            && let Some(next) = self.unlisted.pop_first()
        {
            self.show(next);
        }
    }

    /// When somebody is to be told something, or may have been silent for too long; `None` where
    /// nobody is here.
    pub(super) fn due_at_ms(&self) -> Option<u64> {
        let told_at_ms = self.told_at_ms.map_or(0, |at_ms| at_ms + PRESENCE_TICK_MS);
        let silent_at_ms = (self.count > 0).then_some(self.silent_at_ms);
        self.has_news.then_some(told_at_ms).into_iter().chain(silent_at_ms).min()
    }

    /// Bytes that it takes, about.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Tells whoever may be told what there is to tell by now.
    pub(super) fn tell(&mut self, now_ms: u64, outlets: &dyn Outlets) -> Vec<RoomEffect> {
        self.note_silent(now_ms);
        let is_too_soon = self.told_at_ms.is_some_and(|at_ms| now_ms < at_ms + PRESENCE_TICK_MS);
        if !self.has_news || is_too_soon {
            return Vec::new();
        }
        self.told_at_ms = Some(now_ms);
        self.has_news = false;
        let mut effects = Vec::new();
        // Most were told the same, and see none of their own.
        let mut shared: BTreeMap<RosterReader, (RosterNews, RosterReader)> = BTreeMap::new();
        for (channel_id, attending) in &mut self.channels {
            let elsewhere_count = self.count - attending.own_count();
            let is_told = self.roster.is_told(attending.reader)
                && attending.told_elsewhere == elsewhere_count;
            if attending.hears == Hears::Nothing || is_told || attending.is_full() {
                continue;
            }
            // Entries come first.
            if !attending.is_allowed(now_ms) || !outlets.is_idle(channel_id.conn) {
                self.has_news = true;
                continue;
            }
            let make = || {
                self.roster
                    .news(attending.reader, PRESENCE_NEWS_SIZE_MAX, |key| attending.sees(key))
            };
            let sees_own = attending.keys.values().any(|key| self.roster.contains(*key));
            let (news, reader) = match sees_own {
                true => make(),
                false => shared.entry(attending.reader).or_insert_with(make).clone(),
            };
            attending.reader = reader;
            self.has_news |= !self.roster.is_told(reader);
            if news.is_empty() && attending.told_elsewhere == elsewhere_count {
                continue;
            }
            attending.told_elsewhere = elsewhere_count;
            let RosterNews { keys, present } = news;
            let news = PresenceNews { elsewhere_count, keys, present };
            attending.is_told(news.size());
            effects.push(channel_id.say(FromRoom::Presence(news)));
        }
        effects
    }

    /// Whoever has been silent for too long is not seen any longer, until something is heard of it.
    fn note_silent(&mut self, now_ms: u64) {
        if self.count == 0 || now_ms < self.silent_at_ms {
            return;
        }
        let mut gone = BTreeSet::new();
        let mut oldest_ms = now_ms;
        for attending in self.channels.values_mut().filter(|it| it.own_count() > 0) {
            if now_ms >= attending.heard_at_ms + PRESENCE_SILENT_MS {
                gone.extend(attending.keys.values());
                attending.is_silent = true;
            } else {
                oldest_ms = oldest_ms.min(attending.heard_at_ms);
            }
        }
        self.silent_at_ms = oldest_ms + PRESENCE_SILENT_MS;
        self.hide(&gone);
    }

    /// What does not add up; for simulations.
    pub(super) fn doubt(&self) -> Option<String> {
        let counted: u32 = self.channels.values().map(Attending::own_count).sum();
        let size: usize = self.all.values().map(|here| PRESENT_SIZE + here.state.len()).sum();
        let listed = self.roster.len() == LISTED_MAX.min(counted as usize);
        let is_all = self.roster.len() + self.unlisted.len() == counted as usize;
        let is_so = counted == self.count && size == self.size && listed && is_all;
        let (count, kept) = (self.count, self.size);
        (!is_so).then(|| format!("{count} of {counted} present, in {kept} of {size} bytes"))
    }
}

impl Room {
    /// When to tell it that somebody is to be told who is present, by
    /// [`RoomInput::PresenceDue`](super::RoomInput::PresenceDue); `None` where nobody is.
    #[must_use]
    pub fn presence_due_at_ms(&self) -> Option<u64> {
        self.presence.due_at_ms().filter(|_| self.presence_told_at_ms.is_none())
    }

    /// Bytes that those who are present take, about.
    #[must_use]
    pub fn presence_size(&self) -> usize {
        self.presence.size()
    }

    /// Tells who is present, once nothing else is to be told.
    pub(super) fn tell_who_is_present(&mut self) {
        if !self.has_to_tell()
            && let Some(now_ms) = self.presence_told_at_ms.take()
        {
            self.effects.extend(self.presence.tell(now_ms, &*self.outlets));
        }
    }
}
