//! What the client notes about a document beside its journals.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidelog_document::{Doctype, DoctypeHash, client_of};
use tidelog_sync::codec;
use tidelog_types::limits::Limits;
use tidelog_types::probe::{Probe, reached};
use tidelog_types::{
    CallId, ClientId, CopySecret, EntryId, JournalId, Lineage, Position, Role, SortedMap, Value,
};

/// The client's notes about one document, in the store as one opaque record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What only this copy and its server know: by it mutations are its own.
    pub(crate) secret: CopySecret,
    /// Where the document is synced; `None` for a local one.
    pub(crate) server: Option<String>,
    /// The doctypes that are needed: the newest, that which the server has, and those that
    /// undecided frames name.
    pub(crate) doctypes: Vec<HashedDoctype>,
    /// The newest of them.
    pub(crate) newest: DoctypeHash,
    /// The newest that the server has said that it has, until it has taken another.
    pub(crate) taken: Option<DoctypeHash>,
    /// Who wrote the journal that this device writes: its timeline, or the storage journal of a
    /// local document.
    pub(crate) lives: Lineage,
    /// Where the server's storage journal stood when the server took this document over. The chain
    /// there is of one entry for all; that in the store is of the entries that were written here.
    pub(crate) seeded: Option<Position>,
    /// Whether this copy has ever had all that its server had.
    pub(crate) synced: bool,
    /// What the server has said last that its token allows with the document; `None` if nothing.
    pub(crate) access: Option<Role>,
    /// Whose copy this is: the subject of the token by which the server let it in first.
    pub(crate) subject: Option<String>,
    /// Rejections, oldest first: those for which no listener has returned, and the latest others;
    /// of both the oldest are forgotten beyond what may be kept.
    pub(crate) rejections: Vec<KeptRejection>,
    /// The youngest rejection that is not among them any more.
    pub(crate) forgotten: Option<EntryId>,
    /// Up to which event each consumer has come, by its name.
    pub(crate) consumers: BTreeMap<String, u64>,
}

/// What a record keeps of rejections, for tests that judge its bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptRejections {
    /// Those that are kept, oldest first: which, its size, and whether it was handled.
    pub kept: Vec<(EntryId, usize, bool)>,
    /// By which each of them was issued.
    pub calls: Vec<CallId>,
    /// The youngest one that is not kept any more.
    pub forgotten: Option<EntryId>,
}

impl KeptRejections {
    /// Those in the record of an append; `None` if it is no record.
    #[must_use]
    pub fn of_record(record: &[u8]) -> Option<Self> {
        let Record { rejections, forgotten, .. } = codec::decode(record).ok()?;
        let kept = rejections.iter().map(|it| (it.entry, it.size(), it.handled)).collect();
        let calls = rejections.iter().map(|it| it.call).collect();
        Some(Self { kept, calls, forgotten })
    }
}

/// A doctype with its hash, which is not stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HashedDoctype {
    pub(crate) hash: DoctypeHash,
    pub(crate) doctype: Doctype,
}

impl HashedDoctype {
    pub(crate) fn new(doctype: Doctype) -> Self {
        Self { hash: doctype.hash(), doctype }
    }
}

impl Serialize for HashedDoctype {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.doctype.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for HashedDoctype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Doctype::deserialize(deserializer).map(Self::new)
    }
}

/// A rejection that an app has not dealt with yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptRejection {
    /// The call that issued it: other than its entry it is the same in every timeline.
    pub(crate) call: CallId,
    pub(crate) entry: EntryId,
    pub(crate) mutation: String,
    pub(crate) args: Vec<(String, Value)>,
    pub(crate) reason: String,
    /// Whether a listener has returned: kept a while all the same, for a tab that asks again.
    pub(crate) handled: bool,
}

impl KeptRejection {
    /// About how many bytes it takes in the record.
    fn size(&self) -> usize {
        let value_size = |value: &Value| match value {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            _ => 8,
        };
        let args = self.args.iter().map(|(name, value)| name.len() + value_size(value) + 16);
        self.mutation.len() + self.reason.len() + args.sum::<usize>() + 64
    }
}

impl Record {
    /// Keeps a few more rejections, and forgets the oldest beyond what may be kept, those that were
    /// handled first. The record is written as a whole, so what is in it has to stay small. New
    /// frames go to `timeline`. Gives what it forgets.
    pub(crate) fn keep_rejections(
        &mut self,
        rejections: Vec<KeptRejection>,
        timeline: JournalId,
        limits: &Limits,
    ) -> Vec<KeptRejection> {
        self.rejections.extend(rejections);
        let mut count = self.rejections.len();
        let mut size: usize = self.rejections.iter().map(KeptRejection::size).sum();
        let mut forgotten = Vec::new();
        for is_any in [false, true] {
            forgotten.extend(self.forget(timeline, |rejection| {
                let is_small = count == 1 || size <= limits.rejections_kept_size_max;
                if is_small && count <= limits.rejections_kept_max {
                    return false;
                }
                let forget = is_any || rejection.handled;
                if forget {
                    reached(Probe::RejectionDropped);
                    (count, size) = (count - 1, size - rejection.size());
                }
                forget
            }));
        }
        forgotten
    }

