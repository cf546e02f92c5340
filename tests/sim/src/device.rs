//! One device: tabs, the core, the page server that a tab lends, and the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidelog_client::{
    Call, Client, ClientSettings, Notice, PageServerId, Request, SocketId, TabId, ToCore,
};
use tidelog_disk::{CrashDevice, CrashDisk, Disk as _, DiskFault, StoreFiles};
use tidelog_pages::{
    AppendError, OwnerId, PageServer, RequestId, Seed, StoreOptions, StoreReply, StoreRequest,
    Ticket, Urgency,
};
use tidelog_testing::store::door::Stand;
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{DocumentKey, JournalId, Life, Page, Pgid};

use crate::app::{self, Release};
use crate::docs::Doc;
use crate::doors::CoreDoor;
use crate::doors::StoreDoor;
use crate::doors::WakeDoor;
use crate::rng::Rng;
use crate::swarm::Swarm;
use crate::tab::Tab;
use crate::world::{Lending, Worker};

pub(crate) struct Device {
    swarm: Swarm,
    pub(crate) disk: CrashDevice,
    /// Counts up whenever the core is started: what was sent to an earlier one is lost.
    pub(crate) life: u64,
    pub(crate) core: Option<Client>,
    pub(crate) core_door: CoreDoor,
    pub(crate) wake_door: WakeDoor,
    pub(crate) page_server: Option<Lent>,
    pub(crate) tabs: BTreeMap<TabId, Tab>,
    /// Sockets of this life's core, each with the number of its connection.
    pub(crate) sockets: BTreeMap<SocketId, u64>,
    /// When the core wants to be woken.
    pub(crate) wake_at_ms: Option<u64>,
    /// How far the device's clock is ahead of that of the world, or behind.
    pub(crate) skew_ms: i64,
    /// The tab that lends is frozen until then.
    pub(crate) frozen_until_ms: u64,
    /// Of those that somebody wanted to hand over, which a server may have taken as they were
    /// before the data here went back, or begun anew: what is here now is another document.
    pub(crate) parted: BTreeSet<Doc>,
    /// When something went wrong here last.
    pub(crate) trouble_ms: u64,
    /// When a core was told last that its store had refused what it was to write.
    pub(crate) refused_ms: u64,
    /// Local documents that somebody wanted to hand to a server, and those that were.
    pub(crate) offered: BTreeSet<Doc>,
    pub(crate) moved: BTreeSet<Doc>,
    /// Documents whose copy here was said to be deleted, since that was asked for last.
    pub(crate) deleted: BTreeSet<Doc>,
    /// The life in which the data were cleared under the core, if they were.
    pub(crate) cleared_in_life: Option<u64>,
    /// The life in which the core had lost its data.
    pub(crate) lost_in_life: u64,
    /// The chance that the core began with, and the one that the next core begins with, if that is
    /// not to be another.
    pub(crate) core_seed: [u8; 32],
    pub(crate) next_core_seed: Option<[u8; 32]>,
    /// What tabs have agreed on by the locks of the browser.
    pub(crate) lending: Lending,
    /// Bytes of the lists that were told to each tab, and that it has not said to have heard.
    unheard: BTreeMap<TabId, VecDeque<usize>>,
    /// How often each call has asked for rows that did not come yet, and how often once more.
    rows_owed: BTreeMap<(TabId, Call), u32>,
    asked_again: BTreeMap<(TabId, Call), u32>,
    /// Calls that are about tasks.
    about_tasks: BTreeSet<(TabId, Call)>,
    /// Whether something is wrong with the log of its store.
    pub(crate) has_damaged_log: bool,
    /// Whether the core is killed as soon as it is lent a page server.
    pub(crate) ends_once_lent: bool,
    last_tab: u32,
    last_page_server: u32,
}

