//! A document that is open.

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_util::FutureExt as _;
use serde::Serialize;
use tidelog_client::{FromCore, Handle, Mutate, OpenRequest, Query, Request, Status, ToCore};
use tidelog_document::{Doctype, ParamKind, sending};
use tidelog_types::{CallId, ErrorCode, Outcome, Params, Value};
use tokio::sync::{mpsc, watch};

use crate::attempts::Handling;
use crate::commands::{self, CommandName, CommandOutcome, CommandReceipt, SendOptions};
use crate::engine::{Engine, Listener, Mail, Mailbox, answer_of, one_answer, wall_ms};
use crate::error::{CommandError, Error};
use crate::events::{Events, EventsFilter};
use crate::handler::Handler;
use crate::handling;
use crate::live::Live;
use crate::options::{GiveToken, OpenOptions};
use crate::receipt::Receipt;
use crate::rows::Rows;

/// A mutation of this copy that the server has rejected: what it had changed here is undone.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// Names the call that issued it, in hexadecimal digits, so that a repeat is known as one.
    pub id: String,
    /// Which mutation.
    pub mutation: String,
    /// Its arguments.
    pub args: Vec<(String, Value)>,
    /// Why.
    pub reason: String,
    /// Its own LSN.
    pub lsn: u64,
}

/// The rejections of a document's mutations. One was dealt with when the next one is asked for, and
/// is not told again then, also after a restart.
#[derive(Debug)]
pub struct Rejections {
    told: mpsc::UnboundedReceiver<(CallId, Rejection)>,
    /// The one that was given last.
    given: Option<CallId>,
    of: Open,
}

impl Rejections {
    /// Waits for the next one. `None` once the document is closed, or another one has them.
    pub async fn recv(&mut self) -> Option<Rejection> {
        if let Some(id) = self.given.take() {
            let handled = ToCore::RejectionHandled { handle: self.of.handle(), id };
            self.of.mailbox().send(Mail::Tell(handled));
        }
        let closed = self.of.closed();
        let (id, rejection) = tokio::select! {
            told = self.told.recv() => told?,
            () = closed => return None,
        };
        self.given = Some(id);
        Some(rejection)
    }
}

/// A document that is open. Clones are the same one; it is closed with the last of them, and of
/// what watches it, reads its events or handles its commands.
#[derive(Clone, Debug)]
pub struct Database {
    pub(crate) open: Open,
}

/// What everything that was asked of an open document shares.
#[derive(Clone)]
pub(crate) struct Open {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    handle: Handle,
    doctype: Doctype,
    told: Arc<Told>,
    /// Half of the names of all calls.
    drawn: [u8; 8],
    issued: AtomicU64,
    /// The last word that was said of the server.
    word: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Of one that is closed already that is nothing.
        drop(self.engine.mailbox().close(self.handle));
    }
}

impl Database {
    pub(crate) async fn open(
        engine: Engine,
        doctype: &Doctype,
        options: OpenOptions,
    ) -> Result<Self, Error> {
        let OpenOptions { document, user, server, token } = options;
        let mut drawn = [0; 8];
        getrandom::fill(&mut drawn)
            .map_err(|error| Error::new(ErrorCode::Engine, error.to_string()))?;
        let (handle, mailbox) = (engine.new_handle(), engine.mailbox().clone());
        let told = Arc::new(Told::default());
        let request = OpenRequest {
            document,
            user,
            server,
            doctype: doctype.clone(),
            has_token: token.is_some(),
            word: 0,
        };
        let runtime = engine.runtime().clone();
        let news = News { handle, mailbox: mailbox.clone(), runtime, token, told: told.clone() };
        mailbox.send(Mail::Attach { handle, listener: news.listener() });
        // Whoever waits for it may go away first.
        let issued = AtomicU64::new(0);
        let (doctype, word) = (doctype.clone(), AtomicU64::new(0));
        let inner = Inner { engine, handle, doctype, told, drawn, issued, word };
        let (mut answer, answered) = one_answer();
        let opening = Arc::clone(&inner.told);
        let listener = move |message: FromCore| {
            if let FromCore::Opened { status, .. } = &message {
                opening.tell(status.clone());
            }
            answer(message)
        };
        mailbox.listen(handle, Request::Open(Box::new(request)), Box::new(listener));
        answer_of(answered.await.ok())?;
        Ok(Self { open: Open { inner: Arc::new(inner) } })
    }

