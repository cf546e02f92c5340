//! The server that runs in a folder, as commands reach it.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
#[cfg(not(unix))]
use std::net::TcpStream as Stream;
#[cfg(unix)]
use std::os::unix::net::UnixStream as Stream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::CommandError;
use crate::control::{Answered, Asked};

/// Why a server that runs has not done what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunningError {
    #[error("the server in {data} does not answer")]
    Gone {
        data: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("the server in {0} answers something else: it is of another release")]
    Odd(PathBuf),
}

/// A server that listens to commands.
pub(super) struct Running {
    data: PathBuf,
    stream: BufReader<Stream>,
}

impl Running {
    /// `None` if no server listens in that folder.
    pub(super) fn of(data: &Path) -> Result<Option<Self>, CommandError> {
        let data = data.to_owned();
        match connect(&data) {
            Ok(stream) => Ok(stream.map(|stream| Self { data, stream: BufReader::new(stream) })),
            Err(source) => Err(CommandError::failed(RunningError::Gone { data, source })),
        }
    }

    /// Waits for each answer for so long at most.
    pub(super) fn within(self, time: Duration) -> Result<Self, CommandError> {
        let set = self.stream.get_ref().set_read_timeout(Some(time));
        set.map_err(|source| self.gone(source))?;
        Ok(self)
    }

    /// What is answered, unless that is an error.
    pub(super) fn ask(&mut self, asked: &Asked) -> Result<Answered, CommandError> {
        let mut line = serde_json::to_vec(asked).expect("BUG: texts and numbers");
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(|source| self.gone(source))?;
        self.hear()
    }

    /// Hands these bytes over, and gives what is answered then.
    pub(super) fn hand_over(&mut self, from: &mut impl Read) -> Result<Answered, CommandError> {
        // Whoever is refused meanwhile is told why.
        let copied = io::copy(from, self.stream.get_mut());
        let answered = self.hear()?;
        copied.map_err(|source| self.gone(source))?;
        Ok(answered)
    }

    /// So many bytes that follow an answer.
    pub(super) fn take(&mut self, size: u64) -> impl Read {
        self.stream.by_ref().take(size)
    }

    pub(super) fn gone(&self, source: io::Error) -> CommandError {
        CommandError::failed(RunningError::Gone { data: self.data.clone(), source })
    }

    pub(super) fn odd(&self) -> CommandError {
        CommandError::failed(RunningError::Odd(self.data.clone()))
    }

    fn hear(&mut self) -> Result<Answered, CommandError> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => return Err(self.gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(source) => return Err(self.gone(source)),
        }
        match serde_json::from_slice(&line) {
            Ok(Answered::Error { error }) => {
                Err(CommandError::failed(RunningError::Refused(error)))
            }
            Ok(answered) => Ok(answered),
            Err(_) => Err(self.odd()),
        }
    }
}

#[cfg(unix)]
fn connect(data: &Path) -> io::Result<Option<Stream>> {
    match Stream::connect(data.join(crate::control::FILE_NAME)) {
        Ok(stream) => Ok(Some(stream)),
        // There is none, or one that a server left which was killed.
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            // Of a path that is longer than that of a socket may be no server listens either.
            io::ErrorKind::InvalidInput => Ok(None),
            _ => Err(error),
        },
    }
}

/// Elsewhere no server listens to commands.
#[cfg(not(unix))]
fn connect(_: &Path) -> io::Result<Option<Stream>> {
    Ok(None)
}
