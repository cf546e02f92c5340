//! Tabs that send commands, and tabs that handle them: how they are answered, and for how long, is
//! drawn from a source of its own, so that worlds without tasks are what they would be without any.

use tidelog_client::TabId;
use tidelog_document::{NewCommand, NewEvent, Outcome};

use super::World;
use super::event::Event;
use super::runs::Runs;
use crate::app::{DO, DONE, JOB};
use crate::docs::Doc;
use crate::judge::Sent;
use crate::rng::Rng;
use crate::swarm::Swarm;
use crate::tab::{Given, Versions, Work};

/// Milliseconds between two moments at which somebody does something about tasks.
const ACTS_EVERY_MS: u64 = 1_500;
/// Milliseconds that handlers have in the end for all that is left: what is tried again waits for
/// minutes.
const FINISH_STEP_MS: u64 = 20_000;
const FINISH_STEPS: u32 = 90;
/// How far clocks may go on, or back, at once: from a minute to a year.
const MINUTE_MS: u64 = 60_000;
const YEAR_MS: u64 = 365 * 24 * 3_600_000;
/// After that time keys are forgotten.
const KEPT_MS: u64 = 20 * 3_600_000;

/// What a world has of tasks.
pub(super) struct Tasks {
    rng: Rng,
    /// Of runs alone.
    pub(super) runs: Runs,
    /// How far the clocks of servers are from the true time, and how far each may jump.
    skew_ms: [i64; 2],
    jump_ms_max: u64,
    /// The furthest that each was.
    pub(super) furthest_ms: [u64; 2],
    last_key: u64,
    /// Whether handlers do all that is left, and nothing fails any more.
    pub(super) finishes: bool,
    /// Whether anybody does anything.
    goes_on: bool,
}

impl Tasks {
    pub(super) fn new(seed: u64, swarm: &Swarm) -> Self {
        let mut rng = Rng::new(seed.rotate_left(2) ^ !seed);
        let jump_ms_max = [0, MINUTE_MS, YEAR_MS][rng.index(3)];
        Self {
            rng,
            runs: Runs::new(seed),
            skew_ms: [swarm.servers_ahead_ms.cast_signed(); 2],
            jump_ms_max,
            furthest_ms: [0; 2],
            last_key: 0,
            finishes: false,
            goes_on: true,
        }
    }

    /// How far the clock of a server may go on at once: in the end it comes to the time for which
    /// runs wait that devices hand over.
    fn goes_on_at_once_ms(&self, swarm: &Swarm) -> u64 {
        let of_devices = if hands_runs_over(swarm) { swarm.skew_ms_max } else { 0 };
        self.jump_ms_max.max(of_devices)
    }

    /// Whether what is over may be forgotten: not for the clocks of devices, however wrong.
    fn may_forget(&self, swarm: &Swarm) -> bool {
        self.goes_on_at_once_ms(swarm) > KEPT_MS
    }
}

impl World {
    /// Servers know what the time is by their clocks.
    pub(super) fn set_clocks(&mut self) {
        if !self.swarm.has_tasks() {
            return;
        }
        for (host, skew_ms) in self.tasks.skew_ms.into_iter().enumerate() {
            let now_ms = self.now_ms.saturating_add_signed(skew_ms);
            self.hosts[host].set_time(now_ms);
            self.tasks.furthest_ms[host] = self.tasks.furthest_ms[host].max(now_ms);
        }
    }

    /// A server looks after its tasks when the time has come by its clock.
    pub(super) fn look_at_clock(&mut self, host: usize) {
        if !self.swarm.has_tasks() {
            return;
        }
        let life = self.hosts[host].life;
        let now_ms = self.now_ms.saturating_add_signed(self.tasks.skew_ms[host]);
        if let Some(at_ms) = self.hosts[host].tasks_due_at_ms() {
            let due_at_ms = self.now_ms + at_ms.saturating_sub(now_ms).max(1);
            if self.hosts[host]
                .tasks_look_at_ms
                .is_none_or(|at| at > due_at_ms || at <= self.now_ms)
            {
                self.hosts[host].tasks_look_at_ms = Some(due_at_ms);
                self.schedule(due_at_ms - self.now_ms, Event::HostRound { host, life });
            }
        }
    }

