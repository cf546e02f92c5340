//! `tidelog check` and `tidelog export`: a store that no server has.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tempfile::NamedTempFile;
use tidelog_disk::{DiskError, NativeDisk, StoreFiles};
use tidelog_pages::{
    OpenError, OwnerId, PageServer, RecoveryReport, RequestId, Seed, StoreOptions, StoreReply,
    StoreRequest, Urgency,
};
use tidelog_room::STAGED;
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{DocumentKey, Pgid};

use super::{CommandError, say};
use crate::backup::Source;
use crate::durable_file;

/// Pages that are asked for at once.
const CHUNK_PAGES: u32 = 256;

/// Flags of `tidelog check`.
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// Folder of the store, of a server that is stopped
    #[arg(long, env = "TIDELOG_DATA", value_name = "DIR", default_value = "tidelog-data")]
    pub data: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `tidelog export`.
#[derive(Args, Clone, Debug)]
pub struct Export {
    /// The document's name
    #[arg(value_name = "ID")]
    pub document: String,

    /// Where to; - writes it to standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Folder of the store, of a server that is stopped
    #[arg(long, env = "TIDELOG_DATA", value_name = "DIR", default_value = "tidelog-data")]
    pub data: PathBuf,
}

/// Why a store cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum OfflineError {
    #[error("there is no store in {0}")]
    Missing(PathBuf),
    #[error("a server has {0} open: stop it, or ask it over HTTP")]
    InUse(PathBuf),
    #[error("cannot open the store in {data}")]
    Disk {
        data: PathBuf,
        #[source]
        source: DiskError,
    },
    #[error("cannot open the store in {data}")]
    Store {
        data: PathBuf,
        #[source]
        source: OpenError,
    },
    #[error("the store fails: {0}")]
    Failed(String),
    #[error("there is no document {0}")]
    NoDocument(String),
    #[error("document {document} is damaged: {count} of its pages are lost")]
    Lost { document: String, count: usize },
    #[error("the store is damaged: {0}")]
    Damaged(String),
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Takes a page of a document.
type TakePage<'t> = dyn FnMut(Pgid, &[u8]) -> Result<(), OfflineError> + 't;

/// A store that no server has.
pub(super) struct Offline {
    server: PageServer<NativeDisk>,
    found: RecoveryReport,
}

/// What is found in one.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) documents: usize,
    pub(super) pages: u64,
    pub(super) damages: Vec<String>,
}

impl Offline {
    pub(super) fn open(data: &Path) -> Result<Self, OfflineError> {
        let [_, _, pages, _] = StoreFiles::<()>::NAMES;
        if !data.join(pages).is_file() {
            return Err(OfflineError::Missing(data.to_owned()));
        }
        let files = match StoreFiles::in_folder(data) {
            Ok(files) => files,
            Err(DiskError::Busy) => return Err(OfflineError::InUse(data.to_owned())),
            Err(source) => return Err(OfflineError::Disk { data: data.to_owned(), source }),
        };
        let seed = Seed(getrandom::u64().expect("the system gives random bytes"));
        // Nothing is appended, and so nothing is checkpointed.
        let options = StoreOptions { log_size_max: u64::MAX, ..StoreOptions::default() };
        let (server, found) = PageServer::open_with(files, seed, options)
            .map_err(|source| OfflineError::Store { data: data.to_owned(), source })?;
        Ok(Self { server, found })
    }

