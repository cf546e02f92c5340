//! The app that the tabs run: one doctype, in three releases, whose every mutation leaves a row
//! with its own name, so that a second run or a lost one would show.

use std::ops::Range;

use tidelog_document::{
    CommandDefinition, Doctype, EventDefinition, FoundRight, MutationDefinition, Param, ParamKind,
    StreamDefinition, WorkflowDefinition,
};
use tidelog_types::Value;

use crate::swarm::Kind;

/// What the app's releases know the documents by: both others succeed the first, and neither of
/// them the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Release {
    First,
    Second,
    Fork,
}

impl Release {
    pub(crate) const ALL: [Self; 3] = [Self::First, Self::Second, Self::Fork];

    /// Whether one of the two succeeds the other.
    pub(crate) fn goes_with(self, other: Self) -> bool {
        self == other || self == Self::First || other == Self::First
    }

    /// The table that its migration makes, which says how many entries there were then.
    pub(crate) fn own_table(self) -> Option<&'static str> {
        match self {
            Self::First => None,
            Self::Second => Some("mark"),
            Self::Fork => Some("badge"),
        }
    }
}

thread_local! {
    static FOUND_RIGHT: FoundRight = FoundRight::default();
}

/// The releases that were found right on this thread: they are the same in all worlds.
pub(crate) fn found_right() -> FoundRight {
    FOUND_RIGHT.with(FoundRight::clone)
}

/// What tabs read, once and live: the names of all mutations that were applied, in their order, and
/// how many there are as another table counts them.
pub(crate) const ENTRIES: &str = "select id, (select entries from total) from entry order by seq";
/// The same, once a release has made the table that it looks at.
pub(crate) const MARKED: &str = "select id, (select entries from total) from entry, \
     (select count(*) from mark) order by seq";

/// The same of the other release.
pub(crate) const BADGED: &str = "select id, (select entries from total) from entry, \
     (select count(*) from badge) order by seq";

/// What fails for what is in the document, two times in five, and says the same at all others.
pub(crate) const FRAGILE: &str =
    "select case when count(*) % 5 in (2, 3) then json('{') else 'whole' end from entry";

/// What some tabs read live besides: pages that most mutations leave alone.
pub(crate) const CLAIMS: &str = "select name || ' ' || id from claim order by name";

/// Rows that have a page each, so that most mutations leave most of them alone.
pub(crate) const CELLS: u64 = 8;

/// Bytes of the rest of a long one: pages that are full, and a last one that may not be.
const LONG_SIZES: Range<u64> = 12_000..13_000;

/// The first so many of them are watched.
pub(crate) const WATCHED_CELLS: usize = 4;

/// Those that are watched. Nothing else is read, so that nothing else makes this run again.
pub(crate) const SOME_CELLS: &str =
    "select n || ' ' || id || ' ' || puts from cell where n <= 4 order by n";

/// The ends of those that have a long rest.
pub(crate) const ENDS: &str = "select n || ' ' || hex(substr(rest, -8)) from cell
     where n > 4 and length(rest) > 4096 order by n";

/// All of them, and how many there are if they are as many times put as another table counts.
pub(crate) const ALL_CELLS: &str = "
    select n || ' ' || id || ' ' || puts, (
        select iif(sum(puts) = (select puts from total), count(*), -1) from cell
    ) from cell order by n";

/// The keys of its parts are negative: SQLite writes those, as those of 64 bits, in nine bytes.
const FIRST: &str = "
    create table entry (seq integer primary key, id text not null, at integer not null, body blob)
    strict;
    create table claim (name text primary key, id text not null) strict;
    create table total (
        one integer primary key, bumps integer not null, digest integer not null,
        entries integer not null, puts integer not null
    ) strict;
    insert into total values (1, 0, 7, 0, 0);
    create table cell (
        n integer primary key, id text not null, puts integer not null, rest blob not null
    ) strict;
    create table part (entry integer not null references entry (seq), n integer not null) strict;
    create trigger counted after insert on entry begin
        update total set entries = entries + 1;
        insert into part (rowid, entry, n)
        select value - 3 * new.seq, new.seq, value
        from (select 1 as value union all select 2) where new.seq % 3 = 0;
    end;";

const SECOND: &str = "
    create table mark (id text not null, entries integer not null) strict;
    insert into mark select 'the release', count(*) from entry;
    update cell set id = id || '!';
    update claim set id = id || '!';
    create index entry_at on entry (at, id);";

const FORK: &str = "
    create table badge (entries integer not null, id text not null) strict;
    insert into badge select count(*), 'the release' from entry;
    update cell set id = id || '?';
    create index entry_id on entry (id);";

/// What follows from commands and their events: how many were sent, done and failed by stream, and
/// each that was done.
const JOBS: &str = "
    create table job (
        stream text primary key, sent integer not null, done integer not null,
        failed integer not null
    ) strict;
    create table job_done (
        sequence integer primary key, stream text not null, position integer not null,
        id text not null
    ) strict;";

