//! The way to one server: one socket for all copies of one user that are synced there.

use tidelog_sync::{
    ByeReason, Channel, FromRoom, FromServer, MessageError, ToServer, decode_message,
};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{ClientId, DocumentKey, SortedMap};

use crate::effect::{SocketId, TabId};
use crate::outbox::Outbox;
use crate::protocol::{CallFailure, FromCore};
use crate::renewal::Renewal;
use crate::rng::Rng;
use crate::token_turns::{Next, Questions, TokenHolder, TokenTurns};

/// Milliseconds without a word from the server after which it is asked for one, and the same while
/// something waits for it.
const PING_AFTER_MS: u64 = 15_000;
const PING_SOON_AFTER_MS: u64 = 2_000;
/// Milliseconds after that question after which the connection counts as broken.
const ANSWER_MS: u64 = 15_000;
/// Milliseconds for the answer while something waits for the server.
const ANSWER_SOON_MS: u64 = 6_000;
/// The answer comes behind what is still on its way up: it may take so much longer as a line of 64
/// kbit/s takes for that, up to one message, since the server says something to each.
const UPLINK_BYTES_PER_MS: u64 = 8;
const UPLINK_MS_MAX: u64 = 40_000;
/// Bytes on their way up after which the server is asked for a word behind them, so that no more of
/// them are waited for than are on their way.
const PING_AFTER_SIZE: u64 = 16 * 1024;
/// How often the time for an answer doubles at most: one message can take a slow line minutes.
const DOUBLINGS_MAX: u32 = 5;
/// Milliseconds that connecting may take, and a token, and then the server's welcome. A server
/// waits little longer for the first word on a connection.
const CONNECT_MS: u64 = 8_000;
/// Milliseconds before the second try; doubles with each, up to the longest, and while something
/// waits for the server up to a shorter one.
const RETRY_FIRST_MS: u64 = 250;
const RETRY_LONGEST_MS: u64 = 10_000;
const RETRY_SOON_MS: u64 = 3_000;
/// Milliseconds before the next try where we were refused as we came, whatever waits; doubles
/// with each, up to the longest. The app is asked for a token at each try.
const REFUSED_FIRST_MS: u64 = 5_000;
const REFUSED_LONGEST_MS: u64 = 300_000;

/// How far the way to a server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody wants it, or it waits for the next try.
    Idle,
    /// A socket is being opened, or the server's welcome is awaited.
    Connecting,
    /// The socket is open; a tab was asked for a token.
    WantsToken,
    /// The server is there.
    Welcomed,
}

/// Whether there is use for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// No document is synced there any more.
    None,
    /// Documents are synced there.
    Some,
    /// Something waits for the server's answer.
    Soon,
}

/// Which way that is: users of one device speak to a server by tokens of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkName {
    /// The server's address.
    pub(crate) url: String,
    /// Whose copies are synced by it; empty for the device's.
    pub(crate) user: String,
}

/// The way to one server for one user.
#[derive(Debug)]
pub(crate) struct ServerLink {
    url: String,
    client: ClientId,
    socket: Option<SocketId>,
    pub(crate) stage: Stage,
    tries: u32,
    /// Since when it is let in.
    welcomed_at_ms: Option<u64>,
    /// When it was lost, and how long to wait since then.
    lost_at_ms: u64,
    pause_ms: u64,
    heard_at_ms: u64,
    ping: Option<Ping>,
    /// Whether there is a reason to ask whether it is still there.
    is_doubted: bool,
    /// Bytes that were sent and may still be on their way: no ping behind them was answered.
    unproved_size: u64,
    /// Connections given up for want of an answer, less the pings that were answered in time since.
    /// A line that takes longer for one message than an answer may take would never get it through:
    /// so from the second one on, each doubles the time.
    given_up: u32,
    /// Who can give a token, and whose turn it is.
    turns: TokenTurns,
    next_channel: u32,
    channels: SortedMap<Channel, DocumentKey>,
    /// Why it is not there, while it is not.
    pub(crate) failure: Option<CallFailure>,
    /// The stage and the failure when documents looked last.
    seen: (Stage, Option<CallFailure>),
    /// Whether that was said on the connection that there is, and not on one before it.
    is_said_here: bool,
    /// Whether only a change at one of the ends helps: another version, no access. Nobody waits for
    /// that, but it may come while a page stays open.
    pub(crate) barred: bool,
    /// Whether a token was refused, and no connection was tried without a pause since.
    was_refused: bool,
    /// How often in a row all who could give a token were asked, and we were refused as we came,
    /// for the token, for want of one, or since its user has too many connections.
    refusals: u32,
    /// When the token is renewed by which we are let in, if there is one.
    renewal: Option<Renewal>,
    /// Whose token that is.
    subject: Option<String>,
    /// Whether a document is another user's, of which nothing is said by this token; what was
    /// offered in its place and has no answer; and what is offered then, the newest other one
    /// that has come since: a server reads nothing behind many of them for a while.
    is_anothers: bool,
    offered: Option<(TokenHolder, String)>,
    offered_next: Option<(TokenHolder, String)>,
}

