//! How running SQL can end.

/// How a transaction or a query ended.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Run<T> {
    /// It ran to its end.
    Done(T),
    /// It needs this page, which is not in memory. Everything was rolled back: fetch
    /// [`View::to_fetch`](crate::View::to_fetch), fill it in, run again.
    Fault(tidelog_types::Pgid),
    /// It failed, and would fail again on the same pages unless the failure
    /// [is passing](Failure::is_passing). Everything was rolled back.
    Failed(Failure),
}

impl<T> Run<T> {
    /// The result.
    ///
    /// # Panics
    ///
    /// Unless the run is done. For tests.
    #[track_caller]
    pub fn unwrap(self) -> T {
        match self {
            Self::Done(result) => result,
            Self::Fault(pgid) => panic!("faulted at page {pgid}"),
            Self::Failed(failure) => panic!("failed: {failure}"),
        }
    }

    /// The same run with its result changed by `change`.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Run<U> {
        match self {
            Self::Done(result) => Run::Done(change(result)),
            Self::Fault(pgid) => Run::Fault(pgid),
            Self::Failed(failure) => Run::Failed(failure),
        }
    }
}

/// Why SQL failed. Nothing of its transaction is left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The app's own SQL called `reject(reason)`.
    #[error("rejected: {reason}")]
    Rejected {
        /// What the app gave as the reason.
        reason: String,
    },
    /// SQLite refused: a constraint, a syntax error, a wrong type, a missing table.
    #[error("{message}")]
    Sql {
        /// SQLite's own words.
        message: String,
    },
    /// A query wanted to write.
    #[error("a query cannot write")]
    ReadOnly,
    /// The statement or mutation took more than one may.
    #[error("over the budget of {what}")]
    Budget {
        /// The limit that was passed, with its unit.
        what: String,
    },
    /// This device ran short of something that it may have again: another run can succeed. Never
    /// a reason to reject a mutation.
    #[error("this device is short of {what}")]
    Shortage {
        /// What the device is short of.
        what: String,
    },
    /// The host has its thread do something else for now: another run, which may take longer, can
    /// succeed. Never a reason to reject a mutation.
    #[error("cut off before its end")]
    CutOff,
    /// The transaction read more pages than can be held in memory at once.
    #[error("{pages} pages read, more than one transaction may")]
    ReadSetTooLarge {
        /// How many it had read when it was stopped.
        pages: usize,
    },
    /// The SQL asked for something that another run would answer differently.
    #[error("not deterministic: {what}{}", instead_of(what))]
    Nondeterministic {
        /// The function or literal at fault.
        what: String,
    },
    /// App SQL must not do that.
    #[error("not allowed: {what}")]
    Forbidden {
        /// The statement or name at fault.
        what: String,
    },
    /// Only inside a transaction: a page is not in memory. [`Writer`](crate::Writer) and
    /// [`Reader`](crate::Reader) turn it into [`Run::Fault`].
    #[error("a page is not in memory")]
    Faulted,
}

/// What to write in place of what another run would answer differently.
fn instead_of(what: &str) -> &'static str {
    if what.starts_with("random") {
        return ": give it as an argument; one of type uuid is drawn where it is left out";
    }
    if ["now", "current_"].iter().any(|of_time| what.contains(of_time)) {
        return ": use :now, the milliseconds since 1970 when the mutation was issued";
    }
    ""
}

impl Failure {
    /// SQLite's refusal, or one of ours in its words.
    pub(crate) fn sql(message: impl Into<String>) -> Self {
        Self::Sql { message: message.into() }
    }

    pub(crate) fn budget(what: impl Into<String>) -> Self {
        Self::Budget { what: what.into() }
    }

    pub(crate) fn shortage(what: impl Into<String>) -> Self {
        Self::Shortage { what: what.into() }
    }

    /// Whether another run on the same pages may end otherwise: then this says nothing about the
    /// mutation, and must not become its verdict.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Shortage { .. } | Self::CutOff | Self::Faulted)
    }

    pub(crate) fn forbidden(what: impl Into<String>) -> Self {
        Self::Forbidden { what: what.into() }
    }

    pub(crate) fn nondeterministic(what: impl Into<String>) -> Self {
        Self::Nondeterministic { what: what.into() }
    }
}
