//! The side that decides.

use tidelog_pages::StorageEntry;
use tidelog_sqlite::{Reader, Run, View, Writer};
use tidelog_sync::Origin;
use tidelog_types::{CallId, JournalId, Lsn, LsnRange, PageSet, Position};

use crate::program::{self, done};
use crate::{Doctype, Mutation, Verdict, chain_of};

/// One document on the side that decides: the server's, or a device's own of a local document.
///
/// Every method either ends with `Run::Done`, and then view and position have moved on and the
/// caller appends the entry to its store, or it has changed nothing. Entries that are lost before
/// they are durable are lost together with this value: the caller opens the document anew.
pub struct Authority {
    view: View,
    writer: Writer,
    reader: Reader,
    position: Position,
}

/// What became of one mutation.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The entry that says so, for the store.
    pub entry: StorageEntry,
    /// The verdict that it carries.
    pub verdict: Verdict,
}

impl Authority {
    /// The document whose pages `view` shows and whose storage journal stands at `position`.
    #[must_use]
    pub fn new(view: View, position: Position) -> Self {
        let (writer, reader) = (Writer::new(&view), Reader::new(&view));
        Self { view, writer, reader, position }
    }

    /// Where the storage journal stands, with the entries that are not durable yet.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
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

    /// How many migrations the document has seen; 0 for one that holds nothing yet.
    pub fn version(&mut self) -> Run<u32> {
        let version = done!(program::version(&mut self.reader)).unwrap_or(0);
        Run::Done(u32::try_from(version).expect("BUG: so many migrations"))
    }

    /// The first LSN of that timeline that is not applied.
    pub fn wanted(&mut self, timeline: JournalId) -> Run<Lsn> {
        program::wanted(&mut self.reader, timeline)
    }

    /// Brings the document to the doctype's version. `None` if it is there already, or beyond.
    pub fn migrate(&mut self, doctype: &Doctype) -> Run<Option<StorageEntry>> {
        let version = done!(program::version(&mut self.reader));
        if !program::is_behind(version, doctype) {
            return Run::Done(None);
        }
        let set = done!(program::migrate(&mut self.writer, doctype, version));
        Run::Done(Some(self.commit(set, None)))
    }

    /// Applies or rejects one timeline frame, whose LSN must be the one that is wanted. `doctype`
    /// is the one under which it was issued.
    pub fn apply(
        &mut self,
        origin: Origin,
        mutation: &Mutation,
        doctype: &Doctype,
    ) -> Run<Applied> {
        let (verdict, set) =
            done!(program::run_frame(&mut self.writer, origin, mutation, Some(doctype)));
        Run::Done(Applied { entry: self.commit(set, None), verdict })
    }

    /// Rejects one timeline frame without running it: bytes that are no mutation.
    pub fn reject(&mut self, origin: Origin, reason: &str) -> Run<Applied> {
        let (verdict, set) = done!(program::reject_frame(
            &mut self.writer,
            origin,
            "",
            Lsn::FIRST,
            reason.to_owned()
        ));
        Run::Done(Applied { entry: self.commit(set, None), verdict })
    }

    /// Applies a mutation of a local document. One that fails leaves nothing behind.
    pub fn apply_local(
        &mut self,
        call: CallId,
        mutation: &Mutation,
        doctype: &Doctype,
    ) -> Run<StorageEntry> {
        let set = done!(program::run_local(&mut self.writer, mutation, doctype));
        Run::Done(self.commit(set, Some(call)))
    }

    fn commit(&mut self, set: PageSet, call: Option<CallId>) -> StorageEntry {
        let range = LsnRange::one(self.position.next);
        let chain = chain_of(self.position.chain, range, &set);
        self.position = Position { next: range.end(), chain, ..self.position };
        self.view.advance_base(&set);
        StorageEntry { range, position: self.position, call, set }
    }
}
