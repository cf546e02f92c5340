//! Who wrote a journal, and where two histories part.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Life, Lsn};

/// The lives that wrote a journal, each with the LSN of its first entry, oldest first.
///
/// A life has inherited one prefix, and gives each LSN behind it once. So where two histories name
/// the same life, they are the same up to where the first of the two leaves that life: that is all
/// there is to comparing journals of which one may be a clone, a backup or a later state of the
/// other.
///
/// ```text
///           1         5              9
/// backup    |-- A ----|-- B ---------|        A 1, B 5            next 9
/// restored  |-- A ----|-- B ---|-- C -----|   A 1, B 5, C 8       next 11
///                              8              the same before 8
/// ```
///
/// Old lives may be forgotten: then nothing is known of the LSNs before the oldest that is left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(Life, Lsn)>")]
pub struct Lineage {
    lives: Vec<(Life, Lsn)>,
}

/// Lives that cannot have followed one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lives out of order")]
pub struct ImpossibleLineage;

impl TryFrom<Vec<(Life, Lsn)>> for Lineage {
    type Error = ImpossibleLineage;

    fn try_from(lives: Vec<(Life, Lsn)>) -> Result<Self, ImpossibleLineage> {
        let is_ordered = lives.is_sorted_by(|one, next| one.1 < next.1 && one.0 != next.0);
        if is_ordered { Ok(Self { lives }) } else { Err(ImpossibleLineage) }
    }
}

impl Lineage {
    /// An entry at `lsn`, which is the next one, is written by `life`.
    ///
    /// # Panics
    ///
    /// If a life that is known began at or after `lsn`.
    pub fn note(&mut self, life: Life, lsn: Lsn) {
        let last = self.lives.last();
        assert!(last.is_none_or(|(_, begin)| *begin < lsn || last_is(last, life)), "BUG: {self}");
        if !last_is(last, life) {
            self.lives.push((life, lsn));
        }
    }

    /// The lives that wrote the entries before `lsn`.
    #[must_use]
    pub fn before(mut self, lsn: Lsn) -> Self {
        self.lives.retain(|(_, begin)| *begin < lsn);
        self
    }

    /// Forgets the oldest lives, beyond `kept` of them, of which no entry at or after `needed` is.
    pub fn forget(&mut self, kept: usize, needed: Lsn) {
        let surplus = self.lives.len().saturating_sub(kept);
        let before = self.lives.iter().skip(1).take_while(|(_, begin)| *begin <= needed).count();
        self.lives.drain(..surplus.min(before));
    }

    /// Who wrote the entry at `lsn`, if that is known.
    #[must_use]
    pub fn life_at(&self, lsn: Lsn) -> Option<Life> {
        let count = self.lives.partition_point(|(_, begin)| *begin <= lsn);
        count.checked_sub(1).map(|last| self.lives[last].0)
    }

    /// Where a life began, if it is known to have written anything.
    #[must_use]
    pub fn begin_of(&self, life: Life) -> Option<Lsn> {
        self.lives().find(|(known, _)| *known == life).map(|(_, begin)| begin)
    }

