//! Who logged in, was refused, or changed the server: lines of the log under the target `audit`.
//! None has a token or a password in it, nor what may be one.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidelog_types::limits::AUDIT_LINES_MAX;
use tokio::time::Instant;
use tracing::info;

/// Who did something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Who {
    /// By the token; nobody without a valid one.
    pub(crate) subject: Option<String>,
    /// By the connection, or by what trusted proxies say.
    pub(crate) address: Option<IpAddr>,
}

/// Writes the lines. Of what clients do only so many are written in a second, and how many were
/// left out: nobody makes the log as long as they like. What changes the server is always told.
#[derive(Default)]
pub(crate) struct Audit(Mutex<Second>);

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
        if let Some(left_out) = self.line() {
            let subject = user;
            info!(target: "audit", event = "login", outcome, subject, %address, left_out);
        }
    }

    /// Somebody was refused for want of access: to the document, if it was about one.
    pub(crate) fn refused(&self, who: &Who, document: Option<&str>, why: &str) {
        if let Some(left_out) = self.line() {
            let Who { subject, address } = who;
            let (subject, address) = (subject.as_deref(), address.map(tracing::field::display));
            info!(target: "audit", event = "refused", why, subject, document, address, left_out);
        }
    }

    /// An admin changed something, or somebody their own tokens, and this came of it.
    pub(crate) fn act(&self, event: &str, who: &Who, what: Option<&str>, outcome: u16) {
        let Who { subject, address } = who;
        let (subject, address) = (subject.as_deref(), address.map(tracing::field::display));
        info!(target: "audit", event, subject, what, address, outcome);
    }

    /// Whether a line may be written, and how many were left out before it, if any.
    fn line(&self) -> Option<Option<u64>> {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

#[cfg(test)]
mod tests {
    use super::*;

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
