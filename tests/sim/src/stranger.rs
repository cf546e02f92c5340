//! A client that knows the protocol and nothing else, on a server of its own: it says what no core
//! of Tidelog would, at every bound, and hears exactly what `PROTOCOL.md` has a room answer.
//!
//! Some worlds end with one of its stories.

mod doctypes;
mod frames;
mod seeds;
mod users;

use std::collections::{BTreeMap, VecDeque};

use tidelog_document::{Doctype, Mutation, MutationDefinition, Param, ParamKind, client_of};
use tidelog_room::ConnId;
use tidelog_sync::{
    Channel, FromRoom, FromServer, Intent, Refusal, ToRoom, ToServer, WireFrame, codec,
};
use tidelog_types::limits::Limits;
use tidelog_types::{
    CallId, ClientId, DocumentKey, EntryId, JournalId, Life, Lineage, Lsn, Page, Pgid, Position,
    Value,
};

use crate::host::{Done, Host};
use crate::rng::Rng;
use crate::swarm::Swarm;
use crate::world::short;

type Story = fn(&mut Stranger) -> Result<(), String>;

/// What is told, in turn.
const STORIES: [Story; 9] = [
    frames::tell,
    frames::tell_of_lives,
    frames::tell_of_deletion,
    doctypes::tell_of_flaws,
    doctypes::tell_of_versions,
    seeds::tell,
    seeds::tell_of_flaws,
    seeds::tell_of_rivals,
    seeds::tell_of_no_room,
];

/// The document of a story, and its timeline.
const DOCUMENT: &str = "notes";
const TIMELINE: JournalId = JournalId([7; 16]);
/// Worlds of which one ends with a story: their documents take longer to make than to ask about.
const WORLDS: u64 = 4;
/// Rounds of the store in which everything is said.
const ROUNDS_MAX: u32 = 10_000;

/// One who talks to a server on several channels.
pub(crate) struct Stranger {
    host: Host,
    rng: Rng,
    now_ms: u64,
    heard: BTreeMap<Channel, VecDeque<FromRoom>>,
    /// Where the storage journal stood that it heard of last, and the pages that came.
    position: Option<Position>,
    pages: BTreeMap<Pgid, Page>,
}

/// Tells the story of the world of this seed, if it has one.
///
/// # Errors
///
/// The server answers otherwise.
pub(crate) fn tell(seed: u64, swarm: &Swarm) -> Result<(), String> {
    // Where servers ask for tokens, this one does as well.
    let is_guarded = swarm.guarded && !seed.is_multiple_of(WORLDS);
    if !is_guarded && !seed.is_multiple_of(WORLDS) {
        return Ok(());
    }
    let mut rng = Rng::new(seed);
    let mut swarm = swarm.clone();
    let slice = if rng.once_in(2) { swarm.limits.slice } else { Limits::DEFAULT.slice };
    swarm.limits = Limits { slice, lives_kept_max: 3, message_pages_max: 8, ..Limits::DEFAULT };
    (swarm.flushes_at_once, swarm.way_size_max, swarm.guarded) = (true, usize::MAX, is_guarded);
    let mut host = Host::new(&swarm);
    host.serves_strangers = true;
    host.start(&mut rng)?;
    let mut stranger = Stranger {
        host,
        rng,
        now_ms: 0,
        heard: BTreeMap::new(),
        position: None,
        pages: BTreeMap::new(),
    };
    if is_guarded {
        return users::tell(&mut stranger).map_err(|what| format!("a stranger's users: {what}"));
    }
    stranger.say_hello();
    let nth = usize::try_from(seed / WORLDS).expect("BUG: so many worlds") % STORIES.len();
    STORIES[nth](&mut stranger).map_err(|what| format!("a stranger's story {nth}: {what}"))
}

impl Stranger {
    fn conn(&self) -> ConnId {
        ConnId(self.host.life)
    }

    fn say_hello(&mut self) {
        let hello = ToServer::Hello { client: ClientId([1; 16]), token: None };
        let done = self.host.hear(self.conn(), hello);
        drop(done);
        self.heard.clear();
    }

    /// The server ends and begins again.
    fn restart(&mut self) -> Result<(), String> {
        self.host.stop();
        self.host.start(&mut self.rng)?;
        self.say_hello();
        Ok(())
    }