    /// Issues a mutation, which is visible at once: what is asked behind it sees it. A parameter of
    /// kind `uuid` that is left out is drawn; a boolean is 0 or 1, and JSON a text.
    ///
    /// It is issued by this call. To await the receipt is to wait until it is on the disk.
    pub fn mutate<K: Into<String>>(
        &self,
        mutation: &str,
        args: impl IntoIterator<Item = (K, Value)>,
    ) -> Receipt {
        let mut args: Vec<_> = args.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let drawn = self.open.draw_uuids(mutation, &args);
        match drawn {
            Ok(drawn) => args.extend(drawn),
            Err(error) => return Receipt::failed(error),
        }
        self.open.mutate(mutation.to_owned(), args)
    }

    /// Reads rows of the copy as it is here, its own mutations included.
    ///
    /// # Errors
    ///
    /// [`Error`], as of code `Query` where SQLite refuses the statement.
    pub async fn query(&self, sql: &str, params: impl Into<Params>) -> Result<Rows, Error> {
        let query = Query { sql: sql.to_owned(), params: params.into() };
        self.open.rows(Request::Query(query)).await
    }

    /// Asks a query now, and again whenever what it reads has changed.
    #[must_use]
    pub fn live(&self, sql: &str, params: impl Into<Params>) -> Live {
        let query = Query { sql: sql.to_owned(), params: params.into() };
        Live::new(self.open.clone(), |open, listener| {
            open.mailbox().listen(open.inner.handle, Request::Watch(query), listener)
        })
    }

    /// Events that the authority has recorded, those of before and then those that come.
    #[must_use]
    pub fn events(&self, filter: EventsFilter) -> Events {
        Events::new(self.open.clone(), filter)
    }

    /// Sends a command to a stream of an aggregate: `args` is what serde makes an object of.
    pub fn send(
        &self,
        aggregate: &str,
        command: &str,
        stream: &str,
        args: &impl Serialize,
        options: SendOptions,
    ) -> CommandReceipt {
        let key = options.key.map_or_else(draw_uuid, Ok);
        let args = serde_json::to_string(args);
        let (key, receipt) = match (key, args) {
            (Ok(key), Ok(args)) => {
                let texts = [("stream", stream), ("args", &args), ("key", &key)];
                let bound = texts.map(|(name, text)| (name.to_owned(), Value::Text(text.into())));
                let receipt = self.open.mutate(sending(aggregate, command), bound.into());
                (key, receipt)
            }
            (Err(error), _) => (String::new(), Receipt::failed(error)),
            (Ok(key), Err(error)) => {
                let message = format!("{aggregate}.{command}: {error}");
                (key, commands::unsent(ErrorCode::MutationArgument, message))
            }
        };
        let name = CommandName {
            aggregate: aggregate.to_owned(),
            stream: stream.to_owned(),
            name: command.to_owned(),
            key,
        };
        CommandReceipt::new(self.open.clone(), name, receipt)
    }

    /// Waits until a command is over that was sent by this key, by whomever.
    ///
    /// # Errors
    ///
    /// [`CommandError`] if it has failed for good, or nobody knows it.
    pub async fn outcome(
        &self,
        aggregate: &str,
        command: &str,
        stream: &str,
        key: &str,
    ) -> Result<CommandOutcome, CommandError> {
        let name = CommandName {
            aggregate: aggregate.to_owned(),
            stream: stream.to_owned(),
            name: command.to_owned(),
            key: key.to_owned(),
        };
        commands::outcome(&self.open, name).await
    }

    /// Handles commands of an aggregate, up to `concurrency` at a time, of as many streams, at most
    /// 1,024. Whoever handles is given commands by the authority; several share them.
    ///
    /// # Errors
    ///
    /// [`Error`] of code `InvalidOption` if the doctype has no such command.
    pub fn handle<S>(&self, handler: Handler<S>, concurrency: u32) -> Result<Handling, Error>
    where
        S: Clone + Send + Sync + 'static,
    {
        self.open.must_be_open()?;
        handling::handle(self.open.clone(), handler, concurrency)
    }

