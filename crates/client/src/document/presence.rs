//! Who is present: what tabs say of themselves, and whom they are told of. Volatile: it goes behind
//! all that lasts, and is said again on each connection.

use tidelog_sync::{
    Attendee, Hears, PresenceNews, PresenceWord, Roster, RosterReader, Seen, StateText, ToRoom,
};
use tidelog_types::SortedMap;
use tidelog_types::limits::{
    PRESENCE_ATTENDEES_MAX, PRESENCE_HEARD_MAX, PRESENCE_HEARD_SIZE_MAX, PRESENCE_SIGN_MS,
    PRESENCE_TICK_MS,
};

use super::{Context, Document};
use crate::effect::TabId;
use crate::protocol::{FromCore, Handle, Other};

/// Those of this client that have to do with who is present, and the others.
#[derive(Default)]
pub(super) struct Presence {
    attending: SortedMap<(TabId, Handle), Attending>,
    attendees_ever: u32,
    /// Those of whom the server is to hear that they are not present any more.
    gone: Vec<Attendee>,
    /// Whom the server has told of.
    roster: Roster,
    elsewhere_count: u32,
    /// What the server was told on this channel that is wanted.
    hears: Hears,
    /// Whether the server may know of nobody here.
    is_new_there: bool,
    said_at_ms: u64,
    /// What was heard and not said to be, in news and in bytes.
    heard: u32,
    heard_size: usize,
}

/// A handle that has asked who is present.
struct Attending {
    attendee: Attendee,
    /// What it says of itself, if it is present.
    state: Option<StateText>,
    /// Whether the server was told something else last.
    is_due: bool,
    /// Whether the server was told that it is present.
    is_said: bool,
    told: RosterReader,
    /// `None` before it was told anything.
    told_count: Option<u32>,
}

impl Presence {
    fn wanted(&self) -> Hears {
        match self.attending.len() {
            0 => Hears::Nothing,
            1 => Hears::Others,
            _ => Hears::All,
        }
    }

    /// Whether the server knows that one of them is present, and is given signs of life.
    fn is_known(&self) -> bool {
        self.attending.values().any(|it| it.is_said)
    }

    /// Whether the server is to hear something now that was not said.
    pub(super) fn is_due(&self) -> bool {
        self.is_new_there && self.wanted() != Hears::Nothing
            || self.hears != self.wanted()
            || !self.gone.is_empty()
            || self.attending.values().any(|it| it.is_due)
            || self.heard >= PRESENCE_HEARD_MAX
            || self.heard_size >= PRESENCE_HEARD_SIZE_MAX
    }

    /// What is to be said now.
    fn word(&mut self, now_ms: u64) -> PresenceWord {
        self.hears = self.wanted();
        self.said_at_ms = now_ms;
        self.heard_size = 0;
        let is_new = std::mem::take(&mut self.is_new_there);
        let gone = self.gone.drain(..self.gone.len().min(PRESENCE_ATTENDEES_MAX));
        let mut changes: Vec<_> = gone.map(|attendee| (attendee, None)).collect();
        for it in self.attending.values_mut() {
            let is_due = std::mem::take(&mut it.is_due) || is_new;
            let is_news = it.state.is_some() || it.is_said;
            // Further ones have their turn with the next word.
            if is_due && is_news && changes.len() >= PRESENCE_ATTENDEES_MAX {
                it.is_due = true;
            } else if is_due && is_news {
                it.is_said = it.state.is_some();
                changes.push((it.attendee, it.state.clone()));
            }
        }
        PresenceWord { hears: self.hears, heard: std::mem::take(&mut self.heard), changes }
    }

    /// The server has said where the document stands: it is told all.
    pub(super) fn is_followed(&mut self) {
        self.is_new_there = true;
    }

    /// The channel is gone, with all who were seen there.
    pub(super) fn channel_lost(&mut self) {
        self.gone.clear();
        self.roster.retain(|_| false);
        self.elsewhere_count = 0;
        self.hears = Hears::Nothing;
        self.attending.values_mut().for_each(|it| it.is_said = false);
        (self.heard, self.heard_size) = (0, 0);
    }

    /// The server says who is present.
    pub(super) fn hear(&mut self, news: &PresenceNews) {
        self.heard += 1;
        self.heard_size += news.size();
        self.elsewhere_count = news.elsewhere_count;
        self.roster.take(news.keys.as_deref(), &news.present);
    }
}

