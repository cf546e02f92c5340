//! `tidelog export`: a document becomes a SQLite file.

use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tempfile::NamedTempFile;
use tidelog_types::limits::PAGE_SIZE;
use tidelog_types::{DocumentKey, Pgid};

use super::running::Running;
use super::store::{OfflineError, Reader};
use super::{CommandError, TwoOutputs, say};
use crate::control::{Answered, Asked};
use crate::durable_file;

/// Flags of `tidelog export`.
#[derive(Args, Clone, Debug)]
pub struct Export {
    /// The document's name
    #[arg(value_name = "ID")]
    pub document: String,

    /// Where to; - writes it to standard output. A file that is there is replaced once the document
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

impl Export {
    /// Writes the document as a SQLite file.
    ///
    /// # Errors
    ///
    /// [`CommandError`]; there is no new file then.
    pub fn run(&self) -> Result<(), CommandError> {
        let is_to_stdout = self.file == Path::new("-");
        if is_to_stdout && self.json {
            return Err(CommandError::usage(TwoOutputs));
        }
        let folder = self.file.parent().filter(|it| !it.as_os_str().is_empty());
        let folder = match is_to_stdout {
            true => std::env::temp_dir(),
            false => folder.unwrap_or(Path::new(".")).to_owned(),
        };
        let failed = |source| self.unwritten(source);
        let mut file = NamedTempFile::new_in(&folder).map_err(failed)?;
        let size = match Running::of(&self.data)? {
            Some(running) => self.of_running(running, &mut file)?,
            None => self.of_stopped(&mut file)?,
        };
        if is_to_stdout {
            file.rewind().map_err(failed)?;
            io::copy(file.as_file_mut(), &mut io::stdout().lock()).map_err(failed)?;
            return Ok(());
        }
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.file).map_err(|error| failed(error.error))?;
        durable_file::sync_folder(&folder).map_err(failed)?;
        match self.json {
            true => say(json!({
                "document": self.document,
                "file": self.file.display().to_string(),
                "size_bytes": size,
            })),
            false => Ok(()),
        }
    }

    fn of_running(
        &self,
        mut running: Running,
        file: &mut NamedTempFile,
    ) -> Result<u64, CommandError> {
        let asked = Asked::Export { document: self.document.clone() };
        let Answered::Export { export_size } = running.ask(&asked)? else {
            return Err(running.odd());
        };
        let copied = io::copy(&mut running.take(export_size), file);
        match copied.map_err(|source| self.unwritten(source))? {
            size if size == export_size => Ok(size),
            _ => Err(running.gone(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn of_stopped(&self, file: &mut NamedTempFile) -> Result<u64, CommandError> {
        let mut store = Reader::of_folder(&self.data)?;
        let no_document = || OfflineError::NoDocument(self.document.clone());
        let key = DocumentKey::new(&self.document, "").map_err(|_| no_document())?;
        let write = &mut |pgid: Pgid, bytes: &[u8]| {
            let at = SeekFrom::Start(u64::from(pgid.0 - 1) * PAGE_SIZE as u64);
            let path = || self.file.clone();
            let written = file.seek(at).and_then(|_| file.write_all(bytes));
            written.map_err(|source| OfflineError::Write { path: path(), source })
        };
        let (db_pages, lost) = store.read(&key, write)?.ok_or_else(no_document)?;
        match lost {
            0 => Ok(u64::from(db_pages) * PAGE_SIZE as u64),
            count => Err(OfflineError::Lost { document: self.document.clone(), count }.into()),
        }
    }

    fn unwritten(&self, source: io::Error) -> CommandError {
        OfflineError::Write { path: self.file.clone(), source }.into()
    }
}
