//! Connections end with their tokens.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidelog_room::ConnId;
use tidelog_sync::ByeReason;
use tidelog_types::limits::TOKEN_LEEWAY_S;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Pass, now_s};
use crate::connection::{Connection, Ending};

/// How often it is looked whether a token has expired: one clock for all connections, which may be
/// set anew at any time.
const LOOKS_EVERY: Duration = Duration::from_millis(500);

/// The connections that have tokens, by when these expire.
#[derive(Clone, Default)]
pub(crate) struct Expiries(Arc<Mutex<Waiting>>);

type Waiting = BTreeMap<(u64, ConnId), Connection>;

/// A connection that is to end with its token, for as long as this is kept.
pub(crate) struct Expiry {
    expiries: Expiries,
    key: (u64, ConnId),
}

impl Drop for Expiry {
    fn drop(&mut self) {
        self.expiries.waiting().remove(&self.key);
    }
}

impl Expiries {
    /// Ends the connection when the token of its pass expires, if it has one.
    pub(crate) fn enter(&self, connection: &Connection, pass: &Pass) -> Option<Expiry> {
        let Pass::Granted(access) = pass else { return None };
        let key = (access.expires_at_s.saturating_add(TOKEN_LEEWAY_S), connection.id());
        self.waiting().insert(key, connection.clone());
        Some(Expiry { expiries: self.clone(), key })
    }

    /// Ends those whose tokens have expired by this second.
    fn end(&self, now_s: u64) {
        loop {
            let mut waiting = self.waiting();
            let Some(next) = waiting.first_entry().filter(|it| it.key().0 <= now_s) else { return };
            let connection = next.remove();
            drop(waiting);
            connection.end(Ending::Bye(ByeReason::Unauthenticated));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends connections whose tokens expire, until the server stops.
pub(crate) async fn end_expired(expiries: Expiries, mut stopped: watch::Receiver<bool>) {
    // The sender going away means stop as well.
    while timeout(LOOKS_EVERY, stopped.wait_for(|stop| *stop)).await.is_err() {
        expiries.end(now_s());
    }
}

#[cfg(test)]
mod tests {
    use tidelog_access::{Access, Grants};

    use super::*;

    fn pass(expires_at_s: u64) -> Pass {
        Pass::Granted(Arc::new(Access {
            subject: "ada".to_owned(),
            grants: Grants::default(),
            expires_at_s,
            issued_at_s: None,
            token_id: None,
            is_own: false,
        }))
    }

    /// A token is taken for a minute behind its end, by clocks that differ: so is a connection, or
    /// whoever is sent away would come back with the same token at once.
    #[test]
    fn a_connection_ends_with_its_token() {
        let expiries = Expiries::default();
        let connections = [1, 2, 3].map(|id| Connection::new(ConnId(id)).0);
        let mut kept = Vec::new();
        for (connection, expires_at_s) in connections.iter().zip([1_000, 1_001, 1_000]) {
            kept.push(expiries.enter(connection, &pass(expires_at_s)));
        }
        drop(kept.pop());
        assert!(expiries.enter(&connections[0], &Pass::Everything).is_none());
        let ended = |now_s| {
            expiries.end(now_s);
            connections.each_ref().map(Connection::has_ended)
        };
        assert_eq!(ended(1_000 + TOKEN_LEEWAY_S - 1), [false, false, false]);
        assert_eq!(ended(1_000 + TOKEN_LEEWAY_S), [true, false, false], "one has left before");
        assert_eq!(ended(1_001 + TOKEN_LEEWAY_S), [true, true, false]);
        let ending = connections[0].ended().borrow().clone();
        assert_eq!(ending, Some(Ending::Bye(ByeReason::Unauthenticated)));
    }
}
