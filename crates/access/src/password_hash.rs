//! Passwords, kept so that nobody who reads them knows them.

use std::fmt;

use argon2::password_hash::phc::{self, Output, Salt};
use argon2::{ARGON2ID_IDENT, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use tidelog_types::limits::{
    PASSWORD_LANES_MAX, PASSWORD_MEMORY_KIB_MAX, PASSWORD_PASSES_MAX, PASSWORD_SIZE_MAX,
};

use crate::PasswordError;

/// A password's hash by argon2id.
///
/// [`PasswordHash::new`] takes 19 MiB of memory, two passes and one lane, as OWASP says. So does
/// each [`PasswordHash::matches`]: whoever calls it bounds how many run at once.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(phc::PasswordHash);

impl PasswordHash {
    /// The hash of a password with this salt. Salts are drawn at random, one for each password, and
    /// kept: another salt is another [`PasswordHash::version`].
    ///
    /// # Errors
    ///
    /// [`PasswordError::Size`] if the password is empty or longer than [`PASSWORD_SIZE_MAX`] bytes.
    pub fn new(password: &str, salt: [u8; 16]) -> Result<Self, PasswordError> {
        if !fits(password) {
            return Err(PasswordError::Size);
        }
        let hash =
            Argon2::from(Params::DEFAULT).hash_password_with_salt(password.as_bytes(), &salt);
        // Of what may fail only memory is left.
        hash.map(Self).map_err(|_| PasswordError::Costly)
    }

    /// A hash from its PHC string: `$argon2id$v=19$m=19456,t=2,p=1$` salt `$` hash.
    ///
    /// # Errors
    ///
    /// [`PasswordError::Phc`] if it is of another kind; [`PasswordError::Costly`] if it asks for
    /// more than [`PASSWORD_MEMORY_KIB_MAX`], [`PASSWORD_PASSES_MAX`] or [`PASSWORD_LANES_MAX`].
    pub fn from_phc(text: &str) -> Result<Self, PasswordError> {
        let hash = phc::PasswordHash::new(text).map_err(|_| PasswordError::Phc)?;
        let is_current = hash.version == Some(Version::V0x13.into());
        let is_whole = hash.salt.is_some() && hash.hash.is_some();
        if hash.algorithm != ARGON2ID_IDENT || !is_current || !is_whole {
            return Err(PasswordError::Phc);
        }
        let params = Params::try_from(&hash).map_err(|_| PasswordError::Phc)?;
        if params.m_cost() > PASSWORD_MEMORY_KIB_MAX
            || params.t_cost() > PASSWORD_PASSES_MAX
            || params.p_cost() > PASSWORD_LANES_MAX
        {
            return Err(PasswordError::Costly);
        }
        Ok(Self(hash))
    }

    /// The PHC string.
    #[must_use]
    pub fn to_phc(&self) -> String {
        self.0.to_string()
    }

    /// Whether this is the password. An empty one, and one longer than [`PASSWORD_SIZE_MAX`] bytes,
    /// never is, and takes as long as any other.
    #[must_use]
    pub fn matches(&self, password: &str) -> bool {
        let fits = fits(password);
        let tried = if fits { password } else { "" };
        let is_right = Argon2::default().verify_password(tried.as_bytes(), &self.0).is_ok();
        is_right && fits
    }

    /// A short text that is another one for another password or another salt, and tells neither:
    /// 16 hexadecimal digits.
    #[must_use]
    pub fn version(&self) -> String {
        blake3::hash(self.to_phc().as_bytes()).to_hex()[..16].to_owned()
    }

    /// A hash that takes as long as this one, for a name that nobody has. No password is known for
    /// it, and a match would not count.
    pub(crate) fn decoy(&self) -> Self {
        // Without an output nothing would be computed, and the time would tell who is there.
        let output = Output::new(&[0; Params::DEFAULT_OUTPUT_LEN]).expect("BUG: of that length");
        Self(phc::PasswordHash { hash: Some(output), ..self.0.clone() })
    }

    /// [`PasswordHash::decoy`] where there are no users.
    pub(crate) fn decoy_alone() -> Self {
        let text = "$argon2id$v=19$m=19456,t=2,p=1";
        let bare = phc::PasswordHash::new(text).expect("BUG: a PHC string");
        let salt = Salt::new(&[0; 16]).expect("BUG: 16 bytes");
        Self(phc::PasswordHash { salt: Some(salt), ..bare }).decoy()
    }

    /// How long the hash takes, in KiB that are passed over.
    pub(crate) fn cost(&self) -> u64 {
        Params::try_from(&self.0).map_or(0, |it| u64::from(it.m_cost()) * u64::from(it.t_cost()))
    }
}

fn fits(password: &str) -> bool {
    !password.is_empty() && password.len() <= PASSWORD_SIZE_MAX
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({})", self.version())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the reference implementation tests for `password`.
    const KNOWN: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$\
        nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    /// How a hash of [`small`] begins.
    const SMALL: &str = "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$";

    fn small(password: &str) -> PasswordHash {
        let params = Params::new(64, 2, 1, None).expect("parameters");
        let hash = Argon2::from(params).hash_password_with_salt(password.as_bytes(), b"somesalt");
        PasswordHash::from_phc(&hash.expect("hashed").to_string()).expect("a hash")
    }

    #[test]
    fn a_password_is_hashed_as_owasp_says() {
        let hash = PasswordHash::new("secret", [7; 16]).expect("hashed");
        assert!(hash.to_phc().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.to_phc());
        assert!(hash.matches("secret"));
        assert!(!hash.matches("Secret"));
        assert!(!hash.matches(""));
    }

    #[test]
    fn a_hash_of_another_implementation_is_understood() {
        let known = PasswordHash::from_phc(KNOWN).expect("a hash");
        assert!(known.matches("password"));
        assert!(!known.matches("passwore"));
    }

    #[test]
    fn a_hash_is_read_as_it_was_written() {
        let hash = small("secret");
        assert!(hash.to_phc().starts_with(SMALL));
        assert_eq!(PasswordHash::from_phc(&hash.to_phc()), Ok(hash.clone()));
        assert!(hash.matches("secret"));
        assert!(!hash.matches("secret "));
    }

    #[test]
    fn empty_and_endless_passwords_are_never_right() {
        assert!(!small("").matches(""));
        let longest = "a".repeat(PASSWORD_SIZE_MAX);
        assert!(small(&longest).matches(&longest));
        let longer = "a".repeat(PASSWORD_SIZE_MAX + 1);
        assert!(!small(&longer).matches(&longer));
        assert!(!small("").matches(&longer), "what is tried in its place does not count");
        assert_eq!(PasswordHash::new("", [0; 16]), Err(PasswordError::Size));
        assert_eq!(PasswordHash::new(&longer, [0; 16]), Err(PasswordError::Size));
    }

    #[test]
    fn a_hash_of_another_kind_is_refused() {
        let whole = small("secret").to_phc();
        for (from, to) in [
            ("argon2id", "argon2i"),
            ("argon2id", "scrypt"),
            ("v=19", "v=16"),
            ("$v=19", ""),
            ("m=64", "m=1"),
            ("t=2", "t=0"),
            ("p=1", "x=1"),
        ] {
            let other = whole.replace(from, to);
            assert_eq!(PasswordHash::from_phc(&other), Err(PasswordError::Phc), "{other}");
        }
        let halves = ["", "secret", "$argon2id$v=19$m=64,t=2,p=1", SMALL, "$argon2id"];
        for half in halves {
            assert_eq!(PasswordHash::from_phc(half), Err(PasswordError::Phc), "{half}");
        }
    }

    #[test]
    fn a_hash_that_costs_too_much_is_refused() {
        let whole = small("secret").to_phc();
        for (from, to) in [("m=64", "m=262145"), ("t=2", "t=17"), ("p=1", "p=5")] {
            let costly = whole.replace(from, to);
            assert_eq!(PasswordHash::from_phc(&costly), Err(PasswordError::Costly), "{costly}");
        }
    }

    #[test]
    fn another_password_or_salt_is_another_version() {
        let versions = [
            small("secret").version(),
            small("Secret").version(),
            PasswordHash::new("secret", [1; 16]).expect("hashed").version(),
            PasswordHash::new("secret", [2; 16]).expect("hashed").version(),
        ];
        assert_eq!(versions[0], small("secret").version());
        assert!(versions.iter().all(|it| it.len() == 16));
        for (index, version) in versions.iter().enumerate() {
            assert!(!versions[..index].contains(version));
        }
    }

    #[test]
    fn what_is_printed_of_a_hash_does_not_tell_it() {
        let hash = small("secret");
        let output = hash.to_phc().rsplit('$').next().expect("a hash").to_owned();
        assert!(!format!("{hash:?}").contains(&output));
    }
}