/// A page server, and the worker that has the store.
pub(crate) struct Lent {
    /// What the core calls it that it was lent to last.
    pub(crate) id: PageServerId,
    pub(crate) server: PageServer<CrashDisk>,
    pub(crate) door: StoreDoor,
    /// What it has answered, and may not.
    pub(crate) wrong: Option<String>,
    pub(crate) worker: Worker,
    /// What it is to tell tabs once it is durable, and on whose word.
    pub(crate) notices: Vec<(OwnerId, Notice)>,
    /// Appends that it has refused.
    refused: BTreeSet<(OwnerId, Ticket)>,
    /// Whether a slice of its work is due.
    pub(crate) is_due: bool,
    /// The life of the core that has it, and its port there: each way that is lent is a new one.
    pub(crate) life: u64,
    pub(crate) owner: OwnerId,
    /// What has come while its tab was frozen.
    pub(crate) frozen: VecDeque<ForPageServer>,
}

/// What a page server has to do.
pub(crate) enum ForPageServer {
    /// A core asks, on one of the ports.
    Requests { owner: OwnerId, requests: Vec<StoreRequest>, notices: Vec<Notice> },
    /// It goes on with what is left.
    Turn,
    /// The flushes that it asked for are complete.
    Flushed,
    /// Nobody has asked for anything for a while.
    Rest,
}

impl Lent {
    /// Carries out what a core asks on one of the ports.
    pub(crate) fn serve(&mut self, owner: OwnerId, requests: Vec<StoreRequest>) {
        let mut has_writes = false;
        for request in requests {
            has_writes |= matches!(
                request,
                StoreRequest::Hello { .. }
                    | StoreRequest::Append { .. }
                    | StoreRequest::Destroy { .. }
            );
            self.door.comes(owner, &request);
            self.server.serve(owner, request);
        }
        if has_writes {
            self.server.flush();
        }
    }

    /// Nobody has asked for anything for a while.
    pub(crate) fn rest(&mut self) {
        if !self.is_due && !self.server.wants_poll() {
            self.server.mark_durable();
            self.server.shorten_log();
        }
    }

    /// A slice of its work: what it answers the core that holds it, what it tells tabs itself, and
    /// whether the store is of no more use.
    pub(crate) fn poll(&mut self) -> (Vec<StoreReply>, Vec<Notice>, bool) {
        let (mut replies, mut told, mut is_broken) = (Vec::new(), Vec::new(), false);
        let polled = self.server.poll();
        self.wrong = self.wrong.take().or(self.door.leaves(&self.server, &polled).err());
        for (owner, reply) in polled {
            match &reply {
                StoreReply::Durable { ticket } => {
                    let is_due =
                        |(from, it): &(OwnerId, Notice)| *from == owner && it.ticket <= *ticket;
                    for (_, notice) in self.notices.extract_if(.., |it| is_due(it)) {
                        if self.refused.contains(&(owner, notice.ticket)) {
                            let what =
                                format!("a tab is told of {:?}, which failed", notice.ticket);
                            self.wrong.get_or_insert(what);
                        }
                        told.push(notice);
                    }
                }
                StoreReply::AppendFailed { ticket, .. } => {
                    self.refused.insert((owner, *ticket));
                    self.notices.retain(|(from, it)| *from != owner || it.ticket != *ticket);
                }
                // Who is fenced off is told so; the store itself is well.
                StoreReply::Broken { error } => {
                    is_broken |= !matches!(error, AppendError::Fenced { .. });
                }
                _ => {}
            }
            if owner == self.owner {
                replies.push(reply);
            }
        }
        (replies, told, is_broken)
    }
}

/// How far a clock is off that goes wrong by so much: half of them are behind.
fn skew(ms: u64) -> i64 {
    let ms = ms.cast_signed();
    if ms % 2 == 0 { ms } else { -ms }
}

