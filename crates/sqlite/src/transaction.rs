//! What the work of one transaction can do.

use std::cell::RefCell;
use std::collections::BTreeSet;

use tidelog_types::Value;
use tidelog_types::limits::{Limits, MUTATION_STATEMENTS_MAX};

use crate::connection::Connection;
use crate::event::InsertedEvent;
use crate::failure::Failure;
use crate::scan;
use crate::schema_size;
use crate::state::Origin;
use crate::statement::{Statement, Stepping, to_value};

/// What a statement has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrittenRows {
    /// How many rows, without those of its triggers.
    pub count: u64,
    /// The number of the last row that was inserted, if one was.
    pub rowid: i64,
}

/// A running transaction of a [`Writer`](crate::Writer).
///
/// It is all or nothing: once one of its statements has failed, the transaction fails with it,
/// whatever its work answers.
#[derive(Debug)]
pub struct Transaction<'c> {
    connection: RefCell<&'c mut Connection>,
    failed: RefCell<Option<Failure>>,
}

impl<'c> Transaction<'c> {
    pub(crate) fn new(connection: &'c mut Connection) -> Self {
        Self { connection: RefCell::new(connection), failed: RefCell::new(None) }
    }

    /// The first failure of a statement, if one failed.
    pub(crate) fn into_failed(self) -> Option<Failure> {
        self.failed.into_inner()
    }

    /// What bounds the view that it runs on.
    pub fn limits(&self) -> Limits {
        self.connection.borrow().limits()
    }

    /// The transaction may read and change as many pages as one with statements of an app, and
    /// makes no use of those that are for verdicts: what it writes is as large as somebody likes.
    pub fn bound_as_apps(&self) {
        self.connection.borrow().bound_as_apps();
    }

    /// Runs the statements of a mutation. What they select is dropped.
    ///
    /// Each statement gets those of `args`, by name without prefix, that it mentions. None may
    /// insert events.
    ///
    /// # Errors
    ///
    /// Any [`Failure`]; the transaction is lost.
    pub fn run_app(&self, sql: &str, args: &[(&str, &Value)]) -> Result<(), Failure> {
        let arrange = |names: &[Option<String>]| {
            names.iter().map(|name| argument(name.as_deref(), args)).collect()
        };
        let run = |connection: &mut Connection| {
            connection.run(Origin::App, sql, &arrange, &mut |_| Ok(()))
        };
        self.run(run)
    }

