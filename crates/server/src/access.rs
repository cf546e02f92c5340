//! Who may come in, and what for: tokens are verified here, and passwords become tokens.
//!
//! A development server has no [`Guard`]: everybody has a [`Pass`] for everything there.

mod expiries;
mod failures;
mod key_watch;
mod known;
mod logins;
mod own;
mod revoked;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderValue, header};
use ipnet::IpNet;
use tidelog_access::{
    Access, Allowed, KeyError, Keys, OwnIssuer, OwnKey, PasswordError, PasswordHash, Pattern,
    Revocations, Role, TokenError, Users, Verifier,
};
use tokio::sync::watch;
use tracing::warn;

use crate::client_address::{client_address, is_forwarded};
use crate::loopback;
use crate::settings::{AccessSettings, KeyFiles, Password, USERS};
pub(crate) use expiries::{Expiries, Expiry, end_expired};
pub(crate) use key_watch::watch_keys;
use logins::Logins;
pub(crate) use logins::{LoggedIn, LoginError};
use own::Own;
pub(crate) use revoked::RevokeError;
use revoked::Revoked;
pub(crate) use revoked::{change_in, end_all_in};

/// Why a server cannot tell who may come in.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file with the server's own secret cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file with the server's own secret has something else in it.
    #[error(
        "{path} is not what a server of this release has written: put it back, start the release \
         that wrote it, or delete it to end all logins"
    )]
    NotOwn {
        /// Which file.
        path: PathBuf,
    },
    /// The file with what was revoked has something else in it.
    #[error(
        "{path} is not what a server of this release has written: put it back, start the release \
         that wrote it, or delete it, which lets everybody in again whose tokens were ended and \
         have not expired"
    )]
    NotRevocations {
        /// Which file.
        path: PathBuf,
    },
    /// A key of the app's cannot be used beside the server's own.
    #[error("cannot use the app's keys")]
    Key(#[source] KeyError),
    /// A password cannot be hashed.
    #[error("cannot hash a password")]
    Password(#[source] PasswordError),
}

/// What decides who may come in.
pub(crate) struct Guard {
    terms: RwLock<Arc<Terms>>,
    users: Arc<Users>,
    issuer: OwnIssuer,
    revoked: Arc<Revoked>,
    /// Changes where some tokens may have ended.
    ended: watch::Sender<()>,
    reloads_count: AtomicU64,
    logins: Logins,
    trusted_proxies: Vec<IpNet>,
    metrics_open: bool,
}

/// What may change while the server runs.
#[derive(Clone)]
struct Terms {
    verifier: Verifier,
    /// Where the app's keys stand.
    key_files: KeyFiles,
    origins: Vec<String>,
}

/// What somebody may do here.
#[derive(Clone, Debug)]
pub(crate) enum Pass {
    /// Nothing: whoever it is has not said who yet.
    Nothing,
    /// Everything: it is a development server.
    Everything,
    /// What a token grants that was verified.
    Granted(Arc<Access>),
}

impl Pass {
    /// What is allowed with the document of this name; `None` if nothing is.
    pub(crate) fn for_document(&self, name: &str) -> Option<Allowed> {
        match self {
            Self::Nothing => None,
            Self::Everything => Some(Allowed { role: Role::Admin, create: true, handle: true }),
            Self::Granted(access) => access.grants.for_document(name),
        }
    }

    /// Whether commands may be handled of any document that this pattern means.
    pub(crate) fn handles_some_of(&self, pattern: &Pattern) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Granted(access) => access.grants.handle_some_of(pattern),
        }
    }

    /// Who it is, by the token.
    pub(crate) fn subject(&self) -> Option<&str> {
        match self {
            Self::Nothing | Self::Everything => None,
            Self::Granted(access) => Some(&access.subject),
        }
    }

    /// The role for what concerns the whole server.
    pub(crate) fn everywhere(&self) -> Option<Role> {
        match self {
            Self::Nothing => None,
            Self::Everything => Some(Role::Admin),
            Self::Granted(access) => access.grants.everywhere(),
        }
    }
}

