//! The connection that runs mutations.

use tidelog_types::{PageSet, Pgid, Value};

use crate::connection::{Connection, Lazy, no_values};
use crate::failure::{Failure, Run};
use crate::reader::SystemQueries;
use crate::state::{Origin, lock};
use crate::transaction::Transaction;
use crate::view::{View, schema_cookie};

/// A connection for mutations. Opens when it is first used.
#[derive(Debug)]
pub struct Writer {
    connection: Lazy,
}

impl Writer {
    /// A writer on `view`.
    #[must_use]
    pub fn new(view: &View) -> Self {
        Self { connection: Lazy::new(view, true) }
    }

    /// Begins with a fresh connection next time: when the view was changed otherwise.
    pub fn refresh(&mut self) {
        self.connection.refresh();
    }

    /// The page set that [`write`](Self::write) just gave is not pushed to the view: SQLite, which
    /// still holds it, is not to go on with that.
    pub fn take_back(&mut self) {
        self.connection.take_back();
    }

    /// Whether it has a connection open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection.is_open()
    }

    /// About how many bytes its connection takes; 0 if none is open.
    #[must_use]
    pub fn size(&self) -> usize {
        self.connection.size()
    }

    /// A writer on another view, in which every page is what it was in this one: what SQLite holds
    /// of it stays true.
    #[must_use]
    pub fn go_on_with(mut self, view: &View) -> Self {
        self.connection.go_on_with(view);
        self
    }

    /// A writer on another view, whose pages may be others. If the schema is the same, the
    /// connection stays open with all that is prepared, for half of a short transaction is to open
    /// one.
    #[must_use]
    pub fn move_to(mut self, view: &View) -> Self {
        self.connection.move_to(view);
        self
    }

    /// Runs `work` as one transaction and gives what its commit wrote. The view stays as it is:
    /// the caller pushes the page set, or [takes it back](Self::take_back).
    pub fn write<T>(
        &mut self,
        work: &mut dyn FnMut(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Run<(T, PageSet)> {
        let result = self.connection.begin().and_then(|connection| transact(connection, work));
        match self.connection.end(result) {
            Run::Done(result) => Run::Done((result, self.take_written())),
            Run::Fault(pgid) => Run::Fault(pgid),
            Run::Failed(failure) => Run::Failed(failure),
        }
    }

    /// Steps of SQLite's virtual machine that all transactions took since this was last called, and
    /// what their allocations count for. Those that failed count too.
    pub fn take_steps(&mut self) -> u64 {
        std::mem::take(&mut lock(self.connection.state()).steps_taken)
    }

    fn take_written(&mut self) -> PageSet {
        let mut state = lock(self.connection.state());
        let set = state.take_written();
        // SQLite lays out page 1 as soon as a transaction begins; without a schema that is nothing.
        let header = set.pages.get(&Pgid(1)).filter(|_| set.pages.len() == 1);
        let is_bare =
            state.is_new_database() && header.is_some_and(|page| schema_cookie(page) == 0);
        drop(state);
        if is_bare {
            self.refresh();
            return PageSet::default();
        }
        set
    }
}

impl SystemQueries for Writer {
    fn is_of_nothing(&self) -> bool {
        lock(self.connection.state()).view.db_pages() == 0
    }

    fn query_system(&mut self, sql: &str, params: &[Value]) -> Run<Vec<Vec<Value>>> {
        self.connection.query_system(sql, params)
    }
}

fn transact<T>(
    connection: &mut Connection,
    work: &mut dyn FnMut(&Transaction<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let command = |connection: &mut Connection, sql| {
        connection.run(Origin::System, sql, &no_values, &mut |_| Ok(()))
    };
    command(connection, "begin immediate")?;
    connection.set_last_insert_rowid(0);
    let transaction = Transaction::new(connection);
    let result = work(&transaction);
    if let Some(failure) = transaction.into_failed() {
        return Err(failure);
    }
    let result = result?;
    command(connection, "commit")?;
    Ok(result)
}
