//! What running a mutation means: its system rows, its statements, and its verdict.
//!
//! Both roles run frames through this file and nothing else, so that the same frame over the same
//! pages gives the same pages. System rows depend on the frame and the pages before it alone.
//!
//! ```text
//! _tidelog_meta       key -> value        'version': how many migrations have run
//!                                         'events', 'tasks': versions of their tables, if it
//!                                         has any; 'columns/T/N': columns of table T until
//!                                         one more than N migrations had run
//! _tidelog_timeline   timeline -> wanted  first LSN of that timeline that is not applied,
//!                              -> lives   and who wrote those that are: life, LSN; oldest first
//!                              -> forgotten  rejections before this LSN were kept and are gone
//!                              -> client  whose it is: nobody else's frames are run in it
//! _tidelog_rejection  timeline, lsn -> mutation, reason    until its client has kept it
//! _tidelog_moved      timeline, life, first   those frames, up to `last`, have got their verdicts
//!                     -> last                 in another timeline: as the frames of `place` from
//!                     -> place, place_first   `place_first` on
//! ```
//!
//! Lives are [public](crate::public_life()) in all of them: everybody who follows reads them.
//!
//! A row of what has moved stays: nobody knows whether another copy of its client has those frames
//! still. It stands for all that one copy has brought in a row, however much that was, and says
//! where the verdicts are, which are bounded there by what that copy has kept.
//!
//! The tables of events stand in `program/events.rs`, those of tasks in `program/tasks.rs`.

mod appending;
mod archiving;
mod clocks;
pub(crate) mod columns;
mod commands;
mod erasing;
mod events;
mod interventions;
mod replaying;
mod snapshots;
mod tasks;
mod tried;
mod upcasting;
mod workflows;

use tidelog_sqlite::{Failure, Run, SystemQueries, Transaction, Writer};
use tidelog_types::limits::{FRAME_REJECTIONS_TRIMMED_MAX, TIMELINE_LIVES_KEPT_MAX};
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{ClientId, EntryId, JournalId, Life, Lineage, Lsn, PageSet, Value, shortened};

use crate::{Action, Doctype, Mutation, Verdict, public_entry};

pub(crate) use archiving::{
    ARCHIVED_END, ARCHIVED_KEY, ARCHIVED_PREFIX, archive_of, find_archivable,
};
use events::Recorder;
pub(crate) use events::begin as begin_events;
pub(crate) use tasks::{begin as begin_tasks, change, work};

const SYSTEM_TABLES: [&str; 4] = [
    "create table _tidelog_meta (key text primary key, value any not null) strict, without rowid",
    "create table _tidelog_timeline (timeline blob primary key, wanted integer not null,
     lives blob not null, forgotten integer not null, client blob) strict, without rowid",
    "create table _tidelog_rejection (timeline blob not null, lsn integer not null,
     mutation text not null, reason text not null, primary key (timeline, lsn))
     strict, without rowid",
    "create table _tidelog_moved (timeline blob not null, life blob not null,
     first integer not null, last integer not null, place blob not null,
     place_first integer not null, primary key (timeline, life, first))
     strict, without rowid",
];

