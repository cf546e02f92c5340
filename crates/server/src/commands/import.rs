//! `tidelog import`: a SQLite file becomes a document.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use clap::Args;
use futures_util::{Stream, stream};
use serde_json::json;
use tidelog_types::limits::{IMPORT_SIZE_MAX, Limits};
use tokio::runtime::Runtime;

use super::running::Running;
use super::store::{OfflineError, check_is_store};
use super::{CommandError, FileError, say};
use crate::control::{Answered, Asked};
use crate::house::House;
use crate::import::{self, ImportError, Imported};
use crate::server::ServerError;
use crate::settings::{AccessSettings, ServeSettings};

/// Bytes of the file that are read at once.
const PIECE_SIZE: usize = 256 * 1024;

/// Flags of `tidelog import`.
#[derive(Args, Clone, Debug)]
pub struct Import {
    /// What the document is to be called; there is none of that name yet
    #[arg(value_name = "ID")]
    pub document: String,

    /// A SQLite file that was exported, its rows changed since or not; - reads it from standard
    /// input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Name of its doctype, the newest deployed one of which it has the schema of, or an older one
    #[arg(long, value_name = "NAME")]
    pub doctype: String,

    /// Folder of the server's store, whether the server runs or not
    #[arg(long, env = "TIDELOG_DATA", value_name = "DIR", default_value = "tidelog-data")]
    pub data: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

impl Import {
    /// Makes the document, and prints where its journal stands.
    ///
    /// # Errors
    ///
    /// [`CommandError`]; nothing has changed then, unless the answer was lost.
    pub fn run(&self) -> Result<(), CommandError> {
        let mut file = self.open()?;
        let imported = match Running::of(&self.data)? {
            Some(running) => self.by_running(running, &mut file)?,
            None => self.by_stopped(file)?,
        };
        let Imported { document, doctype, journal, next_lsn } = imported;
        match self.json {
            true => say(json!({
                "document": document, "doctype": doctype, "journal": journal, "next_lsn": next_lsn,
            })),
            false => say(format_args!("document {document} is there, of doctype {doctype}")),
        }
    }

    /// The file, from its begin. Of what is piped in nobody knows the size before it ends.
    fn open(&self) -> Result<File, CommandError> {
        let path = || self.file.clone();
        let unread = |source| CommandError::usage(FileError::Read { path: path(), source });
        if self.file != Path::new("-") {
            return File::open(&self.file).map_err(unread);
        }
        let mut file = tempfile::tempfile().map_err(CommandError::failed)?;
        let mut piped = io::stdin().lock().take(IMPORT_SIZE_MAX + 1);
        io::copy(&mut piped, &mut file).map_err(unread)?;
        file.rewind().map_err(CommandError::failed)?;
        Ok(file)
    }

    fn by_running(&self, mut running: Running, file: &mut File) -> Result<Imported, CommandError> {
        let path = || self.file.clone();
        let unread = |source| CommandError::usage(FileError::Read { path: path(), source });
        let size = file.metadata().map_err(unread)?.len();
        let (document, doctype) = (self.document.clone(), self.doctype.clone());
        match running.ask(&Asked::Import { document, doctype, size })? {
            Answered::Wanted { wanted: true } => {}
            _ => return Err(running.odd()),
        }
        // It may grow meanwhile.
        match running.hand_over(&mut file.take(size))? {
            Answered::Imported(imported) => Ok(imported),
            _ => Err(running.odd()),
        }
    }

    /// As a server without a door.
    fn by_stopped(&self, file: File) -> Result<Imported, CommandError> {
        check_is_store(&self.data)?;
        let settings = ServeSettings {
            data: self.data.clone(),
            listen: ([127, 0, 0, 1], 0).into(),
            // Nobody comes in who would need a token.
            dev: true,
            serve: None,
            documents_max: Limits::DEFAULT.documents_max,
            connections_max: 0,
            access: AccessSettings::default(),
            tls: None,
        };
        let runtime = Runtime::new().map_err(CommandError::failed)?;
        runtime.block_on(async {
            let house = House::open(&settings).map_err(|error| match error {
                ServerError::InUse { data } => OfflineError::InUse(data).into(),
                error => CommandError::failed(error),
            })?;
            let imported = self.into(&house, file).await;
            house.close().await;
            imported.map_err(CommandError::failed)
        })
    }

    async fn into(&self, house: &House, file: File) -> Result<Imported, ImportError> {
        let import = import::prepare(&house.shared, &self.document, &self.doctype, None).await?;
        let came = import.receive(std::pin::pin!(pieces(file)), &|| Ok(())).await?;
        came.plant(|| Ok(())).await
    }
}

/// A file as it comes over HTTP.
fn pieces(file: File) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(file, async |mut file| {
        let mut piece = Vec::new();
        (&mut file).take(PIECE_SIZE as u64).read_to_end(&mut piece)?;
        Ok((!piece.is_empty()).then(|| (Bytes::from(piece), file)))
    })
}
