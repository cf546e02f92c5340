//! Handing a local document over to a server, whose it becomes.
//!
//! Whoever opens it with a server offers it; the server asks for its pages, the seed, takes them in
//! parts, and says when the document is its own (`room/seed.rs` is its side).

use tidelog_document::Doctype;
use tidelog_sqlite::Run;
use tidelog_sync::{CodedPage, ToRoom};
use tidelog_types::limits::CALL_SETTLES_MS;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{Budget, Lsn, Pgid, Position};

use super::open::Synced;
use super::requests::{Ask, Ran};
use super::storing::Then;
use super::{Context, Document, Role, State};
use crate::effect::TabId;
use crate::protocol::{Call, CallFailure, FromCore, OpenRequest, Request};
use crate::server_link::{LinkName, ServerLink, Stage};
use crate::token_turns::TokenHolder;

/// Milliseconds that a server may take to say what it thinks of an offered document.
const OFFER_MS: u64 = CALL_SETTLES_MS * 8 / 10;
/// Milliseconds that the next pages of a seed may take, on a slow line too. Tabs wait a bit longer.
const SEED_PART_MS: u64 = 60_000;

/// A local document that is to become the server's.
pub(super) struct Offer {
    pub(super) link: LinkName,
    pub(super) doctype: Doctype,
    /// The tab that can be asked for a token.
    pub(super) token_from: Option<TokenHolder>,
    /// Put off while the server takes it in.
    pub(super) deadline_ms: u64,
    /// Until when the server may take for more of it, on whichever connection; `None` before it
    /// wanted any.
    patience_ms: Option<u64>,
    /// Pages that it has taken at most, on whichever connection.
    taken_max: u32,
    /// How often it has wanted it since it took more than ever.
    fruitless: u32,
    failure: Option<CallFailure>,
}

/// A call whose document the server has taken over, while the disk has no room to say so.
#[derive(Clone, Copy)]
pub(super) struct Unrecorded {
    tab: TabId,
    call: Call,
    since_ms: u64,
}

impl Offer {
    fn new(link: LinkName, doctype: Doctype, token_from: Option<TokenHolder>, now_ms: u64) -> Self {
        let deadline_ms = now_ms + OFFER_MS;
        Self {
            link,
            doctype,
            token_from,
            deadline_ms,
            patience_ms: None,
            taken_max: 0,
            fruitless: 0,
            failure: None,
        }
    }

    /// The server has begun to take it in, from its first page.
    fn wanted(&mut self, now_ms: u64) {
        self.fruitless += 1;
        self.gets_on(now_ms);
    }

    /// The server has taken in so much of it.
    fn taken(&mut self, pages_count: u32, now_ms: u64) {
        if pages_count > self.taken_max {
            self.taken_max = pages_count;
            self.fruitless = 0;
        }
        self.gets_on(now_ms);
    }

    /// One that begins over and over and gets no further, as where each connection breaks at the
    /// same part, or before the first one, is not waited for any longer by that.
    fn gets_on(&mut self, now_ms: u64) {
        let left_ms = self.patience_ms.filter(|_| self.fruitless > 1);
        let at_ms = left_ms.unwrap_or(now_ms + SEED_PART_MS);
        self.patience_ms = Some(at_ms);
        self.deadline_ms = at_ms;
    }

    /// A lost connection is waited for no longer than a server that does not answer.
    pub(super) fn server_lost(&mut self, now_ms: u64) {
        self.deadline_ms = self.deadline_ms.min(now_ms + OFFER_MS);
    }

    /// Whether nobody has said anything against it, nor anything else, for too long.
    fn is_late(&self, now_ms: u64) -> bool {
        self.failure.is_none() && now_ms >= self.deadline_ms
    }

    /// Why it came to nothing, if it did.
    fn outcome(&self, ctx: &Context<'_>) -> Option<CallFailure> {
        if !self.is_late(ctx.now_ms) {
            return self.failure.clone();
        }
        reached(Probe::OfferLate);
        let is_there = |link: &ServerLink| link.stage == Stage::Welcomed;
        let why = match ctx.servers.get(&self.link).is_some_and(is_there) {
            false => "does not answer",
            true if self.patience_ms.is_some() => {
                "has taken in no more of the document for too long"
            }
            true => {
                "has not taken the document over in time: another device or tab may be handing \
                 over one of that name"
            }
        };
        let late = || CallFailure::not_handed_over(&self.link.url, why);
        Some(self.trouble(ctx).unwrap_or_else(late))
    }

