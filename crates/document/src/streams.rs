//! What an app says of the events of its documents: which there are, and what follows from each.

use serde::{Deserialize, Serialize};

use tidelog_types::Value;

use crate::{ArgumentError, MutationDefinition, Param, ParamKind, WorkflowDefinition};

/// Parameters that the SQL of an event may mention beside its fields.
pub(crate) const PROJECT_PARAMS: [&str; 6] =
    ["stream", "sequence", "position", "now", "client", "user"];

/// Parameters that the SQL of a command may mention beside its fields.
pub(crate) const COMMAND_PARAMS: [&str; 5] = ["stream", "key", "now", "client", "user"];

/// What the SQL of one that has failed may mention as well.
pub(crate) const REASON_PARAM: &str = "reason";

/// What the names of mutations begin with that send a command, start a run of a workflow, and
/// cancel one: no app has such.
const SENDING: &str = "send:";
const STARTING: &str = "start:";
const CANCELLING: &str = "cancel:";

/// The parameter of what brings data of an older version to the next one.
pub(crate) const UPCAST_PARAM: &str = "data";

/// A kind of aggregate, of which each has a stream of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDefinition {
    /// The aggregate's name.
    pub name: String,
    /// What may happen to it, sorted by name.
    pub events: Vec<EventDefinition>,
    /// What it may be asked to do, sorted by name.
    pub commands: Vec<CommandDefinition>,
}

/// A type of command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandDefinition {
    /// Its name.
    pub name: String,
    /// What its arguments are.
    pub fields: Vec<Param>,
    /// What follows in the app's tables from its receipt: SQL that runs where it is sent, and then
    /// in the transaction in which the authority receives it.
    pub received: Vec<String>,
    /// What follows in the app's tables once it has failed for good.
    pub failed: Vec<String>,
    /// How often it is tried again.
    pub retries: u32,
    /// Milliseconds that an attempt may take; 0 for as long as it likes.
    pub timeout_ms: u32,
}

/// What a mutation's name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Action<'d> {
    /// The app's own SQL.
    Mutation(&'d MutationDefinition),
    /// A command is sent to one of these aggregates.
    Send(&'d str, &'d CommandDefinition),
    /// A run of it is started.
    Start(&'d WorkflowDefinition),
    /// A run of it is cancelled.
    Cancel(&'d WorkflowDefinition),
}

impl Action<'_> {
    /// The arguments in the order of the parameters, null where an optional one is missing.
    ///
    /// # Errors
    ///
    /// [`ArgumentError`] for the first that does not fit.
    pub fn bind(&self, args: &[(String, Value)]) -> Result<Vec<(String, Value)>, ArgumentError> {
        let params: &[(&str, ParamKind)] = match self {
            Self::Mutation(definition) => return definition.bind(args),
            Self::Send(..) => {
                &[("stream", ParamKind::Text), ("args", ParamKind::Json), ("key", ParamKind::Text)]
            }
            Self::Start(_) => &[("id", ParamKind::Text), ("args", ParamKind::Json)],
            Self::Cancel(_) => &[("id", ParamKind::Text)],
        };
        let param = |(name, kind): &(&str, _)| Param {
            name: (*name).to_owned(),
            kind: *kind,
            optional: false,
        };
        let params = params.iter().map(param).collect();
        MutationDefinition { name: String::new(), params, sql: Vec::new() }.bind(args)
    }
}

/// The name of the mutation that sends this command.
#[must_use]
pub fn sending(aggregate: &str, command: &str) -> String {
    format!("{SENDING}{aggregate}.{command}")
}

/// The name of the mutation that starts a run of this workflow.
#[must_use]
pub fn starting(workflow: &str) -> String {
    format!("{STARTING}{workflow}")
}

/// The name of the mutation that cancels a run of this workflow.
#[must_use]
pub fn cancelling(workflow: &str) -> String {
    format!("{CANCELLING}{workflow}")
}

/// Whether a mutation of that name is none of an app's: it sends a command, say.
#[must_use]
pub fn is_reserved(mutation: &str) -> bool {
    [SENDING, STARTING, CANCELLING].iter().any(|prefix| mutation.starts_with(prefix))
}

/// A type of event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventDefinition {
    /// Its name.
    pub name: String,
    /// What its data have, at its newest version.
    pub fields: Vec<Param>,
    /// Upcast n is a SQL expression of `:data` that makes of what was recorded at version n + 1
    /// what it is at version n + 2. Append only.
    pub upcasts: Vec<String>,
    /// What follows from it in the app's tables: SQL that runs in the transaction in which it is
    /// recorded.
    pub project: Vec<String>,
}

impl StreamDefinition {
    /// The command of that name.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&CommandDefinition> {
        self.commands.iter().find(|command| command.name == name)
    }

    /// The event of that name.
    #[must_use]
    pub fn event(&self, name: &str) -> Option<&EventDefinition> {
        self.events.iter().find(|event| event.name == name)
    }
}

impl EventDefinition {
    /// The version at which it is recorded, from 1.
    #[must_use]
    pub fn version(&self) -> u32 {
        u32::try_from(self.upcasts.len()).unwrap_or(u32::MAX).saturating_add(1)
    }
}

/// The query that brings data of an older version to the next one: as the text of JSON, and what
/// that is, `null` for no data at all.
pub(crate) fn upcast_query(upcast: &str) -> String {
    // Evaluated once, whatever is asked of it. No table of an app is called so. It may do without
    // the data of before, and end with a comment.
    format!(
        "with tidelog_upcast (data, before) as materialized (select ({upcast}
         ), :{UPCAST_PARAM})
         select json(data), coalesce(json_type(data), 'null') from tidelog_upcast"
    )
}

/// The first event of the `used` streams that these lack, or have at an older version: the name of
/// its aggregate, and its own. Documents with such events are for nobody who knows these alone.
pub(crate) fn lacking<'s>(
    streams: &[StreamDefinition],
    used: &'s [StreamDefinition],
) -> Option<(&'s str, &'s str)> {
    used.iter().find_map(|used| {
        let own = streams.iter().find(|own| own.name == used.name);
        let keeps = |event: &&EventDefinition| {
            let own = own.and_then(|own| own.event(&event.name));
            own.is_some_and(|own| own.upcasts.starts_with(&event.upcasts))
        };
        let event = used.events.iter().find(|event| !keeps(event))?;
        Some((used.name.as_str(), event.name.as_str()))
    })
}
