//! What becomes of a mutation.

use std::future::{Future, IntoFuture};
use std::ops::ControlFlow;
use std::pin::Pin;

use tidelog_client::FromCore;
use tidelog_types::Outcome;
use tokio::sync::watch;
use tracing::warn;

use crate::engine::Listener;
use crate::error::Error;

/// How far a mutation has come.
#[derive(Clone, Debug)]
struct Stage {
    /// Its own LSN, once it is on the disk.
    durable: Option<Result<u64, Error>>,
    /// The LSN at which this copy saw that the server has applied it.
    confirmed: Option<Result<u64, Error>>,
}

/// What becomes of a mutation, for as many as want to know it. It is issued whether or not anybody
/// waits.
#[derive(Clone, Debug)]
pub struct Receipt {
    stage: watch::Receiver<Stage>,
}

impl Receipt {
    /// One that has failed already.
    pub(crate) fn failed(error: Error) -> Self {
        let durable = Some(Err(error));
        Self { stage: watch::channel(Stage { confirmed: durable.clone(), durable }).1 }
    }

    /// A receipt, and who has to hear what the core says of the mutation.
    pub(crate) fn issue() -> (Self, Listener) {
        let (sender, stage) = watch::channel(Stage { durable: None, confirmed: None });
        let listen = move |message: FromCore| {
            if let FromCore::Rejected { failure, .. } = &message
                && sender.receiver_count() == 0
            {
                warn!("{}: undone here, and nobody waits for its receipt", failure.message);
            }
            let mut flow = ControlFlow::Continue(());
            sender.send_modify(|stage| flow = stage.take(message));
            flow
        };
        (Self { stage }, Box::new(listen))
    }

    /// Waits until it is on this device's disk: from then on it is never lost. Gives its LSN.
    ///
    /// # Errors
    ///
    /// [`Error`] if nothing was recorded, or, with an unknown outcome, if nobody can tell.
    pub async fn durable(&self) -> Result<u64, Error> {
        self.wait(|stage| stage.durable.clone()).await
    }

    /// Waits until the authority has applied it: the server, or this device for a local document.
    /// Gives the LSN at which that is seen here.
    ///
    /// # Errors
    ///
    /// [`Error`] as for [`Receipt::durable`], or of code `Rejected` if the server rejected it.
    pub async fn confirmed(&self) -> Result<u64, Error> {
        self.wait(|stage| stage.confirmed.clone()).await
    }

    async fn wait<T: Clone>(
        &self,
        of: impl Fn(&Stage) -> Option<Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut stage = self.stage.clone();
        let reached = stage.wait_for(|stage| of(stage).is_some()).await;
        match reached {
            Ok(stage) => of(&stage).expect("BUG: waited for"),
            Err(_) => Err(Error::engine_ended(Outcome::Unknown)),
        }
    }
}

impl IntoFuture for Receipt {
    type Output = Result<u64, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// The same as [`Receipt::durable`].
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.durable().await })
    }
}

impl Stage {
    fn take(&mut self, message: FromCore) -> ControlFlow<()> {
        match message {
            FromCore::Durable { entry, .. } => {
                self.durable = Some(Ok(entry.lsn.get()));
                ControlFlow::Continue(())
            }
            FromCore::Confirmed { entry, lsn, .. } => {
                self.durable = Some(Ok(entry.lsn.get()));
                self.confirmed = Some(Ok(lsn));
                ControlFlow::Break(())
            }
            FromCore::Rejected { entry, failure, .. } => {
                self.durable = Some(Ok(entry.lsn.get()));
                self.confirmed = Some(Err(failure.into()));
                ControlFlow::Break(())
            }
            FromCore::Failed { failure, .. } => {
                let error = Error::from(failure);
                self.durable.get_or_insert(Err(error.clone()));
                self.confirmed = Some(Err(error));
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}
