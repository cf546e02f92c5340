//! Tokens that ended before they expired.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use tidelog_types::limits::{REVOKED_SUBJECTS_MAX, REVOKED_TOKENS_MAX, TOKEN_LEEWAY_S};

use crate::claims::is_name;
use crate::{Access, RevocationError, TokenError};

/// Tokens that ended before they expired, for the server to keep in its store: at most
/// [`REVOKED_TOKENS_MAX`] tokens and [`REVOKED_SUBJECTS_MAX`] subjects.
///
/// A subject is kept for good: nobody knows how late the last of its tokens expires.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Revocations {
    /// By `jti`, the second since 1970 at which the token expires, and its subject.
    tokens: BTreeMap<String, (u64, String)>,
    /// The second since 1970 by which a subject's tokens were issued that are revoked.
    subjects: BTreeMap<String, u64>,
    /// The same of everybody's tokens.
    everybody: Option<u64>,
}

/// What a store may hold, before its bounds are checked. What else a later release ends would be
/// let in again by one that passed over it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    tokens: BTreeMap<String, (u64, String)>,
    subjects: BTreeMap<String, u64>,
    everybody: Option<u64>,
}

/// Seconds for which a token that has expired is kept as revoked: a clock that was fast when it was
/// looked at may be put back.
const KEPT_S: u64 = 24 * 60 * 60;

impl Revocations {
    /// Ends this token, which is held at the second `now_s` since 1970: by its `jti`, or by a hash
    /// if it has none. All tokens of that id end, so whoever signs them gives no two the same.
    ///
    /// Where there is no room for it, all tokens of the subject that has ended most of them
    /// [end](Self::revoke_subject), if that are very many, and take the room of none: nobody keeps
    /// others from ending theirs. Gives that subject.
    ///
    /// # Errors
    ///
    /// [`RevocationError`] if no token has such a name, or too many tokens or subjects are revoked;
    /// [`Revocations::prune`] makes room for tokens.
    pub fn revoke(
        &mut self,
        access: &Access,
        now_s: u64,
    ) -> Result<Option<String>, RevocationError> {
        let (name, subject) = (access.name(), &access.subject);
        check_name(&name)?;
        check_name(subject)?;
        let is_full = self.tokens.len() >= REVOKED_TOKENS_MAX && !self.tokens.contains_key(&*name);
        let ended = if is_full { Some(self.make_room(now_s)?) } else { None };
        let begins = || (access.expires_at_s, subject.clone());
        let (expires_at_s, _) = self.tokens.entry(name.into_owned()).or_insert_with(begins);
        *expires_at_s = access.expires_at_s.max(*expires_at_s);
        Ok(ended)
    }