impl Guard {
    /// Reads the server's own secret in `folder`, or draws one, and hashes the passwords.
    pub(crate) fn open(folder: &Path, settings: &AccessSettings) -> Result<Self, AccessError> {
        let own = Own::open(folder)?;
        let mut users = Vec::new();
        for (name, role) in USERS {
            let hash = match settings.passwords.get(&role) {
                None => continue,
                Some(Password::Hash(hash)) => hash.as_ref().clone(),
                Some(Password::Plain(password)) => {
                    PasswordHash::new(password, own.salt_of(name)).map_err(AccessError::Password)?
                }
            };
            users.push((name.to_owned(), role, hash));
        }
        let users = Users::new(users);
        let issuer = OwnIssuer {
            key: OwnKey::new(&own.secret).map_err(AccessError::Key)?,
            generation: own.generation,
            users: users.versions(),
        };
        let (keys, policy) = (settings.keys.clone(), settings.policy.clone());
        let verifier = Verifier::new(keys, policy, Some(issuer.clone()));
        let terms = Terms {
            verifier: verifier.map_err(AccessError::Key)?,
            key_files: settings.key_files.clone(),
            origins: settings.allow_origins.clone(),
        };
        Ok(Self {
            terms: RwLock::new(Arc::new(terms)),
            users: Arc::new(users),
            issuer,
            revoked: Arc::new(Revoked::open(folder)?),
            ended: watch::Sender::new(()),
            reloads_count: AtomicU64::new(0),
            logins: Logins::default(),
            trusted_proxies: settings.trusted_proxies.clone(),
            metrics_open: settings.metrics_open,
        })
    }

    /// What the token allows by now.
    pub(crate) fn verify(&self, token: &str) -> Result<Pass, TokenError> {
        let access = self.terms().verifier.verify(token, now_s())?;
        self.revoked.check(&access)?;
        Ok(Pass::Granted(Arc::new(access)))
    }

    /// Whether a token that was valid is still, but for the time.
    pub(crate) fn still_takes(&self, access: &Access) -> bool {
        self.terms().verifier.knows_key_of(access) && self.revoked.check(access).is_ok()
    }

    /// Whether a pass that was given holds by now, or why not: what was said with it may have taken
    /// its time.
    pub(crate) fn check(&self, pass: &Pass) -> Result<(), TokenError> {
        let Pass::Granted(access) = pass else { return Ok(()) };
        if access.is_expired(now_s()) {
            return Err(TokenError::Expired);
        }
        if !self.terms().verifier.knows_key_of(access) {
            return Err(TokenError::UnknownKey);
        }
        self.revoked.check(access)
    }

    /// Changes where [`still_takes`](Self::still_takes) may say otherwise than before.
    pub(crate) fn ended(&self) -> watch::Receiver<()> {
        self.ended.subscribe()
    }

    /// Ends this token, for good.
    pub(crate) async fn revoke(&self, access: Arc<Access>) -> Result<(), RevokeError> {
        let revoked = self.revoked.change(move |it| it.revoke(&access, now_s())).await;
        self.ended.send_replace(());
        if let Some(subject) = revoked? {
            warn!(
                subject,
                "all tokens of a subject have ended: it has logged out of so many that nobody else \
                 could"
            );
        }
        Ok(())
    }

    /// Ends all tokens of a subject that were issued by now.
    pub(crate) async fn revoke_subject(&self, subject: String) -> Result<(), RevokeError> {
        let issued_by_s = now_s();
        let change = move |it: &mut Revocations| it.revoke_subject(&subject, issued_by_s);
        let revoked = self.revoked.change(change).await;
        self.ended.send_replace(());
        revoked
    }

    /// Takes back that the tokens of a subject were ended, or else those of everybody. Says whether
    /// they were.
    pub(crate) async fn forgive(&self, subject: Option<String>) -> Result<bool, RevokeError> {
        self.revoked.change(move |revoked| Ok(forgive(revoked, subject.as_deref()))).await
    }

    /// The files of the app's keys.
    fn key_files(&self) -> KeyFiles {
        self.terms().key_files.clone()
    }

    /// Takes these keys in place of the app's. Says whether they are others; on an error nothing
    /// has changed.
    fn set_keys(&self, keys: Keys) -> Result<bool, KeyError> {
        self.set_terms(|terms| Ok(Terms { verifier: terms.verifier.with_keys(keys)?, ..terms }))
    }

