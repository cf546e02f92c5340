//! One device: the core, and the page server over its files.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{
    Client, ClientSettings, Effect, Input, PageServerId, SocketId, Storage, TabId,
};
use tidelog_disk::{MemoryDisk, StoreFiles};
use tidelog_document::FoundRight;
use tidelog_pages::{OwnerId, PageServer, Seed, StoreOptions, StoreReply, StoreRequest};
use tidelog_room::ConnId;

use crate::chance::Chance;

/// A device. The page server outlives its cores, as that of a tab does which lends it to the next.
pub(crate) struct Device {
    core: Option<Client>,
    /// Counts the cores: what was sent to an earlier one is lost.
    pub(crate) life: u64,
    page_server: PageServer<MemoryDisk>,
    /// Tabs of the present core.
    pub(crate) tabs: BTreeSet<TabId>,
    /// Sockets of the present core that are connected.
    pub(crate) sockets: BTreeMap<SocketId, ConnId>,
    pub(crate) is_online: bool,
    /// When the core wants to be woken.
    pub(crate) wake_at_ms: Option<u64>,
}

impl Device {
    pub(crate) fn new(chance: &mut Chance) -> Self {
        Self {
            core: None,
            life: 0,
            page_server: open_store(chance, StoreOptions::of_device()),
            tabs: BTreeSet::new(),
            sockets: BTreeMap::new(),
            is_online: true,
            wake_at_ms: None,
        }
    }

    pub(crate) fn has_core(&self) -> bool {
        self.core.is_some()
    }

    /// Starts another core. Says what happens to it first: a page server is lent.
    pub(crate) fn start_core(&mut self, chance: &mut Chance, found_right: FoundRight) -> Input {
        assert!(self.core.is_none(), "BUG: a device has one core at a time");
        self.life += 1;
        self.core = Some(Client::of_host(chance.draw(), ClientSettings::default(), found_right));
        // There is no worker whose files a power cut could take.
        let (server, settled_at_ms) = (self.page_server_id(), 0);
        Input::PageServerLent { server, settled_at_ms, storage: Storage::Memory }
    }

    /// The core ends with its last tab. Says which connections end with it.
    pub(crate) fn end_core(&mut self) -> Vec<ConnId> {
        self.core = None;
        self.wake_at_ms = None;
        self.page_server.forget_owner(self.owner());
        std::mem::take(&mut self.sockets).into_values().collect()
    }

    pub(crate) fn step(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        self.core.as_mut().map_or_else(Vec::new, |core| core.step(now_ms, input))
    }

    /// Serves a list of requests of the present core. Says what it answers.
    pub(crate) fn serve(&mut self, requests: Vec<StoreRequest>) -> Input {
        let owner = self.owner();
        for request in requests {
            self.page_server.serve(owner, request);
        }
        self.page_server.flush();
        let replies = poll(&mut self.page_server);
        let of_owner = replies.into_iter().filter(|(to, _)| *to == owner);
        let replies = of_owner.map(|(_, reply)| reply).collect();
        Input::FromPageServer { server: self.page_server_id(), replies }
    }

    /// What the present core calls the page server: each core is lent it anew.
    pub(crate) fn page_server_id(&self) -> PageServerId {
        PageServerId(u32::try_from(self.life).expect("BUG: so many cores need a while"))
    }

    fn owner(&self) -> OwnerId {
        OwnerId(self.life)
    }
}

/// An empty store in memory.
pub(crate) fn open_store(chance: &mut Chance, options: StoreOptions) -> PageServer<MemoryDisk> {
    let seed = Seed(chance.draw_number());
    let opened = PageServer::open_with(StoreFiles::in_memory(), seed, options);
    opened.expect("BUG: empty files in memory can be opened").0
}

/// Has a page server do all that it can do now. Says what it answers.
pub(crate) fn poll(server: &mut PageServer<MemoryDisk>) -> Vec<(OwnerId, StoreReply)> {
    let mut replies = server.poll();
    while server.wants_poll() {
        replies.extend(server.poll());
    }
    replies
}
