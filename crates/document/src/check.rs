//! Whether a doctype can work at all, found out before any document is touched.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_sqlite::{Failure, Reader, Run, Transaction, View, Writer};
use tidelog_sync::codec;
use tidelog_types::limits::{
    DOCTYPE_SIZE_MAX, Limits, MUTATION_PARAMS_MAX, MUTATION_STATEMENTS_MAX,
};
use tidelog_types::{JournalId, Life, Lineage, Position, Value};

use crate::program::{self, Version, columns};
use crate::streams::{
    COMMAND_PARAMS, PROJECT_PARAMS, REASON_PARAM, UPCAST_PARAM, is_reserved, upcast_query,
};
use crate::{
    Authority, CommandDefinition, Doctype, DoctypeHash, EventDefinition, MutationDefinition, Param,
    ParamKind, StreamDefinition, WorkflowDefinition,
};

/// How many doctypes are remembered: as many as the apps of a busy server have at a time.
const FOUND_RIGHT_MAX: usize = 64;

/// The doctypes that were found right, and within which bounds; the newest last. Whether one is
/// depends on nothing else, and every document of an app is of the same: a host has one for all,
/// whose copies are the same.
#[derive(Clone, Debug, Default)]
pub struct FoundRight(Arc<Mutex<VecDeque<(DoctypeHash, Bounds)>>>);

/// Those limits that a statement can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    statement_steps: u64,
    pages: [usize; 4],
}

impl Bounds {
    fn of(limits: &Limits) -> Self {
        let Limits { statement_steps_max, read_set_pages_max, .. } = *limits;
        let Limits { mutation_pages_max, document_pages_max, verdict_pages_max, .. } = *limits;
        let pages = [read_set_pages_max, mutation_pages_max, document_pages_max, verdict_pages_max];
        Self { statement_steps: statement_steps_max, pages }
    }
}

impl FoundRight {
    fn has(&self, it: &(DoctypeHash, Bounds)) -> bool {
        self.lock().contains(it)
    }