/// A question that the server has not answered yet. It says other things before it comes to that.
#[derive(Debug)]
struct Ping {
    at_ms: u64,
    /// Bytes sent up to it, itself included, that its answer proves to have come through.
    size: u64,
}

/// What a message of a server is about.
pub(crate) enum Heard {
    /// The server has let us in.
    Welcome,
    /// About a document.
    About(DocumentKey, Channel, Box<FromRoom>),
    /// Nothing to do.
    Nothing,
    /// The connection is of no use any more.
    Broken,
}

impl ServerLink {
    /// What is wrong with it, for simulations: whoever is let in is not barred, nor by what passes.
    pub(crate) fn doubt(&self) -> Option<String> {
        let is_let_in = matches!(self.stage, Stage::Welcomed);
        let passes = !self.failure.as_ref().is_some_and(CallFailure::is_final);
        let what = match (is_let_in, passes) {
            _ if !self.barred => return None,
            (true, _) => "has let us in",
            (false, true) => "may let us in by itself",
            (false, false) => return None,
        };
        Some(format!("{} {what}, and is barred", self.url))
    }

    pub(crate) fn new(url: String, client: ClientId) -> Self {
        Self {
            url,
            client,
            socket: None,
            stage: Stage::Idle,
            tries: 0,
            welcomed_at_ms: None,
            lost_at_ms: 0,
            pause_ms: 0,
            heard_at_ms: 0,
            ping: None,
            is_doubted: false,
            unproved_size: 0,
            given_up: 0,
            turns: TokenTurns::new(),
            next_channel: 1,
            channels: SortedMap::new(),
            failure: None,
            seen: (Stage::Idle, None),
            is_said_here: false,
            barred: false,
            was_refused: false,
            refusals: 0,
            renewal: None,
            subject: None,
            is_anothers: false,
            offered: None,
            offered_next: None,
        }
    }

    /// Whether documents see something else than when this was asked last.
    pub(crate) fn looks_other(&mut self) -> bool {
        if (self.seen.0, &self.seen.1) == (self.stage, &self.failure) {
            return false;
        }
        self.seen = (self.stage, self.failure.clone());
        true
    }

    pub(crate) fn is_socket(&self, socket: SocketId) -> bool {
        self.socket == Some(socket)
    }

    /// The documents that have a channel on the connection.
    pub(crate) fn followers(&self) -> Vec<DocumentKey> {
        self.channels.values().cloned().collect()
    }

    /// Whose token the server has taken; `None` if it lets in whoever comes, and says nothing of
    /// what that may do.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Sends, if the server is there.
    pub(crate) fn send(&mut self, message: &ToServer, out: &mut Outbox) {
        if let (Some(socket), Stage::Welcomed) = (self.socket, self.stage) {
            self.unproved_size += out.send(socket, message) as u64;
        }
    }

    /// Whether less may still be on its way up than the server is asked for a word behind.
    pub(crate) fn is_uplink_clear(&self) -> bool {
        self.unproved_size < PING_AFTER_SIZE
    }

    /// Does what time asks for. Says whether the connection was given up.
    pub(crate) fn tick(
        &mut self,
        now_ms: u64,
        need: Need,
        next_socket: &mut u32,
        out: &mut Outbox,
    ) -> bool {
        if need == Need::None {
            let was_open = self.socket.is_some();
            self.drop_socket(out);
            self.stage = Stage::Idle;
            self.failure = None;
            self.barred = false;
            self.tries = 0;
            self.pause_ms = 0;
            self.refusals = 0;
            self.given_up = 0;
            self.turns.forget();
            return was_open;
        }
        let is_soon = need == Need::Soon;
        match self.stage {
            Stage::Idle if now_ms >= self.retry_at_ms(is_soon) => {
                *next_socket += 1;
                let socket = SocketId(*next_socket);
                self.socket = Some(socket);
                self.stage = Stage::Connecting;
                self.is_said_here = false;
                self.heard_at_ms = now_ms;
                (self.ping, self.is_doubted, self.unproved_size) = (None, false, 0);
                out.open_socket(socket, format!("{}/v1/sync", self.url.trim_end_matches('/')));
                out.wake_at(now_ms + CONNECT_MS);
            }
            Stage::Idle => out.wake_at(self.retry_at_ms(is_soon)),
            Stage::Connecting | Stage::WantsToken => {
                if now_ms >= self.heard_at_ms + CONNECT_MS {
                    return true;
                }
                out.wake_at(self.heard_at_ms + CONNECT_MS);
            }
            Stage::Welcomed => {
                if let Some(renewal) = &self.renewal {
                    out.wake_at(renewal.wakes_at_ms(now_ms));
                }
                let silence_ms = match (self.is_doubted, is_soon) {
                    (true, _) => 0,
                    (false, true) => PING_SOON_AFTER_MS,
                    (false, false) => PING_AFTER_MS,
                };
                let ask_at_ms = self.heard_at_ms + silence_ms;
                let is_due = now_ms >= ask_at_ms || self.unproved_size >= PING_AFTER_SIZE;
                if self.ping.is_none() && is_due {
                    self.send(&ToServer::Ping, out);
                    self.ping = Some(Ping { at_ms: now_ms, size: self.unproved_size });
                }
                let Some(ping) = &self.ping else {
                    out.wake_at(ask_at_ms);
                    return false;
                };
                let asked_at_ms = ping.at_ms.max(ask_at_ms);
                let broken_at_ms = asked_at_ms + self.answer_ms(ping, is_soon || self.is_doubted);
                if now_ms >= broken_at_ms {
                    reached(Probe::SilentLinkGivenUp);
                    self.given_up = (self.given_up + 1).min(DOUBLINGS_MAX + 1);
                    return true;
                }
                out.wake_at(broken_at_ms);
            }
        }
        false
    }

