//! What can go wrong, as a tab is told.

use serde::{Deserialize, Serialize};

/// The stable code of an error that reaches an app. Each is a class of the npm package.
///
/// The order is part of the messages between tab and core: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// An argument of a mutation is missing, unknown or of another type.
    MutationArgument,
    /// No mutation of that name in the doctype.
    UnknownMutation,
    /// The mutation was rejected, here or by the server.
    Rejected,
    /// A query wanted to write.
    ReadOnly,
    /// SQLite refused a query.
    Query,
    /// A statement took more steps, pages or bytes than it may.
    BudgetExceeded,
    /// A transaction read more pages than can be held at once.
    ReadSetTooLarge,
    /// The doctype cannot work: SQL that does not prepare, or that two runs would answer otherwise.
    Doctype,
    /// The document is of another doctype, and neither of the two succeeds the other.
    DoctypeMismatch,
    /// A local document was to become the server's, and the server has one of its name already.
    DocumentExists,
    /// The server has another document under the document's name now.
    DocumentReplaced,
    /// The server no longer has the document.
    DocumentMissing,
    /// The server did not answer in time.
    ServerUnreachable,
    /// The server speaks another version of the protocol, or broke it.
    Protocol,
    /// The server refused access.
    Access,
    /// Mutations are still without a verdict.
    Pending,
    /// Not on disk after the time a call may take; it may still become durable.
    NotDurableYet,
    /// The device has no more room.
    StorageFull,
    /// The device failed, or its data were cleared.
    Storage,
    /// The document was closed.
    DocumentClosed,
    /// The stored data are of a newer format.
    NewerFormat,
    /// The document's id or an option cannot be used.
    InvalidOption,
    /// The engine stopped or could not be started.
    Engine,
    /// A tab has the document open, or it is being handed over.
    DocumentInUse,
    /// Events have left the document for its archive, which is at the server, and not at hand.
    Archived,
}

/// What helps against an error. Nowhere else is decided whether trying again can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Remedy {
    /// Trying again, which happens by itself where nobody called.
    #[default]
    Retry,
    /// Somebody has to change something first: the app, the device, the server. Tried again all the
    /// same, after a long pause, where it could be mended while the app is open.
    Mend,
}

impl ErrorCode {
    /// What helps against errors of this code, as a rule.
    #[must_use]
    pub fn remedy(self) -> Remedy {
        match self {
            Self::ServerUnreachable
            | Self::DocumentReplaced
            | Self::NotDurableYet
            | Self::Archived
            | Self::Storage
            | Self::StorageFull => Remedy::Retry,
            Self::MutationArgument
            | Self::UnknownMutation
            | Self::Rejected
            | Self::ReadOnly
            | Self::Query
            | Self::BudgetExceeded
            | Self::ReadSetTooLarge
            | Self::Doctype
            | Self::DoctypeMismatch
            | Self::DocumentExists
            | Self::DocumentMissing
            | Self::Protocol
            | Self::Access
            | Self::Pending
            | Self::DocumentClosed
            | Self::NewerFormat
            | Self::InvalidOption
            | Self::Engine
            | Self::DocumentInUse => Remedy::Mend,
        }
    }
}

/// Whether a failed call left something behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Nothing was recorded.
    None,
    /// The mutation is visible, and may yet become durable and confirmed: do not issue it again.
    Unknown,
}
