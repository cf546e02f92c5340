//! Which doctypes a document may be used by.

use tidelog_document::{Doctype, Param, ParamKind};
use tidelog_sync::{Intent, codec};
use tidelog_types::limits::{DOCTYPE_SIZE_MAX, MUTATION_PARAMS_MAX, MUTATION_STATEMENTS_MAX};

use super::{Stranger, notes, open, open_named};

const FOLLOW: Intent = Intent::Follow;
const BEGUN: [&str; 2] = ["opened from 1 wanted 1 lives 0", "entry 1..2"];

/// What cannot work, and what only just can.
pub(super) fn tell_of_flaws(it: &mut Stranger) -> Result<(), String> {
    let migrated = |sql: &str| {
        let mut doctype = notes(1);
        doctype.migrations.push(sql.to_owned());
        doctype
    };
    let stated = |sql: &str| changed(|doctype| doctype.mutations[0].sql.push(sql.to_owned()));
    let flawed = [
        migrated("create table note (id)"),
        migrated("create tabel more (id)"),
        stated("insert into nowhere values (1)"),
        stated("insert into note values (:other, 1)"),
        stated("insert into note values (:id, random())"),
        stated("delete from _tidelog_meta"),
        changed(|doctype| doctype.mutations[0].params[0].name = "now".to_owned()),
        changed(|doctype| doctype.mutations[0].params[0].name = "client".to_owned()),
        with_params(MUTATION_PARAMS_MAX + 1),
        with_statements(MUTATION_STATEMENTS_MAX + 1),
    ];
    for doctype in &flawed {
        it.says(1, open(doctype, None, FOLLOW), &["doctype invalid"])?;
    }
    it.says(1, open_named("notes", vec![9; 40], None, FOLLOW), &["doctype invalid"])?;
    let large = vec![0; DOCTYPE_SIZE_MAX + 1];
    it.says(1, open_named("notes", large, None, FOLLOW), &["doctype invalid"])?;
    // None of them has made the document.
    let good = [with_params(MUTATION_PARAMS_MAX), with_statements(MUTATION_STATEMENTS_MAX)];
    for (doctype, name) in good.iter().zip(["params", "statements"]) {
        let channel = u32::try_from(name.len()).expect("BUG: short");
        let open = open_named(name, codec::encode(doctype), None, FOLLOW);
        it.says(channel, open, &BEGUN)?;
    }
    it.says(1, open(&notes(1), None, FOLLOW), &BEGUN)?;
    // A document that is there is not changed by those either.
    let have = it.position;
    it.says(1, open(&flawed[0], have, FOLLOW), &["doctype invalid"])?;
    it.says(1, open(&flawed[2], have, FOLLOW), &["doctype invalid"])?;
    it.says(1, open(&notes(1), have, FOLLOW), &["opened from 2 wanted 1 lives 0"])
}

/// Older and newer ones, others, and those of a server that has begun again.
pub(super) fn tell_of_versions(it: &mut Stranger) -> Result<(), String> {
    it.says(1, open(&notes(2), None, FOLLOW), &BEGUN)?;
    let mut other = notes(2);
    other.name = "lists".to_owned();
    it.says(2, open(&other, None, FOLLOW), &["doctype mismatch"])?;
    let mut beside = notes(2);
    beside.migrations[1] = "create table beside (id)".to_owned();
    it.says(2, open(&beside, None, FOLLOW), &["doctype mismatch"])?;
    // The frames of an older one are known once it was brought.
    let frames = it.frames(1, 1, &["no"]);
    it.says(1, frames, &["undecided 1", "acked 1"])?;
    let have = it.position;
    let opened = "opened from 2 wanted 1 lives 0";
    it.says(1, open(&notes(1), have, FOLLOW), &[opened])?;
    let frames = it.frames(1, 1, &["no"]);
    it.says(1, frames, &["entry 2..3", "acked 2"])?;
    it.restart()?;
    let have = it.position;
    let opened = "opened from 3 wanted 2 lives 1";
    it.says(1, open(&notes(1), have, FOLLOW), &[opened])?;
    it.says(2, open(&notes(4), have, FOLLOW), &[opened, "entry 3..4"])?;
    it.hears(1, &["entry 3..4"])?;
    // One in between changes nothing, and all of them may be used.
    let have = it.position;
    it.says(2, open(&notes(3), have, FOLLOW), &["opened from 4 wanted 2 lives 1"])?;
    for (nth, version) in [1, 2, 3, 4].into_iter().enumerate() {
        let first = 2 + nth as u64;
        let frames = it.frames_of(&notes(version), 1, first, &["no"]);
        let entry = format!("entry {}..{}", first + 2, first + 3);
        let acked = format!("acked {}", first + 1);
        it.says(2, frames, &[&entry, &acked])?;
        it.hears(1, &[&entry])?;
    }
    // The newest is the one that others have to go on from.
    let have = it.position;
    let mut beside = notes(4);
    beside.migrations[3] = "create table beside (id)".to_owned();
    it.says(2, open(&beside, have, FOLLOW), &["doctype mismatch"])
}

fn changed(change: impl FnOnce(&mut Doctype)) -> Doctype {
    let mut doctype = notes(1);
    change(&mut doctype);
    doctype
}

fn with_params(count: usize) -> Doctype {
    let param = |n| Param { name: format!("p{n}"), kind: ParamKind::Integer, optional: true };
    changed(|doctype| doctype.mutations[0].params.extend((1..count).map(param)))
}

fn with_statements(count: usize) -> Doctype {
    changed(|doctype| doctype.mutations[0].sql.resize(count, "select 1".to_owned()))
}
