//! A store as it stands now: of a server that runs, or of none.

use std::path::{Path, PathBuf};

use tidelog_disk::StoreFiles;

use super::CommandError;
use super::cut_file::CutFile;
use super::running::Running;
use super::store::{AnyDisk, OfflineError, Reader};
use crate::backup::Source;
use crate::control::{Answered, Asked};

/// What became of a cut.
#[derive(Debug, thiserror::Error)]
enum CutError {
    #[error("the server was stopped meanwhile, or its log grew too long: try again")]
    LetGo,
}

/// A store that is copied or checked.
pub(super) enum Cut {
    /// Nobody else has it for as long as it is open here.
    Offline(Box<Reader>),
    /// Its server writes nothing over that this speaks of.
    Held(Box<Held>),
}

pub(super) struct Held {
    data: PathBuf,
    running: Running,
    log: String,
    log_head: Vec<u8>,
    log_size: u64,
    pages_size: u64,
}

impl Cut {
    pub(super) fn of(data: &Path) -> Result<Self, CommandError> {
        let Some(mut running) = Running::of(data)? else {
            return Ok(Self::Offline(Box::new(Reader::of_folder(data)?)));
        };
        let Answered::Cut { log, log_head, log_size, pages_size } = running.ask(&Asked::Cut)?
        else {
            return Err(running.odd());
        };
        let log_head = unhex(&log_head).ok_or_else(|| running.odd())?;
        let data = data.to_owned();
        Ok(Self::Held(Box::new(Held { data, running, log, log_head, log_size, pages_size })))
    }

    /// What of it is copied.
    pub(super) fn source<'s>(&self, folder: &'s Path) -> Result<Source<'s>, CommandError> {
        match self {
            Self::Offline(reader) => Ok(reader.source(folder)?),
            Self::Held(held) => {
                let Held { log, log_head, log_size, pages_size, .. } = &**held;
                let (log, log_head) = (log.clone(), log_head.clone());
                let (log_size, pages_size) = (*log_size, *pages_size);
                Ok(Source { folder, log, log_head, log_size, pages_size })
            }
        }
    }

    /// Reads all of it by `read`, and makes sure that it was as it stands all the time.
    pub(super) fn read<T>(
        self,
        read: impl FnOnce(Reader) -> Result<T, OfflineError>,
    ) -> Result<T, CommandError> {
        match self {
            Self::Offline(reader) => Ok(read(*reader)?),
            Self::Held(mut held) => {
                let found = held.reader().and_then(read);
                // What was written over meanwhile looks like damage.
                held.check()?;
                Ok(found?)
            }
        }
    }

    /// Makes sure that nothing of what was copied was written over meanwhile.
    pub(super) fn check(&mut self) -> Result<(), CommandError> {
        match self {
            Self::Offline(_) => Ok(()),
            Self::Held(held) => held.check(),
        }
    }
}

impl Held {
    fn reader(&self) -> Result<Reader, OfflineError> {
        let [_, _, pages, _] = StoreFiles::<()>::NAMES;
        let files = StoreFiles::open_each(|name| {
            let path = self.data.join(name);
            let opened = if name == self.log {
                CutFile::open(&path, self.log_head.clone(), self.log_size)
            } else if name == pages {
                CutFile::open(&path, Vec::new(), self.pages_size)
            } else {
                Ok(CutFile::default())
            };
            let file = opened.map_err(|source| OfflineError::Read { path, source })?;
            Ok(Box::new(file) as AnyDisk)
        })?;
        Reader::open(&self.data, files)
    }

    fn check(&mut self) -> Result<(), CommandError> {
        match self.running.ask(&Asked::Held)? {
            Answered::Held { held: true } => Ok(()),
            Answered::Held { held: false } => Err(CommandError::failed(CutError::LetGo)),
            _ => Err(self.running.odd()),
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(byte).collect()
}
