//! Events that mutations record, and what follows from them.

mod common;

use common::*;
use tidelog_document::{
    Doctype, DoctypeError, EventDefinition, FoundRight, MutationDefinition, Param, ParamKind,
    StreamDefinition, Verdict, check,
};
use tidelog_sqlite::{Failure, Run, View};
use tidelog_types::limits::EVENT_SIZE_MAX;

fn param(name: &str, kind: ParamKind) -> Param {
    Param { name: name.to_owned(), kind, optional: false }
}

fn define(name: &str, params: &[&str], sql: &[&str]) -> MutationDefinition {
    MutationDefinition {
        name: name.to_owned(),
        params: params.iter().map(|name| param(name, ParamKind::Text)).collect(),
        sql: sql.iter().map(ToString::to_string).collect(),
    }
}

fn event(name: &str, fields: Vec<Param>, project: &[&str]) -> EventDefinition {
    EventDefinition {
        name: name.to_owned(),
        fields,
        upcasts: Vec::new(),
        project: project.iter().map(ToString::to_string).collect(),
    }
}

const INSERT: &str = "insert into tidelog_events (aggregate, stream, type, data) values";

/// Orders, which are rows that follow from events.
fn shop() -> Doctype {
    let place = format!("{INSERT} ('order', :id, 'placed', json_object('items', json(:items)))");
    let ship = format!("{INSERT} ('order', :id, 'shipped', null)");
    let note = format!("{INSERT} ('order', :id, 'noted', :data)");
    let noted = vec![
        param("text", ParamKind::Text),
        param("count", ParamKind::Integer),
        param("weight", ParamKind::Real),
        param("is_gift", ParamKind::Boolean),
        Param { optional: true, ..param("more", ParamKind::Json) },
    ];
    let place_row = "insert into orders (id, items, at, by, number, nth)
                     values (:stream, :items, :now, :user || :client, :sequence, :position)";
    Doctype {
        name: "shop".to_owned(),
        migrations: vec![
            "create table orders (id text primary key, items text, at integer, by text,
                                  number integer, nth integer, state text) strict;
             create table note (id text, what text) strict"
                .to_owned(),
        ],
        mutations: vec![
            define("place", &["id", "items"], &[&place]),
            define("ship", &["id"], &[&ship, "update orders set state = 'sent' where id = :id"]),
            define("note", &["id", "data"], &[&note]),
            define(
                "both",
                &["id"],
                &[&format!(
                    "{INSERT} ('order', :id, 'placed', '{{\"items\":1}}'),
                          ('order', :id, 'shipped', null);
                 insert into note select stream, type || position from tidelog_events"
                )],
            ),
        ],
        streams: vec![StreamDefinition {
            name: "order".to_owned(),
            events: vec![
                event("noted", noted, &[
                    "insert into note values (:stream, :text || typeof(:count) || typeof(:weight)
                                              || :is_gift || coalesce(:more, 'none'))",
                ]),
                event("placed", vec![param("items", ParamKind::Json)], &[place_row]),
                event("shipped", vec![], &[
                    "select reject('no such order') where not exists
                     (select 1 from orders where id = :stream)",
                ]),
            ],
            commands: Vec::new(),
        }],
        workflows: Vec::new(),
    }
}

fn with_shop(scenario: impl Fn(Doctype, Server, Device, Device)) {
    for pool in POOLS {
        let doctype = shop();
        let server = Server::new(9, pool, &doctype);
        let [one, other] = [1, 2].map(|number| Device::following(number, pool, &doctype, &server));
        scenario(doctype, server, one, other);
    }
}

fn issue(device: &mut Device, doctype: &Doctype, name: &str, args: &[&str]) {
    let params = &doctype.mutation(name).expect("defined").params;
    let args: Vec<_> =
        params.iter().zip(args).map(|(param, arg)| (param.name.as_str(), text(arg))).collect();
    device.issue(doctype, name, &args);
}