/// What has a name like ours and is nothing of ours (where `?1`, a document that has events, and
/// where `?2`, one that has tasks), and tables whose foreign keys name one: our own statements
/// would look after those, and fail with them.
const FIND_INTRUDER: &str = "
    select name from sqlite_schema
    where ('_tidelog_' in (lower(substr(name, 1, 9)), lower(substr(tbl_name, 1, 9))) or
           'tidelog_' in (lower(substr(name, 1, 8)), lower(substr(tbl_name, 1, 8))))
      and type || ' ' || lower(name) not in
          ('table _tidelog_meta', 'table _tidelog_timeline', 'table _tidelog_rejection',
           'table _tidelog_moved')
      and not (?1 and type || ' ' || lower(name) in
          ('table _tidelog_stream', 'index _tidelog_stream_name', 'table _tidelog_event',
           'index _tidelog_event_stream', 'view tidelog_events', 'view tidelog_streams',
           'trigger tidelog_events_insert'))
      and not (?2 and type || ' ' || lower(name) in
          ('table _tidelog_task', 'index _tidelog_task_key', 'index _tidelog_task_pending',
           'index _tidelog_task_ready', 'index _tidelog_task_stopped', 'index _tidelog_task_due',
           'index _tidelog_task_held', 'index _tidelog_task_kept', 'index _tidelog_task_ended',
           'index _tidelog_task_ending',
           'trigger _tidelog_task_over', 'view tidelog_commands', 'view tidelog_workflows',
           'table _tidelog_record', 'index _tidelog_record_name', 'index _tidelog_record_task',
           'index _tidelog_record_due', 'index _tidelog_record_event',
           'index _tidelog_record_awaited', 'index _tidelog_record_untimed',
           'trigger _tidelog_record_event_happens', 'trigger _tidelog_record_resolved',
           'view tidelog_records', 'view tidelog_requests', 'table _tidelog_instance',
           'view tidelog_instances',
           'table _tidelog_snapshot', 'view tidelog_snapshots', 'table _tidelog_handled',
           'index _tidelog_handled_kind', 'index _tidelog_handled_asked',
           'table _tidelog_tried', 'index _tidelog_tried_instance', 'index _tidelog_task_unfit',
           'trigger _tidelog_tried_over'))
    union all
    select it.name from sqlite_schema as it, pragma_foreign_key_list(it.name) as key
    where it.type = 'table' and lower(substr(key.\"table\", 1, 9)) = '_tidelog_'
    limit 1";

/// What has the name of a table in which SQLite tells of the schema: statements of ours that ask
/// there would be answered by the app.
const FIND_IMPOSTOR: &str =
    "select name from sqlite_schema where lower(substr(name, 1, 7)) = 'pragma_' limit 1";

const HAS_SYSTEM_TABLES: &str = "select 1 from sqlite_schema where name = '_tidelog_meta'";

const FIND_TIMELINE: &str =
    "select wanted, lives, forgotten, client from _tidelog_timeline where timeline = ?1";

/// What there is of a timeline, in one statement, since most frames need no more: its row, whether
/// there are rejections before `?2`, and whether frames like the one that was issued at `?3`, `?4`,
/// `?5` have moved.
const FIND_BEFORE: &str = "
    select wanted, lives, forgotten, client,
           exists (select 1 from _tidelog_rejection where timeline = ?1 and lsn < ?2),
           exists (select 1 from _tidelog_moved where timeline = ?3 and life = ?4 and first <= ?5)
    from (select 1) left join _tidelog_timeline on timeline = ?1";

const FIND_REJECTION: &str =
    "select reason from _tidelog_rejection where timeline = ?1 and lsn = ?2";

/// The oldest go first: a rejection before the last one that is gone is gone too.
const TRIM_REJECTIONS: &str = "
    delete from _tidelog_rejection where timeline = ?1 and lsn in
    (select lsn from _tidelog_rejection where timeline = ?1 and lsn < ?2 order by lsn limit ?3)
    returning lsn";

const FIND_MOVED: &str = "select first, last, place, place_first from _tidelog_moved
     where timeline = ?1 and life = ?2 and first <= ?3 order by first desc limit 1";

/// What SQLite answers where something exists.
const HAS: Value = Value::Integer(1);

/// Why a mutation is reported as rejected whose verdict nobody can know.
pub(crate) const UNKNOWN: &str = "nobody can tell whether this was applied: this device's data \
                                  were cloned or restored, and the other copy has gone on";

/// Whether the reason of a rejection says that nobody can know the verdict: the mutation may have
/// been applied.
#[must_use]
pub fn is_unknown(reason: &str) -> bool {
    reason == UNKNOWN
}

/// How much of a timeline is in a document's pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedTimeline {
    /// The first LSN that is not applied.
    pub wanted: Lsn,
    /// Who wrote what is, by [public](crate::public_life()) lives.
    pub lives: Lineage,
    /// Rejections before this LSN are gone, since a copy of the client has kept them.
    pub forgotten: Lsn,
    /// Whose it is, as far as one of its mutations could be read.
    pub client: Option<ClientId>,
}

/// A rejection as its row says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) lsn: Lsn,
    pub(crate) reason: String,
}

/// Passes on `Fault` and `Failed`, gives the value of `Done`.
macro_rules! done {
    ($run:expr) => {
        match $run {
            tidelog_sqlite::Run::Done(value) => value,
            tidelog_sqlite::Run::Fault(pgid) => return tidelog_sqlite::Run::Fault(pgid),
            tidelog_sqlite::Run::Failed(failure) => return tidelog_sqlite::Run::Failed(failure),
        }
    };
}
pub(crate) use done;

