//! What a token allows, and what that comes to for one document.

use serde::{Deserialize, Serialize};
use tidelog_types::limits::TOKEN_GRANTS_MAX;

use crate::{Grant, GrantsError, Pattern, Role};

/// What a token allows: at most [`TOKEN_GRANTS_MAX`] grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Grant>")]
pub struct Grants(Vec<Grant>);

/// What all grants together allow for one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The highest role of the grants that match: [`Role::Send`] of one to read with `send`.
    pub role: Role,
    /// Whether the document may be begun, if it is not there.
    pub create: bool,
    /// Whether its commands may be handled.
    pub handle: bool,
}

impl Grants {
    /// These grants.
    ///
    /// # Errors
    ///
    /// [`GrantsError`] if there are more than [`TOKEN_GRANTS_MAX`].
    pub fn new(grants: Vec<Grant>) -> Result<Self, GrantsError> {
        if grants.len() > TOKEN_GRANTS_MAX {
            return Err(GrantsError);
        }
        Ok(Self(grants))
    }

    /// One role on every document, leave to begin documents if the role is to write, and leave to
    /// handle their commands if it is that of an admin.
    #[must_use]
    pub fn on_everything(role: Role) -> Self {
        let create = role >= Role::Write;
        let handle = role >= Role::Admin;
        let (document, send) = (Pattern::everything(), false);
        Self(vec![Grant { document, role, create, send, handle }])
    }

    /// What is allowed for the document of this name; `None` if nothing is.
    #[must_use]
    pub fn for_document(&self, name: &str) -> Option<Allowed> {
        let matching = || self.0.iter().filter(|grant| grant.document.matches(name));
        let role = matching().map(Grant::allowed_role).max()?;
        let create = matching().any(|grant| grant.create && grant.role >= Role::Write);
        let handle = matching().any(|grant| grant.handle);
        Some(Allowed { role, create, handle })
    }

    /// Whether commands of any document may be handled that this pattern means.
    #[must_use]
    pub fn handle_some_of(&self, pattern: &Pattern) -> bool {
        self.0.iter().any(|grant| grant.handle && grant.document.overlaps(pattern))
    }

    /// The role for what concerns the whole server: the highest of a grant on `*` alone.
    #[must_use]
    pub fn everywhere(&self) -> Option<Role> {
        let everywhere = self.0.iter().filter(|grant| grant.document.is_everything());
        everywhere.map(|grant| grant.role).max()
    }

    /// The grants, in the order of the token.
    #[must_use]
    pub fn as_slice(&self) -> &[Grant] {
        &self.0
    }
}

impl TryFrom<Vec<Grant>> for Grants {
    type Error = GrantsError;