fn reason(device: &mut Device, doctype: &Doctype, name: &str, args: &[&str]) -> String {
    let params = &doctype.mutation(name).expect("defined").params;
    let args: Vec<_> =
        params.iter().zip(args).map(|(param, arg)| (param.name.as_str(), text(arg))).collect();
    match device.try_issue(doctype, name, &args) {
        Err(Failure::Rejected { reason }) => reason,
        Err(other) => other.to_string(),
        Ok(_) => panic!("{name} was issued"),
    }
}

const EVENTS: &str =
    "select sequence || ' ' || aggregate || ' ' || stream || ' ' || position || ' '
                      || type || ' ' || version || ' ' || data || ' ' || cause
                      from tidelog_events order by sequence";

fn texts(rows: Vec<Vec<tidelog_types::Value>>) -> Vec<String> {
    let cell = |row: Vec<tidelog_types::Value>| match row.into_iter().next() {
        Some(tidelog_types::Value::Text(text)) => text,
        other => panic!("{other:?}"),
    };
    rows.into_iter().map(cell).collect()
}

/// Goal: what a device predicts of an event is what the authority makes of it, and its place among
/// others is the authority's. Method: two devices record events at once, one of them first at the
/// authority.
#[test]
fn events_are_counted_by_the_authority_and_predicted_by_devices() {
    with_shop(|doctype, mut server, mut one, mut other| {
        issue(&mut one, &doctype, "place", &["o-1", "[ 1,2 ]"]);
        issue(&mut one, &doctype, "ship", &["o-1"]);
        issue(&mut other, &doctype, "place", &["o-2", "{}"]);
        let predicted = texts(other.query(EVENTS));
        assert_eq!(predicted, ["1 order o-2 1 placed 1 {\"items\":{}} mutation:place"]);
        let seen = one.image();
        converge(&mut server, &mut one);
        assert!(one.image() == seen, "it was what was predicted");
        converge(&mut server, &mut other);
        follow(&server, &mut one);
        assert_same(&server, &one);
        assert_same(&server, &other);
        let expected = [
            "1 order o-1 1 placed 1 {\"items\":[1,2]} mutation:place",
            "2 order o-1 2 shipped 1 {} mutation:ship",
            "3 order o-2 1 placed 1 {\"items\":{}} mutation:place",
        ];
        assert_eq!(texts(server.query(EVENTS)), expected);
        let row = "select id || items || at || ' ' || number || ' ' || nth || coalesce(state, '')
                   from orders order by id";
        let now = one.query("select time from tidelog_events limit 1");
        let [now] = &now[0][..] else { panic!("a time") };
        let tidelog_types::Value::Integer(now) = now else { panic!("a number") };
        let rows = texts(server.query(row));
        assert!(rows[0].starts_with(&format!("o-1[1,2]{now} 1 1sent")), "{rows:?}");
        assert!(rows[1].ends_with(" 3 1"), "{rows:?}");
        let by = "select count(*) from orders join tidelog_events on sequence = number
                  where by = user || client and at = time and length(client) = 32";
        assert_eq!(server.query(by), [[integer(2)]]);
        let lengths = "select stream || ' ' || length from tidelog_streams order by stream";
        assert_eq!(texts(server.query(lengths)), ["o-1 2", "o-2 1"]);
    });
}

#[test]
fn a_statement_sees_the_events_of_those_before_it() {
    with_shop(|doctype, mut server, mut one, _| {
        issue(&mut one, &doctype, "both", &["o-1"]);
        let notes = "select id || ' ' || what from note order by rowid";
        assert_eq!(texts(one.query(notes)), ["o-1 placed1", "o-1 shipped2"]);
        converge(&mut server, &mut one);
        assert_same(&server, &one);
    });
}