/// What a document has been brought to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    /// How many migrations it has seen.
    pub(crate) migrations: usize,
    /// Whether it has the tables of events.
    pub(crate) has_events: bool,
    /// Whether it has the tables of tasks.
    pub(crate) has_tasks: bool,
}

/// What the document has been brought to; `None` for one that holds nothing yet.
pub(crate) fn version(queries: &mut dyn SystemQueries) -> Run<Option<Version>> {
    if queries.is_of_nothing() {
        return Run::Done(None);
    }
    let sql = "select key, value from _tidelog_meta
               where key in ('version', 'events', 'tasks')";
    let rows = match queries.query_system(sql, &[]) {
        Run::Done(rows) => rows,
        Run::Fault(pgid) => return Run::Fault(pgid),
        // To ask for the table each time would take longer than to ask it, and it lacks few.
        Run::Failed(failure) => {
            let has_tables = !done!(queries.query_system(HAS_SYSTEM_TABLES, &[])).is_empty();
            return if has_tables { Run::Failed(failure) } else { Run::Done(None) };
        }
    };
    let mut version = Version::default();
    for row in rows {
        match row.as_slice() {
            [Value::Text(key), _] if key == events::META_KEY => version.has_events = true,
            [Value::Text(key), _] if key == tasks::META_KEY => version.has_tasks = true,
            [_, Value::Integer(number)] => {
                version.migrations = usize::try_from(*number).unwrap_or(0);
            }
            _ => {}
        }
    }
    Run::Done(Some(version))
}

/// What the schema is.
pub(crate) fn schema(queries: &mut dyn SystemQueries) -> Run<Vec<Vec<Value>>> {
    let sql = "select type, name, tbl_name, sql from sqlite_schema order by type, name";
    queries.query_system(sql, &[])
}

/// Whether what these queries read is a document at the version of this doctype, or beyond.
pub fn is_migrated_to(queries: &mut dyn SystemQueries, doctype: &Doctype) -> Run<bool> {
    version(queries).map(|version| !is_behind(version, doctype))
}

/// Whether a document at `version` has migrations of `doctype` before it, or lacks the tables of
/// its events or tasks.
pub(crate) fn is_behind(version: Option<Version>, doctype: &Doctype) -> bool {
    version.is_none_or(|version| {
        version.migrations < doctype.migrations.len()
            || lacks_events(version, doctype)
            || lacks_tasks(version, doctype)
    })
}

fn lacks_events(version: Version, doctype: &Doctype) -> bool {
    !version.has_events && doctype.has_events()
}

fn lacks_tasks(version: Version, doctype: &Doctype) -> bool {
    !version.has_tasks && doctype.has_tasks()
}

/// How much of `timeline` is applied, in a document that holds something.
pub(crate) fn applied(
    queries: &mut dyn SystemQueries,
    timeline: JournalId,
) -> Run<AppliedTimeline> {
    let rows = done!(queries.query_system(FIND_TIMELINE, &[timeline_value(timeline)]));
    Run::Done(AppliedTimeline::of_rows(&rows))
}

/// The rejections of `timeline` at or after `since`, oldest first, in a document that holds
/// something.
pub(crate) fn rejections(
    queries: &mut dyn SystemQueries,
    timeline: JournalId,
    since: Lsn,
) -> Run<Vec<Rejection>> {
    let rows = done!(queries.query_system(
        "select lsn, reason from _tidelog_rejection where timeline = ?1 and lsn >= ?2 order by lsn",
        &[timeline_value(timeline), lsn_value(since)],
    ));
    let rejections = rows.into_iter().filter_map(|row| match row.as_slice() {
        [lsn, Value::Text(reason)] => Some(Rejection { lsn: lsn_of(lsn)?, reason: reason.clone() }),
        _ => None,
    });
    Run::Done(rejections.collect())
}

