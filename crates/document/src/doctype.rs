//! What an app says of a kind of document.

use std::fmt;

use serde::{Deserialize, Serialize};
use tidelog_sync::codec;
use tidelog_types::Value;

use crate::streams::{self, Action, CommandDefinition, EventDefinition, StreamDefinition};
use crate::workflows::WorkflowDefinition;

/// Characters that are quoted of a line of a migration.
const QUOTED_CHARS: usize = 80;

/// An app's definition of a kind of document: migrations, mutations, events, commands and
/// workflows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctype {
    /// The kind's name.
    pub name: String,
    /// Migration n brings a document from version n to n + 1. Append only.
    pub migrations: Vec<String>,
    /// The mutations, sorted by name.
    pub mutations: Vec<MutationDefinition>,
    /// The events and commands of its aggregates, sorted by name.
    pub streams: Vec<StreamDefinition>,
    /// The workflows, sorted by name.
    pub workflows: Vec<WorkflowDefinition>,
}

/// A named, deterministic change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MutationDefinition {
    /// Its name.
    pub name: String,
    /// Its parameters.
    pub params: Vec<Param>,
    /// Its statements, one transaction.
    pub sql: Vec<String>,
}

/// A parameter of a mutation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// Its name, without the colon.
    pub name: String,
    /// What may be given for it.
    pub kind: ParamKind,
    /// Whether it may be left out, which is null.
    pub optional: bool,
}

/// Types of arguments. The order is part of what a doctype's hash covers: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParamKind {
    /// UTF-8 text.
    Text,
    /// A 64-bit integer.
    Integer,
    /// A 64-bit float; an integer is taken as one.
    Real,
    /// Bytes.
    Blob,
    /// 0 or 1.
    Boolean,
    /// JSON, as text.
    Json,
    /// A UUID, as text in lower case. Whoever issues the mutation draws one that is left out.
    Uuid,
}

/// The hash of a doctype's encoding: its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DoctypeHash(pub [u8; 32]);

impl fmt::Display for DoctypeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DoctypeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DoctypeHash({self})")
    }
}

/// Why arguments do not fit a mutation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// A parameter without an argument, and not optional.
    #[error("argument {name} is missing")]
    Missing {
        /// The parameter.
        name: String,
    },
    /// An argument for no parameter.
    #[error("there is no parameter {name}")]
    Unknown {
        /// The argument.
        name: String,
    },
    /// A second argument for a parameter.
    #[error("argument {name} is given twice")]
    Repeated {
        /// The parameter.
        name: String,
    },
    /// An argument of another type.
    #[error("argument {name} is not of type {kind:?}")]
    Type {
        /// The parameter.
        name: String,
        /// What it takes.
        kind: ParamKind,
    },
}

impl Doctype {
    /// Its identity.
    #[must_use]
    pub fn hash(&self) -> DoctypeHash {
        DoctypeHash(*blake3::hash(&codec::encode(self)).as_bytes())
    }

    /// Whether documents of `older` can be used by this doctype: the same name, the older one's
    /// migrations a prefix of its own, and all of its events, at those versions or later ones.
    /// Every doctype succeeds itself.
    #[must_use]
    pub fn succeeds(&self, older: &Self) -> bool {
        self.name == older.name
            && self.migrations.starts_with(&older.migrations)
            && streams::lacking(&self.streams, &older.streams).is_none()
    }

    /// Whether no document can be used by both: neither succeeds the other.
    #[must_use]
    pub fn parts_from(&self, other: &Self) -> bool {
        !self.succeeds(other) && !other.succeeds(self)
    }

    /// How this doctype parts from one that a document was used by, in words for whoever wrote it;
    /// `None` if one of them succeeds the other.
    #[must_use]
    pub fn parting_from(&self, used: &Self) -> Option<String> {
        if self.name != used.name {
            return Some(format!(
                "it is of doctype {}, and not of {}: open another document, or destroy this one, \
                 and delete it on its server",
                used.name, self.name
            ));
        }
        let name = &self.name;
        let mut migrations = used.migrations.iter().zip(&self.migrations);
        let Some(place) = migrations.position(|(used, own)| used != own) else {
            if !self.parts_from(used) {
                return None;
            }
            return Some(match streams::lacking(&self.streams, &used.streams) {
                Some((aggregate, event)) => format!(
                    "{name} lacks event {event} of {aggregate} as it may have been recorded: an \
                     event stays, and its upcasts; put what is new into another upcast behind \
                     them, or into an event of another name"
                ),
                None => format!(
                    "{name} has events that the one in use lacks, and lacks migration {} of that: \
                     keep what has run, and put what is new behind it",
                    self.migrations.len() + 1
                ),
            });
        };
        let how = differing_lines(&used.migrations[place], &self.migrations[place]);
        Some(format!(
            "migration {} of {name} {how}: one that has run stays as it is; put what is new into \
             another one behind it, or begin anew: destroy the document, and delete it on its \
             server, as open() does while you develop, with dev: {{ onMigrationEdited: 'reset' }}",
            place + 1
        ))
    }

