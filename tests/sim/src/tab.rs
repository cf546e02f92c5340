//! A tab: what it asked, what it was told, and what it asks again when its core has died.

mod hearing;
mod live;
mod runs;
mod standing;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{Call, Handle, Mutate, OpenRequest, Params, Query, Request, Status, ToCore};
use tidelog_types::limits::Limits;
use tidelog_types::{CallId, DocumentKey, ErrorCode, JournalId, Value};

use crate::app::{MARKED, Release, Wish, doctype};
use crate::docs::{Doc, Docs, url};
use crate::port::Port;
use crate::swarm::{Kind, Swarm};

pub(crate) use hearing::{Heard, News};
pub(crate) use live::Live;
use live::Outdated;
pub(crate) use runs::{FarEnd, GivenRun, Known, RunNews, RunSaid};
use tasks::Tasks;
pub(crate) use tasks::{Given, TaskNews, Versions, Work};

/// Milliseconds after which a core has heard its tabs, and they have heard of that.
const HEARD_MS: u64 = 1_000;
/// Milliseconds that a server may take for the next pages of a document that it takes in.
const HAND_OVER_MS: u64 = 60_000;

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
    /// Whether its token may allow to read only, for a while.
    may_only_read: bool,
    /// Whether there are releases of which neither succeeds the other.
    forks: bool,
    /// Whether data of a server, or of a device, may rot.
    may_rot: bool,
    /// Whether page servers keep but a few appends.
    may_be_busy: bool,
    /// Whether few mutations may be without a verdict.
    few_undecided: bool,
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
    /// Mutations that wait for their verdict only, with the journal that they are durable in.
    pub(crate) confirming: BTreeMap<Call, JournalId>,
    names: BTreeMap<Call, String>,
    /// By which handle each mutation was issued.
    issued_by: BTreeMap<Call, Handle>,
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
    /// The journal that is written for each handle, by what was told last.
    journals: BTreeMap<Handle, JournalId>,
    /// Documents that the app wants to stay away from their servers, and since when it is sure that
    /// its core knows.
    away: BTreeMap<Doc, u64>,
    /// When another tab has last called a document back to its server.
    called_back: BTreeMap<Doc, u64>,
    /// Mutations of whose rejection the listener that is there was told, by the handle, and whether
    /// one has dealt with it.
    told_rejections: BTreeMap<Handle, BTreeMap<String, bool>>,
    /// Since when there is no listener that has not thrown, and since when the one after that
    /// listens.
    threw: BTreeMap<Handle, u64>,
    listens_anew: BTreeMap<Handle, u64>,
    pub(crate) exported: BTreeMap<Doc, Vec<u8>>,
    tasks: Tasks,
    /// Which of both the app has.
    kind: Kind,
    /// Nobody on its device holds anything any more.
    pub(crate) is_leaving: bool,
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

impl Asked {
    /// It failed for the moment, for what went wrong on the device.
    pub(crate) fn is_asked_again(&mut self, now_ms: u64) {
        (self.at_ms, self.is_again) = (now_ms, true);
        if self.is_fragile {
            self.must.clear();
        }
    }
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
            may_only_read: swarm.guarded,
            forks: swarm.forks(),
            may_rot: swarm.rots(),
            may_be_busy: swarm.side_by_side,
            few_undecided: swarm.limits.undecided_size_max < Limits::DEFAULT.undecided_size_max,
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
            issued_by: BTreeMap::new(),
            let_go: BTreeSet::new(),
            watches: BTreeMap::new(),
            shown_by: BTreeMap::new(),
            watched,
            live: BTreeMap::new(),
            statuses: BTreeMap::new(),
            journals: BTreeMap::new(),
            outdated: BTreeMap::new(),
            away: BTreeMap::new(),
            called_back: BTreeMap::new(),
            told_rejections: BTreeMap::new(),
            threw: BTreeMap::new(),
            listens_anew: BTreeMap::new(),
            exported: BTreeMap::new(),
            tasks: Tasks::default(),
            kind: swarm.kind,
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

    /// Whether it has a document by what it has asked for since it opened it by this call, or waits
    /// for that.
    pub(crate) fn has_opened_since(&self, call: Call, handle: Handle) -> bool {
        let Some(doc) = self.doc(handle) else { return false };
        let mut since = self.unsettled.iter().filter(|(later, _)| **later > call);
        self.held.get(&doc).is_some_and(|held| *held > handle)
            || since.any(|(_, asked)| asked.is_open() && self.doc_of(asked) == Some(doc))
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
            doctype: doctype(self.release, self.kind),
            has_token: self.has_token,
            word: 0,
        }));
        self.ask(call, ToCore::Ask { call, handle, request: open }, now_ms, BTreeSet::new())
    }

    pub(crate) fn mutate(
        &mut self,
        doc: Doc,
        wish: Wish,
        name: &str,
        [now_ms, clock_ms]: [u64; 2],
    ) -> ToCore {
        let call = self.next_call();
        self.names.insert(call, name.to_owned());
        self.issued_by.insert(call, self.held[&doc]);
        let mutate = Mutate {
            id: self.call_id(self.held[&doc], call),
            name: wish.mutation.to_owned(),
            args: wish.args,
            now_ms: clock_ms,
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
            watches.map(|(call, _)| ToCore::GiveUp { call: *call }).collect();
        self.watches.retain(|_, (watched, _)| *watched != doc);
        messages.extend(self.leave_tasks(doc));
        let call = self.next_call();
        let close = ToCore::Ask { call, handle, request: Request::Close };
        messages.push(self.ask(call, close, now_ms, BTreeSet::new()));
        Some(messages)
    }

    /// What it gives who asks it for a token.
    pub(crate) fn token(&self) -> String {
        format!("the token of {}", self.id_prefix)
    }

    pub(crate) fn destroy(
        &mut self,
        docs: &Docs,
        doc: Doc,
        (force, everywhere): (bool, bool),
        now_ms: u64,
    ) -> ToCore {
        let call = self.next_call();
        let DocumentKey { document, user } = docs.spec(doc).key.clone();
        let document = Some(document);
        let destroy = ToCore::Destroy { call, document, user, force, everywhere };
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

    pub(crate) fn is_mutate(&self) -> bool {
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
        ToCore::Destroy { document: Some(document), user, .. } => {
            Some(DocumentKey { document: document.clone(), user: user.clone() })
        }
        _ => None,
    }
}