    fn retry_at_ms(&self, is_soon: bool) -> u64 {
        let longest_ms = match is_soon {
            _ if self.rests_after_refusal() => REFUSED_LONGEST_MS,
            true => RETRY_SOON_MS,
            false => RETRY_LONGEST_MS,
        };
        self.lost_at_ms + self.pause_ms.min(longest_ms)
    }

    /// Whether nothing is tried for longer than elsewhere, since we were refused as we came.
    pub(crate) fn rests_after_refusal(&self) -> bool {
        self.refusals > 0 && self.is_said_here && self.stage == Stage::Idle
    }

    /// Those can give a token. One who was not asked yet may have one that is taken: that is tried
    /// as soon as elsewhere, and a token that came late at once.
    pub(crate) fn meet_holders(&mut self, holders: &[TokenHolder]) {
        if self.turns.has_new(holders) {
            self.refusals = 0;
        }
        if self.turns.has_kept() {
            self.pause_ms = 0;
        }
    }

    /// The answer waits for what was sent before the question, and for nothing that came behind it.
    fn answer_ms(&self, ping: &Ping, is_soon: bool) -> u64 {
        let answer_ms = if is_soon { ANSWER_SOON_MS } else { ANSWER_MS };
        let uplink_ms = (ping.size / UPLINK_BYTES_PER_MS).min(UPLINK_MS_MAX);
        (answer_ms + uplink_ms) << self.given_up.saturating_sub(1)
    }

    /// The ping was answered: what was sent before it has come through. A server that has too much
    /// to do to read on says so unasked, and then less of it is waited for than could be.
    fn answered(&mut self, now_ms: u64) {
        let Some(ping) = self.ping.take() else { return };
        self.unproved_size -= ping.size;
        if now_ms < ping.at_ms + ANSWER_SOON_MS {
            self.given_up = self.given_up.saturating_sub(1);
        }
    }

    /// The network has changed, or somebody looks again: an old connection may be dead.
    pub(crate) fn nudge(&mut self) {
        self.is_doubted = true;
        self.pause_ms = 0;
        self.tries = 0;
        self.refusals = 0;
    }

    /// The socket is open: say who we are, or ask one of those for a token first who can give one.
    pub(crate) fn opened(
        &mut self,
        now_ms: u64,
        holders: &[TokenHolder],
        questions: &mut Questions,
        out: &mut Outbox,
    ) {
        self.heard_at_ms = now_ms;
        match self.turns.next(now_ms, holders, questions) {
            Next::None => self.hello(now_ms, None, out),
            Next::Kept(token) => {
                // As where somebody else is asked.
                self.barred = false;
                self.hello(now_ms, Some(token), out);
            }
            Next::Ask { holder: (tab, handle), question, is_new } => {
                // That another one's token was refused says nothing of this one's. A server of
                // another version says so again.
                self.barred &= !is_new;
                self.stage = Stage::WantsToken;
                out.tell(tab, FromCore::TokenWanted { handle, question });
            }
        }
    }

    /// A document is another user's than the token: one of that user's may come.
    pub(crate) fn met_another_user(&mut self, now_ms: u64, out: &mut Outbox) {
        self.is_anothers = true;
        self.was_refused_access(now_ms);
        if let Some(renewal) = &self.renewal {
            out.wake_at(renewal.wakes_at_ms(now_ms));
        }
    }

    /// A document was refused to the token: another one may allow it.
    pub(crate) fn was_refused_access(&mut self, now_ms: u64) {
        self.renewal.iter_mut().for_each(|renewal| renewal.hurry(now_ms));
    }

    /// Whether somebody is to be asked for a token in the place of one that expires soon.
    pub(crate) fn wants_renewal(&self, now_ms: u64) -> bool {
        let has_next = self.offered.is_none() && self.offered_next.is_some();
        let is_due = |renewal: &Renewal| has_next || renewal.is_due(now_ms);
        self.stage == Stage::Welcomed && self.renewal.as_ref().is_some_and(is_due)
    }

