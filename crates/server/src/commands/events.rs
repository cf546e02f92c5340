//! `tidelog events`: what an operator does with the events of a document.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::CommandError;
use super::sender::{Query, Sender};

/// How often a server is asked for what is new.
const ASKS_EACH: Duration = Duration::from_secs(1);

/// Flags of `tidelog events`.
#[derive(Args, Clone, Debug)]
pub struct Events {
    /// What to do with them
    #[command(subcommand)]
    pub deed: EventsDeed,
}

/// What to do with events.
#[derive(Clone, Debug, Subcommand)]
pub enum EventsDeed {
    /// Print events that the server has confirmed, oldest first, each as a line of JSON
    Tail(Tail),
}

/// Flags of `tidelog events tail`.
#[derive(Args, Clone, Debug)]
pub struct Tail {
    /// Name of the document
    #[arg(value_name = "DOCUMENT")]
    pub document: String,

    /// Of aggregates of this name alone
    #[arg(long, value_name = "NAME")]
    pub aggregate: Option<String>,

    /// Of this stream alone
    #[arg(long, value_name = "ID")]
    pub stream: Option<String>,

    /// Of this type alone
    #[arg(long = "type", value_name = "NAME")]
    pub name: Option<String>,

    /// Those behind this sequence number
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    pub after: u64,

    /// Go on with those that happen from then on
    #[arg(long)]
    pub follow: bool,

    /// Address of the server: <https://sync.example.org>
    #[arg(long, env = "TIDELOG_SERVER", value_name = "URL")]
    pub server: String,

    /// File with a token that has the role read on the document. Without it, the token is
    /// TIDELOG_TOKEN of the environment; a server with --dev needs none
    #[arg(long, env = "TIDELOG_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl Events {
    /// Does it, and prints what came of that.
    ///
    /// # Errors
    ///
    /// [`CommandError`]
    pub fn run(&self) -> Result<(), CommandError> {
        let EventsDeed::Tail(tail) = &self.deed;
        tail.run()
    }
}

impl Tail {
    fn run(&self) -> Result<(), CommandError> {
        let sender = Sender::new(&self.server, self.token_file.as_deref())?;
        let wanted = [
            ("aggregate", self.aggregate.as_deref()),
            ("stream", self.stream.as_deref()),
            ("type", self.name.as_deref()),
        ];
        let query = Query::of(&self.document, "events", &wanted);
        let mut after = self.after;
        loop {
            after = sender.print_lines(&query, after)?;
            if !self.follow {
                return Ok(());
            }
            sleep(ASKS_EACH);
        }
    }
}