    /// Takes the app's keys and the origins of new settings, all or nothing. All else stays as the
    /// server was started.
    pub(crate) fn reload(&self, settings: &AccessSettings) -> Result<(), KeyError> {
        let AccessSettings { keys, key_files, allow_origins, .. } = settings.clone();
        self.set_terms(|terms| {
            let verifier = terms.verifier.with_keys(keys)?;
            Ok(Terms { verifier, key_files, origins: allow_origins })
        })?;
        self.reloads_count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How often [`reload`](Self::reload) has changed something.
    fn reloads_count(&self) -> u64 {
        self.reloads_count.load(Ordering::Relaxed)
    }

    /// Says whether the keys are others now.
    fn set_terms(
        &self,
        change: impl FnOnce(Terms) -> Result<Terms, KeyError>,
    ) -> Result<bool, KeyError> {
        let mut terms = self.terms.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(Terms::clone(&terms))?;
        let has_other_keys = changed.verifier.keys() != terms.verifier.keys();
        *terms = Arc::new(changed);
        drop(terms);
        self.ended.send_replace(());
        Ok(has_other_keys)
    }

    fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The address of whoever sent a request with these headers, on a connection from `peer`.
    pub(crate) fn address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        client_address(peer, headers, &self.trusted_proxies)
    }

    /// Whether this is the address of a proxy that is trusted.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    /// Whether whoever asks with these headers from this address may have the metrics without a
    /// token: anybody, or anybody on this machine. What a proxy passes on is of neither, nor is a
    /// page in a browser of this machine whose name was made to point here.
    pub(crate) fn opens_metrics(&self, address: Option<IpAddr>, headers: &HeaderMap) -> bool {
        let is_here = address.is_some_and(|it| it.is_loopback())
            && !is_forwarded(headers)
            && loopback::is_ours(headers);
        self.metrics_open || is_here
    }

    /// Whether a request with these headers is of no page, or of one that is served here: by its
    /// origin, or since it comes from the host that it calls this server by.
    pub(crate) fn serves(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        self.allows_origin(origin) || is_of(origin, headers.get(header::HOST))
    }

    /// Whether the origin is one of those that the settings name.
    pub(crate) fn allows_origin(&self, origin: &HeaderValue) -> bool {
        let is = |known: &String| origin.as_bytes().eq_ignore_ascii_case(known.as_bytes());
        self.terms().origins.iter().any(is)
    }
}

/// Lets the tokens of a subject, or else those of everybody, pass again that were ended. Says
/// whether they were.
pub(crate) fn forgive(revoked: &mut Revocations, subject: Option<&str>) -> bool {
    match subject {
        Some(subject) => revoked.forgive_subject(subject),
        None => revoked.forgive_everybody(),
    }
}

/// Whether pages of this origin come from this host, whatever speaks TLS for it.
fn is_of(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let text = |value: &'_ HeaderValue| value.to_str().unwrap_or_default().to_ascii_lowercase();
    let (origin, host) = (text(origin), host.map(text).unwrap_or_default());
    origin.split_once("://").is_some_and(|(_, it)| it == host && !it.is_empty())
}

/// The second since 1970, by the server's clock.
pub(crate) fn now_s() -> u64 {
    now_ms() / 1_000
}

/// Milliseconds since 1970, by the clock of the machine.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(origins: &[&str]) -> Guard {
        let folder = tempfile::tempdir().expect("a folder");
        let allow_origins = origins.iter().map(|it| (*it).to_owned()).collect();
        let settings = AccessSettings { allow_origins, ..AccessSettings::default() };
        Guard::open(folder.path(), &settings).expect("usable")
    }

    #[test]
    fn pages_are_served_by_their_origin_or_from_the_host_itself() {
        let guard = guard(&["https://app.example.org", "http://localhost:5173"]);
        let serves = |origin: Option<&str>, host: Option<&str>| {
            let mut headers = HeaderMap::new();
            let value = |text: &str| HeaderValue::from_str(text).expect("a value");
            origin.map(|origin| headers.insert(header::ORIGIN, value(origin)));
            host.map(|host| headers.insert(header::HOST, value(host)));
            guard.serves(&headers)
        };
        let host = Some("sync.example.org:8787");
        assert!(serves(None, host), "no page");
        for origin in [
            "https://app.example.org",
            "https://App.Example.org",
            "http://localhost:5173",
            "https://sync.example.org:8787",
            "http://SYNC.example.org:8787",
        ] {
            assert!(serves(Some(origin), host), "{origin}");
        }
        for origin in [
            "http://app.example.org",
            "https://app.example.org:8443",
            "https://app.example.org.evil.org",
            "https://sync.example.org",
            "https://localhost:5173",
            "sync.example.org:8787",
            "null",
            "",
        ] {
            assert!(!serves(Some(origin), host), "{origin}");
        }
        assert!(!serves(Some("https://"), Some("")));
        assert!(!serves(Some("https://other"), None));
    }
}
