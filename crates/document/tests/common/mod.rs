//! An authority and its replicas without stores: what would lie on a disk lies in a map.

#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeMap;

use tidelog_document::{
    Advance, Applied, Authority, Committed, Decided, Doctype, DoctypeHash, Issued, Mutation,
    MutationDefinition, OwnTimeline, Param, ParamKind, Replica, ServerEntry, Verdict, chain_of,
    hash_of, public_entry,
};
use tidelog_pages::{StorageEntry, TimelineFrame};
use tidelog_sqlite::{Failure, Params, Run, SystemQueries as _, View};
use tidelog_sync::CodedPage;
use tidelog_types::limits::{Limits, PAGE_SIZE};
use tidelog_types::{
    Budget, BudgetLimits, CallId, Chain, ClientId, EntryId, JournalId, Life, Lineage, Lsn,
    LsnRange, Page, PageSet, Pgid, Position, Value,
};

/// Sizes of the buffer pool under which every scenario has to give the same: all in memory, a few
/// pages, and none, so that every transaction faults for everything that it reads.
pub const POOLS: [usize; 3] = [usize::MAX, 16, 0];

/// Who writes the storage journal.
pub const SERVER: Life = Life([1; 16]);

/// The pages of a storage journal at rest.
#[derive(Clone, Debug, Default)]
pub struct Rest(pub PageSet);

impl Rest {
    pub fn image(&self) -> Vec<u8> {
        let pages = self.0.pages.values().flat_map(|page| page.bytes().iter().copied());
        let image: Vec<u8> = pages.collect();
        assert_eq!(image.len(), self.0.db_pages as usize * PAGE_SIZE, "a page is missing");
        image
    }

    fn fetch(&self, pgids: Vec<Pgid>) -> Vec<(Pgid, Page)> {
        pgids.into_iter().map(|pgid| (pgid, self.0.pages[&pgid].clone())).collect()
    }

    /// Runs until it is no fault, fetching as told, and evicts what the pool cannot keep.
    pub fn serve<T>(&self, view: &View, mut run: impl FnMut() -> Run<T>) -> Result<T, Failure> {
        for kth in 0.. {
            let result = match run() {
                Run::Done(result) => Ok(result),
                Run::Failed(failure) => Err(failure),
                Run::Fault(pgid) => {
                    let wanted = view.to_fetch(pgid, kth);
                    assert!(wanted.contains(&pgid), "a fault on a page that is here");
                    view.fill(self.fetch(wanted));
                    continue;
                }
            };
            view.evict();
            return result;
        }
        unreachable!("some run ends")
    }
}

pub fn lsn(number: u64) -> Lsn {
    Lsn::new(number).expect("not 0")
}

/// The side that decides, with its journal kept for those who come late.
pub struct Server {
    pub authority: Authority,
    pub rest: Rest,
    pub doctypes: BTreeMap<DoctypeHash, Doctype>,
    pub entries: Vec<ServerEntry>,
}

impl Server {
    pub fn new(journal: u8, pool: usize, doctype: &Doctype) -> Self {
        Self::with_limits(journal, pool, doctype, Limits::DEFAULT)
    }

    pub fn with_limits(journal: u8, pool: usize, doctype: &Doctype, limits: Limits) -> Self {
        let position = Position::start_of(JournalId([journal; 16]));
        let view = View::new(pool, 0).with_limits(limits);
        let mut server = Self {
            authority: Authority::new(view, position, Lineage::default(), SERVER),
            rest: Rest::default(),
            doctypes: BTreeMap::new(),
            entries: Vec::new(),
        };
        server.learn(doctype);
        server
    }

    /// Learns a doctype, and migrates if it is ahead.
    pub fn learn(&mut self, doctype: &Doctype) {
        self.doctypes.insert(doctype.hash(), doctype.clone());
        let view = self.authority.view().clone();
        let committed =
            self.rest.serve(&view, || self.authority.migrate(doctype)).expect("it migrates");
        if let Some(committed) = committed {
            self.keep(committed, None);
        }
    }

