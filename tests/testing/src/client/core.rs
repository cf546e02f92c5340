//! A core between a page server and servers that are played by hand, message by message.

use std::collections::BTreeMap;

use tidelog_client::{
    Again, AtWork, Call, CallFailure, Client, ClientSettings, Effect, FromCore, Handle, Input,
    Memo, Mutate, OpenRequest, PageServerFailure, PageServerId, Params, Query, Request, SocketId,
    Storage, TabId, ToCore,
};
use tidelog_pages::{AppendError, OpenedDocument, RequestId, StoreReply, StoreRequest, Ticket};
use tidelog_sync::{Channel, FromRoom, FromServer, ToServer, decode_message, encode_message};
use tidelog_types::limits::Limits;
use tidelog_types::{
    DocumentKey, Epoch, JournalId, Life, Lineage, Lsn, Page, Pgid, Position, UnservedKind,
};

use super::{HANDLE, TAB, call_id, text, todos};

pub const LENT: PageServerId = PageServerId(1);

/// A core, and what it has asked and said so far.
pub struct Core {
    client: Client,
    pub asked: Vec<StoreRequest>,
    /// The appends that the page server tells tabs of by itself, and how much it had been asked
    /// when it was told so.
    pub noticed: Vec<(Ticket, usize)>,
    pub told: Vec<FromCore>,
    /// What was sent, and where to.
    pub sent: Vec<(String, ToServer)>,
    sockets: BTreeMap<SocketId, String>,
    now_ms: u64,
    /// When it wants to be woken.
    wake_at_ms: Option<u64>,
    /// What tabs that open a document know to be said of its server.
    pub word: u64,
    /// Whether they can be asked for a token.
    pub has_token: bool,
    /// Who was asked for one.
    pub tokens_wanted: Vec<TabId>,
    /// By which questions, as long as they are not answered.
    questions: Vec<(TabId, Handle, u64)>,
}

impl Default for Core {
    /// A core with a page server.
    fn default() -> Self {
        Self::with_limits(Limits::DEFAULT)
    }
}

impl Core {
    /// A core whose tab has a local document open, durable.
    pub fn open() -> Self {
        let mut core = Self::default();
        core.open_new(Call(1), HANDLE, "list", None);
        core
    }

    pub fn with_limits(limits: Limits) -> Self {
        Self::with_settings(ClientSettings { limits, ..ClientSettings::default() })
    }

    pub fn with_settings(settings: ClientSettings) -> Self {
        Self::of(Client::with_settings([1; 32], settings))
    }

    /// One that draws other numbers than those of other seeds.
    pub fn of_seed(seed: u8) -> Self {
        Self::of(Client::with_settings([seed; 32], ClientSettings::default()))
    }

    fn of(client: Client) -> Self {
        let mut core = Self {
            client,
            asked: Vec::new(),
            noticed: Vec::new(),
            told: Vec::new(),
            sent: Vec::new(),
            sockets: BTreeMap::new(),
            now_ms: 1_000,
            wake_at_ms: None,
            word: 0,
            has_token: false,
            tokens_wanted: Vec::new(),
            questions: Vec::new(),
        };
        let (server, storage) = (LENT, Storage::Opfs);
        core.step(Input::PageServerLent { server, settled_at_ms: 0, storage });
        core.reply(StoreReply::Ready { epoch: Epoch(1) });
        core
    }

    /// The first tab opens a document that the store does not have.
    pub fn open_new(&mut self, call: Call, handle: Handle, document: &str, server: Option<&str>) {
        self.ask_to_open(TAB, call, handle, document, server);
        self.reply(StoreReply::Opened { document: key(document), life: Life::NONE, state: None });
        self.reply(StoreReply::Durable { ticket: self.last_ticket() });
    }

    pub fn ask_to_open(
        &mut self,
        tab: TabId,
        call: Call,
        handle: Handle,
        document: &str,
        server: Option<&str>,
    ) {
        let request = Request::Open(Box::new(OpenRequest {
            document: document.to_owned(),
            user: String::new(),
            server: server.map(str::to_owned),
            doctype: todos(),
            has_token: self.has_token,
            word: self.word,
        }));
        self.step(Input::FromTab { tab, messages: vec![ToCore::Ask { call, handle, request }] });
    }

