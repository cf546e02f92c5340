//! Recording events: what a mutation inserts into `tidelog_events` becomes rows of the system
//! tables, and then has what the app's SQL makes of it.
//!
//! ```text
//! _tidelog_stream  number -> aggregate, stream, length   how many events it has
//!                         -> archived, archived_to      how many of these have left, and the
//!                                                       sequence of the last: `archiving.rs`
//! _tidelog_event   sequence -> stream, position          its stream by that number; both from 1,
//!                           -> type, version, data       without gaps; no data: erased
//!                           -> time, user, client        of the mutation; erased, nobody's
//!                           -> cause                     `mutation:` and its name
//! ```
//!
//! They are made for documents of doctypes that have events, and say nothing but what a frame and
//! the pages before it do: so a device predicts an event as it predicts any row, and where it
//! stands among all others is known once the authority has recorded it.

use tidelog_sqlite::{
    EVENTS_FUNCTION, EVENTS_TRIGGER, EVENTS_VIEW, Failure, InsertedEvent, Transaction,
};
use tidelog_types::Value;
use tidelog_types::limits::TIME_MS_MAX;

use super::columns::run_app;
use crate::{Doctype, EventDefinition, Mutation, Param, ParamKind};

/// The key in `_tidelog_meta` under which the version of these tables stands, and that.
pub(super) const META_KEY: &str = "events";
const META_VERSION: i64 = 1;

/// Makes the tables of events of a document that has none.
pub(crate) fn begin(transaction: &Transaction<'_>) -> Result<(), Failure> {
    let trigger = format!(
        "create trigger {EVENTS_TRIGGER} instead of insert on {EVENTS_VIEW} begin
           select reject('an event is inserted with its aggregate, stream, type and data alone')
           where coalesce(new.sequence, new.position, new.version, new.time, new.user, new.client,
                          new.cause, new.erased) is not null;
           select {EVENTS_FUNCTION}(new.aggregate, new.stream, new.type, new.data);
         end"
    );
    let statements = [
        "create table _tidelog_stream (number integer primary key, aggregate text not null,
         stream text not null, length integer not null, archived integer not null default 0,
         archived_to integer not null default 0) strict",
        "create unique index _tidelog_stream_name on _tidelog_stream (aggregate, stream)",
        "create table _tidelog_event (sequence integer primary key, stream integer not null,
         position integer not null, type text not null, version integer not null,
         data text, time integer not null, user text not null, client blob not null,
         cause text not null) strict",
        // The sequence is in it: it is the rowid.
        "create index _tidelog_event_stream on _tidelog_event (stream)",
        "create view tidelog_events (sequence, aggregate, stream, position, type, version, data,
                                     time, user, client, cause, erased) as
         select sequence, of.aggregate, of.stream, position, type, version, data, time, user,
                lower(hex(client)), cause, data is null
         from _tidelog_event as event join _tidelog_stream as of on of.number = event.stream",
        "create view tidelog_streams (aggregate, stream, length, archived) as
         select aggregate, stream, length, archived from _tidelog_stream",
        &trigger,
    ];
    statements.into_iter().try_for_each(|sql| transaction.run_system(sql, &[]).map(drop))?;
    transaction
        .run_system(
            "insert into _tidelog_meta values (?1, ?2)",
            &[Value::Text(META_KEY.to_owned()), Value::Integer(META_VERSION)],
        )
        .map(drop)
}

/// What is recorded of an event beside what was inserted.
pub(super) struct Recorder<'m> {
    pub doctype: &'m Doctype,
    pub time: Value,
    pub user: Value,
    pub client: Value,
    pub client_text: Value,
    pub cause: Value,
}

impl<'m> Recorder<'m> {
    pub fn new(doctype: &'m Doctype, mutation: &Mutation) -> Self {
        Self {
            doctype,
            // What is no time to anybody would be told as another kind of number.
            time: Value::Integer(mutation.now_ms.min(TIME_MS_MAX).cast_signed()),
            user: Value::Text(mutation.user.clone()),
            client: Value::Blob(mutation.client.0.to_vec()),
            client_text: Value::Text(mutation.client.to_hex()),
            cause: Value::Text(format!("mutation:{}", mutation.name)),
        }
    }

    /// Records one event, and runs what the app's SQL makes of it.
    pub fn record(
        &self,
        transaction: &Transaction<'_>,
        event: InsertedEvent,
    ) -> Result<(), Failure> {
        let InsertedEvent { aggregate, stream, name, data } = event;
        let reject = |why: &str| Failure::Rejected {
            reason: format!("event {name} of {aggregate} cannot be recorded: {why}"),
        };
        let Some(definition) = self.doctype.event(&aggregate, &name) else {
            return Err(reject(&format!("doctype {} has none", self.doctype.name)));
        };
        let data = Value::Text(data);
        let (data, fields) =
            read_data(transaction, &definition.fields, &data)?.map_err(|why| reject(&why))?;
        let named = [Value::Text(aggregate.clone()), Value::Text(stream.clone())];
        let (number, position) = note_in_stream(transaction, &named)?;
        let position = Value::Integer(position);
        let row = [
            Value::Integer(number),
            position.clone(),
            Value::Text(name.clone()),
            Value::Integer(i64::from(definition.version())),
            data,
            self.time.clone(),
            self.user.clone(),
            self.client.clone(),
            self.cause.clone(),
        ];
        let written = transaction.write_system(
            "insert into _tidelog_event values (null, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            &row,
        )?;
        let sequence = Value::Integer(written.rowid);
        let [_, stream] = &named;
        let mentioned = Mentioned {
            stream,
            sequence: &sequence,
            position: &position,
            time: &self.time,
            client: &self.client_text,
            user: &self.user,
        };
        project(transaction, self.doctype, definition, &fields, &mentioned)
    }
}