    /// Decides a frame in its place, and gives the entry that says so.
    pub fn take(&mut self, origin: EntryId, frame: &TimelineFrame) -> (Verdict, ServerEntry) {
        let view = self.authority.view().clone();
        let applied = self.rest.serve(&view, || self.authority.applied(origin.journal));
        assert_eq!(applied.expect("it reads").wanted, frame.lsn, "a frame out of place");
        let applied = match Mutation::decode(&frame.body) {
            Ok(mutation) => {
                let doctype = &self.doctypes[&mutation.doctype];
                self.rest.serve(&view, || self.authority.apply(origin, &mutation, doctype))
            }
            Err(_) => self.rest.serve(&view, || self.authority.reject(origin, None, "unreadable")),
        };
        let Applied { committed, verdict } = applied.expect("every frame has a verdict");
        (verdict, self.keep(committed, Some(public_entry(origin))))
    }

    /// Keeps what was decided, if it travels to those who have all before it as what it is.
    pub fn keep(&mut self, committed: Committed, origin: Option<EntryId>) -> ServerEntry {
        let Committed { entry, hash, coded } = committed;
        let StorageEntry { range, position, set, .. } = entry;
        let previous = |pgid: Pgid| self.rest.0.pages.get(&pgid).cloned();
        let decoded = |page: &CodedPage| Some((page.pgid, page.decoded(previous)?));
        let decoded =
            |coded: &[CodedPage]| coded.iter().map(decoded).collect::<Option<BTreeMap<_, _>>>();
        let is_one_message = set.pages.len() <= Limits::DEFAULT.message_pages_max;
        assert!(coded.is_some() == is_one_message && hash == hash_of(&set));
        assert!(coded.is_none_or(|coded| decoded(&coded).as_ref() == Some(&set.pages)));
        self.rest.0.absorb(&set);
        self.entries.push(ServerEntry { range, position, origin, set, hash });
        self.entries.last().expect("just pushed").clone()
    }

    /// One entry for all pages that changed from `since` on.
    pub fn coalesced(&self, since: Lsn) -> ServerEntry {
        let mut set = PageSet::default();
        for entry in self.entries.iter().filter(|entry| entry.range.start() >= since) {
            set.absorb(&entry.set);
        }
        let position = self.authority.position();
        let range = LsnRange::new(since, position.next);
        if range.count() > 1 {
            let hash = hash_of(&set);
            return ServerEntry { range, position, origin: None, set, hash };
        }
        self.entries.last().expect("it has entries").clone()
    }

    pub fn query(&mut self, sql: &str) -> Vec<Vec<Value>> {
        let view = self.authority.view().clone();
        let run = || self.authority.reader().query(sql, &Params::NONE);
        self.rest.serve(&view, run).expect("the query is right").decode()
    }

    /// A query of ours, on any table.
    pub fn query_system(&mut self, sql: &str) -> Vec<Vec<Value>> {
        let view = self.authority.view().clone();
        let run = || self.authority.reader().query_system(sql, &[]);
        self.rest.serve(&view, run).expect("the query is right")
    }
}

/// A side that follows, with what it would have on its disk.
pub struct Device {
    pub replica: Replica,
    pub rest: Rest,
    pub pool: usize,
    pub limits: Limits,
    /// Frames without a verdict, as they lie in the timeline.
    pub frames: Vec<TimelineFrame>,
    pub decided: Vec<Decided>,
    /// Pages that were told to look different, since somebody last asked.
    pub changed: Vec<Pgid>,
    pub number: u8,
    /// Whether it puts rebases off.
    pub is_patient: bool,
    /// Who writes its timeline; another one each time that it is opened.
    pub life: Life,
    calls: u32,
    /// Its clock, before its first call.
    pub clock_ms: u64,
    /// Timelines that it has begun; two copies of a profile never draw the same id.
    pub timelines: u8,
}

impl Device {
    pub fn new(number: u8, pool: usize, doctype: &Doctype) -> Self {
        // Some dozens of mutations are more than one slice of a rebase.
        let slice = BudgetLimits { pages: 64, ..BudgetLimits::default() };
        let limits = Limits { slice, ..Limits::DEFAULT };
        Self::with_limits(number, pool, doctype, limits)
    }

