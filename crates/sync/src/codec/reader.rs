//! Reads what bincode wrote.
//!
//! Of its own because of what serde's errors say: bincode keeps their texts, and with them comes
//! all that formats numbers and values, some 15 KB of what every page would download.

use std::fmt::Display;

use serde::de::value::U32Deserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

/// The bytes are no such value. What exactly is wrong with them helps nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no such value")]
pub(super) struct Unreadable;

impl Error for Unreadable {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

/// How many bytes a number or a length has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Width {
    /// As many as it needs.
    Least,
    /// As many as its type.
    Fixed,
}

/// Before a number of two, four and eight bytes; a smaller byte is the number.
const TWO_BYTES: u8 = 251;
const FOUR_BYTES: u8 = 252;
const EIGHT_BYTES: u8 = 253;

/// The bytes that are not read yet.
#[derive(Debug)]
pub(super) struct Reader<'de> {
    bytes: &'de [u8],
    width: Width,
    /// How many bytes the items of lists may yet take in memory.
    room: usize,
}

/// Reads `bytes`, all of them. The items of lists take at most `room` bytes in memory, beside what
/// they point to.
pub(super) fn read<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
    width: Width,
    room: usize,
) -> Result<T, Unreadable> {
    let mut reader = Reader { bytes, width, room };
    let value = T::deserialize(&mut reader)?;
    if reader.bytes.is_empty() { Ok(value) } else { Err(Unreadable) }
}

impl<'de> Reader<'de> {
    fn take(&mut self, size: usize) -> Result<&'de [u8], Unreadable> {
        let (taken, rest) = self.bytes.split_at_checked(size).ok_or(Unreadable)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], Unreadable> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(Unreadable)?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// A number whose type is so wide, in bytes.
    fn number(&mut self, type_size: usize) -> Result<u64, Unreadable> {
        let (size, least) = match self.width {
            Width::Fixed => (type_size, 0),
            Width::Least => match self.array()? {
                [TWO_BYTES] => (2, TWO_BYTES.into()),
                [FOUR_BYTES] => (4, 1 << 16),
                [EIGHT_BYTES] => (8, 1 << 32),
                [number] if number < TWO_BYTES => return Ok(number.into()),
                _ => return Err(Unreadable),
            },
        };
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(self.take(size)?);
        let number = u64::from_le_bytes(bytes);
        // There is one way to write a number.
        if number >= least { Ok(number) } else { Err(Unreadable) }
    }

    fn signed(&mut self, type_size: usize) -> Result<i64, Unreadable> {
        let number = self.number(type_size)?;
        Ok(match self.width {
            // Nearest to 0 first: 0, -1, 1, -2 ...
            Width::Least => (number >> 1).cast_signed() ^ -(number & 1).cast_signed(),
            Width::Fixed => {
                let unused = 64 - 8 * type_size;
                (number << unused).cast_signed() >> unused
            }
        })
    }

    fn size(&mut self) -> Result<usize, Unreadable> {
        usize::try_from(self.number(size_of::<u64>())?).map_err(|_| Unreadable)
    }

    fn counted(&mut self) -> Result<&'de [u8], Unreadable> {
        let size = self.size()?;
        self.take(size)
    }

    fn text(&mut self) -> Result<&'de str, Unreadable> {
        std::str::from_utf8(self.counted()?).map_err(|_| Unreadable)
    }

    fn flag(&mut self) -> Result<bool, Unreadable> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Unreadable),
        }
    }
}

macro_rules! plain {
    ($($name:ident $visit:ident $number:ty,)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
            visitor.$visit(<$number>::from_le_bytes(self.array()?))
        })*
    };
}

macro_rules! numbers {
    ($($name:ident $read:ident $visit:ident $number:ty,)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
            let number = self.$read(size_of::<$number>())?;
            visitor.$visit(<$number>::try_from(number).map_err(|_| Unreadable)?)
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Unreadable;

    numbers! {
        deserialize_u16 number visit_u16 u16,
        deserialize_u32 number visit_u32 u32,
        deserialize_u64 number visit_u64 u64,
        deserialize_i16 signed visit_i16 i16,
        deserialize_i32 signed visit_i32 i32,
        deserialize_i64 signed visit_i64 i64,
    }

    plain! {
        deserialize_u8 visit_u8 u8,
        deserialize_i8 visit_i8 i8,
        deserialize_f32 visit_f32 f32,
        deserialize_f64 visit_f64 f64,
    }

    /// What the bytes are is nowhere in them.
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unreadable> {
        Err(Unreadable)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_bool(self.flag()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_borrowed_bytes(self.counted()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        if self.flag()? { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let left = self.size()?;
        visitor.visit_seq(Items { reader: self, left, is_list: true })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let left = self.size()?;
        visitor.visit_map(Items { reader: self, left, is_list: true })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_seq(Items { reader: self, left, is_list: false })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.deserialize_tuple(left, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_enum(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    serde::forward_to_deserialize_any! { i128 u128 char identifier ignored_any }
}

struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: usize,
    /// Their number is not known from the type.
    is_list: bool,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Unreadable;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unreadable> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        if self.is_list {
            let room = self.reader.room.checked_sub(size_of::<T::Value>());
            self.reader.room = room.ok_or(Unreadable)?;
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }

    /// Never more than the bytes can hold.
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.reader.bytes.len()))
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Unreadable;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unreadable> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Unreadable> {
        self.left += 1;
        self.next_element_seed(seed)?.ok_or(Unreadable)
    }
}

impl<'de> EnumAccess<'de> for &mut Reader<'de> {
    type Error = Unreadable;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), Unreadable> {
        let number = u32::try_from(self.number(size_of::<u32>())?).map_err(|_| Unreadable)?;
        let number: U32Deserializer<Unreadable> = number.into_deserializer();
        Ok((seed.deserialize(number)?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Reader<'de> {
    type Error = Unreadable;

    fn unit_variant(self) -> Result<(), Unreadable> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, Unreadable> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        size: usize,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.deserialize_tuple(size, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}
