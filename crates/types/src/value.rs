//! Values as SQL knows them, and rows of them as they travel to a tab.

use serde::{Deserialize, Serialize};

/// One SQL value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// SQL null.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A 64-bit float.
    Real(f64),
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Blob(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// Values for the parameters of a query. Each parameter must have a value, and each value a
/// parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Params {
    /// By place, from the first parameter on.
    Positional(Vec<Value>),
    /// By name, with or without the prefix `:`, `@` or `$`.
    Named(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<bool> for Value {
    /// 0 or 1.
    fn from(flag: bool) -> Self {
        Self::Integer(flag.into())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Blob(bytes)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<()> for Params {
    fn from((): ()) -> Self {
        Self::NONE
    }
}

impl<const N: usize> From<[Value; N]> for Params {
    fn from(values: [Value; N]) -> Self {
        Self::Positional(values.into())
    }
}

impl From<Vec<Value>> for Params {
    fn from(values: Vec<Value>) -> Self {
        Self::Positional(values)
    }
}

impl<const N: usize> From<[(&str, Value); N]> for Params {
    fn from(values: [(&str, Value); N]) -> Self {
        Self::Named(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

impl Params {
    /// There are none.
    pub const NONE: Self = Self::Positional(Vec::new());
}

/// The answer to a query, its cells already as the bytes that a tab decodes.
///
/// Each cell is a tag byte and its payload, row after row, in the order of `columns`:
///
/// ```text
/// 0            null
/// 1  i64 LE    integer
/// 2  f64 LE    real
/// 3  u32 LE length, UTF-8 bytes    text
/// 4  u32 LE length, bytes          blob
/// ```
///
/// Each row is preceded by its size in bytes (u32 LE), so that two answers can be compared row by
/// row without decoding them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Names of the columns, as SQLite gives them.
    pub columns: Vec<String>,
    /// How many rows there are.
    pub count: u32,
    /// The rows, encoded.
    #[serde(with = "serde_bytes")]
    pub cells: Vec<u8>,
}

impl Rows {
    /// Appends one row.
    pub fn push<'a>(&mut self, row: impl IntoIterator<Item = ValueRef<'a>>) {
        let size_at = self.cells.len();
        self.cells.extend_from_slice(&[0; 4]);
        for value in row {
            value.encode(&mut self.cells);
        }
        let size = u32::try_from(self.cells.len() - size_at - 4).expect("BUG: row over 4 GiB");
        self.cells[size_at..size_at + 4].copy_from_slice(&size.to_le_bytes());
        self.count += 1;
    }

    /// The rows as values, for tests and tools.
    ///
    /// # Panics
    ///
    /// If the cells were not written by [`Rows::push`].
    #[must_use]
    pub fn decode(&self) -> Vec<Vec<Value>> {
        let mut rest = self.cells.as_slice();
        let mut rows = Vec::new();
        for _ in 0..self.count {
            let (_, mut row) = rest.split_at(4);
            let mut values = Vec::with_capacity(self.columns.len());
            for _ in &self.columns {
                values.push(decode_cell(&mut row));
            }
            rows.push(values);
            rest = row;
        }
        rows
    }
}

/// One SQL value, borrowed: what a statement hands over while it steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// SQL null.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A 64-bit float.
    Real(f64),
    /// Text, which SQLite does not promise to be valid UTF-8.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
}

impl ValueRef<'_> {
    fn encode(self, out: &mut Vec<u8>) {
        let mut with_size = |tag: u8, bytes: &[u8]| {
            out.push(tag);
            let size = u32::try_from(bytes.len()).expect("BUG: value over 4 GiB");
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Self::Text(bytes) => with_size(3, bytes),
            Self::Blob(bytes) => with_size(4, bytes),
            Self::Null => out.push(0),
            Self::Integer(number) => {
                out.push(1);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Self::Real(number) => {
                out.push(2);
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
}

fn decode_cell(rest: &mut &[u8]) -> Value {
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at(count);
        *rest = tail;
        head
    };
    let tag = take(1)[0];
    match tag {
        0 => Value::Null,
        1 => Value::Integer(i64::from_le_bytes(take(8).try_into().expect("BUG: 8 bytes"))),
        2 => Value::Real(f64::from_le_bytes(take(8).try_into().expect("BUG: 8 bytes"))),
        3 | 4 => {
            let size = u32::from_le_bytes(take(4).try_into().expect("BUG: 4 bytes"));
            let bytes = take(size as usize);
            if tag == 3 {
                Value::Text(String::from_utf8_lossy(bytes).into_owned())
            } else {
                Value::Blob(bytes.to_vec())
            }
        }
        other => panic!("BUG: no such cell tag: {other}"),
    }
}
