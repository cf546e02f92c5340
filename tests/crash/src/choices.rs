//! Which versions of the un-flushed sectors survive: every combination, or some by chance.

use std::fmt;
use std::str::FromStr;

use tidelog_disk::CrashDevice;

use tidelog_testing::Rng;

/// Which image of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageName {
    /// By its place among all combinations, from 0.
    Combination(u64),
    /// By its place among those made by chance, from 0.
    Chance(u64),
    /// By its place among those in which blocks are torn, from 0.
    Torn(u64),
    /// Those of the store whose owner was killed before the power was cut, and which was opened in
    /// between.
    Killed,
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Combination(number) => write!(f, "c{number}"),
            Self::Chance(number) => write!(f, "r{number}"),
            Self::Torn(number) => write!(f, "t{number}"),
            Self::Killed => f.write_str("k"),
        }
    }
}

impl FromStr for ImageName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(number) = text.strip_prefix('c') {
            return Ok(Self::Combination(number.parse()?));
        }
        if let Some(number) = text.strip_prefix('t') {
            return Ok(Self::Torn(number.parse()?));
        }
        match text.strip_prefix('r') {
            Some(number) => Ok(Self::Chance(number.parse()?)),
            None if text == "k" => Ok(Self::Killed),
            None => anyhow::bail!("an image is called cN, rN, tN or k, not {text}"),
        }
    }
}

/// Goes through all combinations of choices, whose number may depend on the choices before.
#[derive(Debug, Default)]
pub(crate) struct Combinations {
    /// The choice made at each place, and how many there were.
    path: Vec<(usize, usize)>,
    at: usize,
    /// Whether a sector survives as the newest or not at all, and in no version between.
    only_newest: bool,
}

impl Combinations {
    pub fn new(only_newest: bool) -> Self {
        Self { only_newest, ..Self::default() }
    }

    /// All combinations of what a power cut of this device can leave, if there are no more than so
    /// many.
    pub fn of(device: &CrashDevice, count_max: usize) -> Option<Self> {
        let count = device.choices().into_iter().fold(1, usize::saturating_mul);
        (count <= count_max).then(|| Self::new(false))
    }

    /// The choice at the next place of the present combination.
    pub fn choose(&mut self, versions: usize) -> usize {
        let options = if self.only_newest { 2 } else { versions };
        if self.at == self.path.len() {
            self.path.push((0, options));
        }
        let (choice, known) = self.path[self.at];
        assert!(known == options, "BUG: another choice than last time");
        self.at += 1;
        if self.only_newest && choice == 1 { versions - 1 } else { choice }
    }

    /// Goes on to the next combination; false after the last.
    pub fn advance(&mut self) -> bool {
        self.path.truncate(self.at);
        self.at = 0;
        while let Some((choice, options)) = self.path.pop() {
            if choice + 1 < options {
                self.path.push((choice + 1, options));
                return true;
            }
        }
        false
    }
}

/// One combination by chance: mostly old, mostly new, or mixed.
pub(crate) fn by_chance(rng: &mut Rng, number: u64) -> impl FnMut(usize) -> usize + '_ {
    move |versions| match number {
        0 => 0,
        1 => versions - 1,
        _ if number % 4 == 2 && !rng.one_in(8) => 0,
        _ if number % 4 == 3 && !rng.one_in(8) => versions - 1,
        _ => rng.below(versions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(only_newest: bool, mut ask: impl FnMut(&mut Combinations) -> Vec<usize>) -> usize {
        let mut combinations = Combinations::new(only_newest);
        let mut seen = std::collections::BTreeSet::new();
        loop {
            assert!(seen.insert(ask(&mut combinations)), "the same one twice");
            if !combinations.advance() {
                return seen.len();
            }
        }
    }

    #[test]
    fn every_combination_comes_once() {
        let three = |it: &mut Combinations| vec![it.choose(2), it.choose(3), it.choose(2)];
        assert_eq!(all(false, three), 12);
        assert_eq!(all(true, three), 8);
        assert_eq!(all(false, |_| vec![]), 1, "nothing to choose is one combination");
        let dependent = |it: &mut Combinations| match it.choose(2) {
            0 => vec![0],
            _ => vec![1, it.choose(2), it.choose(2)],
        };
        assert_eq!(all(false, dependent), 5);
    }

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let (combination, chance) = (ImageName::Combination(17), ImageName::Chance(3));
        for name in [combination, chance, ImageName::Torn(5), ImageName::Killed] {
            assert_eq!(name.to_string().parse::<ImageName>().expect("a name"), name);
        }
        assert!("17".parse::<ImageName>().is_err());
    }
}
