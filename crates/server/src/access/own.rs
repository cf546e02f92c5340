//! The server's own secret, which its tokens are signed with.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::AccessError;
use crate::durable_file;

const FILE_NAME: &str = "access.json";

/// What a server keeps to itself, in `access.json` of its folder.
pub(super) struct Own {
    pub(super) secret: [u8; 32],
    /// Tokens of another one are void.
    pub(super) generation: String,
}

/// What stands in the file, in hexadecimal digits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    secret: String,
    generation: String,
}

impl Own {
    /// What the folder has, or what is drawn for it now.
    pub(super) fn open(folder: &Path) -> Result<Self, AccessError> {
        let path = folder.join(FILE_NAME);
        let failed = |source| AccessError::File { path: path.clone(), source };
        match std::fs::read(&path) {
            Ok(bytes) => Self::parse(&bytes).ok_or(AccessError::NotOwn { path }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let own = Self { secret: random(), generation: hex(&random::<16>()) };
                durable_file::write(folder, FILE_NAME, &own.bytes()).map_err(failed)?;
                Ok(own)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let Written { secret, generation } = serde_json::from_slice(bytes).ok()?;
        unhex::<16>(&generation)?;
        Some(Self { secret: unhex(&secret)?, generation })
    }

    fn bytes(&self) -> Vec<u8> {
        let (secret, generation) = (hex(&self.secret), self.generation.clone());
        let written = Written { secret, generation };
        serde_json::to_vec(&written).expect("BUG: two texts")
    }

    /// The salt of a user's password, the same at each start: another one would end all tokens.
    pub(super) fn salt_of(&self, user: &str) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.secret, format!("salt of {user}").as_bytes());
        let mut salt = [0; 16];
        salt.copy_from_slice(&hash.as_bytes()[..16]);
        salt
    }
}

pub(super) fn random<const SIZE: usize>() -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const SIZE: usize>(text: &str) -> Option<[u8; SIZE]> {
    if text.len() != 2 * SIZE || !text.bytes().all(|it| it.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; SIZE];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_drawn_once_and_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Own::open(folder.path()).expect("drawn");
        let again = Own::open(folder.path()).expect("read");
        assert_eq!((first.secret, &first.generation), (again.secret, &again.generation));
        assert_eq!(first.salt_of("admin"), again.salt_of("admin"));
        assert_ne!(first.salt_of("admin"), first.salt_of("reader"));
        let other = tempfile::tempdir().expect("a folder");
        let other = Own::open(other.path()).expect("drawn");
        assert_ne!(first.secret, other.secret);
        assert_ne!(first.generation, other.generation);
        assert_ne!(first.salt_of("admin"), other.salt_of("admin"));
    }

    #[cfg(unix)]
    #[test]
    fn the_secret_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().expect("a folder");
        Own::open(folder.path()).expect("drawn");
        let mode = folder.path().join(FILE_NAME).metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// A server that drew another one instead would end every login without a word.
    #[test]
    fn a_file_that_is_torn_is_not_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE_NAME);
        Own::open(folder.path()).expect("drawn");
        let whole = std::fs::read_to_string(&path).expect("a text");
        for torn in ["", &whole[..20], &whole.replace(":\"", ":\"0")] {
            std::fs::write(&path, torn).expect("written");
            let error = Own::open(folder.path()).err().expect("refused");
            assert!(matches!(error, AccessError::NotOwn { .. }), "{error}");
            assert_eq!(std::fs::read_to_string(&path).expect("a text"), torn);
        }
    }
}
