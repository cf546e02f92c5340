//! How often a device has reason to run what is undecided again: whenever its document is opened,
//! from the disk or at its server, when a doctype is named, and for each LSN that comes.
//!
//! Whoever runs it oftener shows the same all the same, and is only slower.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_document::DoctypeHash;
use tidelog_types::{CallId, LsnRange};

/// The reasons that the cores of a device have had.
#[derive(Default)]
pub(crate) struct Runs {
    /// The document of each mutation.
    documents: BTreeMap<CallId, String>,
    reasons: BTreeMap<String, u64>,
    doctypes: BTreeSet<(String, DoctypeHash)>,
}

impl Runs {
    /// This mutation may be undecided here.
    pub(crate) fn is_here(&mut self, call: CallId, document: &str) {
        self.documents.entry(call).or_insert_with(|| document.to_owned());
    }

    /// A tab names the doctype that it knows the document by.
    pub(crate) fn learns(&mut self, document: &str, doctype: DoctypeHash) {
        if self.doctypes.insert((document.to_owned(), doctype)) {
            self.has_reasons(document, 1);
        }
    }

    /// It is opened from the disk, or at its server.
    pub(crate) fn opens(&mut self, document: &str) {
        self.has_reasons(document, 1);
    }

    /// All of an entry has come: what is received is told a server now and then alone.
    pub(crate) fn comes(&mut self, document: &str, range: LsnRange) {
        self.has_reasons(document, range.end().get() - range.start().get());
    }

    fn has_reasons(&mut self, document: &str, count: u64) {
        *self.reasons.entry(document.to_owned()).or_default() += count;
    }

    /// How often this mutation may have been run again.
    pub(crate) fn of(&self, call: CallId) -> u64 {
        let reasons = self.documents.get(&call).and_then(|document| self.reasons.get(document));
        reasons.copied().unwrap_or(0)
    }
}