    /// The event of that name, of that aggregate.
    #[must_use]
    pub fn event(&self, aggregate: &str, name: &str) -> Option<&EventDefinition> {
        self.streams.iter().find(|stream| stream.name == aggregate)?.event(name)
    }

    /// The command of that name, of that aggregate.
    #[must_use]
    pub fn command(&self, aggregate: &str, name: &str) -> Option<&CommandDefinition> {
        self.streams.iter().find(|stream| stream.name == aggregate)?.command(name)
    }

    /// The workflow of that name.
    #[must_use]
    pub fn workflow(&self, name: &str) -> Option<&WorkflowDefinition> {
        self.workflows.iter().find(|workflow| workflow.name == name)
    }

    /// Whether there may be tasks: any of its aggregates has commands, or it has workflows.
    #[must_use]
    pub fn has_tasks(&self) -> bool {
        !self.workflows.is_empty() || self.streams.iter().any(|it| !it.commands.is_empty())
    }

    /// Whether there may be events: it has streams, or tasks, whose tables go with theirs.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.streams.is_empty() || self.has_tasks()
    }

    /// What a mutation of that name does: one of the app's own, or one that sends a command,
    /// starts a run of a workflow or cancels one.
    #[must_use]
    pub fn action(&self, name: &str) -> Option<Action<'_>> {
        if !streams::is_reserved(name) {
            return self.mutation(name).map(Action::Mutation);
        }
        let of_workflow = self.workflows.iter().find_map(|workflow| {
            let is_start = streams::starting(&workflow.name) == name;
            let is_cancel = streams::cancelling(&workflow.name) == name;
            is_start
                .then_some(Action::Start(workflow))
                .or_else(|| is_cancel.then_some(Action::Cancel(workflow)))
        });
        of_workflow.or_else(|| {
            self.streams.iter().find_map(|stream| {
                let is_it =
                    |it: &&CommandDefinition| streams::sending(&stream.name, &it.name) == name;
                let command = stream.commands.iter().find(is_it)?;
                Some(Action::Send(&stream.name, command))
            })
        })
    }

    /// The mutation of that name.
    #[must_use]
    pub fn mutation(&self, name: &str) -> Option<&MutationDefinition> {
        self.mutations.iter().find(|definition| definition.name == name)
    }
}

/// Says in which lines two texts differ first, and quotes them from about there on.
fn differing_lines(used: &str, own: &str) -> String {
    let lines = |text: &'_ str| -> Vec<String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(str::to_owned).collect()
    };
    let (used, own) = (lines(used), lines(own));
    let same = used.iter().zip(&own).take_while(|(used, own)| used == own).count();
    let (used, own) = (used.get(same), own.get(same));
    let (Some(one), other) = (own.or(used), own.and(used)) else {
        return "differs in white space from the one that has run".to_owned();
    };
    let other = other.map_or("", String::as_str);
    let same = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let quote = |line: Option<&String>| match line {
        Some(line) => {
            let from = same.saturating_sub(QUOTED_CHARS / 2);
            let quoted: String = line.chars().skip(from).take(QUOTED_CHARS).collect();
            format!("`{quoted}`")
        }
        None => "nothing".to_owned(),
    };
    format!("has {} where the one that has run has {}", quote(own), quote(used))
}

impl MutationDefinition {
    /// The arguments in the order of the parameters, null where an optional one is missing.
    ///
    /// # Errors
    ///
    /// [`ArgumentError`] for the first that does not fit.
    pub fn bind(&self, args: &[(String, Value)]) -> Result<Vec<(String, Value)>, ArgumentError> {
        // No more are looked at than there are parameters, and one.
        let mut given: Vec<Option<&Value>> = vec![None; self.params.len()];
        for (name, value) in args {
            let place = self.params.iter().position(|param| param.name == *name);
            match place.map(|place| given[place].replace(value)) {
                Some(None) => {}
                None => return Err(ArgumentError::Unknown { name: name.clone() }),
                Some(Some(_)) => return Err(ArgumentError::Repeated { name: name.clone() }),
            }
        }
        let bound = self.params.iter().zip(given);
        bound.map(|(param, given)| Ok((param.name.clone(), param.bind(given)?))).collect()
    }
}

