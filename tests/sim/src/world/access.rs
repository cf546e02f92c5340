//! Tokens that expire, allow less than before, are withdrawn, or are another user's.

use std::collections::BTreeMap;

use tidelog_client::{TabId, ToCore};
use tidelog_room::ConnId;
use tidelog_sync::{FromRoom, FromServer, decode_message};
use tidelog_types::Role;

use super::World;
use super::event::Event;
use crate::docs::Doc;
use crate::guard::Pass;
use crate::swarm::Swarm;

/// Milliseconds in which a tab is open, a mutation is recorded, and a device is back.
const OPEN_MS: u64 = 2_000;
const DONE_MS: u64 = 1_000;
const BACK_MS: u64 = 8_000;
/// Milliseconds in which some of what was issued is at the server, and in which a withdrawal gets
/// so far, or no further.
const SENT_MS: u64 = 60;
const AMID_MS: u64 = 40;
/// Milliseconds for which a device may only read, at most.
const READS_MS: u64 = 20_000;
/// Milliseconds for which tokens are good that are renewed often, at least, and beyond that.
const SHORT_MS: u64 = 3_000;
const SHORT_MORE_MS: u64 = 30_000;
/// Rounds of work in which a token is renewed that is good for seconds, and milliseconds of each.
const RENEWED: u64 = 40;
const RENEWED_MS: u64 = 300;
/// Rounds of work with tokens of which none lasts, and milliseconds of each at most.
const ROUNDS: u64 = 8;
const ROUND_MS: u64 = 20_000;
/// Milliseconds after which a device that was let in again has come back: where tokens were refused
/// it waits up to five minutes, then a tab that was silent is waited for, and there are pauses.
const LET_IN_MS: u64 = 420_000;
/// How far the clocks of servers may be off.
const HOUR_MS: i64 = 3_600_000;
/// Milliseconds after which no token is good that was for seconds, and a pause is over since.
const OUTLIVED_MS: u64 = 60_000;
/// Milliseconds after which no token is used that came when nobody could be told it.
const KEPT_MS: u64 = 40_000;

/// What tabs have who are asked for a token.
pub(super) struct Access {
    is_asked: bool,
    token_ms: u64,
    one_user: bool,
    /// By device, where it is not what it should be.
    given: BTreeMap<usize, Given>,
    /// How far the clocks of servers are from that of who issues tokens.
    skew_ms: i64,
    /// How often each device has heard that none of its frames is taken.
    forbidden: BTreeMap<usize, u64>,
}

#[derive(Clone, Copy)]
struct Given {
    role: Option<Role>,
    good_ms: u64,
    is_other_user: bool,
    answers: Answers,
}

/// What becomes of a question for a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Come,
    /// There is no token.
    Lack,
    /// It is out of date.
    Stale,
    /// Nothing is ever said, by any tab or by every other one.
    Hang,
    HangHere,
}

impl Access {
    pub(super) fn new(swarm: &Swarm) -> Self {
        let Swarm { guarded, token_ms, one_user, .. } = *swarm;
        let (given, forbidden) = (BTreeMap::new(), BTreeMap::new());
        Self { is_asked: guarded, token_ms, one_user, given, skew_ms: 0, forbidden }
    }

    /// A device hears something of a server.
    pub(super) fn is_told(&mut self, device: usize, bytes: &[u8]) {
        let is_it = |message: FromServer| {
            matches!(message, FromServer::About { body: FromRoom::Forbidden { .. }, .. })
        };
        if self.is_asked && decode_message(bytes).is_ok_and(is_it) {
            *self.forbidden.entry(device).or_default() += 1;
        }
    }

    fn forbidden(&self, device: usize) -> u64 {
        self.forbidden.get(&device).copied().unwrap_or(0)
    }

    fn given(&self, device: usize) -> Given {
        self.given.get(&device).copied().unwrap_or(Given {
            role: Some(Role::Write),
            good_ms: self.token_ms,
            is_other_user: false,
            answers: Answers::Come,
        })
    }

    /// Whose copies a device has.
    fn owner(&self, device: usize) -> String {
        if self.one_user { "ada".to_owned() } else { format!("user-{device}") }
    }
}

impl World {
    // --- tokens ----------------------------------------------------------------------------------

