//! The doctypes that an admin has deployed: each a file in the folder `doctypes` of the data.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tidelog_document::{Doctype, DoctypeError, DoctypeHash, FoundRight, check, json};
use tidelog_room::Doctypes;
use tidelog_sqlite::View;
use tidelog_types::limits::{DEPLOYED_DOCTYPES_MAX, Limits};

use crate::durable_file;

/// The folder of their files, in that of the store.
const FOLDER_NAME: &str = "doctypes";

/// Why the doctypes that were deployed cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DoctypesError {
    /// A file or the folder cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what was written.
    #[error(
        "{path} is not the doctype that was deployed, as this release knows it: put it back from \
         a backup, or start the release that wrote it"
    )]
    Changed {
        /// Which.
        path: PathBuf,
    },
}

/// Why a doctype is not deployed. Nothing has changed, unless it could not be made durable: a
/// restart may find it then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeployError {
    /// It is no doctype, as JSON.
    #[error("it is not what JSON.stringify makes of a doctype: {0}")]
    Json(serde_json::Error),
    /// It is another one than was named.
    #[error("it is doctype {name}, and another one is named")]
    Name {
        /// Its own name.
        name: String,
    },
    /// It cannot work.
    #[error("{0}")]
    Doctype(DoctypeError),
    /// It does not succeed the newest one of its name.
    #[error("{reason}")]
    NoSuccessor {
        /// Why.
        reason: String,
    },
    /// There are as many as may be.
    #[error("{DEPLOYED_DOCTYPES_MAX} doctypes are deployed, and no more may be")]
    Full,
    /// The folder has another number of files than was written: one that could not be made durable
    /// may be there, or somebody has put one there.
    #[error("the folder of the doctypes has changed: restart the server, which reads it anew")]
    FolderChanged,
    /// The folder cannot be read.
    #[error("the folder of the doctypes cannot be read: {0}")]
    Read(DoctypesError),
    /// It cannot be written down.
    #[error("it cannot be written down: {0}")]
    Write(std::io::Error),
}

/// What is told of a doctype that is deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Deployed {
    pub(crate) name: String,
    /// In hexadecimal digits.
    pub(crate) hash: String,
    pub(crate) migrations: usize,
}

impl Deployed {
    fn of(doctype: &Doctype) -> Self {
        let (name, hash) = (doctype.name.clone(), hex(doctype.hash()));
        Self { name, hash, migrations: doctype.migrations.len() }
    }
}

/// The doctypes that are deployed.
pub(crate) struct Deployments {
    folder: PathBuf,
    taken: Doctypes,
    found_right: FoundRight,
    limits: Limits,
    /// One at a time, which takes as long as its migrations do.
    turn: Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// In the order in which they were deployed.
    all: Vec<Deployed>,
    /// By name, the last one.
    newest: BTreeMap<String, Doctype>,
}

impl Deployments {
    /// Reads those of the store in `data`. They are `taken` from now on, and checked within
    /// `limits`.
    pub(crate) fn open(
        data: &Path,
        taken: Doctypes,
        found_right: FoundRight,
        limits: Limits,
    ) -> Result<Self, DoctypesError> {
        let folder = data.join(FOLDER_NAME);
        let (turn, known) = (Mutex::default(), Mutex::default());
        let deployments = Self { folder, taken, found_right, limits, turn, known };
        for path in deployments.files()? {
            let read = std::fs::read(&path);
            let bytes =
                read.map_err(|source| DoctypesError::Read { path: path.clone(), source })?;
            let doctype = json::parse(&bytes).ok();
            let number = deployments.known().all.len();
            let is_same = |doctype: &Doctype| path.ends_with(file_name(number, doctype.hash()));
            let Some(doctype) = doctype.filter(is_same) else {
                return Err(DoctypesError::Changed { path });
            };
            deployments.take(doctype);
        }
        Ok(deployments)
    }

    /// The files, in the order in which they were written.
    fn files(&self) -> Result<Vec<PathBuf>, DoctypesError> {
        let failed = |source| DoctypesError::Read { path: self.folder.clone(), source };
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            // One that was being written when the machine went down has another name.
            if path.extension().is_some_and(|it| it == "json") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// All that are deployed, in the order in which they were.
    pub(crate) fn list(&self) -> Vec<Deployed> {
        self.known().all.clone()
    }

    /// The newest doctype of this name.
    pub(crate) fn newest(&self, name: &str) -> Option<Doctype> {
        self.known().newest.get(name).cloned()
    }

    /// Deploys the doctype that this JSON says, under its own name. Says whether it is new.
    pub(crate) fn deploy(&self, name: &str, bytes: &[u8]) -> Result<(Deployed, bool), DeployError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (doctype, deployed, is_new) = self.look_at(name, bytes)?;
        if is_new {
            self.write(&doctype, bytes).map_err(DeployError::Write)?;
            self.take(doctype);
        }
        Ok((deployed, is_new))
    }

