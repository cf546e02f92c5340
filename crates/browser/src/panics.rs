//! What becomes of a bug in a worker.

use std::sync::Once;

/// Prints panics to the console. The instance is of no use after one: the worker that it runs in
/// ends itself, and another one recovers from the journal.
pub(crate) fn print_to_console() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            web_sys::console::error_1(&panic.to_string().into());
        }));
    });
}
