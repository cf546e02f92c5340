//! The document's way to its server.

mod hearing;
mod syncs;

use std::collections::VecDeque;

use tidelog_document::{ArrivingEntry, DoctypeHash, PutOff};
use tidelog_sync::{Channel, EntryPart, Intent, OpenDoctype, ToRoom, ToServer, WireFrame, codec};
use tidelog_types::limits::Limits;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Budget, ErrorCode, JournalId, Lsn, Position, SortedMap};

use super::hand_over::{Offer, Seeding, Unrecorded};
use super::open::{Open, Synced};
use super::reads::For;
use super::{Context, Document, HandleState, Role, State};
use crate::protocol::CallFailure;
use crate::record::HashedDoctype;
use crate::server_link::{LinkName, ServerLink};
use crate::store_link::StoreLink;
use crate::token_turns::TokenHolder;

/// Milliseconds after which a server that refused the document for now is asked again.
const RETRY_MS: u64 = 1_000;
/// Milliseconds after which a server is asked again that refused the document until somebody mends
/// something.
const RETRY_FINAL_MS: u64 = 30_000;

/// Milliseconds in which a server says where a document stands; then it is asked anew.
const CHANNEL_MS: u64 = 10_000;
/// How often that becomes twice as long, each time in a row that it was too short: the question, or
/// the answer, may take its time on a line that carries little, and each one adds to what is on it.
const CHANNEL_DOUBLINGS_MAX: u32 = 5;

/// What a document knows of its server.
#[derive(Default)]
pub(crate) struct Following {
    pub(super) channel: Option<Joined>,
    /// What apps have said of the server; see `Memo`.
    pub(super) word: u64,
    /// The server would not have this document, or it could not be kept: asked again no earlier
    /// than this.
    retry_at_ms: u64,
    /// Whether the server itself refused the document; `retry_at_ms` says when it is asked again.
    refused: bool,
    /// The newest doctype, if the server would not have the document for that: it is asked by that
    /// one alone until it takes it.
    refused_doctype: Option<DoctypeHash>,
    /// Whether the server did not know a doctype by its hash, and is brought all of them until it
    /// has said where the document stands.
    brings_doctypes: bool,
    /// Where apps want the document synced, other than it was: the record says so only once that
    /// server is known to have the same document.
    pub(super) moved: Option<String>,
    /// Since when a rebase is put off.
    pub(super) put_off_since_ms: Option<u64>,
    /// How often in a row the server has not said in time where the document stands.
    silences: u32,
    /// The server has said that it has no verdict, and not yet again where the document stands.
    no_verdict: Option<NoVerdict>,
    /// Entries that did not fit were asked for anew; twice in a row is an error.
    restarted: bool,
    next_probe: u32,
    /// A local document that is to become the server's.
    pub(super) offer: Option<Offer>,
    /// Whose was taken over and could not be written down the last time that this failed.
    pub(super) unrecorded: Option<Unrecorded>,
    /// Why layers could not be built for the request in front, until it was told or they were.
    pub(super) rebase_failure: Option<CallFailure>,
}

/// The document on a connection to a server. Numbers count per connection, so a channel is told
/// apart by both; it ends as soon as the document wants another server, or none.
pub(super) struct Joined {
    /// The server's address.
    server: String,
    /// The document's number there.
    id: Channel,
    /// What the server was told is held.
    have: Option<Position>,
    /// When the server was asked on it.
    asked_at_ms: u64,
    /// Whether the server has said where it stands.
    is_open: bool,
    /// What it had then of the document: all before this LSN.
    stood_at: Lsn,
    /// The newest doctype, by which a server that decides was asked first.
    newest: DoctypeHash,
    /// Whether the server was told the newest doctype and not those that frames may name as well.
    lacks_doctypes: bool,
    /// Whether doctypes were named on it, and not brought.
    is_named: bool,
    /// When the server is asked anew, since it had no room for a verdict.
    ask_again_at_ms: Option<u64>,
    /// The seed that the server waits for, until all of it is sent.
    pub(super) seed: Option<Seeding>,
    /// An entry of which some parts have come.
    arriving: ArrivingEntry,
    /// Parts that have come and are not taken in: the first goes by pages that are being read.
    waiting: VecDeque<EntryPart>,
    /// Entries before this position have come; the server is told so once the disk has caught up.
    owed: Option<Position>,
    /// The server was told that all entries before this are held.
    said: Lsn,
    /// Bytes of memory of the entries that have come since.
    unsaid_size: usize,
    /// Since when some were held that the server was not told of, and up to where by now.
    unsaid: Option<(u64, Position)>,
}