    /// What is wrong with the way to the server beyond that there is none.
    fn trouble(&self, ctx: &Context<'_>) -> Option<CallFailure> {
        let trouble = ctx.servers.get(&self.link).and_then(ServerLink::trouble);
        trouble.filter(|it| *it != CallFailure::unreachable(&self.link.url))
    }
}

/// A seed of which the last part is still to be sent: how many pages were, and how many of them the
/// server has taken.
#[derive(Default)]
pub(super) struct Seeding {
    sent: u32,
    taken: u32,
}

impl Document {
    /// Offers the document, or sees what has become of that.
    #[inline(never)]
    pub(super) fn run_offer(
        &mut self,
        ask: &Ask,
        request: &OpenRequest,
        ctx: &mut Context<'_>,
    ) -> Ran {
        if ctx.store.is_lost() {
            // No disk would ever say whose it is.
            self.give_up_offer(ctx);
            return Ran::Failed(CallFailure::data_cleared());
        }
        let Some(offer) = &self.following.offer else {
            // Queries overtake it, and nobody changes then what they see.
            match self.adopt_with_what_is_here(None, ctx) {
                Ran::Done => {}
                ran => return ran,
            }
            reached(Probe::DraftOffered);
            let url = request.server.as_ref().expect("BUG: an offer to nobody");
            let link = self.link_name(url);
            let token_from = request.has_token.then_some((ask.tab, ask.handle));
            let doctype = request.doctype.clone();
            self.following.offer = Some(Offer::new(link, doctype, token_from, ctx.now_ms));
            self.follow_soon(ctx.now_ms);
            return Ran::Waits;
        };
        let Some(failure) = offer.outcome(ctx) else { return Ran::Waits };
        if offer.is_late(ctx.now_ms) && offer.trouble(ctx).is_none() {
            let url = offer.link.url.clone();
            self.fail_offers_behind(&url, &failure, ctx);
        }
        self.give_up_offer(ctx);
        Ran::Failed(failure)
    }

    /// Others have waited for the same, and to begin with each anew would take them too long. Where
    /// this one had no token, say, they have their turns.
    fn fail_offers_behind(&mut self, url: &str, failure: &CallFailure, ctx: &mut Context<'_>) {
        let queue = std::mem::take(&mut self.queue);
        for ask in queue {
            match &ask.request {
                Request::Open(open) if open.server.as_deref() == Some(url) => {
                    ask.fail(failure.clone(), ctx.out);
                }
                _ => self.queue.push_back(ask),
            }
        }
    }

    /// Nobody waits any more for the document to become the server's.
    pub(super) fn give_up_offer(&mut self, ctx: &mut Context<'_>) {
        if self.following.offer.is_some() {
            self.leave_server(ctx);
            self.following.offer = None;
        }
    }

    /// Nothing can come of what is offered. Says whether that is news.
    pub(super) fn fail_offer(&mut self, failure: CallFailure) -> bool {
        let offer = self.following.offer.as_mut().filter(|offer| offer.failure.is_none());
        offer.map(|offer| offer.failure = Some(failure)).is_some()
    }

