//! `tidelog events inspect`: what there is of each stream.

use std::path::PathBuf;

use clap::Args;

use super::super::CommandError;
use super::super::sender::{Query, Sender};
use crate::http::PAGE_STREAMS_MAX;

/// Flags of `tidelog events inspect`.
#[derive(Args, Clone, Debug)]
pub struct Inspect {
    /// Name of the document
    #[arg(value_name = "DOCUMENT")]
    pub document: String,

    /// Of streams of this aggregate alone
    #[arg(long, value_name = "NAME")]
    pub aggregate: Option<String>,

    /// Of this stream alone
    #[arg(long, value_name = "ID", requires = "aggregate", conflicts_with_all = ["after", "limit"])]
    pub stream: Option<String>,

    /// Those behind this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: u64,

    /// So many at most
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,

    /// Address of the server: <https://sync.example.org>
    #[arg(long, env = "TIDELOG_SERVER", value_name = "URL")]
    pub server: String,

    /// File with a token that has the role admin on the document. Without it, the token is
    /// TIDELOG_TOKEN of the environment; a server with --dev needs none
    #[arg(long, env = "TIDELOG_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl Inspect {
    pub(super) fn run(&self) -> Result<(), CommandError> {
        let sender = Sender::new(&self.server, self.token_file.as_deref())?;
        let (mut after, mut left) = (self.after, self.limit);
        loop {
            let limit = left.map(|left| left.min(PAGE_STREAMS_MAX).to_string());
            let wanted = [
                ("aggregate", self.aggregate.as_deref()),
                ("stream", self.stream.as_deref()),
                ("limit", limit.as_deref()),
            ];
            let page = sender.print_page(&Query::of(&self.document, "streams", &wanted), after)?;
            after = page.after;
            left = left.map(|left| left.saturating_sub(page.count));
            if !page.has_more || left == Some(0) {
                return Ok(());
            }
        }
    }
}
