//! A tab: what it asked, what it was told, and what it asks again when its core has died.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{
    Call, CallFailure, Connection, FromCore, Handle, Mutate, OpenRequest, Params, Query, Request,
    Status, Storage, ToCore,
};
use tidelog_types::{CallId, DocumentKey, ErrorCode, Outcome, Remedy, Rows, Value};

use crate::app::{
    ALL_CELLS, BADGED, CLAIMS, ENDS, ENTRIES, FRAGILE, MARKED, Release, SOME_CELLS, WATCHED_CELLS,
    Wish, doctype,
};
use crate::docs::{Doc, Docs, url};
use crate::judge::UNKNOWN;
use crate::port::Port;
use crate::swarm::Swarm;

/// Milliseconds after which a core has heard its tabs, and they have heard of that.
const HEARD_MS: u64 = 1_000;
/// Milliseconds that a server may take for the next pages of a document that it takes in.
const HAND_OVER_MS: u64 = 60_000;

/// Milliseconds after which an app whose listener has thrown has another one.
const LISTENS_ANEW_MS: u64 = 300;

/// Cores that have to die over a live query before its tab gives it up.
const DEATHS_MAX: u32 = 3;

/// A tab of a device.
pub(crate) struct Tab {
    pub(crate) release: Release,
    has_token: bool,
    /// It has none every other time.
    is_token_flaky: bool,
    tokens_asked: u32,
    /// Whether servers may lose what they had confirmed.
    servers_go_back: bool,
    /// Whether documents may be so full that there is no room for verdicts.
    fills: bool,
    /// Whether there may be several states of one device.
    devices_part: bool,
    /// Whether an app may name a server that has another document of that name.
    meets_namesakes: bool,
    /// Whether a server may let nobody in for a while.
    may_be_barred: bool,
    /// Whether there are releases of which neither succeeds the other.
    forks: bool,
    /// The device's share of call ids, so that no two calls ever have the same.
    pub(crate) id_prefix: u64,
    /// Its way to the core.
    pub(crate) port: Port,
    /// The documents that it was given, and by which handle: no app can ask anything of others.
    pub(crate) held: BTreeMap<Doc, Handle>,
    /// Handles that it ever had.
    docs: BTreeMap<Handle, Doc>,
    /// Documents that it opens with their servers, and those that were never local.
    online: BTreeSet<Doc>,
    shared: BTreeSet<Doc>,
    /// Handles of local documents that are being handed to a server.
    handing_over: BTreeSet<Handle>,
    /// Calls that have not settled, in their order, as they would be asked again.
    pub(crate) unsettled: BTreeMap<Call, Asked>,
    /// Mutations that wait for their verdict only, with their LSN.
    pub(crate) confirming: BTreeMap<Call, u64>,
    names: BTreeMap<Call, String>,
    /// Calls about documents that were closed: what is still said of them is not listened to.
    let_go: BTreeSet<Call>,
    watches: BTreeMap<Call, (Doc, Live)>,
    /// The core that each live query was answered by last.
    shown_by: BTreeMap<Call, u32>,
    /// What it watches.
    watched: Vec<Live>,
    /// What the live queries of each document showed last.
    pub(crate) live: BTreeMap<(Doc, Live), Vec<String>>,
    /// Live queries that have not shown what a query has.
    outdated: BTreeMap<(Doc, Live), Outdated>,
    /// How documents stand, by what it was told last, and by which core.
    statuses: BTreeMap<Handle, (u32, Status)>,
    /// Documents that the app wants to stay away from their servers, and since when it is sure that
    /// its core knows.
    away: BTreeMap<Doc, u64>,
    /// When another tab has last called a document back to its server.
    called_back: BTreeMap<Doc, u64>,
    /// Mutations of whose rejection a listener was told.
    pub(crate) told_rejections: BTreeSet<String>,
    /// Since when there is no listener that has not thrown, and where the one after that listens.
    threw: BTreeMap<Handle, u64>,
    listens_anew: BTreeSet<Handle>,
    pub(crate) exported: BTreeMap<Doc, Vec<u8>>,
    /// Nobody on its device holds anything any more.
    pub(crate) is_leaving: bool,
}

/// What a live query shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Live {
    Entries,
    Claims,
    Cells,
    Ends,
    /// Fails for what is in the document, and shows the same whenever it does not.
    Fragile,
}

/// Stands for the rows of what fails for what is in the document.
const MALFORMED: &str = "malformed";

/// Since when a live query has not shown what a query did, and what is known of that.
#[derive(Clone, Copy)]
struct Outdated {
    since_ms: u64,
    looked: Looked,
}

/// How often a query showed what a live query did not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    Once,
    /// Once, and it was asked again.
    Again,
    Twice,
}

impl Live {
    fn sql(self, release: Release) -> &'static str {
        match self {
            Self::Entries => match release {
                Release::First => ENTRIES,
                Release::Second => MARKED,
                Release::Fork => BADGED,
            },
            Self::Claims => CLAIMS,
            Self::Cells => SOME_CELLS,
            Self::Ends => ENDS,
            Self::Fragile => FRAGILE,
        }
    }

    /// A query by which an app looks at the same, and more.
    fn look(self, release: Release) -> &'static str {
        match self {
            Self::Cells => ALL_CELLS,
            live => live.sql(release),
        }
    }

    /// What is looked at by a query.
    fn of_look(message: &ToCore, release: Release) -> Option<Self> {
        let ToCore::Ask { request: Request::Query(query), .. } = message else { return None };
        let all = [Self::Entries, Self::Claims, Self::Cells, Self::Ends, Self::Fragile];
        all.into_iter().find(|it| it.look(release) == query.sql)
    }

    /// What it has to show of what was found by looking.
    pub(crate) fn part_of(self, names: &[String]) -> &[String] {
        match self {
            Self::Cells => &names[..names.len().min(WATCHED_CELLS)],
            Self::Entries | Self::Claims | Self::Ends | Self::Fragile => names,
        }
    }
}

/// A call that has not settled.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) message: ToCore,
    /// When the time began in which it has to settle.
    pub(crate) at_ms: u64,
    /// What a query has to show; what has to be shown right after a `sync`.
    must: BTreeSet<String>,
    /// Mutations that have to have their verdict by then.
    before: BTreeSet<Call>,
    /// Whether that is so only if nothing went wrong on the device since.
    is_fragile: bool,
    /// Whether its app asks once more, behind what it has asked meanwhile.
    pub(crate) is_again: bool,
    /// Whether it was said that it takes its time.
    pub(crate) is_late: bool,
    /// It asks for what cannot be, and this is what it has to be told.
    mistake: Option<ErrorCode>,
}