    /// The doctype that this JSON says, if it could be deployed, or is.
    pub(crate) fn examine(
        &self,
        name: &str,
        bytes: &[u8],
    ) -> Result<(Doctype, Deployed), DeployError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (doctype, deployed, _) = self.look_at(name, bytes)?;
        Ok((doctype, deployed))
    }

    /// The same, with whether it is new, for one whose turn it is.
    fn look_at(&self, name: &str, bytes: &[u8]) -> Result<(Doctype, Deployed, bool), DeployError> {
        let doctype = json::parse(bytes).map_err(DeployError::Json)?;
        if doctype.name != name {
            return Err(DeployError::Name { name: doctype.name });
        }
        let deployed = Deployed::of(&doctype);
        if self.known().all.contains(&deployed) {
            return Ok((doctype, deployed, false));
        }
        self.check_successor(&doctype)?;
        // Two files of one number would be found at the next start, and none of them believed.
        if self.files().map_err(DeployError::Read)?.len() != self.known().all.len() {
            return Err(DeployError::FolderChanged);
        }
        let view = View::new(self.limits.pool_pages_max, 0).with_limits(self.limits);
        check(&doctype, &view, &self.found_right).map_err(DeployError::Doctype)?;
        Ok((doctype, deployed, true))
    }

    fn check_successor(&self, doctype: &Doctype) -> Result<(), DeployError> {
        let known = self.known();
        if known.all.len() >= DEPLOYED_DOCTYPES_MAX {
            return Err(DeployError::Full);
        }
        let Some(newest) = known.newest.get(&doctype.name) else { return Ok(()) };
        if doctype.succeeds(newest) {
            return Ok(());
        }
        let reason = doctype.parting_from(newest).unwrap_or_else(|| {
            let (own, newest) = (doctype.migrations.len(), newest.migrations.len());
            format!("it has {own} migrations, and the newest one that is deployed has {newest}")
        });
        Err(DeployError::NoSuccessor { reason })
    }

    fn write(&self, doctype: &Doctype, bytes: &[u8]) -> std::io::Result<()> {
        if !self.folder.is_dir() {
            std::fs::create_dir(&self.folder)?;
            self.folder.parent().map_or(Ok(()), durable_file::sync_folder)?;
        }
        let name = file_name(self.known().all.len(), doctype.hash());
        durable_file::write(&self.folder, &name, bytes)
    }

    fn take(&self, doctype: Doctype) {
        self.taken.deploy(doctype.hash());
        let mut known = self.known();
        known.all.push(Deployed::of(&doctype));
        known.newest.insert(doctype.name.clone(), doctype);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So that files are sorted as they were written, and what is in one is known by its name.
fn file_name(number: usize, hash: DoctypeHash) -> String {
    format!("{number:06}-{}.json", hex(hash))
}

fn hex(DoctypeHash(bytes): DoctypeHash) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
impl Deployments {
    /// Of a server that never had any.
    pub(crate) fn none() -> Self {
        let (taken, found_right) = (Doctypes::any(), FoundRight::default());
        Self::open(Path::new("no such folder"), taken, found_right, Limits::DEFAULT)
            .expect("nothing to read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(data: &Path) -> Result<(Deployments, Doctypes), DoctypesError> {
        let taken = Doctypes::deployed();
        let found_right = FoundRight::default();
        let deployments = Deployments::open(data, taken.clone(), found_right, Limits::DEFAULT)?;
        Ok((deployments, taken))
    }

    fn notes(migrations: &[&str]) -> String {
        let migrations = serde_json::to_string(migrations).expect("JSON");
        format!(
            r#"{{"name":"notes","migrations":{migrations},
                "mutations":{{"add":{{"params":{{"id":"text"}},
                                      "sql":["insert into note (id) values (:id)"]}}}}}}"#
        )
    }

    const NOTE: &str = "create table note (id text primary key) strict";
    const BODY: &str = "alter table note add column body text";

    fn deploy(deployments: &Deployments, migrations: &[&str]) -> Result<bool, DeployError> {
        deployments.deploy("notes", notes(migrations).as_bytes()).map(|(_, is_new)| is_new)
    }

    #[test]
    fn only_the_first_and_successors_are_deployed_and_each_once() {
        let data = tempfile::tempdir().expect("a folder");
        let (deployments, taken) = open(data.path()).expect("none yet");
        let hash_of = |migrations: &[&str]| {
            json::parse(notes(migrations).as_bytes()).expect("a doctype").hash()
        };
        assert!(!taken.takes(hash_of(&[NOTE])));
        assert!(deploy(&deployments, &[NOTE]).expect("the first"));
        assert!(taken.takes(hash_of(&[NOTE])) && !taken.takes(hash_of(&[NOTE, BODY])));
        assert!(!deploy(&deployments, &[NOTE]).expect("it is there"));
        assert!(deploy(&deployments, &[NOTE, BODY]).expect("a successor"));
        assert!(!deploy(&deployments, &[NOTE]).expect("it is there"));
        let other = format!("{NOTE} -- edited");
        for parting in [&[other.as_str(), BODY][..], &[]] {
            let refused = deploy(&deployments, parting).err();
            assert!(matches!(refused, Some(DeployError::NoSuccessor { .. })), "{refused:?}");
        }
        let listed: Vec<_> = deployments.list().into_iter().map(|it| it.migrations).collect();
        assert_eq!(listed, [1, 2]);
        assert!(taken.takes(hash_of(&[NOTE])) && taken.takes(hash_of(&[NOTE, BODY])));
    }

    #[test]
    fn what_is_deployed_is_there_after_a_restart() {
        let data = tempfile::tempdir().expect("a folder");
        let (before, _) = open(data.path()).expect("none yet");
        deploy(&before, &[NOTE]).expect("the first");
        deploy(&before, &[NOTE, BODY]).expect("a successor");
        // One that was being written when the machine went down.
        std::fs::write(data.path().join(FOLDER_NAME).join(".tmp"), "half").expect("written");
        let (after, taken) = open(data.path()).expect("read");
        assert_eq!(after.list(), before.list());
        let newest = after.known().newest["notes"].clone();
        assert_eq!(newest.migrations.len(), 2);
        assert!(taken.takes(newest.hash()));
        assert!(deploy(&after, &[]).is_err(), "no successor of what was there");
    }

    #[test]
    fn a_file_that_has_changed_is_not_taken_for_what_was_deployed() {
        let data = tempfile::tempdir().expect("a folder");
        deploy(&open(data.path()).expect("none yet").0, &[NOTE]).expect("the first");
        let path = open(data.path()).expect("read").0.files().expect("a folder").remove(0);
        std::fs::write(&path, notes(&[NOTE, BODY])).expect("written");
        let changed = open(data.path()).err();
        assert!(matches!(changed, Some(DoctypesError::Changed { .. })), "{changed:?}");
    }

    /// Goal: a server that could not make a file durable starts again. Method: such a file is
    /// there, and another doctype is deployed.
    #[test]
    fn nothing_is_deployed_beside_a_file_of_which_nobody_knows() {
        let [data, other] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let (deployments, taken) = open(data.path()).expect("none yet");
        deploy(&deployments, &[NOTE]).expect("the first");
        let (elsewhere, _) = open(other.path()).expect("none yet");
        deploy(&elsewhere, &[NOTE]).expect("the first");
        deploy(&elsewhere, &[NOTE, BODY]).expect("a successor");
        let file = elsewhere.files().expect("a folder").remove(1);
        let name = file.file_name().expect("a name");
        std::fs::copy(&file, data.path().join(FOLDER_NAME).join(name)).expect("copied");
        let title = "alter table note add column title text";
        let refused = deploy(&deployments, &[NOTE, title]).err();
        assert!(matches!(refused, Some(DeployError::FolderChanged)), "{refused:?}");
        assert_eq!(deployments.list().len(), 1);
        drop((deployments, taken));
        let (again, _) = open(data.path()).expect("read");
        assert_eq!(again.list(), elsewhere.list());
    }

    #[test]
    fn what_cannot_work_is_not_deployed() {
        let data = tempfile::tempdir().expect("a folder");
        let (deployments, _) = open(data.path()).expect("none yet");
        let broken = deploy(&deployments, &["create nonsense"]).err();
        assert!(matches!(broken, Some(DeployError::Doctype(_))), "{broken:?}");
        let named = deployments.deploy("other", notes(&[NOTE]).as_bytes()).err();
        assert!(matches!(named, Some(DeployError::Name { .. })), "{named:?}");
        let odd = deployments.deploy("notes", b"{}").err();
        assert!(matches!(odd, Some(DeployError::Json(_))), "{odd:?}");
        assert!(deployments.list().is_empty());
        assert!(!data.path().join(FOLDER_NAME).exists());
    }
}
