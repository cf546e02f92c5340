//! One line of what a token allows.

use std::ops::Not;

use serde::{Deserialize, Serialize};

use crate::{Pattern, Role};

/// A role on some documents: `{"document": "lists/*", "role": "write", "create": true}`.
///
/// A field that is not known is refused: it may be a restriction that a later release knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The documents.
    pub document: Pattern,
    /// What the subject may do with them.
    pub role: Role,
    /// Whether it may begin such a document; needs [`Role::Write`] or more to count.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub create: bool,
    /// Whether it may handle the document's commands, whatever its role.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub handle: bool,
}
