//! An authority without a server: a local document.

mod common;

use common::{POOLS, Rest, SERVER, integer, items, items_with_tags, spin, text};
use tidelog_document::{
    Applied, Authority, Committed, Doctype, Mutation, MutationDefinition, Verdict, chain_of,
    hash_of,
};
use tidelog_sqlite::{Failure, Params, Run, SystemQueries as _, View};
use tidelog_types::limits::{FRAME_REJECTIONS_TRIMMED_MAX, Limits};
use tidelog_types::{
    CallId, Chain, ClientId, EntryId, JournalId, Lineage, Lsn, LsnRange, Position, Value,
};

fn mutation(name: &str, args: &[(&str, Value)]) -> Mutation {
    Mutation {
        doctype: items().hash(),
        name: name.to_owned(),
        args: args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        now_ms: 5,
        client: ClientId([7; 16]),
        user: String::new(),
        kept_rejections: Lsn::FIRST,
        moved_from: None,
    }
}

fn open(rest: &Rest, position: Position, pool: usize) -> Authority {
    let lives = Lineage::default();
    Authority::new(View::new(pool, rest.0.db_pages), position, lives, SERVER)
}

/// How many migrations the document has seen.
fn version(authority: &mut Authority) -> Run<Vec<Vec<Value>>> {
    let query = "select value from _tidelog_meta where key = 'version'";
    authority.reader().query_system(query, &[])
}

#[test]
fn a_local_document_counts_on_through_opening_and_a_failure_leaves_nothing() {
    for pool in POOLS {
        let doctype = items();
        let start = Position::start_of(JournalId([1; 16]));
        let mut rest = Rest::default();
        let mut authority = open(&rest, start, pool);
        let Committed { entry, hash, .. } =
            authority.migrate(&doctype).unwrap().expect("it was empty");
        assert_eq!(hash, hash_of(&entry.set));
        assert_eq!(entry.position.chain, chain_of(Chain::default(), entry.range, &entry.set));
        rest.0.absorb(&entry.set);
        for n in 0..30 {
            let view = authority.view().clone();
            let (call, add) = (CallId([n; 16]), [("id", text(&n.to_string())), ("n", integer(1))]);
            let add = mutation("add", &add);
            let apply = || authority.apply_local(call, &add, &doctype);
            let applied = rest.serve(&view, apply).expect("it runs");
            let entry = authority.seal().expect("a mutation was applied");
            assert_eq!(entry.calls, [(call, applied.lsn)]);
            assert_eq!(entry.range, LsnRange::one(Lsn::FIRST.plus(u64::from(n) + 1)));
            rest.0.absorb(&entry.set);
        }

        let mut authority = open(&rest, authority.position(), pool);
        let view = authority.view().clone();
        let rows = rest.serve(&view, || version(&mut authority)).expect("it reads");
        assert_eq!(rows, [[integer(1)]]);
        let before = authority.position();
        let bump = mutation("bump", &[("by", integer(99))]);
        let failed = rest.serve(&view, || authority.apply_local(CallId([99; 16]), &bump, &doctype));
        assert!(matches!(failed, Err(Failure::Sql { .. })), "{failed:?}");
        assert_eq!(authority.position(), before);
        let query = "select (select count(*) from item), (select count from total)";
        let rows = rest.serve(&view, || authority.reader().query(query, &Params::NONE));
        assert_eq!(rows.expect("it reads").decode(), [[integer(30), integer(0)]]);
    }
}

#[test]
fn a_successor_migrates_once_and_its_predecessor_never_again() {
    let (older, newer) = (items(), items_with_tags());
    let mut authority = open(&Rest::default(), Position::start_of(JournalId([1; 16])), 16);
    assert!(authority.migrate(&older).unwrap().is_some());
    assert!(authority.migrate(&older).unwrap().is_none());
    assert!(authority.migrate(&newer).unwrap().is_some());
    assert!(authority.migrate(&newer).unwrap().is_none());
    assert!(authority.migrate(&older).unwrap().is_none());
    assert_eq!(version(&mut authority).unwrap(), [[integer(2)]]);
}