    /// Whether somebody who opens it hands it over to a server.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.following.offer.is_some()
    }

    /// What is to be handed over is not on the disk, or for too long that it was: whoever offers it
    /// is in front, and is told, as are those who are about to.
    pub(super) fn fail_handing_over(&mut self, failure: &CallFailure, ctx: &mut Context<'_>) {
        if self.following.offer.is_some() || self.is_unrecorded_for_long(ctx.now_ms) {
            self.give_up_offer(ctx);
            let ask = self.queue.pop_front().expect("BUG: an offer that nobody makes");
            if let Request::Open(open) = &ask.request
                && let Some(url) = &open.server
            {
                self.fail_offers_behind(url, failure, ctx);
            }
            ask.fail(failure.clone(), ctx.out);
        }
    }

    /// The disk has no room for what the server has just taken over: whoever offers it does so anew
    /// until there is some. Says whether that has been so for too long.
    fn is_unrecorded_for_long(&mut self, now_ms: u64) -> bool {
        let Some((tab, call)) = self.recording_awaited_by() else { return false };
        let before = self.following.unrecorded.filter(|it| (it.tab, it.call) == (tab, call));
        let unrecorded = before.unwrap_or(Unrecorded { tab, call, since_ms: now_ms });
        self.following.unrecorded = Some(unrecorded);
        now_ms >= unrecorded.since_ms + OFFER_MS
    }

    /// Who waits until the disk says that the document is the server's.
    pub(super) fn recording_awaited_by(&self) -> Option<(TabId, Call)> {
        self.synced().filter(|synced| !synced.is_recorded)?;
        let opens = |ask: &&Ask| matches!(ask.request, Request::Open(_));
        self.queue.front().filter(opens).map(|ask| (ask.tab, ask.call))
    }

    /// Whether the request in front waits until the disk says that the document is the server's,
    /// for which the disk had no room before the document was read anew.
    pub(super) fn is_recording_awaited(&self) -> bool {
        let front = self.queue.front().map(|ask| (ask.tab, ask.call));
        self.following.unrecorded.is_some_and(|it| front == Some((it.tab, it.call)))
    }

    /// The server has no document of that name: it waits for the pages of this one.
    pub(super) fn seed_wanted(&mut self, ctx: &mut Context<'_>) {
        if let Some(channel) = &mut self.following.channel {
            channel.seed = Some(Seeding::default());
        }
        self.seed_gets_on(Offer::wanted, ctx);
    }

    /// The server has taken in so many pages.
    pub(super) fn seed_taken(&mut self, pages_count: u32, ctx: &mut Context<'_>) {
        let channel = self.following.channel.as_mut();
        if let Some(seed) = channel.and_then(|channel| channel.seed.as_mut()) {
            seed.taken = pages_count.min(seed.sent);
        }
        self.seed_gets_on(|offer, now_ms| offer.taken(pages_count, now_ms), ctx);
    }

    /// The server has begun to take in what is offered, or has taken in more of it.
    fn seed_gets_on(&mut self, how: impl FnOnce(&mut Offer, u64), ctx: &mut Context<'_>) {
        let Some(offer) = &mut self.following.offer else { return };
        how(offer, ctx.now_ms);
        // Whoever offers it is in front; others who open it wait for that too.
        for Ask { tab, call, request, .. } in &self.queue {
            if matches!(request, Request::Open(_)) {
                ctx.out.tell(*tab, FromCore::HandingOver { call: *call });
            }
        }
    }

    /// Sends the next pages of what is offered, if the server has taken enough of those before.
    /// Nobody changes the document meanwhile: all but queries waits behind the offer.
    pub(super) fn send_seed(
        &mut self,
        budget: &mut Budget,
        ctx: &mut Context<'_>,
    ) -> Option<Run<()>> {
        self.following.offer.as_ref()?;
        let seed = self.following.channel.as_ref()?.seed.as_ref()?;
        let Role::Local(authority) = &self.open()?.role else { return None };
        let limits = &ctx.settings.limits;
        let ahead_max = limits.seed_pages_ahead_max.max(limits.message_pages_max);
        if (seed.sent - seed.taken) as usize >= ahead_max {
            return None;
        }
        let (view, position) = (authority.view(), authority.position());
        let db_pages = view.db_pages();
        let pgids = (seed.sent + 1..=db_pages).map(Pgid).take(limits.message_pages_max);
        let mut pages = Vec::new();
        for pgid in pgids {
            match view.page(pgid) {
                Some(page) => pages.push(CodedPage::new(pgid, &page, None)),
                None => return Some(Run::Fault(pgid)),
            }
        }
        budget.spend_pages(pages.len() as u64);
        let sent = seed.sent + u32::try_from(pages.len()).expect("BUG: more than there are");
        let (taken, last) = (seed.taken, sent == db_pages);
        self.say(ToRoom::Seed { position, db_pages, pages, last }, ctx);
        if let Some(channel) = &mut self.following.channel {
            channel.seed = (!last).then_some(Seeding { sent, taken });
        }
        Some(Run::Done(()))
    }

    /// What was offered is the server's, whose storage journal then stands at `position`.
    pub(super) fn on_seeded(&mut self, position: Position, ctx: &mut Context<'_>) {
        let Some(offer) = self.following.offer.take() else { return };
        let State::Open(open) = &mut self.state else { return };
        let Role::Local(authority) = &open.role else { return };
        reached(Probe::DraftSeeded);
        let view = authority.view().clone();
        let timeline = ctx.rng.journal();
        open.record.server = Some(offer.link.url);
        open.record.seeded = Some(position);
        open.record.synced = true;
        let mut synced = Synced::begin(view, Some(position), &open.record, timeline, ctx.life);
        // An app that was told before could find a local document again.
        synced.is_recorded = false;
        open.role = Role::Synced(Box::new(synced));
        open.short_of.clear();
        self.append_record();
        self.ledger.draft().begin_timeline = Some((timeline, Lsn::FIRST));
        self.ledger.after(Then::Recorded);
        // The server knows no timeline of this client yet: greet it anew with this one.
        self.leave_server(ctx);
    }
}