/// The aggregate that tasks are about, its command, its event, and what sends that command.
pub(crate) const JOB: &str = "job";
pub(crate) const DO: &str = "do";
pub(crate) const DONE: &str = "done";
pub(crate) const SEND_DO: &str = "send:job.do";

/// The tables of [`JOBS`].
pub(crate) const JOB_TABLES: [&str; 2] = ["job", "job_done"];

/// How often a command is tried again, and milliseconds that an attempt may take.
pub(crate) const RETRIES: u32 = 3;
const TIMEOUT_MS: u32 = 20_000;

/// What may be asked of a job, and what happens to it.
fn jobs() -> StreamDefinition {
    let id = || vec![param("id", ParamKind::Text)];
    let sql = |sql: &[&str]| sql.iter().map(ToString::to_string).collect();
    let done = EventDefinition {
        name: DONE.to_owned(),
        // Which command, at which attempt, and how long its stream was when that was decided.
        fields: [
            id(),
            vec![param("attempt", ParamKind::Integer), param("after", ParamKind::Integer)],
        ]
        .concat(),
        upcasts: Vec::new(),
        project: sql(&[
            "insert into job_done values (:sequence, :stream, :position, :id)",
            "update job set done = done + 1 where stream = :stream",
        ]),
    };
    let command = CommandDefinition {
        name: DO.to_owned(),
        fields: id(),
        received: sql(&["insert into job values (:stream, 1, 0, 0)
              on conflict (stream) do update set sent = sent + 1"]),
        failed: sql(&["update job set failed = failed + 1 where stream = :stream"]),
        retries: RETRIES,
        timeout_ms: TIMEOUT_MS,
    };
    StreamDefinition { name: JOB.to_owned(), events: vec![done], commands: vec![command] }
}

/// The workflow, and what starts and cancels a run of it.
pub(crate) const FLOW: &str = "flow";
pub(crate) const START_FLOW: &str = "start:flow";
pub(crate) const CANCEL_FLOW: &str = "cancel:flow";

/// Its newest version at each release: whoever starts a run starts one of that.
pub(crate) fn flow_version(release: Release) -> u32 {
    if release == Release::First { 1 } else { 2 }
}

/// The doctype of all documents, with tasks or without.
pub(crate) fn doctype(release: Release, kind: Kind) -> Doctype {
    let text = |name: &str| param(name, ParamKind::Text);
    let mut doctype = Doctype {
        name: "ledger".to_owned(),
        migrations: vec![FIRST.to_owned()],
        mutations: vec![
            define("add", vec![], &[ENTRY]),
            define("bump", vec![], &["update total set bumps = bumps + 1", ENTRY]),
            define("put", vec![param("n", ParamKind::Integer)], &[LAY, PUT, COUNT_PUT, ENTRY]),
            define(
                "stretch",
                vec![param("n", ParamKind::Integer), param("size", ParamKind::Integer)],
                &[LAY, "update cell set rest = zeroblob(:size) where n = :n", ENTRY],
            ),
            // Of pages of a long rest it changes the last one alone.
            define("end", vec![param("n", ParamKind::Integer)], &[END, ENTRY]),
            define(
                "fold",
                vec![param("n", ParamKind::Integer)],
                &["update total set digest = (digest * 31 + :n) % 1000003", ENTRY],
            ),
            define(
                "claim",
                vec![text("name")],
                &[UNLESS_TAKEN, "insert into claim values (:name, :id)", ENTRY],
            ),
            define(
                "renounce",
                vec![text("name")],
                &["delete from claim where name = :name", ENTRY],
            ),
            // Whoever is rejected had changed pages that nobody else has.
            define(
                "take",
                vec![text("name"), param("n", ParamKind::Integer)],
                &[
                    UNLESS_TAKEN,
                    "insert into claim values (:name, :id)",
                    LAY,
                    PUT,
                    COUNT_PUT,
                    ENTRY,
                ],
            ),
            define(
                "large",
                vec![param("body", ParamKind::Blob)],
                &["insert into entry (id, at, body) values (:id, :now, :body)"],
            ),
            // Whose rejection needs a page.
            define(
                "contest",
                vec![text("name")],
                &[
                    "select reject('taken' || hex(zeroblob(1500)))
                     where exists (select 1 from claim where name = :name)",
                    "insert into claim values (:name, :id)",
                    ENTRY,
                ],
            ),
            define(
                "prune",
                vec![],
                &[
                    "delete from part where entry % 2 = 0",
                    "update entry set body = null where seq % 2 = 0",
                    ENTRY,
                ],
            ),
            define("clear", vec![], &["update entry set body = null", ENTRY]),
            define(
                "heavy",
                vec![param("n", ParamKind::Integer)],
                &["with recursive count (x) as (
                       select 1 union all select x + 1 from count where x < :n
                   )
                   insert into entry (id, at) select :id, :now + max(x) * 0 from count"],
            ),
        ],
        streams: Vec::new(),
        workflows: Vec::new(),
    };
    if kind != Kind::Plain {
        doctype.migrations[0].push_str(JOBS);
        doctype.streams.push(jobs());
    }
    if kind == Kind::WithRuns {
        let fields = vec![param("id", ParamKind::Text), param("round", ParamKind::Integer)];
        let (name, version) = (FLOW.to_owned(), flow_version(release));
        doctype.workflows.push(WorkflowDefinition { name, version, fields });
    }
    let (migration, sql) = match release {
        Release::First => return doctype,
        Release::Second => {
            let bumped = EventDefinition {
                name: "bumped".to_owned(),
                fields: vec![text("id")],
                upcasts: Vec::new(),
                project: vec!["insert into mark select :id, count(*) from entry".to_owned()],
            };
            let (name, events) = ("total".to_owned(), vec![bumped]);
            let stream = StreamDefinition { name, events, commands: Vec::new() };
            doctype.streams.push(stream);
            (SECOND, BUMPED)
        }
        Release::Fork => (FORK, "insert into badge select count(*), :id from entry"),
    };
    doctype.migrations.push(migration.to_owned());
    let bump = doctype.mutations.iter_mut().find(|mutation| mutation.name == "bump");
    bump.expect("BUG: it bumps").sql.push(sql.to_owned());
    doctype
}

/// An event, of one of some streams, from which a mark follows.
const BUMPED: &str = "insert into tidelog_events (aggregate, stream, type, data)
     values ('total', substr(:id, -1), 'bumped', json_object('id', :id))";

const ENTRY: &str = "insert into entry (id, at) values (:id, :now)";

const UNLESS_TAKEN: &str =
    "select reject('taken') where exists (select 1 from claim where name = :name)";

/// Whoever puts first makes all cells, each so large that no other fits on its page.
const LAY: &str = "
    insert into cell
    with recursive number (n) as (select 1 union all select n + 1 from number where n < 8)
    select n, '', 0, zeroblob(3000) from number where not exists (select 1 from cell)";
const PUT: &str = "update cell set id = :id, puts = puts + 1 where n = :n";
const END: &str = "
    update cell set
        rest = cast(substr(rest, 1, length(rest) - 8) || substr('-------' || :id, -8) as blob)
    where n = :n and length(rest) > 4096";
const COUNT_PUT: &str = "update total set puts = puts + 1";

fn define(name: &str, more: Vec<Param>, sql: &[&str]) -> MutationDefinition {
    let params = [vec![param("id", ParamKind::Text)], more].concat();
    MutationDefinition {
        name: name.to_owned(),
        params,
        sql: sql.iter().map(ToString::to_string).collect(),
    }
}

fn param(name: &str, kind: ParamKind) -> Param {
    Param { name: name.to_owned(), kind, optional: false }
}

/// A mutation as a tab issues it.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) mutation: &'static str,
    pub(crate) args: Vec<(String, Value)>,
}

/// What is claimed, by its number.
pub(crate) fn claim_name(number: u64) -> String {
    format!("name-{number}")
}

impl Wish {
    /// `name` is its own, `number` stands for whatever else it wants.
    pub(crate) fn new(mutation: &'static str, name: &str, number: u64) -> Self {
        let integer = |number: u64| Value::Integer(i64::try_from(number).expect("BUG: small"));
        let mut args = vec![("id".to_owned(), Value::Text(name.to_owned()))];
        match mutation {
            "claim" | "contest" | "take" | "renounce" => {
                args.push(("name".to_owned(), Value::Text(claim_name(number))));
            }
            // Few of those that are watched, so that one meets the other.
            "stretch" | "end" => {
                args.push(("n".to_owned(), integer(CELLS - number % 3)));
                if mutation == "stretch" {
                    let size = LONG_SIZES.start + number / 8 % (LONG_SIZES.end - LONG_SIZES.start);
                    args.push(("size".to_owned(), integer(size)));
                }
            }
            "put" => args.push(("n".to_owned(), integer(1 + number % CELLS))),
            "fold" => args.push(("n".to_owned(), integer(number % 1_000))),
            "heavy" => args.push(("n".to_owned(), integer(1 + number % 6_000))),
            "large" => {
                let size = usize::try_from(1 + number % 120_000).expect("BUG: small");
                let byte = u8::try_from(number % 251).expect("BUG: below 251");
                args.push(("body".to_owned(), Value::Blob(vec![byte; size])));
            }
            _ => {}
        }
        if mutation == "take" {
            // Those who want the same name put something into different cells.
            let own = name.bytes().map(u64::from).sum::<u64>();
            args.push(("n".to_owned(), integer(1 + own % CELLS)));
        }
        Self { mutation, args }
    }
}