/// Runs the migrations that the document has not seen, and makes the system tables before them.
pub(crate) fn migrate(
    writer: &mut Writer,
    doctype: &Doctype,
    version: Option<Version>,
) -> Run<PageSet> {
    assert!(is_behind(version, doctype), "BUG: nothing to migrate from {version:?}");
    let from = version.unwrap_or_default();
    let run = writer.write(&mut |transaction| {
        if version.is_none() {
            begin_document(transaction)?;
        }
        if lacks_events(from, doctype) {
            events::begin(transaction)?;
        }
        if lacks_tasks(from, doctype) {
            tasks::begin(transaction)?;
        }
        // A document that is ahead of it may lack its events all the same.
        let mut migrating = columns::Migrating::default();
        for (seen, migration) in doctype.migrations.iter().enumerate().skip(from.migrations) {
            migrating.run(transaction, seen, migration)?;
        }
        let has_events = from.has_events || doctype.has_events();
        check_migrated(transaction, has_events, from.has_tasks || doctype.has_tasks())?;
        let migrations = doctype.migrations.len().max(from.migrations);
        let version = i64::try_from(migrations).expect("BUG: so many");
        transaction.run_system(
            "insert into _tidelog_meta values ('version', ?1)
             on conflict (key) do update set value = excluded.value",
            &[Value::Integer(version)],
        )
    });
    let set = done!(run).1;
    // It still plans by statistics that the migration may have dropped, and others do not.
    writer.refresh();
    Run::Done(set)
}

/// Makes the system tables of an empty document, without those of events and tasks.
pub(crate) fn begin_document(transaction: &Transaction<'_>) -> Result<(), Failure> {
    SYSTEM_TABLES.iter().try_for_each(|table| transaction.run_system(table, &[]).map(drop))
}

/// Fails if migrations have made something of what is ours. What they say is looked at before they
/// run; this is for what was overlooked.
pub(crate) fn check_migrated(
    transaction: &Transaction<'_>,
    has_events: bool,
    has_tasks: bool,
) -> Result<(), Failure> {
    let has = [has_events, has_tasks].map(|has| Value::Integer(has.into()));
    for (sql, params) in [(FIND_IMPOSTOR, &[][..]), (FIND_INTRUDER, &has)] {
        if let Some(name) = found_name(transaction, sql, params)? {
            return Err(Failure::Forbidden { what: name });
        }
    }
    Ok(())
}

fn found_name(
    transaction: &Transaction<'_>,
    sql: &str,
    params: &[Value],
) -> Result<Option<String>, Failure> {
    let rows = transaction.run_system(sql, params)?;
    let name = |row: &Vec<Value>| match row.as_slice() {
        [Value::Text(name)] => name.clone(),
        _ => "a table without a name".to_owned(),
    };
    Ok(rows.first().map(name))
}

/// Runs each kind of statement that gives a frame its verdict, to see that they can. For a document
/// that is dropped then.
pub(crate) fn rehearse_verdicts(transaction: &Transaction<'_>) -> Result<(), Failure> {
    let place = |byte, lsn| {
        let (journal, life) = (JournalId([byte; 16]), Life([byte; 16]));
        EntryId { journal, life, lsn: Lsn::FIRST.plus(lsn) }
    };
    let reason = "rehearsed".to_owned();
    let frame = Mutation { kept_rejections: place(1, 2).lsn, ..Mutation::unreadable() };
    for lsn in 0..2 {
        begin_frame(transaction, place(1, lsn), None, &frame)?;
        note_moved(transaction, place(1, lsn), Some(place(2, lsn)))?;
        note_rejection(transaction, place(1, lsn), reason.clone(), reason.clone())?;
        transaction.run_system(
            FIND_REJECTION,
            &[timeline_value(JournalId([1; 16])), lsn_value(place(1, lsn).lsn)],
        )?;
    }
    begin_frame(transaction, place(1, 2), None, &frame).map(drop)
}

/// Runs a frame in its place in the order: applied or rejected, the pages say which. Fails only
/// where this host has no verdict, and then nothing has changed: it is short of memory, or the
/// document so full that there is no room even for one more rejection.
pub(crate) fn run_frame(
    writer: &mut Writer,
    origin: EntryId,
    mutation: &Mutation,
    doctype: Option<&Doctype>,
) -> Run<(Verdict, PageSet)> {
    let reason = match find(mutation, doctype) {
        Ok((doctype, action, args)) => {
            let recorder = Recorder::new(doctype, mutation);
            let (origin, moved_from) = public(origin, mutation);
            let run = writer.write(&mut |transaction| {
                match begin_frame(transaction, origin, moved_from, mutation)? {
                    Some(Verdict::Applied) => return Ok(()),
                    Some(Verdict::Rejected { reason }) => {
                        return Err(Failure::Rejected { reason });
                    }
                    None => {}
                }
                note_moved(transaction, origin, moved_from)?;
                run_action(transaction, action, &args, &recorder)
            });
            match run {
                Run::Done(((), set)) => return Run::Done((Verdict::Applied, set)),
                Run::Fault(pgid) => return Run::Fault(pgid),
                Run::Failed(failure) => match reason_of(failure) {
                    Ok(reason) => reason,
                    Err(failure) => return Run::Failed(failure),
                },
            }
        }
        Err(reason) => reason,
    };
    reject_frame(writer, origin, mutation, reason)
}