    /// The lives and where each began, oldest first.
    pub fn lives(&self) -> impl DoubleEndedIterator<Item = (Life, Lsn)> + '_ {
        self.lives.iter().copied()
    }

    /// Where the entries of the life at `index` end, in a history that ends at `next`.
    fn end_of(&self, index: usize, next: Lsn) -> Lsn {
        self.lives.get(index + 1).map_or(next, |(_, begin)| *begin)
    }

    /// How much of a history that ends at `theirs`, whose last entry `life` wrote, is in this one,
    /// which ends at `next`: everything before the LSN that is given. All of it is if that is
    /// `theirs`. `None` if it cannot be told: they have nothing in common, or nothing that is
    /// still known.
    #[must_use]
    pub fn common_with_position(&self, next: Lsn, life: Life, theirs: Lsn) -> Option<Lsn> {
        if theirs == Lsn::FIRST {
            return Some(Lsn::FIRST);
        }
        let index = self.lives.iter().position(|(known, _)| *known == life)?;
        let (begin, end) = (self.lives[index].1, self.end_of(index, next));
        (begin < theirs).then(|| theirs.min(end))
    }

    /// Up to where two histories are the same: this one, which ends at `next`, and another, which
    /// ends at `theirs`. One is a prefix of the other if that is where it ends. `None` if it cannot
    /// be told, since the lives that they may have in common are forgotten.
    #[must_use]
    pub fn common_prefix(&self, next: Lsn, other: &Self, theirs: Lsn) -> Option<Lsn> {
        if next == Lsn::FIRST || theirs == Lsn::FIRST {
            return Some(Lsn::FIRST);
        }
        for (index, begun) in self.lives.iter().enumerate().rev() {
            if let Some(their_index) = other.lives.iter().position(|theirs| theirs == begun) {
                return Some(self.end_of(index, next).min(other.end_of(their_index, theirs)));
            }
        }
        (self.is_complete() && other.is_complete()).then_some(Lsn::FIRST)
    }

    /// Whether no life was forgotten.
    fn is_complete(&self) -> bool {
        self.lives.first().is_some_and(|(_, begin)| *begin == Lsn::FIRST)
    }
}