/// How many kinds of mistakes apps make here.
pub(crate) const MISTAKES: usize = 5;

/// What they are told of them, but for the last one, which is none later.
const MISTAKE_CODES: [ErrorCode; MISTAKES - 1] = [
    ErrorCode::Query,
    ErrorCode::ReadOnly,
    ErrorCode::UnknownMutation,
    ErrorCode::MutationArgument,
];

/// What a tab was told.
pub(crate) enum News {
    Durable(String),
    Confirmed(String),
    Rejected(String, String),
    /// Nothing was recorded.
    Failed(String),
    /// It may be recorded or not.
    Unknown(String),
    /// Its document was closed before this was said.
    Left(String),
    /// A listener is told of its rejection, which its device keeps.
    Kept(String),
    /// A listener has returned for it.
    Handled(String),
    /// A query was answered.
    Rows {
        doc: Doc,
        names: Vec<String>,
        must: BTreeSet<String>,
        tab: u64,
    },
}

/// What follows from what a tab was told.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) news: Vec<News>,
    pub(crate) answers: Vec<ToCore>,
    /// What it asks once more after a while.
    pub(crate) again: Vec<ToCore>,
    /// A document that is synced from now on.
    pub(crate) moved: Option<Doc>,
    /// A document that its server has already, and another one as it says.
    pub(crate) taken: Option<Doc>,
    /// A document that it was given as a file.
    pub(crate) exported: Option<Doc>,
    /// A document whose copy was deleted, and one of which nothing was.
    pub(crate) destroyed: Option<DocumentKey>,
    pub(crate) stays: Option<DocumentKey>,
}

impl Tab {
    pub(crate) fn new(id_prefix: u64, release: Release, swarm: &Swarm) -> Self {
        let mut watched = vec![Live::Entries];
        watched.extend(swarm.watches_claims.then_some(Live::Claims));
        watched.extend(swarm.cells.then_some(Live::Cells));
        watched.extend(swarm.long_cells.then_some(Live::Ends));
        watched.extend(swarm.watches_fragile.then_some(Live::Fragile));
        Self {
            release,
            has_token: swarm.tokens,
            is_token_flaky: swarm.flaky_tokens,
            tokens_asked: 0,
            servers_go_back: swarm.servers_go_back(),
            fills: swarm.fills,
            devices_part: swarm.devices_part(),
            meets_namesakes: swarm.meets_namesakes(),
            may_be_barred: swarm.bars(),
            forks: swarm.forks(),
            id_prefix,
            port: Port::new(),
            held: BTreeMap::new(),
            docs: BTreeMap::new(),
            online: BTreeSet::new(),
            shared: BTreeSet::new(),
            handing_over: BTreeSet::new(),
            unsettled: BTreeMap::new(),
            confirming: BTreeMap::new(),
            names: BTreeMap::new(),
            let_go: BTreeSet::new(),
            watches: BTreeMap::new(),
            shown_by: BTreeMap::new(),
            watched,
            live: BTreeMap::new(),
            statuses: BTreeMap::new(),
            outdated: BTreeMap::new(),
            away: BTreeMap::new(),
            called_back: BTreeMap::new(),
            told_rejections: BTreeSet::new(),
            threw: BTreeMap::new(),
            listens_anew: BTreeSet::new(),
            exported: BTreeMap::new(),
            is_leaving: false,
        }
    }

    /// The first word about a document. Watches and listens once it is open.
    pub(crate) fn open(&mut self, docs: &Docs, doc: Doc, online: bool, now_ms: u64) -> ToCore {
        if online {
            self.online.insert(doc);
        }
        let handle = self.port.new_handle();
        self.docs.insert(handle, doc);
        self.open_as(docs, doc, handle, now_ms)
    }

    /// The same with a server that has another document of that name.
    pub(crate) fn open_at(&mut self, docs: &Docs, doc: Doc, host: usize, now_ms: u64) -> ToCore {
        let handle = self.port.new_handle();
        self.docs.insert(handle, doc);
        self.open_with(docs, doc, handle, Some(host), now_ms)
    }

    /// Whether it holds a document, or waits for it.
    pub(crate) fn wants(&self, doc: Doc) -> bool {
        let mut opens = self.unsettled.values().filter(|asked| asked.is_open());
        self.held.contains_key(&doc) || opens.any(|open| self.doc_of(open) == Some(doc))
    }

    /// Whether it has asked for a document again since it opened it by this call.
    fn has_opened_since(&self, call: Call, handle: Handle) -> bool {
        let doc = self.docs.get(&handle).copied();
        let mut since = self.unsettled.range(call..).map(|(_, asked)| asked);
        since.any(|asked| asked.is_open() && self.doc_of(asked) == doc)
    }

    /// The document that it has or had by this handle.
    pub(crate) fn doc(&self, handle: Handle) -> Option<Doc> {
        self.docs.get(&handle).copied()
    }

    /// Whether it waits for the copy of this document to be deleted.
    pub(crate) fn deletes(&self, key: &DocumentKey) -> bool {
        let is_it = |asked: &Asked| deleted_by(&asked.message).is_some_and(|it| it == *key);
        self.unsettled.values().any(is_it)
    }

    /// Whether it holds a document as a local one.
    pub(crate) fn holds_locally(&self, doc: Doc) -> bool {
        self.held.contains_key(&doc) && !self.online.contains(&doc)
    }

    /// A local document, which this tab may hold already, is opened with its server.
    pub(crate) fn hand_over(&mut self, docs: &Docs, doc: Doc, now_ms: u64) -> ToCore {
        let handle = self.port.new_handle();
        self.docs.insert(handle, doc);
        self.handing_over.insert(handle);
        self.online.insert(doc);
        let open = self.open_as(docs, doc, handle, now_ms);
        self.online.remove(&doc);
        open
    }

    fn open_as(&mut self, docs: &Docs, doc: Doc, handle: Handle, now_ms: u64) -> ToCore {
        let spec = docs.spec(doc);
        if spec.host.is_some() {
            self.shared.insert(doc);
        }
        let host = spec.host.or(spec.moves_to.filter(|_| self.online.contains(&doc)));
        self.open_with(docs, doc, handle, host, now_ms)
    }

    fn open_with(
        &mut self,
        docs: &Docs,
        doc: Doc,
        handle: Handle,
        host: Option<usize>,
        now_ms: u64,
    ) -> ToCore {
        let call = self.next_call();
        let DocumentKey { document, user } = docs.spec(doc).key.clone();
        let open = Request::Open(Box::new(OpenRequest {
            document,
            user,
            server: host.map(url),
            doctype: doctype(self.release),
            has_token: self.has_token,
            word: 0,
        }));
        self.ask(call, ToCore::Ask { call, handle, request: open }, now_ms, BTreeSet::new())
    }

