//! A device around a client: the real page server on a disk that can be cut, tabs that only ask
//! and listen, a clock that is moved by hand.

pub mod core;
pub mod server;
mod todos;

use std::collections::{BTreeMap, VecDeque};

use tidelog_client::{
    Again, Call, CallFailure, Client, ClientSettings, Effect, FromCore, Handle, Input, Memo,
    Mutate, OpenRequest, PageServerId, Params, Query, Request, SocketId, Status, Storage, TabId,
    ToCore,
};
use tidelog_disk::{CrashDevice, CrashDisk, Disk, StoreFiles};
use tidelog_document::{Doctype, MutationDefinition, Param, ParamKind};
use tidelog_pages::{
    Append, OwnerId, PageServer, Seed, StoreOptions, StoreReply, StoreRequest, Ticket,
};
use tidelog_sync::{FromServer, ToServer, decode_message, encode_message};
use tidelog_types::limits::Limits;
use tidelog_types::{CallId, DocumentKey, EntryId, ErrorCode, Value};

pub use todos::{add, count, titled, todos};

pub const TAB: TabId = TabId(1);
pub const OTHER_TAB: TabId = TabId(2);
pub const HANDLE: Handle = Handle(1);
pub const SERVER: &str = "ws://server";
const CORE: OwnerId = OwnerId(1);

/// One device: the core, a page server and its disk.
pub struct Device {
    pub client: Client,
    pub disk: CrashDevice,
    page_server: Option<(PageServerId, PageServer<CrashDisk>)>,
    page_servers: u32,
    pub now_ms: u64,
    wake_at_ms: Option<u64>,
    inputs: VecDeque<Input>,
    /// What tabs were told, oldest first.
    pub told: Vec<(TabId, FromCore)>,
    /// What the page server was asked, oldest first.
    pub asked: Vec<StoreRequest>,
    /// Whether a server answers at all.
    pub server_is_up: bool,
    /// Whether tabs say that they have heard what they were told.
    pub tabs_hear: bool,
    pub socket: Option<SocketId>,
    /// What was sent and nobody has taken.
    pub sent: Vec<ToServer>,
    /// Whether replies of the page server wait until they are
    /// [let through](Self::let_reply_through).
    pub holds_replies: bool,
    held_replies: VecDeque<Input>,
    /// The most pages that the core had in memory between two steps.
    pub pool_pages_most: usize,
    /// Appends that the page server still carries out; then it takes nothing more.
    pub appends_left: usize,
    calls: u32,
    /// What tabs have issued, and as what they were told it is durable, and in which copy that can
    /// be: they outlive their cores.
    issued: BTreeMap<Call, ToCore>,
    durable: BTreeMap<Call, EntryId>,
    memos: BTreeMap<Call, Memo>,
    /// The size at which the next page server changes its log over.
    pub log_size_max: u64,
    settings: ClientSettings,
    /// Which device it is, for a server.
    pub number: usize,
    seed: u8,
}

impl Device {
    pub fn new(seed: u8) -> Self {
        Self::with_pool(seed, Limits::DEFAULT.pool_pages_max)
    }

    /// A device whose client keeps few pages in memory.
    pub fn with_pool(seed: u8, pool_pages_max: usize) -> Self {
        Self::with_limits(seed, Limits { pool_pages_max, ..Limits::DEFAULT })
    }

    pub fn with_limits(seed: u8, limits: Limits) -> Self {
        let settings = ClientSettings { limits, ..ClientSettings::default() };
        let mut device = Self {
            client: Client::with_settings([seed; 32], settings),
            disk: CrashDevice::new(),
            page_server: None,
            page_servers: 0,
            now_ms: 1_000_000,
            wake_at_ms: None,
            inputs: VecDeque::new(),
            told: Vec::new(),
            asked: Vec::new(),
            server_is_up: false,
            tabs_hear: true,
            socket: None,
            sent: Vec::new(),
            holds_replies: false,
            held_replies: VecDeque::new(),
            pool_pages_most: 0,
            appends_left: usize::MAX,
            calls: 0,
            issued: BTreeMap::new(),
            durable: BTreeMap::new(),
            memos: BTreeMap::new(),
            log_size_max: StoreOptions::default().log_size_max,
            settings,
            number: usize::from(seed),
            seed,
        };
        device.lend();
        device
    }

