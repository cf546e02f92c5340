//! What `instr`, `replace`, `trim` and `unhex` answer, and `like` and `glob` with most patterns, in
//! time that grows with the lengths of their arguments and not with the product of them.
//!
//! SQLite's own compare at each place, within one step of its virtual machine: for two values of
//! some megabytes that takes hours, and nothing can end it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Where `needle` is in `hay`, from one end of a find to the next.
pub(crate) fn find_all<'a>(hay: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let borders = borders(needle);
    let (mut at, mut matched) = (0, 0);
    std::iter::from_fn(move || {
        while at < hay.len() && !needle.is_empty() {
            while matched > 0 && hay[at] != needle[matched] {
                matched = borders[matched - 1];
            }
            matched += usize::from(hay[at] == needle[matched]);
            at += 1;
            if matched == needle.len() {
                matched = 0;
                return Some(at - needle.len());
            }
        }
        None
    })
}

/// Of each beginning of `needle`: the length of the longest shorter beginning that it ends with.
fn borders(needle: &[u8]) -> Vec<usize> {
    let mut borders = vec![0; needle.len()];
    let mut length = 0;
    for index in 1..needle.len() {
        while length > 0 && needle[index] != needle[length] {
            length = borders[length - 1];
        }
        length += usize::from(needle[index] == needle[length]);
        borders[index] = length;
    }
    borders
}

/// `instr` of two blobs: from 1, and 0 if it is not there.
pub(crate) fn byte_place(hay: &[u8], needle: &[u8]) -> usize {
    match needle {
        [] => 1,
        _ => find_all(hay, needle).next().map_or(0, |at| at + 1),
    }
}

/// `instr` of two texts: the same in characters. What begins within a character is none.
pub(crate) fn char_place(hay: &[u8], needle: &[u8]) -> usize {
    match needle {
        [] => 1,
        [first, ..] if is_continuation(*first) => usize::from(hay.starts_with(needle)),
        _ => find_all(hay, needle).next().map_or(0, |at| {
            1 + hay[1..].iter().take(at).filter(|byte| !is_continuation(**byte)).count()
        }),
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// `replace`; `None` if that has more than `size_max` bytes.
pub(crate) fn replaced(
    hay: &[u8],
    needle: &[u8],
    other: &[u8],
    size_max: usize,
) -> Option<Vec<u8>> {
    let count = find_all(hay, needle).count();
    let rest_size = hay.len() - count * needle.len();
    let size = rest_size.checked_add(count.checked_mul(other.len())?)?;
    if size > size_max {
        return None;
    }
    let (mut result, mut end) = (Vec::with_capacity(size), 0);
    for at in find_all(hay, needle) {
        result.extend_from_slice(&hay[end..at]);
        result.extend_from_slice(other);
        end = at + needle.len();
    }
    result.extend_from_slice(&hay[end..]);
    Some(result)
}

/// `unhex`: the bytes whose digits `text` has up to its first zero byte, with any of the characters
/// of `between` between two bytes. `None` if it has anything else.
pub(crate) fn unhexed(text: &[u8], between: &[u8]) -> Option<Vec<u8>> {
    let between = code_points(between);
    let mut rest = up_to_zero(text);
    let mut bytes = Vec::with_capacity(rest.len() / 2);
    while let Some(first) = rest.first() {
        rest = match hex_digit(*first) {
            Some(high) => {
                bytes.push(high << 4 | hex_digit(*rest.get(1)?)?);
                &rest[2..]
            }
            None => {
                let (code_point, after) = split_code_point(rest)?;
                between.contains(&code_point).then_some(after)?
            }
        };
    }
    Some(bytes)
}

fn hex_digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

fn code_points(mut text: &[u8]) -> BTreeSet<u32> {
    let mut code_points = BTreeSet::new();
    while let Some((code_point, rest)) = split_code_point(text) {
        code_points.insert(code_point);
        text = rest;
    }
    code_points
}

/// The first character of a text as SQLite reads it, also a broken one, and what is behind it.
fn split_code_point(text: &[u8]) -> Option<(u32, &[u8])> {
    let (first, mut rest) = text.split_first()?;
    let bits = match *first {
        0xc0..=0xdf => 0x1f,
        0xe0..=0xef => 0x0f,
        0xf0..=0xf7 => 0x07,
        0xf8..=0xfb => 0x03,
        0xfc..=0xfd => 0x01,
        0xfe..=0xff => 0,
        _ => return Some((u32::from(*first), rest)),
    };
    let mut code_point = u32::from(*first & bits);
    while let Some((next, after)) = rest.split_first().filter(|(next, _)| is_continuation(**next)) {
        code_point = code_point << 6 | u32::from(*next & 0x3f);
        rest = after;
    }
    let is_broken = code_point < 0x80 || code_point & 0xffff_f800 == 0xd800;
    Some((if is_broken { 0xfffd } else { code_point }, rest))
}

/// A pattern of `like` or `glob` that has nothing but plain text between its two ends.
pub(crate) struct Plain<'p> {
    middle: &'p [u8],
    /// Whether anything may stand before it, and behind it.
    is_open: [bool; 2],
}

impl<'p> Plain<'p> {
    /// `any` stands for any text, and each of `others` for something else than itself. `None` if
    /// SQLite has to tell what the pattern means. Up to its first zero byte, as SQLite reads it.
    pub fn of(pattern: &'p [u8], any: u8, others: &[char]) -> Option<Self> {
        let pattern = up_to_zero(pattern);
        let without_start = &pattern[pattern.iter().take_while(|byte| **byte == any).count()..];
        let end = without_start.iter().rev().take_while(|byte| **byte == any).count();
        let middle = &without_start[..without_start.len() - end];
        let text = str::from_utf8(middle).ok()?;
        // SQLite takes these three for one.
        let is_special = |char| matches!(char, '\u{fffd}'..='\u{ffff}') || others.contains(&char);
        if text.contains(char::from(any)) || text.contains(is_special) {
            return None;
        }
        Some(Self { middle, is_open: [without_start.len() < pattern.len(), end > 0] })
    }

    /// Whether it is the pattern of `text`, of which ASCII letters match in either case if
    /// `folds`. `None` if SQLite has to tell what is written there.
    pub fn matches(&self, text: &[u8], folds: bool) -> Option<bool> {
        let text = up_to_zero(text);
        if !self.middle.is_ascii() && str::from_utf8(text).is_err() {
            return None;
        }
        let (text, middle) = (folded(text, folds), folded(self.middle, folds));
        Some(match self.is_open {
            _ if middle.is_empty() => self.is_open != [false; 2] || text.is_empty(),
            [true, true] => find_all(&text, &middle).next().is_some(),
            [true, false] => text.ends_with(&middle),
            [false, true] => text.starts_with(&middle),
            [false, false] => text == middle,
        })
    }
}

fn folded(text: &[u8], folds: bool) -> Cow<'_, [u8]> {
    if folds { Cow::Owned(text.to_ascii_lowercase()) } else { Cow::Borrowed(text) }
}

