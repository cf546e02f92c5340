//! A mutation as it is written down, and what becomes of it.

use serde::{Deserialize, Serialize};
use tidelog_sync::codec::{self, DecodeError};
use tidelog_types::{ClientId, EntryId, Lsn, Value};

use crate::DoctypeHash;

/// An app's request to change a document: the body of a timeline frame, the same bytes on every
/// disk and on the wire. All that a run of it may depend on, besides the pages, is in here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mutation {
    /// The doctype under which it was issued.
    pub doctype: DoctypeHash,
    /// Which of the doctype's mutations.
    pub name: String,
    /// An argument for each parameter, in the order of the parameters.
    pub args: Vec<(String, Value)>,
    /// When it was issued, milliseconds since the epoch: `:now`.
    pub now_ms: u64,
    /// The copy that issued it: `:client`.
    pub client: ClientId,
    /// Whose copy that is: `:user`. The subject of the token by which the server let it in first;
    /// before that, and where a server asks for none, the user that the app has named, or empty.
    pub user: String,
    /// The client has the rejections of its timeline before this LSN on its disk, so that the
    /// authority need not keep them. [`Replica::issue`](crate::Replica::issue) says which.
    pub kept_rejections: Lsn,
    /// The entry as which it was issued, if it has moved to another timeline since. Another copy
    /// of the client can have the same mutation, there or in a third one: it is applied once. Only
    /// its copies know the life that it names, so nobody else can say that of it.
    pub moved_from: Option<EntryId>,
}

impl Mutation {
    /// The frame's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The mutation in a frame's body.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_untrusted(bytes)
    }

    /// What stands for bytes that are no mutation: of no doctype, so that it is rejected.
    pub(crate) fn unreadable() -> Self {
        Self {
            doctype: DoctypeHash([0; 32]),
            name: String::new(),
            args: Vec::new(),
            now_ms: 0,
            client: ClientId([0; 16]),
            user: String::new(),
            kept_rejections: Lsn::FIRST,
            moved_from: None,
        }
    }
}

/// What became of a mutation. Every mutation gets exactly one from the authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Its changes are in the document.
    Applied,
    /// It left no change.
    Rejected {
        /// Why: what the app's SQL gave to `reject()`, or what SQLite said.
        reason: String,
    },
}
