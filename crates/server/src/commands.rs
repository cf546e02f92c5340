//! What an operator types beside `tidelog serve`.

mod backup;
mod config;
mod cut;
mod cut_file;
mod deploy;
mod document_commands;
mod events;
mod export;
mod import;
mod ready;
mod revoke;
mod running;
mod sender;
mod store;
mod token;
mod user;

use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

pub use backup::{Backup, Restore};
pub use config::Config;
pub use deploy::Deploy;
pub use document_commands::DocumentCommands;
pub use events::Events;
pub use export::Export;
pub use import::Import;
pub use ready::Ready;
pub use revoke::{Forgive, Revoke};
pub use store::Check;
pub use token::Token;
pub use user::User;

/// Why a command was not carried out.
#[derive(Debug)]
pub enum CommandError {
    /// What was typed, or a file that was named, cannot be used.
    Usage(Box<dyn Error + Send + Sync>),
    /// It was tried, and not done.
    Failed(Box<dyn Error + Send + Sync>),
}

impl CommandError {
    fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Usage(error.into())
    }

    fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(error) | Self::Failed(error)) = self;
        error.fmt(f)
    }
}

impl Error for CommandError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let (Self::Usage(error) | Self::Failed(error)) = self;
        error.source()
    }
}

/// Why nothing can be printed.
#[derive(Debug, thiserror::Error)]
#[error("--json is for standard output, and so is the file: name one")]
struct TwoOutputs;

/// Why a file is not what a command needs.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} has more than {size_max} bytes")]
    TooLarge { path: PathBuf, size_max: usize },
    #[error("{path} is no UTF-8 text")]
    NotText { path: PathBuf },
}

/// Prints a line, for somebody who may have gone.
fn say(line: impl fmt::Display) -> Result<(), CommandError> {
    writeln!(io::stdout(), "{line}").map_err(CommandError::failed)
}

/// The bytes of a file, or of what is piped in if it is called `-`.
fn read(path: &Path, size_max: usize) -> Result<Vec<u8>, CommandError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => {
            let file = std::fs::File::open(path);
            Box::new(file.map_err(|error| CommandError::usage(failed(error)))?)
        }
    };
    let read = source.take(size_max as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| CommandError::usage(failed(error)))?;
    if bytes.len() > size_max {
        return Err(CommandError::usage(FileError::TooLarge { path: path.to_owned(), size_max }));
    }
    Ok(bytes)
}

/// The text of a file, without the white space around it.
fn read_text(path: &Path, size_max: usize) -> Result<String, CommandError> {
    let text = String::from_utf8(read(path, size_max)?);
    let text =
        text.map_err(|_| CommandError::usage(FileError::NotText { path: path.to_owned() }))?;
    Ok(text.trim().to_owned())
}
