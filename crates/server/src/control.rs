//! The way from a command to the server of the same folder: a Unix socket in it, for its owner
//! alone. A line of JSON asks, and a line of JSON answers.
//!
//! ```text
//! {"ask":"cut"}  ▶ ◀ {"log":"log-a","log_head":"5449…","log_size":8192,"pages_size":8192}
//!                    the command reads the files: nothing of them is written over meanwhile
//! {"ask":"held"} ▶ ◀ {"held":true}
//!
//! {"ask":"export","document":"a"} ▶ ◀ {"export_size":8192}, and as many bytes
//!
//! {"ask":"import","document":"a","doctype":"todos","size":8192}
//!                ▶ ◀ {"wanted":true}
//! as many bytes  ▶ ◀ {"document":"a","doctype":"todos","journal":"07…","next_lsn":2}
//!
//! {"ask":"ready"} ▶ ◀ {"ready":true}
//!
//! {"ask":"revoke","subject":"ada"}  ▶ ◀ {"changed":true}
//! {"ask":"forgive","subject":"ada"} ▶ ◀ {"changed":true}
//! ```
//!
//! What cannot be done is answered by `{"error":"…"}`. With the connection the cut ends too.

#[cfg(unix)]
mod listen;

use serde::{Deserialize, Serialize};

use crate::import::Imported;

#[cfg(unix)]
pub(crate) use listen::listen;

/// What the socket is called, in the folder of the store.
pub(crate) const FILE_NAME: &str = "control";

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Asked {
    /// A cut through the store.
    Cut,
    /// Whether that was held all the time.
    Held,
    /// A document as a SQLite file.
    Export {
        /// Its name.
        document: String,
    },
    /// A document of a SQLite file.
    Import {
        /// What it is to be called.
        document: String,
        /// The name of its doctype.
        doctype: String,
        /// Bytes of the file.
        size: u64,
    },
    /// Whether clients are served.
    Ready,
    /// That a subject's tokens end.
    Revoke {
        /// Whose.
        subject: String,
    },
    /// That tokens which were ended hold again.
    Forgive {
        /// Whose; absent for those of everybody.
        subject: Option<String>,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Answered {
    /// It could not be done.
    Error {
        /// Why.
        error: String,
    },
    /// What may be copied.
    Cut {
        /// What the log file is called.
        log: String,
        /// What it begins with, in hexadecimal digits.
        log_head: String,
        /// Bytes of it.
        log_size: u64,
        /// Bytes of the page file.
        pages_size: u64,
    },
    /// Whether it was held.
    Held {
        /// Whether.
        held: bool,
    },
    /// The document follows.
    Export {
        /// Bytes of it.
        export_size: u64,
    },
    /// The file may come.
    Wanted {
        /// It may.
        wanted: bool,
    },
    /// The file is a document.
    Imported(Imported),
    /// It was asked that tokens end, or hold again.
    Changed {
        /// Whether that is so now, and was not without cause.
        changed: bool,
    },
    /// Clients are served.
    Ready {
        /// They are.
        ready: bool,
    },
}
