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
use crate::connection::{Connection, Ending, WeakConnection};

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

type Waiting = BTreeMap<(u64, ConnId), (WeakConnection, Arc<Access>)>;

/// A connection that is to end with its token, for as long as this is kept, by itself: so for as
/// long as anything that it has said waits.
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

    /// Ends the connection when the token of its pass expires or is ended, if it has one, and no
    /// more when that of the pass before does.
    pub(crate) fn enter(&self, connection: &Connection, pass: &Pass) {
        let Pass::Granted(access) = pass else { return };
        // First: it may expire at the same time.
        connection.keep(None);
        connection.is_of(&access.subject);
        let key = (access.expires_at_s.saturating_add(TOKEN_LEEWAY_S), connection.id());
        self.waiting().insert(key, (connection.downgrade(), Arc::clone(access)));
        connection.keep(Some(Expiry { expiries: self.clone(), key }));
        // Only now: it may have been ended since it was verified, when nobody found it here.
        if self.guard.as_ref().is_some_and(|guard| !guard.still_takes(access)) {
            connection.end(Ending::Bye(ByeReason::Unauthenticated));
        }
    }

    /// Ends those whose tokens have expired by this second.
    fn end(&self, now_s: u64) {
        loop {
            let mut waiting = self.waiting();
            let Some(next) = waiting.first_entry().filter(|it| it.key().0 <= now_s) else { return };
            let (connection, _) = next.remove();
            drop(waiting);
            if let Some(connection) = connection.upgrade() {
                connection.end(Ending::Bye(ByeReason::Unauthenticated));
            }
        }
    }

    /// Ends those whose tokens were ended, or have lost their key.
    pub(crate) fn end_others(&self, guard: &Guard) {
        let is_over = |(_, access): &(_, Arc<Access>)| !guard.still_takes(access);
        let over = self.waiting().extract_if(.., |_, it| is_over(it)).collect::<Vec<_>>();
        // The last that keeps one may be this, and it takes itself out.
        for (_, (connection, _)) in over {
            if let Some(connection) = connection.upgrade() {
                connection.end(Ending::Bye(ByeReason::Unauthenticated));
            }
        }
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
        let connections = [1, 2].map(|id| Connection::new(ConnId(id)).0);
        for (connection, expires_at_s) in connections.iter().zip([1_000, 1_001]) {
            expiries.enter(connection, &pass(expires_at_s));
        }
        let left = Connection::new(ConnId(3)).0;
        expiries.enter(&left, &pass(1_000));
        drop(left);
        assert_eq!(expiries.waiting().len(), 2, "one has left before");
        let ended = |now_s| {
            expiries.end(now_s);
            connections.each_ref().map(Connection::has_ended)
        };
        assert_eq!(ended(1_000 + TOKEN_LEEWAY_S - 1), [false, false]);
        assert_eq!(ended(1_000 + TOKEN_LEEWAY_S), [true, false]);
        assert_eq!(ended(1_001 + TOKEN_LEEWAY_S), [true, true]);
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
        expiries.enter(&before, &pass);
        assert!(!before.has_ended());
        guard.revoke(Arc::clone(access)).await.expect("ended");
        let after = Connection::new(ConnId(2)).0;
        expiries.enter(&after, &pass);
        assert!(after.has_ended());
        expiries.end_others(&guard);
        assert!(before.has_ended());
        drop((before, after));
        assert!(expiries.waiting().is_empty());
    }

    /// Goal: what a connection has said and nobody has begun is not done by a token that has ended
    /// since it was gone. Method: it has left, and something of it waits as its token is ended.
    #[tokio::test]
    async fn what_waits_of_a_connection_that_has_gone_is_of_a_token_that_ends_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let guard = Guard::open(folder.path(), &AccessSettings::default()).expect("usable");
        let expiries = Expiries::of(Some(Arc::new(guard)));
        let guard = expiries.guard.clone().expect("there is one");
        let pass = pass(u64::MAX);
        let Pass::Granted(access) = &pass else { panic!("it has a token") };
        let connection = Connection::new(ConnId(1)).0;
        expiries.enter(&connection, &pass);
        let waits = connection.clone();
        connection.end(Ending::Quiet);
        drop(connection);
        assert!(!waits.is_heard_no_more());
        guard.revoke(Arc::clone(access)).await.expect("ended");
        expiries.end_others(&guard);
        assert!(waits.is_heard_no_more());
        assert_eq!(*waits.ended().borrow(), Some(Ending::Quiet), "the first reason stands");
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
        expiries.enter(&connection, &pass(1_000));
        for _ in 0..20 {
            sleep(LOOKS_EVERY / 5).await;
            guard.ended.send_replace(());
        }
        assert!(connection.has_ended(), "it has expired in 1970");
    }
}
