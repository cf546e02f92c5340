//! Events of older versions that are rewritten at the newest one.

mod common;

use common::*;
use tidelog_document::{
    Change, Changed, Doctype, Erasable, ErasedUpTo, EventDefinition, FoundEvents,
    MutationDefinition, Param, ParamKind, StreamDefinition, UpcastEvents, UpcastRefusal,
    WantedEvents, find_events,
};
use tidelog_types::Value;
use tidelog_types::limits::Limits;

fn param(name: &str, kind: ParamKind) -> Param {
    Param { name: name.to_owned(), kind, optional: false }
}

/// Of an order and of a visit notes are taken, which these upcasts bring to the newest version.
fn shop(upcasts: &[&str]) -> Doctype {
    let note = "insert into tidelog_events (aggregate, stream, type, data)
                with n (n) as (select 1 union all select n + 1 from n where n < :count)
                select :aggregate, :id, 'noted', json_object('text', :text || n) from n";
    let stream = |name: &str| StreamDefinition {
        name: name.to_owned(),
        events: vec![EventDefinition {
            name: "noted".to_owned(),
            fields: vec![param("text", ParamKind::Text)],
            upcasts: upcasts.iter().map(ToString::to_string).collect(),
            project: Vec::new(),
        }],
        commands: Vec::new(),
    };
    Doctype {
        name: "shop".to_owned(),
        migrations: vec!["create table orders (id text primary key) strict".to_owned()],
        mutations: vec![MutationDefinition {
            name: "note".to_owned(),
            params: vec![
                param("aggregate", ParamKind::Text),
                param("id", ParamKind::Text),
                param("text", ParamKind::Text),
                param("count", ParamKind::Integer),
            ],
            sql: vec![note.to_owned()],
        }],
        streams: vec![stream("order"), stream("visit")],
        workflows: Vec::new(),
    }
}

