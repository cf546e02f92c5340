//! One attempt at a run: its code is run from the beginning, and is answered from the records as
//! far as these go.
//!
//! The code is a future, which is polled here and nowhere else. Once nothing more comes of the
//! attempt, since the run only waits, goes on elsewhere or is over, that future is dropped where it
//! stands: the code needs to know nothing of it.

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tidelog_client::{Events as Asked, Request};
use tidelog_document::{NewRecord, Outcome, WantedEvents};
use tidelog_types::{ErrorCode, shortened};
use tokio::sync::Notify;
use tracing::warn;

use crate::attempts::{Answer, Attempt};
use crate::database::Open;
use crate::error::Error;
use crate::events::{Event, events_of};
use crate::progress::{Heard, Progress, Ticket, Told};
use crate::workflow::{GivenRun, WorkflowError};

/// Polls after which code counts as being at rest that wakes itself again and again, as a step may
/// that only lets others come first: what else the run does goes on meanwhile.
const POLLS_MAX: u32 = 1_000;

/// What the code of a run comes to: what it has returned, as JSON.
pub(crate) type Running<'a> =
    Pin<Box<dyn Future<Output = Result<String, WorkflowError>> + Send + 'a>>;

/// What the code of a run and its driver share.
pub(crate) struct Shared {
    pub(crate) of: Open,
    pub(crate) run: Arc<GivenRun>,
    progress: Mutex<Progress>,
    /// There may be something to do for the driver.
    stirred: Notify,
}

impl Shared {
    pub(crate) fn new(of: Open, run: Arc<GivenRun>, progress: Progress) -> Self {
        Self { of, run, progress: Mutex::new(progress), stirred: Notify::new() }
    }

    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stir(&self) {
        self.stirred.notify_one();
    }

    /// The run cannot go on by this code.
    pub(crate) fn stop(&self, reason: String) {
        self.progress().end(Outcome::Stopped { reason: shortened(reason) });
        self.stir();
    }

    async fn read_event(
        &self,
        aggregate: String,
        stream: String,
        sequence: &str,
    ) -> Result<Event, Error> {
        let odd = || Error::new(ErrorCode::Engine, format!("there is no event {sequence}"));
        let after = sequence.parse::<u64>().map_err(|_| odd())?.saturating_sub(1);
        let (aggregate, stream) = (Some(aggregate), Some(stream));
        let wanted = WantedEvents { aggregate, stream, types: Vec::new(), after };
        let asked = Asked { wanted, waits: true, consumer: None };
        let events = events_of(&self.of.rows(Request::Events(asked)).await?)?;
        events.into_iter().next().ok_or_else(odd)
    }
}

/// Whether the code has something to do.
struct Alarm {
    rings: AtomicBool,
    rang: Notify,
}

impl Alarm {
    fn rings(&self) -> bool {
        self.rings.load(Ordering::Acquire)
    }

    /// Whether it rang, after which it does not.
    fn take(&self) -> bool {
        self.rings.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rings.store(true, Ordering::Release);
        self.rang.notify_one();
    }
}

/// Whoever runs the code of one attempt.
pub(crate) struct Driver<'a> {
    attempt: &'a Attempt,
    shared: &'a Arc<Shared>,
    /// Until it has ended.
    code: Option<Running<'a>>,
    alarm: Arc<Alarm>,
    sending: Option<Sending<'a>>,
}

