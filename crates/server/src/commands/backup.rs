//! `tidelog backup` and `tidelog restore`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tempfile::NamedTempFile;

use super::cut::Cut;
use super::store::{OfflineError, Reader};
use super::{CommandError, FileError, TwoOutputs, say};
use crate::backup::{self, BackupError, Writing};
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

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
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

    /// Tokens that the app has signed before hold on, as far as none of them was ended since the
    /// backup was made: it does not know which were
    #[arg(long)]
    pub keep_tokens: bool,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error("{0} is not empty: a backup is put into a folder of its own")]
    NotEmpty(PathBuf),
    #[error("the backup is damaged, and nothing is left of it in {0}: {1}")]
    Damaged(PathBuf, String),
}

impl Backup {
    /// Copies the store as it stands now.
    ///
    /// # Errors
    ///
    /// [`CommandError`]; there is no new file then.
    pub fn run(&self) -> Result<(), CommandError> {
        if self.json && self.file == Path::new("-") {
            return Err(CommandError::usage(TwoOutputs));
        }
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
        let file = file.persist(&self.file).map_err(|error| failed(error.error))?;
        durable_file::sync_folder(folder).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        match self.json {
            true => say(json!({ "file": self.file.display().to_string(), "size_bytes": size })),
            false => Ok(()),
        }
    }

    fn write<W: Write>(&self, sink: W, mut cut: Cut) -> Result<W, CommandError> {
        let source = cut.source(&self.data)?;
        let writing = Writing::begin(sink, &self.file, &source).map_err(CommandError::failed)?;
        cut.check()?;
        writing.end().map_err(CommandError::failed)
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
        let restored =
            backup::restore(from, &self.data, self.keep_tokens).map_err(CommandError::failed);
        let checked =
            restored.and_then(|content| Ok((content, Reader::of_folder(&self.data)?.check()?)));
        match checked {
            Ok((content, found)) if found.damages.is_empty() && self.json => say(json!({
                "documents": found.documents,
                "data": self.data.display().to_string(),
                "at_s": content.at_s,
            })),
            Ok((content, found)) if found.damages.is_empty() => say(format_args!(
                "{} documents are in {}, as of {} (seconds since 1970); {} of before are void",
                found.documents,
                self.data.display(),
                content.at_s,
                if self.keep_tokens { "logins" } else { "tokens" },
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