    /// Runs the statements of a mutation, as [`run_app`](Self::run_app) does, and gives the rows
    /// that they select.
    ///
    /// # Errors
    ///
    /// Any [`Failure`]; the transaction is lost.
    pub fn query_app(
        &self,
        sql: &str,
        args: &[(&str, &Value)],
    ) -> Result<Vec<Vec<Value>>, Failure> {
        let mut rows = Vec::new();
        let arrange = |names: &[Option<String>]| {
            names.iter().map(|name| argument(name.as_deref(), args)).collect()
        };
        let mut row = |row: &Stepping<'_>| {
            rows.push(row.row().map(to_value).collect());
            Ok(())
        };
        self.run(|connection| connection.run(Origin::App, sql, &arrange, &mut row))?;
        Ok(rows)
    }

    /// Runs the statements of a mutation, as [`run_app`](Self::run_app) does, and has `record` take
    /// the events that one has inserted before the next one runs.
    ///
    /// # Errors
    ///
    /// Any [`Failure`]; the transaction is lost.
    pub fn run_app_with_events(
        &self,
        sql: &str,
        args: &[(&str, &Value)],
        record: &mut dyn FnMut(InsertedEvent) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let arrange = |names: &[Option<String>]| {
            names.iter().map(|name| argument(name.as_deref(), args)).collect()
        };
        let mut next = Some(0);
        while let Some(index) = next {
            let mut inserted = Vec::new();
            self.run(|connection| {
                next = connection.run_part(Origin::App, sql, index, &arrange, &mut |_| Ok(()))?;
                inserted = connection.take_inserted();
                Ok(())
            })?;
            for event in inserted {
                self.as_in_a_trigger(|| record(event))?;
            }
        }
        Ok(())
    }

    /// The app's next statement sees nothing of what is changed by `work`: like SQLite, it takes a
    /// row inserted into a view for no change, and what a trigger inserts for none of its own.
    fn as_in_a_trigger(&self, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let rowid = self.connection.borrow().last_insert_rowid();
        self.connection.borrow().forget_changes();
        work()?;
        self.connection.borrow().set_last_insert_rowid(rowid);
        self.connection.borrow().forget_changes();
        Ok(())
    }

    /// Runs the statements of a migration: as for a mutation, but they may change the schema.
    ///
    /// # Errors
    ///
    /// Any [`Failure`]; the transaction is lost.
    pub fn run_migration(&self, sql: &str) -> Result<(), Failure> {
        let arrange = |names: &[Option<String>]| {
            names.iter().map(|name| argument(name.as_deref(), &[])).collect()
        };
        let run = |connection: &mut Connection| {
            scan::check(sql)?;
            connection.run(Origin::Migration, sql, &arrange, &mut |_| Ok(()))
        };
        self.run(run)
    }

    /// Runs a statement of ours, which may do anything, and gives its rows. `params` by place.
    ///
    /// # Errors
    ///
    /// Any [`Failure`]; the transaction is lost.
    pub fn run_system(&self, sql: &str, params: &[Value]) -> Result<Vec<Vec<Value>>, Failure> {
        let mut rows = Vec::new();
        self.run_ours(sql, params, &mut rows)?;
        Ok(rows)
    }

    /// Runs a statement of ours that writes, and tells what. To have it `returning` that costs more
    /// than to write a row: SQLite makes a table for what is returned.
    ///
    /// # Errors
    ///
    /// Any [`Failure`]; the transaction is lost.
    pub fn write_system(&self, sql: &str, params: &[Value]) -> Result<WrittenRows, Failure> {
        self.run_ours(sql, params, &mut Vec::new())
    }

    fn run_ours(
        &self,
        sql: &str,
        params: &[Value],
        rows: &mut Vec<Vec<Value>>,
    ) -> Result<WrittenRows, Failure> {
        let mut written = WrittenRows::default();
        let arrange = |_: &[Option<String>]| Ok(params.iter().collect());
        let mut row = |row: &Stepping<'_>| {
            rows.push(row.row().map(to_value).collect());
            Ok(())
        };
        let run = |connection: &mut Connection| {
            // The app's statements must not see what ours inserted.
            let rowid = connection.last_insert_rowid();
            let result = connection.run(Origin::System, sql, &arrange, &mut row);
            let (count, last_rowid) = (connection.changes(), connection.last_insert_rowid());
            written = WrittenRows { count, rowid: last_rowid };
            connection.set_last_insert_rowid(rowid);
            result
        };
        self.run(run)?;
        Ok(written)
    }

    /// SQLite reads the schema anew, as a connection does that is opened: it no longer knows what
    /// it has learnt of views. What follows has a budget of its own.
    ///
    /// # Errors
    ///
    /// Any [`Failure`]; the transaction is lost.
    pub fn forget_schema(&self) -> Result<(), Failure> {
        self.run_system("pragma writable_schema = reset", &[])?;
        // It is read as ours, with no budget.
        self.run_system("select 1 from sqlite_schema limit 1", &[])?;
        self.connection.borrow().start_budget();
        Ok(())
    }

    /// Prepares the statements of a mutation without running them; gives the names of their
    /// parameters, without prefix, each once.
    ///
    /// # Errors
    ///
    /// What can be seen to fail without running: syntax, unknown tables and functions, what is not
    /// allowed or not deterministic, too many statements. Unless that is a fault, the transaction
    /// goes on.
    pub fn check_app(&self, sql: &str) -> Result<Vec<String>, Failure> {
        let mut connection = self.connection.borrow_mut();
        let (mut names, mut count) = (BTreeSet::new(), 0);
        let mut look = |statement: &Statement| {
            count += 1;
            if count > MUTATION_STATEMENTS_MAX {
                let what = format!("more than {MUTATION_STATEMENTS_MAX} statements");
                return Err(Failure::sql(what));
            }
            for name in statement.names() {
                names.insert(named(name.as_deref())?.to_owned());
            }
            Ok(())
        };
        let prepared =
            scan::check(sql).and_then(|()| connection.prepare_each(Origin::App, sql, &mut look));
        if let Err(failure) = prepared {
            connection.forgive();
            return Err(failure);
        }
        Ok(names.into_iter().collect())
    }

    /// Fails if the schema, as it is by now, would take more of each connection than it may.
    ///
    /// What SQLite really takes is not the same on every host. So this adds up what is: the bytes
    /// of the SQL that made the schema and what that is made of, and the columns of its tables and
    /// indexes, and of its views, whose columns SQLite learns when they are used. It comes to more
    /// than SQLite takes: to ten times that for tables alone, to little more for long expressions.
    ///
    /// # Errors
    ///
    /// [`Failure::Budget`] if it is over [`SCHEMA_SIZE_MAX`], or takes too long to be looked at.
    /// The transaction goes on unless that is passing.
    ///
    /// [`SCHEMA_SIZE_MAX`]: tidelog_types::limits::SCHEMA_SIZE_MAX
    pub fn check_schema_size(&self) -> Result<(), Failure> {
        let mut connection = self.connection.borrow_mut();
        connection.start_budget();
        let checked = schema_size::check(&mut connection);
        connection.start_budget();
        if checked.is_err() {
            connection.forgive();
        }
        checked
    }

    fn run(&self, run: impl FnOnce(&mut Connection) -> Result<(), Failure>) -> Result<(), Failure> {
        if let Some(failure) = &*self.failed.borrow() {
            return Err(failure.clone());
        }
        let mut connection = self.connection.borrow_mut();
        let mut result = run(&mut connection);
        // `insert or rollback` and `raise(rollback)` end the transaction behind our back.
        if result.is_ok() && !connection.in_transaction() {
            result = Err(Failure::sql("the transaction was rolled back"));
        }
        *self.failed.borrow_mut() = result.clone().err();
        result
    }
}

fn argument<'v>(name: Option<&str>, args: &[(&str, &'v Value)]) -> Result<&'v Value, Failure> {
    let known = named(name)?;
    let found = args.iter().find(|(given, _)| *given == known);
    found.map(|(_, value)| *value).ok_or_else(|| Failure::sql(format!("no value for :{known}")))
}

/// The name of a parameter without its prefix.
fn named(name: Option<&str>) -> Result<&str, Failure> {
    let name = name.map(|name| &name[1..]);
    name.ok_or_else(|| Failure::sql("a parameter without a name: arguments are passed by name"))
}