    /// What a tab says, with the tokens that it has.
    pub(super) fn with_tokens(
        &mut self,
        device: usize,
        tab: TabId,
        said: Vec<ToCore>,
    ) -> Vec<ToCore> {
        if !self.access.is_asked {
            return said;
        }
        let given = self.access.given(device);
        let hangs = match given.answers {
            Answers::Hang => true,
            Answers::HangHere => tab.0.is_multiple_of(2),
            _ => false,
        };
        let until_ms = match given.answers {
            Answers::Stale => self.now_ms,
            _ => self.now_ms + given.good_ms,
        };
        let owner = self.access.owner(device);
        let subject = if given.is_other_user { "mallory".to_owned() } else { owner };
        let token = Pass { subject, role: given.role, until_ms }.token();
        let token = (given.answers != Answers::Lack).then_some(token);
        let answer = |message: ToCore| match message {
            ToCore::Token { .. } if hangs => None,
            ToCore::Token { question, .. } => {
                Some(ToCore::Token { question, token: token.clone() })
            }
            message => Some(message),
        };
        said.into_iter().filter_map(answer).collect()
    }

    /// What a device gives from now on who asks it for a token.
    fn give(&mut self, device: usize, change: impl FnOnce(&mut Given)) {
        let mut given = self.access.given(device);
        change(&mut given);
        self.access.given.insert(device, given);
    }

    /// Connections were let in by other tokens than before.
    pub(super) fn are_admitted(&mut self, host: usize, admitted: Vec<(ConnId, u64)>) {
        let life = self.hosts[host].life;
        for (ConnId(conn), until_ms) in admitted {
            let delay = until_ms.saturating_sub(self.token_clock());
            self.schedule(delay, Event::TokenEnds { host, life, conn });
        }
    }

    pub(super) fn token_ends(&mut self, host: usize, conn: u64) {
        let pass = self.hosts[host].pass(ConnId(conn));
        if pass.is_some_and(|pass| pass.until_ms <= self.token_clock()) {
            self.note(&format!("server {host}: the token of connection {conn} expires"));
            self.end_conn(host, conn);
        }
    }

    fn end_conn(&mut self, host: usize, conn: u64) {
        let done = self.hosts[host].say_bye(ConnId(conn));
        self.host_did(host, done);
    }

    /// Servers end the connections whose token is such, of such a device.
    fn end_all(&mut self, is_it: impl Fn(&Self, usize, &Pass) -> bool) {
        for host in 0..self.hosts.len() {
            let Some(guard) = &self.hosts[host].guard else { continue };
            let conns = guard.conns(|_| true).into_iter().filter(|ConnId(conn)| {
                let (device, pass) = (self.conns.get(conn), guard.pass(ConnId(*conn)));
                let device = device.map(|conn| conn.device);
                device.zip(pass).is_some_and(|(device, pass)| is_it(self, device, pass))
            });
            for ConnId(conn) in conns.collect::<Vec<_>>() {
                self.end_conn(host, conn);
            }
        }
    }

    fn end_of(&mut self, device: usize) {
        self.end_all(|_, of, _| of == device);
    }

    /// Whether a server has taken a token of a device that is such.
    fn has_taken(&self, device: usize, is_it: impl Fn(&Pass) -> bool) -> bool {
        let is_its = |conn: &ConnId| self.conns.get(&conn.0).is_some_and(|it| it.device == device);
        let guards = self.hosts.iter().filter_map(|host| host.guard.as_ref());
        guards.flat_map(|guard| guard.conns(&is_it)).any(|conn| is_its(&conn))
    }

    /// Whoever is asked for a token has the right one, and servers take it; those that are not
    /// right are withdrawn.
    pub(super) fn give_right_tokens(&mut self) {
        self.access.given.clear();
        self.take_all_tokens();
        self.end_all(|world, device, pass| {
            pass.role != Some(Role::Write) || pass.subject != world.access.owner(device)
        });
    }

    /// Those that are good for seconds expire, and whoever had them has found its server again.
    pub(super) fn outlive_short_tokens(&mut self) -> Result<(), String> {
        if self.access.is_asked { self.pass(OUTLIVED_MS) } else { Ok(()) }
    }

    fn take_all_tokens(&mut self) {
        for device in 0..self.devices.len() {
            let owner = self.access.owner(device);
            let guards = self.hosts.iter_mut().filter_map(|host| host.guard.as_mut());
            guards.for_each(|guard| guard.revoke(&owner, false));
        }
    }

