//! The clock and the wires, and what arrives at their ends.

mod access;
mod branches;
mod calls;
mod ending;
mod event;
mod filling;
mod forks;
mod history;
mod lending;
mod lives;
mod meeting;
mod runs;
mod sockets;
mod stores;
mod tasks;
mod trouble;

pub(crate) use history::Applied;
pub(crate) use lending::{Lending, Worker};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use tidelog_client::{Client, Effect, FromCore, Handle, Input, Request, TabId, ToCore};
use tidelog_disk::CrashDevice;
use tidelog_tab::Input as ToTab;
use tidelog_types::{Value, probe};

use crate::app::Release;
use crate::device::Device;
use crate::docs::{Doc, Docs};
use crate::host::Host;
use crate::judge::{Judge, SENDING, When, Work};
use crate::port::Followed;
use crate::reference::{Found, FoundFiles};
use crate::rng::Rng;
use crate::say::say;
use crate::stranger;
use crate::swarm::{Kind, Swarm};
use crate::tab::{Heard, News, Tab, TaskNews};
use access::Access;
use event::{Event, Wire};
use history::DeviceCopy;
use lives::TabOf;
use sockets::{Breaks, Conn, Expired, Muted};

/// Milliseconds in which a page server that was lent lets its core in.
const READY_MS: u64 = 1_000;
/// Simulated milliseconds in which all has to settle once nothing goes wrong any more.
const SETTLE_MS: u64 = 300_000;
/// Events at one time before it is said that they have no end.
const IN_A_ROW_MAX: u32 = 50_000;
/// Bytes of a message that are noted.
const SHORT: usize = 400;
/// Bytes that a tab hears before it says so, and what it counts for a message beside its rows.
const UNTOLD_SIZE_MAX: usize = 65_536;
const MESSAGE_SIZE: usize = 256;
/// When a world begins.
const START_MS: u64 = 1_700_000_000_000;

/// Devices and servers.
pub struct World {
    seed: u64,
    swarm: Swarm,
    docs: Docs,
    rng: Rng,
    now_ms: u64,
    queue: BTreeMap<(u64, u64), Event>,
    last_event: u64,
    /// When the last message on each wire arrives: a wire keeps its order.
    wires: BTreeMap<Wire, u64>,
    devices: Vec<Device>,
    hosts: Vec<Host>,
    conns: BTreeMap<u64, Conn>,
    last_conn: u64,
    last_name: u64,
    judge: Judge,
    tasks: tasks::Tasks,
    told: Told,
    trace: blake3::Hasher,
    /// What tabs that are opened now are of.
    release: Release,
    /// Devices that have got a release which does not go with that of another one.
    forked: BTreeMap<usize, Release>,
    /// Whether something may still go wrong.
    faults: bool,
    /// Copies of the stores of a server and of a device.
    backup: Option<(usize, CrashDevice)>,
    device_copy: Option<DeviceCopy>,
    /// Servers that have lost what came last, and devices with a page that has rotted.
    went_back: BTreeSet<usize>,
    rotten: BTreeSet<usize>,
    /// Devices that reach no server, and one that is heard of a while and then no more.
    cut_off: BTreeSet<usize>,
    /// Servers that let nobody in, and the last thing that they say; and what one refuses of a
    /// device.
    barred: BTreeMap<usize, Vec<u8>>,
    expired: Option<Expired>,
    /// What tabs have who are asked for a token.
    access: Access,
    muted: Option<Muted>,
    breaks: Option<Breaks>,
    /// Tabs that hear nothing at the moment, with what waits for them, and one that will hear
    /// nothing once it has asked for something.
    busy: BTreeMap<TabOf, Vec<Event>>,
    deaf_once_it_asked: Option<TabOf>,
    /// A tab that cannot reach the next core that it looks for.
    turned_away: Option<TabOf>,
    /// Tabs that are where they can hold nothing.
    hidden: BTreeSet<TabOf>,
    /// What a server gave out last.
    exported: Option<Vec<u8>>,
    /// A document that is to be deleted on a server, until that is known, and what it was.
    deleting: Option<(Doc, Applied)>,
    /// A document of which a server has just said that it could not be deleted.
    not_deleted: Option<Doc>,
    found: FoundFiles,
    /// Messages over the net so far, but for those that only say that somebody is there.
    net_messages: u64,
    /// Bytes of all messages over the net, each counted once.
    net_size: u64,
    /// Until when a tab may be told to close what another one deletes everywhere.
    close_wanted_until_ms: u64,
    /// Events since time passed last.
    in_a_row: u32,
    /// When the calls of tabs are looked at next.
    next_look_ms: u64,
    /// A promise that was broken, and that nobody was told of yet.
    wrong: Option<String>,
}

