//! A doctype as `JSON.stringify` writes what the TypeScript function `doctype` returns:
//!
//! ```json
//! { "name": "todos",
//!   "migrations": ["create table todo (id text primary key) strict"],
//!   "mutations": { "add": { "params": { "id": "uuid", "at": "integer?" }, "sql": ["..."] } },
//!   "streams": { "order": {
//!     "events": { "placed": {
//!       "fields": { "items": "json" }, "upcast": ["..."], "project": ["..."] } },
//!     "commands": { "place": {
//!       "fields": { "items": "json" }, "received": ["..."], "failed": ["..."],
//!       "retries": 5, "timeout": 30000 } } } },
//!   "workflows": { "fulfil": { "version": 1, "fields": { "order": "text" } } } }
//! ```
//!
//! Where there are no streams or workflows they may be left out, and so may the commands of a
//! stream. Its hash is over the encoding that clients send: mutations, streams, events, commands
//! and workflows sorted by name, as JavaScript sorts, and parameters and fields in their order. So
//! no name may stand twice, and nothing else may stand there.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use crate::{
    CommandDefinition, Doctype, EventDefinition, MutationDefinition, Param, ParamKind,
    StreamDefinition, WorkflowDefinition,
};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The doctype that the JSON says.
///
/// # Errors
///
/// Why it says none.
pub fn parse(json: &[u8]) -> Result<Doctype, serde_json::Error> {
    let Definition { name, migrations, mutations, streams, workflows } =
        serde_json::from_slice(json)?;
    let mutations = sorted(mutations.0, definition, |it| &it.name);
    let streams = sorted(streams.0, stream, |it| &it.name);
    let workflows = sorted(workflows.0, workflow, |it| &it.name);
    Ok(Doctype { name, migrations, mutations, streams, workflows })
}

/// What members say, sorted by name as JavaScript sorts.
fn sorted<M, T>(
    members: Vec<(String, M)>,
    read: impl Fn((String, M)) -> T,
    name: impl Fn(&T) -> &String,
) -> Vec<T> {
    let mut read: Vec<T> = members.into_iter().map(read).collect();
    read.sort_by(|one, other| name(one).encode_utf16().cmp(name(other).encode_utf16()));
    read
}

/// The doctype as the same JSON.
#[must_use]
pub fn write(doctype: &Doctype) -> Vec<u8> {
    let param = |Param { name, kind, optional }: &Param| {
        (name.clone(), ParamType { kind: *kind, optional: *optional })
    };
    let types = |params: &[Param]| Ordered(params.iter().map(param).collect());
    let mutation = |MutationDefinition { name, params, sql }: &MutationDefinition| {
        (name.clone(), Mutation { params: types(params), sql: sql.clone() })
    };
    let event = |EventDefinition { name, fields, upcasts, project }: &EventDefinition| {
        let (upcast, project) = (upcasts.clone(), project.clone());
        (name.clone(), Event { fields: types(fields), upcast, project })
    };
    let command = |it: &CommandDefinition| {
        let (received, failed) = (it.received.clone(), it.failed.clone());
        let (fields, retries, timeout) = (types(&it.fields), it.retries, it.timeout_ms);
        (it.name.clone(), Command { fields, received, failed, retries, timeout })
    };
    let stream = |StreamDefinition { name, events, commands }: &StreamDefinition| {
        let events = Ordered(events.iter().map(event).collect());
        let commands = Ordered(commands.iter().map(command).collect());
        (name.clone(), Stream { events, commands })
    };
    let workflow = |WorkflowDefinition { name, version, fields }: &WorkflowDefinition| {
        (name.clone(), Workflow { version: *version, fields: types(fields) })
    };
    let Doctype { name, migrations, mutations, streams, workflows } = doctype;
    let definition = Definition {
        name: name.clone(),
        migrations: migrations.clone(),
        mutations: Ordered(mutations.iter().map(mutation).collect()),
        streams: Ordered(streams.iter().map(stream).collect()),
        workflows: Ordered(workflows.iter().map(workflow).collect()),
    };
    serde_json::to_vec(&definition).expect("BUG: texts alone")
}