    pub(super) fn begin_tasks(&mut self) {
        if self.swarm.has_tasks() {
            let is_local = |doc: &Doc| self.docs.spec(*doc).host.is_none();
            let local = self.docs.all().filter(is_local).collect();
            let may_forget = self.tasks.may_forget(&self.swarm);
            self.judge.expect_tasks(&self.swarm, may_forget, local);
            self.schedule(ACTS_EVERY_MS, Event::TasksGoOn);
        }
    }

    /// Somebody does something about tasks, and so on.
    pub(super) fn tasks_go_on(&mut self) {
        if !self.tasks.goes_on {
            return;
        }
        // When nothing goes wrong any more nobody begins anything.
        self.tasks.finishes |= !self.faults;
        for device in 0..self.devices.len() {
            let tabs: Vec<TabId> = self.devices[device].tabs.keys().copied().collect();
            for tab in tabs {
                if !self.busy.contains_key(&(device, tab)) && !self.hidden.contains(&(device, tab))
                {
                    self.act_on_tasks(device, tab);
                    if self.swarm.has_runs() {
                        self.act_on_runs(device, tab);
                    }
                }
            }
        }
        if !self.tasks.finishes && self.tasks.jump_ms_max > 0 && self.tasks.rng.once_in(12) {
            let host = self.tasks.rng.index(2);
            self.clock_jumps(host);
        }
        let most = if self.tasks.finishes { 3 * ACTS_EVERY_MS } else { ACTS_EVERY_MS };
        let delay = self.tasks.rng.below(most) + 1;
        self.schedule(delay, Event::TasksGoOn);
    }

    fn clock_jumps(&mut self, host: usize) {
        let jump_ms = self.tasks.rng.below(self.tasks.jump_ms_max).cast_signed();
        let is_back = self.tasks.rng.once_in(3);
        self.tasks.skew_ms[host] += if is_back { -jump_ms } else { jump_ms };
        self.note(&format!("server {host}: its clock is {} ms off", self.tasks.skew_ms[host]));
        self.set_clocks();
        self.look_at_clock(host);
    }

    fn act_on_tasks(&mut self, device: usize, tab: TabId) {
        let held: Vec<Doc> = self.devices[device].tabs[&tab].held.keys().copied().collect();
        let Some(doc) = self.tasks.rng.pick(&held) else { return };
        let mut messages = Vec::new();
        let rng = &mut self.tasks.rng;
        let here = self.devices[device].tabs.get_mut(&tab).expect("BUG: it is there");
        if self.tasks.finishes {
            for doc in held {
                if !here.handles(doc, Work::Commands) {
                    messages.extend(here.begin_handling(doc, Work::Commands, 8, Versions::All));
                }
            }
        } else if !here.handles(doc, Work::Commands) && rng.once_in(4) {
            let concurrency = 1 + u32::try_from(rng.below(3)).unwrap_or(0);
            messages.extend(here.begin_handling(doc, Work::Commands, concurrency, Versions::All));
        } else if rng.once_in(12) {
            messages.extend(here.end_handling(doc, Work::Commands));
        }
        let given = here.given();
        for (doc, given) in given {
            if self.tasks.finishes || rng.once_in(3) {
                let outcome = outcome_of(&given, rng, self.tasks.finishes);
                messages.extend(here.complete(doc, &given, outcome));
            }
        }
        if !self.tasks.finishes && self.tasks.rng.once_in(3) && !self.is_elsewhere(device, doc) {
            messages.push(self.send_command(device, tab, doc));
        }
        self.send_to_core(device, tab, messages);
    }

    /// A tab sends a command: a new one, the same once more, or another one by the same key.
    fn send_command(&mut self, device: usize, tab: TabId, doc: Doc) -> tidelog_client::ToCore {
        let rng = &mut self.tasks.rng;
        let is_new = self.tasks.last_key == 0 || !rng.once_in(4);
        if is_new {
            self.tasks.last_key += 1;
        }
        let nth = if is_new { self.tasks.last_key } else { 1 + rng.below(self.tasks.last_key) };
        let is_other = !is_new && rng.once_in(4);
        let other = if is_other { "other" } else { "" };
        let sent = Sent {
            stream: format!("s{}", nth % 3),
            key: format!("k{nth}"),
            id: format!("{}k{nth}{other}", doc.0),
            is_run: false,
        };
        let name = self.judge.sends(doc, &sent);
        let times = [self.now_ms, self.devices[device].clock(self.now_ms)];
        self.tab(device, tab).send_command(doc, &sent, &name, times)
    }