/// What is told of a run beside how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// Nothing, which takes least time.
    Nothing,
    /// A hash over everything that happened.
    Trace,
    /// Everything that happens is printed, too.
    Everything,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Hash over everything that happened, in its order: what was said in a browser and between
    /// browsers and servers, and the files that came of it. Where nothing is told, that of nothing.
    pub trace: String,
    /// What the run was made of, for a person.
    pub summary: String,
    /// How much work it took.
    pub work: Work,
}

/// The bytes that a message counts for the tab that has to hear it.
fn size_of(message: &FromCore) -> usize {
    match message {
        FromCore::Rows { rows, .. } => MESSAGE_SIZE + rows.cells.len(),
        FromCore::RejectionNews { args, reason, .. } => {
            let size = |value: &Value| match value {
                Value::Text(text) => text.len(),
                Value::Blob(bytes) => bytes.len(),
                _ => 8,
            };
            let args = args.iter().map(|(name, value)| name.len() + size(value) + 32);
            MESSAGE_SIZE + args.sum::<usize>() + reason.len()
        }
        _ => MESSAGE_SIZE,
    }
}

impl World {
    /// The world of this seed.
    #[must_use]
    pub fn new(seed: u64, told: Told) -> Self {
        Self::of_kind(seed, told, Kind::Plain)
    }

    /// The same world with tasks, unless it is one that can have none.
    #[must_use]
    pub fn with_tasks(seed: u64, told: Told) -> Self {
        Self::of_kind(seed, told, Kind::WithTasks)
    }

    /// The same world with tasks and with runs of a workflow, unless it is one that can have none.
    #[must_use]
    pub fn with_runs(seed: u64, told: Told) -> Self {
        Self::of_kind(seed, told, Kind::WithRuns)
    }

    fn of_kind(seed: u64, told: Told, kind: Kind) -> Self {
        let mut rng = Rng::new(seed);
        let swarm = Swarm::draw(&mut rng, seed, kind);
        let mut docs = Docs::default();
        docs.share("ledger", 0);
        if swarm.second_document {
            docs.share("second", 0);
        }
        if swarm.second_server {
            docs.share("far", 1);
        }
        for device in 0..swarm.devices {
            if swarm.diaries {
                // Some are a user's copy of what others share by that name.
                if seed.is_multiple_of(3) {
                    docs.keep_of("ada", "ledger", device);
                } else {
                    docs.keep(&format!("diary-{device}"), device, None);
                }
            }
            if swarm.drafts {
                let draft =
                    if swarm.rivals { "draft".to_owned() } else { format!("draft-{device}") };
                // At the first server the token was given already, for the documents there.
                docs.keep(&draft, device, Some(usize::from(swarm.tokens)));
            }
        }
        let mut world = Self {
            seed,
            docs,
            now_ms: START_MS,
            queue: BTreeMap::new(),
            last_event: 0,
            wires: BTreeMap::new(),
            devices: (0..swarm.devices).map(|_| Device::new(&swarm, &mut rng)).collect(),
            hosts: (0..2).map(|_| Host::new(&swarm)).collect(),
            conns: BTreeMap::new(),
            last_conn: 0,
            last_name: 0,
            judge: Judge::new(&swarm),
            tasks: tasks::Tasks::new(seed, &swarm),
            told,
            trace: blake3::Hasher::new(),
            release: Release::First,
            forked: BTreeMap::new(),
            faults: true,
            backup: None,
            device_copy: None,
            went_back: BTreeSet::new(),
            rotten: BTreeSet::new(),
            cut_off: BTreeSet::new(),
            barred: BTreeMap::new(),
            expired: None,
            access: Access::new(&swarm),
            muted: None,
            breaks: None,
            busy: BTreeMap::new(),
            deaf_once_it_asked: None,
            turned_away: None,
            hidden: BTreeSet::new(),
            exported: None,
            deleting: None,
            not_deleted: None,
            found: FoundFiles::default(),
            net_messages: 0,
            net_size: 0,
            close_wanted_until_ms: 0,
            in_a_row: 0,
            next_look_ms: START_MS,
            wrong: None,
            swarm,
            rng,
        };
        let swarm = world.swarm.clone();
        world.note_with(|| format!("{swarm:?}"));
        world
    }

