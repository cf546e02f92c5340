//! Commands of many devices, handled by some of them while cores die, lines break and clocks run
//! apart: each is over once, and all see the same.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_client::{Call, Complete, FromCore, Handling, Request, ToCore};
use tidelog_document::{
    CommandDefinition, Completion, Doctype, EventDefinition, InstanceId, NewEvent, Outcome,
    StreamDefinition, TaskKind, sending,
};
use tidelog_testing::Rng;
use tidelog_testing::client::server::{Server, offline, talk};
use tidelog_testing::client::*;
use tidelog_types::Value;
use tidelog_types::limits::INSTANCE_SILENT_MS;

fn counted_todos() -> Doctype {
    let mut doctype = todos();
    doctype.migrations.push("create table done (id text primary key, times integer)".to_owned());
    let event = EventDefinition {
        name: "done".to_owned(),
        fields: Vec::new(),
        upcasts: Vec::new(),
        project: vec![
            "insert into done values (:stream, 1) on conflict (id) do update set times = times + 1"
                .to_owned(),
        ],
    };
    let command = CommandDefinition {
        name: "do".to_owned(),
        fields: Vec::new(),
        received: Vec::new(),
        failed: vec!["insert or ignore into done values (:stream, 0)".to_owned()],
        retries: 3,
        timeout_ms: 60_000,
    };
    let (name, events, commands) = ("todo".to_owned(), vec![event], vec![command]);
    doctype.streams = vec![StreamDefinition { name, events, commands }];
    doctype
}

struct World {
    server: Server,
    devices: Vec<Device>,
    handling: Vec<Option<Call>>,
    sent: BTreeSet<(String, String)>,
    rng: Rng,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            server: Server::default(),
            devices: (1..4).map(Device::new).collect(),
            handling: vec![None; 3],
            sent: BTreeSet::new(),
            rng: Rng::new(seed),
        };
        (0..3).for_each(|nth| world.open(nth));
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next() % bound
    }

    fn open(&mut self, nth: usize) {
        self.devices[nth].server_is_up = true;
        self.devices[nth].start_open(TAB, Some(SERVER), &counted_todos());
        self.talk();
    }

    fn talk(&mut self) {
        talk(&mut self.server, &mut self.devices.iter_mut().collect::<Vec<_>>());
    }

    fn ask(&mut self, nth: usize, request: Request) -> Call {
        let device = &mut self.devices[nth];
        let call = device.next_call();
        device.ask(TAB, vec![ToCore::Ask { call, handle: HANDLE, request }]);
        call
    }

    fn handle(&mut self, nth: usize, concurrency: u32) {
        let kind = TaskKind { aggregate: "todo".to_owned(), name: "do".to_owned() };
        let request = Request::Handle(Handling { kinds: vec![kind], concurrency });
        self.handling[nth] = Some(self.ask(nth, request));
    }

    /// Number, attempt and position of what a device was given last, and as which instance.
    fn given(&self, nth: usize) -> Vec<[u64; 4]> {
        let Some(call) = self.handling[nth] else { return Vec::new() };
        let last = self.devices[nth].rows_told(call).pop().unwrap_or_default();
        let number = |value: &Value| match value {
            Value::Integer(number) => number.unsigned_abs(),
            other => panic!("{other:?}"),
        };
        last.iter().map(|row| [0, 9, 10, 12].map(|column| number(&row[column]))).collect()
    }

    fn complete(&mut self, nth: usize, given: [u64; 4], outcome: Outcome) {
        let [task, attempt, position, instance] = given;
        let handling = self.handling[nth].expect("it was given");
        let completion = Completion { task, attempt, position, outcome };
        self.ask(
            nth,
            Request::Complete(Complete { handling, instance: InstanceId(instance), completion }),
        );
    }

    fn step(&mut self) {
        let nth = self.below(3) as usize;
        match self.below(12) {
            0..3 => {
                let [stream, key] = [4, 3].map(|bound| format!("s{}", self.below(bound)));
                let args = [("stream", text(&stream)), ("args", text("{}")), ("key", text(&key))];
                let call = self.devices[nth].mutate(&sending("todo", "do"), &args);
                if matches!(self.devices[nth].answers(call)[..], [FromCore::Durable { .. }, ..]) {
                    self.sent.insert((stream, key));
                }
            }
            3 if self.handling[nth].is_none() => {
                let concurrency = 1 + self.below(3) as u32;
                self.handle(nth, concurrency);
            }
            3 => {
                let call = self.handling[nth].take().expect("it handles");
                self.devices[nth].give_up(call);
            }
            4..7 => {
                let given = self.given(nth);
                if !given.is_empty() {
                    let which = given[self.below(given.len() as u64) as usize];
                    let outcome = match self.below(4) {
                        0 => failed(false),
                        1 => failed(true),
                        _ => done(),
                    };
                    self.complete(nth, which, outcome);
                }
            }
            7 if self.devices[nth].socket.is_some() => {
                offline(&mut self.devices[nth]);
                self.server.forget(self.devices[nth].number);
            }
            7 => self.devices[nth].server_is_up = true,
            8 => {
                self.devices[nth].kill_core();
                self.server.forget(self.devices[nth].number);
                self.devices[nth].lend();
                self.handling[nth] = None;
                self.open(nth);
            }
            9 => self.server.now_ms += self.below(INSTANCE_SILENT_MS * 2),
            10 => {
                let ms = self.below(INSTANCE_SILENT_MS);
                self.devices[nth].pass(ms);
            }
            _ => self.talk(),
        }
    }

    /// All come back, one handles what is left, and nothing fails any more.
    fn end(&mut self) {
        for nth in 0..3 {
            if let Some(call) = self.handling[nth].take() {
                self.devices[nth].give_up(call);
            }
            self.devices[nth].server_is_up = true;
            self.devices[nth].pass(20_000);
        }
        self.talk();
        self.handle(0, 3);
        self.talk();
        for _ in 0..100 {
            for which in self.given(0) {
                self.complete(0, which, done());
            }
            self.server.now_ms += 20_000;
            self.devices.iter_mut().for_each(|device| device.pass(20_000));
            self.talk();
        }
    }
}