    /// What of it is copied.
    pub(super) fn source<'s>(&self, folder: &'s Path) -> Result<Source<'s>, OfflineError> {
        let cut = self.server.cut().map_err(|error| OfflineError::Damaged(error.to_string()))?;
        let (log, log_head) = (cut.log.to_string(), cut.log_head);
        Ok(Source { folder, log, log_head, log_size: cut.log_size, pages_size: cut.pages_size })
    }

    fn ask(&mut self, request: StoreRequest) -> Result<Vec<StoreReply>, OfflineError> {
        self.server.serve(OwnerId(1), request);
        let mut replies = Vec::new();
        loop {
            for (_, reply) in self.server.poll() {
                if let StoreReply::Broken { error } = reply {
                    return Err(OfflineError::Failed(error.to_string()));
                }
                replies.push(reply);
            }
            if !self.server.wants_poll() {
                return Ok(replies);
            }
        }
    }

    fn documents(&mut self) -> Result<Vec<DocumentKey>, OfflineError> {
        let replies = self.ask(StoreRequest::List { request: RequestId(1) })?;
        let listed = replies.into_iter().filter_map(|reply| match reply {
            StoreReply::Documents { documents, .. } => Some(documents),
            _ => None,
        });
        let mut documents: Vec<_> = listed.flatten().filter(|it| it.user != STAGED).collect();
        documents.sort_unstable();
        Ok(documents)
    }

    /// Reads all pages of a document. Gives how many it has, and how many of them are lost; `None`
    /// if there is no such document.
    fn read(
        &mut self,
        key: &DocumentKey,
        write: &mut TakePage<'_>,
    ) -> Result<Option<(u32, usize)>, OfflineError> {
        let document = key.clone();
        let opened =
            self.ask(StoreRequest::Open { document })?.into_iter().find_map(|reply| match reply {
                StoreReply::Opened { state, .. } => Some(state),
                _ => None,
            });
        let Some(Some(state)) = opened else { return Ok(None) };
        let (db_pages, mut seen) = (state.db_pages, BTreeSet::new());
        for first in (1..=db_pages).step_by(CHUNK_PAGES as usize) {
            let last = db_pages.min(first + CHUNK_PAGES - 1);
            let (request, urgency, document) = (RequestId(2), Urgency::User, key.clone());
            let pgids = (first..=last).map(Pgid).collect();
            let read = StoreRequest::Read { request, urgency, document, pgids };
            for reply in self.ask(read)? {
                if let StoreReply::Pages { pages, .. } = reply {
                    for (pgid, page) in pages {
                        write(pgid, page.bytes())?;
                        seen.insert(pgid);
                    }
                }
            }
        }
        Ok(Some((db_pages, db_pages as usize - seen.len())))
    }

    /// Reads all there is.
    pub(super) fn check(mut self) -> Result<Found, OfflineError> {
        let mut found = Found { documents: 0, pages: 0, damages: Vec::new() };
        let mut incomplete = BTreeMap::new();
        if let Some(damage) = &self.found.damage {
            found.damages.push(format!("the log is damaged in {} places", damage.places.len()));
            let of = damage.incomplete.iter().map(|key| (key.clone(), ()));
            incomplete.extend(of);
        }
        for key in self.documents()? {
            found.documents += 1;
            let read = self.read(&key, &mut |_, _| Ok(()))?;
            let (pages, lost) = read.unwrap_or_default();
            found.pages += u64::from(pages);
            if lost > 0 || incomplete.contains_key(&key) {
                found.damages.push(format!("document {} lacks {lost} pages", key.document));
            }
        }
        Ok(found)
    }
}

impl Check {
    /// Reads each page of the store.
    ///
    /// # Errors
    ///
    /// [`CommandError::Failed`] if it is damaged.
    pub fn run(&self) -> Result<(), CommandError> {
        let Found { documents, pages, damages } = Offline::open(&self.data)?.check()?;
        match self.json {
            true => say(json!({ "documents": documents, "pages": pages, "damages": damages }))?,
            false => {
                for damage in &damages {
                    say(damage)?;
                }
                say(format_args!("{documents} documents, {pages} pages were read"))?;
            }
        }
        match damages.len() {
            0 => Ok(()),
            count => {
                let what = format!("{count} things are wrong; put a backup in its place");
                Err(OfflineError::Damaged(what).into())
            }
        }
    }
}

impl Export {
    /// Writes the document as a SQLite file.
    ///
    /// # Errors
    ///
    /// [`CommandError`]; there is no new file then.
    pub fn run(&self) -> Result<(), CommandError> {
        let no_document = || OfflineError::NoDocument(self.document.clone());
        let key = DocumentKey::new(&self.document, "").map_err(|_| no_document())?;
        let mut store = Offline::open(&self.data)?;
        let is_to_stdout = self.file == Path::new("-");
        let folder = self.file.parent().filter(|it| !it.as_os_str().is_empty());
        let folder = match is_to_stdout {
            true => std::env::temp_dir(),
            false => folder.unwrap_or(Path::new(".")).to_owned(),
        };
        let failed = |source| OfflineError::Write { path: self.file.clone(), source };
        let mut file = NamedTempFile::new_in(&folder).map_err(failed)?;
        let read = store.read(&key, &mut |pgid, bytes| {
            let at = SeekFrom::Start(u64::from(pgid.0 - 1) * PAGE_SIZE as u64);
            file.seek(at).and_then(|_| file.write_all(bytes)).map_err(failed)
        });
        let (_, count) = read?.ok_or_else(no_document)?;
        if count > 0 {
            return Err(OfflineError::Lost { document: self.document.clone(), count }.into());
        }
        if is_to_stdout {
            file.rewind().map_err(failed)?;
            io::copy(file.as_file_mut(), &mut io::stdout().lock()).map_err(failed)?;
            return Ok(());
        }
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.file).map_err(|error| failed(error.error))?;
        durable_file::sync_folder(&folder).map_err(failed)?;
        Ok(())
    }
}