    /// Offers what has come meanwhile, or asks one of those for it.
    pub(crate) fn renew(
        &mut self,
        now_ms: u64,
        holders: &[TokenHolder],
        questions: &mut Questions,
        out: &mut Outbox,
    ) {
        if self.offered.is_none()
            && let Some(next) = self.offered_next.take()
        {
            return self.offer(next, out);
        }
        let first = self.turns.last();
        let next = self.renewal.as_mut().and_then(|it| it.ask(now_ms, holders, first));
        if let Some((tab, handle)) = next {
            let question = self.turns.asks((tab, handle), questions);
            out.tell(tab, FromCore::TokenWanted { handle, question });
        }
    }

    fn offer(&mut self, offered: (TokenHolder, String), out: &mut Outbox) {
        self.send(&ToServer::Renew { token: offered.1.clone() }, out);
        self.offered = Some(offered);
    }

    /// Whether this tab was asked for a token by that question, and its answer is wanted.
    pub(crate) fn has_asked(&self, tab: TabId, question: u64) -> bool {
        self.turns.has_asked(tab, question)
    }

    /// That tab is gone, and gives no token any more.
    pub(crate) fn drop_tab(&mut self, tab: TabId) {
        self.turns.drop_tab(tab);
    }

    /// Somebody who was asked for a token has answered. Says whether nobody was asked later, and so
    /// nothing comes of the connection.
    pub(crate) fn answered_with(
        &mut self,
        question: u64,
        token: Option<String>,
        now_ms: u64,
        out: &mut Outbox,
    ) -> bool {
        let holder = self.turns.answered(question);
        if let (Stage::Welcomed, Some(renewal)) = (self.stage, &mut self.renewal) {
            match token {
                Some(token) => match &self.offered {
                    None => self.offer((holder, token), out),
                    Some((_, offered)) if *offered == token => {}
                    Some(_) => self.offered_next = Some((holder, token)),
                },
                None => {
                    renewal.has_none(holder);
                    out.wake_at(now_ms);
                }
            }
            return false;
        }
        let is_wanted = self.stage == Stage::WantsToken;
        let Some(token) = token else {
            return is_wanted && self.turns.is_latest(question);
        };
        if is_wanted {
            self.turns.goes_by(holder);
            self.hello(now_ms, Some(token), out);
        } else {
            self.turns.keep(holder, token, now_ms);
        }
        false
    }

    fn hello(&mut self, now_ms: u64, token: Option<String>, out: &mut Outbox) {
        self.stage = Stage::Connecting;
        self.heard_at_ms = now_ms;
        if token.is_some() {
            reached(Probe::TokenSent);
        }
        if let Some(socket) = self.socket {
            out.send(socket, &ToServer::Hello { client: self.client, token });
        }
    }

    /// What the server said.
    pub(crate) fn hear(&mut self, now_ms: u64, bytes: &[u8]) -> Heard {
        self.heard_at_ms = now_ms;
        self.is_doubted = false;
        let message = match decode_message::<FromServer>(bytes) {
            Ok(message) => message,
            Err(error) => {
                self.barred = matches!(error, MessageError::Version { .. });
                self.failure = Some(CallFailure::protocol(&format!("{}: {error}", self.url)));
                self.is_said_here = true;
                return Heard::Broken;
            }
        };
        match message {
            FromServer::Admitted { subject, seconds_left } => {
                self.subject = Some(subject);
                self.renewal = Some(Renewal::new(now_ms, seconds_left, self.client.0[0]));
                if self.stage != Stage::Welcomed {
                    return Heard::Nothing;
                }
                reached(Probe::TokenRenewed);
                // What is offered next is newer, and may allow more.
                if let Some((holder, _)) = self.offered.take() {
                    self.turns.goes_by(holder);
                }
                self.turns.want_no_more();
                // What was refused by the token before may be served by this one.
                Heard::Welcome
            }
            FromServer::NotRenewed => {
                self.renewal.iter_mut().for_each(Renewal::was_refused);
                // On this connection the server takes no token of another user, as this may be one.
                let refused = self.offered.take();
                let Some((holder, token)) = refused.filter(|_| self.is_anothers) else {
                    return Heard::Nothing;
                };
                let next = self.offered_next.take();
                for (holder, token) in [(holder, token)].into_iter().chain(next) {
                    self.turns.keep(holder, token, now_ms);
                }
                Heard::Broken
            }
            FromServer::Welcome => {
                self.stage = Stage::Welcomed;
                self.welcomed_at_ms = Some(now_ms);
                self.turns.is_let_in();
                self.was_refused = false;
                self.refusals = 0;
                self.failure = None;
                self.barred = false;
                Heard::Welcome
            }
            FromServer::Pong => {
                self.answered(now_ms);
                Heard::Nothing
            }
            FromServer::Bye { reason } => {
                let is_in = self.stage == Stage::Welcomed;
                let is_crowded = reason == ByeReason::Slow && !is_in;
                self.failure = match is_crowded {
                    true => Some(CallFailure::crowded(&self.url)),
                    false => CallFailure::of_bye(&self.url, &reason),
                };
                self.is_said_here = true;
                self.barred = matches!(
                    reason,
                    ByeReason::Version | ByeReason::Unauthenticated | ByeReason::Origin
                );
                let is_refused = reason == ByeReason::Unauthenticated;
                // The token that had let us in may be the one that is refused by now.
                self.was_refused = is_refused;
                if self.was_refused {
                    self.was_let_in(now_ms);
                    self.turns.last_is_refused();
                }
                match is_crowded || is_refused && !is_in {
                    true => self.count_refusal(),
                    false => self.refusals = 0,
                }
                Heard::Broken
            }
            FromServer::About { channel, body } => match self.channels.get(&channel) {
                Some(document) => Heard::About(document.clone(), channel, Box::new(body)),
                // Of a channel that was closed meanwhile.
                None => Heard::Nothing,
            },
        }
    }

