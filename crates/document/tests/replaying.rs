//! What follows from events, made anew.

mod common;

use common::*;
use tidelog_document::{
    Change, Changed, Doctype, Erasable, ErasedUpTo, EventDefinition, MutationDefinition, Param,
    ParamKind, Replay, ReplayRefusal, Replayed, ReplayedTable, StreamDefinition,
};
use tidelog_types::Value;
use tidelog_types::limits::Limits;

fn param(name: &str) -> Param {
    Param { name: name.to_owned(), kind: ParamKind::Text, optional: false }
}

const PLACED: &str = "insert into orders values (:stream, :text, :user, :client, :now, :sequence)";
const RENAMED: &str = "update orders set name = name || :position || :text where id = :stream";

/// Orders that are placed and renamed, and visits, with what follows from the former.
fn shop(upcasts: &[&str], placed: &str) -> Doctype {
    let event = |name: &str, upcasts: &[&str], project: &[&str]| EventDefinition {
        name: name.to_owned(),
        fields: vec![param("text")],
        upcasts: upcasts.iter().map(ToString::to_string).collect(),
        project: project.iter().map(ToString::to_string).collect(),
    };
    let mutation = |name: &str, params: &[&str], sql: &str| MutationDefinition {
        name: name.to_owned(),
        params: params.iter().map(|name| param(name)).collect(),
        sql: vec![sql.to_owned()],
    };
    let stream = |name: &str, events: Vec<EventDefinition>| StreamDefinition {
        name: name.to_owned(),
        events,
        commands: Vec::new(),
    };
    Doctype {
        name: "shop".to_owned(),
        migrations: vec![
            "create table orders (id text primary key, name text not null, user text, client text,
                                  at integer, sequence integer) strict;
             create table item (id text, of text references orders (id)) strict;
             create table visits (id text) strict;
             create table counts (n integer) strict;
             create view named as select name from orders;
             create trigger counted after insert on orders begin
               insert into counts values (1);
             end"
            .to_owned(),
        ],
        mutations: vec![
            mutation("item", &["id", "of"], "insert into item values (:id, :of)"),
            mutation("lose", &[], "delete from orders"),
            mutation(
                "note",
                &["aggregate", "id", "type", "text"],
                "insert into tidelog_events (aggregate, stream, type, data)
                 values (:aggregate, :id, :type, json_object('text', :text))",
            ),
        ],
        streams: vec![
            stream(
                "order",
                vec![event("placed", upcasts, &[placed]), event("renamed", &[], &[RENAMED])],
            ),
            stream("visit", vec![event("made", &[], &["insert into visits values (:stream)"])]),
        ],
        workflows: Vec::new(),
    }
}

struct Scene {
    doctype: Doctype,
    server: Server,
    device: Device,
}

impl Scene {
    fn new(pool: usize) -> Self {
        Self::with_limits(pool, Limits::DEFAULT)
    }

    fn with_limits(pool: usize, limits: Limits) -> Self {
        let doctype = shop(&[], PLACED);
        let server = Server::with_limits(9, pool, &doctype, limits);
        let device = Device::following(1, pool, &doctype, &server);
        Self { doctype, server, device }
    }

    /// A newer release is there.
    fn release(&mut self, doctype: Doctype) {
        follow(&self.server, &mut self.device);
        let before = std::mem::replace(&mut self.doctype, doctype);
        self.server.learn(&self.doctype);
        self.device.reopen(&[&before, &self.doctype]);
    }

    /// With labels, which go with their orders, and an order that has one.
    fn with_label() -> Self {
        let mut scene = Self::new(usize::MAX);
        let mut doctype = scene.doctype.clone();
        let label = "create table label (of text references orders (id) on delete cascade) strict";
        doctype.migrations.push(label.to_owned());
        doctype.mutations[0].sql = vec!["insert into label values (:of)".to_owned()];
        scene.release(doctype);
        scene.note("order", "a", "placed", "tea");
        scene.run("item", &[("id", "i"), ("of", "a")]);
        scene
    }

