//! `tidelog user`: what concerns the built-in users.

use std::io::{self, BufRead, IsTerminal, Read};

use clap::{Args, Subcommand};
use serde_json::json;
use tidelog_access::PasswordHash;
use tidelog_types::limits::PASSWORD_SIZE_MAX;

use super::{CommandError, say};
use crate::settings::without_line_break;

/// `tidelog user`.
#[derive(Args, Clone, Debug)]
pub struct User {
    /// What is to be done.
    #[command(subcommand)]
    pub command: UserCommand,
}

/// What can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum UserCommand {
    /// Read a password from standard input, and print its argon2id hash as a PHC string, for
    /// `TIDELOG_ADMIN_PASSWORD_HASH` and its like. A line break at its end does not count
    Hash {
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, thiserror::Error)]
enum HashError {
    #[error("cannot read the password")]
    Read(#[source] io::Error),
    #[error("the password is no UTF-8 text")]
    NotText,
}

impl User {
    /// Does it.
    ///
    /// # Errors
    ///
    /// [`CommandError::Usage`] if there is no password that could be used.
    pub fn run(&self) -> Result<(), CommandError> {
        let UserCommand::Hash { json } = self.command;
        let password = password().map_err(CommandError::usage)?;
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(CommandError::failed)?;
        let hash = PasswordHash::new(&password, salt).map_err(CommandError::usage)?;
        match json {
            true => say(json!({ "hash": hash.to_phc() })),
            false => say(hash.to_phc()),
        }
    }
}

fn password() -> Result<String, HashError> {
    let mut bytes = Vec::new();
    let mut stdin = io::stdin().lock();
    // More than that is too long, whatever else comes.
    let size_max = PASSWORD_SIZE_MAX as u64 + 3;
    let read = if stdin.is_terminal() {
        eprintln!("Password, then Enter:");
        let _hidden = hidden::Hidden::new(&stdin);
        stdin.by_ref().take(size_max).read_until(b'\n', &mut bytes)
    } else {
        stdin.take(size_max).read_to_end(&mut bytes)
    };
    read.map_err(HashError::Read)?;
    String::from_utf8(without_line_break(&bytes).to_vec()).map_err(|_| HashError::NotText)
}

#[cfg(unix)]
mod hidden {
    use std::io::StdinLock;
    use std::os::fd::AsFd;

    use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

    /// While it is there, the terminal does not show what is typed.
    pub(super) struct Hidden(Option<Termios>);

    impl Hidden {
        /// Where the terminal cannot be told so, it shows it.
        pub(super) fn new(stdin: &StdinLock<'_>) -> Self {
            let before = tcgetattr(stdin.as_fd()).ok();
            if let Some(before) = &before {
                let mut silent = before.clone();
                silent.local_modes.remove(LocalModes::ECHO);
                let _ = tcsetattr(stdin.as_fd(), OptionalActions::Flush, &silent);
            }
            Self(before)
        }
    }

    impl Drop for Hidden {
        fn drop(&mut self) {
            if let Some(before) = &self.0 {
                let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, before);
            }
        }
    }
}

#[cfg(not(unix))]
mod hidden {
    use std::io::StdinLock;

    /// Here nothing is known of the terminal.
    pub(super) struct Hidden;

    impl Hidden {
        pub(super) fn new(_: &StdinLock<'_>) -> Self {
            Self
        }
    }
}
