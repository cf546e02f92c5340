//! A query that is asked again whenever what it reads has changed.

use std::ops::ControlFlow;

use tidelog_client::{Call, FromCore};
use tidelog_types::ErrorCode;
use tokio::sync::watch;

use crate::database::Open;
use crate::engine::{Listener, Mail};
use crate::error::Error;
use crate::rows::Rows;

type Newest = Option<Result<tidelog_types::Rows, Error>>;

/// A query that is asked again whenever what it reads has changed. It ends when it is dropped.
#[derive(Debug)]
pub struct Live {
    newest: watch::Receiver<Newest>,
    call: Call,
    of: Open,
}

impl Live {
    pub(crate) fn new(of: Open, watch: impl FnOnce(&Open, Listener) -> Call) -> Self {
        let (sender, newest) = watch::channel(None);
        let listen = move |message: FromCore| {
            let told = match message {
                FromCore::Rows { rows, .. } => Ok(rows),
                // Then it is over.
                FromCore::Failed { failure, .. } if failure.code == ErrorCode::DocumentClosed => {
                    return ControlFlow::Break(());
                }
                FromCore::Failed { failure, .. } => Err(failure.into()),
                _ => return ControlFlow::Continue(()),
            };
            sender.send_replace(Some(told));
            ControlFlow::Continue(())
        };
        let call = watch(&of, Box::new(listen));
        Self { newest, call, of }
    }

    /// Waits for rows that were not told yet: the newest, whatever came before them. `None` once
    /// the document is closed, or the engine has ended.
    ///
    /// # Errors
    ///
    /// [`Error`] where the query fails. It goes on: a later change may help.
    pub async fn next(&mut self) -> Option<Result<Rows, Error>> {
        let closed = self.of.closed();
        tokio::select! {
            biased;
            changed = self.newest.changed() => changed.ok()?,
            () = closed => return None,
        }
        let newest = self.newest.borrow_and_update().clone()?;
        Some(newest.map(Rows::from))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.of.mailbox().send(Mail::GiveUp { call: self.call });
    }
}