/// Writes down that a frame is rejected, without running it; one that has its verdict already keeps
/// that. A transaction of our own statements has no budget, and what is written down is short, so
/// no mutation is too much to be rejected.
pub(crate) fn reject_frame(
    writer: &mut Writer,
    origin: EntryId,
    mutation: &Mutation,
    reason: String,
) -> Run<(Verdict, PageSet)> {
    let (origin, moved_from) = public(origin, mutation);
    let (name, reason) = (shortened(mutation.name.clone()), shortened(reason));
    writer.write(&mut |transaction| {
        let reason = match begin_frame(transaction, origin, moved_from, mutation)? {
            Some(Verdict::Applied) => return Ok(Verdict::Applied),
            Some(Verdict::Rejected { reason: earlier }) => earlier,
            None => {
                note_moved(transaction, origin, moved_from)?;
                reason.clone()
            }
        };
        note_rejection(transaction, origin, name.clone(), reason.clone())?;
        Ok(Verdict::Rejected { reason })
    })
}

fn note_rejection(
    transaction: &Transaction<'_>,
    origin: EntryId,
    name: String,
    reason: String,
) -> Result<(), Failure> {
    transaction.run_system(
        // A document that was taken over may have had a row there.
        "insert or replace into _tidelog_rejection values (?1, ?2, ?3, ?4)",
        &[
            timeline_value(origin.journal),
            lsn_value(origin.lsn),
            Value::Text(name),
            Value::Text(reason),
        ],
    )?;
    Ok(())
}

/// Runs a mutation where there is no timeline: this device decides, and a failure leaves nothing.
pub(crate) fn run_local(
    writer: &mut Writer,
    mutation: &Mutation,
    doctype: &Doctype,
) -> Run<PageSet> {
    let (doctype, action, args) = match find(mutation, Some(doctype)) {
        Ok(found) => found,
        Err(reason) => return Run::Failed(Failure::Rejected { reason }),
    };
    let recorder = Recorder::new(doctype, mutation);
    let run = writer.write(&mut |transaction| run_action(transaction, action, &args, &recorder));
    Run::Done(done!(run).1)
}

/// The reason that a rejected mutation is given.
///
/// # Errors
///
/// The failure, if it says nothing about the mutation: a host that is short of memory has no
/// verdict, and runs the mutation again.
fn reason_of(failure: Failure) -> Result<String, Failure> {
    match failure {
        Failure::Rejected { reason } => Ok(reason),
        passing if passing.is_passing() => Err(passing),
        other => Ok(other.to_string()),
    }
}

/// What the pages may say of where a frame is, and where it was issued if it has moved.
fn public(origin: EntryId, mutation: &Mutation) -> (EntryId, Option<EntryId>) {
    (public_entry(origin), mutation.moved_from.map(public_entry))
}

type Found<'d> = (&'d Doctype, Action<'d>, Vec<(String, Value)>);

fn find<'d>(mutation: &Mutation, doctype: Option<&'d Doctype>) -> Result<Found<'d>, String> {
    let doctype =
        doctype.ok_or_else(|| format!("its doctype {} is not known here", mutation.doctype))?;
    let action = doctype
        .action(&mutation.name)
        .ok_or_else(|| format!("no mutation {} in doctype {}", mutation.name, doctype.name))?;
    let mut args = action.bind(&mutation.args).map_err(|error| error.to_string())?;
    let now = i64::try_from(mutation.now_ms).unwrap_or(i64::MAX);
    args.push(("now".to_owned(), Value::Integer(now)));
    args.push(("client".to_owned(), Value::Text(mutation.client.to_hex())));
    args.push(("user".to_owned(), Value::Text(mutation.user.clone())));
    Ok((doctype, action, args))
}