impl Joined {
    /// Whether so much has come that the server should be told: an eighth of what it sends before
    /// it waits for our word. A message for each would cost both sides more than most entries do.
    fn is_worth_saying(&self, next: Lsn, limits: &Limits) -> bool {
        let count = next.get().saturating_sub(self.said.get());
        count >= limits.entries_in_flight_max.div_ceil(UNSAID_PART as u64)
            || self.unsaid_size >= limits.entries_in_flight_size_max / UNSAID_PART
    }
}

/// The server is told what was received once it is one of so many parts of what may be unreceived.
const UNSAID_PART: usize = 8;

/// And so many milliseconds after it came, if it is less: a server may wait for it sooner.
const UNSAID_MS: u64 = 100;

/// Why the server has no verdict.
struct NoVerdict {
    failure: CallFailure,
    said_at_ms: u64,
    /// Whether somebody wants to know how it stands since, who does not hear this.
    is_doubted: bool,
}

impl Following {
    /// Whether this was the server's word until somebody asked anew.
    fn is_doubted(&self, failure: &CallFailure) -> bool {
        self.no_verdict.as_ref().is_some_and(|it| it.is_doubted && it.failure == *failure)
    }

    /// Whether the app stays away from the server.
    pub(super) fn is_away(&self) -> bool {
        !self.word.is_multiple_of(2)
    }

    /// Until when the server may be silent about where the document stands.
    fn silent_until_ms(&self) -> Option<u64> {
        let silent = self.channel.as_ref().filter(|channel| !channel.is_open);
        let silent_ms = CHANNEL_MS << self.silences.min(CHANNEL_DOUBLINGS_MAX);
        silent.map(|channel| channel.asked_at_ms + silent_ms)
    }

    fn ask_again_at_ms(&self) -> Option<u64> {
        self.channel.as_ref()?.ask_again_at_ms
    }
}

impl Document {
    /// Nobody holds it any more: whoever opens it next has said nothing of its server, and was told
    /// nothing of what was wrong there.
    pub(crate) fn forget_what_was_said(&mut self) {
        if self.following.channel.is_none() && self.following.offer.is_none() {
            self.following = Following::default();
            let is_incomplete = self.open().is_some_and(|open| open.is_incomplete);
            self.error = is_incomplete.then(CallFailure::damaged_copy);
        }
    }

    /// Whether somebody waits for what the server says.
    pub(crate) fn waits_for_server(&self) -> bool {
        self.pending() > 0 || !self.syncs.is_empty() || self.following.offer.is_some()
    }

    /// Which server the document wants to talk to now, if any.
    pub(crate) fn wanted_server(&self) -> Option<&str> {
        if let Some(offer) = &self.following.offer {
            return Some(&offer.link.url);
        }
        let server = match &self.state {
            State::Open(open) => open.record.server.as_ref(),
            // The connection is kept meanwhile.
            State::Asking { server } => server.as_ref(),
            State::Absent | State::Broken(_) => None,
        };
        let wanted = !self.following.is_away()
            && self.handles.values().any(|handle| handle.server.is_some());
        let server = server.map(|server| self.following.moved.as_ref().unwrap_or(server));
        server.filter(|_| wanted).map(String::as_str)
    }

    /// The way to this server, of whose copy this is.
    pub(super) fn link_name(&self, url: &str) -> LinkName {
        LinkName { url: url.to_owned(), user: self.key.user.clone() }
    }

    /// The way that it wants to be synced by now, if any.
    pub(crate) fn wanted_link(&self) -> Option<LinkName> {
        self.wanted_server().map(|url| self.link_name(url))
    }

    /// Whether that is this one.
    pub(crate) fn wants(&self, link: &LinkName) -> bool {
        self.key.user == link.user && self.wanted_server() == Some(&link.url)
    }

    /// The tabs that can be asked for a token for this server: one for another server is not its.
    pub(crate) fn token_holders(&self, url: &str) -> Vec<TokenHolder> {
        let offer = self.following.offer.as_ref().filter(|offer| offer.link.url == url);
        let offering = offer.and_then(|offer| offer.token_from);
        let is_its =
            |handle: &HandleState| handle.has_token && handle.server.as_deref() == Some(url);
        let open = self.handles.iter().filter(|(_, handle)| is_its(handle));
        offering.into_iter().chain(open.map(|(key, _)| *key)).collect()
    }

