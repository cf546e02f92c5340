//! The side that decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidelog_pages::StorageEntry;
use tidelog_sqlite::{Reader, Run, SystemQueries as _, View, Writer};
use tidelog_sync::CodedPage;
use tidelog_types::{
    CallId, EntryHash, EntryId, JournalId, Life, Lineage, Lsn, LsnRange, Page, PageSet, Pgid,
    Position, Value,
};

use crate::program::{self, AppliedTimeline, done};
use crate::{Change, Changed, Doctype, Mutation, Verdict, Work, chain_after, hash_of};

/// What does not begin where it can: the schema itself begins on page 1.
const FIND_OTHER_ROOT: &str = "
    select 1 from sqlite_schema
    where iif(type in ('table', 'index'), typeof(rootpage) <> 'integer' or rootpage < 2,
              rootpage is not 0)
    union all
    select 1 from sqlite_schema where rootpage <> 0 group by rootpage having count(*) > 1
    limit 1";

/// One document on the side that decides: the server's, or a device's own of a local document.
///
/// Every method either ends with `Run::Done`, and then view and position have moved on and the
/// caller appends the entry to its store, or it has changed nothing. Entries that are lost before
/// they are durable are lost together with this value: the caller opens the document anew.
///
/// ```
/// use tidelog_document::{Authority, Doctype, Mutation, MutationDefinition};
/// use tidelog_sqlite::{Params, View};
/// use tidelog_types::{CallId, ClientId, JournalId, Life, Lineage, Lsn, Position, Value};
///
/// let add = MutationDefinition {
///     name: "add".to_owned(),
///     params: Vec::new(),
///     sql: vec!["insert into item values (:now)".to_owned()],
/// };
/// let migrations = vec!["create table item (at integer)".to_owned()];
/// let name = "list".to_owned();
/// let doctype = Doctype { name, migrations, mutations: vec![add], ..Doctype::default() };
///
/// let start = Position::start_of(JournalId([1; 16]));
/// let lives = Lineage::default();
/// let mut document = Authority::new(View::new(100, 0), start, lives, Life([2; 16]));
/// let migrated = document.migrate(&doctype).unwrap().expect("it was empty");
/// assert_eq!(migrated.entry.range.to_string(), "1..2");
///
/// let mutation = Mutation {
///     doctype: doctype.hash(),
///     name: "add".to_owned(),
///     args: Vec::new(),
///     now_ms: 5,
///     client: ClientId([3; 16]),
///     user: String::new(),
///     kept_rejections: Lsn::FIRST,
///     moved_from: None,
/// };
/// document.apply_local(CallId([4; 16]), &mutation, &doctype).unwrap();
/// let entry = document.seal().expect("a mutation was applied");
/// assert_eq!(entry.range.to_string(), "2..3");
///
/// let rows = document.reader().query("select at from item", &Params::NONE).unwrap();
/// assert_eq!(rows.decode(), [[Value::Integer(5)]]);
/// ```
pub struct Authority {
    view: View,
    writer: Writer,
    reader: Reader,
    /// Where the storage journal stands after the last entry.
    position: Position,
    /// Who wrote the storage journal.
    lives: Lineage,
    /// Who writes it now.
    life: Life,
    unsealed: Unsealed,
}

/// Local mutations that are applied and not in an entry yet.
#[derive(Default)]
struct Unsealed {
    set: PageSet,
    calls: Vec<(CallId, Lsn)>,
}

/// A mutation of a local document that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedLocally {
    /// Its LSN in the storage journal.
    pub lsn: Lsn,
    /// The pages that look different now.
    pub changed: BTreeSet<Pgid>,
}

/// An entry of the storage journal, for the store and for those who follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// The entry.
    pub entry: StorageEntry,
    /// The hash of what it says.
    pub hash: EntryHash,
    /// Its pages as they travel to whoever has all before it; `None` if they are more than a
    /// message has.
    pub coded: Option<Arc<[CodedPage]>>,
}

/// What became of one mutation.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The entry that says so.
    pub committed: Committed,
    /// The verdict that it carries.
    pub verdict: Verdict,
}

impl Authority {
    /// The document whose pages `view` shows and whose storage journal stands at `position` and
    /// was written by `lives`. What it writes itself, it writes as `life`.
    #[must_use]
    pub fn new(view: View, position: Position, lives: Lineage, life: Life) -> Self {
        let (writer, reader) = (Writer::new(&view), Reader::new(&view));
        Self { view, writer, reader, position, lives, life, unsealed: Unsealed::default() }
    }

