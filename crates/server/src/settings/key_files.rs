//! The files with an app's keys, which may change while the server runs.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use tidelog_access::{Key, KeyError, Keys};
use tidelog_types::limits::KEY_FILE_SIZE_MAX;
use tracing::warn;

use super::SettingsError;

/// The files with the keys that an app's tokens are verified with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFiles {
    /// One with a secret.
    pub secret: Option<PathBuf>,
    /// PEMs with a public key each.
    pub keys: Vec<PathBuf>,
    /// One with a JWKS.
    pub jwks: Option<PathBuf>,
}

/// What the files said when they were read.
pub(crate) struct KeyTexts(Vec<(Kind, PathBuf, Vec<u8>)>);

#[derive(Clone, Copy)]
enum Kind {
    Secret,
    Pem,
    Jwks,
}

impl KeyFiles {
    /// Reads all of them.
    pub(crate) fn read(&self) -> Result<KeyTexts, SettingsError> {
        let secret = self.secret.iter().map(|path| (Kind::Secret, path));
        let pems = self.keys.iter().map(|path| (Kind::Pem, path));
        let jwks = self.jwks.iter().map(|path| (Kind::Jwks, path));
        let files = secret.chain(pems).chain(jwks);
        let texts = files.map(|(kind, path)| match read(path) {
            Ok(bytes) => Ok((kind, path.clone(), bytes)),
            Err(source) => Err(SettingsError::Read { path: path.clone(), source }),
        });
        texts.collect::<Result<_, _>>().map(KeyTexts)
    }
}

impl KeyTexts {
    /// The keys that they say.
    pub(crate) fn keys(&self) -> Result<Keys, SettingsError> {
        let mut keys = Keys::default();
        for (kind, path, bytes) in &self.0 {
            let read = kind.keys(path, bytes).and_then(|new| std::mem::take(&mut keys).with(new));
            keys = read.map_err(|source| SettingsError::Key { path: path.clone(), source })?;
        }
        Ok(keys)
    }

    /// Tells one state of the files from another.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for (_, _, bytes) in &self.0 {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }
        *hasher.finalize().as_bytes()
    }
}

impl Kind {
    fn keys(self, path: &Path, bytes: &[u8]) -> Result<Keys, KeyError> {
        match self {
            Self::Secret => Keys::new([Key::from_secret(without_line_break(bytes))?]),
            Self::Pem => {
                let pem = std::str::from_utf8(bytes).map_err(|_| KeyError::Pem)?;
                Keys::new([Key::from_pem(pem)?])
            }
            Self::Jwks => {
                let json = std::str::from_utf8(bytes).map_err(|_| KeyError::Jwks)?;
                let (keys, skipped) = Keys::from_jwks(json)?;
                for skipped in skipped {
                    let (index, reason) = (skipped.index, skipped.reason);
                    warn!(path = %path.display(), index, %reason, "a key of the JWKS is left out");
                }
                Ok(keys)
            }
        }
    }
}

/// All of a file that is no longer than a key's may be.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(KEY_FILE_SIZE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > KEY_FILE_SIZE_MAX {
        return Err(io::Error::other(format!("it has more than {KEY_FILE_SIZE_MAX} bytes")));
    }
    Ok(bytes)
}

/// What an editor puts at the end of a file is no part of a secret.
pub(crate) fn without_line_break(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}