    fn watch(&mut self, doc: Doc, live: Live, handle: Handle) -> ToCore {
        let call = self.next_call();
        // The one of a handle that is about to be closed may be told something until then.
        self.let_go.extend(self.watches.extract_if(.., |_, it| *it == (doc, live)).map(|it| it.0));
        self.watches.insert(call, (doc, live));
        ToCore::Ask { call, handle, request: Request::Watch(query(live.sql(self.release))) }
    }

    pub(crate) fn mutate(
        &mut self,
        doc: Doc,
        wish: Wish,
        name: &str,
        now_ms: u64,
        skew_ms: u64,
    ) -> ToCore {
        let call = self.next_call();
        self.names.insert(call, name.to_owned());
        let mutate = Mutate {
            id: self.call_id(self.held[&doc], call),
            name: wish.mutation.to_owned(),
            args: wish.args,
            now_ms: now_ms + skew_ms,
            again: None,
        };
        let (handle, request) = (self.held[&doc], Request::Mutate(mutate));
        self.ask(call, ToCore::Ask { call, handle, request }, now_ms, BTreeSet::new())
    }

    pub(crate) fn query(&mut self, doc: Doc, must: BTreeSet<String>, now_ms: u64) -> ToCore {
        self.query_for(Live::Entries, doc, must, now_ms)
    }

    fn query_for(&mut self, live: Live, doc: Doc, must: BTreeSet<String>, now_ms: u64) -> ToCore {
        let call = self.next_call();
        let (handle, request) = (self.held[&doc], Request::Query(query(live.look(self.release))));
        self.ask(call, ToCore::Ask { call, handle, request }, now_ms, must)
    }

    /// Looks at all that it watches.
    pub(crate) fn look_at(&mut self, doc: Doc, now_ms: u64) -> Vec<ToCore> {
        let watched = self.watched.clone().into_iter();
        watched.map(|live| self.query_for(live, doc, BTreeSet::new(), now_ms)).collect()
    }

    pub(crate) fn sync(&mut self, doc: Doc, must: BTreeSet<String>, now_ms: u64) -> ToCore {
        let call = self.next_call();
        let (handle, request) = (self.held[&doc], Request::Sync);
        let is_before = |it: &Asked| it.is_mutate() && handle_of(&it.message) == Some(handle);
        let before = self.unsettled.iter().filter(|(_, it)| is_before(it));
        let before: BTreeSet<Call> = before.map(|(call, _)| *call).collect();
        let message = self.ask(call, ToCore::Ask { call, handle, request }, now_ms, must);
        self.unsettled.get_mut(&call).expect("BUG: asked just now").before = before;
        message
    }

    pub(crate) fn export(&mut self, doc: Doc, now_ms: u64) -> ToCore {
        let call = self.next_call();
        self.exported.remove(&doc);
        let (handle, request) = (self.held[&doc], Request::Export);
        self.ask(call, ToCore::Ask { call, handle, request }, now_ms, BTreeSet::new())
    }

    /// Whoever is told that nothing came of a mutation looks at what there is.
    fn look(&mut self, handle: Handle, now_ms: u64) -> Vec<ToCore> {
        let doc = self.docs.get(&handle).copied();
        let held = doc.filter(|doc| self.held.get(doc) == Some(&handle));
        held.map(|doc| self.look_at(doc, now_ms)).unwrap_or_default()
    }

    /// Lets go of a document: nothing more is asked of it.
    pub(crate) fn close(&mut self, doc: Doc, now_ms: u64) -> Option<Vec<ToCore>> {
        let handle = self.held.remove(&doc)?;
        self.live.retain(|(of, _), _| *of != doc);
        self.outdated.retain(|(of, _), _| *of != doc);
        self.away.remove(&doc);
        let watches = self.watches.iter().filter(|(_, (watched, _))| *watched == doc);
        let mut messages: Vec<ToCore> =
            watches.map(|(call, _)| ToCore::Unwatch { call: *call }).collect();
        self.watches.retain(|_, (watched, _)| *watched != doc);
        let call = self.next_call();
        let close = ToCore::Ask { call, handle, request: Request::Close };
        messages.push(self.ask(call, close, now_ms, BTreeSet::new()));
        Some(messages)
    }

    /// Ends its live queries, so that it waits for nothing.
    pub(crate) fn stop_watching(&mut self) -> Vec<ToCore> {
        self.live.clear();
        self.outdated.clear();
        let watches = std::mem::take(&mut self.watches).into_keys();
        watches.map(|call| ToCore::Unwatch { call }).collect()
    }

    /// What it gives who asks it for a token.
    pub(crate) fn token(&self) -> String {
        format!("the token of {}", self.id_prefix)
    }

    pub(crate) fn destroy(&mut self, docs: &Docs, doc: Doc, force: bool, now_ms: u64) -> ToCore {
        let call = self.next_call();
        let DocumentKey { document, user } = docs.spec(doc).key.clone();
        let destroy = ToCore::Destroy { call, document, user, force };
        self.ask(call, destroy, now_ms, BTreeSet::new())
    }

    pub(crate) fn set_connected(&self, doc: Doc, connected: bool, now_ms: u64) -> Option<ToCore> {
        let handle = *self.held.get(&doc)?;
        Some(ToCore::SetConnected { handle, word: 2 * now_ms + u64::from(!connected) })
    }

    /// Some tab of the device has said of a document whether it is to stay away, this one or
    /// another: the last word counts.
    pub(crate) fn note_connected(&mut self, doc: Doc, connected: bool, is_own: bool, now_ms: u64) {
        self.away.remove(&doc);
        if connected && !is_own {
            self.called_back.insert(doc, now_ms);
        }
        // What two tabs say at the same time may arrive in any order.
        let is_last = self.called_back.get(&doc).is_none_or(|at_ms| at_ms + HEARD_MS < now_ms);
        if is_own && !connected && is_last && self.shared.contains(&doc) {
            self.away.insert(doc, now_ms + HEARD_MS);
        }
    }

    /// Something goes wrong on the device: what its core has not heard by now, it may never hear.
    pub(crate) fn note_trouble(&mut self, now_ms: u64) {
        self.away.retain(|_, known_ms| *known_ms <= now_ms);
    }