    pub fn with_limits(number: u8, pool: usize, doctype: &Doctype, limits: Limits) -> Self {
        let timeline = JournalId([100 + number; 16]);
        let replica = Replica::open(
            View::new(pool, 0).with_limits(limits),
            None,
            OwnTimeline {
                journal: timeline,
                head: Lsn::FIRST,
                lives: Lineage::default(),
                life: Life([number; 16]),
            },
            Vec::new(),
            [(doctype.hash(), doctype.clone())].into(),
            doctype.hash(),
        );
        let mut device = Self {
            replica,
            rest: Rest::default(),
            pool,
            limits,
            frames: Vec::new(),
            decided: Vec::new(),
            changed: Vec::new(),
            number,
            is_patient: false,
            life: Life([number; 16]),
            calls: 0,
            clock_ms: 1_000,
            timelines: 0,
        };
        device.settle();
        device
    }

    /// One that holds everything that the server has.
    pub fn following(number: u8, pool: usize, doctype: &Doctype, server: &Server) -> Self {
        let mut device = Self::new(number, pool, doctype);
        device.hear(server.coalesced(Lsn::FIRST));
        device.settle();
        device
    }

    /// Opens anew from what would be on the disk, with these doctypes; the last is the newest.
    pub fn reopen(&mut self, doctypes: &[&Doctype]) {
        self.begin_to_reopen(doctypes);
        self.settle();
    }

    /// The same, with the layers still to be built.
    pub fn begin_to_reopen(&mut self, doctypes: &[&Doctype]) {
        let newest = doctypes.last().expect("at least one").hash();
        self.life.0[15] += 1;
        self.replica = Replica::open(
            View::new(self.pool, self.rest.0.db_pages).with_limits(self.limits),
            self.replica.base(),
            OwnTimeline {
                journal: self.replica.timeline(),
                head: self.replica.head(),
                lives: self.replica.lives().clone(),
                life: self.life,
            },
            self.frames.clone(),
            doctypes.iter().map(|doctype| (doctype.hash(), (*doctype).clone())).collect(),
            newest,
        );
    }

    pub fn mutation(&self, doctype: &Doctype, name: &str, args: &[(&str, Value)]) -> Mutation {
        Mutation {
            doctype: doctype.hash(),
            name: name.to_owned(),
            args: args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            now_ms: self.clock_ms + u64::from(self.calls),
            client: ClientId([self.number; 16]),
            user: String::new(),
            kept_rejections: Lsn::FIRST,
            moved_from: None,
        }
    }

    pub fn try_issue(
        &mut self,
        doctype: &Doctype,
        name: &str,
        args: &[(&str, Value)],
    ) -> Result<TimelineFrame, Failure> {
        let mutation = self.mutation(doctype, name, args);
        self.calls += 1;
        let mut call = CallId([self.number; 16]);
        call.0[..4].copy_from_slice(&self.calls.to_le_bytes());
        let view = self.replica.view().clone();
        let issued = self.rest.serve(&view, || self.replica.issue(call, mutation.clone()))?;
        let Issued { frame, changed } = issued;
        self.changed.extend(changed);
        self.frames.push(frame.clone());
        Ok(frame)
    }

    pub fn issue(
        &mut self,
        doctype: &Doctype,
        name: &str,
        args: &[(&str, Value)],
    ) -> TimelineFrame {
        self.try_issue(doctype, name, args).expect("it runs")
    }

    /// Takes an entry; gives what became visible at once.
    pub fn hear(&mut self, entry: ServerEntry) -> bool {
        let advance = self.replica.sync_receive(entry).expect("in order");
        let at_once = advance.is_some();
        if let Some(advance) = advance {
            self.take(advance);
        }
        self.replica.view().evict();
        at_once
    }

    /// One slice of a rebase. Says whether something became visible.
    pub fn step(&mut self) -> bool {
        self.step_after(0)
    }

