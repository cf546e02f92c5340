//! What an older release of the app inserts by the places of columns, after the migrations of newer
//! ones.

mod common;

use common::*;
use tidelog_document::{
    CommandDefinition, Doctype, EventDefinition, MutationDefinition, Param, ParamKind,
    StreamDefinition, Verdict, sending,
};
use tidelog_types::Value;

fn param(name: &str) -> Param {
    Param { name: name.to_owned(), kind: ParamKind::Text, optional: false }
}

fn define(name: &str, params: &[&str], sql: &[&str]) -> MutationDefinition {
    MutationDefinition {
        name: name.to_owned(),
        params: params.iter().map(|name| param(name)).collect(),
        sql: sql.iter().map(ToString::to_string).collect(),
    }
}

const FIRST: &str = "create table Todo (id text primary key, title text, done integer);
     create table note (id text primary key, \"what's \"\"said\" text)";

/// One table with a column more, and one more again.
const WIDER: [&str; 2] = ["alter table todo add column tag text", "alter table todo add place any"];

/// Made anew with its columns in another order, and as many, by one migration or by several; and a
/// column that is computed.
const OTHER_ORDER: [&str; 5] = [
    "alter table todo rename to old",
    "create table Todo (title text, done integer, tag text, place any, id text primary key)",
    "insert into todo select title, done, tag, place, id from old",
    "drop table old",
    "alter table note add column size integer as (length(id))",
];

fn release(migrations: &[&str], add: &[&str]) -> Doctype {
    let note = "insert into note select :id, 'noted'; INSERT OR IGNORE INTO \"NOTE\" as new
                values (:id || '!', 'twice') on conflict (id) do update set id = new.id";
    let event = EventDefinition {
        name: "asked".to_owned(),
        fields: Vec::new(),
        upcasts: Vec::new(),
        project: vec!["insert into todo values (:stream, 'by an event', 0)".to_owned()],
    };
    let command = CommandDefinition {
        name: "ask".to_owned(),
        fields: Vec::new(),
        received: vec!["insert into todo values (:stream, 'by a command', 0)".to_owned()],
        failed: Vec::new(),
        retries: 0,
        timeout_ms: 0,
    };
    let ask = "insert into tidelog_events (aggregate, stream, type) values ('todo', :id, 'asked')";
    Doctype {
        name: "todos".to_owned(),
        migrations: migrations.iter().map(ToString::to_string).collect(),
        mutations: vec![
            define("add", &["id", "title"], add),
            define("note", &["id"], &[note]),
            define("ask", &["id"], &[ask]),
        ],
        streams: vec![StreamDefinition {
            name: "todo".to_owned(),
            events: vec![event],
            commands: vec![command],
        }],
        ..Doctype::default()
    }
}

/// Of which the last has so many migrations in one.
fn releases(at_once: usize) -> [Doctype; 3] {
    let [second, third] = WIDER;
    let anew: Vec<String> = OTHER_ORDER.chunks(at_once).map(|some| some.join(";")).collect();
    let mut last: Vec<&str> = vec![FIRST, second, third];
    last.extend(anew.iter().map(String::as_str));
    [
        release(&[FIRST], &["insert into todo values (:id, :title, 0)"]),
        release(&[FIRST, second], &["insert into main.[todo] values (:id, :title, 1, 'tagged')"]),
        release(&last, &["insert into todo (id) values (:id)"]),
    ]
}

fn add(device: &mut Device, doctype: &Doctype, id: &str) {
    device.issue(doctype, "add", &[("id", text(id)), ("title", text("a title"))]);
}

fn rows(server: &mut Server) -> Vec<Vec<Value>> {
    server.query("select id, title, done, tag, place from todo order by id")
}

/// Goal: what a release has issued offline means what it meant when it was issued, whatever newer
/// releases have made of the tables. Method: two devices of older ones, and a server whose
/// migrations they have not seen.
#[test]
fn what_older_releases_insert_by_place_has_the_columns_that_they_knew() {
    for (pool, at_once) in POOLS.into_iter().flat_map(|pool| [1, 5].map(|some| (pool, some))) {
        let [first, second, third] = releases(at_once);
        let mut server = Server::new(9, pool, &first);
        let mut one = Device::following(1, pool, &first, &server);
        server.learn(&second);
        let mut two = Device::following(2, pool, &second, &server);
        let id = |id: &str| [("id", text(id))];
        add(&mut one, &first, "a");
        one.issue(&first, "note", &id("n"));
        one.issue(&first, "ask", &id("b"));
        let args = [("stream", text("c")), ("args", text("{}")), ("key", text("k"))];
        one.issue(&first, &sending("todo", "ask"), &args);
        add(&mut two, &second, "d");

        server.learn(&third);
        converge(&mut server, &mut one);
        converge(&mut server, &mut two);
        follow(&server, &mut one);
        assert_same(&server, &one);
        for device in [&one, &two] {
            let verdicts = device.verdicts();
            assert!(verdicts.iter().all(|(_, it)| *it == Verdict::Applied), "{verdicts:?}");
        }
        let row = |id: &str, title: &str, done, tag| {
            vec![text(id), text(title), integer(done), tag, Value::Null]
        };
        assert_eq!(
            rows(&mut server),
            [
                row("a", "a title", 0, Value::Null),
                row("b", "by an event", 0, Value::Null),
                row("c", "by a command", 0, Value::Null),
                row("d", "a title", 1, text("tagged")),
            ]
        );
        let notes = server.query("select * from note order by id");
        let noted = [text("n"), text("noted"), integer(1)];
        assert_eq!(notes, [noted, [text("n!"), text("twice"), integer(2)]]);
    }
}

/// Goal: the newest release says itself what it means, and a table that nobody has changed stays as
/// it is.
#[test]
fn what_nobody_has_changed_is_run_as_it_is() {
    let [first, second, _] = releases(5);
    let mut server = Server::new(9, POOLS[0], &first);
    let mut device = Device::following(1, POOLS[0], &first, &server);
    device.issue(&first, "note", &[("id", text("n"))]);
    server.learn(&second);
    device.replica.learn(second.clone());
    device.settle();
    add(&mut device, &second, "d");
    converge(&mut server, &mut device);
    let kept = "select key, value from _tidelog_meta where key like 'columns/%'";
    let todo = [text("columns/todo/000001"), text(r#"["id","title","done"]"#)];
    assert_eq!(server.query_system(kept), [todo]);
    assert_eq!(device.verdicts(), [applied(1), applied(2)]);
}