    /// Runs it to its end.
    ///
    /// # Errors
    ///
    /// A sentence that says what did not hold.
    pub fn run(mut self) -> Result<Outcome, String> {
        // Those of a world before on this thread.
        drop(probe::take_runs());
        for host in &mut self.hosts {
            host.start(&mut self.rng)?;
        }
        for device in 0..self.devices.len() {
            self.start_device(device)?;
        }
        self.begin_tasks();
        for action in 0..self.swarm.actions {
            if self.swarm.release_at == Some(action) {
                self.note("a release of the app");
                self.release = Release::Second;
            }
            self.make_history(action)?;
            for _ in 0..self.rng.below(40) {
                self.next_event()?;
            }
            self.act()?;
        }
        self.end()?;
        stranger::tell(self.seed, &self.swarm)?;
        let runs = probe::take_runs().into_iter();
        let runs_percent = runs.map(|(call, runs)| {
            let may_run = self.devices.iter().map(|device| device.core_door.may_run(call));
            (runs * 100).checked_div(may_run.sum()).unwrap_or(u64::MAX)
        });
        let work = self.judge.judge_work(runs_percent.max().unwrap_or(0), self.net_size)?;
        let (durable, confirmed, rejected) = self.judge.counts();
        Ok(Outcome {
            trace: self.trace.finalize().to_hex()[..16].to_owned(),
            summary: format!(
                "seed {}: {} events, {} mutations, {durable} durable, {confirmed} confirmed, \
                 {rejected} rejected; {work}",
                self.seed, self.last_event, self.last_name
            ),
            work,
        })
    }

    fn next_at(&self) -> Option<u64> {
        self.queue.keys().next().map(|(at, _)| *at)
    }

    fn next_event(&mut self) -> Result<(), String> {
        let Some(((at, _), event)) = self.queue.pop_first() else { return Ok(()) };
        self.in_a_row = if at > self.now_ms { 0 } else { self.in_a_row + 1 };
        if self.in_a_row > IN_A_ROW_MAX {
            return Err("something goes on and on, and no time passes".to_owned());
        }
        self.now_ms = self.now_ms.max(at);
        self.set_clocks();
        self.happen(event)?;
        self.wrong.take().map_or(Ok(()), Err)?;
        self.look_at_calls()
    }

    /// Lets everything happen that is due in so many milliseconds.
    fn pass(&mut self, ms: u64) -> Result<(), String> {
        let until = self.now_ms + ms;
        while self.next_at().is_some_and(|at| at <= until) {
            self.next_event()?;
        }
        self.now_ms = self.now_ms.max(until);
        Ok(())
    }

