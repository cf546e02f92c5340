//! One line of what a token allows.

use std::borrow::Cow;
use std::ops::Not;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

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
    #[serde(deserialize_with = "spelled")]
    pub role: Role,
    /// Whether it may begin such a document; needs [`Role::Write`] or more to count.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub create: bool,
    /// Whether it may send commands, start runs and cancel them, where the role is [`Role::Read`];
    /// higher ones include that.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub send: bool,
    /// Whether it may handle the document's commands, whatever its role.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub handle: bool,
}

impl Grant {
    /// What it comes to with a document that it is about.
    pub(crate) fn allowed_role(&self) -> Role {
        if self.send { self.role.max(Role::Send) } else { self.role }
    }
}

/// A role as a grant spells it: [`Role::Send`] is none, since a grant says that by `send`.
fn spelled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
    Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