    pub fn step(&mut self, input: Input) {
        for effect in self.client.step(self.now_ms, input) {
            match effect {
                Effect::ToPageServer { requests, notices, .. } => {
                    let asked = self.asked.len();
                    self.noticed.extend(notices.iter().map(|notice| (notice.ticket, asked)));
                    self.asked.extend(requests);
                }
                Effect::ToTab { tab, messages } => {
                    for message in &messages {
                        if let FromCore::TokenWanted { handle, question } = message {
                            self.tokens_wanted.push(tab);
                            self.questions.push((tab, *handle, *question));
                        }
                    }
                    self.told.extend(messages);
                }
                Effect::OpenSocket { socket, url } => {
                    let server = url.trim_end_matches("/v1/sync").to_owned();
                    self.sockets.insert(socket, server);
                }
                Effect::ToServer { socket, bytes } => {
                    let message = decode_message(&bytes).expect("a message of ours");
                    self.sent.push((self.sockets[&socket].clone(), message));
                }
                Effect::CloseSocket { socket } => drop(self.sockets.remove(&socket)),
                Effect::WakeAt { at_ms } => self.wake_at_ms = Some(at_ms),
            }
        }
    }

    /// Whether it has more to do at once, whatever happens.
    pub fn wakes_now(&self) -> bool {
        self.wake_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms)
    }

    /// Time goes by.
    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.step(Input::Wake);
    }

    /// In how many milliseconds it wants to be woken.
    pub fn wakes_in_ms(&self) -> u64 {
        self.wake_at_ms.expect("it waits for a time") - self.now_ms
    }

    pub fn ask(&mut self, call: Call, handle: Handle, request: Request) {
        self.say(ToCore::Ask { call, handle, request });
    }

    pub fn say(&mut self, message: ToCore) {
        self.say_from(TAB, message);
    }

    pub fn say_from(&mut self, tab: TabId, message: ToCore) {
        self.step(Input::FromTab { tab, messages: vec![message] });
    }

    /// A tab answers what it was asked first of a document and has not answered yet.
    pub fn give_token(&mut self, tab: TabId, handle: Handle, token: Option<&str>) {
        let question = self.take_question(tab, handle);
        self.say_from(tab, ToCore::Token { question, token: token.map(str::to_owned) });
    }

    /// What a tab was asked first of a document and has not answered, which somebody does now.
    pub fn take_question(&mut self, tab: TabId, handle: Handle) -> u64 {
        let is_its = |(of, about, _): &(TabId, Handle, u64)| (*of, *about) == (tab, handle);
        let place = self.questions.iter().position(is_its).expect("nobody has asked it");
        self.questions.remove(place).2
    }

    /// The connection that was asked for is there, and the server lets the core in.
    pub fn welcome(&mut self, server: &str) {
        self.socket_opens(server);
        self.hear(server, &FromServer::Welcome);
    }

    pub fn socket_opens(&mut self, server: &str) {
        let socket = self.socket_of(server);
        self.step(Input::SocketOpened { socket });
    }

    /// The connection is gone.
    pub fn lose(&mut self, server: &str) {
        let socket = self.socket_of(server);
        self.step(Input::SocketClosed { socket });
    }

    pub fn hear(&mut self, server: &str, message: &FromServer) {
        let (socket, bytes) = (self.socket_of(server), encode_message(message));
        self.step(Input::FromServer { socket, bytes });
    }

    /// The server has opened a document that nobody has written to.
    pub fn server_opens(&mut self, server: &str, channel: u32) {
        let storage = Position::start_of(JournalId([9; 16]));
        let (from, wanted, lives) = (Lsn::FIRST, Lsn::FIRST, Lineage::default());
        let body = FromRoom::Opened { storage, from, wanted, lives };
        self.hear(server, &FromServer::About { channel: Channel(channel), body });
    }

    /// The tokens that were sent to a server.
    pub fn tokens_sent(&self, to: &str) -> Vec<Option<String>> {
        let tokens = self.sent.iter().filter_map(|(server, message)| match message {
            ToServer::Hello { token, .. } if server == to => Some(token.clone()),
            _ => None,
        });
        tokens.collect()
    }

    /// Whether a connection to this server was asked for, or is there.
    pub fn is_connecting(&self, server: &str) -> bool {
        self.sockets.values().any(|url| url == server)
    }

    fn socket_of(&self, server: &str) -> SocketId {
        let found = self.sockets.iter().find(|(_, url)| *url == server);
        *found.expect("the core wanted a connection").0
    }

    /// What names the document that it is at work on.
    pub fn at_work(&self) -> AtWork {
        self.client.at_work()
    }

    /// How many documents it looks at, whatever happens next.
    pub fn awake_count(&self) -> usize {
        self.client.awake_count()
    }

    /// What is wrong with what it keeps.
    pub fn doubt(&self) -> Option<String> {
        self.client.doubt()
    }

    pub fn reply(&mut self, reply: StoreReply) {
        self.step(Input::FromPageServer { server: LENT, replies: vec![reply] });
    }

    /// Adds a todo, and gives the ticket of its append.
    pub fn add(&mut self, call: Call, id: &str) -> Ticket {
        self.add_to(HANDLE, call, id)
    }

    pub fn add_to(&mut self, handle: Handle, call: Call, id: &str) -> Ticket {
        self.ask(call, handle, adding(call, id));
        self.last_ticket()
    }

    pub fn last_ticket(&self) -> Ticket {
        let ticket = |request: &StoreRequest| match request {
            StoreRequest::Append { ticket, .. } => Some(*ticket),
            _ => None,
        };
        self.asked.iter().rev().find_map(ticket).expect("an append")
    }

    /// The first tab destroys a document, whatever is pending.
    pub fn destroy(&mut self, call: Call, document: &str) {
        let (document, user) = (Some(document.to_owned()), String::new());
        self.say(ToCore::Destroy { call, document, user, force: true, everywhere: false });
    }

    pub fn last_destroy(&self) -> Ticket {
        let ticket = |request: &StoreRequest| match request {
            StoreRequest::Destroy { ticket, .. } => Some(*ticket),
            _ => None,
        };
        self.asked.iter().rev().find_map(ticket).expect("a document is to be destroyed")
    }

    /// The page server's worker cannot open its files.
    pub fn lose_storage(&mut self) {
        let failure = PageServerFailure::new(UnservedKind::Unavailable, "none");
        self.step(Input::PageServerFailed { server: LENT, failure });
    }

    /// Another page server is lent, whose store is not the one that was written to.
    pub fn clear_storage(&mut self) {
        let (server, storage) = (LENT, Storage::Opfs);
        self.step(Input::PageServerLent { server, settled_at_ms: 0, storage });
        self.reply(StoreReply::Ready { epoch: Epoch(1) });
    }

    /// What a tab was told last to keep for the next core.
    pub fn memo(&self) -> Memo {
        let memo = self.told.iter().rev().find_map(|it| match it {
            FromCore::Opened { memo, .. } | FromCore::Status { memo, .. } => Some(*memo),
            _ => None,
        });
        memo.expect("a document was opened")
    }

    /// How a call failed, if it did.
    pub fn failure_of(&self, call: Call) -> Option<&CallFailure> {
        self.told.iter().find_map(|it| match it {
            FromCore::Failed { call: failed, failure } if *failed == call => Some(failure),
            _ => None,
        })
    }

    pub fn is_done(&self, call: Call) -> bool {
        self.told.iter().any(|it| matches!(it, FromCore::Done { call: done } if *done == call))
    }

    pub fn fail(&mut self, ticket: Ticket) {
        self.reply(StoreReply::AppendFailed { ticket, error: AppendError::Full });
    }

    pub fn opens(&self) -> usize {
        self.asked.iter().filter(|it| matches!(it, StoreRequest::Open { .. })).count()
    }

    pub fn has_failed(&self, call: Call) -> bool {
        self.failure_of(call).is_some()
    }
}