fn definition((name, Mutation { params, sql }): (String, Mutation)) -> MutationDefinition {
    MutationDefinition { name, params: params_of(params), sql }
}

fn stream((name, Stream { events, commands }): (String, Stream)) -> StreamDefinition {
    let events = sorted(events.0, event, |it| &it.name);
    let commands = sorted(commands.0, command, |it| &it.name);
    StreamDefinition { name, events, commands }
}

fn workflow((name, Workflow { version, fields }): (String, Workflow)) -> WorkflowDefinition {
    WorkflowDefinition { name, version, fields: params_of(fields) }
}

fn command((name, it): (String, Command)) -> CommandDefinition {
    let Command { fields, received, failed, retries, timeout } = it;
    let fields = params_of(fields);
    CommandDefinition { name, fields, received, failed, retries, timeout_ms: timeout }
}

fn event((name, Event { fields, upcast, project }): (String, Event)) -> EventDefinition {
    EventDefinition { name, fields: params_of(fields), upcasts: upcast, project }
}

fn params_of(types: Ordered<ParamType>) -> Vec<Param> {
    let param = |(name, ParamType { kind, optional })| Param { name, kind, optional };
    types.0.into_iter().map(param).collect()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    name: String,
    migrations: Vec<String>,
    mutations: Ordered<Mutation>,
    #[serde(default, skip_serializing_if = "Ordered::is_empty")]
    streams: Ordered<Stream>,
    #[serde(default, skip_serializing_if = "Ordered::is_empty")]
    workflows: Ordered<Workflow>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    params: Ordered<ParamType>,
    sql: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stream {
    events: Ordered<Event>,
    #[serde(default, skip_serializing_if = "Ordered::is_empty")]
    commands: Ordered<Command>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    fields: Ordered<ParamType>,
    received: Vec<String>,
    failed: Vec<String>,
    retries: u32,
    timeout: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Workflow {
    version: u32,
    fields: Ordered<ParamType>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    fields: Ordered<ParamType>,
    upcast: Vec<String>,
    project: Vec<String>,
}

/// An object's members, in their order.
struct Ordered<T>(Vec<(String, T)>);

impl<T> Ordered<T> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData))
    }
}

impl<T: Serialize> Serialize for Ordered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = Ordered<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut members, mut names) = (Vec::new(), BTreeSet::new());
        while let Some((name, value)) = map.next_entry::<String, T>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("{name} stands twice")));
            }
            members.push((name, value));
        }
        Ok(Ordered(members))
    }
}

/// A parameter's type: `text`, or with a `?` behind it.
struct ParamType {
    kind: ParamKind,
    optional: bool,
}

/// Each kind by its name.
const KINDS: [(&str, ParamKind); 7] = [
    ("text", ParamKind::Text),
    ("integer", ParamKind::Integer),
    ("real", ParamKind::Real),
    ("blob", ParamKind::Blob),
    ("boolean", ParamKind::Boolean),
    ("json", ParamKind::Json),
    ("uuid", ParamKind::Uuid),
];

impl Serialize for ParamType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let of_kind = |(_, kind): &&(&str, ParamKind)| *kind == self.kind;
        let (name, _) = KINDS.iter().find(of_kind).expect("BUG: each kind has a name");
        serializer.collect_str(&format_args!("{name}{}", if self.optional { "?" } else { "" }))
    }
}

impl<'de> Deserialize<'de> for ParamType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let name = text.strip_suffix('?').unwrap_or(&text);
        let Some((_, kind)) = KINDS.into_iter().find(|(known, _)| *known == name) else {
            return Err(D::Error::custom(format!("there is no type {text}")));
        };
        Ok(Self { kind, optional: text.ends_with('?') })
    }
}

#[cfg(test)]
mod tests {
    use tidelog_sync::codec::port;

    use super::{parse, write};