impl Device {
    /// What the time is by the device's clock.
    pub(crate) fn clock(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.skew_ms)
    }

    pub(crate) fn new(swarm: &Swarm, rng: &mut Rng) -> Self {
        let disk = CrashDevice::new();
        disk.hold_flushes(!swarm.flushes_at_once);
        Self {
            disk,
            life: 0,
            core: None,
            core_door: CoreDoor::new(swarm.limits),
            wake_door: WakeDoor::default(),
            page_server: None,
            tabs: BTreeMap::new(),
            sockets: BTreeMap::new(),
            wake_at_ms: None,
            skew_ms: skew(rng.below(swarm.skew_ms_max + 1)),
            frozen_until_ms: 0,
            trouble_ms: 0,
            refused_ms: 0,
            offered: BTreeSet::new(),
            moved: BTreeSet::new(),
            deleted: BTreeSet::new(),
            parted: BTreeSet::new(),
            cleared_in_life: None,
            lost_in_life: 0,
            core_seed: [0; 32],
            next_core_seed: None,
            lending: Lending::default(),
            unheard: BTreeMap::new(),
            rows_owed: BTreeMap::new(),
            asked_again: BTreeMap::new(),
            about_tasks: BTreeSet::new(),
            has_damaged_log: false,
            ends_once_lent: false,
            last_tab: 0,
            last_page_server: 0,
            swarm: swarm.clone(),
        }
    }

    pub(crate) fn start_core(&mut self, rng: &mut Rng) {
        self.life += 1;
        self.wake_at_ms = None;
        self.ends_once_lent = false;
        self.unheard.clear();
        self.rows_owed.clear();
        self.asked_again.clear();
        self.about_tasks.clear();
        self.lending.core_is_new();
        self.core_door.core_is_new();
        self.wake_door = WakeDoor::default();
        self.sockets.clear();
        let settings = ClientSettings { limits: self.swarm.limits, ..ClientSettings::default() };
        self.core_seed = self.next_core_seed.take().unwrap_or_else(|| rng.seed());
        self.core = Some(Client::of_host(self.core_seed, settings, app::found_right()));
    }

    /// A tab is told a list of messages: each with its bytes, and whether nobody asked for it. Says
    /// which of them had to wait, since the tab had enough to hear before.
    pub(crate) fn tell(&mut self, port: TabId, list: &[(usize, bool)]) -> Vec<usize> {
        let lists = self.unheard.entry(port).or_default();
        let mut size: usize = lists.iter().sum();
        lists.push_back(list.iter().map(|(size, _)| size).sum());
        let size_max = self.swarm.limits.tab_unheard_size_max;
        let early = list.iter().enumerate().filter(|(_, (more, is_unasked))| {
            let is_behind = size >= size_max;
            size += more;
            is_behind && *is_unasked
        });
        early.map(|(index, _)| index).collect()
    }

    /// A tab asks for rows, some of which it may have asked for before.
    pub(crate) fn asks_for_rows(&mut self, port: TabId, messages: &[ToCore]) {
        for message in messages {
            if let ToCore::Ask { call, request, .. } = message
                && matches!(
                    request,
                    Request::Handle(_)
                        | Request::Complete(_)
                        | Request::Outcome(_)
                        | Request::Records(_)
                )
            {
                self.about_tasks.insert((port, *call));
            }
            let ToCore::Ask { call, request: Request::Query(_) | Request::Watch(_), .. } = message
            else {
                continue;
            };
            let is_again = self.rows_owed.contains_key(&(port, *call));
            *self.rows_owed.entry((port, *call)).or_default() += 1;
            *self.asked_again.entry((port, *call)).or_default() += u32::from(is_again);
        }
    }

    /// Whether rows tell of tasks, of which each word is told.
    pub(crate) fn tells_of_tasks(&self, port: TabId, call: Call) -> bool {
        self.about_tasks.contains(&(port, call))
    }

    /// Whether rows are the answer to what a tab has asked.
    pub(crate) fn owes_rows(&mut self, port: TabId, call: Call) -> bool {
        take_one(&mut self.rows_owed, (port, call))
    }

    /// Whether rows that a tab had no room for may be the answer to what it has asked once more: a
    /// live query that is there may have its turns, and show other ones, before it is looked at for
    /// that.
    pub(crate) fn owes_rows_again(&mut self, port: TabId, call: Call) -> bool {
        take_one(&mut self.asked_again, (port, call))
    }

    /// A tab has heard so many of the lists.
    pub(crate) fn heard(&mut self, port: TabId, lists_count: u32) {
        if let Some(lists) = self.unheard.get_mut(&port) {
            lists.drain(..lists.len().min(lists_count as usize));
        }
    }

    pub(crate) fn new_tab(&mut self, prefix: u64, release: Release) -> TabId {
        self.last_tab += 1;
        let tab = TabId(self.last_tab);
        let prefix = prefix << 32 | u64::from(self.last_tab);
        self.tabs.insert(tab, Tab::new(prefix, release, &self.swarm));
        tab
    }

    /// A worker opens the store that is on the disk. No core was lent it yet.
    pub(crate) fn open_store(&mut self, worker: Worker) -> Result<(), String> {
        assert!(self.page_server.is_none(), "BUG: two workers have the store");
        self.page_server = Some(Lent {
            id: PageServerId(0),
            server: open_store_if(self.has_damaged_log, &self.disk, Life::NONE, &self.swarm)?,
            door: StoreDoor::new(&self.disk, &self.swarm, self.has_damaged_log),
            wrong: None,
            worker,
            notices: Vec::new(),
            refused: BTreeSet::new(),
            is_due: false,
            life: 0,
            owner: OwnerId(0),
            frozen: VecDeque::new(),
        });
        Ok(())
    }

    pub(crate) fn next_page_server(&mut self) -> PageServerId {
        self.last_page_server += 1;
        PageServerId(self.last_page_server)
    }

    /// The core goes over to a worker's page server, which may have ended since it said that it
    /// has the store. Whoever has the store otherwise is asked for nothing more.
    pub(crate) fn go_over(&mut self, worker: Worker, id: PageServerId) {
        let Some(lent) = &mut self.page_server else { return };
        let is_it = lent.worker == worker;
        (lent.id, lent.life) = if is_it { (id, self.life) } else { (PageServerId(0), 0) };
        lent.owner = OwnerId(lent.id.0.into());
    }

    /// The data are others from now on: a draft that is on its way to its server goes there as it
    /// was, and may change here before the server has it.
    pub(crate) fn part(&mut self) {
        self.parted.extend(self.offered.difference(&self.moved));
    }

    /// What it had is gone: queries that were asked before that may be answered by a core that
    /// begins with nothing.
    pub(crate) fn owes_queries_nothing(&mut self) {
        self.tabs.values_mut().for_each(Tab::owes_queries_nothing);
    }

    /// Whether the core has the page server.
    pub(crate) fn is_lent(&self) -> bool {
        self.page_server.as_ref().is_some_and(|lent| lent.life == self.life)
    }

    /// Whether it has, and all tabs have opened their documents.
    pub(crate) fn is_open(&self) -> bool {
        let mut unsettled = self.tabs.values().flat_map(|tab| tab.unsettled.values());
        self.is_lent() && !unsettled.any(|asked| asked.is_open())
    }

    /// The worker of the page server is gone; what it wrote is seen by the next, un-flushed or not.
    pub(crate) fn drop_page_server(&mut self) {
        self.page_server = None;
        self.frozen_until_ms = 0;
        self.disk = kill(&self.disk, &self.swarm);
    }

    /// The power goes: any un-flushed sector may be lost.
    pub(crate) fn cut_power(&mut self, rng: &mut Rng) {
        self.page_server = None;
        self.lending = Lending::default();
        self.core = None;
        self.life += 1;
        self.frozen_until_ms = 0;
        self.tabs.clear();
        self.sockets.clear();
        self.disk = crash(&self.disk, &self.swarm, rng);
    }
}