/// Goal: a migration that is only tried leaves nothing, be it that it runs or not, and whatever is
/// run next knows nothing of it. Method: the same document migrates and goes on as one on which
/// nothing was tried.
#[test]
fn what_is_only_tried_leaves_nothing_behind() {
    let (older, newer) = (items(), items_with_tags());
    let mut broken = newer.clone();
    broken.migrations[1].push_str("; insert into nothing values (1)");
    let outcomes = [true, false].map(|is_tried| {
        let start = Position::start_of(JournalId([1; 16]));
        let mut authority = open(&Rest::default(), start, 100);
        assert!(authority.migrate(&older).unwrap().is_some());
        let before = authority.view().image();
        if is_tried {
            assert!(authority.try_migration(&newer).unwrap(), "it runs");
            assert!(!authority.try_migration(&older).unwrap(), "there is nothing to run");
            let failed = authority.try_migration(&broken);
            assert!(matches!(failed, Run::Failed(Failure::Sql { .. })), "{failed:?}");
        }
        assert!(authority.view().image() == before);
        assert_eq!(version(&mut authority).unwrap(), [[integer(1)]]);
        let add = mutation("add", &[("id", text("a")), ("n", integer(1))]);
        authority.apply_local(CallId([1; 16]), &add, &older).unwrap();
        let entries = [authority.seal(), authority.migrate(&newer).unwrap().map(|it| it.entry)];
        (authority.position(), entries)
    });
    assert!(outcomes[0] == outcomes[1]);
}

#[test]
fn a_migration_that_fails_leaves_the_older_version() {
    let older = items();
    let mut newer = items_with_tags();
    newer.migrations[1].push_str("; insert into nothing values (1)");
    let mut authority = open(&Rest::default(), Position::start_of(JournalId([1; 16])), 16);
    assert!(authority.migrate(&older).unwrap().is_some());
    let before = authority.position();
    assert!(matches!(authority.migrate(&newer), Run::Failed(Failure::Sql { .. })));
    assert_eq!(authority.position(), before);
    assert_eq!(version(&mut authority).unwrap(), [[integer(1)]]);
}

/// Whoever gives an authority its time has to know what a mutation took, whatever became of it.
#[test]
fn what_a_mutation_took_is_counted_also_if_it_was_rejected() {
    let mut doctype = items();
    doctype.mutations.push(spin());
    let limits = Limits { statement_steps_max: 200_000, ..Limits::DEFAULT };
    let view = View::new(usize::MAX, 0).with_limits(limits);
    let start = Position::start_of(JournalId([1; 16]));
    let mut authority = Authority::new(view, start, Lineage::default(), SERVER);
    assert!(authority.migrate(&doctype).unwrap().is_some());
    authority.take_steps();
    let mut took = |name: &str, args: &[(&str, Value)], lsn: Lsn| {
        let origin = EntryId { journal: JournalId([2; 16]), life: SERVER, lsn };
        let mutation = Mutation { doctype: doctype.hash(), ..mutation(name, args) };
        let Applied { verdict, .. } = authority.apply(origin, &mutation, &doctype).unwrap();
        (verdict == Verdict::Applied, authority.take_steps())
    };
    let (is_applied, steps) = took("spin", &[("times", integer(1 << 40))], Lsn::FIRST);
    assert!(!is_applied && steps > 200_000, "{steps}");
    let (is_applied, steps) = took("bump", &[("by", integer(1))], Lsn::FIRST.next());
    assert!(is_applied && steps < 20_000, "{steps}");
}