    /// Whether the server is to be told that we follow. What is offered to it is durable here.
    pub(crate) fn wants_channel(&self, now_ms: u64, store: &StoreLink, limits: &Limits) -> bool {
        let ready = match self.open().map(|open| &open.role) {
            Some(Role::Local(_)) => self.following.offer.is_some() && self.ledger.is_drained(),
            Some(Role::Synced(_)) => true,
            None => false,
        };
        // The server sends as much to each channel before anything is said to be received.
        ready
            && self.following.channel.is_none()
            && now_ms >= self.following.retry_at_ms
            && !self.is_far_ahead_of_disk(store, limits)
    }

    /// Whether it may be synced by a token of this subject; a server that asks for none knows
    /// nobody.
    pub(crate) fn is_of(&self, subject: Option<&str>) -> bool {
        let owner = self.open().and_then(|open| open.record.subject.as_deref());
        owner.is_none() || subject.is_none() || owner == subject
    }

    /// Says nothing of it to a server by another user's token.
    pub(crate) fn refuse_subject(&mut self, subject: &str, ctx: &mut Context<'_>) {
        reached(Probe::OtherSubjectMet);
        let owner = self.open().and_then(|open| open.record.subject.as_deref()).unwrap_or_default();
        let failure = CallFailure::of_another(&self.key.document, owner, subject);
        self.refuse(failure, ctx);
        // This step has asked for all else before.
        self.ask_to_be_woken(ctx);
    }

    /// The server is there: say what we hold.
    pub(crate) fn open_channel(&mut self, server: &str, channel: Channel, ctx: &mut Context<'_>) {
        let Some(open) = self.open() else { return };
        let (doctypes, timeline, have, intent) = match (&open.role, &self.following.offer) {
            (Role::Local(authority), Some(offer)) => {
                let intent = Intent::Offer { lives: authority.lives().clone() };
                // Its pages may be of a newer release than whoever offers it.
                let record = &open.record;
                let newest = record.doctype(record.newest).expect("BUG: no newest doctype");
                let is_newer = newest.migrations.len() > offer.doctype.migrations.len();
                let doctype = if is_newer { newest } else { &offer.doctype };
                let (doctypes, have) = (vec![(doctype.hash(), doctype)], authority.position());
                (doctypes, JournalId::NONE, Some(have), intent)
            }
            (Role::Synced(synced), _) => {
                let (record, replica) = (&open.record, &synced.replica);
                // A frame may name any of them, and the newest succeeds all: if the server does not
                // take that one, nothing is to come of a document that has gone another way.
                let mut doctypes = SortedMap::new();
                for HashedDoctype { hash, doctype } in &record.doctypes {
                    let is_newest = *hash == record.newest;
                    let place = (doctype.migrations.len(), is_newest, *hash);
                    doctypes.insert(place, doctype);
                }
                let mut doctypes: Vec<_> =
                    doctypes.into_iter().rev().map(|((.., hash), it)| (hash, it)).collect();
                // By an older one the server lets us in, and sends all of the document in vain.
                if self.following.refused_doctype == Some(record.newest) {
                    doctypes.truncate(1);
                }
                (doctypes, replica.timeline(), replica.sync_request(), Intent::Follow)
            }
            (Role::Local(_), None) => return,
        };
        let is_followed = intent == Intent::Follow;
        let is_named = is_followed && !self.following.brings_doctypes;
        let lacks_doctypes = is_followed && doctypes.len() < open.record.doctypes.len();
        let (newest, secret) = (open.record.newest, open.record.secret);
        let messages: Vec<ToRoom> = doctypes
            .into_iter()
            .map(|(hash, doctype)| ToRoom::Open {
                document: self.key.document.clone(),
                doctype: match is_named {
                    true => OpenDoctype::Named(hash.0),
                    false => OpenDoctype::Whole(codec::encode(doctype)),
                },
                timeline,
                secret,
                have,
                intent: intent.clone(),
            })
            .collect();
        let asked_at_ms = ctx.now_ms;
        let (server, arriving) = (server.to_owned(), ArrivingEntry::default());
        self.following.channel = Some(Joined {
            server,
            id: channel,
            have,
            asked_at_ms,
            is_open: false,
            stood_at: Lsn::FIRST,
            newest,
            lacks_doctypes,
            is_named,
            ask_again_at_ms: None,
            seed: None,
            arriving,
            waiting: VecDeque::new(),
            owed: None,
            said: Lsn::FIRST,
            unsaid_size: 0,
            unsaid: None,
        });
        for message in messages {
            self.say(message, ctx);
        }
        // Of the channel too: nothing may come before it counts as silent.
        self.ask_to_be_woken(ctx);
    }

