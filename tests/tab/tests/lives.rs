//! A tab and its cores, from one seed: cores die, page servers are slow, messages are lost with
//! whoever had them.
//!
//! The core here is a model that does what matters to a tab: it opens documents, runs a mutation
//! that it is handed unless it is asked again and finds it on the disk, and says what is durable a
//! while later. What has to hold: nothing is run twice, nothing is told that is not so, and every
//! call settles in ten seconds, whatever dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};
use tidelog_tab::{Answer, Effect, Input, Machine, RowCount};

const SEEDS: u64 = 150;
const ACTIONS: u64 = 120;
const SETTLES_MS: u64 = 10_000;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

enum Event {
    /// A message reaches this core.
    ToCore { life: u64, kind: String, message: Value },
    /// An answer of this core, or of its page server, reaches the tab.
    ToTab { life: u64, call: u32, answer: Answer },
    /// What this core was handed is on the disk.
    Durable { life: u64, call: u32 },
    /// The tab sees that the core with this number is gone.
    Gone { core: u32 },
    /// The tab wanted to be woken.
    Wake { at_ms: u64 },
}

/// What became of a mutation.
#[derive(Default)]
struct Fate {
    asked_at_ms: u64,
    /// How often it was run on what is on the disk.
    runs: u32,
    told: Vec<String>,
    settled: bool,
}