    /// How the document stands, now and whenever that changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.open.inner.told.status.get().expect("BUG: told as it was opened").subscribe()
    }

    /// Mutations that the server has rejected, those of before that nobody was told included. One
    /// has them: an earlier one is told no more.
    #[must_use]
    pub fn rejections(&self) -> Rejections {
        let (sender, receiver) = mpsc::unbounded_channel();
        let Inner { told, handle, .. } = &*self.open.inner;
        *told.rejections.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        let listens = ToCore::ListenRejections { handle: *handle };
        self.open.mailbox().send(Mail::Tell(listens));
        Rejections { told: receiver, given: None, of: self.open.clone() }
    }

    /// Waits until all that was issued has its verdict, and all that the server had is here.
    ///
    /// # Errors
    ///
    /// [`Error`] where trying again cannot help. While the server is away it waits.
    pub async fn sync(&self) -> Result<(), Error> {
        self.open.ask(Request::Sync).await.map(|_| ())
    }

    /// The document as a SQLite file.
    ///
    /// # Errors
    ///
    /// [`Error`] of the store, or of what there is no memory for.
    pub async fn export(&self) -> Result<Vec<u8>, Error> {
        match self.open.ask(Request::Export).await? {
            FromCore::Exported { file, .. } => Ok(file),
            _ => Err(Error::new(ErrorCode::Engine, "the engine answered something else")),
        }
    }

    /// Stays away from the server, whoever has the document open, until somebody connects it.
    pub fn disconnect(&self) {
        self.say_of_the_server(true);
    }

    /// Goes back to the server.
    pub fn connect(&self) {
        self.say_of_the_server(false);
    }

    /// Lets go of the document, once what was issued is on the disk. All clones are closed with it,
    /// and whoever waits for anything else of it is told so.
    ///
    /// # Errors
    ///
    /// [`Error`] if the engine has ended before.
    pub async fn close(self) -> Result<(), Error> {
        let Inner { engine, handle, told, .. } = &*self.open.inner;
        told.closed.send_replace(true);
        let (closed, ended) = (engine.mailbox().close(*handle), engine.mailbox().ended());
        tokio::select! {
            biased;
            // Of one that was closed before nobody says so.
            _ = closed => Ok(()),
            () = ended => Err(Error::engine_ended(Outcome::None)),
        }
    }

    fn say_of_the_server(&self, away: bool) {
        let Inner { handle, word, .. } = &*self.open.inner;
        // In half milliseconds, odd to stay away.
        let said = 2 * wall_ms() + u64::from(away);
        // Of two words the higher counts: one that is said in the same millisecond, or by a clock
        // that was set back, is the later one all the same.
        let later = |last: u64| said.max(last + 1 + u64::from((last + 1) % 2 != said % 2));
        let before = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| Some(later(it)));
        let word = later(before.expect("BUG: there is always a later word"));
        self.open.mailbox().send(Mail::Tell(ToCore::SetConnected { handle: *handle, word }));
    }
}

impl Open {
    pub(crate) fn mailbox(&self) -> &Mailbox {
        self.inner.engine.mailbox()
    }

    pub(crate) fn handle(&self) -> Handle {
        self.inner.handle
    }

    pub(crate) fn doctype(&self) -> &Doctype {
        &self.inner.doctype
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        self.inner.engine.runtime()
    }