/// What is on its way to be remembered.
struct Sending<'a> {
    records: Vec<(Ticket, NewRecord)>,
    answered: Pin<Box<dyn Future<Output = Result<Answer, Error>> + Send + 'a>>,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(attempt: &'a Attempt, shared: &'a Arc<Shared>, code: Running<'a>) -> Self {
        let alarm = Arc::new(Alarm { rings: AtomicBool::new(true), rang: Notify::new() });
        Self { attempt, shared, code: Some(code), alarm, sending: None }
    }

    /// Runs the code until the attempt is over.
    pub(crate) async fn drive(mut self) -> Result<(), Error> {
        let mut is_cancelled = self.attempt.is_cancelled.clone();
        loop {
            let cancelled = *is_cancelled.borrow_and_update();
            self.shared.progress().note_cancelled(cancelled);
            self.rest().await;
            let outcome = self.shared.progress().outcome().cloned();
            if let Some(outcome) = outcome {
                return self.finish(outcome).await;
            }
            let heard = self.shared.progress().next_heard();
            if let Some(heard) = heard {
                if let Err(error) = self.answer(heard).await {
                    // The attempt begins anew, by what is remembered: that has all that was said.
                    if let Some(sending) = &mut self.sending {
                        let _ = sending.answered.as_mut().await;
                    }
                    return Err(error);
                }
                continue;
            }
            self.shared.progress().hear_of_cancel();
            if self.shared.progress().begin_wanted() {
                continue;
            }
            if self.sending.is_none() && self.send().await?.is_break() {
                return Ok(());
            }
            let sent = async {
                match &mut self.sending {
                    Some(sending) => sending.answered.as_mut().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                answer = sent => {
                    if self.note_sent(answer?).is_break() {
                        return Ok(());
                    }
                }
                () = self.alarm.rang.notified() => {}
                () = self.shared.stirred.notified() => {}
                Ok(()) = is_cancelled.changed() => {}
            }
        }
    }

    /// Lets the code do all that waits for nothing but itself.
    async fn rest(&mut self) {
        for _ in 0..POLLS_MAX {
            if self.alarm.take() {
                self.poll_code();
            }
            // Who lets others come first is woken once they have: then this is asked as well.
            tokio::task::yield_now().await;
            if self.code.is_none() || !self.alarm.rings() {
                return;
            }
        }
    }

    fn poll_code(&mut self) {
        let Some(code) = &mut self.code else { return };
        let waker = Waker::from(Arc::clone(&self.alarm));
        let poll = AssertUnwindSafe(|| code.as_mut().poll(&mut Context::from_waker(&waker)));
        let outcome = match std::panic::catch_unwind(poll) {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(came)) => self.outcome_of(came),
            Err(_) => failed("the workflow has panicked"),
        };
        self.code = None;
        self.shared.progress().end(outcome);
    }

    /// What it comes to that the code has returned.
    fn outcome_of(&self, came: Result<String, WorkflowError>) -> Outcome {
        match came {
            Ok(result) => Outcome::Returned { result },
            Err(WorkflowError::Failed(reason)) => failed(&reason),
            Err(WorkflowError::Cancelled) => Outcome::Cancelled,
            Err(WorkflowError::ContinueAsNew(args)) => Outcome::Continued { args: args.0 },
            Err(error) => {
                warn!(%error, run = ?self.shared.run, "a run of a workflow has failed");
                failed(&error.to_string())
            }
        }
    }

    /// Tells the code what became of something that it has asked for.
    async fn answer(&mut self, mut heard: Heard) -> Result<(), Error> {
        let waited = self.shared.progress().event_of(heard.ticket);
        if let (Told::Done(Some(sequence)), Some([aggregate, stream])) = (&heard.told, waited) {
            heard.told = match self.shared.read_event(aggregate, stream, sequence).await {
                Ok(event) => Told::Event(Box::new(event)),
                Err(error) if error.is_passing() => return Err(error),
                Err(error) if error.code == ErrorCode::DocumentClosed => return Err(error),
                // One, say, that this release cannot read.
                Err(error) => {
                    self.shared.stop(error.to_string());
                    return Ok(());
                }
            };
        }
        self.shared.progress().tell(heard);
        Ok(())
    }

    /// Sends what is to be remembered, if anything is. Breaks where the run waits for nothing but
    /// what happens elsewhere: the attempt is over.
    async fn send(&mut self) -> Result<ControlFlow<()>, Error> {
        let next = self.shared.progress().take_next();
        if next.suspends {
            self.progressed(&next.records, true).await?;
            return Ok(ControlFlow::Break(()));
        }
        if !next.records.is_empty() {
            let answered = Box::pin(self.progressed(&next.records, false));
            self.sending = Some(Sending { records: next.records, answered });
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What was sent is remembered. Breaks where the attempt counts no longer.
    fn note_sent(&mut self, answer: Answer) -> ControlFlow<()> {
        let sent = self.sending.take();
        if !answer.is_done() {
            return ControlFlow::Break(());
        }
        let records = sent.map(|it| it.records).unwrap_or_default();
        self.shared.progress().note_remembered(records, answer.time);
        ControlFlow::Continue(())
    }

    /// The code has ended: what it has left is remembered first.
    async fn finish(mut self, outcome: Outcome) -> Result<(), Error> {
        self.code = None;
        if let Some(sending) = self.sending.take()
            && !sending.answered.await?.is_done()
        {
            return Ok(());
        }
        loop {
            let next = self.shared.progress().take_next();
            if next.records.is_empty() {
                return self.complete(outcome).await.map(drop);
            }
            if !self.progressed(&next.records, false).await?.is_done() {
                return Ok(());
            }
        }
    }

    fn progressed(
        &self,
        records: &[(Ticket, NewRecord)],
        suspends: bool,
    ) -> impl Future<Output = Result<Answer, Error>> + Send + use<'a> {
        let records = records.iter().map(|(_, record)| record.clone()).collect();
        self.complete(Outcome::Progressed { records, suspends })
    }

    fn complete(
        &self,
        outcome: Outcome,
    ) -> impl Future<Output = Result<Answer, Error>> + Send + use<'a> {
        let (attempt, told) = (self.attempt, self.shared.progress().told());
        async move { attempt.complete(told, outcome).await }
    }
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed { reason: shortened(reason.to_owned()), is_final: true }
}