/// The store on a disk, or a sentence that says why it does not open: it always has to. It is
/// damaged only if that is so.
pub(crate) fn open_store_if(
    may_be_damaged: bool,
    disk: &CrashDevice,
    life: Life,
    swarm: &Swarm,
) -> Result<PageServer<CrashDisk>, String> {
    let (server, damage) = open_anyhow(disk, life, swarm)?;
    match damage.filter(|_| !may_be_damaged) {
        None => Ok(server),
        Some(damage) => Err(format!("the store is damaged: {damage}")),
    }
}

/// The store on a disk, and what is wrong with its log.
fn open_anyhow(
    disk: &CrashDevice,
    life: Life,
    swarm: &Swarm,
) -> Result<(PageServer<CrashDisk>, Option<String>), String> {
    let files = StoreFiles::open_each(|name| Ok::<_, String>(disk.file(name)))?;
    let options = StoreOptions {
        life,
        log_size_max: swarm.log_size_max,
        log_rest_size_max: swarm.log_rest_size_max,
        pool_pages_max: swarm.store_pool_pages,
        log_buffer_size_max: swarm.log_buffer_size_max,
        limits: swarm.limits,
        now_ms: 0,
    };
    match PageServer::open_with(files, Seed(disk.seed()), options) {
        Ok((server, report)) => Ok((server, report.damage.map(|damage| format!("{damage:?}")))),
        Err(error) => Err(format!("the store does not open: {error:?}")),
    }
}