    /// Waits until the document is closed, or the engine has ended.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + use<> {
        let mut closed = self.inner.told.closed.subscribe();
        let ended = self.mailbox().ended();
        async move {
            tokio::select! {
                // Whoever could close it is gone with it.
                _ = closed.wait_for(|is_closed| *is_closed) => {}
                () = ended => {}
            }
        }
    }

    pub(crate) fn must_be_open(&self) -> Result<(), Error> {
        match *self.inner.told.closed.borrow() {
            true => Err(Error::new(ErrorCode::DocumentClosed, "the document was closed")),
            false => Ok(()),
        }
    }

    pub(crate) async fn ask(&self, request: Request) -> Result<FromCore, Error> {
        self.must_be_open()?;
        self.inner.engine.ask(self.inner.handle, request).await
    }

    pub(crate) async fn rows(&self, request: Request) -> Result<Rows, Error> {
        self.must_be_open()?;
        self.inner.engine.rows(self.inner.handle, request).await.map(Rows::from)
    }

    pub(crate) fn mutate(&self, name: String, args: Vec<(String, Value)>) -> Receipt {
        if let Err(error) = self.must_be_open() {
            return Receipt::failed(error);
        }
        let Inner { handle, drawn, issued, .. } = &*self.inner;
        let mut id = [0; 16];
        id[..8].copy_from_slice(drawn);
        id[8..].copy_from_slice(&(issued.fetch_add(1, Ordering::Relaxed) + 1).to_be_bytes());
        let (receipt, listener) = Receipt::issue();
        let mutate = Mutate { id: CallId(id), name, args, now_ms: wall_ms(), again: None };
        self.mailbox().listen(*handle, Request::Mutate(mutate), listener);
        receipt
    }

    /// UUIDs for the parameters of that kind that were left out.
    fn draw_uuids(
        &self,
        mutation: &str,
        args: &[(String, Value)],
    ) -> Result<Vec<(String, Value)>, Error> {
        let mutations = &self.inner.doctype.mutations;
        let Some(definition) = mutations.iter().find(|it| it.name == mutation) else {
            // The core says so, in its words.
            return Ok(Vec::new());
        };
        let is_left_out = |name: &String| args.iter().all(|(given, _)| given != name);
        let wanted = definition
            .params
            .iter()
            .filter(|it| it.kind == ParamKind::Uuid && !it.optional && is_left_out(&it.name));
        wanted.map(|it| Ok((it.name.clone(), Value::Text(draw_uuid()?)))).collect()
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { handle, doctype, .. } = &*self.inner;
        f.debug_struct("Open").field("handle", handle).field("doctype", &doctype.name).finish()
    }
}

/// What the core has told of a document.
#[derive(Default)]
struct Told {
    /// From the moment on at which it was opened.
    status: OnceLock<watch::Sender<Status>>,
    closed: watch::Sender<bool>,
    rejections: Mutex<Option<mpsc::UnboundedSender<(CallId, Rejection)>>>,
}

impl Told {
    fn tell(&self, status: Status) {
        self.status.get_or_init(|| watch::Sender::new(status.clone())).send_replace(status);
    }

    fn reject(&self, id: CallId, rejection: Rejection) {
        let rejections = self.rejections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(to) = rejections.as_ref() {
            // Whoever has gone has not had it: it is told again.
            let _ = to.send((id, rejection));
        }
    }
}

/// Who hears what there is of a document, in the engine's thread.
struct News {
    handle: Handle,
    mailbox: Mailbox,
    runtime: tokio::runtime::Handle,
    token: Option<GiveToken>,
    told: Arc<Told>,
}

impl News {
    fn listener(self) -> Listener {
        Box::new(move |message| {
            self.hear(message);
            ControlFlow::Continue(())
        })
    }

    fn hear(&self, message: FromCore) {
        let handle = self.handle;
        match message {
            FromCore::Status { status, .. } => self.told.tell(status),
            FromCore::RejectionNews { id, mutation, args, reason, lsn, .. } => {
                let rejection = Rejection { id: id.to_hex(), mutation, args, reason, lsn };
                self.told.reject(id, rejection);
            }
            FromCore::CloseWanted { .. } => {
                self.told.closed.send_replace(true);
                drop(self.mailbox.close(handle));
            }
            FromCore::TokenWanted { question, .. } => self.give_token(question),
            _ => {}
        }
    }

    fn give_token(&self, question: u64) {
        let mailbox = self.mailbox.clone();
        let Some(give) = self.token.clone() else { return };
        self.runtime.spawn(async move {
            // Whoever panics gives none, and is asked again.
            let giving = AssertUnwindSafe(async move { give().await }).catch_unwind();
            let token = giving.await.ok().flatten();
            mailbox.send(Mail::Tell(ToCore::Token { question, token }));
        });
    }
}

/// A random UUID, version 4.
pub(crate) fn draw_uuid() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(ErrorCode::Engine, error.to_string()))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = u128::from_be_bytes(bytes);
    let hex = format!("{hex:032x}");
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}