fn done() -> Outcome {
    let events = vec![NewEvent { name: "done".to_owned(), data: "{}".to_owned() }];
    Outcome::Completed { events, sends: Vec::new(), starts: Vec::new(), snapshot: None }
}

fn failed(is_final: bool) -> Outcome {
    Outcome::Failed { reason: "no".to_owned(), is_final }
}

fn one_text(rows: Vec<Vec<Value>>) -> String {
    match &rows[..] {
        [row] => match &row[..] {
            [Value::Text(text)] => text.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Goal: whoever sends a command, however often, and whoever dies amid it: it is over once, with
/// its events and their rows, in the order of each stream, and nobody is held up for good. Method:
/// three devices do at random what apps and browsers do to them.
#[test]
fn each_command_is_over_once_whatever_happens() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        for _ in 0..250 {
            world.step();
        }
        world.end();
        let sent = world.sent.clone();
        let device = &mut world.devices[1];
        let known = device.query("select stream, key from tidelog_commands order by stream, key");
        let known: Vec<(String, String)> = known
            .into_iter()
            .map(|row| match &row[..] {
                [Value::Text(stream), Value::Text(key)] => (stream.clone(), key.clone()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(known, sent.into_iter().collect::<Vec<_>>(), "seed {seed}");
        let open = "select count(*) from tidelog_commands where state in ('received', 'started')";
        assert_eq!(device.query(open), [[integer(0)]], "seed {seed}");
        // By hand: what rows and events have to be if each has completed once.
        let [counted, folded, caused, gaps] = [
            "select group_concat(stream || times, ' ') from (select id as stream, times from done
             where times > 0 order by id)",
            "select group_concat(stream || n, ' ') from (select stream, count(*) as n
             from tidelog_commands where state = 'completed' group by stream order by stream)",
            "select count(distinct cause) || ' ' || count(*) || ' ' || (select count(*)
             from tidelog_commands as command join tidelog_events as event
             on event.sequence = command.first and event.sequence = command.last
             and event.cause = 'command:' || command.number and event.stream = command.stream)
             from tidelog_events",
            "select coalesce(group_concat(sequence), '') from (select sequence,
             row_number() over (order by sequence) as nth,
             row_number() over (partition by stream order by sequence) as at, position
             from tidelog_events) where sequence <> nth or position <> at",
        ]
        .map(|sql| device.query(sql));
        assert_eq!(counted, folded, "seed {seed}");
        let caused = one_text(caused);
        let counts: Vec<&str> = caused.split(' ').collect();
        assert!(counts.iter().all(|it| *it == counts[0]), "seed {seed}: {caused}");
        assert_eq!(one_text(gaps), "", "seed {seed}");
        let image = world.server.image();
        for device in &mut world.devices {
            assert!(device.image() == image, "seed {seed}");
        }
    }
}

/// How often whoever handles tasks is killed, and how many commands there are, in how many streams.
const KILLS: usize = 20;
const COMMANDS: usize = 1_000;
const STREAMS: usize = 50;
/// Commands that one has in hand as it is killed, of which it completes half, and that the other
/// one has completed as it freezes.
const IN_HAND: usize = 4;
const DONE_BEFORE_FREEZE: usize = 100;
/// For how long nothing may happen to the command that is next in its stream.
const STUCK_MS: u64 = 31_000;

/// The place of the device that sends all commands, of one that is killed again and again, and of
/// one that freezes.
const SHOP: usize = 0;
const KILLED: usize = 1;
const FROZEN: usize = 2;

