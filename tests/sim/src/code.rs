//! What the code of a run does: some stages, one after the other, drawn from its id. So whoever
//! knows the id knows the code, and can say by the records alone what the code has made of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::app::FLOW;
use crate::rng::Rng;

/// Rounds of a run that goes on as new, at most.
const ROUNDS_MAX: u64 = 3;
/// Results of more bytes than that are told by their hash, as those of runs that have begun others.
const TOLD_SIZE_MAX: usize = 48;

/// By what a record is found again: its name, and how many of that name were before.
pub(crate) type Key = (String, u32);

/// What decides what a code does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CodeOf {
    /// What the arguments of the run say.
    pub(crate) id: String,
    pub(crate) round: u64,
    /// The version of the workflow.
    pub(crate) version: u64,
    /// A later release does something more, for the runs of before as well.
    pub(crate) is_later: bool,
}

/// Something that a code asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Step,
    Request,
    Sleep { ms: u64 },
    WaitFor { stream: String, timeout_ms: u64 },
    Send { stream: String },
    Start,
}

impl Want {
    /// What kind of record it makes.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Request => "request",
            Self::Sleep { .. } => "sleep",
            Self::WaitFor { .. } => "event",
            Self::Send { .. } => "command",
            Self::Start => "workflow",
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Step => "cook".to_owned(),
            Self::Request => "label".to_owned(),
            Self::Sleep { .. } => "sleep".to_owned(),
            Self::WaitFor { .. } => "waitFor:job.done".to_owned(),
            Self::Send { .. } => "send:job.do".to_owned(),
            Self::Start => format!("start:{FLOW}"),
        }
    }
}

/// The same with the name by which what becomes of it is found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) key: Key,
    pub(crate) want: Want,
}

/// What becomes of something that a code has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done(Option<String>),
    Failed(String),
    Cancelled,
}

/// How a code ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With this, as JSON.
    Returns(String),
    Fails(String),
    /// It goes on as new, with these arguments.
    Continues(String),
    /// It lets out that it was cancelled.
    Cancelled,
}

struct Stage {
    wants: Vec<(String, Want)>,
    /// Whether the first of them is enough.
    is_race: bool,
}

/// The code of one run, as far as it has come.
pub(crate) struct Code {
    of: CodeOf,
    stages: std::vec::IntoIter<Stage>,
    is_race: bool,
    waits_for: BTreeSet<Key>,
    counts: BTreeMap<String, u32>,
    told: Vec<String>,
    lets_cancel_out: bool,
    rounds: u64,
    fails: bool,
    pub(crate) end: Option<End>,
}

impl Code {
    /// The code, and what it asks for first.
    pub(crate) fn begin(of: CodeOf) -> (Self, Vec<Ask>) {
        let seed = of.id.bytes().fold(of.version << 8 | of.round, |seed, byte| {
            seed.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte)
        });
        let mut rng = Rng::new(seed);
        let mut stages: Vec<Stage> = (0..1 + rng.below(4)).map(|_| stage(&of, &mut rng)).collect();
        let rounds = if rng.once_in(4) { 1 + rng.below(ROUNDS_MAX) } else { 0 };
        let (fails, lets_cancel_out) = (rng.once_in(8), rng.once_in(2));
        if of.is_later {
            let check = Stage { wants: vec![("check".to_owned(), Want::Step)], is_race: false };
            stages.insert(rng.index(stages.len() + 1), check);
        }
        let mut code = Self {
            of,
            stages: stages.into_iter(),
            is_race: false,
            waits_for: BTreeSet::new(),
            counts: BTreeMap::new(),
            told: Vec::new(),
            lets_cancel_out,
            rounds,
            fails,
            end: None,
        };
        let asks = code.go_on();
        (code, asks)
    }

    /// It is told what became of something. Gives what it asks for then.
    pub(crate) fn hear(&mut self, key: &Key, answer: &Answer) -> Vec<Ask> {
        let (name, count) = key;
        let said = match answer {
            Answer::Done(result) => format!("={}", short(result.as_deref().unwrap_or("-"))),
            Answer::Failed(reason) => format!("!{}", short(reason)),
            Answer::Cancelled => "x".to_owned(),
        };
        self.told.push(format!("{name}.{count}{said}"));
        if !self.waits_for.remove(key) {
            return Vec::new();
        }
        if *answer == Answer::Cancelled && self.lets_cancel_out {
            self.end = Some(End::Cancelled);
            return Vec::new();
        }
        if self.is_race {
            self.waits_for.clear();
        }
        if self.waits_for.is_empty() { self.go_on() } else { Vec::new() }
    }

    /// Whether it waits for that now, and has not left it to itself.
    pub(crate) fn waits_for(&self, key: &Key) -> bool {
        self.waits_for.contains(key)
    }

    fn go_on(&mut self) -> Vec<Ask> {
        let Some(Stage { wants, is_race }) = self.stages.next() else {
            self.end = Some(self.its_end());
            return Vec::new();
        };
        let counts = &mut self.counts;
        let ask = |(name, want): (String, Want)| {
            let count = counts.entry(name.clone()).or_default();
            *count += 1;
            Ask { key: (name, *count - 1), want }
        };
        let asks: Vec<Ask> = wants.into_iter().map(ask).collect();
        self.is_race = is_race;
        self.waits_for = asks.iter().map(|ask| ask.key.clone()).collect();
        asks
    }

    fn its_end(&self) -> End {
        let CodeOf { id, round, is_later, .. } = &self.of;
        if *round < self.rounds {
            return End::Continues(args_of(id, round + 1));
        }
        if self.fails {
            return End::Fails("it fails".to_owned());
        }
        let told = serde_json::json!({ "told": self.told, "is_later": is_later });
        End::Returns(told.to_string())
    }
}

