//! What the code of a workflow waits for.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tidelog_types::ErrorCode;

use crate::error::Error;
use crate::progress::{Question, Ticket, Told};
use crate::run::Shared;
use crate::trying::{Try, Trying};
use crate::workflow::{GivenRun, WorkflowError};

/// What was asked for, until the code is told of it.
pub(crate) struct Asking {
    shared: Arc<Shared>,
    place: Place,
}

enum Place {
    /// It could not be asked.
    Refused(Option<WorkflowError>),
    /// The code never hears of it.
    Never,
    At(Ticket),
}

impl Asking {
    pub(crate) fn new(shared: &Arc<Shared>, name: &str, question: Question) -> Self {
        let place = match shared.progress().ask(name, question) {
            Some(ticket) => Place::At(ticket),
            None => Place::Never,
        };
        shared.stir();
        Self { shared: Arc::clone(shared), place }
    }

    /// What cannot be asked.
    pub(crate) fn refused(shared: &Arc<Shared>, error: WorkflowError) -> Self {
        Self { shared: Arc::clone(shared), place: Place::Refused(Some(error)) }
    }

    fn ticket(&self) -> Option<Ticket> {
        match self.place {
            Place::At(ticket) => Some(ticket),
            Place::Refused(_) | Place::Never => None,
        }
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Result<Told, WorkflowError>> {
        match &mut self.place {
            Place::Never => Poll::Pending,
            Place::Refused(error) => {
                error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
            }
            Place::At(ticket) => match ready!(self.shared.progress().take_told(*ticket, context)) {
                Told::Cancelled => Poll::Ready(Err(WorkflowError::Cancelled)),
                told => Poll::Ready(Ok(told)),
            },
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket() {
            self.shared.progress().leave(ticket);
            self.shared.stir();
        }
    }
}

type Read<T> = Box<dyn Fn(Told) -> Result<Result<T, WorkflowError>, String> + Send>;

/// What a run waits for that happens elsewhere: time, an event, the end of a command or of another
/// run. It begins as it is called, whoever waits for it.
#[must_use = "what nobody waits for begins, and the run may end before it does"]
pub struct Wait<T> {
    asking: Asking,
    /// What the code makes of what it is told; or why it can make nothing of it.
    read: Read<T>,
}

impl<T> Wait<T> {
    pub(crate) fn new(
        asking: Asking,
        read: impl Fn(Told) -> Result<Result<T, WorkflowError>, String> + Send + 'static,
    ) -> Self {
        Self { asking, read: Box::new(read) }
    }
}

impl<T> Future for Wait<T> {
    type Output = Result<T, WorkflowError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { asking, read } = self.get_mut();
        let told = match ready!(asking.poll(context)) {
            Ok(told) => told,
            Err(error) => return Poll::Ready(Err(error)),
        };
        match read(told) {
            Ok(came) => Poll::Ready(came),
            Err(reason) => {
                asking.shared.stop(reason);
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for Wait<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").finish_non_exhaustive()
    }
}

/// A step or a request of a run: it begins as somebody waits for it, and is dropped where it stands
/// with this.
#[must_use = "a step does nothing unless it is awaited"]
pub struct Step<'r, T> {
    wait: Wait<T>,
    name: String,
    trying: Trying,
    work: Work<'r>,
}

/// One try of a step.
type Once<'r> = Box<dyn FnMut() -> Try<'r> + Send + 'r>;

enum Work<'r> {
    Idle(Option<Once<'r>>),
    Runs(Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'r>>),
    Done,
}

impl<'r, T: DeserializeOwned> Step<'r, T> {
    pub(crate) fn new(asking: Asking, name: String, once: Once<'r>) -> Self {
        let step = name.clone();
        let read = move |told| match told {
            Told::Failed(reason) => {
                Ok(Err(WorkflowError::StepFailed { step: step.clone(), reason }))
            }
            told => read_json(&step, told).map(Ok),
        };
        let (wait, work) = (Wait::new(asking, read), Work::Idle(Some(once)));
        Self { wait, name, trying: Trying::default(), work }
    }
}

impl<T> Step<'_, T> {
    /// Is tried again so often where it fails, after 1 s, 2 s, 4 s and so on up to 5 minutes; 5
    /// times by default.
    pub fn retries(mut self, retries: u32) -> Self {
        self.trying.retries = retries;
        self
    }

    /// How long a try may take before it counts as one that has failed; 30 seconds by default, and
    /// `None` for as long as it likes.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.trying.timeout = timeout.into();
        self
    }
}

impl<T> Future for Step<'_, T> {
    type Output = Result<T, WorkflowError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let step = self.get_mut();
        if let Poll::Ready(came) = Pin::new(&mut step.wait).poll(context) {
            return Poll::Ready(came);
        }
        let asking = &step.wait.asking;
        let Some(ticket) = asking.ticket() else { return Poll::Pending };
        if let Work::Idle(once) = &mut step.work {
            if !asking.shared.progress().want(ticket) {
                asking.shared.stir();
                return Poll::Pending;
            }
            let once = once.take().expect("BUG: it begins once");
            let GivenRun { workflow, id, .. } = &*asking.shared.run;
            let name = format!("{} of run {id} of workflow {workflow}", step.name);
            let trying = step.trying;
            step.work = Work::Runs(Box::pin(async move { trying.try_often(&name, once).await }));
        }
        if let Work::Runs(working) = &mut step.work {
            let came = ready!(working.as_mut().poll(context));
            step.work = Work::Done;
            asking.shared.progress().finish(ticket, came);
            asking.shared.stir();
        }
        Poll::Pending
    }
}

impl<T> fmt::Debug for Step<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the code makes of JSON that the run remembers. That it is something else now is no failure
/// of the run: it waits for code that fits.
pub(crate) fn read_json<T: DeserializeOwned>(name: &str, told: Told) -> Result<T, String> {
    let json = match told {
        Told::Done(json) => json,
        Told::Event(_) | Told::Failed(_) | Told::Cancelled => None,
    };
    serde_json::from_str(json.as_deref().unwrap_or("null"))
        .map_err(|error| format!("what it remembers of {name} is of no such type: {error}"))
}

/// What a run asks for in a way that cannot be.
pub(crate) fn invalid(message: String) -> WorkflowError {
    WorkflowError::from(Error::new(ErrorCode::InvalidOption, message))
}