fn run_action(
    transaction: &Transaction<'_>,
    action: Action<'_>,
    args: &[(String, Value)],
    recorder: &Recorder<'_>,
) -> Result<(), Failure> {
    transaction.bound_as_apps();
    let definition = match (action, args) {
        (Action::Mutation(definition), _) => definition,
        (Action::Send(aggregate, command), [(_, stream), (_, given), (_, key), ..]) => {
            let sent = commands::Sent { aggregate, command, stream, args: given, key };
            return commands::receive(transaction, &sent, recorder).map(drop);
        }
        (Action::Start(workflow), [(_, id), (_, given), ..]) => {
            return workflows::receive(transaction, workflow, [id, given], recorder).map(drop);
        }
        (Action::Cancel(workflow), [(_, id), ..]) => {
            return workflows::cancel(transaction, workflow, id, recorder);
        }
        _ => unreachable!("BUG: they are bound"),
    };
    let args: Vec<(&str, &Value)> =
        args.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let mut record = |event| recorder.record(transaction, event);
    definition.sql.iter().try_for_each(|sql| {
        let sql = columns::as_written(transaction, recorder.doctype, sql)?;
        transaction.run_app_with_events(&sql, &args, &mut record)
    })
}

/// Writes down that the frame has its place in its timeline. Gives the verdict that it has got
/// already, if it has.
fn begin_frame(
    transaction: &Transaction<'_>,
    origin: EntryId,
    moved_from: Option<EntryId>,
    mutation: &Mutation,
) -> Result<Option<Verdict>, Failure> {
    let timeline = timeline_value(origin.journal);
    let kept = lsn_value(mutation.kept_rejections.min(origin.lsn));
    let [issued, life, lsn] = issued_values(moved_from.unwrap_or(origin));
    let asked = [timeline.clone(), kept.clone(), issued, life, lsn];
    let before = transaction.run_system(FIND_BEFORE, &asked)?;
    let has = |column: usize| before.first().and_then(|row| row.get(column)) == Some(&HAS);
    let (has_rejections, has_moved) = (has(4), has(5));
    let AppliedTimeline { lives, mut forgotten, .. } = AppliedTimeline::of_rows(&before);
    let mut lives = lives.before(origin.lsn);
    lives.note(origin.life, origin.lsn);
    lives.forget(transaction.limits().timeline_lives_kept_max, origin.lsn);
    if has_rejections {
        let count_max = Value::Integer(FRAME_REJECTIONS_TRIMMED_MAX.cast_signed());
        let trimmed = [timeline.clone(), kept, count_max];
        let removed = transaction.run_system(TRIM_REJECTIONS, &trimmed)?;
        for lsn in removed.iter().filter_map(|row| lsn_of(row.first()?)) {
            forgotten = forgotten.max(lsn.next());
        }
    }
    transaction.run_system(
        "insert into _tidelog_timeline values (?1, ?2, ?3, ?4, ?5)
         on conflict (timeline) do update
         set wanted = excluded.wanted, lives = excluded.lives, forgotten = excluded.forgotten,
             client = coalesce(client, excluded.client)",
        &[
            timeline,
            lsn_value(origin.lsn.next()),
            lives_value(&lives),
            lsn_value(forgotten),
            client_value(mutation.client),
        ],
    )?;
    match has_moved || moved_from.is_some() {
        true => earlier_verdict(transaction, origin, moved_from),
        false => Ok(None),
    }
}

/// The verdict that the mutation at `origin` has got already, brought by another copy of its
/// client: in the timeline in which it was issued, or in one to which it has moved.
fn earlier_verdict(
    transaction: &Transaction<'_>,
    origin: EntryId,
    moved_from: Option<EntryId>,
) -> Result<Option<Verdict>, Failure> {
    let issued = moved_from.unwrap_or(origin);
    let moved = find_moved(transaction, issued)?;
    let (timeline, lsn, is_it) = match moved.and_then(|moved| moved.place_of(issued.lsn)) {
        Some((timeline, lsn)) => (timeline, lsn, true),
        None if moved_from.is_none() => return Ok(None),
        None => {
            let AppliedTimeline { wanted, lives, .. } = find_timeline(transaction, issued.journal)?;
            let writer = lives.life_at(issued.lsn);
            if issued.lsn >= wanted || writer.is_some_and(|writer| writer != issued.life) {
                return Ok(None);
            }
            (issued.journal, issued.lsn, writer.is_some())
        }
    };
    reached(Probe::MovedFrameRepeated);
    let rows =
        transaction.run_system(FIND_REJECTION, &[timeline_value(timeline), lsn_value(lsn)])?;
    let forgotten = find_timeline(transaction, timeline)?.forgotten;
    Ok(Some(match rows.first().and_then(|row| row.first()) {
        Some(Value::Text(reason)) => Verdict::Rejected { reason: reason.clone() },
        _ if is_it && lsn >= forgotten => Verdict::Applied,
        _ => Verdict::Rejected { reason: UNKNOWN.to_owned() },
    }))
}

