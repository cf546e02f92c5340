//! What happens, and to whom.

use tidelog_client::{FromCore, Input, PageServerId, SocketId, TabId, ToCore};
use tidelog_pages::{OwnerId, StoreReply};
use tidelog_room::ConnId;
use tidelog_tab::Input as ToTab;

use super::World;
use super::lending::{Worker, port_of};
use crate::device::ForPageServer;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wire {
    // Each hello of a tab comes on a port of its own.
    TabToCore(usize, TabId),
    CoreToTab(usize, TabId),
    /// Each core has a port of its own: what two of them ask has no order.
    ToPageServer(usize, OwnerId),
    FromPageServer(usize),
    PageServerToTab(usize, TabId),
    WorkerToTab(usize, TabId),
    ToServer(u64),
    FromServer(u64),
    ToRooms(usize),
}

pub(super) enum Event {
    /// `core` is the tab's number for the core, as in all that goes over a port between the two.
    TabToCore {
        device: usize,
        life: u64,
        tab: TabId,
        core: u32,
        messages: Vec<ToCore>,
    },
    CoreToTab {
        device: usize,
        life: u64,
        tab: TabId,
        core: u32,
        messages: Vec<FromCore>,
    },
    /// A page server tells a tab by itself what is durable.
    PageServerToTab {
        device: usize,
        life: u64,
        tab: TabId,
        messages: Vec<FromCore>,
    },
    /// A tab asks once more what failed for the moment.
    AskAgain {
        device: usize,
        tab: TabId,
        message: ToCore,
    },
    ToPageServer {
        device: usize,
        worker: Worker,
        what: ForPageServer,
    },
    /// A frozen tab goes on.
    Thaw {
        device: usize,
    },
    TabReached {
        device: usize,
        life: u64,
        tab: TabId,
        core: u32,
        server: PageServerId,
    },
    FromPageServer {
        device: usize,
        life: u64,
        server: PageServerId,
        replies: Vec<StoreReply>,
    },
    /// A tab has found its core and says hello; a core hears that.
    TabConnects {
        device: usize,
        tab: TabId,
        core: u32,
    },
    Hello {
        device: usize,
        life: u64,
        tab: TabId,
        core: u32,
    },
    /// A lock, a core or a worker says something to a tab.
    ToTab {
        device: usize,
        tab: TabId,
        input: ToTab,
    },
    WorkerLoaded {
        device: usize,
        worker: Worker,
    },
    WorkerServes {
        device: usize,
        worker: Worker,
    },
    /// A tab lends the core its worker of this number, or says why it cannot.
    TabLends {
        device: usize,
        life: u64,
        tab: TabId,
        core: u32,
        worker: Result<u32, String>,
    },
    LendEnded {
        device: usize,
        life: u64,
        tab: TabId,
        core: u32,
    },
    /// What the core was lent by this number says there that it has the store.
    ServerReady {
        device: usize,
        life: u64,
        server: PageServerId,
    },
    SocketUp {
        conn: u64,
    },
    ToServer {
        conn: u64,
        bytes: Vec<u8>,
    },
    FromServer {
        conn: u64,
        bytes: Vec<u8>,
    },
    SocketDown {
        device: usize,
        life: u64,
        socket: SocketId,
    },
    HostLeft {
        host: usize,
        conn: u64,
    },
    HostFlushed {
        host: usize,
        life: u64,
    },
    HostRound {
        host: usize,
        life: u64,
    },
    HostAnswers {
        host: usize,
        life: u64,
        owner: OwnerId,
        reply: StoreReply,
    },
    HostReopens {
        host: usize,
        life: u64,
    },
    HostHasRoom {
        host: usize,
        life: u64,
    },
    HostLetsIn {
        host: usize,
    },
    /// The time is up of the token by which a connection was let in.
    TokenEnds {
        host: usize,
        life: u64,
        conn: u64,
    },
    /// A tab's lock comes free, though it may come back.
    TabLetsGo {
        device: usize,
        life: u64,
        tab: TabId,
        core: u32,
    },
    /// A tab that was hidden is shown again.
    TabIsShown {
        device: usize,
        tab: TabId,
    },
    /// A tab that was busy hears again.
    TabIsFree {
        device: usize,
        tab: TabId,
    },
    Wake {
        device: usize,
        life: u64,
    },
    RoomAgain {
        device: usize,
        life: u64,
    },
    /// A core dies, and its page server goes on.
    KillCore {
        device: usize,
        life: u64,
    },
    /// The power of a device, or of a server, goes as soon as something was called done.
    CutDevice {
        device: usize,
        life: u64,
    },
    CutServer {
        host: usize,
        life: u64,
    },
    /// A tab sees that the core which has this number there is gone.
    TabNotices {
        device: usize,
        tab: TabId,
        core: u32,
    },
    /// The time has come that a tab asked for.
    TabWakes {
        device: usize,
        tab: TabId,
        at_ms: u64,
    },
    /// A core whose data were cleared has noticed that by now.
    LooksCleared {
        device: usize,
        life: u64,
    },
    LostCoreEnds {
        device: usize,
        life: u64,
    },
    StartHost {
        host: usize,
    },
    /// Tabs do something about tasks.
    TasksGoOn,
    /// A tab goes on with the runs that it was given.
    RunsGoOn {
        device: usize,
        tab: TabId,
    },
    StartDevice {
        device: usize,
    },
}

