//! The thread of an engine: the core and the page server, and what they have to say to each other.
//!
//! It decides nothing. What happens goes into the core, and what that wants done is done.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidelog_client::{
    Call, CallFailure, Client, ClientSettings, Effect, FromCore, Handle, Input, PageServerId,
    Request, SocketId, Stopwatch, TabId, TimeLeft, ToCore,
};
use tidelog_pages::StoreRequest;
use tidelog_types::limits::QUERY_MS_MAX;
use tidelog_types::{ErrorCode, Outcome};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Bytes;
use tracing::error;

use super::page_server::{InUse, Keep, Store};
use super::{Listener, Mail, Mailbox};
use crate::error::is_passing;
use crate::socket;

/// All of a process are one tab.
const TAB: TabId = TabId(1);

/// Before something that failed for now is asked again, at first and at most.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(8);

/// After which time a store that nobody asks anything gives back the pages that it keeps.
const QUIET_STORE_RESTS: Duration = Duration::from_secs(10);

/// Ends queries that take too long, one at a time in each thread.
#[derive(Debug)]
struct QueryTime {
    /// When the process began to look at the time.
    origin: std::sync::LazyLock<Instant>,
}

thread_local! {
    /// When the query of this thread began, in milliseconds behind the origin.
    static QUERY_BEGAN_MS: AtomicU64 = const { AtomicU64::new(0) };
}

static QUERY_TIME: QueryTime = QueryTime { origin: std::sync::LazyLock::new(Instant::now) };

impl QueryTime {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Stopwatch for QueryTime {
    fn start(&self) {
        let now_ms = self.now_ms();
        QUERY_BEGAN_MS.with(|began| began.store(now_ms, Ordering::Relaxed));
    }

    fn time_left(&self) -> TimeLeft {
        let began_ms = QUERY_BEGAN_MS.with(|began| began.load(Ordering::Relaxed));
        match self.now_ms().saturating_sub(began_ms) > QUERY_MS_MAX {
            true => TimeLeft::NoneEver,
            false => TimeLeft::Enough,
        }
    }
}

/// Milliseconds since the epoch.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A clock that never goes back, from the time of day at its beginning on.
struct Clock {
    began: Instant,
    began_ms: u64,
}

impl Clock {
    fn now_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.began_ms.saturating_add(elapsed)
    }

    /// How long it is until then.
    fn until(&self, at_ms: u64) -> Duration {
        Duration::from_millis(at_ms.saturating_sub(self.now_ms()))
    }
}

/// Something that the core was asked.
struct Asked {
    listener: Listener,
    /// Of which document.
    handle: Option<Handle>,
    kind: Kind,
}

/// What it is about.
enum Kind {
    /// A mutation, and whether it is on the disk.
    Mutation { is_durable: bool },
    /// What goes on until it is given up. Where it fails for now it is asked again, and when.
    Standing { request: Box<Request>, pause: Duration, again_at: Option<Instant> },
    /// Anything else.
    Once,
}

/// A document that is let go of.
#[derive(Default)]
struct Closing {
    /// Who wants to know.
    waiting: Vec<oneshot::Sender<()>>,
    /// Whether the core has let go of it.
    is_let_go: bool,
}

/// The core, the page server, and everybody who waits for them.
pub(super) struct Thread {
    clock: Clock,
    client: Client,
    store: Store,
    inbox: Receiver<Mail>,
    mailbox: Mailbox,
    runtime: tokio::runtime::Handle,
    calls: HashMap<Call, Asked>,
    documents: HashMap<Handle, Listener>,
    /// Documents that are let go of, and by which calls the core is asked for that.
    closing: HashMap<Handle, Closing>,
    closing_calls: HashMap<Call, Handle>,
    sockets: HashMap<SocketId, UnboundedSender<Bytes>>,
    wake_at_ms: Option<u64>,
    /// What has happened, and the core was not told yet.
    inputs: VecDeque<Input>,
    /// What the core asks of the page server.
    requests: Vec<(PageServerId, StoreRequest)>,
    /// Lists of messages that were heard here, and the core does not know of.
    heard: u32,
    /// When somebody has asked last, and whether the store was told since that nobody does.
    asked_at: Instant,
    is_at_rest: bool,
}