    fn make_room(&mut self, now_s: u64) -> Result<String, RevocationError> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, subject) in self.tokens.values() {
            *counts.entry(subject).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        // Where all have ended a few nobody is to blame, and little room is made.
        let most = most.filter(|(_, count)| *count >= REVOKED_TOKENS_MAX / 100);
        let most = most.map(|(it, _)| it.to_owned()).ok_or(RevocationError::Full)?;
        self.revoke_subject(&most, now_s)?;
        self.tokens.retain(|_, (_, subject)| *subject != most);
        Ok(most)
    }

    /// Until which second since 1970 a subject's tokens were issued that are revoked, if any are.
    #[must_use]
    pub fn revoked_until_s(&self, subject: &str) -> Option<u64> {
        self.subjects.get(subject).copied().max(self.everybody)
    }

    /// Ends all tokens of a subject that were issued at this second since 1970 or before, and those
    /// that do not say when. One that is issued later in the same second is revoked with them, and
    /// so is an app's that is issued within [`TOKEN_LEEWAY_S`], by which its clock may be ahead.
    ///
    /// # Errors
    ///
    /// [`RevocationError`] if no token has such a subject, or too many subjects are revoked.
    pub fn revoke_subject(
        &mut self,
        subject: &str,
        issued_by_s: u64,
    ) -> Result<(), RevocationError> {
        check_name(subject)?;
        if self.subjects.len() >= REVOKED_SUBJECTS_MAX && !self.subjects.contains_key(subject) {
            return Err(RevocationError::Full);
        }
        let until_s = self.subjects.entry(subject.to_owned()).or_default();
        *until_s = issued_by_s.max(*until_s);
        Ok(())
    }

    /// Ends all tokens that were issued at this second since 1970 or before, and those that do not
    /// say when: what was revoked later than a backup was made, a restore of it cannot know.
    pub fn revoke_all(&mut self, issued_by_s: u64) {
        self.everybody = self.everybody.max(Some(issued_by_s));
    }

    /// Lets a subject's tokens pass again, but for those that are revoked by their id, or with
    /// everybody's: where [there was no room](Self::revoke) for the ids, all of them. Says whether
    /// the subject was revoked.
    pub fn forgive_subject(&mut self, subject: &str) -> bool {
        self.subjects.remove(subject).is_some()
    }

    /// Takes back that [everybody's tokens](Self::revoke_all) are revoked. Says whether they were.
    pub fn forgive_everybody(&mut self) -> bool {
        self.everybody.take().is_some()
    }

    /// Whether the token was revoked.
    #[must_use]
    pub fn is_revoked(&self, access: &Access) -> bool {
        let by_name = self.tokens.contains_key(access.name().as_ref());
        // The clock of an app may be ahead of the server's by as much as its tokens may say.
        let ahead_s = if access.is_own { 0 } else { TOKEN_LEEWAY_S };
        let is_among = |issued_by_s: u64| {
            let last_s = issued_by_s.saturating_add(ahead_s);
            access.issued_at_s.is_none_or(|issued_at_s| issued_at_s <= last_s)
        };
        let by_subject = self.subjects.get(&access.subject).copied().is_some_and(is_among);
        by_name || by_subject || self.everybody.is_some_and(is_among)
    }

    /// [`Revocations::is_revoked`] as an error.
    ///
    /// # Errors
    ///
    /// [`TokenError::Revoked`] if it was.
    pub fn check(&self, access: &Access) -> Result<(), TokenError> {
        if self.is_revoked(access) { Err(TokenError::Revoked) } else { Ok(()) }
    }

    /// Forgets tokens that have expired by the second `now_s` since 1970, and a day before: a clock
    /// that is an hour fast now and put back then lets none of them pass again.
    pub fn prune(&mut self, now_s: u64) {
        let is_kept = |expires_at_s: u64| now_s < expires_at_s.saturating_add(KEPT_S);
        self.tokens.retain(|_, (expires_at_s, _)| is_kept(*expires_at_s));
    }
}

fn check_name(name: &str) -> Result<(), RevocationError> {
    if is_name(name) { Ok(()) } else { Err(RevocationError::Name) }
}

impl TryFrom<Stored> for Revocations {
    type Error = RevocationError;

    fn try_from(stored: Stored) -> Result<Self, RevocationError> {
        let subjects = stored.tokens.values().map(|(_, subject)| subject);
        let names = stored.tokens.keys().chain(subjects).chain(stored.subjects.keys());
        if !names.map(String::as_str).all(is_name) {
            return Err(RevocationError::Name);
        }
        if stored.tokens.len() > REVOKED_TOKENS_MAX || stored.subjects.len() > REVOKED_SUBJECTS_MAX
        {
            return Err(RevocationError::Full);
        }
        let Stored { tokens, subjects, everybody } = stored;
        Ok(Self { tokens, subjects, everybody })
    }
}