    /// The same where other work has taken so many steps of the slice.
    pub fn step_after(&mut self, steps: u64) -> bool {
        let view = self.replica.view().clone();
        let next = JournalId([200 + self.timelines; 16]);
        let mut kth = 0;
        let advance = loop {
            let mut budget = Budget::new(self.replica.view().limits().slice);
            budget.spend_steps(steps);
            match self.replica.step(next, self.is_patient, &mut budget) {
                Run::Done(advance) => break advance,
                Run::Failed(failure) => panic!("the rebase failed: {failure}"),
                Run::Fault(pgid) => {
                    let wanted = self.replica.to_fetch(pgid, kth);
                    assert!(wanted.contains(&pgid), "a fault on a page that is here");
                    view.fill(self.rest.fetch(wanted));
                    kth += 1;
                }
            }
        };
        view.evict();
        let some = advance.is_some();
        if let Some(advance) = advance {
            self.take(advance);
        }
        some
    }

    pub fn settle(&mut self) {
        while !self.replica.is_rebased() {
            self.step();
        }
    }

    fn take(&mut self, advance: Advance) {
        if advance.begin_storage.is_some() {
            self.rest = Rest::default();
        }
        for entry in &advance.entries {
            self.rest.0.absorb(&entry.set);
        }
        if let Some(trim) = advance.trim {
            self.frames.retain(|frame| frame.lsn >= trim);
        }
        if let Some((timeline, frames)) = advance.begin_timeline {
            assert_eq!(timeline, self.replica.timeline());
            self.timelines += 1;
            self.frames = frames;
        }
        self.decided.extend(advance.decided);
        self.changed.extend(advance.changed);
    }

    pub fn query(&mut self, sql: &str) -> Vec<Vec<Value>> {
        let view = self.replica.view().clone();
        let run = || self.replica.reader().query(sql, &Params::NONE);
        self.rest.serve(&view, run).expect("the query is right").decode()
    }

    /// Whether a migration to this doctype was tried and failed.
    pub fn fails_to_migrate_to(&mut self, doctype: &Doctype) -> bool {
        let view = self.replica.view().clone();
        let failure = self.rest.serve(&view, || self.replica.migration_failure(doctype));
        failure.expect("the version is read").is_some()
    }

    /// What readers see, as a file.
    pub fn image(&self) -> Vec<u8> {
        let view = self.replica.view();
        loop {
            if let Some(image) = view.image() {
                view.evict();
                return image;
            }
            view.fill(self.rest.fetch(view.missing()));
        }
    }

    pub fn verdicts(&self) -> Vec<(u64, Verdict)> {
        let verdict = |decided: &Decided| (decided.entry.lsn.get(), decided.verdict.clone());
        self.decided.iter().map(verdict).collect()
    }
}

/// Whether the device holds the server's pages byte for byte, and its readers see just these.
#[track_caller]
pub fn assert_same(server: &Server, device: &Device) {
    assert_eq!(device.replica.base(), Some(server.authority.position()));
    assert!(device.rest.image() == server.rest.image(), "other pages at rest");
    assert_eq!(device.replica.undecided().count(), 0);
    assert!(device.image() == server.rest.image(), "readers see other pages");
}

/// Decides all that is undecided on the device and lets it follow to the end.
pub fn converge(server: &mut Server, device: &mut Device) {
    for frame in device.frames.clone() {
        server.take(device.replica.origin(frame.lsn), &frame);
    }
    follow(server, device);
    assert_same(server, device);
}

/// Brings the device what it lacks, entry by entry.
pub fn follow(server: &Server, device: &mut Device) {
    let journal = server.authority.position().journal;
    let held = device.replica.sync_request().filter(|held| held.journal == journal);
    let next = held.map_or(Lsn::FIRST, |held| held.next);
    for entry in server.entries.iter().filter(|entry| entry.range.start() >= next) {
        device.hear(entry.clone());
    }
    device.settle();
}

/// A chain that no journal has.
pub fn wrong_chain(entry: &ServerEntry) -> Chain {
    chain_of(Chain([9; 32]), entry.range, &entry.set)
}

pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub fn integer(number: i64) -> Value {
    Value::Integer(number)
}

pub fn applied(lsn: u64) -> (u64, Verdict) {
    (lsn, Verdict::Applied)
}

pub fn rejected(lsn: u64, reason: &str) -> (u64, Verdict) {
    (lsn, Verdict::Rejected { reason: reason.to_owned() })
}

