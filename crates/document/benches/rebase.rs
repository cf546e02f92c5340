//! How long a rebase takes, beside running its mutations for the first time.
//!
//! `cargo bench -p tidelog-document --bench rebase`, or `npm run bench -- --rebase`. A device has
//! issued mutations that no server has decided, and one of somebody else comes first: all of its
//! own run again. Goals: the same in a document of a hundred times as many rows within a fifth, and
//! one and a half times as long as the first time. All pages are in memory. Medians of five.
//! `--json` says the figures to `npm run bench` as well; `--quick` has fewer rows, to see that it
//! works.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{Device, Server, text};
use tidelog_document::{Doctype, MutationDefinition, Param, ParamKind, Verdict};
use tidelog_testing::figure;
use tidelog_types::Lsn;
use tidelog_types::limits::Limits;

const ROUNDS: usize = 5;
const ROWS: [u64; 2] = [10_000, 1_000_000];
const ROWS_QUICKLY: [u64; 2] = [10_000, 100_000];
/// What `npm run bench` calls them.
const SIZES: [&str; 2] = ["few rows", "many rows"];

const PENDING: [u64; 3] = [1, 100, 1_000];

/// Rows that one mutation fills in.
const FILLED_AT_ONCE: u64 = 10_000;

fn items() -> Doctype {
    let mutation = |name: &str, param: &str, kind: ParamKind, sql: &str| MutationDefinition {
        name: name.to_owned(),
        params: vec![Param { name: param.to_owned(), kind, optional: false }],
        sql: vec![sql.to_owned()],
    };
    Doctype {
        name: "items".to_owned(),
        migrations: vec![
            "create table item (id text primary key, title text not null, at integer)".to_owned(),
        ],
        mutations: vec![
            mutation(
                "fill",
                "from",
                ParamKind::Integer,
                "with recursive n(n) as (
                   select :from union all select n + 1 from n where n < :from + 9999)
                 insert into item select printf('%08x-row', (n * 2654435761) % 4294967296),
                   'title of ' || n, n from n",
            ),
            mutation("add", "id", ParamKind::Text, "insert into item values (:id, 'a new one', 1)"),
        ],
        streams: Vec::new(),
        workflows: Vec::new(),
    }
}

/// A server and two devices that follow it, in a document of so many rows.
fn filled(rows: u64) -> (Server, Device, Device) {
    let doctype = items();
    let mut server = Server::new(1, usize::MAX, &doctype);
    let following = |number, server: &Server| {
        let mut device = Device::with_limits(number, usize::MAX, &doctype, Limits::DEFAULT);
        device.hear(server.coalesced(Lsn::FIRST));
        device.settle();
        device
    };
    let mut other = following(1, &server);
    for from in (0..rows).step_by(usize::try_from(FILLED_AT_ONCE).expect("few")) {
        let from = i64::try_from(from).expect("few");
        let fill = other.issue(&doctype, "fill", &[("from", common::integer(from))]);
        let (verdict, entry) = server.take(other.replica.origin(fill.lsn), &fill);
        assert_eq!(verdict, Verdict::Applied);
        other.hear(entry);
        other.settle();
    }
    let device = following(2, &server);
    (server, other, device)
}

/// How long so many mutations take at first, and all of them in a rebase.
fn measured(stage: &mut (Server, Device, Device), pending: u64, round: usize) -> [Duration; 2] {
    let (server, other, device) = stage;
    let doctype = items();
    let id = |who: &str, number: u64| text(&format!("{who}-{round}-{pending}-{number}"));
    let began = Instant::now();
    for number in 0..pending {
        device.issue(&doctype, "add", &[("id", id("mine", number))]);
    }
    let first = began.elapsed();
    let theirs = other.issue(&doctype, "add", &[("id", id("theirs", 0))]);
    let (_, entry) = server.take(other.replica.origin(theirs.lsn), &theirs);
    other.hear(entry.clone());
    let began = Instant::now();
    device.hear(entry);
    device.settle();
    let again = began.elapsed();
    for frame in device.frames.clone() {
        let (_, entry) = server.take(device.replica.origin(frame.lsn), &frame);
        device.hear(entry.clone());
        other.hear(entry);
    }
    device.settle();
    other.settle();
    [first, again]
}

fn main() {
    let is_quick = std::env::args().any(|it| it == "--quick");
    let sizes = if is_quick { ROWS_QUICKLY } else { ROWS };
    let mut stages = sizes.map(filled);
    for pending in PENDING {
        let medians = [0, 1].map(|nth: usize| {
            let mut rounds: Vec<[Duration; 2]> =
                (0..ROUNDS).map(|round| measured(&mut stages[nth], pending, round)).collect();
            [0, 1].map(|it| {
                rounds.sort_by_key(|took| took[it]);
                rounds[ROUNDS / 2][it]
            })
        });
        for ((rows, size), [first, again]) in sizes.into_iter().zip(SIZES).zip(medians) {
            let ratio = again.as_secs_f64() / first.as_secs_f64();
            let what = format!("{pending} pending, {rows} rows");
            println!("{what}: first {first:?}, rebase {again:?}: {ratio:.2} (goal 1.5)");
            let measure = format!("rebase of {pending}, {size}");
            figure::say(&measure, "of running them first", ratio);
        }
        let by_size = medians[1][1].as_secs_f64() / medians[0][1].as_secs_f64();
        let times = sizes[1] / sizes[0];
        println!("{pending} pending, {times} times the rows: {by_size:.2} (goal 1.2)");
        let measure = format!("rebase of {pending}, many rows beside few");
        figure::say(&measure, "of the one of few", by_size);
    }
}
