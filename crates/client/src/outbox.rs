//! What one step wants done, gathered so that everything for one receiver goes in one message.

use tidelog_pages::StoreRequest;
use tidelog_sync::{ToServer, encode_message};
use tidelog_types::SortedMap;
use tidelog_types::limits::Limits;

use crate::effect::{Effect, Notice, PageServerId, SocketId, TabId};
use crate::protocol::{FromCore, Handle};
use crate::server_link::LinkName;
use crate::tab_flow::TabFlow;

/// The effects of one step.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    to_tabs: SortedMap<TabId, Vec<FromCore>>,
    /// What tabs have not heard yet, this step's messages included.
    pub(crate) flow: TabFlow,
    to_store: Vec<StoreRequest>,
    notices: Vec<Notice>,
    /// Messages for servers, by the way there: those of a server that is not there are dropped,
    /// since everything is said again once it is.
    pub(crate) to_servers: Vec<(LinkName, ToServer)>,
    sockets: Vec<Effect>,
    pub(crate) wake_at_ms: Option<u64>,
    /// Handles that were closed, or could not be opened.
    pub(crate) ended: Vec<(TabId, Handle)>,
}

impl Outbox {
    pub(crate) fn new(flow: TabFlow) -> Self {
        Self { flow, ..Self::default() }
    }

    /// Tells a tab, unless it is gone.
    pub(crate) fn tell(&mut self, tab: TabId, message: FromCore) {
        if self.flow.tell(tab, &message) {
            self.to_tabs.get_or_insert_with(tab, Vec::new).push(message);
        }
    }

    /// Takes what tabs have not heard, now that all has been told them in this step.
    pub(crate) fn take_flow(&mut self) -> TabFlow {
        let mut flow = std::mem::take(&mut self.flow);
        self.to_tabs.keys().for_each(|tab| flow.end_list(*tab));
        flow
    }

    /// Whether the tab is told something anyway.
    pub(crate) fn has_news_for(&self, tab: TabId) -> bool {
        self.to_tabs.contains_key(&tab)
    }

    pub(crate) fn ask_store(&mut self, request: StoreRequest) {
        self.to_store.push(request);
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    pub(crate) fn say(&mut self, link: LinkName, message: ToServer) {
        self.to_servers.push((link, message));
    }

    pub(crate) fn open_socket(&mut self, socket: SocketId, url: String) {
        self.sockets.push(Effect::OpenSocket { socket, url });
    }

    /// Says how many bytes that is.
    pub(crate) fn send(&mut self, socket: SocketId, message: &ToServer) -> usize {
        let bytes = encode_message(message);
        let size = bytes.len();
        self.sockets.push(Effect::ToServer { socket, bytes });
        size
    }

    pub(crate) fn close_socket(&mut self, socket: SocketId) {
        self.sockets.push(Effect::CloseSocket { socket });
    }

    pub(crate) fn wake_at(&mut self, at_ms: u64) {
        self.wake_at_ms = Some(self.wake_at_ms.map_or(at_ms, |other| other.min(at_ms)));
    }

    /// The effects, the page server's first: its answer is what others wait for.
    pub(crate) fn into_effects(
        self,
        page_server: Option<PageServerId>,
        limits: &Limits,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(server) = page_server {
            let requests = self.to_store.into_iter();
            let parts = requests.flat_map(|it| it.into_parts(limits.append_part_pages_max));
            let to_page_server = messages(parts).into_iter();
            effects.extend(to_page_server.map(|requests| Effect::ToPageServer {
                server,
                requests,
                notices: Vec::new(),
            }));
            // Before the host can hear what became of an append: a notice that comes behind its
            // failure would be given with whatever is durable next.
            if let Some(Effect::ToPageServer { notices, .. }) = effects.first_mut() {
                *notices = self.notices;
            }
        }
        effects.extend(self.sockets);
        effects.extend(
            self.to_tabs.into_iter().map(|(tab, messages)| Effect::ToTab { tab, messages }),
        );
        effects.extend(self.wake_at_ms.map(|at_ms| Effect::WakeAt { at_ms }));
        effects
    }
}

/// Requests in as few messages as may be: all in one, except that pages which are sent ahead end
/// a message, so that none is large.
fn messages(requests: impl Iterator<Item = StoreRequest>) -> Vec<Vec<StoreRequest>> {
    let mut messages = Vec::new();
    let mut message = Vec::new();
    for request in requests {
        let is_large = matches!(request, StoreRequest::Stage { .. });
        message.push(request);
        if is_large {
            messages.push(std::mem::take(&mut message));
        }
    }
    if !message.is_empty() {
        messages.push(message);
    }
    messages
}
