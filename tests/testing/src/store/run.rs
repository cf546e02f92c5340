//! A workload on a device that may fail, and what became of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use tidelog_disk::{CrashDevice, DiskFault};
use tidelog_pages::{
    Append, AppendError, OpenError, PageServer, RequestId, StoreOptions, StoreReply, StoreRequest,
    Ticket,
};
use tidelog_types::limits::LOG_AGE_MS_MAX;
use tidelog_types::{DocumentKey, Epoch, Life};

use super::model::{Model, is_same};
use super::workload::{Shape, Workload, staged_key};
use super::{Compaction, OWNER, Parts, Server};
use super::{files, log_end, observe, poll_all, seed, settle, small_log};
use crate::Rng;

/// Some day.
const NOW_MS: u64 = 20_000 * LOG_AGE_MS_MAX;

/// A workload on a store, and what became of it.
pub struct Run {
    pub device: CrashDevice,
    pub options: StoreOptions,
    pub workload: Workload,
    /// What decides when nobody asks for anything for a while, or for a day; never, if there is
    /// none.
    pub rests: Option<Rng>,
    /// The time that the store is told.
    now_ms: u64,
    /// How often that made a change-over due.
    pub rest_change_overs: u64,
    /// The states that the requests led to, from the empty one on; a request that failed is not
    /// among them.
    pub history: Vec<(Ticket, Model)>,
    /// The highest ticket whose state is at rest on the device.
    pub durable: Ticket,
    /// The highest ticket that somebody was told is durable.
    told: Ticket,
    /// The highest epoch that was granted.
    pub granted: Epoch,
    /// Whether the last server was asked for an epoch, and has not answered.
    is_asking: bool,
    /// Tickets that failed because the device was full.
    pub failed: BTreeSet<Ticket>,
    /// Those of them that were not handed over again.
    refused: Vec<Ticket>,
    /// The call at which the device is full.
    full_at: Option<u64>,
    /// The calls, since the store was opened, behind which an append was recorded in part.
    pub amid_parts: Vec<u64>,
    pub is_broken: bool,
    /// What led to the history, and what failed.
    pub requests: Vec<StoreRequest>,
    /// Compactions that were asked for: what must be answered, by the number of the request.
    compactions: BTreeMap<RequestId, Compaction>,
    parts: Parts,
    pub compactions_answered: u64,
    /// The first one that was answered in another way. While appends are being taken back the
    /// model is ahead, so only a run without faults can tell.
    pub wrong_compaction: Option<Compaction>,
}

impl Run {
    /// Nothing was asked for yet.
    pub fn new(device: CrashDevice, seed: u64, options: StoreOptions) -> Self {
        Self {
            device,
            options,
            workload: Workload::new(seed),
            rests: None,
            now_ms: NOW_MS,
            rest_change_overs: 0,
            history: vec![(Ticket(0), Model::default())],
            durable: Ticket(0),
            told: Ticket(0),
            granted: Epoch(0),
            is_asking: false,
            failed: BTreeSet::new(),
            refused: Vec::new(),
            full_at: None,
            amid_parts: Vec::new(),
            is_broken: false,
            requests: Vec::new(),
            compactions: BTreeMap::new(),
            parts: Parts::default(),
            compactions_answered: 0,
            wrong_compaction: None,
        }
    }

    /// Opens the store and says hello, unless its device fails.
    pub fn open(&mut self) -> Option<Server> {
        let lagging = [Some("log-a"), Some("log-b"), Some("pages"), None];
        self.device.let_lag(lagging[self.workload.rng.below(lagging.len())]);
        match PageServer::open_with(files(&self.device), seed(&self.device), self.options) {
            Ok((mut server, _)) => {
                if self.rests.is_some() {
                    server.set_time(self.now_ms);
                }
                // Appends of an owner without a life carry no id: one that a power cut tore can be
                // appended again byte for byte, and records end with their sector.
                let is_without = self.workload.shape == Shape::Sectors;
                let life = if is_without { Life::NONE } else { Life([1; 16]) };
                server.serve(OWNER, StoreRequest::Hello { epoch: self.granted, life });
                self.is_asking = true;
                Some(server)
            }
            Err(OpenError::Disk(_)) => {
                self.is_broken = true;
                None
            }
            Err(other) => panic!("a device that fails is not {other}"),
        }
    }