/// The second version is louder, and the third says how long it is.
const LOUD: &str = "json_object('text', upper(:data ->> 'text'))";
const LONG: &str = "json_set(:data, '$.text', (:data ->> 'text') || length(:data ->> 'text'))";

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
        let doctype = shop(&[]);
        let server = Server::with_limits(9, pool, &doctype, limits);
        let device = Device::following(1, pool, &doctype, &server);
        Self { doctype, server, device }
    }

    /// A newer release is there.
    fn release(&mut self, upcasts: &[&str]) {
        follow(&self.server, &mut self.device);
        let before = std::mem::replace(&mut self.doctype, shop(upcasts));
        self.server.learn(&self.doctype);
        self.device.reopen(&[&before, &self.doctype]);
    }

    fn issue(&mut self, aggregate: &str, id: &str, said: &str, count: i64) {
        let args = [
            ("aggregate", text(aggregate)),
            ("id", text(id)),
            ("text", text(said)),
            ("count", Value::Integer(count)),
        ];
        self.device.issue(&self.doctype, "note", &args);
    }

    fn note(&mut self, aggregate: &str, id: &str, said: &str, count: i64) {
        follow(&self.server, &mut self.device);
        self.issue(aggregate, id, said, count);
        converge(&mut self.server, &mut self.device);
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

    fn slice(
        &mut self,
        aggregate: Option<&str>,
        after: u64,
    ) -> Result<UpcastEvents, UpcastRefusal> {
        let aggregate = aggregate.map(str::to_owned);
        match self.change(&Change::Upcast { aggregate, after }) {
            Changed::Upcast(upcast) => upcast,
            other => panic!("{other:?}"),
        }
    }

    /// How many events, and in how many slices.
    fn upcast(&mut self, aggregate: Option<&str>) -> Result<(u64, usize), UpcastRefusal> {
        let (mut events, mut after) = (0, 0);
        for slices in 1.. {
            let upcast = self.slice(aggregate, after)?;
            events += upcast.events;
            if !upcast.has_more {
                assert!(upcast.seen <= upcast.last);
                return Ok((events, slices));
            }
            assert!(upcast.seen > after, "it comes to its end");
            after = upcast.seen;
        }
        unreachable!("it comes to its end")
    }

    /// What loops are told, all columns of each event.
    fn told(&mut self) -> Vec<Vec<Value>> {
        let (mut told, mut after) = (Vec::new(), 0);
        loop {
            let wanted = WantedEvents { after, ..WantedEvents::default() };
            let view = self.server.authority.view().clone();
            let Self { server, doctype, .. } = self;
            let find = || find_events(server.authority.reader(), doctype, &wanted, None);
            let FoundEvents::Some(rows) = server.rest.serve(&view, find).expect("found") else {
                return told;
            };
            told.extend(rows.decode());
            let Some(Value::Integer(last)) = told.last().map(|row| row[0].clone()) else {
                panic!("a sequence")
            };
            after = last.cast_unsigned();
        }
    }

    /// How many are kept at each version, as a device has it.
    fn versions(&mut self) -> Vec<String> {
        follow(&self.server, &mut self.device);
        assert!(self.device.image() == self.server.rest.image(), "a device has the same");
        let sql = "select aggregate || ' v' || version || iif(erased, ' erased ', ' ') || count(*)
                   from tidelog_events group by aggregate, version, erased order by 1";
        let rows = self.device.query(sql);
        let cell = |row: Vec<Value>| match row.into_iter().next() {
            Some(Value::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(cell).collect()
    }
}

/// Goal: who reads events is told the same before and after, column by column, and of no older
/// version is anything kept but what was erased. Method: events of three versions, some erased,
/// with a mutation of a device that has no verdict yet meanwhile.
#[test]
fn what_is_read_is_the_same_before_and_after() {
    for pool in POOLS {
        let mut scene = Scene::new(pool);
        scene.note("order", "o1", "one ", 2);
        scene.note("visit", "v", "gone ", 2);
        scene.note("visit", "w", "see ", 1);
        let what = Erasable::Stream { aggregate: "visit".to_owned(), stream: "v".to_owned() };
        scene.change(&Change::Erase { what, after: ErasedUpTo::default() });
        scene.release(&[LOUD]);
        scene.note("order", "o2", "two ", 3);
        scene.release(&[LOUD, LONG]);
        scene.note("order", "o1", "three ", 1);
        assert_eq!(
            scene.versions(),
            ["order v1 2", "order v2 3", "order v3 1", "visit v1 1", "visit v1 erased 2"]
        );
        let before = scene.told();
        let said = |nth: usize| before[nth][6].clone();
        assert_eq!(
            [said(0), said(2), said(5), said(8)],
            [r#"{"text":"ONE 15"}"#, "{}", r#"{"text":"two 15"}"#, r#"{"text":"three 1"}"#]
                .map(text)
        );
        scene.issue("order", "o9", "offline ", 1);
        assert_eq!(scene.upcast(None), Ok((6, 1)));
        assert!(scene.told() == before, "the same");
        // What was pending has been run on top of it.
        converge(&mut scene.server, &mut scene.device);
        assert_eq!(scene.versions(), ["order v3 7", "visit v1 erased 2", "visit v3 1"]);

        let entries = scene.server.entries.len();
        assert_eq!(scene.upcast(None), Ok((0, 1)));
        assert_eq!(scene.server.entries.len(), entries, "nothing was left to do");
    }
}

/// Goal: an entry is bounded however many events there are, and what was cut short goes on when it
/// is done again from the beginning. Method: one slice, and then all of it.
#[test]
fn many_events_are_rewritten_in_slices_and_it_goes_on_after_a_crash() {
    let mut scene = Scene::new(usize::MAX);
    scene.note("order", "o", "x", 600);
    scene.note("visit", "v", "x", 3000);
    scene.note("order", "o", "y", 100);
    scene.release(&[LOUD]);
    let before = scene.told();
    let first = scene.slice(Some("order"), 0);
    let expected = UpcastEvents { events: 256, seen: 256, last: 3700, has_more: true };
    assert_eq!(first, Ok(expected));
    assert_eq!(scene.upcast(Some("order")), Ok((444, 3)));
    assert_eq!(scene.versions(), ["order v2 700", "visit v1 3000"]);
    assert!(scene.told() == before, "the same");
    let entries = scene.server.entries.len();
    assert_eq!(scene.upcast(None), Ok((3000, 12)));
    assert_eq!(scene.server.entries.len(), entries + 12);
    assert_eq!(scene.versions(), ["order v2 700", "visit v2 3000"]);
    assert!(scene.told() == before, "the same");
}

/// Goal: large ones are fewer at a time. Method: each has 200 KB.
#[test]
fn a_slice_is_bounded_by_bytes_as_well() {
    let mut scene = Scene::new(usize::MAX);
    for _ in 0..3 {
        scene.note("order", "o", &"x".repeat(200_000), 3);
    }
    scene.release(&[LOUD]);
    assert_eq!(scene.upcast(None), Ok((9, 2)));
}

/// Goal: upcasts that are too much together are not one by one. Method: a server that lets a
/// mutation take few steps, of which each upcast takes a part.
#[test]
fn a_slice_takes_no_more_than_a_mutation_may() {
    let limits = Limits { statement_steps_max: 20_000, ..Limits::DEFAULT };
    let mut scene = Scene::with_limits(usize::MAX, limits);
    for _ in 0..10 {
        scene.note("order", "o", "x", 10);
    }
    let long = "json_object('text', (with n (n) as (select 1 union all select n + 1 from n where
                n < 200) select max(n) from n) || (:data ->> 'text'))";
    scene.release(&[long]);
    let before = scene.told();
    let (events, slices) = scene.upcast(None).expect("done");
    assert!(events == 100 && slices > 4, "{events} in {slices}");
    assert!(scene.told() == before, "the same");
}

