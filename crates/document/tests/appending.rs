//! Events that whoever runs a server records.

mod common;

use common::*;
use tidelog_document::{
    AppendRefusal, AppendedEvent, Change, Changed, CommandDefinition, Doctype, EventDefinition,
    Free, InstanceId, MutationDefinition, NewRecord, Outcome, Param, ParamKind, Recorded,
    StreamDefinition, TaskKind, WorkflowDefinition, starting,
};
use tidelog_types::{ClientId, Value};

/// Orders that are placed once each, and runs that wait for that.
fn shop() -> Doctype {
    let id = Param { name: "id".to_owned(), kind: ParamKind::Text, optional: false };
    Doctype {
        name: "shop".to_owned(),
        migrations: vec![
            "create table orders (id text primary key, by text, at integer) strict".to_owned(),
        ],
        mutations: vec![MutationDefinition {
            name: "clear".to_owned(),
            params: vec![],
            sql: vec!["delete from orders".to_owned()],
        }],
        streams: vec![StreamDefinition {
            name: "order".to_owned(),
            events: vec![EventDefinition {
                name: "placed".to_owned(),
                fields: vec![id],
                upcasts: vec![":data".to_owned()],
                project: vec!["insert into orders values (:id, :user, :now)".to_owned()],
            }],
            commands: vec![CommandDefinition {
                name: "place".to_owned(),
                fields: vec![],
                received: vec![],
                failed: vec![],
                retries: 0,
                timeout_ms: 0,
            }],
        }],
        workflows: vec![WorkflowDefinition {
            name: "fulfil".to_owned(),
            version: 1,
            fields: vec![],
        }],
    }
}

fn placed(stream: &str, id: &str) -> AppendedEvent {
    AppendedEvent {
        aggregate: "order".to_owned(),
        stream: stream.to_owned(),
        name: "placed".to_owned(),
        data: format!("{{\"id\": \"{id}\"}}"),
        version: None,
        time_ms: None,
        user: None,
        position: None,
    }
}

struct Scene {
    server: Server,
    device: Device,
}

impl Scene {
    fn change(&mut self, change: &Change) -> Changed {
        let view = self.server.authority.view().clone();
        let server = &mut self.server;
        let (changed, committed) = server
            .rest
            .serve(&view, || server.authority.change(change, &shop(), 5_000))
            .expect("decided");
        if let Some(committed) = committed {
            server.keep(committed, None);
        }
        changed
    }

    fn append(&mut self, events: &[AppendedEvent]) -> Result<u64, AppendRefusal> {
        let events = events.into();
        match self.change(&Change::Append { events, by: "root".to_owned() }) {
            Changed::Appended(appended) => appended,
            other => panic!("{other:?}"),
        }
    }

