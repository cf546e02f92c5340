//! Identities: of journals, clients, calls, documents, and of who may write.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::DOCUMENT_NAME_SIZE_MAX;

macro_rules! id_of_16_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The id as 32 hexadecimal digits.
            #[must_use]
            pub fn to_hex(self) -> String {
                let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
                digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.to_hex())
            }
        }
    };
}

id_of_16_bytes! {
    /// The identity of one journal: a timeline's or a storage journal's. Drawn at random, so that
    /// two journals that never met are never taken for one another.
    JournalId
}
id_of_16_bytes! {
    /// One device's copy of one document, as mutations see it in `:client`.
    ClientId
}
id_of_16_bytes! {
    /// What a copy knows and only its server hears: its [`ClientId`] is a hash of it. Drawn at
    /// random.
    CopySecret
}
id_of_16_bytes! {
    /// One writer of a journal, who inherited one prefix of it: a core, or one opening of a
    /// server's store. Drawn at random for each, so that a life gives each LSN once.
    Life
}
id_of_16_bytes! {
    /// The name that a tab gives to one mutation, so that a new core can tell whether it was
    /// recorded: eight bytes of the document that it has open, drawn at random for each time that
    /// it was opened, and eight that count up, big-endian.
    CallId
}

impl CallId {
    /// The last name that could be given where this one was.
    #[must_use]
    pub fn last_of_its_kin(self) -> Self {
        let mut last = Self([u8::MAX; 16]);
        last.0[..8].copy_from_slice(&self.0[..8]);
        last
    }
}

impl CopySecret {
    /// No copy's.
    pub const NONE: Self = Self([0; 16]);
}

impl JournalId {
    /// No journal's.
    pub const NONE: Self = Self([0; 16]);
}

impl Life {
    /// The life of a journal's start, before its first entry: nobody's.
    pub const NONE: Self = Self([0; 16]);
}

/// Number of a core or page server: the fencing token on its requests. A lower one is refused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The name of a document within one store: the document's id, and the user whose copy it is.
///
/// `user` is empty for the device's own copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocumentKey {
    /// The document's id, as the app named it: 1 to [`DOCUMENT_NAME_SIZE_MAX`] bytes.
    pub document: String,
    /// The user whose copy it is; empty for the device's own copy, and always on a server.
    pub user: String,
}

/// Why a document cannot have this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a document's id has 1 to {DOCUMENT_NAME_SIZE_MAX} bytes without control characters")]
pub struct InvalidDocumentKey;

impl DocumentKey {
    /// The key of `user`'s copy of `document`.
    ///
    /// # Errors
    ///
    /// [`InvalidDocumentKey`] if the id is empty, too long, or holds a control character.
    pub fn new(document: &str, user: &str) -> Result<Self, InvalidDocumentKey> {
        let fits = |name: &str| {
            name.len() <= DOCUMENT_NAME_SIZE_MAX && !name.chars().any(char::is_control)
        };
        if document.is_empty() || !fits(document) || !fits(user) {
            return Err(InvalidDocumentKey);
        }
        Ok(Self { document: document.to_owned(), user: user.to_owned() })
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.user.is_empty() {
            f.write_str(&self.document)
        } else {
            write!(f, "{}@{}", self.document, self.user)
        }
    }
}