    // --- hosts ---------------------------------------------------------------------------------

    /// A tab lends a page server, on what is on the disk.
    pub fn lend(&mut self) {
        self.lend_in(Storage::Opfs, 0);
    }

    /// The same in this kind of storage, which a power cut can take until then.
    pub fn lend_in(&mut self, storage: Storage, settled_at_ms: u64) {
        let files = StoreFiles::open_each(|name| Ok::<_, ()>(self.disk.file(name)));
        let (files, seed) = (files.expect("no errors"), Seed(self.disk.seed()));
        let (limits, log_size_max) = (self.settings.limits, self.log_size_max);
        let options = StoreOptions { limits, log_size_max, ..StoreOptions::default() };
        let (server, _) = PageServer::open_with(files, seed, options).expect("it opens");
        self.page_servers += 1;
        let id = PageServerId(self.page_servers);
        self.page_server = Some((id, server));
        self.step(Input::PageServerLent { server: id, settled_at_ms, storage });
    }

    /// The page server's worker is gone. What it wrote stays, flushed or not.
    pub fn lose_page_server(&mut self) {
        let (server, _) = self.page_server.take().expect("there is one");
        self.disk = self.disk.kill();
        self.step(Input::PageServerGone { server });
    }

    /// The core dies, with the page server; a new one starts on the same disk.
    pub fn kill_core(&mut self) {
        self.page_server = None;
        self.disk = self.disk.kill();
        self.start_core();
    }

    /// The core dies, and the next one finds no room.
    pub fn kill_core_on_a_full_disk(&mut self) {
        self.page_server = None;
        self.disk = self.disk.kill();
        self.fill_disk();
        self.start_core();
    }

    /// The power goes, and comes back: of what was not flushed nothing is left.
    pub fn cut_power(&mut self) {
        self.page_server = None;
        self.disk = self.disk.crash(&mut |_| 0);
        self.start_core();
    }

    /// Another device with a copy of this one's profile.
    pub fn clone_profile(&self, seed: u8) -> Self {
        let mut clone = Self::new(seed);
        clone.restore_profile(&self.disk);
        clone
    }

    /// The profile is put back to what it was.
    pub fn restore_profile(&mut self, disk: &CrashDevice) {
        self.page_server = None;
        self.disk = disk.kill();
        self.start_core();
    }

    fn start_core(&mut self) {
        self.seed = self.seed.wrapping_add(50);
        self.client = Client::with_settings([self.seed; 32], self.settings);
        self.inputs.clear();
        self.told.clear();
        self.asked.clear();
        self.sent.clear();
        self.appends_left = usize::MAX;
        self.socket = None;
        self.wake_at_ms = None;
        self.lend();
    }

    /// The data of the site are cleared, and the core dies.
    pub fn clear_site(&mut self) {
        self.page_server = None;
        self.disk = CrashDevice::new();
        self.start_core();
    }

    /// The flushes that were held back are complete.
    pub fn flushed(&mut self) {
        self.disk.complete_flushes();
        self.poll();
        self.run();
    }

    /// From now on nothing more fits on the disk.
    pub fn fill_disk(&self) {
        self.disk.set_full(true);
    }

    /// Whether these bytes lie anywhere on the disk.
    pub fn has_on_disk(&self, text: &[u8]) -> bool {
        let files = StoreFiles::<()>::NAMES.into_iter().filter_map(|it| self.disk.bytes_of(it));
        files.into_iter().any(|bytes| bytes.windows(text.len()).any(|it| it == text))
    }