fn last_is(last: Option<&(Life, Lsn)>, life: Life) -> bool {
    last.is_some_and(|(last, _)| *last == life)
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lives")?;
        self.lives.iter().try_for_each(|(life, begin)| {
            let digits = life.to_hex();
            write!(f, " {}@{begin}", &digits[digits.len() - 4..])
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn life(number: u16) -> Life {
        let mut bytes = [0; 16];
        bytes[14..].copy_from_slice(&number.to_be_bytes());
        Life(bytes)
    }

    fn lsn(number: usize) -> Lsn {
        Lsn::new(number as u64).expect("from 1")
    }

    /// A journal as one side holds it: its entries, each one that was ever written being another,
    /// and what is remembered of the lives that wrote them.
    #[derive(Clone, Debug, Default)]
    struct Held {
        entries: Vec<(u32, Life)>,
        lineage: Lineage,
    }

    impl Held {
        fn next(&self) -> Lsn {
            lsn(self.entries.len() + 1)
        }

        fn last_life(&self) -> Life {
            self.entries.last().map_or(Life::NONE, |(_, life)| *life)
        }
    }

    /// What can happen to copies of a journal.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// The writer of a copy writes on. Whoever opened the copy anew is another life.
        Write { copy: usize, count: usize },
        /// A copy is opened anew: its next entry is of another life.
        Open { copy: usize },
        /// A copy, clone or backup of a copy, which is opened for itself if it is ever written to.
        Clone { copy: usize },
        /// A copy that holds no more than a part of another: a backup, or a follower.
        Behind { copy: usize, of: usize },
        /// Remember only so many lives.
        Forget { copy: usize, kept: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let copy = 0_usize..6;
        let step = prop_oneof![
            4 => (copy.clone(), 1_usize..4).prop_map(|(copy, count)| Step::Write { copy, count }),
            2 => copy.clone().prop_map(|copy| Step::Open { copy }),
            2 => copy.clone().prop_map(|copy| Step::Clone { copy }),
            1 => (copy.clone(), 0_usize..8).prop_map(|(copy, of)| Step::Behind { copy, of }),
            1 => (copy, 1_usize..4).prop_map(|(copy, kept)| Step::Forget { copy, kept }),
        ];
        prop::collection::vec(step, 1..60)
    }

    /// Carries out the steps. Gives all copies, and whether any life was forgotten.
    fn carry_out(steps: &[Step]) -> (Vec<Held>, bool) {
        let mut copies = vec![(Held::default(), life(1))];
        let (mut lives, mut written, mut forgot) = (1, 0, false);
        let mut draw = || {
            lives += 1;
            life(lives)
        };
        for step in steps {
            let count = copies.len();
            match *step {
                Step::Write { copy, count: entries } => {
                    let (held, life) = &mut copies[copy % count];
                    for _ in 0..entries {
                        written += 1;
                        held.lineage.note(*life, held.next());
                        held.entries.push((written, *life));
                    }
                }
                Step::Open { copy } => copies[copy % count].1 = draw(),
                Step::Clone { copy } => {
                    let (held, _) = copies[copy % count].clone();
                    copies.push((held, draw()));
                }
                Step::Behind { copy, of } => {
                    let (mut held, _) = copies[copy % count].clone();
                    held.entries.truncate(of);
                    held.lineage = held.lineage.clone().before(held.next());
                    copies.push((held, draw()));
                }
                Step::Forget { copy, kept } => {
                    let (held, _) = &mut copies[copy % count];
                    forgot |= held.lineage.lives.len() > kept;
                    held.lineage.forget(kept, held.next());
                }
            }
        }
        (copies.into_iter().map(|(held, _)| held).collect(), forgot)
    }

    fn truth(one: &Held, other: &Held) -> Lsn {
        let same = one.entries.iter().zip(&other.entries).take_while(|(one, other)| one == other);
        lsn(same.count() + 1)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_two_lineages_say_is_common_is_all_that_is(steps in steps()) {
            let (copies, forgot) = carry_out(&steps);
            for one in &copies {
                for other in &copies {
                    let common =
                        one.lineage.common_prefix(one.next(), &other.lineage, other.next());
                    if let Some(common) = common {
                        prop_assert_eq!(common, truth(one, other));
                    }
                    // Only what is forgotten is unknown.
                    prop_assert!(common.is_some() || forgot);
                    let back = other.lineage.common_prefix(other.next(), &one.lineage, one.next());
                    prop_assert_eq!(common, back);
                }
            }
        }

        #[test]
        fn a_position_is_within_a_history_or_where_they_part_is_told(steps in steps()) {
            let (copies, _) = carry_out(&steps);
            for one in &copies {
                for other in &copies {
                    let (life, theirs) = (other.last_life(), other.next());
                    let common = one.lineage.common_with_position(one.next(), life, theirs);
                    let truth = truth(one, other);
                    if let Some(common) = common {
                        prop_assert_eq!(common, truth);
                    }
                    // Whoever holds it all and remembers its last writer knows that.
                    let knows = one.lineage.lives().any(|(known, _)| known == life);
                    prop_assert!(common.is_some() || !(truth == theirs && knows));
                }
            }
        }

        #[test]
        fn the_writer_of_an_entry_is_known_or_forgotten(steps in steps()) {
            for held in carry_out(&steps).0 {
                let first = held.lineage.lives().next().map_or(held.next(), |(_, begin)| begin);
                for (index, (_, life)) in held.entries.iter().enumerate() {
                    let known = held.lineage.life_at(lsn(index + 1));
                    prop_assert_eq!(known, (lsn(index + 1) >= first).then_some(*life));
                }
            }
        }
    }

    #[test]
    fn lives_whose_entries_are_needed_are_not_forgotten() {
        let mut lineage = Lineage::default();
        (1..6).for_each(|number| lineage.note(life(number), lsn(usize::from(number) * 10 - 9)));
        lineage.forget(2, lsn(15));
        assert_eq!(lineage.to_string(), "lives 0002@11 0003@21 0004@31 0005@41");
        lineage.forget(2, lsn(41));
        assert_eq!(lineage.to_string(), "lives 0004@31 0005@41");
    }

    #[test]
    fn lives_that_go_backwards_are_refused() {
        let lives = |begins: [usize; 2]| vec![(life(1), lsn(begins[0])), (life(2), lsn(begins[1]))];
        assert!(Lineage::try_from(lives([1, 2])).is_ok());
        assert_eq!(Lineage::try_from(lives([2, 2])), Err(ImpossibleLineage));
        let twice = vec![(life(1), lsn(1)), (life(1), lsn(2))];
        assert_eq!(Lineage::try_from(twice), Err(ImpossibleLineage));
    }
}
