//! Orders that are paid by commands and fulfilled by runs, at an authority and a device.

pub(crate) use crate::common::*;
pub(crate) use tidelog_document::{
    Change, Changed, CommandDefinition, Completion, Doctype, DoctypeError, EventDefinition,
    FoundOutcome, FoundRight, Free, InstanceId, MutationDefinition, NewCommand, NewEvent,
    NewRecord, NewRun, Outcome, Param, ParamKind, Recorded, StreamDefinition, TaskKind, Verdict,
    WorkflowDefinition, cancelling, check, find_given, find_outcome, find_records, sending,
    starting,
};
pub(crate) use tidelog_sqlite::{Failure, Run, View};
pub(crate) use tidelog_sync::CompletionAnswer;
pub(crate) use tidelog_types::limits::{
    Limits, RECORD_SIZE_MAX, WORKFLOW_RECORDS_MAX, WORKFLOW_SEEN_KINDS_MAX,
};
pub(crate) use tidelog_types::{ClientId, Value};

pub(crate) fn param(name: &str, kind: ParamKind) -> Param {
    Param { name: name.to_owned(), kind, optional: false }
}

pub(crate) fn workflow(name: &str, version: u32) -> WorkflowDefinition {
    let fields = vec![param("order", ParamKind::Text)];
    WorkflowDefinition { name: name.to_owned(), version, fields }
}

/// Orders that are paid, and what fulfils them.
pub(crate) fn shop() -> Doctype {
    let event = |name: &str| EventDefinition {
        name: name.to_owned(),
        fields: Vec::new(),
        upcasts: Vec::new(),
        project: Vec::new(),
    };
    let ship =
        "insert into tidelog_events (aggregate, stream, type) values ('order', :id, 'shipped')";
    let ship_all = "insert into tidelog_events (aggregate, stream, type)
                    select 'order', value, 'shipped' from json_each(:ids)";
    Doctype {
        name: "shop".to_owned(),
        migrations: vec!["create table orders (id text primary key) strict".to_owned()],
        mutations: vec![
            MutationDefinition {
                name: "ship".to_owned(),
                params: vec![param("id", ParamKind::Text)],
                sql: vec![ship.to_owned()],
            },
            MutationDefinition {
                name: "ship_all".to_owned(),
                params: vec![param("ids", ParamKind::Text)],
                sql: vec![ship_all.to_owned()],
            },
        ],
        streams: vec![StreamDefinition {
            name: "order".to_owned(),
            events: vec![event("paid"), event("shipped")],
            commands: vec![CommandDefinition {
                name: "pay".to_owned(),
                fields: Vec::new(),
                received: vec![
                    "select reject('no credit') where :stream = 'poor'".to_owned(),
                    "insert into orders values (:stream)".to_owned(),
                ],
                failed: Vec::new(),
                retries: 0,
                timeout_ms: 30_000,
            }],
        }],
        workflows: vec![workflow("fulfil", 1), workflow("pack", 1)],
    }
}

/// An authority, and a device that follows it.
pub(crate) struct Scene {
    pub(crate) doctype: Doctype,
    pub(crate) server: Server,
    pub(crate) device: Device,
    pub(crate) now_ms: u64,
}

/// What is handled.
pub(crate) fn kinds() -> Vec<TaskKind> {
    let kind = |aggregate: &str, name: &str| TaskKind {
        aggregate: aggregate.to_owned(),
        name: name.to_owned(),
    };
    vec![kind("fulfil", "1"), kind("pack", "1"), kind("order", "pay")]
}

pub(crate) fn with_shop(scenario: impl Fn(Scene)) {
    with_limited_shop(Limits::DEFAULT, scenario);
}

pub(crate) fn with_limited_shop(limits: Limits, scenario: impl Fn(Scene)) {
    for pool in POOLS {
        scenario(Scene::new(pool, limits));
    }
}

impl Scene {
    pub(crate) fn new(pool: usize, limits: Limits) -> Self {
        let doctype = shop();
        let server = Server::with_limits(9, pool, &doctype, limits);
        let device = Device::following(1, pool, &doctype, &server);
        Self { doctype, server, device, now_ms: 1_000_000 }
    }

    pub(crate) fn try_issue(&mut self, name: &str, args: &[(&str, Value)]) -> Result<(), Failure> {
        self.device.try_issue(&self.doctype, name, args).map(drop)
    }

