//! What passes the doors of tabs, cores, rooms and page servers, and may not.
//!
//! Others make up for most of what is wrong there, and so would not notice.

mod core;
mod core_notes;
mod entries;
mod line;
mod refusals;
mod rejections;
mod room;
mod room_notes;
mod runs;
mod store;
mod tab;
mod talk;
mod wake;

pub(crate) use self::core::CoreDoor;
pub(crate) use room::RoomDoor;
pub(crate) use room_notes::RoomNotes;
pub(crate) use store::StoreDoor;
pub(crate) use tab::TabDoor;
pub(crate) use talk::Talk;
pub(crate) use wake::WakeDoor;
