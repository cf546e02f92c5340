//! What a server does around its rooms with tokens, as the shell of the real one does: who is let
//! in, what each may do by now, and until when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidelog_room::{ConnId, May, Speaker};
use tidelog_sync::{ByeReason, Channel, FromServer, Refusal, ToRoom};
use tidelog_types::Role;

/// What a token says. The server's clock alone counts for how long it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) subject: String,
    /// What it allows with every document; `None` if it says nothing of any.
    pub(crate) role: Option<Role>,
    pub(crate) until_ms: u64,
}

impl Pass {
    /// The token that says so.
    pub(crate) fn token(&self) -> String {
        let Self { subject, role, until_ms } = self;
        format!("{subject} {} {until_ms}", role.map_or("nothing", Role::name))
    }

    fn of_token(token: &str) -> Option<Self> {
        let [subject, role, until_ms] = token.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        let role = role.parse().ok();
        Some(Self { subject: subject.to_owned(), role, until_ms: until_ms.parse().ok()? })
    }

    /// Whoever may write may begin documents, too.
    fn speaker(&self) -> Speaker {
        let is_writer = self.role >= Some(Role::Write);
        let may = if is_writer { May::Create } else { May::Follow };
        Speaker { may, handles: false, subject: Some(Arc::from(self.subject.as_str())) }
    }
}

/// Who is let in, and by what.
#[derive(Default)]
pub(crate) struct Guard {
    pub(crate) now_ms: u64,
    /// Whose tokens are refused: they were withdrawn, or the key is lost that had signed them.
    revoked: BTreeSet<String>,
    passes: BTreeMap<ConnId, Pass>,
    /// Channels of which nothing is heard before they are opened again.
    sent_away: BTreeSet<(ConnId, Channel)>,
}

/// What follows from a message at the door.
pub(crate) enum Let {
    /// It goes on to its room.
    Through(Speaker),
    /// Nothing of it goes any further; whoever is on that channel is sent away.
    Refuse(Refusal),
    /// It goes nowhere.
    Nothing,
}

impl Guard {
    /// The process has begun anew.
    pub(crate) fn forget_all(&mut self) {
        self.passes.clear();
        self.sent_away.clear();
    }

    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.passes.remove(&conn);
        self.sent_away.retain(|(on, _)| *on != conn);
    }

    /// No token of this user is taken from now on, or again.
    pub(crate) fn revoke(&mut self, subject: &str, is_revoked: bool) {
        match is_revoked {
            true => self.revoked.insert(subject.to_owned()),
            false => self.revoked.remove(subject),
        };
    }

    /// The connections whose pass is such.
    pub(crate) fn conns(&self, is_it: impl Fn(&Pass) -> bool) -> Vec<ConnId> {
        self.passes.iter().filter(|(_, pass)| is_it(pass)).map(|(conn, _)| *conn).collect()
    }

    pub(crate) fn pass(&self, conn: ConnId) -> Option<&Pass> {
        self.passes.get(&conn)
    }

    fn verify(&self, token: &str) -> Option<Pass> {
        let pass = Pass::of_token(token)?;
        let is_good = self.now_ms < pass.until_ms && !self.revoked.contains(&pass.subject);
        is_good.then_some(pass)
    }

    fn admitted(&self, conn: ConnId) -> FromServer {
        let pass = &self.passes[&conn];
        let seconds_left = (pass.until_ms - self.now_ms) / 1_000;
        FromServer::Admitted { subject: pass.subject.clone(), seconds_left }
    }

    /// What is answered to a hello; the last of it says whether it is let in.
    pub(crate) fn greet(&mut self, conn: ConnId, token: Option<&str>) -> Vec<FromServer> {
        if self.passes.contains_key(&conn) {
            return vec![FromServer::Welcome];
        }
        let Some(pass) = token.and_then(|token| self.verify(token)) else {
            return vec![FromServer::Bye { reason: ByeReason::Unauthenticated }];
        };
        self.passes.insert(conn, pass);
        vec![self.admitted(conn), FromServer::Welcome]
    }

    /// A later token of the same user takes the place of the one before. Gives that if it is taken.
    pub(crate) fn renew(&mut self, conn: ConnId, token: &str) -> (FromServer, Option<Pass>) {
        let renewed = self.verify(token);
        let before = self.passes.get(&conn).cloned();
        match (before, renewed) {
            (Some(before), Some(pass)) if before.subject == pass.subject => {
                self.passes.insert(conn, pass);
                (self.admitted(conn), Some(before))
            }
            _ => (FromServer::NotRenewed, None),
        }
    }

    /// What becomes of a message on a channel that is open, or opened by it.
    pub(crate) fn takes(&mut self, conn: ConnId, channel: Channel, message: &ToRoom) -> Let {
        let Some(pass) = self.passes.get(&conn) else { return Let::Nothing };
        let (speaker, at) = (pass.speaker(), (conn, channel));
        match message {
            ToRoom::Open { .. } if pass.role.is_none() => {
                return Let::Refuse(no_access("the token says nothing of it"));
            }
            ToRoom::Open { .. } => _ = self.sent_away.remove(&at),
            ToRoom::Close => return Let::Through(speaker),
            _ if self.sent_away.contains(&at) => return Let::Nothing,
            ToRoom::Seed { .. } if speaker.may < May::Create => {
                return self.send_away(conn, channel, "the token does not allow to hand it over");
            }
            _ => {}
        }
        Let::Through(speaker)
    }

    /// Nothing more is heard of a channel until it is opened again.
    pub(crate) fn send_away(&mut self, conn: ConnId, channel: Channel, why: &str) -> Let {
        match self.sent_away.insert((conn, channel)) {
            true => Let::Refuse(no_access(why)),
            false => Let::Nothing,
        }
    }
}

fn no_access(reason: &str) -> Refusal {
    Refusal::Access { reason: reason.to_owned() }
}