    /// We were refused as we came: that counts once for each round of all who can give a token.
    fn count_refusal(&mut self) {
        match self.turns.ends_round() {
            true => self.refusals += 1,
            false => self.refusals = self.refusals.max(1),
        }
    }

    /// The connection ends. Where the server had let us in for a while, all begins anew.
    fn was_let_in(&mut self, now_ms: u64) {
        if self.welcomed_at_ms.take().is_some_and(|at_ms| now_ms >= at_ms + RETRY_LONGEST_MS) {
            self.tries = 0;
            self.turns.begin_anew();
        }
    }

    /// Nobody has given a token: they are asked again, whatever barred it before.
    pub(crate) fn lacks_token(&mut self) {
        self.failure = Some(CallFailure::no_token(&self.url));
        self.barred = false;
    }

    /// Why documents cannot follow this server at present, where that is known.
    pub(crate) fn trouble(&self) -> Option<CallFailure> {
        let waits = self.stage == Stage::WantsToken;
        self.failure.clone().or_else(|| waits.then(|| CallFailure::no_token(&self.url)))
    }

    /// The connection is gone: try again later, a little longer each time.
    pub(crate) fn lost(&mut self, now_ms: u64, rng: &mut Rng, out: &mut Outbox) {
        let is_final = self.failure.as_ref().is_some_and(CallFailure::is_final);
        self.failure = self.trouble();
        self.drop_socket(out);
        // What breaks it each time it is there is not to be sent many times a second.
        self.was_let_in(now_ms);
        self.stage = Stage::Idle;
        // What only a change at one of the ends helps against comes again with the next welcome.
        let longest = match self.is_said_here {
            true if self.refusals > 0 => {
                (REFUSED_FIRST_MS << (self.refusals - 1).min(6)).min(REFUSED_LONGEST_MS)
            }
            true if is_final => RETRY_LONGEST_MS,
            _ => (RETRY_FIRST_MS << self.tries.min(6)).min(RETRY_LONGEST_MS),
        };
        self.tries += 1;
        self.lost_at_ms = now_ms;
        self.pause_ms = longest / 2 + rng.below(longest / 2 + 1);
        if self.failure.is_none() {
            self.failure = Some(CallFailure::unreachable(&self.url));
        }
        out.wake_at(now_ms);
    }

    /// A number for a document on this connection.
    pub(crate) fn open_channel(&mut self, document: DocumentKey) -> Channel {
        let channel = Channel(self.next_channel);
        self.next_channel += 1;
        self.channels.insert(channel, document);
        channel
    }

    pub(crate) fn close_channel(&mut self, channel: Channel) {
        self.channels.remove(&channel);
    }

    /// Whether it is barred for the token that it was given.
    pub(crate) fn is_token_refused(&self) -> bool {
        self.failure == CallFailure::of_bye(&self.url, &ByeReason::Unauthenticated)
    }

    /// Whether one of those has another token, as far as is known: it was not asked, or what it has
    /// given was not said yet.
    pub(crate) fn has_unasked(&self, holders: &[TokenHolder]) -> bool {
        self.turns.has_unasked(holders)
    }

    /// Somebody has another token than the one that was refused: the next connection is tried
    /// without a pause, once for each refusal. Says whether that is now.
    pub(crate) fn try_next_holder(&mut self) -> bool {
        let is_first = std::mem::take(&mut self.was_refused);
        if is_first {
            self.pause_ms = 0;
        }
        is_first
    }

    /// Forget what barred it, and try at once: this tab asks for it anew. It may have another token
    /// by now, and so is asked before others.
    pub(crate) fn try_now(&mut self, tab: TabId) {
        self.barred = false;
        self.pause_ms = 0;
        self.refusals = 0;
        self.turns.is_called_by(tab);
    }