    /// Each place on the disk where these bytes lie rots.
    pub fn rot(&self, text: &[u8]) {
        for file in ["log-a", "log-b", "pages"] {
            let bytes = self.disk.bytes_of(file).expect("a file");
            for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(text)) {
                self.disk.file(file).write_at(at as u64, b"?").expect("room");
            }
        }
    }

    /// Lets time pass, waking the core whenever it wants.
    pub fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some(at) = self.wake_at_ms.filter(|at| *at <= until) {
            self.now_ms = self.now_ms.max(at);
            self.wake_at_ms = None;
            self.step(Input::Wake);
        }
        self.now_ms = until;
        self.step(Input::Wake);
    }

    /// Lets time pass, in which the core is woken when it wants to be, and not otherwise.
    pub fn pass_awake(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some(at_ms) = self.wake_at_ms.filter(|at_ms| *at_ms <= until) {
            self.now_ms = self.now_ms.max(at_ms);
            self.wake_at_ms = None;
            self.step(Input::Wake);
        }
        self.now_ms = until;
    }

    pub fn step(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.run();
    }

    fn run(&mut self) {
        loop {
            let input = match self.inputs.pop_front() {
                Some(input) => input,
                None if self.wake_at_ms.is_some_and(|at| at <= self.now_ms) => {
                    self.wake_at_ms = None;
                    Input::Wake
                }
                None => break,
            };
            for effect in self.client.step(self.now_ms, input) {
                self.carry_out(effect);
            }
            self.pool_pages_most = self.pool_pages_most.max(self.client.pool_pages());
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::ToTab { tab, messages } => {
                if self.tabs_hear {
                    let messages = vec![ToCore::Heard { lists: 1 }];
                    self.inputs.push_back(Input::FromTab { tab, messages });
                }
                for message in messages {
                    if let FromCore::Durable { call, entry } = &message {
                        self.durable.insert(*call, *entry);
                    }
                    self.told.push((tab, message));
                }
            }
            Effect::ToPageServer { server, requests, .. } => {
                self.asked.extend(requests.iter().cloned());
                let Some((id, page_server)) = &mut self.page_server else { return };
                if *id == server {
                    for request in requests {
                        if matches!(request, StoreRequest::Append { .. }) {
                            let Some(left) = self.appends_left.checked_sub(1) else { break };
                            self.appends_left = left;
                        }
                        page_server.serve(CORE, request);
                    }
                    page_server.set_time(self.now_ms);
                    page_server.flush();
                    self.poll();
                }
            }
            Effect::OpenSocket { socket, .. } => {
                self.socket = Some(socket);
                self.sent.clear();
                self.inputs.push_back(match self.server_is_up {
                    true => Input::SocketOpened { socket },
                    false => Input::SocketClosed { socket },
                });
            }
            Effect::ToServer { bytes, .. } => {
                self.sent.push(decode_message(&bytes).expect("a message of ours"));
            }
            Effect::CloseSocket { socket } => {
                // What was sent before that arrives.
                self.socket = self.socket.filter(|current| *current != socket);
            }
            Effect::WakeAt { at_ms } => self.wake_at_ms = Some(at_ms),
        }
    }

    fn poll(&mut self) {
        let Some((id, page_server)) = &mut self.page_server else { return };
        let mut replies: Vec<StoreReply> = Vec::new();
        loop {
            replies.extend(page_server.poll().into_iter().map(|(_, reply)| reply));
            if !page_server.wants_poll() {
                break;
            }
        }
        if !replies.is_empty() {
            let input = Input::FromPageServer { server: *id, replies };
            match self.holds_replies {
                true => self.held_replies.push_back(input),
                false => self.inputs.push_back(input),
            }
        }
    }

    /// Gives the core the oldest replies that are held. Answers whether there were any.
    pub fn let_reply_through(&mut self) -> bool {
        let reply = self.held_replies.pop_front();
        let had_one = reply.is_some();
        self.inputs.extend(reply);
        self.run();
        had_one
    }

    /// Writes something that this client never would.
    pub fn append_past_the_core(&mut self, append: Append) {
        let (_, page_server) = self.page_server.as_mut().expect("there is one");
        page_server.serve(CORE, StoreRequest::Append { ticket: Ticket(1 << 40), append });
        page_server.flush();
        page_server.poll();
    }

    /// Asks the page server for as much as it takes in, and does not wait for the answers.
    pub fn crowd_page_server(&mut self, ask: impl Fn(DocumentKey, u64) -> StoreRequest) {
        let (_, page_server) = self.page_server.as_mut().expect("there is one");
        let document = DocumentKey::new("list", "").expect("a good name");
        for request in 0..self.settings.limits.owner_reads_max as u64 {
            page_server.serve(CORE, ask(document.clone(), u64::MAX - request));
        }
    }

    // --- the server's side of the socket ---------------------------------------------------------

    pub fn hear_server(&mut self, message: &FromServer) {
        let socket = self.socket.expect("connected");
        self.step(Input::FromServer { socket, bytes: encode_message(message) });
    }

    pub fn lose_socket(&mut self) {
        let socket = self.socket.take().expect("connected");
        self.sent.clear();
        self.step(Input::SocketClosed { socket });
    }

    pub fn take_sent(&mut self) -> Vec<ToServer> {
        std::mem::take(&mut self.sent)
    }

    // --- tabs ----------------------------------------------------------------------------------

    pub fn next_call(&mut self) -> Call {
        self.calls += 1;
        Call(self.calls)
    }

    pub fn ask(&mut self, tab: TabId, messages: Vec<ToCore>) {
        self.step(Input::FromTab { tab, messages });
    }

    pub fn start_open(&mut self, tab: TabId, server: Option<&str>, doctype: &Doctype) -> Call {
        let (call, open) = self.open_message(server, doctype);
        self.ask(tab, vec![open]);
        call
    }

    pub fn open_message(&mut self, server: Option<&str>, doctype: &Doctype) -> (Call, ToCore) {
        let call = self.next_call();
        let open = ToCore::Ask {
            call,
            handle: HANDLE,
            request: Request::Open(Box::new(OpenRequest {
                document: "list".to_owned(),
                user: String::new(),
                server: server.map(str::to_owned),
                doctype: doctype.clone(),
                has_token: false,
                word: 0,
            })),
        };
        (call, open)
    }

    /// Opens a local document in the first tab.
    pub fn open(&mut self, doctype: &Doctype) -> Status {
        let call = self.start_open(TAB, None, doctype);
        self.opened(call)
    }

    #[track_caller]
    pub fn opened(&self, call: Call) -> Status {
        match self.answer(call) {
            FromCore::Opened { status, .. } => status.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub fn mutation(&mut self, name: &str, args: &[(&str, Value)]) -> (Call, ToCore) {
        let call = self.next_call();
        let args = args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let (id, name) = (call_id(call), name.to_owned());
        let message = ToCore::Ask {
            call,
            handle: HANDLE,
            request: Request::Mutate(Mutate { id, name, args, now_ms: self.now_ms, again: None }),
        };
        self.issued.insert(call, message.clone());
        self.memos.insert(call, self.memo());
        (call, message)
    }

    pub fn mutate(&mut self, name: &str, args: &[(&str, Value)]) -> Call {
        let (call, message) = self.mutation(name, args);
        self.ask(TAB, vec![message]);
        call
    }

    /// The same, as its tab asks it of the next core.
    pub fn again(&self, call: Call) -> ToCore {
        let mut message = self.issued[&call].clone();
        if let ToCore::Ask { request: Request::Mutate(mutate), .. } = &mut message {
            let durable = self.durable.get(&call).copied();
            let Memo { copy, head, .. } = self.memos[&call];
            let earlier = self.durable.range(..call).next_back().map(|(_, entry)| *entry);
            mutate.again = Some(Again { durable, copy, since: [head, earlier] });
        }
        message
    }

    /// What was said of these reached no tab.
    pub fn never_told(&mut self, calls: &[Call]) {
        self.durable.retain(|call, _| !calls.contains(call));
    }

    /// Tabs ask the core for these, which an earlier one was handed.
    pub fn ask_again(&mut self, calls: &[Call]) {
        let messages = calls.iter().map(|call| self.again(*call)).collect();
        self.ask(TAB, messages);
    }

    pub fn query_message(&mut self, sql: &str) -> (Call, ToCore) {
        let call = self.next_call();
        let (sql, params) = (sql.to_owned(), Params::NONE);
        (call, ToCore::Ask { call, handle: HANDLE, request: Request::Query(Query { sql, params }) })
    }

    /// A tab asks a query, which may wait for something.
    pub fn start_query(&mut self, tab: TabId, sql: &str) -> Call {
        let (call, message) = self.query_message(sql);
        self.ask(tab, vec![message]);
        call
    }

    pub fn try_query(&mut self, sql: &str) -> Result<Vec<Vec<Value>>, CallFailure> {
        let call = self.start_query(TAB, sql);
        match self.answer(call) {
            FromCore::Rows { rows, .. } => Ok(rows.decode()),
            FromCore::Failed { failure, .. } => Err(failure.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Vec<Vec<Value>> {
        self.try_query(sql).unwrap_or_else(|failure| panic!("{sql}: {failure:?}"))
    }

    /// A live query of the first tab.
    pub fn watch(&mut self, sql: &str) -> Call {
        self.watch_in(TAB, sql)
    }

    pub fn watch_in(&mut self, tab: TabId, sql: &str) -> Call {
        let (call, handle, sql) = (self.next_call(), HANDLE, sql.to_owned());
        let request = Request::Watch(Query { sql, params: Params::NONE });
        self.ask(tab, vec![ToCore::Ask { call, handle, request }]);
        call
    }

    /// The document as a file, as the first tab exports it.
    #[track_caller]
    pub fn image(&mut self) -> Vec<u8> {
        let (call, handle, request) = (self.next_call(), HANDLE, Request::Export);
        self.ask(TAB, vec![ToCore::Ask { call, handle, request }]);
        match self.answer(call) {
            FromCore::Exported { file, .. } => file.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub fn destroy(&mut self, force: bool) -> Call {
        let call = self.next_call();
        let (document, user) = (Some("list".to_owned()), String::new());
        self.ask(TAB, vec![ToCore::Destroy { call, document, user, force, everywhere: false }]);
        call
    }

    /// Also where tabs have it open, which are told to close it.
    pub fn destroy_everywhere(&mut self) -> Call {
        let call = self.next_call();
        let (document, user) = (Some("list".to_owned()), String::new());
        let destroy = ToCore::Destroy { call, document, user, force: false, everywhere: true };
        self.ask(TAB, vec![destroy]);
        call
    }

    /// A tab waits for it no longer.
    pub fn give_up(&mut self, call: Call) {
        self.ask(TAB, vec![ToCore::GiveUp { call }]);
    }

    pub fn close(&mut self, tab: TabId) {
        let call = self.next_call();
        self.ask(tab, vec![ToCore::Ask { call, handle: HANDLE, request: Request::Close }]);
    }

    pub fn sync(&mut self) -> Call {
        let call = self.next_call();
        self.ask(TAB, vec![ToCore::Ask { call, handle: HANDLE, request: Request::Sync }]);
        call
    }

    // --- what tabs were told ---

    /// Everything that was said of a call.
    pub fn answers(&self, call: Call) -> Vec<&FromCore> {
        // That it is being handed over is no answer yet.
        let is_its = |message: &&FromCore| {
            message.call() == Some(call) && !matches!(message, FromCore::HandingOver { .. })
        };
        let told = self.told.iter().map(|(_, message)| message);
        told.filter(is_its).collect()
    }

    /// The one answer to a call.
    #[track_caller]
    pub fn answer(&self, call: Call) -> &FromCore {
        match self.answers(call).as_slice() {
            [answer] => answer,
            other => panic!("{call:?} has {other:?}"),
        }
    }

    #[track_caller]
    pub fn failure(&self, call: Call) -> &CallFailure {
        match self.answer(call) {
            FromCore::Failed { failure, .. } => failure,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn code(&self, call: Call) -> ErrorCode {
        self.failure(call).code
    }

    /// The rows of each answer to a query or a live query.
    pub fn rows_told(&self, call: Call) -> Vec<Vec<Vec<Value>>> {
        let rows = self.answers(call).into_iter().filter_map(|answer| match answer {
            FromCore::Rows { rows, .. } => Some(rows.decode()),
            _ => None,
        });
        rows.collect()
    }

    /// What became of a mutation, in a few words.
    pub fn fate(&self, call: Call) -> String {
        let words = self.answers(call).into_iter().map(|answer| match answer {
            FromCore::Durable { entry, .. } => format!("durable {}", entry.lsn),
            FromCore::Confirmed { lsn, .. } => format!("confirmed {lsn}"),
            FromCore::Rejected { failure, .. } => {
                format!("rejected: {}", failure.reason.as_deref().unwrap_or_default())
            }
            FromCore::Failed { failure, .. } => format!("failed: {:?}", failure.code),
            other => format!("{other:?}"),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// Whether the core says that it can keep nothing more.
    pub fn is_lost(&self) -> bool {
        self.client.is_lost()
    }

    /// What the first tab keeps for the next core.
    pub fn memo(&self) -> Memo {
        let memo = self.told.iter().rev().find_map(|(tab, message)| match message {
            FromCore::Status { memo, .. } | FromCore::Opened { memo, .. } if *tab == TAB => {
                Some(*memo)
            }
            _ => None,
        });
        memo.unwrap_or_default()
    }

    /// The last status that the first tab was told.
    #[track_caller]
    pub fn status(&self) -> &Status {
        let status = self.told.iter().rev().find_map(|(tab, message)| match message {
            FromCore::Status { status, .. } | FromCore::Opened { status, .. } if *tab == TAB => {
                Some(status)
            }
            _ => None,
        });
        status.expect("no status was told")
    }

    /// The positions in the status, in one line. What is mere numbers may be told a little later.
    pub fn positions(&mut self) -> String {
        self.pass(50);
        let status = self.status();
        let ([start, acked, durable, head], [kept, visible]) =
            (status.timeline, status.storage_lsns);
        format!(
            "timeline {start}..{head} durable {durable} acked {acked} | storage durable {kept} \
             visible {visible} | pending {}",
            status.pending
        )
    }

    /// LSNs of the rejections that a tab was told of.
    pub fn rejections(&self, told: TabId) -> Vec<u64> {
        let news = self.told.iter().filter(|(tab, _)| *tab == told);
        let lsn = |message: &FromCore| match message {
            FromCore::RejectionNews { lsn, .. } => Some(*lsn),
            _ => None,
        };
        news.filter_map(|(_, message)| lsn(message)).collect()
    }

    /// How many pages the page server was asked for, in how many requests.
    pub fn reads(&self) -> (usize, usize) {
        let count = |request: &StoreRequest| match request {
            StoreRequest::Read { pgids, .. } => Some(pgids.len()),
            _ => None,
        };
        let counts: Vec<usize> = self.asked.iter().filter_map(count).collect();
        (counts.len(), counts.iter().sum())
    }

    pub fn appends(&self) -> usize {
        self.asked.iter().filter(|request| matches!(request, StoreRequest::Append { .. })).count()
    }
}

pub fn call_id(call: Call) -> CallId {
    let mut bytes = [7; 16];
    bytes[8..].copy_from_slice(&u64::from(call.0).to_be_bytes());
    CallId(bytes)
}

pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub fn integer(number: i64) -> Value {
    Value::Integer(number)
}

pub fn define(name: &str, params: &[(&str, ParamKind)], sql: &[&str]) -> MutationDefinition {
    MutationDefinition {
        name: name.to_owned(),
        params: params
            .iter()
            .map(|(name, kind)| Param { name: (*name).to_owned(), kind: *kind, optional: false })
            .collect(),
        sql: sql.iter().map(ToString::to_string).collect(),
    }
}

/// A kind of document whose rows take 2 KiB each.
pub fn shelves() -> Doctype {
    let fill = "insert into book with recursive c(n) as
                (select 1 union all select n + 1 from c where n < :count)
                select :from + n, hex(zeroblob(950)) || (:from + n) from c";
    let params = [("from", ParamKind::Integer), ("count", ParamKind::Integer)];
    Doctype {
        name: "shelves".to_owned(),
        migrations: vec!["create table book (id integer primary key, text text) strict".to_owned()],
        mutations: vec![define("fill", &params, &[fill])],
        streams: Vec::new(),
        workflows: Vec::new(),
    }
}

/// Opens a document with so many rows of 2 KiB.
pub fn fill_shelves(device: &mut Device, count: u32) {
    device.open(&shelves());
    for from in (0..count).step_by(2_100) {
        let part = i64::from((count - from).min(2_100));
        let args = [("from", integer(i64::from(from))), ("count", integer(part))];
        let filled = device.mutate("fill", &args);
        assert!(device.fate(filled).contains("confirmed"), "{}", device.fate(filled));
    }
}
