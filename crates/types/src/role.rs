//! What somebody may do with a document.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What somebody may do with a document. Each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Follow the document.
    Read,
    /// Send commands, start runs and cancel them as well. A grant says so by `send` beside `read`,
    /// and not as a role.
    Send,
    /// Change it as well.
    Write,
    /// Delete it as well; on every document, administer the server.
    Admin,
}

impl Role {
    /// The role as settings and tokens spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Send => "send",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Why a text is no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is read, write or admin")]
pub struct InvalidRole;

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(name: &str) -> Result<Self, InvalidRole> {
        let roles = [Self::Read, Self::Write, Self::Admin];
        roles.into_iter().find(|role| role.name() == name).ok_or(InvalidRole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_includes_those_before_it() {
        assert!(Role::Read < Role::Send);
        assert!(Role::Send < Role::Write);
        assert!(Role::Write < Role::Admin);
    }

    #[test]
    fn a_role_is_read_as_it_is_written() {
        for role in [Role::Read, Role::Write, Role::Admin] {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("Admin".parse::<Role>(), Err(InvalidRole));
        assert_eq!("send".parse::<Role>(), Err(InvalidRole), "a grant says so beside its role");
        assert_eq!("".parse::<Role>(), Err(InvalidRole));
    }
}