fn up_to_zero(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The characters of a text, by which another is trimmed.
pub(crate) struct Chars<'a> {
    /// Each with its place. Of several that match, which only broken texts have, the first counts.
    places: BTreeMap<&'a [u8], usize>,
    /// Their lengths, each once.
    sizes: BTreeSet<usize>,
}

impl<'a> Chars<'a> {
    /// Up to the first zero byte, as SQLite reads it.
    pub fn of(text: &'a [u8]) -> Self {
        let (mut places, mut sizes) = (BTreeMap::new(), BTreeSet::new());
        let mut rest = up_to_zero(text);
        while let Some(first) = rest.first() {
            let more = rest[1..].iter().take_while(|byte| is_continuation(**byte)).count();
            let (char, after) = rest.split_at(if *first >= 0xc0 { 1 + more } else { 1 });
            let place = places.len();
            places.entry(char).or_insert(place);
            sizes.insert(char.len());
            rest = after;
        }
        Self { places, sizes }
    }

    /// How many lengths they have.
    pub fn sizes_count(&self) -> usize {
        self.sizes.len()
    }

    pub fn trim_start<'t>(&self, mut text: &'t [u8]) -> &'t [u8] {
        while let Some(size) = self.first_of(|size| text.get(..size)) {
            text = &text[size..];
        }
        text
    }

    pub fn trim_end<'t>(&self, mut text: &'t [u8]) -> &'t [u8] {
        while let Some(size) = self.first_of(|size| text.get(text.len().checked_sub(size)?..)) {
            text = &text[..text.len() - size];
        }
        text
    }

    /// The length of the first of them that is what `part` gives for its length.
    fn first_of<'t>(&self, part: impl Fn(usize) -> Option<&'t [u8]>) -> Option<usize> {
        let found = self.sizes.iter().filter_map(|size| {
            let place = self.places.get(part(*size)?)?;
            Some((*place, *size))
        });
        found.min().map(|(_, size)| size)
    }
}