impl Thread {
    /// Runs until it is told to end, or nobody is left who could. Whether the store's files could
    /// be had `started` is told at once.
    pub(super) fn run(
        keep: Keep,
        seed: [u8; 32],
        inbox: Receiver<Mail>,
        mailbox: Mailbox,
        runtime: tokio::runtime::Handle,
        started: Sender<bool>,
    ) {
        let (store, lent) = match Store::open(keep) {
            Ok(opened) => opened,
            Err(InUse) => {
                // Whoever started it waits for that.
                let _ = started.send(false);
                return;
            }
        };
        let _ = started.send(true);
        let query_stopwatch: Option<&'static dyn Stopwatch> = Some(&QUERY_TIME);
        let settings = ClientSettings { query_stopwatch, ..ClientSettings::default() };
        let thread = Self {
            clock: Clock { began: Instant::now(), began_ms: wall_ms() },
            client: Client::with_settings(seed, settings),
            store,
            inbox,
            mailbox,
            runtime,
            calls: HashMap::new(),
            documents: HashMap::new(),
            closing: HashMap::new(),
            closing_calls: HashMap::new(),
            sockets: HashMap::new(),
            wake_at_ms: None,
            inputs: VecDeque::from([lent]),
            requests: Vec::new(),
            heard: 0,
            asked_at: Instant::now(),
            is_at_rest: false,
        };
        // Nothing of what it left behind is looked at again: listeners go, and who waits sees that.
        if catch_unwind(AssertUnwindSafe(|| thread.work())).is_err() {
            error!("the engine broke a promise, and has ended");
        }
    }

    fn work(mut self) {
        let ended = loop {
            self.step_all();
            if let Some(mail) = self.next_mail() {
                (self.asked_at, self.is_at_rest) = (Instant::now(), false);
                let mut mail = Some(mail);
                let mut ended = None;
                // All that waits goes down together.
                while let Some(next) = mail.take() {
                    ended = self.take(next);
                    if ended.is_some() {
                        break;
                    }
                    mail = self.inbox.try_recv().ok();
                }
                if let Some(ended) = ended {
                    break ended;
                }
            }
        };
        self.step_all();
        self.calls.clear();
        self.documents.clear();
        self.closing.clear();
        self.sockets.clear();
        self.store.close();
        // Who wants to know may have gone.
        let _ = ended.send(());
    }

    /// Has the core and the page server do what they can do now.
    fn step_all(&mut self) {
        loop {
            self.inputs.extend(self.store.wake());
            while let Some(input) = self.inputs.pop_front() {
                self.step(input);
            }
            if self.heard > 0 {
                let messages = vec![ToCore::Heard { lists: std::mem::take(&mut self.heard) }];
                self.step(Input::FromTab { tab: TAB, messages });
            }
            self.store.serve(std::mem::take(&mut self.requests));
            self.inputs.extend(self.store.proceed());
            self.ask_again();
            self.let_go();
            if self.inputs.is_empty() && self.heard == 0 && self.requests.is_empty() {
                return;
            }
        }
    }

    /// What was sent, or nothing where it is time to do something without that.
    fn next_mail(&mut self) -> Option<Mail> {
        if self.wake_at_ms.is_some_and(|at_ms| at_ms <= self.clock.now_ms()) {
            self.wake_at_ms = None;
            self.inputs.push_back(Input::Wake);
        }
        if self.store.is_at_work() || !self.inputs.is_empty() {
            return self.inbox.try_recv().ok();
        }
        let wake_in = self.wake_at_ms.map(|at_ms| self.clock.until(at_ms));
        let again_at = self.calls.values().filter_map(Asked::again_at);
        let due_at = again_at.chain(self.store.due_at()).min();
        let due_in = due_at.map(|at| at.saturating_duration_since(Instant::now()));
        let rest_in = QUIET_STORE_RESTS.saturating_sub(self.asked_at.elapsed());
        let rest_in = if self.is_at_rest { Duration::MAX } else { rest_in };
        let waits = [wake_in, due_in].into_iter().flatten().fold(rest_in, Duration::min);
        match self.inbox.recv_timeout(waits) {
            Ok(mail) => Some(mail),
            // Nobody is left who could ask for anything.
            Err(RecvTimeoutError::Disconnected) => Some(Mail::End(oneshot::channel().0)),
            Err(RecvTimeoutError::Timeout) => {
                // Its own wake-ups are no reason to wait longer.
                if !self.is_at_rest && self.asked_at.elapsed() >= QUIET_STORE_RESTS {
                    self.is_at_rest = true;
                    self.store.rest();
                }
                None
            }
        }
    }