/// What adds a todo.
pub fn adding(call: Call, id: &str) -> Request {
    Request::Mutate(Mutate {
        id: call_id(call),
        name: "add".to_owned(),
        args: vec![("id".to_owned(), text(id)), ("title".to_owned(), text(id))],
        now_ms: 1_000,
        again: None,
    })
}

pub fn key(document: &str) -> DocumentKey {
    DocumentKey::new(document, "").expect("a good name")
}

pub fn again(call: Call, title: &str) -> Request {
    let again = Some(Again { durable: None, copy: None, since: [None; 2] });
    let args = ["id", "title"].map(|name| (name.to_owned(), text(title))).to_vec();
    let (id, name) = (call_id(call), "add".to_owned());
    Request::Mutate(Mutate { id, name, args, now_ms: 1_000, again })
}

pub fn is_durable(core: &Core, of: Call) -> bool {
    core.told.iter().any(|it| matches!(it, FromCore::Durable { call, .. } if *call == of))
}

/// The document as the store has it, with all that it was handed.
pub fn stored(core: &Core) -> OpenedDocument {
    stored_up_to(core, usize::MAX)
}

/// The same without what it was handed behind the first `count` entries.
pub fn stored_up_to(core: &Core, count: usize) -> OpenedDocument {
    let appends = core.asked.iter().filter_map(|request| match request {
        StoreRequest::Append { append, .. } => Some(append),
        _ => None,
    });
    let record = appends.clone().filter_map(|append| append.record.clone()).next_back();
    let last = appends.flat_map(|append| &append.storage).take(count).last();
    let last = last.expect("it is written to");
    OpenedDocument {
        record: record.expect("it has one").into_vec(),
        timeline: None,
        storage: Some(last.position),
        db_pages: last.set.db_pages,
        calls: Vec::new(),
        first_page: pages_up_to(core, count).remove(&Pgid(1)),
        is_incomplete: false,
    }
}

