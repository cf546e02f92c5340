//! What `open` wants to know.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

type TokenFuture = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// Gives a token whenever the server wants one.
pub(crate) type GiveToken = Arc<dyn Fn() -> TokenFuture + Send + Sync>;

/// Which document to open, and how.
#[derive(Clone)]
#[must_use]
pub struct OpenOptions {
    pub(crate) document: String,
    pub(crate) user: String,
    pub(crate) server: Option<String>,
    pub(crate) token: Option<GiveToken>,
}

impl OpenOptions {
    /// A local document of that id, at most 512 bytes.
    pub fn new(document: impl Into<String>) -> Self {
        Self { document: document.into(), user: String::new(), server: None, token: None }
    }

    /// Synced with the server at this address, `ws://` or `wss://`, without the path `/v1/sync`.
    pub fn server(self, address: impl Into<String>) -> Self {
        Self { server: Some(address.into()), ..self }
    }

    /// The copy of that user: each user of a device has copies of their own. By default there is
    /// one, of nobody in particular.
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: user.into(), ..self }
    }

    /// What gives a token whenever the server wants to know who this is; `None` if it cannot now,
    /// and it is asked again later.
    pub fn token<F, T>(self, give: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Option<String>> + Send + 'static,
    {
        Self { token: Some(Arc::new(move || Box::pin(give()))), ..self }
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { document, user, server, token } = self;
        f.debug_struct("OpenOptions")
            .field("document", document)
            .field("user", user)
            .field("server", server)
            .field("has_token", &token.is_some())
            .finish()
    }
}