    /// Lets go of a channel at a server that the document does not want any more: it is synced
    /// elsewhere, stays away, or nobody holds it. So it does of one on which the server was asked
    /// by a doctype that was forgotten since: what it says of that is true of no other one.
    pub(super) fn leave_unwanted_server(&mut self, ctx: &mut Context<'_>) {
        self.follow_who_holds_it();
        let Some(channel) = &self.following.channel else { return };
        let newest = self.open().filter(|_| self.synced().is_some()).map(|it| it.record.newest);
        let is_of_another = newest.is_some_and(|newest| newest != channel.newest);
        if is_of_another || self.wanted_server() != Some(&channel.server) {
            self.leave_server(ctx);
        }
    }

    /// Asks anew on a channel of which nothing was heard.
    pub(super) fn give_up_silent_channel(&mut self, ctx: &mut Context<'_>) {
        if let Some(silent_until_ms) = self.following.silent_until_ms()
            && self.following.offer.is_none()
            && ctx.now_ms >= silent_until_ms
        {
            reached(Probe::SilentChannelLeft);
            self.following.silences += 1;
            self.leave_server(ctx);
        }
    }

    /// Asks anew for verdicts that the server could not give.
    pub(super) fn ask_for_verdicts(&mut self, ctx: &mut Context<'_>) {
        if self.following.ask_again_at_ms().is_some_and(|at_ms| ctx.now_ms >= at_ms) {
            reached(Probe::VerdictAskedAgain);
            self.leave_server(ctx);
        }
    }

    /// Somebody waits for a server that had no verdict, and it may have one by now: it is asked at
    /// once, or a second after it had none.
    pub(super) fn doubt_server(&mut self, now_ms: u64) {
        let Some(no_verdict) = &mut self.following.no_verdict else { return };
        no_verdict.is_doubted = true;
        let soon_ms = now_ms.max(no_verdict.said_at_ms + RETRY_MS);
        let channel = self.following.channel.as_mut();
        if let Some(at_ms) = channel.and_then(|channel| channel.ask_again_at_ms.as_mut()) {
            *at_ms = soon_ms.min(*at_ms);
        }
    }

    /// Asks to be woken for whatever waits for a time.
    pub(super) fn ask_to_be_woken(&self, ctx: &mut Context<'_>) {
        let following = &self.following;
        let times = [
            following.silent_until_ms(),
            following.ask_again_at_ms(),
            following.offer.as_ref().map(|offer| offer.deadline_ms),
            Some(following.retry_at_ms),
            self.write_again.at_ms,
            self.unstored.put_off_until_ms,
            self.build_again.at_ms,
            self.handlers_due_at_ms(),
            ctx.store.is_unserved_from_ms().filter(|_| self.is_own_far_ahead_of_disk(ctx)),
        ];
        for at_ms in times.into_iter().flatten().filter(|at_ms| *at_ms > ctx.now_ms) {
            ctx.out.wake_at(at_ms);
        }
    }

    /// There is a new connection. What was wrong at the other end may have been mended.
    pub(crate) fn server_came(&mut self, link: &LinkName) {
        if self.wants(link) && self.following.refused {
            self.following.retry_at_ms = 0;
        }
    }

    /// The connection to this server is gone.
    pub(crate) fn server_lost(&mut self, server: &str, now_ms: u64) {
        if self.is_channel_at(server) {
            self.forget_channel();
            self.following.silences = 0;
        }
        if let Some(offer) = &mut self.following.offer {
            offer.server_lost(now_ms);
        }
    }

    fn is_channel_at(&self, server: &str) -> bool {
        self.following.channel.as_ref().is_some_and(|channel| channel.server == server)
    }

    fn forget_channel(&mut self) {
        self.following.channel = None;
        self.presence.channel_lost();
        self.handlers.channel_lost();
        self.reads.forget_fault(For::Entry);
        if let Some(synced) = self.open_mut().and_then(|open| open.synced_mut()) {
            synced.sender.disconnected();
            synced.replica.end_withdrawal();
        }
        for sync in &mut self.syncs {
            sync.storage = None;
            sync.probe = None;
        }
    }