    /// Makes the device full at this call. What does not fit then is known before anything else is
    /// appended: otherwise nobody could say what may be found.
    pub fn fill_up_at(&mut self, call: u64) {
        self.device.fail_call(call, DiskFault::Full);
        self.full_at = Some(call);
    }

    fn was_full(&self) -> bool {
        self.full_at.is_some_and(|call| self.device.calls() >= call)
    }

    /// The state in the history, at or after the durable one, that the store holds.
    pub fn find(&self, observed: &Model) -> Option<usize> {
        let states = self.durable_or_later();
        states.clone().find(|index| is_same(observed, &self.history[*index].1))
    }

    /// The states that may be found after a power cut at the end of the run.
    pub fn durable_or_later(&self) -> Range<usize> {
        self.since(self.durable)
    }

    /// The states that may be found after a power cut at the end of the run which tears blocks:
    /// what was found after an earlier cut, and nobody was told of yet, may go with the torn tail
    /// that stands in its block.
    pub fn told_or_later(&self) -> Range<usize> {
        self.since(self.told)
    }

    fn since(&self, ticket: Ticket) -> Range<usize> {
        let first = self.history.iter().rposition(|(it, _)| *it <= ticket);
        first.expect("the empty state has ticket 0")..self.history.len()
    }

    /// Notes what the replies say, and whether an append failed.
    fn take_in(&mut self, replies: &[StoreReply]) -> bool {
        let refused_before = self.refused.len();
        for reply in replies {
            match reply {
                StoreReply::Durable { ticket } => {
                    assert!(*ticket >= self.durable, "durable went back");
                    (self.durable, self.told) = (*ticket, *ticket);
                }
                StoreReply::AppendFailed { ticket, error } => {
                    assert_eq!(*error, AppendError::Full, "ticket {ticket:?}");
                    self.failed.insert(*ticket);
                    self.refused.push(*ticket);
                }
                StoreReply::Broken { error: AppendError::Device { .. } | AppendError::Full } => {
                    self.is_broken = true;
                }
                StoreReply::Ready { epoch } => {
                    assert!(*epoch > self.granted, "an epoch was granted twice");
                    (self.granted, self.is_asking) = (*epoch, false);
                }
                StoreReply::Opened { .. } => {}
                StoreReply::SyncPart { request, .. } | StoreReply::Unrelated { request, .. } => {
                    let Some(compaction) = self.parts.take(reply.clone()) else { continue };
                    let expected = self.compactions.remove(request).expect("it was asked for");
                    self.compactions_answered += 1;
                    if compaction != expected {
                        self.wrong_compaction.get_or_insert(compaction);
                    }
                }
                other => panic!("unasked: {other:?}"),
            }
        }
        let has_failed = self.refused.len() > refused_before;
        if has_failed {
            self.forget_failed();
        }
        has_failed
    }

    /// Turns of some requests, a flush and polls, until the server breaks.
    pub fn turns(&mut self, server: &mut Server, turns: usize) {
        for _ in 0..turns {
            self.rest(server);
            self.requests_of_a_turn(server);
            server.flush();
            let (replies, is_at_rest) = self.some_replies(server);
            let mut has_failed = self.take_in(&replies);
            if has_failed && self.device.is_off() {
                // Older appends are not answered any more: so their owner reads nothing anew.
                return;
            }
            while has_failed && !self.is_broken {
                has_failed = self.open_documents(server);
            }
            if self.is_broken {
                return;
            }
            // Nobody waits at a store at rest until something else is asked for.
            let last = self.requests.last().map_or(Ticket(0), ticket_of);
            let is_answered = self.durable >= last || self.failed.contains(&last);
            assert!(is_answered || !is_at_rest, "{last:?} was never answered: {server}");
        }
    }

