//! Who logged in, was refused, or changed the server: lines of the log under the target `audit`.
//! None has a token or a password in it, nor what may be one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidelog_types::limits::{AUDIT_LINES_MAX, DOCUMENT_NAME_SIZE_MAX};
use tokio::time::Instant;
use tracing::info;

/// What came of a login by which somebody was let in.
pub(crate) const LET_IN: &str = "ok";

/// How often it is told at most that a subject has too many connections: its clients come back by
/// themselves, all of them.
const CROWDED_EVERY: Duration = Duration::from_secs(60);

/// Who did something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Who {
    /// By the token; nobody without a valid one.
    pub(crate) subject: Option<String>,
    /// By the connection, or by what trusted proxies say.
    pub(crate) address: Option<IpAddr>,
}

/// Writes the lines. Of what clients do only so many are written in a second, and how many were
/// left out, and no line is longer than what it may be about: nobody makes the log as long as they
/// like. What changes the server is always told, and who was let in: what is left out then never
/// hides the one guess that was right.
#[derive(Default)]
pub(crate) struct Audit {
    second: Mutex<Second>,
    /// The subjects of which it was told lately that they have too many connections: few can have
    /// that many.
    crowded: Mutex<BTreeMap<String, Instant>>,
}

#[derive(Default)]
struct Second {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Audit {
    /// Somebody tried to log in as this user, if there is such a one: what else was said may be a
    /// password in the wrong field.
    pub(crate) fn login(&self, user: Option<&str>, address: IpAddr, outcome: &str) {
        let Some(left_out) = self.line_for(outcome == LET_IN) else { return };
        info!(target: "audit", event = "login", outcome, subject = user, %address, left_out);
    }

    /// Somebody was refused for want of access: to the document, if it was about one.
    pub(crate) fn refused(&self, who: &Who, document: Option<&str>, why: &str) {
        if let Some(left_out) = self.line() {
            let Who { subject, address } = who;
            let (subject, address) = (subject.as_deref(), address.map(tracing::field::display));
            let document = document.map(clipped);
            info!(target: "audit", event = "refused", why, subject, document, address, left_out);
        }
    }

    /// Somebody was refused since their subject has as many connections as it may.
    pub(crate) fn crowded(&self, subject: &str, who: &Who) {
        let mut told = self.crowded.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        told.retain(|_, at| now - *at < CROWDED_EVERY);
        if let Entry::Vacant(place) = told.entry(subject.to_owned()) {
            place.insert(now);
            self.refused(who, None, "too many connections");
        }
    }

    /// An admin changed something, or somebody their own tokens, and this came of it. What was
    /// wrong with the request, and so changed nothing, can be said as often as anybody likes.
    pub(crate) fn act(&self, event: &str, who: &Who, what: Option<&str>, outcome: u16) {
        let is_wrong = (400..500).contains(&outcome);
        let Some(left_out) = self.line_for(!is_wrong) else { return };
        let what = what.map(clipped);
        let Who { subject, address } = who;
        let (subject, address) = (subject.as_deref(), address.map(tracing::field::display));
        info!(target: "audit", event, subject, what, address, outcome, left_out);
    }

    /// The same as [`line`](Self::line) for one that is left out unless it `must` be told.
    fn line_for(&self, must: bool) -> Option<Option<u64>> {
        if must { Some(None) } else { self.line() }
    }

    /// Whether a line may be written, and how many were left out before it, if any.
    fn line(&self) -> Option<Option<u64>> {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if second.began.is_none_or(|began| now - began >= Duration::from_secs(1)) {
            (second.began, second.lines) = (Some(now), 0);
        }
        if second.lines >= AUDIT_LINES_MAX {
            second.left_out += 1;
            return None;
        }
        second.lines += 1;
        let left_out = std::mem::take(&mut second.left_out);
        Some((left_out > 0).then_some(left_out))
    }
}

/// A name as far as a document's may go: what is longer is of none, and anybody may have said it.
fn clipped(name: &str) -> &str {
    &name[..name.floor_char_boundary(DOCUMENT_NAME_SIZE_MAX)]
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    /// What is written to the log meanwhile.
    fn logged(work: impl FnOnce()) -> String {
        let (mut file, log) = (tempfile::tempfile().expect("a file"), &mut String::new());
        let writer = file.try_clone().expect("the same");
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(Mutex::new(writer));
        tracing::subscriber::with_default(lines.finish(), work);
        file.rewind().expect("a file");
        file.read_to_string(log).expect("a text");
        log.clone()
    }

    /// Goal: a line is as long as what it may be about. Method: a name that no document can have.
    #[test]
    fn nobody_makes_a_line_as_long_as_they_like() {
        let name = "é".repeat(16 * 1024);
        let log = logged(|| Audit::default().refused(&Who::default(), Some(&name), "no grant"));
        assert!(log.contains("éé") && log.len() < 2 * DOCUMENT_NAME_SIZE_MAX, "{log}");
        let log = logged(|| Audit::default().act("delete", &Who::default(), Some(&name), 204));
        assert!(log.contains("éé") && log.len() < 2 * DOCUMENT_NAME_SIZE_MAX, "{log}");
    }

    /// Goal: who may do something and fails at it makes the log no longer than whoever may not.
    /// Method: as many who fail as who do not.
    #[test]
    fn only_what_changes_the_server_is_always_told() {
        let count = 2 * AUDIT_LINES_MAX as usize;
        for (outcome, written) in [(400, AUDIT_LINES_MAX as usize), (201, count), (503, count)] {
            let audit = Audit::default();
            let act = || audit.act("import", &Who::default(), Some("a"), outcome);
            let log = logged(|| (0..count).for_each(|_| act()));
            assert_eq!(log.lines().count(), written, "{outcome}");
        }
    }

    /// Goal: whoever guesses many passwords does not hide the right one. Method: one that is right
    /// among more wrong ones than are told.
    #[test]
    fn a_login_is_told_however_many_fail() {
        let (audit, address) = (Audit::default(), IpAddr::from([192, 0, 2, 1]));
        let log = logged(|| {
            for _ in 0..2 * AUDIT_LINES_MAX {
                audit.login(Some("admin"), address, "wrong");
            }
            audit.login(Some("admin"), address, LET_IN);
        });
        assert_eq!(log.matches("outcome=\"wrong\"").count(), AUDIT_LINES_MAX as usize);
        assert_eq!(log.matches("outcome=\"ok\"").count(), 1, "{log}");
    }

    /// Goal: a crowd that comes back again and again fills no log. Method: two subjects, and a
    /// minute later.
    #[tokio::test(start_paused = true)]
    async fn a_subject_with_too_many_connections_is_told_once_a_minute() {
        let audit = Audit::default();
        let refuse_many = || {
            for subject in ["ada", "bob"].repeat(9) {
                let who = Who { subject: Some(subject.to_owned()), ..Who::default() };
                audit.crowded(subject, &who);
            }
        };
        let log = logged(refuse_many);
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.contains("too many connections") && log.contains("ada"), "{log}");
        tokio::time::advance(CROWDED_EVERY).await;
        assert_eq!(logged(refuse_many).lines().count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_lines_are_written_in_a_second_and_it_is_told_how_many_were_not() {
        let audit = Audit::default();
        let written = (0..2 * AUDIT_LINES_MAX).filter(|_| audit.line() == Some(None)).count();
        assert_eq!(written, AUDIT_LINES_MAX as usize);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(audit.line(), Some(Some(u64::from(AUDIT_LINES_MAX))));
        assert_eq!(audit.line(), Some(None));
    }
}
