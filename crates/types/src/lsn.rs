//! Log sequence numbers and ranges of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::LSN_MAX;

/// An entry's place in its journal: from 1, without gaps, never reused.
///
/// What comes from outside is checked: 0 is no place, and none is beyond [`LSN_MAX`], so that
/// counting on from any of them stays within 63 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Lsn(u64);

/// A number that is no place in any journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{number} is no LSN")]
pub struct NoLsn {
    /// The number.
    pub number: u64,
}

impl TryFrom<u64> for Lsn {
    type Error = NoLsn;

    fn try_from(number: u64) -> Result<Self, NoLsn> {
        Self::new(number).ok_or(NoLsn { number })
    }
}

impl Lsn {
    /// The place of a journal's first entry.
    pub const FIRST: Self = Self(1);

    /// The place with this number, or `None` for one that is no place.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 || number > LSN_MAX { None } else { Some(Self(number)) }
    }

    /// The number, at least 1.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next place.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The place `count` entries later.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A half-open run of LSNs: `start` is in, `end` is out.
///
/// An empty range still has a place: `7..7` means "nothing yet, and the next entry will be 7".
/// Sync needs that place, so an empty range is a value here, never an `Option`.
///
/// ```
/// use tidelog_types::{Lsn, LsnRange};
///
/// let range = LsnRange::new(Lsn::FIRST, Lsn::FIRST.plus(4));
/// assert_eq!(range.to_string(), "1..5");
/// assert!(!range.contains(range.end()));
///
/// let rest = range.trim_before(range.end());
/// assert!(rest.is_empty());
/// assert_eq!(rest.to_string(), "5..5", "it keeps its place");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)")]
pub struct LsnRange {
    start: Lsn,
    end: Lsn,
}

impl TryFrom<(u64, u64)> for LsnRange {
    type Error = NoLsn;

    fn try_from((start, end): (u64, u64)) -> Result<Self, NoLsn> {
        Self::checked(start, end).ok_or(NoLsn { number: start })
    }
}

impl LsnRange {
    /// The range `start..end`.
    ///
    /// # Panics
    ///
    /// If `start` is after `end`: the caller computed a position wrongly. Bytes from outside go
    /// through [`LsnRange::checked`].
    #[must_use]
    pub fn new(start: Lsn, end: Lsn) -> Self {
        assert!(start <= end, "BUG: LSN range runs backwards: {start}..{end}");
        Self { start, end }
    }

    /// The range `start..end`, or `None` if it runs backwards or starts at no place.
    #[must_use]
    pub fn checked(start: u64, end: u64) -> Option<Self> {
        let (start, end) = (Lsn::new(start)?, Lsn::new(end)?);
        (start <= end).then_some(Self { start, end })
    }

    /// The empty range whose next entry will be `place`.
    #[must_use]
    pub const fn empty_at(place: Lsn) -> Self {
        Self { start: place, end: place }
    }

    /// The range of the one entry at `place`.
    #[must_use]
    pub const fn one(place: Lsn) -> Self {
        Self { start: place, end: place.next() }
    }

    /// The first LSN in the range.
    #[must_use]
    pub const fn start(self) -> Lsn {
        self.start
    }

    /// The first LSN after the range.
    #[must_use]
    pub const fn end(self) -> Lsn {
        self.end
    }

    /// How many LSNs are in it.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether no LSN is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Whether `lsn` is in it.
    #[must_use]
    pub const fn contains(self, lsn: Lsn) -> bool {
        self.start.0 <= lsn.0 && lsn.0 < self.end.0
    }

    /// What is left at or after `floor`. Keeps its place when nothing is left.
    #[must_use]
    pub fn trim_before(self, floor: Lsn) -> Self {
        let start = self.start.max(floor);
        Self::new(start, self.end.max(start))
    }
}

impl fmt::Display for LsnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trimming_an_empty_range_keeps_its_place() {
        let range = LsnRange::empty_at(Lsn::FIRST.plus(6));
        assert_eq!(range.trim_before(Lsn::FIRST), range);
        assert_eq!(range.to_string(), "7..7");
    }

    #[test]
    fn trimming_past_the_end_leaves_an_empty_range_there() {
        let range = LsnRange::new(Lsn::FIRST, Lsn::FIRST.plus(3));
        assert_eq!(range.trim_before(Lsn::FIRST.plus(8)).to_string(), "9..9");
    }

    #[test]
    fn a_backward_range_from_outside_is_refused() {
        assert_eq!(LsnRange::checked(5, 4), None);
        assert_eq!(LsnRange::checked(0, 4), None);
        assert_eq!(LsnRange::checked(4, 4).map(LsnRange::count), Some(0));
    }
}