#[test]
fn what_an_event_may_not_follow_from_rejects_the_mutation_and_leaves_no_gap() {
    with_shop(|doctype, mut server, mut one, mut other| {
        issue(&mut one, &doctype, "place", &["o-1", "1"]);
        assert_eq!(reason(&mut one, &doctype, "ship", &["o-9"]), "no such order");
        // By a device that does not know that another one was first.
        issue(&mut other, &doctype, "place", &["o-1", "2"]);
        issue(&mut other, &doctype, "place", &["o-2", "3"]);
        converge(&mut server, &mut one);
        converge(&mut server, &mut other);
        let verdicts = other.verdicts();
        assert!(matches!(verdicts[0].1, Verdict::Rejected { .. }), "{verdicts:?}");
        assert_eq!(verdicts[1].1, Verdict::Applied);
        let expected = [
            "1 order o-1 1 placed 1 {\"items\":1} mutation:place",
            "2 order o-2 1 placed 1 {\"items\":3} mutation:place",
        ];
        assert_eq!(texts(server.query(EVENTS)), expected);
        follow(&server, &mut one);
        assert_same(&server, &one);
    });
}

#[test]
fn the_data_of_an_event_are_what_its_fields_say() {
    with_shop(|doctype, mut server, mut one, _| {
        let good = r#"{"is_gift":true,"weight":2,"count":-7,"text":"\"é\"","more":{"a":[1]}}"#;
        issue(&mut one, &doctype, "note", &["o", good]);
        issue(
            &mut one,
            &doctype,
            "note",
            &["o", r#"{ "text": "", "count": 9007199254740993, "weight": 0.5, "is_gift": false }"#],
        );
        issue(
            &mut one,
            &doctype,
            "note",
            &["o", r#"{"text":"t","count":1,"weight":1,"is_gift":false,"more":"s"}"#],
        );
        let notes = texts(one.query("select what from note order by rowid"));
        let expected = ["\"é\"integerreal1{\"a\":[1]}", "integerreal0none", "tintegerreal0\"s\""];
        assert_eq!(notes, expected);
        let start = "event noted of order cannot be recorded: ";
        for (data, why) in [
            ("", "its data are no JSON, and no object"),
            ("[]", "its data are array, and no object"),
            ("{'text':1}", "its data are no JSON, and no object"),
            (&good.replace("\"count\":-7,", ""), "argument count is missing"),
            (&good.replace("-7", "null"), "argument count is missing"),
            (&good.replace("-7", "7.5"), "argument count is not of type Integer"),
            (&good.replace("-7", "true"), "argument count is not of type Integer"),
            (&good.replace("-7", "99999999999999999999"), "argument count is not of type Integer"),
            (&good.replace("-7", "\"7\""), "argument count is not of type Integer"),
            (&good.replace(":true", ":1"), "argument is_gift is not of type Boolean"),
            (&good.replace("\"more\"", "\"most\""), "there is no field most"),
            (&good.replace("\"more\"", "\"text\""), "field text is given twice"),
            (&good.replace("{\"a\":[1]}", "1,\"a\":1,\"b\":2"), "there is no field a"),
        ] {
            let data = if data.is_empty() { "nonsense" } else { data };
            assert_eq!(reason(&mut one, &doctype, "note", &["o", data]), format!("{start}{why}"));
        }
        let large = good.replace("[1]", &format!("\"{}\"", "x".repeat(EVENT_SIZE_MAX)));
        let why = format!("over the budget of {EVENT_SIZE_MAX} bytes of an event");
        assert_eq!(reason(&mut one, &doctype, "note", &["o", &large]), why);
        assert_eq!(
            reason(&mut one, &doctype, "note", &["", good]),
            "an event is inserted with its stream"
        );
        converge(&mut server, &mut one);
        assert_same(&server, &one);
    });
}

/// A shop whose mutation `it` is this.
fn with(sql: &str) -> Doctype {
    let mut doctype = shop();
    doctype.mutations = vec![define("it", &[], &[sql])];
    doctype
}

fn checked(doctype: &Doctype) -> Result<(), DoctypeError> {
    check(doctype, &View::new(usize::MAX, 0), &FoundRight::default())
}

#[test]
fn what_is_recorded_can_be_read_and_changed_by_nobody() {
    assert_eq!(checked(&shop()), Ok(()));
    for sql in [
        "select * from tidelog_events",
        "insert into note select stream, data from tidelog_events where type = 'placed'",
        "insert into note select stream, length from tidelog_streams as s
         where exists (select 1 from tidelog_events as e where e.stream = s.stream)",
    ] {
        assert_eq!(checked(&with(sql)), Ok(()), "{sql}");
    }
    for (sql, why) in [
        ("delete from tidelog_events", "cannot modify tidelog_events because it is a view"),
        ("update tidelog_events set data = ''", "cannot modify tidelog_events"),
        ("delete from _tidelog_event", "not allowed: _tidelog_event"),
        ("insert into note select 1, data from _tidelog_event", "not allowed: _tidelog_event"),
        (
            "with tidelog_events as (select * from _tidelog_timeline) select * from tidelog_events",
            "not allowed: _tidelog_timeline",
        ),
        (
            "select tidelog_insert_event('order', 'o', 'shipped', null)",
            "not allowed: tidelog_insert",
        ),
    ] {
        let error = checked(&with(sql)).expect_err(sql).to_string();
        assert!(error.contains(why), "{sql}: {error}");
    }
    for (migration, why) in [
        ("create table tidelog_mine (x)", "that prefix is reserved"),
        ("create table t (x); alter table t rename to tidelog_t", "not allowed: tidelog_t"),
        ("create trigger t instead of insert on tidelog_events begin select 1; end", "reserved"),
        ("drop view tidelog_events", "reserved"),
        ("drop trigger tidelog_events_insert", "reserved"),
        (&format!("{INSERT} ('order', 'o', 'shipped', null)"), "not allowed: events of anything"),
    ] {
        let mut doctype = shop();
        doctype.migrations.push(migration.to_owned());
        let error = checked(&doctype).expect_err(migration).to_string();
        assert!(error.contains(why), "{migration}: {error}");
    }
}

#[test]
fn what_cannot_be_inserted_rejects_its_mutation() {
    let doctype = |sql: &str| with(sql);
    for (sql, why) in [
        (
            "insert into tidelog_events (aggregate, stream, type, sequence)
             values ('a', 'b', 'c', 7)",
            "an event is inserted with its aggregate, stream, type and data alone",
        ),
        (
            &format!("{INSERT} ('order', 'o', 'lost', null)"),
            "event lost of order cannot be recorded: doctype shop has none",
        ),
        (
            &format!("{INSERT} (null, 'o', 'placed', null)"),
            "an event is inserted with its aggregate",
        ),
        (
            &format!(
                "with recursive n(i) as (values (1) union all select i + 1 from n limit 10001)
                   {INSERT} ('order', 'o', 'shipped', null), ('a', (select max(i) from n), '', '')"
            ),
            "an event is inserted with its type",
        ),
        (
            "with recursive n(i) as (values (1) union all select i + 1 from n limit 10001)
          insert into tidelog_events (aggregate, stream, type) select 'order', i, 'shipped' from n",
            "over the budget of 10000 events of a statement",
        ),
    ] {
        let doctype = doctype(sql);
        let mut device = Device::new(1, usize::MAX, &doctype);
        assert_eq!(reason(&mut device, &doctype, "it", &[]), why, "{sql}");
        assert_eq!(device.query("select count(*) from tidelog_events"), [[integer(0)]]);
    }
    // A projection, or a trigger of the app where one writes, records nothing.
    let mut doctype = with(&format!("{INSERT} ('order', 'o', 'placed', '{{\"items\":1}}')"));
    doctype.streams[0].events[1].project =
        vec![format!("{INSERT} ('order', 'o', 'shipped', null)")];
    let mut device = Device::new(1, usize::MAX, &doctype);
    let why = "not allowed: events of anything but a mutation itself";
    assert_eq!(reason(&mut device, &doctype, "it", &[]), why);
    let mut doctype = with("insert into note values ('o', 'x')");
    doctype.migrations.push(format!(
        "create trigger noted after insert on note begin
         {INSERT} ('order', new.id, 'noted',
                   '{{\"text\":\"t\",\"count\":1,\"weight\":1,\"is_gift\":true}}'); end"
    ));
    doctype.streams[0].events[0].project.clear();
    let mut device = Device::new(1, usize::MAX, &doctype);
    issue(&mut device, &doctype, "it", &[]);
    let expected = "1 order o 1 noted 1";
    assert!(texts(device.query(EVENTS))[0].starts_with(expected), "a trigger of a mutation's own");
}

#[test]
fn a_doctype_is_told_what_is_wrong_with_its_events() {
    let told = |change: &dyn Fn(&mut EventDefinition)| {
        let mut doctype = shop();
        change(&mut doctype.streams[0].events[1]);
        let error = checked(&doctype).expect_err("it cannot work").to_string();
        let start = "event placed of order, of doctype shop, cannot be used: ";
        error.strip_prefix(start).expect("which").to_owned()
    };
    let project = |sql: &str| told(&|event| event.project = vec![sql.to_owned()]);
    assert_eq!(project("insert into nowhere values (1)"), "no such table: nowhere");
    assert_eq!(project("select :gift"), "it mentions :gift, which is no field");
    assert!(project("select random()").contains("random()"));
    assert!(told(&|event| event.fields[0].name = "user".to_owned()).contains("named user"));
    assert!(told(&|event| event.fields[0].kind = ParamKind::Blob).contains("cannot be a blob"));
    let upcast = |sql: &str| told(&|event| event.upcasts = vec![sql.to_owned()]);
    assert_eq!(upcast(":data || :now"), "an upcast mentions :now, and has :data alone");
    assert!(upcast("json_set(:data").contains("syntax error"));
    assert!(upcast("random()").contains("random()"));
}

/// Goal: an app gets events with a release that has no migration. Method: a document of a release
/// without any; a device that is ahead, and then the authority; the older release goes on.
#[test]
fn a_document_gets_events_with_the_first_doctype_that_has_some() {
    for pool in POOLS {
        let newer = shop();
        let mut older = newer.clone();
        older.streams.clear();
        older.mutations = vec![define("plain", &["id"], &["insert into orders (id) values (:id)"])];
        let mut server = Server::new(9, pool, &older);
        let mut device = Device::following(1, pool, &older, &server);
        let mut other = Device::following(2, pool, &older, &server);
        let tables = "select count(*) from sqlite_schema where name like '%tidelog_event%'";
        assert_eq!(server.query_system(tables), [[integer(0)]]);
        assert!(device.replica.is_behind(&newer));
        device.replica.learn(newer.clone());
        device.settle();
        issue(&mut device, &newer, "place", &["o-1", "1"]);
        assert_eq!(device.query("select count(*) from tidelog_events"), [[integer(1)]]);
        server.learn(&newer);
        issue(&mut other, &older, "plain", &["o-2"]);
        converge(&mut server, &mut device);
        converge(&mut server, &mut other);
        follow(&server, &mut device);
        assert_same(&server, &device);
        assert_same(&server, &other);
        assert_eq!(server.query("select count(*) from tidelog_events"), [[integer(1)]]);
        assert_eq!(server.query("select count(*) from orders"), [[integer(2)]]);
    }
}

/// Goal: a migration may read events, as one that fills a new table does: none in a document that
/// is new, or of a release that had no events, and else those that there are, at once on a device
/// and for good on the server. Method: a release that reads them comes to each.
#[test]
fn a_migration_reads_the_events_that_there_are() {
    for pool in POOLS {
        let older = shop();
        let mut newer = older.clone();
        newer.migrations.push(
            "create table shipment (id text primary key, at integer) strict;
             insert into shipment select stream, position from tidelog_events
             where type = 'shipped'"
                .to_owned(),
        );
        checked(&newer).expect("it can be used");
        let shipments = "select id || at from shipment";
        let new = Server::new(9, pool, &newer);
        let mut device = Device::following(1, pool, &newer, &new);
        assert_eq!(texts(device.query(shipments)), [] as [&str; 0]);
        let mut without = older.clone();
        (without.streams, without.mutations) = (Vec::new(), Vec::new());
        let mut server = Server::new(9, pool, &without);
        server.learn(&newer);
        assert_eq!(server.query("select count(*) from shipment"), [[integer(0)]]);

        let mut server = Server::new(9, pool, &older);
        let mut device = Device::following(1, pool, &older, &server);
        for id in ["o-1", "o-2"] {
            issue(&mut device, &older, "place", &[id, "1"]);
        }
        issue(&mut device, &older, "ship", &["o-2"]);
        converge(&mut server, &mut device);
        device.replica.learn(newer.clone());
        device.settle();
        assert_eq!(texts(device.query(shipments)), ["o-22"]);
        server.learn(&newer);
        follow(&server, &mut device);
        assert_same(&server, &device);
        assert_eq!(server.query(shipments), [[text("o-22")]]);
    }
}

/// Goal: a document that got its events by a newer release is not taken for that of another app.
/// Method: a device that knows the first release opens it by the second one, which has none.
#[test]
fn a_document_with_events_is_not_another_one_for_a_release_that_has_none() {
    let mut second = shop();
    second.streams.clear();
    second.mutations.clear();
    let first = Doctype { migrations: second.migrations.clone(), ..second.clone() };
    second.migrations.push("create table later (id text)".to_owned());
    let third = Doctype { migrations: second.migrations.clone(), ..shop() };
    let server = Server::new(9, usize::MAX, &third);
    let device = Device::following(1, usize::MAX, &third, &server);
    let is_of_another = |doctype: &Doctype, known: &Doctype| {
        device.replica.is_of_another(doctype, known, View::new(usize::MAX, 0)).expect("it works")
    };
    assert_eq!(is_of_another(&second, &first), Run::Done(false));
    let mut other = second.clone();
    other.migrations[1] = "create table other (id text)".to_owned();
    assert_eq!(is_of_another(&other, &first), Run::Done(true));
    assert_eq!(is_of_another(&other, &second), Run::Done(true), "the known one has none either");
}

/// Goal: a mutation's statements see by `changes()` and `last_insert_rowid()` what they would if an
/// event were one row of a view, whatever is recorded of it and follows from it. Method: beside
/// each event that is recorded another row is inserted by its projection.
#[test]
fn what_follows_from_an_event_is_not_what_the_next_statement_changed() {
    let seen = "insert into note select 'seen', changes() || ' ' || last_insert_rowid()";
    let project = ["insert into note values ('first', 'of ' || changes()), ('second', '')", seen];
    let mut doctype = with(&format!(
        "insert into note values ('a', 'b'); {INSERT} ('order', 'o', 'shipped', null); {seen};
         {INSERT} ('order', 'o', 'shipped', null), ('order', 'p', 'shipped', null); {seen}"
    ));
    doctype.streams[0].events[2].project = project.map(ToOwned::to_owned).into();
    let mut device = Device::new(1, usize::MAX, &doctype);
    issue(&mut device, &doctype, "it", &[]);
    let of_mutation = "select what from note where id = 'seen' and rowid in (5, 12)";
    assert_eq!(texts(device.query(of_mutation)), ["0 1", "0 5"]);
    let of_events = "select distinct what from note where id = 'first'";
    assert_eq!(texts(device.query(of_events)), ["of 0"]);
    let within = "select what from note where id = 'seen' and rowid not in (5, 12)";
    assert_eq!(texts(device.query(within)), ["2 3", "2 7", "2 10"]);
}