/// A doctype of padded items, large enough for several pages with few rows.
pub fn items() -> Doctype {
    let define = |name: &str, params: &[(&str, ParamKind)], sql: &[&str]| MutationDefinition {
        name: name.to_owned(),
        params: params
            .iter()
            .map(|(name, kind)| Param { name: (*name).to_owned(), kind: *kind, optional: false })
            .collect(),
        sql: sql.iter().map(ToString::to_string).collect(),
    };
    let (text, integer) = (ParamKind::Text, ParamKind::Integer);
    Doctype {
        name: "items".to_owned(),
        migrations: vec![
            "create table item (
                id text primary key, n integer not null, pad blob, at integer, by text
             ) strict;
             create index item_n on item (n);
             create table total (one integer primary key, count integer not null check (count < 99))
             strict;
             insert into total values (1, 0)"
                .to_owned(),
        ],
        mutations: vec![
            define(
                "add",
                &[("id", text), ("n", integer)],
                &["insert into item (id, n, pad, at, by)
                   values (:id, :n, zeroblob(1500), :now, :client)"],
            ),
            define(
                "add_in_order",
                &[("id", text), ("n", integer)],
                &["insert into item values (:id, :n, zeroblob(1500), :now, :client)"],
            ),
            define("bump", &[("by", integer)], &["update total set count = count + :by"]),
            define(
                "move",
                &[("id", text), ("n", integer)],
                &[
                    "select reject('no such item') where not exists
                     (select 1 from item where id = :id)",
                    "update item set n = :n where id = :id",
                ],
            ),
            define("remove", &[("id", text)], &["delete from item where id = :id"]),
            define("shift", &[("by", integer)], &["update item set n = n + :by where n > 3"]),
        ],
        streams: Vec::new(),
        workflows: Vec::new(),
    }
}

/// A mutation that takes long and changes nothing.
pub fn spin() -> MutationDefinition {
    let kind = ParamKind::Integer;
    MutationDefinition {
        name: "spin".to_owned(),
        params: vec![Param { name: "times".to_owned(), kind, optional: false }],
        sql: vec![
            "with recursive c (n) as (select 1 union all select n + 1 from c where n < :times)
             select max(n) from c"
                .to_owned(),
        ],
    }
}

/// A successor of [`items`] with one more migration and one more mutation.
pub fn items_with_tags() -> Doctype {
    let mut doctype = items();
    doctype.migrations.push(
        "create table tag (item text not null references item, tag text not null) strict;
         alter table item add column tags integer not null default 0;
         insert into tag select id, 'old' from item"
            .to_owned(),
    );
    let in_order = doctype.mutations.iter_mut().find(|it| it.name == "add_in_order");
    in_order.expect("it has it").sql =
        vec!["insert into item values (:id, :n, null, :now, :client, 0)".to_owned()];
    doctype.mutations.push(MutationDefinition {
        name: "tag".to_owned(),
        params: ["id", "tag"]
            .map(|name| Param { name: name.to_owned(), kind: ParamKind::Text, optional: false })
            .to_vec(),
        sql: vec![
            "insert into tag values (:id, :tag)".to_owned(),
            "update item set tags = tags + 1 where id = :id".to_owned(),
        ],
    });
    doctype
}

/// Numbers from a seed, the same everywhere.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

pub fn add(device: &mut Device, doctype: &Doctype, id: &str, n: i64) -> TimelineFrame {
    device.issue(doctype, "add", &[("id", text(id)), ("n", integer(n))])
}

pub fn bump(device: &mut Device, doctype: &Doctype, by: i64) -> TimelineFrame {
    device.issue(doctype, "bump", &[("by", integer(by))])
}

/// A server with some items, and devices that hold them, for each size of the pool.
pub fn with_items(scenario: impl Fn(Doctype, Server, Device, Device)) {
    for pool in POOLS {
        let doctype = items();
        let mut server = Server::new(1, pool, &doctype);
        let mut first = Device::following(1, pool, &doctype, &server);
        for n in 0..40 {
            add(&mut first, &doctype, &format!("item-{n}"), n % 7);
        }
        converge(&mut server, &mut first);
        first.decided.clear();
        let second = Device::following(2, pool, &doctype, &server);
        assert_same(&server, &second);
        scenario(doctype, server, first, second);
    }
}