/// Writes down that the mutation which has moved from there has its verdict here.
fn note_moved(
    transaction: &Transaction<'_>,
    origin: EntryId,
    moved_from: Option<EntryId>,
) -> Result<(), Failure> {
    let Some(issued) = moved_from else { return Ok(()) };
    let [timeline, life, lsn] = issued_values(issued);
    let before = find_moved(transaction, issued)?;
    if let Some(moved) = before.filter(|moved| moved.goes_on_with(issued.lsn, origin)) {
        transaction.run_system(
            "update _tidelog_moved set last = ?4 where timeline = ?1 and life = ?2 and first = ?3",
            &[timeline, life, lsn_value(moved.first), lsn],
        )?;
    } else {
        transaction.run_system(
            // A document that was taken over may have had a row there.
            "insert or replace into _tidelog_moved values (?1, ?2, ?3, ?4, ?5, ?6)",
            &[
                timeline,
                life,
                lsn.clone(),
                lsn,
                timeline_value(origin.journal),
                lsn_value(origin.lsn),
            ],
        )?;
    }
    Ok(())
}

/// Frames that were issued in one timeline, by one life, and have their verdicts in another one.
#[derive(Clone, Copy, Debug)]
struct Moved {
    first: Lsn,
    last: Lsn,
    place: JournalId,
    place_first: Lsn,
}

impl Moved {
    /// What a row says. A document that was taken over may say what cannot be.
    fn of_row(row: &[Value]) -> Option<Self> {
        let [first, last, Value::Blob(place), place_first] = row else { return None };
        let place = JournalId(place.as_slice().try_into().ok()?);
        let [first, last, place_first] = [lsn_of(first)?, lsn_of(last)?, lsn_of(place_first)?];
        Some(Self { first, last, place, place_first })
    }

    /// Where the frame that was issued at `lsn` has its verdict, if it is one of these.
    fn place_of(&self, lsn: Lsn) -> Option<(JournalId, Lsn)> {
        (lsn <= self.last).then(|| self.beside(lsn)).flatten()
    }

    /// Whether the frame that was issued at `lsn`, and is at `origin` now, follows on these.
    fn goes_on_with(&self, lsn: Lsn, origin: EntryId) -> bool {
        lsn == self.last.next() && self.beside(lsn) == Some((origin.journal, origin.lsn))
    }

    fn beside(&self, lsn: Lsn) -> Option<(JournalId, Lsn)> {
        let distance = lsn.get().checked_sub(self.first.get())?;
        let lsn = self.place_first.get().checked_add(distance)?;
        Some((self.place, Lsn::new(lsn)?))
    }
}

/// The last of those at or before `issued`.
fn find_moved(transaction: &Transaction<'_>, issued: EntryId) -> Result<Option<Moved>, Failure> {
    let rows = transaction.run_system(FIND_MOVED, &issued_values(issued))?;
    Ok(rows.first().and_then(|row| Moved::of_row(row)))
}

fn find_timeline(
    transaction: &Transaction<'_>,
    timeline: JournalId,
) -> Result<AppliedTimeline, Failure> {
    let rows = transaction.run_system(FIND_TIMELINE, &[timeline_value(timeline)])?;
    Ok(AppliedTimeline::of_rows(&rows))
}

impl AppliedTimeline {
    /// What the row of a timeline says, if there is one. Of lives that cannot be, none is known.
    fn of_rows(rows: &[Vec<Value>]) -> Self {
        let Some([wanted, Value::Blob(lives), forgotten, client, ..]) =
            rows.first().map(Vec::as_slice)
        else {
            return Self::default();
        };
        let [wanted, forgotten] = [wanted, forgotten].map(|it| lsn_of(it).unwrap_or(Lsn::FIRST));
        let lives = lives_of(lives).unwrap_or_default().before(wanted);
        let client = match client {
            Value::Blob(client) => client.as_slice().try_into().ok().map(ClientId),
            _ => None,
        };
        Self { wanted, lives, forgotten, client }
    }
}

impl Default for AppliedTimeline {
    fn default() -> Self {
        let (wanted, forgotten) = (Lsn::FIRST, Lsn::FIRST);
        Self { wanted, lives: Lineage::default(), forgotten, client: None }
    }
}

/// Null for what nobody has issued.
fn client_value(client: ClientId) -> Value {
    if client.0 == [0; 16] { Value::Null } else { Value::Blob(client.0.to_vec()) }
}

