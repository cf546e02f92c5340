//! One device: tabs, the core, the page server that a tab lends, and the disk.

use std::collections::BTreeMap;

use tidelog_client::{Client, ClientSettings, Notice, PageServerId, SocketId, TabId, ToCore};
use tidelog_disk::{CrashDevice, CrashDisk, StoreFiles};
use tidelog_pages::{OwnerId, PageServer, StoreOptions};

use crate::rng::Rng;
use crate::tab::{Release, Tab};

/// The core's only owner number at a page server that it was lent.
pub(crate) const CORE: OwnerId = OwnerId(1);

/// How much things hold in a world: little, so that what happens to large documents happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) log_size_max: u64,
    /// Pages that cores and page servers keep in memory.
    pub(crate) pool_pages_max: usize,
}

pub(crate) struct Device {
    sizes: Sizes,
    pub(crate) disk: CrashDevice,
    /// Counts up whenever the core is started: what was sent to an earlier one is lost.
    pub(crate) life: u64,
    pub(crate) core: Option<Client>,
    pub(crate) page_server: Option<Lent>,
    pub(crate) tabs: BTreeMap<TabId, Tab>,
    /// Sockets of this life's core, each with the server's number for the connection.
    pub(crate) sockets: BTreeMap<SocketId, u64>,
    /// When the core wants to be woken.
    pub(crate) wake_at_ms: Option<u64>,
    last_tab: u32,
    last_page_server: u32,
}

/// A page server, and the tab that lends it.
pub(crate) struct Lent {
    pub(crate) id: PageServerId,
    pub(crate) tab: TabId,
    pub(crate) server: PageServer<CrashDisk>,
    /// What it is to tell tabs once it is durable.
    pub(crate) notices: Vec<Notice>,
}

impl Device {
    pub(crate) fn new(sizes: Sizes) -> Self {
        let disk = CrashDevice::new();
        disk.hold_flushes(true);
        Self {
            sizes,
            disk,
            life: 0,
            core: None,
            page_server: None,
            tabs: BTreeMap::new(),
            sockets: BTreeMap::new(),
            wake_at_ms: None,
            last_tab: 0,
            last_page_server: 0,
        }
    }

    pub(crate) fn start_core(&mut self, rng: &mut Rng) {
        self.life += 1;
        self.wake_at_ms = None;
        self.sockets.clear();
        let settings = ClientSettings { pool_pages_max: self.sizes.pool_pages_max };
        self.core = Some(Client::with_settings(rng.seed(), settings));
    }

    pub(crate) fn new_tab(&mut self, prefix: u64, release: Release) -> TabId {
        self.last_tab += 1;
        let tab = TabId(self.last_tab);
        self.tabs.insert(tab, Tab::new(prefix << 32 | u64::from(self.last_tab), release));
        tab
    }

    /// A tab lends a page server, opened on what is on the disk.
    pub(crate) fn lend(&mut self, tab: TabId) -> Result<PageServerId, String> {
        self.last_page_server += 1;
        let id = PageServerId(self.last_page_server);
        let server = open_store(&self.disk, self.sizes)?;
        self.page_server = Some(Lent { id, tab, server, notices: Vec::new() });
        Ok(id)
    }

    /// Whether the core has a page server, and all tabs have opened their documents.
    pub(crate) fn is_open(&self) -> bool {
        let mut unsettled = self.tabs.values().flat_map(|tab| tab.unsettled.values());
        self.page_server.is_some() && !unsettled.any(|call| matches!(call, ToCore::Open { .. }))
    }

    /// From now on nothing more fits on the disk.
    pub(crate) fn fill_disk(&self) {
        let size = |name| self.disk.bytes_of(name).map_or(0, |bytes| bytes.len() as u64);
        self.disk.set_capacity(Some(StoreFiles::<()>::NAMES.into_iter().map(size).sum()));
    }

    /// The worker of the page server is gone; what it wrote is seen by the next, un-flushed or not.
    pub(crate) fn drop_page_server(&mut self) {
        self.page_server = None;
        self.disk = self.disk.kill();
        self.disk.hold_flushes(true);
    }

    /// The power goes: any un-flushed sector may be lost.
    pub(crate) fn cut_power(&mut self, rng: &mut Rng) {
        self.page_server = None;
        self.core = None;
        self.life += 1;
        self.tabs.clear();
        self.sockets.clear();
        self.disk = crash(&self.disk, rng);
    }
}

/// The store on a disk, or a sentence that says why it does not open: it always has to.
pub(crate) fn open_store(
    disk: &CrashDevice,
    sizes: Sizes,
) -> Result<PageServer<CrashDisk>, String> {
    let files = StoreFiles::open_each(|name| Ok::<_, String>(disk.file(name)))?;
    let Sizes { log_size_max, pool_pages_max } = sizes;
    let options = StoreOptions {
        log_size_max,
        pool_pages_max: pool_pages_max.max(8),
        ..StoreOptions::default()
    };
    match PageServer::open_with(files, options) {
        Ok((server, _)) => Ok(server),
        Err(error) => Err(format!("the store does not open: {error:?}")),
    }
}

/// What is left of a disk after a power cut now.
pub(crate) fn crash(disk: &CrashDevice, rng: &mut Rng) -> CrashDevice {
    let all_or_nothing = rng.below(3);
    let left = disk.crash(&mut |choices| match all_or_nothing {
        0 => 0,
        _ => usize::try_from(rng.below(choices as u64)).unwrap_or(0),
    });
    left.hold_flushes(true);
    left
}