    /// What goes on until it is given up, and failed for a while.
    fn ask_again(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        for (call, asked) in &mut self.calls {
            if let (Some(handle), Kind::Standing { request, again_at, .. }) =
                (asked.handle, &mut asked.kind)
                && again_at.is_some_and(|at| at <= now)
            {
                *again_at = None;
                let request = Request::clone(request);
                due.push(ToCore::Ask { call: *call, handle, request });
            }
        }
        due.into_iter().for_each(|message| self.tell(message));
    }

    /// Ends what the core has let go of, once all mutations of it are on the disk.
    fn let_go(&mut self) {
        let is_written = |handle: Handle| {
            let waits = |asked: &Asked| {
                let is_mutation = matches!(asked.kind, Kind::Mutation { is_durable: false });
                asked.handle == Some(handle) && is_mutation
            };
            !self.calls.values().any(waits)
        };
        let done = self.closing.iter().filter(|(handle, it)| it.is_let_go && is_written(**handle));
        let done: Vec<Handle> = done.map(|(handle, _)| *handle).collect();
        for handle in done {
            self.documents.remove(&handle);
            let of = |asked: &Asked| asked.handle == Some(handle);
            let left: Vec<Call> =
                self.calls.iter().filter(|(_, it)| of(it)).map(|(call, _)| *call).collect();
            for call in left {
                if let Some(mut asked) = self.calls.remove(&call) {
                    let failure = asked.closed();
                    let _ = (asked.listener)(FromCore::Failed { call, failure });
                }
            }
            let waiting = self.closing.remove(&handle).map(|it| it.waiting).unwrap_or_default();
            for waiting in waiting {
                // Who wants to know may have gone.
                let _ = waiting.send(());
            }
        }
    }

    /// Takes what was sent. Says who is to be told, if it is the end.
    fn take(&mut self, mail: Mail) -> Option<oneshot::Sender<()>> {
        match mail {
            Mail::Call { call, message, listener } => {
                self.calls.insert(call, Asked::new(listener, &message));
                self.tell(message);
            }
            Mail::Attach { handle, listener } => {
                self.documents.insert(handle, listener);
            }
            Mail::Close { handle, closed } => self.close(handle, closed),
            Mail::GiveUp { call } => {
                self.calls.remove(&call);
                // Also of one that nobody hears any more: the core goes on until it is told.
                self.tell(ToCore::GiveUp { call });
            }
            Mail::Tell(message) => self.tell(message),
            Mail::SocketOpened(socket) if self.sockets.contains_key(&socket) => {
                self.inputs.push_back(Input::SocketOpened { socket });
            }
            Mail::FromServer(socket, bytes) if self.sockets.contains_key(&socket) => {
                self.inputs.push_back(Input::FromServer { socket, bytes: bytes.into() });
            }
            Mail::SocketClosed(socket) => {
                if self.sockets.remove(&socket).is_some() {
                    self.inputs.push_back(Input::SocketClosed { socket });
                }
            }
            // Of a socket that the core has closed.
            Mail::SocketOpened(_) | Mail::FromServer(..) => {}
            Mail::End(ended) => return Some(ended),
        }
        None
    }

    fn close(&mut self, handle: Handle, closed: oneshot::Sender<()>) {
        // Of one that is closed there is nobody to tell.
        if !self.documents.contains_key(&handle) {
            return;
        }
        let is_first = !self.closing.contains_key(&handle);
        self.closing.entry(handle).or_default().waiting.push(closed);
        if is_first {
            let call = self.mailbox.new_call();
            self.closing_calls.insert(call, handle);
            self.tell(ToCore::Ask { call, handle, request: Request::Close });
        }
    }

    /// What is said before the core is asked next goes in together.
    fn tell(&mut self, message: ToCore) {
        match self.inputs.back_mut() {
            Some(Input::FromTab { messages, .. }) => messages.push(message),
            _ => self.inputs.push_back(Input::FromTab { tab: TAB, messages: vec![message] }),
        }
    }

