//! What a core says to servers, seen at its door: on one line to each, on one channel of each
//! document at a time, only what has its place there; and what it tells tabs of that.
//!
//! A server makes up for most of what is said out of place: it refuses, and is asked anew.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{Call, Connection, Effect, FromCore, Handle, Input, SocketId, TabId};
use tidelog_client::{Request, Status, ToCore};
use tidelog_document::Mutation;
use tidelog_sync::{
    Channel, FromRoom, FromServer, Intent, ProbeId, ToRoom, ToServer, decode_message,
};
use tidelog_types::limits::Limits;
use tidelog_types::{CallId, DocumentKey, ErrorCode, Lsn, Position};

use super::name_of;
use super::runs::Runs;

/// What a core and its servers have said to each other, and what its tabs asked for.
pub(crate) struct LineDoor {
    limits: Limits,
    /// Whether any tab has asked to handle tasks.
    has_tasks: bool,
    /// The address of each socket.
    sockets: BTreeMap<SocketId, String>,
    channels: BTreeMap<(SocketId, Channel), Followed>,
    /// The document of each handle, and whose copy it is.
    documents: BTreeMap<(TabId, Handle), String>,
    /// The handles that open by each call that was not answered, and what was said on connecting
    /// with it; and those that sync or mutate.
    opens: BTreeMap<(TabId, Call), (Handle, u64)>,
    /// The handles that were not opened, since there was no store: who had one says again later
    /// what it says of it now.
    refused: BTreeSet<(TabId, Handle)>,
    syncs: BTreeMap<(TabId, Call), (Handle, u64)>,
    mutations: BTreeMap<(TabId, Call), Handle>,
    /// The documents of mutations that nothing was said of yet.
    waiting: BTreeMap<(TabId, Call), String>,
    /// The handles that were opened, and not closed; and by what they are being closed.
    held: BTreeSet<(TabId, Handle)>,
    closes: BTreeMap<(TabId, Call), Handle>,
    /// The documents that are being deleted.
    destroys: BTreeMap<(TabId, Call), String>,
    /// How often tabs have asked for each document, for a change of it, or for what is newest.
    asked: BTreeMap<String, u64>,
    /// What was said on connecting each document.
    words: BTreeMap<String, Word>,
    /// How a document was told to stand last by each handle.
    told: BTreeMap<(TabId, Handle), Connection>,
    /// Of each document, which of all that was said the last probe was that was answered.
    probed: BTreeMap<String, u64>,
    /// Where the storage journal of each document stands on the disk.
    durable: BTreeMap<String, Position>,
    /// Documents of which entries have come from their server since the last append with some.
    unwritten: BTreeSet<String>,
    /// How much was said.
    said_count: u64,
    /// A server has just said how far it is with what is handed over, and tabs do not know.
    untold: Option<String>,
    /// Of all cores that the device had.
    pub(super) runs: Runs,
}

/// The last word on connecting a document, whoever has said it: at least, and at most.
#[derive(Clone, Copy, Default)]
struct Word {
    least: u64,
    most: u64,
}

impl Word {
    fn is_said(&mut self, word: u64) {
        (self.least, self.most) = (self.least.max(word), self.most.max(word));
    }
}

/// A channel that the core has not closed.
struct Followed {
    document: String,
    /// The server has said where it stands.
    is_open: bool,
    /// The frame that comes next.
    next: Lsn,
    acked: Lsn,
    /// When each probe was sent.
    probes: BTreeMap<ProbeId, u64>,
    /// Pages of a seed that were sent, and that the server has taken.
    seed: Option<[u32; 2]>,
}