    /// Says something, and hears this, in this order, and nothing else.
    fn says(&mut self, channel: u32, body: ToRoom, answer: &[&str]) -> Result<(), String> {
        let said = short(&body);
        let channel = Channel(channel);
        let done = self.host.hear(self.conn(), ToServer::About { channel, body });
        self.settle(done)?;
        let heard = self.hears(channel.0, answer);
        heard.map_err(|what| format!("{what}, when it says {said}"))
    }

    /// Hears this: entries that follow on each other as well as one for them, since how many are
    /// decided at once is for the host.
    fn hears(&mut self, channel: u32, answer: &[&str]) -> Result<(), String> {
        let heard = self.heard.remove(&Channel(channel)).unwrap_or_default();
        let heard: Vec<String> = heard.iter().filter_map(name).collect();
        if heard == answer || as_one(&heard) == as_one(answer) {
            return Ok(());
        }
        Err(format!("it hears {heard:?} instead of {answer:?}"))
    }

    /// Lets the server do what it has to do.
    fn settle(&mut self, done: Done) -> Result<(), String> {
        let mut waiting = VecDeque::from([done]);
        for _ in 0..ROUNDS_MAX {
            while let Some(done) = waiting.pop_front() {
                done.wrong.map_or(Ok(()), Err)?;
                done.sent.into_iter().for_each(|(_, message)| self.hear(message));
                let answers = done.replies.into_iter();
                let answered = answers.map(|(owner, reply)| self.host.answered(owner, reply));
                waiting.extend(answered.collect::<Vec<_>>());
            }
            if !self.host.wants_round() {
                return Ok(());
            }
            waiting.push_back(self.host.round(self.now_ms));
        }
        Err("the server goes on and on".to_owned())
    }

    fn hear(&mut self, message: FromServer) {
        let FromServer::About { channel, body } = message else { return };
        if let FromRoom::Entry(part) = &body {
            self.position = Some(part.position);
            for page in part.pages.iter() {
                let previous = |pgid| self.pages.get(&pgid).cloned();
                let decoded = page.decoded(previous).expect("a page");
                self.pages.insert(page.pgid, decoded);
            }
            self.pages.retain(|pgid, _| pgid.0 <= part.db_pages);
        }
        self.heard.entry(channel).or_default().push_back(body);
    }

    /// Time passes.
    fn pass(&mut self, ms: u64) -> Result<(), String> {
        self.now_ms += ms;
        let done = self.host.round(self.now_ms);
        self.settle(done)
    }

    fn destroy(&mut self) -> Result<(), String> {
        let key = DocumentKey::new(DOCUMENT, "").map_err(|error| error.to_string())?;
        let done = self.host.destroy(&key);
        self.settle(done)
    }

    /// Frames of the mutation of that name.
    fn frames(&self, life: u8, first: u64, names: &[&str]) -> ToRoom {
        self.frames_of(&notes(1), life, first, names)
    }

    fn frames_of(&self, doctype: &Doctype, life: u8, first: u64, names: &[&str]) -> ToRoom {
        let frames = (first..).zip(names).map(|(lsn, name)| {
            let mut call = [life; 16];
            call[..8].copy_from_slice(&lsn.to_le_bytes());
            let id = Value::Text(format!("note {lsn}"));
            let mutation = Mutation {
                doctype: doctype.hash(),
                name: (*name).to_owned(),
                args: vec![("id".to_owned(), id)],
                now_ms: 1,
                client: client_of(tidelog_types::CopySecret::NONE),
                user: String::new(),
                kept_rejections: Lsn::FIRST,
                moved_from: None::<EntryId>,
            };
            let body = if name.is_empty() { vec![255; 3] } else { mutation.encode() };
            WireFrame { call: CallId(call), body, predicted: None }
        });
        let frames = frames.collect();
        ToRoom::Frames { life: Life([life; 16]), first: lsn(first), frames }
    }
}