    fn issue(&mut self, name: &str, args: &[(&str, &str)]) {
        let args: Vec<_> = args.iter().map(|(name, value)| (*name, text(value))).collect();
        self.device.issue(&self.doctype, name, &args);
    }

    fn run(&mut self, name: &str, args: &[(&str, &str)]) {
        follow(&self.server, &mut self.device);
        self.issue(name, args);
        converge(&mut self.server, &mut self.device);
    }

    fn note(&mut self, aggregate: &str, id: &str, name: &str, said: &str) {
        let args = [("aggregate", aggregate), ("id", id), ("type", name), ("text", said)];
        self.run("note", &args);
    }

    fn change(&mut self, change: &Change) -> Changed {
        let view = self.server.authority.view().clone();
        let Self { server, doctype, .. } = self;
        let changed = server.rest.serve(&view, || server.authority.change(change, doctype, 5_000));
        let (changed, committed) = changed.expect("decided");
        if let Some(committed) = committed {
            server.keep(committed, None);
        }
        changed
    }

    fn erase(&mut self, stream: &str) {
        let (aggregate, stream) = ("order".to_owned(), stream.to_owned());
        let what = Erasable::Stream { aggregate, stream };
        self.change(&Change::Erase { what, after: ErasedUpTo::default() });
    }

    fn replay_as(&mut self, tables: &[&str], is_dry: bool) -> Result<Replayed, ReplayRefusal> {
        let tables = tables.iter().map(ToString::to_string).collect();
        let wanted = Replay { aggregate: "order".to_owned(), tables, is_dry };
        match self.change(&Change::Replay(wanted.into())) {
            Changed::Replayed(replayed) => replayed,
            other => panic!("{other:?}"),
        }
    }

    fn replay(&mut self, tables: &[&str]) -> Result<Replayed, ReplayRefusal> {
        self.replay_as(tables, false)
    }

    /// What is refused, and changes nothing.
    fn refusal(&mut self, tables: &[&str]) -> String {
        let image = self.server.rest.image();
        let entries = self.server.entries.len();
        let refusals = [true, false]
            .map(|is_dry| self.replay_as(tables, is_dry).expect_err("refused").to_string());
        assert_eq!(refusals[0], refusals[1], "dry, and not");
        assert!(self.server.rest.image() == image, "nothing has changed");
        assert_eq!(self.server.entries.len(), entries);
        refusals[1].clone()
    }

    /// A device's rows, each with all of its columns.
    fn orders(&mut self) -> Vec<Vec<Value>> {
        self.device.query("select * from orders order by id")
    }

    fn follow(&mut self) {
        follow(&self.server, &mut self.device);
        assert!(self.device.image() == self.server.rest.image(), "a device has the same");
    }
}

fn table(name: &str, rows_before: u64, rows_after: u64) -> ReplayedTable {
    ReplayedTable { name: name.to_owned(), rows_before, rows_after }
}

fn replayed(events: u64, erased: u64, tables: &[ReplayedTable]) -> Result<Replayed, ReplayRefusal> {
    Ok(Replayed { events, erased, tables: tables.to_vec(), is_dry: false })
}

