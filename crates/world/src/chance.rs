//! Randomness that a seed repeats.

/// Draws the same bytes for the same seed, in the same order.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    seed: u64,
    drawn: u64,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// Thirty-two bytes that nobody was given before.
    pub(crate) fn draw(&mut self) -> [u8; 32] {
        self.drawn += 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&self.drawn.to_le_bytes());
        *hasher.finalize().as_bytes()
    }

    /// The same as a number.
    pub(crate) fn draw_number(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.draw();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_what_it_gave_and_gives_nothing_twice() {
        let (mut one, mut same, mut other) = (Chance::new(1), Chance::new(1), Chance::new(2));
        let first = one.draw();
        assert_eq!(first, same.draw());
        assert_ne!(first, other.draw());
        assert_ne!(first, one.draw());
    }
}