    // --- what happens to them --------------------------------------------------------------------

    /// The token of a device does not allow to write any more, while it has mutations under way; it
    /// does again later, and something goes wrong between.
    pub(super) fn demote(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.pass(OPEN_MS)?;
        let is_short = self.rng.once_in(2);
        if is_short {
            let good_ms = SHORT_MS + self.rng.below(SHORT_MS);
            self.give(device, |given| given.good_ms = good_ms);
            self.end_of(device);
            self.pass(BACK_MS)?;
        }
        let is_away = self.rng.once_in(3);
        if is_away {
            self.cut_device_off(device);
        }
        self.issue_some_here(device)?;
        // Who has nothing to say of it at all keeps everything.
        let role = (!self.rng.once_in(4)).then_some(Role::Read);
        self.note(&format!("device {device}: may do no more than {role:?}"));
        if role.is_some() {
            self.judge.is_demoted(device);
        }
        self.give(device, |given| given.role = role);
        if is_away {
            self.issue_some_here(device)?;
            let ms = self.rng.below(DONE_MS);
            self.pass(ms)?;
            self.cut_off.remove(&device);
        } else if !is_short || self.rng.once_in(2) {
            self.end_of(device);
        }
        let heard = self.access.forbidden(device);
        // The renewal comes amid what is issued.
        let (rounds, round_ms) = if is_short { (RENEWED, RENEWED_MS) } else { (ROUNDS, SHORT_MS) };
        for _ in 0..rounds {
            if is_short {
                self.issue_some_here(device)?;
            }
            if self.pass_until_forbidden(device, heard, round_ms)? {
                break;
            }
        }
        if self.access.forbidden(device) > heard && self.rng.once_in(3) {
            // What was said of its frames holds on that connection alone.
            self.promote(device);
            self.cut_conns_of(device);
        }
        let amid_ms = [1, AMID_MS][self.rng.index(2)];
        let ms = self.rng.below(amid_ms);
        self.pass(ms)?;
        let is_back_at_once = self.rng.once_in(3);
        if is_back_at_once {
            self.promote(device);
        }
        self.fail_once(device);
        let ms = self.rng.below(DONE_MS);
        self.pass(ms)?;
        self.issue_some_here(device)?;
        if !is_back_at_once {
            let ms = self.rng.below(READS_MS);
            self.pass(ms)?;
            self.promote(device);
        }
        self.issue_some_here(device)?;
        self.pass(BACK_MS)?;
        self.issue_some_here(device)?;
        self.pass(BACK_MS)?;
        self.knows_its_role(device);
        // A token of seconds may be out of date once the pause is over for which it is kept.
        let good_ms = self.access.token_ms;
        self.give(device, |given| given.good_ms = good_ms);
        Ok(())
    }

    /// Lets things happen until a device has heard once more than that none of its frames is taken,
    /// or a while has passed.
    fn pass_until_forbidden(&mut self, device: usize, heard: u64, ms: u64) -> Result<bool, String> {
        let until = self.now_ms + ms;
        while self.next_at().is_some_and(|at| at <= until) {
            self.next_event()?;
            if self.access.forbidden(device) > heard {
                return Ok(true);
            }
        }
        self.now_ms = self.now_ms.max(until);
        Ok(false)
    }

    /// The tokens of a device allow to write again, as its core hears when it renews, or comes
    /// anew.
    fn promote(&mut self, device: usize) {
        self.note(&format!("device {device}: may write again"));
        self.give(device, |given| given.role = Some(Role::Write));
        if self.rng.once_in(2) {
            self.end_of(device);
        }
    }

    /// Whether a core knows by now that it may write, as its tabs were told.
    fn knows_its_role(&mut self, device: usize) {
        let tabs = &self.devices[device].tabs;
        let knows = |doc: Doc| tabs.values().all(|tab| tab.may_write(doc));
        let docs = self.docs.of(device).into_iter();
        let mut synced = docs.filter(|doc| self.host_of(*doc).is_some());
        if synced.all(knows) && !self.has_taken(device, |pass| pass.role != Some(Role::Write)) {
            self.judge.may_write(device);
        }
    }