    /// What a device has of it.
    fn rows(&mut self, sql: &str) -> Vec<String> {
        follow(&self.server, &mut self.device);
        let rows = self.device.query(sql);
        let text = |row: Vec<Value>| match row.into_iter().next() {
            Some(Value::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(text).collect()
    }
}

fn with_shop(scenario: impl Fn(Scene)) {
    for pool in POOLS {
        let server = Server::new(9, pool, &shop());
        let device = Device::following(1, pool, &shop(), &server);
        scenario(Scene { server, device });
    }
}

const EVENTS: &str =
    "select sequence || ' ' || stream || ' ' || position || ' v' || version || ' ' ||
                      time || ' ' || user || ' ' || cause || ' ' || data
                      from tidelog_events order by sequence";

/// Goal: what is recorded is an event like any other, with what follows from it, when and of whom
/// it says.
#[test]
fn events_are_recorded_with_what_follows_from_them() {
    with_shop(|mut scene| {
        let other = AppendedEvent {
            version: Some(2),
            time_ms: Some(7),
            user: Some("eve".to_owned()),
            position: Some(1),
            ..placed("p", "b")
        };
        assert_eq!(scene.append(&[placed("o", "a"), other, placed("o", "c")]), Ok(3));
        let events = [
            r#"1 o 1 v2 5000 root append {"id":"a"}"#,
            r#"2 p 1 v2 7 eve append {"id":"b"}"#,
            r#"3 o 2 v2 5000 root append {"id":"c"}"#,
        ];
        assert_eq!(scene.rows(EVENTS), events);
        let orders = "select id || by || at from orders order by id";
        assert_eq!(scene.rows(orders), ["aroot5000", "beve7", "croot5000"]);
    });
}

/// Goal: all or nothing, and which one it is. Method: the last of three cannot be.
#[test]
fn of_events_that_cannot_be_none_is_recorded() {
    with_shop(|mut scene| {
        assert_eq!(scene.append(&[placed("o", "a")]), Ok(1));
        let image = scene.server.rest.image();
        let mut refused = |last: AppendedEvent| {
            let refused = scene.append(&[placed("o", "b"), placed("o", "c"), last]);
            assert!(scene.server.rest.image() == image, "nothing has changed");
            refused.expect_err("refused")
        };
        let misplaced = |length| AppendRefusal::Misplaced { nth: 2, length };
        let at = |position| AppendedEvent { position: Some(position), ..placed("o", "d") };
        assert_eq!(refused(at(3)), misplaced(3));
        assert_eq!(refused(at(5)), misplaced(3));
        let elsewhere = AppendedEvent { position: Some(2), ..placed("p", "d") };
        assert_eq!(refused(elsewhere), misplaced(0));
        for (last, why) in [
            (placed("o", "a"), "UNIQUE"),
            (AppendedEvent { name: "lost".to_owned(), ..placed("o", "d") }, "has none"),
            (AppendedEvent { data: "{}".to_owned(), ..placed("o", "d") }, "id"),
            (
                AppendedEvent { version: Some(1), ..placed("o", "d") },
                "of version 1, and 2 is known",
            ),
        ] {
            match refused(last) {
                AppendRefusal::Rejected { nth: 2, reason } if reason.contains(why) => {}
                other => panic!("{other:?} for {why}"),
            }
        }
        assert_eq!(scene.append(&[]), Ok(1));
        assert_eq!(scene.append(&[at(2)]), Ok(2), "what was refused has taken no place");
    });
}

/// Goal: a run that waits for an event goes on by one that is recorded so.
#[test]
fn a_run_that_waits_for_an_event_hears_of_it() {
    with_shop(|mut scene| {
        let args = [("id", text("f")), ("args", text("{}"))];
        scene.device.try_issue(&shop(), &starting("fulfil"), &args).expect("started");
        converge(&mut scene.server, &mut scene.device);
        let (client, user, kinds) = (ClientId([7; 16]), "ada".to_owned(), Vec::new());
        let register = Change::Register { client, user, kinds };
        let Changed::Registered(instance) = scene.change(&register) else { panic!("registered") };
        let kinds = vec![TaskKind { aggregate: "fulfil".to_owned(), name: "1".to_owned() }];
        let free = Free { instance, kinds, concurrency: 1 };
        scene.change(&Change::Dispatch(vec![free]));
        let wait = Recorded::WaitFor {
            aggregate: "order".to_owned(),
            stream: "o".to_owned(),
            event: "placed".to_owned(),
            timeout_ms: 0,
        };
        let records = vec![NewRecord { name: "w".to_owned(), count: 0, what: wait }];
        let outcome = Outcome::Progressed { records, suspends: true };
        complete(&mut scene, instance, outcome);
        let state = "select state from tidelog_workflows";
        assert_eq!(scene.rows(state), ["waiting"]);
        let ready = "select state from _tidelog_task";
        assert_eq!(scene.server.query_system(ready), [[text("suspended")]]);
        scene.append(&[placed("o", "a")]).expect("recorded");
        assert_eq!(scene.server.query_system(ready), [[text("ready")]]);
    });
}

fn complete(scene: &mut Scene, instance: InstanceId, outcome: Outcome) {
    let completion = tidelog_document::Completion { task: 1, attempt: 1, position: 0, outcome };
    scene.change(&Change::Complete { instance, completion });
}