    fn drop_socket(&mut self, out: &mut Outbox) {
        (self.renewal, self.subject) = (None, None);
        self.is_anothers = false;
        (self.offered, self.offered_next) = (None, None);
        if let Some(socket) = self.socket.take() {
            out.close_socket(socket);
        }
        self.channels.clear();
    }
}

#[cfg(test)]
mod tests {
    use tidelog_sync::encode_message;
    use tidelog_types::Life;
    use tidelog_types::limits::Limits;

    use super::*;
    use crate::effect::Effect;
    use crate::protocol::Handle;

    /// A link, and the time.
    struct Stage {
        link: ServerLink,
        questions: Questions,
        now_ms: u64,
        sockets: u32,
    }

    impl Stage {
        fn new() -> Self {
            let link = ServerLink::new("ws://server".to_owned(), ClientId([1; 16]));
            Self { link, questions: Questions::of(Life([7; 16])), now_ms: 1_000_000, sockets: 0 }
        }

        /// The server has let us in just now.
        fn welcomed() -> Self {
            let mut stage = Self::new();
            stage.tick(Need::Some);
            stage.opens(&[]);
            stage.hear(&FromServer::Welcome);
            stage
        }

        /// The socket is open. Gives the question that one of those is asked, if one is.
        fn opens(&mut self, holders: &[TokenHolder]) -> Option<u64> {
            let mut out = Outbox::default();
            holders.iter().for_each(|holder| out.flow.meet(holder.0));
            self.link.opened(self.now_ms, holders, &mut self.questions, &mut out);
            let effects = out.into_effects(None, &Limits::DEFAULT);
            effects.iter().find_map(|effect| match effect {
                Effect::ToTab { messages, .. } => match messages[..] {
                    [FromCore::TokenWanted { question, .. }] => Some(question),
                    _ => None,
                },
                _ => None,
            })
        }

        fn hear(&mut self, message: &FromServer) {
            self.link.hear(self.now_ms, &encode_message(message));
        }

        /// Whether it was given up, and whether a message was sent or a socket opened.
        fn tick(&mut self, need: Need) -> (bool, bool) {
            let mut out = Outbox::default();
            let is_lost = self.link.tick(self.now_ms, need, &mut self.sockets, &mut out);
            let effects = out.into_effects(None, &Limits::DEFAULT);
            let acts = |effect: &Effect| !matches!(effect, Effect::WakeAt { .. });
            (is_lost, effects.iter().any(acts))
        }

        /// Milliseconds until it does something, looked at each 100 ms.
        fn acts_after(&mut self, need: Need) -> u64 {
            let start_ms = self.now_ms;
            while self.tick(need) == (false, false) {
                self.now_ms += 100;
            }
            self.now_ms - start_ms
        }

        fn lose(&mut self) {
            self.link.lost(self.now_ms, &mut Rng::new([7; 32]), &mut Outbox::default());
        }
    }

    #[test]
    fn a_dead_connection_is_noticed_soon_while_something_waits() {
        let mut stage = Stage::welcomed();
        assert_eq!(stage.acts_after(Need::Soon), PING_SOON_AFTER_MS);
        assert_eq!(stage.acts_after(Need::Soon), ANSWER_SOON_MS);
        let mut stage = Stage::welcomed();
        assert_eq!(stage.acts_after(Need::Some), PING_AFTER_MS);
        assert_eq!(stage.acts_after(Need::Some), ANSWER_MS);
    }

    #[test]
    fn a_slow_line_is_given_time_for_what_is_on_its_way() {
        let most = UPLINK_MS_MAX * UPLINK_BYTES_PER_MS;
        for (size, uplink_ms) in [(2_000 * UPLINK_BYTES_PER_MS, 2_000), (2 * most, UPLINK_MS_MAX)] {
            let mut stage = Stage::welcomed();
            stage.link.unproved_size = size;
            let waited_ms = stage.acts_after(Need::Soon) + stage.acts_after(Need::Soon);
            assert_eq!(waited_ms, PING_SOON_AFTER_MS + ANSWER_SOON_MS + uplink_ms);
        }
    }

    /// Goal: what is still on its way is waited for, whatever the server says meanwhile; what has
    /// come through is not. Method: a ping is answered between two messages of 80 KB.
    #[test]
    fn only_the_answer_to_a_ping_proves_what_was_sent_before_it() {
        let uplink_ms = 80_000 / UPLINK_BYTES_PER_MS;
        let mut stage = Stage::welcomed();
        stage.link.unproved_size = 80_000;
        assert_eq!(stage.acts_after(Need::Soon), 0, "so much is not left unproved");
        stage.link.unproved_size += 80_000;
        stage.hear(&FromServer::Welcome);
        let waits_ms = PING_SOON_AFTER_MS + ANSWER_SOON_MS + uplink_ms;
        assert_eq!(
            stage.acts_after(Need::Soon),
            waits_ms,
            "what is behind a ping is not in its way"
        );

        let mut stage = Stage::welcomed();
        stage.link.unproved_size = 80_000;
        stage.acts_after(Need::Soon);
        stage.link.unproved_size += 80_000;
        stage.hear(&FromServer::Pong);
        assert_eq!(stage.acts_after(Need::Soon), 0, "the second is behind the first ping");
        assert_eq!(stage.acts_after(Need::Soon), waits_ms);
    }

