//! The core as its worker sees it.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use js_sys::Uint8Array;
use tidelog_client::{
    AtWork, Client, ClientSettings, Effect, Input, Notice, PageServerFailure, PageServerId,
    SocketId, Stopwatch, Storage, TabId, TimeLeft,
};
use tidelog_sync::codec::port;
use tidelog_types::UnservedKind;
use tidelog_types::limits::QUERY_MS_MAX;
use wasm_bindgen::prelude::*;

use crate::{EncodedNotice, panics};

/// [`Host`] as TypeScript sees it.
#[wasm_bindgen(typescript_custom_section)]
const HOST: &str = r"
/** What the core wants done. The shell does it and decides nothing. */
export interface Host {
  toTab(tab: number, messages: Uint8Array<ArrayBuffer>): void;
  toPageServer(server: number, requests: Uint8Array<ArrayBuffer>): void;
  openSocket(socket: number, url: string): void;
  toServer(socket: number, message: Uint8Array<ArrayBuffer>): void;
  closeSocket(socket: number): void;
  wakeAt(ms: number): void;
  culprit(document: string, user: string): void;
}";

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn running_ms() -> f64;

    /// Who carries out what the core wants done; see `worker/src/core.ts`.
    #[derive(Debug)]
    #[wasm_bindgen(typescript_type = "Host")]
    pub type Host;

    #[wasm_bindgen(method, js_name = toTab)]
    fn to_tab(this: &Host, tab: u32, messages: Uint8Array);
    #[wasm_bindgen(method, js_name = toPageServer)]
    fn to_page_server(this: &Host, server: u32, requests: Uint8Array);
    #[wasm_bindgen(method, js_name = openSocket)]
    fn open_socket(this: &Host, socket: u32, url: &str);
    #[wasm_bindgen(method, js_name = toServer)]
    fn to_server(this: &Host, socket: u32, message: Uint8Array);
    #[wasm_bindgen(method, js_name = closeSocket)]
    fn close_socket(this: &Host, socket: u32);
    #[wasm_bindgen(method, js_name = wakeAt)]
    fn wake_at(this: &Host, ms: f64);
    #[wasm_bindgen(method)]
    fn culprit(this: &Host, document: &str, user: &str);
}

/// Ends queries by the clock of the worker, which does not go back.
#[derive(Debug)]
struct QueryTime {
    /// When the query began, in milliseconds.
    began_ms: AtomicU64,
}

static QUERY_TIME: QueryTime = QueryTime { began_ms: AtomicU64::new(0) };

impl Stopwatch for QueryTime {
    fn start(&self) {
        self.began_ms.store(running_ms() as u64, Ordering::Relaxed);
    }

    fn time_left(&self) -> TimeLeft {
        let began_ms = self.began_ms.load(Ordering::Relaxed);
        match (running_ms() as u64).saturating_sub(began_ms) > QUERY_MS_MAX {
            true => TimeLeft::NoneEver,
            false => TimeLeft::Enough,
        }
    }
}

/// The core and who carries out what it wants done.
pub struct Core {
    client: Client,
    host: Host,
}

impl Core {
    /// A core that knows nothing yet.
    #[must_use]
    pub fn new(seed: [u8; 32], host: Host) -> Self {
        let query_stopwatch: Option<&'static dyn Stopwatch> = Some(&QUERY_TIME);
        let settings = ClientSettings { query_stopwatch, ..ClientSettings::default() };
        Self { client: Client::with_settings(seed, settings), host }
    }

    /// A tab sent a list of messages. Says whether it can be read: if not, nobody knows what was
    /// asked in it.
    #[must_use]
    pub fn tab_messages(&mut self, now_ms: f64, tab: u32, messages: &[u8]) -> bool {
        let Ok(messages) = port::decode(messages) else { return false };
        self.step(now_ms, Input::FromTab { tab: TabId(tab), messages });
        true
    }

    /// A page server sent a list of replies.
    pub fn page_server_replies(&mut self, now_ms: f64, server: u32, replies: &[u8]) {
        let server = PageServerId(server);
        let input = match port::decode(replies) {
            Ok(replies) => Input::FromPageServer { server, replies },
            Err(error) => {
                let failure = PageServerFailure::new(UnservedKind::Damaged, error.to_string());
                Input::PageServerFailed { server, failure }
            }
        };
        self.step(now_ms, input);
    }

    /// Something happened: one step, which calls the host for what is to be done.
    pub fn step(&mut self, now_ms: f64, input: Input) {
        for effect in self.client.step(now_ms as u64, input) {
            self.carry_out(effect);
        }
    }

    fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::ToTab { tab, messages } => {
                self.host.to_tab(tab.0, bytes(&port::encode(&messages)));
            }
            Effect::ToPageServer { server, requests, notices } => {
                let notices: Vec<EncodedNotice> = notices.into_iter().map(encoded).collect();
                self.host.to_page_server(server.0, bytes(&port::encode(&(requests, notices))));
            }
            Effect::OpenSocket { socket, url } => self.host.open_socket(socket.0, &url),
            Effect::ToServer { socket, bytes: message } => {
                self.host.to_server(socket.0, bytes(&message));
            }
            Effect::CloseSocket { socket } => self.host.close_socket(socket.0),
            Effect::WakeAt { at_ms } => self.host.wake_at(at_ms as f64),
        }
    }
}

fn encoded(Notice { ticket, tab, messages }: Notice) -> EncodedNotice {
    (ticket, tab.0, port::encode(&messages).into())
}