/// A document as it lies in the store on a disk. `None` if part of it cannot be read.
///
/// # Errors
///
/// If the store does not open.
pub(crate) fn file_in(
    disk: &CrashDevice,
    document: &DocumentKey,
    swarm: &Swarm,
) -> Result<Option<StoredFile>, String> {
    let disk = disk.kill();
    disk.hold_flushes(false);
    let (mut server, damage) = open_anyhow(&disk, Life::NONE, swarm)?;
    if damage.is_some() {
        return Ok(None);
    }
    let owner = OwnerId(1);
    server.serve(owner, StoreRequest::Open { document: document.clone() });
    let mut pages = BTreeMap::new();
    let (mut is_whole, mut journal) = (false, None);
    loop {
        for (_, reply) in server.poll() {
            match reply {
                StoreReply::Opened { state: None, .. } => return Ok(Some(StoredFile::default())),
                StoreReply::Opened { state: Some(state), .. } => {
                    journal = state.storage.map(|position| position.journal);
                    let pgids = (1..=state.db_pages).map(Pgid).collect();
                    let (document, urgency) = (document.clone(), Urgency::User);
                    let read =
                        StoreRequest::Read { request: RequestId(1), urgency, document, pgids };
                    server.serve(owner, read);
                }
                StoreReply::Pages { pages: some, last, .. } => {
                    pages.extend(some);
                    is_whole |= last;
                }
                StoreReply::Damaged { .. } => return Ok(None),
                _ => {}
            }
        }
        if !server.wants_poll() {
            break;
        }
    }
    let bytes = pages.values().flat_map(|page: &Page| page.bytes().iter().copied());
    Ok(is_whole.then(|| StoredFile { journal, bytes: bytes.collect() }))
}

/// The file of a document, which is empty if it is not there, and which journal it has.
#[derive(Default)]
pub(crate) struct StoredFile {
    pub(crate) journal: Option<JournalId>,
    pub(crate) bytes: Vec<u8>,
}

