//! What a server that asks for tokens makes of frames that a token does not cover.

use tidelog_room::ConnId;
use tidelog_sync::{FromServer, Intent, ToServer};
use tidelog_types::{ClientId, Role};

use super::{Stranger, notes, open};
use crate::guard::Pass;

/// Until when its tokens are good; the clock of this server stands still.
const UNTIL_MS: u64 = 60_000;

fn token(subject: &str, role: Option<Role>) -> String {
    Pass { subject: subject.to_owned(), role, until_ms: UNTIL_MS }.token()
}

impl Stranger {
    /// Comes anew, by this token.
    fn comes_by(&mut self, token: Option<String>) -> Result<Vec<FromServer>, String> {
        let conn = self.conn();
        let left = self.host.left(conn);
        self.settle(left)?;
        let hello = ToServer::Hello { client: ClientId([1; 16]), token };
        let done = self.host.hear(conn, hello);
        self.heard.clear();
        Ok(done.sent.into_iter().map(|(_, message)| message).collect())
    }

    fn renews(&mut self, conn: ConnId, token: String) -> Result<Vec<FromServer>, String> {
        let mut done = self.host.hear(conn, ToServer::Renew { token });
        let is_about = |message: &FromServer| matches!(message, FromServer::About { .. });
        let answer = done.sent.extract_if(.., |(_, message)| !is_about(message));
        let answer = answer.map(|(_, message)| message).collect();
        self.settle(done)?;
        Ok(answer)
    }
}

/// Goal: a frame changes something only by a token that allows that, of the user that it names; any
/// other is kept nowhere, and the same frame is applied later if a token covers it then.
pub(super) fn tell(stranger: &mut Stranger) -> Result<(), String> {
    let let_in = |answer: &[FromServer]| matches!(answer, [FromServer::Admitted { .. }, ..]);
    let conn = stranger.conn();
    for refused in [None, Some("nonsense".to_owned())] {
        let answer = stranger.comes_by(refused)?;
        if !matches!(answer[..], [FromServer::Bye { .. }]) {
            return Err(format!("one without a token is answered {answer:?}"));
        }
    }
    let (follow, have) = (|have| open(&notes(1), have, Intent::Follow), None);
    // Its frames name nobody, and nobody is whom this token is of.
    if !let_in(&stranger.comes_by(Some(token("ada", Some(Role::Write))))?) {
        return Err("ada is not let in".to_owned());
    }
    let opened = ["may write", "opened from 1 wanted 1 lives 0", "entry 1..2"];
    stranger.says(1, follow(have), &opened)?;
    let frames = stranger.frames(1, 1, &["add", "add"]);
    stranger.says(1, frames, &["no access"])?;
    let frames = stranger.frames(1, 1, &["add"]);
    stranger.says(1, frames, &[])?;
    // Nothing of it is there.
    stranger.says(
        1,
        follow(stranger.position),
        &["may write", "opened from 2 wanted 1 lives 0"],
    )?;

    // One who may only read, and may write later, on the same channel and on the next.
    if !let_in(&stranger.comes_by(Some(token("", Some(Role::Read))))?) {
        return Err("a reader is not let in".to_owned());
    }
    let opened = ["may read", "opened from 2 wanted 1 lives 0"];
    stranger.says(1, follow(stranger.position), &opened)?;
    let frames = stranger.frames(1, 1, &["add"]);
    stranger.says(1, frames, &["forbidden 1"])?;
    let answer = stranger.renews(conn, token("ada", Some(Role::Write)))?;
    if !matches!(answer[..], [FromServer::NotRenewed]) {
        return Err(format!("another user's token is answered {answer:?}"));
    }
    stranger.hears(1, &[])?;
    if !let_in(&stranger.renews(conn, token("", Some(Role::Write)))?) {
        return Err("a later token is not taken".to_owned());
    }
    stranger.hears(1, &["may write"])?;
    let frames = stranger.frames(1, 1, &["add"]);
    stranger.says(1, frames, &[])?;
    let opened = ["may write", "opened from 2 wanted 1 lives 0"];
    stranger.says(1, follow(stranger.position), &opened)?;
    let frames = stranger.frames(1, 1, &["add"]);
    stranger.says(1, frames, &["entry 2..3", "acked 2"])?;

    // What is known already is acknowledged to a reader too, and what is new is not taken.
    stranger.renews(conn, token("", Some(Role::Read)))?;
    stranger.hears(1, &["may read"])?;
    let frames = stranger.frames(1, 1, &["add"]);
    stranger.says(1, frames, &["acked 2"])?;
    let frames = stranger.frames(1, 1, &["add", "add"]);
    stranger.says(1, frames, &["forbidden 2"])?;

    // Whom a later token gives nothing is sent away, and hears no more of it.
    stranger.renews(conn, token("", None))?;
    stranger.hears(1, &["no access"])?;
    let frames = stranger.frames(1, 2, &["add"]);
    stranger.says(1, frames, &[])?;
    stranger.says(1, follow(stranger.position), &["no access"])
}
