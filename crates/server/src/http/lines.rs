//! Rows as lines of JSON, a bounded number of bytes of them.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tidelog_types::{Rows, Value};

/// Bytes of the lines of one answer, not counting the line that passes the bound.
pub(super) const LINES_SIZE_MAX: usize = 1024 * 1024;

/// Behind which number to ask for what comes next.
pub(crate) const AFTER: HeaderName = HeaderName::from_static("tidelog-after");
/// Whether there may be more behind that now.
pub(crate) const MORE: HeaderName = HeaderName::from_static("tidelog-more");

/// One page of lines.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Lines {
    text: String,
    /// The number of the last row, and whether it is the last one of all that were given.
    end: Option<(u64, bool)>,
}

impl Lines {
    /// The first of these rows, whose first column is the number by which they are sorted. The
    /// column `json` is written as the JSON that it is.
    pub(super) fn of(rows: &Rows, json: &str) -> Self {
        let mut lines = Self::default();
        let names: Vec<String> = rows.columns.iter().map(|name| json!(name).to_string()).collect();
        let decoded = rows.decode();
        let count = decoded.len();
        for (nth, row) in decoded.iter().enumerate() {
            let cells = row.iter().enumerate().map(|(at, value)| {
                let value = match value {
                    Value::Text(text) if rows.columns[at] == json => on_one_line(text),
                    value => cell(value),
                };
                format!("{}:{value}", names[at])
            });
            let cells: Vec<String> = cells.collect();
            lines.text += &format!("{{{}}}\n", cells.join(","));
            if let Some(Value::Integer(number)) = row.first() {
                lines.end = Some((number.cast_unsigned(), nth + 1 == count));
            }
            if lines.text.len() >= LINES_SIZE_MAX {
                break;
            }
        }
        lines
    }

    /// The answer: `next` is where to go on if all rows are in it, and whether there may be more
    /// then.
    pub(super) fn answer(self, next: (u64, bool)) -> Response {
        let (after, is_more) = match self.end {
            Some((last, false)) => (last, true),
            _ => next,
        };
        page(self.text, (after, is_more))
    }

    /// The number of the last row.
    pub(super) fn last(&self) -> Option<u64> {
        self.end.map(|(last, _)| last)
    }
}

/// A page of lines: behind which number to ask for more, and whether there may be more now.
pub(super) fn page(lines: String, (after, is_more): (u64, bool)) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (AFTER, HeaderValue::from(after)),
        (MORE, HeaderValue::from_static(if is_more { "true" } else { "false" })),
    ];
    (StatusCode::OK, headers, lines).into_response()
}

/// JSON has line breaks between its parts alone.
fn on_one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => json!(number).to_string(),
        Value::Text(text) => json!(text).to_string(),
        Value::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!(hex).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_types::ValueRef;

    use super::*;

    fn rows(data: &[&str]) -> Rows {
        let columns = ["sequence", "data", "user"].map(str::to_owned).to_vec();
        let mut rows = Rows { columns, ..Rows::default() };
        for (sequence, data) in (1..).zip(data) {
            let user = ValueRef::Text(b"a\"b");
            rows.push([ValueRef::Integer(sequence), ValueRef::Text(data.as_bytes()), user]);
        }
        rows
    }

    #[test]
    fn each_row_is_a_line_of_json_and_data_stay_as_they_are() {
        let lines = Lines::of(&rows(&["{\"n\":\n18446744073709551617}", "{}"]), "data");
        let expected = concat!(
            r#"{"sequence":1,"data":{"n": 18446744073709551617},"user":"a\"b"}"#,
            "\n",
            r#"{"sequence":2,"data":{},"user":"a\"b"}"#,
            "\n"
        );
        assert_eq!((lines.text.as_str(), lines.end), (expected, Some((2, true))));
    }

    /// Goal: an answer is bounded by bytes, and says where to go on. Method: rows of 600 KiB.
    #[test]
    fn an_answer_that_is_large_ends_early_and_says_where() {
        let large = format!("\"{}\"", "x".repeat(600 * 1024));
        let lines = Lines::of(&rows(&[&large, &large, &large]), "data");
        assert_eq!(lines.end, Some((2, false)));
        let answer = lines.answer((9, false));
        let [after, more] = [AFTER, MORE].map(|it| answer.headers()[it].clone());
        assert_eq!((after.to_str().unwrap(), more.to_str().unwrap()), ("2", "true"));
    }
}