/// Goal: what is made anew is what it was, row by row, in one entry, and a device runs what has no
/// verdict yet on top of it. Method: rows that were lost, from events of two streams by turns and
/// of two versions, beside an aggregate that is not meant.
#[test]
fn what_follows_from_events_is_what_it_was() {
    for pool in POOLS {
        let mut scene = Scene::new(pool);
        scene.note("order", "a", "placed", "tea");
        scene.note("visit", "v", "made", "");
        scene.note("order", "b", "placed", "milk");
        scene.note("order", "a", "renamed", "!");
        scene.note("order", "b", "renamed", "?");
        scene.note("order", "a", "renamed", "!");
        let rows = scene.orders();
        let cell = |row: usize, column: usize| rows[row][column].clone();
        assert_eq!([cell(0, 1), cell(1, 1)], ["tea2!3!", "milk2?"].map(text));
        scene.run("lose", &[]);
        assert_eq!(scene.orders().len(), 0);
        let entries = scene.server.entries.len();
        scene.issue(
            "note",
            &[("aggregate", "order"), ("id", "c"), ("type", "placed"), ("text", "offline")],
        );
        assert_eq!(scene.replay(&["ORDERS"]), replayed(5, 0, &[table("orders", 0, 2)]));
        assert_eq!(scene.server.entries.len(), entries + 1, "one entry");
        follow(&scene.server, &mut scene.device);
        let predicted = scene.orders();
        assert_eq!((&predicted[..2], predicted.len()), (&rows[..], 3), "and what is pending");
        converge(&mut scene.server, &mut scene.device);
        scene.follow();
        assert_eq!(scene.device.query("select count(*) from visits"), [[Value::Integer(1)]]);

        // A newer release has other data, and makes something else of them.
        let upcast = "json_object('text', upper(:data ->> 'text'))";
        scene.release(shop(&[upcast], PLACED));
        scene.note("order", "d", "placed", "new");
        let tables = [table("counts", 6, 4), table("orders", 4, 4)];
        assert_eq!(scene.replay(&["counts", "orders", "counts"]), replayed(7, 0, &tables));
        scene.follow();
        let names = scene.device.query("select name from orders order by id");
        assert_eq!(names, ["TEA2!3!", "MILK2?", "OFFLINE", "new"].map(|it| [text(it)]));
    }
}

/// Goal: nothing follows from an event that was erased.
#[test]
fn what_was_erased_does_not_come_back() {
    let mut scene = Scene::new(usize::MAX);
    scene.note("order", "a", "placed", "Lovelace");
    scene.note("order", "b", "placed", "Babbage");
    scene.erase("a");
    assert_eq!(scene.replay(&["orders"]), replayed(1, 1, &[table("orders", 2, 1)]));
    scene.follow();
    assert_eq!(scene.device.query("select id from orders"), [[text("b")]]);
}

/// Goal: where one event cannot be, it is named, and not a byte has changed. Method: a release
/// whose rules events of before break, in the middle of others: it rejects, it fails, or its data
/// cannot be brought up to date.
#[test]
fn one_event_that_is_rejected_leaves_everything_as_it_was() {
    let reject = format!("{PLACED}; select reject('nothing is called so') where :text = 'odd'");
    let fail = "insert into orders (id, name) values (:stream, nullif(:text, 'odd'))";
    let upcast = "iif(:data ->> 'text' = 'odd', null, :data)";
    for (doctype, why) in [
        (shop(&[], &reject), "nothing is called so"),
        (shop(&[], fail), "NOT NULL constraint failed: orders.name"),
        (shop(&[upcast], PLACED), "it gives null, and no object"),
    ] {
        let mut scene = Scene::new(usize::MAX);
        for (id, said) in [("a", "tea"), ("b", "odd"), ("c", "milk")] {
            scene.note("order", id, "placed", said);
        }
        scene.release(doctype);
        let expected = format!("event 2, placed of order, cannot be replayed: {why}");
        assert_eq!(scene.refusal(&["orders"]), expected);
        scene.run("item", &[("id", "i"), ("of", "a")]);
    }
}

/// Goal: all of it takes no more than one mutation may. Method: a server that lets one take few
/// steps, which each event by itself does.
#[test]
fn it_is_bounded_like_one_mutation() {
    let limits = Limits { statement_steps_max: 4_000, ..Limits::DEFAULT };
    let mut scene = Scene::with_limits(usize::MAX, limits);
    for nth in 0..100 {
        scene.note("order", &nth.to_string(), "placed", "tea");
    }
    assert_eq!(scene.orders().len(), 100);
    let refusal = scene.refusal(&["orders"]);
    let is_it = refusal.starts_with("event ")
        && refusal
            .ends_with(", placed of order, cannot be replayed: over the budget of 4000 steps");
    assert!(is_it, "{refusal}");
}