    /// Something goes wrong on a device, on its way, or at its server.
    fn fail_once(&mut self, device: usize) {
        match self.rng.below(8) {
            0 | 1 => {
                self.note(&format!("device {device}: power cut"));
                self.cut_power_of(device);
            }
            2 => {
                let page_server_lives = self.rng.once_in(2);
                self.kill_core(device, page_server_lives);
            }
            3 | 4 => self.cut_conns_of(device),
            5 if self.hosts[0].is_up() => self.cut_power_of_server(0),
            6 if self.devices[device].is_open() => self.fill_disk(device),
            _ => {}
        }
    }

    fn cut_conns_of(&mut self, device: usize) {
        let conns = self.conns.iter().filter(|(_, conn)| conn.device == device);
        let conns: Vec<u64> = conns.map(|(conn, _)| *conn).collect();
        conns.into_iter().for_each(|conn| self.cut(conn));
    }

    /// A tab of a device writes to all that it has of servers.
    fn issue_some_here(&mut self, device: usize) -> Result<(), String> {
        for _ in 0..=self.rng.below(3) {
            for doc in self.docs.of(device) {
                let Some(tab) = self.rng.pick(&self.holders(device, doc)) else { continue };
                if self.host_of(doc).is_some() && !self.is_elsewhere(device, doc) {
                    self.add_in((device, tab), doc);
                }
            }
            let ms = self.rng.below(SENT_MS);
            self.pass(ms)?;
        }
        Ok(())
    }

    /// No token lasts, and tabs lack them now and then, have old ones, or say nothing. Nothing is
    /// rejected for that, and all devices are there again when they have some.
    pub(super) fn expire(&mut self) -> Result<(), String> {
        self.note("tokens are good for seconds");
        for device in 0..self.devices.len() {
            let good_ms = SHORT_MS + self.rng.below(SHORT_MORE_MS);
            self.give(device, |given| given.good_ms = good_ms);
        }
        self.end_all(|_, _, _| true);
        for _ in 0..ROUNDS {
            let device = self.rng.index(self.devices.len());
            let answers = match self.rng.below(6) {
                0 => Answers::Lack,
                1 => Answers::Stale,
                2 => Answers::Hang,
                3 => Answers::HangHere,
                _ => Answers::Come,
            };
            self.give(device, |given| given.answers = answers);
            self.issue_some_here(device)?;
            let ms = self.rng.below(ROUND_MS);
            self.pass(ms)?;
        }
        self.access.given.clear();
        self.come_back()
    }

    /// All devices have found their server again.
    fn come_back(&mut self) -> Result<(), String> {
        self.pass(LET_IN_MS)?;
        self.must_all_be_there(0..self.devices.len(), 0, Doc(0))
    }

    /// What the time is for servers that look at tokens.
    pub(super) fn token_clock(&self) -> u64 {
        self.now_ms.saturating_add_signed(self.access.skew_ms)
    }

    fn set_token_clocks(&mut self, skew_ms: i64) {
        self.access.skew_ms = skew_ms;
        let now_ms = self.token_clock();
        self.end_all(|_, _, pass| pass.until_ms <= now_ms);
    }

    /// The clocks of servers are an hour off for a while: ahead, they take no token that is good
    /// for an hour, and nothing is rejected for that; behind, they take those that are over. All
    /// devices are there again when the clocks are right.
    pub(super) fn clock_is_off(&mut self) -> Result<(), String> {
        self.pass(OPEN_MS)?;
        let is_ahead = !self.rng.once_in(3);
        self.note(if is_ahead {
            "servers are an hour ahead"
        } else {
            "servers are an hour behind"
        });
        self.set_token_clocks(if is_ahead { HOUR_MS } else { -HOUR_MS });
        let device = self.rng.index(self.devices.len());
        for _ in 0..=self.rng.below(ROUNDS) {
            self.issue_some_here(device)?;
            let ms = self.rng.below(ROUND_MS);
            self.pass(ms)?;
        }
        let is_taken = (0..self.devices.len()).any(|device| self.has_taken(device, |_| true));
        if is_ahead && is_taken {
            return Err("a token is taken that is over by the server's clock".to_owned());
        }
        self.fail_once(device);
        self.note("the clocks of servers are right again");
        self.set_token_clocks(0);
        self.come_back()
    }