    /// Waits until all is done.
    pub fn end(&mut self, server: &mut Server) {
        if !self.is_broken {
            // One that asks for nothing else is answered too.
            server.flush();
            self.take_in(&settle(server, &self.device));
            server.mark_durable();
            server.flush();
            self.take_in(&settle(server, &self.device));
            let may_wait = self.is_broken || self.device.is_off();
            assert!(may_wait || !self.is_asking, "a hello was never answered: {server}");
        }
    }

    /// Now and then nobody asks for anything for a while, or for a day. What the store begins to do
    /// then goes on beside what it is asked next.
    fn rest(&mut self, server: &mut Server) {
        let Some(rng) = &mut self.rests else { return };
        let had_nothing_to_do = !server.wants_poll();
        match rng.below(12) {
            0..3 => server.shorten_log(),
            3 => {
                self.now_ms += LOG_AGE_MS_MAX;
                server.set_time(self.now_ms);
            }
            _ => return,
        }
        if had_nothing_to_do && server.wants_poll() {
            self.rest_change_overs += 1;
        }
    }

    fn requests_of_a_turn(&mut self, server: &mut Server) {
        let is_small = matches!(self.workload.shape, Shape::Sectors | Shape::Parts);
        let most = if is_small { 6 } else { 3 };
        for _ in 0..=self.workload.rng.below(most) {
            let request = self.workload.next_at(log_end(server));
            let ticket = ticket_of(&request);
            self.history.push((ticket, self.workload.model.clone()));
            self.requests.push(request.clone());
            server.serve(OWNER, request);
            if server.is_behind() {
                self.amid_parts.push(self.device.calls());
            }
            // Behind one that finds no room another would be carried out before that is known.
            if self.full_at.is_some() && (self.was_full() || server.is_behind()) {
                return;
            }
        }
        if self.workload.rng.one_in(4) {
            let (request, answer) = self.workload.changes();
            self.compactions.insert(RequestId(self.workload.changes), answer);
            server.serve(OWNER, request);
        }
    }

    /// Now and then the next requests come before all is done; and where flushes are held, some
    /// stay under way meanwhile, and the files complete theirs in any order. Says too whether
    /// nothing is under way any more.
    fn some_replies(&mut self, server: &mut Server) -> (Vec<StoreReply>, bool) {
        let rng = &mut self.workload.rng;
        let mut is_polled = !rng.one_in(3);
        let mut replies =
            if is_polled { poll_all(server) } else { poll_some(server, rng.below(4)) };
        while self.device.has_held_flushes() && !rng.one_in(4) {
            self.device.complete_flushes_of_one(&mut |count| rng.below(count));
            replies.extend(poll_all(server));
            is_polled = true;
        }
        if rng.one_in(3) {
            server.mark_durable();
        }
        if self.full_at.is_some() && server.is_behind() {
            replies.extend(settle(server, &self.device));
        }
        if self.was_full() {
            self.full_at = None;
            replies.extend(settle(server, &self.device));
        }
        let is_under_way = server.wants_poll() || self.device.has_held_flushes();
        (replies, is_polled && !is_under_way && !self.device.is_off())
    }

    /// After appends failed: opens all documents anew, so that what failed can be handed over
    /// again. Says whether more has failed meanwhile.
    fn open_documents(&mut self, server: &mut Server) -> bool {
        for index in 0..self.workload.documents {
            let name = format!("document-{index}");
            let document = DocumentKey::new(&name, "").expect("a good name");
            server.serve(OWNER, StoreRequest::Open { document });
        }
        server.serve(OWNER, StoreRequest::Open { document: staged_key() });
        let has_failed = self.take_in(&settle(server, &self.device));
        if !has_failed {
            let mut lost = self.take_refused();
            if self.workload.shape == Shape::Sectors {
                // The first one is appended just as it was. What stood behind it must not follow.
                lost.truncate(1);
            }
            let model = self.history.last().expect("the empty state").1.clone();
            self.workload.go_back_to(model, lost);
        }
        has_failed
    }