impl LineDoor {
    pub(crate) fn new(limits: Limits, runs: Runs) -> Self {
        Self {
            limits,
            has_tasks: false,
            sockets: BTreeMap::new(),
            channels: BTreeMap::new(),
            documents: BTreeMap::new(),
            opens: BTreeMap::new(),
            refused: BTreeSet::new(),
            syncs: BTreeMap::new(),
            mutations: BTreeMap::new(),
            waiting: BTreeMap::new(),
            held: BTreeSet::new(),
            closes: BTreeMap::new(),
            destroys: BTreeMap::new(),
            asked: BTreeMap::new(),
            words: BTreeMap::new(),
            told: BTreeMap::new(),
            probed: BTreeMap::new(),
            durable: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            said_count: 0,
            untold: None,
            runs,
        }
    }

    /// # Errors
    ///
    /// The core has not told what came before.
    pub(crate) fn comes(&mut self, input: &Input) -> Result<(), String> {
        if let Some(document) = self.untold.take() {
            return Err(format!("nobody is told that {document} is being handed over"));
        }
        self.said_count += 1;
        match input {
            Input::FromTab { tab, messages } => {
                messages.iter().for_each(|message| self.asks(*tab, message));
            }
            Input::TabClosed { tab } => {
                self.held.retain(|(holder, _)| holder != tab);
                self.opens.retain(|(holder, _), _| holder != tab);
                self.closes.retain(|(holder, _), _| holder != tab);
                self.waiting.retain(|(holder, _), _| holder != tab);
            }
            Input::SocketClosed { socket } => self.ends(*socket),
            Input::FromServer { socket, bytes } => {
                if let Ok(FromServer::About { channel, body }) = decode_message(bytes)
                    && let Some(followed) = self.channels.get_mut(&(*socket, channel))
                {
                    followed.hears(&body);
                    self.hears(*socket, channel, &body);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn asks(&mut self, tab: TabId, message: &ToCore) {
        match message {
            ToCore::Ask { call, handle, request } => match request {
                Request::Open(open) => {
                    let document = name_of(open);
                    self.is_asked(&document);
                    self.runs.learns(&document, open.doctype.hash());
                    self.documents.insert((tab, *handle), document.clone());
                    self.opens.insert((tab, *call), (*handle, open.word));
                    self.refused.remove(&(tab, *handle));
                    let is_held = self.is_held(&document);
                    let word = self.words.entry(document).or_default();
                    if !is_held {
                        word.least = 0;
                    }
                    // Where there is no store it is refused, with all that it says.
                    word.most = word.most.max(open.word);
                }
                Request::Sync => {
                    if let Some(document) = self.documents.get(&(tab, *handle)).cloned() {
                        self.is_asked(&document);
                    }
                    self.syncs.insert((tab, *call), (*handle, self.said_count));
                }
                Request::Mutate(mutate) => {
                    if let Some(document) = self.documents.get(&(tab, *handle)).cloned() {
                        self.runs.is_here(mutate.id, &document);
                        self.is_asked(&document);
                        self.waiting.insert((tab, *call), document);
                    }
                    self.mutations.insert((tab, *call), *handle);
                }
                Request::Handle(_) => self.has_tasks = true,
                Request::Close => {
                    self.held.remove(&(tab, *handle));
                    self.closes.insert((tab, *call), *handle);
                }
                _ => {}
            },
            ToCore::SetConnected { handle, word } => {
                let Some(document) = self.documents.get(&(tab, *handle)) else { return };
                let said = self.words.entry(document.clone()).or_default();
                match self.refused.contains(&(tab, *handle)) {
                    true => said.most = said.most.max(*word),
                    false => said.is_said(*word),
                }
            }
            ToCore::Destroy { call, document: Some(document), .. } => {
                self.destroys.insert((tab, *call), document.clone());
            }
            _ => {}
        }
    }

    /// Whether a tab has this document open.
    fn is_held(&self, document: &str) -> bool {
        let of = |holder| self.documents.get(holder).is_some_and(|it| it == document);
        self.held.iter().any(of)
    }

    /// Whether a tab has asked to close what it may be told only now to have opened.
    fn is_closed(&self, tab: TabId, handle: Handle) -> bool {
        self.closes.iter().any(|((holder, _), closed)| (*holder, *closed) == (tab, handle))
    }

    /// What was said of a document is forgotten once nobody holds it, or wants anything of it.
    pub(super) fn are_forgotten(&mut self) {
        let opens = self.opens.iter().map(|((tab, _), (handle, _))| (*tab, *handle));
        let closes = self.closes.iter().map(|((tab, _), handle)| (*tab, *handle));
        let wanted = self.held.iter().copied().chain(opens).chain(closes);
        let mut wanted: BTreeSet<&String> =
            wanted.filter_map(|key| self.documents.get(&key)).collect();
        wanted.extend(self.destroys.values());
        self.words.retain(|it, _| wanted.contains(it));
    }

    /// A document is read anew.
    pub(super) fn is_read_anew(&mut self, document: &str) {
        self.unwritten.remove(document);
    }

    /// Whether this device decides what becomes of a document, as tabs were told last.
    pub(super) fn is_local(&self, document: &str) -> bool {
        let mut told = self
            .told
            .iter()
            .filter(|(key, _)| self.documents.get(key).is_some_and(|it| it == document));
        told.any(|(_, connection)| *connection == Connection::Local)
    }

    fn is_asked(&mut self, document: &str) {
        *self.asked.entry(document.to_owned()).or_default() += 1;
    }

    /// How often tabs have asked for this document, for a change of it, or for what is newest.
    pub(super) fn asked_count(&self, document: &str) -> u64 {
        self.asked.get(document).copied().unwrap_or(0)
    }

    /// The same without mutations that may still have to be recorded.
    pub(super) fn tried_count(&self, document: &str) -> u64 {
        let waiting = self.waiting.values().filter(|it| *it == document).count();
        self.asked_count(document) - waiting as u64
    }

    /// An append carries what has come of it from its server, or some of that.
    pub(super) fn is_written(&mut self, document: &DocumentKey) {
        self.unwritten.remove(&document.to_string());
    }

    /// Whether entries of it have come that no append carries: they may be put off.
    pub(super) fn has_unwritten(&self, document: &DocumentKey) -> bool {
        self.unwritten.contains(&document.to_string())
    }

    /// The page server has said where the storage journal of a document stands, or that more of the
    /// document is durable.
    pub(super) fn stands_at(&mut self, document: &DocumentKey, position: Option<Position>) {
        let is_at = position.map(|position| (document.to_string(), position));
        self.durable.extend(is_at);
    }

    fn hears(&mut self, socket: SocketId, channel: Channel, body: &FromRoom) {
        let Some(followed) = self.channels.get_mut(&(socket, channel)) else { return };
        match body {
            FromRoom::SeedWanted | FromRoom::SeedTaken { .. } => {
                self.untold = Some(followed.document.clone());
            }
            FromRoom::Probed { probe, .. } => {
                if let Some(at) = followed.probes.remove(probe) {
                    let probed = self.probed.entry(followed.document.clone()).or_default();
                    *probed = at.max(*probed);
                }
            }
            FromRoom::Entry(part) if part.is_last => {
                self.runs.comes(&followed.document, part.range);
                // What the disk has, and comes again, no append carries.
                let is_there = |at: &Position| {
                    at.journal == part.position.journal && part.range.end() <= at.next
                };
                if !self.durable.get(&followed.document).is_some_and(is_there) {
                    self.unwritten.insert(followed.document.clone());
                }
            }
            _ => {}
        }
    }

    fn ends(&mut self, socket: SocketId) {
        self.sockets.remove(&socket);
        self.channels.retain(|(on, _), _| *on != socket);
    }

    /// # Errors
    ///
    /// The core may not say so.
    pub(crate) fn leaves(
        &mut self,
        effect: &Effect,
        is_durable: impl Fn(&CallId) -> bool,
    ) -> Result<(), String> {
        match effect {
            Effect::OpenSocket { socket, url } => {
                if self.sockets.values().any(|other| other == url) {
                    return Err(format!("{url} is connected twice"));
                }
                self.sockets.insert(*socket, url.clone());
            }
            Effect::CloseSocket { socket } => self.ends(*socket),
            Effect::ToServer { socket, bytes } => {
                self.said_count += 1;
                let message = decode_message(bytes).map_err(|error| error.to_string())?;
                if let ToServer::About { channel, body } = message {
                    let what = |what| format!("a server is told what has no place: {what}");
                    self.says(*socket, channel, &body, is_durable).map_err(what)?;
                }
            }
            Effect::ToTab { tab, messages } => self.tells(*tab, messages)?,
            _ => {}
        }
        Ok(())
    }

    fn says(
        &mut self,
        socket: SocketId,
        channel: Channel,
        body: &ToRoom,
        is_durable: impl Fn(&CallId) -> bool,
    ) -> Result<(), String> {
        let place = (socket, channel);
        if let ToRoom::Open { document, have, intent, .. } = body {
            if let (Intent::Offer { .. }, Some(offered)) = (intent, have) {
                self.must_be_durable(document, *offered)?;
            }
            let mut others = self.channels.iter().filter(|(at, _)| **at != place);
            if others.any(|(_, it)| it.document == *document) {
                return Err(format!("{document} is followed twice"));
            }
            self.runs.opens(document);
            let new = || Followed::new(document.clone());
            self.channels.entry(place).or_insert_with(new);
            return Ok(());
        }
        let said_count = self.said_count;
        let Some(followed) = self.channels.get_mut(&place) else {
            return Err(format!("{body:?} on a channel that is not open"));
        };
        match body {
            ToRoom::Frames { first, frames, .. } => {
                let lost = frames.iter().find(|frame| !is_durable(&frame.call));
                if let Some(frame) = lost {
                    return Err(format!("frame {:?} is not durable", frame.call));
                }
                for (frame, lsn) in frames.iter().zip(first.get()..) {
                    may_keep(lsn, &frame.body)?;
                }
                let sizes: Vec<usize> = frames.iter().map(|it| it.body.len() + 64).collect();
                followed.sends(*first, &sizes, &self.limits)?;
            }
            ToRoom::Seed { pages, db_pages, last, .. } => {
                let pgids = pages.iter().map(|page| page.pgid.0);
                followed.seeds(pgids, *db_pages, *last, &self.limits)?;
            }
            ToRoom::Probe { probe } => {
                if followed.probes.insert(*probe, said_count).is_some() {
                    return Err(format!("{probe:?} twice"));
                }
            }
            ToRoom::Close => drop(self.channels.remove(&place)),
            ToRoom::Presence(_) => return Err("a core says who is present, and none is".to_owned()),
            ToRoom::Archived(_) => {
                return Err("a core asks an archive, and there is none".to_owned());
            }
            ToRoom::Register { .. } | ToRoom::Deregister { .. } | ToRoom::Complete { .. }
                if !self.has_tasks =>
            {
                return Err("a core says who handles commands, and nobody does".to_owned());
            }
            ToRoom::Register { .. }
            | ToRoom::Deregister { .. }
            | ToRoom::Complete { .. }
            | ToRoom::Received { .. }
            | ToRoom::Open { .. } => {}
        }
        Ok(())
    }

    /// A local document is offered as it is on the disk: what that loses is nobody else's.
    fn must_be_durable(&self, document: &str, offered: Position) -> Result<(), String> {
        let durable = self.durable.get(document);
        if durable.is_some_and(|it| it.journal == offered.journal && it.next >= offered.next) {
            return Ok(());
        }
        Err(format!("{document} is offered at {offered}, and durable is {durable:?}"))
    }

    fn tells(&mut self, tab: TabId, messages: &[FromCore]) -> Result<(), String> {
        for message in messages {
            if let FromCore::Durable { call, .. }
            | FromCore::Confirmed { call, .. }
            | FromCore::Rejected { call, .. }
            | FromCore::Failed { call, .. } = message
            {
                self.waiting.remove(&(tab, *call));
            }
            match message {
                FromCore::HandingOver { call } => {
                    self.untold = None;
                    if !self.opens.contains_key(&(tab, *call)) {
                        return Err(format!("{call:?} is told of what it does not wait for"));
                    }
                }
                FromCore::Done { call } => {
                    self.closes.remove(&(tab, *call));
                    self.destroys.remove(&(tab, *call));
                    self.may_be_done(tab, *call, messages)?;
                }
                FromCore::Confirmed { call, lsn, .. } => {
                    let status = self.mutations.get(&(tab, *call)).and_then(|handle| {
                        self.status_in(messages, self.documents.get(&(tab, *handle))?, tab)
                    });
                    // While a document is read anew, since the disk has refused something, only
                    // what is wrong is news of its status.
                    let is_wrong = |it: &&Status| {
                        let code = it.error.as_ref().map(|error| error.code);
                        let is_read =
                            matches!(code, Some(ErrorCode::Storage | ErrorCode::StorageFull));
                        !is_read && it.confirmed_lsn < *lsn
                    };
                    if let Some(status) = status.filter(is_wrong) {
                        return Err(format!("{call:?} is confirmed at {lsn}: {status:?}"));
                    }
                }
                FromCore::Opened { call, status, memo } => {
                    if let Some((handle, word)) = self.opens.remove(&(tab, *call)) {
                        self.told.insert((tab, handle), status.connection);
                        if !self.is_closed(tab, handle) {
                            self.held.insert((tab, handle));
                        }
                        if let Some(document) = self.documents.get(&(tab, handle)) {
                            self.words.entry(document.clone()).or_default().is_said(word);
                            self.must_be_last(document, status, memo.word)?;
                        }
                    }
                }
                FromCore::Failed { call, .. } => {
                    let opened = self.opens.remove(&(tab, *call));
                    self.refused.extend(opened.map(|(handle, _)| (tab, handle)));
                    self.syncs.remove(&(tab, *call));
                    self.closes.remove(&(tab, *call));
                    self.destroys.remove(&(tab, *call));
                }
                FromCore::Status { handle, status, memo } => {
                    self.must_be_so(tab, *handle, status, memo.word)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// How a document stands by what a tab is told of it at the same time.
    fn status_in<'m>(
        &self,
        messages: &'m [FromCore],
        document: &str,
        tab: TabId,
    ) -> Option<&'m Status> {
        messages.iter().find_map(|message| match message {
            FromCore::Status { handle, status, .. }
                if self.documents.get(&(tab, *handle)).is_some_and(|it| it == document) =>
            {
                Some(status)
            }
            _ => None,
        })
    }

    /// Whoever waited until all is in step has an answer to a probe that was sent since.
    fn may_be_done(&mut self, tab: TabId, call: Call, messages: &[FromCore]) -> Result<(), String> {
        let Some((handle, asked)) = self.syncs.remove(&(tab, call)) else { return Ok(()) };
        let Some(document) = self.documents.get(&(tab, handle)) else { return Ok(()) };
        let status = self.status_in(messages, document, tab).map(|status| status.connection);
        let is_local = status.or(self.told.get(&(tab, handle)).copied()) == Some(Connection::Local);
        let probed = self.probed.get(document).copied();
        if is_local || probed.is_some_and(|probed| probed >= asked) {
            return Ok(());
        }
        Err(format!("{document} is said to be in step, and nobody has asked the server"))
    }

    /// What is told of the way to the server is what was said on it.
    fn must_be_so(
        &mut self,
        tab: TabId,
        handle: Handle,
        status: &Status,
        word: u64,
    ) -> Result<(), String> {
        self.told.insert((tab, handle), status.connection);
        let Some(document) = self.documents.get(&(tab, handle)) else {
            return Err(format!("a tab is told of {handle:?}, which it never had"));
        };
        let mut channels = self.channels.values();
        let is_there = channels.any(|it| it.is_open && it.document == *document);
        if is_there != (status.connection == Connection::Online) {
            return Err(format!("the server has answered for {document}: {is_there}, {status:?}"));
        }
        self.must_be_last(document, status, word)
    }

    /// It is the last word that anybody has said, whether who said it is there or gone.
    fn must_be_last(&self, document: &str, status: &Status, word: u64) -> Result<(), String> {
        let Word { least, most } = self.words.get(document).copied().unwrap_or_default();
        if word < least || word > most {
            return Err(format!("{document} goes by word {word}, and not by {least}..={most}"));
        }
        if status.away == word.is_multiple_of(2) {
            return Err(format!("{document} is told to go the other way: {status:?}"));
        }
        Ok(())
    }
}

/// A mutation says which rejections of its timeline were kept before it, and none lie behind it.
fn may_keep(lsn: u64, body: &[u8]) -> Result<(), String> {
    match Mutation::decode(body) {
        Ok(Mutation { kept_rejections, .. }) if kept_rejections.get() > lsn => {
            Err(format!("frame {lsn} says that rejections before {kept_rejections} are kept"))
        }
        _ => Ok(()),
    }
}

impl Followed {
    fn new(document: String) -> Self {
        Self {
            document,
            is_open: false,
            next: Lsn::FIRST,
            acked: Lsn::FIRST,
            probes: BTreeMap::new(),
            seed: None,
        }
    }

    fn hears(&mut self, body: &FromRoom) {
        match body {
            FromRoom::Opened { wanted, .. } => {
                self.is_open = true;
                (self.next, self.acked) = (*wanted, *wanted);
            }
            FromRoom::Acked { next } => self.acked = self.acked.max(*next),
            FromRoom::SeedWanted => self.seed = Some([0, 0]),
            FromRoom::SeedTaken { pages_count } => {
                if let Some([_, taken]) = &mut self.seed {
                    *taken = (*taken).max(*pages_count);
                }
            }
            _ => {}
        }
    }

    /// None before its turn, and no more of them in one message than fit.
    fn sends(&mut self, first: Lsn, sizes: &[usize], limits: &Limits) -> Result<(), String> {
        // What entries have decided is left out.
        if !self.is_open || first < self.next.min(self.acked) {
            return Err(format!("frame {first}, and {} is next", self.next));
        }
        let size: usize = sizes.iter().sum();
        if sizes.len() > 1 && size > limits.message_frames_size_max {
            return Err(format!("{} frames of {size} bytes in one message", sizes.len()));
        }
        self.next = first.plus(sizes.len() as u64);
        Ok(())
    }

    /// One page behind the other, and no more of them than the server has room for.
    fn seeds(
        &mut self,
        pgids: impl Iterator<Item = u32>,
        db_pages: u32,
        is_last: bool,
        limits: &Limits,
    ) -> Result<(), String> {
        let Some([sent, taken]) = &mut self.seed else {
            return Err("pages that nobody wants".to_owned());
        };
        let ahead_max = limits.catch_up_pages_max.max(limits.message_pages_max);
        if sent.saturating_sub(*taken) as usize >= ahead_max {
            return Err(format!("page {sent} of what is handed over, and {taken} were taken"));
        }
        let before = *sent;
        for pgid in pgids {
            *sent += 1;
            if pgid != *sent {
                return Err(format!("page {pgid}, and {sent} is next"));
            }
        }
        let is_small = (*sent - before) as usize <= limits.message_pages_max;
        if is_last == (*sent == db_pages) && is_small {
            return Ok(());
        }
        Err(format!("pages {before}..{sent} of {db_pages}, the last: {is_last}"))
    }
}