/// What is heard, with one entry in the place of those that follow on each other.
fn as_one<T: AsRef<str>>(heard: &[T]) -> Vec<String> {
    let range = |said: &str| {
        let (start, end) = said.strip_prefix("entry ")?.split_once("..")?;
        Some((start.to_owned(), end.to_owned()))
    };
    let mut all: Vec<String> = Vec::new();
    for said in heard.iter().map(AsRef::as_ref) {
        match (all.last().and_then(|it| range(it)), range(said)) {
            (Some((start, between)), Some((next, end))) if between == next => {
                all.pop();
                all.push(format!("entry {start}..{end}"));
            }
            _ => all.push(said.to_owned()),
        }
    }
    all
}

/// What a message says, as far as a story tells it; nothing of a part that is not the last one.
fn name(message: &FromRoom) -> Option<String> {
    Some(match message {
        FromRoom::Opened { from, wanted, lives, .. } => {
            format!("opened from {from} wanted {wanted} lives {}", lives.lives().count())
        }
        FromRoom::SeedWanted => "seed wanted".to_owned(),
        FromRoom::SeedTaken { pages_count } => format!("{pages_count} pages taken"),
        FromRoom::Seeded { position } => format!("seeded {}", position.next),
        FromRoom::Entry(part) if part.is_last => format!("entry {}", part.range),
        FromRoom::Entry(_) => return None,
        FromRoom::Acked { next } => format!("acked {next}"),
        FromRoom::Undecided { lsn, .. } => format!("undecided {lsn}"),
        FromRoom::Allowed { role } => format!("may {role}"),
        FromRoom::Presence(_)
        | FromRoom::Archived { .. }
        | FromRoom::Registered { .. }
        | FromRoom::NotRegistered { .. }
        | FromRoom::Completed { .. } => return None,
        FromRoom::Forbidden { lsn } => format!("forbidden {lsn}"),
        FromRoom::Probed { next, .. } => format!("probed {next}"),
        FromRoom::Refused(refusal) => match refusal {
            Refusal::Missing => "missing",
            Refusal::Exists => "exists",
            Refusal::DoctypeMismatch { .. } => "doctype mismatch",
            Refusal::DoctypeInvalid { .. } => "doctype invalid",
            Refusal::Access { .. } => "no access",
            Refusal::Protocol { .. } => "protocol",
            Refusal::Storage { .. } => "storage",
            Refusal::Parted => "parted",
            Refusal::Damaged => "damaged",
            Refusal::DoctypeWanted => "doctype wanted",
        }
        .to_owned(),
    })
}

/// Opens the document, or another one.
fn open(doctype: &Doctype, have: Option<Position>, intent: Intent) -> ToRoom {
    open_named(DOCUMENT, codec::encode(doctype), have, intent)
}

fn open_named(name: &str, doctype: Vec<u8>, have: Option<Position>, intent: Intent) -> ToRoom {
    ToRoom::Open {
        document: name.to_owned(),
        doctype: doctype.into(),
        timeline: TIMELINE,
        secret: tidelog_types::CopySecret::NONE,
        have,
        intent,
    }
}

/// Pages are free once this has run.
const NOTES: &str = "create table note (id text primary key, n integer);
     create table draft (id text primary key); drop table draft";

/// A doctype with so many migrations.
fn notes(version: usize) -> Doctype {
    let mut migrations = vec![NOTES.to_owned()];
    migrations.extend((1..version).map(|n| format!("alter table note add more_{n} integer")));
    let id = || Param { name: "id".to_owned(), kind: ParamKind::Text, optional: false };
    let define = |name: &str, sql: &str| MutationDefinition {
        name: name.to_owned(),
        params: vec![id()],
        sql: vec![sql.to_owned()],
    };
    let mutations = vec![
        define("add", "insert into note values (:id, 1)"),
        define("no", "select reject('no ' || :id)"),
    ];
    let mutations = if version == 1 { mutations } else { mutations[1..].to_vec() };
    Doctype {
        name: "notes".to_owned(),
        migrations,
        mutations,
        streams: Vec::new(),
        workflows: Vec::new(),
    }
}

fn lsn(number: u64) -> Lsn {
    Lsn::new(number).expect("BUG: an LSN")
}

/// Who wrote a document: these, each one entry.
fn lives(count: u8) -> Lineage {
    let lives = (0..count).map(|nth| (Life([100 + nth; 16]), lsn(1 + u64::from(nth))));
    Lineage::try_from(lives.collect::<Vec<_>>()).expect("BUG: in order")
}