fn stage(of: &CodeOf, rng: &mut Rng) -> Stage {
    let count = [1, 1, 1, 2, 2, 3][rng.index(6)];
    let wants: Vec<Want> = (0..count).map(|_| want(of, rng)).collect();
    let mut named = |want: Want| {
        let is_other = want == Want::Step && rng.once_in(2);
        (if is_other { "wash".to_owned() } else { want.name() }, want)
    };
    let wants = wants.into_iter().map(&mut named).collect();
    Stage { wants, is_race: rng.once_in(2) }
}

fn want(of: &CodeOf, rng: &mut Rng) -> Want {
    let stream = |rng: &mut Rng| format!("s{}", rng.below(3));
    match rng.below(12) {
        0 | 1 => Want::Step,
        2..=4 => Want::Request,
        5 | 6 => Want::Sleep { ms: [0, 400, 3_000, 20_000, 90_000][rng.index(5)] },
        7 | 8 => {
            let timeout_ms = [1, 2_000, 30_000, 120_000][rng.index(4)];
            Want::WaitFor { stream: stream(rng), timeout_ms }
        }
        9 | 10 => Want::Send { stream: stream(rng) },
        // No run begins one that begins others without end.
        _ if is_of_run(&of.id) => Want::Step,
        _ => Want::Start,
    }
}

/// The arguments of a run.
pub(crate) fn args_of(id: &str, round: u64) -> String {
    format!("{{\"id\":\"{id}\",\"round\":{round}}}")
}

/// The same the other way round.
///
/// # Errors
///
/// They are none of a run.
pub(crate) fn read_args(args: &str) -> Result<(String, u64), String> {
    let read = || {
        let args: serde_json::Value = serde_json::from_str(args).ok()?;
        Some((args["id"].as_str()?.to_owned(), args["round"].as_u64()?))
    };
    read().ok_or_else(|| format!("a run has the arguments {args}"))
}

/// By what others know something that a run asks of them, whoever has it go on.
pub(crate) fn key_of(id: &str, number: u64, (name, count): &Key) -> String {
    let part = |text: &str| text.replace('%', "%25").replace('/', "%2F").replace('~', "%7E");
    format!("{FLOW}/{}~{number}/{}/{count}", part(id), part(name))
}

/// Whether a run has asked for what has that id.
pub(crate) fn is_of_run(id: &str) -> bool {
    id.strip_prefix(FLOW).is_some_and(|rest| rest.starts_with('/'))
}

fn short(text: &str) -> String {
    match text.len() > TOLD_SIZE_MAX {
        true => blake3::hash(text.as_bytes()).to_hex()[..16].to_owned(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(id: &str, is_later: bool) -> (Code, Vec<Ask>) {
        Code::begin(CodeOf { id: id.to_owned(), round: 0, version: 1, is_later })
    }

    /// Tells a code that all it asks for is done, the first or the last of it first.
    fn run(id: &str, is_later: bool, last_first: bool) -> (End, Vec<Key>) {
        let (mut code, mut asked) = code(id, is_later);
        let mut told = Vec::new();
        while code.end.is_none() {
            let at = if last_first { asked.len() - 1 } else { 0 };
            let Ask { key, .. } = asked.remove(at);
            told.push(key.clone());
            asked.extend(code.hear(&key, &Answer::Done(None)));
        }
        (code.end.expect("it has ended"), told)
    }

    #[test]
    fn a_code_does_the_same_each_time_and_asks_for_nothing_twice() {
        for number in 0..200 {
            let id = format!("0r{number}");
            for (is_later, last_first) in [(false, false), (true, false), (false, true)] {
                let (end, told) = run(&id, is_later, last_first);
                assert_eq!((&end, &told), (&run(&id, is_later, last_first).0, &told));
                assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len());
            }
        }
    }

    #[test]
    fn codes_do_all_that_a_run_may_do_and_end_in_each_way() {
        let mut kinds = BTreeSet::new();
        let mut ends = BTreeSet::new();
        for number in 0..200 {
            let (_, asks) = code(&format!("0r{number}"), false);
            kinds.extend(asks.iter().map(|ask| ask.want.kind()));
            ends.insert(match run(&format!("0r{number}"), false, false).0 {
                End::Returns(_) => "returns",
                End::Fails(_) => "fails",
                End::Continues(_) => "continues",
                End::Cancelled => "cancelled",
            });
        }
        assert_eq!(kinds.len(), 6, "{kinds:?}");
        assert_eq!(ends.len(), 3, "{ends:?}");
    }

    #[test]
    fn of_two_things_that_race_the_first_one_decides_what_comes_next() {
        let differs = |number: &u64| {
            let id = format!("0r{number}");
            run(&id, false, false).1 != run(&id, false, true).1
        };
        assert!((0..200).filter(differs).count() > 20);
    }
}