    /// Forgets the oldest of those that were handled, beyond a few.
    pub(crate) fn forget_handled(&mut self, timeline: JournalId, limits: &Limits) {
        let handled = self.rejections.iter().filter(|rejection| rejection.handled).count();
        let mut surplus = handled.saturating_sub(limits.handled_rejections_kept_max);
        self.forget(timeline, |rejection| {
            let forget = rejection.handled && surplus > 0;
            surplus -= usize::from(forget);
            forget
        });
    }

    fn forget(
        &mut self,
        timeline: JournalId,
        mut which: impl FnMut(&KeptRejection) -> bool,
    ) -> Vec<KeptRejection> {
        let dropped: Vec<_> = self.rejections.extract_if(.., |it| which(it)).collect();
        for &KeptRejection { entry, .. } in &dropped {
            // Of those of former timelines any one stands for all.
            let is_younger = |known: EntryId| {
                entry.journal == timeline && (known.journal != timeline || known.lsn < entry.lsn)
            };
            if self.forgotten.is_none_or(is_younger) {
                self.forgotten = Some(entry);
            }
        }
        dropped
    }

    /// Whether a mutation that has its verdict, and is not among the rejections, was applied:
    /// nobody knows of one that may have been forgotten. New frames go to `timeline`.
    pub(crate) fn is_applied(&self, entry: EntryId, timeline: JournalId) -> bool {
        match self.forgotten {
            None => true,
            Some(forgotten) => {
                let is_older = forgotten.journal != timeline || forgotten.lsn < entry.lsn;
                entry.journal == timeline && is_older
            }
        }
    }

    /// What is held of the storage journal, where the store has it up to `stored`.
    pub(crate) fn base(&self, stored: Option<Position>) -> Option<Position> {
        let place = |position: &Position| (position.journal, position.next);
        let is_it = |seeded: &Position| stored.as_ref().map(place) == Some(place(seeded));
        self.seeded.filter(is_it).or(stored)
    }

    /// This copy, as mutations see it.
    pub(crate) fn client(&self) -> ClientId {
        client_of(self.secret)
    }

    /// All of them.
    pub(crate) fn doctypes_by_hash(&self) -> SortedMap<DoctypeHash, Doctype> {
        let mut doctypes = SortedMap::new();
        doctypes.extend(self.doctypes.iter().map(|known| (known.hash, known.doctype.clone())));
        doctypes
    }

    /// The hash of this doctype, if it is known.
    pub(crate) fn hash_of(&self, doctype: &Doctype) -> Option<DoctypeHash> {
        self.doctypes.iter().find(|known| known.doctype == *doctype).map(|known| known.hash)
    }

    /// The doctype with this hash.
    pub(crate) fn doctype(&self, hash: DoctypeHash) -> Option<&Doctype> {
        self.doctypes.iter().find(|known| known.hash == hash).map(|known| &known.doctype)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use tidelog_document::{MutationDefinition, Param, ParamKind};
    use tidelog_types::{Chain, Life, Lsn};

    use super::*;

    const TIMELINE: JournalId = JournalId([3; 16]);
    const FORMER: JournalId = JournalId([2; 16]);

    fn entry(journal: JournalId, lsn: u64) -> EntryId {
        EntryId { journal, life: Life([5; 16]), lsn: Lsn::new(lsn).expect("not 0") }
    }

    fn file() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/client-record-v1")
    }

    fn record() -> Record {
        let param = Param { name: "id".to_owned(), kind: ParamKind::Text, optional: false };
        let add = MutationDefinition {
            name: "add".to_owned(),
            params: vec![param],
            sql: vec!["INSERT INTO item (id) VALUES (:id)".to_owned()],
        };
        let doctype = Doctype {
            name: "list".to_owned(),
            migrations: vec!["CREATE TABLE item (id TEXT PRIMARY KEY)".to_owned()],
            mutations: vec![add],
            streams: Vec::new(),
            workflows: Vec::new(),
        };
        let rejection = KeptRejection {
            call: CallId([4; 16]),
            entry: entry(TIMELINE, 7),
            mutation: "add".to_owned(),
            args: vec![("id".to_owned(), Value::Text("a".to_owned()))],
            reason: "no".to_owned(),
            handled: true,
        };
        Record {
            secret: CopySecret([9; 16]),
            server: Some("wss://example.org".to_owned()),
            newest: doctype.hash(),
            taken: Some(doctype.hash()),
            doctypes: vec![HashedDoctype::new(doctype)],
            lives: Lineage::try_from(vec![(Life([5; 16]), Lsn::FIRST)]).expect("one life"),
            seeded: Some(Position {
                journal: JournalId([2; 16]),
                life: Life([5; 16]),
                next: Lsn::FIRST.plus(3),
                chain: Chain([7; 32]),
            }),
            synced: true,
            access: Some(Role::Write),
            subject: Some("ada".to_owned()),
            rejections: vec![rejection],
            forgotten: Some(entry(TIMELINE, 3)),
            consumers: BTreeMap::from([("mail".to_owned(), 7)]),
        }
    }

