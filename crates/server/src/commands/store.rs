//! A store as commands read it, and `tidelog check`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tidelog_disk::{Disk, DiskError, NativeDisk, StoreFiles};
use tidelog_pages::{
    OpenError, OwnerId, PageServer, RecoveryReport, RequestId, Seed, StoreOptions, StoreReply,
    StoreRequest, Urgency,
};
use tidelog_room::{ARCHIVE, STAGED};
use tidelog_types::{DocumentKey, Pgid};

use super::cut::Cut;
use super::{CommandError, say};
use crate::backup::Source;

/// Pages that are asked for at once.
const CHUNK_PAGES: u32 = 256;

/// Flags of `tidelog check`.
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// Folder of the server's store, whether the server runs or not
    #[arg(long, env = "TIDELOG_DATA", value_name = "DIR", default_value = "tidelog-data")]
    pub data: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Why a store cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum OfflineError {
    #[error("there is no store in {0}")]
    Missing(PathBuf),
    #[error("a server has {0} open, and does not listen to commands: stop it, or try again")]
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
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Takes a page of a document.
pub(super) type TakePage<'t> = dyn FnMut(Pgid, &[u8]) -> Result<(), OfflineError> + 't;

/// A file of a store, wherever that is.
pub(super) type AnyDisk = Box<dyn Disk>;

/// A store that is read, page by page.
pub(super) struct Reader {
    server: PageServer<AnyDisk>,
    found: RecoveryReport,
}

/// What is found in one.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) documents: usize,
    pub(super) pages: u64,
    pub(super) damages: Vec<String>,
}

impl Reader {
    /// That of a store which no server has, and none gets for as long as it is there.
    pub(super) fn of_folder(data: &Path) -> Result<Self, OfflineError> {
        let StoreFiles { log_a, log_b, pages, spare } = hold(data)?;
        let any = |disk: NativeDisk| Box::new(disk) as AnyDisk;
        let (log_a, log_b, pages, spare) = (any(log_a), any(log_b), any(pages), any(spare));
        Self::open(data, StoreFiles { log_a, log_b, pages, spare })
    }

    /// That of a store with these files, which is in `data`.
    pub(super) fn open(data: &Path, files: StoreFiles<AnyDisk>) -> Result<Self, OfflineError> {
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
    pub(super) fn read(
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
            let is_archive = key.user == ARCHIVE;
            found.documents += usize::from(!is_archive);
            let read = self.read(&key, &mut |_, _| Ok(()))?;
            let (pages, lost) = read.unwrap_or_default();
            found.pages += u64::from(pages);
            if lost > 0 || incomplete.contains_key(&key) {
                let of = if is_archive { "the archive of document" } else { "document" };
                found.damages.push(format!("{of} {} lacks {lost} pages", key.document));
            }
        }
        Ok(found)
    }
}

/// The files of a store, which no server gets for as long as they are kept.
pub(super) fn hold(data: &Path) -> Result<StoreFiles<NativeDisk>, OfflineError> {
    check_is_store(data)?;
    match StoreFiles::in_folder(data) {
        Ok(files) => Ok(files),
        Err(DiskError::Busy) => Err(OfflineError::InUse(data.to_owned())),
        Err(source) => Err(OfflineError::Disk { data: data.to_owned(), source }),
    }
}

/// Makes sure that there is a store, before one is made.
pub(super) fn check_is_store(data: &Path) -> Result<(), OfflineError> {
    let [_, _, pages, _] = StoreFiles::<()>::NAMES;
    match data.join(pages).is_file() {
        true => Ok(()),
        false => Err(OfflineError::Missing(data.to_owned())),
    }
}

impl Check {
    /// Reads each page of the store.
    ///
    /// # Errors
    ///
    /// [`CommandError::Failed`] if it is damaged.
    pub fn run(&self) -> Result<(), CommandError> {
        let Found { documents, pages, damages } = Cut::of(&self.data)?.read(Reader::check)?;
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