/// A copy for JavaScript to own.
fn bytes(bytes: &[u8]) -> Uint8Array {
    Uint8Array::from(bytes)
}

thread_local! {
    /// The one core of this worker.
    static CORE: RefCell<Option<Core>> = const { RefCell::new(None) };
    /// What it is at work on, which can be read when the core cannot: after a panic.
    static AT_WORK: RefCell<AtWork> = RefCell::default();
}

fn with_core<T>(work: impl FnOnce(&mut Core) -> T) -> T {
    CORE.with_borrow_mut(|core| work(core.as_mut().expect("BUG: the core was not started")))
}

fn step(now_ms: f64, input: Input) {
    with_core(|core| core.step(now_ms, input));
}

// What follows is called by `worker/src/core.ts`. They are functions and not methods, and reasons
// are bytes and not strings, since that spares the page a good part of wasm-bindgen's glue.

/// Starts the core of this worker.
///
/// # Panics
///
/// Unless `seed` has 32 bytes.
#[wasm_bindgen]
pub fn start(seed: &[u8], host: Host) {
    panics::print_to_console();
    let seed = seed.try_into().expect("BUG: a seed has 32 bytes");
    let core = Core::new(seed, host);
    AT_WORK.set(core.client.at_work());
    CORE.set(Some(core));
}

/// Uses a wait for the disk: see [`tidelog_client::warm_up`].
#[wasm_bindgen(js_name = warmUp)]
pub fn warm_up() {
    tidelog_client::warm_up();
}

/// A tab sent a list of messages. Says whether it can be read.
#[wasm_bindgen(js_name = tabMessages)]
#[must_use]
pub fn tab_messages(now_ms: f64, tab: u32, messages: &[u8]) -> bool {
    with_core(|core| core.tab_messages(now_ms, tab, messages))
}

/// A tab is gone.
#[wasm_bindgen(js_name = tabClosed)]
pub fn tab_closed(now_ms: f64, tab: u32) {
    step(now_ms, Input::TabClosed { tab: TabId(tab) });
}

/// A page server is at hand, whose files can be lost by a power cut until `settled_at_ms`.
#[wasm_bindgen(js_name = pageServerLent)]
pub fn page_server_lent(now_ms: f64, server: u32, settled_at_ms: f64, in_blocks: bool) {
    let (server, settled_at_ms) = (PageServerId(server), settled_at_ms as u64);
    let storage = if in_blocks { Storage::IndexedDb } else { Storage::Opfs };
    step(now_ms, Input::PageServerLent { server, settled_at_ms, storage });
}

/// A tab has a port to the page server.
#[wasm_bindgen(js_name = tabReached)]
pub fn tab_reached(now_ms: f64, tab: u32, server: u32) {
    step(now_ms, Input::TabReached { tab: TabId(tab), server: PageServerId(server) });
}

/// A page server sent a list of replies.
#[wasm_bindgen(js_name = pageServerReplies)]
pub fn page_server_replies(now_ms: f64, server: u32, replies: &[u8]) {
    with_core(|core| core.page_server_replies(now_ms, server, replies));
}

/// A page server is gone.
#[wasm_bindgen(js_name = pageServerGone)]
pub fn page_server_gone(now_ms: f64, server: u32) {
    step(now_ms, Input::PageServerGone { server: PageServerId(server) });
}

/// A page server cannot serve or go on; `kind` is the number of an [`UnservedKind`].
#[wasm_bindgen(js_name = pageServerFailed)]
pub fn page_server_failed(now_ms: f64, server: u32, kind: u32, reason: &[u8]) {
    let reason = String::from_utf8_lossy(reason).into_owned();
    let kind = UnservedKind::of(kind).expect("BUG: a kind that shared.ts does not list");
    let failure = PageServerFailure { kind, reason };
    step(now_ms, Input::PageServerFailed { server: PageServerId(server), failure });
}

/// A socket is connected.
#[wasm_bindgen(js_name = socketOpened)]
pub fn socket_opened(now_ms: f64, socket: u32) {
    step(now_ms, Input::SocketOpened { socket: SocketId(socket) });
}

/// A socket brought a message.
#[wasm_bindgen(js_name = socketMessage)]
pub fn socket_message(now_ms: f64, socket: u32, message: &[u8]) {
    let bytes = message.to_vec();
    step(now_ms, Input::FromServer { socket: SocketId(socket), bytes });
}

/// A socket is closed, or could not be connected.
#[wasm_bindgen(js_name = socketClosed)]
pub fn socket_closed(now_ms: f64, socket: u32) {
    step(now_ms, Input::SocketClosed { socket: SocketId(socket) });
}

/// Whether the data of this site were cleared under this core, which can keep nothing more.
#[wasm_bindgen(js_name = isLost)]
#[must_use]
pub fn is_lost() -> bool {
    CORE.with_borrow(|core| core.as_ref().is_some_and(|core| core.client.is_lost()))
}

/// Tells the host of which document the core died in a step, if that was at work on one.
#[wasm_bindgen(js_name = nameCulprit)]
pub fn name_culprit(host: &Host) {
    if let Some(key) = AT_WORK.with_borrow(AtWork::document) {
        host.culprit(&key.document, &key.user);
    }
}

/// The time has come that [`Effect::WakeAt`] asked for.
#[wasm_bindgen]
pub fn wake(now_ms: f64) {
    step(now_ms, Input::Wake);
}