/// Goal: a mutation that was rejected unrun has that verdict under its other names too,
/// and one that was applied under another name is not called rejected. Method: the same mutation
/// as two entries to which it has moved, and as the one that it was, whichever comes first.
#[test]
fn what_is_rejected_unrun_has_one_verdict_under_all_its_names() {
    let doctype = items();
    let [issued, moved, moved_too] =
        [2, 3, 4].map(|id| EntryId { journal: JournalId([id; 16]), life: SERVER, lsn: Lsn::FIRST });
    let named = |origin: EntryId| {
        let moved_from = (origin != issued).then_some(issued);
        Mutation { moved_from, ..mutation("bump", &[("by", integer(1))]) }
    };
    for [rejected, run] in [[moved, moved_too], [moved, issued], [issued, moved]] {
        for is_run_first in [false, true] {
            let start = Position::start_of(JournalId([1; 16]));
            let mut authority = open(&Rest::default(), start, usize::MAX);
            assert!(authority.migrate(&doctype).unwrap().is_some());
            let mut verdicts = Vec::new();
            for is_run in [is_run_first, !is_run_first] {
                let origin = if is_run { run } else { rejected };
                let applied = match is_run {
                    true => authority.apply(origin, &named(origin), &doctype),
                    false => authority.reject(origin, Some(&named(origin)), "it ends the server"),
                };
                verdicts.push(applied.unwrap().verdict);
            }
            let first = match is_run_first {
                true => Verdict::Applied,
                false => Verdict::Rejected { reason: "it ends the server".to_owned() },
            };
            assert_eq!(verdicts, [first.clone(), first], "{rejected:?} {run:?} {is_run_first}");
            let query = "select count from total";
            let count = authority.reader().query(query, &Params::NONE).unwrap().decode();
            assert_eq!(count, [[integer(i64::from(is_run_first))]]);
        }
    }
}

/// Goal: however much a copy of a client moves, the document notes it in one row, and whichever
/// other copy comes later has the same verdicts, until the first copy has kept what was rejected:
/// then nobody can tell, and nothing is run again. Method: one copy moves mutations of which every
/// fifth is rejected, and others bring them moved and unmoved.
#[test]
fn what_moves_together_is_noted_in_one_row_and_never_run_again() {
    const MOVED: u64 = 50;
    let doctype = items();
    let start = Position::start_of(JournalId([1; 16]));
    let mut authority = open(&Rest::default(), start, usize::MAX);
    assert!(authority.migrate(&doctype).unwrap().is_some());
    let entry = |timeline: u8, lsn: u64| {
        let lsn = Lsn::FIRST.plus(lsn);
        EntryId { journal: JournalId([timeline; 16]), life: SERVER, lsn }
    };
    let issued = |nth: u64| entry(2, 700 + nth);
    let named = |nth: u64| match nth % 5 {
        4 => mutation("bump", &[("by", integer(99))]),
        _ => mutation("bump", &[("by", integer(1))]),
    };
    let mut decide = |origin: EntryId, moved_from: Option<EntryId>, nth: u64, kept: Lsn| {
        let mutation = Mutation { moved_from, kept_rejections: kept, ..named(nth) };
        authority.apply(origin, &mutation, &doctype).unwrap().verdict
    };
    let first: Vec<Verdict> =
        (0..MOVED).map(|nth| decide(entry(3, nth), Some(issued(nth)), nth, Lsn::FIRST)).collect();
    let is_rejected = |verdict: &&Verdict| matches!(verdict, Verdict::Rejected { .. });
    assert_eq!(first.iter().filter(is_rejected).count(), 10);
    for nth in 0..MOVED {
        let verdict = first[nth as usize].clone();
        assert_eq!(decide(entry(4, nth), Some(issued(nth)), nth, Lsn::FIRST), verdict, "{nth}");
        assert_eq!(decide(issued(nth), None, nth, Lsn::FIRST), verdict, "{nth}");
    }
    // The first copy has kept the rejections before its 33rd frame, of which the 30th is the last,
    // and goes on.
    let kept = entry(3, 32).lsn;
    assert_eq!(decide(entry(3, MOVED), None, 0, kept), Verdict::Applied);
    for nth in 0..MOVED {
        let verdict = decide(entry(5, nth), Some(issued(nth)), nth, Lsn::FIRST);
        if nth < 30 {
            let Verdict::Rejected { reason } = verdict else { panic!("{nth} was run") };
            assert!(reason.starts_with("nobody can tell"), "{nth}: {reason}");
        } else {
            assert_eq!(verdict, first[nth as usize], "{nth}");
        }
    }
    let mut ask = |query: &str| authority.reader().query_system(query, &[]).unwrap();
    assert_eq!(ask("select count from total"), [[integer(41)]]);
    let rows = ask("select first, last, place_first from _tidelog_moved");
    assert_eq!(rows, [[integer(701), integer(750), integer(1)]]);
}