    /// Closes the channel; the document may open another one.
    pub(super) fn leave_server(&mut self, ctx: &mut Context<'_>) {
        if self.following.channel.is_some() {
            self.say(ToRoom::Close, ctx);
            self.forget_channel();
        }
    }

    /// The server is asked again after a pause: what there was no room for now will not fit at once
    /// either. It may be mended while the app is open: what cannot help now may help later.
    pub(super) fn follow_later(&mut self, failure: &CallFailure, ctx: &Context<'_>) {
        self.following.refused = false;
        let pause_ms = if failure.is_final() { RETRY_FINAL_MS } else { RETRY_MS };
        self.following.retry_at_ms = ctx.now_ms + pause_ms;
    }

    /// The server is asked no earlier than this either.
    pub(super) fn follow_no_earlier(&mut self, at_ms: u64) {
        self.following.retry_at_ms = self.following.retry_at_ms.max(at_ms);
    }

    /// Somebody waits for the server now: cuts the pause before the next try down to a second.
    pub(super) fn follow_soon(&mut self, now_ms: u64) {
        self.following.retry_at_ms = self.following.retry_at_ms.min(now_ms + RETRY_MS);
    }

    /// Ends the pause before the next try, unless the server itself refused the document.
    pub(super) fn follow_now(&mut self) {
        if !self.following.refused {
            self.following.retry_at_ms = 0;
        }
    }

    /// Whether a server decides, as far as is known.
    pub(super) fn is_followed(&self) -> bool {
        match &self.state {
            State::Open(open) => open.record.server.is_some(),
            State::Asking { server } => server.is_some(),
            State::Absent | State::Broken(_) => false,
        }
    }

    fn channel(&self) -> Option<Channel> {
        self.following.channel.as_ref().map(|channel| channel.id)
    }

    /// Whether the server has said where it stands.
    pub(crate) fn is_online(&self) -> bool {
        self.following.channel.as_ref().is_some_and(|channel| channel.is_open)
    }

    /// Whether all is visible that the server had of the document as it let us in.
    pub(super) fn has_caught_up(&self) -> bool {
        let (Some(channel), Some(replica)) = (&self.following.channel, self.replica()) else {
            return false;
        };
        let is_there = |base: Position| base.next >= channel.stood_at;
        channel.is_open && !replica.is_outdated() && replica.base().is_some_and(is_there)
    }

    /// Whether no events are on their way that whoever decides had recorded before.
    pub(super) fn has_all_events(&self) -> bool {
        self.replica().is_none() || self.has_caught_up()
    }

    /// Notes that this copy has had all that its server had, once.
    pub(super) fn note_synced(&mut self) {
        let is_new = self.open().is_some_and(|open| !open.record.synced) && self.has_caught_up();
        let due = self.write_again.note_due();
        if let Some(open) = self.open_mut().filter(|_| is_new) {
            open.record.synced = true;
            open.record_due = open.record_due.max(Some(due));
        }
    }

    /// The app goes away from the server, or back to it: what it said last holds, in whatever
    /// order it comes.
    pub(crate) fn set_connected(&mut self, word: u64) {
        self.recall_word(word);
        self.following.retry_at_ms = 0;
    }

    /// What was said before there was this core, as far as one of the tabs knows.
    pub(crate) fn recall_word(&mut self, word: u64) {
        self.following.word = self.following.word.max(word);
    }

    /// The document is wanted to be synced at this address.
    pub(super) fn note_server(&mut self, server: &str) {
        let State::Open(open) = &self.state else { unreachable!("BUG: not open") };
        let is_elsewhere = open.record.server.as_deref() != Some(server);
        let moved = is_elsewhere.then(|| server.to_owned());
        if moved != self.following.moved {
            self.following.moved = moved;
            self.forget_refusal();
        }
        self.following.retry_at_ms = 0;
    }

    /// The document was read anew, and was synced at this address before: the disk may have had no
    /// room for a record of that, and no app will say it again.
    pub(super) fn stay_where_it_was_found(&mut self, before: Option<String>) {
        // One that is local on the disk is handed over anew.
        let is_elsewhere =
            |open: &Open| open.record.server.is_some() && open.record.server != before;
        if self.following.moved.is_none() && self.open().is_none_or(is_elsewhere) {
            self.following.moved = before;
        }
    }

