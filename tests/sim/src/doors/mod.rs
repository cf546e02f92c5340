//! What passes the doors of tabs, cores, rooms and page servers, and may not.
//!
//! Others make up for most of what is wrong there, and so would not notice.

mod access;
mod core;
mod core_notes;
mod deletions;
mod entries;
mod greetings;
mod line;
mod names;
mod refusals;
mod rejections;
mod room;
mod room_notes;
mod runs;
mod store;
mod tab;
mod talk;
mod tries;
mod wake;

use tidelog_client::OpenRequest;
use tidelog_types::DocumentKey;

pub(crate) use self::access::NO_ACCESS;
pub(crate) use self::core::CoreDoor;
pub(crate) use names::Names;
pub(crate) use refusals::WRITTEN_AGAIN_MS;
pub(crate) use room::RoomDoor;
pub(crate) use room_notes::RoomNotes;
pub(crate) use store::StoreDoor;
pub(crate) use tab::TabDoor;
pub(crate) use talk::Talk;
pub(crate) use wake::WakeDoor;

/// What names a document that a tab opens, and whose copy it is. That of a device is named as it is
/// on the server.
fn name_of(open: &OpenRequest) -> String {
    let OpenRequest { document, user, .. } = open;
    DocumentKey { document: document.clone(), user: user.clone() }.to_string()
}
