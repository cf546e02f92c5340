//! Tokens that ended before they expired, in `revocations.json` of the server's folder.

use std::error::Error;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tidelog_access::{Access, RevocationError, Revocations, TokenError};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tracing::error;

use super::{AccessError, now_s};
use crate::durable_file;

const FILE_NAME: &str = "revocations.json";

/// Why a token was not ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    /// It cannot be ended.
    #[error("{0}")]
    Revocation(RevocationError),
    /// It cannot be written down: nothing has changed.
    #[error("it cannot be written down: try again")]
    Write(#[source] std::io::Error),
}

/// Ends all tokens that were issued by now, durably, in a folder that no server has.
///
/// # Errors
///
/// [`AccessError`] or [`RevokeError`]; nothing has changed then.
pub(crate) fn end_all_in(folder: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    change_in(folder, |revoked| {
        revoked.revoke_all(now_s());
        Ok(())
    })
}

/// Changes which tokens are ended, durably, in a folder that no server has.
///
/// # Errors
///
/// As [`end_all_in`].
pub(crate) fn change_in<T>(
    folder: &Path,
    change: impl FnOnce(&mut Revocations) -> Result<T, RevocationError>,
) -> Result<T, Box<dyn Error + Send + Sync>> {
    Ok(Revoked::open(folder)?.change_now(change)?)
}

/// Tokens that ended before they expired. What is here is on the disk as well.
pub(super) struct Revoked {
    folder: PathBuf,
    known: RwLock<Arc<Revocations>>,
    /// For one who changes it, to the end of the write: each is written behind the one before.
    turn: Arc<Mutex<()>>,
}

impl Revoked {
    /// What the folder has; nothing in a new one.
    pub(super) fn open(folder: &Path) -> Result<Self, AccessError> {
        let path = folder.join(FILE_NAME);
        let mut known = match std::fs::read(&path) {
            // Whoever was locked out would be let in again by a server that passed over it.
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|_| AccessError::NotRevocations { path: path.clone() })?,
            Err(error) if error.kind() == ErrorKind::NotFound => Revocations::default(),
            Err(source) => return Err(AccessError::File { path, source }),
        };
        known.prune(now_s());
        let known = RwLock::new(Arc::new(known));
        Ok(Self { folder: folder.to_owned(), known, turn: Arc::default() })
    }

    pub(super) fn known(&self) -> Arc<Revocations> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// [`TokenError::Revoked`] if the token was ended.
    pub(super) fn check(&self, access: &Access) -> Result<(), TokenError> {
        self.known().check(access)
    }

    /// Changes which tokens are ended, durably. It is gone on with, also if nobody waits for it any
    /// more.
    pub(super) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Revocations) -> Result<T, RevocationError> + Send + 'static,
    ) -> Result<T, RevokeError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let revoked = Arc::clone(self);
        let changed = spawn_blocking(move || {
            let _turn = turn;
            revoked.change_now(change)
        });
        changed.await.unwrap_or_else(|error| Err(RevokeError::Write(error.into())))
    }

    fn change_now<T>(
        &self,
        change: impl FnOnce(&mut Revocations) -> Result<T, RevocationError>,
    ) -> Result<T, RevokeError> {
        let before = self.known();
        let mut known = Revocations::clone(&before);
        known.prune(now_s());
        let changed = change(&mut known).map_err(RevokeError::Revocation)?;
        if known == *before {
            return Ok(changed);
        }
        let bytes = serde_json::to_vec(&known).expect("BUG: texts and numbers");
        durable_file::write(&self.folder, FILE_NAME, &bytes).map_err(|error| {
            error!(%error, "a revocation cannot be written down");
            RevokeError::Write(error)
        })?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use tidelog_access::Grants;

    use super::*;

    fn revoked(folder: &Path) -> Arc<Revoked> {
        Arc::new(Revoked::open(folder).expect("usable"))
    }

    /// Ends a token of this name.
    async fn end(revoked: &Arc<Revoked>, name: &str, expires_at_s: u64) -> Result<(), RevokeError> {
        let access = Access {
            subject: "ada".to_owned(),
            grants: Grants::default(),
            expires_at_s,
            issued_at_s: None,
            token_id: Some(name.to_owned()),
            signed: [1; 32],
            key: None,
            is_own: false,
        };
        revoked.change(move |it| it.revoke(&access, 1)).await.map(drop)
    }

    #[tokio::test]
    async fn what_was_revoked_is_revoked_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let before = revoked(folder.path());
        before.change(|it| it.revoke_subject("ada", 1_000)).await.expect("revoked");
        end(&before, "t1", u64::MAX).await.expect("revoked");
        let after = revoked(folder.path());
        assert_eq!(after.known(), before.known());
        assert_eq!(after.known().to_string(), "revoked: tokens 1 subjects 1");
    }

    /// Goal: the file does not grow for ever. Method: a token that expired long ago.
    #[tokio::test]
    async fn tokens_that_have_expired_are_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let revoked_before = revoked(folder.path());
        end(&revoked_before, "old", 1_000).await.expect("revoked");
        assert_eq!(revoked_before.known().to_string(), "revoked: tokens 1 subjects 0");
        assert_eq!(revoked(folder.path()).known().to_string(), "revoked: tokens 0 subjects 0");
        end(&revoked_before, "new", u64::MAX).await.expect("revoked");
        let text = std::fs::read_to_string(folder.path().join(FILE_NAME)).expect("a text");
        assert!(text.contains("new") && !text.contains("old"), "{text}");
    }

    #[tokio::test]
    async fn what_cannot_be_written_down_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let revoked = revoked(folder.path());
        std::fs::create_dir(folder.path().join(FILE_NAME)).expect("in its place");
        let refused = revoked.change(|it| it.revoke_subject("ada", 1_000)).await;
        assert!(matches!(refused, Err(RevokeError::Write(_))), "{refused:?}");
        assert_eq!(revoked.known().to_string(), "revoked: tokens 0 subjects 0");
        std::fs::remove_dir(folder.path().join(FILE_NAME)).expect("away");
        revoked.change(|it| it.revoke_subject("ada", 1_000)).await.expect("revoked");
    }

    #[tokio::test]
    async fn of_many_who_revoke_at_once_each_is_heard() {
        let folder = tempfile::tempdir().expect("a folder");
        let known = revoked(folder.path());
        let changes = (0..20).map(|number| {
            let known = Arc::clone(&known);
            async move { end(&known, &number.to_string(), u64::MAX).await }
        });
        let done = futures_util::future::join_all(changes).await;
        assert!(done.iter().all(Result::is_ok));
        assert_eq!(revoked(folder.path()).known().to_string(), "revoked: tokens 20 subjects 0");
    }

    /// A server that began with none would let in again whoever was locked out.
    #[test]
    fn a_file_that_is_torn_is_not_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        for torn in ["", "{}", r#"{"tokens":{"a":1},"subjects":{"""#] {
            std::fs::write(folder.path().join(FILE_NAME), torn).expect("written");
            let error = Revoked::open(folder.path()).err().expect("refused");
            assert!(matches!(error, AccessError::NotRevocations { .. }), "{error}");
        }
    }
}