/// Goal: no verdict costs more than its own frame, however many rejections its client has kept.
/// Method: one frame says so of many, and the frames behind it bring no more.
#[test]
fn a_frame_trims_only_so_many_rejections_and_those_behind_it_the_rest() {
    const REJECTED: u64 = 2 * FRAME_REJECTIONS_TRIMMED_MAX + 10;
    let doctype = items();
    let start = Position::start_of(JournalId([1; 16]));
    let mut authority = open(&Rest::default(), start, usize::MAX);
    assert!(authority.migrate(&doctype).unwrap().is_some());
    let entry = |lsn: u64| {
        let lsn = Lsn::FIRST.plus(lsn);
        EntryId { journal: JournalId([2; 16]), life: SERVER, lsn }
    };
    let bump = |by| mutation("bump", &[("by", integer(by))]);
    for nth in 0..REJECTED {
        authority.reject(entry(nth), Some(&bump(1)), "of no use").unwrap();
    }
    let kept_rejections = entry(REJECTED).lsn;
    // The second of these is rejected itself.
    for (nth, by) in [(0, 1), (1, 99), (2, 1), (3, 1)] {
        let mutation = Mutation { kept_rejections, ..bump(by) };
        authority.apply(entry(REJECTED + nth), &mutation, &doctype).unwrap();
        let mut ask = |query: &str| authority.reader().query_system(query, &[]).unwrap();
        let trimmed = REJECTED.min((nth + 1) * FRAME_REJECTIONS_TRIMMED_MAX);
        let left = REJECTED - trimmed + u64::from(nth > 0);
        let integer = |number: u64| integer(i64::try_from(number).expect("few"));
        assert_eq!(ask("select count(*) from _tidelog_rejection"), [[integer(left)]], "{nth}");
        let forgotten = entry(trimmed).lsn.get();
        let rows = ask("select forgotten from _tidelog_timeline");
        assert_eq!(rows, [[integer(forgotten)]], "the oldest go first");
    }
}

/// Goal: whoever migrated a document plans as all others do from then on. Method: a document that
/// was analyzed loses an index, and then a join inserts rows: by the writer that has migrated, and
/// by one that comes to the same pages.
#[test]
fn who_migrated_inserts_rows_in_the_order_of_whoever_comes_later() {
    let define = |name: &str, sql: &str| MutationDefinition {
        name: name.to_owned(),
        params: Vec::new(),
        sql: vec![sql.to_owned()],
    };
    let before = Doctype {
        name: "joined".to_owned(),
        migrations: vec![
            "create table a (x); create index a_x on a (x); create table b (x);
             create table log (id integer primary key autoincrement, what text);
             insert into a values (1); insert into b values (1), (2), (3); analyze;
             insert into a values (2), (3)"
                .to_owned(),
        ],
        mutations: vec![define("join", "insert into log (what) select a.x || b.x from a, b")],
        streams: Vec::new(),
        workflows: Vec::new(),
    };
    for migration in [
        "drop index a_x",
        "drop table sqlite_stat1",
        "delete from a; delete from b; analyze; insert into a values (1), (2); insert into b
         values (1), (2)",
    ] {
        let mut after = before.clone();
        after.migrations.push(migration.to_owned());
        let start = Position::start_of(JournalId([1; 16]));
        let mut rest = Rest::default();
        let mut authority = open(&rest, start, usize::MAX);
        for doctype in [&before, &after] {
            rest.0.absorb(&authority.migrate(doctype).unwrap().expect("it is behind").entry.set);
        }
        let position = authority.position();
        let later = open(&rest, position, usize::MAX);
        let mut logs = Vec::new();
        for mut authority in [authority, later] {
            let view = authority.view().clone();
            let join = mutation("join", &[]);
            let apply = || authority.apply_local(CallId([1; 16]), &join, &after);
            rest.serve(&view, apply).expect("it runs");
            let query = "select id, what from log order by id";
            let log = rest.serve(&view, || authority.reader().query(query, &Params::NONE));
            logs.push(log.expect("it reads").decode());
        }
        assert_eq!(logs[0], logs[1], "{migration}");
    }
}