impl World {
    /// A second passes for those that are not frozen.
    fn second(&mut self, is_frozen: bool) {
        self.server.now_ms += 1_000;
        let mut awake: Vec<&mut Device> = self.devices.iter_mut().collect();
        awake.truncate(if is_frozen { FROZEN } else { FROZEN + 1 });
        awake.iter_mut().for_each(|device| device.pass(1_000));
        talk(&mut self.server, &mut awake);
    }

    fn complete_some(&mut self, nth: usize, most: usize) -> usize {
        let mut given = self.given(nth);
        given.truncate(most);
        given.iter().for_each(|which| self.complete(nth, *which, done()));
        given.len()
    }

    fn kill(&mut self, nth: usize) {
        self.devices[nth].kill_core();
        self.server.forget(self.devices[nth].number);
        self.devices[nth].lend();
        self.devices[nth].start_open(TAB, Some(SERVER), &counted_todos());
        self.handle(nth, u32::try_from(STREAMS).expect("few"));
    }

    /// Of each stream the command that is next: number, state and attempt.
    fn next_ones(&mut self) -> Vec<Vec<Value>> {
        self.devices[SHOP].query(
            "select number, state, attempt from tidelog_commands where number in
             (select min(number) from tidelog_commands where ended is null group by stream)",
        )
    }
}

/// Goal: two handle a thousand commands of fifty streams; one of them is killed twenty times, and
/// the other one freezes for good, as a laptop does that sleeps. Each command has completed once,
/// and none of them is stuck for more than 31 seconds. Method: second by second, by clocks of our
/// own; the server takes whoever it has not heard for 30 seconds for gone.
#[test]
fn a_thousand_commands_complete_though_one_handler_is_killed_and_one_is_frozen() {
    let mut world = World::new(1);
    let both = u32::try_from(STREAMS).expect("few");
    [KILLED, FROZEN].into_iter().for_each(|nth| world.handle(nth, both));
    world.talk();
    for nth in 0..COMMANDS {
        let [stream, key] = [nth % STREAMS, nth].map(|it| it.to_string());
        let args = [("stream", text(&stream)), ("args", text("{}")), ("key", text(&key))];
        world.devices[SHOP].mutate(&sending("todo", "do"), &args);
    }
    world.talk();
    let (mut kills, mut by_frozen) = (0, 0);
    let mut frozen_at_ms = None;
    let mut is_gone = false;
    let mut changed_ms: BTreeMap<String, u64> = BTreeMap::new();
    let is_left = (0..2_000).any(|_| {
        world.second(frozen_at_ms.is_some());
        let now_ms = world.server.now_ms;
        let in_hand = world.given(KILLED).len();
        if kills < KILLS && in_hand >= IN_HAND {
            world.complete_some(KILLED, in_hand / 2);
            let mut awake: Vec<&mut Device> = world.devices[..FROZEN].iter_mut().collect();
            talk(&mut world.server, &mut awake);
            world.kill(KILLED);
            kills += 1;
        } else {
            world.complete_some(KILLED, in_hand);
        }
        match frozen_at_ms {
            None => {
                by_frozen += world.complete_some(FROZEN, STREAMS);
                // What it has just said does not leave it.
                frozen_at_ms = (by_frozen >= DONE_BEFORE_FREEZE).then_some(now_ms);
            }
            Some(at_ms) if !is_gone && now_ms - at_ms >= INSTANCE_SILENT_MS => {
                let number = world.devices[FROZEN].number;
                world.server.is_silent(number, now_ms - at_ms);
                is_gone = true;
            }
            Some(_) => {}
        }
        let next = world.next_ones();
        let next: Vec<String> = next.iter().map(|row| format!("{row:?}")).collect();
        changed_ms.retain(|known, _| next.contains(known));
        for it in &next {
            let since_ms = *changed_ms.entry(it.clone()).or_insert(now_ms);
            assert!(now_ms - since_ms <= STUCK_MS, "{it} is stuck");
        }
        next.is_empty()
    });
    assert!(is_left, "all of it ends");
    assert_eq!((kills, is_gone), (KILLS, true));

    // It wakes, and says what it has done meanwhile: that counts no longer.
    let late = world.given(FROZEN);
    assert!(!late.is_empty(), "it had something when it froze");
    late.iter().for_each(|which| world.complete(FROZEN, *which, done()));
    world.devices[FROZEN].lose_socket();
    (0..30).for_each(|_| world.second(false));
    let device = &mut world.devices[SHOP];
    let counts = "select (select count(*) from tidelog_commands where state = 'completed'),
                         (select count(*) from tidelog_events),
                         (select count(distinct cause) from tidelog_events),
                         (select sum(times) from done)";
    assert_eq!(device.query(counts), [vec![integer(COMMANDS as i64); 4]]);
}