    fn rejection(lsn: u64, size: usize) -> KeptRejection {
        KeptRejection {
            call: CallId([1; 16]),
            entry: entry(TIMELINE, lsn),
            mutation: "add".to_owned(),
            args: vec![("id".to_owned(), Value::Blob(vec![0; size]))],
            reason: "no".to_owned(),
            handled: false,
        }
    }

    fn kept(record: &Record) -> Vec<u64> {
        record.rejections.iter().map(|rejection| rejection.entry.lsn.get()).collect()
    }

    #[test]
    fn rejections_are_bounded_in_bytes_and_the_newest_is_always_kept() {
        let limits = Limits { rejections_kept_size_max: 2000, ..Limits::DEFAULT };
        let mut record = Record { rejections: Vec::new(), ..record() };
        record.keep_rejections((1..9).map(|lsn| rejection(lsn, 500)).collect(), TIMELINE, &limits);
        assert_eq!(kept(&record), [6, 7, 8]);
        record.keep_rejections(vec![rejection(9, 1 << 20)], TIMELINE, &limits);
        assert_eq!(kept(&record), [9], "what a listener may still want to know");
        record.keep_rejections(vec![rejection(10, 0)], TIMELINE, &limits);
        assert_eq!(kept(&record), [10]);
    }

    /// Goal: what a listener has dealt with takes no room from what no listener has heard.
    #[test]
    fn handled_rejections_give_way_first() {
        let number = Limits { rejections_kept_max: 3, ..Limits::DEFAULT };
        let size = Limits { rejections_kept_size_max: 2000, ..Limits::DEFAULT };
        for limits in [number, size] {
            let mut record = Record { rejections: Vec::new(), ..record() };
            let handled = |lsn| KeptRejection { handled: true, ..rejection(lsn, 500) };
            let rejections = vec![rejection(1, 500), handled(2), handled(3)];
            record.keep_rejections(rejections, TIMELINE, &limits);
            record.keep_rejections(vec![rejection(4, 500)], TIMELINE, &limits);
            assert_eq!(kept(&record), [1, 3, 4]);
            record.keep_rejections(vec![handled(5), rejection(6, 500)], TIMELINE, &limits);
            assert_eq!(kept(&record), [1, 4, 6]);
            record.keep_rejections(vec![rejection(7, 500)], TIMELINE, &limits);
            assert_eq!(kept(&record), [4, 6, 7]);
        }
    }

    #[test]
    fn rejections_are_bounded_in_number() {
        let limits = Limits { rejections_kept_max: 3, ..Limits::DEFAULT };
        let mut record = Record { rejections: Vec::new(), ..record() };
        record.keep_rejections((1..9).map(|lsn| rejection(lsn, 0)).collect(), TIMELINE, &limits);
        assert_eq!(kept(&record), [6, 7, 8]);
    }

    #[test]
    fn the_youngest_forgotten_rejection_bounds_what_is_known_to_be_applied() {
        let limits = Limits { rejections_kept_max: 2, ..Limits::DEFAULT };
        let mut record = Record { rejections: Vec::new(), forgotten: None, ..record() };
        let of_former = |lsn| KeptRejection { entry: entry(FORMER, lsn), ..rejection(lsn, 0) };
        let own = |record: &Record| {
            let lsns = (1..9).filter(|lsn| record.is_applied(entry(TIMELINE, *lsn), TIMELINE));
            lsns.collect::<Vec<_>>()
        };
        record.keep_rejections(vec![of_former(8), of_former(9)], FORMER, &limits);
        assert!(record.is_applied(entry(FORMER, 1), TIMELINE), "none was forgotten");
        record.keep_rejections(vec![rejection(3, 0)], TIMELINE, &limits);
        assert!(!record.is_applied(entry(FORMER, 9), TIMELINE), "any may be");
        assert_eq!(own(&record), [1, 2, 3, 4, 5, 6, 7, 8]);
        record.keep_rejections(vec![rejection(5, 0), rejection(6, 0)], TIMELINE, &limits);
        assert_eq!(own(&record), [4, 5, 6, 7, 8]);
        assert!(!record.is_applied(entry(FORMER, 9), TIMELINE));
        // What is younger and handled may go before what is older.
        record.rejections.insert(0, of_former(7));
        record.forget(TIMELINE, |_| true);
        assert_eq!(own(&record), [7, 8]);
    }

    #[test]
    fn the_golden_record_is_read_and_written_as_it_is() {
        let golden = fs::read(file()).expect("a golden file");
        assert_eq!(codec::decode::<Record>(&golden).expect("a record"), record());
        assert!(codec::encode(&record()) == golden, "another version, or cargo xtask golden");
    }

    #[test]
    fn a_record_with_something_behind_it_is_of_a_newer_release() {
        let mut newer = fs::read(file()).expect("a golden file");
        newer.push(0);
        assert!(codec::decode::<Record>(&newer).is_err());
    }

    /// Run by `cargo xtask golden`.
    #[test]
    #[ignore = "writes the golden record anew"]
    fn write_the_golden_record() {
        fs::write(file(), codec::encode(&record())).expect("a folder");
    }
}
