//! What a process keeps: a store, the core over it, and its ways to servers, in a thread.

mod page_server;
mod thread;

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

use tidelog_client::{Call, FromCore, Handle, Request, SocketId, ToCore};
use tidelog_document::Doctype;
use tidelog_types::{ErrorCode, Outcome, Rows};
use tokio::sync::{oneshot, watch};
use tokio_tungstenite::tungstenite::Bytes;

use crate::database::Database;
use crate::error::Error;
use crate::options::OpenOptions;
use page_server::Keep;
use thread::Thread;
pub(crate) use thread::wall_ms;

/// Hears what the core says of a call, or of a document, until it breaks.
pub(crate) type Listener = Box<dyn FnMut(FromCore) -> ControlFlow<()> + Send>;

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Another process, or another engine of this one, has the folder.
    #[error("{folder} is in use by another engine: share that one, or give each its own folder")]
    InUse {
        /// Which.
        folder: PathBuf,
    },
    /// Engines work within a runtime of tokio.
    #[error("there is no runtime of tokio here")]
    NoRuntime,
    /// The system has no thread, or no randomness.
    #[error("an engine cannot be started")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a process keeps in a folder or in memory: any number of documents, each of which may be
/// open any number of times. Clones are the same engine; it ends with the last of them and of the
/// documents that were opened in it. It reaches servers, and asks for tokens, by the runtime in
/// which it was begun: once that is gone it works on without a network.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    mailbox: Mailbox,
    handles: AtomicU32,
    runtime: tokio::runtime::Handle,
}

/// What the thread is sent.
pub(crate) enum Mail {
    /// A call, what the core is told for it, and who hears what becomes of it.
    Call {
        call: Call,
        message: ToCore,
        listener: Listener,
    },
    /// Who hears what there is of a document that is about to be opened.
    Attach {
        handle: Handle,
        listener: Listener,
    },
    /// Let go of that document once what was issued is on the disk, and say so. Whoever waits for
    /// anything else of it is told that it is closed.
    Close {
        handle: Handle,
        closed: oneshot::Sender<()>,
    },
    /// Nobody waits for this call any more.
    GiveUp {
        call: Call,
    },
    /// Anything else that a tab may say.
    Tell(ToCore),
    SocketOpened(SocketId),
    FromServer(SocketId, Bytes),
    SocketClosed(SocketId),
    /// Let go of the files, and say so.
    End(oneshot::Sender<()>),
}

/// A way to the engine's thread, which goes on without it.
#[derive(Clone)]
pub(crate) struct Mailbox {
    sender: mpsc::Sender<Mail>,
    calls: Arc<AtomicU32>,
    /// Closed once the thread has ended.
    alive: watch::Receiver<()>,
}

impl Mailbox {
    /// If the thread is gone, whoever waits for an answer sees that its listener is.
    pub(crate) fn send(&self, mail: Mail) {
        let _ = self.sender.send(mail);
    }

    pub(crate) fn new_call(&self) -> Call {
        Call(self.calls.fetch_add(1, Ordering::Relaxed))
    }

    /// Asks something whose answers `listener` hears.
    pub(crate) fn listen(&self, handle: Handle, request: Request, listener: Listener) -> Call {
        let call = self.new_call();
        let message = ToCore::Ask { call, handle, request };
        self.send(Mail::Call { call, message, listener });
        call
    }

    /// Lets go of a document, and says when that is done.
    pub(crate) fn close(&self, handle: Handle) -> oneshot::Receiver<()> {
        let (closed, is_closed) = oneshot::channel();
        self.send(Mail::Close { handle, closed });
        is_closed
    }

    /// Waits until the engine has ended.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut alive = self.alive.clone();
        async move { while alive.changed().await.is_ok() {} }
    }
}