struct World {
    rng: Rng,
    now_ms: u64,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    tab: Machine,
    handle: u32,
    wake_at_ms: Option<u64>,
    /// What the tab wants done.
    due: VecDeque<Effect>,
    /// The tab's number for the core it is connected to; that core's life, or 0 once it is gone.
    core: u32,
    connected_life: u64,
    /// The present core, and whether it has the document open.
    life: u64,
    is_open: bool,
    memory: VecDeque<u32>,
    disk: BTreeSet<u32>,
    fates: BTreeMap<u32, Fate>,
    queries: BTreeMap<u32, u64>,
    opened: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let tab = Machine::new();
        let handle = tab.new_handle();
        let mut world = Self {
            rng: Rng(seed),
            now_ms: 1_000,
            queue: BTreeMap::new(),
            events: 0,
            tab,
            handle,
            wake_at_ms: None,
            due: VecDeque::new(),
            core: 0,
            connected_life: 0,
            life: 1,
            is_open: false,
            memory: VecDeque::new(),
            disk: BTreeSet::new(),
            fates: BTreeMap::new(),
            queries: BTreeMap::new(),
            opened: false,
        };
        world.call("open", true);
        world
    }

    fn call(&mut self, kind: &'static str, limited: bool) -> u32 {
        let call = self.tab.new_call();
        let message = json!({ "call": call, "handle": self.handle, "name": "m" });
        self.step(&Input::Call { kind, message, limited });
        call
    }

    /// What follows from a step comes after all that followed from the one before.
    fn step(&mut self, input: &Input) {
        let is_busy = !self.due.is_empty();
        self.due.extend(self.tab.step(self.now_ms, input));
        while !is_busy && let Some(effect) = self.due.front().cloned() {
            self.carry_out(effect);
            self.due.pop_front();
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { core } => self.connect(core),
            Effect::Post { kind, message } => {
                // What is said to a core that has died is lost.
                let life = self.connected_life;
                self.later(4, Event::ToCore { life, kind, message });
            }
            Effect::Settle { call, answer, last } => self.settled(call, &answer, last),
            #[expect(clippy::cast_possible_truncation, reason = "simulated times are small")]
            #[expect(clippy::cast_sign_loss, reason = "simulated times are small")]
            Effect::Wake { at } => {
                let at_ms = at.ceil() as u64;
                self.wake_at_ms = Some(at_ms);
                self.at(at_ms, Event::Wake { at_ms });
            }
            _ => {}
        }
    }

    fn connect(&mut self, core: u32) {
        self.core = core;
        self.connected_life = self.life;
        self.step(&Input::Connected { core, place: 0 });
        self.step(&Input::Welcome { core, lock: String::new() });
        self.step(&Input::Reach { core, server: 1 });
    }

    fn settled(&mut self, call: u32, answer: &Answer, last: bool) {
        if let Answer::Opened { .. } = answer {
            self.opened = true;
        }
        if last {
            self.queries.remove(&call);
        }
        let Some(fate) = self.fates.get_mut(&call) else { return };
        let says = match answer {
            Answer::Durable { .. } => "durable".to_owned(),
            Answer::Confirmed { .. } => "confirmed".to_owned(),
            Answer::Failed { error } => format!("{} {}", error.code, error.outcome),
            other => panic!("a mutation is told {other:?}"),
        };
        let is_durable = self.disk.contains(&call);
        assert!(is_durable || says.contains(' '), "{call} is told {says} and is not");
        assert!(!is_durable || !says.ends_with(" none"), "{call} is told {says} and is durable");
        assert!(!fate.settled, "{call} is told {says} after its last word: {:?}", fate.told);
        fate.told.push(says);
        fate.settled = last;
    }

    // --- the core ------------------------------------------------------------------------------

    fn core_hears(&mut self, kind: &str, message: &Value) {
        let life = self.life;
        let call = message["call"].as_u64().and_then(|call| u32::try_from(call).ok());
        let Some(call) = call else { return };
        match kind {
            "open" => {
                self.is_open = true;
                self.later(
                    9,
                    Event::ToTab {
                        life,
                        call,
                        answer: Answer::Opened { status: json!({}), memo: json!({ "word": 0 }) },
                    },
                );
            }
            "query" => {
                assert!(self.is_open, "a query came before its document was open");
                let answer = Answer::Rows { rows: RowCount { count: 1 } };
                self.later(9, Event::ToTab { life, call, answer });
            }
            "mutate" => {
                assert!(self.is_open, "a mutation came before its document was open");
                if !message["again"].is_null() && self.disk.contains(&call) {
                    self.tell_durable(life, call);
                } else {
                    self.memory.push_back(call);
                    // Now and then the device is slow.
                    let after_ms = if self.rng.below(6) == 0 { 14_000 } else { 60 };
                    self.later(after_ms, Event::Durable { life, call });
                }
            }
            other => panic!("the core is told {other}"),
        }
    }

    fn tell_durable(&mut self, life: u64, call: u32) {
        self.later(
            9,
            Event::ToTab { life, call, answer: Answer::Durable { entry: json!({ "lsn": 1 }) } },
        );
        self.later(300, Event::ToTab { life, call, answer: Answer::Confirmed { lsn: 1 } });
    }

    fn kill_core(&mut self) {
        self.life += 1;
        self.is_open = false;
        self.memory.clear();
        if self.connected_life != 0 {
            self.connected_life = 0;
            let core = self.core;
            self.later(400, Event::Gone { core });
        }
    }

    // --- time ----------------------------------------------------------------------------------

    fn later(&mut self, ms_max: u64, event: Event) {
        let at = self.now_ms + self.rng.below(ms_max + 1);
        // A port keeps its order.
        let last = match &event {
            Event::ToCore { .. } => self.last_of(|it| matches!(it, Event::ToCore { .. })),
            Event::ToTab { .. } => self.last_of(|it| matches!(it, Event::ToTab { .. })),
            _ => 0,
        };
        self.at(at.max(last), event);
    }

    fn last_of(&self, is_same: impl Fn(&Event) -> bool) -> u64 {
        let last = self.queue.iter().rev().find(|(_, event)| is_same(event));
        last.map_or(0, |((at, _), _)| *at)
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.events += 1;
        self.queue.insert((at_ms.max(self.now_ms), self.events), event);
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some(entry) = self.queue.first_entry().filter(|it| it.key().0 <= until) {
            let ((at, _), event) = entry.remove_entry();
            self.now_ms = at;
            self.happen(event);
            self.judge_time();
        }
        self.now_ms = until;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToCore { life, kind, message } if life == self.life => {
                self.core_hears(&kind, &message);
            }
            Event::ToTab { life, call, answer } if life == self.connected_life => {
                self.step(&Input::Answer { call, answer });
            }
            Event::Durable { life, call } if life == self.life => {
                self.memory.retain(|other| *other != call);
                self.disk.insert(call);
                let fate = self.fates.get_mut(&call).expect("BUG: nobody issued that");
                fate.runs += 1;
                assert_eq!(fate.runs, 1, "{call} is on the disk twice");
                self.tell_durable(life, call);
            }
            Event::Gone { core } => self.step(&Input::Gone { core }),
            Event::Wake { at_ms } if self.wake_at_ms == Some(at_ms) => {
                self.wake_at_ms = None;
                self.step(&Input::Wake);
            }
            _ => {}
        }
    }

    /// Every call is told something in ten seconds.
    fn judge_time(&self) {
        for (call, fate) in &self.fates {
            let waits = fate.told.is_empty() && self.now_ms > fate.asked_at_ms + SETTLES_MS;
            assert!(!waits, "{call} has been told nothing for ten seconds");
        }
        for (call, at_ms) in &self.queries {
            assert!(self.now_ms <= at_ms + SETTLES_MS, "query {call} waits for ever");
        }
    }

    fn act(&mut self) {
        match self.rng.below(9) {
            _ if !self.opened => {}
            0..=3 => {
                // The machine may answer at once.
                let call = self.tab.new_call();
                self.fates.insert(call, Fate { asked_at_ms: self.now_ms, ..Fate::default() });
                let message = json!({ "call": call, "handle": self.handle, "name": "m" });
                self.step(&Input::Call { kind: "mutate", message, limited: true });
            }
            4 | 5 => {
                let now_ms = self.now_ms;
                let call = self.call("query", true);
                self.queries.insert(call, now_ms);
            }
            6 => self.kill_core(),
            7 => self.step(&Input::Visible),
            _ => {
                let ms = self.rng.below(3_000);
                self.pass(ms);
            }
        }
        let ms = self.rng.below(40);
        self.pass(ms);
    }

    fn run(mut self) {
        self.pass(50);
        (0..ACTIONS).for_each(|_| self.act());
        // Nothing goes wrong any more: all is decided, one way or the other.
        self.pass(60_000);
        for (call, fate) in &self.fates {
            assert!(fate.settled, "{call} has no last word: {:?}", fate.told);
            let is_none = fate.told.iter().any(|says| says.ends_with(" none"));
            assert!(!(is_none && fate.runs > 0), "{call} was to have left nothing, and is there");
        }
    }
}

#[test]
fn whatever_dies_nothing_runs_twice_and_every_call_is_told_the_truth_in_time() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        World::new(seed).run();
    }
}
