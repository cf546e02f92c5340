//! The first step of a document, taken before anybody waits for it.

use tidelog_sqlite::{Reader, View};

use crate::program;

/// Looks into a document that holds nothing, as every document is first looked into.
///
/// A browser compiles a function of a WebAssembly module when it is first called. What the first
/// document of a core needs is compiled by this while that document is on its way from the disk.
pub fn warm_up() {
    let version = program::version(&mut Reader::new(&View::new(1, 0)));
    debug_assert_eq!(version, tidelog_sqlite::Run::Done(None), "BUG: there is something in it");
}