    /// What is asked again and again on a dead line was once put on top of what it waited for.
    #[test]
    fn what_is_sent_behind_a_ping_gives_its_answer_no_more_time() {
        let mut stage = Stage::welcomed();
        stage.link.given_up = DOUBLINGS_MAX + 1;
        stage.acts_after(Need::Soon);
        stage.link.unproved_size += 4_000;
        assert_eq!(stage.acts_after(Need::Soon), ANSWER_SOON_MS << DOUBLINGS_MAX);
    }

    #[test]
    fn a_line_that_takes_minutes_for_one_message_gets_it_through() {
        let mut stage = Stage::welcomed();
        let mut waited_ms = Vec::new();
        for _ in 0..8 {
            stage.link.unproved_size = 1 << 40;
            stage.acts_after(Need::Soon);
            waited_ms.push(stage.acts_after(Need::Soon));
            stage.lose();
            stage.acts_after(Need::Soon);
            stage.opens(&[]);
            stage.hear(&FromServer::Welcome);
        }
        let once_ms = ANSWER_SOON_MS + UPLINK_MS_MAX;
        let times = waited_ms.iter().map(|ms| ms / once_ms).collect::<Vec<_>>();
        assert_eq!(times, [1, 1, 2, 4, 8, 16, 32, 32]);
        // Pings answered in time: a dead connection is noticed soon again.
        for _ in 0..=DOUBLINGS_MAX {
            stage.acts_after(Need::Soon);
            stage.hear(&FromServer::Pong);
        }
        stage.acts_after(Need::Soon);
        assert_eq!(stage.acts_after(Need::Soon), ANSWER_SOON_MS);
    }

    #[test]
    fn a_connection_is_asked_at_once_when_the_network_has_changed() {
        let mut stage = Stage::welcomed();
        stage.link.nudge();
        assert_eq!(stage.acts_after(Need::Some), 0);
        stage.hear(&FromServer::Pong);
        assert_eq!(stage.acts_after(Need::Some), PING_AFTER_MS);
    }

    #[test]
    fn a_server_that_breaks_off_for_good_is_not_asked_many_times_a_second() {
        for need in [Need::Some, Need::Soon] {
            let mut stage = Stage::welcomed();
            let reason = ByeReason::Protocol { reason: "no".to_owned() };
            stage.hear(&FromServer::Bye { reason });
            stage.lose();
            assert!(stage.acts_after(need) >= RETRY_SOON_MS);
        }
    }

    #[test]
    fn a_connection_that_breaks_whenever_it_is_there_is_made_ever_more_rarely() {
        let mut stage = Stage::new();
        let mut lasts = |lasts_ms: u64| {
            stage.hear(&FromServer::Welcome);
            stage.now_ms += lasts_ms;
            stage.lose();
            stage.acts_after(Need::Some)
        };
        assert!(lasts(100) <= RETRY_FIRST_MS);
        let after_ms = (0..10).map(|_| lasts(100)).last();
        assert!(after_ms >= Some(RETRY_LONGEST_MS / 2), "{after_ms:?}");
        assert!(lasts(RETRY_LONGEST_MS) <= RETRY_FIRST_MS, "it was one that lasts");
    }

    /// A server was once never asked again that had been stopped, put back to an older version and
    /// brought up again while a page stayed open.
    #[test]
    fn a_server_that_lets_nobody_in_is_asked_again() {
        for reason in [ByeReason::Version, ByeReason::Unauthenticated, ByeReason::Origin] {
            let mut stage = Stage::welcomed();
            stage.hear(&FromServer::Bye { reason });
            stage.lose();
            assert!(stage.link.barred);
            let again = RETRY_LONGEST_MS / 2..=RETRY_LONGEST_MS;
            assert!(again.contains(&stage.acts_after(Need::Some)));
            stage.opens(&[]);
            assert!(stage.link.barred, "who comes to wait meanwhile is told");
            stage.hear(&FromServer::Welcome);
            assert!(!stage.link.barred);
        }
    }

    /// Whoever has another token was once asked for it ten seconds later, where the way to the
    /// server was not there just then.
    #[test]
    fn a_way_that_breaks_says_nothing_of_why_the_one_before_was_closed() {
        for opens in [false, true] {
            let mut stage = Stage::welcomed();
            stage.hear(&FromServer::Bye { reason: ByeReason::Unauthenticated });
            stage.lose();
            assert!(stage.link.try_next_holder());
            assert_eq!(stage.acts_after(Need::Soon), 0);
            if opens {
                let holders = [(TabId(1), Handle(1))];
                stage.opens(&holders);
            }
            stage.lose();
            assert!(stage.acts_after(Need::Soon) <= 2 * RETRY_FIRST_MS, "{opens}");
            assert_eq!(stage.link.barred, !opens, "as far as anybody knows");
        }
    }

