//! Tokens that are renewed, and connections that end with theirs.

use tidelog_room::{ConnId, RoomInput};
use tidelog_sync::{ByeReason, FromRoom, FromServer};

use super::{Done, Host};
use crate::guard::{Let, Pass};

impl Host {
    /// By what a connection was let in.
    pub(crate) fn pass(&self, conn: ConnId) -> Option<&Pass> {
        self.guard.as_ref()?.pass(conn)
    }

    /// What a later token allows holds from here on.
    pub(super) fn renew(&mut self, conn: ConnId, token: &str, done: &mut Done) {
        let (Some(guard), Some(running)) = (&mut self.guard, &mut self.running) else {
            return done.sent.push((conn, FromServer::NotRenewed));
        };
        let (answer, before) = guard.renew(conn, token);
        done.sent.push((conn, answer));
        let (Some(before), Some(pass)) = (before, guard.pass(conn).cloned()) else { return };
        done.admitted.push((conn, pass.until_ms));
        let open = running.conns.get(&conn).filter(|_| before.role != pass.role);
        for (channel, document) in open.cloned().unwrap_or_default() {
            if let Some(role) = pass.role {
                let body = FromRoom::Allowed { role };
                done.sent.push((conn, FromServer::About { channel, body }));
            } else if let Let::Refuse(refusal) =
                guard.send_away(conn, channel, "the token says nothing of it")
            {
                let refuse = RoomInput::Refuse { conn, channel, refusal };
                running.tell(&document, refuse, &self.swarm, done);
            }
        }
    }

    /// The server lets a connection go, and says why.
    pub(crate) fn say_bye(&mut self, conn: ConnId) -> Done {
        let mut done = self.left(conn);
        let reason = ByeReason::Unauthenticated;
        done.sent.push((conn, FromServer::Bye { reason }));
        done
    }
}
