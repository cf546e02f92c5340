//! Why a page server does not serve.

use serde::{Deserialize, Serialize};

/// Why a page server cannot start, or cannot go on.
///
/// The order is part of the messages between page server and core: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnservedKind {
    /// The files are of a newer format; they were left untouched.
    NewerFormat,
    /// The device failed, or something else in the browser or the app's own set-up stands in the
    /// way: it is tried again.
    Unavailable,
    /// The store is damaged.
    Damaged,
    /// The device has no room for the little that every start writes.
    Full,
    /// The data of this site were cleared under the store. The page server still answers reads,
    /// as far as its files do, and fails what it is to append.
    Lost,
    /// The browser gives no files to this window: the core's own worker keeps the store.
    NoFiles,
}

impl UnservedKind {
    /// All, in their order.
    pub const ALL: [Self; 6] = [
        Self::NewerFormat,
        Self::Unavailable,
        Self::Damaged,
        Self::Full,
        Self::Lost,
        Self::NoFiles,
    ];

    /// Its place in the order.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The kind in this place, if there is one.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}
