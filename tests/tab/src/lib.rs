//! What a tab decides: the shipped `js/src/tab.ts`, without anything of a browser.
//!
//! An [`Input`] goes in, [`Effect`]s come out, as what JSON can say: both sides name them alike,
//! and here stand those that a test has a use for. Natively QuickJS runs it (`quick_js.rs`), in
//! WebAssembly the engine that runs the WebAssembly (`browser.rs`). `tests/` lets tabs live through
//! the deaths of their cores.
//!
//! # What this crate does not know
//!
//! What a core makes of what a tab tells it.

#![expect(missing_docs, reason = "the fields are those of step.ts, where they are explained")]

#[cfg(target_arch = "wasm32")]
mod browser;
#[cfg(not(target_arch = "wasm32"))]
mod quick_js;

use std::cell::Cell;

#[cfg(target_arch = "wasm32")]
use browser as engine;
#[cfg(target_arch = "wasm32")]
pub use browser::load;
#[cfg(not(target_arch = "wasm32"))]
use quick_js as engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The compiled modules, by the names by which they import each other, and each after those that
/// it imports.
const MODULES: [(&str, &str); 9] = [
    ("errors.js", include_str!(concat!(env!("OUT_DIR"), "/js/errors.js"))),
    ("time.js", include_str!(concat!(env!("OUT_DIR"), "/js/time.js"))),
    ("call.js", include_str!(concat!(env!("OUT_DIR"), "/js/call.js"))),
    ("document.js", include_str!(concat!(env!("OUT_DIR"), "/js/document.js"))),
    ("core-link.js", include_str!(concat!(env!("OUT_DIR"), "/js/core-link.js"))),
    ("hearing.js", include_str!(concat!(env!("OUT_DIR"), "/js/hearing.js"))),
    ("lending.js", include_str!(concat!(env!("OUT_DIR"), "/js/lending.js"))),
    ("tab.js", include_str!(concat!(env!("OUT_DIR"), "/js/tab.js"))),
    ("machine.js", include_str!("machine.js")),
];

/// Something that happened: `Input` of `step.ts`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Input {
    /// The app asks something.
    Call { kind: &'static str, message: Value, limited: bool },
    /// A live query was closed, or an answer is waited for no longer.
    GiveUp { call: u32 },
    /// Something that is not answered.
    Tell { kind: &'static str, message: Value },
    /// The core at this place was told hello.
    Connected { core: u32, place: u32 },
    /// No core can be reached.
    Refused { core: u32, reason: String },
    /// The core works.
    Welcome { core: u32, lock: String },
    /// The core's lock came free.
    Gone { core: u32 },
    /// The core wants its page server to have a way to the tab.
    Reach { core: u32, server: u32 },
    /// The core has lost the page server that came in place of the tab's.
    LendAgain { core: u32 },
    /// It is the tab's turn to have a page server at hand.
    Turn,
    /// The page server's worker is loaded and waits in line.
    Loaded { worker: u32 },
    /// It has the store.
    Serves { worker: u32 },
    /// It cannot go on.
    Broke { worker: u32 },
    /// It cannot load what it needs.
    Unloaded { worker: u32, reason: String },
    /// An answer to a call.
    Answer { call: u32, answer: Answer },
    /// News of a document.
    News { core: u32, handle: u32, news: Value },
    /// All of a list of messages from the core was heard.
    Heard { core: u32, size: usize },
    /// There is a network again.
    Online,
    /// The tab is looked at again.
    Visible,
    /// The page goes where it can hold nothing.
    Hide,
    /// It comes back from there.
    Show,
    /// The time has come that was asked for.
    Wake,
}

/// What the core says about a call, as far as the tab looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Answer {
    /// The document is open.
    Opened { status: Value, memo: Value },
    /// It failed.
    Failed { error: Error },
    /// The server rejected it.
    Rejected { error: Error },
    /// It is on the disk.
    Durable { entry: Value },
    /// It was applied.
    Confirmed { lsn: u64 },
    /// Rows.
    Rows { rows: RowCount },
    /// A file.
    Exported,
    /// It is done.
    Done,
    /// A server takes a document in.
    HandingOver,
}

/// How many rows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCount {
    pub count: u32,
}

/// A `TidelogError`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    pub code: String,
    pub outcome: String,
    pub message: String,
}

/// Something to be done: `Effect` of `step.ts`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Effect {
    /// Find or start a core and say hello.
    Connect { core: u32 },
    /// Nothing more is expected of this core.
    Leave { core: u32 },
    /// Say when this lock comes free.
    WatchLock { core: u32, lock: String },
    /// Tell the core.
    Post { kind: String, message: Value },
    /// Give this page server a way to the tab.
    Reach { server: u32 },
    /// Say when no other tab has a page server waiting.
    Queue,
    /// Give that up.
    EndTurn,
    /// Let go of the tab's lock.
    LetGo,
    /// Start a page server's worker.
    Spawn { worker: u32 },
    /// End it.
    End { worker: u32 },
    /// Connect it with the core.
    Lend { worker: u32 },
    /// Tell the core that what it was lent has ended.
    LendEnded,
    /// Tell the core why the tab cannot lend.
    CannotLend { reason: String },
    /// Tell the caller.
    Settle { call: u32, answer: Answer, last: bool },
    /// Tell the document.
    News { handle: u32 },
    /// Tell the document what is wrong.
    Lost { handle: u32, error: Error },
    /// Look at the device.
    Look,
    /// Come back at this time.
    Wake { at: f64 },
}

/// One tab.
#[derive(Debug)]
pub struct Machine {
    number: u32,
}

impl Machine {
    /// A tab in which nothing has happened.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "no two are the same")]
    pub fn new() -> Self {
        let number = LAST.get() + 1;
        LAST.set(number);
        Self { number }
    }

    /// A number for a call.
    #[must_use]
    pub fn new_call(&self) -> u32 {
        engine::number(self.number, "call")
    }

    /// A number for a document.
    #[must_use]
    pub fn new_handle(&self) -> u32 {
        engine::number(self.number, "handle")
    }

    /// Takes what happened at `now_ms`, and says what is to be done.
    ///
    /// # Panics
    ///
    /// If the tab throws, or wants what is not known here.
    #[must_use]
    pub fn step(&self, now_ms: u64, input: &Input) -> Vec<Effect> {
        let input = serde_json::to_value(input).expect("BUG: inputs are JSON");
        #[expect(clippy::cast_precision_loss, reason = "simulated times are small")]
        let now = now_ms as f64;
        let effects = engine::step(self.number, now, &input);
        Deserialize::deserialize(&effects)
            .unwrap_or_else(|error| panic!("BUG: a tab wants {effects}: {error}"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        engine::forget(self.number);
    }
}

thread_local! {
    static LAST: Cell<u32> = const { Cell::new(0) };
}
