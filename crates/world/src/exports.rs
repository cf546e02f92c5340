//! What `js/src/node/world.ts` calls.

use std::sync::Once;

use js_sys::Uint8Array;
use tidelog_client::TabId;
use tidelog_sync::codec::port;
use tidelog_types::DocumentKey;
use wasm_bindgen::prelude::*;

use crate::{DeviceId, World};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn print_error(text: &str);
}

/// A world whose tabs speak in bytes.
#[wasm_bindgen(js_name = World)]
pub struct JsWorld(World);

#[wasm_bindgen(js_class = World)]
impl JsWorld {
    /// A world at this time, milliseconds since the epoch. Seeds are whole numbers.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(now_ms: f64, seed: f64) -> Self {
        print_panics();
        Self(World::new(now_ms as u64, seed as u64))
    }

    /// Milliseconds since the epoch.
    #[wasm_bindgen(js_name = nowMs)]
    #[must_use]
    pub fn now_ms(&self) -> f64 {
        self.0.now_ms() as f64
    }

    /// Thirty-two random bytes, which the seed repeats.
    #[must_use]
    pub fn draw(&mut self) -> Uint8Array {
        Uint8Array::from(self.0.draw().as_slice())
    }

    /// Makes a device, and gives its number.
    #[wasm_bindgen(js_name = addDevice)]
    #[must_use]
    pub fn add_device(&mut self) -> usize {
        let DeviceId(device) = self.0.add_device();
        device
    }

    /// A tab asks for the core of its device. Gives its number there.
    #[must_use]
    pub fn connect(&mut self, device: usize) -> u32 {
        let TabId(tab) = self.0.connect(DeviceId(device));
        tab
    }

    /// A tab is closed; with the last one its core ends.
    pub fn leave(&mut self, tab: u32) {
        self.0.leave(TabId(tab));
    }

    /// A tab says a list of messages.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn hear(&mut self, tab: u32, messages: &[u8]) {
        let messages = port::decode(messages).expect("BUG: a tab says what is no message");
        self.0.hear(TabId(tab), messages);
    }

    /// The next list of messages for a tab: behind four bytes, the tab's number in little-endian.
    #[wasm_bindgen(js_name = takeTold)]
    #[must_use]
    pub fn take_told(&mut self) -> Option<Uint8Array> {
        let (TabId(tab), messages) = self.0.take_told()?;
        let list = [tab.to_le_bytes().as_slice(), &port::encode(&messages)].concat();
        Some(Uint8Array::from(list.as_slice()))
    }

    /// Cuts a device off from the server, or lets it go back.
    #[wasm_bindgen(js_name = setOnline)]
    pub fn set_online(&mut self, device: usize, is_online: bool) {
        self.0.set_online(DeviceId(device), is_online);
    }

    /// Deletes a document on the server. Says whether there was one.
    #[must_use]
    pub fn delete(&mut self, document: &str) -> bool {
        DocumentKey::new(document, "").is_ok_and(|document| self.0.delete(&document))
    }

    /// Does all that is due now.
    pub fn run(&mut self) {
        self.0.run();
    }

    /// When something is due next, milliseconds since the epoch; infinite: never.
    #[wasm_bindgen(js_name = nextAtMs)]
    #[must_use]
    pub fn next_at_ms(&self) -> f64 {
        self.0.next_at_ms().map_or(f64::INFINITY, |at_ms| at_ms as f64)
    }

    /// Does all that is due in so many milliseconds, and leaves the clock there.
    pub fn pass(&mut self, ms: f64) {
        self.0.pass(ms as u64);
    }
}

/// A panic ends the module with a trap that says nothing of it.
fn print_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| print_error(&panic.to_string())));
    });
}
