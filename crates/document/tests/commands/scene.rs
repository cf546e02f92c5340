//! Orders that are placed by commands, at an authority and a device.

pub(crate) use crate::common::*;
pub(crate) use tidelog_document::{
    Authority, Change, Changed, CommandDefinition, CommandRef, Committed, Completion, Doctype,
    DoctypeError, Endings, Erasable, ErasedUpTo, EventDefinition, FoundCommands, FoundOutcome,
    FoundRight, Free, InstanceId, Intervened, Intervention, MutationDefinition, NewCommand,
    NewEvent, NewSnapshot, Outcome, Param, ParamKind, StreamDefinition, TaskKind, Verdict,
    WantedCommands, check, find_commands, find_endings, find_given, find_outcome, hash_of, sending,
};
pub(crate) use tidelog_sqlite::{Failure, SystemQueries as _, View};
pub(crate) use tidelog_sync::{CodedPage, CompletionAnswer};
pub(crate) use tidelog_types::limits::Limits;
pub(crate) use tidelog_types::{CallId, ClientId, JournalId, Lineage, Position, Value};

pub(crate) fn param(name: &str, kind: ParamKind) -> Param {
    Param { name: name.to_owned(), kind, optional: false }
}

pub(crate) fn texts_of(sql: &[&str]) -> Vec<String> {
    sql.iter().map(ToString::to_string).collect()
}

pub(crate) fn command(
    name: &str,
    fields: Vec<Param>,
    received: &[&str],
    failed: &[&str],
) -> CommandDefinition {
    CommandDefinition {
        name: name.to_owned(),
        fields,
        received: texts_of(received),
        failed: texts_of(failed),
        retries: 2,
        timeout_ms: 30_000,
    }
}