    fn step(&mut self, input: Input) {
        let mut heard = Vec::new();
        for effect in self.client.step(self.clock.now_ms(), input) {
            match effect {
                Effect::ToTab { messages, .. } => {
                    self.heard += 1;
                    heard.extend(messages);
                }
                // No tab was said to be reached by the page server itself, so there are no notices.
                Effect::ToPageServer { server, requests, .. } => {
                    self.requests.extend(requests.into_iter().map(|request| (server, request)));
                }
                Effect::OpenSocket { socket, url } => {
                    let (sender, outgoing) = unbounded_channel();
                    self.sockets.insert(socket, sender);
                    let carried = socket::carry(socket, url, outgoing, self.mailbox.clone());
                    self.runtime.spawn(carried);
                }
                Effect::ToServer { socket, bytes } => {
                    if let Some(sender) = self.sockets.get(&socket) {
                        // One that is closed says so by itself.
                        let _ = sender.send(bytes.into());
                    }
                }
                Effect::CloseSocket { socket } => {
                    self.sockets.remove(&socket);
                }
                Effect::WakeAt { at_ms } => self.wake_at_ms = Some(at_ms),
            }
        }
        self.hear(heard);
    }

    /// Passes on what the core says: how documents stand first, so that whoever is answered finds
    /// them so.
    fn hear(&mut self, messages: Vec<FromCore>) {
        let mut answers = Vec::new();
        for message in messages {
            let handle = match &message {
                FromCore::Status { handle, .. }
                | FromCore::RejectionNews { handle, .. }
                | FromCore::TokenWanted { handle, .. }
                | FromCore::CloseWanted { handle }
                | FromCore::Presence { handle, .. } => *handle,
                _ => {
                    answers.push(message);
                    continue;
                }
            };
            if let Some(listen) = self.documents.get_mut(&handle) {
                let _ = listen(message);
            }
        }
        for message in answers {
            let Some(call) = message.call() else { continue };
            if let Some(handle) = self.closing_calls.remove(&call)
                && let Some(closing) = self.closing.get_mut(&handle)
            {
                closing.is_let_go = true;
            }
            let Some(asked) = self.calls.get_mut(&call) else { continue };
            asked.note(&message);
            if (asked.listener)(message).is_break() {
                self.calls.remove(&call);
            }
        }
    }
}

impl Asked {
    fn new(listener: Listener, message: &ToCore) -> Self {
        let ToCore::Ask { handle, request, .. } = message else {
            return Self { listener, handle: None, kind: Kind::Once };
        };
        let kind = match request {
            Request::Mutate(_) => Kind::Mutation { is_durable: false },
            Request::Watch(_) | Request::Handle(_) => Kind::Standing {
                request: Box::new(request.clone()),
                pause: AGAIN_AFTER,
                again_at: None,
            },
            _ => Kind::Once,
        };
        Self { listener, handle: Some(*handle), kind }
    }

    fn again_at(&self) -> Option<Instant> {
        match self.kind {
            Kind::Standing { again_at, .. } => again_at,
            _ => None,
        }
    }

    /// What is known of it by that answer.
    fn note(&mut self, answer: &FromCore) {
        match &mut self.kind {
            Kind::Mutation { is_durable } => *is_durable = true,
            Kind::Standing { request, pause, again_at } => match answer {
                FromCore::Failed { failure, .. } if is_passing(failure.code) => {
                    *again_at = Some(Instant::now() + *pause);
                    *pause = (2 * *pause).min(AGAIN_AFTER_MAX);
                }
                // Who handles is told at first that there is nothing, whatever comes of it then.
                FromCore::Rows { rows, .. }
                    if rows.count == 0 && matches!(**request, Request::Handle(_)) => {}
                _ => *pause = AGAIN_AFTER,
            },
            Kind::Once => {}
        }
    }

    /// What whoever waits for it is told once its document is closed.
    fn closed(&self) -> CallFailure {
        let outcome = match self.kind {
            Kind::Mutation { .. } => Outcome::Unknown,
            _ => Outcome::None,
        };
        CallFailure {
            code: ErrorCode::DocumentClosed,
            outcome,
            message: "the document was closed".to_owned(),
            mutation: None,
            reason: None,
            remedy: ErrorCode::DocumentClosed.remedy(),
        }
    }
}