    fn note(&self, it: (DoctypeHash, Bounds)) {
        let mut found_right = self.lock();
        found_right.push_back(it);
        if found_right.len() > FOUND_RIGHT_MAX {
            found_right.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(DoctypeHash, Bounds)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a doctype cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoctypeError {
    /// Nothing is known to be wrong with it: this host was too short of memory to find out.
    #[error("doctype {doctype} cannot be checked: {failure}")]
    Unchecked {
        /// The doctype's name.
        doctype: String,
        /// What the host was short of.
        failure: Failure,
    },
    /// More than any server takes, whether one is to have the document yet or not.
    #[error(
        "doctype {doctype} has {size} bytes, and {DOCTYPE_SIZE_MAX} are allowed: bring data in by \
         mutations"
    )]
    TooLarge {
        /// The doctype's name.
        doctype: String,
        /// Its bytes, encoded.
        size: usize,
    },
    /// A migration that does not run on an empty document.
    #[error("migration {number} of doctype {doctype} does not run: {reason}")]
    Migration {
        /// The doctype's name.
        doctype: String,
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An event that cannot be recorded, or whose SQL does not prepare.
    #[error("event {event} of {aggregate}, of doctype {doctype}, cannot be used: {reason}")]
    Event {
        /// The doctype's name.
        doctype: String,
        /// What it happens to.
        aggregate: String,
        /// Which.
        event: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A command whose arguments or SQL cannot be used.
    #[error("command {command} of {aggregate}, of doctype {doctype}, cannot be used: {reason}")]
    Command {
        /// The doctype's name.
        doctype: String,
        /// Whom it is sent to.
        aggregate: String,
        /// Which.
        command: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A workflow that cannot be used.
    #[error("workflow {workflow} of doctype {doctype} cannot be used: {reason}")]
    Workflow {
        /// The doctype's name.
        doctype: String,
        /// Which.
        workflow: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A statement of a mutation that does not prepare, or that two runs would answer otherwise.
    #[error("mutation {mutation} of doctype {doctype} cannot be used: {reason}")]
    Mutation {
        /// The doctype's name.
        doctype: String,
        /// Which.
        mutation: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What is wrong with a doctype, or why that cannot be told.
enum Flaw {
    Known(String),
    Unknown(Failure),
}

impl From<String> for Flaw {
    fn from(reason: String) -> Self {
        Self::Known(reason)
    }
}

impl From<Failure> for Flaw {
    fn from(failure: Failure) -> Self {
        if failure.is_passing() { Self::Unknown(failure) } else { Self::Known(failure.to_string()) }
    }
}

impl Flaw {
    fn of_migration(self, doctype: &Doctype, index: usize) -> DoctypeError {
        let (doctype, number) = (doctype.name.clone(), index + 1);
        match self {
            Self::Known(reason) => DoctypeError::Migration { doctype, number, reason },
            Self::Unknown(failure) => DoctypeError::Unchecked { doctype, failure },
        }
    }

    fn of_event(self, doctype: &Doctype, aggregate: &str, event: &str) -> DoctypeError {
        let doctype = doctype.name.clone();
        match self {
            Self::Known(reason) => {
                let (aggregate, event) = (aggregate.to_owned(), event.to_owned());
                DoctypeError::Event { doctype, aggregate, event, reason }
            }
            Self::Unknown(failure) => DoctypeError::Unchecked { doctype, failure },
        }
    }

    fn of_command(self, doctype: &Doctype, aggregate: &str, command: &str) -> DoctypeError {
        let doctype = doctype.name.clone();
        match self {
            Self::Known(reason) => {
                let (aggregate, command) = (aggregate.to_owned(), command.to_owned());
                DoctypeError::Command { doctype, aggregate, command, reason }
            }
            Self::Unknown(failure) => DoctypeError::Unchecked { doctype, failure },
        }
    }

    fn of_workflow(self, doctype: &Doctype, workflow: &str) -> DoctypeError {
        let (doctype, workflow) = (doctype.name.clone(), workflow.to_owned());
        match self {
            Self::Known(reason) => DoctypeError::Workflow { doctype, workflow, reason },
            Self::Unknown(failure) => DoctypeError::Unchecked { doctype, failure },
        }
    }

    fn of_mutation(self, doctype: &Doctype, mutation: &str) -> DoctypeError {
        let (doctype, mutation) = (doctype.name.clone(), mutation.to_owned());
        match self {
            Self::Known(reason) => DoctypeError::Mutation { doctype, mutation, reason },
            Self::Unknown(failure) => DoctypeError::Unchecked { doctype, failure },
        }
    }
}

/// Runs the migrations on a scratch document and prepares every mutation there. `view` is of no
/// pages: that document, and the stopwatch, if any, within which all this is. One that was found
/// right is not run again.
///
/// # Errors
///
/// [`DoctypeError`] for the first that cannot work, or where this host could not find out.
pub fn check(doctype: &Doctype, view: &View, found_right: &FoundRight) -> Result<(), DoctypeError> {
    let it = (doctype.hash(), Bounds::of(view.limits()));
    if !found_right.has(&it) {
        check_anew(doctype, view)?;
        found_right.note(it);
    }
    Ok(())
}

fn check_anew(doctype: &Doctype, view: &View) -> Result<(), DoctypeError> {
    let size = codec::encode(doctype).len();
    if size > DOCTYPE_SIZE_MAX {
        return Err(DoctypeError::TooLarge { doctype: doctype.name.clone(), size });
    }
    let mut failed = None;
    let mut writer = Writer::new(view);
    let run = writer.write(&mut |transaction| {
        let result = check_in(transaction, doctype);
        failed = result.err();
        // The scratch document is dropped either way.
        Ok(())
    });
    match (failed, run) {
        (Some(error), _) => Err(error),
        (None, Run::Done(_)) => Ok(()),
        (None, Run::Failed(failure)) => {
            Err(Flaw::from(failure).of_migration(doctype, doctype.migrations.len()))
        }
        (None, Run::Fault(_)) => unreachable!("BUG: a scratch document has no absent pages"),
    }
}

/// What the schema of a document is that has seen all migrations of the doctype, as
/// [`Authority::schema`](crate::Authority::schema) gives it. `view` is as for [`check`].
///
/// # Errors
///
/// [`DoctypeError`] if the migrations do not run.
pub fn schema_of(doctype: &Doctype, view: View) -> Result<Vec<Vec<Value>>, DoctypeError> {
    let start = Position::start_of(JournalId([0; 16]));
    let mut scratch = Authority::new(view, start, Lineage::default(), Life::NONE);
    let run = match scratch.migrate(doctype) {
        Run::Done(_) => scratch.schema(),
        Run::Fault(pgid) => Run::Fault(pgid),
        Run::Failed(failure) => Run::Failed(failure),
    };
    match run {
        Run::Done(schema) => Ok(schema),
        Run::Failed(failure) => {
            Err(Flaw::from(failure).of_migration(doctype, doctype.migrations.len()))
        }
        Run::Fault(_) => unreachable!("BUG: a scratch document has no absent pages"),
    }
}

/// Whether what `reader` reads has seen more migrations than this doctype shares with the one that
/// is known, and others than its own, as far as a schema tells. Of more than it has they are others
/// only if they are those of the known one, which parts from it. `scratch` is as for [`check`].
///
/// # Errors
///
/// [`DoctypeError`] if the migrations do not run.
pub(crate) fn is_of_another(
    doctype: &Doctype,
    known: &Doctype,
    reader: &mut Reader,
    scratch: View,
) -> Result<Run<bool>, DoctypeError> {
    let version = match program::version(reader) {
        Run::Done(version) => version.unwrap_or_default(),
        Run::Fault(pgid) => return Ok(Run::Fault(pgid)),
        Run::Failed(failure) => return Ok(Run::Failed(failure)),
    };
    let Version { migrations: version, has_events, has_tasks } = version;
    let both = doctype.migrations.iter().zip(&known.migrations);
    if version <= both.take_while(|(own, known)| own == known).count() {
        return Ok(Run::Done(false));
    }
    let is_begun = |it: &&Doctype| version <= it.migrations.len();
    let mut either = [doctype].into_iter().chain(doctype.parts_from(known).then_some(known));
    let Some(begun) = either.find(is_begun) else { return Ok(Run::Done(false)) };
    let migrations = begun.migrations[..version].to_vec();
    // By whichever release it got them: their tables are the same for all.
    let name = String::new;
    let workflow = WorkflowDefinition { name: name(), version: 1, fields: Vec::new() };
    let workflows = if has_tasks { vec![workflow] } else { Vec::new() };
    let any = StreamDefinition { name: name(), events: Vec::new(), commands: Vec::new() };
    let streams = if has_events { vec![any] } else { Vec::new() };
    let expected =
        schema_of(&Doctype { migrations, streams, workflows, ..begun.clone() }, scratch)?;
    let is_own = begun == doctype;
    Ok(program::schema(reader).map(|schema| (schema == expected) != is_own))
}

fn check_in(transaction: &Transaction<'_>, doctype: &Doctype) -> Result<(), DoctypeError> {
    let migration = |number| move |failure| Flaw::from(failure).of_migration(doctype, number);
    let (has_events, has_tasks) = (doctype.has_events(), doctype.has_tasks());
    program::begin_document(transaction)
        .and_then(|()| if has_events { program::begin_events(transaction) } else { Ok(()) })
        .and_then(|()| if has_tasks { program::begin_tasks(transaction) } else { Ok(()) })
        .map_err(migration(0))?;
    let mut migrating = columns::Migrating::default();
    for (number, sql) in doctype.migrations.iter().enumerate() {
        migrating.run(transaction, number, sql).map_err(migration(number))?;
    }
    let last = migration(doctype.migrations.len().saturating_sub(1));
    program::check_migrated(transaction, has_events, has_tasks)
        .and_then(|()| program::rehearse_verdicts(transaction))
        .and_then(|()| transaction.forget_schema())
        .map_err(last)?;
    // Before the size is looked at, which has SQLite learn the columns of all views, one by one: it
    // goes down further into those that it knows than a connection can that was opened just now.
    for definition in &doctype.mutations {
        check_mutation(transaction, definition)
            .map_err(|flaw| flaw.of_mutation(doctype, &definition.name))?;
    }
    for stream in &doctype.streams {
        for event in &stream.events {
            check_event(transaction, event)
                .map_err(|flaw| flaw.of_event(doctype, &stream.name, &event.name))?;
        }
        for command in &stream.commands {
            check_command(transaction, command)
                .map_err(|flaw| flaw.of_command(doctype, &stream.name, &command.name))?;
        }
    }
    for workflow in &doctype.workflows {
        check_workflow(doctype, workflow)
            .map_err(|flaw| flaw.of_workflow(doctype, &workflow.name))?;
    }
    transaction.check_schema_size().map_err(last)
}

fn check_workflow(doctype: &Doctype, workflow: &WorkflowDefinition) -> Result<(), Flaw> {
    if doctype.streams.iter().any(|stream| stream.name == workflow.name) {
        return Err("an aggregate has the same name".to_owned().into());
    }
    if workflow.version == 0 {
        return Err("its first version is 1".to_owned().into());
    }
    check_fields(&workflow.fields, &[])
}

fn check_event(transaction: &Transaction<'_>, event: &EventDefinition) -> Result<(), Flaw> {
    check_fields(&event.fields, &PROJECT_PARAMS)?;
    check_statements(transaction, &event.project, &event.fields, &PROJECT_PARAMS)?;
    for upcast in &event.upcasts {
        let mentioned = transaction.check_app(&upcast_query(upcast))?;
        if let Some(name) = mentioned.iter().find(|name| *name != UPCAST_PARAM) {
            return Err(format!("an upcast mentions :{name}, and has :{UPCAST_PARAM} alone").into());
        }
    }
    Ok(())
}

fn check_command(transaction: &Transaction<'_>, command: &CommandDefinition) -> Result<(), Flaw> {
    let mut params = COMMAND_PARAMS.to_vec();
    params.push(REASON_PARAM);
    check_fields(&command.fields, &params)?;
    check_statements(transaction, &command.received, &command.fields, &COMMAND_PARAMS)?;
    check_statements(transaction, &command.failed, &command.fields, &params)
}

/// The fields of what is given as JSON, and must not be named like `params`.
fn check_fields(fields: &[Param], params: &[&str]) -> Result<(), Flaw> {
    if fields.len() > MUTATION_PARAMS_MAX {
        return Err(format!("it has more than {MUTATION_PARAMS_MAX} fields").into());
    }
    let is_taken = |field: &&Param| params.contains(&field.name.as_str());
    if let Some(field) = fields.iter().find(is_taken) {
        return Err(format!("a field cannot be named {}", field.name).into());
    }
    if let Some(field) = fields.iter().find(|field| field.kind == ParamKind::Blob) {
        let name = &field.name;
        return Err(format!("field {name} cannot be a blob, which JSON has none of").into());
    }
    Ok(())
}

/// Statements that may mention those fields and `params`.
fn check_statements(
    transaction: &Transaction<'_>,
    statements: &[String],
    fields: &[Param],
    params: &[&str],
) -> Result<(), Flaw> {
    if statements.len() > MUTATION_STATEMENTS_MAX {
        return Err(format!("it has more than {MUTATION_STATEMENTS_MAX} statements").into());
    }
    for sql in statements {
        let mentioned = transaction.check_app(sql)?;
        let is_known =
            |name: &str| params.contains(&name) || fields.iter().any(|field| field.name == name);
        if let Some(name) = mentioned.iter().find(|name| !is_known(name)) {
            return Err(format!("it mentions :{name}, which is no field").into());
        }
    }
    Ok(())
}

fn check_mutation(
    transaction: &Transaction<'_>,
    definition: &MutationDefinition,
) -> Result<(), Flaw> {
    if is_reserved(&definition.name) {
        return Err("names that begin so are those of commands and workflows".to_owned().into());
    }
    if definition.params.len() > MUTATION_PARAMS_MAX {
        return Err(format!("it has more than {MUTATION_PARAMS_MAX} parameters").into());
    }
    if definition.sql.len() > MUTATION_STATEMENTS_MAX {
        return Err(format!("it has more than {MUTATION_STATEMENTS_MAX} statements").into());
    }
    let taken = |name: &str| matches!(name, "now" | "client" | "user");
    if let Some(param) = definition.params.iter().find(|param| taken(&param.name)) {
        return Err(format!("a parameter cannot be named {}", param.name).into());
    }
    for sql in &definition.sql {
        let mentioned = transaction.check_app(sql)?;
        let unknown = mentioned
            .iter()
            .find(|name| !taken(name) && !definition.params.iter().any(|p| p.name == **name));
        if let Some(name) = unknown {
            return Err(format!("it mentions :{name}, which is no parameter").into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_no_flaw_of_a_doctype() {
        let doctype = Doctype { name: "notes".to_owned(), ..Doctype::default() };
        let failure = Failure::Shortage { what: "memory".to_owned() };
        let unchecked =
            DoctypeError::Unchecked { doctype: "notes".to_owned(), failure: failure.clone() };
        assert_eq!(Flaw::from(failure.clone()).of_migration(&doctype, 0), unchecked);
        assert_eq!(Flaw::from(failure).of_mutation(&doctype, "write"), unchecked);
        let budget = Flaw::from(Failure::Budget { what: "9 steps".to_owned() });
        let flawed = budget.of_mutation(&doctype, "write");
        assert!(matches!(flawed, DoctypeError::Mutation { .. }), "{flawed}");
    }
}