/// Orders that are placed and paid, of no more than a hundred in all.
pub(crate) fn shop() -> Doctype {
    let event = |name: &str, fields, project: &[&str]| EventDefinition {
        name: name.to_owned(),
        fields,
        upcasts: Vec::new(),
        project: texts_of(project),
    };
    let note =
        "insert into tidelog_events (aggregate, stream, type) values ('order', :id, 'noted')";
    Doctype {
        name: "shop".to_owned(),
        migrations: vec![
            "create table orders (id text primary key, state text, items integer, by text) strict;
             create table total (sum integer check (sum <= 100)) strict;
             insert into total values (0)"
                .to_owned(),
        ],
        mutations: vec![MutationDefinition {
            name: "note".to_owned(),
            params: vec![param("id", ParamKind::Text)],
            sql: vec![note.to_owned()],
        }],
        streams: vec![StreamDefinition {
            name: "order".to_owned(),
            events: vec![
                event("noted", vec![], &[]),
                event(
                    "placed",
                    vec![param("items", ParamKind::Integer)],
                    &[
                        "update orders set state = 'placed', items = :items where id = :stream",
                        "update total set sum = sum + :items",
                    ],
                ),
            ],
            commands: vec![
                command("pay", vec![], &[], &[]),
                command(
                    "place",
                    vec![param("items", ParamKind::Integer)],
                    &["insert into orders values (:stream, 'sent', :items, :user || :key)
                       on conflict (id) do update set state = 'sent'"],
                    &["update orders set state = :reason where id = :stream"],
                ),
            ],
        }],
        workflows: Vec::new(),
    }
}

/// What is handled.
pub(crate) fn kinds() -> Vec<TaskKind> {
    let kind = |name: &str| TaskKind { aggregate: "order".to_owned(), name: name.to_owned() };
    vec![kind("pay"), kind("place")]
}

/// An authority, and a device that follows it.
pub(crate) struct Scene {
    pub(crate) doctype: Doctype,
    pub(crate) server: Server,
    pub(crate) device: Device,
    pub(crate) now_ms: u64,
}

pub(crate) fn with_shop(scenario: impl Fn(Scene)) {
    with_limited_shop(Limits::DEFAULT, scenario);
}

pub(crate) fn with_limited_shop(limits: Limits, scenario: impl Fn(Scene)) {
    POOLS.into_iter().for_each(|pool| scenario(limited_shop(pool, limits)));
}

pub(crate) fn limited_shop(pool: usize, limits: Limits) -> Scene {
    let doctype = shop();
    let server = Server::with_limits(9, pool, &doctype, limits);
    let device = Device::following(1, pool, &doctype, &server);
    Scene { doctype, server, device, now_ms: 1_000_000 }
}

impl Scene {
    pub(crate) fn try_send(
        &mut self,
        stream: &str,
        name: &str,
        args: &str,
        key: &str,
    ) -> Result<(), Failure> {
        let name = sending("order", name);
        let args = [("stream", text(stream)), ("args", text(args)), ("key", text(key))];
        self.device.try_issue(&self.doctype, &name, &args).map(drop)
    }

    /// Sent by the device, and received by the authority.
    pub(crate) fn send(&mut self, stream: &str, name: &str, args: &str, key: &str) {
        self.try_send(stream, name, args, key).expect("it is sent");
        self.converge();
    }

    pub(crate) fn converge(&mut self) {
        follow(&self.server, &mut self.device);
        converge(&mut self.server, &mut self.device);
        let verdicts = self.device.verdicts();
        assert!(verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Applied), "{verdicts:?}");
    }

    pub(crate) fn change(&mut self, change: &Change) -> Changed {
        let view = self.server.authority.view().clone();
        let Self { server, doctype, now_ms, .. } = self;
        let changed =
            server.rest.serve(&view, || server.authority.change(change, doctype, *now_ms));
        let (changed, committed) = changed.expect("decided");
        if let Some(committed) = committed {
            server.keep(committed, None);
        }
        changed
    }

    pub(crate) fn register(&mut self) -> InstanceId {
        let (client, user, kinds) = (ClientId([7; 16]), "ada".to_owned(), kinds());
        match self.change(&Change::Register { client, user, kinds }) {
            Changed::Registered(instance) => instance,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn dispatch(&mut self, instance: InstanceId, concurrency: u32) -> Option<u64> {
        self.dispatch_to(&[instance], concurrency)
    }

    pub(crate) fn dispatch_to(
        &mut self,
        instances: &[InstanceId],
        concurrency: u32,
    ) -> Option<u64> {
        let free =
            |instance: &InstanceId| Free { instance: *instance, kinds: kinds(), concurrency };
        let change = Change::Dispatch(instances.iter().map(free).collect());
        loop {
            match self.change(&change) {
                Changed::Dispatched { again: true, .. } => {}
                Changed::Dispatched { due_ms, .. } => return due_ms,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Number, attempt and stream of what is given to it.
    pub(crate) fn given(&mut self, instance: InstanceId) -> Vec<(i64, i64, String)> {
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let rows = server.rest.serve(&view, || find_given(server.authority.reader(), instance));
        let rows = rows.expect("found").decode();
        rows.into_iter()
            .map(|row| match (&row[0], &row[9], &row[2]) {
                (Value::Integer(number), Value::Integer(attempt), Value::Text(stream)) => {
                    (*number, *attempt, stream.clone())
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    pub(crate) fn outcome(&mut self, stream: &str, name: &str, key: &str) -> FoundOutcome {
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let names = ["order", stream, name, key];
        server
            .rest
            .serve(&view, || find_outcome(server.authority.reader(), names))
            .expect("looked up")
    }

    pub(crate) fn endings(&mut self, after: i64) -> Endings {
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let found = server.rest.serve(&view, || find_endings(server.authority.reader(), after));
        found.expect("looked up")
    }

    pub(crate) fn complete(
        &mut self,
        instance: InstanceId,
        [command, attempt, position]: [u64; 3],
        outcome: Outcome,
    ) -> CompletionAnswer {
        let completion = Completion { task: command, attempt, position, outcome };
        match self.change(&Change::Complete { instance, completion }) {
            Changed::Completed(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// Rows of a table that no query sees.
    pub(crate) fn count(&mut self, table: &str) -> i64 {
        let sql = format!("select count(*) from {table}");
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let rows = server.rest.serve(&view, || server.authority.reader().query_system(&sql, &[]));
        match rows.expect("counted")[0][0] {
            Value::Integer(count) => count,
            ref other => panic!("{other:?}"),
        }
    }

    /// What the device sees, once it has heard.
    pub(crate) fn rows(&mut self, sql: &str) -> Vec<String> {
        follow(&self.server, &mut self.device);
        let rows = self.device.query(sql);
        let cell = |row: Vec<Value>| match row.into_iter().next() {
            Some(Value::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(cell).collect()
    }
}

pub(crate) fn dispatching(instance: InstanceId, concurrency: u32) -> Change {
    Change::Dispatch(vec![Free { instance, kinds: kinds(), concurrency }])
}

pub(crate) fn placed(items: i64) -> Outcome {
    let data = format!("{{\"items\":{items}}}");
    let events = vec![NewEvent { name: "placed".to_owned(), data }];
    Outcome::Completed { events, sends: Vec::new(), starts: Vec::new(), snapshot: None }
}

/// The same, and what the events before it come to.
pub(crate) fn placed_with(name: &str, state: &str) -> Outcome {
    let Outcome::Completed { events, sends, starts, .. } = placed(1) else { unreachable!() };
    let snapshot = Some(NewSnapshot { name: name.to_owned(), state: state.to_owned() });
    Outcome::Completed { events, sends, starts, snapshot }
}

pub(crate) fn failed(reason: &str, is_final: bool) -> Outcome {
    Outcome::Failed { reason: reason.to_owned(), is_final }
}

pub(crate) const COMMANDS: &str =
    "select number || ' ' || stream || ' ' || command || ' ' || state || ' ' ||
                        attempt || ' ' || coalesce(first || '-' || last, reason, '')
                        from tidelog_commands order by number";