    /// Servers take no token of some users for a while.
    pub(super) fn revoke(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.pass(OPEN_MS)?;
        self.issue_some_here(device)?;
        let is_all = self.rng.once_in(2);
        self.note(if is_all { "the key of all tokens is lost" } else { "tokens are withdrawn" });
        let owner = self.access.owner(device);
        for of in (0..self.devices.len()).filter(|of| is_all || *of == device) {
            let owner = self.access.owner(of);
            let guards = self.hosts.iter_mut().filter_map(|host| host.guard.as_mut());
            guards.for_each(|guard| guard.revoke(&owner, true));
        }
        self.end_all(|_, _, pass| is_all || pass.subject == owner);
        for _ in 0..self.rng.below(ROUNDS) {
            self.issue_some_here(device)?;
            let ms = self.rng.below(ROUND_MS);
            self.pass(ms)?;
        }
        self.fail_once(device);
        self.note("tokens are taken again");
        self.take_all_tokens();
        self.come_back()
    }

    /// The tabs of a device give tokens of another user: nothing of its copies is sent. Then they
    /// have the right ones, and it is.
    pub(super) fn other_user(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.pass(OPEN_MS)?;
        // Whose a copy is that was never let in is known only then.
        let first = self.last_name;
        self.issue_some_here(device)?;
        self.pass(BACK_MS)?;
        let docs = self.docs.of(device).into_iter().filter(|doc| self.host_of(*doc).is_some());
        let is_owned = |doc: Doc| {
            let names = (first + 1..=self.last_name).map(|nth| format!("m{nth}"));
            let of_doc = |name: &String| self.judge.is_confirmed_in(name, doc);
            names.into_iter().any(|name| of_doc(&name))
        };
        if !docs.into_iter().all(is_owned) {
            return Ok(());
        }
        self.note(&format!("device {device}: has tokens of another user"));
        let good_ms = [SHORT_MS + self.rng.below(SHORT_MORE_MS), 3_600_000][self.rng.index(2)];
        self.give(device, |given| (given.is_other_user, given.good_ms) = (true, good_ms));
        self.end_of(device);
        self.pass(KEPT_MS)?;
        let owner = self.access.owner(device);
        if self.has_taken(device, |pass| pass.subject == owner) {
            return Ok(());
        }
        let began_ms = self.now_ms;
        let first = self.last_name;
        self.issue_some_here(device)?;
        if self.rng.once_in(3) {
            self.fail_once(device);
        }
        let ms = self.rng.below(ROUND_MS);
        self.pass(ms)?;
        let names: Vec<String> =
            (first + 1..=self.last_name).map(|nth| format!("m{nth}")).collect();
        if let Some(name) = names.iter().find(|name| self.judge.is_confirmed(name)) {
            return Err(format!("{name} is {owner}'s, and was sent by another user's token"));
        }
        self.note(&format!("device {device}: has its own tokens again"));
        self.access.given.remove(&device);
        self.come_back()?;
        let is_calm = self.devices[device].trouble_ms <= began_ms;
        let is_there = self.holders(device, Doc(0)).into_iter().all(|tab| {
            let here = &self.devices[device].tabs[&tab];
            here.port.is_heard && !here.is_away(Doc(0))
        });
        let undecided = names.iter().find(|name| !self.judge.is_decided(name));
        match undecided.filter(|_| is_calm && is_there && self.hosts[0].is_up()) {
            Some(name) => Err(format!("{name} waits, and its own user's token is there")),
            None => Ok(()),
        }
    }

    /// A document is opened, and written to, where no server can be reached.
    pub(super) fn begin_offline(&mut self) -> Result<(), String> {
        let device = self.rng.index(self.devices.len());
        self.cut_device_off(device);
        let name = format!("late-{}", self.docs.all().count());
        self.note(&format!("device {device}: begins {name} offline"));
        self.docs.share(&name, 0);
        self.open_all(device);
        if self.rng.once_in(2) {
            (0..self.devices.len()).for_each(|device| self.open_all(device));
        }
        self.pass(OPEN_MS)?;
        self.issue_some_here(device)?;
        if self.rng.once_in(2) {
            self.fail_once(device);
        }
        let ms = self.rng.below(DONE_MS);
        self.pass(ms)?;
        self.cut_off.remove(&device);
        self.issue_some_here(device)?;
        self.pass(BACK_MS)?;
        (0..self.devices.len()).for_each(|device| self.open_all(device));
        self.issue_some_here(device)?;
        self.pass(BACK_MS)
    }
}