impl Document {
    /// A tab wants to know who is present, and is so itself if it says something.
    pub(crate) fn set_presence(&mut self, tab: TabId, handle: Handle, state: Option<&str>) {
        if !self.handles.contains_key(&(tab, handle)) {
            return;
        }
        let Presence { attending, attendees_ever, .. } = &mut self.presence;
        let it = attending.get_or_insert_with((tab, handle), || {
            *attendees_ever += 1;
            Attending {
                attendee: Attendee(*attendees_ever),
                state: None,
                is_due: false,
                is_said: false,
                // Its tab may remember whom an earlier core told it of.
                told: RosterReader::ANEW,
                told_count: None,
            }
        });
        // A tab says nothing that is too long.
        let state = state.and_then(StateText::new);
        it.is_due |= it.state != state;
        it.state = state;
    }

    /// Says who is present of those here, and tells them of the others.
    pub(crate) fn see_who_is_present(&mut self, ctx: &mut Context<'_>) {
        let Self { presence, handles, .. } = self;
        let gone = &mut presence.gone;
        presence.attending.retain(|key, it| {
            let stays = handles.contains_key(key);
            gone.extend((!stays && it.is_said).then_some(it.attendee));
            stays
        });
        if self.is_online() {
            self.say_who_is_present(ctx);
        }
        self.tell_who_is_present(ctx);
    }

    fn say_who_is_present(&mut self, ctx: &mut Context<'_>) {
        let presence = &self.presence;
        let sign_at_ms = presence.said_at_ms + PRESENCE_SIGN_MS;
        let needs_sign = presence.is_known();
        let is_sign_due = needs_sign && ctx.now_ms >= sign_at_ms;
        if !is_sign_due && !presence.is_due() {
            if needs_sign {
                ctx.out.wake_at(sign_at_ms);
            }
            return;
        }
        let tick_at_ms = presence.said_at_ms + PRESENCE_TICK_MS;
        if ctx.now_ms < tick_at_ms {
            return ctx.out.wake_at(tick_at_ms);
        }
        // Frames come first: while some may be on their way, there or to the disk, only signs are
        // given.
        if !is_sign_due && (self.settling > 0 || !self.is_uplink_clear(ctx)) {
            if needs_sign {
                ctx.out.wake_at(sign_at_ms);
            }
            return;
        }
        let word = self.presence.word(ctx.now_ms);
        if self.presence.is_known() {
            ctx.out.wake_at(ctx.now_ms + PRESENCE_SIGN_MS);
        }
        if self.presence.is_due() {
            ctx.out.wake_at(ctx.now_ms + PRESENCE_TICK_MS);
        }
        self.say(ToRoom::Presence(word), ctx);
    }

    fn tell_who_is_present(&mut self, ctx: &mut Context<'_>) {
        let is_online = self.is_online();
        let Presence { attending, roster, elsewhere_count, .. } = &mut self.presence;
        let present_count = attending.values().filter(|it| it.state.is_some()).count();
        for ((tab, handle), it) in attending.iter_mut() {
            let here_count = present_count - usize::from(it.state.is_some());
            let elsewhere_count = u32::try_from(here_count).unwrap_or(0) + *elsewhere_count;
            let count = if is_online { 1 + elsewhere_count } else { 1 };
            let is_told = roster.is_told(it.told) && it.told_count == Some(count);
            // Of who is behind, the newest is told once it has heard enough.
            if is_told || ctx.out.flow.is_behind(*tab) {
                continue;
            }
            let is_it = |key| roster.who(key).is_some_and(|who| who.own == Some(it.attendee));
            let seen = |key| if is_it(key) { Seen::Hidden } else { Seen::Other };
            let (news, told) = roster.news(it.told, usize::MAX, seen);
            let keys = news.keys.map(|keys| keys.to_vec());
            let others: Vec<Other> = news.present.iter().map(Other::from).collect();
            it.told = told;
            if keys.is_some() || !others.is_empty() || it.told_count != Some(count) {
                it.told_count = Some(count);
                ctx.out.tell(*tab, FromCore::Presence { handle: *handle, count, keys, others });
            }
        }
    }
}