/// Goal: one that cannot be brought there is named, stays as it was, and so does what stands behind
/// it, while what stands before it is done. Method: an upcast that takes some and no others, as it
/// gives no object, fails, or gives too much.
#[test]
fn an_event_that_cannot_be_brought_there_is_named() {
    let reason = |upcast: &str| {
        let mut scene = Scene::new(usize::MAX);
        scene.note("order", "o", "fine", 5);
        scene.note("order", "o", "odd", 1);
        scene.note("order", "o", "fine", 2);
        scene.release(&[LOUD, upcast]);
        let refused = scene.upcast(None);
        assert_eq!(scene.versions(), ["order v1 3", "order v3 5"], "{refused:?}");
        let image = scene.server.rest.image();
        assert_eq!(scene.upcast(None), refused, "again");
        assert!(scene.server.rest.image() == image, "nothing has changed");
        match refused {
            Err(UpcastRefusal::Failed { sequence: 6, reason }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let start = "event 6, noted of order, cannot be brought to version 3: ";
    for (upcast, why) in [
        ("iif(:data ->> 'text' like 'odd%', null, :data)", "it gives null, and no object"),
        ("iif(:data ->> 'text' like 'odd%', 'no', :data)", "malformed JSON"),
        (
            "iif(:data ->> 'text' like 'odd%',
                 json_object('text', hex(zeroblob(200000))), :data)",
            "it gives 400011 bytes, and an event has 262144",
        ),
    ] {
        assert_eq!(reason(upcast), format!("{start}{why}"));
    }
}

#[test]
fn what_is_not_there_is_told_apart() {
    let mut scene = Scene::new(usize::MAX);
    assert_eq!(scene.upcast(None), Ok((0, 1)), "no events");
    assert_eq!(scene.upcast(Some("other")), Err(UpcastRefusal::UnknownAggregate));
    let plain = Doctype { streams: Vec::new(), ..shop(&[]) };
    let mut scene = Scene {
        server: Server::new(9, usize::MAX, &plain),
        device: Device::new(1, usize::MAX, &plain),
        doctype: plain,
    };
    assert_eq!(scene.upcast(None), Err(UpcastRefusal::NoStreams));
}
