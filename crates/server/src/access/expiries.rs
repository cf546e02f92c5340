//! Connections end with their tokens: as these expire, and where they are ended before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidelog_access::Access;
use tidelog_room::ConnId;
use tidelog_sync::ByeReason;
use tidelog_types::limits::TOKEN_LEEWAY_S;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::{Guard, Pass, now_s};
use crate::connection::{Connection, Ending};

/// How often it is looked whether a token has expired: one clock for all connections, which may be
/// set anew at any time.
const LOOKS_EVERY: Duration = Duration::from_millis(500);

/// The connections that have tokens, by when these expire.
#[derive(Clone, Default)]
pub(crate) struct Expiries {
    waiting: Arc<Mutex<Waiting>>,
    /// Who knows which tokens have ended before; nobody on a development server.
    guard: Option<Arc<Guard>>,
}

type Waiting = BTreeMap<(u64, ConnId), (Connection, Arc<Access>)>;

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
    pub(crate) fn of(guard: Option<Arc<Guard>>) -> Self {
        Self { waiting: Arc::default(), guard }
    }

    /// Ends the connection when the token of its pass expires or is ended, if it has one.
    pub(crate) fn enter(&self, connection: &Connection, pass: &Pass) -> Option<Expiry> {
        let Pass::Granted(access) = pass else { return None };
        connection.is_of(&access.subject);
        let key = (access.expires_at_s.saturating_add(TOKEN_LEEWAY_S), connection.id());
        self.waiting().insert(key, (connection.clone(), Arc::clone(access)));
        // Only now: it may have been ended since it was verified, when nobody found it here.
        if self.guard.as_ref().is_some_and(|guard| !guard.still_takes(access)) {
            connection.end(Ending::Bye(ByeReason::Unauthenticated));
        }
        Some(Expiry { expiries: self.clone(), key })
    }

    /// Ends those whose tokens have expired by this second.
    fn end(&self, now_s: u64) {
        loop {
            let mut waiting = self.waiting();
            let Some(next) = waiting.first_entry().filter(|it| it.key().0 <= now_s) else { return };
            let (connection, _) = next.remove();
            drop(waiting);
            connection.end(Ending::Bye(ByeReason::Unauthenticated));
        }
    }

    /// Ends those whose tokens were ended, or have lost their key.
    pub(crate) fn end_others(&self, guard: &Guard) {
        let mut waiting = self.waiting();
        waiting.retain(|_, (connection, access)| {
            let stays = guard.still_takes(access);
            if !stays {
                connection.end(Ending::Bye(ByeReason::Unauthenticated));
            }
            stays
        });
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends connections whose tokens expire or are ended, until the server stops.
pub(crate) async fn end_expired(expiries: Expiries, mut stopped: watch::Receiver<bool>) {
    let Some(guard) = expiries.guard.clone() else { return };
    let mut ended = guard.ended();
    // One clock for all of it: where tokens are ended all the time others expire all the same.
    let mut looks = interval(LOOKS_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // The sender going away means stop as well.
            _ = stopped.wait_for(|stop| *stop) => return,
            // The sender is in the guard.
            _ = ended.changed() => expiries.end_others(&guard),
            _ = looks.tick() => expiries.end(now_s()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_access::{Access, Grants};
    use tokio::time::sleep;

    use super::*;
    use crate::settings::AccessSettings;

    fn pass(expires_at_s: u64) -> Pass {
        Pass::Granted(Arc::new(Access {
            subject: "ada".to_owned(),
            grants: Grants::default(),
            expires_at_s,
            issued_at_s: None,
            token_id: None,
            signed: [0; 32],
            key: None,
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

    /// Goal: nobody comes in by a token that is being ended. Method: it is, between the moment when
    /// it is verified and the one when its connection is entered.
    #[tokio::test]
    async fn a_token_that_is_ended_as_its_connection_comes_in_ends_that() {
        let folder = tempfile::tempdir().expect("a folder");
        let guard = Guard::open(folder.path(), &AccessSettings::default()).expect("usable");
        let expiries = Expiries::of(Some(Arc::new(guard)));
        let guard = expiries.guard.clone().expect("there is one");
        let pass = pass(1_000);
        let Pass::Granted(access) = &pass else { panic!("it has a token") };
        let before = Connection::new(ConnId(1)).0;
        let kept = expiries.enter(&before, &pass);
        assert!(!before.has_ended());
        guard.revoke(Arc::clone(access)).await.expect("ended");
        let after = Connection::new(ConnId(2)).0;
        let kept_too = expiries.enter(&after, &pass);
        assert!(after.has_ended());
        expiries.end_others(&guard);
        assert!(before.has_ended());
        drop((kept, kept_too));
        assert!(expiries.waiting().is_empty());
    }

    /// Goal: tokens end as they expire, however many others are ended before. Method: somebody is
    /// logged out more often than it is looked for those that have expired.
    #[tokio::test(start_paused = true)]
    async fn a_token_expires_while_others_are_ended_again_and_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let guard = Guard::open(folder.path(), &AccessSettings::default()).expect("usable");
        let expiries = Expiries::of(Some(Arc::new(guard)));
        let guard = expiries.guard.clone().expect("there is one");
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(end_expired(expiries.clone(), stopped));
        let connection = Connection::new(ConnId(1)).0;
        let _kept = expiries.enter(&connection, &pass(1_000));
        for _ in 0..20 {
            sleep(LOOKS_EVERY / 5).await;
            guard.ended.send_replace(());
        }
        assert!(connection.has_ended(), "it has expired in 1970");
    }
}