    /// Goal: an app whose token is refused is asked for one ever more rarely, whatever waits, until
    /// there is a reason to think that the next one may be taken.
    #[test]
    fn who_has_no_good_token_is_asked_ever_more_rarely() {
        let holders = [(TabId(1), Handle(1))];
        // Milliseconds until the next try, whose token is refused.
        let refused = |stage: &mut Stage| {
            let after_ms = stage.acts_after(Need::Soon);
            let question = stage.opens(&holders).expect("somebody is asked");
            let token = Some("stale".to_owned());
            stage.link.answered_with(question, token, stage.now_ms, &mut Outbox::default());
            stage.hear(&FromServer::Bye { reason: ByeReason::Unauthenticated });
            stage.lose();
            stage.link.meet_holders(&holders);
            after_ms
        };
        let refused_often = || {
            let mut stage = Stage::new();
            let after_ms: Vec<_> = (0..10).map(|_| refused(&mut stage)).collect();
            (stage, after_ms)
        };
        let (mut stage, after_ms) = refused_often();
        let longest_ms = (0..).map(|nth: u32| (REFUSED_FIRST_MS << nth.min(6)).min(300_000));
        for (after_ms, longest_ms) in after_ms[1..].iter().zip(longest_ms) {
            let range = longest_ms / 2..=longest_ms + 100;
            assert!(range.contains(after_ms), "{after_ms} of {longest_ms}");
        }
        // The next one is taken, and another one refused later.
        let after_ms = stage.acts_after(Need::Soon);
        assert!(after_ms >= REFUSED_LONGEST_MS / 2);
        stage.opens(&holders);
        stage.hear(&FromServer::Welcome);
        stage.lose();
        refused(&mut stage);
        assert!(refused(&mut stage) <= REFUSED_FIRST_MS + 100, "it begins anew");

        let reasons: [fn(&mut ServerLink); 3] = [
            ServerLink::nudge,
            |link| link.try_now(TabId(1)),
            |link| link.meet_holders(&[(TabId(1), Handle(1)), (TabId(2), Handle(7))]),
        ];
        for (number, reason) in reasons.iter().enumerate() {
            let (mut stage, _) = refused_often();
            reason(&mut stage.link);
            assert!(stage.acts_after(Need::Soon) <= RETRY_SOON_MS, "{number}");
        }
    }

    /// Goal: clients of a user who has too many connections come back ever more rarely, and say why
    /// they are offline. A server that is slow later is sought again soon.
    #[test]
    fn a_user_with_too_many_connections_is_tried_ever_more_rarely() {
        let slow = FromServer::Bye { reason: ByeReason::Slow };
        let mut stage = Stage::new();
        for nth in 0..10 {
            stage.acts_after(Need::Soon);
            stage.opens(&[]);
            stage.hear(&slow);
            stage.lose();
            let longest_ms = (REFUSED_FIRST_MS << nth.min(6)).min(REFUSED_LONGEST_MS);
            let pause_ms = stage.link.retry_at_ms(true) - stage.now_ms;
            assert!((longest_ms / 2..=longest_ms).contains(&pause_ms), "{pause_ms} after {nth}");
        }
        let failure = stage.link.failure.clone().expect("it is offline");
        assert!(failure.message.contains("too many connections"), "{failure:?}");
        assert!(!stage.link.barred && !failure.is_final(), "it passes");

        let mut stage = Stage::welcomed();
        stage.hear(&slow);
        stage.lose();
        assert!(stage.acts_after(Need::Soon) <= RETRY_SOON_MS);
    }

    /// Goal: a way that breaks before the app is asked is sought again as soon as any.
    #[test]
    fn a_way_that_breaks_after_a_refusal_is_sought_again_soon() {
        let mut stage = Stage::new();
        for _ in 0..10 {
            stage.acts_after(Need::Some);
            stage.hear(&FromServer::Bye { reason: ByeReason::Unauthenticated });
            stage.lose();
        }
        assert!(stage.acts_after(Need::Some) >= REFUSED_LONGEST_MS / 2);
        stage.lose();
        assert!(stage.acts_after(Need::Some) <= RETRY_LONGEST_MS);
    }

    #[test]
    fn what_waits_does_not_wait_for_a_long_pause() {
        for (need, longest_ms) in [(Need::Some, RETRY_LONGEST_MS), (Need::Soon, RETRY_SOON_MS)] {
            let mut stage = Stage::new();
            (0..10).for_each(|_| stage.lose());
            let after_ms = stage.acts_after(need);
            assert!((longest_ms / 2..=longest_ms + 100).contains(&after_ms), "{after_ms}");
        }
        let mut stage = Stage::new();
        (0..10).for_each(|_| stage.lose());
        stage.link.nudge();
        assert_eq!(stage.acts_after(Need::Some), 0);
    }
}