impl Engine {
    /// An engine over the store in this folder, which is made if it is not there. What is called
    /// durable there survives SIGKILL and a power cut. A folder has one engine at a time; one of
    /// `tidelog/node` or of a server is not to be used by this.
    ///
    /// A store that cannot be opened, as one that is damaged, is no error here: documents say so as
    /// they are opened, and it is tried again.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub fn in_folder(folder: impl AsRef<Path>) -> Result<Self, EngineError> {
        Self::start(Keep::Folder(folder.as_ref().to_owned()))
    }

    /// An engine that keeps everything in memory: what the server has confirmed is there, and all
    /// else is lost with the engine.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub fn in_memory() -> Result<Self, EngineError> {
        Self::start(Keep::Memory)
    }

    fn start(keep: Keep) -> Result<Self, EngineError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| EngineError::NoRuntime)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| EngineError::Start(error.into()))?;
        let (sender, inbox) = mpsc::channel();
        let (living, alive) = watch::channel(());
        let mailbox = Mailbox { sender, calls: Arc::new(AtomicU32::new(1)), alive };
        let (started, has_started) = mpsc::channel();
        let (own, carriers) = (mailbox.clone(), runtime.clone());
        let folder = keep.folder().map(Path::to_owned).unwrap_or_default();
        let run = move || {
            let _living = living;
            Thread::run(keep, seed, inbox, own, carriers, started);
        };
        let spawned = std::thread::Builder::new().name("tidelog".to_owned()).spawn(run);
        spawned.map_err(|error| EngineError::Start(error.into()))?;
        match has_started.recv() {
            Ok(true) => {}
            Ok(false) => return Err(EngineError::InUse { folder }),
            Err(error) => return Err(EngineError::Start(error.into())),
        }
        let handles = AtomicU32::new(1);
        Ok(Self { shared: Arc::new(Shared { mailbox, handles, runtime }) })
    }

    /// Opens this engine's copy of a document, without waiting for the server: until that has sent
    /// it for the first time a copy is empty, which `synced` of its status says, and
    /// [`Database::sync`] waits for.
    ///
    /// # Errors
    ///
    /// [`Error`], as of a doctype that cannot work, or of a store that cannot be opened.
    pub async fn open(&self, doctype: &Doctype, options: OpenOptions) -> Result<Database, Error> {
        Database::open(self.clone(), doctype, options).await
    }

    /// Deletes the copy of a document that this engine keeps. With `force` also where it has
    /// mutations that the server has not seen, which are lost then. Nobody may have it open.
    ///
    /// # Errors
    ///
    /// [`Error`] of code `Pending`, `DocumentInUse` or of the store: nothing has changed then.
    pub async fn destroy(&self, document: &str, user: &str, force: bool) -> Result<(), Error> {
        let (document, user) = (Some(document.to_owned()), user.to_owned());
        let answered = self.send_call(|call| ToCore::Destroy {
            call,
            document,
            user,
            force,
            everywhere: false,
        });
        answer_of(answered.await).map(|_| ())
    }

    /// Ends, whoever else has it: what is still open fails from then on, and what was issued is on
    /// the disk. Resolves when another engine can have the folder. Without it the engine ends by
    /// itself some time after its last clone is gone.
    pub async fn close(self) {
        let (ended, has_ended) = oneshot::channel();
        self.shared.mailbox.send(Mail::End(ended));
        // If the thread is gone, so are its files.
        let _ = has_ended.await;
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.shared.runtime
    }

    pub(crate) fn new_handle(&self) -> Handle {
        Handle(self.shared.handles.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.shared.mailbox
    }

    /// Asks something that has one answer, and gives it up where nobody waits for that any more.
    pub(crate) async fn ask(&self, handle: Handle, request: Request) -> Result<FromCore, Error> {
        let (listener, answered) = one_answer();
        let call = self.mailbox().listen(handle, request, listener);
        let waiting = Waiting { engine: self, call };
        let answer = answer_of(answered.await.ok());
        // It has come: there is nothing left to give up.
        std::mem::forget(waiting);
        answer
    }

    /// The rows that answer a request.
    pub(crate) async fn rows(&self, handle: Handle, request: Request) -> Result<Rows, Error> {
        match self.ask(handle, request).await? {
            FromCore::Rows { rows, .. } => Ok(rows),
            _ => Err(Error::new(ErrorCode::Engine, "the engine answered something else")),
        }
    }

    async fn send_call(&self, of: impl FnOnce(Call) -> ToCore) -> Option<FromCore> {
        let (listener, answered) = one_answer();
        let call = self.mailbox().new_call();
        self.mailbox().send(Mail::Call { call, message: of(call), listener });
        answered.await.ok()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.mailbox.send(Mail::End(oneshot::channel().0));
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// A call that is given up unless its answer has come.
struct Waiting<'e> {
    engine: &'e Engine,
    call: Call,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.engine.mailbox().send(Mail::GiveUp { call: self.call });
    }
}

/// Who hears one answer, whatever comes before it that says to wait longer.
pub(crate) fn one_answer() -> (Listener, oneshot::Receiver<FromCore>) {
    let (sender, answered) = oneshot::channel();
    let mut sender = Some(sender);
    let listener = move |message: FromCore| {
        if matches!(message, FromCore::HandingOver { .. }) {
            return ControlFlow::Continue(());
        }
        if let Some(sender) = sender.take() {
            // Whoever asked may have gone.
            let _ = sender.send(message);
        }
        ControlFlow::Break(())
    };
    (Box::new(listener), answered)
}

pub(crate) fn answer_of(answer: Option<FromCore>) -> Result<FromCore, Error> {
    match answer {
        Some(FromCore::Failed { failure, .. }) => Err(failure.into()),
        Some(answer) => Ok(answer),
        None => Err(Error::engine_ended(Outcome::None)),
    }
}