    /// Where a document that is made again is synced: where it was found last, if anybody still
    /// wants it there.
    pub(super) fn server_to_begin_at(&mut self) -> Option<String> {
        self.follow_who_holds_it();
        self.following.moved.take().or_else(|| self.first_named_server())
    }

    /// Whether a tab that holds it has named this server.
    fn is_named(&self, url: &str) -> bool {
        self.handles.values().any(|handle| handle.server.as_deref() == Some(url))
    }

    /// The server that whoever holds it has named, if anybody has.
    pub(super) fn first_named_server(&self) -> Option<String> {
        self.handles.values().find_map(|handle| handle.server.clone())
    }

    /// There is memory again to take in what the server sends.
    pub(super) fn has_memory_again(&mut self) {
        if self.error.as_ref().is_some_and(|error| error.code == ErrorCode::Engine) {
            self.forget_refusal();
        }
    }

    /// A server refuses the document to everybody for the newest doctype, which it is told first:
    /// once nobody has it open by that one, it is asked by those before.
    pub(super) fn forget_refused_doctype(&mut self) {
        let Some(refused) = self.following.refused_doctype else { return };
        if self.open().is_some_and(|open| self.is_needed(refused, open)) {
            return;
        }
        let due = self.write_again.note_due();
        if let Some(open) = self.open_mut()
            && open.forget_newest(refused)
        {
            reached(Probe::RefusedDoctypeForgotten);
            open.record_due = open.record_due.max(Some(due));
            self.forget_refusal();
        }
    }

    /// What a server refused the document for is not its newest doctype any more.
    pub(super) fn forget_refusal_of_another(&mut self) {
        let newest = self.open().map(|open| open.record.newest);
        if self.following.refused_doctype.is_some_and(|it| Some(it) != newest) {
            self.forget_refusal();
        }
    }

    /// Forgets that a server refused the document, and asks at once: the reason is over, or another
    /// server is asked.
    fn forget_refusal(&mut self) {
        self.following.refused_doctype = None;
        self.following.retry_at_ms = 0;
        if std::mem::take(&mut self.following.refused) {
            let is_incomplete = self.open().is_some_and(|open| open.is_incomplete);
            self.error = is_incomplete.then(CallFailure::damaged_copy);
        }
    }

    /// Where nobody wants it synced elsewhere any more, it stays at the server that it has; unless
    /// nobody has named that either: whoever holds it has a token for another one, if for any.
    fn follow_who_holds_it(&mut self) {
        if self.following.moved.as_ref().is_some_and(|url| !self.is_named(url)) {
            self.following.moved = None;
            self.forget_refusal();
        }
        let recorded = self.open().and_then(|open| open.record.server.as_ref());
        if self.following.moved.is_none()
            && recorded.is_some_and(|url| !self.is_named(url))
            && let Some(named) = self.first_named_server()
        {
            self.note_server(&named);
        }
    }

    // --- what is sent ---------------------------------------------------------------------------

    /// Whether the server has said which frames it wants.
    pub(super) fn is_asked_for_frames(&self) -> bool {
        self.synced().is_some_and(|synced| synced.sender.is_connected())
    }

    /// Sends the timeline frames that are durable and that the server lacks.
    #[inline(never)]
    pub(super) fn send_frames(&mut self, ctx: &mut Context<'_>) {
        if !self.is_online() {
            return;
        }
        let State::Open(open) = &mut self.state else { return };
        let Role::Synced(synced) = &mut open.role else { return };
        let Synced { replica, durable, sender, .. } = &mut **synced;
        let size_of = |frame: &[u8]| frame.len() + 64;
        let size_at = |lsn: Lsn| replica.undecided_at(lsn).map_or(0, |it| size_of(&it.body));
        let window = ctx.settings.limits.frames_in_flight_size_max;
        let range = sender.next_to_send(*durable, window, size_at);
        let message_size_max = ctx.settings.limits.message_frames_size_max;
        let mut messages: Vec<ToRoom> = Vec::new();
        let mut message_size = 0;
        let mut lsn = range.start();
        // They go in one step, but what is worked out for them costs no more than a slice.
        let mut budget = Budget::new(ctx.settings.limits.slice);
        while lsn < range.end() {
            let predicted = replica.predict(lsn, &mut budget).map(|hash| hash.start());
            let undecided = replica.undecided_at(lsn).expect("BUG: sending what is decided");
            let (call, body) = (undecided.call, undecided.body.clone());
            let frame = WireFrame { call, body, predicted };
            let writer = replica.origin(lsn).life;
            let size = size_of(&frame.body);
            message_size += size;
            match messages.last_mut() {
                Some(ToRoom::Frames { life, frames, .. })
                    if *life == writer && message_size <= message_size_max =>
                {
                    frames.push(frame);
                }
                _ => {
                    message_size = size;
                    messages.push(ToRoom::Frames { life: writer, first: lsn, frames: vec![frame] });
                }
            }
            lsn = lsn.next();
        }
        for message in messages {
            self.say(message, ctx);
        }
    }