/// Counts an event in its stream, which begins with the first one. Gives the stream's number, and
/// the event's place in it.
fn note_in_stream(
    transaction: &Transaction<'_>,
    named: &[Value; 2],
) -> Result<(i64, i64), Failure> {
    let rows = transaction.run_system(
        "select number, length + 1 from _tidelog_stream where aggregate = ?1 and stream = ?2",
        named,
    )?;
    let Some([Value::Integer(number), Value::Integer(length)]) = rows.first().map(Vec::as_slice)
    else {
        let written = transaction.write_system(
            "insert into _tidelog_stream (aggregate, stream, length) values (?1, ?2, 1)",
            named,
        )?;
        return Ok((written.rowid, 1));
    };
    let counted = [Value::Integer(*number), Value::Integer(*length)];
    transaction
        .write_system("update _tidelog_stream set length = ?2 where number = ?1", &counted)?;
    Ok((*number, *length))
}

/// What the app's SQL may mention of an event beside its fields.
pub(super) struct Mentioned<'v> {
    pub stream: &'v Value,
    pub sequence: &'v Value,
    pub position: &'v Value,
    pub time: &'v Value,
    /// As text.
    pub client: &'v Value,
    pub user: &'v Value,
}

/// Runs what the app's SQL makes of an event.
pub(super) fn project(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    definition: &EventDefinition,
    fields: &Fields<'_>,
    mentioned: &Mentioned<'_>,
) -> Result<(), Failure> {
    let Mentioned { stream, sequence, position, time, client, user } = mentioned;
    let mut args: Vec<(&str, &Value)> = fields.iter().map(|(name, value)| (*name, value)).collect();
    args.extend([
        ("stream", *stream),
        ("sequence", *sequence),
        ("position", *position),
        ("now", *time),
        ("client", *client),
        ("user", *user),
    ]);
    let mut project = definition.project.iter();
    project.try_for_each(|sql| run_app(transaction, doctype, sql, &args))
}

pub(super) type Fields<'d> = Vec<(&'d str, Value)>;

/// The data of an event as they are recorded, or the arguments of a command, and what the fields
/// are in SQL; or what is wrong with them.
pub(super) fn read_data<'d>(
    transaction: &Transaction<'_>,
    wanted: &'d [Param],
    data: &Value,
) -> Result<Result<(Value, Fields<'d>), String>, Failure> {
    let mut rows = transaction.run_system(
        "select iif(json_valid(?1), json_type(?1), 'no JSON'), iif(json_valid(?1), json(?1), null)",
        std::slice::from_ref(data),
    )?;
    let written = match rows.pop().map(<[Value; 2]>::try_from) {
        Some(Ok([Value::Text(kind), written])) if kind == "object" => written,
        Some(Ok([Value::Text(kind), _])) => {
            return Ok(Err(format!("its data are {kind}, and no object")));
        }
        _ => unreachable!("BUG: no answer to what it is"),
    };
    // One more than there are fields tells that there is one too many.
    let count = Value::Integer(i64::try_from(wanted.len() + 1).unwrap_or(i64::MAX));
    let members = transaction.run_system(
        "select key, type, atom,
                iif(type in ('array', 'object'), value,
                    iif(type in ('true', 'false'), type, json_quote(atom)))
         from json_each(?1) limit ?2",
        &[data.clone(), count],
    )?;
    let fields = match fields_of(wanted, &members) {
        Ok(fields) => fields,
        Err(why) => return Ok(Err(why)),
    };
    Ok(Ok((written, fields)))
}

fn fields_of<'d>(wanted: &'d [Param], members: &[Vec<Value>]) -> Result<Fields<'d>, String> {
    let mut given: Vec<Option<Value>> = vec![None; wanted.len()];
    for member in members {
        let [Value::Text(key), Value::Text(kind), atom, json] = member.as_slice() else {
            return Err("its data cannot be read".to_owned());
        };
        let place = wanted.iter().position(|field| field.name == *key);
        let Some(place) = place else { return Err(format!("there is no field {key}")) };
        let value = value_of(wanted[place].kind, kind, atom, json);
        if given[place].replace(value).is_some() {
            return Err(format!("field {key} is given twice"));
        }
    }
    let bound = wanted.iter().zip(given);
    let bind = |(field, given): (&'d Param, Option<Value>)| {
        let value = field.bind(given.as_ref()).map_err(|error| error.to_string())?;
        Ok((field.name.as_str(), value))
    };
    bound.map(bind).collect()
}

/// What a member of JSON is for a field of that kind: whether it may be is for the field to say.
fn value_of(kind: ParamKind, json_type: &str, atom: &Value, json: &Value) -> Value {
    match (kind, json_type) {
        (_, "null") => Value::Null,
        (ParamKind::Json, _) => json.clone(),
        (ParamKind::Boolean, "true") => Value::Integer(1),
        (ParamKind::Boolean, "false") => Value::Integer(0),
        // Neither takes these for numbers, nor numbers for these.
        (ParamKind::Boolean, _) | (_, "true" | "false" | "array" | "object") => {
            Value::Blob(Vec::new())
        }
        _ => atom.clone(),
    }
}
