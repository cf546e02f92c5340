//! Rows, as values or as types of the program.

use std::ops::Index;
use std::sync::Arc;

use serde::de::value::{Error as ValueError, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use tidelog_types::Value;

/// What a query has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    columns: Arc<[String]>,
    rows: Vec<Row>,
}

/// One row of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

/// Why a row is no such type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {row}: {reason}")]
pub struct DecodeError {
    /// Which, from 0.
    pub row: usize,
    /// What does not fit.
    pub reason: String,
}

impl From<tidelog_types::Rows> for Rows {
    fn from(rows: tidelog_types::Rows) -> Self {
        let values = rows.decode();
        let columns: Arc<[String]> = rows.columns.into();
        let row = |values| Row { columns: Arc::clone(&columns), values };
        Self { rows: values.into_iter().map(row).collect(), columns }
    }
}

impl Rows {
    /// The names of the columns, as SQLite gives them.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Row> {
        self.rows.iter()
    }

    /// Each row as a type of the program: a struct whose fields are columns, a tuple of the columns
    /// in their order, or, of one column, its value. A boolean is 0 or 1, and bytes are a blob.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] of the first row that is none.
    pub fn to<T: DeserializeOwned>(&self) -> Result<Vec<T>, DecodeError> {
        let decode = |(row, it): (usize, &Row)| {
            T::deserialize(it).map_err(|error| DecodeError { row, reason: error.to_string() })
        };
        self.rows.iter().enumerate().map(decode).collect()
    }
}

impl Index<usize> for Rows {
    type Output = Row;

    fn index(&self, index: usize) -> &Row {
        &self.rows[index]
    }
}

impl<'r> IntoIterator for &'r Rows {
    type Item = &'r Row;
    type IntoIter = std::slice::Iter<'r, Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Row {
    /// The value of the first column of that name.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&Value> {
        let place = self.columns.iter().position(|name| name == column)?;
        self.values.get(place)
    }

    /// Its values, in the order of the columns.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        self.values.iter().map(Cell)
    }
}

impl<'de> Deserializer<'de> for &Row {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        if let [value] = self.values.as_slice() {
            return Cell(value).deserialize_any(visitor);
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        let names = self.columns.iter().map(String::as_str);
        visitor.visit_map(MapDeserializer::new(names.zip(self.cells())))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        if len != self.values.len() {
            let expected = format!("{len} columns, not {}", self.values.len());
            return Err(ValueError::custom(expected));
        }
        visitor.visit_seq(SeqDeserializer::new(self.cells()))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.values.as_slice() {
            [value] => Cell(value).deserialize_option(visitor),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.values.as_slice() {
            [value] => Cell(value).deserialize_bool(visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self.values.as_slice() {
            [value] => Cell(value).deserialize_enum(name, variants, visitor),
            _ => Err(ValueError::custom("an enum is one column")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.values.as_slice() {
            [value @ Value::Blob(_)] => Cell(value).deserialize_seq(visitor),
            _ => visitor.visit_seq(SeqDeserializer::new(self.cells())),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct identifier ignored_any
    }
}

/// One value of a row.
struct Cell<'r>(&'r Value);

impl<'de> IntoDeserializer<'de, ValueError> for Cell<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Cell<'_> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Real(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_str(text),
            Value::Blob(bytes) => visitor.visit_bytes(bytes),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Integer(0) => visitor.visit_bool(false),
            Value::Integer(1) => visitor.visit_bool(true),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Blob(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied())),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Text(text) => {
                let text: serde::de::value::StrDeserializer<'_, ValueError> =
                    text.as_str().into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            _ => Err(ValueError::custom("a variant is a text")),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum State {
        Open,
        Done,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Task {
        id: i64,
        title: String,
        is_urgent: bool,
        weight: Option<f64>,
        seal: Vec<u8>,
        state: State,
    }

    fn rows(columns: &[&str], rows: Vec<Vec<Value>>) -> Rows {
        let columns: Arc<[String]> = columns.iter().map(ToString::to_string).collect();
        let row = |values| Row { columns: Arc::clone(&columns), values };
        Rows { rows: rows.into_iter().map(row).collect(), columns }
    }

    fn tasks() -> Rows {
        let columns = ["id", "title", "is_urgent", "weight", "seal", "state"];
        let text = |text: &str| Value::Text(text.to_owned());
        let one = vec![
            Value::Integer(7),
            text("ship"),
            Value::Integer(1),
            Value::Null,
            Value::Blob(vec![1, 2]),
            text("open"),
        ];
        let mut other = one.clone();
        other[3] = Value::Real(1.5);
        other[5] = text("done");
        rows(&columns, vec![one, other])
    }

    #[test]
    fn a_row_is_a_struct_of_its_columns_or_a_tuple() {
        let tasks: Vec<Task> = tasks().to().expect("tasks");
        let task = |weight, state| Task {
            id: 7,
            title: "ship".to_owned(),
            is_urgent: true,
            weight,
            seal: vec![1, 2],
            state,
        };
        assert_eq!(tasks, [task(None, State::Open), task(Some(1.5), State::Done)]);
        let pair = rows(&["a", "b"], vec![vec![Value::Integer(1), Value::Null]]);
        assert_eq!(pair.to::<(u8, Option<String>)>().expect("a pair"), [(1, None)]);
    }

    #[test]
    fn a_single_column_is_its_value() {
        let one = |value| rows(&["n"], vec![vec![value]]);
        assert_eq!(one(Value::Integer(3)).to::<u64>().expect("a number"), [3]);
        assert_eq!(one(Value::Integer(1)).to::<bool>().expect("a boolean"), [true]);
        assert_eq!(one(Value::Null).to::<Option<String>>().expect("nothing"), [None]);
        assert_eq!(one(Value::Blob(vec![9])).to::<Vec<u8>>().expect("bytes"), [vec![9]]);
        let (text, state) = (Value::Text("done".to_owned()), State::Done);
        assert_eq!(one(text).to::<State>().expect("a variant"), [state]);
    }

    #[test]
    fn what_does_not_fit_names_its_row() {
        let found = rows(&["n"], vec![vec![Value::Integer(1)], vec![Value::Text("a".to_owned())]]);
        assert_eq!(found.to::<i64>().expect_err("no number").row, 1);
        let many = rows(&["a", "b"], vec![vec![Value::Null, Value::Null]]);
        assert_eq!(many.to::<(Option<u8>,)>().expect_err("two columns").row, 0);
    }
}