/// Goal: a dry run says what would come of it, leaves nothing behind, and nobody notices later.
#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    for pool in POOLS {
        let mut scene = Scene::new(pool);
        scene.note("order", "a", "placed", "tea");
        scene.run("lose", &[]);
        scene.note("order", "b", "placed", "milk");
        let (image, entries) = (scene.server.rest.image(), scene.server.entries.len());
        let expected = replayed(2, 0, &[table("orders", 1, 2)]);
        let dry = scene.replay_as(&["orders"], true);
        assert_eq!(dry, expected.clone().map(|it| Replayed { is_dry: true, ..it }));
        assert!(scene.server.rest.image() == image, "nothing has changed");
        assert_eq!(scene.server.entries.len(), entries);
        assert_eq!(scene.server.query("select id from orders"), [[text("b")]]);
        scene.note("visit", "v", "made", "");
        assert_eq!(scene.replay(&["orders"]), expected);
        scene.follow();
    }
}

/// Goal: no table is emptied that is not the app's, or that would take rows of others along.
#[test]
fn a_table_that_is_not_to_be_emptied_is_named() {
    let mut scene = Scene::new(usize::MAX);
    scene.note("order", "a", "placed", "tea");
    for (name, why) in [
        ("_tidelog_event", "it is none of the app's"),
        ("_TIDELOG_stream", "it is none of the app's"),
        ("tidelog_events", "it is none of the app's"),
        ("sqlite_schema", "it is none of the app's"),
        ("SQLITE_sequence", "it is none of the app's"),
        ("named", "there is no such table"),
        ("nowhere", "there is no such table"),
        ("", "there is no such table"),
        ("visits\"; drop table visits; --", "there is no such table"),
    ] {
        let expected = format!("table {name} cannot be emptied: {why}");
        assert_eq!(scene.refusal(&["visits", name]), expected);
    }
    // `orders` is named by `label`, whose rows would go with its own.
    let mut scene = Scene::with_label();
    let expected =
        "table orders cannot be emptied: rows of label would go, or change, with its own";
    assert_eq!(scene.refusal(&["orders"]), expected);
    let tables = [table("orders", 1, 1), table("label", 1, 0)];
    assert_eq!(scene.replay(&["orders", "label"]), replayed(1, 0, &tables));
}

/// Goal: rows of other tables that name rows which are back at the end stay; where one is not back
/// nothing is changed.
#[test]
fn rows_that_name_what_is_made_anew_stay() {
    let mut scene = Scene::new(usize::MAX);
    scene.note("order", "a", "placed", "tea");
    scene.run("item", &[("id", "i"), ("of", "a")]);
    assert_eq!(scene.replay(&["orders"]), replayed(1, 0, &[table("orders", 1, 1)]));
    scene.follow();
    assert_eq!(scene.device.query("select id from item"), [[text("i")]]);
    scene.erase("a");
    let expected = "it cannot be replayed: FOREIGN KEY constraint failed";
    assert_eq!(scene.refusal(&["orders"]), expected);
}

#[test]
fn what_is_not_there_is_told_apart() {
    let mut scene = Scene::new(usize::MAX);
    assert_eq!(scene.replay(&["orders"]), replayed(0, 0, &[table("orders", 0, 0)]));
    let wanted = Replay { aggregate: "none".to_owned(), tables: Vec::new(), is_dry: false };
    let unknown = scene.change(&Change::Replay(wanted.into()));
    assert_eq!(unknown, Changed::Replayed(Err(ReplayRefusal::UnknownAggregate)));
    let plain = Doctype { streams: Vec::new(), ..shop(&[], PLACED) };
    let mut scene = Scene {
        server: Server::new(9, usize::MAX, &plain),
        device: Device::new(1, usize::MAX, &plain),
        doctype: plain,
    };
    assert_eq!(scene.replay(&["orders"]), Err(ReplayRefusal::NoStreams));
}