/// Where a document stands in the store on a disk. `None` if that cannot be read.
///
/// # Errors
///
/// If the store does not open.
pub(crate) fn stand_in(
    disk: &CrashDevice,
    document: &DocumentKey,
    swarm: &Swarm,
) -> Result<Option<Stand>, String> {
    let (mut server, _) = open_anyhow(disk, Life::NONE, swarm)?;
    server.serve(OwnerId(1), StoreRequest::Open { document: document.clone() });
    loop {
        let opened = server.poll().into_iter().find_map(|(_, reply)| match reply {
            StoreReply::Opened { state, .. } => Some(Stand::of(state.as_deref())),
            _ => None,
        });
        if opened.is_some() || !server.wants_poll() {
            return Ok(opened);
        }
    }
}

/// Some pages that were written to their places long ago are others. Says whether there are any.
pub(crate) fn rot(disk: &CrashDevice, rng: &mut Rng) -> bool {
    let mut file = disk.file(PAGE_FILE);
    let slots = file.size() / PAGE_SIZE as u64;
    // The first is the file's header.
    if slots < 2 {
        return false;
    }
    let mut flip = |at| {
        let mut byte = [0];
        file.read_at(at, &mut byte)?;
        file.write_at(at, &[!byte[0]])
    };
    let mut places = (0..ROTTEN_PAGES)
        .map(|_| (1 + rng.below(slots - 1)) * PAGE_SIZE as u64 + rng.below(PAGE_SIZE as u64));
    let is_changed = places.try_for_each(&mut flip).and_then(|()| file.request_flush());
    disk.complete_flushes();
    is_changed.is_ok()
}

/// Whether there is one of it, which is taken.
fn take_one(of: &mut BTreeMap<(TabId, Call), u32>, at: (TabId, Call)) -> bool {
    of.get_mut(&at).filter(|left| **left > 0).map(|left| *left -= 1).is_some()
}

/// Some bytes of a log are others, so that whoever opens the store sees that something is missing.
/// Nothing happens where it would look like what a power cut leaves.
pub(crate) fn damage_log(disk: &CrashDevice, swarm: &Swarm, rng: &mut Rng) -> Option<CrashDevice> {
    (0..DAMAGE_TRIES).find_map(|_| {
        let damaged = kill(disk, swarm);
        damaged.hold_flushes(false);
        let mut log = damaged.file(StoreFiles::<CrashDisk>::NAMES[rng.index(2)]);
        // Most of what is laid ahead of a log is empty.
        let used = log.size() >> rng.index(8);
        let (at, mut byte) = (rng.below(1 + used), [0]);
        log.read_at(at, &mut byte).ok()?;
        log.write_at(at, &[!byte[0]]).ok()?;
        log.request_flush().ok()?;
        let (_, damage) = open_anyhow(&damaged.kill(), Life::NONE, swarm).ok()?;
        damage.map(|_| kill(&damaged, swarm))
    })
}

/// Places of a log that are tried.
const DAMAGE_TRIES: u32 = 40;

/// How many pages rot at once.
const ROTTEN_PAGES: u32 = 4;

/// The file of a store that has its pages.
const PAGE_FILE: &str = StoreFiles::<CrashDisk>::NAMES[2];

/// One of the next calls of this disk fails.
pub(crate) fn fail_soon(disk: &CrashDevice, rng: &mut Rng) {
    let fault = [DiskFault::Device, DiskFault::LateFlush][rng.index(2)];
    disk.fail_call(disk.calls() + 1 + rng.below(12), fault);
}

/// What a disk holds when the process that wrote to it was killed.
pub(crate) fn kill(disk: &CrashDevice, swarm: &Swarm) -> CrashDevice {
    let left = disk.kill();
    left.hold_flushes(!swarm.flushes_at_once);
    left
}

/// What is left of a disk after a power cut now.
pub(crate) fn crash(disk: &CrashDevice, swarm: &Swarm, rng: &mut Rng) -> CrashDevice {
    let all_or_nothing = rng.below(3);
    let left = disk.crash(&mut |choices| match all_or_nothing {
        0 => 0,
        _ => rng.index(choices),
    });
    left.hold_flushes(!swarm.flushes_at_once);
    left
}