    /// What `js/test/codec.test.ts` opens, as `JSON.stringify` writes it.
    const KINDS: &str = r#"{"name":"kinds","migrations":["create table a (b)"],"mutations":{
        "none":{"params":{},"sql":["delete from a"]},
        "all":{"params":{"t":"text","i":"integer","r":"real?","b":"blob","o":"boolean","j":"json",
                         "u":"uuid"},"sql":["select :t","select :i"]}},
        "streams":{"order":{"events":{
            "sent":{"fields":{},"upcast":[],"project":[]},
            "placed":{"fields":{"items":"json","note":"text?"},"upcast":[":data"],
                      "project":["select :items"]}},
            "commands":{
                "place":{"fields":{"items":"json","gift":"boolean?"},
                         "received":["select :items"],"failed":["select :reason"],
                         "retries":3,"timeout":90000}}}},
        "workflows":{"fulfil":{"version":2,"fields":{"order":"text"}}}}"#;

    /// Goal: a doctype that was deployed is the one that clients bring. Method: the bytes that
    /// TypeScript has written of it, and that its own test holds it to.
    #[test]
    fn a_doctype_is_encoded_as_clients_encode_it() {
        let golden = include_str!("../../../js/test/golden.json");
        let golden: serde_json::Value = serde_json::from_str(golden).expect("JSON");
        let doctype = parse(KINDS.as_bytes()).expect("a doctype");
        let hex: String = port::encode(&doctype).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(golden["toCore"].as_str().expect("a text").contains(&hex), "{hex}");
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let doctype = parse(KINDS.as_bytes()).expect("a doctype");
        let again = parse(&write(&doctype)).expect("a doctype");
        assert_eq!(again, doctype);
        let optional = KINDS.replace("\":\"t", "?\":\"t").replace("text\"", "text?\"");
        let doctype = parse(optional.as_bytes()).expect("a doctype");
        assert_eq!(parse(&write(&doctype)).expect("a doctype"), doctype);
    }

    #[test]
    fn mutations_are_sorted_as_javascript_sorts_and_parameters_are_not() {
        let json = r#"{"name":"n","migrations":[],"mutations":{
            "\uff5e":{"params":{"z":"text","a":"text"},"sql":[]},
            "\ud83c\udf0a":{"params":{},"sql":[]},"b":{"params":{},"sql":[]}}}"#;
        let doctype = parse(json.as_bytes()).expect("a doctype");
        let names: Vec<_> = doctype.mutations.iter().map(|it| it.name.as_str()).collect();
        // By code points the wave, U+1F30A, would come last.
        assert_eq!(names, ["b", "\u{1f30a}", "\u{ff5e}"]);
        let params = &doctype.mutations[2].params;
        assert_eq!(params.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    }

    #[test]
    fn whatever_else_stands_there_is_refused() {
        assert!(parse(KINDS.as_bytes()).is_ok());
        for (from, to) in [
            ("\"name\":\"kinds\",", ""),
            ("\"name\"", "\"extra\":1,\"name\""),
            ("\"name\":\"kinds\"", "\"name\":\"kinds\",\"name\":\"kinds\""),
            ("\"name\":\"kinds\"", "\"name\":7"),
            ("\"kinds\"", "\"\\ud800\""),
            ("\"none\"", "\"all\""),
            ("\"i\":", "\"t\":"),
            ("\"real?\"", "\"real??\""),
            ("\"real?\"", "\"re?al\""),
            ("\"real?\"", "\"date\""),
            ("\"real?\"", "null"),
            ("[\"delete from a\"]", "\"delete from a\""),
            ("\"params\":{},", ""),
            ("\"params\":{},", "\"params\":[],"),
            ("}}}", "}}}x"),
            ("\"fields\":{},", ""),
            ("\"upcast\":[]", "\"upcast\":null"),
            ("\"sent\"", "\"placed\""),
            ("\"received\":[\"select :items\"],", ""),
            ("\"retries\":3", "\"retries\":-1"),
            ("\"timeout\":90000", "\"timeout\":\"90s\""),
            ("\"timeout\":90000", "\"timeout\":90000,\"extra\":0"),
            ("\"version\":2,", ""),
            ("\"version\":2", "\"version\":2.5"),
        ] {
            let other = KINDS.replacen(from, to, 1);
            assert_ne!(other, KINDS);
            assert!(parse(other.as_bytes()).is_err(), "{other}");
        }
    }
}