    pub(crate) fn try_start(
        &mut self,
        workflow: &str,
        id: &str,
        args: &str,
    ) -> Result<(), Failure> {
        self.try_issue(&starting(workflow), &[("id", text(id)), ("args", text(args))])
    }

    /// Started by the device, and received by the authority.
    pub(crate) fn start(&mut self, id: &str) {
        self.try_start("fulfil", id, r#"{"order":"o1"}"#).expect("started");
        self.converge();
    }

    pub(crate) fn cancel(&mut self, id: &str) {
        self.try_issue(&cancelling("fulfil"), &[("id", text(id))]).expect("cancelled");
        self.converge();
    }

    pub(crate) fn ship(&mut self, id: &str) {
        self.try_issue("ship", &[("id", text(id))]).expect("shipped");
        self.converge();
    }

    /// What was predicted is what is decided, byte for byte.
    pub(crate) fn converge(&mut self) {
        let image = self.device.image();
        converge(&mut self.server, &mut self.device);
        assert_eq!(self.device.image(), image, "what was predicted is what was decided");
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
        follow(&self.server, &mut self.device);
        changed
    }

    pub(crate) fn register(&mut self) -> InstanceId {
        let (client, user, kinds) = (ClientId([7; 16]), "ada".to_owned(), kinds());
        match self.change(&Change::Register { client, user, kinds }) {
            Changed::Registered(instance) => instance,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn dispatch(&mut self, instance: InstanceId) -> Option<u64> {
        self.dispatch_to(&[instance])
    }

    pub(crate) fn dispatch_to(&mut self, instances: &[InstanceId]) -> Option<u64> {
        let free = |instance: &InstanceId| Free {
            instance: *instance,
            kinds: kinds(),
            concurrency: 1_024,
        };
        let free: Vec<Free> = instances.iter().map(free).collect();
        loop {
            match self.change(&Change::Dispatch(free.clone())) {
                Changed::Dispatched { again: true, .. } => {}
                Changed::Dispatched { due_ms, .. } => return due_ms,
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn decoded(&mut self, rows: tidelog_types::Rows) -> Vec<Vec<Value>> {
        rows.decode()
    }

    /// Number, attempt and id of what is given to it, and `!` of what is cancelled.
    pub(crate) fn given(&mut self, instance: InstanceId) -> Vec<String> {
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let rows = server.rest.serve(&view, || find_given(server.authority.reader(), instance));
        let rows = self.decoded(rows.expect("found"));
        let said = |row: Vec<Value>| match (&row[0], &row[9], &row[2], &row[11..]) {
            (
                Value::Integer(number),
                Value::Integer(attempt),
                Value::Text(stream),
                [Value::Integer(cancelled), _],
            ) => {
                let mark = if *cancelled == 0 { "" } else { "!" };
                format!("{number}.{attempt} {stream}{mark}")
            }
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(said).collect()
    }

    /// What a run remembers: name, count, state and result of each.
    pub(crate) fn records(&mut self, task: u64) -> Vec<String> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let view = self.server.authority.view().clone();
            let Self { server, .. } = self;
            let rows = server
                .rest
                .serve(&view, || find_records(server.authority.reader(), task, 0, after))
                .expect("found")
                .unwrap_or_default();
            let rows = self.decoded(rows);
            if rows.is_empty() {
                return all;
            }
            for row in rows {
                let cell = |place: usize| match &row[place] {
                    Value::Integer(number) => number.to_string(),
                    Value::Text(text) => text.clone(),
                    _ => String::new(),
                };
                after = cell(0).parse().expect("a number");
                let shown: Vec<String> = [1, 2, 3, 4, 5].map(cell).into_iter().collect();
                all.push(shown.join(" ").trim_end().to_owned());
            }
        }
    }

    /// The numbers of what it remembers.
    pub(crate) fn numbers(&mut self, task: u64) -> Vec<u64> {
        let sql = format!("select number from _tidelog_record where task = {task} order by number");
        let number = |row: &Vec<Value>| match row[0] {
            Value::Integer(number) => number.unsigned_abs(),
            _ => panic!("{row:?}"),
        };
        self.server.query_system(&sql).iter().map(number).collect()
    }

    pub(crate) fn outcome(&mut self, workflow: &str, id: &str) -> FoundOutcome {
        let view = self.server.authority.view().clone();
        let Self { server, .. } = self;
        let names = [workflow, id, "", id];
        let found = server.rest.serve(&view, || find_outcome(server.authority.reader(), names));
        found.expect("looked up")
    }

    /// State, reason and result of a run that is over.
    pub(crate) fn over(&mut self, workflow: &str, id: &str) -> [Value; 3] {
        let FoundOutcome::Over(rows) = self.outcome(workflow, id) else { panic!("over") };
        let [_, state, reason, _, _, result] = &rows.decode()[0][..] else { panic!("a row") };
        [state.clone(), reason.clone(), result.clone()]
    }

    pub(crate) fn complete(
        &mut self,
        instance: InstanceId,
        attempt: (u64, u64),
        outcome: Outcome,
    ) -> CompletionAnswer {
        self.complete_as_of(instance, attempt, outcome).0
    }

    pub(crate) fn complete_as_of(
        &mut self,
        instance: InstanceId,
        (task, attempt): (u64, u64),
        outcome: Outcome,
    ) -> (CompletionAnswer, u64) {
        // Its code was told of all that it remembers.
        let position = if outcome == again() { u64::MAX } else { 0 };
        let completion = Completion { task, attempt, position, outcome };
        let changed = self.change(&Change::Complete { instance, completion });
        changed.answer(self.now_ms).expect("a completion")
    }

    pub(crate) fn done(&mut self, instance: InstanceId, attempt: (u64, u64), outcome: Outcome) {
        assert_eq!(self.complete(instance, attempt, outcome), CompletionAnswer::Done);
    }

    /// The run has failed by that, so its handler does nothing more.
    pub(crate) fn fails(&mut self, instance: InstanceId, attempt: (u64, u64), outcome: Outcome) {
        assert_eq!(self.complete(instance, attempt, outcome), CompletionAnswer::Late);
    }

    /// What the device sees.
    pub(crate) fn rows(&mut self, sql: &str) -> Vec<String> {
        let rows = self.device.query(sql);
        let cell = |row: Vec<Value>| match row.into_iter().next() {
            Some(Value::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(cell).collect()
    }
}

pub(crate) const RUNS: &str =
    "select number || ' ' || workflow || ' ' || id || ' ' || version || ' ' ||
                    state || ' ' || attempt || ' ' || records || ' ' ||
                    coalesce(result, reason, '') from tidelog_workflows order by number";

pub(crate) fn record(name: &str, count: u32, what: Recorded) -> NewRecord {
    NewRecord { name: name.to_owned(), count, what }
}

pub(crate) fn step(name: &str, result: &str) -> NewRecord {
    record(name, 0, Recorded::Done { kind: "step".to_owned(), result: result.to_owned() })
}

pub(crate) fn wait_for(name: &str, event: &str, timeout_ms: u64) -> NewRecord {
    let [aggregate, stream, event] = ["order", "o1", event].map(str::to_owned);
    record(name, 0, Recorded::WaitFor { aggregate, stream, event, timeout_ms })
}

/// Until that order is shipped.
pub(crate) fn wait_for_order(name: &str, order: &str) -> NewRecord {
    let [aggregate, stream, event] = ["order", order, "shipped"].map(str::to_owned);
    record(name, 0, Recorded::WaitFor { aggregate, stream, event, timeout_ms: 0 })
}

pub(crate) fn pay(stream: &str) -> NewCommand {
    let [aggregate, stream, name, args, key] =
        ["order", stream, "pay", "{}", "by-run"].map(str::to_owned);
    NewCommand { aggregate, stream, name, args, key }
}

pub(crate) fn child(id: &str) -> NewRun {
    let [workflow, id, args] = ["pack", id, r#"{"order":"o1"}"#].map(str::to_owned);
    NewRun { workflow, id, args }
}

pub(crate) fn progressed(records: Vec<NewRecord>, suspends: bool) -> Outcome {
    Outcome::Progressed { records, suspends }
}

pub(crate) fn returned(result: &str) -> Outcome {
    Outcome::Returned { result: result.to_owned() }
}

pub(crate) fn again() -> Outcome {
    Outcome::Continued { args: r#"{"order":"o1"}"#.to_owned() }
}

pub(crate) fn failed(reason: &str) -> Outcome {
    Outcome::Failed { reason: reason.to_owned(), is_final: true }
}
