//! Numbers that look drawn, and are the same each time, whoever draws them: see `drawing.ts`.

/// A generator of numbers from 0 up to 1, which a text determines: the generator sfc32, whose state
/// is four hashes (FNV-1a) of the text. Nothing that is a secret may hang on it.
#[derive(Debug)]
pub(crate) struct Drawing([u32; 4]);

impl Drawing {
    pub(crate) fn from(text: &str) -> Self {
        let mut drawing = Self([1, 2, 3, 4].map(|seed| hash_of(&format!("{seed}{text}"))));
        // The first ones still resemble each other where the texts do.
        for _ in 0..16 {
            drawing.next();
        }
        drawing
    }

    /// As many bits as a fraction has.
    pub(crate) fn draw(&mut self) -> f64 {
        let (high, low) = (self.next() >> 5, self.next() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    fn next(&mut self) -> u32 {
        let Self([a, b, c, d]) = self;
        let sum = a.wrapping_add(*b).wrapping_add(*d);
        *d = d.wrapping_add(1);
        *a = *b ^ (*b >> 9);
        *b = c.wrapping_add(*c << 3);
        *c = c.rotate_left(21).wrapping_add(sum);
        sum
    }
}

/// Over the units of UTF-16, of which JavaScript's texts are made.
fn hash_of(text: &str) -> u32 {
    text.encode_utf16()
        .fold(0x811c_9dc5, |hash, unit| (hash ^ u32::from(unit)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are those that `drawnFrom` of `drawing.ts` draws.
    #[test]
    fn the_same_numbers_are_drawn_as_in_typescript() {
        let drawn = |text| {
            let mut drawing = Drawing::from(text);
            [drawing.draw(), drawing.draw(), drawing.draw()]
        };
        let ascii = [0.5604832655504037, 0.868929312767916, 0.7042369988696352];
        assert_eq!(drawn(r#"["fulfil","f-1",7]"#), ascii);
        assert_eq!(drawn("é😀"), [0.08510229110653433, 0.7240537924874934, 0.9934733178360323]);
    }
}
