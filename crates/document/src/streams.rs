//! What an app says of the events of its documents: which there are, and what follows from each.

use serde::{Deserialize, Serialize};

use crate::Param;

/// Parameters that the SQL of an event may mention beside its fields.
pub(crate) const PROJECT_PARAMS: [&str; 6] =
    ["stream", "sequence", "position", "now", "client", "user"];

/// The parameter of what brings data of an older version to the next one.
pub(crate) const UPCAST_PARAM: &str = "data";

/// A kind of aggregate, of which each has a stream of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDefinition {
    /// The aggregate's name.
    pub name: String,
    /// What may happen to it, sorted by name.
    pub events: Vec<EventDefinition>,
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
