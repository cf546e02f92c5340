//! The first step of a document, taken before anybody waits for it.

use tidelog_sqlite::{Reader, Run, SystemQueries as _, View};

/// Looks into a document that holds nothing, by what a document is first asked.
///
/// A browser compiles a function of a WebAssembly module when it is first called. What the first
/// document of a core needs is compiled by this while that document is on its way from the disk.
/// It is no more than that takes: making a document here, and writing to it, would hold up the one
/// that has come meanwhile.
pub fn warm_up() {
    drop(warmed());
}

fn warmed() -> Reader {
    let mut reader = Reader::new(&View::new(1, 0));
    let tables = reader.query_system("select 1 from sqlite_schema where name = 'none'", &[]);
    debug_assert!(matches!(tables, Run::Done(_)), "BUG: {tables:?}");
    reader
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever asks for a version in a document that holds nothing opens no connection.
    #[test]
    fn a_warm_up_opens_a_connection() {
        assert!(warmed().is_open());
    }
}
