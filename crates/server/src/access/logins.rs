//! A password becomes a token.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder};
use std::time::Duration;

#[cfg(target_os = "linux")]
use thread_priority::ThreadPriority;
#[cfg(target_os = "linux")]
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use tidelog_access::{Grants, Login, Role};
use tidelog_types::limits::{LOGINS_AT_ONCE_MAX, LOGINS_WAITING_MAX};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use tracing::error;

use super::failures::Failures;
use super::known::Known;
use super::own::{hex, random};
use super::{Guard, now_s};

/// Seconds for which a login is valid.
const LIFETIME_S: u64 = 12 * 60 * 60;
/// When to try again where too many log in at once.
const BUSY_FOR: Duration = Duration::from_secs(1);
/// How long somebody waits for a turn, who is told to come again then.
const TURN_COMES_IN: Duration = Duration::from_secs(20);
/// How many times as long as a wrong password has taken nothing is checked behind it: whoever
/// guesses has a quarter of a processor at most of each queue, and right ones follow one another.
const WRONG_RESTS_FOR: u32 = 3;
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Logins that wait from networks which are [`Known`], and as many from all others.
const PLACES: usize = LOGINS_WAITING_MAX / 2;

/// How much less urgent than other threads one can be.
#[cfg(target_os = "linux")]
const LEAST_URGENT: i32 = 19;

/// What whoever logs in gets.
#[derive(Debug)]
pub(crate) struct LoggedIn {
    pub(crate) token: String,
    /// The second since 1970 at which the token expires.
    pub(crate) expires_at_s: u64,
}

/// Why somebody gets no token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LoginError {
    /// No such user, or another password: nobody is told which.
    Wrong,
    /// The address failed too often, or too many log in at once.
    TooMany {
        /// When to try again.
        after: Duration,
    },
    /// The server could not find out.
    Failed,
}

/// What bounds the work of logins.
#[derive(Default)]
pub(super) struct Logins {
    failures: Mutex<Failures>,
    known: Mutex<Known>,
    /// From networks that are known: none of them waits for a stranger's password to be checked.
    of_known: Queue,
    of_strangers: Queue,
}

/// Those whose passwords are to be checked, apart from others.
struct Queue {
    places: Semaphore,
    /// One for each password that may be checked at once.
    turns: Arc<Semaphore>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { places: Semaphore::new(PLACES), turns: Arc::new(Semaphore::new(LOGINS_AT_ONCE_MAX)) }
    }
}

impl Logins {
    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, address: IpAddr) -> Result<(), LoginError> {
        let wait = self.failures().wait(address, Instant::now());
        wait.map_or(Ok(()), |after| Err(LoginError::TooMany { after }))
    }
}

impl Guard {
    /// Checks a password, one of few at a time. Whoever goes away meanwhile has failed.
    pub(crate) async fn log_in(
        &self,
        address: IpAddr,
        user: String,
        password: String,
    ) -> Result<LoggedIn, LoginError> {
        self.logins.check(address)?;
        let busy = LoginError::TooMany { after: BUSY_FOR };
        let is_known = self.logins.known().has(address, Instant::now());
        let Logins { of_known, of_strangers, .. } = &self.logins;
        let queue = if is_known { of_known } else { of_strangers };
        let _place = queue.places.try_acquire().map_err(|_| busy)?;
        let turn = timeout(TURN_COMES_IN, Arc::clone(&queue.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| LoginError::TooMany { after: BUSY_FOR })?;
        let turn = turn.expect("BUG: turns are never closed");
        // Others of the same address may have failed meanwhile.
        self.logins.check(address)?;
        self.logins.failures().note(address, Instant::now());
        let users = Arc::clone(&self.users);
        let checked = behind_all_else(is_known, move |answer| {
            let began = Instant::now();
            let role = users.check(&user, &password);
            let is_wrong = role.is_none();
            answer(role.map(|role| (user, role)));
            if is_wrong {
                // A machine that was stopped meanwhile owes nobody hours.
                thread::sleep((began.elapsed() * WRONG_RESTS_FOR).min(LONGEST_REST));
            }
            drop(turn);
        });
        let checked = checked.await;
        // Where nothing could be checked, nobody has guessed wrong.
        if !matches!(checked, Some(None)) {
            self.logins.failures().take_back(address);
        }
        let (user, role) = checked.ok_or(LoginError::Failed)?.ok_or(LoginError::Wrong)?;
        self.logins.known().note(address, Instant::now());
        self.mint(&user, role)
    }

    fn mint(&self, subject: &str, role: Role) -> Result<LoggedIn, LoginError> {
        let (grants, token_id) = (Grants::on_everything(role), hex(&random::<16>()));
        // Those of this second are ended with the ones before, where the user's were just now.
        let revoked_until_s = self.revoked.known().revoked_until_s(subject);
        let now_s = now_s().max(revoked_until_s.map_or(0, |second| second.saturating_add(1)));
        let (token_id, lifetime_s) = (token_id.as_str(), LIFETIME_S);
        let login = Login { subject, grants: &grants, token_id, lifetime_s };
        let token = self.issuer.mint(&login, now_s).map_err(|error| {
            error!(%error, "no token can be made");
            LoginError::Failed
        })?;
        Ok(LoggedIn { token, expires_at_s: now_s.saturating_add(lifetime_s) })
    }
}

/// Runs work that takes a processor for long, on a thread of its own: those who have been let in
/// go first, as far as the system has threads take turns by how urgent they are. That of a stranger
/// stops for any of them at once. `None` if there is no thread for it, or it panicked before it
/// answered.
async fn behind_all_else<T: Send + 'static>(
    is_known: bool,
    work: impl FnOnce(Box<dyn FnOnce(T)>) + Send + 'static,
) -> Option<T> {
    let (done, result) = oneshot::channel();
    let run = move || {
        #[cfg(target_os = "linux")]
        yield_to_others(is_known);
        // Whoever has asked may have gone away.
        work(Box::new(|answer| drop(done.send(answer))));
    };
    let thread = Builder::new().name("password".to_owned()).spawn(run);
    if let Err(error) = thread {
        error!(%error, "no thread can be made to check a password");
        return None;
    }
    result.await.ok()
}