    fn step_core(&mut self, device: usize, input: Input) {
        let here = &mut self.devices[device];
        let now_ms = here.clock(self.now_ms);
        let Some(core) = &mut here.core else { return };
        let mut effects = match here.wake_door.comes(core, now_ms) {
            Ok(effects) => effects,
            Err(what) => {
                self.wrong.get_or_insert(format!("device {device}: {what}"));
                Vec::new()
            }
        };
        if let Err(what) = here.core_door.comes(&input, now_ms) {
            self.wrong.get_or_insert(format!("device {device}: {what}"));
        }
        effects.extend(core.step(now_ms, input));
        if let Some(what) = here.wake_door.doubt(core) {
            self.wrong.get_or_insert(format!("device {device}: {what}"));
        }
        let life = here.life;
        for effect in effects {
            self.devices[device].wake_door.leaves(&effect);
            if let Err(what) = self.devices[device].core_door.leaves(&effect) {
                self.wrong.get_or_insert(format!("device {device}: {what}"));
            }
            match effect {
                Effect::ToTab { tab: port, messages } => {
                    let is_verdict = |it: &FromCore| matches!(it, FromCore::Rejected { .. });
                    if messages.iter().any(is_verdict) && self.may_interrupt() {
                        self.schedule(0, Event::KillCore { device, life });
                    }
                    let (tab, core) = lending::tab_at(port);
                    if self.tells_too_much(device, port, &messages) {
                        let what = format!("{device}.{} is told more than it can hear", tab.0);
                        self.wrong.get_or_insert(what);
                    }
                    if let Some(what) = self.said_in_vain(device, port, &messages) {
                        self.wrong.get_or_insert(what);
                    }
                    let event = Event::CoreToTab { device, life, tab, core, messages };
                    self.carry(Wire::CoreToTab(device, port), 3, event);
                }
                Effect::ToPageServer { server, requests, notices } => {
                    self.ask_page_server(device, server, requests, notices);
                }
                Effect::OpenSocket { socket, url } => self.open_socket(device, socket, &url),
                Effect::ToServer { socket, bytes } => {
                    if let Some(conn) = self.devices[device].sockets.get(&socket).copied() {
                        self.send_up(conn, &bytes);
                    }
                }
                Effect::CloseSocket { socket } => {
                    if let Some(conn) = self.devices[device].sockets.remove(&socket) {
                        self.hang_up(conn);
                    }
                }
                Effect::WakeAt { at_ms } => {
                    let delay = match at_ms.saturating_sub(now_ms) {
                        0 => self.rng.below(1 + self.swarm.core_slice_ms_max),
                        delay => delay,
                    };
                    self.devices[device].wake_at_ms = Some(self.now_ms + delay);
                    self.schedule(delay, Event::Wake { device, life });
                }
            }
        }
        self.look_at_loss(device);
    }

    /// A tab that has left is told what became of what it asked, and nothing that it did not ask
    /// for.
    fn said_in_vain(&self, device: usize, port: TabId, messages: &[FromCore]) -> Option<String> {
        let is_of_use = |message: &FromCore| {
            matches!(
                message,
                FromCore::Durable { .. }
                    | FromCore::Confirmed { .. }
                    | FromCore::Rejected { .. }
                    | FromCore::Failed { .. }
            )
        };
        if self.devices[device].lending.is_known(port) {
            return None;
        }
        let message = messages.iter().find(|message| !is_of_use(message))?;
        Some(format!("device {device}: a tab that has left is told {}", said(message)))
    }

    /// Whether a tab is told what it did not ask for on top of what it has not heard yet.
    fn tells_too_much(&mut self, device: usize, port: TabId, messages: &[FromCore]) -> bool {
        let here = &mut self.devices[device];
        let mut list = Vec::with_capacity(messages.len());
        for message in messages {
            let is_unasked = match message {
                FromCore::Status { .. } | FromCore::RejectionNews { .. } => true,
                // The first ones are the answer, each time that it was asked.
                FromCore::Rows { call, .. } => {
                    !here.owes_rows(port, *call) && !here.tells_of_tasks(port, *call)
                }
                _ => false,
            };
            list.push((size_of(message), is_unasked));
        }
        let mut is_too_much = false;
        for index in here.tell(port, &list) {
            match &messages[index] {
                // What is forgotten next is told now or never.
                FromCore::RejectionNews { handle, id, .. } => {
                    here.core_door.is_told_too_early(port, *handle, *id);
                }
                FromCore::Rows { call, .. } if here.owes_rows_again(port, *call) => {}
                _ => is_too_much = true,
            }
        }
        is_too_much
    }

    /// A core that has lost its data lives until a page is loaded anew.
    fn look_at_loss(&mut self, device: usize) {
        let here = &mut self.devices[device];
        let life = here.life;
        if here.core.as_ref().is_some_and(Client::is_lost) && here.lost_in_life != life {
            here.lost_in_life = life;
            if here.cleared_in_life != Some(life) {
                let what = format!("device {device}: the core has lost what nobody has cleared");
                self.wrong.get_or_insert(what);
            }
            let delay = 50 + self.rng.below(3_000);
            self.note(&format!("device {device}: the core has lost its data"));
            self.schedule(delay, Event::LostCoreEnds { device, life });
        }
    }