const LIFE_SIZE: usize = 24;

fn lives_value(lives: &Lineage) -> Value {
    let mut bytes = Vec::new();
    for (life, begin) in lives.lives() {
        bytes.extend_from_slice(&life.0);
        bytes.extend_from_slice(&begin.get().to_le_bytes());
    }
    Value::Blob(bytes)
}

fn lives_of(bytes: &[u8]) -> Option<Lineage> {
    let (lives, rest) = bytes.as_chunks::<LIFE_SIZE>();
    if lives.len() > TIMELINE_LIVES_KEPT_MAX {
        // More than anybody writes: a document brought it along when it was taken over.
        return None;
    }
    let life = |bytes: &[u8; LIFE_SIZE]| {
        let (life, begin) = bytes.split_first_chunk::<16>()?;
        Some((Life(*life), Lsn::new(u64::from_le_bytes(begin.try_into().ok()?))?))
    };
    let lives = lives.iter().map(life).collect::<Option<Vec<_>>>()?;
    rest.is_empty().then(|| Lineage::try_from(lives).ok())?
}

fn issued_values(issued: EntryId) -> [Value; 3] {
    let life = Value::Blob(issued.life.0.to_vec());
    [timeline_value(issued.journal), life, lsn_value(issued.lsn)]
}

fn timeline_value(timeline: JournalId) -> Value {
    Value::Blob(timeline.0.to_vec())
}

fn lsn_value(lsn: Lsn) -> Value {
    Value::Integer(i64::try_from(lsn.get()).expect("BUG: an LSN beyond 63 bits"))
}

fn lsn_of(value: &Value) -> Option<Lsn> {
    match value {
        Value::Integer(number) => Lsn::new(u64::try_from(*number).ok()?),
        _ => None,
    }
}

pub(crate) fn single_integer(rows: &[Vec<Value>]) -> Option<i64> {
    match rows.first()?.first()? {
        Value::Integer(number) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tidelog_sqlite::View;

    use super::*;

    /// What becomes of a new document in which this has run, which no app could run.
    fn after(sql: &str, look: fn(&Transaction<'_>) -> Result<(), Failure>) -> Run<()> {
        let run = Writer::new(&View::new(usize::MAX, 0)).write(&mut |transaction| {
            begin_document(transaction)?;
            transaction.run_system(sql, &[])?;
            look(transaction)
        });
        run.map(|((), _)| ())
    }

    #[test]
    fn nothing_but_our_own_tables_has_names_like_theirs() {
        for sql in [
            "create table note (_tidelog_id text references list (_tidelog_id))",
            "create table tidelogs (id text references _tidelo)",
        ] {
            assert_eq!(after(sql, |it| check_migrated(it, false, false)), Run::Done(()), "{sql}");
        }
        for sql in [
            "create table _TideLog_mine (id text)",
            "create table TideLog_mine (id text)",
            "create view tidelog_events as select 1 as sequence",
            "create view _tidelog_view as select 1",
            "create index note on _tidelog_rejection (reason)",
            "create trigger note after insert on _tidelog_meta begin select 1; end",
            "create table note (id text references _tidelog_rejection (reason))",
            "create table note (id text, foreign key (id) references _TIDELOG_none)",
        ] {
            let run = after(sql, |it| check_migrated(it, false, false));
            assert!(matches!(run, Run::Failed(Failure::Forbidden { .. })), "{sql}: {run:?}");
        }
    }

    #[test]
    fn tables_under_which_no_frame_gets_its_verdict_are_seen() {
        assert_eq!(after("create table note (id text)", rehearse_verdicts), Run::Done(()));
        for sql in [
            "create table note (id text references _tidelog_rejection (reason))",
            "create trigger note before update on _tidelog_moved begin
             select raise(abort, 'no'); end",
            "drop table _tidelog_timeline",
        ] {
            let run = after(sql, rehearse_verdicts);
            assert!(matches!(run, Run::Failed(Failure::Sql { .. })), "{sql}: {run:?}");
        }
    }

    #[test]
    fn a_host_that_is_short_of_memory_has_no_verdict() {
        let shortage = Failure::Shortage { what: "memory".to_owned() };
        assert_eq!(reason_of(shortage.clone()), Err(shortage));
        let budget = Failure::Budget { what: "9 steps".to_owned() };
        assert_eq!(reason_of(budget), Ok("over the budget of 9 steps".to_owned()));
    }
}