    /// A server takes in the document that is offered to it: that may take a minute from now on.
    ///
    /// # Errors
    ///
    /// It has done so, and that was told.
    pub(crate) fn gets_on(&mut self, call: Call, now_ms: u64) -> Result<(), String> {
        let Some(asked) = self.unsettled.get_mut(&call) else { return Ok(()) };
        asked.at_ms = now_ms + HAND_OVER_MS;
        let handle = handle_of(&asked.message).filter(|handle| !self.handing_over.contains(handle));
        let goes_back = self.servers_go_back || self.devices_part;
        match handle.map(|handle| self.docs[&handle]).filter(|doc| self.online.contains(doc)) {
            Some(doc) if !goes_back => Err(format!("{doc:?} is handed over, and once more")),
            _ => Ok(()),
        }
    }

    /// Takes what the core says, and whether it is the last word of a call; with when something
    /// went wrong last, and up to when what was shown may go again.
    ///
    /// # Errors
    ///
    /// It may not say that.
    pub(crate) fn hear(
        &mut self,
        message: FromCore,
        last: bool,
        now_ms: u64,
        [trouble_ms, shown_ms]: [u64; 2],
    ) -> Result<Heard, String> {
        let mut heard = Heard::default();
        match message {
            FromCore::Opened { call, status, .. } => self.opened(call, status, &mut heard, now_ms),
            FromCore::Failed { call, failure } if !last => {
                heard.news.extend(self.left(call));
                self.late(call, &failure)?;
            }
            FromCore::Failed { call, failure } => self.failed(call, failure, &mut heard, now_ms)?,
            FromCore::Durable { call, entry } => {
                // The page server's word may come after the core's verdict.
                if self.unsettled.contains_key(&call) {
                    self.confirming.insert(call, entry.lsn.get());
                }
                heard.news.extend(self.left(call));
                heard.news.push(News::Durable(self.name(call)?));
            }
            FromCore::Confirmed { call, .. } => {
                heard.news.extend(self.left(call));
                self.end(call)?;
                heard.news.push(News::Confirmed(self.name(call)?));
            }
            FromCore::Rejected { call, failure, .. } => {
                let asked = self.unsettled.get(&call);
                if let Some(handle) = asked.and_then(|asked| handle_of(&asked.message)) {
                    heard.answers.extend(self.look(handle, now_ms));
                }
                self.end(call)?;
                let outcome = failure.outcome;
                let reason = failure.reason.unwrap_or(failure.message);
                if reason.starts_with(UNKNOWN) != (outcome == Outcome::Unknown) {
                    return Err(format!("the outcome of a rejection is {outcome:?}: {reason}"));
                }
                heard.news.push(News::Rejected(self.name(call)?, reason));
            }
            FromCore::Rows { call, rows } => {
                self.rows(call, &rows, &mut heard, now_ms, shown_ms)?;
            }
            FromCore::Exported { call, file } => {
                if let Some(doc) = self.unsettled.remove(&call).and_then(|it| self.doc_of(&it)) {
                    self.exported.insert(doc, file);
                    heard.exported = Some(doc);
                }
            }
            FromCore::Done { call } => self.done(call, &mut heard, now_ms, shown_ms)?,
            FromCore::HandingOver { .. } => unreachable!("BUG: the tab tells that nobody"),
            FromCore::Status { handle, status, .. } => {
                let doc = self.docs.get(&handle);
                let away_ms = doc.and_then(|doc| self.away.get(doc));
                if status.connection == Connection::Online
                    && let Some(away_ms) = away_ms
                    && now_ms >= *away_ms
                    && now_ms >= trouble_ms + HEARD_MS
                {
                    return Err(format!("{doc:?} is online, and is to stay away since {away_ms}"));
                }
                if status.connection == Connection::Local
                    && let Some(doc) = doc.filter(|doc| self.held.get(doc) == Some(&handle))
                    && self.online.contains(doc)
                    && !self.devices_part
                    && !self.servers_go_back
                {
                    return Err(format!("{doc:?} is its server's, and local again"));
                }
                let ordered = status.timeline.is_sorted() && status.storage_lsns.is_sorted();
                let [start, .., issued] = status.timeline;
                if !ordered || status.pending != issued - start {
                    return Err(format!("watermarks out of order: {status:?}"));
                }
                if let Some(failure) = status.error.as_ref().filter(|it| !self.passes(it.code)) {
                    return Err(format!("the status says {failure:?}"));
                }
                let is_refused = |it: &CallFailure| it.code == ErrorCode::Storage;
                if status.error.as_ref().is_some_and(is_refused)
                    && let Some(doc) = doc.copied()
                {
                    self.is_read_anew(doc);
                }
                self.statuses.insert(handle, (self.port.core, status));
                let is_due = |at_ms: &mut u64| *at_ms + LISTENS_ANEW_MS <= now_ms;
                let threw = self.threw.get_mut(&handle).is_some_and(is_due);
                if threw && self.holds(handle) {
                    // It is told again of what came before those that it has dealt with.
                    self.threw.remove(&handle);
                    self.listens_anew.insert(handle);
                    heard.answers.push(ToCore::ListenRejections { handle });
                }
            }
            FromCore::RejectionNews { handle, id, args, lsn, reason, .. } => {
                let Some((_, Value::Text(name))) = args.first() else {
                    return Err(format!("news of a rejection without a name: {args:?}"));
                };
                self.told_rejections.insert(name.clone());
                heard.news.push(News::Rejected(name.clone(), reason));
                heard.news.push(News::Kept(name.clone()));
                let is_held = self.holds(handle);
                if is_held && (lsn % 3 == 0 || lsn % 3 == 1 && self.listens_anew.contains(&handle))
                {
                    heard.answers.push(ToCore::RejectionHandled { handle, id });
                    heard.news.push(News::Handled(name.clone()));
                } else if is_held && lsn % 3 == 1 {
                    self.threw.entry(handle).or_insert(now_ms);
                }
            }
            FromCore::TokenWanted { handle } => {
                self.tokens_asked += 1;
                let is_here = !self.is_token_flaky || self.tokens_asked.is_multiple_of(2);
                let token = is_here.then(|| self.token());
                heard.answers.push(ToCore::Token { handle, token });
            }
        }
        Ok(heard)
    }

    /// Whether this is the handle by which it has its document.
    fn holds(&self, handle: Handle) -> bool {
        self.docs.get(&handle).is_some_and(|doc| self.held.get(doc) == Some(&handle))
    }

    /// Whether its core said last that a document was damaged: what is whole of it is shown.
    fn is_damaged(&self, doc: Doc) -> bool {
        let status = self.held.get(&doc).and_then(|handle| self.statuses.get(handle));
        let error = status.and_then(|(_, status)| status.error.as_ref());
        error.is_some_and(|it| it.code == ErrorCode::Storage && it.remedy == Remedy::Mend)
    }