impl fmt::Display for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revoked: tokens {} subjects {}", self.tokens.len(), self.subjects.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Grants;

    fn access(subject: &str, token_id: Option<&str>, issued_at_s: Option<u64>) -> Access {
        Access {
            subject: subject.to_owned(),
            grants: Grants::default(),
            expires_at_s: 2_000,
            issued_at_s,
            token_id: token_id.map(str::to_owned),
            signed: [1; 32],
            key: None,
            is_own: false,
        }
    }

    /// Ends a token of this subject and name, which expires at 2,000.
    fn revoke(
        revoked: &mut Revocations,
        subject: &str,
        name: &str,
    ) -> Result<Option<String>, RevocationError> {
        revoked.revoke(&access(subject, Some(name), None), 1_000)
    }

    /// Goal: nobody is ended who has ended few. Method: as many as there is room for end one each.
    #[test]
    fn where_all_have_ended_a_few_there_is_no_room_and_nobody_else_is_ended() {
        let mut revoked = Revocations::default();
        for index in 0..REVOKED_TOKENS_MAX {
            revoke(&mut revoked, &index.to_string(), &index.to_string()).expect("room");
        }
        assert_eq!(revoke(&mut revoked, "a", "one more"), Err(RevocationError::Full));
        assert_eq!(revoked.to_string(), "revoked: tokens 100000 subjects 0");
        revoked.prune(2_000 + KEPT_S);
        assert_eq!(revoke(&mut revoked, "a", "one more"), Ok(None));
    }

    #[test]
    fn a_revoked_token_is_refused_and_others_are_not() {
        let mut revoked = Revocations::default();
        revoke(&mut revoked, "a", "t1").expect("revoked");
        assert_eq!(revoked.check(&access("a", Some("t1"), None)), Err(TokenError::Revoked));
        assert_eq!(revoked.check(&access("a", Some("t2"), None)), Ok(()));
        assert_eq!(revoked.check(&access("a", None, None)), Ok(()));
        assert_eq!(revoked.check(&access("t1", None, None)), Ok(()), "a subject of that name");
    }

    #[test]
    fn a_token_without_an_id_is_revoked_by_itself() {
        let mut revoked = Revocations::default();
        let [one, other] =
            [[1; 32], [2; 32]].map(|signed| Access { signed, ..access("a", None, None) });
        revoked.revoke(&one, 1_000).expect("revoked");
        assert!(revoked.is_revoked(&one) && !revoked.is_revoked(&other));
        let named = access("a", Some("t1"), None);
        assert!(!revoked.is_revoked(&named));
        revoked.revoke(&named, 1_000).expect("revoked");
        assert!(revoked.is_revoked(&Access { signed: [3; 32], ..named }), "by its id");
        let json = serde_json::to_string(&revoked).expect("serialised");
        assert_eq!(serde_json::from_str::<Revocations>(&json).expect("parsed"), revoked);
        assert_eq!(revoked.to_string(), "revoked: tokens 2 subjects 0");
    }

    #[test]
    fn a_subjects_tokens_are_revoked_up_to_a_second() {
        let mut revoked = Revocations::default();
        revoked.revoke_subject("a", 1_000).expect("revoked");
        assert!(revoked.is_revoked(&access("a", None, Some(999))));
        let last_s = 1_000 + TOKEN_LEEWAY_S;
        assert!(revoked.is_revoked(&access("a", None, Some(last_s))), "its app's clock is ahead");
        assert!(!revoked.is_revoked(&access("a", None, Some(last_s + 1))));
        assert!(!revoked.is_revoked(&access("b", Some("a"), Some(1))));
        let own = |issued_at_s| Access { is_own: true, ..access("a", None, Some(issued_at_s)) };
        assert!(revoked.is_revoked(&own(1_000)));
        assert!(!revoked.is_revoked(&own(1_001)), "the clock is the server's");
        assert!(!revoked.forgive_subject("b"), "nothing of it is");
        assert!(revoked.forgive_subject("a") && !revoked.forgive_subject("a"));
        assert!(!revoked.is_revoked(&own(1)));
    }

    #[test]
    fn everybodys_tokens_are_revoked_up_to_a_second() {
        let mut revoked = Revocations::default();
        for second in [1_000, 500] {
            revoked.revoke_all(second);
        }
        assert!(revoked.is_revoked(&access("a", None, None)));
        assert!(revoked.is_revoked(&access("a", None, Some(1_000))));
        assert!(!revoked.is_revoked(&access("a", None, Some(1_001 + TOKEN_LEEWAY_S))));
        assert!(!revoked.forgive_subject("a"));
        let mut forgiven = revoked.clone();
        assert!(forgiven.forgive_everybody() && !forgiven.forgive_everybody());
        assert!(!forgiven.is_revoked(&access("a", None, None)));
        let json = serde_json::to_string(&revoked).expect("serialised");
        assert_eq!(serde_json::from_str::<Revocations>(&json).expect("parsed"), revoked);
    }

    #[test]
    fn a_token_that_does_not_say_when_it_was_issued_is_revoked_with_its_subject() {
        let mut revoked = Revocations::default();
        revoked.revoke_subject("a", 0).expect("revoked");
        assert!(revoked.is_revoked(&access("a", None, None)));
    }

    #[test]
    fn an_earlier_revocation_takes_nothing_back() {
        let mut revoked = Revocations::default();
        for second in [1_000, 500] {
            revoked.revoke_subject("a", second).expect("revoked");
            let token = access("b", Some("t"), None);
            revoked.revoke(&Access { expires_at_s: second, ..token }, 1).expect("revoked");
        }
        assert!(revoked.is_revoked(&access("a", None, Some(1_000))));
        revoked.prune(999 + KEPT_S);
        assert!(revoked.is_revoked(&access("b", Some("t"), None)));
    }

    #[test]
    fn a_revocation_lasts_as_long_as_the_token_would_pass() {
        let mut revoked = Revocations::default();
        revoke(&mut revoked, "b", "t").expect("revoked");
        revoked.revoke_subject("a", 1_000).expect("revoked");
        let token = access("b", Some("t"), None);
        revoked.prune(2_000 + KEPT_S - 1);
        assert!(token.is_expired(2_000 + TOKEN_LEEWAY_S) && KEPT_S > TOKEN_LEEWAY_S);
        assert!(revoked.is_revoked(&token), "a clock may be put back");
        revoked.prune(2_000 + KEPT_S);
        assert_eq!(revoked.to_string(), "revoked: tokens 0 subjects 1");
    }

    #[test]
    fn too_many_revocations_are_refused_and_none_is_forgotten() {
        let mut revoked = Revocations::default();
        for index in 0..REVOKED_SUBJECTS_MAX {
            revoked.revoke_subject(&index.to_string(), 1).expect("room");
        }
        assert_eq!(revoked.revoke_subject("one more", 1), Err(RevocationError::Full));
        assert_eq!(revoked.revoke_subject("0", 2), Ok(()), "known already");
        assert!(revoked.is_revoked(&access("0", None, Some(2))));
    }

    /// Goal: nobody keeps others from ending their tokens. Method: one ends as many as there is
    /// room for, beside a few of others, and these end theirs.
    #[test]
    fn where_there_is_no_room_all_tokens_end_of_who_ended_most() {
        let mut revoked = Revocations::default();
        for index in 0..10 {
            revoke(&mut revoked, "a", &format!("a {index}")).expect("room");
        }
        for index in 0..REVOKED_TOKENS_MAX - 10 {
            revoke(&mut revoked, "eve", &index.to_string()).expect("room");
        }
        revoke(&mut revoked, "eve", "0").expect("known already");
        assert_eq!(revoked.to_string(), "revoked: tokens 100000 subjects 0");
        let ended = revoke(&mut revoked, "b", "one more").expect("room is made");
        assert_eq!(ended.as_deref(), Some("eve"));
        assert_eq!(revoked.to_string(), "revoked: tokens 11 subjects 1");
        let is_revoked = |subject, name, issued_at_s| {
            revoked.is_revoked(&access(subject, Some(name), Some(issued_at_s)))
        };
        assert!(is_revoked("b", "one more", 1) && is_revoked("a", "a 9", 1));
        assert!(!is_revoked("a", "a 10", 1) && !is_revoked("b", "b", 1));
        let last_s = 1_000 + TOKEN_LEEWAY_S;
        assert!(is_revoked("eve", "0", last_s) && is_revoked("eve", "any", last_s));
        assert!(!is_revoked("eve", "later", last_s + 1), "who logs in anew is let in");
        revoked.prune(2_000 + KEPT_S);
        assert_eq!(revoked.to_string(), "revoked: tokens 0 subjects 1");
    }

    #[test]
    fn what_no_token_is_named_is_not_revoked() {
        let long = "a".repeat(257);
        for name in ["", "a\n", long.as_str()] {
            let mut revoked = Revocations::default();
            assert_eq!(revoke(&mut revoked, name, "t"), Err(RevocationError::Name));
            assert_eq!(revoke(&mut revoked, "a", name), Err(RevocationError::Name));
            assert_eq!(revoked.revoke_subject(name, 1), Err(RevocationError::Name));
        }
    }

    #[test]
    fn revocations_are_read_as_they_were_written() {
        let mut revoked = Revocations::default();
        revoke(&mut revoked, "b", "t").expect("revoked");
        revoked.revoke_subject("a", 1_000).expect("revoked");
        let json = serde_json::to_string(&revoked).expect("serialised");
        assert_eq!(json, r#"{"tokens":{"t":[2000,"b"]},"subjects":{"a":1000},"everybody":null}"#);
        assert_eq!(serde_json::from_str::<Revocations>(&json).expect("parsed"), revoked);
        for odd in [r#""":[2000,"b"]"#, r#""t":[2000,""]"#] {
            let odd = format!(r#"{{"tokens":{{{odd}}},"subjects":{{}},"everybody":null}}"#);
            assert!(serde_json::from_str::<Revocations>(&odd).is_err());
        }
        let many = (0..=REVOKED_SUBJECTS_MAX).map(|it| (it.to_string(), 1)).collect();
        let stored = Stored { tokens: BTreeMap::new(), subjects: many, everybody: None };
        assert_eq!(Revocations::try_from(stored), Err(RevocationError::Full));
    }
}
