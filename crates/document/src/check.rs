//! Whether a doctype can work at all, found out before any document is touched.

use tidelog_sqlite::{Failure, Run, Transaction, View, Writer};
use tidelog_types::limits::{MUTATION_PARAMS_MAX, MUTATION_STATEMENTS_MAX};
use tidelog_types::{JournalId, Life, Lineage, Position, Value};

use crate::program;
use crate::{Authority, Doctype, MutationDefinition};

/// Why a doctype cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoctypeError {
    /// A migration that does not run on an empty document.
    #[error("migration {number} of doctype {doctype} does not run: {reason}")]
    Migration {
        /// The doctype's name.
        doctype: String,
        /// Which, from 0.
        number: usize,
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

/// Runs the migrations on an empty scratch document and prepares every mutation there.
///
/// # Errors
///
/// [`DoctypeError`] for the first that cannot work.
pub fn check(doctype: &Doctype) -> Result<(), DoctypeError> {
    let mut failed = None;
    let mut writer = Writer::new(&View::new(usize::MAX, 0));
    let run = writer.write(&mut |transaction| {
        let result = check_in(transaction, doctype);
        failed = result.err();
        // The scratch document is dropped either way.
        Ok(())
    });
    match (failed, run) {
        (Some(error), _) => Err(error),
        (None, Run::Done(_)) => Ok(()),
        (None, Run::Failed(failure)) => Err(DoctypeError::Migration {
            doctype: doctype.name.clone(),
            number: doctype.migrations.len(),
            reason: failure.to_string(),
        }),
        (None, Run::Fault(_)) => unreachable!("BUG: a scratch document has no absent pages"),
    }
}

/// What the schema of a document is that has seen all migrations of the doctype, as
/// [`Authority::schema`](crate::Authority::schema) gives it.
///
/// # Errors
///
/// [`DoctypeError`] if the migrations do not run.
pub fn schema_of(doctype: &Doctype) -> Result<Vec<Vec<Value>>, DoctypeError> {
    let start = Position::start_of(JournalId([0; 16]));
    let view = View::new(usize::MAX, 0);
    let mut scratch = Authority::new(view, start, Lineage::default(), Life::NONE);
    let run = match scratch.migrate(doctype) {
        Run::Done(_) => scratch.schema(),
        Run::Fault(pgid) => Run::Fault(pgid),
        Run::Failed(failure) => Run::Failed(failure),
    };
    match run {
        Run::Done(schema) => Ok(schema),
        Run::Failed(failure) => Err(DoctypeError::Migration {
            doctype: doctype.name.clone(),
            number: doctype.migrations.len(),
            reason: failure.to_string(),
        }),
        Run::Fault(_) => unreachable!("BUG: a scratch document has no absent pages"),
    }
}

fn check_in(transaction: &Transaction<'_>, doctype: &Doctype) -> Result<(), DoctypeError> {
    let migration = |number: usize, failure: &Failure| DoctypeError::Migration {
        doctype: doctype.name.clone(),
        number,
        reason: failure.to_string(),
    };
    program::begin_document(transaction).map_err(|failure| migration(0, &failure))?;
    for (number, sql) in doctype.migrations.iter().enumerate() {
        transaction.run_migration(sql).map_err(|failure| migration(number, &failure))?;
    }
    for definition in &doctype.mutations {
        check_mutation(transaction, definition).map_err(|reason| DoctypeError::Mutation {
            doctype: doctype.name.clone(),
            mutation: definition.name.clone(),
            reason,
        })?;
    }
    Ok(())
}

fn check_mutation(
    transaction: &Transaction<'_>,
    definition: &MutationDefinition,
) -> Result<(), String> {
    if definition.params.len() > MUTATION_PARAMS_MAX {
        return Err(format!("it has more than {MUTATION_PARAMS_MAX} parameters"));
    }
    if definition.sql.len() > MUTATION_STATEMENTS_MAX {
        return Err(format!("it has more than {MUTATION_STATEMENTS_MAX} statements"));
    }
    let taken = |name: &str| name == "now" || name == "client";
    if let Some(param) = definition.params.iter().find(|param| taken(&param.name)) {
        return Err(format!("a parameter cannot be named {}", param.name));
    }
    for sql in &definition.sql {
        let mentioned = transaction.check_app(sql).map_err(|failure| failure.to_string())?;
        let unknown = mentioned
            .iter()
            .find(|name| !taken(name) && !definition.params.iter().any(|p| p.name == **name));
        if let Some(name) = unknown {
            return Err(format!("it mentions :{name}, which is no parameter"));
        }
    }
    Ok(())
}
