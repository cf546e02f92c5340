//! What is in the system tables of a document that was taken out: read as `program.rs` draws them,
//! by plain SQL.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};
use tidelog_types::limits::REASON_SIZE_MAX;

use tidelog_document::is_reserved;

use crate::app::{Release, doctype};
use crate::swarm::Kind;

/// Bytes of a life and of where it began.
const LIFE_SIZE: usize = 24;

/// How much of a timeline is applied, and the rejections before which are gone.
struct Timeline {
    wanted: i64,
    forgotten: i64,
}

/// Frames that have their verdicts in another timeline.
struct Moved {
    issued: (Vec<u8>, Vec<u8>),
    first: i64,
    last: i64,
    place: Vec<u8>,
    place_first: i64,
}

/// # Errors
///
/// What cannot be so.
pub(crate) fn judge(file: &Connection, lives_kept_max: usize) -> Result<(), String> {
    let judge = || -> rusqlite::Result<Result<(), String>> {
        if let Err(what) = judge_version(file)? {
            return Ok(Err(what));
        }
        let timelines = match timelines(file, lives_kept_max)? {
            Ok(timelines) => timelines,
            Err(what) => return Ok(Err(what)),
        };
        let rejected = judge_rejections(file, &timelines)?;
        Ok(rejected.and(judge_moved(file, &timelines)?))
    };
    let judged = judge().unwrap_or_else(|error| Err(error.to_string()));
    judged.map_err(|what| format!("the system tables say what is not so: {what}"))
}

fn judge_version(file: &Connection) -> rusqlite::Result<Result<(), String>> {
    let sql = "select group_concat(key || ' ' || value),
               1 + (select count(*) from sqlite_schema where name in ('mark', 'badge')),
               (select count(*) from sqlite_schema where name in ('mark', 'job')) > 0,
               (select count(*) from sqlite_schema where name = 'job')
               from _tidelog_meta where key in ('events', 'tasks', 'version')";
    let (meta, version, has_events, has_tasks): (String, i64, bool, bool) =
        file.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let events = if has_events { "events 1," } else { "" };
    let tasks = if has_tasks { "tasks 1," } else { "" };
    let is_so = meta == format!("{events}{tasks}version {version}");
    Ok(if is_so { Ok(()) } else { Err(format!("{meta}, and {version} migrations have run")) })
}

type Timelines = BTreeMap<Vec<u8>, Timeline>;

fn timelines(
    file: &Connection,
    lives_kept_max: usize,
) -> rusqlite::Result<Result<Timelines, String>> {
    let mut timelines = Timelines::new();
    let mut statement =
        file.prepare("select timeline, wanted, lives, forgotten from _tidelog_timeline")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let timeline = Timeline { wanted: row.get(1)?, forgotten: row.get(3)? };
        let lives: Vec<u8> = row.get(2)?;
        let Timeline { wanted, forgotten } = timeline;
        if !may_have_written(&lives, wanted, lives_kept_max) || forgotten < 1 || forgotten > wanted
        {
            let what = format!("wanted {wanted}, forgotten {forgotten}, lives {lives:?}");
            return Ok(Err(what));
        }
        timelines.insert(row.get(0)?, timeline);
    }
    Ok(Ok(timelines))
}

/// Whether these lives, one after the other, may have written all before `wanted`: all of them are
/// known, or as many as are kept.
fn may_have_written(lives: &[u8], wanted: i64, kept_max: usize) -> bool {
    let (lives, rest) = lives.as_chunks::<LIFE_SIZE>();
    let begins: Vec<u64> =
        lives.iter().filter_map(|life| Some(u64::from_le_bytes(*life.last_chunk()?))).collect();
    let names = |nth: usize| &lives[nth][..16];
    let is_in_order = begins.is_sorted_by(|one, next| one < next)
        && (1..lives.len()).all(|nth| (0..nth).all(|before| names(before) != names(nth)));
    let is_complete = begins.first() == Some(&1) || lives.len() == kept_max;
    let last = begins.last().copied().unwrap_or(0);
    rest.is_empty()
        && is_in_order
        && is_complete
        && lives.len() <= kept_max
        && i64::try_from(last).is_ok_and(|last| last < wanted)
}

fn judge_rejections(
    file: &Connection,
    timelines: &Timelines,
) -> rusqlite::Result<Result<(), String>> {
    let known = doctype(Release::Second, Kind::Plain);
    let mut statement =
        file.prepare("select timeline, lsn, mutation, reason from _tidelog_rejection")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (timeline, lsn): (Vec<u8>, i64) = (row.get(0)?, row.get(1)?);
        let (mutation, reason): (String, String) = (row.get(2)?, row.get(3)?);
        let is_in = |it: &Timeline| (it.forgotten..it.wanted).contains(&lsn);
        let is_known = known.mutation(&mutation).is_some() || is_reserved(&mutation);
        let is_told = (1..=REASON_SIZE_MAX).contains(&reason.len());
        if !timelines.get(&timeline).is_some_and(is_in) || !is_known || !is_told {
            return Ok(Err(format!("{mutation} at {lsn} was rejected: {reason}")));
        }
    }
    Ok(Ok(()))
}

fn judge_moved(file: &Connection, timelines: &Timelines) -> rusqlite::Result<Result<(), String>> {
    let sql = "select timeline, life, first, last, place, place_first from _tidelog_moved
               order by timeline, life, first";
    let moved = |row: &Row<'_>| {
        Ok(Moved {
            issued: (row.get(0)?, row.get(1)?),
            first: row.get(2)?,
            last: row.get(3)?,
            place: row.get(4)?,
            place_first: row.get(5)?,
        })
    };
    let all: Vec<Moved> =
        file.prepare(sql)?.query_map([], moved)?.collect::<rusqlite::Result<_>>()?;
    for one in &all {
        let place_last = one.place_first + one.last - one.first;
        let is_there = timelines.get(&one.place).is_some_and(|it| place_last < it.wanted);
        if one.first < 1 || one.first > one.last || !is_there {
            return Ok(Err(format!("frames {}..={} have moved to nowhere", one.first, one.last)));
        }
    }
    let pairs = all.windows(2).filter(|two| two[0].issued == two[1].issued);
    for two in pairs {
        let (one, next) = (&two[0], &two[1]);
        let end = one.place_first + one.last - one.first + 1;
        let goes_on =
            next.first == one.last + 1 && (&next.place, next.place_first) == (&one.place, end);
        if next.first <= one.last || goes_on {
            let (last, first) = (one.last, next.first);
            return Ok(Err(format!("frames up to {last}, and from {first} on, moved in two runs")));
        }
    }
    Ok(Ok(()))
}
