//! The users that a server has without an app.

use std::collections::BTreeMap;
use std::fmt;

use crate::{PasswordHash, Role};

/// The users that a server has without an app: each a name, a role and a password.
#[derive(Clone)]
pub struct Users {
    users: BTreeMap<String, (Role, PasswordHash)>,
    /// What is computed for a name that nobody has, so that the time does not tell who is there.
    decoy: PasswordHash,
}

impl Users {
    /// These users; of two with the same name, the last.
    #[must_use]
    pub fn new(users: impl IntoIterator<Item = (String, Role, PasswordHash)>) -> Self {
        let users: BTreeMap<_, _> =
            users.into_iter().map(|(name, role, hash)| (name, (role, hash))).collect();
        let costliest = users.values().map(|(_, hash)| hash).max_by_key(|hash| hash.cost());
        let decoy = costliest.map_or_else(PasswordHash::decoy_alone, PasswordHash::decoy);
        Self { users, decoy }
    }

    /// The role of the user of this name, if that is the password.
    ///
    /// A name that nobody has takes as long as one that somebody has, where all hashes have the
    /// same parameters; as the costliest where they do not.
    #[must_use]
    pub fn check(&self, name: &str, password: &str) -> Option<Role> {
        let user = self.users.get(name);
        let hash = user.map_or(&self.decoy, |(_, hash)| hash);
        let is_right = hash.matches(password);
        user.map(|(role, _)| *role).filter(|_| is_right)
    }

    /// Each user's name and [`PasswordHash::version`], for [`crate::OwnIssuer::users`].
    #[must_use]
    pub fn versions(&self) -> BTreeMap<String, String> {
        self.users.iter().map(|(name, (_, hash))| (name.clone(), hash.version())).collect()
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.users.iter().map(|(name, (role, _))| (name, role))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(password: &str, salt: u8) -> PasswordHash {
        PasswordHash::new(password, [salt; 16]).expect("hashed")
    }

    #[test]
    fn a_user_has_its_role_by_its_password_alone() {
        let users = Users::new([
            ("admin".to_owned(), Role::Admin, hash("a", 1)),
            ("reader".to_owned(), Role::Read, hash("r", 2)),
        ]);
        assert_eq!(users.check("admin", "a"), Some(Role::Admin));
        assert_eq!(users.check("reader", "r"), Some(Role::Read));
        for (name, password) in
            [("admin", "r"), ("reader", "a"), ("writer", "a"), ("Admin", "a"), ("", "")]
        {
            assert_eq!(users.check(name, password), None, "{name}");
        }
        assert_eq!(users.versions().keys().collect::<Vec<_>>(), ["admin", "reader"]);
        assert!(!format!("{users:?}").contains("argon2"));
    }

    #[test]
    fn a_name_that_nobody_has_costs_as_much_as_one_that_somebody_has() {
        let plain = hash("a", 1);
        let costly = PasswordHash::from_phc(&plain.to_phc().replace("t=2", "t=3")).expect("a hash");
        let users = Users::new([
            ("admin".to_owned(), Role::Admin, costly.clone()),
            ("reader".to_owned(), Role::Read, plain.clone()),
        ]);
        assert_eq!(users.decoy.cost(), costly.cost());
        let nobody = Users::new([]);
        assert_eq!(nobody.decoy.cost(), plain.cost());
        assert_eq!(nobody.check("admin", "a"), None);
        // A decoy that cannot be verified would take no time: it has all that a hash has.
        for decoy in [users.decoy, nobody.decoy] {
            assert_eq!(PasswordHash::from_phc(&decoy.to_phc()), Ok(decoy));
        }
    }

    #[test]
    fn a_name_that_nobody_has_is_refused_even_if_the_decoy_matches() {
        let mut users = Users::new([]);
        users.decoy = hash("a", 1);
        assert_eq!(users.check("admin", "a"), None);
    }
}