    fn try_from(grants: Vec<Grant>) -> Result<Self, GrantsError> {
        Self::new(grants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(json: &str) -> Grants {
        serde_json::from_str(json).expect("grants")
    }

    #[test]
    fn what_no_grant_matches_is_not_allowed() {
        assert_eq!(Grants::default().for_document("a"), None);
        let grants = grants(r#"[{"document":"lists/*","role":"admin","create":true}]"#);
        assert_eq!(grants.for_document("lists"), None);
        assert_eq!(grants.for_document("listsx"), None);
    }

    #[test]
    fn the_highest_role_of_the_matching_grants_counts() {
        let grants = grants(
            r#"[{"document":"a","role":"write"},{"document":"*","role":"read"},
                {"document":"b*","role":"admin"}]"#,
        );
        let role = |name| grants.for_document(name).expect("matched").role;
        assert_eq!(role("a"), Role::Write);
        assert_eq!(role("c"), Role::Read);
        assert_eq!(role("bc"), Role::Admin);
    }

    #[test]
    fn leave_to_create_counts_with_the_role_to_write_only() {
        let create = |json| grants(json).for_document("a").expect("matched").create;
        assert!(create(r#"[{"document":"a","role":"write","create":true}]"#));
        assert!(create(r#"[{"document":"a","role":"admin","create":true}]"#));
        assert!(!create(r#"[{"document":"a","role":"write"}]"#));
        assert!(!create(r#"[{"document":"a","role":"read","create":true}]"#));
        let apart = r#"[{"document":"a","role":"read","create":true},
                        {"document":"*","role":"admin"}]"#;
        assert!(!create(apart), "two grants do not make up one");
        let any = r#"[{"document":"a","role":"admin"},
                      {"document":"*","role":"write","create":true}]"#;
        assert!(create(any));
        let other = r#"[{"document":"a","role":"write"},
                        {"document":"b","role":"write","create":true}]"#;
        assert!(!create(other), "the other document's grant");
    }

    #[test]
    fn leave_to_send_stands_between_the_roles_to_read_and_to_write() {
        let role = |json| grants(json).for_document("a").expect("matched").role;
        assert_eq!(role(r#"[{"document":"a","role":"read","send":true}]"#), Role::Send);
        assert_eq!(role(r#"[{"document":"a","role":"read","send":false}]"#), Role::Read);
        assert_eq!(role(r#"[{"document":"a","role":"write","send":true}]"#), Role::Write);
        assert_eq!(role(r#"[{"document":"a","role":"admin","send":true}]"#), Role::Admin);
        let other = r#"[{"document":"a","role":"read"},
                        {"document":"b","role":"read","send":true}]"#;
        assert_eq!(role(other), Role::Read, "the other document's grant");
        let two = r#"[{"document":"*","role":"read","send":true},
                      {"document":"a","role":"write"}]"#;
        assert_eq!(role(two), Role::Write);
        let as_role = r#"[{"document":"a","role":"send"}]"#;
        assert!(serde_json::from_str::<Grants>(as_role).is_err(), "there is one way to say it");
        let everywhere = grants(r#"[{"document":"*","role":"read","send":true}]"#).everywhere();
        assert_eq!(everywhere, Some(Role::Read), "the server as a whole is sent nothing");
    }

    #[test]
    fn only_a_grant_on_everything_counts_for_the_server() {
        assert_eq!(grants(r#"[{"document":"a*","role":"admin"}]"#).everywhere(), None);
        let both = r#"[{"document":"*","role":"read"},{"document":"*","role":"write"},
                       {"document":"a","role":"admin"}]"#;
        assert_eq!(grants(both).everywhere(), Some(Role::Write));
        let all = Grants::on_everything(Role::Admin);
        assert_eq!(all.everywhere(), Some(Role::Admin));
        assert!(all.for_document("a").expect("matched").create);
        let reader = Grants::on_everything(Role::Read).for_document("a");
        assert_eq!(reader, Some(Allowed { role: Role::Read, create: false, handle: false }));
    }

    #[test]
    fn too_many_grants_are_refused() {
        let grant = Grants::on_everything(Role::Read).as_slice()[0].clone();
        assert!(Grants::new(vec![grant.clone(); TOKEN_GRANTS_MAX]).is_ok());
        let many = vec![grant; TOKEN_GRANTS_MAX + 1];
        assert_eq!(Grants::new(many.clone()), Err(GrantsError));
        let json = serde_json::to_string(&many).expect("serialised");
        assert!(serde_json::from_str::<Grants>(&json).is_err());
    }

    #[test]
    fn a_grant_with_a_field_that_is_not_known_is_refused() {
        let json = r#"[{"document":"a","role":"read","tables":["t"]}]"#;
        assert!(serde_json::from_str::<Grants>(json).is_err());
        let twice = r#"[{"document":"a","document":"*","role":"read"}]"#;
        assert!(serde_json::from_str::<Grants>(twice).is_err());
    }

    #[test]
    fn grants_are_written_as_they_are_read() {
        let json =
            r#"[{"document":"a","role":"read"},{"document":"*","role":"write","create":true}]"#;
        assert_eq!(serde_json::to_string(&grants(json)).expect("serialised"), json);
    }
}