impl Param {
    pub(crate) fn bind(&self, given: Option<&Value>) -> Result<Value, ArgumentError> {
        let missing = || ArgumentError::Missing { name: self.name.clone() };
        match (given, self.kind) {
            (None | Some(Value::Null), _) if self.optional => Ok(Value::Null),
            (None | Some(Value::Null), _) => Err(missing()),
            (Some(Value::Integer(number)), ParamKind::Real) => Ok(Value::Real(*number as f64)),
            (Some(value @ Value::Text(_)), ParamKind::Text | ParamKind::Json)
            | (Some(value @ Value::Integer(_)), ParamKind::Integer)
            | (Some(value @ Value::Integer(0 | 1)), ParamKind::Boolean)
            | (Some(value @ Value::Real(_)), ParamKind::Real)
            | (Some(value @ Value::Blob(_)), ParamKind::Blob) => Ok(value.clone()),
            (Some(value @ Value::Text(text)), ParamKind::Uuid) if is_uuid(text) => {
                Ok(value.clone())
            }
            (Some(_), kind) => Err(ArgumentError::Type { name: self.name.clone(), kind }),
        }
    }
}

/// Whether this is a UUID as RFC 9562 writes it.
fn is_uuid(text: &str) -> bool {
    let is_right = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    };
    text.len() == 36 && text.bytes().enumerate().all(is_right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doctype(migrations: &[&str]) -> Doctype {
        Doctype {
            name: "todos".to_owned(),
            migrations: migrations.iter().map(ToString::to_string).collect(),
            mutations: vec![MutationDefinition {
                name: "add".to_owned(),
                params: vec![
                    Param { name: "id".to_owned(), kind: ParamKind::Text, optional: false },
                    Param { name: "weight".to_owned(), kind: ParamKind::Real, optional: true },
                ],
                sql: vec!["insert into todo values (:id, :weight)".to_owned()],
            }],
            streams: Vec::new(),
            workflows: Vec::new(),
        }
    }

    #[test]
    fn of_two_doctypes_that_part_the_first_difference_is_told() {
        let [one, two] = ["create table a (x)", "create table b (\n  y integer\n)"];
        let used = doctype(&[one, two]);
        let said = |migrations: &[&str]| doctype(migrations).parting_from(&used);
        assert_eq!(said(&[one]), None);
        assert_eq!(said(&[one, two, "create table c (z)"]), None);
        let start = "migration 2 of todos ";
        let said_of = |own: &str| {
            let why = said(&[one, own]).expect("they part");
            let (how, _) = why.split_once(": one that has run").expect("and what to do");
            how.strip_prefix(start).expect("which").to_owned()
        };
        let has =
            |own: &str, used: &str| format!("has {own} where the one that has run has {used}");
        assert_eq!(said_of("create table b (\n  y text\n)"), has("`y text`", "`y integer`"));
        assert_eq!(said_of("create table b ("), has("nothing", "`y integer`"));
        assert_eq!(said_of(&format!("{two};\nselect 1")), has("`);`", "`)`"));
        let spaced = two.replace('\n', "\n\n ");
        assert_eq!(said_of(&spaced), "differs in white space from the one that has run");
        let long = format!("{}é", "x".repeat(200));
        assert_eq!(said_of(&long).chars().filter(|it| *it == 'x').count(), 80);
        let other = Doctype { name: "notes".to_owned(), ..used.clone() };
        let why = other.parting_from(&used).expect("another name");
        assert!(why.starts_with("it is of doctype todos, and not of notes: open another"), "{why}");
    }

    /// A doctype with one stream, whose one event is at a version.
    fn with_event(event: &str, upcasts: &[&str]) -> Doctype {
        let event = EventDefinition {
            name: event.to_owned(),
            fields: Vec::new(),
            upcasts: upcasts.iter().map(ToString::to_string).collect(),
            project: Vec::new(),
        };
        let stream = StreamDefinition {
            name: "order".to_owned(),
            events: vec![event],
            commands: Vec::new(),
        };
        Doctype { streams: vec![stream], ..doctype(&["a"]) }
    }

    #[test]
    fn whoever_succeeds_a_doctype_keeps_its_events_and_their_versions() {
        let (none, first) = (doctype(&["a"]), with_event("placed", &[]));
        let second = with_event("placed", &["json_set(:data, '$.gift', 0)"]);
        assert!(first.succeeds(&none) && second.succeeds(&first) && second.succeeds(&none));
        assert!(!none.succeeds(&first) && !first.succeeds(&second));
        let other = with_event("placed", &["json_set(:data, '$.gift', 1)"]);
        let renamed = with_event("sent", &[]);
        for parted in [&other, &renamed] {
            let why = parted.parting_from(&second).expect("they part");
            assert!(why.starts_with("todos lacks event placed of order as it"), "{why}");
        }
        let ahead = doctype(&["a", "b"]);
        let why = first.parting_from(&ahead).expect("they part");
        assert!(why.contains("lacks migration 2 of that"), "{why}");
        assert_eq!(none.parting_from(&second), None, "older, and no other one");
    }

    #[test]
    fn a_doctype_with_more_migrations_succeeds_the_older_one() {
        let (old, new) = (doctype(&["a"]), doctype(&["a", "b"]));
        assert!(new.succeeds(&old) && new.succeeds(&new));
        assert!(!old.succeeds(&new));
        assert!(!doctype(&["b", "a"]).succeeds(&old));
        assert_ne!(old.hash(), new.hash());
    }

    #[test]
    fn arguments_are_checked_against_the_parameters() {
        let doctype = doctype(&[]);
        let add = doctype.mutation("add").expect("defined");
        let text = |text: &str| Value::Text(text.to_owned());
        let arg = |name: &str, value| (name.to_owned(), value);
        assert_eq!(
            add.bind(&[arg("id", text("x")), arg("weight", Value::Integer(2))]),
            Ok(vec![arg("id", text("x")), arg("weight", Value::Real(2.0))])
        );
        assert_eq!(
            add.bind(&[arg("id", text("x"))]).map(|args| args[1].1.clone()),
            Ok(Value::Null)
        );
        assert!(matches!(add.bind(&[]), Err(ArgumentError::Missing { .. })));
        let wrong = add.bind(&[arg("id", Value::Integer(1))]);
        assert!(matches!(wrong, Err(ArgumentError::Type { .. })));
        let unknown = add.bind(&[arg("id", text("x")), arg("nope", Value::Null)]);
        assert!(matches!(unknown, Err(ArgumentError::Unknown { .. })));
        let twice = add.bind(&[arg("id", text("x")), arg("id", text("y"))]);
        assert!(matches!(twice, Err(ArgumentError::Repeated { .. })));
    }

    #[test]
    fn arguments_beyond_the_parameters_are_not_looked_at() {
        let param =
            |n: usize| Param { name: format!("{n:04}"), kind: ParamKind::Integer, optional: true };
        let definition = MutationDefinition {
            name: "wide".to_owned(),
            params: (0..1000).map(param).collect(),
            sql: Vec::new(),
        };
        let args = vec![("0999".to_owned(), Value::Null); 1_000_000];
        let bound = definition.bind(&args);
        assert_eq!(bound, Err(ArgumentError::Repeated { name: "0999".to_owned() }));
    }

    #[test]
    fn a_uuid_is_taken_as_its_rfc_writes_it() {
        let param = Param { name: "id".to_owned(), kind: ParamKind::Uuid, optional: false };
        let bind = |text: &str| param.bind(Some(&Value::Text(text.to_owned())));
        assert!(bind("0194f3c2-8a6e-7c1d-9b2f-3e4d5c6b7a80").is_ok());
        for wrong in [
            "",
            "0194f3c2-8a6e-7c1d-9b2f-3e4d5c6b7a8",
            "0194F3C2-8a6e-7c1d-9b2f-3e4d5c6b7a80",
            "0194f3c2-8a6e-7c1d-9b2f-3e4d5c6b7a8g",
            "0194f3c28a6e-7c1d-9b2f-3e4d5c6b-7a80",
        ] {
            assert!(matches!(bind(wrong), Err(ArgumentError::Type { .. })), "{wrong}");
        }
        assert!(matches!(param.bind(None), Err(ArgumentError::Missing { .. })));
    }
}
