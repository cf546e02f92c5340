//! Events that whoever runs a server records, all of them in one transaction, or none.

use tidelog_sqlite::{Failure, InsertedEvent, Run, Transaction, Writer};
use tidelog_types::limits::TIME_MS_MAX;
use tidelog_types::{ClientId, PageSet, Value};

use super::events::Recorder;
use super::{done, reason_of, single_integer, version};
use crate::operator::{AppendRefusal, AppendedEvent};
use crate::{Doctype, EventDefinition};

/// What `tidelog_events` says of why there is one that nobody's mutation or command has recorded.
const CAUSE: &str = "append";

/// Records them, with what follows from each; says the sequence number of the last one.
pub(super) fn append(
    writer: &mut Writer,
    doctype: &Doctype,
    events: &[AppendedEvent],
    by: &str,
    now: i64,
) -> Run<(Result<u64, AppendRefusal>, PageSet)> {
    let refused = |refusal| Run::Done((Err(refusal), PageSet::default()));
    if !done!(version(writer)).is_some_and(|version| version.has_events) {
        return refused(AppendRefusal::NoStreams);
    }
    // Which one it came to, and where that would have been.
    let (mut nth, mut misplaced) = (0, None);
    let ran = writer.write(&mut |transaction| {
        transaction.bound_as_apps();
        for (at, event) in events.iter().enumerate() {
            (nth, misplaced) = (at, None);
            let length = length_of(transaction, event)?;
            if event.position.is_some_and(|position| position != length + 1) {
                misplaced = Some(length);
                return Err(Failure::Rejected { reason: String::new() });
            }
            record(transaction, doctype, event, by, now)?;
        }
        let sql = "select coalesce(max(sequence), 0) from _tidelog_event";
        Ok(single_integer(&transaction.run_system(sql, &[])?).unwrap_or(0).cast_unsigned())
    });
    match (ran, misplaced) {
        (Run::Failed(Failure::Rejected { .. }), Some(length)) => {
            refused(AppendRefusal::Misplaced { nth, length })
        }
        (Run::Failed(failure), _) => match reason_of(failure) {
            Ok(reason) => refused(AppendRefusal::Rejected { nth, reason }),
            Err(failure) => Run::Failed(failure),
        },
        (ran, _) => ran.map(|(last, set)| (Ok(last), set)),
    }
}

fn length_of(transaction: &Transaction<'_>, event: &AppendedEvent) -> Result<u64, Failure> {
    let named = [&event.aggregate, &event.stream].map(|name| Value::Text(name.clone()));
    let sql = "select length from _tidelog_stream where aggregate = ?1 and stream = ?2";
    Ok(single_integer(&transaction.run_system(sql, &named)?).unwrap_or(0).cast_unsigned())
}

fn record(
    transaction: &Transaction<'_>,
    doctype: &Doctype,
    event: &AppendedEvent,
    by: &str,
    now: i64,
) -> Result<(), Failure> {
    let AppendedEvent { aggregate, stream, name, data, version, time_ms, user, .. } = event;
    let newest = doctype.event(aggregate, name).map(EventDefinition::version);
    if let (Some(version), Some(newest)) = (version, newest)
        && *version != newest
    {
        let reason =
            format!("{name} of {aggregate} is of version {version}, and {newest} is known");
        return Err(Failure::Rejected { reason });
    }
    let time = time_ms.map_or(now, |time_ms| time_ms.min(TIME_MS_MAX).cast_signed());
    let nobody = ClientId([0; 16]);
    let recorder = Recorder {
        doctype,
        time: Value::Integer(time),
        user: Value::Text(user.clone().unwrap_or_else(|| by.to_owned())),
        client: Value::Blob(nobody.0.to_vec()),
        client_text: Value::Text(nobody.to_hex()),
        cause: Value::Text(CAUSE.to_owned()),
    };
    recorder.record(transaction, InsertedEvent::of_texts(aggregate, stream, name, data)?)
}