    /// Whether a core dies before what it has just said is heard.
    fn may_interrupt(&mut self) -> bool {
        self.faults && self.swarm.contended && self.rng.once_in(4)
    }

    fn tab_hears(
        &mut self,
        device: usize,
        tab: TabId,
        messages: Vec<FromCore>,
    ) -> Result<(), String> {
        for message in messages {
            let Some(here) = self.devices[device].tabs.get_mut(&tab) else { return Ok(()) };
            if let FromCore::HandingOver { call } = message {
                here.gets_on(call, self.now_ms)?;
            }
            let followed = here.port.hear(self.now_ms, message);
            let told = self.follow(device, tab, followed);
            self.tell_app(device, tab, told)?;
        }
        Ok(())
    }

    /// The browser brings something to a tab, if that is still there.
    fn tab_takes(&mut self, device: usize, tab: TabId, input: &ToTab) -> Result<(), String> {
        let Some(here) = self.devices[device].tabs.get_mut(&tab) else { return Ok(()) };
        let followed = here.port.take(self.now_ms, input);
        let told = self.follow(device, tab, followed);
        self.tell_app(device, tab, told)
    }

    /// A tab has heard a whole list of what its core says.
    fn tab_heard_list(&mut self, device: usize, tab: TabId, size: usize) -> Result<(), String> {
        let Some(here) = self.devices[device].tabs.get_mut(&tab) else { return Ok(()) };
        let followed = here.port.heard_list(self.now_ms, size);
        let told = self.follow(device, tab, followed);
        self.tell_app(device, tab, told)
    }

    /// The bytes of a list as its tab counts them: it says that it has heard half of what a core
    /// may tell it, wherever that bound is.
    fn heard_size(&self, messages: &[FromCore]) -> usize {
        let size: usize = messages.iter().map(size_of).sum();
        size * UNTOLD_SIZE_MAX / (self.swarm.limits.tab_unheard_size_max / 2)
    }

    /// A tab's app is told something.
    fn tell_app(
        &mut self,
        device: usize,
        tab: TabId,
        told: Vec<(FromCore, bool)>,
    ) -> Result<(), String> {
        let mut answers = Vec::new();
        for (message, last) in told {
            let here = &mut self.devices[device];
            let trouble_ms = here.trouble_ms;
            // A damaged store keeps nothing of what comes: what a core shows of it may go again.
            let damaged_ms = if here.has_damaged_log { self.now_ms } else { 0 };
            let shown_ms = trouble_ms.max(damaged_ms);
            // One whose data were cleared keeps and deletes nothing until its page is loaded anew.
            let is_served = here.is_lent() && !here.core.as_ref().is_some_and(Client::is_lost);
            let unserved_ms = if is_served { shown_ms + READY_MS } else { self.now_ms };
            let Some(hearing) = here.tabs.get_mut(&tab) else { return Ok(()) };
            let is_noted = self.told > Told::Nothing;
            let text = is_noted.then(|| format!("{device}.{} hears {}", tab.0, said(&message)));
            let token_wanted = match &message {
                FromCore::TokenWanted { handle, .. } => Some(*handle),
                _ => None,
            };
            let heard =
                hearing.hear(message, last, self.now_ms, [trouble_ms, shown_ms, unserved_ms]);
            text.into_iter().for_each(|text| self.note(&text));
            let heard = heard.map_err(|what| format!("device {device}: {what}"))?;
            self.take_at_word(device, &heard);
            for news in heard.news {
                let is_confirmed = matches!(news, News::Confirmed(_));
                let is_of_runs = matches!(
                    news,
                    News::Task(TaskNews::Given(..) | TaskNews::Read(..) | TaskNews::RunSaid(..))
                );
                let sent = match &news {
                    News::Confirmed(name) if name.starts_with(SENDING) => Some(name.clone()),
                    _ => None,
                };
                let when = When { device, now_ms: self.now_ms, trouble_ms: shown_ms };
                self.judge.hear(news, when).map_err(|what| format!("device {device}: {what}"))?;
                if let Some(name) = sent.filter(|_| self.devices[device].tabs.contains_key(&tab)) {
                    self.ask_outcome(device, tab, &name);
                }
                if is_of_runs && self.swarm.has_runs() {
                    self.runs_go_on_soon(device, tab);
                }
                if is_confirmed && self.swarm.syncs_at_once && self.faults {
                    self.sync_elsewhere(device);
                }
            }
            self.devices[device].moved.extend(heard.moved);
            if !token_wanted.is_some_and(|handle| self.keeps_silent(device, tab, handle)) {
                answers.extend(self.with_tokens(device, tab, heard.answers));
            }
            if let Some(doc) = heard.exported.filter(|_| self.faults) {
                self.look_at_export(device, tab, doc)?;
            }
            if let Some(doc) = heard.taken {
                self.taken(device, doc)?;
            }
            if let Some(document) = heard.destroyed {
                self.destroyed(device, &document);
            }
            if let Some(document) = heard.stays {
                self.stays(device, &document);
            }
            for message in heard.again {
                self.schedule(500, Event::AskAgain { device, tab, message });
            }
        }
        if !answers.is_empty() {
            self.send_to_core(device, tab, answers);
        }
        Ok(())
    }

