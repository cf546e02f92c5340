//! `tidelog backup` and `tidelog restore`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use tempfile::NamedTempFile;

use super::store::{Offline, OfflineError};
use super::{CommandError, FileError};
use crate::backup::{self, BackupError, Source, Writing};
use crate::durable_file;

/// Bytes that are written or read at once.
const PIECE_SIZE: usize = 256 * 1024;

/// Flags of `tidelog backup`.
#[derive(Args, Clone, Debug)]
pub struct Backup {
    /// Where to; - writes it to standard output. A file that is there is replaced once the backup
    /// is whole
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Folder of the server's store, whether the server runs or not
    #[arg(long, env = "TIDELOG_DATA", value_name = "DIR", default_value = "tidelog-data")]
    pub data: PathBuf,
}

/// Flags of `tidelog restore`.
#[derive(Args, Clone, Debug)]
pub struct Restore {
    /// The backup; - reads it from standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Folder that the server is to have: it is not there, or empty
    #[arg(long, env = "TIDELOG_DATA", value_name = "DIR")]
    pub data: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error("{0} is not empty: a backup is put into a folder of its own")]
    NotEmpty(PathBuf),
    #[error("the backup is damaged, and nothing is left of it in {0}: {1}")]
    Damaged(PathBuf, String),
}

/// Why there was no backup.
#[derive(Debug, thiserror::Error)]
enum CutError {
    #[cfg(unix)]
    #[error("the server in {data} does not answer")]
    Server {
        data: PathBuf,
        #[source]
        source: io::Error,
    },
    #[cfg(unix)]
    #[error("the server makes no backup: {0}")]
    Refused(String),
    #[error("the server was stopped meanwhile, or its log grew too long: make another backup")]
    LetGo,
}

impl Backup {
    /// Copies the store as it stands now.
    ///
    /// # Errors
    ///
    /// [`CommandError`]; there is no new file then.
    pub fn run(&self) -> Result<(), CommandError> {
        let cut = Cut::of(&self.data)?;
        if self.file == Path::new("-") {
            let sink = BufWriter::with_capacity(PIECE_SIZE, io::stdout().lock());
            return self.write(sink, cut)?.flush().map_err(CommandError::failed);
        }
        let folder = self.file.parent().filter(|it| !it.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let failed =
            |source| CommandError::failed(BackupError::Write { path: self.file.clone(), source });
        let file = NamedTempFile::new_in(folder).map_err(|source| {
            CommandError::usage(BackupError::Write { path: self.file.clone(), source })
        })?;
        let sink = BufWriter::with_capacity(PIECE_SIZE, file);
        let file =
            self.write(sink, cut)?.into_inner().map_err(|error| failed(error.into_error()))?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.file).map_err(|error| failed(error.error))?;
        durable_file::sync_folder(folder).map_err(failed)
    }

    fn write<W: Write>(&self, sink: W, mut cut: Cut) -> Result<W, CommandError> {
        let source = cut.source(&self.data)?;
        let writing = Writing::begin(sink, &self.file, &source).map_err(CommandError::failed)?;
        cut.check()?;
        writing.end().map_err(CommandError::failed)
    }
}

/// A store that is copied: one that nobody has, or one that its server holds.
enum Cut {
    Offline(Box<Offline>),
    #[cfg(unix)]
    Online(online::Held),
}

impl Cut {
    fn of(data: &Path) -> Result<Self, CommandError> {
        #[cfg(unix)]
        if let Some(held) = online::Held::of(data)? {
            return Ok(Self::Online(held));
        }
        Ok(Self::Offline(Box::new(Offline::open(data)?)))
    }

    fn source<'s>(&self, folder: &'s Path) -> Result<Source<'s>, CommandError> {
        match self {
            // Nobody writes to it for as long as it is open here.
            Self::Offline(offline) => Ok(offline.source(folder)?),
            #[cfg(unix)]
            Self::Online(held) => Ok(held.source(folder)),
        }
    }

    /// Makes sure that nothing of what was copied was written over meanwhile.
    fn check(&mut self) -> Result<(), CommandError> {
        match self {
            Self::Offline(_) => Ok(()),
            #[cfg(unix)]
            Self::Online(held) => held.check(),
        }
    }
}