    /// What its core said last to be wrong with each document, if it hears that one.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (Doc, &CallFailure)> {
        self.held.iter().filter_map(|(doc, handle)| {
            let (core, status) = self.statuses.get(handle)?;
            let is_heard = self.port.is_heard && *core == self.port.core;
            status.error.as_ref().filter(|_| is_heard).map(|failure| (*doc, failure))
        })
    }

    /// Whether a document could not be opened again, as its app was told.
    pub(crate) fn is_shut(&self, doc: Doc) -> bool {
        self.held.get(&doc).is_some_and(|handle| self.port.lost.contains_key(handle))
    }

    /// Whether its core said last that a document is of a release that does not go with another one
    /// that its device has.
    pub(crate) fn is_mismatched(&self, doc: Doc) -> bool {
        let Some(handle) = self.held.get(&doc) else { return false };
        let status = self.statuses.get(handle);
        let told = status.and_then(|(_, status)| status.error.as_ref()).map(|error| error.code);
        let lost = self.port.lost.get(handle).copied();
        lost.or(told) == Some(ErrorCode::DoctypeMismatch)
    }

    /// Whether something of a document was on its way to its server when its core said last how it
    /// stands.
    pub(crate) fn is_sending(&self, doc: Doc) -> bool {
        let status = self.held.get(&doc).and_then(|handle| self.statuses.get(handle));
        status.is_some_and(|(_, it)| it.connection == Connection::Online && it.pending > 0)
    }

    /// Whether nothing of a document waited for its server when its core said last how it stands.
    pub(crate) fn has_nothing_to_send(&self, doc: Doc) -> bool {
        let status = self.held.get(&doc).and_then(|handle| self.statuses.get(handle));
        status.is_none_or(|(_, it)| it.pending == 0)
    }

    /// Whether all of a document was decided, and told to a tab that hears of it, when its core
    /// said last how it stands.
    pub(crate) fn is_in_step(&self, doc: Doc) -> bool {
        let status = self.held.get(&doc).and_then(|handle| self.statuses.get(handle));
        let is_done = |it: &Status| it.connection == Connection::Online && it.pending == 0;
        self.port.is_heard && status.is_some_and(|(_, it)| is_done(it))
    }

    /// Whether a document was to stay away from its server when its core said last how it stands.
    pub(crate) fn is_away(&self, doc: Doc) -> bool {
        let status = self.held.get(&doc).and_then(|handle| self.statuses.get(handle));
        status.is_none_or(|(_, status)| status.away)
    }

    /// Whether the store had no room for what a server has sent, or a document writes of itself,
    /// when its core said last how that stands: it is written again by itself, or asked for anew,
    /// after a pause. That a store has refused something lately is not said any more once it has
    /// taken something of another document, and the pause goes on all the same.
    pub(crate) fn lacks_room(&self, refused_lately: bool) -> bool {
        let mut statuses = self.held.values().filter_map(|handle| self.statuses.get(handle));
        statuses.any(|(_, it)| {
            let [kept, seen] = it.storage_lsns;
            match it.error.as_ref().map(|failure| (failure.code, failure.remedy)) {
                Some((ErrorCode::StorageFull, _)) => kept < seen,
                Some((ErrorCode::Storage, remedy)) => remedy == Remedy::Retry,
                _ => kept < seen && refused_lately,
            }
        })
    }

    /// When all is in step, and nobody does anything, the status of a document says so. Gives what
    /// it says of the storage journal.
    ///
    /// # Errors
    ///
    /// If it says something else, or its core has said nothing.
    pub(crate) fn judge_status(&self, doc: Doc, is_synced: bool) -> Result<[u64; 2], String> {
        let handle = self.held.get(&doc).expect("BUG: one that is not held");
        let told = self.statuses.get(handle).filter(|(core, _)| *core == self.port.core);
        let Some((_, status)) = told else {
            return Err(format!("nobody has said how {doc:?} stands"));
        };
        let connection = if is_synced { Connection::Online } else { Connection::Local };
        // Of a document that nothing is written to, what was wrong with its store may be what was
        // wrong last. Of what has to do with its server nothing stays.
        let may_stay =
            |it: &CallFailure| matches!(it.code, ErrorCode::Storage | ErrorCode::StorageFull);
        let is_well = status.error.as_ref().is_none_or(may_stay);
        let [_, acked, durable, issued] = status.timeline;
        let is_whole = acked == issued && durable == issued || !is_synced;
        let [kept, seen] = status.storage_lsns;
        let is_kept = kept == seen && status.confirmed_lsn + 1 == seen && !status.settling;
        let is_at_rest = status.connection == connection
            && status.storage == Storage::Opfs
            && (status.pending == 0 && !status.away || !is_synced)
            && is_well
            && is_whole
            && is_kept;
        if is_at_rest {
            Ok(status.storage_lsns)
        } else {
            Err(format!("all is in step, and {doc:?} stands like this: {status:?}"))
        }
    }

    fn opened(&mut self, call: Call, status: Status, heard: &mut Heard, now_ms: u64) {
        let asked = self.unsettled.remove(&call);
        let Some(handle) = asked.and_then(|asked| handle_of(&asked.message)) else { return };
        let doc = self.docs[&handle];
        self.statuses.insert(handle, (self.port.core, status));
        heard.answers.push(ToCore::ListenRejections { handle });
        if self.handing_over.remove(&handle) {
            self.online.insert(doc);
            heard.moved = Some(doc);
        }
        // One that was handed over is used by this handle from now on.
        if let Some(local) = self.held.insert(doc, handle) {
            let call = self.next_call();
            let close = ToCore::Ask { call, handle: local, request: Request::Close };
            heard.answers.push(self.ask(call, close, now_ms, BTreeSet::new()));
        }
        for live in self.watched.clone() {
            heard.answers.push(self.watch(doc, live, handle));
        }
    }

    /// Whether the document of a mutation was closed since it was issued.
    fn left(&self, call: Call) -> Option<News> {
        let asked = self.unsettled.get(&call)?;
        let (handle, name) = (handle_of(&asked.message)?, self.names.get(&call)?);
        let is_held = self.held.get(&self.docs[&handle]) == Some(&handle);
        (!is_held).then(|| News::Left(name.clone()))
    }

    /// A live query failed for now, or a mutation takes its time.
    fn late(&mut self, call: Call, failure: &CallFailure) -> Result<(), String> {
        let is_let_go = self.let_go.contains(&call);
        if failure.code == ErrorCode::Query
            && let Some((doc, live @ Live::Fragile)) = self.watches.get(&call).copied()
        {
            self.shows(call, doc, live, &[MALFORMED.to_owned()]);
            return Ok(());
        }
        if self.must_be_there(call, failure.code) {
            return Err(format!("{call:?} watches what there is, and is told {failure:?}"));
        }
        if self.watches.contains_key(&call)
            || is_let_go
            || failure.code == ErrorCode::DocumentClosed
        {
            return Ok(());
        }
        let asked = self.unsettled.get_mut(&call).filter(|asked| asked.is_mutate());
        match (asked, failure.code) {
            (Some(asked), ErrorCode::NotDurableYet) => {
                asked.is_late = true;
                Ok(())
            }
            _ => Err(format!("{call:?} failed, and not for good: {failure:?}")),
        }
    }

    /// Whether a document may be in want of something in this world, and say so.
    fn passes(&self, code: ErrorCode) -> bool {
        match code {
            ErrorCode::ServerUnreachable | ErrorCode::StorageFull | ErrorCode::Storage => true,
            // One that went back may offer what it has handed over already.
            ErrorCode::DocumentReplaced => self.servers_go_back || self.devices_part,
            ErrorCode::DocumentMissing => self.servers_go_back,
            ErrorCode::DocumentExists => self.meets_namesakes,
            ErrorCode::Access | ErrorCode::Protocol => self.may_be_barred,
            ErrorCode::BudgetExceeded => self.fills,
            ErrorCode::DoctypeMismatch => self.forks,
            _ => false,
        }
    }

    /// Whether a live query failed for its words, though all that it looks at has to be there.
    fn must_be_there(&self, call: Call, code: ErrorCode) -> bool {
        code == ErrorCode::Query && self.watches.contains_key(&call)
    }

    /// Whether a server that is not there, or lets nobody in, may be the reason.
    fn is_unreachable(&self, code: ErrorCode) -> bool {
        let bars = matches!(code, ErrorCode::Access | ErrorCode::Protocol);
        code == ErrorCode::ServerUnreachable || bars && self.may_be_barred
    }

    fn failed(
        &mut self,
        call: Call,
        failure: CallFailure,
        heard: &mut Heard,
        now_ms: u64,
    ) -> Result<(), String> {
        let full =
            matches!(failure.code, ErrorCode::StorageFull | ErrorCode::Storage | ErrorCode::Engine);
        let closed = failure.code == ErrorCode::DocumentClosed;
        // A live query that cores died of, as it seems: what it showed grows old from here on, and
        // it is asked anew.
        if failure.code == ErrorCode::Engine
            && let Some((doc, live)) = self.watches.get(&call).copied()
            && let Some(handle) = self.held.get(&doc).copied()
        {
            let died = self.shown_by.get(&call).map(|core| self.port.core - core);
            if died.is_some_and(|died| died < DEATHS_MAX) {
                return Err(format!("a live query of {doc:?} ends, and {died:?} cores died of it"));
            }
            self.live.remove(&(doc, live));
            self.outdated.remove(&(doc, live));
            heard.answers.push(self.watch(doc, live, handle));
            return Ok(());
        }
        if self.must_be_there(call, failure.code) {
            return Err(format!("{call:?} watches what there is, and ends with {failure:?}"));
        }
        // It has nothing to show at present, says so, and shows again what there is from then on.
        if full && let Some(which) = self.watches.get(&call) {
            self.outdated.remove(which);
        }
        let Some(asked) = self.unsettled.remove(&call) else {
            // A live query whose document was closed, or what is not listened to.
            let is_expected =
                self.watches.contains_key(&call) || closed || self.let_go.contains(&call);
            return if is_expected {
                Ok(())
            } else {
                Err(format!("{call:?} failed twice: {failure:?}"))
            };
        };
        self.confirming.remove(&call);
        let (handle, request) = match &asked.message {
            ToCore::Ask { handle, request, .. } => (*handle, request),
            message => {
                let is_forced = matches!(message, ToCore::Destroy { force: true, .. });
                let held = failure.code == ErrorCode::InvalidOption
                    || failure.code == ErrorCode::Pending && !is_forced;
                let may_fail = full || held && !self.is_leaving;
                let expected = matches!(message, ToCore::Destroy { .. }) && may_fail;
                if failure.outcome == Outcome::None {
                    heard.stays = deleted_by(message);
                }
                return if expected { Ok(()) } else { Err(format!("not deleted: {failure:?}")) };
            }
        };
        if let Some(code) = asked.mistake {
            let is_told = failure.code == code && failure.outcome == Outcome::None;
            return match is_told || full || closed {
                true => Ok(()),
                false => Err(format!("a mistake is answered by {failure:?}")),
            };
        }
        if failure.code == ErrorCode::Query
            && let (Some(doc), Some(live @ Live::Fragile)) =
                (self.doc_of(&asked), Live::of_look(&asked.message, self.release))
        {
            self.compare_live(doc, live, &[MALFORMED.to_owned()], now_ms);
            return Ok(());
        }
        match request {
            Request::Mutate(_) => {
                let name = self.name(call)?;
                if !full && !closed && failure.code != ErrorCode::Rejected {
                    return Err(format!("{name} failed: {failure:?}"));
                }
                heard.news.extend(closed.then(|| News::Left(name.clone())));
                heard.news.push(match failure.outcome {
                    Outcome::None => News::Failed(name),
                    Outcome::Unknown => News::Unknown(name),
                });
                heard.answers.extend(self.look(handle, now_ms));
                Ok(())
            }
            Request::Sync if full || closed || self.passes(failure.code) => Ok(()),
            // Another tab has handed it over, and is gone.
            Request::Sync
                if failure.code == ErrorCode::InvalidOption
                    && self.doc_of(&asked).is_some_and(|doc| !self.online.contains(&doc)) =>
            {
                Ok(())
            }
            // A document that could not be handed over is tried again, by whoever wants that.
            Request::Open(_) if self.handing_over.remove(&handle) => {
                let is_taken = failure.code == ErrorCode::DocumentExists;
                heard.taken = self.docs.get(&handle).copied().filter(|_| is_taken);
                let expected = full || is_taken || self.is_unreachable(failure.code);
                if expected { Ok(()) } else { Err(format!("not handed over: {failure:?}")) }
            }
            // Nobody tries again what it has asked for in another way since.
            Request::Open(_)
                if (full || self.is_unreachable(failure.code))
                    && self.has_opened_since(call, handle) =>
            {
                Ok(())
            }
            Request::Open(_) if self.is_unreachable(failure.code) => {
                heard.again.push(asked.message.clone());
                self.unsettled.insert(call, asked);
                Ok(())
            }
            // Whoever tries again asks for something new: the one before may still come about.
            Request::Open(_) if full => {
                let doc = self.docs[&handle];
                let (call, handle) = (self.next_call(), self.port.new_handle());
                self.docs.insert(handle, doc);
                let message = ToCore::Ask { call, handle, request: request.clone() };
                heard.again.push(self.ask(call, message, now_ms, BTreeSet::new()));
                Ok(())
            }
            // Another release has the document, which this one does not go with.
            Request::Open(_) if failure.code == ErrorCode::DoctypeMismatch && self.forks => {
                match failure.outcome {
                    Outcome::None => Ok(()),
                    Outcome::Unknown => Err(format!("something came of it: {failure:?}")),
                }
            }
            // Its release gave way to the server's while nothing of this was durable by it.
            Request::Query(_) | Request::Export
                if failure.code == ErrorCode::DoctypeMismatch
                    && self.forks
                    && self.port.lost.get(&handle) == Some(&ErrorCode::DoctypeMismatch) =>
            {
                Ok(())
            }
            // Nobody closes a document twice: that failed, and is the end of it all the same.
            Request::Close if full => {
                self.let_go(handle, heard);
                Ok(())
            }
            _ if full => {
                heard.again.push(asked.message.clone());
                self.unsettled.insert(call, asked);
                Ok(())
            }
            _ if closed => Ok(()),
            request => Err(format!("{request:?} failed: {failure:?}")),
        }
    }

    fn rows(
        &mut self,
        call: Call,
        rows: &Rows,
        heard: &mut Heard,
        now_ms: u64,
        trouble_ms: u64,
    ) -> Result<(), String> {
        let rows = rows.decode();
        let (all, mut names) = (rows.len(), Vec::with_capacity(rows.len()));
        for row in rows {
            let mut row = row.into_iter();
            let (name, count) = (row.next(), row.next());
            names.extend(name.and_then(|name| match name {
                Value::Text(name) => Some(name),
                _ => None,
            }));
            if let Some(Value::Integer(count)) = count
                && usize::try_from(count) != Ok(all)
            {
                return Err(format!("a query shows {all} rows, and pages that tell of {count}"));
            }
        }
        if let Some(mut asked) = self.unsettled.remove(&call) {
            if asked.is_fragile && asked.at_ms <= trouble_ms {
                asked.must.clear();
            }
            if let (Some(doc), Some(live)) =
                (self.doc_of(&asked), Live::of_look(&asked.message, self.release))
            {
                if self.is_damaged(doc) {
                    asked.must.clear();
                }
                self.compare_live(doc, live, &names, now_ms);
                if live != Live::Entries {
                    return Ok(());
                }
                // A core that comes later finds what was recorded, and is asked the query again.
                let is_first = !asked.is_again && asked.at_ms > trouble_ms;
                let mut later = self.names.range(call..).filter(|_| is_first);
                if let Some((_, name)) = later.find(|(_, name)| names.contains(name)) {
                    return Err(format!("a query shows {name}, which was issued after it"));
                }
                heard.news.push(News::Rows { doc, names, must: asked.must, tab: self.id_prefix });
            }
        } else if let Some((doc, live)) = self.watches.get(&call).copied() {
            self.shows(call, doc, live, &names);
            if live != Live::Entries {
                return Ok(());
            }
            heard.news.push(News::Rows { doc, names, must: BTreeSet::new(), tab: self.id_prefix });
        }
        Ok(())
    }

    /// A live query shows this.
    fn shows(&mut self, call: Call, doc: Doc, live: Live, names: &[String]) {
        self.shown_by.insert(call, self.port.core);
        self.live.insert((doc, live), names.to_vec());
        self.outdated.remove(&(doc, live));
    }

    /// A query has shown this: its document's live query does too, or soon.
    fn compare_live(&mut self, doc: Doc, live: Live, names: &[String], now_ms: u64) {
        match self.live.get(&(doc, live)) {
            Some(shown) if shown != live.part_of(names) => {
                let first = Outdated { since_ms: now_ms, looked: Looked::Once };
                let outdated = self.outdated.entry((doc, live)).or_insert(first);
                if outdated.looked == Looked::Again {
                    *outdated = Outdated { since_ms: now_ms, looked: Looked::Twice };
                }
            }
            _ => drop(self.outdated.remove(&(doc, live))),
        }
    }

    /// A document whose live query still does not show what a query showed at that time, and again
    /// later.
    pub(crate) fn outdated_since(&self, ms: u64) -> Option<(Doc, Live)> {
        self.outdated_for(Looked::Twice, ms).next()
    }

    /// Looks again where a live query does not show what a query did at that time: what went back,
    /// as after a failed append, and came again was the same to who watches.
    pub(crate) fn look_again(&mut self, ms: u64, now_ms: u64) -> Vec<ToCore> {
        let outdated: Vec<(Doc, Live)> = self.outdated_for(Looked::Once, ms).collect();
        let held = outdated.into_iter().filter(|(doc, _)| self.held.contains_key(doc));
        let held: Vec<(Doc, Live)> = held.collect();
        let mut asks = Vec::with_capacity(held.len());
        for (doc, live) in held {
            self.outdated.get_mut(&(doc, live)).expect("BUG: found above").looked = Looked::Again;
            asks.push(self.query_for(live, doc, BTreeSet::new(), now_ms));
        }
        asks
    }

    fn outdated_for(&self, looked: Looked, ms: u64) -> impl Iterator<Item = (Doc, Live)> {
        let is_known = self.port.is_heard;
        let so = move |it: &Outdated| is_known && it.looked == looked && it.since_ms < ms;
        self.outdated.iter().filter(move |(_, it)| so(it)).map(|(which, _)| *which)
    }

    fn done(
        &mut self,
        call: Call,
        heard: &mut Heard,
        now_ms: u64,
        trouble_ms: u64,
    ) -> Result<(), String> {
        let Some(asked) = self.unsettled.remove(&call) else { return Ok(()) };
        match &asked.message {
            // What was confirmed before is visible now.
            ToCore::Ask { handle, request: Request::Sync, .. } => {
                let doc = self.docs[handle];
                let mut before = asked.before.iter();
                if let Some(open) = before.find(|call| self.unsettled.contains_key(call))
                    && self.shared.contains(&doc)
                {
                    return Err(format!("all is in step, but for {}", self.name(*open)?));
                }
                let is_held = self.held.get(&doc) == Some(handle);
                if is_held && asked.at_ms > trouble_ms {
                    let query = self.query(doc, asked.must, now_ms);
                    self.unsettled.values_mut().last().expect("BUG: asked").is_fragile = true;
                    heard.answers.push(query);
                }
            }
            ToCore::Ask { handle, request: Request::Close, .. } => {
                self.ends_with_verdicts(*handle)?;
                self.let_go(*handle, heard);
            }
            message => heard.destroyed = deleted_by(message),
        }
        Ok(())
    }

    /// What this device decides is confirmed with the same word that says that it is durable: the
    /// close of such a document does not come between.
    fn ends_with_verdicts(&self, handle: Handle) -> Result<(), String> {
        let is_local = |(_, it): &(u32, Status)| it.connection == Connection::Local;
        if !self.statuses.get(&handle).is_some_and(is_local) {
            return Ok(());
        }
        let mut open = self.confirming.keys().filter(|call| {
            let asked = self.unsettled.get(call);
            asked.and_then(|asked| handle_of(&asked.message)) == Some(handle)
        });
        match open.next() {
            Some(call) => Err(format!("the close says nothing of {}", self.name(*call)?)),
            None => Ok(()),
        }
    }

    /// Nothing more is expected of a document that was closed.
    fn let_go(&mut self, handle: Handle, heard: &mut Heard) {
        let of_it = |asked: &Asked| handle_of(&asked.message) == Some(handle);
        let calls = self.unsettled.iter().filter(|(_, asked)| of_it(asked));
        let calls: Vec<Call> = calls.map(|(call, _)| *call).collect();
        for call in calls {
            heard.news.extend(self.left(call));
            self.unsettled.remove(&call);
            let is_durable = self.confirming.remove(&call).is_some();
            if let Some(name) = self.names.get(&call).filter(|_| !is_durable) {
                heard.news.push(News::Unknown(name.clone()));
            }
            self.let_go.insert(call);
        }
    }

    /// A mutation has its end, which is said once.
    fn end(&mut self, call: Call) -> Result<(), String> {
        self.confirming.remove(&call);
        if self.unsettled.remove(&call).is_some() || self.let_go.contains(&call) {
            return Ok(());
        }
        Err(format!("{} has a second end", self.name(call)?))
    }

    fn name(&self, call: Call) -> Result<String, String> {
        self.names.get(&call).cloned().ok_or_else(|| format!("{call:?} is no mutation"))
    }

    /// The document that a call is about.
    pub(crate) fn doc_of(&self, asked: &Asked) -> Option<Doc> {
        handle_of(&asked.message).map(|handle| self.docs[&handle])
    }

    fn next_call(&mut self) -> Call {
        self.port.new_call()
    }

    /// The device's copy of a document is deleted: what was asked before of it and waits yet, as
    /// for a core that opens it again, may be answered by one that begins with nothing.
    pub(crate) fn is_owed_nothing_of(&mut self, doc: Doc) {
        let docs = &self.docs;
        let is_of_it = |asked: &Asked| handle_of(&asked.message).map(|it| docs[&it]) == Some(doc);
        let asked = self.unsettled.values_mut().filter(|asked| !asked.is_sync());
        asked.filter(|asked| is_of_it(asked)).for_each(|asked| asked.must.clear());
    }

    /// What was received of a document was refused by the store, and comes again from its server.
    fn is_read_anew(&mut self, doc: Doc) {
        let docs = &self.docs;
        let is_of_it = |asked: &Asked| handle_of(&asked.message).map(|it| docs[&it]) == Some(doc);
        let asked = self.unsettled.values_mut().filter(|asked| asked.is_fragile);
        asked.filter(|asked| is_of_it(asked)).for_each(|asked| asked.must.clear());
    }

    /// What its device had is gone, and comes back with the next `sync` only.
    pub(crate) fn owes_queries_nothing(&mut self) {
        let asked = self.unsettled.values_mut();
        asked.filter(|asked| !asked.is_sync()).for_each(|asked| asked.must.clear());
    }

    fn ask(&mut self, call: Call, message: ToCore, at_ms: u64, must: BTreeSet<String>) -> ToCore {
        self.unsettled.insert(
            call,
            Asked {
                message: message.clone(),
                at_ms,
                must,
                before: BTreeSet::new(),
                is_fragile: false,
                is_again: false,
                is_late: false,
                mistake: None,
            },
        );
        message
    }

    fn call_id(&self, handle: Handle, call: Call) -> CallId {
        let mut bytes = [0; 16];
        let prefix = self.id_prefix | (u64::from(handle.0) << 16);
        bytes[..8].copy_from_slice(&prefix.to_be_bytes());
        bytes[8..].copy_from_slice(&u64::from(call.0).to_be_bytes());
        CallId(bytes)
    }

    /// Asks for what cannot be: the answer says so, and nothing else becomes of it.
    pub(crate) fn mistake(&mut self, doc: Doc, nth: usize, now_ms: u64) -> ToCore {
        let (call, handle) = (self.next_call(), self.held[&doc]);
        let mutate = |name: &str, args| {
            let (id, name) = (self.call_id(handle, call), name.to_owned());
            Request::Mutate(Mutate { id, name, args, now_ms, again: None })
        };
        let request = match nth {
            0 => Request::Query(query("select nothing from nowhere")),
            1 => Request::Query(query("delete from entry")),
            2 => mutate("nothing", Vec::new()),
            3 => mutate("claim", vec![("id".to_owned(), Value::Integer(1))]),
            _ => {
                // It is answered once a release has made that table.
                self.let_go.insert(call);
                return ToCore::Ask { call, handle, request: Request::Watch(query(MARKED)) };
            }
        };
        let message = ToCore::Ask { call, handle, request };
        let message = self.ask(call, message, now_ms, BTreeSet::new());
        let mistake = MISTAKE_CODES.get(nth).copied();
        self.unsettled.get_mut(&call).expect("BUG: asked just now").mistake = mistake;
        message
    }
}

impl Asked {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.message, ToCore::Ask { request: Request::Open(_), .. })
    }

    fn is_mutate(&self) -> bool {
        matches!(self.message, ToCore::Ask { request: Request::Mutate(_), .. })
    }

    /// Whether it waits for a server, however long that takes.
    pub(crate) fn is_sync(&self) -> bool {
        matches!(self.message, ToCore::Ask { request: Request::Sync, .. })
    }
}

fn query(sql: &str) -> Query {
    Query { sql: sql.to_owned(), params: Params::NONE }
}

fn handle_of(message: &ToCore) -> Option<Handle> {
    match message {
        ToCore::Ask { handle, .. } => Some(*handle),
        _ => None,
    }
}

/// The document whose copy it wants deleted.
fn deleted_by(message: &ToCore) -> Option<DocumentKey> {
    match message {
        ToCore::Destroy { document, user, .. } => {
            Some(DocumentKey { document: document.clone(), user: user.clone() })
        }
        _ => None,
    }
}