    /// Whether a tab that is asked for a token of a document leaves it to another one to answer.
    fn keeps_silent(&self, device: usize, tab: TabId, handle: Handle) -> bool {
        let tabs = &self.devices[device].tabs;
        let host = tabs[&tab].doc(handle).and_then(|doc| self.host_of(doc));
        let is_there = |other: &Tab, doc| {
            let is_asked = self.docs.spec(doc).host.is_some() || !other.holds_locally(doc);
            self.host_of(doc) == host && is_asked
        };
        let could = |other: &Tab| other.held.keys().any(|doc| is_there(other, *doc));
        if host.is_none() {
            return false;
        }
        let mut others = tabs.range(tab..).skip(1);
        self.swarm.silent_tabs && others.any(|(_, other)| could(other))
    }

    /// What was called done is so: the power may go right after the word, of the device or of a
    /// server that has said it too.
    fn take_at_word(&mut self, device: usize, heard: &Heard) {
        let is_durable = heard.news.iter().any(|it| matches!(it, News::Durable(_)));
        let is_confirmed = heard.news.iter().any(|it| matches!(it, News::Confirmed(_)));
        let is_by_server = is_confirmed || heard.moved.is_some();
        let is_said = is_durable || is_by_server;
        let is_seldom = heard.moved.is_some();
        if !is_said || self.swarm.cuts_at_word == 0 || !self.faults {
            return;
        }
        if !is_seldom && !self.rng.once_in(4) {
            return;
        }
        self.swarm.cuts_at_word -= 1;
        if is_by_server && self.rng.once_in(3) {
            let host = self.rng.index(self.hosts.len());
            let life = self.hosts[host].life;
            self.schedule(0, Event::CutServer { host, life });
        } else {
            let life = self.devices[device].life;
            self.schedule(0, Event::CutDevice { device, life });
        }
    }

    /// A file that was taken out while things change shows one state, and nothing of any other.
    fn look_at_export(&self, device: usize, tab: TabId, doc: Doc) -> Result<(), String> {
        let Some(from) = self.devices[device].tabs.get(&tab) else { return Ok(()) };
        let found = Found::open(&from.exported[&doc]);
        let judged = found.and_then(|found| self.judge.judge_export(doc, &found, from.id_prefix));
        judged.map_err(|what| format!("device {device} gives a file of {doc:?}: {what}"))
    }

    /// What was to be handed over is at its server already, as another document.
    fn taken(&mut self, device: usize, doc: Doc) -> Result<(), String> {
        let here = &mut self.devices[device];
        if here.parted.contains(&doc) {
            // It stays what it is here: a local document.
            here.offered.remove(&doc);
        } else if !self.swarm.rivals {
            return Err(format!("device {device}: {doc:?} is at its server, and is another one"));
        }
        Ok(())
    }

