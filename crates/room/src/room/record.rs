//! A room's own notes about its document, kept in the store.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidelog_document::{Doctype, DoctypeHash, DueTasks};
use tidelog_sync::codec::{self, DecodeError};
use tidelog_types::limits::{DOCTYPES_MAX, DOCTYPES_SIZE_MAX};
use tidelog_types::{ClientId, Lineage, Position};

/// The doctypes under which the document may be used; the last one is the newest, whose version
/// the document has.
#[derive(Clone, Debug, Default)]
pub(super) struct RoomRecord {
    doctypes: Vec<(DoctypeHash, Arc<Doctype>)>,
    /// Whether the newest of them has tasks, which is asked in each step.
    has_tasks: bool,
    /// Who wrote the storage journal.
    pub(super) lives: Lineage,
    /// The local document that has become this one.
    pub(super) seeded: Option<Seeded>,
    /// When its tasks were due when the room looked at them and nobody was there any more; `None`
    /// if the document may have changed since.
    pub(super) due: Option<DueTasks>,
}

/// A local document that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seeded {
    /// Where the journal stood then. As long as it stands there, nobody has written here since.
    pub(super) position: Position,
    /// The copy that it was: no other one hands over what comes next.
    pub(super) client: ClientId,
}

/// What is written down. Append fields at the end only with a new variant.
#[derive(Serialize, Deserialize)]
enum Written {
    V1 { doctypes: Vec<Doctype>, lives: Lineage, seeded: Option<Seeded>, due: Option<DueTasks> },
}

impl RoomRecord {
    pub(super) fn of(doctype: Doctype) -> Self {
        let mut record = Self::default();
        record.add_newest(doctype);
        record
    }

    /// Whether the document may be used under this doctype too.
    pub(super) fn has_room_for(&self, doctype: &Doctype) -> bool {
        let known = self.doctypes.iter().map(|(_, known)| &**known);
        let sizes = known.chain([doctype]).map(|doctype| codec::encode(doctype).len());
        self.doctypes.len() < DOCTYPES_MAX && sizes.sum::<usize>() <= DOCTYPES_SIZE_MAX
    }

    pub(super) fn find(&self, hash: DoctypeHash) -> Option<Arc<Doctype>> {
        self.doctypes.iter().find(|(known, _)| *known == hash).map(|(_, it)| Arc::clone(it))
    }

    pub(super) fn newest(&self) -> Option<Arc<Doctype>> {
        self.doctypes.last().map(|(_, doctype)| Arc::clone(doctype))
    }

    /// Whether there may be tasks, by the newest of them.
    pub(super) fn has_tasks(&self) -> bool {
        self.has_tasks
    }

    /// Adds a successor of the newest.
    pub(super) fn add_newest(&mut self, doctype: Doctype) {
        self.has_tasks = doctype.has_tasks();
        self.doctypes.push((doctype.hash(), Arc::new(doctype)));
    }

    /// Adds one that the newest succeeds.
    pub(super) fn add_older(&mut self, doctype: Doctype) {
        self.doctypes.insert(0, (doctype.hash(), Arc::new(doctype)));
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let doctypes = self.doctypes.iter().map(|(_, it)| Doctype::clone(it)).collect();
        let (lives, seeded, due) = (self.lives.clone(), self.seeded, self.due.clone());
        codec::encode(&Written::V1 { doctypes, lives, seeded, due })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Written::V1 { doctypes, lives, seeded, due } = codec::decode(bytes)?;
        let mut record = Self { lives, seeded, due, ..Self::default() };
        doctypes.into_iter().for_each(|it| record.add_newest(it));
        Ok(record)
    }
}

/// What the record of a document that is closed, as the store has it, says of its tasks: `None` if
/// somebody has to look.
#[must_use]
pub fn recorded_due(record: &[u8]) -> Option<DueTasks> {
    match RoomRecord::decode(record) {
        Ok(record) if record.has_tasks() => record.due,
        // There are none, or nobody is served.
        Ok(_) | Err(_) => Some(DueTasks::default()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use tidelog_types::{Chain, JournalId, Life, Lsn};

    use super::*;
    use tidelog_document::TaskKind;

    fn file() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/room-record-v1")
    }

    fn doctype(version: usize) -> Doctype {
        let migrations = ["CREATE TABLE item (id TEXT PRIMARY KEY)", "ALTER TABLE item ADD done"];
        let migrations = migrations[..version].iter().map(|&sql| sql.to_owned()).collect();
        Doctype {
            name: "list".to_owned(),
            migrations,
            mutations: Vec::new(),
            streams: Vec::new(),
            workflows: Vec::new(),
        }
    }

    fn record() -> RoomRecord {
        let mut record = RoomRecord::of(doctype(1));
        record.add_newest(doctype(2));
        record.lives.note(Life([3; 16]), Lsn::FIRST);
        let (journal, chain) = (JournalId([1; 16]), Chain([2; 32]));
        let (life, next) = (Life([3; 16]), Lsn::FIRST.plus(8));
        let position = Position { journal, life, next, chain };
        record.seeded = Some(Seeded { position, client: ClientId([4; 16]) });
        let kind = TaskKind { aggregate: "order".to_owned(), name: "place".to_owned() };
        let at_ms = [(kind, 1_000)].into();
        record.due = Some(DueTasks { at_ms, ..DueTasks::default() });
        record
    }

    #[test]
    fn the_golden_record_is_read_and_written_as_it_is() {
        let golden = fs::read(file()).expect("a golden file");
        let read = RoomRecord::decode(&golden).expect("a record");
        assert_eq!(read.newest().as_deref(), Some(&doctype(2)));
        assert_eq!(read.find(doctype(1).hash()).as_deref(), Some(&doctype(1)));
        assert!(record().encode() == golden, "another version, or cargo xtask golden");
    }

    #[test]
    fn a_record_of_a_newer_release_is_refused() {
        let mut newer = fs::read(file()).expect("a golden file");
        newer[0] += 1;
        assert!(RoomRecord::decode(&newer).is_err());
    }

    /// Run by `cargo xtask golden`.
    #[test]
    #[ignore = "writes the golden record anew"]
    fn write_the_golden_record() {
        fs::write(file(), record().encode()).expect("a folder");
    }
}