/// The newest pages that were handed to the store.
pub fn pages_of(core: &Core) -> BTreeMap<Pgid, Page> {
    pages_up_to(core, usize::MAX)
}

/// Those that were the newest with the first `count` entries.
pub fn pages_up_to(core: &Core, count: usize) -> BTreeMap<Pgid, Page> {
    let appends = core.asked.iter().filter_map(|request| match request {
        StoreRequest::Append { append, .. } => Some(append),
        _ => None,
    });
    let entries = appends.flat_map(|append| &append.storage).take(count);
    entries.flat_map(|entry| entry.set.pages.clone()).collect()
}

pub fn last_read(core: &Core) -> Option<(RequestId, Vec<Pgid>)> {
    core.asked.iter().rev().find_map(|request| match request {
        StoreRequest::Read { request, pgids, .. } => Some((*request, pgids.clone())),
        _ => None,
    })
}

/// The page server answers each read of `list` with these pages. Says how many there were.
pub fn answer_reads(core: &mut Core, pages: &BTreeMap<Pgid, Page>) -> usize {
    let mut count = 0;
    while let Some((request, pgids)) = last_read(core) {
        core.asked.retain(|it| !matches!(it, StoreRequest::Read { .. }));
        let pages = pgids.into_iter().map(|pgid| (pgid, pages[&pgid].clone())).collect();
        core.reply(StoreReply::Pages { request, document: key("list"), pages, last: true });
        count += 1;
    }
    count
}

/// A core with a live query of `list`, call 4, and a call that waits until that is in step, call 5.
/// An append of it has just failed, and the store is asked where it stands.
pub fn read_anew(mut core: Core) -> Core {
    let (sql, params) = ("select count(*) from todo".to_owned(), Params::NONE);
    core.ask(Call(4), HANDLE, Request::Watch(Query { sql, params }));
    core.ask(Call(5), HANDLE, Request::Sync);
    let ticket = core.add(Call(6), "milk");
    core.fail(ticket);
    assert!(core.has_failed(Call(6)));
    core
}