    /// The requests that were refused, without appends that a later destroy has made void: that
    /// needs no room, so it may have been carried out though they were not, and nothing of the
    /// document that they build on is there any more. So it is where another has taken its name.
    fn take_refused(&mut self) -> VecDeque<StoreRequest> {
        let refused = std::mem::take(&mut self.refused);
        let mut lost = VecDeque::new();
        for request in &self.requests {
            let ticket = ticket_of(request);
            if refused.contains(&ticket) {
                lost.push_back(request.clone());
            } else if let StoreRequest::Destroy { document, .. }
            | StoreRequest::Append {
                append: Append { take_name: Some(document), .. },
                ..
            } = request
                && !self.failed.contains(&ticket)
            {
                lost.retain(|it| !is_append_to(it, document));
            }
        }
        lost
    }

    /// Goes on with the store on this device, as it was left behind: after a power cut, or after
    /// its owner was killed, which loses nothing that was written. Fails if that is no state that
    /// may be found.
    pub fn go_on_with(&mut self, device: CrashDevice, is_power_cut: bool) -> Result<(), String> {
        let at_rest = device.crash(&mut |versions| versions - 1);
        let opened = PageServer::open_with(files(&at_rest), seed(&at_rest), self.options);
        let (mut server, _) = opened.map_err(|error| format!("it cannot be opened: {error}"))?;
        let found = self.find(&observe(&mut server, &at_rest));
        let found = found.ok_or_else(|| format!("not a state since {:?}", self.durable))?;
        let (last, model) = self.history[found].clone();
        let is_kept = |request: &StoreRequest| ticket_of(request) <= last;
        let (kept, mut lost): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.requests).into_iter().partition(is_kept);
        lost.retain(|request| !self.failed.contains(&ticket_of(request)));
        // What is there and was not called durable is handed over again too: here, the last of it,
        // without the notes, which would be new ones.
        if let Some(StoreRequest::Append { ticket, append }) = kept.last()
            && *ticket > self.durable
            && !self.failed.contains(ticket)
            && append.take_name.is_none()
        {
            let append = Append { record: None, ..append.clone() };
            lost.insert(0, StoreRequest::Append { ticket: *ticket, append });
        }
        self.history.truncate(found + 1);
        self.requests = kept;
        self.compactions.clear();
        self.parts = Parts::default();
        self.refused.clear();
        self.full_at = None;
        self.workload.go_back_to(model, lost.into());
        self.is_broken = false;
        self.device = device;
        if is_power_cut {
            // It is at rest now, and must not get lost any more.
            self.durable = last;
        }
        Ok(())
    }

    /// The history without the requests that failed.
    fn forget_failed(&mut self) {
        let mut model = Model::default();
        self.history.truncate(1);
        for request in &self.requests {
            if !self.failed.contains(&ticket_of(request)) {
                model.apply(request);
                self.history.push((ticket_of(request), model.clone()));
            }
        }
    }
}

/// Runs `turns` turns of some requests, a flush and polls, until the end or until the server
/// breaks.
pub fn run(device: CrashDevice, seed: u64, turns: usize) -> Run {
    run_with(device, seed, turns, small_log())
}

/// The same with a store of other sizes.
pub fn run_with(device: CrashDevice, seed: u64, turns: usize, options: StoreOptions) -> Run {
    let mut run = Run::new(device, seed, options);
    if let Some(mut server) = run.open() {
        run.turns(&mut server, turns);
        run.end(&mut server);
    }
    run
}

pub fn ticket_of(request: &StoreRequest) -> Ticket {
    match request {
        StoreRequest::Append { ticket, .. } | StoreRequest::Destroy { ticket, .. } => *ticket,
        other => panic!("{other:?} has no ticket"),
    }
}

fn is_append_to(request: &StoreRequest, document: &DocumentKey) -> bool {
    matches!(request, StoreRequest::Append { append, .. } if append.document == *document)
}

/// Polls so many times at most.
fn poll_some(server: &mut Server, times: usize) -> Vec<StoreReply> {
    let polls = (0..times).flat_map(|_| server.poll());
    polls.map(|(_, reply)| reply).collect()
}