impl Event {
    /// The tab that hears of it, if it is one.
    pub(super) fn tab(&self) -> Option<(usize, TabId)> {
        match self {
            Self::CoreToTab { device, tab, .. }
            | Self::PageServerToTab { device, tab, .. }
            | Self::TabConnects { device, tab, .. }
            | Self::ToTab { device, tab, .. }
            | Self::TabNotices { device, tab, .. }
            | Self::TabWakes { device, tab, .. } => Some((*device, *tab)),
            _ => None,
        }
    }

    /// Whether a core of this device asks its page server for something.
    pub(super) fn asks_store_of(&self, of: usize) -> bool {
        matches!(
            self,
            Self::ToPageServer { device, what: ForPageServer::Requests { .. }, .. } if *device == of
        )
    }
}

impl World {
    pub(super) fn happen(&mut self, event: Event) -> Result<(), String> {
        let lives = |world: &Self, device: usize, life: u64| world.devices[device].life == life;
        let Some(event) = self.unless_busy(event) else { return Ok(()) };
        match event {
            Event::TabToCore { device, life, tab, core, messages } => {
                if lives(self, device, life) && self.is_known(device, tab, core) {
                    let asks = || format!("{device}.{} asks {}", tab.0, super::short(&messages));
                    self.note_with(asks);
                    let heard = |message: &ToCore| match message {
                        ToCore::Heard { lists } => *lists,
                        _ => 0,
                    };
                    let heard = messages.iter().map(heard).sum();
                    self.devices[device].heard(port_of(tab, core), heard);
                    self.devices[device].asks_for_rows(port_of(tab, core), &messages);
                    self.step_core(device, Input::FromTab { tab: port_of(tab, core), messages });
                }
            }
            Event::CoreToTab { device, life, tab, core, messages } => {
                if lives(self, device, life) && self.hears(device, tab, core) {
                    let size = self.heard_size(&messages);
                    self.tab_hears(device, tab, messages)?;
                    self.tab_heard_list(device, tab, size)?;
                }
            }
            Event::PageServerToTab { device, life, tab, messages } => {
                if lives(self, device, life) {
                    self.tab_hears(device, tab, messages)?;
                }
            }
            Event::TabLetsGo { device, life, tab, core } => {
                if lives(self, device, life) && self.is_known(device, tab, core) {
                    self.tab_is_gone(device, tab);
                }
            }
            Event::TabIsShown { device, tab } => self.show((device, tab))?,
            Event::TabIsFree { device, tab } => self.let_hear((device, tab))?,
            Event::AskAgain { device, tab, message } => self.ask_again(device, tab, message),
            Event::ToPageServer { device, worker, what } => {
                self.page_server_gets(device, worker, what);
            }
            Event::Thaw { device } => self.thaw(device),
            Event::TabReached { device, life, tab, core, server } => {
                if lives(self, device, life) && self.is_known(device, tab, core) {
                    self.step_core(device, Input::TabReached { tab: port_of(tab, core), server });
                }
            }
            Event::FromPageServer { device, life, server, replies } => {
                if lives(self, device, life) {
                    let is_refusal =
                        |it: &StoreReply| matches!(it, StoreReply::AppendFailed { .. });
                    if replies.iter().any(is_refusal) {
                        self.devices[device].refused_ms = self.now_ms;
                    }
                    self.step_core(device, Input::FromPageServer { server, replies });
                }
            }
            Event::TabConnects { device, tab, core } => self.connect(device, tab, core)?,
            Event::Hello { device, life, tab, core } => {
                if lives(self, device, life) {
                    self.welcome(device, tab, core);
                }
            }
            Event::ToTab { device, tab, input } => self.tab_takes(device, tab, &input)?,
            Event::WorkerLoaded { device, worker } => self.worker_loaded(device, worker),
            Event::WorkerServes { device, worker } => self.worker_serves(device, worker)?,
            Event::TabLends { device, life, tab, core, worker } => {
                if lives(self, device, life) && self.is_known(device, tab, core) {
                    self.tab_lends(device, tab, worker);
                }
            }
            Event::LendEnded { device, life, tab, core } => {
                if lives(self, device, life) && self.is_known(device, tab, core) {
                    self.lend_ended(device, tab);
                }
            }
            Event::ServerReady { device, life, server } => {
                if lives(self, device, life) {
                    self.server_ready(device, server);
                }
            }
            Event::SocketUp { conn } => self.socket_up(conn),
            Event::ToServer { conn, bytes } => self.host_hears(conn, &bytes),
            Event::FromServer { conn, bytes } => self.device_hears(conn, bytes),
            Event::SocketDown { device, life, socket } => {
                if lives(self, device, life) {
                    self.step_core(device, Input::SocketClosed { socket });
                }
            }
            Event::HostLeft { host, conn } => {
                let done = self.hosts[host].left(ConnId(conn));
                self.host_did(host, done);
            }
            Event::HostFlushed { host, life } => {
                if self.hosts[host].life == life {
                    self.hosts[host].flushed();
                    self.host_round(host);
                }
            }
            Event::HostRound { host, life } => {
                if self.hosts[host].life == life {
                    self.host_round(host);
                }
            }
            Event::HostAnswers { host, life, owner, reply } => {
                if self.hosts[host].life == life {
                    let done = self.hosts[host].answered(owner, reply);
                    self.host_did(host, done);
                }
            }
            Event::HostReopens { host, life } => self.host_reopens(host, life)?,
            Event::HostHasRoom { host, life } => {
                if self.hosts[host].life == life {
                    self.hosts[host].disk.set_full(false);
                }
            }
            Event::HostLetsIn { host } => {
                self.barred.remove(&host);
            }
            Event::TokenEnds { host, life, conn } => {
                if self.hosts[host].life == life {
                    self.token_ends(host, conn);
                }
            }
            Event::Wake { device, life } => {
                // A later wish has replaced an earlier one.
                let here = &mut self.devices[device];
                if here.life == life && here.wake_at_ms.is_some_and(|at| at <= self.now_ms) {
                    here.wake_at_ms = None;
                    self.step_core(device, Input::Wake);
                }
            }
            Event::RoomAgain { device, life } => {
                if lives(self, device, life) {
                    self.devices[device].disk.set_full(false);
                }
            }
            Event::KillCore { device, life } => {
                if lives(self, device, life) {
                    self.kill_core(device, true);
                }
            }
            Event::CutDevice { device, life } => {
                if lives(self, device, life) && self.faults {
                    self.note(&format!("device {device}: power cut at its word"));
                    self.cut_power_of(device);
                }
            }
            Event::CutServer { host, life } => {
                if self.hosts[host].life == life && self.hosts[host].is_up() && self.faults {
                    self.note(&format!("server {host}: power cut at its word"));
                    self.cut_power_of_server(host);
                }
            }
            Event::TabNotices { device, tab, core } => self.tab_notices(device, tab, core)?,
            Event::TabWakes { device, tab, at_ms } => {
                let now_ms = self.now_ms;
                if let Some(here) = self.devices[device].tabs.get_mut(&tab) {
                    let followed = here.port.wake(at_ms, now_ms);
                    let told = self.follow(device, tab, followed);
                    self.tell_app(device, tab, told)?;
                }
            }
            Event::LooksCleared { device, life } => self.looks_cleared(device, life)?,
            Event::LostCoreEnds { device, life } => self.lost_core_ends(device, life),
            Event::StartHost { host } => {
                if !self.hosts[host].is_up() {
                    self.note(&format!("server {host}: starts"));
                    self.hosts[host].start(&mut self.rng)?;
                }
            }
            Event::TasksGoOn => self.tasks_go_on(),
            Event::RunsGoOn { device, tab } => self.go_on_with_runs(device, tab),
            Event::StartDevice { device } => self.start_device(device)?,
        }
        Ok(())
    }
}
