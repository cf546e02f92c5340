//! What one step wants done, gathered so that everything for one receiver goes in one message.

use tidelog_pages::StoreRequest;
use tidelog_sync::{ToServer, encode_message};
use tidelog_types::SortedMap;

use crate::effect::{Effect, Notice, PageServerId, SocketId, TabId};
use crate::protocol::FromCore;

/// The effects of one step.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    to_tabs: SortedMap<TabId, Vec<FromCore>>,
    to_store: Vec<StoreRequest>,
    notices: Vec<Notice>,
    /// Messages for servers, by address: those of a server that is not there are dropped, since
    /// everything is said again once it is.
    pub(crate) to_servers: Vec<(String, ToServer)>,
    sockets: Vec<Effect>,
    wake_at_ms: Option<u64>,
}

impl Outbox {
    pub(crate) fn tell(&mut self, tab: TabId, message: FromCore) {
        self.to_tabs.get_or_insert_with(tab, Vec::new).push(message);
    }

    /// Whether the tab is told something anyway.
    pub(crate) fn has_news_for(&self, tab: TabId) -> bool {
        self.to_tabs.contains_key(&tab)
    }

    pub(crate) fn ask_store(&mut self, request: StoreRequest) {
        self.to_store.extend(request.into_parts());
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    pub(crate) fn say(&mut self, server: &str, message: ToServer) {
        self.to_servers.push((server.to_owned(), message));
    }

    pub(crate) fn open_socket(&mut self, socket: SocketId, url: String) {
        self.sockets.push(Effect::OpenSocket { socket, url });
    }

    pub(crate) fn send(&mut self, socket: SocketId, message: &ToServer) {
        self.sockets.push(Effect::ToServer { socket, bytes: encode_message(message) });
    }

    pub(crate) fn close_socket(&mut self, socket: SocketId) {
        self.sockets.push(Effect::CloseSocket { socket });
    }

    pub(crate) fn wake_at(&mut self, at_ms: u64) {
        self.wake_at_ms = Some(self.wake_at_ms.map_or(at_ms, |other| other.min(at_ms)));
    }

    /// The effects, the page server's first: its answer is what others wait for.
    pub(crate) fn into_effects(self, page_server: Option<PageServerId>) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(server) = page_server {
            let to_page_server = messages(self.to_store).into_iter();
            effects.extend(to_page_server.map(|requests| Effect::ToPageServer {
                server,
                requests,
                notices: Vec::new(),
            }));
            if let Some(Effect::ToPageServer { notices, .. }) = effects.last_mut() {
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
fn messages(requests: Vec<StoreRequest>) -> Vec<Vec<StoreRequest>> {
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