    /// Where the storage journal stands, with the entries that are not durable yet.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Who wrote the storage journal, as far as is known. It goes to the disk with the entries.
    #[must_use]
    pub fn lives(&self) -> &Lineage {
        &self.lives
    }

    /// What its connections read.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The connection for queries of apps.
    pub fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }

    /// All tables, indexes, triggers and views, system tables among them, as they were made.
    pub fn schema(&mut self) -> Run<Vec<Vec<Value>>> {
        program::schema(&mut self.reader)
    }

    /// Whether each table and index begins on a page of its own, and nothing else on any. Two on
    /// one page would be two names for the same rows.
    pub fn has_own_roots(&mut self) -> Run<bool> {
        let others = done!(self.reader.query_system(FIND_OTHER_ROOT, &[]));
        Run::Done(others.is_empty())
    }

    /// Where all of them begin.
    pub fn roots(&mut self) -> Run<Vec<Pgid>> {
        let sql = "select rootpage from sqlite_schema where rootpage <> 0";
        let rows = done!(self.reader.query_system(sql, &[]));
        let root = |row: &Vec<Value>| match row.as_slice() {
            [Value::Integer(root)] => u32::try_from(*root).ok(),
            _ => None,
        };
        Run::Done(rows.iter().map(|row| Pgid(root(row).unwrap_or(u32::MAX))).collect())
    }

    /// Steps of SQLite's virtual machine that mutations and queries took since this was last
    /// called, and what their allocations count for. Those that failed, and runs that faulted,
    /// count too.
    pub fn take_steps(&mut self) -> u64 {
        self.writer.take_steps() + self.reader.take_steps()
    }

    /// How much of that timeline is applied.
    pub fn applied(&mut self, timeline: JournalId) -> Run<AppliedTimeline> {
        if done!(program::version(&mut self.reader)).is_none() {
            return Run::Done(AppliedTimeline::default());
        }
        program::applied(&mut self.reader, timeline)
    }

    /// Brings the document to the doctype's version. `None` if it is there already, or beyond.
    pub fn migrate(&mut self, doctype: &Doctype) -> Run<Option<Committed>> {
        let version = done!(program::version(&mut self.reader));
        if !program::is_behind(version, doctype) {
            return Run::Done(None);
        }
        let set = done!(program::migrate(&mut self.writer, doctype, version));
        Run::Done(Some(self.commit(set)))
    }

    /// Runs what [`migrate`](Self::migrate) would, and leaves nothing of it behind. Says whether
    /// there is anything to run.
    pub fn try_migration(&mut self, doctype: &Doctype) -> Run<bool> {
        let version = done!(program::version(&mut self.reader));
        if !program::is_behind(version, doctype) {
            return Run::Done(false);
        }
        // Its connection knows pages that never come to be.
        let mut scratch = Writer::new(&self.view);
        done!(program::migrate(&mut scratch, doctype, version));
        Run::Done(true)
    }

    /// Gives back what its connections keep for the next run, which opens others.
    pub fn rest(&mut self) {
        self.writer.refresh();
        self.reader.refresh();
    }

    /// About how many bytes its connections and the pages of its view take.
    #[must_use]
    pub fn kept_size(&self) -> usize {
        self.writer.size() + self.reader.size() + self.view.pool_size()
    }

    /// Applies or rejects one timeline frame, whose LSN must be the one that is wanted. `doctype`
    /// is the one under which it was issued.
    pub fn apply(
        &mut self,
        origin: EntryId,
        mutation: &Mutation,
        doctype: &Doctype,
    ) -> Run<Applied> {
        let (verdict, set) =
            done!(program::run_frame(&mut self.writer, origin, mutation, Some(doctype)));
        Run::Done(Applied { committed: self.commit(set), verdict })
    }

    /// Rejects one timeline frame without running it; `None` stands for bytes that are no mutation.
    /// A mutation that has its verdict already, in another timeline, has the same one here.
    pub fn reject(
        &mut self,
        origin: EntryId,
        mutation: Option<&Mutation>,
        reason: &str,
    ) -> Run<Applied> {
        let unreadable = Mutation::unreadable();
        let mutation = mutation.unwrap_or(&unreadable);
        let (verdict, set) =
            done!(program::reject_frame(&mut self.writer, origin, mutation, reason.to_owned()));
        Run::Done(Applied { committed: self.commit(set), verdict })
    }

    /// Applies a mutation of a local document. One that fails leaves nothing behind. It is part of
    /// the next entry that is [sealed](Self::seal).
    pub fn apply_local(
        &mut self,
        call: CallId,
        mutation: &Mutation,
        doctype: &Doctype,
    ) -> Run<AppliedLocally> {
        let set = done!(program::run_local(&mut self.writer, mutation, doctype));
        Run::Done(self.take_in(call, &set))
    }

    fn take_in(&mut self, call: CallId, set: &PageSet) -> AppliedLocally {
        self.view.advance_base(set);
        let lsn = self.head();
        let changed = set.pgids();
        self.unsealed.calls.push((call, lsn));
        self.unsealed.set.absorb(set);
        AppliedLocally { lsn, changed }
    }

    /// Who handles commands of the document, and whether there are any.
    pub fn work(&mut self) -> Run<Work> {
        program::work(&mut self.reader)
    }

    /// Carries out what it decides by itself as a server, at this time, milliseconds since the
    /// epoch, by the definitions of `doctype`. There is no entry where nothing has changed.
    pub fn change(
        &mut self,
        change: &Change,
        doctype: &Doctype,
        now_ms: u64,
    ) -> Run<(Changed, Option<Committed>)> {
        let clock = (Some(self.position.journal), now_ms);
        let (changed, set) = done!(program::change(&mut self.writer, doctype, change, clock));
        let committed = (!set.pages.is_empty()).then(|| self.commit(set));
        Run::Done((changed, committed))
    }

    /// The same in a local document: part of the next entry that is [sealed](Self::seal), by the
    /// name of this call. There is none where nothing has changed.
    pub fn change_local(
        &mut self,
        call: CallId,
        change: &Change,
        doctype: &Doctype,
        now_ms: u64,
    ) -> Run<(Changed, Option<AppliedLocally>)> {
        let clock = (None, now_ms);
        let (changed, set) = done!(program::change(&mut self.writer, doctype, change, clock));
        let applied = (!set.pages.is_empty()).then(|| self.take_in(call, &set));
        Run::Done((changed, applied))
    }

    /// The LSN that the next mutation gets.
    #[must_use]
    pub fn head(&self) -> Lsn {
        self.position.next.plus(self.unsealed.calls.len() as u64)
    }

    /// The entry at `lsn`, sealed or not.
    #[must_use]
    pub fn entry_id(&self, lsn: Lsn) -> EntryId {
        let sealed = (lsn < self.position.next).then(|| self.lives.life_at(lsn));
        let life = sealed.map_or(self.life, |life| life.unwrap_or(Life::NONE));
        EntryId { journal: self.position.journal, life, lsn }
    }

    /// One entry for all local mutations since the last one, for the store: what they changed is
    /// hashed and written once, however often they changed it.
    pub fn seal(&mut self) -> Option<StorageEntry> {
        let Unsealed { set, calls } = std::mem::take(&mut self.unsealed);
        let range = LsnRange::new(self.position.next, self.position.next.plus(calls.len() as u64));
        (!range.is_empty()).then(|| self.entry(range, set, calls).0)
    }

    fn commit(&mut self, set: PageSet) -> Committed {
        assert!(self.unsealed.calls.is_empty(), "BUG: local mutations were not sealed");
        let coded = |(pgid, page): (&Pgid, &Page)| {
            CodedPage::new(*pgid, page, self.view.base_page(*pgid).as_ref())
        };
        let is_one_message = set.pages.len() <= self.view.limits().message_pages_max;
        let coded = is_one_message.then(|| set.pages.iter().map(coded).collect());
        self.view.advance_base(&set);
        let (entry, hash) = self.entry(LsnRange::one(self.position.next), set, Vec::new());
        Committed { entry, hash, coded }
    }

    fn entry(
        &mut self,
        range: LsnRange,
        set: PageSet,
        calls: Vec<(CallId, Lsn)>,
    ) -> (StorageEntry, EntryHash) {
        let hash = hash_of(&set);
        let chain = chain_after(self.position.chain, range, hash);
        self.lives.note(self.life, range.start());
        self.lives.forget(self.view.limits().lives_kept_max, range.start());
        self.position = Position { life: self.life, next: range.end(), chain, ..self.position };
        (StorageEntry { range, position: self.position, calls, set }, hash)
    }
}