    pub(super) fn say_received(&mut self, ctx: &mut Context<'_>) {
        if let Some(base) = self.open().and_then(|open| open.base()) {
            self.say_held(base, ctx);
        }
    }

    /// All before this position is held in a bounded room: the server may send more, unless what
    /// the disk does not have yet fills that room. Said once it is [worth](Joined::is_worth_saying)
    /// a message, or some time later.
    fn say_held(&mut self, held: Position, ctx: &mut Context<'_>) {
        let is_far_ahead = self.is_far_ahead_of_disk(ctx.store, &ctx.settings.limits);
        let Some(channel) = self.following.channel.as_mut().filter(|it| it.is_open) else { return };
        channel.owed = is_far_ahead.then_some(held);
        let (since_ms, _) = channel.unsaid.unwrap_or((ctx.now_ms, held));
        channel.unsaid = (!is_far_ahead).then_some((since_ms, held));
        let is_late = ctx.now_ms >= since_ms + UNSAID_MS;
        if is_far_ahead {
            return;
        }
        if !is_late && !channel.is_worth_saying(held.next, &ctx.settings.limits) {
            ctx.out.wake_at(since_ms + UNSAID_MS);
            return;
        }
        (channel.said, channel.unsaid_size, channel.unsaid) = (held.next, 0, None);
        self.say(ToRoom::Received { next: held.next }, ctx);
    }

    /// The disk may have some more, or can have none any more.
    pub(super) fn say_what_is_owed(&mut self, ctx: &mut Context<'_>) {
        let Some(channel) = &mut self.following.channel else { return };
        let unsaid = channel.unsaid.map(|(_, held)| held);
        if let Some(held) = channel.owed.take().or(unsaid) {
            self.say_held(held, ctx);
        }
    }

    /// Whether no more of the server's is to be taken in before the disk has some of it, as while
    /// nobody serves the store. What no disk can have any more is kept for none.
    pub(super) fn is_far_ahead_of_disk(&self, store: &StoreLink, limits: &Limits) -> bool {
        self.unstored.size() > limits.entries_unstored_size_max && !store.is_lost()
    }

    /// Whether a rebase waits for more entries: so many milliseconds at most as it would run
    /// mutations again, so that others' changes show though ours are not decided, and most of the
    /// time is left for other work.
    pub(super) fn puts_rebase_off(&mut self, ctx: &mut Context<'_>) -> bool {
        let synced = self.open_mut().and_then(|open| open.synced_mut());
        let replica = synced.map(|synced| &mut synced.replica);
        let put_off =
            replica.and_then(|replica| Some((replica.put_off()?, replica.sync_request()?)));
        let Some((PutOff { runs, has_joined }, held)) = put_off else {
            self.following.put_off_since_ms = None;
            return false;
        };
        if has_joined {
            self.say_held(held, ctx);
        }
        let until_ms = *self.following.put_off_since_ms.get_or_insert(ctx.now_ms) + runs;
        if ctx.now_ms >= until_ms {
            return false;
        }
        ctx.out.wake_at(until_ms);
        true
    }

    /// Whether little of what was said to the server may still be on its way.
    pub(super) fn is_uplink_clear(&self, ctx: &Context<'_>) -> bool {
        let channel = self.following.channel.as_ref();
        let link = channel.and_then(|channel| ctx.servers.get(&self.link_name(&channel.server)));
        link.is_some_and(ServerLink::is_uplink_clear)
    }

    /// Says something on the channel, if there is one.
    pub(super) fn say(&self, body: ToRoom, ctx: &mut Context<'_>) {
        if let Some(Joined { server, id, .. }) = &self.following.channel {
            ctx.out.say(self.link_name(server), ToServer::About { channel: *id, body });
        }
    }
}