    /// A command was confirmed: whoever has sent it wants to know what becomes of it.
    pub(super) fn ask_outcome(&mut self, device: usize, tab: TabId, name: &str) {
        let Some((doc, sent)) = self.judge.sent(name) else { return };
        let message = self.tab(device, tab).ask_outcome(doc, &sent);
        self.send_to_core(device, tab, message.into_iter().collect());
    }

    /// All that is left is handled. What waits for a time to which a clock was set once waits no
    /// longer.
    pub(super) fn finish_tasks(&mut self) -> Result<(), String> {
        if !self.swarm.has_tasks() {
            return Ok(());
        }
        self.tasks.finishes = true;
        if !std::mem::replace(&mut self.tasks.goes_on, true) {
            self.schedule(ACTS_EVERY_MS, Event::TasksGoOn);
        }
        for host in 0..self.hosts.len() {
            // A device may have handed over what waits by its own clock.
            let hands_over = hands_runs_over(&self.swarm);
            let of_devices = self.devices.iter().filter(|_| hands_over).map(|it| it.skew_ms).max();
            let of_devices = of_devices.unwrap_or(0);
            let ahead_ms = self.tasks.furthest_ms[host].saturating_sub(self.now_ms);
            let ahead_ms = ahead_ms.cast_signed().max(of_devices);
            self.tasks.skew_ms[host] = self.tasks.skew_ms[host].max(ahead_ms);
            self.set_clocks();
            self.look_at_clock(host);
        }
        let mut left = Ok(());
        for _ in 0..FINISH_STEPS {
            self.pass(FINISH_STEP_MS)?;
            left = self.are_tasks_over()?;
            if left.is_ok() {
                break;
            }
        }
        self.tasks.goes_on = false;
        left
    }

    fn are_tasks_over(&mut self) -> Result<Result<(), String>, String> {
        for doc in self.docs.all() {
            let Some(host) = self.host_of(doc) else { continue };
            let file = self.export_host(host, doc, "when tasks were to be over")?;
            let tasks = self.found.open(doc, &file)?.tasks()?;
            if let Some(open) = tasks.as_ref().and_then(|it| it.open()) {
                return Ok(Err(format!("nobody gets on with {open:?} of {doc:?}")));
            }
            let runs = self.found.open(doc, &file)?.runs(self.swarm.has_runs())?;
            if let Some(open) = runs.as_ref().and_then(|it| it.open()) {
                return Ok(Err(format!("nobody gets on with {open} of {doc:?}")));
            }
        }
        Ok(Ok(()))
    }
}

/// Whether a server may get runs that wait for a time by the clock of a device.
fn hands_runs_over(swarm: &Swarm) -> bool {
    swarm.has_runs() && swarm.drafts
}

/// What a handler makes of a command.
fn outcome_of(given: &Given, rng: &mut Rng, finishes: bool) -> Outcome {
    let chance = if finishes { 9 } else { rng.below(10) };
    match chance {
        0 | 1 => Outcome::Failed { reason: "not now".to_owned(), is_final: false },
        2 => Outcome::Failed { reason: "never".to_owned(), is_final: true },
        _ => {
            let id = &given.id;
            let Given { attempt, position, .. } = given;
            let data = format!("{{\"id\":\"{id}\",\"attempt\":{attempt},\"after\":{position}}}");
            let events = (0..=chance % 2).map(|_| {
                let (name, data) = (DONE.to_owned(), data.clone());
                NewEvent { name, data }
            });
            let next = || NewCommand {
                aggregate: JOB.to_owned(),
                stream: "s0".to_owned(),
                name: DO.to_owned(),
                args: format!("{{\"id\":\"{id}-next\"}}"),
                key: format!("{id}-next"),
            };
            let sends = chance == 3 && !id.ends_with("-next");
            let sends = sends.then(next).into_iter().collect();
            Outcome::Completed {
                events: events.collect(),
                sends,
                starts: Vec::new(),
                snapshot: None,
            }
        }
    }
}
