//! What several tests need: pages kept elsewhere, and a script of statements.

#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeMap;

use tidelog_sqlite::{Failure, Params, ReadSet, Reader, Run, Transaction, View, Writer};
use tidelog_types::{Page, PageSet, Pgid, Rows, Value};

/// All pages of a database: where a view's faults are served from.
#[derive(Clone, Debug, Default)]
pub struct Store {
    pub db_pages: u32,
    pub pages: BTreeMap<Pgid, Page>,
}

impl Store {
    pub fn apply(&mut self, set: &PageSet) {
        let mut all = PageSet { db_pages: self.db_pages, pages: std::mem::take(&mut self.pages) };
        all.absorb(set);
        (self.db_pages, self.pages) = (all.db_pages, all.pages);
    }

    pub fn fetch(&self, pgids: Vec<Pgid>) -> Vec<(Pgid, Page)> {
        pgids.into_iter().map(|pgid| (pgid, self.pages[&pgid].clone())).collect()
    }

    /// A view on it with nothing in memory.
    pub fn view(&self, pool_pages_max: usize) -> View {
        View::new(pool_pages_max, self.db_pages)
    }

    /// Runs until it is no fault, fetching as told. Gives the number of runs too.
    pub fn serve<T>(
        &self,
        view: &View,
        mut run: impl FnMut() -> Run<T>,
    ) -> (Result<T, Failure>, u32) {
        for faults in 0.. {
            match run() {
                Run::Done(result) => return (Ok(result), faults + 1),
                Run::Failed(failure) => return (Err(failure), faults + 1),
                Run::Fault(pgid) => {
                    let wanted = view.to_fetch(pgid, faults);
                    assert!(wanted.contains(&pgid), "a fault on a page that is here");
                    view.fill(self.fetch(wanted));
                }
            }
        }
        unreachable!("some run ends")
    }

    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for page in self.pages.values() {
            hasher.update(page.bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

/// A document all of whose pages are in memory, changed by one writer.
#[derive(Debug)]
pub struct Document {
    pub view: View,
    pub writer: Writer,
    pub reader: Reader,
    pub store: Store,
}

impl Document {
    pub fn new() -> Self {
        Self::on(View::new(1000, 0))
    }

    pub fn on(view: View) -> Self {
        let (writer, reader) = (Writer::new(&view), Reader::new(&view));
        Self { view, writer, reader, store: Store::default() }
    }

    pub fn write(
        &mut self,
        work: &mut dyn FnMut(&Transaction<'_>) -> Result<(), Failure>,
    ) -> Run<PageSet> {
        let run = self.writer.write(work).map(|((), set)| set);
        if let Run::Done(set) = &run {
            self.view.push(set);
            self.store.apply(set);
        }
        run
    }

    pub fn migrate(&mut self, sql: &str) -> PageSet {
        self.write(&mut |tx| tx.run_migration(sql)).unwrap()
    }

    pub fn app(&mut self, sql: &str) -> Run<PageSet> {
        self.write(&mut |tx| tx.run_app(sql, &[]))
    }

    pub fn app_failure(&mut self, sql: &str) -> Failure {
        failure(self.app(sql))
    }

    pub fn query(&mut self, sql: &str) -> Vec<Vec<Value>> {
        self.reader.query(sql, &Params::NONE).unwrap().decode()
    }

    pub fn query_failure(&mut self, sql: &str) -> Failure {
        failure(self.reader.query(sql, &Params::NONE))
    }

    pub fn watch(&mut self, sql: &str) -> (Rows, ReadSet) {
        self.reader.watch(sql, &Params::NONE).unwrap()
    }
}

#[track_caller]
pub fn failure<T>(run: Run<T>) -> Failure {
    match run {
        Run::Done(_) => panic!("done"),
        Run::Fault(pgid) => panic!("faulted at page {pgid}"),
        Run::Failed(failure) => failure,
    }
}

pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// Numbers from a seed, the same everywhere.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// A schema with a bit of everything that leaves its mark on pages.
pub const SCHEMA: &str = "
    create table author (id integer primary key autoincrement, name text not null unique);
    create table note (
        id text primary key,
        author integer references author on delete cascade,
        body text,
        score real default 0.5,
        size integer generated always as (length(body)) stored,
        at text
    ) strict;
    create index note_author on note (author, score);
    create index note_long on note (size) where size > 100;
    create index note_lower on note (lower(id));
    create table tag (note text, tag text, primary key (note, tag)) without rowid;
    create table log (seq integer primary key, what text, detail);
    create view loud as select upper(body) as body from note;
    create trigger note_added after insert on note begin
        insert into log (what, detail) values ('added', new.id);
        insert or ignore into tag values (new.id, substr(new.id, 1, 2));
    end;
    create trigger note_gone after delete on note begin
        insert into log (what, detail) values ('gone', old.score);
        delete from tag where note = old.id;
    end;
";

/// The `number`th transaction of a script: statements that any SQLite takes.
pub fn statements(numbers: &mut Numbers) -> Vec<String> {
    let count = 1 + numbers.below(4);
    (0..count).map(|_| statement(numbers)).collect()
}

fn statement(numbers: &mut Numbers) -> String {
    let (n, m) = (numbers.below(500), numbers.below(500));
    match numbers.below(14) {
        0 => format!("insert or ignore into author (name) values ('author {n}')"),
        1..=5 => {
            let size = [3, 40, 400, 5000][numbers.below(4) as usize];
            format!(
                "insert into note (id, author, body, score, at)
                 values ('n{n}', (select id from author where name = 'author {m}'),
                         replace(hex(zeroblob({size})), '0', 'x{m}'), {m}.25 / 7,
                         datetime({m} * 100000, 'unixepoch'))
                 on conflict (id) do update set body = excluded.body, score = score * 1.1"
            )
        }
        6 => format!("delete from note where id = 'n{n}'"),
        7 => format!("delete from author where name = 'author {n}'"),
        8 => format!("update note set score = score / 3 + 1e-5 where author > {}", n % 20),
        9 => format!("insert or replace into tag values ('n{n}', 'tag {m}')"),
        10 => format!(
            "insert into log (what, detail)
             select 'sum', printf('%.15g', sum(score)) from note where size > {n}"
        ),
        11 => "insert into log (what, detail) select 'json',
               json_group_object(id, json_array(score, size)) from note where size < 20"
            .to_owned(),
        12 => format!("delete from log where seq % 7 = {}", n % 7),
        _ => format!(
            "insert into log (what, detail) select 'rank', group_concat(r) from
             (select rank() over (partition by author order by score, id) + {n} as r from note)"
        ),
    }
}

/// Everything in the tables of [`SCHEMA`].
pub const TABLES: [&str; 4] = [
    "select * from author order by id",
    "select * from note order by id",
    "select * from tag order by note, tag",
    "select * from log order by seq",
];

/// Runs `count` transactions of a script on a new database.
pub fn run_script(seed: u64, count: u64) -> Document {
    let mut document = Document::new();
    document.migrate(SCHEMA);
    let mut numbers = Numbers::new(seed);
    for _ in 0..count {
        let sql = statements(&mut numbers).join(";\n");
        document.app(&sql).unwrap();
    }
    document
}

/// The hash of all pages after `run_script(7, 300)`, on every host.
pub const GOLDEN_HASH: &str = "59203df744636997";
