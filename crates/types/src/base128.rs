//! Numbers in base 128: seven bits a byte, the low ones first, and the high bit set in all but the
//! last byte. Each number is one such run of bytes: the shortest.

/// Bytes of the longest of them.
const SIZE_MAX: usize = 5;

/// Appends a number.
pub fn put_number(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes a number off the bytes that are left; `None` if they begin with none.
#[must_use]
pub fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let size = bytes.iter().take(SIZE_MAX).position(|byte| *byte < 0x80)? + 1;
    let (digits, rest) = bytes.split_at(size);
    let digit = |sum: u64, byte: &u8| sum << 7 | u64::from(byte & 0x7F);
    let number = u32::try_from(digits.iter().rev().fold(0, digit)).ok()?;
    *bytes = rest;
    (size == number_size(number)).then_some(number)
}

/// Bytes that a number takes.
#[must_use]
pub fn number_size(number: u32) -> usize {
    let bits = u32::BITS - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_take_the_fewest_bytes() {
        for (number, size) in
            [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (1 << 28, 5), (u32::MAX, 5)]
        {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            assert_eq!((bytes.len(), number_size(number)), (size, size), "{number}");
            bytes.push(9);
            let mut rest = &bytes[..];
            assert_eq!(take_number(&mut rest), Some(number));
            assert_eq!(rest, [9]);
        }
    }

    #[test]
    fn what_is_cut_short_too_long_or_too_large_is_none() {
        for bytes in [&[][..], &[0x80], &[0xFF; 5], &[0x80, 0], &[0xFF, 0xFF, 0xFF, 0xFF, 0x1F]] {
            assert_eq!(take_number(&mut &*bytes), None, "{bytes:?}");
        }
    }
}