/// Has this thread give way. Elsewhere that would be so of all threads of the process. Where the
/// system does not allow it the password is checked all the same, as urgently as all else.
///
/// Linux lets even the least urgent thread finish a turn of some milliseconds before one that has
/// become ready, unless it is one for idle processors. On a server that is busy without a pause
/// that kind has a three-hundredth of a processor, and the other a seventieth.
#[cfg(target_os = "linux")]
fn yield_to_others(is_known: bool) {
    let _ = rustix::process::nice(LEAST_URGENT);
    if !is_known {
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        // The library asks for a nice value besides, which may be refused, and counts for nothing
        // in a thread of this kind.
        let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidelog_types::limits::LOGIN_FAILURES_MAX;

    use super::super::Pass;
    use super::super::failures::FORGIVEN_AFTER;
    use super::*;
    use crate::settings::{AccessSettings, Password};

    fn guard() -> Guard {
        let folder = tempfile::tempdir().expect("a folder");
        let passwords = BTreeMap::from([
            (Role::Admin, Password::Plain("a".to_owned())),
            (Role::Read, Password::Plain("r".to_owned())),
        ]);
        let settings = AccessSettings { passwords, ..AccessSettings::default() };
        Guard::open(folder.path(), &settings).expect("usable")
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn log_in(guard: &Guard, user: &str, password: &str) -> Result<LoggedIn, LoginError> {
        guard.log_in(HERE, user.to_owned(), password.to_owned()).await
    }

    #[tokio::test]
    async fn a_login_gives_the_role_of_its_user_on_everything() {
        let guard = guard();
        for (user, password, role) in [("admin", "a", Role::Admin), ("reader", "r", Role::Read)] {
            let LoggedIn { token, expires_at_s } =
                log_in(&guard, user, password).await.expect("logged in");
            let left_s = expires_at_s - now_s();
            assert!((LIFETIME_S - 60..=LIFETIME_S).contains(&left_s), "{left_s}");
            let pass = guard.verify(&token).expect("valid");
            let Pass::Granted(access) = &pass else { panic!("it has a token") };
            assert_eq!((access.subject.as_str(), access.expires_at_s), (user, expires_at_s));
            assert_eq!(pass.everywhere(), Some(role));
            let allowed = pass.for_document("any").expect("everything");
            assert_eq!((allowed.role, allowed.create), (role, role == Role::Admin));
        }
    }

    #[tokio::test]
    async fn a_wrong_password_is_refused_until_the_address_has_to_wait() {
        let guard = guard();
        for number in 0..LOGIN_FAILURES_MAX {
            let (user, password) = [("admin", "r"), ("nobody", "a")][number as usize % 2];
            assert_eq!(log_in(&guard, user, password).await.err(), Some(LoginError::Wrong));
        }
        let refused = log_in(&guard, "admin", "a").await;
        assert!(matches!(refused, Err(LoginError::TooMany { .. })), "{refused:?}");
        let elsewhere = IpAddr::V4([192, 0, 2, 1].into());
        let other = guard.log_in(elsewhere, "admin".to_owned(), "a".to_owned()).await;
        assert!(other.is_ok(), "nobody is locked out");
    }

    /// Goal: who comes in a crowd fails no more often than one by one. Method: many at once.
    #[tokio::test]
    async fn a_crowd_of_one_address_has_as_many_tries_as_one() {
        let (guard, began) = (guard(), Instant::now());
        let tries = (0..LOGINS_WAITING_MAX + 5).map(|_| log_in(&guard, "admin", "wrong"));
        let tried = futures_util::future::join_all(tries).await;
        let wrong = tried.iter().filter(|it| matches!(it, Err(LoginError::Wrong))).count();
        // Some are forgiven meanwhile, where the machine has much else to do.
        let forgiven = began.elapsed().as_secs() / FORGIVEN_AFTER.as_secs();
        let tries_max = u64::from(LOGIN_FAILURES_MAX) + forgiven;
        let tries = u64::from(LOGIN_FAILURES_MAX)..=tries_max;
        assert!(tries.contains(&(wrong as u64)), "{wrong} of {tries:?}");
    }

    /// Goal: whoever guesses leaves the processor to others, and is answered at once all the same.
    /// Method: once a wrong password is answered the turn is still taken, and comes back.
    #[tokio::test]
    async fn nothing_is_checked_for_a_while_behind_a_wrong_password() {
        let guard = guard();
        let mut rested = false;
        // On a busy machine the rest may be over before the answer is here.
        for _ in 0..LOGIN_FAILURES_MAX {
            assert_eq!(log_in(&guard, "admin", "r").await.err(), Some(LoginError::Wrong));
            rested |= guard.logins.of_known.turns.try_acquire().is_err();
            drop(guard.logins.of_known.turns.acquire().await.expect("open"));
        }
        assert!(rested);
    }

    /// Goal: whoever guesses takes no turn of a processor that others want. Method: the system is
    /// asked of what kind the threads are.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_strangers_password_is_checked_by_a_thread_for_idle_processors() {
        use thread_priority::unix::thread_schedule_policy;
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let sets = move || {
            let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
            thread_schedule_policy().is_ok_and(|policy| policy == idle)
        };
        let may_be_set = thread::spawn(sets).join().expect("no panic");
        for is_known in [false, true] {
            let policy = behind_all_else(is_known, |answer| answer(thread_schedule_policy())).await;
            let is_idle = policy.expect("a thread").expect("known") == idle;
            assert_eq!(is_idle, may_be_set && !is_known);
            let nice = || rustix::process::getpriority_process(None);
            let nice = behind_all_else(is_known, move |answer| answer(nice())).await;
            let is_least_urgent = nice.expect("a thread").expect("known") == LEAST_URGENT;
            assert!(is_idle || is_least_urgent, "as near to idle as it may be");
        }
        assert_ne!(thread_schedule_policy().expect("known"), idle, "this one is as urgent as ever");
    }

    #[tokio::test]
    async fn passwords_are_checked_one_at_a_time_and_few_wait() {
        let guard = guard();
        let Logins { of_known, of_strangers, .. } = &guard.logins;
        let stranger = IpAddr::V4([192, 0, 2, 1].into());
        for (queue, address) in [(of_known, HERE), (of_strangers, stranger)] {
            let log_in = || guard.log_in(address, "admin".to_owned(), "a".to_owned());
            let all = queue.turns.acquire_many(LOGINS_AT_ONCE_MAX as u32).await.expect("open");
            let mut waiting: Vec<_> = (0..PLACES).map(|_| Box::pin(log_in())).collect();
            for waits in &mut waiting {
                assert!(futures_util::poll!(waits.as_mut()).is_pending());
            }
            let too_many = Some(LoginError::TooMany { after: BUSY_FOR });
            assert_eq!(log_in().await.err(), too_many);
            // The first of them waits for as long as somebody does.
            tokio::time::pause();
            assert_eq!(waiting.remove(0).await.err(), too_many);
            tokio::time::resume();
            drop((waiting, all));
            assert!(log_in().await.is_ok());
        }
    }

    /// Goal: whoever has logged in lately does so again while strangers guess. Method: strangers
    /// take all the places that they may, and the one who is known comes last.
    #[tokio::test]
    async fn a_known_network_does_not_wait_behind_strangers() {
        let guard = guard();
        let log_in = |number, user: &str, password: &str| {
            let address = IpAddr::V4([192, 0, 2, number].into());
            guard.log_in(address, user.to_owned(), password.to_owned())
        };
        assert!(log_in(255, "admin", "a").await.is_ok());
        // One of theirs is being checked, which may take as long as all processors are busy.
        let _turn = guard.logins.of_strangers.turns.acquire().await.expect("open");
        let places = u8::try_from(PLACES).expect("few");
        let strangers = (0..places).map(|number| Box::pin(log_in(number, "admin", "wrong")));
        let mut strangers: Vec<_> = strangers.collect();
        for stranger in &mut strangers {
            assert!(futures_util::poll!(stranger.as_mut()).is_pending());
        }
        let refused = log_in(254, "admin", "a").await.err();
        assert_eq!(refused, Some(LoginError::TooMany { after: BUSY_FOR }));
        let known = log_in(255, "admin", "a").await;
        assert!(known.is_ok(), "{known:?}");
    }
}