    /// A tab's app says something: what of it goes to the core, and when, the tab decides. What it
    /// says itself comes before all that waits to be heard.
    fn send_to_core(&mut self, device: usize, tab: TabId, messages: Vec<ToCore>) {
        let mut told = Vec::new();
        for message in messages {
            let now_ms = self.now_ms;
            let Some(here) = self.devices[device].tabs.get_mut(&tab) else { return };
            let followed = here.port.say(now_ms, message);
            told.extend(self.follow(device, tab, followed));
        }
        if let Err(what) = self.tell_app(device, tab, told) {
            self.wrong.get_or_insert(what);
        }
    }

    /// Carries out what a tab wants done. Gives what its app is told.
    fn follow(&mut self, device: usize, tab: TabId, followed: Followed) -> Vec<(FromCore, bool)> {
        if let Some(what) = followed.wrong {
            self.wrong.get_or_insert(format!("{device}.{}: {what}", tab.0));
        }
        let life = self.devices[device].life;
        if !followed.posts.is_empty() {
            if self.deaf_once_it_asked == Some((device, tab)) && followed.posts.iter().any(asks) {
                self.keep_busy((device, tab));
            }
            let core = self.tab(device, tab).port.core;
            let event = Event::TabToCore { device, life, tab, core, messages: followed.posts };
            self.carry(Wire::TabToCore(device, lending::port_of(tab, core)), 3, event);
        }
        if let Some(at_ms) = followed.wake_at_ms {
            let delay = at_ms.saturating_sub(self.now_ms);
            self.schedule(delay, Event::TabWakes { device, tab, at_ms });
        }
        followed.wants.into_iter().for_each(|effect| self.carry_out(device, tab, effect));
        followed.told
    }

    /// Delivers after everything that was sent on the same wire before.
    fn carry(&mut self, wire: Wire, delay_max_ms: u64, event: Event) {
        let delay = self.rng.below(delay_max_ms + 1);
        self.carry_in(wire, delay, event);
    }

    fn carry_in(&mut self, wire: Wire, delay_ms: u64, event: Event) {
        let at = self.now_ms + delay_ms;
        let last = self.wires.entry(wire).or_insert(0);
        *last = at.max(*last);
        let delay = *last - self.now_ms.min(*last);
        self.schedule(delay, event);
    }

    /// How long a flush takes: a few milliseconds, and now and then much longer.
    fn flush_ms(&mut self) -> u64 {
        let max = if self.rng.once_in(8) { 600 } else { 12 };
        self.rng.below(max)
    }

    fn schedule(&mut self, delay_ms: u64, event: Event) {
        self.last_event += 1;
        self.queue.insert((self.now_ms + delay_ms, self.last_event), event);
    }

    fn note(&mut self, text: &str) {
        self.note_with(|| text.to_owned());
    }

    fn note_with(&mut self, text: impl FnOnce() -> String) {
        if self.told == Told::Nothing {
            return;
        }
        let text = text();
        self.note_bytes(text.as_bytes());
        self.tell(|| text);
    }

    /// What is too long to be told.
    fn note_bytes(&mut self, bytes: &[u8]) {
        if self.told == Told::Nothing {
            return;
        }
        self.trace.update(&self.now_ms.to_le_bytes());
        self.trace.update(bytes);
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        if self.told == Told::Everything {
            say(&format!("{:>9} {}", self.now_ms - START_MS, text()));
        }
    }
}

/// Whether it asks for what shall not happen twice.
fn asks(message: &ToCore) -> bool {
    matches!(message, ToCore::Destroy { .. } | ToCore::Ask { request: Request::Mutate(_), .. })
}

/// The beginning of a message.
fn said(message: &FromCore) -> String {
    match message {
        // Of a file every byte would be formatted.
        FromCore::Exported { call, file } => {
            let file = file[..file.len().min(SHORT)].to_vec();
            short(&FromCore::Exported { call: *call, file })
        }
        message => short(message),
    }
}

/// The first so many characters of what a value is.
pub(crate) fn short(value: &impl std::fmt::Debug) -> String {
    let mut text = Short(String::new());
    // What is left out is no error.
    let _ = write!(text, "{value:?}");
    text.0
}

/// Ends the formatting once there is enough: pages are long.
struct Short(String);

impl std::fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.push_str(text);
        if self.0.len() < SHORT { Ok(()) } else { Err(std::fmt::Error) }
    }
}