/// By a server that runs.
#[cfg(unix)]
mod online {
    use std::io::{self, BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixStream;
    use std::path::{Path, PathBuf};

    use super::CutError;
    use crate::backup::Source;
    use crate::commands::CommandError;
    use crate::control::{Answered, Asked, FILE_NAME};

    pub(super) struct Held {
        data: PathBuf,
        stream: BufReader<UnixStream>,
        log: String,
        log_head: Vec<u8>,
        log_size: u64,
        pages_size: u64,
    }

    impl Held {
        /// `None` if no server listens in that folder.
        pub(super) fn of(data: &Path) -> Result<Option<Self>, CommandError> {
            let Ok(stream) = UnixStream::connect(data.join(FILE_NAME)) else { return Ok(None) };
            let mut stream = BufReader::new(stream);
            let answered = ask(&mut stream, Asked::Cut);
            let failed =
                |source| CommandError::failed(CutError::Server { data: data.to_owned(), source });
            match answered.map_err(failed)? {
                Answered::Cut { log, log_head, log_size, pages_size } => {
                    let odd = || failed(io::ErrorKind::InvalidData.into());
                    let log_head = unhex(&log_head).ok_or_else(odd)?;
                    let data = data.to_owned();
                    Ok(Some(Self { data, stream, log, log_head, log_size, pages_size }))
                }
                Answered::Error { error } => Err(CommandError::failed(CutError::Refused(error))),
                Answered::Held { .. } => Err(failed(io::ErrorKind::InvalidData.into())),
            }
        }

        pub(super) fn source<'s>(&self, folder: &'s Path) -> Source<'s> {
            let Self { log, log_head, log_size, pages_size, .. } = self;
            let (log, log_head) = (log.clone(), log_head.clone());
            Source { folder, log, log_head, log_size: *log_size, pages_size: *pages_size }
        }

        pub(super) fn check(&mut self) -> Result<(), CommandError> {
            match ask(&mut self.stream, Asked::Held) {
                Ok(Answered::Held { held: true }) => Ok(()),
                Ok(_) => Err(CommandError::failed(CutError::LetGo)),
                Err(source) => {
                    let data = self.data.clone();
                    Err(CommandError::failed(CutError::Server { data, source }))
                }
            }
        }
    }

    fn ask(stream: &mut BufReader<UnixStream>, asked: Asked) -> io::Result<Answered> {
        let mut line = serde_json::to_vec(&asked)?;
        line.push(b'\n');
        stream.get_mut().write_all(&line)?;
        line.clear();
        if stream.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }

    fn unhex(text: &str) -> Option<Vec<u8>> {
        let digits = text.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        digits.map(byte).collect()
    }
}

impl Restore {
    /// Makes a store of a backup.
    ///
    /// # Errors
    ///
    /// [`CommandError`]; the folder is as empty as it was then.
    pub fn run(&self) -> Result<(), CommandError> {
        let from: Box<dyn Read> = match self.file == Path::new("-") {
            true => Box::new(io::stdin().lock()),
            false => {
                let path = self.file.clone();
                let opened = File::open(&path);
                let failed = |source| CommandError::usage(FileError::Read { path, source });
                Box::new(opened.map_err(failed)?)
            }
        };
        let failed =
            |source| CommandError::failed(BackupError::Write { path: self.data.clone(), source });
        std::fs::create_dir_all(&self.data).map_err(failed)?;
        if std::fs::read_dir(&self.data).map_err(failed)?.next().is_some() {
            return Err(CommandError::usage(RestoreError::NotEmpty(self.data.clone())));
        }
        let from = BufReader::with_capacity(PIECE_SIZE, from);
        let restored = backup::restore(from, &self.data).map_err(CommandError::failed);
        let checked =
            restored.and_then(|content| Ok((content, Offline::open(&self.data)?.check()?)));
        match checked {
            Ok((content, found)) if found.damages.is_empty() => super::say(format_args!(
                "{} documents are in {}, as of {} (seconds since 1970); logins of before are void",
                found.documents,
                self.data.display(),
                content.at_s,
            )),
            failed => {
                // Nothing of it was there before.
                let entries = std::fs::read_dir(&self.data).into_iter().flatten().flatten();
                for path in entries.map(|entry| entry.path()) {
                    let _ = match path.is_dir() {
                        true => std::fs::remove_dir_all(path),
                        false => std::fs::remove_file(path),
                    };
                }
                let (_, found) = failed?;
                let why = found.damages.join("; ");
                Err(CommandError::failed(RestoreError::Damaged(self.data.clone(), why)))
            }
        }
    }
}

impl From<OfflineError> for CommandError {
    fn from(error: OfflineError) -> Self {
        match error {
            OfflineError::Missing(_) => Self::usage(error),
            error => Self::failed(error),
        }
    }
}
